//! `warren import`: a ZooKeeper's data folder becomes a store of ours.
//!
//! ```text
//!  snapshot.* ─▶ snapshot ─┐                                         ┌─▶ warren_storage::tree::Composer ─▶ Import
//!                          ├─▶ fold: the tree, in memory ─▶ settle ──┤
//!  log.* ─▶ log ─▶ txn ────┘         (data elsewhere)                └─▶ report
//! ```
//! Nothing here opens a file, see [`crate::io::import`]. What the files say is not trusted: lengths have limits, memory
//! grows with what has arrived, and what makes no sense is refused with the place where it stands.

pub mod flags;
pub mod fold;
pub mod input;
pub mod log;
pub mod report;
pub mod settle;
pub mod snappy;
pub mod snapshot;
#[cfg(test)]
mod tests;
pub mod txn;
