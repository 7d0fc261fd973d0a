//! A session that is kept alive by a thread of its own while somebody types: it answers, pings, reads events as they come, and
//! finds another server when this one goes.
//!
//! ```text
//!  commands ──submit──▶ socket                          who waits for a reply sleeps on `changed`
//!  commands ◀──wait──── waiting ◀── reader thread ◀── socket
//!                                        └──▶ news: events, connections that come and go; never blocks
//! ```

use crate::shell::address::Servers;
use crate::shell::failure::Failure;
use crate::shell::run::{Reply, Server, Ticket};
use crate::shell::watches::{Kind, WATCHES_MAX, Watches};
use bytes::BytesMut;
use std::collections::{HashMap, VecDeque};
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream, ToSocketAddrs as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use warren_storage::Code;
use warren_transport::client::{Client, ClientError, Incoming, State as Stage};
use warren_transport::request::{SetWatches, WatcherType};
use warren_transport::{EventType, Request, take_frame};

/// A reply at most, bytes: the children of a znode with some million of them.
const REPLY_BYTES_MAX: usize = 256 << 20;
/// What is read from the socket at once, bytes.
const READ_BYTES: usize = 64 << 10;
/// A server that does not take the connection by then is given up.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// A server that does not attach the session by then is given up; an election may fall into it.
const ATTACH_WITHIN: Duration = Duration::from_secs(10);
/// Between two rounds through the servers.
const ROUND_EVERY: Duration = Duration::from_millis(500);
/// A command waits so long for a connection.
const CONNECTED_WITHIN: Duration = Duration::from_secs(15);
/// A server that is asked to end the session answers within this, or is left.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// Who waits longer for an answer is told so.
const LONG: Duration = Duration::from_secs(5);
/// Between two looks at whether the one who waits gave up.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Credentials that are shown again on each connection at most.
const CREDENTIALS_MAX: usize = 100;

/// What happens beside the answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// The session is attached.
    Connected { server: String, session: i64, is_new: bool, read_only: bool },
    /// The connection is gone; others are tried.
    Lost { server: String, why: String },
    /// The session is over, and what belonged to it.
    Expired,
    /// A watch fired.
    Event { kind: EventType, path: String, zxid: i64 },
}

/// How to connect.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    pub(super) servers: Servers,
    /// Session timeout to ask for, ms.
    pub(super) timeout_ms: i32,
    pub(super) read_only: bool,
}

/// A session, from the asking end; clones ask for the same one. It goes on until [`Session::close`].
#[derive(Clone)]
pub(super) struct Session {
    shared: Arc<Shared>,
    /// Set when the one who waits gives up.
    interrupted: Arc<AtomicBool>,
    /// The one who waits gives up by then.
    until: Option<Instant>,
}

struct Shared {
    terms: Terms,
    state: Mutex<State>,
    changed: Condvar,
    news: SyncSender<News>,
    /// News for which there was no room.
    missed: Arc<std::sync::atomic::AtomicUsize>,
}

struct State {
    client: Client,
    socket: Option<TcpStream>,
    /// The session is attached, and credentials and watches are on their way again.
    attached: bool,
    closing: bool,
    /// Counts connections, so that a ticket of an older one is not taken for one of this.
    connection: i64,
    /// By connection and xid; `None` is not there yet.
    waiting: HashMap<Ticket, Waiting>,
    watches: Watches,
    credentials: Vec<(String, Vec<u8>)>,
    auth_answers: VecDeque<i32>,
    /// To which server.
    server: String,
    /// Rounds through all servers in which none was found, since one was.
    rounds: u32,
    why: String,
}

enum Waiting {
    Due { watch: Option<(Kind, String)>, exists: bool },
    Here(Reply),
}

impl Session {
    /// Begin one. Returns at once; [`Session::attached`] waits.
    pub(super) fn begin(
        terms: Terms,
        news: SyncSender<News>,
        missed: Arc<std::sync::atomic::AtomicUsize>,
        interrupted: Arc<AtomicBool>,
    ) -> io::Result<Session> {
        let mut client = Client::new(terms.timeout_ms);
        client.set_read_only(terms.read_only);
        let state = State {
            client,
            socket: None,
            attached: false,
            closing: false,
            connection: 0,
            waiting: HashMap::new(),
            watches: Watches::default(),
            credentials: Vec::new(),
            auth_answers: VecDeque::new(),
            server: String::new(),
            rounds: 0,
            why: "no server answered yet".to_owned(),
        };
        let shared =
            Arc::new(Shared { terms, state: Mutex::new(state), changed: Condvar::new(), news, missed });
        let of_reader = Arc::clone(&shared);
        // Not joined: it may be with a server that does not answer, and ends with the process.
        std::thread::Builder::new().name("warren-session".into()).spawn(move || of_reader.keep())?;
        Ok(Session { shared, interrupted, until: None })
    }

    /// The same, for one who waits so long at most.
    pub(super) fn within(&self, at_most: Duration) -> Session {
        Session { until: Some(Instant::now() + at_most), ..self.clone() }
    }

    /// Does the one who waits go on?
    fn patience(&self) -> Result<(), Failure> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(Failure::Interrupted);
        }
        match self.until {
            Some(until) if Instant::now() > until => Err(Failure::Told("no answer in time".to_owned())),
            _ => Ok(()),
        }
    }

    /// Wait until it is attached; fails when all servers were tried once in vain.
    pub(super) fn attached(&self) -> Result<(), Failure> {
        let state = self.shared.lock();
        self.until_attached(state, Some(1)).map(|_| ())
    }

    /// CONNECTED and its like, for the prompt.
    pub(super) fn stage(&self) -> &'static str {
        let state = self.shared.lock();
        match (state.closing, state.attached) {
            (true, _) => "CLOSED",
            (_, true) => "CONNECTED",
            _ => "CONNECTING",
        }
    }

    /// End the session and the thread.
    pub(super) fn close(&self) {
        let asked = {
            let mut state = self.shared.lock();
            state.closing = true;
            match state.attached {
                true => state.send(&Request::CloseSession, None).ok(),
                false => None,
            }
        };
        self.shared.changed.notify_all();
        let until = Instant::now() + CLOSE_WITHIN;
        let mut state = self.shared.lock();
        while let Some(Waiting::Due { .. }) = asked.and_then(|ticket| state.waiting.get(&ticket)) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.shared.wait(state, left);
        }
        if let Some(socket) = &state.socket {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn until_attached<'s>(
        &'s self,
        mut state: MutexGuard<'s, State>,
        rounds: Option<u32>,
    ) -> Result<MutexGuard<'s, State>, Failure> {
        let until = Instant::now() + CONNECTED_WITHIN;
        loop {
            if state.closing {
                return Err(Failure::Told("the session is closed; connect begins a new one".to_owned()));
            }
            if state.attached {
                return Ok(state);
            }
            let given_up = rounds.is_some_and(|rounds| state.rounds >= rounds);
            if given_up || Instant::now() > until {
                return Err(Failure::Unconnected(state.why.clone()));
            }
            self.patience()?;
            state = self.shared.wait(state, LOOK_EVERY);
        }
    }
}

impl Server for Session {
    fn submit(&mut self, request: &Request<'_>, watch: Option<(Kind, &str)>) -> Result<Ticket, Failure> {
        let mut state = self.until_attached(self.shared.lock(), None)?;
        if watch.is_some() && state.watches.len() >= WATCHES_MAX {
            return Err(Failure::Told(format!(
                "{WATCHES_MAX} watches are set, and no more are kept; removewatches takes some back"
            )));
        }
        let watch = watch.map(|(kind, path)| (kind, path.to_owned()));
        state.send(request, watch).map_err(|e| match e {
            ClientError::TooManyPending(n) => Failure::Told(format!("{n} requests are under way")),
            _ => Failure::Lost,
        })
    }

    fn wait(&mut self, ticket: Ticket) -> Result<Reply, Failure> {
        let mut state = self.shared.lock();
        let mut long = Some(Instant::now() + LONG);
        loop {
            if long.is_some_and(|long| Instant::now() > long) && self.until.is_none() {
                long = None;
                eprintln!("still waiting for the answer; has the ensemble a quorum? Ctrl-C gives up");
            }
            if !matches!(state.waiting.get(&ticket), Some(Waiting::Due { .. })) {
                return match state.waiting.remove(&ticket) {
                    Some(Waiting::Here(reply)) => Ok(reply),
                    _ => Err(Failure::Lost),
                };
            }
            if let Err(failure) = self.patience() {
                // The reply is dropped when it comes.
                state.waiting.remove(&ticket);
                return Err(failure);
            }
            state = self.shared.wait(state, LOOK_EVERY);
        }
    }

    fn authenticate(&mut self, scheme: &str, auth: &[u8]) -> Result<(), Failure> {
        let mut state = self.until_attached(self.shared.lock(), None)?;
        if state.credentials.len() >= CREDENTIALS_MAX {
            return Err(Failure::Told(format!(
                "{CREDENTIALS_MAX} credentials are shown, and no more are kept; connect begins anew"
            )));
        }
        state.auth_answers.clear();
        let connection = state.connection;
        let sent = state.send(&Request::Auth { kind: 0, scheme, auth: Some(auth) }, None);
        sent.map_err(|_| Failure::Lost)?;
        let answer = loop {
            if let Some(answer) = state.auth_answers.pop_front() {
                break answer;
            }
            if state.connection != connection || !state.attached {
                return Err(Failure::Lost);
            }
            self.patience()?;
            state = self.shared.wait(state, LOOK_EVERY);
        };
        if answer != 0 {
            return Err(Failure::Told(format!(
                "Authentication failed: the server takes no {scheme} credentials like these; digest takes USER:PASSWORD"
            )));
        }
        let new = (scheme.to_owned(), auth.to_vec());
        if !state.credentials.contains(&new) {
            state.credentials.push(new);
        }
        Ok(())
    }

    fn unwatch(&mut self, path: &str, which: WatcherType, local: bool) -> Result<Vec<&'static str>, Failure> {
        if !(local && self.stage() != "CONNECTED") {
            let ticket = self.submit(&Request::RemoveWatches { path, watcher: which }, None)?;
            let reply = self.wait(ticket)?;
            reply.response(path)?;
        }
        let removed = self.shared.lock().watches.removed(which, path);
        match removed.is_empty() && local {
            true => Err(Failure::refused(Code::NoWatcher, path)),
            false => Ok(removed),
        }
    }
}

impl State {
    /// Send it now. A socket that fails is found out by the reader.
    fn send(&mut self, request: &Request<'_>, watch: Option<(Kind, String)>) -> Result<Ticket, ClientError> {
        let mut out = Vec::new();
        let xid = self.client.send(Instant::now(), request, &mut out)?;
        let ticket = self.ticket(xid);
        if xid > 0 {
            let exists = matches!(request, Request::Exists { .. });
            self.waiting.insert(ticket, Waiting::Due { watch, exists });
        }
        self.write(&out);
        Ok(ticket)
    }

    fn ticket(&self, xid: i32) -> Ticket {
        Ticket(self.connection << 32 | i64::from(xid))
    }

    fn write(&mut self, out: &[u8]) {
        let Some(socket) = &mut self.socket else { return };
        if !out.is_empty() && socket.write_all(out).is_err() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("a thread that holds this does not panic")
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>, at_most: Duration) -> MutexGuard<'s, State> {
        self.changed.wait_timeout(state, at_most).expect("a thread that holds this does not panic").0
    }

    fn tell(&self, news: News) {
        // The reader must never wait for the one who prints, who may wait for the reader.
        if let Err(TrySendError::Full(_)) = self.news.try_send(news) {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The reader's life: find a server, stay with it, find the next.
    fn keep(&self) {
        let addresses = &self.terms.servers.addresses;
        let mut next = 0;
        loop {
            let mut tried = 0;
            while tried < addresses.len() {
                if self.lock().closing {
                    return;
                }
                let address = &addresses[next % addresses.len()];
                next += 1;
                match self.stay(address) {
                    // It was attached: the round begins anew with the next.
                    Ok(()) => tried = 0,
                    Err(why) => {
                        tried += 1;
                        self.lock().why = format!("{address}: {why}");
                    }
                }
                self.changed.notify_all();
            }
            let mut state = self.lock();
            state.rounds += 1;
            self.changed.notify_all();
            let until = Instant::now() + ROUND_EVERY;
            while !state.closing {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    break;
                }
                state = self.wait(state, left);
            }
        }
    }

    /// Attach to this server and stay until the connection is gone. Fails if the session was not attached.
    fn stay(&self, address: &str) -> Result<(), String> {
        let mut socket = open(address).map_err(|e| e.to_string())?;
        {
            let mut state = self.lock();
            let mut out = Vec::new();
            state.client.connect(Instant::now(), &mut out);
            socket.write_all(&out).map_err(|e| e.to_string())?;
        }
        let mut received = BytesMut::new();
        let until = Instant::now() + ATTACH_WITHIN;
        let mut attached = false;
        let why = loop {
            match take_frame(&mut received, REPLY_BYTES_MAX) {
                Ok(Some(packet)) => {
                    match self.packet(packet.freeze(), address, &socket) {
                        Ok(()) => attached = self.lock().attached,
                        Err(why) => break why,
                    }
                    continue;
                }
                Ok(None) => {}
                Err(e) => break e.to_string(),
            }
            if !attached && Instant::now() > until {
                break "it did not attach the session in time; is there a leader?".to_owned();
            }
            if let Err(why) = self.tick(&socket) {
                break why;
            }
            let had = received.len();
            received.resize(had + READ_BYTES, 0);
            let read = socket.read(&mut received[had..]);
            received.truncate(had + read.as_ref().map_or(0, |n| *n));
            match read {
                Ok(0) if attached => break "the server closed the connection".to_owned(),
                Ok(0) => {
                    break "the server closed the connection at once: it has no leader, or is behind what this session \
                           saw elsewhere (connect begins a new one)"
                        .to_owned();
                }
                Ok(_) => {}
                Err(e) if is_timeout(&e) || e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => break e.to_string(),
            }
        };
        let mut state = self.lock();
        state.client.disconnected();
        state.socket = None;
        // A ticket that is not among them is of a lost request.
        state.waiting.retain(|_, waiting| matches!(waiting, Waiting::Here(_)));
        let (was_attached, closing) = (std::mem::take(&mut state.attached), state.closing);
        if state.client.state() == Stage::Expired {
            state.client.forget_session();
            state.watches.clear();
            drop(state);
            self.tell(News::Expired);
            return Err("the session is expired".to_owned());
        }
        state.why = format!("{address}: {why}");
        drop(state);
        self.changed.notify_all();
        match was_attached {
            true => {
                if !closing {
                    self.tell(News::Lost { server: address.to_owned(), why });
                }
                Ok(())
            }
            false => Err(why),
        }
    }

    /// Pings, and notices a silent server.
    fn tick(&self, socket: &TcpStream) -> Result<(), String> {
        let mut state = self.lock();
        let mut out = Vec::new();
        let alive = state.client.handle_timeout(Instant::now(), &mut out);
        state.write(&out);
        let tick = (state.client.timeout() / 6).clamp(Duration::from_millis(1), Duration::from_secs(1));
        drop(state);
        alive.map_err(|e| e.to_string())?;
        socket.set_read_timeout(Some(tick)).map_err(|e| e.to_string())
    }

    fn packet(&self, packet: bytes::Bytes, address: &str, socket: &TcpStream) -> Result<(), String> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let session_before = state.client.session().id;
        let news = match state.client.receive(Instant::now(), &packet).map_err(|e| e.to_string())? {
            Incoming::Connected(response) => {
                let (session, read_only) = (response.session, response.read_only == Some(true));
                state.connection += 1;
                address.clone_into(&mut state.server);
                state.socket = Some(socket.try_clone().map_err(|e| e.to_string())?);
                state.rounds = 0;
                state.again();
                state.attached = true;
                let is_new = session_before != session;
                Some(News::Connected { server: address.to_owned(), session, is_new, read_only })
            }
            Incoming::Expired => return Err("the session is expired".to_owned()),
            Incoming::Reply(reply) => {
                let (opcode, header) = (reply.opcode, reply.header);
                let body = packet.slice(warren_transport::ReplyHeader::BYTES..);
                let ticket = state.ticket(header.xid);
                // One that nobody waits for any more is dropped.
                if let Some(waiting) = state.waiting.get_mut(&ticket) {
                    if let Waiting::Due { watch: Some((kind, path)), exists } = waiting {
                        let granted = match (header.err, *exists) {
                            (0, true) => Some(Kind::Data),
                            (err, true) if err == Code::NoNode.wire() => Some(Kind::Exist),
                            (0, false) => Some(*kind),
                            _ => None,
                        };
                        if let Some(kind) = granted {
                            state.watches.armed(kind, std::mem::take(path));
                        }
                    }
                    *waiting = Waiting::Here(Reply { opcode, header, body });
                }
                None
            }
            Incoming::Auth { err } => {
                state.auth_answers.push_back(err);
                None
            }
            Incoming::Event { zxid, event } => {
                state.watches.fired(event.kind, event.path);
                let path = self.terms.servers.root.seen(event.path).to_owned();
                Some(News::Event { kind: event.kind, path, zxid })
            }
            Incoming::Pong { .. } => None,
        };
        drop(guard);
        self.changed.notify_all();
        if let Some(news) = news {
            self.tell(news);
        }
        Ok(())
    }
}

impl State {
    /// Credentials and watches for a new connection, before anything else is sent on it.
    fn again(&mut self) {
        let mut out = Vec::new();
        let now = Instant::now();
        for (scheme, auth) in &self.credentials {
            let request = Request::Auth { kind: 0, scheme, auth: Some(auth) };
            let _ = self.client.send(now, &request, &mut out);
        }
        let zxid = self.client.last_zxid();
        let packets: Vec<SetWatches<'_>> = self.watches.again(zxid);
        for packet in packets {
            let _ = self.client.send(now, &Request::SetWatches(packet), &mut out);
        }
        self.write(&out);
    }
}

fn is_timeout(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// A socket to the first of the addresses behind this name that takes the connection.
fn open(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "this name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_WITHIN) {
            Ok(socket) => {
                socket.set_nodelay(true)?;
                socket.set_write_timeout(Some(ATTACH_WITHIN))?;
                return Ok(socket);
            }
            Err(e) => last = e,
        }
    }
    Err(last)
}
