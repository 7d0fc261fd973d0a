//! What it costs to send a tree and to take it: throughput and memory of export and import, both in this process,
//! on a folder given as argument.
//!
//! ```text
//! cargo run --profile fast -p warren-storage --example tree_transfer -- FOLDER [ZNODES] [DATA_BYTES]
//! ```
//! A folder that is not there is made and filled first. Memory is what comes on top of the open source tree.

#![allow(clippy::disallowed_methods, reason = "a measurement needs a clock and files")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use warren_storage::command::{Command, CreateMode, Logged, Op, Rules};
use warren_storage::io::FolderDisk;
use warren_storage::tree::{Identity, Import, Outcome, Pressure};
use warren_storage::{AclRef, IdRef, SharedDisk, Tree, TreeOptions};

/// As a server may cut them.
const CHUNK_BYTES: usize = 256 << 10;

fn main() {
    let mut args = std::env::args().skip(1);
    let folder = PathBuf::from(args.next().expect("a folder"));
    let znodes: u64 = args.next().map_or(1_000_000, |n| n.parse().expect("a number of znodes"));
    let data_bytes: usize = args.next().map_or(1_000, |n| n.parse().expect("bytes"));
    let filled = folder.exists();
    let open =
        |name: &str| -> SharedDisk { Arc::new(FolderDisk::open(folder.join(name)).expect("a folder")) };
    let options = |memory_mib: u64| TreeOptions { memory_bytes: memory_mib << 20, hash_seed: 1, store_id: 1 };
    if !filled {
        // By another process, so that its memory does not count.
        fill(Tree::open(open("from"), options(1_024)).unwrap(), znodes, data_bytes);
        let again = std::process::Command::new(std::env::current_exe().unwrap())
            .args(std::env::args().skip(1))
            .status();
        std::process::exit(again.unwrap().code().unwrap_or(1));
    }
    let (from, to) = (open("from"), open("to"));

    let source = Tree::open(from, options(64)).unwrap();
    let before = status_mib("VmRSS:");
    // The peak begins anew.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let (mut exporting, mut importing) = (Duration::ZERO, Duration::ZERO);
    let began = Instant::now();
    let mut export = source.export().unwrap();
    let mut import =
        Import::begin(to.clone(), Identity { store_id: 2, disk: 1, observes: false }, 1 << 30).unwrap();
    let mut bytes = 0;
    let mut longest = Duration::ZERO;
    loop {
        let started = Instant::now();
        let chunk = export.next_chunk(CHUNK_BYTES).unwrap();
        exporting += started.elapsed();
        let Some(chunk) = chunk else { break };
        bytes += chunk.len() as u64;
        let started = Instant::now();
        import.push(&chunk).unwrap();
        longest = longest.max(started.elapsed());
        importing += started.elapsed();
    }
    let started = Instant::now();
    let staged = import.finish().unwrap();
    let finishing = started.elapsed();
    let wall = began.elapsed();
    let peak = status_mib("VmHWM:");
    let started = Instant::now();
    let copy = Tree::replace(to.clone(), staged, options(64)).unwrap();
    let replacing = started.elapsed();
    assert_eq!(copy.digest(), source.digest());
    let mb = bytes as f64 / 1e6;
    println!("{znodes} znodes of {data_bytes} bytes: a stream of {mb:.0} MB in {wall:.1?}");
    println!(
        "  together {:.0} MB/s; export {exporting:.1?}, import {importing:.1?}, finish {finishing:.1?}, replace {replacing:.1?}",
        mb / wall.as_secs_f64()
    );
    println!(
        "  longest push {longest:.1?}; memory {before} MiB before, {peak} MiB at most: {} MiB more",
        peak - before
    );
    let size = |name: &str| std::fs::metadata(folder.join(name).join("tree.redb")).unwrap().len() / 1_000_000;
    println!(
        "  tree.redb: {} MB there, {} MB here; {} MB free",
        size("from"),
        size("to"),
        to.free_bytes().unwrap() / 1_000_000
    );
}

/// Znodes below parents of a thousand each.
fn fill(mut tree: Tree, znodes: u64, data_bytes: usize) {
    let acl = vec![AclRef { perms: 31, id: IdRef { scheme: "world", id: "anyone" } }];
    let data: Vec<u8> = (0..data_bytes).map(|i| i as u8).collect();
    let create = |tree: &mut Tree, path: &str| {
        let op =
            Op::Create { path, data: Some(&data), acl: acl.clone(), mode: CreateMode::Persistent, ttl: 0 };
        let logged = Logged { tag: None, ids: Vec::new(), command: Command::Single(op) };
        let applied = tree.apply(1, &Rules::default(), &logged).unwrap();
        assert!(matches!(applied.outcome, Outcome::Done(_)), "{:?}", applied.outcome);
        tree.advance(tree.position().index + 1, 1);
    };
    let checkpoint = |tree: &mut Tree| {
        if let Some(checkpoint) = tree.freeze() {
            let written = checkpoint.write().unwrap();
            drop(tree.install(written));
        }
    };
    for i in 0..znodes {
        if i % 1_000 == 0 {
            create(&mut tree, &format!("/p{:06}", i / 1_000));
        }
        create(&mut tree, &format!("/p{:06}/n{i:09}", i / 1_000));
        if tree.pressure() != Pressure::None {
            checkpoint(&mut tree);
        }
    }
    checkpoint(&mut tree);
}

fn status_mib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}
