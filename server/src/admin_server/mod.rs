//! The AdminServer: ZooKeeper's commands as JSON over HTTP, with its names, aliases and keys, from the same facts as the
//! four-letter words; and `/livez` and `/readyz`, which load balancers ask. Pure: a method and a path in, what is asked
//! out; facts in, JSON out. `io/admin_server.rs` has the socket.
//!
//! It asks nobody who he is, so it changes nothing that is kept. What resets figures is done where the whitelist of the
//! four-letter words lets their word in, and what ZooKeeper does with snapshots is left to the command `warren`.

pub mod json;

use crate::words::Word;

macro_rules! commands {
    ($($variant:ident [$name:literal $(, $alias:literal)*] $meaning:literal)+) => {
        /// A command of ZooKeeper's AdminServer.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Command {
            $( #[doc = $meaning] $variant, )+
        }

        impl Command {
            /// All, ordered by name.
            pub const ALL: &[Command] = &[$(Command::$variant),+];

            /// Its names; the first is the one that is told.
            pub const fn names(self) -> &'static [&'static str] {
                match self { $( Command::$variant => &[$name $(, $alias)*], )+ }
            }
        }
    };
}

commands! {
    Configuration ["configuration", "conf", "config"] "Settings."
    ConnectionStatReset ["connection_stat_reset", "crst"] "Reset the figures of connections."
    Connections ["connections", "cons"] "Every connection."
    Dirs ["dirs"] "Sizes on disk."
    Dump ["dump"] "Sessions by expiry, and their ephemerals."
    Environment ["environment", "env", "envi"] "Version and machine."
    TraceMask ["get_trace_mask", "gtmk"] "The trace mask."
    Hash ["hash"] "Digests of the tree at each 128th transaction."
    InitialConfiguration ["initial_configuration", "icfg"] "The settings as they were at the start."
    IsReadOnly ["is_read_only", "isro"] "Does it take no writes?"
    LastSnapshot ["last_snapshot", "lsnp"] "The last checkpoint."
    Leader ["leader", "lead"] "Who leads."
    Monitor ["monitor", "mntr"] "Every metric."
    ObserverConnectionStatReset ["observer_connection_stat_reset", "orst"] "Reset the figures of observers."
    Observers ["observers", "obsr"] "Observers that this server feeds."
    Restore ["restore", "rest"] "Replace the tree."
    Ruok ["ruok"] "Is the process there?"
    ServerStats ["server_stats", "srvr"] "The server."
    SetTraceMask ["set_trace_mask", "stmk"] "Set the trace mask."
    Snapshot ["snapshot", "snap"] "Stream the tree."
    StatReset ["stat_reset", "srst"] "Reset the server's figures."
    Stats ["stats", "stat"] "The server, and its connections."
    SystemProperties ["system_properties", "sysp"] "Java's properties, of which there are none."
    VotingView ["voting_view"] "Who votes."
    WatchSummary ["watch_summary", "wchs"] "How many watches there are."
    Watches ["watches", "wchc"] "Watched paths by session."
    WatchesByPath ["watches_by_path", "wchp"] "Sessions by watched path."
    ZabState ["zabstate"] "What this server does in its ensemble."
}

/// Why snapshots are neither made nor taken here.
const FILES: &str =
    "snapshots are not served over HTTP; use `warren backup` and `warren restore` on the server's machine";

impl Command {
    /// From any of its names.
    pub fn from_name(name: &str) -> Option<Command> {
        Command::ALL.iter().copied().find(|command| command.names().contains(&name))
    }

    /// Is it answered only while clients are served?
    pub const fn needs_serving(self) -> bool {
        !matches!(
            self,
            Command::Environment
                | Command::TraceMask
                | Command::SetTraceMask
                | Command::Monitor
                | Command::SystemProperties
                | Command::ZabState
        )
    }

    /// The four-letter word that must be let in for it; `None` for a command that changes nothing.
    pub const fn guarded_by(self) -> Option<Word> {
        match self {
            Command::ConnectionStatReset | Command::ObserverConnectionStatReset => Some(Word::Crst),
            Command::StatReset => Some(Word::Srst),
            Command::SetTraceMask => Some(Word::Stmk),
            _ => None,
        }
    }
}

/// How a request was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET, or HEAD, which is a GET without its body.
    Get,
    /// POST.
    Post,
    /// Any other.
    Other,
}

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// The list of commands.
    Links,
    /// A command, under the name it was asked by, with its arguments as they stand in the path.
    Command(Command, String, String),
    /// Does the process make progress?
    Live,
    /// May clients be sent here?
    Ready,
    /// Nothing that can be answered by facts.
    Answered(Answer),
}

/// What is sent back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP's.
    pub status: u16,
    /// Of the body.
    pub content_type: &'static str,
    /// As it is sent.
    pub body: String,
}

impl Answer {
    /// A line for people and for load balancers.
    pub fn text(status: u16, line: impl std::fmt::Display) -> Answer {
        Answer { status, content_type: "text/plain; charset=utf-8", body: format!("{line}\n") }
    }

    /// JSON.
    pub fn json(status: u16, body: String) -> Answer {
        Answer { status, content_type: "application/json", body }
    }

    /// A command that has no data, because of this. ZooKeeper answers most of these with status 200.
    pub fn error(status: u16, command: &str, why: &str) -> Answer {
        Answer::json(status, json::reply(command, Some(why), json::Data::new()))
    }
}

/// What is asked; `url` is where the commands are.
pub fn route(url: &str, method: Method, path_and_query: &str) -> Asked {
    let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
    if method == Method::Other {
        return Asked::Answered(Answer::text(405, "only GET is answered"));
    }
    match path {
        "/livez" => return Asked::Live,
        "/readyz" => return Asked::Ready,
        _ => {}
    }
    let Some(name) = path.strip_prefix(url).filter(|rest| rest.is_empty() || rest.starts_with('/')) else {
        let text = format!("there is nothing at {path}; see {url}, /livez and /readyz");
        return Asked::Answered(Answer::text(404, text));
    };
    let name = name.strip_prefix('/').unwrap_or(name);
    if name.is_empty() {
        return Asked::Links;
    }
    match Command::from_name(name) {
        Some(Command::Snapshot | Command::Restore) => Asked::Answered(Answer::error(503, name, FILES)),
        Some(_) if method == Method::Post => {
            Asked::Answered(Answer::error(405, name, "this command is asked by GET"))
        }
        Some(command) => Asked::Command(command, name.to_owned(), query.to_owned()),
        // The name is a stranger's: it is told back as JSON, which keeps it harmless.
        None => Asked::Answered(Answer::error(200, name, &format!("Unknown command: {name}"))),
    }
}

/// An argument's value, as ZooKeeper's clients send them: numbers and words, which need no decoding.
pub fn argument<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name)).map(|(_, v)| v)
}

/// The list of commands, as ZooKeeper writes it.
pub fn links(url: &str) -> Answer {
    let line = |command: &Command| {
        let name = command.names()[0];
        format!("<a href=\"{url}/{name}\">{name}</a>\n<br/>\n")
    };
    let body = Command::ALL.iter().map(line).collect();
    Answer { status: 200, content_type: "text/html; charset=utf-8", body }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str) -> Asked {
        route("/commands", Method::Get, path)
    }

    #[test]
    fn commands_are_found_by_every_name_and_listed_in_order() {
        for command in Command::ALL {
            for name in command.names() {
                assert_eq!(Command::from_name(name), Some(*command));
            }
        }
        let names: Vec<&str> = Command::ALL.iter().map(|command| command.names()[0]).collect();
        assert!(names.is_sorted());
        let listed = links("/commands").body;
        assert!(
            listed.starts_with("<a href=\"/commands/configuration\">configuration</a>\n<br/>\n"),
            "{listed}"
        );
        assert_eq!(listed.lines().count(), 2 * names.len());
        // What has a four-letter word is found by it, too.
        for word in Word::ALL {
            assert!(Command::from_name(word.name()).is_some(), "{}", word.name());
        }
    }

    #[test]
    fn paths_are_taken_apart() {
        assert_eq!(get("/commands"), Asked::Links);
        assert_eq!(get("/commands/"), Asked::Links);
        assert_eq!((get("/livez"), get("/readyz?verbose")), (Asked::Live, Asked::Ready));
        let mask = Asked::Command(Command::SetTraceMask, "stmk".into(), "traceMask=7&x".into());
        assert_eq!(get("/commands/stmk?traceMask=7&x"), mask);
        assert_eq!(
            (argument("a=1&traceMask=7", "traceMask"), argument("traceMask", "traceMask")),
            (Some("7"), None)
        );
        for (path, status) in
            [("/", 404), ("/commandsx", 404), ("/metrics", 404), ("/commands/snapshot", 503)]
        {
            let Asked::Answered(answer) = get(path) else { panic!("{path}") };
            assert_eq!(answer.status, status, "{path}");
        }
        let Asked::Answered(unknown) = get("/commands/\"<b>") else { panic!() };
        assert_eq!(unknown.status, 200);
        let told: serde_json::Value = serde_json::from_str(&unknown.body).unwrap();
        assert_eq!((&told["command"], &told["error"]), (&"\"<b>".into(), &"Unknown command: \"<b>".into()));
    }

    #[test]
    fn nothing_is_changed_by_whoever_asks() {
        for (method, path, status) in [
            (Method::Post, "/commands/restore", 503),
            (Method::Get, "/commands/rest", 503),
            (Method::Post, "/commands/ruok", 405),
            (Method::Other, "/commands", 405),
        ] {
            let Asked::Answered(answer) = route("/commands", method, path) else { panic!("{path}") };
            assert_eq!(answer.status, status, "{path}");
        }
        let guarded: Vec<&str> =
            Command::ALL.iter().filter(|c| c.guarded_by().is_some()).map(|c| c.names()[0]).collect();
        assert_eq!(
            guarded.join(" "),
            "connection_stat_reset observer_connection_stat_reset set_trace_mask stat_reset"
        );
    }
}
