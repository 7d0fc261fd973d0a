//! What is committed, applied: steps ⑩ and ⑪ of the walk, and the life of sessions.
//!
//! [`Service`] owns the tree. It applies committed entries in order, fires watches, puts outcomes into the
//! mailboxes of the connections that wait for them, and publishes a snapshot for everybody who reads. On the
//! leader it also finds sessions that ran out and nodes to sweep, and asks for both through the log like any
//! client. It does no IO but through the tree's disk: the driver calls [`Service::handle`] and drains
//! [`Service::poll_action`].

mod sweep;

use crate::consensus::{Committed, Submission};
use crate::expiry::ExpiryQueue;
use crate::mailbox::{Attached, Item, Mailbox, Pulse};
use crate::moment::Moment;
use crate::room::Room;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use sweep::Sweeper;
use warren_storage::tree::{
    Applied, Checkpoint, Outcome, Pressure, Refusals, Reply, Superseded, Tree, TreeError, Written,
};
use warren_storage::{Command, Entry, Logged, SessionId, ZPath, Zxid};

/// Requests of connections that wait for a session, at most; beyond, a new one is refused and its client tries
/// again later.
pub const CONNECTS_WAITING_MAX: usize = 100_000;

/// When the machine was not driven for this long, the process stood still (stopped, or starved): a silence of clients
/// during that time was not theirs.
const STALL: Duration = Duration::from_secs(2);

/// What the service is told.
pub enum Event {
    /// Apply these.
    Commit(Vec<Committed>),
    /// A client wants a session, new or its own again. The timeout is negotiated already.
    Connect {
        /// Where the answer goes.
        mailbox: Arc<Mailbox>,
        /// 0 for a new session.
        session: SessionId,
        /// What the client shows for an old one.
        password: [u8; 16],
        /// ms.
        timeout_ms: i32,
    },
    /// A connection is gone.
    Disconnect {
        /// Which.
        connection: u64,
        /// The session it had, with its generation.
        session: Option<(SessionId, u32)>,
    },
    /// A connection asks for a persistent watch.
    Arm {
        /// Where its events go.
        mailbox: Arc<Mailbox>,
        /// On which path.
        path: ZPath,
        /// And all below?
        recursive: bool,
    },
    /// A connection's `sync`: the answer goes into the mailbox once the token comes back.
    Sync {
        /// Unique in this process.
        token: u64,
        /// Where the answer goes.
        mailbox: Arc<Mailbox>,
    },
    /// The token's requests may be answered once `index` is applied.
    ReadAt {
        /// Log index.
        index: u64,
        /// From [`Event::Sync`].
        tokens: Vec<u64>,
    },
    /// This server leads, or no longer does.
    Lead(bool),
    /// A checkpoint was written.
    Checkpointed(Written),
    /// Make a checkpoint now, whatever the pressure (at an orderly stop).
    CheckpointNow,
    /// Only time has passed.
    Tick,
}

/// What the service asks for.
pub enum Action {
    /// Bring these to the leader.
    Submit(Vec<Submission>),
    /// Entries up to here are applied.
    Applied(u64),
    /// Write this checkpoint and tell [`Event::Checkpointed`].
    Checkpoint(Checkpoint),
    /// Drop this where nobody waits for it.
    Superseded(Superseded),
    /// The log up to here is in a durable checkpoint.
    Purge(u64),
}

/// How to run.
#[derive(Clone, Debug)]
pub struct ServiceOptions {
    /// This server.
    pub server_id: u8,
    /// This run of it; random.
    pub incarnation: u64,
    /// Width of expiry buckets, ms.
    pub tick_ms: u64,
    /// Sessions at most; beyond, a new one is refused.
    pub sessions_max: usize,
    /// How often containers and TTL nodes are looked at.
    pub sweep_interval: Duration,
    /// Nodes swept a minute, at most.
    pub sweeps_per_minute_max: u32,
    /// An empty container that never had a child goes after this long; zero: never.
    pub container_unused_max: Duration,
    /// How long a checkpoint may wait when little changed.
    pub checkpoint_interval: Duration,
}

/// The service state machine of one server.
pub struct Service {
    tree: Tree,
    room: Arc<Room>,
    options: ServiceOptions,
    /// Committed, and not applied because the overlay is full.
    backlog: VecDeque<Committed>,
    attached: HashMap<SessionId, Attachment, foldhash::fast::FixedState>,
    /// Who asked for a session, by the number of the request.
    connects: HashMap<u64, Arc<Mailbox>, foldhash::fast::FixedState>,
    next_request: u64,
    syncs: HashMap<u64, Arc<Mailbox>, foldhash::fast::FixedState>,
    /// Tokens whose index is not applied yet.
    read_at: VecDeque<(u64, Vec<u64>)>,
    expiry: ExpiryQueue,
    /// Asked to expire and not applied yet, with the generation.
    expiring: HashMap<SessionId, u32, foldhash::fast::FixedState>,
    sweeper: Sweeper,
    leading: bool,
    checkpointing: bool,
    checkpoint_wanted: bool,
    last_checkpoint: Moment,
    /// When time was looked at last.
    last_time: Moment,
    epoch_asked: bool,
    /// As the leader, its first entry is applied.
    has_epoch: bool,
    /// What the metrics were told already.
    refusals: Refusals,
    misses: u64,
    /// Something was applied since the last publication.
    unpublished: bool,
    /// Mailboxes with something new since the last publication.
    woken: Vec<Arc<Mailbox>>,
    actions: VecDeque<Action>,
}

/// A session's attachment to a connection of this server.
struct Attachment {
    generation: u32,
    pulse: Arc<Pulse>,
    /// `None` when the connection is gone and the client may come back.
    mailbox: Option<Arc<Mailbox>>,
}

impl Service {
    /// Serve this tree. The room gets its first snapshot.
    pub fn new(now: Moment, tree: Tree, room: Arc<Room>, options: ServiceOptions) -> Service {
        room.publish(tree.snapshot());
        Service {
            tree,
            room,
            backlog: VecDeque::new(),
            attached: HashMap::default(),
            connects: HashMap::default(),
            next_request: 0,
            syncs: HashMap::default(),
            read_at: VecDeque::new(),
            expiry: ExpiryQueue::new(options.tick_ms),
            expiring: HashMap::default(),
            sweeper: Sweeper::new(now, &options),
            leading: false,
            checkpointing: false,
            checkpoint_wanted: false,
            last_checkpoint: now,
            last_time: now,
            epoch_asked: false,
            has_epoch: false,
            refusals: Refusals::default(),
            misses: 0,
            unpublished: false,
            woken: Vec::new(),
            actions: VecDeque::new(),
            options,
        }
    }

    /// Take one event. Never waits, except for the tree's disk.
    ///
    /// # Errors
    /// When the tree's store fails: the server must stop.
    pub fn handle(&mut self, now: Moment, event: Event) -> Result<(), TreeError> {
        match event {
            Event::Commit(entries) => self.backlog.extend(entries),
            Event::Connect { mailbox, session, password, timeout_ms } => {
                self.on_connect(mailbox, session, password, timeout_ms)
            }
            Event::Disconnect { connection, session } => self.on_disconnect(connection, session),
            Event::Arm { mailbox, path, recursive } => {
                self.room.watches.arm_persistent(&path, recursive, &mailbox);
                self.tell(&mailbox, self.tree.zxid(), Item::Armed);
            }
            Event::Sync { token, mailbox } => {
                self.syncs.insert(token, mailbox);
            }
            Event::ReadAt { index, tokens } => self.read_at.push_back((index, tokens)),
            Event::Lead(leading) => self.on_lead(now, leading),
            Event::Checkpointed(written) => self.on_checkpointed(now, written),
            Event::CheckpointNow => self.checkpoint_wanted = true,
            Event::Tick => {}
        }
        self.apply_backlog(now)?;
        self.answer_syncs();
        self.on_time(now)
    }

    /// Everybody may read what was applied; then those who wait are woken. Call it after each [`Service::handle`].
    /// It is a step of its own so that the simulator lets connections run between the firing of watches and the
    /// publication, as they do on other threads.
    pub fn publish(&mut self) {
        if std::mem::take(&mut self.unpublished) {
            self.room.publish(self.tree.snapshot());
            self.measure();
        }
        for mailbox in self.woken.drain(..) {
            mailbox.wake();
        }
        self.room.watches.published();
    }

    /// What to do next; drain until `None` after each [`Service::handle`].
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to come back with [`Event::Tick`] at the latest.
    pub fn poll_timeout(&self) -> Option<Moment> {
        let at_ms = |ms: u64| Moment { us: ms * 1_000, wall_ms: 0 };
        // With one under way, or a backlog before it, there is nothing to do when the next one is due.
        let idle = !self.checkpointing && self.backlog.is_empty();
        let mut next = idle.then(|| self.last_checkpoint + self.options.checkpoint_interval);
        if self.leading {
            // Often enough to know a standstill for one.
            let heartbeat = Some(self.last_time + STALL / 4);
            next = [next, heartbeat, self.expiry.next_ms().map(at_ms), Some(self.sweeper.next())]
                .into_iter()
                .flatten()
                .min_by_key(|m| m.us);
        }
        next
    }

    /// The tree, for the simulator's checkers.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// As the leader: is its epoch begun, so that clients may be served?
    pub fn has_epoch(&self) -> bool {
        self.has_epoch
    }

    /// Sessions by when they expire, for operators: ms of the monotonic clock, and their ids.
    pub fn expiries(&self) -> Vec<(u64, Vec<SessionId>)> {
        self.expiry.buckets()
    }

    /// Is a checkpoint being written, or one wanted?
    pub fn is_checkpointing(&self) -> bool {
        self.checkpointing || self.checkpoint_wanted
    }

    // ---- sessions ------------------------------------------------------------------------------------------

    fn on_connect(&mut self, mailbox: Arc<Mailbox>, session: SessionId, password: [u8; 16], timeout_ms: i32) {
        let (server_id, incarnation) = (self.options.server_id, self.options.incarnation);
        if session == 0 && self.tree.session_count() + self.connects.len() >= self.options.sessions_max {
            self.room.metrics.warren_session_refusals_total.add(1);
            return self.tell(&mailbox, Zxid::ZERO, Item::Close("the limit of sessions is reached"));
        }
        if self.connects.len() >= CONNECTS_WAITING_MAX {
            return self.tell(&mailbox, Zxid::ZERO, Item::Close("too many connections wait for a session"));
        }
        if session != 0 {
            match self.tree.session(session) {
                Some(row) if row.password == password && !self.expiring.contains_key(&session) => {}
                _ => return self.tell(&mailbox, Zxid::ZERO, Item::Refused),
            }
            // Whatever other connection has it goes first.
            if let Some(old) = self.attached.get_mut(&session).and_then(|a| a.mailbox.take()) {
                self.tell(&old, Zxid::ZERO, Item::Close("its session attached elsewhere"));
            }
        }
        self.next_request += 1;
        let request = self.next_request;
        self.connects.insert(request, mailbox);
        let submission = if session == 0 {
            Submission::OpenSession { timeout_ms, owner: server_id, incarnation, request }
        } else {
            let command = Command::MoveSession {
                session,
                password,
                owner: server_id,
                incarnation,
                request,
                timeout_ms,
            };
            Submission::Command(Logged { tag: None, ids: Vec::new(), command }.encode())
        };
        self.submit(submission);
    }

    fn on_disconnect(&mut self, connection: u64, session: Option<(SessionId, u32)>) {
        self.syncs.retain(|_, mailbox| mailbox.connection != connection);
        let Some((session, generation)) = session else {
            self.connects.retain(|_, mailbox| mailbox.connection != connection);
            return;
        };
        if let Some(attachment) = self.attached.get_mut(&session) {
            if attachment.generation == generation {
                attachment.mailbox = None;
            }
        }
    }

    fn on_lead(&mut self, now: Moment, leading: bool) {
        self.leading = leading;
        self.epoch_asked = false;
        self.has_epoch = false;
        self.expiry.clear();
        self.expiring.clear();
        if leading {
            // Nobody knows when clients were last heard.
            self.give_full_timeouts(now);
            self.last_time = now;
            self.sweeper.start(now);
        }
    }

    fn give_full_timeouts(&mut self, now: Moment) {
        for (session, row) in self.tree.sessions() {
            self.expiry.set(session, now.ms() + row.timeout_ms.max(0) as u64);
        }
    }

    /// Sessions whose bucket is due: those that were heard since go into a later one, the others are expired
    /// through the log.
    fn expire(&mut self, now: Moment) {
        for session in self.expiry.due(now.ms()) {
            let Some(row) = self.tree.session(session) else { continue };
            let timeout_ms = row.timeout_ms.max(0) as u64;
            let deadline = self.attached.get(&session).map_or(0, |a| {
                let owed = a.mailbox.is_some() && a.pulse.is_owed();
                timeout_ms + if owed { now.ms() } else { a.pulse.last_ms() }
            });
            if deadline > now.ms() {
                self.expiry.set(session, deadline);
                continue;
            }
            let generation = row.generation;
            tracing::info!(
                session = format_args!("{session:#x}"),
                timeout_ms = row.timeout_ms,
                "session expired"
            );
            self.expiring.insert(session, generation);
            let command = Command::Expire { session, generation };
            self.submit(Submission::LeaderOnly(Logged { tag: None, ids: Vec::new(), command }.encode()));
        }
    }

    // ---- apply ---------------------------------------------------------------------------------------------

    fn apply_backlog(&mut self, now: Moment) -> Result<(), TreeError> {
        let mut applied = None;
        while !self.backlog.is_empty() {
            match self.tree.pressure() {
                // The overlay is full and the checkpoint before it is still being written: what is committed
                // waits here, and clients wait for it.
                Pressure::Full => break,
                Pressure::CheckpointDue => self.checkpoint(now),
                Pressure::None => {}
            }
            let Some(entry) = self.backlog.pop_front() else { break };
            self.apply_entry(now, &entry)?;
            applied = Some(entry.position.index);
        }
        if let Some(index) = applied {
            self.actions.push_back(Action::Applied(index));
            if self.tree.pressure() != Pressure::None {
                self.checkpoint(now);
            }
        }
        Ok(())
    }

    fn apply_entry(&mut self, now: Moment, committed: &Committed) -> Result<(), TreeError> {
        if !committed.data.is_empty() {
            let entry = Entry::decode(&committed.data)
                .unwrap_or_else(|e| panic!("committed entry {:?} cannot be read: {e}", committed.position));
            match entry {
                Entry::NewEpoch { .. } => {
                    self.tree.begin_epoch();
                    self.epoch_asked = false;
                    self.has_epoch = self.leading;
                }
                Entry::Batch { time_ms, rules, commands, .. } => {
                    for command in commands {
                        let logged = Logged::decode(command).unwrap_or_else(|e| {
                            panic!("a command of {:?} cannot be read: {e}", committed.position)
                        });
                        self.apply_command(now, time_ms, &rules, &logged)?;
                    }
                }
            }
        }
        self.tree.advance(committed.position.index, committed.position.term);
        self.unpublished = true;
        if self.leading && !self.epoch_asked && self.tree.zxid().counter() >= Zxid::COUNTER_HIGH_WATER {
            self.epoch_asked = true;
            self.submit(Submission::NewEpoch);
        }
        Ok(())
    }

    fn apply_command(
        &mut self,
        now: Moment,
        time_ms: i64,
        rules: &warren_storage::Rules,
        logged: &Logged<'_>,
    ) -> Result<(), TreeError> {
        let target = logged.tag.and_then(|tag| {
            let attachment = self.attached.get(&tag.session)?;
            let mailbox = attachment.mailbox.as_ref().filter(|_| attachment.generation == tag.generation)?;
            Some((mailbox.clone(), tag.sequence))
        });
        let before = match &target {
            Some((mailbox, sequence)) if mailbox.wants_before(*sequence) => Some(self.tree.snapshot()),
            _ => None,
        };
        let Applied { zxid, outcome, changes } = self.tree.apply(time_ms, rules, logged)?;
        let at = zxid.unwrap_or_else(|| self.tree.zxid());
        for change in &changes {
            let woken = &mut self.woken;
            self.room.watches.fire(at, change, woken);
        }
        match &logged.command {
            Command::CreateSession { incarnation, request, .. }
            | Command::MoveSession { incarnation, request, .. } => {
                self.on_session_applied(now, at, *incarnation, *request, &logged.command, outcome);
            }
            Command::Expire { session, .. } => {
                self.expiring.remove(session);
                if matches!(outcome, Outcome::Done(Reply::SessionClosed { .. })) {
                    self.room.metrics.stale_sessions_expired.add(1);
                    self.on_session_gone(at, *session, Some("its session expired"));
                } else if let (true, Some(row)) = (self.leading, self.tree.session(*session)) {
                    // It attached anew before this was applied.
                    self.expiry.set(*session, now.ms() + row.timeout_ms.max(0) as u64);
                }
            }
            Command::Sweep { .. } => {}
            Command::CloseSession | Command::Single(_) | Command::Multi(_) => {
                let closed = matches!(outcome, Outcome::Done(Reply::SessionClosed { .. }));
                if let Some((mailbox, sequence)) = target {
                    if !matches!(outcome, Outcome::Dropped) {
                        self.tell(&mailbox, at, Item::Outcome { sequence, outcome, before });
                    }
                }
                if let (true, Some(tag)) = (closed, logged.tag) {
                    self.on_session_gone(at, tag.session, None);
                }
            }
        }
        Ok(())
    }

    fn on_session_applied(
        &mut self,
        now: Moment,
        at: Zxid,
        incarnation: u64,
        request: u64,
        command: &Command<'_>,
        outcome: Outcome,
    ) {
        let (session, password, timeout_ms) = match command {
            Command::CreateSession { session, password, timeout_ms, .. }
            | Command::MoveSession { session, password, timeout_ms, .. } => {
                (*session, *password, *timeout_ms)
            }
            _ => unreachable!("only these two attach"),
        };
        let generation = self.tree.session(session).map_or(0, |row| row.generation);
        let done = matches!(outcome, Outcome::Done(_));
        if done && self.leading {
            self.expiry.set(session, now.ms() + timeout_ms.max(0) as u64);
        }
        let waiting =
            if incarnation == self.options.incarnation { self.connects.remove(&request) } else { None };
        if !done {
            if let Some(mailbox) = waiting {
                let item = match command {
                    // The id exists (a clock that went back): the client tries again and gets another.
                    Command::CreateSession { .. } => Item::Close("its session id was taken"),
                    _ => Item::Refused,
                };
                self.tell(&mailbox, at, item);
            }
            return;
        }
        let pulse = Arc::new(Pulse::default());
        pulse.beat(now.ms());
        let attachment = Attachment { generation, pulse: pulse.clone(), mailbox: waiting.clone() };
        if let Some(old) = self.attached.insert(session, attachment).and_then(|a| a.mailbox) {
            self.tell(&old, at, Item::Close("its session attached elsewhere"));
        }
        if let Some(mailbox) = waiting {
            if matches!(command, Command::MoveSession { .. }) {
                self.room.metrics.connection_revalidate_count.add(1);
            }
            let attached = Attached { session, password, timeout_ms, generation, pulse };
            self.tell(&mailbox, at, Item::Attached(attached));
        }
    }

    fn on_session_gone(&mut self, at: Zxid, session: SessionId, close: Option<&'static str>) {
        self.expiry.remove(session);
        if let Some(mailbox) = self.attached.remove(&session).and_then(|a| a.mailbox) {
            if let Some(why) = close {
                self.tell(&mailbox, at, Item::Close(why));
            }
        }
    }

    fn answer_syncs(&mut self) {
        let applied = self.tree.position().index;
        while self.read_at.front().is_some_and(|(index, _)| *index <= applied) {
            let Some((_, tokens)) = self.read_at.pop_front() else { break };
            for token in tokens {
                if let Some(mailbox) = self.syncs.remove(&token) {
                    self.tell(&mailbox, self.tree.zxid(), Item::Synced);
                }
            }
        }
    }

    // ---- time ----------------------------------------------------------------------------------------------

    fn on_time(&mut self, now: Moment) -> Result<(), TreeError> {
        if self.leading {
            if now.since(self.last_time) > STALL {
                // The whole process stood still, and what clients sent meanwhile is not read yet.
                tracing::warn!(
                    ms = now.since(self.last_time).as_millis() as u64,
                    "stood still; sessions get a full timeout"
                );
                self.give_full_timeouts(now);
            }
            self.expire(now);
            let mut found = Vec::new();
            let snapshot = self.room.snapshot();
            self.sweeper.sweep(now, &snapshot, &mut found)?;
            if !found.is_empty() {
                self.actions.push_back(Action::Submit(found));
            }
        }
        self.last_time = now;
        let due = now.since(self.last_checkpoint) >= self.options.checkpoint_interval;
        if due && self.tree.checkpointed() == self.tree.position() {
            self.last_checkpoint = now;
        } else if (due || self.checkpoint_wanted) && self.backlog.is_empty() {
            self.checkpoint(now);
        }
        Ok(())
    }

    fn checkpoint(&mut self, now: Moment) {
        if self.checkpointing {
            return;
        }
        self.checkpoint_wanted = false;
        self.last_checkpoint = now;
        if let Some(checkpoint) = self.tree.freeze() {
            self.checkpointing = true;
            self.actions.push_back(Action::Checkpoint(checkpoint));
        }
    }

    fn on_checkpointed(&mut self, now: Moment, written: Written) {
        self.checkpointing = false;
        self.last_checkpoint = now;
        let superseded = self.tree.install(written);
        self.room.publish(self.tree.snapshot());
        self.actions.push_back(Action::Superseded(superseded));
        self.actions.push_back(Action::Purge(self.tree.checkpointed().index));
    }

    // ---- telling -------------------------------------------------------------------------------------------

    fn submit(&mut self, submission: Submission) {
        match self.actions.back_mut() {
            Some(Action::Submit(submissions)) => submissions.push(submission),
            _ => self.actions.push_back(Action::Submit(vec![submission])),
        }
    }

    fn tell(&mut self, mailbox: &Arc<Mailbox>, at: Zxid, item: Item) {
        if mailbox.put(at, item) {
            self.woken.push(mailbox.clone());
        }
    }

    /// Bring the metrics that this machine owns up to date.
    fn measure(&mut self) {
        let metrics = &self.room.metrics;
        metrics.global_sessions.set(self.tree.session_count() as i64);
        metrics.warren_overlay_bytes.set(self.tree.overlay_bytes() as i64);
        metrics.warren_cache_bytes.set(self.tree.cache_bytes() as i64);
        let refusals = self.tree.refusals();
        if refusals != self.refusals {
            metrics.warren_znode_too_large_total.add(refusals.limit - self.refusals.limit);
            metrics.warren_quota_exceeded_total.add(refusals.quota - self.refusals.quota);
            metrics.warren_disk_refusals_total.add(refusals.growth - self.refusals.growth);
            self.refusals = refusals;
        }
        let misses = self.tree.misses();
        metrics.warren_cache_misses_total.add(misses - self.misses);
        self.misses = misses;
    }
}
