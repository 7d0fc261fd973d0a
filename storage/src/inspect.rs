//! A disk of which nothing is changed: what is written to it stays in memory, and is gone with it.
//!
//! Opening a store repairs what a killed process left, and removes leftovers. Over this disk it does all that, so that a
//! store is looked at exactly as the next start would see it, and is afterwards what it was.

use crate::disk::{Disk, DiskError, SharedDisk};
use crate::log::Frozen;
use parking_lot::Mutex;
use redb::StorageBackend;
use redb::backends::InMemoryBackend;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

/// Memory grows with what is written: the pages that redb marks and repairs, and no more than a segment of the log.
pub struct InspectDisk {
    inner: SharedDisk,
    /// What became of names here; `None`: gone.
    names: Mutex<BTreeMap<String, Option<Arc<Frozen>>>>,
}

impl std::fmt::Debug for InspectDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InspectDisk").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl InspectDisk {
    /// Of this disk only files that exist are opened.
    pub fn new(inner: SharedDisk) -> InspectDisk {
        InspectDisk { inner, names: Mutex::default() }
    }

    fn file(&self, name: &str, ahead_bytes: u64) -> Result<Arc<Frozen>, DiskError> {
        let mut names = self.names.lock();
        if let Some(Some(file)) = names.get(name) {
            return Ok(file.clone());
        }
        let gone = names.contains_key(name);
        let inner: Box<dyn StorageBackend> = match !gone && self.inner.exists(name)? {
            true => self.inner.open(name, ahead_bytes)?,
            false => Box::new(InMemoryBackend::new()),
        };
        let failed = |source| DiskError { doing: "cannot open", file: name.to_owned(), source };
        let file = Arc::new(Frozen::new(inner).map_err(failed)?);
        names.insert(name.to_owned(), Some(file.clone()));
        Ok(file)
    }
}

impl Disk for InspectDisk {
    fn list(&self) -> Result<Vec<String>, DiskError> {
        let names = self.names.lock();
        let mut all: Vec<String> =
            self.inner.list()?.into_iter().filter(|name| !names.contains_key(name)).collect();
        all.extend(names.iter().filter(|(_, file)| file.is_some()).map(|(name, _)| name.clone()));
        all.sort_unstable();
        Ok(all)
    }

    fn open(&self, name: &str, ahead_bytes: u64) -> Result<Box<dyn StorageBackend>, DiskError> {
        Ok(Box::new(Shared(self.file(name, ahead_bytes)?)))
    }

    fn exists(&self, name: &str) -> Result<bool, DiskError> {
        match self.names.lock().get(name) {
            Some(file) => Ok(file.is_some()),
            None => self.inner.exists(name),
        }
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        // Whatever it was opened with before: a file here is renamed after it was written.
        let file = self.file(from, 0)?;
        let mut names = self.names.lock();
        names.insert(from.to_owned(), None);
        names.insert(to.to_owned(), Some(file));
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.names.lock().insert(name.to_owned(), None);
        Ok(())
    }

    fn sync_folder(&self) -> Result<(), DiskError> {
        Ok(())
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        self.inner.free_bytes()
    }
}

/// A file that several may have open, one after the other.
#[derive(Debug)]
struct Shared(Arc<Frozen>);

impl StorageBackend for Shared {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Append, HardState, Log, LogOptions, LogRecord, RecordKind};
    use crate::simdisk::SimDisk;
    use crate::tree::Tree;
    use crate::{TreeOptions, recover};

    fn options() -> TreeOptions {
        TreeOptions { memory_bytes: 1 << 20, hash_seed: 1, store_id: 2 }
    }

    fn content(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
        let names = disk.list().unwrap();
        let read = |name: String| {
            let file = disk.open(&name, 0).unwrap();
            let mut bytes = vec![0; file.len().unwrap() as usize];
            file.read(0, &mut bytes).unwrap();
            (name, bytes)
        };
        names.into_iter().map(read).collect()
    }

    /// As a start that is killed at any point leaves it: looked at, it is opened, and stays what it was.
    #[test]
    fn what_is_looked_at_stays_what_it_was() {
        let disk = SimDisk::new();
        let record = |index| LogRecord { index, term: 1, kind: RecordKind::Normal, data: b"x"[..].into() };
        {
            let shared: SharedDisk = Arc::new(disk.clone());
            drop(Tree::open(shared.clone(), options()).unwrap());
            let (mut log, _) = Log::open(shared, LogOptions::default()).unwrap();
            let hard_state = Some(HardState { term: 1, vote: 1, commit: 1 });
            log.append(Append { records: &[record(1), record(2)], hard_state }).unwrap();
            // Not closed: as after kill -9.
            std::mem::forget(log);
        }
        drop(disk.open("tree.redb.new", 0).unwrap());
        let before = content(&disk);
        for _ in 0..2 {
            let inspected: SharedDisk = Arc::new(InspectDisk::new(Arc::new(disk.clone())));
            let found = recover(inspected.clone(), options(), LogOptions::default()).unwrap();
            assert_eq!((found.found.last_index, found.found.repaired), (2, true));
            assert_eq!(found.log.reader().read(1, 3, 1_000).unwrap(), [record(1), record(2)]);
            assert!(!inspected.exists("tree.redb.new").unwrap());
            // It can even go on.
            let mut log = found.log;
            log.append(Append { records: &[record(3)], hard_state: None }).unwrap();
            log.reset(7, 2, None).unwrap();
            assert_eq!(log.reader().first_index(), 8);
            drop(log);
            assert!(content(&disk) == before);
        }
    }
}
