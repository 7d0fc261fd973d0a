//! The newest checkpoint as a stream (`stream.rs`), read beside everything that goes on.

use super::error::Doing;
use super::stream::{End, Kind, Place, StreamHead, put_head, put_row};
use super::{Position, TreeError, checkpoint, tables};
use crate::Zxid;
use redb::{Database, Range, ReadTransaction, ReadableDatabase, ReadableTableMetadata as _};
use std::sync::Arc;

/// Makes exports on whatever thread. Keeps `tree.redb` open.
#[derive(Clone)]
pub struct Exporter(pub(super) Arc<Database>);

/// A stream of the tree as of one checkpoint. While it is there, the file keeps every page of that checkpoint and may
/// grow by as much as is written meanwhile: once, as the space is used again.
pub struct Export {
    head: checkpoint::Head,
    read: ReadTransaction,
    kind: Kind,
    rows: Option<Rows>,
    place: Place,
    counted: End,
    done: bool,
    /// Dropped after the transaction.
    _db: Arc<Database>,
}

/// What a stream begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportHead {
    /// The log position that the rows are of.
    pub position: Position,
    /// Raft's configuration there, in the consensus' own encoding.
    pub conf_state: Vec<u8>,
    /// [`super::Tree::store_id`] of where it was made.
    pub store_id: u64,
    /// The last zxid applied there.
    pub zxid: Zxid,
    /// Number of znodes.
    pub znodes: u64,
    /// Of them ephemerals.
    pub ephemerals: u64,
    /// See [`super::Digest::znodes`].
    pub digest: u64,
    /// See [`super::Snapshot::data_bytes`]; the stream has about 200 bytes more for each znode.
    pub data_bytes: u64,
}

impl From<&checkpoint::Head> for ExportHead {
    fn from(head: &checkpoint::Head) -> ExportHead {
        ExportHead {
            position: head.position,
            conf_state: head.conf_state.clone(),
            store_id: head.store_id,
            zxid: head.counters.zxid,
            znodes: head.counters.znodes,
            ephemerals: head.counters.ephemerals,
            digest: head.counters.digest,
            data_bytes: head.counters.data_bytes,
        }
    }
}

/// What is left of a table.
enum Rows {
    Acls(Range<'static, u64, &'static [u8]>),
    Sessions(Range<'static, i64, &'static [u8]>),
    Znodes(Range<'static, &'static str, &'static [u8]>),
    Index(Range<'static, &'static [u8], ()>),
}

impl Exporter {
    /// Begin a stream of the checkpoint that is the newest now. It may be one that is written and not yet
    /// [installed](super::Tree::install), so ask its head for the position.
    pub fn export(&self) -> Result<Export, TreeError> {
        let read = self.0.begin_read().doing("begin to read")?;
        let head = checkpoint::head_of(&read)?.ok_or_else(|| TreeError::damaged("no table meta"))?;
        Ok(Export {
            head,
            read,
            kind: Kind::Head,
            rows: None,
            place: Place::default(),
            counted: End::default(),
            done: false,
            _db: self.0.clone(),
        })
    }
}

impl Export {
    /// What the stream is of.
    pub fn head(&self) -> ExportHead {
        ExportHead::from(&self.head)
    }

    /// How many sessions are open in it.
    pub fn sessions(&self) -> Result<u64, TreeError> {
        let table = self.read.open_table(tables::SESSIONS).doing("open table sessions")?;
        table.len().doing("count the sessions")
    }

    /// The next chunk, which ends behind the row with which it reaches `bytes_max`; `None` behind the last.
    /// See [`super::Import::push`].
    pub fn next_chunk(&mut self, bytes_max: usize) -> Result<Option<Vec<u8>>, TreeError> {
        if self.done {
            return Ok(None);
        }
        let mut chunk = Place::begin(bytes_max.min(CHUNK_BYTES_AHEAD) + ROW_BYTES_AHEAD);
        let kind = self.kind;
        match kind {
            Kind::Head => {
                put_head(&mut chunk, &StreamHead { format: tables::FORMAT, head: self.head.clone() });
                self.kind = kind.next();
            }
            Kind::End => {
                chunk.extend_from_slice(&checkpoint::encode(&self.counted));
                self.done = true;
            }
            _ => {
                let rows = match &mut self.rows {
                    Some(rows) => rows,
                    none => none.insert(Rows::open(&self.read, kind)?),
                };
                loop {
                    if !rows.step(&mut chunk)? {
                        self.rows = None;
                        self.kind = kind.next();
                        break;
                    }
                    self.counted.rows[kind.table()] += 1;
                    if chunk.len() >= bytes_max {
                        break;
                    }
                }
            }
        }
        self.place.seal(&mut chunk, kind);
        Ok(Some(chunk))
    }
}

/// Capacity that a chunk begins with, at most.
const CHUNK_BYTES_AHEAD: usize = 1 << 20;
/// And so much more for the row with which a chunk reaches its size; one that is longer makes the chunk grow.
const ROW_BYTES_AHEAD: usize = 8 << 10;

impl Rows {
    fn open(read: &ReadTransaction, kind: Kind) -> Result<Rows, TreeError> {
        let index = |table| -> Result<Rows, TreeError> {
            let table = read.open_table(table).doing("open an index")?;
            Ok(Rows::Index(table.range::<&[u8]>(..).doing("read an index")?))
        };
        Ok(match kind {
            Kind::Acls => {
                let table = read.open_table(tables::ACLS).doing("open table acls")?;
                Rows::Acls(table.range::<u64>(..).doing("read table acls")?)
            }
            Kind::Sessions => {
                let table = read.open_table(tables::SESSIONS).doing("open table sessions")?;
                Rows::Sessions(table.range::<i64>(..).doing("read table sessions")?)
            }
            Kind::Znodes => {
                let table = read.open_table(tables::ZNODES).doing("open table znodes")?;
                Rows::Znodes(table.range::<&str>(..).doing("read table znodes")?)
            }
            Kind::Children => index(tables::CHILDREN)?,
            Kind::Ephemerals => index(tables::EPHEMERALS)?,
            Kind::Timed => index(tables::TIMED)?,
            Kind::Head | Kind::End => unreachable!("they have no rows"),
        })
    }

    /// Append the next row to `chunk`; `false`: there is none.
    fn step(&mut self, chunk: &mut Vec<u8>) -> Result<bool, TreeError> {
        const DOING: &str = "read a row for a snapshot stream";
        match self {
            Rows::Acls(range) => {
                let Some(row) = range.next() else { return Ok(false) };
                let (key, value) = row.doing(DOING)?;
                put_row(chunk, &key.value().to_le_bytes(), value.value());
            }
            Rows::Sessions(range) => {
                let Some(row) = range.next() else { return Ok(false) };
                let (key, value) = row.doing(DOING)?;
                put_row(chunk, &key.value().to_le_bytes(), value.value());
            }
            Rows::Znodes(range) => {
                let Some(row) = range.next() else { return Ok(false) };
                let (key, value) = row.doing(DOING)?;
                put_row(chunk, key.value().as_bytes(), value.value());
            }
            Rows::Index(range) => {
                let Some(row) = range.next() else { return Ok(false) };
                put_row(chunk, row.doing(DOING)?.0.value(), &[]);
            }
        }
        Ok(true)
    }
}
