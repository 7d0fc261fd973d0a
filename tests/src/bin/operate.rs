//! An ensemble, operated by the command line; see `warren_tests::io::operate`.

use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use warren_tests::io::operate;

/// Operate a real ensemble by the command line, and see that it does what the command says
#[derive(Parser)]
struct Flags {
    /// The daemon's binary
    #[arg(long, env = "WARREND")]
    warrend: PathBuf,
    /// The command's binary
    #[arg(long, env = "WARREN")]
    warren: PathBuf,
    /// Draw ports from this; else from the clock
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let Flags { warrend, warren, seed } = Flags::parse();
    if operate::run(&warrend, &warren, seed) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
