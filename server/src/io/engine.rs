//! The threads of a server: consensus, log, service, checkpoint, tidying up. Each owns its machine; they talk by inboxes.

use super::Clock;
use super::ensemble::Ensemble;
use super::inbox::Inbox;
use super::reconfigure::Reconfigurations;
use super::space::Space;
use crate::consensus::{self, Facts, Measure, Role, Submission};
use crate::metrics::Metrics;
use crate::observer::Seat;
use crate::pulse::Turns;
use crate::room::Room;
use crate::service::{self, Service};
use parking_lot::Mutex;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use warren_storage::log::{Append, Forgotten, HardState, Log, LogReader, LogRecord, join};
use warren_storage::tree::{Checkpoint, Position, Superseded, Tree};
use warren_transport::peer::{Known, PeerMessage, RaftMessage, ServerId, SnapshotHead};

/// What the log thread does, in order.
///
/// Where the server is its ensemble's only voter, the consensus thread appends for itself what is little and finds
/// nothing in front of it ([`OWN_APPEND_BYTES_MAX`]): a write that comes alone is spared two changes of threads. With
/// several voters it never does, for others wait for what it has to say while the disk syncs.
enum LogJob {
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

/// What takes long and nobody waits for.
enum Chore {
    /// Has a thread to itself: on a full disk it waits, and what the others free is what it waits for.
    Write(Box<Checkpoint>),
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
    pub(super) consensus: Arc<Inbox<consensus::Event>>,
    service: Arc<Inbox<ToService>>,
    log: Arc<Inbox<LogJob>>,
    keeper: Arc<Keeper>,
    pub(super) ensemble: Option<Arc<Ensemble>>,
    /// Changes of the membership that were asked for here.
    pub(super) reconfigure: Arc<Reconfigurations>,
    /// As of the consensus thread's last turn.
    facts: Arc<Mutex<Option<Facts>>>,
    /// Told by the consensus thread when it has ended, as it does once this is there.
    retire: Arc<Mutex<Option<mpsc::Sender<()>>>>,
    /// The log from here on is still to be sent to a follower that is heard of; `u64::MAX` when none is behind.
    wanted_from: Arc<AtomicU64>,
    /// For who only looks.
    pub(super) log_reader: LogReader,
    turned: Arc<Turned>,
    clock: Clock,
    /// When the oldest of the requests that wait for the consensus thread came, µs; 0 while none waits.
    waiting_us: Arc<AtomicU64>,
}

/// How often each of the machines' threads came back to its inbox; see [`crate::pulse`].
#[derive(Default)]
struct Turned {
    consensus: Count,
    service: Count,
    log: Count,
}

/// Has a cache line to itself, as each belongs to a thread that counts all the time.
#[derive(Default)]
#[repr(align(64))]
struct Count(AtomicU64);

impl Count {
    fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

enum ToService {
    Event(service::Event),
    /// Have a look at the machine.
    Look(Box<dyn FnOnce(&Service) + Send>),
    /// Call back once no checkpoint is under way and everything is in one.
    Settle(mpsc::Sender<()>),
    /// Put the snapshot that was received in the tree's place, then call back.
    Install(SnapshotHead, mpsc::Sender<()>),
}

/// What the engine is made of.
pub(super) struct Parts {
    pub(super) clock: Clock,
    pub(super) consensus: Seat,
    pub(super) service: Service,
    pub(super) log: Log,
    pub(super) room: Arc<Room>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) space: Arc<Space>,
    /// The other servers, if there are any.
    pub(super) ensemble: Option<Arc<Ensemble>>,
    pub(super) reconfigure: Arc<Reconfigurations>,
}

impl Engine {
    /// Start the threads.
    pub(super) fn start(parts: Parts) -> std::io::Result<Engine> {
        let Parts { clock, consensus, service, log, room, metrics, space, ensemble, reconfigure } = parts;
        let log_reader = log.reader();
        let keeper = Keeper {
            state: Mutex::new(Kept { log: Some(log), logged_bytes: 0, asked: false }),
            metrics: metrics.clone(),
            space: space.clone(),
        };
        let engine = Engine {
            consensus: Inbox::new(),
            service: Inbox::new(),
            log: Inbox::new(),
            keeper: Arc::new(keeper),
            ensemble,
            reconfigure,
            facts: Arc::default(),
            retire: Arc::default(),
            wanted_from: Arc::new(AtomicU64::new(u64::MAX)),
            log_reader,
            turned: Arc::default(),
            clock,
            waiting_us: Arc::default(),
        };
        let (checkpoints, leavings) = (Inbox::new(), Inbox::new());
        spawn("warren-log", {
            let (engine, leavings) = (engine.clone(), leavings.clone());
            move || run_log(&clock, &engine, &leavings)
        })?;
        for (name, chores) in [("warren-checkpoint", &checkpoints), ("warren-tidy", &leavings)] {
            let (engine, chores, metrics) = (engine.clone(), chores.clone(), metrics.clone());
            let space = space.clone();
            spawn(name, move || run_chores(&clock, &chores, &engine, &metrics, &space))?;
        }
        spawn("warren-service", {
            let engine = engine.clone();
            move || run_service(&clock, service, &engine, &checkpoints, &leavings, &space)
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
            // A session that the connection asks for itself wakes the service when it is there.
            let waits =
                |event: &service::Event| matches!(event, service::Event::Connect { asked: Some(_), .. });
            if effects.service.iter().all(waits) {
                for event in effects.service.drain(..) {
                    self.service.leave(ToService::Event(event));
                }
            } else {
                self.service.extend(effects.service.drain(..).map(ToService::Event));
            }
        }
        if !effects.submissions.is_empty() {
            if self.waiting_us.load(Ordering::Relaxed) == 0 {
                self.waiting_us.store(self.clock.now().us, Ordering::Relaxed);
            }
            self.consensus.push(consensus::Event::Submit(std::mem::take(&mut effects.submissions)));
        }
    }

    /// The disk went below its reserve, or came above it again.
    pub(super) fn refuse_growth(&self, refuse: bool) {
        self.consensus.push(consensus::Event::RefuseGrowth(refuse));
    }

    /// What another server said, to the machine that understands it.
    pub(super) fn hear_peer(&self, from: ServerId, message: PeerMessage) {
        match message {
            PeerMessage::Touches(_) | PeerMessage::TouchesAck(_) | PeerMessage::Compare(_) => {
                self.service.push(ToService::Event(service::Event::Peer { from, message }));
            }
            message => self.consensus.push(consensus::Event::Peer { from, message }),
        }
    }

    /// A server has this store.
    pub(super) fn met(&self, server: ServerId, disk: u32, store_id: u64) {
        self.consensus.push(consensus::Event::Met { server, disk, store_id });
    }

    /// Another server answers what it has recorded of this one.
    pub(super) fn recorded(&self, known: Known) {
        self.consensus.push(consensus::Event::Recorded(known));
    }

    /// Its link is down, or too much waits for it.
    pub(super) fn unreachable(&self, server: ServerId) {
        self.consensus.push(consensus::Event::Unreachable { server });
    }

    /// A snapshot was sent, or was not.
    pub(super) fn snapshot_sent(&self, to: ServerId, ok: bool) {
        let metrics = &self.keeper.metrics;
        if ok {
            metrics.snap_count.add(1)
        } else {
            metrics.warren_snapshots_failed_total.add(1)
        }
        self.consensus.push(consensus::Event::SnapshotSent { to, ok });
    }

    /// A snapshot is all here.
    pub(super) fn snapshot_received(&self, from: ServerId, message: RaftMessage) {
        self.consensus.push(consensus::Event::SnapshotReceived { from, message });
    }

    /// This server does not belong to the ensemble any more, the others say.
    pub(super) fn expelled(&self) {
        self.service.push(ToService::Event(service::Event::Expelled));
    }

    /// Hand leadership over, if this server has it.
    pub(super) fn transfer(&self, to: Option<ServerId>) {
        self.consensus.push(consensus::Event::Transfer { to });
    }

    /// Hand leadership over and wait until that is done or has failed. True when this server led and no longer does.
    pub(super) async fn hand_over(&self, to: Option<ServerId>) -> bool {
        let leads = || self.facts().is_some_and(|facts| facts.role == Role::Leading);
        if !leads() {
            return false;
        }
        let began = tokio::time::Instant::now();
        let mut ask_at = began;
        while leads() && began.elapsed() < HAND_OVER_WITHIN {
            if tokio::time::Instant::now() >= ask_at {
                self.transfer(to);
                ask_at += HAND_OVER_AGAIN;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        !leads()
    }

    /// How often consensus, service and log have turned.
    pub(super) fn turns(&self) -> Turns {
        let Turned { consensus, service, log } = &*self.turned;
        [consensus, service, log].map(|count| count.0.load(Ordering::Relaxed))
    }

    /// Have each of them turn at least once more, as soon as it has done what it is at.
    pub(super) fn poke(&self) {
        self.consensus.rouse(consensus::Event::Tick);
        self.service.rouse(ToService::Look(Box::new(|_| {})));
        self.log.rouse(LogJob::Turn);
    }

    /// Does a write wait for space on the disk?
    pub(super) fn waits_for_space(&self) -> bool {
        self.keeper.space.waits()
    }

    /// How consensus stood a moment ago; `None` where there is but one voter.
    pub(super) fn facts(&self) -> Option<Facts> {
        self.facts.lock().clone()
    }

    /// Make a checkpoint, unless nothing has changed since the last one.
    pub(super) fn checkpoint_now(&self) {
        self.service.push(ToService::Event(service::Event::CheckpointNow));
    }

    /// Have the service thread look at its machine.
    pub(super) fn look(&self, look: impl FnOnce(&Service) + Send + 'static) {
        self.service.push(ToService::Look(Box::new(look)));
    }

    /// The other servers. Asked only where consensus or service has something for them.
    fn others(&self) -> &Arc<Ensemble> {
        self.ensemble.as_ref().expect("an ensemble of one has nobody to write to")
    }

    /// Make a last checkpoint and close the log. Waits, but not for a full disk to have space again: then `false`.
    pub(super) fn stop(&self) -> bool {
        let (done, wait) = mpsc::channel();
        self.service.push(ToService::Event(service::Event::LastCheckpoint));
        self.service.push(ToService::Settle(done));
        let settled = wait.recv_timeout(LAST_CHECKPOINT_MAX).is_ok();
        // Without its peers it would look for a leader, and in a log that is closed.
        let (done, wait) = mpsc::channel();
        *self.retire.lock() = Some(done);
        self.consensus.push(consensus::Event::Tick);
        let _ = wait.recv_timeout(LOG_CLOSE_MAX);
        let (done, wait) = mpsc::channel();
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

/// What the consensus thread appends itself is no larger. More than that is worth a thread that takes the next
/// requests meanwhile.
const OWN_APPEND_BYTES_MAX: usize = 16 << 10;

fn run_consensus(clock: &Clock, mut consensus: Seat, engine: &Engine, room: &Room) {
    let mut events = Vec::new();
    let mut submissions: Vec<Submission> = Vec::new();
    // The last append that the log thread was given and has not reported.
    let mut with_log: Option<u64> = None;
    let mut shown = clock.now();
    let mut led_since = None;
    loop {
        engine.consensus.take(clock, Some(consensus.poll_timeout()), &mut events);
        engine.turned.consensus.add();
        if let Some(done) = engine.retire.lock().take() {
            let _ = done.send(());
            return;
        }
        let now = clock.now();
        let (mut received, mut installs) = (false, false);
        // What came from many connections is proposed together.
        for event in events.drain(..) {
            match event {
                consensus::Event::Submit(more) => submissions.extend(more),
                consensus::Event::RefuseGrowth(refuse) => {
                    room.set_growth_refused(refuse);
                    handle(&mut consensus, now, event);
                }
                consensus::Event::Persisted(number) => {
                    with_log = with_log.filter(|last| *last > number);
                    handle(&mut consensus, now, event);
                }
                event => {
                    received |= matches!(event, consensus::Event::SnapshotReceived { .. });
                    handle(&mut consensus, now, event);
                }
            }
        }
        if !submissions.is_empty() {
            let since_us = engine.waiting_us.swap(0, Ordering::Relaxed);
            if since_us > 0 {
                let waited = Duration::from_micros(now.us.saturating_sub(since_us));
                room.metrics.warren_admission_ms.record(waited);
            }
            handle(&mut consensus, now, consensus::Event::Submit(std::mem::take(&mut submissions)));
        }
        handle(&mut consensus, now, consensus::Event::Tick);
        while let Some(action) = consensus.poll_action() {
            match action {
                consensus::Action::Append { number, records, hard_state } => {
                    room.metrics.proposal_count.add(records.len() as u64);
                    if led_since.is_some() {
                        records.iter().for_each(|record| room.metrics.proposed(record.data.len()));
                    }
                    let bytes: usize = records.iter().map(|record| record.data.len()).sum();
                    let own = consensus.is_alone() && with_log.is_none() && bytes <= OWN_APPEND_BYTES_MAX;
                    if own && engine.keeper.append_at_once(clock, engine, &records, hard_state) {
                        handle(&mut consensus, clock.now(), consensus::Event::Persisted(number));
                    } else {
                        with_log = Some(number);
                        engine.log.push(LogJob::Append { number, records, hard_state });
                    }
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
                    led_since = leads.then_some(now);
                    room.metrics.forget_proposals();
                }
                consensus::Action::Leader { term, leader } => {
                    if let (Some(ensemble), Some(leader)) = (&engine.ensemble, leader) {
                        ensemble.on_leader(leader);
                    }
                    engine.service.push(ToService::Event(service::Event::Leader { term, leader }));
                }
                consensus::Action::Send { to, message } => engine.others().send(to, message),
                consensus::Action::SendSnapshot { to, .. } if room.is_wrong() => {
                    engine.snapshot_sent(to, false);
                }
                consensus::Action::SendSnapshot { to, message } => engine.others().send_snapshot(to, message),
                consensus::Action::Install { number, head, hard_state } => {
                    installs = true;
                    with_log = Some(number);
                    engine.log.push(LogJob::Install { number, head, hard_state });
                }
            }
        }
        if received && !installs {
            engine.others().forget_staged();
        }
        if engine.ensemble.is_some() {
            measure(&mut consensus, &room.metrics);
            if now.since(shown) >= SHOW_EVERY || installs {
                shown = now;
                room.metrics
                    .leader_uptime
                    .set(led_since.map_or(0, |since| now.since(since).as_millis() as i64));
                show(&consensus, engine, &room.metrics);
            }
        }
    }
}

/// A hand-over that takes longer has failed: nobody is near enough.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(2);
/// Within it, leadership is offered again each time: raft gives an offer that was lost up after an election timeout, and
/// takes a second one to the same server before that for the first.
const HAND_OVER_AGAIN: Duration = Duration::from_millis(300);
/// Between two looks at how consensus stands.
pub(super) const SHOW_EVERY: Duration = Duration::from_millis(50);

fn measure(consensus: &mut Seat, metrics: &Metrics) {
    for measure in consensus.take_measures() {
        match measure {
            Measure::Election(took) => metrics.election_time.record(took),
            Measure::Looking => metrics.looking_count.add(1),
            Measure::Unavailable(took) => metrics.unavailable_time.record(took),
            Measure::QuorumAck(took) => metrics.quorum_ack_latency.record(took),
            Measure::Proposal(took) => metrics.proposal_latency.record(took),
        }
    }
}

fn show(consensus: &Seat, engine: &Engine, metrics: &Metrics) {
    let facts = consensus.facts();
    metrics.quorum_size.set(facts.voters.len() as i64);
    metrics.synced_followers.set(facts.followers.iter().filter(|f| f.active && f.synced).count() as i64);
    let joining = |f: &&consensus::Follower| f.active && f.synced && !facts.voters.contains(&f.server);
    metrics.synced_non_voting_followers.set(facts.followers.iter().filter(joining).count() as i64);
    metrics.pending_syncs.set(facts.pending_syncs as i64);
    let active = facts.followers.iter().filter(|f| f.active).count();
    metrics.learners.set((active + facts.observers.len()) as i64);
    metrics.leader_id.set(facts.leader.map_or(0, i64::from));
    metrics.warren_is_leader.set(i64::from(facts.role == Role::Leading));
    metrics.synced_observers.set(facts.observers.iter().filter(|f| f.synced).count() as i64);
    metrics.warren_feeder_id.set(facts.feeder.map_or(0, i64::from));
    metrics.warren_observers_fed.set(facts.observers.len() as i64);
    metrics.warren_committed_index.set(facts.committed as i64);
    let behind = facts.followers.iter().filter(|f| f.active).map(|f| f.matched + 1);
    let behind = behind.chain(consensus.wanted_from()).min();
    engine.wanted_from.store(behind.unwrap_or(u64::MAX), Ordering::Relaxed);
    *engine.facts.lock() = Some(facts);
}

fn handle(consensus: &mut Seat, now: crate::moment::Moment, event: consensus::Event) {
    if let Err(e) = consensus.handle(now, event) {
        stop_for("consensus cannot go on", &e);
    }
}

/// A checkpoint is asked for when so much was logged since the last one: refused requests are logged too, and fill no
/// overlay that would ask for one. It also bounds what a start replays.
const LOGGED_BYTES_MAX: u64 = 128 << 20;
/// The same on a disk below its reserve, which the log must not eat.
const LOGGED_BYTES_MAX_FULL: u64 = 4 << 20;

/// The log is kept for followers that are behind, up to this many bytes.
const KEPT_BYTES_MAX: u64 = 512 << 20;

/// How long it waits for the purge that frees space. Then it goes on, and asks again.
const PURGE_WAIT_MAX: Duration = Duration::from_secs(1);

/// The log, and what is known of how much went into it. Whoever appends holds the lock.
struct Keeper {
    state: Mutex<Kept>,
    metrics: Arc<Metrics>,
    space: Arc<Space>,
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
    /// False when the log is in other hands or the disk is below its reserve; then it is the log thread's to do.
    fn append_at_once(
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
        let most = if self.space.is_tight() { LOGGED_BYTES_MAX_FULL } else { LOGGED_BYTES_MAX };
        if kept.logged_bytes > most && !kept.asked {
            kept.asked = true;
            engine.checkpoint_now();
        }
        true
    }

    /// Below the reserve, and so much logged that the purge which was asked for must come first?
    fn must_wait_for_purge(&self) -> bool {
        let kept = &mut *self.state.lock();
        let must = kept.asked && kept.logged_bytes > 2 * LOGGED_BYTES_MAX_FULL && self.space.is_tight();
        if must {
            kept.asked = false;
        }
        must
    }
}

fn run_log(clock: &Clock, engine: &Engine, leavings: &Inbox<Chore>) {
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
                    // A follower that is a little behind gets the log, one that is far behind the tree.
                    let wanted = engine.wanted_from.load(Ordering::Relaxed);
                    let through = match log.bytes() <= KEPT_BYTES_MAX && !keeper.space.is_tight() {
                        true => checkpoint.index.min(wanted - 1),
                        false => checkpoint.index,
                    };
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

fn run_service(
    clock: &Clock,
    mut service: Service,
    engine: &Engine,
    checkpoints: &Inbox<Chore>,
    leavings: &Inbox<Chore>,
    space: &Space,
) {
    let mut events = Vec::new();
    let mut settles: Vec<mpsc::Sender<()>> = Vec::new();
    loop {
        engine.service.take(clock, service.poll_timeout(), &mut events);
        engine.turned.service.add();
        let now = clock.now();
        let mut nothing = true;
        for event in events.drain(..) {
            match event {
                ToService::Settle(done) => settles.push(done),
                ToService::Look(look) => look(&service),
                ToService::Install(head, done) => {
                    nothing = false;
                    let tree = install(engine, &head);
                    if let Err(e) = service.handle(now, service::Event::Install { tree: Box::new(tree) }) {
                        stop_for("the tree cannot be read or written", &e);
                    }
                    service.publish();
                    // A tree that was received is its own checkpoint.
                    space.checkpointed(space.rows_bytes(), engine);
                    let _ = done.send(());
                }
                ToService::Event(event) => {
                    nothing = false;
                    let applies = matches!(event, service::Event::Commit(_)).then(|| clock.now());
                    if let Err(e) = service.handle(now, event) {
                        stop_for("the tree cannot be read or written", &e);
                    }
                    if let Some(start) = applies {
                        engine.keeper.metrics.warren_apply_ms.record(clock.now() - start);
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
        while let Some(action) = service.poll_action() {
            match action {
                service::Action::Submit(submissions) => {
                    engine.consensus.push(consensus::Event::Submit(submissions));
                }
                // Nothing that anybody waits for comes of it.
                service::Action::Abstain(wrong) => engine.consensus.push(consensus::Event::Abstain(wrong)),
                service::Action::Applied(index) => engine.consensus.leave(consensus::Event::Applied(index)),
                service::Action::Members { members, retired, voters } => {
                    if let Some(ensemble) = &engine.ensemble {
                        ensemble.set_members(&members, &retired, &voters);
                    }
                    engine.consensus.push(consensus::Event::Members { members, retired });
                }
                service::Action::Reconfigured { request, answer } => {
                    engine.reconfigure.answer(request, answer)
                }
                service::Action::Checkpoint(checkpoint) => {
                    checkpoints.push(Chore::Write(Box::new(checkpoint)))
                }
                service::Action::Superseded(old) => leavings.push(Chore::Drop(old)),
                service::Action::Send { to, message } => engine.others().send(to, message),
                service::Action::Purge(_) => {
                    let tree = service.tree();
                    let conf_state = tree.checkpointed_conf_state().to_vec();
                    engine.log.push(LogJob::Purge { checkpoint: tree.checkpointed(), conf_state });
                }
            }
        }
        if !service.is_checkpointing() {
            for done in settles.drain(..) {
                let _ = done.send(());
            }
        }
    }
}

/// The tree that was received, in the place of the one so far.
fn install(engine: &Engine, head: &SnapshotHead) -> Tree {
    match engine.others().install(head) {
        Ok(tree) => tree,
        Err(e) => stop_for("a snapshot cannot be put in place", &e),
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
