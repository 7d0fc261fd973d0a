//! A file that is either there whole, or not at all: written as `FILE.partial`, and renamed once all of it is on the disk.

use crate::backup::name::PARTIAL;
use crate::io::free_bytes;
use rustix::fs::{FlockOperation, RenameFlags};
use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal as _, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// So much is written between two syncs: what a sync of a server on the same disk can wait behind.
const UNSYNCED_BYTES_MAX: u64 = 8 << 20;

/// Why a file is not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum TargetError {
    #[error("{} is there already; name another file, or say --overwrite", .0.display())]
    Exists(PathBuf),
    #[error("{} is being written by another `warren backup`; wait for it", .0.display())]
    Busy(PathBuf),
    #[error("standard output is a terminal; send it to a file or a pipe")]
    Terminal,
    #[error("cannot {doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
}

/// See the module.
pub(super) enum Target {
    Stdout(io::Stdout),
    File(Partial),
}

pub(super) struct Partial {
    file: File,
    path: PathBuf,
    overwrite: bool,
    unsynced: u64,
    /// Below so many free bytes nothing more is written: a server's data are on the same disk.
    free_bytes_min: u64,
    done: bool,
}

impl Target {
    /// Standard output.
    pub(super) fn stdout() -> Result<Target, TargetError> {
        let stdout = io::stdout();
        if stdout.is_terminal() { Err(TargetError::Terminal) } else { Ok(Target::Stdout(stdout)) }
    }

    /// A file. What an interrupted run left of it is written over.
    pub(super) fn file(path: &Path, overwrite: bool, free_bytes_min: u64) -> Result<Target, TargetError> {
        refuse_existing(path, overwrite)?;
        let partial = partial(path);
        let failed = |doing| {
            let path = partial.clone();
            move |source| TargetError::Io { doing, path, source }
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&partial)
            .map_err(failed("create"))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Err(TargetError::Busy(partial)),
            Err(e) => return Err(failed("lock")(e.into())),
        }
        // Of another run that ended meanwhile, it would have another name now.
        let same = fs::metadata(&partial).is_ok_and(|there| {
            file.metadata().is_ok_and(|ours| (ours.dev(), ours.ino()) == (there.dev(), there.ino()))
        });
        if !same {
            return Err(TargetError::Busy(partial));
        }
        file.set_len(0).map_err(failed("empty"))?;
        let path = path.to_owned();
        Ok(Target::File(Partial { file, path, overwrite, unsynced: 0, free_bytes_min, done: false }))
    }

    /// All is written: make it durable and give it its name.
    pub(super) fn commit(self) -> Result<(), TargetError> {
        match self {
            Target::Stdout(mut out) => {
                let path = PathBuf::from("standard output");
                out.flush().map_err(|source| TargetError::Io { doing: "write to", path, source })
            }
            Target::File(partial) => partial.commit(),
        }
    }
}

/// Refuse a file that is there, before anything else is done.
pub(super) fn refuse_existing(path: &Path, overwrite: bool) -> Result<(), TargetError> {
    match path.symlink_metadata() {
        Ok(_) if !overwrite => Err(TargetError::Exists(path.to_owned())),
        Ok(there) if there.is_dir() => Err(TargetError::Exists(path.to_owned())),
        _ => Ok(()),
    }
}

pub(super) fn partial(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(PARTIAL);
    name.into()
}

/// Make names in the folder of a file durable.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

impl Partial {
    fn commit(mut self) -> Result<(), TargetError> {
        let failed = |doing, source| TargetError::Io { doing, path: self.path.clone(), source };
        self.file.sync_all().map_err(|e| failed("sync", e))?;
        let from = partial(&self.path);
        // Somebody may have made one of that name meanwhile.
        let how = if self.overwrite { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        let cwd = rustix::fs::CWD;
        match rustix::fs::renameat_with(cwd, &from, cwd, &self.path, how) {
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                // A file system that knows no such rename.
                refuse_existing(&self.path, self.overwrite)?;
                fs::rename(&from, &self.path).map_err(|e| failed("rename to", e))?;
            }
            Err(rustix::io::Errno::EXIST) => return Err(TargetError::Exists(self.path.clone())),
            renamed => renamed.map_err(|e| failed("rename to", e.into()))?,
        }
        self.done = true;
        sync_folder_of(&self.path).map_err(|e| failed("sync the folder of", e))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_file(partial(&self.path));
        }
    }
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let partial = match self {
            Target::Stdout(out) => return out.write(bytes),
            Target::File(partial) => partial,
        };
        let written = partial.file.write(bytes)?;
        partial.unsynced += written as u64;
        if partial.unsynced >= UNSYNCED_BYTES_MAX {
            partial.unsynced = 0;
            partial.file.sync_data()?;
            if free_bytes(&partial.file)? < partial.free_bytes_min {
                return Err(io::Error::new(
                    io::ErrorKind::StorageFull,
                    "what is still free on this disk is the reserve of the server whose data are on it, too",
                ));
            }
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Target::Stdout(out) => out.flush(),
            Target::File(_) => Ok(()),
        }
    }
}
