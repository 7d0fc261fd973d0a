//! The threads of a server: consensus, log, service, checkpoint, tidying up. Each owns its machine; they talk by inboxes.

use super::Clock;
use super::inbox::Inbox;
use super::space::Space;
use crate::consensus::{self, Consensus, Submission};
use crate::metrics::Metrics;
use crate::room::Room;
use crate::service::{self, Service};
use std::fmt::Display;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use warren_storage::log::{Append, Forgotten, HardState, Log, LogRecord, join};
use warren_storage::tree::{Checkpoint, Superseded};

/// What the log thread does, in order.
enum LogJob {
    Append { number: u64, records: Vec<LogRecord>, hard_state: Option<HardState> },
    Purge(u64),
    Close(std::sync::mpsc::Sender<()>),
}

/// What takes long and nobody waits for.
enum Chore {
    /// Has a thread to itself: on a full disk it waits, and what the others free is what it waits for.
    Write(Checkpoint),
    /// An overlay nobody reads any more: taking it apart takes time that no client should wait for.
    Drop(Superseded),
    /// Segments of the log that are in a checkpoint; likewise.
    Remove(Forgotten),
}

/// A last checkpoint may take this long; what it would hold is in the log as well.
const LAST_CHECKPOINT_MAX: Duration = Duration::from_secs(60);
/// Closing the log may take this long; what is not closed is repaired by the next start.
const LOG_CLOSE_MAX: Duration = Duration::from_secs(20);

/// Where the rest of the daemon reaches the threads.
#[derive(Clone)]
pub(super) struct Engine {
    consensus: Arc<Inbox<consensus::Event>>,
    service: Arc<Inbox<ToService>>,
    log: Arc<Inbox<LogJob>>,
}

enum ToService {
    Event(service::Event),
    /// Have a look at the machine.
    Look(Box<dyn FnOnce(&Service) + Send>),
    /// Call back once no checkpoint is under way and everything is in one.
    Settle(std::sync::mpsc::Sender<()>),
}

/// What the engine is made of.
pub(super) struct Parts {
    pub(super) clock: Clock,
    pub(super) consensus: Consensus,
    pub(super) service: Service,
    pub(super) log: Log,
    pub(super) room: Arc<Room>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) space: Arc<Space>,
}

impl Engine {
    /// Start the threads.
    pub(super) fn start(parts: Parts) -> std::io::Result<Engine> {
        let Parts { clock, consensus, service, log, room, metrics, space } = parts;
        let engine = Engine { consensus: Inbox::new(), service: Inbox::new(), log: Inbox::new() };
        let (checkpoints, leavings) = (Inbox::new(), Inbox::new());
        spawn("warren-log", {
            let (engine, leavings, metrics) = (engine.clone(), leavings.clone(), metrics.clone());
            let space = space.clone();
            move || run_log(&clock, log, &engine, &leavings, &metrics, &space)
        })?;
        for (name, chores) in [("warren-checkpoint", &checkpoints), ("warren-tidy", &leavings)] {
            let (engine, chores, metrics) = (engine.clone(), chores.clone(), metrics.clone());
            let space = space.clone();
            spawn(name, move || run_chores(&clock, &chores, &engine, &metrics, &space))?;
        }
        spawn("warren-service", {
            let (engine, room) = (engine.clone(), room.clone());
            move || run_service(&clock, service, &engine, &checkpoints, &leavings, &room)
        })?;
        spawn("warren-consensus", {
            let engine = engine.clone();
            move || run_consensus(&clock, consensus, &engine, &room)
        })?;
        Ok(engine)
    }

    /// From a connection: events for the service first, then submissions for the leader.
    pub(super) fn submit(&self, effects: &mut crate::connection::Effects) {
        if !effects.service.is_empty() {
            self.service.extend(effects.service.drain(..).map(ToService::Event));
        }
        if !effects.submissions.is_empty() {
            self.consensus.push(consensus::Event::Submit(std::mem::take(&mut effects.submissions)));
        }
    }

    /// The disk went below its reserve, or came above it again.
    pub(super) fn refuse_growth(&self, refuse: bool) {
        self.consensus.push(consensus::Event::RefuseGrowth(refuse));
    }

    /// Make a checkpoint, unless nothing has changed since the last one.
    pub(super) fn checkpoint_now(&self) {
        self.service.push(ToService::Event(service::Event::CheckpointNow));
    }

    /// Have the service thread look at its machine.
    pub(super) fn look(&self, look: impl FnOnce(&Service) + Send + 'static) {
        self.service.push(ToService::Look(Box::new(look)));
    }

    /// Make a last checkpoint and close the log. Waits, but not for a full disk to have space again: then `false`.
    pub(super) fn stop(&self) -> bool {
        let (done, wait) = std::sync::mpsc::channel();
        self.checkpoint_now();
        self.service.push(ToService::Settle(done));
        let settled = wait.recv_timeout(LAST_CHECKPOINT_MAX).is_ok();
        let (done, wait) = std::sync::mpsc::channel();
        self.log.push(LogJob::Close(done));
        wait.recv_timeout(LOG_CLOSE_MAX).is_ok() && settled
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    thread::Builder::new().name(name.into()).spawn(run).map(|_| ())
}

/// Our own broken state, or a store that fails: nothing good can come of going on. What was acknowledged is in
/// the log, and the next start recovers it.
fn stop_for(what: &str, error: &dyn std::error::Error) -> ! {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    say_and_stop(what, &text)
}

fn say_and_stop(what: &str, why: &dyn Display) -> ! {
    tracing::error!("{what}: {why}; stopping, so that nothing is acknowledged that is not kept");
    std::process::exit(74)
}

fn run_consensus(clock: &Clock, mut consensus: Consensus, engine: &Engine, room: &Room) {
    let mut events = Vec::new();
    let mut submissions: Vec<Submission> = Vec::new();
    loop {
        engine.consensus.take(clock, Some(consensus.poll_timeout()), &mut events);
        let now = clock.now();
        // What came from many connections is proposed together.
        for event in events.drain(..) {
            match event {
                consensus::Event::Submit(more) => submissions.extend(more),
                consensus::Event::RefuseGrowth(refuse) => {
                    room.set_growth_refused(refuse);
                    handle(&mut consensus, now, event);
                }
                event => handle(&mut consensus, now, event),
            }
        }
        let last = match submissions.is_empty() {
            true => consensus::Event::Tick,
            false => consensus::Event::Submit(std::mem::take(&mut submissions)),
        };
        handle(&mut consensus, now, last);
        while let Some(action) = consensus.poll_action() {
            match action {
                consensus::Action::Append { number, records, hard_state } => {
                    room.metrics.proposal_count.add(records.len() as u64);
                    engine.log.push(LogJob::Append { number, records, hard_state });
                }
                consensus::Action::Commit(entries) => {
                    room.metrics.commit_count.add(entries.len() as u64);
                    engine.service.push(ToService::Event(service::Event::Commit(entries)));
                }
                consensus::Action::ReadAt { index, tokens } => {
                    engine.service.push(ToService::Event(service::Event::ReadAt { index, tokens }));
                }
                consensus::Action::Lead(leads) => {
                    tracing::debug!(leads, "leadership");
                    if !leads {
                        room.set_serving(false);
                    }
                    engine.service.push(ToService::Event(service::Event::Lead(leads)));
                }
            }
        }
    }
}

fn handle(consensus: &mut Consensus, now: crate::moment::Moment, event: consensus::Event) {
    if let Err(e) = consensus.handle(now, event) {
        stop_for("consensus cannot go on", &e);
    }
}

/// A checkpoint is asked for when so much was logged since the last one: refused requests are logged too, and fill no
/// overlay that would ask for one. It also bounds what a start replays.
const LOGGED_BYTES_MAX: u64 = 128 << 20;
/// The same on a disk below its reserve, which the log must not eat.
const LOGGED_BYTES_MAX_FULL: u64 = 4 << 20;

/// How long it waits for the purge that frees space. Then it goes on, and asks again.
const PURGE_WAIT_MAX: Duration = Duration::from_secs(1);

fn run_log(
    clock: &Clock,
    log: Log,
    engine: &Engine,
    leavings: &Inbox<Chore>,
    metrics: &Metrics,
    space: &Space,
) {
    let mut log = Some(log);
    let mut jobs = Vec::new();
    let (mut logged_bytes, mut asked) = (0, false);
    loop {
        engine.log.take(clock, None, &mut jobs);
        // Below the reserve the log waits for the purge that was asked for, and takes it first.
        if asked && logged_bytes > 2 * LOGGED_BYTES_MAX_FULL && space.is_tight() {
            let until = clock.now() + PURGE_WAIT_MAX;
            while jobs.iter().all(|job| matches!(job, LogJob::Append { .. }))
                && !until.since(clock.now()).is_zero()
            {
                engine.log.take(clock, Some(until), &mut jobs);
            }
            jobs.sort_by_key(|job| !matches!(job, LogJob::Purge(_)));
            asked = false;
        }
        let mut waiting = jobs.drain(..).peekable();
        while let Some(job) = waiting.next() {
            let Some(open) = log.as_mut() else { continue };
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
                    let start = clock.now();
                    if let Err(e) = open.append(Append { records: &records, hard_state }) {
                        stop_for("the log cannot be written", &e);
                    }
                    metrics.fsynctime.record(clock.now() - start);
                    metrics.sync_processor_batch_size.record(records.len() as u64);
                    engine.consensus.push(consensus::Event::Persisted(number));
                    let bytes = records.iter().map(|record| record.data.len() as u64).sum::<u64>();
                    logged_bytes += bytes;
                    space.wrote(bytes, engine);
                    let most = if space.is_tight() { LOGGED_BYTES_MAX_FULL } else { LOGGED_BYTES_MAX };
                    if logged_bytes > most && !asked {
                        asked = true;
                        engine.service.push(ToService::Event(service::Event::CheckpointNow));
                    }
                }
                LogJob::Purge(index) => {
                    (logged_bytes, asked) = (0, false);
                    match open.forget(index) {
                        Ok(forgotten) if forgotten.is_empty() => {}
                        Ok(forgotten) => leavings.push(Chore::Remove(forgotten)),
                        Err(e) => stop_for("the log cannot be purged", &e),
                    }
                }
                LogJob::Close(done) => {
                    if let Some(Err(e)) = log.take().map(Log::close) {
                        tracing::warn!("the log was not closed cleanly: {e}");
                    }
                    let _ = done.send(());
                }
            }
        }
    }
}

fn run_service(
    clock: &Clock,
    mut service: Service,
    engine: &Engine,
    checkpoints: &Inbox<Chore>,
    leavings: &Inbox<Chore>,
    room: &Room,
) {
    let mut events = Vec::new();
    let mut settles: Vec<std::sync::mpsc::Sender<()>> = Vec::new();
    let mut leads = false;
    loop {
        engine.service.take(clock, service.poll_timeout(), &mut events);
        let now = clock.now();
        let mut nothing = true;
        for event in events.drain(..) {
            match event {
                ToService::Settle(done) => settles.push(done),
                ToService::Look(look) => look(&service),
                ToService::Event(event) => {
                    nothing = false;
                    if let service::Event::Lead(l) = event {
                        leads = l;
                    }
                    if let Err(e) = service.handle(now, event) {
                        stop_for("the tree cannot be read or written", &e);
                    }
                    service.publish();
                }
            }
        }
        if nothing {
            if let Err(e) = service.handle(now, service::Event::Tick) {
                stop_for("the tree cannot be read or written", &e);
            }
            service.publish();
        }
        if leads && !room.is_stopping() && service.has_epoch() {
            room.set_serving(true);
        }
        while let Some(action) = service.poll_action() {
            match action {
                service::Action::Submit(submissions) => {
                    engine.consensus.push(consensus::Event::Submit(submissions));
                }
                service::Action::Applied(index) => engine.consensus.push(consensus::Event::Applied(index)),
                service::Action::Checkpoint(checkpoint) => checkpoints.push(Chore::Write(checkpoint)),
                service::Action::Superseded(old) => leavings.push(Chore::Drop(old)),
                service::Action::Purge(index) => engine.log.push(LogJob::Purge(index)),
            }
        }
        if !service.is_checkpointing() {
            for done in settles.drain(..) {
                let _ = done.send(());
            }
        }
    }
}

fn run_chores(clock: &Clock, jobs: &Arc<Inbox<Chore>>, engine: &Engine, metrics: &Metrics, space: &Space) {
    // Behind the threads that clients wait for, where cores are few. The kernel's niceness is per thread.
    if let Err(e) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), CHECKPOINT_NICENESS)
    {
        tracing::debug!("a thread for chores runs at normal priority: {e}");
    }
    let mut taken = Vec::new();
    loop {
        jobs.take(clock, None, &mut taken);
        for job in taken.drain(..) {
            match job {
                Chore::Drop(old) => drop(old),
                Chore::Remove(forgotten) => {
                    if let Err(e) = forgotten.remove() {
                        stop_for("the log cannot be purged", &e);
                    }
                }
                Chore::Write(checkpoint) => {
                    let start = clock.now();
                    let rows_bytes = space.rows_bytes();
                    match checkpoint.write() {
                        Ok(written) => {
                            metrics.snapshottime.record(clock.now() - start);
                            space.checkpointed(rows_bytes, engine);
                            engine.service.push(ToService::Event(service::Event::Checkpointed(written)));
                        }
                        Err(e) => stop_for("a checkpoint cannot be written", &e),
                    }
                }
            }
        }
    }
}

/// How far behind.
const CHECKPOINT_NICENESS: i32 = 10;
