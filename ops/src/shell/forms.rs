//! What commands mean: older forms in terms of the newer, zkCli's options as clap reads them, who goes on watching.

use super::command::{Config, Get, Set, ShellCommand};
#[cfg(test)]
use super::command::{Line, LineCommand};

const ZKCLI_OPTIONS: [&str; 3] = ["-server", "-timeout", "-waitforconnection"];
const RECONFIG_OPTIONS: [&str; 4] = ["-file", "-members", "-add", "-remove"];
/// Before a command, the word behind these is none.
const OPTIONS_WITH_VALUE: [&str; 7] =
    ["-s", "--server", "--timeout", "-o", "--output", "--data-dir", "--admin"];

/// zkCli's options with one dash and a long name, as clap reads them: `-server` and its like before the command, `-add` and
/// its like behind `reconfig`. Of a typed line, too, the first word is the command.
pub fn zkcli_words(mut words: Vec<String>) -> Vec<String> {
    let mut is_value = false;
    let mut command = None;
    for word in &mut words {
        match command {
            None if is_value => is_value = false,
            None if word.starts_with('-') => {
                if ZKCLI_OPTIONS.contains(&word.as_str()) {
                    word.insert(0, '-');
                }
                is_value = OPTIONS_WITH_VALUE.contains(&word.as_str());
            }
            None => command = Some(word == "reconfig"),
            Some(true) if RECONFIG_OPTIONS.contains(&word.as_str()) => word.insert(0, '-'),
            Some(_) => {}
        }
    }
    words
}

impl ShellCommand {
    /// How the newer form is written, where the older one was.
    pub fn newer_form(&self) -> Option<&'static str> {
        Some(match self {
            ShellCommand::Ls2 { .. } => "ls -s PATH",
            ShellCommand::Ls { older_watch: Some(_), .. } => "ls -w PATH",
            ShellCommand::Get(Get { older_watch: Some(_), .. }) => "get -w PATH",
            ShellCommand::Stat { older_watch: Some(_), .. } => "stat -w PATH",
            ShellCommand::Set(Set { older_version: Some(_), .. }) => "set -v VERSION PATH DATA",
            ShellCommand::Delete { older_version: Some(_), .. } => "delete -v VERSION PATH",
            ShellCommand::Rmr { .. } => "deleteall PATH",
            _ => return None,
        })
    }

    /// The same in the newer form.
    pub fn newer(self) -> ShellCommand {
        match self {
            ShellCommand::Ls2 { path, older_watch } => ShellCommand::Ls {
                stat: true,
                watch: older_watch.is_some(),
                recursive: false,
                path,
                older_watch: None,
            },
            ShellCommand::Ls { stat, watch, recursive, path, older_watch } => ShellCommand::Ls {
                stat,
                watch: watch || older_watch.is_some(),
                recursive,
                path,
                older_watch: None,
            },
            ShellCommand::Get(get) => ShellCommand::Get(Get {
                watch: get.watch || get.older_watch.is_some(),
                older_watch: None,
                ..get
            }),
            ShellCommand::Stat { watch, path, older_watch } => {
                ShellCommand::Stat { watch: watch || older_watch.is_some(), path, older_watch: None }
            }
            ShellCommand::Set(set) => ShellCommand::Set(Set {
                version: set.version.or(set.older_version),
                older_version: None,
                ..set
            }),
            ShellCommand::Delete { version, path, older_version } => {
                ShellCommand::Delete { version: version.or(older_version), path, older_version: None }
            }
            ShellCommand::Rmr { path } => ShellCommand::Deleteall { batch: 1000, path },
            other => other,
        }
    }

    /// How it goes on telling after it is done: with one event, or with all until it is ended.
    pub fn watches(&self) -> Option<Watches> {
        match self {
            ShellCommand::Ls { watch: true, .. }
            | ShellCommand::Get(Get { watch: true, .. })
            | ShellCommand::Stat { watch: true, .. }
            | ShellCommand::Config(Config { watch: true, .. }) => Some(Watches::Once),
            ShellCommand::AddWatch { .. } => Some(Watches::Always),
            _ => None,
        }
    }
}

/// How often a watch fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watches {
    /// Then it is gone.
    Once,
    /// Until it is taken back.
    Always,
}

/// Does the history keep this line? Credentials are not for files.
pub fn is_kept(line: &str) -> bool {
    let words = super::words::scan(line);
    words.first().is_some_and(|word| word.text != "addauth")
}

#[cfg(test)]
mod tests {
    use super::super::words::split;
    use super::*;
    use clap::CommandFactory as _;

    fn line(text: &str) -> Result<LineCommand, String> {
        Line::parse_words(&split(text).unwrap()).map(|line| line.command).map_err(|e| e.to_string())
    }

    fn shell(text: &str) -> ShellCommand {
        match line(text) {
            Ok(LineCommand::Shell(command)) => command,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn the_declaration_is_sound() {
        Line::command().debug_assert();
    }

    #[test]
    fn older_forms_mean_the_newer_ones() {
        for (older, newer, said) in [
            ("ls2 /a", "ls -s /a", "ls -s"),
            ("ls2 /a watch", "ls -s -w /a", "ls -s"),
            ("ls /a watch", "ls -w /a", "ls -w"),
            ("get /a watch", "get -w /a", "get -w"),
            ("stat /a true", "stat -w /a", "stat -w"),
            ("set /a x 3", "set -v 3 /a x", "set -v"),
            ("set /a x -1", "set /a x -v -1", "set -v"),
            ("delete /a 3", "delete -v 3 /a", "delete -v"),
            ("rmr /a", "deleteall /a", "deleteall"),
        ] {
            let command = shell(older);
            assert!(command.newer_form().unwrap().starts_with(said), "{older}");
            assert_eq!(command.newer(), shell(newer), "{older}");
            assert_eq!(shell(newer).newer_form(), None);
            assert_eq!(shell(newer).newer(), shell(newer));
        }
    }

    #[test]
    fn options_stand_anywhere() {
        assert_eq!(shell("set /a x -s -v 2"), shell("set -s -v 2 /a x"));
        assert_eq!(shell("deleteall /a -b 7"), ShellCommand::Deleteall { batch: 7, path: "/a".into() });
        assert_eq!(shell("setquota -n 5 -B 9 /a"), shell("setquota /a -B 9 -n 5"));
        assert_eq!(shell("removewatches /a -c"), shell("removewatches -c /a"));
        assert_eq!(shell("getacl /a"), shell("getAcl /a"));
        assert_eq!(shell("addWatch -m persistent /a"), shell("addwatch -m PERSISTENT /a"));
    }

    #[test]
    fn data_may_look_like_a_number_or_an_option() {
        let ShellCommand::Set(set) = shell("set /a -5") else { panic!() };
        assert_eq!(set.data.as_deref(), Some("-5"));
        let ShellCommand::Set(set) = shell("set /a -- -x") else { panic!() };
        assert_eq!(set.data.as_deref(), Some("-x"));
        let ShellCommand::Create(create) = shell(r#"create /a """#) else { panic!() };
        assert_eq!((create.data.as_deref(), create.acl), (Some(""), None));
    }

    #[test]
    fn reconfig_takes_the_options_of_zkcli() {
        let ShellCommand::Reconfig(change) = shell("reconfig -v 1f -add server.4=h:1:2;3 -remove 1,2") else {
            panic!()
        };
        assert_eq!((change.version, change.remove.as_deref()), (Some(0x1f), Some("1,2")));
        assert!(line("reconfig -s").unwrap_err().contains("required"));
        assert!(line("reconfig -members x -add y").unwrap_err().contains("cannot be used with"));
        let words = |text: &str| zkcli_words(split(text).unwrap()).join(" ");
        assert_eq!(words("-server h:1 set /a -server"), "--server h:1 set /a -server");
        assert_eq!(words("-s reconfig -timeout 5 get -add"), "-s reconfig --timeout 5 get -add");
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_reason() {
        for (text, why) in [
            ("gett /a", "similar"),
            ("get", "required"),
            ("get a", "must start with /"),
            ("get /a//b", "empty element"),
            ("create -c -s /a", "cannot be used with"),
            ("create -e -t 5 /a", "cannot be used with"),
            ("create -t 0 /a", "0 is not in"),
            ("get -x -b /a", "cannot be used with"),
            ("set /a", "required"),
            ("setquota /a", "required"),
            ("setquota -n 0 /a", "0 is not in"),
            ("printwatches maybe", "possible values"),
            ("redo x", "invalid digit"),
            ("connect ::1", "brackets"),
        ] {
            let refused = line(text).unwrap_err();
            assert!(refused.contains(why), "{text}: {refused}");
        }
    }

    #[test]
    fn a_slash_at_the_end_is_taken_off() {
        assert_eq!(shell("ls /a/"), shell("ls /a"));
        assert_eq!(shell("ls /"), shell("ls"));
        let ShellCommand::Create(create) = shell("create -s /a/") else { panic!() };
        assert_eq!(create.path, "/a/");
    }

    #[test]
    fn credentials_are_not_kept() {
        assert!(is_kept("get /a"));
        assert!(!is_kept("addauth digest a:b") && !is_kept("  \"addauth\" digest a:b") && !is_kept(""));
    }
}
