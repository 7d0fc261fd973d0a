//! A server comes up, on what is on its disk.

use super::{COMPARE_EVERY, File, Server, TICK_MS};
use crate::sim::Setup;
use crate::sim::check::conversation::authentication;
use crate::sim::context::{Begins, Context, Halt};
use crate::sim::host::name_of;
use crate::sim::net::id_of;
use crate::sim::planted::Planted;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use warren_server::connection::Limits;
use warren_server::consensus::{self, Timers};
use warren_server::entropy::Entropy as _;
use warren_server::founding::{self, Founding};
use warren_server::metrics::Metrics;
use warren_server::observer::{Candidate, Part, Seat, begins_observing};
use warren_server::room::Room;
use warren_server::service::{Service, ServiceOptions};
use warren_storage::log::LogOptions;
use warren_storage::simdisk::SimDisk;
use warren_storage::tree::Begun;
use warren_storage::{MemberRole, Members, RecoverError, Recovered, Rules, SharedDisk, TreeOptions, recover};
use warren_transport::peer::ServerId;

/// The other servers, for an observer that has not heard of the table.
fn others(file: &Members, host: usize) -> Vec<Candidate> {
    let others = file.servers.iter().filter(|member| member.id != id_of(host));
    others.map(|m| Candidate { server: m.id, votes: m.role != MemberRole::Observer }).collect()
}

/// By whom an observer may be fed: by everybody, or the last one by another observer alone.
fn feeders(ctx: &Context, host: usize) -> Vec<ServerId> {
    let Setup { servers, observers, chained, .. } = ctx.setup;
    let last = host + 1 == servers + observers;
    match chained && last {
        true => (servers..host).map(id_of).collect(),
        false => Vec::new(),
    }
}

/// raft's ids of those that found an ensemble by this file.
fn voters_of(file: &Members) -> Vec<u64> {
    file.voters().map(|member| consensus::raft_id(member.id, 1)).collect()
}

impl Server {
    /// Start on what is on the disk, as the daemon does.
    pub(in crate::sim) fn start(
        ctx: &mut Context,
        host: usize,
        disk: SimDisk,
        life: u32,
        begins: Option<Begins>,
        file: File,
    ) -> Result<Server, Halt> {
        let (name, server_id) = (name_of(ctx, host), id_of(host));
        let shared: SharedDisk = Arc::new(disk.clone());
        if shared.mend().map_err(|e| Halt::exit("mend what a failed sync left", e))? {
            ctx.note(&name, format_args!("wrote everything once more: a sync had failed"));
        }
        let tree_options = TreeOptions {
            memory_bytes: ctx.setup.tree_bytes,
            hash_seed: ctx.dice.roll(),
            store_id: ctx.dice.roll(),
        };
        let log_options = LogOptions {
            segment_bytes_max: ctx.setup.segment_bytes,
            ahead_bytes: 64 << 10,
            journal_bytes: 96 << 10,
            cache_bytes: ctx.setup.log_cache_bytes,
        };
        let opened = match recover(shared, tree_options, log_options) {
            // It refuses what the checkers have a name for.
            Err(RecoverError::Gap { first, tree }) => {
                ctx.checks.on_recovered(tree, first)?;
                unreachable!("the log begins at {first}, the tree ends at {tree}, and that is no gap")
            }
            opened => opened.map_err(|e| Halt::exit("open the store", e))?,
        };
        let Recovered { mut tree, mut log, found: recovered, .. } = opened;
        ctx.checks.on_recovered(tree.position().index, recovered.first_index)?;
        let checkpoint = tree.position();
        let empty = checkpoint.index == 0 && recovered.last_index == 0 && recovered.hard_state.term == 0;
        let in_file = file.servers.get(server_id).is_some_and(|own| own.role == MemberRole::Observer);
        let observes = begins_observing(&tree, server_id, in_file);
        let recorded = tree.recorded_store(server_id).filter(|_| !observes && ctx.setup.is_ensemble());
        if recorded.is_some_and(|recorded| recorded != tree.store_id()) {
            return Err(Halt::Wiped);
        }
        let asks = empty
            && tree.disk() == 0
            && begins.is_none()
            && !observes
            // Who is to found alone has nobody to ask.
            && file.servers.voters().any(|member| member.id != server_id)
            && ctx.planted != Some(Planted::WipedVoterVotes);
        if tree.disk() == 0 && !asks {
            let comes = |number| (number, consensus::joining(consensus::raft_id(server_id, number)));
            let observer = Begun { observes: true, ..Begun::default() };
            let ((number, conf_state), begun) = match begins.unwrap_or(Begins::Founds(BTreeMap::new())) {
                Begins::Founds(_) if observes => (comes(1), observer),
                Begins::Founds(founders) => {
                    ((1, consensus::found(&voters_of(&file.servers))), Begun { founders, ..Begun::default() })
                }
                Begins::Joins(number, term) => (comes(number), Begun { term, ..Begun::default() }),
                Begins::Observes(number) => (comes(number), observer),
            };
            let taken = tree.take_part(number, conf_state, begun);
            taken.map_err(|e| Halt::exit("the store cannot take part", e))?;
        }
        let observes = begins_observing(&tree, server_id, in_file);
        let kept = founding::keep_promise(&tree, &mut log, recovered.hard_state);
        let hard_state = kept.map_err(|e| Halt::exit("the log does not keep the store's promise", e))?;
        ctx.note(
            &name,
            format_args!(
                "life {life} starts: checkpoint at {}, log {}..={}, repaired {}",
                checkpoint.index, recovered.first_index, recovered.last_index, recovered.repaired
            ),
        );
        let now = ctx.now_at(host);
        let entropy = Box::new(ctx.dice.fork());
        let room = Arc::new(Room::new(ctx.dice.next_u64(), Arc::new(Metrics::default())));
        // Never 0, which stands for no run.
        let incarnation = ctx.dice.roll().max(1);
        let start = consensus::Start {
            // Who still asks is nobody yet.
            id: consensus::raft_id(server_id, tree.disk().max(1)),
            server_id,
            incarnation,
            reader: log.reader(),
            hard_state,
            checkpoint,
            conf_state: match asks {
                true => consensus::joining(consensus::raft_id(server_id, 1)),
                false => tree.conf_state().to_vec(),
            },
            members: tree.members().clone(),
            retired: tree.retired().clone(),
            found: ctx.setup.is_ensemble().then(|| file.servers.clone()),
            rules: Rules::default(),
            timers: Timers::default(),
            read_bytes_max: ctx.setup.read_bytes_max,
            entropy,
        };
        let part = match observes {
            true => Part::Observer { others: others(&file.servers, host), fed_by: feeders(ctx, host) },
            false => Part::Voter,
        };
        let consensus = Seat::new(now, start, part).map_err(|e| Halt::exit("consensus cannot begin", e))?;
        let options = ServiceOptions {
            server_id,
            observer: observes,
            incarnation,
            tick_ms: TICK_MS,
            read_only: ctx.setup.read_only,
            sessions_max: 1_000,
            sweep_interval: Duration::from_millis(500),
            sweeps_per_minute_max: 10_000,
            container_unused_max: Duration::from_secs(5),
            checkpoint_interval: Duration::from_millis(ctx.setup.checkpoint_interval_ms),
            compare_interval: COMPARE_EVERY,
        };
        let exporter = tree.exporter();
        let founding =
            asks.then(|| Founding::new(tree.store_id(), file.servers.voters().count(), file.joins));
        let service = Service::new(now, tree, room.clone(), options);
        let limits = Limits {
            packet_bytes_max: 1 << 20,
            outstanding_per_connection_max: ctx.setup.outstanding_per_connection_max,
            outstanding_bytes_per_connection_max: 8 << 20,
            outstanding_max: 1_000,
            outstanding_bytes_max: 64 << 20,
            watches_max: 1 << 20,
            sessions_max: 1_000,
            session_timeout_min_ms: 500,
            session_timeout_max_ms: 8_000,
            skip_acl: false,
            reconfig_enabled: ctx.setup.reconfigures,
            authentication: authentication(),
        };
        ctx.checks.on_started(host, &service, &log.reader())?;
        let mut server = Server {
            host,
            name,
            life,
            disk,
            room,
            limits: Arc::new(limits),
            consensus,
            consensus_in: Vec::new(),
            consensus_timer: u64::MAX,
            committed: checkpoint.index,
            log,
            log_jobs: VecDeque::new(),
            log_busy: false,
            service,
            service_in: VecDeque::new(),
            service_timer: u64::MAX,
            waits_for_space: ctx.dice.chance(500),
            unpublished: false,
            leads: false,
            file,
            anew: None,
            founding,
            deposed: false,
            incarnation,
            asked: 0,
            tree_options,
            exporter,
            sending: Vec::new(),
            unsent: Vec::new(),
            receiving: None,
            staged: None,
            installing: None,
            checkpoint_jobs: VecDeque::new(),
            written: VecDeque::new(),
            clients: BTreeMap::new(),
            woken: Arc::default(),
            repeats: VecDeque::new(),
            goes_bad: false,
            forget: u64::from(
                ctx.planted == Some(Planted::SkipEntryOnRestart) && checkpoint.index < recovered.last_index
                    || ctx.planted == Some(Planted::ObserverSkipsEntry) && observes,
            ),
            scheduled: Vec::new(),
        };
        server.link(ctx);
        match server.founding {
            Some(_) => server.ask(ctx),
            None => server.begin(ctx),
        }
        Ok(server)
    }
}
