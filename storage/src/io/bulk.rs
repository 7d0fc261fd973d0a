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
            let aligned = &mut buffer[begin..begin + part.len()];
            aligned.copy_from_slice(part);
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
