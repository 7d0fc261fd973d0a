//! Commands of one or two requests.

use super::super::acl;
use super::super::answer::{Answer, Form};
use super::super::command::{Create, Get, RemoveWatches, Set, WatchMode};
use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use warren_storage::path::parent_of;
use warren_transport::request::AddWatchMode;

/// A znode's data at most that a file is read for, bytes; servers take 1 MiB or less unless they are told otherwise.
const DATA_BYTES_MAX: usize = 64 << 20;

impl Shell<'_> {
    pub(super) fn ls(&mut self, path: String, stat: bool, watch: bool) -> Result<(), Failure> {
        let (names, with) = self.children(&path, watch)?;
        self.listener.answer(Answer::Children { path, names, stat: stat.then_some(with) });
        Ok(())
    }

    pub(super) fn get(&mut self, get: Get) -> Result<(), Failure> {
        let (data, stat) = self.data(&get.path, get.watch)?;
        let form = match (get.base64, get.hex, get.raw) {
            (true, _, _) => Form::Base64,
            (_, true, _) => Form::Hex,
            (_, _, true) => Form::Raw,
            _ => Form::Plain,
        };
        self.listener.answer(Answer::Data { path: get.path, data, stat: get.stat.then_some(stat), form });
        Ok(())
    }

    pub(super) fn stat(&mut self, path: String, watch: bool) -> Result<(), Failure> {
        match self.exists(&path, watch)? {
            Some(stat) => {
                self.listener.answer(Answer::Stat(path, stat));
                Ok(())
            }
            None if watch => {
                self.listener.note("the watch waits for it to come to be");
                Err(Failure::refused(Code::NoNode, &path))
            }
            None => Err(Failure::refused(Code::NoNode, &path)),
        }
    }

    pub(super) fn create(&mut self, create: Create) -> Result<(), Failure> {
        // A file takes the place of the data, so what stands behind the path is then the ACL.
        let (data, acl) = match (&create.file, create.data, create.acl) {
            (Some(_), Some(_), Some(_)) => {
                return Err(Failure::Usage("data are given twice: as a word and as a file".to_owned()));
            }
            (Some(_), acl, None) | (Some(_), None, acl) => (None, acl),
            (None, data, acl) => (data, acl),
        };
        let data = self.bytes(data, create.file.as_deref(), create.base64)?;
        let acl = match acl {
            Some(text) => acl::parse(&text).map_err(|e| Failure::Usage(e.to_string()))?,
            None => Acl::open(),
        };
        let mode = match (create.sequential, create.ephemeral, create.container, create.ttl_ms) {
            (_, _, true, _) => CreateMode::Container,
            (false, true, ..) => CreateMode::Ephemeral,
            (true, true, ..) => CreateMode::EphemeralSequential,
            (false, _, _, Some(_)) => CreateMode::Ttl,
            (true, _, _, Some(_)) => CreateMode::TtlSequential,
            (false, ..) => CreateMode::Persistent,
            (true, ..) => CreateMode::PersistentSequential,
        };
        if create.path.ends_with('/') && !mode.is_sequential() {
            return Err(Failure::Usage(
                "a path must not end with /, but for the parent of a sequential one (-s)".to_owned(),
            ));
        }
        if create.parents {
            self.create_parents(&create.path)?;
        }
        let made = self.create_one(&create.path, data.as_deref(), &acl, mode, create.ttl_ms.unwrap_or(0))?;
        self.listener.answer(Answer::Created(made));
        Ok(())
    }

    /// From the top, those that are missing.
    pub(super) fn create_parents(&mut self, path: &str) -> Result<(), Failure> {
        let mut missing = Vec::new();
        let mut above = parent_of(path);
        while let Some(parent) = above.filter(|parent| *parent != "/") {
            if self.exists(parent, false)?.is_some() {
                break;
            }
            missing.push(parent);
            above = parent_of(parent);
        }
        for parent in missing.into_iter().rev() {
            match self.create_one(parent, None, &Acl::open(), CreateMode::Persistent, 0) {
                Err(failure) if !failure.is(Code::NodeExists) => return Err(failure),
                _ => {}
            }
        }
        Ok(())
    }

    /// Data from a word or a file.
    fn bytes(
        &mut self,
        word: Option<String>,
        file: Option<&Path>,
        base64: bool,
    ) -> Result<Option<Vec<u8>>, Failure> {
        match (word, file) {
            (_, Some(file)) => self.listener.file(file, DATA_BYTES_MAX).map(Some),
            (Some(word), None) if base64 => match STANDARD.decode(word.trim()) {
                Ok(data) => Ok(Some(data)),
                Err(e) => Err(Failure::Usage(format!("the data are not base64: {e}"))),
            },
            (word, None) => Ok(word.map(String::into_bytes)),
        }
    }

    pub(super) fn set(&mut self, set: Set) -> Result<(), Failure> {
        let data = self.bytes(set.data, set.file.as_deref(), set.base64)?;
        let stat = self.set_one(&set.path, data.as_deref(), set.version.unwrap_or(-1))?;
        match set.stat {
            true => {
                self.listener.answer(Answer::Stat(set.path, stat));
                Ok(())
            }
            false => self.done(json!({ "set": set.path, "version": stat.version })),
        }
    }

    pub(super) fn delete(&mut self, path: String, version: i32) -> Result<(), Failure> {
        self.delete_one(&path, version)?;
        self.done(json!({ "deleted": path }))
    }

    pub(super) fn get_acl(&mut self, path: String, stat: bool) -> Result<(), Failure> {
        let (acl, with) = self.acl(&path)?;
        self.listener.answer(Answer::Acl { path, acl, stat: stat.then_some(with) });
        Ok(())
    }

    pub(super) fn set_acl(
        &mut self,
        path: String,
        text: &str,
        version: i32,
        stat: bool,
        recursive: bool,
    ) -> Result<(), Failure> {
        let acl = acl::parse(text).map_err(|e| Failure::Usage(e.to_string()))?;
        if recursive {
            return self.set_acl_all(&path, &acl, version);
        }
        let full = self.root.full(&path);
        let lines = acl.iter().map(Acl::as_ref).collect();
        let reply = self.change(Op::SetAcl { path: &full, acl: lines, version }, &path)?;
        match reply.response(&path) {
            Ok(Response::Stat(now)) if stat => self.listener.answer(Answer::Stat(path, now)),
            Ok(Response::Stat(now)) => {
                return self.done(json!({ "set_acl": path, "aversion": now.aversion }));
            }
            other => return Err(unexpected(other)),
        }
        Ok(())
    }

    pub(super) fn who_am_i(&mut self) -> Result<(), Failure> {
        let reply = self.ask(&Request::WhoAmI, None)?;
        match reply.response("/") {
            Ok(Response::ClientInfo(mut ids)) => {
                // Servers tell them in any order.
                ids.sort_unstable_by_key(|id| (id.scheme, id.id));
                let lines: Vec<String> = ids.iter().map(|id| format!("\n{}: {}", id.scheme, id.id)).collect();
                let ids: Vec<_> =
                    ids.iter().map(|id| json!({ "scheme": id.scheme, "user": id.id })).collect();
                self.say(format!("Auth scheme: User{}", lines.concat()), json!({ "whoami": ids }))
            }
            other => Err(unexpected(other)),
        }
    }

    pub(super) fn add_watch(&mut self, path: String, mode: WatchMode) -> Result<(), Failure> {
        let full = self.root.full(&path);
        let (mode, kind) = match mode {
            WatchMode::Persistent => (AddWatchMode::Persistent, Kind::Persistent),
            WatchMode::PersistentRecursive => (AddWatchMode::PersistentRecursive, Kind::Recursive),
        };
        let reply = self.ask(&Request::AddWatch { path: &full, mode }, Some((kind, &full)))?;
        reply.response(&path)?;
        self.done(json!({ "watching": path }))
    }

    pub(super) fn remove_watches(&mut self, remove: RemoveWatches) -> Result<(), Failure> {
        let which = match (remove.children, remove.data, remove.persistent, remove.recursive) {
            (true, ..) => WatcherType::Children,
            (_, true, ..) => WatcherType::Data,
            (_, _, true, _) => WatcherType::Persistent,
            (.., true) => WatcherType::PersistentRecursive,
            _ => WatcherType::Any,
        };
        let removed = self.server.unwatch(&self.root.full(&remove.path), which, remove.local);
        let removed = removed.map_err(|failure| match failure {
            Failure::Refused { code, .. } => Failure::refused(code, &remove.path),
            other => other,
        })?;
        let path = &remove.path;
        let events: Vec<String> = removed
            .iter()
            .map(|event| format!("WATCHER::\nWatchedEvent state:SyncConnected type:{event} path:{path}"))
            .collect();
        let json = json!({ "removed": removed, "path": path });
        if events.is_empty() { self.done(json) } else { self.say(events.join("\n"), json) }
    }

    pub(super) fn sync(&mut self, path: String) -> Result<(), Failure> {
        let full = self.root.full(&path);
        self.ask(&Request::Sync { path: &full }, None)?.response(&path)?;
        self.say("Sync is OK".to_owned(), json!({ "synced": path }))
    }

    pub(super) fn all_children_number(&mut self, path: String) -> Result<(), Failure> {
        let full = self.root.full(&path);
        let reply = self.ask(&Request::GetAllChildrenNumber { path: &full }, None)?;
        match reply.response(&path) {
            Ok(Response::Number(n)) => self.say(n.to_string(), json!({ "path": path, "below": n })),
            other => Err(unexpected(other)),
        }
    }

    pub(super) fn ephemerals(&mut self, path: String) -> Result<(), Failure> {
        let full = self.root.full(&path);
        let reply = self.ask(&Request::GetEphemerals { prefix: Some(&full) }, None)?;
        match reply.response(&path) {
            Ok(Response::Children(paths)) => {
                let seen: Vec<&str> = paths.iter().map(|path| self.root.seen(path)).collect();
                let seen = sorted(&seen);
                self.say(format!("[{}]", seen.join(", ")), json!({ "path": path, "ephemerals": seen }))
            }
            other => Err(unexpected(other)),
        }
    }
}
