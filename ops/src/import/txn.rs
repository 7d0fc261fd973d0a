//! A transaction as the log has it: `SerializeUtils.deserializeTxn` of ZooKeeper 3.4 to 3.9.

use warren_storage::{AclRef, Kind};
use warren_transport::jute::{JuteError, Reader};

/// Behind a record since 3.6, unless digests are off: the version and the tree's digest after it.
const DIGEST_BYTES: usize = 4 + 8;
/// The smallest operation of a multi: its type and a null buffer.
const OPERATION_BYTES_MIN: usize = 8;

/// The type of a request that was refused.
const ERROR: i32 = -1;

/// Who, when, and what kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Of the session, or of whom it is about.
    pub session: i64,
    /// Of the transaction.
    pub zxid: i64,
    /// The leader's clock, ms since 1970.
    pub time: i64,
}

/// What it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Txn<'a> {
    /// Any create.
    Create {
        /// Full path.
        path: &'a str,
        /// Null is not empty.
        data: Option<&'a [u8]>,
        /// Null is the open list.
        acl: Option<Vec<AclRef<'a>>>,
        /// As the znode keeps it.
        owner: i64,
        /// What the parent's counter becomes; −1 in the oldest logs: one more than it is.
        parent_cversion: i32,
    },
    /// delete, and the deletion of a container.
    Delete {
        /// Full path.
        path: &'a str,
    },
    /// setData, and reconfig.
    SetData {
        /// Full path.
        path: &'a str,
        /// Null is not empty.
        data: Option<&'a [u8]>,
        /// What it becomes.
        version: i32,
    },
    /// setACL.
    SetAcl {
        /// Full path.
        path: &'a str,
        /// Null is the open list.
        acl: Option<Vec<AclRef<'a>>>,
        /// What the aversion becomes.
        version: i32,
    },
    /// createSession.
    CreateSession {
        /// ms.
        timeout: i32,
    },
    /// closeSession.
    CloseSession {
        /// Its ephemerals, where the log says which.
        paths: Vec<&'a str>,
    },
    /// All of them, or nothing.
    Multi(Operations<'a>),
    /// A refused request, and a check in a multi.
    Nothing,
}

/// Why the bytes are no transaction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TxnError {
    /// They end early, or are not text where they should be.
    #[error(transparent)]
    Jute(#[from] JuteError),
    /// Of a kind that the log never has.
    #[error("type {0} is no transaction")]
    Type(i32),
    /// A time to live that ZooKeeper takes from nobody.
    #[error("{0} ms is no time to live")]
    Ttl(i64),
}

/// Of one record: the header, what it does, and the tree's digest after it, where that is there in version 2.
pub fn decode(bytes: &[u8]) -> Result<(Header, Txn<'_>, Option<u64>), TxnError> {
    let mut reader = Reader::new(bytes);
    let session = reader.long()?;
    reader.int()?;
    let (zxid, time, kind) = (reader.long()?, reader.long()?, reader.int()?);
    let header = Header { session, zxid, time };
    let txn = match kind {
        -10 => Txn::CreateSession { timeout: reader.int()? },
        -11 => Txn::CloseSession { paths: paths_to_delete(&mut reader) },
        16 => set_data(&mut reader)?,
        7 => {
            let path = reader.string_required("a path")?;
            Txn::SetAcl { path, acl: acl(&mut reader)?, version: reader.int()? }
        }
        14 => multi(&mut reader, session)?,
        kind => operation(&mut reader, kind, session)?,
    };
    Ok((header, txn, digest(reader.rest())))
}

/// What may also stand in a multi.
fn operation<'a>(reader: &mut Reader<'a>, kind: i32, session: i64) -> Result<Txn<'a>, TxnError> {
    Ok(match kind {
        1 | 15 => {
            let (path, data, acl) = created(reader)?;
            let owner = if reader.bool()? { session } else { 0 };
            // Before 3.4 the log did not have it.
            let parent_cversion = if reader.rest().is_empty() { -1 } else { reader.int()? };
            Txn::Create { path, data, acl, owner, parent_cversion }
        }
        19 => {
            let (path, data, acl) = created(reader)?;
            Txn::Create { path, data, acl, owner: Kind::Container.owner(), parent_cversion: reader.int()? }
        }
        21 => {
            let (path, data, acl) = created(reader)?;
            let (parent_cversion, ttl) = (reader.int()?, reader.long()?);
            if !(1..=Kind::TTL_MAX).contains(&ttl) {
                return Err(TxnError::Ttl(ttl));
            }
            Txn::Create { path, data, acl, owner: Kind::Ttl(ttl).owner(), parent_cversion }
        }
        2 | 20 => Txn::Delete { path: reader.string_required("a path")? },
        5 => set_data(reader)?,
        13 => {
            reader.string()?;
            reader.int()?;
            Txn::Nothing
        }
        ERROR => {
            reader.int()?;
            Txn::Nothing
        }
        kind => return Err(TxnError::Type(kind)),
    })
}

/// The operations of a multi, read one by one, so that many small ones take no memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operations<'a> {
    rest: &'a [u8],
    left: usize,
    session: i64,
}

impl<'a> Operations<'a> {
    fn step(&mut self) -> Result<Option<Txn<'a>>, TxnError> {
        if self.left == 0 {
            return Ok(None);
        }
        let mut reader = Reader::new(self.rest);
        let kind = reader.int()?;
        let bytes = reader.buffer()?.unwrap_or(&[]);
        (self.rest, self.left) = (reader.rest(), self.left - 1);
        operation(&mut Reader::new(bytes), kind, self.session).map(Some)
    }
}

impl<'a> Iterator for Operations<'a> {
    type Item = Txn<'a>;

    fn next(&mut self) -> Option<Txn<'a>> {
        self.step().expect("all were read when the multi was decoded")
    }
}

/// One that failed did nothing; its operations are errors, and not looked at further.
fn multi<'a>(reader: &mut Reader<'a>, session: i64) -> Result<Txn<'a>, TxnError> {
    let left = reader.count(OPERATION_BYTES_MIN)?.unwrap_or(0);
    let operations = Operations { rest: reader.rest(), left, session };
    let mut failed = false;
    for _ in 0..left {
        failed |= reader.int()? == ERROR;
        reader.buffer()?;
    }
    if failed {
        return Ok(Txn::Nothing);
    }
    let mut tried = operations.clone();
    while tried.step()?.is_some() {}
    Ok(Txn::Multi(operations))
}

type Created<'a> = (&'a str, Option<&'a [u8]>, Option<Vec<AclRef<'a>>>);

fn created<'a>(reader: &mut Reader<'a>) -> Result<Created<'a>, TxnError> {
    Ok((reader.string_required("a path")?, reader.buffer()?, acl(reader)?))
}

fn set_data<'a>(reader: &mut Reader<'a>) -> Result<Txn<'a>, TxnError> {
    let path = reader.string_required("a path")?;
    Ok(Txn::SetData { path, data: reader.buffer()?, version: reader.int()? })
}

fn acl<'a>(reader: &mut Reader<'a>) -> Result<Option<Vec<AclRef<'a>>>, TxnError> {
    let null = reader.rest().starts_with(&(-1i32).to_be_bytes());
    let list = reader.acl()?;
    Ok((!null).then_some(list))
}

/// The list is there since 3.6, and not when a setting turned it off. What stands behind it tells.
fn paths_to_delete<'a>(reader: &mut Reader<'a>) -> Vec<&'a str> {
    let mut with_list = *reader;
    match with_list.strings("a path") {
        Ok(paths) if matches!(with_list.rest().len(), 0 | DIGEST_BYTES) => {
            *reader = with_list;
            paths
        }
        _ => Vec::new(),
    }
}

fn digest(rest: &[u8]) -> Option<u64> {
    let mut reader = Reader::new(rest);
    match (reader.int(), reader.long()) {
        (Ok(2), Ok(digest)) => Some(digest as u64),
        _ => None,
    }
}
