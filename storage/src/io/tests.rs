//! The real folder, in a temporary one.

use super::ahead::{HEADER_BYTES, PIECE_BYTES};
use super::{FolderDisk, OpenError};
use crate::dice::Dice;
use crate::disk::Disk;
use crate::log::{Append, HardState, Log, LogError, LogOptions, LogRecord, RecordKind};
use crate::run::PAGE_BYTES;
use std::fs::OpenOptions;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match std::fs::copy(entry.path(), to.join(entry.file_name())) {
            // The thread that prepares space renames and removes what is no part of the log.
            Err(e)
                if e.kind() == std::io::ErrorKind::NotFound
                    && !entry.file_name().to_string_lossy().starts_with("log-") => {}
            copied => drop(copied.unwrap()),
        }
    }
}

fn record(index: u64, len: usize) -> LogRecord {
    let data = (0..len).map(|i| (i as u64 + index) as u8).collect::<Vec<_>>();
    LogRecord { index, term: 1, kind: RecordKind::Normal, data: data.into() }
}

#[test]
fn a_second_daemon_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let first = FolderDisk::open(dir.path()).unwrap();
    let second = FolderDisk::open(dir.path());
    assert!(matches!(second, Err(OpenError::InUse(_))), "{second:?}");
    // A file that is open holds the folder, too; it ends with the last of them.
    let file = first.open("a", 1).unwrap();
    drop(first);
    drop(file);
    for _ in 0..1_000 {
        if FolderDisk::open(dir.path()).is_ok() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("the lock was not released");
}

#[test]
fn a_folder_is_made_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b");
    let disk = FolderDisk::open(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(disk.free_bytes().unwrap() > 0);
    std::fs::write(dir.path().join("file"), "").unwrap();
    assert!(matches!(FolderDisk::open(dir.path().join("file")), Err(OpenError::NotAFolder(_))));
}

#[test]
fn a_file_over_zeroed_space_has_its_own_length() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FolderDisk::open(dir.path()).unwrap();
    let file = disk.open("log", 1 << 20).unwrap();
    assert_eq!(file.len().unwrap(), 0);
    file.set_len(10_000_000).unwrap();
    file.write(9_999_000, &[7; 1_000]).unwrap();
    file.write(0, b"begin").unwrap();
    assert!(file.write(9_999_001, &[7; 1_000]).is_err(), "beyond the end");
    assert!(file.read(9_999_001, &mut [0; 1_000]).is_err(), "beyond the end");
    file.sync_data().unwrap();
    let read = |file: &dyn redb::StorageBackend, at, n| {
        let mut bytes = vec![1; n];
        file.read(at, &mut bytes).unwrap();
        bytes
    };
    drop(file);
    let file = disk.open("log", 1 << 20).unwrap();
    assert_eq!(file.len().unwrap(), 10_000_000);
    assert_eq!(read(&*file, 9_999_000, 1_000), [7; 1_000]);
    assert_eq!(read(&*file, 0, 6), *b"begin\0");
    // What was cut off is zeros when it comes back.
    file.set_len(100).unwrap();
    file.set_len(10_000_000).unwrap();
    assert_eq!(read(&*file, 9_999_000, 1_000), [0; 1_000]);
    // A length that was not synced is not there.
    file.set_len(20_000_000).unwrap();
    drop(file);
    assert_eq!(disk.open("log", 1).unwrap().len().unwrap(), 10_000_000);
}

#[test]
fn over_zeroed_space_is_read_what_was_written_in_whole_pages_or_parts() {
    const PAGE: usize = PAGE_BYTES;
    let dir = tempfile::tempdir().unwrap();
    let mut disk = FolderDisk::open(dir.path()).unwrap();
    let mut file = disk.open("file", 1 << 20).unwrap();
    // In three runs.
    let mut expected = vec![0; 150 * PAGE];
    file.set_len(expected.len() as u64).unwrap();
    let mut dice = Dice(7);
    let mut roll = |n| dice.below(n);
    for turn in 0..3_000 {
        // Pages of several sizes, or a few bytes, of one page or of two.
        let is_whole = roll(4) > 0;
        let (unit, bytes) = if is_whole { (PAGE, PAGE << roll(4)) } else { (1, 1 + roll(400)) };
        // Half of them where the last ones were.
        let room = if roll(2) == 0 { 3 * PAGE } else { expected.len() - bytes };
        let offset = roll(room / unit + 1) * unit;
        match roll(30) {
            0 => file.sync_data().unwrap(),
            1 => {
                file.set_len(offset as u64).unwrap();
                file.set_len(expected.len() as u64).unwrap();
                expected[offset..].fill(0);
            }
            2 => {
                file.close().unwrap();
                drop((file, disk));
                disk = FolderDisk::open(dir.path()).unwrap();
                file = disk.open("file", 1 << 20).unwrap();
                // What was not synced has its length of before, too.
                file.set_len(expected.len() as u64).unwrap();
            }
            3..12 => {
                let data = vec![turn as u8; bytes];
                file.write(offset as u64, &data).unwrap();
                expected[offset..offset + bytes].copy_from_slice(&data);
            }
            _ => {
                let mut read = vec![0; bytes];
                file.read(offset as u64, &mut read).unwrap();
                assert!(read == expected[offset..offset + bytes], "turn {turn}: {bytes} at {offset}");
            }
        }
    }
    // A page that was written in part, was cut off whole, and is written in part again.
    let page = PAGE as u64;
    file.write(page + 1_000, &[1; 100]).unwrap();
    file.set_len(page).unwrap();
    file.set_len(expected.len() as u64).unwrap();
    file.write(page + 1_050, &[2; 10]).unwrap();
    let mut read = [3; 100];
    file.read(page + 1_000, &mut read).unwrap();
    assert_eq!(read.map(u32::from).iter().sum::<u32>(), 20, "{read:?}");
    let end = expected.len() as u64;
    assert!(file.read(end - 1, &mut [0; 2]).is_err(), "no more than there is");
    assert!(file.write(end - 1, &[0; 2]).is_err());
    // Of whole pages it is told with the sync that they go with.
    assert!(file.write(end, &[0; PAGE]).and_then(|()| file.sync_data()).is_err());
}

#[test]
fn what_was_written_where_the_disk_gave_no_more_is_not_zeroed_later() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let open = || {
        let disk = FolderDisk::open(dir.path()).unwrap();
        let file = disk.open("file", 2 * PIECE_BYTES).unwrap();
        (disk, file)
    };
    let (piece, page) = (PIECE_BYTES, [7; PAGE_BYTES]);
    let (disk, file) = open();
    file.set_len(3 * piece).unwrap();
    file.write(2 * piece, &page).unwrap();
    file.sync_data().unwrap();
    drop((file, disk));
    // As when the thread that zeroes found no space there, and the page did.
    let raw = OpenOptions::new().write(true).open(&path).unwrap();
    raw.set_len(HEADER_BYTES + 2 * piece + PAGE_BYTES as u64).unwrap();
    let (disk, file) = open();
    file.set_len(8 * piece).unwrap();
    file.write(4 * piece, &page).unwrap();
    file.sync_data().unwrap();
    until(|| std::fs::metadata(&path).unwrap().len() > HEADER_BYTES + 5 * piece);
    // Its thread is done then, too.
    drop((file, disk));
    let (_disk, file) = open();
    let mut read = [0; PAGE_BYTES];
    file.read(2 * piece, &mut read).unwrap();
    assert!(read == page, "it was zeroed");
}

#[test]
fn a_torn_mark_leaves_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FolderDisk::open(dir.path()).unwrap();
    let file = disk.open("log", 1).unwrap();
    for len in [1_000_000, 2_000_000, 3_000_000] {
        file.set_len(len).unwrap();
        file.sync_data().unwrap();
    }
    drop(file);
    // The third mark is in the second place.
    let path = dir.path().join("log");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4096 + 20] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(disk.open("log", 1).unwrap().len().unwrap(), 2_000_000);
}

#[test]
fn spares_are_hidden_and_used() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FolderDisk::open(dir.path()).unwrap();
    let mut held = Vec::new();
    for i in 0..20 {
        let name = format!("log-{i}");
        let file = disk.open(&name, 1 << 20).unwrap();
        assert_eq!(file.len().unwrap(), 0, "{name} is new");
        file.set_len(2 << 20).unwrap();
        file.write(1 << 20, &[i; 5_000]).unwrap();
        file.sync_data().unwrap();
        // A removed file lives on until its reader is gone.
        held.push((i, file));
        if held.len() > 3 {
            let (i, file) = held.remove(0);
            if i % 2 == 0 {
                drop(file);
                disk.remove(&format!("log-{i}")).unwrap();
            } else {
                disk.remove(&format!("log-{i}")).unwrap();
                let mut bytes = [0; 5_000];
                file.read(1 << 20, &mut bytes).unwrap();
                assert_eq!(bytes, [i; 5_000]);
            }
        }
        assert!(disk.list().unwrap().iter().all(|n| n.starts_with("log-")));
    }
    disk.remove("log-0").unwrap();
}

/// One large append must not make all files that come after it as long.
#[test]
fn a_file_that_is_used_again_is_no_longer_than_it_may_be() {
    const MAX_BYTES: u64 = 2 << 20;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("kept-log-0"), vec![7; 20 << 20]).unwrap();
    let disk = FolderDisk::open(dir.path()).unwrap();
    disk.use_again_up_to(MAX_BYTES);
    let spare_bytes = || std::fs::metadata(dir.path().join("spare")).map(|m| m.len());
    let file = disk.open("log-1", 1 << 20).unwrap();
    until(|| spare_bytes().is_ok());
    assert_eq!(spare_bytes().unwrap(), MAX_BYTES);
    file.set_len(20 << 20).unwrap();
    file.write(19 << 20, &[7; 5_000]).unwrap();
    file.sync_data().unwrap();
    drop(file);
    disk.remove("log-1").unwrap();
    drop(disk.open("log-2", 1 << 20).unwrap());
    until(|| spare_bytes().is_ok());
    drop(disk);
    no_file_is_longer(dir.path(), MAX_BYTES);
}

/// Else none would be used again.
#[test]
fn the_files_of_full_segments_are_no_longer_than_is_foreseen() {
    let options = LogOptions { segment_bytes_max: 4 << 20, ahead_bytes: 2 << 20, ..LogOptions::default() };
    for record_bytes in [100, 1_000, 100_000] {
        let dir = tempfile::tempdir().unwrap();
        let (mut log, _) = Log::open(Arc::new(FolderDisk::open(dir.path()).unwrap()), options).unwrap();
        let mut next = 1;
        while log.segments() < 3 {
            let records: Vec<_> = (next..next + 50_000 / record_bytes as u64 + 1)
                .map(|index| record(index, record_bytes))
                .collect();
            next += records.len() as u64;
            log.append(Append { records: &records, hard_state: None }).unwrap();
        }
        drop(log);
        no_file_is_longer(dir.path(), options.file_bytes_max());
    }
}

/// Once the thread that renames files is gone with their disk.
fn no_file_is_longer(folder: &Path, bytes_max: u64) {
    for entry in std::fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let bytes = entry.metadata().unwrap().len();
        assert!(bytes <= bytes_max, "{:?} has {bytes} bytes", entry.file_name());
    }
}

fn until(holds: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < until);
        std::thread::yield_now();
    }
}

/// What kill -9 leaves is what the system has of the files: a copy of the folder while the log is open.
#[test]
fn a_killed_log_recovers() {
    let options = LogOptions { segment_bytes_max: 1 << 20, ahead_bytes: 1 << 20, ..LogOptions::default() };
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(Arc::new(FolderDisk::open(dir.path().join("0")).unwrap()), options).unwrap();
    let mut next = 1;
    for round in 0..6 {
        for _ in 0..20 {
            let records: Vec<_> =
                (0..7).map(|i| record(next + i, 1 + (next + i) as usize * 97 % 9_000)).collect();
            next += 7;
            let hard_state = HardState { term: 1, vote: 1, commit: next - 8 };
            log.append(Append { records: &records, hard_state: Some(hard_state) }).unwrap();
        }
        if round == 3 {
            log.purge(next / 2).unwrap();
        }
        let to = dir.path().join(format!("{}", round + 1));
        copy(&dir.path().join("0"), &to);
        let (copied, recovered) = Log::open(Arc::new(FolderDisk::open(&to).unwrap()), options).unwrap();
        assert_eq!(recovered.last_index, next - 1);
        assert_eq!(recovered.hard_state.commit, next - 8);
        assert_eq!(recovered.first_index, log.reader().first_index());
        let mut index = recovered.first_index;
        while index < next {
            for read in copied.reader().read(index, next, 100_000).unwrap() {
                assert_eq!(read, record(index, 1 + index as usize * 97 % 9_000));
                index += 1;
            }
        }
    }
    assert!(log.segments() > 1 && log.reader().first_index() > 1);
}

#[test]
fn readers_go_on_while_segments_change() {
    let options = LogOptions {
        segment_bytes_max: 300_000,
        ahead_bytes: 1 << 20,
        cache_bytes: 20_000,
        ..LogOptions::default()
    };
    let dir = tempfile::tempdir().unwrap();
    let (mut log, _) = Log::open(Arc::new(FolderDisk::open(dir.path()).unwrap()), options).unwrap();
    const LAST: u64 = 600;
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let reader = log.reader();
            std::thread::spawn(move || {
                let mut next = 1;
                while next <= LAST {
                    match reader.read(next, u64::MAX, 30_000) {
                        Ok(records) => {
                            for read in records {
                                assert_eq!(read, record(next, 1 + next as usize * 97 % 9_000));
                                next += 1;
                            }
                        }
                        // It was too slow; it would be sent a snapshot.
                        Err(LogError::Purged { first_index, .. }) => next = first_index,
                        Err(e) => panic!("at {next}: {e:?}"),
                    }
                }
            })
        })
        .collect();
    for index in 1..=LAST {
        log.append(Append { records: &[record(index, 1 + index as usize * 97 % 9_000)], hard_state: None })
            .unwrap();
        if index % 100 == 0 {
            log.purge(index.saturating_sub(150)).unwrap();
        }
    }
    readers.into_iter().for_each(|r| r.join().unwrap());
}

#[test]
fn after_a_failed_sync_everything_is_written_once_more() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FolderDisk::open(dir.path()).unwrap();
    let file = disk.open("tree.redb", 0).unwrap();
    file.set_len(8 << 20).unwrap();
    file.write(0, &[1; 5_000]).unwrap();
    file.write(3 << 20, &[3; 2 << 20]).unwrap();
    file.sync_data().unwrap();
    drop(file);
    assert!(!disk.mend().unwrap(), "no sync failed");

    super::mend::mark(dir.path());
    let path = dir.path().join("tree.redb");
    use std::os::unix::fs::MetadataExt;
    let (before, blocks) = (std::fs::read(&path).unwrap(), std::fs::metadata(&path).unwrap().blocks());
    let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
    assert!(disk.mend().unwrap());
    assert!(std::fs::read(&path).unwrap() == before, "the content is the same");
    assert!(std::fs::metadata(&path).unwrap().modified().unwrap() > modified, "it was written");
    assert!(std::fs::metadata(&path).unwrap().blocks() <= blocks + 16, "holes stay holes");
    assert!(!disk.list().unwrap().contains(&super::mend::MARK.to_owned()), "it is none of the store's files");
    assert!(!disk.mend().unwrap(), "once is enough");
}

#[test]
fn what_is_set_aside_counts_as_free_and_is_no_file_of_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FolderDisk::open(dir.path()).unwrap();
    assert_eq!(disk.reserve().held_bytes, 0);
    disk.keep_reserve(4 << 20).unwrap();
    let held = disk.reserve().held_bytes;
    assert!(held >= 4 << 20, "{held}");
    assert!(disk.list().unwrap().is_empty());
    disk.keep_reserve(4 << 20).unwrap();
    assert_eq!(disk.reserve().held_bytes, held, "once is enough");
    drop(disk);
    for _ in 0..1_000 {
        if let Ok(disk) = FolderDisk::open(dir.path()) {
            assert_eq!(disk.reserve().held_bytes, held, "the next process has it, too");
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("the lock was not released");
}
