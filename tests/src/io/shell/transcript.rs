//! The same commands on Warren and on ZooKeeper, and what is said compared.

use super::server::Server;
use super::{Outcome, Stage};
use std::fmt::Write as _;

/// One at a time, by their own connections.
const ONCE: &[&str] = &[
    "ls /",
    "create /t data",
    "create /t again",
    "create /missing/child x",
    "create /t/a",
    "create /t/b two-words",
    "create -s /t/s- x",
    "create -s /t/s- x",
    "create -c /t/container",
    "create -t 600000 /t/ttl x",
    "create -s -t 600000 /t/ttl- x",
    "create -p /t/deep/er/est x",
    "ls /t",
    "ls -s /t",
    "ls2 /t",
    "ls -R /t",
    "get /t",
    "get -s /t",
    "get /t/a",
    "get -b /t",
    "get -x /t",
    "get /none",
    "set /t new",
    "set -s /t newer",
    "set -v 7 /t x",
    "set /t older 2",
    "set -b /t AP8K",
    "get -b /t",
    "-o json get -s /t",
    "stat /t",
    "stat /none",
    "-o json ls -s /t",
    "delete /t",
    "delete -v 9 /t/a",
    "delete /t/a",
    "delete /t/a",
    "getAcl /t",
    "getAcl -s /t",
    "setAcl /t world:anyone:cdrwa,ip:127.0.0.1:r",
    "setAcl -s -v 1 /t world:anyone:cdrwa",
    "setAcl -v 9 /t world:anyone:r",
    "setAcl /t nonsense:x:r",
    "setAcl -R /t/deep world:anyone:cdra",
    "getAcl /t/deep/er/est",
    "create /t/secret x digest:alice:jyWZvj+qvEmOlBUD5hEsKLRGgZw=:cdrwa",
    "get /t/secret",
    "whoami",
    "sync /t",
    "getAllChildrenNumber /t",
    "getEphemerals /",
    "config",
    "config -c",
    "listquota /t/deep",
    "setquota -n 2 /t/deep",
    "setquota -N 3 /t/deep",
    "listquota /t/deep",
    "setquota -n 2 /t/deep/er",
    "create /t/deep/one",
    "delquota -N /t/deep",
    "create /t/deep/one",
    "delquota /t/deep",
    "delquota /t/deep",
    "removewatches /t",
    "tree /t",
    "tree -L 1 -s /t",
    "find /t -n s-*",
    "find /t -c new",
    "du /t",
    "cp /t/deep /t/copy",
    "cp -r /t/deep /t/copy",
    "cp -r --overwrite /t/deep /t/copy",
    "cp -r --open-acl /t/secret /t/copy2",
    "ls -R /t/copy",
    "deleteall /t/deep -b 2",
    "rmr /t/copy",
    "reconfig -remove 7",
    "deleteall /t",
    "ls /t",
];

/// In one session, by a pipe.
const PIPED: &str = r#"create -e /p-ephemeral "two words"
create /p x
create /p-ephemeral/child
getEphemerals
getEphemerals /p-
get -w /p
set /p changed
stat -w /p/later
create /p/later
ls -w /p
delete /p/later
addWatch -m PERSISTENT /p
set /p again
removewatches /p
removewatches /p
addauth digest alice:secret
create /p/own x auth::cdrwa
getAcl /p/own
whoami
addauth digest super:secret
delete /p/own
printwatches
printwatches off
set /p "{\"a\": 1}"
set /p {"b":2}
get /p
get "/p
history
redo 2
deleteall /p
close
ls /
connect
getEphemerals
quit
"#;

pub(super) fn compare(stage: &mut Stage<'_>) -> Outcome<()> {
    let mut said = Vec::new();
    for kind in ["warren", "zookeeper"] {
        let folder = stage.folder.join(format!("compared-{kind}"));
        let server = Server::start(kind, stage.plan, &folder, &mut stage.dice)?;
        said.push(transcript(stage, &server.at())?);
    }
    let (ours, theirs) = (&said[0], &said[1]);
    for (n, (ours, theirs)) in ours.lines().zip(theirs.lines()).enumerate() {
        if ours != theirs {
            return Err(format!("line {n} differs\nWarren:    {ours}\nZooKeeper: {theirs}").into());
        }
    }
    if ours.lines().count() != theirs.lines().count() {
        return Err(format!("one says more\nWarren:\n{ours}\nZooKeeper:\n{theirs}").into());
    }
    let commands = ONCE.len() + PIPED.lines().count();
    println!("shell: {commands} commands say the same {} lines on both", ours.lines().count());
    Ok(())
}

fn transcript(stage: &Stage<'_>, at: &str) -> Outcome<String> {
    let mut all = String::new();
    for line in ONCE {
        let words: Vec<&str> = line.split(' ').collect();
        let said = stage.once(at, &words)?;
        writeln!(all, "$ {line}\n{}{}status {}", said.out, said.err, said.status)?;
    }
    let said = stage.piped(at, &[], PIPED)?;
    // Events, and connections that are told, come in their own time.
    let in_turn = |line: &&str| {
        !["WATCHER::", "WatchedEvent", "connected to"].iter().any(|begin| line.starts_with(begin))
    };
    for text in [&said.out, &said.err] {
        let (lines, mut others): (Vec<&str>, Vec<&str>) = text.lines().partition(in_turn);
        others.sort_unstable();
        writeln!(all, "{}\n{}", lines.join("\n"), others.join("\n"))?;
    }
    writeln!(all, "status {}", said.status)?;
    Ok(plain(&all, at))
}

/// Without what differs between any two runs: numbers of transactions and sessions, times, the port.
fn plain(text: &str, at: &str) -> String {
    let mut all = String::new();
    for line in text.replace(at, "SERVER").lines() {
        let line = match line.split_once(" = ") {
            Some((name @ ("ctime" | "mtime"), _)) => format!("{name} = DATE"),
            _ => numbers(line),
        };
        all.push_str(&line);
        all.push('\n');
    }
    all
}

/// Hexadecimal numbers, zxids of events and milliseconds as letters.
fn numbers(line: &str) -> String {
    let mut out = line.to_owned();
    for mark in ["0x", "zxid: ", "time_ms\":"] {
        let mut done = 0;
        while let Some(at) = out[done..].find(mark).map(|at| done + at + mark.len()) {
            let digits = out[at..].chars().take_while(char::is_ascii_hexdigit).count();
            // 0x0 is no session, which is to be told from one.
            if &out[at..at + digits] != "0" {
                out.replace_range(at..at + digits, "N");
            }
            done = at;
        }
    }
    out
}
