//! Warren and ZooKeeper side by side; see `warren_tests::io::bench`.

use clap::Parser;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use warren_tests::io::bench::{self, Plan};

/// Measure Warren beside ZooKeeper and print what came of it as a table
#[derive(Parser)]
struct Flags {
    /// Take fewer and shorter steps
    #[arg(long)]
    quick: bool,
    /// Take each step so often on each server
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Take this step only; may be given again
    #[arg(long = "step", value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(bench::names()))]
    steps: Vec<String>,
    /// The root of the repository
    #[arg(long, default_value = ".")]
    root: PathBuf,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let script = bench::script(Path::new(&flags.root));
    match bench::run(&Plan { script, quick: flags.quick, rounds: flags.rounds, steps: flags.steps }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bench: {e}");
            ExitCode::FAILURE
        }
    }
}
