//! A snapshot file, unpacked: `FileSnap`, `SerializeUtils` and `DataTree.serialize` of ZooKeeper 3.4 to 3.9.
//!
//! ```text
//!  magic "ZKSN" │ version int │ dbid long
//!  count int, (session long, timeout int)*      count int, (acl id long, vector of ACLs)*
//!  (path, data, acl id long, Stat of 60 bytes)*, each behind its parent, the root's path empty; ended by the path "/"
//!  seal: Adler-32 of everything so far as a long, "/"
//!  since 3.6, unless digests are off:  zxid long, version int, digest long; seal
//!  since 3.9, unless that is off:      last zxid long; seal
//! ```
//! It is *fuzzy*: written while the tree changed, so that it may hold what came after the zxid in its name.

use super::fold::{Data, Fold, FoldError};
use super::input::{DATA_BYTES_MAX, FileError, Input};
use adler2::Adler32;
use std::io::Read;
use warren_storage::Acl;
use warren_storage::tree::Persisted;
use warren_transport::jute::Reader;

const MAGIC: &[u8; 4] = b"ZKSN";
/// Of the format, since 3.0.
pub(super) const VERSION: i32 = 2;
/// What may stand behind the first seal.
const TAIL_BYTES_MAX: usize = 4 << 10;
/// A zxid and a seal: a tail without a digest.
const ZXID_TAIL_BYTES: usize = 8 + SEAL_BYTES;
const SEAL_BYTES: usize = 8 + SEAL.len();
/// Behind a checksum: the path "/" with its length.
const SEAL: [u8; 5] = [0, 0, 0, 1, b'/'];

/// What ZooKeeper said of the tree as of a zxid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeDigest {
    /// After which transaction.
    pub zxid: i64,
    /// The sum over the znodes.
    pub digest: u64,
}

/// Why a snapshot is not taken.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It is damaged, or no snapshot: an older one may do.
    #[error(transparent)]
    File(#[from] FileError),
    /// None would do.
    #[error(transparent)]
    Fold(#[from] FoldError),
}

/// Read the whole of it into `fold`, which is empty. What it says of its digest, if it does in a version that is known here.
pub fn read<D: Data>(from: impl Read, fold: &mut Fold<D>) -> Result<Option<TreeDigest>, SnapshotError> {
    let mut input = Input::new(from);
    if input.array::<4>("the magic number")? != *MAGIC {
        return Err(FileError::Magic { what: "a snapshot of ZooKeeper's" }.into());
    }
    match input.int("the version")? {
        VERSION => {}
        found => return Err(FileError::Version { found }.into()),
    }
    input.long("the database id")?;
    for _ in 0..input.int("the number of sessions")? {
        let id = input.long("a session")?;
        fold.session(id, input.int("a session's timeout")?)?;
    }
    acls(&mut input, fold)?;
    nodes(&mut input, fold)?;
    seal(&mut input)?;
    let sum = input.sum();
    Ok(tail(sum, &input.rest(TAIL_BYTES_MAX)?)?)
}

fn acls<R: Read, D: Data>(input: &mut Input<R>, fold: &mut Fold<D>) -> Result<(), SnapshotError> {
    let mut text = Vec::new();
    for _ in 0..input.int("the number of ACLs")? {
        let id = input.long("an ACL's id")?;
        let count = input.int("the number of an ACL's lines")?;
        if count == -1 {
            return Err(FileError::Null { what: "an ACL", at: input.at() }.into());
        }
        let mut list = Vec::new();
        for _ in 0..count {
            let perms = input.int("the permissions of an ACL")?;
            let scheme = input.text("the scheme of an ACL", &mut text)?.to_owned();
            let who = input.text("the id in an ACL", &mut text)?.to_owned();
            // Before it is known whether the list is a new one: a long one must not grow unseen.
            fold.has_room(list.len() as u64 * 64)?;
            list.push(Acl::new(perms, scheme, who));
        }
        fold.known_acl(id, list)?;
    }
    Ok(())
}

fn nodes<R: Read, D: Data>(input: &mut Input<R>, fold: &mut Fold<D>) -> Result<(), SnapshotError> {
    let (mut path, mut data) = (Vec::new(), Vec::new());
    loop {
        let path = input.text("a path", &mut path)?;
        if path == "/" {
            return match fold.has_root() {
                true => Ok(()),
                false => Err(FileError::Tree("it has no root".to_owned()).into()),
            };
        }
        let there = input.buffer("a znode's data", DATA_BYTES_MAX, &mut data)?;
        let fixed: [u8; 68] = input.array("a znode's Stat")?;
        let long = |at: usize| i64::from_be_bytes(fixed[at..at + 8].try_into().expect("8 bytes"));
        let int = |at: usize| i32::from_be_bytes(fixed[at..at + 4].try_into().expect("4 bytes"));
        let stat = Persisted {
            czxid: long(8),
            mzxid: long(16),
            ctime: long(24),
            mtime: long(32),
            version: int(40),
            cversion: int(44),
            aversion: int(48),
            owner: long(52),
            pzxid: long(60),
        };
        fold.load(path, there.then_some(&data[..]), long(0), stat)?;
    }
}

fn seal<R: Read>(input: &mut Input<R>) -> Result<(), FileError> {
    let found = u64::from(input.sum().checksum());
    let wanted = input.long("the checksum")? as u64;
    if found != wanted {
        return Err(FileError::Checksum { at: input.at(), found, wanted });
    }
    match input.array("the seal")? {
        SEAL => Ok(()),
        _ => Err(FileError::Tree("its seal is another one".to_owned())),
    }
}

/// What stands behind the first seal, up to which `sum` goes.
fn tail(mut sum: Adler32, tail: &[u8]) -> Result<Option<TreeDigest>, FileError> {
    let mut rest = tail;
    let mut digest = None;
    if !rest.is_empty() && rest.len() != ZXID_TAIL_BYTES {
        let mut reader = Reader::new(rest);
        let mut read = || {
            let (zxid, version) = (reader.long()?, reader.int()?);
            // Version 1 had it as text, and made it differently.
            let digest = if version < 2 { reader.string().map(|_| None)? } else { Some(reader.long()?) };
            Ok::<_, warren_transport::jute::JuteError>((zxid, digest.filter(|_| version == 2)))
        };
        let (zxid, known) = read().map_err(|_| FileError::Trailing)?;
        digest = known.filter(|_| zxid > 0).map(|known| TreeDigest { zxid, digest: known as u64 });
        let bytes = rest.len() - reader.rest().len();
        rest = sealed(&mut sum, rest, bytes)?;
    }
    if !rest.is_empty() {
        rest = sealed(&mut sum, rest, 8)?;
    }
    if rest.is_empty() { Ok(digest) } else { Err(FileError::Trailing) }
}

/// `rest` without its first `bytes`, and the seal behind them.
fn sealed<'a>(sum: &mut Adler32, rest: &'a [u8], bytes: usize) -> Result<&'a [u8], FileError> {
    let ends = FileError::Ends { at: 0, what: "what stands behind the tree" };
    let Some((content, behind)) = rest.split_at_checked(bytes) else { return Err(ends) };
    let Some((seal, behind)) = behind.split_at_checked(SEAL_BYTES) else { return Err(ends) };
    sum.write_slice(content);
    let found = u64::from(sum.checksum());
    let wanted = u64::from_be_bytes(seal[..8].try_into().expect("8 bytes"));
    if found != wanted {
        return Err(FileError::Checksum { at: 0, found, wanted });
    }
    if seal[8..] != SEAL {
        return Err(FileError::Tree("its seal is another one".to_owned()));
    }
    sum.write_slice(seal);
    Ok(behind)
}
