//! A disk in memory that can lose what was not synced.

use crate::disk::{Disk, DiskError, SharedDisk};
use parking_lot::Mutex;
use redb::StorageBackend;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

#[derive(Clone, Debug, Default)]
pub(super) struct MemoryDisk {
    files: Arc<Mutex<BTreeMap<String, MemoryFile>>>,
}

#[derive(Clone, Debug, Default)]
struct MemoryFile(Arc<Mutex<Content>>);

#[derive(Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    /// As of the last sync.
    synced: Vec<u8>,
    /// Since the last sync.
    unsynced: Vec<Unsynced>,
    /// Operations until one fails; `None`: never.
    fail_in: Option<u64>,
}

#[derive(Clone, Debug)]
enum Unsynced {
    Length(usize),
    Write(usize, Vec<u8>),
}

impl Unsynced {
    fn carry_out(&self, bytes: &mut Vec<u8>) {
        match self {
            Unsynced::Length(length) => bytes.resize(*length, 0),
            Unsynced::Write(offset, written) => {
                // A write whose set_len was lost may lie beyond the end.
                if bytes.len() < offset + written.len() {
                    bytes.resize(offset + written.len(), 0);
                }
                bytes[*offset..offset + written.len()].copy_from_slice(written);
            }
        }
    }
}

impl MemoryDisk {
    pub(super) fn shared(&self) -> SharedDisk {
        Arc::new(self.clone())
    }

    /// The power fails: of what was not synced, only those operations survive for which `survives` says so.
    pub(super) fn after_power_loss(&self, mut survives: impl FnMut() -> bool) -> MemoryDisk {
        let files = self.files.lock();
        let lost = files.iter().map(|(name, file)| {
            let content = file.0.lock();
            let mut bytes = content.synced.clone();
            for operation in &content.unsynced {
                if survives() {
                    operation.carry_out(&mut bytes);
                }
            }
            let content = Content { synced: bytes.clone(), bytes, ..Content::default() };
            (name.clone(), MemoryFile(Arc::new(Mutex::new(content))))
        });
        MemoryDisk { files: Arc::new(Mutex::new(lost.collect())) }
    }

    /// The `n`-th operation from now on fails, and all after it.
    pub(super) fn fail_in(&self, n: u64) {
        for file in self.files.lock().values() {
            file.0.lock().fail_in = Some(n);
        }
    }
}

impl Content {
    fn step(&mut self) -> io::Result<()> {
        match &mut self.fail_in {
            Some(0) => Err(io::Error::other("the disk fails")),
            Some(n) => {
                *n -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl StorageBackend for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let offset = offset as usize;
        let mut content = self.0.lock();
        content.step()?;
        let end = offset + out.len();
        out.copy_from_slice(content.bytes.get(offset..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut content = self.0.lock();
        content.step()?;
        let operation = Unsynced::Length(len as usize);
        operation.carry_out(&mut content.bytes);
        content.unsynced.push(operation);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut content = self.0.lock();
        content.step()?;
        let unsynced = std::mem::take(&mut content.unsynced);
        for operation in unsynced {
            operation.carry_out(&mut content.synced);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut content = self.0.lock();
        content.step()?;
        let operation = Unsynced::Write(offset as usize, data.to_vec());
        operation.carry_out(&mut content.bytes);
        content.unsynced.push(operation);
        Ok(())
    }
}

impl Disk for MemoryDisk {
    fn list(&self) -> Result<Vec<String>, DiskError> {
        Ok(self.files.lock().keys().cloned().collect())
    }

    fn open(&self, name: &str, _ahead_bytes: u64) -> Result<Box<dyn StorageBackend>, DiskError> {
        Ok(Box::new(self.files.lock().entry(name.to_owned()).or_default().clone()))
    }

    fn exists(&self, name: &str) -> Result<bool, DiskError> {
        Ok(self.files.lock().contains_key(name))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        let mut files = self.files.lock();
        if let Some(file) = files.remove(from) {
            files.insert(to.to_owned(), file);
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.files.lock().remove(name);
        Ok(())
    }

    fn sync_folder(&self) -> Result<(), DiskError> {
        Ok(())
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        Ok(u64::MAX)
    }
}
