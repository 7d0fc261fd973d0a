//! A sync fails, the process stops, the next one starts on what the system's cache shows, goes on, and then the power
//! goes: what either of them acknowledged must be there. A server that did this on a disk with one bad sync would
//! otherwise have replayed and acknowledged records that no disk had.

use std::sync::Arc;
use warren_storage::Disk as _;
use warren_storage::log::{Append, Log, LogOptions, LogRecord, RecordKind};
use warren_storage::simdisk::SimDisk;

/// The journal is too small for any append: what it takes is written again at the next open, and so mended.
const OPTIONS: LogOptions =
    LogOptions { segment_bytes_max: 20_000, ahead_bytes: 1, journal_bytes: 1, cache_bytes: 0 };
/// Appends in each life. Each is a page or two, so that a later one does not write the pages of an earlier one again.
const APPENDS: u64 = 12;

fn record(index: u64) -> LogRecord {
    let data = (0..5_000).map(|at| (at * 31 + index * 7) as u8).collect::<Vec<_>>();
    LogRecord { index, term: 1, kind: RecordKind::Normal, data: data.into() }
}

/// Append up to [`APPENDS`] records; the last index that was acknowledged.
fn live(disk: &SimDisk) -> Result<u64, String> {
    let (mut log, recovered) = Log::open(Arc::new(disk.clone()), OPTIONS).map_err(|e| e.to_string())?;
    let mut last = recovered.last_index;
    for index in last + 1..=last + APPENDS {
        if log.append(Append { records: &[record(index)], hard_state: None }).is_err() {
            break;
        }
        last = index;
    }
    // The process is gone, and closes nothing.
    disk.lose_power();
    Ok(last)
}

/// Do both lives keep what they acknowledged, when operation `n` of the first fails?
fn both_lives(n: u64, mend: bool) -> Result<(), String> {
    let first = SimDisk::new();
    first.fail_at(n);
    let Ok(acknowledged) = live(&first) else { return Ok(()) };
    let second = first.after_kill();
    if mend {
        second.mend().map_err(|e| e.to_string())?;
    }
    let last = live(&second)?;
    if last < acknowledged + APPENDS {
        return Err(format!("{acknowledged} were acknowledged, and the second life ended at {last}"));
    }
    for seed in 0..4 {
        let disk = Arc::new(second.after_crash(seed));
        let (log, recovered) = Log::open(disk, OPTIONS).map_err(|e| e.to_string())?;
        if recovered.last_index < last {
            return Err(format!("{last} were acknowledged, {} are there", recovered.last_index));
        }
        let records = log.reader().read(1, last + 1, usize::MAX).map_err(|e| e.to_string())?;
        if records.iter().any(|found| found.data != record(found.index).data) {
            return Err("a record is not what was written".into());
        }
    }
    Ok(())
}

fn operations() -> u64 {
    let disk = SimDisk::new();
    live(&disk).unwrap();
    disk.operations()
}

#[test]
fn what_was_acknowledged_after_a_failed_sync_outlives_the_power() {
    for n in 1..=operations() {
        both_lives(n, true).unwrap_or_else(|what| panic!("operation {n} fails: {what}"));
    }
}

/// The test above can fail: without the mending it does.
#[test]
fn without_mending_it_does_not() {
    let lost = (1..=operations())
        .filter(|n| std::panic::catch_unwind(|| both_lives(*n, false)).map_or(true, |kept| kept.is_err()));
    assert!(lost.count() > 0);
}
