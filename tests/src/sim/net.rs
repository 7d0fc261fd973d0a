//! The network between the servers: messages that come late, twice, out of order or never; and who reaches whom.
//!
//! Messages of one lane arrive in order, as on one stream of a link, unless the seed lets some overtake. What was sent
//! to a server that has been started anew since is lost, as with the connection it was sent on. When a message is lost,
//! its sender may be told that the link failed.

use super::context::{Context, Event, Halt};
use super::host::Host;
use super::server::Server;
use std::collections::{BTreeMap, BTreeSet};
use warren_transport::peer::{Forwarded, Lane, PeerMessage, RaftKind, RaftMessage, ServerId};

/// From the loss of a message until the sender knows that the link is down, at most, µs.
const LINK_DOWN_US_MAX: u64 = 1_500_000;

/// On its way.
struct Letter {
    from: usize,
    to: usize,
    /// The sender's life.
    of: u32,
    /// The receiver's life for which it is.
    life: u32,
    parcel: Parcel,
}

/// What is on its way.
pub(super) enum Parcel {
    /// What machines say.
    Message(PeerMessage),
    /// A tree follows, chunk by chunk.
    Tree {
        /// Which stream.
        stream: u64,
        /// What consensus is told in the end.
        message: RaftMessage,
    },
    /// A part of it.
    Chunk {
        /// Which stream.
        stream: u64,
        /// As it was exported.
        bytes: Vec<u8>,
    },
    /// That was all.
    TreeEnd {
        /// Which stream.
        stream: u64,
    },
    /// What a planted fault brings to a leader.
    Forged(Vec<u8>),
    /// The receiver has all, or will have nothing of it.
    Taken {
        /// Which stream.
        stream: u64,
        /// Has it?
        ok: bool,
    },
    /// Something for the sender of this is known to be lost.
    Lost,
    /// The link to the sender of this is known to be down.
    Down,
    /// The sender gave the stream up.
    TreeBroken {
        /// Which stream.
        stream: u64,
    },
}

/// See the module's text.
#[derive(Default)]
pub(super) struct Net {
    letters: BTreeMap<u64, Letter>,
    written: u64,
    /// When the last message of a lane arrives.
    last: BTreeMap<(usize, usize, Option<Lane>), u64>,
    /// From whom nothing comes to whom.
    blocked: BTreeSet<(usize, usize)>,
    /// With whom each server has links, as it sees it. There is one where both ends do.
    peers: BTreeMap<usize, BTreeSet<usize>>,
    /// The last life of each host's server.
    lives: BTreeMap<usize, u32>,
    /// When a message was lost the last time, or somebody was not reached, µs.
    trouble_us: u64,
}

impl Net {
    /// Does what the one sends reach the other?
    pub(super) fn reaches(&self, from: usize, to: usize) -> bool {
        !self.blocked.contains(&(from, to)) && self.is_linked(from, to)
    }

    /// Do both ends want a link?
    fn is_linked(&self, one: usize, other: usize) -> bool {
        let wants = |one, other| self.peers.get(one).is_some_and(|peers| peers.contains(other));
        wants(&one, &other) && wants(&other, &one)
    }

    /// Nothing comes from the one to the other any more.
    pub(super) fn block(&mut self, from: usize, to: usize) {
        if from != to {
            self.blocked.insert((from, to));
        }
    }

    /// Everybody reaches everybody.
    pub(super) fn join(&mut self) {
        self.blocked.clear();
    }

    /// A server is gone.
    pub(super) fn on_stopped(&mut self, host: usize) {
        self.peers.remove(&host);
    }

    /// A server was started.
    pub(super) fn on_started(&mut self, host: usize, life: u32) {
        self.lives.insert(host, life);
    }

    /// Does the one, which is up, want no link with the other?
    pub(super) fn refuses(&self, one: usize, other: usize) -> bool {
        let reached = !self.blocked.contains(&(one, other)) && !self.blocked.contains(&(other, one));
        reached && self.peers.get(&one).is_some_and(|peers| !peers.contains(&other))
    }

    /// With whom a server has links.
    pub(super) fn peers(&self, host: usize) -> BTreeSet<usize> {
        self.peers.get(&host).cloned().unwrap_or_default()
    }

    /// Since when nothing was lost and everybody reached everybody, µs.
    pub(super) fn calm_since_us(&self, now_us: u64) -> u64 {
        if self.blocked.is_empty() { self.trouble_us } else { now_us }
    }

    /// Something is wrong now.
    pub(super) fn trouble(&mut self, now_us: u64) {
        self.trouble_us = self.trouble_us.max(now_us);
    }
}

/// A server wants links with these. Those that end so are down for both.
pub(super) fn set_peers(ctx: &mut Context, host: usize, peers: BTreeSet<usize>) {
    let others = 0..ctx.setup.hosts();
    let linked: Vec<usize> = others.filter(|other| ctx.net.is_linked(host, *other)).collect();
    ctx.net.peers.insert(host, peers);
    for other in linked {
        if !ctx.net.is_linked(host, other) {
            break_link(ctx, host, other);
        }
    }
}

/// Send a message.
pub(super) fn send(ctx: &mut Context, from: usize, to: usize, message: PeerMessage) {
    let network = &ctx.setup.network;
    let (lost, doubled) = (network.lost_per_mille, network.doubled_per_mille);
    if !ctx.net.reaches(from, to) || (!ctx.healing && lost > 0 && ctx.dice.chance(lost)) {
        return lose(ctx, from, to, &message);
    }
    if !ctx.healing && doubled > 0 && ctx.dice.chance(doubled) {
        post(ctx, from, to, message.clone());
    }
    post(ctx, from, to, message);
}

fn lose(ctx: &mut Context, from: usize, to: usize, message: &PeerMessage) {
    if ctx.net.is_linked(from, to) {
        ctx.net.trouble(ctx.now_us);
    }
    ctx.note("network", format_args!("loses s{} > s{} {}", from + 1, to + 1, words_of(message)));
    if ctx.dice.chance(300) {
        let later = ctx.dice.below(LINK_DOWN_US_MAX);
        put(ctx, to, from, later, Parcel::Lost);
    }
}

fn post(ctx: &mut Context, from: usize, to: usize, message: PeerMessage) {
    let lane = message.lane();
    let unordered = ctx.setup.network.unordered_per_mille;
    let mut at = ctx.now_us + ctx.delay();
    if ctx.healing || unordered == 0 || !ctx.dice.chance(unordered) {
        let last = ctx.net.last.entry((from, to, Some(lane))).or_default();
        *last = at.max(*last);
        at = *last;
    }
    put(ctx, from, to, at - ctx.now_us, Parcel::Message(message));
}

/// Send a part of a stream: on a lane of its own, and nothing of it is lost as long as the link is up.
pub(super) fn stream(ctx: &mut Context, from: usize, to: usize, parcel: Parcel) {
    if !ctx.net.reaches(from, to) {
        return break_link(ctx, from, to);
    }
    let at = ctx.now_us + ctx.delay();
    let last = ctx.net.last.entry((from, to, None)).or_default();
    *last = at.max(*last);
    let later = *last - ctx.now_us;
    put(ctx, from, to, later, parcel);
}

/// Both ends learn that their link is down.
fn break_link(ctx: &mut Context, one: usize, other: usize) {
    ctx.net.trouble(ctx.now_us);
    for (from, to) in [(one, other), (other, one)] {
        let later = ctx.dice.below(LINK_DOWN_US_MAX);
        put(ctx, from, to, later, Parcel::Down);
    }
}

/// A server is gone, and all its links with it.
pub(super) fn part(ctx: &mut Context, host: usize) {
    for other in (0..ctx.setup.hosts()).filter(|other| *other != host) {
        let later = ctx.dice.below(LINK_DOWN_US_MAX);
        put(ctx, host, other, later, Parcel::Down);
    }
    let now_us = ctx.now_us;
    ctx.net.trouble(now_us);
}

/// One end of a stream tells the other that it gave up, which it learns whatever happens.
pub(super) fn give_up(ctx: &mut Context, from: usize, to: usize, parcel: Parcel) {
    let later = ctx.dice.below(LINK_DOWN_US_MAX);
    put(ctx, from, to, later, parcel);
}

fn put(ctx: &mut Context, from: usize, to: usize, later: u64, parcel: Parcel) {
    ctx.net.written += 1;
    let number = ctx.net.written;
    let life = |host| ctx.net.lives.get(&host).copied().unwrap_or(0);
    let letter = Letter { from, to, of: life(from), life: life(to), parcel };
    ctx.net.letters.insert(number, letter);
    ctx.after(later, Event::Letter(number));
}

/// Something arrives, if its receiver is still there. At which host, and what came of it.
pub(super) fn arrive(ctx: &mut Context, hosts: &mut [Host], number: u64) -> (usize, Result<(), Halt>) {
    let Some(Letter { from, to, of, life, parcel }) = ctx.net.letters.remove(&number) else {
        return (0, Ok(()));
    };
    let reaches = ctx.net.reaches(from, to);
    // A stream ends with its sender.
    let whole = reaches && ctx.net.lives.get(&from) == Some(&of) && hosts[from].server.is_some();
    let server: Option<&mut Server> = hosts[to].server.as_mut().filter(|server| server.life == life);
    let done = match (parcel, server) {
        (Parcel::Message(message), Some(server)) if reaches => {
            ctx.note("network", format_args!("s{} > s{} {}", from + 1, to + 1, words_of(&message)));
            server.on_message(ctx, id_of(from), message)
        }
        (Parcel::Message(message), _) => {
            lose(ctx, from, to, &message);
            Ok(())
        }
        (Parcel::Lost, Some(server)) => {
            server.on_lost(ctx, id_of(from));
            Ok(())
        }
        (Parcel::Down, Some(server)) => server.on_link_down(ctx, id_of(from)),
        (Parcel::TreeBroken { stream }, Some(server)) => server.on_tree_broken(stream),
        (Parcel::Lost | Parcel::Down | Parcel::TreeBroken { .. }, None) => Ok(()),
        (Parcel::Tree { stream, message }, Some(server)) if whole && server.takes_part() => {
            server.on_tree(ctx, id_of(from), stream, message)
        }
        (Parcel::Chunk { stream, bytes }, Some(server)) if whole => server.on_chunk(ctx, stream, &bytes),
        (Parcel::TreeEnd { stream }, Some(server)) if whole => server.on_tree_end(ctx, stream),
        (Parcel::Forged(command), Some(server)) => {
            server.on_forged(ctx, command);
            Ok(())
        }
        (Parcel::Taken { stream, ok }, Some(server)) if whole || !ok => {
            server.on_taken(ctx, stream, ok);
            Ok(())
        }
        _ => {
            break_link(ctx, from, to);
            Ok(())
        }
    };
    (to, done)
}

/// The server id of a host.
pub(super) fn id_of(host: usize) -> ServerId {
    host as ServerId + 1
}

/// The host of a server id.
pub(super) fn host_of(id: ServerId) -> usize {
    usize::from(id) - 1
}

/// A message, for the trace.
fn words_of(message: &PeerMessage) -> String {
    match message {
        PeerMessage::Raft(m) => {
            let no = if m.reject { " no" } else { "" };
            let entries = match (m.kind, m.entries.last()) {
                (RaftKind::Append, Some(last)) => {
                    format!(" {} entries up to {}", m.entries.len(), last.index)
                }
                _ => String::new(),
            };
            format!("{:?}{no} term {} index {} commit {}{entries}", m.kind, m.term, m.index, m.commit)
        }
        PeerMessage::Forward(f) => {
            let commands = f.requests.iter().filter(|r| matches!(r, Forwarded::Command(_))).count();
            format!(
                "Forward term {} from {}, {} requests, {commands} of them commands, begin {}",
                f.term,
                f.first,
                f.requests.len(),
                f.begin
            )
        }
        PeerMessage::ForwardAck(a) => format!("ForwardAck term {} up to {}", a.term, a.upto),
        PeerMessage::Touches(t) => format!("Touches {} of {} sessions", t.number, t.sessions.len()),
        PeerMessage::TouchesAck(a) => format!("TouchesAck {}", a.number),
        PeerMessage::Observe(o) => {
            let lost = if o.lost { ", lost what followed" } else { "" };
            format!("Observe {} at {}, applied {}{lost}", o.feed, o.index, o.applied)
        }
        PeerMessage::Feed(f) => format!(
            "Feed {} behind {} of {} entries, commit {}, term {}, leader {:?}, fed by {:?}",
            f.feed,
            f.index,
            f.entries.len(),
            f.commit,
            f.term,
            f.leader,
            f.path
        ),
        other => format!("{other:?}"),
    }
}
