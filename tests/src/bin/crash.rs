//! Kill -9 at random instants; see `warren_tests::io::crash`.

use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use warren_tests::io::crash::{self, Plan};

/// Kill the daemon at random instants and compare what it was told with what it kept
#[derive(Parser)]
struct Flags {
    /// Kill it so often
    #[arg(long, default_value_t = 20)]
    rounds: u32,
    /// Draw all choices from this; else from the clock
    #[arg(long)]
    seed: Option<u64>,
    /// The daemon's binary
    #[arg(long, env = "WARREND")]
    warrend: PathBuf,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let seed = flags.seed.unwrap_or_else(|| u64::from(std::process::id()) << 20 ^ crash::now_ms());
    let run = || {
        let folder = crash::folder()?;
        println!("crash: {} rounds, seed {seed}, folder {}", flags.rounds, folder.display());
        let plan = Plan { warrend: flags.warrend, rounds: flags.rounds, seed, folder: folder.clone() };
        let kept = crash::run(plan)?;
        if kept {
            crash::clear(&folder)?;
        }
        Ok::<bool, std::io::Error>(kept)
    };
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            println!("FAIL crash: {e} [seed {seed}]");
            ExitCode::FAILURE
        }
    }
}
