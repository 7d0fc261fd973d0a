//! How long writes pause when a leader goes.

use super::server::Measured as _;
use super::trio::{How, Trio};
use super::{median, number, steps};
use crate::io::daemon::PATIENCE;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};
use warren_storage::Op;
use warren_transport::io::blocking::{Connection, Error, Options};
use warren_transport::{Change, Opcode, Request};

/// Clients that write, each one request at a time, spread over the servers.
const WRITERS: usize = 6;
/// Between an answer and the next request.
const PAUSE: Duration = Duration::from_millis(1);
/// Between two attempts to find a server.
const RETRY: Duration = Duration::from_millis(5);
/// How long the ensemble rests between two kills.
const REST: Duration = Duration::from_millis(500);

/// What is done to the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goes {
    Away(How),
    /// Leadership moves, and the server stays.
    Over,
}

/// One of them.
struct Gap {
    /// The longest time without an answer to any writer.
    longest: Duration,
    /// Writers whose server was not touched, and who lost their connection.
    cut: usize,
    /// Writers at servers that were not touched.
    at_others: usize,
}

/// A line of the table: so many times in turn.
pub(super) fn line(trio: &mut Trio, what: &str, goes: Goes, times: usize) -> io::Result<String> {
    let folder = steps::folder(trio, "gaps")?;
    let mut gaps = Vec::new();
    for n in 0..times {
        std::thread::sleep(REST);
        gaps.push(one(trio, &folder, goes)?);
        if (n + 1) % 10 == 0 {
            eprintln!("{}: {what}: {} of {times}", trio.kind, n + 1);
        }
    }
    let mut ms: Vec<f64> = gaps.iter().map(|gap| gap.longest.as_secs_f64() * 1e3).collect();
    ms.sort_by(f64::total_cmp);
    let at = |share: f64| ms[((ms.len() - 1) as f64 * share).round() as usize];
    let (cut, at_others): (usize, usize) =
        gaps.iter().fold((0, 0), |sum, gap| (sum.0 + gap.cut, sum.1 + gap.at_others));
    Ok(format!(
        "| {what} | {} | {times} | {} | {} | {} | {} | {cut} of {at_others} |",
        trio.kind,
        number(ms[0]),
        number(median(ms.iter().copied())),
        number(at(0.9)),
        number(at(1.0)),
    ))
}

struct Shared {
    start: Instant,
    /// Of the last answer, µs since the start.
    last_us: AtomicU64,
    longest_us: AtomicU64,
    /// Gaps count from here on.
    counts: AtomicBool,
    enough: AtomicBool,
    /// By writer: answers so far, and whether it lost a connection with a server that was not touched.
    answers: [AtomicU64; WRITERS],
    cut: [AtomicBool; WRITERS],
}

fn one(trio: &mut Trio, folder: &str, goes: Goes) -> io::Result<Gap> {
    let leader = trio.leader()?;
    let at = trio.at().to_vec();
    let shared = Shared {
        start: Instant::now(),
        last_us: AtomicU64::new(0),
        longest_us: AtomicU64::new(0),
        counts: AtomicBool::new(false),
        enough: AtomicBool::new(false),
        answers: Default::default(),
        cut: Default::default(),
    };
    std::thread::scope(|scope| -> io::Result<()> {
        let writers: Vec<_> = (0..WRITERS)
            .map(|n| {
                let (at, shared) = (&at, &shared);
                scope.spawn(move || write(n, at, folder, shared, leader))
            })
            .collect();
        let mut act = || -> io::Result<()> {
            all_write(&shared)?;
            shared.counts.store(true, SeqCst);
            match goes {
                Goes::Away(how) => trio.end(leader, how)?,
                Goes::Over => trio.hand_over(leader)?,
            }
            all_write(&shared)
        };
        let done = act();
        shared.enough.store(true, SeqCst);
        for writer in writers {
            writer.join().map_err(|_| io::Error::other("a writer panicked"))??;
        }
        done
    })?;
    if let Goes::Away(_) = goes {
        trio.start(leader)?;
    }
    // With a hand-over, the old leader's own clients count too.
    let untouched = |n: &usize| goes == Goes::Over || n % at.len() != leader;
    Ok(Gap {
        longest: Duration::from_micros(shared.longest_us.load(SeqCst)),
        cut: (0..WRITERS).filter(untouched).filter(|n| shared.cut[*n].load(SeqCst)).count(),
        at_others: (0..WRITERS).filter(untouched).count(),
    })
}

/// Wait until every writer had some more answers.
fn all_write(shared: &Shared) -> io::Result<()> {
    let before: Vec<u64> = shared.answers.iter().map(|answers| answers.load(SeqCst)).collect();
    let until = Instant::now() + PATIENCE;
    while shared.answers.iter().zip(&before).any(|(answers, before)| answers.load(SeqCst) < before + 10) {
        if Instant::now() >= until {
            return Err(io::Error::other("a writer is not answered any more"));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Write until it is enough; go from server to server with the same session.
fn write(n: usize, servers: &[SocketAddr], folder: &str, shared: &Shared, leader: usize) -> io::Result<()> {
    let mut at = n % servers.len();
    let mut connection = Connection::connect(servers[at], &Options::default()).map_err(io::Error::other)?;
    let path = format!("{folder}/{n}");
    connection.call(&steps::create_request(&path, b"")).map_err(io::Error::other)?;
    let mut moved = false;
    while !shared.enough.load(SeqCst) {
        let op = Op::SetData { path: &path, data: Some(&[b'g'; 128]), version: -1 };
        match connection.call(&Request::Change(Change { opcode: Opcode::SetData, op })) {
            Ok(_) => {
                shared.answers[n].fetch_add(1, SeqCst);
                let now = shared.start.elapsed().as_micros() as u64;
                let last = shared.last_us.fetch_max(now, SeqCst);
                if shared.counts.load(SeqCst) {
                    shared.longest_us.fetch_max(now.saturating_sub(last), SeqCst);
                }
                std::thread::sleep(PAUSE);
            }
            Err(Error::Expired) => return Err(io::Error::other("a session is over")),
            Err(_) => {
                // Only the first loss is the fault's: who left a dead leader may come to one that does not serve yet.
                if !moved {
                    shared.cut[n].store(true, SeqCst);
                }
                moved = true;
                at = find_another(servers, at, leader, &mut connection, shared)?;
            }
        }
    }
    connection.close().map_err(io::Error::other)
}

fn find_another(
    servers: &[SocketAddr],
    mut at: usize,
    leader: usize,
    connection: &mut Connection,
    shared: &Shared,
) -> io::Result<usize> {
    let until = Instant::now() + PATIENCE;
    loop {
        at = (at + 1) % servers.len();
        // Nobody is there.
        if at == leader && shared.counts.load(SeqCst) {
            continue;
        }
        match connection.reconnect(servers[at]) {
            Ok(()) => return Ok(at),
            Err(Error::Expired) => return Err(io::Error::other("a session is over")),
            Err(e) if Instant::now() >= until => return Err(io::Error::other(e)),
            Err(_) => std::thread::sleep(RETRY),
        }
    }
}
