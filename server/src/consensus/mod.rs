//! Who decides the order: steps ⑥, ⑦ and ⑨ of the walk.
//!
//! [`Consensus`] drives the `raft` crate, and is the only module that knows it. It takes submissions, brings them to
//! the leader, stamps there what must not differ between servers (time, new session ids and passwords, settings), packs
//! many of them into one log entry, and hands out what is to be persisted, sent and committed. It does no IO: the
//! driver calls [`Consensus::handle`] with an event and the time, and drains [`Consensus::poll_action`].
//!
//! Its rooms: `interface` says what goes in and out; `forward` brings requests to the leader, once; `propose` makes
//! entries of them; `ready` hands out what raft has ready, in the order that is safe; `clock` is about time, elections
//! and who leads; `read` asks for read indexes; `view` is raft's view of the log; `wire` translates messages and
//! refuses what contradicts itself; `stamp` is the leader's stamp; `space` is about full disks; `roster` is who belongs to
//! the ensemble, and changes it; `configuration` is what raft knows of that.

mod clock;
mod configuration;
pub(crate) mod forward;
mod interface;
pub(crate) mod passive;
mod propose;
mod read;
mod ready;
mod roster;
mod space;
mod stamp;
#[cfg(test)]
mod tests;
mod view;
mod wire;

pub use configuration::{
    Configuration, disk_of, found, found_alone, is_alone, joining, raft_id, server_of, voter_ids, voters,
};
pub(crate) use interface::Handed;
pub use interface::{
    Action, Committed, Event, Facts, Follower, Measure, READ_BYTES_MAX, Role, Start, Submission, Timers,
};

use crate::entropy::Entropy;
use crate::moment::Moment;
use clock::{Election, Watch};
use configuration::encode_conf;
use forward::{Inbox, Outbox};
use protobuf::Message as _;
use raft::eraftpb::ConfState;
use raft::{ProgressState, RawNode, SnapshotStatus, StateRole};
use read::Reads;
use ready::Unsynced;
use roster::Roster;
pub(crate) use roster::is_another;
pub use roster::table_of;
use space::Space;
use stamp::Stamp;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use view::LogView;
use warren_storage::log::LogError;
use warren_storage::tree::Position;
use warren_transport::peer::{PeerMessage, RaftKind, RaftMessage, ServerId};

/// Bytes of entries in one message to a follower, at most, unless a single entry is larger.
const APPEND_BYTES_MAX: u64 = 256 << 10;
/// Messages with entries on their way to a follower and not answered, at most; beyond, it waits.
const APPEND_MESSAGES_MAX: usize = 128;
/// Bytes of entries that are proposed and not committed, at most; beyond, requests wait.
const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;
/// The next turn begins so much later, so that it is another one.
const NEXT_TURN: Duration = Duration::from_micros(1);
/// Measures that wait for [`Consensus::take_measures`], at most; beyond, they are lost.
const MEASURES_MAX: usize = 1_024;

/// A follower that has all of a snapshot puts it in place by then, and says so.
const PLACE_WITHIN: Duration = Duration::from_secs(5);
/// A follower that could not take a snapshot, for want of space say, is sent the next after this.
const STREAM_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// A follower that was silent for no longer finds the log as it left it, where the disk has room for that.
const WANTED_FOR: Duration = Duration::from_secs(60);

/// Why consensus cannot begin or go on: the store is damaged, or we are.
#[derive(Debug, thiserror::Error)]
pub enum ConsensusError {
    /// The configuration in the checkpoint does not decode.
    #[error("the configuration in the checkpoint does not decode")]
    ConfState(#[source] protobuf::ProtobufError),
    /// The log cannot be read.
    #[error("the log cannot be read")]
    Log(#[from] LogError),
    /// raft refused.
    #[error("consensus cannot go on")]
    Raft(#[from] raft::Error),
}

/// The consensus state machine of one server.
pub struct Consensus {
    node: RawNode<LogView>,
    server_id: ServerId,
    incarnation: u64,
    timers: Timers,
    entropy: Box<dyn Entropy>,
    stamp: Stamp,
    /// Requests of this server.
    outbox: Outbox,
    /// Requests of others, while it leads.
    inbox: Inbox,
    /// What the leader's own timers ask.
    asked_by_timers: VecDeque<Vec<u8>>,
    /// Of the servers that were met: disk (0 when it did not know) and store; at most one for each id.
    stores: BTreeMap<ServerId, (u32, u64)>,
    /// Those of them that are to be recorded, as the leader.
    introductions: Vec<(ServerId, (u32, u64))>,
    /// As the leader: a new epoch comes before anything else.
    epoch_due: bool,
    /// As the leader: a mark is to be set.
    mark_due: bool,
    /// See [`Event::Abstain`].
    abstains: bool,
    roster: Roster,
    /// Committed, and not handed out before the commit of a change of configuration among them is durable.
    held_back: VecDeque<raft::eraftpb::Entry>,
    /// The append that makes it durable.
    commit_in: Option<u64>,
    unsynced: Unsynced,
    /// The snapshot that is being put in place, by the number of its action.
    installing: Option<(u64, Position)>,
    /// As the leader: to whom a stream has ended, what raft is told of it, and when.
    streamed: BTreeMap<ServerId, (Moment, SnapshotStatus)>,
    /// The last entry that was handed out as committed.
    committed: Position,
    /// Term and leader as they were told.
    told: (u64, Option<ServerId>),
    leading: bool,
    /// See [`Consensus::is_alone`].
    lone: bool,
    reads: Reads,
    election: Election,
    space: Space,
    watch: Watch,
    next_tick: Moment,
    /// Since when requests wait for the rounds before them.
    waits_since: Option<Moment>,
    /// When what waits to be proposed or forwarded has waited long enough.
    due: Option<Moment>,
    /// As a leader: up to where the others were told of commits.
    commit_told: u64,
    refused: u64,
    actions: VecDeque<Action>,
}

impl Consensus {
    /// Open on what was recovered. A lone voter campaigns at once: nothing is outstanding on its disk.
    ///
    /// # Errors
    /// When the store is damaged.
    ///
    /// # Panics
    /// When the incarnation is 0.
    pub fn new(now: Moment, start: Start) -> Result<Consensus, ConsensusError> {
        assert_ne!(start.incarnation, 0, "0 is no run of a server");
        let conf = ConfState::parse_from_bytes(&start.conf_state).map_err(ConsensusError::ConfState)?;
        // Who joins learns it from the log.
        let conf = if conf.voters.is_empty() { ConfState::default() } else { conf };
        let lone = conf.voters == [start.id] && conf.learners.is_empty() && conf.voters_outgoing.is_empty();
        let hard = raft::eraftpb::HardState {
            term: start.hard_state.term.max(start.checkpoint.term),
            vote: start.hard_state.vote,
            // An applied index beyond the persisted commit panics at start.
            commit: start.hard_state.commit.max(start.checkpoint.index),
            ..Default::default()
        };
        let election_tick = usize::from(start.timers.election_ticks);
        let config = raft::Config {
            id: start.id,
            election_tick,
            heartbeat_tick: usize::from(start.timers.heartbeat_ticks),
            min_election_tick: election_tick,
            max_election_tick: 2 * election_tick,
            applied: start.checkpoint.index,
            check_quorum: true,
            pre_vote: true,
            max_size_per_msg: APPEND_BYTES_MAX,
            max_inflight_msgs: APPEND_MESSAGES_MAX,
            max_uncommitted_size: UNCOMMITTED_BYTES_MAX,
            // The next entries carry the commit; where there are none, `drive` sees to it.
            skip_bcast_commit: true,
            ..raft::Config::default()
        };
        // Servers that start together should not tick together.
        let mut entropy = start.entropy;
        let tick_us = start.timers.tick().as_micros() as u64;
        let first_tick = Duration::from_micros(1 + entropy.next_u64() % tick_us.max(1));
        let view = LogView::new(start.reader, start.checkpoint, hard, conf, start.read_bytes_max)?;
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let mut consensus = Consensus {
            node: RawNode::new(&config, view, &logger)?,
            server_id: start.server_id,
            incarnation: start.incarnation,
            timers: start.timers,
            entropy,
            stamp: Stamp::new(now, start.server_id, start.rules),
            outbox: Outbox::new(start.incarnation),
            inbox: Inbox::default(),
            asked_by_timers: VecDeque::new(),
            stores: BTreeMap::new(),
            introductions: Vec::new(),
            epoch_due: false,
            mark_due: false,
            abstains: false,
            roster: Roster::new(start.members, start.retired, start.found),
            held_back: VecDeque::new(),
            commit_in: None,
            unsynced: Unsynced::new(start.hard_state.term, start.hard_state.vote),
            installing: None,
            streamed: BTreeMap::new(),
            committed: start.checkpoint,
            told: (0, None),
            leading: false,
            lone,
            reads: Reads::new(start.server_id, start.incarnation),
            election: Election::default(),
            space: Space::new(start.rules.refuse_growth),
            watch: Watch::new(now),
            next_tick: now + first_tick,
            waits_since: None,
            due: None,
            commit_told: 0,
            refused: 0,
            actions: VecDeque::new(),
        };
        consensus.told.0 = consensus.node.raft.term;
        consensus.draw_election_timeout();
        if lone {
            consensus.node.campaign()?;
            consensus.draw_election_timeout();
        }
        consensus.drive(now)?;
        Ok(consensus)
    }

    /// Take one event. Never waits.
    ///
    /// # Errors
    /// When raft finds its own state broken or the log cannot be read: the server must stop.
    pub fn handle(&mut self, now: Moment, event: Event) -> Result<(), ConsensusError> {
        match event {
            Event::Submit(submissions) => {
                for submission in submissions {
                    self.submit(now, submission);
                }
            }
            Event::Persisted(number) => self.on_persisted(now, number)?,
            Event::Installed { number } => self.on_installed(now, number)?,
            Event::Met { server, disk, store_id } => self.on_met(server, disk, store_id),
            Event::Members { members, retired, .. } => self.on_members(members, retired),
            // Whether it is to observe is not for raft to say.
            Event::Recorded(_) => {}
            Event::ForceQuorum(table) => self.on_force(table),
            Event::Applied(index) => self.on_applied(index),
            Event::RefuseGrowth(refuse) => self.refuse_growth(refuse),
            Event::Peer { from, message } => self.on_peer(now, from, message)?,
            Event::Unreachable { server } => {
                for id in self.members_of(server) {
                    self.node.report_unreachable(id);
                }
                // It may have ended before the snapshot was in place.
                if self.streamed.remove(&server).is_some() {
                    self.report_snapshot(server, SnapshotStatus::Failure);
                }
            }
            Event::SnapshotSent { to, ok } => {
                // Asked before its snapshot is in place, it would say what it has without it, and be sent another one. Its
                // answer once it is in place is enough for raft. Who could not take one gets the next after a pause.
                let (pause, status) = match ok {
                    true => (PLACE_WITHIN, SnapshotStatus::Finish),
                    false => (STREAM_AGAIN_AFTER, SnapshotStatus::Failure),
                };
                self.streamed.insert(to, (now + pause, status));
            }
            Event::SnapshotReceived { from, message } => {
                // One at a time; the leader sends another when this one is not enough.
                if self.installing.is_none() {
                    self.on_raft(now, from, message, true)?;
                }
            }
            Event::Checkpointed { position, conf_state, first_index } => {
                self.on_applied(position.index);
                let conf = ConfState::parse_from_bytes(&conf_state).map_err(ConsensusError::ConfState)?;
                self.node.mut_store().checkpointed(position, conf, first_index)?;
            }
            Event::Transfer { to } => self.transfer(to),
            Event::Abstain(abstains) => self.abstain(now, abstains),
            Event::Tick => self.on_tick(now),
        }
        self.drive(now)
    }

    /// What to do next; drain until `None` after each [`Consensus::handle`].
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to come back with [`Event::Tick`] at the latest.
    pub fn poll_timeout(&self) -> Moment {
        self.due.map_or(self.next_tick, |due| self.next_tick.earlier(due))
    }

    /// Would more requests of this server only wait, for what is under way to come back? Then nothing need be done about them
    /// before something else happens.
    pub fn is_busy(&self) -> bool {
        if self.leading { self.has_rounds_enough() } else { self.outbox.has_messages_enough() }
    }

    /// Is this server the leader?
    pub fn is_leading(&self) -> bool {
        self.leading
    }

    /// Is this server the only voter? Then nobody waits for what it says while it does something else.
    pub fn is_alone(&self) -> bool {
        self.lone
    }

    /// Is nothing on its way to the disk, and does it not lead? Then what an observer needs can be taken out of it.
    pub(crate) fn is_at_rest(&self) -> bool {
        let idle = self.unsynced.is_empty() && self.installing.is_none();
        idle && self.held_back.is_empty() && self.commit_in.is_none() && !self.leading
    }

    /// Has it a vote by raft's configuration, in either half of a joint one?
    pub(crate) fn votes(&self) -> bool {
        self.node.raft.prs().conf().voters().contains(self.node.raft.id)
    }

    /// For an observer in its place.
    pub(crate) fn hand_on(self) -> Handed {
        let hard = self.node.raft.hard_state();
        let hard_state =
            warren_storage::log::HardState { term: hard.term, vote: hard.vote, commit: self.committed.index };
        Handed {
            entropy: self.entropy,
            hard_state,
            committed: self.committed,
            conf_state: encode_conf(&self.node.raft.prs().conf().to_conf_state()),
            outbox: self.outbox,
            tokens: self.reads.into_tokens(),
        }
    }

    /// What an observer had under way, which votes from now on.
    pub(crate) fn take_over(&mut self, outbox: Outbox, tokens: Vec<u64>) {
        self.outbox = outbox;
        self.outbox.begin_term();
        tokens.into_iter().for_each(|token| self.reads.push(token));
    }

    /// As the leader: the log from here on is still to be sent to a follower that is there, or was a moment ago; `None` when there is
    /// none.
    pub fn wanted_by_followers(&self, now: Moment) -> Option<u64> {
        let raft = &self.node.raft;
        let others = raft.prs().iter().filter(|(id, _)| **id != raft.id && self.leading);
        let there = others.filter(|(id, _)| self.roster.was_heard(now, **id, WANTED_FOR));
        let has = |p: &raft::Progress| match p.state {
            // What comes behind the tree that it is being sent.
            ProgressState::Snapshot => p.matched.max(p.pending_snapshot),
            _ => p.matched,
        };
        there.map(|(_, p)| has(p) + 1).min()
    }

    /// How it stands.
    pub fn facts(&self) -> Facts {
        let raft = &self.node.raft;
        let progress = raft.prs();
        let mut voters: Vec<ServerId> = progress.conf().voters().ids().iter().map(server_of).collect();
        voters.sort_unstable();
        voters.dedup();
        let mut followers = Vec::new();
        if raft.state == StateRole::Leader {
            followers.extend(progress.iter().filter(|(id, _)| **id != raft.id).map(|(id, p)| Follower {
                server: server_of(*id),
                matched: p.matched,
                active: p.recent_active,
                synced: p.state == ProgressState::Replicate,
            }));
            followers.sort_unstable_by_key(|f| f.server);
        }
        Facts {
            term: self.told.0,
            leader: self.told.1,
            role: match (self.leading, self.told.1) {
                (true, _) => Role::Leading,
                (false, Some(_)) => Role::Following,
                (false, None) => Role::Looking,
            },
            voters,
            members: self.roster.members().clone(),
            changing: !progress.conf().to_conf_state().voters_outgoing.is_empty(),
            last_index: raft.raft_log.last_index(),
            committed: raft.raft_log.committed,
            persisted: raft.raft_log.persisted,
            followers,
            observers: Vec::new(),
            feeder: None,
            own: self.outbox.len(),
            pending_syncs: self.reads.len(),
            foreign_bytes: self.inbox.bytes(),
            refused: self.refused,
        }
    }

    /// What was measured since the last time.
    pub fn take_measures(&mut self) -> Vec<Measure> {
        self.watch.take()
    }

    fn submit(&mut self, now: Moment, submission: Submission) {
        match submission {
            Submission::Sync(token) => self.reads.push(token),
            Submission::NewEpoch => self.epoch_due |= self.leading,
            Submission::Mark => self.mark_due |= self.leading,
            Submission::LeaderOnly(encoded) if self.leading => self.asked_by_timers.push_back(encoded),
            Submission::LeaderOnly(_) => {}
            own @ (Submission::Command(_) | Submission::Reconfigure(_) | Submission::OpenSession { .. }) => {
                self.outbox.push(now, own)
            }
        }
    }

    fn on_applied(&mut self, index: u64) {
        // What was applied before a snapshot was put in place may be told after it; and the snapshot itself is applied
        // a moment before the log begins anew behind it, which [`Event::Installed`] tells.
        if self.installing.is_none() && index > self.node.raft.raft_log.applied() {
            self.node.advance_apply_to(index);
        }
    }

    fn on_met(&mut self, server: ServerId, disk: u32, store_id: u64) {
        let known = self.stores.get(&server).filter(|(of, _)| self.roster.is_of(server, *of));
        let differs = known.is_some_and(|(_, first)| *first != store_id);
        let known = known.is_some();
        if known && self.roster.is_of(server, disk) {
            self.roster.note_store(server, differs);
        }
        if self.lone || known || !self.roster.is_recorded(server) || !self.roster.is_of(server, disk) {
            return;
        }
        self.stores.insert(server, (disk, store_id));
        if disk == 0 {
            self.forget_progress(server);
        }
        if self.leading {
            self.introductions.push((server, (disk, store_id)));
        }
    }

    /// A server that has nothing is to be recorded. What its id has acknowledged to this leader was on a disk that is lost: from
    /// here on it would be taken for a follower that has it, and what it lacks would never be sent.
    fn forget_progress(&mut self, server: ServerId) {
        if self.node.raft.state != StateRole::Leader {
            return;
        }
        let id = raft_id(server, self.roster.disk(server));
        let next = self.node.raft.raft_log.last_index() + 1;
        if let Some(progress) = self.node.raft.mut_prs().get_mut(id).filter(|_| server != self.server_id) {
            progress.become_probe();
            (progress.matched, progress.next_idx) = (0, next);
        }
    }

    /// The raft ids of a server that is a member; two while its disk is replaced.
    fn members_of(&self, server: ServerId) -> Vec<u64> {
        self.node.raft.prs().iter().map(|(id, _)| *id).filter(|id| server_of(*id) == server).collect()
    }

    fn report_snapshot(&mut self, to: ServerId, status: SnapshotStatus) {
        for id in self.members_of(to) {
            self.node.report_snapshot(id, status);
        }
    }

    /// Who did not answer in time is asked, and who could not take a snapshot is sent another.
    fn tell_of_streams(&mut self, now: Moment) {
        let due = |(_, (until, _)): &(&ServerId, &(Moment, SnapshotStatus))| until.us <= now.us;
        while let Some((to, status)) = self.streamed.iter().find(due).map(|(to, (_, status))| (*to, *status))
        {
            self.streamed.remove(&to);
            self.report_snapshot(to, status);
        }
    }

    fn on_peer(&mut self, now: Moment, from: ServerId, message: PeerMessage) -> Result<(), ConsensusError> {
        match message {
            PeerMessage::Raft(message) => self.on_raft(now, from, message, false)?,
            PeerMessage::Forward(forward) => {
                if self.leading && forward.term == self.told.0 {
                    let refused = self.inbox.take(from, forward);
                    self.refuse(refused, from, &"it forwards what is not for it to ask");
                }
            }
            PeerMessage::ForwardAck(ack) => {
                let current = (ack.term, Some(from)) == self.told && !self.leading;
                if current && !self.outbox.on_ack(now, &ack) {
                    self.refuse(1, from, &"it acknowledges requests that were never sent");
                }
            }
            PeerMessage::Space(told) => self.on_space(now, from, told),
            PeerMessage::Touches(_) | PeerMessage::TouchesAck(_) | PeerMessage::Compare(_) => {
                self.refuse(1, from, &"touches and comparisons are not for consensus");
            }
            PeerMessage::Ask(_) | PeerMessage::Answer(_) => {
                self.refuse(1, from, &"questions before the start are not for consensus");
            }
            PeerMessage::Observe(_)
            | PeerMessage::Feed(_)
            | PeerMessage::FeedEnd(_)
            | PeerMessage::AskRead(_)
            | PeerMessage::AnswerRead(_) => {
                self.refuse(1, from, &"what observers say and are told is not for consensus");
            }
        }
        Ok(())
    }

    fn on_raft(
        &mut self,
        now: Moment,
        from: ServerId,
        mut message: RaftMessage,
        snapshot: bool,
    ) -> Result<(), ConsensusError> {
        if let Err(why) = wire::check(&self.node, &self.roster, from, &message, snapshot) {
            match why {
                // For or from a disk that was replaced, or a server that left: they learn of it in time.
                wire::Contradiction::Former => {}
                why => self.refuse(1, from, &why),
            }
            return Ok(());
        }
        if message.term == self.node.raft.term && self.node.raft.prs().get(message.from).is_some() {
            self.roster.hear(now, message.from);
        }
        if message.kind == RaftKind::AppendResponse && message.reject {
            let Some(progress) = self.node.raft.prs().get(message.from) else { return Ok(()) };
            if message.term == self.node.raft.term && message.index <= progress.matched {
                // It is older than what that follower has since confirmed.
                return Ok(());
            }
            if message.reject_hint < progress.matched {
                // raft 0.7.0 would send again what is known to be there (raft-rs #557).
                (message.reject_hint, message.log_term) = (progress.matched, 0);
            }
        }
        if message.kind == RaftKind::TimeoutNow && self.abstains {
            return Ok(());
        }
        if message.kind == RaftKind::TimeoutNow && !self.unsynced.is_empty() {
            // No campaign while syncs are outstanding: it waits for them.
            self.unsynced.campaign_after(message);
            return Ok(());
        }
        self.step(message)
    }

    fn step(&mut self, message: RaftMessage) -> Result<(), ConsensusError> {
        let stepped = self.node.step(wire::to_raft(message));
        self.draw_election_timeout();
        match stepped {
            // Who sent it is no member any more, or nobody leads: as good as lost.
            Ok(()) | Err(raft::Error::StepPeerNotFound | raft::Error::ProposalDropped) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    fn refuse(&mut self, count: u64, from: ServerId, why: &dyn std::fmt::Display) {
        if count > 0 {
            self.refused += count;
            tracing::warn!(from, count, "a message of a peer is dropped: {why}");
        }
    }

    /// Propose what waits and take out what raft has ready, until neither moves; then speak to the leader or as one.
    fn drive(&mut self, now: Moment) -> Result<(), ConsensusError> {
        self.due = None;
        if self.node.mut_store().begin_turn(now) {
            self.read_on();
        }
        loop {
            while self.node.has_ready() {
                self.take_ready(now)?;
            }
            self.force_if_due()?;
            self.propose(now)?;
            self.reads.ask(now, &mut self.node);
            let committed = self.node.raft.raft_log.committed;
            if self.leading && !self.lone && committed > self.commit_told {
                self.commit_told = committed;
                if !self.node.has_ready() {
                    self.node.raft.bcast_append();
                }
            }
            if !self.node.has_ready() {
                break;
            }
        }
        self.forward(now);
        if self.node.store().is_put_off() {
            let next = now + NEXT_TURN;
            self.due = Some(self.due.map_or(next, |due| due.earlier(next)));
        }
        Ok(())
    }

    /// What followers that are behind want and had no room in the last turn.
    fn read_on(&mut self) {
        if !self.leading {
            return;
        }
        let raft = &mut self.node.raft;
        let last = raft.raft_log.last_index();
        let others = raft.prs().iter().filter(|(id, _)| **id != raft.id);
        let mut behind: Vec<(u64, u64)> = others.map(|(id, p)| (*id, p.next_idx)).collect();
        behind.sort_unstable();
        for (id, mut next) in behind {
            while next <= last {
                raft.send_append(id);
                let before =
                    std::mem::replace(&mut next, raft.prs().get(id).map_or(u64::MAX, |p| p.next_idx));
                if next == before {
                    break;
                }
            }
        }
    }

    /// What was proposed by older leaders is known here: an entry of this term is committed.
    fn knows_the_past(&self) -> bool {
        self.committed.term == self.node.raft.term
    }

    fn forward(&mut self, now: Moment) {
        let (term, leader) = self.told;
        if self.leading {
            while let Some((to, ack)) = self.inbox.poll_ack(term) {
                self.send(to, PeerMessage::ForwardAck(ack));
            }
        } else if let (Some(to), true) = (leader, self.knows_the_past()) {
            while let Some(forward) = self.outbox.poll_forward(now, term) {
                self.send(to, PeerMessage::Forward(forward));
            }
            self.due = self.outbox.waits_until().filter(|due| due.us > now.us);
        }
    }

    fn send(&mut self, to: ServerId, message: PeerMessage) {
        self.actions.push_back(Action::Send { to, message });
    }
}
