//! What must not be restored, and what must not be left when something comes in between.

use super::{Outcome, Trial, load};
use crate::io::daemon::eventually;
use std::fs;
use std::path::Path;
use std::time::Duration;
use warren_storage::CreateMode;

/// How often a command is killed.
const KILLS: usize = 6;

/// The server still does what it is there for.
fn unharmed(trial: &mut Trial) -> Outcome<()> {
    let mut client = load::connect(trial.source().clients)?;
    load::change(&mut client, load::set("/empty", b"still here"))?;
    trial.ask(&["status"])?.must(0, "served")?;
    Ok(())
}

fn nothing_at(path: &Path) -> Outcome<()> {
    match path.exists() {
        true => Err(format!("{} is there", path.display()).into()),
        false => Ok(()),
    }
}

pub(super) fn written_over(trial: &mut Trial) -> Outcome<()> {
    trial.ask(&["backup", "--out", "whole"])?.must(1, "--overwrite")?;
    trial.ask(&["backup"])?.must(64, "--out")?;
    trial.ask(&["backup", "--out", "x", "--dir", "kept"])?.must(64, "cannot be used with")?;
    trial.ask(&["backup", "--out", "nowhere/x"])?.must(1, "nowhere/x")?;
    trial.ask(&["backup", "--dir", "nowhere"])?.must(1, "nowhere")?;
    trial.warren(&["--data-dir", "nowhere", "backup", "--out", "x"])?.must(2, "no server answers")?;
    // A live store, one that is not live, and a ZooKeeper's.
    trial.ask(&["restore", "--from", "whole"])?.must(1, "a server runs on")?;
    unharmed(trial)?;
    trial
        .warren(&["restore", "--from", "whole", "--data-dir", "copy/data"])?
        .must(1, "holds a store already")?;
    fs::create_dir_all(trial.folder.join("zookeeper/version-2"))?;
    trial
        .warren(&["restore", "--from", "whole", "--data-dir", "zookeeper"])?
        .must(1, "a ZooKeeper's data")?;
    nothing_at(&trial.folder.join("zookeeper/warren"))?;
    nothing_at(&trial.folder.join("x"))
}

pub(super) fn not_whole(trial: &mut Trial) -> Outcome<()> {
    let good = fs::read(trial.folder.join("whole"))?;
    let refused = |what: &str, bytes: &[u8], why: &str| -> Outcome<()> {
        fs::write(trial.folder.join("bad"), bytes)?;
        let said = trial.warren(&["restore", "--from", "bad", "--data-dir", "never"])?;
        said.must(1, why).map_err(|e| format!("{what}: {e}"))?;
        nothing_at(&trial.folder.join("never/warren"))?;
        nothing_at(&trial.folder.join("never/warren.restoring"))
    };
    refused("foreign", b"PK\x03\x04 something else altogether", "no backup of Warren's")?;
    refused("nothing", b"", "no backup of Warren's")?;
    for part in [20, good.len() / 3, good.len() / 2, good.len() - 1] {
        refused("cut off", &good[..part], "is cut off")?;
    }
    for at in [9, 40, good.len() / 4, good.len() / 2, good.len() - 10] {
        let mut bad = good.clone();
        bad[at] ^= 16;
        refused("a flipped bit", &bad, "backup")?;
    }
    let mut longer = good.clone();
    longer.push(0);
    refused("something behind", &longer, "something follows")?;
    trial.warren(&["restore", "--from", "no-such-file", "--data-dir", "never"])?.must(1, "no-such-file")?;
    trial.warren(&["restore", "--from", "kept", "--data-dir", "never"])?.must(1, "kept")?;
    Ok(())
}

pub(super) fn killed_restore(trial: &mut Trial) -> Outcome<()> {
    let words = ["restore", "--from", "whole", "--data-dir", "killed/data"];
    let store = trial.folder.join("killed/data/warren");
    let mut begun = 0;
    for n in 0..KILLS {
        let mut process = trial.begin(&words)?;
        // Some before anything is made, some in the middle.
        let side = trial.folder.join("killed/data/warren.restoring/tree.redb.new");
        let larger = |bytes: u64| fs::metadata(&side).is_ok_and(|file| file.len() > bytes);
        let done =
            eventually(|| n == 0 || larger((n as u64 - 1) << 23) || !matches!(process.try_wait(), Ok(None)));
        let _ = process.kill();
        let killed = !process.wait()?.success();
        begun += usize::from(done && killed && side.parent().is_some_and(Path::exists));
        if killed {
            nothing_at(&store)?;
        } else {
            fs::remove_dir_all(&store)?;
        }
    }
    if begun == 0 {
        return Err("none was killed at work".into());
    }
    // Two at once: one does it, whichever is the first to take the folder.
    let mut first = trial.begin(&words)?;
    let second = trial.warren(&words)?;
    match (first.wait()?.code(), second.status) {
        (Some(0), _) => drop(second.must(1, "nothing is restored")?),
        (Some(1), 0) => {}
        (first, _) => return Err(format!("one of two does it: {first:?} and {second:?}").into()),
    }
    nothing_at(&trial.folder.join("killed/data/warren.restoring"))?;
    fs::remove_dir_all(&store)?;
    let mut copy = trial.restored("whole", "killed")?;
    copy.stop()?;
    Ok(())
}

pub(super) fn killed_backup(trial: &mut Trial) -> Outcome<()> {
    let (out, partial) = (trial.folder.join("killed.backup"), trial.folder.join("killed.backup.partial"));
    let data = trial.source().folder().join("data").display().to_string();
    let words = ["--data-dir", &data, "backup", "--out", "killed.backup"];
    for n in 0..KILLS {
        // What a killed one left is not to be taken for the next one's, which is refused until the server has noticed.
        let _ = fs::remove_file(&partial);
        let mut process = trial.begin(&words)?;
        let larger = |bytes: u64| fs::metadata(&partial).is_ok_and(|file| file.len() > bytes);
        let begun = eventually(|| {
            let refused = matches!(process.try_wait(), Ok(Some(status)) if !status.success());
            if refused && let Ok(next) = trial.begin(&words) {
                process = next;
            }
            larger((n as u64) << 20) || matches!(process.try_wait(), Ok(Some(status)) if status.success())
        });
        if !begun {
            return Err(format!("a backup behind {n} that were killed does not begin").into());
        }
        let asked = n % 2 == 1;
        match asked {
            // By Ctrl-C, it tidies up.
            true => {
                let pid = rustix::process::Pid::from_child(&process);
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
            }
            false => drop(process.kill()),
        }
        match process.wait()?.success() {
            true => fs::remove_file(&out)?,
            false => nothing_at(&out)?,
        }
        if asked {
            nothing_at(&partial)?;
        }
    }
    unharmed(trial)?;
    // The server lets the next one begin as soon as it has noticed.
    let mut said = trial.warren(&words)?;
    eventually(|| {
        if said.status == 0 {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
        trial.warren(&words).is_ok_and(|now| {
            said = now;
            said.status == 0
        })
    });
    said.must(0, "killed.backup: zxid")?;
    nothing_at(&partial)?;
    trial
        .warren(&["restore", "--from", "killed.backup", "--data-dir", "after"])?
        .must(0, "every checksum")?;
    Ok(())
}

pub(super) fn full_disk(trial: &mut Trial, small: &Path) -> Outcome<()> {
    let out = small.join("backup").display().to_string();
    trial.ask(&["backup", "--out", &out])?.must(1, "the disk is full")?;
    nothing_at(&small.join("backup"))?;
    nothing_at(&small.join("backup.partial"))?;
    unharmed(trial)?;
    let data = small.join("data").display().to_string();
    trial.warren(&["restore", "--from", "whole", "--data-dir", &data])?.must(1, "free some space")?;
    nothing_at(&small.join("data/warren"))?;
    nothing_at(&small.join("data/warren.restoring"))?;
    let mut client = load::connect(trial.source().clients)?;
    load::change(&mut client, load::create("/after-full", None, CreateMode::Persistent))?;
    Ok(())
}
