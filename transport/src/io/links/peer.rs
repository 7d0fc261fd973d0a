//! One peer, with or without a link: which connection is the link, what waits for one, and when it is given up.

use super::link::Live;
use super::queue::Queue;
use super::{DownReason, Hold, SNAPSHOTS_PER_LINK_MAX, SendError};
use crate::peer::{PeerMessage, ServerId};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{Notify, OwnedMutexGuard, Semaphore, watch};

/// Messages that wait for a link that is being made, at most.
pub const WAITING_MESSAGES_MAX: usize = 64;
/// Their bytes, at most.
pub const WAITING_BYTES_MAX: usize = 64 << 10;

pub(super) struct Peer {
    pub(super) id: ServerId,
    pub(super) addr: String,
    hold: watch::Sender<Hold>,
    current: Mutex<Current>,
    /// Held while a link is up, so that there is one at a time.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// Whoever dials has to look again.
    changed: Notify,
    pub(super) overflows: AtomicU64,
    /// Snapshots that it may be sent, or may send, now: [`SNAPSHOTS_PER_LINK_MAX`] each.
    pub(super) sending: Arc<Semaphore>,
    pub(super) receiving: Semaphore,
    /// True once it is no peer any more.
    pub(super) gone: watch::Sender<bool>,
}

#[derive(Default)]
struct Current {
    live: Option<Arc<Live>>,
    /// Counts connections, so that the newest wins.
    newest: u64,
    /// Did the server with the higher id dial the newest one, as is the rule, and is it there or about to be?
    by_rule: bool,
    /// Said while there was no link.
    waiting: VecDeque<(usize, PeerMessage)>,
    waiting_bytes: usize,
}

/// The right to be the link.
pub(super) struct Turn {
    number: u64,
    _turn: OwnedMutexGuard<()>,
}

impl Current {
    fn wait(&mut self, bytes: usize, message: PeerMessage) -> bool {
        let room =
            self.waiting.len() < WAITING_MESSAGES_MAX && self.waiting_bytes + bytes <= WAITING_BYTES_MAX;
        if room {
            self.waiting_bytes += bytes;
            self.waiting.push_back((bytes, message));
        }
        room
    }

    /// The link is none any more; a newer one may be about to come.
    fn vacate(&mut self, turn: &Turn) {
        self.live = None;
        self.by_rule &= self.newest != turn.number;
    }

    fn take_waiting(&mut self) -> VecDeque<(usize, PeerMessage)> {
        self.waiting_bytes = 0;
        std::mem::take(&mut self.waiting)
    }
}

impl Peer {
    pub(super) fn new(id: ServerId, addr: String, hold: Hold) -> Arc<Peer> {
        Arc::new(Peer {
            id,
            addr,
            hold: watch::Sender::new(hold),
            current: Mutex::default(),
            turn: Arc::default(),
            changed: Notify::new(),
            overflows: AtomicU64::new(0),
            sending: Arc::new(Semaphore::new(SNAPSHOTS_PER_LINK_MAX)),
            receiving: Semaphore::new(SNAPSHOTS_PER_LINK_MAX),
            gone: watch::Sender::new(false),
        })
    }

    pub(super) fn hold(&self) -> Hold {
        *self.hold.borrow()
    }

    pub(super) fn set_hold(&self, hold: Hold) {
        if self.hold() != hold {
            self.hold.send_replace(hold);
            self.changed.notify_one();
        }
    }

    pub(super) fn live(&self) -> Option<Arc<Live>> {
        self.current.lock().live.clone()
    }

    /// Does something wait for a link?
    pub(super) fn is_wanted(&self) -> bool {
        !self.current.lock().waiting.is_empty()
    }

    /// Wait until there is something to look at: a message that waits, a link that is gone, another [`Hold`].
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    pub(super) fn push(&self, live: &Live, bytes: usize, message: PeerMessage) -> Result<(), SendError> {
        let lane = message.lane();
        live.note_use();
        if live.queue(lane).push(bytes, message) {
            return Ok(());
        }
        self.overflows.fetch_add(1, Ordering::Relaxed);
        Err(SendError::Overflow(lane))
    }

    /// See [`super::Links::reach`].
    pub(super) fn reach(&self, bytes: usize, message: PeerMessage) -> Result<(), SendError> {
        let mut current = self.current.lock();
        if let Some(live) = &current.live {
            // Under the lock, so that the link is not given up between the two.
            return self.push(live, bytes, message);
        }
        if self.hold() != Hold::OnDemand {
            return Err(SendError::Down(self.id));
        }
        let fits = current.wait(bytes, message);
        drop(current);
        self.changed.notify_one();
        if fits {
            return Ok(());
        }
        self.overflows.fetch_add(1, Ordering::Relaxed);
        Err(SendError::Waiting(self.id))
    }

    /// No link could be made: what waits for one is dropped. Was there anything?
    pub(super) fn give_up(&self) -> bool {
        !self.current.lock().take_waiting().is_empty()
    }

    /// End an older link and take its place; `None` when a newer connection came meanwhile. `by_rule`: the server with the higher
    /// id dialled it. When both ends dial at once, that one stays, so that both ends keep the same.
    pub(super) async fn take_turn(&self, live: &Arc<Live>, by_rule: bool) -> Option<Turn> {
        let number = {
            let mut current = self.current.lock();
            if current.by_rule && !by_rule {
                return None;
            }
            if let Some(old) = &current.live {
                old.close(DownReason::Replaced);
            }
            current.newest += 1;
            current.by_rule = by_rule;
            current.newest
        };
        let turn = self.turn.clone().lock_owned().await;
        let mut current = self.current.lock();
        if current.newest != number {
            return None;
        }
        assert!(current.live.is_none(), "a link leaves its place before it gives up its turn");
        current.live = Some(live.clone());
        for (bytes, message) in current.take_waiting() {
            // The queue is empty, and has room for more than may wait.
            let _ = self.push(live, bytes, message);
        }
        Some(Turn { number, _turn: turn })
    }

    /// Is this link held on demand, and was it not used since the last time that this was asked? Then it is the link no more: what
    /// is said from now on makes another.
    pub(super) fn retire(&self, turn: &Turn, live: &Live) -> bool {
        let mut current = self.current.lock();
        let unused = !live.was_used() && live.queues.iter().all(|queue| queue.bytes() == 0);
        let retires = unused && self.hold() == Hold::OnDemand;
        if retires {
            current.vacate(turn);
        }
        retires
    }

    /// The link is over. What was queued and not sent is for the next one, if the other end gave this one up because nobody used
    /// it, or because both had dialled; else it is lost.
    pub(super) fn leave(&self, turn: &Turn, live: &Live, why: &DownReason) {
        {
            let mut current = self.current.lock();
            current.vacate(turn);
            let goes_on = matches!(why, DownReason::Unused | DownReason::Replaced);
            if goes_on && self.hold() == Hold::OnDemand {
                for (bytes, message) in live.queues.iter().flat_map(Queue::drain) {
                    let _ = current.wait(bytes, message);
                }
            }
        }
        self.changed.notify_one();
    }
}
