//! Why a peer, or somebody who says so, is refused: counted by reason, and logged at a bounded rate.

use crate::peer::{CodecError, ServerId};
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Between two log lines of one reason, at least: a flood of strangers must not fill the disk with its own story.
const LOG_EVERY: Duration = Duration::from_secs(1);
/// Characters of what a peer said that are kept.
const SAID_CHARS_MAX: usize = 256;

macro_rules! reasons {
    ($($(#[doc = $doc:literal])* $name:ident = $label:literal,)*) => {
        /// Kinds of refusal; each is a label of a metric.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum RefusalReason { $($(#[doc = $doc])* $name,)* }

        impl RefusalReason {
            /// All of them.
            pub const ALL: &[RefusalReason] = &[$(RefusalReason::$name,)*];

            /// As metrics call it.
            pub const fn label(self) -> &'static str {
                match self { $(RefusalReason::$name => $label,)* }
            }
        }
    };
}

reasons! {
    /// It showed no certificate.
    NoCertificate = "no_certificate",
    /// Its certificate does not lead to the ensemble's authority.
    UnknownAuthority = "unknown_authority",
    /// Its certificate was valid once.
    Expired = "expired",
    /// Its certificate will be valid later; or a clock is wrong.
    NotYetValid = "not_yet_valid",
    /// Its certificate is broken, or not for this use.
    BadCertificate = "bad_certificate",
    /// Its certificate names no server, or more than one.
    NoName = "no_name",
    /// It is a server of another ensemble.
    OtherEnsemble = "other_ensemble",
    /// It says that it is this server.
    OwnId = "own_id",
    /// Its id is not configured here.
    UnknownServer = "unknown_server",
    /// Another server answers at this address.
    WrongServer = "wrong_server",
    /// A lower id dialled a higher one: it is the other way round.
    WrongDirection = "wrong_direction",
    /// It speaks TLS or QUIC otherwise than we do.
    Protocol = "protocol",
    /// It did not finish the handshake in time.
    HandshakeTimeout = "handshake_timeout",
    /// Too many handshakes are under way.
    TooManyHandshakes = "too_many_handshakes",
    /// It refused our certificate.
    RefusedByPeer = "refused_by_peer",
    /// It says that it knows no such server as this one.
    UnknownToPeer = "unknown_to_peer",
    /// A message over its limit.
    TooLong = "too_long",
    /// Bytes that are no message.
    Undecodable = "undecodable",
    /// A message on a lane where it does not belong.
    WrongLane = "wrong_lane",
    /// A stream that is none of ours, twice there, or ended.
    BadStream = "bad_stream",
}

/// One refusal.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Which kind.
    pub reason: RefusalReason,
    /// Of whom, when that is certain.
    pub server: Option<ServerId>,
    /// From where, or where to.
    pub addr: SocketAddr,
    /// In words, for the log.
    pub detail: String,
}

/// A refusal without its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) reason: RefusalReason,
    pub(super) detail: String,
}

impl Fault {
    pub(super) fn new(reason: RefusalReason, detail: impl Into<String>) -> Fault {
        Fault { reason, detail: detail.into() }
    }
}

impl From<CodecError> for Fault {
    fn from(e: CodecError) -> Fault {
        let reason = match e {
            CodecError::TooLong { .. } | CodecError::TooMany { .. } => RefusalReason::TooLong,
            CodecError::Undecodable { .. } => RefusalReason::Undecodable,
            CodecError::WrongLane { .. } => RefusalReason::WrongLane,
        };
        Fault::new(reason, e.to_string())
    }
}

/// What a peer said, fit for a log line: it may be anybody.
pub(super) fn said(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().flat_map(char::escape_debug).take(SAID_CHARS_MAX).collect()
}

/// Refusals so far.
#[derive(Debug)]
pub(super) struct Refusals {
    counts: Vec<AtomicU64>,
    lines: Mutex<Vec<Line>>,
}

/// The log lines of one reason.
#[derive(Clone, Debug, Default)]
struct Line {
    last: Option<Instant>,
    untold: u64,
}

impl Refusals {
    pub(super) fn new() -> Refusals {
        let many = RefusalReason::ALL.len();
        Refusals {
            counts: (0..many).map(|_| AtomicU64::new(0)).collect(),
            lines: Mutex::new(vec![Line::default(); many]),
        }
    }

    pub(super) fn record(&self, refusal: &Refusal) {
        self.counts[refusal.reason as usize].fetch_add(1, Ordering::Relaxed);
        let untold = {
            let mut lines = self.lines.lock();
            let line = &mut lines[refusal.reason as usize];
            let now = Instant::now();
            if line.last.is_some_and(|last| now - last < LOG_EVERY) {
                line.untold += 1;
                return;
            }
            line.last = Some(now);
            std::mem::take(&mut line.untold)
        };
        let Refusal { reason, server, addr, detail } = refusal;
        tracing::warn!(%addr, ?server, reason = reason.label(), untold, "refused a peer: {detail}");
    }

    pub(super) fn counts(&self) -> Vec<(RefusalReason, u64)> {
        let count = |reason: &RefusalReason| self.counts[*reason as usize].load(Ordering::Relaxed);
        RefusalReason::ALL.iter().map(|reason| (*reason, count(reason))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_one_each_and_in_order() {
        for (at, reason) in RefusalReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, at);
            assert!(reason.label().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
            assert_eq!(RefusalReason::ALL.iter().filter(|other| other.label() == reason.label()).count(), 1);
        }
    }

    #[test]
    fn what_a_stranger_says_is_one_short_line() {
        assert_eq!(said(b"no\n\x1b[31m\xff"), "no\\n\\u{1b}[31m\u{fffd}");
        assert_eq!(said(&[b'a'; 10_000]).len(), SAID_CHARS_MAX);
    }
}
