//! A real ZooKeeper's files, imported; see `warren_tests::io::import`.

use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use warren_tests::io::import;

/// Write to a real ZooKeeper, kill it, import its files, and compare the trees
#[derive(Parser)]
struct Flags {
    /// The daemon's binary
    #[arg(long, env = "WARREND")]
    warrend: PathBuf,
    /// The command's binary
    #[arg(long, env = "WARREN")]
    warren: PathBuf,
    /// The script that starts a ZooKeeper
    #[arg(long)]
    server: PathBuf,
    /// Draw everything from this; else from the process id
    #[arg(long)]
    seed: Option<u64>,
    /// Ask for nothing that a ZooKeeper 3.4 does not know
    #[arg(long)]
    old: bool,
    /// An empty disk of its own, with little more than what is to stay free: it is filled up
    #[arg(long)]
    small: Option<PathBuf>,
    /// Measure the import of so many znodes instead
    #[arg(long, value_name = "ZNODES")]
    large: Option<usize>,
}

fn main() -> ExitCode {
    let Flags { warrend, warren, server, seed, old, small, large } = Flags::parse();
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()));
    let done = import::run(import::Trials { warrend, warren, server, seed, old, small, large });
    if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
