//! One client connection: steps ②, ④, ⑤ and ⑫ of the walk.
//!
//! [`Connection`] is told bytes and mail, and gives back bytes, submissions and events for the service. It does
//! no IO: the daemon's connection task and the simulator's client both drive it.
//!
//! # The session's order
//! Replies leave in the order of the requests, and a request sees exactly the writes of its session that stand
//! before it. With nothing outstanding, a read is answered at once from the published snapshot. Behind a write,
//! it waits; when that write's outcome is there, it is answered from the published snapshot if the session's next
//! write is not in it yet, and from the snapshot just before that next write otherwise: the service keeps one
//! when the connection asked for it ([`Mailbox::mark_before`]). A request that sets or removes a watch needs
//! more: everything before it must be answered, and nothing behind it may be under way, so it and what follows
//! are *held* until then.
//!
//! Before any reply at zxid z, exactly the events up to z leave; an event never leaves before the reply that
//! armed its watch. Pings overtake: their answer says nothing but how far this server is.

mod kept;
mod requests;
#[cfg(test)]
mod tests;

use crate::answer;
use crate::consensus::Submission;
use crate::identity::{Authentication, Identity};
use crate::mailbox::{Attached, Item, Mailbox};
use crate::moment::Moment;
use crate::room::Room;
use crate::service;
use crate::watches::Notice;
use bytes::BytesMut;
pub use kept::Kept;
use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use warren_storage::tree::{Outcome, Reply, Snapshot, TreeError};
use warren_storage::{Code, ZPath, Zxid, perms};
use warren_transport::reply::encode;
use warren_transport::{ConnectRequest, ConnectResponse, Opcode, ReplyHeader, take_frame};

/// Reply bytes that wait to be written; with more, the connection takes no further request until they are.
pub const REPLY_BYTES_WAITING_MAX: usize = 256 << 10;

/// Why a connection ends that is cut off.
pub(crate) const CUT_OFF: &str = "this server lost contact with its leader";

/// What bounds a connection. Shared by all of a server.
#[derive(Clone, Debug)]
pub struct Limits {
    /// A packet's bytes (`jute.maxbuffer`).
    pub packet_bytes_max: usize,
    /// Requests outstanding on one connection; with more, it is not read from.
    pub outstanding_per_connection_max: usize,
    /// Bytes of outstanding requests on one connection; with more, it is not read from.
    pub outstanding_bytes_per_connection_max: usize,
    /// Requests outstanding on all connections (`globalOutstandingLimit`); with more, a connection that has
    /// something outstanding is not read from.
    pub outstanding_max: i64,
    /// Bytes of outstanding requests on all connections; likewise.
    pub outstanding_bytes_max: i64,
    /// Watches of all connections; with more, the request is refused with THROTTLEDOP.
    pub watches_max: usize,
    /// Sessions of the ensemble, and those that are asked for here; with more, a connect that wants another is closed.
    pub sessions_max: usize,
    /// Negotiated session timeouts, ms.
    pub session_timeout_min_ms: i32,
    /// See above.
    pub session_timeout_max_ms: i32,
    /// No ACL is checked.
    pub skip_acl: bool,
    /// Clients may change the membership (`reconfigEnabled`).
    pub reconfig_enabled: bool,
    /// How clients may authenticate.
    pub authentication: Authentication,
}

/// What a connection asks of the rest of the server.
#[derive(Default)]
pub struct Effects {
    /// For the leader, in order.
    pub submissions: Vec<Submission>,
    /// For the service, before the submissions.
    pub service: Vec<service::Event>,
}

/// Why a connection ends, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The client closed its session.
    SessionClosed,
    /// The server had a reason.
    Because(&'static str),
}

enum Phase {
    /// Nothing but bytes so far.
    New,
    /// A session is being made or moved; nothing is read.
    Attaching {
        read_only: Option<bool>,
    },
    /// It was [kept](Kept) by a former process, and its session is being moved to this run; nothing is read.
    Resuming,
    Serving(Attached),
}

/// A request that is owed an answer.
struct Pending {
    xid: i32,
    since: Moment,
    bytes: usize,
    what: What,
}

enum What {
    /// Submitted.
    Write { sequence: u64, shape: Shape, done: Option<Done> },
    /// A read behind a write.
    Read(BytesMut),
    /// Not looked at before everything in front is answered.
    Held(BytesMut),
    /// A sync under way.
    Sync { path: String, done: bool },
    /// Persistent watches that the service is asked to arm, how many of them still are not, and the zxid behind
    /// which the others fire.
    Arm { opcode: Opcode, left: usize, at: Zxid },
    /// Decided already; only the order is kept.
    Refused(Code),
    /// The end of a session that only this server knows.
    Close,
}

/// A write's outcome.
struct Done {
    zxid: Zxid,
    outcome: Outcome,
    before: Option<Snapshot>,
}

/// What the answer to a write looks like.
enum Shape {
    One(Opcode),
    Multi(Vec<Opcode>),
}

/// One client connection.
pub struct Connection {
    peer: SocketAddr,
    mailbox: Arc<Mailbox>,
    limits: Arc<Limits>,
    phase: Phase,
    identity: Identity,
    pending: VecDeque<Pending>,
    pending_bytes: usize,
    /// Something in `pending` is held, and so is everything behind it.
    holding: bool,
    /// Something that is answered from a snapshot stands behind the last write in `pending`.
    read_since_write: bool,
    sequence: u64,
    events: VecDeque<(Zxid, Notice)>,
    watched: HashSet<ZPath, foldhash::fast::FixedState>,
    arrived: VecDeque<(Zxid, Item)>,
    ending: Option<Ending>,
    /// Too much is outstanding for it to be read from.
    paused: bool,
    tally: Tally,
    /// Counts for `cons`.
    pub facts: Facts,
}

/// What is told to the server's metrics once a turn instead of once a request.
#[derive(Default)]
struct Tally {
    received: u64,
    sent: u64,
    /// Reads that were answered as soon as they came.
    reads_at_once: u64,
}

impl Tally {
    fn answered(&mut self, room: &Room, opcode: Opcode, took: Duration) {
        if took.is_zero() {
            self.reads_at_once += 1;
        } else if answer::is_read(opcode) {
            room.metrics.readlatency.record(took);
        } else {
            room.metrics.updatelatency.record(took);
        }
    }

    fn count(&mut self, room: &Room, facts: &Facts) {
        let metrics = &room.metrics;
        let (received, sent) = (facts.received - self.received, facts.sent - self.sent);
        (self.received, self.sent) = (facts.received, facts.sent);
        if received > 0 {
            metrics.packets_received.add(received);
        }
        if sent > 0 {
            metrics.packets_sent.add(sent);
        }
        let reads = std::mem::take(&mut self.reads_at_once);
        if reads > 0 {
            metrics.readlatency.record_many(Duration::ZERO, reads);
        }
    }
}

/// What `cons` tells of a connection.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Packets received.
    pub received: u64,
    /// Packets sent.
    pub sent: u64,
    /// The last request answered.
    pub last_opcode: Option<Opcode>,
    /// Its xid.
    pub last_xid: i64,
    /// The zxid of the last reply.
    pub last_zxid: i64,
    /// When that was, wall clock in ms.
    pub last_response_ms: i64,
    /// Its latency, ms.
    pub last_latency_ms: u64,
    /// Latencies so far, ms.
    pub min_latency_ms: u64,
    /// See above.
    pub max_latency_ms: u64,
    /// See above.
    pub total_latency_ms: u64,
    /// Requests answered.
    pub answered: u64,
}

impl Connection {
    /// A connection that was just accepted.
    pub fn new(peer: SocketAddr, mailbox: Arc<Mailbox>, limits: Arc<Limits>) -> Connection {
        Connection {
            peer,
            mailbox,
            limits,
            phase: Phase::New,
            identity: Identity::of(peer.ip()),
            pending: VecDeque::new(),
            pending_bytes: 0,
            holding: false,
            read_since_write: false,
            sequence: 0,
            events: VecDeque::new(),
            watched: HashSet::default(),
            arrived: VecDeque::new(),
            ending: None,
            paused: false,
            tally: Tally::default(),
            facts: Facts::default(),
        }
    }

    /// Where it comes from.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The session, once it is attached.
    pub fn session(&self) -> Option<&Attached> {
        match &self.phase {
            Phase::Serving(attached) => Some(attached),
            _ => None,
        }
    }

    /// Should the connection be closed, once what it wrote so far is sent?
    pub fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// Has it said what it wants?
    pub fn is_greeted(&self) -> bool {
        !matches!(self.phase, Phase::New)
    }

    /// Must it be closed, whatever is still to be sent?
    pub fn must_close(&self) -> bool {
        self.mailbox.must_close()
    }

    /// Requests that are owed an answer.
    pub fn outstanding(&self) -> usize {
        self.pending.len()
    }

    /// May more be read from the client? If not, what it sends waits in the kernel.
    pub fn wants_input(&self, room: &Room) -> bool {
        if self.ending.is_some() || matches!(self.phase, Phase::Attaching { .. } | Phase::Resuming) {
            return false;
        }
        if self.pending.is_empty() {
            return true;
        }
        self.pending.len() < self.limits.outstanding_per_connection_max
            && self.pending_bytes < self.limits.outstanding_bytes_per_connection_max
            && room.metrics.outstanding_requests.value() < self.limits.outstanding_max
            && room.outstanding_bytes() < self.limits.outstanding_bytes_max
    }

    /// Take mail, answer what can be answered, and take as many requests from `input` as the limits allow. Call it
    /// when bytes came, when the mailbox woke, and again after `out` was sent.
    ///
    /// # Errors
    /// When the store cannot be read: the server must stop.
    pub fn turn(
        &mut self,
        now: Moment,
        room: &Room,
        input: &mut BytesMut,
        out: &mut Vec<u8>,
        effects: &mut Effects,
    ) -> Result<(), TreeError> {
        if self.session().is_some_and(|attached| attached.pulse.is_cut_off(now.ms(), room.contact_ms())) {
            // Not even a ping: it would keep the client in the belief that its session is safe.
            self.end(CUT_OFF);
            return Ok(());
        }
        let start = out.len();
        let mut tree = room.snapshot();
        self.on_mail(now, room, &tree, out, effects)?;
        let mut heard = false;
        while self.ending.is_none() && self.wants_input(room) && out.len() < REPLY_BYTES_WAITING_MAX {
            let packet = match take_frame(input, self.limits.packet_bytes_max) {
                Ok(Some(packet)) => packet,
                Ok(None) => break,
                Err(e) => {
                    room.metrics.large_requests_rejected.add(1);
                    tracing::debug!(peer = %self.peer, "{e}");
                    self.end("its packet is too large or has a negative length");
                    break;
                }
            };
            heard = true;
            self.facts.received += 1;
            match self.phase {
                Phase::New => self.on_connect(room, &packet, effects),
                Phase::Attaching { .. } | Phase::Resuming => {
                    unreachable!("nothing is read while a session is made or moved")
                }
                Phase::Serving(_) => self.on_packet(now, room, &mut tree, packet, out, effects)?,
            }
        }
        if let Phase::Serving(attached) = &self.phase {
            if heard {
                attached.pulse.beat(now.ms());
            }
            attached.pulse.owe(!self.pending.is_empty());
            // Counted once for each time that it begins.
            let paused = self.ending.is_none() && !self.wants_input(room);
            if paused && !self.paused {
                room.metrics.warren_reads_paused_total.add(1);
            }
            self.paused = paused;
        }
        let written = out.len().saturating_sub(start);
        if written > 0 {
            room.metrics.response_bytes.add(written as u64);
        }
        self.tally.count(room, &self.facts);
        Ok(())
    }

    /// What [`Connection::turn`] wrote did not leave at once, for the client takes no more; told then, and whenever it takes some
    /// again, until nothing is left. A client that takes nothing is owed nothing either: its silence is its own, and its session
    /// runs out. One that takes some, however slowly, is there, though it is not read from meanwhile.
    pub fn on_stuck(&self, now: Moment, took_some: bool, is_left: bool) {
        let Phase::Serving(attached) = &self.phase else { return };
        if took_some {
            attached.pulse.beat(now.ms());
        }
        attached.pulse.owe(!is_left && !self.pending.is_empty());
    }

    /// The connection is gone: forget its watches, and tell the service.
    pub fn on_closed(&mut self, room: &Room, effects: &mut Effects) {
        self.mailbox.close();
        room.watches.forget(self.mailbox.connection, self.watched.iter());
        let (count, bytes) = (self.pending.len() as i64, self.pending_bytes as i64);
        self.pending.clear();
        room.outstanding(-count, -bytes);
        let session = self.session().map(|a| (a.session, a.generation));
        effects.service.push(service::Event::Disconnect { connection: self.mailbox.connection, session });
    }

    fn end(&mut self, why: &'static str) {
        self.ending.get_or_insert(Ending::Because(why));
    }

    // ---- the handshake -------------------------------------------------------------------------------------

    /// ZooKeeper's `processConnectRequest`, in its order.
    fn on_connect(&mut self, room: &Room, packet: &[u8], effects: &mut Effects) {
        let Ok(request) = ConnectRequest::decode(packet) else {
            return self.end("its connect request does not decode");
        };
        if !room.is_serving() && !room.is_read_only() {
            room.metrics.cnxn_closed_without_zk_server_running.add(1);
            return self.end("this server does not serve yet, or no longer");
        }
        if request.last_zxid_seen > room.zxid().wire() {
            // With its session intact it finds a server that is further.
            return self.end("it has seen a zxid that this server has not");
        }
        room.metrics.connection_request_count.add(1);
        let opens = request.session == 0 && room.is_serving();
        if opens && room.sessions() >= self.limits.sessions_max {
            room.metrics.warren_session_refusals_total.add(1);
            return self.end("the limit of sessions is reached");
        }
        let timeout_ms =
            request.timeout_ms.clamp(self.limits.session_timeout_min_ms, self.limits.session_timeout_max_ms);
        // A password of another length is nobody's.
        let password = request.password.try_into().unwrap_or([0; 16]);
        self.phase = Phase::Attaching { read_only: request.read_only };
        // A new session is asked for here, which spares the service a turn; what it knows of it, it is told first.
        let asked = opens.then(|| {
            let request = room.next_token();
            let (owner, incarnation) = room.run();
            effects.submissions.push(Submission::OpenSession { timeout_ms, owner, incarnation, request });
            request
        });
        effects.service.push(service::Event::Connect {
            mailbox: self.mailbox.clone(),
            session: request.session,
            password,
            timeout_ms,
            // A client that does not send the byte is too old to know of it.
            read_only: request.read_only == Some(true),
            asked,
            generation: None,
        });
    }

    fn on_attached(&mut self, now: Moment, attached: Attached, out: &mut Vec<u8>) {
        attached.pulse.beat(now.ms());
        match self.phase {
            Phase::Attaching { read_only } => {
                ConnectResponse {
                    protocol_version: 0,
                    timeout_ms: attached.timeout_ms,
                    session: attached.session,
                    password: attached.password,
                    // The byte comes back only to who sent it.
                    read_only: read_only.map(|_| attached.read_only),
                }
                .encode(out);
                self.facts.sent += 1;
            }
            // The client has its answer from the process before.
            Phase::Resuming => {}
            Phase::New | Phase::Serving(_) => return,
        }
        self.phase = Phase::Serving(attached);
    }

    // ---- mail ----------------------------------------------------------------------------------------------

    /// What the mailbox has up to `zxid`. Give the emptied queue back to `arrived`.
    fn take_mail(&mut self, zxid: Zxid) -> VecDeque<(Zxid, Item)> {
        let mut arrived = std::mem::take(&mut self.arrived);
        if !self.mailbox.take(zxid, &mut arrived) {
            self.end("more watch events wait for it than it may have waiting");
        }
        arrived
    }

    fn on_mail(
        &mut self,
        now: Moment,
        room: &Room,
        tree: &Snapshot,
        out: &mut Vec<u8>,
        effects: &mut Effects,
    ) -> Result<(), TreeError> {
        let mut arrived = self.take_mail(tree.zxid());
        let mut first_write = 0;
        if arrived.iter().any(|(_, item)| matches!(item, Item::Outcome { .. })) {
            let applied = now.us.saturating_sub(room.applied_us());
            room.metrics.warren_reply_ms.record(Duration::from_micros(applied));
        }
        for (zxid, item) in arrived.drain(..) {
            match item {
                Item::Event(notice) => self.events.push_back((zxid, notice)),
                Item::Outcome { sequence, outcome, before } => {
                    // Outcomes come in the order of the writes.
                    while let Some(pending) = self.pending.get_mut(first_write) {
                        first_write += 1;
                        if let What::Write { sequence: s, done, .. } = &mut pending.what {
                            if *s == sequence {
                                *done = Some(Done { zxid, outcome, before });
                                break;
                            }
                        }
                    }
                }
                Item::Attached(attached) => self.on_attached(now, attached, out),
                Item::Refused => {
                    if let Phase::Attaching { read_only } = self.phase {
                        ConnectResponse::expired(read_only.map(|_| false)).encode(out);
                        self.facts.sent += 1;
                    }
                    self.end("its session is expired or its password is wrong");
                }
                Item::Synced => {
                    if let Some(done) = self.pending.iter_mut().find_map(|p| match &mut p.what {
                        What::Sync { done, .. } if !*done => Some(done),
                        _ => None,
                    }) {
                        *done = true;
                    }
                }
                Item::Armed => {
                    if let Some((left, at)) = self.pending.iter_mut().find_map(|p| match &mut p.what {
                        What::Arm { left, at, .. } if *left > 0 => Some((left, at)),
                        _ => None,
                    }) {
                        *left -= 1;
                        *at = zxid;
                    }
                }
                Item::Close(why) => self.end(why),
                Item::CutOff(why) => {
                    self.end(why);
                    return Ok(());
                }
            }
        }
        self.arrived = arrived;
        self.answer_pending(now, room, tree, out)?;
        self.release_held(now, room, tree, out, effects)?;
        // A session that may be gone is told nothing; what comes before it is back waits.
        if !matches!(self.phase, Phase::Resuming) {
            self.send_events(tree.zxid(), out, room);
        }
        Ok(())
    }

    /// Answer from the front of the queue what can be answered.
    fn answer_pending(
        &mut self,
        now: Moment,
        room: &Room,
        tree: &Snapshot,
        out: &mut Vec<u8>,
    ) -> Result<(), TreeError> {
        // The snapshot before the next write, looked up once for all that stands in front of it. Not only reads: a
        // later reply must not be at a lower zxid.
        let mut before: Option<Option<Snapshot>> = None;
        while let Some(front) = self.pending.front() {
            let ready = match &front.what {
                What::Write { done, .. } => done.is_some(),
                What::Sync { done, .. } => *done,
                What::Arm { left, .. } => *left == 0,
                What::Read(_) | What::Refused(_) | What::Close => true,
                What::Held(_) => false,
            };
            if !ready {
                break;
            }
            let place = matches!(front.what, What::Read(_) | What::Sync { .. } | What::Refused(_));
            if place && before.is_none() {
                let next = self.pending.iter().find_map(|p| match &p.what {
                    What::Write { done, .. } => Some(done.as_ref()),
                    _ => None,
                });
                // Its outcome will not come any more, so that nobody here knows whether the tree has it.
                if self.ending.is_some() && matches!(next, Some(None)) {
                    break;
                }
                before = Some(next.flatten().and_then(|done| done.before.clone()));
            }
            let Some(Pending { xid, since, bytes, what }) = self.pending.pop_front() else { break };
            self.pending_bytes -= bytes;
            room.outstanding(-1, -(bytes as i64));
            match what {
                What::Write { shape, done, .. } => {
                    before = None;
                    let done = done.expect("it is ready");
                    self.send_events(done.zxid, out, room);
                    self.answer_write(xid, &shape, &done, out);
                    let opcode = match shape {
                        Shape::One(opcode) => opcode,
                        Shape::Multi(_) => Opcode::Multi,
                    };
                    self.answered(now, room, since, xid, done.zxid, opcode);
                    if opcode == Opcode::CloseSession && matches!(done.outcome, Outcome::Done(_)) {
                        self.ending.get_or_insert(Ending::SessionClosed);
                    }
                }
                What::Read(packet) => {
                    let seen = before.as_ref().and_then(Option::as_ref).unwrap_or(tree);
                    self.send_events(seen.zxid(), out, room);
                    let opcode = self.answer_read(room, xid, seen, &packet, out)?;
                    self.answered(now, room, since, xid, seen.zxid(), opcode);
                }
                What::Sync { path, .. } => {
                    let seen = before.as_ref().and_then(Option::as_ref).unwrap_or(tree).zxid();
                    self.send_events(seen, out, room);
                    encode::path(out, ReplyHeader::ok(xid, seen.wire()), &path);
                    self.answered(now, room, since, xid, seen, Opcode::Sync);
                }
                What::Arm { opcode, at, .. } => {
                    // Not a newer zxid: its events up to there would leave before the reply that arms the watch.
                    self.send_events(at, out, room);
                    let header = ReplyHeader::ok(xid, at.wire());
                    match opcode {
                        Opcode::AddWatch => encode::add_watch(out, header),
                        _ => encode::empty(out, header),
                    }
                    self.answered(now, room, since, xid, at, opcode);
                }
                What::Refused(code) => {
                    let seen = before.as_ref().and_then(Option::as_ref).unwrap_or(tree).zxid();
                    self.send_events(seen, out, room);
                    encode::error(out, xid, seen.wire(), code);
                    self.answered(now, room, since, xid, seen, Opcode::Error);
                }
                What::Close => {
                    self.send_events(tree.zxid(), out, room);
                    encode::empty(out, ReplyHeader::ok(xid, tree.zxid().wire()));
                    self.answered(now, room, since, xid, tree.zxid(), Opcode::CloseSession);
                    self.ending.get_or_insert(Ending::SessionClosed);
                }
                What::Held(_) => unreachable!("not ready"),
            }
        }
        Ok(())
    }

    fn answer_write(&self, xid: i32, shape: &Shape, done: &Done, out: &mut Vec<u8>) {
        let zxid = done.zxid.wire();
        let header = ReplyHeader::ok(xid, zxid);
        match (&done.outcome, shape) {
            (Outcome::Failed(code), _) => encode::error(out, xid, zxid, *code),
            (Outcome::Dropped, _) => unreachable!("a dropped write has no outcome for its connection"),
            (Outcome::Done(Reply::Created { path, stat }), Shape::One(opcode)) => {
                if *opcode == Opcode::Create {
                    encode::path(out, header, path);
                } else {
                    encode::path_and_stat(out, header, path, stat);
                }
            }
            (Outcome::Done(Reply::Reconfigured { text, stat }), _) => {
                encode::data(out, header, Some(text.as_ref()), stat);
            }
            (Outcome::Done(Reply::Stat(stat)), _) => encode::stat(out, header, stat),
            (Outcome::Done(Reply::Multi(replies)), Shape::Multi(opcodes)) => {
                let mut multi = encode::Multi::begin(out, header);
                for (reply, opcode) in replies.iter().zip(opcodes) {
                    match reply {
                        Reply::Created { path, .. } if *opcode == Opcode::Create => multi.create(path),
                        Reply::Created { path, stat } => multi.create2(path, stat),
                        Reply::Stat(stat) => multi.set_data(stat),
                        Reply::Deleted => multi.delete(),
                        _ => multi.check(),
                    }
                }
                multi.finish();
            }
            (Outcome::Done(Reply::MultiFailed { at, code }), Shape::Multi(opcodes)) => {
                let mut multi = encode::Multi::begin(out, header);
                for i in 0..opcodes.len() {
                    multi.error(match i.cmp(at) {
                        std::cmp::Ordering::Less => 0,
                        std::cmp::Ordering::Equal => code.wire(),
                        std::cmp::Ordering::Greater => Code::RuntimeInconsistency.wire(),
                    });
                }
                multi.finish();
            }
            (Outcome::Done(_), _) => encode::empty(out, header),
        }
    }

    /// Send the events up to `zxid`, to a client that may still read the znode.
    fn send_events(&mut self, zxid: Zxid, out: &mut Vec<u8>, room: &Room) {
        while self.events.front().is_some_and(|(z, _)| *z <= zxid) {
            let Some((at, notice)) = self.events.pop_front() else { break };
            if !room.watches.watches(&notice.path, self.mailbox.connection) {
                self.watched.remove(&notice.path);
            }
            if self.limits.skip_acl || self.identity.allowed(&notice.acl, perms::READ) {
                let start = out.len();
                encode::event(out, at.wire(), notice.kind, &notice.path);
                room.metrics.watch_bytes.add((out.len() - start) as u64);
                self.facts.sent += 1;
            }
        }
    }

    fn answered(&mut self, now: Moment, room: &Room, since: Moment, xid: i32, zxid: Zxid, opcode: Opcode) {
        let took = now.since(since);
        self.tally.answered(room, opcode, took);
        let latency_ms = took.as_millis() as u64;
        let facts = &mut self.facts;
        facts.sent += 1;
        facts.last_opcode = Some(opcode);
        facts.last_xid = xid as i64;
        facts.last_zxid = zxid.wire();
        facts.last_response_ms = now.wall_ms;
        facts.last_latency_ms = latency_ms;
        facts.min_latency_ms =
            if facts.answered == 0 { latency_ms } else { facts.min_latency_ms.min(latency_ms) };
        facts.max_latency_ms = facts.max_latency_ms.max(latency_ms);
        facts.total_latency_ms += latency_ms;
        facts.answered += 1;
    }
}
