//! The new store: made in a folder beside its place, and moved there when it is whole and durable.

use super::aside::Aside;
use crate::import::settle::{Settled, WriteError};
use crate::io::free_bytes;
use rustix::fs::{FlockOperation, RenameFlags};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use warren_server::entropy::Entropy as _;
use warren_server::io::SystemEntropy;
use warren_storage::io::{FolderDisk, OpenError};
use warren_storage::log::{LogError, LogOptions};
use warren_storage::tree::{Composer, Identity, Import, ImportError, Position, TreeError};
use warren_storage::{RecoverError, SharedDisk, Tree, TreeOptions, begin_log, recover};

/// A server's store, in its data folder.
const STORE: &str = "warren";
/// Its name while it is made.
const UNFINISHED: &str = "warren.importing";
/// Data of znodes, until they are written.
const ASIDE: &str = "data.aside";
/// What is to stay free for the server to begin with.
const FREE_BYTES_MIN: u64 = 128 << 20;
/// Memory for the tree when it is opened once more.
const MEMORY_BYTES: u64 = 32 << 20;
/// Behind everything that was, so that servers with empty stores are sent the tree.
const POSITION: Position = Position { index: 1, term: 1 };

/// Why it cannot be stored there.
#[derive(Debug, thiserror::Error)]
pub(super) enum TargetError {
    #[error(
        "{} holds a store already, and nothing is written over: name another --data-dir, or move it away", .0.display()
    )]
    Exists(PathBuf),
    #[error("another `warren import` or `warren restore` works in {}; wait for it", .0.display())]
    Busy(PathBuf),
    #[error(
        "{} has {} free, and {} MiB are to stay free for the server: free some space, or name a --data-dir on another disk",
        data_dir.display(), crate::status::bytes(*free_bytes), FREE_BYTES_MIN >> 20
    )]
    NoSpace { data_dir: PathBuf, free_bytes: u64 },
    #[error("cannot {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Folder(#[from] OpenError),
    #[error("the store cannot be made: {}", super::super::full(.0))]
    Write(#[from] WriteError),
    #[error("the store cannot be made: {}", super::super::full(.0))]
    Import(#[from] ImportError),
    #[error("the store cannot be made: {}", super::super::full(.0))]
    Tree(#[from] TreeError),
    #[error("the store's log cannot be begun: {}", super::super::full(.0))]
    Log(#[from] LogError),
    #[error("what was made cannot be opened: {}", super::super::full(.0))]
    Recover(#[from] RecoverError),
    #[error("what was made is not what was given ({0}). Look after this machine's disk and memory")]
    Made(&'static str),
}

fn failed<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> TargetError + 'a {
    move |source| TargetError::Io { doing, path: path.to_owned(), source }
}

/// A place for a store, taken. Dropped before it is one, it leaves nothing.
pub(super) struct Target {
    data_dir: PathBuf,
    store: PathBuf,
    side: PathBuf,
    /// Locked, so that there are never two at it.
    folder: File,
}

impl Target {
    /// Take the place, and remove what a run that was killed left there.
    pub(super) fn begin(data_dir: &Path) -> Result<Target, TargetError> {
        let (store, side) = (data_dir.join(STORE), data_dir.join(UNFINISHED));
        if !data_dir.exists() {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o700).create(data_dir).map_err(failed("create", data_dir))?;
        }
        let folder = File::open(data_dir).map_err(failed("open", data_dir))?;
        match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(TargetError::Busy(data_dir.to_owned())),
            Err(e) => return Err(failed("lock", data_dir)(e.into())),
        }
        if store.symlink_metadata().is_ok() {
            return Err(TargetError::Exists(store));
        }
        if side.symlink_metadata().is_ok() {
            eprintln!(
                "warren: {} is what an import that was stopped left; it is removed, and this one begins anew",
                side.display()
            );
        }
        remove_folder(&side).map_err(failed("remove what is left of", &side))?;
        let free_bytes = free_bytes(&folder).map_err(failed("look at", data_dir))?;
        if free_bytes < FREE_BYTES_MIN {
            return Err(TargetError::NoSpace { data_dir: data_dir.to_owned(), free_bytes });
        }
        DirBuilder::new().mode(0o700).create(&side).map_err(failed("create", &side))?;
        Ok(Target { data_dir: data_dir.to_owned(), store, side, folder })
    }

    /// A place for data until they are written; there is one, which is emptied.
    pub(super) fn aside(&self) -> Result<Aside, TargetError> {
        let path = self.side.join(ASIDE);
        Aside::create(&path).map_err(failed("create", &path))
    }

    /// Make a store of it, durably.
    pub(super) fn store(self, settled: &Settled<Aside>) -> Result<(), TargetError> {
        let disk: SharedDisk = Arc::new(FolderDisk::open(&self.side)?);
        let store_id = SystemEntropy.next_u64();
        let hash_seed = SystemEntropy.next_u64();
        let mut import =
            Import::begin(disk.clone(), Identity { store_id, disk: 0, observes: false }, FREE_BYTES_MIN)?;
        let mut composer = Composer::begin(POSITION, &settled.totals, |chunk: &[u8]| import.push(chunk))?;
        settled.write(&mut composer)?;
        composer.finish()?;
        let staged = import.finish()?;
        let options = TreeOptions { memory_bytes: MEMORY_BYTES, hash_seed, store_id };
        drop(Tree::replace(disk.clone(), staged, options)?);
        begin_log(disk.clone(), POSITION)?;
        // As the server will find it.
        let made = recover(disk.clone(), options, LogOptions::default())?;
        if made.discarded || made.tree.position() != POSITION {
            return Err(TargetError::Made("tree and log do not fit together"));
        }
        if (made.tree.zxid(), made.tree.digest().znodes) != (settled.totals.zxid, settled.totals.digest) {
            return Err(TargetError::Made("the digest is another one"));
        }
        drop(made);
        let path = self.side.join(ASIDE);
        fs::remove_file(&path).map_err(failed("remove", &path))?;
        disk.sync_folder().map_err(TreeError::from)?;
        drop(disk);
        self.into_place()
    }

    fn into_place(self) -> Result<(), TargetError> {
        belong_to_owner_of(&self.data_dir, &self.side)
            .map_err(failed("give the owner of the data folder", &self.side))?;
        let cwd = rustix::fs::CWD;
        match rustix::fs::renameat_with(cwd, &self.side, cwd, &self.store, RenameFlags::NOREPLACE) {
            Err(rustix::io::Errno::EXIST) => return Err(TargetError::Exists(self.store.clone())),
            // Not every file system can refuse to replace.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if !self.store.exists() => {
                fs::rename(&self.side, &self.store).map_err(failed("rename", &self.side))?;
            }
            renamed => renamed.map_err(|e| failed("rename", &self.side)(e.into()))?,
        }
        self.folder.sync_all().map_err(failed("sync", &self.data_dir))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // What is left is no store, and the next run would remove it.
        let _ = remove_folder(&self.side);
    }
}

fn remove_folder(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Made by root for a server that runs as somebody else, it must be that one's.
fn belong_to_owner_of(data_dir: &Path, side: &Path) -> io::Result<()> {
    let owner = fs::metadata(data_dir)?;
    if (owner.uid(), owner.gid()) == (fs::metadata(side)?.uid(), fs::metadata(side)?.gid()) {
        return Ok(());
    }
    for file in fs::read_dir(side)? {
        std::os::unix::fs::chown(file?.path(), Some(owner.uid()), Some(owner.gid()))?;
    }
    std::os::unix::fs::chown(side, Some(owner.uid()), Some(owner.gid()))
}
