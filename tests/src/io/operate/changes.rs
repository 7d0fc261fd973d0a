//! Members change under load, by the operator and by a client, and nobody who is not concerned notices.

use super::fleet::{Fleet, Server};
use super::members::until_all_know;
use super::{Outcome, all_well, issue, settings};
use crate::io::daemon::{LOOK_EVERY, PATIENCE, eventually};
use std::fs;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};
use warren_storage::{Acl, AclRef, Code, CreateMode, Op};
use warren_transport::io::blocking::{Connection, Options};
use warren_transport::{Change, Opcode, Request, Response};

/// Who comes and goes.
const GUEST: u8 = 5;
/// Between an answer and the next write of a client.
const PAUSE: Duration = Duration::from_millis(5);
/// Answers that each client must have between two changes.
const ANSWERS_MIN: u64 = 5;

/// A client that counts in a znode of its own.
struct Counter {
    home: SocketAddr,
    path: String,
    answered: AtomicU64,
    disconnects: AtomicU64,
}

pub(super) fn connect(at: SocketAddr) -> Outcome<Connection> {
    let until = Instant::now() + PATIENCE;
    loop {
        match Connection::connect(at, &Options { timeout_ms: 30_000, ..Options::default() }) {
            Ok(connection) => return Ok(connection),
            Err(e) if Instant::now() >= until => return Err(format!("{at} takes no client: {e}").into()),
            Err(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

/// Create it, or give it other data.
pub(super) fn write(connection: &mut Connection, path: &str, data: &[u8]) -> Outcome<()> {
    let open = Acl::open();
    let acl: Vec<AclRef<'_>> = open.iter().map(Acl::as_ref).collect();
    let op = Op::SetData { path, data: Some(data), version: -1 };
    let set = Change { opcode: Opcode::SetData, op };
    let op = Op::Create { path, data: Some(data), acl, mode: CreateMode::Persistent, ttl: 0 };
    let create = Change { opcode: Opcode::Create, op };
    let reply = connection.call(&Request::Change(set))?;
    match reply.header.err == Code::NoNode.wire() {
        true => connection.call(&Request::Change(create))?.response()?,
        false => reply.response()?,
    };
    Ok(())
}

/// What it holds now, whoever wrote it.
pub(super) fn read(connection: &mut Connection, path: &str) -> Outcome<Vec<u8>> {
    connection.call(&Request::Sync { path })?;
    let reply = connection.call(&Request::GetData { path, watch: false })?;
    match reply.response()? {
        Response::Data(data, _) => Ok(data.unwrap_or_default().to_vec()),
        other => Err(format!("{other:?} is no data").into()),
    }
}

impl Counter {
    fn live(&self, enough: &AtomicBool) -> Result<(), String> {
        let mut connection = connect(self.home).map_err(|e| e.to_string())?;
        let mut next = 1;
        while !enough.load(SeqCst) {
            match write(&mut connection, &self.path, format!("{next}").as_bytes()) {
                Ok(()) => {
                    self.answered.store(next, SeqCst);
                    next += 1;
                }
                Err(_) => {
                    // It goes on, so that there is one figure at the end.
                    self.disconnects.fetch_add(1, SeqCst);
                    connection = connect(self.home).map_err(|e| e.to_string())?;
                }
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}

/// All clients are answered still.
fn served(counters: &[Counter]) -> Outcome<()> {
    let before: Vec<u64> = counters.iter().map(|c| c.answered.load(SeqCst)).collect();
    let all =
        || counters.iter().zip(&before).all(|(c, before)| c.answered.load(SeqCst) >= before + ANSWERS_MIN);
    if eventually(all) { Ok(()) } else { Err("a client is not answered any more".into()) }
}

pub(super) fn under_load(fleet: &mut Fleet) -> Outcome<()> {
    let counter = |server: &Server| Counter {
        home: server.clients,
        path: format!("/counter-{}", server.id),
        answered: AtomicU64::new(0),
        disconnects: AtomicU64::new(0),
    };
    let counters: Vec<Counter> = fleet.servers.iter().map(counter).collect();
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| -> Outcome<()> {
        let threads: Vec<_> = counters.iter().map(|c| scope.spawn(|| c.live(&enough))).collect();
        let done = change(fleet, &counters);
        enough.store(true, SeqCst);
        for thread in threads {
            thread.join().map_err(|_| "a client panicked")??;
        }
        done
    })?;
    for counter in &counters {
        let disconnects = counter.disconnects.load(SeqCst);
        if disconnects > 0 {
            return Err(format!("the client of {} was disconnected {disconnects} times", counter.home).into());
        }
        // Asked at another server.
        let other =
            counters.iter().map(|c| c.home).find(|home| *home != counter.home).expect("there are three");
        let kept = String::from_utf8(read(&mut connect(other)?, &counter.path)?)?.parse::<u64>()?;
        let answered = counter.answered.load(SeqCst);
        if kept != answered {
            return Err(
                format!("{answered} writes were answered at {}, {kept} are there", counter.path).into()
            );
        }
    }
    Ok(())
}

fn change(fleet: &mut Fleet, counters: &[Counter]) -> Outcome<()> {
    served(counters)?;
    let id = GUEST.to_string();
    let asked = fleet.leader()? % 3 + 1;
    let guest = Server::new(&fleet.folder.clone(), GUEST, &mut fleet.dice)?;
    issue(fleet, "ca2", &guest)?;
    fs::copy(fleet.server(1).ca(), guest.ca())?;
    let (peers, clients) = (guest.peers.to_string(), guest.clients.to_string());
    fleet.servers.push(guest);
    let all: Vec<&Server> = fleet.servers.iter().collect();
    let own = fleet.server(GUEST);
    // Its own entry is the last one.
    fs::write(&own.settings.1, settings(own, &all) + "role = 'observer'\n")?;

    fleet
        .ask(asked, &["member", "add", &id, &peers, &clients, "--observer"])?
        .must(0, "and observes; start it with an empty data folder")?;
    fleet.start(GUEST)?;
    fleet.server_mut(GUEST).serves()?;
    until_all_know(fleet, GUEST, Some(("observer", 1)))?;
    fleet.until("it observes", |fleet| fleet.status(GUEST).is_ok_and(|status| status.role == "observer"))?;
    write(&mut connect(fleet.server(GUEST).clients)?, "/guest", b"observes")?;
    served(counters)?;

    fleet.ask(asked, &["member", "promote", &id])?.must(0, "joins the voters")?;
    until_all_know(fleet, GUEST, Some(("voter", 1)))?;
    write(&mut connect(fleet.server(GUEST).clients)?, "/guest", b"votes")?;
    served(counters)?;
    fleet.ask(asked, &["member", "demote", &id])?.must(0, "no longer votes")?;
    fleet.until("it observes again", |fleet| {
        fleet.status(GUEST).is_ok_and(|status| status.role == "observer" && status.serving)
    })?;
    served(counters)?;

    // Promoted while it is down, it votes with what it has once it is up.
    fleet.server_mut(GUEST).kill();
    fleet.ask(asked, &["member", "promote", &id])?.must(0, "joins the voters")?;
    fleet.start(GUEST)?;
    fleet.server_mut(GUEST).serves()?;
    until_all_know(fleet, GUEST, Some(("voter", 1)))?;
    served(counters)?;

    // A client lets it go while it is down.
    fleet.server_mut(GUEST).kill();
    let mut client = connect(fleet.server(asked).clients)?;
    leave(&mut client, &id, 1, Code::NoAuth.wire())?;
    client.auth("digest", b"super:test")?;
    leave(&mut client, &id, 1, Code::BadVersion.wire())?;
    leave(&mut client, &id, -1, 0)?;
    for counter in counters {
        let text = String::from_utf8(read(&mut connect(counter.home)?, "/zookeeper/config")?)?;
        if text.contains("server.5=") || text.matches("server.").count() != 3 {
            return Err(format!("{} tells {text}", counter.home).into());
        }
    }
    served(counters)?;
    fleet.start(GUEST)?;
    // Nobody links up with it any more.
    fleet.until("it says that it is alone", |fleet| {
        let said = fleet.ask(GUEST, &["status"]);
        said.is_ok_and(|said| said.status == 1 && said.out.contains("does not serve clients"))
    })?;
    served(counters)?;
    if fleet.status(GUEST)?.serving {
        return Err("it serves all the same".into());
    }
    fleet.server_mut(GUEST).kill();
    fleet.servers.retain(|server| server.id != GUEST);
    served(counters)?;
    all_well(fleet)
}

/// A client's `reconfig`, by which this server leaves.
fn leave(client: &mut Connection, id: &str, version: i64, expected: i32) -> Outcome<()> {
    let request = Request::Reconfig { joining: None, leaving: Some(id), members: None, config_id: version };
    let err = client.call(&request)?.header.err;
    if err == expected {
        return Ok(());
    }
    Err(format!("reconfig from version {version} is answered {err}, not {expected}").into())
}
