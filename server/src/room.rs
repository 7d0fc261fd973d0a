//! What connections and service share: the published snapshot, the watches, the counters.

use crate::digests::Digests;
use crate::listings::Listings;
use crate::metrics::Metrics;
use crate::watches::Watches;
use crate::words::Mode;
use parking_lot::RwLock;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use warren_storage::Zxid;
use warren_storage::tree::Snapshot;
use warren_transport::peer::ServerId;

/// Where a server stands in its ensemble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its id.
    pub server_id: ServerId,
    /// What it is. One that waits for the next leader is a follower.
    pub mode: Mode,
    /// Who leads, as far as it knows.
    pub leader: Option<ServerId>,
    /// raft's term that this is of.
    pub term: u64,
}

/// What the other servers have said of a checkpoint of this one's tree ([`crate::divergence`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Confirmation {
    /// A majority has what this server has, of then or of later: another server may take it.
    Confirmed,
    /// There is no majority for anything yet, and nobody contradicts.
    Awaited,
    /// Others have something else.
    Contradicted,
}

/// One server's shared state.
pub struct Room {
    published: RwLock<Option<Snapshot>>,
    zxid: AtomicU64,
    serving: AtomicBool,
    read_only: AtomicBool,
    stopping: AtomicBool,
    wrong: AtomicBool,
    confirmed: AtomicU64,
    contradicted: AtomicU64,
    growth_refused: AtomicBool,
    standing: RwLock<Standing>,
    contact_ms: AtomicU64,
    /// Who waits for which znode.
    pub watches: Watches,
    /// What was done, for operators.
    pub metrics: Arc<Metrics>,
    /// Long lists of children, encoded.
    pub listings: Listings,
    outstanding_bytes: AtomicI64,
    next_token: AtomicU64,
    sessions: AtomicUsize,
    run: OnceLock<(ServerId, u64)>,
    /// Of the tree, for operators.
    pub digests: Digests,
    checkpointed: AtomicU64,
    applied_us: AtomicU64,
}

impl Room {
    /// An empty room; the service publishes the first snapshot.
    pub fn new(hash_seed: u64, metrics: Arc<Metrics>) -> Room {
        Room {
            published: RwLock::new(None),
            zxid: AtomicU64::new(0),
            serving: AtomicBool::new(false),
            read_only: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            wrong: AtomicBool::new(false),
            confirmed: AtomicU64::new(0),
            contradicted: AtomicU64::new(0),
            growth_refused: AtomicBool::new(false),
            standing: RwLock::new(Standing { server_id: 0, mode: Mode::Standalone, leader: None, term: 0 }),
            contact_ms: AtomicU64::new(u64::MAX),
            watches: Watches::new(hash_seed, metrics.clone()),
            metrics,
            listings: Listings::default(),
            outstanding_bytes: AtomicI64::new(0),
            next_token: AtomicU64::new(0),
            sessions: AtomicUsize::new(0),
            run: OnceLock::new(),
            digests: Digests::default(),
            checkpointed: AtomicU64::new(0),
            applied_us: AtomicU64::new(0),
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

    /// Sessions of the tree as last published, and those that this server was asked for by then.
    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Say how many there are.
    pub fn set_sessions(&self, sessions: usize) {
        self.sessions.store(sessions, Ordering::Relaxed);
    }

    /// This server's id and run, see [`crate::consensus::Start::incarnation`].
    pub fn run(&self) -> (ServerId, u64) {
        *self.run.get().expect("the service says it before anybody connects")
    }

    /// Say which server and run this is; it stays so.
    pub fn set_run(&self, server_id: ServerId, incarnation: u64) {
        let _ = self.run.set((server_id, incarnation));
    }

    /// The zxid of the last durable checkpoint.
    pub fn checkpointed(&self) -> Zxid {
        Zxid(self.checkpointed.load(Ordering::Relaxed))
    }

    /// Say which it is.
    pub fn set_checkpointed(&self, zxid: Zxid) {
        self.checkpointed.store(zxid.0, Ordering::Relaxed);
    }

    /// When the newest batch of writes began to be applied, µs of the monotonic clock.
    pub fn applied_us(&self) -> u64 {
        self.applied_us.load(Ordering::Relaxed)
    }

    /// Say when that was.
    pub fn set_applied_us(&self, us: u64) {
        self.applied_us.store(us, Ordering::Relaxed);
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

    /// May clients be served? False before the first leader's epoch has begun here and once a stop has begun. Between two
    /// leaders they are: connections stay, reads are answered, and writes wait.
    pub fn is_serving(&self) -> bool {
        self.serving.load(Ordering::Acquire) && !self.is_stopping()
    }

    /// Is there no leader, and has there been none for so long that clients which accept it are served from what this
    /// server has? All other clients had better look for another server.
    pub fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::Acquire) && !self.is_stopping()
    }

    /// Say whether it is so.
    pub fn set_read_only(&self, read_only: bool) {
        self.read_only.store(read_only, Ordering::Release);
    }

    /// Is this server's tree not what the log makes ([`crate::divergence`])? Nobody is served from it then.
    pub fn is_wrong(&self) -> bool {
        self.wrong.load(Ordering::Acquire)
    }

    /// Say whether it is so.
    pub fn set_wrong(&self, wrong: bool) {
        self.wrong.store(wrong, Ordering::Release);
    }

    /// What the others say of this server's checkpoint behind the entry at `index`.
    pub fn confirmation(&self, index: u64) -> Confirmation {
        if self.is_wrong() {
            Confirmation::Contradicted
        } else if index <= self.confirmed.load(Ordering::Acquire) {
            Confirmation::Confirmed
        } else if self.contradicted.load(Ordering::Acquire) > 0 {
            Confirmation::Contradicted
        } else {
            Confirmation::Awaited
        }
    }

    /// Up to which entry this server's tree is known to be what the log makes.
    pub fn confirmed(&self) -> u64 {
        self.confirmed.load(Ordering::Acquire)
    }

    /// Say up to where it is: whoever contradicted before has been outvoted.
    pub fn set_confirmed(&self, index: u64) {
        self.confirmed.store(index, Ordering::Release);
        if self.contradicted.load(Ordering::Acquire) <= index {
            self.set_contradicted(0);
        }
    }

    /// Others have something else behind this entry, and no majority says who is right; 0: nobody has.
    pub fn set_contradicted(&self, index: u64) {
        self.contradicted.store(index, Ordering::Release);
    }

    /// Has a stop begun? Nobody is served from then on.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Begin to stop.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }

    /// Where this server stands in its ensemble.
    pub fn standing(&self) -> Standing {
        *self.standing.read()
    }

    /// Say where it stands.
    pub fn set_standing(&self, standing: Standing) {
        *self.standing.write() = standing;
    }

    /// The last moment, in ms of the monotonic clock, of which it is proven that no leader but the known one had begun
    /// by then; `u64::MAX` where there is but one voter. Sessions are cut off by it, see
    /// [`Pulse::is_cut_off`](crate::mailbox::Pulse::is_cut_off).
    pub fn contact_ms(&self) -> u64 {
        self.contact_ms.load(Ordering::Acquire)
    }

    /// Say when that was.
    pub fn set_contact_ms(&self, contact_ms: u64) {
        self.contact_ms.store(contact_ms, Ordering::Release);
    }

    /// Is the disk below its reserve? Then what would grow data is refused while this server leads, where it comes in, and not
    /// even logged: the log must not eat the reserve.
    pub fn is_growth_refused(&self) -> bool {
        self.growth_refused.load(Ordering::Relaxed)
    }

    /// Is what grows data refused here, at the door? Not where another server leads: that one decides, and has space.
    pub fn refuses_growth(&self) -> bool {
        self.is_growth_refused() && matches!(self.standing().mode, Mode::Leader | Mode::Standalone)
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
