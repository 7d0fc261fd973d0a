//! Observers and their feeders, joined by hand.

mod seat;

use super::feeds::Feeds;
use super::*;
use crate::consensus::{Timers, raft_id};
use crate::entropy::Entropy;
use std::sync::Arc;
use warren_storage::log::{Append, Log, LogOptions};
use warren_storage::simdisk::SimDisk;
use warren_storage::{Member, MemberRole, Origin, Rules};
use warren_transport::peer::{Ask, Known};

const TICK: Duration = Duration::from_millis(20);
const INCARNATION: u64 = 77;

struct Counting(u8);

impl Entropy for Counting {
    fn fill(&mut self, out: &mut [u8]) {
        self.0 += 1;
        out.fill(self.0);
    }
}

fn log() -> Log {
    let options = LogOptions { segment_bytes_max: 2_000, cache_bytes: 0, ..LogOptions::default() };
    Log::open(Arc::new(SimDisk::new()), options).unwrap().0
}

fn record(index: u64, term: u64, bytes: usize) -> LogRecord {
    LogRecord { index, term, kind: RecordKind::Normal, data: vec![7; bytes].into() }
}

fn append(log: &mut Log, records: &[LogRecord]) {
    let last = records.last().unwrap();
    let hard_state = Some(HardState { term: last.term, vote: 0, commit: last.index });
    log.append(Append { records, hard_state }).unwrap();
}

fn start(log: &Log, server_id: ServerId) -> Start {
    Start {
        id: crate::consensus::raft_id(server_id, 1),
        server_id,
        incarnation: INCARNATION,
        reader: log.reader(),
        hard_state: log.hard_state(),
        checkpoint: Position::default(),
        conf_state: crate::consensus::found(&[1, 2, 3].map(|id| crate::consensus::raft_id(id, 1))),
        members: Default::default(),
        retired: Default::default(),
        found: None,
        rules: Rules::default(),
        timers: Timers::default(),
        read_bytes_max: crate::consensus::READ_BYTES_MAX,
        entropy: Box::new(Counting(0)),
    }
}

/// Three voters and this many observers from 4 on, as one of them sees the others.
fn others(of: ServerId, observers: u8) -> Vec<Candidate> {
    let all = (1..=3 + observers).filter(|server| *server != of);
    all.map(|server| Candidate { server, votes: server <= 3 }).collect()
}

fn actions(queue: &mut VecDeque<Action>) -> Vec<Action> {
    queue.drain(..).collect()
}

fn fed(actions: &[Action]) -> Vec<&Feed> {
    let feed = |action| match action {
        &Action::Send { message: PeerMessage::Feed(ref feed), .. } => Some(feed),
        _ => None,
    };
    actions.iter().filter_map(feed).collect()
}

// ---- the search --------------------------------------------------------------------------------------------

fn feed_of(search: &Search, path: &[ServerId]) -> Feed {
    Feed {
        incarnation: INCARNATION,
        feed: search.feed(),
        index: 0,
        log_term: 0,
        commit: 0,
        term: 1,
        leader: Some(1),
        path: path.to_vec(),
        entries: Vec::new(),
    }
}

/// Everybody refuses: who was asked in a round.
fn round(search: &mut Search, now: &mut Moment) -> Vec<ServerId> {
    let mut asked = Vec::new();
    while let (Some(next), _) = search.on_tick(*now, Some(1)) {
        asked.push(next);
        search.on_end(*now, next);
        *now = *now + TICK;
    }
    asked
}

#[test]
fn followers_are_asked_first_then_observers_and_the_leader_last() {
    let mut firsts = std::collections::BTreeMap::<ServerId, u32>::new();
    for own in 4..=103 {
        let mut now = Moment::default();
        let mut search = Search::new(now, own, TICK, others(own, 100), Vec::new());
        let asked = round(&mut search, &mut now);
        // A few of the hundred.
        assert_eq!(asked.len(), 2 + 4 + 1);
        assert!(asked[..2].contains(&2) && asked[..2].contains(&3), "{asked:?}");
        assert_eq!(asked[6], 1);
        *firsts.entry(asked[0]).or_default() += 1;
        // It rests before the next round.
        assert_eq!(search.on_tick(now, Some(1)), (None, None));
        now = now + TICK * 25;
        assert!(search.on_tick(now, Some(1)).0.is_some());
    }
    // They spread.
    assert!(firsts.len() == 2 && firsts.values().all(|n| *n > 30), "{firsts:?}");
}

/// A hundred that are all hungry would else link up with each other, and be busy with nothing else.
#[test]
fn who_finds_nobody_asks_all_in_time_and_ever_more_slowly() {
    let mut now = Moment::default();
    let mut search = Search::new(now, 4, TICK, others(4, 100), Vec::new());
    let mut observers = std::collections::BTreeMap::<ServerId, u32>::new();
    let (mut voters, mut rounds_of_ten_s) = (0, Vec::new());
    for _ in 0..30 {
        let (until, mut asked) = (now + TICK * 500, 0);
        while now.us < until.us {
            for server in round(&mut search, &mut now) {
                if server <= 3 {
                    voters += 1;
                } else {
                    asked += 1;
                    *observers.entry(server).or_default() += 1;
                }
            }
            now = now + TICK;
        }
        rounds_of_ten_s.push(asked);
    }
    assert!((16..=24).contains(&rounds_of_ten_s[0]), "{rounds_of_ten_s:?}");
    assert!(rounds_of_ten_s[3..].iter().all(|asked| *asked <= 8), "{rounds_of_ten_s:?}");
    assert_eq!(observers.len(), 99, "each in its turn");
    // A voter that has room again is found at once.
    assert!(voters > 3 * 300, "{voters}");

    // Found one that lasts, it may look quickly again.
    let (next, _) = search.on_tick(now + TICK * 25, Some(1));
    assert!(search.on_feed(now + TICK * 25, next.unwrap(), &feed_of(&search, &[])));
    now = now + TICK * (25 + 500);
    search.on_end(now, next.unwrap());
    let asked = round(&mut search, &mut now);
    assert_eq!(asked.iter().filter(|server| **server > 3).count(), 4, "{asked:?}");
    now = now + TICK * 26;
    assert!(round(&mut search, &mut now).len() > 3);
}

#[test]
fn a_silent_feeder_is_left_and_asked_last_next_time() {
    let mut now = Moment::default();
    let mut search = Search::new(now, 4, TICK, others(4, 0), Vec::new());
    let (first, _) = search.on_tick(now, Some(1));
    let first = first.unwrap();
    let feed = feed_of(&search, &[]);
    assert!(search.on_feed(now, first, &feed));
    assert_eq!(search.feeder(), Some(first));
    assert!(!search.on_feed(now, 9, &feed), "nobody asked this one");
    now = now + TICK * 49;
    assert_eq!(search.on_tick(now, Some(1)), (None, None));
    now = now + TICK;
    let (next, left) = search.on_tick(now, Some(1));
    assert_eq!(left, Some((first, 1)));
    assert!(next.is_some() && next != Some(first));
    assert!(!search.on_feed(now, first, &feed), "an old feed is none");
    // Not even the leader comes behind it.
    let mut asked = vec![next.unwrap()];
    search.on_end(now, asked[0]);
    asked.extend(round(&mut search, &mut now));
    assert_eq!(asked.last(), Some(&first));
}

#[test]
fn a_feeder_that_it_feeds_itself_is_left() {
    let now = Moment::default();
    let mut search = Search::new(now, 4, TICK, others(4, 2), Vec::new());
    let (first, _) = search.on_tick(now, None);
    let feed = feed_of(&search, &[6, 4]);
    assert!(!search.on_feed(now, first.unwrap(), &feed));
    assert_eq!(search.feeder(), None);
}

#[test]
fn who_lags_is_left_in_time_and_the_leader_is_relieved() {
    let mut now = Moment::default();
    let mut search = Search::new(now, 4, TICK, others(4, 0), Vec::new());
    let first = search.on_tick(now, None).0.unwrap();
    let feed = feed_of(&search, &[]);
    for _ in 0..100 {
        assert!(search.on_feed(now, first, &feed));
        search.on_lag(now, true);
        now = now + TICK;
    }
    assert_eq!(search.on_tick(now, None).1, Some((first, 1)));
    // The next one turns out to lead.
    let leader = search.asked().unwrap();
    let feed = feed_of(&search, &[]);
    let mut relieved = None;
    for tick in 0..2_000 {
        search.on_feed(now, leader, &feed);
        search.on_lag(now, false);
        if let (_, Some((left, _))) = search.on_tick(now, Some(leader)) {
            assert_eq!(left, leader);
            relieved = Some(tick);
            break;
        }
        now = now + TICK;
    }
    assert_eq!(relieved, Some(1_500));
}

// ---- the feeding side --------------------------------------------------------------------------------------

fn source() -> Source {
    Source { leader: (1, Some(1)), path: Vec::new(), fed: true }
}

fn feeds(log: &Log, committed: u64) -> (Feeds, VecDeque<Action>) {
    let mut queue = VecDeque::new();
    let mut feeds = Feeds::new(2, TICK, log.reader(), Position::default());
    feeds.set_source(source(), &mut queue);
    feeds.on_committed(committed);
    (feeds, queue)
}

fn observe(index: u64, term: u64) -> Observe {
    Observe { incarnation: INCARNATION, feed: 1, index, term, applied: index, lost: false }
}

#[test]
fn what_is_not_applied_there_is_bounded_and_what_is_lost_comes_again() {
    let mut log = log();
    append(&mut log, &(1..=40).map(|i| record(i, 1, 100_000)).collect::<Vec<_>>());
    let (mut feeds, mut queue) = feeds(&log, 30);
    let mut now = Moment::default();
    feeds.on_observe(now, 4, &observe(0, 0), &mut queue).unwrap();
    feeds.drive(now, &mut queue).unwrap();
    let sent = actions(&mut queue);
    let sent = fed(&sent);
    assert_eq!((sent[0].index, sent[0].log_term, sent[0].commit), (0, 0, 30));
    let last = sent.last().unwrap().entries.last().unwrap().index;
    assert!((10..=13).contains(&last), "about a MiB of entries: {last}");
    assert_eq!(feeds.wanted_from(), Some(1));
    // It has them all, and applied the first five: so many more are sent.
    let half = Observe { applied: 5, ..observe(last, 1) };
    feeds.on_observe(now, 4, &half, &mut queue).unwrap();
    feeds.drive(now, &mut queue).unwrap();
    let more = actions(&mut queue);
    let upto = fed(&more).last().unwrap().entries.last().unwrap().index;
    assert!(upto >= last + 3 && upto <= last + 6, "{last} {upto}");
    // Those did not come. Once is enough to say so.
    for _ in 0..2 {
        feeds.on_observe(now, 4, &Observe { lost: true, ..half.clone() }, &mut queue).unwrap();
        feeds.drive(now, &mut queue).unwrap();
    }
    let again = actions(&mut queue);
    let again: Vec<u64> = fed(&again).iter().flat_map(|feed| &feed.entries).map(|e| e.index).collect();
    assert_eq!(again, (last + 1..=upto).collect::<Vec<_>>());
    // The rest: what is not committed is not sent.
    for _ in 0..10 {
        let at = feeds.facts()[0].matched;
        let sent = actions(&mut queue);
        let last = fed(&sent).iter().flat_map(|feed| &feed.entries).map(|e| e.index).max();
        feeds.on_observe(now, 4, &observe(last.unwrap_or(upto).max(at), 1), &mut queue).unwrap();
        feeds.drive(now, &mut queue).unwrap();
    }
    assert_eq!((feeds.facts()[0].matched, feeds.facts()[0].synced), (30, true));
    // A while later nothing was heard of it, and it is forgotten.
    now = now + TICK * 150;
    feeds.drive(now, &mut queue).unwrap();
    assert!(feeds.facts().is_empty() && feeds.wanted_from().is_none());
}

#[test]
fn who_is_behind_the_log_gets_the_tree_first() {
    let mut log = log();
    for index in 1..=60 {
        append(&mut log, &[record(index, 1, 500)]);
    }
    log.purge(40).unwrap();
    assert!(log.reader().first_index() > 30);
    let (mut feeds, mut queue) = feeds(&log, 60);
    feeds.on_checkpoint(Position { index: 40, term: 1 });
    let now = Moment::default();
    for server in [4, 5, 6] {
        feeds.on_observe(now, server, &observe(3, 1), &mut queue).unwrap();
    }
    feeds.drive(now, &mut queue).unwrap();
    let asked = actions(&mut queue);
    let trees: Vec<ServerId> = asked
        .iter()
        .filter_map(|action| match action {
            Action::SendSnapshot { to, message } => {
                assert_eq!(*message.context, 1u64.to_le_bytes());
                assert_eq!(message.snapshot.as_ref().unwrap().index, 40);
                Some(*to)
            }
            _ => None,
        })
        .collect();
    assert_eq!(trees, [4, 5], "so many at a time");
    // They are told meanwhile that the feeder is there.
    assert_eq!(fed(&asked).len(), 3);
    assert!(feeds.is_sending_to(4) && !feeds.is_sending_to(6));
    feeds.on_snapshot_sent(now, 4, true);
    feeds.on_snapshot_sent(now, 5, false);
    feeds.on_observe(now, 4, &observe(40, 1), &mut queue).unwrap();
    feeds.drive(now, &mut queue).unwrap();
    let next = actions(&mut queue);
    assert_eq!(fed(&next)[0].entries[0].index, 41);
    let later = now + TICK * 50;
    feeds.drive(later, &mut queue).unwrap();
    let again = actions(&mut queue);
    let tree = |to| again.iter().any(|a| matches!(a, Action::SendSnapshot { to: t, .. } if *t == to));
    assert!(tree(5) && tree(6));
}

#[test]
fn too_many_those_without_food_and_those_of_another_history_are_refused() {
    let mut log = log();
    append(&mut log, &(1..=5).map(|i| record(i, 2, 10)).collect::<Vec<_>>());
    let (mut feeds, mut queue) = feeds(&log, 5);
    let now = Moment::default();
    let refused = |feeds: &mut Feeds, from, asked: &Observe| {
        let mut queue = VecDeque::new();
        feeds.on_observe(now, from, asked, &mut queue).unwrap();
        match queue.pop_front() {
            Some(Action::Send { message: PeerMessage::FeedEnd(end), .. }) => Some(end.why),
            _ => None,
        }
    };
    assert_eq!(refused(&mut feeds, 4, &observe(3, 1)), Some(WhyNoFeed::Differs));
    for server in 10..10 + FEEDS_MAX as u8 {
        assert_eq!(refused(&mut feeds, server, &observe(3, 2)), None);
    }
    assert_eq!(refused(&mut feeds, 4, &observe(3, 2)), Some(WhyNoFeed::Full));
    assert_eq!(refused(&mut feeds, 10, &Observe { feed: 2, ..observe(3, 2) }), None, "it has its place");
    feeds.on_left(11, &FeedEnd { incarnation: INCARNATION, feed: 1, why: WhyNoFeed::Left });
    assert_eq!(refused(&mut feeds, 4, &observe(3, 2)), None);
    // An observer that loses its feeder ends its feeds, and takes none on; nor does it feed those that feed it.
    feeds.set_source(Source { fed: false, ..source() }, &mut queue);
    assert_eq!(actions(&mut queue).len(), FEEDS_MAX);
    assert_eq!(refused(&mut feeds, 4, &observe(3, 2)), Some(WhyNoFeed::Hungry));
    feeds.set_source(Source { path: vec![5, 1], ..source() }, &mut queue);
    assert_eq!(refused(&mut feeds, 5, &observe(3, 2)), Some(WhyNoFeed::Path));
}

#[test]
fn a_link_that_is_down_is_not_written_to_all_the_time() {
    let mut log = log();
    append(&mut log, &[record(1, 1, 10)]);
    let (mut feeds, mut queue) = feeds(&log, 1);
    let now = Moment::default();
    feeds.on_observe(now, 4, &observe(0, 0), &mut queue).unwrap();
    feeds.drive(now, &mut queue).unwrap();
    assert_eq!(fed(&actions(&mut queue)).len(), 1);
    feeds.on_unreachable(now, 4);
    feeds.drive(now, &mut queue).unwrap();
    assert!(queue.is_empty());
    feeds.drive(now + TICK * 5, &mut queue).unwrap();
    assert_eq!(fed(&actions(&mut queue))[0].entries.len(), 1);
}

// ---- the observer ------------------------------------------------------------------------------------------

struct One {
    now: Moment,
    observer: Observer,
    log: Log,
}

impl One {
    fn new(log: Log) -> One {
        let now = Moment { us: 1_000_000, wall_ms: 0 };
        let observer = Observer::new(now, start(&log, 4), others(4, 0), Vec::new()).unwrap();
        One { now, observer, log }
    }

    fn tell(&mut self, event: Event) -> Vec<Action> {
        self.observer.handle(self.now, event).unwrap();
        std::iter::from_fn(|| self.observer.poll_action()).collect()
    }

    fn tick(&mut self, ticks: u32) -> Vec<Action> {
        (0..ticks)
            .flat_map(|_| {
                self.now = self.now + TICK;
                self.tell(Event::Tick)
            })
            .collect()
    }

    /// Ask somebody, who feeds.
    fn subscribe(&mut self) -> ServerId {
        self.tick(1);
        self.observer.search.asked().unwrap()
    }

    fn feed(&mut self, from: ServerId, index: u64, log_term: u64, entries: &[LogRecord]) -> Vec<Action> {
        let last = entries.last().map_or((index, log_term.max(1)), |e| (e.index, e.term));
        let entries = entries
            .iter()
            .map(|r| warren_transport::peer::PeerEntry {
                index: r.index,
                term: r.term,
                conf_change: false,
                data: r.data.clone(),
            })
            .collect();
        let feed = Feed {
            incarnation: INCARNATION,
            feed: self.observer.search.feed(),
            index,
            log_term,
            commit: last.0,
            term: last.1,
            leader: Some(1),
            path: Vec::new(),
            entries,
        };
        self.tell(Event::Peer { from, message: PeerMessage::Feed(feed) })
    }

    /// What is to be appended is, and reported.
    fn sync(&mut self, asked: Vec<Action>) -> Vec<Action> {
        let mut out = Vec::new();
        for action in asked {
            match action {
                Action::Append { number, records, hard_state } => {
                    self.log.append(Append { records: &records, hard_state }).unwrap();
                    out.extend(self.tell(Event::Persisted(number)));
                }
                other => out.push(other),
            }
        }
        out
    }
}

fn committed(actions: &[Action]) -> Vec<u64> {
    let of = |action: &Action| match action {
        Action::Commit(entries) => entries.iter().map(|e| e.position.index).collect(),
        _ => Vec::new(),
    };
    actions.iter().flat_map(of).collect()
}

fn said(actions: &[Action]) -> Option<&Observe> {
    actions.iter().rev().find_map(|action| match action {
        Action::Send { message: PeerMessage::Observe(observe), .. } => Some(observe),
        _ => None,
    })
}

#[test]
fn what_it_is_fed_is_applied_once_it_is_durable_and_acknowledged_once_it_is_applied() {
    let mut one = One::new(log());
    let feeder = one.subscribe();
    let asked = one.feed(feeder, 0, 0, &[record(1, 1, 10), record(2, 1, 10)]);
    assert!(matches!(asked[0], Action::Leader { term: 1, leader: Some(1) }));
    assert!(committed(&asked).is_empty() && said(&asked).is_none(), "it is not durable yet");
    assert_eq!(committed(&one.sync(asked)), [1, 2]);
    let applied = one.tell(Event::Applied(2));
    let observe = said(&applied).unwrap();
    assert_eq!((observe.index, observe.term, observe.applied, observe.lost), (2, 1, 2, false));
    // A second copy, with something new behind it.
    let asked = one.feed(feeder, 1, 1, &[record(2, 1, 10), record(3, 2, 10)]);
    assert_eq!(committed(&one.sync(asked)), [3]);
    // A gap.
    let asked = one.feed(feeder, 5, 2, &[record(6, 2, 10)]);
    let observe = said(&asked).unwrap();
    assert!(observe.lost && observe.index == 3);
    assert_eq!(one.observer.facts().committed, 3);
    assert_eq!((one.log.hard_state().commit, one.log.hard_state().term), (3, 2));
}

#[test]
fn a_candidate_that_counts_on_it_is_told_how_far_is_committed() {
    let mut one = One::new(log());
    let feeder = one.subscribe();
    let asked = one.feed(feeder, 0, 0, &[record(1, 1, 10), record(2, 2, 10)]);
    one.sync(asked);
    let (own, candidate) = (raft_id(4, 1), raft_id(2, 1));
    let mut ask = |kind, from, to, term| {
        let message = PeerMessage::Raft(RaftMessage::new(kind, from, to, term));
        let sent = one.tell(Event::Peer { from: 2, message });
        sent.into_iter().find_map(|action| match action {
            Action::Send { to: 2, message: PeerMessage::Raft(message) } => Some(message),
            _ => None,
        })
    };
    let refusal = |kind, term| RaftMessage {
        reject: true,
        commit: 2,
        commit_term: 2,
        ..RaftMessage::new(kind, own, candidate, term)
    };
    // Before a candidate has another term it asks for it.
    let told = ask(RaftKind::RequestPreVote, candidate, own, 8);
    assert_eq!(told, Some(refusal(RaftKind::RequestPreVoteResponse, 7)));
    let told = ask(RaftKind::RequestVote, candidate, own, 8);
    assert_eq!(told, Some(refusal(RaftKind::RequestVoteResponse, 8)));
    // Nobody else is told anything.
    assert_eq!(ask(RaftKind::Heartbeat, candidate, own, 8), None);
    assert_eq!(ask(RaftKind::RequestVote, raft_id(3, 1), own, 8), None);
    assert_eq!(ask(RaftKind::RequestVote, candidate, raft_id(3, 1), 8), None);
    assert_eq!(ask(RaftKind::RequestPreVote, candidate, own, 0), None);
    assert_eq!(one.observer.facts().refused, 3);
}

#[test]
fn what_contradicts_itself_is_refused() {
    let mut one = One::new(log());
    let feeder = one.subscribe();
    for entries in [
        vec![record(2, 1, 1)],
        vec![record(1, 2, 1), record(2, 1, 1)],
        vec![record(1, 1, 1), record(3, 1, 1)],
        vec![record(1, 0, 1)],
        vec![record(1, 1 << 63, 1)],
    ] {
        let asked = one.feed(feeder, 0, 0, &entries);
        assert!(asked.is_empty(), "{asked:?}");
    }
    assert_eq!(one.observer.facts().refused, 5);
    // Of another history.
    let asked = one.feed(feeder, 0, 1, &[record(1, 1, 1)]);
    assert!(!asked.iter().any(|action| matches!(action, Action::Append { .. })));
    assert_eq!(one.observer.facts().refused, 6);
    // From one that was not asked, it is not even looked at.
    let asked = one.feed(feeder % 3 + 1, 0, 0, &[record(1, 1, 1)]);
    assert!(asked.is_empty());
}

#[test]
fn a_start_replays_its_log_within_bounds() {
    let mut log = log();
    append(&mut log, &(1..=100).map(|i| record(i, 1, 100_000)).collect::<Vec<_>>());
    let mut one = One::new(log);
    let asked = one.tell(Event::Tick);
    assert_eq!(said(&asked).map(|o| (o.index, o.term)), Some((100, 1)));
    let first = committed(&asked);
    assert_eq!(first[0], 1);
    assert!(first.len() < 60, "what is not applied is bounded: {}", first.len());
    let mut all = first;
    while let Some(last) = all.last().copied().filter(|last| *last < 100) {
        all.extend(committed(&one.tell(Event::Applied(last))));
    }
    assert_eq!(all, (1..=100).collect::<Vec<_>>());
}

/// What a former voter had in its log and never learnt the fate of.
#[test]
fn what_is_not_known_to_be_committed_is_replaced_by_what_is() {
    let mut log = log();
    append(&mut log, &[record(1, 1, 10)]);
    let tail = [record(2, 1, 11), record(3, 1, 11)];
    let hard_state = HardState { term: 1, vote: 5, commit: 1 };
    log.append(Append { records: &tail, hard_state: Some(hard_state) }).unwrap();
    let mut one = One::new(log);
    assert_eq!(committed(&one.tell(Event::Tick)), [1]);
    let feeder = one.subscribe();
    let asked = one.feed(feeder, 1, 1, &[record(2, 1, 20)]);
    one.sync(asked);
    assert_eq!(
        (one.log.reader().last_index(), one.log.hard_state().vote),
        (2, 5),
        "a vote holds for its term"
    );
    let asked = one.feed(feeder, 2, 1, &[record(3, 2, 20)]);
    one.sync(asked);
    assert_eq!((one.log.reader().last_index(), one.log.hard_state().vote), (3, 0));
}

#[test]
fn writes_and_questions_go_to_the_leader_and_are_asked_again() {
    let mut one = One::new(log());
    let feeder = one.subscribe();
    let write = || Event::Submit(vec![Submission::Command(vec![1, 2, 3]), Submission::Sync(9)]);
    assert!(one.tell(write()).is_empty(), "there is nobody to ask");
    let asked = one.feed(feeder, 0, 0, &[]);
    let read = asked.iter().find_map(|action| match action {
        Action::Send { to: 1, message: PeerMessage::AskRead(ask) } => Some(ask.number),
        _ => None,
    });
    assert_eq!(read, Some(1));
    // What older leaders did with it is known only behind an entry of this term.
    let forwards = |actions: &[Action]| {
        let is = |a: &&Action| matches!(a, Action::Send { to: 1, message: PeerMessage::Forward(_) });
        actions.iter().filter(is).count()
    };
    assert_eq!(forwards(&asked), 0);
    let asked = one.feed(feeder, 0, 0, &[record(1, 1, 0)]);
    let done = one.sync(asked);
    assert_eq!(forwards(&done), 1);
    let later = one.tick(10);
    let again = later.iter().filter(|a| matches!(a, Action::Send { message: PeerMessage::AskRead(_), .. }));
    assert_eq!(again.count(), 1);
    let answer = |incarnation, number| {
        let answer = AnswerRead { incarnation, number, index: 7 };
        Event::Peer { from: 1, message: PeerMessage::AnswerRead(answer) }
    };
    assert!(one.tell(answer(5, 1)).is_empty(), "of another run");
    assert!(one.tell(answer(INCARNATION, 3)).is_empty(), "that was never asked");
    let told = one.tell(answer(INCARNATION, 1));
    assert!(matches!(&told[..], [Action::ReadAt { index: 7, tokens }] if tokens == &[9]));
    assert!(one.tell(answer(INCARNATION, 2)).is_empty(), "it is answered");
    // What comes back committed is not sent again.
    let origin = Origin { server: 4, incarnation: INCARNATION, last: 1 };
    let entry = Entry::Batch { origin, time_ms: 0, rules: Rules::default(), commands: vec![&[1, 2, 3]] };
    let record = LogRecord { index: 2, term: 1, kind: RecordKind::Normal, data: entry.encode().into() };
    let asked = one.feed(feeder, 1, 1, &[record]);
    one.sync(asked);
    assert_eq!(one.observer.facts().own, 0);
}

/// The simulator's seed 112217: it asked for votes in term 4 when it was a voter no more, and did not know yet.
#[test]
fn a_former_voter_follows_a_leader_of_a_term_before_its_own_last_one() {
    let mut log = log();
    let hard_state = Some(HardState { term: 4, vote: 4, commit: 1 });
    log.append(Append { records: &[record(1, 3, 0)], hard_state }).unwrap();
    let mut one = One::new(log);
    let feeder = one.subscribe();
    let asked = one.feed(feeder, 1, 3, &[]);
    assert!(asked.iter().any(|action| matches!(action, Action::Leader { term: 3, leader: Some(1) })));
    // What it promised stays.
    let asked = one.feed(feeder, 1, 3, &[record(2, 3, 0)]);
    let kept = asked.iter().find_map(|action| match action {
        Action::Append { hard_state, .. } => *hard_state,
        _ => None,
    });
    assert_eq!(kept, Some(HardState { term: 4, vote: 4, commit: 2 }));
}

#[test]
fn without_a_feeder_there_is_no_leader_after_a_while_and_an_old_word_is_not_believed() {
    let mut one = One::new(log());
    let feeder = one.subscribe();
    let asked = one.feed(feeder, 0, 0, &[record(1, 3, 0)]);
    one.sync(asked);
    let leaders = |actions: &[Action]| -> Vec<Option<ServerId>> {
        let of = |action: &Action| match action {
            Action::Leader { leader, .. } => Some(*leader),
            _ => None,
        };
        actions.iter().filter_map(of).collect()
    };
    let meanwhile = one.tick(99);
    assert!(leaders(&meanwhile).is_empty());
    assert_eq!(leaders(&one.tick(2)), [None]);
    // A server that was left behind in term 2 knows a leader of then.
    let feeder = one.observer.search.asked().unwrap_or_else(|| one.subscribe());
    let asked = one.feed(feeder, 1, 2, &[]);
    assert!(leaders(&asked).is_empty());
    let asked = one.feed(feeder, 1, 3, &[]);
    assert_eq!(leaders(&asked), [Some(1)]);
}

/// The tree comes by a stream of its own, and what the feeder said first is late.
#[test]
fn a_tree_is_taken_from_the_one_that_was_asked() {
    let mut one = One::new(log());
    let feeder = one.subscribe();
    assert_eq!(one.observer.search.feeder(), None, "it has said nothing yet");
    let head = warren_transport::peer::SnapshotHead { index: 50, term: 2, conf_state: Default::default() };
    let message = RaftMessage {
        context: one.observer.search.feed().to_le_bytes().to_vec().into(),
        snapshot: Some(head),
        ..RaftMessage::new(RaftKind::Snapshot, u64::from(feeder), 4, 2)
    };
    let told = one.tell(Event::SnapshotReceived { from: feeder, message });
    assert!(matches!(&told[..], [Action::Install { .. }]), "{told:?}");
}

#[test]
fn a_tree_is_taken_from_the_feeder_alone_and_the_log_goes_on_behind_it() {
    let mut one = One::new(log());
    let feeder = one.subscribe();
    let asked = one.feed(feeder, 0, 0, &[record(1, 1, 0)]);
    one.sync(asked);
    let message = |feed: u64, index| RaftMessage {
        context: feed.to_le_bytes().to_vec().into(),
        snapshot: Some(warren_transport::peer::SnapshotHead {
            index,
            term: 2,
            conf_state: Default::default(),
        }),
        ..RaftMessage::new(RaftKind::Snapshot, u64::from(feeder), 4, 2)
    };
    let feed = one.observer.search.feed();
    for (from, message) in
        [(feeder % 3 + 1, message(feed, 50)), (feeder, message(feed + 1, 50)), (feeder, message(feed, 1))]
    {
        assert!(one.tell(Event::SnapshotReceived { from, message }).is_empty());
    }
    let asked = one.tell(Event::SnapshotReceived { from: feeder, message: message(feed, 50) });
    let [Action::Install { number, head, hard_state }] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!((head.index, hard_state.unwrap().commit, hard_state.unwrap().term), (50, 50, 2));
    assert!(!one.observer.source().fed, "it feeds nobody meanwhile");
    // What comes before it is in place comes again.
    let early = one.feed(feeder, 50, 2, &[record(51, 2, 1)]);
    assert!(!early.iter().any(|action| matches!(action, Action::Append { .. })));
    let number = *number;
    one.log.reset(50, 2, *hard_state).unwrap();
    let placed = one.tell(Event::Installed { number });
    assert_eq!(said(&placed).map(|o| (o.index, o.applied)), Some((50, 50)));
    assert!(one.observer.source().fed);
    let asked = one.feed(feeder, 50, 2, &[record(51, 2, 1)]);
    assert_eq!(committed(&one.sync(asked)), [51]);
}

// ---- the seat ----------------------------------------------------------------------------------------------

#[test]
fn a_leader_answers_an_observers_question_and_a_follower_does_not() {
    let log = log();
    let now = Moment { us: 1_000_000, wall_ms: 0 };
    let mut lone = start(&log, 1);
    lone.conf_state = crate::consensus::found(&[crate::consensus::raft_id(1, 1)]);
    let mut seat = Seat::new(now, lone, Part::Voter).unwrap();
    let ask = |number| {
        let ask = AskRead { incarnation: 5, number };
        Event::Peer { from: 4, message: PeerMessage::AskRead(ask) }
    };
    let mut log = log;
    let mut answers = Vec::new();
    let mut asked = 0;
    while answers.is_empty() {
        asked += 1;
        assert!(asked < 10, "nobody answers");
        seat.handle(now, ask(asked)).unwrap();
        while let Some(action) = seat.poll_action() {
            match action {
                Action::Append { number, records, hard_state } => {
                    log.append(Append { records: &records, hard_state }).unwrap();
                    seat.handle(now, Event::Persisted(number)).unwrap();
                }
                Action::Send { to: 4, message: PeerMessage::AnswerRead(answer) } => {
                    assert!(answer.index >= 1, "behind the leader's first entry");
                    answers.push(answer.number);
                }
                Action::ReadAt { .. } => panic!("the service did not ask"),
                _ => {}
            }
        }
    }
    assert!(answers.contains(&asked));

    let other = self::log();
    let mut follower = Seat::new(now, start(&other, 2), Part::Voter).unwrap();
    follower.handle(now, ask(1)).unwrap();
    let silent = |action| !matches!(action, Action::Send { to: 4, .. });
    assert!(std::iter::from_fn(|| follower.poll_action()).all(silent));
}

fn table(roles: &[(ServerId, MemberRole)]) -> Event {
    let member = |(id, role): &(ServerId, MemberRole)| Member {
        id: *id,
        disk: 1,
        role: *role,
        peer_addr: String::new(),
        client_addr: String::new(),
    };
    let members = Members { version: 1, servers: roles.iter().map(member).collect() };
    Event::Members { members, retired: Default::default(), recorded: true }
}

/// A seat with its log.
struct Sitting {
    now: Moment,
    seat: Seat,
    log: Log,
}

impl Sitting {
    /// Everything goes on until nothing moves: what was asked for beside appends.
    fn tell(&mut self, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            self.seat.handle(self.now, event).unwrap();
            while let Some(action) = self.seat.poll_action() {
                match action {
                    Action::Append { number, records, hard_state } => {
                        self.log.append(Append { records: &records, hard_state }).unwrap();
                        events.push_back(Event::Persisted(number));
                    }
                    Action::Commit(entries) => {
                        events.push_back(Event::Applied(entries.last().unwrap().position.index));
                        out.push(Action::Commit(entries));
                    }
                    other => out.push(other),
                }
            }
        }
        out
    }
}

/// A voter becomes an observer of the others, follows them, and is to vote again: nothing is handed out twice, and what
/// a client asked meanwhile is not forgotten.
#[test]
fn who_is_demoted_observes_and_who_is_promoted_votes_on_the_same_log() {
    use MemberRole::{Joining, Observer as Observes, Voter};
    let log = log();
    let now = Moment { us: 1_000_000, wall_ms: 0 };
    let mut begin = start(&log, 4);
    begin.conf_state = crate::consensus::found(&[1, 2, 4].map(|id| crate::consensus::raft_id(id, 1)));
    let seat = Seat::new(now, begin, Part::Voter).unwrap();
    let mut four = Sitting { now, seat, log };
    four.tell(Event::Met { server: 4, disk: 1, store_id: 44 });
    four.tell(Event::Tick);
    four.tell(Event::Submit(vec![Submission::Command(vec![1, 2, 3]), Submission::Sync(9)]));
    assert_eq!((four.seat.is_observer(), four.seat.facts().own), (false, 1));
    // It learns by the table that it is to observe. raft's configuration still has its vote, and nobody tells it of a newer
    // one: it asks.
    four.tell(table(&[(1, Voter), (2, Voter), (4, Observes)]));
    assert!(!four.seat.is_observer());
    let mut asked = Vec::new();
    for _ in 0..60 {
        four.now = four.now + TICK;
        asked.extend(four.tell(Event::Tick));
    }
    let asks = |to| {
        let ask = PeerMessage::Ask(Ask { store_id: 44, disk: 1 });
        asked.iter().any(|a| matches!(a, Action::Send { to: t, message } if *t == to && *message == ask))
    };
    assert!(asks(1) && asks(2), "{asked:?}");
    let known = |version, voters: &'static [u8], settled| {
        let voters = bytes::Bytes::from_static(voters);
        Event::Recorded(Known {
            store: Some(44),
            term: 1,
            observes: false,
            disk: Some(1),
            version,
            voters,
            settled,
        })
    };
    // Who answers may be behind, or in the joint configuration itself.
    four.tell(known(0, &[1, 2], true));
    four.tell(known(1, &[1, 2], false));
    four.tell(known(2, &[1, 2, 4], true));
    assert!(!four.seat.is_observer());
    let told = four.tell(known(1, &[1, 2], true));
    assert!(told.iter().any(|action| matches!(action, Action::Leader { leader: None, .. })));
    assert!(four.seat.is_observer());
    assert_eq!(four.seat.facts().own, 1, "what it was asked goes on");
    four.now = four.now + TICK;
    let asked = four.tell(Event::Tick);
    let observes = |action: &Action| match action {
        Action::Send { to, message: PeerMessage::Observe(observe) } => Some((*to, observe.feed)),
        _ => None,
    };
    let (to, feed) = asked.iter().find_map(observes).expect("it looks for a feeder");
    let entry = |index| warren_transport::peer::PeerEntry {
        index,
        term: 3,
        conf_change: false,
        data: Default::default(),
    };
    let fed = |index: u64, entries: Vec<warren_transport::peer::PeerEntry>| {
        let feed = Feed {
            incarnation: INCARNATION,
            feed,
            index,
            log_term: if index == 0 { 0 } else { 3 },
            commit: index + entries.len() as u64,
            term: 3,
            leader: Some(1),
            path: Vec::new(),
            entries,
        };
        Event::Peer { from: to, message: PeerMessage::Feed(feed) }
    };
    let told = four.tell(fed(0, vec![entry(1), entry(2)]));
    assert_eq!(committed(&told), [1, 2]);
    let asks = |action: &&Action| match action {
        Action::Send { to: 1, message } => {
            matches!(message, PeerMessage::Forward(_) | PeerMessage::AskRead(_))
        }
        _ => false,
    };
    assert_eq!(told.iter().filter(asks).count(), 2, "both go to the leader: {told:?}");
    // It is to vote: nothing is handed out again, and what is under way goes over once more.
    let told = four.tell(table(&[(1, Voter), (2, Voter), (4, Joining)]));
    assert!(!four.seat.is_observer());
    assert!(committed(&told).is_empty(), "{told:?}");
    let facts = four.seat.facts();
    assert_eq!((facts.own, facts.last_index, facts.committed, facts.term), (1, 2, 2, 3));
    assert!(four.tell(fed(2, vec![entry(3)])).is_empty(), "nobody feeds it any more");
}
