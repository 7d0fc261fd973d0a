//! `warren log`: who asked for which change, and when, from the entries of the log.
//!
//! The log holds requests as they were asked, refused ones too; what became of them was decided by the tree as it was then, and is
//! not written down. A running server remembers it of those that it applied last ([`Outcomes`]), with their zxids. Data are shown only when asked for, passwords and digests never.

pub mod flags;

use crate::times;
use serde::Serialize;
use std::fmt::Write as _;
use warren_server::records::Outcomes;
use warren_storage::log::{LogRecord, RecordKind};
use warren_storage::{Change, Command, CreateMode, Decided, Entry, IdRef, Logged, Op, SessionId};

/// Of a znode's data, as much is shown at most when it is asked for, bytes.
const DATA_SHOWN_BYTES: usize = 200;
/// Operations of a multi that are shown in a line for people, at most.
const OPS_SHOWN: usize = 10;

/// Which requests are wanted.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// On this znode, or on one below it.
    pub path: Option<String>,
    /// Of this session.
    pub session: Option<SessionId>,
    /// At this time or later, ms since 1970.
    pub since_ms: Option<i64>,
    /// Before this time.
    pub until_ms: Option<i64>,
    /// Show data.
    pub data: bool,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Request {
    /// The leader's clock, as text; none for what takes no time.
    pub time: Option<String>,
    /// Of the log entry.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// As `0x…`, where it is known that it took one and which.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zxid: Option<String>,
    /// What became of it, where that is known: `done`, or why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// The server at which it was asked; 0 for none.
    pub server: u8,
    /// The session that asked, as `0x…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// As whom it was authenticated: scheme and name, without digests.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub who: Vec<String>,
    /// What was asked, all or none where it is more than one.
    pub ops: Vec<Asked>,
    /// Is it known to be committed? What is not may still vanish with its leader.
    pub committed: bool,
}

/// One thing that was asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Asked {
    /// Such as `setData`.
    pub op: &'static str,
    /// On which znode.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// More of it, in words.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub what: String,
    /// Length of the data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_bytes: Option<usize>,
    /// The data's beginning, when it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
}

impl Filter {
    fn path_matches(&self, path: Option<&str>) -> bool {
        let Some(wanted) = &self.path else { return true };
        let Some(path) = path else { return false };
        let wanted = wanted.strip_suffix('/').unwrap_or(wanted);
        path.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    fn time_matches(&self, time_ms: Option<i64>) -> bool {
        match (time_ms, self.since_ms, self.until_ms) {
            (_, None, None) => true,
            (None, ..) => false,
            (Some(time), since, until) => {
                since.is_none_or(|since| time >= since) && until.is_none_or(|until| time < until)
            }
        }
    }

    fn keeps(&self, request: &Request, session: Option<SessionId>, time_ms: Option<i64>) -> bool {
        self.time_matches(time_ms)
            && self.session.is_none_or(|wanted| session == Some(wanted))
            && request.ops.iter().any(|asked| self.path_matches(asked.path.as_deref()))
    }
}

/// Tell `each` the requests of a record that are wanted. An error says what does not decode.
pub fn requests(
    record: &LogRecord,
    committed: bool,
    outcomes: Option<&Outcomes>,
    filter: &Filter,
    each: &mut dyn FnMut(Request),
) -> Result<(), String> {
    let fault = |e: &dyn std::fmt::Display| format!("entry {} does not decode: {e}", record.index);
    // A change of raft's configuration has its request inside, which only the servers take out.
    let asked = |op, what: String| vec![Asked { op, what, ..Asked::default() }];
    let mut tell =
        |time_ms: Option<i64>, server, session: Option<SessionId>, who, ops, ended: Option<Ended>| {
            let (zxid, outcome) = ended.map_or((None, None), |ended| (ended.zxid, Some(ended.outcome)));
            let request = Request {
                zxid: zxid.map(|zxid| format!("{zxid:#x}")),
                outcome,
                time: time_ms.map(times::text),
                index: record.index,
                term: record.term,
                server,
                session: session.map(|id| format!("{id:#x}")),
                who,
                ops,
                committed,
            };
            if filter.keeps(&request, session, time_ms) {
                each(request);
            }
        };
    if record.kind != RecordKind::Normal {
        tell(None, 0, None, Vec::new(), asked("reconfig", "who votes changes".to_owned()), None);
        return Ok(());
    }
    if record.data.is_empty() {
        return Ok(());
    }
    match Entry::decode(&record.data).map_err(|e| fault(&e))? {
        // The servers compare their trees there.
        Entry::Mark => {}
        Entry::NewEpoch { time_ms } => {
            tell(Some(time_ms), 0, None, Vec::new(), asked("newEpoch", "a leader begins".to_owned()), None);
        }
        Entry::Introduce { server, disk, store_id } => {
            let what = format!("disk {disk}, store {store_id:016x}");
            tell(None, server, None, Vec::new(), asked("introduce", what), None);
        }
        Entry::Found { time_ms, table } => {
            let what = format!("{} servers", table.members.servers.len());
            tell(Some(time_ms), 0, None, Vec::new(), asked("found", what), None);
        }
        Entry::ForceQuorum { time_ms, .. } => {
            let what = "one server is the only voter".to_owned();
            tell(Some(time_ms), 0, None, Vec::new(), asked("forceQuorum", what), None);
        }
        Entry::Batch { origin, time_ms, commands, .. } => {
            let mut ended = outcomes.map(each_ended);
            for command in commands {
                let logged = Logged::decode(command).map_err(|e| fault(&e))?;
                let (session, ops) = command_of(&logged, filter.data);
                let who = logged.ids.iter().map(name_of).collect();
                let ended = ended.as_mut().and_then(Iterator::next);
                tell(Some(time_ms), origin.server, session, who, ops, ended);
            }
        }
    }
    Ok(())
}

/// How one request of an entry ended.
struct Ended {
    zxid: Option<i64>,
    outcome: String,
}

/// For each request of an entry in turn.
fn each_ended(outcomes: &Outcomes) -> impl Iterator<Item = Ended> {
    let mut zxid = outcomes.before;
    let mut others = outcomes.others.iter().peekable();
    (0..).map(move |n: u32| {
        let other = others.next_if(|other| other.command == n);
        let took = other.is_none_or(|other| other.took_zxid);
        zxid += i64::from(took);
        let outcome = other.map_or("done".to_owned(), |other| other.what.clone());
        Ended { zxid: took.then_some(zxid), outcome }
    })
}

/// Of what a digest is made is nobody's business, nor is the digest.
fn name_of(id: &IdRef<'_>) -> String {
    let name = match id.scheme {
        "digest" | "super" => id.id.split(':').next().unwrap_or_default(),
        _ => id.id,
    };
    format!("{}:{name}", id.scheme)
}

fn command_of(logged: &Logged<'_>, data: bool) -> (Option<SessionId>, Vec<Asked>) {
    let tagged = logged.tag.map(|tag| tag.session);
    let one = |op, path: Option<&str>, what: String| {
        vec![Asked { op, path: path.map(str::to_owned), what, ..Asked::default() }]
    };
    match &logged.command {
        Command::Single(op) => (tagged, vec![op_of(op, data)]),
        Command::Multi(ops) => (tagged, ops.iter().map(|op| op_of(op, data)).collect()),
        Command::CreateSession { session, timeout_ms, owner, .. } => (
            Some(*session),
            one("createSession", None, format!("timeout {timeout_ms} ms, at server {owner}")),
        ),
        Command::MoveSession { session, owner, .. } => {
            (Some(*session), one("moveSession", None, format!("to server {owner}")))
        }
        Command::CloseSession => (tagged, one("closeSession", None, "its ephemerals go with it".to_owned())),
        Command::Expire { session, .. } => {
            (Some(*session), one("expireSession", None, "its ephemerals go with it".to_owned()))
        }
        Command::Sweep { path, kind, .. } => {
            (None, one("sweep", Some(path), format!("{kind:?}").to_lowercase()))
        }
        Command::Reconfigure { change, decided, .. } => {
            let end = match decided {
                Some(Decided::Refused(code)) => format!(", refused: {code}"),
                _ => String::new(),
            };
            (tagged, one("reconfig", Some("/zookeeper/config"), format!("{}{end}", change_of(change))))
        }
    }
}

fn change_of(change: &Change) -> String {
    match change {
        Change::Reconfig { joining, leaving, new_members, .. } => {
            let part = |name: &str, value: &Option<String>| {
                value.as_ref().map_or(String::new(), |value| format!(" {name} {value}"))
            };
            let parts = [part("joining", joining), part("leaving", leaving), part("members", new_members)];
            format!("by a client:{}", parts.concat())
        }
        Change::Add { id, peer_addr, .. } => format!("server {id} comes, at {peer_addr}"),
        Change::Promote { id } => format!("server {id} is to vote"),
        Change::Demote { id } => format!("server {id} votes no more"),
        Change::Remove { id } => format!("server {id} goes"),
        Change::Replace { id } => format!("server {id} lost its data and comes anew"),
    }
}

fn op_of(op: &Op<'_>, show: bool) -> Asked {
    let versioned = |version: i32| match version {
        -1 => String::new(),
        version => format!("version {version}"),
    };
    let asked = |op, path: &str, what| Asked { op, path: Some(path.to_owned()), what, ..Asked::default() };
    let with = |asked: Asked, data: Option<&[u8]>| Asked {
        data_bytes: data.map(<[u8]>::len),
        data: data.filter(|_| show).map(text_of),
        ..asked
    };
    match op {
        Op::Create { path, data, mode, ttl, .. } => {
            let what = match mode {
                CreateMode::Persistent => String::new(),
                CreateMode::Ephemeral => "ephemeral".to_owned(),
                CreateMode::PersistentSequential => "sequential".to_owned(),
                CreateMode::EphemeralSequential => "ephemeral, sequential".to_owned(),
                CreateMode::Container => "container".to_owned(),
                CreateMode::Ttl => format!("ttl {ttl} ms"),
                CreateMode::TtlSequential => format!("ttl {ttl} ms, sequential"),
            };
            with(asked("create", path, what), *data)
        }
        Op::Delete { path, version } => asked("delete", path, versioned(*version)),
        Op::SetData { path, data, version } => with(asked("setData", path, versioned(*version)), *data),
        Op::SetAcl { path, acl, .. } => asked("setACL", path, format!("{} entries", acl.len())),
        Op::Check { path, version } => asked("check", path, versioned(*version)),
    }
}

/// Printable, and short.
fn text_of(data: &[u8]) -> String {
    let shown = &data[..data.len().min(DATA_SHOWN_BYTES)];
    let mut text = String::new();
    for chunk in shown.utf8_chunks() {
        text.extend(chunk.valid().chars().flat_map(|c| {
            let plain = !c.is_control();
            plain.then_some(c).into_iter().chain(c.escape_default().filter(move |_| !plain))
        }));
        chunk.invalid().iter().for_each(|byte| {
            let _ = write!(text, "\\x{byte:02x}");
        });
    }
    if shown.len() < data.len() {
        text.push('…');
    }
    text
}

impl Request {
    /// A line for people, with its end.
    pub fn line(&self) -> String {
        let (time, zxid) = (self.time.as_deref().unwrap_or("-"), self.zxid.as_deref().unwrap_or("-"));
        let mut line = format!("{time:<24} {:>8} {zxid:>12}", self.index);
        if let Some(session) = &self.session {
            let _ = write!(line, "  {session}");
        }
        if self.server > 0 {
            let _ = write!(line, "@{}", self.server);
        }
        if !self.who.is_empty() {
            let _ = write!(line, " as {}", self.who.join(","));
        }
        let many = self.ops.len() > 1;
        if many {
            let _ = write!(line, "  multi of {}:", self.ops.len());
        }
        for (n, asked) in self.ops.iter().take(OPS_SHOWN).enumerate() {
            let between = match (many, n) {
                (false, _) => "  ",
                (true, 0) => " ",
                (true, _) => "; ",
            };
            let _ = write!(line, "{between}{}", asked.text());
        }
        if self.ops.len() > OPS_SHOWN {
            let _ = write!(line, "; and {} more (-o json has all)", self.ops.len() - OPS_SHOWN);
        }
        if let Some(outcome) = self.outcome.as_ref().filter(|outcome| *outcome != "done") {
            let _ = write!(line, "  [{outcome}]");
        }
        if !self.committed {
            line.push_str("  [not known to be committed]");
        }
        line.push('\n');
        line
    }
}

impl Asked {
    fn text(&self) -> String {
        let mut text = self.op.to_owned();
        if let Some(path) = &self.path {
            let _ = write!(text, " {path}");
        }
        let mut notes = Vec::new();
        if !self.what.is_empty() {
            notes.push(self.what.clone());
        }
        if let Some(bytes) = self.data_bytes {
            notes.push(format!("{bytes} bytes"));
        }
        if !notes.is_empty() {
            let _ = write!(text, " ({})", notes.join(", "));
        }
        if let Some(data) = &self.data {
            let _ = write!(text, " = {data}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use warren_server::records::Other;
    use warren_storage::{AclRef, Origin, Rules, Tag};

    fn record(commands: &[&Logged<'_>], time_ms: i64) -> LogRecord {
        let encoded: Vec<Vec<u8>> = commands.iter().map(|logged| logged.encode()).collect();
        let origin = Origin { server: 2, incarnation: 1, last: 1 };
        let commands = encoded.iter().map(Vec::as_slice).collect();
        let entry = Entry::Batch { origin, time_ms, rules: Rules::default(), commands };
        LogRecord { index: 7, term: 3, kind: RecordKind::Normal, data: entry.encode().into() }
    }

    fn asked(session: SessionId, command: Command<'static>) -> Logged<'static> {
        let ids =
            vec![IdRef { scheme: "digest", id: "alice:c2VjcmV0" }, IdRef { scheme: "ip", id: "10.0.0.1" }];
        Logged { tag: Some(Tag { session, generation: 1, sequence: 1 }), ids, command }
    }

    fn lines(record: &LogRecord, filter: &Filter) -> Vec<String> {
        let mut all = Vec::new();
        requests(record, true, None, filter, &mut |request| all.push(request.line())).unwrap();
        all
    }

    const SET: Op<'static> = Op::SetData { path: "/a/b", data: Some(b"x\n\xff\xc3\xbc"), version: 4 };

    #[test]
    fn who_asked_for_what_is_told_without_secrets() {
        let acl = vec![AclRef { perms: 31, id: IdRef { scheme: "digest", id: "bob:c2VjcmV0" } }];
        let all = record(
            &[
                &asked(0x1a, Command::Single(SET)),
                &asked(0x1a, Command::Single(Op::SetAcl { path: "/a", acl, version: -1 })),
                &asked(0x1b, Command::Multi(vec![SET, Op::Check { path: "/c", version: -1 }])),
                &asked(0x1b, Command::CloseSession),
                &Logged {
                    tag: None,
                    ids: Vec::new(),
                    command: Command::CreateSession {
                        session: 0x1c,
                        timeout_ms: 5,
                        password: *b"passwordpassword",
                        owner: 1,
                        incarnation: 1,
                        request: 1,
                    },
                },
            ],
            0,
        );
        let told = lines(&all, &Filter::default());
        assert_eq!(
            told[0],
            "1970-01-01T00:00:00.000Z        7            -  0x1a@2 as digest:alice,ip:10.0.0.1  setData /a/b (version 4, 5 bytes)\n"
        );
        assert!(
            told[2].ends_with("  multi of 2: setData /a/b (version 4, 5 bytes); check /c\n"),
            "{}",
            told[2]
        );
        assert!(told[4].contains("0x1c@2  createSession (timeout 5 ms, at server 1)"), "{}", told[4]);
        let shown = lines(&all, &Filter { data: true, ..Filter::default() });
        assert!(shown[0].ends_with("= x\\n\\xffü\n"), "{}", shown[0]);
        for line in told.iter().chain(&shown) {
            assert!(!line.contains("c2VjcmV0") && !line.contains("password"), "{line}");
        }
    }

    #[test]
    fn what_is_known_of_the_end_is_told_with_the_zxid() {
        let one = asked(1, Command::Single(SET));
        let all = record(&[&one, &one, &one, &one], 0);
        let other = |command, took_zxid| Other { command, took_zxid, what: format!("because {command}") };
        let outcomes = Outcomes { before: 0x1_0000_0009, others: vec![other(1, true), other(2, false)] };
        let mut told = Vec::new();
        requests(&all, true, Some(&outcomes), &Filter::default(), &mut |request| told.push(request)).unwrap();
        let ends: Vec<_> = told.iter().map(|r| (r.zxid.as_deref(), r.outcome.as_deref())).collect();
        assert_eq!(ends[0], (Some("0x10000000a"), Some("done")));
        assert_eq!(ends[1], (Some("0x10000000b"), Some("because 1")));
        assert_eq!(ends[2], (None, Some("because 2")));
        assert_eq!(ends[3], (Some("0x10000000c"), Some("done")));
        assert!(told[0].line().contains(" 0x10000000a  0x1@2"), "{}", told[0].line());
        assert!(told[1].line().ends_with("  [because 1]\n"), "{}", told[1].line());
    }

    #[test]
    fn filters_are_by_path_session_and_time() {
        let all = record(
            &[
                &asked(1, Command::Single(SET)),
                &asked(2, Command::Single(Op::Delete { path: "/ab", version: -1 })),
                &asked(2, Command::Multi(vec![Op::Check { path: "/x", version: 1 }, SET])),
            ],
            1_000,
        );
        let count = |filter: Filter| lines(&all, &filter).len();
        let path = |path: &str| Filter { path: Some(path.to_owned()), ..Filter::default() };
        assert_eq!(
            (count(path("/a")), count(path("/a/")), count(path("/ab")), count(path("/"))),
            (2, 2, 1, 3)
        );
        assert_eq!(count(path("/b")), 0);
        assert_eq!(count(Filter { session: Some(2), ..Filter::default() }), 2);
        assert_eq!(count(Filter { session: Some(2), ..path("/a") }), 1);
        let time = |since_ms, until_ms| Filter { since_ms, until_ms, ..Filter::default() };
        assert_eq!((count(time(Some(1_000), None)), count(time(Some(1_001), None))), (3, 0));
        assert_eq!((count(time(None, Some(1_000))), count(time(None, Some(1_001)))), (0, 3));
    }

    #[test]
    fn what_does_not_decode_is_told() {
        let mut bad = record(&[&asked(1, Command::Single(SET))], 0);
        bad.data = bad.data.slice(..bad.data.len() - 1);
        let error = requests(&bad, true, None, &Filter::default(), &mut |_| {}).unwrap_err();
        assert!(error.contains("entry 7 does not decode"), "{error}");
    }
}
