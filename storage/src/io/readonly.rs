//! A folder that is only looked at. It has the store's lock, shared with others that look, so that no server starts on it
//! meanwhile, and none runs.

use super::ahead::ReadOnlyAhead;
use super::folder::{LOCK, OpenError, is_own};
use crate::disk::{Disk, DiskError};
use redb::StorageBackend;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// See the module. What writes is refused; [`crate::inspect::InspectDisk`] keeps it in memory instead.
#[derive(Debug)]
pub struct ReadOnlyFolder {
    path: PathBuf,
    _lock: File,
}

impl ReadOnlyFolder {
    /// A store that is there.
    ///
    /// # Errors
    /// When there is none, or a server runs on it.
    pub fn open(path: impl AsRef<Path>) -> Result<ReadOnlyFolder, OpenError> {
        let path = path.as_ref().to_owned();
        let failed = |doing| {
            let folder = path.clone();
            move |source: io::Error| OpenError::Io { doing, folder, source }
        };
        let lock = File::open(path.join(LOCK)).map_err(failed("find the lock of"))?;
        match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(ReadOnlyFolder { path, _lock: lock }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::InUse(path)),
            Err(e) => Err(failed("lock")(e.into())),
        }
    }

    fn failed(&self, doing: &'static str, name: &str) -> impl FnOnce(io::Error) -> DiskError + use<> {
        let file = self.path.join(name).display().to_string();
        move |source| DiskError { doing, file, source }
    }
}

impl Disk for ReadOnlyFolder {
    fn list(&self) -> Result<Vec<String>, DiskError> {
        let list = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(&self.path)? {
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
        let open = || -> io::Result<Box<dyn StorageBackend>> {
            let file = File::open(self.path.join(name))?;
            match ahead_bytes {
                0 => Ok(Box::new(ReadOnlyFile(file))),
                _ => Ok(Box::new(ReadOnlyAhead::open(file)?)),
            }
        };
        open().map_err(self.failed("cannot open", name))
    }

    fn exists(&self, name: &str) -> Result<bool, DiskError> {
        self.path.join(name).try_exists().map_err(self.failed("cannot look for", name))
    }

    fn rename(&self, from: &str, _to: &str) -> Result<(), DiskError> {
        Err(self.failed("cannot rename", from)(refused()))
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        Err(self.failed("cannot remove", name)(refused()))
    }

    fn sync_folder(&self) -> Result<(), DiskError> {
        Ok(())
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        // Nothing is written.
        Ok(u64::MAX)
    }
}

/// What is said to whoever writes.
pub(super) fn refused() -> io::Error {
    io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "the folder is only looked at")
}

#[derive(Debug)]
struct ReadOnlyFile(File);

impl StorageBackend for ReadOnlyFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        Err(refused())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, _offset: u64, _data: &[u8]) -> io::Result<()> {
        Err(refused())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::InspectDisk;
    use crate::io::FolderDisk;
    use crate::log::{Append, HardState, Log, LogOptions, LogRecord, RecordKind};
    use crate::{SharedDisk, TreeOptions, recover};
    use std::sync::Arc;

    #[test]
    fn a_real_store_is_looked_at_and_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let options = TreeOptions { memory_bytes: 1 << 20, hash_seed: 1, store_id: 2 };
        assert!(matches!(ReadOnlyFolder::open(folder.path()), Err(OpenError::Io { .. })));
        let record = LogRecord { index: 1, term: 1, kind: RecordKind::Normal, data: vec![7; 100_000].into() };
        {
            let disk: SharedDisk = Arc::new(FolderDisk::open(folder.path()).unwrap());
            let mut made = recover(disk, options, LogOptions::default()).unwrap();
            let hard_state = Some(HardState { term: 1, vote: 1, commit: 1 });
            let records = std::slice::from_ref(&record);
            made.log.append(Append { records, hard_state }).unwrap();
            assert!(matches!(ReadOnlyFolder::open(folder.path()), Err(OpenError::InUse(_))));
        }
        let sums = || -> Vec<(String, u32)> {
            let names = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().path());
            let mut all: Vec<_> =
                names.map(|p| (p.display().to_string(), crc32fast::hash(&fs::read(p).unwrap()))).collect();
            all.sort();
            all
        };
        let before = sums();
        let looked = ReadOnlyFolder::open(folder.path()).unwrap();
        assert!(matches!(FolderDisk::open(folder.path()), Err(OpenError::InUse(_))));
        assert!(looked.remove("tree.redb").is_err() && looked.rename("tree.redb", "x").is_err());
        let disk: SharedDisk = Arc::new(InspectDisk::new(Arc::new(looked)));
        let found = recover(disk, options, LogOptions::default()).unwrap();
        assert_eq!(found.log.reader().read(1, 2, 1_000_000).unwrap(), [record]);
        let mut log: Log = found.log;
        log.append(Append { records: &[], hard_state: Some(HardState::default()) }).unwrap();
        drop(log);
        drop(found.tree);
        assert!(sums() == before);
        assert!(FolderDisk::open(folder.path()).is_ok());
    }
}
