//! Configurations are applied in one order everywhere: whatever server hands out an entry, raft goes by the same
//! configuration from there on; and each step leads to one whose majorities meet those of the one before. One voter comes
//! or goes, or a joint configuration is entered from what was, or left towards what it began.

use super::{Verdict, hold};
use std::collections::{BTreeMap, BTreeSet};
use warren_server::consensus::{Committed, Configuration, server_of};
use warren_storage::Entry;

const PROPERTY: &str = "configurations in one order";

/// What raft goes by.
pub struct Configurations {
    /// By the entry from which on.
    all: BTreeMap<u64, Configuration>,
    /// By server, as of what it handed out last.
    now: Vec<Configuration>,
    /// By server, as raft knows it: the last entry that it ever handed out.
    reached: BTreeMap<u64, u64>,
    /// An operator made one server the only voter.
    forced: bool,
}

impl Configurations {
    /// Founded by these, as raft knows them.
    pub(super) fn new(founders: &[u64], servers: usize) -> Configurations {
        let first = Configuration { voters: founders.to_vec(), ..Configuration::default() };
        Configurations {
            all: BTreeMap::from([(0, first)]),
            now: vec![Configuration::default(); servers],
            reached: BTreeMap::new(),
            forced: false,
        }
    }

    /// The one behind this entry.
    pub fn at(&self, index: u64) -> &Configuration {
        self.all.range(..=index).next_back().expect("the first one is behind no entry").1
    }

    /// The newest, and the one before it.
    pub fn newest(&self) -> impl Iterator<Item = &Configuration> {
        self.all.values().rev().take(2)
    }

    /// Does somebody count on the vote of this one, as raft knows it? By the newest configuration; and until a majority goes by
    /// that one, those of its voters that do not yet count on whom the one knows that they go by.
    pub fn counts_on(&self, id: u64) -> bool {
        let votes = |conf: &Configuration| conf.voters.contains(&id) || conf.outgoing.contains(&id);
        let newest = self.at(u64::MAX);
        let goes_by = |id: u64| &self.now[usize::from(server_of(id)) - 1];
        votes(newest)
            || !newest.is_quorum(|id| goes_by(id) == newest)
                && newest.voters.iter().any(|id| votes(goes_by(*id)))
    }

    /// By which a server goes now.
    pub fn of(&self, server: usize) -> &Configuration {
        &self.now[server]
    }

    /// A server has handed out, or taken over, everything up to here.
    pub(super) fn on_reached(&mut self, id: u64, index: u64) {
        let reached = self.reached.entry(id).or_default();
        *reached = index.max(*reached);
    }

    /// A server says that a majority of those that vote as of this entry goes by that: an operator stops whom it does not have.
    pub(super) fn on_settled(&self, index: u64) -> Verdict {
        let (since, conf) = self.all.range(..=index).next_back().expect("the first one is behind no entry");
        let has = |id| self.reached.get(&id).is_some_and(|reached| reached >= since);
        hold(self.forced || conf.is_quorum(has), PROPERTY, || {
            format!("{conf:?} of entry {since} is settled, and servers have come to {:?}", self.reached)
        })
    }

    /// An operator makes this server the only voter, past the log.
    pub fn on_forced(&mut self, server: usize, own: u64) {
        self.now[server] = Configuration { voters: vec![own], ..Configuration::default() };
        self.forced = true;
    }

    /// Did an operator go past the log?
    pub fn is_forced(&self) -> bool {
        self.forced
    }

    /// How many there were behind the first.
    pub fn changes(&self) -> usize {
        self.all.len() - 1
    }

    /// A server begins with a tree as of this entry, or puts one in place.
    pub(super) fn on_tree(&mut self, server: usize, index: u64, conf_state: &[u8]) -> Verdict {
        let found = Configuration::of(conf_state);
        // Before the first table a server either founds, or waits to be told.
        let told = index > 0 && !found.voters.is_empty();
        let same = !told || found == *self.at(index);
        hold(same, PROPERTY, || {
            format!("s{} begins behind entry {index} with {found:?}, not {:?}", server + 1, self.at(index))
        })?;
        self.now[server] = found;
        Ok(())
    }

    /// A server hands out an entry.
    pub(super) fn on_committed(&mut self, server: usize, entry: &Committed) -> Verdict {
        let index = entry.position.index;
        let last = *self.all.keys().next_back().expect("there is a first one");
        let Some(conf_state) = &entry.conf_state else {
            return hold(!self.all.contains_key(&index), PROPERTY, || {
                format!("s{} hands out entry {index} and goes on as before", server + 1)
            });
        };
        let found = Configuration::of(conf_state);
        self.now[server].clone_from(&found);
        let before = self.at(index - 1);
        // One that came later learns from the first table what the others began with.
        if index <= last || found == *before {
            return hold(found == *self.at(index), PROPERTY, || {
                format!("s{} goes by {found:?} behind entry {index}, not {:?}", server + 1, self.at(index))
            });
        }
        let forced = matches!(Entry::decode(&entry.data), Ok(Entry::ForceQuorum { .. }));
        hold(forced || is_step(before, &found), PROPERTY, || {
            format!("entry {index} leads from {before:?} to {found:?}")
        })?;
        self.all.insert(index, found);
        Ok(())
    }
}

/// Do the majorities of both meet?
fn is_step(before: &Configuration, next: &Configuration) -> bool {
    match (before.outgoing.is_empty(), next.outgoing.is_empty()) {
        (true, true) => {
            let (before, next): (BTreeSet<_>, BTreeSet<_>) =
                (before.voters.iter().collect(), next.voters.iter().collect());
            before.symmetric_difference(&next).count() <= 1
        }
        (true, false) => next.outgoing == before.voters,
        (false, true) => next.voters == before.voters,
        (false, false) => false,
    }
}
