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
