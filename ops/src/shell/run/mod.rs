//! Carries out commands, on whatever server it is given: what is asked, in which order, and what is said about it.
//!
//! - `simple`: one or two requests. `quota`, `ensemble`: a few. `tree`: walks. `bulk`: long work on many znodes.
//! - `explain`: what can be done about a failure.

mod bulk;
mod ensemble;
mod explain;
mod quota;
mod simple;
#[cfg(test)]
mod tests;
mod tree;

pub use explain::hints;

use super::address::Root;
use super::answer::Answer;
use super::command::ShellCommand;
use super::failure::Failure;
use super::watches::Kind;
use bytes::Bytes;
use serde_json::json;
use std::path::Path;
use warren_storage::{Acl, Code, CreateMode, Op, Stat};
use warren_transport::client::ReplyError;
use warren_transport::request::WatcherType;
use warren_transport::{Change, Opcode, ReplyHeader, Request, Response};

/// How often a read is asked again after its connection was lost.
const READS_MAX: usize = 3;

/// A request under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(pub i64);

/// An answer as it came.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Of the request.
    pub opcode: Opcode,
    /// xid, zxid, err.
    pub header: ReplyHeader,
    /// Behind the header.
    pub body: Bytes,
}

impl Reply {
    /// What is in it; `path` is named in a refusal.
    pub fn response(&self, path: &str) -> Result<Response<'_>, Failure> {
        let reply =
            warren_transport::client::Reply { opcode: self.opcode, header: self.header, body: &self.body };
        reply.response().map_err(|e| match e {
            ReplyError::Refused(code) => Failure::refused(code, path),
            ReplyError::Unknown(code) => Failure::Unknown(code),
            ReplyError::Malformed(why) => Failure::Malformed(why.to_string()),
        })
    }
}

/// Who is asked. Paths are the server's own.
pub trait Server {
    /// Send a request; with a watch to remember when it is granted. Waits while there is no connection.
    fn submit(&mut self, request: &Request<'_>, watch: Option<(Kind, &str)>) -> Result<Ticket, Failure>;
    /// Its answer.
    fn wait(&mut self, ticket: Ticket) -> Result<Reply, Failure>;
    /// Show credentials, now and on each connection to come.
    fn authenticate(&mut self, scheme: &str, auth: &[u8]) -> Result<(), Failure>;
    /// Take watches back, even without a connection if `local`. Returns which kinds there were, by their events' names.
    fn unwatch(&mut self, path: &str, which: WatcherType, local: bool) -> Result<Vec<&'static str>, Failure>;
}

/// Who is told.
pub trait Listener {
    /// What was asked for.
    fn answer(&mut self, answer: Answer);
    /// By the way; not part of what was asked for.
    fn note(&mut self, text: &str);
    /// Long work goes on: so much is done, of how much if that is known.
    fn progress(&mut self, what: &str, done: usize, of: Option<usize>);
    /// Does nobody want it any more?
    fn is_interrupted(&self) -> bool;
    /// What a file holds, at most `max` bytes; - is the standard input.
    fn file(&mut self, path: &Path, max: usize) -> Result<Vec<u8>, Failure>;
}

/// Carries out commands.
pub struct Shell<'a> {
    /// Who is asked.
    pub server: &'a mut dyn Server,
    /// Who is told.
    pub listener: &'a mut dyn Listener,
    /// What stands before every path.
    pub root: &'a Root,
}

impl Shell<'_> {
    /// Carry out one command.
    pub fn run(&mut self, command: ShellCommand) -> Result<(), Failure> {
        if let Some(form) = command.newer_form() {
            self.listener.note(&format!("this is the older form of: {form}"));
        }
        match command.newer() {
            ShellCommand::Ls { recursive: true, watch, path, .. } => self.list_all(&path, watch),
            ShellCommand::Ls { stat, watch, path, .. } => self.ls(path, stat, watch),
            ShellCommand::Get(get) => self.get(get),
            ShellCommand::Stat { watch, path, .. } => self.stat(path, watch),
            ShellCommand::Create(create) => self.create(create),
            ShellCommand::Set(set) => self.set(set),
            ShellCommand::Delete { version, path, .. } => self.delete(path, version.unwrap_or(-1)),
            ShellCommand::Deleteall { batch, path } => self.delete_all(&path, batch),
            ShellCommand::GetAcl { stat, path } => self.get_acl(path, stat),
            ShellCommand::SetAcl { stat, version, recursive, path, acl } => {
                self.set_acl(path, &acl, version.unwrap_or(-1), stat, recursive)
            }
            ShellCommand::Addauth { scheme, auth } => {
                self.server.authenticate(&scheme, auth.unwrap_or_default().as_bytes())?;
                self.done(json!({ "authenticated": scheme }))
            }
            ShellCommand::Whoami => self.who_am_i(),
            ShellCommand::AddWatch { mode, path } => self.add_watch(path, mode),
            ShellCommand::Removewatches(remove) => self.remove_watches(remove),
            ShellCommand::Sync { path } => self.sync(path),
            ShellCommand::GetAllChildrenNumber { path } => self.all_children_number(path),
            ShellCommand::GetEphemerals { path } => self.ephemerals(path),
            ShellCommand::Listquota { path } => self.list_quota(&path),
            ShellCommand::Setquota(set) => self.set_quota(&set),
            ShellCommand::Delquota(del) => self.del_quota(&del),
            ShellCommand::Config(config) => self.config(&config),
            ShellCommand::Reconfig(reconfig) => self.reconfig(&reconfig),
            ShellCommand::Tree { levels, sizes, path } => self.tree(&path, levels, sizes),
            ShellCommand::Find(find) => self.find(&find),
            ShellCommand::Du { rows, path } => self.du(&path, rows),
            ShellCommand::Cp(copy) => self.copy(&copy),
            ShellCommand::Version => {
                let version = warren_server::version::VERSION;
                self.say(format!("Warren CLI version: {version}"), json!({ "version": version }))
            }
            ShellCommand::Ls2 { .. } | ShellCommand::Rmr { .. } => unreachable!("made newer above"),
        }
    }

    fn done(&mut self, what: serde_json::Value) -> Result<(), Failure> {
        self.listener.answer(Answer::Done(what));
        Ok(())
    }

    fn say(&mut self, text: String, json: serde_json::Value) -> Result<(), Failure> {
        self.listener.answer(Answer::Line(text, json));
        Ok(())
    }

    /// Ask and wait. A read is asked again when its connection is lost; whether a write was carried out is then not known.
    fn ask(&mut self, request: &Request<'_>, watch: Option<(Kind, &str)>) -> Result<Reply, Failure> {
        let is_read = !matches!(request, Request::Change(_) | Request::Multi(_) | Request::Reconfig { .. });
        let mut reads = 1;
        loop {
            let asked = self.server.submit(request, watch).and_then(|ticket| self.server.wait(ticket));
            match asked {
                Err(Failure::Lost) if is_read && reads < READS_MAX => reads += 1,
                other => return other,
            }
        }
    }

    fn change(&mut self, op: Op<'_>, path: &str) -> Result<Reply, Failure> {
        let reply = self.ask(&Request::Change(Change::new(op)), None)?;
        reply.response(path)?;
        Ok(reply)
    }

    // The requests, by paths as they are seen from the root.

    fn exists(&mut self, path: &str, watch: bool) -> Result<Option<Stat>, Failure> {
        let full = self.root.full(path);
        let request = Request::Exists { path: &full, watch };
        let reply = self.ask(&request, watch.then_some((Kind::Exist, full.as_str())))?;
        match reply.response(path) {
            Ok(Response::Stat(stat)) => Ok(Some(stat)),
            Err(failure) if failure.is(Code::NoNode) => Ok(None),
            other => Err(unexpected(other)),
        }
    }

    fn data(&mut self, path: &str, watch: bool) -> Result<(Option<Vec<u8>>, Stat), Failure> {
        let full = self.root.full(path);
        let request = Request::GetData { path: &full, watch };
        let reply = self.ask(&request, watch.then_some((Kind::Data, full.as_str())))?;
        match reply.response(path) {
            Ok(Response::Data(data, stat)) => Ok((data.map(<[u8]>::to_vec), stat)),
            other => Err(unexpected(other)),
        }
    }

    /// Names in order.
    fn children(&mut self, path: &str, watch: bool) -> Result<(Vec<String>, Stat), Failure> {
        let full = self.root.full(path);
        let request = Request::GetChildren2 { path: &full, watch };
        let reply = self.ask(&request, watch.then_some((Kind::Child, full.as_str())))?;
        match reply.response(path) {
            Ok(Response::ChildrenAndStat(names, stat)) => Ok((sorted(&names), stat)),
            other => Err(unexpected(other)),
        }
    }

    fn acl(&mut self, path: &str) -> Result<(Vec<Acl>, Stat), Failure> {
        let full = self.root.full(path);
        let reply = self.ask(&Request::GetAcl { path: &full }, None)?;
        match reply.response(path) {
            Ok(Response::Acl(acl, stat)) => Ok((acl.iter().map(|line| line.to_acl()).collect(), stat)),
            other => Err(unexpected(other)),
        }
    }

    /// The path that the server made of it.
    fn create_one(
        &mut self,
        path: &str,
        data: Option<&[u8]>,
        acl: &[Acl],
        mode: CreateMode,
        ttl: i64,
    ) -> Result<String, Failure> {
        let full = self.root.full(path);
        let acl = acl.iter().map(Acl::as_ref).collect();
        let reply = self.change(Op::Create { path: &full, data, acl, mode, ttl }, path)?;
        match reply.response(path) {
            Ok(Response::PathAndStat(made, _)) => Ok(self.root.seen(made).to_owned()),
            other => Err(unexpected(other)),
        }
    }

    fn set_one(&mut self, path: &str, data: Option<&[u8]>, version: i32) -> Result<Stat, Failure> {
        let full = self.root.full(path);
        let reply = self.change(Op::SetData { path: &full, data, version }, path)?;
        match reply.response(path) {
            Ok(Response::Stat(stat)) => Ok(stat),
            other => Err(unexpected(other)),
        }
    }

    fn delete_one(&mut self, path: &str, version: i32) -> Result<(), Failure> {
        let full = self.root.full(path);
        self.change(Op::Delete { path: &full, version }, path).map(|_| ())
    }
}

/// The failure; an answer of another kind than the request has is one, too.
fn unexpected(response: Result<Response<'_>, Failure>) -> Failure {
    match response {
        Err(failure) => failure,
        Ok(_) => Failure::Malformed("it is of another kind than the request".to_owned()),
    }
}

fn sorted(names: &[&str]) -> Vec<String> {
    let mut names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    names.sort_unstable();
    names
}

/// A child's path.
pub fn join(parent: &str, name: &str) -> String {
    if parent == "/" { format!("/{name}") } else { format!("{parent}/{name}") }
}
