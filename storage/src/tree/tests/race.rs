//! Readers, apply and the checkpoint writer on threads of their own: a snapshot stays what it was.

#![allow(clippy::disallowed_methods, reason = "what is tried here is threads")]

use super::*;
use parking_lot::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

/// Two znodes are always set together; a reader that sees them differ has mixed two moments. The budget is
/// so small that each read goes through the cache or to redb, and checkpoints never cease.
#[test]
fn readers_never_see_two_moments_at_once() {
    const PAIRS: u64 = 20;
    const CHECKPOINTS: u64 = 60;
    let mut told = Told::fresh();
    told.tree = Tree::open(MemoryDisk::default().shared(), options(100_000)).unwrap();
    let name = |side: &str, i: u64| format!("/{side}{i}");
    for i in 0..PAIRS {
        told.op(create(&name("l", i), &0u64.to_be_bytes(), CreateMode::Persistent));
        told.op(create(&name("r", i), &0u64.to_be_bytes(), CreateMode::Persistent));
    }
    let published = RwLock::new(told.tree.snapshot());
    let done = AtomicBool::new(false);
    let (to_writer, checkpoints) = mpsc::channel::<Checkpoint>();
    let (to_service, written) = mpsc::channel();

    thread::scope(|scope| {
        scope.spawn(move || {
            for checkpoint in checkpoints {
                // Nobody waits for the last one.
                let _ = to_service.send(checkpoint.write().unwrap());
            }
        });
        for reader in 0..3 {
            let (published, done) = (&published, &done);
            scope.spawn(move || {
                let mut i = reader;
                while !done.load(Ordering::Relaxed) {
                    // Held for a while, so that checkpoints come and go below it.
                    let snapshot = published.read().clone();
                    for _ in 0..50 {
                        i += 7;
                        let read = |side| {
                            let node = snapshot.node(&name(side, i % PAIRS)).unwrap().unwrap();
                            (node.data.clone(), node.mzxid)
                        };
                        let (left, right) = (read("l"), read("r"));
                        assert_eq!(left.0, right.0);
                        assert!(left.1 <= snapshot.zxid().wire());
                    }
                }
            });
        }
        let mut installed = 0;
        for round in 1u64.. {
            if installed == CHECKPOINTS {
                break;
            }
            let (left, right) = (name("l", round % PAIRS), name("r", round % PAIRS));
            let data = round.to_be_bytes();
            told.server(Command::Multi(vec![
                Op::SetData { path: &left, data: Some(&data), version: -1 },
                Op::SetData { path: &right, data: Some(&data), version: -1 },
            ]));
            *published.write() = told.tree.snapshot();
            if let Ok(written) = written.try_recv() {
                drop(told.tree.install(written));
                installed += 1;
                *published.write() = told.tree.snapshot();
            }
            if let Some(checkpoint) = told.tree.freeze() {
                to_writer.send(checkpoint).unwrap();
            }
        }
        done.store(true, Ordering::Relaxed);
        drop(to_writer);
    });
}
