//! The line editor's questions: how may the word go on, what is coloured.

use super::session::Session;
use crate::shell::address::Root;
use crate::shell::complete::{self, Candidate, Wanted};
use crate::shell::run::Server as _;
use rustyline::completion::{Completer, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};
use std::borrow::Cow;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use warren_transport::{Request, Response};

/// Whoever presses TAB waits so long at most.
const CANDIDATES_WITHIN: Duration = Duration::from_secs(2);

/// The session of now, and its root; none when it was closed.
pub(super) type Current = Arc<Mutex<Option<(Session, Root)>>>;

/// Answers the line editor.
pub(super) struct Questions {
    pub(super) current: Current,
    pub(super) colors: bool,
}

impl Helper for Questions {}
impl Hinter for Questions {
    type Hint = String;
}
impl Validator for Questions {}

impl Highlighter for Questions {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _default: bool) -> Cow<'b, str> {
        match self.colors {
            true => Cow::Owned(format!("\x1b[36m{prompt}\x1b[0m")),
            false => Cow::Borrowed(prompt),
        }
    }
}

impl Completer for Questions {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let (start, candidates) = match complete::wanted(&line[..pos]) {
            Wanted::Nothing => (pos, Vec::new()),
            Wanted::Words { start, words } => {
                let typed = |word: &str| if words.len() == 1 { format!("{word} ") } else { word.to_owned() };
                let candidate = |word: &String| Candidate { shown: word.clone(), typed: typed(word) };
                (start, words.iter().map(candidate).collect())
            }
            Wanted::Znode { start, parent, prefix, quote } => {
                (start, self.znodes(&parent, &prefix, quote).unwrap_or_default())
            }
        };
        let pairs = candidates
            .into_iter()
            .map(|Candidate { shown, typed }| Pair { display: shown, replacement: typed })
            .collect();
        Ok((start, pairs))
    }
}

impl Questions {
    /// Nothing where the server does not answer in time, or refuses.
    fn znodes(&self, parent: &str, prefix: &str, quote: Option<char>) -> Option<Vec<Candidate>> {
        let current = self.current.lock().expect("nobody panics with it").clone();
        let (session, root) = current?;
        let mut session = session.within(CANDIDATES_WITHIN);
        let full = root.full(parent);
        if children_of(&mut session, &full)? > complete::CHILDREN_MAX {
            return None;
        }
        let ticket = session.submit(&Request::GetChildren { path: &full, watch: false }, None).ok()?;
        let reply = session.wait(ticket).ok()?;
        let mut candidates = match reply.response(parent) {
            Ok(Response::Children(names)) => complete::znodes(parent, prefix, quote, &names),
            _ => return None,
        };
        if let [only] = candidates.as_mut_slice() {
            let child = root.full(&crate::shell::run::join(parent, &only.shown));
            let has_children = children_of(&mut session, &child).is_some_and(|n| n > 0);
            only.typed = complete::only(only, has_children);
        }
        Some(candidates)
    }
}

fn children_of(session: &mut Session, full: &str) -> Option<i32> {
    let ticket = session.submit(&Request::Exists { path: full, watch: false }, None).ok()?;
    match session.wait(ticket).ok()?.response(full) {
        Ok(Response::Stat(stat)) => Some(stat.num_children),
        _ => None,
    }
}
