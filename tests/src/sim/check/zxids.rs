//! zxids only rise: on a server, across its restarts, and for a client across its connections.

use super::{Verdict, hold, shown};
use std::collections::BTreeMap;
use warren_server::service::Service;

const PROPERTY: &str = "zxids only rise";

/// The highest so far.
#[derive(Default)]
pub struct Zxids {
    server: i64,
    clients: BTreeMap<usize, i64>,
}

impl Zxids {
    /// A restarted server begins at its checkpoint; [`super::durable`] sees to it that it comes back.
    pub(super) fn on_started(&mut self) {
        self.server = 0;
    }

    pub(super) fn on_step(&mut self, service: &Service) -> Verdict {
        let zxid = service.tree().zxid().wire();
        hold(zxid >= self.server, PROPERTY, || {
            format!("the server went from {} back to {}", shown(self.server), shown(zxid))
        })?;
        self.server = zxid;
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
