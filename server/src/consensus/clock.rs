//! Time, elections, and who leads.

use super::interface::{Action, Measure};
use super::{Consensus, MEASURES_MAX, server_of};
use crate::moment::Moment;
use raft::StateRole;
use std::collections::VecDeque;
use std::time::Duration;
use warren_transport::peer::ServerId;

/// A leader whose disk has not synced an append for so long hands over: raft 0.7 applies no entry before it is durable
/// here, so its clients would wait.
const SYNC_LAG_MAX: Duration = Duration::from_secs(1);
/// Not again before.
const HAND_OVER_AGAIN: Duration = Duration::from_secs(10);
/// A leader that abstains offers leadership again after this; raft gives an offer up after an election timeout.
const ABSTAIN_AGAIN: Duration = Duration::from_millis(300);
/// It does not lead longer than this, whether anybody takes the offer or not.
const ABSTAINING_LEADS_MAX: Duration = Duration::from_secs(2);

/// The time to the next election, from our own dice.
#[derive(Default)]
pub(super) struct Election {
    /// What it was drawn for: a change of any of these begins the count anew.
    drawn_for: Option<(u64, StateRole, u64)>,
    ticks: usize,
    /// Candidacies since there was a leader.
    candidacies: u32,
    hand_over_again: Moment,
    /// Since when it leads although it abstains.
    abstains_since: Option<Moment>,
}

/// What is measured on the way.
pub(super) struct Watch {
    looking_since: Option<Moment>,
    unavailable_since: Option<Moment>,
    /// Proposed and not committed: the last index of each proposal, and when, in µs.
    proposed: VecDeque<(u64, u64)>,
    measures: Vec<Measure>,
}

impl Watch {
    pub(super) fn new(now: Moment) -> Watch {
        Watch {
            looking_since: Some(now),
            unavailable_since: Some(now),
            proposed: VecDeque::new(),
            measures: vec![Measure::Looking],
        }
    }

    pub(super) fn take(&mut self) -> Vec<Measure> {
        std::mem::take(&mut self.measures)
    }

    fn put(&mut self, measure: Measure) {
        if self.measures.len() < MEASURES_MAX {
            self.measures.push(measure);
        }
    }

    pub(super) fn on_leader(&mut self, now: Moment, leader: Option<ServerId>) {
        self.unavailable_since.get_or_insert(now);
        match (leader, self.looking_since) {
            (Some(_), Some(since)) => {
                self.looking_since = None;
                self.put(Measure::Election(now - since));
            }
            (None, None) => {
                self.looking_since = Some(now);
                self.put(Measure::Looking);
            }
            _ => {}
        }
    }

    pub(super) fn on_available(&mut self, now: Moment) {
        if let Some(since) = self.unavailable_since.take() {
            self.put(Measure::Unavailable(now - since));
        }
    }

    pub(super) fn on_proposed(&mut self, now: Moment, last: u64) {
        self.proposed.push_back((last, now.us));
    }

    /// Rounds of proposals that are not committed.
    pub(super) fn rounds(&self) -> usize {
        self.proposed.len()
    }

    pub(super) fn on_committed(&mut self, now: Moment, last: u64) {
        while let Some((_, us)) = self.proposed.front().copied().filter(|(index, _)| *index <= last) {
            self.proposed.pop_front();
            self.put(Measure::QuorumAck(Duration::from_micros(now.us.saturating_sub(us))));
        }
    }

    pub(super) fn on_settled(&mut self, now: Moment, taken_us: u64) {
        self.put(Measure::Proposal(Duration::from_micros(now.us.saturating_sub(taken_us))));
    }

    pub(super) fn on_stall(&mut self, late: Duration) {
        self.put(Measure::Stall(late));
    }

    pub(super) fn on_leadership_lost(&mut self) {
        self.proposed.clear();
    }
}

impl Consensus {
    /// A late wake-up counts one tick, whatever the clock says: a process that was stopped must not start an
    /// election on waking.
    pub(super) fn on_tick(&mut self, now: Moment) {
        if now.us < self.next_tick.us {
            return;
        }
        let late = now.since(self.next_tick);
        if late >= self.timers.election() / 2 {
            self.watch.on_stall(late);
        }
        self.next_tick = now + self.timers.tick();
        let raft = &self.node.raft;
        let campaigns = raft.state != StateRole::Leader
            && raft.election_elapsed + 1 >= raft.randomized_election_timeout();
        if campaigns && self.abstains {
            // It forgets the leader that is silent, so that it may vote for another, and waits for that one.
            let term = raft.term;
            self.node.raft.become_follower(term, 0);
            self.draw_election_timeout();
        } else if !campaigns || self.unsynced.is_empty() {
            // No campaign while syncs are outstanding.
            self.node.tick();
            self.draw_election_timeout();
        }
        self.hand_over_if_slow(now);
        self.hand_over_if_abstaining(now);
        self.hand_over_if_low(now);
        self.tell_of_streams(now);
    }

    /// raft rolls its own dice in every reset of its timer; ours, which the seed decides, come after it.
    ///
    /// Who has not won asks again sooner than raft would: an asking before the vote ([`StateRole::PreCandidate`]) changes
    /// nothing anywhere and fails when a peer heard the dead leader a moment later; a first vote that was split is
    /// soon repeated. A vote after that waits its full time: the disks or the network may be slower than we think.
    pub(super) fn draw_election_timeout(&mut self) {
        let raft = &mut self.node.raft;
        let now_for = (raft.term, raft.state, raft.leader_id);
        let least = raft.election_timeout();
        let asks_again = raft.state == StateRole::PreCandidate && raft.election_elapsed == 0;
        if self.election.drawn_for != Some(now_for) || asks_again {
            self.election.drawn_for = Some(now_for);
            let most = least as u64;
            self.election.ticks = least + (self.entropy.next_u64() % most) as usize;
            let wait = match raft.state {
                StateRole::PreCandidate => Some(1 + self.entropy.next_u64() % (most / 2).max(1)),
                StateRole::Candidate => {
                    self.election.candidacies += 1;
                    let soon = self.election.candidacies == 1;
                    soon.then(|| most / 2 + 1 + self.entropy.next_u64() % (most / 2).max(1))
                }
                StateRole::Follower | StateRole::Leader => None,
            };
            if let Some(wait) = wait {
                raft.election_elapsed = self.election.ticks.saturating_sub(wait as usize);
            }
            if raft.leader_id != 0 {
                self.election.candidacies = 0;
            }
        }
        raft.set_randomized_election_timeout(self.election.ticks);
    }

    /// Give leadership to the voter that has most of the log, or to a given one. raft takes no proposals meanwhile, and
    /// gives up after an election timeout.
    pub(super) fn transfer(&mut self, to: Option<ServerId>) {
        if !self.leading {
            return;
        }
        if let Some(id) = self.heir(|id| to.is_none_or(|to| server_of(id) == to)) {
            self.node.transfer_leader(id);
        }
    }

    /// Of the other voters that may: who was heard lately, and has most of the log.
    pub(super) fn heir(&self, may: impl Fn(u64) -> bool) -> Option<u64> {
        let raft = &self.node.raft;
        // While the configuration changes, those that stay.
        let voters = raft.prs().conf().to_conf_state().voters;
        let others = raft.prs().iter().filter(|(id, _)| **id != raft.id && voters.contains(id) && may(**id));
        others.max_by_key(|(id, p)| (p.recent_active, p.matched, std::cmp::Reverse(**id))).map(|(id, _)| *id)
    }

    fn hand_over_if_slow(&mut self, now: Moment) {
        let slow = self.unsynced.since().is_some_and(|since| now.since(since) > SYNC_LAG_MAX);
        if slow && self.leading && now.us >= self.election.hand_over_again.us && self.has_follower_in_time() {
            self.election.hand_over_again = now + HAND_OVER_AGAIN;
            tracing::warn!("this server's disk lags; leadership is handed over");
            self.transfer(None);
        }
    }

    /// See [`super::Event::Abstain`].
    pub(super) fn abstain(&mut self, now: Moment, abstains: bool) {
        self.abstains = abstains;
        if abstains {
            self.unsynced.do_not_campaign();
            self.election.hand_over_again = now;
            self.hand_over_if_abstaining(now);
        }
    }

    fn hand_over_if_abstaining(&mut self, now: Moment) {
        if !self.abstains || !self.leading {
            self.election.abstains_since = None;
            return;
        }
        let since = *self.election.abstains_since.get_or_insert(now);
        if now.since(since) >= ABSTAINING_LEADS_MAX {
            tracing::warn!("nobody took leadership over from this server, which gives it up");
            let term = self.node.raft.term;
            self.node.raft.become_follower(term, 0);
            self.draw_election_timeout();
        } else if now.us >= self.election.hand_over_again.us {
            self.election.hand_over_again = now + ABSTAIN_AGAIN;
            self.transfer(None);
        }
    }

    /// Has another voter everything?
    fn has_follower_in_time(&self) -> bool {
        let raft = &self.node.raft;
        let last = raft.raft_log.last_index();
        raft.prs().iter().any(|(id, p)| *id != raft.id && p.recent_active && p.matched == last)
    }

    /// Tell what changed of term, leader and leadership.
    pub(super) fn tell_leader(&mut self, now: Moment) {
        let raft = &self.node.raft;
        let leader = Some(server_of(raft.leader_id)).filter(|id| *id != 0);
        let leads = raft.state == StateRole::Leader;
        let raft_last = raft.pending_conf_index;
        let told = (raft.term, leader);
        if told != self.told {
            if told.0 != self.told.0 {
                self.outbox.begin_term();
            }
            self.told = told;
            self.watch.on_leader(now, leader);
            if leader.is_some() {
                self.reads.hurry(now);
            }
            self.actions.push_back(Action::Leader { term: told.0, leader });
        }
        if leads != self.leading {
            self.leading = leads;
            // The first entry of a leader: nothing that it takes is applied before its epoch begins.
            self.epoch_due = leads;
            self.mark_due = false;
            self.inbox.clear();
            self.asked_by_timers.clear();
            self.introductions.clear();
            self.roster.on_lead(leads, raft_last);
            if leads {
                self.introductions.extend(self.stores.iter().map(|(server, store)| (*server, *store)));
            }
            self.watch.on_leadership_lost();
            self.waits_since = None;
            self.actions.push_back(Action::Lead(leads));
        }
    }
}
