//! Client connections: a listener, and a task for each client that drives a [`Connection`].

mod leave;

use super::Clock;
use super::engine::Engine;
use super::facts::{self, Registry};
use crate::connection::{Connection, Effects, Ending, Kept, Limits, REPLY_BYTES_WAITING_MAX};
use crate::mailbox::Mailbox;
use crate::room::Room;
use bytes::BytesMut;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// Bytes asked from the kernel at once.
const READ_BYTES: usize = 16 << 10;
/// The same before a client has said what it wants, which is short.
const HELLO_BYTES: usize = 128;
/// Space for replies that an idle connection keeps.
const OUT_KEPT_BYTES: usize = 16 << 10;
/// A connection that has not said what it wants by then is closed.
const HELLO_WITHIN: Duration = Duration::from_secs(30);
/// Once the daemon stops, a connection that is owed nothing waits so long for one more request. Closed right behind a
/// reply, it is closed while its client has nothing on the way; an end at any other time may cross with a request.
const LAST_REQUEST_WITHIN: Duration = Duration::from_millis(250);
/// Once the daemon stops, a client that never waits for all its answers is read from no longer than this.
const LAST_REQUESTS_WITHIN: Duration = Duration::from_secs(1);
/// After a failed accept (no more file descriptors, say) the next try comes this much later.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// A server that began anew in place accepts nobody before it serves, for so long at most: whoever connects meanwhile waits
/// a moment, and need not be sent to another server.
const ACCEPT_WITHIN: Duration = Duration::from_secs(5);
/// Between two looks whether it serves.
const SERVES_LOOK_EVERY: Duration = Duration::from_millis(1);

/// The threads that drive clients, one for each core. A connection stays with its thread: on a pool that shares its
/// work every reply woke two threads, the one that has it and another to look for more.
pub(super) struct Reactors {
    reactors: Vec<Reactor>,
}

struct Reactor {
    handle: runtime::Handle,
    connections: AtomicUsize,
}

impl Reactors {
    /// They run until the process ends.
    pub(super) fn start() -> std::io::Result<Reactors> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let start = || -> std::io::Result<Reactor> {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            std::thread::Builder::new()
                .name("warren-client".into())
                .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
            Ok(Reactor { handle, connections: AtomicUsize::new(0) })
        };
        let reactors = (0..cores).map(|_| start()).collect::<std::io::Result<_>>()?;
        Ok(Reactors { reactors })
    }

    /// The one with the fewest connections. Only [`admit`] asks, one connection after the other.
    fn idlest(&self) -> usize {
        let count = |at: &usize| self.reactors[*at].connections.load(Ordering::Relaxed);
        (0..self.reactors.len()).min_by_key(count).expect("there is one for each core")
    }
}

/// What all client tasks share.
pub(super) struct Clients {
    pub(super) clock: Clock,
    pub(super) room: Arc<Room>,
    pub(super) engine: Engine,
    pub(super) reactors: Reactors,
    pub(super) limits: Arc<Limits>,
    pub(super) registry: Arc<Registry>,
    /// 0 is no limit.
    pub(super) connections_max: usize,
    /// 0 is no limit.
    pub(super) connections_per_address_max: usize,
    pub(super) per_address: Mutex<HashMap<IpAddr, usize>>,
    /// The last number that a connection was given.
    pub(super) next: AtomicU64,
    /// What connections are to do once the room is stopping.
    pub(super) leave: watch::Receiver<Leave>,
    pub(super) parking: Parking,
}

/// What the daemon has its connections do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// Go on.
    Not,
    /// Answer what was taken, and close.
    Close,
    /// Answer what was taken, and wait: the daemon begins anew in place.
    Park,
    /// Nothing more is applied: tell the last events, and be [kept](Kept).
    Gather,
}

/// Connections on their way to the next process.
#[derive(Default)]
pub(super) struct Parking {
    /// Wait, and owe nothing.
    pub(super) parked: AtomicUsize,
    /// Are closed already, and only see their client off.
    pub(super) parting: AtomicUsize,
    pub(super) kept: Mutex<Vec<(Kept, OwnedFd)>>,
}

/// A connection that is to be driven.
pub(super) struct Arrival {
    pub(super) id: u64,
    pub(super) stream: Accepted,
    pub(super) connection: Connection,
    pub(super) notify: Arc<Notify>,
    /// What [`Connection::resume`] asks.
    pub(super) effects: Effects,
    /// Read from the client already.
    pub(super) input: BytesMut,
    /// To be sent first.
    pub(super) out: Vec<u8>,
}

/// A socket, by whom its readiness is watched.
pub(super) enum Accepted {
    /// The reactor that drives it.
    Here(TcpStream),
    /// Nobody now.
    Elsewhere(std::io::Result<std::net::TcpStream>),
}

impl From<std::net::TcpStream> for Accepted {
    fn from(stream: std::net::TcpStream) -> Accepted {
        Accepted::Elsewhere(Ok(stream))
    }
}

impl Clients {
    fn leaves(&self) -> Leave {
        *self.leave.borrow()
    }
}

/// The reactor that accepts.
const ACCEPTING: usize = 0;

/// Accept until the daemon stops, and give the listener back: what the kernel has accepted by then is still in it. It is done
/// by a reactor: the connections that stay with it need no other thread. `anew`: this process began in the place of another.
pub(super) fn serve(
    clients: Arc<Clients>,
    listener: TcpListener,
    anew: bool,
) -> JoinHandle<std::io::Result<std::net::TcpListener>> {
    let reactor = clients.reactors.reactors[ACCEPTING].handle.clone();
    reactor.spawn(async move {
        // It was bound elsewhere, and from now on is watched here.
        let listener = match listener.into_std().and_then(TcpListener::from_std) {
            Ok(listener) => listener,
            Err(e) => {
                tracing::error!("cannot accept connections: {e}");
                return Err(e);
            }
        };
        let patience = if anew { ACCEPT_WITHIN } else { Duration::ZERO };
        accept(clients, &listener, patience).await;
        listener.into_std()
    })
}

/// `patience`: how long to wait for it to serve.
async fn accept(clients: Arc<Clients>, listener: &TcpListener, patience: Duration) {
    let mut leave = clients.leave.clone();
    let room = clients.room.clone();
    let serves = async move {
        while !room.is_serving() {
            tokio::time::sleep(SERVES_LOOK_EVERY).await;
        }
    };
    tokio::select! {
        _ = tokio::time::timeout(patience, serves) => {}
        _ = leave.wait_for(|leave| *leave != Leave::Not) => return,
    }
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = leave.wait_for(|leave| *leave != Leave::Not) => return,
        };
        match accepted {
            Ok((stream, peer)) => admit(&clients, stream, peer),
            Err(e) => {
                tracing::warn!("cannot accept a connection: {e}; trying again");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Within the limits of connections, or closed at once (as in ZooKeeper).
fn admit(clients: &Arc<Clients>, stream: TcpStream, peer: SocketAddr) {
    let ip = peer.ip().to_canonical();
    let over = |count: usize, max: usize| max != 0 && count >= max;
    {
        let mut per_address = clients.per_address.lock();
        let from_here = per_address.entry(ip).or_insert(0);
        let why = if over(*from_here, clients.connections_per_address_max) {
            Some("too many connections from this address")
        } else if over(clients.registry.len(), clients.connections_max) {
            Some("too many connections")
        } else {
            None
        };
        if let Some(why) = why {
            if *from_here == 0 {
                per_address.remove(&ip);
            }
            clients.registry.rejected();
            tracing::debug!(%peer, "refused: {why}");
            return;
        }
        *from_here += 1;
    }
    let _ = stream.set_nodelay(true);
    let id = clients.next.fetch_add(1, Ordering::Relaxed) + 1;
    let (mailbox, notify) = mailbox(id);
    let connection = Connection::new(peer, mailbox, clients.limits.clone());
    let at = clients.reactors.idlest();
    let stream = match at {
        ACCEPTING => Accepted::Here(stream),
        _ => Accepted::Elsewhere(stream.into_std()),
    };
    let (effects, input, out) = Default::default();
    drive(clients, at, Arrival { id, stream, connection, notify, effects, input, out });
}

/// Where a connection gets its mail, and what wakes it.
pub(super) fn mailbox(id: u64) -> (Arc<Mailbox>, Arc<Notify>) {
    let notify = Arc::new(Notify::new());
    let mailbox = Mailbox::new(id, {
        let notify = notify.clone();
        Box::new(move || notify.notify_one())
    });
    (mailbox, notify)
}

/// Go on with connections of the process before, which were within the limits then.
pub(super) fn adopt(clients: &Arc<Clients>, resumed: Vec<Arrival>) {
    for arrival in resumed {
        clients.next.fetch_max(arrival.id, Ordering::Relaxed);
        let ip = arrival.connection.peer().ip().to_canonical();
        *clients.per_address.lock().entry(ip).or_insert(0) += 1;
        drive(clients, clients.reactors.idlest(), arrival);
    }
}

/// Drive a connection that is counted for its address, on this reactor, until it ends.
fn drive(clients: &Arc<Clients>, at: usize, arrival: Arrival) {
    let Arrival { id, stream, connection, notify, effects, input, out } = arrival;
    let clients = clients.clone();
    let peer = connection.peer();
    let shown = clients.registry.enter(id, peer, clients.clock.now(), notify.clone());
    let reactor = &clients.reactors.reactors[at];
    reactor.connections.fetch_add(1, Ordering::Relaxed);
    reactor.handle.clone().spawn(async move {
        let stream = match stream {
            Accepted::Here(stream) => Ok(stream),
            Accepted::Elsewhere(stream) => stream.and_then(TcpStream::from_std),
        };
        match stream {
            Ok(stream) => {
                let mut client = Client {
                    clients: clients.clone(),
                    stream,
                    connection,
                    shown,
                    notify,
                    woken: false,
                    is_kept: false,
                };
                client.run(effects, input, out).await;
            }
            Err(e) => tracing::warn!(%peer, "cannot serve a connection: {e}"),
        }
        clients.registry.leave(id);
        clients.reactors.reactors[at].connections.fetch_sub(1, Ordering::Relaxed);
        let ip = peer.ip().to_canonical();
        let mut per_address = clients.per_address.lock();
        if let Some(count) = per_address.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                per_address.remove(&ip);
            }
        }
    });
}

/// One client.
struct Client {
    clients: Arc<Clients>,
    stream: TcpStream,
    connection: Connection,
    shown: Arc<facts::Shown>,
    notify: Arc<Notify>,
    /// Woken while something else was waited for.
    woken: bool,
    /// It goes on in the next process.
    is_kept: bool,
}

impl Client {
    async fn run(&mut self, mut effects: Effects, input: BytesMut, out: Vec<u8>) {
        let why = self.converse(&mut effects, input, out).await;
        if self.is_kept {
            return;
        }
        match self.connection.ending() {
            Some(Ending::Because(why)) => {
                self.clients.room.metrics.connection_drop_count.add(1);
                tracing::debug!(peer = %self.connection.peer(), "closed: {why}");
            }
            Some(Ending::SessionClosed) => {}
            None => {
                if self.connection.session().is_some() {
                    self.clients.room.metrics.connection_drop_count.add(1);
                }
                tracing::debug!(peer = %self.connection.peer(), "lost: {why}");
            }
        }
        self.connection.on_closed(&self.clients.room, &mut effects);
        self.clients.engine.submit(&mut effects);
    }

    /// Until either side ends it. Says what ended it, where that was the network.
    async fn converse(&mut self, effects: &mut Effects, mut input: BytesMut, mut out: Vec<u8>) -> String {
        if let Err(e) = self.flush(&mut out).await {
            return e.to_string();
        }
        let hello_until = tokio::time::Instant::now() + HELLO_WITHIN;
        let mut stopping_since = None;
        loop {
            if let Some(text) =
                facts::four_letter_word(&self.clients.registry, &self.connection, &input).await
            {
                self.connection.facts.received += 1;
                let _ = self.flush(&mut text.into_bytes()).await;
                self.goodbye().await;
                return "its four-letter word is answered".into();
            }
            let now = self.clients.clock.now();
            let turned = self.connection.turn(now, &self.clients.room, &mut input, &mut out, effects);
            if let Err(e) = turned {
                tracing::error!("the tree cannot be read: {e}; stopping");
                std::process::exit(74);
            }
            self.clients.engine.submit(effects);
            self.shown.show(&self.connection);
            let full = out.len() >= REPLY_BYTES_WAITING_MAX;
            let answered = !out.is_empty();
            if answered {
                if let Err(e) = self.flush(&mut out).await {
                    return e.to_string();
                }
            }
            if self.connection.ending().is_some() {
                self.goodbye().await;
                return String::new();
            }
            let mut leave_at = None;
            if self.clients.room.is_stopping() {
                if self.clients.leaves() != Leave::Close {
                    return self.park(&input, &mut out, effects).await;
                }
                let since = *stopping_since.get_or_insert_with(tokio::time::Instant::now);
                // Nothing is owed, and not even half a request is here.
                let idle = self.connection.outstanding() == 0 && input.is_empty();
                let until = since + if idle { LAST_REQUEST_WITHIN } else { LAST_REQUESTS_WITHIN };
                if (idle && answered) || tokio::time::Instant::now() >= until {
                    // What is in the kernel came before we say that we leave.
                    match self.read(&mut input) {
                        Ok(n) if n > 0 && tokio::time::Instant::now() < since + LAST_REQUESTS_WITHIN => {
                            self.clients.room.metrics.bytes_received_count.add(n as u64);
                            continue;
                        }
                        _ => {}
                    }
                    self.finish(&mut input, &mut out, effects).await;
                    return "this server stops".into();
                }
                leave_at = Some(until);
            }
            if full || std::mem::take(&mut self.woken) {
                // Whole requests may be in the buffer, or mail came while we sent.
                continue;
            }
            let wants_input = self.connection.wants_input(&self.clients.room);
            // Little is kept for a connection that says nothing.
            if input.is_empty() {
                input = BytesMut::new();
            }
            if out.capacity() > OUT_KEPT_BYTES {
                out = Vec::new();
            }
            let greeted = self.connection.is_greeted();
            tokio::select! {
                biased;
                _ = self.notify.notified() => {}
                ready = self.stream.readable(), if wants_input => {
                    if let Err(e) = ready {
                        return e.to_string();
                    }
                    match self.read(&mut input) {
                        Ok(0) => return "the client closed it".into(),
                        Ok(n) => self.clients.room.metrics.bytes_received_count.add(n as u64),
                        Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                        Err(e) => return e.to_string(),
                    }
                }
                // The client may be gone while we owe it something and do not read.
                gone = self.stream.ready(Interest::ERROR), if !wants_input => {
                    if gone.is_ok_and(|ready| ready.is_error()) {
                        return "the network failed".into();
                    }
                }
                _ = tokio::time::sleep_until(leave_at.unwrap_or(hello_until)), if leave_at.is_some() => {}
                _ = tokio::time::sleep_until(hello_until), if !greeted => {
                    self.clients.room.metrics.sessionless_connections_expired.add(1);
                    return "it did not say what it wants".into();
                }
            }
        }
    }

    fn read(&mut self, input: &mut BytesMut) -> std::io::Result<usize> {
        input.reserve(if self.connection.is_greeted() { READ_BYTES } else { HELLO_BYTES });
        self.stream.try_read_buf(input)
    }

    /// Send everything. While the client does not take it, nothing else is done for it, except to notice that the
    /// connection must end.
    async fn flush(&mut self, out: &mut Vec<u8>) -> std::io::Result<()> {
        let (mut sent, mut stuck) = (0, false);
        while sent < out.len() {
            match self.stream.try_write(&out[sent..]) {
                Ok(n) => {
                    sent += n;
                    if stuck {
                        self.connection.on_stuck(self.clients.clock.now(), true, sent < out.len());
                    }
                }
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                    if !stuck {
                        stuck = true;
                        self.connection.on_stuck(self.clients.clock.now(), false, true);
                    }
                    tokio::select! {
                        ready = self.stream.writable() => ready?,
                        _ = self.notify.notified() => {
                            if self.connection.must_close() {
                                return Err(std::io::Error::other("it does not read, and must be closed"));
                            }
                            self.woken = true;
                        }
                    }
                }
                Err(e) => return Err(e),
            }
        }
        out.clear();
        Ok(())
    }
}
