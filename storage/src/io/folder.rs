//! The folder: its lock, its files, and the thread that prepares space.
//!
//! A removed segment is not given back: its blocks are what the next one needs. It becomes the *spare*, emptied by
//! the thread (once the folder without it is durable, so that it cannot come back empty), and is renamed when a new
//! file is opened. That its space then holds old records instead of zeros does no harm: redb writes every page whole before
//! anything refers to it, and checks what it finds after a crash against checksums; the simulated disk tries this
//! ([`crate::simdisk::SimDisk::set_stale_space`]).

use super::ahead::{AheadBackend, AheadFile, HEADER_BYTES, PIECE_BYTES, ZEROS};
use super::bulk::DirectFile;
use super::mend;
use super::past_cache::{self, PastCache};
use super::plain::PlainFile;
use super::reserve::{self, Reserve, ReserveState};
use super::sound::SoundFile;
use crate::disk::{BulkFile, Disk, DiskError, is_full};
use crate::gather::Gathered;
use crate::run::PAGE_BYTES;
use parking_lot::{Condvar, Mutex};
use redb::StorageBackend;
use std::collections::{HashMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

/// Whoever has this locked has the folder.
pub(super) const LOCK: &str = "lock";
/// The one spare file, and the name of one that is not ready yet.
const SPARE: &str = "spare";
const SPARE_UNFINISHED: &str = "spare.new";
/// How much is zeroed between two syncs: what a sync of the log can wait behind.
const FLUSH_BYTES: u64 = 2 << 20;
/// What a file of the log gathers between two syncs is written at the latest when it is in more runs than these.
const UNSYNCED_RUNS_MAX: usize = 16;
/// A spare is only kept when so many of its size are still free.
const SPARES_FREE_MIN: u64 = 4;

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another daemon runs on it.
    #[error(
        "the data folder {} is in use by another process; stop that one first, or give this one a folder of its own",
        .0.display()
    )]
    InUse(PathBuf),
    /// Something else has that name.
    #[error("{} is not a folder; name a folder that this server may write to", .0.display())]
    NotAFolder(PathBuf),
    /// The system refuses.
    #[error("cannot {doing} the data folder {}; check that it exists on a mounted disk and belongs to the user \
             this server runs as", .folder.display())]
    Io {
        /// Such as "create".
        doing: &'static str,
        /// Which folder.
        folder: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A folder on a real disk, locked for this process. The lock is released when this and all its files are dropped.
pub struct FolderDisk {
    folder: Arc<Folder>,
    wake: Wake,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// The folder itself, to sync it.
    handle: File,
    /// Held for its lock.
    _lock: File,
    /// Files over zeroed space that are open, so that none is used again under its readers.
    open: Mutex<HashMap<String, Weak<AheadFile>>>,
    pub(super) reserve: Reserve,
    /// No spare is longer, bytes.
    spare_bytes_max: AtomicU64,
}

/// The way to the thread that prepares space.
#[derive(Clone)]
pub(super) struct Wake(Arc<Work>);

#[derive(Default)]
struct Work {
    queue: Mutex<Queue>,
    ready: Condvar,
}

#[derive(Default)]
struct Queue {
    files: VecDeque<Weak<AheadFile>>,
    /// Has a file been put in [`SPARE_UNFINISHED`]'s place, or is one wanted: of this size at least.
    spare_bytes: Option<u64>,
    /// Is the thread at work on [`SPARE_UNFINISHED`]?
    spare_begun: bool,
    /// Is there a file named [`SPARE`]? It is taken by whoever sets this to false.
    spare_ready: bool,
    stop: bool,
}

impl std::fmt::Debug for Wake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wake")
    }
}

impl Wake {
    /// Something was written near the end of what is zeroed.
    pub(super) fn wake(&self, file: &Arc<AheadFile>) {
        let mut queue = self.0.queue.lock();
        if !queue.files.iter().any(|f| std::ptr::eq(f.as_ptr(), Arc::as_ptr(file))) {
            queue.files.push_back(Arc::downgrade(file));
        }
        self.0.ready.notify_one();
    }

    fn want_spare(&self, bytes: u64) {
        let mut queue = self.0.queue.lock();
        queue.spare_bytes = Some(bytes.max(queue.spare_bytes.unwrap_or(0)));
        self.0.ready.notify_one();
    }
}

impl std::fmt::Debug for FolderDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FolderDisk").field("path", &self.folder.path).finish()
    }
}

impl FolderDisk {
    /// Opens a folder, creating it (for its owner alone) where there is none, and locks it.
    pub fn open(path: impl AsRef<Path>) -> Result<FolderDisk, OpenError> {
        let path = path.as_ref().to_owned();
        let failed = |doing| {
            let folder = path.clone();
            move |source: io::Error| OpenError::Io { doing, folder, source }
        };
        match fs::metadata(&path) {
            Ok(m) if !m.is_dir() => return Err(OpenError::NotAFolder(path)),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).map_err(failed("create"))?;
                if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
                    File::open(parent).and_then(|p| p.sync_all()).map_err(failed("sync the parent of"))?;
                }
            }
            Err(e) => return Err(failed("look for")(e)),
        }
        let handle = File::open(&path).map_err(failed("open"))?;
        let lock = options().open(path.join(LOCK)).map_err(failed("create the lock in"))?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(OpenError::InUse(path)),
            Err(e) => return Err(failed("lock")(e.into())),
        }
        let spare_ready = path.join(SPARE).exists();
        // One that was not ready may have been anything; a ready one is taken as it is.
        match fs::remove_file(path.join(SPARE_UNFINISHED)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("tidy")(e)),
            _ => {}
        }
        // What a crash left of a removal.
        for entry in fs::read_dir(&path).map_err(failed("list"))? {
            let entry = entry.map_err(failed("list"))?;
            if entry.file_name().to_string_lossy().starts_with(TRASH) {
                fs::remove_file(entry.path()).map_err(failed("tidy"))?;
            }
        }
        let reserve = Reserve::find(&path);
        let folder = Arc::new(Folder {
            path: path.clone(),
            handle,
            _lock: lock,
            open: Mutex::default(),
            reserve,
            spare_bytes_max: AtomicU64::new(u64::MAX),
        });
        let work = Arc::new(Work::default());
        work.queue.lock().spare_ready = spare_ready;
        // The thread holds the folder and with it the lock: nobody else opens it while this one still writes.
        let (for_thread, its_folder) = (work.clone(), folder.clone());
        let thread = thread::Builder::new()
            .name("disk-ahead".to_owned())
            .spawn(move || prepare(&for_thread, &its_folder))
            .map_err(failed("start the thread for"))?;
        Ok(FolderDisk { folder, wake: Wake(work), thread: Some(thread) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.folder.path
    }

    /// Set space aside for writes that find the disk full, unless it is. See [`ReserveState`].
    pub fn keep_reserve(&self, bytes: u64) -> Result<(), DiskError> {
        self.folder.reserve.take(bytes).map_err(self.failed("cannot take", reserve::FILE))
    }

    /// No file that is used again is longer than this from now on. A segment that took one large append is far longer than most,
    /// and all that come after it would be.
    pub fn use_again_up_to(&self, bytes: u64) {
        self.folder.spare_bytes_max.store(bytes, Ordering::Relaxed);
    }

    /// From now on a write that finds the disk full, and nothing set aside, waits for space instead of failing.
    pub fn wait_for_space(&self) {
        self.folder.reserve.wait_from_now_on();
    }

    /// What is set aside.
    pub fn reserve(&self) -> ReserveState {
        self.folder.reserve.state()
    }

    /// Bytes that a file occupies, holes not counted; 0 for one that is not there.
    pub fn occupied_bytes(&self, name: &str) -> u64 {
        fs::metadata(self.folder.path.join(name)).map_or(0, |m| m.blocks() * 512)
    }

    #[cfg(test)]
    pub(super) fn folder(&self) -> Arc<Folder> {
        self.folder.clone()
    }

    fn failed(&self, doing: &'static str, name: &str) -> impl FnOnce(io::Error) -> DiskError + use<> {
        let file = self.folder.path.join(name).display().to_string();
        move |source| DiskError { doing, file, source }
    }

    /// A new file over zeroed space: the spare, if there is one.
    fn create_ahead(&self, path: &Path, ahead_bytes: u64) -> io::Result<File> {
        let taken = std::mem::take(&mut self.wake.0.queue.lock().spare_ready);
        let spare = self.folder.path.join(SPARE);
        let spare_bytes = match fs::metadata(&spare) {
            Ok(m) if taken => {
                fs::rename(&spare, path)?;
                m.len()
            }
            _ => 0,
        };
        let file = options().open(path)?;
        // Make the next one ready while this one is filled.
        let wanted = spare_bytes.max(HEADER_BYTES + ahead_bytes);
        self.wake.want_spare(wanted.min(self.folder.spare_bytes_max()));
        Ok(file)
    }
}

impl Drop for FolderDisk {
    fn drop(&mut self) {
        self.wake.0.queue.lock().stop = true;
        self.wake.0.ready.notify_one();
        // It looks up between two syncs, so this is short; afterwards nothing of ours touches the folder.
        if let Some(Err(panic)) = self.thread.take().map(thread::JoinHandle::join) {
            tracing::error!(?panic, "the thread that prepares space ended badly");
        }
    }
}

/// Is it the folder's own, and no file of the store?
pub(super) fn is_own(name: &str) -> bool {
    [LOCK, SPARE, SPARE_UNFINISHED, mend::MARK, reserve::FILE].contains(&name)
        || name.starts_with(TRASH)
        || name.starts_with(KEPT)
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options
}

impl Disk for FolderDisk {
    fn list(&self) -> Result<Vec<String>, DiskError> {
        let list = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(&self.folder.path)? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if entry.file_type()?.is_file() && !is_own(&name) {
                    names.push(name);
                }
            }
            names.sort_unstable();
            Ok(names)
        };
        list().map_err(self.failed("cannot list", ""))
    }

    fn open(&self, name: &str, ahead_bytes: u64) -> Result<Box<dyn StorageBackend>, DiskError> {
        let path = self.folder.path.join(name);
        let open = || -> io::Result<Box<dyn StorageBackend>> {
            if ahead_bytes == 0 {
                return Ok(Box::new(PlainFile::new(SoundFile::new(
                    options().open(path)?,
                    self.folder.clone(),
                ))));
            }
            let file =
                if path.exists() { options().open(&path)? } else { self.create_ahead(&path, ahead_bytes)? };
            let file = AheadFile::open(PastCache::new(file, &path), ahead_bytes)?;
            let mut open = self.folder.open.lock();
            open.retain(|_, file| file.strong_count() > 0);
            open.insert(name.to_owned(), Arc::downgrade(&file));
            let backend = AheadBackend::new(file, self.wake.clone(), self.folder.clone());
            Ok(Box::new(Gathered::new(Box::new(backend), UNSYNCED_RUNS_MAX)))
        };
        open().map_err(self.failed("cannot open", name))
    }

    fn open_bulk(&self, name: &str) -> Result<Box<dyn BulkFile>, DiskError> {
        let path = self.folder.path.join(name);
        let file = options().open(&path).map_err(self.failed("cannot open", name))?;
        let direct = past_cache::open(&path);
        Ok(Box::new(DirectFile::new(SoundFile::new(file, self.folder.clone()), direct)))
    }

    fn exists(&self, name: &str) -> Result<bool, DiskError> {
        self.folder.path.join(name).try_exists().map_err(self.failed("cannot look for", name))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        fs::rename(self.folder.path.join(from), self.folder.path.join(to))
            .map_err(self.failed("cannot rename", from))?;
        let mut open = self.folder.open.lock();
        if let Some(file) = open.remove(from) {
            open.insert(to.to_owned(), file);
        } else {
            open.remove(to);
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        let path = self.folder.path.join(name);
        let in_use = self.folder.open.lock().remove(name).is_some_and(|file| file.strong_count() > 0);
        let result = if in_use {
            fs::remove_file(&path)
        } else if self.wants(&path) && (self.becomes_spare(&path) || self.is_kept(&path, name)) {
            Ok(())
        } else {
            self.remove_gently(&path, name)
        };
        match result {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.failed("cannot remove", name)(e)),
            _ => Ok(()),
        }
    }

    fn sync_folder(&self) -> Result<(), DiskError> {
        self.folder.handle.sync_all().map_err(self.failed("cannot sync", ""))
    }

    fn mend(&self) -> Result<bool, DiskError> {
        let mend = || -> io::Result<bool> {
            if !mend::is_marked(&self.folder.path)? {
                return Ok(false);
            }
            tracing::warn!("a sync failed before this start: writing everything once more");
            for name in self.list().map_err(|e| e.source)? {
                mend::rewrite(&options().open(self.folder.path.join(name))?)?;
            }
            mend::unmark(&self.folder.path, &self.folder.handle)?;
            Ok(true)
        };
        mend().map_err(self.failed("cannot mend", ""))
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        let free = self.folder.free_bytes().map_err(self.failed("cannot size", ""))?;
        Ok(free.saturating_add(self.folder.reserve.state().held_bytes))
    }
}

impl FolderDisk {
    /// Make the file the next spare, unless one is there or on its way.
    fn becomes_spare(&self, path: &Path) -> bool {
        let unfinished = self.folder.path.join(SPARE_UNFINISHED);
        let queue = &mut *self.wake.0.queue.lock();
        if queue.spare_begun || queue.spare_ready || unfinished.exists() {
            return false;
        }
        let renamed = fs::rename(path, &unfinished).is_ok();
        if renamed {
            queue.spare_bytes.get_or_insert(0);
            self.wake.0.ready.notify_one();
        }
        renamed
    }

    /// Keep the file for later, unless enough are kept or the disk is short of space; then those that are kept go, too.
    fn is_kept(&self, path: &Path, name: &str) -> bool {
        let kept = self.folder.kept();
        let bytes = fs::metadata(path).map_or(0, |m| m.len());
        // It would take that much until it is its turn.
        if bytes > self.folder.spare_bytes_max() {
            return false;
        }
        if self.folder.free_bytes().unwrap_or(0) < bytes.saturating_mul(SPARES_FREE_MIN) {
            for path in kept {
                let _ = fs::remove_file(path);
            }
            return false;
        }
        kept.len() < KEPT_MAX && fs::rename(path, self.folder.path.join(format!("{KEPT}{name}"))).is_ok()
    }

    /// Remove a file, a large one in steps and under another name, so that a crash between them leaves nothing that
    /// looks like a segment. May take a fraction of a second.
    fn remove_gently(&self, path: &Path, name: &str) -> io::Result<()> {
        if fs::metadata(path)?.len() <= GIVE_BACK_BYTES {
            return fs::remove_file(path);
        }
        let trash = self.folder.path.join(format!("{TRASH}{name}"));
        fs::rename(path, &trash)?;
        let file = OpenOptions::new().write(true).open(&trash)?;
        shorten_gently(&file, GIVE_BACK_BYTES)?;
        fs::remove_file(&trash)
    }

    /// Would this file make a spare?
    fn wants(&self, path: &Path) -> bool {
        File::open(path).is_ok_and(|file| AheadFile::is_one(&file))
    }
}

/// Cut a file to this length in steps.
fn shorten_gently(file: &File, to_bytes: u64) -> io::Result<()> {
    let mut length = file.metadata()?.len();
    while length > to_bytes {
        length = length.saturating_sub(GIVE_BACK_BYTES).max(to_bytes);
        file.set_len(length)?;
        thread::sleep(GIVE_BACK_PAUSE);
    }
    Ok(())
}

/// Bytes that are given back to the file system at once. Taking a whole segment apart in one transaction of the file
/// system's journal kept syncs of the log waiting for 50 to 90 ms; in steps it does not.
const GIVE_BACK_BYTES: u64 = 4 << 20;
/// Old segments that wait to become the spare begin with this: to use one again costs neither zeroing nor taking it
/// apart, which under steady writes kept syncs of the log waiting for 7 ms, forty times a second. Their content stays
/// as it was until one is made the spare, so a crash that brings one back under its old name does no harm.
const KEPT: &str = "kept-";
/// So many of them at most, and only where the disk has room for [`SPARES_FREE_MIN`] more of each.
const KEPT_MAX: usize = 4;
/// Files that are being removed begin with this.
const TRASH: &str = "trash-";
/// Between two steps.
const GIVE_BACK_PAUSE: Duration = Duration::from_millis(4);

impl Folder {
    /// A sync of one of its files failed.
    pub(super) fn sync_failed(&self) {
        mend::mark(&self.path);
    }

    fn spare_bytes_max(&self) -> u64 {
        self.spare_bytes_max.load(Ordering::Relaxed)
    }

    /// See [`KEPT`].
    fn kept(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        entries.filter(|e| e.file_name().to_string_lossy().starts_with(KEPT)).map(|e| e.path()).collect()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::fstatvfs(&self.handle)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }
}

/// The thread: zeroes ahead of the files that are written, and makes the spare.
fn prepare(work: &Work, folder: &Folder) {
    let mut warned = false;
    loop {
        enum Job {
            File(Arc<AheadFile>),
            Spare(u64),
        }
        let job = {
            let mut queue = work.queue.lock();
            loop {
                if queue.stop {
                    return;
                }
                if let Some(file) = queue.files.pop_front() {
                    if let Some(file) = file.upgrade() {
                        break Job::File(file);
                    }
                } else if let Some(bytes) = queue.spare_bytes.take() {
                    if !queue.spare_ready {
                        queue.spare_begun = true;
                        break Job::Spare(bytes);
                    }
                } else {
                    work.ready.wait(&mut queue);
                }
            }
        };
        let result = match job {
            Job::File(file) => zero_ahead(work, folder, &file),
            Job::Spare(bytes) => make_spare(work, folder, bytes),
        };
        if let Err(error) = &result {
            // Nothing is lost by it but speed; what fails for good, the log's own writes will meet. Each of these asks for
            // space again, and one line will do.
            if !warned {
                tracing::warn!(%error, full = is_full(error), "cannot prepare space for the log");
            }
        }
        warned = result.is_err();
    }
}

fn is_stopped(work: &Work) -> bool {
    work.queue.lock().stop
}

fn zero_ahead(work: &Work, folder: &Folder, file: &AheadFile) -> io::Result<()> {
    // It may have told of the log's records, too.
    let flush = || file.flush_zeros().inspect_err(|_| folder.sync_failed());
    let mut zeroed = 0;
    while !is_stopped(work) && file.zero_next()? {
        zeroed += PIECE_BYTES;
        if zeroed % FLUSH_BYTES == 0 {
            flush()?;
        }
    }
    if zeroed % FLUSH_BYTES == 0 { Ok(()) } else { flush() }
}

fn make_spare(work: &Work, folder: &Folder, bytes: u64) -> io::Result<()> {
    let path = folder.path.join(SPARE_UNFINISHED);
    if let Some(kept) = folder.kept().pop().filter(|_| !path.exists()) {
        fs::rename(kept, &path)?;
    }
    let used_again = path.exists();
    let make = || -> io::Result<bool> {
        if !used_again && folder.free_bytes()? < bytes.saturating_mul(SPARES_FREE_MIN) {
            return Ok(false);
        }
        let file = options().open(&path)?;
        if used_again {
            // Else a crash could bring it back under its old name, empty.
            folder.handle.sync_all()?;
        }
        AheadFile::clear(&file)?;
        shorten_gently(&file, folder.spare_bytes_max())?;
        let length = file.metadata()?.len();
        let mut at = length - length % PAGE_BYTES as u64;
        let file = PastCache::new(file, &path);
        while at < bytes {
            if is_stopped(work) {
                return Ok(false);
            }
            let n = PIECE_BYTES.min(bytes - at).next_multiple_of(PAGE_BYTES as u64);
            file.write(&ZEROS.0[..n as usize], at)?;
            at += n;
            if at % FLUSH_BYTES < PIECE_BYTES {
                file.file().sync_data()?;
            }
        }
        file.file().sync_all()?;
        Ok(true)
    };
    let made = make();
    let mut queue = work.queue.lock();
    queue.spare_begun = false;
    match made {
        Ok(true) => {
            fs::rename(&path, folder.path.join(SPARE))?;
            queue.spare_ready = true;
            Ok(())
        }
        other => {
            let _ = fs::remove_file(&path);
            other.map(drop)
        }
    }
}
