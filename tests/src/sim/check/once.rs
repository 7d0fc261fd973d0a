//! Each tag is applied at most once, in order and without a gap; and no payload is written twice.

use super::history::Fact;
use super::{Verdict, Violation, hold};
use std::collections::{BTreeMap, BTreeSet};
use warren_storage::tree::{Outcome, Reply};
use warren_storage::{Command, Op, SessionId};

const PROPERTY: &str = "each tag applied at most once";

/// What was applied.
#[derive(Default)]
pub struct Once {
    /// The last sequence of each attachment.
    last: BTreeMap<(SessionId, u32), u64>,
    /// Clients never write the same bytes twice.
    payloads: BTreeSet<Vec<u8>>,
}

impl Once {
    pub(super) fn on_applied(&mut self, fact: &Fact) -> Verdict {
        let logged = fact.logged();
        // A change of the membership takes its zxid though its session is gone: raft goes by it already.
        let admitted = fact.counted && !matches!(fact.outcome, Outcome::Dropped);
        if let (Some(tag), true) = (fact.tag, admitted) {
            let last = self.last.entry((tag.session, tag.generation)).or_default();
            // One that comes behind the end of its session has those in front of it dropped.
            let change = matches!(logged.command, Command::Reconfigure { .. });
            hold(tag.sequence == *last + 1 || change && tag.sequence > *last, PROPERTY, || {
                format!("{tag:?} is applied behind sequence {last}")
            })?;
            *last = tag.sequence;
        }
        match (&logged.command, &fact.outcome) {
            (Command::Single(op), Outcome::Done(_)) => self.written(op),
            (Command::Multi(ops), Outcome::Done(Reply::Multi(_))) => {
                ops.iter().try_for_each(|op| self.written(op))
            }
            _ => Ok(()),
        }
    }

    fn written(&mut self, op: &Op<'_>) -> Verdict {
        let (Op::Create { data: Some(data), .. } | Op::SetData { data: Some(data), .. }) = op else {
            return Ok(());
        };
        if !data.starts_with(b"#") || self.payloads.insert(data.to_vec()) {
            return Ok(());
        }
        Err(Violation {
            property: PROPERTY,
            what: format!("{:?} is written a second time, by {op:?}", String::from_utf8_lossy(data)),
        })
    }
}
