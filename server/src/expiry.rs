//! Which session runs out when: buckets of deadlines, as in ZooKeeper's `ExpiryQueue`.
//!
//! A session sits in the bucket of its deadline, rounded up to the next tick. A touch does not move it: who looks at
//! the bucket that comes due is told when the session was last heard of, and puts it into a later one; so a touch costs
//! a store and not a move.

use std::collections::{BTreeMap, HashMap, HashSet};
use warren_storage::SessionId;

/// Deadlines of sessions. All times in ms of the server's monotonic clock.
#[derive(Debug)]
pub struct ExpiryQueue {
    tick_ms: u64,
    buckets: BTreeMap<u64, HashSet<SessionId, foldhash::fast::FixedState>>,
    place: HashMap<SessionId, Place, foldhash::fast::FixedState>,
}

/// Where a session is.
#[derive(Clone, Copy, Debug)]
struct Place {
    bucket: u64,
    /// When it was last heard of by [`ExpiryQueue::touch`]; 0 for never.
    heard_ms: u64,
}

impl ExpiryQueue {
    /// Buckets are `tick_ms` wide.
    pub fn new(tick_ms: u64) -> ExpiryQueue {
        ExpiryQueue { tick_ms: tick_ms.max(1), buckets: BTreeMap::new(), place: HashMap::default() }
    }

    /// The session's client may be silent until `deadline_ms`, which is rounded up to the next bucket.
    pub fn set(&mut self, session: SessionId, deadline_ms: u64) {
        let bucket = (deadline_ms / self.tick_ms + 1) * self.tick_ms;
        if let Some(place) = self.place.get_mut(&session) {
            let old = std::mem::replace(&mut place.bucket, bucket);
            if old == bucket {
                return;
            }
            self.take_from(old, session);
        } else {
            self.place.insert(session, Place { bucket, heard_ms: 0 });
        }
        self.buckets.entry(bucket).or_default().insert(session);
    }

    /// Another server heard of the session. One that is not in the queue is passed over.
    pub fn touch(&mut self, session: SessionId, now_ms: u64) {
        if let Some(place) = self.place.get_mut(&session) {
            place.heard_ms = now_ms;
        }
    }

    /// The session is gone.
    pub fn remove(&mut self, session: SessionId) {
        if let Some(place) = self.place.remove(&session) {
            self.take_from(place.bucket, session);
        }
    }

    fn take_from(&mut self, bucket: u64, session: SessionId) {
        if let Some(sessions) = self.buckets.get_mut(&bucket) {
            sessions.remove(&session);
            if sessions.is_empty() {
                self.buckets.remove(&bucket);
            }
        }
    }

    /// Sessions whose bucket is due, in order of their ids, each with the time of its last touch (0: none since it was
    /// put into the queue); they are no longer in the queue.
    pub fn due(&mut self, now_ms: u64) -> Vec<(SessionId, u64)> {
        let mut due = Vec::new();
        while let Some(entry) = self.buckets.first_entry() {
            if *entry.key() > now_ms {
                break;
            }
            due.extend(entry.remove());
        }
        due.sort_unstable();
        let mut heard = |session| self.place.remove(&session).map_or(0, |place| place.heard_ms);
        due.into_iter().map(|session| (session, heard(session))).collect()
    }

    /// Every bucket with its sessions, in order.
    pub fn buckets(&self) -> Vec<(u64, Vec<SessionId>)> {
        let sorted = |sessions: &HashSet<SessionId, _>| {
            let mut sessions: Vec<SessionId> = sessions.iter().copied().collect();
            sessions.sort_unstable();
            sessions
        };
        self.buckets.iter().map(|(at, sessions)| (*at, sorted(sessions))).collect()
    }

    /// When the next bucket is due.
    pub fn next_ms(&self) -> Option<u64> {
        self.buckets.first_key_value().map(|(at, _)| *at)
    }

    /// Forget everybody.
    pub fn clear(&mut self) {
        self.buckets.clear();
        self.place.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_rounded_up_to_the_next_bucket() {
        let mut queue = ExpiryQueue::new(1_000);
        queue.set(1, 2_500);
        queue.set(2, 3_000);
        assert_eq!(queue.next_ms(), Some(3_000));
        assert_eq!(queue.due(2_999), []);
        assert_eq!(queue.due(3_000), [(1, 0)]);
        assert_eq!(queue.due(4_000), [(2, 0)]);
        assert_eq!(queue.next_ms(), None);
    }

    #[test]
    fn setting_again_moves_and_removing_removes() {
        let mut queue = ExpiryQueue::new(10);
        queue.set(1, 5);
        queue.set(1, 25);
        queue.set(2, 5);
        queue.remove(2);
        assert_eq!(queue.due(20), []);
        assert_eq!(queue.due(30), [(1, 0)]);
    }

    #[test]
    fn a_touch_is_told_when_the_bucket_is_due() {
        let mut queue = ExpiryQueue::new(10);
        queue.set(1, 5);
        queue.touch(1, 3);
        queue.touch(1, 4);
        queue.touch(2, 4);
        assert_eq!(queue.next_ms(), Some(10), "it stays where it is");
        assert_eq!(queue.due(10), [(1, 4)]);
        queue.set(1, 20);
        queue.set(1, 40);
        assert_eq!(queue.due(99), [(1, 0)], "what was told is not told again");
    }
}
