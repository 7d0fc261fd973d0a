//! Commands on a server that is a map.

use super::super::command::{Line, LineCommand};
use super::super::words;
use super::*;
use std::collections::{BTreeMap, HashMap};
use warren_storage::path::{name_of, parent_of};
use warren_transport::reply::OpResult;

/// Data, ACL and Stat.
type Znode = (Option<Vec<u8>>, Vec<Acl>, Stat);

#[derive(Default)]
struct Fake {
    znodes: BTreeMap<String, Znode>,
    replies: HashMap<Ticket, Reply>,
    tickets: i64,
    /// So many waits end with a lost connection, the reply with it.
    losses: usize,
    /// Somebody else does this before the next multi.
    interference: Vec<(&'static str, &'static str)>,
}

impl Fake {
    fn with(paths: &[&str]) -> Fake {
        let mut fake = Fake::default();
        fake.znodes.insert("/".into(), (None, Acl::open(), Stat::default()));
        for path in paths {
            fake.create(path, Some(name_of(path).as_bytes()), &Acl::open()).unwrap();
        }
        fake
    }

    fn stat(&self, path: &str) -> Stat {
        let (data, _, stat) = &self.znodes[path];
        let children = self.children(path).len() as i32;
        let data_length = data.as_ref().map_or(0, Vec::len) as i32;
        Stat { num_children: children, data_length, ..*stat }
    }

    fn children(&self, path: &str) -> Vec<&str> {
        let below = self.znodes.keys().filter(|other| parent_of(other) == Some(path));
        below.map(|child| name_of(child)).collect()
    }

    fn create(&mut self, path: &str, data: Option<&[u8]>, acl: &[Acl]) -> Result<(), Code> {
        if self.znodes.contains_key(path) {
            return Err(Code::NodeExists);
        }
        if !parent_of(path).is_some_and(|parent| self.znodes.contains_key(parent)) {
            return Err(Code::NoNode);
        }
        let made = (data.map(<[u8]>::to_vec), acl.to_vec(), Stat::default());
        self.znodes.insert(path.to_owned(), made);
        Ok(())
    }

    fn delete(&mut self, path: &str) -> Result<(), Code> {
        match self.children(path).is_empty() {
            false => Err(Code::NotEmpty),
            true => self.znodes.remove(path).map(|_| ()).ok_or(Code::NoNode),
        }
    }

    fn carry_out<'a>(&mut self, op: &Op<'a>) -> Result<OpResult<'a>, Code> {
        match op {
            Op::Create { path, data, acl, .. } => {
                let acl: Vec<Acl> = acl.iter().map(|line| line.to_acl()).collect();
                self.create(path, *data, &acl)?;
                Ok(OpResult::Create2 { path, stat: self.stat(path) })
            }
            Op::Delete { path, .. } => self.delete(path).map(|()| OpResult::Delete),
            Op::SetData { path, data, version } => {
                let stat = self.znodes.get(*path).ok_or(Code::NoNode)?.2;
                if *version != -1 && *version != stat.version {
                    return Err(Code::BadVersion);
                }
                let znode = self.znodes.get_mut(*path).expect("it is there");
                znode.0 = data.map(<[u8]>::to_vec);
                znode.2.version += 1;
                Ok(OpResult::SetData { stat: self.stat(path) })
            }
            Op::SetAcl { path, acl, .. } => {
                let znode = self.znodes.get_mut(*path).ok_or(Code::NoNode)?;
                znode.1 = acl.iter().map(|line| line.to_acl()).collect();
                Ok(OpResult::SetData { stat: self.stat(path) })
            }
            Op::Check { .. } => unreachable!("the shell does not ask for it"),
        }
    }

    fn answer(&mut self, request: &Request<'_>) -> Result<Vec<u8>, Code> {
        let mut out = Vec::new();
        let header = ReplyHeader::ok(1, 1);
        let there = |fake: &Fake, path: &str| {
            if fake.znodes.contains_key(path) { Ok(()) } else { Err(Code::NoNode) }
        };
        match request {
            Request::Exists { path, .. } => {
                there(self, path)?;
                Response::Stat(self.stat(path)).encode(header, &mut out);
            }
            Request::GetData { path, .. } => {
                there(self, path)?;
                Response::Data(self.znodes[*path].0.as_deref(), self.stat(path)).encode(header, &mut out);
            }
            Request::GetChildren2 { path, .. } => {
                there(self, path)?;
                let names = self.children(path);
                Response::ChildrenAndStat(names, self.stat(path)).encode(header, &mut out);
            }
            Request::GetAcl { path } => {
                there(self, path)?;
                let acl = self.znodes[*path].1.iter().map(Acl::as_ref).collect();
                Response::Acl(acl, self.stat(path)).encode(header, &mut out);
            }
            Request::Change(change) => match self.carry_out(&change.op)? {
                OpResult::Create2 { path, stat } => {
                    Response::PathAndStat(path, stat).encode(header, &mut out);
                }
                OpResult::SetData { stat } => Response::Stat(stat).encode(header, &mut out),
                _ => Response::Empty.encode(header, &mut out),
            },
            Request::Multi(changes) => {
                for (what, path) in std::mem::take(&mut self.interference) {
                    let _ = if what == "create" { self.create(path, None, &[]) } else { self.delete(path) };
                }
                let before = self.znodes.clone();
                let done: Result<Vec<OpResult<'_>>, (usize, Code)> = changes
                    .iter()
                    .enumerate()
                    .map(|(n, change)| self.carry_out(&change.op).map_err(|code| (n, code)))
                    .collect();
                let results = done.unwrap_or_else(|(failed, code)| {
                    self.znodes = before;
                    let err = |n: usize| match n.cmp(&failed) {
                        std::cmp::Ordering::Less => 0,
                        std::cmp::Ordering::Equal => code.wire(),
                        std::cmp::Ordering::Greater => Code::RuntimeInconsistency.wire(),
                    };
                    (0..changes.len()).map(|n| OpResult::Error { err: err(n) }).collect()
                });
                Response::Multi(results).encode(header, &mut out);
            }
            other => panic!("not asked here: {other:?}"),
        }
        Ok(out)
    }
}

impl Server for Fake {
    fn submit(&mut self, request: &Request<'_>, _: Option<(Kind, &str)>) -> Result<Ticket, Failure> {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let packet = self.answer(request);
        let (err, body) = match packet {
            Ok(packet) => (0, packet[4 + ReplyHeader::BYTES..].to_vec()),
            Err(code) => (code.wire(), Vec::new()),
        };
        let header = ReplyHeader { xid: 1, zxid: 1, err };
        self.replies.insert(ticket, Reply { opcode: request.opcode(), header, body: body.into() });
        Ok(ticket)
    }

    fn wait(&mut self, ticket: Ticket) -> Result<Reply, Failure> {
        if self.losses > 0 {
            self.losses -= 1;
            self.replies.clear();
        }
        self.replies.remove(&ticket).ok_or(Failure::Lost)
    }

    fn authenticate(&mut self, _: &str, _: &[u8]) -> Result<(), Failure> {
        Ok(())
    }

    fn unwatch(&mut self, _: &str, _: WatcherType, _: bool) -> Result<Vec<&'static str>, Failure> {
        Ok(vec!["DataWatchRemoved"])
    }
}

#[derive(Default)]
struct Heard {
    text: String,
    notes: Vec<String>,
    /// It is interrupted after so many looks.
    patience: std::cell::Cell<Option<u32>>,
}

impl Listener for Heard {
    fn answer(&mut self, answer: Answer) {
        self.text.push_str(&String::from_utf8(answer.text(false)).unwrap());
        assert!(answer.json().is_object());
    }
    fn note(&mut self, text: &str) {
        self.notes.push(text.to_owned());
    }
    fn progress(&mut self, _: &str, _: usize, _: Option<usize>) {}
    fn is_interrupted(&self) -> bool {
        match self.patience.get() {
            Some(0) => true,
            Some(left) => {
                self.patience.set(Some(left - 1));
                false
            }
            None => false,
        }
    }
    fn file(&mut self, path: &Path, _: usize) -> Result<Vec<u8>, Failure> {
        Ok(format!("of {}", path.display()).into_bytes())
    }
}

fn on(fake: &mut Fake, root: &str, heard: &mut Heard, line: &str) -> Result<(), Failure> {
    let root = format!("h{root}").parse::<super::super::address::Servers>().unwrap().root;
    let words = words::split(line).unwrap();
    let LineCommand::Shell(command) = Line::parse_words(&words).unwrap().command else { panic!("{line}") };
    Shell { server: fake, listener: heard, root: &root }.run(command)
}

/// What it says, and why it fails.
fn says(fake: &mut Fake, line: &str) -> String {
    let mut heard = Heard::default();
    match on(fake, "", &mut heard, line) {
        Ok(()) => heard.text,
        Err(failure) => format!("{}! {failure}", heard.text),
    }
}

fn hints_of(fake: &mut Fake, failure: &Failure) -> String {
    let (mut heard, root) = (Heard::default(), Root::default());
    hints(&mut Shell { server: fake, listener: &mut heard, root: &root }, failure).join("\n")
}

#[test]
fn a_session_as_zkcli_shows_it() {
    let mut fake = Fake::with(&[]);
    for (line, said) in [
        ("create /a data", "Created /a\n"),
        ("create /a data", "! Node already exists: /a"),
        ("create /x/y data", "! Node does not exist: /x/y"),
        ("create -p /x/y/z", "Created /x/y/z\n"),
        ("get /x/y", "null\n"),
        ("get /a", "data\n"),
        ("set /a \"two words\"", ""),
        ("get /a", "two words\n"),
        ("set -v 5 /a x", "! version No is not valid : /a"),
        ("set -b /a AP8=", ""),
        ("get -b /a", "AP8=\n"),
        ("set -f here /a", ""),
        ("get /a", "of here\n"),
        ("set -b /a %", "! the data are not base64: Invalid symbol 37, offset 0."),
        ("create -f there /f digest:a:b:cdrwa", "Created /f\n"),
        ("get /f", "of there\n"),
        ("getAcl /f", "'digest,'a:b\n: cdrwa\n"),
        ("setAcl /f world:anyone:r", ""),
        ("getAcl /f", "'world,'anyone\n: r\n"),
        (
            "setAcl /f nonsense",
            "! \"nonsense\" is not of the form SCHEME:ID:PERMS, such as world:anyone:r or digest:USER:HASH:cdrwa",
        ),
        ("ls /", "[a, f, x]\n"),
        ("ls -R /x", "/x\n/x/y\n/x/y/z\n"),
        ("delete /x", "! Node not empty: /x"),
        ("stat /nothing", "! Node does not exist: /nothing"),
        ("deleteall /x", ""),
        ("ls /", "[a, f]\n"),
        ("deleteall /x", "! Node does not exist: /x"),
        ("deleteall /", "! the root stays; name what is below it"),
        ("create /p/", "! a path must not end with /, but for the parent of a sequential one (-s)"),
        ("removewatches /a", "WATCHER::\nWatchedEvent state:SyncConnected type:DataWatchRemoved path:/a\n"),
    ] {
        assert_eq!(says(&mut fake, line), said, "{line}");
    }
}

#[test]
fn a_root_stands_before_what_is_asked_and_not_before_what_is_said() {
    let mut fake = Fake::with(&["/r", "/r/a", "/r/a/b", "/other"]);
    let mut heard = Heard::default();
    for line in ["ls /", "create /c", "ls -R /a", "cp -r /a /d", "deleteall /a"] {
        on(&mut fake, "/r", &mut heard, line).unwrap();
    }
    assert_eq!(heard.text, "[a]\nCreated /c\n/a\n/a/b\nCopied 2 znodes to /d\n");
    assert_eq!(fake.children("/r"), ["c", "d"]);
    assert_eq!(fake.znodes["/r/d/b"].0.as_deref(), Some(b"b".as_slice()));
}

#[test]
fn walks_are_shown() {
    let mut fake = Fake::with(&["/a", "/a/b", "/a/b/c", "/a/d", "/e"]);
    assert_eq!(says(&mut fake, "tree"), "/\n├── a\n│   ├── b\n│   │   └── c\n│   └── d\n└── e\n");
    assert_eq!(
        says(&mut fake, "tree -L 1 -s /a"),
        "/a (1 bytes)\n├── b (1 bytes) … 1 children\n└── d (1 bytes)\n"
    );
    assert_eq!(says(&mut fake, "ls -R /"), "/\n/a\n/e\n/a/b\n/a/d\n/a/b/c\n");
    assert_eq!(says(&mut fake, "find / -n ?"), "/a\n/e\n/a/b\n/a/d\n/a/b/c\n");
    assert_eq!(says(&mut fake, "find /a --min-children 1"), "/a\n/a/b\n");
    assert_eq!(says(&mut fake, "find / -c d"), "/a/d\n");
    let du = says(&mut fake, "du -n 1");
    let rows: Vec<Vec<&str>> = du.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[1], ["4", "4", "/a"]);
    assert_eq!(rows[2], ["1", "1", "(1", "more)"]);
    assert_eq!(rows[3], ["5", "6", "/", "in", "all"]);
}

#[test]
fn copies_keep_what_there_was_and_leave_ephemerals_out() {
    let mut fake = Fake::with(&["/a", "/a/b", "/a/e"]);
    fake.znodes.get_mut("/a/e").unwrap().2.ephemeral_owner = 7;
    fake.znodes.get_mut("/a/b").unwrap().1 = Acl::read_only();
    let mut heard = Heard::default();
    on(&mut fake, "", &mut heard, "cp /a /c").unwrap();
    assert_eq!(
        (heard.notes[0].as_str(), fake.children("/c").len()),
        ("2 children are not copied; cp -r copies them, too", 0)
    );
    assert_eq!(says(&mut fake, "cp -r /a /c"), "! Node already exists: /c");
    on(&mut fake, "", &mut heard, "cp -r --overwrite /a /c").unwrap();
    assert_eq!(heard.notes.last().unwrap(), "1 ephemerals were left out");
    assert_eq!((fake.children("/c"), &fake.znodes["/c/b"].1), (vec!["b"], &Acl::read_only()));
    assert!(says(&mut fake, "cp -r /a /a/x").contains("into itself"));
    assert!(says(&mut fake, "cp -r / /x").contains("into itself"));
    // Shown without its hash.
    fake.znodes.get_mut("/a/b").unwrap().1 = vec![Acl::new(31, "digest", "bob:x")];
    assert!(says(&mut fake, "cp -r /a /f").contains("without its hashes"));
    assert!(!fake.znodes.contains_key("/f/b"));
    assert_eq!(says(&mut fake, "cp -r --open-acl --overwrite /a /f"), "Copied 2 znodes to /f\n");
}

#[test]
fn what_others_do_meanwhile_is_gone_through_once_more() {
    for interference in [("create", "/a/new"), ("delete", "/a/b/c")] {
        let mut fake = Fake::with(&["/a", "/a/b", "/a/b/c"]);
        fake.interference = vec![interference];
        assert_eq!(says(&mut fake, "deleteall /a"), "", "{interference:?}");
        assert!(!fake.znodes.contains_key("/a"));
    }
}

#[test]
fn batches_are_as_large_as_was_said() {
    let paths: Vec<String> = (0..50).map(|n| format!("/a/n{n}")).collect();
    let paths: Vec<&str> = std::iter::once("/a").chain(paths.iter().map(String::as_str)).collect();
    let mut fake = Fake::with(&paths);
    let asked = fake.tickets;
    assert_eq!(says(&mut fake, "deleteall -b 7 /a"), "");
    // A listing for each, and a transaction for seven.
    assert_eq!(fake.tickets - asked, 51 + 8);
}

#[test]
fn a_lost_connection_costs_reads_nothing_and_leaves_writes_open() {
    let mut fake = Fake::with(&["/a", "/a/b"]);
    fake.losses = 2;
    assert_eq!(says(&mut fake, "ls /a"), "[b]\n");
    fake.losses = 1;
    assert_eq!(says(&mut fake, "ls -R /"), "/\n/a\n/a/b\n");
    fake.losses = 3;
    assert_eq!(says(&mut fake, "get /a"), "! the connection was lost before the answer came");
    fake.losses = 1;
    assert_eq!(says(&mut fake, "set /a x"), "! the connection was lost before the answer came");
    assert!(hints_of(&mut fake, &Failure::Lost).contains("look before"));
}

#[test]
fn long_work_is_interrupted() {
    let mut fake = Fake::with(&["/a", "/a/b"]);
    for line in ["ls -R /", "deleteall /a", "cp -r /a /c", "setAcl -R /a world:anyone:r", "find /"] {
        let mut heard = Heard::default();
        heard.patience.set(Some(0));
        assert_eq!(on(&mut fake, "", &mut heard, line), Err(Failure::Interrupted), "{line}");
    }
    assert_eq!(fake.znodes.len(), 3);
}

#[test]
fn quotas_are_kept_as_zookeeper_keeps_them() {
    let mut fake = Fake::with(&["/zookeeper", "/zookeeper/quota", "/a", "/a/b"]);
    let absolute = "absolute path is /zookeeper/quota/a/zookeeper_limits";
    assert_eq!(says(&mut fake, "listquota /a"), format!("! {absolute}\nquota for /a does not exist."));
    assert_eq!(says(&mut fake, "setquota -n 5 /a"), "");
    assert_eq!(says(&mut fake, "setquota -B 100 /a"), "");
    assert_eq!(
        says(&mut fake, "listquota /a"),
        format!(
            "{absolute}\nOutput quota for /a count=5,bytes=-1=;byteHardLimit=100;countHardLimit=-1\n\
             Output stat for /a count=0,bytes=0\n"
        )
    );
    assert_eq!(says(&mut fake, "setquota -n 5 /a/b"), "! /a/b has a parent /a which has a quota");
    assert_eq!(says(&mut fake, "setquota -n 5 /b"), "! Node does not exist: /b");
    assert!(says(&mut fake, "setquota -n 5 /zookeeper/quota").contains("count none there"));
    assert_eq!(says(&mut fake, "delquota -B /a"), "");
    assert!(says(&mut fake, "listquota /a").contains("count=5,bytes=-1=;byteHardLimit=-1"));
    assert_eq!(says(&mut fake, "delquota /a"), "");
    assert_eq!(fake.children("/zookeeper/quota"), [] as [&str; 0]);
    assert_eq!(says(&mut fake, "delquota /a"), "! quota for /a does not exist.");
    assert_eq!(says(&mut fake, "setquota -n 5 /a/b"), "");
    assert_eq!(says(&mut fake, "setquota -n 5 /a"), "! /a has a child /a/b which has a quota");
}

#[test]
fn failures_say_what_can_be_done() {
    let mut fake = Fake::with(&["/a", "/a/b"]);
    for (code, path, hint) in [
        (Code::NoNode, "/a/x/y", "the nearest that exists is /a;"),
        (Code::NoNode, "/a/x", "its parent exists: ls /a"),
        (Code::NotEmpty, "/a", "it has 1 children; deleteall /a"),
        (Code::NoAuth, "/a/b", "the ACL of /a"),
        (Code::BadVersion, "/a", "it is in version 0"),
        (Code::NodeExists, "/a b", "set \"/a b\" DATA"),
    ] {
        let hints = hints_of(&mut fake, &Failure::refused(code, path));
        assert!(hints.contains(hint), "{code:?}: {hints}");
    }
    assert!(hints_of(&mut fake, &Failure::Unconnected(String::new())).contains("warren -s HOST:PORT"));
}
