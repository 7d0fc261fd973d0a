//! zxids only rise: on a server, across its restarts, and for a client across its connections to any server.

use super::{Verdict, hold, shown};
use std::collections::BTreeMap;
use warren_server::service::Service;

const PROPERTY: &str = "zxids only rise";

/// The highest so far.
pub struct Zxids {
    servers: Vec<i64>,
    clients: BTreeMap<usize, i64>,
}

impl Zxids {
    pub(super) fn new(servers: usize) -> Zxids {
        Zxids { servers: vec![0; servers], clients: BTreeMap::new() }
    }

    /// A restarted server begins at its checkpoint; [`super::durable`] sees to it that it comes back.
    pub(super) fn on_started(&mut self, server: usize) {
        self.servers[server] = 0;
    }

    pub(super) fn on_step(&mut self, server: usize, service: &Service) -> Verdict {
        let zxid = service.tree().zxid().wire();
        let last = &mut self.servers[server];
        hold(zxid >= *last, PROPERTY, || {
            format!("s{} went from {} back to {}", server + 1, shown(*last), shown(zxid))
        })?;
        *last = zxid;
        Ok(())
    }

    /// A reply that is not a ping's: clients keep its zxid and show it when they reconnect.
    pub(super) fn on_reply(&mut self, client: usize, zxid: i64) -> Verdict {
        let last = self.clients.entry(client).or_default();
        hold(zxid >= *last, PROPERTY, || {
            format!("client {client} read a reply at {} behind one at {}", shown(zxid), shown(*last))
        })?;
        *last = zxid;
        Ok(())
    }
}
