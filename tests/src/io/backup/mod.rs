//! Backups of real servers under load, and their logs: what comes back is what was there, znode by znode; and what is no whole backup, or
//! has no place to go, changes nothing.

mod broken;
mod command;
mod ensemble;
mod load;
mod told;
mod whole;

use super::daemon::Daemon;
use crate::sim::Dice;
use command::Said;
use std::path::{Path, PathBuf};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// What is tried, and with what.
struct Trial {
    warrend: PathBuf,
    warren: PathBuf,
    folder: PathBuf,
    dice: Dice,
    /// Stands alone, and has the data that is backed up.
    source: Option<Daemon>,
    /// Of the last step, for the line that is printed.
    note: String,
}

/// Settings of all that stand alone: ACLs and quotas count, TTL znodes may be made.
const SETTINGS: &str = "[znodes]\nttl_enabled = true\nquotas_enforced = true\n";

/// Try it, and print what holds. `small`: a tmpfs that may be filled, if there is one.
pub fn run(warrend: &Path, warren: &Path, small: Option<&Path>, seed: Option<u64>) -> bool {
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) << 20 ^ super::crash::now_ms());
    let folder = match tempfile::tempdir() {
        Ok(folder) => folder,
        Err(e) => {
            println!("FAIL backup: no folder: {e}");
            return false;
        }
    };
    println!("backup: seed {seed}, folder {}", folder.path().display());
    let mut trial = Trial {
        warrend: warrend.to_owned(),
        warren: warren.to_owned(),
        folder: folder.path().to_owned(),
        dice: Dice::new(seed),
        source: None,
        note: String::new(),
    };
    type Step<'a> = Box<dyn Fn(&mut Trial) -> Outcome<()> + 'a>;
    let mut steps: Vec<(&str, Step<'_>)> = vec![
        ("a backup comes back znode by znode, and without its sessions", Box::new(whole::comes_back)),
        ("a backup under load is of one zxid, and has what was acknowledged", Box::new(whole::under_load)),
        (
            "clients of before are told that their session is over, and see no time go back",
            Box::new(whole::clients_of_before),
        ),
        ("a folder keeps the newest backups", Box::new(whole::kept)),
        ("nothing is written over", Box::new(broken::written_over)),
        ("what is no whole backup is not restored", Box::new(broken::not_whole)),
        ("a backup is verified", Box::new(told::backups)),
        ("the log tells who asked for what, and no secrets", Box::new(told::log)),
        ("a store is verified, and not changed", Box::new(told::stores)),
        ("a killed restore leaves nothing, and the next one works", Box::new(broken::killed_restore)),
        (
            "a killed backup leaves nothing that looks done, and the next one works",
            Box::new(broken::killed_backup),
        ),
    ];
    if let Some(small) = small {
        steps.push((
            "a full disk leaves nothing of a backup, nor of a restore, and the server unharmed",
            Box::new(|trial| broken::full_disk(trial, small)),
        ));
    }
    steps.push((
        "an ensemble is restored on one server, and the others come empty",
        Box::new(ensemble::restored),
    ));
    for (what, step) in &steps {
        trial.note.clear();
        match step(&mut trial) {
            Ok(()) => println!("PASS backup: {what}{}", trial.note),
            Err(e) => {
                // What follows stands on it.
                println!("FAIL backup: {what}: {e} [seed {seed}]");
                return false;
            }
        }
    }
    true
}

impl Trial {
    /// The server with the data.
    fn source(&mut self) -> &mut Daemon {
        self.source.as_mut().expect("the first step starts it")
    }

    /// The command, to the server with the data.
    fn ask(&self, words: &[&str]) -> Outcome<Said> {
        let data = self.source.as_ref().expect("the first step starts it").folder().join("data");
        self.warren(&[&["--data-dir", &data.display().to_string()], words].concat())
    }

    /// Restore into the data folder of a server that is not there yet, and start it.
    fn restored(&mut self, from: &str, name: &str) -> Outcome<Daemon> {
        let folder = self.folder.join(name);
        let data = folder.join("data").display().to_string();
        let mut daemon = Daemon::new(&self.warrend, &folder, SETTINGS, &mut self.dice)?;
        self.warren(&["restore", "--from", from, "--data-dir", &data])?.must(0, "every checksum")?;
        daemon.start()?;
        Ok(daemon)
    }
}
