//! Requests become entries: step ⑦.

use super::forward::Item;
use super::roster::Turn;
use super::stamp::Stamp;
use super::{Consensus, ConsensusError};
use crate::entropy::Entropy;
use crate::moment::Moment;
use raft::eraftpb::{Entry as RaftEntry, Message, MessageType};
use std::time::Duration;
use warren_storage::{Entry, Origin};
use warren_transport::peer::ServerId;

/// Appends handed out and not yet reported durable, at most, for the leader to propose more. Two: while one is synced
/// the next one waits behind it, and what arrives meanwhile gathers into a third.
const APPENDS_IN_FLIGHT_MAX: usize = 2;
/// Rounds of entries that are proposed and not committed, at most, while what waits is little. Each costs every server a
/// sync and messages, whatever it carries: what arrives meanwhile is better off in one round together.
const ROUNDS_IN_FLIGHT: usize = 1;
/// This much is worth a round of its own, bytes: however far away the quorum is, it does not wait.
const ROUND_BYTES: usize = 256 << 10;
/// And nothing waits for the rounds before it longer than this.
const ROUND_WAIT_MAX: Duration = Duration::from_millis(5);
/// Commands in one log entry, at most.
const ENTRY_COMMANDS_MAX: usize = 4_096;
/// Bytes of commands in one log entry, at most, unless a single command is larger.
const ENTRY_BYTES_MAX: usize = 1 << 20;
/// So far a forced quorum raises the epoch: no other server can have begun so many since they lost sight of each other.
const FORCED_EPOCHS: u32 = 1_000;

/// Makes an entry of requests.
struct Packer<'a> {
    now: Moment,
    stamp: &'a mut Stamp,
    entropy: &'a mut dyn Entropy,
}

impl Packer<'_> {
    /// As many of the items as one entry takes, and how many those are. The first has the number `first`; the origin's
    /// `last` is worked out.
    fn pack<'a>(
        &mut self,
        origin: Origin,
        first: u64,
        items: impl Iterator<Item = Item<'a>> + Clone,
    ) -> Option<(RaftEntry, u64)> {
        let (mut count, mut bytes) = (0, 0);
        let mut sessions = Vec::new();
        for item in items.clone() {
            if matches!(item, Item::Reconfigure(_)) {
                break;
            }
            bytes += item.bytes();
            if count > 0 && (bytes > ENTRY_BYTES_MAX || count == ENTRY_COMMANDS_MAX) {
                break;
            }
            if let Item::OpenSession { timeout_ms, request } = item {
                let Origin { server, incarnation, .. } = origin;
                let stamped = self.stamp.open_session(self.entropy, timeout_ms, server, incarnation, request);
                sessions.push(stamped);
            }
            count += 1;
        }
        if count == 0 {
            return None;
        }
        let last = if origin.incarnation == 0 { 0 } else { first + count as u64 - 1 };
        let mut sessions = sessions.iter();
        let commands = items.take(count).map(|item| match item {
            Item::Command(encoded) | Item::Reconfigure(encoded) => encoded,
            Item::OpenSession { .. } => sessions.next().map(Vec::as_slice).expect("each was stamped above"),
        });
        let entry = Entry::Batch {
            origin: Origin { last, ..origin },
            time_ms: self.now.wall_ms,
            rules: self.stamp.rules(),
            commands: commands.collect(),
        };
        Some((entry_of(&entry), count as u64))
    }
}

pub(super) fn entry_of(entry: &Entry<'_>) -> RaftEntry {
    RaftEntry { data: entry.encode().into(), ..RaftEntry::default() }
}

impl Consensus {
    /// Pack what waits into log entries, at most one for each origin at a time, and as many as may be in flight. What
    /// raft does not take stays first in line.
    pub(super) fn propose(&mut self, now: Moment) -> Result<(), ConsensusError> {
        while self.leading
            && self.unsynced.len() < APPENDS_IN_FLIGHT_MAX
            && self.node.raft.lead_transferee.is_none()
            && !self.node.has_ready()
        {
            let first = self.first_entries(now);
            if !first.is_empty() {
                if !self.step_proposal(now, first)? {
                    return Ok(());
                }
                (self.epoch_due, self.mark_due) = (false, false);
                if !self.introductions.is_empty() {
                    self.introductions.clear();
                    self.roster.introduced = self.node.raft.raft_log.last_index();
                }
                self.roster.on_first_proposed();
                continue;
            }
            match self.propose_membership(now)? {
                Turn::Nothing => {}
                Turn::Proposed => continue,
                Turn::Dropped => return Ok(()),
            }
            if self.is_better_later(now) {
                return Ok(());
            }
            // An earlier leader may have proposed the requests that this server has sent out before: whether they
            // survived is known once an entry of this term is committed.
            let own_may = self.knows_the_past() || !self.outbox.is_tried();
            let mut packer = Packer { now, stamp: &mut self.stamp, entropy: self.entropy.as_mut() };
            let mut entries = Vec::new();
            let asked = self.asked_by_timers.iter().map(|encoded| Item::Command(encoded));
            let timers = packer.pack(Origin::timers(self.server_id), 0, asked).map_or(0, |(entry, count)| {
                entries.push(entry);
                count
            });
            let mut own = None;
            if own_may {
                let (first, items) = self.outbox.waiting();
                let origin = Origin { server: self.server_id, incarnation: self.incarnation, last: 0 };
                if let Some((entry, count)) = packer.pack(origin, first, items) {
                    entries.push(entry);
                    own = Some(first + count - 1);
                }
            }
            let mut foreign = Vec::new();
            for (at, run) in self.inbox.runs().iter().enumerate() {
                let Some((first, items)) = run.waiting() else { continue };
                let origin = Origin { server: run.server, incarnation: run.incarnation, last: 0 };
                if let Some((entry, count)) = packer.pack(origin, first, items) {
                    entries.push(entry);
                    foreign.push((at, first + count - 1));
                }
            }
            if entries.is_empty() || !self.step_proposal(now, entries)? {
                return Ok(());
            }
            self.waits_since = None;
            self.asked_by_timers.drain(..timers as usize);
            if let Some(last) = own {
                self.outbox.on_proposed(last);
            }
            for (at, last) in foreign {
                self.inbox.runs()[at].on_proposed(last);
            }
        }
        Ok(())
    }

    /// What comes before any request.
    fn first_entries(&self, now: Moment) -> Vec<RaftEntry> {
        if !self.epoch_due && !self.mark_due && self.introductions.is_empty() && !self.roster.is_due() {
            return Vec::new();
        }
        let time_ms = now.wall_ms;
        let force = self.roster.forced.iter().map(|table| Entry::ForceQuorum {
            time_ms,
            epochs: FORCED_EPOCHS,
            table: table.clone(),
        });
        let epoch = self.epoch_due.then_some(Entry::NewEpoch { time_ms });
        let introduced = |(server, (disk, store_id)): &(ServerId, (u32, u64))| {
            let counts = self.roster.is_recorded(*server) && self.roster.is_of(*server, *disk);
            let disk = self.roster.disk(*server);
            counts.then_some(Entry::Introduce { server: *server, disk, store_id: *store_id })
        };
        let met = self.introductions.iter().filter_map(introduced);
        let conf = self.node.raft.prs().conf().to_conf_state();
        let found = self.roster.to_found(&conf).map(|table| Entry::Found { time_ms, table });
        let mark = self.mark_due.then_some(Entry::Mark);
        force.chain(epoch).chain(met).chain(found).chain(mark).map(|entry| entry_of(&entry)).collect()
    }

    /// Are as many rounds under way as are worth their cost, unless much waits? Never where they cost nobody else anything.
    pub(super) fn has_rounds_enough(&self) -> bool {
        !self.lone && self.watch.rounds() >= ROUNDS_IN_FLIGHT
    }

    /// Are there so few requests that they had better wait for the rounds that are under way?
    fn is_better_later(&mut self, now: Moment) -> bool {
        if !self.has_rounds_enough() {
            return false;
        }
        let own = self.outbox.waiting().1.map(|item| item.bytes());
        let timers = self.asked_by_timers.iter().map(Vec::len);
        let mut bytes = self.inbox.bytes();
        for more in timers.chain(own) {
            if bytes >= ROUND_BYTES {
                return false;
            }
            bytes += more;
        }
        if bytes == 0 || bytes >= ROUND_BYTES {
            return bytes == 0;
        }
        let since = *self.waits_since.get_or_insert(now);
        self.due = Some(since + ROUND_WAIT_MAX).filter(|due| due.us > now.us);
        self.due.is_some()
    }

    /// All of them or none; `false` when raft does not take them now: during a transfer of leadership, or while too much
    /// is not committed.
    pub(super) fn step_proposal(
        &mut self,
        now: Moment,
        entries: Vec<RaftEntry>,
    ) -> Result<bool, ConsensusError> {
        let mut message = Message { from: self.node.raft.id, ..Message::default() };
        message.set_msg_type(MessageType::MsgPropose);
        message.set_entries(entries.into());
        match self.node.raft.step(message) {
            Ok(()) => {
                self.watch.on_proposed(now, self.node.raft.raft_log.last_index());
                Ok(true)
            }
            Err(raft::Error::ProposalDropped) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }
}
