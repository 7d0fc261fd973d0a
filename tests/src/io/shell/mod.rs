//! The shell as a user has it: typed into a real terminal, one command at a time, and fed by a pipe.

mod once;
mod server;
mod terminal;
mod transcript;
mod typed;

use crate::sim::Dice;
use server::Server;
use std::path::{Path, PathBuf};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// What to try.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The daemon.
    pub warrend: PathBuf,
    /// The command.
    pub warren: PathBuf,
    /// The script that starts either server.
    pub script: PathBuf,
    /// Leave out what needs ZooKeeper.
    pub without_zookeeper: bool,
    /// Only the cases whose name has this.
    pub only: Option<String>,
    /// For ports.
    pub seed: Option<u64>,
}

/// What the cases have in common.
struct Stage<'p> {
    plan: &'p Plan,
    folder: &'p Path,
    dice: Dice,
    warren: Server,
}

/// Try it, and print what holds.
pub fn run(plan: &Plan) -> bool {
    let seed = plan.seed.unwrap_or_else(|| u64::from(std::process::id()) << 20 ^ super::crash::now_ms());
    match all(plan, seed) {
        Ok(passed) => passed,
        Err(e) => {
            println!("FAIL shell: {e} [seed {seed}]");
            false
        }
    }
}

fn all(plan: &Plan, seed: u64) -> Outcome<bool> {
    let folder = tempfile::Builder::new().prefix("warren-shell-").tempdir()?;
    println!("shell: seed {seed}, folder {}", folder.path().display());
    let mut dice = Dice::new(seed);
    let warren = Server::start("warren", plan, &folder.path().join("warren"), &mut dice)?;
    let mut stage = Stage { plan, folder: folder.path(), dice, warren };
    type Case = fn(&mut Stage<'_>) -> Outcome<()>;
    let cases: &[(&str, Case)] = &[
        ("commands end with a status, and failures say what can be done", once::statuses),
        ("a watch is waited for", once::watches),
        ("a copy has the data and the ACLs of what it is of", once::copies),
        ("the same is said on Warren and on ZooKeeper", transcript::compare),
        ("what is typed is carried out, and completed", typed::completes),
        ("an event comes in the middle of a line and leaves it whole", typed::events),
        ("history is searched, kept for its owner alone, and without credentials", typed::history),
        ("Ctrl-C gives up a line or a command, Ctrl-D ends", typed::interrupts),
        ("a terminal may change its size", typed::resizes),
        ("a session outlives its server's restart, with its watches", typed::reconnects),
        ("another of the servers is found", typed::moves_on),
        ("100,000 children are completed", typed::completes_among_many),
    ];
    let mut passed = true;
    for (what, case) in cases {
        let left_out = plan.without_zookeeper && *what == cases[2].0;
        if left_out || plan.only.as_ref().is_some_and(|only| !what.contains(only.as_str())) {
            continue;
        }
        match case(&mut stage) {
            Ok(()) => println!("PASS shell: {what}"),
            Err(e) => {
                println!("FAIL shell: {what}: {e} [seed {seed}]");
                passed = false;
            }
        }
    }
    Ok(passed)
}
