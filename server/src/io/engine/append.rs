//! The log thread, and the log for whoever appends.

use super::super::Clock;
use super::super::inbox::Inbox;
use super::super::space::Space;
use super::chores::Chore;
use super::{Engine, ToService, stop_for};
use crate::consensus;
use crate::metrics::Metrics;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;
use warren_storage::log::{Append, HardState, Log, LogRecord, join};
use warren_storage::tree::Position;
use warren_transport::peer::SnapshotHead;

/// What the log thread does, in order.
///
/// Where the server is its ensemble's only voter, the consensus thread appends for itself what is little and finds
/// nothing in front of it ([`super::propose`]): a write that comes alone is spared two changes of threads. With
/// several voters it never does, for others wait for what it has to say while the disk syncs.
pub(super) enum LogJob {
    Append {
        number: u64,
        records: Vec<LogRecord>,
        hard_state: Option<HardState>,
    },
    /// A checkpoint is durable.
    Purge {
        checkpoint: Position,
        conf_state: Vec<u8>,
    },
    /// Nothing, but it was here: see [`crate::pulse`].
    Turn,
    /// See [`consensus::Action::Install`].
    Install {
        number: u64,
        head: SnapshotHead,
        hard_state: Option<HardState>,
    },
    Close(mpsc::Sender<()>),
}

/// How long it waits for the purge that frees space. Then it goes on, and asks again.
const PURGE_WAIT_MAX: Duration = Duration::from_secs(1);

/// The log, and what is known of how much went into it. Whoever appends holds the lock.
pub(super) struct Keeper {
    state: Mutex<Kept>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) space: Arc<Space>,
}

struct Kept {
    /// `None` once it is closed.
    log: Option<Log>,
    /// Since the last purge.
    logged_bytes: u64,
    /// Was a checkpoint asked for since?
    asked: bool,
}

impl Keeper {
    pub(super) fn new(log: Log, metrics: Arc<Metrics>, space: Arc<Space>) -> Keeper {
        Keeper { state: Mutex::new(Kept { log: Some(log), logged_bytes: 0, asked: false }), metrics, space }
    }

    /// False when the log is in other hands or the disk is below its reserve; then it is the log thread's to do.
    pub(super) fn append_at_once(
        &self,
        clock: &Clock,
        engine: &Engine,
        records: &[LogRecord],
        hard_state: Option<HardState>,
    ) -> bool {
        if self.space.is_tight() {
            return false;
        }
        let Some(mut kept) = self.state.try_lock() else { return false };
        self.append(&mut kept, clock, engine, records, hard_state)
    }

    /// False when the log is closed.
    fn append(
        &self,
        kept: &mut Kept,
        clock: &Clock,
        engine: &Engine,
        records: &[LogRecord],
        hard_state: Option<HardState>,
    ) -> bool {
        let Some(log) = kept.log.as_mut() else { return false };
        let start = clock.now();
        if let Err(e) = log.append(Append { records, hard_state }) {
            stop_for("the log cannot be written", &e);
        }
        self.metrics.fsynctime.record(clock.now() - start);
        self.metrics.sync_processor_batch_size.record(records.len() as u64);
        let bytes = records.iter().map(|record| record.data.len() as u64).sum::<u64>();
        kept.logged_bytes += bytes;
        self.space.wrote(bytes, engine);
        if kept.logged_bytes > self.space.retention().logged_bytes && !kept.asked {
            kept.asked = true;
            engine.checkpoint_now();
        }
        true
    }

    /// Below the reserve, and so much logged that the purge which was asked for must come first?
    fn must_wait_for_purge(&self) -> bool {
        let kept = &mut *self.state.lock();
        let must = kept.asked
            && kept.logged_bytes > 2 * self.space.retention().logged_bytes
            && self.space.is_tight();
        if must {
            kept.asked = false;
        }
        must
    }
}

pub(super) fn run(clock: &Clock, engine: &Engine, leavings: &Inbox<Chore>) {
    let keeper = &engine.keeper;
    let mut jobs = Vec::new();
    loop {
        engine.log.take(clock, None, &mut jobs);
        engine.turned.log.add();
        // Below the reserve the log waits for the purge that was asked for, and takes it first.
        if keeper.must_wait_for_purge() {
            let until = clock.now() + PURGE_WAIT_MAX;
            while jobs.iter().all(|job| matches!(job, LogJob::Append { .. } | LogJob::Turn))
                && !until.since(clock.now()).is_zero()
            {
                engine.log.take(clock, Some(until), &mut jobs);
            }
            jobs.sort_by_key(|job| !matches!(job, LogJob::Purge { .. }));
        }
        let mut waiting = jobs.drain(..).peekable();
        while let Some(job) = waiting.next() {
            match job {
                LogJob::Append { mut number, mut records, mut hard_state } => {
                    // What waited for the last sync shares the next one.
                    while let Some(LogJob::Append { .. }) = waiting.peek() {
                        let Some(LogJob::Append { number: n, records: more, hard_state: later }) =
                            waiting.next()
                        else {
                            break;
                        };
                        join(&mut records, &mut hard_state, more, later);
                        number = n;
                    }
                    if keeper.append(&mut keeper.state.lock(), clock, engine, &records, hard_state) {
                        engine.consensus.push(consensus::Event::Persisted(number));
                    }
                }
                LogJob::Purge { checkpoint, conf_state } => {
                    let kept = &mut *keeper.state.lock();
                    (kept.logged_bytes, kept.asked) = (0, false);
                    let Some(log) = kept.log.as_mut() else { continue };
                    let retention = keeper.space.retention();
                    let wanted_from = engine.wanted_from.load(Ordering::Relaxed);
                    let latest_from = |bytes| log.latest_from(bytes);
                    let through = retention.through(checkpoint.index, wanted_from, latest_from);
                    match log.forget(through) {
                        Ok(forgotten) if forgotten.is_empty() => {}
                        Ok(forgotten) => leavings.push(Chore::Remove(forgotten)),
                        Err(e) => stop_for("the log cannot be purged", &e),
                    }
                    let first_index = log.reader().first_index();
                    engine.consensus.leave(consensus::Event::Checkpointed {
                        position: checkpoint,
                        conf_state,
                        first_index,
                    });
                }
                LogJob::Turn => {}
                LogJob::Install { number, head, hard_state } => {
                    let (done, wait) = mpsc::channel();
                    let (index, term) = (head.index, head.term);
                    engine.service.push(ToService::Install(head, done));
                    if wait.recv().is_err() {
                        continue; // The service stops the process.
                    }
                    let kept = &mut *keeper.state.lock();
                    let Some(log) = kept.log.as_mut() else { continue };
                    if let Err(e) = log.reset(index, term, hard_state) {
                        stop_for("the log cannot be begun anew behind a snapshot", &e);
                    }
                    (kept.logged_bytes, kept.asked) = (0, false);
                    engine.consensus.push(consensus::Event::Installed { number });
                }
                LogJob::Close(done) => {
                    if let Some(Err(e)) = keeper.state.lock().log.take().map(Log::close) {
                        tracing::warn!("the log was not closed cleanly: {e}");
                    }
                    let _ = done.send(());
                }
            }
        }
    }
}
