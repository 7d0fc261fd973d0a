//! A stream (`stream.rs`) of a tree that was not ours before, for [`super::Import`]: what another system kept, row by row.

use super::acls::AclRow;
use super::apply::utf16_units;
use super::error::ImportError;
use super::overlay::depth_group;
use super::roster::Roster;
use super::state::Counters;
use super::stream::{End, Kind, Place, StreamHead, put_head, put_row};
use super::{AclId, Position, Znode, base::index_row, checkpoint, digest, tables};
use crate::{Acl, SessionId, SessionRow, Stat, Zxid};
use std::sync::Arc;

/// A chunk ends behind the row with which it reaches this.
const CHUNK_BYTES: usize = 1 << 20;

/// What is kept of a znode beside its path, its data and its ACL: ZooKeeper's `StatPersisted`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Persisted {
    /// See [`Znode::czxid`].
    pub czxid: i64,
    /// See [`Znode::mzxid`].
    pub mzxid: i64,
    /// See [`Znode::pzxid`].
    pub pzxid: i64,
    /// See [`Znode::ctime`].
    pub ctime: i64,
    /// See [`Znode::mtime`].
    pub mtime: i64,
    /// See [`Znode::owner`].
    pub owner: i64,
    /// See [`Znode::version`].
    pub version: i32,
    /// See [`Znode::cversion`].
    pub cversion: i32,
    /// See [`Znode::aversion`].
    pub aversion: i32,
}

impl Persisted {
    /// The part of ZooKeeper's tree digest that the znode at `path` has. `content` is [`content_digest`] of its path and data,
    /// so that a change of the Stat needs neither.
    pub fn digest(&self, path: &str, content: u32) -> u32 {
        if digest::is_excluded(path) { 0 } else { digest::with_stat(content, self) }
    }

    /// As clients see it.
    pub fn stat(&self, data_bytes: u64, num_children: u32) -> Stat {
        let length = i32::try_from(data_bytes).unwrap_or(i32::MAX);
        Stat { data_length: length, ..self.znode(AclId::OPEN, num_children, None).stat() }
    }

    fn znode(&self, acl: AclId, num_children: u32, data: Option<Arc<[u8]>>) -> Znode {
        let Persisted { czxid, mzxid, pzxid, ctime, mtime, owner, version, cversion, aversion } = *self;
        Znode {
            czxid,
            mzxid,
            pzxid,
            ctime,
            mtime,
            owner,
            acl,
            version,
            cversion,
            aversion,
            num_children,
            digest: 0,
            data,
        }
    }
}

/// CRC-32 of a path and its data, the first part of the znode's digest.
pub fn content_digest(path: &str, data: Option<&[u8]>) -> u32 {
    digest::of_content(path, data)
}

/// What a znode counts in [`Totals::data_bytes`].
pub fn counted_bytes(path: &str, data_bytes: u64) -> u64 {
    utf16_units(path) + data_bytes
}

/// What the rows add up to; [`super::Import`] checks it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// The last one given to a write.
    pub zxid: Zxid,
    /// Number of them.
    pub znodes: u64,
    /// Number of ephemeral ones.
    pub ephemerals: u64,
    /// Sum of [`counted_bytes`].
    pub data_bytes: u64,
    /// Sum of [`Persisted::digest`].
    pub digest: u64,
    /// Number of access control lists, whose ids are 1 to this.
    pub acls: u64,
}

/// Makes the stream. Rows are given table by table, in the order of the methods here, each table in the order of its keys;
/// who takes the chunks finds out about any other order.
pub struct Composer<S> {
    sink: S,
    place: Place,
    kind: Kind,
    counted: End,
    chunk: Vec<u8>,
}

impl<S: FnMut(&[u8]) -> Result<(), ImportError>> Composer<S> {
    /// Begin a stream of a tree at `position` in the log, which no server has taken part with; `sink` takes the chunks.
    ///
    /// # Errors
    /// The sink's, as of all other methods.
    pub fn begin(position: Position, totals: &Totals, sink: S) -> Result<Composer<S>, ImportError> {
        let head = checkpoint::Head {
            store_id: 0,
            disk: 0,
            position,
            counters: Counters {
                zxid: totals.zxid,
                znodes: totals.znodes,
                ephemerals: totals.ephemerals,
                data_bytes: totals.data_bytes,
                digest: totals.digest,
            },
            acl_next: AclId(totals.acls + 1),
            conf_state: Vec::new(),
            roster: Roster::default(),
        };
        let mut composer = Composer {
            sink,
            place: Place::default(),
            kind: Kind::Head,
            counted: End::default(),
            chunk: Place::begin(CHUNK_BYTES),
        };
        put_head(&mut composer.chunk, &StreamHead { format: tables::FORMAT, head });
        Ok(composer)
    }

    /// An access control list, and how many znodes have it.
    pub fn acl(&mut self, id: u64, uses: u64, list: &[Acl]) -> Result<(), ImportError> {
        let row = checkpoint::encode(&AclRow { uses, list: list.into() });
        self.row(Kind::Acls, &id.to_le_bytes(), &row)
    }

    /// A session, by its id.
    pub fn session(&mut self, id: SessionId, row: &SessionRow) -> Result<(), ImportError> {
        self.row(Kind::Sessions, &id.to_le_bytes(), &checkpoint::encode(row))
    }

    /// A znode, by its path. `acl` is 0 for the open list.
    pub fn znode(
        &mut self,
        path: &str,
        stat: &Persisted,
        acl: u64,
        num_children: u32,
        data: Option<&[u8]>,
    ) -> Result<(), ImportError> {
        let mut row = Vec::new();
        stat.znode(AclId(acl), num_children, data.map(Arc::from)).encode(&mut row);
        self.row(Kind::Znodes, path.as_bytes(), &row)
    }

    /// The entry by which the parent of `path` finds it; by depth and path, and none for the root.
    pub fn child(&mut self, path: &str) -> Result<(), ImportError> {
        self.row(Kind::Children, &index_row(depth_group(path), path), &[])
    }

    /// The entry by which `session`'s ephemeral is found; by the session as an unsigned number, and path.
    pub fn ephemeral(&mut self, session: SessionId, path: &str) -> Result<(), ImportError> {
        self.row(Kind::Ephemerals, &index_row(session as u64, path), &[])
    }

    /// The entry by which a container or TTL node is found; by path.
    pub fn timed(&mut self, path: &str) -> Result<(), ImportError> {
        self.row(Kind::Timed, &index_row(0, path), &[])
    }

    /// There is no more.
    pub fn finish(mut self) -> Result<(), ImportError> {
        self.flush()?;
        self.kind = Kind::End;
        let end = checkpoint::encode(&self.counted);
        self.chunk.extend_from_slice(&end);
        self.flush()
    }

    fn row(&mut self, kind: Kind, key: &[u8], value: &[u8]) -> Result<(), ImportError> {
        if kind != self.kind {
            self.flush()?;
            self.kind = kind;
        }
        put_row(&mut self.chunk, key, value);
        self.counted.rows[kind.table()] += 1;
        if self.chunk.len() >= CHUNK_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), ImportError> {
        let mut chunk = std::mem::replace(&mut self.chunk, Place::begin(CHUNK_BYTES));
        self.place.seal(&mut chunk, self.kind);
        (self.sink)(&chunk)
    }
}
