//! Quotas: which paths have one, and the text of limits and statistics (ZooKeeper's `StatsTrack`).
//!
//! A quota on `/a` is two znodes that a client makes: `/zookeeper/quota/a/zookeeper_limits` says what is allowed,
//! `/zookeeper/quota/a/zookeeper_stats` is kept up to date by apply, in place, without zxid or watch event.

use std::collections::BTreeMap;

/// Below it lie limits and statistics.
pub(super) const ROOT: &str = "/zookeeper/quota";
const LIMITS: &str = "zookeeper_limits";
const STATS: &str = "zookeeper_stats";

/// What a path below [`ROOT`] is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role<'a> {
    /// The limits of a path.
    Limits(&'a str),
    /// The statistics of a path.
    Stats(&'a str),
}

/// The role of a znode at `path`, if it has one. A quota on the root is none, as in ZooKeeper.
pub(super) fn role(path: &str) -> Option<Role<'_>> {
    let (of, name) = path.strip_prefix(ROOT)?.rsplit_once('/')?;
    match name {
        _ if of.is_empty() => None,
        LIMITS => Some(Role::Limits(of)),
        STATS => Some(Role::Stats(of)),
        _ => None,
    }
}

/// Which path the znode at `path` limits, if it is one that does.
pub fn limited_path(path: &str) -> Option<&str> {
    match role(path) {
        Some(Role::Limits(of)) => Some(of),
        _ => None,
    }
}

/// The text of statistics that say so much and nothing else.
pub fn stats_text(count: i64, bytes: i64) -> String {
    Track { count, bytes, count_hard: -1, bytes_hard: -1 }.text()
}

/// Where the limits of `of` are.
pub(super) fn limits_path(of: &str) -> String {
    format!("{ROOT}{of}/{LIMITS}")
}

/// Where the statistics of the quota on `of` are.
pub fn stats_path(of: &str) -> String {
    format!("{ROOT}{of}/{STATS}")
}

/// The paths that have limits, as a trie of their elements.
#[derive(Clone, Default)]
pub(super) struct Quotas {
    root: Element,
}

#[derive(Clone, Default)]
struct Element {
    limited: bool,
    below: BTreeMap<Box<str>, Element>,
}

impl Quotas {
    pub(super) fn insert(&mut self, of: &str) {
        let mut element = &mut self.root;
        for name in of[1..].split('/') {
            element = element.below.entry(name.into()).or_default();
        }
        element.limited = true;
    }

    pub(super) fn remove(&mut self, of: &str) {
        fn remove(element: &mut Element, names: &mut std::str::Split<'_, char>) {
            match names.next() {
                None => element.limited = false,
                Some(name) => {
                    if let Some(below) = element.below.get_mut(name) {
                        remove(below, names);
                        if !below.limited && below.below.is_empty() {
                            element.below.remove(name);
                        }
                    }
                }
            }
        }
        remove(&mut self.root, &mut of[1..].split('/'));
    }

    /// The longest prefix of `path`, itself included, that has limits.
    pub(super) fn of<'a>(&self, path: &'a str) -> Option<&'a str> {
        if self.root.below.is_empty() {
            return None;
        }
        let mut element = &self.root;
        let mut end = 0;
        let mut longest = None;
        for name in path[1..].split('/') {
            element = match element.below.get(name) {
                None => break,
                Some(element) => element,
            };
            end += 1 + name.len();
            if element.limited {
                longest = Some(&path[..end]);
            }
        }
        longest
    }
}

/// The text of limits or statistics; −1: not said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Track {
    pub(super) count: i64,
    pub(super) bytes: i64,
    pub(super) count_hard: i64,
    pub(super) bytes_hard: i64,
}

impl Track {
    /// From `count=1,bytes=2=;byteHardLimit=3;countHardLimit=4`. Clients write these znodes, so what makes no
    /// sense counts as not said.
    pub(super) fn parse(text: Option<&[u8]>) -> Track {
        let mut track = Track { count: -1, bytes: -1, count_hard: -1, bytes_hard: -1 };
        let text = text.and_then(|text| std::str::from_utf8(text).ok()).unwrap_or("");
        for pair in text.split([',', ';']) {
            let mut parts = pair.split('=');
            let field = match parts.next() {
                Some("count") => &mut track.count,
                Some("bytes") => &mut track.bytes,
                Some("countHardLimit") => &mut track.count_hard,
                Some("byteHardLimit") => &mut track.bytes_hard,
                _ => continue,
            };
            *field = parts.next().and_then(|value| value.parse().ok()).unwrap_or(-1);
        }
        track
    }

    /// Statistics, as ZooKeeper writes them.
    pub(super) fn text(&self) -> String {
        let mut text = format!("count={},bytes={}", self.count, self.bytes);
        if self.count_hard >= 0 || self.bytes_hard >= 0 {
            // The additional = keeps parsers of ZooKeeper 3.4 from reading on.
            text.push('=');
            for (name, value) in [("byteHardLimit", self.bytes_hard), ("countHardLimit", self.count_hard)] {
                if value >= 0 {
                    text.push_str(&format!(";{name}={value}"));
                }
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_wins() {
        let mut quotas = Quotas::default();
        quotas.insert("/a");
        quotas.insert("/a/b/c");
        assert_eq!(quotas.of("/a"), Some("/a"));
        assert_eq!(quotas.of("/a/b"), Some("/a"));
        assert_eq!(quotas.of("/a/b/c/d"), Some("/a/b/c"));
        assert_eq!(quotas.of("/ab"), None);
        assert_eq!(quotas.of("/"), None);
        quotas.remove("/a/x");
        quotas.remove("/a");
        assert_eq!((quotas.of("/a/b"), quotas.of("/a/b/c")), (None, Some("/a/b/c")));
        quotas.remove("/a/b/c");
        assert!(quotas.root.below.is_empty());
    }

    #[test]
    fn limits_are_read_as_zookeeper_writes_them() {
        let text = "count=1,bytes=2=;byteHardLimit=3;countHardLimit=4";
        let track = Track::parse(Some(text.as_bytes()));
        assert_eq!(track, Track { count: 1, bytes: 2, count_hard: 4, bytes_hard: 3 });
        assert_eq!(track.text(), text);
        let nothing = Track { count: -1, bytes: -1, count_hard: -1, bytes_hard: -1 };
        assert_eq!(Track::parse(Some(b"\xff")), nothing);
        assert_eq!(Track::parse(Some(b"count=x,bytes,=,")), nothing);
        assert_eq!(Track::parse(None), nothing);
        assert_eq!(nothing.text(), "count=-1,bytes=-1");
    }

    #[test]
    fn roles_below_the_quota_root() {
        assert_eq!(role("/zookeeper/quota/a/b/zookeeper_limits"), Some(Role::Limits("/a/b")));
        assert_eq!(role("/zookeeper/quota/a/zookeeper_stats"), Some(Role::Stats("/a")));
        assert_eq!(role("/zookeeper/quota/zookeeper_limits"), None);
        assert_eq!(role("/zookeeper/quota/a"), None);
        assert_eq!(role("/zookeeper/quota"), None);
        assert_eq!(role("/a/zookeeper_limits"), None);
    }
}
