//! Who was heard of, told to the leader; and what its answer proves.
//!
//! A server that is no leader reports the sessions that it heard of, at most [`EVERY_MS_MAX`] apart, also when it heard of
//! none; one that nobody uses reports less often ([`REST`]). The leader lets their timeouts begin anew when the report
//! arrives, and answers once a quorum has confirmed, *after* that, that it still leads (a read index). So an answer says of
//! the moment at which its report was sent: no other leader had begun by then. Every leader, this one and a later one,
//! therefore gives each session a full timeout from then on at least, and a server that closes a session's connection
//! earlier than that, counted from the sending of the last answered report, closes it before anybody can expire the session.
//! The leader asks for the same proof on its own behalf. That moment is called the *contact*.
//!
//! Reports and answers may be lost. A report therefore names everybody who was heard of since the last answered one.
//!
//! A proof costs a leader a round of heartbeats, and a hundred observers report as well as two followers. So proofs keep a
//! distance, and one answers all reports that came before it was asked for; that is what waits a moment, and not the
//! contact, which is when the report was sent.
//!
//! ```text
//!   server                         leader                       quorum
//!     │ heard of A, B                │                             │
//!     │──── Touches 7: A, B ────────▶│ A, B: a full timeout        │
//!     │ sent at t                    │──── still leader? ─────────▶│
//!     │                              │◀─── yes ────────────────────│
//!     │◀─── TouchesAck 7 ────────────│                             │
//!     │ contact = t
//! ```

use std::collections::VecDeque;
use warren_storage::SessionId;
use warren_transport::peer::{ServerId, Touches};

/// Time between two reports, ms, at least…
const EVERY_MS_MIN: u64 = 20;
/// …and at most; between these it is a quarter of the tick.
const EVERY_MS_MAX: u64 = 500;
/// A server that has no sessions, and that nobody asks for one, waits so many times as long between two reports.
const REST: u64 = 4;
/// A leader asks for a proof at most so many times between two reports of one server; what came since the last shares the next.
/// With reports every 500 ms that is sooner than QUIC's acknowledgement of a report is due (25 ms), which goes with the answer then.
const PROOFS_PER_REPORT: u64 = 25;
/// Sessions in one message; a report of more is several messages.
const SESSIONS_PER_MESSAGE_MAX: usize = 16_384;
/// Reports that wait for their answer; with more, the oldest is forgotten, and a later one proves as much.
const REPORTS_WAITING_MAX: usize = 64;
/// Reports that a leader owes an answer; with more, the oldest gets none and its server reports again.
const ANSWERS_OWED_MAX: usize = 4_096;

/// Both sides of the reports of one server.
pub(super) struct Reports {
    every_ms: u64,
    next_ms: u64,
    /// Of the last message.
    number: u64,
    /// Sent and not answered, in the order of sending.
    waiting: VecDeque<Report>,
    /// See the head of this file.
    contact_ms: u64,
    /// As the leader: whose reports to answer after the next proof.
    owed: VecDeque<(ServerId, u64)>,
    /// As the leader: somebody, maybe itself, wants a proof that is not asked for yet.
    wanted: bool,
    /// As the leader: the proof that is asked for.
    proof: Option<Proof>,
    /// As the leader: not before this time is the next one asked for.
    proof_ms: u64,
}

/// A report on its way: one message or several.
struct Report {
    sent_ms: u64,
    /// Messages that are not answered.
    numbers: Vec<u64>,
}

struct Proof {
    token: u64,
    asked_ms: u64,
    answers: VecDeque<(ServerId, u64)>,
}

impl Reports {
    /// Nothing is known yet. `tick_ms` is the width of expiry buckets.
    pub(super) fn new(now_ms: u64, tick_ms: u64) -> Reports {
        Reports {
            every_ms: (tick_ms / 4).clamp(EVERY_MS_MIN, EVERY_MS_MAX),
            next_ms: now_ms,
            number: 0,
            waiting: VecDeque::new(),
            contact_ms: 0,
            owed: VecDeque::new(),
            wanted: false,
            proof: None,
            proof_ms: 0,
        }
    }

    /// Another leader, or none, from now on: it is told at once. What the former one has not answered is void. What it
    /// did answer stays true.
    pub(super) fn on_leader(&mut self, now_ms: u64) {
        self.waiting.clear();
        self.owed.clear();
        (self.wanted, self.proof, self.proof_ms) = (false, None, now_ms);
        self.next_ms = now_ms;
    }

    /// When to report next, ms of the server's monotonic clock.
    pub(super) fn next_ms(&self) -> u64 {
        self.next_ms
    }

    /// See the head of this file; 0 before the first.
    pub(super) fn contact_ms(&self) -> u64 {
        self.contact_ms
    }

    /// Is it time? Then the next time is set; `rests`: nobody uses this server ([`REST`]).
    pub(super) fn is_due(&mut self, now_ms: u64, rests: bool) -> bool {
        let due = now_ms >= self.next_ms;
        if due {
            self.next_ms = now_ms + self.every_ms * if rests { REST } else { 1 };
        }
        due
    }

    /// A client asks for a session.
    pub(super) fn on_connect(&mut self, now_ms: u64) {
        self.next_ms = self.next_ms.min(now_ms + self.every_ms);
    }

    /// Who was heard of at this time or later belongs into the next report. Somewhat before the last answered one was
    /// sent: what a connection hears is noted on another thread, a moment later.
    pub(super) fn since_ms(&self) -> u64 {
        self.contact_ms.saturating_sub(self.every_ms)
    }

    /// A report of these sessions, as messages for the leader.
    pub(super) fn report(&mut self, now_ms: u64, sessions: &[SessionId]) -> Vec<Touches> {
        let mut chunks: Vec<&[SessionId]> = sessions.chunks(SESSIONS_PER_MESSAGE_MAX).collect();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        let messages: Vec<Touches> = chunks
            .into_iter()
            .map(|sessions| {
                self.number += 1;
                Touches { number: self.number, sessions: sessions.to_vec() }
            })
            .collect();
        if self.waiting.len() == REPORTS_WAITING_MAX {
            self.waiting.pop_front();
        }
        let numbers = messages.iter().map(|message| message.number).collect();
        self.waiting.push_back(Report { sent_ms: now_ms, numbers });
        messages
    }

    /// The leader answered this message. True: the contact is a later one now.
    pub(super) fn on_answer(&mut self, number: u64) -> bool {
        let Some(at) = self.waiting.iter().position(|report| report.numbers.contains(&number)) else {
            return false;
        };
        self.waiting[at].numbers.retain(|n| *n != number);
        if !self.waiting[at].numbers.is_empty() {
            return false;
        }
        self.contact_ms = self.contact_ms.max(self.waiting[at].sent_ms);
        // An earlier one proves less, and whom it named was named again.
        self.waiting.drain(..=at);
        true
    }

    /// As the leader: this report of another server is to be answered.
    pub(super) fn owe(&mut self, from: ServerId, number: u64) {
        if self.owed.len() == ANSWERS_OWED_MAX {
            self.owed.pop_front();
        }
        self.owed.push_back((from, number));
        self.wanted = true;
    }

    /// As the leader: this server needs a proof itself.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// As the leader: when a proof is to be asked for, ms of the server's monotonic clock. One at a time.
    pub(super) fn proof_ms(&self) -> Option<u64> {
        (self.wanted && self.proof.is_none()).then_some(self.proof_ms)
    }

    /// As the leader: is it time to ask for a proof? It will answer everything that is owed by now. The token is the one under
    /// which it is asked for.
    pub(super) fn ask(&mut self, now_ms: u64, token: impl FnOnce() -> u64) -> Option<u64> {
        self.proof_ms().filter(|proof_ms| now_ms >= *proof_ms)?;
        let token = token();
        self.proof = Some(Proof { token, asked_ms: now_ms, answers: std::mem::take(&mut self.owed) });
        self.wanted = false;
        self.proof_ms = now_ms + self.every_ms / PROOFS_PER_REPORT;
        Some(token)
    }

    /// As the leader: a quorum confirmed that it leads, after it was asked to under this token. Returns whom to answer;
    /// `None` when the token is not ours.
    pub(super) fn on_proof(&mut self, token: u64) -> Option<VecDeque<(ServerId, u64)>> {
        let proof = self.proof.take_if(|proof| proof.token == token)?;
        self.contact_ms = self.contact_ms.max(proof.asked_ms);
        Some(proof.answers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contact_is_when_the_answered_report_was_sent() {
        let mut reports = Reports::new(1_000, 2_000);
        assert!(
            reports.is_due(1_000, false) && !reports.is_due(1_499, false) && reports.is_due(1_500, false)
        );
        let first = reports.report(1_500, &[7, 8]);
        assert_eq!(first, [Touches { number: 1, sessions: vec![7, 8] }]);
        let second = reports.report(2_000, &[]);
        assert_eq!(second, [Touches { number: 2, sessions: vec![] }], "no news is news");
        assert_eq!((reports.contact_ms(), reports.since_ms()), (0, 0));
        // The answer to the later one stands for both; a second copy and one for the earlier change nothing.
        assert!(reports.on_answer(2));
        assert!(!reports.on_answer(2) && !reports.on_answer(1) && !reports.on_answer(99));
        assert_eq!((reports.contact_ms(), reports.since_ms()), (2_000, 1_500));
    }

    #[test]
    fn a_server_that_nobody_uses_reports_less_often_until_somebody_does() {
        let mut reports = Reports::new(1_000, 2_000);
        assert!(reports.is_due(1_000, true));
        assert_eq!(reports.next_ms(), 3_000);
        reports.on_connect(1_200);
        assert_eq!(reports.next_ms(), 1_700);
        reports.on_connect(1_600);
        assert_eq!(reports.next_ms(), 1_700, "another one puts nothing off");
        assert!(reports.is_due(1_700, false));
        assert_eq!(reports.next_ms(), 2_200);
    }

    #[test]
    fn a_long_report_counts_once_all_of_it_is_answered() {
        let mut reports = Reports::new(0, 100);
        let sessions: Vec<SessionId> = (1..=2 * SESSIONS_PER_MESSAGE_MAX as i64 + 1).collect();
        let messages = reports.report(40, &sessions);
        assert_eq!(messages.iter().map(|m| m.sessions.len()).collect::<Vec<_>>(), [16_384, 16_384, 1]);
        assert!(!reports.on_answer(1) && !reports.on_answer(3) && !reports.on_answer(3));
        assert_eq!(reports.contact_ms(), 0);
        assert!(reports.on_answer(2));
        assert_eq!(reports.contact_ms(), 40);
    }

    #[test]
    fn what_a_former_leader_did_not_answer_is_void() {
        let mut reports = Reports::new(0, 100);
        reports.report(10, &[1]);
        assert!(reports.on_answer(1));
        reports.report(30, &[1]);
        reports.on_leader(31);
        assert!(!reports.on_answer(2));
        assert_eq!((reports.contact_ms(), reports.next_ms()), (10, 31));
        // Numbers go on: an answer from before cannot be taken for one to a later report.
        assert_eq!(reports.report(31, &[1])[0].number, 3);
    }

    #[test]
    fn reports_without_answer_are_bounded() {
        let mut reports = Reports::new(0, 100);
        for at in 0..=REPORTS_WAITING_MAX as u64 {
            reports.report(at, &[]);
        }
        assert_eq!(reports.waiting.len(), REPORTS_WAITING_MAX);
        assert!(!reports.on_answer(1) && reports.on_answer(2));
        for number in 0..=ANSWERS_OWED_MAX as u64 {
            reports.owe(2, number);
        }
        assert_eq!((reports.owed.len(), reports.owed[0]), (ANSWERS_OWED_MAX, (2, 1)));
    }

    #[test]
    fn a_leader_answers_what_came_before_it_asked_for_the_proof() {
        let mut reports = Reports::new(0, 2_000);
        assert_eq!((reports.proof_ms(), reports.ask(10, || 1)), (None, None), "nobody wants one");
        reports.owe(2, 5);
        assert_eq!(reports.ask(50, || 1), Some(1), "the first is not kept waiting");
        // This one came later than the question: it needs another.
        reports.owe(3, 9);
        assert_eq!(reports.ask(160, || 2), None);
        assert_eq!(reports.on_proof(2), None);
        assert_eq!(reports.on_proof(1), Some(VecDeque::from([(2, 5)])));
        assert_eq!(reports.contact_ms(), 50);
        assert_eq!(reports.ask(170, || 3), Some(3));
        reports.on_leader(171);
        assert_eq!(reports.on_proof(3), None, "it lost its leadership meanwhile");
        assert_eq!((reports.contact_ms(), reports.proof_ms()), (50, None));
    }

    #[test]
    fn reports_that_come_close_together_share_a_proof() {
        let mut reports = Reports::new(0, 2_000);
        reports.owe(2, 5);
        assert_eq!(reports.ask(1_000, || 1), Some(1));
        assert!(reports.on_proof(1).is_some());
        for server in 3..=102 {
            reports.owe(server, 7);
            assert_eq!(reports.ask(1_000 + u64::from(server) / 6, || 2), None);
        }
        reports.want();
        assert_eq!(reports.proof_ms(), Some(1_020));
        assert_eq!(reports.ask(1_020, || 2), Some(2));
        assert_eq!(reports.proof_ms(), None, "that answers all");
        assert_eq!(reports.on_proof(2).map(|answers| answers.len()), Some(100));
        assert_eq!(reports.contact_ms(), 1_020);
        // Another leader's first is not kept waiting by what the former one asked.
        reports.on_leader(1_060);
        reports.want();
        assert_eq!(reports.ask(1_060, || 3), Some(3));
    }
}
