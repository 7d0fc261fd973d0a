//! One life of a server: the daemon's machines, driven as its engine drives them, by events instead of threads.
//!
//! Each thread of the daemon is an inbox and a step here. A step takes what the thread would take when it wakes; what
//! it hands on wakes the next thread, a while later. What is one call in the daemon and can be seen from outside while
//! it goes on is two steps: the service's handling and its publication, the log's append and its report, a
//! checkpoint's freezing, its writing and its installation.

mod anew;
mod connections;
mod peers;
mod serving;
mod start;
mod store;
mod streams;

pub(super) use connections::deliver;

use super::context::{Context, Event, Halt, Step};
use super::net::{self, host_of, id_of};
use super::planted::Planted;
use super::world::rot;
use bytes::BytesMut;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use streams::{Receiving, Sending, Unsent};
use warren_server::connection::{Connection, Limits};
use warren_server::consensus::{self, Submission};
use warren_server::founding::{Founding, Verdict};
use warren_server::mailbox::Mailbox;
use warren_server::membership;
use warren_server::moment::Moment;
use warren_server::observer::Seat;
use warren_server::room::Room;
use warren_server::service::{self, Service};
use warren_storage::log::{HardState, Log, LogRecord};
use warren_storage::simdisk::SimDisk;
use warren_storage::tree::{Checkpoint, Exporter, Position, Staged, Superseded, Written};
use warren_storage::{Asker, Change, Command, Logged, Member, MemberRole, Members, TreeOptions};
use warren_transport::peer::{PeerMessage, ServerId, SnapshotHead};

/// Width of expiry buckets, ms.
const TICK_MS: u64 = 100;
/// Timers are no finer than this, µs; so a timer that is always due does not stop the clock.
const TIMER_US_MIN: u64 = 1_000;
/// Events that the service takes one at a time, each with its own delays; what is beyond comes at once.
const SERVICE_BEHIND: usize = 8;
/// Between two comparisons of the servers' trees.
pub(super) const COMPARE_EVERY: Duration = Duration::from_millis(250);
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
    Purge { checkpoint: Position, conf_state: Vec<u8> },
    Install { number: u64, head: SnapshotHead, hard_state: Option<HardState> },
}

/// What the service's thread is told.
enum ToService {
    Event(service::Event),
    /// The received tree takes the place of the one so far.
    Install(SnapshotHead),
}

/// What the checkpoint's thread does.
enum CheckpointJob {
    Write(Box<Checkpoint>),
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

/// What a configuration file says of the ensemble.
pub(super) struct File {
    /// Who belongs to it.
    pub(super) servers: Members,
    /// It is there already, so nobody founds it.
    pub(super) joins: bool,
}

/// A running server.
pub(super) struct Server {
    /// The host it runs on.
    pub(super) host: usize,
    /// Who it is, for the trace.
    name: String,
    /// Which one, of this run.
    pub(super) life: u32,
    /// Its disk.
    pub(super) disk: SimDisk,
    room: Arc<Room>,
    limits: Arc<Limits>,
    consensus: Seat,
    consensus_in: Vec<consensus::Event>,
    consensus_timer: u64,
    committed: u64,
    log: Log,
    log_jobs: VecDeque<LogJob>,
    log_busy: bool,
    service: Service,
    service_in: VecDeque<ToService>,
    service_timer: u64,
    /// Does it wait on a full disk, as with space set aside, or fail in the middle of a write?
    waits_for_space: bool,
    /// Handled, and not yet published.
    unpublished: bool,
    leads: bool,
    /// What its configuration file says of the ensemble.
    pub(super) file: File,
    /// It is to begin anew in place.
    anew: Option<anew::Anew>,
    /// Its store is empty, and it has not heard from enough others that it may take part.
    founding: Option<Founding>,
    /// The planted fault: its service takes itself for the leader's for ever.
    deposed: bool,
    /// This run of it, and how many changes of the membership were asked for here.
    incarnation: u64,
    asked: u64,
    tree_options: TreeOptions,
    exporter: Exporter,
    /// Trees on their way to others.
    sending: Vec<Sending>,
    /// Those that wait to be confirmed.
    unsent: Vec<Unsent>,
    /// A tree on its way to this server.
    receiving: Option<Receiving>,
    /// One that is all here.
    staged: Option<Staged>,
    /// The job of the log's thread that waits for the service.
    installing: Option<LogJob>,
    checkpoint_jobs: VecDeque<CheckpointJob>,
    written: VecDeque<Written>,
    clients: BTreeMap<u64, Client>,
    /// Connections whose mailbox woke.
    woken: Arc<Mutex<Vec<u64>>>,
    repeats: VecDeque<Vec<Vec<u8>>>,
    /// Entries that the planted fault forgets.
    forget: u64,
    /// It applies the next write of [`rot`] otherwise than the log says.
    goes_bad: bool,
    /// What is on the queue, so that a thread is not woken twice.
    scheduled: Vec<Step>,
}

impl Server {
    /// With whom it has links.
    fn link(&self, ctx: &mut Context) {
        if self.is_parting() {
            return;
        }
        let tree = self.service.tree();
        let voters = match tree.members().servers.is_empty() {
            true => Vec::new(),
            false => consensus::Configuration::of(tree.conf_state()).servers(),
        };
        let (members, file, current) = (tree.members(), &self.file.servers, self.service.has_epoch());
        let others = membership::linked(members, tree.retired(), &voters, file, current);
        let others = others.into_iter().map(host_of).filter(|other| *other != self.host);
        net::set_peers(ctx, self.host, others.collect());
    }

    /// The tree and the sessions, for the checkers.
    pub(super) fn service(&self) -> &Service {
        &self.service
    }

    /// Does it take itself for the leader?
    pub(super) fn leads(&self) -> bool {
        self.leads
    }

    /// Did its consensus begin?
    pub(super) fn takes_part(&self) -> bool {
        self.founding.is_none()
    }

    /// Has it no part in raft?
    pub(super) fn observes(&self) -> bool {
        self.consensus.is_observer()
    }

    /// Was it told that it lost its data?
    pub(super) fn is_wiped(&self) -> bool {
        self.founding.as_ref().is_some_and(|founding| matches!(founding.verdict(), Verdict::Wiped { .. }))
    }

    /// How its consensus stands.
    pub(super) fn facts(&self) -> consensus::Facts {
        self.consensus.facts()
    }

    /// Are clients served?
    pub(super) fn is_serving(&self) -> bool {
        self.room.is_serving()
    }

    /// Does it know a leader, and so take more than reads?
    pub(super) fn takes_writes(&self) -> bool {
        self.is_serving() && !self.room.is_read_only() && self.consensus.facts().leader.is_some()
    }

    /// Is nothing under way? What servers tell each other is no end to it: to a leader of a dozen there is always something of it
    /// on its way, also where it is the only voter and all others observe.
    pub(super) fn is_quiet(&self) -> bool {
        let is_told = |event: &consensus::Event| matches!(event, consensus::Event::Peer { .. });
        let is_heard = |event: &ToService| matches!(event, ToService::Event(service::Event::Peer { .. }));
        (self.consensus_in.iter().all(is_told) || !self.consensus.is_alone())
            && self.log_jobs.is_empty()
            && self.service_in.iter().all(is_heard)
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
            ctx.soon(Event::Server(self.host, self.life, step));
        }
    }

    /// The disk is below its reserve, or above it again.
    pub(super) fn refuse_growth(&mut self, ctx: &mut Context, refuse: bool) {
        self.consensus_in.push(consensus::Event::RefuseGrowth(refuse));
        self.wake(ctx, Step::Consensus);
    }

    /// Hand leadership over, if it leads.
    pub(super) fn transfer(&mut self, ctx: &mut Context, to: Option<ServerId>) {
        self.consensus_in.push(consensus::Event::Transfer { to });
        self.wake(ctx, Step::Consensus);
    }

    /// Its operator asks for a change of the membership.
    pub(super) fn reconfigure(&mut self, ctx: &mut Context, change: Change) {
        ctx.note(&self.name, format_args!("is asked: {change:?}"));
        self.asked += 1;
        let asker =
            Some(Asker { server: id_of(self.host), incarnation: self.incarnation, request: self.asked });
        let command = Command::Reconfigure { asker, change, decided: None };
        let encoded = Logged { tag: None, ids: Vec::new(), command }.encode();
        self.consensus_in.push(consensus::Event::Submit(vec![Submission::Reconfigure(encoded)]));
        self.wake(ctx, Step::Consensus);
    }

    /// Its operator makes it the only voter.
    pub(super) fn force_quorum(&mut self, ctx: &mut Context) {
        let alone = self.service.tree().members().get(id_of(self.host)).cloned();
        let alone = alone.map(|own| Member { role: MemberRole::Voter, ..own });
        let table = consensus::table_of(Members { version: 0, servers: alone.into_iter().collect() });
        ctx.checks
            .configurations
            .on_forced(self.host, consensus::raft_id(id_of(self.host), self.disk_number()));
        self.consensus_in.push(consensus::Event::ForceQuorum(table));
        self.wake(ctx, Step::Consensus);
    }

    /// Which of its server's disks it has; 0 as long as it is nobody.
    pub(super) fn disk_number(&self) -> u32 {
        self.service.tree().disk()
    }

    /// Its memory goes bad.
    pub(super) fn go_bad(&mut self) {
        self.goes_bad = true;
    }

    /// It was to go bad, and does not any more. Tells whether it had not yet.
    pub(super) fn stays_good(&mut self) -> bool {
        std::mem::take(&mut self.goes_bad)
    }

    /// Bring this to the leader, for nobody in particular.
    pub(super) fn order(&mut self, ctx: &mut Context, command: Vec<u8>) {
        self.consensus_in.push(consensus::Event::Submit(vec![Submission::Command(command)]));
        self.wake(ctx, Step::Consensus);
    }

    /// Is anybody connected?
    pub(super) fn has_clients(&self) -> bool {
        !self.clients.is_empty()
    }

    /// Make a checkpoint now.
    pub(super) fn checkpoint_now(&mut self, ctx: &mut Context) {
        self.service_in.push_back(ToService::Event(service::Event::CheckpointNow));
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
                    ctx.note(&self.name, format_args!("checkpoint {} is reported", written.position().index));
                    self.service_in.push_back(ToService::Event(service::Event::Checkpointed(written)));
                    self.wake(ctx, Step::Service);
                }
                Ok(())
            }
            Step::Ask => {
                self.ask(ctx);
                Ok(())
            }
            Step::Confirm => self.on_confirm(ctx),
            Step::Stream(stream) => self.on_stream(ctx, stream),
            Step::Installed => self.on_installed(ctx),
            Step::Connection(id) => self.on_connection(ctx, id),
            Step::Anew => self.on_anew(ctx),
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
                ctx.soon(Event::Server(self.host, self.life, Step::Connection(id)));
            }
        }
    }

    // ---- consensus -----------------------------------------------------------------------------------------

    fn on_consensus(&mut self, ctx: &mut Context) -> Result<(), Halt> {
        if self.founding.is_some() {
            return Ok(());
        }
        let now = ctx.now_at(self.host);
        let observed = self.consensus.is_observer();
        let mut submissions: Vec<Submission> = Vec::new();
        let (mut received, mut installs) = (false, false);
        for event in std::mem::take(&mut self.consensus_in) {
            received |= matches!(event, consensus::Event::SnapshotReceived { .. });
            match event {
                consensus::Event::Submit(more) if ctx.planted == Some(Planted::SyncWithoutQuorum) => {
                    for submission in more {
                        match submission {
                            Submission::Sync(token) => {
                                let event = service::Event::ReadAt { index: 0, tokens: vec![token] };
                                self.service_in.push_back(ToService::Event(event));
                                self.wake(ctx, Step::Service);
                            }
                            other => submissions.push(other),
                        }
                    }
                }
                consensus::Event::Submit(more) => submissions.extend(more),
                event => self.tell_consensus(now, event)?,
            }
        }
        if !submissions.is_empty() {
            self.tell_consensus(now, consensus::Event::Submit(submissions))?;
        }
        self.tell_consensus(now, consensus::Event::Tick)?;
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
                    ctx.note(&self.name, format_args!("commits up to {last}"));
                    ctx.checks.on_committed(ctx.now_us, self.host, &entries, self.consensus.is_leading())?;
                    self.committed = last;
                    while self.forget > 0 && entries.len() > 1 {
                        entries.remove(0);
                        self.forget -= 1;
                    }
                    if ctx.planted == Some(Planted::ConfigurationNotKept) {
                        entries.iter_mut().for_each(|entry| entry.conf_state = None);
                    }
                    if self.goes_bad && rot::strike(&mut entries) {
                        self.goes_bad = false;
                    }
                    self.service_in.push_back(ToService::Event(service::Event::Commit(entries)));
                    self.wake(ctx, Step::Service);
                }
                consensus::Action::ReadAt { index, tokens } => {
                    self.service_in.push_back(ToService::Event(service::Event::ReadAt { index, tokens }));
                    self.wake(ctx, Step::Service);
                }
                consensus::Action::Lead(leads) => ctx.note(&self.name, format_args!("leads: {leads}")),
                consensus::Action::Leader { term, leader } => self.on_leader(ctx, term, leader)?,
                consensus::Action::Send { to, message } => {
                    if let PeerMessage::Raft(message) = &message {
                        // What it says in the step in which it begins to observe, it said before. A vote it may refuse.
                        assert!(
                            !observed || !self.consensus.is_observer() || message.reject,
                            "an observer has no part in raft"
                        );
                        ctx.checks.on_sent_raft(&self.service, message)?;
                    }
                    self.on_send(ctx, to, message)
                }
                consensus::Action::SendSnapshot { to, message } => self.send_snapshot(ctx, to, message)?,
                consensus::Action::Install { number, head, hard_state } => {
                    installs = true;
                    ctx.checks.on_installs(self.host, &head)?;
                    self.committed = self.committed.max(head.index);
                    self.log_jobs.push_back(LogJob::Install { number, head, hard_state });
                    self.wake_log(ctx);
                }
            }
        }
        if received && !installs {
            self.staged = None;
        }
        if self.consensus.is_leading() {
            ctx.checks.on_leading(self.host, &self.service)?;
        }
        let due = ctx.us_of(self.host, self.consensus.poll_timeout()).max(ctx.now_us + TIMER_US_MIN);
        if due != self.consensus_timer {
            self.consensus_timer = due;
            ctx.at(due, Event::Server(self.host, self.life, Step::ConsensusTimer(due)));
        }
        Ok(())
    }

    fn tell_consensus(&mut self, now: Moment, event: consensus::Event) -> Result<(), Halt> {
        self.consensus.handle(now, event).map_err(|e| Halt::exit("consensus cannot go on", e))
    }
}
