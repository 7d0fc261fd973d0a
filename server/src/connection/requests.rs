//! What a connection does with each request.

use super::{Connection, Effects, Pending, Phase, Shape, What};
use crate::answer::{self, Asker};
use crate::consensus::Submission;
use crate::moment::Moment;
use crate::room::Room;
use crate::service;
use crate::watches::{Armed, Table};
use bytes::BytesMut;
use warren_storage::tree::{Snapshot, TreeError};
use warren_storage::{Change, Code, Command, Decided, Logged, Op, Tag, ZPath, Zxid, perms};
use warren_transport::reply::encode;
use warren_transport::request::{AddWatchMode, SetWatches, WatcherType};
use warren_transport::{EventType, Opcode, Refusal, ReplyHeader, Request, RequestHeader};

/// Would this request add to what is kept? As far as can be told before it is applied; apply looks again.
fn grows(tree: &Snapshot, request: &Request<'_>) -> Result<bool, TreeError> {
    let op_grows = |op: &Op<'_>| -> Result<bool, TreeError> {
        Ok(match op {
            Op::Create { .. } => true,
            Op::SetData { path, data, .. } => {
                let now = tree.node(path)?.map_or(0, |node| node.data_bytes());
                data.map_or(0, |data| data.len() as u64) > now
            }
            Op::Delete { .. } | Op::SetAcl { .. } | Op::Check { .. } => false,
        })
    };
    match request {
        Request::Change(change) => op_grows(&change.op),
        Request::Multi(changes) => {
            for change in changes {
                if op_grows(&change.op)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        _ => Ok(false),
    }
}

/// Whether a held request could be carried out.
enum Held {
    Done,
    /// A change that it must see is applied and not published yet.
    NotYet,
}

impl Connection {
    /// One packet of an attached session.
    pub(super) fn on_packet(
        &mut self,
        now: Moment,
        room: &Room,
        tree: &mut Snapshot,
        packet: BytesMut,
        out: &mut Vec<u8>,
        effects: &mut Effects,
    ) -> Result<(), TreeError> {
        let Ok((header, body)) = RequestHeader::decode(&packet) else {
            self.end("its request has no header");
            return Ok(());
        };
        let xid = header.xid;
        let request = match Request::decode(header.opcode, body) {
            Ok(request) => request,
            Err(e) => {
                match e.refusal() {
                    // It is decoded again, and refused, when its turn comes.
                    Refusal::Reply(_) if self.holding => {
                        self.push(now, room, xid, packet.len(), What::Held(packet));
                    }
                    Refusal::Reply(code) => self.push(now, room, xid, packet.len(), What::Refused(code)),
                    Refusal::ReplyAndClose(code) => {
                        encode::error(out, xid, -1, code);
                        self.end("it asked for what no client may ask");
                    }
                    Refusal::Close => self.end("its credentials do not decode"),
                }
                return self.answer_pending(now, room, tree, out);
            }
        };
        match request {
            // These overtake: they say nothing of the tree.
            Request::Ping => {
                encode::empty(out, ReplyHeader::ok(xid, tree.zxid().wire()));
                self.answered(now, room, now, xid, tree.zxid(), Opcode::Ping);
                return Ok(());
            }
            Request::Auth { scheme, auth, .. } => {
                self.on_auth(room, xid, scheme, auth.unwrap_or(&[]), out);
                return Ok(());
            }
            Request::Sasl { .. } => {
                // No mechanism is configured: an empty token, as from a ZooKeeper without one.
                encode::sasl(out, ReplyHeader::ok(xid, 0), None);
                return Ok(());
            }
            _ => {}
        }
        if self.holding {
            self.push(now, room, xid, packet.len(), What::Held(packet));
            return Ok(());
        }
        let opcode = request.opcode();
        if answer::is_read(opcode) && !answer::asks_watch(&request) {
            if self.pending.is_empty() {
                self.answer_now(now, room, tree, xid, &request, out)?;
            } else {
                drop(request);
                self.push(now, room, xid, packet.len(), What::Read(packet));
            }
            return Ok(());
        }
        if self.is_read_only() && Self::is_for_a_leader(&request) {
            drop(request);
            self.push(now, room, xid, packet.len(), What::Refused(Code::NotReadOnly));
            return self.answer_pending(now, room, tree, out);
        }
        if room.refuses_growth() && grows(tree, &request)? {
            drop(request);
            room.metrics.warren_disk_refusals_total.add(1);
            self.push(now, room, xid, packet.len(), What::Refused(Code::QuotaExceeded));
            return self.answer_pending(now, room, tree, out);
        }
        match request {
            Request::Change(change) => {
                let (opcode, bytes) = (change.opcode, packet.len());
                self.submit(now, room, xid, bytes, Shape::One(opcode), Command::Single(change.op), effects);
            }
            Request::Multi(changes) => {
                let shape = Shape::Multi(changes.iter().map(|c| c.opcode).collect());
                let ops: Vec<Op<'_>> = changes.into_iter().map(|c| c.op).collect();
                self.submit(now, room, xid, packet.len(), shape, Command::Multi(ops), effects);
            }
            Request::CloseSession if self.is_read_only() => {
                self.push(now, room, xid, packet.len(), What::Close);
                self.answer_pending(now, room, tree, out)?;
            }
            Request::CloseSession => {
                let shape = Shape::One(Opcode::CloseSession);
                self.submit(now, room, xid, packet.len(), shape, Command::CloseSession, effects);
            }
            Request::Sync { path } => {
                let token = room.next_token();
                effects.service.push(service::Event::Sync { token, mailbox: self.mailbox.clone() });
                effects.submissions.push(Submission::Sync(token));
                let path = path.to_owned();
                self.push(now, room, xid, packet.len(), What::Sync { path, done: false });
            }
            Request::Reconfig { .. } if !self.limits.reconfig_enabled => {
                // Membership cannot change with one server; ZooKeeper answers so unless it is enabled.
                self.push(now, room, xid, packet.len(), What::Refused(Code::ReconfigDisabled));
                self.answer_pending(now, room, tree, out)?;
            }
            Request::Reconfig { joining, leaving, members, config_id } => {
                let change = Change::Reconfig {
                    joining: joining.map(str::to_owned),
                    leaving: leaving.map(str::to_owned),
                    new_members: members.map(str::to_owned),
                    version: config_id,
                };
                // Consensus goes by a change before it is applied, so whether it may be asked for is said here.
                let decided = (!self.may_reconfigure(tree)?).then_some(Decided::Refused(Code::NoAuth));
                let command = Command::Reconfigure { asker: None, change, decided };
                self.submit(now, room, xid, packet.len(), Shape::One(Opcode::Reconfig), command, effects);
            }
            request if self.pending.is_empty() => {
                if let Held::NotYet = self.on_watching(now, room, tree, xid, &request, out, effects)? {
                    drop(request);
                    self.hold(now, room, xid, packet);
                }
            }
            request => {
                drop(request);
                self.hold(now, room, xid, packet);
            }
        }
        Ok(())
    }

    /// Is its session one of this server alone ([`crate::mailbox::Attached::read_only`])?
    fn is_read_only(&self) -> bool {
        self.session().is_some_and(|attached| attached.read_only)
    }

    /// Would the request have to reach the leader (ZooKeeper's `ReadOnlyRequestProcessor`)? A session's own end would
    /// not, where no leader knows the session.
    fn is_for_a_leader(request: &Request<'_>) -> bool {
        matches!(
            request,
            Request::Change(_) | Request::Multi(_) | Request::Sync { .. } | Request::Reconfig { .. }
        )
    }

    fn hold(&mut self, now: Moment, room: &Room, xid: i32, packet: BytesMut) {
        self.holding = true;
        self.push(now, room, xid, packet.len(), What::Held(packet));
    }

    fn push(&mut self, now: Moment, room: &Room, xid: i32, bytes: usize, what: What) {
        self.pending_bytes += bytes;
        room.outstanding(1, bytes as i64);
        self.read_since_write |= matches!(what, What::Read(_) | What::Sync { .. } | What::Refused(_));
        self.pending.push_back(Pending { xid, since: now, bytes, what });
    }

    #[allow(clippy::too_many_arguments, reason = "one request, spelled out")]
    fn submit(
        &mut self,
        now: Moment,
        room: &Room,
        xid: i32,
        bytes: usize,
        shape: Shape,
        command: Command<'_>,
        effects: &mut Effects,
    ) {
        let Phase::Serving(attached) = &self.phase else { return };
        self.sequence += 1;
        let sequence = self.sequence;
        if std::mem::take(&mut self.read_since_write) {
            self.mailbox.mark_before(sequence);
        }
        let tag = Tag { session: attached.session, generation: attached.generation, sequence };
        let logged = Logged { tag: Some(tag), ids: self.identity.refs(), command };
        let encoded = logged.encode();
        effects.submissions.push(match logged.command {
            Command::Reconfigure { .. } => Submission::Reconfigure(encoded),
            _ => Submission::Command(encoded),
        });
        self.push(now, room, xid, bytes, What::Write { sequence, shape, done: None });
    }

    /// May it write `/zookeeper/config`?
    fn may_reconfigure(&self, tree: &Snapshot) -> Result<bool, TreeError> {
        let node = tree.node("/zookeeper/config")?;
        Ok(self.limits.skip_acl
            || node.is_some_and(|node| self.identity.allowed(&tree.acl(node.acl), perms::WRITE)))
    }

    fn on_auth(&mut self, room: &Room, xid: i32, scheme: &str, auth: &[u8], out: &mut Vec<u8>) {
        if self.identity.authenticate(&self.limits.authentication, scheme, auth) {
            encode::empty(out, ReplyHeader::ok(xid, 0));
        } else {
            room.metrics.auth_failed_count.add(1);
            encode::error(out, xid, 0, Code::AuthFailed);
            self.end("its credentials were refused");
        }
        self.facts.sent += 1;
    }

    /// Everything in front of the held requests is answered: look at them, in order.
    pub(super) fn release_held(
        &mut self,
        now: Moment,
        room: &Room,
        tree: &Snapshot,
        out: &mut Vec<u8>,
        effects: &mut Effects,
    ) -> Result<(), TreeError> {
        if !self.holding || !matches!(self.pending.front(), Some(Pending { what: What::Held(_), .. })) {
            return Ok(());
        }
        self.holding = false;
        let mut tree = tree.clone();
        let mut held = std::mem::take(&mut self.pending);
        while let Some(Pending { bytes, what, .. }) = held.pop_front() {
            self.pending_bytes -= bytes;
            room.outstanding(-1, -(bytes as i64));
            let What::Held(packet) = what else { unreachable!("behind a held request everything is held") };
            if self.ending.is_none() {
                self.on_packet(now, room, &mut tree, packet, out, effects)?;
            }
        }
        Ok(())
    }

    fn asker<'a>(&'a self, room: &'a Room, xid: i32) -> Asker<'a> {
        let session = self.session().map_or(0, |a| a.session);
        Asker {
            identity: &self.identity,
            session,
            xid,
            listings: &room.listings,
            skip_acl: self.limits.skip_acl,
        }
    }

    fn answer_now(
        &mut self,
        now: Moment,
        room: &Room,
        tree: &Snapshot,
        xid: i32,
        request: &Request<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), TreeError> {
        self.send_events(tree.zxid(), out, room);
        answer::answer(tree, &self.asker(room, xid), request, out)?;
        self.answered(now, room, now, xid, tree.zxid(), request.opcode());
        Ok(())
    }

    /// A read that waited, from its packet.
    pub(super) fn answer_read(
        &mut self,
        room: &Room,
        xid: i32,
        tree: &Snapshot,
        packet: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Opcode, TreeError> {
        let (header, body) = RequestHeader::decode(packet).expect("it decoded when it came");
        let request = Request::decode(header.opcode, body).expect("it decoded when it came");
        answer::answer(tree, &self.asker(room, xid), &request, out)?;
        Ok(request.opcode())
    }

    /// A request that sets, asks after or removes watches, with nothing in front of it.
    #[allow(clippy::too_many_arguments, reason = "one request, spelled out")]
    fn on_watching(
        &mut self,
        now: Moment,
        room: &Room,
        tree: &mut Snapshot,
        xid: i32,
        request: &Request<'_>,
        out: &mut Vec<u8>,
        effects: &mut Effects,
    ) -> Result<Held, TreeError> {
        match request {
            Request::CheckWatches { path, watcher } => {
                let there = room.watches.contains(path, *watcher, self.mailbox.connection);
                self.answer_watcher(now, room, tree.zxid(), xid, there, request.opcode(), out);
            }
            Request::RemoveWatches { path, watcher } => {
                let there = room.watches.remove(path, *watcher, self.mailbox.connection);
                if !room.watches.contains(path, WatcherType::Any, self.mailbox.connection) {
                    self.watched.remove(*path);
                }
                self.answer_watcher(now, room, tree.zxid(), xid, there, request.opcode(), out);
            }
            Request::AddWatch { path, mode } => {
                let Ok(path) = ZPath::parse(answer::canonical(path)) else {
                    // ZooKeeper takes it and never fires; so do we, without keeping it.
                    self.send_events(tree.zxid(), out, room);
                    encode::add_watch(out, ReplyHeader::ok(xid, tree.zxid().wire()));
                    self.answered(now, room, now, xid, tree.zxid(), Opcode::AddWatch);
                    return Ok(Held::Done);
                };
                if self.is_watching_too_much(now, room, tree.zxid(), xid, 1, out) {
                    return Ok(Held::Done);
                }
                let recursive = *mode == AddWatchMode::PersistentRecursive;
                effects.service.push(service::Event::Arm {
                    mailbox: self.mailbox.clone(),
                    path: path.clone(),
                    recursive,
                });
                self.watched.insert(path);
                self.push(
                    now,
                    room,
                    xid,
                    0,
                    What::Arm { opcode: Opcode::AddWatch, left: 1, at: tree.zxid() },
                );
            }
            Request::SetWatches(watches) => {
                return self.on_set_watches(now, room, tree, xid, watches, out, effects);
            }
            read => {
                if self.is_watching_too_much(now, room, tree.zxid(), xid, 1, out) {
                    return Ok(Held::Done);
                }
                loop {
                    self.send_events(tree.zxid(), out, room);
                    let start = out.len();
                    let wants = answer::answer(tree, &self.asker(room, xid), read, out)?;
                    let Some(wants) = wants else { break };
                    let table = if wants.child { Table::Child } else { Table::Data };
                    if room.watches.arm(table, &wants.path, tree.zxid(), &self.mailbox) == Armed::Yes {
                        self.watched.insert(wants.path);
                        break;
                    }
                    out.truncate(start);
                    if !self.step_forward(room, tree) {
                        return Ok(Held::NotYet);
                    }
                }
                self.answered(now, room, now, xid, tree.zxid(), read.opcode());
            }
        }
        Ok(Held::Done)
    }

    /// Go on to a newer snapshot. False: there is none yet, and the mailbox wakes when there is, or the connection is cut
    /// off. Events up to it are taken along; outcomes cannot be among the mail, for nothing is outstanding.
    fn step_forward(&mut self, room: &Room, tree: &mut Snapshot) -> bool {
        if room.zxid() <= tree.zxid() {
            room.watches.wait_publication(&self.mailbox);
            // It may have come between the look and the wait.
            if room.zxid() <= tree.zxid() {
                return false;
            }
        }
        *tree = room.snapshot();
        let mut arrived = self.take_mail(tree.zxid());
        for (zxid, item) in arrived.drain(..) {
            match item {
                crate::mailbox::Item::Event(notice) => self.events.push_back((zxid, notice)),
                crate::mailbox::Item::Close(why) => self.end(why),
                crate::mailbox::Item::CutOff(why) => {
                    self.end(why);
                    return false;
                }
                other => unreachable!("nothing is outstanding, and yet: {other:?}"),
            }
        }
        self.arrived = arrived;
        true
    }

    fn is_watching_too_much(
        &mut self,
        now: Moment,
        room: &Room,
        zxid: Zxid,
        xid: i32,
        more: usize,
        out: &mut Vec<u8>,
    ) -> bool {
        if room.watches.len() + more <= self.limits.watches_max {
            return false;
        }
        room.metrics.warren_watch_refusals_total.add(more as u64);
        self.send_events(zxid, out, room);
        encode::error(out, xid, zxid.wire(), Code::ThrottledOp);
        self.answered(now, room, now, xid, zxid, Opcode::Error);
        true
    }

    #[allow(clippy::too_many_arguments, reason = "one reply, spelled out")]
    fn answer_watcher(
        &mut self,
        now: Moment,
        room: &Room,
        zxid: Zxid,
        xid: i32,
        there: bool,
        opcode: Opcode,
        out: &mut Vec<u8>,
    ) {
        self.send_events(zxid, out, room);
        if there {
            encode::empty(out, ReplyHeader::ok(xid, zxid.wire()));
        } else {
            encode::error(out, xid, zxid.wire(), Code::NoWatcher);
        }
        self.answered(now, room, now, xid, zxid, opcode);
    }

    /// A client that reconnected: what changed since it looked is told at once, the rest is watched again
    /// (ZooKeeper's `DataTree.setWatches`).
    #[allow(clippy::too_many_arguments, reason = "one request, spelled out")]
    fn on_set_watches(
        &mut self,
        now: Moment,
        room: &Room,
        tree: &mut Snapshot,
        xid: i32,
        watches: &SetWatches<'_>,
        out: &mut Vec<u8>,
        effects: &mut Effects,
    ) -> Result<Held, TreeError> {
        let (persistent, recursive) = match &watches.persistent {
            Some((persistent, recursive)) => (persistent.as_slice(), recursive.as_slice()),
            None => (&[][..], &[][..]),
        };
        let more = watches.data.len()
            + watches.exist.len()
            + watches.child.len()
            + persistent.len()
            + recursive.len();
        if self.is_watching_too_much(now, room, tree.zxid(), xid, more, out) {
            return Ok(Held::Done);
        }
        #[derive(Clone, Copy, PartialEq)]
        enum As {
            Data,
            Exist,
            Child,
        }
        let all = (watches.data.iter().map(|p| (As::Data, *p)))
            .chain(watches.exist.iter().map(|p| (As::Exist, *p)))
            .chain(watches.child.iter().map(|p| (As::Child, *p)));
        let start = out.len();
        for (kind, path) in all {
            let Ok(path) = ZPath::parse(answer::canonical(path)) else { continue };
            loop {
                let node = tree.node(&path)?;
                let event = match (kind, &node) {
                    (As::Exist, Some(_)) => Some(EventType::NodeCreated),
                    (As::Exist, None) => None,
                    (As::Data | As::Child, None) => Some(EventType::NodeDeleted),
                    (As::Data, Some(n)) if n.mzxid > watches.relative_zxid => {
                        Some(EventType::NodeDataChanged)
                    }
                    (As::Child, Some(n)) if n.pzxid > watches.relative_zxid => {
                        Some(EventType::NodeChildrenChanged)
                    }
                    _ => None,
                };
                if let Some(event) = event {
                    encode::event(out, -1, event, &path);
                    self.facts.sent += 1;
                    break;
                }
                let table = if kind == As::Child { Table::Child } else { Table::Data };
                if room.watches.arm(table, &path, tree.zxid(), &self.mailbox) == Armed::Yes {
                    self.watched.insert(path);
                    break;
                }
                if !self.step_forward(room, tree) {
                    // All of it again once there is something newer; what is armed already stays armed.
                    out.truncate(start);
                    return Ok(Held::NotYet);
                }
            }
        }
        let mut left = 0;
        for (path, recursive) in
            persistent.iter().map(|p| (*p, false)).chain(recursive.iter().map(|p| (*p, true)))
        {
            let Ok(path) = ZPath::parse(answer::canonical(path)) else { continue };
            self.watched.insert(path.clone());
            effects.service.push(service::Event::Arm { mailbox: self.mailbox.clone(), path, recursive });
            left += 1;
        }
        // Answered once the last of them is armed.
        self.push(now, room, xid, 0, What::Arm { opcode: Opcode::SetWatches, left, at: tree.zxid() });
        self.answer_pending(now, room, tree, out)?;
        Ok(Held::Done)
    }
}
