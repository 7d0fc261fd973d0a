//! A file whose writes are gathered: redb writes page by page, as its memory runs out and not quite in the order of the
//! file. To the disk those would be very many small writes, of which a sync, or whoever syncs beside them, waits for each; here
//! each page is copied to its place in a [`Run`], and those are given to the file as they are, at the latest before a sync.
//!
//! Who reads finds what was written, wherever it is, and waits for no write that is under way. (Who reads by redb may have to
//! write a page for it, when its memory is full; then it waits for its turn.)

use crate::disk::BulkFile;
use crate::run::{RUN_BYTES, Run};
use parking_lot::{RwLock, RwLockUpgradableReadGuard, RwLockWriteGuard};
use redb::StorageBackend;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// See the module. Who writes waits for who writes; any number read beside them.
#[derive(Debug)]
pub(crate) struct Gathered {
    file: Box<dyn BulkFile>,
    runs_max: usize,
    held: RwLock<Held>,
}

/// What is not written yet, or is just being written.
#[derive(Debug, Default)]
struct Held {
    /// By place in the file, in runs.
    runs: BTreeMap<u64, Arc<Run>>,
    /// A write failed: what it was about to write is gone.
    failed: bool,
}

/// The runs that these bytes are in.
fn numbers(offset: u64, bytes: usize) -> std::ops::Range<u64> {
    let run = RUN_BYTES as u64;
    offset / run..(offset + bytes as u64).div_ceil(run)
}

impl Held {
    fn check(&self) -> io::Result<()> {
        if self.failed { Err(io::Error::other("an earlier write failed")) } else { Ok(()) }
    }

    /// These bytes, where one run has them all.
    fn get(&self, offset: u64, bytes: usize) -> Option<&[u8]> {
        self.runs.get(&numbers(offset, bytes).start)?.get(offset, bytes)
    }

    /// Those of these bytes that are held, and their places.
    fn over(&self, offset: u64, bytes: usize) -> Vec<(u64, Vec<u8>)> {
        let end = offset + bytes as u64;
        let runs = self.runs.range(numbers(offset, bytes)).map(|(_, run)| run);
        let parts = runs.filter(|run| run.overlaps(offset, bytes)).flat_map(|run| run.parts());
        let near = parts.filter(|(at, part)| *at < end && offset < at + part.len() as u64);
        let within = near.map(|(at, part)| {
            let (from, to) = (at.max(offset), end.min(at + part.len() as u64));
            (from, part[(from - at) as usize..(to - at) as usize].to_vec())
        });
        within.collect()
    }

    /// Put whole pages, all of one run, in their place. The run that is to be written then, if there is one.
    fn gather(&mut self, file: &dyn BulkFile, runs_max: usize, offset: u64, data: &[u8]) -> Option<u64> {
        let number = numbers(offset, data.len()).start;
        let run = self.runs.entry(number).or_insert_with(|| Arc::new(file.room().at(offset)));
        let run = Arc::get_mut(run).expect("nobody else has one that is held");
        run.put(offset, data);
        if run.is_whole() {
            return Some(number);
        }
        self.runs.keys().next().copied().filter(|_| self.runs.len() > runs_max)
    }
}

impl Gathered {
    /// Holds so many runs at most that pages are missing in; beyond it the one that stands first in the file is written as it
    /// is.
    pub(crate) fn new(file: Box<dyn BulkFile>, runs_max: usize) -> Gathered {
        Gathered { file, runs_max, held: RwLock::default() }
    }

    /// Write one, or all. They are found here until they are found in the file.
    fn write_out(&self, held: RwLockUpgradableReadGuard<'_, Held>, only: Option<u64>) -> io::Result<()> {
        held.check()?;
        let mut due = held.runs.iter().filter(|(number, _)| only.is_none_or(|only| only == **number));
        let written = due.try_for_each(|(_, run)| self.file.put(run.clone()));
        let mut held = RwLockUpgradableReadGuard::upgrade(held);
        held.failed = written.is_err();
        held.runs.retain(|number, _| only.is_some_and(|only| only != *number));
        written
    }

    fn write_all(&self) -> io::Result<()> {
        self.write_out(self.held.upgradable_read(), None)
    }
}

impl StorageBackend for Gathered {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let over = {
            let held = self.held.read();
            held.check()?;
            if let Some(data) = held.get(offset, out.len()) {
                out.copy_from_slice(data);
                return Ok(());
            }
            held.over(offset, out.len())
        };
        self.file.read(offset, out)?;
        for (at, part) in over {
            out[(at - offset) as usize..][..part.len()].copy_from_slice(&part);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let last = self.held.read().runs.last_key_value().map(|(number, _)| *number);
        if last.is_some_and(|number| (number + 1) * RUN_BYTES as u64 > len) {
            self.write_all()?;
        }
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.write_all()?;
        self.file.sync_data()
    }

    fn write(&self, mut offset: u64, mut data: &[u8]) -> io::Result<()> {
        if !Run::takes(offset, data.len()) {
            self.write_all()?;
            return self.file.write(offset, data);
        }
        while !data.is_empty() {
            let (here, behind) = Run::split(offset, data);
            let mut held = self.held.write();
            held.check()?;
            if let Some(due) = held.gather(&*self.file, self.runs_max, offset, here) {
                self.write_out(RwLockWriteGuard::downgrade_to_upgradable(held), Some(due))?;
            }
            (offset, data) = (offset + here.len() as u64, behind);
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        let written = self.write_all();
        self.file.close()?;
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Disk as _;
    use crate::dice::Dice;
    use crate::run::PAGE_BYTES;
    use crate::simdisk::SimDisk;
    use parking_lot::Mutex;

    const PAGE: usize = PAGE_BYTES;
    const RUNS_MAX: usize = 32;
    const MIB: u64 = 1 << 20;

    /// Tells what was written, in order. Its own bytes are sevens, and a write waits while its gate is locked.
    #[derive(Clone, Debug, Default)]
    struct Noted {
        written: Arc<Mutex<Vec<(u64, usize)>>>,
        gate: Arc<Mutex<()>>,
    }

    impl BulkFile for Noted {}

    impl StorageBackend for Noted {
        fn len(&self) -> io::Result<u64> {
            Ok(0)
        }
        fn read(&self, _: u64, out: &mut [u8]) -> io::Result<()> {
            out.fill(7);
            Ok(())
        }
        fn set_len(&self, _: u64) -> io::Result<()> {
            Ok(())
        }
        fn sync_data(&self) -> io::Result<()> {
            Ok(())
        }
        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            assert_eq!(data.as_ptr().align_offset(PAGE_BYTES), 0, "it could not go past the cache");
            self.written.lock().push((offset, data.len()));
            drop(self.gate.lock());
            Ok(())
        }
    }

    #[test]
    fn pages_that_come_out_of_order_are_written_in_whole_runs_and_once() {
        let noted = Noted::default();
        let gathered = Gathered::new(Box::new(noted.clone()), RUNS_MAX);
        let pages = 64 * MIB / PAGE as u64;
        // As from 131 queues, one after the other, each with a hundredth of what is near.
        for group in 0..pages / 1024 {
            for page in 0..1024 {
                let place = group * 1024 + page * 131 % 1024;
                gathered.write(place * PAGE as u64, &[1; PAGE]).unwrap();
            }
        }
        let mut written = std::mem::take(&mut *noted.written.lock());
        written.sort_unstable();
        let runs = 64 * MIB / RUN_BYTES as u64;
        let expected: Vec<_> = (0..runs).map(|run| (run * RUN_BYTES as u64, RUN_BYTES)).collect();
        assert_eq!(written, expected);
        gathered.sync_data().unwrap();
        assert_eq!(*noted.written.lock(), [], "and nothing is left");
    }

    #[test]
    fn where_pages_stay_away_what_stands_first_is_written_as_it_is() {
        let noted = Noted::default();
        let gathered = Gathered::new(Box::new(noted.clone()), RUNS_MAX);
        let runs = 2 * RUNS_MAX as u64;
        for run in 0..runs {
            // Nobody writes the page at its front and the one behind it.
            let offset = run * RUN_BYTES as u64 + PAGE as u64;
            gathered.write(offset, &[1; PAGE]).unwrap();
            gathered.write(offset + 2 * PAGE as u64, &vec![1; RUN_BYTES - 3 * PAGE]).unwrap();
            let held = run.min(RUNS_MAX as u64 - 1) + 1;
            assert_eq!(
                noted.written.lock().len() as u64,
                2 * (run + 1 - held),
                "two parts of each that had to go"
            );
        }
        gathered.sync_data().unwrap();
        assert_eq!(noted.written.lock().len() as u64, 2 * runs);
        assert!(noted.written.lock().is_sorted());
    }

    #[test]
    fn what_is_read_is_what_was_written_wherever_it_is() {
        let disk = SimDisk::new();
        let gathered = Gathered::new(disk.open_bulk("gathered").unwrap(), RUNS_MAX);
        // In three runs.
        let mut expected = vec![0; 150 * PAGE];
        gathered.set_len(expected.len() as u64).unwrap();
        let mut dice = Dice(7);
        let mut roll = |n| dice.below(n);
        for turn in 0..3_000 {
            // Pages of several sizes, which overlap in every way.
            let bytes = PAGE << roll(3);
            let offset = roll(expected.len() / PAGE - bytes / PAGE + 1) * PAGE;
            match roll(20) {
                0 => gathered.sync_data().unwrap(),
                1..10 => {
                    let data = vec![turn as u8; bytes];
                    gathered.write(offset as u64, &data).unwrap();
                    expected[offset..offset + bytes].copy_from_slice(&data);
                }
                _ => {
                    let mut read = vec![0; bytes];
                    gathered.read(offset as u64, &mut read).unwrap();
                    assert!(read == expected[offset..offset + bytes], "turn {turn}: {bytes} at {offset}");
                }
            }
        }
        gathered.sync_data().unwrap();
        let mut durable = vec![0; expected.len()];
        disk.open("gathered", 0).unwrap().read(0, &mut durable).unwrap();
        assert!(durable == expected, "a sync leaves nothing behind");
    }

    #[test]
    fn who_reads_does_not_wait_for_a_write_that_waits() {
        let noted = Noted::default();
        let gathered = Gathered::new(Box::new(noted.clone()), RUNS_MAX);
        gathered.write(0, &[1; PAGE]).unwrap();
        let full = noted.gate.lock();
        std::thread::scope(|scope| {
            let sync = scope.spawn(|| gathered.sync_data());
            while noted.written.lock().is_empty() {
                std::thread::yield_now();
            }
            let mut read = [0; 2 * PAGE];
            gathered.read(0, &mut read).unwrap();
            assert_eq!((read[0], read[PAGE - 1], read[PAGE]), (1, 1, 7), "of what is held, and of the file");
            gathered.read(9 * PAGE as u64, &mut read).unwrap();
            assert!(!sync.is_finished());
            drop(full);
            sync.join().unwrap().unwrap();
        });
        let mut read = [0; PAGE];
        gathered.read(0, &mut read).unwrap();
        assert_eq!(read[0], 7, "it is in the file now");
    }

    #[test]
    fn a_file_that_shrinks_takes_what_was_held_with_it() {
        let disk = SimDisk::new();
        let gathered = Gathered::new(disk.open_bulk("gathered").unwrap(), RUNS_MAX);
        gathered.set_len(8 * PAGE as u64).unwrap();
        gathered.write(2 * PAGE as u64, &[1; PAGE]).unwrap();
        gathered.write(6 * PAGE as u64, &[2; PAGE]).unwrap();
        gathered.set_len(4 * PAGE as u64).unwrap();
        gathered.sync_data().unwrap();
        assert_eq!(disk.open("gathered", 0).unwrap().len().unwrap(), 4 * PAGE as u64);
        let mut read = [0; PAGE];
        gathered.read(2 * PAGE as u64, &mut read).unwrap();
        assert_eq!(read, [1; PAGE]);
    }

    #[test]
    fn a_write_that_fails_is_told_and_nothing_is_taken_from_then_on() {
        let disk = SimDisk::new();
        let gathered = Gathered::new(disk.open_bulk("gathered").unwrap(), RUNS_MAX);
        gathered.set_len(2 * PAGE as u64).unwrap();
        gathered.write(0, &[1; PAGE]).unwrap();
        disk.fail_at(disk.operations() + 1);
        assert!(gathered.sync_data().is_err());
        disk.call_off();
        // What was held is not there any more: to read the file instead would be wrong.
        assert!(gathered.read(0, &mut [0; PAGE]).is_err());
        assert!(gathered.write(0, &[2; PAGE]).is_err() && gathered.sync_data().is_err());
    }
}
