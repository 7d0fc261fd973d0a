//! ZooKeeper's tree digest, version 2: the sum of a CRC-32 for each znode, so that it is kept up to date by
//! subtracting what a znode was and adding what it is.

use super::Znode;
use super::compose::Persisted;

/// Whose digest counts nothing: quota statistics are kept by each server for itself.
const EXCLUDED: &str = "/zookeeper/";

/// Has the znode at `path` no part in the digest?
pub(super) fn is_excluded(path: &str) -> bool {
    path.starts_with(EXCLUDED)
}

/// The part of the tree's digest that `znode` at `path` has: CRC-32 of path, data and 60 bytes of Stat,
/// big-endian. The root's path counts as empty.
pub(super) fn of(path: &str, znode: &Znode) -> u32 {
    if is_excluded(path) {
        return 0;
    }
    let Znode { czxid, mzxid, pzxid, ctime, mtime, owner, version, cversion, aversion, .. } = *znode;
    let stat = Persisted { czxid, mzxid, pzxid, ctime, mtime, owner, version, cversion, aversion };
    with_stat(of_content(path, znode.data.as_deref()), &stat)
}

/// CRC-32 of path and data, which come first.
pub(super) fn of_content(path: &str, data: Option<&[u8]>) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(if path == "/" { b"" } else { path.as_bytes() });
    if let Some(data) = data {
        crc.update(data);
    }
    crc.finalize()
}

/// The CRC-32 that begins with `content`, with the Stat behind it.
pub(super) fn with_stat(content: u32, persisted: &Persisted) -> u32 {
    let Persisted { czxid, mzxid, pzxid, ctime, mtime, owner, version, cversion, aversion } = persisted;
    let mut stat = [0; 60];
    for (at, field) in [czxid, mzxid, pzxid, ctime, mtime].iter().enumerate() {
        stat[at * 8..at * 8 + 8].copy_from_slice(&field.to_be_bytes());
    }
    for (at, field) in [version, cversion, aversion].iter().enumerate() {
        stat[40 + at * 4..44 + at * 4].copy_from_slice(&field.to_be_bytes());
    }
    stat[52..].copy_from_slice(&owner.to_be_bytes());
    let mut crc = crc32fast::Hasher::new_with_initial(content);
    crc.update(&stat);
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::AclId;

    #[test]
    fn a_fresh_tree_has_the_digest_of_a_fresh_zookeeper() {
        let sum: u64 = ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"]
            .iter()
            .map(|path| of(path, &Znode::primordial(path, 0, AclId::OPEN, 0)) as u64)
            .sum();
        // What a new ZooKeeper 3.9 logs as its first tree digest.
        assert_eq!(sum, 1_371_985_504);
    }
}
