//! Two trees, znode by znode.

use super::Outcome;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use warren_storage::{Acl, CreateMode, Op, Stat};
use warren_transport::io::blocking::{Connection, Options};
use warren_transport::{Change, Opcode, Request, Response};

/// Requests on their way at a time.
const WINDOW: usize = 256;
/// Differences that are printed.
const SHOWN_MAX: usize = 10;
/// Of its data, so much is printed.
const DATA_SHOWN_BYTES: usize = 40;
/// What each has for itself: the one names its own ensemble there, the other nobody.
const CONFIG: &str = "/zookeeper/config";

/// What a quota counts.
const STATS: &str = "/zookeeper_stats";

/// All of a znode that clients can see.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Seen {
    data: Option<Vec<u8>>,
    stat: Stat,
    acl: Vec<Acl>,
    children: Vec<String>,
}

impl std::fmt::Debug for Seen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = self.data.as_ref().map(|data| data[..data.len().min(DATA_SHOWN_BYTES)].escape_ascii());
        let shown = shown.map(|data| data.to_string());
        f.debug_tuple("Seen").field(&shown).field(&self.stat).field(&self.acl).field(&self.children).finish()
    }
}

impl Seen {
    pub(super) fn is_ephemeral(&self) -> bool {
        self.stat.ephemeral_owner != 0
    }

    pub(super) fn can_have_children(&self) -> bool {
        !self.is_ephemeral()
    }
}

pub(super) type Tree = BTreeMap<String, Seen>;

/// As the super user, who may see everything.
fn connect(at: SocketAddr) -> Outcome<Connection> {
    let mut connection = Connection::connect(at, &Options { pending_max: WINDOW, ..Options::default() })?;
    connection.auth("digest", b"super:secret")?;
    Ok(connection)
}

/// The whole tree.
pub(super) fn read(at: SocketAddr) -> Outcome<Tree> {
    let mut connection = connect(at)?;
    let mut tree = Tree::new();
    let mut due = VecDeque::from(["/".to_owned()]);
    while !due.is_empty() {
        let some: Vec<String> = due.drain(..due.len().min(WINDOW / 4)).collect();
        for path in &some {
            connection.send(&Request::GetData { path, watch: false })?;
            connection.send(&Request::GetAcl { path })?;
            connection.send(&Request::GetChildren2 { path, watch: false })?;
        }
        connection.flush()?;
        for path in some {
            let (data, acl, children) = (connection.recv()?, connection.recv()?, connection.recv()?);
            let seen = match (data.response()?, acl.response()?, children.response()?) {
                (
                    Response::Data(data, stat),
                    Response::Acl(acl, _),
                    Response::ChildrenAndStat(children, again),
                ) if stat == again => {
                    let mut children: Vec<String> = children.into_iter().map(str::to_owned).collect();
                    children.sort_unstable();
                    let acl = acl.into_iter().map(|line| line.to_acl()).collect();
                    Seen { data: data.map(<[u8]>::to_vec), stat, acl, children }
                }
                other => return Err(format!("{path} changes while it is read: {other:?}").into()),
            };
            let prefix = if path == "/" { "" } else { &path };
            due.extend(seen.children.iter().map(|name| format!("{prefix}/{name}")));
            tree.insert(path, seen);
        }
    }
    Ok(tree)
}

/// How the second differs from the first; the number of znodes when it does not.
pub(super) fn equal(wanted: &Tree, found: &Tree) -> Outcome<usize> {
    let mut differences = Vec::new();
    let found = &if wanted.contains_key(CONFIG) { found.clone() } else { without_config(found) };
    for path in wanted.keys().chain(found.keys().filter(|path| !wanted.contains_key(*path))) {
        match (wanted.get(path), found.get(path)) {
            (Some(a), Some(b)) if path == CONFIG => {
                // ZooKeeper writes its own address there, Warren when it has others.
                if (&a.acl, a.stat.aversion) != (&b.acl, b.stat.aversion) {
                    differences.push(format!("{path}: {a:?} and {b:?}"));
                }
            }
            // ZooKeeper's own count drifts while it replays its log; what counts is the tree.
            (Some(a), Some(b)) if path.ends_with(STATS) => {
                let counted = Seen { data: Some(counted(wanted, path).into_bytes()), ..a.clone() };
                if (&a.acl, a.stat.mzxid, &counted.data) != (&b.acl, b.stat.mzxid, &b.data) {
                    differences.push(format!("{path}: {counted:?} and {b:?}"));
                }
            }
            (a, b) if a == b => {}
            (a, b) => differences.push(format!("{path}: {a:?} and {b:?}")),
        }
    }
    if differences.is_empty() {
        return Ok(wanted.len());
    }
    let shown = differences.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join("\n  ");
    Err(format!("{} of {} znodes differ, such as\n  {shown}", differences.len(), wanted.len()).into())
}

/// As a ZooKeeper before 3.5 has it, which knows no reconfiguration.
fn without_config(tree: &Tree) -> Tree {
    let mut tree = tree.clone();
    if let (Some(_), Some(parent)) = (tree.remove(CONFIG), tree.get_mut("/zookeeper")) {
        parent.children.retain(|name| name != "config");
        parent.stat.num_children -= 1;
        // Its version is that of a fresh server, where each child took one away.
        parent.stat.cversion += 1;
    }
    tree
}

/// The statistics that the quota has whose statistics are at `path`.
fn counted(tree: &Tree, path: &str) -> String {
    let of = path.strip_prefix("/zookeeper/quota").and_then(|path| path.strip_suffix(STATS)).unwrap_or(path);
    let within = |path: &str| path == of || path.strip_prefix(of).is_some_and(|rest| rest.starts_with('/'));
    let within: Vec<&Seen> = tree.iter().filter(|(path, _)| within(path)).map(|(_, seen)| seen).collect();
    let bytes: usize = within.iter().filter_map(|seen| seen.data.as_ref()).map(Vec::len).sum();
    format!("count={},bytes={bytes}", within.len())
}

/// What a sequential create is called next, below each of these.
pub(super) fn next_names(at: SocketAddr, parents: &[String]) -> Outcome<Vec<String>> {
    let mut connection = connect(at)?;
    let mut names = Vec::new();
    for parent in parents {
        let prefix = if parent == "/" { "" } else { parent };
        let path = format!("{prefix}/next-");
        let acl = vec![super::load::open(31)];
        let op = Op::Create { path: &path, data: None, acl, mode: CreateMode::PersistentSequential, ttl: 0 };
        let reply = connection.call(&Request::Change(Change { opcode: Opcode::Create, op }))?;
        match reply.response()? {
            Response::Path(path) => names.push(path.to_owned()),
            other => return Err(format!("{path}: {other:?}").into()),
        }
    }
    Ok(names)
}
