//! Walks over all that is below a znode: many requests under way at once, and what comes is kept level by level.

use super::super::answer::Answer;
use super::super::command::Find;
use super::*;
use std::collections::VecDeque;
use std::ops::Range;

/// Requests under way at once.
pub(super) const WINDOW: usize = 128;
/// Znodes that a walk takes at most; it keeps their paths and Stats.
const ZNODES_MAX: usize = 5_000_000;

/// A znode that a walk came to. Parents stand before their children, and the children of one stand together, by name.
#[derive(Clone, Debug)]
pub(super) struct Walked {
    pub(super) path: String,
    /// As it was when its children were listed.
    pub(super) stat: Stat,
    /// Where its parent stands; its own place for the first.
    pub(super) parent: usize,
    pub(super) children: Range<usize>,
    /// It is gone by now, or may not be read.
    pub(super) refused: Option<Code>,
    level: u32,
}

impl Walked {
    fn new(path: String, parent: usize, level: u32) -> Walked {
        Walked { path, stat: Stat::default(), parent, children: 0..0, refused: None, level }
    }

    pub(super) fn name(&self) -> &str {
        warren_storage::path::name_of(&self.path)
    }

    pub(super) fn is_gone(&self) -> bool {
        self.refused == Some(Code::NoNode)
    }
}

impl Shell<'_> {
    /// What is below `top`, itself first, `levels` deep.
    pub(super) fn walk(
        &mut self,
        top: &str,
        watch: bool,
        levels: Option<u32>,
    ) -> Result<Vec<Walked>, Failure> {
        let mut all = vec![Walked::new(top.to_owned(), 0, 0)];
        let mut asked: VecDeque<(usize, Ticket)> = VecDeque::new();
        let (mut next, mut losses) = (0, 0);
        loop {
            while next < all.len() && asked.len() < WINDOW {
                asked.push_back((next, self.ask_children(&all[next].path, watch)?));
                next += 1;
            }
            let Some((at, ticket)) = asked.pop_front() else { break };
            if self.listener.is_interrupted() {
                return Err(Failure::Interrupted);
            }
            let reply = match self.server.wait(ticket) {
                Err(Failure::Lost) if losses < READS_MAX => {
                    // All that was under way is lost with it.
                    losses += 1;
                    let lost: Vec<usize> = asked.drain(..).map(|(at, _)| at).collect();
                    for at in std::iter::once(at).chain(lost) {
                        asked.push_back((at, self.ask_children(&all[at].path, watch)?));
                    }
                    continue;
                }
                other => other?,
            };
            match reply.response(&all[at].path) {
                Ok(Response::ChildrenAndStat(names, stat)) => {
                    all[at].stat = stat;
                    let (start, level) = (all.len(), all[at].level + 1);
                    if levels.is_none_or(|levels| level <= levels) {
                        if all.len() + names.len() > ZNODES_MAX {
                            return Err(Failure::Told(format!(
                                "more than {ZNODES_MAX} znodes are below {top}; name a part of it"
                            )));
                        }
                        for name in sorted(&names) {
                            let path = join(&all[at].path, &name);
                            all.push(Walked::new(path, at, level));
                        }
                    }
                    all[at].children = start..all.len();
                }
                Err(Failure::Refused { code: code @ (Code::NoNode | Code::NoAuth), .. }) if at > 0 => {
                    all[at].refused = Some(code);
                }
                other => return Err(unexpected(other)),
            }
            self.listener.progress("found", all.len(), None);
        }
        Ok(all)
    }

    fn ask_children(&mut self, path: &str, watch: bool) -> Result<Ticket, Failure> {
        let full = self.root.full(path);
        let request = Request::GetChildren2 { path: &full, watch };
        self.server.submit(&request, watch.then_some((Kind::Child, full.as_str())))
    }

    /// Data of these, in the order given; `None` for one that is gone or may not be read.
    pub(super) fn data_of(&mut self, paths: &[&str]) -> Result<Vec<Option<Option<Vec<u8>>>>, Failure> {
        debug_assert!(paths.len() <= WINDOW, "so many are under way at once");
        let mut tickets = Vec::with_capacity(paths.len());
        for path in paths {
            let full = self.root.full(path);
            tickets.push(self.server.submit(&Request::GetData { path: &full, watch: false }, None)?);
        }
        let mut all = Vec::with_capacity(paths.len());
        for (path, ticket) in paths.iter().zip(tickets) {
            let found = match self.server.wait(ticket) {
                Ok(reply) => match reply.response(path) {
                    Ok(Response::Data(data, _)) => Some(data.map(<[u8]>::to_vec)),
                    Err(failure) if failure.is(Code::NoNode) || failure.is(Code::NoAuth) => None,
                    other => return Err(unexpected(other)),
                },
                Err(Failure::Lost) => self.data(path, false).ok().map(|(data, _)| data),
                Err(failure) => return Err(failure),
            };
            all.push(found);
        }
        Ok(all)
    }

    /// Tell what a walk could not see.
    fn note_refused(&mut self, all: &[Walked]) {
        let hidden = all.iter().filter(|znode| znode.refused == Some(Code::NoAuth)).count();
        if hidden > 0 {
            self.listener
                .note(&format!("{hidden} znodes may not be read, and what is below them is missing"));
        }
    }

    /// ls -R, in zkCli's order: the children of one, then what is below each.
    pub(super) fn list_all(&mut self, top: &str, watch: bool) -> Result<(), Failure> {
        let all = self.walk(top, watch, None)?;
        self.tell_path(&all[0].path);
        let mut open = vec![0];
        while let Some(at) = open.pop() {
            for child in &all[all[at].children.clone()] {
                self.tell_path(&child.path);
            }
            open.extend(all[at].children.clone().rev());
        }
        self.note_refused(&all);
        Ok(())
    }

    fn tell_path(&mut self, path: &str) {
        self.listener.answer(Answer::Line(path.to_owned(), json!({ "path": path })));
    }

    pub(super) fn tree(&mut self, top: &str, levels: Option<u32>, sizes: bool) -> Result<(), Failure> {
        let all = self.walk(top, false, levels)?;
        // What is still to be drawn, with the rules to its left.
        let mut open: Vec<(usize, String)> = vec![(0, String::new())];
        while let Some((at, left)) = open.pop() {
            let znode = &all[at];
            let is_last = at == 0 || at + 1 == all[znode.parent].children.end;
            let (name, branch) = match (at, is_last) {
                (0, _) => (top, ""),
                (_, true) => (znode.name(), "└── "),
                (_, false) => (znode.name(), "├── "),
            };
            let mut line = format!("{left}{branch}{name}");
            if sizes {
                line.push_str(&format!(" ({} bytes)", znode.stat.data_length));
            }
            if znode.children.is_empty() && znode.stat.num_children > 0 {
                line.push_str(&format!(" … {} children", znode.stat.num_children));
            }
            let json = json!({
                "path": znode.path,
                "bytes": znode.stat.data_length,
                "children": znode.stat.num_children,
            });
            self.say(line, json)?;
            let below = match (at, is_last) {
                (0, _) => String::new(),
                (_, true) => format!("{left}    "),
                (_, false) => format!("{left}│   "),
            };
            open.extend(znode.children.clone().rev().map(|child| (child, below.clone())));
        }
        self.note_refused(&all);
        Ok(())
    }

    pub(super) fn find(&mut self, find: &Find) -> Result<(), Failure> {
        let all = self.walk(&find.path, false, None)?;
        let like = |znode: &&Walked| {
            !znode.is_gone()
                && find.name.as_ref().is_none_or(|glob| matches(glob, znode.name()))
                && find.min_bytes.is_none_or(|min| i64::from(znode.stat.data_length) >= i64::from(min))
                && find.min_children.is_none_or(|min| i64::from(znode.stat.num_children) >= i64::from(min))
                && (!find.ephemeral || znode.stat.ephemeral_owner != 0)
        };
        let found: Vec<&str> = all.iter().filter(like).map(|znode| znode.path.as_str()).collect();
        for (n, some) in found.chunks(WINDOW).enumerate() {
            if self.listener.is_interrupted() {
                return Err(Failure::Interrupted);
            }
            let Some(text) = &find.contains else {
                some.iter().for_each(|path| self.tell_path(path));
                continue;
            };
            self.listener.progress("searched", n * WINDOW, Some(found.len()));
            let data = self.data_of(some)?;
            for (path, data) in some.iter().zip(data) {
                let data = data.flatten().unwrap_or_default();
                if text.is_empty() || data.windows(text.len()).any(|part| part == text.as_bytes()) {
                    self.tell_path(path);
                }
            }
        }
        self.note_refused(&all);
        Ok(())
    }

    pub(super) fn du(&mut self, top: &str, rows: usize) -> Result<(), Failure> {
        let all = self.walk(top, false, None)?;
        // (znodes, bytes) below each, itself included: children stand behind their parents.
        let mut sums: Vec<(u64, u64)> = all
            .iter()
            .map(|znode| (u64::from(!znode.is_gone()), u64::try_from(znode.stat.data_length).unwrap_or(0)))
            .collect();
        for at in (1..all.len()).rev() {
            let (znodes, bytes) = sums[at];
            let parent = &mut sums[all[at].parent];
            *parent = (parent.0 + znodes, parent.1 + bytes);
        }
        let mut children: Vec<usize> = all[0].children.clone().collect();
        children.sort_by_key(|at| std::cmp::Reverse((sums[*at].1, sums[*at].0)));
        let shown: Vec<usize> = children.iter().copied().take(rows).collect();
        let hidden = &children[shown.len()..];
        let row = |(znodes, bytes): (u64, u64), path: &str| format!("{bytes:>14} {znodes:>10}  {path}");
        let mut lines = vec![format!("{:>14} {:>10}  path", "bytes", "znodes")];
        lines.extend(shown.iter().map(|at| row(sums[*at], &all[*at].path)));
        if !hidden.is_empty() {
            let sum = hidden.iter().fold((0, 0), |sum, at| (sum.0 + sums[*at].0, sum.1 + sums[*at].1));
            lines.push(row(sum, &format!("({} more)", hidden.len())));
        }
        lines.push(row(sums[0], &format!("{top} in all")));
        let object = |at: usize| json!({ "path": all[at].path, "znodes": sums[at].0, "bytes": sums[at].1 });
        let children: Vec<_> = shown.iter().map(|at| object(*at)).collect();
        let mut json = object(0);
        json["children"] = json!(children);
        json["children_left_out"] = json!(hidden.len());
        self.say(lines.join("\n"), json)?;
        self.note_refused(&all);
        Ok(())
    }
}

/// Is the name like this? `*` stands for any characters, `?` for one.
fn matches(glob: &str, name: &str) -> bool {
    let (glob, name): (Vec<char>, Vec<char>) = (glob.chars().collect(), name.chars().collect());
    let (mut g, mut n) = (0, 0);
    // Where the last star stands, and how far it reaches so far.
    let mut star = None;
    while n < name.len() {
        match glob.get(g) {
            Some('*') => {
                star = Some((g, n));
                g += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => (g, n) = (g + 1, n + 1),
            _ => match star {
                Some((at, reach)) => {
                    star = Some((at, reach + 1));
                    (g, n) = (at + 1, reach + 1);
                }
                None => return false,
            },
        }
    }
    glob[g..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn globs() {
        for (glob, name, like) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c*e", "abcde", true),
            ("a*c*e", "abcd", false),
            ("?b", "ab", true),
            ("?b", "b", false),
            ("*-0*1", "x-0-0001", true),
            ("ä?", "äö", true),
        ] {
            assert_eq!(matches(glob, name), like, "{glob} {name}");
        }
    }
}
