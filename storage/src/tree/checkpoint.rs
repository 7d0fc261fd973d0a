//! A frozen overlay on its way into `tree.redb`, and the way back at start.
//!
//! One durable transaction holds the rows, the log position and everything else of the same moment, so that a
//! crash leaves either the old checkpoint or the new one, and replaying the log from its position repeats exactly
//! what is missing.

use super::acls::{AclRow, Acls};
use super::base::{Base, index_row};
use super::cache::Cache;
use super::error::Doing;
use super::overlay::{IndexMap, Layer, depth_group};
use super::quota::{self, Quotas, Role};
use super::roster::{Begun, Roster};
use super::sessions::Sessions;
use super::snapshot::View;
use super::state::{self, Budget, Counters, Refusals, Working};
use super::{AclId, Position, Tree, TreeError, TreeOptions, Znode, tables};
use crate::disk::{Boxed, SharedDisk};
use crate::{Acl, SessionId, SessionRow, Zxid};
use foldhash::fast::FixedState;
use redb::{
    Builder, Database, ReadTransaction, ReadableDatabase, ReadableTable, Table, TableDefinition, TableError,
    WriteTransaction,
};
use std::sync::Arc;

/// What belongs to a checkpoint beside rows.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct Head {
    pub(super) store_id: u64,
    pub(super) disk: u32,
    pub(super) position: Position,
    pub(super) counters: Counters,
    pub(super) acl_next: AclId,
    pub(super) conf_state: Vec<u8>,
    pub(super) roster: Roster,
}

/// A checkpoint to be written, on whatever thread. Dropping it unwritten leaves the tree without further
/// checkpoints.
#[must_use = "until it is written and installed there is no other checkpoint"]
pub struct Checkpoint {
    pub(super) db: Arc<Database>,
    pub(super) cache: Arc<Cache>,
    pub(super) number: u64,
    pub(super) layer: Arc<Layer>,
    pub(super) sessions: Vec<(SessionId, Option<SessionRow>)>,
    pub(super) acls: Vec<(u64, Option<AclRow>)>,
    pub(super) head: Head,
}

/// A checkpoint that is durable, for [`Tree::install`].
#[must_use = "memory is freed when it is installed"]
pub struct Written {
    pub(super) base: Arc<Base>,
    pub(super) position: Position,
    pub(super) conf_state: Vec<u8>,
}

impl Written {
    /// Raft's configuration there, in the consensus' own encoding.
    pub fn conf_state(&self) -> &[u8] {
        &self.conf_state
    }

    /// The log position that is durable now.
    pub fn position(&self) -> Position {
        self.position
    }
}

impl Checkpoint {
    /// Write it, wait until it is durable, and make the node cache ready for it.
    ///
    /// Blocks neither readers nor apply. After an error the file may hold the checkpoint or not: the process must
    /// stop, as after any failed sync.
    pub fn write(self) -> Result<Written, TreeError> {
        let mut write = self.db.begin_write().doing("begin a checkpoint")?;
        // So that opening after a crash does not walk the file.
        write.set_quick_repair(true);
        self.write_znodes(&write)?;
        write_index(&write, tables::CHILDREN, &self.layer.children)?;
        write_index(&write, tables::EPHEMERALS, &self.layer.ephemerals)?;
        write_index(&write, tables::TIMED, &self.layer.timed)?;
        {
            let mut table = write.open_table(tables::SESSIONS).doing("open table sessions")?;
            for (id, row) in &self.sessions {
                put(&mut table, *id, row.as_ref().map(encode).as_deref())?;
            }
            let mut table = write.open_table(tables::ACLS).doing("open table acls")?;
            for (id, row) in &self.acls {
                put(&mut table, *id, row.as_ref().map(encode).as_deref())?;
            }
        }
        write_head(&write, &self.head)?;
        write.commit().doing("commit a checkpoint")?;

        let base = Arc::new(Base::open(&self.db, self.number)?);
        self.cache.advance(self.number, &self.layer);
        Ok(Written { base, position: self.head.position, conf_state: self.head.conf_state })
    }

    fn write_znodes(&self, write: &WriteTransaction) -> Result<(), TreeError> {
        let mut table = write.open_table(tables::ZNODES).doing("open table znodes")?;
        let mut nodes: Vec<_> = self.layer.nodes.iter().collect();
        nodes.sort_unstable_by_key(|(path, _)| *path);
        let mut row = Vec::new();
        for (path, node) in nodes {
            match node {
                Some(node) => {
                    node.encode(&mut row);
                    table.insert(path.as_str(), row.as_slice()).doing("write a znode")?;
                }
                None => {
                    table.remove(path.as_str()).doing("remove a znode")?;
                }
            }
        }
        Ok(())
    }
}

fn write_index(
    write: &WriteTransaction,
    table: TableDefinition<'static, &'static [u8], ()>,
    entries: &IndexMap,
) -> Result<(), TreeError> {
    let mut table = write.open_table(table).doing("open an index")?;
    for (key, present) in entries {
        let row = index_row(key.group, &key.path);
        if *present {
            table.insert(row.as_slice(), ()).doing("write an index")?;
        } else {
            table.remove(row.as_slice()).doing("remove from an index")?;
        }
    }
    Ok(())
}

fn put<'k, K: redb::Key + 'static>(
    table: &mut Table<'_, K, &'static [u8]>,
    key: K::SelfType<'k>,
    row: Option<&[u8]>,
) -> Result<(), TreeError> {
    match row {
        Some(row) => table.insert(key, row).doing("write a row")?.map(drop),
        None => table.remove(key).doing("remove a row")?.map(drop),
    };
    Ok(())
}

pub(super) fn write_head(write: &WriteTransaction, head: &Head) -> Result<(), TreeError> {
    let mut meta = write.open_table(tables::META).doing("open table meta")?;
    meta.insert(tables::FORMAT_KEY, &tables::FORMAT.to_le_bytes()[..]).doing("write the format")?;
    meta.insert(tables::HEAD_KEY, encode(head).as_slice()).doing("write the head")?;
    Ok(())
}

/// As what the store takes part, see [`Tree::begun`].
pub(super) fn write_begun(write: &WriteTransaction, begun: &Begun) -> Result<(), TreeError> {
    let mut meta = write.open_table(tables::META).doing("open table meta")?;
    put(&mut meta, tables::BEGUN_KEY, Some(&encode(begun)))
}

/// Write the head anew, and as what the store takes part, durably and in one step, beside rows that stay as they are.
pub(super) fn take_part(db: &Database, head: &Head, begun: &Begun) -> Result<(), TreeError> {
    let mut write = db.begin_write().doing("begin to take part")?;
    write.set_quick_repair(true);
    write_head(&write, head)?;
    write_begun(&write, begun)?;
    write.commit().doing("commit that the store takes part")
}

/// Note durably that the tree differs from what the log makes, or that it does not.
pub(super) fn write_differs(db: &Database, differs: Option<Position>) -> Result<(), TreeError> {
    let mut write = db.begin_write().doing("begin to note that the tree differs")?;
    write.set_quick_repair(true);
    {
        let mut meta = write.open_table(tables::META).doing("open table meta")?;
        put(&mut meta, tables::DIFFERS_KEY, differs.as_ref().map(encode).as_deref())?;
    }
    write.commit().doing("commit that the tree differs")
}

/// See [`Tree::differs`].
fn differs_of(read: &ReadTransaction) -> Result<Option<Position>, TreeError> {
    let meta = read.open_table(tables::META).doing("open table meta")?;
    let row = meta.get(tables::DIFFERS_KEY).doing("read whether the tree differs")?;
    row.map(|row| decode("whether the tree differs", row.value())).transpose()
}

/// See [`Tree::begun`].
fn begun_of(read: &ReadTransaction) -> Result<Begun, TreeError> {
    let meta = read.open_table(tables::META).doing("open table meta")?;
    let row = meta.get(tables::BEGUN_KEY).doing("read as what the store takes part")?;
    let row = row.map(|row| decode("as what the store takes part", row.value())).transpose()?;
    Ok(row.unwrap_or_default())
}

pub(super) fn encode(row: &impl serde::Serialize) -> Vec<u8> {
    postcard::to_allocvec(row).expect("a row encodes into a growing buffer")
}

fn decode<T: serde::de::DeserializeOwned>(what: &str, row: &[u8]) -> Result<T, TreeError> {
    postcard::from_bytes(row).map_err(|error| TreeError::damaged(format!("{what}: {error}")))
}

/// Open or create.
pub(super) fn open(disk: &SharedDisk, options: TreeOptions) -> Result<Tree, TreeError> {
    let budget = Budget::of(options.memory_bytes);
    let hasher = FixedState::with_seed(options.hash_seed);
    let cache_bytes = usize::try_from(budget.redb_cache).unwrap_or(usize::MAX);
    let open_file = |name| -> Result<Database, TreeError> {
        let backend = Boxed(disk.open(name, 0)?);
        Builder::new().set_cache_size(cache_bytes).create_with_backend(backend).doing("open tree.redb")
    };
    let db = if disk.exists(tables::FILE)? {
        // An import that never came to its end.
        disk.remove(tables::UNFINISHED)?;
        open_file(tables::FILE)?
    } else {
        // Under another name until it is whole: redb does not open what a crash left of a file it had just begun.
        disk.remove(tables::UNFINISHED)?;
        let db = open_file(tables::UNFINISHED)?;
        create(&db, options.store_id)?;
        disk.rename(tables::UNFINISHED, tables::FILE)?;
        disk.sync_folder()?;
        db
    };
    let db = Arc::new(db);
    let read = db.begin_read().doing("begin to read")?;
    let head = head_of(&read)?.ok_or_else(|| TreeError::damaged("no table meta"))?;
    let differs = differs_of(&read)?;
    let begun = begun_of(&read)?;

    let mut acls = Acls::new(hasher.clone(), head.acl_next);
    let mut sessions = Sessions::new(hasher.clone());
    let table = read.open_table(tables::ACLS).doing("open table acls")?;
    for entry in table.iter().doing("read table acls")? {
        let (id, row) = entry.doing("read table acls")?;
        acls.load(id.value(), decode("a row of table acls", row.value())?);
    }
    let table = read.open_table(tables::SESSIONS).doing("open table sessions")?;
    for entry in table.iter().doing("read table sessions")? {
        let (id, row) = entry.doing("read table sessions")?;
        sessions.load(id.value(), decode("a row of table sessions", row.value())?);
    }

    let view = View {
        live: Layer::new(hasher.clone()),
        frozen: None,
        base: Arc::new(Base::open(&db, 0)?),
        cache: state::cache(budget, &hasher),
    };
    let mut quotas = Quotas::default();
    view.descendants(quota::ROOT, &mut |path| {
        if let Some(Role::Limits(of)) = quota::role(path) {
            quotas.insert(of);
        }
    })?;
    Ok(Tree {
        db,
        working: Working {
            view,
            acls,
            quotas: Arc::new(quotas),
            counters: head.counters,
            refusals: Refusals::default(),
        },
        sessions,
        conf_state: head.conf_state.clone(),
        roster: head.roster,
        store_id: head.store_id,
        disk: head.disk,
        begun,
        differs,
        position: head.position,
        checkpointed: head.position,
        checkpointed_conf_state: head.conf_state,
        mid_entry: false,
        failed: false,
        commands_since_freeze: 0,
        warned_ms: [i64::MIN; 2],
        hasher,
        budget,
    })
}

/// What the file says of itself; `None` for a new one.
pub(super) fn head_of(read: &ReadTransaction) -> Result<Option<Head>, TreeError> {
    let meta = match read.open_table(tables::META) {
        Err(TableError::TableDoesNotExist(_)) => return Ok(None),
        meta => meta.doing("open table meta")?,
    };
    let format = meta.get(tables::FORMAT_KEY).doing("read the format")?;
    let format = format.ok_or_else(|| TreeError::damaged("no format"))?;
    let format = format.value().try_into().map_err(|_| TreeError::damaged("the format is no number"))?;
    let found = u32::from_le_bytes(format);
    if found != tables::FORMAT {
        return Err(TreeError::Format { found, known: tables::FORMAT });
    }
    let head = meta.get(tables::HEAD_KEY).doing("read the head")?;
    let head = head.ok_or_else(|| TreeError::damaged("no head"))?;
    decode("the head", head.value()).map(Some)
}

/// Sum up every page of `tree.redb` and compare; `false`: something was wrong, and redb could do without it. Over a disk
/// that is to stay as it is.
///
/// # Errors
/// When it is not there, or damaged beyond that.
pub fn pages_are_sound(disk: &SharedDisk) -> Result<bool, TreeError> {
    if !disk.exists(tables::FILE)? {
        return Err(TreeError::damaged("there is no such file"));
    }
    let backend = Boxed(disk.open(tables::FILE, 0)?);
    let mut db = Builder::new().create_with_backend(backend).doing("open tree.redb")?;
    db.check_integrity().doing("check the pages of tree.redb")
}

/// What a fresh ZooKeeper 3.9 has.
fn create(db: &Database, store_id: u64) -> Result<(), TreeError> {
    let read_only = AclId::FIRST;
    let fresh = [
        ("/", Znode::primordial("/", 1, AclId::OPEN, 0)),
        ("/zookeeper", Znode::primordial("/zookeeper", 2, AclId::OPEN, 0)),
        // ZooKeeper sets this one's ACL by a setACL with version −1.
        ("/zookeeper/config", Znode::primordial("/zookeeper/config", 0, read_only, -1)),
        ("/zookeeper/quota", Znode::primordial("/zookeeper/quota", 0, AclId::OPEN, 0)),
    ];
    let counters = Counters {
        zxid: Zxid::ZERO,
        znodes: fresh.len() as u64,
        ephemerals: 0,
        data_bytes: fresh.iter().map(|(path, _)| path.len() as u64).sum(),
        digest: fresh.iter().map(|(_, node)| node.digest as u64).sum(),
    };
    let mut write = db.begin_write().doing("begin to create")?;
    write.set_quick_repair(true);
    {
        let mut znodes = write.open_table(tables::ZNODES).doing("create table znodes")?;
        let mut children = write.open_table(tables::CHILDREN).doing("create table children")?;
        let mut row = Vec::new();
        for (path, node) in &fresh {
            node.encode(&mut row);
            znodes.insert(*path, row.as_slice()).doing("write a znode")?;
            if *path != "/" {
                let key = index_row(depth_group(path), path);
                children.insert(key.as_slice(), ()).doing("write an index")?;
            }
        }
        let mut acls = write.open_table(tables::ACLS).doing("create table acls")?;
        let row = AclRow { uses: 1, list: Acl::read_only().into() };
        acls.insert(read_only.0, encode(&row).as_slice()).doing("write a row")?;
        write.open_table(tables::EPHEMERALS).doing("create table ephemerals")?;
        write.open_table(tables::TIMED).doing("create table timed")?;
        write.open_table(tables::SESSIONS).doing("create table sessions")?;
    }
    let head = Head {
        store_id,
        disk: 0,
        position: Position::default(),
        counters,
        acl_next: AclId(read_only.0 + 1),
        conf_state: Vec::new(),
        roster: Roster::default(),
    };
    write_head(&write, &head)?;
    write.commit().doing("create tree.redb")
}
