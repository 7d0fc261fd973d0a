//! A disk that fills up; see `warren_tests::io::disk`.

use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use warren_tests::io::disk;

/// Fill the disk that a folder is on, which must be small, and see the daemon live through it
#[derive(Parser)]
struct Flags {
    /// A folder on a small disk
    folder: PathBuf,
    /// The daemon's binary
    #[arg(long, env = "WARREND")]
    warrend: PathBuf,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    if disk::run(&flags.warrend, &flags.folder) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
