//! What four-letter words are told: the open connections, and where everything else is.

use super::Clock;
use super::engine::Engine;
use super::ensemble::Ensemble;
use crate::admin::{Request, Response, Status};
use crate::config::{Address, Config};
use crate::connection::{Connection, Facts};
use crate::consensus::Role;
use crate::metrics::Gauge;
use crate::moment::Moment;
use crate::room::Room;
use crate::words::{
    self, Asked, ConfFacts, ConnectionFacts, EnviFacts, ExpirySet, LatencyMs, Mode, ServerFacts,
    SessionFacts, Sessions,
};
use crate::words::{Whitelist, Word};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU16, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::Notify;
use warren_storage::tree::TreeError;

/// Open connections, and what a word may ask of the server.
pub(super) struct Registry {
    connections: Mutex<BTreeMap<u64, Arc<Shown>>>,
    pub(super) room: Arc<Room>,
    pub(super) config: Config,
    whitelist: Whitelist,
    store: PathBuf,
    clock: Clock,
    started: Moment,
    pub(super) engine: Engine,
    pub(super) ensemble: Option<Arc<Ensemble>>,
    /// As bound; 0 before.
    pub(super) port: AtomicU16,
    /// See [`super::rebuild`].
    pub(super) begins_anew: AtomicBool,
    /// Asks for a [`super::restart`].
    pub(super) restart: Notify,
    /// Connections that this process took over from the one before it in its place, where there was one.
    pub(super) kept: OnceLock<usize>,
    /// As `stmk` set it.
    trace_mask: AtomicI64,
}

/// Who waits for data or existence of which znode, as ZooKeeper tells watches.
#[derive(Default)]
pub(super) struct Watched {
    pub(super) by_path: BTreeMap<String, Vec<i64>>,
    pub(super) by_session: BTreeMap<i64, Vec<String>>,
    /// Pairs of both.
    pub(super) pairs: u64,
}

/// What a connection shows of itself.
pub(super) struct Shown {
    peer: SocketAddr,
    since: Moment,
    wake: Arc<Notify>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    facts: Facts,
    queued: u64,
    session: Option<(i64, i32)>,
    /// As the figures were when `crst` asked to begin anew.
    base: Facts,
}

impl Shown {
    /// Bring it up to date.
    pub(super) fn show(&self, connection: &Connection) {
        let mut state = self.state.lock();
        state.facts.clone_from(&connection.facts);
        state.queued = connection.outstanding() as u64;
        state.session = connection.session().map(|s| (s.session, s.timeout_ms));
    }

    fn reset(&self) {
        let mut state = self.state.lock();
        state.base = state.facts.clone();
    }

    fn facts(&self) -> ConnectionFacts {
        let state = self.state.lock();
        let (facts, base) = (&state.facts, &state.base);
        let answered = facts.answered - base.answered;
        ConnectionFacts {
            peer: self.peer,
            interest: 1,
            queued: state.queued,
            received: facts.received - base.received,
            sent: facts.sent - base.sent,
            session: state.session.map(|(id, timeout_ms)| SessionFacts {
                id,
                last_op: facts.last_opcode.map_or("NA", |op| words::last_op(op.wire())),
                established_ms: self.since.wall_ms,
                timeout_ms,
                last_cxid: (facts.last_xid >= 0).then_some(facts.last_xid as i32),
                last_zxid: facts.last_zxid,
                last_response_ms: facts.last_response_ms,
                last_ms: facts.last_latency_ms,
                latency: LatencyMs {
                    min: facts.min_latency_ms,
                    avg: (facts.total_latency_ms - base.total_latency_ms) as f64 / answered.max(1) as f64,
                    max: facts.max_latency_ms,
                },
            }),
        }
    }
}

impl Registry {
    pub(super) fn new(
        clock: Clock,
        room: Arc<Room>,
        config: Config,
        store: PathBuf,
        engine: Engine,
        ensemble: Option<Arc<Ensemble>>,
    ) -> Registry {
        let whitelist = Whitelist::new(&config.four_letter_words.whitelist);
        let started = clock.now();
        Registry {
            connections: Mutex::default(),
            room,
            config,
            whitelist,
            store,
            clock,
            started,
            engine,
            ensemble,
            port: AtomicU16::new(0),
            begins_anew: AtomicBool::new(false),
            restart: Notify::new(),
            kept: OnceLock::new(),
            trace_mask: AtomicI64::new(words::TRACE_MASK),
        }
    }

    pub(super) fn now(&self) -> Moment {
        self.clock.now()
    }

    pub(super) fn len(&self) -> usize {
        self.connections.lock().len()
    }

    pub(super) fn enter(&self, id: u64, peer: SocketAddr, now: Moment, wake: Arc<Notify>) -> Arc<Shown> {
        let shown = Arc::new(Shown { peer, since: now, wake, state: Mutex::default() });
        self.connections.lock().insert(id, shown.clone());
        self.room.metrics.num_alive_connections.add(1);
        shown
    }

    pub(super) fn leave(&self, id: u64) {
        self.connections.lock().remove(&id);
        self.room.metrics.num_alive_connections.add(-1);
    }

    /// Wake every connection, so that it sees that the daemon stops.
    pub(super) fn wake_all(&self) {
        self.connections.lock().values().for_each(|shown| shown.wake.notify_one());
    }

    pub(super) fn rejected(&self) {
        self.room.metrics.connection_rejected.add(1);
    }

    pub(super) fn connections(&self) -> Vec<ConnectionFacts> {
        self.connections.lock().values().map(|shown| shown.facts()).collect()
    }

    pub(super) fn server(&self) -> ServerFacts {
        let snapshot = self.room.snapshot();
        let metrics = &self.room.metrics;
        ServerFacts {
            mode: self.room.standing().mode,
            latency: metrics.request_latency(),
            packets_received: metrics.packets_received.value(),
            packets_sent: metrics.packets_sent.value(),
            connections: self.len() as u64,
            outstanding: metrics.outstanding_requests.value().max(0) as u64,
            zxid: snapshot.zxid().wire(),
            znodes: snapshot.node_count(),
            proposal_bytes: (self.room.standing().mode == Mode::Leader).then(|| {
                let sizes =
                    [&metrics.last_proposal_size, &metrics.min_proposal_size, &metrics.max_proposal_size];
                sizes.map(Gauge::value).into()
            }),
        }
    }

    /// What an operator asked for by the command line.
    pub(super) async fn administer(&self, request: Request) -> Response {
        match request {
            Request::Status => Response::Status(Box::new(self.status())),
            Request::TransferLeader { to } => self.transfer(to).await,
            Request::Members => self.membership(),
            Request::ChangeMembers(change) => self.change_members(change).await,
            Request::ForceQuorum => self.force_quorum().await,
            Request::Rebuild => self.rebuild().await,
            Request::Settings => Response::Settings(self.config.to_toml()),
            Request::BackupKept { .. } => {
                Response::Refused("no backup was taken on this connection".to_owned())
            }
            Request::Backup { .. } | Request::Log | Request::Restart => {
                unreachable!("it is answered where the socket is, for more than an answer comes of it")
            }
        }
    }

    async fn transfer(&self, to: Option<u8>) -> Response {
        let Some(facts) = self.engine.facts() else {
            return Response::Refused("this server stands alone: there is nobody to hand over to".to_owned());
        };
        if facts.role != Role::Leading {
            return Response::Refused(match facts.leader {
                Some(leader) => format!("this server does not lead; ask server {leader}"),
                None => "there is no leader at the moment; try again".to_owned(),
            });
        }
        if let Some(id) = to.filter(|id| !facts.voters.contains(id)) {
            return Response::Refused(format!("server {id} is no voter; the voters are {:?}", facts.voters));
        }
        if to.is_some() && to == facts.leader {
            return Response::Done("this server leads already".to_owned());
        }
        match self.engine.hand_over(to).await {
            true => Response::Done("leadership is handed over".to_owned()),
            false => Response::Refused(
                "leadership was not handed over: no follower is near enough, or the one named is not linked"
                    .to_owned(),
            ),
        }
    }

    fn status(&self) -> Status {
        let snapshot = self.room.snapshot();
        let metrics = &self.room.metrics;
        let (tree, log) = store_bytes(&self.store);
        let addr = &self.config.client.addr;
        let standing = self.room.standing();
        let sync = metrics.sync_latency();
        Status {
            version: crate::version::full(),
            run: format!("{:016x}", self.room.run().1),
            connections_kept: self.kept.get().map(|kept| *kept as u64),
            server_id: standing.server_id,
            ensemble: self.ensemble.as_ref().map_or(String::new(), |e| e.config.name.clone()),
            role: match (standing.mode, standing.leader) {
                (Mode::Follower, None) => "looking".to_owned(),
                (mode, _) => mode.name().to_owned(),
            },
            leader: standing.leader,
            serving: self.room.is_serving(),
            epoch: snapshot.zxid().epoch(),
            zxid: format!("{:#x}", snapshot.zxid().wire()),
            uptime_s: self.clock.now().since(self.started).as_secs(),
            client_addr: Address::new(addr.host.clone(), self.port.load(Ordering::Relaxed)).to_string(),
            connections: self.len() as u64,
            sessions: metrics.global_sessions.value().max(0) as u64,
            znodes: snapshot.node_count(),
            data_bytes: snapshot.data_bytes(),
            watches: self.room.watches.len() as u64,
            outstanding: metrics.outstanding_requests.value().max(0) as u64,
            store_bytes: tree + log,
            disk_free_bytes: metrics.warren_disk_free_bytes.value().max(0) as u64,
            disk_reserve_bytes: u64::from(self.config.storage.disk_reserve_mb) << 20,
            sync_avg_ms: sync.avg,
            sync_max_ms: sync.max,
            files_open: std::fs::read_dir("/proc/self/fd").map_or(0, |open| open.count() as u64),
            files_max: rustix::process::getrlimit(rustix::process::Resource::Nofile)
                .current
                .unwrap_or(u64::MAX),
            growth_refused: self.room.is_growth_refused(),
            tree_differs: self.room.is_wrong(),
            not_a_member: self.is_not_a_member(),
            memory_bytes: resident_bytes().max(0) as u64,
            certificate_s: self.certificate_s(),
            members: self.members(),
        }
    }

    fn session_of(&self, connection: u64) -> Option<i64> {
        self.connections
            .lock()
            .get(&connection)
            .and_then(|shown| shown.state.lock().session.map(|(id, _)| id))
    }

    /// Bring the gauges up to date.
    pub(super) fn measure(&self) {
        let metrics = &self.room.metrics;
        let snapshot = self.room.snapshot();
        metrics.znode_count.set(snapshot.node_count() as i64);
        metrics.ephemerals_count.set(snapshot.ephemeral_count() as i64);
        metrics.approximate_data_size.set(snapshot.data_bytes() as i64);
        metrics.watch_count.set(self.room.watches.len() as i64);
        metrics.warren_clock.set(self.clock.now().wall_ms);
        metrics.uptime.set(self.uptime_ms());
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            metrics.open_file_descriptor_count.set(open.count() as i64);
        }
        let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        metrics.max_file_descriptor_count.set(most.map_or(i64::MAX, |n| n as i64));
        metrics.process_resident_memory_bytes.set(resident_bytes());
        metrics.process_start_time_seconds.set(self.started.wall_ms / 1_000);
        let cpu_ms = cpu_ms();
        metrics.warren_cpu_ms_total.add(cpu_ms.saturating_sub(metrics.warren_cpu_ms_total.value()));
        metrics.warren_serving.set(i64::from(self.room.is_serving()));
        metrics.warren_read_only.set(i64::from(self.room.is_read_only()));
        let (up, down) = self.links();
        metrics.warren_links_up.set(up);
        metrics.warren_links_down.set(down);
        metrics.warren_connections_max.set(self.config.client.connections_max.into());
        metrics.warren_sessions_max.set(self.config.limits.sessions_max.into());
        metrics.warren_watches_max.set(self.config.limits.watches_max.into());
        metrics.warren_outstanding_max.set(self.config.limits.outstanding_max.into());
        let (tree, log) = store_bytes(&self.store);
        metrics.warren_tree_bytes.set(tree as i64);
        metrics.warren_log_bytes.set(log as i64);
    }

    /// Is this word let in?
    pub(super) fn allows(&self, word: Word) -> bool {
        self.whitelist.allows(word)
    }

    pub(super) fn trace_mask(&self) -> i64 {
        self.trace_mask.load(Ordering::Relaxed)
    }

    pub(super) fn set_trace_mask(&self, mask: i64) {
        self.trace_mask.store(mask, Ordering::Relaxed);
    }

    /// `crst`.
    pub(super) fn reset_connections(&self) {
        self.connections.lock().values().for_each(|shown| shown.reset());
    }

    pub(super) fn mntr(&self) -> String {
        self.measure();
        let standing = self.room.standing();
        words::mntr(standing.mode, standing.leader, &self.room.metrics.mntr_lines())
    }

    pub(super) fn conf(&self) -> ConfFacts {
        let store = self.store.display().to_string();
        let port = self.port.load(Ordering::Relaxed);
        let standing = self.room.standing();
        let server_id = if standing.mode == Mode::Standalone { 0 } else { standing.server_id };
        let facts = ConfFacts::new(&self.config, port, &store, self.store_bytes(), server_id);
        ConfFacts { quorum: self.quorum(), ..facts }
    }

    /// Since it began to serve.
    pub(super) fn uptime_ms(&self) -> i64 {
        self.clock.now().since(self.started).as_millis() as i64
    }

    /// Bytes on disk of the tree and of the log.
    pub(super) fn store_bytes(&self) -> (u64, u64) {
        store_bytes(&self.store)
    }

    /// When the last checkpoint was written, s since 1970: nothing else writes that file. −1 where there is none.
    pub(super) fn checkpointed_s(&self) -> i64 {
        let modified = std::fs::metadata(self.store.join("tree.redb")).and_then(|m| m.modified());
        let since = modified.ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
        since.map_or(-1, |since| since.as_secs() as i64)
    }

    async fn answer(&self, word: Word) -> String {
        if !self.room.is_serving() && !self.room.is_read_only() {
            if let Some(text) = word.while_not_serving() {
                let why = self.room.is_wrong() && word != Word::Isro;
                return format!("{text}{}", if why { words::TREE_DIFFERS } else { "" });
            }
        }
        match word {
            Word::Ruok => words::ruok().to_owned(),
            Word::Isro => words::isro(self.room.standing().mode).to_owned(),
            Word::Srvr => words::srvr(&self.server()),
            Word::Stat => words::stat(&self.server(), &self.connections()),
            Word::Cons => words::cons(&self.connections()),
            Word::Mntr => self.mntr(),
            Word::Conf => words::conf(&self.conf()),
            Word::Envi => words::envi(&environment()),
            Word::Dirs => {
                let (tree, log) = store_bytes(&self.store);
                words::dirs(tree, log)
            }
            Word::Crst => {
                self.reset_connections();
                words::crst().to_owned()
            }
            Word::Srst => {
                self.room.metrics.reset();
                words::srst().to_owned()
            }
            Word::Wchs => {
                let Watched { by_path, by_session, pairs } = self.watched();
                words::wchs(by_session.len() as u64, by_path.len() as u64, pairs)
            }
            Word::Wchc => {
                let sessions = self.watched().by_session;
                words::wchc(sessions.iter().map(|(id, paths)| (*id, paths.iter().map(String::as_str))))
            }
            Word::Wchp => {
                let paths = self.watched().by_path;
                words::wchp(paths.iter().map(|(path, ids)| (path.as_str(), ids.iter().copied())))
            }
            Word::Dump => match self.sessions().await {
                Ok((sessions, ephemerals)) => words::dump(&sessions, &ephemerals, &self.silences()),
                Err(e) => format!("The tree cannot be read: {e}\n"),
            },
            Word::Hash => words::hash(&self.room.digests.all()),
            Word::Gtmk | Word::Stmk => self.trace_mask().to_string(),
        }
    }

    pub(super) fn watched(&self) -> Watched {
        let mut watched = Watched::default();
        self.room.watches.each(|path, connection, table| {
            if table == crate::watches::Table::Data {
                if let Some(session) = self.session_of(connection) {
                    watched.pairs += 1;
                    watched.by_path.entry(path.to_string()).or_default().push(session);
                    watched.by_session.entry(session).or_default().push(path.to_string());
                }
            }
        });
        watched
    }

    /// Sessions, and the ephemerals of those that have any.
    pub(super) async fn sessions(&self) -> Result<(Sessions, Vec<(i64, Vec<String>)>), TreeError> {
        let decides = matches!(self.room.standing().mode, Mode::Standalone | Mode::Leader);
        let (tell, told) = tokio::sync::oneshot::channel();
        self.engine.look(move |service| {
            let sessions =
                service.tree().sessions().map(|(id, row)| (id, row.timeout_ms)).collect::<Vec<_>>();
            drop(tell.send((service.expiries(), sessions)));
        });
        let now = self.clock.now();
        let (expiries, mut known) = told.await.unwrap_or_default();
        known.sort_unstable();
        let ids: Vec<i64> = known.iter().map(|(id, _)| *id).collect();
        let sessions = match decides {
            false => Sessions::Known(known),
            true => Sessions::Expiring(
                expiries
                    .into_iter()
                    .map(|(at_ms, members)| ExpirySet {
                        expires_ms: now.wall_ms + at_ms as i64 - now.ms() as i64,
                        members,
                    })
                    .collect(),
            ),
        };
        let snapshot = self.room.snapshot();
        let mut ephemerals = Vec::new();
        for session in ids {
            let mut paths = Vec::new();
            snapshot.ephemerals(session, "", &mut |path| {
                paths.push(path.to_owned());
                true
            })?;
            if !paths.is_empty() {
                ephemerals.push((session, paths));
            }
        }
        Ok((sessions, ephemerals))
    }

    /// Connections by when they are closed unless they are heard of, in ZooKeeper's steps.
    fn silences(&self) -> Vec<ExpirySet<(SocketAddr, i64)>> {
        let mut sets: BTreeMap<i64, Vec<(SocketAddr, i64)>> = BTreeMap::new();
        for facts in self.connections() {
            let (id, heard_ms, timeout_ms) = match &facts.session {
                Some(s) => (s.id, s.last_response_ms.max(s.established_ms), i64::from(s.timeout_ms)),
                None => (0, self.clock.now().wall_ms, SILENCE_STEP_MS),
            };
            let expires_ms = ((heard_ms + timeout_ms) / SILENCE_STEP_MS + 1) * SILENCE_STEP_MS;
            sets.entry(expires_ms).or_default().push((facts.peer, id));
        }
        sets.into_iter().map(|(expires_ms, members)| ExpirySet { expires_ms, members }).collect()
    }
}

/// In which ZooKeeper looks for connections that are silent, and its patience with one that asked for no session; ms.
const SILENCE_STEP_MS: i64 = 10_000;

/// The answer to the word that these bytes are, if they are one.
pub(super) async fn four_letter_word(
    registry: &Registry,
    connection: &Connection,
    input: &[u8],
) -> Option<String> {
    let first = *input.first_chunk::<4>()?;
    if connection.is_greeted() {
        return None;
    }
    match registry.whitelist.ask(first) {
        Asked::Word(Word::Stmk) => {
            // The mask may come behind the word.
            registry.set_trace_mask(words::stmk(input)?);
            Some(registry.answer(Word::Stmk).await)
        }
        Asked::Word(word) => Some(registry.answer(word).await),
        Asked::Refused(text) => Some(text),
        Asked::NoWord => None,
    }
}

/// Bytes on disk of the tree and of the log.
fn store_bytes(store: &Path) -> (u64, u64) {
    let (mut tree, mut log) = (0, 0);
    for entry in std::fs::read_dir(store).into_iter().flatten().flatten() {
        let bytes = entry.metadata().map_or(0, |m| m.len());
        match entry.file_name().to_string_lossy().as_ref() {
            "tree.redb" => tree += bytes,
            name if name.starts_with("log") => log += bytes,
            _ => {}
        }
    }
    (tree, log)
}

fn status_kib(key: &str) -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(key))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

fn resident_bytes() -> i64 {
    status_kib("VmRSS:").unwrap_or(0) * 1024
}

/// What the process computed, ms.
fn cpu_ms() -> u64 {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    used.tv_sec as u64 * 1_000 + used.tv_nsec as u64 / 1_000_000
}

pub(super) fn environment() -> EnviFacts {
    let system = rustix::system::uname();
    let text = |s: &std::ffi::CStr| s.to_string_lossy().into_owned();
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let resident = resident_bytes() as u64 >> 20;
    EnviFacts {
        host_name: text(system.nodename()),
        os_name: text(system.sysname()),
        os_arch: text(system.machine()),
        os_version: text(system.release()),
        user_name: variable("USER"),
        user_home: variable("HOME"),
        user_dir: std::env::current_dir().map(|d| d.display().to_string()).unwrap_or_default(),
        memory_free_mb: 0,
        memory_max_mb: resident,
        memory_total_mb: resident,
    }
}
