//! The tree's digest at each 128th transaction, for the word `hash`: what an operator compares between servers.
//!
//! A server has those that it applied itself since its start; one that took a whole tree begins anew with it.

use parking_lot::Mutex;
use std::collections::VecDeque;
use warren_storage::Zxid;
use warren_storage::tree::Tree;

/// Transactions from one to the next; ZooKeeper's.
const EVERY: u32 = 128;

/// How many are kept, the newest; ZooKeeper's.
const KEPT_MAX: usize = 1_024;

/// See the module's text.
#[derive(Debug, Default)]
pub struct Digests(Mutex<VecDeque<(Zxid, u64)>>);

impl Digests {
    /// A transaction was applied, perhaps one that counts here.
    pub fn on_applied(&self, tree: &Tree) {
        if tree.zxid().counter() % EVERY == 0 {
            self.record(tree.zxid(), tree.digest().znodes);
        }
    }

    fn record(&self, zxid: Zxid, digest: u64) {
        let mut kept = self.0.lock();
        if kept.back().is_some_and(|(last, _)| *last >= zxid) {
            return;
        }
        if kept.len() == KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back((zxid, digest));
    }

    /// Another tree took this one's place.
    pub fn clear(&self) {
        self.0.lock().clear();
    }

    /// The oldest first.
    pub fn all(&self) -> Vec<(Zxid, u64)> {
        self.0.lock().iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_kept_each_once() {
        let digests = Digests::default();
        for n in 1..=KEPT_MAX as u32 + 2 {
            for _ in 0..2 {
                digests.record(Zxid::new(1, n * EVERY), u64::from(n));
            }
        }
        let all = digests.all();
        assert_eq!((all.len(), all[0]), (KEPT_MAX, (Zxid::new(1, 3 * EVERY), 3)));
        assert!(all.is_sorted());
        digests.clear();
        assert!(digests.all().is_empty());
    }
}
