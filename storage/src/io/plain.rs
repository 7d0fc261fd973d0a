//! An ordinary file, for the tree. A checkpoint writes it in one go; left to itself the system would collect all
//! that and write it at the sync, while the log's next sync waits behind it. So it is written out as it comes.

use redb::StorageBackend;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// After this many bytes written, they are synced: what a sync of the log can wait behind.
const PACE_BYTES: u64 = 8 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct PlainFile {
    file: File,
    unsynced_bytes: AtomicU64,
    failed: AtomicBool,
    /// For its lock, too.
    folder: Arc<super::folder::Folder>,
}

impl PlainFile {
    pub(super) fn new(file: File, folder: Arc<super::folder::Folder>) -> PlainFile {
        PlainFile { file, unsynced_bytes: AtomicU64::new(0), failed: AtomicBool::new(false), folder }
    }

    fn check(&self) -> io::Result<()> {
        if self.failed.load(Ordering::Acquire) { Err(failed_before()) } else { Ok(()) }
    }
}

/// What a backend says after a sync failed.
pub(super) fn failed_before() -> io::Error {
    io::Error::other("an earlier sync of this file failed; what it wrote since may be lost")
}

impl StorageBackend for PlainFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        self.unsynced_bytes.store(0, Ordering::Relaxed);
        self.file.sync_data().inspect_err(|_| {
            self.failed.store(true, Ordering::Release);
            self.folder.sync_failed();
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.folder.reserve.help_or_wait(|| self.file.write_all_at(data, offset))?;
        let unsynced =
            self.unsynced_bytes.fetch_add(data.len() as u64, Ordering::Relaxed) + data.len() as u64;
        if unsynced >= PACE_BYTES { self.sync_data() } else { Ok(()) }
    }
}
