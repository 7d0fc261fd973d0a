//! Go-back-N without raft: a channel that loses, doubles and delays.

use super::super::forward::{
    FORWARD_MESSAGE_BYTES_MAX, FORWARD_RETRY, FORWARD_WINDOW_BYTES, Inbox, Item, Outbox,
};
use super::super::interface::Submission;
use super::cluster::Dice;
use crate::moment::Moment;
use bytes::Bytes;
use std::time::Duration;
use warren_storage::{Command, Logged, Tag};
use warren_transport::peer::{Forward, ForwardAck, Forwarded};

const NOW: Moment = Moment { us: 1_000_000, wall_ms: 0 };
const RUN: u64 = 77;

fn write(sequence: u64) -> Vec<u8> {
    let tag = Some(Tag { session: 1, generation: 1, sequence });
    Logged { tag, ids: Vec::new(), command: Command::CloseSession }.encode()
}

fn sequence(item: Item<'_>) -> u64 {
    let Item::Command(encoded) = item else { panic!("only writes here") };
    Logged::decode(encoded).unwrap().tag.unwrap().sequence
}

/// Propose all that waits; the writes, in order, and the acknowledgement.
fn propose(inbox: &mut Inbox) -> (Vec<u64>, Option<ForwardAck>) {
    let mut out = Vec::new();
    for run in inbox.runs() {
        loop {
            let waiting =
                run.waiting().map(|(first, items)| (first, items.map(sequence).collect::<Vec<_>>()));
            let Some((first, sequences)) = waiting else { break };
            let last = first + sequences.len() as u64 - 1;
            out.extend(sequences);
            run.on_proposed(last);
        }
    }
    (out, inbox.poll_ack(5).map(|(_, ack)| ack))
}

#[test]
fn each_request_is_proposed_once_and_in_order_on_any_channel() {
    for seed in 0..200 {
        let mut dice = Dice::new(seed);
        let (mut outbox, mut inbox) = (Outbox::new(RUN), Inbox::default());
        let (mut now, mut asked, mut log) = (NOW, 0, Vec::new());
        let mut channel: Vec<Forward> = Vec::new();
        let mut acks: Vec<ForwardAck> = Vec::new();
        let mut settled = 0;
        while asked < 200 || settled < 200 {
            now = now + Duration::from_millis(dice.below(100));
            for _ in 0..dice.below(10) {
                if asked < 200 {
                    asked += 1;
                    outbox.push(now, Submission::Command(write(asked)));
                }
            }
            while let Some(forward) = outbox.poll_forward(now, 5) {
                for _ in 0..dice.below(3) {
                    channel.push(forward.clone());
                }
            }
            while !channel.is_empty() && !dice.chance(300) {
                let at = dice.below(channel.len() as u64) as usize;
                assert_eq!(inbox.take(2, channel.swap_remove(at)), 0);
                let (proposed, ack) = propose(&mut inbox);
                log.extend(proposed);
                acks.extend(ack.filter(|_| !dice.chance(300)));
            }
            while !acks.is_empty() && !dice.chance(300) {
                let at = dice.below(acks.len() as u64) as usize;
                assert!(outbox.on_ack(now, &acks.swap_remove(at)));
            }
            // The log's numbers are the origin's: one write each.
            if dice.chance(300) && settled < log.len() as u64 {
                settled += 1 + dice.below(log.len() as u64 - settled);
                outbox.settle(now, settled);
            }
        }
        assert_eq!(log, (1..=200).collect::<Vec<u64>>(), "seed {seed}");
        assert_eq!(outbox.len(), 0);
    }
}

#[test]
fn what_is_not_acknowledged_is_sent_again_and_not_before() {
    let mut outbox = Outbox::new(RUN);
    outbox.push(NOW, Submission::Command(write(1)));
    let sent = outbox.poll_forward(NOW, 5).unwrap();
    assert_eq!((sent.first, sent.begin, sent.requests.len()), (1, 1, 1));
    assert_eq!(outbox.poll_forward(NOW + FORWARD_RETRY / 2, 5), None);
    assert_eq!(outbox.poll_forward(NOW + FORWARD_RETRY, 5), Some(sent));
    let ack = ForwardAck { term: 5, incarnation: RUN, upto: 1 };
    assert!(outbox.on_ack(NOW, &ack));
    assert_eq!(outbox.poll_forward(NOW + FORWARD_RETRY * 3, 5), None, "it waits for the commit");
    outbox.begin_term();
    assert!(outbox.is_tried());
    assert_eq!(outbox.poll_forward(NOW, 6).map(|f| (f.term, f.first)), Some((6, 1)), "another leader");
    assert_eq!(outbox.settle(NOW, 1), Some(NOW.us));
    assert!(!outbox.on_ack(NOW, &ForwardAck { upto: 9, ..ack }), "never sent");
}

#[test]
fn the_window_and_the_message_are_bounded() {
    let mut outbox = Outbox::new(RUN);
    for _ in 0..100 {
        outbox.push(NOW, Submission::Command(vec![0; 100 << 10]));
    }
    let mut bytes = 0;
    let mut messages = 0;
    while let Some(forward) = outbox.poll_forward(NOW, 5) {
        let size: usize = forward
            .requests
            .iter()
            .map(|r| match r {
                Forwarded::Command(encoded) | Forwarded::Reconfigure(encoded) => encoded.len(),
                Forwarded::OpenSession { .. } => 0,
            })
            .sum();
        assert!(size <= FORWARD_MESSAGE_BYTES_MAX);
        bytes += size;
        messages += 1;
    }
    assert!(bytes <= FORWARD_WINDOW_BYTES && bytes > FORWARD_WINDOW_BYTES - (400 << 10), "{bytes}");
    assert_eq!(messages, 20);
    let mut outbox = Outbox::new(RUN);
    outbox.push(NOW, Submission::Command(vec![0; FORWARD_WINDOW_BYTES + 1]));
    assert!(outbox.poll_forward(NOW, 5).is_some(), "a larger one goes alone");
}

#[test]
fn the_leader_keeps_no_more_than_a_window_of_a_run() {
    let mut inbox = Inbox::default();
    let big = Logged { tag: None, ids: Vec::new(), command: move_of(2, RUN) }.encode();
    for n in 0..200_000 {
        let requests = vec![Forwarded::Command(Bytes::from(big.clone()))];
        inbox.take(2, Forward { term: 5, incarnation: RUN, first: n + 1, begin: 1, requests });
    }
    assert!(inbox.bytes() <= FORWARD_WINDOW_BYTES, "{}", inbox.bytes());
    let kept = inbox.bytes();
    for run in RUN + 1..RUN + 20 {
        inbox.take(2, Forward { term: 5, incarnation: run, first: 1, begin: 1, requests: Vec::new() });
    }
    assert!(inbox.bytes() < kept, "the run that was not heard of is forgotten");
}

fn move_of(owner: u8, incarnation: u64) -> Command<'static> {
    Command::MoveSession {
        session: 1,
        generation: 1,
        password: [0; 16],
        owner,
        incarnation,
        request: 1,
        timeout_ms: 1,
    }
}

#[test]
fn what_a_server_may_not_ask_is_refused_and_those_behind_it_are_not() {
    let create = Command::CreateSession {
        session: 1,
        timeout_ms: 1,
        password: [0; 16],
        owner: 2,
        incarnation: RUN,
        request: 1,
    };
    let untagged = |command| Logged { tag: None, ids: Vec::new(), command }.encode();
    let bad = [
        untagged(create),
        untagged(Command::Expire { session: 1, generation: 1, epoch: 1 }),
        untagged(Command::CloseSession),
        untagged(move_of(3, RUN)),
        untagged(move_of(2, RUN + 1)),
        vec![0xff; 20],
    ];
    let count = bad.len() as u64;
    let mut requests: Vec<Forwarded> = bad.into_iter().map(|b| Forwarded::Command(b.into())).collect();
    requests.push(Forwarded::Command(write(1).into()));
    let mut inbox = Inbox::default();
    let forward = Forward { term: 5, incarnation: RUN, first: 1, begin: 1, requests };
    assert_eq!(inbox.take(2, forward), count);
    let (proposed, ack) = propose(&mut inbox);
    assert_eq!((proposed, ack.map(|a| a.upto)), (vec![1], Some(count + 1)));
    // Numbers that contradict each other.
    let forward = Forward { term: 5, incarnation: RUN, first: 1, begin: 2, requests: Vec::new() };
    assert_eq!(inbox.take(2, forward), 1);
}

#[test]
fn what_an_origin_gave_up_is_skipped() {
    let (mut outbox, mut inbox) = (Outbox::new(RUN), Inbox::default());
    for n in 1..=3 {
        outbox.push(NOW, Submission::Command(write(n)));
    }
    inbox.take(2, outbox.poll_forward(NOW, 5).unwrap());
    assert_eq!(propose(&mut inbox).0, [1, 2, 3]);
    outbox.push(NOW, Submission::Command(write(4)));
    outbox.give_up();
    outbox.push(NOW, Submission::Command(write(5)));
    inbox.take(2, outbox.poll_forward(NOW, 5).unwrap());
    let (proposed, ack) = propose(&mut inbox);
    assert_eq!((proposed, ack.map(|a| a.upto)), (vec![5], Some(5)));
}
