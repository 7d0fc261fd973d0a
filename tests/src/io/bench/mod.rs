//! Warren and ZooKeeper side by side, step by step in turn, so that a machine whose speed drifts treats both alike.
//!
//! A figure is the median over the rounds; a ratio is taken round by round, and told as median (least–most). Rates of two
//! runs at different times say little; ratios, and processor time per operation, do.

pub mod ensemble;
mod fleet;
mod gaps;
mod server;
mod steps;
mod trio;

use super::daemon::free_port;
use crate::sim::Dice;
use server::Server;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The script that starts and stops either server.
    pub script: PathBuf,
    /// Fewer and shorter steps.
    pub quick: bool,
    /// How often each step is taken on each server.
    pub rounds: usize,
    /// Only these steps; none means all.
    pub steps: Vec<String>,
}

/// What a step tells.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    /// Operations in a second.
    rate: f64,
    /// Processor time of the server for each, µs.
    cpu_us: f64,
    /// Latencies, µs; 0 where there is none.
    p50_us: f64,
    p99_us: f64,
}

/// Measure, and print the tables.
pub fn run(plan: &Plan) -> io::Result<()> {
    let mut dice = Dice::new(super::crash::now_ms());
    let work = tempfile::Builder::new().prefix("warren-bench-").tempdir()?;
    let mut start =
        |kind: &'static str| Server::start(kind, &plan.script, work.path().join(kind), free_port(&mut dice));
    let servers = [start("zookeeper")?, start("warren")?];
    let known = steps::all(plan.quick);
    let wanted = |name: &str| plan.steps.is_empty() || plan.steps.iter().any(|step| step == name);
    // The first run of everything warms caches and the Java machine's compiler, and is not counted.
    let mut seen: BTreeMap<usize, Vec<[Figures; 2]>> = BTreeMap::new();
    for round in 0..=plan.rounds {
        for (n, step) in known.iter().enumerate().filter(|(_, step)| wanted(step.name)) {
            let mut pair = [Figures::default(); 2];
            for (server, figures) in servers.iter().zip(&mut pair) {
                *figures = (step.measure)(server, plan.quick)
                    .map_err(|e| io::Error::other(format!("{} on {}: {e}", step.name, server.kind)))?;
            }
            if round > 0 {
                seen.entry(n).or_default().push(pair);
            }
        }
        eprintln!(
            "{}",
            if round == 0 { "warm".to_owned() } else { format!("round {round} of {}", plan.rounds) }
        );
    }
    print_table(plan.rounds, seen.iter().map(|(n, pairs)| (known[*n].name, pairs.as_slice())));
    if wanted("checkpoint") {
        println!("\n{}", steps::checkpoints(&servers[1], plan.quick)?);
    }
    if !plan.quick && wanted("million") {
        println!(
            "\n| one million znodes of 128 bytes | RSS, MiB | restart after SIGTERM, ms | after SIGKILL, ms |"
        );
        println!("|---|---|---|---|");
        for server in &servers {
            println!("{}", steps::million(server)?);
        }
    }
    Ok(())
}

fn print_table<'a>(rounds: usize, rows: impl Iterator<Item = (&'a str, &'a [[Figures; 2]])>) {
    println!("{rounds} rounds; ZooKeeper 3.9 → Warren, and Warren ÷ ZooKeeper as median (least–most)\n");
    println!("| step | rate, 1/s | × | server CPU, µs each | × | p50, µs | p99, µs | p99 × |");
    println!("|---|---|---|---|---|---|---|---|");
    for (name, pairs) in rows {
        println!("{}", row(name, pairs));
    }
}

fn row(name: &str, pairs: &[[Figures; 2]]) -> String {
    let two = |of: fn(&Figures) -> f64| {
        let side = |n: usize| number(median(pairs.iter().map(|pair| of(&pair[n]))));
        format!("{} → {}", side(0), side(1))
    };
    let ratio = |of: fn(&Figures) -> f64| {
        let ratios: Vec<f64> =
            pairs.iter().filter(|pair| of(&pair[0]) > 0.0).map(|pair| of(&pair[1]) / of(&pair[0])).collect();
        if ratios.is_empty() {
            return "–".to_owned();
        }
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(0.0, f64::max);
        format!("{:.2} ({least:.2}–{most:.2})", median(ratios.iter().copied()))
    };
    format!(
        "| {name} | {} | {} | {} | {} | {} | {} | {} |",
        two(|f| f.rate),
        ratio(|f| f.rate),
        two(|f| f.cpu_us),
        ratio(|f| f.cpu_us),
        two(|f| f.p50_us),
        two(|f| f.p99_us),
        ratio(|f| f.p99_us)
    )
}

fn number(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        len if len % 2 == 1 => values[len / 2],
        len => (values[len / 2 - 1] + values[len / 2]) / 2.0,
    }
}

/// Names of the steps, for help.
pub fn names() -> Vec<&'static str> {
    steps::all(false).iter().map(|step| step.name).chain(["checkpoint", "million"]).collect()
}

/// Where the script stands, seen from the root of the repository.
pub fn script(root: &Path) -> PathBuf {
    root.join("tests/clients/server")
}
