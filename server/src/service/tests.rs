//! Several services joined by hand: a log that commits at once whatever reaches the leader, and links that can be cut.
//! Consensus has its own tests; here it is a vector.

mod divergence;
mod read_only;

use super::*;
use crate::consensus;
use crate::mailbox::{Attached, Pulse};
use crate::metrics::Metrics;
use crate::words::Mode;
use warren_storage::simdisk::SimDisk;
use warren_storage::tree::{Begun, Position, TreeOptions};
use warren_storage::{CreateMode, Op, Origin, Rules, Tag};

const TIMEOUT_MS: i32 = 6_000;
const TICK_MS: u64 = 2_000;
/// Time moves in such steps.
const STEP: Duration = Duration::from_millis(50);

struct Server {
    service: Service,
    room: Arc<Room>,
    /// Servers of the same group reach each other.
    group: u8,
    /// Commits do not arrive here for now.
    held: bool,
    /// Entries that arrived.
    delivered: usize,
    checkpoint: Option<Checkpoint>,
    /// As it asked for last.
    abstains: bool,
    /// Marks up to here lie in the checkpoint that it began with.
    marks_before: u64,
}

struct Ensemble {
    now: Moment,
    servers: Vec<Server>,
    /// Who orders what the log gets.
    leader: usize,
    term: u64,
    log: Vec<Committed>,
    /// What found no leader.
    stuck: Vec<(usize, Submission)>,
    /// What reached the leader, as it was encoded.
    commands: Vec<Vec<u8>>,
    sessions: i64,
    connections: u64,
}

/// A client's end, as far as the service sees it.
struct Client {
    mailbox: Arc<Mailbox>,
    server: usize,
    told: Vec<Item>,
}

impl Client {
    fn look(&mut self, ensemble: &Ensemble) {
        let mut items = VecDeque::new();
        assert!(self.mailbox.take(ensemble.servers[self.server].room.zxid(), &mut items));
        self.told.extend(items.into_iter().map(|(_, item)| item));
    }

    fn attached(&self) -> Attached {
        let found = self.told.iter().find_map(|item| match item {
            Item::Attached(attached) => Some(attached.clone()),
            _ => None,
        });
        found.unwrap_or_else(|| panic!("it is not attached: {:?}", self.told))
    }

    fn closed(&self) -> Option<&'static str> {
        self.told.iter().find_map(|item| match item {
            Item::Close(why) | Item::CutOff(why) => Some(*why),
            _ => None,
        })
    }

    fn refused(&self) -> bool {
        self.told.iter().any(|item| matches!(item, Item::Refused))
    }
}

fn tree() -> Tree {
    let options = TreeOptions { memory_bytes: 16 << 20, hash_seed: 1, store_id: 1 };
    Tree::open(Arc::new(SimDisk::new()), options).unwrap()
}

impl Server {
    /// With an empty tree, which may have been found wrong.
    fn new(now: Moment, id: ServerId, voters: &[u64], differs: Option<Position>) -> Server {
        let mut tree = tree();
        tree.take_part(1, consensus::found(voters), Begun::default()).unwrap();
        if differs.is_some() {
            tree.set_differs(differs).unwrap();
        }
        let room = Arc::new(Room::new(1, Arc::new(Metrics::default())));
        let options = ServiceOptions {
            server_id: id,
            observer: false,
            incarnation: 100 + u64::from(id),
            tick_ms: TICK_MS,
            read_only: true,
            sessions_max: 100,
            sweep_interval: Duration::from_secs(3_600),
            sweeps_per_minute_max: 100,
            container_unused_max: Duration::ZERO,
            checkpoint_interval: Duration::from_secs(36_000),
            compare_interval: Duration::from_secs(1),
        };
        let service = Service::new(now, tree, room.clone(), options);
        Server {
            service,
            room,
            group: 0,
            held: false,
            delivered: 0,
            checkpoint: None,
            abstains: false,
            marks_before: 0,
        }
    }
}

impl Ensemble {
    /// With server 1 as its leader.
    fn of(count: u8) -> Ensemble {
        let now = Moment { us: 1_000_000_000, wall_ms: 1_700_000_000_000 };
        let voters: Vec<u64> = (1..=count).map(|id| consensus::raft_id(id, 1)).collect();
        let servers = (1..=count).map(|id| Server::new(now, id, &voters, None)).collect();
        let mut ensemble = Ensemble {
            now,
            servers,
            leader: 0,
            term: 0,
            log: Vec::new(),
            stuck: Vec::new(),
            commands: Vec::new(),
            sessions: 0,
            connections: 0,
        };
        ensemble.elect(0);
        ensemble
    }

    fn id(at: usize) -> ServerId {
        at as ServerId + 1
    }

    fn reach(&self, a: usize, b: usize) -> bool {
        self.servers[a].group == self.servers[b].group
    }

    /// This server leads all whom it reaches; nobody else hears of it.
    fn elect(&mut self, at: usize) {
        self.term += 1;
        self.leader = at;
        assert!(self.has_quorum(at));
        for other in 0..self.servers.len() {
            if self.reach(at, other) {
                self.tell(other, Event::Leader { term: self.term, leader: Some(Self::id(at)) });
            }
        }
        self.append(Entry::NewEpoch { time_ms: self.now.wall_ms }.encode());
        self.settle();
    }

    /// Another run of a server: it replays the whole log.
    fn restart(&mut self, at: usize, differs: Option<Position>) {
        let voters: Vec<u64> = (1..=self.servers.len()).map(|n| consensus::raft_id(n as u8, 1)).collect();
        self.servers[at] = Server::new(self.now, Self::id(at), &voters, differs);
        let (term, leader) = (self.term, Some(Self::id(self.leader)));
        self.tell(at, Event::Leader { term, leader });
        while let Some(action) = self.servers[at].service.poll_action() {
            self.act(at, action);
        }
    }

    fn has_quorum(&self, at: usize) -> bool {
        (0..self.servers.len()).filter(|other| self.reach(at, *other)).count() * 2 > self.servers.len()
    }

    fn append(&mut self, data: Vec<u8>) {
        let position = Position { index: self.log.len() as u64 + 1, term: self.term };
        self.log.push(Committed { position, data: data.into(), conf_state: None });
    }

    fn append_command(&mut self, command: &[u8]) {
        let origin = Origin { server: 1, incarnation: 1, last: self.log.len() as u64 };
        let (time_ms, rules) = (self.now.wall_ms, Rules::default());
        self.append(Entry::Batch { origin, time_ms, rules, commands: vec![command] }.encode());
    }

    fn tell(&mut self, at: usize, event: Event) {
        let server = &mut self.servers[at];
        server.service.handle(self.now, event).unwrap();
        server.service.publish();
    }

    /// Everything that is under way goes on until nothing moves.
    fn settle(&mut self) {
        loop {
            let mut moved = false;
            for (from, submission) in std::mem::take(&mut self.stuck) {
                moved |= self.submit(from, submission);
            }
            for at in 0..self.servers.len() {
                while let Some(action) = self.servers[at].service.poll_action() {
                    moved = true;
                    self.act(at, action);
                }
                let server = &self.servers[at];
                if self.reach(at, self.leader) && !server.held && server.delivered < self.log.len() {
                    let mut entries = self.log[server.delivered..].to_vec();
                    let (mark, before) = (Entry::Mark.encode(), server.marks_before);
                    let skipped = |e: &&mut Committed| *e.data == *mark && e.position.index <= before;
                    entries.iter_mut().filter(skipped).for_each(|e| e.data = Vec::new().into());
                    self.servers[at].delivered = self.log.len();
                    self.tell(at, Event::Commit(entries));
                    moved = true;
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn act(&mut self, at: usize, action: Action) {
        match action {
            Action::Submit(submissions) => {
                for submission in submissions {
                    self.submit(at, submission);
                }
            }
            Action::Send { to, message } => {
                let to = usize::from(to) - 1;
                if self.reach(at, to) {
                    self.tell(to, Event::Peer { from: Self::id(at), message });
                }
            }
            Action::Checkpoint(checkpoint) => self.servers[at].checkpoint = Some(checkpoint),
            Action::Abstain(wrong) => self.servers[at].abstains = wrong,
            Action::Applied(_)
            | Action::Superseded(_)
            | Action::Purge(_)
            | Action::Members { .. }
            | Action::Links
            | Action::Reconfigured { .. } => {}
        }
    }

    /// True when it reached a leader that has its quorum.
    fn submit(&mut self, from: usize, submission: Submission) -> bool {
        if !self.reach(from, self.leader) || !self.has_quorum(self.leader) {
            self.stuck.push((from, submission));
            return false;
        }
        match submission {
            Submission::Sync(token) => {
                self.tell(from, Event::ReadAt { index: self.log.len() as u64, tokens: vec![token] });
            }
            Submission::LeaderOnly(_) if from != self.leader => {}
            Submission::Command(command)
            | Submission::Reconfigure(command)
            | Submission::LeaderOnly(command) => {
                self.append_command(&command);
                self.commands.push(command);
            }
            Submission::OpenSession { timeout_ms, owner, incarnation, request } => {
                self.sessions += 1;
                let command = Command::CreateSession {
                    session: self.sessions,
                    timeout_ms,
                    password: [self.sessions as u8; 16],
                    owner,
                    incarnation,
                    request,
                };
                self.append_command(&Logged { tag: None, ids: Vec::new(), command }.encode());
            }
            Submission::NewEpoch => self.append(Entry::NewEpoch { time_ms: self.now.wall_ms }.encode()),
            Submission::Mark => self.append(Entry::Mark.encode()),
        }
        true
    }

    /// Time passes.
    fn step(&mut self) {
        self.now = self.now + STEP;
        for at in 0..self.servers.len() {
            self.tell(at, Event::Tick);
        }
        self.settle();
    }

    fn connect(&mut self, server: usize, session: SessionId, password: [u8; 16], timeout_ms: i32) -> Client {
        self.connect_as(server, session, password, timeout_ms, false)
    }

    fn connect_as(
        &mut self,
        server: usize,
        session: SessionId,
        password: [u8; 16],
        timeout_ms: i32,
        read_only: bool,
    ) -> Client {
        self.ask(server, |mailbox| Event::Connect {
            mailbox,
            session,
            password,
            timeout_ms,
            read_only,
            asked: None,
            generation: None,
        })
    }

    /// A connection that goes on with another process asks for its session; with this attachment it had it.
    fn resume(&mut self, server: usize, had: &Attached) -> Client {
        let Attached { session, password, timeout_ms, generation, .. } = *had;
        self.ask(server, |mailbox| Event::Connect {
            mailbox,
            session,
            password,
            timeout_ms,
            read_only: false,
            asked: None,
            generation: Some(generation),
        })
    }

    /// A connection with this mailbox asks for its session.
    fn ask(&mut self, server: usize, connect: impl FnOnce(Arc<Mailbox>) -> Event) -> Client {
        self.connections += 1;
        let mailbox = Mailbox::new(self.connections, Box::new(|| {}));
        self.tell(server, connect(mailbox.clone()));
        self.settle();
        let mut client = Client { mailbox, server, told: Vec::new() };
        client.look(self);
        client
    }

    /// A client with a session of its own.
    fn client(&mut self, server: usize, timeout_ms: i32) -> Client {
        let client = self.connect(server, 0, [0; 16], timeout_ms);
        client.attached();
        client
    }

    fn generation(&self, server: usize, session: SessionId) -> Option<u32> {
        self.servers[server].service.tree().session(session).map(|row| row.generation)
    }

    /// The client goes on being heard until one or the other has happened: how long it took until its connection was
    /// closed, and until the session was gone at `watcher`.
    fn until_gone(&mut self, client: &mut Client, watcher: usize) -> (Option<Duration>, Duration) {
        let begin = self.now;
        let attached = client.attached();
        let mut closed = None;
        for _ in 0..4_000 {
            attached.pulse.beat(self.now.ms());
            self.step();
            client.look(self);
            let took = self.now - begin;
            if client.closed().is_some() {
                closed = closed.or(Some(took));
            }
            if self.generation(watcher, attached.session).is_none() {
                return (closed, took);
            }
        }
        panic!("the session did not expire");
    }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[test]
fn a_session_lives_while_its_client_is_heard_wherever_that_is() {
    let mut ensemble = Ensemble::of(3);
    let mut clients: Vec<Client> = (0..3).map(|at| ensemble.client(at, TIMEOUT_MS)).collect();
    let mut silent = ensemble.client(1, TIMEOUT_MS);
    let begin = ensemble.now;
    let mut silent_for = None;
    for step in 0..1_200 {
        if step % 40 == 0 {
            clients.iter().for_each(|client| client.attached().pulse.beat(ensemble.now.ms()));
        }
        ensemble.step();
        if silent_for.is_none() && ensemble.generation(0, silent.attached().session).is_none() {
            silent_for = Some(ensemble.now - begin);
        }
    }
    for client in &mut clients {
        client.look(&ensemble);
        assert_eq!(client.closed(), None);
        assert_eq!(ensemble.generation(0, client.attached().session), Some(1));
    }
    // Its deadline is rounded up to the next tick, and the report that it was made in came a little later.
    let silent_for = silent_for.expect("it was silent for a minute");
    assert!(silent_for >= ms(6_000) && silent_for <= ms(9_000), "{silent_for:?}");
    silent.look(&ensemble);
    assert_eq!(silent.closed(), Some("its session expired"));
}

#[test]
fn a_server_that_is_cut_off_closes_connections_before_the_leader_expires_their_sessions() {
    for timeout_ms in [3_000, 4_500, 6_000, 60_000] {
        let mut ensemble = Ensemble::of(3);
        let mut client = ensemble.client(1, timeout_ms);
        (0..100).for_each(|_| {
            client.attached().pulse.beat(ensemble.now.ms());
            ensemble.step();
        });
        ensemble.servers[1].group = 1;
        let (closed, expired) = ensemble.until_gone(&mut client, 0);
        let closed = closed.expect("it was closed first");
        assert_eq!(client.closed(), Some(crate::connection::CUT_OFF));
        let most = ms((timeout_ms as u64 * 2 / 3).min(10_000));
        assert!(closed < expired && closed <= most + ms(500), "{timeout_ms}: {closed:?}, {expired:?}");
        assert!(closed + ms(1_100) >= most, "{timeout_ms}: not sooner than it must: {closed:?}");
        assert_eq!(ensemble.servers[1].room.metrics.warren_sessions_cut_off_total.value(), 1);
    }
}

#[test]
fn a_leader_that_is_cut_off_closes_connections_too() {
    let mut ensemble = Ensemble::of(3);
    let mut client = ensemble.client(0, TIMEOUT_MS);
    (0..100).for_each(|_| ensemble.step());
    ensemble.servers[0].group = 1;
    // It does not even know that it leads nobody any more.
    ensemble.elect(1);
    let (closed, expired) = ensemble.until_gone(&mut client, 1);
    assert!(closed.expect("it was closed first") < expired);
    assert!(ensemble.servers[0].service.leading);
}

/// A leader without its quorum may not know it for a while. Its answers must not count as contact, or the client of a
/// server that follows it would believe in a session that another leader has expired.
#[test]
fn a_leader_without_its_quorum_gives_nobody_contact() {
    let mut ensemble = Ensemble::of(5);
    let mut client = ensemble.client(1, TIMEOUT_MS);
    (0..100).for_each(|_| ensemble.step());
    for at in [0, 1] {
        ensemble.servers[at].group = 1;
    }
    ensemble.elect(2);
    let (closed, expired) = ensemble.until_gone(&mut client, 2);
    assert!(closed.expect("it was closed first") < expired);
}

#[test]
fn nobody_is_cut_off_while_there_is_contact_and_an_election_is_no_reason() {
    let mut ensemble = Ensemble::of(3);
    let mut clients: Vec<Client> = (0..3).map(|at| ensemble.client(at, 3_000)).collect();
    for step in 0..600 {
        clients.iter().for_each(|client| client.attached().pulse.beat(ensemble.now.ms()));
        if step % 100 == 50 {
            for at in 0..3 {
                let term = ensemble.term;
                ensemble.tell(at, Event::Leader { term, leader: None });
            }
        }
        if step % 100 == 70 {
            ensemble.elect((ensemble.leader + 1) % 3);
        }
        ensemble.step();
    }
    for client in &mut clients {
        client.look(&ensemble);
        assert_eq!((client.closed(), ensemble.generation(0, client.attached().session)), (None, Some(1)));
    }
}

#[test]
fn a_new_leader_gives_everybody_a_full_timeout() {
    let mut ensemble = Ensemble::of(3);
    let client = ensemble.client(1, TIMEOUT_MS);
    for _ in 0..110 {
        ensemble.step();
    }
    let elected = ensemble.now;
    ensemble.elect(2);
    while ensemble.generation(2, client.attached().session).is_some() {
        ensemble.step();
        assert!(ensemble.now - elected < ms(9_000), "then it expires");
    }
    assert!(ensemble.now - elected >= ms(6_000), "{:?}", ensemble.now - elected);
    assert_eq!(ensemble.servers[0].service.expiries(), [], "a leader no more, it expires nobody");
}

#[test]
fn what_a_deposed_leader_finds_expired_is_not() {
    let mut ensemble = Ensemble::of(3);
    let client = ensemble.client(1, TIMEOUT_MS);
    let session = client.attached().session;
    ensemble.servers[0].group = 1;
    for _ in 0..400 {
        ensemble.step();
    }
    let late = ensemble.stuck.iter().find_map(|(from, submission)| match submission {
        Submission::LeaderOnly(command) if *from == 0 => Some(command.clone()),
        _ => None,
    });
    let late = late.expect("nobody reported to the old leader");
    ensemble.elect(1);
    ensemble.append_command(&late);
    ensemble.settle();
    assert_eq!(ensemble.generation(1, session), Some(1));
}

#[test]
fn clients_are_served_from_the_first_leader_on_and_between_leaders() {
    let mut ensemble = Ensemble::of(3);
    let serving = |ensemble: &Ensemble| ensemble.servers.iter().all(|server| server.room.is_serving());
    let modes = |ensemble: &Ensemble| -> Vec<Mode> {
        ensemble.servers.iter().map(|server| server.room.standing().mode).collect()
    };
    assert!(serving(&ensemble));
    assert_eq!(modes(&ensemble), [Mode::Leader, Mode::Follower, Mode::Follower]);
    for at in 0..3 {
        ensemble.tell(at, Event::Leader { term: 1, leader: None });
    }
    assert!(serving(&ensemble));
    assert_eq!(modes(&ensemble), [Mode::Follower; 3]);
    ensemble.elect(2);
    let standing = ensemble.servers[0].room.standing();
    assert_eq!((standing.server_id, standing.leader, standing.term), (1, Some(3), 2));
    ensemble.servers[0].room.stop();
    ensemble.step();
    assert!(!ensemble.servers[0].room.is_serving(), "a stop is for good");

    // A leader alone is not enough: its epoch must have begun here.
    let room = Arc::new(Room::new(1, Arc::new(Metrics::default())));
    let options = ensemble.servers[1].service.options.clone();
    let mut late = Service::new(ensemble.now, tree(), room.clone(), options);
    for (event, serves) in [
        (Event::Leader { term: 1, leader: Some(1) }, false),
        (Event::Commit(ensemble.log[..1].to_vec()), true),
        (Event::Leader { term: 2, leader: None }, true),
    ] {
        late.handle(ensemble.now, event).unwrap();
        late.publish();
        assert_eq!(room.is_serving(), serves);
    }
    assert!(!late.has_epoch());
}

#[test]
fn one_voter_stands_alone_and_is_never_cut_off() {
    let mut ensemble = Ensemble::of(1);
    assert_eq!(ensemble.servers[0].room.standing().mode, Mode::Standalone);
    let mut client = ensemble.client(0, 60_000);
    ensemble.tell(0, Event::Leader { term: 1, leader: None });
    for _ in 0..800 {
        ensemble.step();
    }
    client.look(&ensemble);
    assert_eq!(client.closed(), None);
}

#[test]
fn a_copy_of_a_move_changes_nothing() {
    let mut ensemble = Ensemble::of(3);
    let mut first = ensemble.client(0, TIMEOUT_MS);
    let Attached { session, password, .. } = first.attached();
    let mut second = ensemble.connect(1, session, password, TIMEOUT_MS);
    assert_eq!(second.attached().generation, 2);
    first.look(&ensemble);
    assert_eq!(first.closed(), Some("its session attached elsewhere"));
    let copy = ensemble.commands.last().unwrap().clone();
    ensemble.append_command(&copy);
    ensemble.settle();
    assert_eq!(ensemble.generation(2, session), Some(2));
    // A late one must not take the session back.
    let mut third = ensemble.connect(2, session, password, TIMEOUT_MS);
    assert_eq!(third.attached().generation, 3);
    ensemble.append_command(&copy);
    ensemble.settle();
    third.look(&ensemble);
    second.look(&ensemble);
    assert_eq!((ensemble.generation(1, session), third.closed()), (Some(3), None));
    assert_eq!(second.closed(), Some("its session attached elsewhere"));
}

#[test]
fn of_two_servers_that_are_asked_for_a_session_the_later_one_has_it_and_nobody_is_told_that_it_expired() {
    let mut ensemble = Ensemble::of(3);
    let client = ensemble.client(0, TIMEOUT_MS);
    let Attached { session, password, .. } = client.attached();
    // The second server asks while it does not know yet of the first one's move.
    ensemble.servers[2].held = true;
    let mut early = ensemble.connect(1, session, password, TIMEOUT_MS);
    let mut late = ensemble.connect(2, session, password, TIMEOUT_MS);
    ensemble.servers[2].held = false;
    ensemble.settle();
    late.look(&ensemble);
    early.look(&ensemble);
    assert_eq!((early.attached().generation, late.attached().generation), (2, 3));
    assert!(!late.refused() && early.closed().is_some());
    assert_eq!(ensemble.generation(0, session), Some(3));
}

#[test]
fn a_connection_that_goes_on_with_another_process_takes_no_session_back() {
    let mut ensemble = Ensemble::of(3);
    let client = ensemble.client(2, TIMEOUT_MS);
    let had = client.attached();
    assert_eq!(ensemble.resume(2, &had).attached().generation, had.generation + 1);
    // Its client has moved on, as this server knows or does not know yet.
    let had = ensemble.client(2, TIMEOUT_MS).attached();
    let mut moved = ensemble.connect(0, had.session, had.password, TIMEOUT_MS);
    assert!(ensemble.resume(2, &had).refused());
    let had = moved.attached();
    ensemble.servers[2].held = true;
    let mut again = ensemble.connect(1, had.session, had.password, TIMEOUT_MS);
    let mut late = ensemble.resume(2, &had);
    ensemble.servers[2].held = false;
    ensemble.settle();
    late.look(&ensemble);
    again.look(&ensemble);
    assert!(late.refused());
    assert_eq!((again.closed(), ensemble.generation(0, had.session)), (None, Some(had.generation + 1)));
    moved.look(&ensemble);
    assert!(moved.closed().is_some());
}

#[test]
fn a_session_that_was_made_elsewhere_just_now_is_not_refused() {
    let mut ensemble = Ensemble::of(3);
    ensemble.servers[2].held = true;
    let client = ensemble.client(0, TIMEOUT_MS);
    let Attached { session, password, .. } = client.attached();
    let mut moved = ensemble.connect(2, session, password, TIMEOUT_MS);
    let mut stranger = ensemble.connect(2, 77, password, TIMEOUT_MS);
    let mut thief = ensemble.connect(2, session, [0; 16], TIMEOUT_MS);
    assert!(moved.told.is_empty() && stranger.told.is_empty());
    ensemble.servers[2].held = false;
    ensemble.settle();
    for client in [&mut moved, &mut stranger, &mut thief] {
        client.look(&ensemble);
    }
    assert_eq!(moved.attached().session, session);
    assert!(stranger.refused() && thief.refused());
}

#[test]
fn who_waits_for_a_session_without_a_leader_is_sent_away_in_the_end() {
    let mut ensemble = Ensemble::of(3);
    ensemble.servers[1].group = 1;
    let mut clients =
        [ensemble.connect(1, 0, [0; 16], TIMEOUT_MS), ensemble.connect(1, 77, [0; 16], TIMEOUT_MS)];
    for _ in 0..130 {
        ensemble.step();
    }
    for client in &mut clients {
        client.look(&ensemble);
        assert_eq!(client.closed(), Some("no leader gave it its session in time"));
    }
    let service = &ensemble.servers[1].service;
    assert_eq!((service.connects.len(), service.lookups.len()), (0, 0));
}

#[test]
fn an_installed_tree_closes_all_connections_and_goes_on_from_there() {
    let mut ensemble = Ensemble::of(3);
    let mut attached = ensemble.client(2, TIMEOUT_MS);
    let session = attached.attached().session;
    // A checkpoint of the old tree is on its way.
    ensemble.tell(2, Event::CheckpointNow);
    ensemble.settle();
    let checkpoint = ensemble.servers[2].checkpoint.take().expect("it was asked for");
    ensemble.servers[2].held = true;
    let mut asking = ensemble.connect(2, 0, [0; 16], TIMEOUT_MS);
    let create = |sequence, path| {
        let acl = vec![warren_storage::AclRef {
            perms: 31,
            id: warren_storage::IdRef { scheme: "world", id: "anyone" },
        }];
        let op = Op::Create { path, data: None, acl, mode: CreateMode::Persistent, ttl: 0 };
        let tag = Some(Tag { session, generation: 1, sequence });
        Logged { tag, ids: Vec::new(), command: Command::Single(op) }.encode()
    };
    ensemble.append_command(&create(1, "/a"));
    ensemble.settle();

    let mut tree = tree();
    tree.set_conf_state(ensemble.servers[2].service.tree().conf_state().to_vec());
    for entry in &ensemble.log {
        match Entry::decode(&entry.data).unwrap() {
            Entry::NewEpoch { .. } => tree.begin_epoch(),
            Entry::Introduce { server, disk, store_id } => tree.introduce(server, disk, store_id),
            Entry::Mark => {}
            Entry::Found { .. } | Entry::ForceQuorum { .. } => unreachable!("nobody logs a table here"),
            Entry::Batch { time_ms, rules, commands, .. } => {
                for command in commands {
                    tree.apply(time_ms, &rules, &Logged::decode(command).unwrap()).unwrap();
                }
            }
        }
        tree.advance(entry.position.index, entry.position.term);
    }
    ensemble.servers[2].delivered = ensemble.log.len();
    ensemble.tell(2, Event::Install { tree: Box::new(tree) });
    ensemble.servers[2].held = false;
    for client in [&mut attached, &mut asking] {
        client.look(&ensemble);
        assert_eq!(client.closed(), Some("this server took a snapshot"));
    }
    let written = checkpoint.write().unwrap();
    ensemble.tell(2, Event::Checkpointed(written));
    ensemble.append_command(&create(2, "/b"));
    ensemble.settle();
    let (one, three) = (&ensemble.servers[0], &ensemble.servers[2]);
    assert_eq!(one.service.tree().digest(), three.service.tree().digest());
    assert_eq!(one.room.zxid(), three.room.zxid());
    assert!(three.room.snapshot().node("/b").unwrap().is_some());
    assert!(three.room.is_serving());
    // The client comes back, and the next checkpoint is of the new tree.
    let again = ensemble.connect(2, session, attached.attached().password, TIMEOUT_MS);
    assert_eq!(again.attached().generation, 2);
    ensemble.tell(2, Event::CheckpointNow);
    ensemble.settle();
    let written = ensemble.servers[2].checkpoint.take().expect("it was asked for").write().unwrap();
    ensemble.tell(2, Event::Checkpointed(written));
}

#[test]
fn a_standstill_of_a_follower_is_no_silence_of_its_clients() {
    let mut ensemble = Ensemble::of(3);
    let client = ensemble.client(1, 30_000);
    let pulse: Arc<Pulse> = client.attached().pulse;
    let begin = ensemble.now;
    pulse.beat(begin.ms());
    for _ in 0..20 {
        ensemble.step();
    }
    // Server 2 stands still for 5 s, the others do not; what its clients send meanwhile is not read.
    for _ in 0..100 {
        ensemble.now = ensemble.now + STEP;
        for at in [0, 2] {
            ensemble.tell(at, Event::Tick);
        }
        ensemble.settle();
    }
    let woke = ensemble.now;
    while ensemble.generation(0, client.attached().session).is_some() {
        ensemble.step();
    }
    assert!(ensemble.now - woke >= ms(30_000), "{:?}", ensemble.now - woke);
}
