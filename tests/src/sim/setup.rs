//! What differs from seed to seed beside the order of events: how many clients, which faults, how small the limits.

use super::net::id_of;
use super::{Dice, Planted, Run};
use warren_server::consensus::{READ_BYTES_MAX, raft_id};
use warren_server::membership;
use warren_storage::{Change, Member, MemberRole, Members};

/// A seed's circumstances. Faults are drawn once for a whole run, so that some runs have many of one kind and some
/// none at all.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Voters.
    pub servers: usize,
    /// Observers; their hosts come after the voters'.
    pub observers: usize,
    /// Machines with empty disks, which nobody knows of before an operator adds them; they come last.
    pub spares: usize,
    /// The last observer is fed by another observer or not at all.
    pub chained: bool,
    /// Between two doings of the operator on average, µs; 0: there is none, and the membership stays as it is.
    pub changes_every_us: u64,
    /// Weights of what the operator does: add a server, promote, demote or remove one, take a disk away and bring an empty
    /// one, replace a server, tidy up behind former changes.
    pub changes: [u64; 7],
    /// In a thousand starts, so many are with a configuration file as it was in the beginning.
    pub stale_files_per_mille: u64,
    /// In a thousand turns of a client, so many are a change of the membership.
    pub reconfigs_per_mille: u64,
    /// Clients may change the membership.
    pub reconfigures: bool,
    /// How wrong each server's clock goes, millionths.
    pub drift_ppm: Vec<i64>,
    /// The network between servers.
    pub network: Network,
    /// In a thousand faults, so many stop all servers at once.
    pub blackouts_per_mille: u64,
    /// In a thousand faults, so many hand leadership over.
    pub transfers_per_mille: u64,
    /// In a thousand faults, so many let a server stand still, as a stopped process does.
    pub pauses_per_mille: u64,
    /// It does for at most this, µs.
    pub pause_us_max: u64,
    /// A server that went stays away for at most this, µs.
    pub downtime_us_max: u64,
    /// When servers begin anew in place, and which, µs.
    pub anew: Vec<(u64, usize)>,
    /// Clients.
    pub clients: u64,
    /// Requests of all clients together, before the healing phase.
    pub requests: u64,
    /// Requests that one client sends at once, at most.
    pub pipeline_max: u64,
    /// Between two turns of a client on average, µs.
    pub think_us: u64,
    /// A thread's next step comes within this, usually. µs.
    pub delay_us_max: u64,
    /// In a thousand steps, so many are stalls.
    pub stalls_per_mille: u64,
    /// A stall takes at most this long, µs.
    pub stall_us_max: u64,
    /// The tree's memory budget; small, so that there are checkpoints.
    pub tree_bytes: u64,
    /// A segment of the log.
    pub segment_bytes: u64,
    /// Records that stay in memory.
    pub log_cache_bytes: usize,
    /// See [`warren_server::connection::Limits`].
    pub outstanding_per_connection_max: usize,
    /// A checkpoint at least this often, ms.
    pub checkpoint_interval_ms: u64,
    /// Bytes that a client does not read before the server cannot send more.
    pub window_bytes: usize,
    /// Between two faults on average, µs; 0: none.
    pub fault_every_us: u64,
    /// Weights of faults: power loss, kill, power loss at an operation, IO error at an operation, full disk, growth
    /// refused, wall clock jumps, a checkpoint out of turn.
    pub faults: [u64; 8],
    /// In a thousand client turns, so many are a disconnect, silence, a slow reader, a goodbye, a theft of another
    /// client's session.
    pub client_faults: [u64; 5],
    /// In a thousand batches of writes, so many are delivered twice.
    pub repeats_per_mille: u64,
    /// A server without a leader serves reads, and some clients accept it.
    pub read_only: bool,
    /// See [`warren_server::consensus::Start`].
    pub read_bytes_max: usize,
}

/// What may happen to messages between servers.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// In a thousand messages, so many are lost.
    pub lost_per_mille: u64,
    /// So many arrive twice.
    pub doubled_per_mille: u64,
    /// So many overtake others of their lane.
    pub unordered_per_mille: u64,
    /// Between two changes of who reaches whom on average, µs; 0: everybody always reaches everybody.
    pub change_every_us: u64,
    /// Weights of partitions: none, one server alone, two groups, one direction of a pair, a pair, one who reaches
    /// all while they do not reach each other, one who is heard and does not hear, one who hears and is not heard.
    pub partitions: [u64; 8],
}

/// The dice of what a single server does not have, so that its seeds are not disturbed.
const ENSEMBLE: u64 = 0x656e_7365_6d62_6c65;
/// The dice of what no ensemble without observers has; likewise.
const OBSERVERS: u64 = 0x6f62_7365_7276_6572;
/// The dice of beginnings anew; likewise.
const ANEW: u64 = 0x616e_6577_616e_6577;
/// The dice of how much is read in a turn; likewise.
const READS: u64 = 0x7265_6164_7265_6164;
/// Of beginnings anew in a run, at most.
const ANEW_MAX: u64 = 12;
/// Between two of them on average, µs.
const ANEW_EVERY_US: [u64; 3] = [200_000, 1_000_000, 4_000_000];
/// The dice of what no ensemble has whose membership stays; likewise.
const MEMBERSHIP: u64 = 0x6d65_6d62_6572_7368;

impl Setup {
    /// The circumstances of a run: of its seed, but for what the run says.
    pub fn draw(run: &Run, dice: &mut Dice) -> Setup {
        let Run { seed, servers, observers, changes, planted, .. } = *run;
        let some = |dice: &mut Dice, max: u64| if dice.chance(500) { dice.below(max + 1) } else { 0 };
        let mut faults = [0; 8];
        for weight in &mut faults {
            *weight = some(dice, 4);
        }
        let mut client_faults = [0; 5];
        for (each, max) in client_faults.iter_mut().zip([60, 30, 30, 10, 20]) {
            *each = some(dice, max);
        }
        let mut ensemble = Dice::new(seed ^ ENSEMBLE);
        let drawn = *ensemble.pick(&[1, 1, 3, 3, 3, 5]);
        let servers = servers.unwrap_or(drawn);
        let mut beside = Dice::new(seed ^ OBSERVERS);
        let drawn = if servers > 1 { *beside.pick(&[0, 0, 0, 1, 2]) } else { 0 };
        let observers = observers.unwrap_or(drawn);
        let mut members = Dice::new(seed ^ MEMBERSHIP);
        // One that begins alone is an ensemble, too, when others may come.
        let drawn = members.chance(if servers > 1 { 400 } else { 250 });
        let changes = changes.unwrap_or(drawn);
        let spares =
            if changes { *members.pick(if servers > 1 { &[0, 1, 1, 2] } else { &[1, 2, 3] }) } else { 0 };
        let mut weights = [3, 1, 1, 1, 0, 1, 2];
        for weight in &mut weights {
            *weight += some(&mut members, 4);
        }
        let chained = observers > 1 && beside.chance(500);
        let drifts = servers > 1 && ensemble.chance(500);
        let drift = |dice: &mut Dice| if drifts { dice.below(20_001) as i64 - 10_000 } else { 0 };
        let mut partitions = [2, 0, 0, 0, 0, 0, 0, 0];
        for weight in &mut partitions[1..] {
            *weight = some(&mut ensemble, 3);
        }
        Setup {
            servers,
            observers,
            spares,
            // Who may feed it must not go.
            chained: chained && !changes,
            changes_every_us: if changes { *members.pick(&[150_000, 600_000, 2_000_000]) } else { 0 },
            changes: weights,
            stale_files_per_mille: some(&mut members, 300),
            reconfigs_per_mille: if changes { some(&mut members, 60) } else { 0 },
            reconfigures: changes,
            drift_ppm: (0..servers)
                .map(|_| drift(&mut ensemble))
                .chain((0..observers).map(|_| drift(&mut beside)))
                .chain((0..spares).map(|_| drift(&mut members)))
                .collect(),
            network: Network {
                lost_per_mille: some(&mut ensemble, 100),
                doubled_per_mille: some(&mut ensemble, 100),
                unordered_per_mille: some(&mut ensemble, 100),
                change_every_us: *ensemble.pick(&[0, 300_000, 1_000_000, 4_000_000]),
                partitions,
            },
            blackouts_per_mille: some(&mut ensemble, 200),
            transfers_per_mille: some(&mut ensemble, 400),
            pauses_per_mille: some(&mut ensemble, 400),
            pause_us_max: *ensemble.pick(&[300_000, 2_000_000, 10_000_000]),
            downtime_us_max: match servers + spares {
                1 => 300_000,
                _ => *ensemble.pick(&[100_000, 1_000_000, 5_000_000]),
            },
            anew: anew(&mut Dice::new(seed ^ ANEW), servers + observers + spares, planted),
            read_bytes_max: *Dice::new(seed ^ READS).pick(&[1, READ_BYTES_MAX]),
            clients: dice.between(2, 7),
            requests: dice.between(200, 600),
            pipeline_max: *dice.pick(&[1, 4, 12, 30]),
            think_us: *dice.pick(&[3_000, 30_000, 200_000]),
            delay_us_max: *dice.pick(&[20, 300, 3_000]),
            stalls_per_mille: some(dice, 20),
            stall_us_max: *dice.pick(&[20_000, 500_000, 2_000_000]),
            tree_bytes: *dice.pick(&[64 << 10, 256 << 10, 16 << 20]),
            segment_bytes: *dice.pick(&[8 << 10, 32 << 10, 1 << 20]),
            log_cache_bytes: *dice.pick(&[0, 4 << 10, 1 << 20]),
            outstanding_per_connection_max: *dice.pick(&[1, 5, 1_000]),
            checkpoint_interval_ms: *dice.pick(&[300, 2_000, 60_000]),
            window_bytes: *dice.pick(&[200, 4 << 10, 256 << 10]),
            fault_every_us: *dice.pick(&[0, 400_000, 1_500_000, 4_000_000]),
            faults,
            client_faults,
            repeats_per_mille: some(dice, 200),
            read_only: servers > 1 && ensemble.chance(500),
        }
    }

    /// raft's ids of the servers that found the ensemble.
    pub(super) fn founders(&self) -> Vec<u64> {
        (0..self.servers).map(|host| raft_id(id_of(host), 1)).collect()
    }

    /// All servers that found the ensemble, as they are written down.
    pub(super) fn members(&self) -> Members {
        let role = |host| if host < self.servers { MemberRole::Voter } else { MemberRole::Observer };
        let founders = (0..self.servers + self.observers).map(|host| member(id_of(host), role(host)));
        Members { version: 0, servers: founders.collect() }
    }

    /// Is it one of an ensemble, or does it stand alone?
    pub(super) fn is_ensemble(&self) -> bool {
        self.servers > 1 || self.changes_every_us > 0
    }

    /// Machines: of voters, observers, and those that may come.
    pub fn hosts(&self) -> usize {
        self.servers + self.observers + self.spares
    }

    /// Nothing by chance: for scenarios. With several observers, the last is fed by another one.
    pub fn still(servers: usize, observers: usize, spares: usize) -> Setup {
        Setup {
            servers,
            observers,
            spares,
            chained: observers > 1,
            changes_every_us: 0,
            changes: [0; 7],
            stale_files_per_mille: 0,
            reconfigs_per_mille: 0,
            reconfigures: servers > 1,
            drift_ppm: vec![0; servers + observers + spares],
            network: Network::default(),
            blackouts_per_mille: 0,
            transfers_per_mille: 0,
            pauses_per_mille: 0,
            pause_us_max: 0,
            downtime_us_max: 0,
            anew: Vec::new(),
            clients: 0,
            requests: 0,
            pipeline_max: 1,
            think_us: 1_000,
            delay_us_max: 0,
            stalls_per_mille: 0,
            stall_us_max: 0,
            tree_bytes: 16 << 20,
            segment_bytes: if servers == 1 { 1 << 20 } else { 256 },
            log_cache_bytes: 1 << 20,
            outstanding_per_connection_max: 1_000,
            checkpoint_interval_ms: 60_000,
            window_bytes: 1 << 20,
            fault_every_us: 0,
            faults: [0; 8],
            client_faults: [0; 5],
            repeats_per_mille: 0,
            read_only: false,
            read_bytes_max: READ_BYTES_MAX,
        }
    }
}

fn anew(dice: &mut Dice, hosts: usize, planted: Option<Planted>) -> Vec<(u64, usize)> {
    if !dice.chance(300) && planted != Some(Planted::KeptWithoutWatches) {
        return Vec::new();
    }
    let every_us = *dice.pick(&ANEW_EVERY_US);
    let (mut at_us, times) = (0, dice.between(1, ANEW_MAX));
    let next = |_| {
        at_us += dice.between(every_us / 4, 2 * every_us);
        (at_us, dice.below(hosts as u64) as usize)
    };
    (0..times).map(next).collect()
}

/// A server, on its first disk.
pub(super) fn member(id: u8, role: MemberRole) -> Member {
    Member { id, disk: 1, role, peer_addr: format!("s{id}:2182"), client_addr: format!("s{id}:2181") }
}

/// It, as a configuration has it.
pub(super) fn line(id: u8, role: MemberRole) -> String {
    let one = Members { version: 0, servers: vec![member(id, role)] };
    membership::text(&one).lines().next().unwrap_or_default().to_owned()
}

/// A server comes in.
pub(super) fn add(id: u8, observer: bool) -> Change {
    let Member { peer_addr, client_addr, .. } = member(id, MemberRole::Joining);
    Change::Add { id, peer_addr, client_addr, observer }
}
