//! The daemon begins anew in place, with its connections: `server/src/io/restart`, step by step.

use super::{Client, Server, ToService};
use crate::sim::context::{Context, Event, Halt, Step};
use crate::sim::net;
use crate::sim::planted::Planted;
use bytes::BytesMut;
use std::net::SocketAddr;
use warren_server::connection::{Connection, Effects, Kept};
use warren_server::mailbox::Mailbox;
use warren_server::service;
use warren_server::watches::Table;
use warren_storage::Zxid;

/// Connections have so long to answer what they took, µs.
const CONNECTIONS_US: u64 = 500_000;
/// A last checkpoint may take so long, µs.
const CHECKPOINT_US: u64 = 2_000_000;
/// Between two looks, µs.
const LOOK_US: u64 = 1_000;

/// How far it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Anew {
    /// Connections answer what they took.
    Park { until_us: u64 },
    /// The last checkpoint is made, and no other server is heard any more.
    Stop { until_us: u64 },
}

/// What the next process goes on with.
pub(in crate::sim) struct Handed {
    zxid: Zxid,
    /// By the connection's number; with the writes that it took.
    connections: Vec<(u64, SocketAddr, u64, Kept)>,
}

impl Handed {
    /// Those that are kept.
    pub(in crate::sim) fn ids(&self) -> Vec<u64> {
        self.connections.iter().map(|(id, ..)| *id).collect()
    }
}

impl Server {
    /// Its operator has it begin anew.
    pub(in crate::sim) fn begin_anew(&mut self, ctx: &mut Context) {
        if self.anew.is_some() || !self.takes_part() {
            return;
        }
        ctx.note(&self.name, format_args!("is to begin anew in place"));
        self.anew = Some(Anew::Park { until_us: ctx.now_us + CONNECTIONS_US });
        self.transfer(ctx, None);
        self.room.stop();
        for id in self.clients.keys().copied().collect::<Vec<_>>() {
            self.wake_connection(ctx, id);
        }
        self.look_again(ctx);
    }

    fn look_again(&mut self, ctx: &mut Context) {
        ctx.after(LOOK_US, Event::Server(self.host, self.life, Step::Anew));
    }

    /// Is it so far? The process ends when it is.
    pub(super) fn on_anew(&mut self, ctx: &mut Context) -> Result<(), Halt> {
        match self.anew {
            None => return Ok(()),
            Some(Anew::Park { until_us }) => {
                let unsettled = self.clients.iter().filter(|(_, client)| !client.connection.is_settled());
                let unsettled: Vec<u64> = unsettled.map(|(id, _)| *id).collect();
                if unsettled.is_empty() || ctx.now_us >= until_us {
                    for id in unsettled {
                        self.close(ctx, id, "it begins anew, and could not answer all before");
                    }
                    net::part(ctx, self.host);
                    ctx.net.on_stopped(self.host);
                    self.anew = Some(Anew::Stop { until_us: ctx.now_us + CHECKPOINT_US });
                    self.service_in.push_back(ToService::Event(service::Event::LastCheckpoint));
                    self.wake(ctx, Step::Service);
                }
            }
            Some(Anew::Stop { until_us }) => {
                let busy = self.service.is_checkpointing()
                    || self.unpublished
                    || !self.service_in.is_empty()
                    || !self.checkpoint_jobs.is_empty()
                    || !self.written.is_empty();
                if !busy || ctx.now_us >= until_us {
                    return Err(Halt::Anew);
                }
            }
        }
        self.look_again(ctx);
        Ok(())
    }

    /// Are its links cut already?
    pub(super) fn is_parting(&self) -> bool {
        matches!(self.anew, Some(Anew::Stop { .. }))
    }

    /// One turn of a connection that waits: what the client sends is for the next process.
    pub(super) fn on_parked(&mut self, ctx: &mut Context, id: u64) -> Result<(), Halt> {
        let Some(client) = self.clients.get_mut(&id) else { return Ok(()) };
        let mut effects = Effects::default();
        let now = ctx.now_at(self.host);
        client
            .connection
            .turn(now, &self.room, &mut BytesMut::new(), &mut client.out, &mut effects)
            .map_err(|e| Halt::exit("the tree cannot be read", e))?;
        self.tell_checkers(ctx, id)?;
        let Some(client) = self.clients.get_mut(&id) else { return Ok(()) };
        super::connections::flush(ctx, id, &mut client.out);
        let ending = client.connection.ending();
        self.submit(ctx, effects);
        if let Some(ending) = ending {
            self.close(ctx, id, &format!("{ending:?}"));
        }
        Ok(())
    }

    /// Nothing more is applied: the connections tell their last events, and are written down.
    pub(in crate::sim) fn gather(&mut self, ctx: &mut Context) -> Result<Handed, Halt> {
        for id in self.clients.keys().copied().collect::<Vec<_>>() {
            self.on_parked(ctx, id)?;
        }
        let mut connections = Vec::new();
        for (id, client) in &self.clients {
            // A client that is gone is not noticed before.
            if let Some(kept) = client.connection.keep(&self.room, &client.input, &client.out) {
                connections.push((*id, client.connection.peer(), client.connection.writes(), kept));
            }
        }
        ctx.note(&self.name, format_args!("begins anew with {} connections", connections.len()));
        Ok(Handed { zxid: self.room.zxid(), connections })
    }

    /// Go on with the connections of the process before. Those that it cannot go on with are left out, for their wires to be
    /// cut.
    pub(in crate::sim) fn resume(&mut self, ctx: &mut Context, handed: Handed) {
        if handed.zxid != self.room.zxid() {
            ctx.note(&self.name, format_args!("begins with another tree than it ended with"));
            return;
        }
        for (id, peer, writes, kept) in handed.connections {
            let woken = self.woken.clone();
            let wake = move || woken.lock().expect("nobody panics with it").push(id);
            let mailbox = Mailbox::new(id, Box::new(wake));
            let mut effects = Effects::default();
            let (limits, room) = (self.limits.clone(), self.room.clone());
            let connection = Connection::resume(&kept, peer, mailbox.clone(), limits, &room, &mut effects);
            if ctx.planted == Some(Planted::KeptWithoutWatches) {
                let mut watched = Vec::new();
                room.watches.each(|path, connection, _: Table| {
                    if connection == id {
                        watched.push(path.clone());
                    }
                });
                room.watches.forget(id, watched.iter());
            }
            let client = Client {
                connection,
                mailbox,
                input: kept.input[..].into(),
                out: kept.unsent,
                scheduled: false,
                attached: false,
                received: 0,
            };
            self.clients.insert(id, client);
            self.submit(ctx, effects);
            self.wake_connection(ctx, id);
            ctx.checks.on_kept(id, writes);
        }
    }

    /// Does it serve this connection?
    pub(in crate::sim) fn has_client(&self, id: u64) -> bool {
        self.clients.contains_key(&id)
    }
}
