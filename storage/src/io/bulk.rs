//! A file that is written once and in long runs, beside everything else: a tree that is received.
//!
//! ```text
//!  put ─▶ the run ─▶ thread: past the cache to the disk, now and then a sync ─▶ the run is free again
//! ```
//! It goes past the system's cache, straight to the disk. Through the cache it costs the processors about twice as much, at
//! a time when they are wanted elsewhere, and drives out what is read; and every sync of it would make the file system
//! commit its journal and the disk empty its cache, which the log's syncs would wait for. This way syncs are few and have
//! little left to do, and whoever puts the next run together does not wait for the last one.
//!
//! What is no run, and all of it where the file system knows no such writes, goes through the cache. An error is told by the
//! next call, and the file refuses everything from then on.

use super::sound::SoundFile;
use crate::disk::BulkFile;
use crate::run::Run;
use parking_lot::Mutex;
use redb::StorageBackend;
use rustix::fs::{Advice, fadvise};
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::{Builder, JoinHandle};

/// So much is written between two syncs, bytes: what the last one, and a sync of the log, may have to wait behind where the
/// cache has to be used and the disk is slow.
const UNSYNCED_BYTES_MAX: u64 = 8 << 20;
/// Runs that are under way, at most; the next one waits. As many as come while a sync lasts.
const RUNS_MAX: usize = 8;

/// See the module.
#[derive(Debug)]
pub(super) struct DirectFile {
    file: Arc<SoundFile>,
    direct: Mutex<Option<Direct>>,
    unsynced_bytes: AtomicU64,
}

/// The way past the cache.
#[derive(Debug)]
struct Direct {
    /// Ends the thread when it goes.
    jobs: Option<mpsc::Sender<Job>>,
    done: mpsc::Receiver<(Arc<Run>, io::Result<()>)>,
    under_way: usize,
    /// Written, and free for what comes next.
    idle: Vec<Arc<Run>>,
    thread: Option<JoinHandle<()>>,
    /// The file system knows no such writes.
    refused: bool,
}

#[derive(Debug)]
struct Job {
    run: Arc<Run>,
    /// With it so much is written that it is time for a sync.
    syncs: bool,
}

impl Direct {
    /// `handle` is the same file as `file`, opened to be written past the cache. `None`: there is no thread to be had.
    fn start(file: &Arc<SoundFile>, handle: File) -> Option<Direct> {
        let (jobs, taken) = mpsc::channel::<Job>();
        let (tell, done) = mpsc::channel();
        let file = file.clone();
        let work = move || {
            for Job { run, syncs } in taken {
                let mut result = run.parts().try_for_each(|(at, part)| file.write_by(&handle, at, part));
                if syncs && result.is_ok() {
                    result = file.sync();
                }
                if tell.send((run, result)).is_err() {
                    return;
                }
            }
        };
        let thread = Some(Builder::new().name("disk-bulk".to_owned()).spawn(work).ok()?);
        Some(Direct { jobs: Some(jobs), done, under_way: 0, idle: Vec::new(), thread, refused: false })
    }

    /// Wait for one that is under way.
    fn settle_one(&mut self, file: &SoundFile) -> io::Result<()> {
        let (run, mut result) = self.done.recv().expect("the thread stays as long as it is given runs");
        self.under_way -= 1;
        if result.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::InvalidInput) {
            self.refused = true;
            result = run.parts().try_for_each(|(at, part)| file.write(at, part));
        }
        self.idle.push(run);
        // What it should have written was taken for written.
        result.inspect_err(|_| file.distrust())
    }

    fn settle(&mut self, file: &SoundFile) -> io::Result<()> {
        while self.under_way > 0 {
            self.settle_one(file)?;
        }
        Ok(())
    }

    fn put(&mut self, file: &SoundFile, run: Arc<Run>, syncs: bool) -> io::Result<()> {
        if self.under_way == RUNS_MAX {
            self.settle_one(file)?;
        }
        let jobs = self.jobs.as_ref().expect("they end with this");
        jobs.send(Job { run, syncs }).expect("the thread stays as long as it is given runs");
        self.under_way += 1;
        Ok(())
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!(?panic, "the thread that writes in bulk ended badly");
        }
    }
}

impl DirectFile {
    /// `direct` is the same file, opened to be written past the cache, where that is possible.
    pub(super) fn new(file: SoundFile, direct: Option<File>) -> DirectFile {
        let file = Arc::new(file);
        let direct = direct.and_then(|handle| Direct::start(&file, handle));
        DirectFile { file, direct: Mutex::new(direct), unsynced_bytes: AtomicU64::new(0) }
    }

    /// All that was written is in the file.
    fn settle(&self) -> io::Result<()> {
        self.direct.lock().as_mut().map_or(Ok(()), |direct| direct.settle(&self.file))
    }

    /// So many are written: is it time for a sync?
    fn counts(&self, bytes: u64) -> bool {
        let is_time = self.unsynced_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes >= UNSYNCED_BYTES_MAX;
        if is_time {
            self.unsynced_bytes.store(0, Ordering::Relaxed);
        }
        is_time
    }
}

impl BulkFile for DirectFile {
    fn room(&self) -> Run {
        let idle = self.direct.lock().as_mut().and_then(|direct| direct.idle.pop());
        idle.and_then(Arc::into_inner).unwrap_or_default()
    }

    fn put(&self, run: Arc<Run>) -> io::Result<()> {
        if let Some(direct) = self.direct.lock().as_mut().filter(|direct| !direct.refused) {
            let syncs = self.counts(run.parts().map(|(_, part)| part.len() as u64).sum());
            return direct.put(&self.file, run, syncs);
        }
        run.parts().try_for_each(|(offset, part)| self.write(offset, part))
    }
}

impl StorageBackend for DirectFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.settle()?;
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.settle()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.settle()?;
        self.file.sync()?;
        self.unsynced_bytes.store(0, Ordering::Relaxed);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        // Behind what it may be a part of.
        self.settle()?;
        self.file.write(offset, data)?;
        let bytes = data.len() as u64;
        // Linux begins to write a range that is said not to be needed. Elsewhere the next sync does.
        let _ = fadvise(self.file.file(), offset, NonZeroU64::new(bytes), Advice::DontNeed);
        if self.counts(bytes) { self.file.sync() } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::super::FolderDisk;
    use super::*;
    use crate::disk::Disk;
    use crate::run::{PAGE_BYTES, RUN_BYTES};
    use std::fs::OpenOptions;
    use std::path::{Path, PathBuf};
    use tempfile::TempDir;

    const PAGE: usize = PAGE_BYTES;

    /// An empty file in a folder of its own.
    struct Place {
        disk: FolderDisk,
        path: PathBuf,
        _dir: TempDir,
    }

    impl Place {
        fn new() -> Place {
            let dir = tempfile::tempdir().unwrap();
            let disk = FolderDisk::open(dir.path()).unwrap();
            drop(disk.open("bulk", 0).unwrap());
            Place { disk, path: dir.path().join("bulk"), _dir: dir }
        }

        fn handle(&self) -> File {
            OpenOptions::new().read(true).write(true).open(&self.path).unwrap()
        }

        /// The file, with this handle in the place of one that goes past the cache.
        fn file(&self, direct: Option<File>) -> DirectFile {
            DirectFile::new(SoundFile::new(self.handle(), self.disk.folder()), direct)
        }
    }

    /// Pages of a part of the file.
    fn run(file: &dyn BulkFile, offset: usize, data: &[u8]) -> Arc<Run> {
        let mut run = file.room().at(offset as u64);
        run.put(offset as u64, data);
        run.into()
    }

    /// Runs, and bytes beside and over them, and what the file is to hold then.
    fn fill(file: &dyn BulkFile) -> Vec<u8> {
        let mut expected = vec![0; 40 * RUN_BYTES];
        file.set_len(expected.len() as u64).unwrap();
        let mut changes =
            vec![(PAGE, 30 * PAGE, 1), (0, 320, 2), (5 * PAGE + 7, PAGE, 3), (5 * PAGE, PAGE, 4)];
        changes.extend((1..30).map(|n| (n * RUN_BYTES + n * PAGE, RUN_BYTES - n * PAGE, n as u8)));
        changes.extend([(6 * PAGE, 2 * PAGE, 5), (7 * PAGE + 100, 3, 6), (expected.len() - PAGE, PAGE, 7)]);
        for (offset, bytes, fill) in changes {
            // As the cache has it before it is written past it.
            let mut read = vec![0; bytes];
            file.read(offset as u64, &mut read).unwrap();
            assert!(read == expected[offset..offset + bytes]);
            let data: Vec<u8> = (0..bytes).map(|at| (at / PAGE) as u8 ^ fill).collect();
            if Run::takes(offset as u64, bytes) {
                file.put(run(file, offset, &data)).unwrap();
            } else {
                file.write(offset as u64, &data).unwrap();
            }
            expected[offset..offset + bytes].copy_from_slice(&data);
        }
        // Two parts in one, and none in between.
        let mut parted = file.room().at(31 * RUN_BYTES as u64);
        parted.put(31 * RUN_BYTES as u64, &[8; PAGE]);
        parted.put((31 * RUN_BYTES + 9 * PAGE) as u64, &[9; 2 * PAGE]);
        file.put(parted.into()).unwrap();
        expected[31 * RUN_BYTES..][..PAGE].fill(8);
        expected[31 * RUN_BYTES + 9 * PAGE..][..2 * PAGE].fill(9);
        expected
    }

    fn has(path: &Path, file: &dyn BulkFile, expected: &[u8]) {
        let mut read = vec![0; expected.len()];
        file.read(0, &mut read).unwrap();
        assert!(read == expected);
        file.sync_data().unwrap();
        assert!(std::fs::read(path).unwrap() == expected);
    }

    #[test]
    fn it_holds_what_was_written_past_the_cache_and_through_it() {
        let place = Place::new();
        let file = place.disk.open_bulk("bulk").unwrap();
        let expected = fill(&*file);
        has(&place.path, &*file, &expected);
    }

    #[test]
    fn where_no_write_can_go_past_the_cache_all_go_through_it() {
        let place = Place::new();
        // This one says that the argument is invalid, as file systems do that know no such writes.
        let refusing = OpenOptions::new().write(true).open("/proc/self/oom_score_adj").unwrap();
        for direct in [None, Some(refusing)] {
            let file = place.file(direct);
            let expected = fill(&file);
            assert!(file.direct.lock().as_ref().is_none_or(|direct| direct.refused));
            has(&place.path, &file, &expected);
            file.set_len(0).unwrap();
        }
    }

    #[test]
    fn a_write_that_fails_is_told_and_nothing_is_taken_for_written() {
        let place = Place::new();
        // A handle that cannot write, in the place of a disk that does not.
        let file = place.file(Some(File::open(&place.path).unwrap()));
        file.put(run(&file, 0, &[1; PAGE])).unwrap();
        assert!(file.sync_data().is_err());
        assert!(file.sync_data().is_err(), "and so it stays");
        assert!(file.write(0, &[1; 10]).is_err());
        let full = place.file(Some(OpenOptions::new().write(true).open("/dev/full").unwrap()));
        full.put(run(&full, 0, &[1; PAGE])).unwrap();
        assert_eq!(full.sync_data().unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    #[test]
    fn only_so_many_runs_are_under_way_and_they_are_used_again() {
        let place = Place::new();
        let file = place.file(Some(place.handle()));
        for n in 0..3 * RUNS_MAX {
            file.put(run(&file, n * RUN_BYTES, &[1; PAGE])).unwrap();
            let direct = file.direct.lock();
            let direct = direct.as_ref().unwrap();
            assert_eq!(direct.under_way, RUNS_MAX.min(n + 1));
            assert!(direct.idle.len() <= 1, "what is written is what comes next");
        }
        file.sync_data().unwrap();
        assert_eq!(
            file.direct.lock().as_ref().unwrap().idle.len(),
            RUNS_MAX + 1,
            "and no more were ever made"
        );
    }

    #[test]
    fn syncs_are_few() {
        let place = Place::new();
        let file = place.file(None);
        let unsynced = || file.unsynced_bytes.load(Ordering::Relaxed);
        let run = vec![1; RUN_BYTES];
        let runs = UNSYNCED_BYTES_MAX / run.len() as u64;
        for n in 1..runs {
            file.write((n - 1) * run.len() as u64, &run).unwrap();
            assert_eq!(unsynced(), n * run.len() as u64);
        }
        file.write(runs * run.len() as u64, &run).unwrap();
        assert_eq!(unsynced(), 0, "with this one it is time");
    }
}
