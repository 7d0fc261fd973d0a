//! Connections of clients, each a task.

use super::{Client, Server, ToService, address_of};
use crate::sim::context::{Context, Event, Halt, Step};
use crate::sim::planted::Planted;
use bytes::BytesMut;
use std::net::SocketAddr;
use warren_server::connection::{Connection, Effects, REPLY_BYTES_WAITING_MAX};
use warren_server::consensus::{self, Submission};
use warren_server::mailbox::Mailbox;
use warren_storage::Logged;
use warren_transport::{take_frame, xid};

impl Server {
    /// A client connects.
    pub(in crate::sim) fn accept(&mut self, ctx: &mut Context, id: u64, client: usize) {
        let woken = self.woken.clone();
        let wake = move || woken.lock().expect("nobody panics with it").push(id);
        let mailbox = Mailbox::new(id, Box::new(wake));
        let peer = SocketAddr::new(address_of(client), 40_000);
        let connection = Connection::new(peer, mailbox.clone(), self.limits.clone());
        let client = Client {
            connection,
            mailbox,
            input: BytesMut::new(),
            out: Vec::new(),
            scheduled: false,
            attached: false,
            received: 0,
        };
        self.clients.insert(id, client);
        self.wake_connection(ctx, id);
    }

    /// One turn of a connection's task: send what is left; read, if it may; take a turn; send.
    pub(super) fn on_connection(&mut self, ctx: &mut Context, id: u64) -> Result<(), Halt> {
        let Some(client) = self.clients.get_mut(&id) else { return Ok(()) };
        client.scheduled = false;
        if self.anew.is_some() {
            return self.on_parked(ctx, id);
        }
        if !client.out.is_empty() {
            let took_some = flush(ctx, id, &mut client.out);
            client.connection.on_stuck(ctx.now_at(self.host), took_some, !client.out.is_empty());
            let shared = client.connection.session().filter(|attached| !attached.read_only);
            if let (Some(attached), true) = (shared, took_some) {
                let (session, generation) = (attached.session, attached.generation);
                ctx.checks.ephemerals.on_heard(ctx.now_us, self.host, session, generation);
            }
        }
        let Some(wire) = ctx.wires.get_mut(&id) else {
            self.close(ctx, id, "the network failed");
            return Ok(());
        };
        if !client.out.is_empty() {
            // While the client does not read, nothing else is done for it.
            if client.connection.must_close() || wire.client_gone {
                self.close(ctx, id, "it does not read");
            }
            return Ok(());
        }
        if let Some(ending) = client.connection.ending() {
            self.close(ctx, id, &format!("{ending:?}"));
            return Ok(());
        }
        if client.connection.wants_input(&self.room) {
            let bytes = wire.to_server.read();
            client.input.extend_from_slice(&bytes);
            if bytes.is_empty() && wire.to_server.is_over() {
                self.close(ctx, id, "the client closed it");
                return Ok(());
            }
        }
        let mut effects = Effects::default();
        let now = ctx.now_at(self.host);
        client
            .connection
            .turn(now, &self.room, &mut client.input, &mut client.out, &mut effects)
            .map_err(|e| Halt::exit("the tree cannot be read", e))?;
        if ctx.planted == Some(Planted::LoseMark) {
            client.mailbox.clear_marks();
        }
        self.tell_checkers(ctx, id)?;
        let Some(client) = self.clients.get_mut(&id) else { return Ok(()) };
        match ctx.planted {
            Some(Planted::WatchAfterReply) => {
                swap(&mut client.out, |first, second| first == xid::NOTIFICATION && second > 0)
            }
            Some(Planted::SwapReplies) => swap(&mut client.out, |first, second| first > 0 && second > 0),
            _ => {}
        }
        let full = client.out.len() >= REPLY_BYTES_WAITING_MAX;
        flush(ctx, id, &mut client.out);
        let flushed = client.out.is_empty();
        if !flushed {
            client.connection.on_stuck(now, false, true);
        }
        let ending = client.connection.ending();
        // Whole requests may be in the buffer, and more with the network.
        let wants_input = client.connection.wants_input(&self.room);
        let more = ctx.wires.get(&id).is_some_and(|w| w.to_server.has_arrived() || w.to_server.is_over());
        // Whoever is gone never makes room, and a write to it fails.
        let failed = !flushed && ctx.wires.get(&id).is_some_and(|wire| wire.client_gone);
        self.submit(ctx, effects);
        if failed {
            self.close(ctx, id, "the network failed");
        } else if flushed {
            if let Some(ending) = ending {
                self.close(ctx, id, &format!("{ending:?}"));
            } else if full || (wants_input && more) {
                self.wake_connection(ctx, id);
            }
        }
        Ok(())
    }

    /// A turn is over, and nothing of it is sent yet.
    pub(super) fn tell_checkers(&mut self, ctx: &mut Context, id: u64) -> Result<(), Halt> {
        let Some(client) = self.clients.get_mut(&id) else { return Ok(()) };
        // What only this server knows, no leader can expire.
        let shared = client.connection.session().filter(|attached| !attached.read_only);
        let session = shared.map(|a| (a.session, a.generation));
        let timeout_ms = shared.map_or(0, |a| a.timeout_ms);
        if let Some(attached) = client.connection.session().filter(|a| a.read_only && !client.attached) {
            client.attached = true;
            ctx.checks.on_attached_read_only(id, attached.session, attached.generation);
        }
        if let Some((session, generation)) = session {
            if !client.attached {
                client.attached = true;
                ctx.checks.on_attached(id, session, generation);
                // It may have lost the session again before it was told that it has it.
                if client.connection.ending().is_none() {
                    ctx.checks.ephemerals.on_spoke(ctx.now_us, self.host, session, generation, timeout_ms);
                }
            }
            if client.connection.facts.received > client.received {
                ctx.checks.ephemerals.on_spoke(ctx.now_us, self.host, session, generation, timeout_ms);
            }
        }
        client.received = client.connection.facts.received;
        if let (Some((session, generation)), false) = (session, client.out.is_empty()) {
            ctx.checks.ephemerals.on_answered(ctx.now_us, session, generation)?;
        }
        Ok(())
    }

    pub(super) fn submit(&mut self, ctx: &mut Context, effects: Effects) {
        if !effects.service.is_empty() {
            self.service_in.extend(effects.service.into_iter().map(ToService::Event));
            self.wake(ctx, Step::Service);
        }
        if effects.submissions.is_empty() {
            return;
        }
        if !ctx.healing && ctx.dice.chance(ctx.setup.repeats_per_mille) {
            let untag = ctx.planted == Some(Planted::SkipDedup);
            let commands = effects.submissions.iter().filter_map(|submission| match submission {
                Submission::Command(bytes) if untag => {
                    let logged = Logged::decode(bytes).ok()?;
                    Some(Logged { tag: None, ..logged }.encode())
                }
                Submission::Command(bytes) => Some(bytes.clone()),
                _ => None,
            });
            self.repeats.push_back(commands.collect());
            ctx.soon(Event::Server(self.host, self.life, Step::Repeat));
        }
        self.consensus_in.push(consensus::Event::Submit(effects.submissions));
        self.wake(ctx, Step::Consensus);
    }

    pub(super) fn close(&mut self, ctx: &mut Context, id: u64, why: &str) {
        let Some(mut client) = self.clients.remove(&id) else { return };
        ctx.note(&self.name, format_args!("closes #{id}: {why}"));
        let mut effects = Effects::default();
        client.connection.on_closed(&self.room, &mut effects);
        self.submit(ctx, effects);
        if let Some(wire) = ctx.wires.get_mut(&id) {
            if wire.client_gone {
                ctx.wires.remove(&id);
            } else {
                wire.server_gone = true;
                wire.to_client.end();
                deliver(ctx, id, false);
            }
        }
    }

    /// The network takes more of this connection.
    pub(in crate::sim) fn on_writable(&mut self, ctx: &mut Context, id: u64) {
        if self.clients.get(&id).is_some_and(|client| !client.out.is_empty()) {
            self.wake_connection(ctx, id);
        }
    }
}

/// Send as much as the network takes; tells whether it took any.
pub(super) fn flush(ctx: &mut Context, id: u64, out: &mut Vec<u8>) -> bool {
    let Some(wire) = ctx.wires.get_mut(&id) else { return false };
    let room = ctx.setup.window_bytes.saturating_sub(wire.to_client.unread());
    let sent = room.min(out.len());
    if sent > 0 {
        wire.to_client.send(&out[..sent]);
        out.drain(..sent);
        deliver(ctx, id, false);
    }
    sent > 0
}

/// What was sent arrives later.
pub(in crate::sim) fn deliver(ctx: &mut Context, id: u64, to_server: bool) {
    let Some(wire) = ctx.wires.get_mut(&id) else { return };
    let pipe = if to_server { &mut wire.to_server } else { &mut wire.to_client };
    if !pipe.scheduled {
        pipe.scheduled = true;
        ctx.soon(if to_server { Event::ToServer(id) } else { Event::ToClient(id) });
    }
}

/// Let two packets that follow each other change places, where their xids are as wanted.
fn swap(out: &mut Vec<u8>, wanted: impl Fn(i32, i32) -> bool) {
    let mut rest = BytesMut::from(out.as_slice());
    let mut packets: Vec<Vec<u8>> = Vec::new();
    while let Ok(Some(packet)) = take_frame(&mut rest, usize::MAX >> 1) {
        packets.push(packet.to_vec());
    }
    // The answer to a handshake has no xid; it begins with the version, 0.
    let xid = |packet: &[u8]| packet.first_chunk().map_or(0, |xid| i32::from_be_bytes(*xid));
    for at in 1..packets.len() {
        if wanted(xid(&packets[at - 1]), xid(&packets[at])) {
            packets.swap(at - 1, at);
        }
    }
    out.clear();
    for packet in packets {
        out.extend_from_slice(&(packet.len() as u32).to_be_bytes());
        out.extend_from_slice(&packet);
    }
}
