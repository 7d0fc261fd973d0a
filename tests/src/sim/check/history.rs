//! Same log prefix everywhere: the committed log, kept and replayed.
//!
//! The replay is a second fresh tree on a disk of its own, without checkpoints, crashes or readers. It keeps a
//! snapshot for every zxid, so that a reply can be judged by the tree at the zxid of its header.

use super::{Verdict, Violation, hold, shown};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use warren_server::consensus::Committed;
use warren_storage::simdisk::SimDisk;
use warren_storage::tree::{Change, Digest, Outcome, Position, Snapshot};
use warren_storage::{Entry, Logged, SessionId, Tag, Tree, TreeOptions, Zxid};

const PROPERTY: &str = "same log prefix";

/// One command of the log, and what became of it.
pub struct Fact {
    /// Its entry's index.
    pub index: u64,
    /// Its entry's time.
    pub time_ms: i64,
    /// As it was logged; see [`Fact::logged`].
    pub bytes: Vec<u8>,
    /// Whose write it is.
    pub tag: Option<Tag>,
    /// Its zxid, or that of the tree when it took none.
    pub at: i64,
    /// Did it take one?
    pub counted: bool,
    /// What its asker is told.
    pub outcome: Outcome,
    /// What it changed.
    pub changes: Vec<Change>,
}

impl Fact {
    /// The command.
    pub fn logged(&self) -> Logged<'_> {
        Logged::decode(&self.bytes).expect("it was decoded before")
    }
}

/// The committed log, replayed.
pub struct History {
    tree: Tree,
    entries: BTreeMap<u64, (u64, bytes::Bytes)>,
    digests: BTreeMap<u64, (Zxid, Digest)>,
    snapshots: BTreeMap<i64, Snapshot>,
    /// Every command, in order.
    pub facts: Vec<Fact>,
    by_tag: HashMap<Tag, usize>,
    /// Every change that watches wait for, in order.
    pub changes: Vec<(i64, Change)>,
}

impl History {
    /// An empty log.
    pub fn new() -> History {
        let options = TreeOptions { memory_bytes: 1 << 30, hash_seed: 99, store_id: 1 };
        let tree = Tree::open(Arc::new(SimDisk::new()), options).expect("nothing fails on this disk");
        let mut history = History {
            entries: BTreeMap::new(),
            digests: BTreeMap::from([(0, (tree.zxid(), tree.digest()))]),
            snapshots: BTreeMap::new(),
            facts: Vec::new(),
            by_tag: HashMap::new(),
            changes: Vec::new(),
            tree,
        };
        history.keep();
        history
    }

    /// The last committed entry.
    pub fn position(&self) -> Position {
        self.tree.position()
    }

    /// The tree at this zxid, if any write has it.
    pub fn at(&self, zxid: i64) -> Option<&Snapshot> {
        self.snapshots.get(&zxid)
    }

    /// The tree behind the last committed entry.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// A snapshot of it.
    pub fn latest(&self) -> Snapshot {
        self.tree.snapshot()
    }

    /// The attachment of a session that is open.
    pub fn generation(&self, session: SessionId) -> Option<u32> {
        self.tree.session(session).map(|row| row.generation)
    }

    /// Zxid and digest behind the entry at this index.
    pub fn digest(&self, index: u64) -> Option<(Zxid, Digest)> {
        self.digests.get(&index).copied()
    }

    /// What became of the write with this tag, when it is committed and was not dropped.
    pub fn write(&self, tag: Tag) -> Option<&Fact> {
        self.by_tag.get(&tag).map(|at| &self.facts[*at])
    }

    fn keep(&mut self) {
        self.snapshots.insert(self.tree.zxid().wire(), self.tree.snapshot());
    }

    /// The term of a committed entry.
    pub fn term(&self, index: u64) -> Option<u64> {
        self.entries.get(&index).map(|(term, _)| *term)
    }

    /// An entry was committed, for the first time, or again: by another server or after a restart. Which facts are
    /// new.
    pub fn on_committed(&mut self, entry: &Committed) -> Result<std::ops::Range<usize>, Violation> {
        let first = self.facts.len();
        let Position { index, term } = entry.position;
        if let Some((known_term, known)) = self.entries.get(&index) {
            let same = *known_term == term && *known == entry.data;
            hold(same, PROPERTY, || {
                format!(
                    "entry {index} was committed in term {known_term} with {} bytes, and now in term {term} with {}",
                    known.len(),
                    entry.data.len()
                )
            })?;
            return Ok(first..first);
        }
        let last = self.position().index;
        // What lies in a checkpoint is not committed again; everything else comes without a gap.
        hold(index == last + 1, PROPERTY, || format!("entry {index} is committed behind {last}"))?;
        self.entries.insert(index, (term, entry.data.clone()));
        self.replay(index, entry)?;
        self.tree.advance(index, term);
        self.keep();
        self.digests.insert(index, (self.tree.zxid(), self.tree.digest()));
        Ok(first..self.facts.len())
    }

    /// A server took another's tree as of this entry.
    pub fn on_installed(&self, position: Position) -> Verdict {
        let Position { index, term } = position;
        hold(self.term(index) == Some(term), PROPERTY, || {
            format!("a tree as of entry {index} of term {term} is put in place, which was not committed")
        })
    }

    fn note_changes(&mut self, changes: Vec<Change>) {
        let at = self.tree.zxid().wire();
        self.changes.extend(changes.into_iter().map(|change| (at, change)));
    }

    fn replay(&mut self, index: u64, entry: &Committed) -> Verdict {
        if entry.data.is_empty() {
            return Ok(());
        }
        let decoded = Entry::decode(&entry.data)
            .map_err(|e| Violation { property: PROPERTY, what: format!("entry {index}: {e}") })?;
        let (time_ms, rules, commands) = match decoded {
            Entry::Batch { time_ms, rules, commands, .. } => (time_ms, rules, commands),
            Entry::Mark => return Ok(()),
            Entry::NewEpoch { .. } => {
                self.tree.begin_epoch();
                return Ok(());
            }
            Entry::Introduce { server, disk, store_id } => {
                self.tree.introduce(server, disk, store_id);
                return Ok(());
            }
            Entry::Found { time_ms, table } => {
                let changes = self.tree.found(time_ms, &table).expect("nothing fails on this disk");
                self.note_changes(changes);
                return Ok(());
            }
            Entry::ForceQuorum { time_ms, epochs, table } => {
                let changes =
                    self.tree.force_quorum(time_ms, epochs, &table).expect("nothing fails on this disk");
                self.note_changes(changes);
                return Ok(());
            }
        };
        for command in commands {
            let logged = Logged::decode(command)
                .map_err(|e| Violation { property: PROPERTY, what: format!("entry {index}: {e}") })?;
            let applied = self.tree.apply(time_ms, &rules, &logged).expect("nothing fails on this disk");
            let at = self.tree.zxid().wire();
            if let Some(zxid) = applied.zxid {
                hold(!self.snapshots.contains_key(&zxid.wire()), PROPERTY, || {
                    format!("zxid {} twice", shown(zxid.wire()))
                })?;
            }
            self.keep();
            if let (Some(tag), false) = (logged.tag, matches!(applied.outcome, Outcome::Dropped)) {
                // The first copy decides; a later one finds the session gone.
                self.by_tag.entry(tag).or_insert(self.facts.len());
            }
            self.changes.extend(applied.changes.iter().map(|change| (at, change.clone())));
            self.facts.push(Fact {
                index,
                time_ms,
                bytes: command.to_vec(),
                tag: logged.tag,
                at,
                counted: applied.zxid.is_some(),
                outcome: applied.outcome,
                changes: applied.changes,
            });
        }
        Ok(())
    }
}

/// A server commits this behind the entry at `last`.
pub(super) fn on_next(last: u64, position: Position) -> Verdict {
    let index = position.index;
    hold(index == last + 1, PROPERTY, || format!("a server commits entry {index} behind {last}"))
}

impl Default for History {
    fn default() -> History {
        History::new()
    }
}
