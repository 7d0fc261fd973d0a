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
mod stage;
mod watcher;
mod writer;

use super::daemon::Daemon;
use crate::sim::Dice;
use holder::Holder;
pub use stage::Promise;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};
use warren_storage::CreateMode;
use warren_transport::Request;
use watcher::Watcher;
use writer::Writer;

pub(super) use stage::{Client, Left, SESSION_MS, SHORT_SESSION_MS, Stage, create, settings, small_settings};
use stage::{must_become, stat, stat_of};

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

const WRITERS: usize = 4;
const HOLDERS: usize = 2;
const WATCHERS: usize = 2;
/// All of them.
pub(super) const CLIENTS: usize = WRITERS + HOLDERS + WATCHERS;

/// Carry the plan out and print what came of it. Is every promise kept?
pub fn run(plan: Plan) -> std::io::Result<bool> {
    let mut dice = Dice::new(plan.seed);
    let mut daemon = Daemon::new(&plan.warrend, &plan.folder, &small_settings(), &mut dice)?;
    daemon.start()?;
    let stage = Stage::new("crash", vec![daemon.clients], plan.seed, plan.folder, plan.rounds, CLIENTS);
    let clients = match clients(&stage, &mut dice) {
        Ok(clients) => clients,
        Err(_) => return Err(std::io::Error::other("the first sessions could not be opened")),
    };
    std::thread::scope(|scope| {
        for client in clients {
            scope.spawn(|| live(&stage, client));
        }
        for _ in 0..stage.rounds {
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
    Ok(stage.told(&Promise::OF_ONE))
}

/// Clients of each kind, each with a session; on several servers they are spread over all.
pub(super) fn clients<'a>(stage: &Stage, dice: &mut Dice) -> Result<Vec<Box<dyn Client + 'a>>, Left> {
    let mut first = stage.connect(0, SESSION_MS)?;
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
    for n in 0..WATCHERS {
        clients.push(Box::new(Watcher::new(stage, n, dice.fork())?));
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
                Err(Left::Disconnected | Left::Halted) => {
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
