//! A machine: a disk, and the server that runs on it now and then. What may break of it breaks here.

use super::check::Violation;
use super::context::{Begins, Context, Event, Halt, Step};
use super::planted::Planted;
use super::server::{File, Server, deliver};
use super::wire::Wire;
use super::{net, operator};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use warren_storage::Disk as _;
use warren_storage::simdisk::SimDisk;
use warren_storage::tree::Identity;

/// Nobody ever took part with it.
const EMPTY: Identity = Identity { store_id: 0, disk: 0, observes: false };

/// See the module's text.
pub(super) struct Host {
    /// Counted from 0; the server's id is one more.
    pub(super) number: usize,
    /// As the next life of the server finds it.
    pub(super) disk: SimDisk,
    /// Unless it is down.
    pub(super) server: Option<Server>,
    /// Servers started so far.
    pub(super) lives: u32,
    /// The server's process stands still until then, µs.
    paused_until_us: u64,
    /// The server is told that its disk is below its reserve.
    refusing: bool,
    /// Its operator does not want it to run.
    pub(super) parked: bool,
    /// What its server is to be, as the operator wrote it into the file; where the table has it, that says so.
    pub(super) observes: bool,
    /// The disk that was taken away, and what it was.
    pub(super) lost: Option<(SimDisk, Identity)>,
    /// Which of its disks there is, while its server is down; an empty one has the number 0.
    holds: Identity,
    /// Its server did not start, for its own table has another store of it.
    pub(super) refused: bool,
    /// Since when it has been seen not to serve, µs.
    pub(super) idle_since_us: Option<u64>,
}

impl Host {
    /// A machine with an empty disk.
    pub(super) fn new(number: usize) -> Host {
        Host {
            number,
            disk: SimDisk::new(),
            server: None,
            lives: 0,
            paused_until_us: 0,
            refusing: false,
            parked: false,
            observes: false,
            lost: None,
            holds: EMPTY,
            refused: false,
            idle_since_us: None,
        }
    }

    /// Who it is, for the trace.
    pub(super) fn name(&self, ctx: &Context) -> String {
        name_of(ctx, self.number)
    }

    /// Is it up, and does it serve clients?
    pub(super) fn is_serving(&self) -> bool {
        self.server.as_ref().is_some_and(Server::is_serving)
    }

    /// Start the server, unless it runs.
    pub(super) fn start(&mut self, ctx: &mut Context) -> Result<(), Halt> {
        if self.server.is_some() || self.parked {
            return Ok(());
        }
        if !ctx.healing && ctx.setup.faults[2] > 0 && ctx.dice.chance(300) {
            let n = ctx.dice.between(1, 150);
            let name = self.name(ctx);
            ctx.note("FAULT", format_args!("{name}: the power will go at operation {n} of the start"));
            self.disk.lose_power_at(n);
        }
        self.lives += 1;
        ctx.net.on_started(self.number, self.lives);
        let (number, disk, lives) = (self.number, self.disk.clone(), self.lives);
        let file = File { servers: operator::file(ctx, self), joins: operator::joins(ctx, self) };
        (self.refused, self.idle_since_us) = (false, None);
        self.server = Some(outlive(|| Server::start(ctx, number, disk, lives, None, file))?);
        Ok(())
    }

    /// Its server heard as whom it takes part, and begins anew as that: with what it has on its disk, which is nothing.
    pub(super) fn begin(&mut self, ctx: &mut Context, begins: Begins) -> Result<(), Halt> {
        let file = self.server.take().map(|server| server.file);
        let file = file.unwrap_or_else(|| File { servers: ctx.setup.members(), joins: false });
        cut(ctx, self.number, |_| false);
        self.lives += 1;
        ctx.net.on_started(self.number, self.lives);
        let (number, disk, lives) = (self.number, self.disk.clone(), self.lives);
        self.server = Some(outlive(|| Server::start(ctx, number, disk, lives, Some(begins), file))?);
        Ok(())
    }

    /// The server's process stands still for a while. What is sent to it waits.
    pub(super) fn pause(&mut self, ctx: &mut Context, us: u64) {
        let name = self.name(ctx);
        ctx.note("FAULT", format_args!("{name}: stands still for {us} µs"));
        self.paused_until_us = ctx.now_us + us;
        ctx.net.trouble(self.paused_until_us);
    }

    /// A step of the server in this life.
    pub(super) fn step(&mut self, ctx: &mut Context, life: u32, step: Step) -> Result<(), Halt> {
        if ctx.now_us < self.paused_until_us {
            ctx.at(self.paused_until_us, Event::Server(self.number, life, step));
            return Ok(());
        }
        match &mut self.server {
            Some(server) if server.life == life => outlive(|| server.step(ctx, step)),
            _ => Ok(()),
        }
    }

    /// What a step came to.
    pub(super) fn after_step(
        &mut self,
        ctx: &mut Context,
        halted: Result<(), Halt>,
    ) -> Result<(), Violation> {
        match halted {
            Ok(()) if self.server.is_some() && self.disk.is_off() => {
                let name = self.name(ctx);
                ctx.note("FAULT", format_args!("{name}: the power went in that step"));
                self.crash(ctx, true);
                Ok(())
            }
            Ok(()) => Ok(()),
            Err(Halt::Violated(violation)) => Err(violation),
            Err(Halt::Exit(why)) => self.exit(ctx, &why),
            Err(Halt::Begins(begins)) => {
                let begun = self.begin(ctx, begins);
                self.after_step(ctx, begun)
            }
            Err(Halt::Anew) => {
                let begun = self.begin_anew(ctx);
                self.after_step(ctx, begun)
            }
            Err(Halt::Wiped) => {
                let name = self.name(ctx);
                ctx.note(&name, format_args!("does not start: another store is recorded of it"));
                self.refused = true;
                Ok(())
            }
        }
    }

    /// The server's process stops itself. It must have a reason.
    fn exit(&mut self, ctx: &mut Context, why: &str) -> Result<(), Violation> {
        let name = self.name(ctx);
        ctx.note(&name, format_args!("stops: {why}"));
        if self.disk.faults() == 0 {
            return Err(Violation { property: "stops only for a reason", what: why.to_owned() });
        }
        // The machine usually runs on: the next process finds in the system's cache what a failed sync did not write, and
        // what the former one had not come to sync. Where the power was to go, it is the process alone that was killed.
        let power = ctx.dice.chance(300);
        self.crash(ctx, power);
        Ok(())
    }

    /// The server is gone, with or without the power. It is started again later.
    pub(super) fn crash(&mut self, ctx: &mut Context, power: bool) {
        let seed = ctx.dice.roll();
        self.stop(ctx, power, seed);
        let later_max = if ctx.healing { 300_000 } else { ctx.setup.downtime_us_max };
        let later = ctx.dice.below(later_max);
        ctx.after(later, Event::Start(self.number));
    }

    /// The server is gone. `seed` decides what is left of what was not synced.
    pub(super) fn stop(&mut self, ctx: &mut Context, power: bool, seed: u64) {
        let next = if power { self.disk.after_crash(seed) } else { self.disk.after_kill() };
        let wiped = ctx.planted == Some(Planted::WipedVoterVotes) && ctx.dice.chance(300);
        let next = if wiped { SimDisk::new() } else { next };
        let old = std::mem::replace(&mut self.disk, next);
        old.lose_power();
        if let Some(server) = self.server.take() {
            self.holds = server.service().tree().identity();
            server.die();
        }
        (self.refusing, self.paused_until_us) = (false, 0);
        net::part(ctx, self.number);
        ctx.net.on_stopped(self.number);
        ctx.checks.on_stopped(self.number);
        cut(ctx, self.number, |_| false);
    }

    /// The server's process becomes the next one, with the connections that go on.
    pub(super) fn begin_anew(&mut self, ctx: &mut Context) -> Result<(), Halt> {
        let Some(mut server) = self.server.take() else { return Ok(()) };
        let gathered = outlive(|| server.gather(ctx));
        let file = File { servers: server.file.servers.clone(), joins: server.file.joins };
        self.server = Some(server);
        let handed = gathered?;
        let next = self.disk.after_kill();
        std::mem::replace(&mut self.disk, next).lose_power();
        if let Some(server) = self.server.take() {
            self.holds = server.service().tree().identity();
            server.die();
        }
        ctx.net.on_stopped(self.number);
        ctx.checks.on_stopped(self.number);
        self.lives += 1;
        ctx.net.on_started(self.number, self.lives);
        let (number, disk, lives, kept) = (self.number, self.disk.clone(), self.lives, handed.ids());
        let started = outlive(|| Server::start(ctx, number, disk, lives, None, file)).map(|mut server| {
            server.resume(ctx, handed);
            self.server = Some(server);
        });
        let server = self.server.as_ref();
        cut(ctx, self.number, |id| kept.contains(&id) && server.is_some_and(|server| server.has_client(id)));
        started
    }

    /// Its operator stops it, for good.
    pub(super) fn park(&mut self, ctx: &mut Context) {
        let name = self.name(ctx);
        ctx.note("FAULT", format_args!("{name}: the operator stops it"));
        let (power, seed) = (ctx.dice.chance(300), ctx.dice.roll());
        self.stop(ctx, power, seed);
        self.parked = true;
    }

    /// Its operator takes the disk away and brings an empty one. It goes, unless it is down anyway.
    pub(super) fn wipe(&mut self, ctx: &mut Context) {
        let name = self.name(ctx);
        ctx.note("FAULT", format_args!("{name}: its disk is exchanged for an empty one"));
        if self.server.is_some() {
            let seed = ctx.dice.roll();
            self.stop(ctx, true, seed);
        }
        let lost = std::mem::replace(&mut self.disk, SimDisk::new());
        let identity = std::mem::replace(&mut self.holds, EMPTY);
        if identity.disk != 0 {
            self.lost = Some((lost, identity));
        }
    }

    /// The disk that was taken away comes back.
    pub(super) fn restore(&mut self, ctx: &mut Context, (disk, identity): (SimDisk, Identity)) {
        let name = self.name(ctx);
        ctx.note("FAULT", format_args!("{name}: its own disk is back"));
        if self.server.is_some() {
            let seed = ctx.dice.roll();
            self.stop(ctx, true, seed);
        }
        (self.disk, self.holds) = (disk, identity);
    }

    /// Which of its disks there is; 0 for an empty one.
    pub(super) fn disk_number(&self) -> u32 {
        self.identity().disk
    }

    /// Which of its disks there is, and by which name.
    pub(super) fn identity(&self) -> Identity {
        self.server.as_ref().map_or(self.holds, |server| server.service().tree().identity())
    }

    /// Does it wait to be replaced?
    pub(super) fn lacks_data(&self) -> bool {
        self.server.as_ref().is_some_and(Server::is_wiped)
    }

    /// Something breaks: one of [`super::Setup::faults`].
    pub(super) fn fault(&mut self, ctx: &mut Context, kind: usize) {
        if self.server.is_none() {
            return;
        }
        let (name, operation) = (self.name(ctx), self.disk.operations());
        match kind {
            0 | 1 => {
                let what = if kind == 0 { "power loss" } else { "kill" };
                ctx.note("FAULT", format_args!("{name}: {what}"));
                self.crash(ctx, kind == 0);
            }
            2 => {
                let n = operation + ctx.dice.between(1, 80);
                ctx.note("FAULT", format_args!("{name}: the power will go at operation {n}"));
                self.disk.lose_power_at(n);
            }
            3 => {
                let n = operation + ctx.dice.between(1, 80);
                ctx.note("FAULT", format_args!("{name}: operation {n} will fail"));
                self.disk.fail_at(n);
            }
            4 => {
                const ALL: u64 = 1 << 40;
                self.disk.set_capacity(Some(ALL));
                let used = ALL - self.disk.free_bytes().unwrap_or(0);
                let left = ctx.dice.below(64 << 10);
                self.disk.set_capacity(Some(used + left));
                ctx.note("FAULT", format_args!("{name}: {left} bytes are left on the disk"));
                let later = ctx.dice.below(2_000_000);
                ctx.after(later, Event::Space(self.number));
            }
            5 => self.toggle_growth(ctx),
            6 => {
                let jump = ctx.dice.below(200_000) as i64 - 100_000;
                ctx.wall_jump_ms[self.number] += jump;
                ctx.note("FAULT", format_args!("{name}: the wall clock jumps by {jump} ms"));
            }
            7 => {
                if let Some(server) = &mut self.server {
                    server.checkpoint_now(ctx);
                }
            }
            _ => {}
        }
    }

    fn toggle_growth(&mut self, ctx: &mut Context) {
        let name = self.name(ctx);
        if let Some(server) = &mut self.server {
            self.refusing = !self.refusing;
            ctx.note("FAULT", format_args!("{name}: growth is refused: {}", self.refusing));
            server.refuse_growth(ctx, self.refusing);
        }
    }

    /// Nothing of it is broken any more, and nothing will be.
    pub(super) fn heal(&mut self, ctx: &mut Context) {
        self.paused_until_us = 0;
        self.disk.set_capacity(None);
        self.disk.call_off();
        if self.refusing {
            self.toggle_growth(ctx);
        }
    }
}

/// The process may also stop by a panic, when an error of the disk meets code that has no other way.
fn outlive<T>(step: impl FnOnce() -> Result<T, Halt>) -> Result<T, Halt> {
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(done) => done,
        Err(panic) if text_of(&*panic).contains("simulated") => Err(Halt::Exit(text_of(&*panic))),
        Err(panic) => resume_unwind(panic),
    }
}

/// Who a host's server is, for the trace.
pub(super) fn name_of(ctx: &Context, host: usize) -> String {
    if ctx.setup.hosts() == 1 { "server".into() } else { format!("s{}", host + 1) }
}

/// What a panic says.
pub(super) fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_else(|| "a panic".into())
}

/// The server's end of every connection to this host is gone, but of those that go on.
fn cut(ctx: &mut Context, host: usize, goes_on: impl Fn(u64) -> bool) {
    let is_cut = |id: u64, wire: &Wire| wire.host == host && !goes_on(id);
    ctx.wires.retain(|id, wire| !is_cut(*id, wire) || !wire.client_gone);
    let ids: Vec<u64> = ctx.wires.iter().filter(|(id, wire)| is_cut(**id, wire)).map(|(id, _)| *id).collect();
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
