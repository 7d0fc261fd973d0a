//! A stream (`stream.rs`) on its way into a new `tree.redb`, beside the one that is in use.
//!
//! ```text
//!  Import::begin ─▶ push … ─▶ finish ─▶ Staged: tree.redb.new, whole and durable
//!                                          │ Tree::replace: renamed over tree.redb, folder synced, opened
//!                                          ▼
//!                                        Tree; then the log is reset to its position (recover.rs says what if not)
//! ```
//! Until the rename nothing has changed; what a crash or an error leaves of an import is removed by the next open
//! or the next import.

use super::check::{Row, StreamCheck};
use super::error::{Doing, ImportError};
use super::export::ExportHead;
use super::roster::{Begun, Identity};
use super::stream::{Kind, take_row};
use super::{Position, Tree, TreeError, TreeOptions, checkpoint, tables};
use crate::disk::SharedDisk;
use crate::gather::Gathered;
use crate::run::RUN_BYTES;
use redb::{
    Builder, CursorError, CursorMut, Database, Durability, Key, TableDefinition, Value, WriteTransaction,
};
use std::ops::Bound;

/// Memory of redb for an import.
const CACHE_BYTES: usize = 8 << 20;
/// Runs that are put together at once. They span twice what redb holds itself, half of its cache, so that the gaps between early
/// pages are filled when their turn comes.
const RUNS_MAX: usize = 32;
/// So much of the stream is in one transaction: less than fits into [`CACHE_BYTES`].
const UNCOMMITTED_BYTES_MAX: usize = 2 << 20;

/// A stream being received.
pub struct Import {
    disk: SharedDisk,
    identity: Identity,
    reserve_bytes: u64,
    db: Database,
    /// Always there, but within [`Import::turn`].
    write: Option<WriteTransaction>,
    /// Pushed since it was begun.
    uncommitted_bytes: usize,
    check: StreamCheck,
    failed: bool,
}

/// A new tree that is whole and durable beside the one in use; see [`Tree::replace`]. There is one at a time:
/// another [`Import::begin`] removes it.
#[must_use = "it takes the place of the tree by Tree::replace()"]
#[derive(Debug)]
pub struct Staged {
    head: ExportHead,
}

impl Staged {
    /// What it is.
    pub fn head(&self) -> &ExportHead {
        &self.head
    }

    /// The log position that it is of.
    pub fn position(&self) -> Position {
        self.head.position
    }
}

impl Tree {
    /// Put `staged` in the place of the tree on `disk`, durably, and open it. Who still reads the former tree may go
    /// on. Afterwards the log is to be reset to its position, before anything else is done with either.
    pub fn replace(disk: SharedDisk, staged: Staged, options: TreeOptions) -> Result<Tree, TreeError> {
        disk.rename(tables::UNFINISHED, tables::FILE)?;
        disk.sync_folder()?;
        let tree = Tree::open(disk, options)?;
        assert_eq!(tree.position(), staged.position(), "what was staged is what is opened");
        Ok(tree)
    }
}

impl Import {
    /// Begin. The new tree gets `identity`, the receiver's own. While less than `reserve_bytes` are free, chunks are
    /// refused: the log must not meet a full disk.
    pub fn begin(disk: SharedDisk, identity: Identity, reserve_bytes: u64) -> Result<Import, ImportError> {
        disk.remove(tables::UNFINISHED).map_err(TreeError::from)?;
        let file = disk.open_bulk(tables::UNFINISHED).map_err(TreeError::from)?;
        let db = Builder::new()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(Gathered::new(file, RUNS_MAX))
            .doing("create tree.redb.new")?;
        let write = Some(begin(&db)?);
        Ok(Import {
            disk,
            identity,
            reserve_bytes,
            db,
            write,
            uncommitted_bytes: 0,
            check: StreamCheck::default(),
            failed: false,
        })
    }

    /// What the stream is of, once its first chunk is here.
    pub fn head(&self) -> Option<ExportHead> {
        self.check.head()
    }

    /// Was the last chunk pushed?
    pub fn is_complete(&self) -> bool {
        self.check.is_complete()
    }

    /// Take a chunk as [`super::Export::next_chunk`] gave it and [`super::read_chunk`] cuts it out of a stream of bytes.
    /// After an error only [`Import::abandon`] is left.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), ImportError> {
        if std::mem::replace(&mut self.failed, true) {
            return Err(ImportError::Over);
        }
        let free_bytes = self.disk.free_bytes().map_err(TreeError::from)?;
        // What is held in memory is still to be written.
        let due_bytes = (CACHE_BYTES + RUNS_MAX * RUN_BYTES + chunk.len()) as u64;
        if free_bytes < self.reserve_bytes.saturating_add(due_bytes) {
            return Err(ImportError::NoSpace { free_bytes, reserve_bytes: self.reserve_bytes });
        }
        let (kind, body) = self.check.take(chunk, &mut |_, _| {})?;
        self.write(kind, body)?;
        self.uncommitted_bytes += chunk.len();
        if self.uncommitted_bytes >= UNCOMMITTED_BYTES_MAX {
            self.turn()?;
        }
        self.failed = false;
        Ok(())
    }

    /// Commit, not yet durably, while the pages are in memory: redb reads those that are not again, to sum them up.
    fn turn(&mut self) -> Result<(), ImportError> {
        let write = self.write.take().expect("there is a transaction");
        write.commit().doing("commit a part of an import")?;
        self.write = Some(begin(&self.db)?);
        self.uncommitted_bytes = 0;
        Ok(())
    }

    fn write(&self, kind: Kind, body: &[u8]) -> Result<(), TreeError> {
        let write = self.write.as_ref().expect("there is a transaction");
        match kind {
            Kind::Head | Kind::End => Ok(()),
            Kind::Acls => append(write, tables::ACLS, body),
            Kind::Sessions => append(write, tables::SESSIONS, body),
            Kind::Znodes => append(write, tables::ZNODES, body),
            Kind::Children => append(write, tables::CHILDREN, body),
            Kind::Ephemerals => append(write, tables::EPHEMERALS, body),
            Kind::Timed => append(write, tables::TIMED, body),
        }
    }

    /// Make what was received durable. It is not in use before [`Tree::replace`].
    pub fn finish(self) -> Result<Staged, ImportError> {
        if self.failed {
            return Err(ImportError::Over);
        }
        let chunks = self.check.chunks();
        let (true, Some(head)) = (self.check.is_complete(), self.check.head) else {
            return Err(ImportError::Incomplete { chunks });
        };
        let mut write = self.write.expect("there is a transaction");
        write.set_durability(Durability::Immediate).doing("begin the last transaction of an import")?;
        write.set_quick_repair(true);
        // Tables without rows are there, too.
        write.open_table(tables::ZNODES).doing("create table znodes")?;
        write.open_table(tables::CHILDREN).doing("create table children")?;
        write.open_table(tables::ACLS).doing("create table acls")?;
        write.open_table(tables::SESSIONS).doing("create table sessions")?;
        write.open_table(tables::EPHEMERALS).doing("create table ephemerals")?;
        write.open_table(tables::TIMED).doing("create table timed")?;
        let Identity { store_id, disk, observes } = self.identity;
        let head = checkpoint::Head { store_id, disk, ..head };
        checkpoint::write_head(&write, &head)?;
        if observes {
            checkpoint::write_begun(&write, &Begun { observes, ..Begun::default() })?;
        }
        write.commit().doing("commit an import")?;
        drop(self.db);
        Ok(Staged { head: ExportHead::from(&head) })
    }

    /// Give up, and remove what was received.
    pub fn abandon(self) -> Result<(), ImportError> {
        let Import { disk, db, write, .. } = self;
        // An error would say no more than the one that led here.
        let _ = write.map(WriteTransaction::abort);
        drop(db);
        Ok(disk.remove(tables::UNFINISHED).map_err(TreeError::from)?)
    }
}

fn begin(db: &Database) -> Result<WriteTransaction, TreeError> {
    let mut write = db.begin_write().doing("begin an import")?;
    write.set_durability(Durability::None).doing("begin an import")?;
    Ok(write)
}

/// Append the rows of a chunk, which were checked, to `table`.
fn append<'c, K, V>(
    write: &WriteTransaction,
    table: TableDefinition<'static, K, V>,
    mut body: &'c [u8],
) -> Result<(), TreeError>
where
    K: Key + 'static,
    V: Value + 'static,
    K::SelfType<'c>: Row<'c>,
    V::SelfType<'c>: Row<'c>,
{
    let mut table = write.open_table(table).doing("open a table of tree.redb.new")?;
    let mut end: CursorMut<'_, K, V> =
        table.upper_bound_mut(Bound::<K::SelfType<'c>>::Unbounded).doing("go to the end of a table")?;
    while let Some((key, value)) = take_row(&mut body).expect("the rows were checked") {
        let typed = K::SelfType::from_row(key).zip(V::SelfType::from_row(value));
        let (key, value) = typed.expect("the rows were checked");
        end.insert_before(key, value)
            .map_err(|error| match error {
                CursorError::Storage(error) => redb::Error::from(error),
                error => panic!("keys were checked to ascend: {error}"),
            })
            .doing("write a row of a snapshot stream")?;
    }
    end.close().doing("write rows of a snapshot stream")
}
