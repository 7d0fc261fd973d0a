//! What is committed, applied: steps ⑩ and ⑪ of the walk, and the life of sessions.
//!
//! [`Service`] owns the tree. It applies committed entries in order, fires watches, puts outcomes into the
//! mailboxes of the connections that wait for them, and publishes a snapshot for everybody who reads. On the
//! leader it also finds sessions that ran out and nodes to sweep, and asks for both through the log like any
//! client; on the others it tells the leader which sessions were heard of. It does no IO but through the tree's disk:
//! the driver calls [`Service::handle`] and drains [`Service::poll_action`].
//!
//! While there is no leader, connections and sessions stay and reads are answered; only writes wait.

mod divergence;
mod ensemble;
pub mod history;
mod read_only;
mod sessions;
mod sweep;
#[cfg(test)]
mod tests;
mod touches;

use crate::consensus::{Committed, Submission};
use crate::divergence::Divergence;
use crate::expiry::ExpiryQueue;
use crate::mailbox::{Item, Mailbox};
use crate::moment::Moment;
use crate::room::Room;
use history::History;
pub use read_only::READ_ONLY_AFTER_MIN;
use read_only::ReadOnly;
use sessions::{Attachment, Connect};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use sweep::Sweeper;
use touches::Reports;
use warren_storage::tree::{
    Applied, Checkpoint, Outcome, Pressure, Refusals, Reply, Superseded, Tree, TreeError, Written,
};
use warren_storage::{Code, Command, Entry, Logged, Members, SessionId, ZPath, Zxid};
use warren_transport::peer::{PeerMessage, ServerId};

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
        /// The client accepts a session that only reads, of a server without a leader.
        read_only: bool,
        /// The request of the [`Submission::OpenSession`] that the connection made itself.
        asked: Option<u64>,
        /// Only if this is still its attachment: a connection that goes on with another process must not take its session from
        /// another connection to which its client has moved meanwhile.
        generation: Option<u32>,
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
    /// The term or the leader changed ([`crate::consensus::Action::Leader`]).
    Leader {
        /// raft's term.
        term: u64,
        /// `None` while there is none.
        leader: Option<ServerId>,
    },
    /// A link brought this: `Touches`, `TouchesAck` or `Compare`.
    Peer {
        /// As the link authenticated it.
        from: ServerId,
        /// What it said.
        message: PeerMessage,
    },
    /// A snapshot was taken over: this tree, opened from what was received, takes the place of the one so far. All
    /// clients of this server have to connect anew.
    Install {
        /// Further than the one so far.
        tree: Box<Tree>,
    },
    /// A checkpoint was written.
    Checkpointed(Written),
    /// A majority of the others says that this server does not belong to the ensemble any more.
    Expelled,
    /// Make a checkpoint now, whatever the pressure.
    CheckpointNow,
    /// Make one for an orderly stop. Of a tree that is wrong there is none, so that the next start may go on from an older one.
    LastCheckpoint,
    /// Only time has passed.
    Tick,
}

/// What the service asks for.
pub enum Action {
    /// Bring these to the leader.
    Submit(Vec<Submission>),
    /// Bring this to a server. It may be lost.
    Send {
        /// To whom.
        to: ServerId,
        /// What.
        message: PeerMessage,
    },
    /// The tree says anew who belongs to the ensemble; before the [`Action::Applied`] of the entry that made it so.
    Members {
        /// Who.
        members: Members,
        /// See [`Tree::retired`].
        retired: BTreeMap<ServerId, u32>,
        /// See [`crate::consensus::Event::Members`].
        recorded: bool,
    },
    /// With whom there should be links ([`crate::membership::linked`]) may have changed: who belongs to the ensemble, who votes
    /// by raft's configuration, or whether the table is current ([`Service::has_epoch`]).
    Links,
    /// A change of the membership that this run of the server asked for ([`warren_storage::Asker`]) was applied.
    Reconfigured {
        /// Which.
        request: u64,
        /// Who belongs to the ensemble now, or why it was refused.
        answer: Result<Members, Code>,
    },
    /// Entries up to here are applied.
    Applied(u64),
    /// This server's tree is wrong, or no longer ([`crate::consensus::Event::Abstain`]). It sends nobody its tree while it is.
    Abstain(bool),
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
    /// It does not vote, unless the tree's table of members knows better: somebody else always leads.
    pub observer: bool,
    /// This run of it; random.
    pub incarnation: u64,
    /// Width of expiry buckets, ms.
    pub tick_ms: u64,
    /// May a server without a leader serve read-only clients ([`READ_ONLY_AFTER_MIN`])?
    pub read_only: bool,
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
    /// How often trees are compared while anything changes ([`crate::divergence`]).
    pub compare_interval: Duration,
}

/// The earlier of two times; `None` is never.
fn earliest(a: Option<Moment>, b: Option<Moment>) -> Option<Moment> {
    [a, b].into_iter().flatten().reduce(Moment::earlier)
}

/// The service state machine of one server.
pub struct Service {
    tree: Tree,
    room: Arc<Room>,
    options: ServiceOptions,
    /// Committed, and not applied because the overlay is full.
    backlog: VecDeque<Committed>,
    /// Sessions that are attached to this run of this server.
    attached: HashMap<SessionId, Attachment, foldhash::fast::FixedState>,
    /// Who asked for a session, by the number of the request.
    connects: HashMap<u64, Connect, foldhash::fast::FixedState>,
    /// Who asked for a session that is not known here, by the token of the sync after which it must be.
    lookups: HashMap<u64, Connect, foldhash::fast::FixedState>,
    syncs: HashMap<u64, Arc<Mailbox>, foldhash::fast::FixedState>,
    /// Tokens whose index is not applied yet.
    read_at: VecDeque<(u64, Vec<u64>)>,
    expiry: ExpiryQueue,
    reports: Reports,
    read_only: ReadOnly,
    divergence: Divergence,
    /// It started with a tree that had been found wrong, and was not judged since.
    began_wrong: bool,
    /// See [`Service::note_voters`].
    voters: Vec<ServerId>,
    /// The entry behind which raft's configuration is what it is, or a later one.
    conf_index: u64,
    sweeper: Sweeper,
    /// There is no other voter.
    alone: bool,
    /// See [`ServiceOptions::observer`]; as of what is applied.
    observer: bool,
    term: u64,
    leader: Option<ServerId>,
    leading: bool,
    /// The term whose leader's first entry is applied.
    epoch_term: u64,
    /// As of the last [`Action::Links`]: see [`Service::has_epoch`].
    current: bool,
    checkpointing: bool,
    /// Checkpoints that are still being written and are of trees that are no longer ours.
    foreign_checkpoints: u32,
    checkpoint_wanted: bool,
    /// Of the checkpoint that is being written.
    checkpoint_zxid: Zxid,
    last_checkpoint: Moment,
    /// When time was looked at last.
    last_time: Moment,
    epoch_asked: bool,
    /// It does not belong to the ensemble any more.
    expelled: bool,
    /// It was in a table that this run has seen.
    belonged: bool,
    history: History,
    /// What the metrics were told already.
    refusals: Refusals,
    misses: u64,
    /// Something was applied since the last publication.
    unpublished: bool,
    /// Mailboxes with something new since the last publication.
    woken: Vec<Arc<Mailbox>>,
    actions: VecDeque<Action>,
}

impl Service {
    /// Serve this tree. The room gets its first snapshot.
    pub fn new(now: Moment, tree: Tree, room: Arc<Room>, options: ServiceOptions) -> Service {
        room.publish(tree.snapshot());
        room.set_sessions(tree.session_count());
        room.set_checkpointed(tree.zxid());
        room.set_run(options.server_id, options.incarnation);
        let mut service = Service {
            epoch_term: tree.position().term,
            tree,
            room,
            backlog: VecDeque::new(),
            attached: HashMap::default(),
            connects: HashMap::default(),
            lookups: HashMap::default(),
            syncs: HashMap::default(),
            read_at: VecDeque::new(),
            expiry: ExpiryQueue::new(options.tick_ms),
            reports: Reports::new(now.ms(), options.tick_ms),
            read_only: ReadOnly::new(
                options.read_only,
                options.tick_ms,
                options.server_id,
                options.incarnation,
            ),
            divergence: Divergence::new(now, options.server_id, options.compare_interval),
            began_wrong: false,
            voters: Vec::new(),
            conf_index: 0,
            sweeper: Sweeper::new(now, &options),
            alone: true,
            observer: options.observer,
            term: 0,
            leader: None,
            leading: false,
            current: false,
            checkpointing: false,
            foreign_checkpoints: 0,
            checkpoint_wanted: false,
            checkpoint_zxid: Zxid::ZERO,
            last_checkpoint: now,
            last_time: now,
            epoch_asked: false,
            expelled: false,
            belonged: false,
            history: History::default(),
            refusals: Refusals::default(),
            misses: 0,
            unpublished: false,
            woken: Vec::new(),
            actions: VecDeque::new(),
            options,
        };
        service.on_voters(now);
        service.begin_wrong();
        service
    }

    /// Take one event. Never waits, except for the tree's disk.
    ///
    /// # Errors
    /// When the tree's store fails: the server must stop.
    pub fn handle(&mut self, now: Moment, event: Event) -> Result<(), TreeError> {
        match event {
            Event::Commit(entries) => self.backlog.extend(entries),
            Event::Connect { mailbox, session, password, timeout_ms, read_only, asked, generation } => {
                let asked_ms = now.ms();
                let connect =
                    Connect { mailbox, session, password, timeout_ms, read_only, asked_ms, generation };
                self.on_connect(now, connect, asked)
            }
            Event::Disconnect { connection, session } => self.on_disconnect(connection, session),
            Event::Arm { mailbox, path, recursive } => {
                self.room.watches.arm_persistent(&path, recursive, &mailbox);
                self.tell(&mailbox, self.tree.zxid(), Item::Armed);
            }
            Event::Sync { token, mailbox } => {
                self.syncs.insert(token, mailbox);
            }
            Event::ReadAt { index, mut tokens } => {
                // A proof needs nothing applied.
                tokens.retain(|token| !self.on_proof(*token));
                self.read_at.push_back((index, tokens));
            }
            Event::Leader { term, leader } => self.on_leader(now, term, leader),
            Event::Peer { from, message: PeerMessage::Compare(compare) } => {
                self.on_compare(from, &compare)?
            }
            Event::Peer { from, message } => self.on_peer(now, from, message),
            Event::Install { tree } => self.on_install(now, *tree),
            Event::Checkpointed(written) => self.on_checkpointed(now, written),
            Event::Expelled => self.on_expelled(),
            Event::CheckpointNow => self.checkpoint_wanted = true,
            Event::LastCheckpoint => self.checkpoint_wanted = !self.is_wrong(),
            Event::Tick => {}
        }
        self.apply_backlog(now)?;
        self.answer_syncs();
        self.on_time(now)?;
        let current = self.has_epoch();
        if std::mem::replace(&mut self.current, current) != current {
            self.actions.push_back(Action::Links);
        }
        Ok(())
    }

    /// Everybody may read what was applied; then those who wait are woken. Call it after each [`Service::handle`].
    /// It is a step of its own so that the simulator lets connections run between the firing of watches and the
    /// publication, as they do on other threads.
    pub fn publish(&mut self) {
        if std::mem::take(&mut self.unpublished) {
            self.room.publish(self.tree.snapshot());
            self.room.set_sessions(self.tree.session_count() + self.connects.len());
            self.measure();
        }
        if self.has_epoch() && !self.expelled && !self.is_wrong() && !self.room.is_serving() {
            self.room.set_serving(true);
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
        if !self.alone {
            next = earliest(next, Some(at_ms(self.reports.next_ms())));
            next = earliest(next, self.read_only.begins_at());
        }
        // Observers report to the only voter, too.
        next = earliest(next, self.reports.proof_ms().map(at_ms));
        if self.compares() {
            next = earliest(next, Some(self.compare_at()));
        }
        if self.leading {
            // Often enough to know a standstill for one.
            next = earliest(next, Some(self.last_time + STALL / 4));
        }
        if self.leads_on() {
            next = earliest(next, self.expiry.next_ms().map(at_ms));
            next = earliest(next, Some(self.sweeper.next()));
        }
        next
    }

    /// The tree, for the simulator's checkers.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// What became of the requests that were applied last.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Is there a leader whose epoch has begun here? All that its predecessors acknowledged is applied then, and clients
    /// may be served.
    pub fn has_epoch(&self) -> bool {
        self.leader.is_some() && self.epoch_term >= self.term
    }

    /// Does it lead, and may it judge by its tree what is over?
    fn leads_on(&self) -> bool {
        self.leading && self.has_epoch() && !self.is_wrong()
    }

    /// Sessions by when they expire, for operators: ms of the monotonic clock, and their ids.
    pub fn expiries(&self) -> Vec<(u64, Vec<SessionId>)> {
        self.expiry.buckets()
    }

    /// Is a checkpoint being written, or one wanted?
    pub fn is_checkpointing(&self) -> bool {
        self.checkpointing || self.checkpoint_wanted
    }

    // ---- apply ---------------------------------------------------------------------------------------------

    fn apply_backlog(&mut self, now: Moment) -> Result<(), TreeError> {
        if !self.backlog.is_empty() {
            self.room.set_applied_us(now.us);
        }
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
        let mut mark = false;
        if !committed.data.is_empty() {
            let entry = Entry::decode(&committed.data)
                .unwrap_or_else(|e| panic!("committed entry {:?} cannot be read: {e}", committed.position));
            match entry {
                Entry::NewEpoch { .. } => {
                    self.tree.begin_epoch();
                    self.epoch_asked = false;
                    self.epoch_term = committed.position.term;
                }
                Entry::Introduce { server, disk, store_id } => {
                    self.tree.introduce(server, disk, store_id);
                    if server == self.options.server_id {
                        self.tell_members();
                    }
                }
                Entry::Mark => mark = true,
                Entry::Found { time_ms, table } => {
                    let changes = self.tree.found(time_ms, &table)?;
                    self.on_members(&changes);
                }
                Entry::ForceQuorum { time_ms, epochs, table } => {
                    let changes = self.tree.force_quorum(time_ms, epochs, &table)?;
                    self.on_members(&changes);
                }
                Entry::Batch { time_ms, rules, commands, .. } => {
                    self.history.begin(committed.position.index, self.tree.zxid());
                    for command in commands {
                        let logged = Logged::decode(command).unwrap_or_else(|e| {
                            panic!("a command of {:?} cannot be read: {e}", committed.position)
                        });
                        self.apply_command(now, time_ms, &rules, &logged)?;
                        self.room.digests.on_applied(&self.tree);
                    }
                }
            }
        }
        self.tree.advance(committed.position.index, committed.position.term);
        if let Some(conf_state) = &committed.conf_state {
            self.tree.set_conf_state(conf_state.clone());
            // Who comes and is sent a tree takes only one that knows of it.
            self.checkpoint_wanted = true;
            // And such a one waits to be confirmed.
            self.divergence.hurry(now);
            self.on_voters(now);
            self.tell_members();
        }
        self.unpublished = true;
        if mark {
            self.on_mark(now)?;
        }
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
        let applied = self.tree.apply(time_ms, rules, logged)?;
        self.history.note(&applied);
        let Applied { zxid, outcome, changes } = applied;
        let at = zxid.unwrap_or_else(|| self.tree.zxid());
        for change in &changes {
            let woken = &mut self.woken;
            self.room.watches.fire(at, change, woken);
        }
        match &logged.command {
            command @ (Command::CreateSession { .. } | Command::MoveSession { .. }) => {
                self.on_session_applied(now, at, command, &outcome);
            }
            Command::Expire { session, .. } => self.on_expire_applied(now, at, *session, &outcome),
            Command::Sweep { .. } => {}
            Command::Reconfigure { asker, decided, .. } => {
                self.on_reconfigured(*asker, decided.as_ref());
                if let (Some((mailbox, sequence)), false) = (target, matches!(outcome, Outcome::Dropped)) {
                    self.tell(&mailbox, at, Item::Outcome { sequence, outcome, before });
                }
            }
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

    fn answer_syncs(&mut self) {
        let applied = self.tree.position().index;
        while self.read_at.front().is_some_and(|(index, _)| *index <= applied) {
            let Some((_, tokens)) = self.read_at.pop_front() else { break };
            for token in tokens {
                if let Some(mailbox) = self.syncs.remove(&token) {
                    self.tell(&mailbox, self.tree.zxid(), Item::Synced);
                } else if let Some(connect) = self.lookups.remove(&token) {
                    self.on_looked_up(connect);
                }
            }
        }
    }

    // ---- time ----------------------------------------------------------------------------------------------

    fn on_time(&mut self, now: Moment) -> Result<(), TreeError> {
        let stood_still = now.since(self.last_time) > STALL;
        if stood_still && self.leading {
            // The whole process stood still, and what clients sent meanwhile is not read yet.
            tracing::warn!(
                ms = now.since(self.last_time).as_millis() as u64,
                "stood still; sessions get a full timeout"
            );
            self.give_full_timeouts(now);
        }
        let rests = self.attached.is_empty() && self.connects.is_empty() && self.lookups.is_empty();
        if !self.alone && (self.reports.is_due(now.ms(), rests) || stood_still) {
            self.report(now, stood_still);
        }
        self.ask_for_proof(now);
        self.look_for_read_only(now);
        self.compare(now);
        if self.leads_on() {
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
        } else if due && !self.checkpoint_wanted && self.is_wrong() {
            // An older one may be right.
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
            self.checkpoint_zxid = self.tree.zxid();
            self.actions.push_back(Action::Checkpoint(checkpoint));
        }
    }

    fn on_checkpointed(&mut self, now: Moment, written: Written) {
        if self.foreign_checkpoints > 0 {
            // They are written one after another, so those of the former tree come first.
            self.foreign_checkpoints -= 1;
            return;
        }
        self.checkpointing = false;
        self.last_checkpoint = now;
        let superseded = self.tree.install(written);
        self.room.set_checkpointed(self.checkpoint_zxid);
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
