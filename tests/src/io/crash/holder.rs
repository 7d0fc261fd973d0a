//! A holder: sessions with ephemerals, which it keeps, closes, or walks away from.

use super::{Client, Left, Promise, SESSION_MS, SHORT_SESSION_MS, Stage, create, must_become, stat};
use crate::sim::Dice;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering::SeqCst;
use warren_storage::{CreateMode, Op};
use warren_transport::io::blocking::Connection;
use warren_transport::{Change, Opcode, Request, Response};

const FOLDER: &str = "/crash/ephemerals";
/// Ephemerals that it keeps; over it one is deleted.
const KEPT_MAX: usize = 12;
/// Sessions that it walks away from before it waits for them to end.
const ABANDONED_MAX: usize = 6;

pub(super) struct Holder {
    prefix: String,
    dice: Dice,
    number: usize,
    home: usize,
    /// `None` between a session that is closed and the next one.
    connection: Option<Connection>,
    kept: BTreeSet<String>,
    /// A create or delete that was not answered.
    uncertain: Option<String>,
    /// The close of the session was not answered.
    closing: bool,
    /// Ephemerals of sessions whose connection was dropped, session by session.
    abandoned: Vec<BTreeSet<String>>,
    next: u64,
}

impl Holder {
    pub(super) fn new(stage: &Stage, n: usize, dice: Dice) -> Result<Holder, Left> {
        let home = stage.place_of(n);
        Ok(Holder {
            prefix: format!("h{n}-"),
            dice,
            number: n,
            home,
            connection: Some(stage.connect(home, SESSION_MS)?),
            kept: BTreeSet::new(),
            uncertain: None,
            closing: false,
            abandoned: Vec::new(),
            next: 0,
        })
    }

    fn name(&mut self) -> String {
        self.next += 1;
        format!("{}{}", self.prefix, self.next)
    }

    fn step(&mut self, stage: &Stage) -> Result<(), Left> {
        let Some(connection) = &mut self.connection else {
            self.connection = Some(stage.connect(self.home, SESSION_MS)?);
            return Ok(());
        };
        match self.dice.index(40) {
            0 => {
                self.closing = true;
                connection.call(&Request::CloseSession)?;
                self.closing = false;
                let gone = std::mem::take(&mut self.kept);
                self.connection = None;
                let mut connection = stage.connect(self.home, SESSION_MS)?;
                for name in &gone {
                    if stat(&mut connection, &format!("{FOLDER}/{name}"))?.is_some() {
                        return Err(left_over(stage, name, "its session was closed"));
                    }
                }
                self.connection = Some(connection);
            }
            1 if self.abandoned.len() < ABANDONED_MAX => {
                let names: BTreeSet<String> = (0..3).map(|_| self.name()).collect();
                // Written down first: whatever is created, it must go.
                self.abandoned.push(names.clone());
                // Should it end sooner than thought: that says nothing of this holder's own session.
                if abandon(stage, self.home, &names).is_ok() {
                    stage.ephemerals.fetch_add(3, SeqCst);
                }
            }
            _ if self.kept.len() > KEPT_MAX => {
                let name = self.kept.pop_first().expect("there are some");
                let path = format!("{FOLDER}/{name}");
                self.uncertain = Some(name);
                let op = Op::Delete { path: &path, version: -1 };
                let reply = connection.call(&Request::Change(Change { opcode: Opcode::Delete, op }))?;
                self.uncertain = None;
                if let Err(e) = reply.response() {
                    let text = format!("the ephemeral {path} was gone before it was deleted: {e}");
                    return Err(stage.broken(Promise::EphemeralsFit, text));
                }
            }
            _ => {
                self.next += 1;
                let name = format!("{}{}", self.prefix, self.next);
                let path = format!("{FOLDER}/{name}");
                self.uncertain = Some(name.clone());
                let reply =
                    connection.call(&Request::Change(create(&path, b"kept", CreateMode::Ephemeral)))?;
                self.uncertain = None;
                if let Err(e) = reply.response() {
                    let text = format!("the ephemeral {path} could not be created: {e}");
                    return Err(stage.broken(Promise::RepliesFit, text));
                }
                stage.ephemerals.fetch_add(1, SeqCst);
                self.kept.insert(name);
            }
        }
        Ok(())
    }

    fn reattach(&mut self, stage: &Stage) -> Result<(), Left> {
        let Some(connection) = &mut self.connection else {
            self.connection = Some(stage.connect(self.home, SESSION_MS)?);
            return Ok(());
        };
        let session = connection.session().id;
        if stage.reattach(self.number, connection, &mut self.home)? {
            self.closing = false;
            for name in &self.kept {
                let path = format!("{FOLDER}/{name}");
                let owner = stat(connection, &path)?.map(|stat| stat.ephemeral_owner);
                judge_kept(&path, session, owner)
                    .map_err(|text| stage.broken(Promise::EphemeralsFit, text))?;
            }
            // Either way will do, but from now on it is certain.
            if let Some(name) = self.uncertain.take() {
                if stat(connection, &format!("{FOLDER}/{name}"))?.is_some() {
                    self.kept.insert(name);
                }
            }
            return Ok(());
        }
        judge_over(session, self.closing).map_err(|text| stage.broken(Promise::SessionsLive, text))?;
        self.closing = false;
        self.connection = Some(stage.connect(self.home, SESSION_MS)?);
        self.kept.clear();
        self.uncertain = None;
        Ok(())
    }

    /// Whose ephemerals are there, in one look.
    fn names(&mut self) -> Result<BTreeSet<String>, Left> {
        let connection = self.connection.as_mut().ok_or(Left::Disconnected)?;
        let reply = connection.call(&Request::GetChildren { path: FOLDER, watch: false })?;
        match reply.response() {
            Ok(Response::Children(names)) => {
                Ok(names.into_iter().filter(|n| n.starts_with(&self.prefix)).map(str::to_owned).collect())
            }
            _ => Err(Left::Disconnected),
        }
    }
}

/// Ephemerals of a short session, which is then left alone.
fn abandon(stage: &Stage, home: usize, names: &BTreeSet<String>) -> Result<(), Left> {
    let mut short = stage.connect(home, SHORT_SESSION_MS)?;
    for name in names {
        let path = format!("{FOLDER}/{name}");
        short.call(&Request::Change(create(&path, b"short", CreateMode::Ephemeral)))?;
    }
    Ok(())
}

/// An ephemeral of a session that lives is there, and the session's own; `owner`: whose it is, if it is there.
fn judge_kept(path: &str, session: i64, owner: Option<i64>) -> Result<(), String> {
    match owner {
        Some(owner) if owner == session => Ok(()),
        Some(owner) => Err(format!("the ephemeral {path} of {session:#x} belongs to {owner:#x}")),
        None => Err(format!("the ephemeral {path} is gone, and its session {session:#x} is not")),
    }
}

/// A session that cannot be attached again was being closed.
fn judge_over(session: i64, closing: bool) -> Result<(), String> {
    if closing { Ok(()) } else { Err(format!("a holder's session {session:#x} is over, and had time left")) }
}

/// An ephemeral that is there, and no session of ours has it or had it.
fn nobodys<'a>(
    there: &'a BTreeSet<String>,
    kept: &BTreeSet<String>,
    abandoned: &[BTreeSet<String>],
) -> Option<&'a String> {
    there.iter().find(|name| !kept.contains(*name) && !abandoned.iter().any(|names| names.contains(*name)))
}

fn left_over(stage: &Stage, name: &str, why: &str) -> Left {
    stage.broken(Promise::EphemeralsFit, format!("the ephemeral {FOLDER}/{name} is left over: {why}"))
}

impl Client for Holder {
    fn work(&mut self, stage: &Stage) -> Left {
        loop {
            if let Err(left) = stage.go_on().and_then(|()| self.step(stage)) {
                return left;
            }
        }
    }

    fn home(&self) -> usize {
        self.home
    }

    fn check(&mut self, stage: &Stage) -> Result<(), Left> {
        self.reattach(stage)?;
        let there = self.names()?;
        if let Some(name) = nobodys(&there, &self.kept, &self.abandoned) {
            return Err(left_over(stage, name, "nobody has it"));
        }
        self.abandoned.retain(|names| names.iter().any(|name| there.contains(name)));
        if self.abandoned.len() >= ABANDONED_MAX || stage.is_last() {
            let abandoned: BTreeSet<String> = self.abandoned.drain(..).flatten().collect();
            let mut left = None;
            must_become(
                stage,
                Promise::EphemeralsFit,
                || "ephemerals of sessions that nobody keeps alive do not go".to_owned(),
                || match self.names() {
                    Ok(there) => there.is_disjoint(&abandoned),
                    Err(why) => {
                        left = Some(why);
                        true
                    }
                },
            )?;
            if let Some(why) = left {
                return Err(why);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{judge_kept, judge_over, nobodys};
    use std::collections::BTreeSet;

    #[test]
    fn an_ephemeral_that_is_lost_or_another_sessions_is_found() {
        assert!(judge_kept("/e", 7, Some(7)).is_ok());
        assert!(judge_kept("/e", 7, None).is_err());
        assert!(judge_kept("/e", 7, Some(8)).is_err());
        // One that became a plain znode.
        assert!(judge_kept("/e", 7, Some(0)).is_err());
    }

    #[test]
    fn an_ephemeral_that_is_left_over_is_found() {
        let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<BTreeSet<_>>();
        let (kept, abandoned) = (names(&["a", "b"]), [names(&["c"]), names(&["d"])]);
        assert_eq!(nobodys(&names(&["a", "c", "d"]), &kept, &abandoned), None);
        assert_eq!(nobodys(&names(&["a", "z"]), &kept, &abandoned), Some(&"z".to_owned()));
    }

    #[test]
    fn a_session_that_is_lost_is_found() {
        assert!(judge_over(7, true).is_ok());
        assert!(judge_over(7, false).is_err());
    }
}
