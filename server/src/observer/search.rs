//! By whom an observer is fed: whom it asks, in which order, and when it looks for somebody else.
//!
//! Followers come first, for they are nearest to the source; then other observers; the leader, who has enough to do, last. Among
//! equals each observer has an order of its own, so that they spread. Each server feeds a bounded number and refuses the
//! rest, and so a tree grows by itself. An observer that nobody feeds feeds nobody, and each says by whom it is fed, up to a
//! voter: nobody takes a feeder that it feeds itself, over however many others.

use crate::moment::Moment;
use std::collections::VecDeque;
use std::time::Duration;
use warren_storage::{MemberRole, Members};
use warren_transport::peer::{Feed, ServerId};

/// Ticks that a server has to answer before the next one is asked.
const ASK_TICKS: u32 = 25;
/// Ticks between two rounds of asking everybody.
const ROUND_TICKS: u32 = 25;
/// Ticks of silence after which a feeder is given up.
const SILENCE_TICKS: u32 = 50;
/// Ticks for which a feeder may lag, or know no leader, while another one may do better.
const LAG_TICKS: u32 = 100;
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
    /// The one it left last, which is asked after the others.
    left: Option<ServerId>,
    /// Asked for so far.
    feeds: u64,
    /// The feeder is given up when nothing is heard of it by then.
    silent_at: Moment,
    /// It lags, or knows no leader, since then.
    lags_since: Option<Moment>,
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
            left: None,
            feeds: 0,
            silent_at: now,
            lags_since: None,
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
            self.relieve_at = now + self.tick * RELIEVE_TICKS;
        }
        self.silent_at = now + self.tick * SILENCE_TICKS;
        true
    }

    /// The feeder lags, or does not.
    pub(super) fn on_lag(&mut self, now: Moment, lags: bool) {
        self.lags_since = if lags { self.lags_since.or(Some(now)) } else { None };
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
                let lags = self.lags_since.is_some_and(|since| now.since(since) >= self.tick * LAG_TICKS);
                let relieve = leader == Some(server) && now.us >= self.relieve_at.us;
                if silent || others && (lags || relieve) {
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
            (self.in_round, self.untried) = (true, self.order(leader));
            self.left = None;
        }
        let Some(next) = self.untried.pop_front() else {
            self.in_round = false;
            self.state = State::Resting(now + self.tick * ROUND_TICKS);
            return (None, left);
        };
        self.feeds += 1;
        self.state = State::Asking(next, now + self.tick * ASK_TICKS);
        (Some(next), left)
    }

    /// Everybody, the best first.
    fn order(&self, leader: Option<ServerId>) -> VecDeque<ServerId> {
        let class = |candidate: &Candidate| match candidate.votes {
            _ if leader == Some(candidate.server) => 2,
            true => 0,
            false => 1,
        };
        let mut order: Vec<&Candidate> = self.candidates.iter().collect();
        order.sort_by_key(|candidate| {
            let server = candidate.server;
            (self.left == Some(server), class(candidate), self.rank(server), server)
        });
        order.into_iter().map(|candidate| candidate.server).collect()
    }

    /// An order of this server's own: Fibonacci hashing of both ids.
    fn rank(&self, server: ServerId) -> u64 {
        let pair = u64::from(self.server_id) << 8 | u64::from(server);
        pair.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_right(32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}
