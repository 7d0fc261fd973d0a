//! Who reaches whom, as it changes.

use super::context::{Context, Event};
use super::host::Host;

/// The network between the servers becomes another, by the seed's weights.
pub(super) fn change(ctx: &mut Context, hosts: &[Host]) {
    if ctx.healing {
        return;
    }
    let every = ctx.setup.network.change_every_us;
    // Now and then one that flaps.
    let shortest = if ctx.dice.chance(200) { every / 50 } else { every / 4 };
    let next = ctx.dice.between(shortest, every * 2);
    ctx.after(next, Event::Network);
    let weights = ctx.setup.network.partitions;
    let mut roll = ctx.dice.below(weights.iter().sum());
    let mut kind = 0;
    while roll >= weights[kind] {
        roll -= weights[kind];
        kind += 1;
    }
    let all = 0..hosts.len();
    let leader = hosts.iter().position(|host| host.server.as_ref().is_some_and(|s| s.leads()));
    // The leader matters most.
    let one = match leader {
        Some(leader) if ctx.dice.chance(500) => leader,
        _ => ctx.dice.below(hosts.len() as u64) as usize,
    };
    let other = (one + ctx.dice.between(1, hosts.len() as u64 - 1) as usize) % hosts.len();
    end(ctx);
    let net = &mut ctx.net;
    let what = match kind {
        0 => "all reach all".into(),
        1 => {
            for host in all {
                net.block(one, host);
                net.block(host, one);
            }
            format!("s{} is alone", one + 1)
        }
        2 => {
            let side = ctx.dice.roll();
            let of = |host: usize| side >> host & 1;
            for (from, to) in pairs(hosts.len()).filter(|(from, to)| of(*from) != of(*to)) {
                net.block(from, to);
            }
            let group: Vec<usize> = all.filter(|host| of(*host) == 1).map(|host| host + 1).collect();
            format!("{group:?} and the others are apart")
        }
        3 => {
            net.block(one, other);
            format!("s{} does not hear s{}", other + 1, one + 1)
        }
        4 => {
            net.block(one, other);
            net.block(other, one);
            format!("s{} and s{} do not reach each other", one + 1, other + 1)
        }
        5 => {
            for (from, to) in pairs(hosts.len()).filter(|(from, to)| *from != one && *to != one) {
                net.block(from, to);
            }
            format!("all reach s{} alone", one + 1)
        }
        6 => {
            all.for_each(|host| net.block(host, one));
            format!("s{} hears nobody", one + 1)
        }
        _ => {
            all.for_each(|host| net.block(one, host));
            format!("nobody hears s{}", one + 1)
        }
    };
    ctx.note("FAULT", format_args!("network: {what}"));
}

fn pairs(hosts: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..hosts).flat_map(move |from| (0..hosts).map(move |to| (from, to)))
}

/// Everybody reaches everybody.
pub(super) fn end(ctx: &mut Context) {
    ctx.net.join();
    let now_us = ctx.now_us;
    ctx.net.trouble(now_us);
}
