//! raft's view of the log: a tail in memory in front of the segments.
//!
//! raft drops an entry from its own memory as soon as the entry was handed out to be persisted, and asks for it
//! again when it is committed. The tail answers then; the segments answer only what is older.

use raft::eraftpb::{ConfState, Entry, EntryType, HardState};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use std::collections::VecDeque;
use warren_storage::log::{LogReader, LogRecord, RecordKind};
use warren_storage::tree::Position;

/// What raft reads; see the module's text.
pub(super) struct LogView {
    reader: LogReader,
    /// Consecutive entries, the newest last.
    tail: VecDeque<Entry>,
    /// What the log starts behind: everything up to here is in the tree's checkpoint.
    anchor: Position,
    last: u64,
    hard_state: HardState,
    conf: ConfState,
}

impl LogView {
    pub(super) fn new(
        reader: LogReader,
        anchor: Position,
        hard_state: HardState,
        conf: ConfState,
    ) -> LogView {
        let last = reader.last_index().max(anchor.index);
        LogView { reader, tail: VecDeque::new(), anchor, last, hard_state, conf }
    }

    /// Entries that were just handed out to be persisted; a suffix that they contradict is forgotten.
    pub(super) fn extend(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        while self.tail.back().is_some_and(|e| e.index >= first.index) {
            self.tail.pop_back();
        }
        self.tail.extend(entries.iter().cloned());
        self.last = self.tail.back().map_or(self.last, |e| e.index);
    }

    /// Entries up to `index` are persisted and committed: the segments can answer for them.
    pub(super) fn shrink(&mut self, index: u64) {
        while self.tail.front().is_some_and(|e| e.index <= index) {
            self.tail.pop_front();
        }
    }

    fn tail_first(&self) -> Option<u64> {
        self.tail.front().map(|e| e.index)
    }
}

impl Storage for LogView {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState { hard_state: self.hard_state.clone(), conf_state: self.conf.clone() })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low < self.first_index()? {
            return Err(StorageError::Compacted.into());
        }
        assert!(high <= self.last + 1, "raft asks for entries up to {high}, the last is {}", self.last);
        let max = max_size.into().unwrap_or(u64::MAX);
        let mut out = Vec::new();
        let mut bytes = 0u64;
        let mut next = low;
        let tail_first = self.tail_first().unwrap_or(self.last + 1);
        if next < tail_first {
            let upto = high.min(tail_first);
            let records = self
                .reader
                .read(next, upto, usize::try_from(max).unwrap_or(usize::MAX))
                .map_err(|e| StorageError::Other(e.into()))?;
            for record in records {
                bytes += record.data.len() as u64;
                next = record.index + 1;
                out.push(entry_of(record));
            }
            if next < upto {
                return Ok(out);
            }
        }
        while next < high {
            let entry = &self.tail[(next - tail_first) as usize];
            bytes += entry.data.len() as u64;
            if !out.is_empty() && bytes > max {
                break;
            }
            out.push(entry.clone());
            next += 1;
        }
        Ok(out)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.anchor.index {
            return Ok(self.anchor.term);
        }
        if index > self.last {
            return Err(StorageError::Unavailable.into());
        }
        match self.tail_first() {
            Some(first) if index >= first => Ok(self.tail[(index - first) as usize].term),
            _ => match self.reader.term(index).map_err(|e| StorageError::Other(e.into()))? {
                Some(term) => Ok(term),
                None => Err(StorageError::Compacted.into()),
            },
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.anchor.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last)
    }

    fn snapshot(&self, _request_index: u64, _to: u64) -> raft::Result<raft::eraftpb::Snapshot> {
        Err(StorageError::SnapshotTemporarilyUnavailable.into())
    }
}

/// raft's form of a log record.
fn entry_of(record: LogRecord) -> Entry {
    let mut entry = Entry { index: record.index, term: record.term, data: record.data, ..Entry::default() };
    entry.set_entry_type(match record.kind {
        RecordKind::Normal => EntryType::EntryNormal,
        RecordKind::ConfChange => EntryType::EntryConfChange,
        RecordKind::ConfChangeV2 => EntryType::EntryConfChangeV2,
    });
    entry
}

/// The log's form of a raft entry.
pub(super) fn record_of(entry: &Entry) -> LogRecord {
    LogRecord {
        index: entry.index,
        term: entry.term,
        kind: match entry.get_entry_type() {
            EntryType::EntryNormal => RecordKind::Normal,
            EntryType::EntryConfChange => RecordKind::ConfChange,
            EntryType::EntryConfChangeV2 => RecordKind::ConfChangeV2,
        },
        data: entry.data.clone(),
    }
}
