//! A file that is written once and in long runs, beside everything else: a tree that is received.
//!
//! It goes past the system's cache, straight to the disk. Through the cache it costs the processors several times as much, at
//! a time when they are wanted elsewhere, and drives out what is read; and every sync of it would make the file system
//! commit its journal and the disk empty its cache, which the log's syncs would wait for. This way a write is on its way while
//! this thread waits, and syncs are few, and have little left to do.
//!
//! What is not whole pages, and all of it where the file system knows no such writes, goes through the cache.

use super::sound::SoundFile;
use parking_lot::Mutex;
use redb::StorageBackend;
use rustix::fs::{Advice, fadvise};
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};

/// So much is written between two syncs, bytes: what the last one, and a sync of the log, may have to wait behind where the
/// cache has to be used and the disk is slow.
const UNSYNCED_BYTES_MAX: u64 = 8 << 20;
/// In memory, in the file and in length: what such a write has to be a multiple of, bytes. No disk asks for more.
const ALIGNMENT: usize = 4096;
/// One such write at most, bytes: what is written behind it waits no longer.
const DIRECT_BYTES_MAX: usize = 256 << 10;

/// See the module.
#[derive(Debug)]
pub(super) struct BulkFile {
    file: SoundFile,
    direct: Mutex<Option<Direct>>,
    unsynced_bytes: AtomicU64,
}

/// The way past the cache.
#[derive(Debug)]
struct Direct {
    file: File,
    /// [`ALIGNMENT`] longer than what it is used for.
    buffer: Vec<u8>,
}

impl BulkFile {
    /// `direct` is the same file, opened to be written past the cache, where that is possible.
    pub(super) fn new(file: SoundFile, direct: Option<File>) -> BulkFile {
        let direct = direct.map(|file| Direct { file, buffer: vec![0; DIRECT_BYTES_MAX + ALIGNMENT] });
        BulkFile { file, direct: Mutex::new(direct), unsynced_bytes: AtomicU64::new(0) }
    }

    /// False when it must go through the cache.
    fn write_direct(&self, offset: u64, data: &[u8]) -> io::Result<bool> {
        let mut there = self.direct.lock();
        let Some(Direct { file, buffer }) = &mut *there else { return Ok(false) };
        if !offset.is_multiple_of(ALIGNMENT as u64) || !data.len().is_multiple_of(ALIGNMENT) {
            return Ok(false);
        }
        let begin = buffer.as_ptr().align_offset(ALIGNMENT);
        let mut at = offset;
        for part in data.chunks(DIRECT_BYTES_MAX) {
            let aligned = if part.as_ptr().align_offset(ALIGNMENT) == 0 {
                part
            } else {
                let copy = &mut buffer[begin..begin + part.len()];
                copy.copy_from_slice(part);
                &*copy
            };
            match self.file.write_by(file, at, aligned) {
                Err(e) if e.kind() == io::ErrorKind::InvalidInput => {
                    *there = None;
                    return Ok(false);
                }
                written => written?,
            }
            at += part.len() as u64;
        }
        Ok(true)
    }
}

impl StorageBackend for BulkFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync()?;
        self.unsynced_bytes.store(0, Ordering::Relaxed);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let bytes = data.len() as u64;
        if !self.write_direct(offset, data)? {
            self.file.write(offset, data)?;
            // Linux begins to write a range that is said not to be needed. Elsewhere the next sync does.
            let _ = fadvise(self.file.file(), offset, NonZeroU64::new(bytes), Advice::DontNeed);
        }
        if self.unsynced_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes >= UNSYNCED_BYTES_MAX {
            self.sync_data()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::FolderDisk;
    use super::*;
    use crate::disk::Disk;
    use std::fs::OpenOptions;
    use std::path::Path;

    const PAGE: usize = ALIGNMENT;

    /// Whole pages and parts of them, beside and over one another, and what the file is to hold then.
    fn fill(file: &dyn StorageBackend) -> Vec<u8> {
        let mut expected = vec![0; 400 * PAGE];
        file.set_len(expected.len() as u64).unwrap();
        let writes = [
            (PAGE, 300 * PAGE, 1),
            (0, 320, 2),
            (5 * PAGE + 7, PAGE, 3),
            (5 * PAGE, PAGE, 4),
            (6 * PAGE, 2 * PAGE, 5),
            (7 * PAGE + 100, 3, 6),
            (399 * PAGE, PAGE, 7),
        ];
        for (offset, bytes, fill) in writes {
            // As the cache has it before it is written past it.
            let mut read = vec![0; bytes];
            file.read(offset as u64, &mut read).unwrap();
            assert!(read == expected[offset..offset + bytes]);
            let data: Vec<u8> = (0..bytes).map(|at| fill + (at / PAGE) as u8).collect();
            file.write(offset as u64, &data).unwrap();
            expected[offset..offset + bytes].copy_from_slice(&data);
        }
        expected
    }

    fn has(path: &Path, file: &dyn StorageBackend, expected: &[u8]) {
        let mut read = vec![0; expected.len()];
        file.read(0, &mut read).unwrap();
        assert!(read == expected);
        file.sync_data().unwrap();
        assert!(std::fs::read(path).unwrap() == expected);
    }

    #[test]
    fn it_holds_what_was_written_past_the_cache_and_through_it() {
        let dir = tempfile::tempdir().unwrap();
        let disk = FolderDisk::open(dir.path()).unwrap();
        let file = disk.open_bulk("bulk").unwrap();
        let expected = fill(&*file);
        has(&dir.path().join("bulk"), &*file, &expected);
    }

    #[test]
    fn where_no_write_can_go_past_the_cache_all_go_through_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bulk");
        let disk = FolderDisk::open(dir.path()).unwrap();
        drop(disk.open("bulk", 0).unwrap());
        let open = |path: &Path| OpenOptions::new().read(true).write(true).open(path).unwrap();
        let sound = || SoundFile::new(open(&path), disk.folder());
        // This one says that the argument is invalid, as file systems do that know no such writes.
        let refusing = OpenOptions::new().write(true).open("/proc/self/oom_score_adj").unwrap();
        for direct in [None, Some(refusing)] {
            let file = BulkFile::new(sound(), direct);
            let expected = fill(&file);
            assert!(file.direct.lock().is_none());
            has(&path, &file, &expected);
            file.set_len(0).unwrap();
        }
    }

    #[test]
    fn syncs_are_few() {
        let dir = tempfile::tempdir().unwrap();
        let disk = FolderDisk::open(dir.path()).unwrap();
        drop(disk.open("bulk", 0).unwrap());
        let file = OpenOptions::new().read(true).write(true).open(dir.path().join("bulk")).unwrap();
        let file = BulkFile::new(SoundFile::new(file, disk.folder()), None);
        let unsynced = || file.unsynced_bytes.load(Ordering::Relaxed);
        let run = vec![1; 256 << 10];
        let runs = UNSYNCED_BYTES_MAX / run.len() as u64;
        for n in 1..runs {
            file.write((n - 1) * run.len() as u64, &run).unwrap();
            assert_eq!(unsynced(), n * run.len() as u64);
        }
        file.write(runs * run.len() as u64, &run).unwrap();
        assert_eq!(unsynced(), 0, "with this one it is time");
    }
}
