//! What travels on a link.

use super::harness::*;
use crate::io::links::endpoint::MTU_BYTES_MAX;
use crate::io::links::{
    QUEUE_APPEND_BYTES_MAX, RefusalReason, SNAPSHOT_CHUNK_BYTES_MAX, SNAPSHOTS_PER_LINK_MAX,
    STREAM_WINDOW_BYTES, SendError, SnapshotError,
};
use crate::peer::{Lane, PeerMessage, RaftKind, codec};
use bytes::{Bytes, BytesMut};
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn messages_of_one_lane_arrive_in_order_and_whole() {
    let ca = Ca::new("prod");
    let (one, two) = pair(&ca);
    let each = 500;
    for n in 0..each {
        one.links.send(2, heartbeat(n)).unwrap();
        one.links.send(2, append(n, (n as usize % 7) * 1000)).unwrap();
        two.links.send(1, ack(n)).unwrap();
        two.links.send(1, forward_ack(n)).unwrap();
    }
    let mut next = [0, 0];
    while next != [each, each] {
        let (from, message) = two.told.message();
        assert_eq!(from, 1);
        let lane = if message.lane() == Lane::Consensus { 0 } else { 1 };
        let n = next[lane];
        assert_eq!(message, if lane == 0 { heartbeat(n) } else { append(n, (n as usize % 7) * 1000) });
        next[lane] += 1;
    }
    for n in 0..each {
        assert_eq!(one.told.message(), (2, ack(n)));
        assert_eq!(one.told.message(), (2, forward_ack(n)));
    }
}

#[test]
fn the_longest_message_passes_and_a_longer_one_is_refused_here() {
    let ca = Ca::new("prod");
    let (one, two) = pair(&ca);
    let longest = (0..)
        .map(|over| codec::FRAME_BYTES_MAX - over)
        .find(|bytes| codec::size_bound(&append(1, *bytes)).is_ok());
    let longest = longest.unwrap();
    assert!(codec::FRAME_BYTES_MAX - longest < 1024);
    one.links.send(2, append(1, longest)).unwrap();
    assert_eq!(two.told.message(), (1, append(1, longest)));
    assert!(matches!(one.links.send(2, append(1, longest + 1)), Err(SendError::Message(_))));
    let mut vote = raft(RaftKind::RequestVote, 1);
    vote.context = Bytes::from(vec![0; codec::CONSENSUS_FRAME_BYTES_MAX]);
    assert!(matches!(one.links.send(2, PeerMessage::Raft(vote)), Err(SendError::Message(_))));
}

/// Loopback takes far longer ones than Ethernet, and quinn hands ten to the kernel at once.
#[test]
fn datagrams_are_as_long_as_the_path_takes_and_several_are_sent_at_once() {
    let ca = Ca::new("prod");
    let (one, two) = pair(&ca);
    let connection = one.links.shared.peer(2).unwrap().live().unwrap().connection.clone();
    let until = Instant::now() + PATIENCE;
    let mut sent = 0;
    while connection.stats().path.current_mtu < MTU_BYTES_MAX {
        assert!(Instant::now() < until, "{:?}", connection.stats().path);
        one.links.send(2, append(sent, 100_000)).unwrap();
        assert_eq!(two.told.message(), (1, append(sent, 100_000)));
        sent += 1;
    }
    let before = connection.stats();
    for n in sent..sent + 50 {
        one.links.send(2, append(n, 500_000)).unwrap();
        assert_eq!(two.told.message(), (1, append(n, 500_000)));
    }
    let after = connection.stats();
    let bytes = after.udp_tx.bytes - before.udp_tx.bytes;
    let datagrams = after.udp_tx.datagrams - before.udp_tx.datagrams;
    // Were they too long together, the kernel would take none, and they would be taken for too long for the path.
    assert!(bytes / datagrams > u64::from(MTU_BYTES_MAX) / 2, "{bytes} bytes in {datagrams} datagrams");
    let calls = after.udp_tx.ios - before.udp_tx.ios;
    assert!(datagrams > calls, "{datagrams} datagrams by {calls} calls");
}

/// By QUIC's own rule each message here would be acknowledged by itself, as it takes more than one datagram.
#[test]
fn several_messages_are_acknowledged_together() {
    let ca = Ca::new("prod");
    let (one, two) = pair(&ca);
    let connection = one.links.shared.peer(2).unwrap().live().unwrap().connection.clone();
    let until = Instant::now() + PATIENCE;
    let acks = || connection.stats().frame_rx.acks;
    let (mut sent, mut together) = (0, 0);
    while together < 5 {
        let before = acks();
        for _ in 0..10 {
            one.links.send(2, append(sent, 10_000)).unwrap();
            assert_eq!(two.told.message(), (1, append(sent, 10_000)));
            sent += 1;
        }
        let told = acks() - before;
        // Where the machine is slow, time is what makes them due.
        together += u32::from(told <= 5);
        assert!(Instant::now() < until, "the last 10 messages were acknowledged {told} times");
    }
}

/// A peer that does not read its appends: the queue takes what it may, then says so; heartbeats pass; and when the peer reads
/// again, so do appends.
#[test]
fn a_lane_that_stands_still_overflows_and_delays_no_other() {
    let ca = Ca::new("prod");
    let (one, raw) = one_and_raw(&ca);
    let connection = raw.link(&one, &ca.files(2));
    one.told.up(2);
    let lanes = raw.runtime.block_on(async {
        let mut lanes = Vec::new();
        for tag in 0..3_u8 {
            let mut lane = connection.accept_uni().await.unwrap();
            let mut first = [0];
            lane.read_exact(&mut first).await.unwrap();
            assert_eq!(first, [tag]);
            lanes.push(lane);
        }
        lanes
    });
    let [mut consensus, mut appends, _requests] = <[quinn::RecvStream; 3]>::try_from(lanes).unwrap();

    let bytes = 1 << 20;
    let mut sent = 0;
    while one.links.send(2, append(sent, bytes)).is_ok() {
        sent += 1;
        assert!(
            sent as usize * bytes <= QUEUE_APPEND_BYTES_MAX + 64 * STREAM_WINDOW_BYTES as usize,
            "a bound holds"
        );
    }
    assert_eq!(one.links.send(2, append(sent, bytes)), Err(SendError::Overflow(Lane::Append)));
    assert!(sent as usize * bytes >= QUEUE_APPEND_BYTES_MAX - bytes);
    let facts = &one.links.facts()[0];
    assert!(facts.overflows >= 2 && facts.up.unwrap().queued_bytes <= QUEUE_APPEND_BYTES_MAX);

    one.links.send(2, heartbeat(7)).unwrap();
    let mut frames = bytes::BytesMut::new();
    codec::encode(&heartbeat(7), &mut frames);
    let mut came = vec![0; frames.len()];
    raw.runtime.block_on(consensus.read_exact(&mut came)).unwrap();
    assert_eq!(came, frames);

    frames.clear();
    codec::encode(&append(0, bytes), &mut frames);
    for _ in 0..8 {
        let mut came = vec![0; frames.len()];
        raw.runtime.block_on(appends.read_exact(&mut came)).unwrap();
    }
    let until = Instant::now() + PATIENCE;
    while one.links.send(2, append(sent, bytes)).is_err() {
        assert!(Instant::now() < until, "there is room again");
        std::thread::yield_now();
    }
}

fn encoded(message: &PeerMessage) -> BytesMut {
    let mut frame = BytesMut::new();
    codec::encode(message, &mut frame);
    frame
}

fn chunk(n: usize) -> Vec<u8> {
    vec![n as u8; 1 + (n * 777_777) % SNAPSHOT_CHUNK_BYTES_MAX]
}

#[test]
fn a_snapshot_arrives_chunk_by_chunk_and_says_that_it_is_whole() {
    let ca = Ca::new("prod");
    let (one, two) = pair(&ca);
    let chunks = 20;
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let mut sender = one.links.open_snapshot(2, head(77)).unwrap();
            for n in 0..chunks {
                sender.send(chunk(n)).unwrap();
            }
            sender.finish().unwrap();
        });
        let (from, mut receiver) = two.told.snapshot();
        assert_eq!((from, receiver.head()), (1, &head(77)));
        for n in 0..chunks {
            assert!(receiver.next_chunk().unwrap() == Some(chunk(n)), "chunk {n}");
        }
        assert_eq!(receiver.next_chunk().unwrap(), None);
        assert_eq!(receiver.next_chunk().unwrap(), None);
        sending.join().unwrap();
    });
}

#[test]
fn a_snapshot_that_nobody_reads_delays_no_message() {
    let ca = Ca::new("prod");
    let (one, two) = pair(&ca);
    std::thread::scope(|scope| {
        let mut senders = Vec::new();
        for n in 0..2 {
            let mut sender = one.links.open_snapshot(2, head(n)).unwrap();
            senders.push(scope.spawn(move || while sender.send(vec![7; 100_000]).is_ok() {}));
        }
        let _receivers = [two.told.snapshot(), two.told.snapshot()];
        for n in 0..200 {
            one.links.send(2, heartbeat(n)).unwrap();
            one.links.send(2, append(n, 10_000)).unwrap();
        }
        let mut heartbeats = 0;
        while heartbeats < 200 {
            heartbeats += u64::from(two.told.message().1 == heartbeat(heartbeats));
        }
        two.links.stop();
        for sender in senders {
            sender.join().unwrap();
        }
    });
}

#[test]
fn a_snapshot_that_is_given_up_is_not_whole() {
    let ca = Ca::new("prod");
    let (one, two) = pair(&ca);
    let mut sender = one.links.open_snapshot(2, head(1)).unwrap();
    sender.send(b"a part".to_vec()).unwrap();
    let (_, mut receiver) = two.told.snapshot();
    assert_eq!(receiver.next_chunk().unwrap().unwrap(), b"a part");
    drop(sender);
    assert!(matches!(receiver.next_chunk(), Err(SnapshotError::GivenUp)));

    let mut sender = one.links.open_snapshot(2, head(2)).unwrap();
    let (_, receiver) = two.told.snapshot();
    drop(receiver);
    let why = loop {
        if let Err(why) = sender.send(vec![0; 1000]) {
            break why;
        }
    };
    assert!(matches!(why, SnapshotError::GivenUp));
    assert!(matches!(sender.finish(), Err(SnapshotError::GivenUp)));

    // The link is none the worse for it.
    one.links.send(2, heartbeat(1)).unwrap();
    assert_eq!(two.told.message(), (1, heartbeat(1)));
}

#[test]
fn a_snapshot_ends_with_its_link() {
    let ca = Ca::new("prod");
    let (one, two) = pair(&ca);
    let mut sender = one.links.open_snapshot(2, head(1)).unwrap();
    sender.send(b"a part".to_vec()).unwrap();
    let (_, mut receiver) = two.told.snapshot();
    assert!(receiver.next_chunk().unwrap().is_some());
    two.links.stop();
    assert!(matches!(receiver.next_chunk(), Err(SnapshotError::Broken)));
    one.told.down(2);
    assert!(matches!(sender.send(b"more".to_vec()), Err(SnapshotError::Broken)));
    assert!(matches!(one.links.open_snapshot(2, head(1)), Err(SnapshotError::Down(2))));
}

/// As when others keep all processors busy: a link is found silent long before.
#[test]
fn a_snapshot_whose_threads_stand_still_for_a_while_arrives() {
    let ca = Ca::new("prod");
    let idle = Duration::from_millis(300);
    let (one, two) = pair_with(&ca, |config| config.timers.idle = idle);
    let mut sender = one.links.open_snapshot(2, head(1)).unwrap();
    sender.send(chunk(1)).unwrap();
    let (_, mut receiver) = two.told.snapshot();
    assert!(receiver.next_chunk().unwrap() == Some(chunk(1)));
    let busy =
        [&one, &two].map(|server| server.links.shared.bulk.spawn(async move { thread::sleep(3 * idle) }));
    sender.send(chunk(2)).unwrap();
    sender.finish().unwrap();
    assert!(receiver.next_chunk().unwrap() == Some(chunk(2)));
    assert_eq!(receiver.next_chunk().unwrap(), None);
    assert!(busy.iter().all(tokio::task::JoinHandle::is_finished));
    assert!(!two.told.has(|told| matches!(told, Told::Down(..))));
}

#[test]
fn what_is_no_snapshot_is_not_sent_as_one() {
    let ca = Ca::new("prod");
    let (one, _two) = pair(&ca);
    assert!(matches!(one.links.open_snapshot(2, raft(RaftKind::Append, 1)), Err(SnapshotError::Head)));
    assert!(matches!(one.links.open_snapshot(9, head(1)), Err(SnapshotError::Down(9))));
    let mut sender = one.links.open_snapshot(2, head(1)).unwrap();
    assert!(matches!(sender.send(Vec::new()), Err(SnapshotError::Chunk { bytes: 0 })));
    assert!(matches!(sender.send(vec![0; SNAPSHOT_CHUNK_BYTES_MAX + 1]), Err(SnapshotError::Chunk { .. })));
}

/// A sender whose stream ends without the word that it is whole.
#[test]
fn a_snapshot_that_is_cut_off_is_not_whole() {
    let ca = Ca::new("prod");
    let (one, raw) = one_and_raw(&ca);
    let _link = raw.link(&one, &ca.files(2));
    one.told.up(2);
    let opening = encoded(&PeerMessage::Raft(head(1)));
    let connection = raw.connect_for_snapshot(one.addr(), &ca.files(2));
    raw.ended_stream(&connection, &opening);
    let (_, mut receiver) = one.told.snapshot();
    assert!(matches!(receiver.next_chunk(), Err(SnapshotError::CutOff)));
    raw.closed(&connection);

    let too_long = [&opening[..], &u32::MAX.to_be_bytes()].concat();
    let connection = raw.connect_for_snapshot(one.addr(), &ca.files(2));
    raw.stream(&connection, &too_long);
    let (_, mut receiver) = one.told.snapshot();
    assert!(matches!(receiver.next_chunk(), Err(SnapshotError::Chunk { .. })));
    raw.closed(&connection);
}

#[test]
fn a_snapshot_comes_beside_a_link_only_and_few_at_once() {
    let ca = Ca::new("prod");
    let (one, raw) = one_and_raw(&ca);
    let alone = raw.connect_for_snapshot(one.addr(), &ca.files(2));
    raw.closed(&alone);
    let link = raw.link(&one, &ca.files(2));
    one.told.up(2);
    let opening = encoded(&PeerMessage::Raft(head(1)));
    let mut under_way = Vec::new();
    for _ in 0..SNAPSHOTS_PER_LINK_MAX {
        let connection = raw.connect_for_snapshot(one.addr(), &ca.files(2));
        raw.stream(&connection, &opening);
        under_way.push((connection, one.told.snapshot()));
    }
    let one_more = raw.connect_for_snapshot(one.addr(), &ca.files(2));
    raw.closed(&one_more);
    // When one is given up there is room again.
    let (given_up, receiver) = under_way.pop().unwrap();
    drop(receiver);
    raw.closed(&given_up);
    let connection = raw.connect_for_snapshot(one.addr(), &ca.files(2));
    raw.stream(&connection, &opening);
    under_way.push((connection, one.told.snapshot()));
    // And all of them end with the link.
    link.close(0u32.into(), b"");
    for (connection, (_, mut receiver)) in under_way {
        raw.closed(&connection);
        assert!(matches!(receiver.next_chunk(), Err(SnapshotError::Broken | SnapshotError::GivenUp)));
    }
}

#[test]
fn what_does_not_begin_as_a_snapshot_ends_the_link_too() {
    let ca = Ca::new("prod");
    let (one, raw) = one_and_raw(&ca);
    let link = raw.link(&one, &ca.files(2));
    one.told.up(2);
    let connection = raw.connect_for_snapshot(one.addr(), &ca.files(2));
    raw.stream(&connection, &encoded(&append(1, 10)));
    one.told.refused(RefusalReason::BadStream);
    raw.closed(&connection);
    raw.closed(&link);
}

/// The mark and the protocol belong together.
#[test]
fn a_connection_is_what_its_mark_says() {
    let ca = Ca::new("prod");
    let (one, raw) = one_and_raw(&ca);
    for (alpn, marked) in [(&b"warren-snapshot/1"[..], false), (b"warren/1", true)] {
        let connecting = raw.connecting_as(one.addr(), Some(&ca.files(2)), alpn, marked);
        assert!(raw.runtime.block_on(connecting).is_err());
        one.told.refused(RefusalReason::Protocol);
    }
}
