//! Measures the log on a real folder: durable commits per second, their latency, CPU, bytes written and syncs.
//!
//! `cargo run --release --example log_bench -- FOLDER [SECONDS] [plain]`; the folder should be on the disk that
//! is meant. `plain` measures the same over an ordinary file, without space zeroed ahead. At the end
//! it measures how long the open of a full segment takes that was not closed.
#![allow(clippy::disallowed_methods, reason = "a measurement reads clocks")]

use hdrhistogram::Histogram;
use std::sync::Arc;
use std::time::{Duration, Instant};
use warren_storage::disk::{Disk, SharedDisk};
use warren_storage::io::FolderDisk;
use warren_storage::log::{Append, HardState, Log, LogOptions, LogRecord, RecordKind};

fn cpu() -> Duration {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// A folder that ignores the hint.
#[derive(Debug)]
struct Plain(FolderDisk);

type Result<T> = std::result::Result<T, warren_storage::DiskError>;

impl Disk for Plain {
    fn list(&self) -> Result<Vec<String>> {
        self.0.list()
    }
    fn open(&self, name: &str, _: u64) -> Result<Box<dyn redb::StorageBackend>> {
        self.0.open(name, 0)
    }
    fn exists(&self, name: &str) -> Result<bool> {
        self.0.exists(name)
    }
    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, name: &str) -> Result<()> {
        self.0.remove(name)
    }
    fn sync_folder(&self) -> Result<()> {
        self.0.sync_folder()
    }
    fn free_bytes(&self) -> Result<u64> {
        self.0.free_bytes()
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let folder = std::path::PathBuf::from(args.next().expect("name a folder"));
    let seconds: f64 = args.next().map_or(5.0, |s| s.parse().expect("seconds"));
    let plain = args.next().is_some_and(|a| a == "plain");
    println!(
        "entry_bytes records commits/s p50_us p99_us max_us cpu_us/commit written/commit syncs/commit segments"
    );
    for (entry_bytes, records) in [(200, 1), (200, 64), (16_000, 1), (200_000, 1), (200, 1)] {
        let path = folder.join(format!("bench-{entry_bytes}-{records}"));
        let _ = std::fs::remove_dir_all(&path);
        let disk = FolderDisk::open(&path).expect("open the folder");
        let disk: SharedDisk = if plain { Arc::new(Plain(disk)) } else { Arc::new(disk) };
        let (mut log, _) = Log::open(disk, LogOptions::default()).expect("open the log");
        let data: Vec<u8> = (0..entry_bytes).map(|i: usize| (i * 31 % 251) as u8).collect();
        let data = bytes::Bytes::from(data);
        let mut latency = Histogram::<u64>::new(3).expect("a histogram");
        let (mut index, mut spent, mut written, mut syncs) = (1, Duration::ZERO, 0, 0);
        let begin = Instant::now();
        let mut warm = false;
        let mut measured = Instant::now();
        while !warm || measured.elapsed().as_secs_f64() < seconds {
            if !warm && begin.elapsed().as_secs_f64() > 1.0 {
                (warm, measured, spent, written, syncs) = (true, Instant::now(), Duration::ZERO, 0, 0);
                latency.reset();
            }
            let batch: Vec<LogRecord> = (0..records)
                .map(|i| LogRecord {
                    index: index + i,
                    term: 1,
                    kind: RecordKind::Normal,
                    data: data.clone(),
                })
                .collect();
            index += records;
            let hard_state = Some(HardState { term: 1, vote: 1, commit: index - 1 - records });
            let (segments, traffic) = (log.segments(), log.traffic());
            let (at, cpu_at) = (Instant::now(), cpu());
            log.append(Append { records: &batch, hard_state }).expect("append");
            spent += cpu() - cpu_at;
            latency.record(at.elapsed().as_micros() as u64).expect("in range");
            let now = log.traffic();
            let from = if log.segments() == segments { traffic } else { (0, 0) };
            written += now.0 - from.0;
            syncs += now.1 - from.1;
            if log.segments() > 6 {
                let _ = log.purge(index - 100);
            }
        }
        let n = latency.len() as f64;
        println!(
            "{entry_bytes} {records} {:.0} {} {} {} {:.0} {:.0} {:.2} {}",
            n / measured.elapsed().as_secs_f64(),
            latency.value_at_quantile(0.5),
            latency.value_at_quantile(0.99),
            latency.max(),
            spent.as_secs_f64() * 1e6 / n,
            written as f64 / n,
            syncs as f64 / n,
            log.segments(),
        );
        drop(log);
        let _ = std::fs::remove_dir_all(&path);
    }
    repair(&folder, plain);
}

/// Opens copies of a full segment that is still open: what kill -9 leaves.
fn repair(folder: &std::path::Path, plain: bool) {
    for (entry_bytes, records) in [(200, 500), (16_000, 8)] {
        let path = folder.join("bench-repair");
        let copy = folder.join("bench-repair-copy");
        let _ = std::fs::remove_dir_all(&path);
        let _ = std::fs::remove_dir_all(&copy);
        let open = |path: &std::path::Path| {
            let disk = FolderDisk::open(path).expect("open the folder");
            let disk: SharedDisk = if plain { Arc::new(Plain(disk)) } else { Arc::new(disk) };
            Log::open(disk, LogOptions::default()).expect("open the log")
        };
        let (mut log, _) = open(&path);
        let data = bytes::Bytes::from(vec![7; entry_bytes]);
        let mut index = 1;
        while log.bytes() < LogOptions::default().segment_bytes_max {
            let batch: Vec<LogRecord> = (0..records)
                .map(|i| LogRecord {
                    index: index + i,
                    term: 1,
                    kind: RecordKind::Normal,
                    data: data.clone(),
                })
                .collect();
            index += records;
            log.append(Append { records: &batch, hard_state: None }).expect("append");
        }
        std::fs::create_dir_all(&copy).expect("make the copy");
        let mut bytes = 0;
        for entry in std::fs::read_dir(&path).expect("list") {
            let entry = entry.expect("list");
            if entry.file_name() != "spare" && entry.file_name() != "spare.new" {
                bytes += std::fs::copy(entry.path(), copy.join(entry.file_name())).expect("copy");
            }
        }
        let (at, cpu_at) = (Instant::now(), cpu());
        let (copied, recovered) = open(&copy);
        println!(
            "open after a kill, {entry_bytes}-byte entries, {} MiB file: {:?}, CPU {:?}, repaired {}",
            bytes >> 20,
            at.elapsed(),
            cpu() - cpu_at,
            recovered.repaired,
        );
        assert_eq!(recovered.last_index, index - 1);
        let at = Instant::now();
        drop(copied);
        println!("close: {:?}", at.elapsed());
        let at = Instant::now();
        let (copied, _) = open(&copy);
        println!("open after a close: {:?}", at.elapsed());
        drop((copied, log));
        let _ = std::fs::remove_dir_all(&path);
        let _ = std::fs::remove_dir_all(&copy);
    }
}
