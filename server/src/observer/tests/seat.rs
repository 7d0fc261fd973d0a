//! When a server changes from the one machine to the other, and when not: what the simulator found, one case each.

use super::*;
use crate::consensus::{found, joining, raft_id};
use warren_storage::tree::Begun;
use warren_storage::{Recovered, Tree, TreeOptions, recover};
use warren_transport::peer::PeerEntry;

const NOW: Moment = Moment { us: 1_000_000, wall_ms: 0 };

fn member(id: ServerId, disk: u32, role: MemberRole) -> Member {
    Member { id, disk, role, peer_addr: format!("s{id}:2182"), client_addr: String::new() }
}

fn table(version: i64, servers: Vec<Member>) -> Event {
    Event::Members { members: Members { version, servers }, retired: Default::default(), recorded: true }
}

/// Server 4 observes three voters.
fn observing() -> Sitting {
    let log = log();
    let others = others(4, 0);
    let seat = Seat::new(NOW, start(&log, 4), Part::Observer { others, fed_by: Vec::new() }).unwrap();
    Sitting { now: NOW, seat, log }
}

fn three() -> Vec<Member> {
    (1..=3).map(|id| member(id, 1, MemberRole::Voter)).collect()
}

fn with(disk: u32, role: MemberRole) -> Vec<Member> {
    let mut servers = three();
    servers.push(member(4, disk, role));
    servers
}

/// It asks for a feeder; which one, and the number of the feed.
fn asks(actions: &[Action]) -> Option<(ServerId, Observe)> {
    actions.iter().find_map(|action| match action {
        Action::Send { to, message: PeerMessage::Observe(observe) } => Some((*to, observe.clone())),
        _ => None,
    })
}

fn entries(from: ServerId, feed: u64, behind: u64, upto: u64) -> Event {
    let entry = |index| PeerEntry { index, term: 3, conf_change: false, data: Default::default() };
    let feed = Feed {
        incarnation: INCARNATION,
        feed,
        index: behind,
        log_term: if behind == 0 { 0 } else { 3 },
        commit: upto,
        term: 3,
        leader: Some(1),
        path: Vec::new(),
        entries: (behind + 1..=upto).map(entry).collect(),
    };
    Event::Peer { from, message: PeerMessage::Feed(feed) }
}

fn empty() -> Tree {
    let options = TreeOptions { memory_bytes: 1 << 20, hash_seed: 1, store_id: 1 };
    let Recovered { tree, .. } = recover(Arc::new(SimDisk::new()), options, LogOptions::default()).unwrap();
    tree
}

fn tree(conf_state: Vec<u8>) -> Tree {
    let mut tree = empty();
    tree.take_part(1, conf_state, Begun::default()).unwrap();
    tree
}

/// A server that was removed is in no table, and a joint configuration may count its vote until it is left.
#[test]
fn whose_vote_counts_begins_as_a_voter_whatever_table_and_file_say() {
    let votes = tree(found(&[raft_id(1, 1), raft_id(2, 1)]));
    assert!(!begins_observing(&votes, 1, true));
    assert!(begins_observing(&votes, 3, true) && !begins_observing(&votes, 3, false));
    let learns = tree(joining(raft_id(1, 1)));
    assert!(begins_observing(&learns, 1, true), "it has a place in the configuration, and no vote");
    assert!(!begins_observing(&learns, 1, false));
}

/// A client's reconfig makes it a voter at once. Nobody may count on its vote before the log has its store, which the leader
/// records when it is asked.
#[test]
fn an_observer_votes_once_its_store_is_recorded() {
    for role in [MemberRole::Voter, MemberRole::Joining] {
        let mut four = observing();
        four.tell(Event::Met { server: 4, disk: 1, store_id: 44 });
        four.now = four.now + TICK;
        let (feeder, Observe { feed, .. }) = asks(&four.tell(Event::Tick)).unwrap();
        four.tell(entries(feeder, feed, 0, 1));
        let table = |recorded| {
            let members = Members { version: 1, servers: with(1, role) };
            Event::Members { members, retired: Default::default(), recorded }
        };
        let told = four.tell(table(false));
        assert!(four.seat.is_observer(), "{role:?}");
        let says = |action: &Action| match action {
            Action::Send { to: 1, message: PeerMessage::Ask(ask) } => ask.store_id == 44,
            _ => false,
        };
        assert!(told.iter().any(says), "{role:?}: {told:?}");
        assert_eq!(committed(&four.tell(entries(feeder, feed, 1, 3))), [2, 3], "it takes what it is fed");
        four.tell(table(true));
        assert!(!four.seat.is_observer(), "{role:?}");
    }
}

#[test]
fn who_came_as_an_observer_begins_as_one_until_its_store_is_recorded() {
    let observes = || Begun { observes: true, ..Begun::default() };
    let conf_state = || found(&[raft_id(1, 1), raft_id(2, 1)]);
    let mut came = empty();
    came.take_part(1, joining(raft_id(1, 1)), observes()).unwrap();
    assert!(begins_observing(&came, 1, false), "its file does not say so any more");
    let table = crate::consensus::table_of(Members {
        version: 0,
        servers: vec![member(1, 1, MemberRole::Voter), member(2, 1, MemberRole::Voter)],
    });
    came.found(0, &table).unwrap();
    came.set_conf_state(conf_state());
    assert!(begins_observing(&came, 1, false), "a table makes it vote, and another store may be meant");
    came.introduce(1, 1, came.store_id());
    assert!(!begins_observing(&came, 1, false));
}

/// It was emptied as an observer, and the table has its next disk join: it has not come as that one.
#[test]
fn an_observer_on_another_disk_than_is_to_join_goes_on_observing() {
    let mut four = observing();
    four.now = four.now + TICK;
    let (feeder, Observe { feed, .. }) = asks(&four.tell(Event::Tick)).unwrap();
    four.tell(entries(feeder, feed, 0, 1));
    four.tell(table(1, with(2, MemberRole::Joining)));
    assert!(four.seat.is_observer());
    assert_eq!(committed(&four.tell(entries(feeder, feed, 1, 3))), [2, 3], "it takes what it is fed");
    four.tell(table(2, with(1, MemberRole::Joining)));
    assert!(!four.seat.is_observer());
}

/// It is to vote, and before it comes to rest it is not any more.
#[test]
fn an_observer_that_is_not_to_vote_after_all_asks_for_what_it_did_not_take() {
    let mut four = observing();
    four.now = four.now + TICK;
    let (feeder, Observe { feed, .. }) = asks(&four.tell(Event::Tick)).unwrap();
    // What it was sent is not durable yet.
    four.seat.handle(four.now, entries(feeder, feed, 0, 1)).unwrap();
    let append = std::iter::from_fn(|| four.seat.poll_action());
    let append = append.into_iter().find(|action| matches!(action, Action::Append { .. })).unwrap();
    four.seat.handle(four.now, table(1, with(1, MemberRole::Joining))).unwrap();
    four.seat.handle(four.now, entries(feeder, feed, 1, 2)).unwrap();
    while let Some(action) = four.seat.poll_action() {
        assert!(!matches!(action, Action::Append { .. }), "it is closing: {action:?}");
    }
    four.tell(table(2, with(1, MemberRole::Observer)));
    four.now = four.now + TICK;
    let (_, again) = asks(&four.tell(Event::Tick)).expect("it says how far it is");
    assert!(again.lost && again.index == 1, "{again:?}");
    let Action::Append { number, records, hard_state } = append else { unreachable!() };
    four.log.append(Append { records: &records, hard_state }).unwrap();
    let told = four.tell(Event::Persisted(number));
    assert!(four.seat.is_observer());
    assert_eq!(committed(&told), [1]);
    assert_eq!(committed(&four.tell(entries(feeder, feed, 1, 2))), [2]);
}

/// The log begins behind the checkpoint that the seat knows: a newer one is about to be told.
#[test]
fn an_observer_whose_log_was_purged_votes_once_it_knows_the_checkpoint() {
    let mut four = observing();
    four.now = four.now + TICK;
    let (feeder, Observe { feed, .. }) = asks(&four.tell(Event::Tick)).unwrap();
    for behind in 0..60 {
        four.tell(entries(feeder, feed, behind, behind + 1));
    }
    four.log.purge(59).unwrap();
    let first_index = four.log.reader().first_index();
    assert!(first_index > 1, "a segment is gone");
    four.tell(table(1, with(1, MemberRole::Joining)));
    assert!(four.seat.is_observer());
    let conf_state = found(&[1, 2, 3].map(|id| raft_id(id, 1)));
    let position = Position { index: 59, term: 3 };
    four.tell(Event::Checkpointed { position, conf_state, first_index });
    assert!(!four.seat.is_observer());
}

/// A learner gives its leader up for nobody: one that was demoted while it was away hears of none, or of one that does
/// not speak to it.
#[test]
fn who_is_left_alone_by_its_leader_asks_whether_it_still_belongs_to_raft() {
    let log = log();
    let mut begin = start(&log, 4);
    begin.conf_state = joining(raft_id(4, 1));
    let seat = Seat::new(NOW, begin, Part::Voter).unwrap();
    let mut four = Sitting { now: NOW, seat, log };
    four.tell(Event::Met { server: 4, disk: 1, store_id: 44 });
    four.tell(table(1, with(1, MemberRole::Joining)));
    let heartbeat = |from: ServerId| {
        let message = RaftMessage::new(RaftKind::Heartbeat, raft_id(from, 1), raft_id(4, 1), 2);
        Event::Peer { from, message: PeerMessage::Raft(message) }
    };
    let is_ask = |action: &Action| matches!(action, Action::Send { message: PeerMessage::Ask(_), .. });
    let run = |four: &mut Sitting, speaks: bool| {
        let mut asked = false;
        for _ in 0..80 {
            four.now = four.now + TICK;
            if speaks {
                four.tell(heartbeat(1));
            }
            asked |= four.tell(Event::Tick).iter().any(is_ask);
        }
        asked
    };
    assert!(!run(&mut four, true), "its leader speaks to it");
    assert_eq!(four.seat.facts().leader, Some(1));
    assert!(run(&mut four, false));
    assert_eq!(four.seat.facts().leader, Some(1), "it still takes it for its leader");
    // Its next disk observes: then this one has no vote either.
    let known = |disk, version| {
        let voters = bytes::Bytes::from_static(&[1, 2, 3]);
        Event::Recorded(Known { store: None, term: 1, observes: false, disk, version, voters, settled: true })
    };
    four.tell(known(None, 5));
    assert!(!four.seat.is_observer(), "it left, and says so otherwise");
    four.tell(known(Some(2), 6));
    assert!(four.seat.is_observer());
}

/// One was removed and told so by its own table, one was there at the founding and has seen no table: each was away until it
/// belonged to the ensemble again, as an observer, on another disk.
#[test]
fn who_is_in_no_table_of_its_own_observes_when_the_others_have_it_observe() {
    for servers in [three(), Vec::new()] {
        let log = log();
        let mut begin = start(&log, 4);
        begin.conf_state = found(&[1, 2, 4].map(|id| raft_id(id, 1)));
        let seat = Seat::new(NOW, begin, Part::Voter).unwrap();
        let mut four = Sitting { now: NOW, seat, log };
        four.tell(Event::Met { server: 4, disk: 1, store_id: 44 });
        if !servers.is_empty() {
            four.tell(table(7, servers));
        }
        for _ in 0..60 {
            four.now = four.now + TICK;
            four.tell(Event::Tick);
        }
        let known = |disk, settled| {
            let voters = bytes::Bytes::from_static(&[1, 2, 3]);
            Event::Recorded(Known {
                store: None,
                term: 1,
                observes: false,
                disk,
                version: 9,
                voters,
                settled,
            })
        };
        four.tell(known(None, true));
        four.tell(known(Some(2), false));
        assert!(!four.seat.is_observer());
        four.tell(known(Some(2), true));
        assert!(four.seat.is_observer());
    }
}
