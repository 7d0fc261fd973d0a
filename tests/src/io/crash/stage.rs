//! What the clients of a trial share: where the servers are, what is promised, and what was broken.

use crate::io::daemon::{LOOK_EVERY, PATIENCE, eventually};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Barrier, Mutex};
use std::time::Instant;
use warren_storage::{AclRef, CreateMode, IdRef, Op, perms};
use warren_transport::io::blocking::{Connection, Error, Options, Reply};
use warren_transport::{Change, Opcode, Request};

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
    /// A server that nothing is done to closes no connection.
    ConnectionsStay,
}

impl Promise {
    /// Those of a server on its own, in words.
    pub(in crate::io) const OF_ONE: [(Promise, &str); 7] = [
        (Promise::Starts, "the daemon starts again after every kill"),
        (Promise::SessionsLive, "no session is lost that had time left"),
        (Promise::RepliesFit, "every reply fits the requests before it"),
        (Promise::NothingLost, "nothing acknowledged is lost, nothing unsent appears"),
        (Promise::SequencesRise, "names of sequential znodes are unique and rise"),
        (Promise::EphemeralsFit, "ephemerals live exactly as long as their session"),
        (Promise::WatchesFire, "watches tell every change, and before it is seen"),
    ];
    /// What an ensemble promises besides.
    pub(in crate::io) const OF_MANY: [(Promise, &str); 1] =
        [(Promise::ConnectionsStay, "servers that nothing is done to keep their connections")];
}

/// What all threads see.
pub(in crate::io) struct Stage {
    /// Of the trial, for what is printed.
    pub name: &'static str,
    /// Where clients find the servers.
    pub servers: Vec<SocketAddr>,
    pub seed: u64,
    pub folder: PathBuf,
    pub rounds: u32,
    pub round: AtomicU64,
    pub over: AtomicBool,
    /// Together into a round, and together out of it.
    pub gate: Barrier,
    pub failures: Mutex<Vec<Promise>>,
    pub acknowledged: AtomicU64,
    pub reattached: AtomicU64,
    pub ephemerals: AtomicU64,
    pub events: AtomicU64,
    /// The clients shall leave their work.
    pub halted: AtomicBool,
    /// Some may work while others compare.
    pub at_work: AtomicBool,
    /// By place: servers to which something is done, so that they may close connections.
    harmed: AtomicU64,
    /// By place: servers that clients do not go to.
    avoided: AtomicU64,
}

/// Why a client leaves its work.
#[derive(Debug)]
pub(in crate::io) enum Left {
    /// Its server is gone.
    Disconnected,
    /// A promise is broken, which is told already.
    Broken,
    /// It was asked to.
    Halted,
}

impl From<Error> for Left {
    fn from(_: Error) -> Left {
        Left::Disconnected
    }
}

/// A client's part in a round.
pub(in crate::io) trait Client: Send {
    /// Until its server is gone, or the work is halted.
    fn work(&mut self, stage: &Stage) -> Left;
    /// Its server, or another one, is there: re-attach, and compare.
    fn check(&mut self, stage: &Stage) -> Result<(), Left>;
    /// The place of the server that it is connected to.
    fn home(&self) -> usize;
    /// Does what others see change until this one has re-attached?
    fn writes(&self) -> bool {
        false
    }
}

/// A long timeout, so that no machine is too slow for it.
pub(in crate::io) const SESSION_MS: i32 = 40_000;
/// The shortest that [`settings`] allow; what is abandoned ends soon.
pub(in crate::io) const SHORT_SESSION_MS: i32 = 500;

/// Of a daemon under trial: short ticks and sessions, and so many MiB each.
pub(in crate::io) fn settings(memory_mb: u64, segment_mb: u64, disk_reserve_mb: u64) -> String {
    format!(
        "[sessions]\ntick_ms = 100\ntimeout_ms_min = 500\ntimeout_ms_max = 60000\n[limits]\nmemory_mb = {memory_mb}\n\
         [storage]\nsegment_mb = {segment_mb}\ndisk_reserve_mb = {disk_reserve_mb}\n"
    )
}

/// With small memory and small segments, so that checkpoints and new segments are in every run.
pub(in crate::io) fn small_settings() -> String {
    settings(16, 8, 64)
}

impl Stage {
    /// For a director and so many clients.
    pub(in crate::io) fn new(
        name: &'static str,
        servers: Vec<SocketAddr>,
        seed: u64,
        folder: PathBuf,
        rounds: u32,
        clients: usize,
    ) -> Stage {
        Stage {
            name,
            servers,
            seed,
            folder,
            rounds,
            round: AtomicU64::new(0),
            over: AtomicBool::new(false),
            gate: Barrier::new(clients + 1),
            failures: Mutex::new(Vec::new()),
            acknowledged: AtomicU64::new(0),
            reattached: AtomicU64::new(0),
            ephemerals: AtomicU64::new(0),
            events: AtomicU64::new(0),
            halted: AtomicBool::new(false),
            at_work: AtomicBool::new(false),
            harmed: AtomicU64::new(0),
            avoided: AtomicU64::new(0),
        }
    }

    pub(in crate::io) fn broken(&self, promise: Promise, what: String) -> Left {
        println!(
            "FAIL {}: {what} [seed {} round {} folder {}]",
            self.name,
            self.seed,
            self.round.load(SeqCst),
            self.folder.display()
        );
        self.failures.lock().expect("no holder panics").push(promise);
        Left::Broken
    }

    pub(in crate::io) fn is_last(&self) -> bool {
        self.round.load(SeqCst) == u64::from(self.rounds)
    }

    /// Asked by a client between two requests.
    pub(in crate::io) fn go_on(&self) -> Result<(), Left> {
        if self.halted.load(SeqCst) { Err(Left::Halted) } else { Ok(()) }
    }

    /// May a writer have something under way?
    pub(in crate::io) fn is_at_work(&self) -> bool {
        self.at_work.load(SeqCst)
    }

    /// From now on this server may close connections.
    pub(in crate::io) fn harm(&self, place: usize) {
        self.harmed.fetch_or(1 << place, SeqCst);
    }

    /// From now on none may.
    pub(in crate::io) fn spare_all(&self) {
        self.harmed.store(0, SeqCst);
    }

    pub(in crate::io) fn is_harmed(&self, place: usize) -> bool {
        self.harmed.load(SeqCst) & 1 << place != 0
    }

    /// Who re-attaches goes to others than this one.
    pub(in crate::io) fn avoid(&self, place: usize) {
        self.avoided.fetch_or(1 << place, SeqCst);
    }

    /// All servers will do.
    pub(in crate::io) fn avoid_none(&self) {
        self.avoided.store(0, SeqCst);
    }

    pub(in crate::io) fn is_avoided(&self, place: usize) -> bool {
        self.avoided.load(SeqCst) & 1 << place != 0
    }

    /// A new session, with this server.
    pub(in crate::io) fn connect(&self, home: usize, timeout_ms: i32) -> Result<Connection, Left> {
        Ok(Connection::connect(self.servers[home], &Options { timeout_ms, ..Options::default() })?)
    }

    /// The server that this client goes to when all will do: another one every round, and each has its share of clients.
    pub(in crate::io) fn place_of(&self, client: usize) -> usize {
        let turn = self.round.load(SeqCst) as usize + client;
        self.next(turn % self.servers.len())
    }

    /// Attach to the session again, with the next server that takes it. `false` when it says that the session is over.
    pub(in crate::io) fn reattach(
        &self,
        client: usize,
        connection: &mut Connection,
        home: &mut usize,
    ) -> Result<bool, Left> {
        let until = Instant::now() + PATIENCE;
        let mut at = if self.halted.load(SeqCst) { self.place_of(client) } else { self.next(*home) };
        loop {
            *home = at;
            at = self.next(at);
            match connection.reconnect(self.servers[*home]) {
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
                Err(_) => std::thread::sleep(LOOK_EVERY),
            }
        }
    }

    /// The server after this one, of those that are not avoided.
    pub(in crate::io) fn next(&self, place: usize) -> usize {
        let all = self.servers.len();
        (1..=all).map(|n| (place + n) % all).find(|place| !self.is_avoided(*place)).unwrap_or(place)
    }

    /// Print what holds, and say whether everything does.
    pub(in crate::io) fn told(&self, promises: &[(Promise, &str)]) -> bool {
        let failures = self.failures.lock().expect("no holder panics");
        for (promise, text) in promises {
            if !failures.contains(promise) {
                println!("PASS {}: {text}", self.name);
            }
        }
        eprintln!(
            "seed {}: {} rounds, {} requests acknowledged, {} re-attached, {} ephemerals, {} events",
            self.seed,
            self.round.load(SeqCst),
            self.acknowledged.load(SeqCst),
            self.reattached.load(SeqCst),
            self.ephemerals.load(SeqCst),
            self.events.load(SeqCst),
        );
        failures.is_empty()
    }
}

const ANYONE: AclRef<'static> = AclRef { perms: perms::ALL, id: IdRef { scheme: "world", id: "anyone" } };

pub(in crate::io) fn create<'a>(path: &'a str, data: &'a [u8], mode: CreateMode) -> Change<'a> {
    let op = Op::Create { path, data: Some(data), acl: vec![ANYONE], mode, ttl: -1 };
    Change { opcode: Opcode::Create2, op }
}

/// Wait for what must come to be; else it is told as broken.
pub(super) fn must_become(
    stage: &Stage,
    promise: Promise,
    what: impl FnOnce() -> String,
    holds: impl FnMut() -> bool,
) -> Result<(), Left> {
    if eventually(holds) { Ok(()) } else { Err(stage.broken(promise, what())) }
}

/// The Stat of a path on this connection, or `None` when nothing is there.
pub(in crate::io) fn stat(
    connection: &mut Connection,
    path: &str,
) -> Result<Option<warren_storage::Stat>, Left> {
    let reply = connection.call(&Request::Exists { path, watch: false })?;
    Ok(stat_of(&reply))
}

pub(super) fn stat_of(reply: &Reply) -> Option<warren_storage::Stat> {
    use warren_transport::Response;
    match reply.response() {
        Ok(Response::Stat(stat) | Response::PathAndStat(_, stat) | Response::Data(_, stat)) => Some(stat),
        _ => None,
    }
}
