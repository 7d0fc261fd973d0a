//! A client over plain TCP that blocks: for the CLI, tests and benchmarks (before step ① of the walk).
//!
//! One thread, one connection. [`Connection::call`] asks and waits; [`Connection::send`] and
//! [`Connection::recv`] pipeline. Events and answers to auth are set aside while a reply is waited for. Pings go
//! out while something is waited for; who does nothing for long calls [`Connection::wait_event`].
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is io: sockets and the clock")]

use crate::client::{Client, ClientError, Incoming, ReplyError, Session};
use crate::frame::{FrameError, PACKET_BYTES_MAX, bytes_missing, take_frame};
use crate::opcode::Opcode;
use crate::reply::{EventType, ReplyHeader, Response};
use crate::request::Request;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// What is read from the socket at once, bytes at least.
const READ_BYTES: usize = 16 << 10;
/// Unread events that are kept; over it the connection is given up, since none may be dropped silently.
const EVENTS_MAX: usize = 1 << 20;
/// The longest answer to a four-letter word that is taken, bytes.
const WORD_ANSWER_BYTES_MAX: u64 = 64 << 20;

/// How to connect.
#[derive(Clone, Debug)]
pub struct Options {
    /// The session timeout to ask for, ms.
    pub timeout_ms: i32,
    /// Will a read-only server do?
    pub read_only: bool,
    /// Attach to this session instead of a new one; with the highest zxid that its client saw.
    pub session: Option<(Session, i64)>,
    /// The longest packet that is taken, bytes.
    pub packet_bytes_max: usize,
    /// How many requests may wait for their reply.
    pub pending_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            timeout_ms: 10_000,
            read_only: false,
            session: None,
            packet_bytes_max: PACKET_BYTES_MAX,
            pending_max: crate::client::PENDING_MAX,
        }
    }
}

/// Why a connection does not go on. What was under way may or may not have happened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket. A server that closes the connection is [`io::ErrorKind::UnexpectedEof`].
    #[error("the connection to the server failed")]
    Io(#[from] io::Error),
    /// The protocol.
    #[error("the protocol with the server failed")]
    Client(#[from] ClientError),
    /// A packet's length.
    #[error("the server sent a bad packet")]
    Frame(#[from] FrameError),
    /// The session is over.
    #[error("the session is expired")]
    Expired,
    /// More events came than are kept.
    #[error("too many events wait to be read")]
    TooManyEvents,
}

/// A reply, kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Of the request.
    pub opcode: Opcode,
    /// xid, zxid, err.
    pub header: ReplyHeader,
    /// Behind the header.
    pub body: Bytes,
}

impl Reply {
    /// The body, or why the request was refused.
    pub fn response(&self) -> Result<Response<'_>, ReplyError> {
        crate::client::Reply { opcode: self.opcode, header: self.header, body: &self.body }.response()
    }
}

/// A watch event, kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The transaction that caused it; −1 if it comes from a setWatches.
    pub zxid: i64,
    /// What happened.
    pub kind: EventType,
    /// To which znode.
    pub path: String,
}

/// A connection with a session attached.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    client: Client,
    packet_bytes_max: usize,
    read_only: bool,
    out: Vec<u8>,
    received: BytesMut,
    events: VecDeque<Event>,
    auth_answers: VecDeque<i32>,
}

impl Connection {
    /// Connect to the first of the addresses that answers, and attach the session.
    pub fn connect(addresses: impl ToSocketAddrs, options: &Options) -> Result<Connection, Error> {
        let mut client = Client::new(options.timeout_ms);
        client.set_read_only(options.read_only);
        client.set_pending_max(options.pending_max);
        if let Some((session, last_zxid)) = options.session {
            client.adopt(session, last_zxid);
        }
        let stream = open(addresses, client.timeout())?;
        let mut connection = Connection {
            stream,
            client,
            packet_bytes_max: options.packet_bytes_max,
            read_only: false,
            out: Vec::new(),
            received: BytesMut::new(),
            events: VecDeque::new(),
            auth_answers: VecDeque::new(),
        };
        connection.handshake()?;
        Ok(connection)
    }

    /// Leave this connection and attach the same session through another; events that were not read stay.
    /// Replies that were not received are lost, and whether those requests were carried out is not known.
    pub fn reconnect(&mut self, addresses: impl ToSocketAddrs) -> Result<(), Error> {
        self.client.disconnected();
        self.out.clear();
        self.received.clear();
        self.stream = open(addresses, self.client.timeout())?;
        self.handshake()
    }

    fn handshake(&mut self) -> Result<(), Error> {
        self.client.connect(Instant::now(), &mut self.out);
        self.flush()?;
        loop {
            let packet = self.packet(None)?.expect("without a limit of its own, reading waits");
            match self.client.receive(Instant::now(), &packet)? {
                Incoming::Connected(response) => {
                    self.read_only = response.read_only == Some(true);
                    self.set_tick()?;
                    return Ok(());
                }
                Incoming::Expired => return Err(Error::Expired),
                _ => {}
            }
        }
    }

    /// The session, to attach to it again from elsewhere.
    pub fn session(&self) -> Session {
        self.client.session()
    }

    /// The highest zxid that a reply carried.
    pub fn last_zxid(&self) -> i64 {
        self.client.last_zxid()
    }

    /// Is the server read-only?
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// How many requests wait for their reply.
    pub fn pending(&self) -> usize {
        self.client.pending()
    }

    /// The server's address.
    pub fn peer(&self) -> Result<SocketAddr, Error> {
        Ok(self.stream.peer_addr()?)
    }

    /// Queue a request; returns its xid. It leaves with the next [`Connection::flush`] or
    /// [`Connection::recv`].
    pub fn send(&mut self, request: &Request<'_>) -> Result<i32, Error> {
        Ok(self.client.send(Instant::now(), request, &mut self.out)?)
    }

    /// Send what is queued.
    pub fn flush(&mut self) -> Result<(), Error> {
        if !self.out.is_empty() {
            self.stream.write_all(&self.out)?;
            self.out.clear();
        }
        Ok(())
    }

    /// Queue bytes as they are: for tests of what a server does with bad ones.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// The next reply, in the order of the requests.
    pub fn recv(&mut self) -> Result<Reply, Error> {
        if self.client.pending() == 0 {
            return Err(Error::Io(io::Error::new(io::ErrorKind::InvalidInput, "no reply is due")));
        }
        loop {
            if let Some(reply) = self.step(None)? {
                return Ok(reply);
            }
        }
    }

    /// Ask and wait. Requests that are still under way are answered first, and their replies dropped.
    /// Pings and auth, which are answered out of turn, have [`Connection::ping`] and [`Connection::auth`].
    pub fn call(&mut self, request: &Request<'_>) -> Result<Reply, Error> {
        debug_assert!(!matches!(request, Request::Ping | Request::Auth { .. }), "answered out of turn");
        self.send(request)?;
        loop {
            let reply = self.recv()?;
            if self.client.pending() == 0 {
                return Ok(reply);
            }
        }
    }

    /// Show credentials and wait for the verdict: 0, or −115, behind which the server closes the connection.
    /// No other request may be under way.
    pub fn auth(&mut self, scheme: &str, auth: &[u8]) -> Result<i32, Error> {
        self.send(&Request::Auth { kind: 0, scheme, auth: Some(auth) })?;
        loop {
            if let Some(err) = self.auth_answers.pop_front() {
                return Ok(err);
            }
            self.step(None)?;
        }
    }

    /// Queue a ping and send it; the answer is swallowed by whatever is received next.
    pub fn ping(&mut self) -> Result<(), Error> {
        self.send(&Request::Ping)?;
        self.flush()
    }

    /// The next event that is here already.
    pub fn event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next event; `None` when none came within `wait`. No request may be under way. Pings are sent
    /// meanwhile.
    pub fn wait_event(&mut self, wait: Duration) -> Result<Option<Event>, Error> {
        let until = Instant::now() + wait;
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            self.step(Some(until))?;
        }
    }

    /// Close the session, wait for the reply, and drop the connection. To drop the connection alone, drop this.
    pub fn close(mut self) -> Result<(), Error> {
        self.call(&Request::CloseSession).map(|_| ())
    }

    /// Take one packet (or none before `until`): give back a reply, set other things aside.
    fn step(&mut self, until: Option<Instant>) -> Result<Option<Reply>, Error> {
        self.flush()?;
        let Some(packet) = self.packet(until)? else {
            return Ok(None);
        };
        match self.client.receive(Instant::now(), &packet)? {
            Incoming::Reply(reply) => {
                let (opcode, header) = (reply.opcode, reply.header);
                Ok(Some(Reply { opcode, header, body: packet.slice(ReplyHeader::BYTES..) }))
            }
            Incoming::Event { zxid, event } => {
                if self.events.len() >= EVENTS_MAX {
                    return Err(Error::TooManyEvents);
                }
                self.events.push_back(Event { zxid, kind: event.kind, path: event.path.to_owned() });
                Ok(None)
            }
            Incoming::Auth { err } => {
                self.auth_answers.push_back(err);
                Ok(None)
            }
            Incoming::Pong { .. } => Ok(None),
            Incoming::Expired => Err(Error::Expired),
            Incoming::Connected(_) => unreachable!("a connected client takes no second handshake"),
        }
    }

    /// The next packet; `None` when `until` passed.
    fn packet(&mut self, until: Option<Instant>) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(packet) = take_frame(&mut self.received, self.packet_bytes_max)? {
                return Ok(Some(packet.freeze()));
            }
            if let Some(until) = until {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    self.set_tick()?;
                    return Ok(None);
                }
                self.stream.set_read_timeout(Some(left.min(self.tick())))?;
            }
            let wanted = bytes_missing(&self.received, self.packet_bytes_max).max(READ_BYTES);
            let had = self.received.len();
            self.received.resize(had + wanted, 0);
            let read = self.stream.read(&mut self.received[had..]);
            self.received.truncate(had + read.as_ref().map_or(0, |n| *n));
            match read {
                Ok(0) => return Err(Error::Io(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    self.client.handle_timeout(Instant::now(), &mut self.out)?;
                    self.flush()?;
                }
                Err(e) => return Err(Error::Io(e)),
            }
            if until.is_some() {
                self.set_tick()?;
            }
        }
    }

    /// How long a read may block before the clock is looked at.
    fn tick(&self) -> Duration {
        (self.client.timeout() / 6).max(Duration::from_millis(1))
    }

    /// Set once and kept, so that a request costs one write and one read.
    fn set_tick(&self) -> io::Result<()> {
        self.stream.set_read_timeout(Some(self.tick()))
    }
}

/// A socket to the first of the addresses that answers.
fn open(addresses: impl ToSocketAddrs, timeout: Duration) -> io::Result<TcpStream> {
    let timeout = timeout.max(Duration::from_millis(1));
    let mut last = io::Error::new(io::ErrorKind::InvalidInput, "no address to connect to");
    for address in addresses.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some((timeout / 6).max(Duration::from_millis(1))))?;
                stream.set_write_timeout(Some(timeout))?;
                return Ok(stream);
            }
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// Ask a server a four-letter word ([`crate::Word`]) on a connection of its own; the answer is all that comes
/// before the server closes it.
pub fn four_letter_word(addresses: impl ToSocketAddrs, word: &str, timeout: Duration) -> io::Result<String> {
    let mut stream = open(addresses, timeout)?;
    stream.set_read_timeout(Some(timeout.max(Duration::from_millis(1))))?;
    stream.write_all(word.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(WORD_ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    String::from_utf8(answer).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}
