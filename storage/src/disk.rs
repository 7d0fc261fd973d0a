//! The seam between what is kept and where: a folder of files, each a [`redb::StorageBackend`].
//!
//! The daemon's is in [`crate::io`]; the simulator has one that loses what was not synced, fails at the n-th
//! operation and fills up.

use crate::run::Run;
use redb::StorageBackend;
use std::fmt::Debug;
use std::io;
use std::sync::Arc;

/// What can go wrong with a disk, with what was being done.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {file}: {source}")]
pub struct DiskError {
    /// Such as "cannot create".
    pub doing: &'static str,
    /// Which file.
    pub file: String,
    /// What the system said.
    #[source]
    pub source: std::io::Error,
}

impl DiskError {
    /// Is it that the disk is full (or the quota used up)? Then space helps, and nothing is broken.
    pub fn is_full(&self) -> bool {
        is_full(&self.source)
    }
}

/// Does this error say that the disk is full, or a quota used up?
pub fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// One folder of files. Names are plain file names, without a separator.
///
/// Durability: the content of a file is durable after its backend's `sync_data`; that a file exists, or has a new
/// name, or is gone, is durable after [`Disk::sync_folder`]. A file keeps its backend through renames; a removed one
/// lives on until its backend is dropped. After a failed `sync_data` a backend refuses everything: what the system
/// could not write it may have dropped, and a second sync would then report success for data that is gone. The next
/// process mends that before it opens a file: [`Disk::mend`].
pub trait Disk: Debug + Send + Sync + 'static {
    /// Names of all files.
    fn list(&self) -> Result<Vec<String>, DiskError>;

    /// Open a file, creating an empty one where there is none.
    ///
    /// `ahead_bytes`: a hint that this file is appended to under durable commits and that its space should be
    /// zeroed physically this far ahead of its logical end, and its logical length kept apart from its physical
    /// one; 0: an ordinary file.
    fn open(&self, name: &str, ahead_bytes: u64) -> Result<Box<dyn StorageBackend>, DiskError>;

    /// Open a file as [`Disk::open`] does, for much that is written once, from its front to its end, and that nobody waits
    /// for: it is to reach the disk steadily, and in the way of no other file's syncs. A hint, which a disk may ignore.
    fn open_bulk(&self, name: &str) -> Result<Box<dyn BulkFile>, DiskError> {
        Ok(Box::new(Boxed(self.open(name, 0)?)))
    }

    /// Does the file exist?
    fn exists(&self, name: &str) -> Result<bool, DiskError>;

    /// Give a file another name, replacing what was there.
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError>;

    /// Remove a file. It is no error when there is none.
    fn remove(&self, name: &str) -> Result<(), DiskError>;

    /// Make creations, renames and removals durable.
    fn sync_folder(&self) -> Result<(), DiskError>;

    /// Called at the start, before any file is opened. A sync that failed leaves files whose cached content, which is
    /// what a new process reads, is not on the disk and never will be, since the system takes it for written. Where that
    /// has happened since the machine started, everything is written once more and synced. Tells whether it was. A disk
    /// without such a cache has nothing to mend.
    fn mend(&self) -> Result<bool, DiskError> {
        Ok(false)
    }

    /// Bytes that can still be written, what is set aside for a full disk included.
    fn free_bytes(&self) -> Result<u64, DiskError>;
}

/// A file that takes whole runs: of [`Disk::open_bulk`], and what a disk has beneath a file of its own.
pub trait BulkFile: StorageBackend {
    /// A run to be filled and given to [`BulkFile::put`]: one that was written, where there is one.
    fn room(&self) -> Run {
        Run::default()
    }

    /// Write what is in `run`. It need not have happened yet; who reads the file finds it there, and a sync makes it durable.
    ///
    /// # Errors
    /// When it, or one before it, cannot be written. What that held is taken for gone.
    fn put(&self, run: Arc<Run>) -> io::Result<()> {
        run.parts().try_for_each(|(offset, part)| self.write(offset, part))
    }
}

/// The disk gives backends in a box, and redb takes none that is boxed. In bulk it takes everything as it comes.
#[derive(Debug)]
pub(crate) struct Boxed(pub(crate) Box<dyn StorageBackend>);

impl BulkFile for Boxed {}

impl StorageBackend for Boxed {
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
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
}

/// A disk shared by log and tree.
pub type SharedDisk = Arc<dyn Disk>;
