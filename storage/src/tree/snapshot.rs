//! Reading: the layers as one tree, and [`Snapshot`], which connection tasks read while apply goes on.

use super::acls::Acls;
use super::base::Base;
use super::cache::Cache;
use super::overlay::{IndexKey, IndexName, IndexRef, Layer, depth_group};
use super::state::Counters;
use super::{AclId, SharedAcl, TreeError, Znode};
use crate::{SessionId, Zxid, path};
use std::ops::Bound;
use std::sync::Arc;

/// The layers, newest first.
#[derive(Clone)]
pub(super) struct View {
    pub(super) live: Layer,
    /// Being written by a checkpoint.
    pub(super) frozen: Option<Arc<Layer>>,
    pub(super) base: Arc<Base>,
    pub(super) cache: Arc<Cache>,
}

impl View {
    /// What memory knows of `path`; `None`: nothing.
    #[allow(clippy::option_option, reason = "known to be absent is not unknown")]
    fn resident(&self, path: &str) -> Option<Option<Arc<Znode>>> {
        if let Some(node) = self.live.nodes.get(path) {
            return Some(node.clone());
        }
        if let Some(frozen) = &self.frozen
            && let Some(node) = frozen.nodes.get(path)
        {
            return Some(node.clone());
        }
        self.cache.get(path, self.base.number)
    }

    /// Is there a znode at `path`? The cache does not remember the answer: it is asked before a create, after
    /// which the overlay knows better.
    pub(super) fn exists(&self, path: &str) -> Result<bool, TreeError> {
        match self.resident(path) {
            Some(node) => Ok(node.is_some()),
            None => self.base.exists(path),
        }
    }

    /// The znode at `path`.
    pub(super) fn node(&self, path: &str) -> Result<Option<Arc<Znode>>, TreeError> {
        if let Some(node) = self.resident(path) {
            return Ok(node);
        }
        let node = self.base.node(path)?.map(Arc::new);
        self.cache.missed();
        // Clients ask for strings that are no paths; those are not worth remembering.
        if node.is_some() || path::validate(path).is_ok() {
            self.cache.insert(path, node.clone(), self.base.number);
        }
        Ok(node)
    }

    /// Tell `f` the paths of a group of an index which begin with `prefix`, from `from` on, in order, until it
    /// returns `false`.
    pub(super) fn scan(
        &self,
        name: IndexName,
        group: u64,
        prefix: &str,
        from: Bound<&str>,
        f: &mut dyn FnMut(&str) -> bool,
    ) -> Result<(), TreeError> {
        let (start, skip) = match from {
            Bound::Unbounded => (prefix, None),
            Bound::Included(path) => (path.max(prefix), None),
            Bound::Excluded(path) => (path.max(prefix), Some(path)),
        };
        fn of<'a>(layer: &'a Layer, name: IndexName, from: IndexRef<'_>) -> LayerScan<'a> {
            let mut entries = layer.index(name).range((Bound::Included(from), Bound::Unbounded));
            LayerScan { head: entries.next(), entries: Box::new(entries) }
        }
        let start = IndexRef { group, path: start };
        let within = |path: &str| path.starts_with(prefix);
        let mut live = of(&self.live, name, start);
        let mut frozen = self.frozen.as_deref().map(|layer| of(layer, name, start));
        let mut base = self.base.scan(name, group, start.path)?;
        let mut base_more = base.next()?.is_some_and(within);

        loop {
            let live_path = live.path(group).filter(|path| within(path));
            let frozen_path = frozen.as_ref().and_then(|scan| scan.path(group)).filter(|path| within(path));
            let base_path = base_more.then(|| base.path());
            let Some(path) = [live_path, frozen_path, base_path].into_iter().flatten().min() else {
                return Ok(());
            };
            // The newest layer that knows the path decides; the others step over it.
            let in_live = live_path == Some(path);
            let in_frozen = frozen_path == Some(path);
            let in_base = base_path == Some(path);
            let present = if in_live {
                live.present()
            } else if in_frozen {
                frozen.as_ref().is_some_and(LayerScan::present)
            } else {
                true
            };
            if present && skip != Some(path) && !f(path) {
                return Ok(());
            }
            if in_live {
                live.step();
            }
            if in_frozen && let Some(frozen) = &mut frozen {
                frozen.step();
            }
            if in_base {
                base_more = base.next()?.is_some_and(within);
            }
        }
    }

    /// Tell `f` the full path of each child of `path`, in order, until it returns `false`.
    pub(super) fn children(&self, path: &str, f: &mut dyn FnMut(&str) -> bool) -> Result<(), TreeError> {
        let prefix = below(path);
        self.scan(IndexName::Children, depth_group(path) + 1, &prefix, Bound::Unbounded, f)
    }

    /// Tell `f` every path below `path`, level by level. A level that is empty ends it, as every znode has a
    /// parent.
    pub(super) fn descendants(&self, path: &str, f: &mut dyn FnMut(&str)) -> Result<(), TreeError> {
        let prefix = below(path);
        for depth in depth_group(path) + 1.. {
            let mut found = false;
            self.scan(IndexName::Children, depth, &prefix, Bound::Unbounded, &mut |path| {
                found = true;
                f(path);
                true
            })?;
            if !found {
                break;
            }
        }
        Ok(())
    }
}

/// What the paths below `path` begin with.
fn below(path: &str) -> String {
    if path == "/" { String::from("/") } else { format!("{path}/") }
}

type LayerEntry<'a> = (&'a IndexKey, &'a bool);

struct LayerScan<'a> {
    head: Option<LayerEntry<'a>>,
    entries: Box<dyn Iterator<Item = LayerEntry<'a>> + 'a>,
}

impl<'a> LayerScan<'a> {
    fn path(&self, group: u64) -> Option<&'a str> {
        self.head.filter(|(key, _)| key.group == group).map(|(key, _)| key.path.as_str())
    }

    fn present(&self) -> bool {
        self.head.is_some_and(|(_, present)| *present)
    }

    fn step(&mut self) {
        self.head = self.entries.next();
    }
}

/// Two sums over everything that is replicated; equal log positions have equal ones on all servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Digest {
    /// ZooKeeper's tree digest, version 2.
    pub znodes: u64,
    /// The same for session rows.
    pub sessions: u64,
    /// The same for who belongs to the ensemble; 0 until that changes for the first time.
    pub members: u64,
}

/// The tree as it was at one zxid. Cheap to clone; never changes; keeps what it needs alive, so drop it when
/// it is superseded.
#[derive(Clone)]
pub struct Snapshot(pub(super) Arc<Frame>);

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Snapshot({})", self.zxid())
    }
}

/// What a [`Snapshot`] shares.
pub(super) struct Frame {
    pub(super) view: View,
    pub(super) acls: Acls,
    pub(super) counters: Counters,
    pub(super) digest: Digest,
}

impl Snapshot {
    /// The last zxid applied.
    pub fn zxid(&self) -> Zxid {
        self.0.counters.zxid
    }

    /// The znode at `path`; `None` where there is none. `path` is not checked: what is no path has no znode.
    ///
    /// May read the disk. The path stays in the node cache, so this is also how a path is fetched ahead of apply.
    pub fn node(&self, path: &str) -> Result<Option<Arc<Znode>>, TreeError> {
        self.0.view.node(path)
    }

    /// Tell `f` the name (not the path) of each child of `path`, in byte order, until it returns `false`. Nothing is
    /// told where there is no such znode.
    pub fn children(&self, path: &str, f: &mut dyn FnMut(&str) -> bool) -> Result<(), TreeError> {
        let skip = below(path).len();
        self.0.view.children(path, &mut |child| f(&child[skip..]))
    }

    /// The list that [`Znode::acl`] of a znode of this snapshot stands for.
    ///
    /// # Panics
    /// When the id is not from this snapshot.
    pub fn acl(&self, id: AclId) -> SharedAcl {
        self.0.acls.list(id)
    }

    /// Tell `f` the paths of the ephemerals of `session` which begin with `prefix`, in order, until it returns
    /// `false`.
    pub fn ephemerals(
        &self,
        session: SessionId,
        prefix: &str,
        f: &mut dyn FnMut(&str) -> bool,
    ) -> Result<(), TreeError> {
        self.0.view.scan(IndexName::Ephemerals, session as u64, prefix, Bound::Unbounded, f)
    }

    /// How many znodes are below `path`, as ZooKeeper's getAllChildrenNumber counts them.
    pub fn all_children_number(&self, path: &str) -> Result<u64, TreeError> {
        if path == "/" {
            return Ok(self.0.counters.znodes - 1);
        }
        let mut count = 0;
        self.0.view.descendants(path, &mut |_| count += 1)?;
        Ok(count)
    }

    /// Tell `f` containers and TTL nodes in order of their paths, beginning behind `after`, until it returns
    /// `false`; so the leader's sweeper goes on where it stopped.
    pub fn timed(
        &self,
        after: Option<&str>,
        f: &mut dyn FnMut(&str, &Znode) -> bool,
    ) -> Result<(), TreeError> {
        let mut failed = None;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.0.view.scan(IndexName::Timed, 0, "/", from, &mut |path| match self.node(path) {
            Ok(Some(node)) => f(path, &node),
            Ok(None) => {
                failed = Some(TreeError::damaged(format!("{path:?} is in table timed and no znode")));
                false
            }
            Err(error) => {
                failed = Some(error);
                false
            }
        })?;
        failed.map_or(Ok(()), Err)
    }

    /// Number of znodes as ZooKeeper prints it: its map holds the root twice, as `/` and as the empty path.
    pub fn node_count(&self) -> u64 {
        self.0.counters.znodes + 1
    }

    /// Number of different access control lists, the open one included.
    pub fn acl_count(&self) -> usize {
        self.0.acls.len()
    }

    /// Number of ephemerals.
    pub fn ephemeral_count(&self) -> u64 {
        self.0.counters.ephemerals
    }

    /// ZooKeeper's `approximate_data_size`: UTF-16 units of all paths plus bytes of all data.
    pub fn data_bytes(&self) -> u64 {
        self.0.counters.data_bytes
    }

    /// See [`Digest`].
    pub fn digest(&self) -> Digest {
        self.0.digest
    }
}
