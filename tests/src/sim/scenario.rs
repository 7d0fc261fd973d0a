//! Classic cases as conversations: a text file gives the story, the simulator plays it without any chance, and what
//! everybody was told stands below each step.
//!
//! Lines that begin with `>` are steps, lines that begin with `#` say why; all others are what happened and are
//! written by [`play`]. No time passes but by `wait`, and nobody says anything unasked.
//!
//! ```text
//! > alice connects [MS]                            a new session, with this timeout
//! > alice connects [MS] read-only                 the same; she would rather read only than not be served
//! > alice reconnects                               her session again
//! > alice takes bob                                bob's session, on a connection of hers
//! > alice drops                                    her connection is lost
//! > alice: create /a one; get /a watch; sync       pipelined in one packet; see `request`
//! > hold log; > release log                        consensus, log, service, publish, checkpoint
//! > power loss; > kill; > start; > wait 1500; > checkpoint
//!
//! > servers 3 [read-only]                          in front of everything else; then the steps above name a server;
//!                                                  `read-only`: without a leader they serve reads
//! > servers 3 observers 2                          the observers are servers 4 and 5, and 5 is fed by 4
//! > alice connects to 2 [MS]; > kill 2; > start 2; > checkpoint 2; > hold log 2
//! > kill leader; > start all; > alice connects to leader      …or the leader, a follower, or all of them
//! > wipe follower                                it goes, and its disk is lost
//! > rot 3                                        something is written, and server 3 applies it otherwise
//! > alone leader; > apart 1 2 | 3; > join          who reaches whom
//! > hand over to 2                                 the leader gives leadership to server 2
//! > elect                                          time passes until one leads whom a majority follows
//! > all                                            where everybody stands
//! ```

use super::check::shown;
use super::check::watches::Kept;
use super::client::Ticket;
use super::context::{Context, Event, Halt, Step};
use super::host::Host;
use super::server::{address_of, deliver};
use super::trace::Trace;
use super::wire::Wire;
use super::workload::Asked;
use super::world::{arrive, rot, server_of};
use super::{Dice, Setup, net, partition};
use bytes::BytesMut;
use std::collections::{BTreeMap, VecDeque};
use warren_storage::members;
use warren_storage::simdisk::SimDisk;
use warren_storage::{Acl, CreateMode, Op};
use warren_transport::reply::{OpResult, code};
use warren_transport::request::{AddWatchMode, SetWatches, WatcherType};
use warren_transport::{
    Change, ConnectRequest, ConnectResponse, Opcode, ReplyHeader, Request, Response, WatcherEvent,
    take_frame, xid,
};

/// Play a scenario; its text with what happened. `Err` for a step that means nothing.
pub fn play(text: &str) -> Result<String, String> {
    let stated = text.lines().find_map(|line| line.strip_prefix("> servers ")).unwrap_or("1");
    let words: Vec<&str> = stated.split_whitespace().collect();
    let (servers, observers, read_only) = match words.as_slice() {
        [servers] => (*servers, "0", false),
        [servers, "read-only"] => (*servers, "0", true),
        [servers, "observers", observers] => (*servers, *observers, false),
        _ => return Err("servers takes a number, and maybe `read-only` or `observers` and a number".into()),
    };
    let number = |text: &str| text.parse::<usize>().map_err(|_| format!("{text} is no number"));
    let still = Setup::still(number(servers)?, number(observers)?);
    let mut stage = Stage::new(Setup { read_only, ..still });
    let mut told = String::new();
    for line in text.lines() {
        if line.starts_with('#') || line.trim().is_empty() {
            told.push_str(line);
            told.push('\n');
        } else if let Some(step) = line.strip_prefix('>') {
            told.push_str(line);
            told.push('\n');
            if step.trim().starts_with("servers ") {
                continue;
            }
            stage.step(step.trim()).map_err(|e| format!("{line}: {e}"))?;
            for line in stage.told.drain(..) {
                told.push_str(&format!("    {line}\n"));
            }
        }
    }
    Ok(told)
}

/// Somebody on the stage.
#[derive(Default)]
struct Actor {
    number: usize,
    /// The server it connects to.
    host: usize,
    connection: Option<u64>,
    greeted: bool,
    ticket: Ticket,
    timeout_ms: i32,
    /// It accepts a read-only session.
    modest: bool,
    last_zxid: i64,
    next_xid: i32,
    input: BytesMut,
    asked: VecDeque<(Opcode, String)>,
    kept: Kept,
}

struct Stage {
    ctx: Context,
    hosts: Vec<Host>,
    actors: BTreeMap<String, Actor>,
    /// Names of threads, of every host or of one.
    held: Vec<(String, Option<usize>)>,
    waiting: Vec<Event>,
    told: Vec<String>,
    /// Writes that went bad.
    rots: u64,
}

/// How long an election is waited for, in steps.
const ELECTION_STEPS_MAX: u32 = 1_000;
/// One step of it, µs.
const ELECTION_STEP_US: u64 = 10_000;

/// The name of the thread that takes this step, for `hold`.
fn thread_of(step: Step) -> &'static str {
    match step {
        Step::Consensus | Step::ConsensusTimer(_) | Step::Repeat => "consensus",
        Step::Log | Step::Logged(_) | Step::Installed => "log",
        Step::Stream(_) => "stream",
        Step::Ask => "ask",
        Step::Service | Step::ServiceTimer(_) => "service",
        Step::Publish => "publish",
        Step::Checkpoint | Step::Checkpointed => "checkpoint",
        Step::Connection(_) => "connections",
    }
}

impl Stage {
    fn new(setup: Setup) -> Stage {
        let hosts = setup.hosts();
        let ctx = Context::new(Dice::new(0), setup, None, Trace::new(false));
        let mut stage = Stage {
            ctx,
            hosts: (0..hosts).map(Host::new).collect(),
            actors: BTreeMap::new(),
            held: Vec::new(),
            waiting: Vec::new(),
            told: Vec::new(),
            rots: 0,
        };
        for host in 0..hosts {
            stage.start(host);
        }
        stage.settle(0);
        stage
    }

    fn start(&mut self, host: usize) {
        if let Err(halt) = self.hosts[host].start(&mut self.ctx) {
            self.told.push(format!("the server does not start: {halt:?}"));
        }
    }

    fn stop(&mut self, host: usize, power: bool) {
        self.waiting.retain(|event| !matches!(event, Event::Server(of, ..) if *of == host));
        self.hosts[host].stop(&mut self.ctx, power, 0);
    }

    fn leader(&self) -> Option<usize> {
        let leads = |host: &Host| host.server.as_ref().filter(|s| s.leads()).map(|s| s.facts().term);
        let leaders = self.hosts.iter().filter_map(|host| Some((leads(host)?, host.number)));
        leaders.max().map(|(_, host)| host)
    }

    /// Which servers a step means; with one server, it need not say.
    fn meant(&self, words: &[&str]) -> Result<Vec<usize>, String> {
        let leader = || self.leader().ok_or("nobody leads".to_owned());
        Ok(match words {
            [] if self.hosts.len() == 1 => vec![0],
            ["all"] => (0..self.hosts.len()).collect(),
            ["leader"] => vec![leader()?],
            ["follower"] => vec![(leader()? + 1) % self.ctx.setup.servers],
            [number] => match number.parse::<usize>() {
                Ok(number) if (1..=self.hosts.len()).contains(&number) => vec![number - 1],
                _ => return Err(format!("{number} is no server")),
            },
            _ => return Err("which server?".into()),
        })
    }

    /// Time passes until one leads whom a majority follows.
    fn elect(&mut self) -> Result<(), String> {
        for _ in 0..ELECTION_STEPS_MAX {
            self.settle(ELECTION_STEP_US);
            let leader = self.leader().map(net::id_of);
            let voters = self.ctx.setup.servers;
            let up = self.hosts[..voters].iter().filter_map(|host| host.server.as_ref());
            let follow = up.filter(|s| s.is_serving() && s.facts().leader == leader).count();
            if leader.is_some() && follow > voters / 2 {
                return Ok(());
            }
        }
        Err("nobody is elected".into())
    }

    /// Where everybody stands.
    fn stand(&mut self) {
        if self.ctx.snapshots > 0 {
            self.told.push(format!("trees sent so far: {}", self.ctx.snapshots));
        }
        for host in &self.hosts {
            let name = format!("server {}", host.number + 1);
            self.told.push(match &host.server {
                None => format!("{name} is down"),
                Some(server) => {
                    let zxid = shown(server.service().tree().zxid().wire());
                    let wrong = if server.service().is_wrong() { ", and its tree is wrong" } else { "" };
                    format!("{name} is {:?}, at {zxid}{wrong}", server.facts().role).to_lowercase()
                }
            });
        }
    }

    /// Who belongs to the ensemble, as its leader has it.
    fn tell_members(&mut self) {
        let leader = self.leader().and_then(|leader| self.hosts[leader].server.as_ref());
        let Some(server) = leader else { return self.told.push("nobody leads".into()) };
        for m in &server.service().tree().members().servers {
            self.told.push(format!("server {} disk {} {:?}", m.id, m.disk, m.role).to_lowercase());
        }
    }

    /// Everything that is due within this time.
    fn settle(&mut self, us: u64) {
        let until = self.ctx.now_us + us;
        while self.ctx.next_us().is_some_and(|at| at <= until) {
            let Some(event) = self.ctx.next() else { break };
            match self.happen(event) {
                (_, Ok(())) => {}
                (host, Err(Halt::Exit(why))) => {
                    self.told.push(format!("server {} stops: {why}", host + 1));
                    self.stop(host, false);
                }
                (host, Err(Halt::Begins(begins))) => {
                    if let Err(halt) = self.hosts[host].begin(&mut self.ctx, begins) {
                        self.told.push(format!("!! {halt:?}"));
                    }
                }
                (_, Err(halt)) => self.told.push(format!("!! {halt:?}")),
            }
        }
        self.ctx.now_us = until;
    }

    /// At which host, and what came of it.
    fn happen(&mut self, event: Event) -> (usize, Result<(), Halt>) {
        let Stage { ctx, hosts, held, waiting, .. } = self;
        match event {
            Event::Server(host, _, step)
                if held
                    .iter()
                    .any(|(name, of)| name == thread_of(step) && of.is_none_or(|of| of == host)) =>
            {
                waiting.push(event);
                (host, Ok(()))
            }
            Event::Server(host, life, step) => (host, hosts[host].step(ctx, life, step)),
            Event::Letter(number) => net::arrive(ctx, hosts, number),
            Event::ToServer(id) => {
                arrive(ctx, id, true);
                if let Some(server) = server_of(ctx, hosts, id) {
                    server.wake_connection(ctx, id);
                }
                (0, Ok(()))
            }
            Event::ToClient(id) => {
                arrive(ctx, id, false);
                (0, self.read(id))
            }
            _ => (0, Ok(())),
        }
    }

    fn read(&mut self, id: u64) -> Result<(), Halt> {
        let Stage { ctx, actors, told, .. } = self;
        let Some((name, actor)) = actors.iter_mut().find(|(_, actor)| actor.connection == Some(id)) else {
            return Ok(());
        };
        let Some(wire) = ctx.wires.get_mut(&id) else { return Ok(()) };
        let bytes = wire.to_client.read();
        let over = wire.to_client.is_over();
        actor.input.extend_from_slice(&bytes);
        while let Ok(Some(packet)) = take_frame(&mut actor.input, usize::MAX >> 1) {
            if actor.greeted {
                ctx.checks.on_received(id, &packet)?;
            }
            if let Some(what) = actor.hear(&packet) {
                told.push(format!("{name} < {what}"));
            }
        }
        if over {
            told.push(format!("{name} is disconnected"));
            actor.connection = None;
            actor.keep(ctx.checks.on_closed(id));
            ctx.wires.remove(&id);
        }
        Ok(())
    }

    fn step(&mut self, step: &str) -> Result<(), String> {
        if let Some((name, requests)) = step.split_once(": ") {
            let actor = self.actors.get_mut(name).ok_or("nobody of that name")?;
            let id = actor.connection.ok_or("no connection")?;
            let mut bytes = Vec::new();
            for request in requests.split(';') {
                let start = bytes.len();
                actor.ask(request.trim(), &mut bytes)?;
                self.ctx.checks.on_sent(id, &bytes[start + 4..]);
            }
            if let Some(wire) = self.ctx.wires.get_mut(&id) {
                wire.to_server.send(&bytes);
                deliver(&mut self.ctx, id, true);
            }
            self.settle(0);
            return Ok(());
        }
        let words: Vec<&str> = step.split_whitespace().collect();
        match words.as_slice() {
            ["servers", _] => return Err("is the first step".into()),
            ["hold", thread, rest @ ..] => {
                let of = if rest.is_empty() { None } else { Some(self.meant(rest)?[0]) };
                self.held.push(((*thread).to_owned(), of));
            }
            ["release", thread] => {
                self.held.retain(|(name, _)| name != thread);
                for event in std::mem::take(&mut self.waiting) {
                    self.ctx.after(0, event);
                }
            }
            ["power", "loss", rest @ ..] => {
                self.meant(rest)?.into_iter().for_each(|host| self.stop(host, true))
            }
            ["kill", rest @ ..] => self.meant(rest)?.into_iter().for_each(|host| self.stop(host, false)),
            ["start", rest @ ..] => self.meant(rest)?.into_iter().for_each(|host| self.start(host)),
            ["wipe", rest @ ..] => {
                for host in self.meant(rest)? {
                    self.stop(host, true);
                    self.hosts[host].disk = SimDisk::new();
                }
            }
            ["checkpoint", rest @ ..] => {
                for host in self.meant(rest)? {
                    if let Some(server) = &mut self.hosts[host].server {
                        server.checkpoint_now(&mut self.ctx);
                    }
                }
            }
            ["alone", rest @ ..] => {
                for one in self.meant(rest)? {
                    for other in 0..self.hosts.len() {
                        self.ctx.net.block(one, other);
                        self.ctx.net.block(other, one);
                    }
                }
            }
            ["apart", groups @ ..] => {
                let side = groups.iter().position(|word| *word == "|").ok_or("apart takes two groups")?;
                let of = |words: &[&str]| -> Result<Vec<usize>, String> {
                    let each = words.iter().map(|word| self.meant(&[*word]));
                    Ok(each.collect::<Result<Vec<_>, _>>()?.concat())
                };
                let (here, there) = (of(&groups[..side])?, of(&groups[side + 1..])?);
                for (one, other) in here.iter().flat_map(|one| there.iter().map(move |other| (*one, *other)))
                {
                    self.ctx.net.block(one, other);
                    self.ctx.net.block(other, one);
                }
            }
            ["join"] => partition::end(&mut self.ctx),
            ["hand", "over", "to", to] => {
                let to = net::id_of(self.meant(&[*to])?[0]);
                let leader = self.meant(&["leader"])?[0];
                if let Some(server) = &mut self.hosts[leader].server {
                    server.transfer(&mut self.ctx, Some(to));
                }
            }
            ["member", what, which] => {
                let id = net::id_of(self.meant(&[*which])?[0]);
                let change = match *what {
                    "add" => self.ctx.setup.add(id),
                    "remove" => members::Change::Remove { id },
                    "replace" => members::Change::Replace { id },
                    "promote" => members::Change::Promote { id },
                    "demote" => members::Change::Demote { id },
                    _ => return Err("add, remove, replace, promote or demote?".into()),
                };
                let leader = self.meant(&["leader"])?[0];
                if let Some(server) = &mut self.hosts[leader].server {
                    server.reconfigure(&mut self.ctx, change);
                }
            }
            ["rot", which] => {
                let bad = self.meant(&[*which])?[0];
                self.rots += 1;
                rot::begin(&mut self.ctx, &mut self.hosts, bad, self.rots);
            }
            ["members"] => self.tell_members(),
            ["elect"] => self.elect()?,
            ["all"] => self.stand(),
            ["wait", ms] => {
                let ms: u64 = ms.parse().map_err(|_| "wait takes ms")?;
                self.settle(ms * 1_000);
            }
            [name, "connects", rest @ ..] => {
                let number = self.actors.len();
                let (modest, rest) = match rest {
                    [rest @ .., "read-only"] => (true, rest),
                    rest => (false, rest),
                };
                let (host, rest) = self.addressed(rest)?;
                let actor = self.actors.entry((*name).to_owned()).or_default();
                *actor = Actor { number, host, next_xid: 1, timeout_ms: 4_000, modest, ..Actor::default() };
                if let [ms] = rest {
                    actor.timeout_ms = ms.parse().map_err(|_| "connects takes ms")?;
                }
                self.connect(name, Ticket::default())?;
            }
            [name, "reconnects", rest @ ..] => {
                let host = if rest.is_empty() { None } else { Some(self.addressed(rest)?.0) };
                let actor = self.actors.get_mut(*name).ok_or("nobody of that name")?;
                actor.host = host.unwrap_or(actor.host);
                let ticket = actor.ticket.clone();
                self.connect(name, ticket)?;
            }
            [name, "takes", other] => {
                let ticket = self.actors.get(*other).ok_or("nobody of that name")?.ticket.clone();
                let number = self.actors.len();
                self.actors.entry((*name).to_owned()).or_insert(Actor {
                    number,
                    next_xid: 1,
                    timeout_ms: 4_000,
                    ..Actor::default()
                });
                self.connect(name, ticket)?;
            }
            [name, "drops"] => {
                let actor = self.actors.get_mut(*name).ok_or("nobody of that name")?;
                let id = actor.connection.take().ok_or("no connection")?;
                actor.keep(self.ctx.checks.on_closed(id));
                if let Some(wire) = self.ctx.wires.get_mut(&id) {
                    wire.client_gone = true;
                    wire.to_server.end();
                    deliver(&mut self.ctx, id, true);
                }
            }
            _ => return Err("no such step".into()),
        }
        self.settle(0);
        Ok(())
    }

    /// To which server a client connects, and what else the step says.
    fn addressed<'a>(&self, words: &'a [&'a str]) -> Result<(usize, &'a [&'a str]), String> {
        match words {
            ["to", server, rest @ ..] => Ok((self.meant(&[*server])?[0], rest)),
            rest => Ok((0, rest)),
        }
    }

    fn connect(&mut self, name: &str, ticket: Ticket) -> Result<(), String> {
        let actor = self.actors.get_mut(name).ok_or("nobody of that name")?;
        let Some(server) = &mut self.hosts[actor.host].server else {
            self.told.push(format!("{name} finds no server"));
            return Ok(());
        };
        self.ctx.connections += 1;
        let id = self.ctx.connections;
        self.ctx.wires.insert(id, Wire { client: actor.number, host: actor.host, ..Wire::default() });
        self.ctx.checks.on_connection(id, actor.number, address_of(actor.number));
        server.accept(&mut self.ctx, id, actor.number);
        actor.connection = Some(id);
        actor.greeted = false;
        actor.asked.clear();
        actor.input.clear();
        let mut bytes = Vec::new();
        ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: actor.last_zxid,
            timeout_ms: actor.timeout_ms,
            session: ticket.session,
            password: &ticket.password,
            read_only: Some(actor.modest),
        }
        .encode(&mut bytes);
        if let Some(wire) = self.ctx.wires.get_mut(&id) {
            wire.to_server.send(&bytes);
        }
        deliver(&mut self.ctx, id, true);
        Ok(())
    }
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

impl Actor {
    fn keep(&mut self, kept: Option<Kept>) {
        if let Some(kept) = kept {
            self.kept = kept;
        }
    }

    fn ask(&mut self, text: &str, out: &mut Vec<u8>) -> Result<(), String> {
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
        let request = if text == "rewatch" {
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
            _ => {
                self.next_xid += 1;
                self.next_xid - 1
            }
        };
        if xid != xid::PING {
            self.asked.push_back((request.opcode(), text.to_owned()));
        }
        request.encode(xid, out);
        Ok(())
    }

    /// What a packet says, in words.
    fn hear(&mut self, packet: &[u8]) -> Option<String> {
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
