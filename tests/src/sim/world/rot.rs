//! A server's memory goes bad: it applies one command otherwise than the log says. The others must find it, and nobody may
//! be served by it from then on; then it is rebuilt.
//!
//! It strikes where all is calm, so that what the servers have to do has a bound.

use super::World;
use crate::sim::Setup;
use crate::sim::check::{Violation, divergence, heal};
use crate::sim::client::Client;
use crate::sim::context::{Context, Event};
use crate::sim::host::Host;
use crate::sim::net::id_of;
use crate::sim::server::Server;
use warren_server::consensus::{Committed, Role};
use warren_storage::simdisk::SimDisk;
use warren_storage::{AclRef, Change, Command, CreateMode, Entry, IdRef, Logged, Op};

/// Whose data go bad; no client reads it.
const PATH: &str = "/rot";
/// As it is written, and as the server has it that goes bad.
const RIGHT: &[u8] = b"as it is written";
const WRONG: &[u8] = b"as it is not it!";

/// What everybody is to have.
fn write(number: u64) -> Vec<u8> {
    let acl = vec![AclRef { perms: 31, id: IdRef { scheme: "world", id: "anyone" } }];
    let path = format!("{PATH}{number}");
    let op = Op::Create { path: &path, data: Some(RIGHT), acl, mode: CreateMode::Persistent, ttl: 0 };
    Logged { tag: None, ids: Vec::new(), command: Command::Single(op) }.encode()
}

/// It goes bad on its way to the tree. Tells whether it was among these.
pub(in crate::sim) fn strike(entries: &mut [Committed]) -> bool {
    for entry in entries {
        let data = entry.data.to_vec();
        let is_batch = !data.is_empty() && matches!(Entry::decode(&data), Ok(Entry::Batch { .. }));
        let at = data.windows(RIGHT.len()).position(|part| part == RIGHT).filter(|_| is_batch);
        if let Some(at) = at {
            let mut data = data;
            data[at..at + WRONG.len()].copy_from_slice(WRONG);
            entry.data = data.into();
            return true;
        }
    }
    false
}

const _: () = assert!(RIGHT.len() == WRONG.len());

impl World {
    /// One of them goes bad, is found and rebuilt, and the others serve on.
    pub(super) fn go_bad(&mut self) -> Result<(), Violation> {
        // Where an operator puts right what is wrong with machines, it would be rebuilt twice.
        let Setup { servers, changes_every_us, .. } = self.ctx.setup;
        if servers < 3 || changes_every_us > 0 || self.ctx.dice.chance(500) {
            return Ok(());
        }
        // Who still needs a tree has no say, and is given none by servers that contradict each other: of three, nobody would
        // know who is wrong.
        let committed = self.ctx.checks.history.position().index;
        let has_all = |host: &Host| {
            host.server.as_ref().is_some_and(|s| s.service().tree().position().index >= committed)
        };
        self.run_healing(|world| world.hosts.iter().all(has_all))?;
        let bad = self.ctx.dice.below(self.hosts.len() as u64) as usize;
        let newcomer = self.newcomer(bad);
        let World { ctx, hosts, .. } = self;
        begin(ctx, hosts, bad, 1);
        let spared = self.is_spared(bad)?;
        if let Some(newcomer) = newcomer {
            self.let_in(newcomer, bad);
        }
        if spared {
            self.ctx.checks.wrong.remove(&bad);
            return Ok(());
        }
        self.found(bad)?;

        // Everybody else goes on.
        self.clients.iter_mut().for_each(Client::heal);
        self.heal_but(bad)?;

        // Its last checkpoint may be older than the fault.
        let power = self.ctx.dice.chance(500);
        self.hosts[bad].crash(&mut self.ctx, power);
        self.judged(bad)?;
        if self.hosts[bad].is_serving() {
            self.ctx.checks.wrong.remove(&bad);
            return Ok(());
        }
        let name = self.hosts[bad].name(&self.ctx);
        self.ctx.note("FAULT", format_args!("{name}: is rebuilt"));
        self.rebuild(bad)?;
        self.ctx.checks.wrong.remove(&bad);
        Ok(())
    }

    /// An observer may begin with an empty disk at that very time, and so need a tree of whomever it asks.
    fn newcomer(&mut self, bad: usize) -> Option<usize> {
        let World { ctx, hosts, .. } = self;
        let Setup { servers, observers, chained, .. } = ctx.setup;
        // Who may be fed by other observers alone would wait for the newcomer or the bad one.
        let may_come = servers..servers + observers - usize::from(chained);
        let waits = chained && !may_come.contains(&bad) && bad >= servers;
        let others: Vec<usize> = may_come.filter(|host| *host != bad && !waits).collect();
        if others.is_empty() || ctx.dice.chance(250) {
            return None;
        }
        let newcomer = *ctx.dice.pick(&others);
        let name = hosts[newcomer].name(ctx);
        ctx.note("FAULT", format_args!("{name}: its disk is exchanged for an empty one"));
        let seed = ctx.dice.roll();
        hosts[newcomer].stop(ctx, false, seed);
        hosts[newcomer].disk = SimDisk::new();
        // Their logs are to be purged, so that the log will not do.
        hosts
            .iter_mut()
            .filter_map(|host| host.server.as_mut())
            .for_each(|server| server.checkpoint_now(ctx));
        Some(newcomer)
    }

    /// It comes, while the one that went bad has just made a checkpoint.
    fn let_in(&mut self, newcomer: usize, bad: usize) {
        let World { ctx, hosts, .. } = self;
        if let Some(server) = &mut hosts[bad].server {
            server.checkpoint_now(ctx);
        }
        let later = ctx.dice.below(50_000);
        ctx.after(later, Event::Start(newcomer));
    }

    /// What is written comes to it in another's tree, when it is far behind, and not by its own hands.
    fn is_spared(&mut self, bad: usize) -> Result<bool, Violation> {
        let has_it = |world: &World| {
            let tree = world.hosts[bad].server.as_ref().map(|server| server.service().tree().snapshot());
            tree.is_some_and(|tree| tree.node(&format!("{PATH}1")).is_ok_and(|node| node.is_some()))
        };
        self.run_healing(has_it)?;
        Ok(self.hosts[bad].server.as_mut().is_some_and(Server::stays_good))
    }

    /// Within the bound it serves nobody, and nobody else stops.
    fn found(&mut self, bad: usize) -> Result<(), Violation> {
        let until = self.ctx.now_us + heal::BOUND_US;
        let is_out = |world: &World| {
            world.hosts[bad].server.as_ref().is_some_and(|server| {
                server.service().is_wrong() && !server.is_serving() && !server.has_clients()
            })
        };
        self.run_until(|world| is_out(world) || world.ctx.now_us > until)?;
        if is_out(self) {
            return Ok(());
        }
        Err(divergence::unnoticed(self.state(&self.hosts[bad])))
    }

    fn heal_but(&mut self, bad: usize) -> Result<(), Violation> {
        self.run_healing(|world| {
            let others = world.hosts.iter().enumerate().filter(|(host, _)| *host != bad);
            world.clients.iter().all(Client::is_well) && others.map(|(_, host)| host).all(Host::is_serving)
        })
    }

    /// It is up again, and the others have had their say: it serves, or is known to be wrong still.
    fn judged(&mut self, bad: usize) -> Result<(), Violation> {
        self.run_healing(|world| {
            world.hosts[bad].server.as_ref().is_some_and(|server| {
                let service = server.service();
                server.is_serving() || service.is_wrong() && service.is_judged()
            })
        })
    }

    /// As `warren rebuild` does.
    fn rebuild(&mut self, bad: usize) -> Result<(), Violation> {
        let World { ctx, hosts, .. } = self;
        let votes = bad < ctx.setup.servers;
        let disk = |world: &World| {
            let tree =
                world.hosts.iter().enumerate().find(|(host, other)| *host != bad && other.is_serving());
            let members =
                tree.and_then(|(_, host)| host.server.as_ref()).map(|s| s.service().tree().members());
            members.and_then(|members| members.get(id_of(bad)).map(|member| member.disk))
        };
        if votes {
            if let Some(server) = &mut hosts[bad].server {
                server.reconfigure(ctx, Change::Replace { id: id_of(bad) });
            }
            let before = disk(self);
            self.run_healing(|world| disk(world) > before)?;
        }
        let World { ctx, hosts, .. } = self;
        let seed = ctx.dice.roll();
        hosts[bad].stop(ctx, false, seed);
        hosts[bad].disk = SimDisk::new();
        ctx.after(0, Event::Start(bad));
        self.run_healing(|world| {
            let well = |server: &crate::sim::server::Server| !server.service().is_wrong();
            world.hosts[bad].is_serving() && world.hosts[bad].server.as_ref().is_some_and(well)
        })
    }
}

/// This server's memory goes bad, and something is written.
pub(in crate::sim) fn begin(ctx: &mut Context, hosts: &mut [Host], bad: usize, number: u64) {
    let name = hosts[bad].name(ctx);
    ctx.note("FAULT", format_args!("{name}: its memory goes bad"));
    ctx.checks.wrong.insert(bad);
    if let Some(server) = &mut hosts[bad].server {
        server.go_bad();
    }
    // A leader takes from others only what is of a session; and one that was deposed may not know it yet, its service longer
    // than its consensus.
    let servers = hosts.iter_mut().filter_map(|host| host.server.as_mut());
    let leaders = servers.filter(|server| server.facts().role == Role::Leading);
    if let Some(leader) = leaders.max_by_key(|server| server.facts().term) {
        leader.order(ctx, write(number));
    }
}
