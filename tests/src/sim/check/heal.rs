//! After healing the server serves again within a bound. The world drives the phase; here is what it asks.

use super::conversation::Conversation;
use super::{Verdict, Violation, hold};

const PROPERTY: &str = "serves again after healing";

/// From the last fault until every client was served, µs.
pub const BOUND_US: u64 = 60_000_000;

/// Not everybody was served in time.
pub fn overdue(what: String) -> Violation {
    Violation { property: PROPERTY, what }
}

pub(super) fn on_quiet(connection: u64, conversation: &Conversation) -> Verdict {
    hold(conversation.pending.is_empty(), PROPERTY, || {
        let xids: Vec<i32> = conversation.pending.iter().map(|sent| sent.xid).collect();
        format!("connection {connection} waits for replies to {xids:?}")
    })
}
