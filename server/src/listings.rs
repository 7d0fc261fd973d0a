//! Names of children as they go on the wire, kept for who asks again: long lists are asked for far more often than they
//! change (ZooKeeper's response cache for getChildren).

use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use warren_storage::tree::Znode;

/// Shorter lists are not worth keeping.
const CHILDREN_MIN: u32 = 64;
/// Bytes kept, at most; beyond, all are forgotten and the next ones kept.
const BYTES_MAX: usize = 8 << 20;

/// Lists of names, encoded. Shared by all connections.
#[derive(Default)]
pub struct Listings {
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_path: HashMap<String, Listing, foldhash::fast::FixedState>,
    bytes: usize,
}

/// A list is the same as long as the znode is (czxid) and no child came or went (pzxid).
struct Listing {
    czxid: i64,
    pzxid: i64,
    names: Arc<[u8]>,
}

impl Listings {
    /// The encoded list of this znode's children, if it is kept.
    pub fn get(&self, path: &str, node: &Znode) -> Option<Arc<[u8]>> {
        if node.num_children < CHILDREN_MIN {
            return None;
        }
        let kept = self.kept.lock();
        let listing = kept.by_path.get(path)?;
        (listing.czxid == node.czxid && listing.pzxid == node.pzxid).then(|| listing.names.clone())
    }

    /// Keep it.
    pub fn keep(&self, path: &str, node: &Znode, names: &[u8]) {
        if node.num_children < CHILDREN_MIN || names.len() > BYTES_MAX / 2 {
            return;
        }
        let listing = Listing { czxid: node.czxid, pzxid: node.pzxid, names: names.into() };
        let mut kept = self.kept.lock();
        if let Some(old) = kept.by_path.remove(path) {
            kept.bytes -= old.names.len() + path.len();
        }
        let bytes = names.len() + path.len();
        if kept.bytes + bytes > BYTES_MAX {
            kept.by_path.clear();
            kept.bytes = 0;
        }
        kept.bytes += bytes;
        kept.by_path.insert(path.to_owned(), listing);
    }
}
