//! The node cache: rows of `tree.redb` as they were at a checkpoint, decoded, within a bound in bytes.
//!
//! Many readers and one checkpoint at a time meet here. Let B(n) be `tree.redb` at checkpoint n. A reader whose
//! snapshot has base b may use an entry (path, value, c), read at checkpoint c, only if B(b)[path] = value.
//!
//! Each shard has a `current` checkpoint and keeps this invariant under its lock:
//! *value = B(c)[path], and no checkpoint in c+1 ..= current wrote path.*
//!
//! - **Insert** carries c and is refused unless c = current: a reader that was slow between its read from redb and
//!   its insert cannot bring back what a checkpoint has replaced meanwhile.
//! - **Advance** to n + 1, between the commit of checkpoint n + 1 and its installation, visits every path that the
//!   checkpoint wrote, replaces or removes its entry and sets `current`, one shard at a time, each atomically.
//! - **Hit**: accepted only when c ≤ b. As every shard advances to n + 1 before anybody gets a snapshot with base
//!   n + 1, b ≤ current always; so c ≤ b ≤ current and by the invariant B(b)[path] = B(c)[path] = value.
//!   While shards stand at different checkpoints a reader with base n meets entries with c = n + 1 in those that
//!   have advanced: they are refused (c > b), and such a path is found in its frozen overlay anyway.
//!
//! What a checkpoint wrote replaces the entry if there was one, and inherits its second chance, so that what is
//! hot stays hot and a flood of new znodes does not push it out.

use super::Znode;
use super::overlay::Layer;
use crate::ZPath;
use foldhash::fast::FixedState;
use parking_lot::RwLock;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A power of two; so many that readers on as many cores seldom meet.
const SHARDS: usize = 32;

/// Memory of an entry beside its path: map, slot, path header.
const ENTRY_OVERHEAD_BYTES: u64 = 48 + 40 + 16;

/// Memory of a znode beside its data: itself, and two headers of shared allocations.
const NODE_OVERHEAD_BYTES: u64 = size_of::<Znode>() as u64 + 32;

#[derive(Debug)]
pub(super) struct Cache {
    hasher: FixedState,
    shards: Box<[RwLock<Shard>]>,
    misses: AtomicU64,
}

#[derive(Debug)]
struct Shard {
    /// See the invariant above.
    current: u64,
    found: HashMap<ZPath, u32, FixedState>,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    /// The clock's hand: second chance for what was hit since it last came by.
    hand: usize,
    bytes: u64,
    bytes_max: u64,
}

#[derive(Debug)]
struct Slot {
    path: ZPath,
    /// `None`: there is no such znode, which is worth remembering for creates.
    node: Option<Arc<Znode>>,
    read_at: u64,
    hit: AtomicBool,
}

impl Slot {
    fn bytes(&self) -> u64 {
        let node = self.node.as_ref().map_or(0, |node| NODE_OVERHEAD_BYTES + node.data_bytes());
        ENTRY_OVERHEAD_BYTES + self.path.len() as u64 + node
    }
}

impl Cache {
    pub(super) fn new(bytes_max: u64, hasher: FixedState) -> Cache {
        let shard = |_| {
            RwLock::new(Shard {
                current: 0,
                found: HashMap::with_hasher(hasher.clone()),
                slots: Vec::new(),
                free: Vec::new(),
                hand: 0,
                bytes: 0,
                bytes_max: bytes_max / SHARDS as u64,
            })
        };
        Cache { shards: (0..SHARDS).map(shard).collect(), hasher, misses: AtomicU64::new(0) }
    }

    fn shard_number(&self, path: &str) -> usize {
        // Bits from the middle: the maps within the shards use both ends.
        (self.hasher.hash_one(path) >> 40) as usize % SHARDS
    }

    fn shard(&self, path: &str) -> &RwLock<Shard> {
        &self.shards[self.shard_number(path)]
    }

    /// What is remembered of `path`, for a reader whose snapshot has base `base`.
    #[allow(clippy::option_option, reason = "known to be absent is not unknown")]
    pub(super) fn get(&self, path: &str, base: u64) -> Option<Option<Arc<Znode>>> {
        let shard = self.shard(path).read();
        let slot = shard.slot(*shard.found.get(path)?);
        if slot.read_at > base {
            return None;
        }
        if !slot.hit.load(Ordering::Relaxed) {
            slot.hit.store(true, Ordering::Relaxed);
        }
        Some(slot.node.clone())
    }

    /// `path` was read from redb at checkpoint `read_at`.
    pub(super) fn insert(&self, path: &str, node: Option<Arc<Znode>>, read_at: u64) {
        let mut shard = self.shard(path).write();
        if shard.current == read_at {
            shard.put(Slot { path: ZPath::trusted(path), node, read_at, hit: AtomicBool::new(false) });
        }
    }

    /// Checkpoint `to`, which wrote `layer`, is durable and about to be installed.
    pub(super) fn advance(&self, to: u64, layer: &Layer) {
        let mut by_shard = vec![Vec::new(); SHARDS];
        for (path, node) in &layer.nodes {
            by_shard[self.shard_number(path)].push((path, node));
        }
        for (shard, written) in self.shards.iter().zip(by_shard) {
            let mut shard = shard.write();
            assert_eq!(shard.current + 1, to, "checkpoints reach the cache one after another");
            shard.current = to;
            for (path, node) in written {
                if let Some(old) = shard.remove(path) {
                    shard.put(Slot { path: path.clone(), node: node.clone(), read_at: to, hit: old.hit });
                }
            }
        }
    }

    /// Bytes held, approximately.
    pub(super) fn bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.read().bytes).sum()
    }

    /// A znode had to be looked up in the store.
    pub(super) fn missed(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }

    /// How often that was.
    pub(super) fn misses(&self) -> u64 {
        self.misses.load(Ordering::Relaxed)
    }
}

impl Shard {
    fn slot(&self, at: u32) -> &Slot {
        self.slots[at as usize].as_ref().expect("what is found has a slot")
    }

    /// Take `path` out, if it is there.
    fn remove(&mut self, path: &str) -> Option<Slot> {
        let at = self.found.remove(path)?;
        let slot = self.slots[at as usize].take().expect("what is found has a slot");
        self.bytes -= slot.bytes();
        self.free.push(at);
        Some(slot)
    }

    fn put(&mut self, slot: Slot) {
        let bytes = slot.bytes();
        if bytes > self.bytes_max {
            return;
        }
        self.remove(&slot.path);
        while self.bytes + bytes > self.bytes_max {
            self.evict_one();
        }
        self.bytes += bytes;
        let path = slot.path.clone();
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at as usize] = Some(slot);
                at
            }
            None => {
                self.slots.push(Some(slot));
                u32::try_from(self.slots.len() - 1)
                    .expect("a shard is bounded in bytes far below 2^32 entries")
            }
        };
        self.found.insert(path, at);
    }

    /// Advance the hand to something that was not hit since it last came by, and drop it.
    fn evict_one(&mut self) {
        assert!(!self.found.is_empty(), "what is over the bound holds something");
        loop {
            let at = self.hand;
            self.hand = (self.hand + 1) % self.slots.len();
            if let Some(slot) = &mut self.slots[at] {
                if !std::mem::take(slot.hit.get_mut()) {
                    let path = slot.path.clone();
                    self.remove(&path);
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::AclId;

    fn node(version: i32) -> Option<Arc<Znode>> {
        Some(Arc::new(Znode { version, ..Znode::primordial("/a", 0, AclId::OPEN, 0) }))
    }

    fn wrote(path: &str, node: Option<Arc<Znode>>) -> Layer {
        let mut layer = Layer::new(FixedState::with_seed(1));
        layer.put(path, node);
        layer
    }

    fn cache() -> Cache {
        Cache::new(1 << 20, FixedState::with_seed(1))
    }

    #[test]
    fn a_slow_reader_cannot_bring_back_what_a_checkpoint_replaced() {
        let cache = cache();
        // It read version 1 at checkpoint 0; then checkpoint 1 wrote version 2.
        cache.advance(1, &wrote("/a", node(2)));
        cache.insert("/a", node(1), 0);
        assert_eq!(cache.get("/a", 1), None);
    }

    #[test]
    fn an_entry_read_later_is_not_for_an_older_snapshot() {
        let cache = cache();
        cache.insert("/a", node(1), 0);
        cache.advance(1, &wrote("/a", node(2)));
        assert_eq!(cache.get("/a", 0), None);
        assert_eq!(cache.get("/a", 1), Some(node(2)));
    }

    #[test]
    fn an_untouched_entry_outlives_checkpoints_and_serves_old_and_new() {
        let cache = cache();
        cache.insert("/a", node(1), 0);
        cache.insert("/b", None, 0);
        cache.advance(1, &wrote("/c", node(2)));
        for base in [0, 1] {
            assert_eq!(cache.get("/a", base), Some(node(1)));
            assert_eq!(cache.get("/b", base), Some(None));
        }
    }

    #[test]
    fn bytes_stay_below_the_bound_and_what_is_hit_stays() {
        let cache = Cache::new(SHARDS as u64 * 4_000, FixedState::with_seed(1));
        cache.insert("/hot", node(1), 0);
        for i in 0..10_000 {
            assert!(cache.get("/hot", 0).is_some());
            cache.insert(&format!("/cold{i}"), node(0), 0);
            assert!(cache.bytes() <= SHARDS as u64 * 4_000);
        }
    }
}
