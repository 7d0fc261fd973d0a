//! The rules of driving the raft crate that matter with one voter, each told as an incident.

use super::super::{
    Action, Consensus, Event, Measure, READ_BYTES_MAX, Start, Submission, Timers, found, raft_id,
};
use crate::entropy::Entropy;
use crate::moment::Moment;
use std::sync::Arc;
use std::time::Duration;
use warren_storage::log::{Append, HardState, Log, LogOptions, LogRecord};
use warren_storage::simdisk::SimDisk;
use warren_storage::tree::Position;
use warren_storage::{Command, Entry, Logged, Rules, SharedDisk};

const START: Moment = Moment { us: 1_000_000, wall_ms: 1_700_000_000_000 };

struct Zeros;

impl Entropy for Zeros {
    fn fill(&mut self, out: &mut [u8]) {
        out.fill(0);
    }
}

fn open(disk: &SharedDisk, checkpoint: Position) -> (Consensus, Log) {
    let (log, recovered) = Log::open(disk.clone(), LogOptions::default()).unwrap();
    let start = Start {
        id: raft_id(1, 1),
        server_id: 1,
        incarnation: 7,
        reader: log.reader(),
        hard_state: recovered.hard_state,
        checkpoint,
        conf_state: found(&[raft_id(1, 1)]),
        members: Default::default(),
        retired: Default::default(),
        found: None,
        rules: Rules::default(),
        timers: Timers::default(),
        read_bytes_max: READ_BYTES_MAX,
        entropy: Box::new(Zeros),
    };
    (Consensus::new(START, start).unwrap(), log)
}

fn command() -> Submission {
    Submission::Command(Logged { tag: None, ids: Vec::new(), command: Command::CloseSession }.encode())
}

#[derive(Default, Debug)]
struct Asked {
    appends: Vec<(u64, Vec<LogRecord>, Option<HardState>)>,
    committed: Vec<(u64, usize)>,
    read_at: Vec<(u64, Vec<u64>)>,
    leads: Option<bool>,
}

fn drain(consensus: &mut Consensus) -> Asked {
    let mut asked = Asked::default();
    while let Some(action) = consensus.poll_action() {
        match action {
            Action::Append { number, records, hard_state } => {
                asked.appends.push((number, records, hard_state))
            }
            Action::Commit(entries) => asked.committed.extend(entries.iter().map(|e| {
                let commands = match Entry::decode(&e.data) {
                    Ok(Entry::Batch { commands, .. }) => commands.len(),
                    _ => 0,
                };
                (e.position.index, commands)
            })),
            Action::ReadAt { index, tokens } => asked.read_at.push((index, tokens)),
            Action::Lead(leads) => asked.leads = Some(leads),
            other => assert!(matches!(other, Action::Leader { .. }), "a lone voter asks for {other:?}"),
        }
    }
    asked
}

/// Make durable what is asked, until nothing more is.
fn settle(consensus: &mut Consensus, log: &mut Log) -> Asked {
    let mut all = Asked::default();
    loop {
        let asked = drain(consensus);
        let quiet = asked.appends.is_empty();
        for (number, records, hard_state) in &asked.appends {
            log.append(Append { records, hard_state: *hard_state }).unwrap();
            consensus.handle(START, Event::Persisted(*number)).unwrap();
        }
        all.committed.extend(asked.committed);
        all.read_at.extend(asked.read_at);
        all.leads = asked.leads.or(all.leads);
        all.appends.extend(asked.appends);
        if quiet {
            return all;
        }
    }
}

fn leading() -> (Consensus, Log, SharedDisk) {
    let disk: SharedDisk = Arc::new(SimDisk::new());
    let (mut consensus, mut log) = open(&disk, Position::default());
    assert_eq!(settle(&mut consensus, &mut log).leads, Some(true));
    (consensus, log, disk)
}

#[test]
fn a_lone_voter_leads_once_its_term_and_vote_are_durable() {
    let disk: SharedDisk = Arc::new(SimDisk::new());
    let (mut consensus, _log) = open(&disk, Position::default());
    let asked = drain(&mut consensus);
    let (_, _, hard_state) = &asked.appends[0];
    assert_eq!(hard_state.map(|hs| (hs.term, hs.vote)), Some((1, raft_id(1, 1))));
    assert!(asked.committed.is_empty());
}

#[test]
fn nothing_is_committed_before_it_is_durable() {
    let (mut consensus, mut log, _disk) = leading();
    consensus.handle(START, Event::Submit(vec![command()])).unwrap();
    let asked = drain(&mut consensus);
    assert_eq!((asked.appends.len(), asked.committed.len()), (1, 0));
    let (number, records, hard_state) = &asked.appends[0];
    log.append(Append { records, hard_state: *hard_state }).unwrap();
    consensus.handle(START, Event::Persisted(*number)).unwrap();
    assert_eq!(drain(&mut consensus).committed, [(records[0].index, 1)]);
}

#[test]
fn what_arrives_while_two_appends_are_synced_shares_the_third() {
    let (mut consensus, mut log, _disk) = leading();
    for _ in 0..2 {
        consensus.handle(START, Event::Submit(vec![command()])).unwrap();
    }
    let asked = drain(&mut consensus);
    assert_eq!(asked.appends.len(), 2);
    for _ in 0..50 {
        consensus.handle(START, Event::Submit(vec![command()])).unwrap();
    }
    assert!(drain(&mut consensus).appends.is_empty());
    for (number, records, hard_state) in asked.appends {
        log.append(Append { records: &records, hard_state }).unwrap();
        consensus.handle(START, Event::Persisted(number)).unwrap();
    }
    let rest = settle(&mut consensus, &mut log);
    let sizes: Vec<usize> = rest.committed.iter().map(|(_, commands)| *commands).collect();
    assert_eq!(sizes, [1, 1, 50]);
}

#[test]
fn a_new_leader_begins_its_epoch_before_anything_it_takes() {
    let disk: SharedDisk = Arc::new(SimDisk::new());
    let (mut consensus, mut log) = open(&disk, Position::default());
    // Submitted before it leads.
    consensus.handle(START, Event::Submit(vec![command()])).unwrap();
    let asked = settle(&mut consensus, &mut log);
    let kinds: Vec<usize> = asked.committed.iter().map(|(_, commands)| *commands).collect();
    // raft's own empty entry, NewEpoch, and only then the command.
    assert_eq!(kinds, [0, 0, 1]);
    let second = &asked.appends.iter().flat_map(|(_, records, _)| records).nth(1).unwrap().data;
    assert!(matches!(Entry::decode(second), Ok(Entry::NewEpoch { .. })));
}

#[test]
fn it_opens_on_a_checkpoint_beyond_the_persisted_commit() {
    let (mut consensus, mut log, disk) = leading();
    consensus.handle(START, Event::Submit(vec![command(), command()])).unwrap();
    let last = settle(&mut consensus, &mut log).committed.last().unwrap().0;
    // The commit of the last entry was never written: there was no append after it.
    assert!(log.hard_state().commit < last);
    drop((consensus, log));
    let (mut consensus, mut log) = open(&disk, Position { index: last, term: 1 });
    let asked = settle(&mut consensus, &mut log);
    assert_eq!(asked.leads, Some(true));
    assert!(asked.committed.iter().all(|(index, _)| *index > last), "{:?}", asked.committed);
}

#[test]
fn what_was_durable_is_committed_again_after_a_restart() {
    let (mut consensus, mut log, disk) = leading();
    consensus.handle(START, Event::Submit(vec![command()])).unwrap();
    let first = settle(&mut consensus, &mut log).committed;
    drop((consensus, log));
    let (mut consensus, mut log) = open(&disk, Position::default());
    let again = settle(&mut consensus, &mut log).committed;
    assert!(again.ends_with(&[(first[0].0 + 1, 0), (first[0].0 + 2, 0)]), "{again:?}");
    assert!(again.contains(&first[0]));
}

#[test]
fn a_sync_waits_for_what_was_committed_before_it() {
    let (mut consensus, mut log, _disk) = leading();
    consensus.handle(START, Event::Submit(vec![command(), Submission::Sync(7)])).unwrap();
    let asked = settle(&mut consensus, &mut log);
    let (index, tokens) = &asked.read_at[0];
    assert_eq!(tokens, &[7]);
    assert!(*index < asked.committed[0].0, "only what is committed when it is asked");
    consensus.handle(START, Event::Submit(vec![Submission::Sync(8)])).unwrap();
    assert_eq!(settle(&mut consensus, &mut log).read_at, [(asked.committed[0].0, vec![8])]);
}

#[test]
fn an_hour_of_standing_still_is_one_tick() {
    let (mut consensus, mut log, _disk) = leading();
    let late = START + Duration::from_secs(3_600);
    consensus.take_measures();
    let in_time = consensus.poll_timeout() + Duration::from_millis(99);
    consensus.handle(in_time, Event::Tick).unwrap();
    assert!(!consensus.take_measures().iter().any(|m| matches!(m, Measure::Stall(_))));
    consensus.handle(late, Event::Tick).unwrap();
    let stall = Measure::Stall(late.since(in_time + Duration::from_millis(20)));
    assert!(consensus.take_measures().contains(&stall));
    assert!(consensus.poll_timeout().us > late.us);
    assert_eq!(settle(&mut consensus, &mut log).leads, None);
    assert!(consensus.is_leading());
}
