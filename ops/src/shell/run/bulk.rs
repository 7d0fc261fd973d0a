//! Long work on many znodes: removing, copying, setting ACLs. Progress is told, and it can be interrupted between two steps.

use super::super::command::Copy;
use super::tree::{WINDOW, Walked};
use super::*;
use std::collections::VecDeque;
use warren_transport::reply::OpResult;

/// Transactions under way at once, as in ZooKeeper's `ZKUtil.deleteInBatch`.
const TRANSACTIONS: usize = 10;
/// Paths in one transaction, bytes: half of what servers take by default.
const TRANSACTION_BYTES: usize = 512 << 10;
/// How often a tree that others change meanwhile is gone through.
const ROUNDS: usize = 4;
/// Znodes of which the data are held at once.
const COPIED_AT_ONCE: usize = 64;

impl Shell<'_> {
    pub(super) fn delete_all(&mut self, top: &str, batch: u32) -> Result<(), Failure> {
        if top == "/" {
            return Err(Failure::Told("the root stays; name what is below it".to_owned()));
        }
        if matches!(self.root.full(top).as_str(), "/zookeeper" | "/zookeeper/quota" | "/zookeeper/config") {
            return Err(Failure::Told(format!("{top} is the servers' own, and stays")));
        }
        let mut deleted = 0;
        for round in 1..=ROUNDS {
            let all = match self.walk(top, false, None) {
                Err(failure) if failure.is(Code::NoNode) && round > 1 => {
                    return self.done(json!({ "deleted": top, "znodes": deleted }));
                }
                other => other?,
            };
            // A transaction fails as a whole when somebody else was faster with one of its znodes.
            let batch = if round == ROUNDS { 1 } else { batch.max(1) as usize };
            let before = deleted;
            match self.delete_walked(&all, batch, &mut deleted) {
                Ok(()) => return self.done(json!({ "deleted": top, "znodes": deleted })),
                Err(failure)
                    if round < ROUNDS
                        && (failure.is(Code::NoNode)
                            || failure.is(Code::NotEmpty)
                            || failure == Failure::Lost) =>
                {
                    self.listener.note(&format!("{failure}; going through what is left once more"));
                }
                Err(failure) => {
                    if deleted > before {
                        self.listener.note(&format!("{deleted} znodes were deleted before that"));
                    }
                    return Err(failure);
                }
            }
        }
        Err(Failure::Told(format!("others change what is below {top} faster than it is removed")))
    }

    /// The leaves first.
    fn delete_walked(&mut self, all: &[Walked], batch: usize, deleted: &mut usize) -> Result<(), Failure> {
        let paths: Vec<&str> =
            all.iter().rev().filter(|znode| !znode.is_gone()).map(|znode| znode.path.as_str()).collect();
        let mut under_way: VecDeque<(usize, usize, Ticket)> = VecDeque::new();
        let (mut next, mut failed) = (0, None);
        while next < paths.len() || !under_way.is_empty() {
            // What is under way is awaited in any case.
            while next < paths.len() && under_way.len() < TRANSACTIONS && failed.is_none() {
                if self.listener.is_interrupted() {
                    failed = Some(Failure::Interrupted);
                    break;
                }
                let end = transaction_end(&paths, next, batch);
                let full: Vec<String> = paths[next..end].iter().map(|path| self.root.full(path)).collect();
                let ops = full.iter().map(|path| Change::new(Op::Delete { path, version: -1 })).collect();
                under_way.push_back((next, end, self.server.submit(&Request::Multi(ops), None)?));
                next = end;
            }
            let Some((from, to, ticket)) = under_way.pop_front() else { break };
            match self.server.wait(ticket).and_then(|reply| done_whole(&reply, &paths[from..to])) {
                Ok(()) => {
                    *deleted += to - from;
                    self.listener.progress("deleted", *deleted, Some(paths.len()));
                }
                Err(failure) if batch == 1 && failure.is(Code::NoNode) => {}
                Err(failure) => failed = failed.or(Some(failure)),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    pub(super) fn set_acl_all(&mut self, top: &str, acl: &[Acl], version: i32) -> Result<(), Failure> {
        let all = self.walk(top, false, None)?;
        let (mut set, mut failed) = (0, Vec::new());
        for some in all.chunks(WINDOW) {
            if self.listener.is_interrupted() {
                return Err(Failure::Interrupted);
            }
            let mut tickets = Vec::with_capacity(some.len());
            for znode in some {
                let (path, acl) = (self.root.full(&znode.path), acl.iter().map(Acl::as_ref).collect());
                let change = Change::new(Op::SetAcl { path: &path, acl, version });
                tickets.push(self.server.submit(&Request::Change(change), None)?);
            }
            for (znode, ticket) in some.iter().zip(tickets) {
                match self.server.wait(ticket)?.response(&znode.path) {
                    Ok(_) => set += 1,
                    // Gone meanwhile.
                    Err(failure) if failure.is(Code::NoNode) => {}
                    Err(failure) => failed.push(failure),
                }
            }
            self.listener.progress("set", set, Some(all.len()));
        }
        match failed.into_iter().next() {
            Some(failure) => {
                self.listener.note(&format!("the ACL of {set} of {} znodes was set", all.len()));
                Err(failure)
            }
            None => self.done(json!({ "set_acl": top, "znodes": set })),
        }
    }

    pub(super) fn copy(&mut self, copy: &Copy) -> Result<(), Failure> {
        let Copy { from, to, .. } = copy;
        if to == from || to.starts_with(&format!("{}/", from.trim_end_matches('/'))) {
            return Err(Failure::Usage(format!("{to} is within {from}; it would be copied into itself")));
        }
        let all = self.walk(from, false, if copy.recursive { None } else { Some(0) })?;
        if !copy.recursive && all[0].stat.num_children > 0 {
            self.listener.note(&format!(
                "{} children are not copied; cp -r copies them, too",
                all[0].stat.num_children
            ));
        }
        let (mut copied, mut ephemerals) = (0, 0);
        for some in all.chunks(COPIED_AT_ONCE) {
            if self.listener.is_interrupted() {
                self.listener.note(&format!("{copied} of {} znodes were copied", all.len()));
                return Err(Failure::Interrupted);
            }
            // An ephemeral belongs to its session, so a copy of it would be another thing.
            let lasting: Vec<&Walked> =
                some.iter().filter(|znode| !znode.is_gone() && znode.stat.ephemeral_owner == 0).collect();
            ephemerals += some.iter().filter(|znode| znode.stat.ephemeral_owner != 0).count();
            match self.copy_some(copy, &lasting) {
                Ok(n) => copied += n,
                Err(failure) => {
                    if copied > 0 {
                        self.listener.note(&format!("{copied} of {} znodes were copied before", all.len()));
                    }
                    return Err(failure);
                }
            }
            self.listener.progress("copied", copied, Some(all.len()));
        }
        if ephemerals > 0 {
            self.listener.note(&format!("{ephemerals} ephemerals were left out"));
        }
        let json = json!({ "copied": copied, "ephemerals_left_out": ephemerals, "to": to });
        self.say(format!("Copied {copied} znodes to {to}"), json)
    }

    /// Parents come before their children, and requests of a session are carried out in order, so all are under way at once.
    fn copy_some(&mut self, copy: &Copy, some: &[&Walked]) -> Result<usize, Failure> {
        let paths: Vec<&str> = some.iter().map(|znode| znode.path.as_str()).collect();
        let data = self.data_of(&paths)?;
        let mut tickets = Vec::with_capacity(some.len());
        for (path, data) in paths.iter().zip(data) {
            let Some(data) = data else {
                return Err(Failure::refused(Code::NoAuth, path));
            };
            let acl = if copy.open_acl { Acl::open() } else { self.acl_to_copy(path)? };
            let target = match (path.strip_prefix(copy.from.trim_end_matches('/')), copy.to.as_str()) {
                (None | Some("" | "/"), to) => to.to_owned(),
                (Some(below), "/") => below.to_owned(),
                (Some(below), to) => format!("{to}{below}"),
            };
            let full = self.root.full(&target);
            let (mode, lines) = (CreateMode::Persistent, acl.iter().map(Acl::as_ref).collect());
            let op = Op::Create { path: &full, data: data.as_deref(), acl: lines, mode, ttl: 0 };
            let ticket = self.server.submit(&Request::Change(Change::new(op)), None)?;
            tickets.push((target, data, ticket));
        }
        let (mut copied, mut failed) = (0, None);
        for (target, data, ticket) in tickets {
            let made = self.server.wait(ticket).and_then(|reply| reply.response(&target).map(|_| ()));
            let made = match made {
                Err(failure) if copy.overwrite && failed.is_none() && failure.is(Code::NodeExists) => {
                    self.set_one(&target, data.as_deref(), -1).map(|_| ())
                }
                other => other,
            };
            match made {
                Ok(()) => copied += 1,
                Err(failure) => failed = failed.or(Some(failure)),
            }
        }
        match failed {
            Some(failure) => {
                if copied > 0 {
                    self.listener.note(&format!("{copied} znodes of the last {} were copied", some.len()));
                }
                Err(failure)
            }
            None => Ok(copied),
        }
    }

    /// Servers show hashes to those only who may change the ACL.
    fn acl_to_copy(&mut self, path: &str) -> Result<Vec<Acl>, Failure> {
        let (acl, _) = self.acl(path)?;
        if acl.iter().any(|line| line.id.scheme == "digest" && line.id.id.ends_with(":x")) {
            return Err(Failure::Told(format!(
                "the ACL of {path} is shown without its hashes, so it cannot be copied; addauth as somebody who may change \
                 it, or let everybody at the copies (--open-acl)"
            )));
        }
        Ok(acl)
    }
}

/// Where the transaction that begins at `next` ends.
fn transaction_end(paths: &[&str], next: usize, batch: usize) -> usize {
    let mut bytes = 0;
    let fit = paths[next..].iter().take(batch).take_while(|path| {
        bytes += path.len() + 32;
        bytes <= TRANSACTION_BYTES
    });
    next + fit.count().max(1)
}

/// Was all of a transaction carried out? Else the failure of the operation that it failed at.
fn done_whole(reply: &Reply, paths: &[&str]) -> Result<(), Failure> {
    match reply.response(paths[0])? {
        Response::Multi(results) => {
            for (result, path) in results.iter().zip(paths) {
                match result {
                    OpResult::Error { err } if *err != 0 && *err != Code::RuntimeInconsistency.wire() => {
                        return Err(match warren_transport::reply::code(*err) {
                            Some(code) => Failure::refused(code, path),
                            None => Failure::Unknown(*err),
                        });
                    }
                    _ => {}
                }
            }
            Ok(())
        }
        _ => Err(Failure::Malformed("it is of another kind than the request".to_owned())),
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn transactions_have_a_bounded_size() {
        let long = "/".repeat(TRANSACTION_BYTES / 3);
        let paths = vec![long.as_str(); 5];
        assert_eq!(transaction_end(&paths, 0, 1000), 2);
        assert_eq!(transaction_end(&paths, 4, 1000), 5);
        assert_eq!(transaction_end(&["/a"; 5], 1, 3), 4);
        let longer = "/".repeat(TRANSACTION_BYTES + 1);
        assert_eq!(transaction_end(&[&longer, "/a"], 0, 10), 1);
    }
}
