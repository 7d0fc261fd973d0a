//! Requests on their way to the leader: go-back-N for each origin.
//!
//! ```text
//! origin: Outbox                                     leader: Inbox
//!   first      acked       next                        one Run for each run of each origin
//!   │ proposed │ in flight │ not sent                    proposed │ queue │ expected
//!   └── leaves when a committed batch covers it ──┘
//! ```
//!
//! The origin numbers its requests and keeps each until a committed batch covers it. With a new term it begins again at
//! the first it keeps, but not before an entry of that term is committed here: what older leaders proposed, and what
//! survived of it, lies before that entry, so nothing is proposed twice. The leader takes the numbers in order,
//! ignores what it has, and answers a gap with how far it is.

use super::interface::Submission;
use crate::moment::Moment;
use bytes::Bytes;
use std::collections::VecDeque;
use std::time::Duration;
use warren_storage::{Command, Decided, Logged};
use warren_transport::peer::{Forward, ForwardAck, Forwarded, ServerId};

/// Bytes of requests that an origin has on their way and not acknowledged, at most, and that the leader keeps for a run of
/// an origin until there is room in the log. A single larger request goes alone.
pub(super) const FORWARD_WINDOW_BYTES: usize = 4 << 20;
/// Bytes of requests in one message, at most, unless a single request is larger.
pub(super) const FORWARD_MESSAGE_BYTES_MAX: usize = 256 << 10;
/// Messages on their way and not acknowledged, at most, while what waits is little: each wakes the leader, whatever it
/// carries.
const FORWARD_MESSAGES_IN_FLIGHT: usize = 1;
/// This much is worth a message of its own, bytes.
const FORWARD_WORTH_BYTES: usize = FORWARD_MESSAGE_BYTES_MAX;
/// And nothing waits for the messages before it longer than this.
const FORWARD_WAIT_MAX: Duration = Duration::from_millis(5);
/// What is not acknowledged is sent again after so long without progress.
pub(super) const FORWARD_RETRY: Duration = Duration::from_millis(500);
/// Runs of one server that the leader tells apart in a term; the one heard of longest ago is forgotten.
const RUNS_MAX: usize = 4;
/// What a request costs beside its bytes.
const REQUEST_BYTES: usize = 64;

/// A request, wherever it is kept.
#[derive(Clone, Copy)]
pub(super) enum Item<'a> {
    Command(&'a [u8]),
    /// Each is an entry of its own.
    Reconfigure(&'a [u8]),
    OpenSession {
        timeout_ms: i32,
        request: u64,
    },
}

impl Item<'_> {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Item::Command(encoded) | Item::Reconfigure(encoded) => REQUEST_BYTES + encoded.len(),
            Item::OpenSession { .. } => REQUEST_BYTES,
        }
    }
}

/// A request of this server, with the time it came, in µs.
enum Own {
    Command(Vec<u8>, u64),
    Reconfigure(Vec<u8>, u64),
    OpenSession { timeout_ms: i32, request: u64, taken_us: u64 },
}

impl Own {
    fn item(&self) -> Item<'_> {
        match self {
            Own::Command(encoded, _) => Item::Command(encoded),
            Own::Reconfigure(encoded, _) => Item::Reconfigure(encoded),
            Own::OpenSession { timeout_ms, request, .. } => {
                Item::OpenSession { timeout_ms: *timeout_ms, request: *request }
            }
        }
    }

    fn taken_us(&self) -> u64 {
        match self {
            Own::Command(_, us) | Own::Reconfigure(_, us) | Own::OpenSession { taken_us: us, .. } => *us,
        }
    }
}

/// The origin's side: requests of this server that are not known to be committed.
pub(crate) struct Outbox {
    incarnation: u64,
    queue: VecDeque<Own>,
    /// The number of the front.
    first: u64,
    /// What this term's leader (maybe this server) has proposed; at least `first - 1`.
    acked: u64,
    /// The next to be sent or proposed in this term.
    next: u64,
    /// The highest ever sent or proposed, in any term.
    tried: u64,
    in_flight: usize,
    /// The last number of each message that is on its way.
    messages: VecDeque<u64>,
    /// Since when requests wait for the messages before them.
    waits_since: Option<Moment>,
    retry_at: Moment,
}

impl Outbox {
    pub(crate) fn new(incarnation: u64) -> Outbox {
        Outbox {
            incarnation,
            queue: VecDeque::new(),
            first: 1,
            acked: 0,
            next: 1,
            tried: 0,
            in_flight: 0,
            messages: VecDeque::new(),
            waits_since: None,
            retry_at: Moment::default(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// # Panics
    /// When it is none that is forwarded.
    pub(crate) fn push(&mut self, now: Moment, submission: Submission) {
        self.queue.push_back(match submission {
            Submission::Command(encoded) => Own::Command(encoded, now.us),
            Submission::Reconfigure(encoded) => Own::Reconfigure(encoded, now.us),
            Submission::OpenSession { timeout_ms, incarnation, request, .. } => {
                assert_eq!(
                    incarnation, self.incarnation,
                    "a session is opened for another run of this server"
                );
                Own::OpenSession { timeout_ms, request, taken_us: now.us }
            }
            other => panic!("{other:?} is not for any leader"),
        });
    }

    /// May an earlier leader have proposed the front?
    pub(crate) fn is_tried(&self) -> bool {
        !self.queue.is_empty() && self.first <= self.tried
    }

    /// Nothing is known of this term's leader.
    pub(crate) fn begin_term(&mut self) {
        self.next = self.first;
        self.acked = self.first - 1;
        self.in_flight = 0;
        self.messages.clear();
        self.waits_since = None;
    }

    /// A batch up to this number is committed. Tells when the first of what leaves had come, in µs.
    pub(crate) fn settle(&mut self, now: Moment, last: u64) -> Option<u64> {
        let mut oldest = None;
        while self.first <= last {
            let Some(own) = self.queue.pop_front() else { break };
            oldest = oldest.or(Some(own.taken_us()));
            if self.first > self.acked && self.first < self.next {
                self.in_flight -= own.item().bytes().min(self.in_flight);
            }
            self.first += 1;
        }
        if oldest.is_some() {
            self.acked = self.acked.max(self.first - 1);
            self.next = self.next.max(self.first);
            self.on_acked();
            self.retry_at = now + FORWARD_RETRY;
        }
        oldest
    }

    /// Forget them all: this server took a snapshot, and cannot know which of them are in it.
    pub(crate) fn give_up(&mut self) {
        self.first += self.queue.len() as u64;
        self.queue.clear();
        self.begin_term();
    }

    /// As the leader: what comes next, with the number of the first.
    pub(super) fn waiting(&self) -> (u64, impl Iterator<Item = Item<'_>> + Clone) {
        (self.next, self.queue.range((self.next - self.first) as usize..).map(Own::item))
    }

    /// As the leader: they are proposed up to here.
    pub(crate) fn on_proposed(&mut self, last: u64) {
        (self.acked, self.next) = (last, last + 1);
        self.tried = self.tried.max(last);
    }

    /// As a follower of the leader of this term: the next message for it.
    pub(crate) fn poll_forward(&mut self, now: Moment, term: u64) -> Option<Forward> {
        if self.in_flight > 0 && now.us >= self.retry_at.us {
            self.next = self.acked + 1;
            self.in_flight = 0;
            self.messages.clear();
        }
        if self.is_better_later(now) {
            return None;
        }
        let mut requests = Vec::new();
        let mut bytes = 0;
        for own in self.queue.range((self.next - self.first) as usize..) {
            let item = own.item();
            let size = item.bytes();
            let room = bytes + size <= FORWARD_MESSAGE_BYTES_MAX || requests.is_empty();
            let window = self.in_flight + bytes;
            if !room || (window > 0 && window + size > FORWARD_WINDOW_BYTES) {
                break;
            }
            bytes += size;
            requests.push(match item {
                Item::Command(encoded) => Forwarded::Command(Bytes::copy_from_slice(encoded)),
                Item::Reconfigure(encoded) => Forwarded::Reconfigure(Bytes::copy_from_slice(encoded)),
                Item::OpenSession { timeout_ms, request } => Forwarded::OpenSession { timeout_ms, request },
            });
        }
        if requests.is_empty() {
            return None;
        }
        if self.in_flight == 0 {
            self.retry_at = now + FORWARD_RETRY;
        }
        self.in_flight += bytes;
        let first = self.next;
        self.next += requests.len() as u64;
        self.messages.push_back(self.next - 1);
        self.waits_since = None;
        self.tried = self.tried.max(self.next - 1);
        Some(Forward { term, incarnation: self.incarnation, first, begin: self.first, requests })
    }

    fn on_acked(&mut self) {
        while self.messages.front().is_some_and(|last| *last <= self.acked) {
            self.messages.pop_front();
        }
    }

    /// Are as many messages under way as are worth their cost, unless much waits?
    pub(super) fn has_messages_enough(&self) -> bool {
        self.messages.len() >= FORWARD_MESSAGES_IN_FLIGHT
    }

    /// Are there so few requests that they had better wait for the messages that are under way?
    fn is_better_later(&mut self, now: Moment) -> bool {
        let from = (self.next - self.first) as usize;
        if !self.has_messages_enough() || from >= self.queue.len() {
            self.waits_since = None;
            return false;
        }
        let mut bytes = 0;
        for own in self.queue.range(from..) {
            bytes += own.item().bytes();
            if bytes >= FORWARD_WORTH_BYTES {
                return false;
            }
        }
        now.since(*self.waits_since.get_or_insert(now)) < FORWARD_WAIT_MAX
    }

    /// When what waits for the messages before it has waited long enough.
    pub(super) fn waits_until(&self) -> Option<Moment> {
        self.waits_since.map(|since| since + FORWARD_WAIT_MAX)
    }

    /// This term's leader has proposed them up to a number. `false` when it says so of what it was never sent.
    pub(crate) fn on_ack(&mut self, now: Moment, ack: &ForwardAck) -> bool {
        if ack.incarnation != self.incarnation || ack.upto > self.tried {
            return false;
        }
        if ack.upto > self.acked {
            let sent = ack.upto.min(self.next - 1);
            for number in self.acked + 1..=sent {
                let own = &self.queue[(number - self.first) as usize];
                self.in_flight -= own.item().bytes().min(self.in_flight);
            }
            self.acked = ack.upto;
            self.next = self.next.max(ack.upto + 1);
            self.on_acked();
            self.retry_at = now + FORWARD_RETRY;
        }
        true
    }
}

/// The leader's side, for one term.
#[derive(Default)]
pub(super) struct Inbox {
    /// The one heard of last at the end.
    runs: Vec<Run>,
}

/// One run of an origin.
pub(super) struct Run {
    pub(super) server: ServerId,
    pub(super) incarnation: u64,
    queue: VecDeque<(u64, Forwarded)>,
    bytes: usize,
    /// The next number to take.
    expected: u64,
    ack_due: bool,
}

impl Run {
    /// What comes next, with the number of the first; it ends before a number that is missing.
    pub(super) fn waiting(&self) -> Option<(u64, impl Iterator<Item = Item<'_>> + Clone)> {
        let first = self.queue.front()?.0;
        let numbered = self.queue.iter().zip(first..).take_while(|((number, _), at)| number == at);
        Some((first, numbered.map(|((_, request), _)| item_of(request))))
    }

    /// They are proposed up to here.
    pub(super) fn on_proposed(&mut self, last: u64) {
        while self.queue.front().is_some_and(|(number, _)| *number <= last) {
            let Some((_, request)) = self.queue.pop_front() else { break };
            self.bytes -= item_of(&request).bytes();
        }
        self.ack_due = true;
    }

    fn take(&mut self, forward: Forward) -> u64 {
        let end = forward.first.checked_add(forward.requests.len() as u64);
        if forward.begin == 0 || forward.first < forward.begin || end.is_none() {
            return 1;
        }
        // The origin gave up what is below.
        self.expected = self.expected.max(forward.begin);
        let mut refused = 0;
        if forward.first <= self.expected {
            let known = (self.expected - forward.first) as usize;
            for request in forward.requests.into_iter().skip(known) {
                let bytes = item_of(&request).bytes();
                if self.bytes > 0 && self.bytes + bytes > FORWARD_WINDOW_BYTES {
                    break;
                }
                // One that is refused has its number all the same, or those behind it would wait for ever.
                if may_forward(self.server, self.incarnation, &request) {
                    self.bytes += bytes;
                    self.queue.push_back((self.expected, request));
                } else {
                    refused += 1;
                }
                self.expected += 1;
            }
        }
        self.ack_due |= self.queue.is_empty();
        refused
    }
}

impl Inbox {
    pub(super) fn clear(&mut self) {
        self.runs.clear();
    }

    /// Bytes that wait to be proposed.
    pub(super) fn bytes(&self) -> usize {
        self.runs.iter().map(|run| run.bytes).sum()
    }

    pub(super) fn runs(&mut self) -> &mut [Run] {
        &mut self.runs
    }

    /// Take a message for the leader of this term. Tells how much of it was refused.
    pub(super) fn take(&mut self, from: ServerId, forward: Forward) -> u64 {
        let mine = |run: &Run| (run.server, run.incarnation) == (from, forward.incarnation);
        let mut run = match self.runs.iter().position(mine) {
            Some(at) => self.runs.remove(at),
            None => Run {
                server: from,
                incarnation: forward.incarnation,
                queue: VecDeque::new(),
                bytes: 0,
                expected: forward.begin,
                ack_due: false,
            },
        };
        let refused = run.take(forward);
        self.runs.push(run);
        if self.runs.iter().filter(|run| run.server == from).count() > RUNS_MAX {
            let oldest = self.runs.iter().position(|run| run.server == from);
            self.runs.remove(oldest.expect("it was counted"));
        }
        refused
    }

    /// The acknowledgements that are due.
    pub(super) fn poll_ack(&mut self, term: u64) -> Option<(ServerId, ForwardAck)> {
        let run = self.runs.iter_mut().find(|run| run.ack_due)?;
        run.ack_due = false;
        let upto = run.queue.front().map_or(run.expected, |(number, _)| *number).saturating_sub(1);
        Some((run.server, ForwardAck { term, incarnation: run.incarnation, upto }))
    }
}

fn item_of(request: &Forwarded) -> Item<'_> {
    match request {
        Forwarded::Command(encoded) => Item::Command(encoded),
        Forwarded::Reconfigure(encoded) => Item::Reconfigure(encoded),
        Forwarded::OpenSession { timeout_ms, request } => {
            Item::OpenSession { timeout_ms: *timeout_ms, request: *request }
        }
    }
}

/// Is it what a server may ask for its clients? The leader stamps sessions itself, and its own timers alone expire and
/// sweep.
fn may_forward(from: ServerId, run: u64, request: &Forwarded) -> bool {
    let (encoded, reconfigures) = match request {
        Forwarded::OpenSession { .. } => return true,
        Forwarded::Command(encoded) => (encoded, false),
        Forwarded::Reconfigure(encoded) => (encoded, true),
    };
    let Ok(logged) = Logged::decode(encoded) else { return false };
    match logged.command {
        Command::Single(_) | Command::Multi(_) | Command::CloseSession => {
            !reconfigures && logged.tag.is_some()
        }
        Command::MoveSession { owner, incarnation, .. } => {
            !reconfigures && logged.tag.is_none() && (owner, incarnation) == (from, run)
        }
        // What the leader is to decide, or what the server that took it had to refuse.
        Command::Reconfigure { asker, decided, .. } => {
            let one = match asker {
                Some(asker) => logged.tag.is_none() && (asker.server, asker.incarnation) == (from, run),
                None => logged.tag.is_some(),
            };
            reconfigures && one && !matches!(decided, Some(Decided::Made(_)))
        }
        Command::CreateSession { .. } | Command::Expire { .. } | Command::Sweep { .. } => false,
    }
}
