//! A server in one thread, on a disk in memory, spoken to in packets.

use super::{Connection, Effects, Ending, Limits, Phase};
use crate::consensus::{self, Consensus, Submission, Timers};
use crate::entropy::Entropy;
use crate::identity::{Authentication, digest_of};
use crate::mailbox::{Attached, Item, Mailbox, Pulse};
use crate::metrics::Metrics;
use crate::moment::Moment;
use crate::room::Room;
use crate::service::{self, Service, ServiceOptions};
use bytes::BytesMut;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use warren_storage::log::{Append, Log, LogOptions};
use warren_storage::simdisk::SimDisk;
use warren_storage::tree::{Tree, TreeOptions};
use warren_storage::{AclRef, CreateMode, IdRef, Op, Rules, SharedDisk, Zxid};
use warren_transport::reply::Response;
use warren_transport::request::{AddWatchMode, SetWatches};
use warren_transport::{
    Change, ConnectRequest, ConnectResponse, EventType, Opcode, ReplyHeader, Request, WatcherEvent, xid,
};

/// Numbers in a row: ids and passwords that a reader can follow.
struct Counting(u8);

impl Entropy for Counting {
    fn fill(&mut self, out: &mut [u8]) {
        self.0 += 1;
        out.fill(self.0);
    }
}

/// One server. Nothing moves but when it is told to.
struct Server {
    now: Moment,
    consensus: Consensus,
    service: Service,
    log: Log,
    room: Arc<Room>,
    limits: Arc<Limits>,
    connections: u64,
}

impl Server {
    fn start() -> Server {
        let disk: SharedDisk = Arc::new(SimDisk::new());
        let options = TreeOptions { memory_bytes: 16 << 20, hash_seed: 1, store_id: 1 };
        let mut tree = Tree::open(disk.clone(), options).unwrap();
        let (log, recovered) = Log::open(disk, LogOptions::default()).unwrap();
        let id = consensus::raft_id(1, 1);
        tree.set_conf_state(consensus::found(&[id]));
        let now = Moment { us: 1_000_000_000, wall_ms: 1_700_000_000_000 };
        let start = consensus::Start {
            id,
            server_id: 1,
            incarnation: 7,
            reader: log.reader(),
            hard_state: recovered.hard_state,
            checkpoint: tree.position(),
            conf_state: tree.conf_state().to_vec(),
            members: Default::default(),
            retired: Default::default(),
            found: None,
            rules: Rules::default(),
            timers: Timers::default(),
            read_bytes_max: consensus::READ_BYTES_MAX,
            entropy: Box::new(Counting(0)),
        };
        let consensus = Consensus::new(now, start).unwrap();
        let room = Arc::new(Room::new(1, Arc::new(Metrics::default())));
        let options = ServiceOptions {
            server_id: 1,
            observer: false,
            incarnation: 7,
            tick_ms: 1_000,
            read_only: false,
            sessions_max: 100,
            sweep_interval: Duration::from_secs(60),
            sweeps_per_minute_max: 100,
            container_unused_max: Duration::ZERO,
            checkpoint_interval: Duration::from_secs(600),
            compare_interval: Duration::from_secs(1),
        };
        let service = Service::new(now, tree, room.clone(), options);
        let limits = Arc::new(Limits {
            packet_bytes_max: 4 << 20,
            outstanding_per_connection_max: 100,
            outstanding_bytes_per_connection_max: 8 << 20,
            outstanding_max: 1_000,
            outstanding_bytes_max: 8 << 20,
            watches_max: 100,
            sessions_max: 100,
            session_timeout_min_ms: 4_000,
            session_timeout_max_ms: 40_000,
            skip_acl: false,
            reconfig_enabled: false,
            authentication: Authentication { super_digest: Some(digest_of("super:x")), digest_off: false },
        });
        let mut server = Server { now, consensus, service, log, room, limits, connections: 0 };
        server.settle();
        server
    }

    /// Everything that is under way goes on until nothing moves.
    fn settle(&mut self) {
        let mut work = VecDeque::from([consensus::Event::Tick]);
        while let Some(event) = work.pop_front() {
            self.consensus.handle(self.now, event).unwrap();
            while let Some(action) = self.consensus.poll_action() {
                match action {
                    consensus::Action::Append { number, records, hard_state } => {
                        self.log.append(Append { records: &records, hard_state }).unwrap();
                        work.push_back(consensus::Event::Persisted(number));
                    }
                    consensus::Action::Commit(entries) => {
                        self.serve(service::Event::Commit(entries), &mut work)
                    }
                    consensus::Action::ReadAt { index, tokens } => {
                        self.serve(service::Event::ReadAt { index, tokens }, &mut work);
                    }
                    consensus::Action::Lead(_) => {}
                    consensus::Action::Leader { term, leader } => {
                        self.serve(service::Event::Leader { term, leader }, &mut work);
                    }
                    other => panic!("an ensemble of one asks for {other:?}"),
                }
            }
            if work.is_empty() {
                self.serve(service::Event::Tick, &mut work);
            }
        }
    }

    fn serve(&mut self, event: service::Event, work: &mut VecDeque<consensus::Event>) {
        self.service.handle(self.now, event).unwrap();
        self.service.publish();
        while let Some(action) = self.service.poll_action() {
            match action {
                service::Action::Members { members, retired, recorded } => {
                    work.push_back(consensus::Event::Members { members, retired, recorded });
                }
                service::Action::Submit(submissions) => work.push_back(consensus::Event::Submit(submissions)),
                service::Action::Abstain(_) => panic!("an ensemble of one has nothing to compare"),
                service::Action::Reconfigured { .. } => panic!("no operator asked"),
                service::Action::Send { .. } => panic!("an ensemble of one has nobody to write to"),
                service::Action::Applied(index) => work.push_back(consensus::Event::Applied(index)),
                service::Action::Checkpoint(checkpoint) => {
                    let written = checkpoint.write().unwrap();
                    self.serve(service::Event::Checkpointed(written), work);
                }
                service::Action::Superseded(_) | service::Action::Links => {}
                service::Action::Purge(index) => self.log.purge(index).unwrap(),
            }
        }
    }

    fn take(&mut self, effects: &mut Effects) {
        for event in effects.service.drain(..) {
            let mut work = VecDeque::new();
            self.serve(event, &mut work);
            for event in work {
                self.consensus.handle(self.now, event).unwrap();
            }
        }
        let submissions: Vec<Submission> = effects.submissions.drain(..).collect();
        if !submissions.is_empty() {
            self.consensus.handle(self.now, consensus::Event::Submit(submissions)).unwrap();
        }
    }

    /// A client with a session of its own.
    fn client(&mut self) -> Client {
        let mut client = self.stranger();
        client.hello(self, 0, &[0; 16]);
        let response = client.connected.unwrap();
        assert_ne!(response.session, 0);
        client
    }

    /// A connection that said nothing yet.
    fn stranger(&mut self) -> Client {
        self.connections += 1;
        let mailbox = Mailbox::new(self.connections, Box::new(|| {}));
        let peer = "127.0.0.1:5000".parse().unwrap();
        Client {
            connection: Connection::new(peer, mailbox, self.limits.clone()),
            input: BytesMut::new(),
            connected: None,
            xid: 0,
            asked: VecDeque::new(),
        }
    }
}

/// What a client saw: `"event NodeCreated /a @5"`, `"1 ok @5"`, `"2 error -101 @5"`.
type Seen = Vec<String>;

struct Client {
    connection: Connection,
    input: BytesMut,
    connected: Option<ConnectResponse>,
    xid: i32,
    asked: VecDeque<(i32, Opcode)>,
}

impl Client {
    fn hello(&mut self, server: &mut Server, session: i64, password: &[u8]) {
        let mut packet = Vec::new();
        ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: 0,
            timeout_ms: 10_000,
            session,
            password,
            read_only: Some(false),
        }
        .encode(&mut packet);
        self.input.extend_from_slice(&packet);
        self.turn(server);
        server.settle();
        let out = self.bytes(server);
        if out.len() > 4 {
            self.connected = Some(ConnectResponse::decode(&out[4..]).unwrap());
        }
    }

    /// Send without letting the server go on.
    fn send(&mut self, request: &Request<'_>) {
        self.xid += 1;
        let xid = match request {
            Request::Ping => xid::PING,
            Request::Auth { .. } => xid::AUTH,
            _ => self.xid,
        };
        let mut packet = Vec::new();
        request.encode(xid, &mut packet);
        self.input.extend_from_slice(&packet);
        self.asked.push_back((xid, request.opcode()));
    }

    fn bytes(&mut self, server: &mut Server) -> Vec<u8> {
        let (mut out, mut effects) = (Vec::new(), Effects::default());
        let room = server.room.clone();
        self.connection.turn(server.now, &room, &mut self.input, &mut out, &mut effects).unwrap();
        server.take(&mut effects);
        out
    }

    /// What comes back from one turn.
    fn turn(&mut self, server: &mut Server) -> Seen {
        let out = self.bytes(server);
        let mut seen = Vec::new();
        let mut rest = &out[..];
        while let Some((length, tail)) = rest.split_first_chunk::<4>() {
            let (packet, next) = tail.split_at(u32::from_be_bytes(*length) as usize);
            rest = next;
            let (header, body) = ReplyHeader::decode(packet).unwrap();
            let at = header.zxid & 0xffff_ffff;
            if header.xid == xid::NOTIFICATION {
                let event = WatcherEvent::decode(body).unwrap();
                seen.push(format!("event {:?} {} @{at}", event.kind, event.path));
                continue;
            }
            let place =
                self.asked.iter().position(|(x, _)| *x == header.xid).expect("an answer to what was asked");
            let (_, opcode) = self.asked.remove(place).unwrap();
            if header.err != 0 {
                seen.push(format!("{} error {} @{at}", header.xid, header.err));
                continue;
            }
            let value = match Response::decode(opcode, body).unwrap() {
                Response::Data(data, stat) => {
                    format!(" {:?} v{}", String::from_utf8_lossy(data.unwrap_or(b"null")), stat.version)
                }
                Response::Path(path) | Response::PathAndStat(path, _) => format!(" {path}"),
                _ => String::new(),
            };
            seen.push(format!("{} ok{value} @{at}", header.xid));
        }
        seen
    }

    /// Send, and let the server go on until nothing moves.
    fn ask(&mut self, server: &mut Server, request: &Request<'_>) -> Seen {
        self.send(request);
        self.all(server)
    }

    fn all(&mut self, server: &mut Server) -> Seen {
        let mut seen = self.turn(server);
        for _ in 0..3 {
            server.settle();
            seen.extend(self.turn(server));
        }
        seen
    }
}

fn create(path: &str) -> Request<'_> {
    create_as(path, CreateMode::Persistent)
}

fn create_as(path: &str, mode: CreateMode) -> Request<'_> {
    let acl = vec![AclRef { perms: 31, id: IdRef { scheme: "world", id: "anyone" } }];
    Request::Change(Change::new(Op::Create { path, data: Some(b"0"), acl, mode, ttl: 0 }))
}

fn set<'a>(path: &'a str, data: &'a [u8]) -> Request<'a> {
    Request::Change(Change::new(Op::SetData { path, data: Some(data), version: -1 }))
}

fn get(path: &str) -> Request<'_> {
    Request::GetData { path, watch: false }
}

#[test]
fn a_read_between_two_pipelined_writes_sees_exactly_the_first() {
    let mut server = Server::start();
    let mut client = server.client();
    client.ask(&mut server, &create("/a"));
    for request in [set("/a", b"1"), get("/a"), set("/a", b"2"), get("/a"), get("/a")] {
        client.send(&request);
    }
    // Both writes go into one log entry; the zxids of the headers say which tree each answer is from.
    assert_eq!(
        client.all(&mut server),
        ["2 ok @3", "3 ok \"1\" v1 @3", "4 ok @4", "5 ok \"2\" v2 @4", "6 ok \"2\" v2 @4"]
    );
}

#[test]
fn a_watch_behind_a_write_waits_and_what_is_behind_it_too() {
    let mut server = Server::start();
    let mut client = server.client();
    client.ask(&mut server, &create("/a"));
    for request in [set("/a", b"1"), Request::GetData { path: "/a", watch: true }, set("/a", b"2"), get("/a")]
    {
        client.send(&request);
    }
    assert_eq!(
        client.all(&mut server),
        ["2 ok @3", "3 ok \"1\" v1 @3", "event NodeDataChanged /a @4", "4 ok @4", "5 ok \"2\" v2 @4"]
    );
}

/// Two packets once stopped the daemon: what does not decode was queued as refused behind a held request, and
/// releasing what is held met it.
#[test]
fn what_does_not_decode_keeps_its_place_behind_what_is_held() {
    let mut server = Server::start();
    let mut client = server.client();
    client.send(&create("/a"));
    client.send(&Request::GetData { path: "/a", watch: true });
    let cut = [0, 0, 0, 10, 0, 0, 0, 9, 0, 0, 0, Opcode::GetData as u8, 0, 0];
    client.input.extend_from_slice(&cut);
    client.asked.push_back((9, Opcode::GetData));
    client.xid = 9;
    client.send(&get("/a"));
    assert_eq!(
        client.all(&mut server),
        ["1 ok /a @2", "2 ok \"0\" v0 @2", "9 error -5 @2", "10 ok \"0\" v0 @2"]
    );
}

#[test]
fn pings_overtake_what_waits() {
    let mut server = Server::start();
    let mut client = server.client();
    client.send(&create("/a"));
    client.send(&Request::GetData { path: "/a", watch: true });
    client.send(&Request::Ping);
    assert_eq!(client.turn(&mut server), ["-2 ok @1"]);
    server.settle();
    assert_eq!(client.all(&mut server), ["1 ok /a @2", "2 ok \"0\" v0 @2"]);
}

#[test]
fn the_event_comes_before_the_answer_that_shows_the_change() {
    let mut server = Server::start();
    let (mut writer, mut reader) = (server.client(), server.client());
    writer.ask(&mut server, &create("/a"));
    assert_eq!(reader.ask(&mut server, &Request::Exists { path: "/b", watch: true }), ["1 error -101 @3"]);
    assert_eq!(reader.ask(&mut server, &Request::GetChildren { path: "/a", watch: true }), ["2 ok @3"]);
    writer.ask(&mut server, &create("/b"));
    writer.ask(&mut server, &create("/a/x"));
    // The reader had not looked: both events stand before the answer, each with the zxid of its cause.
    assert_eq!(
        reader.ask(&mut server, &get("/b")),
        ["event NodeCreated /b @4", "event NodeChildrenChanged /a @5", "3 ok \"0\" v0 @5"]
    );
}

#[test]
fn a_persistent_recursive_watch_stays_until_it_is_removed() {
    let mut server = Server::start();
    let mut client = server.client();
    let watch = Request::AddWatch { path: "/", mode: AddWatchMode::PersistentRecursive };
    assert_eq!(client.ask(&mut server, &watch), ["1 ok @1"]);
    assert_eq!(client.ask(&mut server, &create("/a")), ["event NodeCreated /a @2", "2 ok /a @2"]);
    assert_eq!(client.ask(&mut server, &create("/a/b")), ["event NodeCreated /a/b @3", "3 ok /a/b @3"]);
    let watcher = warren_transport::request::WatcherType::PersistentRecursive;
    assert_eq!(client.ask(&mut server, &Request::RemoveWatches { path: "/", watcher }), ["4 ok @3"]);
    assert_eq!(client.ask(&mut server, &Request::RemoveWatches { path: "/", watcher }), ["5 error -121 @3"]);
    assert_eq!(client.ask(&mut server, &set("/a", b"1")), ["6 ok @4"]);
    assert_eq!(server.room.watches.len(), 0);
}

#[test]
fn watches_that_are_set_again_tell_what_was_missed() {
    let mut server = Server::start();
    let mut client = server.client();
    for path in ["/changed", "/same"] {
        client.ask(&mut server, &create(path));
    }
    client.ask(&mut server, &set("/changed", b"1"));
    let relative_zxid = server.room.zxid().wire() - 1;
    let again = Request::SetWatches(SetWatches {
        relative_zxid,
        data: vec!["/changed", "/same", "/gone"],
        exist: vec!["/same", "/none"],
        child: vec![],
        persistent: None,
    });
    let gone = |kind: EventType, path: &str| format!("event {kind:?} {path} @{}", 0xffff_ffffu32);
    assert_eq!(
        client.ask(&mut server, &again),
        [
            gone(EventType::NodeDataChanged, "/changed"),
            gone(EventType::NodeDeleted, "/gone"),
            gone(EventType::NodeCreated, "/same"),
            "4 ok @4".to_owned(),
        ]
    );
    assert_eq!(client.ask(&mut server, &create("/none")), ["event NodeCreated /none @5", "5 ok /none @5"]);
    assert_eq!(client.ask(&mut server, &set("/same", b"1")), ["event NodeDataChanged /same @6", "6 ok @6"]);
}

#[test]
fn a_long_list_that_is_kept_is_told_only_while_it_is_true() {
    let mut server = Server::start();
    let mut client = server.client();
    client.ask(&mut server, &create("/p"));
    for i in 0..100 {
        client.ask(&mut server, &create(&format!("/p/{i:03}")));
    }
    let list = |client: &mut Client, server: &mut Server| {
        client.send(&Request::GetChildren2 { path: "/p", watch: false });
        client.bytes(server)
    };
    let names = |out: &[u8]| out.windows(3).filter(|w| w.iter().all(u8::is_ascii_digit)).count();
    let (first, again) = (list(&mut client, &mut server), list(&mut client, &mut server));
    // All but the xid is the same, the Stat behind the names included.
    assert_eq!(first[8..], again[8..]);
    assert_eq!(names(&again), 100);
    let delete = Request::Change(Change::new(Op::Delete { path: "/p/007", version: -1 }));
    client.ask(&mut server, &delete);
    assert_eq!(names(&list(&mut client, &mut server)), 99);
    client.ask(&mut server, &create("/p/007"));
    assert_eq!(names(&list(&mut client, &mut server)), 100);
}

#[test]
fn sync_keeps_its_place() {
    let mut server = Server::start();
    let mut client = server.client();
    client.ask(&mut server, &create("/a"));
    for request in [set("/a", b"1"), Request::Sync { path: "/a" }, get("/a"), set("/a", b"2"), get("/a")] {
        client.send(&request);
    }
    let seen = client.all(&mut server);
    let order: Vec<&str> = seen.iter().map(|s| s.split(' ').next().unwrap()).collect();
    assert_eq!(order, ["2", "3", "4", "5", "6"]);
    assert!(seen[2].contains("\"1\"") && seen[4].contains("\"2\""), "{seen:?}");
}

#[test]
fn a_session_moves_with_its_password_and_the_old_connection_ends() {
    let mut server = Server::start();
    let mut old = server.client();
    old.ask(&mut server, &create_as("/e", CreateMode::Ephemeral));
    let had = old.connected.unwrap();
    // A write that is under way when the session moves is applied once, and answered to nobody.
    old.send(&set("/e", b"late"));
    let mut new = server.stranger();
    new.hello(&mut server, had.session, &had.password);
    assert_eq!(new.connected.as_ref().map(|c| c.session), Some(had.session));
    assert_eq!(new.ask(&mut server, &get("/e")), ["1 ok \"0\" v0 @3"]);
    old.turn(&mut server);
    assert!(matches!(old.connection.ending(), Some(Ending::Because(_))));
    let mut thief = server.stranger();
    thief.hello(&mut server, had.session, &[9; 16]);
    assert!(thief.connected.unwrap().is_expired());
}

/// The simulator's seed 11157: the outcome of the write went nowhere, and the read was answered behind it.
#[test]
fn who_loses_its_session_is_not_answered_a_read_that_may_stand_behind_the_next_write() {
    let mut server = Server::start();
    let mut old = server.client();
    let response = old.connected.unwrap();
    old.ask(&mut server, &create("/a"));
    old.send(&Request::Sync { path: "/a" });
    old.send(&get("/a"));
    old.send(&set("/a", b"1"));
    assert_eq!(old.turn(&mut server), Seen::new());
    let mut new = server.stranger();
    new.hello(&mut server, response.session, &response.password);
    assert_eq!(new.ask(&mut server, &get("/a"))[0], "1 ok \"1\" v1 @4");
    assert_eq!(old.turn(&mut server), Seen::new());
    assert_eq!(old.connection.ending(), Some(Ending::Because("its session attached elsewhere")));
}

#[test]
fn a_silent_session_expires_and_takes_its_ephemerals_along() {
    let mut server = Server::start();
    let (mut silent, mut alive) = (server.client(), server.client());
    silent.ask(&mut server, &create_as("/e", CreateMode::Ephemeral));
    alive.ask(&mut server, &Request::Exists { path: "/e", watch: true });
    // It asked for 10 s; its deadline is rounded up to the next second.
    let begin = server.now;
    let mut seen = Vec::new();
    while !seen.iter().any(|s: &String| s.starts_with("event")) {
        server.now = server.now + Duration::from_millis(500);
        server.settle();
        seen.extend(alive.ask(&mut server, &Request::Ping));
    }
    assert!(seen.ends_with(&["event NodeDeleted /e @4".to_owned(), "-2 ok @4".to_owned()]), "{seen:?}");
    let after = server.now.since(begin);
    assert!(after >= Duration::from_secs(10) && after <= Duration::from_millis(11_500), "{after:?}");
    silent.turn(&mut server);
    assert_eq!(silent.connection.ending(), Some(Ending::Because("its session expired")));
    assert_eq!(alive.ask(&mut server, &get("/e")).len(), 1);
}

/// The simulator's seed 10449: it was owed an answer, which it did not take, and kept its ephemerals for ever.
#[test]
fn who_takes_nothing_of_what_it_is_owed_is_silent() {
    let mut server = Server::start();
    let (mut hung, mut alive) = (server.client(), server.client());
    hung.ask(&mut server, &create_as("/e", CreateMode::Ephemeral));
    alive.ask(&mut server, &Request::Exists { path: "/e", watch: true });
    hung.send(&set("/e", b"1"));
    hung.bytes(&mut server);
    hung.connection.on_stuck(server.now, false, true);
    let begin = server.now;
    let mut seen = Vec::new();
    while !seen.iter().any(|s: &String| s.starts_with("event")) {
        server.now = server.now + Duration::from_millis(500);
        assert!(server.now.since(begin) < Duration::from_secs(60), "it lives for ever");
        if server.now.since(begin) == Duration::from_secs(5) {
            hung.connection.on_stuck(server.now, true, true);
        }
        server.settle();
        alive.send(&Request::Exists { path: "/e", watch: true });
        seen.extend(alive.all(&mut server).into_iter().filter(|s| s.contains("NodeDeleted")));
    }
    let after = server.now.since(begin);
    assert!(after >= Duration::from_secs(15) && after <= Duration::from_millis(16_500), "{after:?}");
}

/// It took all that was there, and its request still waits: it may not be read from.
#[test]
fn who_takes_all_that_there_is_waits_for_the_rest() {
    let mut server = Server::start();
    let mut client = server.client();
    client.send(&set("/", b"1"));
    client.bytes(&mut server);
    client.connection.on_stuck(server.now, false, true);
    client.connection.on_stuck(server.now, true, false);
    for _ in 0..60 {
        server.now = server.now + Duration::from_millis(500);
        server.settle();
    }
    assert_eq!(client.turn(&mut server), ["1 ok @2"]);
    assert!(client.connection.ending().is_none());
}

#[test]
fn a_standstill_of_the_server_is_no_silence_of_its_clients() {
    let mut server = Server::start();
    let mut client = server.client();
    // Stopped for a minute: what the client sent meanwhile waits in the kernel.
    server.now = server.now + Duration::from_secs(60);
    server.settle();
    assert_eq!(client.ask(&mut server, &Request::Ping), ["-2 ok @1"]);
    // From then on its silence counts again.
    while client.connection.ending().is_none() {
        server.now = server.now + Duration::from_millis(500);
        server.settle();
        client.turn(&mut server);
    }
    assert_eq!(client.connection.ending(), Some(Ending::Because("its session expired")));
}

/// Once another leader may have expired the session, even the answer to a ping would be a lie.
#[test]
fn without_contact_to_a_leader_not_even_a_ping_is_answered() {
    let mut server = Server::start();
    let mut client = server.client();
    // It asked for 10 s; two thirds of that are too long.
    let contact = server.now + Duration::from_secs(60);
    server.room.set_contact_ms(contact.ms());
    server.now = contact + Duration::from_millis(6_665);
    assert_eq!(client.ask(&mut server, &Request::Ping), ["-2 ok @1"]);
    client.send(&Request::Ping);
    server.now = contact + Duration::from_millis(6_666);
    assert_eq!(client.turn(&mut server), Seen::new());
    assert_eq!(client.connection.ending(), Some(Ending::Because(super::CUT_OFF)));
}

/// After a snapshot was taken over, the published tree shows changes whose events were never sent.
#[test]
fn who_is_cut_off_is_answered_nothing_more() {
    let mut server = Server::start();
    let (mut client, mut writer) = (server.client(), server.client());
    client.ask(&mut server, &create("/a"));
    client.send(&set("/a", b"1"));
    client.send(&get("/a"));
    client.turn(&mut server);
    client.connection.mailbox.put(warren_storage::Zxid::ZERO, crate::mailbox::Item::CutOff("a snapshot"));
    writer.ask(&mut server, &set("/a", b"2"));
    assert!(client.connection.must_close());
    assert_eq!(client.turn(&mut server), Seen::new());
    assert_eq!(client.connection.ending(), Some(Ending::Because("a snapshot")));
    // It is looked at while a watch is set, too.
    let mut watcher = server.client();
    watcher.send(&Request::GetData { path: "/a", watch: true });
    watcher.connection.mailbox.put(warren_storage::Zxid::ZERO, crate::mailbox::Item::CutOff("a snapshot"));
    assert_eq!(watcher.turn(&mut server), Seen::new());
}

#[test]
fn a_closed_session_is_answered_before_the_connection_ends() {
    let mut server = Server::start();
    let mut client = server.client();
    client.ask(&mut server, &create_as("/e", CreateMode::Ephemeral));
    assert_eq!(client.ask(&mut server, &Request::CloseSession), ["2 ok @3"]);
    assert_eq!(client.connection.ending(), Some(Ending::SessionClosed));
    assert_eq!(server.room.snapshot().ephemeral_count(), 0);
}

#[test]
fn with_too_much_outstanding_nothing_more_is_read() {
    let mut server = Server::start();
    let mut client = server.client();
    for _ in 0..150 {
        client.send(&set("/", b"x"));
    }
    client.turn(&mut server);
    assert_eq!(client.connection.outstanding(), 100);
    assert!(!client.connection.wants_input(&server.room));
    assert_eq!(server.room.metrics.warren_reads_paused_total.value(), 1);
    assert_eq!(client.all(&mut server).len(), 150);
    assert_eq!(server.room.metrics.outstanding_requests.value(), 0);
}

#[test]
fn data_ends_at_a_mebibyte_even_where_packets_may_be_larger() {
    const LIMIT: usize = 1_048_576;
    let mut server = Server::start();
    let mut client = server.client();
    client.ask(&mut server, &create("/set"));
    client.ask(&mut server, &create("/multi"));
    let acl = vec![AclRef { perms: 31, id: IdRef { scheme: "world", id: "anyone" } }];
    for (bytes, fits) in [(LIMIT - 1, true), (LIMIT, true), (LIMIT + 1, false)] {
        let data = vec![b'x'; bytes];
        let path = format!("/{bytes}");
        let mode = CreateMode::Persistent;
        let op = Op::Create { path: &path, data: Some(&data), acl: acl.clone(), mode, ttl: 0 };
        let requests = [
            Request::Change(Change::new(op)),
            set("/set", &data),
            Request::Multi(vec![Change::new(Op::SetData { path: "/multi", data: Some(&data), version: -1 })]),
        ];
        for request in requests {
            let refused = client.ask(&mut server, &request)[0].contains("error -8");
            // A failed multi says so in its results, not in its header.
            let multi = matches!(request, Request::Multi(_));
            assert_eq!(refused, !fits && !multi, "{:?} of {bytes} bytes", request.opcode());
        }
        let length =
            |path: &str| server.room.snapshot().node(path).unwrap().map_or(0, |n| n.stat().data_length);
        let kept = if fits { bytes as i32 } else { LIMIT as i32 };
        assert_eq!((length("/set"), length("/multi")), (kept, kept));
        assert_eq!(length(&path), if fits { bytes as i32 } else { 0 });
    }
    assert_eq!(server.room.metrics.warren_znode_too_large_total.value(), 3);
}

#[test]
fn below_the_disks_reserve_what_grows_is_refused_and_not_even_logged() {
    let mut server = Server::start();
    let mut client = server.client();
    client.ask(&mut server, &create("/a"));
    client.ask(&mut server, &set("/a", b"four"));
    server.room.set_growth_refused(true);
    let logged = server.log.reader().last_index();
    let grow = Change::new(Op::SetData { path: "/a", data: Some(b"longer"), version: -1 });
    for (request, answer) in [
        (create("/b"), "3 error -125 @3"),
        (set("/a", b"longer"), "4 error -125 @3"),
        (Request::Multi(vec![grow]), "5 error -125 @3"),
        (get("/a"), "6 ok \"four\" v1 @3"),
    ] {
        assert_eq!(client.ask(&mut server, &request), [answer]);
    }
    assert_eq!(server.log.reader().last_index(), logged);
    // What frees space goes on.
    assert_eq!(client.ask(&mut server, &set("/a", b"4")), ["7 ok @4"]);
    let delete = Request::Change(Change::new(Op::Delete { path: "/a", version: -1 }));
    assert_eq!(client.ask(&mut server, &delete), ["8 ok @5"]);
    server.room.set_growth_refused(false);
    assert_eq!(client.ask(&mut server, &create("/b")), ["9 ok /b @6"]);
}

#[test]
fn watches_beyond_the_limit_are_refused() {
    let mut server = Server::start();
    let mut client = server.client();
    for i in 0..100 {
        client.ask(&mut server, &Request::Exists { path: &format!("/{i}"), watch: true });
    }
    let refused = client.ask(&mut server, &Request::Exists { path: "/more", watch: true });
    assert_eq!(refused, ["101 error -127 @1"]);
    assert_eq!(
        client.ask(&mut server, &Request::Exists { path: "/more", watch: false }),
        ["102 error -101 @1"]
    );
}

#[test]
fn a_connection_that_goes_leaves_nothing_behind() {
    let mut server = Server::start();
    let mut client = server.client();
    client.ask(&mut server, &Request::Exists { path: "/x", watch: true });
    client.ask(&mut server, &Request::GetChildren { path: "/", watch: true });
    client.ask(&mut server, &Request::AddWatch { path: "/y", mode: AddWatchMode::Persistent });
    client.send(&create("/a"));
    client.turn(&mut server);
    assert_eq!(server.room.metrics.outstanding_requests.value(), 1);
    let mut effects = Effects::default();
    let room = server.room.clone();
    client.connection.on_closed(&room, &mut effects);
    server.take(&mut effects);
    assert_eq!((room.watches.len(), room.metrics.outstanding_requests.value()), (0, 0));
}

#[test]
fn a_read_only_session_reads_and_is_refused_what_a_leader_would_have_to_do() {
    let mut server = Server::start();
    server.client().ask(&mut server, &create("/a"));
    let mut client = server.stranger();
    client.connection.phase = Phase::Attaching { read_only: Some(true) };
    let attached = Attached {
        session: 5,
        password: [1; 16],
        timeout_ms: 10_000,
        generation: 1,
        pulse: Arc::new(Pulse::of_read_only()),
        read_only: true,
    };
    client.connection.mailbox.put(Zxid::ZERO, Item::Attached(attached));
    let response = ConnectResponse::decode(&client.bytes(&mut server)[4..]).unwrap();
    assert_eq!((response.session, response.read_only), (5, Some(true)));
    // No contact with a leader is needed, however long it lasts.
    server.room.set_contact_ms(0);
    let logged = server.log.reader().last_index();
    let multi = Request::Multi(vec![Change::new(Op::Check { path: "/a", version: -1 })]);
    for request in [get("/a"), create("/b"), get("/a"), multi, Request::Sync { path: "/" }] {
        client.send(&request);
    }
    assert_eq!(
        client.all(&mut server),
        ["1 ok \"0\" v0 @2", "2 error -119 @2", "3 ok \"0\" v0 @2", "4 error -119 @2", "5 error -119 @2"]
    );
    let watch = Request::GetData { path: "/a", watch: true };
    assert_eq!(client.ask(&mut server, &watch), ["6 ok \"0\" v0 @2"]);
    assert_eq!(client.ask(&mut server, &Request::CloseSession), ["7 ok @2"]);
    assert_eq!(client.connection.ending(), Some(Ending::SessionClosed));
    assert_eq!(server.log.reader().last_index(), logged);
}
