//! The tree while it is put together: a snapshot, and every transaction of the log behind it, by the rules of ZooKeeper's
//! `DataTree`.
//!
//! A snapshot is fuzzy, so a transaction may meet a tree that has it already. What then fails is passed over, and a
//! parent's cversion and pzxid only move up; so the end is what ZooKeeper had. It logged a digest of its tree with each
//! transaction (since 3.6), and these are compared.
//!
//! Paths and Stats are in memory, as they are looked up all the time; data lie elsewhere ([`Data`]).

use super::input::FileError;
use super::snapshot::SnapshotError;
use super::snapshot::TreeDigest;
use super::txn::{Header, Txn};
use foldhash::fast::FixedState;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use warren_storage::path::parent_of;
use warren_storage::tree::{Persisted, content_digest};
use warren_storage::{Acl, AclRef, Kind};

/// Memory of a znode beside its path, bytes: its entry in a map that is doubled when it is full, and the allocator's share.
const NODE_BYTES: u64 = 2 * (size_of::<Node>() as u64 + 16) + 16;
/// Memory of a session, or of an ephemeral's entry beside its path, bytes.
const ENTRY_BYTES: u64 = 64;
/// Memory of a line of an access control list, bytes, without its text.
const LINE_BYTES: u64 = 96;

/// Where data of znodes are put until they are written.
pub trait Data {
    /// Keep these bytes; where they are.
    ///
    /// # Errors
    /// The system's.
    fn keep(&mut self, bytes: &[u8]) -> io::Result<u64>;

    /// Bytes that were kept, from where they are.
    ///
    /// # Errors
    /// The system's.
    fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()>;
}

/// Why the tree cannot be put together here.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// It is too large.
    #[error(
        "the paths and Stats of this tree take more than {limit_mb} MiB of memory; give the import more by --memory-mb, if the \
         machine has it, or run it on one that has"
    )]
    Memory {
        /// The limit.
        limit_mb: u64,
    },
    /// Data cannot be put aside.
    #[error("the data cannot be put aside in the folder of the new store")]
    Data(#[source] io::Error),
}

/// A znode.
pub(super) struct Node {
    pub(super) stat: Persisted,
    /// Place in [`Fold::lists`], or one of the two below.
    pub(super) acl: u32,
    pub(super) children: u32,
    /// CRC-32 of path and data.
    pub(super) content: u32,
    /// Length of the data; [`NULL`].
    pub(super) length: u32,
    /// Where the data are.
    pub(super) at: u64,
}

/// Of a node without data, which is not the same as empty.
pub(super) const NULL: u32 = u32::MAX;
/// Everybody may do everything.
pub(super) const OPEN: u32 = u32::MAX;
/// A list that the snapshot does not have; the log gives it, as it came while the snapshot was written.
pub(super) const UNKNOWN: u32 = u32::MAX - 1;

impl Node {
    pub(super) fn data_bytes(&self) -> u64 {
        if self.length == NULL { 0 } else { u64::from(self.length) }
    }
}

/// What the comparison with ZooKeeper's own digests says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// There were none to compare with.
    Unknown,
    /// The trees were equal after this transaction, and after each one since that has a digest.
    Equal {
        /// The last one.
        zxid: i64,
    },
    /// They differ.
    Differs {
        /// Since this transaction.
        since: i64,
    },
    /// The log ends before the snapshot was finished, so that what is in it is of different times.
    Unfinished {
        /// The log was to go on up to this transaction.
        until: i64,
    },
}

/// What was passed over, and how much was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Transactions.
    pub transactions: u64,
    /// Creates of what was there, and changes of what was not: the snapshot had them, or had them no longer.
    pub passed_over: u64,
    /// Transactions whose zxid is not above the one before.
    pub out_of_order: u64,
    /// Places where zxids of an epoch are missing.
    pub gaps: u64,
    /// The first of them: behind this zxid.
    pub first_gap: Option<i64>,
}

type Map<K, V> = HashMap<K, V, FixedState>;

/// See the module's text.
pub struct Fold<D> {
    pub(super) nodes: Map<Box<str>, Node>,
    pub(super) sessions: BTreeMap<i64, i32>,
    /// By the owner, whatever kind it stands for.
    pub(super) owned: BTreeMap<i64, BTreeSet<Box<str>>>,
    pub(super) lists: Vec<Vec<Acl>>,
    ids: Map<Vec<Acl>, u32>,
    /// The snapshot's numbers of lists.
    known: Map<i64, u32>,
    pub(super) data: D,
    /// Of the last transaction, or the snapshot.
    pub(super) zxid: i64,
    pub(super) counts: Counts,
    digest: u64,
    /// From there on the tree is not fuzzy.
    target: Option<TreeDigest>,
    agreement: Agreement,
    bytes: u64,
    limit_bytes: u64,
}

/// Why a transaction is passed over.
struct PassedOver;

impl<D: Data> Fold<D> {
    /// Empty. `seed` is for the hash maps; memory beyond `limit_bytes` is refused.
    pub fn new(data: D, seed: u64, limit_bytes: u64) -> Fold<D> {
        let hasher = FixedState::with_seed(seed);
        Fold {
            nodes: Map::with_hasher(hasher.clone()),
            sessions: BTreeMap::new(),
            owned: BTreeMap::new(),
            lists: Vec::new(),
            ids: Map::with_hasher(hasher.clone()),
            known: Map::with_hasher(hasher),
            data,
            zxid: 0,
            counts: Counts::default(),
            digest: 0,
            target: None,
            agreement: Agreement::Unknown,
            bytes: 0,
            limit_bytes,
        }
    }

    /// The last zxid.
    pub fn zxid(&self) -> i64 {
        self.zxid
    }

    /// What was done.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// See [`Agreement`].
    pub fn agreement(&self) -> Agreement {
        match self.target {
            Some(target) => Agreement::Unfinished { until: target.zxid },
            None => self.agreement,
        }
    }

    /// Memory that this takes, approximately, bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn has_room(&self, more: u64) -> Result<(), FoldError> {
        if self.bytes.saturating_add(more) > self.limit_bytes {
            return Err(FoldError::Memory { limit_mb: self.limit_bytes >> 20 });
        }
        Ok(())
    }

    fn charge(&mut self, more: u64) -> Result<(), FoldError> {
        self.has_room(more)?;
        self.bytes += more;
        Ok(())
    }

    // --- a snapshot ---

    pub(super) fn session(&mut self, id: i64, timeout: i32) -> Result<(), FoldError> {
        if self.sessions.insert(id, timeout).is_none() {
            self.charge(ENTRY_BYTES)?;
        }
        Ok(())
    }

    pub(super) fn known_acl(&mut self, id: i64, list: Vec<Acl>) -> Result<(), FoldError> {
        let place = self.list(list)?;
        self.known.insert(id, place);
        self.charge(ENTRY_BYTES)
    }

    pub(super) fn has_root(&self) -> bool {
        self.nodes.contains_key("/")
    }

    /// A znode as the snapshot has it; the root's path is empty there.
    pub(super) fn load(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        acl: i64,
        stat: Persisted,
    ) -> Result<(), SnapshotError> {
        let wrong = |why: &str| Err(FileError::Tree(format!("{why}: {path:?}")).into());
        let own = if path.is_empty() { "/" } else { path };
        if !path.is_empty() {
            let parent = match path.rfind('/') {
                Some(0) => "/",
                Some(at) => &path[..at],
                None => return wrong("a path without a slash"),
            };
            match self.nodes.get_mut(parent) {
                Some(parent) => parent.children += 1,
                None => return wrong("a znode comes without its parent"),
            }
        }
        if self.nodes.contains_key(own) {
            return wrong("a znode comes twice");
        }
        let acl = match acl {
            -1 => OPEN,
            acl => self.known.get(&acl).copied().unwrap_or(UNKNOWN),
        };
        self.insert(own, data, acl, stat)?;
        Ok(())
    }

    /// As a ZooKeeper begins that has neither snapshot nor log.
    pub fn fresh(&mut self) -> Result<(), FoldError> {
        for path in ["/", "/zookeeper", "/zookeeper/quota"] {
            self.insert(path, Some(&[]), OPEN, Persisted::default())?;
        }
        Ok(())
    }

    /// The snapshot is whole, and named after `zxid`.
    pub fn loaded(&mut self, zxid: i64, digest: Option<TreeDigest>) {
        self.zxid = zxid;
        self.known.clear();
        // One of an older epoch was written when nothing changed.
        self.target = digest.filter(|digest| digest.zxid >= zxid);
        self.compare(zxid, None);
    }

    // --- the log ---

    /// Carry out a transaction; `digest` is the tree's after it, if the log says so.
    ///
    /// # Errors
    /// When it does not fit here; what ZooKeeper passes over is none.
    pub fn apply(&mut self, header: &Header, txn: &Txn<'_>, digest: Option<u64>) -> Result<(), FoldError> {
        self.counts.transactions += 1;
        self.follow(header.zxid);
        self.carry_out(header, txn)?;
        self.zxid = self.zxid.max(header.zxid);
        self.compare(header.zxid, digest);
        Ok(())
    }

    /// Is it the next one?
    fn follow(&mut self, zxid: i64) {
        let (epoch, counter) = (zxid >> 32, zxid as u32);
        if zxid <= self.zxid {
            self.counts.out_of_order += 1;
        } else if if epoch == self.zxid >> 32 { zxid != self.zxid + 1 } else { counter > 1 } {
            self.counts.gaps += 1;
            self.counts.first_gap.get_or_insert(self.zxid);
        }
    }

    fn carry_out(&mut self, header: &Header, txn: &Txn<'_>) -> Result<(), FoldError> {
        let done = match txn {
            Txn::Nothing => Ok(()),
            Txn::CreateSession { timeout } => {
                self.session(header.session, *timeout)?;
                Ok(())
            }
            Txn::CloseSession { paths } => {
                self.close(header.session, paths, header.zxid);
                Ok(())
            }
            Txn::Multi(operations) => {
                for operation in operations.clone() {
                    self.carry_out(header, &operation)?;
                }
                Ok(())
            }
            Txn::Create { path, data, acl, owner, parent_cversion } => {
                let acl = self.list_of(acl.as_deref())?;
                self.create(header, path, *data, acl, *owner, *parent_cversion)?
            }
            Txn::Delete { path } => self.delete(path, header.zxid),
            Txn::SetData { path, data, version } => self.set_data(header, path, *data, *version)?,
            Txn::SetAcl { path, acl, version } => {
                let acl = self.list_of(acl.as_deref())?;
                self.set_acl(path, acl, *version)
            }
        };
        if done.is_err() {
            self.counts.passed_over += 1;
        }
        Ok(())
    }

    fn create(
        &mut self,
        header: &Header,
        path: &str,
        data: Option<&[u8]>,
        acl: u32,
        owner: i64,
        parent_cversion: i32,
    ) -> Result<Result<(), PassedOver>, FoldError> {
        let Some(parent) = parent_of(path) else { return Ok(Err(PassedOver)) };
        let there = match self.nodes.get_mut(path) {
            Some(node) => {
                node.acl = acl;
                true
            }
            None => false,
        };
        let created = self.change(parent, |stat, children| {
            let cversion =
                if parent_cversion == -1 { stat.cversion.wrapping_add(1) } else { parent_cversion };
            if cversion > stat.cversion {
                (stat.cversion, stat.pzxid) = (cversion, header.zxid);
            }
            *children += u32::from(!there);
        });
        if created.is_err() || there {
            return Ok(Err(PassedOver));
        }
        let Header { zxid, time, .. } = *header;
        let stat = Persisted {
            czxid: zxid,
            mzxid: zxid,
            pzxid: zxid,
            ctime: time,
            mtime: time,
            owner,
            ..Persisted::default()
        };
        self.insert(path, data, acl, stat)?;
        Ok(Ok(()))
    }

    fn delete(&mut self, path: &str, zxid: i64) -> Result<(), PassedOver> {
        let parent = parent_of(path).ok_or(PassedOver)?;
        let there = self.nodes.contains_key(path);
        self.change(parent, |stat, children| {
            stat.pzxid = stat.pzxid.max(zxid);
            *children = children.saturating_sub(u32::from(there));
        })?;
        self.remove(path).ok_or(PassedOver)
    }

    /// Take out a znode, and nothing else.
    pub(super) fn remove(&mut self, path: &str) -> Option<()> {
        let node = self.nodes.remove(path)?;
        self.bytes -= NODE_BYTES + path.len() as u64;
        self.digest = self.digest.wrapping_sub(u64::from(node.stat.digest(path, node.content)));
        if let Some(paths) = self.owned.get_mut(&node.stat.owner) {
            if paths.remove(path) {
                self.bytes -= ENTRY_BYTES + path.len() as u64;
            }
            if paths.is_empty() {
                self.owned.remove(&node.stat.owner);
            }
        }
        Some(())
    }

    fn set_data(
        &mut self,
        header: &Header,
        path: &str,
        data: Option<&[u8]>,
        version: i32,
    ) -> Result<Result<(), PassedOver>, FoldError> {
        if !self.nodes.contains_key(path) {
            return Ok(Err(PassedOver));
        }
        self.put_data(path, data)?;
        Ok(self.change(path, |stat, _| {
            (stat.mzxid, stat.mtime, stat.version) = (header.zxid, header.time, version);
        }))
    }

    /// Other data for a znode that is there.
    pub(super) fn put_data(&mut self, path: &str, data: Option<&[u8]>) -> Result<(), FoldError> {
        let (length, at) = self.keep(data)?;
        let node = self.nodes.get_mut(path).expect("it was looked up");
        let old = node.stat.digest(path, node.content);
        (node.length, node.at, node.content) = (length, at, content_digest(path, data));
        let new = node.stat.digest(path, node.content);
        self.digest = self.digest.wrapping_sub(u64::from(old)).wrapping_add(u64::from(new));
        Ok(())
    }

    fn set_acl(&mut self, path: &str, acl: u32, version: i32) -> Result<(), PassedOver> {
        self.nodes.get_mut(path).ok_or(PassedOver)?.acl = acl;
        self.change(path, |stat, _| stat.aversion = version)
    }

    /// The session ends, and its ephemerals with it: those that the log names, and those that are there.
    pub(super) fn close(&mut self, session: i64, paths: &[&str], zxid: i64) {
        self.sessions.remove(&session);
        for path in paths {
            // What is not there was gone when the snapshot came to it.
            let _ = self.delete(path, zxid);
        }
        let owned: Vec<Box<str>> = self.owned.get(&session).into_iter().flatten().cloned().collect();
        for path in owned {
            let _ = self.delete(&path, zxid);
        }
    }

    // --- helpers ---

    /// Change what the digest depends on.
    fn change(
        &mut self,
        path: &str,
        change: impl FnOnce(&mut Persisted, &mut u32),
    ) -> Result<(), PassedOver> {
        let node = self.nodes.get_mut(path).ok_or(PassedOver)?;
        let old = node.stat.digest(path, node.content);
        change(&mut node.stat, &mut node.children);
        let new = node.stat.digest(path, node.content);
        self.digest = self.digest.wrapping_sub(u64::from(old)).wrapping_add(u64::from(new));
        Ok(())
    }

    pub(super) fn insert(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        acl: u32,
        stat: Persisted,
    ) -> Result<(), FoldError> {
        self.charge(NODE_BYTES + path.len() as u64)?;
        let (length, at) = self.keep(data)?;
        let content = content_digest(path, data);
        self.digest = self.digest.wrapping_add(u64::from(stat.digest(path, content)));
        if stat.owner != 0 && stat.owner != Kind::Container.owner() {
            self.charge(ENTRY_BYTES + path.len() as u64)?;
            self.owned.entry(stat.owner).or_default().insert(path.into());
        }
        self.nodes.insert(path.into(), Node { stat, acl, children: 0, content, length, at });
        Ok(())
    }

    fn keep(&mut self, data: Option<&[u8]>) -> Result<(u32, u64), FoldError> {
        match data {
            None => Ok((NULL, 0)),
            Some([]) => Ok((0, 0)),
            Some(data) => {
                let length = u32::try_from(data.len()).expect("data have a limit");
                Ok((length, self.data.keep(data).map_err(FoldError::Data)?))
            }
        }
    }

    fn list_of(&mut self, acl: Option<&[AclRef<'_>]>) -> Result<u32, FoldError> {
        match acl {
            None => Ok(OPEN),
            Some(list) => self.list(list.iter().map(|line| line.to_acl()).collect()),
        }
    }

    /// The place of a list; each is there once.
    pub(super) fn list(&mut self, list: Vec<Acl>) -> Result<u32, FoldError> {
        if list == Acl::open() {
            return Ok(OPEN);
        }
        if let Some(place) = self.ids.get(&list) {
            return Ok(*place);
        }
        let text = |line: &Acl| LINE_BYTES + (line.id.scheme.len() + line.id.id.len()) as u64;
        self.charge(2 * (ENTRY_BYTES + list.iter().map(text).sum::<u64>()))?;
        let place = u32::try_from(self.lists.len()).expect("memory ends before");
        self.lists.push(list.clone());
        self.ids.insert(list, place);
        Ok(place)
    }

    fn compare(&mut self, zxid: i64, logged: Option<u64>) {
        let wanted = match self.target {
            Some(target) if zxid < target.zxid => return,
            Some(target) => {
                self.target = None;
                if zxid == target.zxid { Some(target.digest) } else { logged }
            }
            None => logged,
        };
        let Some(wanted) = wanted else { return };
        self.agreement = match self.agreement {
            _ if wanted == self.digest => Agreement::Equal { zxid },
            Agreement::Differs { since } => Agreement::Differs { since },
            _ => Agreement::Differs { since: zxid },
        };
    }
}
