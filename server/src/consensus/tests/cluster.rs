//! An ensemble in memory: messages are late, lost and doubled as the dice say; appends become durable late; a crash
//! loses what did not. Everything committed anywhere is one history, and every look at it is checked.

use super::super::{
    Action, Committed, Consensus, Event, READ_BYTES_MAX, Start, Submission, Timers, found, joining, raft_id,
};
use crate::entropy::Entropy;
use crate::moment::Moment;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use warren_storage::log::{Append, HardState, Log, LogOptions, LogRecord};
use warren_storage::simdisk::SimDisk;
use warren_storage::tree::Position;
use warren_storage::{
    Asker, Change, Code, Command, Decided, Entry, Logged, Member, MemberRole, Members, Rules, SharedDisk, Tag,
};
use warren_transport::peer::{PeerMessage, RaftMessage, ServerId, SnapshotHead};

/// Steps of the clock.
const STEP: Duration = Duration::from_millis(1);

/// Dice from a seed.
#[derive(Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.roll() % n.max(1)
    }

    pub(super) fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1_000) < per_mille
    }
}

impl Entropy for Dice {
    fn fill(&mut self, out: &mut [u8]) {
        out.iter_mut().for_each(|b| *b = self.roll() as u8);
    }
}

/// How bad the world is.
#[derive(Clone, Copy)]
pub(super) struct Faults {
    pub(super) drop_per_mille: u64,
    pub(super) double_per_mille: u64,
    pub(super) delay_us_max: u64,
    pub(super) sync_us_max: u64,
}

pub(super) const CALM: Faults =
    Faults { drop_per_mille: 0, double_per_mille: 0, delay_us_max: 500, sync_us_max: 1_000 };
pub(super) const BAD: Faults =
    Faults { drop_per_mille: 80, double_per_mille: 80, delay_us_max: 30_000, sync_us_max: 20_000 };

enum Job {
    Append { number: u64, records: Vec<LogRecord>, hard_state: Option<HardState> },
    Install { number: u64, head: SnapshotHead, hard_state: Option<HardState> },
}

enum Flight {
    Message(ServerId, ServerId, PeerMessage),
    Snapshot(ServerId, ServerId, RaftMessage, Tree),
    SnapshotSent(ServerId, ServerId, bool),
}

/// What a tree has that consensus looks at.
#[derive(Clone, Default)]
pub(super) struct Tree {
    position: Position,
    pub(super) conf: Vec<u8>,
    pub(super) members: Members,
    retired: BTreeMap<ServerId, u32>,
}

impl Tree {
    /// Whether the entry has a table.
    fn apply(&mut self, entry: &Committed) -> bool {
        self.position = entry.position;
        if let Some(conf) = &entry.conf_state {
            self.conf = conf.clone();
        }
        let table = match Entry::decode(&entry.data) {
            Ok(Entry::Found { table, .. }) if self.members.servers.is_empty() => Some((0, table)),
            Ok(Entry::ForceQuorum { table, .. }) => Some((entry.position.index as i64, table)),
            Ok(Entry::Batch { commands, .. }) => {
                commands.iter().find_map(|command| match Logged::decode(command).unwrap().command {
                    Command::Reconfigure { decided: Some(Decided::Made(table)), .. } => {
                        Some((entry.position.index as i64, table))
                    }
                    _ => None,
                })
            }
            _ => None,
        };
        let Some((version, table)) = table else { return false };
        for old in &self.members.servers {
            if table.members.get(old.id).is_none() {
                self.retired.insert(old.id, old.disk);
            }
        }
        self.members = Members { version, ..table.members };
        true
    }
}

/// One run of a server.
pub(super) struct Life {
    pub(super) consensus: Consensus,
    log: Log,
    jobs: VecDeque<Job>,
    /// The first of the jobs is durable then.
    job_done: Option<Moment>,
    /// Rows of a snapshot that is to be installed.
    staged: Option<Tree>,
    pub(super) tree: Tree,
    /// Changes of the membership that were refused.
    pub(super) refused: Vec<Code>,
    pub(super) incarnation: u64,
    pub(super) applied: u64,
    /// Writes submitted in this run.
    pub(super) written: u64,
    /// Tokens of syncs, with the least index that each must see.
    pub(super) syncs: BTreeMap<u64, u64>,
    pub(super) synced: u64,
    /// The run took a snapshot and gave up what was under way.
    pub(super) gave_up: bool,
    pub(super) leader: Option<ServerId>,
}

pub(super) struct Server {
    pub(super) id: ServerId,
    disk: SimDisk,
    /// Which of its disks it is.
    pub(super) number: u32,
    /// What the fake tree has on disk.
    kept: Tree,
    pub(super) life: Option<Life>,
    pub(super) snapshots_taken: u64,
}

pub(super) struct Cluster {
    pub(super) now: Moment,
    pub(super) dice: Dice,
    pub(super) faults: Faults,
    pub(super) servers: Vec<Server>,
    flights: BTreeMap<(u64, u64), Flight>,
    flown: u64,
    cut: BTreeSet<(ServerId, ServerId)>,
    /// Everything committed, by index: term and data.
    pub(super) history: BTreeMap<u64, (u64, Bytes)>,
    leaders: BTreeMap<u64, ServerId>,
    /// Runs that were ever begun: how much they wrote, and whether all of that must be in the history.
    runs: BTreeMap<(ServerId, u64), (u64, bool)>,
    /// What happened, for comparing two runs of one seed.
    pub(super) trace: Vec<String>,
    pub(super) tracing: bool,
    founders: u8,
    /// Those who are to vote tell the leader their stores.
    pub(super) introduces: bool,
    /// raft's configuration, by the index that made it.
    configurations: BTreeMap<u64, Vec<u8>>,
}

impl Cluster {
    pub(super) fn new(servers: u8, seed: u64) -> Cluster {
        Cluster::with_spares(servers, 0, seed)
    }

    /// Some that found it, and some that may come later.
    pub(super) fn with_spares(founders: u8, spares: u8, seed: u64) -> Cluster {
        let servers = founders + spares;
        let mut cluster = Cluster {
            now: Moment { us: 1_000_000, wall_ms: 1_700_000_000_000 },
            dice: Dice::new(seed),
            faults: CALM,
            servers: Vec::new(),
            flights: BTreeMap::new(),
            flown: 0,
            cut: BTreeSet::new(),
            history: BTreeMap::new(),
            leaders: BTreeMap::new(),
            runs: BTreeMap::new(),
            trace: Vec::new(),
            tracing: false,
            founders,
            introduces: true,
            configurations: BTreeMap::new(),
        };
        for id in 1..=servers {
            let disk = SimDisk::new();
            let server =
                Server { id, disk, number: 1, kept: Tree::default(), life: None, snapshots_taken: 0 };
            cluster.servers.push(server);
        }
        for id in 1..=founders {
            cluster.start(id);
        }
        cluster
    }

    pub(super) fn at(&mut self, id: ServerId) -> &mut Server {
        &mut self.servers[usize::from(id) - 1]
    }

    pub(super) fn life(&mut self, id: ServerId) -> &mut Life {
        self.at(id).life.as_mut().expect("the server runs")
    }

    pub(super) fn ids(&self) -> Vec<ServerId> {
        self.servers.iter().map(|s| s.id).collect()
    }

    pub(super) fn is_up(&self, id: ServerId) -> bool {
        self.servers[usize::from(id) - 1].life.is_some()
    }

    /// Start a server on its disk.
    pub(super) fn start(&mut self, id: ServerId) {
        let voters: Vec<u64> = (1..=self.founders).map(|id| raft_id(id, 1)).collect();
        let found_members = self.founding_members();
        let founder = id <= self.founders;
        let incarnation = self.dice.roll() | 1;
        let entropy = Dice::new(self.dice.roll());
        let now = self.now;
        let server = self.at(id);
        let disk: SharedDisk = Arc::new(server.disk.clone());
        let options = LogOptions {
            segment_bytes_max: 2_048,
            ahead_bytes: 4_096,
            journal_bytes: 16_384,
            cache_bytes: 1_024,
        };
        let (mut log, mut recovered) = Log::open(disk, options).unwrap();
        if server.kept.conf.is_empty() {
            // As whom it takes part is durable before anything else.
            let id = raft_id(id, server.number);
            server.kept.conf = if founder && server.number == 1 { found(&voters) } else { joining(id) };
        }
        let Position { index, term } = server.kept.position;
        if recovered.last_index < index {
            log.reset(index, term, None).unwrap();
            recovered.hard_state = log.hard_state();
        }
        let start = Start {
            id: raft_id(id, server.number),
            server_id: id,
            incarnation,
            reader: log.reader(),
            hard_state: recovered.hard_state,
            checkpoint: server.kept.position,
            conf_state: server.kept.conf.clone(),
            members: server.kept.members.clone(),
            retired: server.kept.retired.clone(),
            found: Some(found_members),
            rules: Rules::default(),
            timers: Timers::default(),
            read_bytes_max: READ_BYTES_MAX,
            entropy: Box::new(entropy),
        };
        let life = Life {
            consensus: Consensus::new(now, start).unwrap(),
            log,
            jobs: VecDeque::new(),
            job_done: None,
            staged: None,
            tree: server.kept.clone(),
            refused: Vec::new(),
            incarnation,
            applied: index,
            written: 0,
            syncs: BTreeMap::new(),
            synced: 0,
            gave_up: false,
            leader: None,
        };
        server.life = Some(life);
        self.runs.insert((id, incarnation), (0, false));
        self.drain(id);
    }

    /// The power goes: what was not synced is lost.
    pub(super) fn crash(&mut self, id: ServerId) {
        let seed = self.dice.roll();
        let server = self.at(id);
        let Some(life) = server.life.take() else { return };
        server.disk.lose_power();
        drop(life);
        server.disk = server.disk.after_crash(seed);
    }

    pub(super) fn cut(&mut self, from: ServerId, to: ServerId) {
        self.cut.insert((from, to));
    }

    pub(super) fn isolate(&mut self, id: ServerId) {
        for other in self.ids() {
            self.cut.insert((id, other));
            self.cut.insert((other, id));
        }
    }

    pub(super) fn heal(&mut self) {
        self.cut.clear();
    }

    /// A server's clients write.
    pub(super) fn write(&mut self, id: ServerId, count: u64) {
        let mut submissions = Vec::new();
        let life = self.life(id);
        let incarnation = life.incarnation;
        for _ in 0..count {
            life.written += 1;
            let tag = Tag { session: incarnation as i64, generation: u32::from(id), sequence: life.written };
            let logged = Logged { tag: Some(tag), ids: Vec::new(), command: Command::CloseSession };
            submissions.push(Submission::Command(logged.encode()));
        }
        let (written, gave_up) = (life.written, life.gave_up);
        self.runs.insert((id, incarnation), (written, !gave_up));
        self.tell(id, Event::Submit(submissions));
    }

    pub(super) fn sync(&mut self, id: ServerId) {
        let committed = self.history.keys().next_back().copied().unwrap_or(0);
        let life = self.life(id);
        let token = life.synced + life.syncs.len() as u64 + 1;
        life.syncs.insert(token, committed);
        self.tell(id, Event::Submit(vec![Submission::Sync(token)]));
    }

    /// A server's tree makes a checkpoint of what it has applied, and its log is purged.
    pub(super) fn checkpoint(&mut self, id: ServerId) {
        let applied = self.life(id).applied;
        // Not while a snapshot replaces the tree.
        if applied == 0 || self.life(id).jobs.iter().any(|job| matches!(job, Job::Install { .. })) {
            return;
        }
        let server = self.at(id);
        let life = server.life.as_mut().unwrap();
        let Tree { position, conf: conf_state, .. } = life.tree.clone();
        if position.index <= server.kept.position.index {
            return;
        }
        server.kept = life.tree.clone();
        life.log.purge(position.index).unwrap();
        let first_index = life.log.reader().first_index();
        self.tell(id, Event::Checkpointed { position, conf_state, first_index });
    }

    /// As the service does when the configuration changes.
    fn checkpoint_without_purge(&mut self, id: ServerId) {
        let server = self.at(id);
        let life = server.life.as_mut().unwrap();
        if life.jobs.iter().any(|job| matches!(job, Job::Install { .. })) {
            return;
        }
        server.kept = life.tree.clone();
        let Tree { position, conf: conf_state, .. } = life.tree.clone();
        let first_index = life.log.reader().first_index();
        let now = self.now;
        let event = Event::Checkpointed { position, conf_state, first_index };
        self.life(id).consensus.handle(now, event).unwrap();
    }

    pub(super) fn tell(&mut self, id: ServerId, event: Event) {
        let now = self.now;
        if self.tracing {
            let line = format!("{} {id} told {event:?}", now.us);
            self.trace.push(line);
        }
        self.life(id).consensus.handle(now, event).unwrap();
        self.drain(id);
    }

    fn founding_members(&self) -> Members {
        let member = |id| Member {
            id,
            disk: 1,
            role: MemberRole::Voter,
            peer_addr: format!("s{id}:2182"),
            client_addr: String::new(),
        };
        Members { version: 0, servers: (1..=self.founders).map(member).collect() }
    }

    /// A server's operator asks for a change of the membership.
    pub(super) fn reconfigure(&mut self, id: ServerId, change: Change) {
        let life = self.life(id);
        let asker = Some(Asker { server: id, incarnation: life.incarnation, request: 1 });
        let command = Command::Reconfigure { asker, change, decided: None };
        let encoded = Logged { tag: None, ids: Vec::new(), command }.encode();
        self.tell(id, Event::Submit(vec![Submission::Reconfigure(encoded)]));
    }

    /// A server that is not in it comes in.
    pub(super) fn add(&mut self, at: ServerId, id: ServerId) {
        let change = Change::Add {
            id,
            peer_addr: format!("s{id}:2182"),
            client_addr: format!("s{id}:2181"),
            observer: false,
        };
        self.reconfigure(at, change);
    }

    /// Its disk is lost, and it will come back with this one.
    pub(super) fn wipe(&mut self, id: ServerId, number: u32) {
        let server = self.at(id);
        server.life = None;
        (server.disk, server.kept, server.number) = (SimDisk::new(), Tree::default(), number);
    }

    /// The members, as a server has applied them.
    pub(super) fn members(&self, id: ServerId) -> Option<&Members> {
        self.servers[usize::from(id) - 1].life.as_ref().map(|life| &life.tree.members)
    }

    /// The newest table that somebody has, unless raft is still on its way to it there.
    pub(super) fn settled_members(&self) -> Option<Members> {
        let lives = self.servers.iter().filter_map(|s| s.life.as_ref());
        let newest = lives.max_by_key(|life| life.tree.members.version)?;
        (!newest.consensus.facts().changing).then(|| newest.tree.members.clone())
    }

    /// Those that took part and are down come back, by chance.
    pub(super) fn start_former(&mut self, per_mille: u64) {
        for id in self.ids() {
            if !self.is_up(id) && !self.at(id).kept.conf.is_empty() && self.dice.chance(per_mille) {
                self.start(id);
            }
        }
    }

    /// What the others still want to write has no leader to go to.
    pub(super) fn excuse_all_but(&mut self, voters: &[ServerId]) {
        for id in self.ids() {
            if let Some(life) =
                self.servers[usize::from(id) - 1].life.as_ref().filter(|_| !voters.contains(&id))
            {
                self.runs.get_mut(&(id, life.incarnation)).expect("it runs").1 = false;
            }
        }
    }

    /// Does everybody that runs agree that these vote, and none changes?
    pub(super) fn agree_on_voters(&self, voters: &[ServerId]) -> bool {
        voters.iter().all(|id| {
            let Some(life) = &self.servers[usize::from(*id) - 1].life else { return true };
            let facts = life.consensus.facts();
            let table: Vec<ServerId> = life.tree.members.voters().map(|m| m.id).collect();
            facts.voters == voters && table == voters && !facts.changing
        })
    }

    /// The same entry makes the same configuration everywhere, and voters in the table are raft's.
    fn note_configuration(&mut self, id: ServerId, entry: &Committed) {
        let Some(conf) = &entry.conf_state else { return };
        let known = self.configurations.entry(entry.position.index).or_insert_with(|| conf.clone());
        assert_eq!(known, conf, "server {id} has another configuration at {}", entry.position.index);
    }

    fn fly(&mut self, flight: Flight, after_us: u64) {
        self.flown += 1;
        self.flights.insert((self.now.us + 1 + after_us, self.flown), flight);
    }

    fn drain(&mut self, id: ServerId) {
        while let Some(action) = self.life(id).consensus.poll_action() {
            if self.tracing {
                let line = format!("{} {id} asks {action:?}", self.now.us);
                self.trace.push(line);
            }
            match action {
                Action::Append { number, records, hard_state } => {
                    self.life(id).jobs.push_back(Job::Append { number, records, hard_state });
                }
                Action::Install { number, head, hard_state } => {
                    self.life(id).jobs.push_back(Job::Install { number, head, hard_state });
                }
                Action::Commit(entries) => {
                    let (mut tabled, mut configured) = (false, false);
                    for entry in entries {
                        self.note_configuration(id, &entry);
                        let life = self.life(id);
                        tabled |= life.tree.apply(&entry);
                        configured |= entry.conf_state.is_some();
                        note_refusals(&entry, &mut life.refused);
                        let Position { index, term } = entry.position;
                        let known = self.history.entry(index).or_insert((term, entry.data.clone()));
                        assert_eq!(*known, (term, entry.data), "server {id} commits another entry {index}");
                        let life = self.life(id);
                        assert_eq!(index, life.applied + 1, "server {id} commits out of order");
                        life.applied = index;
                    }
                    let applied = self.life(id).applied;
                    let now = self.now;
                    if tabled {
                        let Tree { members, retired, .. } = self.life(id).tree.clone();
                        self.life(id)
                            .consensus
                            .handle(now, Event::Members { members, retired, recorded: true })
                            .unwrap();
                    }
                    self.life(id).consensus.handle(now, Event::Applied(applied)).unwrap();
                    if configured {
                        self.checkpoint_without_purge(id);
                    }
                }
                Action::ReadAt { index, tokens } => {
                    for token in tokens {
                        let least = self.life(id).syncs.remove(&token).expect("a token comes back once");
                        assert!(index >= least, "server {id} reads at {index}, {least} was committed before");
                        self.life(id).synced += 1;
                    }
                }
                Action::Lead(leads) => {
                    assert_eq!(self.life(id).consensus.is_leading(), leads);
                    let term = self.life(id).consensus.facts().term;
                    if leads {
                        let leader = *self.leaders.entry(term).or_insert(id);
                        assert_eq!(leader, id, "two leaders in term {term}");
                    }
                }
                Action::Leader { leader, .. } => self.life(id).leader = leader,
                Action::Send { to, message } => {
                    let copies = 1 + u64::from(self.dice.chance(self.faults.double_per_mille));
                    for _ in 0..copies {
                        if !self.dice.chance(self.faults.drop_per_mille) {
                            let after = self.dice.below(self.faults.delay_us_max);
                            self.fly(Flight::Message(id, to, message.clone()), after);
                        }
                    }
                }
                Action::SendSnapshot { to, mut message } => {
                    let kept = self.at(id).kept.clone();
                    let newest = kept.position;
                    let head = message.snapshot.as_mut().expect("a snapshot has a head");
                    assert!(newest.index >= head.index, "a head that is not in any checkpoint");
                    (head.index, head.term) = (newest.index, newest.term);
                    head.conf_state = kept.conf.clone().into();
                    let ok = !self.dice.chance(self.faults.drop_per_mille);
                    let after = self.dice.below(20 * self.faults.delay_us_max);
                    if ok {
                        self.fly(Flight::Snapshot(id, to, message, kept), after);
                    }
                    self.fly(Flight::SnapshotSent(id, to, ok), after);
                }
            }
        }
    }

    /// A millisecond passes.
    fn step(&mut self) {
        self.now = self.now + STEP;
        while let Some(entry) = self.flights.first_entry() {
            if entry.key().0 > self.now.us {
                break;
            }
            match entry.remove() {
                Flight::Message(from, to, message) => {
                    if self.is_up(to) && !self.cut.contains(&(from, to)) {
                        self.tell(to, Event::Peer { from, message });
                    } else if self.is_up(from) && self.dice.chance(100) {
                        self.tell(from, Event::Unreachable { server: to });
                    }
                }
                Flight::Snapshot(from, to, message, tree) => {
                    if self.is_up(to) && !self.cut.contains(&(from, to)) {
                        let life = self.life(to);
                        if !life.jobs.iter().any(|job| matches!(job, Job::Install { .. })) {
                            life.staged = Some(tree);
                        }
                        self.tell(to, Event::SnapshotReceived { from, message });
                    }
                }
                Flight::SnapshotSent(from, to, ok) => {
                    if self.is_up(from) {
                        let ok = ok && self.is_up(to) && !self.cut.contains(&(from, to));
                        self.tell(from, Event::SnapshotSent { to, ok });
                    }
                }
            }
        }
        for id in self.ids() {
            if self.is_up(id) {
                self.work(id);
                let now = self.now;
                if self.life(id).consensus.poll_timeout().us <= now.us {
                    self.tell(id, Event::Tick);
                }
            }
        }
        self.introduce_joiners();
    }

    /// Who is to vote tells the leader its store.
    fn introduce_joiners(&mut self) {
        let Some(leader) = self.leader().filter(|_| self.introduces) else { return };
        let members = self.life(leader).tree.members.clone();
        let reaches = |c: &Cluster, id| c.is_up(id) && !c.cut.contains(&(id, leader));
        for Member { id, disk, .. } in members.servers.into_iter().filter(|m| m.role == MemberRole::Joining) {
            if reaches(self, id) && self.at(id).number == disk {
                self.tell(leader, Event::Met { server: id, disk, store_id: raft_id(id, disk) });
            }
        }
    }

    /// The log's thread: one job at a time.
    fn work(&mut self, id: ServerId) {
        let (now, after) = (self.now, self.dice.below(self.faults.sync_us_max));
        let server = self.at(id);
        let life = server.life.as_mut().unwrap();
        match life.job_done {
            None if !life.jobs.is_empty() => life.job_done = Some(now + Duration::from_micros(after)),
            Some(done) if done.us <= now.us => {
                life.job_done = None;
                let event = match life.jobs.pop_front().expect("there is one under way") {
                    Job::Append { number, records, hard_state } => {
                        life.log.append(Append { records: &records, hard_state }).unwrap();
                        Event::Persisted(number)
                    }
                    Job::Install { number, head, hard_state } => {
                        let tree = life.staged.take().expect("its rows are here");
                        assert_eq!(tree.position, Position { index: head.index, term: head.term });
                        (server.kept, life.tree) = (tree.clone(), tree);
                        let Tree { members, retired, .. } = life.tree.clone();
                        life.consensus
                            .handle(now, Event::Members { members, retired, recorded: true })
                            .unwrap();
                        life.log.reset(head.index, head.term, hard_state).unwrap();
                        (life.applied, life.gave_up) = (head.index, true);
                        server.snapshots_taken += 1;
                        let run = (id, life.incarnation);
                        self.runs.get_mut(&run).unwrap().1 = false;
                        Event::Installed { number }
                    }
                };
                self.tell(id, event);
            }
            _ => {}
        }
    }

    pub(super) fn run_ms(&mut self, ms: u64) {
        for _ in 0..ms {
            self.step();
        }
    }

    /// Until it is so, and how long that took, ms.
    pub(super) fn run_until(&mut self, ms_max: u64, what: &str, is_so: impl Fn(&Cluster) -> bool) -> u64 {
        for ms in 0..ms_max {
            if is_so(self) {
                return ms;
            }
            self.step();
        }
        let facts: Vec<_> =
            self.servers.iter().map(|s| s.life.as_ref().map(|l| l.consensus.facts())).collect();
        panic!("{what}: not within {ms_max} ms; {facts:#?}");
    }

    /// The leader of the highest term among those that run.
    pub(super) fn leader(&self) -> Option<ServerId> {
        let leads = |s: &&Server| s.life.as_ref().is_some_and(|l| l.consensus.is_leading());
        self.servers
            .iter()
            .filter(leads)
            .max_by_key(|s| s.life.as_ref().map(|l| l.consensus.facts().term))
            .map(|s| s.id)
    }

    pub(super) fn elect(&mut self) -> ServerId {
        self.run_until(3_000, "an election", |c| {
            let up = || c.servers.iter().filter_map(|s| s.life.as_ref());
            c.leader().is_some() && up().all(|l| l.leader == c.leader())
        });
        self.leader().unwrap()
    }

    /// Everything asked by those that run is committed and applied everywhere.
    pub(super) fn is_settled(&self) -> bool {
        let last = self.history.keys().next_back().copied().unwrap_or(0);
        self.servers
            .iter()
            .filter_map(|s| s.life.as_ref())
            .all(|life| life.consensus.facts().own == 0 && life.applied == last && life.syncs.is_empty())
    }

    /// Every write is in the history at most once and in its order, and all of a run that never died are.
    pub(super) fn check_exactly_once(&self) {
        let mut next: BTreeMap<(ServerId, u64), (u64, u64)> = BTreeMap::new();
        for (expected, (index, (_, data))) in (1..).zip(&self.history) {
            assert_eq!(*index, expected, "the history has no holes");
            if data.is_empty() {
                continue;
            }
            let Entry::Batch { origin, commands, .. } = Entry::decode(data).unwrap() else { continue };
            if origin.incarnation == 0 {
                continue;
            }
            let run = (origin.server, origin.incarnation);
            let (number, sequence) = next.entry(run).or_insert((1, 1));
            let first = origin.last + 1 - commands.len() as u64;
            let (_, whole) = self.runs[&run];
            if whole {
                assert_eq!(first, *number, "run {run:?} at entry {index}");
            } else {
                assert!(first >= *number, "run {run:?} at entry {index}: {first} comes after {number}");
            }
            *number = origin.last + 1;
            for command in commands {
                let Some(tag) = Logged::decode(command).unwrap().tag else { continue };
                if whole {
                    assert_eq!(tag.sequence, *sequence, "run {run:?}");
                } else {
                    assert!(tag.sequence >= *sequence, "run {run:?}: {} again", tag.sequence);
                }
                *sequence = tag.sequence + 1;
            }
        }
        for server in &self.servers {
            let Some(life) = &server.life else { continue };
            let run = (server.id, life.incarnation);
            let (written, whole) = self.runs[&run];
            if whole {
                let done = next.get(&run).map_or(0, |(_, sequence)| sequence - 1);
                assert_eq!(done, written, "run {run:?} wrote {written}");
            }
        }
    }
}

fn note_refusals(entry: &Committed, into: &mut Vec<Code>) {
    let Ok(Entry::Batch { commands, .. }) = Entry::decode(&entry.data) else { return };
    for command in commands {
        let command = Logged::decode(command).unwrap().command;
        if let Command::Reconfigure { decided: Some(Decided::Refused(code)), .. } = command {
            into.push(code);
        }
    }
}
