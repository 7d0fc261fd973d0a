//! What can go wrong with the tree. Each of these stops the server: nothing here is a client's fault.

use crate::DiskError;

/// The store failed, or holds what we did not write.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The folder or file could not be opened.
    #[error("cannot open tree.redb")]
    Disk(#[from] DiskError),
    /// redb refused, with what we were doing.
    #[error("cannot {doing}")]
    Store {
        /// Such as "read a znode".
        doing: &'static str,
        /// What redb said.
        #[source]
        source: redb::Error,
    },
    /// The file was written by another version of this program.
    #[error("tree.redb has format {found}, and this program reads and writes only format {known}")]
    Format {
        /// In the file.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// A row does not decode, or rows contradict one another.
    #[error("tree.redb is damaged: {what}")]
    Damaged {
        /// Which row, and how.
        what: String,
    },
}

/// Why a snapshot stream is not taken. The tree in use is as it was; the sender may begin again.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// What came is not what an export gives.
    #[error("chunk {number} of the snapshot stream is refused: {why}")]
    Refused {
        /// Its place in the stream, from 0.
        number: u32,
        /// In words.
        why: String,
    },
    /// Made by another version of this program.
    #[error(
        "the snapshot stream has version {found}, and this program reads only version {known}; \
         run the same version on both ends"
    )]
    Version {
        /// In the stream.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// It ended too early.
    #[error("the snapshot stream broke off behind {chunks} chunks")]
    Incomplete {
        /// How many came.
        chunks: u32,
    },
    /// What is free is for the log.
    #[error(
        "{free_bytes} bytes are free on the disk, too little to take a snapshot stream and keep {reserve_bytes} in \
         reserve; free some space"
    )]
    NoSpace {
        /// On the disk.
        free_bytes: u64,
        /// Not to be used.
        reserve_bytes: u64,
    },
    /// The new file failed.
    #[error("cannot store the snapshot stream")]
    Store(#[from] TreeError),
    /// There was an error before.
    #[error("the import takes nothing more because a chunk was refused; begin another one")]
    Over,
}

/// Says what was being done when redb failed.
pub(super) trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, TreeError>;
}

impl<T, E: Into<redb::Error>> Doing<T> for Result<T, E> {
    fn doing(self, doing: &'static str) -> Result<T, TreeError> {
        self.map_err(|source| TreeError::Store { doing, source: source.into() })
    }
}

impl TreeError {
    pub(super) fn damaged(what: impl Into<String>) -> TreeError {
        TreeError::Damaged { what: what.into() }
    }
}
