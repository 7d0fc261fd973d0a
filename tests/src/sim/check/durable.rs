//! Acknowledged is durable: what was committed once is there after every recovery.
//!
//! Nothing is acknowledged, or shown to a reader, before it is committed; so it is enough that a recovered server
//! reaches the last entry that was ever committed, and that up to there its log is the same ([`super::history`])
//! and its tree ([`super::digests`]). It must have got there before it leads.

use super::history::History;
use super::{Verdict, hold};
use warren_server::service::Service;

pub(super) const PROPERTY: &str = "acknowledged is durable";

/// What a recovered server owes.
pub struct Durable {
    /// By server: it must reach this index before it has an epoch of its own.
    owed: Vec<u64>,
}

impl Durable {
    pub(super) fn new(servers: usize) -> Durable {
        Durable { owed: vec![0; servers] }
    }

    /// Before consensus sees it: what lies between could be nobody's.
    pub(super) fn on_recovered(&self, tree: u64, first_log_index: u64) -> Verdict {
        hold(first_log_index <= tree + 1, PROPERTY, || {
            format!("the log begins at {first_log_index} and the checkpoint ends at {tree}")
        })
    }

    pub(super) fn on_started(&mut self, server: usize, history: &History, service: &Service) -> Verdict {
        let owed = history.position().index;
        self.owed[server] = owed;
        let tree = service.tree().position().index;
        hold(tree <= owed, PROPERTY, || {
            format!("the checkpoint holds entry {tree}, and only {owed} was ever committed")
        })
    }

    pub(super) fn on_step(
        &self,
        server: usize,
        history: &History,
        service: &Service,
        leads: bool,
    ) -> Verdict {
        let applied = service.tree().position().index;
        // `has_epoch` says that the new leader's first entry is applied: everything old lies before it.
        if leads && service.has_epoch() {
            let owed = self.owed[server];
            hold(applied >= owed, PROPERTY, || {
                format!("a server leads at entry {applied}; {owed} was committed before it was started")
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
