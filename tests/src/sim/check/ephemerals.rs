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

/// A session may outlive its timeout by so much, for buckets, commits, reports to the leader and the slowness of
/// everything: µs. Stalls come on top.
const GRACE_US: u64 = 1_500_000;
/// The same where sessions are heard of at one server and expired by another.
const GRACE_APART_US: u64 = 4_000_000;

/// When clients were heard of.
pub struct Ephemerals {
    /// For each server, session → when it was attached anywhere, or the server was last told of its client, µs.
    told: Vec<BTreeMap<SessionId, u64>>,
    /// When a server last took a request, or was rid of an answer, on an attachment of a session, µs. What is said on an earlier
    /// attachment, by who has not been told yet that another client took the session over, keeps nothing alive.
    heard: BTreeMap<(SessionId, u32, usize), u64>,
    /// Since when each server leads without interruption, µs.
    leads_since: Vec<Option<u64>>,
    /// Which servers asked to expire which attachment of a session, and whether its client had spoken all the while, to
    /// whomever.
    asked: BTreeMap<(SessionId, u32, usize), bool>,
    /// When the client of an attachment spoke to its server, and since when it did so without long pauses, µs.
    spoke: BTreeMap<(SessionId, u32), (u64, u64)>,
    /// Attachments that were expired although their clients had spoken all the while: when, µs.
    expired: BTreeMap<(SessionId, u32), u64>,
    /// How much the longest stall may be, µs.
    pub stall_us_max: u64,
}

/// A client that never pauses for longer than this keeps its session, if its server can tell the leader.
fn pause_us_max(timeout_ms: i32) -> u64 {
    timeout_ms as u64 * 1_000 * 2 / 3
}

impl Ephemerals {
    pub(super) fn new(servers: usize) -> Ephemerals {
        Ephemerals {
            told: vec![BTreeMap::new(); servers],
            heard: BTreeMap::new(),
            leads_since: vec![None; servers],
            asked: BTreeMap::new(),
            spoke: BTreeMap::new(),
            expired: BTreeMap::new(),
            stall_us_max: 0,
        }
    }

    pub(super) fn on_stopped(&mut self, server: usize) {
        self.leads_since[server] = None;
    }

    /// A server leads, or no longer does: everybody gets a full timeout.
    pub fn on_leads(&mut self, now_us: u64, server: usize, leads: bool) {
        let since = &mut self.leads_since[server];
        *since = if leads { since.or(Some(now_us)) } else { None };
    }

    /// The server was told by another one that it heard of the session.
    pub fn on_told(&mut self, now_us: u64, server: usize, session: SessionId) {
        self.told[server].insert(session, now_us);
    }

    /// The server took a request, or was rid of an answer, on this attachment of the session.
    pub fn on_heard(&mut self, now_us: u64, server: usize, session: SessionId, generation: u32) {
        self.heard.insert((session, generation, server), now_us);
    }

    /// When anybody last heard of it, on whatever attachment.
    fn heard_us(&self, session: SessionId) -> u64 {
        let told = self.told.iter().filter_map(|told| told.get(&session)).copied().max();
        let of_session = (session, 0, 0)..=(session, u32::MAX, usize::MAX);
        let heard = self.heard.range(of_session).map(|(_, at)| *at).max();
        told.max(heard).unwrap_or(0)
    }

    /// A server takes a request of a client with this attachment of its session.
    pub fn on_spoke(
        &mut self,
        now_us: u64,
        server: usize,
        session: SessionId,
        generation: u32,
        timeout_ms: i32,
    ) {
        self.on_heard(now_us, server, session, generation);
        let (last, since) = self.spoke.entry((session, generation)).or_insert((now_us, now_us));
        if now_us - *last > pause_us_max(timeout_ms) {
            *since = now_us;
        }
        *last = now_us;
    }

    /// A server says something to a client with this attachment of its session. A server that cannot tell the leader of
    /// a client must not let it believe in locks that others may have: when the session is expired all the same,
    /// nothing more is said.
    pub fn on_answered(&self, now_us: u64, session: SessionId, generation: u32) -> Verdict {
        let Some(at) = self.expired.get(&(session, generation)) else { return Ok(()) };
        hold(now_us <= *at, PROPERTY, || {
            format!(
                "session {session:#x} was expired {} µs ago though its client had spoken, and is still served",
                now_us - at
            )
        })
    }

    /// What was applied: ephemerals go with their sessions.
    pub(super) fn on_applied(
        &mut self,
        now_us: u64,
        fact: &Fact,
        model: &Model,
        leader: Option<usize>,
    ) -> Verdict {
        let logged = fact.logged();
        if let Outcome::Done(Reply::SessionCreated { session, .. } | Reply::SessionMoved { session, .. }) =
            fact.outcome
        {
            for told in &mut self.told {
                told.insert(session, now_us);
            }
        }
        let ended = match fact.outcome {
            Outcome::Done(Reply::SessionClosed { session }) => Some(session),
            _ => None,
        };
        if let (Command::Expire { session, generation, .. }, Some(_), Some(leader)) =
            (&logged.command, ended, leader)
        {
            let asked = self.asked.get(&(*session, *generation, leader)).copied();
            hold(asked.is_some(), PROPERTY, || {
                format!("session {session:#x} is expired, and s{} which leads did not ask for it", leader + 1)
            })?;
            if asked == Some(true) {
                self.expired.insert((*session, *generation), now_us);
            }
        }
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

    pub(super) fn on_expire(
        &mut self,
        now_us: u64,
        server: usize,
        session: SessionId,
        generation: u32,
        timeout_ms: i32,
    ) -> Verdict {
        let spoken = self.spoke.get(&(session, generation)).is_some_and(|(last, since)| {
            now_us - last < pause_us_max(timeout_ms) && now_us - since > timeout_ms as u64 * 1_000
        });
        self.asked.insert((session, generation, server), spoken);
        let told = self.told[server].get(&session).copied();
        let heard = self.heard.get(&(session, generation, server)).copied();
        let heard = told.max(heard).max(self.leads_since[server]).unwrap_or(0);
        let silent_us = now_us.saturating_sub(heard);
        let timeout_us = timeout_ms as u64 * 1_000;
        // The server counts in ms, and its clock may be a little wrong.
        let leeway_us = 1_000 + if self.told.len() > 1 { timeout_us / 50 } else { 0 };
        hold(silent_us + leeway_us >= timeout_us, PROPERTY, || {
            format!("session {session:#x} with {timeout_ms} ms is expired {silent_us} µs after it was heard")
        })
    }

    /// `calm_since_us`: since when all servers reach each other and no log waits for space.
    pub(super) fn on_step(
        &mut self,
        now_us: u64,
        server: usize,
        service: &Service,
        calm_since_us: u64,
    ) -> Verdict {
        let Some(leads_since) = self.leads_since[server] else { return Ok(()) };
        let (since, grace) = match self.told.len() {
            1 => (leads_since.max(calm_since_us), GRACE_US),
            _ => (leads_since.max(calm_since_us), GRACE_APART_US),
        };
        for (session, row) in service.tree().sessions() {
            let heard = self.heard_us(session).max(since);
            let limit = row.timeout_ms as u64 * 1_000 + grace + self.stall_us_max * 6;
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
