//! Three servers of Warren beside three of ZooKeeper: throughput, latency, and what a lost leader costs.

use super::gaps::{self, Goes};
use super::server::Server;
use super::steps::{self, DEPTH, LINKS};
use super::trio::{How, Trio};
use super::{Figures, Plan, print_table};
use crate::sim::Dice;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// Of the kills: a million znodes take their time to come back.
const MILLION: &str = "a million znodes";
const KILLED: &str = "leader killed";
const STOPPED: &str = "leader stopped";
const HANDED_OVER: &str = "leadership handed over";

struct Step {
    name: &'static str,
    measure: fn(&Trio, bool) -> io::Result<Figures>,
}

const STEPS: [Step; 9] = [
    Step {
        name: "write, one at a time, at the leader",
        measure: |t, q| steps::mix(&t.seen_from(true)?, q, 1, 1, 128, 0),
    },
    Step {
        name: "write, one at a time, at a follower",
        measure: |t, q| steps::mix(&t.seen_from(false)?, q, 1, 1, 128, 0),
    },
    Step { name: "read, one at a time", measure: |t, q| steps::mix(t, q, 1, 1, 128, 100) },
    Step { name: "write 128 B", measure: |t, q| steps::mix(t, q, LINKS, DEPTH, 128, 0) },
    Step { name: "write 1 KiB", measure: |t, q| steps::mix(t, q, LINKS, DEPTH, 1_024, 0) },
    Step { name: "write 128 B, 64 × 64 under way", measure: |t, q| steps::mix(t, q, 64, 64, 128, 0) },
    Step { name: "write 1 KiB, 64 × 64 under way", measure: |t, q| steps::mix(t, q, 64, 64, 1_024, 0) },
    Step { name: "read 128 B", measure: |t, q| steps::mix(t, q, LINKS, DEPTH, 128, 100) },
    Step { name: "90 reads, 10 writes", measure: |t, q| steps::mix(t, q, LINKS, DEPTH, 128, 90) },
];

/// Names of what is measured, for help.
pub fn names() -> Vec<&'static str> {
    STEPS.iter().map(|step| step.name).chain([KILLED, STOPPED, HANDED_OVER, MILLION]).collect()
}

/// Measure, and print the tables. `kills`: how often a leader goes, ZooKeeper's and Warren's.
pub fn run(plan: &Plan, warrend: &Path, kills: [usize; 2]) -> io::Result<()> {
    let mut dice = Dice::new(crate::io::crash::now_ms());
    let work = tempfile::Builder::new().prefix("warren-bench-").tempdir()?;
    let mut trios = [
        Trio::zookeeper(&plan.script, &work.path().join("zookeeper"), &mut dice)?,
        Trio::warren(warrend, &work.path().join("warren"), &mut dice)?,
    ];
    let wanted = |name: &str| plan.steps.is_empty() || plan.steps.iter().any(|step| step == name);
    let mut seen: BTreeMap<usize, Vec<[Figures; 2]>> = BTreeMap::new();
    if STEPS.iter().any(|step| wanted(step.name)) {
        for round in 0..=plan.rounds {
            for (n, step) in STEPS.iter().enumerate().filter(|(_, step)| wanted(step.name)) {
                let mut pair = [Figures::default(); 2];
                for (trio, figures) in trios.iter().zip(&mut pair) {
                    *figures = (step.measure)(trio, plan.quick)
                        .map_err(|e| io::Error::other(format!("{} on {}: {e}", step.name, trio.kind)))?;
                }
                // The first run warms caches and the Java machine's compiler.
                if round > 0 {
                    seen.entry(n).or_default().push(pair);
                }
            }
            eprintln!("round {round} of {}", plan.rounds);
        }
        println!("Three servers each, connections spread over them; CPU is that of all three.\n");
        print_table(plan.rounds, seen.iter().map(|(n, pairs)| (STEPS[*n].name, pairs.as_slice())));
    }
    let rows = |trios: &mut [Trio; 2], data: &str, which: &[(&str, Goes)]| -> io::Result<()> {
        for (name, goes) in which.iter().filter(|(name, _)| wanted(name)) {
            for (trio, kills) in trios.iter_mut().zip(kills) {
                if *goes != Goes::Over || trio.can_hand_over() {
                    println!("{}", gaps::line(trio, &format!("{name}, {data}"), *goes, kills)?);
                }
            }
        }
        Ok(())
    };
    let killed = (KILLED, Goes::Away(How::Killed));
    let others = [(STOPPED, Goes::Away(How::Stopped)), (HANDED_OVER, Goes::Over)];
    println!(
        "\nThe longest time without an acknowledged write of six clients, ms, and how many clients of the other servers lost \
         their connection\n"
    );
    println!("| what | server | times | least | median | 90 % | worst | disconnected |");
    println!("|---|---|---|---|---|---|---|---|");
    rows(&mut trios, "little data", &[killed])?;
    rows(&mut trios, "little data", &others)?;
    if !plan.quick && wanted(MILLION) {
        for trio in &trios {
            steps::fill_with_million(trio)?;
        }
        // Whoever asks for the million asks for what it does to a kill.
        for (trio, kills) in trios.iter_mut().zip(kills) {
            println!("{}", gaps::line(trio, &format!("{KILLED}, {MILLION}"), killed.1, kills)?);
        }
        if trios[1].can_hand_over() {
            println!(
                "{}",
                gaps::line(&mut trios[1], &format!("{HANDED_OVER}, {MILLION}"), Goes::Over, kills[1])?
            );
        }
        println!("\n| {MILLION} | RSS of each server, MiB |\n|---|---|");
        for trio in &trios {
            println!("| {} | {} |", trio.kind, memory(trio)?);
        }
    }
    Ok(())
}

fn memory(trio: &Trio) -> io::Result<String> {
    use super::server::Measured as _;
    let each = trio.pids()?.into_iter().map(Server::rss_mib).collect::<io::Result<Vec<f64>>>()?;
    Ok(each.into_iter().map(super::number).collect::<Vec<_>>().join(", "))
}
