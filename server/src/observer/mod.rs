//! A server that does not vote: it is told what is committed, applies it, and serves clients like any other.
//!
//! [`Observer`] takes the place of [`Consensus`](crate::consensus::Consensus): the same events, the same actions, so that
//! log, service and connections do not know the difference. It has no part in raft. Some other server, a voter or an
//! observer, streams to it what is committed ([`search`] says who), so that a hundred observers are no burden to the
//! leader. What it was sent goes into its own log, and from there to the service; a restart goes on from there, and
//! whoever it feeds itself gets it from there ([`feeds`]).
//!
//! What its clients write goes to the leader directly, by the same numbered forwarding as a follower's: the feeders in
//! between could only add delay and lose things, and the leader must tell origins apart anyway. So do reports of
//! sessions, whose answers prove that the leader leads, and the question that a `sync` is ([`AskRead`]). An observer
//! that does not reach the leader therefore serves reads only, and lets its clients go in time like any server that is
//! cut off.
//!
//! [`Seat`] is what the driver holds: a voter's consensus or an observer, and beside it the feeds to others.

mod feeds;
mod search;
mod seat;
#[cfg(test)]
mod tests;

pub use feeds::FEEDS_MAX;
pub use search::Candidate;
pub use seat::{Part, Seat, begins_observing};

use crate::consensus::forward::Outbox;
use crate::consensus::passive::{self, Passive};
use crate::consensus::{Action, ConsensusError, Event, Facts, Handed, Role, Start, Submission, server_of};
use crate::entropy::Entropy;
use crate::moment::Moment;
use feeds::{SIGN_TICKS, Source};
use search::{Search, candidates};
use std::collections::VecDeque;
use std::time::Duration;
use warren_storage::log::{HardState, LogReader, LogRecord, RecordKind};
use warren_storage::tree::Position;
use warren_storage::{Entry, Members};
use warren_transport::peer::{
    AnswerRead, AskRead, Feed, FeedEnd, Observe, PeerMessage, RaftKind, RaftMessage, ServerId, WhyNoFeed,
};

/// Bytes of entries that the service was given and has not applied, at most; what is beyond waits in the log.
const UNAPPLIED_BYTES_MAX: usize = 4 << 20;
/// Bytes of entries read from the log at once when a start replays it, unless a single entry is larger.
const REPLAY_BYTES: usize = 1 << 20;
/// A read index that was not answered by then is asked for again.
const READ_RETRY: Duration = Duration::from_millis(200);
/// No term, index or number of an honest server comes near; above, sums could overflow.
const NUMBER_MAX: u64 = 1 << 62;
/// Ticks after which a leader that no feeder speaks of any more is believed no longer.
const LEADERLESS_TICKS: u32 = 100;
/// What an entry costs beside its bytes.
const ENTRY_BYTES: usize = 64;

/// The state machine of an observer.
pub struct Observer {
    server_id: ServerId,
    incarnation: u64,
    tick: Duration,
    reader: LogReader,
    hard_state: HardState,
    outbox: Outbox,
    reads: Reads,
    search: Search,
    /// The last entry that it was sent.
    last: Position,
    /// The last one that is durable.
    durable: u64,
    /// The last one that the service was given.
    committed: Position,
    /// The last one that the service applied.
    applied: u64,
    /// Sent and not given to the service: without gaps, up to `last`. What is older is in the log.
    tail: VecDeque<LogRecord>,
    /// Given to the service and not applied: index and bytes.
    unapplied: VecDeque<(u64, usize)>,
    unapplied_bytes: usize,
    /// Appends that are not durable: their number, and the last index.
    appends: VecDeque<(u64, u64)>,
    appended: u64,
    installing: Option<(u64, Position)>,
    /// As the service was told.
    told: (u64, Option<ServerId>),
    /// When a feeder last said who leads.
    leader_at: Moment,
    /// How the feeder is fed.
    path: Vec<ServerId>,
    passive: Passive,
    members: Members,
    /// What the file says of them.
    found: Option<Members>,
    /// The highest index that is known to be committed.
    known: u64,
    /// Where the feeder should have got to since it was first found to lag; 0: it does not.
    due: u64,
    /// It was said that its log is another one.
    differs: bool,
    /// An acknowledgement is due.
    ack_due: bool,
    /// A gap was seen.
    lost: bool,
    say_at: Moment,
    next_tick: Moment,
    refused: u64,
    /// It is to vote, and takes nothing more.
    closing: bool,
    /// For the day that it votes.
    entropy: Box<dyn Entropy>,
    actions: VecDeque<Action>,
}

/// The read indexes it asks for: one at a time, and what comes meanwhile shares the next.
#[derive(Default)]
struct Reads {
    asked: u64,
    waiting: Vec<u64>,
    under_way: Option<UnderWay>,
}

struct UnderWay {
    /// The first time it was asked: an answer to any of its askings will do.
    since: u64,
    tokens: Vec<u64>,
    retry_at: Moment,
}

impl Observer {
    /// Open on what was recovered. `others` may feed it, unless the table says who is there; of them only those in `fed_by`,
    /// if there are any.
    ///
    /// # Errors
    /// When the log cannot be read.
    ///
    /// # Panics
    /// When the incarnation is 0.
    pub fn new(
        now: Moment,
        start: Start,
        others: Vec<Candidate>,
        fed_by: Vec<ServerId>,
    ) -> Result<Observer, ConsensusError> {
        assert_ne!(start.incarnation, 0, "0 is no run of a server");
        let (others, start) = match start.members.servers.is_empty() {
            true => (others, start),
            false => (candidates(&start.members, start.found.as_ref(), start.server_id), start),
        };
        let Start { reader, checkpoint, hard_state, server_id, timers, .. } = start;
        // Behind what is known to be committed, a log may hold what a former voter never learnt the fate of.
        let committed = hard_state.commit.min(reader.last_index()).max(checkpoint.index);
        let term = match committed == checkpoint.index {
            true => checkpoint.term,
            false => reader.term(committed)?.unwrap_or(checkpoint.term),
        };
        let tick = timers.tick();
        Ok(Observer {
            server_id,
            incarnation: start.incarnation,
            tick,
            reader,
            hard_state: HardState { commit: committed, ..hard_state },
            outbox: Outbox::new(start.incarnation),
            reads: Reads::default(),
            search: Search::new(now, server_id, tick, others, fed_by),
            last: Position { index: committed, term },
            durable: committed,
            committed: checkpoint,
            applied: checkpoint.index,
            tail: VecDeque::new(),
            unapplied: VecDeque::new(),
            unapplied_bytes: 0,
            appends: VecDeque::new(),
            appended: 0,
            installing: None,
            // Not the term in which it may have asked for votes, when it voted: the others may never go there.
            told: (term, None),
            leader_at: now,
            path: Vec::new(),
            passive: Passive::new(&start.conf_state)?,
            members: start.members,
            found: start.found,
            known: committed,
            due: 0,
            differs: false,
            ack_due: false,
            lost: false,
            say_at: now,
            next_tick: now,
            refused: 0,
            closing: false,
            entropy: start.entropy,
            actions: VecDeque::new(),
        })
    }

    /// Take one event. Never waits.
    ///
    /// # Errors
    /// When the log cannot be read: the server must stop.
    pub fn handle(&mut self, now: Moment, event: Event) -> Result<(), ConsensusError> {
        match event {
            Event::Submit(submissions) => {
                for submission in submissions {
                    match submission {
                        Submission::Sync(token) => self.reads.waiting.push(token),
                        // A leader's own business.
                        Submission::NewEpoch | Submission::Mark | Submission::LeaderOnly(_) => {}
                        own => self.outbox.push(now, own),
                    }
                }
            }
            Event::Persisted(number) => self.on_persisted(number),
            Event::Installed { number } => self.on_installed(number),
            Event::Applied(index) => self.on_applied(index),
            Event::Peer { from, message } => self.on_peer(now, from, message),
            Event::Unreachable { server } => self.search.on_unreachable(now, server),
            Event::SnapshotReceived { from, message } => self.on_snapshot(from, &message),
            Event::Members { members, .. } => self.on_members(members),
            Event::Tick => self.on_tick(now),
            Event::ForceQuorum(_) => {
                tracing::error!("an observer has no vote, and cannot be made the only voter");
            }
            // Voters record their stores and ask whether they still vote, stamp rules and hand leadership over; what is
            // sent of checkpoints is the business of the feeds.
            Event::Met { .. }
            | Event::Recorded(_)
            | Event::RefuseGrowth(_)
            | Event::Abstain(_)
            | Event::Transfer { .. }
            | Event::SnapshotSent { .. }
            | Event::Checkpointed { .. } => {}
        }
        self.deliver(now)?;
        self.ask_reads(now);
        self.forward(now);
        self.acknowledge(now);
        Ok(())
    }

    /// What to do next; drain until `None` after each [`Observer::handle`].
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to come back with [`Event::Tick`] at the latest.
    pub fn poll_timeout(&self) -> Moment {
        self.next_tick
    }

    /// It is to vote: nothing more is taken, so that all that it has is applied soon.
    pub(super) fn close(&mut self) {
        self.closing = true;
    }

    /// It is to go on observing.
    pub(super) fn open(&mut self) {
        if std::mem::take(&mut self.closing) {
            // What came meanwhile was not taken.
            (self.lost, self.ack_due) = (true, true);
        }
    }

    /// Is everything that it was sent durable and applied? Then what a voter needs can be taken out of it.
    pub(super) fn is_at_rest(&self) -> bool {
        let applied = self.applied == self.last.index && self.committed == self.last;
        self.appends.is_empty() && self.installing.is_none() && applied
    }

    /// For a voter in its place.
    pub(super) fn hand_on(mut self) -> Handed {
        let mut tokens = std::mem::take(&mut self.reads.waiting);
        tokens.extend(self.reads.under_way.take().into_iter().flat_map(|under_way| under_way.tokens));
        Handed {
            entropy: self.entropy,
            hard_state: self.hard_state,
            committed: self.committed,
            conf_state: self.passive.encoded(),
            outbox: self.outbox,
            tokens,
        }
    }

    /// What a voter had under way, which is an observer from now on.
    pub(super) fn take_over(&mut self, outbox: Outbox, tokens: Vec<u64>) {
        self.outbox = outbox;
        self.outbox.begin_term();
        self.reads.waiting = tokens;
    }

    /// How it stands.
    pub fn facts(&self) -> Facts {
        Facts {
            term: self.told.0,
            leader: self.told.1,
            role: Role::Observing,
            voters: self.passive.voters(),
            members: self.members.clone(),
            changing: false,
            last_index: self.known.max(self.last.index),
            committed: self.last.index,
            persisted: self.durable,
            followers: Vec::new(),
            observers: Vec::new(),
            feeder: self.search.feeder(),
            own: self.outbox.len(),
            pending_syncs: 0,
            foreign_bytes: 0,
            refused: self.refused,
        }
    }

    /// What those are told whom it feeds.
    fn source(&self) -> Source {
        let Some(feeder) = self.search.feeder().filter(|_| self.installing.is_none()) else {
            return Source { leader: self.told, ..Source::default() };
        };
        let path = std::iter::once(feeder).chain(self.path.iter().copied()).collect();
        Source { leader: self.told, path, fed: true }
    }

    /// The tree says who belongs to the ensemble, and so who may feed. Before it does, the configuration does.
    fn on_members(&mut self, members: Members) {
        if !members.servers.is_empty() {
            self.search.set_candidates(candidates(&members, self.found.as_ref(), self.server_id));
        }
        self.members = members;
    }

    // ---- time ----------------------------------------------------------------------------------------------

    fn on_tick(&mut self, now: Moment) {
        if now.us < self.next_tick.us {
            return;
        }
        self.next_tick = now + self.tick;
        let (asked, left) = self.search.on_tick(now, self.told.1);
        if let Some((to, feed)) = left {
            let end = FeedEnd { incarnation: self.incarnation, feed, why: WhyNoFeed::Left };
            self.send(to, PeerMessage::FeedEnd(end));
            tracing::debug!(feeder = to, "is not fed by it any more");
        }
        if asked.is_some() {
            (self.ack_due, self.lost) = (true, false);
        }
        if now.since(self.leader_at) >= self.tick * LEADERLESS_TICKS {
            self.tell_leader(now, (self.told.0, None));
        }
    }

    fn tell_leader(&mut self, now: Moment, told: (u64, Option<ServerId>)) {
        if told == self.told {
            return;
        }
        if told.0 != self.told.0 {
            self.outbox.begin_term();
        }
        self.told = told;
        if let Some(under_way) = self.reads.under_way.as_mut().filter(|_| told.1.is_some()) {
            under_way.retry_at = now;
        }
        self.actions.push_back(Action::Leader { term: told.0, leader: told.1 });
    }

    // ---- what it is fed ------------------------------------------------------------------------------------

    fn on_peer(&mut self, now: Moment, from: ServerId, message: PeerMessage) {
        match message {
            PeerMessage::Feed(feed) if feed.incarnation == self.incarnation => self.on_feed(now, from, feed),
            PeerMessage::FeedEnd(end)
                if (end.incarnation, end.feed) == (self.incarnation, self.search.feed()) =>
            {
                if end.why == WhyNoFeed::Differs && !std::mem::replace(&mut self.differs, true) {
                    tracing::error!(
                        from,
                        index = self.last.index,
                        "this observer's log is not what was committed there; stop it, empty its data folder, and let \
                         it begin anew"
                    );
                }
                self.search.on_end(now, from);
            }
            PeerMessage::AnswerRead(answer) if answer.incarnation == self.incarnation => {
                self.on_read(&answer)
            }
            PeerMessage::ForwardAck(ack) => {
                let current = (ack.term, Some(from)) == self.told;
                if current && !self.outbox.on_ack(now, &ack) {
                    self.refuse(from, "it acknowledges requests that were never sent");
                }
            }
            // Of a former run of this server.
            PeerMessage::Feed(_) | PeerMessage::FeedEnd(_) | PeerMessage::AnswerRead(_) => {}
            // Whoever takes it for a leader learns better from whoever leads.
            PeerMessage::Forward(_) | PeerMessage::AskRead(_) | PeerMessage::Space(_) => {}
            PeerMessage::Raft(message) => self.on_raft(from, &message),
            PeerMessage::Touches(_)
            | PeerMessage::TouchesAck(_)
            | PeerMessage::Compare(_)
            | PeerMessage::Ask(_)
            | PeerMessage::Answer(_)
            | PeerMessage::Observe(_) => self.refuse(from, "it is not for an observer"),
        }
    }

    /// A candidate that counts on this server's vote does not know yet that it was demoted: the entry that says so may be in
    /// the candidate's log, and all who knew that it is committed be gone but this one. The refusal says how far is committed,
    /// so that the candidate goes on from there with the voters that are (raft's `maybe_commit_by_vote`).
    fn on_raft(&mut self, from: ServerId, message: &RaftMessage) {
        let (kind, term) = match message.kind {
            RaftKind::RequestVote => (RaftKind::RequestVoteResponse, message.term),
            // It asks for a term in which it is not yet.
            RaftKind::RequestPreVote => (RaftKind::RequestPreVoteResponse, message.term.saturating_sub(1)),
            // Of a leader that knows already that this server is to vote.
            _ => return,
        };
        let fits = server_of(message.from) == from && server_of(message.to) == self.server_id;
        if term == 0 || message.term > NUMBER_MAX || !fits {
            return self.refuse(from, "it asks for a vote, and contradicts itself");
        }
        let Position { index, term: commit_term } = self.committed;
        let answer = RaftMessage::new(kind, message.to, message.from, term);
        let message = RaftMessage { reject: true, commit: index, commit_term, ..answer };
        self.actions.push_back(Action::Send { to: from, message: PeerMessage::Raft(message) });
    }

    fn refuse(&mut self, from: ServerId, why: &str) {
        self.refused += 1;
        tracing::warn!(from, "a message of a peer is dropped: {why}");
    }

    fn on_feed(&mut self, now: Moment, from: ServerId, feed: Feed) {
        if let Some(why) = contradiction(&feed) {
            return self.refuse(from, why);
        }
        if !self.search.on_feed(now, from, &feed) {
            return;
        }
        self.path.clone_from(&feed.path);
        // It may have led itself before it observed, and its feeder not know better yet.
        let feed = Feed { leader: feed.leader.filter(|leader| *leader != self.server_id), ..feed };
        // An older term than the known one is the word of a server that was left behind.
        if feed.term > self.told.0 || (feed.term == self.told.0 && feed.leader.is_some()) {
            self.tell_leader(now, (feed.term, feed.leader));
            self.leader_at = if feed.leader.is_some() { now } else { self.leader_at };
        }
        let lags = self.is_behind(&feed) || feed.leader.is_none() || feed.term < self.told.0;
        self.search.on_lag(now, lags);
        if self.installing.is_some() || self.closing {
            return;
        }
        if feed.index > self.last.index {
            // It comes again from where this server is.
            (self.lost, self.ack_due) = (true, true);
            return;
        }
        let old = (self.last.index - feed.index) as usize;
        let new: Vec<_> = feed.entries.into_iter().skip(old).collect();
        let Some(first) = new.first() else { return };
        let differs = feed.index == self.last.index && feed.log_term != self.last.term;
        if differs || first.term < self.last.term {
            return self.refuse(from, "its entries do not go on from those that are here");
        }
        self.lost = false;
        let records: Vec<LogRecord> = new
            .into_iter()
            .map(|e| LogRecord {
                index: e.index,
                term: e.term,
                kind: if e.conf_change { RecordKind::ConfChangeV2 } else { RecordKind::Normal },
                data: e.data,
            })
            .collect();
        for record in &records {
            self.last = Position { index: record.index, term: record.term };
            self.tail.push_back(record.clone());
        }
        self.raise();
        self.appended += 1;
        self.appends.push_back((self.appended, self.last.index));
        let hard_state = Some(self.hard_state);
        self.actions.push_back(Action::Append { number: self.appended, records, hard_state });
    }

    /// Does the feeder not get to where others were some time ago? Who is only a moment behind all the time does.
    fn is_behind(&mut self, feed: &Feed) -> bool {
        self.known = self.known.max(feed.commit);
        if feed.commit >= self.due {
            self.due = if feed.commit < self.known { self.known } else { 0 };
            return false;
        }
        true
    }

    /// All that it has is committed. A vote that was given once is kept for its term.
    fn raise(&mut self) {
        if self.last.term > self.hard_state.term {
            (self.hard_state.term, self.hard_state.vote) = (self.last.term, 0);
        }
        self.hard_state.commit = self.last.index;
    }

    fn on_persisted(&mut self, number: u64) {
        while let Some((_, last)) = self.appends.front().copied().filter(|(n, _)| *n <= number) {
            self.appends.pop_front();
            self.durable = self.durable.max(last);
        }
    }

    fn on_applied(&mut self, index: u64) {
        if index <= self.applied || self.installing.is_some() {
            return;
        }
        self.applied = index;
        while let Some((_, bytes)) = self.unapplied.front().copied().filter(|(last, _)| *last <= index) {
            self.unapplied.pop_front();
            self.unapplied_bytes -= bytes;
        }
        self.ack_due = true;
    }

    /// Give the service what is durable, as much as it may have waiting.
    fn deliver(&mut self, now: Moment) -> Result<(), ConsensusError> {
        while self.installing.is_none()
            && self.committed.index < self.durable
            && (self.unapplied_bytes == 0 || self.unapplied_bytes < UNAPPLIED_BYTES_MAX)
        {
            let next = self.committed.index + 1;
            let mut records = Vec::new();
            if self.tail.front().is_some_and(|record| record.index == next) {
                while self.tail.front().is_some_and(|record| record.index <= self.durable) {
                    records.extend(self.tail.pop_front());
                }
            } else {
                // A start replays what its log has and the checkpoint lacks.
                let upto = self.tail.front().map_or(self.durable, |record| record.index - 1);
                records = self.reader.read(next, upto + 1, REPLAY_BYTES)?;
            }
            let mut entries = Vec::with_capacity(records.len());
            for record in records {
                entries.push(self.passive.committed(record)?);
            }
            let Some(last) = entries.last() else { break };
            self.committed = last.position;
            let bytes = entries.iter().map(|entry| ENTRY_BYTES + entry.data.len()).sum();
            self.unapplied.push_back((self.committed.index, bytes));
            self.unapplied_bytes += bytes;
            for entry in &entries {
                self.settle(now, &entry.data);
            }
            self.actions.push_back(Action::Commit(entries));
        }
        Ok(())
    }

    /// Requests of this server that are in a committed entry are done.
    fn settle(&mut self, now: Moment, entry: &[u8]) {
        if entry.is_empty() || self.outbox.len() == 0 {
            return;
        }
        // What cannot be decoded, whoever applies it finds out.
        let Ok(Some(origin)) = Entry::origin(entry) else { return };
        if (origin.server, origin.incarnation) == (self.server_id, self.incarnation) {
            let _ = self.outbox.settle(now, origin.last);
        }
    }

    /// Say how far it is: at once when that changed, and now and then so that it is not forgotten.
    fn acknowledge(&mut self, now: Moment) {
        let Some(to) = self.search.asked() else { return };
        if !self.ack_due && now.us < self.say_at.us {
            return;
        }
        self.ack_due = false;
        self.say_at = now + self.tick * SIGN_TICKS;
        let observe = Observe {
            incarnation: self.incarnation,
            feed: self.search.feed(),
            index: self.last.index,
            term: self.last.term,
            applied: self.applied.min(self.last.index),
            lost: self.lost,
        };
        self.send(to, PeerMessage::Observe(observe));
    }

    // ---- another tree --------------------------------------------------------------------------------------

    fn on_snapshot(&mut self, from: ServerId, message: &RaftMessage) {
        let Some(head) = &message.snapshot else { return };
        // A tree may overtake the first thing that was said: with the number of the feed that was asked for, it is an answer,
        // too. Who is sent one and does not take it waits long for the next.
        let wanted = message.kind == RaftKind::Snapshot
            && self.search.asked() == Some(from)
            && *message.context == self.search.feed().to_le_bytes()
            && head.index > self.last.index
            && head.index <= NUMBER_MAX
            && (1..=NUMBER_MAX).contains(&head.term)
            && self.installing.is_none()
            && !self.closing;
        if !wanted {
            return;
        }
        let Ok(passive) = Passive::new(&head.conf_state) else {
            return self.refuse(from, "its snapshot has no configuration");
        };
        self.passive = passive;
        self.last = Position { index: head.index, term: head.term };
        self.known = self.known.max(head.index);
        self.raise();
        self.tail.clear();
        self.unapplied.clear();
        self.unapplied_bytes = 0;
        self.outbox.give_up();
        self.appended += 1;
        self.installing = Some((self.appended, self.last));
        let hard_state = Some(self.hard_state);
        self.actions.push_back(Action::Install { number: self.appended, head: head.clone(), hard_state });
    }

    fn on_installed(&mut self, number: u64) {
        let Some((expected, position)) = self.installing.take() else {
            panic!("a snapshot is in place that was not asked for");
        };
        assert_eq!(expected, number, "a snapshot is in place that was not asked for");
        self.appends.clear();
        self.durable = position.index;
        self.committed = position;
        self.applied = position.index;
        self.ack_due = true;
    }

    // ---- what it asks of the leader ------------------------------------------------------------------------

    fn forward(&mut self, now: Moment) {
        // What older leaders proposed is known here once an entry of this term is.
        let (term, leader) = self.told;
        let Some(to) = leader.filter(|_| self.committed.term == term) else { return };
        while let Some(forward) = self.outbox.poll_forward(now, term) {
            self.send(to, PeerMessage::Forward(forward));
        }
    }

    fn ask_reads(&mut self, now: Moment) {
        let Some(leader) = self.told.1 else { return };
        match &mut self.reads.under_way {
            Some(under_way) if now.us >= under_way.retry_at.us => under_way.retry_at = now + READ_RETRY,
            None if !self.reads.waiting.is_empty() => {
                self.reads.under_way = Some(UnderWay {
                    since: self.reads.asked + 1,
                    tokens: std::mem::take(&mut self.reads.waiting),
                    retry_at: now + READ_RETRY,
                });
            }
            _ => return,
        }
        self.reads.asked += 1;
        let ask = AskRead { incarnation: self.incarnation, number: self.reads.asked };
        self.send(leader, PeerMessage::AskRead(ask));
    }

    fn on_read(&mut self, answer: &AnswerRead) {
        let asked = self.reads.asked;
        let due = |under_way: &mut UnderWay| (under_way.since..=asked).contains(&answer.number);
        if let Some(UnderWay { tokens, .. }) = self.reads.under_way.take_if(due) {
            self.known = self.known.max(answer.index.min(NUMBER_MAX));
            self.actions.push_back(Action::ReadAt { index: answer.index, tokens });
        }
    }

    fn send(&mut self, to: ServerId, message: PeerMessage) {
        self.actions.push_back(Action::Send { to, message });
    }
}

/// Why a message of a feeder cannot be.
fn contradiction(feed: &Feed) -> Option<&'static str> {
    if [feed.index, feed.log_term, feed.commit, feed.term].iter().any(|n| *n > NUMBER_MAX) {
        return Some("a number in it is out of any range");
    }
    let (mut index, mut term) = (feed.index, feed.log_term);
    for entry in &feed.entries {
        if entry.index != index + 1 || entry.term < term || entry.term == 0 || entry.term > feed.term {
            return Some("its entries do not follow each other");
        }
        if !passive::is_sound(entry.conf_change, &entry.data) {
            return Some("it changes the membership, and says nothing that can be applied");
        }
        (index, term) = (entry.index, entry.term);
    }
    if index > feed.commit && !feed.entries.is_empty() {
        return Some("it has entries that are not committed");
    }
    None
}
