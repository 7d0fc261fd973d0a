//! A file whose writes are gathered: redb writes page by page, as its memory runs out and not quite in the order of the
//! file. To the disk that would be hundreds of thousands of small writes, which the log's syncs wait among; here they become
//! long ones.

use parking_lot::Mutex;
use redb::StorageBackend;
use std::collections::BTreeMap;
use std::io;

/// Held back, at most, bytes; beyond it what stands first in the file is written. It spans what redb holds itself, so that
/// the gaps between early pages are filled when their turn comes.
const HELD_BYTES_MAX: usize = 8 << 20;
/// One write at most, bytes, unless redb's own is longer.
const RUN_BYTES_MAX: usize = 256 << 10;
/// Runs are put together at a multiple of this in memory, bytes: a file that is written past the system's cache takes them
/// from there.
const ALIGNMENT: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(super) struct Gathered {
    file: Box<dyn StorageBackend>,
    held: Mutex<Held>,
}

/// What is not written yet.
#[derive(Debug)]
struct Held {
    /// By place in the file; none overlaps another.
    writes: BTreeMap<u64, Box<[u8]>>,
    bytes: usize,
    /// A run is put together here; [`ALIGNMENT`] longer than one.
    run: Vec<u8>,
}

impl Gathered {
    pub(super) fn new(file: Box<dyn StorageBackend>) -> Gathered {
        let run = vec![0; RUN_BYTES_MAX + ALIGNMENT];
        Gathered { file, held: Mutex::new(Held { writes: BTreeMap::new(), bytes: 0, run }) }
    }
}

impl Held {
    /// The place of the last write that begins before `end` and reaches beyond `offset`.
    fn overlapped(&self, offset: u64, end: u64) -> Option<u64> {
        let (at, data) = self.writes.range(..end).next_back()?;
        (at + data.len() as u64 > offset).then_some(*at)
    }

    /// Write the first ones that follow one another. They are held until that has succeeded.
    fn write_run(&mut self, file: &dyn StorageBackend) -> io::Result<()> {
        let Some((&start, first)) = self.writes.first_key_value() else { return Ok(()) };
        let mut parts = 1;
        if first.len() >= RUN_BYTES_MAX {
            file.write(start, first)?;
        } else {
            let begin = self.run.as_ptr().align_offset(ALIGNMENT);
            let run = &mut self.run[begin..begin + RUN_BYTES_MAX];
            let mut bytes = first.len();
            run[..bytes].copy_from_slice(first);
            for (at, data) in self.writes.range(start + 1..) {
                let end = bytes + data.len();
                if *at != start + bytes as u64 || end > RUN_BYTES_MAX {
                    break;
                }
                run[bytes..end].copy_from_slice(data);
                (bytes, parts) = (end, parts + 1);
            }
            file.write(start, &run[..bytes])?;
        }
        for _ in 0..parts {
            let (_, written) = self.writes.pop_first().expect("they were just there");
            self.bytes -= written.len();
        }
        Ok(())
    }

    fn write_all(&mut self, file: &dyn StorageBackend) -> io::Result<()> {
        while !self.writes.is_empty() {
            self.write_run(file)?;
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
        let end = offset + out.len() as u64;
        if let Some(at) = held.overlapped(offset, end) {
            let data = &held.writes[&at];
            if at <= offset && end <= at + data.len() as u64 {
                let from = (offset - at) as usize;
                out.copy_from_slice(&data[from..from + out.len()]);
                return Ok(());
            }
            held.write_all(&*self.file)?;
        }
        drop(held);
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut held = self.held.lock();
        if held.overlapped(len, u64::MAX).is_some() {
            held.write_all(&*self.file)?;
        }
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.held.lock().write_all(&*self.file)?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let held = &mut *self.held.lock();
        match held.overlapped(offset, offset + data.len() as u64) {
            Some(at) if at == offset && held.writes[&at].len() == data.len() => held.bytes -= data.len(),
            Some(_) => held.write_all(&*self.file)?,
            None => {}
        }
        held.writes.insert(offset, data.into());
        held.bytes += data.len();
        while held.bytes > HELD_BYTES_MAX {
            held.write_run(&*self.file)?;
        }
        Ok(())
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
    use crate::simdisk::SimDisk;
    use std::sync::Arc;

    const PAGE: usize = 4096;
    const MIB: u64 = 1 << 20;

    /// What was written, in order.
    #[derive(Clone, Debug, Default)]
    struct Noted(Arc<Mutex<Vec<(u64, usize)>>>);

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
            assert_eq!(data.as_ptr().align_offset(ALIGNMENT), 0, "it could not go past the cache");
            self.0.lock().push((offset, data.len()));
            Ok(())
        }
    }

    #[test]
    fn pages_that_come_out_of_order_are_written_in_order_and_in_long_runs() {
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
        let held_back = 64 * MIB as usize - noted.0.lock().iter().map(|(_, bytes)| bytes).sum::<usize>();
        assert_eq!(held_back, HELD_BYTES_MAX, "so much is held, and no more");
        gathered.sync_data().unwrap();
        let written = noted.0.lock();
        assert_eq!(written.len() as u64, 64 * MIB / RUN_BYTES_MAX as u64);
        let mut end = 0;
        for (offset, bytes) in &*written {
            assert_eq!((*offset, *bytes), (end, RUN_BYTES_MAX));
            end += *bytes as u64;
        }
    }

    #[test]
    fn what_is_read_is_what_was_written_wherever_it_is() {
        let disk = SimDisk::new();
        let gathered = Gathered::new(disk.open("gathered", 0).unwrap());
        let mut expected = vec![0; 40 * PAGE];
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
        let gathered = Gathered::new(disk.open("gathered", 0).unwrap());
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
    fn a_write_that_fails_is_told_and_loses_nothing() {
        let disk = SimDisk::new();
        let gathered = Gathered::new(disk.open("gathered", 0).unwrap());
        gathered.set_len(2 * PAGE as u64).unwrap();
        gathered.write(0, &[1; PAGE]).unwrap();
        gathered.write(PAGE as u64, &[2; PAGE]).unwrap();
        disk.fail_at(disk.operations() + 1);
        assert!(gathered.sync_data().is_err());
        disk.call_off();
        gathered.sync_data().unwrap();
        let mut read = [0; 2 * PAGE];
        disk.open("gathered", 0).unwrap().read(0, &mut read).unwrap();
        assert_eq!((read[0], read[PAGE]), (1, 2));
    }
}
