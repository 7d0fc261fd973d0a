//! `warren restart`: the process is another one, and clients notice nothing but a pause.

use super::Outcome;
use super::fleet::Fleet;
use crate::io::crash;
use crate::io::daemon::PATIENCE;
use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use warren_storage::{CreateMode, Op};
use warren_transport::io::blocking::{Connection, Event, Options};
use warren_transport::request::AddWatchMode;
use warren_transport::{Change, ConnectRequest, EventType, Opcode, Request, Response};

/// Of the sessions: more than a restart ever takes.
const SESSION_MS: i32 = 30_000;
/// Connections that say nothing: more than go in one message from process to process.
const IDLE: usize = 600;

fn connect(fleet: &Fleet, id: u8) -> Outcome<Connection> {
    let options = Options { timeout_ms: SESSION_MS, ..Options::default() };
    Ok(Connection::connect(fleet.server(id).clients, &options)?)
}

fn create(connection: &mut Connection, path: &str, mode: CreateMode) -> Outcome<()> {
    connection.call(&Request::Change(crash::create(path, b"", mode)))?.response()?;
    Ok(())
}

fn set(connection: &mut Connection, path: &str) -> Outcome<()> {
    let op = Op::SetData { path, data: Some(b"new"), version: -1 };
    connection.call(&Request::Change(Change { opcode: Opcode::SetData, op }))?.response()?;
    Ok(())
}

/// The next event must be this one.
fn told(connection: &mut Connection, kind: EventType, path: &str) -> Outcome<()> {
    match connection.wait_event(PATIENCE)? {
        Some(Event { kind: k, path: p, .. }) if (k, p.as_str()) == (kind, path) => Ok(()),
        other => Err(format!("{kind:?} of {path} is due, and not {other:?}").into()),
    }
}

/// A connection whose client has said half of what it wants.
fn half_greeted(fleet: &Fleet, id: u8) -> Outcome<(TcpStream, Vec<u8>)> {
    let mut hello = Vec::new();
    let request = ConnectRequest {
        protocol_version: 0,
        last_zxid_seen: 0,
        timeout_ms: SESSION_MS,
        session: 0,
        password: &[0; 16],
        read_only: Some(false),
    };
    request.encode(&mut hello);
    let rest = hello.split_off(10);
    let mut stream = TcpStream::connect(fleet.server(id).clients)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&hello)?;
    Ok((stream, rest))
}

pub(super) fn restarted(fleet: &mut Fleet) -> Outcome<()> {
    let leader = fleet.leader()?;
    for id in [leader % 3 + 1, leader] {
        through(fleet, id)?;
    }
    refused(fleet, leader)
}

fn through(fleet: &mut Fleet, id: u8) -> Outcome<()> {
    let (mut own, mut other) = (connect(fleet, id)?, connect(fleet, id % 3 + 1)?);
    let top = format!("/in-place-{id}");
    let at = |name: &str| format!("{top}/{name}");
    create(&mut own, &top, CreateMode::Persistent)?;
    create(&mut own, &at("ephemeral"), CreateMode::Ephemeral)?;
    create(&mut own, &at("once"), CreateMode::Persistent)?;
    create(&mut own, &at("always"), CreateMode::Persistent)?;
    own.auth("digest", b"alice:secret")?;
    own.call(&Request::GetData { path: &at("once"), watch: true })?.response()?;
    own.call(&Request::GetChildren { path: &top, watch: true })?.response()?;
    let mode = AddWatchMode::PersistentRecursive;
    own.call(&Request::AddWatch { path: &at("always"), mode })?.response()?;
    let idle = (0..IDLE).map(|_| connect(fleet, id)).collect::<Outcome<Vec<_>>>()?;
    let (mut half, rest) = half_greeted(fleet, id)?;

    let pid = fleet.server(id).pid()?;
    let before = fleet.status(id)?;
    let session = own.session();
    let said = fleet.ask(id, &["restart"])?.must(0, "serves again after")?;
    let after = fleet.status(id)?;
    if after.run == before.run || fleet.server(id).pid()? != pid {
        return Err("it is no other run of the same process".into());
    }
    // Its own, the idle ones, and the one that is half greeted.
    let kept = after.connections_kept.unwrap_or(0);
    if kept < IDLE as u64 + 2 || !said.out.contains(&format!("kept {kept}")) {
        return Err(format!("it kept {kept} connections: {}", said.out).into());
    }

    // The session, its ephemeral, who it is, and its watches: one that fires once, and one that stays.
    if own.session() != session {
        return Err("the session is another one".into());
    }
    set(&mut other, &at("once"))?;
    told(&mut own, EventType::NodeDataChanged, &at("once"))?;
    for name in ["a", "b"] {
        let path = at(&format!("always/{name}"));
        create(&mut other, &path, CreateMode::Persistent)?;
        told(&mut own, EventType::NodeCreated, &path)?;
    }
    create(&mut other, &at("new"), CreateMode::Persistent)?;
    told(&mut own, EventType::NodeChildrenChanged, &top)?;
    set(&mut other, &at("once"))?;
    // What it is told of comes in front of the answer.
    own.call(&Request::Sync { path: &top })?.response()?;
    if let Some(event) = own.event() {
        return Err(format!("a watch that had fired fires again: {event:?}").into());
    }
    own.call(&Request::Exists { path: &at("ephemeral"), watch: false })?.response()?;
    let who = own.call(&Request::WhoAmI)?;
    match who.response()? {
        Response::ClientInfo(ids) if ids.iter().any(|id| format!("{id:?}").contains("alice")) => {}
        answer => return Err(format!("it does not know who it was: {answer:?}").into()),
    }
    for mut connection in idle {
        connection.ping()?;
        connection.close()?;
    }
    half.write_all(&rest)?;
    let mut answer = [0; 8];
    half.read_exact(&mut answer).map_err(|e| format!("half a greeting came to nothing: {e}"))?;
    own.close()?;
    Ok(other.close()?)
}

/// With settings that cannot be used nothing happens.
fn refused(fleet: &mut Fleet, id: u8) -> Outcome<()> {
    let mut connection = connect(fleet, id)?;
    let file = fleet.server(id).settings.1.clone();
    let good = fs::read_to_string(&file)?;
    let before = fleet.status(id)?.run;
    fs::write(&file, format!("{good}\n[frobnication]\n"))?;
    let said = fleet.ask(id, &["restart"])?;
    fs::write(&file, good)?;
    said.must(1, "frobnication")?.must(1, "Nothing was done")?;
    if fleet.status(id)?.run != before {
        return Err("it began anew all the same".into());
    }
    connection.ping()?;
    connection.close()?;
    fleet.ask(id, &["restart", "--within", "x"])?.must(64, "--within")?;
    match TcpStream::connect(fleet.server(id).clients) {
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => Err("nobody listens any more".into()),
        _ => Ok(()),
    }
}
