//! A stream (`stream.rs`) on its way into a new `tree.redb`, beside the one that is in use.
//!
//! ```text
//!  Import::begin ─▶ push … ─▶ finish ─▶ Staged: tree.redb.new, whole and durable
//!                                          │ Tree::replace: renamed over tree.redb, folder synced, opened
//!                                          ▼
//!                                        Tree; then the log is reset to its position (recover.rs says what if not)
//! ```
//! Until the rename nothing has changed; what a crash or an error leaves of an import is removed by the next open
//! or the next import.

use super::acls::AclRow;
use super::apply::utf16_units;
use super::error::{Doing, ImportError};
use super::export::ExportHead;
use super::overlay::depth_group;
use super::roster::Identity;
use super::state::Counters;
use super::stream::{End, Kind, Place, take_head, take_row};
use super::{AclId, Position, Tree, TreeError, TreeOptions, Znode, checkpoint, tables};
use crate::disk::SharedDisk;
use crate::{Kind as ZnodeKind, SessionRow, path};
use foldhash::fast::FixedState;
use redb::{
    Builder, CursorError, CursorMut, Database, Durability, Key, StorageBackend, TableDefinition, Value,
    WriteTransaction,
};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};

/// Memory of redb for an import.
const CACHE_BYTES: usize = 16 << 20;
/// So much is written between two syncs, so that the last one has little left to do: the log waits behind it.
const UNSYNCED_BYTES_MAX: u64 = 8 << 20;

/// So much of the stream is in one transaction: less than fits into [`CACHE_BYTES`].
const UNCOMMITTED_BYTES_MAX: usize = 4 << 20;

/// A stream being received.
pub struct Import {
    disk: SharedDisk,
    identity: Identity,
    reserve_bytes: u64,
    db: Database,
    /// Always there, but within [`Import::turn`].
    write: Option<WriteTransaction>,
    /// Pushed since it was begun.
    uncommitted_bytes: usize,
    head: Option<checkpoint::Head>,
    /// Whose chunks come now.
    kind: Kind,
    /// Of that table.
    last_key: Vec<u8>,
    place: Place,
    counted: End,
    sums: Sums,
    failed: bool,
}

/// A new tree that is whole and durable beside the one in use; see [`Tree::replace`]. There is one at a time:
/// another [`Import::begin`] removes it.
#[must_use = "it takes the place of the tree by Tree::replace()"]
#[derive(Debug)]
pub struct Staged {
    head: ExportHead,
}

impl Staged {
    /// What it is.
    pub fn head(&self) -> &ExportHead {
        &self.head
    }

    /// The log position that it is of.
    pub fn position(&self) -> Position {
        self.head.position
    }
}

impl Tree {
    /// Put `staged` in the place of the tree on `disk`, durably, and open it. Who still reads the former tree may go
    /// on. Afterwards the log is to be reset to its position, before anything else is done with either.
    pub fn replace(disk: SharedDisk, staged: Staged, options: TreeOptions) -> Result<Tree, TreeError> {
        disk.rename(tables::UNFINISHED, tables::FILE)?;
        disk.sync_folder()?;
        let tree = Tree::open(disk, options)?;
        assert_eq!(tree.position(), staged.position(), "what was staged is what is opened");
        Ok(tree)
    }
}

impl Import {
    /// Begin. The new tree gets `identity`, the receiver's own. While less than `reserve_bytes` are free, chunks are
    /// refused: the log must not meet a full disk.
    pub fn begin(disk: SharedDisk, identity: Identity, reserve_bytes: u64) -> Result<Import, ImportError> {
        disk.remove(tables::UNFINISHED).map_err(TreeError::from)?;
        let file = disk.open(tables::UNFINISHED, 0).map_err(TreeError::from)?;
        let backend = Paced { file, unsynced: AtomicU64::new(0) };
        let db = Builder::new()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(backend)
            .doing("create tree.redb.new")?;
        let write = Some(begin(&db)?);
        Ok(Import {
            disk,
            identity,
            reserve_bytes,
            db,
            write,
            uncommitted_bytes: 0,
            head: None,
            kind: Kind::Head,
            last_key: Vec::new(),
            place: Place::default(),
            counted: End::default(),
            sums: Sums::default(),
            failed: false,
        })
    }

    /// What the stream is of, once its first chunk is here.
    pub fn head(&self) -> Option<ExportHead> {
        self.head.as_ref().map(ExportHead::from)
    }

    /// Was the last chunk pushed?
    pub fn is_complete(&self) -> bool {
        self.kind == Kind::End
    }

    /// Take a chunk as [`super::Export::next_chunk`] gave it and [`super::read_chunk`] cuts it out of a stream of bytes.
    /// After an error only [`Import::abandon`] is left.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), ImportError> {
        if std::mem::replace(&mut self.failed, true) {
            return Err(ImportError::Over);
        }
        let number = self.place.number;
        let refused = |why| ImportError::Refused { number, why };
        if self.is_complete() {
            return Err(refused("the stream has ended".to_owned()));
        }
        let free_bytes = self.disk.free_bytes().map_err(TreeError::from)?;
        // What redb holds in memory is still to be written.
        let due_bytes = (CACHE_BYTES + chunk.len()) as u64;
        if free_bytes < self.reserve_bytes.saturating_add(due_bytes) {
            return Err(ImportError::NoSpace { free_bytes, reserve_bytes: self.reserve_bytes });
        }
        let (kind, body) = self.place.open(chunk).map_err(refused)?;
        match kind {
            Kind::Head if number == 0 => {
                let head = take_head(body)?;
                if head.format != tables::FORMAT {
                    return Err(ImportError::Version { found: head.format, known: tables::FORMAT });
                }
                self.head = Some(head.head);
                self.kind = Kind::Acls;
            }
            _ if number == 0 || kind < self.kind => {
                return Err(refused(format!("{kind:?} at the place of {:?}", self.kind)));
            }
            Kind::End => {
                let end = postcard::from_bytes::<End>(body).map_err(|error| refused(error.to_string()))?;
                if end != self.counted {
                    let counted = &self.counted.rows;
                    return Err(refused(format!("it counts rows {:?} and {counted:?} came", end.rows)));
                }
                let head = self.head.as_ref().expect("the first chunk was the head");
                self.sums.check(&head.counters, &end).map_err(refused)?;
                self.kind = Kind::End;
            }
            kind => {
                if kind != self.kind {
                    self.kind = kind;
                    self.last_key.clear();
                }
                self.rows(number, kind, body)?;
            }
        }
        self.uncommitted_bytes += chunk.len();
        if self.uncommitted_bytes >= UNCOMMITTED_BYTES_MAX {
            self.turn()?;
        }
        self.failed = false;
        Ok(())
    }

    /// Commit, not yet durably, while the pages are in memory: redb reads those that are not again, to sum them up.
    fn turn(&mut self) -> Result<(), ImportError> {
        let write = self.write.take().expect("there is a transaction");
        write.commit().doing("commit a part of an import")?;
        self.write = Some(begin(&self.db)?);
        self.uncommitted_bytes = 0;
        Ok(())
    }

    fn rows(&mut self, number: u32, kind: Kind, body: &[u8]) -> Result<(), ImportError> {
        let sums = &mut self.sums;
        let mut rows = Checked {
            number,
            body,
            last_key: &mut self.last_key,
            counted: &mut self.counted.rows[kind.table()],
        };
        let write = self.write.as_ref().expect("there is a transaction");
        match kind {
            Kind::Acls => rows.write(write, tables::ACLS, |key, value| sums.acl(key, value)),
            Kind::Sessions => rows.write(write, tables::SESSIONS, Sums::session),
            Kind::Znodes => rows.write(write, tables::ZNODES, |key, value| sums.znode(key, value)),
            Kind::Children => rows.write(write, tables::CHILDREN, |key, _| sums.index(0, key)),
            Kind::Ephemerals => rows.write(write, tables::EPHEMERALS, |key, _| sums.index(1, key)),
            Kind::Timed => rows.write(write, tables::TIMED, |key, _| sums.index(2, key)),
            Kind::Head | Kind::End => unreachable!("they have no rows"),
        }
    }

    /// Make what was received durable. It is not in use before [`Tree::replace`].
    pub fn finish(self) -> Result<Staged, ImportError> {
        if self.failed {
            return Err(ImportError::Over);
        }
        let (true, Some(head)) = (self.is_complete(), self.head) else {
            return Err(ImportError::Incomplete { chunks: self.place.number });
        };
        let mut write = self.write.expect("there is a transaction");
        write.set_durability(Durability::Immediate).doing("begin the last transaction of an import")?;
        write.set_quick_repair(true);
        // Tables without rows are there, too.
        write.open_table(tables::ZNODES).doing("create table znodes")?;
        write.open_table(tables::CHILDREN).doing("create table children")?;
        write.open_table(tables::ACLS).doing("create table acls")?;
        write.open_table(tables::SESSIONS).doing("create table sessions")?;
        write.open_table(tables::EPHEMERALS).doing("create table ephemerals")?;
        write.open_table(tables::TIMED).doing("create table timed")?;
        let Identity { store_id, disk } = self.identity;
        let head = checkpoint::Head { store_id, disk, ..head };
        checkpoint::write_head(&write, &head)?;
        write.commit().doing("commit an import")?;
        drop(self.db);
        Ok(Staged { head: ExportHead::from(&head) })
    }

    /// Give up, and remove what was received.
    pub fn abandon(self) -> Result<(), ImportError> {
        let Import { disk, db, write, .. } = self;
        // An error would say no more than the one that led here.
        let _ = write.map(WriteTransaction::abort);
        drop(db);
        Ok(disk.remove(tables::UNFINISHED).map_err(TreeError::from)?)
    }
}

fn begin(db: &Database) -> Result<WriteTransaction, TreeError> {
    let mut write = db.begin_write().doing("begin an import")?;
    write.set_durability(Durability::None).doing("begin an import")?;
    Ok(write)
}

/// How rows are typed in redb, and come as bytes.
trait FromRow<'a>: Sized {
    fn from_row(bytes: &'a [u8]) -> Option<Self>;
}

impl<'a> FromRow<'a> for &'a [u8] {
    fn from_row(bytes: &'a [u8]) -> Option<&'a [u8]> {
        Some(bytes)
    }
}

impl<'a> FromRow<'a> for &'a str {
    fn from_row(bytes: &'a [u8]) -> Option<&'a str> {
        std::str::from_utf8(bytes).ok()
    }
}

impl<'a> FromRow<'a> for u64 {
    fn from_row(bytes: &'a [u8]) -> Option<u64> {
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }
}

impl<'a> FromRow<'a> for i64 {
    fn from_row(bytes: &'a [u8]) -> Option<i64> {
        Some(i64::from_le_bytes(bytes.try_into().ok()?))
    }
}

impl<'a> FromRow<'a> for () {
    fn from_row(bytes: &'a [u8]) -> Option<()> {
        bytes.is_empty().then_some(())
    }
}

/// The rows of a chunk.
struct Checked<'c> {
    number: u32,
    body: &'c [u8],
    last_key: &'c mut Vec<u8>,
    counted: &'c mut u64,
}

impl<'c> Checked<'c> {
    /// Append them to `table`, each after `check`.
    fn write<K, V>(
        &mut self,
        write: &WriteTransaction,
        table: TableDefinition<'static, K, V>,
        mut check: impl FnMut(K::SelfType<'c>, V::SelfType<'c>) -> Result<(), String>,
    ) -> Result<(), ImportError>
    where
        K: Key + 'static,
        V: Value + 'static,
        K::SelfType<'c>: FromRow<'c> + Copy,
        V::SelfType<'c>: FromRow<'c> + Copy,
    {
        let number = self.number;
        let refused = |why| ImportError::Refused { number, why };
        let mut table = write.open_table(table).doing("open a table of tree.redb.new")?;
        let mut end: CursorMut<'_, K, V> =
            table.upper_bound_mut(Bound::<K::SelfType<'c>>::Unbounded).doing("go to the end of a table")?;
        let mut last: &[u8] = self.last_key;
        while let Some((key, value)) = take_row(&mut self.body).map_err(refused)? {
            let typed = K::SelfType::from_row(key).zip(V::SelfType::from_row(value));
            let (k, v) = typed.ok_or_else(|| refused(format!("key {key:?} or its value is malformed")))?;
            if *self.counted > 0 && K::compare(key, last).is_le() {
                return Err(refused(format!("key {key:?} does not come after {last:?}")));
            }
            check(k, v).map_err(refused)?;
            end.insert_before(k, v)
                .map_err(|error| match error {
                    CursorError::Storage(error) => redb::Error::from(error),
                    error => panic!("keys were checked to ascend: {error}"),
                })
                .doing("write a row of a snapshot stream")?;
            last = key;
            *self.counted += 1;
        }
        let last = last.to_vec();
        end.close().doing("write rows of a snapshot stream")?;
        *self.last_key = last;
        Ok(())
    }
}

/// What is summed up over rows, so that the end can tell whether they belong together. Bounded by the number of access
/// control lists, which the tree keeps in memory anyway.
#[derive(Default)]
struct Sums {
    digest: u64,
    data_bytes: u64,
    /// Of all znodes.
    children: u64,
    ephemerals: u64,
    /// Hashes of the index entries that the znodes ask for, less those of the entries that came: children, ephemerals,
    /// timed.
    missing: [u64; 3],
    /// Uses of each list that it claims, less those that were seen.
    acls: HashMap<u64, u64, FixedState>,
}

impl Sums {
    fn acl(&mut self, id: u64, row: &[u8]) -> Result<(), String> {
        let row: AclRow = postcard::from_bytes(row).map_err(|error| format!("ACL {id}: {error}"))?;
        self.acls.insert(id, row.uses);
        Ok(())
    }

    fn session(id: i64, row: &[u8]) -> Result<(), String> {
        let row: Result<SessionRow, _> = postcard::from_bytes(row);
        row.map(drop).map_err(|error| format!("session {id:#x}: {error}"))
    }

    fn znode(&mut self, path: &str, row: &[u8]) -> Result<(), String> {
        path::validate(path).map_err(|error| format!("{path:?}: {error}"))?;
        let znode = Znode::decode(path, row).map_err(|error| error.to_string())?;
        self.digest = self.digest.wrapping_add(u64::from(znode.digest));
        self.data_bytes += utf16_units(path) + znode.data_bytes();
        self.children += u64::from(znode.num_children);
        if path != "/" {
            self.missing[0] = self.missing[0].wrapping_add(hash(depth_group(path), path.as_bytes()));
        }
        match znode.kind() {
            ZnodeKind::Persistent => {}
            ZnodeKind::Ephemeral(session) => {
                self.ephemerals += 1;
                self.missing[1] = self.missing[1].wrapping_add(hash(session as u64, path.as_bytes()));
            }
            ZnodeKind::Container | ZnodeKind::Ttl(_) => {
                self.missing[2] = self.missing[2].wrapping_add(hash(0, path.as_bytes()));
            }
        }
        if znode.acl != AclId::OPEN {
            let uses = self.acls.get_mut(&znode.acl.0).filter(|uses| **uses > 0);
            *uses.ok_or_else(|| format!("{path:?} has an ACL that is not counted"))? -= 1;
        }
        Ok(())
    }

    fn index(&mut self, which: usize, key: &[u8]) -> Result<(), String> {
        let (group, path) = key.split_first_chunk::<8>().ok_or("an index key is short")?;
        self.missing[which] = self.missing[which].wrapping_sub(hash(u64::from_be_bytes(*group), path));
        Ok(())
    }

    /// Do they belong together, and are they what the head says?
    fn check(&self, head: &Counters, end: &End) -> Result<(), String> {
        let rows = |kind: Kind| end.rows[kind.table()];
        let claims = [
            ("number of znodes", head.znodes, rows(Kind::Znodes)),
            ("number of ephemerals", head.ephemerals, self.ephemerals),
            ("size of data", head.data_bytes, self.data_bytes),
            ("digest", head.digest, self.digest),
            ("number of children", self.children, rows(Kind::Children)),
            ("index of children", self.missing[0], 0),
            ("index of ephemerals", self.missing[1], 0),
            ("index of containers and TTL nodes", self.missing[2], 0),
            ("uses of ACLs", self.acls.values().filter(|uses| **uses > 0).count() as u64, 0),
        ];
        match claims.iter().find(|(_, said, found)| said != found) {
            None => Ok(()),
            Some((what, ..)) => Err(format!("the {what} is not that of the rows")),
        }
    }
}

/// Of an index entry. Sums of it compare sets of entries that come in different orders.
fn hash(group: u64, path: &[u8]) -> u64 {
    let mut hasher = FixedState::with_seed(0).build_hasher();
    hasher.write_u64(group);
    hasher.write(path);
    hasher.finish()
}

/// A file that is synced as it grows.
#[derive(Debug)]
struct Paced {
    file: Box<dyn StorageBackend>,
    unsynced: AtomicU64,
}

impl StorageBackend for Paced {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.unsynced.store(0, Ordering::Relaxed);
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)?;
        let bytes = data.len() as u64;
        if self.unsynced.fetch_add(bytes, Ordering::Relaxed) + bytes >= UNSYNCED_BYTES_MAX {
            self.sync_data()?;
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }
}
