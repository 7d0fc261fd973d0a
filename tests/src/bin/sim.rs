//! `sim`: run the simulator over many seeds, or replay one.
#![allow(clippy::disallowed_methods, reason = "how long it took is told in real time")]

use clap::Parser;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
use warren_tests::sim::{self, Planted, Run, Summary};

/// Run a whole ensemble in one thread from a seed, with faults, and judge it
#[derive(Parser)]
#[command(name = "sim")]
struct Arguments {
    /// Run the seeds A to B − 1
    #[arg(long, value_name = "A..B", default_value = "0..1000", value_parser = range, conflicts_with = "seed")]
    seeds: (u64, u64),
    /// Run this one
    #[arg(long)]
    seed: Option<u64>,
    /// So many servers, instead of as many as the seed says
    #[arg(long)]
    servers: Option<usize>,
    /// So many observers, instead of as many as the seed says
    #[arg(long)]
    observers: Option<usize>,
    /// With changes of the membership or without, instead of as the seed says
    #[arg(long)]
    changes: Option<bool>,
    /// Print every event
    #[arg(long)]
    trace: bool,
    /// Plant a fault that must be caught
    #[arg(long, value_parser = planted)]
    planted: Option<Planted>,
    /// Go on after a failure, and count failures by property
    #[arg(long)]
    keep_going: bool,
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let (from, to) = text.split_once("..").ok_or("as in 0..1000")?;
    let number = |text: &str| text.trim().parse::<u64>().map_err(|e| e.to_string());
    Ok((number(from)?, number(to)?))
}

fn planted(name: &str) -> Result<Planted, String> {
    let known = Planted::ALL.into_iter().find(|planted| format!("{planted:?}") == name);
    known.ok_or_else(|| format!("one of {:?}", Planted::ALL))
}

/// The seed that runs now, for the panic hook.
static SEED: AtomicU64 = AtomicU64::new(0);

fn main() -> ExitCode {
    if cfg!(panic = "abort") {
        eprintln!(
            "the simulator must outlive panics of the server: build it with --profile fast, or without --release"
        );
        return ExitCode::FAILURE;
    }
    let arguments = Arguments::parse();
    let (from, to) = arguments.seed.map_or(arguments.seeds, |seed| (seed, seed + 1));
    let print_panic = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // The server's way to stop when the disk it was given fails.
        if panic.to_string().contains("simulated") {
            return;
        }
        let seed = SEED.load(Ordering::Relaxed);
        eprintln!("seed {seed} panics; replay: cargo run -p warren-tests --bin sim -- --seed {seed} --trace");
        print_panic(panic);
    }));
    let start = Instant::now();
    let mut total = Summary::default();
    let mut failures: BTreeMap<&'static str, (u64, u64)> = BTreeMap::new();
    for seed in from..to {
        SEED.store(seed, Ordering::Relaxed);
        match sim::run(Run {
            seed,
            servers: arguments.servers,
            observers: arguments.observers,
            changes: arguments.changes,
            planted: arguments.planted,
            trace: arguments.trace,
        }) {
            Ok(summary) => total.add(&summary),
            Err(failure) => {
                println!("{failure}");
                failures.entry(failure.violation.property).or_insert((0, seed)).0 += 1;
                if !arguments.keep_going {
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    let (seeds, seconds) = ((to - from).max(1), start.elapsed().as_secs_f64());
    let each = |count: u64| count as f64 / seeds as f64;
    println!(
        "{} seeds in {seconds:.1} s, {:.1} a second; a seed has on average {} requests, {} replies judged, \
         {} watch events, {} commands in the log, {:.1} servers with {:.1} lives together, {:.1} leaders, {:.2} snapshots sent, \
         {:.2} changes of the membership, {:.1} connections kept over a restart in place, {} events, \
         {:.1} simulated seconds",
        to - from,
        seeds as f64 / seconds,
        total.requests / seeds,
        total.replies / seeds,
        total.watch_events / seeds,
        total.commands / seeds,
        each(total.servers),
        each(total.lives),
        each(total.leaders),
        each(total.snapshots),
        each(total.changes),
        each(total.kept),
        total.events / seeds,
        total.simulated_us as f64 / seeds as f64 / 1e6,
    );
    if arguments.seed.is_some() {
        println!("hash {:016x}", total.hash);
    }
    for (property, (count, first)) in &failures {
        println!("{count} failures of: {property} (first: seed {first})");
    }
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
