//! The znode tree: what is applied, kept in redb as of a checkpoint and in memory since then.
//!
//! Steps ⑩ of the walk. [`Tree`] belongs to one thread, which applies what is committed; everybody else reads
//! [`Snapshot`]s, which never change.
//!
//! ```text
//!            apply ─▶ live overlay ──freeze──▶ frozen overlay ──Checkpoint::write──▶ tree.redb
//!  node(path):         look here 1             then here 2        node cache 3       then here 4
//! ```
//! Another server takes the checkpoint as a stream: [`Exporter`] makes it, [`Import`] takes it, [`StreamCheck`]
//! looks at it, [`Composer`] makes one of what another system kept, `stream` is its format.

mod acls;
mod apply;
mod base;
mod cache;
mod check;
mod checkpoint;
mod compose;
mod digest;
mod error;
mod export;
mod import;
mod overlay;
mod quota;
mod quota_check;
mod restart;
mod roster;
mod sessions;
mod snapshot;
mod state;
mod stream;
mod tables;
#[cfg(test)]
mod tests;
mod znode;

pub use acls::{AclId, SharedAcl};
pub use apply::{Applied, Change, ChangeKind, Outcome, Reply};
pub use check::{EachZnode, StreamCheck};
pub use checkpoint::{Checkpoint, Written, pages_are_sound};
pub use compose::{Composer, Persisted, Totals, content_digest, counted_bytes};
pub use error::{ImportError, TreeError};
pub use export::{Export, ExportHead, Exporter};
pub use import::{Import, Staged};
pub use quota::{limited_path, stats_path, stats_text};
pub use quota_check::{QuotaCheck, QuotaDrift};
pub use restart::Ended;
pub use roster::{Begun, Identity};
pub use snapshot::{Digest, Snapshot};
pub use state::{Position, Pressure, Refusals, Superseded, Tree, TreeOptions};
pub use stream::{CHUNK_BYTES_MAX, CHUNK_HEADER_BYTES, STREAM_VERSION, read_chunk};
pub use tables::FILE;
pub use znode::Znode;
