//! Both ways to a connection: dialling servers with lower ids, again and again, and letting in those with higher ones; and dialling
//! whomever there is something to say to, where there is no link all the time ([`Hold`]).

use super::link::{self, by_peer, is_alert};
use super::peer::Peer;
use super::refusal::{Fault, RefusalReason};
use super::tls::{self, Purpose};
use super::{Alive, Hold, LinkTimers, Shared, bulk};
use quinn::{ConnectionError, Incoming};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

/// A name is looked up within this time, or the attempt has failed.
const RESOLVE_WITHIN: Duration = Duration::from_secs(2);
/// Addresses of one name that are tried, at most.
const ADDRESSES_MAX: usize = 8;
/// A link that lived for so long was a good one: the next attempt comes soon.
const STEADY: Duration = Duration::from_secs(1);
/// Handshakes of diallers under way, at most; over it they are refused.
pub const HANDSHAKES_MAX: usize = 64;
/// Over so many handshakes under way, a dialler must show that its address is its own.
const HANDSHAKES_UNPROVEN_MAX: usize = 16;
/// The TLS alert that says: no certificate (RFC 8446, section 6).
const ALERT_CERTIFICATE_REQUIRED: u64 = 0x100 + 116;
/// A server that should have been dialled for so many times the longest pause between attempts dials itself
/// ([`Hold::EitherWay`]); or asks whether it is known, if it has no link at all.
const KNOCK_AFTER_PAUSES: u32 = 8;
/// Who refuses us says so by then.
const KNOCK_ANSWER_WITHIN: Duration = Duration::from_millis(500);
/// What is named in the handshake; certificates are judged by the id that is wanted instead.
const SERVER_NAME: &str = "warren";

/// Times between attempts: doubling from the least to the most, each shortened by chance up to a half, so that servers that
/// lost each other at one moment do not meet at one moment.
#[derive(Debug)]
struct Backoff {
    timers: LinkTimers,
    next: Duration,
    seed: u64,
}

impl Backoff {
    fn new(timers: LinkTimers, seed: u64) -> Backoff {
        Backoff { timers, next: timers.redial_min, seed }
    }

    fn reset(&mut self) {
        self.next = self.timers.redial_min;
    }

    fn pause(&mut self) -> Duration {
        let whole = self.next;
        self.next = (self.next * 2).min(self.timers.redial_max);
        // splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
        self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let share = ((z ^ (z >> 31)) >> 40) as u32;
        whole / 2 + whole / 2 * (share >> 8) / (1 << 16)
    }
}

/// Why there is to be a connection now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    /// There always is one.
    Kept,
    /// Something waits for it.
    Asked,
    /// The other end should have dialled long ago.
    Overdue,
}

/// Make links to a peer whenever it is this server that has to, until all stops or it is no peer any more.
pub(super) async fn dial(shared: Arc<Shared>, peer: Arc<Peer>, seed: u64) {
    let mut backoff = Backoff::new(shared.timers, seed);
    let mut stop = shared.stop.subscribe();
    let mut gone = peer.gone.subscribe();
    let mut last_failure = String::new();
    loop {
        let attempted = tokio::select! {
            attempted = next(&shared, &peer) => attempted,
            () = super::stopped(&mut stop) => return,
            () = super::stopped(&mut gone) => return,
        };
        match attempted {
            Ok(None) => continue,
            Ok(Some(connection)) => {
                let since = Instant::now();
                if link::run(&shared, &peer, connection).await {
                    last_failure.clear();
                    if since.elapsed() >= STEADY {
                        backoff.reset();
                    }
                }
            }
            Err(failure) => {
                // Said once, until it changes.
                if failure != last_failure {
                    tracing::info!(
                        server = peer.id,
                        addr = peer.addr,
                        "cannot reach a peer: {failure}; trying again{}",
                        if peer.hold() == Hold::OnDemand { " when there is need" } else { "" }
                    );
                    last_failure = failure;
                }
                if peer.give_up() {
                    shared.handler.unreached(peer.id);
                }
            }
        }
        tokio::select! {
            () = sleep(backoff.pause()) => {}
            () = super::stopped(&mut stop) => return,
            () = super::stopped(&mut gone) => return,
        }
    }
}

/// Wait until a connection is due, and make it; `None` when it must not be a link.
async fn next(shared: &Shared, peer: &Peer) -> Result<Option<quinn::Connection>, String> {
    match due(shared, peer).await {
        Due::Kept | Due::Asked => attempt(shared, peer).await.map(Some),
        Due::Overdue => Ok(knock(shared, peer).await),
    }
}

async fn due(shared: &Shared, peer: &Peer) -> Due {
    let dials = peer.id < shared.names.own;
    loop {
        let linked = peer.live().is_some();
        match peer.hold() {
            Hold::Always | Hold::EitherWay if dials && !linked => return Due::Kept,
            Hold::OnDemand if !linked && peer.is_wanted() => return Due::Asked,
            Hold::Always | Hold::EitherWay if !dials && !linked => {
                let overdue = sleep(shared.timers.redial_max * KNOCK_AFTER_PAUSES);
                tokio::select! {
                    () = peer.changed() => {}
                    () = overdue => if peer.live().is_none() {
                        match peer.hold() {
                            Hold::EitherWay => return Due::Overdue,
                            _ if !shared.has_links() => return Due::Overdue,
                            _ => {}
                        }
                    },
                }
            }
            _ => peer.changed().await,
        }
    }
}

/// A server with a higher id should have dialled, and has not: it may be down, or hold the link otherwise than we do, and then lets us
/// in. Or it knows no such server any more, and would never say so: one that is dialled refuses that, too, as going the
/// wrong way, but for the reason that matters.
async fn knock(shared: &Shared, peer: &Peer) -> Option<quinn::Connection> {
    let connection = attempt(shared, peer).await.ok()?;
    // What the other end says of our certificate comes behind the end of our own handshake.
    let Ok(closed) = timeout(KNOCK_ANSWER_WITHIN, connection.closed()).await else { return Some(connection) };
    let fault = by_peer(&closed);
    if let Some(fault) = fault.filter(|fault| fault.reason == RefusalReason::UnknownToPeer) {
        shared.refuse(Some(peer.id), connection.remote_address(), fault);
    }
    None
}

/// One connection, judged; or why not, in words. Refusals are counted here.
async fn attempt(shared: &Shared, peer: &Peer) -> Result<quinn::Connection, String> {
    let found = match timeout(RESOLVE_WITHIN, tokio::net::lookup_host(&*peer.addr)).await {
        Ok(Ok(found)) => found,
        Ok(Err(e)) => return Err(format!("its name cannot be resolved: {e}")),
        Err(_) => return Err("its name cannot be resolved in time".to_owned()),
    };
    let usable = |addr: &SocketAddr| shared.local.is_ipv6() || addr.is_ipv4();
    let found: Vec<SocketAddr> = found.filter(usable).take(ADDRESSES_MAX).collect();
    let mut failure = "its name has no address that can be reached from ours".to_owned();
    for addr in found {
        match connect(shared, peer, addr, Purpose::Link).await {
            Ok(connection) => return Ok(connection),
            Err(why) => failure = format!("{addr}: {why}"),
        }
    }
    Err(failure)
}

/// One connection to this address, judged; or why not, in words. Refusals are counted here.
pub(super) async fn connect(
    shared: &Shared,
    peer: &Peer,
    addr: SocketAddr,
    purpose: Purpose,
) -> Result<quinn::Connection, String> {
    let (crypto, verdict) = tls::dialling(&shared.identity(), &shared.names, peer.id, purpose);
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(crypto)
        .expect("the provider has QUIC's first cipher");
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(shared.transport(purpose).clone());
    if purpose == Purpose::Snapshot {
        config.initial_dst_cid_provider(Arc::new(bulk::marked_id));
    }
    let connecting = shared.endpoint.connect_with(config, addr, SERVER_NAME).map_err(|e| e.to_string())?;
    let e = match timeout(shared.timers.handshake, connecting).await {
        Ok(Ok(connection)) => return Ok(connection),
        Ok(Err(e)) => e,
        Err(_) => return Err("no answer".to_owned()),
    };
    let verdict = verdict.take();
    let server = matches!(verdict, Some(Ok(_))).then_some(peer.id);
    let fault = match verdict {
        Some(Err(fault)) => fault,
        _ => match by_peer(&e).or_else(|| other_fault(&e)) {
            Some(fault) => fault,
            None => return Err(e.to_string()),
        },
    };
    let detail = fault.detail.clone();
    shared.refuse(server, addr, fault);
    Err(detail)
}

/// Let servers in that may dial, until the endpoint is closed.
pub(super) async fn listen(shared: Arc<Shared>, alive: Alive) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    while let Some(incoming) = shared.endpoint.accept().await {
        let addr = incoming.remote_address();
        let Ok(permit) = handshakes.clone().try_acquire_owned() else {
            shared.refuse(
                None,
                addr,
                Fault::new(RefusalReason::TooManyHandshakes, "too many handshakes are under way"),
            );
            incoming.refuse();
            continue;
        };
        let under_way = HANDSHAKES_MAX - handshakes.available_permits();
        if under_way > HANDSHAKES_UNPROVEN_MAX && incoming.may_retry() {
            let _ = incoming.retry();
            continue;
        }
        let (shared, alive) = (shared.clone(), alive.clone());
        // Where a connection is accepted, it runs.
        let (purpose, here) = (bulk::purpose(&incoming), Handle::current());
        let thread = match purpose {
            Purpose::Link => here,
            Purpose::Snapshot => shared.bulk.clone(),
        };
        thread.spawn(async move {
            let _alive = alive;
            let Some((peer, connection)) = let_in(&shared, incoming, purpose).await else { return };
            drop(permit);
            match purpose {
                Purpose::Link => {
                    link::run(&shared, &peer, connection).await;
                }
                Purpose::Snapshot => bulk::receive(&shared, &peer, connection).await,
            }
        });
    }
}

/// A dialler that is who it must be.
async fn let_in(
    shared: &Shared,
    incoming: Incoming,
    purpose: Purpose,
) -> Option<(Arc<Peer>, quinn::Connection)> {
    let addr = incoming.remote_address();
    let (config, verdict) = server_config(shared, purpose);
    let outcome = match incoming.accept_with(Arc::new(config)) {
        Ok(connecting) => timeout(shared.timers.handshake, connecting).await,
        Err(e) => Ok(Err(e)),
    };
    let fault = match (outcome, verdict.take()) {
        (Ok(Ok(connection)), Some(Ok(server))) => {
            match shared.peer(server) {
                Some(peer) => return Some((peer, connection)),
                // It left between the judgement and now.
                None => Fault::new(
                    RefusalReason::UnknownServer,
                    format!("server {server} is not configured here"),
                ),
            }
        }
        (_, Some(Err(fault))) => fault,
        (Ok(Ok(_)), None) => unreachable!("no handshake ends without its judge"),
        (Ok(Err(ConnectionError::TimedOut)) | Err(_), _) => {
            Fault::new(RefusalReason::HandshakeTimeout, "it did not finish the handshake in time")
        }
        (Ok(Err(e)), _) => by_peer(&e).or_else(|| other_fault(&e))?,
    };
    shared.refuse(None, addr, fault);
    None
}

/// For one dialler.
fn server_config(shared: &Shared, purpose: Purpose) -> (quinn::ServerConfig, tls::Verdict) {
    let (crypto, verdict) = tls::listening(&shared.identity(), &shared.names, purpose);
    (super::endpoint::server_config(crypto, shared.transport(purpose)), verdict)
}

/// A handshake that failed before a certificate was judged.
fn other_fault(e: &ConnectionError) -> Option<Fault> {
    match e {
        ConnectionError::TransportError(e) if u64::from(e.code) == ALERT_CERTIFICATE_REQUIRED => {
            Some(Fault::new(RefusalReason::NoCertificate, "it showed no certificate"))
        }
        ConnectionError::TransportError(e) if is_alert(u64::from(e.code)) => {
            Some(Fault::new(RefusalReason::Protocol, format!("it does not speak as we do: {e}")))
        }
        ConnectionError::TransportError(e) => {
            Some(Fault::new(RefusalReason::Protocol, format!("it breaks QUIC's rules: {e}")))
        }
        ConnectionError::VersionMismatch => {
            Some(Fault::new(RefusalReason::Protocol, "it speaks another version of QUIC"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_limit_and_differ() {
        let timers = LinkTimers::default();
        let mut one = Backoff::new(timers, 1);
        let mut other = Backoff::new(timers, 2);
        let pauses: Vec<Duration> = (0..12).map(|_| one.pause()).collect();
        let others: Vec<Duration> = (0..12).map(|_| other.pause()).collect();
        assert_ne!(pauses, others);
        let mut whole = timers.redial_min;
        for pause in pauses {
            assert!(pause >= whole / 2 && pause < whole, "{pause:?} of {whole:?}");
            whole = (whole * 2).min(timers.redial_max);
        }
        assert_eq!(one.next, timers.redial_max);
        one.reset();
        assert!(one.pause() < timers.redial_min);
    }
}
