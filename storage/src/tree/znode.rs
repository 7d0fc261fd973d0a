//! A znode, and its row in `tree.redb`.

use super::{AclId, TreeError, digest};
use crate::{Kind, Stat};
use std::sync::Arc;

/// One znode at one moment; never changed, only replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Znode {
    /// zxid of the create.
    pub czxid: i64,
    /// zxid of the last setData, or the create.
    pub mzxid: i64,
    /// zxid of the last create or delete of a child, or the own create.
    pub pzxid: i64,
    /// ms since 1970 at the create.
    pub ctime: i64,
    /// ms since 1970 at the last setData, or the create.
    pub mtime: i64,
    /// The raw `ephemeralOwner` field, see [`Kind::from_owner`].
    pub owner: i64,
    /// The access control list, see [`super::Snapshot::acl`].
    pub acl: AclId,
    /// Number of setData.
    pub version: i32,
    /// Creates of children, ever. Clients see another number, see [`Stat::cversion`].
    pub cversion: i32,
    /// Number of setACL.
    pub aversion: i32,
    /// Number of children.
    pub num_children: u32,
    /// This znode's part of the tree's digest; not kept on disk.
    pub(super) digest: u32,
    /// `None` is null, which is not the same as empty.
    pub data: Option<Arc<[u8]>>,
}

impl Znode {
    /// Bytes of a row before the data.
    const HEADER: usize = 6 * 8 + 8 + 4 * 4 + 1;

    /// As clients see it.
    pub fn stat(&self) -> Stat {
        Stat {
            czxid: self.czxid,
            mzxid: self.mzxid,
            ctime: self.ctime,
            mtime: self.mtime,
            version: self.version,
            cversion: self.cversion.wrapping_mul(2).wrapping_sub(self.num_children as i32),
            aversion: self.aversion,
            ephemeral_owner: self.kind().client_owner(),
            data_length: self.data_bytes() as i32,
            num_children: self.num_children as i32,
            pzxid: self.pzxid,
        }
    }

    /// Persistent, ephemeral, container or TTL.
    pub fn kind(&self) -> Kind {
        Kind::from_owner(self.owner)
    }

    /// Length of the data; 0 for null.
    pub fn data_bytes(&self) -> u64 {
        self.data.as_ref().map_or(0, |data| data.len() as u64)
    }

    /// The row: fixed-width little-endian fields, then the data. `row` is cleared first.
    pub(super) fn encode(&self, row: &mut Vec<u8>) {
        row.clear();
        for field in [self.czxid, self.mzxid, self.pzxid, self.ctime, self.mtime, self.owner] {
            row.extend_from_slice(&field.to_le_bytes());
        }
        row.extend_from_slice(&self.acl.0.to_le_bytes());
        for field in [self.version, self.cversion, self.aversion, self.num_children as i32] {
            row.extend_from_slice(&field.to_le_bytes());
        }
        row.push(self.data.is_some() as u8);
        assert_eq!(row.len(), Self::HEADER);
        if let Some(data) = &self.data {
            row.extend_from_slice(data);
        }
    }

    /// Back from [`Znode::encode`]. `path` is for the digest and for the error.
    pub(super) fn decode(path: &str, row: &[u8]) -> Result<Znode, TreeError> {
        let damaged = || TreeError::damaged(format!("the row of znode {path:?}"));
        let (header, data) = row.split_at_checked(Self::HEADER).ok_or_else(damaged)?;
        let long = |at: usize| i64::from_le_bytes(header[at * 8..at * 8 + 8].try_into().expect("8 bytes"));
        let int =
            |at: usize| i32::from_le_bytes(header[56 + at * 4..60 + at * 4].try_into().expect("4 bytes"));
        let data = match header[Self::HEADER - 1] {
            0 if data.is_empty() => None,
            1 => Some(Arc::from(data)),
            _ => return Err(damaged()),
        };
        let mut znode = Znode {
            czxid: long(0),
            mzxid: long(1),
            pzxid: long(2),
            ctime: long(3),
            mtime: long(4),
            owner: long(5),
            acl: AclId(long(6) as u64),
            version: int(0),
            cversion: int(1),
            aversion: int(2),
            num_children: int(3) as u32,
            digest: 0,
            data,
        };
        znode.digest = digest::of(path, &znode);
        Ok(znode)
    }

    /// A znode of a fresh tree, as ZooKeeper makes them: everything 0, data empty.
    pub(super) fn primordial(path: &str, num_children: u32, acl: AclId, aversion: i32) -> Znode {
        let mut znode = Znode {
            czxid: 0,
            mzxid: 0,
            pzxid: 0,
            ctime: 0,
            mtime: 0,
            owner: 0,
            acl,
            version: 0,
            cversion: 0,
            aversion,
            num_children,
            digest: 0,
            data: Some(Arc::from(&[][..])),
        };
        znode.digest = digest::of(path, &znode);
        znode
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_keeps_everything_and_null_apart_from_empty() {
        for data in [None, Some(Arc::from(&b""[..])), Some(Arc::from(&b"xyz"[..]))] {
            let mut znode = Znode {
                czxid: 1,
                mzxid: 2,
                pzxid: 3,
                ctime: 4,
                mtime: 5,
                owner: i64::MIN,
                acl: AclId(7),
                version: -8,
                cversion: i32::MAX,
                aversion: 10,
                num_children: 11,
                digest: 0,
                data,
            };
            znode.digest = digest::of("/a", &znode);
            let mut row = Vec::new();
            znode.encode(&mut row);
            assert_eq!(Znode::decode("/a", &row).unwrap(), znode);
            assert!(Znode::decode("/a", &row[..Znode::HEADER - 1]).is_err());
        }
    }

    #[test]
    fn clients_see_creates_plus_deletes_as_cversion() {
        let mut znode = Znode::primordial("/", 1, AclId::OPEN, 0);
        assert_eq!(znode.stat().cversion, -1);
        znode.cversion = 3;
        assert_eq!(znode.stat().cversion, 5);
    }
}
