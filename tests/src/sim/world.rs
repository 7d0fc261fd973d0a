//! A run: the loop that lets events happen, the faults, the two phases and the verdict.

pub(super) mod rot;

use super::check::{Violation, able, heal};
use super::client::Client;
use super::context::{Context, Event};
use super::host::{Host, text_of};
use super::server::{Server, deliver};
use super::trace::Trace;
use super::{Dice, Planted, Setup, net, operator, partition};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

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
    /// Servers.
    pub servers: u64,
    /// Lives of them.
    pub lives: u64,
    /// Leaders of all terms.
    pub leaders: u64,
    /// Trees sent to a server that was far behind.
    pub snapshots: u64,
    /// Changes of the membership that were made.
    pub changes: u64,
    /// Connections that went on when their server began anew in place.
    pub kept: u64,
    /// Simulated time, µs.
    pub simulated_us: u64,
}

impl Summary {
    /// Both together.
    pub fn add(&mut self, other: &Summary) {
        let Summary {
            hash,
            events,
            requests,
            replies,
            watch_events,
            commands,
            servers,
            lives,
            leaders,
            snapshots,
            changes,
            kept,
            simulated_us,
        } = other;
        self.hash ^= hash;
        self.events += events;
        self.requests += requests;
        self.replies += replies;
        self.watch_events += watch_events;
        self.commands += commands;
        self.servers += servers;
        self.lives += lives;
        self.leaders += leaders;
        self.snapshots += snapshots;
        self.changes += changes;
        self.kept += kept;
        self.simulated_us += simulated_us;
    }
}

/// What to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run {
    /// Decides everything.
    pub seed: u64,
    /// So many servers, instead of as many as the seed says.
    pub servers: Option<usize>,
    /// So many observers, likewise.
    pub observers: Option<usize>,
    /// Its membership changes, or stays; instead of as the seed says.
    pub changes: Option<bool>,
    /// A fault that must be found.
    pub planted: Option<Planted>,
    /// Print every event.
    pub trace: bool,
}

impl Run {
    /// This seed as it is.
    pub fn of(seed: u64) -> Run {
        Run { seed, ..Run::default() }
    }
}

/// Why a run failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What was run.
    pub run: Run,
    /// What does not hold.
    pub violation: Violation,
    /// When, µs.
    pub at_us: u64,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { run: Run { seed, servers, observers, changes, planted, .. }, violation, at_us } = self;
        write!(f, "seed {seed} at {}.{:06}: {violation}", at_us / 1_000_000, at_us % 1_000_000)?;
        let servers = servers.map_or(String::new(), |servers| format!(" --servers {servers}"));
        let observers = observers.map_or(String::new(), |observers| format!(" --observers {observers}"));
        let changes = changes.map_or(String::new(), |changes| format!(" --changes {changes}"));
        let planted = planted.map_or(String::new(), |planted| format!(" --planted {planted:?}"));
        write!(
            f,
            "\nreplay: cargo run -p warren-tests --bin sim -- --seed {seed}{servers}{observers}{changes}{planted} --trace"
        )
    }
}

/// Run one seed to its end.
pub fn run(run: Run) -> Result<Summary, Failure> {
    let mut dice = Dice::new(run.seed);
    let servers = run.servers.or(run.planted.filter(|p| p.is_of_ensemble()).map(|_| 3));
    let observers = run.observers.or(run.planted.map(|p| if p.is_of_observers() { 2 } else { 0 }));
    let changes = run.changes.or(run.planted.map(|p| p.is_of_membership()));
    let setup = Setup::draw(&Run { servers, observers, changes, ..run }, &mut dice);
    let mut world = World::new(Context::new(dice, setup, run.planted, Trace::new(run.trace)));
    let violation = match catch_unwind(AssertUnwindSafe(|| world.run())) {
        Ok(Ok(())) => return Ok(world.summary()),
        Ok(Err(violation)) => violation,
        Err(panic) => {
            let what = text_of(&*panic);
            // What a panic left behind is not to be dropped with care.
            let at_us = world.ctx.now_us;
            std::mem::forget(world);
            return Err(Failure { run, violation: Violation { property: "no panic", what }, at_us });
        }
    };
    Err(Failure { run, violation, at_us: world.ctx.now_us })
}

struct World {
    ctx: Context,
    hosts: Vec<Host>,
    clients: Vec<Client>,
    /// Requests that may still be sent in the first phase.
    budget: u64,
    /// Clients do nothing any more.
    frozen: bool,
}

impl World {
    fn new(mut ctx: Context) -> World {
        let clients = (0..ctx.setup.clients as usize).map(|id| Client::new(&mut ctx, id)).collect();
        let mut hosts: Vec<Host> = (0..ctx.setup.hosts()).map(Host::new).collect();
        let founders = ctx.setup.servers + ctx.setup.observers;
        hosts[founders..].iter_mut().for_each(|spare| spare.parked = true);
        let budget = ctx.setup.requests;
        World { ctx, hosts, clients, budget, frozen: false }
    }

    fn summary(&self) -> Summary {
        Summary {
            hash: self.ctx.trace.hash(),
            events: self.ctx.trace.lines(),
            requests: self.clients.iter().map(|c| c.sent).sum(),
            replies: self.ctx.checks.replies,
            watch_events: self.ctx.checks.events,
            commands: self.ctx.checks.history.facts.len() as u64,
            servers: self.hosts.len() as u64,
            lives: self.hosts.iter().map(|host| u64::from(host.lives)).sum(),
            leaders: self.ctx.checks.leaders.count() as u64,
            snapshots: self.ctx.snapshots,
            changes: self.ctx.checks.config_node.changes() as u64,
            kept: self.ctx.checks.kept,
            simulated_us: self.ctx.now_us,
        }
    }

    fn run(&mut self) -> Result<(), Violation> {
        let setup = self.ctx.setup.clone();
        self.ctx.note("world", format_args!("{setup:?}"));
        for host in &self.hosts {
            host.disk.set_stale_space(self.ctx.dice.chance(500));
            self.ctx.at(0, Event::Start(host.number));
        }
        for client in 0..self.clients.len() {
            let at = self.ctx.dice.below(50_000);
            self.ctx.at(at, Event::Client(client));
        }
        if setup.fault_every_us > 0 {
            let at = self.ctx.dice.below(2 * setup.fault_every_us);
            self.ctx.at(at, Event::Fault);
        }
        if setup.hosts() > 1 && setup.network.change_every_us > 0 {
            self.ctx.at(setup.network.change_every_us, Event::Network);
        }
        if setup.changes_every_us > 0 {
            self.ctx.soon(Event::Operator);
        }
        for (at_us, host) in setup.anew {
            self.ctx.at(at_us, Event::Anew(host));
        }
        // The first phase: everything may break.
        self.run_until(|world| world.budget == 0 || world.ctx.now_us > FIRST_PHASE_US_MAX)?;
        let grace_us = self.ctx.now_us + self.ctx.dice.below(500_000);
        self.run_until(|world| world.ctx.now_us > grace_us)?;

        // The second: nothing does.
        self.ctx.note("world", format_args!("heals"));
        self.ctx.healing = true;
        partition::end(&mut self.ctx);
        self.hosts.iter_mut().for_each(|host| host.heal(&mut self.ctx));
        // Twice, so that what the first round changed is told before the second is over.
        for _ in 0..2 {
            self.clients.iter_mut().for_each(Client::heal);
            for client in 0..self.clients.len() {
                if let Some(connection) = self.clients[client].connection {
                    self.ctx.soon(Event::ToClient(connection));
                }
            }
            self.run_healing(|world| world.clients.iter().all(Client::is_well) && world.is_settled())?;
        }
        self.go_bad()?;
        self.frozen = true;
        self.run_healing(World::is_quiet)?;
        self.judge_quiet()?;

        // What was acknowledged outlives the power.
        let World { ctx, clients, hosts, .. } = self;
        clients.iter_mut().for_each(|client| client.disconnect(ctx, hosts, "the end"));
        let up = self.hosts.iter_mut().filter(|host| !host.parked);
        up.for_each(|host| host.crash(&mut self.ctx, true));
        self.run_healing(|world| world.is_settled() && world.is_quiet())?;
        self.judge_quiet()
    }

    fn is_quiet(&self) -> bool {
        let committed = self.ctx.checks.history.position();
        let quiet =
            |s: &Server| s.is_quiet() && s.service().tree().position() == committed && s.takes_writes();
        self.hosts.iter().filter(|host| !host.parked).all(|host| host.server.as_ref().is_some_and(quiet))
    }

    /// Do all serve that are to?
    fn is_settled(&self) -> bool {
        match self.ctx.setup.changes_every_us {
            0 => self.hosts.iter().all(Host::is_serving),
            _ => operator::is_settled(&self.ctx, &self.hosts),
        }
    }

    fn judge_quiet(&mut self) -> Result<(), Violation> {
        let servers = self.hosts.iter().filter_map(|host| host.server.as_ref());
        servers.map(Server::service).try_for_each(|service| self.ctx.checks.on_quiet(service))
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
        self.run_until(|world| done(world) || world.ctx.now_us > until - able::STANDSTILL_US)?;
        let committed = self.ctx.checks.history.position().index;
        self.run_until(|world| done(world) || world.ctx.now_us > until)?;
        if done(self) {
            return Ok(());
        }
        let stands_still = committed == self.ctx.checks.history.position().index;
        let clients: Vec<String> = self.clients.iter().map(Client::state).collect();
        let servers: Vec<String> = self.hosts.iter().map(|host| self.state(host)).collect();
        let what = format!("{}; {}", servers.join("; "), clients.join("; "));
        let asked = self.clients.iter().any(|client| !client.is_well());
        let able = self.ctx.setup.changes_every_us > 0 && operator::is_enough(&self.ctx, &self.hosts, None);
        let able = able && asked;
        Err(if stands_still && able { able::stuck(what) } else { heal::overdue(what) })
    }

    /// Where a server stands, for a report.
    fn state(&self, host: &Host) -> String {
        let (name, committed) = (host.name(&self.ctx), self.ctx.checks.history.position().index);
        match &host.server {
            None => format!("{name} is down"),
            Some(server) => format!(
                "{name} {} and applied {} of {committed}, {:?}",
                if server.is_serving() { "serves" } else { "does not serve" },
                server.service().tree().position().index,
                server.facts()
            ),
        }
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        let World { ctx, hosts, clients, .. } = self;
        // Whose step it is, and what it came to.
        let (host, halted) = match event {
            Event::Server(host, life, step) => (host, hosts[host].step(ctx, life, step)),
            Event::Start(host) => (host, hosts[host].start(ctx)),
            Event::Letter(number) => net::arrive(ctx, hosts, number),
            Event::ToServer(id) => {
                arrive(ctx, id, true);
                if let Some(server) = server_of(ctx, hosts, id) {
                    server.wake_connection(ctx, id);
                }
                return Ok(());
            }
            Event::ToClient(id) => {
                arrive(ctx, id, false);
                return match ctx.wires.get(&id).map(|wire| wire.client) {
                    Some(client) => clients[client].read(ctx, hosts, id),
                    None => Ok(()),
                };
            }
            Event::Client(client) if !self.frozen => {
                let others: Vec<_> =
                    clients.iter().map(|c| c.ticket.clone()).filter(|t| t.session != 0).collect();
                clients[client].act(ctx, hosts, &others, &mut self.budget);
                return Ok(());
            }
            Event::Ping(client, connection) if !self.frozen => {
                clients[client].ping(ctx, hosts, connection);
                return Ok(());
            }
            Event::Client(_) | Event::Ping(..) => return Ok(()),
            Event::Network => {
                partition::change(ctx, hosts);
                return Ok(());
            }
            Event::Fault => {
                self.fault();
                return Ok(());
            }
            Event::Anew(host) => {
                if let (false, Some(server)) = (ctx.healing, hosts[host].server.as_mut()) {
                    server.begin_anew(ctx);
                }
                return Ok(());
            }
            Event::Operator => {
                operator::turn(ctx, hosts);
                return Ok(());
            }
            Event::Space(host) => {
                hosts[host].disk.set_capacity(None);
                return Ok(());
            }
        };
        hosts[host].after_step(ctx, halted)
    }

    fn fault(&mut self) {
        if self.ctx.healing {
            return;
        }
        let World { ctx, hosts, .. } = self;
        let every = ctx.setup.fault_every_us;
        let next = ctx.dice.between(every / 4, every * 2);
        ctx.after(next, Event::Fault);
        let weights = ctx.setup.faults;
        let mut roll = ctx.dice.below(weights.iter().sum::<u64>().max(1));
        let mut kind = 0;
        while kind < weights.len() && roll >= weights[kind] {
            roll -= weights[kind];
            kind += 1;
        }
        if hosts.len() == 1 {
            return hosts[0].fault(ctx, kind);
        }
        if ctx.dice.chance(ctx.setup.transfers_per_mille) {
            let to = ctx.dice.below(hosts.len() as u64 + 1) as usize;
            let to = (to < hosts.len()).then(|| net::id_of(to));
            ctx.note("FAULT", format_args!("leadership is handed over to {to:?}"));
            hosts.iter_mut().filter_map(|host| host.server.as_mut()).for_each(|s| s.transfer(ctx, to));
        } else if ctx.dice.chance(ctx.setup.pauses_per_mille) {
            let (host, us) =
                (ctx.dice.below(hosts.len() as u64) as usize, ctx.dice.below(ctx.setup.pause_us_max));
            hosts[host].pause(ctx, us);
        } else if ctx.dice.chance(ctx.setup.blackouts_per_mille) {
            ctx.note("FAULT", format_args!("all servers stop"));
            let power = ctx.dice.chance(500);
            hosts.iter_mut().filter(|host| host.server.is_some()).for_each(|host| host.crash(ctx, power));
        } else {
            let host = ctx.dice.below(hosts.len() as u64) as usize;
            hosts[host].fault(ctx, kind);
        }
    }
}

/// The server at the other end of a connection, unless it died meanwhile.
pub(super) fn server_of<'a>(ctx: &Context, hosts: &'a mut [Host], connection: u64) -> Option<&'a mut Server> {
    let host = ctx.wires.get(&connection)?.host;
    hosts[host].server.as_mut()
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
