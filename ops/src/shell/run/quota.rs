//! Quotas: ordinary znodes below `/zookeeper/quota`, which the client keeps (ZooKeeper's `SetQuotaCommand`, `StatsTrack`).
//! They stand there by the server's own paths, whatever the root of this shell is.

use super::super::command::{DelQuota, SetQuota};
use super::*;
use warren_storage::path::parent_of;

const QUOTA: &str = "/zookeeper/quota";
const LIMITS: &str = "zookeeper_limits";
const STATS: &str = "zookeeper_stats";
/// Quotas below one path at most that a new one is compared with.
const BELOW_MAX: usize = 100_000;

/// Limits, or what is used of them; −1 is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Track {
    count: i64,
    bytes: i64,
    /// Those that refuse, where the text has them.
    hard: Option<(i64, i64)>,
}

impl Track {
    const NONE: Track = Track { count: -1, bytes: -1, hard: None };

    /// `count=N,bytes=N`, and `=;byteHardLimit=N;countHardLimit=N` behind it where there are such.
    pub(super) fn parse(data: Option<&[u8]>) -> Track {
        let mut track = Track::NONE;
        let text = String::from_utf8_lossy(data.unwrap_or_default()).into_owned();
        for part in text.split([',', ';']) {
            let Some((key, value)) = part.trim_end_matches('=').split_once('=') else { continue };
            let Ok(value) = value.trim_end_matches('=').parse() else { continue };
            match key {
                "count" => track.count = value,
                "bytes" => track.bytes = value,
                "byteHardLimit" => track.hard.get_or_insert((-1, -1)).0 = value,
                "countHardLimit" => track.hard.get_or_insert((-1, -1)).1 = value,
                _ => {}
            }
        }
        track
    }

    pub(super) fn text(&self) -> String {
        let Track { count, bytes, hard } = self;
        match hard {
            None => format!("count={count},bytes={bytes}"),
            Some((bytes_hard, count_hard)) => {
                format!("count={count},bytes={bytes}=;byteHardLimit={bytes_hard};countHardLimit={count_hard}")
            }
        }
    }

    fn json(&self) -> serde_json::Value {
        let hard = self.hard.unwrap_or((-1, -1));
        json!({ "count": self.count, "bytes": self.bytes, "bytes_hard": hard.0, "count_hard": hard.1 })
    }
}

fn limits_of(full: &str) -> String {
    format!("{QUOTA}{full}/{LIMITS}")
}

fn stats_of(full: &str) -> String {
    format!("{QUOTA}{full}/{STATS}")
}

impl Shell<'_> {
    /// The same shell, with the server's own root.
    fn bare<'s>(&'s mut self, root: &'s Root) -> Shell<'s> {
        Shell { server: &mut *self.server, listener: &mut *self.listener, root }
    }

    pub(super) fn list_quota(&mut self, path: &str) -> Result<(), Failure> {
        let (full, root) = (self.root.full(path), Root::default());
        let mut bare = self.bare(&root);
        let limits = limits_of(&full);
        let read = |bare: &mut Shell<'_>, at: &str| bare.data(at, false).map(|(data, _)| data);
        let (limit, used) = match (read(&mut bare, &limits), read(&mut bare, &stats_of(&full))) {
            (Ok(limit), Ok(used)) => (Track::parse(limit.as_deref()), Track::parse(used.as_deref())),
            (Err(failure), _) | (_, Err(failure)) if failure.is(Code::NoNode) => {
                return Err(Failure::Told(format!(
                    "absolute path is {limits}\nquota for {path} does not exist."
                )));
            }
            (Err(failure), _) | (_, Err(failure)) => return Err(failure),
        };
        let text = format!(
            "absolute path is {limits}\nOutput quota for {path} {}\nOutput stat for {path} {}",
            limit.text(),
            used.text()
        );
        self.say(text, json!({ "path": path, "limits": limit.json(), "used": used.json() }))
    }

    pub(super) fn set_quota(&mut self, set: &SetQuota) -> Result<(), Failure> {
        let (path, full) = (set.path.as_str(), self.root.full(&set.path));
        if full == "/" || full.starts_with("/zookeeper") {
            return Err(Failure::Told(format!("cannot set a quota on {path}: servers count none there")));
        }
        if self.exists(path, false)?.is_none() {
            return Err(Failure::refused(Code::NoNode, path));
        }
        let root = Root::default();
        let mut bare = self.bare(&root);
        bare.refuse_nested_quota(&full)?;
        let limits = limits_of(&full);
        let (before, is_new) = match bare.data(&limits, false) {
            Ok((data, _)) => (Track::parse(data.as_deref()), false),
            Err(failure) if failure.is(Code::NoNode) => (Track::NONE, true),
            Err(failure) => return Err(failure),
        };
        let (bytes_hard, count_hard) = before.hard.unwrap_or((-1, -1));
        let now = Track {
            count: set.count.unwrap_or(before.count),
            bytes: set.bytes.unwrap_or(before.bytes),
            hard: Some((set.bytes_hard.unwrap_or(bytes_hard), set.count_hard.unwrap_or(count_hard))),
        };
        if is_new {
            bare.create_parents(&limits)?;
            bare.create_one(&limits, Some(now.text().as_bytes()), &Acl::open(), CreateMode::Persistent, 0)?;
            let nothing = Track { count: 0, bytes: 0, hard: None }.text();
            let stats = stats_of(&full);
            bare.create_one(&stats, Some(nothing.as_bytes()), &Acl::open(), CreateMode::Persistent, 0)?;
        } else {
            bare.set_one(&limits, Some(now.text().as_bytes()), -1)?;
        }
        let used = Track::parse(bare.data(&stats_of(&full), false)?.0.as_deref());
        let (bytes_hard, count_hard) = now.hard.unwrap_or((-1, -1));
        let below = |limit: i64, used: i64| limit > -1 && limit < used;
        if below(now.count, used.count) || below(count_hard, used.count) {
            self.listener.note(&format!("the quota is below the {} znodes that are there", used.count));
        }
        if below(now.bytes, used.bytes) || below(bytes_hard, used.bytes) {
            self.listener.note(&format!("the quota is below the {} bytes that are there", used.bytes));
        }
        self.done(json!({ "path": path, "limits": now.json() }))
    }

    /// A quota holds for all that is below it, so there is none above and none below it.
    fn refuse_nested_quota(&mut self, full: &str) -> Result<(), Failure> {
        let mut above = parent_of(full);
        while let Some(parent) = above.filter(|parent| *parent != "/") {
            if self.exists(&limits_of(parent), false)?.is_some() {
                return Err(Failure::Told(format!("{full} has a parent {parent} which has a quota")));
            }
            above = parent_of(parent);
        }
        let own = format!("{QUOTA}{full}");
        let below = match self.walk(&own, false, None) {
            Err(failure) if failure.is(Code::NoNode) => return Ok(()),
            other => other?,
        };
        if below.len() > BELOW_MAX {
            return Err(Failure::Told(format!("more than {BELOW_MAX} znodes of quotas are below {own}")));
        }
        let limit = below
            .iter()
            .find(|znode| znode.path.ends_with(&format!("/{LIMITS}")) && znode.path != limits_of(full));
        match limit.and_then(|limit| parent_of(&limit.path)) {
            Some(holder) => {
                Err(Failure::Told(format!("{full} has a child {} which has a quota", &holder[QUOTA.len()..])))
            }
            None => Ok(()),
        }
    }

    pub(super) fn del_quota(&mut self, del: &DelQuota) -> Result<(), Failure> {
        let (path, full) = (del.path.as_str(), self.root.full(&del.path));
        let root = Root::default();
        let mut bare = self.bare(&root);
        let limits = limits_of(&full);
        let before = match bare.data(&limits, false) {
            Ok((data, _)) => Track::parse(data.as_deref()),
            Err(failure) if failure.is(Code::NoNode) => {
                return Err(Failure::Told(format!("quota for {path} does not exist.")));
            }
            Err(failure) => return Err(failure),
        };
        if del.count || del.bytes || del.count_hard || del.bytes_hard {
            let lifted = |lift: bool, limit: i64| if lift { -1 } else { limit };
            let hard = before
                .hard
                .map(|(bytes, count)| (lifted(del.bytes_hard, bytes), lifted(del.count_hard, count)));
            let now = Track {
                count: lifted(del.count, before.count),
                bytes: lifted(del.bytes, before.bytes),
                hard,
            };
            bare.set_one(&limits, Some(now.text().as_bytes()), -1)?;
            return self.done(json!({ "path": path, "limits": now.json() }));
        }
        let own = format!("{QUOTA}{full}");
        for name in bare.children(&own, false)?.0 {
            bare.delete_one(&join(&own, &name), -1)?;
        }
        // Up to the first that holds another quota.
        let mut empty = Some(own.as_str());
        while let Some(at) = empty.filter(|at| *at != QUOTA) {
            match bare.delete_one(at, -1) {
                Ok(()) => empty = parent_of(at),
                Err(failure) if failure.is(Code::NotEmpty) || failure.is(Code::NoNode) => break,
                Err(failure) => return Err(failure),
            }
        }
        self.done(json!({ "path": path, "limits": Track::NONE.json() }))
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn texts_are_those_of_zookeeper() {
        for text in ["count=2,bytes=-1", "count=2,bytes=-1=;byteHardLimit=-1;countHardLimit=3"] {
            assert_eq!(Track::parse(Some(text.as_bytes())).text(), text);
        }
        assert_eq!(
            Track::parse(Some(b"count=1,bytes=5=;countHardLimit=3;byteHardLimit=9")).hard,
            Some((9, 3))
        );
        assert_eq!(Track::parse(Some(b"nonsense,count=x")), Track::NONE);
        assert_eq!(Track::parse(None), Track::NONE);
    }
}
