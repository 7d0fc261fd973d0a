//! The tree, tried: by scenario, against a model, and by crashes.

mod crash;
mod disk;
mod model;
mod race;
mod restart;
mod roster;
mod scenario;
mod transfer;

use super::*;
use crate::command::{Command, CreateMode, Logged, Op, Rules, Tag};
use crate::{Acl, AclRef, IdRef, SessionId};
use disk::MemoryDisk;

pub(super) const OPEN: AclRef<'static> = AclRef { perms: 31, id: IdRef { scheme: "world", id: "anyone" } };

pub(super) fn options(memory_bytes: u64) -> TreeOptions {
    TreeOptions { memory_bytes, hash_seed: 7, store_id: 11 }
}

/// A tree and the log position, for tests that read like a conversation.
pub(super) struct Told {
    disk: MemoryDisk,
    pub(super) tree: Tree,
    pub(super) time_ms: i64,
    pub(super) rules: Rules,
}

impl Told {
    pub(super) fn fresh() -> Told {
        let disk = MemoryDisk::default();
        let tree = Tree::open(disk.shared(), options(1 << 20)).unwrap();
        Told { disk, tree, time_ms: 1_000, rules: Rules::default() }
    }

    /// One command as an entry of its own.
    pub(super) fn tell(&mut self, logged: &Logged<'_>) -> Applied {
        let applied = self.tree.apply(self.time_ms, &self.rules, logged).unwrap();
        let index = self.tree.position().index + 1;
        self.tree.advance(index, 1);
        applied
    }

    /// Asked by nobody in particular, in no session.
    pub(super) fn server(&mut self, command: Command<'_>) -> Outcome {
        self.tell(&Logged { tag: None, ids: Vec::new(), command }).outcome
    }

    pub(super) fn op(&mut self, op: Op<'_>) -> Outcome {
        self.server(Command::Single(op))
    }

    /// The next write of a session.
    pub(super) fn session_says(&mut self, session: SessionId, command: Command<'_>) -> Applied {
        let row = self.tree.session(session).expect("the session is open");
        let tag = Tag { session, generation: row.generation, sequence: row.last_sequence + 1 };
        self.tell(&Logged { tag: Some(tag), ids: Vec::new(), command })
    }

    pub(super) fn session(&mut self, session: SessionId) {
        let created = self.server(Command::CreateSession {
            session,
            timeout_ms: 10_000,
            password: [7; 16],
            owner: 1,
            incarnation: 1,
            request: 1,
        });
        assert_eq!(created, Outcome::Done(Reply::SessionCreated { session, generation: 1 }));
    }

    pub(super) fn checkpoint(&mut self) {
        if let Some(checkpoint) = self.tree.freeze() {
            let written = checkpoint.write().unwrap();
            drop(self.tree.install(written));
        }
    }

    /// What is checkpointed, as the next start finds it.
    pub(super) fn reopen(&mut self) {
        self.tree = Tree::open(self.disk.shared(), options(1 << 20)).unwrap();
    }

    pub(super) fn children(&self, path: &str) -> Vec<String> {
        let mut children = Vec::new();
        self.tree
            .snapshot()
            .children(path, &mut |name| {
                children.push(name.to_owned());
                true
            })
            .unwrap();
        children
    }

    pub(super) fn node(&self, path: &str) -> Option<std::sync::Arc<Znode>> {
        self.tree.snapshot().node(path).unwrap()
    }
}

pub(super) fn create<'a>(path: &'a str, data: &'a [u8], mode: CreateMode) -> Op<'a> {
    Op::Create { path, data: Some(data), acl: vec![OPEN], mode, ttl: 5 }
}

pub(super) fn open_acl() -> SharedAcl {
    Acl::open().into()
}
