//! Who decides the order: steps ⑥, ⑦ and ⑨ of the walk.
//!
//! [`Consensus`] drives the `raft` crate, and is the only module that knows it. It takes submissions, stamps
//! what must not differ between servers (time, new session ids and passwords, settings), packs many of them into
//! one log entry, and hands out what is to be persisted and what is committed. It does no IO: the driver calls
//! [`Consensus::handle`] with an event and the time, and drains [`Consensus::poll_action`].

mod interface;
mod stamp;
#[cfg(test)]
mod tests;
mod view;

pub use interface::{Action, Committed, Event, Facts, Follower, Measure, Role, Start, Submission, Timers};

use crate::moment::Moment;
use protobuf::Message as _;
use raft::eraftpb::{ConfState, EntryType};
use raft::{RawNode, StateRole};
use stamp::Stamp;
use std::collections::VecDeque;
use std::time::Duration;
use view::LogView;
use warren_storage::log;
use warren_storage::tree::Position;
use warren_storage::{Entry, Origin};

/// Appends handed out and not yet reported durable, at most. Two: while one is synced the next one waits behind
/// it, and what arrives meanwhile gathers into a third.
const APPENDS_IN_FLIGHT_MAX: usize = 2;
/// Commands in one log entry, at most.
const ENTRY_COMMANDS_MAX: usize = 4_096;
/// Bytes of commands in one log entry, at most, unless a single command is larger.
const ENTRY_BYTES_MAX: usize = 1 << 20;
/// raft's unit of time.
const TICK: Duration = Duration::from_millis(20);
/// Ticks between heartbeats.
const HEARTBEAT_TICKS: usize = 2;
/// Ticks without a leader before an election.
const ELECTION_TICKS: usize = 10;
/// A read index that was not answered by then is asked again: raft drops one silently when it has no leader.
const READ_INDEX_RETRY: Duration = Duration::from_millis(200);

/// raft's id of a server: the server id and which of its disks, so that an emptied disk never votes under its
/// old identity.
pub fn raft_id(server_id: u8, incarnation: u32) -> u64 {
    (server_id as u64) << 32 | incarnation as u64
}

/// The configuration of a new ensemble of these voters, each by its [`raft_id`].
pub fn found(voters: &[u64]) -> Vec<u8> {
    let mut conf = ConfState::default();
    conf.voters.extend_from_slice(voters);
    conf.write_to_bytes().expect("a configuration encodes")
}

/// How many voters a configuration has, as [`found`] and [`Committed::conf_state`] encode it; 0 for none at all. While it
/// changes, those of both configurations count.
pub fn voters(conf_state: &[u8]) -> usize {
    let conf = ConfState::parse_from_bytes(conf_state).expect("consensus encoded the configuration");
    let mut voters: Vec<u64> = conf.voters.iter().chain(&conf.voters_outgoing).copied().collect();
    voters.sort_unstable();
    voters.dedup();
    voters.len()
}

/// Why consensus cannot begin or go on: the store is damaged, or we are.
#[derive(Debug, thiserror::Error)]
pub enum ConsensusError {
    /// The configuration in the checkpoint does not decode.
    #[error("the configuration in the checkpoint does not decode")]
    ConfState(#[source] protobuf::ProtobufError),
    /// raft refused.
    #[error("consensus cannot go on")]
    Raft(#[from] raft::Error),
}

/// The consensus state machine of one server.
pub struct Consensus {
    node: RawNode<LogView>,
    stamp: Stamp,
    server_id: u8,
    incarnation: u64,
    numbered: u64,
    waiting: VecDeque<Submission>,
    /// Numbers of appends handed out and not yet durable.
    appends: VecDeque<u64>,
    /// A ready without anything to persist, behind appends that are not durable yet.
    covered: Option<u64>,
    /// Last index handed out for persisting, and last index that is durable.
    persisted: u64,
    append_last: VecDeque<(u64, u64)>,
    committed: u64,
    leading: bool,
    syncs: Vec<u64>,
    read: Option<ReadIndex>,
    reads: u64,
    next_tick: Moment,
    actions: VecDeque<Action>,
}

/// A read index under way.
struct ReadIndex {
    context: u64,
    tokens: Vec<u64>,
    retry_at: Moment,
}

impl Consensus {
    /// Open on what was recovered. A lone voter campaigns at once: nothing is outstanding on its disk.
    pub fn new(now: Moment, start: Start) -> Result<Consensus, ConsensusError> {
        let conf = ConfState::parse_from_bytes(&start.conf_state).map_err(ConsensusError::ConfState)?;
        let lone = conf.voters == [start.id];
        let hard = raft::eraftpb::HardState {
            term: start.hard_state.term.max(start.checkpoint.term),
            vote: start.hard_state.vote,
            // An applied index beyond the persisted commit panics at start.
            commit: start.hard_state.commit.max(start.checkpoint.index),
            ..Default::default()
        };
        let config = raft::Config {
            id: start.id,
            election_tick: ELECTION_TICKS,
            heartbeat_tick: HEARTBEAT_TICKS,
            min_election_tick: ELECTION_TICKS,
            max_election_tick: ELECTION_TICKS + 1,
            applied: start.checkpoint.index,
            check_quorum: true,
            pre_vote: true,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 64,
            ..raft::Config::default()
        };
        let persisted = start.reader.last_index();
        let view = LogView::new(start.reader, start.checkpoint, hard, conf);
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let mut consensus = Consensus {
            node: RawNode::new(&config, view, &logger)?,
            stamp: Stamp::new(now, start.server_id, start.rules, start.entropy),
            server_id: start.server_id,
            incarnation: start.incarnation,
            numbered: 0,
            waiting: VecDeque::new(),
            appends: VecDeque::new(),
            covered: None,
            persisted,
            append_last: VecDeque::new(),
            committed: start.checkpoint.index,
            leading: false,
            syncs: Vec::new(),
            read: None,
            reads: 0,
            next_tick: now + TICK,
            actions: VecDeque::new(),
        };
        if lone {
            consensus.node.campaign()?;
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
            Event::Submit(submissions) => self.waiting.extend(submissions),
            Event::Persisted(number) => self.on_persisted(number),
            Event::Applied(index) => self.node.advance_apply_to(index),
            Event::RefuseGrowth(refuse) => self.stamp.refuse_growth(refuse),
            Event::Tick => self.on_time(now),
            other => unreachable!("an ensemble of one is told {other:?}"),
        }
        self.drive(now)
    }

    /// What to do next; drain until `None` after each [`Consensus::handle`].
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When to come back with [`Event::Tick`] at the latest.
    pub fn poll_timeout(&self) -> Moment {
        self.next_tick
    }

    /// Is this server the leader?
    pub fn is_leading(&self) -> bool {
        self.leading
    }

    /// A late wake-up counts one tick, whatever the clock says: a process that was stopped must not start an
    /// election on waking.
    fn on_time(&mut self, now: Moment) {
        if now.us >= self.next_tick.us {
            self.next_tick = now + TICK;
            self.node.tick();
        }
    }

    fn on_persisted(&mut self, number: u64) {
        while self.appends.front().is_some_and(|n| *n <= number) {
            self.appends.pop_front();
        }
        while let Some((n, last)) = self.append_last.front().copied() {
            if n > number {
                break;
            }
            self.persisted = last;
            self.append_last.pop_front();
        }
        let mut upto = number;
        if self.appends.is_empty() {
            upto = upto.max(self.covered.take().unwrap_or(0));
        }
        // Before any message of that ready leaves.
        self.node.on_persist_ready(upto);
    }

    /// Propose what waits and take out what raft has ready, until neither moves.
    fn drive(&mut self, now: Moment) -> Result<(), ConsensusError> {
        loop {
            self.propose(now);
            self.ask_read_index(now);
            if !self.node.has_ready() {
                return Ok(());
            }
            self.take_ready();
        }
    }

    /// Pack what waits into log entries (step ⑦), as many as may be in flight.
    fn propose(&mut self, now: Moment) {
        while self.leading && self.appends.len() < APPENDS_IN_FLIGHT_MAX && !self.node.has_ready() {
            while let Some(Submission::Sync(_)) = self.waiting.front() {
                let Some(Submission::Sync(token)) = self.waiting.pop_front() else { unreachable!() };
                self.syncs.push(token);
            }
            if self.waiting.is_empty() {
                return;
            }
            if matches!(self.waiting.front(), Some(Submission::NewEpoch)) {
                self.waiting.pop_front();
                let entry = Entry::NewEpoch { time_ms: now.wall_ms }.encode();
                if self.node.propose(Vec::new(), entry).is_err() {
                    self.waiting.push_front(Submission::NewEpoch);
                    return;
                }
                continue;
            }
            let mut commands: Vec<Vec<u8>> = Vec::new();
            let mut bytes = 0;
            while let Some(next) = self.waiting.front() {
                let size = match next {
                    Submission::Command(encoded) | Submission::LeaderOnly(encoded) => encoded.len(),
                    Submission::OpenSession { .. } => 64,
                    Submission::Sync(_) | Submission::NewEpoch => break,
                };
                if !commands.is_empty()
                    && (bytes + size > ENTRY_BYTES_MAX || commands.len() == ENTRY_COMMANDS_MAX)
                {
                    break;
                }
                bytes += size;
                match self.waiting.pop_front() {
                    Some(Submission::Command(encoded) | Submission::LeaderOnly(encoded)) => {
                        commands.push(encoded)
                    }
                    Some(Submission::OpenSession { timeout_ms, owner, incarnation, request }) => {
                        commands.push(self.stamp.open_session(timeout_ms, owner, incarnation, request))
                    }
                    _ => unreachable!("looked at above"),
                }
            }
            self.numbered += commands.len() as u64;
            let entry = Entry::Batch {
                origin: Origin { server: self.server_id, incarnation: self.incarnation, last: self.numbered },
                time_ms: now.wall_ms,
                rules: self.stamp.rules(),
                commands: commands.iter().map(Vec::as_slice).collect(),
            };
            let entry = entry.encode();
            if self.node.propose(Vec::new(), entry).is_err() {
                // Dropped, as during a transfer of leadership: they stay first in line.
                for command in commands.into_iter().rev() {
                    self.waiting.push_front(Submission::Command(command));
                }
                return;
            }
        }
    }

    /// One read index at a time, asked again when raft dropped it.
    fn ask_read_index(&mut self, now: Moment) {
        match &mut self.read {
            Some(read) if now.us >= read.retry_at.us => {
                read.retry_at = now + READ_INDEX_RETRY;
                self.reads += 1;
                read.context = self.reads;
                self.node.read_index(self.reads.to_le_bytes().to_vec());
            }
            None if !self.syncs.is_empty() => {
                self.reads += 1;
                self.read = Some(ReadIndex {
                    context: self.reads,
                    tokens: std::mem::take(&mut self.syncs),
                    retry_at: now + READ_INDEX_RETRY,
                });
                self.node.read_index(self.reads.to_le_bytes().to_vec());
            }
            _ => {}
        }
    }

    fn take_ready(&mut self) {
        let mut ready = self.node.ready();
        let number = ready.number();
        let leads = self.node.raft.state == StateRole::Leader;
        assert!(
            ready.messages().is_empty() && ready.persisted_messages().is_empty(),
            "a lone voter has nobody to write to"
        );
        for state in ready.take_read_states() {
            let context = state.request_ctx.as_slice().try_into().map(u64::from_le_bytes).unwrap_or(0);
            if self.read.as_ref().is_some_and(|r| r.context == context) {
                let tokens = self.read.take().map(|r| r.tokens).unwrap_or_default();
                self.actions.push_back(Action::ReadAt { index: state.index, tokens });
            }
        }
        let entries = ready.take_entries();
        let committed = ready.take_committed_entries();
        let hard_state =
            ready.hs().map(|hs| log::HardState { term: hs.term, vote: hs.vote, commit: hs.commit });
        if ready.must_sync() || !entries.is_empty() {
            self.appends.push_back(number);
            if let Some(last) = entries.last() {
                self.append_last.push_back((number, last.index));
            }
            self.node.mut_store().extend(&entries);
            let records = entries.iter().map(view::record_of).collect();
            self.actions.push_back(Action::Append { number, records, hard_state });
            self.node.advance_append_async(ready);
        } else {
            self.node.advance_append_async(ready);
            if self.appends.is_empty() {
                self.node.on_persist_ready(number);
            } else {
                self.covered = Some(number);
            }
        }
        if let Some(last) = committed.last() {
            self.committed = last.index;
            self.node.mut_store().shrink(self.committed.min(self.persisted));
            let commit = committed
                .into_iter()
                .map(|e| {
                    assert_eq!(
                        e.get_entry_type(),
                        EntryType::EntryNormal,
                        "membership is fixed with one server"
                    );
                    Committed {
                        position: Position { index: e.index, term: e.term },
                        data: e.data,
                        conf_state: None,
                    }
                })
                .collect();
            self.actions.push_back(Action::Commit(commit));
        }
        if leads != self.leading {
            self.leading = leads;
            let leader = leads.then_some(self.server_id);
            self.actions.push_back(Action::Leader { term: self.node.raft.term, leader });
            self.actions.push_back(Action::Lead(leads));
            if leads {
                // The first entry of a leader: nothing that it takes is applied before its epoch begins.
                self.waiting.push_front(Submission::NewEpoch);
            }
        }
    }
}
