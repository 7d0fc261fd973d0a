//! Space that is set aside as a file: what is under way when others fill the disk can still be finished.
//!
//! A write that finds the disk full gives the file back and tries again. Where that does not help it waits for space:
//! readers go on meanwhile, nothing is acknowledged that is not kept, and a server that stopped instead could not even
//! start again.

use crate::disk::is_full;
use parking_lot::Mutex;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// The file.
pub(super) const FILE: &str = "reserve";
/// How often a write that waits for space tries again.
const TRY_EVERY: Duration = Duration::from_millis(100);

/// How it stands with the reserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReserveState {
    /// Bytes that are set aside; 0 when they were given back, or never could be taken.
    pub held_bytes: u64,
    /// A write waits for space.
    pub is_waiting: bool,
}

#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    held_bytes: Mutex<u64>,
    /// Does a write wait for space, or fail? It fails while the store is opened.
    is_patient: AtomicBool,
    waiting: AtomicUsize,
}

impl Reserve {
    /// As an earlier process left it.
    pub(super) fn find(folder: &Path) -> Reserve {
        let path = folder.join(FILE);
        let held_bytes = fs::metadata(&path).map_or(0, |m| m.blocks() * 512);
        Reserve {
            path,
            held_bytes: Mutex::new(held_bytes),
            is_patient: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
        }
    }

    pub(super) fn state(&self) -> ReserveState {
        ReserveState {
            held_bytes: *self.held_bytes.lock(),
            is_waiting: self.waiting.load(Ordering::Acquire) > 0,
        }
    }

    /// From now on writes wait for space.
    pub(super) fn wait_from_now_on(&self) {
        self.is_patient.store(true, Ordering::Release);
    }

    /// Set `bytes` aside, unless they are.
    pub(super) fn take(&self, bytes: u64) -> io::Result<()> {
        let mut held_bytes = self.held_bytes.lock();
        if *held_bytes >= bytes {
            return Ok(());
        }
        let take = || -> io::Result<u64> {
            let file =
                OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.path)?;
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes)?;
            Ok(file.metadata()?.blocks() * 512)
        };
        match take() {
            Ok(taken) => *held_bytes = taken,
            Err(error) => {
                // Half of it would only be missed elsewhere.
                *held_bytes = 0;
                let _ = fs::remove_file(&self.path);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Give it back. `false`: there is nothing to give.
    fn release(&self) -> bool {
        let mut held_bytes = self.held_bytes.lock();
        if *held_bytes == 0 {
            return false;
        }
        tracing::error!(
            reserve_mb = *held_bytes >> 20,
            "the disk is full: using the space that was set aside; free some now"
        );
        *held_bytes = 0;
        let removed = fs::remove_file(&self.path);
        if let Err(error) = &removed {
            tracing::error!(%error, "the space that was set aside cannot be given back");
        }
        // Some file systems hand out what was freed only behind a commit of their journal.
        if let Some(folder) = self.path.parent() {
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
        }
        removed.is_ok()
    }

    /// A write, with the reserve's help where the disk is full. It may be carried out again, in full.
    fn help(&self, write: impl Fn() -> io::Result<()>) -> io::Result<()> {
        match write() {
            // Another thread may have given it back between the two.
            Err(e) if is_full(&e) => {
                self.release();
                write()
            }
            done => done,
        }
    }

    /// The same, and where that does not help either it waits for space.
    pub(super) fn help_or_wait(&self, write: impl Fn() -> io::Result<()>) -> io::Result<()> {
        let mut done = self.help(&write);
        let is_out = |done: &io::Result<()>| done.as_ref().is_err_and(is_full);
        if !is_out(&done) || !self.is_patient.load(Ordering::Acquire) {
            return done;
        }
        tracing::error!("the disk is full: writing waits for space, reads go on; free some now");
        self.waiting.fetch_add(1, Ordering::AcqRel);
        while is_out(&done) {
            thread::sleep(TRY_EVERY);
            done = self.help(&write);
        }
        self.waiting.fetch_sub(1, Ordering::AcqRel);
        tracing::warn!("there is space again: writing goes on");
        done
    }
}

#[cfg(test)]
mod tests {
    use super::Reserve;
    use std::cell::Cell;
    use std::io;
    use std::sync::atomic::Ordering;

    fn full() -> io::Result<()> {
        Err(io::ErrorKind::StorageFull.into())
    }

    #[test]
    fn a_full_disk_gets_what_was_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::find(dir.path());
        reserve.take(1 << 20).unwrap();
        let writes = Cell::new(0);
        let written = reserve.help(|| {
            writes.set(writes.get() + 1);
            if reserve.path.exists() { full() } else { Ok(()) }
        });
        written.unwrap();
        assert_eq!((writes.get(), reserve.state().held_bytes), (2, 0));
    }

    #[test]
    fn what_fails_for_another_reason_fails_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::find(dir.path());
        reserve.wait_from_now_on();
        reserve.take(1 << 20).unwrap();
        let failed = reserve.help_or_wait(|| Err(io::Error::other("bad block")));
        assert!(failed.is_err() && reserve.state().held_bytes > 0);
    }

    #[test]
    fn with_nothing_left_it_waits_for_space_but_not_while_the_store_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        let reserve = Reserve::find(dir.path());
        assert!(reserve.help_or_wait(full).is_err());
        reserve.wait_from_now_on();
        let writes = Cell::new(0);
        let written = reserve.help_or_wait(|| {
            writes.set(writes.get() + 1);
            // Two tries before it waits.
            assert_eq!(reserve.waiting.load(Ordering::Relaxed), usize::from(writes.get() > 2));
            if writes.get() < 4 { full() } else { Ok(()) }
        });
        written.unwrap();
        assert!(!reserve.state().is_waiting);
    }
}
