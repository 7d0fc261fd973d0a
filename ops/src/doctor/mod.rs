//! `warren doctor`: what was found on a host and at its server is judged here, and each finding says what to do. Nothing is
//! looked at here; that is `io/doctor.rs`.

mod addresses;
mod examine;

pub use addresses::{local_addresses, world_address};
pub use examine::examine;

use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;
use warren_server::admin::Status;
use warren_server::config::Config;

/// How grave a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Gravity {
    /// As it should be.
    Ok,
    /// To be known, and not wrong.
    Note,
    /// It will become one that hurts.
    Warn,
    /// It hurts now.
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, in a word.
    pub check: &'static str,
    /// How it is.
    pub gravity: Gravity,
    /// What was found.
    pub found: String,
    /// What to do about it; empty where that is nothing, or where it was said already.
    #[serde(rename = "do")]
    pub todo: String,
}

/// All that was looked at. What could not be looked at is `None`, or empty.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Where the server's data are, and where its settings.
    pub data_dir: String,
    /// The server's own word, or why there is none.
    pub status: Option<Result<Box<Status>, String>>,
    /// The settings in effect; of the file, where no server tells them.
    pub settings: Option<Config>,
    /// The file's settings, with its warnings, or why they are refused; `None` without a file.
    pub file: Option<Result<(Config, Vec<String>), String>>,
    /// Free and all bytes of the data folder's file system.
    pub space: Option<(u64, u64)>,
    /// The kind of that file system, as statfs(2) tells it.
    pub file_system: Option<u64>,
    /// How long small writes with a sync took there, sorted; or why none could be made.
    pub syncs: Option<Result<Vec<Duration>, String>>,
    /// Is the clock kept by a time server?
    pub clock_synchronized: Option<bool>,
    /// By how much each other server's clock is ahead of this one's, ms; with how far that may be off.
    pub clocks: BTreeMap<u8, Ahead>,
    /// All memory of the host, bytes.
    pub memory_bytes: Option<u64>,
    /// How long each file of certificates is still valid, s, by its path; or why it cannot be read.
    pub certificates: BTreeMap<String, Result<i64, String>>,
    /// Those whom anybody on this host may read, though a key is in them.
    pub open_keys: Vec<String>,
    /// The versions of all servers that answered at the address for clients; an error for those that did not.
    pub versions: BTreeMap<u8, Result<String, String>>,
    /// This host's own addresses.
    pub addresses: Vec<IpAddr>,
}

/// Another clock against this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// By so much, ms.
    pub ms: i64,
    /// Give or take, ms.
    pub within_ms: i64,
}

/// The gravest of them.
pub fn worst(findings: &[Finding]) -> Gravity {
    findings.iter().map(|finding| finding.gravity).max().unwrap_or(Gravity::Ok)
}

/// For people: what is grave comes last, where the eye is.
pub fn text(findings: &[Finding]) -> String {
    let mut sorted: Vec<&Finding> = findings.iter().collect();
    sorted.sort_by_key(|finding| finding.gravity);
    let mut out = String::new();
    for Finding { check, gravity, found, todo } in sorted {
        let gravity = match gravity {
            Gravity::Ok => "ok",
            Gravity::Note => "note",
            Gravity::Warn => "warn",
            Gravity::Bad => "BAD",
        };
        let _ = writeln!(out, "{gravity:<5} {check:<13} {found}");
        if !todo.is_empty() {
            let _ = writeln!(out, "{:<19} -> {todo}", "");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_comes_last_and_says_what_to_do() {
        let finding = |check, gravity, todo: &str| Finding {
            check,
            gravity,
            found: "it is so".into(),
            todo: todo.into(),
        };
        let all = [finding("disk", Gravity::Bad, "make room"), finding("clock", Gravity::Ok, "")];
        assert_eq!(worst(&all), Gravity::Bad);
        assert_eq!(worst(&[]), Gravity::Ok);
        let text = text(&all);
        assert_eq!(
            text,
            "ok    clock         it is so\nBAD   disk          it is so\n                    -> make room\n"
        );
    }
}
