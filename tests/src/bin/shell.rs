//! The shell, driven as a user would; see `warren_tests::io::shell`.

use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use warren_tests::io::shell;

/// Drive the shell in a real terminal, and compare what it says on Warren and on ZooKeeper
#[derive(Parser)]
struct Flags {
    /// The daemon's binary, for the script that starts servers
    #[arg(long, env = "WARREND")]
    warrend: PathBuf,
    /// The command's binary
    #[arg(long, env = "WARREN")]
    warren: PathBuf,
    /// The script that starts either server
    #[arg(long)]
    servers: PathBuf,
    /// Leave out what needs ZooKeeper
    #[arg(long)]
    without_zookeeper: bool,
    /// Only the cases whose name has this
    #[arg(long)]
    only: Option<String>,
    /// Draw ports from this; else from the clock
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let Flags { warrend, warren, servers, without_zookeeper, only, seed } = Flags::parse();
    let plan = shell::Plan { warrend, warren, script: servers, without_zookeeper, only, seed };
    if shell::run(&plan) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
