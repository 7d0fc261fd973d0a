//! A real ZooKeeper's files, written under load and left by kill -9, imported; and the two trees compared, znode by znode:
//! data, Stat, ACL, children, and what a sequential create is called next.

mod compare;
mod load;

use super::daemon::{Daemon, free_port};
use crate::sim::Dice;
use load::{Habits, TIMEOUT_MS, Writer};
use std::fs;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use warren_storage::{CreateMode, Op};
use warren_transport::io::blocking::{Connection, Options};
use warren_transport::{Change, Opcode, Request};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Clients at a time.
const WRITERS: usize = 4;
/// Acknowledged writes between two kills, at least.
const WRITES: u64 = 6_000;
/// Transactions between two snapshots, so that one is nearly always being made.
const SNAP_COUNT: u32 = 500;
/// Parents of which the next sequence number is compared.
const PARENTS: usize = 100;
/// Nothing of what is compared goes by itself; and the super user of both servers, super:secret.
const SETTINGS: &str = "[sessions]\ntick_ms = 500\n[znodes]\ncontainer_check_ms = 86400000\n\
                        [security]\nsuper_digest = \"super:lK75jTNcA+U9vtVEw5vB51mj/w4=\"\n";
/// Of the ensemble.
const SERVERS: u8 = 3;
/// Leaves too little of the small disk to begin with.
const FILLER_BYTES: usize = 8 << 20;
/// Znodes in one multi of the large tree.
const MULTI: usize = 500;

/// What is tried, and how.
pub struct Trials {
    /// The daemon's binary.
    pub warrend: PathBuf,
    /// The command's binary.
    pub warren: PathBuf,
    /// `tests/clients/server`.
    pub server: PathBuf,
    /// Draws everything.
    pub seed: u64,
    /// Ask for nothing that a ZooKeeper 3.4 does not know.
    pub old: bool,
    /// A disk that may be filled, if there is one.
    pub small: Option<PathBuf>,
    /// Measure the import of so many znodes instead.
    pub large: Option<usize>,
}

/// Under way.
struct Trial {
    options: Trials,
    folder: PathBuf,
    dice: Dice,
    zookeeper: SocketAddr,
    done: Arc<AtomicU64>,
    /// Imports so far.
    imports: usize,
    /// A client that lives on, with its ephemeral.
    holder: Option<Connection>,
}

/// Where the client that lives on has its ephemeral.
const HELD: &str = "/held";

/// Try it, and print what holds.
pub fn run(options: Trials) -> bool {
    let folder = match tempfile::tempdir() {
        Ok(folder) => folder,
        Err(e) => {
            println!("FAIL import: no folder: {e}");
            return false;
        }
    };
    println!("import: seed {}, folder {}", options.seed, folder.path().display());
    let mut dice = Dice::new(options.seed);
    let zookeeper = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(&mut dice)));
    let large = options.large;
    let mut trial = Trial {
        options,
        folder: folder.path().to_owned(),
        dice,
        zookeeper,
        done: Arc::default(),
        imports: 0,
        holder: None,
    };
    type Step = fn(&mut Trial) -> Outcome<String>;
    let steps: &[(&str, Step)] = match large {
        Some(_) => &[("a large tree", measured)],
        None => &[
            ("the files of a ZooKeeper that runs are refused", refused_while_it_runs),
            ("a tree that was written under load is the same", |trial| trial.round("")),
            ("the same with snapshots packed by gzip, behind kills", |trial| trial.round("gz")),
            ("the same with snapshots packed by snappy", |trial| trial.round("snappy")),
            ("a client goes on with its session, and keeps its ephemeral", session_goes_on),
            ("a trial writes nothing, and a store is not written over", nothing_is_written_over),
            ("a record cut short ends the log, and damage is refused", damaged),
            ("an import that is killed leaves nothing or all of it, and the next one works", killed),
            ("a full disk is told, and nothing is left on it", full_disk),
            ("sessions are left out when that is asked for", without_sessions),
            ("of three servers one is given the data, and the others are sent them", ensemble),
        ],
    };
    let mut all = true;
    for (what, step) in steps {
        let began = Instant::now();
        match step(&mut trial) {
            Ok(more) => println!("PASS import: {what} ({more}{:.1} s)", began.elapsed().as_secs_f64()),
            Err(e) => {
                println!("FAIL import: {what}: {e}");
                all = false;
                // The next one begins as it would have.
                let _ = trial.control("kill");
            }
        }
    }
    let _ = trial.control("kill");
    if !all && std::env::var_os("WARREN_TEST_KEEP").is_some() {
        println!("kept: {}", folder.keep().display());
    }
    all
}

impl Trial {
    /// Start or kill the ZooKeeper.
    fn control(&self, what: &str) -> io::Result<()> {
        let done = Command::new(&self.options.server)
            .arg(what)
            .env("SERVER_KIND", "zookeeper")
            .env("SERVER_DIR", self.folder.join("zookeeper"))
            .env("SERVER_PORT", self.zookeeper.port().to_string())
            .env("ZOOKEEPER_JAVA", "-Xmx2g -XX:+UseSerialGC -XX:TieredStopAtLevel=1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .status()?;
        if done.success() { Ok(()) } else { Err(io::Error::other(format!("ZooKeeper: {what} failed"))) }
    }

    /// Start it, with snapshots packed like this.
    fn start(&self, compression: &str, snap_count: u32) -> io::Result<()> {
        let folder = self.folder.join("zookeeper");
        fs::create_dir_all(&folder)?;
        // Nothing of what is compared goes by itself.
        let extra = format!(
            "snapCount={snap_count}\npreAllocSize=64\nsnapshot.compression.method={compression}\n\
             znode.container.checkIntervalMs=86400000\n"
        );
        fs::write(folder.join("extra.cfg"), extra)?;
        self.control("start")
    }

    fn data(&self) -> PathBuf {
        self.folder.join("zookeeper/data")
    }

    /// `warren import --from FROM`, into a folder of its own unless another is given.
    fn import(&self, from: &Path, into: &Path, more: &[&str]) -> io::Result<Output> {
        Command::new(&self.options.warren)
            .args(["import", "-o", "json", "--from"])
            .arg(from)
            .arg("--data-dir")
            .arg(into)
            .args(more)
            .stdin(Stdio::null())
            .output()
    }

    fn next_folder(&mut self) -> PathBuf {
        self.imports += 1;
        self.folder.join(format!("import-{}", self.imports))
    }

    /// Import, which must succeed, and serve what came of it.
    fn served(&mut self, from: &Path, more: &[&str]) -> Outcome<(Daemon, serde_json::Value)> {
        let folder = self.next_folder();
        // The daemon's helper has the data there.
        let report = succeeded(&self.import(from, &folder.join("data"), more)?)?;
        let mut daemon = Daemon::new(&self.options.warrend, &folder, SETTINGS, &mut self.dice)?;
        daemon.start()?;
        Ok((daemon, report))
    }

    /// Write, kill, twice and once more; then import and compare.
    fn round(&mut self, compression: &str) -> Outcome<String> {
        let before = self.done.load(Ordering::Relaxed);
        for run in 0..3 {
            self.start(compression, SNAP_COUNT)?;
            if self.holder.is_none() {
                self.holder = Some(hold(self.zookeeper)?);
            }
            quotas(self.zookeeper)?;
            let until = before + WRITES / 3 * (run + 1);
            let habits = Habits { old: self.options.old, leaves_sessions: run < 2 };
            let seed = self.dice.roll();
            let writers: Vec<_> = (0..WRITERS)
                .map(|number| {
                    let (at, done) = (self.zookeeper, self.done.clone());
                    let mut writer =
                        Writer::begin(at, number, seed, habits, done).map_err(|e| e.to_string())?;
                    Ok(thread::spawn(move || writer.run()))
                })
                .collect::<Result<_, String>>()?;
            if !super::daemon::eventually(|| self.done.load(Ordering::Relaxed) >= until) {
                return Err("the writers do not get on".into());
            }
            // A session that is about to end would end here and there at another zxid.
            if run == 2
                && !super::daemon::eventually(|| {
                    load::left_behind(self.zookeeper).is_ok_and(|left| left == 0)
                })
            {
                return Err("sessions do not expire".into());
            }
            // While they write.
            self.control("kill")?;
            for writer in writers {
                writer.join().map_err(|_| "a writer panicked")?;
            }
        }
        let (mut daemon, report) = self.served(&self.data(), &[])?;
        // 3.6 was the first to have one.
        if report["digest"] != "equal" && !(self.options.old && report["digest"] == "unknown") {
            return Err(format!("the digest is {}: {report}", report["digest"]).into());
        }
        let found = compare::read(daemon.clients)?;
        self.start(compression, SNAP_COUNT)?;
        let wanted = compare::read(self.zookeeper)?;
        let znodes = compare::equal(&wanted, &found)?;
        let mut parents: Vec<String> = wanted
            .iter()
            .filter(|(path, seen)| !path.starts_with("/zookeeper") && seen.can_have_children())
            .map(|(path, _)| path.clone())
            .collect();
        while parents.len() > PARENTS {
            parents.swap_remove(self.dice.index(parents.len()));
        }
        let names = compare::next_names(self.zookeeper, &parents)?;
        if names != compare::next_names(daemon.clients, &parents)? {
            return Err("sequential creates are called differently".into());
        }
        self.control("kill")?;
        daemon.stop()?;
        let source = &report["source"];
        Ok(format!(
            "{znodes} znodes, {} ephemerals, {} sessions, {} transactions behind {}, {} of them in it; {} snapshots skipped, {} \
             records cut short; ",
            report["ephemeral"],
            report["sessions"],
            source["transactions"],
            source["snapshot"].as_str().unwrap_or("none"),
            source["passed_over"],
            source["snapshots_skipped"]["count"],
            source["torn"]["count"],
        ))
    }
}

fn succeeded(output: &Output) -> Outcome<serde_json::Value> {
    if !output.status.success() {
        return Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// It must have been refused, and have said why.
fn refused(output: &Output, why: &str) -> Outcome<()> {
    let said = String::from_utf8_lossy(&output.stderr);
    match (output.status.code(), said.contains(why)) {
        (Some(1), true) => Ok(()),
        _ => Err(format!("{}, and {why:?} is not in {said:?}", output.status).into()),
    }
}

/// A client that is to live on.
fn hold(at: SocketAddr) -> Outcome<Connection> {
    let mut connection = load::connect(at, TIMEOUT_MS)?;
    let op =
        Op::Create { path: HELD, data: None, acl: vec![load::open(31)], mode: CreateMode::Ephemeral, ttl: 0 };
    let reply = connection.call(&Request::Change(Change { opcode: Opcode::Create, op }))?;
    if reply.header.err != 0 {
        return Err(format!("{HELD} cannot be made: {}", reply.header.err).into());
    }
    Ok(connection)
}

/// A soft and a hard quota, unless they are there.
fn quotas(at: SocketAddr) -> Outcome<()> {
    let mut connection = load::connect(at, TIMEOUT_MS)?;
    for (path, data) in [
        ("/shared", ""),
        ("/load-0", ""),
        ("/zookeeper/quota/shared", ""),
        ("/zookeeper/quota/shared/zookeeper_limits", "count=100000,bytes=-1"),
        ("/zookeeper/quota/shared/zookeeper_stats", "count=0,bytes=0"),
        ("/zookeeper/quota/load-0", ""),
        (
            "/zookeeper/quota/load-0/zookeeper_limits",
            "count=-1,bytes=-1=;byteHardLimit=100000000;countHardLimit=-1",
        ),
        ("/zookeeper/quota/load-0/zookeeper_stats", "count=0,bytes=0"),
    ] {
        connection.call(&load::create(path, data.as_bytes()))?;
    }
    connection.close()?;
    Ok(())
}

fn refused_while_it_runs(trial: &mut Trial) -> Outcome<String> {
    trial.start("", SNAP_COUNT)?;
    let mut connection = load::connect(trial.zookeeper, TIMEOUT_MS)?;
    connection.call(&load::create("/shared", b""))?;
    let folder = trial.next_folder();
    refused(&trial.import(&trial.data(), &folder, &[])?, "a ZooKeeper that runs goes on writing")?;
    connection.close()?;
    trial.control("kill")?;
    Ok(String::new())
}

fn session_goes_on(trial: &mut Trial) -> Outcome<String> {
    let holder = trial.holder.take().ok_or("nobody holds anything")?;
    // Restarts of ZooKeeper begin its timeout anew, and so does the import.
    let (mut daemon, _) = trial.served(&trial.data(), &[])?;
    let session = Some((holder.session(), holder.last_zxid()));
    let mut again = Connection::connect(daemon.clients, &Options { session, ..Options::default() })?;
    if again.session().id != holder.session().id {
        return Err("it got another session".into());
    }
    let reply = again.call(&Request::Exists { path: HELD, watch: false })?;
    if reply.header.err != 0 {
        return Err(format!("{HELD} is gone: {}", reply.header.err).into());
    }
    again.close()?;
    let mut other = load::connect(daemon.clients, TIMEOUT_MS)?;
    let reply = other.call(&Request::Exists { path: HELD, watch: false })?;
    if reply.header.err != -101 {
        return Err(format!("{HELD} outlives its session: {}", reply.header.err).into());
    }
    daemon.stop()?;
    Ok(String::new())
}

fn nothing_is_written_over(trial: &mut Trial) -> Outcome<String> {
    let folder = trial.next_folder();
    succeeded(&trial.import(&trial.data(), &folder, &["--dry-run"])?)?;
    if folder.exists() {
        return Err("a trial made a folder".into());
    }
    succeeded(&trial.import(&trial.data(), &folder, &[])?)?;
    refused(&trial.import(&trial.data(), &folder, &[])?, "holds a store already")?;
    let folder = trial.next_folder();
    fs::create_dir(&folder)?;
    refused(&trial.import(&folder, &folder.join("new"), &[])?, "holds no ZooKeeper's data")?;
    Ok(String::new())
}

/// A copy of its data, and the newest file of its log there.
fn copied(trial: &mut Trial) -> Outcome<(PathBuf, PathBuf)> {
    let copy = trial.next_folder();
    fs::create_dir_all(copy.join("version-2"))?;
    let mut logs = Vec::new();
    for entry in fs::read_dir(trial.data().join("version-2"))? {
        let entry = entry?;
        let to = copy.join("version-2").join(entry.file_name());
        fs::copy(entry.path(), &to)?;
        if let Some(zxid) = entry.file_name().to_str().and_then(|name| name.strip_prefix("log.")) {
            logs.push((u64::from_str_radix(zxid, 16)?, to));
        }
    }
    let newest = logs.into_iter().max().ok_or("there is no log")?.1;
    Ok((copy, newest))
}

fn damaged(trial: &mut Trial) -> Outcome<String> {
    let (copy, newest) = copied(trial)?;
    let whole = fs::read(&newest)?;
    let end = whole.iter().rposition(|byte| *byte != 0).ok_or("the log is empty")?;
    // Without its last bytes, and what is zero anyway.
    fs::write(&newest, &whole[..end - 3])?;
    let folder = trial.next_folder();
    let report = succeeded(&trial.import(&copy, &folder, &[])?)?;
    if report["source"]["torn"]["count"] != 1 {
        return Err(format!("nothing is cut short: {report}").into());
    }
    // One bit, in the first record: what comes behind it was acknowledged.
    let mut flipped = whole.clone();
    flipped[16 + 12 + 20] ^= 1;
    fs::write(&newest, &flipped)?;
    // All snapshots but one that this log lies behind would hide it.
    let zxid = |name: &str| u64::from_str_radix(name.split('.').nth(1).unwrap_or(""), 16).unwrap_or(u64::MAX);
    let begins = zxid(&newest.file_name().unwrap_or_default().to_string_lossy());
    for entry in fs::read_dir(copy.join("version-2"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("snapshot.") && zxid(&name) >= begins {
            fs::remove_file(entry.path())?;
        }
    }
    let folder = trial.next_folder();
    refused(&trial.import(&copy, &folder, &[])?, "whose checksum is")?;
    if fs::read_dir(&folder)?.next().is_some() {
        return Err("what was refused left something".into());
    }
    let report = succeeded(&trial.import(&copy, &folder, &["--accept-damage"])?)?;
    if report["source"]["damage"]["count"] == 0 {
        return Err(format!("the damage is not told: {report}").into());
    }
    Ok(String::new())
}

/// Nothing goes by itself in what is compared.
const NO_SESSIONS: &str = "--drop-ephemerals";

fn killed(trial: &mut Trial) -> Outcome<String> {
    let folder = trial.next_folder();
    let data = folder.join("data");
    let mut killed = 0;
    for ms in [1, 3, 5, 8, 12, 20, 30, 50, 80] {
        let mut import = Command::new(&trial.options.warren)
            .args(["import", NO_SESSIONS, "--from"])
            .arg(trial.data())
            .arg("--data-dir")
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        // Not a wait for anything: a place to kill it at.
        thread::sleep(Duration::from_millis(ms));
        import.kill()?;
        if import.wait()?.success() {
            break;
        }
        killed += 1;
        // Killed behind its last step, it left the store, which is the whole of it then.
        if data.join("warren").exists() {
            break;
        }
    }
    if !data.join("warren").exists() {
        succeeded(&trial.import(&trial.data(), &data, &[NO_SESSIONS])?)?;
    }
    let left: Vec<_> = fs::read_dir(&data)?.flatten().map(|entry| entry.file_name()).collect();
    if left != ["warren"] {
        return Err(format!("there is {left:?}").into());
    }
    let mut after = Daemon::new(&trial.options.warrend, &folder, SETTINGS, &mut trial.dice)?;
    after.start()?;
    let (mut beside, _) = trial.served(&trial.data(), &[NO_SESSIONS])?;
    let znodes = compare::equal(&compare::read(beside.clients)?, &compare::read(after.clients)?)?;
    after.stop()?;
    beside.stop()?;
    Ok(format!("{killed} killed; {znodes} znodes; "))
}

fn full_disk(trial: &mut Trial) -> Outcome<String> {
    let Some(small) = trial.options.small.clone() else { return Err("there is no disk to fill".into()) };
    let folder = small.join("data");
    let refused = |trial: &Trial| -> Outcome<()> {
        refused(&trial.import(&trial.data(), &folder, &[])?, "free some space")?;
        match fs::read_dir(&folder)?.next() {
            None => Ok(()),
            Some(left) => Err(format!("{left:?} is left").into()),
        }
    };
    // Before anything is read, and in the middle.
    let filler = small.join("filler");
    fs::write(&filler, vec![1; FILLER_BYTES])?;
    refused(trial)?;
    fs::remove_file(&filler)?;
    refused(trial)?;
    // It is never too late.
    let elsewhere = trial.next_folder();
    succeeded(&trial.import(&trial.data(), &elsewhere, &[])?)?;
    Ok(String::new())
}

fn without_sessions(trial: &mut Trial) -> Outcome<String> {
    let (mut daemon, report) = trial.served(&trial.data(), &["--drop-ephemerals"])?;
    if report["sessions_dropped"] == 0 || report["sessions"] != 0 || report["ephemeral"] != 0 {
        return Err(format!("sessions are left: {report}").into());
    }
    let tree = compare::read(daemon.clients)?;
    if let Some(path) = tree.iter().find_map(|(path, seen)| seen.is_ephemeral().then_some(path)) {
        return Err(format!("{path} is an ephemeral").into());
    }
    daemon.stop()?;
    Ok(format!("{} sessions; ", report["sessions_dropped"]))
}

/// One imports, two are empty; all three have the tree.
fn ensemble(trial: &mut Trial) -> Outcome<String> {
    let (mut alone, _) = trial.served(&trial.data(), &[])?;
    let wanted = compare::read(alone.clients)?;
    alone.stop()?;
    let folder = trial.next_folder();
    let ca = folder.join("ca");
    let warren = trial.options.warren.clone();
    let run = |what: &str, more: &[&std::ffi::OsStr]| -> Outcome<()> {
        let output = Command::new(&warren).args(what.split(' ')).args(more).stdin(Stdio::null()).output()?;
        match output.status.success() {
            true => Ok(()),
            false => Err(format!("warren {what}: {}", String::from_utf8_lossy(&output.stderr)).into()),
        }
    };
    run("certs init --ensemble moved --dir", &[ca.as_os_str()])?;
    let mut servers = Vec::new();
    let mut list = String::new();
    for id in 1..=SERVERS {
        let server = Daemon::new(&trial.options.warrend, &folder.join(id.to_string()), "", &mut trial.dice)?;
        let peer = loop {
            let port = free_port(&mut trial.dice);
            if UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                break port;
            }
        };
        list.push_str(&format!(
            "[[ensemble.server]]\nid = {id}\npeer_addr = \"127.0.0.1:{peer}\"\nclient_addr = \"{}\"\n",
            server.clients
        ));
        servers.push(server);
    }
    for (id, server) in (1..=SERVERS).zip(&servers) {
        let cert = server.folder().join("server.pem");
        let issue = format!("certs issue --server-id {id} --dir");
        run(&issue, &[ca.as_os_str(), "--out".as_ref(), cert.as_os_str()])?;
        server.configure(&format!(
            "{SETTINGS}[ensemble]\nname = \"moved\"\nserver_id = {id}\ncert = {cert:?}\nca = {:?}\n{list}",
            ca.join("ca.pem")
        ))?;
    }
    succeeded(&trial.import(&trial.data(), &servers[0].folder().join("data"), &[])?)?;
    servers.iter_mut().try_for_each(Daemon::spawn)?;
    servers.iter_mut().try_for_each(Daemon::serving)?;
    for server in &servers {
        // A server that serves may be behind the first.
        let mut last = Err("never read".into());
        super::daemon::eventually(|| {
            last = compare::read(server.clients).and_then(|found| compare::equal(&wanted, &found));
            last.is_ok()
        });
        last?;
    }
    servers.iter_mut().try_for_each(Daemon::stop)?;
    Ok(format!("{} znodes; ", wanted.len()))
}

/// Time and memory of an import, printed.
fn measured(trial: &mut Trial) -> Outcome<String> {
    let znodes = trial.options.large.unwrap_or_default();
    trial.start("", 10_000_000)?;
    let mut connection = load::connect(trial.zookeeper, TIMEOUT_MS)?;
    let data = [7; 100];
    let mut made = 0;
    while made < znodes {
        let parent = format!("/parent-{}", made / 10_000);
        connection.call(&load::create(&parent, b""))?;
        let paths: Vec<String> =
            (made..(made + MULTI).min(znodes)).map(|n| format!("{parent}/znode-{n}")).collect();
        let change = |path| match load::create(path, &data) {
            Request::Change(change) => change,
            _ => unreachable!("a create is a change"),
        };
        connection.send(&Request::Multi(paths.iter().map(|path| change(path.as_str())).collect()))?;
        made += paths.len();
        if connection.pending() >= 16 {
            while connection.pending() > 0 {
                connection.recv()?;
            }
        }
    }
    while connection.pending() > 0 {
        connection.recv()?;
    }
    trial.control("kill")?;
    let mut said = String::new();
    for what in ["log alone", "snapshot"] {
        if what == "snapshot" {
            // It makes one at its start.
            trial.start("", 10_000_000)?;
            trial.control("kill")?;
        }
        let folder = trial.next_folder();
        let report = succeeded(&trial.import(&trial.data(), &folder, &[])?)?;
        let mib = report["memory_bytes"].as_u64().unwrap_or(0) >> 20;
        said.push_str(&format!(
            "{what}: {} znodes in {:.1} s, {mib} MiB of memory; ",
            report["persistent"],
            report["seconds"].as_f64().unwrap_or(0.0)
        ));
        io::stdout().flush()?;
    }
    Ok(said)
}
