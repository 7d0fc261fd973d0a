//! The log on a disk that fails and loses power at every operation there is.

use super::{Append, HardState, Log, LogError, LogOptions, LogRecord, RecordKind, Recovered};
use crate::disk::SharedDisk;
use crate::io::FolderDisk;
use crate::simdisk::SimDisk;
use std::sync::Arc;

const OPTIONS: LogOptions =
    LogOptions { segment_bytes_max: 40_000, ahead_bytes: 1, journal_bytes: 80 << 10, cache_bytes: 9_000 };

#[derive(Clone, Debug)]
enum Step {
    /// First index relative to the last + 1, terms, sizes, hard state.
    Append {
        back: u64,
        term: u64,
        sizes: Vec<usize>,
        commit: Option<u64>,
    },
    Purge(u64),
    Reset(u64, u64),
}

/// What the log should hold.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Model {
    base: (u64, u64),
    records: Vec<LogRecord>,
    hard_state: HardState,
}

impl Model {
    fn new() -> Model {
        Model { base: (0, 0), records: Vec::new(), hard_state: HardState::default() }
    }

    fn last(&self) -> u64 {
        self.base.0 + self.records.len() as u64
    }

    /// The step as a call, and what holds after it.
    fn after(&self, step: &Step) -> (Model, Vec<LogRecord>, Option<HardState>) {
        let mut model = self.clone();
        match step {
            Step::Append { back, term, sizes, commit } => {
                let first = self.last() + 1 - back;
                let records: Vec<LogRecord> = sizes
                    .iter()
                    .zip(first..)
                    .map(|(size, index)| LogRecord {
                        index,
                        term: *term,
                        kind: RecordKind::Normal,
                        data: (0..*size)
                            .map(|i| (i as u64 * 31 + index * 7 + term) as u8)
                            .collect::<Vec<_>>()
                            .into(),
                    })
                    .collect();
                if !records.is_empty() {
                    model.records.truncate((first - 1 - model.base.0) as usize);
                    model.records.extend(records.iter().cloned());
                }
                let hard_state = commit.map(|commit| HardState { term: *term, vote: term % 3, commit });
                model.hard_state = hard_state.unwrap_or(model.hard_state);
                (model, records, hard_state)
            }
            Step::Purge(_) => (model, Vec::new(), None),
            Step::Reset(index, term) => {
                model.base = (*index, *term);
                model.records.clear();
                model.hard_state.commit = model.hard_state.commit.max(*index);
                (model, Vec::new(), None)
            }
        }
    }

    /// Does the log hold this? It may have less at the beginning, if `purged` through there.
    fn check(&self, log: &Log, recovered: Option<Recovered>, purged: u64) -> Result<(), String> {
        let reader = log.reader();
        let (first, last) = (reader.first_index(), reader.last_index());
        let want = |ok: bool, what: &str| if ok { Ok(()) } else { Err(format!("{what}: {first}..={last}")) };
        want(last == self.last(), "last index")?;
        want(first > self.base.0 && first <= purged.max(self.base.0) + 1, "first index")?;
        want(log.hard_state() == self.hard_state, "hard state")?;
        let read = read_all(log).map_err(|e| e.to_string())?;
        want(read == self.records[(first - 1 - self.base.0) as usize..], "records")?;
        for record in &read {
            want(reader.term(record.index).ok() == Some(Some(record.term)), "term")?;
        }
        let before = if first - 1 == self.base.0 {
            self.base.1
        } else {
            self.records[(first - 2 - self.base.0) as usize].term
        };
        want(reader.term(first - 1).ok() == Some(Some(before)), "term before the first")?;
        want(reader.term(last + 1).ok() == Some(None), "term after the last")?;
        if let Some(r) = recovered {
            want(
                (r.first_index, r.last_index, r.hard_state) == (first, last, self.hard_state),
                "what open reported",
            )?;
        }
        Ok(())
    }
}

fn read_all(log: &Log) -> Result<Vec<LogRecord>, LogError> {
    let reader = log.reader();
    let mut from = reader.first_index();
    let mut all = Vec::new();
    loop {
        let part = reader.read(from, u64::MAX, 5_000)?;
        if part.is_empty() {
            return Ok(all);
        }
        from += part.len() as u64;
        all.extend(part);
    }
}

fn script() -> Vec<Step> {
    let append =
        |back, term, sizes: &[usize], commit| Step::Append { back, term, sizes: sizes.to_vec(), commit };
    let mut steps = vec![
        append(0, 1, &[], Some(0)),
        append(0, 1, &[10], None),
        append(0, 1, &[200; 20], Some(1)),
        append(1, 1, &[20; 2], None),
        append(0, 1, &[9_000, 0, 30_000], Some(10)),
        // Another segment.
        append(0, 2, &[100], Some(20)),
        append(0, 2, &[500; 8], None),
        // A truncation within it.
        append(5, 3, &[700; 3], Some(21)),
        append(0, 3, &[], Some(22)),
        append(0, 3, &[20_000, 20_000], None),
        append(0, 3, &[1; 5], Some(25)),
        append(0, 3, &[50_000], None),
        append(0, 4, &[60_000], None),
        // One that reaches into a sealed segment, past others.
        append(6, 5, &[300, 300], Some(26)),
        append(0, 5, &[50_000], None),
        append(0, 5, &[300; 3], None),
        append(4, 6, &[40_000], Some(29)),
        Step::Purge(20),
        append(0, 6, &[300; 3], None),
        append(0, 6, &[], Some(30)),
        append(2, 6, &[200; 4], None),
        Step::Purge(29),
        append(0, 6, &[30_000], Some(31)),
        Step::Reset(100, 7),
        append(0, 7, &[300; 3], Some(101)),
        append(0, 7, &[45_000], Some(102)),
        append(0, 7, &[45], Some(104)),
        // To a lower index, as when the log ran ahead of the tree that was installed.
        Step::Reset(90, 7),
        append(0, 8, &[17], Some(90)),
    ];
    // More than the journal has room for, and some of a second round.
    steps.extend((0..25).map(|n| append(0, 8, &[n, 100], (n % 3 == 0).then_some(90))));
    steps
}

/// Runs the script. What held after the last step that was acknowledged, what would after the one that failed, how
/// far was purged, and the error.
fn run(disk: &SimDisk, check: bool) -> (Model, Model, u64, Option<LogError>) {
    run_on(Arc::new(disk.clone()), check)
}

fn run_on(disk: SharedDisk, check: bool) -> (Model, Model, u64, Option<LogError>) {
    let mut model = Model::new();
    let mut purged = 0;
    let mut log = match Log::open(disk, OPTIONS) {
        Ok((log, _)) => log,
        Err(e) => return (model.clone(), model, 0, Some(e)),
    };
    for step in script() {
        let (next, records, hard_state) = model.after(&step);
        let done = match &step {
            Step::Append { .. } => log.append(Append { records: &records, hard_state }),
            Step::Purge(through) => {
                purged = *through;
                log.purge(*through)
            }
            Step::Reset(index, term) => log.reset(*index, *term, None),
        };
        if let Err(e) = done {
            assert!(matches!(
                log.append(Append { hard_state, records: &[] }),
                Err(LogError::Stopped) | Ok(())
            ));
            return (model, next, purged, Some(e));
        }
        model = next;
        if check {
            model.check(&log, None, purged).unwrap_or_else(|e| panic!("after {step:?}: {e}"));
        }
    }
    (model.clone(), model, purged, None)
}

fn check_either(
    disk: &SimDisk,
    acknowledged: &Model,
    attempted: &Model,
    purged: u64,
    goes_on: bool,
    what: &str,
) {
    let (mut log, recovered) =
        Log::open(Arc::new(disk.clone()), OPTIONS).unwrap_or_else(|e| panic!("{what}: {e:?}"));
    let first = acknowledged.check(&log, Some(recovered), purged);
    let second = attempted.check(&log, Some(recovered), purged);
    assert!(first.is_ok() || second.is_ok(), "{what}: neither {first:?} nor {second:?}");
    let mut model = if first.is_ok() { acknowledged.clone() } else { attempted.clone() };
    if !goes_on {
        return;
    }
    for step in [
        Step::Append { back: 0, term: 9, sizes: vec![45_000], commit: Some(5) },
        Step::Append { back: 1, term: 10, sizes: vec![100, 100], commit: None },
    ] {
        let (next, records, hard_state) = model.after(&step);
        log.append(Append { records: &records, hard_state }).unwrap_or_else(|e| panic!("{what}: {e:?}"));
        next.check(&log, None, purged).unwrap_or_else(|e| panic!("{what}, going on: {e}"));
        model = next;
    }
    drop(log);
    let (log, recovered) = Log::open(Arc::new(disk.clone()), OPTIONS).unwrap();
    assert!(!recovered.repaired, "{what}: closed cleanly");
    model.check(&log, Some(recovered), purged).unwrap_or_else(|e| panic!("{what}, again: {e}"));
}

#[test]
fn the_script_as_it_is_meant() {
    let disk = SimDisk::new();
    let (model, _, purged, error) = run(&disk, true);
    assert!(error.is_none(), "{error:?}");
    check_either(&disk, &model, &model, purged, true, "reopened");
}

#[test]
fn the_script_on_a_real_folder() {
    let dir = tempfile::tempdir().unwrap();
    let (model, _, purged, error) = run_on(Arc::new(FolderDisk::open(dir.path()).unwrap()), true);
    assert!(error.is_none(), "{error:?}");
    let (log, recovered) = Log::open(Arc::new(FolderDisk::open(dir.path()).unwrap()), OPTIONS).unwrap();
    assert!(!recovered.repaired);
    model.check(&log, Some(recovered), purged).unwrap();
}

/// How many operations the script takes when nothing goes wrong.
fn operations() -> u64 {
    let disk = SimDisk::new();
    run(&disk, false);
    assert!(disk.operations() > 300, "{} operations", disk.operations());
    disk.operations()
}

#[test]
fn power_lost_at_every_operation() {
    for n in 1..=operations() {
        let disk = SimDisk::new();
        disk.set_stale_space(n % 2 == 0);
        disk.lose_power_at(n);
        let (acknowledged, attempted, purged, _) = run(&disk, false);
        for seed in 0..3 {
            let what = format!("power lost at operation {n}, seed {seed}");
            check_either(
                &disk.after_crash(n * 1_000 + seed),
                &acknowledged,
                &attempted,
                purged,
                n % 5 == seed,
                &what,
            );
        }
    }
}

#[test]
fn an_error_at_every_operation() {
    for n in 1..=operations() {
        let disk = SimDisk::new();
        disk.fail_at(n);
        let (acknowledged, attempted, purged, _) = run(&disk, false);
        let what = format!("error at operation {n}");
        check_either(&disk.after_kill(), &acknowledged, &attempted, purged, n % 5 == 0, &what);
        check_either(&disk.after_crash(n), &acknowledged, &attempted, purged, n % 5 == 1, &what);
    }
}

#[test]
fn a_disk_full_at_every_page() {
    let mut refused = 0;
    for pages in (1..240).step_by(2) {
        let disk = SimDisk::new();
        disk.set_capacity(Some(pages * 4096));
        let (acknowledged, attempted, purged, error) = run(&disk, false);
        let what = format!("{pages} pages");
        if let Some(e) = error {
            assert!(e.is_full(), "{what}: {e:?}");
            refused += 1;
        }
        let after = disk.after_kill();
        after.set_capacity(None);
        check_either(&after, &acknowledged, &attempted, purged, pages % 5 == 0, &what);
    }
    assert!(refused > 20 && refused < 119, "{refused} sizes were too small");
}

#[test]
fn appends_that_wait_for_one_sync_leave_what_one_after_the_other_would() {
    let record =
        |index, term| LogRecord { index, term, kind: RecordKind::Normal, data: vec![term as u8].into() };
    let hard_state = |term| Some(HardState { term, vote: 1, commit: 0 });
    let mut records = vec![record(3, 1), record(4, 1), record(5, 1)];
    let mut state = hard_state(1);
    super::join(&mut records, &mut state, vec![record(4, 2)], None);
    assert_eq!((&records, state), (&vec![record(3, 1), record(4, 2)], hard_state(1)));
    super::join(&mut records, &mut state, Vec::new(), hard_state(3));
    assert_eq!((records.len(), state), (2, hard_state(3)));
    super::join(&mut records, &mut state, vec![record(2, 4)], hard_state(4));
    assert_eq!((records, state), (vec![record(2, 4)], hard_state(4)), "further back than what waits");
}

#[test]
fn the_latest_records_begin_with_a_segment() {
    let (mut log, _) = Log::open(Arc::new(SimDisk::new()), OPTIONS).unwrap();
    assert_eq!((log.latest_from(0), log.latest_from(1)), (1, 1));
    const RECORD_BYTES: u64 = 1_000;
    for index in 1..=200 {
        let record = LogRecord {
            index,
            term: 1,
            kind: RecordKind::Normal,
            data: vec![0; RECORD_BYTES as usize].into(),
        };
        log.append(Append { records: &[record], hard_state: None }).unwrap();
    }
    assert!(log.segments() > 4);
    assert_eq!((log.latest_from(0), log.latest_from(u64::MAX)), (201, 1));
    for bytes in [1, 30_000, 50_000, 100_000] {
        let latest = (201 - log.latest_from(bytes)) * RECORD_BYTES;
        assert!(latest > bytes * 9 / 10, "{latest} of {bytes}");
        assert!(latest < bytes + OPTIONS.segment_bytes_max + RECORD_BYTES, "{latest} of {bytes}");
    }
    log.purge(log.latest_from(50_000) - 1).unwrap();
    assert_eq!(log.reader().first_index(), log.latest_from(50_000));
}
