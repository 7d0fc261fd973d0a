//! Do the statistics of quotas count what is there? Two passes over all znodes: the first finds the quotas, the second counts.

use super::Znode;
use super::quota::{self, Quotas, Role, Track};
use std::collections::BTreeMap;

/// Quotas that are looked at, at most; of more, the first in order of paths.
const QUOTAS_MAX: usize = 100_000;

/// See the module.
#[derive(Default)]
pub struct QuotaCheck {
    quotas: Quotas,
    found: BTreeMap<String, Counted>,
}

#[derive(Default)]
struct Counted {
    limited: bool,
    said: Option<Track>,
    count: i64,
    bytes: i64,
}

/// A quota whose statistics are not what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaDrift {
    /// Whose quota.
    pub path: String,
    /// Znodes and bytes, as the statistics have them.
    pub said: (i64, i64),
    /// And as they are.
    pub found: (i64, i64),
}

impl QuotaCheck {
    /// The first pass.
    pub fn find(&mut self, path: &str, znode: &Znode) {
        let (of, limits) = match quota::role(path) {
            Some(Role::Limits(of)) => (of, true),
            Some(Role::Stats(of)) => (of, false),
            None => return,
        };
        if self.found.len() >= QUOTAS_MAX && !self.found.contains_key(of) {
            return;
        }
        let counted = self.found.entry(of.to_owned()).or_default();
        if limits {
            counted.limited = true;
            self.quotas.insert(of);
        } else {
            counted.said = Some(Track::parse(znode.data.as_deref()));
        }
    }

    /// Is there anything to count?
    pub fn is_due(&self) -> bool {
        self.found.values().any(|counted| counted.limited && counted.said.is_some())
    }

    /// The second pass.
    pub fn count(&mut self, path: &str, znode: &Znode) {
        let Some(counted) = self.quotas.of(path).and_then(|of| self.found.get_mut(of)) else { return };
        counted.count += 1;
        counted.bytes += znode.data_bytes() as i64;
    }

    /// Those that differ. One with another quota below it is left out: what it counts depends on which was made first.
    pub fn drifts(&self) -> Vec<QuotaDrift> {
        let nested = |of: &str| {
            let below = format!("{of}/");
            self.found.range(below.clone()..).next().is_some_and(|(path, _)| path.starts_with(&below))
        };
        let differing = self.found.iter().filter_map(|(of, counted)| {
            let said = counted.said.as_ref().filter(|_| counted.limited)?;
            let (said, found) = ((said.count, said.bytes), (counted.count, counted.bytes));
            (said != found && !nested(of)).then(|| QuotaDrift { path: of.clone(), said, found })
        });
        differing.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::AclId;
    use std::sync::Arc;

    #[test]
    fn what_is_counted_wrongly_is_told() {
        let node = |data: &str| {
            let mut node = Znode::primordial("/x", 0, AclId::OPEN, 0);
            node.data = Some(Arc::from(data.as_bytes()));
            node
        };
        let tree = [
            ("/a", ""),
            ("/a/1", "abc"),
            ("/b", "x"),
            ("/b/c", "y"),
            ("/zookeeper/quota/a/zookeeper_limits", "count=5,bytes=-1"),
            ("/zookeeper/quota/a/zookeeper_stats", "count=2,bytes=3"),
            ("/zookeeper/quota/b/zookeeper_limits", "count=5,bytes=-1"),
            ("/zookeeper/quota/b/zookeeper_stats", "count=9,bytes=9"),
            ("/zookeeper/quota/c/zookeeper_stats", "count=9,bytes=9"),
        ];
        let check = |tree: &[(&str, &str)]| {
            let mut check = QuotaCheck::default();
            tree.iter().for_each(|(path, data)| check.find(path, &node(data)));
            assert!(check.is_due());
            tree.iter().for_each(|(path, data)| check.count(path, &node(data)));
            check.drifts()
        };
        assert_eq!(check(&tree), [QuotaDrift { path: "/b".into(), said: (9, 9), found: (2, 2) }]);
        let nested = [&tree[..], &[("/zookeeper/quota/b/c/zookeeper_limits", "count=1,bytes=1")]].concat();
        assert!(check(&nested).is_empty());
    }
}
