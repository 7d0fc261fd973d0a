//! Backups: the file, its name, and how far it is; `io/backup/` takes and restores them.

pub mod flags;
pub mod format;
pub mod name;
pub mod progress;
