//! The client's end of ZooKeeper's protocol, as a state machine without sockets or clocks.
//!
//! It stands before step ① and behind step ⑫ of the walk: the CLI, the tests and the benchmarks speak to a
//! server through it, by [`crate::io::blocking`] or by means of their own. It is told packets and the time, and
//! writes what is to be sent into a vector. It pipelines: any number of requests may be under way, and replies
//! must come back in their order, as ZooKeeper's own client demands.
//!
//! It does not keep watches across a reconnect, nor find another server: who uses it says what to do.

use crate::jute::JuteError;
use crate::opcode::Opcode;
use crate::reply::{self, ConnectResponse, ReplyHeader, Response, WatcherEvent};
use crate::request::{ConnectRequest, Request};
use crate::xid;
use std::collections::VecDeque;
use std::time::{Duration, Instant};
use warren_storage::Code;

/// How many requests may wait for their reply, unless said otherwise.
pub const PENDING_MAX: usize = 1 << 14;

/// Where a client stands with its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No connection.
    Disconnected,
    /// The ConnectRequest is sent, its answer is not there.
    Connecting,
    /// The session is attached.
    Connected,
    /// The server says that the session is over. [`Client::forget_session`] makes way for a new one.
    Expired,
}

/// What a client shows to re-attach to its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// 0 when there is none yet.
    pub id: i64,
    /// Given by the server.
    pub password: [u8; 16],
    /// Negotiated, ms.
    pub timeout_ms: i32,
}

impl Session {
    /// None yet.
    pub const NEW: Session = Session { id: 0, password: [0; 16], timeout_ms: 0 };
}

/// What was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// The session is attached.
    Connected(ConnectResponse),
    /// The session is over.
    Expired,
    /// The answer to the oldest request under way.
    Reply(Reply<'a>),
    /// The answer to an auth packet, which does not wait for its turn; 0 or the number of a [`Code`].
    Auth {
        /// 0 or −115.
        err: i32,
    },
    /// A watch fired.
    Event {
        /// The transaction that caused it; −1 if it comes from a setWatches.
        zxid: i64,
        /// What happened.
        event: WatcherEvent<'a>,
    },
    /// The answer to a ping.
    Pong {
        /// The last transaction that the server had applied.
        zxid: i64,
    },
}

/// An answer whose body is decoded when asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// Of the request.
    pub opcode: Opcode,
    /// xid, zxid, err.
    pub header: ReplyHeader,
    /// Behind the header.
    pub body: &'a [u8],
}

impl<'a> Reply<'a> {
    /// The body, or why the request was refused.
    pub fn response(&self) -> Result<Response<'a>, ReplyError> {
        match self.header.err {
            0 => Response::decode(self.opcode, self.body).map_err(ReplyError::Malformed),
            err => Err(match reply::code(err) {
                Some(code) => ReplyError::Refused(code),
                None => ReplyError::Unknown(err),
            }),
        }
    }
}

/// A reply that has no response in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// The server refused.
    #[error("the server refused the request")]
    Refused(#[source] Code),
    /// The server refused, with a number that is no code of ZooKeeper's.
    #[error("the server refused the request with the unknown code {0}")]
    Unknown(i32),
    /// The body is not what the request asks for.
    #[error("the body of the reply is malformed")]
    Malformed(#[source] JuteError),
}

/// What ends a connection, or keeps a request from being sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// Requests are sent when the session is attached, and not before.
    #[error("the session is not attached")]
    NotConnected,
    /// The limit of requests under way.
    #[error("{0} requests wait for their reply")]
    TooManyPending(usize),
    /// The server sent what does not decode.
    #[error("the server sent a malformed packet")]
    Malformed(#[source] JuteError),
    /// A reply out of order.
    #[error("a reply to xid {received} came where one to {expected:?} was due")]
    XidOutOfOrder {
        /// The oldest request under way.
        expected: Option<i32>,
        /// In the reply.
        received: i32,
    },
    /// A packet where none may come.
    #[error("a packet came in state {0:?}")]
    Unexpected(State),
    /// Two thirds of the session timeout passed without a sign of the server.
    #[error("the server is silent")]
    Silent,
}

/// The protocol of one client.
#[derive(Debug)]
pub struct Client {
    state: State,
    session: Session,
    timeout_ms_asked: i32,
    read_only: bool,
    pending_max: usize,
    /// The highest zxid that a reply carried; a server that is behind it will not have us.
    last_zxid: i64,
    next_xid: i32,
    /// xid and type of what waits for its reply, oldest first.
    pending: VecDeque<(i32, Opcode)>,
    sent_at: Option<Instant>,
    heard_at: Option<Instant>,
}

impl Client {
    /// A client that will ask for a session with this timeout.
    pub fn new(timeout_ms: i32) -> Client {
        Client {
            state: State::Disconnected,
            session: Session::NEW,
            timeout_ms_asked: timeout_ms,
            read_only: false,
            pending_max: PENDING_MAX,
            last_zxid: 0,
            next_xid: 1,
            pending: VecDeque::new(),
            sent_at: None,
            heard_at: None,
        }
    }

    /// Will a read-only server do?
    pub fn set_read_only(&mut self, yes: bool) {
        self.read_only = yes;
    }

    /// How many requests may wait for their reply.
    pub fn set_pending_max(&mut self, n: usize) {
        self.pending_max = n;
    }

    /// Attach to this session next time, which another client had; `last_zxid` as that one saw it.
    pub fn adopt(&mut self, session: Session, last_zxid: i64) {
        self.session = session;
        self.last_zxid = last_zxid;
    }

    /// Ask for a new session next time.
    pub fn forget_session(&mut self) {
        self.session = Session::NEW;
        if self.state == State::Expired {
            self.state = State::Disconnected;
        }
    }

    /// Where we stand.
    pub fn state(&self) -> State {
        self.state
    }

    /// The session, as the server gave it.
    pub fn session(&self) -> Session {
        self.session
    }

    /// The highest zxid that a reply carried.
    pub fn last_zxid(&self) -> i64 {
        self.last_zxid
    }

    /// How many requests wait for their reply.
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    /// A connection is there: append the handshake to `out`. A session that we have is attached to again.
    /// Nothing else may be sent until the answer is there.
    pub fn connect(&mut self, now: Instant, out: &mut Vec<u8>) {
        self.pending.clear();
        self.state = State::Connecting;
        (self.sent_at, self.heard_at) = (Some(now), Some(now));
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: self.last_zxid,
            timeout_ms: self.timeout_ms_asked,
            session: self.session.id,
            password: &self.session.password,
            read_only: Some(self.read_only),
        };
        request.encode(out);
    }

    /// The connection is lost. Returns the xids of the requests whose fate nobody knows, oldest first.
    pub fn disconnected(&mut self) -> Vec<i32> {
        if self.state != State::Expired {
            self.state = State::Disconnected;
        }
        (self.sent_at, self.heard_at) = (None, None);
        self.pending.drain(..).map(|(xid, _)| xid).collect()
    }

    /// Append a request to `out`; returns its xid. Pings, auth and setWatches have the xid of their kind.
    pub fn send(
        &mut self,
        now: Instant,
        request: &Request<'_>,
        out: &mut Vec<u8>,
    ) -> Result<i32, ClientError> {
        if self.state != State::Connected {
            return Err(ClientError::NotConnected);
        }
        if self.pending.len() >= self.pending_max {
            return Err(ClientError::TooManyPending(self.pending.len()));
        }
        let opcode = request.opcode();
        let xid = match opcode {
            Opcode::Ping => xid::PING,
            Opcode::Auth => xid::AUTH,
            Opcode::SetWatches | Opcode::SetWatches2 => xid::SET_WATCHES,
            _ => {
                let xid = self.next_xid;
                self.next_xid = xid.checked_add(1).unwrap_or(1);
                xid
            }
        };
        // Pings and auth are answered out of turn.
        if !matches!(opcode, Opcode::Ping | Opcode::Auth) {
            self.pending.push_back((xid, opcode));
        }
        request.encode(xid, out);
        self.sent_at = Some(now);
        Ok(xid)
    }

    /// A packet came, without its length. After an error the connection is to be closed.
    pub fn receive<'a>(&mut self, now: Instant, packet: &'a [u8]) -> Result<Incoming<'a>, ClientError> {
        self.heard_at = Some(now);
        match self.state {
            State::Connecting => self.receive_connect_response(packet),
            State::Connected => self.receive_reply(packet),
            State::Disconnected | State::Expired => Err(ClientError::Unexpected(self.state)),
        }
    }

    fn receive_connect_response<'a>(&mut self, packet: &'a [u8]) -> Result<Incoming<'a>, ClientError> {
        let response = ConnectResponse::decode(packet).map_err(ClientError::Malformed)?;
        if response.is_expired() {
            self.state = State::Expired;
            return Ok(Incoming::Expired);
        }
        self.state = State::Connected;
        self.session =
            Session { id: response.session, password: response.password, timeout_ms: response.timeout_ms };
        Ok(Incoming::Connected(response))
    }

    fn receive_reply<'a>(&mut self, packet: &'a [u8]) -> Result<Incoming<'a>, ClientError> {
        let (header, body) = ReplyHeader::decode(packet).map_err(ClientError::Malformed)?;
        match header.xid {
            xid::NOTIFICATION => {
                // One multi sends many events with one zxid, so an event does not move last_zxid.
                let event = WatcherEvent::decode(body).map_err(ClientError::Malformed)?;
                return Ok(Incoming::Event { zxid: header.zxid, event });
            }
            xid::PING => return Ok(Incoming::Pong { zxid: header.zxid }),
            xid::AUTH => return Ok(Incoming::Auth { err: header.err }),
            _ => {}
        }
        match self.pending.pop_front() {
            Some((xid, opcode)) if xid == header.xid => {
                self.last_zxid = self.last_zxid.max(header.zxid);
                Ok(Incoming::Reply(Reply { opcode, header, body }))
            }
            other => {
                Err(ClientError::XidOutOfOrder { expected: other.map(|(xid, _)| xid), received: header.xid })
            }
        }
    }

    /// When [`Client::handle_timeout`] wants to be called; `None` while there is no connection.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let silent = self.heard_at? + self.timeout() * 2 / 3;
        match self.state {
            State::Connecting => Some(silent),
            State::Connected => Some(silent.min(self.sent_at? + self.timeout() / 3)),
            State::Disconnected | State::Expired => None,
        }
    }

    /// Time passed: append a ping when nothing was sent for a third of the session timeout, and give up when
    /// nothing was heard for two thirds, as ZooKeeper's own client does.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Vec<u8>) -> Result<(), ClientError> {
        let (Some(heard_at), Some(sent_at)) = (self.heard_at, self.sent_at) else {
            return Ok(());
        };
        if !matches!(self.state, State::Connecting | State::Connected) {
            return Ok(());
        }
        if now >= heard_at + self.timeout() * 2 / 3 {
            return Err(ClientError::Silent);
        }
        if self.state == State::Connected && now >= sent_at + self.timeout() / 3 {
            Request::Ping.encode(xid::PING, out);
            self.sent_at = Some(now);
        }
        Ok(())
    }

    /// The session timeout: negotiated, or asked for while there is none.
    pub fn timeout(&self) -> Duration {
        let ms = match self.session.timeout_ms {
            ms if ms > 0 => ms,
            _ => self.timeout_ms_asked,
        };
        Duration::from_millis(u64::try_from(ms).unwrap_or(0))
    }
}
