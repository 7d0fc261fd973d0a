//! Sequence names are unique and rise, for each parent as long as it lives.

use super::history::Fact;
use super::{Verdict, hold};
use std::collections::BTreeMap;
use warren_storage::tree::{ChangeKind, Outcome, Reply};
use warren_storage::{Command, Op};

const PROPERTY: &str = "sequence names unique and rising";

/// The last number under each parent.
#[derive(Default)]
pub struct Sequences(BTreeMap<String, i64>);

impl Sequences {
    pub(super) fn on_applied(&mut self, fact: &Fact) -> Verdict {
        let logged = fact.logged();
        match (&logged.command, &fact.outcome) {
            (Command::Single(op), Outcome::Done(reply)) => self.created(op, reply)?,
            (Command::Multi(ops), Outcome::Done(Reply::Multi(replies))) => {
                for (op, reply) in ops.iter().zip(replies) {
                    self.created(op, reply)?;
                }
            }
            _ => {}
        }
        // A parent that is made again counts again.
        for change in fact.changes.iter().filter(|c| c.kind == ChangeKind::Deleted) {
            self.0.remove(&*change.path);
        }
        Ok(())
    }

    fn created(&mut self, op: &Op<'_>, reply: &Reply) -> Verdict {
        let (Op::Create { path: asked, mode, .. }, Reply::Created { path, .. }) = (op, reply) else {
            return Ok(());
        };
        if !mode.is_sequential() {
            return Ok(());
        }
        let number = path.strip_prefix(asked).and_then(|digits| digits.parse::<i64>().ok()).unwrap_or(-1);
        let parent = path.parent().unwrap_or("/").to_owned();
        let last = self.0.get(&parent).copied().unwrap_or(-1);
        hold(number > last, PROPERTY, || format!("{asked} became {} behind number {last}", &**path))?;
        self.0.insert(parent, number);
        Ok(())
    }
}
