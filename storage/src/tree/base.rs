//! `tree.redb` as of one checkpoint, open for reading.

use super::error::Doing;
use super::overlay::IndexName;
use super::tables;
use super::{TreeError, Znode};
use redb::{Database, Range, ReadOnlyTable, ReadableDatabase};
use std::sync::Arc;

/// One read transaction's tables, held open: opening them costs as much as a read.
pub(super) struct Base {
    /// Counts checkpoints since the tree was opened. See `cache.rs` for what rests on it.
    pub(super) number: u64,
    znodes: ReadOnlyTable<&'static str, &'static [u8]>,
    children: ReadOnlyTable<&'static [u8], ()>,
    ephemerals: ReadOnlyTable<&'static [u8], ()>,
    timed: ReadOnlyTable<&'static [u8], ()>,
    /// Kept open for as long as a snapshot reads from it; dropped after the tables.
    _db: Arc<Database>,
}

impl Base {
    /// What was committed last.
    pub(super) fn open(db: &Arc<Database>, number: u64) -> Result<Base, TreeError> {
        let read = db.begin_read().doing("begin to read")?;
        Ok(Base {
            number,
            znodes: read.open_table(tables::ZNODES).doing("open table znodes")?,
            children: read.open_table(tables::CHILDREN).doing("open table children")?,
            ephemerals: read.open_table(tables::EPHEMERALS).doing("open table ephemerals")?,
            timed: read.open_table(tables::TIMED).doing("open table timed")?,
            _db: db.clone(),
        })
    }

    pub(super) fn node(&self, path: &str) -> Result<Option<Znode>, TreeError> {
        match self.znodes.get(path).doing("read a znode")? {
            None => Ok(None),
            Some(row) => Znode::decode(path, row.value()).map(Some),
        }
    }

    pub(super) fn exists(&self, path: &str) -> Result<bool, TreeError> {
        Ok(self.znodes.get(path).doing("read a znode")?.is_some())
    }

    /// Entries of an index from (`group`, `from`) on.
    pub(super) fn scan(&self, name: IndexName, group: u64, from: &str) -> Result<BaseScan, TreeError> {
        let table = match name {
            IndexName::Children => &self.children,
            IndexName::Ephemerals => &self.ephemerals,
            IndexName::Timed => &self.timed,
        };
        let range = table.range(index_row(group, from).as_slice()..).doing("read an index")?;
        Ok(BaseScan { range, group, path: String::new(), done: false })
    }
}

/// The key of an index entry.
pub(super) fn index_row(group: u64, path: &str) -> Vec<u8> {
    let mut row = Vec::with_capacity(8 + path.len());
    row.extend_from_slice(&group.to_be_bytes());
    row.extend_from_slice(path.as_bytes());
    row
}

/// Walks the paths of one group.
pub(super) struct BaseScan {
    range: Range<'static, &'static [u8], ()>,
    group: u64,
    path: String,
    done: bool,
}

impl BaseScan {
    /// The next path of the group, valid until the call after.
    pub(super) fn next(&mut self) -> Result<Option<&str>, TreeError> {
        if self.done {
            return Ok(None);
        }
        self.done = true;
        let Some(entry) = self.range.next() else { return Ok(None) };
        let (key, _) = entry.doing("read an index")?;
        let key = key.value();
        let (group, path) =
            key.split_first_chunk::<8>().ok_or_else(|| TreeError::damaged("a short index key"))?;
        if u64::from_be_bytes(*group) != self.group {
            return Ok(None);
        }
        let path = std::str::from_utf8(path).map_err(|_| TreeError::damaged("an index key is no text"))?;
        self.path.clear();
        self.path.push_str(path);
        self.done = false;
        Ok(Some(&self.path))
    }

    /// What [`BaseScan::next`] returned last.
    pub(super) fn path(&self) -> &str {
        &self.path
    }
}
