//! A file whose writes are gathered: redb writes page by page, as its memory runs out and not quite in the order of the
//! file. To the disk that would be hundreds of thousands of small writes, which the log's syncs wait among; here each page is
//! copied to its place in a [`Run`], and those are given to the file as they are.

use crate::disk::BulkFile;
use crate::run::{RUN_BYTES, Run};
use parking_lot::Mutex;
use redb::StorageBackend;
use std::collections::BTreeMap;
use std::io;

/// Runs that pages are still missing in, at most; beyond it the one that stands first in the file is written as it is. They
/// span twice what redb holds itself, half of its cache, so that the gaps between early pages are filled when their turn comes.
const RUNS_MAX: usize = 32;
/// The same, bytes.
pub(super) const HELD_BYTES_MAX: usize = RUNS_MAX * RUN_BYTES;

/// See the module.
#[derive(Debug)]
pub(super) struct Gathered {
    file: Box<dyn BulkFile>,
    held: Mutex<Held>,
}

/// What is not written yet.
#[derive(Debug, Default)]
struct Held {
    /// By place in the file, in runs.
    runs: BTreeMap<u64, Run>,
    /// A write failed: what it was about to write is gone.
    failed: bool,
}

/// The runs that these bytes are in.
fn numbers(offset: u64, bytes: usize) -> std::ops::Range<u64> {
    let run = RUN_BYTES as u64;
    offset / run..(offset + bytes as u64).div_ceil(run)
}

impl Gathered {
    pub(super) fn new(file: Box<dyn BulkFile>) -> Gathered {
        Gathered { file, held: Mutex::default() }
    }
}

impl Held {
    fn check(&self) -> io::Result<()> {
        if self.failed { Err(io::Error::other("an earlier write failed")) } else { Ok(()) }
    }

    fn write_first(&mut self, file: &dyn BulkFile) -> io::Result<()> {
        self.runs.pop_first().map_or(Ok(()), |(_, run)| self.write(file, run))
    }

    fn write(&mut self, file: &dyn BulkFile, run: Run) -> io::Result<()> {
        file.put(run).inspect_err(|_| self.failed = true)
    }

    fn write_all(&mut self, file: &dyn BulkFile) -> io::Result<()> {
        self.check()?;
        while !self.runs.is_empty() {
            self.write_first(file)?;
        }
        Ok(())
    }

    /// Is a page held that these bytes are in?
    fn overlaps(&self, offset: u64, bytes: usize) -> bool {
        self.runs.range(numbers(offset, bytes)).any(|(_, run)| run.overlaps(offset, bytes))
    }

    /// These bytes, where one run has them all.
    fn get(&self, offset: u64, bytes: usize) -> Option<&[u8]> {
        self.runs.get(&numbers(offset, bytes).start)?.get(offset, bytes)
    }

    /// Put whole pages in their runs, and write those that are whole.
    fn gather(&mut self, file: &dyn BulkFile, mut offset: u64, mut data: &[u8]) -> io::Result<()> {
        for number in numbers(offset, data.len()) {
            let run = self.runs.entry(number).or_insert_with(|| file.room().at(offset));
            let (here, behind) = run.split(offset, data);
            run.put(offset, here);
            if run.is_whole() {
                let whole = self.runs.remove(&number).expect("it was just there");
                self.write(file, whole)?;
            }
            offset += here.len() as u64;
            data = behind;
        }
        while self.runs.len() > RUNS_MAX {
            self.write_first(file)?;
        }
        Ok(())
    }
}

impl StorageBackend for Gathered {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut held = self.held.lock();
        held.check()?;
        if held.overlaps(offset, out.len()) {
            if let Some(data) = held.get(offset, out.len()) {
                out.copy_from_slice(data);
                return Ok(());
            }
            held.write_all(&*self.file)?;
        }
        drop(held);
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut held = self.held.lock();
        if held.runs.last_key_value().is_some_and(|(number, _)| (number + 1) * RUN_BYTES as u64 > len) {
            held.write_all(&*self.file)?;
        }
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.held.lock().write_all(&*self.file)?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut held = self.held.lock();
        held.check()?;
        if Run::takes(offset, data.len()) {
            return held.gather(&*self.file, offset, data);
        }
        held.write_all(&*self.file)?;
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        let written = self.held.lock().write_all(&*self.file);
        self.file.close()?;
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Disk as _;
    use crate::run::PAGE_BYTES;
    use crate::simdisk::SimDisk;
    use std::sync::Arc;

    const PAGE: usize = PAGE_BYTES;
    const MIB: u64 = 1 << 20;

    /// What was written, in order.
    #[derive(Clone, Debug, Default)]
    struct Noted(Arc<Mutex<Vec<(u64, usize)>>>);

    impl BulkFile for Noted {}

    impl StorageBackend for Noted {
        fn len(&self) -> io::Result<u64> {
            Ok(0)
        }
        fn read(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
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
            self.0.lock().push((offset, data.len()));
            Ok(())
        }
    }

    #[test]
    fn pages_that_come_out_of_order_are_written_in_whole_runs_and_once() {
        let noted = Noted::default();
        let gathered = Gathered::new(Box::new(noted.clone()));
        let pages = 64 * MIB / PAGE as u64;
        // As from 131 queues, one after the other, each with a hundredth of what is near.
        for group in 0..pages / 1024 {
            for page in 0..1024 {
                let place = group * 1024 + page * 131 % 1024;
                gathered.write(place * PAGE as u64, &[1; PAGE]).unwrap();
            }
        }
        let mut written = std::mem::take(&mut *noted.0.lock());
        written.sort_unstable();
        let runs = 64 * MIB / RUN_BYTES as u64;
        let expected: Vec<_> = (0..runs).map(|run| (run * RUN_BYTES as u64, RUN_BYTES)).collect();
        assert_eq!(written, expected);
        gathered.sync_data().unwrap();
        assert_eq!(*noted.0.lock(), [], "and nothing is left");
    }

    #[test]
    fn where_pages_stay_away_what_stands_first_is_written_as_it_is() {
        let noted = Noted::default();
        let gathered = Gathered::new(Box::new(noted.clone()));
        let runs = 2 * RUNS_MAX as u64;
        for run in 0..runs {
            // Nobody writes the page at its front and the one behind it.
            let offset = run * RUN_BYTES as u64 + PAGE as u64;
            gathered.write(offset, &[1; PAGE]).unwrap();
            gathered.write(offset + 2 * PAGE as u64, &vec![1; RUN_BYTES - 3 * PAGE]).unwrap();
            let held = run.min(RUNS_MAX as u64 - 1) + 1;
            assert_eq!(noted.0.lock().len() as u64, 2 * (run + 1 - held), "two parts of each that had to go");
        }
        gathered.sync_data().unwrap();
        assert_eq!(noted.0.lock().len() as u64, 2 * runs);
        assert!(noted.0.lock().is_sorted());
    }

    #[test]
    fn what_is_read_is_what_was_written_wherever_it_is() {
        let disk = SimDisk::new();
        let gathered = Gathered::new(disk.open_bulk("gathered").unwrap());
        // In three runs.
        let mut expected = vec![0; 150 * PAGE];
        gathered.set_len(expected.len() as u64).unwrap();
        let mut dice = 7_u64;
        let mut roll = |n: usize| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) as usize % n
        };
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
    fn a_file_that_shrinks_takes_what_was_held_with_it() {
        let disk = SimDisk::new();
        let gathered = Gathered::new(disk.open_bulk("gathered").unwrap());
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
        let gathered = Gathered::new(disk.open_bulk("gathered").unwrap());
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
