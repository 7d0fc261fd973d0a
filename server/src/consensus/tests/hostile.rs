//! A peer with a good certificate and bad messages: what it says may cost an election, and never the process.

use super::super::Event;
use super::cluster::Dice;
use super::rules::{One, message};
use crate::entropy::Entropy as _;
use bytes::Bytes;
use warren_storage::Entry;
use warren_transport::peer::{
    Forward, ForwardAck, Forwarded, PeerEntry, PeerMessage, RaftKind, RaftMessage, SnapshotHead,
};

const KINDS: [RaftKind; 13] = [
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
];

/// A number near those that are believed, and now and then any.
fn near(dice: &mut Dice, known: u64) -> u64 {
    match dice.next_u64() % 16 {
        0 => dice.next_u64(),
        1 => 0,
        more => (known + more).saturating_sub(8),
    }
}

fn nonsense(one: &One, dice: &mut Dice) -> RaftMessage {
    let facts = one.consensus.facts();
    let from = 2 + (dice.next_u64() % 2) as u8;
    let kind = KINDS[dice.next_u64() as usize % KINDS.len()];
    // Terms that only rise leave nothing to contradict.
    let term = match dice.next_u64() % 8 {
        0 => near(dice, facts.term),
        1 => facts.term + 1,
        _ => facts.term,
    };
    let index = near(dice, facts.last_index);
    let data = match dice.next_u64() % 3 {
        0 => Vec::new(),
        1 => Entry::NewEpoch { time_ms: dice.next_u64() as i64 }.encode(),
        _ => dice.next_u64().to_be_bytes().to_vec(),
    };
    let mut entries = Vec::new();
    for n in 1..=dice.next_u64() % 4 {
        entries.push(PeerEntry {
            index: if dice.next_u64() % 8 == 0 { near(dice, index) } else { index.saturating_add(n) },
            term: if dice.next_u64() % 4 == 0 { near(dice, term) } else { term },
            conf_change: dice.next_u64() % 16 == 0,
            data: Bytes::from(data.clone()),
        });
    }
    RaftMessage {
        log_term: near(dice, term),
        index,
        entries,
        commit: near(dice, facts.last_index),
        commit_term: near(dice, facts.term),
        request_snapshot: if dice.next_u64() % 8 == 0 { near(dice, index) } else { 0 },
        reject: dice.next_u64() % 2 == 0,
        reject_hint: near(dice, facts.last_index),
        priority: if dice.next_u64() % 8 == 0 { dice.next_u64() as i64 } else { 0 },
        context: Bytes::from(data),
        snapshot: (dice.next_u64() % 8 == 0).then(|| SnapshotHead {
            index,
            term,
            conf_state: Bytes::from(dice.next_u64().to_be_bytes().to_vec()),
        }),
        ..message(kind, from, term)
    }
}

#[test]
fn a_peer_that_talks_nonsense_brings_nobody_down() {
    for seed in 0..300 {
        let mut dice = Dice::new(seed);
        let mut one = One::new();
        if seed % 2 == 0 {
            one.lead();
        }
        for _ in 0..1000 {
            let message = nonsense(&one, &mut dice);
            let from = 2 + (dice.next_u64() % 2) as u8;
            match dice.next_u64() % 8 {
                0 => one.tick(1),
                1 => one.persist(),
                2 => {
                    let begin = near(&mut dice, 1);
                    let forward = Forward {
                        incarnation: dice.next_u64(),
                        term: near(&mut dice, message.term),
                        begin,
                        first: near(&mut dice, begin),
                        requests: vec![Forwarded::Command(message.context.clone())],
                    };
                    one.tell(Event::Peer { from, message: PeerMessage::Forward(forward) });
                }
                3 => {
                    let ack = ForwardAck { incarnation: 7, term: message.term, upto: near(&mut dice, 1) };
                    one.tell(Event::Peer { from, message: PeerMessage::ForwardAck(ack) });
                }
                _ => one.hear(from, message),
            }
        }
        assert!(one.refused() > 0);
    }
}
