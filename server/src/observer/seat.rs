//! What a server's driver holds: a voter's consensus or an observer, and beside either the feeds to observers.
//!
//! Which of the two it is, the table of the ensemble says while the server runs: an observer that is promoted becomes a
//! voter, one that catches up first, and a voter that is demoted an observer, once raft's configuration does not need it
//! any more. Nobody sends the log to a voter that was demoted while it was behind, nor tells it that a joint configuration
//! was left: a voter without a leader asks the others what they have recorded, and observes when it has no vote in the
//! configuration of a newer table. The one machine ends once nothing of it is on
//! its way to the disk, and the other begins on the same log, as after a restart; requests and questions that are under way
//! go over, so clients notice nothing.

use super::feeds::{Feeds, Source};
use super::search::candidates;
use super::{Candidate, Observer};
use crate::consensus::{
    Action, Committed, Configuration, Consensus, ConsensusError, Event, Facts, Handed, Measure, Start,
    Submission, Timers, disk_of, is_another, raft_id,
};
use crate::moment::Moment;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use warren_storage::log::LogReader;
use warren_storage::tree::Position;
use warren_storage::{MemberRole, Members, Rules, Tree};
use warren_transport::peer::{AnswerRead, Ask, AskRead, Known, PeerMessage, ServerId};

/// Questions of one observer for a read index that are under way, at most; an older one is not answered.
const READS_PER_OBSERVER_MAX: usize = 4;
/// Tokens from here on are of observers' questions; the service's count from 1.
const READ_TOKENS: u64 = 1 << 63;

/// A voter or learner that has heard of no leader for so long asks whether it still is one…
const ASK_AFTER: Duration = Duration::from_millis(500);
/// …and asks again after this.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// What a server begins as.
pub enum Part {
    /// It votes, or stands alone.
    Voter,
    /// It does not vote.
    Observer {
        /// Who may feed it, as long as there is no table of the ensemble to say so.
        others: Vec<Candidate>,
        /// Nobody but these may; empty: everybody may.
        fed_by: Vec<ServerId>,
    },
}

enum Machine {
    Voter(Box<Consensus>),
    Observer(Box<Observer>),
}

/// See the module's text. Its events, actions and errors are those of [`Consensus`].
pub struct Seat {
    /// Always there, but for the moment in which it becomes the other.
    machine: Option<Machine>,
    feeds: Feeds,
    leader: (u64, Option<ServerId>),
    /// What a machine begins with.
    begin: Begin,
    /// The tree that is being put in place, with its configuration.
    installing: Option<(Position, Vec<u8>)>,
    /// Entries up to here were handed out as committed.
    handed_out: u64,
    applied: u64,
    /// When the leader said something of raft's last.
    heard_at: Moment,
    /// When a voter without a leader asks whether it still votes.
    ask_at: Option<Moment>,
    /// The version of a table by which it does not; −1 for none. Until that one is applied here, the table says nothing.
    outvoted: i64,
    /// By token: who asked, in which run, under which number.
    reads: BTreeMap<u64, (ServerId, AskRead)>,
    read_tokens: u64,
    actions: VecDeque<Action>,
}

/// Does a server begin as an observer with this tree? Its table says so, or where that has no such server yet its file does, or
/// the store came as one; but whose vote a joint configuration still counts, it votes until that is left. A store that
/// came as an observer votes once the log has recorded it.
pub fn begins_observing(tree: &Tree, server_id: ServerId, in_file: bool) -> bool {
    let conf = Configuration::of(tree.conf_state());
    let own = raft_id(server_id, tree.disk());
    let votes = conf.voters.contains(&own) || conf.outgoing.contains(&own);
    let own = tree.members().get(server_id);
    let came = tree.begun().observes;
    let may_vote = !came || tree.recorded_store(server_id) == Some(tree.store_id());
    match own.map(|own| own.role) {
        None => (in_file || came) && !votes,
        Some(MemberRole::Observer) => !votes,
        Some(MemberRole::Voter | MemberRole::Joining) => !may_vote,
    }
}

/// See [`Start`], which is made of it whenever a machine begins.
struct Begin {
    id: u64,
    server_id: ServerId,
    incarnation: u64,
    reader: LogReader,
    /// The newest durable one, with its configuration.
    checkpoint: (Position, Vec<u8>),
    members: Members,
    retired: BTreeMap<ServerId, u32>,
    /// As of what is applied, the log has this server's store. Told with the table; an observer votes no sooner.
    recorded: bool,
    found: Option<Members>,
    rules: Rules,
    timers: Timers,
    read_bytes_max: usize,
    /// See [`Event::Abstain`].
    abstains: bool,
    /// As told by [`Event::Met`]: disk and store of each server.
    met: BTreeMap<ServerId, (u32, u64)>,
}

impl Seat {
    /// Open on what was recovered.
    ///
    /// # Errors
    /// When the store is damaged.
    pub fn new(now: Moment, start: Start, part: Part) -> Result<Seat, ConsensusError> {
        let feeds = Feeds::new(start.server_id, start.timers.tick(), start.reader.clone(), start.checkpoint);
        // As consensus begins; it tells what changes.
        let term = start.hard_state.term.max(start.checkpoint.term);
        let begin = Begin {
            id: start.id,
            server_id: start.server_id,
            incarnation: start.incarnation,
            reader: start.reader.clone(),
            checkpoint: (start.checkpoint, start.conf_state.clone()),
            members: start.members.clone(),
            retired: start.retired.clone(),
            recorded: false,
            found: start.found.clone(),
            rules: start.rules,
            timers: start.timers,
            read_bytes_max: start.read_bytes_max,
            abstains: false,
            met: BTreeMap::new(),
        };
        let handed_out = start.checkpoint.index;
        let machine = match part {
            Part::Voter => Machine::Voter(Box::new(Consensus::new(now, start)?)),
            Part::Observer { others, fed_by } => {
                Machine::Observer(Box::new(Observer::new(now, start, others, fed_by)?))
            }
        };
        let mut seat = Seat {
            machine: Some(machine),
            feeds,
            leader: (term, None),
            begin,
            installing: None,
            handed_out,
            applied: handed_out,
            heard_at: now,
            ask_at: None,
            outvoted: -1,
            reads: BTreeMap::new(),
            read_tokens: READ_TOKENS,
            actions: VecDeque::new(),
        };
        seat.drain(now)?;
        Ok(seat)
    }

    /// As [`Consensus::handle`].
    ///
    /// # Errors
    /// When consensus finds its own state broken or the log cannot be read: the server must stop.
    pub fn handle(&mut self, now: Moment, event: Event) -> Result<(), ConsensusError> {
        match event {
            Event::Peer { from, message: PeerMessage::Observe(asked) } => {
                self.feeds.on_observe(now, from, &asked, &mut self.actions)?;
            }
            Event::Peer { from, message: PeerMessage::AskRead(ask) } => self.on_ask_read(now, from, ask)?,
            Event::SnapshotSent { to, ok } if self.feeds.is_sending_to(to) => {
                self.feeds.on_snapshot_sent(now, to, ok);
            }
            event => {
                let others = matches!(event, Event::Members { .. });
                if let Event::Recorded(known) = &event {
                    self.on_recorded(now, known);
                }
                self.note(now, &event);
                self.tell(now, event)?;
                if others {
                    // As one that votes from now on it is recorded itself.
                    self.tell_met(now)?;
                }
            }
        }
        self.drain(now)?;
        self.ask_if_due(now);
        self.turn_if_due(now)
    }

    /// What the feeds, and a machine that begins later, must know.
    fn note(&mut self, now: Moment, event: &Event) {
        match event {
            Event::Peer { from, message: PeerMessage::Raft(_) } if Some(*from) == self.leader.1 => {
                self.heard_at = now;
            }
            Event::Peer { from, message: PeerMessage::FeedEnd(end) } => self.feeds.on_left(*from, end),
            Event::Unreachable { server } => self.feeds.on_unreachable(now, *server),
            Event::Checkpointed { position, conf_state, .. } => {
                self.feeds.on_checkpoint(*position);
                self.begin.checkpoint = (*position, conf_state.clone());
            }
            Event::Installed { .. } => {
                if let Some((position, conf_state)) = self.installing.take() {
                    self.feeds.on_checkpoint(position);
                    self.feeds.on_committed(position.index);
                    self.begin.checkpoint = (position, conf_state);
                    (self.handed_out, self.applied) = (position.index, position.index);
                }
            }
            Event::Applied(index) => self.applied = self.applied.max(*index),
            Event::RefuseGrowth(refuse) => self.begin.rules.refuse_growth = *refuse,
            Event::Abstain(abstains) => self.begin.abstains = *abstains,
            Event::Met { server, disk, store_id } => {
                // The first one heard of stays, for a disk.
                let known = self.begin.met.get(server).is_some_and(|(known, _)| known == disk);
                if !known {
                    self.begin.met.insert(*server, (*disk, *store_id));
                }
            }
            Event::Members { members, retired, recorded } => {
                // Who comes to vote says with which store once it knows the leader.
                let (former, own) = (&self.begin.members, self.begin.server_id);
                let goes_on = |id| former.servers.is_empty() || !is_another(former.get(id), members.get(id));
                self.begin.met.retain(|id, _| *id == own || goes_on(*id));
                self.begin.recorded = *recorded;
                self.begin.members.clone_from(members);
                self.begin.retired.clone_from(retired);
            }
            _ => {}
        }
    }

    fn tell(&mut self, now: Moment, event: Event) -> Result<(), ConsensusError> {
        match (self.machine_mut(), event) {
            // The end of a feed that this server had no part in, or that it has ended itself.
            (
                Machine::Voter(_),
                Event::Peer { message: PeerMessage::FeedEnd(_) | PeerMessage::Feed(_), .. },
            ) => Ok(()),
            (Machine::Voter(consensus), event) => consensus.handle(now, event),
            (Machine::Observer(observer), event) => observer.handle(now, event),
        }
    }

    fn machine(&self) -> &Machine {
        self.machine.as_ref().expect("a server votes or observes")
    }

    fn machine_mut(&mut self) -> &mut Machine {
        self.machine.as_mut().expect("a server votes or observes")
    }

    /// What to do next; drain until `None` after each [`Seat::handle`].
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to come back with [`Event::Tick`] at the latest.
    pub fn poll_timeout(&self) -> Moment {
        let own = match self.machine() {
            Machine::Voter(consensus) => consensus.poll_timeout(),
            Machine::Observer(observer) => observer.poll_timeout(),
        };
        self.feeds.next().into_iter().chain([own]).min_by_key(|at| at.us).unwrap_or(own)
    }

    /// As [`Consensus::is_leading`].
    pub fn is_leading(&self) -> bool {
        matches!(self.machine(), Machine::Voter(consensus) if consensus.is_leading())
    }

    /// As [`Consensus::is_busy`]; an observer never is.
    pub fn is_busy(&self) -> bool {
        matches!(self.machine(), Machine::Voter(consensus) if consensus.is_busy())
    }

    /// As [`Consensus::is_alone`]; an observer never is.
    pub fn is_alone(&self) -> bool {
        matches!(self.machine(), Machine::Voter(consensus) if consensus.is_alone())
    }

    /// Does it observe?
    pub fn is_observer(&self) -> bool {
        matches!(self.machine(), Machine::Observer(_))
    }

    /// How it stands.
    pub fn facts(&self) -> Facts {
        let facts = match self.machine() {
            Machine::Voter(consensus) => consensus.facts(),
            Machine::Observer(observer) => observer.facts(),
        };
        Facts { observers: self.feeds.facts(), ..facts }
    }

    /// The log from here on is still to be sent to an observer; `None` when none is fed.
    pub fn wanted_by_observers(&self) -> Option<u64> {
        self.feeds.wanted_from()
    }

    /// As [`Consensus::wanted_by_followers`]; an observer has none.
    pub fn wanted_by_followers(&self, now: Moment) -> Option<u64> {
        match self.machine() {
            Machine::Voter(consensus) => consensus.wanted_by_followers(now),
            Machine::Observer(_) => None,
        }
    }

    /// As [`Consensus::take_measures`].
    pub fn take_measures(&mut self) -> Vec<Measure> {
        match self.machine_mut() {
            Machine::Voter(consensus) => consensus.take_measures(),
            Machine::Observer(_) => Vec::new(),
        }
    }

    fn on_ask_read(&mut self, now: Moment, from: ServerId, ask: AskRead) -> Result<(), ConsensusError> {
        if !self.is_leading() {
            return Ok(());
        }
        let of = |(server, _): &(ServerId, AskRead)| *server == from;
        if self.reads.values().filter(|each| of(each)).count() >= READS_PER_OBSERVER_MAX {
            let oldest = self.reads.iter().find(|(_, each)| of(each)).map(|(token, _)| *token);
            oldest.map(|token| self.reads.remove(&token));
        }
        let token = self.read_tokens;
        self.read_tokens += 1;
        self.reads.insert(token, (from, ask));
        self.tell(now, Event::Submit(vec![Submission::Sync(token)]))
    }

    /// Take what the machine asks for, learn from it what the feeds must know, and feed.
    fn drain(&mut self, now: Moment) -> Result<(), ConsensusError> {
        while let Some(action) = match self.machine_mut() {
            Machine::Voter(consensus) => consensus.poll_action(),
            Machine::Observer(observer) => observer.poll_action(),
        } {
            match action {
                Action::Commit(entries) => self.on_commit(entries),
                Action::Leader { term, leader } => {
                    self.leader = (term, leader);
                    self.actions.push_back(Action::Leader { term, leader });
                }
                Action::ReadAt { index, tokens } => self.on_read_at(index, tokens),
                Action::Install { number, head, hard_state } => {
                    let position = Position { index: head.index, term: head.term };
                    self.installing = Some((position, head.conf_state.to_vec()));
                    self.actions.push_back(Action::Install { number, head, hard_state });
                }
                other => self.actions.push_back(other),
            }
        }
        let source = match self.machine() {
            // Its tree, which an observer that is far behind would be sent, is wrong.
            _ if self.begin.abstains => Source { leader: self.leader, ..Source::default() },
            Machine::Voter(_) => Source { leader: self.leader, path: Vec::new(), fed: true },
            Machine::Observer(observer) => observer.source(),
        };
        self.feeds.set_source(source, &mut self.actions);
        self.feeds.drive(now, &mut self.actions)
    }

    /// A machine that began in the middle of a run replays what the one before it has handed out.
    fn on_commit(&mut self, mut entries: Vec<Committed>) {
        entries.retain(|entry| entry.position.index > self.handed_out);
        let Some(last) = entries.last() else { return };
        self.handed_out = last.position.index;
        self.feeds.on_committed(self.handed_out);
        self.actions.push_back(Action::Commit(entries));
    }

    fn on_read_at(&mut self, index: u64, mut tokens: Vec<u64>) {
        tokens.retain(|token| {
            if let Some((to, AskRead { incarnation, number })) = self.reads.remove(token) {
                let message = PeerMessage::AnswerRead(AnswerRead { incarnation, number, index });
                self.actions.push_back(Action::Send { to, message });
            }
            *token < READ_TOKENS
        });
        if !tokens.is_empty() {
            self.actions.push_back(Action::ReadAt { index, tokens });
        }
    }

    fn tell_met(&mut self, now: Moment) -> Result<(), ConsensusError> {
        for (server, (disk, store_id)) in self.begin.met.clone() {
            self.tell(now, Event::Met { server, disk, store_id })?;
        }
        Ok(())
    }

    // ---- from one machine to the other ---------------------------------------------------------------------

    /// Does raft leave it alone? A learner never gives its leader up, so what is heard of that one counts.
    fn is_lost(&self, now: Moment) -> bool {
        let part = matches!(self.machine(), Machine::Voter(_));
        let silent = || !self.is_leading() && now.since(self.heard_at) >= ASK_AFTER;
        part && (self.leader.1.is_none() || silent())
    }

    /// A voter without a leader asks the others of its table what they have recorded. Who is to vote tells the leader its
    /// store, so that it is recorded before.
    fn ask_if_due(&mut self, now: Moment) {
        let Begin { server_id, members, found, met, .. } = &self.begin;
        let lost = self.is_lost(now);
        let joins = match members.get(*server_id).map(|own| own.role) {
            Some(MemberRole::Joining) => true,
            Some(MemberRole::Voter) => self.is_observer(),
            Some(MemberRole::Observer) | None => false,
        };
        let Some((disk, store_id)) = met.get(server_id).copied().filter(|_| lost || joins) else {
            self.ask_at = None;
            return;
        };
        let ask_at = *self.ask_at.get_or_insert(if joins { now } else { now + ASK_AFTER });
        if now.us >= ask_at.us {
            self.ask_at = Some(now + ASK_EVERY);
            // All those of its table may be gone.
            let all = candidates(members, found.as_ref(), *server_id).into_iter();
            for Candidate { server: to, .. } in all.filter(|c| lost || Some(c.server) == self.leader.1) {
                let message = PeerMessage::Ask(Ask { store_id, disk });
                self.actions.push_back(Action::Send { to, message });
            }
        }
    }

    fn on_recorded(&mut self, now: Moment, known: &Known) {
        let Begin { id, server_id, members, .. } = &self.begin;
        // Of the same table as ours it says only that the joint configuration was left, and who observes then. Who left by its
        // own table, or has none yet, may belong to the ensemble anew.
        let newer = match members.get(*server_id).map(|own| own.role) {
            Some(MemberRole::Voter | MemberRole::Joining) => known.version > members.version,
            Some(MemberRole::Observer) | None => known.version >= members.version,
        };
        let votes = known.voters.contains(server_id) || !known.settled;
        // Our table must be that of our log: what raft goes by, and the applied table lags behind, may let us vote again.
        let lost = self.is_lost(now) && self.applied >= self.handed_out;
        // Its next disk may observe as well as this one.
        let is_it = known.disk.is_some_and(|disk| disk >= disk_of(*id));
        if newer && !votes && lost && is_it && !known.voters.is_empty() {
            tracing::info!(version = known.version, "others say that this server does not vote any more");
            self.outvoted = self.outvoted.max(known.version);
        }
    }

    /// Does the table want it to be what it is not?
    fn turn_if_due(&mut self, now: Moment) -> Result<(), ConsensusError> {
        let own = self.begin.members.get(self.begin.server_id);
        let version = self.begin.members.version;
        let told = self.outvoted >= version;
        let observes = match own {
            Some(own) => own.role == MemberRole::Observer || self.outvoted > version,
            None => told,
        };
        // It votes as the disk that it is and with the store that the log has, or not at all: nobody's vote but a founder's counts
        // before ([`crate::founding`]).
        let may_vote = own.is_some_and(|own| own.disk == disk_of(self.begin.id)) && self.begin.recorded;
        // The log was purged for a checkpoint that is about to be told: a voter begins with that one.
        let purged = self.begin.reader.first_index() > self.begin.checkpoint.0.index + 1;
        match self.machine_mut() {
            // A joint configuration is not left without those who voted before.
            Machine::Voter(consensus) if observes && consensus.votes() && !told => Ok(()),
            Machine::Voter(consensus) if observes && consensus.is_at_rest() => self.turn(now),
            Machine::Observer(observer) if observes || !may_vote => {
                observer.open();
                Ok(())
            }
            Machine::Observer(_) if purged => Ok(()),
            Machine::Observer(observer) => {
                observer.close();
                if observer.is_at_rest() { self.turn(now) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    fn turn(&mut self, now: Moment) -> Result<(), ConsensusError> {
        let (handed, observes) = match self.machine.take() {
            Some(Machine::Voter(consensus)) => (consensus.hand_on(), true),
            Some(Machine::Observer(observer)) => (observer.hand_on(), false),
            None => unreachable!("a server votes or observes"),
        };
        let Handed { entropy, hard_state, committed, conf_state, outbox, tokens } = handed;
        // An observer goes on from what was handed out; raft must see every change of its configuration again.
        let (checkpoint, conf_state) = match observes {
            true => (committed, conf_state),
            false => self.begin.checkpoint.clone(),
        };
        let begin = &self.begin;
        let start = Start {
            id: begin.id,
            server_id: begin.server_id,
            incarnation: begin.incarnation,
            reader: begin.reader.clone(),
            hard_state,
            checkpoint,
            conf_state,
            members: begin.members.clone(),
            retired: begin.retired.clone(),
            found: begin.found.clone(),
            rules: begin.rules,
            timers: begin.timers,
            read_bytes_max: begin.read_bytes_max,
            entropy,
        };
        let machine = if observes {
            tracing::info!("this server observes from now on");
            let others = candidates(&begin.members, begin.found.as_ref(), begin.server_id);
            let mut observer = Observer::new(now, start, others, Vec::new())?;
            observer.take_over(outbox, tokens);
            Machine::Observer(Box::new(observer))
        } else {
            tracing::info!("this server joins those that vote");
            let mut consensus = Consensus::new(now, start)?;
            consensus.take_over(outbox, tokens);
            Machine::Voter(Box::new(consensus))
        };
        self.machine = Some(machine);
        self.leader = (self.leader.0, None);
        self.actions.push_back(Action::Leader { term: self.leader.0, leader: None });
        self.drain(now)?;
        self.tell(now, Event::Abstain(self.begin.abstains))?;
        self.tell_met(now)?;
        self.tell(now, Event::Applied(self.applied))?;
        self.drain(now)
    }
}
