//! An ensemble of real processes; see `warren_tests::io::ensemble`.

use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use warren_tests::io::crash;
use warren_tests::io::ensemble::{self, Plan};

/// Kill, hold up and cut off servers of an ensemble under load, and compare what clients were told with what is kept
#[derive(Parser)]
struct Flags {
    /// So many servers that vote
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=9))]
    servers: u8,
    /// So many observers; with any, only rounds about them, unless others are named
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=9))]
    observers: u8,
    /// So many rounds, drawn by chance; 0: each once
    #[arg(long, default_value_t = 0)]
    rounds: u32,
    /// Only rounds of this name; may be given again
    #[arg(long = "only", value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(ensemble::names()))]
    only: Vec<String>,
    /// Draw all choices from this; else from the clock
    #[arg(long)]
    seed: Option<u64>,
    /// A folder on a small disk of its own, to be filled up
    #[arg(long)]
    small: Option<PathBuf>,
    /// The daemon's binary
    #[arg(long, env = "WARREND")]
    warrend: PathBuf,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let seed = flags.seed.unwrap_or_else(|| u64::from(std::process::id()) << 20 ^ crash::now_ms());
    let run = || {
        let folder = ensemble::folder()?;
        println!(
            "ensemble: {} servers, {} observers, seed {seed}, folder {}",
            flags.servers,
            flags.observers,
            folder.display()
        );
        let kept = ensemble::run(Plan {
            warrend: flags.warrend,
            servers: flags.servers.into(),
            observers: flags.observers.into(),
            rounds: flags.rounds,
            only: flags.only,
            seed,
            folder: folder.clone(),
            small: flags.small,
        })?;
        if kept {
            crash::clear(&folder)?;
        }
        Ok::<bool, std::io::Error>(kept)
    };
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            println!("FAIL ensemble: {e} [seed {seed}]");
            ExitCode::FAILURE
        }
    }
}
