//! Clients that wait for their answers, and notice when their server leaves: a stop must not cost them a single one.

use super::servers::{Servers, id};
use super::{Director, Outcome};
use crate::io::daemon::{LOOK_EVERY, PATIENCE};
use rustix::process::Signal;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};
use warren_storage::{CreateMode, Op};
use warren_transport::io::blocking::{Connection, Error, Options};
use warren_transport::{Change, Opcode, Request};

/// On each server.
const EACH: usize = 2;
/// Requests that leave together.
const TOGETHER: usize = 8;
/// Between an answer and the next request.
const PAUSE: Duration = Duration::from_millis(10);
/// Answers that each must have had before and after the stop.
const ANSWERS_MIN: u64 = 5 * TOGETHER as u64;

/// Requests that wait for a server: several times `limits.outstanding_per_connection_max`, so that most are not read yet.
const WAITING: usize = 4_000;

struct Polite {
    home: usize,
    answers: AtomicU64,
    moves: AtomicU64,
}

/// Stop this server and start it again under the eyes of clients on all of them.
pub(super) fn through_a_stop(director: &mut Director<'_>, stopped: usize) -> Outcome<()> {
    let homes = director.servers.places();
    through(director, homes, Some(stopped), |servers, all| {
        servers.daemons[stopped].stop()?;
        all_are_answered(all)?;
        Ok(servers.daemons[stopped].start()?)
    })
}

/// Have this server begin anew in place under the eyes of clients on all of them.
pub(super) fn through_a_beginning(director: &mut Director<'_>, place: usize) -> Outcome<()> {
    let homes = director.servers.places();
    through(director, homes, None, |servers, _| Ok(servers.begin_anew(place)?))
}

/// Kill this server and start it again under the eyes of clients of the observers, of which it is none.
pub(super) fn through_a_kill(director: &mut Director<'_>, killed: usize) -> Outcome<()> {
    director.stage.harm(killed);
    let homes = director.servers.observers();
    through(director, homes, None, |servers, all| {
        servers.daemons[killed].kill();
        all_are_answered(all)?;
        Ok(servers.daemons[killed].start()?)
    })
}

/// Something is done to the servers, and all clients of those in `homes` are answered before, behind it and in the end. Only
/// those of the server that was stopped are sent away, and once.
fn through(
    director: &mut Director<'_>,
    homes: std::ops::Range<usize>,
    stopped: Option<usize>,
    mut act: impl FnMut(&mut Servers, &[Polite]) -> Outcome<()>,
) -> Outcome<()> {
    let servers = &director.stage.servers;
    let all: Vec<Polite> = homes
        .flat_map(|home| (0..EACH).map(move |_| home))
        .map(|home| Polite { home, answers: AtomicU64::new(0), moves: AtomicU64::new(0) })
        .collect();
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| -> Outcome<()> {
        let threads: Vec<_> =
            all.iter().map(|client| scope.spawn(|| client.live(servers, &enough))).collect();
        let mut stop = || -> Outcome<()> {
            all_are_answered(&all)?;
            act(&mut director.servers, &all)?;
            all_are_answered(&all)
        };
        let done = stop();
        enough.store(true, SeqCst);
        for thread in threads {
            thread.join().map_err(|_| "a client panicked")??;
        }
        done
    })?;
    for client in &all {
        let (moves, due) = (client.moves.load(SeqCst), u64::from(Some(client.home) == stopped));
        if moves != due {
            let home = id(client.home);
            return Err(
                format!("a client of server {home} was sent away {moves} times, and not {due}").into()
            );
        }
    }
    Ok(())
}

/// A server that is asked too early closes the connection.
fn come_in(at: SocketAddr) -> Result<Connection, String> {
    let until = Instant::now() + PATIENCE;
    loop {
        match Connection::connect(at, &Options::default()) {
            Ok(connection) => return Ok(connection),
            Err(e) if Instant::now() >= until => return Err(format!("a client does not come in: {e}")),
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

/// Stop this server, which does not lead, with more requests in front of it than it takes at once: all are answered.
pub(super) fn with_requests_waiting(director: &mut Director<'_>, stopped: usize) -> Outcome<()> {
    let mut connection = come_in(director.stage.servers[stopped])?;
    let path = "/crash/polite";
    connection.call(&Request::Change(super::create(path, b"", CreateMode::Persistent)))?;
    let daemon = &director.servers.daemons[stopped];
    // It finds the requests and the signal when it wakes.
    daemon.signal(Signal::STOP)?;
    for _ in 0..WAITING {
        let op = Op::SetData { path, data: Some(b"waiting"), version: -1 };
        connection.send(&Request::Change(Change { opcode: Opcode::SetData, op }))?;
    }
    connection.flush()?;
    daemon.signal(Signal::TERM)?;
    daemon.signal(Signal::CONT)?;
    for answered in 0..WAITING {
        if let Err(e) = connection.recv() {
            let stopped = id(stopped);
            return Err(format!("server {stopped} answered {answered} of {WAITING} requests: {e}").into());
        }
    }
    director.servers.daemons[stopped].stop()?;
    Ok(director.servers.daemons[stopped].start()?)
}

fn all_are_answered(all: &[Polite]) -> Outcome<()> {
    let before: Vec<u64> = all.iter().map(|client| client.answers.load(SeqCst)).collect();
    let until = Instant::now() + PATIENCE;
    while all.iter().zip(&before).any(|(client, before)| client.answers.load(SeqCst) < before + ANSWERS_MIN) {
        if Instant::now() >= until {
            return Err("a client is not answered any more".into());
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

impl Polite {
    fn live(&self, servers: &[SocketAddr], enough: &AtomicBool) -> Result<(), String> {
        let (mut at, path) = (self.home, "/crash/polite");
        let mut connection = come_in(servers[at])?;
        let create = super::create(path, b"", CreateMode::Persistent);
        connection.call(&Request::Change(create)).map_err(|e| format!("a create was not answered: {e}"))?;
        while !enough.load(SeqCst) {
            // Its server may leave while it is owed nothing; then another one takes it.
            if connection.wait_event(PAUSE).is_err() {
                self.moves.fetch_add(1, SeqCst);
                at = self.find_another(servers, at, &mut connection)?;
            }
            self.ask(&mut connection, path)
                .map_err(|e| format!("server {} left requests of a client without an answer: {e}", id(at)))?;
        }
        connection.close().map_err(|e| format!("a close was not answered: {e}"))
    }

    fn ask(&self, connection: &mut Connection, path: &str) -> Result<(), Error> {
        for n in 0..TOGETHER {
            if n % 2 == 0 {
                let op = Op::SetData { path, data: Some(b"polite"), version: -1 };
                connection.send(&Request::Change(Change { opcode: Opcode::SetData, op }))?;
            } else {
                connection.send(&Request::GetData { path, watch: false })?;
            }
        }
        for _ in 0..TOGETHER {
            connection.recv()?;
            self.answers.fetch_add(1, SeqCst);
        }
        Ok(())
    }

    fn find_another(
        &self,
        servers: &[SocketAddr],
        mut at: usize,
        connection: &mut Connection,
    ) -> Result<usize, String> {
        let until = Instant::now() + PATIENCE;
        loop {
            at = (at + 1) % servers.len();
            match connection.reconnect(servers[at]) {
                Ok(()) => return Ok(at),
                Err(e) if Instant::now() >= until => return Err(format!("no server takes a client: {e}")),
                Err(_) => std::thread::sleep(LOOK_EVERY),
            }
        }
    }
}
