//! A connection that outlives its server's process: what is written down of it when the process is about to be replaced by
//! another on the same store (`server/src/io/restart`), and how the next one goes on with it.
//!
//! It is written down once it owes no answer and the service applies nothing more, so that the client was told of every
//! change in the tree. The next process goes on only if it begins with that very tree: watches are armed again before
//! anything else is applied, and so neither miss a change nor tell one twice. The session is moved to the new run through
//! the log, as if the client had connected anew, but the client is not told: to it nothing happened. What it sends
//! meanwhile waits in the kernel.

use super::{Connection, Effects, Limits, Phase};
use crate::identity::Identity;
use crate::mailbox::Mailbox;
use crate::room::Room;
use crate::service;
use crate::watches::Modes;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use warren_storage::{Id, SessionId, ZPath};

/// One connection, written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    session: Option<KeptSession>,
    /// Scheme and id of each that it proved.
    ids: Vec<(String, String)>,
    watches: Vec<(String, Modes)>,
    /// Read from the client, and not looked at: the next request, or a part of it.
    pub input: Vec<u8>,
    /// For the client, and not sent, as it did not take it: it may begin within a packet.
    pub unsent: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct KeptSession {
    id: SessionId,
    password: [u8; 16],
    timeout_ms: i32,
    generation: u32,
}

#[cfg(test)]
impl Kept {
    /// Of a client that said so much, and no whole packet.
    pub(crate) fn of_nobody(input: &[u8]) -> Kept {
        Kept {
            session: None,
            ids: Vec::new(),
            watches: Vec::new(),
            input: input.to_vec(),
            unsent: Vec::new(),
        }
    }
}

impl Connection {
    /// Does it owe its client nothing, so that it may be [kept](Connection::keep)?
    pub fn is_settled(&self) -> bool {
        self.pending.is_empty()
            && self.ending.is_none()
            && !matches!(self.phase, Phase::Attaching { .. } | Phase::Resuming)
    }

    /// Writes that it took since its session was attached.
    pub fn writes(&self) -> u64 {
        self.sequence
    }

    /// Write it down; nothing more must be asked of it then. `None` when it cannot be kept: it is not
    /// [settled](Connection::is_settled), or its session is of this run alone ([`crate::mailbox::Attached::read_only`]).
    pub fn keep(&self, room: &Room, input: &[u8], unsent: &[u8]) -> Option<Kept> {
        let session = match &self.phase {
            _ if !self.is_settled() => return None,
            Phase::Serving(attached) if attached.read_only => return None,
            Phase::Serving(attached) => Some(KeptSession {
                id: attached.session,
                password: attached.password,
                timeout_ms: attached.timeout_ms,
                generation: attached.generation,
            }),
            _ => None,
        };
        let mut watches: Vec<(String, Modes)> = self
            .watched
            .iter()
            .filter_map(|path| {
                let modes = room.watches.modes(path, self.mailbox.connection)?;
                Some((path.to_string(), modes))
            })
            .collect();
        // The order of a hash set is nobody's business.
        watches.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let ids = self.identity.ids().iter().map(|id| (id.scheme.to_string(), id.id.to_string())).collect();
        Some(Kept { session, ids, watches, input: input.to_vec(), unsent: unsent.to_vec() })
    }

    /// Go on with one that was kept. To be called before anything is applied to the tree that it was kept with; the room has
    /// that tree's snapshot. What it asks of the service is in `effects`, and must reach it.
    pub fn resume(
        kept: &Kept,
        peer: SocketAddr,
        mailbox: Arc<Mailbox>,
        limits: Arc<Limits>,
        room: &Room,
        effects: &mut Effects,
    ) -> Connection {
        let mut watched = HashSet::default();
        for (path, modes) in &kept.watches {
            let path = ZPath::trusted(path);
            room.watches.arm_again(&path, *modes, &mailbox);
            watched.insert(path);
        }
        let phase = match &kept.session {
            None => Phase::New,
            Some(session) => {
                effects.service.push(service::Event::Connect {
                    mailbox: mailbox.clone(),
                    session: session.id,
                    password: session.password,
                    timeout_ms: session.timeout_ms,
                    read_only: false,
                    asked: None,
                    generation: Some(session.generation),
                });
                Phase::Resuming
            }
        };
        let ids = kept.ids.iter().map(|(scheme, id)| Id::new(scheme.clone(), id.clone()));
        let identity = Identity::with(ids.collect());
        Connection { phase, identity, watched, ..Connection::new(peer, mailbox, limits) }
    }
}
