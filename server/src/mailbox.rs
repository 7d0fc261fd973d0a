//! What a connection is owed by the service: outcomes of its writes and events of its watches, in zxid order.
//!
//! The service puts items in while it applies, then publishes the snapshot, then wakes the connection. A
//! connection takes only items up to the zxid of the snapshot that it loaded before it looked, so that nobody is
//! told of a change before everybody can read it.

use crate::watches::Notice;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use warren_storage::tree::{Outcome, Snapshot};
use warren_storage::{SessionId, Zxid};

/// Watch events waiting for a connection that does not read, at most; beyond, the connection is closed.
pub const EVENTS_WAITING_MAX: usize = 100_000;

/// One thing that a connection is told.
#[derive(Debug)]
pub enum Item {
    /// A watch fired.
    Event(Notice),
    /// The write with this sequence was applied.
    Outcome {
        /// Which of the connection's writes.
        sequence: u64,
        /// What became of it.
        outcome: Outcome,
        /// The tree just before it, when [`Mailbox::mark_before`] asked for it.
        before: Option<Snapshot>,
    },
    /// The session is attached to this connection.
    Attached(Attached),
    /// There is no such session, or the password is another's.
    Refused,
    /// A [`crate::consensus::Submission::Sync`] is through.
    Synced,
    /// A persistent watch is armed, as asked by [`crate::service::Event::Arm`].
    Armed,
    /// Close the connection, after what came before.
    Close(&'static str),
    /// Close the connection, and answer nothing more: what it would be answered could be wrong by now.
    CutOff(&'static str),
}

/// A session, attached.
#[derive(Debug, Clone)]
pub struct Attached {
    /// Its id.
    pub session: SessionId,
    /// Its password.
    pub password: [u8; 16],
    /// Negotiated, ms.
    pub timeout_ms: i32,
    /// Of this attachment.
    pub generation: u32,
    /// Where the connection says that it heard from its client.
    pub pulse: Arc<Pulse>,
    /// A session of this server alone, which only reads.
    pub read_only: bool,
}

/// A server that had no contact with the leader for this long, or for two thirds of a session's timeout if that is less,
/// closes the session's connection: its client shall look for a server that can carry out what it asks.
pub const CUT_OFF_MAX: Duration = Duration::from_secs(10);

/// When a session's client was last heard of, in ms of the server's monotonic clock, and whether we owe it anything.
#[derive(Debug)]
pub struct Pulse {
    heard_ms: AtomicU64,
    owed: AtomicBool,
    asked_ms: u64,
    cut_off_ms: u64,
}

impl Pulse {
    /// Of a session that was asked for at `asked_ms`; nobody can have counted its timeout from an earlier moment.
    pub fn new(asked_ms: u64, timeout_ms: i32) -> Pulse {
        // ZooKeeper's clients give up on their own after two thirds, too.
        let most = timeout_ms.max(0) as u64 * 2 / 3;
        let cut_off_ms = most.clamp(1, CUT_OFF_MAX.as_millis() as u64);
        Pulse { heard_ms: AtomicU64::new(0), owed: AtomicBool::new(false), asked_ms, cut_off_ms }
    }

    /// Of a session that no leader knows, and so none can expire behind our back.
    pub fn of_read_only() -> Pulse {
        Pulse { heard_ms: AtomicU64::new(0), owed: AtomicBool::new(false), asked_ms: 0, cut_off_ms: u64::MAX }
    }

    /// Must the connection be closed, because the leader may soon expire the session without our knowing? The server's
    /// last contact with the leader was at `contact_ms`.
    pub fn is_cut_off(&self, now_ms: u64, contact_ms: u64) -> bool {
        now_ms.saturating_sub(contact_ms.max(self.asked_ms)) >= self.cut_off_ms
    }

    /// Heard now.
    pub fn beat(&self, now_ms: u64) {
        self.heard_ms.store(now_ms, Ordering::Relaxed);
    }

    /// When that was.
    pub fn last_ms(&self) -> u64 {
        self.heard_ms.load(Ordering::Relaxed)
    }

    /// Is the client owed answers? Then its silence may be ours: it is not read from while too many are.
    pub fn owe(&self, owed: bool) {
        self.owed.store(owed, Ordering::Relaxed);
    }

    /// Was it owed answers when its connection looked last?
    pub fn is_owed(&self) -> bool {
        self.owed.load(Ordering::Relaxed)
    }
}

/// One connection's mailbox. Shared by the connection, the service and the watch tables.
pub struct Mailbox {
    /// Which connection; never used twice by a process.
    pub connection: u64,
    queue: Mutex<Queue>,
    /// The lowest sequence that wants a snapshot before it; `u64::MAX` for none.
    before: AtomicU64,
    marks: Mutex<VecDeque<u64>>,
    waiting: AtomicBool,
    /// Something was put in and the owner was not woken since.
    owed: AtomicBool,
    wake: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<(Zxid, Item)>,
    events: usize,
    overflowed: bool,
    closed: bool,
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mailbox({})", self.connection)
    }
}

impl Mailbox {
    /// A mailbox whose owner is woken by `wake`.
    pub fn new(connection: u64, wake: Box<dyn Fn() + Send + Sync>) -> Arc<Mailbox> {
        Arc::new(Mailbox {
            connection,
            queue: Mutex::default(),
            before: AtomicU64::new(u64::MAX),
            marks: Mutex::default(),
            waiting: AtomicBool::new(false),
            owed: AtomicBool::new(false),
            wake,
        })
    }

    /// Put an item in. The owner is not woken yet. True: this is the first item since the last [`Mailbox::wake`],
    /// so the caller owes one after the next publication.
    pub fn put(&self, zxid: Zxid, item: Item) -> bool {
        let mut queue = self.queue.lock();
        if queue.closed {
            return false;
        }
        if matches!(item, Item::Event(_)) {
            if queue.events == EVENTS_WAITING_MAX {
                queue.overflowed = true;
            } else {
                queue.events += 1;
                queue.items.push_back((zxid, item));
            }
        } else {
            queue.items.push_back((zxid, item));
        }
        !self.owed.swap(true, Ordering::AcqRel)
    }

    /// Wake the owner.
    pub fn wake(&self) {
        self.owed.store(false, Ordering::Release);
        (self.wake)();
    }

    /// Take what is there up to `published`. False: more events than [`EVENTS_WAITING_MAX`] were waiting and some
    /// were not kept, so the connection must be closed.
    #[must_use]
    pub fn take(&self, published: Zxid, into: &mut VecDeque<(Zxid, Item)>) -> bool {
        let mut queue = self.queue.lock();
        while queue.items.front().is_some_and(|(z, _)| *z <= published) {
            let (zxid, item) = queue.items.pop_front().expect("looked at above");
            if matches!(item, Item::Event(_)) {
                queue.events -= 1;
            }
            into.push_back((zxid, item));
        }
        !queue.overflowed
    }

    /// The connection is gone: keep nothing more.
    pub fn close(&self) {
        let mut queue = self.queue.lock();
        queue.closed = true;
        queue.items.clear();
    }

    /// Was [`Item::Close`] or [`Item::CutOff`] put in, or did it overflow? Then nothing that waits to be sent matters.
    pub fn must_close(&self) -> bool {
        let closes = |item: &Item| matches!(item, Item::Close(_) | Item::CutOff(_));
        let queue = self.queue.lock();
        queue.overflowed || queue.items.iter().any(|(_, item)| closes(item))
    }

    /// Ask for the tree as it is just before this write: reads of the same session stand before it. Must be called
    /// before the write is submitted.
    pub fn mark_before(&self, sequence: u64) {
        let mut marks = self.marks.lock();
        marks.push_back(sequence);
        self.before.store(*marks.front().expect("just pushed"), Ordering::Release);
    }

    /// Was the tree before this write asked for? Answered once.
    pub fn wants_before(&self, sequence: u64) -> bool {
        if sequence < self.before.load(Ordering::Acquire) {
            return false;
        }
        let mut marks = self.marks.lock();
        let mut wanted = false;
        while let Some(mark) = marks.front().copied() {
            if mark > sequence {
                break;
            }
            wanted |= mark == sequence;
            marks.pop_front();
        }
        self.before.store(marks.front().copied().unwrap_or(u64::MAX), Ordering::Release);
        wanted
    }

    /// Forget the marks of a former attachment: sequences start again.
    pub fn clear_marks(&self) {
        self.marks.lock().clear();
        self.before.store(u64::MAX, Ordering::Release);
    }

    /// Remember that the owner waits for the next publication. True when it did not wait yet.
    pub fn begin_wait(&self) -> bool {
        !self.waiting.swap(true, Ordering::AcqRel)
    }

    /// The owner was woken for a publication.
    pub fn end_wait(&self) {
        self.waiting.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_above_the_published_zxid_stay() {
        let mailbox = Mailbox::new(1, Box::new(|| {}));
        assert!(mailbox.put(Zxid(1), Item::Synced));
        assert!(!mailbox.put(Zxid(2), Item::Armed));
        let mut got = VecDeque::new();
        assert!(mailbox.take(Zxid(1), &mut got));
        assert_eq!(got.len(), 1);
        assert!(mailbox.take(Zxid(2), &mut got));
        assert_eq!(got.len(), 2);
    }

    #[test]
    fn a_session_is_cut_off_after_two_thirds_of_its_timeout_or_the_limit() {
        let pulse = Pulse::new(1_000, 6_000);
        assert!(!pulse.is_cut_off(4_999, 0), "it counts from when it was asked for");
        assert!(pulse.is_cut_off(5_000, 0));
        assert!(!pulse.is_cut_off(5_999, 2_000) && pulse.is_cut_off(6_000, 2_000));
        assert!(!Pulse::new(0, 60_000).is_cut_off(9_999, 0));
        assert!(Pulse::new(0, 60_000).is_cut_off(10_000, 0));
        assert!(!Pulse::new(0, 0).is_cut_off(u64::MAX, u64::MAX), "who stands alone is in contact for ever");
        assert!(!Pulse::of_read_only().is_cut_off(u64::MAX - 1, 0), "nobody else knows a read-only session");
    }

    #[test]
    fn a_mark_is_answered_once_and_only_for_its_write() {
        let mailbox = Mailbox::new(1, Box::new(|| {}));
        mailbox.mark_before(5);
        assert!(!mailbox.wants_before(4));
        assert!(mailbox.wants_before(5));
        assert!(!mailbox.wants_before(5));
        assert!(!mailbox.wants_before(6));
    }
}
