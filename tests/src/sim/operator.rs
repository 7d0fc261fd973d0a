//! The operator: who changes the membership while everything else happens, as the seed's dice say, and keeps the machines
//! as the changes want them.
//!
//! Changes are asked for at any server that takes part, and may be refused or get lost. An operator empties the disk of a
//! server that was removed before adding it again, mostly; takes disks away, but never so many that a majority of the
//! voters has none; and writes the newest table into a server's file before starting it, mostly. In the healing phase it
//! brings the machines in line with the table: who belongs runs, who does not is stopped, who lost its disk is replaced, or
//! gets it back where there is no majority without it.

use super::context::{Context, Event};
use super::host::Host;
use super::net::{host_of, id_of};
use super::planted::Planted;
use super::setup::{self, Setup, member};
use warren_server::consensus::{disk_of, raft_id, server_of};
use warren_storage::tree::Identity;
use warren_storage::{Change, Member, MemberRole, Members};

/// Between two looks at the machines in the healing phase, µs.
const MEND_EVERY_US: u64 = 200_000;
/// A member that does not serve, or knows no leader, for so long in the healing phase is started anew, µs.
const IDLE_US_MAX: u64 = 8_000_000;

/// Between two turns before the first table, µs.
const FOUNDING_US: u64 = 50_000;
/// In each of them a founder loses its disk, by this chance.
const FOUNDER_LOST_PER_MILLE: u64 = 30;

/// Something that the operator does.
pub(super) fn turn(ctx: &mut Context, hosts: &mut [Host]) {
    let table = ctx.checks.history.tree().members().clone();
    if table.servers.is_empty() {
        return before_the_first_table(ctx, hosts);
    }
    let every = ctx.setup.changes_every_us;
    let next = if ctx.healing { MEND_EVERY_US } else { ctx.dice.between(every / 4, every * 2) };
    ctx.after(next, Event::Operator);
    if ctx.healing {
        return mend(ctx, hosts, &table);
    }
    let weights = ctx.setup.changes;
    let mut roll = ctx.dice.below(weights.iter().sum());
    let mut kind = 0;
    while roll >= weights[kind] {
        roll -= weights[kind];
        kind += 1;
    }
    // Now and then somebody whom there is not.
    let id = match ctx.dice.chance(50) {
        true => ctx.dice.between(1, hosts.len() as u64 + 1) as u8,
        false => ctx.dice.pick(&table.servers).id,
    };
    match kind {
        0 => add(ctx, hosts, &table),
        1 => {
            let observers = table.servers.iter().filter(|m| m.role == MemberRole::Observer);
            let observers: Vec<u8> = observers.map(|m| m.id).collect();
            let id = if observers.is_empty() { id } else { *ctx.dice.pick(&observers) };
            ask(ctx, hosts, Change::Promote { id });
        }
        2 => ask(ctx, hosts, Change::Demote { id }),
        3 => ask(ctx, hosts, Change::Remove { id }),
        4 => take_disk(ctx, hosts, &table),
        5 => {
            let wiped = hosts.iter().find(|host| host.lacks_data()).map(|host| id_of(host.number));
            if let Some(id) = wiped.or_else(|| ctx.dice.chance(300).then_some(id)) {
                ask(ctx, hosts, Change::Replace { id });
            }
        }
        _ => {
            let host = ctx.dice.index(hosts.len());
            tidy(ctx, &mut hosts[host], &table);
        }
    }
}

/// Nothing can be changed yet. A disk may be lost, in the very first election, too.
fn before_the_first_table(ctx: &mut Context, hosts: &mut [Host]) {
    let planted = matches!(ctx.planted, Some(Planted::FounderSaysEmpty | Planted::JoinsUnrecorded));
    ctx.after(FOUNDING_US, Event::Operator);
    if planted || !ctx.healing && ctx.dice.chance(FOUNDER_LOST_PER_MILLE) {
        let founders = ctx.setup.members();
        take_disk(ctx, hosts, &founders);
    }
}

/// What the configuration file of a server says of the ensemble when it starts.
pub(super) fn file(ctx: &mut Context, host: &Host) -> Members {
    let mut file = ctx.setup.members();
    // Who begins with an empty store goes by the file in deciding whether there is an ensemble at all.
    let stale = ctx.setup.stale_files_per_mille;
    let stale = stale > 0 && !ctx.healing && host.disk_number() != 0 && ctx.dice.chance(stale);
    let newest = if stale { Members::default() } else { ctx.checks.history.tree().members().clone() };
    if !newest.servers.is_empty() {
        file.servers = newest.servers.into_iter().map(|m| member(m.id, role(m.role))).collect();
    }
    let id = id_of(host.number);
    if file.get(id).is_none() {
        let role = if host.observes { MemberRole::Observer } else { MemberRole::Voter };
        file.servers.push(member(id, role));
        file.servers.sort_by_key(|member| member.id);
    }
    file
}

/// Does the configuration file of a server say that it comes to an ensemble which is there? Those who are to join stand in their
/// files as voters: without this, a majority of them that reaches nobody else would take itself for a new ensemble.
pub(super) fn joins(ctx: &Context, host: &Host) -> bool {
    let Setup { servers, observers, changes_every_us, .. } = ctx.setup;
    let comes_later = changes_every_us > 0 || host.number >= servers + observers;
    let is_founded = !ctx.checks.history.tree().members().servers.is_empty();
    comes_later && is_founded && ctx.planted != Some(Planted::JoinersFound)
}

/// As a file has it.
fn role(role: MemberRole) -> MemberRole {
    if role == MemberRole::Observer { MemberRole::Observer } else { MemberRole::Voter }
}

/// At any server that takes part.
fn ask(ctx: &mut Context, hosts: &mut [Host], change: Change) {
    let mut servers: Vec<_> = hosts.iter_mut().filter_map(|host| host.server.as_mut()).collect();
    servers.retain(|server| server.takes_part());
    if !servers.is_empty() {
        let at = ctx.dice.index(servers.len());
        servers[at].reconfigure(ctx, change);
    }
}

/// A server comes in; its machine is started before, or later.
fn add(ctx: &mut Context, hosts: &mut [Host], table: &Members) {
    let outside = (0..hosts.len()).filter(|host| table.get(id_of(*host)).is_none());
    let outside: Vec<usize> = outside.collect();
    if outside.is_empty() {
        return;
    }
    let host = &mut hosts[*ctx.dice.pick(&outside)];
    host.observes = ctx.dice.chance(300);
    if ctx.dice.chance(700) {
        bring(ctx, host);
    }
    let change = setup::add(id_of(host.number), host.observes);
    ask(ctx, hosts, change);
}

/// A machine that does not run comes up, emptied before, mostly; but not while raft counts on what it has.
fn bring(ctx: &mut Context, host: &mut Host) {
    if host.server.is_some() {
        return;
    }
    if host.disk_number() != 0 && !is_needed(ctx, host) && !ctx.dice.chance(100) {
        host.wipe(ctx);
        host.lost = None;
    }
    host.parked = false;
    ctx.soon(Event::Start(host.number));
}

/// A machine is brought in line with the table.
fn tidy(ctx: &mut Context, host: &mut Host, table: &Members) {
    let number = host.disk_number();
    match table.get(id_of(host.number)) {
        None if host.server.is_some() && !is_needed(ctx, host) => host.park(ctx),
        None => {}
        Some(own) if is_former(own, number) && !is_needed(ctx, host) => {
            host.wipe(ctx);
            host.lost = None;
            bring(ctx, host);
        }
        Some(_) if host.parked => {
            host.parked = false;
            ctx.soon(Event::Start(host.number));
        }
        Some(_) => {}
    }
}

/// Does raft need it, though it is in no table any more? Who leaves is needed until a joint configuration is left, and until a
/// majority knows: that is when `warren member remove` says that it may be stopped.
fn is_needed(ctx: &Context, host: &Host) -> bool {
    is_in_use(ctx, id_of(host.number), host.disk_number())
}

/// Does raft count on this disk of a server?
fn is_in_use(ctx: &Context, id: u8, disk: u32) -> bool {
    ctx.checks.configurations.counts_on(raft_id(id, disk))
}

/// Is the disk of a server that votes or is to, one that was replaced?
fn is_former(own: &Member, number: u32) -> bool {
    own.role != MemberRole::Observer && number != 0 && number < own.disk
}

/// Does the newest configuration have a majority with disks that it knows, but for this machine?
pub(super) fn is_enough(ctx: &Context, hosts: &[Host], without: Option<usize>) -> bool {
    let has = |id: u64| {
        let host = host_of(server_of(id));
        let Identity { store_id, disk, observes } = hosts[host].identity();
        // An observer that was emptied and promoted has another store than the one that votes. And one that a client's reconfig
        // makes a voter at once is silent until the log has its store: only who founds votes before.
        let recorded = ctx.checks.history.tree().recorded_store(server_of(id));
        let votes = recorded.map_or(!observes, |store| store == store_id);
        Some(host) != without && disk == disk_of(id) && votes
    };
    ctx.checks.configurations.newest().all(|conf| conf.is_quorum(has))
}

/// A server loses its disk, and is started with an empty one.
fn take_disk(ctx: &mut Context, hosts: &mut [Host], table: &Members) {
    let host = host_of(ctx.dice.pick(&table.servers).id);
    if !is_enough(ctx, hosts, Some(host)) || hosts[host].disk_number() == 0 {
        return;
    }
    hosts[host].wipe(ctx);
    ctx.soon(Event::Start(host));
}

/// Nothing is to be wrong with any machine any more.
fn mend(ctx: &mut Context, hosts: &mut [Host], table: &Members) {
    let enough = is_enough(ctx, hosts, None);
    let mut replaced = Vec::new();
    for host in hosts.iter_mut() {
        let id = id_of(host.number);
        // Nothing can be committed without it, whatever is to come of its server.
        let there = host.disk_number();
        let misses = |lost: &Identity| !enough && there < lost.disk && is_in_use(ctx, id, lost.disk);
        if let Some(lost) = host.lost.take_if(|(_, lost)| misses(lost)) {
            host.restore(ctx, lost);
        }
        let Some(own) = table.get(id) else {
            host.parked = !is_needed(ctx, host);
            match &host.server {
                Some(_) if host.parked => host.park(ctx),
                None if !host.parked => ctx.soon(Event::Start(host.number)),
                _ => {}
            }
            continue;
        };
        host.observes = own.role == MemberRole::Observer;
        if is_former(own, host.disk_number()) && !is_needed(ctx, host) || host.refused {
            host.wipe(ctx);
            host.lost = None;
        } else if host.lacks_data() {
            replaced.push(id);
        }
        // Its store is not the one that it voted with once.
        if !host.observes && host.server.as_ref().is_some_and(|server| server.observes()) {
            replaced.push(id);
        }
        // The leader may have come after its table and its file; it finds that one by a newer file.
        let idle = host.server.as_ref().is_some_and(|s| !s.is_serving() || s.facts().leader.is_none());
        host.idle_since_us = host.idle_since_us.or(Some(ctx.now_us)).filter(|_| idle);
        if host.idle_since_us.is_some_and(|since| ctx.now_us - since > IDLE_US_MAX) {
            host.park(ctx);
        }
        host.parked = false;
        if host.server.is_none() {
            ctx.soon(Event::Start(host.number));
        }
    }
    for id in replaced {
        if ctx.dice.chance(100) {
            ask(ctx, hosts, Change::Replace { id });
        }
    }
}

/// Is everything as the table says, and has every change been carried out?
pub(super) fn is_settled(ctx: &Context, hosts: &[Host]) -> bool {
    let table = ctx.checks.history.tree().members();
    let in_line = |host: &Host| match table.get(id_of(host.number)) {
        None => host.server.is_none(),
        Some(_) => host.is_serving(),
    };
    let joins = |member: &Member| member.role == MemberRole::Joining;
    let joint = ctx.checks.configurations.newest().next().is_some_and(|conf| !conf.outgoing.is_empty());
    !joint && !table.servers.iter().any(joins) && hosts.iter().all(in_line)
}
