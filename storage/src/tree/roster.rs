//! Who belongs to the ensemble, and with which stores: part of the tree, and so as of its position in the log.

use super::apply::{Applied, Change, ChangeKind, Outcome, Refusal, Reply, Write};
use super::{Position, Tree, TreeError, Znode, checkpoint};
use crate::command::{Rules, Table};
use crate::{Members, ZPath, Zxid};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where clients read who belongs to the ensemble.
const CONFIG: &str = "/zookeeper/config";

/// The part of the tree that only servers read.
#[derive(Clone, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Roster {
    pub(super) members: Members,
    /// Of servers that left: their last disk. Who comes back under such an id gets the next one.
    pub(super) retired: BTreeMap<u8, u32>,
    /// Servers that took part with their disk of now, and with which store.
    pub(super) stores: BTreeMap<u8, u64>,
}

impl Roster {
    /// 0 while the members are those that the ensemble began with, which take no zxid.
    pub(super) fn digest(&self) -> u64 {
        match self.members.version {
            0 => 0,
            _ => u64::from(crc32fast::hash(&checkpoint::encode(&(&self.members, &self.retired)))),
        }
    }

    /// Nobody is left: all are former members.
    pub(super) fn retire_all(&mut self) {
        let version = self.members.version;
        self.change(Members { version, servers: Vec::new() });
        self.members.version = 0;
        self.stores.clear();
    }

    fn change(&mut self, next: Members) {
        for old in &self.members.servers {
            let new = next.get(old.id);
            if new.is_none_or(|new| new.disk != old.disk) {
                self.stores.remove(&old.id);
            }
            if new.is_none() {
                self.retired.insert(old.id, old.disk);
            }
        }
        for new in &next.servers {
            self.retired.remove(&new.id);
        }
        self.members = next;
    }
}

/// Which copy of the tree this is: of which server's disk, and by which name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// See [`Tree::store_id`].
    pub store_id: u64,
    /// See [`Tree::disk`].
    pub disk: u32,
    /// See [`Begun::observes`].
    pub observes: bool,
}

/// As what a store took part for the first time: what must outlive a crash before its log has anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Begun {
    /// It votes in no term before this one, the term in which a committed log had recorded it; 0 for a founder.
    pub term: u64,
    /// As an observer: it has no vote before the log records it.
    pub observes: bool,
    /// Of a founder: the stores of the other servers that it was going to found the ensemble with.
    pub founders: BTreeMap<u8, u64>,
}

impl Tree {
    /// Who belongs to the ensemble; nobody before it is founded, and where a server stands alone.
    pub fn members(&self) -> &Members {
        &self.roster.members
    }

    /// Of servers that left the ensemble: their last disk.
    pub fn retired(&self) -> &BTreeMap<u8, u32> {
        &self.roster.retired
    }

    /// Which of the server's disks this store is on, in the sense of [`crate::Member::disk`]; 0 until it takes part.
    pub fn disk(&self) -> u32 {
        self.disk
    }

    /// Store id and disk.
    pub fn identity(&self) -> Identity {
        Identity { store_id: self.store_id, disk: self.disk, observes: self.begun.observes }
    }

    /// As what this store took part first. Once a snapshot was put in its place, only whether it observes is left of it.
    pub fn begun(&self) -> &Begun {
        &self.begun
    }

    /// This store takes part from now on, as this disk, in this configuration of raft's. Durable when it returns.
    ///
    /// # Panics
    /// When it took part before, or holds anything.
    pub fn take_part(&mut self, disk: u32, conf_state: Vec<u8>, begun: Begun) -> Result<(), TreeError> {
        assert_eq!((self.disk, self.position.index), (0, 0), "a store takes part for the first time once");
        (self.disk, self.conf_state) = (disk, conf_state.clone());
        self.checkpointed_conf_state = conf_state;
        self.begun = begun;
        checkpoint::take_part(&self.db, &self.head(), &self.begun)
    }

    /// Which disk a server has that comes in next under this id: one that none of its name had before.
    pub fn next_disk(&self, server: u8) -> u32 {
        let now = self.roster.members.get(server).map(|member| member.disk);
        let last = now.max(self.roster.retired.get(&server).copied()).unwrap_or(0);
        last.saturating_add(1)
    }

    /// This store, which was made of a backup or of another system's data, takes part from now on: as this disk, in this
    /// configuration of raft's, and in an ensemble of these servers, unless it stands alone. Durable when it returns, at the
    /// position after the one that it had, so that a log which has not the new one is known for one to be begun anew
    /// ([`crate::recover`]).
    ///
    /// # Panics
    /// When it took part before, or holds nothing.
    pub fn take_part_with(
        &mut self,
        disk: u32,
        conf_state: Vec<u8>,
        table: Option<(i64, &Table)>,
    ) -> Result<(), TreeError> {
        assert!(self.disk == 0 && self.position.index > 0, "a store takes part for the first time once");
        (self.disk, self.conf_state) = (disk, conf_state);
        if let Some((time_ms, table)) = table {
            let zxid = self.zxid().next();
            self.working.counters.zxid = zxid;
            self.set_table(time_ms, zxid, table)?;
        }
        let Position { index, term } = self.position;
        self.advance(index + 1, term);
        self.checkpoint_now()
    }

    /// The store with which a server took part first; a later one is that of a server which lost its data.
    pub fn recorded_store(&self, server: u8) -> Option<u64> {
        self.roster.stores.get(&server).copied()
    }

    /// An `Introduce` entry: the first store recorded for a disk of a server stays.
    pub fn introduce(&mut self, server: u8, disk: u32, store_id: u64) {
        assert!(!self.failed, "a tree is not used after an error");
        // Before the ensemble's first entry, all are on their first disk.
        let members = &self.roster.members;
        let now = members.get(server).map(|member| member.disk);
        let founding = members.servers.is_empty() && disk == 1;
        if founding || now == Some(disk) {
            self.roster.stores.entry(server).or_insert(store_id);
        }
    }

    /// A `Found` entry: nothing happens when the ensemble was founded before.
    ///
    /// # Errors
    /// The store's only, as of [`Tree::apply`].
    pub fn found(&mut self, time_ms: i64, table: &Table) -> Result<Vec<Change>, TreeError> {
        if !self.roster.members.servers.is_empty() {
            return Ok(Vec::new());
        }
        self.set_table(time_ms, Zxid::ZERO, table).map(|(changes, _)| changes)
    }

    /// A `ForceQuorum` entry.
    ///
    /// # Errors
    /// The store's only, as of [`Tree::apply`].
    pub fn force_quorum(
        &mut self,
        time_ms: i64,
        epochs: u32,
        table: &Table,
    ) -> Result<Vec<Change>, TreeError> {
        let zxid = Zxid::new(self.zxid().epoch() + epochs.max(1), 0);
        self.working.counters.zxid = zxid;
        self.set_table(time_ms, zxid, table).map(|(changes, _)| changes)
    }

    /// A `Reconfigure` that was decided; it has its zxid.
    pub(super) fn reconfigure(&mut self, time_ms: i64, table: &Table) -> Result<Applied, TreeError> {
        let zxid = self.zxid();
        let (changes, reply) = self.set_table(time_ms, zxid, table)?;
        Ok(Applied { zxid: Some(zxid), outcome: Outcome::Done(reply), changes })
    }

    fn set_table(
        &mut self,
        time_ms: i64,
        zxid: Zxid,
        table: &Table,
    ) -> Result<(Vec<Change>, Reply), TreeError> {
        assert!(!self.failed, "a tree is not used after an error");
        self.mid_entry = true;
        let version = zxid.wire();
        self.roster.change(Members { version, ..table.members.clone() });
        let mut changes = Vec::new();
        let mut write = Write {
            working: &mut self.working,
            changes: &mut changes,
            warned_ms: &mut self.warned_ms,
            zxid: version,
            time_ms,
            rules: &Rules::default(),
            ids: &[],
            session: None,
        };
        let written = write.config(&format!("{}version={version:x}", table.lines));
        self.failed = written.is_err();
        match written {
            Ok(reply) => Ok((changes, reply)),
            Err(Refusal::Store(error)) => Err(error),
            Err(Refusal::Code(code)) => unreachable!("{CONFIG} is always there and may be set: {code}"),
        }
    }
}

impl Write<'_, '_> {
    /// As ZooKeeper does, with −1 for the version of the znode.
    fn config(&mut self, text: &str) -> Result<Reply, Refusal> {
        let node = self.existing(CONFIG)?;
        let data: Arc<[u8]> = Arc::from(text.as_bytes());
        let growth = data.len() as i64 - node.data_bytes() as i64;
        let stat = self.replace(
            CONFIG,
            &node,
            Znode { version: -1, mtime: self.time_ms, mzxid: self.zxid, data: Some(data.clone()), ..*node },
        );
        self.track_quota(CONFIG, growth, 0)?;
        self.changed(ZPath::trusted(CONFIG), ChangeKind::DataChanged, node.acl, None);
        Ok(Reply::Reconfigured { text: data, stat })
    }
}
