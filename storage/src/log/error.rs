//! What can go wrong with the log.

use crate::disk::{DiskError, is_full};

/// Why the log cannot go on. After any of these from a call that writes, the log refuses all further writes: the
/// server stops, and the next start recovers what was acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The folder or a file in it.
    #[error("the log's disk failed")]
    Disk(#[from] DiskError),
    /// No space left. Nothing is broken: with space freed, a restart goes on from what was acknowledged.
    #[error("{doing} {segment}: the disk is full; free some space, then start the server again")]
    Full {
        /// Such as "cannot append to".
        doing: &'static str,
        /// File name of the segment.
        segment: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The disk, as redb met it.
    #[error("{doing} {segment}")]
    Engine {
        /// Such as "cannot append to".
        doing: &'static str,
        /// File name of the segment.
        segment: String,
        /// What redb said.
        #[source]
        source: Box<redb::Error>,
    },
    /// Written by another version of Warren.
    #[error(
        "{segment} has log format {found}, and this version of Warren reads format {known}; \
         start the version that wrote it, or empty the data folder and let this server join anew"
    )]
    Format {
        /// File name of the segment.
        segment: String,
        /// What it says it is.
        found: u32,
        /// What this version reads.
        known: u32,
    },
    /// What was read is not what was written.
    #[error(
        "{segment} is damaged: {what}; do not repair it by hand: move the data folder away and let this server \
         join anew"
    )]
    Damaged {
        /// File name of the segment.
        segment: String,
        /// In words.
        what: String,
    },
    /// The record was purged; whoever needs it has to be sent a snapshot. No failure.
    #[error("record {index} was purged from the log, which begins at {first_index}")]
    Purged {
        /// What was asked for.
        index: u64,
        /// What there is.
        first_index: u64,
    },
    /// An earlier write failed, so that nobody knows what is on the disk.
    #[error("the log takes no more writes because an earlier one failed; the server has to start again")]
    Stopped,
}

impl LogError {
    /// Is it that the disk is full?
    pub fn is_full(&self) -> bool {
        match self {
            LogError::Full { .. } => true,
            LogError::Disk(e) => e.is_full(),
            _ => false,
        }
    }

    pub(super) fn engine(doing: &'static str, segment: &str, source: impl Into<redb::Error>) -> LogError {
        let segment = segment.to_owned();
        match source.into() {
            redb::Error::Io(source) if is_full(&source) => LogError::Full { doing, segment, source },
            source => LogError::Engine { doing, segment, source: Box::new(source) },
        }
    }

    pub(super) fn damaged(segment: &str, what: impl Into<String>) -> LogError {
        LogError::Damaged { segment: segment.to_owned(), what: what.into() }
    }
}
