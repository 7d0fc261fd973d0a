//! What became of the requests that were applied last. The log holds requests as they were asked; what they resulted in was decided
//! by the tree as it was then, and nobody can tell it from the log afterwards. So it is remembered here for `warren log`, of the
//! entries that this run of the server applied.

use crate::records::{Other, Outcomes};
use std::collections::VecDeque;
use warren_storage::tree::{Applied, Outcome, Reply};
use warren_storage::{Code, Zxid};

/// Log entries that are remembered, at most; each carries one request or many. The oldest go first.
pub const ENTRIES_MAX: usize = 100_000;
/// Requests of theirs that did not simply succeed, at most; beyond, whole entries go, the oldest first.
pub const OTHERS_MAX: usize = 200_000;

/// See the module.
#[derive(Default)]
pub struct History {
    entries: VecDeque<Ran>,
    /// Of all entries.
    others: usize,
}

/// An entry's requests. Those that are not among the others took a zxid each and succeeded.
struct Ran {
    index: u64,
    /// The zxid before it.
    before: Zxid,
    commands: u32,
    others: Vec<Unlike>,
}

struct Unlike {
    command: u32,
    took_zxid: bool,
    /// Of a multi, the operation that failed.
    at: Option<usize>,
    /// None for what was dropped.
    code: Option<Code>,
}

impl History {
    /// An entry with requests begins; what it does is noted next.
    pub fn begin(&mut self, index: u64, before: Zxid) {
        // A tree that was taken over may be of another history: the log begins behind it.
        if self.entries.back().is_some_and(|last| last.index >= index) {
            *self = History::default();
        }
        self.entries.push_back(Ran { index, before, commands: 0, others: Vec::new() });
        while self.entries.len() > ENTRIES_MAX || (self.others > OTHERS_MAX && self.entries.len() > 1) {
            let oldest = self.entries.pop_front().expect("there is one");
            self.others -= oldest.others.len();
        }
    }

    /// Its next request resulted in this.
    pub fn note(&mut self, applied: &Applied) {
        let entry = self.entries.back_mut().expect("an entry was begun");
        let command = entry.commands;
        entry.commands += 1;
        let (at, code) = match &applied.outcome {
            Outcome::Done(Reply::MultiFailed { at, code }) => (Some(*at), Some(*code)),
            Outcome::Done(_) => return,
            Outcome::Failed(code) => (None, Some(*code)),
            Outcome::Dropped => (None, None),
        };
        entry.others.push(Unlike { command, took_zxid: applied.zxid.is_some(), at, code });
        self.others += 1;
    }

    /// What is remembered of the entries from `first` to `last`, with their indexes, in order.
    pub fn outcomes(&self, first: u64, last: u64) -> Vec<(u64, Outcomes)> {
        let begin = self.entries.partition_point(|entry| entry.index < first);
        let wanted = self.entries.range(begin..).take_while(|entry| entry.index <= last);
        wanted.map(|entry| (entry.index, entry.outcomes())).collect()
    }
}

impl Ran {
    fn outcomes(&self) -> Outcomes {
        let others = self.others.iter().map(|other| Other {
            command: other.command,
            took_zxid: other.took_zxid,
            what: match (other.code, other.at) {
                (Some(code), Some(at)) => format!("refused: {code}, at operation {}", at + 1),
                (Some(code), None) => format!("refused: {code}"),
                (None, _) => "not carried out: it was a second copy, or no longer called for".to_owned(),
            },
        });
        Outcomes { before: self.before.wire(), others: others.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(zxid: Option<Zxid>, outcome: Outcome) -> Applied {
        Applied { zxid, outcome, changes: Vec::new() }
    }

    #[test]
    fn what_did_not_succeed_is_told_with_its_place() {
        let mut history = History::default();
        history.begin(7, Zxid::ZERO);
        let zxid = Some(Zxid::ZERO.next());
        history.note(&applied(zxid, Outcome::Done(Reply::Deleted)));
        history.note(&applied(zxid, Outcome::Failed(Code::NoNode)));
        history.note(&applied(None, Outcome::Dropped));
        history.note(&applied(zxid, Outcome::Done(Reply::MultiFailed { at: 1, code: Code::BadVersion })));
        history.begin(9, Zxid::ZERO);
        let told = history.outcomes(1, 8);
        assert_eq!((told.len(), told[0].0), (1, 7));
        let others: Vec<_> = told[0].1.others.iter().map(|o| (o.command, o.took_zxid, &*o.what)).collect();
        assert_eq!(others[0], (1, true, &*format!("refused: {}", Code::NoNode)));
        assert!(!others[1].1 && others[1].2.starts_with("not carried out"));
        assert_eq!(others[2], (3, true, &*format!("refused: {}, at operation 2", Code::BadVersion)));
        assert_eq!(history.outcomes(8, 20).len(), 1);
    }

    #[test]
    fn it_stays_within_its_limits_and_forgets_another_history() {
        let mut history = History::default();
        for index in 1..=ENTRIES_MAX as u64 + 10 {
            history.begin(index, Zxid::ZERO);
        }
        assert_eq!(history.entries.len(), ENTRIES_MAX);
        assert_eq!(history.entries[0].index, 11);
        history.begin(5, Zxid::ZERO);
        assert_eq!(history.entries.len(), 1);
        for index in 6..9 {
            history.begin(index, Zxid::ZERO);
            for _ in 0..OTHERS_MAX / 2 + 1 {
                history.note(&applied(None, Outcome::Dropped));
            }
        }
        history.begin(9, Zxid::ZERO);
        assert!(history.others <= OTHERS_MAX && history.entries[0].index > 5, "{}", history.others);
    }
}
