//! One leader per epoch: in each of raft's terms one server leads at most; the entries of a term, the one that begins
//! its zxids' epoch among them, come from that server.

use super::{Verdict, hold};
use std::collections::BTreeMap;

const PROPERTY: &str = "one leader per epoch";

/// Who led.
#[derive(Default)]
pub struct Leaders(BTreeMap<u64, usize>);

impl Leaders {
    /// A server takes itself for the leader of this term.
    pub fn on_leads(&mut self, server: usize, term: u64) -> Verdict {
        let first = *self.0.entry(term).or_insert(server);
        hold(first == server, PROPERTY, || {
            format!("both s{} and s{} lead in term {term}", first + 1, server + 1)
        })
    }

    /// An entry of this term was committed: somebody led in it.
    pub(super) fn on_committed(&self, index: u64, term: u64) -> Verdict {
        hold(self.0.contains_key(&term), PROPERTY, || {
            format!("entry {index} is committed in term {term}, in which nobody led")
        })
    }

    /// Who led in this term.
    pub fn of(&self, term: u64) -> Option<usize> {
        self.0.get(&term).copied()
    }

    /// Terms that had a leader.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}
