//! Clients that write whatever a ZooKeeper takes, until it is killed under them.

use super::Outcome;
use crate::sim::Dice;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use warren_storage::{AclRef, CreateMode, IdRef, Op};
use warren_transport::io::blocking::{Connection, Options};
use warren_transport::{Change, Opcode, Request, Response};

/// Of sessions that are to outlive a restart, ms: the most that the server gives.
pub(super) const TIMEOUT_MS: i32 = 40_000;
/// Of sessions that are left to expire, ms: the least.
const SHORT_TIMEOUT_MS: i32 = 1_000;
/// Paths that a writer remembers.
const PATHS_MAX: usize = 300;
/// Bytes of data in a write.
const DATA_BYTES_MAX: usize = 1_500;
/// Long enough that none is over while the trees are compared, ms.
const TTL_MS: i64 = 1_000_000_000;

/// Kinds of create, with the opcode that asks for them.
const MODES: [(CreateMode, Opcode); 9] = [
    (CreateMode::Persistent, Opcode::Create),
    (CreateMode::PersistentSequential, Opcode::Create),
    (CreateMode::Ephemeral, Opcode::Create),
    (CreateMode::Persistent, Opcode::Create2),
    (CreateMode::Ephemeral, Opcode::Create2),
    (CreateMode::EphemeralSequential, Opcode::Create2),
    (CreateMode::Container, Opcode::CreateContainer),
    (CreateMode::Ttl, Opcode::CreateTtl),
    (CreateMode::TtlSequential, Opcode::CreateTtl),
];

/// So many of them a ZooKeeper 3.4 knows.
const OLD_MODES: usize = 3;

/// Ephemerals of sessions that are left to expire, below the root.
const LEFT: &str = "left-";

/// How many of these sessions have not expired.
pub(super) fn left_behind(at: SocketAddr) -> Outcome<usize> {
    let mut connection = connect(at, TIMEOUT_MS)?;
    let reply = connection.call(&Request::GetChildren { path: "/", watch: false })?;
    let left = match reply.response()? {
        Response::Children(names) => names.iter().filter(|name| name.starts_with(LEFT)).count(),
        other => return Err(format!("{other:?}").into()),
    };
    connection.close()?;
    Ok(left)
}

/// What writers do.
#[derive(Clone, Copy)]
pub(super) struct Habits {
    /// They ask for nothing that a ZooKeeper 3.4 does not know.
    pub(super) old: bool,
    /// They leave sessions to expire.
    pub(super) leaves_sessions: bool,
}

/// One client, and what it made.
pub(super) struct Writer {
    at: SocketAddr,
    own: String,
    dice: Dice,
    /// So many of [`MODES`].
    modes: usize,
    leaves_sessions: bool,
    connection: Connection,
    /// Below `own`; some may be gone.
    paths: Vec<String>,
    /// What was acknowledged, of all clients.
    done: Arc<AtomicU64>,
}

pub(super) fn open<'a>(perms: i32) -> AclRef<'a> {
    AclRef { perms, id: IdRef { scheme: "world", id: "anyone" } }
}

pub(super) fn create<'a>(path: &'a str, data: &'a [u8]) -> Request<'a> {
    let op = Op::Create { path, data: Some(data), acl: vec![open(31)], mode: CreateMode::Persistent, ttl: 0 };
    Request::Change(Change { opcode: Opcode::Create, op })
}

impl Writer {
    pub(super) fn begin(
        at: SocketAddr,
        number: usize,
        seed: u64,
        habits: Habits,
        done: Arc<AtomicU64>,
    ) -> Outcome<Writer> {
        let mut connection = connect(at, TIMEOUT_MS)?;
        let own = format!("/load-{number}");
        for path in ["/shared", &own] {
            connection.call(&create(path, b""))?;
        }
        let dice = Dice::new(seed ^ number as u64);
        let modes = if habits.old { OLD_MODES } else { MODES.len() };
        let leaves_sessions = habits.leaves_sessions;
        Ok(Writer { at, paths: vec![own.clone()], own, dice, modes, leaves_sessions, connection, done })
    }

    /// Write until the connection breaks.
    pub(super) fn run(&mut self) {
        while self.step().is_ok() {
            self.done.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn step(&mut self) -> Outcome<()> {
        match self.dice.index(100) {
            0 if self.leaves_sessions => self.leave_session(),
            1 => self.close_session(),
            2..=14 => self.multi(),
            _ => {
                let made = self.change()?;
                let reply = self.connection.call(&Request::Change(made.change()))?;
                if reply.header.err == 0 {
                    self.remember(&made);
                }
                Ok(())
            }
        }
    }

    /// The session goes, and its ephemerals with it.
    fn close_session(&mut self) -> Outcome<()> {
        let next = connect(self.at, TIMEOUT_MS)?;
        std::mem::replace(&mut self.connection, next).close()?;
        Ok(())
    }

    /// A short session makes an ephemeral, and is never heard of again.
    fn leave_session(&mut self) -> Outcome<()> {
        let mut short = connect(self.at, SHORT_TIMEOUT_MS)?;
        let path = format!("/{LEFT}{}", self.dice.roll());
        let op =
            Op::Create { path: &path, data: None, acl: vec![open(31)], mode: CreateMode::Ephemeral, ttl: 0 };
        short.call(&Request::Change(Change { opcode: Opcode::Create, op }))?;
        Ok(())
    }

    fn multi(&mut self) -> Outcome<()> {
        let many = 1 + self.dice.index(5);
        let mut made = Vec::with_capacity(many + 1);
        for _ in 0..many {
            made.push(self.change()?);
        }
        if self.dice.one_in(3) {
            made.push(Made { path: self.own.clone(), version: 0, ..Made::of(Opcode::Check) });
        }
        let reply = self.connection.call(&Request::Multi(made.iter().map(Made::change).collect()))?;
        if reply.header.err == 0 {
            made.iter().for_each(|made| self.remember(made));
        }
        Ok(())
    }

    fn change(&mut self) -> Outcome<Made> {
        let path = self.paths[self.dice.index(self.paths.len())].clone();
        Ok(match self.dice.index(10) {
            0..=4 => {
                let (mode, opcode) = MODES[self.dice.index(self.modes)];
                // Shared parents take part in everybody's transactions; names come again.
                let parent = if self.dice.one_in(4) { "/shared".to_owned() } else { path };
                let path = format!("{parent}/n{}", self.dice.index(60));
                Made { path, data: self.data(), acl: self.acl(), mode, ..Made::of(opcode) }
            }
            5..=6 => Made { path, ..Made::of(Opcode::Delete) },
            7..=8 => Made { path, data: self.data(), ..Made::of(Opcode::SetData) },
            _ => Made { path, acl: self.acl(), ..Made::of(Opcode::SetAcl) },
        })
    }

    fn data(&mut self) -> Option<Vec<u8>> {
        let bytes = self.dice.index(DATA_BYTES_MAX);
        match self.dice.index(8) {
            0 => None,
            1 => Some(Vec::new()),
            _ => Some((0..bytes).map(|_| self.dice.index(256) as u8).collect()),
        }
    }

    fn acl(&mut self) -> usize {
        if self.dice.one_in(2) { 0 } else { self.dice.index(ACLS) }
    }

    fn remember(&mut self, made: &Made) {
        match made.opcode {
            Opcode::Delete => self.paths.retain(|path| *path != made.path),
            // What a sequential create was called matters to nobody.
            Opcode::Create | Opcode::Create2 | Opcode::CreateContainer | Opcode::CreateTtl
                if !made.mode.is_sequential() =>
            {
                if self.paths.len() < PATHS_MAX {
                    self.paths.push(made.path.clone());
                } else {
                    let at = 1 + self.dice.index(self.paths.len() - 1);
                    self.paths[at] = made.path.clone();
                }
            }
            _ => {}
        }
        if self.paths.is_empty() {
            self.paths.push(self.own.clone());
        }
    }
}

/// A change that owns what it speaks of.
struct Made {
    opcode: Opcode,
    path: String,
    data: Option<Vec<u8>>,
    acl: usize,
    mode: CreateMode,
    version: i32,
}

/// Number of lists in [`Made::acl`].
const ACLS: usize = 5;

impl Made {
    fn of(opcode: Opcode) -> Made {
        Made { opcode, path: String::new(), data: None, acl: 0, mode: CreateMode::Persistent, version: -1 }
    }

    fn acl(&self) -> Vec<AclRef<'_>> {
        let own = AclRef { perms: 31, id: IdRef { scheme: "auth", id: "" } };
        let local = AclRef { perms: 31, id: IdRef { scheme: "ip", id: "127.0.0.0/8" } };
        match self.acl {
            0 => vec![open(31)],
            1 => vec![own],
            2 => vec![local, open(1)],
            3 => vec![own, open(15)],
            _ => vec![open(31), local],
        }
    }

    fn change(&self) -> Change<'_> {
        let (path, data, version) = (self.path.as_str(), self.data.as_deref(), self.version);
        let op = match self.opcode {
            Opcode::Delete => Op::Delete { path, version },
            Opcode::SetData => Op::SetData { path, data, version },
            Opcode::SetAcl => Op::SetAcl { path, acl: self.acl(), version },
            Opcode::Check => Op::Check { path, version },
            _ => {
                let ttl =
                    if matches!(self.mode, CreateMode::Ttl | CreateMode::TtlSequential) { TTL_MS } else { 0 };
                Op::Create { path, data, acl: self.acl(), mode: self.mode, ttl }
            }
        };
        Change { opcode: self.opcode, op }
    }
}

pub(super) fn connect(at: SocketAddr, timeout_ms: i32) -> Outcome<Connection> {
    let mut connection = Connection::connect(at, &Options { timeout_ms, ..Options::default() })?;
    connection.auth("digest", b"writer:secret")?;
    Ok(connection)
}
