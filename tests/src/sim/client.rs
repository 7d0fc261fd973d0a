//! A client: it opens connections, pipelines requests, reads slowly, goes silent, comes back with its session or
//! with another's.

use super::check::Violation;
use super::check::shown;
use super::check::watches::Kept;
use super::context::{Context, Event};
use super::host::{Host, name_of};
use super::server::{Server, address_of, deliver};
use super::wire::Wire;
use super::workload::{Asked, Workload};
use super::world::server_of;
use bytes::BytesMut;
use warren_storage::{Acl, CreateMode, Op};
use warren_transport::request::SetWatches;
use warren_transport::{
    Change, ConnectRequest, ConnectResponse, Opcode, ReplyHeader, Request, take_frame, xid,
};

/// What a client needs to attach to a session.
#[derive(Clone, Debug, Default)]
pub(super) struct Ticket {
    /// 0: a new one is wanted.
    pub(super) session: i64,
    /// As the server gave it.
    pub(super) password: [u8; 16],
}

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The handshake's answer is not there.
    Greeting,
    /// Requests may be sent.
    Live,
}

/// How far a client is in the healing phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Healing {
    /// Not begun.
    Ill,
    /// Waits for the reply to this xid.
    Asked(i32),
    /// Served.
    Well,
}

/// One client.
pub(super) struct Client {
    id: usize,
    name: String,
    /// The server that it prefers, as a number of a host.
    home: usize,
    /// Its connection, if it has one.
    pub(super) connection: Option<u64>,
    phase: Phase,
    /// Its own session.
    pub(super) ticket: Ticket,
    /// Attached to another's session.
    borrows: bool,
    /// It would rather read only than not be served.
    modest: bool,
    /// Its connection's session only reads.
    read_only: bool,
    timeout_ms: i32,
    last_zxid: i64,
    next_xid: i32,
    input: BytesMut,
    kept: Kept,
    workload: Workload,
    since_us: u64,
    heard_us: u64,
    sent_us: u64,
    outstanding: u64,
    silent_until_us: u64,
    /// It does not read before then.
    pub(super) paused_until_us: u64,
    healing: Healing,
    /// Requests sent.
    pub(super) sent: u64,
}

impl Client {
    /// A client that has not connected.
    pub(super) fn new(ctx: &mut Context, id: usize) -> Client {
        Client {
            id,
            name: format!("c{id}"),
            home: id % ctx.setup.hosts(),
            connection: None,
            phase: Phase::Greeting,
            ticket: Ticket::default(),
            borrows: false,
            modest: ctx.setup.read_only && id % 3 > 0,
            read_only: false,
            timeout_ms: *ctx.dice.pick(&[500, 1_500, 4_000]),
            last_zxid: 0,
            next_xid: 1,
            input: BytesMut::new(),
            kept: Kept::default(),
            workload: Workload::new(id),
            since_us: 0,
            heard_us: 0,
            sent_us: 0,
            outstanding: 0,
            silent_until_us: 0,
            paused_until_us: 0,
            healing: Healing::Ill,
            sent: 0,
        }
    }

    /// Nothing holds it back any more.
    pub(super) fn heal(&mut self) {
        self.silent_until_us = 0;
        self.paused_until_us = 0;
        self.healing = Healing::Ill;
    }

    /// Was it served since [`Client::heal`]?
    pub(super) fn is_well(&self) -> bool {
        self.healing == Healing::Well
    }

    /// Where it stands, for a report.
    pub(super) fn state(&self) -> String {
        format!(
            "{}: connection {:?}, {:?}, {} outstanding, {:?}",
            self.name, self.connection, self.phase, self.outstanding, self.healing
        )
    }

    /// A turn: whatever comes to its mind. `others` are sessions that it may steal.
    pub(super) fn act(&mut self, ctx: &mut Context, hosts: &mut [Host], others: &[Ticket], budget: &mut u64) {
        let think = ctx.setup.think_us;
        let pause = if ctx.healing { 20_000 } else { ctx.dice.between(think / 10, think * 2) };
        ctx.after(pause, Event::Client(self.id));
        if ctx.now_us < self.silent_until_us {
            return;
        }
        let Some(connection) = self.connection else {
            self.connect(ctx, hosts, others);
            return;
        };
        if self.phase == Phase::Greeting {
            if ctx.now_us > self.since_us + 3_000_000 {
                self.disconnect(ctx, hosts, "no answer to its handshake");
                // As clients do: an observer whose only feeder is out of service may have none for long.
                self.home = (self.home + 1) % hosts.len();
            }
            return;
        }
        if ctx.healing {
            if self.read_only && !self.is_well() && self.finds_more(hosts) {
                return self.disconnect(ctx, hosts, "another server takes writes");
            }
            self.act_healing(ctx, connection);
            return;
        }
        let [leave, silence, slow, goodbye, _] = ctx.setup.client_faults;
        if ctx.dice.chance(leave) {
            return self.disconnect(ctx, hosts, "it leaves");
        }
        if ctx.dice.chance(silence) {
            let until = ctx.now_us + ctx.dice.below(3 * self.timeout_ms as u64 * 1_000);
            self.silent_until_us = until;
            ctx.note(&self.name, format_args!("falls silent until {until}"));
            return;
        }
        if ctx.dice.chance(slow) {
            self.paused_until_us = ctx.now_us + ctx.dice.below(2_000_000);
            ctx.note(&self.name, format_args!("does not read until {}", self.paused_until_us));
            ctx.at(self.paused_until_us, Event::ToClient(connection));
        }
        if ctx.dice.chance(goodbye) {
            self.ask(ctx, connection, &Asked::Plain(Request::CloseSession));
            self.ticket = Ticket::default();
            return;
        }
        if *budget == 0 || self.outstanding > 200 {
            return;
        }
        if hosts.len() > 1 && ctx.dice.chance(150) {
            // Alone, so that nothing but the sync makes the read fresh.
            *budget -= 1;
            for request in [Request::Sync { path: "/" }, Request::GetChildren { path: "/", watch: false }] {
                self.ask(ctx, connection, &Asked::Plain(request));
            }
            return;
        }
        let reconfigs = ctx.setup.reconfigs_per_mille;
        if reconfigs > 0 && ctx.dice.chance(reconfigs) {
            *budget -= 1;
            let table = ctx.checks.history.tree().members().clone();
            let asked = match ctx.dice.chance(400) {
                true => {
                    Asked::Plain(Request::GetData { path: "/zookeeper/config", watch: ctx.dice.chance(500) })
                }
                false => Workload::reconfig(&mut ctx.dice, &table, hosts.len()),
            };
            return self.ask(ctx, connection, &asked);
        }
        let count = ctx.dice.between(1, ctx.setup.pipeline_max).min(*budget);
        *budget -= count;
        for _ in 0..count {
            let asked = self.workload.draw(&mut ctx.dice);
            self.ask(ctx, connection, &asked);
        }
    }

    /// Who only reads looks at one server after the other for one that takes writes, and goes there (`ClientCnxn.pingRwServer`
    /// of ZooKeeper): its own may be an observer whose only feeder is out of service.
    fn finds_more(&mut self, hosts: &[Host]) -> bool {
        self.home = (self.home + 1) % hosts.len();
        hosts[self.home].server.as_ref().is_some_and(Server::takes_writes)
    }

    /// A write, a sync and a read, all of which must be answered.
    fn act_healing(&mut self, ctx: &mut Context, connection: u64) {
        if self.healing != Healing::Ill {
            return;
        }
        let acl = Acl::open();
        let op = Op::Create {
            path: "/healed-",
            data: None,
            acl: acl.iter().map(Acl::as_ref).collect(),
            mode: CreateMode::EphemeralSequential,
            ttl: 0,
        };
        let create = Request::Change(Change { opcode: Opcode::Create, op });
        for request in [create, Request::Sync { path: "/" }, Request::GetChildren { path: "/", watch: false }]
        {
            let mut bytes = Vec::new();
            let xid = self.next_xid;
            self.next_xid += 1;
            request.encode(xid, &mut bytes);
            self.send(ctx, connection, xid, &format!("{:?}", request.opcode()), &bytes);
            self.healing = Healing::Asked(xid);
        }
    }

    fn ask(&mut self, ctx: &mut Context, connection: u64, asked: &Asked) {
        let xid = match asked {
            Asked::Plain(Request::Auth { .. }) => xid::AUTH,
            _ => {
                self.next_xid += 1;
                self.next_xid - 1
            }
        };
        let mut bytes = Vec::new();
        asked.encode(xid, &mut bytes);
        self.send(ctx, connection, xid, &format!("{asked:?}"), &bytes);
    }

    fn send(&mut self, ctx: &mut Context, connection: u64, xid: i32, what: &str, bytes: &[u8]) {
        ctx.note(&self.name, format_args!("#{connection} > {xid} {what}"));
        self.sent += 1;
        self.sent_us = ctx.now_us;
        if xid > 0 || xid == xid::SET_WATCHES {
            self.outstanding += 1;
        }
        ctx.checks.on_sent(connection, &bytes[4..]);
        if let Some(wire) = ctx.wires.get_mut(&connection) {
            wire.to_server.send(bytes);
            deliver(ctx, connection, true);
        }
    }

    fn connect(&mut self, ctx: &mut Context, hosts: &mut [Host], others: &[Ticket]) {
        if hosts.len() > 1 && ctx.dice.chance(300) {
            self.home = ctx.dice.below(hosts.len() as u64) as usize;
        }
        let Some(server) = &mut hosts[self.home].server else {
            self.home = (self.home + 1) % hosts.len();
            return;
        };
        let [.., theft] = ctx.setup.client_faults;
        let steal = !ctx.healing && !others.is_empty() && ctx.dice.chance(theft * 5);
        let ticket = if steal { ctx.dice.pick(others).clone() } else { self.ticket.clone() };
        self.borrows = ticket.session != self.ticket.session;
        ctx.connections += 1;
        let id = ctx.connections;
        let to = name_of(ctx, self.home);
        ctx.note(&self.name, format_args!("#{id} connects to {to} for session {:#x}", ticket.session));
        ctx.wires.insert(id, Wire { client: self.id, host: self.home, ..Wire::default() });
        ctx.checks.on_connection(id, self.id, address_of(self.id));
        server.accept(ctx, id, self.id);
        self.connection = Some(id);
        self.phase = Phase::Greeting;
        (self.since_us, self.heard_us) = (ctx.now_us, ctx.now_us);
        self.input.clear();
        self.outstanding = 0;
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: self.last_zxid,
            timeout_ms: self.timeout_ms,
            session: ticket.session,
            password: &ticket.password,
            read_only: Some(self.modest),
        };
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        if let Some(wire) = ctx.wires.get_mut(&id) {
            wire.to_server.send(&bytes);
            deliver(ctx, id, true);
        }
    }

    /// Give the connection up.
    pub(super) fn disconnect(&mut self, ctx: &mut Context, hosts: &mut [Host], why: &str) {
        let Some(id) = self.connection.take() else { return };
        ctx.note(&self.name, format_args!("#{id} is over: {why}"));
        let kept = ctx.checks.on_closed(id);
        if self.borrows {
            self.kept = Kept::default();
        } else if let (Phase::Live, Some(kept)) = (self.phase, kept) {
            self.kept = kept;
        }
        self.healing = if self.healing == Healing::Well { Healing::Well } else { Healing::Ill };
        if let Some(wire) = ctx.wires.get_mut(&id) {
            if wire.server_gone {
                ctx.wires.remove(&id);
                return;
            }
            wire.client_gone = true;
            if ctx.dice.chance(300) {
                wire.to_server.lose();
            }
            wire.to_server.end();
            deliver(ctx, id, true);
            if let Some(server) = server_of(ctx, hosts, id) {
                server.wake_connection(ctx, id);
            }
        }
    }

    /// A sign of life, when nothing else was said; and giving up, when nothing was heard.
    pub(super) fn ping(&mut self, ctx: &mut Context, hosts: &mut [Host], connection: u64) {
        if self.connection != Some(connection) {
            return;
        }
        let third_us = self.timeout_ms as u64 * 1_000 / 3;
        ctx.after(third_us / 2, Event::Ping(self.id, connection));
        if ctx.now_us < self.silent_until_us {
            return;
        }
        if ctx.now_us > self.heard_us + 2 * third_us && ctx.now_us > self.paused_until_us {
            self.disconnect(ctx, hosts, "the server is silent");
        } else if ctx.now_us >= self.sent_us + third_us / 2 {
            let mut bytes = Vec::new();
            Request::Ping.encode(xid::PING, &mut bytes);
            self.send(ctx, connection, xid::PING, "ping", &bytes);
        }
    }

    /// Bytes arrived.
    pub(super) fn read(&mut self, ctx: &mut Context, hosts: &mut [Host], id: u64) -> Result<(), Violation> {
        if self.connection != Some(id) || ctx.now_us < self.paused_until_us {
            return Ok(());
        }
        let Some(wire) = ctx.wires.get_mut(&id) else { return Ok(()) };
        let bytes = wire.to_client.read();
        let over = wire.to_client.is_over();
        self.input.extend_from_slice(&bytes);
        if let (false, Some(server)) = (bytes.is_empty(), server_of(ctx, hosts, id)) {
            server.on_writable(ctx, id);
        }
        while self.connection == Some(id) {
            let Ok(Some(packet)) = take_frame(&mut self.input, usize::MAX >> 1) else { break };
            self.heard_us = ctx.now_us;
            match self.phase {
                Phase::Greeting => self.on_greeted(ctx, hosts, id, &packet),
                Phase::Live => self.on_packet(ctx, id, &packet)?,
            }
        }
        if over {
            self.disconnect(ctx, hosts, "the server closed it");
        }
        Ok(())
    }

    fn on_greeted(&mut self, ctx: &mut Context, hosts: &mut [Host], id: u64, packet: &[u8]) {
        let Ok(response) = ConnectResponse::decode(packet) else {
            return self.disconnect(ctx, hosts, "the handshake's answer does not decode");
        };
        if response.is_expired() {
            ctx.note(&self.name, format_args!("#{id} < the session is expired"));
            if !self.borrows {
                self.ticket = Ticket::default();
                self.kept = Kept::default();
            }
            return self.disconnect(ctx, hosts, "expired");
        }
        self.read_only = response.read_only == Some(true);
        let only_reads = if self.read_only { ", read-only" } else { "" };
        ctx.note(&self.name, format_args!("#{id} < session {:#x}{only_reads}", response.session));
        self.phase = Phase::Live;
        // As the Java client, some do not show a read-only session to anybody; others do, and learn that it is over.
        if !(self.borrows || self.read_only && self.id % 3 == 1) {
            self.ticket = Ticket { session: response.session, password: response.password };
        }
        self.timeout_ms = response.timeout_ms;
        ctx.after(self.timeout_ms as u64 * 300, Event::Ping(self.id, id));
        if ctx.dice.chance(200) {
            let auth = Asked::Plain(Workload::auth(&mut ctx.dice));
            self.ask(ctx, id, &auth);
        }
        if ctx.setup.reconfigs_per_mille > 0 && ctx.dice.chance(700) {
            self.ask(ctx, id, &Asked::Plain(Workload::administrator()));
        }
        let kept = std::mem::take(&mut self.kept);
        if self.borrows || kept.is_empty() {
            return;
        }
        fn strs(list: &[String]) -> Vec<&str> {
            list.iter().map(String::as_str).collect()
        }
        let persistent = (strs(&kept.persistent), strs(&kept.recursive));
        let request = Request::SetWatches(SetWatches {
            relative_zxid: self.last_zxid,
            data: strs(&kept.data),
            exist: strs(&kept.exist),
            child: strs(&kept.child),
            persistent: (!persistent.0.is_empty() || !persistent.1.is_empty()).then_some(persistent),
        });
        let mut bytes = Vec::new();
        request.encode(xid::SET_WATCHES, &mut bytes);
        self.send(ctx, id, xid::SET_WATCHES, &format!("{request:?}"), &bytes);
    }

    fn on_packet(&mut self, ctx: &mut Context, id: u64, packet: &[u8]) -> Result<(), Violation> {
        let header = ReplyHeader::decode(packet).map(|(header, _)| header);
        if let Ok(header) = header {
            ctx.note(
                &self.name,
                format_args!("#{id} < {} z{} err {}", header.xid, shown(header.zxid), header.err),
            );
            ctx.trace.bytes(packet);
        }
        ctx.checks.on_received(id, packet)?;
        let Ok(header) = header else { return Ok(()) };
        if header.xid > 0 || header.xid == xid::SET_WATCHES {
            self.outstanding = self.outstanding.saturating_sub(1);
            self.last_zxid = self.last_zxid.max(header.zxid);
            if self.healing == Healing::Asked(header.xid) && !self.read_only {
                self.healing = Healing::Well;
            }
        }
        Ok(())
    }
}
