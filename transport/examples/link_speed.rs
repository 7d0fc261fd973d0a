//! How much one lane of a link carries on this machine, and a snapshot: two servers, on loopback.
//!
//! `cargo run --profile fast -p warren-transport --example link_speed`
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is io: it measures")]

use bytes::Bytes;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use warren_transport::io::certs;
use warren_transport::io::links::{
    DownReason, Hold, LinkHandler, LinkTimers, Links, LinksConfig, PeerAddr, Refusal, SendError,
    SnapshotReceiver, TlsFiles,
};
use warren_transport::peer::{PeerEntry, PeerMessage, RaftKind, RaftMessage, ServerId, SnapshotHead};

/// For each size of message.
const MEASURE: Duration = Duration::from_secs(3);
/// Of the snapshot.
const SNAPSHOT_BYTES: usize = 1 << 30;

struct Counter {
    messages: AtomicU64,
    up: mpsc::Sender<()>,
    snapshots: mpsc::Sender<SnapshotReceiver>,
    /// Send back what comes.
    echo: Option<mpsc::Sender<u64>>,
}

impl LinkHandler for Counter {
    fn message(&self, _: ServerId, message: PeerMessage) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        if let (Some(echo), PeerMessage::Raft(raft)) = (&self.echo, message) {
            let _ = echo.send(raft.index);
        }
    }

    fn snapshot(&self, _: ServerId, receiver: SnapshotReceiver) {
        let _ = self.snapshots.send(receiver);
    }

    fn link_up(&self, _: ServerId) {
        let _ = self.up.send(());
    }

    fn link_down(&self, _: ServerId, _: DownReason) {}

    fn unreached(&self, _: ServerId) {}

    fn refused(&self, refusal: Refusal) {
        panic!("{refusal:?}");
    }
}

fn message(kind: RaftKind, index: u64, bytes: usize) -> RaftMessage {
    let entry = PeerEntry { index, term: 1, conf_change: false, data: Bytes::from(vec![7; bytes]) };
    RaftMessage {
        log_term: 1,
        index,
        commit: index,
        commit_term: 1,
        entries: if bytes == 0 { Vec::new() } else { vec![entry] },
        ..RaftMessage::new(kind, 2, 1, 1)
    }
}

/// Seconds of processor that this process has used.
fn processor() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").expect("this is Linux");
    let behind_name = text.rsplit(')').next().expect("it has a name");
    let ticks: Vec<f64> =
        behind_name.split_whitespace().skip(11).take(2).map(|t| t.parse().expect("a number")).collect();
    ticks.iter().sum::<f64>() / 100.0
}

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    certs::init(folder.path(), "speed").expect("an authority");
    let (up, is_up) = mpsc::channel();
    let (snapshots, snapshot) = mpsc::channel();
    let start = |id: ServerId, peer: PeerAddr, echo| {
        let tls = TlsFiles {
            cert_pem: certs::issue(folder.path(), id).expect("a certificate").into_bytes(),
            ca_pem: std::fs::read(folder.path().join(certs::CA_FILE)).expect("it is there"),
        };
        let handler = Arc::new(Counter {
            messages: AtomicU64::new(0),
            up: up.clone(),
            snapshots: snapshots.clone(),
            echo,
        });
        let config = LinksConfig {
            on_snapshot_thread: || {},
            ensemble: "speed".into(),
            server_id: id,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            peers: vec![peer],
            tls,
            timers: LinkTimers::default(),
            seed: id.into(),
            threads: 1,
        };
        (Links::start(config, handler.clone()).expect("links start"), handler)
    };
    let (to_echo, echoes) = mpsc::channel();
    let (one, at_one) = start(1, PeerAddr { id: 2, addr: "127.0.0.1:9".into(), hold: Hold::Always }, None);
    let (two, _at_two) =
        start(2, PeerAddr { id: 1, addr: one.local_addr().to_string(), hold: Hold::Always }, Some(to_echo));
    for _ in 0..2 {
        is_up.recv().expect("the link comes up");
    }

    println!("{:>10} {:>12} {:>10} {:>16}", "bytes", "messages/s", "MB/s", "CPU us/message");
    for bytes in [0, 100, 1_000, 10_000, 100_000, 1_000_000] {
        let kind = if bytes == 0 { RaftKind::AppendResponse } else { RaftKind::Append };
        let (from, used) = (Instant::now(), processor());
        let before = at_one.messages.load(Ordering::Relaxed);
        let mut sent = 0;
        while from.elapsed() < MEASURE {
            match two.send(1, PeerMessage::Raft(message(kind, sent, bytes))) {
                Ok(()) => sent += 1,
                Err(SendError::Overflow(_)) => std::thread::sleep(Duration::from_micros(200)),
                Err(e) => panic!("{e}"),
            }
        }
        while at_one.messages.load(Ordering::Relaxed) - before < sent {
            std::thread::sleep(Duration::from_micros(200));
        }
        let (took, used) = (from.elapsed().as_secs_f64(), processor() - used);
        let per_second = sent as f64 / took;
        println!(
            "{bytes:>10} {per_second:>12.0} {:>10.1} {:>16.1}",
            per_second * bytes as f64 / 1e6,
            used * 1e6 / sent as f64
        );
    }

    let mut trips: Vec<Duration> = (0..2000)
        .map(|n| {
            let from = Instant::now();
            one.send(2, PeerMessage::Raft(message(RaftKind::Heartbeat, n, 0))).expect("it is up");
            assert_eq!(echoes.recv(), Ok(n));
            from.elapsed()
        })
        .collect();
    trips.sort();
    println!("one way, one at a time: median {:?}, p99 {:?}", trips[1000], trips[1980]);

    let (from, used) = (Instant::now(), processor());
    let chunk = vec![7; 1 << 20];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let head = SnapshotHead { index: 1, term: 1, conf_state: Bytes::new() };
            let head = RaftMessage { snapshot: Some(head), ..message(RaftKind::Snapshot, 1, 0) };
            let mut sender = two.open_snapshot(1, head).expect("it is up");
            for _ in 0..SNAPSHOT_BYTES / chunk.len() {
                sender.send(chunk.clone()).expect("it is up");
            }
            sender.finish().expect("it is up");
        });
        let mut receiver = snapshot.recv().expect("it comes");
        let mut bytes = 0;
        while let Some(chunk) = receiver.next_chunk().expect("it is up") {
            bytes += chunk.len();
        }
        assert_eq!(bytes, SNAPSHOT_BYTES);
    });
    let took = from.elapsed().as_secs_f64();
    println!(
        "snapshot of 1 GiB: {:.0} MB/s, {:.1} s of processor at both ends",
        SNAPSHOT_BYTES as f64 / 1e6 / took,
        processor() - used
    );
}
