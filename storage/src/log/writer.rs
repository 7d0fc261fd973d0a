//! The log as its one writer has it: recovery, append, truncation, the change of segments, purge and reset.
//!
//! What a power loss can leave, and how it is told:
//!
//! | left over | told by | done |
//! |---|---|---|
//! | a segment half made | its name ends in `.new` | removed |
//! | a new segment whose rename was lost | it still has that name | removed; the one before is the newest |
//! | segments that a truncation or reset replaced | not in the newest one's chain | removed |
//! | a purged segment that came back | in the chain | part of the log again |
//! | a later one of those purged gone, an earlier one not | a hole in the chain | what is before the hole is removed |

use super::reader::{LogReader, Sealed, Shared, Tail, View};
use super::segment::{Segment, UNFINISHED, file_name, parse_file_name};
use super::tables::{Birth, Link, Stamped};
use super::{HardState, LogError, LogRecord};
use crate::disk::SharedDisk;
use parking_lot::{Mutex, RwLock};
use std::sync::Arc;

/// How a log is kept.
#[derive(Clone, Copy, Debug)]
pub struct LogOptions {
    /// A segment that holds this many bytes of records is full; the next append begins another one.
    pub segment_bytes_max: u64,
    /// Space zeroed ahead of what is written, bytes; see [`crate::disk::Disk::open`]. At least 1.
    pub ahead_bytes: u64,
    /// Bytes of each segment's journal, where small appends gather before redb takes them in one commit.
    pub journal_bytes: u64,
    /// Bytes of the latest records that stay in memory for readers.
    pub cache_bytes: usize,
}

impl LogOptions {
    /// The file of a segment is no longer than this, bytes, where no single append is large: redb needs about as much as the
    /// records, the rest is ahead of them, and a quarter more leaves room for what is not so exactly foreseen.
    pub fn file_bytes_max(&self) -> u64 {
        (2 * self.segment_bytes_max + self.journal_bytes + self.ahead_bytes) / 4 * 5
    }
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            segment_bytes_max: 56 << 20,
            ahead_bytes: 16 << 20,
            journal_bytes: 1 << 20,
            cache_bytes: 32 << 20,
        }
    }
}

/// What is to be made durable together.
#[derive(Clone, Copy, Debug, Default)]
pub struct Append<'a> {
    /// In order, without gaps, the first at most one above the last in the log. What the log has from the first
    /// one's index on is truncated.
    pub records: &'a [LogRecord],
    /// `None`: as it was.
    pub hard_state: Option<HardState>,
}

/// Appends that wait for the same sync become one: `later` follows `records`, and truncates what they have from its first
/// index on.
pub fn join(
    records: &mut Vec<LogRecord>,
    hard_state: &mut Option<HardState>,
    later: Vec<LogRecord>,
    later_hard_state: Option<HardState>,
) {
    if let Some(first) = later.first() {
        records.retain(|record| record.index < first.index);
    }
    records.extend(later);
    *hard_state = later_hard_state.or(*hard_state);
}

/// What [`Log::open`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The latest one; all zero for a new log.
    pub hard_state: HardState,
    /// The first index that can be read, or that comes next when there is none.
    pub first_index: u64,
    /// The last index; `first_index - 1` when there is none.
    pub last_index: u64,
    /// Its term.
    pub last_term: u64,
    /// Was the newest segment left open by a process that died, and repaired?
    pub repaired: bool,
}

/// Segments that are no part of the log any more, and whose files are still there.
#[must_use = "the files are removed by remove()"]
pub struct Forgotten {
    shared: Arc<Shared>,
    segments: Vec<Sealed>,
}

impl Forgotten {
    /// Nothing to remove?
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Remove the files.
    pub fn remove(self) -> Result<(), LogError> {
        self.segments.iter().try_for_each(|segment| self.shared.remove(segment))
    }
}

/// The transaction log. One thread has it; [`Log::reader`] gives others access.
pub struct Log {
    shared: Arc<Shared>,
    options: LogOptions,
    stamped: Stamped,
    /// In the newest segment's journal, and not in redb.
    journaled: Vec<LogRecord>,
    stopped: bool,
    scratch: Vec<u8>,
}

impl Log {
    /// Opens the log in a folder, or begins one.
    pub fn open(disk: SharedDisk, options: LogOptions) -> Result<(Log, Recovered), LogError> {
        let ahead_bytes = options.ahead_bytes.max(1);
        let options = LogOptions { ahead_bytes, ..options };
        let mut found = Vec::new();
        for name in disk.list()? {
            if let Some(segment) = parse_file_name(&name) {
                found.push(segment);
            } else if name.strip_suffix(UNFINISHED).and_then(parse_file_name).is_some() {
                disk.remove(&name)?;
            }
        }
        found.sort_unstable();
        let mut scratch = Vec::new();
        let Some((sequence, first)) = found.pop() else {
            let birth = Birth { sequence: 1, base_index: 0, base_term: 0, chain: Vec::new() };
            let stamped = Stamped { stamp: 1, ..Stamped::default() };
            let newest = Segment::create(&disk, &options, birth, &[], stamped, &mut scratch)?;
            let recovered = Recovered {
                hard_state: HardState::default(),
                first_index: 1,
                last_index: 0,
                last_term: 0,
                repaired: false,
            };
            return Ok((
                Log::assemble(disk, options, Vec::new(), newest, recovered, stamped, scratch),
                recovered,
            ));
        };
        let name = file_name(sequence, first);
        let (newest, tip) = Segment::open(&disk, ahead_bytes, &name)?;
        if (newest.birth.sequence, newest.first_index()) != (sequence, first) {
            return Err(LogError::damaged(&name, "it was written under another name"));
        }
        // From the newest backwards, as far as the chain holds.
        let mut sealed: Vec<Sealed> = Vec::new();
        for link in newest.birth.chain.iter().rev() {
            if !found.contains(&(link.sequence, link.first_index)) {
                break;
            }
            sealed.push(Sealed::new(*link));
        }
        sealed.reverse();
        for (sequence, first) in found {
            if !sealed.iter().any(|s| s.link.sequence == sequence) {
                let name = file_name(sequence, first);
                tracing::info!(name, "removing a log segment that is no longer part of the log");
                disk.remove(&name)?;
            }
        }
        let recovered = Recovered {
            hard_state: tip.stamped.hard_state,
            first_index: sealed.first().map_or(newest.first_index(), |s| s.link.first_index),
            last_index: tip.last_index,
            last_term: tip.last_term,
            repaired: tip.repaired,
        };
        Ok((Log::assemble(disk, options, sealed, newest, recovered, tip.stamped, scratch), recovered))
    }

    fn assemble(
        disk: SharedDisk,
        options: LogOptions,
        sealed: Vec<Sealed>,
        newest: Segment,
        recovered: Recovered,
        stamped: Stamped,
        scratch: Vec<u8>,
    ) -> Log {
        let shared = Shared {
            disk,
            ahead_bytes: options.ahead_bytes,
            view: RwLock::new(View { sealed, newest: Some(newest) }),
            tail: Mutex::new(Tail::new(
                recovered.first_index,
                recovered.last_index,
                recovered.last_term,
                options.cache_bytes,
            )),
            open_sealed: Mutex::default(),
        };
        Log { shared: Arc::new(shared), options, stamped, journaled: Vec::new(), stopped: false, scratch }
    }

    /// A view for other threads.
    pub fn reader(&self) -> LogReader {
        LogReader::new(self.shared.clone())
    }

    /// The hard state as of the last append.
    pub fn hard_state(&self) -> HardState {
        self.stamped.hard_state
    }

    /// Bytes of records, those truncated within a segment included.
    pub fn bytes(&self) -> u64 {
        self.shared.view.read().sealed.iter().map(|s| s.link.bytes).sum::<u64>() + self.stamped.segment_bytes
    }

    /// The first index of the newest segments that have so many bytes of records together, or of all that there are; for 0
    /// bytes that of the next record.
    pub fn latest_from(&self, bytes: u64) -> u64 {
        let view = self.shared.view.read();
        let newest = (self.stamped.segment_bytes, view.newest().first_index());
        let older = view.sealed.iter().rev().map(|sealed| (sealed.link.bytes, sealed.link.first_index));
        let (mut from, mut found) = (self.shared.tail.lock().last_index + 1, 0);
        for (segment_bytes, first_index) in std::iter::once(newest).chain(older) {
            if found >= bytes {
                break;
            }
            found += segment_bytes;
            from = first_index;
        }
        from
    }

    /// How many files the log has.
    pub fn segments(&self) -> usize {
        self.shared.view.read().sealed.len() + 1
    }

    /// Bytes written to the newest segment and syncs of it, since this process began or opened it.
    pub fn traffic(&self) -> (u64, u64) {
        self.shared.view.read().newest.as_ref().map_or((0, 0), Segment::traffic)
    }

    /// Makes records and hard state durable, together: they are when this returns. An empty append does nothing.
    ///
    /// # Panics
    /// When the records leave a gap, or reach back behind the first index: our own bug.
    pub fn append(&mut self, append: Append<'_>) -> Result<(), LogError> {
        if append.records.is_empty() && append.hard_state.is_none() {
            return if self.stopped { Err(LogError::Stopped) } else { Ok(()) };
        }
        self.guarded(|log| log.append_unguarded(append))
    }

    /// No write after one that failed: nobody knows what it left on the disk.
    fn guarded<T>(&mut self, act: impl FnOnce(&mut Log) -> Result<T, LogError>) -> Result<T, LogError> {
        if std::mem::replace(&mut self.stopped, true) {
            return Err(LogError::Stopped);
        }
        let done = act(self)?;
        self.stopped = false;
        Ok(done)
    }

    fn append_unguarded(&mut self, append: Append<'_>) -> Result<(), LogError> {
        let records = append.records;
        let last_index = self.shared.tail.lock().last_index;
        let bytes: u64 = records.iter().map(LogRecord::stored_bytes).sum();
        let mut stamped = Stamped {
            stamp: self.stamped.stamp + 1,
            segment_bytes: self.stamped.segment_bytes + bytes,
            hard_state: append.hard_state.unwrap_or(self.stamped.hard_state),
        };
        let truncate_from = records.first().map(|r| r.index).filter(|index| *index <= last_index);
        if let Some(first) = records.first() {
            assert!(first.index <= last_index + 1, "append of {} after {last_index}", first.index);
            assert!(
                records.windows(2).all(|two| two[0].index + 1 == two[1].index && two[0].term <= two[1].term),
                "records of an append are in order"
            );
        }
        let newest_first = {
            let view = self.shared.view.read();
            let first_index = view.first_index();
            if let Some(first) = records.first() {
                assert!(first.index >= first_index, "append of {} before {first_index}", first.index);
            }
            view.newest().first_index()
        };
        let full = self.stamped.segment_bytes >= self.options.segment_bytes_max;
        match (records.first(), truncate_from) {
            (Some(first), _) if full || first.index < newest_first => {
                // A truncation that reaches into a sealed segment, or past it, is one rename, too.
                let base_term = self.reader().term(first.index - 1)?;
                let base_term = base_term.expect("the record before an append is there");
                stamped.segment_bytes = bytes;
                self.begin_segment(first.index - 1, base_term, true, records, stamped)?;
            }
            (_, None) if self.shared.view.read().newest().note(records, stamped)? => {
                self.journaled.extend_from_slice(records);
                self.shared.tail.lock().note(records);
            }
            (_, Some(_)) => {
                let (mut all, mut hard_state) = (std::mem::take(&mut self.journaled), None);
                join(&mut all, &mut hard_state, records.to_vec(), None);
                // Readers must not find the records gone before they know.
                let view = self.shared.view.write();
                view.newest().append(truncate_from, &all, Some(stamped), &mut self.scratch)?;
                self.shared.tail.lock().settle(records);
            }
            (_, None) => {
                let view = self.shared.view.read();
                if self.journaled.is_empty() {
                    view.newest().append(None, records, Some(stamped), &mut self.scratch)?;
                } else {
                    self.journaled.extend_from_slice(records);
                    view.newest().append(None, &self.journaled, Some(stamped), &mut self.scratch)?;
                    self.journaled.clear();
                }
                self.shared.tail.lock().settle(records);
            }
        }
        self.stamped = stamped;
        Ok(())
    }

    /// Closes the newest segment and begins another one, whose rename is the moment at which the log changes.
    fn begin_segment(
        &mut self,
        base_index: u64,
        base_term: u64,
        goes_on: bool,
        records: &[LogRecord],
        stamped: Stamped,
    ) -> Result<(), LogError> {
        let mut view = self.shared.view.write();
        let newest = view.newest.take().expect("there is a newest segment unless the log was stopped");
        // What stays of it must be found without its journal.
        let mut journaled = std::mem::take(&mut self.journaled);
        journaled.retain(|record| goes_on && record.index <= base_index);
        if !journaled.is_empty() {
            newest.append(None, &journaled, Some(self.stamped), &mut self.scratch)?;
        }
        let closed = Sealed::new(Link {
            sequence: newest.birth.sequence,
            first_index: newest.first_index(),
            bytes: self.stamped.segment_bytes,
        });
        let sequence = newest.birth.sequence + 1;
        // First of all: nobody is to repair it later.
        newest.close()?;
        let mut gone = Vec::new();
        let mut sealed = Vec::new();
        for segment in view.sealed.drain(..).chain([closed]) {
            let stays = goes_on && segment.link.first_index <= base_index;
            if stays { &mut sealed } else { &mut gone }.push(segment);
        }
        let birth = Birth {
            sequence,
            base_index,
            base_term,
            chain: sealed.iter().map(|s| s.link).collect::<Vec<_>>(),
        };
        let shared = &self.shared;
        let newest =
            Segment::create(&shared.disk, &self.options, birth, records, stamped, &mut self.scratch)?;
        *view = View { sealed, newest: Some(newest) };
        {
            let mut tail = shared.tail.lock();
            if records.is_empty() {
                tail.restart(base_index, base_term);
            } else {
                tail.settle(records);
            }
        }
        for segment in gone {
            shared.remove(&segment)?;
        }
        Ok(())
    }

    /// Unlinks the segments that lie wholly at or below `through`; never the newest. Afterwards the first index may
    /// still be lower than `through + 1`.
    pub fn purge(&mut self, through: u64) -> Result<(), LogError> {
        self.forget(through)?.remove()
    }

    /// The quick half of [`Log::purge`]: from now on those segments are no part of the log. Their files go with
    /// [`Forgotten::remove`], on whatever thread has the time: taking a file of 64 MiB apart was measured at 160 ms,
    /// and no append should wait for that. Files that a crash leaves behind are known as leftovers at the next open.
    pub fn forget(&mut self, through: u64) -> Result<Forgotten, LogError> {
        self.guarded(|log| {
            let mut view = log.shared.view.write();
            let newest_first = view.newest().first_index();
            let mut gone = 0;
            while gone < view.sealed.len() {
                let next_first = view.sealed.get(gone + 1).map_or(newest_first, |s| s.link.first_index);
                if next_first - 1 > through {
                    break;
                }
                gone += 1;
            }
            let gone: Vec<Sealed> = view.sealed.drain(..gone).collect();
            log.shared.tail.lock().first_index = view.first_index();
            drop(view);
            Ok(Forgotten { shared: log.shared.clone(), segments: gone })
        })
    }

    /// The log restarts behind (`index`, `term`), as after a snapshot was installed: all it has goes, and the
    /// record after `index` comes next. One durable step. Term and vote stay unless given anew; commit is
    /// at least `index` afterwards.
    pub fn reset(&mut self, index: u64, term: u64, hard_state: Option<HardState>) -> Result<(), LogError> {
        self.guarded(|log| {
            let mut hard_state = hard_state.unwrap_or(log.stamped.hard_state);
            hard_state.commit = hard_state.commit.max(index);
            let stamped = Stamped { stamp: log.stamped.stamp + 1, segment_bytes: 0, hard_state };
            log.begin_segment(index, term, false, &[], stamped)?;
            log.stamped = stamped;
            Ok(())
        })
    }

    /// Closes the log cleanly, so that the next start has nothing to repair. Readers must be gone or idle; they fail
    /// afterwards. Dropping the log leaves the journal to the next start, and reports nothing.
    pub fn close(mut self) -> Result<(), LogError> {
        let newest = self.shared.view.write().newest.take();
        let Some(newest) = newest else { return Ok(()) };
        if !self.stopped && !self.journaled.is_empty() {
            newest.append(None, &self.journaled, Some(self.stamped), &mut self.scratch)?;
        }
        self.stopped = true;
        newest.close()
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        drop(self.shared.view.write().newest.take());
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("stamped", &self.stamped).field("stopped", &self.stopped).finish()
    }
}
