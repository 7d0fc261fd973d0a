//! An ensemble of real processes, and what must still be true whatever is done to some of them.
//!
//! The clients of the crash trial work on all servers at once, while servers are killed, stopped and held up, the network
//! between them fails in every way that [`super::relay`] knows, a disk fills up, and strangers knock. A *round* is one such
//! fault and its end: then every server must serve within [`SERVES_WITHIN`], and each client moves its session to another
//! server and compares what it finds with what it was told. A client whose server nothing was done to must not have lost its
//! connection.

mod observers;
mod polite;
mod rounds;
mod servers;
mod strangers;

use super::crash::{self, CLIENTS, Client, Left, Promise, SESSION_MS, Stage, create};
use super::daemon::LOOK_EVERY;
use crate::sim::Dice;
use rounds::Round;
pub(super) use servers::Servers;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};
use warren_storage::CreateMode;
use warren_transport::Request;

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The daemon's binary.
    pub warrend: PathBuf,
    /// How many of it vote.
    pub servers: usize,
    /// How many observe. With any, only rounds about observers are run, unless others are named.
    pub observers: usize,
    /// Rounds, drawn by chance; 0: each once, in the order of the list.
    pub rounds: u32,
    /// Only these; none means all.
    pub only: Vec<String>,
    /// Of all choices.
    pub seed: u64,
    /// Kept when something fails.
    pub folder: PathBuf,
    /// A folder on a small disk of its own, for the server whose disk fills up. Without it rounds that need it are left out.
    pub small: Option<PathBuf>,
}

/// After a fault is over, every server must take a write by then. An election takes half a second at most, a link that went
/// silent is given up after three, and made anew within another.
const SERVES_WITHIN: Duration = Duration::from_secs(15);
/// While a fault lasts, the majority must take writes by then.
const GOES_ON_WITHIN: Duration = Duration::from_secs(10);

/// A thread that wants to run every few ms and does not for so long tells of a machine that cannot be tested on.
const STOOD_STILL: Duration = Duration::from_secs(1);
/// One that does not for so long, half an election timeout, held up the relay as well: servers may not have heard of each other.
const STALL: Duration = Duration::from_millis(100);

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Who does things to the servers.
struct Director<'a> {
    stage: &'a Stage,
    servers: Servers,
    dice: Dice,
    /// The longest time without an acknowledgement in this round, µs.
    pause_us: &'a AtomicU64,
    /// How often this process stalled.
    stalls: &'a AtomicU64,
}

/// Names of the rounds, for help.
pub fn names() -> Vec<&'static str> {
    rounds::ALL.iter().map(|round| round.name).collect()
}

/// Carry the plan out and print what came of it. Is every promise kept?
pub fn run(plan: Plan) -> io::Result<bool> {
    let mut dice = Dice::new(plan.seed);
    let rounds = choose(&plan, &mut dice);
    let elsewhere = plan.small.as_deref().map(|small| (rounds::ON_SMALL_DISK, small));
    let settings = match rounds.iter().any(|round| round.needs_observers) {
        // No log ends while a fault lasts: an observer whose feeder is lost could be behind what the next one has, and closes
        // its connections to take a snapshot.
        true => crash::settings(512, 64, 64),
        false => crash::small_settings(),
    };
    let mut servers = Servers::new(
        &plan.warrend,
        &plan.folder,
        (plan.servers, plan.observers),
        &settings,
        elsewhere,
        &mut dice,
    )?;
    servers.start()?;
    let at = servers.daemons.iter().map(|daemon| daemon.clients).collect();
    let stage = Stage::new("ensemble", at, plan.seed, plan.folder, rounds.len() as u32, CLIENTS);
    let Ok(clients) = crash::clients(&stage, &mut dice) else {
        return Err(io::Error::other("the first sessions could not be opened"));
    };
    let (pause_us, stalls) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut table = String::from("longest pause of all writes, and until all serve after the fault:\n");
    std::thread::scope(|scope| {
        for client in clients {
            scope.spawn(|| live(&stage, client));
        }
        scope.spawn(|| measure_pauses(&stage, &pause_us, &stalls));
        let mut director = Director { stage: &stage, servers, dice, pause_us: &pause_us, stalls: &stalls };
        for (n, round) in rounds.iter().enumerate() {
            director.one_round(round, rounds.get(n + 1), &mut table);
            if stage.over.load(SeqCst) {
                break;
            }
        }
        stage.over.store(true, SeqCst);
        stage.gate.wait();
        if let Err(e) = director.servers.stop() {
            stage.broken(Promise::Starts, e.to_string());
        }
        let counts = director.servers.relay().counts();
        eprintln!("datagrams between the servers: {counts:?}");
    });
    eprintln!("{table}");
    let promises: Vec<(Promise, &str)> = Promise::OF_ONE.into_iter().chain(Promise::OF_MANY).collect();
    Ok(stage.told(&promises))
}

/// In the order of the list, or by chance.
fn choose(plan: &Plan, dice: &mut Dice) -> Vec<&'static Round> {
    let wanted = |round: &&Round| {
        let is_meant = match plan.only.is_empty() {
            true => round.needs_observers == (plan.observers > 0),
            false => plan.only.iter().any(|name| name == round.name),
        };
        is_meant
            && (plan.small.is_some() || !round.needs_small_disk)
            && (plan.observers > 0 || !round.needs_observers)
    };
    let known: Vec<&Round> = rounds::ALL.iter().filter(wanted).collect();
    match plan.rounds {
        0 => known,
        _ if known.is_empty() => known,
        count => (0..count).map(|_| *dice.pick(&known)).collect(),
    }
}

/// One client, round after round; one that broke a promise takes no further part.
fn live(stage: &Stage, mut client: Box<dyn Client + '_>) {
    let mut sound = true;
    loop {
        stage.gate.wait();
        if stage.over.load(SeqCst) {
            return;
        }
        while sound {
            match client.work(stage) {
                Left::Halted => break,
                Left::Broken => sound = false,
                Left::Disconnected => sound = find_again(stage, &mut *client),
            }
        }
        stage.gate.wait();
        // Writers first: what they had under way shows to the others.
        for writers in [true, false] {
            if sound && client.writes() == writers {
                sound = match client.check(stage) {
                    Ok(()) => true,
                    Err(Left::Broken) => false,
                    Err(Left::Disconnected | Left::Halted) => is_lost(stage, &*client),
                };
            }
            stage.gate.wait();
        }
    }
}

/// The connection is lost. Attach with another server, or with one after the other, while things are done to them.
fn find_again(stage: &Stage, client: &mut dyn Client) -> bool {
    loop {
        if !stage.is_harmed(client.home()) {
            return is_lost(stage, client);
        }
        match client.check(stage) {
            Ok(()) => return true,
            Err(Left::Broken) => return false,
            Err(Left::Disconnected | Left::Halted) => {}
        }
    }
}

fn is_lost(stage: &Stage, client: &dyn Client) -> bool {
    let server = servers::id(client.home());
    let text = format!("a connection with server {server} was lost while nothing was done to that server");
    stage.broken(Promise::ConnectionsStay, text);
    false
}

/// Notes the longest time without an acknowledgement, while clients work; and says so when this machine stood still itself,
/// which breaks promises that are about time.
fn measure_pauses(stage: &Stage, longest_us: &AtomicU64, stalls: &AtomicU64) {
    let (mut last, mut since) = (stage.acknowledged.load(SeqCst), Instant::now());
    let mut looked = Instant::now();
    while !stage.over.load(SeqCst) {
        let now = stage.acknowledged.load(SeqCst);
        if now != last || stage.halted.load(SeqCst) {
            (last, since) = (now, Instant::now());
        }
        longest_us.fetch_max(since.elapsed().as_micros() as u64, SeqCst);
        if looked.elapsed() > STALL {
            stalls.fetch_add(1, SeqCst);
        }
        if looked.elapsed() > STOOD_STILL {
            eprintln!("this machine stood still for {:.1?}; what fails now says little", looked.elapsed());
        }
        looked = Instant::now();
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Director<'_> {
    fn one_round(&mut self, round: &Round, next: Option<&&'static Round>, table: &mut String) {
        let stage = self.stage;
        stage.round.fetch_add(1, SeqCst);
        stage.spare_all();
        stage.halted.store(false, SeqCst);
        stage.at_work.store(true, SeqCst);
        self.pause_us.store(0, SeqCst);
        let begun = Instant::now();
        stage.gate.wait();
        let mut done = self.flows().and_then(|_| (round.run)(self));
        let pause = Duration::from_micros(self.pause_us.load(SeqCst));
        let healed = self.heal();
        match &healed {
            Ok(took) => {
                let _ = writeln!(table, "{pause:>12.0?} {took:>12.0?}  {}", round.name);
            }
            // Nobody could compare anything.
            Err(_) => stage.over.store(true, SeqCst),
        }
        done = done.and(healed.map(drop));
        match done {
            Ok(()) => println!("PASS ensemble: {} ({} ms)", round.name, begun.elapsed().as_millis()),
            Err(e) => {
                stage.broken(Promise::Starts, format!("{}: {e}", round.name));
            }
        }
        // All go to other servers now.
        stage.avoid_none();
        if next.is_some_and(|next| next.needs_small_disk) {
            stage.avoid(rounds::ON_SMALL_DISK);
        }
        stage.halted.store(true, SeqCst);
        stage.gate.wait();
        stage.at_work.store(false, SeqCst);
        stage.gate.wait();
        stage.gate.wait();
        // What comes after a broken promise tells nothing.
        if !stage.failures.lock().expect("no holder panics").is_empty() {
            stage.over.store(true, SeqCst);
        }
    }

    /// Wait for writes to be acknowledged; how long that took.
    fn flows(&self) -> Outcome<Duration> {
        let (start, before) = (Instant::now(), self.stage.acknowledged.load(SeqCst));
        while self.stage.acknowledged.load(SeqCst) < before + 20 {
            if start.elapsed() > GOES_ON_WITHIN {
                return Err(format!("writes did not go on within {GOES_ON_WITHIN:?}").into());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(start.elapsed())
    }

    /// How often each server that votes came to its turn late, since its start.
    fn stalls_of_servers(&self) -> io::Result<Vec<f64>> {
        let stalls = |place: usize| self.servers.daemons[place].metric("warren_stalls_total");
        self.servers.voters().map(stalls).collect()
    }

    /// Let the clients work.
    fn work_on(&mut self, time: Duration) -> Outcome<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            for place in self.servers.places() {
                if self.servers.daemons[place].ended() {
                    return Err(
                        format!("server {} ended by itself; its log says why", servers::id(place)).into()
                    );
                }
            }
            std::thread::sleep(until.saturating_duration_since(Instant::now()).min(LOOK_EVERY));
        }
        Ok(())
    }

    /// The fault is over: everything runs and reaches everything. How long until each server took a write.
    fn heal(&mut self) -> Outcome<Duration> {
        let start = Instant::now();
        self.servers.relay().set_all(super::relay::Weather::FAIR);
        for place in self.servers.places() {
            let daemon = &mut self.servers.daemons[place];
            if daemon.ended() {
                // Nobody waited for it: that is told by now.
                daemon.kill();
            }
            match daemon.pid() {
                Some(_) => daemon.signal(rustix::process::Signal::CONT)?,
                None => daemon.spawn()?,
            }
        }
        self.all_take_writes()?;
        Ok(start.elapsed())
    }

    /// Wait until each server takes a write.
    fn all_take_writes(&mut self) -> Outcome<()> {
        let start = Instant::now();
        for place in self.servers.places() {
            while let Err(e) = self.write_at(place) {
                if self.servers.daemons[place].ended() || start.elapsed() > SERVES_WITHIN {
                    let id = servers::id(place);
                    return Err(format!("server {id} took no write within {SERVES_WITHIN:?}: {e}").into());
                }
                std::thread::sleep(LOOK_EVERY);
            }
        }
        Ok(())
    }

    /// A session of its own, an ephemeral in it, and the session's end.
    fn write_at(&self, place: usize) -> Outcome<()> {
        let path = format!("/crash/probe{place}");
        let mut connection = self.stage.connect(place, SESSION_MS).map_err(|_| "it takes no connection")?;
        let create = create(&path, b"", CreateMode::Ephemeral);
        connection.call(&Request::Change(create))?.response()?;
        Ok(connection.close()?)
    }
}

/// Where a run keeps its data: a new folder below the system's own for such things.
pub fn folder() -> io::Result<PathBuf> {
    tempfile::Builder::new().prefix("warren-ensemble-").tempdir().map(|dir| dir.keep())
}
