//! Read-only mode: a server that has been without a leader for a while serves reads to clients that accept that they may
//! be old (ZooKeeper's `ReadOnlyZooKeeperServer`).
//!
//! Their sessions are known to this server alone: no log has them, no leader expires them, and nothing but the client's
//! silence ends them before a leader is there. Then they all end, for a client that only reads here could write
//! elsewhere. What they read is the tree as this server has it, a prefix of everybody's history.
//!
//! Sessions of the ensemble stay as they are: those with a connection keep it until they are cut off, and whoever comes
//! back with one is sent away, for nobody here can tell whether it is still alive.

use super::Service;
use super::sessions::Connect;
use crate::mailbox::{Attached, Item, Mailbox, Pulse};
use crate::moment::Moment;
use sha1::{Digest as _, Sha1};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use warren_storage::{SessionId, Zxid};

/// An election is a pause; a server is cut off when it has had no leader for so long, or for a tick if that is longer
/// (ZooKeeper's `QuorumPeer.run`).
pub const READ_ONLY_AFTER_MIN: Duration = Duration::from_secs(2);

/// Bits of a read-only session's id that count; above them stands the server, and above that a zero byte, where the ids of
/// the ensemble's sessions have a server's id, which is never 0.
const COUNT_BITS: u32 = 48;

/// What a server keeps for read-only mode.
pub(super) struct ReadOnly {
    allowed: bool,
    after: Duration,
    /// Since when no leader's epoch has begun here.
    without_since: Option<Moment>,
    on: bool,
    server_id: u8,
    incarnation: u64,
    /// Counts its sessions.
    count: u64,
    sessions: BTreeMap<SessionId, Local>,
}

/// A session of this server alone.
struct Local {
    timeout_ms: i32,
    /// Counts its connections.
    generation: u32,
    pulse: Arc<Pulse>,
    /// `None` when the connection is gone and the client may come back.
    mailbox: Option<Arc<Mailbox>>,
}

impl ReadOnly {
    /// Of this run of a server. `tick_ms`: see [`READ_ONLY_AFTER_MIN`].
    pub(super) fn new(allowed: bool, tick_ms: u64, server_id: u8, incarnation: u64) -> ReadOnly {
        ReadOnly {
            allowed,
            after: READ_ONLY_AFTER_MIN.max(Duration::from_millis(tick_ms)),
            without_since: None,
            on: false,
            server_id,
            incarnation,
            // Ids of different runs should differ, so that a late client does not meet another's session.
            count: incarnation,
            sessions: BTreeMap::new(),
        }
    }

    /// Does the server serve read-only clients now?
    pub(super) fn is_on(&self) -> bool {
        self.on
    }

    /// When it begins to, unless there is a leader before.
    pub(super) fn begins_at(&self) -> Option<Moment> {
        self.without_since.filter(|_| self.allowed && !self.on).map(|since| since + self.after)
    }

    fn next_session(&mut self) -> SessionId {
        loop {
            self.count = self.count.wrapping_add(1);
            let count = self.count & ((1 << COUNT_BITS) - 1);
            let id = (u64::from(self.server_id) << COUNT_BITS | count) as SessionId;
            if !self.sessions.contains_key(&id) {
                return id;
            }
        }
    }

    /// As hard to guess as the run's number, which no client is told.
    fn password_of(&self, session: SessionId) -> [u8; 16] {
        let digest =
            Sha1::new().chain_update(self.incarnation.to_be_bytes()).chain_update(session.to_be_bytes());
        *digest.finalize().first_chunk().expect("a digest is longer than a password")
    }

    /// The connection of a session is gone.
    pub(super) fn on_disconnect(&mut self, session: SessionId, generation: u32) {
        if let Some(local) = self.sessions.get_mut(&session).filter(|local| local.generation == generation) {
            local.mailbox = None;
        }
    }

    /// All connections; their sessions are forgotten.
    pub(super) fn dismiss(&mut self) -> Vec<Arc<Mailbox>> {
        std::mem::take(&mut self.sessions).into_values().filter_map(|local| local.mailbox).collect()
    }
}

impl Service {
    /// Time has passed, and there is a leader or there is none.
    pub(super) fn look_for_read_only(&mut self, now: Moment) {
        if !self.read_only.allowed || self.is_wrong() {
            return;
        }
        if self.alone || self.has_epoch() {
            self.read_only.without_since = None;
            if self.read_only.on {
                self.end_read_only();
            }
            return;
        }
        let since = *self.read_only.without_since.get_or_insert(now);
        if !self.read_only.on && now.since(since) >= self.read_only.after {
            self.begin_read_only(now);
        }
        self.expire_read_only(now);
    }

    fn begin_read_only(&mut self, now: Moment) {
        self.read_only.on = true;
        self.room.set_read_only(true);
        self.show_standing();
        tracing::warn!(
            "there is no leader; clients that accept it are served reads, all others are sent away"
        );
        let asking = std::mem::take(&mut self.connects).into_values();
        let mut waiting: Vec<Connect> =
            asking.chain(std::mem::take(&mut self.lookups).into_values()).collect();
        waiting.sort_unstable_by_key(|connect| connect.mailbox.connection);
        for connect in waiting {
            self.connect_read_only(now, connect);
        }
    }

    fn end_read_only(&mut self) {
        self.read_only.on = false;
        self.room.set_read_only(false);
        self.show_standing();
        tracing::info!(
            "there is a leader again; read-only clients are sent to look for a server that takes writes"
        );
        for mailbox in self.read_only.dismiss() {
            self.tell(
                &mailbox,
                Zxid::ZERO,
                Item::Close("there is a leader again, and its session only reads"),
            );
        }
        self.room.metrics.local_sessions.set(0);
    }

    /// A connection asks for a session, and no leader can be asked.
    pub(super) fn connect_read_only(&mut self, now: Moment, connect: Connect) {
        let Connect { mailbox, session, password, timeout_ms, read_only, .. } = connect;
        let refuse = |why| Item::Close(why);
        let item = if !read_only {
            refuse("this server only reads, and the client wants to write")
        } else if session == 0 {
            if self.read_only.sessions.len() >= self.options.sessions_max {
                self.room.metrics.warren_session_refusals_total.add(1);
                refuse("the limit of sessions is reached")
            } else {
                let session = self.read_only.next_session();
                Item::Attached(self.attach_read_only(now, session, timeout_ms, &mailbox))
            }
        } else if self.tree.session(session).is_some() || session as u64 >> 56 != 0 {
            refuse("its session is the ensemble's, and this server has no leader to ask for it")
        } else if !self.read_only.sessions.contains_key(&session)
            || self.read_only.password_of(session) != password
        {
            // A read-only session of another server, or of a former time: it is over.
            Item::Refused
        } else {
            self.room.metrics.connection_revalidate_count.add(1);
            Item::Attached(self.attach_read_only(now, session, timeout_ms, &mailbox))
        };
        self.tell(&mailbox, Zxid::ZERO, item);
    }

    fn attach_read_only(
        &mut self,
        now: Moment,
        session: SessionId,
        timeout_ms: i32,
        mailbox: &Arc<Mailbox>,
    ) -> Attached {
        let pulse = Arc::new(Pulse::of_read_only());
        pulse.beat(now.ms());
        let old = self.read_only.sessions.remove(&session);
        let generation = old.as_ref().map_or(0, |old| old.generation) + 1;
        if let Some(old) = old.and_then(|old| old.mailbox) {
            self.tell(&old, Zxid::ZERO, Item::Close("its session attached elsewhere"));
        }
        let local = Local { timeout_ms, generation, pulse: pulse.clone(), mailbox: Some(mailbox.clone()) };
        self.read_only.sessions.insert(session, local);
        self.room.metrics.local_sessions.set(self.read_only.sessions.len() as i64);
        let password = self.read_only.password_of(session);
        Attached { session, password, timeout_ms, generation, pulse, read_only: true }
    }

    fn expire_read_only(&mut self, now: Moment) {
        let silent = |local: &Local| now.ms() >= local.pulse.last_ms() + local.timeout_ms.max(0) as u64;
        let mut gone = Vec::new();
        self.read_only.sessions.retain(|_, local| {
            let silent = silent(local);
            if silent {
                gone.extend(local.mailbox.take());
            }
            !silent
        });
        for mailbox in gone {
            self.tell(&mailbox, Zxid::ZERO, Item::Close("its session expired"));
        }
        self.room.metrics.local_sessions.set(self.read_only.sessions.len() as i64);
    }
}
