//! What waits to be sent on one lane of one link.

use crate::peer::{Lane, PeerMessage};
use parking_lot::Mutex;
use std::collections::VecDeque;
use tokio::sync::Notify;

/// Messages on a lane, at most.
pub const QUEUE_MESSAGES_MAX: usize = 4096;
/// Bytes on [`Lane::Consensus`], at most: heartbeats that are this far behind are worth nothing.
pub const QUEUE_CONSENSUS_BYTES_MAX: usize = 1 << 20;
/// Bytes on [`Lane::Append`], at most. raft's own limit of what is in flight stands before it.
pub const QUEUE_APPEND_BYTES_MAX: usize = 64 << 20;
/// Bytes on [`Lane::Request`], at most. The window of forwarding stands before it.
pub const QUEUE_REQUEST_BYTES_MAX: usize = 16 << 20;

/// A bounded queue with one reader. Over a limit, what comes is dropped and its sender told; what waits stays in order.
#[derive(Debug)]
pub(super) struct Queue {
    bytes_max: usize,
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    messages: VecDeque<(usize, PeerMessage)>,
    bytes: usize,
}

impl Queue {
    pub(super) fn new(lane: Lane) -> Queue {
        let bytes_max = match lane {
            Lane::Consensus => QUEUE_CONSENSUS_BYTES_MAX,
            Lane::Append => QUEUE_APPEND_BYTES_MAX,
            Lane::Request => QUEUE_REQUEST_BYTES_MAX,
        };
        Queue { bytes_max, waiting: Mutex::default(), arrived: Notify::new() }
    }

    /// Is there room? Then it is in. `bytes` is the message's bound ([`crate::peer::codec::size_bound`]).
    pub(super) fn push(&self, bytes: usize, message: PeerMessage) -> bool {
        let first = {
            let mut waiting = self.waiting.lock();
            if waiting.messages.len() == QUEUE_MESSAGES_MAX || waiting.bytes + bytes > self.bytes_max {
                return false;
            }
            waiting.bytes += bytes;
            waiting.messages.push_back((bytes, message));
            waiting.messages.len() == 1
        };
        if first {
            self.arrived.notify_one();
        }
        true
    }

    /// The oldest messages, up to `bytes` of them but one at least; waits until there is one.
    pub(super) async fn take(&self, bytes: usize, into: &mut Vec<PeerMessage>) {
        loop {
            {
                let mut waiting = self.waiting.lock();
                let mut taken = 0;
                while taken < bytes {
                    let Some((size, message)) = waiting.messages.pop_front() else { break };
                    waiting.bytes -= size;
                    taken += size;
                    into.push(message);
                }
            }
            if !into.is_empty() {
                return;
            }
            self.arrived.notified().await;
        }
    }

    /// All that waits, with its bounds.
    pub(super) fn drain(&self) -> VecDeque<(usize, PeerMessage)> {
        std::mem::take(&mut *self.waiting.lock()).messages
    }

    /// Bytes that wait, by their bounds.
    pub(super) fn bytes(&self) -> usize {
        self.waiting.lock().bytes
    }
}
