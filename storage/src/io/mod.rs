//! The daemon's disk: the only part of this crate that touches files, and the only one with a thread.
//!
//! `folder` is the folder with its lock; `ahead` a file that is appended to under durable commits, over space zeroed
//! beforehand, and `past_cache` how it is written; `plain` an ordinary file whose large writes are spread out, `bulk` one that
//! is written once beside everything else, `sound` what both stand on; `read_ahead` and `window` how files are read in turn;
//! `mend` what follows a failed sync; `reserve` space for when the disk is full; `readonly` a folder that is only looked at.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "behind the wall: this is where files and threads are"
)]

mod ahead;
mod bulk;
mod folder;
mod mend;
mod past_cache;
mod plain;
mod read_ahead;
mod readonly;
mod reserve;
mod sound;
mod window;

#[cfg(test)]
mod tests;

pub use folder::{FolderDisk, OpenError};
pub use readonly::ReadOnlyFolder;
pub use reserve::ReserveState;
