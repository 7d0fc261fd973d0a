//! What is measured.

use super::fleet::{Asker, Fleet, Load};
use super::server::{Measured, Server};
use super::{Figures, median, number};
use crate::sim::Dice;
use hdrhistogram::Histogram;
use std::io;
use std::time::{Duration, Instant};
use warren_storage::{AclRef, Code, CreateMode, IdRef, Op, perms};
use warren_transport::client::Reply;
use warren_transport::{Change, Opcode, Request, WatcherEvent};

const ANYONE: AclRef<'static> = AclRef { perms: perms::ALL, id: IdRef { scheme: "world", id: "anyone" } };
const FOLDER: &str = "/bench";
/// Znodes that are written and read at random.
const KEYS: usize = 1_000;
pub(super) const LINKS: usize = 16;
pub(super) const DEPTH: usize = 16;
const CHILDREN: usize = 10_000;
const WATCHERS: usize = 200;

pub(super) struct Step {
    pub(super) name: &'static str,
    pub(super) measure: fn(&Server, bool) -> io::Result<Figures>,
}

pub(super) fn all(_quick: bool) -> Vec<Step> {
    vec![
        Step { name: "write, one at a time", measure: |s, q| mix(s, q, 1, 1, 128, 0) },
        Step { name: "read, one at a time", measure: |s, q| mix(s, q, 1, 1, 128, 100) },
        Step { name: "write 128 B", measure: |s, q| mix(s, q, LINKS, DEPTH, 128, 0) },
        Step { name: "write 1 KiB", measure: |s, q| mix(s, q, LINKS, DEPTH, 1_024, 0) },
        Step { name: "read 128 B", measure: |s, q| mix(s, q, LINKS, DEPTH, 128, 100) },
        Step { name: "90 reads, 10 writes", measure: |s, q| mix(s, q, LINKS, DEPTH, 128, 90) },
        Step { name: "create", measure: create },
        Step { name: "children of 10,000", measure: children },
        Step { name: "events to 200 watchers", measure: watches },
        Step { name: "open a session", measure: |s, q| sessions(s, q, true) },
        Step { name: "close a session", measure: |s, q| sessions(s, q, false) },
    ]
}

pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000, 3).expect("the bounds are sound")
}

/// What a step cost, from before to after.
struct Meter {
    pids: Vec<u32>,
    cpu: f64,
    start: Instant,
}

impl Meter {
    fn start(server: &dyn Measured) -> io::Result<Meter> {
        let pids = server.pids()?;
        Ok(Meter { cpu: cpu_seconds(&pids)?, pids, start: Instant::now() })
    }

    fn stop(self, operations: u64, latencies: &Histogram<u64>) -> io::Result<Figures> {
        let (seconds, cpu) = (self.start.elapsed().as_secs_f64(), cpu_seconds(&self.pids)? - self.cpu);
        let quantile = |q| if latencies.is_empty() { 0.0 } else { latencies.value_at_quantile(q) as f64 };
        Ok(Figures {
            rate: operations as f64 / seconds,
            cpu_us: cpu * 1e6 / operations.max(1) as f64,
            p50_us: quantile(0.5),
            p99_us: quantile(0.99),
        })
    }
}

fn cpu_seconds(pids: &[u32]) -> io::Result<f64> {
    pids.iter().map(|pid| Server::cpu_seconds(*pid)).sum()
}

pub(super) fn micros(took: Duration) -> u64 {
    (took.as_micros() as u64).max(1)
}

/// A list of requests of one kind, a number of them under way on each connection.
struct Each<F: FnMut(usize, &mut Asker<'_>)> {
    ask: F,
    next: usize,
    count: usize,
    depth: usize,
    refused: u64,
    latencies: Histogram<u64>,
}

impl<F: FnMut(usize, &mut Asker<'_>)> Each<F> {
    fn new(count: usize, depth: usize, ask: F) -> Each<F> {
        Each { ask, next: 0, count, depth, refused: 0, latencies: histogram() }
    }
}

impl<F: FnMut(usize, &mut Asker<'_>)> Load for Each<F> {
    fn fill(&mut self, _: usize, asker: &mut Asker<'_>) {
        while asker.under_way() < self.depth && self.next < self.count {
            (self.ask)(self.next, asker);
            self.next += 1;
        }
    }

    fn reply(&mut self, _: usize, reply: &Reply<'_>, took: Duration, _: Instant) {
        self.refused += u64::from(reply.header.err != 0 && reply.header.err != Code::NodeExists.wire());
        let _ = self.latencies.record(micros(took));
    }

    fn over(&self, _: Instant) -> bool {
        self.next == self.count
    }
}

pub(super) fn create_request<'a>(path: &'a str, data: &'a [u8]) -> Request<'a> {
    let op = Op::Create { path, data: Some(data), acl: vec![ANYONE], mode: CreateMode::Persistent, ttl: -1 };
    Request::Change(Change { opcode: Opcode::Create, op })
}

pub(super) fn create_all(
    fleet: &mut Fleet,
    folder: &str,
    count: usize,
    bytes: usize,
) -> io::Result<Histogram<u64>> {
    let data = vec![b'x'; bytes];
    let mut load = Each::new(count, DEPTH, |n, asker| {
        asker.ask(&create_request(&format!("{folder}/{n}"), &data));
    });
    fleet.run(&mut load)?;
    sound(load.refused)?;
    Ok(load.latencies)
}

fn delete_all(fleet: &mut Fleet, folder: &str, count: usize) -> io::Result<()> {
    let mut load = Each::new(count, DEPTH, |n, asker| {
        let path = format!("{folder}/{n}");
        let op = Op::Delete { path: &path, version: -1 };
        asker.ask(&Request::Change(Change { opcode: Opcode::Delete, op }));
    });
    fleet.run(&mut load)?;
    sound(load.refused)
}

fn sound(refused: u64) -> io::Result<()> {
    if refused == 0 { Ok(()) } else { Err(io::Error::other(format!("{refused} requests were refused"))) }
}

/// The folder of a step, which may be there from the round before.
pub(super) fn folder(server: &dyn Measured, name: &str) -> io::Result<String> {
    let folder = format!("{FOLDER}/{name}");
    let mut fleet = Fleet::open(server.at(), 1)?;
    for path in [FOLDER, &folder] {
        let mut load = Each::new(1, 1, |_, asker| asker.ask(&create_request(path, b"")));
        fleet.run(&mut load)?;
        sound(load.refused)?;
    }
    fleet.ask_all(&Request::CloseSession)?;
    Ok(folder)
}

/// Reads and writes of random keys, for a time.
struct Mix {
    paths: Vec<String>,
    data: Vec<u8>,
    depth: usize,
    reads_percent: usize,
    dice: Dice,
    counted_from: Instant,
    until: Instant,
    operations: u64,
    refused: u64,
    latencies: Histogram<u64>,
    /// One for each so long, where it is asked for.
    windows: Option<(Duration, Vec<Histogram<u64>>)>,
}

impl Load for Mix {
    fn fill(&mut self, _: usize, asker: &mut Asker<'_>) {
        while asker.under_way() < self.depth {
            let path = &self.paths[self.dice.index(self.paths.len())];
            if self.dice.index(100) < self.reads_percent {
                asker.ask(&Request::GetData { path, watch: false });
            } else {
                let op = Op::SetData { path, data: Some(&self.data), version: -1 };
                asker.ask(&Request::Change(Change { opcode: Opcode::SetData, op }));
            }
        }
    }

    fn reply(&mut self, _: usize, reply: &Reply<'_>, took: Duration, now: Instant) {
        self.refused += u64::from(reply.header.err != 0);
        if now >= self.counted_from && now < self.until {
            self.operations += 1;
            let _ = self.latencies.record(micros(took));
            if let Some((length, windows)) = &mut self.windows {
                let at = (now.duration_since(self.counted_from).as_micros() / length.as_micros()) as usize;
                while windows.len() <= at {
                    windows.push(histogram());
                }
                let _ = windows[at].record(micros(took));
            }
        }
    }

    fn over(&self, now: Instant) -> bool {
        now >= self.until
    }
}

pub(super) fn mix(
    server: &dyn Measured,
    quick: bool,
    links: usize,
    depth: usize,
    bytes: usize,
    reads_percent: usize,
) -> io::Result<Figures> {
    let folder = folder(server, "keys")?;
    let mut fleet = Fleet::open(server.at(), links)?;
    create_all(&mut fleet, &folder, KEYS, bytes)?;
    // Long enough for compiled code, and for files of the log that are used again.
    let (warm, counted) = if quick { (0.3, 1.5) } else { (3.0, 5.0) };
    let mut load = Mix {
        paths: (0..KEYS).map(|n| format!("{folder}/{n}")).collect(),
        data: vec![b'y'; bytes],
        depth,
        reads_percent,
        dice: Dice::new(links as u64),
        counted_from: Instant::now(),
        until: Instant::now() + Duration::from_secs_f64(warm),
        operations: 0,
        refused: 0,
        latencies: histogram(),
        windows: None,
    };
    fleet.run(&mut load)?;
    (load.operations, load.latencies) = (0, histogram());
    load.counted_from = Instant::now();
    load.until = load.counted_from + Duration::from_secs_f64(counted);
    let meter = Meter::start(server)?;
    fleet.run(&mut load)?;
    let figures = meter.stop(load.operations, &load.latencies)?;
    sound(load.refused)?;
    fleet.ask_all(&Request::CloseSession)?;
    Ok(figures)
}

fn create(server: &Server, quick: bool) -> io::Result<Figures> {
    let count = if quick { 20_000 } else { 100_000 };
    let folder = folder(server, "creates")?;
    let mut fleet = Fleet::open(server.at(), LINKS)?;
    let meter = Meter::start(server)?;
    let latencies = create_all(&mut fleet, &folder, count, 128)?;
    let figures = meter.stop(count as u64, &latencies)?;
    delete_all(&mut fleet, &folder, count)?;
    fleet.ask_all(&Request::CloseSession)?;
    Ok(figures)
}

fn children(server: &Server, quick: bool) -> io::Result<Figures> {
    let folder = folder(server, "children")?;
    let mut fleet = Fleet::open(server.at(), 4)?;
    create_all(&mut fleet, &folder, CHILDREN, 0)?;
    let count = if quick { 400 } else { 2_000 };
    let mut load =
        Each::new(count, 1, |_, asker| asker.ask(&Request::GetChildren2 { path: &folder, watch: false }));
    let meter = Meter::start(server)?;
    fleet.run(&mut load)?;
    let figures = meter.stop(count as u64, &load.latencies)?;
    sound(load.refused)?;
    fleet.ask_all(&Request::CloseSession)?;
    Ok(figures)
}

/// The first connection sets a znode that all others watch; when all have their event and watch again, the next set.
struct FanOut {
    path: String,
    sets: usize,
    /// Watches that are to be set before the next set, and events that are to come after it.
    unarmed: usize,
    due: usize,
    set_at: Option<Instant>,
    latencies: Histogram<u64>,
    rearm: Vec<bool>,
}

impl Load for FanOut {
    fn fill(&mut self, link: usize, asker: &mut Asker<'_>) {
        if link > 0 {
            if std::mem::take(&mut self.rearm[link]) {
                asker.ask(&Request::GetData { path: &self.path, watch: true });
            }
        } else if self.unarmed == 0 && self.due == 0 && self.sets > 0 && asker.under_way() == 0 {
            self.sets -= 1;
            self.due = WATCHERS;
            self.unarmed = WATCHERS;
            self.set_at = Some(Instant::now());
            let op = Op::SetData { path: &self.path, data: Some(b"changed"), version: -1 };
            asker.ask(&Request::Change(Change { opcode: Opcode::SetData, op }));
        }
    }

    fn reply(&mut self, link: usize, _: &Reply<'_>, _: Duration, _: Instant) {
        if link > 0 {
            self.unarmed -= 1;
        }
    }

    fn event(&mut self, link: usize, _: &WatcherEvent<'_>, now: Instant) {
        self.due -= 1;
        self.rearm[link] = true;
        if self.due == 0 {
            let set_at = self.set_at.take().expect("an event comes after a set");
            let _ = self.latencies.record(micros(now.duration_since(set_at)));
        }
    }

    fn wakes(&self) -> Option<usize> {
        (self.unarmed == 0 && self.due == 0 && self.sets > 0).then_some(0)
    }

    fn over(&self, _: Instant) -> bool {
        self.sets == 0 && self.due == 0 && self.unarmed == 0
    }
}

fn watches(server: &Server, quick: bool) -> io::Result<Figures> {
    let folder = folder(server, "watched")?;
    let sets = if quick { 50 } else { 300 };
    let mut fleet = Fleet::open(server.at(), WATCHERS + 1)?;
    let mut load = FanOut {
        path: folder,
        sets,
        unarmed: WATCHERS,
        due: 0,
        set_at: None,
        latencies: histogram(),
        rearm: vec![true; WATCHERS + 1],
    };
    let meter = Meter::start(server)?;
    fleet.run(&mut load)?;
    let figures = meter.stop((sets * WATCHERS) as u64, &load.latencies)?;
    fleet.ask_all(&Request::CloseSession)?;
    Ok(figures)
}

fn sessions(server: &Server, quick: bool, opening: bool) -> io::Result<Figures> {
    let count = if quick { 500 } else { 2_000 };
    let none = histogram();
    let meter = Meter::start(server)?;
    let mut fleet = Fleet::open(server.at(), count)?;
    let opened = meter.stop(count as u64, &none)?;
    let meter = Meter::start(server)?;
    fleet.ask_all(&Request::CloseSession)?;
    let closed = meter.stop(count as u64, &none)?;
    Ok(if opening { opened } else { closed })
}

/// How the slowest writes fare while a checkpoint is written, against those while none is.
pub(super) fn checkpoints(server: &Server, quick: bool) -> io::Result<String> {
    const WINDOW: Duration = Duration::from_millis(50);
    const BYTES: usize = 128;
    /// Fewer say nothing of one in a thousand.
    const SAMPLES_MIN: u64 = 3_000;
    const PAIRS_MIN: usize = 10;
    let folder = folder(server, "large")?;
    let keys = 100_000;
    let mut fleet = Fleet::open(server.at(), LINKS)?;
    create_all(&mut fleet, &folder, keys, BYTES)?;
    let counted_from = Instant::now();
    let mut load = Mix {
        paths: (0..keys).map(|n| format!("{folder}/{n}")).collect(),
        data: vec![b'z'; BYTES],
        depth: 1,
        reads_percent: 0,
        dice: Dice::new(1),
        counted_from,
        until: counted_from + Duration::from_secs(if quick { 10 } else { 60 }),
        operations: 0,
        refused: 0,
        latencies: histogram(),
        windows: Some((WINDOW, Vec::new())),
    };
    // When checkpoints were under way is asked of the server beside the load.
    let at =
        |instant: Instant| (instant.duration_since(counted_from).as_micros() / WINDOW.as_micros()) as usize;
    let busy = std::thread::scope(|scope| {
        let until = load.until;
        let watching = scope.spawn(move || -> io::Result<Vec<(usize, usize)>> {
            let mut busy = Vec::new();
            let mut last = (server.figure("zk_cnt_snapshottime")?, server.figure("zk_sum_snapshottime")?);
            while Instant::now() < until {
                std::thread::sleep(WINDOW / 4);
                let now = (server.figure("zk_cnt_snapshottime")?, server.figure("zk_sum_snapshottime")?);
                if now.0 > last.0 {
                    let end = Instant::now();
                    let took = Duration::from_secs_f64((now.1 - last.1 + 1.0) / 1_000.0) + WINDOW / 2;
                    busy.push((at(end.checked_sub(took).unwrap_or(counted_from).max(counted_from)), at(end)));
                }
                last = now;
            }
            Ok(busy)
        });
        fleet.run(&mut load)?;
        watching.join().map_err(|_| io::Error::other("the watching thread panicked"))?
    })?;
    sound(load.refused)?;
    delete_all(&mut fleet, &folder, keys)?;
    fleet.ask_all(&Request::CloseSession)?;
    let (_, windows) = load.windows.expect("it was asked for");
    // Stretches of equal length are compared: one stall weighs more in a shorter one.
    let writing: Vec<bool> =
        (0..windows.len()).map(|n| busy.iter().any(|(from, to)| (*from..=*to).contains(&n))).collect();
    let sum = |range: std::ops::Range<usize>| -> io::Result<Option<f64>> {
        let mut all = histogram();
        for window in &windows[range] {
            all.add(window).map_err(io::Error::other)?;
        }
        Ok((all.len() >= SAMPLES_MIN).then(|| all.value_at_quantile(0.999) as f64))
    };
    let mut pairs: Vec<(f64, f64)> = Vec::new();
    let (mut quiet_from, mut from) = (0, 0);
    while let Some(begin) = (from..writing.len()).find(|n| writing[*n]) {
        let end = (begin..writing.len()).find(|n| !writing[*n]).unwrap_or(writing.len());
        let length = (end - begin).min(begin - quiet_from);
        if length > 0 {
            let quiet = sum(begin - length..begin)?;
            for part in (begin..=end - length).step_by(length) {
                if let (Some(quiet), Some(during)) = (quiet, sum(part..part + length)?) {
                    pairs.push((quiet, during));
                }
            }
        }
        (quiet_from, from) = (end, end);
    }
    if pairs.len() < PAIRS_MIN {
        return Ok(format!(
            "only {} stretches of checkpoints had a quiet one before them; not told",
            pairs.len()
        ));
    }
    let ratios: Vec<f64> = pairs.iter().map(|(quiet, during)| during / quiet).collect();
    Ok(format!(
        "p99.9 of writes ({BYTES} B, {LINKS} × 1 under way): {} µs quiet, {} µs while a checkpoint is written, middles of {} \
         stretches of each in turn: × {:.2} ({:.2}–{:.2})",
        number(median(pairs.iter().map(|(quiet, _)| *quiet))),
        number(median(pairs.iter().map(|(_, during)| *during))),
        pairs.len(),
        median(ratios.iter().copied()),
        ratios.iter().copied().fold(f64::INFINITY, f64::min),
        ratios.iter().copied().fold(0.0, f64::max),
    ))
}

const MILLION: usize = 1_000_000;
/// As many folders as keep each of them small.
const PER_FOLDER: usize = 10_000;

/// A million znodes of 128 bytes.
pub(super) fn fill_with_million(server: &dyn Measured) -> io::Result<()> {
    folder(server, "million")?;
    let mut fleet = Fleet::open(server.at(), LINKS)?;
    for n in 0..MILLION / PER_FOLDER {
        let folder = folder(server, &format!("million/{n}"))?;
        create_all(&mut fleet, &folder, PER_FOLDER, 128)?;
    }
    fleet.ask_all(&Request::CloseSession)
}

/// Memory and restart with a million znodes.
pub(super) fn million(server: &Server) -> io::Result<String> {
    fill_with_million(server)?;
    let rss = Server::rss_mib(server.pid()?)?;
    let path = format!("{FOLDER}/million/{}/7", MILLION / PER_FOLDER - 1);
    let stopped = server.restart(&path, "stop")?;
    let killed = server.restart(&path, "kill")?;
    Ok(format!("| {} | {} | {} | {} |", server.kind, number(rss), stopped.as_millis(), killed.as_millis()))
}
