//! Who waits for changes of which znode: step ⑪ of the walk.
//!
//! Two tables as in ZooKeeper: *data* watches (exists, getData, and everything persistent) and *child* watches
//! (getChildren, and what is persistent but not recursive). A watcher is a connection; its modes on one path add
//! up, and it gets one event a change however many modes match.
//!
//! **Arming and firing race**, because reads are answered on the connection's own task from an immutable
//! snapshot while the service applies. A connection reads at snapshot z without a lock; [`Watches::arm`] then
//! takes the path's lock and registers only when no change after z is known there. Apply records each change and
//! fires under the same lock before the snapshot that shows it is published. So either the change comes first and
//! the connection must read again, or the watch comes first and fires. Recursive watches have no path of their
//! own to lock for what happens below them, so they are armed by the service between batches.

use crate::mailbox::{Item, Mailbox};
use crate::metrics::Metrics;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use warren_storage::tree::{Change, ChangeKind};
use warren_storage::{Acl, ZPath, Zxid};
use warren_transport::EventType;
use warren_transport::request::WatcherType;

/// Independent locks.
const SHARDS: usize = 64;
/// Paths of a shard are told apart by this many of their hashes when a connection asks for the last change of one, before it
/// arms a watch. Where two have the same, it reads again for nothing.
const MARKS: usize = 64;

/// An event on its way to a connection.
#[derive(Clone, Debug)]
pub struct Notice {
    /// What happened.
    pub kind: EventType,
    /// To which znode.
    pub path: ZPath,
    /// Its ACL at that time: the event is delivered only to who may read.
    pub acl: Arc<[Acl]>,
}

/// How a watch is set; a bit set of these stands in each table.
pub mod mode {
    /// Fires once.
    pub const STANDARD: u8 = 1;
    /// Stays.
    pub const PERSISTENT: u8 = 2;
    /// Stays, and fires for everything below too.
    pub const RECURSIVE: u8 = 4;
}

/// Which table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Of exists and getData.
    Data,
    /// Of getChildren.
    Child,
}

/// How one connection watches one path, in either table; see [`mode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Modes {
    /// In [`Table::Data`].
    pub data: u8,
    /// In [`Table::Child`].
    pub child: u8,
}

/// Modes meant by a type of watcher, in the data table and in the child table.
fn modes_of(kind: WatcherType) -> (u8, u8) {
    match kind {
        WatcherType::Children => (0, mode::STANDARD),
        WatcherType::Data => (mode::STANDARD, 0),
        WatcherType::Any => (u8::MAX, u8::MAX),
        WatcherType::Persistent => (mode::PERSISTENT, mode::PERSISTENT),
        WatcherType::PersistentRecursive => (mode::RECURSIVE, 0),
    }
}

/// Whether a watch could be armed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Armed {
    /// It stands, and fires for every change after the snapshot.
    Yes,
    /// The znode changed after the snapshot: read again.
    ReadAgain,
}

/// Connections that got the event already.
type Told = HashSet<u64, foldhash::fast::FixedState>;

/// One connection's interest in one path.
struct Watcher {
    mailbox: Arc<Mailbox>,
    modes: u8,
}

struct Shard {
    data: HashMap<ZPath, Vec<Watcher>, foldhash::fast::FixedState>,
    child: HashMap<ZPath, Vec<Watcher>, foldhash::fast::FixedState>,
    /// The last change of the paths of each hash, as each table sees it.
    changed: [Changed; MARKS],
}

/// See [`Shard::changed`].
#[derive(Clone, Copy, Default)]
struct Changed {
    data: Zxid,
    child: Zxid,
}

impl Default for Shard {
    fn default() -> Shard {
        Shard { data: HashMap::default(), child: HashMap::default(), changed: [Changed::default(); MARKS] }
    }
}

/// Where a path is found: its shard, and its mark there.
#[derive(Clone, Copy)]
struct Place {
    shard: usize,
    mark: usize,
}

impl Shard {
    fn table(&mut self, table: Table) -> &mut HashMap<ZPath, Vec<Watcher>, foldhash::fast::FixedState> {
        match table {
            Table::Data => &mut self.data,
            Table::Child => &mut self.child,
        }
    }

    /// The last change of what has this mark.
    fn changed(&mut self, table: Table, mark: usize) -> &mut Zxid {
        let changed = &mut self.changed[mark];
        match table {
            Table::Data => &mut changed.data,
            Table::Child => &mut changed.child,
        }
    }
}

/// All watches of one server.
pub struct Watches {
    shards: Vec<Mutex<Shard>>,
    hasher: foldhash::fast::FixedState,
    recursive: AtomicUsize,
    count: AtomicI64,
    /// Connections that wait for the next publication.
    waiting: Mutex<Vec<Arc<Mailbox>>>,
    metrics: Arc<Metrics>,
}

impl Watches {
    /// No watches. The seed keeps clients from choosing which paths share a lock.
    pub fn new(hash_seed: u64, metrics: Arc<Metrics>) -> Watches {
        Watches {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: foldhash::fast::FixedState::with_seed(hash_seed),
            recursive: AtomicUsize::new(0),
            count: AtomicI64::new(0),
            waiting: Mutex::default(),
            metrics,
        }
    }

    /// How many watches stand (both tables), as `watch_count` tells it.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed).max(0) as usize
    }

    /// Is there none?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn place(&self, path: &str) -> Place {
        use std::hash::BuildHasher as _;
        let hash = self.hasher.hash_one(path) as usize;
        Place { shard: hash % SHARDS, mark: hash / SHARDS % MARKS }
    }

    fn shard(&self, path: &str) -> &Mutex<Shard> {
        &self.shards[self.place(path).shard]
    }

    /// Arm a one-shot watch for a read that was answered from the snapshot at `read_at`.
    pub fn arm(&self, table: Table, path: &ZPath, read_at: Zxid, mailbox: &Arc<Mailbox>) -> Armed {
        let place = self.place(path);
        let mut shard = self.shards[place.shard].lock();
        if *shard.changed(table, place.mark) > read_at {
            return Armed::ReadAgain;
        }
        self.add(shard.table(table), path, mode::STANDARD, mailbox);
        Armed::Yes
    }

    /// Arm a persistent watch. Called by the service between batches, so that nothing applied is unpublished.
    pub fn arm_persistent(&self, path: &ZPath, recursive: bool, mailbox: &Arc<Mailbox>) {
        let mut shard = self.shard(path).lock();
        if recursive {
            if self.add(shard.table(Table::Data), path, mode::RECURSIVE, mailbox) {
                self.recursive.fetch_add(1, Ordering::Relaxed);
            }
        } else {
            self.add(shard.table(Table::Data), path, mode::PERSISTENT, mailbox);
            self.add(shard.table(Table::Child), path, mode::PERSISTENT, mailbox);
        }
    }

    /// How the connection watches this path, if it does.
    pub fn modes(&self, path: &str, connection: u64) -> Option<Modes> {
        let mut shard = self.shard(path).lock();
        let mut of = |table| {
            let watchers = shard.table(table).get(path)?;
            watchers.iter().find(|w| w.mailbox.connection == connection).map(|w| w.modes)
        };
        let (data, child) = (of(Table::Data), of(Table::Child));
        (data.is_some() || child.is_some())
            .then(|| Modes { data: data.unwrap_or(0), child: child.unwrap_or(0) })
    }

    /// Arm what [`Watches::modes`] told, of a connection that goes on with another process. Before anything is applied: then
    /// nothing can be missed.
    pub fn arm_again(&self, path: &ZPath, modes: Modes, mailbox: &Arc<Mailbox>) {
        let mut shard = self.shard(path).lock();
        if modes.data != 0 {
            let new = self.add(shard.table(Table::Data), path, modes.data, mailbox);
            if new && modes.data & mode::RECURSIVE != 0 {
                self.recursive.fetch_add(1, Ordering::Relaxed);
            }
        }
        if modes.child != 0 {
            self.add(shard.table(Table::Child), path, modes.child, mailbox);
        }
    }

    /// Returns whether the mode is new.
    fn add(
        &self,
        table: &mut HashMap<ZPath, Vec<Watcher>, foldhash::fast::FixedState>,
        path: &ZPath,
        modes: u8,
        mailbox: &Arc<Mailbox>,
    ) -> bool {
        let watchers = table.entry(path.clone()).or_default();
        match watchers.iter_mut().find(|w| w.mailbox.connection == mailbox.connection) {
            Some(watcher) => {
                let new = watcher.modes & modes != modes;
                watcher.modes |= modes;
                new
            }
            None => {
                watchers.push(Watcher { mailbox: mailbox.clone(), modes });
                self.count.fetch_add(1, Ordering::Relaxed);
                true
            }
        }
    }

    /// Does the connection have such a watch (checkWatches)?
    pub fn contains(&self, path: &str, kind: WatcherType, connection: u64) -> bool {
        let (data, child) = modes_of(kind);
        let mut shard = self.shard(path).lock();
        [(Table::Data, data), (Table::Child, child)].into_iter().any(|(table, modes)| {
            shard.table(table).get(path).is_some_and(|watchers| {
                watchers.iter().any(|w| w.mailbox.connection == connection && w.modes & modes != 0)
            })
        })
    }

    /// Take such a watch away (removeWatches). False when there was none.
    pub fn remove(&self, path: &str, kind: WatcherType, connection: u64) -> bool {
        let (data, child) = modes_of(kind);
        let mut shard = self.shard(path).lock();
        let mut removed = false;
        for (table, modes) in [(Table::Data, data), (Table::Child, child)] {
            let table = shard.table(table);
            let Some(watchers) = table.get_mut(path) else { continue };
            if let Some(at) = watchers.iter().position(|w| w.mailbox.connection == connection) {
                let had = watchers[at].modes;
                watchers[at].modes &= !modes;
                removed |= watchers[at].modes != had;
                if had & modes & mode::RECURSIVE != 0 {
                    self.recursive.fetch_sub(1, Ordering::Relaxed);
                }
                if watchers[at].modes == 0 {
                    watchers.swap_remove(at);
                    self.count.fetch_sub(1, Ordering::Relaxed);
                }
            }
            if watchers.is_empty() {
                table.remove(path);
            }
        }
        removed
    }

    /// Does the connection still watch this path in any way?
    pub fn watches(&self, path: &str, connection: u64) -> bool {
        self.contains(path, WatcherType::Any, connection)
    }

    /// A change was applied: fire, before the snapshot that shows it is published (step ⑪). Who must be woken after
    /// that is added to `woken`.
    pub fn fire(&self, zxid: Zxid, change: &Change, woken: &mut Vec<Arc<Mailbox>>) {
        let parent = change.path.parent();
        match change.kind {
            ChangeKind::Created => {
                self.trigger(
                    Table::Data,
                    &change.path,
                    EventType::NodeCreated,
                    zxid,
                    &change.acl,
                    None,
                    woken,
                );
            }
            ChangeKind::DataChanged => {
                self.trigger(
                    Table::Data,
                    &change.path,
                    EventType::NodeDataChanged,
                    zxid,
                    &change.acl,
                    None,
                    woken,
                );
            }
            ChangeKind::Deleted => {
                // Whoever got the event from the data table does not get it again from the child table.
                let mut told = HashSet::default();
                let (path, acl) = (&change.path, &change.acl);
                self.trigger(Table::Data, path, EventType::NodeDeleted, zxid, acl, Some(&mut told), woken);
                self.trigger(Table::Child, path, EventType::NodeDeleted, zxid, acl, Some(&mut told), woken);
            }
        }
        if let Some(acl) = &change.parent_acl {
            if let Some(parent) = parent {
                let parent = ZPath::trusted(parent);
                self.trigger(Table::Child, &parent, EventType::NodeChildrenChanged, zxid, acl, None, woken);
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one event, spelled out")]
    fn trigger(
        &self,
        table: Table,
        path: &ZPath,
        kind: EventType,
        zxid: Zxid,
        acl: &Arc<[Acl]>,
        told: Option<&mut Told>,
        woken: &mut Vec<Arc<Mailbox>>,
    ) {
        // Within one path a connection stands once; only a second path or table can name it again.
        let ancestors = table == Table::Data && self.recursive.load(Ordering::Relaxed) > 0;
        let mut own = Told::default();
        let mut told = told.or_else(|| ancestors.then_some(&mut own));
        let mut count = 0;
        let mut send = |mailbox: &Arc<Mailbox>| {
            if told.as_mut().is_some_and(|told| !told.insert(mailbox.connection)) {
                return;
            }
            count += 1;
            if mailbox.put(zxid, Item::Event(Notice { kind, path: path.clone(), acl: acl.clone() })) {
                woken.push(mailbox.clone());
            }
        };
        {
            let place = self.place(path);
            let mut shard = self.shards[place.shard].lock();
            *shard.changed(table, place.mark) = zxid;
            let watchers = shard.table(table);
            if let Some(list) = watchers.get_mut(&**path) {
                list.retain_mut(|watcher| {
                    send(&watcher.mailbox);
                    watcher.modes &= !mode::STANDARD;
                    if watcher.modes == 0 {
                        self.count.fetch_sub(1, Ordering::Relaxed);
                    }
                    watcher.modes != 0
                });
                if list.is_empty() {
                    watchers.remove(&**path);
                }
            }
        }
        // Recursive watches stand in the data table of an ancestor.
        if ancestors {
            let mut at = path.parent();
            while let Some(ancestor) = at {
                let mut shard = self.shard(ancestor).lock();
                if let Some(list) = shard.data.get_mut(ancestor) {
                    list.iter().filter(|w| w.modes & mode::RECURSIVE != 0).for_each(|w| send(&w.mailbox));
                }
                at = warren_storage::path::parent_of(ancestor);
            }
        }
        if count > 0 {
            let tally = match kind {
                EventType::NodeCreated => &self.metrics.node_created_watch_count,
                EventType::NodeDeleted => &self.metrics.node_deleted_watch_count,
                EventType::NodeDataChanged => &self.metrics.node_changed_watch_count,
                EventType::NodeChildrenChanged => &self.metrics.node_children_watch_count,
            };
            tally.record(count);
        }
    }

    /// The connection is gone: forget its watches on these paths.
    pub fn forget<'a>(&self, connection: u64, paths: impl Iterator<Item = &'a ZPath>) {
        for path in paths {
            self.remove(path, WatcherType::Any, connection);
        }
    }

    /// Wake this connection after the next publication.
    pub fn wait_publication(&self, mailbox: &Arc<Mailbox>) {
        if mailbox.begin_wait() {
            self.waiting.lock().push(mailbox.clone());
        }
    }

    /// A snapshot was published: wake who waited for it.
    pub fn published(&self) {
        let waiting = std::mem::take(&mut *self.waiting.lock());
        for mailbox in waiting {
            mailbox.end_wait();
            mailbox.wake();
        }
    }

    /// Every watch: path, connection; for `wchc` and `wchp`.
    pub fn each(&self, mut f: impl FnMut(&ZPath, u64, Table)) {
        for shard in &self.shards {
            let shard = shard.lock();
            for (table, map) in [(Table::Data, &shard.data), (Table::Child, &shard.child)] {
                for (path, watchers) in map {
                    watchers.iter().for_each(|w| f(path, w.mailbox.connection, table));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_armed_only_where_nothing_changed_since_the_read() {
        let watches = Watches::new(7, Arc::default());
        let mailbox = Mailbox::new(1, Box::new(|| {}));
        let path = |n: u64| ZPath::parse(&format!("/a/{n}")).unwrap();
        let change = |n, kind, parent_acl| Change { path: path(n), kind, acl: acl(), parent_acl };
        for n in 1..=1_000 {
            watches.fire(Zxid(n), &change(n, ChangeKind::DataChanged, None), &mut Vec::new());
        }
        let arm = |table, path: &ZPath, read_at| watches.arm(table, path, Zxid(read_at), &mailbox);
        for n in 1..=1_000 {
            assert_eq!(arm(Table::Data, &path(n), n - 1), Armed::ReadAgain, "{n} changed at {n}");
            assert_eq!(arm(Table::Child, &path(n), 0), Armed::Yes, "and no child of it");
        }
        // Of those that did not change only few are taken for one that did.
        let taken = (2_000..3_000).filter(|n| arm(Table::Data, &path(*n), 0) == Armed::ReadAgain).count();
        assert!(taken < 400, "{taken} of 1,000, with 1,000 changes that spread over 4,096 marks");
        let parent = ZPath::parse("/a").unwrap();
        watches.fire(Zxid(2_000), &change(5_000, ChangeKind::Created, Some(acl())), &mut Vec::new());
        assert_eq!(arm(Table::Child, &parent, 1_999), Armed::ReadAgain);
        assert_eq!(arm(Table::Child, &parent, 2_000), Armed::Yes);
    }

    fn acl() -> Arc<[Acl]> {
        Acl::open().into()
    }
}
