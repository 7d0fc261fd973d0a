//! A run: the loop that lets events happen, the faults, the two phases and the verdict.

use super::check::{Violation, heal};
use super::client::Client;
use super::context::{Context, Event, Halt};
use super::server::{Server, deliver};
use super::trace::Trace;
use super::{Dice, Planted, Setup};
use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use warren_storage::Disk as _;
use warren_storage::simdisk::SimDisk;

/// The first phase ends at this time at the latest, µs, though not every request is sent.
const FIRST_PHASE_US_MAX: u64 = 60_000_000;

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Equal seeds, equal hashes.
    pub hash: u64,
    /// Lines of the trace.
    pub events: u64,
    /// Requests sent, pings included.
    pub requests: u64,
    /// Replies judged.
    pub replies: u64,
    /// Watch events judged.
    pub watch_events: u64,
    /// Commands in the log.
    pub commands: u64,
    /// Lives of the server.
    pub lives: u64,
    /// Simulated time, µs.
    pub simulated_us: u64,
}

impl Summary {
    /// Both together.
    pub fn add(&mut self, other: &Summary) {
        let Summary { hash, events, requests, replies, watch_events, commands, lives, simulated_us } = other;
        self.hash ^= hash;
        self.events += events;
        self.requests += requests;
        self.replies += replies;
        self.watch_events += watch_events;
        self.commands += commands;
        self.lives += lives;
        self.simulated_us += simulated_us;
    }
}

/// Why a run failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// What was planted.
    pub planted: Option<Planted>,
    /// What does not hold.
    pub violation: Violation,
    /// When, µs.
    pub at_us: u64,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { seed, planted, violation, at_us } = self;
        write!(f, "seed {seed} at {}.{:06}: {violation}", at_us / 1_000_000, at_us % 1_000_000)?;
        let planted = planted.map_or(String::new(), |planted| format!(" --planted {planted:?}"));
        write!(f, "\nreplay: cargo run -p warren-tests --bin sim -- --seed {seed}{planted} --trace")
    }
}

/// Run one seed to its end.
pub fn run(seed: u64, planted: Option<Planted>, trace: bool) -> Result<Summary, Failure> {
    let mut dice = Dice::new(seed);
    let setup = Setup::draw(&mut dice);
    let mut world = World::new(Context::new(dice, setup, planted, Trace::new(trace)));
    let violation = match catch_unwind(AssertUnwindSafe(|| world.run())) {
        Ok(Ok(())) => return Ok(world.summary()),
        Ok(Err(violation)) => violation,
        Err(panic) => {
            let what = text_of(&*panic);
            // What a panic left behind is not to be dropped with care.
            let at_us = world.ctx.now_us;
            std::mem::forget(world);
            return Err(Failure {
                seed,
                planted,
                violation: Violation { property: "no panic", what },
                at_us,
            });
        }
    };
    Err(Failure { seed, planted, violation, at_us: world.ctx.now_us })
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_else(|| "a panic".into())
}

struct World {
    ctx: Context,
    disk: SimDisk,
    server: Option<Server>,
    clients: Vec<Client>,
    lives: u32,
    /// Requests that may still be sent in the first phase.
    budget: u64,
    /// Clients do nothing any more.
    frozen: bool,
    refusing: bool,
}

impl World {
    fn new(mut ctx: Context) -> World {
        let clients = (0..ctx.setup.clients as usize).map(|id| Client::new(&mut ctx, id)).collect();
        let budget = ctx.setup.requests;
        World {
            ctx,
            disk: SimDisk::new(),
            server: None,
            clients,
            lives: 0,
            budget,
            frozen: false,
            refusing: false,
        }
    }

    fn summary(&self) -> Summary {
        Summary {
            hash: self.ctx.trace.hash(),
            events: self.ctx.trace.lines(),
            requests: self.clients.iter().map(|c| c.sent).sum(),
            replies: self.ctx.checks.replies,
            watch_events: self.ctx.checks.events,
            commands: self.ctx.checks.history.facts.len() as u64,
            lives: u64::from(self.lives),
            simulated_us: self.ctx.now_us,
        }
    }

    fn run(&mut self) -> Result<(), Violation> {
        let setup = self.ctx.setup.clone();
        self.ctx.note("world", format_args!("{setup:?}"));
        self.disk.set_stale_space(self.ctx.dice.chance(500));
        self.ctx.at(0, Event::Start);
        for client in 0..self.clients.len() {
            let at = self.ctx.dice.below(50_000);
            self.ctx.at(at, Event::Client(client));
        }
        if setup.fault_every_us > 0 {
            let at = self.ctx.dice.below(2 * setup.fault_every_us);
            self.ctx.at(at, Event::Fault);
        }
        // The first phase: everything may break.
        self.run_until(|world| world.budget == 0 || world.ctx.now_us > FIRST_PHASE_US_MAX)?;
        let grace_us = self.ctx.now_us + self.ctx.dice.below(500_000);
        self.run_until(|world| world.ctx.now_us > grace_us)?;

        // The second: nothing does.
        self.ctx.note("world", format_args!("heals"));
        self.ctx.healing = true;
        self.disk.set_capacity(None);
        self.disk.call_off();
        if self.refusing {
            self.toggle_growth();
        }
        // Twice, so that what the first round changed is told before the second is over.
        for _ in 0..2 {
            self.clients.iter_mut().for_each(Client::heal);
            for client in 0..self.clients.len() {
                if let Some(connection) = self.clients[client].connection {
                    self.ctx.soon(Event::ToClient(connection));
                }
            }
            self.run_healing(|world| world.clients.iter().all(Client::is_well))?;
        }
        self.frozen = true;
        self.run_healing(World::is_quiet)?;
        self.judge_quiet()?;

        // What was acknowledged outlives the power.
        let World { ctx, clients, server, .. } = self;
        clients.iter_mut().for_each(|client| client.disconnect(ctx, server, "the end"));
        self.crash(true);
        self.run_healing(|world| world.server.as_ref().is_some_and(Server::is_serving) && world.is_quiet())?;
        self.judge_quiet()
    }

    fn is_quiet(&self) -> bool {
        let committed = self.ctx.checks.history.position();
        self.server.as_ref().is_some_and(|s| s.is_quiet() && s.service().tree().position() == committed)
    }

    fn judge_quiet(&mut self) -> Result<(), Violation> {
        match &self.server {
            Some(server) => self.ctx.checks.on_quiet(server.service()),
            None => Ok(()),
        }
    }

    fn run_until(&mut self, done: impl Fn(&World) -> bool) -> Result<(), Violation> {
        while !done(self) {
            let Some(event) = self.ctx.next() else { break };
            self.happen(event)?;
        }
        Ok(())
    }

    /// Like [`World::run_until`], within the bound.
    fn run_healing(&mut self, done: impl Fn(&World) -> bool) -> Result<(), Violation> {
        let until = self.ctx.now_us + heal::BOUND_US;
        self.run_until(|world| done(world) || world.ctx.now_us > until)?;
        if done(self) {
            return Ok(());
        }
        let clients: Vec<String> = self.clients.iter().map(Client::state).collect();
        let serving = self.server.as_ref().map(Server::is_serving);
        Err(heal::overdue(format!("serving: {serving:?}; {}", clients.join("; "))))
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        let World { ctx, server, clients, .. } = self;
        let halted = match event {
            Event::Server(life, step) => match server {
                // The process may also stop by a panic, when an error of the disk meets code that has no other way.
                Some(server) if server.life == life => {
                    match catch_unwind(AssertUnwindSafe(|| server.step(ctx, step))) {
                        Ok(done) => done,
                        Err(panic) if text_of(&*panic).contains("simulated") => {
                            Err(Halt::Exit(text_of(&*panic)))
                        }
                        Err(panic) => resume_unwind(panic),
                    }
                }
                _ => Ok(()),
            },
            Event::ToServer(id) => {
                arrive(ctx, id, true);
                if let Some(server) = server {
                    server.wake_connection(ctx, id);
                }
                Ok(())
            }
            Event::ToClient(id) => {
                arrive(ctx, id, false);
                match ctx.wires.get(&id).map(|wire| wire.client) {
                    Some(client) => clients[client].read(ctx, server, id),
                    None => Ok(()),
                }
            }
            Event::Client(client) if !self.frozen => {
                let others: Vec<_> =
                    clients.iter().map(|c| c.ticket.clone()).filter(|t| t.session != 0).collect();
                clients[client].act(ctx, server, &others, &mut self.budget);
                Ok(())
            }
            Event::Ping(client, connection) if !self.frozen => {
                clients[client].ping(ctx, server, connection);
                Ok(())
            }
            Event::Client(_) | Event::Ping(..) => Ok(()),
            Event::Start => self.start(),
            Event::Fault => {
                self.fault();
                Ok(())
            }
            Event::Space => {
                self.disk.set_capacity(None);
                Ok(())
            }
        };
        match halted {
            Ok(()) if self.server.is_some() && self.disk.is_off() => {
                self.ctx.note("FAULT", format_args!("the power went in that step"));
                self.crash(true);
                Ok(())
            }
            Ok(()) => Ok(()),
            Err(Halt::Violated(violation)) => Err(violation),
            Err(Halt::Exit(why)) => self.exit(&why),
        }
    }

    /// The server's process stops itself. It must have a reason.
    fn exit(&mut self, why: &str) -> Result<(), Violation> {
        self.ctx.note("server", format_args!("stops: {why}"));
        if self.disk.faults() == 0 {
            return Err(Violation { property: "stops only for a reason", what: why.to_owned() });
        }
        // The machine usually runs on: the next process finds in the system's cache what a failed sync did not write.
        let power = self.ctx.dice.chance(300);
        self.crash(power);
        Ok(())
    }

    /// The server is gone, with or without the power. It is started again later.
    fn crash(&mut self, power: bool) {
        let seed = self.ctx.dice.roll();
        let next = if power { self.disk.after_crash(seed) } else { self.disk.after_kill() };
        let old = std::mem::replace(&mut self.disk, next);
        old.lose_power();
        if let Some(server) = self.server.take() {
            server.die();
        }
        self.refusing = false;
        cut(&mut self.ctx);
        let later = self.ctx.dice.below(300_000);
        self.ctx.after(later, Event::Start);
    }

    fn start(&mut self) -> Result<(), Halt> {
        if self.server.is_some() {
            return Ok(());
        }
        if !self.ctx.healing && self.ctx.setup.faults[2] > 0 && self.ctx.dice.chance(300) {
            let n = self.ctx.dice.between(1, 150);
            self.ctx.note("FAULT", format_args!("the power will go at operation {n} of the start"));
            self.disk.lose_power_at(n);
        }
        self.lives += 1;
        self.server = Some(Server::start(&mut self.ctx, self.disk.clone(), self.lives)?);
        Ok(())
    }

    fn fault(&mut self) {
        if self.ctx.healing {
            return;
        }
        let every = self.ctx.setup.fault_every_us;
        let next = self.ctx.dice.between(every / 4, every * 2);
        self.ctx.after(next, Event::Fault);
        let weights = self.ctx.setup.faults;
        let mut roll = self.ctx.dice.below(weights.iter().sum::<u64>().max(1));
        let mut kind = 0;
        while kind < weights.len() && roll >= weights[kind] {
            roll -= weights[kind];
            kind += 1;
        }
        if self.server.is_none() {
            return;
        }
        let operation = self.disk.operations();
        match kind {
            0 | 1 => {
                self.ctx.note("FAULT", format_args!("{}", if kind == 0 { "power loss" } else { "kill" }));
                self.crash(kind == 0);
            }
            2 => {
                let n = operation + self.ctx.dice.between(1, 80);
                self.ctx.note("FAULT", format_args!("the power will go at operation {n}"));
                self.disk.lose_power_at(n);
            }
            3 => {
                let n = operation + self.ctx.dice.between(1, 80);
                self.ctx.note("FAULT", format_args!("operation {n} will fail"));
                self.disk.fail_at(n);
            }
            4 => {
                const ALL: u64 = 1 << 40;
                self.disk.set_capacity(Some(ALL));
                let used = ALL - self.disk.free_bytes().unwrap_or(0);
                let left = self.ctx.dice.below(64 << 10);
                self.disk.set_capacity(Some(used + left));
                self.ctx.note("FAULT", format_args!("{left} bytes are left on the disk"));
                let later = self.ctx.dice.below(2_000_000);
                self.ctx.after(later, Event::Space);
            }
            5 => self.toggle_growth(),
            6 => {
                let jump = self.ctx.dice.below(200_000) as i64 - 100_000;
                self.ctx.wall_jump_ms += jump;
                self.ctx.note("FAULT", format_args!("the wall clock jumps by {jump} ms"));
            }
            7 => {
                if let Some(server) = &mut self.server {
                    server.checkpoint_now(&mut self.ctx);
                }
            }
            _ => {}
        }
    }

    fn toggle_growth(&mut self) {
        if let Some(server) = &mut self.server {
            self.refusing = !self.refusing;
            self.ctx.note("FAULT", format_args!("growth is refused: {}", self.refusing));
            server.refuse_growth(&mut self.ctx, self.refusing);
        }
    }
}

/// The server's end of every connection is gone.
pub(super) fn cut(ctx: &mut Context) {
    ctx.wires.retain(|_, wire| !wire.client_gone);
    let ids: Vec<u64> = ctx.wires.keys().copied().collect();
    for id in ids {
        let lost = ctx.dice.chance(500);
        let Some(wire) = ctx.wires.get_mut(&id) else { continue };
        wire.server_gone = true;
        if lost {
            wire.to_client.lose();
        }
        wire.to_client.end();
        deliver(ctx, id, false);
    }
}

/// Some of what is on its way arrives.
pub(super) fn arrive(ctx: &mut Context, id: u64, to_server: bool) {
    let whole = ctx.healing || ctx.dice.chance(700);
    let part = ctx.dice.roll();
    let Some(wire) = ctx.wires.get_mut(&id) else { return };
    let pipe = if to_server { &mut wire.to_server } else { &mut wire.to_client };
    pipe.scheduled = false;
    let flying = pipe.flying() as u64;
    let bytes = if whole || flying < 2 { flying } else { 1 + part % flying };
    pipe.arrive(bytes as usize);
    if pipe.is_flying() {
        deliver(ctx, id, to_server);
    }
}
