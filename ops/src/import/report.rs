//! What became of it, for people and for scripts.

use super::fold::{Agreement, Counts};
use serde::Serialize;

/// Of things that are told one by one, so many at most; the others are counted.
const TOLD_MAX: usize = 20;

/// Things of which the first few are told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Told {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub first: Vec<String>,
}

impl Told {
    /// One more of them.
    pub fn note(&mut self, what: impl FnOnce() -> String) {
        self.count += 1;
        if self.first.len() < TOLD_MAX {
            self.first.push(what());
        }
    }
}

/// What is in the tree, and what was left out of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Znodes {
    /// Znodes that stay until they are deleted.
    pub persistent: u64,
    /// Znodes that end with their session.
    pub ephemeral: u64,
    /// Containers.
    pub container: u64,
    /// Znodes with a time to live.
    pub ttl: u64,
    /// Of all znodes, without paths.
    pub data_bytes: u64,
    /// Sessions that go on.
    pub sessions: u64,
    /// Sessions that were ended because that was asked for.
    pub sessions_dropped: u64,
    /// Access control lists that differ, without the open one.
    pub acls: u64,
    /// Paths with a quota.
    pub quotas: u64,
    /// Ephemerals that were left out, as their session is gone.
    pub orphaned_ephemerals: u64,
    /// The members of the former ensemble were taken out of `/zookeeper/config`.
    pub config_cleared: bool,
    /// Data above the limit for new data.
    pub large: Told,
    /// Paths deeper than what is taken from clients.
    pub deep: Told,
    /// Znodes that nobody may read or change, as their access control list is lost.
    pub closed: Told,
    /// Znodes that were left out, and why.
    pub left_out: Told,
    /// What else is out of the ordinary.
    pub odd: Told,
}

/// Of what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Source {
    /// The snapshot's file; none where there is only a log from the beginning.
    pub snapshot: Option<String>,
    /// Newer files that are no whole snapshots, and why.
    pub snapshots_skipped: Told,
    /// Files of the log.
    pub logs: u64,
    /// Transactions that were replayed.
    pub transactions: u64,
    /// Of them, those that the snapshot had already, or in part.
    pub passed_over: u64,
    /// Where a record was cut short.
    pub torn: Told,
    /// What is wrong with the log, and was accepted.
    pub damage: Told,
    /// The `myid` beside it.
    pub myid: Option<String>,
}

/// All of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// Nothing was written.
    pub dry_run: bool,
    /// The new data folder.
    pub data_dir: String,
    /// Of what it was made.
    pub source: Source,
    /// The last zxid, as ZooKeeper prints it.
    pub zxid: String,
    /// `equal`, `differs`, `unfinished` or `unknown`: the tree beside the digest that ZooKeeper logged of its own.
    pub digest: &'static str,
    /// After which transaction that was compared last, or differs since, or should be finished.
    pub digest_zxid: Option<String>,
    /// What is in it.
    #[serde(flatten)]
    pub znodes: Znodes,
    /// The most memory that the import took, bytes.
    pub memory_bytes: Option<u64>,
    /// How long it took.
    pub seconds: f64,
}

/// What is wrong with a log, in words.
pub fn complaints(counts: Counts, agreement: Agreement) -> Vec<String> {
    let mut complaints = Vec::new();
    if let Some(behind) = counts.first_gap {
        complaints.push(format!(
            "transactions are missing behind zxid {behind:#x} ({} gaps): is a log file not there?",
            counts.gaps
        ));
    }
    match agreement {
        Agreement::Unfinished { until } => complaints.push(format!(
            "the snapshot was still being written at zxid {until:#x}, and the log ends before: what is in it is of \
             different times"
        )),
        Agreement::Differs { since } => complaints.push(format!(
            "the tree differs, since zxid {since:#x}, from the digest that ZooKeeper logged of its own"
        )),
        Agreement::Equal { .. } | Agreement::Unknown => {}
    }
    complaints
}

/// As [`Report::digest`] and [`Report::digest_zxid`].
pub fn digest(agreement: Agreement) -> (&'static str, Option<String>) {
    let zxid = |zxid: i64| Some(format!("{zxid:#x}"));
    match agreement {
        Agreement::Unknown => ("unknown", None),
        Agreement::Equal { zxid: at } => ("equal", zxid(at)),
        Agreement::Differs { since } => ("differs", zxid(since)),
        Agreement::Unfinished { until } => ("unfinished", zxid(until)),
    }
}

impl Report {
    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |what: String| {
            text.push_str(&what);
            text.push('\n');
        };
        let Source { snapshot, logs, transactions, passed_over, .. } = &self.source;
        let snapshot = snapshot.as_deref().unwrap_or("none");
        line(match self.dry_run {
            true => format!("tried, nothing written; it would go to {}", self.data_dir),
            false => format!("imported into {}", self.data_dir),
        });
        line(format!(
            "snapshot   {snapshot}, {logs} log files with {transactions} transactions behind it ({passed_over} were in it)"
        ));
        let at = self.digest_zxid.as_deref().unwrap_or("");
        line(format!("zxid       {}", self.zxid));
        line(match self.digest {
            "equal" => format!("digest     equal to ZooKeeper's own at {at}"),
            "unknown" => "digest     not compared: these files have none".to_owned(),
            "differs" => format!("digest     DIFFERS from ZooKeeper's own since {at}"),
            _ => format!("digest     not compared: the log should go on to {at}"),
        });
        let Znodes { persistent, ephemeral, container, ttl, data_bytes, sessions, .. } = &self.znodes;
        line(format!(
            "znodes     {}: {persistent} persistent, {ephemeral} ephemeral, {container} containers, {ttl} with a time to live",
            persistent + ephemeral + container + ttl
        ));
        line(format!("data       {data_bytes} bytes"));
        line(format!("sessions   {sessions}, which end unless their clients come within the timeout"));
        line(format!("ACLs       {}, quotas {}", self.znodes.acls, self.znodes.quotas));
        self.remarks(&mut line);
        let memory = self
            .memory_bytes
            .map_or(String::new(), |bytes| format!(", at most {} MiB of memory", bytes >> 20));
        line(format!("took       {:.1} s{memory}", self.seconds));
        text
    }

    fn remarks(&self, line: &mut impl FnMut(String)) {
        let Znodes { sessions_dropped, orphaned_ephemerals, config_cleared, .. } = &self.znodes;
        if *sessions_dropped > 0 {
            line(format!("dropped    {sessions_dropped} sessions with their ephemerals, as asked for"));
        }
        if *orphaned_ephemerals > 0 {
            line(format!(
                "left out   {orphaned_ephemerals} ephemerals whose sessions are gone, as ZooKeeper does at its start"
            ));
        }
        if *config_cleared {
            line(
                "left out   the former ensemble's members in /zookeeper/config, so that nobody follows them"
                    .to_owned(),
            );
        }
        let mut told = |what: &str, some: &Told, then: &str| {
            if some.count == 0 {
                return;
            }
            line(format!("{what}: {}{then}", some.count));
            for one in &some.first {
                line(format!("           {one}"));
            }
            if some.count > some.first.len() as u64 {
                line(format!("           and {} more", some.count - some.first.len() as u64));
            }
        };
        told("snapshots skipped", &self.source.snapshots_skipped, ", as they are not whole");
        told(
            "records cut short",
            &self.source.torn,
            ", as a crash leaves them; what was acknowledged lies before",
        );
        told("DAMAGE accepted", &self.source.damage, "");
        told(
            "znodes above 1 MiB",
            &self.znodes.large,
            ", which can be read and deleted, but not written again at that size. Split them, or store what is in them \
             elsewhere; a client that reads them needs a jute.maxbuffer as it had before",
        );
        told("paths too deep", &self.znodes.deep, ", below which nothing can be made");
        told(
            "znodes closed",
            &self.znodes.closed,
            ", as their ACL is in none of the files: only the super user may set it anew (security.super_digest)",
        );
        told("znodes left out", &self.znodes.left_out, "");
        told("remarks", &self.znodes.odd, "");
    }
}

/// What is to be done next, for people.
pub fn next_steps(data_dir: &str) -> String {
    format!(
        "next       start `warrend --data-dir {data_dir}` (or with the settings that `warren config convert zoo.cfg` makes);\n\
         \x20          of an ensemble, import on ONE server and give the others empty data folders: they are sent the tree\n"
    )
}
