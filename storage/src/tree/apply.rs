//! Apply: the only code that changes a znode. It decides success or error from state and log entry alone, in
//! ZooKeeper's order of checks, so that every server decides alike.
//!
//! **What takes a zxid.** Every write that is admitted, whether it succeeds or fails, and every session command
//! that changes something or answers somebody. What is [`Outcome::Dropped`] changed nothing and takes none. Nor
//! does a tagged write whose session is gone: it may be the second copy of one that was answered, as its tag can
//! no longer be compared.
//!
//! **Where this is not ZooKeeper's:** a sequence that wraps goes on from −2147483648 (ZooKeeper's committed
//! counter stays at 2147483647 and each further create finds its name taken); closing a session deletes its
//! ephemerals in the order of their paths (ZooKeeper's order is that of a hash set); soft quotas warn even where
//! hard ones are not enforced.

use super::overlay::{IndexName, depth_group, parent_path};
use super::quota::{self, Role, Track};
use super::sessions::Admission;
use super::state::Working;
use super::{AclId, SharedAcl, Tree, TreeError, Znode, digest};
use crate::acl::{allows, fixup};
use crate::command::{Command, CreateMode, Decided, Logged, Op, Rules, SweepKind};
use crate::{Code, IdRef, Kind, SessionId, SessionRow, Stat, ZPath, Zxid, path, perms};
use std::borrow::Cow;
use std::ops::Bound;
use std::sync::Arc;

/// What became of one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its zxid; `None` when it took none, see the head of this module's file.
    pub zxid: Option<Zxid>,
    /// What the asker is told.
    pub outcome: Outcome,
    /// What changed, in the order in which watches fire.
    pub changes: Vec<Change>,
}

/// What the asker is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing happened and nobody is answered: applied before, behind a gap, of another attachment of the
    /// session, or (MoveSession, Expire, Sweep) no longer called for.
    Dropped,
    /// Refused.
    Failed(Code),
    /// Done.
    Done(Reply),
}

/// What a command resulted in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Any create. The path has its sequence number.
    Created {
        /// Full path.
        path: ZPath,
        /// As it was created.
        stat: Stat,
    },
    /// delete.
    Deleted,
    /// setData and setACL.
    Stat(Stat),
    /// check.
    Checked,
    /// A multi of which everything was done; one reply for each operation.
    Multi(Vec<Reply>),
    /// A multi of which nothing was done. Header error 0; results are 0 before, `code` at, −2 after.
    MultiFailed {
        /// Which operation failed, from 0.
        at: usize,
        /// Why.
        code: Code,
    },
    /// createSession.
    SessionCreated {
        /// Its id.
        session: SessionId,
        /// For the tags of its writes.
        generation: u32,
    },
    /// moveSession.
    SessionMoved {
        /// Its id.
        session: SessionId,
        /// For the tags of its writes from now on.
        generation: u32,
        /// Negotiated, ms.
        timeout_ms: i32,
    },
    /// closeSession and Expire.
    SessionClosed {
        /// Its id.
        session: SessionId,
    },
    /// Sweep.
    Swept,
    /// reconfig.
    Reconfigured {
        /// What `/zookeeper/config` holds now.
        text: Arc<[u8]>,
        /// Of that znode.
        stat: Stat,
    },
}

/// One change that watches may wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which znode.
    pub path: ZPath,
    /// What happened to it.
    pub kind: ChangeKind,
    /// Its ACL; before the change for [`ChangeKind::Deleted`].
    pub acl: SharedAcl,
    /// The parent's ACL, for NodeChildrenChanged; `None` for [`ChangeKind::DataChanged`], which is no event of
    /// the parent's.
    pub parent_acl: Option<SharedAcl>,
}

/// What happened to a znode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum ChangeKind {
    Created,
    Deleted,
    DataChanged,
}

/// Why an operation does not succeed: it is refused, or the store failed.
pub(super) enum Refusal {
    Code(Code),
    Store(TreeError),
}

impl From<Code> for Refusal {
    fn from(code: Code) -> Refusal {
        Refusal::Code(code)
    }
}

impl From<TreeError> for Refusal {
    fn from(error: TreeError) -> Refusal {
        Refusal::Store(error)
    }
}

impl From<path::PathError> for Refusal {
    fn from(_: path::PathError) -> Refusal {
        Refusal::Code(Code::BadArguments)
    }
}

/// At most one warning of a kind within this time of the log's.
const WARNING_INTERVAL_MS: i64 = 10_000;

/// Kinds of warning, for [`Tree::warned_ms`].
#[derive(Clone, Copy)]
enum Warning {
    Quota = 0,
    Limit = 1,
}

impl Tree {
    /// Carry out one command of a committed entry, at the entry's time and under its rules.
    ///
    /// May read the disk for what is in no cache; fetch it before, through [`super::Snapshot::node`].
    ///
    /// # Errors
    /// The store's only. The tree must not be used afterwards.
    pub fn apply(&mut self, time_ms: i64, rules: &Rules, logged: &Logged<'_>) -> Result<Applied, TreeError> {
        assert!(!self.failed, "a tree is not used after an error");
        self.mid_entry = true;
        self.commands_since_freeze += 1;
        let applied = self.apply_one(time_ms, rules, logged);
        self.failed = applied.is_err();
        applied
    }

    fn apply_one(&mut self, time_ms: i64, rules: &Rules, logged: &Logged<'_>) -> Result<Applied, TreeError> {
        let admission = logged.tag.map_or(Admission::Next, |tag| self.sessions.admit(tag));
        if let (Some(tag), Admission::Next) = (logged.tag, admission) {
            self.sessions.change(tag.session, |row| row.last_sequence = tag.sequence);
        }
        let not_admitted = match admission {
            Admission::Next => None,
            Admission::NoSession => {
                let outcome = Outcome::Failed(Code::SessionExpired);
                Some(Applied { zxid: None, outcome, changes: Vec::new() })
            }
            // A generation above the row's would need a tag made before its move was applied, which our own
            // servers never make; it is dropped like one below.
            Admission::OtherGeneration => Some(dropped("generation")),
            Admission::Seen => Some(dropped("seen")),
            Admission::Gap => Some(dropped("gap")),
        };
        if let Command::Reconfigure { decided: Some(Decided::Made(table)), .. } = &logged.command {
            self.working.counters.zxid = self.working.counters.zxid.next();
            let applied = self.reconfigure(time_ms, table)?;
            // Consensus goes by it already: all that may be missing is somebody to be answered.
            return Ok(match not_admitted {
                Some(Applied { outcome, .. }) => Applied { outcome, ..applied },
                None => applied,
            });
        }
        if let Some(applied) = not_admitted {
            return Ok(applied);
        }
        let called_for = match &logged.command {
            Command::Expire { session, generation, epoch } => {
                self.zxid().epoch() == *epoch
                    && self.sessions.get(*session).is_some_and(|row| row.generation == *generation)
            }
            // What is wrong with the session itself is said below.
            Command::MoveSession { session, generation, password, .. } => self
                .sessions
                .get(*session)
                .is_none_or(|row| row.generation == *generation || row.password != *password),
            Command::Sweep { path, czxid, pzxid, kind } => {
                self.sweep_is_due(path, *czxid, *pzxid, *kind, time_ms)?
            }
            _ => true,
        };
        if !called_for {
            return Ok(dropped("not called for"));
        }

        let zxid = self.working.counters.zxid.next();
        self.working.counters.zxid = zxid;
        let mut changes = Vec::new();
        let mut write = Write {
            working: &mut self.working,
            changes: &mut changes,
            warned_ms: &mut self.warned_ms,
            zxid: zxid.wire(),
            time_ms,
            rules,
            ids: &logged.ids,
            session: logged.tag.map(|tag| tag.session),
        };
        let done = match &logged.command {
            Command::Single(op) => write.op(op),
            Command::Multi(ops) => write.multi(ops),
            Command::Sweep { path, .. } => write.remove(path).map(|()| Reply::Swept),
            Command::CreateSession { session, timeout_ms, password, owner, .. } => {
                self.create_session(*session, *timeout_ms, *password, *owner)
            }
            Command::MoveSession { session, password, owner, timeout_ms, .. } => {
                self.move_session(*session, password, *owner, *timeout_ms)
            }
            Command::CloseSession => match logged.tag {
                Some(tag) => write.close(tag.session),
                None => Err(Code::BadArguments.into()),
            },
            Command::Expire { session, .. } => write.close(*session),
            Command::Reconfigure { decided: Some(Decided::Refused(code)), .. } => Err((*code).into()),
            Command::Reconfigure { .. } => Err(Code::SystemError.into()),
        };
        if let Ok(Reply::SessionClosed { session }) = done {
            self.sessions.remove(session);
        }
        let outcome = match done {
            Ok(reply) => Outcome::Done(reply),
            Err(Refusal::Code(code)) => Outcome::Failed(code),
            Err(Refusal::Store(error)) => return Err(error),
        };
        assert!(matches!(outcome, Outcome::Done(_)) || changes.is_empty(), "what failed changed nothing");
        Ok(Applied { zxid: Some(zxid), outcome, changes })
    }

    fn create_session(
        &mut self,
        session: SessionId,
        timeout_ms: i32,
        password: [u8; 16],
        owner: u8,
    ) -> Result<Reply, Refusal> {
        // The id becomes the `ephemeralOwner` of znodes, where some numbers mean other kinds.
        if Kind::from_owner(session) != Kind::Ephemeral(session) {
            return Err(Code::BadArguments.into());
        }
        if self.sessions.get(session).is_some() {
            return Err(Code::NodeExists.into());
        }
        let row = SessionRow { timeout_ms, password, generation: 1, owner, last_sequence: 0 };
        self.sessions.insert(session, row);
        Ok(Reply::SessionCreated { session, generation: 1 })
    }

    fn move_session(
        &mut self,
        session: SessionId,
        password: &[u8; 16],
        owner: u8,
        timeout_ms: i32,
    ) -> Result<Reply, Refusal> {
        match self.sessions.get(session) {
            Some(row) if row.password == *password => {
                let generation = row.generation + 1;
                self.sessions.change(session, |row| {
                    row.generation = generation;
                    row.owner = owner;
                    row.timeout_ms = timeout_ms;
                    row.last_sequence = 0;
                });
                Ok(Reply::SessionMoved { session, generation, timeout_ms })
            }
            _ => Err(Code::SessionExpired.into()),
        }
    }

    /// Is it still the very node, as the leader's timer saw it?
    fn sweep_is_due(
        &self,
        path: &str,
        czxid: i64,
        pzxid: i64,
        kind: SweepKind,
        time_ms: i64,
    ) -> Result<bool, TreeError> {
        let Some(node) = self.working.view.node(path)? else { return Ok(false) };
        let due = match (kind, node.kind()) {
            (SweepKind::Container, Kind::Container) => true,
            (SweepKind::Ttl, Kind::Ttl(ttl)) => time_ms.saturating_sub(node.mtime) > ttl,
            _ => false,
        };
        Ok(due && node.num_children == 0 && node.czxid == czxid && node.pzxid == pzxid)
    }
}

fn dropped(why: &'static str) -> Applied {
    tracing::trace!(why, "dropped");
    Applied { zxid: None, outcome: Outcome::Dropped, changes: Vec::new() }
}

/// One command that is being carried out under one zxid.
pub(super) struct Write<'t, 'l> {
    pub(super) working: &'t mut Working,
    pub(super) changes: &'t mut Vec<Change>,
    pub(super) warned_ms: &'t mut [i64; 2],
    pub(super) zxid: i64,
    pub(super) time_ms: i64,
    pub(super) rules: &'l Rules,
    pub(super) ids: &'l [IdRef<'l>],
    /// Whose write it is; `None` for the server's own.
    pub(super) session: Option<SessionId>,
}

impl Write<'_, '_> {
    fn op(&mut self, op: &Op<'_>) -> Result<Reply, Refusal> {
        match op {
            Op::Create { path, data, acl, mode, ttl } => {
                let fixed = || fixup(acl, self.ids).map_err(|_| Code::InvalidAcl);
                // Most lists are this one; it needs no allocation.
                let acl = match acl.as_slice() {
                    [only] if only.perms == perms::ALL && only.id == WORLD_ANYONE => Ok(None),
                    _ => fixed().map(Some),
                };
                self.create(path, *data, acl, *mode, *ttl)
            }
            Op::Delete { path, version } => self.delete(path, *version),
            Op::SetData { path, data, version } => self.set_data(path, *data, *version),
            Op::SetAcl { path, acl, version } => {
                path::validate(path)?;
                let acl = fixup(acl, self.ids).map_err(|_| Code::InvalidAcl)?;
                self.set_acl(path, acl, *version)
            }
            Op::Check { path, version } => {
                path::validate(path)?;
                let node = self.existing(path)?;
                self.authorise(&node, perms::READ)?;
                compare(node.version, *version)?;
                Ok(Reply::Checked)
            }
        }
    }

    /// All or nothing. The maps are persistent, so keeping what was costs nothing and rolling back is putting it
    /// back: znodes, sequence counters, ACLs, quotas and digest in one.
    fn multi(&mut self, ops: &[Op<'_>]) -> Result<Reply, Refusal> {
        let before = self.working.clone();
        let mut replies = Vec::with_capacity(ops.len());
        for (at, op) in ops.iter().enumerate() {
            match self.op(op) {
                Ok(reply) => replies.push(reply),
                Err(Refusal::Code(code)) => {
                    let refusals = self.working.refusals;
                    *self.working = Working { refusals, ..before };
                    self.changes.clear();
                    return Ok(Reply::MultiFailed { at, code });
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Reply::Multi(replies))
    }

    /// The checks stand in ZooKeeper's order; clients branch on which error comes first.
    fn create(
        &mut self,
        asked: &str,
        data: Option<&[u8]>,
        acl: Result<Option<Vec<crate::Acl>>, Code>,
        mode: CreateMode,
        ttl: i64,
    ) -> Result<Reply, Refusal> {
        let is_ttl = matches!(mode, CreateMode::Ttl | CreateMode::TtlSequential);
        if is_ttl && !self.rules.extended_types {
            return Err(Code::Unimplemented.into());
        }
        if is_ttl && !(1..=Kind::TTL_MAX).contains(&ttl) {
            return Err(Code::BadArguments.into());
        }
        let kind = match mode {
            CreateMode::Persistent | CreateMode::PersistentSequential => Kind::Persistent,
            CreateMode::Ephemeral | CreateMode::EphemeralSequential => {
                Kind::Ephemeral(self.session.ok_or(Code::SessionExpired)?)
            }
            CreateMode::Container => Kind::Container,
            CreateMode::Ttl | CreateMode::TtlSequential => Kind::Ttl(ttl),
        };
        let parent_path = parent_as_asked(asked)?;
        let acl = acl?;
        let parent = self.existing(parent_path)?;
        self.authorise(&parent, perms::CREATE)?;
        let path = if mode.is_sequential() {
            Cow::Owned(format!("{asked}{:010}", parent.cversion))
        } else {
            Cow::Borrowed(asked)
        };
        path::validate(&path)?;
        self.check_limits(&path, data)?;
        if self.working.view.exists(&path)? {
            return Err(Code::NodeExists.into());
        }
        if matches!(parent.kind(), Kind::Ephemeral(_)) {
            return Err(Code::NoChildrenForEphemerals.into());
        }
        let bytes = data.map_or(0, |data| data.len() as i64);
        self.check_quota(&path, bytes, 1)?;
        self.check_room(true)?;
        self.check_acl(&path, acl.as_deref())?;

        let path = ZPath::trusted(&path);
        let acl = acl.map_or(AclId::OPEN, |acl| self.working.acls.take(acl));
        let node = Znode {
            czxid: self.zxid,
            mzxid: self.zxid,
            pzxid: self.zxid,
            ctime: self.time_ms,
            mtime: self.time_ms,
            owner: kind.owner(),
            acl,
            version: 0,
            cversion: 0,
            aversion: 0,
            num_children: 0,
            digest: 0,
            data: data.map(Arc::from),
        };
        let stat = node.stat();
        let parent_acl = parent.acl;
        self.replace(
            parent_path,
            &parent,
            Znode {
                cversion: parent.cversion.wrapping_add(1),
                num_children: parent.num_children + 1,
                pzxid: self.zxid,
                ..(*parent).clone()
            },
        );
        self.add(&path, kind, node);
        match quota::role(&path) {
            Some(Role::Limits(of)) => Arc::make_mut(&mut self.working.quotas).insert(of),
            Some(Role::Stats(of)) => self.count_quota(of)?,
            None => {}
        }
        self.track_quota(&path, bytes, 1)?;
        self.changed(path.clone(), ChangeKind::Created, acl, Some(parent_acl));
        Ok(Reply::Created { path, stat })
    }

    fn delete(&mut self, path: &str, version: i32) -> Result<Reply, Refusal> {
        let parent_path = parent_as_asked(path)?;
        if matches!(path, "/" | "/zookeeper" | "/zookeeper/quota" | "/zookeeper/config") {
            return Err(Code::BadArguments.into());
        }
        let parent = self.existing(parent_path)?;
        self.authorise(&parent, perms::DELETE)?;
        let node = self.existing(path)?;
        compare(node.version, version)?;
        if node.num_children > 0 {
            return Err(Code::NotEmpty.into());
        }
        self.remove(path)?;
        Ok(Reply::Deleted)
    }

    fn set_data(&mut self, path: &str, data: Option<&[u8]>, version: i32) -> Result<Reply, Refusal> {
        path::validate(path)?;
        self.check_limits(path, data)?;
        let node = self.existing(path)?;
        self.authorise(&node, perms::WRITE)?;
        let growth = data.map_or(0, |data| data.len() as i64) - node.data_bytes() as i64;
        self.check_quota(path, growth, 0)?;
        compare(node.version, version)?;
        self.check_room(growth > 0)?;

        let stat = self.replace(
            path,
            &node,
            Znode {
                version: node.version.wrapping_add(1),
                mtime: self.time_ms,
                mzxid: self.zxid,
                data: data.map(Arc::from),
                ..*node
            },
        );
        self.track_quota(path, growth, 0)?;
        self.changed(ZPath::trusted(path), ChangeKind::DataChanged, node.acl, None);
        Ok(Reply::Stat(stat))
    }

    fn set_acl(&mut self, path: &str, acl: Vec<crate::Acl>, version: i32) -> Result<Reply, Refusal> {
        let node = self.existing(path)?;
        self.authorise(&node, perms::ADMIN)?;
        compare(node.aversion, version)?;
        self.check_acl(path, Some(&acl))?;
        // Taken before the old one is released, so that an unchanged list keeps its id.
        let acl = self.working.acls.take(acl);
        self.working.acls.release(node.acl);
        let stat = self.replace(
            path,
            &node,
            Znode { aversion: node.aversion.wrapping_add(1), acl, ..(*node).clone() },
        );
        Ok(Reply::Stat(stat))
    }

    /// Delete all ephemerals of a session; the caller removes the session itself.
    fn close(&mut self, session: SessionId) -> Result<Reply, Refusal> {
        let mut paths = Vec::new();
        self.working.view.scan(
            IndexName::Ephemerals,
            session as u64,
            "/",
            Bound::Unbounded,
            &mut |path| {
                paths.push(ZPath::trusted(path));
                true
            },
        )?;
        for path in paths {
            self.remove(&path)?;
        }
        Ok(Reply::SessionClosed { session })
    }

    /// Take out a znode that is there, has no children and may go.
    fn remove(&mut self, path: &str) -> Result<(), Refusal> {
        let gone = |path: &str| TreeError::damaged(format!("znode {path:?} or its parent is missing"));
        let parent_path = parent_path(path);
        let parent = self.working.view.node(parent_path)?.ok_or_else(|| gone(path))?;
        let node = self.working.view.node(path)?.ok_or_else(|| gone(path))?;
        assert!(node.num_children == 0, "{path} has children");
        assert!(parent.num_children > 0, "{parent_path} has a child");

        let path = ZPath::trusted(path);
        let acl = self.working.acls.list(node.acl);
        let parent_acl = self.working.acls.list(parent.acl);
        let num_children = parent.num_children - 1;
        self.replace(parent_path, &parent, Znode { num_children, pzxid: self.zxid, ..(*parent).clone() });
        let counters = &mut self.working.counters;
        counters.znodes -= 1;
        counters.data_bytes -= utf16_units(&path) + node.data_bytes();
        counters.digest = counters.digest.wrapping_sub(node.digest as u64);
        self.index(&path, node.kind(), false);
        self.working.view.live.put_owned(&path, None);
        self.working.acls.release(node.acl);
        if let Some(Role::Limits(of)) = quota::role(&path) {
            Arc::make_mut(&mut self.working.quotas).remove(of);
        }
        self.track_quota(&path, -(node.data_bytes() as i64), -1)?;
        self.changes.push(Change { path, kind: ChangeKind::Deleted, acl, parent_acl: Some(parent_acl) });
        Ok(())
    }

    /// `node` comes into being at `path`.
    fn add(&mut self, path: &ZPath, kind: Kind, mut node: Znode) {
        node.digest = digest::of(path, &node);
        let counters = &mut self.working.counters;
        counters.znodes += 1;
        counters.data_bytes += utf16_units(path) + node.data_bytes();
        counters.digest = counters.digest.wrapping_add(node.digest as u64);
        self.index(path, kind, true);
        self.working.view.live.put_owned(path, Some(Arc::new(node)));
    }

    /// Enter `path` into the indexes, or take it out.
    fn index(&mut self, path: &ZPath, kind: Kind, present: bool) {
        let live = &mut self.working.view.live;
        live.set_index(IndexName::Children, depth_group(path), path, present);
        match kind {
            Kind::Persistent => {}
            Kind::Ephemeral(session) => {
                live.set_index(IndexName::Ephemerals, session as u64, path, present);
                let ephemerals = &mut self.working.counters.ephemerals;
                *ephemerals = if present { *ephemerals + 1 } else { *ephemerals - 1 };
            }
            Kind::Container | Kind::Ttl(_) => live.set_index(IndexName::Timed, 0, path, present),
        }
    }

    /// `new` takes the place of `old`; its Stat.
    pub(super) fn replace(&mut self, path: &str, old: &Znode, mut new: Znode) -> Stat {
        new.digest = digest::of(path, &new);
        let stat = new.stat();
        let counters = &mut self.working.counters;
        counters.data_bytes = counters.data_bytes + new.data_bytes() - old.data_bytes();
        counters.digest = counters.digest.wrapping_sub(old.digest as u64).wrapping_add(new.digest as u64);
        self.working.view.live.put(path, Some(Arc::new(new)));
        stat
    }

    pub(super) fn changed(&mut self, path: ZPath, kind: ChangeKind, acl: AclId, parent_acl: Option<AclId>) {
        let acls = &self.working.acls;
        let parent_acl = parent_acl.map(|id| acls.list(id));
        self.changes.push(Change { path, kind, acl: acls.list(acl), parent_acl });
    }

    pub(super) fn existing(&self, path: &str) -> Result<Arc<Znode>, Refusal> {
        self.working.view.node(path)?.ok_or(Refusal::Code(Code::NoNode))
    }

    fn authorise(&self, node: &Znode, perm: i32) -> Result<(), Refusal> {
        let allowed = self.rules.skip_acl
            || node.acl == AclId::OPEN
            || allows(&self.working.acls.list(node.acl), self.ids, perm);
        if allowed { Ok(()) } else { Err(Code::NoAuth.into()) }
    }

    /// Our own limits, which ZooKeeper has not: they count as bad arguments (−8).
    fn check_limits(&mut self, path: &str, data: Option<&[u8]>) -> Result<(), Refusal> {
        let data_bytes = data.map_or(0, <[u8]>::len);
        let depth = depth_group(path);
        if data_bytes <= self.rules.data_bytes_max as usize && depth <= self.rules.path_depth_max as u64 {
            return Ok(());
        }
        self.working.refusals.limit += 1;
        if self.warn(Warning::Limit) {
            tracing::warn!(
                path,
                data_bytes,
                data_bytes_max = self.rules.data_bytes_max,
                depth,
                path_depth_max = self.rules.path_depth_max,
                "a write was refused: data or path above the limit"
            );
        }
        Err(Code::BadArguments.into())
    }

    /// Lists that differ are all resident, and so are bounded: another one is refused once they take what they may.
    fn check_acl(&mut self, path: &str, list: Option<&[crate::Acl]>) -> Result<(), Refusal> {
        let Some(list) = list else { return Ok(()) };
        let (growth, bytes) = self.working.acls.growth(list);
        if growth == 0 || bytes <= self.rules.acl_bytes_max {
            return Ok(());
        }
        self.working.refusals.limit += 1;
        if self.warn(Warning::Limit) {
            tracing::warn!(
                path,
                acl_lists = self.working.acls.len(),
                acl_bytes_max = self.rules.acl_bytes_max,
                "a write was refused: there are too many access control lists that differ; let znodes share them"
            );
        }
        Err(Code::BadArguments.into())
    }

    /// On a disk that is nearly full, what grows is refused as a quota that is exceeded (−125): of ZooKeeper's
    /// codes it is the one that says there is no room, and no client tries again on it by itself.
    fn check_room(&mut self, grows: bool) -> Result<(), Refusal> {
        if grows && self.rules.refuse_growth {
            self.working.refusals.growth += 1;
            return Err(Code::QuotaExceeded.into());
        }
        Ok(())
    }

    /// Would so many more bytes and znodes at `path` exceed the quota it is under?
    fn check_quota(&mut self, path: &str, bytes: i64, count: i64) -> Result<(), Refusal> {
        let Some(of) = self.working.quotas.of(path) else { return Ok(()) };
        let (Some(limits), Some(stats)) = (
            self.working.view.node(&quota::limits_path(of))?,
            self.working.view.node(&quota::stats_path(of))?,
        ) else {
            return Ok(());
        };
        let limits = Track::parse(limits.data.as_deref());
        let stats = Track::parse(stats.data.as_deref());
        for (what, growth, current, soft, hard) in [
            ("count", count, stats.count, limits.count, limits.count_hard),
            ("bytes", bytes, stats.bytes, limits.bytes, limits.bytes_hard),
        ] {
            // As in ZooKeeper, a hard limit takes the place of the soft one.
            let limit = if hard >= 0 { hard } else { soft };
            let wanted = current.saturating_add(growth);
            if growth == 0 || limit < 0 || wanted <= limit {
                continue;
            }
            let refused = hard >= 0 && self.rules.enforce_quota;
            if self.warn(Warning::Quota) {
                tracing::warn!(path = of, what, wanted, limit, refused, "quota exceeded");
            }
            if refused {
                self.working.refusals.quota += 1;
                return Err(Code::QuotaExceeded.into());
            }
        }
        Ok(())
    }

    /// So many more bytes and znodes are at `path`: the statistics of its quota follow.
    pub(super) fn track_quota(&mut self, path: &str, bytes: i64, count: i64) -> Result<(), Refusal> {
        if bytes == 0 && count == 0 {
            return Ok(());
        }
        let Some(of) = self.working.quotas.of(path) else { return Ok(()) };
        let stats_path = quota::stats_path(of);
        let Some(node) = self.working.view.node(&stats_path)? else { return Ok(()) };
        let mut stats = Track::parse(node.data.as_deref());
        stats.bytes = stats.bytes.saturating_add(bytes);
        stats.count = stats.count.saturating_add(count);
        self.write_stats(&stats_path, &node, &stats);
        Ok(())
    }

    /// Statistics were created: count what is there. Reads all of the subtree.
    fn count_quota(&mut self, of: &str) -> Result<(), Refusal> {
        let mut stats = Track::parse(None);
        (stats.count, stats.bytes) = (0, 0);
        if let Some(node) = self.working.view.node(of)? {
            let mut paths = vec![of.to_owned()];
            drop(node);
            self.working.view.descendants(of, &mut |path| paths.push(path.to_owned()))?;
            for path in paths {
                if let Some(node) = self.working.view.node(&path)? {
                    stats.count += 1;
                    stats.bytes += node.data_bytes() as i64;
                }
            }
        }
        let stats_path = quota::stats_path(of);
        let node = self.existing(&stats_path)?;
        self.write_stats(&stats_path, &node, &stats);
        Ok(())
    }

    /// In place: no zxid, no version, no watch, and by its path no digest.
    fn write_stats(&mut self, path: &str, node: &Znode, stats: &Track) {
        let data = Some(Arc::from(stats.text().into_bytes()));
        self.replace(path, node, Znode { data, ..*node });
    }

    /// Is a warning of this kind to be given, or was one just now?
    fn warn(&mut self, kind: Warning) -> bool {
        let last = &mut self.warned_ms[kind as usize];
        let now = self.time_ms;
        let due = now.saturating_sub(*last) >= WARNING_INTERVAL_MS;
        if due {
            *last = now;
        }
        due
    }
}

const WORLD_ANYONE: IdRef<'static> = IdRef { scheme: "world", id: "anyone" };

/// The parent of a path as a client sent it, before it is known to be valid: everything before the last `/`,
/// where nothing is the root.
fn parent_as_asked(path: &str) -> Result<&str, Refusal> {
    match path.rfind('/') {
        _ if path.contains('\0') => Err(Code::BadArguments.into()),
        None => Err(Code::BadArguments.into()),
        Some(0) => Ok("/"),
        Some(at) => Ok(&path[..at]),
    }
}

/// −1 is any version.
fn compare(version: i32, expected: i32) -> Result<(), Refusal> {
    if expected == -1 || expected == version { Ok(()) } else { Err(Code::BadVersion.into()) }
}

/// The length that Java gives the path.
pub(super) fn utf16_units(path: &str) -> u64 {
    if path.is_ascii() { path.len() as u64 } else { path.encode_utf16().count() as u64 }
}
