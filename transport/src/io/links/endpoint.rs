//! QUIC as we use it: one UDP socket, the windows and times of its connections.

use super::tls::Purpose;
use super::{LinkTimers, SNAPSHOT_STALL, dial};
use crate::peer::Lane;
use quinn::congestion::CubicConfig;
use quinn::{
    AckFrequencyConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TokioRuntime,
    TransportConfig, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of one stream that the receiver has not read yet, at most.
pub const STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// Streams of a link in each direction, at most.
const LANES: u32 = Lane::ALL.len() as u32;
/// Asked from the kernel for each direction of the socket; it may give less.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// Until a round trip was measured. QUIC's own first guess, 333 ms, would make a lost first packet cost a second.
const FIRST_RTT: Duration = Duration::from_millis(50);
/// The longest UDP payload that path discovery tries and that a peer may send, bytes. It fits jumbo frames; and ten together,
/// which is what quinn gives the kernel at once, fit the 65,507 that the kernel takes. With more it would take none of them.
pub(super) const MTU_BYTES_MAX: u16 = 6_550;
/// What may be under way on a connection that knows nothing of its path yet, bytes: ten datagrams, as QUIC recommends (RFC 9002,
/// section 7.2), of the longest. quinn counts with those it begins with, of which the later ones fill as much with two; and what
/// does not fit is not sent when a connection ends, not even that it ends.
const FIRST_WINDOW_BYTES: u64 = 10 * MTU_BYTES_MAX as u64;
/// Datagrams that are received before they are acknowledged, at most. With QUIC's own two, a fifth of what three servers sent
/// under a load of writes was acknowledgements and nothing else, each by a system call.
const UNACKNOWLEDGED_MAX: u32 = 10;
/// And they wait for it no longer than this, which is also what a sender adds to the round trip before it sends again.
const ACK_DELAY_MAX: Duration = Duration::from_millis(5);
/// Between keep-alives, as a share of the idle timeout: two may be lost.
const KEEP_ALIVES: u32 = 3;
/// Bytes of a dialler's first packets that are kept until its handshake begins, at most.
const INCOMING_BYTES_MAX: u64 = 64 << 10;
/// The same for all diallers.
const INCOMING_BYTES_TOTAL_MAX: u64 = 4 << 20;
/// What a key is derived for.
const CONNECTION_IDS: &[u8] = b"warren connection ids";

pub(super) fn transport(timers: &LinkTimers, purpose: Purpose) -> TransportConfig {
    let (streams, idle) = match purpose {
        Purpose::Link => (LANES, timers.idle),
        // Its thread works when no other does, which may be rarely. Whether the other server is there, the link knows.
        Purpose::Snapshot => (1, SNAPSHOT_STALL),
    };
    // Every stream may fill its own window, so that one that stands still never takes another's room.
    let window_bytes = streams * STREAM_WINDOW_BYTES;
    let mut transport = TransportConfig::default();
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(MTU_BYTES_MAX);
    let mut congestion = CubicConfig::default();
    congestion.initial_window(FIRST_WINDOW_BYTES);
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(UNACKNOWLEDGED_MAX)).max_ack_delay(Some(ACK_DELAY_MAX));
    transport
        .max_concurrent_uni_streams(VarInt::from_u32(streams))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(IdleTimeout::try_from(idle).expect("a minute fits")))
        .keep_alive_interval(Some(idle / KEEP_ALIVES))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(window_bytes))
        // What is not acknowledged: above what the receiver's window lets through.
        .send_window(2 * u64::from(window_bytes))
        .initial_rtt(FIRST_RTT)
        .mtu_discovery_config(Some(discovery))
        .ack_frequency_config(Some(acks))
        .congestion_controller_factory(Arc::new(congestion));
    transport
}

pub(super) fn server_config(crypto: rustls::ServerConfig, transport: &Arc<TransportConfig>) -> ServerConfig {
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(crypto)
        .expect("the provider has QUIC's first cipher");
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(transport.clone())
        .migration(false)
        .max_incoming(dial::HANDSHAKES_MAX)
        .incoming_buffer_size(INCOMING_BYTES_MAX)
        .incoming_buffer_size_total(INCOMING_BYTES_TOTAL_MAX);
    config
}

/// Bind the socket and drive it on the runtime that is entered.
pub(super) fn open(
    addr: SocketAddr,
    server: ServerConfig,
    reset_key: Arc<ring::hmac::Key>,
) -> io::Result<quinn::Endpoint> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Less than asked for is slower, and works.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.bind(&addr.into())?;
    // Ids of connections that this server gave out in its last run are known as its own, so that it answers them with a reset.
    let digest = ring::hmac::sign(&reset_key, CONNECTION_IDS);
    let key =
        digest.as_ref().first_chunk().map(|first| u64::from_le_bytes(*first)).expect("a digest is longer");
    let mut config = EndpointConfig::new(reset_key);
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(key)));
    // Each end tells the other; unsaid, it is what fits Ethernet's ordinary frames.
    config.max_udp_payload_size(MTU_BYTES_MAX).expect("more than QUIC asks for");
    quinn::Endpoint::new(config, Some(server), socket.into(), Arc::new(TokioRuntime))
}
