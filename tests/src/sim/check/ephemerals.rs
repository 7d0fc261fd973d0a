//! Ephemerals end with their session, and only then; and a session ends when its client was silent for its timeout,
//! not before and not much later.

use super::history::Fact;
use super::model::Model;
use super::{Verdict, hold};
use std::collections::{BTreeMap, BTreeSet};
use warren_server::service::Service;
use warren_storage::tree::{ChangeKind, Outcome, Reply};
use warren_storage::{Command, Op, SessionId};

const PROPERTY: &str = "ephemerals end with their session";

/// A session may outlive its timeout by so much, for buckets, commits and the slowness of everything: µs. Stalls
/// come on top.
const GRACE_US: u64 = 1_500_000;

/// When clients were heard of.
#[derive(Default)]
pub struct Ephemerals {
    /// Session → when the server last took a request of its client, µs.
    heard: BTreeMap<SessionId, u64>,
    /// Since when the server leads without interruption, µs.
    leads_since: Option<u64>,
    /// How much the longest stall may be, µs.
    pub stall_us_max: u64,
}

impl Ephemerals {
    pub(super) fn on_started(&mut self) {
        self.leads_since = None;
    }

    /// The server leads: everybody gets a full timeout.
    pub fn on_leads(&mut self, now_us: u64) {
        self.leads_since.get_or_insert(now_us);
    }

    /// The server took a request of this session, or attached it.
    pub fn on_heard(&mut self, now_us: u64, session: SessionId) {
        self.heard.insert(session, now_us);
    }

    /// What was applied: ephemerals go with their sessions.
    pub(super) fn on_applied(&mut self, now_us: u64, fact: &Fact, model: &Model) -> Verdict {
        let logged = fact.logged();
        if let Outcome::Done(Reply::SessionCreated { session, .. } | Reply::SessionMoved { session, .. }) =
            fact.outcome
        {
            self.on_heard(now_us, session);
        }
        let ended = match fact.outcome {
            Outcome::Done(Reply::SessionClosed { session }) => Some(session),
            _ => None,
        };
        let mut by_delete = BTreeSet::new();
        let ops: &[Op<'_>] = match &logged.command {
            Command::Single(op) => std::slice::from_ref(op),
            Command::Multi(ops) => ops,
            _ => &[],
        };
        for op in ops {
            if let Op::Delete { path, .. } = op {
                by_delete.insert(*path);
            }
        }
        for change in fact.changes.iter().filter(|c| c.kind == ChangeKind::Deleted) {
            if let Some(owner) = model.went.get(&*change.path).copied() {
                hold(by_delete.contains(&*change.path) || ended == Some(owner), PROPERTY, || {
                    format!("{} of session {owner:#x} went by {:?}", &*change.path, logged.command)
                })?;
            }
        }
        if let Some(session) = ended {
            let gone: BTreeSet<&str> = (fact.changes.iter().filter(|c| c.kind == ChangeKind::Deleted))
                .map(|change| &*change.path)
                .collect();
            let mut owned = model.went.iter().filter(|(_, owner)| **owner == session);
            let left = owned.find(|(path, _)| !gone.contains(path.as_str()));
            hold(left.is_none(), PROPERTY, || format!("{left:?} outlives its session"))?;
        }
        Ok(())
    }

    pub(super) fn on_expire(&mut self, now_us: u64, session: SessionId, timeout_ms: i32) -> Verdict {
        let heard = self.heard.get(&session).copied().unwrap_or(0).max(self.leads_since.unwrap_or(0));
        let silent_us = now_us.saturating_sub(heard);
        // The server counts in ms.
        hold(silent_us + 1_000 >= timeout_ms as u64 * 1_000, PROPERTY, || {
            format!("session {session:#x} with {timeout_ms} ms is expired {silent_us} µs after it was heard")
        })
    }

    pub(super) fn on_step(&mut self, now_us: u64, service: &Service) -> Verdict {
        let Some(leads_since) = self.leads_since else { return Ok(()) };
        for (session, row) in service.tree().sessions() {
            let heard = self.heard.get(&session).copied().unwrap_or(0).max(leads_since);
            let limit = row.timeout_ms as u64 * 1_000 + GRACE_US + self.stall_us_max * 6;
            hold(now_us < heard + limit, PROPERTY, || {
                format!(
                    "session {session:#x} with {} ms lives on {} µs after it was heard",
                    row.timeout_ms,
                    now_us - heard
                )
            })?;
        }
        Ok(())
    }
}
