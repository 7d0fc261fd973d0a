//! What a server's driver holds: a voter's consensus or an observer, and beside either the feeds to observers.

use super::feeds::{Feeds, Source};
use super::{Candidate, Observer};
use crate::consensus::{
    Action, Consensus, ConsensusError, Event, Facts, Measure, Start, Submission, voters_of,
};
use crate::moment::Moment;
use std::collections::{BTreeMap, VecDeque};
use warren_storage::tree::Position;
use warren_transport::peer::{AnswerRead, AskRead, PeerMessage, ServerId};

/// Questions of one observer for a read index that are under way, at most; an older one is not answered.
const READS_PER_OBSERVER_MAX: usize = 4;
/// Tokens from here on are of observers' questions; the service's count from 1.
const READ_TOKENS: u64 = 1 << 63;

/// What a server does in its ensemble.
pub enum Part {
    /// It votes, or stands alone.
    Voter,
    /// It is fed by one of these.
    Observer(Vec<Candidate>),
}

enum Machine {
    Voter(Box<Consensus>),
    Observer(Box<Observer>),
}

/// See the module's text. Its events, actions and errors are those of [`Consensus`].
pub struct Seat {
    machine: Machine,
    feeds: Feeds,
    leader: (u64, Option<ServerId>),
    conf_state: Vec<u8>,
    /// The tree that is being put in place.
    installing: Option<Position>,
    /// By token: who asked, in which run, under which number.
    reads: BTreeMap<u64, (ServerId, AskRead)>,
    read_tokens: u64,
    actions: VecDeque<Action>,
}

impl Seat {
    /// Open on what was recovered.
    ///
    /// # Errors
    /// When the store is damaged.
    pub fn new(now: Moment, start: Start, part: Part) -> Result<Seat, ConsensusError> {
        let feeds = Feeds::new(start.server_id, start.timers.tick(), start.reader.clone(), start.checkpoint);
        let conf_state = start.conf_state.clone();
        // As consensus begins; it tells what changes.
        let term = start.hard_state.term.max(start.checkpoint.term);
        let machine = match part {
            Part::Voter => Machine::Voter(Box::new(Consensus::new(now, start)?)),
            Part::Observer(others) => Machine::Observer(Box::new(Observer::new(now, start, others)?)),
        };
        let mut seat = Seat {
            machine,
            feeds,
            leader: (term, None),
            conf_state,
            installing: None,
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
                match &event {
                    Event::Peer { from, message: PeerMessage::FeedEnd(end) } => {
                        self.feeds.on_left(*from, end)
                    }
                    Event::Unreachable { server } => self.feeds.on_unreachable(now, *server),
                    Event::Checkpointed { position, .. } => self.feeds.on_checkpoint(*position),
                    Event::Installed { .. } => {
                        if let Some(position) = self.installing.take() {
                            self.feeds.on_checkpoint(position);
                            self.feeds.on_committed(position.index);
                        }
                    }
                    _ => {}
                }
                self.tell(now, event)?;
            }
        }
        self.drain(now)
    }

    fn tell(&mut self, now: Moment, event: Event) -> Result<(), ConsensusError> {
        match (&mut self.machine, event) {
            // The end of a feed that this server had no part in, or that it has ended itself.
            (Machine::Voter(_), Event::Peer { message: PeerMessage::FeedEnd(_), .. }) => Ok(()),
            (Machine::Voter(consensus), event) => consensus.handle(now, event),
            (Machine::Observer(observer), event) => observer.handle(now, event),
        }
    }

    /// What to do next; drain until `None` after each [`Seat::handle`].
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to come back with [`Event::Tick`] at the latest.
    pub fn poll_timeout(&self) -> Moment {
        let own = match &self.machine {
            Machine::Voter(consensus) => consensus.poll_timeout(),
            Machine::Observer(observer) => observer.poll_timeout(),
        };
        self.feeds.next().into_iter().chain([own]).min_by_key(|at| at.us).unwrap_or(own)
    }

    /// As [`Consensus::is_leading`].
    pub fn is_leading(&self) -> bool {
        matches!(&self.machine, Machine::Voter(consensus) if consensus.is_leading())
    }

    /// As [`Consensus::is_alone`]; an observer never is.
    pub fn is_alone(&self) -> bool {
        matches!(&self.machine, Machine::Voter(consensus) if consensus.is_alone())
    }

    /// Does it observe?
    pub fn is_observer(&self) -> bool {
        matches!(&self.machine, Machine::Observer(_))
    }

    /// How it stands.
    pub fn facts(&self) -> Facts {
        let facts = match &self.machine {
            Machine::Voter(consensus) => consensus.facts(),
            Machine::Observer(observer) => {
                let facts = observer.facts();
                match facts.members.servers.is_empty() {
                    true => Facts { voters: voters_of(&self.conf_state), ..facts },
                    false => facts,
                }
            }
        };
        Facts { observers: self.feeds.facts(), ..facts }
    }

    /// The log from here on is still to be sent to an observer; `None` when none is fed.
    pub fn wanted_from(&self) -> Option<u64> {
        self.feeds.wanted_from()
    }

    /// As [`Consensus::take_measures`].
    pub fn take_measures(&mut self) -> Vec<Measure> {
        match &mut self.machine {
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
        while let Some(action) = match &mut self.machine {
            Machine::Voter(consensus) => consensus.poll_action(),
            Machine::Observer(observer) => observer.poll_action(),
        } {
            match action {
                Action::Commit(entries) => {
                    if let Some(last) = entries.last() {
                        self.feeds.on_committed(last.position.index);
                    }
                    self.actions.push_back(Action::Commit(entries));
                }
                Action::Leader { term, leader } => {
                    self.leader = (term, leader);
                    self.actions.push_back(Action::Leader { term, leader });
                }
                Action::ReadAt { index, tokens } => self.on_read_at(index, tokens),
                Action::Install { number, head, hard_state } => {
                    self.installing = Some(Position { index: head.index, term: head.term });
                    self.actions.push_back(Action::Install { number, head, hard_state });
                }
                other => self.actions.push_back(other),
            }
        }
        let source = match &self.machine {
            Machine::Voter(_) => Source { leader: self.leader, path: Vec::new(), fed: true },
            Machine::Observer(observer) => observer.source(),
        };
        self.feeds.set_source(source, &mut self.actions);
        self.feeds.drive(now, &mut self.actions)
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
}
