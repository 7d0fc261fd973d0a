//! The tree against a naive model: one map, no layers, no disk, and every sum counted afresh.
//!
//! Checkpoints are frozen, written and installed at random moments, crashes reopen and replay, budgets are tiny;
//! none of it may be seen in a reply, a change or a read.

use super::*;
use crate::command::SweepKind;
use crate::{Code, Kind, SessionRow, Stat, ZPath, perms};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug)]
struct ModelNode {
    czxid: i64,
    mzxid: i64,
    pzxid: i64,
    ctime: i64,
    mtime: i64,
    version: i32,
    creates: i32,
    aversion: i32,
    owner: i64,
    acl: Vec<Acl>,
    data: Option<Vec<u8>>,
}

#[derive(Clone)]
struct Model {
    nodes: BTreeMap<String, ModelNode>,
    sessions: BTreeMap<SessionId, SessionRow>,
    zxid: i64,
}

/// Which change, to which path, under which ACLs.
type Seen = (ChangeKind, String, Vec<Acl>, Option<Vec<Acl>>);

impl Model {
    fn fresh() -> Model {
        let node = |acl, aversion| ModelNode {
            czxid: 0,
            mzxid: 0,
            pzxid: 0,
            ctime: 0,
            mtime: 0,
            version: 0,
            creates: 0,
            aversion,
            owner: 0,
            acl,
            data: Some(Vec::new()),
        };
        let nodes = [
            ("/", node(Acl::open(), 0)),
            ("/zookeeper", node(Acl::open(), 0)),
            ("/zookeeper/quota", node(Acl::open(), 0)),
            ("/zookeeper/config", node(Acl::read_only(), -1)),
        ];
        let nodes = nodes.into_iter().map(|(path, node)| (path.to_owned(), node)).collect();
        Model { nodes, sessions: BTreeMap::new(), zxid: 0 }
    }

    fn children(&self, path: &str) -> Vec<String> {
        let prefix = if path == "/" { "/".to_owned() } else { format!("{path}/") };
        let names = self.nodes.keys().filter_map(|path| path.strip_prefix(&prefix));
        names.filter(|name| !name.is_empty() && !name.contains('/')).map(str::to_owned).collect()
    }

    fn stat(&self, path: &str) -> Stat {
        let node = &self.nodes[path];
        let children = self.children(path).len() as i32;
        Stat {
            czxid: node.czxid,
            mzxid: node.mzxid,
            ctime: node.ctime,
            mtime: node.mtime,
            version: node.version,
            cversion: 2 * node.creates - children,
            aversion: node.aversion,
            ephemeral_owner: Kind::from_owner(node.owner).client_owner(),
            data_length: node.data.as_ref().map_or(0, Vec::len) as i32,
            num_children: children,
            pzxid: node.pzxid,
        }
    }

    fn parent(path: &str) -> &str {
        match path.rfind('/') {
            Some(0) => "/",
            Some(at) => &path[..at],
            None => unreachable!("the model is given absolute paths"),
        }
    }

    fn may(&self, path: &str, perm: i32) -> Result<(), Code> {
        let open = |acl: &Acl| acl.perms & perm != 0;
        if self.nodes[path].acl.iter().any(open) { Ok(()) } else { Err(Code::NoAuth) }
    }

    fn op(
        &mut self,
        op: &Op<'_>,
        time: i64,
        session: Option<SessionId>,
        seen: &mut Vec<Seen>,
    ) -> Result<Reply, Code> {
        let zxid = self.zxid;
        let version_is =
            |is: i32, want: i32| if want == -1 || want == is { Ok(()) } else { Err(Code::BadVersion) };
        match op {
            Op::Create { path, data, acl, mode, ttl } => {
                let owner = match mode {
                    CreateMode::Persistent | CreateMode::PersistentSequential => Kind::Persistent,
                    CreateMode::Container => Kind::Container,
                    CreateMode::Ttl | CreateMode::TtlSequential => Kind::Ttl(*ttl),
                    CreateMode::Ephemeral | CreateMode::EphemeralSequential => {
                        Kind::Ephemeral(session.ok_or(Code::SessionExpired)?)
                    }
                };
                let parent = Self::parent(path).to_owned();
                if !self.nodes.contains_key(&parent) {
                    return Err(Code::NoNode);
                }
                self.may(&parent, perms::CREATE)?;
                let number = if mode.is_sequential() {
                    format!("{:010}", self.nodes[&parent].creates)
                } else {
                    String::new()
                };
                let path = format!("{path}{number}");
                if self.nodes.contains_key(&path) {
                    return Err(Code::NodeExists);
                }
                if self.stat(&parent).ephemeral_owner != 0 {
                    return Err(Code::NoChildrenForEphemerals);
                }
                let acl: Vec<Acl> = acl.iter().map(|acl| acl.to_acl()).collect();
                let parent_node = self.nodes.get_mut(&parent).unwrap();
                parent_node.creates += 1;
                parent_node.pzxid = zxid;
                seen.push((ChangeKind::Created, path.clone(), acl.clone(), Some(parent_node.acl.clone())));
                let node = ModelNode {
                    czxid: zxid,
                    mzxid: zxid,
                    pzxid: zxid,
                    ctime: time,
                    mtime: time,
                    version: 0,
                    creates: 0,
                    aversion: 0,
                    owner: owner.owner(),
                    acl,
                    data: data.map(<[u8]>::to_vec),
                };
                self.nodes.insert(path.clone(), node);
                Ok(Reply::Created { stat: self.stat(&path), path: ZPath::parse(&path).unwrap() })
            }
            Op::Delete { path, version } => {
                if ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"].contains(path) {
                    return Err(Code::BadArguments);
                }
                if !self.nodes.contains_key(Self::parent(path)) {
                    return Err(Code::NoNode);
                }
                self.may(Self::parent(path), perms::DELETE)?;
                let node = self.nodes.get(*path).ok_or(Code::NoNode)?;
                version_is(node.version, *version)?;
                if !self.children(path).is_empty() {
                    return Err(Code::NotEmpty);
                }
                self.remove(path, seen);
                Ok(Reply::Deleted)
            }
            Op::SetData { path, data, version } => {
                let node = self.nodes.get(*path).ok_or(Code::NoNode)?;
                self.may(path, perms::WRITE)?;
                version_is(node.version, *version)?;
                let node = self.nodes.get_mut(*path).unwrap();
                node.version += 1;
                node.mzxid = zxid;
                node.mtime = time;
                node.data = data.map(<[u8]>::to_vec);
                seen.push((ChangeKind::DataChanged, (*path).to_owned(), node.acl.clone(), None));
                Ok(Reply::Stat(self.stat(path)))
            }
            Op::SetAcl { path, acl, version } => {
                let node = self.nodes.get(*path).ok_or(Code::NoNode)?;
                self.may(path, perms::ADMIN)?;
                version_is(node.aversion, *version)?;
                let node = self.nodes.get_mut(*path).unwrap();
                node.aversion += 1;
                node.acl = acl.iter().map(|acl| acl.to_acl()).collect();
                Ok(Reply::Stat(self.stat(path)))
            }
            Op::Check { path, version } => {
                let node = self.nodes.get(*path).ok_or(Code::NoNode)?;
                self.may(path, perms::READ)?;
                version_is(node.version, *version)?;
                Ok(Reply::Checked)
            }
        }
    }

    fn remove(&mut self, path: &str, seen: &mut Vec<Seen>) {
        let node = self.nodes.remove(path).unwrap();
        let parent = self.nodes.get_mut(Self::parent(path)).unwrap();
        parent.pzxid = self.zxid;
        seen.push((ChangeKind::Deleted, path.to_owned(), node.acl, Some(parent.acl.clone())));
    }

    fn close(&mut self, session: SessionId, seen: &mut Vec<Seen>) -> Outcome {
        let owned = |(path, node): (&String, &ModelNode)| (node.owner == session).then(|| path.clone());
        for path in self.nodes.iter().filter_map(owned).collect::<Vec<_>>() {
            self.remove(&path, seen);
        }
        self.sessions.remove(&session);
        Outcome::Done(Reply::SessionClosed { session })
    }

    fn apply(&mut self, time: i64, logged: &Logged<'_>) -> (Option<i64>, Outcome, Vec<Seen>) {
        let dropped = (None, Outcome::Dropped, Vec::new());
        if let Some(tag) = logged.tag {
            let Some(row) = self.sessions.get_mut(&tag.session) else {
                return (None, Outcome::Failed(Code::SessionExpired), Vec::new());
            };
            if tag.generation != row.generation || tag.sequence != row.last_sequence + 1 {
                return dropped;
            }
            row.last_sequence += 1;
        }
        let session = logged.tag.map(|tag| tag.session);
        let mut seen = Vec::new();
        match &logged.command {
            Command::Expire { session, generation, epoch }
                if *epoch != 0
                    || self.sessions.get(session).is_none_or(|row| row.generation != *generation) =>
            {
                return dropped;
            }
            Command::MoveSession { session, generation, password, .. }
                if self
                    .sessions
                    .get(session)
                    .is_some_and(|row| row.password == *password && row.generation != *generation) =>
            {
                return dropped;
            }
            Command::Sweep { path, czxid, pzxid, kind } => {
                let due = self.nodes.get(*path).is_some_and(|node| {
                    let kind = match (kind, Kind::from_owner(node.owner)) {
                        (SweepKind::Container, Kind::Container) => true,
                        (SweepKind::Ttl, Kind::Ttl(ttl)) => time - node.mtime > ttl,
                        _ => false,
                    };
                    kind && node.czxid == *czxid && node.pzxid == *pzxid
                });
                if !due || !self.children(path).is_empty() {
                    return dropped;
                }
            }
            _ => {}
        }
        self.zxid += 1;
        let outcome = match &logged.command {
            Command::Single(op) => match self.op(op, time, session, &mut seen) {
                Ok(reply) => Outcome::Done(reply),
                Err(code) => Outcome::Failed(code),
            },
            Command::Multi(ops) => {
                let before = self.clone();
                let mut replies = Vec::new();
                let mut failed = None;
                for (at, op) in ops.iter().enumerate() {
                    match self.op(op, time, session, &mut seen) {
                        Ok(reply) => replies.push(reply),
                        Err(code) => {
                            failed = Some(Reply::MultiFailed { at, code });
                            break;
                        }
                    }
                }
                if failed.is_some() {
                    *self = before;
                    seen.clear();
                }
                Outcome::Done(failed.unwrap_or(Reply::Multi(replies)))
            }
            Command::CreateSession { session, timeout_ms, password, owner, .. } => {
                if self.sessions.contains_key(session) {
                    Outcome::Failed(Code::NodeExists)
                } else {
                    let row = SessionRow {
                        timeout_ms: *timeout_ms,
                        password: *password,
                        generation: 1,
                        owner: *owner,
                        last_sequence: 0,
                    };
                    self.sessions.insert(*session, row);
                    Outcome::Done(Reply::SessionCreated { session: *session, generation: 1 })
                }
            }
            Command::MoveSession { session, password, owner, timeout_ms, .. } => {
                match self.sessions.get_mut(session) {
                    Some(row) if row.password == *password => {
                        row.generation += 1;
                        row.last_sequence = 0;
                        row.owner = *owner;
                        row.timeout_ms = *timeout_ms;
                        Outcome::Done(Reply::SessionMoved {
                            session: *session,
                            generation: row.generation,
                            timeout_ms: *timeout_ms,
                        })
                    }
                    _ => Outcome::Failed(Code::SessionExpired),
                }
            }
            Command::CloseSession => self.close(session.unwrap(), &mut seen),
            Command::Expire { session, .. } => self.close(*session, &mut seen),
            Command::Sweep { path, .. } => {
                self.remove(path, &mut seen);
                Outcome::Done(Reply::Swept)
            }
            Command::Reconfigure { .. } => unreachable!("the membership is not the model's"),
        };
        (Some(self.zxid), outcome, seen)
    }

    /// ZooKeeper's tree digest, from scratch.
    fn digest(&self) -> u64 {
        let node = |(path, node): (&String, &ModelNode)| {
            if path.starts_with("/zookeeper/") {
                return 0;
            }
            let mut bytes = if path == "/" { Vec::new() } else { path.as_bytes().to_vec() };
            bytes.extend(node.data.iter().flatten());
            for field in [node.czxid, node.mzxid, node.pzxid, node.ctime, node.mtime] {
                bytes.extend(field.to_be_bytes());
            }
            for field in [node.version, node.creates, node.aversion] {
                bytes.extend(field.to_be_bytes());
            }
            bytes.extend(node.owner.to_be_bytes());
            crc32fast::hash(&bytes) as u64
        };
        self.nodes.iter().map(node).sum()
    }
}

fn agree(model: &Model, tree: &Tree) {
    let snapshot = tree.snapshot();
    agree_snapshot(model, &snapshot);
    let sessions: BTreeMap<_, _> = tree.sessions().map(|(id, row)| (id, row.clone())).collect();
    assert_eq!(sessions, model.sessions);
    assert_eq!(tree.zxid().wire(), model.zxid);
}

fn agree_snapshot(model: &Model, snapshot: &Snapshot) {
    assert_eq!(snapshot.digest().znodes, model.digest());
    assert_eq!(snapshot.node_count(), model.nodes.len() as u64 + 1);
    let bytes = model
        .nodes
        .iter()
        .map(|(path, node)| path.encode_utf16().count() + node.data.as_ref().map_or(0, Vec::len));
    assert_eq!(snapshot.data_bytes(), bytes.sum::<usize>() as u64);
    let mut lists: BTreeSet<Vec<Acl>> = model.nodes.values().map(|node| node.acl.clone()).collect();
    lists.insert(Acl::open());
    assert_eq!(snapshot.acl_count(), lists.len());
    let mut timed = Vec::new();
    let mut after: Option<String> = None;
    // Two at a time, to try going on.
    loop {
        let mut some = Vec::new();
        let take = &mut |path: &str, _: &Znode| {
            some.push(path.to_owned());
            some.len() < 2
        };
        snapshot.timed(after.as_deref(), take).unwrap();
        after = some.last().cloned();
        timed.extend(some);
        if after.is_none() {
            break;
        }
    }
    let is_timed = |node: &ModelNode| matches!(Kind::from_owner(node.owner), Kind::Container | Kind::Ttl(_));
    let expected: Vec<_> =
        model.nodes.iter().filter(|(_, node)| is_timed(node)).map(|(path, _)| path).collect();
    assert_eq!(timed.iter().collect::<Vec<_>>(), expected);
    for session in SESSIONS {
        let mut found = Vec::new();
        snapshot
            .ephemerals(session, "/", &mut |path| {
                found.push(path.to_owned());
                true
            })
            .unwrap();
        let expected: Vec<_> = model.nodes.iter().filter(|(_, node)| node.owner == session).collect();
        assert_eq!(
            found.iter().collect::<Vec<_>>(),
            expected.iter().map(|(path, _)| *path).collect::<Vec<_>>()
        );
    }
    for (path, expected) in &model.nodes {
        let node = snapshot.node(path).unwrap().unwrap_or_else(|| panic!("{path} is missing"));
        assert_eq!(node.stat(), model.stat(path), "{path}");
        assert_eq!(node.data.as_deref(), expected.data.as_deref(), "{path}");
        assert_eq!(&*snapshot.acl(node.acl), expected.acl.as_slice(), "{path}");
        let mut children = Vec::new();
        snapshot
            .children(path, &mut |name| {
                children.push(name.to_owned());
                true
            })
            .unwrap();
        assert_eq!(children, model.children(path), "{path}");
        let below = model.nodes.keys().filter(|other| path == "/" || other.starts_with(&format!("{path}/")));
        let below = below.filter(|other| *other != "/").count() as u64;
        assert_eq!(snapshot.all_children_number(path).unwrap(), below, "{path}");
    }
    for path in PATHS {
        assert_eq!(snapshot.node(path).unwrap().is_some(), model.nodes.contains_key(*path), "{path}");
    }
}

const SESSIONS: [SessionId; 3] = [1, i64::MIN + 2, 0x0100_0000_0000_0003];
/// `!` sorts before `/` and `0` behind it: both once were traps for ordered keys.
const PATHS: &[&str] = &[
    "/a",
    "/b",
    "/a/a",
    "/a/b",
    "/a!",
    "/a0",
    "/a!/a",
    "/a/a/a",
    "/a/a/b",
    "/b/ü",
    "/zookeeper/a",
    "/zookeeper",
];

/// One step of a test; commands are made from it as late as possible, as they borrow.
#[derive(Clone, Debug)]
enum Step {
    Command {
        session: Option<usize>,
        skew: i8,
        what: What,
    },
    Freeze,
    Write,
    Install,
    /// Reopen from the last durable checkpoint and replay.
    Crash,
    /// Keep a snapshot, to be compared at the end.
    Keep,
}

#[derive(Clone, Debug)]
enum What {
    Single(OpStep),
    Multi(Vec<OpStep>),
    Create(usize),
    Move { session: usize, right: bool, late: bool },
    Close,
    Expire(usize, u32),
    Sweep(usize, bool),
}

#[derive(Clone, Debug)]
struct OpStep {
    kind: u8,
    path: usize,
    version: i32,
    mode: i32,
    data: Option<Vec<u8>>,
    acl: u8,
}

fn op_step() -> impl Strategy<Value = OpStep> {
    let data = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40));
    (0..10u8, 0..PATHS.len(), prop_oneof![4 => Just(-1), 1 => 0..3], 0..7i32, data, 0..8u8)
        .prop_map(|(kind, path, version, mode, data, acl)| OpStep { kind, path, version, mode, data, acl })
}

fn step() -> impl Strategy<Value = Step> {
    let what = prop_oneof![
        12 => op_step().prop_map(What::Single),
        3 => proptest::collection::vec(op_step(), 0..4).prop_map(What::Multi),
        2 => (0..SESSIONS.len()).prop_map(What::Create),
        1 => (0..SESSIONS.len(), any::<bool>(), any::<bool>())
            .prop_map(|(session, right, late)| What::Move { session, right, late }),
        1 => Just(What::Close),
        1 => (0..SESSIONS.len(), 0..3u32).prop_map(|(session, generation)| What::Expire(session, generation)),
        2 => (0..PATHS.len(), any::<bool>()).prop_map(|(path, container)| What::Sweep(path, container)),
    ];
    let command = (proptest::option::of(0..SESSIONS.len()), prop_oneof![8 => Just(0i8), 1 => -1..3i8], what)
        .prop_map(|(session, skew, what)| Step::Command { session, skew, what });
    prop_oneof![
        20 => command,
        2 => Just(Step::Freeze),
        2 => Just(Step::Write),
        2 => Just(Step::Install),
        1 => Just(Step::Crash),
        1 => Just(Step::Keep),
    ]
}

const READ_ONLY: AclRef<'static> = AclRef { perms: 1, id: IdRef { scheme: "world", id: "anyone" } };
const NO_READ: AclRef<'static> = AclRef { perms: 30, id: IdRef { scheme: "world", id: "anyone" } };

fn op(step: &OpStep) -> Op<'_> {
    let (path, version) = (PATHS[step.path], step.version);
    let acl = vec![match step.acl {
        0 => READ_ONLY,
        1 => NO_READ,
        _ => OPEN,
    }];
    match step.kind {
        0..=3 => {
            let mode = CreateMode::from_flags(step.mode).unwrap();
            Op::Create { path, data: step.data.as_deref(), acl, mode, ttl: 3 }
        }
        4..=5 => Op::Delete { path, version },
        6..=7 => Op::SetData { path, data: step.data.as_deref(), version },
        8 => Op::SetAcl { path, acl, version },
        _ => Op::Check { path, version },
    }
}

/// What the step asks, given what the model is now.
fn logged<'a>(model: &Model, session: Option<usize>, skew: i8, what: &'a What) -> Logged<'a> {
    let session = session.map(|at| SESSIONS[at]);
    let password = [1; 16];
    let mut tag = session.map(|session| {
        let (generation, last) =
            model.sessions.get(&session).map_or((1, 0), |row| (row.generation, row.last_sequence));
        Tag { session, generation, sequence: (last + 1).saturating_add_signed(skew as i64) }
    });
    let command = match what {
        What::Single(step) => Command::Single(op(step)),
        What::Multi(steps) => Command::Multi(steps.iter().map(op).collect()),
        What::Close if tag.is_some() => Command::CloseSession,
        other => {
            tag = None;
            match *other {
                What::Create(at) => Command::CreateSession {
                    session: SESSIONS[at],
                    timeout_ms: 9,
                    password,
                    owner: 1,
                    incarnation: 1,
                    request: 1,
                },
                What::Move { session, right, late } => Command::MoveSession {
                    session: SESSIONS[session],
                    generation: model
                        .sessions
                        .get(&SESSIONS[session])
                        .map_or(1, |row| row.generation - u32::from(late)),
                    password: if right { password } else { [2; 16] },
                    owner: 2,
                    incarnation: 1,
                    request: 1,
                    timeout_ms: 8,
                },
                What::Expire(at, generation) => {
                    Command::Expire { session: SESSIONS[at], generation, epoch: u32::from(generation == 2) }
                }
                What::Sweep(at, container) => {
                    let path = PATHS[at];
                    let (czxid, pzxid) =
                        model.nodes.get(path).map_or((0, 0), |node| (node.czxid, node.pzxid));
                    let kind = if container { SweepKind::Container } else { SweepKind::Ttl };
                    Command::Sweep { path, czxid, pzxid, kind }
                }
                _ => Command::Single(Op::Check { path: "/", version: -1 }),
            }
        }
    };
    Logged { tag, ids: Vec::new(), command }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn layers_cannot_be_seen(
        memory_bytes in prop_oneof![Just(0u64), Just(60_000), Just(1 << 20)],
        steps in proptest::collection::vec(step(), 1..160),
    ) {
        let disk = MemoryDisk::default();
        let mut tree = Tree::open(disk.shared(), options(memory_bytes)).unwrap();
        let mut model = Model::fresh();
        let mut log: Vec<(i64, Vec<u8>)> = Vec::new();
        let mut frozen: Option<Checkpoint> = None;
        let mut written: Option<Written> = None;
        let mut kept: Vec<(Model, Snapshot)> = Vec::new();

        for step in &steps {
            match step {
                Step::Command { session, skew, what } => {
                    let logged = logged(&model, *session, *skew, what);
                    let time = log.len() as i64 * 2;
                    let (zxid, outcome, seen) = model.apply(time, &logged);
                    let applied = tree.apply(time, &Rules::default(), &logged).unwrap();
                    prop_assert_eq!(applied.outcome, outcome, "{:?}", logged);
                    prop_assert_eq!(applied.zxid.map(|zxid| zxid.wire()), zxid);
                    let changes: Vec<Seen> = applied.changes.iter().map(|change| {
                        let parent_acl = change.parent_acl.as_ref().map(|acl| acl.to_vec());
                        (change.kind, change.path.to_string(), change.acl.to_vec(), parent_acl)
                    }).collect();
                    prop_assert_eq!(changes, seen);
                    log.push((time, logged.encode()));
                    tree.advance(log.len() as u64, 1);
                }
                Step::Freeze => frozen = frozen.or_else(|| tree.freeze()),
                Step::Write => {
                    if let Some(checkpoint) = frozen.take() {
                        written = Some(checkpoint.write().unwrap());
                    }
                }
                Step::Install => {
                    if let Some(written) = written.take() {
                        drop(tree.install(written));
                    }
                }
                Step::Crash => {
                    // Readers go with the process, and with them what keeps the file open.
                    (frozen, written) = (None, None);
                    kept.clear();
                    drop(tree);
                    tree = Tree::open(disk.after_power_loss(|| true).shared(), options(memory_bytes)).unwrap();
                    let from = tree.position().index as usize;
                    for (at, (time, bytes)) in log.iter().enumerate().skip(from) {
                        tree.apply(*time, &Rules::default(), &Logged::decode(bytes).unwrap()).unwrap();
                        tree.advance(at as u64 + 1, 1);
                    }
                    // The disk that is written from now on is the one that was crashed.
                    drop(tree);
                    tree = Tree::open(disk.shared(), options(memory_bytes)).unwrap();
                    let from = tree.position().index as usize;
                    for (at, (time, bytes)) in log.iter().enumerate().skip(from) {
                        tree.apply(*time, &Rules::default(), &Logged::decode(bytes).unwrap()).unwrap();
                        tree.advance(at as u64 + 1, 1);
                    }
                }
                Step::Keep => kept.push((model.clone(), tree.snapshot())),
            }
            agree(&model, &tree);
        }
        for (model, snapshot) in &kept {
            agree_snapshot(model, snapshot);
        }
        if let Some(checkpoint) = frozen.take() {
            written = Some(checkpoint.write().unwrap());
        }
        if let Some(written) = written.take() {
            drop(tree.install(written));
        }
        agree(&model, &tree);
    }
}
