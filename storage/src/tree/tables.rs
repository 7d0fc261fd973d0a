//! Every table of `tree.redb`, declared once. A change of a key or a value gives the table a new name.

use redb::TableDefinition;

/// The file, within the disk's folder.
pub const FILE: &str = "tree.redb";
/// Its name while it is created.
pub(super) const UNFINISHED: &str = "tree.redb.new";

/// What [`FORMAT_KEY`] must say; a file that says something else is refused.
pub(super) const FORMAT: u32 = 2;

/// Full path → [`super::Znode`] as `znode.rs` encodes it. The root is `/`.
pub(super) const ZNODES: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("znodes-1");

/// Depth (u64, big-endian) and full path → nothing. The children of a znode lie side by side, sorted by name,
/// at its depth + 1, so they are listed without touching a value.
pub(super) const CHILDREN: TableDefinition<'static, &[u8], ()> = TableDefinition::new("children-1");

/// Session (u64, big-endian) and full path → nothing: the ephemerals of a session.
pub(super) const EPHEMERALS: TableDefinition<'static, &[u8], ()> = TableDefinition::new("ephemerals-1");

/// Zero (u64) and full path → nothing: containers and TTL nodes, for the leader's sweeper.
pub(super) const TIMED: TableDefinition<'static, &[u8], ()> = TableDefinition::new("timed-1");

/// Session → [`crate::SessionRow`] in postcard.
pub(super) const SESSIONS: TableDefinition<'static, i64, &[u8]> = TableDefinition::new("sessions-1");

/// Id of an access control list → number of znodes that have it, and the list, in postcard.
pub(super) const ACLS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("acls-1");

/// [`FORMAT_KEY`] → u32, little-endian; [`HEAD_KEY`] → `checkpoint::Head` in postcard; [`DIFFERS_KEY`] → `super::Position` in
/// postcard, where there is one; [`BEGUN_KEY`] → `super::Begun` in postcard, once the store takes part.
pub(super) const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta-1");

/// See [`META`].
pub(super) const FORMAT_KEY: &str = "format";

/// See [`META`].
pub(super) const HEAD_KEY: &str = "head";

/// See [`META`] and [`super::Tree::differs`].
pub(super) const DIFFERS_KEY: &str = "differs";

/// See [`META`] and [`super::Tree::begun`]. Of a tree that came by a snapshot only an observer has it: what others begin with
/// is in the log.
pub(super) const BEGUN_KEY: &str = "begun";
