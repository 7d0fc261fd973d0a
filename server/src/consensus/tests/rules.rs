//! The rules of driving the raft crate, each told as an incident. Here one server of three stands alone with what its peers
//! say to it by hand. Rules that matter to one voter already are in `lone`; those about changes of membership (4, 6, 7)
//! have nothing to be tried on while there are none.

use super::super::{
    Action, Consensus, Event, READ_BYTES_MAX, Start, Submission, Timers, WANTED_FOR, found, raft_id,
};
use super::cluster::{Cluster, Dice};
use crate::moment::Moment;
use bytes::Bytes;
use raft::SnapshotStatus;
use raft::eraftpb::MessageType;
use std::sync::Arc;
use std::time::Duration;
use warren_storage::log::{Append, HardState, Log, LogOptions, LogRecord};
use warren_storage::simdisk::SimDisk;
use warren_storage::tree::Position;
use warren_storage::{Entry, Rules, SharedDisk};
use warren_transport::peer::{
    Forward, ForwardAck, PeerEntry, PeerMessage, RaftKind, RaftMessage, SnapshotHead,
};

/// Server 1 of three.
pub(super) struct One {
    now: Moment,
    pub(super) consensus: Consensus,
    log: Log,
    appends: Vec<(u64, Vec<LogRecord>, Option<HardState>)>,
    sent: Vec<(u8, PeerMessage)>,
    committed: u64,
    reads: Vec<(u64, Vec<u64>)>,
    installs: Vec<(u64, SnapshotHead, Option<HardState>)>,
    snapshots: Vec<(u8, RaftMessage)>,
}

impl One {
    pub(super) fn new() -> One {
        let disk: SharedDisk = Arc::new(SimDisk::new());
        let (log, recovered) = Log::open(disk, LogOptions::default()).unwrap();
        let now = Moment { us: 1_000_000, wall_ms: 1_700_000_000_000 };
        let start = Start {
            id: raft_id(1, 1),
            server_id: 1,
            incarnation: 7,
            reader: log.reader(),
            hard_state: recovered.hard_state,
            checkpoint: Position::default(),
            conf_state: found(&[raft_id(1, 1), raft_id(2, 1), raft_id(3, 1)]),
            members: Default::default(),
            retired: Default::default(),
            found: None,
            rules: Rules::default(),
            timers: Timers::default(),
            read_bytes_max: READ_BYTES_MAX,
            entropy: Box::new(Dice::new(1)),
        };
        let consensus = Consensus::new(now, start).unwrap();
        let mut one = One {
            now,
            consensus,
            log,
            appends: Vec::new(),
            sent: Vec::new(),
            committed: 0,
            reads: Vec::new(),
            installs: Vec::new(),
            snapshots: Vec::new(),
        };
        one.drain();
        one
    }

    fn drain(&mut self) {
        while let Some(action) = self.consensus.poll_action() {
            match action {
                Action::Append { number, records, hard_state } => {
                    self.appends.push((number, records, hard_state))
                }
                Action::Commit(entries) => self.committed = entries.last().unwrap().position.index,
                Action::ReadAt { index, tokens } => self.reads.push((index, tokens)),
                Action::Send { to, message } => self.sent.push((to, message)),
                Action::Install { number, head, hard_state } => {
                    self.installs.push((number, head, hard_state))
                }
                Action::SendSnapshot { to, message } => self.snapshots.push((to, message)),
                Action::Lead(_) | Action::Leader { .. } => {}
            }
        }
    }

    pub(super) fn tell(&mut self, event: Event) {
        self.consensus.handle(self.now, event).unwrap();
        self.drain();
    }

    /// A peer says something of raft's.
    pub(super) fn hear(&mut self, from: u8, message: RaftMessage) {
        self.tell(Event::Peer { from, message: PeerMessage::Raft(message) });
    }

    pub(super) fn tick(&mut self, count: u32) {
        for _ in 0..count {
            self.now = self.now + Duration::from_millis(20);
            self.tell(Event::Tick);
        }
    }

    /// Make durable what was asked so far.
    pub(super) fn persist(&mut self) {
        for (number, records, hard_state) in std::mem::take(&mut self.appends) {
            self.log.append(Append { records: &records, hard_state }).unwrap();
            self.tell(Event::Persisted(number));
        }
    }

    fn take_sent(&mut self, kind: RaftKind) -> Vec<RaftMessage> {
        let mut found = Vec::new();
        self.sent.retain(|(_, message)| match message {
            PeerMessage::Raft(m) if m.kind == kind => {
                found.push(m.clone());
                false
            }
            _ => true,
        });
        found
    }

    /// Win an election with the vote of server 2, and let both followers confirm the first entries.
    pub(super) fn lead(&mut self) {
        while self.take_sent(RaftKind::RequestPreVote).is_empty() {
            self.tick(1);
        }
        let term = self.consensus.facts().term + 1;
        self.hear(2, message(RaftKind::RequestPreVoteResponse, 2, term));
        self.persist();
        assert_eq!(self.take_sent(RaftKind::RequestVote).len(), 2);
        self.hear(2, message(RaftKind::RequestVoteResponse, 2, term));
        assert!(self.consensus.is_leading());
        self.persist();
        self.confirm();
        self.persist();
        self.confirm();
        self.sent.clear();
    }

    /// Both followers have everything.
    fn confirm(&mut self) {
        let facts = self.consensus.facts();
        for from in [2, 3] {
            let index = facts.last_index;
            self.hear(from, RaftMessage { index, ..message(RaftKind::AppendResponse, from, facts.term) });
        }
    }

    pub(super) fn refused(&self) -> u64 {
        self.consensus.facts().refused
    }
}

pub(super) fn message(kind: RaftKind, from: u8, term: u64) -> RaftMessage {
    RaftMessage::new(kind, raft_id(from, 1), raft_id(1, 1), term)
}

/// Entries from `first` on, of one term, behind an entry of `log_term`.
fn append(term: u64, log_term: u64, first: u64, count: u64) -> RaftMessage {
    let data = Bytes::from(Entry::NewEpoch { time_ms: 1 }.encode());
    let entry = |index| PeerEntry { index, term, conf_change: false, data: data.clone() };
    let entries = (first..first + count).map(entry).collect();
    RaftMessage { index: first - 1, log_term, entries, ..message(RaftKind::Append, 2, term) }
}

#[test]
fn rule_1_a_vote_leaves_when_it_is_durable() {
    let mut one = One::new();
    one.hear(2, message(RaftKind::RequestVote, 2, 5));
    let (_, _, hard_state) = &one.appends[0];
    assert_eq!(hard_state.map(|hs| (hs.term, hs.vote)), Some((5, raft_id(2, 1))));
    assert!(one.sent.is_empty());
    one.persist();
    let votes = one.take_sent(RaftKind::RequestVoteResponse);
    assert_eq!(votes.iter().map(|v| (v.term, v.reject)).collect::<Vec<_>>(), [(5, false)]);
}

#[test]
fn rule_1_a_candidate_asks_when_its_own_vote_is_durable() {
    let mut one = One::new();
    while one.take_sent(RaftKind::RequestPreVote).is_empty() {
        one.tick(1);
    }
    one.hear(2, message(RaftKind::RequestPreVoteResponse, 2, 1));
    assert_eq!(one.appends.len(), 1);
    assert!(one.take_sent(RaftKind::RequestVote).is_empty());
    one.persist();
    assert_eq!(one.take_sent(RaftKind::RequestVote).len(), 2);
}

#[test]
fn rule_2_entries_are_acknowledged_when_durable_and_heartbeats_meanwhile() {
    let mut one = One::new();
    one.hear(2, message(RaftKind::Heartbeat, 2, 1));
    assert!(one.take_sent(RaftKind::HeartbeatResponse).is_empty(), "the term is not durable");
    one.persist();
    assert_eq!(one.take_sent(RaftKind::HeartbeatResponse).len(), 1);
    // A slow sync.
    one.hear(2, append(1, 0, 1, 3));
    one.hear(2, message(RaftKind::Heartbeat, 2, 1));
    assert_eq!(one.take_sent(RaftKind::HeartbeatResponse).len(), 1);
    assert!(one.take_sent(RaftKind::AppendResponse).is_empty());
    one.persist();
    let answers = one.take_sent(RaftKind::AppendResponse);
    assert_eq!(answers.iter().map(|a| (a.index, a.reject)).collect::<Vec<_>>(), [(3, false)]);
}

#[test]
fn rule_2_a_leader_sends_while_it_syncs() {
    let mut one = One::new();
    one.lead();
    one.tell(Event::Submit(vec![Submission::LeaderOnly(vec![1])]));
    assert_eq!(one.appends.len(), 1);
    assert_eq!(one.take_sent(RaftKind::Append).len(), 2);
}

#[test]
fn rule_3_no_campaign_while_syncs_are_outstanding() {
    let mut one = One::new();
    one.hear(2, message(RaftKind::Heartbeat, 2, 1));
    one.persist();
    one.hear(2, append(1, 0, 1, 3));
    one.tick(100);
    assert!(one.take_sent(RaftKind::RequestPreVote).is_empty());
    one.persist();
    one.tick(20);
    assert_eq!(one.take_sent(RaftKind::RequestPreVote).first().map(|m| m.index), Some(3));
}

#[test]
fn rule_3_a_transfer_waits_for_the_syncs() {
    let mut one = One::new();
    one.hear(2, append(1, 0, 1, 3));
    one.hear(2, message(RaftKind::TimeoutNow, 2, 1));
    assert_eq!(one.consensus.facts().term, 1);
    one.persist();
    assert_eq!(one.consensus.facts().term, 2, "it campaigns");
    one.persist();
    let asked = one.take_sent(RaftKind::RequestVote);
    assert_eq!((asked.len(), asked[0].index), (2, 3));
}

#[test]
fn rule_8_a_proposal_that_raft_drops_stays_first_in_line() {
    let mut one = One::new();
    one.lead();
    let before = one.consensus.facts().last_index;
    // Server 3 must catch up before it can take over: proposals are dropped meanwhile.
    one.tell(Event::Submit(vec![Submission::LeaderOnly(vec![1])]));
    one.tell(Event::Transfer { to: Some(3) });
    one.tell(Event::Submit(vec![Submission::LeaderOnly(vec![2])]));
    assert_eq!(one.consensus.facts().last_index, before + 1);
    // It does not: the transfer is given up.
    for _ in 0..12 {
        one.tick(1);
        one.hear(2, message(RaftKind::HeartbeatResponse, 2, 1));
    }
    assert!(one.consensus.is_leading());
    assert_eq!(one.consensus.facts().last_index, before + 2);
}

/// The same when too much is proposed and not committed: what is beyond the bound waits, and is not lost.
#[test]
fn rule_8_what_is_not_committed_is_bounded() {
    let mut one = One::new();
    one.lead();
    let before = one.consensus.facts().last_index;
    for _ in 0..24 {
        one.tell(Event::Submit(vec![Submission::LeaderOnly(vec![0; 4 << 20])]));
        one.persist();
    }
    assert_eq!(one.consensus.facts().last_index, before + 15, "64 MiB");
    for _ in 0..24 {
        one.confirm();
        one.persist();
    }
    assert_eq!((one.consensus.facts().last_index, one.committed), (before + 24, before + 24));
}

#[test]
fn rule_9_a_read_index_is_asked_again_until_there_is_an_answer() {
    let mut one = One::new();
    one.tell(Event::Submit(vec![Submission::Sync(1)]));
    one.tick(5);
    assert!(one.take_sent(RaftKind::ReadIndex).is_empty(), "nobody leads");
    one.hear(2, message(RaftKind::Heartbeat, 2, 1));
    one.persist();
    let first = one.take_sent(RaftKind::ReadIndex);
    assert_eq!(first.len(), 1, "one at a time, and at once when there is a leader");
    one.tell(Event::Submit(vec![Submission::Sync(2)]));
    for _ in 0..11 {
        one.tick(1);
        one.hear(2, message(RaftKind::Heartbeat, 2, 1));
    }
    let second = one.take_sent(RaftKind::ReadIndex);
    assert_eq!(second.len(), 1);
    assert_ne!(first[0].entries[0].data, second[0].entries[0].data, "under another name");
    // The answer to the first asking comes late, and will do.
    let answer = RaftMessage {
        index: 4,
        entries: first[0].entries.clone(),
        ..message(RaftKind::ReadIndexResponse, 2, 1)
    };
    one.hear(2, answer.clone());
    one.hear(2, answer);
    assert_eq!(one.reads, [(4, vec![1])]);
    assert_eq!(one.take_sent(RaftKind::ReadIndex).len(), 1, "now the second");
}

#[test]
fn rule_10_the_time_to_an_election_is_drawn_from_the_given_dice() {
    let mut waits = Vec::new();
    for seed in 0..30 {
        let mut c = Cluster::new(3, seed);
        waits.push(c.run_until(2_000, "an election", |c| c.leader().is_some()));
        let mut again = Cluster::new(3, seed);
        assert_eq!(Some(&again.run_until(2_000, "an election", |c| c.leader().is_some())), waits.last());
    }
    waits.sort_unstable();
    waits.dedup();
    assert!(waits.len() > 3, "{waits:?}");
}

#[test]
fn rule_11_the_next_index_stays_above_what_a_follower_has() {
    let mut one = One::new();
    one.lead();
    let facts = one.consensus.facts();
    let (term, last) = (facts.term, facts.last_index);
    // Answers of before it had caught up come again, and late (raft-rs #557).
    for (index, reject_hint) in [(last, 0), (last - 1, 0), (1, 0), (last + 5, 0)] {
        for kind in [Event::Unreachable { server: 3 }, Event::Tick] {
            one.tell(kind);
            let stale = RaftMessage {
                index,
                reject: true,
                reject_hint,
                ..message(RaftKind::AppendResponse, 3, term)
            };
            one.hear(3, stale);
            let progress = one.consensus.node.raft.prs().get(raft_id(3, 1)).unwrap();
            assert!(progress.next_idx > progress.matched, "{progress:?}");
            assert_eq!(progress.matched, last);
        }
    }
}

/// The same once a snapshot was sent: raft begins behind it then, and an old answer would lead it back too far.
#[test]
fn rule_11_the_next_index_stays_above_what_a_follower_has_after_a_snapshot() {
    let mut one = One::new();
    one.lead();
    let facts = one.consensus.facts();
    let (term, matched) = (facts.term, facts.last_index);
    for _ in 0..6 {
        one.tell(Event::Submit(vec![Submission::LeaderOnly(vec![1])]));
        one.persist();
    }
    let id = raft_id(3, 1);
    one.consensus.node.raft.mut_prs().get_mut(id).unwrap().become_snapshot(matched + 4);
    one.consensus.report_snapshot(3, SnapshotStatus::Finish);
    let stale = RaftMessage {
        index: matched + 4,
        reject: true,
        reject_hint: 0,
        ..message(RaftKind::AppendResponse, 3, term)
    };
    one.hear(3, stale);
    let progress = one.consensus.node.raft.prs().get(id).unwrap();
    assert!(progress.next_idx > progress.matched && progress.matched == matched, "{progress:?}");
}

#[test]
fn rule_11_a_campaign_with_much_committed_and_little_applied() {
    let mut one = One::new();
    one.hear(2, RaftMessage { commit: 2_000, ..append(1, 0, 1, 2_000) });
    one.persist();
    assert_eq!(one.committed, 2_000);
    // raft looks through all of it for changes of membership before a campaign (raft-rs #530).
    while one.take_sent(RaftKind::RequestPreVote).is_empty() {
        one.tick(1);
    }
    one.tell(Event::Applied(2_000));
}

#[test]
fn rule_12_nothing_that_raft_would_decode_or_stop_for_comes_from_outside() {
    let mut one = One::new();
    one.hear(2, append(1, 0, 1, 3));
    one.persist();
    let good = append(1, 1, 4, 2);
    let mut bad = vec![
        RaftMessage { from: raft_id(3, 1), ..good.clone() },
        RaftMessage { from: raft_id(2, 2), ..good.clone() },
        RaftMessage { to: raft_id(1, 2), ..good.clone() },
        RaftMessage { term: 0, ..good.clone() },
        RaftMessage { term: u64::MAX, ..good.clone() },
        RaftMessage { index: u64::MAX, ..good.clone() },
        RaftMessage { index: 2, ..good.clone() },
        RaftMessage { log_term: 9, ..good.clone() },
        RaftMessage { commit: 99, ..message(RaftKind::Heartbeat, 2, 1) },
        RaftMessage { commit: 99, ..message(RaftKind::Heartbeat, 2, 3) },
        RaftMessage { context: vec![0; 65].into(), ..message(RaftKind::Heartbeat, 2, 1) },
        message(RaftKind::ReadIndex, 2, 0),
        message(RaftKind::ReadIndexResponse, 2, 1),
        message(RaftKind::TransferLeader, 2, 1),
        RaftMessage { request_snapshot: 1, ..message(RaftKind::AppendResponse, 2, 1) },
        message(RaftKind::Snapshot, 2, 1),
    ];
    let mut changes = good.clone();
    changes.entries[1].conf_change = true;
    bad.push(changes);
    let mut backwards = good.clone();
    backwards.entries[1].term = 0;
    bad.push(backwards);
    for (n, message) in bad.into_iter().enumerate() {
        let before = one.refused();
        one.hear(2, message.clone());
        assert_eq!(one.refused(), before + 1, "number {n}: {message:?}");
    }
    let head = |index, conf_state: Vec<u8>| SnapshotHead { index, term: 1, conf_state: conf_state.into() };
    let ours = raft_id(1, 1);
    for snapshot in [
        None,
        Some(head(0, found(&[ours]))),
        Some(head(9, found(&[raft_id(2, 1)]))),
        Some(head(9, found(&[ours, ours]))),
        Some(head(9, vec![0xff; 9])),
    ] {
        let before = one.refused();
        let message = RaftMessage { snapshot, ..message(RaftKind::Snapshot, 2, 1) };
        one.tell(Event::SnapshotReceived { from: 2, message });
        assert_eq!((one.refused(), one.installs.len()), (before + 1, 0));
    }
    one.hear(2, good);
    assert_eq!(one.consensus.facts().last_index, 5);
    // What a leader is told.
    let mut one = One::new();
    one.lead();
    let facts = one.consensus.facts();
    let beyond = facts.last_index + 1;
    one.hear(2, RaftMessage { index: beyond, ..message(RaftKind::AppendResponse, 2, facts.term) });
    one.hear(3, message(RaftKind::ReadIndex, 3, 0));
    assert_eq!(one.refused(), 2);
    let forward = Forward { term: facts.term, incarnation: 1, first: 1, begin: 9, requests: Vec::new() };
    one.tell(Event::Peer { from: 2, message: PeerMessage::Forward(forward) });
    assert_eq!(one.refused(), 3);
}

#[test]
fn rule_12_a_follower_believes_only_its_leader_of_what_was_proposed() {
    let mut one = One::new();
    one.hear(2, message(RaftKind::Heartbeat, 2, 1));
    one.persist();
    let ack = ForwardAck { term: 1, incarnation: 7, upto: 3 };
    one.tell(Event::Peer { from: 3, message: PeerMessage::ForwardAck(ack.clone()) });
    assert_eq!(one.refused(), 0, "an old leader's, perhaps");
    one.tell(Event::Peer { from: 2, message: PeerMessage::ForwardAck(ack) });
    assert_eq!(one.refused(), 1);
}

#[test]
fn rule_13_a_process_that_stood_still_hears_its_leader_before_it_campaigns() {
    let mut one = One::new();
    one.hear(2, message(RaftKind::Heartbeat, 2, 1));
    one.persist();
    one.tick(9);
    one.now = one.now + Duration::from_secs(3_600);
    // What came meanwhile is told first; no event but the tick moves the clock.
    one.tell(Event::Submit(Vec::new()));
    one.hear(2, message(RaftKind::Heartbeat, 2, 1));
    one.tick(9);
    assert!(one.take_sent(RaftKind::RequestPreVote).is_empty());
    one.now = one.now + Duration::from_secs(3_600);
    one.tick(1);
    let elapsed = one.consensus.node.raft.election_elapsed;
    assert_eq!(elapsed, 10, "an hour is one tick");
}

#[test]
fn rule_14_a_leader_whose_disk_lags_hands_over() {
    let mut one = One::new();
    one.lead();
    let answer = |one: &mut One| {
        for from in [2, 3] {
            one.hear(from, message(RaftKind::HeartbeatResponse, from, 1));
        }
    };
    one.tell(Event::Submit(vec![Submission::LeaderOnly(vec![1])]));
    one.confirm();
    for _ in 0..40 {
        one.tick(1);
        answer(&mut one);
    }
    assert!(one.take_sent(RaftKind::TimeoutNow).is_empty());
    for _ in 0..20 {
        one.tick(1);
        answer(&mut one);
    }
    assert_eq!(one.take_sent(RaftKind::TimeoutNow).len(), 1, "to one that has everything");
}

#[test]
fn a_tail_that_contradicts_the_leader_is_replaced() {
    let mut one = One::new();
    one.hear(2, RaftMessage { commit: 2, ..append(1, 0, 1, 6) });
    one.persist();
    assert_eq!(one.committed, 2);
    // Another leader, who never had 4 to 6; some of it is not durable when the next comes.
    one.hear(2, append(2, 1, 4, 2));
    one.hear(2, RaftMessage { commit: 5, ..append(2, 2, 6, 1) });
    assert_eq!(one.committed, 3, "4 and 5 are not durable");
    let first: Vec<u64> = one.appends.iter().map(|(_, records, _)| records[0].index).collect();
    assert_eq!(first, [4, 6]);
    one.persist();
    assert_eq!((one.committed, one.consensus.facts().last_index), (5, 6));
    assert_eq!(one.log.reader().term(4).unwrap(), Some(2));
}

#[test]
fn a_snapshot_replaces_the_log_and_what_follows_waits_for_it() {
    let mut one = One::new();
    one.hear(2, append(1, 0, 1, 3));
    one.persist();
    let voters = found(&[raft_id(1, 1), raft_id(2, 1), raft_id(3, 1)]);
    let head = SnapshotHead { index: 50, term: 2, conf_state: voters.clone().into() };
    let snapshot = RaftMessage { snapshot: Some(head.clone()), ..message(RaftKind::Snapshot, 2, 2) };
    one.tell(Event::SnapshotReceived { from: 2, message: snapshot.clone() });
    let (number, asked, hard_state) = one.installs.pop().unwrap();
    assert_eq!((asked, hard_state.map(|hs| hs.commit)), (head, Some(50)));
    // Another, and entries behind it, while it is put in place; and no campaign.
    one.tell(Event::SnapshotReceived { from: 2, message: snapshot });
    one.hear(2, RaftMessage { commit: 52, ..append(2, 2, 51, 2) });
    one.tick(100);
    assert!(one.installs.is_empty() && one.take_sent(RaftKind::RequestPreVote).is_empty());
    assert!(one.take_sent(RaftKind::AppendResponse).iter().all(|m| m.index <= 3));
    one.log.reset(50, 2, hard_state).unwrap();
    one.tell(Event::Installed { number });
    one.persist();
    assert_eq!(one.committed, 52);
    let answers: Vec<u64> = one.take_sent(RaftKind::AppendResponse).iter().map(|m| m.index).collect();
    assert_eq!(answers, [50, 52]);
    // The service had applied something of before; then what comes after.
    one.tell(Event::Applied(3));
    one.tell(Event::Applied(52));
    one.tick(30);
    assert!(!one.take_sent(RaftKind::RequestPreVote).is_empty());
}

#[test]
fn a_leader_sends_the_head_of_its_newest_checkpoint_to_who_is_behind_its_log() {
    let mut one = One::new();
    one.lead();
    let facts = one.consensus.facts();
    one.tell(Event::Applied(facts.committed));
    let position = Position { index: facts.committed, term: facts.term };
    let conf_state = found(&[raft_id(1, 1), raft_id(2, 1), raft_id(3, 1)]);
    one.log.reset(position.index, position.term, None).unwrap();
    one.tell(Event::Checkpointed { position, conf_state, first_index: position.index + 1 });
    // Server 3 came back empty-handed as far as the leader knows.
    let progress = one.consensus.node.raft.mut_prs().get_mut(raft_id(3, 1)).unwrap();
    (progress.matched, progress.next_idx) = (0, 1);
    progress.become_probe();
    one.hear(3, message(RaftKind::HeartbeatResponse, 3, facts.term));
    let (to, snapshot) = one.snapshots.pop().expect("a snapshot");
    let head = snapshot.snapshot.unwrap();
    assert_eq!((to, head.index, head.term), (3, position.index, position.term));
    // It fails: it is tried again, and not at once. Whoever has no space for it would keep the leader busy with nothing else.
    one.tell(Event::SnapshotSent { to: 3, ok: false });
    let mut ticks = 0;
    while one.snapshots.is_empty() {
        one.tick(1);
        for other in [2, 3] {
            one.hear(other, message(RaftKind::HeartbeatResponse, other, facts.term));
        }
        ticks += 1;
        assert!(ticks < 1_000, "it is not tried again");
    }
    assert!(ticks > 50, "it was tried again after {ticks} ticks");
}

/// A leader whose log begins behind what server 3 has, and which has sent it the head of a snapshot.
fn sends_a_snapshot_to_three() -> (One, u64, Position) {
    let mut one = One::new();
    one.lead();
    let facts = one.consensus.facts();
    one.tell(Event::Applied(facts.committed));
    let position = Position { index: facts.committed, term: facts.term };
    let conf_state = found(&[raft_id(1, 1), raft_id(2, 1), raft_id(3, 1)]);
    one.log.reset(position.index, position.term, None).unwrap();
    one.tell(Event::Checkpointed { position, conf_state, first_index: position.index + 1 });
    let progress = one.consensus.node.raft.mut_prs().get_mut(raft_id(3, 1)).unwrap();
    (progress.matched, progress.next_idx) = (0, 1);
    progress.become_probe();
    one.hear(3, message(RaftKind::HeartbeatResponse, 3, facts.term));
    assert_eq!(one.snapshots.drain(..).count(), 1);
    (one, facts.term, position)
}

/// raft knows only who was heard since it last looked for its quorum, and a purge just behind that look ended the log of all.
#[test]
fn the_log_is_wanted_by_followers_that_were_there_a_moment_ago() {
    let mut one = One::new();
    assert_eq!(one.consensus.wanted_by_followers(one.now), None);
    one.lead();
    let facts = one.consensus.facts();
    one.hear(2, RaftMessage { index: facts.last_index, ..message(RaftKind::AppendResponse, 2, facts.term) });
    assert_eq!(one.consensus.wanted_by_followers(one.now), Some(facts.last_index + 1));
    assert_eq!(one.consensus.wanted_by_followers(one.now + WANTED_FOR), Some(facts.last_index + 1));
    assert_eq!(one.consensus.wanted_by_followers(one.now + WANTED_FOR + Duration::from_millis(1)), None);
    // Of one that is sent a tree, only what comes behind that is still to come.
    let (one, _, position) = sends_a_snapshot_to_three();
    assert_eq!(one.consensus.wanted_by_followers(one.now), Some(position.index + 1));
}

/// It was sent a second one at once, and a third: each time its clients had to connect anew.
#[test]
fn who_puts_a_snapshot_in_place_is_not_sent_another() {
    let (mut one, term, position) = sends_a_snapshot_to_three();
    one.tell(Event::SnapshotSent { to: 3, ok: true });
    for _ in 0..10 {
        one.tick(1);
        for other in [2, 3] {
            one.hear(other, message(RaftKind::HeartbeatResponse, other, term));
        }
        let behind =
            RaftMessage { index: position.index, reject: true, ..message(RaftKind::AppendResponse, 3, term) };
        one.hear(3, behind);
        assert!(one.snapshots.is_empty());
    }
    one.hear(3, RaftMessage { index: position.index, ..message(RaftKind::AppendResponse, 3, term) });
    let progress = one.consensus.node.raft.prs().get(raft_id(3, 1)).unwrap();
    assert_eq!((progress.matched, progress.next_idx), (position.index, position.index + 1));
}

#[test]
fn who_never_says_that_its_snapshot_is_in_place_is_sent_another() {
    let (mut one, term, position) = sends_a_snapshot_to_three();
    one.tell(Event::SnapshotSent { to: 3, ok: true });
    let mut ticks = 0;
    while one.snapshots.is_empty() {
        one.tick(1);
        for other in [2, 3] {
            one.hear(other, message(RaftKind::HeartbeatResponse, other, term));
        }
        let behind =
            RaftMessage { index: position.index, reject: true, ..message(RaftKind::AppendResponse, 3, term) };
        one.hear(3, behind);
        ticks += 1;
        assert!(ticks < 1_000, "it is forgotten");
    }
    assert!(ticks > 100, "it had {ticks} ticks");
    // One whose link breaks is not waited for.
    let (mut one, term, _) = sends_a_snapshot_to_three();
    one.tell(Event::SnapshotSent { to: 3, ok: true });
    one.tell(Event::Unreachable { server: 3 });
    one.hear(3, message(RaftKind::HeartbeatResponse, 3, term));
    assert_eq!(one.snapshots.len(), 1);
}

#[test]
fn every_kind_of_message_survives_the_wire() {
    use super::super::wire::{to_peer, to_raft};
    for kind in [
        RaftKind::Append,
        RaftKind::AppendResponse,
        RaftKind::RequestVote,
        RaftKind::RequestVoteResponse,
        RaftKind::RequestPreVote,
        RaftKind::RequestPreVoteResponse,
        RaftKind::Heartbeat,
        RaftKind::HeartbeatResponse,
        RaftKind::Snapshot,
        RaftKind::TimeoutNow,
        RaftKind::ReadIndex,
        RaftKind::ReadIndexResponse,
        RaftKind::TransferLeader,
    ] {
        let head = SnapshotHead { index: 8, term: 9, conf_state: found(&[1, 2]).into() };
        let entry = PeerEntry { index: 15, term: 16, conf_change: true, data: Bytes::from_static(b"x") };
        let all = RaftMessage {
            kind,
            to: 1,
            from: 2,
            term: 3,
            log_term: 4,
            index: 5,
            commit: 6,
            commit_term: 7,
            request_snapshot: 10,
            reject: true,
            reject_hint: 11,
            priority: 12,
            context: Bytes::from_static(b"c"),
            entries: vec![entry],
            snapshot: (kind == RaftKind::Snapshot).then_some(head),
        };
        let raft = to_raft(all.clone());
        assert_ne!(raft.get_msg_type(), MessageType::MsgHup);
        assert_eq!(to_peer(raft), all);
    }
}

#[test]
fn followers_that_are_behind_are_read_for_a_turn_at_a_time() {
    const RECORD_BYTES: usize = 200 << 10;
    const RECORDS: usize = 20;
    let mut one = One::new();
    one.lead();
    let matched = one.consensus.facts().last_index;
    for _ in 0..RECORDS {
        one.tell(Event::Submit(vec![Submission::LeaderOnly(vec![0; RECORD_BYTES])]));
        one.persist();
        let facts = one.consensus.facts();
        let all = RaftMessage { index: facts.last_index, ..message(RaftKind::AppendResponse, 2, facts.term) };
        one.hear(2, all);
    }
    let facts = one.consensus.facts();
    assert_eq!((facts.committed, facts.last_index), (matched + RECORDS as u64, matched + RECORDS as u64));
    // It was away, and is back with what it had.
    one.tell(Event::Unreachable { server: 3 });
    one.tick(1);
    one.sent.clear();
    one.hear(3, message(RaftKind::HeartbeatResponse, 3, facts.term));
    assert_eq!(one.take_sent(RaftKind::Append).len(), 1, "it is asked whether it has what it had");
    one.tick(1);
    one.sent.clear();
    one.hear(3, RaftMessage { index: matched + 1, ..message(RaftKind::AppendResponse, 3, facts.term) });
    let mut first = matched + 2;
    let mut turns = 0;
    while first <= facts.last_index {
        let sent = one.take_sent(RaftKind::Append);
        assert!(sent.iter().all(|m| m.to == raft_id(3, 1)));
        let entries: Vec<&PeerEntry> = sent.iter().flat_map(|m| &m.entries).collect();
        let bytes: usize = entries.iter().map(|entry| entry.data.len()).sum();
        assert!(!entries.is_empty() && bytes < READ_BYTES_MAX + RECORD_BYTES, "{bytes} bytes in one turn");
        assert!(entries.iter().map(|entry| entry.index).eq(first..first + entries.len() as u64));
        first += entries.len() as u64;
        turns += 1;
        // What is left has the next turn, and waits for nobody's answer.
        let next = one.consensus.poll_timeout();
        if first <= facts.last_index {
            assert_eq!(next.us, one.now.us + 1);
        }
        one.now = next;
        one.tell(Event::Tick);
    }
    assert!(turns > 3, "{turns}");
}
