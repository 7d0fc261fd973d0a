//! Free space on the disk of the store: looked at from time to time, and by whoever is about to eat it.

use super::engine::Engine;
use crate::retention::Retention;
use crate::room::Room;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use warren_storage::Disk as _;
use warren_storage::io::FolderDisk;
use warren_storage::tree;

/// A share of the reserve: when so much was written since the last look, there is another.
const RESERVE_SHARE: u64 = 32;
/// A share of the reserve: set aside as a file, for what is under way when others fill the disk.
const SET_ASIDE_SHARE: u64 = 4;
/// A share of the reserve: less than this must not be free on the disk itself, however much is free in the tree's file. The
/// log needs it, and a checkpoint before what it replaces is free.
const FLOOR_SHARE: u64 = 2;
/// A share of the reserve: with so much more than needed growth is taken again, so that it does not flap.
const MARGIN_SHARE: u64 = 8;

/// What a znode's row and its entries in indexes take beside path and data, bytes.
const ROW_BYTES: u64 = 128;
/// Pages are half full at least.
const FILL_SHARE: u64 = 2;

/// Below the reserve, writes that grow data are refused; above it again they are taken.
pub(super) struct Space {
    disk: Arc<FolderDisk>,
    room: Arc<Room>,
    reserve_bytes: u64,
    refusing: Mutex<bool>,
    /// So much more than the reserve is free on the disk itself, bytes.
    above_reserve_bytes: AtomicU64,
    written_bytes: AtomicU64,
    /// [`Space::rows_bytes`] as of the last checkpoint: what was deleted since is not free in the tree's file yet.
    checkpointed_bytes: AtomicU64,
}

/// What there is, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Free {
    /// On the disk, what is set aside included.
    disk: u64,
    /// In the tree's file.
    tree: u64,
}

impl Space {
    pub(super) fn new(disk: Arc<FolderDisk>, reserve_mb: u32, room: Arc<Room>) -> Space {
        disk.wait_for_space();
        let reserve_bytes = u64::from(reserve_mb) << 20;
        let free_bytes = disk.free_bytes().unwrap_or(0);
        let space = Space {
            disk,
            room,
            reserve_bytes,
            refusing: Mutex::new(false),
            above_reserve_bytes: AtomicU64::new(free_bytes.saturating_sub(reserve_bytes)),
            written_bytes: AtomicU64::new(0),
            checkpointed_bytes: AtomicU64::new(0),
        };
        space.checkpointed_bytes.store(space.rows_bytes(), Ordering::Relaxed);
        space
    }

    /// A checkpoint was written, in which there was so much of [`Space::rows_bytes`].
    pub(super) fn checkpointed(&self, rows_bytes: u64, engine: &Engine) {
        self.checkpointed_bytes.store(rows_bytes, Ordering::Relaxed);
        self.look(engine);
    }

    /// So much went to the disk. A client that writes fast eats a reserve between two looks of a timer, so here is the
    /// next one when a share of it may be gone.
    pub(super) fn wrote(&self, bytes: u64, engine: &Engine) {
        let written = self.written_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if written >= self.reserve_bytes / RESERVE_SHARE {
            self.look(engine);
        }
    }

    /// Is so little free on the disk that the log must be kept short, whether growth is refused or not?
    pub(super) fn is_tight(&self) -> bool {
        self.above_reserve_bytes.load(Ordering::Relaxed) == 0
    }

    /// How much of the log stays.
    pub(super) fn retention(&self) -> Retention {
        Retention::with(self.above_reserve_bytes.load(Ordering::Relaxed))
    }

    /// Does a write wait for space?
    pub(super) fn waits(&self) -> bool {
        self.disk.reserve().is_waiting
    }

    /// Look now, and say what follows.
    pub(super) fn look(&self, engine: &Engine) {
        self.written_bytes.store(0, Ordering::Relaxed);
        let free = match self.disk.free_bytes() {
            Ok(disk) => Free { disk, tree: self.tree_free_bytes() },
            Err(e) => return tracing::warn!("cannot tell the free space: {e}"),
        };
        self.set_aside(free);
        let metrics = &self.room.metrics;
        metrics.warren_disk_free_bytes.set(free.disk as i64);
        metrics.warren_tree_free_bytes.set(free.tree as i64);
        self.above_reserve_bytes.store(free.disk.saturating_sub(self.reserve_bytes), Ordering::Relaxed);
        let mut refusing = self.refusing.lock();
        if refuses(free, self.reserve_bytes, *refusing) == *refusing {
            let deleted = self.checkpointed_bytes.load(Ordering::Relaxed).saturating_sub(self.rows_bytes());
            if *refusing && deleted >= self.reserve_bytes / MARGIN_SHARE {
                // Then it counts.
                engine.checkpoint_now();
            }
            return;
        }
        *refusing = !*refusing;
        metrics.warren_disk_below_reserve.set(i64::from(*refusing));
        let (free_mb, in_tree_mb, reserve_mb) = (free.disk >> 20, free.tree >> 20, self.reserve_bytes >> 20);
        if *refusing {
            tracing::error!(
                free_mb,
                in_tree_mb,
                reserve_mb,
                "the disk is below its reserve: writes that grow data are refused, unless a server that has space takes \
                 leadership over; free some space, or delete znodes"
            );
        } else {
            tracing::warn!(free_mb, in_tree_mb, "the disk has space again: all writes are taken");
        }
        engine.refuse_growth(*refusing);
    }

    /// Take back what was given to a full disk, once there is enough again.
    fn set_aside(&self, free: Free) {
        let bytes = self.reserve_bytes / SET_ASIDE_SHARE;
        let state = self.disk.reserve();
        if state.held_bytes < bytes && free.disk >= self.reserve_bytes / FLOOR_SHARE {
            match self.disk.keep_reserve(bytes) {
                Ok(()) => tracing::info!(mb = bytes >> 20, "space is set aside for a full disk"),
                Err(e) => tracing::debug!("no space is set aside for a full disk: {e}"),
            }
        }
        let metrics = &self.room.metrics;
        metrics.warren_disk_set_aside_bytes.set(self.disk.reserve().held_bytes as i64);
        metrics.warren_disk_waiting.set(i64::from(state.is_waiting));
    }

    /// Free pages in the tree's file, by a careful estimate: redb has no cheaper count than a walk over all of them.
    fn tree_free_bytes(&self) -> u64 {
        let rows_bytes = self.rows_bytes().max(self.checkpointed_bytes.load(Ordering::Relaxed));
        self.disk.occupied_bytes(tree::FILE).saturating_sub(FILL_SHARE * rows_bytes)
    }

    /// What the rows of all znodes take as they are now, about.
    pub(super) fn rows_bytes(&self) -> u64 {
        let snapshot = self.room.snapshot();
        snapshot.data_bytes() + ROW_BYTES * snapshot.node_count()
    }
}

/// Is growth refused, when it was or was not before?
fn refuses(free: Free, reserve_bytes: u64, before: bool) -> bool {
    let margin = if before { reserve_bytes / MARGIN_SHARE } else { 0 };
    free.disk + free.tree < reserve_bytes + margin || free.disk < reserve_bytes / FLOOR_SHARE + margin
}

#[cfg(test)]
mod tests {
    use super::{Free, refuses};

    #[test]
    fn growth_is_refused_below_the_reserve_and_taken_well_above_it() {
        let free = |disk, tree| Free { disk, tree };
        assert!(refuses(free(799, 0), 800, false));
        assert!(!refuses(free(800, 0), 800, false));
        assert!(refuses(free(899, 0), 800, true), "not yet");
        assert!(!refuses(free(900, 0), 800, true));
    }

    #[test]
    fn what_is_free_in_the_tree_counts_as_long_as_the_log_has_room() {
        let free = |disk, tree| Free { disk, tree };
        assert!(!refuses(free(500, 300), 800, false));
        assert!(!refuses(free(500, 400), 800, true), "deletes end a refusal");
        assert!(refuses(free(399, 10_000), 800, false), "the log needs the disk itself");
        assert!(refuses(free(499, 10_000), 800, true));
    }
}
