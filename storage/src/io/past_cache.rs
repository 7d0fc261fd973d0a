//! Writes past the system's cache, straight to the disk, of a file whose writes all go that way while it is in use.
//!
//! Through the cache a page that is written for the first time costs a page of memory, which has to be found and may have to be
//! taken from somebody, and what is written once and hardly ever read drives out what is. It is no faster for that: the
//! log waits for the disk anyway.
//!
//! Reads go through the cache, which the system keeps right. Where the file system knows no such writes all go through it, too.

use crate::run::PAGE_BYTES;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Bytes that begin where such a write may begin in memory.
#[derive(Debug)]
#[repr(C, align(4096))]
pub(super) struct Aligned<const BYTES: usize>(pub [u8; BYTES]);

/// A page.
pub(super) type Page = Aligned<PAGE_BYTES>;

const _: () = assert!(align_of::<Page>() == PAGE_BYTES);

/// The way past the cache for one file.
#[derive(Debug)]
pub(super) struct PastCache {
    file: File,
    /// The same file, opened once more.
    second: Option<File>,
    /// Do writes by [`PastCache::second`] go past the cache?
    is_direct: AtomicBool,
}

/// Open the file there to be written past the cache, where that is possible.
pub(super) fn open(path: &Path) -> Option<File> {
    let flags = rustix::fs::OFlags::DIRECT.bits() as i32;
    OpenOptions::new().write(true).custom_flags(flags).open(path).ok()
}

impl PastCache {
    /// `file` was opened there to be read and written.
    pub(super) fn new(file: File, path: &Path) -> PastCache {
        let direct = open(path);
        let is_direct = AtomicBool::new(direct.is_some());
        let second = direct.or_else(|| OpenOptions::new().write(true).open(path).ok());
        PastCache { file, second, is_direct }
    }

    /// The handle that goes through the cache: for everything but writes.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// A sync beside those of [`PastCache::file`]: a failure is told to each handle once, and neither takes it from the other.
    pub(super) fn sync_beside(&self) -> io::Result<()> {
        self.second.as_ref().unwrap_or(&self.file).sync_data()
    }

    /// Write whole pages of the file, which are [`Aligned`] in memory.
    pub(super) fn write(&self, data: &[u8], offset: u64) -> io::Result<()> {
        debug_assert!(crate::run::Run::takes(offset, data.len()) && data.as_ptr().addr() % PAGE_BYTES == 0);
        let direct = self.second.as_ref().filter(|_| self.is_direct.load(Ordering::Relaxed));
        match direct.map(|direct| direct.write_all_at(data, offset)) {
            // The file system knows no such writes after all.
            Some(Err(e)) if e.kind() == io::ErrorKind::InvalidInput => {
                self.is_direct.store(false, Ordering::Relaxed);
            }
            Some(done) => return done,
            None => {}
        }
        self.file.write_all_at(data, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static ONES: Page = Aligned([1; PAGE_BYTES]);

    fn past_cache(path: &Path, second: Option<File>) -> PastCache {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path).unwrap();
        PastCache { is_direct: AtomicBool::new(second.is_some()), second, ..PastCache::new(file, path) }
    }

    #[test]
    fn where_no_write_can_go_past_the_cache_all_go_through_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        // This one says that the argument is invalid, as file systems do that know no such writes.
        let refusing = OpenOptions::new().write(true).open("/proc/self/oom_score_adj").unwrap();
        for direct in [None, Some(refusing)] {
            let file = past_cache(&path, direct);
            for page in [2, 0] {
                file.write(&ONES.0, page * PAGE_BYTES as u64).unwrap();
            }
            assert!(!file.is_direct.load(Ordering::Relaxed));
            let written = std::fs::read(&path).unwrap();
            assert_eq!(written, [ONES.0, [0; PAGE_BYTES], ONES.0].concat());
        }
    }

    #[test]
    fn what_fails_for_another_reason_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let file = past_cache(&dir.path().join("file"), Some(full));
        assert_eq!(file.write(&ONES.0, 0).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(file.is_direct.load(Ordering::Relaxed));
    }

    #[test]
    fn it_is_opened_past_the_cache_and_read_through_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, [0; 3 * PAGE_BYTES]).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let file = PastCache::new(file, &path);
        for turn in 1..50 {
            let mut page = Box::new(Aligned([0; PAGE_BYTES]));
            page.0.fill(turn);
            file.write(&page.0, PAGE_BYTES as u64).unwrap();
            let mut read = [0; 3 * PAGE_BYTES];
            file.file().read_exact_at(&mut read, 0).unwrap();
            assert_eq!(read.map(usize::from).iter().sum::<usize>(), usize::from(turn) * PAGE_BYTES);
        }
    }
}
