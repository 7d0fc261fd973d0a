//! Is what comes chunk by chunk a whole stream (`stream.rs`), and do its rows belong together? What takes a stream asks
//! this before it keeps anything; what only looks at one asks nothing else.

use super::acls::AclRow;
use super::apply::utf16_units;
use super::error::ImportError;
use super::export::ExportHead;
use super::overlay::depth_group;
use super::state::Counters;
use super::stream::{End, Kind, Place, take_head, take_row};
use super::{AclId, Znode, checkpoint, tables};
use crate::{Kind as ZnodeKind, SessionRow, path};
use foldhash::fast::FixedState;
use std::cmp::Ordering;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};

/// What is told of each znode as it comes by.
pub type EachZnode<'a> = &'a mut dyn FnMut(&str, &Znode);

/// A stream being looked at. Bounded by the number of access control lists, which the tree keeps in memory anyway.
pub struct StreamCheck {
    pub(super) head: Option<checkpoint::Head>,
    /// Whose chunks come now.
    kind: Kind,
    /// Of that table.
    last_key: Vec<u8>,
    place: Place,
    counted: End,
    sums: Sums,
    over: bool,
}

impl Default for StreamCheck {
    fn default() -> StreamCheck {
        StreamCheck {
            head: None,
            kind: Kind::Head,
            last_key: Vec::new(),
            place: Place::default(),
            counted: End::default(),
            sums: Sums::default(),
            over: false,
        }
    }
}

impl StreamCheck {
    /// What the stream is of, once its first chunk is here.
    pub fn head(&self) -> Option<ExportHead> {
        self.head.as_ref().map(ExportHead::from)
    }

    /// How many sessions came so far; all of them once a znode came.
    pub fn sessions(&self) -> u64 {
        self.counted.rows[Kind::Sessions.table()]
    }

    /// How many znodes came so far.
    pub fn znodes(&self) -> u64 {
        self.counted.rows[Kind::Znodes.table()]
    }

    /// Was the last chunk pushed?
    pub fn is_complete(&self) -> bool {
        self.kind == Kind::End
    }

    /// How many chunks came.
    pub(super) fn chunks(&self) -> u32 {
        self.place.number
    }

    /// Take a chunk as [`super::Export::next_chunk`] gave it and [`super::read_chunk`] cuts it out of a stream of bytes;
    /// each znode in it is told to `each`.
    ///
    /// # Errors
    /// When it is not what an export gives at this place. After one all that comes is refused.
    pub fn push(&mut self, chunk: &[u8], each: EachZnode<'_>) -> Result<(), ImportError> {
        self.take(chunk, each).map(drop)
    }

    /// What was looked at, whole.
    ///
    /// # Errors
    /// When the last chunk did not come.
    pub fn finish(self) -> Result<ExportHead, ImportError> {
        match (self.over, self.is_complete(), &self.head) {
            (true, ..) => Err(ImportError::Over),
            (false, true, Some(head)) => Ok(ExportHead::from(head)),
            _ => Err(ImportError::Incomplete { chunks: self.chunks() }),
        }
    }

    /// As [`StreamCheck::push`]; gives kind and body.
    pub(super) fn take<'c>(
        &mut self,
        chunk: &'c [u8],
        each: EachZnode<'_>,
    ) -> Result<(Kind, &'c [u8]), ImportError> {
        if std::mem::replace(&mut self.over, true) {
            return Err(ImportError::Over);
        }
        let number = self.place.number;
        let refused = |why| ImportError::Refused { number, why };
        if self.is_complete() {
            return Err(refused("the stream has ended".to_owned()));
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
                self.rows(kind, body, each).map_err(refused)?;
            }
        }
        self.over = false;
        Ok((kind, body))
    }

    fn rows(&mut self, kind: Kind, body: &[u8], each: EachZnode<'_>) -> Result<(), String> {
        let sums = &mut self.sums;
        let (last, counted) = (&mut self.last_key, &mut self.counted.rows[kind.table()]);
        match kind {
            Kind::Acls => in_order(body, last, counted, |key, value| sums.acl(key, value)),
            Kind::Sessions => in_order(body, last, counted, Sums::session),
            Kind::Znodes => in_order(body, last, counted, |key, value| sums.znode(key, value, &mut *each)),
            Kind::Children => in_order(body, last, counted, |key, ()| sums.index(0, key)),
            Kind::Ephemerals => in_order(body, last, counted, |key, ()| sums.index(1, key)),
            Kind::Timed => in_order(body, last, counted, |key, ()| sums.index(2, key)),
            Kind::Head | Kind::End => unreachable!("they have no rows"),
        }
    }
}

/// Tell the rows of a chunk to `check`, as long as their keys ascend.
fn in_order<'c, K: Row<'c>, V: Row<'c>>(
    mut body: &'c [u8],
    last_key: &mut Vec<u8>,
    counted: &mut u64,
    mut check: impl FnMut(K, V) -> Result<(), String>,
) -> Result<(), String> {
    let mut last: &[u8] = last_key;
    while let Some((key, value)) = take_row(&mut body)? {
        let (k, v) = K::from_row(key)
            .zip(V::from_row(value))
            .ok_or_else(|| format!("key {key:?} or its value is malformed"))?;
        if *counted > 0 && K::compare(key, last).is_le() {
            return Err(format!("key {key:?} does not come after {last:?}"));
        }
        check(k, v)?;
        last = key;
        *counted += 1;
    }
    *last_key = last.to_vec();
    Ok(())
}

/// How rows are typed in redb, and come as bytes.
pub(super) trait Row<'a>: Sized {
    fn from_row(bytes: &'a [u8]) -> Option<Self>;

    /// As redb orders keys of this type. Both were read before.
    fn compare(a: &[u8], b: &[u8]) -> Ordering {
        a.cmp(b)
    }
}

impl<'a> Row<'a> for &'a [u8] {
    fn from_row(bytes: &'a [u8]) -> Option<&'a [u8]> {
        Some(bytes)
    }
}

impl<'a> Row<'a> for &'a str {
    fn from_row(bytes: &'a [u8]) -> Option<&'a str> {
        std::str::from_utf8(bytes).ok()
    }
}

impl<'a> Row<'a> for u64 {
    fn from_row(bytes: &'a [u8]) -> Option<u64> {
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }

    fn compare(a: &[u8], b: &[u8]) -> Ordering {
        <u64 as redb::Key>::compare(a, b)
    }
}

impl<'a> Row<'a> for i64 {
    fn from_row(bytes: &'a [u8]) -> Option<i64> {
        Some(i64::from_le_bytes(bytes.try_into().ok()?))
    }

    fn compare(a: &[u8], b: &[u8]) -> Ordering {
        <i64 as redb::Key>::compare(a, b)
    }
}

impl<'a> Row<'a> for () {
    fn from_row(bytes: &'a [u8]) -> Option<()> {
        bytes.is_empty().then_some(())
    }
}

/// What is summed up over rows, so that the end can tell whether they belong together.
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

    fn znode(&mut self, path: &str, row: &[u8], each: EachZnode<'_>) -> Result<(), String> {
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
        each(path, &znode);
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
