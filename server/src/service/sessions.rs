//! The life of sessions: asked for, attached, heard of, cut off, expired.

use super::{Action, CONNECTS_WAITING_MAX, Service};
use crate::connection::CUT_OFF;
use crate::consensus::Submission;
use crate::mailbox::{Attached, Item, Mailbox, Pulse};
use crate::moment::Moment;
use std::collections::VecDeque;
use std::sync::Arc;
use warren_storage::tree::{Outcome, Reply};
use warren_storage::{Command, Logged, SessionId, Zxid};
use warren_transport::peer::{PeerMessage, ServerId, TouchesAck};

/// Why nobody is served whose tree is wrong.
pub(super) const WRONG: &str = "this server's tree is not what the log makes";
/// Why nobody is served by one that was removed.
pub(super) const EXPELLED: &str = "this server was removed from the ensemble";

/// A connection that waits for its session.
pub(super) struct Connect {
    pub(super) mailbox: Arc<Mailbox>,
    /// 0 for a new session.
    pub(super) session: SessionId,
    pub(super) password: [u8; 16],
    pub(super) timeout_ms: i32,
    /// The client would rather read only than not be served.
    pub(super) read_only: bool,
    /// When, ms of the monotonic clock.
    pub(super) asked_ms: u64,
    /// The attachment that it must still have; `None`: any.
    pub(super) generation: Option<u32>,
}

/// A session's attachment to a connection of this server.
pub(super) struct Attachment {
    pub(super) generation: u32,
    pulse: Arc<Pulse>,
    /// `None` when the connection is gone and the client may come back.
    pub(super) mailbox: Option<Arc<Mailbox>>,
}

fn logged(command: Command<'_>) -> Vec<u8> {
    Logged { tag: None, ids: Vec::new(), command }.encode()
}

impl Service {
    pub(super) fn on_connect(&mut self, now: Moment, connect: Connect, asked: Option<u64>) {
        // It asked before everybody was dismissed, and was not known here yet.
        let out = self.is_wrong().then_some(WRONG).or(self.expelled.then_some(EXPELLED));
        if let Some(why) = out {
            return self.tell(&connect.mailbox, Zxid::ZERO, Item::Close(why));
        }
        if self.read_only.is_on() {
            return self.connect_read_only(now, connect);
        }
        self.reports.on_connect(now.ms());
        let Connect { ref mailbox, session, .. } = connect;
        if session == 0 && self.tree.session_count() + self.connects.len() >= self.options.sessions_max {
            self.room.metrics.warren_session_refusals_total.add(1);
            return self.tell(mailbox, Zxid::ZERO, Item::Close("the limit of sessions is reached"));
        }
        if self.connects.len() + self.lookups.len() >= CONNECTS_WAITING_MAX {
            return self.tell(mailbox, Zxid::ZERO, Item::Close("too many connections wait for a session"));
        }
        if session == 0 {
            return self.open(connect, asked);
        }
        if self.tree.session(session).is_none() {
            // Another server may have made it just now: only who has applied all that is committed may say that there
            // is no such session.
            let token = self.room.next_token();
            self.lookups.insert(token, connect);
            return self.submit(Submission::Sync(token));
        }
        self.attach(connect, Zxid::ZERO);
    }

    /// All that was committed when this was asked is applied now.
    pub(super) fn on_looked_up(&mut self, connect: Connect) {
        self.attach(connect, self.tree.zxid());
    }

    fn open(&mut self, connect: Connect, asked: Option<u64>) {
        let request = asked.unwrap_or_else(|| {
            let request = self.room.next_token();
            let (owner, incarnation) = (self.options.server_id, self.options.incarnation);
            let timeout_ms = connect.timeout_ms;
            self.submit(Submission::OpenSession { timeout_ms, owner, incarnation, request });
            request
        });
        self.connects.insert(request, connect);
    }

    /// Ask for a session that exists, as this server knows it; one that does not, or has another password, is refused.
    fn attach(&mut self, connect: Connect, at: Zxid) {
        let Connect { session, password, timeout_ms, .. } = connect;
        let generation = match self.tree.session(session) {
            Some(row)
                if row.password == password
                    && connect.generation.is_none_or(|generation| generation == row.generation) =>
            {
                row.generation
            }
            _ => return self.tell(&connect.mailbox, at, Item::Refused),
        };
        // Whatever other connection has it goes first.
        if let Some(old) = self.attached.get_mut(&session).and_then(|a| a.mailbox.take()) {
            self.tell(&old, at, Item::Close("its session attached elsewhere"));
        }
        let request = self.room.next_token();
        let command = Command::MoveSession {
            session,
            generation,
            password,
            owner: self.options.server_id,
            incarnation: self.options.incarnation,
            request,
            timeout_ms,
        };
        self.submit(Submission::Command(logged(command)));
        self.connects.insert(request, connect);
    }

    pub(super) fn on_disconnect(&mut self, connection: u64, session: Option<(SessionId, u32)>) {
        self.syncs.retain(|_, mailbox| mailbox.connection != connection);
        let Some((session, generation)) = session else {
            self.connects.retain(|_, connect| connect.mailbox.connection != connection);
            self.lookups.retain(|_, connect| connect.mailbox.connection != connection);
            return;
        };
        if let Some(attachment) = self.attached.get_mut(&session) {
            if attachment.generation == generation {
                attachment.mailbox = None;
            }
        } else {
            self.read_only.on_disconnect(session, generation);
        }
    }

    // ---- applied -------------------------------------------------------------------------------------------

    pub(super) fn on_session_applied(
        &mut self,
        now: Moment,
        at: Zxid,
        command: &Command<'_>,
        outcome: &Outcome,
    ) {
        let (session, password, timeout_ms, owner, run, request) = match command {
            Command::CreateSession { session, password, timeout_ms, owner, incarnation, request }
            | Command::MoveSession { session, password, timeout_ms, owner, incarnation, request, .. } => {
                (*session, *password, *timeout_ms, *owner, *incarnation, *request)
            }
            _ => unreachable!("only these two attach"),
        };
        let ours = (owner, run) == (self.options.server_id, self.options.incarnation);
        let connect = if ours { self.connects.remove(&request) } else { None };
        match (outcome, command) {
            (Outcome::Done(_), _) => {}
            (Outcome::Dropped, _) => {
                // A copy, for which nobody waits; or another server was asked for the session as well and was first. It
                // is there, and so this is no reason to refuse it.
                if let Some(connect) = connect {
                    self.attach(connect, at);
                }
                return;
            }
            (Outcome::Failed(_), Command::CreateSession { .. }) => {
                if let Some(connect) = connect {
                    // The id exists (a clock that went back): the client tries again and gets another.
                    self.tell(&connect.mailbox, at, Item::Close("its session id was taken"));
                }
                return;
            }
            (Outcome::Failed(_), _) => {
                if let Some(connect) = connect {
                    self.tell(&connect.mailbox, at, Item::Refused);
                }
                return;
            }
        }
        if self.leading {
            self.expiry.set(session, now.ms() + timeout_ms.max(0) as u64);
        }
        let old = if ours {
            let generation = self.tree.session(session).map_or(0, |row| row.generation);
            let asked_ms = connect.as_ref().map_or(now.ms(), |connect| connect.asked_ms);
            let pulse = Arc::new(Pulse::new(asked_ms, timeout_ms));
            pulse.beat(now.ms());
            let mailbox = connect.map(|connect| connect.mailbox);
            if let Some(mailbox) = &mailbox {
                if matches!(command, Command::MoveSession { .. }) {
                    self.room.metrics.connection_revalidate_count.add(1);
                }
                let pulse = pulse.clone();
                let attached =
                    Attached { session, password, timeout_ms, generation, pulse, read_only: false };
                self.tell(mailbox, at, Item::Attached(attached));
            }
            self.attached.insert(session, Attachment { generation, pulse, mailbox })
        } else {
            self.attached.remove(&session)
        };
        if let Some(old) = old.and_then(|attachment| attachment.mailbox) {
            self.tell(&old, at, Item::Close("its session attached elsewhere"));
        }
    }

    pub(super) fn on_expire_applied(&mut self, now: Moment, at: Zxid, session: SessionId, outcome: &Outcome) {
        if matches!(outcome, Outcome::Done(Reply::SessionClosed { .. })) {
            self.room.metrics.stale_sessions_expired.add(1);
            self.on_session_gone(at, session, Some("its session expired"));
        } else if let (true, Some(row)) = (self.leading, self.tree.session(session)) {
            // It attached anew, or another epoch began, before this was applied.
            self.expiry.set(session, now.ms() + row.timeout_ms.max(0) as u64);
        }
    }

    pub(super) fn on_session_gone(&mut self, at: Zxid, session: SessionId, close: Option<&'static str>) {
        self.expiry.remove(session);
        if let Some(mailbox) = self.attached.remove(&session).and_then(|a| a.mailbox) {
            if let Some(why) = close {
                self.tell(&mailbox, at, Item::Close(why));
            }
        }
    }

    // ---- expiry --------------------------------------------------------------------------------------------

    /// A new leader does not know when clients were last heard.
    pub(super) fn give_full_timeouts(&mut self, now: Moment) {
        for (session, row) in self.tree.sessions() {
            self.expiry.set(session, now.ms() + row.timeout_ms.max(0) as u64);
        }
    }

    /// Sessions whose bucket is due: those that were heard since go into a later one, the others are expired
    /// through the log.
    pub(super) fn expire(&mut self, now: Moment) {
        let epoch = self.tree.zxid().epoch();
        for (session, touched_ms) in self.expiry.due(now.ms()) {
            let Some(row) = self.tree.session(session) else { continue };
            let timeout_ms = row.timeout_ms.max(0) as u64;
            let heard_ms = self.attached.get(&session).map_or(0, |attachment| attachment.heard_ms(now));
            let deadline = timeout_ms + heard_ms.max(touched_ms);
            if deadline > now.ms() {
                self.expiry.set(session, deadline);
                continue;
            }
            let generation = row.generation;
            tracing::info!(
                session = format_args!("{session:#x}"),
                timeout_ms = row.timeout_ms,
                "session expired"
            );
            self.submit(Submission::LeaderOnly(logged(Command::Expire { session, generation, epoch })));
        }
    }

    // ---- reports and contact, see `touches` ----------------------------------------------------------------

    pub(super) fn on_peer(&mut self, now: Moment, from: ServerId, message: PeerMessage) {
        match message {
            PeerMessage::Touches(report) if self.leading => {
                for session in report.sessions {
                    self.expiry.touch(session, now.ms());
                }
                self.reports.owe(from, report.number);
            }
            PeerMessage::TouchesAck(answer) if self.leader == Some(from) && !self.leading => {
                self.reports.on_answer(answer.number);
                self.room.set_contact_ms(self.reports.contact_ms());
            }
            // To or from a leader that is none any more. Whoever sent it learns that and asks the next.
            _ => {}
        }
    }

    /// If somebody wants one, and it is time.
    pub(super) fn ask_for_proof(&mut self, now: Moment) {
        let room = &self.room;
        if let Some(token) = self.reports.ask(now.ms(), || room.next_token()) {
            self.submit(Submission::Sync(token));
        }
    }

    /// The token's requests may be answered. Was it ours, for the proof that this server leads?
    pub(super) fn on_proof(&mut self, token: u64) -> bool {
        let Some(answers) = self.reports.on_proof(token) else { return false };
        self.room.set_contact_ms(self.reports.contact_ms());
        for (to, number) in answers {
            let message = PeerMessage::TouchesAck(TouchesAck { number });
            self.actions.push_back(Action::Send { to, message });
        }
        true
    }

    /// Tell the leader who was heard of, and close the connections of sessions that are cut off. With `stood_still`, the
    /// silence of clients that are connected was not theirs.
    pub(super) fn report(&mut self, now: Moment, stood_still: bool) {
        let (contact_ms, since_ms) = (self.room.contact_ms(), self.reports.since_ms());
        let mut heard = Vec::new();
        let mut cut_off = Vec::new();
        for (session, attachment) in &mut self.attached {
            let excused = stood_still && attachment.mailbox.is_some();
            if excused || attachment.heard_ms(now) >= since_ms {
                heard.push(*session);
            }
            if attachment.pulse.is_cut_off(now.ms(), contact_ms) {
                cut_off.extend(attachment.mailbox.take());
            }
        }
        if !cut_off.is_empty() {
            self.room.metrics.warren_sessions_cut_off_total.add(cut_off.len() as u64);
            tracing::warn!(
                connections = cut_off.len(),
                "closed, for there was no contact with a leader for too long; check the links to the other servers"
            );
        }
        for mailbox in cut_off {
            self.tell(&mailbox, Zxid::ZERO, Item::CutOff(CUT_OFF));
        }
        if self.leading {
            self.reports.want();
        } else if let Some(to) = self.leader {
            // The order of a hash map is nobody's business.
            heard.sort_unstable();
            for message in self.reports.report(now.ms(), &heard) {
                self.actions.push_back(Action::Send { to, message: PeerMessage::Touches(message) });
            }
        }
        self.give_up_waiting(now);
    }

    /// A client that did not get its session within its timeout is not there any more: it asked another server.
    fn give_up_waiting(&mut self, now: Moment) {
        let mut late = VecDeque::new();
        let mut keep = |connect: &Connect| {
            let waits = now.ms() < connect.asked_ms + connect.timeout_ms.max(0) as u64;
            if !waits {
                late.push_back(connect.mailbox.clone());
            }
            waits
        };
        self.connects.retain(|_, connect| keep(connect));
        self.lookups.retain(|_, connect| keep(connect));
        for mailbox in late {
            self.tell(&mailbox, Zxid::ZERO, Item::Close("no leader gave it its session in time"));
        }
    }

    // ---- another tree --------------------------------------------------------------------------------------

    /// All clients of this server have to connect anew: what they were owed lies in the past of the tree that comes, or will
    /// never come.
    pub(super) fn dismiss_everybody(&mut self, why: &'static str) {
        let attached = std::mem::take(&mut self.attached).into_values().filter_map(|a| a.mailbox);
        let asking = std::mem::take(&mut self.connects).into_values().map(|connect| connect.mailbox);
        let looking = std::mem::take(&mut self.lookups).into_values().map(|connect| connect.mailbox);
        let mailboxes: Vec<Arc<Mailbox>> =
            attached.chain(asking).chain(looking).chain(self.read_only.dismiss()).collect();
        self.syncs.clear();
        for mailbox in mailboxes {
            self.tell(&mailbox, Zxid::ZERO, Item::CutOff(why));
        }
    }
}

impl Attachment {
    /// When the client was last heard of. A silence while it is owed answers may be ours.
    fn heard_ms(&self, now: Moment) -> u64 {
        let owed = self.mailbox.is_some() && self.pulse.is_owed();
        if owed { now.ms() } else { self.pulse.last_ms() }
    }
}
