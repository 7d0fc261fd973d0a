//! Who leads was elected by a majority of each half of a configuration that is the newest committed one or the one before
//! it; each identity votes once in a term; and no server votes with a store that is not the recorded one. Where none is recorded, only
//! those vote that founded the ensemble.
//!
//! A server that does not know yet that it was removed may say yes all the same, as in raft; it is not counted.

use super::configurations::Configurations;
use super::{Verdict, hold};
use std::collections::{BTreeMap, BTreeSet};
use warren_server::consensus::{Configuration, raft_id, server_of};
use warren_storage::Tree;
use warren_storage::tree::Identity;
use warren_transport::peer::{RaftKind, RaftMessage};

const PROPERTY: &str = "elected by the configuration";

/// Who voted for whom.
#[derive(Default)]
pub struct Votes {
    /// By voter and term.
    given: BTreeMap<(u64, u64), u64>,
    /// By candidate and term: whose votes it has heard of.
    heard: BTreeMap<(u64, u64), BTreeSet<u64>>,
    /// By term, as raft knows them.
    leaders: BTreeMap<u64, u64>,
    /// The stores that founded.
    founders: BTreeSet<u64>,
}

impl Votes {
    /// A server starts with this tree.
    pub(super) fn on_started(&mut self, tree: &Tree) {
        let founds = tree.position().index == 0 && !Configuration::of(tree.conf_state()).voters.is_empty();
        if founds {
            self.founders.insert(tree.store_id());
        }
    }

    /// A server with this store sends a message of raft's. `committed` is a tree as of what is committed.
    pub(super) fn on_sent(&mut self, own: Identity, message: &RaftMessage, committed: &Tree) -> Verdict {
        let voter = match message.kind {
            RaftKind::RequestVote => message.from,
            RaftKind::RequestVoteResponse if !message.reject => message.from,
            _ => return Ok(()),
        };
        let server = server_of(voter);
        hold(voter == raft_id(server, own.disk), PROPERTY, || {
            format!("s{server} with disk {} votes as {voter:#x}", own.disk)
        })?;
        let member = committed.members().get(server).filter(|member| member.disk == own.disk);
        let recorded = member.and_then(|_| committed.recorded_store(server));
        let may = match recorded {
            Some(recorded) => recorded == own.store_id,
            None => member.is_none() || self.founders.contains(&own.store_id),
        };
        hold(may, PROPERTY, || {
            format!("s{server} votes with store {:#x}, and {recorded:x?} is recorded", own.store_id)
        })?;
        let candidate = if message.kind == RaftKind::RequestVote { voter } else { message.to };
        let first = *self.given.entry((voter, message.term)).or_insert(candidate);
        hold(first == candidate, PROPERTY, || {
            format!("{voter:#x} votes for {first:#x} and for {candidate:#x} in term {}", message.term)
        })
    }

    /// A server is told of a vote.
    pub(super) fn on_heard(&mut self, message: &RaftMessage) {
        if message.kind == RaftKind::RequestVoteResponse && !message.reject {
            self.heard.entry((message.to, message.term)).or_default().insert(message.from);
        }
    }

    /// A server with this id leads, as it says itself.
    pub(super) fn on_leads(
        &mut self,
        own: u64,
        term: u64,
        conf: &Configuration,
        all: &Configurations,
    ) -> Verdict {
        let first = *self.leaders.entry(term).or_insert(own);
        hold(first == own, PROPERTY, || format!("{first:#x} and {own:#x} lead in term {term}"))?;
        let votes = |id: &u64| conf.voters.contains(id) || conf.outgoing.contains(id);
        hold(votes(&own), PROPERTY, || format!("{own:#x} leads in term {term}, and has no vote: {conf:?}"))?;
        let heard = self.heard.get(&(own, term));
        let has = |id: u64| id == own || heard.is_some_and(|heard| heard.contains(&id));
        hold(conf.is_quorum(has), PROPERTY, || {
            format!("{own:#x} leads in term {term} by the votes of {heard:x?}; {conf:?}")
        })?;
        hold(all.is_forced() || all.newest().any(|newest| newest == conf), PROPERTY, || {
            format!(
                "{own:#x} is elected in term {term} by {conf:?}, and {:?} is committed",
                all.newest().next()
            )
        })
    }
}

/// Who leads has a vote by the configuration that it goes by itself, or had one before a joint configuration that is not
/// left.
pub(super) fn on_leading(own: u64, conf: &Configuration) -> Verdict {
    let votes = conf.voters.contains(&own) || conf.outgoing.contains(&own);
    hold(votes, PROPERTY, || format!("{own:#x} goes on leading without a vote: {conf:?}"))
}
