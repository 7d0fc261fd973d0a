//! Free space on the disk of the store: looked at from time to time, and by whoever is about to eat it.

use super::engine::Engine;
use crate::metrics::Metrics;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use warren_storage::SharedDisk;

/// A share of the reserve: when so much was written since the last look, there is another.
const RESERVE_SHARE: u64 = 32;

/// Below the reserve, writes that grow data are refused; above it again (with some room, so that it does not flap), they
/// are taken.
pub(super) struct Space {
    disk: SharedDisk,
    reserve_bytes: u64,
    metrics: Arc<Metrics>,
    refusing: Mutex<bool>,
    written_bytes: AtomicU64,
}

impl Space {
    pub(super) fn new(disk: SharedDisk, reserve_mb: u32, metrics: Arc<Metrics>) -> Space {
        let reserve_bytes = u64::from(reserve_mb) << 20;
        Space { disk, reserve_bytes, metrics, refusing: Mutex::new(false), written_bytes: AtomicU64::new(0) }
    }

    /// So much went to the disk. A client that writes fast eats a reserve between two looks of a timer, so here is the
    /// next one when a share of it may be gone.
    pub(super) fn wrote(&self, bytes: u64, engine: &Engine) {
        let written = self.written_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if written >= self.reserve_bytes / RESERVE_SHARE {
            self.look(engine);
        }
    }

    /// Is growth refused?
    pub(super) fn is_refusing(&self) -> bool {
        *self.refusing.lock()
    }

    /// Look now, and say what follows.
    pub(super) fn look(&self, engine: &Engine) {
        self.written_bytes.store(0, Ordering::Relaxed);
        let free = match self.disk.free_bytes() {
            Ok(free) => free,
            Err(e) => return tracing::warn!("cannot tell the free space: {e}"),
        };
        self.metrics.warren_disk_free_bytes.set(free as i64);
        let mut refusing = self.refusing.lock();
        let enough = self.reserve_bytes + if *refusing { self.reserve_bytes / 8 } else { 0 };
        if (free < enough) == *refusing {
            return;
        }
        *refusing = !*refusing;
        self.metrics.warren_disk_below_reserve.set(i64::from(*refusing));
        let (free_mb, reserve_mb) = (free >> 20, self.reserve_bytes >> 20);
        if *refusing {
            tracing::error!(
                free_mb,
                reserve_mb,
                "the disk is below its reserve: writes that grow data are refused; free some space"
            );
        } else {
            tracing::warn!(free_mb, "the disk has space again: all writes are taken");
        }
        engine.refuse_growth(*refusing);
    }
}
