//! What is applied and not yet in `tree.redb`: persistent maps, so that a snapshot is a clone.
//!
//! Cloning is O(1); an update copies the few map nodes that a clone still shares. So a batch pays once for each
//! map node it touches, and readers never wait for the writer.

use super::Znode;
use crate::ZPath;
use crate::path;
use equivalent::{Comparable, Equivalent};
use foldhash::fast::FixedState;
use imbl::shared_ptr::DefaultSharedPtr;
use std::cmp::Ordering;
use std::sync::Arc;

/// Path → what it is now; `None`: deleted.
pub(super) type NodeMap = imbl::GenericHashMap<ZPath, Option<Arc<Znode>>, FixedState, DefaultSharedPtr>;

/// Index entry → present (`true`) or removed (`false`).
pub(super) type IndexMap = imbl::OrdMap<IndexKey, bool>;

/// An entry of one of the three index tables.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct IndexKey {
    /// Depth, session or 0; see `tables.rs`.
    pub(super) group: u64,
    pub(super) path: ZPath,
}

/// [`IndexKey`], borrowed.
#[derive(Clone, Copy)]
pub(super) struct IndexRef<'a> {
    pub(super) group: u64,
    pub(super) path: &'a str,
}

impl Equivalent<IndexKey> for IndexRef<'_> {
    fn equivalent(&self, key: &IndexKey) -> bool {
        self.group == key.group && *self.path == *key.path
    }
}

impl Comparable<IndexKey> for IndexRef<'_> {
    fn compare(&self, key: &IndexKey) -> Ordering {
        self.group.cmp(&key.group).then_with(|| self.path.cmp(key.path.as_str()))
    }
}

/// Which of the three indexes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IndexName {
    Children,
    Ephemerals,
    Timed,
}

/// The group in the children index under which `path` is found.
pub(super) fn depth_group(path: &str) -> u64 {
    if path.len() == 1 { 0 } else { path.bytes().filter(|b| *b == b'/').count() as u64 }
}

/// One overlay.
#[derive(Clone)]
pub(super) struct Layer {
    pub(super) nodes: NodeMap,
    pub(super) children: IndexMap,
    pub(super) ephemerals: IndexMap,
    pub(super) timed: IndexMap,
    /// What all this holds of memory, approximately.
    pub(super) bytes: u64,
}

/// Memory of a map entry and its share of map nodes, of the path, and of the znode without its data; measured
/// with a million znodes (see the `tree_cost` example).
const NODE_OVERHEAD_BYTES: u64 = 48 + 16 + 24 + (size_of::<Znode>() as u64 + 32);

/// Memory of an index entry, which shares its path with the node map in the common case.
const INDEX_OVERHEAD_BYTES: u64 = 64;

fn node_bytes(path: &str, node: &Option<Arc<Znode>>) -> u64 {
    NODE_OVERHEAD_BYTES + path.len() as u64 + node.as_ref().map_or(0, |node| node.data_bytes() + 32)
}

impl Layer {
    pub(super) fn new(hasher: FixedState) -> Layer {
        Layer {
            nodes: NodeMap::with_hasher(hasher),
            children: IndexMap::new(),
            ephemerals: IndexMap::new(),
            timed: IndexMap::new(),
            bytes: 0,
        }
    }

    /// `path` is `node` now.
    pub(super) fn put(&mut self, path: &str, node: Option<Arc<Znode>>) {
        self.bytes += node_bytes(path, &node);
        if let Some(slot) = self.nodes.get_mut(path) {
            self.bytes -= node_bytes(path, slot);
            *slot = node;
        } else {
            self.nodes.insert(ZPath::trusted(path), node);
        }
    }

    /// As [`Layer::put`], when the caller has an owned path that the indexes may share.
    pub(super) fn put_owned(&mut self, path: &ZPath, node: Option<Arc<Znode>>) {
        self.bytes += node_bytes(path, &node);
        if let Some(old) = self.nodes.insert(path.clone(), node) {
            self.bytes -= node_bytes(path, &old);
        }
    }

    pub(super) fn index(&self, name: IndexName) -> &IndexMap {
        match name {
            IndexName::Children => &self.children,
            IndexName::Ephemerals => &self.ephemerals,
            IndexName::Timed => &self.timed,
        }
    }

    /// The entry (`group`, `path`) of an index is present, or removed.
    pub(super) fn set_index(&mut self, name: IndexName, group: u64, path: &ZPath, present: bool) {
        let index = match name {
            IndexName::Children => &mut self.children,
            IndexName::Ephemerals => &mut self.ephemerals,
            IndexName::Timed => &mut self.timed,
        };
        if index.insert(IndexKey { group, path: path.clone() }, present).is_none() {
            self.bytes += INDEX_OVERHEAD_BYTES;
        }
    }
}

/// The textual parent, where `""`, ZooKeeper's alias of the root, is the root.
pub(super) fn parent_path(path: &str) -> &str {
    path::parent_of(path).expect("every znode but the root has a parent")
}
