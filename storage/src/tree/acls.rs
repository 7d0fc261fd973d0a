//! Access control lists, each stored once and counted.

use crate::Acl;
use foldhash::fast::FixedState;
use imbl::shared_ptr::DefaultSharedPtr;
use std::sync::Arc;

/// Stands for an access control list; see [`super::Snapshot::acl`]. Given out in the order of the log and never
/// given out again, so that all servers have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct AclId(pub(super) u64);

impl AclId {
    /// `world:anyone` may do everything. Not counted.
    pub const OPEN: AclId = AclId(0);
    /// The first id that is given out.
    pub(super) const FIRST: AclId = AclId(1);
}

/// A list, shared by all that have it.
pub type SharedAcl = Arc<[Acl]>;

type Map<K, V> = imbl::GenericHashMap<K, V, FixedState, DefaultSharedPtr>;

/// All lists. Persistent, as the overlay is, for snapshots and for the rollback of a multi.
#[derive(Clone)]
pub(super) struct Acls {
    rows: Map<u64, AclRow>,
    ids: Map<SharedAcl, u64>,
    next: AclId,
    /// Memory of all lists, see [`cost`].
    bytes: u64,
    /// Whose rows changed since the last freeze; may name too many.
    dirty: imbl::OrdSet<u64>,
}

/// A list and how many znodes have it.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct AclRow {
    pub(super) uses: u64,
    pub(super) list: SharedAcl,
}

impl Acls {
    pub(super) fn new(hasher: FixedState, next: AclId) -> Acls {
        let mut acls = Acls {
            rows: Map::with_hasher(hasher.clone()),
            ids: Map::with_hasher(hasher),
            next,
            bytes: 0,
            dirty: imbl::OrdSet::new(),
        };
        acls.rows.insert(AclId::OPEN.0, AclRow { uses: 0, list: Acl::open().into() });
        acls.ids.insert(Acl::open().into(), AclId::OPEN.0);
        acls
    }

    /// A row of table acls.
    pub(super) fn load(&mut self, id: u64, row: AclRow) {
        self.bytes += cost(&row.list);
        self.ids.insert(row.list.clone(), id);
        self.rows.insert(id, row);
    }

    pub(super) fn next(&self) -> AclId {
        self.next
    }

    /// The list of `id`.
    pub(super) fn list(&self, id: AclId) -> SharedAcl {
        self.rows.get(&id.0).expect("a znode's ACL is counted for as long as the znode is there").list.clone()
    }

    /// Number of lists.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// By how much the memory of all lists grows when a znode gets this one, and what it is then; bytes. An unknown
    /// list grows it, a known one does not.
    pub(super) fn growth(&self, list: &[Acl]) -> (u64, u64) {
        let growth = if self.ids.contains_key(list) { 0 } else { cost(list) };
        (growth, self.bytes + growth)
    }

    /// One more znode has `list`.
    pub(super) fn take(&mut self, list: Vec<Acl>) -> AclId {
        let id = match self.ids.get(list.as_slice()) {
            Some(id) if *id == AclId::OPEN.0 => return AclId::OPEN,
            Some(id) => *id,
            None => {
                let id = self.next.0;
                self.next.0 += 1;
                self.bytes += cost(&list);
                let list = SharedAcl::from(list);
                self.ids.insert(list.clone(), id);
                self.rows.insert(id, AclRow { uses: 0, list });
                id
            }
        };
        self.rows.get_mut(&id).expect("an id has a row").uses += 1;
        self.dirty.insert(id);
        AclId(id)
    }

    /// One znode less has the list of `id`; with the last one the list goes.
    pub(super) fn release(&mut self, id: AclId) {
        if id == AclId::OPEN {
            return;
        }
        let row = self.rows.get_mut(&id.0).expect("what is released was taken");
        assert!(row.uses > 0, "what is released was taken");
        row.uses -= 1;
        self.dirty.insert(id.0);
        if row.uses == 0 {
            let row = self.rows.remove(&id.0).expect("it was there");
            self.ids.remove(&row.list);
            self.bytes -= cost(&row.list);
        }
    }

    /// What changed since the last time; `None`: gone.
    pub(super) fn take_dirty(&mut self) -> Vec<(u64, Option<AclRow>)> {
        let dirty = std::mem::take(&mut self.dirty);
        dirty.iter().map(|id| (*id, self.rows.get(id).cloned())).collect()
    }
}

/// Memory of a list that is stored once, bytes: its text, and about what the two maps and the allocator take for it.
fn cost(list: &[Acl]) -> u64 {
    const LIST_BYTES: usize = 256;
    const ELEMENT_BYTES: usize = 96;
    let text: usize = list.iter().map(|acl| acl.id.scheme.len() + acl.id.id.len() + ELEMENT_BYTES).sum();
    (LIST_BYTES + text) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_stored_once_and_goes_with_its_last_use() {
        let mut acls = Acls::new(FixedState::with_seed(1), AclId::FIRST);
        let list = Acl::read_only();
        let id = acls.take(list.clone());
        let (growth, bytes) = acls.growth(&list);
        assert_eq!((growth, bytes), (0, cost(&list)));
        assert_eq!(acls.take(list.clone()), id);
        assert_eq!(&*acls.list(id), list.as_slice());
        assert_eq!(acls.take(Acl::open()), AclId::OPEN);
        acls.release(id);
        acls.release(id);
        acls.release(AclId::OPEN);
        assert_eq!(acls.growth(&list), (cost(&list), cost(&list)));
        assert_ne!(acls.take(list), id, "an id is not given out twice");
        let dirty = acls.take_dirty();
        assert_eq!(dirty.iter().map(|(_, row)| row.is_some()).collect::<Vec<_>>(), [false, true]);
        assert!(acls.take_dirty().is_empty());
    }
}
