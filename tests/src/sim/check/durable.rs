//! Acknowledged is durable: what was committed once is there after every recovery.
//!
//! Nothing is acknowledged, or shown to a reader, before it is committed; so it is enough that a recovered server
//! reaches the last entry that was ever committed, and that up to there its log is the same ([`super::history`])
//! and its tree ([`super::digests`]). It must have got there before it serves.

use super::history::History;
use super::{Verdict, hold};
use warren_server::service::Service;

const PROPERTY: &str = "acknowledged is durable";

/// What a recovered server owes.
#[derive(Default)]
pub struct Durable {
    /// It must reach this index before it has an epoch of its own.
    owed: u64,
}

impl Durable {
    /// Before consensus sees it: what lies between could be nobody's.
    pub(super) fn on_recovered(&self, tree: u64, first_log_index: u64) -> Verdict {
        hold(first_log_index <= tree + 1, PROPERTY, || {
            format!("the log begins at {first_log_index} and the checkpoint ends at {tree}")
        })
    }

    pub(super) fn on_started(&mut self, history: &History, service: &Service) -> Verdict {
        self.owed = history.position().index;
        let tree = service.tree().position().index;
        hold(tree <= self.owed, PROPERTY, || {
            format!("the checkpoint holds entry {tree}, and only {} was ever committed", self.owed)
        })
    }

    pub(super) fn on_step(&mut self, history: &History, service: &Service) -> Verdict {
        let applied = service.tree().position().index;
        // `has_epoch` says that the new leader's first entry is applied: everything old lies before it.
        if service.has_epoch() {
            hold(applied >= self.owed, PROPERTY, || {
                format!("the server serves at entry {applied}; {} was committed before it went", self.owed)
            })?;
        }
        hold(applied <= history.position().index, PROPERTY, || {
            format!("entry {applied} is applied, {} is the last committed", history.position().index)
        })
    }

    pub(super) fn on_quiet(&self, history: &History, service: &Service) -> Verdict {
        let (applied, committed) = (service.tree().position(), history.position());
        hold(applied == committed, PROPERTY, || {
            format!("all is quiet, {applied:?} is applied and {committed:?} is committed")
        })
    }
}
