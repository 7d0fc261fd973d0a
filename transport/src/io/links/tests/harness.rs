//! What the tests of links share: authorities, handlers that remember, peers that misbehave, a network that can be cut.

use crate::io::certs;
use crate::io::links::{
    DownReason, Hold, LinkHandler, LinkTimers, Links, LinksConfig, PeerAddr, Refusal, RefusalReason,
    SnapshotReceiver, TlsFiles, bulk,
};
use crate::peer::{ForwardAck, PeerMessage, RaftKind, RaftMessage, ServerId, SnapshotHead, TouchesAck};
use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;

/// Nothing here takes so long; a test that waits longer has failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
pub(super) const LOCAL: &str = "127.0.0.1:0";

/// An authority in a folder of its own.
pub(super) struct Ca {
    folder: TempDir,
}

impl Ca {
    pub(super) fn new(ensemble: &str) -> Ca {
        let folder = tempfile::tempdir().unwrap();
        certs::init(folder.path(), ensemble).unwrap();
        Ca { folder }
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn pem(&self) -> Vec<u8> {
        std::fs::read(self.path().join(certs::CA_FILE)).unwrap()
    }

    pub(super) fn files(&self, server: ServerId) -> TlsFiles {
        self.files_at(server, SystemTime::now())
    }

    pub(super) fn files_at(&self, server: ServerId, now: SystemTime) -> TlsFiles {
        let cert_pem = certs::issue_at(self.path(), server, now).unwrap().into_bytes();
        TlsFiles { cert_pem, ca_pem: self.pem() }
    }

    /// A certificate of this authority that `warren` would not issue.
    pub(super) fn odd(&self, uris: &[&str], usages: &[rcgen::ExtendedKeyUsagePurpose]) -> TlsFiles {
        let key = std::fs::read_to_string(self.path().join(certs::CA_KEY_FILE)).unwrap();
        let key = rcgen::KeyPair::from_pem(&key).unwrap();
        let pem = String::from_utf8(self.pem()).unwrap();
        let issuer = rcgen::Issuer::from_ca_cert_pem(&pem, key).unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names =
            uris.iter().map(|uri| rcgen::SanType::URI((*uri).try_into().unwrap())).collect();
        params.extended_key_usages = usages.to_vec();
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &issuer).unwrap();
        TlsFiles {
            cert_pem: format!("{}{}", cert.pem(), key.serialize_pem()).into_bytes(),
            ca_pem: self.pem(),
        }
    }
}

/// What a handler was told.
#[derive(Debug)]
pub(super) enum Told {
    Up(ServerId),
    Down(ServerId, DownReason),
    Unreached(ServerId),
    Message(ServerId, PeerMessage),
    Snapshot(ServerId, SnapshotReceiver),
    Refused(Refusal),
}

/// A handler that remembers everything.
#[derive(Default)]
pub(super) struct Recorder {
    pub(super) told: Mutex<Vec<Told>>,
    more: Condvar,
}

impl Recorder {
    fn tell(&self, told: Told) {
        self.told.lock().push(told);
        self.more.notify_all();
    }

    /// Wait for the first that `wanted` takes, and forget what came before it.
    pub(super) fn wait<T>(&self, what: &str, wanted: impl Fn(&Told) -> Option<T>) -> T {
        self.take(what, |told| wanted(told).is_some(), |told| wanted(&told).expect("it was wanted"))
    }

    fn take<T>(&self, what: &str, is: impl Fn(&Told) -> bool, into: impl FnOnce(Told) -> T) -> T {
        let until = Instant::now() + PATIENCE;
        let mut told = self.told.lock();
        loop {
            if let Some(at) = told.iter().position(&is) {
                return into(told.drain(..=at).next_back().expect("it is there"));
            }
            assert!(!self.more.wait_until(&mut told, until).timed_out(), "waited for {what}; told: {told:?}");
        }
    }

    pub(super) fn up(&self, server: ServerId) {
        self.wait("link up", |told| matches!(told, Told::Up(who) if *who == server).then_some(()));
    }

    pub(super) fn down(&self, server: ServerId) -> DownReason {
        self.wait("link down", |told| match told {
            Told::Down(who, why) if *who == server => Some(why.clone()),
            _ => None,
        })
    }

    pub(super) fn unreached(&self, server: ServerId) {
        self.wait("unreached", |told| matches!(told, Told::Unreached(who) if *who == server).then_some(()));
    }

    /// Was it told this, so far?
    pub(super) fn has(&self, is: impl Fn(&Told) -> bool) -> bool {
        self.told.lock().iter().any(is)
    }

    pub(super) fn message(&self) -> (ServerId, PeerMessage) {
        self.wait("a message", |told| match told {
            Told::Message(from, message) => Some((*from, message.clone())),
            _ => None,
        })
    }

    pub(super) fn snapshot(&self) -> (ServerId, SnapshotReceiver) {
        self.take(
            "a snapshot",
            |told| matches!(told, Told::Snapshot(..)),
            |told| match told {
                Told::Snapshot(from, receiver) => (from, receiver),
                _ => unreachable!(),
            },
        )
    }

    pub(super) fn refused(&self, reason: RefusalReason) -> Refusal {
        self.wait(reason.label(), |told| match told {
            Told::Refused(refusal) if refusal.reason == reason => Some(refusal.clone()),
            _ => None,
        })
    }
}

impl LinkHandler for Recorder {
    fn message(&self, from: ServerId, message: PeerMessage) {
        self.tell(Told::Message(from, message));
    }

    fn snapshot(&self, from: ServerId, receiver: SnapshotReceiver) {
        self.tell(Told::Snapshot(from, receiver));
    }

    fn link_up(&self, server: ServerId) {
        self.tell(Told::Up(server));
    }

    fn link_down(&self, server: ServerId, why: DownReason) {
        self.tell(Told::Down(server, why));
    }

    fn unreached(&self, server: ServerId) {
        self.tell(Told::Unreached(server));
    }

    fn refused(&self, refusal: Refusal) {
        self.tell(Told::Refused(refusal));
    }
}

pub(super) struct Server {
    pub(super) links: Links,
    pub(super) told: Arc<Recorder>,
}

/// What is not dialled in a test needs an address nevertheless.
pub(super) const NOWHERE: &str = "127.0.0.1:9";

pub(super) fn config(server_id: ServerId, tls: TlsFiles, peers: &[(ServerId, String)]) -> LinksConfig {
    LinksConfig {
        ensemble: "prod".into(),
        server_id,
        listen: LOCAL.parse().unwrap(),
        peers: peers
            .iter()
            .map(|(id, addr)| PeerAddr { id: *id, addr: addr.clone(), hold: Hold::Always })
            .collect(),
        tls,
        timers: LinkTimers { redial_max: Duration::from_millis(100), ..LinkTimers::default() },
        seed: u64::from(server_id),
        threads: 1,
        on_snapshot_thread: || {},
    }
}

pub(super) fn start(config: LinksConfig) -> Server {
    let told = Arc::new(Recorder::default());
    let links = Links::start(config, told.clone()).unwrap();
    Server { links, told }
}

impl Server {
    pub(super) fn addr(&self) -> SocketAddr {
        self.links.local_addr()
    }

    pub(super) fn count(&self, reason: RefusalReason) -> u64 {
        self.links.refusals().into_iter().find(|(which, _)| *which == reason).unwrap().1
    }
}

/// Servers 1 and 2 of one ensemble, with their link up.
pub(super) fn pair(ca: &Ca) -> (Server, Server) {
    pair_with(ca, |_| {})
}

/// The same, set otherwise.
pub(super) fn pair_with(ca: &Ca, set: impl Fn(&mut LinksConfig)) -> (Server, Server) {
    let begin = |id, addr| {
        let mut config = config(id, ca.files(id), &[(3 - id, addr)]);
        set(&mut config);
        start(config)
    };
    let one = begin(1, NOWHERE.into());
    let two = begin(2, one.addr().to_string());
    one.told.up(2);
    two.told.up(1);
    (one, two)
}

/// Server 1 of an ensemble of two, and what passes for server 2 where the test has it do so.
pub(super) fn one_and_raw(ca: &Ca) -> (Server, Raw) {
    (start(config(1, ca.files(1), &[(2, NOWHERE.into())])), Raw::new())
}

pub(super) fn raft(kind: RaftKind, index: u64) -> RaftMessage {
    RaftMessage {
        log_term: 4,
        index,
        commit: 5,
        commit_term: 6,
        priority: -1,
        ..RaftMessage::new(kind, 2, 1, 3)
    }
}

pub(super) fn heartbeat(index: u64) -> PeerMessage {
    PeerMessage::Raft(raft(RaftKind::Heartbeat, index))
}

/// An append with so many bytes.
pub(super) fn append(index: u64, bytes: usize) -> PeerMessage {
    let data = Bytes::from(vec![index as u8; bytes]);
    let entries = vec![crate::peer::PeerEntry { index, term: 3, conf_change: false, data }];
    PeerMessage::Raft(RaftMessage { entries, ..raft(RaftKind::Append, index) })
}

pub(super) fn ack(number: u64) -> PeerMessage {
    PeerMessage::TouchesAck(TouchesAck { number })
}

pub(super) fn forward_ack(upto: u64) -> PeerMessage {
    PeerMessage::ForwardAck(ForwardAck { term: 1, incarnation: 2, upto })
}

pub(super) fn head(index: u64) -> RaftMessage {
    let snapshot = SnapshotHead { index, term: 2, conf_state: Bytes::from_static(b"voters") };
    RaftMessage { snapshot: Some(snapshot), ..raft(RaftKind::Snapshot, 0) }
}

/// A QUIC client that lets everybody be who they say, and says of itself what the test wants.
pub(super) struct Raw {
    pub(super) runtime: tokio::runtime::Runtime,
    endpoint: quinn::Endpoint,
    /// A stream that is dropped ends.
    kept: Mutex<Vec<quinn::SendStream>>,
}

impl Raw {
    pub(super) fn new() -> Raw {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let endpoint = {
            let _entered = runtime.enter();
            quinn::Endpoint::client(LOCAL.parse().unwrap()).unwrap()
        };
        Raw { runtime, endpoint, kept: Mutex::default() }
    }

    pub(super) fn connecting(
        &self,
        addr: SocketAddr,
        files: Option<&TlsFiles>,
        alpn: &[u8],
    ) -> quinn::Connecting {
        self.connecting_as(addr, files, alpn, false)
    }

    /// `marked`: as if for a snapshot.
    pub(super) fn connecting_as(
        &self,
        addr: SocketAddr,
        files: Option<&TlsFiles>,
        alpn: &[u8],
        marked: bool,
    ) -> quinn::Connecting {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Gullible(provider)));
        let mut crypto = match files {
            Some(files) => {
                let chain =
                    CertificateDer::pem_slice_iter(&files.cert_pem).collect::<Result<_, _>>().unwrap();
                let key = PrivateKeyDer::from_pem_slice(&files.cert_pem).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        crypto.alpn_protocols = vec![alpn.to_vec()];
        let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(crypto).unwrap()));
        if marked {
            config.initial_dst_cid_provider(Arc::new(bulk::marked_id));
        }
        let _entered = self.runtime.enter();
        self.endpoint.connect_with(config, addr, "warren").unwrap()
    }

    /// Dial, whether that leads anywhere or not, and wait until the other end closes the connection.
    pub(super) fn knock(
        &self,
        addr: SocketAddr,
        files: Option<&TlsFiles>,
        alpn: &[u8],
    ) -> quinn::ConnectionError {
        let connecting = self.connecting(addr, files, alpn);
        match self.runtime.block_on(connecting) {
            Ok(connection) => self.closed(&connection),
            Err(e) => e,
        }
    }

    pub(super) fn connect(&self, addr: SocketAddr, files: &TlsFiles) -> quinn::Connection {
        let connecting = self.connecting(addr, Some(files), b"warren/1");
        self.runtime.block_on(connecting).unwrap()
    }

    /// The link of the server with these files, which says hello and no more.
    pub(super) fn link(&self, server: &Server, files: &TlsFiles) -> quinn::Connection {
        let connection = self.connect(server.addr(), files);
        self.stream(&connection, &[0]);
        connection
    }

    /// A connection for a snapshot.
    pub(super) fn connect_for_snapshot(&self, addr: SocketAddr, files: &TlsFiles) -> quinn::Connection {
        let connecting = self.connecting_as(addr, Some(files), b"warren-snapshot/1", true);
        self.runtime.block_on(connecting).unwrap()
    }

    /// How the other end closed this connection.
    pub(super) fn closed(&self, connection: &quinn::Connection) -> quinn::ConnectionError {
        let closed = async { tokio::time::timeout(PATIENCE, connection.closed()).await };
        self.runtime.block_on(closed).expect("the other end closes the connection")
    }

    /// A stream that begins with these bytes, and stays open.
    pub(super) fn stream(&self, connection: &quinn::Connection, bytes: &[u8]) {
        let stream = self.open(connection, bytes);
        self.kept.lock().push(stream);
    }

    /// A stream of these bytes and no more.
    pub(super) fn ended_stream(&self, connection: &quinn::Connection, bytes: &[u8]) {
        self.open(connection, bytes).finish().unwrap();
    }

    fn open(&self, connection: &quinn::Connection, bytes: &[u8]) -> quinn::SendStream {
        self.runtime.block_on(async {
            let mut stream = connection.open_uni().await.unwrap();
            stream.write_all(bytes).await.unwrap();
            stream
        })
    }
}

#[derive(Debug)]
struct Gullible(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        unreachable!("TLS 1.3 alone is offered")
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// A network between one dialler and one listener, on an address that stays.
pub(super) struct Relay {
    addr: SocketAddr,
    state: Arc<RelayState>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

struct RelayState {
    front: UdpSocket,
    back: UdpSocket,
    dialler: Mutex<Option<SocketAddr>>,
    target: Mutex<Option<SocketAddr>>,
    /// Nothing of the listener's comes through.
    deaf: AtomicBool,
    end: AtomicBool,
}

impl Relay {
    pub(super) fn new() -> Relay {
        let bind = || {
            let socket = UdpSocket::bind(LOCAL).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            socket
        };
        let state = Arc::new(RelayState {
            front: bind(),
            back: bind(),
            dialler: Mutex::new(None),
            target: Mutex::new(None),
            deaf: AtomicBool::new(false),
            end: AtomicBool::new(false),
        });
        let addr = state.front.local_addr().unwrap();
        let forward = {
            let state = state.clone();
            move || {
                let mut packet = [0; 65536];
                while !state.end.load(Ordering::Relaxed) {
                    let Ok((n, from)) = state.front.recv_from(&mut packet) else { continue };
                    *state.dialler.lock() = Some(from);
                    if let Some(target) = *state.target.lock() {
                        let _ = state.back.send_to(&packet[..n], target);
                    }
                }
            }
        };
        let backward = {
            let state = state.clone();
            move || {
                let mut packet = [0; 65536];
                while !state.end.load(Ordering::Relaxed) {
                    let Ok((n, from)) = state.back.recv_from(&mut packet) else { continue };
                    if state.deaf.load(Ordering::Relaxed) || Some(from) != *state.target.lock() {
                        continue;
                    }
                    if let Some(dialler) = *state.dialler.lock() {
                        let _ = state.front.send_to(&packet[..n], dialler);
                    }
                }
            }
        };
        let threads = vec![std::thread::spawn(forward), std::thread::spawn(backward)];
        Relay { addr, state, threads }
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where packets go from now on; nowhere, if it is `None`.
    pub(super) fn lead_to(&self, target: Option<SocketAddr>) {
        *self.state.target.lock() = target;
    }

    pub(super) fn set_deaf(&self, deaf: bool) {
        self.state.deaf.store(deaf, Ordering::Relaxed);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.state.end.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}
