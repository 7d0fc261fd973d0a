//! A leader whose disk is below its reserve, under which nobody's data may grow, gives leadership to a voter that has space.
//!
//! It asks the voters, and hands over while a majority of them has space and one of those is up to date. Where no majority
//! has, it stays and refuses what grows data: under a leader with space the other disks would fill to the last byte, and
//! nothing could be committed any more, deletes neither.

use super::{Consensus, raft_id, server_of};
use crate::moment::Moment;
use std::collections::BTreeMap;
use std::time::Duration;
use warren_transport::peer::{PeerMessage, ServerId, Space as Told};

/// Between two questions of a leader that has no space…
const ASK_EVERY: Duration = Duration::from_millis(500);
/// …whose answers count for so long.
const ANSWER_COUNTS: Duration = Duration::from_secs(2);
/// Leadership is not offered again before this.
const OFFER_AGAIN: Duration = Duration::from_secs(10);

/// What is known of the servers' disks.
#[derive(Default)]
pub(super) struct Space {
    /// This server's is below its reserve.
    low: bool,
    /// As a leader without space: whose are not, and when they said so. At most one for each id.
    with_space: BTreeMap<ServerId, Moment>,
    ask_at: Moment,
    offer_at: Moment,
}

impl Space {
    pub(super) fn new(low: bool) -> Space {
        Space { low, ..Space::default() }
    }
}

impl Consensus {
    /// See [`super::Event::RefuseGrowth`].
    pub(super) fn refuse_growth(&mut self, refuse: bool) {
        self.stamp.refuse_growth(refuse);
        self.space.low = refuse;
    }

    /// A server asks, or answers.
    pub(super) fn on_space(&mut self, now: Moment, from: ServerId, told: Told) {
        if told.asks {
            // Who must not lead is not to be asked to.
            let low = self.space.low || self.abstains;
            self.send(from, PeerMessage::Space(Told { asks: false, low }));
        } else if !self.leading || told.low {
            self.space.with_space.remove(&from);
        } else if self.node.raft.prs().get(raft_id(from, self.roster.disk(from))).is_some() {
            self.space.with_space.insert(from, now);
        }
    }

    pub(super) fn hand_over_if_low(&mut self, now: Moment) {
        if !self.leading || !self.space.low || self.lone {
            self.space.with_space.clear();
            self.space.ask_at = Moment::default();
            return;
        }
        let conf = self.node.raft.prs().conf().to_conf_state();
        let own = self.node.raft.id;
        if now.us >= self.space.ask_at.us {
            self.space.ask_at = now + ASK_EVERY;
            for id in conf.voters.iter().filter(|id| **id != own) {
                self.send(server_of(*id), PeerMessage::Space(Told { asks: true, low: true }));
            }
        }
        // While the configuration changes, whoever leads is busy with that.
        if now.us < self.space.offer_at.us || !conf.voters_outgoing.is_empty() {
            return;
        }
        self.space.with_space.retain(|_, at| now.since(*at) <= ANSWER_COUNTS);
        let has_space = |id: u64| self.space.with_space.contains_key(&server_of(id));
        if conf.voters.iter().filter(|id| has_space(**id)).count() <= conf.voters.len() / 2 {
            return;
        }
        if let Some(id) = self.heir(|id| has_space(id) && self.is_level(now, id)) {
            self.space.offer_at = now + OFFER_AGAIN;
            tracing::warn!(
                to = server_of(id),
                "this server's disk is below its reserve; leadership is handed over to a server that has space"
            );
            self.node.transfer_leader(id);
        }
    }
}
