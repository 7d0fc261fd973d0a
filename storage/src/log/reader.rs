//! The log as everybody but its writer has it. Reading goes on while the writer syncs; only a change of segments
//! and a truncation make readers wait.

use super::segment::{Segment, file_name};
use super::tables::Link;
use super::{LogError, LogRecord};
use crate::disk::SharedDisk;
use parking_lot::{Mutex, RwLock};
use std::collections::VecDeque;
use std::sync::Arc;

/// Sealed segments that stay open at a time: a follower that catches up reads them one after the other.
const SEALED_OPEN_MAX: usize = 3;

pub(super) struct Shared {
    pub disk: SharedDisk,
    pub ahead_bytes: u64,
    /// Taken before `tail` where both are.
    pub view: RwLock<View>,
    pub tail: Mutex<Tail>,
    /// By sequence, the one used last at the end.
    pub open_sealed: Mutex<VecDeque<(u64, Arc<Segment>)>>,
}

/// The row of segments.
pub(super) struct View {
    /// Oldest first.
    pub sealed: Vec<Sealed>,
    /// Only missing once the log is closed, or has failed while it changed segments.
    pub newest: Option<Segment>,
}

pub(super) struct Sealed {
    pub link: Link,
}

impl Sealed {
    pub(super) fn new(link: Link) -> Sealed {
        Sealed { link }
    }

    fn name(&self) -> String {
        file_name(self.link.sequence, self.link.first_index)
    }
}

impl View {
    /// # Panics
    /// When there is none: the writer checks for that before.
    pub(super) fn newest(&self) -> &Segment {
        self.newest.as_ref().expect("there is a newest segment unless the log was stopped")
    }

    pub(super) fn first_index(&self) -> u64 {
        self.sealed.first().map_or_else(|| self.newest().first_index(), |s| s.link.first_index)
    }
}

/// The end of the log, in memory.
pub(super) struct Tail {
    pub first_index: u64,
    pub last_index: u64,
    pub last_term: u64,
    /// The latest records, without gaps.
    recent: VecDeque<LogRecord>,
    recent_bytes: usize,
    cache_bytes: usize,
    /// From here on records are in the journal, and nowhere else to be read: they stay. `u64::MAX`: there are none.
    journaled_from: u64,
}

impl Tail {
    pub(super) fn new(first_index: u64, last_index: u64, last_term: u64, cache_bytes: usize) -> Tail {
        let (recent, journaled_from) = (VecDeque::new(), u64::MAX);
        Tail { first_index, last_index, last_term, recent, recent_bytes: 0, cache_bytes, journaled_from }
    }

    /// Takes over what went into the journal.
    pub(super) fn note(&mut self, records: &[LogRecord]) {
        if let Some(first) = records.first() {
            self.journaled_from = self.journaled_from.min(first.index);
            self.extend(records);
        }
    }

    /// Takes over what went into redb, with all that was in the journal.
    pub(super) fn settle(&mut self, records: &[LogRecord]) {
        self.journaled_from = u64::MAX;
        self.extend(records);
    }

    /// Takes over what was appended, instead of what was there from its first index on.
    fn extend(&mut self, records: &[LogRecord]) {
        let (Some(first), Some(last)) = (records.first(), records.last()) else { return };
        while self.recent.back().is_some_and(|r| r.index >= first.index) {
            let record = self.recent.pop_back().expect("just looked at");
            self.recent_bytes -= record.memory_bytes();
        }
        if self.recent.back().is_some_and(|r| r.index + 1 != first.index) {
            self.recent.clear();
            self.recent_bytes = 0;
        }
        for record in records {
            self.recent_bytes += record.memory_bytes();
            self.recent.push_back(record.clone());
        }
        while self.recent_bytes > self.cache_bytes
            && self.recent.front().is_some_and(|oldest| oldest.index < self.journaled_from)
        {
            let Some(record) = self.recent.pop_front() else { break };
            self.recent_bytes -= record.memory_bytes();
        }
        (self.last_index, self.last_term) = (last.index, last.term);
    }

    /// The log is empty behind this.
    pub(super) fn restart(&mut self, index: u64, term: u64) {
        self.recent.clear();
        (self.recent_bytes, self.journaled_from) = (0, u64::MAX);
        (self.first_index, self.last_index, self.last_term) = (index + 1, index, term);
    }

    fn get(&self, index: u64) -> Option<&LogRecord> {
        let first = self.recent.front()?.index;
        self.recent.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }
}

impl Shared {
    /// Forgets a segment and removes its file.
    pub(super) fn remove(&self, segment: &Sealed) -> Result<(), LogError> {
        self.open_sealed.lock().retain(|(sequence, _)| *sequence != segment.link.sequence);
        Ok(self.disk.remove(&segment.name())?)
    }

    fn open(&self, sealed: &Sealed) -> Result<Arc<Segment>, LogError> {
        let sequence = sealed.link.sequence;
        let mut open = self.open_sealed.lock();
        let segment = match open.iter().position(|(s, _)| *s == sequence) {
            Some(at) => open.remove(at).expect("just found").1,
            None => Arc::new(Segment::open_sealed(&*self.disk, self.ahead_bytes, &sealed.name())?),
        };
        open.push_back((sequence, segment.clone()));
        if open.len() > SEALED_OPEN_MAX {
            open.pop_front();
        }
        Ok(segment)
    }
}

/// Reads the log beside its writer. Cheap to clone.
#[derive(Clone)]
pub struct LogReader {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for LogReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogReader").finish_non_exhaustive()
    }
}

impl LogReader {
    pub(super) fn new(shared: Arc<Shared>) -> LogReader {
        LogReader { shared }
    }

    /// The first index that can be read, or that comes next when there is none.
    pub fn first_index(&self) -> u64 {
        self.shared.tail.lock().first_index
    }

    /// The last index that is durable.
    pub fn last_index(&self) -> u64 {
        self.shared.tail.lock().last_index
    }

    /// The records from `from` to before `to_exclusive`, as far as there are any: the first of them that make up
    /// `bytes_max`, but one at least. What is behind the first index is [`LogError::Purged`].
    pub fn read(&self, from: u64, to_exclusive: u64, bytes_max: usize) -> Result<Vec<LogRecord>, LogError> {
        let mut records: Vec<LogRecord> = Vec::new();
        let mut bytes = 0;
        {
            let tail = self.shared.tail.lock();
            let to = to_exclusive.min(tail.last_index + 1);
            if from >= to {
                return Ok(records);
            }
            while let Some(record) = tail.get(from + records.len() as u64).filter(|r| r.index < to) {
                bytes += record.memory_bytes();
                if !records.is_empty() && bytes > bytes_max {
                    break;
                }
                records.push(record.clone());
            }
        }
        if !records.is_empty() {
            return Ok(records);
        }
        let view = self.shared.view.read();
        let Some(newest) = &view.newest else { return Err(LogError::Stopped) };
        let first_index = view.first_index();
        if from < first_index {
            return Err(LogError::Purged { index: from, first_index });
        }
        // Nothing is truncated while the view is held.
        let to = to_exclusive.min(self.shared.tail.lock().last_index + 1);
        let mut from = from;
        let ends = view.sealed.iter().skip(1).map(|s| s.link.first_index).chain([newest.first_index()]);
        for (sealed, end) in view.sealed.iter().zip(ends) {
            if from < end && from < to && (records.is_empty() || bytes < bytes_max) {
                let part =
                    self.shared.open(sealed)?.read(from, to.min(end), bytes_max - bytes.min(bytes_max))?;
                if part.is_empty() {
                    return Err(LogError::damaged(&sealed.name(), format!("record {from} is missing")));
                }
                bytes += part.iter().map(LogRecord::memory_bytes).sum::<usize>();
                from += part.len() as u64;
                let complete = from == to.min(end);
                records.extend(part);
                if !complete {
                    return Ok(records);
                }
            }
        }
        if from < to && (records.is_empty() || bytes < bytes_max) {
            let part = newest.read(from, to, bytes_max - bytes.min(bytes_max))?;
            if part.is_empty() {
                return Err(LogError::damaged(&newest.name, format!("record {from} is missing")));
            }
            records.extend(part);
        }
        Ok(records)
    }

    /// The term of a record, or of the one before the first; `None` for any other that is not there.
    pub fn term(&self, index: u64) -> Result<Option<u64>, LogError> {
        {
            let tail = self.shared.tail.lock();
            if index == tail.last_index {
                return Ok(Some(tail.last_term));
            }
            if index > tail.last_index {
                return Ok(None);
            }
            if let Some(record) = tail.get(index) {
                return Ok(Some(record.term));
            }
        }
        let view = self.shared.view.read();
        let Some(newest) = &view.newest else { return Err(LogError::Stopped) };
        if index > newest.birth.base_index {
            return newest.term(index);
        }
        if index == newest.birth.base_index {
            return Ok(Some(newest.birth.base_term));
        }
        match view.sealed.iter().rev().find(|s| s.link.first_index <= index + 1) {
            None => Ok(None),
            Some(sealed) => {
                let segment = self.shared.open(sealed)?;
                if index == segment.birth.base_index {
                    return Ok(Some(segment.birth.base_term));
                }
                segment.term(index)
            }
        }
    }
}
