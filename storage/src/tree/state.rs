//! [`Tree`]: the owner of what is applied. One thread has it; it applies, freezes and installs, and hands out
//! [`Snapshot`]s.

use super::acls::Acls;
use super::cache::Cache;
use super::checkpoint::{self, Checkpoint, Written};
use super::overlay::Layer;
use super::quota::Quotas;
use super::roster::{Begun, Roster};
use super::sessions::Sessions;
use super::snapshot::{Digest, Frame, View};
use super::{Export, Exporter, Snapshot, TreeError};
use crate::disk::SharedDisk;
use crate::{SessionId, SessionRow, Zxid};
use foldhash::fast::FixedState;
use redb::Database;
use std::sync::Arc;

/// How a tree is opened.
#[derive(Clone, Copy, Debug)]
pub struct TreeOptions {
    /// Memory for overlays, node cache and redb's cache together: a sixth for the node cache, a sixteenth for redb's,
    /// and a tenth at most for the live overlay and for the one that is being written; the rest is what the
    /// allocator and the structures around them take.
    pub memory_bytes: u64,
    /// Seeds the hash maps: random in the daemon, so that nobody can choose colliding paths.
    pub hash_seed: u64,
    /// Names a tree that is created by this open; kept thereafter. See [`Tree::store_id`].
    pub store_id: u64,
}

/// How [`TreeOptions::memory_bytes`] is divided, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    pub(super) redb_cache: u64,
    pub(super) node_cache: u64,
    /// A live overlay of this size is due to be frozen…
    overlay_due: u64,
    /// …and must not grow beyond this while the one before it is still being written.
    overlay_max: u64,
}

impl Budget {
    /// See [`TreeOptions::memory_bytes`].
    pub(super) fn of(memory_bytes: u64) -> Budget {
        Budget {
            redb_cache: memory_bytes / 16,
            node_cache: memory_bytes / 6,
            overlay_due: memory_bytes / 16,
            overlay_max: memory_bytes / 10,
        }
    }
}

/// So many commands after the last freeze the next one is due, however small the overlay: it bounds the log that
/// is kept and what a restart replays.
const COMMANDS_PER_CHECKPOINT_MAX: u64 = 500_000;

/// A position in the log.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct Position {
    /// Index of the entry.
    pub index: u64,
    /// Its term.
    pub term: u64,
}

/// What the overlay asks of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// Nothing.
    None,
    /// [`Tree::freeze`], at the next entry's end.
    CheckpointDue,
    /// Stop applying until the checkpoint that is being written is installed.
    Full,
}

/// What a checkpoint made superfluous. It may hold much memory: drop it where a wait of some 10 ms does no harm,
/// after the next snapshot is published.
pub struct Superseded {
    _frozen: Arc<Layer>,
}

/// Numbers that are kept up to date by apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Counters {
    pub(super) zxid: Zxid,
    /// Rows of table znodes.
    pub(super) znodes: u64,
    pub(super) ephemerals: u64,
    /// See [`Snapshot::data_bytes`].
    pub(super) data_bytes: u64,
    /// See [`Digest::znodes`].
    pub(super) digest: u64,
}

/// Writes refused since the tree was opened, by what refused them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    /// Data or path above the limits of [`crate::Rules`].
    pub limit: u64,
    /// A hard quota.
    pub quota: u64,
    /// The disk's reserve.
    pub growth: u64,
}

/// Everything that the operations of a multi change, and that is put back if one of them fails. A clone is O(1).
#[derive(Clone)]
pub(super) struct Working {
    pub(super) view: View,
    pub(super) acls: Acls,
    pub(super) quotas: Arc<Quotas>,
    pub(super) counters: Counters,
    pub(super) refusals: Refusals,
}

/// The znode tree.
///
/// Invariant: what was checkpointed ≤ position ≤ what is committed. After any method returned an error the tree
/// may hold half a change: the process must stop, or at least open the tree again.
pub struct Tree {
    pub(super) db: Arc<Database>,
    pub(super) working: Working,
    pub(super) sessions: Sessions,
    pub(super) conf_state: Vec<u8>,
    pub(super) roster: Roster,
    pub(super) store_id: u64,
    /// See [`Tree::disk`].
    pub(super) disk: u32,
    /// See [`Tree::begun`].
    pub(super) begun: Begun,
    /// See [`Tree::differs`].
    pub(super) differs: Option<Position>,
    pub(super) position: Position,
    /// Position of the last installed checkpoint.
    pub(super) checkpointed: Position,
    /// Raft's configuration there.
    pub(super) checkpointed_conf_state: Vec<u8>,
    /// Something of an entry is applied and the entry is not at its end.
    pub(super) mid_entry: bool,
    /// An error was returned.
    pub(super) failed: bool,
    pub(super) commands_since_freeze: u64,
    /// When warnings of each kind were last given, in the log's time.
    pub(super) warned_ms: [i64; 2],
    pub(super) hasher: FixedState,
    pub(super) budget: Budget,
}

impl Tree {
    /// Open `tree.redb` on `disk`; where there is none, create one that holds what a fresh ZooKeeper holds.
    pub fn open(disk: SharedDisk, options: TreeOptions) -> Result<Tree, TreeError> {
        checkpoint::open(&disk, options)
    }

    /// Names this copy of the tree, since it was created; a server that lost its data has another.
    pub fn store_id(&self) -> u64 {
        self.store_id
    }

    /// The last log position applied.
    pub fn position(&self) -> Position {
        self.position
    }

    /// The log position that is durable in `tree.redb`: the log up to it is no longer needed to restart.
    pub fn checkpointed(&self) -> Position {
        self.checkpointed
    }

    /// Raft's configuration as of [`Tree::checkpointed`]; empty when none was set before it.
    pub fn checkpointed_conf_state(&self) -> &[u8] {
        &self.checkpointed_conf_state
    }

    /// Makes streams of the newest checkpoint, on another thread if need be.
    pub fn exporter(&self) -> Exporter {
        Exporter(self.db.clone())
    }

    /// A stream of the newest checkpoint; see [`Exporter::export`].
    pub fn export(&self) -> Result<Export, TreeError> {
        self.exporter().export()
    }

    /// Raft's configuration as of [`Tree::position`], in the consensus' own encoding.
    pub fn conf_state(&self) -> &[u8] {
        &self.conf_state
    }

    /// Part of the next checkpoint.
    pub fn set_conf_state(&mut self, conf_state: Vec<u8>) {
        self.conf_state = conf_state;
    }

    /// The last zxid given to a write.
    pub fn zxid(&self) -> Zxid {
        self.working.counters.zxid
    }

    /// A `NewEpoch` entry: the zxid becomes (epoch + 1, 0).
    pub fn begin_epoch(&mut self) {
        assert!(!self.failed, "a tree is not used after an error");
        self.mid_entry = true;
        self.working.counters.zxid = Zxid::new(self.zxid().epoch() + 1, 0);
    }

    /// All of the log entry at `index` is applied.
    pub fn advance(&mut self, index: u64, term: u64) {
        assert!(!self.failed, "a tree is not used after an error");
        assert!(index > self.position.index, "entry {index} after {:?}", self.position);
        assert!(term >= self.position.term, "term {term} after {:?}", self.position);
        self.position = Position { index, term };
        self.mid_entry = false;
    }

    /// What is applied so far. O(1).
    pub fn snapshot(&self) -> Snapshot {
        assert!(!self.failed, "a tree is not used after an error");
        Snapshot(Arc::new(Frame {
            view: self.working.view.clone(),
            acls: self.working.acls.clone(),
            counters: self.working.counters,
            digest: self.digest(),
        }))
    }

    /// See [`Digest`].
    pub fn digest(&self) -> Digest {
        Digest {
            znodes: self.working.counters.digest,
            sessions: self.sessions.digest(),
            members: self.roster.digest(),
        }
    }

    /// Where the other servers found that this tree is not what the log makes, unless it was found since that it is. Another
    /// server's tree in its place ([`Tree::replace`]) has nothing of it.
    pub fn differs(&self) -> Option<Position> {
        self.differs
    }

    /// Note it. Durable when it returns; it waits for a checkpoint that is being written.
    ///
    /// # Errors
    /// When the store fails.
    pub fn set_differs(&mut self, differs: Option<Position>) -> Result<(), TreeError> {
        assert!(!self.failed, "a tree is not used after an error");
        checkpoint::write_differs(&self.db, differs)?;
        self.differs = differs;
        Ok(())
    }

    /// A session, while it is open.
    pub fn session(&self, id: SessionId) -> Option<&SessionRow> {
        self.sessions.get(id)
    }

    /// All open sessions, in no order.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, &SessionRow)> {
        self.sessions.iter()
    }

    /// Number of open sessions.
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// Bytes that the live overlay holds, approximately.
    pub fn overlay_bytes(&self) -> u64 {
        self.working.view.live.bytes
    }

    /// Bytes that the node cache holds, approximately.
    pub fn cache_bytes(&self) -> u64 {
        self.working.view.cache.bytes()
    }

    /// See [`Refusals`].
    pub fn refusals(&self) -> Refusals {
        self.working.refusals
    }

    /// Znodes looked up in `tree.redb` since the tree was opened.
    pub fn misses(&self) -> u64 {
        self.working.view.cache.misses()
    }

    /// To be asked after each entry.
    pub fn pressure(&self) -> Pressure {
        let bytes = self.working.view.live.bytes;
        if self.working.view.frozen.is_some() {
            if bytes >= self.budget.overlay_max { Pressure::Full } else { Pressure::None }
        } else if bytes >= self.budget.overlay_due
            || self.commands_since_freeze >= COMMANDS_PER_CHECKPOINT_MAX
        {
            Pressure::CheckpointDue
        } else {
            Pressure::None
        }
    }

    /// Begin a checkpoint of [`Tree::position`]; `None` while one is being written, and when nothing was applied
    /// since the last one. O(sessions and ACLs changed).
    ///
    /// # Panics
    /// Between two commands of one entry.
    pub fn freeze(&mut self) -> Option<Checkpoint> {
        assert!(!self.failed, "a tree is not used after an error");
        assert!(!self.mid_entry, "a checkpoint is taken between entries");
        let view = &mut self.working.view;
        if view.frozen.is_some() || self.position == self.checkpointed {
            return None;
        }
        let layer = Arc::new(std::mem::replace(&mut view.live, Layer::new(self.hasher.clone())));
        view.frozen = Some(layer.clone());
        self.commands_since_freeze = 0;
        Some(Checkpoint {
            db: self.db.clone(),
            cache: view.cache.clone(),
            number: view.base.number + 1,
            layer,
            sessions: self.sessions.take_dirty(),
            acls: self.working.acls.take_dirty(),
            head: self.head(),
        })
    }

    /// What a checkpoint of now says of itself.
    pub(super) fn head(&self) -> checkpoint::Head {
        checkpoint::Head {
            store_id: self.store_id,
            disk: self.disk,
            position: self.position,
            counters: self.working.counters,
            acl_next: self.working.acls.next(),
            conf_state: self.conf_state.clone(),
            roster: self.roster.clone(),
        }
    }

    /// A checkpoint is durable: snapshots from now on read it instead of what was frozen.
    ///
    /// # Panics
    /// When `written` is not from this tree's last [`Tree::freeze`].
    pub fn install(&mut self, written: Written) -> Superseded {
        let view = &mut self.working.view;
        assert_eq!(written.base.number, view.base.number + 1, "checkpoints are installed one after another");
        let frozen = view.frozen.take().expect("what is installed was frozen");
        assert!(written.position > self.checkpointed && written.position <= self.position);
        view.base = written.base;
        self.checkpointed = written.position;
        self.checkpointed_conf_state = written.conf_state;
        Superseded { _frozen: frozen }
    }
}

/// An empty cache of the budget's size.
pub(super) fn cache(budget: Budget, hasher: &FixedState) -> Arc<Cache> {
    Arc::new(Cache::new(budget.node_cache, hasher.clone()))
}
