//! Warren and ZooKeeper side by side; see `warren_tests::io::bench`.

use clap::Parser;
use std::collections::BTreeSet;
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
    #[arg(long = "step", value_name = "NAME", value_parser = clap::builder::PossibleValuesParser::new(
        bench::names().into_iter().chain(bench::ensemble::names()).collect::<BTreeSet<_>>()
    ))]
    steps: Vec<String>,
    /// Measure three servers beside three: throughput, and what a lost leader costs
    #[arg(long)]
    ensemble: bool,
    /// With --ensemble: lose so many leaders for each figure
    #[arg(long, default_value_t = 50, requires = "ensemble", value_parser = clap::value_parser!(u16).range(1..))]
    kills: u16,
    /// The same for ZooKeeper, which takes its time to come back; as often as Warren unless told
    #[arg(long, value_name = "KILLS", requires = "ensemble", value_parser = clap::value_parser!(u16).range(1..))]
    zookeeper_kills: Option<u16>,
    /// With --ensemble: the daemon's binary
    #[arg(long, env = "WARREND", default_value = "target/release/warrend")]
    warrend: PathBuf,
    /// The root of the repository
    #[arg(long, default_value = ".")]
    root: PathBuf,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let script = bench::script(Path::new(&flags.root));
    let plan = Plan { script, quick: flags.quick, rounds: flags.rounds, steps: flags.steps };
    let zookeeper = flags.zookeeper_kills.unwrap_or(flags.kills);
    let measured = match flags.ensemble {
        true => bench::ensemble::run(&plan, &flags.warrend, [zookeeper.into(), flags.kills.into()]),
        false => bench::run(&plan),
    };
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bench: {e}");
            ExitCode::FAILURE
        }
    }
}
