//! A snapshot is installed, and the power goes, or the disk fails, at every operation there is.

use super::*;
use crate::command::{Command, CreateMode, Logged, Op, Rules};
use crate::log::{Append, LogRecord, RecordKind};
use crate::simdisk::SimDisk;
use crate::tree::{Digest, Identity, Import, ImportError};
use crate::{AclRef, Disk, IdRef};
use std::sync::Arc;

const LOG: LogOptions =
    LogOptions { segment_bytes_max: 4_000, ahead_bytes: 1, journal_bytes: 80 << 10, cache_bytes: 1_000 };
/// What the snapshot is of.
const SNAPSHOT: Position = Position { index: 200, term: 3 };
/// What the receiver had checkpointed, and what it knew as committed.
const OLD: Position = Position { index: 20, term: 1 };
const COMMITTED: u64 = 40;

fn tree_options(store_id: u64) -> TreeOptions {
    TreeOptions { memory_bytes: 100_000, hash_seed: 7, store_id }
}

fn open(disk: &SimDisk) -> Result<Recovered, RecoverError> {
    recover(Arc::new(disk.clone()), tree_options(9), LOG)
}

fn term_of(index: u64) -> u64 {
    if index <= COMMITTED { 1 } else { 3 }
}

/// Apply what the entries up to `to` say, and checkpoint there.
fn apply(tree: &mut Tree, to: u64) {
    let acl = vec![AclRef { perms: 31, id: IdRef { scheme: "world", id: "anyone" } }];
    for index in tree.position().index + 1..=to {
        let (path, data) = (format!("/n{index}"), index.to_be_bytes());
        let op = Op::Create {
            path: &path,
            data: Some(&data),
            acl: acl.clone(),
            mode: CreateMode::Persistent,
            ttl: 0,
        };
        let logged = Logged { tag: None, ids: Vec::new(), command: Command::Single(op) };
        tree.apply(index as i64, &Rules::default(), &logged).unwrap();
        tree.advance(index, term_of(index));
    }
    tree.set_conf_state(vec![to as u8]);
    let written = tree.freeze().unwrap().write().unwrap();
    drop(tree.install(written));
}

fn record(index: u64, term: u64) -> LogRecord {
    LogRecord { index, term, kind: RecordKind::Normal, data: vec![7; 100].into() }
}

/// Chunks of the snapshot, and its digest.
fn snapshot() -> (Vec<Vec<u8>>, Digest) {
    let mut tree = Tree::open(Arc::new(SimDisk::new()), tree_options(5)).unwrap();
    apply(&mut tree, SNAPSHOT.index);
    let mut export = tree.export().unwrap();
    let chunks = std::iter::from_fn(|| export.next_chunk(4_000).unwrap()).collect();
    (chunks, tree.digest())
}

/// A server that is behind, and whose log ends at `last` with entries of term 2 that were never committed.
fn behind(last: u64) -> (SimDisk, Digest) {
    let disk = SimDisk::new();
    let Recovered { mut tree, mut log, .. } = open(&disk).unwrap();
    let records: Vec<_> = (1..=last).map(|i| record(i, if i <= COMMITTED { 1 } else { 2 })).collect();
    for records in records.chunks(10) {
        log.append(Append { records, hard_state: None }).unwrap();
    }
    let hard_state = HardState { term: 2, vote: 5, commit: COMMITTED };
    log.append(Append { records: &[], hard_state: Some(hard_state) }).unwrap();
    apply(&mut tree, OLD.index);
    (disk, tree.digest())
}

/// How far an installation came.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Receiving,
    Replacing,
    Done,
}

/// What a server does that is sent a snapshot.
fn install(disk: &SimDisk, chunks: &[Vec<u8>]) -> Stage {
    let mut stage = Stage::Receiving;
    let mut steps = || -> Result<(), Box<dyn std::error::Error>> {
        let Recovered { tree, mut log, .. } = open(disk)?;
        let shared: SharedDisk = Arc::new(disk.clone());
        let mut import = Import::begin(shared.clone(), tree.identity(), 0)?;
        chunks.iter().try_for_each(|chunk| import.push(chunk))?;
        let staged = import.finish()?;
        stage = Stage::Replacing;
        let new = Tree::replace(shared, staged, tree_options(9))?;
        log.reset(
            new.position().index,
            new.position().term,
            Some(HardState { term: 3, vote: 0, commit: 0 }),
        )?;
        Ok(())
    };
    match steps() {
        Ok(()) => Stage::Done,
        Err(_) => stage,
    }
}

/// The store is either what it was or what was sent, and goes on from there. Returns whether it is new, and
/// whether the log had to be discarded for it.
fn check(disk: &SimDisk, last: u64, old: Digest, new: Digest) -> (bool, bool) {
    let Recovered { tree, mut log, found, discarded } = open(disk).unwrap();
    assert!(!disk.exists("tree.redb.new").unwrap());
    assert_eq!(tree.store_id(), 9, "a server's store keeps its id");
    assert_eq!((found.last_index, found.hard_state), (log.reader().last_index(), log.hard_state()));
    let is_new = tree.position() == SNAPSHOT;
    if is_new {
        assert_eq!((tree.digest(), tree.conf_state()), (new, &[SNAPSHOT.index as u8][..]));
        assert_eq!((found.first_index, found.last_index, found.last_term), (201, 200, 3));
        assert_eq!(log.reader().term(200).unwrap(), Some(3));
        assert_eq!(found.hard_state, HardState { term: 3, vote: 0, commit: 200 });
    } else {
        assert_eq!((tree.position(), tree.digest()), (OLD, old));
        assert_eq!(tree.conf_state(), [OLD.index as u8]);
        assert_eq!((found.first_index, found.last_index), (1, last));
        assert_eq!(found.hard_state, HardState { term: 2, vote: 5, commit: COMMITTED });
        assert_eq!(log.reader().read(21, 31, usize::MAX).unwrap().len(), 10);
    }
    // It goes on, and the next start finds what was written.
    let next = found.last_index + 1;
    log.append(Append { records: &[record(next, 4)], hard_state: None }).unwrap();
    drop((tree, log));
    let again = open(disk).unwrap();
    assert_eq!((again.found.last_index, again.found.last_term, again.discarded), (next, 4, false));
    (is_new, discarded)
}

#[test]
fn a_crash_at_any_operation_leaves_the_old_store_or_the_new_one() {
    let (chunks, new) = snapshot();
    assert!(chunks.len() > 5);
    // The log ends before the snapshot; or behind it, with entries that lost an election.
    for last in [COMMITTED, 230] {
        let (fresh, old) = behind(last);
        let whole = fresh.after_kill();
        assert_eq!(install(&whole, &chunks), Stage::Done);
        let operations = whole.operations();
        let (mut olds, mut news, mut between) = (0, 0, 0);
        for n in 1..=operations {
            // A failing disk ends as a crash does; of that, one log will do.
            for power in if last == COMMITTED { vec![true, false] } else { vec![true] } {
                let disk = fresh.after_kill();
                if power {
                    disk.lose_power_at(n)
                } else {
                    disk.fail_at(n)
                }
                let stage = install(&disk, &chunks);
                disk.lose_power();
                // What is lost matters most where names change.
                let crashes = if power && stage == Stage::Replacing && last == COMMITTED { 16 } else { 1 };
                for seed in n..n + crashes {
                    let found = if power { disk.after_crash(seed) } else { disk.after_kill() };
                    let (is_new, discarded) = check(&found, last, old, new);
                    between += u32::from(discarded);
                    assert!(stage != Stage::Receiving || !is_new, "operation {n}: new too early");
                    assert!(stage != Stage::Done || is_new, "operation {n}: lost after it was reported");
                    if is_new { news += 1 } else { olds += 1 }
                }
            }
        }
        assert!(olds > 0 && news > 0 && between > 0, "{olds} {news} {between} of {operations}");
    }
}

#[test]
fn a_vote_survives_the_loss_of_the_log() {
    let (chunks, _) = snapshot();
    let (disk, _) = behind(COMMITTED);
    // It voted in a term beyond the snapshot's, and crashed between rename and reset.
    let Recovered { tree, mut log, .. } = open(&disk).unwrap();
    let hard_state = HardState { term: 8, vote: 6, commit: COMMITTED };
    log.append(Append { records: &[], hard_state: Some(hard_state) }).unwrap();
    drop((tree, log));
    stage(&disk, &chunks);
    let recovered = open(&disk).unwrap();
    assert!(recovered.discarded);
    assert_eq!(recovered.found.hard_state, HardState { term: 8, vote: 6, commit: 200 });
}

/// Replace the tree, and crash.
fn stage(disk: &SimDisk, chunks: &[Vec<u8>]) {
    let shared: SharedDisk = Arc::new(disk.clone());
    let mut import =
        Import::begin(shared.clone(), Identity { store_id: 9, disk: 1, observes: false }, 0).unwrap();
    chunks.iter().for_each(|chunk| import.push(chunk).unwrap());
    drop(Tree::replace(shared, import.finish().unwrap(), tree_options(9)).unwrap());
}

#[test]
fn a_log_that_has_the_tree_is_kept() {
    let (chunks, _) = snapshot();
    let (disk, _) = behind(COMMITTED);
    let Recovered { tree, mut log, .. } = open(&disk).unwrap();
    let records: Vec<_> = (COMMITTED + 1..=230).map(|i| record(i, term_of(i))).collect();
    log.append(Append { records: &records, hard_state: None }).unwrap();
    drop((tree, log));
    stage(&disk, &chunks);
    let recovered = open(&disk).unwrap();
    assert!(!recovered.discarded);
    assert_eq!((recovered.found.first_index, recovered.found.last_index), (1, 230));
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let (chunks, _) = snapshot();
    // Other entries are committed where the tree has its own.
    let (disk, _) = behind(230);
    let Recovered { tree, mut log, .. } = open(&disk).unwrap();
    let hard_state = HardState { term: 3, vote: 0, commit: 200 };
    log.append(Append { records: &[], hard_state: Some(hard_state) }).unwrap();
    drop((tree, log));
    stage(&disk, &chunks);
    let refused = open(&disk).err().unwrap();
    assert!(matches!(refused, RecoverError::Histories { index: 200, tree: 3, log: 2 }), "{refused}");

    // The log begins too late.
    let (disk, _) = behind(COMMITTED);
    let Recovered { tree, mut log, .. } = open(&disk).unwrap();
    log.reset(30, 1, None).unwrap();
    drop((tree, log));
    let refused = open(&disk).err().unwrap();
    assert!(matches!(refused, RecoverError::Gap { first: 31, tree: 20 }), "{refused}");

    // There is none.
    let (disk, _) = behind(COMMITTED);
    for name in disk.list().unwrap().iter().filter(|name| *name != "tree.redb") {
        disk.remove(name).unwrap();
    }
    let refused = open(&disk).err().unwrap();
    assert!(matches!(refused, RecoverError::NoLog { tree: 20 }), "{refused}");
}

#[test]
fn a_full_disk_refuses_the_stream_and_keeps_its_reserve() {
    let (chunks, _) = snapshot();
    let (disk, old) = behind(COMMITTED);
    let Recovered { tree, log, .. } = open(&disk).unwrap();
    disk.set_capacity(Some(64 << 20));
    let free = disk.free_bytes().unwrap();
    let mut import = Import::begin(
        Arc::new(disk.clone()),
        Identity { store_id: 9, disk: 1, observes: false },
        free - (20 << 20),
    )
    .unwrap();
    import.push(&chunks[0]).unwrap();
    disk.set_capacity(Some(60 << 20));
    let refused = import.push(&chunks[1]).unwrap_err();
    assert!(matches!(refused, ImportError::NoSpace { .. }), "{refused}");
    assert!(matches!(import.push(&chunks[0]), Err(ImportError::Over)));
    import.abandon().unwrap();
    assert!(!disk.exists("tree.redb.new").unwrap());
    drop((tree, log));
    disk.set_capacity(None);
    assert_eq!(check(&disk, COMMITTED, old, old), (false, false));
}

/// A store as a backup is restored to: the tree of an ensemble that begins anew, and a log behind it.
fn restored() -> (SimDisk, Position) {
    let disk = SimDisk::new();
    let shared: SharedDisk = Arc::new(disk.clone());
    let mut import =
        Import::begin(shared.clone(), Identity { store_id: 9, disk: 0, observes: false }, 0).unwrap();
    snapshot().0.iter().for_each(|chunk| import.push(chunk).unwrap());
    let mut tree = Tree::replace(shared.clone(), import.finish().unwrap(), tree_options(9)).unwrap();
    tree.restart(1, 10).unwrap();
    let at = tree.position();
    drop(tree);
    begin_log(shared, at).unwrap();
    (disk, at)
}

/// What the first server does that finds it.
fn take_part(disk: &SimDisk) -> Result<(), Box<dyn std::error::Error>> {
    let Recovered { mut tree, mut log, .. } = open(disk)?;
    if tree.disk() == 0 {
        tree.take_part_with(2, b"alone".to_vec(), None)?;
        let at = tree.position();
        log.reset(at.index, at.term, Some(HardState { term: at.term, vote: 0, commit: at.index }))?;
    }
    // It votes and serves.
    let hard_state = HardState { term: tree.position().term + 1, vote: 7, commit: tree.position().index };
    let first = record(tree.position().index + 1, hard_state.term);
    log.append(Append { records: &[first], hard_state: Some(hard_state) })?;
    Ok(())
}

#[test]
fn a_restored_store_takes_part_once_wherever_the_power_goes() {
    let mut met = [0; 3];
    for operation in 1.. {
        let (disk, at) = restored();
        let digest = open(&disk.after_kill()).unwrap().tree.digest();
        disk.lose_power_at(disk.operations() + operation);
        let done = take_part(&disk).is_ok();
        for seed in 0..4 {
            let disk = disk.after_crash(seed);
            let Recovered { tree, log, found, discarded } = open(&disk).unwrap();
            let before = tree.disk() == 0;
            met[usize::from(discarded)] += 1;
            met[2] += usize::from(before);
            assert_eq!(tree.digest().znodes, digest.znodes);
            assert_eq!(tree.position().index, at.index + u64::from(!before));
            assert_eq!(tree.conf_state(), if before { &b""[..] } else { b"alone" });
            assert!(!done || found.hard_state.vote == 7, "a vote that was kept is forgotten");
            drop((tree, log));
            take_part(&disk).unwrap();
            let Recovered { tree, found, discarded, .. } = open(&disk).unwrap();
            assert_eq!((tree.disk(), discarded), (2, false));
            assert_eq!((found.first_index, found.last_index), (at.index + 2, at.index + 2));
        }
        if done {
            break;
        }
    }
    assert!(met.iter().all(|n| *n > 0), "{met:?}");
}
