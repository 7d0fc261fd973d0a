//! Somebody on the stage: what a client of a scenario asks, in words, and what it is told.

use crate::sim::check::shown;
use crate::sim::check::watches::Kept;
use crate::sim::client::Ticket;
use crate::sim::setup;
use crate::sim::workload::{Asked, Workload};
use bytes::BytesMut;
use std::collections::VecDeque;
use warren_storage::{Acl, CreateMode, MemberRole, Op};
use warren_transport::reply::{OpResult, code};
use warren_transport::request::{AddWatchMode, SetWatches, WatcherType};
use warren_transport::{Change, ConnectResponse, Opcode, ReplyHeader, Request, Response, WatcherEvent, xid};

/// Somebody on the stage.
#[derive(Default)]
pub(super) struct Actor {
    pub(super) number: usize,
    /// The server it connects to.
    pub(super) host: usize,
    pub(super) connection: Option<u64>,
    pub(super) greeted: bool,
    pub(super) ticket: Ticket,
    pub(super) timeout_ms: i32,
    /// It accepts a read-only session.
    pub(super) modest: bool,
    pub(super) last_zxid: i64,
    pub(super) next_xid: i32,
    pub(super) input: BytesMut,
    pub(super) asked: VecDeque<(Opcode, String)>,
    pub(super) kept: Kept,
}

/// A request in words. A multi's operations are joined by `+`.
fn request<'a>(text: &'a str, acl: &'a [Acl]) -> Result<Request<'a>, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    if text.contains(" + ") {
        let changes = text.split(" + ").map(|op| match request(op.trim(), acl)? {
            Request::Change(change) => Ok(change),
            other => Err(format!("{other:?} is no operation of a multi")),
        });
        return Ok(Request::Multi(changes.collect::<Result<_, String>>()?));
    }
    let watch = words.last() == Some(&"watch");
    let create = |path, data: &'a str, mode, ttl| {
        let acl = acl.iter().map(Acl::as_ref).collect();
        let op = Op::Create { path, data: Some(data.as_bytes()), acl, mode, ttl };
        let plain = !matches!(mode, CreateMode::Container | CreateMode::Ttl);
        let change = Change::new(op);
        Request::Change(if plain { Change { opcode: Opcode::Create, ..change } } else { change })
    };
    Ok(match words.as_slice() {
        ["create", path, data] => create(path, data, CreateMode::Persistent, 0),
        ["ephemeral", path, data] => create(path, data, CreateMode::Ephemeral, 0),
        ["sequential", path, data] => create(path, data, CreateMode::PersistentSequential, 0),
        ["container", path, data] => create(path, data, CreateMode::Container, 0),
        ["ttl", path, data, ms] => {
            create(path, data, CreateMode::Ttl, ms.parse().map_err(|_| "a TTL in ms")?)
        }
        ["set", path, data] => {
            Request::Change(Change::new(Op::SetData { path, data: Some(data.as_bytes()), version: -1 }))
        }
        ["delete", path] => Request::Change(Change::new(Op::Delete { path, version: -1 })),
        ["check", path, version] => {
            let version = version.parse().map_err(|_| "a version")?;
            Request::Change(Change::new(Op::Check { path, version }))
        }
        ["get", path, ..] => Request::GetData { path, watch },
        ["exists", path, ..] => Request::Exists { path, watch },
        ["children", path, ..] => Request::GetChildren { path, watch },
        ["watch", path] => Request::AddWatch { path, mode: AddWatchMode::Persistent },
        ["watch-below", path] => Request::AddWatch { path, mode: AddWatchMode::PersistentRecursive },
        ["unwatch", path] => Request::RemoveWatches { path, watcher: WatcherType::Any },
        ["sync"] => Request::Sync { path: "/" },
        ["ping"] => Request::Ping,
        ["close"] => Request::CloseSession,
        _ => return Err(format!("{text:?} is no request")),
    })
}

/// A change of the membership in words, if it is one.
fn reconfig(text: &str) -> Result<Option<Asked>, String> {
    let mut words = text.split_whitespace();
    if words.next() != Some("reconfig") {
        return Ok(None);
    }
    let (mut joining, mut leaving, mut config_id) = (Vec::new(), Vec::new(), -1);
    while let (Some(what), Some(which)) = (words.next(), words.next()) {
        let id = || which.parse::<u8>().map_err(|_| format!("{which} is no server"));
        match what {
            "joining" => joining.push(setup::line(id()?, MemberRole::Voter)),
            "observer" => joining.push(setup::line(id()?, MemberRole::Observer)),
            "leaving" => leaving.push(which),
            "from" => config_id = i64::from_str_radix(which, 16).map_err(|_| "a version")?,
            _ => return Err(format!("{what} is nothing that a reconfig says")),
        }
    }
    let listed = |list: &[String]| (!list.is_empty()).then(|| list.join(","));
    let leaving: Vec<String> = leaving.into_iter().map(str::to_owned).collect();
    let (joining, leaving) = (listed(&joining), listed(&leaving));
    Ok(Some(Asked::Reconfig { joining, leaving, members: None, config_id }))
}

impl Actor {
    pub(super) fn keep(&mut self, kept: Option<Kept>) {
        if let Some(kept) = kept {
            self.kept = kept;
        }
    }

    pub(super) fn ask(&mut self, text: &str, out: &mut Vec<u8>) -> Result<(), String> {
        if text == "garbage" {
            // A setData whose path is longer than the packet.
            self.asked.push_back((Opcode::SetData, text.to_owned()));
            Asked::Raw(Opcode::SetData.wire(), vec![0, 0, 0, 9, b'/']).encode(self.next_xid, out);
            self.next_xid += 1;
            return Ok(());
        }
        let acl = Acl::open();
        let kept = std::mem::take(&mut self.kept);
        fn strs(list: &[String]) -> Vec<&str> {
            list.iter().map(String::as_str).collect()
        }
        let changed = reconfig(text)?;
        let request = if let Some(Asked::Reconfig { joining, leaving, config_id, .. }) = &changed {
            let (joining, leaving) = (joining.as_deref(), leaving.as_deref());
            Request::Reconfig { joining, leaving, members: None, config_id: *config_id }
        } else if text == "administrator" {
            Workload::administrator()
        } else if text == "rewatch" {
            Request::SetWatches(SetWatches {
                relative_zxid: self.last_zxid,
                data: strs(&kept.data),
                exist: strs(&kept.exist),
                child: strs(&kept.child),
                persistent: Some((strs(&kept.persistent), strs(&kept.recursive))),
            })
        } else {
            request(text, &acl)?
        };
        let xid = match request.opcode() {
            Opcode::Ping => xid::PING,
            Opcode::SetWatches2 => xid::SET_WATCHES,
            Opcode::Auth => xid::AUTH,
            _ => {
                self.next_xid += 1;
                self.next_xid - 1
            }
        };
        if xid != xid::PING && xid != xid::AUTH {
            self.asked.push_back((request.opcode(), text.to_owned()));
        }
        request.encode(xid, out);
        Ok(())
    }

    /// What a packet says, in words.
    pub(super) fn hear(&mut self, packet: &[u8]) -> Option<String> {
        if !self.greeted {
            let response = ConnectResponse::decode(packet).ok()?;
            if response.is_expired() {
                return Some("the session is expired".into());
            }
            self.greeted = true;
            let again = response.session == self.ticket.session;
            self.ticket = Ticket { session: response.session, password: response.password };
            let read_only = response.read_only == Some(true);
            return Some(format!(
                "a {}session{}, {} ms",
                if read_only { "read-only " } else { "" },
                if again { " again" } else { "" },
                response.timeout_ms
            ));
        }
        let (header, body) = ReplyHeader::decode(packet).ok()?;
        let zxid = shown(header.zxid);
        match header.xid {
            xid::NOTIFICATION => {
                let event = WatcherEvent::decode(body).ok()?;
                return Some(format!("event {:?} {} at {zxid}", event.kind, event.path));
            }
            xid::PING => return Some(format!("pong at {zxid}")),
            xid::AUTH => return Some(format!("authenticated: {}", header.err == 0)),
            _ => {}
        }
        self.last_zxid = self.last_zxid.max(header.zxid);
        let (opcode, text) = self.asked.pop_front()?;
        let answer = match (header.err, Response::decode(opcode, body)) {
            (0, Ok(response)) => words_of(&response),
            (0, Err(e)) => format!("malformed: {e}"),
            (err, _) => code(err).map_or(err.to_string(), |code| format!("refused: {code}")),
        };
        Some(format!("{text} at {zxid}: {answer}"))
    }
}

fn words_of(response: &Response<'_>) -> String {
    let data = |data: &Option<&[u8]>| String::from_utf8_lossy(data.unwrap_or_default()).into_owned();
    match response {
        Response::Empty | Response::Number(_) => "ok".into(),
        Response::Path(path) | Response::PathAndStat(path, _) => (*path).to_owned(),
        Response::Stat(stat) => format!("version {}", stat.version),
        Response::Data(bytes, stat) => format!("{:?} version {}", data(bytes), stat.version),
        Response::Children(names) => format!("{names:?}"),
        Response::Multi(results) => {
            let words = results.iter().map(|result| match result {
                OpResult::Create { path } | OpResult::Create2 { path, .. } => (*path).to_owned(),
                OpResult::SetData { stat } => format!("version {}", stat.version),
                OpResult::Error { err } => code(*err).map_or(err.to_string(), |code| code.to_string()),
                _ => "ok".into(),
            });
            words.collect::<Vec<_>>().join(" + ")
        }
        other => format!("{other:?}"),
    }
}
