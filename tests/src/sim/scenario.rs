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
//! > servers 3 spares 1                             server 4 is a machine with an empty disk, and does not run
//! > member add 4 [observer] [by 2]                 an operator asks the leader, or server 2; likewise promote, demote,
//!                                                  remove, replace
//! > alice: administrator; reconfig leaving 3       she may change the membership, and does; also `joining 4`,
//!                                                  `observer 4`, and `from` a version
//! > force quorum 2                                 server 2 is made the only voter
//! > alice connects to 2 [MS]; > kill 2; > start 2; > checkpoint 2; > hold log 2
//! > kill leader; > start all; > alice connects to leader      …or the leader, a follower, or all of them
//! > wipe follower                                it goes, and its disk is lost
//! > low 3; > space 3                             server 3's disk is below its reserve, or above it again
//! > rot 3                                        something is written, and server 3 applies it otherwise
//! > alone leader; > apart 1 2 | 3; > join          who reaches whom
//! > hand over to 2                                 the leader gives leadership to server 2
//! > anew 2                                         server 2 begins anew in place, with its connections
//! > elect                                          time passes until one leads whom a majority follows
//! > all                                            where everybody stands
//! > feeds                                          who feeds the observers, and through how many hands
//! ```

mod actor;

use super::check::shown;
use super::client::Ticket;
use super::context::{Context, Event, Halt, Step};
use super::host::Host;
use super::server::{Server, address_of, deliver};
use super::trace::Trace;
use super::wire::Wire;
use super::world::{arrive, rot, server_of};
use super::{Dice, Setup, net, partition, setup};
use actor::Actor;
use std::collections::BTreeMap;
use warren_server::consensus::Role;
use warren_storage::members;
use warren_storage::simdisk::SimDisk;
use warren_transport::{ConnectRequest, take_frame};

/// Play a scenario; its text with what happened. `Err` for a step that means nothing.
pub fn play(text: &str) -> Result<String, String> {
    let stated = text.lines().find_map(|line| line.strip_prefix("> servers ")).unwrap_or("1");
    let words: Vec<&str> = stated.split_whitespace().collect();
    let (servers, observers, spares, read_only) = match words.as_slice() {
        [servers] => (*servers, "0", "0", false),
        [servers, "read-only"] => (*servers, "0", "0", true),
        [servers, "observers", observers] => (*servers, *observers, "0", false),
        [servers, "spares", spares] => (*servers, "0", *spares, false),
        [servers, "observers", observers, "spares", spares] => (*servers, *observers, *spares, false),
        _ => {
            return Err(
                "servers takes a number, and maybe `read-only`, or numbers of `observers` and `spares`"
                    .into(),
            );
        }
    };
    let number = |text: &str| text.parse::<usize>().map_err(|_| format!("{text} is no number"));
    let still = Setup::still(number(servers)?, number(observers)?, number(spares)?);
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
        Step::Stream(_) | Step::Confirm => "stream",
        Step::Ask => "ask",
        Step::Service | Step::ServiceTimer(_) => "service",
        Step::Publish => "publish",
        Step::Checkpoint | Step::Checkpointed => "checkpoint",
        Step::Connection(_) => "connections",
        Step::Anew => "anew",
    }
}

impl Stage {
    fn new(setup: Setup) -> Stage {
        let (hosts, founders) = (setup.hosts(), setup.servers + setup.observers);
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
        for host in 0..founders {
            stage.start(host);
        }
        stage.settle(0);
        stage
    }

    fn start(&mut self, host: usize) {
        self.hosts[host].parked = false;
        match self.hosts[host].start(&mut self.ctx) {
            Ok(()) => {}
            Err(Halt::Wiped) => self.told.push(format!("server {} does not start: it was wiped", host + 1)),
            Err(halt) => self.told.push(format!("the server does not start: {halt:?}")),
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

    /// Who feeds the observers, and through how many hands what they get has gone.
    fn tell_feeds(&mut self) {
        let servers = || self.hosts.iter().filter_map(|host| host.server.as_ref());
        let fed = |role: Role| {
            let each = servers().filter(|server| server.facts().role == role);
            each.map(|server| server.facts().observers.len()).collect::<Vec<_>>()
        };
        let feeder = |id: u8| self.hosts[net::host_of(id)].server.as_ref().and_then(|s| s.facts().feeder);
        let hands = |observer: &Server| {
            let own = observer.facts().feeder;
            std::iter::successors(own, |id| feeder(*id)).take(self.hosts.len()).count()
        };
        let observers = || servers().filter(|server| server.observes());
        let told = vec![
            format!("the leader feeds {:?}, followers {:?}", fed(Role::Leading), fed(Role::Following)),
            format!(
                "{} of {} observers are fed, through {} hands at most; {} of them feed others, one {} at most",
                observers().filter(|server| server.facts().feeder.is_some()).count(),
                observers().count(),
                observers().map(hands).max().unwrap_or(0),
                fed(Role::Observing).into_iter().filter(|fed| *fed > 0).count(),
                fed(Role::Observing).into_iter().max().unwrap_or(0),
            ),
        ];
        self.told.extend(told);
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
                (host, Err(Halt::Anew)) => {
                    self.told.push(format!("server {} begins anew in place", host + 1));
                    let begun = self.hosts[host].begin_anew(&mut self.ctx);
                    assert!(begun.is_ok(), "nothing fails on this disk: {begun:?}");
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
            ["anew", rest @ ..] => {
                for host in self.meant(rest)? {
                    if let Some(server) = &mut self.hosts[host].server {
                        server.begin_anew(&mut self.ctx);
                    }
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
            ["force", "quorum", rest @ ..] => {
                let host = self.meant(rest)?[0];
                if let Some(server) = &mut self.hosts[host].server {
                    server.force_quorum(&mut self.ctx);
                }
            }
            ["member", what, which, rest @ ..] => {
                let (observer, rest) = match rest {
                    ["observer", rest @ ..] => (true, rest),
                    rest => (false, rest),
                };
                let host = self.meant(&[*which])?[0];
                let id = net::id_of(host);
                let change = match *what {
                    "add" => {
                        self.hosts[host].observes = observer;
                        setup::add(id, observer)
                    }
                    "remove" => members::Change::Remove { id },
                    "replace" => members::Change::Replace { id },
                    "promote" => members::Change::Promote { id },
                    "demote" => members::Change::Demote { id },
                    _ => return Err("add, remove, replace, promote or demote?".into()),
                };
                let by = match rest {
                    [] => self.meant(&["leader"])?[0],
                    ["by", server] => self.meant(&[*server])?[0],
                    _ => return Err("member … by which server?".into()),
                };
                if let Some(server) = &mut self.hosts[by].server {
                    server.reconfigure(&mut self.ctx, change);
                }
            }
            ["rot", which] => {
                let bad = self.meant(&[*which])?[0];
                self.rots += 1;
                rot::begin(&mut self.ctx, &mut self.hosts, bad, self.rots);
            }
            ["low", which] => self.set_low(which, true)?,
            ["space", which] => self.set_low(which, false)?,
            ["members"] => self.tell_members(),
            ["elect"] => self.elect()?,
            ["all"] => self.stand(),
            ["feeds"] => self.tell_feeds(),
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

    fn set_low(&mut self, which: &str, low: bool) -> Result<(), String> {
        let host = self.meant(&[which])?[0];
        if let Some(server) = &mut self.hosts[host].server {
            server.refuse_growth(&mut self.ctx, low);
        }
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
