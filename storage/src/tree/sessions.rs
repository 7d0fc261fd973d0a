//! Sessions: resident, in an ordinary map, as every write moves one's `last_sequence`.

use crate::{SessionId, SessionRow, Tag};
use foldhash::fast::FixedState;
use std::collections::HashMap;

pub(super) struct Sessions {
    slots: HashMap<SessionId, Slot, FixedState>,
    /// Changed or gone since the last freeze.
    dirty: Vec<SessionId>,
    digest: u64,
}

struct Slot {
    row: SessionRow,
    /// Is it in `dirty`?
    dirty: bool,
    digest: u32,
}

/// May a tagged write be applied?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Next,
    NoSession,
    /// Another attachment of the session is the current one.
    OtherGeneration,
    /// Its sequence was applied before.
    Seen,
    /// Something before it is missing.
    Gap,
}

impl Sessions {
    pub(super) fn new(hasher: FixedState) -> Sessions {
        Sessions { slots: HashMap::with_hasher(hasher), dirty: Vec::new(), digest: 0 }
    }

    /// A row of table sessions.
    pub(super) fn load(&mut self, id: SessionId, row: SessionRow) {
        let digest = digest(id, &row);
        self.digest = self.digest.wrapping_add(digest as u64);
        self.slots.insert(id, Slot { row, dirty: false, digest });
    }

    pub(super) fn get(&self, id: SessionId) -> Option<&SessionRow> {
        self.slots.get(&id).map(|slot| &slot.row)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SessionId, &SessionRow)> {
        self.slots.iter().map(|(id, slot)| (*id, &slot.row))
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    pub(super) fn admit(&self, tag: Tag) -> Admission {
        let Some(row) = self.get(tag.session) else { return Admission::NoSession };
        if tag.generation != row.generation {
            Admission::OtherGeneration
        } else if tag.sequence <= row.last_sequence {
            Admission::Seen
        } else if tag.sequence > row.last_sequence + 1 {
            Admission::Gap
        } else {
            Admission::Next
        }
    }

    /// A new session.
    pub(super) fn insert(&mut self, id: SessionId, row: SessionRow) {
        let digest = digest(id, &row);
        self.digest = self.digest.wrapping_add(digest as u64);
        let old = self.slots.insert(id, Slot { row, dirty: true, digest });
        assert!(old.is_none(), "session {id:#x} exists");
        self.dirty.push(id);
    }

    /// Change the row of a session that exists.
    pub(super) fn change(&mut self, id: SessionId, change: impl FnOnce(&mut SessionRow)) {
        let slot = self.slots.get_mut(&id).expect("the session was looked up before");
        change(&mut slot.row);
        let new = digest(id, &slot.row);
        self.digest = self.digest.wrapping_sub(slot.digest as u64).wrapping_add(new as u64);
        slot.digest = new;
        if !std::mem::replace(&mut slot.dirty, true) {
            self.dirty.push(id);
        }
    }

    /// The session is closed.
    pub(super) fn remove(&mut self, id: SessionId) {
        let slot = self.slots.remove(&id).expect("the session was looked up before");
        self.digest = self.digest.wrapping_sub(slot.digest as u64);
        if !slot.dirty {
            self.dirty.push(id);
        }
    }

    /// What changed since the last time; `None`: gone.
    pub(super) fn take_dirty(&mut self) -> Vec<(SessionId, Option<SessionRow>)> {
        let mut dirty = std::mem::take(&mut self.dirty);
        // A session that was closed and whose id was used again is there twice.
        dirty.sort_unstable();
        dirty.dedup();
        dirty
            .into_iter()
            .map(|id| {
                let row = self.slots.get_mut(&id).map(|slot| {
                    slot.dirty = false;
                    slot.row.clone()
                });
                (id, row)
            })
            .collect()
    }
}

/// A row's part of the digest of sessions.
fn digest(id: SessionId, row: &SessionRow) -> u32 {
    let mut bytes = [0; 8 + 4 + 16 + 4 + 1 + 8];
    bytes[..8].copy_from_slice(&id.to_be_bytes());
    bytes[8..12].copy_from_slice(&row.timeout_ms.to_be_bytes());
    bytes[12..28].copy_from_slice(&row.password);
    bytes[28..32].copy_from_slice(&row.generation.to_be_bytes());
    bytes[32] = row.owner;
    bytes[33..].copy_from_slice(&row.last_sequence.to_be_bytes());
    crc32fast::hash(&bytes)
}
