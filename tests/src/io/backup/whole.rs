//! What a backup must bring back.

use super::load::{self, Tree};
use super::{Outcome, SETTINGS, Trial};
use crate::io::daemon::Daemon;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use warren_storage::CreateMode;
use warren_transport::Request;
use warren_transport::io::blocking::{Connection, Error, Options};

/// Znodes of some size, and their size: what a backup has to carry.
const ZNODES: usize = 40_000;
const ZNODE_BYTES: usize = 2_000;
/// Of them so many are compared with all that they have: every one in so many.
const ONE_IN: usize = 7;
/// Clients whose latency is looked at.
const CLIENTS: usize = 4;
/// Of each, between two requests.
const PAUSE: Duration = Duration::from_millis(2);
/// How long they are watched without a backup.
const CALM: Duration = Duration::from_secs(3);
/// Backups that are taken while they are watched.
const BACKUPS: usize = 3;

fn same(before: &Tree, after: &Tree) -> Outcome<()> {
    let different = load::differences(before, after);
    match different.is_empty() {
        true => Ok(()),
        false => {
            let some: Vec<&str> = different.iter().take(5).map(String::as_str).collect();
            Err(format!("{} znodes differ: {}", different.len(), some.join("\n")).into())
        }
    }
}

pub(super) fn comes_back(trial: &mut Trial) -> Outcome<()> {
    let mut daemon = Daemon::new(&trial.warrend, &trial.folder.join("source"), SETTINGS, &mut trial.dice)?;
    daemon.start()?;
    let at = daemon.clients;
    trial.source = Some(daemon);
    let mut holder = load::connect(at)?;
    load::fill(&mut holder, ZNODES, ZNODE_BYTES)?;
    let before = load::read(at, ONE_IN)?;
    let began = Instant::now();
    trial.ask(&["backup", "--out", "whole"])?.must(0, "whole: zxid 0x")?;
    let took = began.elapsed();
    let _ = holder.close();

    let began = Instant::now();
    let mut copy = trial.restored("whole", "copy")?;
    let restored = began.elapsed();
    let after = load::read(copy.clients, ONE_IN)?;
    same(&before, &after)?;
    // Numbers of sequences and epochs go on.
    let mut client = load::connect(copy.clients)?;
    let next = load::sequential(&mut client, "/sequence/s-", CreateMode::PersistentSequential)?;
    let lock = load::sequential(&mut client, "/locks/queue-", CreateMode::EphemeralSequential)?;
    if (next.as_str(), lock.as_str()) != ("/sequence/s-0000000003", "/locks/queue-0000000004") {
        return Err(format!("the sequences went on with {next} and {lock}").into());
    }
    // Quotas count on.
    load::change(&mut client, load::create("/limited/y", Some(b"56"), CreateMode::Persistent))?;
    let stats = load::read(copy.clients, 10_000)?["/zookeeper/quota/limited/zookeeper_stats"].data.clone();
    if stats.as_deref() != Some(b"count=3,bytes=6") {
        return Err(format!("the quota counts {stats:?}").into());
    }
    drop(client);
    // As its own log has it, too.
    copy.kill();
    copy.start()?;
    let again = load::read(copy.clients, ONE_IN)?;
    if !again.contains_key("/limited/y") || !again.contains_key(&next) {
        return Err("what was written after the restore is not there".into());
    }
    copy.stop()?;
    let mib = (ZNODES * ZNODE_BYTES) as f64 / f64::from(1 << 20);
    write!(
        trial.note,
        " ({mib:.0} MiB: backup {:.2} s, restore and start {:.2} s)",
        took.as_secs_f64(),
        restored.as_secs_f64()
    )?;
    Ok(())
}

pub(super) fn under_load(trial: &mut Trial) -> Outcome<()> {
    let at = trial.source().clients;
    let (stop, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    let outcome = std::thread::scope(|scope| -> Outcome<(f64, u64, u64, u64)> {
        let pair = scope.spawn(|| load::keep_a_pair(at, &stop, &acknowledged).map_err(|e| e.to_string()));
        let watched: Vec<_> = (0..CLIENTS)
            .map(|n| {
                let stop = &stop;
                scope.spawn(move || {
                    load::latencies(at, &n.to_string(), PAUSE, stop).map_err(|e| e.to_string())
                })
            })
            .collect();
        let measured = (|| -> Outcome<_> {
            std::thread::sleep(CALM);
            let (mut least, mut took) = (0, Duration::ZERO);
            let begins = Instant::now();
            for _ in 0..BACKUPS {
                least = acknowledged.load(Ordering::Acquire);
                let began = Instant::now();
                trial.ask(&["backup", "--out", "loaded", "--overwrite"])?.must(0, "loaded: zxid 0x")?;
                took += began.elapsed();
            }
            Ok((least, took, begins))
        })();
        stop.store(true, Ordering::Relaxed);
        pair.join().expect("the writer does not panic")?;
        let mut calm = Vec::new();
        let mut busy = Vec::new();
        let (least, took, begins) = measured?;
        for client in watched {
            for (when, us) in client.join().expect("the client does not panic")? {
                if when < begins { &mut calm } else { &mut busy }.push(us);
            }
        }
        let bytes = (ZNODES * ZNODE_BYTES * BACKUPS) as f64;
        let rate = bytes / took.as_secs_f64() / 1e6;
        Ok((rate, load::percentile(calm, 99), load::percentile(busy, 99), least))
    });
    let (rate, calm, busy, least) = outcome?;
    write!(
        trial.note,
        " ({rate:.0} MB/s of data; p99 of clients {:.1} ms without, {:.1} ms while a backup is taken)",
        calm as f64 / 1e3,
        busy as f64 / 1e3
    )?;

    let mut copy = trial.restored("loaded", "loaded-copy")?;
    let tree = load::read(copy.clients, 10_000)?;
    copy.stop()?;
    let of = |path: &str| -> Outcome<(u64, i64)> {
        let seen = tree.get(path).ok_or("a znode of the pair is gone")?;
        let text = String::from_utf8(seen.data.clone().unwrap_or_default())?;
        Ok((text.parse()?, seen.stat.mzxid))
    };
    let (a, b) = (of("/pair/a")?, of("/pair/b")?);
    if a != b {
        return Err(format!("what was written in one transaction came back as {a:?} and {b:?}").into());
    }
    if a.0 < least {
        return Err(format!("{least} was acknowledged before the backup began, and {} is in it", a.0).into());
    }
    Ok(())
}

pub(super) fn clients_of_before(trial: &mut Trial) -> Outcome<()> {
    let at = trial.source().clients;
    let mut client = Connection::connect(at, &Options { timeout_ms: 20_000, ..Options::default() })?;
    load::change(&mut client, load::create("/held", Some(b""), CreateMode::Ephemeral))?;
    trial.ask(&["backup", "--out", "before"])?.must(0, "before: zxid 0x")?;
    // It goes on, and sees more than the backup has.
    load::change(&mut client, load::create("/later", Some(b""), CreateMode::Persistent))?;
    client.call(&Request::Exists { path: "/later", watch: false })?;
    let session = (client.session(), client.last_zxid());

    let mut copy = trial.restored("before", "before-copy")?;
    let options = Options { timeout_ms: 20_000, session: Some(session), ..Options::default() };
    match Connection::connect(copy.clients, &options) {
        Err(Error::Expired) => {}
        other => return Err(format!("the old session got {:?}", other.map(|c| c.session())).into()),
    }
    let mut client = load::connect(copy.clients)?;
    client.call(&Request::Exists { path: "/held", watch: false })?;
    if client.last_zxid() <= session.1 {
        return Err(format!("zxid {:#x} comes after {:#x}", client.last_zxid(), session.1).into());
    }
    let tree = load::read(copy.clients, 10_000)?;
    if tree.contains_key("/held") || tree.contains_key("/later") {
        return Err("an ephemeral, or what came after the backup, is there".into());
    }
    copy.stop()?;
    Ok(())
}

pub(super) fn kept(trial: &mut Trial) -> Outcome<()> {
    let dir = trial.folder.join("kept");
    std::fs::create_dir(&dir)?;
    std::fs::write(dir.join("mine.txt"), "")?;
    let mut names: Vec<String> = Vec::new();
    for n in 0..4 {
        // Names tell seconds.
        let mut said = trial.ask(&["-o", "json", "backup", "--dir", "kept", "--keep", "2"])?;
        while said.status == 1 && said.err.contains("is there already") {
            std::thread::sleep(Duration::from_millis(100));
            said = trial.ask(&["-o", "json", "backup", "--dir", "kept", "--keep", "2"])?;
        }
        let said = said.must(0, "sha256")?;
        let json: serde_json::Value = serde_json::from_str(&said.out)?;
        names.push(json["file"].as_str().ok_or("no file is told")?.replace("kept/", ""));
        let removed = json["removed"].as_array().map_or(0, Vec::len);
        if removed != usize::from(n >= 2) {
            return Err(format!("backup {n} removed {removed}: {}", said.out).into());
        }
    }
    let mut there: Vec<String> = std::fs::read_dir(&dir)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Outcome<_>>()?;
    there.sort();
    if there != ["mine.txt", &names[2], &names[3]] {
        return Err(format!("{there:?} are kept, of {names:?}").into());
    }
    Ok(())
}
