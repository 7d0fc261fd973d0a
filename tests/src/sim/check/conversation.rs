//! One connection, as its client sees it: what was asked, in order, and what came back. The properties about
//! replies and events share it.

use super::replies;
use super::watches::Watches;
use super::{Violation, hold};
use std::collections::VecDeque;
use std::net::IpAddr;
use warren_server::answer;
use warren_server::identity::{self, Authentication, Identity};
use warren_storage::{Code, SessionId, Tag};
use warren_transport::{EventType, Refusal, ReplyHeader, Request, RequestHeader, WatcherEvent, xid};

/// How every server of the simulator authenticates.
pub fn authentication() -> Authentication {
    Authentication { super_digest: Some(identity::digest_of(ADMINISTRATOR)), ..Authentication::default() }
}

/// The credentials that pass every ACL.
pub const ADMINISTRATOR: &str = "super:pw";

/// A request that is owed a reply.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Comes back.
    pub xid: i32,
    /// Without its length.
    pub packet: Vec<u8>,
    /// It changes something, or ends the session.
    pub is_write: bool,
    /// It is answered from a snapshot.
    pub is_read: bool,
    /// It is a sync.
    pub is_sync: bool,
    /// It does not decode, and this is the answer.
    pub refused: Option<Code>,
    /// Writes of this connection in front of it; its own sequence, if it is a write, is one more.
    pub writes_before: u64,
    /// The highest zxid acknowledged to anybody when it was sent.
    pub acknowledged: i64,
    /// The same of the last sync in front of it.
    pub synced: i64,
}

impl Sent {
    /// What it asks, unless it does not decode.
    pub fn request(&self) -> Option<Request<'_>> {
        let (header, body) = RequestHeader::decode(&self.packet).ok()?;
        Request::decode(header.opcode, body).ok()
    }
}

/// What a packet is.
pub enum Received {
    /// Nothing to judge.
    Nothing,
    /// A ping's answer.
    Pong(i64),
    /// A watch fired.
    Event {
        /// Of the transaction; −1 from setWatches.
        zxid: i64,
        /// What happened.
        kind: EventType,
        /// To what.
        path: String,
    },
    /// The answer to the oldest request.
    Reply {
        /// xid, zxid, err.
        header: ReplyHeader,
        /// What it answers.
        sent: Sent,
        /// Where its body begins.
        body_at: usize,
    },
}

/// One connection.
pub struct Conversation {
    /// Whose.
    pub client: usize,
    /// The session and its generation, once attached.
    pub attached: Option<(SessionId, u32)>,
    /// The session only reads: whatever else is asked is refused, and leaves no trace.
    pub read_only: bool,
    reconfigures: bool,
    /// As authenticated by the replies read so far.
    pub identity: Identity,
    /// As before the last auths, and the zxid up to which the server may have looked at events as if they had not come:
    /// events are filtered when they leave, and an auth's reply has no zxid.
    pub identity_before: Option<(Identity, i64)>,
    /// Oldest first.
    pub pending: VecDeque<Sent>,
    /// What stands on the server on this connection's behalf.
    pub watches: Watches,
    /// Of `/zookeeper/config`, as it was read last.
    pub config_version: i64,
    /// Each attachment so far, and the writes of this connection that were taken before it: a server that begins anew in place
    /// attaches the session once more, and counts from the beginning.
    attachments: Vec<(SessionId, u32, u64)>,
    taken: u64,
    writes: u64,
    synced: i64,
    auths: VecDeque<(String, Vec<u8>)>,
}

impl Conversation {
    /// A connection from this address. `reconfigures`: clients may change the membership.
    pub fn new(client: usize, address: IpAddr, reconfigures: bool) -> Conversation {
        Conversation {
            client,
            attached: None,
            read_only: false,
            reconfigures,
            identity: Identity::of(address),
            identity_before: None,
            pending: VecDeque::new(),
            watches: Watches::default(),
            config_version: -1,
            attachments: Vec::new(),
            taken: 0,
            writes: 0,
            synced: 0,
            auths: VecDeque::new(),
        }
    }

    pub(super) fn on_attached(&mut self, session: SessionId, generation: u32) {
        self.attached = Some((session, generation));
        self.attachments.push((session, generation, self.taken));
    }

    /// The server begins anew in place; it took so many writes of this connection since it attached the session.
    pub(super) fn on_kept(&mut self, writes: u64) {
        self.taken += writes;
    }

    /// The tag of a write of this connection, counted from 1.
    pub(super) fn tag(&self, write: u64) -> Option<Tag> {
        let of = self.attachments.iter().rev().find(|(.., before)| *before < write)?;
        let (session, generation, before) = *of;
        Some(Tag { session, generation, sequence: write - before })
    }

    pub(super) fn on_sent(&mut self, packet: &[u8], acknowledged: i64) {
        let Ok((header, body)) = RequestHeader::decode(packet) else { return };
        let request = Request::decode(header.opcode, body);
        let mut sent = Sent {
            xid: header.xid,
            packet: packet.to_vec(),
            is_write: false,
            is_read: false,
            is_sync: false,
            refused: None,
            writes_before: self.writes,
            acknowledged,
            synced: self.synced,
        };
        match &request {
            Ok(Request::Ping) => return,
            Ok(Request::Auth { scheme, auth, .. }) => {
                self.auths.push_back(((*scheme).to_owned(), auth.unwrap_or(&[]).to_vec()));
                return;
            }
            Ok(Request::Change(_) | Request::Multi(_) | Request::Sync { .. } | Request::Reconfig { .. })
                if self.read_only =>
            {
                sent.refused = Some(Code::NotReadOnly);
            }
            Ok(Request::CloseSession) if self.read_only => {}
            // Where clients may not change the membership, no log hears of it.
            Ok(Request::Reconfig { .. }) if !self.reconfigures => {}
            Ok(Request::Change(_) | Request::Multi(_) | Request::CloseSession | Request::Reconfig { .. }) => {
                sent.is_write = true;
                self.writes += 1;
            }
            Ok(Request::Sync { .. }) => {
                sent.is_sync = true;
                self.synced = acknowledged;
            }
            Ok(Request::SetWatches(lists)) => self.watches.begin_set(lists),
            Ok(request) => sent.is_read = answer::is_read(request.opcode()),
            Err(e) => match e.refusal() {
                Refusal::Reply(code) => sent.refused = Some(code),
                Refusal::ReplyAndClose(_) | Refusal::Close => {}
            },
        }
        self.pending.push_back(sent);
    }

    /// A packet is read. `latest` is the highest zxid that any server has reached.
    pub(super) fn on_received(&mut self, packet: &[u8], latest: i64) -> Result<Received, Violation> {
        let malformed = |what: &str| Violation { property: replies::PROPERTY, what: what.to_owned() };
        let (header, body) =
            ReplyHeader::decode(packet).map_err(|_| malformed("a packet that is no reply"))?;
        match header.xid {
            xid::NOTIFICATION => {
                let event = WatcherEvent::decode(body).map_err(|_| malformed("an event that is none"))?;
                return Ok(Received::Event {
                    zxid: header.zxid,
                    kind: event.kind,
                    path: event.path.to_owned(),
                });
            }
            xid::PING => return Ok(Received::Pong(header.zxid)),
            xid::AUTH => {
                let Some((scheme, auth)) = self.auths.pop_front() else {
                    return Err(malformed("a reply to an auth that was not sent"));
                };
                let (_, upto) = self.identity_before.get_or_insert_with(|| (self.identity.clone(), latest));
                *upto = latest;
                let allowed = self.identity.authenticate(&authentication(), &scheme, &auth);
                let expected = if allowed { 0 } else { Code::AuthFailed.wire() };
                hold(header.err == expected, replies::PROPERTY, || {
                    format!("auth {scheme} got {}", header.err)
                })?;
                return Ok(Received::Nothing);
            }
            _ => {}
        }
        // A request that no client may send is answered out of turn, and ends the connection.
        if header.err == Code::Unimplemented.wire() && header.zxid == -1 {
            return Ok(Received::Nothing);
        }
        match self.pending.pop_front() {
            Some(sent) if sent.xid == header.xid => {
                Ok(Received::Reply { header, sent, body_at: packet.len() - body.len() })
            }
            other => Err(malformed(&format!(
                "a reply to xid {} where one to {:?} is due",
                header.xid,
                other.map(|sent| sent.xid)
            ))),
        }
    }
}
