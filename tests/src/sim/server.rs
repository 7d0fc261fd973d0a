//! One life of the server: the daemon's machines, driven as its engine drives them, by events instead of threads.
//!
//! Each thread of the daemon is an inbox and a step here. A step takes what the thread would take when it wakes; what
//! it hands on wakes the next thread, a while later. What is one call in the daemon and can be seen from outside while
//! it goes on is two steps: the service's handling and its publication, the log's append and its report, a
//! checkpoint's freezing, its writing and its installation.

use super::check::shown;
use super::context::{Context, Event, Halt, Step};
use super::planted::Planted;
use bytes::BytesMut;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use warren_server::connection::{Connection, Effects, Limits, REPLY_BYTES_WAITING_MAX};
use warren_server::consensus::{self, Consensus, Submission};
use warren_server::entropy::Entropy as _;
use warren_server::identity::Authentication;
use warren_server::mailbox::Mailbox;
use warren_server::metrics::Metrics;
use warren_server::moment::Moment;
use warren_server::room::Room;
use warren_server::service::{self, Service, ServiceOptions};
use warren_storage::log::{Append, HardState, Log, LogOptions, LogRecord, join};
use warren_storage::simdisk::SimDisk;
use warren_storage::tree::{Checkpoint, Superseded, Written};
use warren_storage::{Command, Logged, Rules, SharedDisk, Tree, TreeOptions};
use warren_transport::{take_frame, xid};

/// The only server of an ensemble of one.
const SERVER_ID: u8 = 1;
/// Width of expiry buckets, ms.
const TICK_MS: u64 = 100;
/// Timers are no finer than this, µs; so a timer that is always due does not stop the clock.
const TIMER_US_MIN: u64 = 1_000;
/// Events that the service takes one at a time, each with its own delays; what is beyond comes at once.
const SERVICE_BEHIND: usize = 8;
/// How far the planted fault lets the service's clock run ahead.
const AHEAD: Duration = Duration::from_millis(2_500);

/// With less than this on the disk, the log and checkpoints wait. More than any of them takes at once, so that a server
/// that waits never meets the end of the disk in the middle.
const SPACE_NEEDED: u64 = 4 << 20;
/// How often they look whether there is space again, µs.
const SPACE_LOOK_US: u64 = 100_000;

/// The address of a client.
pub(super) fn address_of(client: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, client as u8))
}

/// What the log's thread does.
enum LogJob {
    Append { number: u64, records: Vec<LogRecord>, hard_state: Option<HardState> },
    Purge(u64),
}

/// What the checkpoint's thread does.
enum CheckpointJob {
    Write(Checkpoint),
    Drop(Superseded),
}

/// A connection and the task that drives it.
struct Client {
    connection: Connection,
    mailbox: Arc<Mailbox>,
    input: BytesMut,
    out: Vec<u8>,
    /// A turn is on the queue.
    scheduled: bool,
    /// Its session was told to the checkers.
    attached: bool,
    /// Requests taken so far.
    received: u64,
}

/// A running server.
pub(super) struct Server {
    /// Which one, of this run.
    pub(super) life: u32,
    /// Its disk.
    pub(super) disk: SimDisk,
    room: Arc<Room>,
    limits: Arc<Limits>,
    consensus: Consensus,
    consensus_in: Vec<consensus::Event>,
    consensus_timer: u64,
    committed: u64,
    log: Log,
    log_jobs: VecDeque<LogJob>,
    log_busy: bool,
    service: Service,
    service_in: VecDeque<service::Event>,
    service_timer: u64,
    /// Does it wait on a full disk, as with space set aside, or fail in the middle of a write?
    waits_for_space: bool,
    /// Handled, and not yet published.
    unpublished: bool,
    leads: bool,
    checkpoint_jobs: VecDeque<CheckpointJob>,
    written: VecDeque<Written>,
    clients: BTreeMap<u64, Client>,
    /// Connections whose mailbox woke.
    woken: Arc<Mutex<Vec<u64>>>,
    repeats: VecDeque<Vec<Vec<u8>>>,
    /// Entries that the planted fault forgets.
    forget: u64,
    /// What is on the queue, so that a thread is not woken twice.
    scheduled: Vec<Step>,
}

impl Server {
    /// Start on what is on the disk, as the daemon does.
    pub(super) fn start(ctx: &mut Context, disk: SimDisk, life: u32) -> Result<Server, Halt> {
        let shared: SharedDisk = Arc::new(disk.clone());
        if shared.mend().map_err(|e| Halt::exit("mend what a failed sync left", e))? {
            ctx.note("server", format_args!("wrote everything once more: a sync had failed"));
        }
        let options = TreeOptions {
            memory_bytes: ctx.setup.tree_bytes,
            hash_seed: ctx.dice.roll(),
            store_id: ctx.dice.roll(),
        };
        let mut tree = Tree::open(shared.clone(), options).map_err(|e| Halt::exit("open the tree", e))?;
        let options = LogOptions {
            segment_bytes_max: ctx.setup.segment_bytes,
            ahead_bytes: 64 << 10,
            cache_bytes: ctx.setup.log_cache_bytes,
        };
        let (log, recovered) = Log::open(shared, options).map_err(|e| Halt::exit("open the log", e))?;
        ctx.checks.on_recovered(tree.position().index, recovered.first_index)?;
        let id = consensus::raft_id(SERVER_ID, 1);
        if tree.conf_state().is_empty() {
            tree.set_conf_state(consensus::found(id));
        }
        let checkpoint = tree.position();
        ctx.note(
            "server",
            format_args!(
                "life {life} starts: checkpoint at {}, log {}..={}, repaired {}",
                checkpoint.index, recovered.first_index, recovered.last_index, recovered.repaired
            ),
        );
        let now = ctx.now();
        let start = consensus::Start {
            id,
            server_id: SERVER_ID,
            reader: log.reader(),
            hard_state: recovered.hard_state,
            checkpoint,
            conf_state: tree.conf_state().to_vec(),
            rules: Rules::default(),
            entropy: Box::new(ctx.dice.fork()),
        };
        let consensus = Consensus::new(now, start).map_err(|e| Halt::exit("consensus cannot begin", e))?;
        let room = Arc::new(Room::new(ctx.dice.next_u64(), Arc::new(Metrics::default())));
        let options = ServiceOptions {
            server_id: SERVER_ID,
            incarnation: ctx.dice.roll(),
            tick_ms: TICK_MS,
            sessions_max: 1_000,
            sweep_interval: Duration::from_millis(500),
            sweeps_per_minute_max: 10_000,
            container_unused_max: Duration::from_secs(5),
            checkpoint_interval: Duration::from_millis(ctx.setup.checkpoint_interval_ms),
        };
        let service = Service::new(now, tree, room.clone(), options);
        let limits = Limits {
            packet_bytes_max: 1 << 20,
            outstanding_per_connection_max: ctx.setup.outstanding_per_connection_max,
            outstanding_bytes_per_connection_max: 8 << 20,
            outstanding_max: 1_000,
            outstanding_bytes_max: 64 << 20,
            watches_max: 1 << 20,
            session_timeout_min_ms: 500,
            session_timeout_max_ms: 8_000,
            skip_acl: false,
            authentication: Authentication::default(),
        };
        ctx.checks.on_started(&service)?;
        let mut server = Server {
            life,
            disk,
            room,
            limits: Arc::new(limits),
            consensus,
            consensus_in: Vec::new(),
            consensus_timer: u64::MAX,
            committed: checkpoint.index,
            log,
            log_jobs: VecDeque::new(),
            log_busy: false,
            service,
            service_in: VecDeque::new(),
            service_timer: u64::MAX,
            waits_for_space: ctx.dice.chance(500),
            unpublished: false,
            leads: false,
            checkpoint_jobs: VecDeque::new(),
            written: VecDeque::new(),
            clients: BTreeMap::new(),
            woken: Arc::default(),
            repeats: VecDeque::new(),
            forget: u64::from(
                ctx.planted == Some(Planted::SkipEntryOnRestart) && checkpoint.index < recovered.last_index,
            ),
            scheduled: Vec::new(),
        };
        server.wake(ctx, Step::Consensus);
        Ok(server)
    }

    /// The tree and the sessions, for the checkers.
    pub(super) fn service(&self) -> &Service {
        &self.service
    }

    /// Are clients served?
    pub(super) fn is_serving(&self) -> bool {
        self.room.is_serving()
    }

    /// Is nothing under way?
    pub(super) fn is_quiet(&self) -> bool {
        self.consensus_in.is_empty()
            && self.log_jobs.is_empty()
            && self.service_in.is_empty()
            && self.checkpoint_jobs.is_empty()
            && self.written.is_empty()
            && self.repeats.is_empty()
            && !self.log_busy
            && !self.unpublished
    }

    /// The process is gone. Nothing that is dropped here reaches the disk any more.
    pub(super) fn die(self) {
        self.disk.lose_power();
    }

    /// The step comes soon, once.
    fn wake(&mut self, ctx: &mut Context, step: Step) {
        if !self.scheduled.contains(&step) {
            self.scheduled.push(step);
            ctx.soon(Event::Server(self.life, step));
        }
    }

    /// The disk is below its reserve, or above it again.
    pub(super) fn refuse_growth(&mut self, ctx: &mut Context, refuse: bool) {
        self.consensus_in.push(consensus::Event::RefuseGrowth(refuse));
        self.wake(ctx, Step::Consensus);
    }

    /// Make a checkpoint now.
    pub(super) fn checkpoint_now(&mut self, ctx: &mut Context) {
        self.service_in.push_back(service::Event::CheckpointNow);
        self.wake(ctx, Step::Service);
    }

    /// Carry out a step. `Exit` stops the process.
    pub(super) fn step(&mut self, ctx: &mut Context, step: Step) -> Result<(), Halt> {
        self.scheduled.retain(|s| *s != step);
        let done = match step {
            Step::Consensus => self.on_consensus(ctx),
            Step::ConsensusTimer(at) if at == self.consensus_timer => self.on_consensus(ctx),
            Step::Log => self.on_log(ctx),
            Step::Logged(number) => self.on_logged(ctx, number),
            Step::Service => self.on_service(ctx),
            Step::ServiceTimer(at) if at == self.service_timer => self.on_service(ctx),
            Step::Publish => self.on_publish(ctx),
            Step::Checkpoint => self.on_checkpoint(ctx),
            Step::Checkpointed => {
                if let Some(written) = self.written.pop_front() {
                    ctx.note("server", format_args!("checkpoint {} is reported", written.position().index));
                    self.service_in.push_back(service::Event::Checkpointed(written));
                    self.wake(ctx, Step::Service);
                }
                Ok(())
            }
            Step::Connection(id) => self.on_connection(ctx, id),
            Step::Repeat => {
                let commands = self.repeats.pop_front().unwrap_or_default();
                ctx.note("FAULT", format_args!("{} commands are delivered again", commands.len()));
                let submissions = commands.into_iter().map(Submission::Command).collect();
                self.consensus_in.push(consensus::Event::Submit(submissions));
                self.wake(ctx, Step::Consensus);
                Ok(())
            }
            Step::ConsensusTimer(_) | Step::ServiceTimer(_) => Ok(()),
        };
        self.wake_connections(ctx);
        done
    }

    fn wake_connections(&mut self, ctx: &mut Context) {
        let woken = std::mem::take(&mut *self.woken.lock().expect("nobody panics with it"));
        for id in woken {
            self.wake_connection(ctx, id);
        }
    }

    /// There is something for this connection's task.
    pub(super) fn wake_connection(&mut self, ctx: &mut Context, id: u64) {
        if let Some(client) = self.clients.get_mut(&id) {
            if !client.scheduled {
                client.scheduled = true;
                ctx.soon(Event::Server(self.life, Step::Connection(id)));
            }
        }
    }

    // ---- consensus -----------------------------------------------------------------------------------------

    fn on_consensus(&mut self, ctx: &mut Context) -> Result<(), Halt> {
        let now = ctx.now();
        let mut submissions: Vec<Submission> = Vec::new();
        for event in std::mem::take(&mut self.consensus_in) {
            match event {
                consensus::Event::Submit(more) => submissions.extend(more),
                event => self.tell_consensus(now, event)?,
            }
        }
        let last = match submissions.is_empty() {
            true => consensus::Event::Tick,
            false => consensus::Event::Submit(submissions),
        };
        self.tell_consensus(now, last)?;
        while let Some(action) = self.consensus.poll_action() {
            match action {
                consensus::Action::Append { number, records, hard_state } => {
                    if ctx.planted == Some(Planted::AcknowledgeBeforeSync) {
                        self.consensus_in.push(consensus::Event::Persisted(number));
                        self.wake(ctx, Step::Consensus);
                    }
                    self.log_jobs.push_back(LogJob::Append { number, records, hard_state });
                    self.wake_log(ctx);
                }
                consensus::Action::Commit(mut entries) => {
                    let last = entries.last().map_or(self.committed, |e| e.position.index);
                    ctx.note("server", format_args!("commits up to {last}"));
                    ctx.checks.on_committed(ctx.now_us, &entries)?;
                    self.committed = last;
                    while self.forget > 0 && entries.len() > 1 {
                        entries.remove(0);
                        self.forget -= 1;
                    }
                    self.service_in.push_back(service::Event::Commit(entries));
                    self.wake(ctx, Step::Service);
                }
                consensus::Action::ReadAt { index, tokens } => {
                    self.service_in.push_back(service::Event::ReadAt { index, tokens });
                    self.wake(ctx, Step::Service);
                }
                consensus::Action::Lead(leads) => {
                    ctx.note("server", format_args!("leads: {leads}"));
                    if !leads {
                        self.room.set_serving(false);
                    }
                    self.service_in.push_back(service::Event::Lead(leads));
                    self.wake(ctx, Step::Service);
                }
            }
        }
        let due = ctx.us_of(self.consensus.poll_timeout()).max(ctx.now_us + TIMER_US_MIN);
        if due != self.consensus_timer {
            self.consensus_timer = due;
            ctx.at(due, Event::Server(self.life, Step::ConsensusTimer(due)));
        }
        Ok(())
    }

    fn tell_consensus(&mut self, now: Moment, event: consensus::Event) -> Result<(), Halt> {
        self.consensus.handle(now, event).map_err(|e| Halt::exit("consensus cannot go on", e))
    }

    // ---- the log -------------------------------------------------------------------------------------------

    fn wake_log(&mut self, ctx: &mut Context) {
        if !self.log_busy && !self.log_jobs.is_empty() {
            self.wake(ctx, Step::Log);
        }
    }

    /// The step comes again later, when the disk is full now.
    fn is_out_of_space(&mut self, ctx: &mut Context, step: Step) -> bool {
        let waits = self.waits_for_space && self.disk.left_bytes() < SPACE_NEEDED;
        if waits {
            ctx.note("server", format_args!("{step:?} waits for space"));
            self.scheduled.push(step);
            ctx.after(SPACE_LOOK_US, Event::Server(self.life, step));
        }
        waits
    }

    fn on_log(&mut self, ctx: &mut Context) -> Result<(), Halt> {
        if self.is_out_of_space(ctx, Step::Log) {
            return Ok(());
        }
        let Some(job) = self.log_jobs.pop_front() else { return Ok(()) };
        match job {
            LogJob::Append { mut number, mut records, mut hard_state } => {
                // What waited for the last sync shares the next one.
                while let Some(LogJob::Append { .. }) = self.log_jobs.front() {
                    let Some(LogJob::Append { number: n, records: more, hard_state: later }) =
                        self.log_jobs.pop_front()
                    else {
                        break;
                    };
                    join(&mut records, &mut hard_state, more, later);
                    number = n;
                }
                ctx.note(
                    "server",
                    format_args!(
                        "log: {} records up to {}",
                        records.len(),
                        records.last().map_or(0, |r| r.index)
                    ),
                );
                self.log
                    .append(Append { records: &records, hard_state })
                    .map_err(|e| Halt::exit("the log cannot be written", e))?;
                self.log_busy = true;
                ctx.soon(Event::Server(self.life, Step::Logged(number)));
            }
            LogJob::Purge(index) => {
                ctx.note("server", format_args!("log: purge up to {index}"));
                self.log.purge(index).map_err(|e| Halt::exit("the log cannot be purged", e))?;
                self.wake_log(ctx);
            }
        }
        Ok(())
    }

    fn on_logged(&mut self, ctx: &mut Context, number: u64) -> Result<(), Halt> {
        self.log_busy = false;
        if ctx.planted == Some(Planted::PurgeTooFar) {
            self.log.purge(u64::MAX).map_err(|e| Halt::exit("the log cannot be purged", e))?;
        }
        let told = match ctx.planted {
            // It was told long ago.
            Some(Planted::AcknowledgeBeforeSync) => false,
            Some(Planted::LoseReport) => ctx.dice.chance(700),
            _ => true,
        };
        if told {
            self.consensus_in.push(consensus::Event::Persisted(number));
            self.wake(ctx, Step::Consensus);
        }
        self.wake_log(ctx);
        Ok(())
    }

    // ---- the service ---------------------------------------------------------------------------------------

    fn on_service(&mut self, ctx: &mut Context) -> Result<(), Halt> {
        if self.unpublished {
            // Busy; it looks again when it is done.
            return Ok(());
        }
        // A thread that is far behind takes many events without a pause.
        while self.service_in.len() > SERVICE_BEHIND {
            self.serve(ctx)?;
            self.service.publish();
        }
        self.serve(ctx)?;
        self.unpublished = true;
        self.wake(ctx, Step::Publish);
        Ok(())
    }

    /// One event, or a look at the clock.
    fn serve(&mut self, ctx: &mut Context) -> Result<(), Halt> {
        let event = self.service_in.pop_front().unwrap_or(service::Event::Tick);
        if let service::Event::Lead(leads) = event {
            self.leads = leads;
            if leads {
                ctx.checks.ephemerals.on_leads(ctx.now_us);
            }
        }
        let mut now = ctx.now();
        if ctx.planted == Some(Planted::ExpireEarly) {
            now = now + AHEAD;
        }
        self.service.handle(now, event).map_err(|e| Halt::exit("the tree cannot be read or written", e))?;
        ctx.checks.on_step(ctx.now_us, &self.service, self.committed)?;
        while let Some(action) = self.service.poll_action() {
            match action {
                service::Action::Submit(submissions) => {
                    for submission in &submissions {
                        self.look_for_expiry(ctx, submission)?;
                    }
                    self.consensus_in.push(consensus::Event::Submit(submissions));
                    self.wake(ctx, Step::Consensus);
                }
                service::Action::Applied(index) => {
                    ctx.note(
                        "server",
                        format_args!(
                            "applied up to {index}, zxid {}",
                            shown(self.service.tree().zxid().wire())
                        ),
                    );
                    self.consensus_in.push(consensus::Event::Applied(index));
                    self.wake(ctx, Step::Consensus);
                }
                service::Action::Checkpoint(checkpoint) => {
                    ctx.note("server", format_args!("freezes"));
                    self.checkpoint_jobs.push_back(CheckpointJob::Write(checkpoint));
                    self.wake(ctx, Step::Checkpoint);
                }
                service::Action::Superseded(old) => {
                    self.checkpoint_jobs.push_back(CheckpointJob::Drop(old));
                    self.wake(ctx, Step::Checkpoint);
                }
                service::Action::Purge(index) => {
                    self.log_jobs.push_back(LogJob::Purge(index));
                    self.wake_log(ctx);
                }
            }
        }
        Ok(())
    }

    fn look_for_expiry(&self, ctx: &mut Context, submission: &Submission) -> Result<(), Halt> {
        let Submission::Command(bytes) = submission else { return Ok(()) };
        let logged = Logged::decode(bytes).map_err(|e| Halt::exit("a command does not decode", e))?;
        if let Command::Expire { session, generation } = logged.command {
            ctx.note("server", format_args!("session {session:#x} ran out"));
            let timeout_ms = self.service.tree().session(session).map_or(0, |row| row.timeout_ms);
            ctx.checks.on_expire(ctx.now_us, session, generation, timeout_ms)?;
        }
        Ok(())
    }

    fn on_publish(&mut self, ctx: &mut Context) -> Result<(), Halt> {
        self.service.publish();
        self.unpublished = false;
        if self.leads && !self.room.is_stopping() && self.service.has_epoch() {
            self.room.set_serving(true);
        }
        if !self.service_in.is_empty() {
            self.wake(ctx, Step::Service);
        }
        if let Some(due) = self.service.poll_timeout() {
            let due = ctx.us_of(due).max(ctx.now_us + TIMER_US_MIN);
            if due != self.service_timer {
                self.service_timer = due;
                ctx.at(due, Event::Server(self.life, Step::ServiceTimer(due)));
            }
        }
        Ok(())
    }

    // ---- checkpoints ---------------------------------------------------------------------------------------

    fn on_checkpoint(&mut self, ctx: &mut Context) -> Result<(), Halt> {
        if self.is_out_of_space(ctx, Step::Checkpoint) {
            return Ok(());
        }
        match self.checkpoint_jobs.pop_front() {
            Some(CheckpointJob::Write(checkpoint)) => {
                let written =
                    checkpoint.write().map_err(|e| Halt::exit("a checkpoint cannot be written", e))?;
                ctx.note("server", format_args!("checkpoint {} is written", written.position().index));
                self.written.push_back(written);
                ctx.soon(Event::Server(self.life, Step::Checkpointed));
            }
            Some(CheckpointJob::Drop(old)) => drop(old),
            None => {}
        }
        if !self.checkpoint_jobs.is_empty() {
            self.wake(ctx, Step::Checkpoint);
        }
        Ok(())
    }

    // ---- connections ---------------------------------------------------------------------------------------

    /// A client connects.
    pub(super) fn accept(&mut self, ctx: &mut Context, id: u64, client: usize) {
        let woken = self.woken.clone();
        let wake = move || woken.lock().expect("nobody panics with it").push(id);
        let mailbox = Mailbox::new(id, Box::new(wake));
        let peer = SocketAddr::new(address_of(client), 40_000);
        let connection = Connection::new(peer, mailbox.clone(), self.limits.clone());
        let client = Client {
            connection,
            mailbox,
            input: BytesMut::new(),
            out: Vec::new(),
            scheduled: false,
            attached: false,
            received: 0,
        };
        self.clients.insert(id, client);
        self.wake_connection(ctx, id);
    }

    /// One turn of a connection's task: send what is left; read, if it may; take a turn; send.
    fn on_connection(&mut self, ctx: &mut Context, id: u64) -> Result<(), Halt> {
        let Some(client) = self.clients.get_mut(&id) else { return Ok(()) };
        client.scheduled = false;
        flush(ctx, id, &mut client.out);
        let Some(wire) = ctx.wires.get_mut(&id) else {
            self.close(ctx, id, "the network failed");
            return Ok(());
        };
        if !client.out.is_empty() {
            // While the client does not read, nothing else is done for it.
            if client.connection.must_close() || wire.client_gone {
                self.close(ctx, id, "it does not read");
            }
            return Ok(());
        }
        if let Some(ending) = client.connection.ending() {
            self.close(ctx, id, &format!("{ending:?}"));
            return Ok(());
        }
        if client.connection.wants_input(&self.room) {
            let bytes = wire.to_server.read();
            client.input.extend_from_slice(&bytes);
            if bytes.is_empty() && wire.to_server.is_over() {
                self.close(ctx, id, "the client closed it");
                return Ok(());
            }
        }
        let mut effects = Effects::default();
        let now = ctx.now();
        client
            .connection
            .turn(now, &self.room, &mut client.input, &mut client.out, &mut effects)
            .map_err(|e| Halt::exit("the tree cannot be read", e))?;
        if ctx.planted == Some(Planted::LoseMark) {
            client.mailbox.clear_marks();
        }
        let session = client.connection.session().map(|a| (a.session, a.generation));
        if let Some((session, generation)) = session {
            if !client.attached {
                client.attached = true;
                ctx.checks.on_attached(id, session, generation);
                ctx.checks.ephemerals.on_heard(ctx.now_us, session);
            }
            if client.connection.facts.received > client.received {
                ctx.checks.ephemerals.on_heard(ctx.now_us, session);
            }
        }
        client.received = client.connection.facts.received;
        match ctx.planted {
            Some(Planted::WatchAfterReply) => {
                swap(&mut client.out, |first, second| first == xid::NOTIFICATION && second > 0)
            }
            Some(Planted::SwapReplies) => swap(&mut client.out, |first, second| first > 0 && second > 0),
            _ => {}
        }
        let full = client.out.len() >= REPLY_BYTES_WAITING_MAX;
        flush(ctx, id, &mut client.out);
        let flushed = client.out.is_empty();
        let ending = client.connection.ending();
        // Whole requests may be in the buffer, and more with the network.
        let wants_input = client.connection.wants_input(&self.room);
        let more = ctx.wires.get(&id).is_some_and(|w| w.to_server.has_arrived() || w.to_server.is_over());
        self.submit(ctx, effects);
        if flushed {
            if let Some(ending) = ending {
                self.close(ctx, id, &format!("{ending:?}"));
            } else if full || (wants_input && more) {
                self.wake_connection(ctx, id);
            }
        }
        Ok(())
    }

    fn submit(&mut self, ctx: &mut Context, effects: Effects) {
        if !effects.service.is_empty() {
            self.service_in.extend(effects.service);
            self.wake(ctx, Step::Service);
        }
        if effects.submissions.is_empty() {
            return;
        }
        if !ctx.healing && ctx.dice.chance(ctx.setup.repeats_per_mille) {
            let untag = ctx.planted == Some(Planted::SkipDedup);
            let commands = effects.submissions.iter().filter_map(|submission| match submission {
                Submission::Command(bytes) if untag => {
                    let logged = Logged::decode(bytes).ok()?;
                    Some(Logged { tag: None, ..logged }.encode())
                }
                Submission::Command(bytes) => Some(bytes.clone()),
                _ => None,
            });
            self.repeats.push_back(commands.collect());
            ctx.soon(Event::Server(self.life, Step::Repeat));
        }
        self.consensus_in.push(consensus::Event::Submit(effects.submissions));
        self.wake(ctx, Step::Consensus);
    }

    fn close(&mut self, ctx: &mut Context, id: u64, why: &str) {
        let Some(mut client) = self.clients.remove(&id) else { return };
        ctx.note("server", format_args!("closes #{id}: {why}"));
        let mut effects = Effects::default();
        client.connection.on_closed(&self.room, &mut effects);
        self.submit(ctx, effects);
        if let Some(wire) = ctx.wires.get_mut(&id) {
            if wire.client_gone {
                ctx.wires.remove(&id);
            } else {
                wire.server_gone = true;
                wire.to_client.end();
                deliver(ctx, id, false);
            }
        }
    }

    /// The network takes more of this connection.
    pub(super) fn on_writable(&mut self, ctx: &mut Context, id: u64) {
        if self.clients.get(&id).is_some_and(|client| !client.out.is_empty()) {
            self.wake_connection(ctx, id);
        }
    }
}

/// Send as much as the network takes.
fn flush(ctx: &mut Context, id: u64, out: &mut Vec<u8>) {
    let Some(wire) = ctx.wires.get_mut(&id) else { return };
    let room = ctx.setup.window_bytes.saturating_sub(wire.to_client.unread());
    let sent = room.min(out.len());
    if sent > 0 {
        wire.to_client.send(&out[..sent]);
        out.drain(..sent);
        deliver(ctx, id, false);
    }
}

/// What was sent arrives later.
pub(super) fn deliver(ctx: &mut Context, id: u64, to_server: bool) {
    let Some(wire) = ctx.wires.get_mut(&id) else { return };
    let pipe = if to_server { &mut wire.to_server } else { &mut wire.to_client };
    if !pipe.scheduled {
        pipe.scheduled = true;
        ctx.soon(if to_server { Event::ToServer(id) } else { Event::ToClient(id) });
    }
}

/// Let two packets that follow each other change places, where their xids are as wanted.
fn swap(out: &mut Vec<u8>, wanted: impl Fn(i32, i32) -> bool) {
    let mut rest = BytesMut::from(out.as_slice());
    let mut packets: Vec<Vec<u8>> = Vec::new();
    while let Ok(Some(packet)) = take_frame(&mut rest, usize::MAX >> 1) {
        packets.push(packet.to_vec());
    }
    // The answer to a handshake has no xid; it begins with the version, 0.
    let xid = |packet: &[u8]| packet.first_chunk().map_or(0, |xid| i32::from_be_bytes(*xid));
    for at in 1..packets.len() {
        if wanted(xid(&packets[at - 1]), xid(&packets[at])) {
            packets.swap(at - 1, at);
        }
    }
    out.clear();
    for packet in packets {
        out.extend_from_slice(&(packet.len() as u32).to_be_bytes());
        out.extend_from_slice(&packet);
    }
}
