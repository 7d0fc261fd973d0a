//! One link while it lives: a connection that both ends have judged, and three lanes each way.
//!
//! A lane is a stream in one direction. Its first byte says which it is; frames follow ([`codec`]). The first lane of the other
//! end is also its hello: in TLS 1.3 the dialler learns only by what comes behind the handshake that it was let in.

use super::peer::{Peer, Turn};
use super::queue::Queue;
use super::refusal::{Fault, Refusal, RefusalReason, said};
use super::{DownReason, Shared};
use crate::peer::{Lane, PeerMessage, ServerId, codec};
use bytes::BytesMut;
use parking_lot::Mutex;
use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};
use rustls::pki_types::CertificateDer;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};

/// Both ends have said hello by then, or the link is given up.
pub(super) const HELLO_WITHIN: Duration = Duration::from_secs(2);
/// Encoded at once, bytes, and one message more.
const WRITE_BYTES: usize = 64 << 10;
/// Taken from a stream at once, bytes at most.
const READ_BYTES: usize = 256 << 10;

/// How a connection is closed: numbers of our own in QUIC.
pub(super) const CLOSE_STOPPING: VarInt = VarInt::from_u32(0);
const CLOSE_REPLACED: VarInt = VarInt::from_u32(1);
const CLOSE_REFUSED: VarInt = VarInt::from_u32(2);
const CLOSE_UNTRUSTED: VarInt = VarInt::from_u32(3);
const CLOSE_SILENT: VarInt = VarInt::from_u32(4);
const CLOSE_REMOVED: VarInt = VarInt::from_u32(5);
const CLOSE_UNUSED: VarInt = VarInt::from_u32(6);
/// The TLS alert that says: the certificate is good, and its server is none of ours (RFC 8446, section 6.2).
const ALERT_ACCESS_DENIED: u64 = 0x100 + 49;

/// First byte of a lane.
fn tag(lane: Lane) -> u8 {
    lane as u8
}

fn priority(lane: Lane) -> i32 {
    match lane {
        Lane::Consensus => 3,
        Lane::Append => 2,
        Lane::Request => 1,
    }
}

/// Where others reach a link.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) connection: Connection,
    pub(super) queues: [Queue; 3],
    chain: Vec<CertificateDer<'static>>,
    /// Why it ends, as the first said that ended it.
    closing: Mutex<Option<DownReason>>,
    /// A message went either way since this was asked last.
    used: AtomicBool,
}

impl Live {
    pub(super) fn queue(&self, lane: Lane) -> &Queue {
        &self.queues[tag(lane) as usize]
    }

    pub(super) fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    pub(super) fn note_use(&self) {
        self.used.store(true, Ordering::Relaxed);
    }

    /// Since the last time that this was asked?
    pub(super) fn was_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// The peer does what it must not, on the link or beside it: say so once, and end the link.
    pub(super) fn refuse(&self, shared: &Shared, server: ServerId, fault: Fault) {
        let why = DownReason::Refused(fault.reason, fault.detail.clone());
        if self.claim(&why) {
            shared.refuse(Some(server), self.connection.remote_address(), fault);
        }
        self.close(why);
    }

    /// The task of a lane is over, and its stream is still there: the peer must not see that end first.
    fn lane_ended(&self, shared: &Shared, server: ServerId, ended: Result<Infallible, Ended>) {
        match ended {
            Err(Ended::Fault(fault)) => self.refuse(shared, server, fault),
            // The connection tells who waits for it, too.
            Err(Ended::Connection) => {}
        }
    }

    /// End the link; the first to do so says why. Before its streams end: who sees one of those end while the link lasts takes it
    /// for a fault.
    pub(super) fn close(&self, why: DownReason) {
        let text = why.to_string();
        let code = match why {
            DownReason::Replaced => CLOSE_REPLACED,
            DownReason::Untrusted(_) => CLOSE_UNTRUSTED,
            DownReason::Refused(..) => CLOSE_REFUSED,
            DownReason::Silent => CLOSE_SILENT,
            DownReason::Removed | DownReason::RemovedHere => CLOSE_REMOVED,
            DownReason::Unused => CLOSE_UNUSED,
            DownReason::Stopping | DownReason::ByPeer(_) | DownReason::Lost(_) => CLOSE_STOPPING,
        };
        self.claim(&why);
        self.connection.close(code, text.as_bytes());
    }

    /// From now on this is why it ends, unless somebody ended it before. Was nobody there?
    fn claim(&self, why: &DownReason) -> bool {
        let mut closing = self.closing.lock();
        let is_first = closing.is_none();
        closing.get_or_insert_with(|| why.clone());
        is_first
    }
}

/// Why a task of a link ends.
#[derive(Debug)]
pub(super) enum Ended {
    /// The connection is gone, and says why itself.
    Connection,
    /// The peer does what it must not.
    Fault(Fault),
}

impl Ended {
    pub(super) fn bad_stream(detail: &str) -> Ended {
        Ended::Fault(Fault::new(RefusalReason::BadStream, detail))
    }
}

/// Drive a judged connection to `peer` until it ends. Returns whether the link was up at all.
pub(super) async fn run(shared: &Arc<Shared>, peer: &Arc<Peer>, connection: Connection) -> bool {
    let dialled = connection.side().is_client();
    let live = Arc::new(Live {
        queues: Lane::ALL.map(Queue::new),
        chain: chain(&connection),
        closing: Mutex::new(None),
        used: AtomicBool::new(true),
        connection: connection.clone(),
    });
    let mut ours = Vec::with_capacity(Lane::ALL.len());
    let first = match timeout(HELLO_WITHIN, hello(&connection, &mut ours)).await {
        Ok(Ok(first)) => first,
        Ok(Err(Ended::Fault(fault))) => {
            live.refuse(shared, peer.id, fault);
            return false;
        }
        Ok(Err(_)) => {
            if let Some(fault) = connection.close_reason().and_then(|e| by_peer(&e)) {
                shared.refuse(Some(peer.id), connection.remote_address(), fault);
            }
            return false;
        }
        Err(_) => {
            live.close(DownReason::Silent);
            return false;
        }
    };
    // The newest connection is the one that the other end uses: an older one is a leftover of its last run.
    let Some(turn) = peer.take_turn(&live, dialled == (peer.id < shared.names.own)).await else {
        live.close(DownReason::Replaced);
        return false;
    };
    // A reload may have come between the handshake and now.
    if let Err(fault) = shared.identity().still_trusts(&live.chain, &shared.names, peer.id) {
        live.close(DownReason::Untrusted(fault.detail));
    }
    // And so may have its removal.
    if *peer.gone.borrow() {
        live.close(DownReason::RemovedHere);
    }
    shared.handler.link_up(peer.id);
    drive(shared, peer, &turn, &live, ours, first).await;
    let why = live.closing.lock().take().expect("whoever ends a link says why");
    peer.leave(&turn, &live, &why);
    if why == DownReason::Unused {
        tracing::debug!(server = peer.id, "the link is closed: {why}");
    } else {
        tracing::info!(server = peer.id, addr = %connection.remote_address(), "the link is down: {why}");
    }
    shared.handler.link_down(peer.id, why);
    true
}

/// Open our lanes and announce them, and return the first of the other end. What was opened is in `ours` also when that fails, so
/// that the link can be closed before it ends.
async fn hello(connection: &Connection, ours: &mut Vec<(Lane, SendStream)>) -> Result<RecvStream, Ended> {
    for lane in Lane::ALL {
        let mut stream = connection.open_uni().await.map_err(|_| Ended::Connection)?;
        let _ = stream.set_priority(priority(lane));
        stream.write_all(&[tag(lane)]).await.map_err(|_| Ended::Connection)?;
        ours.push((lane, stream));
    }
    let mut first = connection.accept_uni().await.map_err(|_| Ended::Connection)?;
    if read_tag(&mut first).await? != tag(Lane::Consensus) {
        return Err(Ended::bad_stream("its first stream is not the consensus lane"));
    }
    Ok(first)
}

/// Until the link is closed; [`Live::closing`] says why.
async fn drive(
    shared: &Arc<Shared>,
    peer: &Arc<Peer>,
    turn: &Turn,
    live: &Arc<Live>,
    ours: Vec<(Lane, SendStream)>,
    mut first: RecvStream,
) {
    let connection = &live.connection;
    let mut tasks = JoinSet::new();
    for (lane, mut stream) in ours {
        let (shared, live, server) = (shared.clone(), live.clone(), peer.id);
        tasks.spawn(async move {
            let ended = write(live.queue(lane), &mut stream).await;
            live.lane_ended(&shared, server, ended);
        });
    }
    let seen = Arc::new(AtomicU8::new(1 << tag(Lane::Consensus)));
    {
        let (shared, peer, live) = (shared.clone(), peer.clone(), live.clone());
        tasks.spawn(async move {
            let ended = read(&shared, &peer, &live, Lane::Consensus, &mut first).await;
            live.lane_ended(&shared, peer.id, ended);
        });
    }
    let mut looks = interval_at(Instant::now() + shared.timers.unused, shared.timers.unused);
    // Two looks at once, after a pause of the machine, would find a link unused that is not.
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut stop = shared.stop.subscribe();
    let why = loop {
        tokio::select! {
            accepted = connection.accept_uni() => match accepted {
                Ok(mut stream) => {
                    let (shared, peer, live) = (shared.clone(), peer.clone(), live.clone());
                    let seen = seen.clone();
                    tasks.spawn(async move {
                        let ended = receive(&shared, &peer, &live, &seen, &mut stream).await;
                        live.lane_ended(&shared, peer.id, ended);
                    });
                }
                Err(e) => break down(&e),
            },
            Some(ended) = tasks.join_next() => if let Err(panicked) = ended {
                std::panic::resume_unwind(panicked.into_panic());
            },
            _ = looks.tick() => if peer.retire(turn, live) { break DownReason::Unused },
            () = super::stopped(&mut stop) => break DownReason::Stopping,
        }
    };
    live.close(why);
    // Nothing is delivered behind the word that the link is down.
    tasks.shutdown().await;
}

/// Send what the queue has, until the connection ends.
async fn write(queue: &Queue, stream: &mut SendStream) -> Result<Infallible, Ended> {
    let mut messages: Vec<PeerMessage> = Vec::new();
    let mut out = BytesMut::new();
    loop {
        queue.take(WRITE_BYTES, &mut messages).await;
        for message in messages.drain(..) {
            codec::encode(&message, &mut out);
        }
        stream.write_chunk(out.split().freeze()).await.map_err(|e| match e {
            quinn::WriteError::Stopped(_) => Ended::bad_stream("it stopped a lane"),
            _ => Ended::Connection,
        })?;
    }
}

/// A stream of the other end: what is it?
async fn receive(
    shared: &Arc<Shared>,
    peer: &Arc<Peer>,
    live: &Live,
    seen: &AtomicU8,
    stream: &mut RecvStream,
) -> Result<Infallible, Ended> {
    let first = match timeout(super::SNAPSHOT_STALL, read_tag(stream)).await {
        Ok(first) => first?,
        Err(_) => return Err(Ended::bad_stream("a stream without a beginning")),
    };
    let Some(lane) = Lane::ALL.into_iter().find(|lane| tag(*lane) == first) else {
        return Err(Ended::bad_stream("a stream of no known purpose"));
    };
    if seen.fetch_or(1 << first, Ordering::Relaxed) & (1 << first) != 0 {
        return Err(Ended::bad_stream("a lane that is there already"));
    }
    read(shared, peer, live, lane, stream).await
}

async fn read_tag(stream: &mut RecvStream) -> Result<u8, Ended> {
    let mut first = [0];
    match stream.read_exact(&mut first).await {
        Ok(()) => Ok(first[0]),
        Err(quinn::ReadExactError::ReadError(quinn::ReadError::ConnectionLost(_))) => Err(Ended::Connection),
        Err(quinn::ReadExactError::ReadError(_)) => Err(Ended::bad_stream("it ended a lane")),
        Err(quinn::ReadExactError::FinishedEarly(_)) => Err(Ended::bad_stream("an empty stream")),
    }
}

/// Deliver the messages of a lane, until the connection ends.
async fn read(
    shared: &Shared,
    peer: &Peer,
    live: &Live,
    lane: Lane,
    stream: &mut RecvStream,
) -> Result<Infallible, Ended> {
    let mut received = BytesMut::new();
    loop {
        while let Some(body) =
            codec::take(&mut received, lane.frame_bytes_max()).map_err(|e| Ended::Fault(e.into()))?
        {
            let message = codec::decode(&body, lane).map_err(|e| Ended::Fault(e.into()))?;
            live.note_use();
            shared.handler.message(peer.id, message);
        }
        match stream.read_chunk(READ_BYTES, true).await {
            Ok(Some(chunk)) => received.extend_from_slice(&chunk.bytes),
            Err(quinn::ReadError::ConnectionLost(_)) => return Err(Ended::Connection),
            Ok(None) | Err(_) => return Err(Ended::bad_stream("it ended a lane")),
        }
    }
}

/// The certificates that the other end showed.
fn chain(connection: &Connection) -> Vec<CertificateDer<'static>> {
    let shown =
        connection.peer_identity().and_then(|shown| shown.downcast::<Vec<CertificateDer<'static>>>().ok());
    *shown.expect("nobody is let in without a certificate")
}

fn down(e: &ConnectionError) -> DownReason {
    match e {
        ConnectionError::ApplicationClosed(close) if close.error_code == CLOSE_REMOVED => DownReason::Removed,
        ConnectionError::ApplicationClosed(close) if close.error_code == CLOSE_UNUSED => DownReason::Unused,
        ConnectionError::ApplicationClosed(close) => DownReason::ByPeer(said(&close.reason)),
        ConnectionError::TimedOut => DownReason::Silent,
        ConnectionError::LocallyClosed => DownReason::Stopping,
        other => DownReason::Lost(said(other.to_string().as_bytes())),
    }
}

/// Did the other end refuse us in the handshake?
pub(super) fn by_peer(e: &ConnectionError) -> Option<Fault> {
    match e {
        ConnectionError::ConnectionClosed(close) if u64::from(close.error_code) == ALERT_ACCESS_DENIED => {
            Some(Fault::new(RefusalReason::UnknownToPeer, "it knows no such server as this one"))
        }
        ConnectionError::ConnectionClosed(close) if is_alert(u64::from(close.error_code)) => {
            let detail =
                format!("it refused our certificate or TLS: {} ({})", said(&close.reason), close.error_code);
            Some(Fault::new(RefusalReason::RefusedByPeer, detail))
        }
        _ => None,
    }
}

/// Is this one of QUIC's error codes for a TLS alert (RFC 9001, section 4.8)?
pub(super) fn is_alert(code: u64) -> bool {
    (0x100..0x200).contains(&code)
}

impl Shared {
    pub(super) fn refuse(&self, server: Option<u8>, addr: std::net::SocketAddr, fault: Fault) {
        let Fault { reason, detail } = fault;
        let refusal = Refusal { reason, server, addr, detail };
        self.refusals.record(&refusal);
        self.handler.refused(refusal);
    }
}
