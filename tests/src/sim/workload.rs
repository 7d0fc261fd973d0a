//! What clients ask: requests of every kind over a small set of paths, so that they meet.

use super::check::conversation::ADMINISTRATOR;
use super::{Dice, setup};
use warren_server::identity;
use warren_storage::{Acl, CreateMode, MemberRole, Members, Op, perms};
use warren_transport::request::{AddWatchMode, WatcherType};
use warren_transport::{Change, Opcode, Read, Request};

/// Paths that are created, set, deleted, read and watched.
const PATHS: [&str; 12] = [
    "/a",
    "/b",
    "/c",
    "/a/x",
    "/a/y",
    "/b/x",
    "/b/x/1",
    "/k",
    "/k/m",
    "/t",
    "/zookeeper/quota/a",
    "/zookeeper/quota/a/zookeeper_limits",
];
/// What sequential names begin with.
const PREFIXES: [&str; 4] = ["/a/s-", "/b/", "/k/c-", "/s-"];
/// Strings that are no paths.
const NO_PATHS: [&str; 5] = ["", "a", "/a//x", "/a/", "/a/../b"];
/// Credentials of the digest scheme.
const USERS: [&str; 2] = ["bob:pw", "eve:pw"];

/// A request, as the owner of its parts.
#[derive(Debug)]
pub(super) enum Asked {
    /// In order of [`Request`].
    Change(Opcode, OwnedOp),
    /// All or nothing.
    Multi(Vec<(Opcode, OwnedOp)>),
    /// Reads in one.
    MultiRead(Vec<(bool, &'static str)>),
    /// What borrows nothing that is made up here.
    Plain(Request<'static>),
    /// A change of the membership.
    Reconfig { joining: Option<String>, leaving: Option<String>, members: Option<String>, config_id: i64 },
    /// Bytes behind a header with this type.
    Raw(i32, Vec<u8>),
}

/// An operation that owns its data.
#[derive(Debug)]
pub(super) struct OwnedOp {
    kind: Opcode,
    path: &'static str,
    data: Option<Vec<u8>>,
    acl: Vec<Acl>,
    mode: CreateMode,
    ttl: i64,
    version: i32,
}

impl OwnedOp {
    fn op(&self) -> Op<'_> {
        let (path, version, data) = (self.path, self.version, self.data.as_deref());
        let acl = || self.acl.iter().map(Acl::as_ref).collect();
        match self.kind {
            Opcode::Delete => Op::Delete { path, version },
            Opcode::SetData => Op::SetData { path, data, version },
            Opcode::SetAcl => Op::SetAcl { path, acl: acl(), version },
            Opcode::Check => Op::Check { path, version },
            _ => Op::Create { path, data, acl: acl(), mode: self.mode, ttl: self.ttl },
        }
    }
}

impl Asked {
    /// Append the packet.
    pub(super) fn encode(&self, xid: i32, out: &mut Vec<u8>) {
        match self {
            Asked::Change(opcode, op) => {
                Request::Change(Change { opcode: *opcode, op: op.op() }).encode(xid, out);
            }
            Asked::Multi(ops) => {
                let changes = ops.iter().map(|(opcode, op)| Change { opcode: *opcode, op: op.op() });
                Request::Multi(changes.collect()).encode(xid, out);
            }
            Asked::MultiRead(reads) => {
                let reads = reads.iter().map(|(data, path)| match data {
                    true => Read::GetData { path },
                    false => Read::GetChildren { path },
                });
                Request::MultiRead(reads.collect()).encode(xid, out);
            }
            Asked::Plain(request) => request.encode(xid, out),
            Asked::Reconfig { joining, leaving, members, config_id } => {
                let (joining, leaving, members) =
                    (joining.as_deref(), leaving.as_deref(), members.as_deref());
                Request::Reconfig { joining, leaving, members, config_id: *config_id }.encode(xid, out);
            }
            Asked::Raw(opcode, body) => {
                out.extend_from_slice(&(8 + body.len() as u32).to_be_bytes());
                out.extend_from_slice(&xid.to_be_bytes());
                out.extend_from_slice(&opcode.to_be_bytes());
                out.extend_from_slice(body);
            }
        }
    }
}

/// Draws one client's requests.
#[derive(Debug)]
pub(super) struct Workload {
    client: usize,
    payloads: u64,
}

impl Workload {
    /// Of this client.
    pub(super) fn new(client: usize) -> Workload {
        Workload { client, payloads: 0 }
    }

    /// Credentials.
    pub(super) fn auth(dice: &mut Dice) -> Request<'static> {
        Request::Auth { kind: 0, scheme: "digest", auth: Some(dice.pick(&USERS).as_bytes()) }
    }

    /// Credentials that may change the membership.
    pub(super) fn administrator() -> Request<'static> {
        Request::Auth { kind: 0, scheme: "digest", auth: Some(ADMINISTRATOR.as_bytes()) }
    }

    /// A change of the membership, of so many servers as there may be. Now and then it goes on from a version that is not the
    /// newest, or makes no sense.
    pub(super) fn reconfig(dice: &mut Dice, table: &Members, hosts: usize) -> Asked {
        let config_id = *dice.pick(&[-1, -1, table.version, table.version, table.version - 1]);
        let any = |dice: &mut Dice| dice.between(1, hosts as u64) as u8;
        let line = |dice: &mut Dice, id: u8| {
            let role = if dice.chance(300) { MemberRole::Observer } else { MemberRole::Voter };
            setup::line(id, role)
        };
        if dice.chance(300) {
            let mut ids: Vec<u8> = table.servers.iter().map(|member| member.id).collect();
            ids.retain(|_| dice.chance(800));
            ids.extend((0..dice.below(2)).map(|_| any(dice)));
            let lines: Vec<String> = ids.into_iter().map(|id| line(dice, id)).collect();
            let members = Some(lines.join(if dice.chance(500) { "," } else { "\n" }));
            return Asked::Reconfig { joining: None, leaving: None, members, config_id };
        }
        let leaving = dice.chance(500).then(|| any(dice).to_string());
        let joining = (leaving.is_none() || dice.chance(500)).then(|| {
            let id = any(dice);
            line(dice, id)
        });
        let joining =
            joining.filter(|_| !dice.chance(20)).or_else(|| leaving.is_none().then(|| "server".to_owned()));
        Asked::Reconfig { joining, leaving, members: None, config_id }
    }

    /// Bytes that nobody wrote before.
    fn payload(&mut self, dice: &mut Dice) -> Option<Vec<u8>> {
        if dice.chance(50) {
            return None;
        }
        self.payloads += 1;
        let mut data = format!("#{}.{}", self.client, self.payloads).into_bytes();
        let padding = if dice.chance(100) { dice.below(3_000) } else { dice.below(40) };
        data.resize(data.len() + padding as usize, b'.');
        Some(data)
    }

    fn acl(dice: &mut Dice) -> Vec<Acl> {
        match dice.below(20) {
            0 => vec![Acl::new(perms::ALL, "digest", identity::digest_of(USERS[0]))],
            1 => vec![Acl::new(perms::ALL, "auth", "")],
            2 => vec![
                Acl::new(perms::READ, "world", "anyone"),
                Acl::new(perms::ALL, "digest", identity::digest_of(USERS[1])),
            ],
            3 => vec![Acl::new(perms::ALL, "ip", "10.0.0.0/30")],
            4 => vec![],
            _ => Acl::open(),
        }
    }

    fn path(dice: &mut Dice) -> &'static str {
        let from: &[&str] = if dice.chance(20) { &NO_PATHS } else { &PATHS };
        dice.pick::<&str>(from)
    }

    fn version(dice: &mut Dice) -> i32 {
        if dice.chance(800) { -1 } else { dice.below(3) as i32 }
    }

    fn create(&mut self, dice: &mut Dice) -> (Opcode, OwnedOp) {
        let path = Self::path(dice);
        if path.starts_with("/zookeeper") {
            let limits = path
                .ends_with("limits")
                .then(|| b"count=4,bytes=-1=;byteHardLimit=-1;countHardLimit=6".to_vec());
            return self.create_of(Opcode::Create, path, limits, Acl::open(), CreateMode::Persistent);
        }
        let (data, acl) = (self.payload(dice), Self::acl(dice));
        let opcode = *dice.pick(&[Opcode::Create, Opcode::Create2]);
        match dice.below(8) {
            0 | 1 => self.create_of(opcode, path, data, acl, CreateMode::Ephemeral),
            2 => self.create_of(
                opcode,
                dice.pick::<&str>(&PREFIXES),
                data,
                acl,
                CreateMode::PersistentSequential,
            ),
            3 => self.create_of(
                opcode,
                dice.pick::<&str>(&PREFIXES),
                data,
                acl,
                CreateMode::EphemeralSequential,
            ),
            4 => self.create_of(Opcode::CreateContainer, "/k", data, acl, CreateMode::Container),
            5 if dice.chance(500) => self.create_of(Opcode::CreateTtl, path, data, acl, CreateMode::Ttl),
            _ => self.create_of(opcode, path, data, acl, CreateMode::Persistent),
        }
    }

    fn create_of(
        &mut self,
        opcode: Opcode,
        path: &'static str,
        data: Option<Vec<u8>>,
        acl: Vec<Acl>,
        mode: CreateMode,
    ) -> (Opcode, OwnedOp) {
        (opcode, OwnedOp { kind: opcode, path, data, acl, mode, ttl: 300, version: -1 })
    }

    /// Any change that may stand alone or in a multi.
    fn change(&mut self, dice: &mut Dice) -> (Opcode, OwnedOp) {
        let kind = match dice.below(20) {
            0..=8 => return self.create(dice),
            9..=14 => Opcode::SetData,
            _ => Opcode::Delete,
        };
        let path = Self::path(dice);
        let data = if kind == Opcode::SetData { self.payload(dice) } else { None };
        let version = Self::version(dice);
        (kind, OwnedOp { kind, path, data, acl: Vec::new(), mode: CreateMode::Persistent, ttl: 0, version })
    }

    fn check(&mut self, dice: &mut Dice) -> (Opcode, OwnedOp) {
        let (_, op) = self.change(dice);
        (Opcode::Check, OwnedOp { kind: Opcode::Check, data: None, version: Self::version(dice), ..op })
    }

    /// One request.
    pub(super) fn draw(&mut self, dice: &mut Dice) -> Asked {
        match dice.below(1_000) {
            0..=399 => {
                let (opcode, op) = self.change(dice);
                Asked::Change(opcode, op)
            }
            400..=419 => {
                let (_, op) = self.change(dice);
                let op = OwnedOp { kind: Opcode::SetAcl, data: None, acl: Self::acl(dice), ..op };
                Asked::Change(Opcode::SetAcl, op)
            }
            420..=489 => {
                let count = dice.between(0, 5);
                let mut ops = Vec::new();
                for _ in 0..count {
                    ops.push(if dice.chance(200) { self.check(dice) } else { self.change(dice) });
                }
                Asked::Multi(ops)
            }
            490..=499 => {
                let mut stats = self.create_of(
                    Opcode::Create,
                    "/zookeeper/quota/a/zookeeper_stats",
                    Some(b"count=0,bytes=0".to_vec()),
                    Acl::open(),
                    CreateMode::Persistent,
                );
                stats.1.ttl = 0;
                Asked::Change(stats.0, stats.1)
            }
            500..=529 => {
                let count = dice.between(0, 4);
                Asked::MultiRead((0..count).map(|_| (dice.chance(500), Self::path(dice))).collect())
            }
            530..=839 => Asked::Plain(Self::read(dice)),
            840..=889 => Asked::Plain(Request::Sync { path: Self::path(dice) }),
            890..=969 => Asked::Plain(Self::watching(dice)),
            970..=989 => Asked::Plain(Self::auth(dice)),
            990..=995 => Asked::Raw(Opcode::SetData.wire(), vec![0, 0, 0, 9, b'/']),
            996 => Asked::Raw(99, Vec::new()),
            _ => {
                let (joining, leaving, members, config_id) = (None, Some("1"), None, -1);
                Asked::Plain(Request::Reconfig { joining, leaving, members, config_id })
            }
        }
    }

    fn read(dice: &mut Dice) -> Request<'static> {
        let (path, watch) = (Self::path(dice), dice.chance(300));
        match dice.below(9) {
            0..=2 => Request::GetData { path, watch },
            3 | 4 => Request::Exists { path, watch },
            5 => Request::GetChildren { path: if dice.chance(300) { "/" } else { path }, watch },
            6 => Request::GetChildren2 { path, watch },
            7 => Request::GetAcl { path },
            _ => match dice.below(3) {
                0 => Request::GetAllChildrenNumber { path },
                1 => Request::GetEphemerals { prefix: Some("/a") },
                _ => Request::WhoAmI,
            },
        }
    }

    fn watching(dice: &mut Dice) -> Request<'static> {
        let path = if dice.chance(200) { "/" } else { Self::path(dice) };
        let watcher = *dice.pick(&[
            WatcherType::Any,
            WatcherType::Data,
            WatcherType::Children,
            WatcherType::Persistent,
            WatcherType::PersistentRecursive,
        ]);
        match dice.below(4) {
            0 => Request::CheckWatches { path, watcher },
            1 => Request::RemoveWatches { path, watcher },
            _ => {
                let mode = *dice.pick(&[AddWatchMode::Persistent, AddWatchMode::PersistentRecursive]);
                Request::AddWatch { path, mode }
            }
        }
    }
}
