//! What everything in a run shares: the clock, the queue of events, the dice, the network, the trace, the checkers.

use super::check::{Checks, Violation};
use super::net::Net;
use super::wire::Wire;
use super::{Dice, Planted, Setup, trace::Trace};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;
use warren_server::moment::Moment;
use warren_transport::peer::ServerId;

/// Something that is going to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// A step of this host's server in this life; nothing when it is dead.
    Server(usize, u32, Step),
    /// A message between servers arrives.
    Letter(u64),
    /// Bytes of this connection arrive at the server.
    ToServer(u64),
    /// Bytes of this connection arrive at its client.
    ToClient(u64),
    /// A client acts.
    Client(usize),
    /// A client's timer for pings, of this connection.
    Ping(usize, u64),
    /// The daemon of this host is started.
    Start(usize),
    /// Something breaks.
    Fault,
    /// The operator has this host's server begin anew in place.
    Anew(usize),
    /// The network between the servers changes.
    Network,
    /// The full disk of this host has space again.
    Space(usize),
    /// The operator does something.
    Operator,
}

/// A step of one of the server's threads; see the daemon's engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// The consensus thread takes what is in its inbox.
    Consensus,
    /// Its timer, set for this moment (µs).
    ConsensusTimer(u64),
    /// The log thread takes its next job.
    Log,
    /// What it appended is reported durable.
    Logged(u64),
    /// The service thread takes the next event.
    Service,
    /// Its timer, set for this moment (µs).
    ServiceTimer(u64),
    /// It publishes what it applied.
    Publish,
    /// The checkpoint thread takes its next job.
    Checkpoint,
    /// What it wrote is reported.
    Checkpointed,
    /// A server with an empty store asks again whether it may take part.
    Ask,
    /// It looks whether its tree was confirmed, which waits to be sent.
    Confirm,
    /// The next chunk of this tree is sent.
    Stream(u64),
    /// A received tree is in place, and the log's thread learns of it.
    Installed,
    /// A connection's task runs.
    Connection(u64),
    /// Submissions are delivered a second time.
    Repeat,
    /// A server that is to begin anew looks whether it is so far.
    Anew,
}

/// Why a step does not end well.
#[derive(Debug)]
pub(super) enum Halt {
    /// The server's process stops itself, for this reason.
    Exit(String),
    /// A property does not hold.
    Violated(Violation),
    /// It knows as whom it takes part, and begins anew as that.
    Begins(Begins),
    /// It is another process from here on, in its place.
    Anew,
    /// It does not start: its store is not the one that its own table has recorded.
    Wiped,
}

/// What a server with an empty store does first.
#[derive(Clone, Debug)]
pub(super) enum Begins {
    /// Found an ensemble with these stores of others.
    Founds(BTreeMap<ServerId, u64>),
    /// Come to one that is there, as this disk of the server, which was recorded in this term.
    Joins(u32, u64),
    /// Come to one that is there as an observer.
    Observes(u32),
}

impl From<Violation> for Halt {
    fn from(violation: Violation) -> Halt {
        Halt::Violated(violation)
    }
}

impl Halt {
    /// The process stops because of an error of its store.
    pub(super) fn exit(what: &str, error: impl std::error::Error) -> Halt {
        let mut text = format!("{what}: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        Halt::Exit(text)
    }
}

/// Where the simulated monotonic clock begins: a day in, as the daemon's.
const START_US: u64 = 86_400_000_000;
/// Where the wall clock begins, ms since 1970.
const START_WALL_MS: i64 = 1_700_000_000_000;

/// See the module's text.
pub(super) struct Context {
    /// Since the run began, µs.
    pub(super) now_us: u64,
    /// The jumps of each host's wall clock, ms.
    pub(super) wall_jump_ms: Vec<i64>,
    /// All randomness.
    pub(super) dice: Dice,
    /// The seed's circumstances.
    pub(super) setup: Setup,
    /// A fault of ours.
    pub(super) planted: Option<Planted>,
    /// What happened.
    pub(super) trace: Trace,
    /// What must hold.
    pub(super) checks: Checks,
    /// The network between servers.
    pub(super) net: Net,
    /// Connections' networks.
    pub(super) wires: BTreeMap<u64, Wire>,
    /// Trees sent to servers that were far behind.
    pub(super) snapshots: u64,
    /// Connections opened so far.
    pub(super) connections: u64,
    queue: BinaryHeap<Reverse<(u64, u64, Event)>>,
    scheduled: u64,
    /// Faults of the first phase are over: nothing is slow any more.
    pub(super) healing: bool,
}

impl Context {
    /// The beginning of a run.
    pub(super) fn new(dice: Dice, setup: Setup, planted: Option<Planted>, trace: Trace) -> Context {
        let mut checks = Checks::new(&setup.founders(), setup.hosts());
        checks.reconfigures = setup.reconfigures;
        checks.ephemerals.stall_us_max = setup.stall_us_max;
        Context {
            now_us: 0,
            wall_jump_ms: vec![0; setup.hosts()],
            dice,
            setup,
            planted,
            trace,
            checks,
            net: Net::default(),
            wires: BTreeMap::new(),
            snapshots: 0,
            connections: 0,
            queue: BinaryHeap::new(),
            scheduled: 0,
            healing: false,
        }
    }

    /// Now, by the clocks of this host. The monotonic one of each began at another time, and goes a little wrong.
    pub(super) fn now_at(&self, host: usize) -> Moment {
        let us =
            self.now_us.saturating_add_signed(self.now_us as i64 * self.setup.drift_ppm[host] / 1_000_000);
        let wall_ms = START_WALL_MS + (us / 1_000) as i64 + self.wall_jump_ms[host];
        Moment { us: START_US * (host as u64 + 1) + us, wall_ms }
    }

    /// A moment of this host's clock, in the run's time.
    pub(super) fn us_of(&self, host: usize, moment: Moment) -> u64 {
        let us = moment.us.saturating_sub(START_US * (host as u64 + 1));
        match self.setup.drift_ppm[host] {
            0 => us,
            ppm => (i128::from(us) * 1_000_000 / i128::from(1_000_000 + ppm)) as u64 + 1,
        }
    }

    /// `event` happens at this time, or now if that is past.
    pub(super) fn at(&mut self, us: u64, event: Event) {
        self.scheduled += 1;
        self.queue.push(Reverse((us.max(self.now_us), self.scheduled, event)));
    }

    /// `event` happens this much later.
    pub(super) fn after(&mut self, us: u64, event: Event) {
        self.at(self.now_us + us, event);
    }

    /// `event` happens soon: after a delay as threads and networks have it, now and then a long one.
    pub(super) fn soon(&mut self, event: Event) {
        let delay = self.delay();
        self.after(delay, event);
    }

    /// A delay as threads and networks have it.
    pub(super) fn delay(&mut self) -> u64 {
        let Setup { delay_us_max, stalls_per_mille, stall_us_max, .. } = self.setup;
        if !self.healing && stalls_per_mille > 0 && self.dice.chance(stalls_per_mille) {
            return self.dice.below(stall_us_max);
        }
        if self.dice.chance(300) { 0 } else { self.dice.below(delay_us_max + 1) }
    }

    /// The next event; the clock goes on to it.
    pub(super) fn next(&mut self) -> Option<Event> {
        let Reverse((us, _, event)) = self.queue.pop()?;
        self.now_us = us;
        Some(event)
    }

    /// When the next event is.
    pub(super) fn next_us(&self) -> Option<u64> {
        self.queue.peek().map(|Reverse((us, ..))| *us)
    }

    /// A line of the trace.
    pub(super) fn note(&mut self, who: &str, what: fmt::Arguments<'_>) {
        self.trace.line(self.now_us, who, what);
    }
}
