//! Kill -9 at random instants, and what must still be true after it.
//!
//! Clients of three kinds work on one daemon until it is killed; then it is started again (and sometimes killed while it
//! starts), they re-attach to their sessions, and each compares what it finds with what it was told:
//!
//! - a *writer* owns a part of the tree and keeps many requests under way. What it finds must be what was acknowledged,
//!   and then a prefix of what was under way: no more, no less, and not in another order;
//! - a *holder* has ephemerals. They are there while its session is, and only then;
//! - a *watcher* has watches. After setWatches it must have been told of everything that changed meanwhile, and of nothing
//!   else.
//!
//! The data stay through all rounds. Every round is one seed's choice of instants; real threads take their own turns, so a
//! seed brings back the plan and not the run, which is why the folder of a failed run is kept.

mod holder;
mod watcher;
mod writer;

use super::daemon::{Daemon, PATIENCE, eventually};
use crate::sim::Dice;
use holder::Holder;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};
use warren_storage::{AclRef, CreateMode, IdRef, Op, perms};
use warren_transport::io::blocking::{Connection, Error, Options, Reply};
use warren_transport::{Change, Opcode, Request};
use watcher::Watcher;
use writer::Writer;

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The daemon's binary.
    pub warrend: PathBuf,
    /// How often it is killed.
    pub rounds: u32,
    /// Of all choices.
    pub seed: u64,
    /// Kept when something fails.
    pub folder: PathBuf,
}

/// What is promised; each is told as passed or failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// The daemon starts after every kill, and ends by SIGTERM alone.
    Starts,
    /// A session re-attaches while it has time left.
    SessionsLive,
    /// Every reply is the one that the requests before it make due, with versions and zxids that fit.
    RepliesFit,
    /// The tree is what was acknowledged, and then a prefix of what was under way.
    NothingLost,
    /// Names of sequential znodes are unique and rise.
    SequencesRise,
    /// Ephemerals are there while their session is, and only then.
    EphemeralsFit,
    /// Watches tell what changed, before it is seen, across the restart too.
    WatchesFire,
}

impl Promise {
    const ALL: [(Promise, &str); 7] = [
        (Promise::Starts, "the daemon starts again after every kill"),
        (Promise::SessionsLive, "no session is lost that had time left"),
        (Promise::RepliesFit, "every reply fits the requests before it"),
        (Promise::NothingLost, "nothing acknowledged is lost, nothing unsent appears"),
        (Promise::SequencesRise, "names of sequential znodes are unique and rise"),
        (Promise::EphemeralsFit, "ephemerals live exactly as long as their session"),
        (Promise::WatchesFire, "watches tell every change, and before it is seen"),
    ];
}

/// What all threads see.
struct Stage {
    at: std::net::SocketAddr,
    plan: Plan,
    round: AtomicU64,
    over: AtomicBool,
    /// Together into a round, and together out of it.
    gate: Barrier,
    failures: Mutex<Vec<Promise>>,
    acknowledged: AtomicU64,
    reattached: AtomicU64,
    ephemerals: AtomicU64,
    events: AtomicU64,
}

/// Why a client leaves its work: the server is gone (which is as planned), or a promise is broken (which is told already).
enum Left {
    Disconnected,
    Broken,
}

impl From<Error> for Left {
    fn from(_: Error) -> Left {
        Left::Disconnected
    }
}

const ANYONE: AclRef<'static> = AclRef { perms: perms::ALL, id: IdRef { scheme: "world", id: "anyone" } };

fn create<'a>(path: &'a str, data: &'a [u8], mode: CreateMode) -> Change<'a> {
    let op = Op::Create { path, data: Some(data), acl: vec![ANYONE], mode, ttl: -1 };
    Change { opcode: Opcode::Create2, op }
}

impl Stage {
    fn broken(&self, promise: Promise, what: String) -> Left {
        println!(
            "FAIL crash: {what} [seed {} round {} folder {}]",
            self.plan.seed,
            self.round.load(SeqCst),
            self.plan.folder.display()
        );
        self.failures.lock().expect("no holder panics").push(promise);
        Left::Broken
    }

    fn is_last(&self) -> bool {
        self.round.load(SeqCst) == u64::from(self.plan.rounds)
    }

    /// A new session.
    fn connect(&self, timeout_ms: i32) -> Result<Connection, Left> {
        Ok(Connection::connect(self.at, &Options { timeout_ms, ..Options::default() })?)
    }

    /// Attach to the session again; the server is there. `false` when it says that the session is over.
    fn reattach(&self, connection: &mut Connection) -> Result<bool, Left> {
        let until = Instant::now() + PATIENCE;
        loop {
            match connection.reconnect(self.at) {
                Ok(()) => {
                    self.reattached.fetch_add(1, SeqCst);
                    return Ok(true);
                }
                Err(Error::Expired) => return Ok(false),
                Err(e) if Instant::now() >= until => {
                    let session = connection.session().id;
                    return Err(self.broken(
                        Promise::SessionsLive,
                        format!("session {session:#x} cannot be attached again: {e}"),
                    ));
                }
                Err(_) => std::thread::sleep(super::daemon::LOOK_EVERY),
            }
        }
    }
}

/// A client's part in a round.
trait Client: Send {
    /// Until the server is gone.
    fn work(&mut self, stage: &Stage) -> Left;
    /// The server is back: re-attach, and compare.
    fn check(&mut self, stage: &Stage) -> Result<(), Left>;
}

const WRITERS: usize = 4;
const HOLDERS: usize = 2;
const WATCHERS: usize = 2;
/// A long timeout, so that no machine is too slow for it.
const SESSION_MS: i32 = 40_000;
/// The shortest that [`SETTINGS`] allow; what is abandoned ends soon.
const SHORT_SESSION_MS: i32 = 500;
/// Small memory and small segments, so that checkpoints and new segments are in every run.
const SETTINGS: &str = "\
[sessions]\ntick_ms = 100\ntimeout_ms_min = 500\ntimeout_ms_max = 60000\n\
[limits]\nmemory_mb = 16\n[storage]\nsegment_mb = 8\ndisk_reserve_mb = 64\n";

/// Carry the plan out and print what came of it. Is every promise kept?
pub fn run(plan: Plan) -> std::io::Result<bool> {
    let mut dice = Dice::new(plan.seed);
    let mut daemon = Daemon::new(&plan.warrend, &plan.folder, SETTINGS, &mut dice)?;
    daemon.start()?;
    let stage = Stage {
        at: daemon.clients,
        round: AtomicU64::new(0),
        over: AtomicBool::new(false),
        gate: Barrier::new(WRITERS + HOLDERS + WATCHERS + 1),
        failures: Mutex::new(Vec::new()),
        acknowledged: AtomicU64::new(0),
        reattached: AtomicU64::new(0),
        ephemerals: AtomicU64::new(0),
        events: AtomicU64::new(0),
        plan,
    };
    let clients = match clients(&stage, &mut dice) {
        Ok(clients) => clients,
        Err(_) => return Err(std::io::Error::other("the first sessions could not be opened")),
    };
    std::thread::scope(|scope| {
        for client in clients {
            scope.spawn(|| live(&stage, client));
        }
        for _ in 0..stage.plan.rounds {
            stage.round.fetch_add(1, SeqCst);
            stage.gate.wait();
            if let Err(e) = one_round(&mut daemon, &mut dice) {
                stage.broken(Promise::Starts, e.to_string());
                stage.over.store(true, SeqCst);
            }
            stage.gate.wait();
            // What is compared is compared; nothing works on.
            stage.gate.wait();
            if stage.over.load(SeqCst) {
                break;
            }
        }
        stage.over.store(true, SeqCst);
        stage.gate.wait();
    });
    if let Err(e) = daemon.stop().and_then(|()| daemon.start()) {
        stage.broken(Promise::Starts, e.to_string());
    }
    daemon.stop()?;
    Ok(told(&stage))
}

fn clients<'a>(stage: &Stage, dice: &mut Dice) -> Result<Vec<Box<dyn Client + 'a>>, Left> {
    let mut first = stage.connect(SESSION_MS)?;
    let mut make = |path: &str| first.call(&Request::Change(create(path, b"", CreateMode::Persistent)));
    make("/crash")?;
    make("/crash/ephemerals")?;
    let mut clients: Vec<Box<dyn Client>> = Vec::new();
    for n in 0..WRITERS {
        clients.push(Box::new(Writer::new(stage, n, dice.fork())?));
    }
    for n in 0..HOLDERS {
        clients.push(Box::new(Holder::new(stage, n, dice.fork())?));
    }
    for _ in 0..WATCHERS {
        clients.push(Box::new(Watcher::new(stage, dice.fork())?));
    }
    let _ = first.close();
    Ok(clients)
}

/// One client, round after round; one that broke a promise takes no further part.
fn live(stage: &Stage, mut client: Box<dyn Client + '_>) {
    let mut sound = true;
    loop {
        stage.gate.wait();
        if stage.over.load(SeqCst) {
            return;
        }
        if sound {
            sound = !matches!(client.work(stage), Left::Broken);
        }
        // Out of the work together with the server's return.
        stage.gate.wait();
        if sound && !stage.over.load(SeqCst) {
            sound = match client.check(stage) {
                Ok(()) => true,
                Err(Left::Broken) => false,
                Err(Left::Disconnected) => {
                    stage.broken(
                        Promise::SessionsLive,
                        "a connection was lost while nothing was killed".into(),
                    );
                    false
                }
            };
        }
        stage.gate.wait();
    }
}

/// Let them work, kill it, start it. Sometimes it is asked to stop, sometimes it is killed while it starts.
fn one_round(daemon: &mut Daemon, dice: &mut Dice) -> std::io::Result<()> {
    let work = if dice.one_in(10) { 1_500 + dice.index(1_500) } else { 20 + dice.index(400) };
    let until = Instant::now() + Duration::from_millis(work as u64);
    while Instant::now() < until {
        if daemon.ended() {
            return Err(std::io::Error::other("the daemon ended by itself; its log says why"));
        }
        std::thread::sleep(until.saturating_duration_since(Instant::now()).min(Duration::from_millis(20)));
    }
    if dice.one_in(10) {
        daemon.stop()?;
    } else {
        daemon.kill();
    }
    while dice.one_in(3) {
        daemon.spawn()?;
        std::thread::sleep(Duration::from_micros(dice.index(60_000) as u64));
        daemon.kill();
    }
    daemon.start()
}

fn told(stage: &Stage) -> bool {
    let failures = stage.failures.lock().expect("no holder panics");
    for (promise, text) in Promise::ALL {
        if !failures.contains(&promise) {
            println!("PASS crash: {text}");
        }
    }
    eprintln!(
        "seed {}: {} kills, {} requests acknowledged, {} re-attached, {} ephemerals, {} events",
        stage.plan.seed,
        stage.round.load(SeqCst),
        stage.acknowledged.load(SeqCst),
        stage.reattached.load(SeqCst),
        stage.ephemerals.load(SeqCst),
        stage.events.load(SeqCst),
    );
    failures.is_empty()
}

/// Where a run keeps its data: a new folder below the system's own for such things.
pub fn folder() -> std::io::Result<PathBuf> {
    tempfile::Builder::new().prefix("warren-crash-").tempdir().map(|dir| dir.keep())
}

/// For a seed that nobody gave.
pub fn now_ms() -> u64 {
    std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as u64)
}

/// Remove what a run left.
pub fn clear(folder: &Path) -> std::io::Result<()> {
    std::fs::remove_dir_all(folder)
}

/// Wait for what must come to be; else it is told as broken.
fn must_become(
    stage: &Stage,
    promise: Promise,
    what: impl FnOnce() -> String,
    holds: impl FnMut() -> bool,
) -> Result<(), Left> {
    if eventually(holds) { Ok(()) } else { Err(stage.broken(promise, what())) }
}

/// The Stat of a path on this connection, or `None` when nothing is there.
fn stat(connection: &mut Connection, path: &str) -> Result<Option<warren_storage::Stat>, Left> {
    let reply = connection.call(&Request::Exists { path, watch: false })?;
    Ok(stat_of(&reply))
}

fn stat_of(reply: &Reply) -> Option<warren_storage::Stat> {
    use warren_transport::Response;
    match reply.response() {
        Ok(Response::Stat(stat) | Response::PathAndStat(_, stat) | Response::Data(_, stat)) => Some(stat),
        _ => None,
    }
}
