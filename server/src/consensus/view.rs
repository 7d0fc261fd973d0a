//! raft's view of the log: a tail in memory in front of the segments.
//!
//! raft drops an entry from its own memory as soon as the entry was handed out to be persisted, and asks for it
//! again when it is committed. The tail answers then; the segments answer only what is older. What followers that are
//! behind lack of that is read a part in each turn, since nothing else is heard or said while it is read.

use crate::moment::Moment;
use raft::eraftpb::{ConfState, Entry, EntryType, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};
use std::cell::Cell;
use std::collections::VecDeque;
use warren_storage::log::{LogError, LogReader, LogRecord, RecordKind};
use warren_storage::tree::Position;

/// What raft reads; see the module's text.
pub(super) struct LogView {
    reader: LogReader,
    /// Consecutive entries, the newest last.
    tail: VecDeque<Entry>,
    /// What the log starts behind.
    anchor: Position,
    last: u64,
    hard_state: HardState,
    /// raft's configuration at the start.
    conf: ConfState,
    /// The newest durable checkpoint, for servers that are behind the anchor.
    checkpoint: (Position, ConfState),
    /// See [`super::Start::read_bytes_max`].
    read_bytes_max: usize,
    /// The turn that it is.
    turn: Moment,
    /// Bytes that were read from the segments in it.
    read_bytes: Cell<usize>,
    /// Is something put off to the next one?
    is_put_off: Cell<bool>,
}

impl LogView {
    /// # Errors
    /// When the log cannot be read.
    pub(super) fn new(
        reader: LogReader,
        checkpoint: Position,
        hard_state: HardState,
        conf: ConfState,
        read_bytes_max: usize,
    ) -> Result<LogView, LogError> {
        let last = reader.last_index().max(checkpoint.index);
        let mut view = LogView {
            reader,
            tail: VecDeque::new(),
            anchor: checkpoint,
            last,
            hard_state,
            conf: conf.clone(),
            checkpoint: (checkpoint, conf),
            read_bytes_max,
            turn: Moment::default(),
            read_bytes: Cell::new(0),
            is_put_off: Cell::new(false),
        };
        view.move_anchor()?;
        Ok(view)
    }

    /// A turn begins, unless it is the same one still. Was something put off to it?
    pub(super) fn begin_turn(&mut self, now: Moment) -> bool {
        if now.us == self.turn.us {
            return false;
        }
        self.turn = now;
        self.read_bytes.set(0);
        self.is_put_off.replace(false)
    }

    /// Is there more to read for followers than fits into this turn?
    pub(super) fn is_put_off(&self) -> bool {
        self.is_put_off.get()
    }

    /// A newer checkpoint is durable, and the log may have been purged up to it.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub(super) fn checkpointed(
        &mut self,
        position: Position,
        conf: ConfState,
        first_index: u64,
    ) -> Result<(), LogError> {
        if position.index < self.checkpoint.0.index {
            return Ok(());
        }
        self.checkpoint = (position, conf);
        if first_index > self.anchor.index + 1 {
            self.move_anchor()?;
        }
        Ok(())
    }

    /// The log starts where the segments do, if those reach back behind the checkpoint: followers that are a little
    /// behind are served from them.
    fn move_anchor(&mut self) -> Result<(), LogError> {
        let checkpoint = self.checkpoint.0;
        let base = self.reader.first_index() - 1;
        let holds = base < checkpoint.index && checkpoint.index <= self.reader.last_index();
        self.anchor = match self.reader.term(base)? {
            Some(term) if holds => Position { index: base, term },
            _ => checkpoint,
        };
        Ok(())
    }

    /// The log is reset to this snapshot; the segments follow.
    pub(super) fn install(&mut self, position: Position, conf: ConfState) {
        self.tail.clear();
        self.anchor = position;
        self.last = position.index;
        self.checkpoint = (position, conf);
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
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.anchor.index {
            return Err(StorageError::Compacted.into());
        }
        assert!(high <= self.last + 1, "raft asks for entries up to {high}, the last is {}", self.last);
        let max = max_size.into().unwrap_or(u64::MAX);
        let mut out = Vec::new();
        let mut bytes = 0u64;
        let mut next = low;
        let tail_first = self.tail_first().unwrap_or(self.last + 1);
        if next < tail_first {
            if context.can_async() && self.read_bytes.get() >= self.read_bytes_max {
                self.is_put_off.set(true);
                return Err(StorageError::LogTemporarilyUnavailable.into());
            }
            let upto = high.min(tail_first);
            let records =
                self.reader.read(next, upto, usize::try_from(max).unwrap_or(usize::MAX)).map_err(failed)?;
            for record in records {
                bytes += record.data.len() as u64;
                next = record.index + 1;
                out.push(entry_of(record));
            }
            self.read_bytes.update(|sum| sum + bytes as usize);
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
            _ => match self.reader.term(index).map_err(failed)? {
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

    /// Only the head: the rows are streamed beside it, from the checkpoint that is the newest then.
    fn snapshot(&self, request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let (position, conf) = &self.checkpoint;
        // Who came after the checkpoint would not take it.
        let all = [&conf.voters, &conf.learners, &conf.voters_outgoing];
        let has = all.iter().any(|ids| ids.contains(&to));
        if position.index == 0 || position.index < request_index || !has {
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (position.index, position.term);
        metadata.set_conf_state(conf.clone());
        Ok(snapshot)
    }
}

/// What was purged since raft last looked is compacted; anything else is a log that cannot be read.
fn failed(error: LogError) -> StorageError {
    match error {
        LogError::Purged { .. } => StorageError::Compacted,
        other => StorageError::Other(other.into()),
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
