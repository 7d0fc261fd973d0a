//! The threads of a server: consensus, log, service, checkpoint, tidying up. Each owns its machine; they talk by inboxes.

mod append;
mod apply;
mod chores;
mod propose;

use self::append::{Keeper, LogJob};
use self::apply::Desk;
use super::Clock;
use super::ensemble::Ensemble;
use super::inbox::Inbox;
use super::reconfigure::Reconfigurations;
use super::space::Space;
use crate::consensus::{self, Facts, Role};
use crate::metrics::Metrics;
use crate::observer::Seat;
use crate::pulse::Turns;
use crate::room::Room;
use crate::service::{self, Service};
use parking_lot::Mutex;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use warren_storage::log::{Log, LogReader};
use warren_transport::peer::{Known, PeerMessage, RaftMessage, ServerId, SnapshotHead};

/// A last checkpoint may take this long; what it would hold is in the log as well.
const LAST_CHECKPOINT_MAX: Duration = Duration::from_secs(60);
/// Closing the log may take this long; what is not closed is repaired by the next start.
const LOG_CLOSE_MAX: Duration = Duration::from_secs(20);

/// Where the rest of the daemon reaches the threads.
#[derive(Clone)]
pub(super) struct Engine {
    pub(super) consensus: Arc<Inbox<consensus::Event>>,
    service: Arc<Inbox<ToService>>,
    desk: Arc<Mutex<Desk>>,
    log: Arc<Inbox<LogJob>>,
    keeper: Arc<Keeper>,
    pub(super) ensemble: Option<Arc<Ensemble>>,
    /// Changes of the membership that were asked for here.
    pub(super) reconfigure: Arc<Reconfigurations>,
    /// As of the consensus thread's last turn.
    facts: Arc<Mutex<Option<Facts>>>,
    /// Told by the consensus thread when it has ended, as it does once this is there.
    retire: Arc<Mutex<Option<mpsc::Sender<()>>>>,
    /// The log from here on is still to be sent to a follower that is heard of; `u64::MAX` when none is behind.
    wanted_from: Arc<AtomicU64>,
    /// For who only looks.
    pub(super) log_reader: LogReader,
    turned: Arc<Turned>,
    clock: Clock,
    /// When the oldest of the requests that wait for the consensus thread came, µs; 0 while none waits.
    waiting_us: Arc<AtomicU64>,
}

/// How often each of the machines' threads came back to its inbox; see [`crate::pulse`].
#[derive(Default)]
struct Turned {
    consensus: Count,
    service: Count,
    log: Count,
}

/// Has a cache line to itself, as each belongs to a thread that counts all the time.
#[derive(Default)]
#[repr(align(64))]
struct Count(AtomicU64);

impl Count {
    fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

enum ToService {
    Event(service::Event),
    /// Have a look at the machine.
    Look(Box<dyn FnOnce(&Service) + Send>),
    /// Call back once no checkpoint is under way and everything is in one.
    Settle(mpsc::Sender<()>),
    /// Put the snapshot that was received in the tree's place, then call back.
    Install(SnapshotHead, mpsc::Sender<()>),
}

/// What the engine is made of.
pub(super) struct Parts {
    pub(super) clock: Clock,
    pub(super) consensus: Seat,
    pub(super) service: Service,
    pub(super) log: Log,
    pub(super) room: Arc<Room>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) space: Arc<Space>,
    /// The other servers, if there are any.
    pub(super) ensemble: Option<Arc<Ensemble>>,
    pub(super) reconfigure: Arc<Reconfigurations>,
}

impl Engine {
    /// Start the threads.
    pub(super) fn start(parts: Parts) -> std::io::Result<Engine> {
        let Parts { clock, consensus, service, log, room, metrics, space, ensemble, reconfigure } = parts;
        let log_reader = log.reader();
        let keeper = Keeper::new(log, metrics.clone(), space.clone());
        let (checkpoints, leavings) = (Inbox::new(), Inbox::new());
        let desk = Desk::new(service, checkpoints.clone(), leavings.clone(), space.clone());
        let engine = Engine {
            consensus: Inbox::new(),
            service: Inbox::new(),
            desk: Arc::new(Mutex::new(desk)),
            log: Inbox::new(),
            keeper: Arc::new(keeper),
            ensemble,
            reconfigure,
            facts: Arc::default(),
            retire: Arc::default(),
            wanted_from: Arc::new(AtomicU64::new(u64::MAX)),
            log_reader,
            turned: Arc::default(),
            clock,
            waiting_us: Arc::default(),
        };
        spawn("warren-log", {
            let (engine, leavings) = (engine.clone(), leavings.clone());
            move || append::run(&clock, &engine, &leavings)
        })?;
        for (name, chores) in [("warren-checkpoint", &checkpoints), ("warren-tidy", &leavings)] {
            let (engine, chores, metrics) = (engine.clone(), chores.clone(), metrics.clone());
            let space = space.clone();
            spawn(name, move || chores::run(&clock, &chores, &engine, &metrics, &space))?;
        }
        spawn("warren-service", {
            let engine = engine.clone();
            move || apply::run(&clock, &engine)
        })?;
        spawn("warren-consensus", {
            let engine = engine.clone();
            move || propose::run(&clock, consensus, &engine, &room)
        })?;
        Ok(engine)
    }

    /// From a connection: events for the service first, then submissions for the leader.
    pub(super) fn submit(&self, effects: &mut crate::connection::Effects) {
        if !effects.service.is_empty() {
            // A session that the connection asks for itself wakes the service when it is there.
            let waits =
                |event: &service::Event| matches!(event, service::Event::Connect { asked: Some(_), .. });
            if effects.service.iter().all(waits) {
                for event in effects.service.drain(..) {
                    self.service.leave(ToService::Event(event));
                }
            } else {
                self.service.extend(effects.service.drain(..).map(ToService::Event));
            }
        }
        if !effects.submissions.is_empty() {
            if self.waiting_us.load(Ordering::Relaxed) == 0 {
                self.waiting_us.store(self.clock.now().us, Ordering::Relaxed);
            }
            self.consensus.offer(consensus::Event::Submit(std::mem::take(&mut effects.submissions)));
        }
    }

    /// The disk went below its reserve, or came above it again.
    pub(super) fn refuse_growth(&self, refuse: bool) {
        self.consensus.push(consensus::Event::RefuseGrowth(refuse));
    }

    /// What another server said, to the machine that understands it.
    pub(super) fn hear_peer(&self, from: ServerId, message: PeerMessage) {
        match message {
            PeerMessage::Touches(_) | PeerMessage::TouchesAck(_) | PeerMessage::Compare(_) => {
                self.service.push(ToService::Event(service::Event::Peer { from, message }));
            }
            message => self.consensus.push(consensus::Event::Peer { from, message }),
        }
    }

    /// A server has this store.
    pub(super) fn met(&self, server: ServerId, disk: u32, store_id: u64) {
        self.consensus.push(consensus::Event::Met { server, disk, store_id });
    }

    /// Another server answers what it has recorded of this one.
    pub(super) fn recorded(&self, known: Known) {
        self.consensus.push(consensus::Event::Recorded(known));
    }

    /// Its link is down, or too much waits for it.
    pub(super) fn unreachable(&self, server: ServerId) {
        self.consensus.push(consensus::Event::Unreachable { server });
    }

    /// A snapshot was sent, or was not.
    pub(super) fn snapshot_sent(&self, to: ServerId, ok: bool) {
        let metrics = &self.keeper.metrics;
        if ok {
            metrics.snap_count.add(1)
        } else {
            metrics.warren_snapshots_failed_total.add(1)
        }
        self.consensus.push(consensus::Event::SnapshotSent { to, ok });
    }

    /// A snapshot is all here.
    pub(super) fn snapshot_received(&self, from: ServerId, message: RaftMessage) {
        self.consensus.push(consensus::Event::SnapshotReceived { from, message });
    }

    /// This server does not belong to the ensemble any more, the others say.
    pub(super) fn expelled(&self) {
        self.service.push(ToService::Event(service::Event::Expelled));
    }

    /// Hand leadership over, if this server has it.
    pub(super) fn transfer(&self, to: Option<ServerId>) {
        self.consensus.push(consensus::Event::Transfer { to });
    }

    /// Hand leadership over and wait until that is done or has failed. True when this server led and no longer does.
    pub(super) async fn hand_over(&self, to: Option<ServerId>) -> bool {
        let leads = || self.facts().is_some_and(|facts| facts.role == Role::Leading);
        if !leads() {
            return false;
        }
        let began = tokio::time::Instant::now();
        let mut ask_at = began;
        while leads() && began.elapsed() < HAND_OVER_WITHIN {
            if tokio::time::Instant::now() >= ask_at {
                self.transfer(to);
                ask_at += HAND_OVER_AGAIN;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        !leads()
    }

    /// How often consensus, service and log have turned.
    pub(super) fn turns(&self) -> Turns {
        let Turned { consensus, service, log } = &*self.turned;
        [consensus, service, log].map(|count| count.0.load(Ordering::Relaxed))
    }

    /// Have each of them turn at least once more, as soon as it has done what it is at.
    pub(super) fn poke(&self) {
        self.consensus.rouse(consensus::Event::Tick);
        self.service.rouse(ToService::Look(Box::new(|_| {})));
        self.log.rouse(LogJob::Turn);
    }

    /// Does a write wait for space on the disk?
    pub(super) fn waits_for_space(&self) -> bool {
        self.keeper.space.waits()
    }

    /// How consensus stood a moment ago; `None` where there is but one voter.
    pub(super) fn facts(&self) -> Option<Facts> {
        self.facts.lock().clone()
    }

    /// Make a checkpoint, unless nothing has changed since the last one.
    pub(super) fn checkpoint_now(&self) {
        self.service.push(ToService::Event(service::Event::CheckpointNow));
    }

    /// Have the service thread look at its machine.
    pub(super) fn look(&self, look: impl FnOnce(&Service) + Send + 'static) {
        self.service.push(ToService::Look(Box::new(look)));
    }

    /// The other servers. Asked only where consensus or service has something for them.
    fn others(&self) -> &Arc<Ensemble> {
        self.ensemble.as_ref().expect("an ensemble of one has nobody to write to")
    }

    /// Make a last checkpoint and close the log. Waits, but not for a full disk to have space again: then `false`.
    pub(super) fn stop(&self) -> bool {
        let (done, wait) = mpsc::channel();
        self.service.push(ToService::Event(service::Event::LastCheckpoint));
        self.service.push(ToService::Settle(done));
        let settled = wait.recv_timeout(LAST_CHECKPOINT_MAX).is_ok();
        // Without its peers it would look for a leader, and in a log that is closed.
        let (done, wait) = mpsc::channel();
        *self.retire.lock() = Some(done);
        self.consensus.push(consensus::Event::Tick);
        let _ = wait.recv_timeout(LOG_CLOSE_MAX);
        let (done, wait) = mpsc::channel();
        self.log.push(LogJob::Close(done));
        wait.recv_timeout(LOG_CLOSE_MAX).is_ok() && settled
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    thread::Builder::new().name(name.into()).spawn(run).map(|_| ())
}

/// Our own broken state, or a store that fails: nothing good can come of going on. What was acknowledged is in
/// the log, and the next start recovers it.
fn stop_for(what: &str, error: &dyn std::error::Error) -> ! {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    say_and_stop(what, &text)
}

fn say_and_stop(what: &str, why: &dyn Display) -> ! {
    tracing::error!("{what}: {why}; stopping, so that nothing is acknowledged that is not kept");
    std::process::exit(74)
}

/// A hand-over that takes longer has failed: nobody is near enough.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(2);
/// Within it, leadership is offered again each time: raft gives an offer that was lost up after an election timeout, and
/// takes a second one to the same server before that for the first.
const HAND_OVER_AGAIN: Duration = Duration::from_millis(300);
/// Between two looks at how consensus stands.
pub(super) const SHOW_EVERY: Duration = Duration::from_millis(50);
