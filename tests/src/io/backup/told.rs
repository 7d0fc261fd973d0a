//! `warren verify` and `warren log`.

use super::{Outcome, Trial, load};
use crate::io::daemon::eventually;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use warren_storage::{CreateMode, Op};
use warren_transport::io::blocking::{Connection, Options};
use warren_transport::{Change, Opcode, Request, Response};

pub(super) fn backups(trial: &mut Trial) -> Outcome<()> {
    trial.warren(&["verify", "whole"])?.must(0, "nothing is damaged")?;
    let said = trial.warren(&["-o", "json", "verify", "whole"])?.must(0, "sha256")?;
    let json: serde_json::Value = serde_json::from_str(&said.out)?;
    if json["damaged"] != false || json["findings"].as_array().is_none_or(|all| !all.is_empty()) {
        return Err(format!("a whole backup is {json}").into());
    }
    let good = fs::read(trial.folder.join("whole"))?;
    let damaged = |what: &str, bytes: &[u8], why: &str| -> Outcome<()> {
        fs::write(trial.folder.join("bad"), bytes)?;
        let said = trial.warren(&["verify", "bad"])?;
        said.must(1, why).and_then(|said| said.must(1, "DAMAGED")).map_err(|e| format!("{what}: {e}"))?;
        Ok(())
    };
    damaged("foreign", b"something else altogether", "no backup of Warren's")?;
    damaged("cut off", &good[..good.len() / 2], "is cut off")?;
    for at in [good.len() / 5, good.len() / 2, good.len() - 40] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        damaged("a flipped bit", &bad, "is damaged")?;
    }
    trial.warren(&["verify", "no-such-file"])?.must(1, "no-such-file")?;
    trial.warren(&["verify", "kept"])?.must(1, "holds a store")?;
    Ok(())
}

pub(super) fn stores(trial: &mut Trial) -> Outcome<()> {
    let data = trial.source().folder().join("data");
    let path = data.display().to_string();
    trial.warren(&["verify", &path])?.must(1, "a server runs on")?;
    // Killed, it is what the next start will repair.
    trial.source().kill();
    trial.warren(&["verify", &path])?.must(0, "nothing is damaged")?;
    let said = trial.warren(&["-o", "json", "verify", &path])?.must(0, "znodes")?;
    let json: serde_json::Value = serde_json::from_str(&said.out)?;
    if json["damaged"] != false || json["requests"].as_u64().is_none() {
        return Err(format!("a store is {json}").into());
    }
    // A copy with a page changed: of the tree, and of the log.
    let bad = trial.folder.join("bad-store");
    let mut told = 0;
    let mut names: Vec<String> = fs::read_dir(data.join("warren"))?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .filter(|name: &Outcome<String>| name.as_ref().is_ok_and(|name| name.ends_with(".redb")))
        .collect::<Outcome<_>>()?;
    names.retain(|name| name.starts_with("log-") || name == "tree.redb");
    names.sort();
    for name in [names.first(), names.last()].into_iter().flatten() {
        for part in [3, 5] {
            let _ = fs::remove_dir_all(&bad);
            copy(&data.join("warren"), &bad)?;
            let file = fs::File::options().read(true).write(true).open(bad.join(name))?;
            let length = file.metadata()?.len().min(4 << 20);
            // A run of pages, so that one in use is among them.
            for page in 0..64 {
                let at = length / part / 4096 * 4096 + page * 4096 + 100;
                if at + 8 < file.metadata()?.len() {
                    let mut bytes = [0; 8];
                    file.read_exact_at(&mut bytes, at)?;
                    file.write_all_at(&bytes.map(|byte| !byte), at)?;
                }
            }
            let said = trial.warren(&["verify", "bad-store"])?;
            match said.status {
                0 => {}
                1 if said.out.contains("DAMAGED") => told += 1,
                _ => return Err(format!("a damaged {name} is told by {said:?}").into()),
            }
        }
    }
    fs::remove_dir_all(&bad)?;
    if told < 2 {
        return Err(format!("of four damages {told} were told").into());
    }
    // Looking changes nothing.
    trial.source().start()?;
    let mut client = load::connect(trial.source().clients)?;
    load::change(&mut client, load::set("/empty", b"after verify"))
}

fn copy(from: &Path, to: &Path) -> Outcome<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Lines of `warren log` without the zxid, and without what became of it: nobody but a server that applied it knows those.
fn asked(out: &str) -> Vec<String> {
    let line = |line: &str| {
        let line = line.split("  [").next().unwrap_or(line);
        let words = line.split_whitespace().enumerate().filter(|(n, _)| *n != 2);
        words.map(|(_, word)| word).collect::<Vec<_>>().join(" ")
    };
    out.lines().map(line).collect()
}

pub(super) fn log(trial: &mut Trial) -> Outcome<()> {
    let at = trial.source().clients;
    let mut alice = Connection::connect(at, &Options { timeout_ms: 20_000, ..Options::default() })?;
    alice.auth("digest", b"alice:very-secret")?;
    let session = format!("{:#x}", alice.session().id);
    load::change(&mut alice, load::create("/told", Some(b"the-data"), CreateMode::Persistent))?;
    load::change(&mut alice, load::create("/told/below", Some(b""), CreateMode::Ephemeral))?;
    let op = Op::Delete { path: "/told/nothing", version: 3 };
    // Refused, and told all the same.
    let _ = alice.call(&Request::Change(Change { opcode: Opcode::Delete, op }))?;
    let mut other = load::connect(at)?;
    load::change(&mut other, load::set("/told", b"another"))?;
    drop(other);
    alice.close()?;

    let running = trial.ask(&["log", "--path", "/told"])?.must(0, "create /told (8 bytes)")?;
    let lines: Vec<&str> = running.out.lines().collect();
    if lines.len() != 4
        || !lines[..3].iter().all(|line| line.contains(&session) && line.contains("digest:alice"))
    {
        return Err(format!("below /told there is {}", running.out).into());
    }
    // The zxids are those that clients see, and what was refused is told so.
    let zxid = |line: &str| line.split_whitespace().nth(2).map(str::to_owned).ok_or("a line has a zxid");
    let stat = |at: SocketAddr| -> Outcome<warren_storage::Stat> {
        let mut client = load::connect(at)?;
        match client.call(&Request::Exists { path: "/told", watch: false })?.response()? {
            Response::Stat(stat) => Ok(stat),
            other => Err(format!("{other:?} is no Stat").into()),
        }
    };
    let stat = stat(at)?;
    if zxid(lines[0])? != format!("{:#x}", stat.czxid) || zxid(lines[3])? != format!("{:#x}", stat.mzxid) {
        return Err(format!("{stat:?} is told as {}", running.out).into());
    }
    let refused: Vec<bool> = lines.iter().map(|line| line.contains("[refused: ")).collect();
    if refused != [false, false, true, false] {
        return Err(format!("what was refused is told as {}", running.out).into());
    }
    let digest = warren_server::identity::digest_of("alice:very-secret");
    let digest = digest.split_once(':').ok_or("a digest")?.1;
    if running.out.contains("the-data") || running.out.contains(digest) {
        return Err("data or a digest are told".into());
    }
    trial.ask(&["log", "--path", "/told", "--data"])?.must(0, "= the-data")?;
    let by = trial.ask(&["-o", "json", "log", "--session", &session])?.must(0, "closeSession")?;
    let by: Vec<serde_json::Value> = by.out.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    if by.len() != 5 || by.iter().any(|request| request["session"] != session.as_str()) {
        return Err(format!("of session {session} there is {by:?}").into());
    }
    let time = by[2]["time"].as_str().ok_or("a request has a time")?.to_owned();
    let since = trial
        .ask(&["log", "--session", &session, "--since", &time])?
        .must(0, "delete /told/nothing (version 3)")?;
    let until = trial.ask(&["log", "--session", &session, "--until", &time])?;
    if since.out.lines().count() + until.out.lines().count() != 5 {
        return Err(format!("since and until {time} there are {} and {}", since.out, until.out).into());
    }
    trial.ask(&["log", "--since", "1h", "--path", "/told"])?.must(0, "create /told")?;
    trial.ask(&["log", "--since", "yesterday"])?.must(64, "is no time")?;
    trial.ask(&["log", "--path", "told"])?.must(64, "paths begin with /")?;
    trial.ask(&["log", "--session", "x"])?.must(64, "no session")?;
    trial.warren(&["--data-dir", "nowhere", "log"])?.must(2, "no server answers")?;

    // Of a server that was killed, and of one that was stopped.
    trial.source().kill();
    let killed = trial.ask(&["log", "--path", "/told"])?.must(0, "create /told")?;
    if asked(&killed.out) != asked(&running.out) {
        return Err(format!("of the killed server there is {}", killed.out).into());
    }
    trial.source().start()?;
    let same = |out: &str| asked(out) == asked(&running.out);
    let served = || trial.ask(&["log", "--path", "/told"]).is_ok_and(|said| same(&said.out));
    match eventually(served) {
        true => Ok(()),
        false => Err("after the next start the log tells something else".into()),
    }
}
