//! How the word at the cursor may go on: commands, options, values of options, znodes.

use super::command::Line;
use super::words;
use clap::CommandFactory as _;
use warren_storage::path;

/// Candidates that are offered at most. Where there are more, the last of them stands for the rest, so that what all have in
/// common is filled in all the same.
pub const SHOWN_MAX: usize = 300;
/// Children of a znode that are fetched at most; of one with more, nothing is offered.
pub const CHILDREN_MAX: i32 = 1_000_000;

/// What the word at the cursor may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// One of these, from this place in the line on.
    Words {
        /// Bytes.
        start: usize,
        /// In order.
        words: Vec<String>,
    },
    /// A znode.
    Znode {
        /// Where the word begins, bytes.
        start: usize,
        /// Of these children,
        parent: String,
        /// those that begin so.
        prefix: String,
        /// The quote that the word stands in.
        quote: Option<char>,
    },
    /// Nothing that we know of.
    Nothing,
}

/// A way to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What is shown.
    pub shown: String,
    /// What is typed in.
    pub typed: String,
}

/// What may be typed at the end of `line`, which is what stands left of the cursor.
pub fn wanted(line: &str) -> Wanted {
    let mut words = words::scan(line);
    let at_new = words.last().is_none_or(|word| word.open.is_none() && line.ends_with(char::is_whitespace));
    if at_new {
        words.push(words::Word { text: String::new(), start: line.len(), open: None });
    }
    let (word, before) = words.split_last().expect("there is one by now");
    let among = |known: Vec<String>| {
        let words: Vec<String> = known.into_iter().filter(|known| known.starts_with(&word.text)).collect();
        if words.is_empty() { Wanted::Nothing } else { Wanted::Words { start: word.start, words } }
    };
    let mut declared = Line::command();
    // So that a command knows the options that all have.
    declared.build();
    let names = || {
        let shown = declared.get_subcommands().filter(|command| !command.is_hide_set());
        let mut names: Vec<String> = shown.map(|command| command.get_name().to_owned()).collect();
        names.sort_unstable();
        names
    };
    let Some((command, rest)) = before.split_first() else { return among(names()) };
    let Some(command) = declared.find_subcommand(&command.text) else { return Wanted::Nothing };
    if word.text.starts_with('-') && word.open.is_none() {
        return among(options(command));
    }
    // The value of an option, or of the argument that the command begins with.
    let option = rest.last().and_then(|last| {
        command.get_arguments().find(|arg| {
            last.text == format!("-{}", arg.get_short().unwrap_or('-'))
                || last.text == format!("--{}", arg.get_long().unwrap_or_default())
        })
    });
    let option = option.filter(|arg| arg.get_action().takes_values());
    let first = command.get_positionals().next().filter(|_| rest.is_empty());
    if let Some(arg) = option.or(first) {
        let values: Vec<String> =
            arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
        if !values.is_empty() {
            return among(values);
        }
    }
    if command.get_name() == "help" {
        return among(names());
    }
    let takes_znode = command.get_positionals().any(|arg| matches!(arg.get_id().as_str(), "path" | "from"));
    if option.is_some() || !takes_znode {
        return Wanted::Nothing;
    }
    match word.text.rsplit_once('/') {
        // Nothing is typed yet: a path begins with a slash.
        None if word.text.is_empty() => znodes_of(word, "/", ""),
        None => Wanted::Nothing,
        Some(("", prefix)) => znodes_of(word, "/", prefix),
        Some((parent, prefix)) if path::validate(parent).is_ok() => znodes_of(word, parent, prefix),
        Some(_) => Wanted::Nothing,
    }
}

fn znodes_of(word: &words::Word, parent: &str, prefix: &str) -> Wanted {
    let (parent, prefix) = (parent.to_owned(), prefix.to_owned());
    Wanted::Znode { start: word.start, parent, prefix, quote: word.open }
}

fn options(command: &clap::Command) -> Vec<String> {
    let mut all = Vec::new();
    for arg in command.get_arguments().filter(|arg| !arg.is_positional()) {
        all.extend(arg.get_short().map(|short| format!("-{short}")));
        all.extend(arg.get_long().map(|long| format!("--{long}")));
    }
    all.sort_unstable();
    all
}

/// Those of the names that begin with the prefix, in order.
pub fn znodes(parent: &str, prefix: &str, quote: Option<char>, names: &[&str]) -> Vec<Candidate> {
    let mut found: Vec<&str> = names.iter().copied().filter(|name| name.starts_with(prefix)).collect();
    let hidden = found.len().saturating_sub(SHOWN_MAX);
    if hidden > 0 {
        // The last in order has in common with the first what all have.
        let last = found.iter().copied().max().expect("there are many");
        found.select_nth_unstable(SHOWN_MAX - 1);
        found.truncate(SHOWN_MAX - 1);
        found.sort_unstable();
        found.push(last);
    } else {
        found.sort_unstable();
    }
    let paths: Vec<String> = found.iter().map(|name| super::run::join(parent, name)).collect();
    // One that must be quoted has them all quoted, so that they begin alike.
    let quote = quote.or(paths.iter().any(|path| words::quoted(path, None) != **path).then_some('"'));
    let mut candidates: Vec<Candidate> = found
        .iter()
        .zip(&paths)
        .map(|(name, path)| Candidate { shown: (*name).to_owned(), typed: words::quoted(path, quote) })
        .collect();
    if let Some(last) = candidates.last_mut().filter(|_| hidden > 0) {
        last.shown = format!("… {} more", hidden + 1);
    }
    candidates
}

/// What is typed in for the only candidate: with a space behind it, or open for its children.
pub fn only(candidate: &Candidate, has_children: bool) -> String {
    match has_children {
        true => candidate.typed.trim_end_matches(['"', '\'']).to_owned(),
        false => format!("{} ", candidate.typed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words_of(line: &str) -> Vec<String> {
        match wanted(line) {
            Wanted::Words { words, .. } => words,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn znode_of(line: &str) -> (usize, String, String, Option<char>) {
        match wanted(line) {
            Wanted::Znode { start, parent, prefix, quote } => (start, parent, prefix, quote),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn commands_options_and_values() {
        assert_eq!(words_of("getA"), ["getAcl", "getAllChildrenNumber"]);
        assert!(words_of("").contains(&"quit".to_owned()) && !words_of("").contains(&"ls2".to_owned()));
        assert_eq!(words_of("  del"), ["delete", "deleteall", "delquota"]);
        assert_eq!(words_of("ls -"), ["--help", "--output", "-R", "-h", "-o", "-s", "-w"].map(String::from));
        assert_eq!(words_of("addWatch -m P"), ["PERSISTENT", "PERSISTENT_RECURSIVE"]);
        assert_eq!(words_of("printwatches "), ["on", "off"]);
        assert_eq!(words_of("help whoa"), ["whoami"]);
        for nothing in ["frob", "frob /", "whoami /", "delete -v ", "get a", "connect "] {
            assert_eq!(wanted(nothing), Wanted::Nothing, "{nothing}");
        }
    }

    #[test]
    fn znodes_by_their_parent() {
        assert_eq!(znode_of("ls /"), (3, "/".into(), String::new(), None));
        assert_eq!(znode_of("ls "), (3, "/".into(), String::new(), None));
        assert_eq!(znode_of("get -s /a/b/c"), (7, "/a/b".into(), "c".into(), None));
        assert_eq!(znode_of("get \"/a b/c"), (4, "/a b".into(), "c".into(), Some('"')));
        assert_eq!(znode_of("cp /a /b/"), (6, "/b".into(), String::new(), None));
        assert_eq!(wanted("ls /a//"), Wanted::Nothing);
    }

    #[test]
    fn candidates_are_in_order_and_typed_as_they_must_be() {
        let typed = |candidates: Vec<Candidate>| -> Vec<String> {
            candidates.into_iter().map(|candidate| candidate.typed).collect()
        };
        assert_eq!(typed(znodes("/", "a", None, &["b", "ab", "a"])), ["/a", "/ab"]);
        assert_eq!(typed(znodes("/p", "", None, &["a b", "a"])), ["\"/p/a\"", "\"/p/a b\""]);
        assert_eq!(typed(znodes("/p", "", Some('\''), &["a"])), ["'/p/a'"]);
        let one = &znodes("/p", "", None, &["a b"])[0];
        assert_eq!((only(one, true), only(one, false)), ("\"/p/a b".into(), "\"/p/a b\" ".into()));
    }

    #[test]
    fn of_many_the_first_are_shown_and_what_all_have_in_common_is_kept() {
        let names: Vec<String> = (0..100_000).rev().map(|n| format!("node-{n:06}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let found = znodes("/", "node-", None, &names);
        assert_eq!(found.len(), SHOWN_MAX);
        assert_eq!((found[0].shown.as_str(), found[1].shown.as_str()), ("node-000000", "node-000001"));
        let last = found.last().unwrap();
        assert_eq!((last.shown.as_str(), last.typed.as_str()), ("… 99701 more", "/node-099999"));
    }
}
