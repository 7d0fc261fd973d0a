//! What connections and service share: the published snapshot, the watches, the counters.

use crate::listings::Listings;
use crate::metrics::Metrics;
use crate::watches::Watches;
use parking_lot::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use warren_storage::Zxid;
use warren_storage::tree::Snapshot;

/// One server's shared state.
pub struct Room {
    published: RwLock<Option<Snapshot>>,
    zxid: AtomicU64,
    serving: AtomicBool,
    stopping: AtomicBool,
    growth_refused: AtomicBool,
    /// Who waits for which znode.
    pub watches: Watches,
    /// What was done, for operators.
    pub metrics: Arc<Metrics>,
    /// Long lists of children, encoded.
    pub listings: Listings,
    outstanding_bytes: AtomicI64,
    next_token: AtomicU64,
}

impl Room {
    /// An empty room; the service publishes the first snapshot.
    pub fn new(hash_seed: u64, metrics: Arc<Metrics>) -> Room {
        Room {
            published: RwLock::new(None),
            zxid: AtomicU64::new(0),
            serving: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            growth_refused: AtomicBool::new(false),
            watches: Watches::new(hash_seed, metrics.clone()),
            metrics,
            listings: Listings::default(),
            outstanding_bytes: AtomicI64::new(0),
            next_token: AtomicU64::new(0),
        }
    }

    /// Let everybody read this snapshot.
    pub fn publish(&self, snapshot: Snapshot) {
        let zxid = snapshot.zxid();
        let old = {
            let mut published = self.published.write();
            let old = published.replace(snapshot);
            self.zxid.store(zxid.0, Ordering::Release);
            old
        };
        // The old one may be the last that holds a large overlay: it is dropped outside the lock.
        drop(old);
    }

    /// A number that this process gives once.
    pub fn next_token(&self) -> u64 {
        self.next_token.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// So many more requests (or fewer) are taken and not answered.
    pub fn outstanding(&self, requests: i64, bytes: i64) {
        self.metrics.outstanding_requests.add(requests);
        self.outstanding_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of requests taken and not answered, now.
    pub fn outstanding_bytes(&self) -> i64 {
        self.outstanding_bytes.load(Ordering::Relaxed)
    }

    /// The tree as of the last publication.
    pub fn snapshot(&self) -> Snapshot {
        self.published.read().clone().expect("the service publishes before anybody connects")
    }

    /// The zxid of the last publication. A snapshot taken after this call is at it or later.
    pub fn zxid(&self) -> Zxid {
        Zxid(self.zxid.load(Ordering::Acquire))
    }

    /// May clients be served? False before the first leader's epoch has begun and once a stop has begun.
    pub fn is_serving(&self) -> bool {
        self.serving.load(Ordering::Acquire)
    }

    /// Has a stop begun? Nobody is served from then on.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Begin to stop.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.set_serving(false);
    }

    /// Is the disk below its reserve? Then what would grow data is refused where it comes in, and not even logged:
    /// the log must not eat the reserve.
    pub fn is_growth_refused(&self) -> bool {
        self.growth_refused.load(Ordering::Relaxed)
    }

    /// Say whether what grows data is refused.
    pub fn set_growth_refused(&self, refused: bool) {
        self.growth_refused.store(refused, Ordering::Relaxed);
    }

    /// Say whether clients may be served.
    pub fn set_serving(&self, serving: bool) {
        self.serving.store(serving, Ordering::Release);
    }
}
