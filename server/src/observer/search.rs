//! By whom an observer is fed: whom it asks, in which order, and when it looks for somebody else.
//!
//! Followers come first, for they are nearest to the source; then other observers; the leader, who has enough to do, last. Among
//! equals each observer has an order of its own, so that they spread; and it asks a few observers only, and then a few others, ever
//! more slowly, for when all are hungry there is nobody to find, and each may have to be linked up with first. Each server feeds
//! a bounded number and refuses the rest, and so a tree grows by itself. An observer that nobody feeds feeds nobody, and each
//! says by whom it is fed, up to a voter: nobody takes a feeder that it feeds itself, over however many others.

use crate::moment::Moment;
use std::collections::VecDeque;
use std::time::Duration;
use warren_storage::{MemberRole, Members};
use warren_transport::peer::{Feed, ServerId};

/// Ticks that a voter has to answer before the next one is asked.
const ASK_TICKS: u32 = 25;
/// The same of an observer, to which there may have to be made a link first.
const ASK_OBSERVER_TICKS: u32 = 100;
/// Observers asked in one round, at most; the next round goes on behind them. When all are hungry, each asks few.
const OBSERVERS_ASKED_MAX: usize = 4;
/// Ticks between two rounds in which observers are asked, at most: doubled by each that leads to nothing that lasts.
const OBSERVERS_ROUND_TICKS_MAX: u32 = 400;
/// Ticks for which a feed has lasted.
const LASTING_TICKS: u32 = 500;
/// Ticks between two rounds of asking everybody.
const ROUND_TICKS: u32 = 25;
/// Ticks of silence after which a feeder is given up.
const SILENCE_TICKS: u32 = 50;
/// Ticks for which a feeder may lag, or know no leader, while another one may do better.
const LAG_TICKS: u32 = 100;
/// The same, at most: doubled by each feeder that was left for it in vain, for there may be no better one.
const LAG_TICKS_MAX: u32 = 1_600;
/// Ticks after which an observer that the leader feeds asks whether somebody else does.
const RELIEVE_TICKS: u32 = 1_500;

/// Another server, as one that may feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its id.
    pub server: ServerId,
    /// Does it vote?
    pub votes: bool,
}

/// The servers that may feed this one: those of its table, and those that its file names beside, for all in the table may be
/// gone.
pub(super) fn candidates(members: &Members, found: Option<&Members>, server_id: ServerId) -> Vec<Candidate> {
    let beside = found.into_iter().flat_map(|found| &found.servers);
    let beside = beside.filter(|member| members.get(member.id).is_none());
    let others = members.servers.iter().chain(beside).filter(|member| member.id != server_id);
    others.map(|member| Candidate { server: member.id, votes: member.role != MemberRole::Observer }).collect()
}

/// Where the search stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Until then it rests.
    Resting(Moment),
    /// Asked this one, which has until then to answer.
    Asking(ServerId, Moment),
    /// Fed by this one.
    Fed(ServerId),
}

/// See the module's text.
pub(super) struct Search {
    server_id: ServerId,
    tick: Duration,
    candidates: Vec<Candidate>,
    /// Nobody else; empty: everybody.
    fed_by: Vec<ServerId>,
    state: State,
    /// Not asked yet in this round.
    untried: VecDeque<ServerId>,
    /// A round has begun.
    in_round: bool,
    /// Observers asked in vain so far, in their order: where the next round goes on.
    passed: usize,
    /// They are not asked again before…
    observers_at: Moment,
    /// …and so many ticks after the time after.
    observers_ticks: u32,
    fed_since: Moment,
    /// Who fed it last, and may be asked again.
    former: Option<ServerId>,
    /// The one it left last, which is asked after the others.
    left: Option<ServerId>,
    /// Asked for so far.
    feeds: u64,
    /// The feeder is given up when nothing is heard of it by then.
    silent_at: Moment,
    /// It lags, or knows no leader, since then.
    lags_since: Option<Moment>,
    /// For so many ticks it may.
    lag_ticks: u32,
    /// When the leader should be spared.
    relieve_at: Moment,
}

impl Search {
    pub(super) fn new(
        now: Moment,
        server_id: ServerId,
        tick: Duration,
        candidates: Vec<Candidate>,
        fed_by: Vec<ServerId>,
    ) -> Search {
        let mut search = Search {
            server_id,
            tick,
            candidates: Vec::new(),
            fed_by,
            state: State::Resting(now),
            untried: VecDeque::new(),
            in_round: false,
            passed: 0,
            observers_at: now,
            observers_ticks: ROUND_TICKS,
            fed_since: now,
            former: None,
            left: None,
            feeds: 0,
            silent_at: now,
            lags_since: None,
            lag_ticks: LAG_TICKS,
            relieve_at: now,
        };
        search.set_candidates(candidates);
        search
    }

    /// Who may feed has changed.
    pub(super) fn set_candidates(&mut self, candidates: Vec<Candidate>) {
        self.candidates = candidates;
        if !self.fed_by.is_empty() {
            let fed_by = &self.fed_by;
            self.candidates.retain(|candidate| fed_by.contains(&candidate.server));
        }
    }

    /// Who feeds it.
    pub(super) fn feeder(&self) -> Option<ServerId> {
        match self.state {
            State::Fed(server) => Some(server),
            _ => None,
        }
    }

    /// Who feeds it, or may be about to.
    pub(super) fn asked(&self) -> Option<ServerId> {
        match self.state {
            State::Fed(server) | State::Asking(server, _) => Some(server),
            State::Resting(_) => None,
        }
    }

    /// The number of the feed that it has or asks for.
    pub(super) fn feed(&self) -> u64 {
        self.feeds
    }

    /// This feed has something to say. `false`: it is not the one that is wanted, or not any more.
    pub(super) fn on_feed(&mut self, now: Moment, from: ServerId, feed: &Feed) -> bool {
        if self.asked() != Some(from) || feed.feed != self.feeds {
            return false;
        }
        if feed.path.contains(&self.server_id) {
            // Round in a circle, which two that asked each other can make.
            self.leave(now, from);
            return false;
        }
        if let State::Asking(..) = self.state {
            self.state = State::Fed(from);
            (self.in_round, self.untried) = (false, VecDeque::new());
            self.lags_since = None;
            self.fed_since = now;
            self.relieve_at = now + self.tick * RELIEVE_TICKS;
        }
        self.silent_at = now + self.tick * SILENCE_TICKS;
        true
    }

    /// The feeder lags, or does not.
    pub(super) fn on_lag(&mut self, now: Moment, lags: bool) {
        self.lags_since = if lags { self.lags_since.or(Some(now)) } else { None };
        if !lags {
            self.lag_ticks = LAG_TICKS;
        }
    }

    /// The one that was asked does not feed, or does no longer.
    pub(super) fn on_end(&mut self, now: Moment, from: ServerId) {
        if self.asked() == Some(from) {
            self.leave(now, from);
        }
    }

    /// Something that was sent to this one is lost.
    pub(super) fn on_unreachable(&mut self, now: Moment, server: ServerId) {
        match self.state {
            State::Asking(asked, _) if asked == server => self.leave(now, server),
            // A link may be down for a moment only.
            State::Fed(feeder) if feeder == server => {
                let soon = now + self.tick * ASK_TICKS;
                if soon.us < self.silent_at.us {
                    self.silent_at = soon;
                }
            }
            _ => {}
        }
    }

    fn leave(&mut self, now: Moment, server: ServerId) {
        if self.feeder() == Some(server) {
            self.former = Some(server);
            if now.since(self.fed_since) >= self.tick * LASTING_TICKS {
                self.observers_ticks = ROUND_TICKS;
            }
        }
        self.left = Some(server);
        self.state = State::Resting(now);
    }

    /// Time has passed. Returns whom to ask now, and whom to tell that it is left, with the number of its feed.
    pub(super) fn on_tick(
        &mut self,
        now: Moment,
        leader: Option<ServerId>,
    ) -> (Option<ServerId>, Option<(ServerId, u64)>) {
        let mut left = None;
        match self.state {
            State::Asking(server, until) if now.us >= until.us => {
                left = Some((server, self.feeds));
                self.leave(now, server);
            }
            State::Fed(server) => {
                let silent = now.us >= self.silent_at.us;
                let others = self.candidates.len() > 1;
                let lags =
                    self.lags_since.is_some_and(|since| now.since(since) >= self.tick * self.lag_ticks);
                let relieve = leader == Some(server) && now.us >= self.relieve_at.us;
                if silent || others && (lags || relieve) {
                    if lags {
                        self.lag_ticks = (self.lag_ticks * 2).min(LAG_TICKS_MAX);
                    }
                    left = Some((server, self.feeds));
                    self.leave(now, server);
                }
            }
            _ => {}
        }
        let State::Resting(until) = self.state else { return (None, left) };
        if now.us < until.us {
            return (None, left);
        }
        if !self.in_round {
            (self.in_round, self.untried) = (true, self.order(now, leader));
            self.left = None;
        }
        let Some(next) = self.untried.pop_front() else {
            self.in_round = false;
            self.state = State::Resting(now + self.tick * ROUND_TICKS);
            return (None, left);
        };
        self.feeds += 1;
        let votes = self.candidates.iter().any(|candidate| candidate.server == next && candidate.votes);
        let ticks = if votes { ASK_TICKS } else { ASK_OBSERVER_TICKS };
        self.state = State::Asking(next, now + self.tick * ticks);
        (Some(next), left)
    }

    /// Those that vote, and some of the others, the best first.
    fn order(&mut self, now: Moment, leader: Option<ServerId>) -> VecDeque<ServerId> {
        let class = |candidate: &Candidate| match candidate.votes {
            _ if leader == Some(candidate.server) => 2,
            true => 0,
            false => 1,
        };
        let asked = self.some_observers(now);
        let (left, former) = (self.left, self.former.take());
        let is_asked = |candidate: &&Candidate| {
            candidate.votes || former == Some(candidate.server) || asked.contains(&candidate.server)
        };
        let mut order: Vec<&Candidate> = self.candidates.iter().filter(is_asked).collect();
        order.sort_by_key(|candidate| {
            let server = candidate.server;
            (left == Some(server), class(candidate), self.rank(server), server)
        });
        order.into_iter().map(|candidate| candidate.server).collect()
    }

    /// The observers that are asked in this round.
    fn some_observers(&mut self, now: Moment) -> Vec<ServerId> {
        if now.us < self.observers_at.us {
            return Vec::new();
        }
        let observers = self.candidates.iter().filter(|candidate| !candidate.votes);
        let mut observers: Vec<ServerId> = observers.map(|candidate| candidate.server).collect();
        observers.sort_by_key(|server| (self.rank(*server), *server));
        if observers.len() > OBSERVERS_ASKED_MAX {
            let passed = self.passed % observers.len();
            observers.rotate_left(passed);
            observers.truncate(OBSERVERS_ASKED_MAX);
            self.passed += OBSERVERS_ASKED_MAX;
            self.observers_at = now + self.tick * self.observers_ticks;
            self.observers_ticks = (self.observers_ticks * 2).min(OBSERVERS_ROUND_TICKS_MAX);
        }
        observers
    }

    /// An order of this server's own: Fibonacci hashing of both ids.
    fn rank(&self, server: ServerId) -> u64 {
        let pair = u64::from(self.server_id) << 8 | u64::from(server);
        pair.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_right(32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}
