//! Who belongs to the ensemble: changes of it, decided by the leader and carried out by raft.
//!
//! A change is a request like any other, and an entry of its own. Where it changes who votes or learns, that entry is also a
//! change of raft's configuration, with the request inside: a single voter or learner at once, more of them (and the
//! leader's own leaving) through a joint configuration, which whoever leads then leaves.
//!
//! ```text
//!  request ─▶ decide ──▶ entry: change of raft's configuration ─▶ committed, commit durable ─▶ raft goes by it
//!                │                └ or an ordinary one                         └▶ applied: table, /zookeeper/config
//!                └ refused: an ordinary entry with the reason
//! ```

use super::forward::Item;
use super::propose::entry_of;
use super::{Consensus, ConsensusError, disk_of, encode_conf, raft_id, server_of};
use crate::config::VOTERS_MAX;
use crate::membership::{self, Refusal};
use crate::moment::Moment;
use bytes::Bytes;
use protobuf::Message as _;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState, Entry as RaftEntry,
    EntryType,
};
use raft::{ProgressState, StateRole};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use warren_storage::{
    Change, Code, Command, Decided, Entry, Logged, Member, MemberRole, Members, Origin, Table,
};
use warren_transport::peer::ServerId;

/// Who is to vote may be behind the leader by so many entries, at most.
const LEVEL_ENTRIES: u64 = 256;
/// A leader that must go gives the others this time to apply the change, as who has not does not campaign…
const LEAVE_AFTER: Duration = Duration::from_millis(50);
/// …and tries again after this one. raft gives a hand-over up after an election timeout.
const LEAVE_AGAIN: Duration = Duration::from_millis(300);
/// Changes in one change of raft's configuration, at most: all voters go, and as many come.
pub(super) const CHANGES_MAX: usize = 2 * VOTERS_MAX;

/// What consensus knows of the membership beside raft's configuration.
pub(super) struct Roster {
    /// As of what is applied.
    members: Members,
    retired: BTreeMap<ServerId, u32>,
    found: Option<Members>,
    /// As the leader of an ensemble that is not founded.
    found_due: bool,
    /// What an operator wants this server to be alone with, until it is proposed.
    pub(super) forced: Option<Table>,
    /// Changes of raft's configuration up to here were given up by force.
    given_up: u64,
    /// As the leader: the last entry before its own. What stands there may be changes of older leaders.
    begin: u64,
    /// As the leader: the last change that was proposed.
    proposed: u64,
    /// As the leader: the stores that it has heard of stand in the log up to here.
    pub(super) introduced: u64,
    /// When each other server of raft's configuration said something last.
    heard: BTreeMap<u64, Moment>,
    /// Who says now that it has another store than it said first: it was emptied. At most one for each id.
    emptied: BTreeSet<ServerId>,
    leave_again: Moment,
}

/// What became of an attempt to propose.
pub(super) enum Turn {
    Nothing,
    Proposed,
    /// raft does not take it now.
    Dropped,
}

impl Roster {
    pub(super) fn new(members: Members, retired: BTreeMap<ServerId, u32>, found: Option<Members>) -> Roster {
        Roster {
            members,
            retired,
            found,
            found_due: false,
            forced: None,
            given_up: 0,
            begin: 0,
            proposed: 0,
            introduced: 0,
            heard: BTreeMap::new(),
            emptied: BTreeSet::new(),
            leave_again: Moment::default(),
        }
    }

    pub(super) fn members(&self) -> &Members {
        &self.members
    }

    /// Which of its disks a server has; the first while nothing is known of it.
    pub(super) fn disk(&self, server: ServerId) -> u32 {
        self.members.get(server).map_or(1, |member| member.disk)
    }

    /// Is what was said of this disk (0 by who did not know it) said of the disk that the server has?
    pub(super) fn is_of(&self, server: ServerId, disk: u32) -> bool {
        disk == 0 || disk == self.disk(server)
    }

    /// A server says with which store it takes part: with the one that was heard of first, or not.
    pub(super) fn note_store(&mut self, server: ServerId, differs: bool) {
        match differs {
            true => self.emptied.insert(server),
            false => self.emptied.remove(&server),
        };
    }

    /// Does the file name it?
    pub(super) fn is_found(&self, server: ServerId) -> bool {
        self.found.as_ref().is_some_and(|found| found.get(server).is_some())
    }

    /// Does it vote, or is it to, as far as is known? Of others no store is recorded: they have nothing to lose, and may come
    /// with another one when they are to vote.
    pub(super) fn is_recorded(&self, server: ServerId) -> bool {
        match self.members.servers.is_empty() {
            true => self.found.as_ref().and_then(|found| found.get(server)).is_none_or(votes),
            false => self.members.get(server).is_some_and(votes),
        }
    }

    /// Is it the identity of a server that left, or of a disk that was replaced?
    pub(super) fn is_former(&self, id: u64) -> bool {
        let (server, disk) = (server_of(id), disk_of(id));
        match self.members.get(server) {
            Some(member) => member.disk > disk,
            None => self.retired.get(&server).is_some_and(|last| *last >= disk),
        }
    }

    /// Has it something that comes before any request?
    pub(super) fn is_due(&self) -> bool {
        self.found_due && self.found.is_some() || self.forced.is_some()
    }

    /// What to write down first, when the ensemble is not founded: of the servers that were to found it those that raft's
    /// configuration has. Where one server began alone, the others are still to be added.
    pub(super) fn to_found(&self, conf: &ConfState) -> Option<Table> {
        let mut members = self.found.clone().filter(|_| self.found_due)?;
        let votes = |m: &Member| conf.voters.contains(&raft_id(m.id, m.disk));
        members.servers.retain(|m| m.role == MemberRole::Observer || votes(m));
        Some(table_of(members))
    }

    pub(super) fn on_first_proposed(&mut self) {
        self.found_due = false;
        self.forced = None;
    }

    /// Leadership was won (behind this entry) or lost.
    pub(super) fn on_lead(&mut self, leads: bool, last_index: u64) {
        self.found_due = leads && self.members.servers.is_empty();
        (self.begin, self.proposed, self.introduced) = (last_index, 0, 0);
        self.heard.clear();
        self.leave_again = Moment::default();
    }

    pub(super) fn hear(&mut self, now: Moment, from: u64) {
        self.heard.insert(from, now);
    }

    /// As the leader: within this time?
    pub(super) fn was_heard(&self, now: Moment, id: u64, within: Duration) -> bool {
        self.heard.get(&id).is_some_and(|heard| now.since(*heard) <= within)
    }
}

/// Does it vote, or is it to?
fn votes(member: &Member) -> bool {
    member.role != MemberRole::Observer
}

/// Is what was heard of the store of a server in this table nothing that counts in the next one? It is of another disk, or
/// of a time when the server had nothing to lose.
pub(crate) fn is_another(former: Option<&Member>, next: Option<&Member>) -> bool {
    let store_of = |member: Option<&Member>| member.filter(|member| votes(member)).map(|member| member.disk);
    store_of(former) != store_of(next)
}

/// With what `/zookeeper/config` says of them.
pub fn table_of(members: Members) -> Table {
    let text = membership::text(&members);
    let lines = text.rfind("version=").map_or("", |end| &text[..end]).to_owned();
    Table { members, lines }
}

impl Consensus {
    pub(super) fn on_members(&mut self, members: Members, retired: BTreeMap<ServerId, u32>) {
        let former = std::mem::replace(&mut self.roster.members, members);
        self.roster.retired = retired;
        // What was heard of a store is of the disk that the server had then.
        let members = &self.roster.members;
        let goes_on = |id: ServerId| match former.servers.is_empty() {
            true => members.get(id).is_some_and(votes),
            false => !is_another(former.get(id), members.get(id)),
        };
        self.stores.retain(|id, _| goes_on(*id));
        self.roster.emptied.retain(|id| self.stores.contains_key(id));
        self.introductions.retain(|(id, _)| goes_on(*id));
        self.roster.found_due &= self.roster.members.servers.is_empty();
    }

    pub(super) fn on_force(&mut self, table: Table) {
        tracing::error!(
            "this server is made the only voter by force; what the others acknowledged and this one lacks is lost"
        );
        self.roster.forced = Some(table);
    }

    /// Carry a force out, once nothing is on its way to the disk: no campaign while syncs are outstanding.
    pub(super) fn force_if_due(&mut self) -> Result<(), ConsensusError> {
        let raft = &mut self.node.raft;
        if self.roster.forced.is_none()
            || self.lone
            || !self.unsynced.is_empty()
            || !self.held_back.is_empty()
            || self.installing.is_some()
        {
            return Ok(());
        }
        self.roster.given_up = raft.raft_log.last_index();
        raft.become_follower(raft.term, 0);
        self.be_only(&[self.node.raft.id])?;
        self.node.campaign()?;
        self.draw_election_timeout();
        Ok(())
    }

    /// Propose what is due of the membership: leave a joint configuration, let those vote who have caught up, decide what is
    /// asked for.
    pub(super) fn propose_membership(&mut self, now: Moment) -> Result<Turn, ConsensusError> {
        let applied = self.node.raft.raft_log.applied();
        if self.abstains {
            // It would judge by a table that may be wrong. Whoever leads next decides what waits.
            return Ok(Turn::Nothing);
        }
        if !self.knows_the_past() || applied < self.roster.begin || self.roster.members.servers.is_empty() {
            return self.refuse_alone(now);
        }
        let running = self.node.raft.has_pending_conf() || applied < self.roster.proposed;
        let conf = self.node.raft.prs().conf().to_conf_state();
        let joint = !conf.voters_outgoing.is_empty();
        if joint && !running {
            return self.leave_joint(now, &conf);
        }
        // One that is emptied before its store is recorded would come as new.
        if !joint && !running && applied >= self.roster.introduced {
            if let Some(id) = self.level_joiner(now) {
                let change = Change::Promote { id };
                if let (decided @ Decided::Made(_), conf_change) = self.decide(now, &change, None) {
                    let command = Command::Reconfigure { asker: None, change, decided: Some(decided) };
                    let logged = Logged { tag: None, ids: Vec::new(), command };
                    return self.step_change(now, Origin::timers(self.server_id), &logged, conf_change);
                }
            }
        }
        self.propose_asked(now, running || joint)
    }

    /// Before there is a table nothing can change; where there will be none, it is said so.
    fn refuse_alone(&mut self, now: Moment) -> Result<Turn, ConsensusError> {
        match self.roster.members.servers.is_empty() && self.roster.found.is_none() {
            true => self.propose_asked(now, false),
            false => Ok(Turn::Nothing),
        }
    }

    /// The first change that is first in a line.
    fn propose_asked(&mut self, now: Moment, busy: bool) -> Result<Turn, ConsensusError> {
        let own = Origin { server: self.server_id, incarnation: self.incarnation, last: 0 };
        let mut asked: Option<(Option<usize>, Origin, Vec<u8>)> = None;
        if self.knows_the_past() || !self.outbox.is_tried() {
            let (first, mut items) = self.outbox.waiting();
            if let Some(Item::Reconfigure(encoded)) = items.next() {
                asked = Some((None, Origin { last: first, ..own }, encoded.to_vec()));
            }
        }
        for (at, run) in self.inbox.runs().iter().enumerate() {
            if asked.is_some() {
                break;
            }
            let Some((last, mut items)) = run.waiting() else { continue };
            if let Some(Item::Reconfigure(encoded)) = items.next() {
                let origin = Origin { server: run.server, incarnation: run.incarnation, last };
                asked = Some((Some(at), origin, encoded.to_vec()));
            }
        }
        let Some((run, origin, encoded)) = asked else { return Ok(Turn::Nothing) };
        let mut logged = Logged::decode(&encoded).expect("what is asked for was decoded when it came");
        let Command::Reconfigure { change, decided, .. } = &mut logged.command else {
            unreachable!("what is asked for was looked at when it came");
        };
        let mut conf_change = None;
        if decided.is_none() {
            let made = match busy {
                true => (Decided::Refused(Code::ReconfigInProgress), None),
                false => self.decide(now, change, Some(origin.server)),
            };
            (*decided, conf_change) = (Some(made.0), made.1);
        }
        let turn = self.step_change(now, origin, &logged, conf_change)?;
        if let Turn::Proposed = turn {
            match run {
                None => self.outbox.on_proposed(origin.last),
                Some(at) => self.inbox.runs()[at].on_proposed(origin.last),
            }
        }
        Ok(turn)
    }

    /// Judge a change, and say what raft has to do for it.
    fn decide(&self, now: Moment, change: &Change, by: Option<ServerId>) -> (Decided, Option<ConfChangeV2>) {
        let made = match self.roster.members.servers.is_empty() {
            true => Err(Refusal::Standalone),
            false => membership::change(&self.roster.members, change),
        };
        let made = made.and_then(|mut next| {
            for member in &mut next.servers {
                // An id that was in use before comes back with another disk than it had.
                if let Some(last) = self.roster.retired.get(&member.id) {
                    member.disk = member.disk.max(last + 1);
                }
            }
            let conf_change = self.conf_change(&next);
            match self.has_synced_quorum(now, &next) {
                true => Ok((next, conf_change)),
                false => Err(Refusal::NoQuorum),
            }
        });
        match made {
            Ok((members, conf_change)) => {
                tracing::info!(?change, by, "the membership changes");
                (Decided::Made(table_of(members)), conf_change)
            }
            Err(refusal) => {
                if by.is_some() {
                    tracing::info!(?change, by, "a change of the membership is refused: {refusal}");
                }
                (Decided::Refused(refusal.code()), None)
            }
        }
    }

    /// What leads from raft's configuration to that of these members; `None` when it is the same.
    fn conf_change(&self, next: &Members) -> Option<ConfChangeV2> {
        let ids = |role: MemberRole| -> BTreeSet<u64> {
            let of = next.servers.iter().filter(|member| member.role == role);
            of.map(|Member { id, disk, .. }| raft_id(*id, *disk)).collect()
        };
        let (voters, learners) = (ids(MemberRole::Voter), ids(MemberRole::Joining));
        let now = self.node.raft.prs().conf().to_conf_state();
        let mut changes = Vec::new();
        let mut push = |id: u64, change_type| {
            let mut single = ConfChangeSingle { node_id: id, ..Default::default() };
            single.set_change_type(change_type);
            changes.push(single);
        };
        for id in voters.iter().filter(|id| !now.voters.contains(id)) {
            push(*id, ConfChangeType::AddNode);
        }
        for id in learners.iter().filter(|id| !now.learners.contains(id)) {
            push(*id, ConfChangeType::AddLearnerNode);
        }
        for id in now.voters.iter().chain(&now.learners) {
            if !voters.contains(id) && !learners.contains(id) {
                push(*id, ConfChangeType::RemoveNode);
            }
        }
        if changes.is_empty() {
            return None;
        }
        // A leader does not apply its own removal: in a joint configuration it stays until it has handed over.
        let simple = changes.len() == 1 && voters.contains(&self.node.raft.id);
        let mut conf_change = ConfChangeV2::default();
        if !simple {
            conf_change.set_transition(ConfChangeTransition::Explicit);
        }
        conf_change.set_changes(changes.into());
        Some(conf_change)
    }

    /// Could these voters commit something right now?
    fn has_synced_quorum(&self, now: Moment, next: &Members) -> bool {
        let raft = &self.node.raft;
        let mut voters = 0;
        let synced = next.voters().filter(|member| {
            voters += 1;
            let id = raft_id(member.id, member.disk);
            id == raft.id || self.is_level(now, id)
        });
        let synced = synced.count();
        synced > voters / 2
    }

    /// Is it there, and has it nearly all of the log?
    pub(super) fn is_level(&self, now: Moment, id: u64) -> bool {
        let raft = &self.node.raft;
        let heard = self.roster.was_heard(now, id, self.timers.election());
        let progress = raft.prs().get(id).filter(|_| heard);
        progress.is_some_and(|p| {
            // Behind a snapshot raft waits for the next entry before it sends freely again.
            let last = raft.raft_log.last_index();
            let flows = p.state == ProgressState::Replicate && p.matched + LEVEL_ENTRIES >= last;
            flows || p.matched == last
        })
    }

    /// Who joins and has caught up, and whose store stands in the log by now: it must be known before it votes. Not with
    /// another store than that one.
    fn level_joiner(&self, now: Moment) -> Option<ServerId> {
        let joining = self.roster.members.servers.iter().filter(|m| m.role == MemberRole::Joining);
        let met = |m: &&Member| {
            let met = self.stores.get(&m.id).is_some_and(|(disk, _)| self.roster.is_of(m.id, *disk));
            met && !self.roster.emptied.contains(&m.id)
        };
        joining.filter(met).filter(|m| self.is_level(now, raft_id(m.id, m.disk))).map(|m| m.id).next()
    }

    /// Whoever leads in a joint configuration leaves it: raft's own leaving is lost with the leader that entered.
    fn leave_joint(&mut self, now: Moment, conf: &ConfState) -> Result<Turn, ConsensusError> {
        if !conf.voters.contains(&self.node.raft.id) {
            if self.roster.leave_again == Moment::default() {
                self.roster.leave_again = now + LEAVE_AFTER;
            } else if now.us >= self.roster.leave_again.us {
                self.roster.leave_again = now + LEAVE_AGAIN;
                tracing::info!("this server will not vote any more; leadership is handed over");
                self.transfer(None);
            }
            return Ok(Turn::Nothing);
        }
        self.step_conf_change(now, &ConfChangeV2::default())
    }

    fn step_change(
        &mut self,
        now: Moment,
        origin: Origin,
        logged: &Logged<'_>,
        conf_change: Option<ConfChangeV2>,
    ) -> Result<Turn, ConsensusError> {
        let command = logged.encode();
        let entry = Entry::Batch {
            origin,
            time_ms: now.wall_ms,
            rules: self.stamp.rules(),
            commands: vec![&command],
        };
        let turn = match conf_change {
            Some(mut conf_change) => {
                conf_change.set_context(entry.encode().into());
                self.step_conf_change(now, &conf_change)?
            }
            None => match self.step_proposal(now, vec![entry_of(&entry)])? {
                true => Turn::Proposed,
                false => Turn::Dropped,
            },
        };
        if let Turn::Proposed = turn {
            self.roster.proposed = self.node.raft.raft_log.last_index();
        }
        Ok(turn)
    }

    fn step_conf_change(&mut self, now: Moment, conf_change: &ConfChangeV2) -> Result<Turn, ConsensusError> {
        let data = conf_change.write_to_bytes().expect("a change encodes");
        let mut entry = RaftEntry { data: data.into(), ..RaftEntry::default() };
        entry.set_entry_type(EntryType::EntryConfChangeV2);
        if !self.step_proposal(now, vec![entry])? {
            return Ok(Turn::Dropped);
        }
        let raft = &self.node.raft;
        let taken = raft.pending_conf_index == raft.raft_log.last_index();
        // It would have made an empty entry of it, and said nothing.
        assert!(taken, "raft had a change of its configuration under way that we did not know of");
        Ok(Turn::Proposed)
    }

    /// A change of raft's configuration is committed, durably. What the entry holds for the tree, and the configuration from
    /// here on.
    pub(super) fn on_conf_change(
        &mut self,
        index: u64,
        data: &[u8],
    ) -> Result<(Bytes, Option<Vec<u8>>), ConsensusError> {
        let mut conf_change = ConfChangeV2::parse_from_bytes(data).expect("it was decoded when it came");
        let context = conf_change.take_context();
        if index <= self.roster.given_up {
            return Ok((context, None));
        }
        let stays = self.is_voter_after(&conf_change);
        let raft = &mut self.node.raft;
        if !stays && raft.state == StateRole::Leader {
            // It was proposed by an older leader. raft would not survive it as the leader.
            raft.become_follower(raft.term, 0);
        }
        let conf = self.node.apply_conf_change(&conf_change)?;
        Ok((context, Some(self.on_conf(&conf))))
    }

    fn is_voter_after(&self, conf_change: &ConfChangeV2) -> bool {
        let raft = &self.node.raft;
        let conf = raft.prs().conf().to_conf_state();
        if conf_change.leave_joint() {
            return conf.voters.contains(&raft.id);
        }
        // A joint configuration keeps who voted.
        let removed =
            |c: &ConfChangeSingle| c.node_id == raft.id && c.get_change_type() != ConfChangeType::AddNode;
        conf_change.enter_joint().is_some() || !conf_change.changes.iter().any(removed)
    }

    /// A committed entry with a table: the first one says to a server that came later what raft's configuration was at the
    /// beginning, and a forced one says what it is from there on.
    pub(super) fn on_table(&mut self, entry: &Entry<'_>) -> Result<Option<Vec<u8>>, ConsensusError> {
        match entry {
            Entry::Found { table, .. } if self.node.raft.prs().conf().voters().ids().is_empty() => {
                for member in table.members.voters() {
                    self.add_voter(raft_id(member.id, member.disk))?;
                }
                let conf = self.node.raft.prs().conf().to_conf_state();
                Ok(Some(self.on_conf(&conf)))
            }
            Entry::ForceQuorum { table, .. } => {
                // Who comes later passes it in the log.
                let voters: Vec<u64> = table.members.voters().map(|m| raft_id(m.id, m.disk)).collect();
                self.be_only(&voters)?;
                let conf = self.node.raft.prs().conf().to_conf_state();
                Ok(Some(self.on_conf(&conf)))
            }
            _ => Ok(None),
        }
    }

    fn add_voter(&mut self, id: u64) -> Result<(), ConsensusError> {
        self.change_one(id, ConfChangeType::AddNode)
    }

    fn change_one(&mut self, id: u64, change_type: ConfChangeType) -> Result<(), ConsensusError> {
        let mut conf_change = ConfChangeV2::default();
        let mut single = ConfChangeSingle { node_id: id, ..Default::default() };
        single.set_change_type(change_type);
        conf_change.set_changes(vec![single].into());
        self.node.apply_conf_change(&conf_change)?;
        Ok(())
    }

    /// raft's configuration becomes these voters and nobody else, one step after another, past the log.
    fn be_only(&mut self, voters: &[u64]) -> Result<(), ConsensusError> {
        loop {
            let conf = self.node.raft.prs().conf().to_conf_state();
            let mut others = conf.voters.iter().chain(&conf.learners).filter(|id| !voters.contains(id));
            if !conf.voters_outgoing.is_empty() {
                self.node.apply_conf_change(&ConfChangeV2::default())?;
            } else if let Some(missing) = voters.iter().find(|id| !conf.voters.contains(id)) {
                self.add_voter(*missing)?;
            } else if let Some(other) = others.next() {
                self.change_one(*other, ConfChangeType::RemoveNode)?;
            } else {
                self.on_conf(&conf);
                return Ok(());
            }
        }
    }

    /// raft goes by this configuration from now on. As the checkpoint keeps it.
    fn on_conf(&mut self, conf: &ConfState) -> Vec<u8> {
        self.lone =
            conf.voters == [self.node.raft.id] && conf.voters_outgoing.is_empty() && conf.learners.is_empty();
        let tracked = self.node.raft.prs();
        self.roster.heard.retain(|id, _| tracked.get(*id).is_some());
        encode_conf(conf)
    }
}
