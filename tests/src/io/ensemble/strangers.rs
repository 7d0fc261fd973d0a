//! Who has no business at the peers' ports, and what they send.

use super::Outcome;
use super::servers::{Servers, id};
use crate::io::daemon::eventually;
use crate::sim::Dice;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use warren_server::entropy::Entropy as _;
use warren_transport::io::certs;
use warren_transport::io::links::{
    DownReason, Hold, LinkHandler, LinkTimers, Links, LinksConfig, PeerAddr, Refusal, SnapshotReceiver,
    TlsFiles,
};
use warren_transport::peer::{PeerMessage, ServerId};

/// Datagrams of garbage for each server.
const GARBAGE: usize = 300;
/// The longest that UDP carries, bytes.
const DATAGRAM_BYTES_MAX: usize = 65_507;

/// Noise, things that look like QUIC, and datagrams as large as can be.
pub(super) fn throw_garbage(servers: &Servers, dice: &mut Dice) -> Outcome<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    for peer in &servers.peers {
        for n in 0..GARBAGE {
            let mut datagram = vec![0; [0, 1, 20, 500, 1_200, 1_500][n % 6]];
            dice.fill(&mut datagram);
            if datagram.len() >= 1_200 {
                // The first packet of a connection, in this version of QUIC or in one that is not known.
                datagram[0] = 0xc3;
                datagram[1..5].copy_from_slice(if n % 2 == 0 { &[0, 0, 0, 1] } else { &[9, 9, 9, 9] });
                datagram[5] = 8;
            }
            // A full buffer loses some of it, as it would anybody's.
            let _ = socket.send_to(&datagram, peer);
        }
        let _ = socket.send_to(&vec![0xc3; DATAGRAM_BYTES_MAX], peer);
    }
    Ok(())
}

/// Handshakes with the certificate of another authority, and with one of ours for an id that nobody has: each server that is
/// knocked at refuses and counts both.
pub(super) fn knock(servers: &Servers, folder: &Path) -> Outcome<()> {
    let stranger = servers.daemons.len();
    let elsewhere = folder.join("another-authority");
    if !elsewhere.exists() {
        certs::init(&elsewhere, "trial")?;
    }
    // It believes the servers' authority beside its own, so that it is they who refuse.
    let ca = folder.join("both-authorities.pem");
    let read = |authority: &Path| std::fs::read_to_string(authority.join(certs::CA_FILE));
    std::fs::write(&ca, format!("{}{}", read(&elsewhere)?, read(servers.authority())?))?;
    for authority in [&elsewhere, servers.authority()] {
        let cert = folder.join("stranger.pem");
        certs::write_secret(&cert, &certs::issue(authority, id(stranger))?)?;
        let before = servers.daemons.iter().map(refused).collect::<Outcome<Vec<f64>>>()?;
        let config = LinksConfig {
            on_snapshot_thread: || {},
            ensemble: "trial".into(),
            server_id: id(stranger),
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            peers: (servers.peers.iter().enumerate())
                .map(|(place, peer)| PeerAddr { id: id(place), addr: peer.to_string(), hold: Hold::Always })
                .collect(),
            tls: TlsFiles::read(&cert, &ca)?,
            timers: LinkTimers::default(),
            seed: 1,
            threads: 1,
        };
        let links = Links::start(config, Arc::new(Nobody))?;
        let all_refused = eventually(|| {
            let now = servers.daemons.iter().map(refused);
            now.zip(&before).all(|(now, before)| now.is_ok_and(|now| now > *before))
        });
        links.stop();
        if !all_refused {
            return Err("warren_peers_refused_total does not count a stranger".into());
        }
    }
    Ok(())
}

fn refused(daemon: &crate::io::daemon::Daemon) -> Outcome<f64> {
    Ok(daemon.metric("warren_peers_refused_total")?)
}

/// A stranger's ears.
struct Nobody;

impl LinkHandler for Nobody {
    fn message(&self, _: ServerId, _: PeerMessage) {}
    fn snapshot(&self, _: ServerId, _: SnapshotReceiver) {}
    fn link_up(&self, _: ServerId) {}
    fn link_down(&self, _: ServerId, _: DownReason) {}
    fn unreached(&self, _: ServerId) {}
    fn refused(&self, _: Refusal) {}
}
