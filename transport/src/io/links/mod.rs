//! Links between the servers of an ensemble: one QUIC connection per pair, with mutual TLS, always.
//!
//! ```text
//!  Links::send ──▶ queue.rs, one per lane ──▶ link.rs ══ QUIC ══▶ link.rs ──▶ LinkHandler::message
//!  Links::open_snapshot ──▶ snapshot.rs ─▶ bulk.rs ══ QUIC ══▶ bulk.rs ─▶ snapshot.rs ──▶ LinkHandler::snapshot
//!                     dial.rs dials servers with lower ids and lets in those with higher ones; tls.rs judges both
//! ```
//!
//! Not every pair of servers has something to say to each other: [`Hold`] says which links are always there, and which are
//! made when one end asks ([`Links::reach`]) and closed when nobody uses them.
//!
//! A link is up when both ends have judged each other's certificate and said hello. Messages of one lane arrive in order, or the
//! link ends; a link that ends loses what was on its way. It runs on threads of its own, so that no crowd of clients
//! delays a heartbeat; and a snapshot has a connection and a thread of its own, so that none does, either.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this is io: sockets, tasks and the clock"
)]

mod bulk;
mod dial;
mod endpoint;
mod link;
mod peer;
mod queue;
mod refusal;
mod snapshot;
#[cfg(test)]
mod tests;
mod tls;

pub use dial::HANDSHAKES_MAX;
pub use endpoint::STREAM_WINDOW_BYTES;
pub use peer::{WAITING_BYTES_MAX, WAITING_MESSAGES_MAX};
pub use queue::{
    QUEUE_APPEND_BYTES_MAX, QUEUE_CONSENSUS_BYTES_MAX, QUEUE_MESSAGES_MAX, QUEUE_REQUEST_BYTES_MAX,
};
pub use refusal::{Refusal, RefusalReason};
pub use snapshot::{
    SNAPSHOT_CHUNK_BYTES_MAX, SNAPSHOT_STALL, SNAPSHOTS_PER_LINK_MAX, SnapshotError, SnapshotReceiver,
    SnapshotSender,
};
pub use tls::{TlsError, TlsFiles};

use crate::peer::{
    CodecError, Lane, NameError, PeerMessage, RaftMessage, ServerId, check_ensemble_name, codec,
};
use link::Live;
use parking_lot::{Mutex, RwLock};
use peer::Peer;
use refusal::Refusals;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};
use tls::{Identity, Names, Purpose};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{mpsc, watch};

/// How long stopping may take, once everybody was told.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);
/// What [`LinkTimers`] may hold.
const TIMERS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);

/// A server of the ensemble, and where it listens to its peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddr {
    /// Not 0.
    pub id: ServerId,
    /// Host and UDP port; a name is resolved at every attempt.
    pub addr: String,
    /// Is there always a link to it?
    pub hold: Hold,
}

/// How a link is held. Both ends should say the same of it; while they do not, one more is there than is needed, or it is
/// made when one end asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It is there all the time. The server with the higher id dials, and no other may.
    Always,
    /// It is there all the time. The server with the higher id dials; the other does, too, when that one has not for a while: it
    /// may hold the link [`Hold::OnDemand`].
    EitherWay,
    /// It is made by whichever end has something to say ([`Links::reach`]), and closed once it is not used for
    /// [`LinkTimers::unused`].
    OnDemand,
}

/// Times of links; each from 10 ms to 60 s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkTimers {
    /// A link on which nothing came for so long is down. The least of both ends holds.
    pub idle: Duration,
    /// A handshake takes no longer.
    pub handshake: Duration,
    /// Between the first attempts to connect.
    pub redial_min: Duration,
    /// Between attempts, at most.
    pub redial_max: Duration,
    /// A link that is held [`Hold::OnDemand`] is closed when no message went either way for so long, twice that at most.
    pub unused: Duration,
}

impl Default for LinkTimers {
    fn default() -> LinkTimers {
        LinkTimers {
            idle: Duration::from_secs(3),
            handshake: Duration::from_secs(2),
            redial_min: Duration::from_millis(50),
            redial_max: Duration::from_secs(1),
            unused: Duration::from_secs(10),
        }
    }
}

/// What links need to know.
#[derive(Clone, Debug)]
pub struct LinksConfig {
    /// The ensemble's name, as in every certificate.
    pub ensemble: String,
    /// This server's.
    pub server_id: ServerId,
    /// UDP; peers dial it, and are dialled from it.
    pub listen: SocketAddr,
    /// The configured servers; this one may be among them, and is left out.
    pub peers: Vec<PeerAddr>,
    /// Certificates.
    pub tls: TlsFiles,
    /// Times.
    pub timers: LinkTimers,
    /// A random number, for pauses that differ between servers.
    pub seed: u64,
    /// Threads that carry all links; 1 at least.
    pub threads: usize,
    /// Called on the thread that carries snapshots, as it starts: it may let others go first.
    pub on_snapshot_thread: fn(),
}

/// Who is told. Called from the links' own threads, which wait meanwhile: nothing here may block.
pub trait LinkHandler: Send + Sync + 'static {
    /// `from` says something; that it is `from` is certain. Only while its link is up.
    fn message(&self, from: ServerId, message: PeerMessage);
    /// `from` sends a snapshot; whoever receives it does so on a thread of its own. Its link was up when it began.
    fn snapshot(&self, from: ServerId, receiver: SnapshotReceiver);
    /// The link is up: messages can be sent, and may come.
    fn link_up(&self, server: ServerId);
    /// The link is down, and what was on its way may be lost. Another one is tried for, unless it is held [`Hold::OnDemand`].
    fn link_down(&self, server: ServerId, why: DownReason);
    /// No link could be made for what was to be said to this server ([`Links::reach`]): it is dropped.
    fn unreached(&self, server: ServerId);
    /// Somebody was refused. Counted and logged already.
    fn refused(&self, refusal: Refusal);
}

/// Why a link is down.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DownReason {
    /// The peer closed it, and said why.
    #[error("the peer closed it: {0}")]
    ByPeer(String),
    /// Nothing was heard for the idle timeout.
    #[error("nothing was heard of the peer")]
    Silent,
    /// The connection broke; or the peer has started anew and does not know it.
    #[error("the connection broke: {0}")]
    Lost(String),
    /// The peer connected anew.
    #[error("a newer connection of the same server replaces it")]
    Replaced,
    /// The peer did what it must not.
    #[error("refused: {1}")]
    Refused(RefusalReason, String),
    /// The authority that is trusted since a reload does not vouch for the peer.
    #[error("its certificate is no longer trusted: {0}")]
    Untrusted(String),
    /// The peer says that this server does not belong to the ensemble any more.
    #[error("the peer says that this server was removed from the ensemble")]
    Removed,
    /// It is no peer any more, or has another address ([`Links::set_peers`]).
    #[error("it was removed from the ensemble, or has another address")]
    RemovedHere,
    /// Nobody used it, and it is held [`Hold::OnDemand`].
    #[error("nobody used it")]
    Unused,
    /// This server stops.
    #[error("the server stops")]
    Stopping,
}

/// Why links cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The ensemble's name.
    #[error(transparent)]
    Ensemble(#[from] NameError),
    /// A server id that cannot be.
    #[error("server ids are 1 to 255 and differ; {0} is wrong")]
    ServerId(ServerId),
    /// [`LinkTimers`].
    #[error("every time of a link is from 10 ms to 60 s, and redial_min is not above redial_max")]
    Timers,
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The socket.
    #[error("cannot listen to peers on UDP {addr}")]
    Listen {
        /// As configured.
        addr: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Threads.
    #[error("the system refuses the threads that carry the links")]
    Threads(#[source] io::Error),
}

/// Why a message was not sent. It is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Nobody is configured with that id.
    #[error("server {0} is not configured")]
    Unknown(ServerId),
    /// There is no link now.
    #[error("there is no link to server {0}")]
    Down(ServerId),
    /// The lane's queue is full: the peer, or the path to it, is too slow.
    #[error("too much waits to be sent on the {0:?} lane")]
    Overflow(Lane),
    /// Too much waits for a link that is being made ([`WAITING_MESSAGES_MAX`], [`WAITING_BYTES_MAX`]).
    #[error("too much waits for the link to server {0}")]
    Waiting(ServerId),
    /// No peer would take it.
    #[error(transparent)]
    Message(#[from] CodecError),
}

/// What is known of one peer's link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkFacts {
    /// Whose.
    pub server: ServerId,
    /// As configured.
    pub addr: String,
    /// Whether it should be up.
    pub hold: Hold,
    /// Set while the link is up.
    pub up: Option<UpFacts>,
    /// Messages that were dropped because a queue was full, since the start.
    pub overflows: u64,
}

/// What is known of a link that is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpFacts {
    /// Where the peer is.
    pub addr: SocketAddr,
    /// Smoothed.
    pub round_trip: Duration,
    /// Waiting to be sent, bytes.
    pub queued_bytes: usize,
}

/// The links of this server. Dropped, all end at once.
pub struct Links {
    shared: Arc<Shared>,
    local: SocketAddr,
    running: Mutex<Option<Running>>,
}

/// What ends with the links.
struct Running {
    runtime: Runtime,
    /// For snapshots.
    bulk: Runtime,
    alive: Alive,
    ended: mpsc::Receiver<()>,
}

impl Running {
    /// Make links to a peer whenever it is this server that has to.
    fn dial(&self, shared: &Arc<Shared>, peer: &Arc<Peer>) {
        let (shared, peer, alive) = (shared.clone(), peer.clone(), self.alive.clone());
        let seed = shared.seed ^ u64::from(peer.id).rotate_right(8);
        self.runtime.spawn(async move {
            let _alive = alive;
            dial::dial(shared, peer, seed).await;
        });
    }
}

/// Held by tasks that stopping waits for.
type Alive = mpsc::Sender<()>;

/// What all tasks share.
struct Shared {
    names: Arc<Names>,
    timers: LinkTimers,
    peers: RwLock<BTreeMap<ServerId, Arc<Peer>>>,
    seed: u64,
    identity: RwLock<Arc<Identity>>,
    handler: Arc<dyn LinkHandler>,
    refusals: Refusals,
    endpoint: quinn::Endpoint,
    local: SocketAddr,
    transport: Arc<quinn::TransportConfig>,
    bulk_transport: Arc<quinn::TransportConfig>,
    /// Where connections for snapshots run.
    bulk: Handle,
    /// True once all stops.
    stop: watch::Sender<bool>,
}

impl Shared {
    fn identity(&self) -> Arc<Identity> {
        self.identity.read().clone()
    }

    fn transport(&self, purpose: Purpose) -> &Arc<quinn::TransportConfig> {
        match purpose {
            Purpose::Link => &self.transport,
            Purpose::Snapshot => &self.bulk_transport,
        }
    }

    fn peer(&self, server: ServerId) -> Option<Arc<Peer>> {
        self.peers.read().get(&server).cloned()
    }

    /// Is any link up?
    fn has_links(&self) -> bool {
        self.peers.read().values().any(|peer| peer.live().is_some())
    }
}

fn holds(peers: &BTreeMap<ServerId, Arc<Peer>>) -> BTreeMap<ServerId, Hold> {
    peers.iter().map(|(id, peer)| (*id, peer.hold())).collect()
}

/// Wait until all stops.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

impl Links {
    /// Listen, and dial the servers with lower ids to which there is always a link. Returns at once; [`LinkHandler::link_up`] says when there are links.
    ///
    /// # Errors
    /// When the configuration or a certificate cannot be used, or the system refuses socket or threads.
    pub fn start(config: LinksConfig, handler: Arc<dyn LinkHandler>) -> Result<Links, LinkError> {
        let LinksConfig {
            ensemble,
            server_id,
            listen,
            peers,
            tls,
            timers,
            seed,
            threads,
            on_snapshot_thread,
        } = config;
        check_ensemble_name(&ensemble)?;
        if server_id == 0 {
            return Err(LinkError::ServerId(server_id));
        }
        let LinkTimers { idle, handshake, redial_min, redial_max, unused } = timers;
        if ![idle, handshake, redial_min, redial_max, unused].iter().all(|t| TIMERS.contains(t))
            || redial_min > redial_max
        {
            return Err(LinkError::Timers);
        }
        let mut by_id = BTreeMap::new();
        for PeerAddr { id, addr, hold } in peers.into_iter().filter(|peer| peer.id != server_id) {
            if id == 0 || by_id.insert(id, Peer::new(id, addr, hold)).is_some() {
                return Err(LinkError::ServerId(id));
            }
        }
        let names = Arc::new(Names { ensemble, own: server_id, peers: RwLock::new(holds(&by_id)) });
        let identity = Arc::new(Identity::new(&tls, &names)?);
        let transport = Arc::new(endpoint::transport(&timers, Purpose::Link));
        let bulk_transport = Arc::new(endpoint::transport(&timers, Purpose::Snapshot));
        let runtime = |name, threads, on_start: fn()| {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(threads).thread_name(name).on_thread_start(on_start).enable_all();
            builder.build().map_err(LinkError::Threads)
        };
        let bulk = runtime("warren-bulk", 1, on_snapshot_thread)?;
        let runtime = match runtime("warren-link", threads.max(1), || {}) {
            Ok(runtime) => runtime,
            Err(e) => {
                bulk.shutdown_background();
                return Err(e);
            }
        };
        let opened = {
            let _entered = runtime.enter();
            let (crypto, _) = tls::listening(&identity, &names, Purpose::Link);
            let server = endpoint::server_config(crypto, &transport);
            endpoint::open(listen, server, identity.reset_key())
                .and_then(|endpoint| endpoint.local_addr().map(|local| (endpoint, local)))
        };
        let (endpoint, local) = match opened {
            Ok(opened) => opened,
            Err(source) => {
                // Dropped, it would wait, which the caller's own runtime does not allow.
                runtime.shutdown_background();
                bulk.shutdown_background();
                return Err(LinkError::Listen { addr: listen, source });
            }
        };
        let shared = Arc::new(Shared {
            names,
            timers,
            peers: RwLock::new(by_id),
            seed,
            identity: RwLock::new(identity),
            handler,
            refusals: Refusals::new(),
            endpoint,
            local,
            transport,
            bulk_transport,
            bulk: bulk.handle().clone(),
            stop: watch::Sender::new(false),
        });
        let (alive, ended) = mpsc::channel(1);
        runtime.spawn(dial::listen(shared.clone(), alive.clone()));
        let running = Running { runtime, bulk, alive, ended };
        for peer in shared.peers.read().values() {
            running.dial(&shared, peer);
        }
        Ok(Links { shared, local, running: Mutex::new(Some(running)) })
    }

    /// These are the peers from now on; this server may be among them, and is left out. A new one is dialled or let in, one
    /// that is gone or has another address loses its link; one whose [`Hold`] alone is another keeps it. One that was told
    /// twice, or has the id 0, is left out.
    pub fn set_peers(&self, peers: Vec<PeerAddr>) {
        let running = self.running.lock();
        let Some(running) = running.as_ref() else { return };
        let own = self.shared.names.own;
        let mut wanted = BTreeMap::new();
        for PeerAddr { id, addr, hold } in peers.into_iter().filter(|peer| peer.id != own && peer.id != 0) {
            wanted.entry(id).or_insert((addr, hold));
        }
        let mut gone = Vec::new();
        let mut now = self.shared.peers.write();
        now.retain(|id, peer| {
            let hold = wanted.get(id).filter(|(addr, _)| *addr == peer.addr).map(|(_, hold)| *hold);
            match hold {
                Some(hold) => peer.set_hold(hold),
                None => gone.push(peer.clone()),
            }
            hold.is_some()
        });
        for (id, (addr, hold)) in &wanted {
            if !now.contains_key(id) {
                let peer = Peer::new(*id, addr.clone(), *hold);
                running.dial(&self.shared, &peer);
                now.insert(*id, peer);
            }
        }
        *self.shared.names.peers.write() = holds(&now);
        drop(now);
        for peer in gone {
            peer.gone.send_replace(true);
            if let Some(live) = peer.live() {
                live.close(match wanted.contains_key(&peer.id) {
                    true => DownReason::Replaced,
                    false => DownReason::RemovedHere,
                });
            }
        }
    }

    /// Where we listen; the port is known by now.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Queue a message. Never waits.
    ///
    /// # Errors
    /// When there is no link, no room, or the message is over a limit of the wire; it is dropped.
    pub fn send(&self, to: ServerId, message: PeerMessage) -> Result<(), SendError> {
        let peer = self.shared.peer(to).ok_or(SendError::Unknown(to))?;
        let bytes = codec::size_bound(&message)?;
        let live = peer.live().ok_or(SendError::Down(to))?;
        peer.push(&live, bytes, message)
    }

    /// Queue a message, and make a link for it if there is none and it is held [`Hold::OnDemand`]. Never waits: where no link can
    /// be made, [`LinkHandler::unreached`] says so later.
    ///
    /// # Errors
    /// As [`Links::send`]; and when too much waits for the link.
    pub fn reach(&self, to: ServerId, message: PeerMessage) -> Result<(), SendError> {
        let peer = self.shared.peer(to).ok_or(SendError::Unknown(to))?;
        let bytes = codec::size_bound(&message)?;
        peer.reach(bytes, message)
    }

    /// Begin to send a snapshot. Blocks, as all of [`SnapshotSender`] does: for plain threads.
    ///
    /// # Errors
    /// When there is no link, or no room for one more within [`SNAPSHOT_STALL`].
    pub fn open_snapshot(&self, to: ServerId, head: RaftMessage) -> Result<SnapshotSender, SnapshotError> {
        let down = SnapshotError::Down(to);
        let Some(peer) = self.shared.peer(to) else { return Err(down) };
        let Some(live) = peer.live() else { return Err(down) };
        if self.running.lock().is_none() {
            return Err(down);
        }
        SnapshotSender::open(&self.shared, &peer, live, head)
    }

    /// Use other certificates from now on, for every handshake to come. A link stays up if the new authority vouches for the
    /// peer's certificate, too; else it ends.
    ///
    /// # Errors
    /// When they cannot be used; then nothing changes.
    pub fn reload(&self, files: &TlsFiles) -> Result<(), TlsError> {
        let identity = Arc::new(Identity::new(files, &self.shared.names)?);
        *self.shared.identity.write() = identity.clone();
        for (id, peer) in self.shared.peers.read().iter() {
            let Some(live) = peer.live() else { continue };
            if let Err(fault) = identity.still_trusts(live.chain(), &self.shared.names, *id) {
                live.close(DownReason::Untrusted(fault.detail));
            }
        }
        Ok(())
    }

    /// Until when this server's certificate is valid.
    pub fn certificate_expires(&self) -> SystemTime {
        self.shared.identity().expires()
    }

    /// Refusals since the start, by reason.
    pub fn refusals(&self) -> Vec<(RefusalReason, u64)> {
        self.shared.refusals.counts()
    }

    /// How every peer's link is.
    pub fn facts(&self) -> Vec<LinkFacts> {
        let up = |live: Arc<Live>| UpFacts {
            addr: live.connection.remote_address(),
            round_trip: live.connection.rtt(),
            queued_bytes: live.queues.iter().map(queue::Queue::bytes).sum(),
        };
        let facts = |peer: &Arc<Peer>| LinkFacts {
            server: peer.id,
            addr: peer.addr.clone(),
            hold: peer.hold(),
            up: peer.live().map(up),
            overflows: peer.overflows.load(Ordering::Relaxed),
        };
        self.shared.peers.read().values().map(facts).collect()
    }

    /// End all links, telling the peers, and wait until they are told and [`LinkHandler::link_down`] was called for each; a second at
    /// most. What waits to be sent is dropped.
    pub fn stop(&self) {
        let Some(Running { runtime, bulk, alive, mut ended }) = self.running.lock().take() else { return };
        drop(alive);
        self.shared.stop.send_replace(true);
        self.shared.endpoint.close(link::CLOSE_STOPPING, DownReason::Stopping.to_string().as_bytes());
        let endpoint = self.shared.endpoint.clone();
        let (told, heard) = std::sync::mpsc::channel::<()>();
        runtime.spawn(async move {
            let _told = told;
            ended.recv().await;
            endpoint.wait_idle().await;
        });
        // Whether it ends by the word or by the clock, it ends.
        let _ = heard.recv_timeout(GOODBYE_WITHIN);
        runtime.shutdown_background();
        bulk.shutdown_background();
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        if let Some(running) = self.running.lock().take() {
            self.shared.stop.send_replace(true);
            self.shared.endpoint.close(link::CLOSE_STOPPING, DownReason::Stopping.to_string().as_bytes());
            running.runtime.shutdown_background();
            running.bulk.shutdown_background();
        }
    }
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Links").field("local", &self.local).finish_non_exhaustive()
    }
}
