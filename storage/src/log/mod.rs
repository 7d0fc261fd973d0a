//! The transaction log: step ⑧ of the walk of a write (ARCHITECTURE.md). Many entries, one sync, and only then the
//! acknowledgement.
//!
//! ```text
//!  Log::append ─▶ newest segment ─▶ its journal, or one durable commit of redb ─▶ Ok: an acknowledgement may leave
//!                   │ full: closed cleanly, the next one begun
//!                   ▼
//!  log-1  log-2  …  log-n      LogReader: from memory, else from the segment that holds the index
//!    └─ purge: unlinked whole
//! ```
//!
//! `tables` declares what is in a segment, `segment` is one file, `writer` holds the row of them together,
//! `reader` reads beside it, `backend` wraps the disk's files, `journal` takes small appends.

mod backend;
mod error;
mod journal;
mod reader;
mod segment;
mod tables;
mod writer;

#[cfg(test)]
mod tests;

use crate::disk::{Disk, DiskError};

pub(crate) use backend::Frozen;
pub use error::LogError;
pub use reader::LogReader;
pub use tables::{HardState, LogRecord, RecordKind};
pub use writer::{Append, Forgotten, Log, LogOptions, Recovered, join};

/// Does the folder hold a log?
pub fn exists(disk: &dyn Disk) -> Result<bool, DiskError> {
    Ok(disk.list()?.iter().any(|name| segment::parse_file_name(name).is_some()))
}
