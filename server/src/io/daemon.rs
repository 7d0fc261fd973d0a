//! The daemon from start to stop.

use super::clients::{self, Arrival, Clients, Leave, Parking, Reactors};
use super::engine::{Engine, Parts};
use super::ensemble::{Ensemble, Handler};
use super::facts::Registry;
use super::leaving::Leaving;
use super::link_state::peers;
use super::listen::{listen, listen_again, resolve};
use super::priority::only_when_idle;
use super::reconfigure::Reconfigurations;
use super::reload::{Hangup, Reread};
use super::restart::{self, Handed, Taken};
use super::space::Space;
use super::systemd::Systemd;
use super::{
    Clock, SystemEntropy, admin, admin_server, certificates, last_backup, pages, prometheus, with_data,
};
use crate::config::{self, Config, Listen};
use crate::connection::Limits;
use crate::consensus::{self, Timers};
use crate::entropy::Entropy as _;
use crate::founding::{Verdict, keep_promise};
use crate::identity::Authentication;
use crate::membership;
use crate::metrics::Metrics;
use crate::observer::{Candidate, Part, Seat, begins_observing};
use crate::room::Room;
use crate::service::{Service, ServiceOptions};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use warren_storage::discard::discard_if_asked;
use warren_storage::io::{FolderDisk, OpenError};
use warren_storage::log::{self, Log, LogOptions};
use warren_storage::tree::{Begun, Tree, TreeOptions};
use warren_storage::{Disk as _, DiskError, RecoverError, Recovered, recover};
use warren_transport::io::links::{LinkError, LinkTimers, Links, LinksConfig, TlsFiles};
use warren_transport::peer::ServerId;

/// The only server of an ensemble of one.
pub(super) const SERVER_ID: u8 = 1;
/// Threads that carry the links to the other servers.
const LINK_THREADS: usize = 1;
/// Which of its disks a server founds an ensemble with.
const FIRST_DISK: u32 = 1;
/// Share of the memory budget that the log's tail in memory may take.
const LOG_CACHE_SHARE: u64 = 32;
/// Bytes of outstanding requests of all connections, at most.
const OUTSTANDING_BYTES_MAX: i64 = 64 << 20;
/// Bytes of outstanding requests of one connection, at most.
const OUTSTANDING_BYTES_PER_CONNECTION_MAX: usize = 8 << 20;
/// Connections to the AdminServer that the kernel holds until they are accepted.
const ADMIN_BACKLOG: u32 = 32;
/// Between two looks at free space, when little is written.
const DISK_LOOK_EVERY: Duration = Duration::from_secs(1);
/// A checkpoint is made at least this often while anything changes.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(300);
/// The trees of the servers are compared so often while anything changes: a server whose tree is wrong serves no longer
/// than this, and an exchange of messages.
pub(super) const COMPARE_EVERY: Duration = Duration::from_secs(2);

/// Why the daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data folder is ZooKeeper's.
    #[error(
        "{folder} holds a ZooKeeper's data (version-2) and no Warren store; starting here would begin empty beside it. \
         Import it into a new folder with `warren import --from {folder} --data-dir NEW`, or choose another --data-dir"
    )]
    ZooKeeperData {
        /// The data folder.
        folder: String,
    },
    /// The links to the other servers.
    #[error("the links to the other servers cannot be had; `warren certs` makes certificates")]
    Links(#[from] LinkError),
    /// This server took part before, with another store.
    #[error(
        "server {server} took part in this ensemble with another store ({recorded:016x}) than the one in {folder}: its \
         data were lost or exchanged. It must not vote again as if nothing had happened. Bring its own data back, or \
         give the ensemble a server with a new id in its place"
    )]
    Wiped {
        /// This server's id.
        server: u8,
        /// The store that the ensemble knows.
        recorded: u64,
        /// The store's folder.
        folder: String,
    },
    /// A store that was made of a backup or of a ZooKeeper's data is to be an observer's.
    #[error(
        "the store in {folder} was restored or imported, and server {server} only observes, so nobody would be sent what is \
         in it. Restore or import it on a server that votes, and start this one with an empty data folder"
    )]
    DataOfObserver {
        /// This server's id.
        server: u8,
        /// The store's folder.
        folder: String,
    },
    /// The same on a server that is to come to an ensemble which is there.
    #[error(
        "the store in {folder} was restored or imported, and an ensemble begins with it; but `join = true` in [ensemble] says \
         that server {server} comes to one that is there. Take `join` out, or empty the folder"
    )]
    DataOfJoiner {
        /// This server's id.
        server: u8,
        /// The store's folder.
        folder: String,
    },
    /// The store's folder cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// What a failed sync left cannot be written again.
    #[error(
        "a sync failed before this start, and the files in {folder} cannot be written once more; replace the disk"
    )]
    Mend {
        /// The store's folder.
        folder: String,
        /// Why.
        source: DiskError,
    },
    /// The store is to begin anew, and what is there cannot be removed.
    #[error(
        "an operator had this server rebuilt, and the files in {folder} cannot be removed: empty the folder"
    )]
    Discard {
        /// The store's folder.
        folder: String,
        /// Why.
        source: DiskError,
    },
    /// Tree and log cannot be opened, or do not belong together.
    #[error("the store in {folder} cannot be opened")]
    Store {
        /// The store's folder.
        folder: String,
        /// Why.
        source: Box<RecoverError>,
    },
    /// Consensus cannot begin.
    #[error(transparent)]
    Consensus(#[from] consensus::ConsensusError),
    /// An address cannot be listened on.
    #[error("cannot listen on {addr} for {what}")]
    Listen {
        /// As configured.
        addr: String,
        /// Clients or metrics.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The system refuses a thread or a signal handler.
    #[error("the system refuses {what}")]
    System {
        /// What.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
}

/// Serve until SIGTERM or SIGINT. `reread` is what SIGHUP does about the settings, where they are of a file.
///
/// # Errors
/// When it cannot start; once it serves, what is broken stops the process.
pub fn run(config: Config, reread: Option<Reread>) -> Result<(), StartError> {
    pages::keep_small();
    // For what is not a client's: accepting, signals, metrics, timers.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("warren-daemon")
        .enable_all()
        .build()
        .map_err(|source| StartError::System { what: "threads", source })?;
    let systemd = Arc::new(Systemd::start());
    restart::remember_program();
    let served = runtime.block_on(serve(config, reread, systemd.clone()));
    systemd.finish();
    match served? {
        None => Ok(()),
        Some(handed) => {
            let source = restart::become_next(&handed);
            Err(StartError::System { what: "to begin anew in this process' place", source })
        }
    }
}

/// What is to be handed to the next process, if this one is to become it.
async fn serve(
    config: Config,
    reread: Option<Reread>,
    systemd: Arc<Systemd>,
) -> Result<Option<Handed>, StartError> {
    let clock = Clock::start();
    let mut terminate =
        signal(SignalKind::terminate()).map_err(|source| StartError::System { what: "signals", source })?;
    let mut interrupt =
        signal(SignalKind::interrupt()).map_err(|source| StartError::System { what: "signals", source })?;
    // With nothing to read again, the signal keeps its meaning.
    let rereads = config.ensemble.is_some() || reread.is_some();
    let hangup = rereads.then(|| signal(SignalKind::hangup())).transpose();
    let hangup = hangup.map_err(|source| StartError::System { what: "signals", source })?;
    let hangup =
        hangup.map(|signal| Hangup { signal, reread, config: config.clone(), systemd: systemd.clone() });
    systemd.status("opening the store");
    let store = store_folder(&config.data_dir)?;
    // Whoever cannot listen should not open the store either.
    let mut taken = restart::receive();
    let before = taken.as_mut().and_then(|taken| taken.listener.take());
    let listener = listen_again(before, &config.client.addr, config.client.listen_backlog).await;
    let listener = listener.map_err(|source| StartError::Listen {
        addr: config.client.addr.to_string(),
        what: "clients",
        source,
    })?;

    let metrics = Arc::new(Metrics::default());
    last_backup::recall(&config.data_dir, &metrics);
    let began = clock.now();
    let opened = open(&clock, &config, &store, &metrics)?;
    let mut opened = opened;
    let mut begins = Begins::Founds { with: BTreeMap::new() };
    let mut certificates = None;
    let ensemble = match &config.ensemble {
        None => None,
        Some(settings) => {
            let read = certificates::Stamps::take(settings);
            let ensemble = join(settings, &config, &opened, &metrics).await?;
            certificates = Some(certificates::watch(ensemble.clone(), read, metrics.clone()));
            Some(ensemble)
        }
    };
    if let Some(hangup) = hangup {
        hangup.watch(certificates);
    }
    // An observer has nothing to vote with, and so nothing to lose: it begins with what it is fed.
    if let Some(ensemble) = ensemble.as_ref().filter(|e| opened.is_empty() && !e.config.is_observer()) {
        let waiting = systemd.wait_for_others(ensemble.clone());
        let verdict = tokio::select! {
            verdict = ensemble.may_take_part() => verdict,
            _ = terminate.recv() => return Ok(None),
            _ = interrupt.recv() => return Ok(None),
        };
        waiting.abort();
        begins = match verdict {
            Verdict::Join { disk, term } => Begins::Joins { disk, term },
            Verdict::Observe { disk } => Begins::Observes { disk },
            _ => Begins::Founds { with: ensemble.founders() },
        };
    }
    if let Some(ensemble) = ensemble.as_ref().filter(|e| opened.brings_data() && !e.config.is_observer()) {
        let waiting = systemd.wait_for_others(ensemble.clone());
        tokio::select! {
            () = ensemble.may_found_with_data() => {}
            _ = terminate.recv() => return Ok(None),
            _ = interrupt.recv() => return Ok(None),
        }
        waiting.abort();
    }
    opened.take_part(&config, begins)?;
    opened.keep_promise()?;
    let reader = opened.log.reader();
    let limits = Arc::new(limits(&config));
    let taken = taken.map(|taken| (taken, limits.clone()));
    let Started { engine, room, space, resumed } =
        start(&clock, &config, opened, &metrics, ensemble.clone(), taken)?;
    if let Some(ensemble) = &ensemble {
        ensemble.introduce(&engine);
        ensemble.attach_engine(engine.clone(), reader);
    }
    space.look(&engine);
    systemd.watch(clock, engine.clone(), room.clone(), ensemble.clone());
    let registry = Arc::new(Registry::new(
        clock,
        room.clone(),
        config.clone(),
        store.clone(),
        engine.clone(),
        ensemble.clone(),
    ));
    let bound = listener.local_addr().ok();
    registry.port.store(bound.map_or(config.client.addr.port, |a| a.port()), Ordering::Relaxed);
    let metrics_at = match &config.metrics.addr {
        Listen::Off => "off".to_owned(),
        Listen::At(addr) => {
            let failed = |source| StartError::Listen { addr: addr.to_string(), what: "metrics", source };
            let at = resolve(addr).await.map_err(failed)?;
            prometheus::serve(registry.clone(), metrics.clone(), at).map_err(failed)?;
            format!("http://{at}/metrics")
        }
    };
    let admin_at = match &config.admin.addr {
        Listen::Off => "off".to_owned(),
        Listen::At(addr) => match listen(addr, ADMIN_BACKLOG).await {
            Ok(listener) => {
                let at = listener.local_addr().map_or_else(|_| addr.to_string(), |at| at.to_string());
                admin_server::serve(registry.clone(), listener);
                format!("http://{at}{}", config.admin.command_url)
            }
            // Clients matter more, as in ZooKeeper.
            Err(e) => {
                tracing::warn!(
                    "the AdminServer cannot listen on {addr}: {e}; the server goes on without it. Set admin.addr to a free port, or to `off`"
                );
                "off".to_owned()
            }
        },
    };
    let socket = match admin::serve(registry.clone(), &config.data_dir) {
        Ok(socket) => Some(socket),
        // Clients matter more. A path of more than 107 bytes is the usual cause.
        Err(e) => {
            let path = config.data_dir.join(crate::admin::SOCKET);
            tracing::warn!(
                "the command `warren` cannot reach this server: {} cannot be listened on: {e}",
                path.display()
            );
            None
        }
    };
    let (leave, leaves) = watch::channel(Leave::Not);
    let clients = Arc::new(Clients {
        clock,
        room: room.clone(),
        engine: engine.clone(),
        reactors: Reactors::start().map_err(|source| StartError::System { what: "threads", source })?,
        limits,
        registry: registry.clone(),
        connections_max: config.client.connections_max as usize,
        connections_per_address_max: config.client.connections_per_address_max as usize,
        per_address: Mutex::new(HashMap::new()),
        next: AtomicU64::new(0),
        leave: leaves,
        parking: Parking::default(),
    });
    let at = bound.map_or_else(|| config.client.addr.to_string(), |a| a.to_string());
    let said = format!(
        "serving ZooKeeper clients on {at}, data in {}, metrics {metrics_at}, AdminServer {admin_at}",
        config.data_dir.display()
    );
    let served = {
        let (room, metrics) = (room.clone(), metrics.clone());
        let (systemd, ensemble) = (systemd.clone(), ensemble.clone());
        async move {
            while !room.is_serving() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            metrics.startup_txns_load_time.record(clock.now() - began);
            tracing::info!("{said}");
            systemd.ready(&room, ensemble.as_deref());
        }
    };
    match &ensemble {
        // Alone, it takes a moment, and whoever connects should not be turned away for it.
        None => served.await,
        // An ensemble may take any time to have a quorum; words are answered meanwhile.
        Some(_) => drop(tokio::spawn(served)),
    }
    let anew = resumed.is_some();
    if let Some(resumed) = resumed {
        let _ = registry.kept.set(resumed.len());
        clients::adopt(&clients, resumed);
    }
    let accepting = clients::serve(clients.clone(), listener, anew);
    let watching = tokio::spawn({
        let engine = engine.clone();
        async move {
            // What others write or remove; our own threads look when they write.
            let mut timer = tokio::time::interval(DISK_LOOK_EVERY);
            loop {
                timer.tick().await;
                space.look(&engine);
            }
        }
    });

    let name = tokio::select! {
        _ = terminate.recv() => Some("SIGTERM"),
        _ = interrupt.recv() => Some("SIGINT"),
        () = registry.restart.notified() => None,
    };
    let leaving = Leaving { leave, accepting, watching, clients, engine, ensemble, room, registry, systemd };
    let handed = match name {
        Some(name) => {
            leaving.stop(name).await;
            None
        }
        None => Some(leaving.begin_anew().await),
    };
    drop(socket);
    Ok(handed)
}

/// `DATA_DIR/warren`, unless the folder is a ZooKeeper's.
fn store_folder(data_dir: &Path) -> Result<PathBuf, StartError> {
    let store = data_dir.join("warren");
    if data_dir.join("version-2").is_dir() && !store.is_dir() {
        return Err(StartError::ZooKeeperData { folder: data_dir.display().to_string() });
    }
    Ok(store)
}

/// What a server with an empty store does first.
enum Begins {
    /// Found an ensemble with these stores of others, or stand alone.
    Founds { with: BTreeMap<ServerId, u64> },
    /// Come to one that is there, as this disk of the server, which was recorded in this term.
    Joins { disk: u32, term: u64 },
    /// Come to one that is there as an observer.
    Observes { disk: u32 },
}

/// The store, open.
pub(super) struct Opened {
    pub(super) tree: Tree,
    tree_options: TreeOptions,
    pub(super) log: Log,
    pub(super) found: log::Recovered,
    disk: Arc<FolderDisk>,
    pub(super) folder: String,
}

impl Opened {
    /// Was nothing ever written or promised with it?
    fn is_empty(&self) -> bool {
        let written = self.tree.position().index > 0 || self.found.last_index > 0;
        self.tree.disk() == 0 && !written && self.found.hard_state.term == 0
    }

    /// Was it made by a command, of a backup or of a ZooKeeper's data, and never used?
    fn brings_data(&self) -> bool {
        self.tree.disk() == 0 && self.tree.position().index > 0
    }

    /// Say durably as whom it takes part, when it does for the first time: from then on neither the file nor another server
    /// is asked.
    fn take_part(&mut self, config: &Config, begins: Begins) -> Result<(), StartError> {
        if self.tree.disk() != 0 {
            return Ok(());
        }
        if self.brings_data() {
            return with_data::take_part(self, config);
        }
        let settings = config.ensemble.as_ref();
        let server_id = settings.map_or(SERVER_ID, |settings| settings.server_id);
        let comes = |disk| (disk, consensus::joining(consensus::raft_id(server_id, disk)));
        let observes = Begun { observes: true, ..Begun::default() };
        let ((disk, conf_state), begun) = match (begins, settings) {
            (Begins::Joins { disk, term }, _) => (comes(disk), Begun { term, ..Begun::default() }),
            (Begins::Observes { disk }, _) => (comes(disk), observes),
            (Begins::Founds { .. }, None) => {
                let alone = consensus::found(&[consensus::raft_id(server_id, FIRST_DISK)]);
                ((FIRST_DISK, alone), Begun::default())
            }
            // Who observes has no part in raft's configuration.
            (Begins::Founds { .. }, Some(settings)) if settings.is_observer() => {
                (comes(FIRST_DISK), observes)
            }
            (Begins::Founds { with }, Some(settings)) => {
                let voters = settings.servers.iter().filter(|s| s.role == config::Role::Voter);
                let voters: Vec<u64> = voters.map(|s| consensus::raft_id(s.id, FIRST_DISK)).collect();
                let begun = Begun { founders: with, ..Begun::default() };
                ((FIRST_DISK, consensus::found(&voters)), begun)
            }
        };
        let failed = |source| StartError::Store { folder: self.folder.clone(), source: Box::new(source) };
        self.tree.take_part(disk, conf_state, begun).map_err(|e| failed(RecoverError::Tree(e)))
    }

    /// Promise in the log what the store has promised when it took part: not to vote in terms that are over.
    fn keep_promise(&mut self) -> Result<(), StartError> {
        let failed =
            |e| StartError::Store { folder: self.folder.clone(), source: Box::new(RecoverError::Log(e)) };
        self.found.hard_state =
            keep_promise(&self.tree, &mut self.log, self.found.hard_state).map_err(failed)?;
        Ok(())
    }

    fn wiped(&self, settings: &config::Ensemble, recorded: u64) -> StartError {
        StartError::Wiped { server: settings.server_id, recorded, folder: self.folder.clone() }
    }
}

/// Open the store.
fn open(clock: &Clock, config: &Config, store: &Path, metrics: &Arc<Metrics>) -> Result<Opened, StartError> {
    let start = clock.now();
    let folder = store.display().to_string();
    let mut entropy = SystemEntropy;
    let disk = Arc::new(FolderDisk::open(store)?);
    let memory = u64::from(config.limits.memory_mb) << 20;
    let tree_options = TreeOptions {
        memory_bytes: memory - memory / LOG_CACHE_SHARE,
        hash_seed: entropy.next_u64(),
        store_id: entropy.next_u64(),
    };
    let discarded = discard_if_asked(&*disk);
    if discarded.map_err(|source| StartError::Discard { folder: folder.clone(), source })? {
        tracing::warn!(
            "this server is rebuilt: its data were thrown away, and it takes them from the others"
        );
    }
    disk.mend().map_err(|source| StartError::Mend { folder: folder.clone(), source })?;
    let log_options = LogOptions {
        // What redb needs beside the records.
        segment_bytes_max: (u64::from(config.storage.segment_mb) << 20) / 2,
        cache_bytes: (memory / LOG_CACHE_SHARE) as usize,
        ..LogOptions::default()
    };
    disk.use_again_up_to(log_options.file_bytes_max());
    let Recovered { tree, log, found, .. } = recover(disk.clone(), tree_options, log_options)
        .map_err(|source| StartError::Store { folder: folder.clone(), source: Box::new(source) })?;
    metrics.dbinittime.record(clock.now() - start);
    metrics.startup_txns_loaded.record(found.last_index.saturating_sub(tree.position().index));
    Ok(Opened { tree, tree_options, log, found, disk, folder })
}

/// Link up with the other servers.
async fn join(
    settings: &config::Ensemble,
    config: &Config,
    opened: &Opened,
    metrics: &Arc<Metrics>,
) -> Result<Arc<Ensemble>, StartError> {
    let own = opened.tree.recorded_store(settings.server_id);
    let observes = begins_observing(&opened.tree, settings.server_id, settings.is_observer());
    let other = |recorded: &u64| *recorded != opened.tree.store_id() && !observes;
    if let Some(recorded) = own.filter(other) {
        return Err(opened.wiped(settings, recorded));
    }
    let addr = settings.listen();
    let failed = |source| StartError::Listen { addr: addr.to_string(), what: "the other servers", source };
    let links = LinksConfig {
        ensemble: settings.name.clone(),
        server_id: settings.server_id,
        listen: resolve(addr).await.map_err(failed)?,
        peers: peers(settings),
        tls: TlsFiles::read(&settings.cert, &settings.ca).map_err(LinkError::from)?,
        timers: LinkTimers::default(),
        seed: SystemEntropy.next_u64(),
        threads: LINK_THREADS,
        on_snapshot_thread: only_when_idle,
    };
    let ensemble = Ensemble::new(
        settings.clone(),
        &opened.tree,
        opened.is_empty(),
        opened.tree_options,
        opened.disk.clone(),
        u64::from(config.storage.disk_reserve_mb) << 20,
        metrics.clone(),
    );
    ensemble.attach_links(Links::start(links, Arc::new(Handler(ensemble.clone())))?);
    Ok(ensemble)
}

/// What turns.
struct Started {
    engine: Engine,
    room: Arc<Room>,
    space: Arc<Space>,
    /// Connections of the process before, if there was one in this one's place.
    resumed: Option<Vec<Arrival>>,
}

/// Start the threads on the store.
fn start(
    clock: &Clock,
    config: &Config,
    opened: Opened,
    metrics: &Arc<Metrics>,
    ensemble: Option<Arc<Ensemble>>,
    taken: Option<(Taken, Arc<Limits>)>,
) -> Result<Started, StartError> {
    let Opened { tree, log, found, disk, .. } = opened;
    let mut entropy = SystemEntropy;
    let settings = config.ensemble.as_ref();
    let server_id = settings.map_or(SERVER_ID, |settings| settings.server_id);
    if let Some(ensemble) = &ensemble {
        ensemble.take_part(tree.identity());
        ensemble.set_members(&tree, false);
    }
    // Never 0, which stands for no run.
    let incarnation = entropy.next_u64().max(1);
    let timers = settings.map_or(Timers::default(), |settings| Timers {
        tick_ms: settings.tick_ms,
        election_ticks: settings.election_ticks as u16,
        ..Timers::default()
    });
    // The table knows better than the file, once there is one.
    let observes = |settings: &config::Ensemble| begins_observing(&tree, server_id, settings.is_observer());
    let part = match settings.filter(|settings| observes(settings)) {
        None => Part::Voter,
        Some(settings) => {
            let votes = |role| role == config::Role::Voter;
            let others = settings.others().map(|s| Candidate { server: s.id, votes: votes(s.role) });
            Part::Observer { others: others.collect(), fed_by: Vec::new() }
        }
    };
    let observer = matches!(part, Part::Observer { .. });
    let consensus = Seat::new(
        clock.now(),
        consensus::Start {
            id: consensus::raft_id(server_id, tree.disk()),
            server_id,
            incarnation,
            reader: log.reader(),
            hard_state: found.hard_state,
            checkpoint: tree.position(),
            conf_state: tree.conf_state().to_vec(),
            members: tree.members().clone(),
            retired: tree.retired().clone(),
            found: settings.map(membership::found),
            rules: config.rules(),
            timers,
            read_bytes_max: consensus::READ_BYTES_MAX,
            entropy: Box::new(SystemEntropy),
        },
        part,
    )?;
    let room = Arc::new(Room::new(entropy.next_u64(), metrics.clone()));
    let options = ServiceOptions {
        server_id,
        observer,
        incarnation,
        tick_ms: u64::from(config.sessions.tick_ms),
        read_only: config.sessions.read_only,
        sessions_max: config.limits.sessions_max as usize,
        sweep_interval: Duration::from_millis(config.znodes.container_check_ms.into()),
        sweeps_per_minute_max: config.znodes.container_deletes_per_minute_max,
        container_unused_max: Duration::from_millis(config.znodes.container_never_used_ms_max),
        checkpoint_interval: CHECKPOINT_EVERY,
        compare_interval: COMPARE_EVERY,
    };
    let service = Service::new(clock.now(), tree, room.clone(), options);
    let resumed = taken.map(|(taken, limits)| restart::resume(taken, &limits, &room));
    let space = Arc::new(Space::new(disk, config.storage.disk_reserve_mb, room.clone()));
    let parts = Parts {
        clock: *clock,
        consensus,
        service,
        log,
        room: room.clone(),
        metrics: metrics.clone(),
        space: space.clone(),
        ensemble,
        reconfigure: Reconfigurations::new(server_id, incarnation),
    };
    let engine = Engine::start(parts).map_err(|source| StartError::System { what: "threads", source })?;
    Ok(Started { engine, room, space, resumed })
}

fn limits(config: &Config) -> Limits {
    Limits {
        packet_bytes_max: config.limits.packet_bytes_max as usize,
        outstanding_per_connection_max: config.limits.outstanding_per_connection_max as usize,
        outstanding_bytes_per_connection_max: OUTSTANDING_BYTES_PER_CONNECTION_MAX,
        outstanding_max: i64::from(config.limits.outstanding_max),
        outstanding_bytes_max: OUTSTANDING_BYTES_MAX,
        watches_max: config.limits.watches_max as usize,
        sessions_max: config.limits.sessions_max as usize,
        session_timeout_min_ms: i32::try_from(config.sessions.timeout_ms_min).unwrap_or(i32::MAX),
        session_timeout_max_ms: i32::try_from(config.sessions.timeout_ms_max).unwrap_or(i32::MAX),
        skip_acl: config.security.skip_acl,
        reconfig_enabled: config.ensemble.as_ref().is_some_and(|ensemble| ensemble.reconfig_enabled),
        authentication: Authentication {
            super_digest: config.security.super_digest.as_ref().map(|digest| digest.0.clone()),
            digest_off: !config.security.digest_enabled,
        },
    }
}
