//! Backups of real servers; see `warren_tests::io::backup`.

use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use warren_tests::io::backup;

/// Back up real servers under load, restore, and compare; with everything that can come in between
#[derive(Parser)]
struct Flags {
    /// The daemon's binary
    #[arg(long, env = "WARREND")]
    warrend: PathBuf,
    /// The command's binary
    #[arg(long, env = "WARREN")]
    warren: PathBuf,
    /// A small file system that may be filled; without it a full disk is not tried
    #[arg(long)]
    small: Option<PathBuf>,
    /// Draw ports from this; else from the clock
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let Flags { warrend, warren, small, seed } = Flags::parse();
    if backup::run(&warrend, &warren, small.as_deref(), seed) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
