//! What raft has ready, handed out in the order that is safe (`Ready` and its rules; thesis of Raft, 10.2.1).
//!
//! A message that says something about this server's term or vote leaves when those are durable, one that says
//! something about its log when that is. So a leader sends entries while it syncs them itself, and a follower's
//! heartbeats are answered while a slow sync goes on.

use super::interface::{Action, Committed};
use super::{Consensus, ConsensusError, server_of, view, wire};
use crate::moment::Moment;
use raft::StateRole;
use raft::eraftpb::{EntryType, Message, MessageType};
use std::collections::VecDeque;
use warren_storage::Entry;
use warren_storage::log::HardState;
use warren_storage::tree::Position;
use warren_transport::peer::{PeerMessage, RaftMessage};

/// What was handed out to be persisted, and what waits for it.
pub(super) struct Unsynced {
    /// Appends that are not durable yet, by number, and since when.
    appends: VecDeque<(u64, Moment)>,
    /// A ready without anything to persist, behind appends that are not durable yet.
    covered: Option<u64>,
    /// Term and vote as handed out last, and the append that makes them durable, if it is not.
    vote: (u64, u64),
    vote_in: Option<u64>,
    /// Messages, each with the append that must be durable before it leaves. Bounded by what raft has in flight.
    held: VecDeque<(u64, Message)>,
    /// A leader's wish that this server campaigns.
    campaign: Option<RaftMessage>,
}

impl Unsynced {
    pub(super) fn new(term: u64, vote: u64) -> Unsynced {
        Unsynced {
            appends: VecDeque::new(),
            covered: None,
            vote: (term, vote),
            vote_in: None,
            held: VecDeque::new(),
            campaign: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.appends.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.appends.is_empty()
    }

    /// When the oldest append was handed out.
    pub(super) fn since(&self) -> Option<Moment> {
        self.appends.front().map(|(_, since)| *since)
    }

    pub(super) fn do_not_campaign(&mut self) {
        self.campaign = None;
    }

    pub(super) fn campaign_after(&mut self, message: RaftMessage) {
        self.campaign = Some(message);
    }

    fn handed_out(&mut self, now: Moment, number: u64, hard_state: Option<HardState>) {
        self.appends.push_back((number, now));
        if let Some(hs) = hard_state.filter(|hs| (hs.term, hs.vote) != self.vote) {
            self.vote = (hs.term, hs.vote);
            self.vote_in = Some(number);
        }
    }

    /// The append that must be durable before this message leaves.
    fn waits_for(&self, message: &Message) -> Option<u64> {
        match message.get_msg_type() {
            // They promise what is in the log. A candidate must not win with a tail that it may lose.
            MessageType::MsgAppendResponse | MessageType::MsgRequestVote => {
                self.appends.back().map(|(number, _)| *number)
            }
            _ => self.vote_in,
        }
    }
}

impl Consensus {
    pub(super) fn take_ready(&mut self, now: Moment) -> Result<(), ConsensusError> {
        let mut ready = self.node.ready();
        let number = ready.number();
        for state in ready.take_read_states() {
            if let Some(tokens) = self.reads.on_answer(&state.request_ctx) {
                self.actions.push_back(Action::ReadAt { index: state.index, tokens });
            }
        }
        let entries = ready.take_entries();
        let committed = ready.take_committed_entries();
        let mut messages = ready.take_messages();
        messages.append(&mut ready.take_persisted_messages());
        // A change of configuration is not gone by before its commit is durable: a server that forgot it in a crash could be
        // elected by those who voted before.
        let changes = committed.iter().any(|e| e.get_entry_type() != EntryType::EntryNormal);
        let hard_state = match ready.hs() {
            None if changes => Some(self.node.raft.hard_state()),
            changed => changed.cloned(),
        };
        let hard_state = hard_state.map(|hs| HardState { term: hs.term, vote: hs.vote, commit: hs.commit });
        if !ready.snapshot().is_empty() {
            assert!(entries.is_empty() && committed.is_empty(), "a snapshot comes alone");
            let metadata = ready.snapshot().get_metadata();
            let position = Position { index: metadata.index, term: metadata.term };
            self.node.mut_store().install(position, metadata.get_conf_state().clone());
            self.unsynced.handed_out(now, number, hard_state);
            self.installing = Some((number, position));
            self.committed = position;
            self.held_back.clear();
            self.commit_in = None;
            self.outbox.give_up();
            let head = wire::head_of(ready.snapshot());
            self.actions.push_back(Action::Install { number, head, hard_state });
            self.node.advance_append_async(ready);
        } else if ready.must_sync() || changes {
            if changes {
                self.commit_in = Some(number);
            }
            self.unsynced.handed_out(now, number, hard_state);
            self.node.mut_store().extend(&entries);
            let records = entries.iter().map(view::record_of).collect();
            self.actions.push_back(Action::Append { number, records, hard_state });
            self.node.advance_append_async(ready);
        } else {
            self.node.advance_append_async(ready);
            if self.unsynced.is_empty() {
                self.node.on_persist_ready(number);
            } else {
                self.unsynced.covered = Some(number);
            }
        }
        for message in messages {
            match self.unsynced.waits_for(&message) {
                Some(append) => self.unsynced.held.push_back((append, message)),
                None => self.send_raft(message),
            }
        }
        self.held_back.extend(committed);
        self.commit(now)?;
        self.tell_leader(now);
        if self.told.1.is_some() && self.knows_the_past() {
            self.watch.on_available(now);
        }
        Ok(())
    }

    /// Step ⑨.
    fn commit(&mut self, now: Moment) -> Result<(), ConsensusError> {
        if self.commit_in.is_some() {
            return Ok(());
        }
        let Some(last) = self.held_back.back() else { return Ok(()) };
        let knew = self.knows_the_past();
        self.committed = Position { index: last.index, term: last.term };
        // raft hands out only what it knows to be durable here.
        self.node.mut_store().shrink(last.index);
        let mut commit = Vec::with_capacity(self.held_back.len());
        for e in std::mem::take(&mut self.held_back) {
            let position = Position { index: e.index, term: e.term };
            let (data, conf_state) = match e.get_entry_type() {
                EntryType::EntryNormal if Entry::has_table(&e.data) => {
                    let conf_state = match Entry::decode(&e.data) {
                        Ok(entry) => self.on_table(&entry)?,
                        // Whoever applies it finds out.
                        Err(_) => None,
                    };
                    (e.data, conf_state)
                }
                EntryType::EntryNormal => (e.data, None),
                EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => {
                    self.on_conf_change(e.index, &e.data)?
                }
            };
            self.settle(now, &data);
            commit.push(Committed { position, data, conf_state });
        }
        self.actions.push_back(Action::Commit(commit));
        self.watch.on_committed(now, self.committed.index);
        if !knew && self.knows_the_past() {
            self.reads.hurry(now);
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
            if let Some(taken_us) = self.outbox.settle(now, origin.last) {
                self.watch.on_settled(now, taken_us);
            }
        }
    }

    fn send_raft(&mut self, message: Message) {
        let to = server_of(message.to);
        let snapshot = message.get_msg_type() == MessageType::MsgSnapshot;
        let message = wire::to_peer(message);
        if snapshot {
            self.streamed.remove(&to);
        }
        self.actions.push_back(match snapshot {
            true => Action::SendSnapshot { to, message },
            false => Action::Send { to, message: PeerMessage::Raft(message) },
        });
    }

    pub(super) fn on_persisted(&mut self, now: Moment, number: u64) -> Result<(), ConsensusError> {
        while self.unsynced.appends.front().is_some_and(|(n, _)| *n <= number) {
            self.unsynced.appends.pop_front();
        }
        if self.unsynced.vote_in.is_some_and(|n| n <= number) {
            self.unsynced.vote_in = None;
        }
        if self.commit_in.is_some_and(|n| n <= number) {
            self.commit_in = None;
            self.commit(now)?;
        }
        let mut upto = number;
        if self.unsynced.appends.is_empty() {
            upto = upto.max(self.unsynced.covered.take().unwrap_or(0));
        }
        // Before any message of that ready leaves.
        self.node.on_persist_ready(upto);
        if let Some((_, position)) = self.installing.take_if(|(n, _)| *n <= number) {
            // raft must not look for entries that the snapshot replaced.
            self.on_applied(position.index);
        }
        if !self.unsynced.held.is_empty() {
            for (append, message) in std::mem::take(&mut self.unsynced.held) {
                match append <= number {
                    true => self.send_raft(message),
                    false => self.unsynced.held.push_back((append, message)),
                }
            }
        }
        if self.unsynced.is_empty() && self.node.raft.state != StateRole::Leader {
            if let Some(message) = self.unsynced.campaign.take() {
                return self.step(message);
            }
        }
        Ok(())
    }

    pub(super) fn on_installed(&mut self, now: Moment, number: u64) -> Result<(), ConsensusError> {
        let expected = self.installing.as_ref().map(|(n, _)| *n);
        assert_eq!(expected, Some(number), "a snapshot is in place that was not asked for");
        self.on_persisted(now, number)
    }
}
