//! What the tree costs: CPU of apply and of reads, and memory, on a folder given as argument.
//!
//! ```text
//! cargo run --release -p warren-storage --example tree_cost -- FOLDER [ZNODES] [MEMORY_MIB]
//! ```
//! Creates ZNODES znodes of 128 bytes, checkpointing on a thread of its own as the daemon does, then sets and
//! reads them. CPU is that of the applying thread.

#![allow(clippy::disallowed_methods, reason = "a measurement needs a clock, a thread and files")]

use redb::StorageBackend;
use redb::backends::FileBackend;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use warren_storage::command::{Command, CreateMode, Logged, Op, Rules, Tag};
use warren_storage::tree::{Checkpoint, Outcome, Pressure, Written};
use warren_storage::{AclRef, Disk, DiskError, IdRef, Tree, TreeOptions};

/// Commands in an entry, after which a snapshot is taken.
const BATCH: u64 = 64;

fn main() {
    let mut args = std::env::args().skip(1);
    let folder = PathBuf::from(args.next().expect("a folder"));
    let znodes: u64 = args.next().map_or(1_000_000, |n| n.parse().expect("a number of znodes"));
    let memory_mib: u64 = args.next().map_or(128, |n| n.parse().expect("MiB"));
    let options = TreeOptions { memory_bytes: memory_mib << 20, hash_seed: 1, store_id: 1 };
    let mut run = Run::open(folder.clone(), options);
    println!(
        "{:<30} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "", "wall µs", "CPU µs", "full ms", "RSS MiB", "peak", "overlay", "cache"
    );

    run.session();
    run.measure("create parents", znodes / 1_000 + 1, |run, i| run.create(&format!("/p{i:06}")));
    run.measure("create, 128 bytes", znodes, |run, i| run.create(&path(i)));
    run.measure("setData, one of 1,000", 500_000, |run, i| run.set(&path(i % 1_000)));
    run.measure("setData, one of 20,000", 500_000, |run, i| run.set(&path(i * 7 % 20_000)));
    run.measure("setData, any", 500_000.min(znodes), |run, i| run.set(&path(scatter(i) % znodes)));
    let snapshot = run.tree.snapshot();
    let read = |path: &str| assert!(snapshot.node(path).unwrap().is_some());
    run.measure_reads("node(), one of 1,000", 1_000_000, |i| read(&path(i % 1_000)));
    run.measure_reads("node(), one of 20,000", 1_000_000, |i| read(&path(i * 7 % 20_000)));
    run.measure_reads("node(), any", 500_000, |i| read(&path(scatter(i) % znodes)));
    run.measure_reads("children() of 1,000", 2_000, |i| {
        let mut count = 0;
        snapshot
            .children(&format!("/p{:06}", i % (znodes / 1_000)), &mut |_| {
                count += 1;
                true
            })
            .unwrap();
        assert_eq!(count, 1_000);
    });
    drop(snapshot);
    run.checkpoint_and_wait();
    drop(run);
    let started = Instant::now();
    let tree = Tree::open(Arc::new(Folder(folder)), options).unwrap();
    println!("reopen: {:.1?}, {} znodes", started.elapsed(), tree.snapshot().node_count());
}

fn path(i: u64) -> String {
    format!("/p{:06}/n{:09}", i / 1_000, i)
}

fn scatter(i: u64) -> u64 {
    i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20
}

struct Run {
    tree: Tree,
    /// What readers would hold.
    published: warren_storage::Snapshot,
    index: u64,
    sequence: u64,
    to_writer: mpsc::Sender<Checkpoint>,
    from_writer: mpsc::Receiver<Written>,
    waited: Duration,
}

impl Run {
    fn open(folder: PathBuf, options: TreeOptions) -> Run {
        let tree = Tree::open(Arc::new(Folder(folder)), options).unwrap();
        let (to_writer, checkpoints) = mpsc::channel::<Checkpoint>();
        let (to_service, from_writer) = mpsc::channel();
        thread::spawn(move || {
            for checkpoint in checkpoints {
                if to_service.send(checkpoint.write().unwrap()).is_err() {
                    break;
                }
            }
        });
        let published = tree.snapshot();
        Run { tree, published, index: 0, sequence: 0, to_writer, from_writer, waited: Duration::ZERO }
    }

    fn apply(&mut self, tag: Option<Tag>, command: Command<'_>) {
        let ids = vec![IdRef { scheme: "ip", id: "127.0.0.1" }];
        let applied = self.tree.apply(1, &Rules::default(), &Logged { tag, ids, command }).unwrap();
        assert!(matches!(applied.outcome, Outcome::Done(_)), "{:?}", applied.outcome);
    }

    fn session(&mut self) {
        self.apply(
            None,
            Command::CreateSession {
                session: 5,
                timeout_ms: 10_000,
                password: [0; 16],
                owner: 1,
                incarnation: 1,
                request: 1,
            },
        );
        self.end_entry();
    }

    fn write(&mut self, op: Op<'_>) {
        self.sequence += 1;
        let tag = Tag { session: 5, generation: 1, sequence: self.sequence };
        self.apply(Some(tag), Command::Single(op));
    }

    fn create(&mut self, path: &str) {
        let acl = vec![AclRef { perms: 31, id: IdRef { scheme: "world", id: "anyone" } }];
        self.write(Op::Create { path, data: Some(&[7; 128]), acl, mode: CreateMode::Persistent, ttl: 0 });
    }

    fn set(&mut self, path: &str) {
        self.write(Op::SetData { path, data: Some(&[8; 128]), version: -1 });
    }

    fn end_entry(&mut self) {
        self.index += 1;
        self.tree.advance(self.index, 1);
        self.published = self.tree.snapshot();
        if let Ok(written) = self.from_writer.try_recv() {
            self.install(written);
        }
        match self.tree.pressure() {
            Pressure::None => {}
            Pressure::CheckpointDue => {
                let checkpoint = self.tree.freeze().unwrap();
                self.to_writer.send(checkpoint).unwrap();
            }
            Pressure::Full => {
                let started = Instant::now();
                let written = self.from_writer.recv().unwrap();
                self.waited += started.elapsed();
                self.install(written);
            }
        }
    }

    fn install(&mut self, written: Written) {
        let superseded = self.tree.install(written);
        self.published = self.tree.snapshot();
        thread::spawn(move || drop(superseded));
    }

    fn checkpoint_and_wait(&mut self) {
        loop {
            if let Some(checkpoint) = self.tree.freeze() {
                self.to_writer.send(checkpoint).unwrap();
            } else if self.tree.checkpointed() == self.tree.position() {
                break;
            }
            let written = self.from_writer.recv().unwrap();
            self.install(written);
        }
    }

    fn measure(&mut self, what: &str, count: u64, mut each: impl FnMut(&mut Run, u64)) {
        self.waited = Duration::ZERO;
        let (wall, cpu) = (Instant::now(), cpu());
        for i in 0..count {
            each(self, i);
            if i % BATCH == BATCH - 1 || i == count - 1 {
                self.end_entry();
            }
        }
        self.report(what, count, wall.elapsed(), self::cpu() - cpu, self.waited);
    }

    fn measure_reads(&self, what: &str, count: u64, each: impl Fn(u64)) {
        let (wall, cpu) = (Instant::now(), cpu());
        (0..count).for_each(each);
        self.report(what, count, wall.elapsed(), self::cpu() - cpu, Duration::ZERO);
    }

    fn report(&self, what: &str, count: u64, wall: Duration, cpu: Duration, waited: Duration) {
        let micros = |d: Duration| d.as_secs_f64() * 1e6 / count as f64;
        println!(
            "{what:<30} {:>8.2} {:>8.2} {:>8} {:>8} {:>8} {:>8} {:>8}",
            micros(wall),
            micros(cpu),
            waited.as_millis(),
            status_mib("VmRSS:"),
            status_mib("VmHWM:"),
            self.tree.overlay_bytes() >> 20,
            self.tree.cache_bytes() >> 20
        );
    }
}

/// CPU time of this thread.
fn cpu() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

fn status_mib(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[derive(Debug)]
struct Folder(PathBuf);

impl Disk for Folder {
    fn list(&self) -> Result<Vec<String>, DiskError> {
        unreachable!("the tree lists nothing")
    }

    fn open(&self, name: &str, _ahead_bytes: u64) -> Result<Box<dyn StorageBackend>, DiskError> {
        let path = self.0.join(name);
        let file = std::fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        Ok(Box::new(FileBackend::new(file.unwrap()).unwrap()))
    }

    fn exists(&self, _name: &str) -> Result<bool, DiskError> {
        unreachable!("the tree does not ask")
    }

    fn rename(&self, _from: &str, _to: &str) -> Result<(), DiskError> {
        unreachable!("the tree does not rename")
    }

    fn remove(&self, _name: &str) -> Result<(), DiskError> {
        unreachable!("the tree does not remove")
    }

    fn sync_folder(&self) -> Result<(), DiskError> {
        Ok(())
    }

    fn free_bytes(&self) -> Result<u64, DiskError> {
        Ok(u64::MAX)
    }
}
