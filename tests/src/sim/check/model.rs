//! A naive tree: a map from paths to nodes, changed as the outcomes say. It knows nothing of overlays, checkpoints,
//! caches or indexes, and decides nothing.

use super::history::Fact;
use super::{Verdict, Violation};
use std::collections::{BTreeMap, BTreeSet};
use warren_storage::command::CreateMode;
use warren_storage::tree::{Outcome, Reply};
use warren_storage::{Command, Kind, Op, SessionId, Snapshot, Stat};

/// What is kept of a node.
#[derive(Clone, Debug)]
struct Node {
    owner: i64,
    stat: Stat,
    /// Creates of children; ZooKeeper shows creates plus deletes.
    creates: i32,
    data: Option<Vec<u8>>,
}

/// The naive tree.
pub struct Model {
    nodes: BTreeMap<String, Node>,
    /// Open sessions.
    pub sessions: BTreeSet<SessionId>,
    /// Ephemerals that went with the last fact, with their owners.
    pub went: BTreeMap<String, SessionId>,
}

fn parent_of(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) | None => "/",
        Some(at) => &path[..at],
    }
}

impl Model {
    /// What a fresh ZooKeeper has.
    pub(super) fn new() -> Model {
        let mut model = Model { nodes: BTreeMap::new(), sessions: BTreeSet::new(), went: BTreeMap::new() };
        for path in ["/", "/zookeeper", "/zookeeper/config", "/zookeeper/quota"] {
            let node = Node { owner: 0, stat: Stat::default(), creates: 0, data: None };
            model.nodes.insert(path.to_owned(), node);
        }
        model
    }

    /// Paths of a session's ephemerals.
    fn ephemerals_of(&self, session: SessionId) -> Vec<&str> {
        self.nodes.iter().filter(|(_, n)| n.owner == session).map(|(p, _)| p.as_str()).collect()
    }

    pub(super) fn on_applied(&mut self, fact: &Fact) -> Verdict {
        self.went.clear();
        let logged = fact.logged();
        let Outcome::Done(reply) = &fact.outcome else { return Ok(()) };
        match (&logged.command, reply) {
            (Command::Single(op), reply) => self.op(fact, op, reply)?,
            (Command::Multi(ops), Reply::Multi(replies)) => {
                for (op, reply) in ops.iter().zip(replies) {
                    self.op(fact, op, reply)?;
                }
            }
            (Command::CreateSession { session, .. }, _) => {
                self.sessions.insert(*session);
            }
            (_, Reply::SessionClosed { session }) => {
                self.sessions.remove(session);
                let paths: Vec<String> =
                    self.ephemerals_of(*session).into_iter().map(str::to_owned).collect();
                for path in paths {
                    self.remove(fact, &path)?;
                }
            }
            (Command::Sweep { path, .. }, _) => self.remove(fact, path)?,
            _ => {}
        }
        Ok(())
    }

    fn get(&mut self, path: &str) -> Result<&mut Node, Violation> {
        let missing = || Violation { property: "naive model", what: format!("{path} is missing") };
        self.nodes.get_mut(path).ok_or_else(missing)
    }

    fn op(&mut self, fact: &Fact, op: &Op<'_>, reply: &Reply) -> Verdict {
        match (op, reply) {
            (Op::Create { data, mode, ttl, .. }, Reply::Created { path, .. }) => {
                let kind = match mode {
                    CreateMode::Persistent | CreateMode::PersistentSequential => Kind::Persistent,
                    CreateMode::Ephemeral | CreateMode::EphemeralSequential => {
                        Kind::Ephemeral(fact.tag.map_or(0, |tag| tag.session))
                    }
                    CreateMode::Container => Kind::Container,
                    CreateMode::Ttl | CreateMode::TtlSequential => Kind::Ttl(*ttl),
                };
                let parent = self.get(parent_of(path))?;
                parent.creates = parent.creates.wrapping_add(1);
                parent.stat.num_children += 1;
                parent.stat.pzxid = fact.at;
                let stat = Stat {
                    czxid: fact.at,
                    mzxid: fact.at,
                    pzxid: fact.at,
                    ctime: fact.time_ms,
                    mtime: fact.time_ms,
                    ephemeral_owner: kind.client_owner(),
                    ..Stat::default()
                };
                let node = Node { owner: kind.owner(), stat, creates: 0, data: data.map(<[u8]>::to_vec) };
                self.nodes.insert((**path).to_owned(), node);
            }
            (Op::SetData { path, data, .. }, _) => {
                let node = self.get(path)?;
                node.data = data.map(<[u8]>::to_vec);
                node.stat.version = node.stat.version.wrapping_add(1);
                node.stat.mzxid = fact.at;
                node.stat.mtime = fact.time_ms;
            }
            (Op::SetAcl { path, .. }, _) => {
                let node = self.get(path)?;
                node.stat.aversion = node.stat.aversion.wrapping_add(1);
            }
            (Op::Delete { path, .. }, _) => self.remove(fact, path)?,
            _ => {}
        }
        Ok(())
    }

    fn remove(&mut self, fact: &Fact, path: &str) -> Verdict {
        let owner = self.get(path)?.owner;
        if matches!(Kind::from_owner(owner), Kind::Ephemeral(_)) {
            self.went.insert(path.to_owned(), owner);
        }
        self.nodes.remove(path);
        let parent = self.get(parent_of(path))?;
        parent.stat.num_children -= 1;
        parent.stat.pzxid = fact.at;
        Ok(())
    }

    /// Is this the tree, given all its paths?
    pub(super) fn compare(&self, tree: &Snapshot, paths: &[String]) -> Result<(), String> {
        let known: BTreeSet<&str> = self.nodes.keys().map(String::as_str).collect();
        let found: BTreeSet<&str> = paths.iter().map(String::as_str).collect();
        if known != found {
            let extra: Vec<_> = found.difference(&known).collect();
            let missing: Vec<_> = known.difference(&found).collect();
            return Err(format!("the tree has {extra:?} too many and lacks {missing:?}"));
        }
        for (path, node) in &self.nodes {
            let found = tree.node(path).map_err(|e| e.to_string())?.ok_or("a path without a znode")?;
            let of_ours = path == "/" || path.starts_with("/zookeeper");
            if of_ours && node.stat.czxid == 0 {
                // Fresh ones, with ZooKeeper's own odd numbers.
                continue;
            }
            if path.ends_with("/zookeeper_stats") {
                // Kept up to date in place.
                continue;
            }
            let expected = Stat {
                cversion: node.creates.wrapping_mul(2).wrapping_sub(node.stat.num_children),
                data_length: node.data.as_ref().map_or(0, Vec::len) as i32,
                ..node.stat
            };
            if found.stat() != expected || found.data.as_deref() != node.data.as_deref() {
                return Err(format!("{path} is {:?}, and by the log {expected:?}", found.stat()));
            }
        }
        Ok(())
    }
}
