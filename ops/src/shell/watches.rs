//! Which watches the shell has, so that they are set again on the next connection: they die with a connection on the server
//! (ZooKeeper's `ZKWatchManager` and `ClientCnxn.primeConnection`).

use std::collections::BTreeSet;
use warren_transport::EventType;
use warren_transport::request::{SetWatches, WatcherType};

/// Watches of one session at most; over it a command that asks for one more is refused.
pub const WATCHES_MAX: usize = 100_000;
/// Paths in one packet that sets them again, bytes; about what ZooKeeper's client puts into one.
const BATCH_BYTES: usize = 128 << 10;

/// What a watch waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Data, of a znode that is there.
    Data,
    /// That a znode comes to be; data, if it is there.
    Exist,
    /// Its children's names.
    Child,
    /// addWatch.
    Persistent,
    /// addWatch.
    Recursive,
}

/// What is watched, by the paths that the server knows.
#[derive(Debug, Default)]
pub struct Watches {
    data: BTreeSet<String>,
    exist: BTreeSet<String>,
    child: BTreeSet<String>,
    persistent: BTreeSet<String>,
    recursive: BTreeSet<String>,
}

impl Watches {
    /// The server has it from now on.
    pub fn armed(&mut self, kind: Kind, path: String) {
        self.of(kind).insert(path);
    }

    fn of(&mut self, kind: Kind) -> &mut BTreeSet<String> {
        match kind {
            Kind::Data => &mut self.data,
            Kind::Exist => &mut self.exist,
            Kind::Child => &mut self.child,
            Kind::Persistent => &mut self.persistent,
            Kind::Recursive => &mut self.recursive,
        }
    }

    /// An event came: those that fire once are gone.
    pub fn fired(&mut self, event: EventType, path: &str) {
        if event != EventType::NodeChildrenChanged {
            self.data.remove(path);
            self.exist.remove(path);
        }
        if matches!(event, EventType::NodeChildrenChanged | EventType::NodeDeleted) {
            self.child.remove(path);
        }
    }

    /// They were taken back. Returns what zkCli prints for each kind that was there.
    pub fn removed(&mut self, which: WatcherType, path: &str) -> Vec<&'static str> {
        let any = which == WatcherType::Any;
        let mut told = Vec::new();
        if any || which == WatcherType::Children {
            told.extend(self.child.remove(path).then_some("ChildWatchRemoved"));
        }
        if any || which == WatcherType::Data {
            let (data, exist) = (self.data.remove(path), self.exist.remove(path));
            told.extend((data || exist).then_some("DataWatchRemoved"));
        }
        if any || which == WatcherType::Persistent {
            told.extend(self.persistent.remove(path).then_some("PersistentWatchRemoved"));
        }
        if any || which == WatcherType::PersistentRecursive {
            told.extend(self.recursive.remove(path).then_some("PersistentWatchRemoved"));
        }
        told
    }

    /// The session is over, and they with it.
    pub fn clear(&mut self) {
        *self = Watches::default();
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.data.len() + self.exist.len() + self.child.len() + self.persistent.len() + self.recursive.len()
    }

    /// None?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What sets them again, in packets of a bounded size; `zxid` is the last that was seen, and what happened after it is
    /// told as an event.
    pub fn again(&self, zxid: i64) -> Vec<SetWatches<'_>> {
        let all = self
            .data
            .iter()
            .map(|path| (Kind::Data, path))
            .chain(self.exist.iter().map(|path| (Kind::Exist, path)))
            .chain(self.child.iter().map(|path| (Kind::Child, path)))
            .chain(self.persistent.iter().map(|path| (Kind::Persistent, path)))
            .chain(self.recursive.iter().map(|path| (Kind::Recursive, path)));
        let mut packets: Vec<SetWatches<'_>> = Vec::new();
        let mut bytes = BATCH_BYTES;
        for (kind, path) in all {
            bytes += path.len() + 4;
            if bytes > BATCH_BYTES {
                packets.push(SetWatches { relative_zxid: zxid, ..SetWatches::default() });
                bytes = path.len() + 4;
            }
            let packet = packets.last_mut().expect("one was begun");
            match kind {
                Kind::Data => packet.data.push(path),
                Kind::Exist => packet.exist.push(path),
                Kind::Child => packet.child.push(path),
                // Servers before 3.6 know packets without these only.
                Kind::Persistent => packet.persistent.get_or_insert_default().0.push(path),
                Kind::Recursive => packet.persistent.get_or_insert_default().1.push(path),
            }
        }
        packets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fired_is_not_set_again() {
        let mut watches = Watches::default();
        for kind in [Kind::Data, Kind::Exist, Kind::Child, Kind::Persistent, Kind::Recursive] {
            watches.armed(kind, "/a".into());
        }
        watches.fired(EventType::NodeChildrenChanged, "/a");
        assert_eq!(watches.len(), 4);
        watches.fired(EventType::NodeDataChanged, "/a");
        watches.fired(EventType::NodeDeleted, "/b");
        let again = watches.again(7);
        assert_eq!(again.len(), 1);
        assert_eq!((again[0].relative_zxid, again[0].data.len(), again[0].child.len()), (7, 0, 0));
        assert_eq!(again[0].persistent, Some((vec!["/a"], vec!["/a"])));
        assert_eq!(watches.removed(WatcherType::Data, "/a"), [] as [&str; 0]);
        assert_eq!(watches.removed(WatcherType::Any, "/a"), ["PersistentWatchRemoved"; 2]);
        assert!(watches.is_empty());
    }

    #[test]
    fn many_are_set_again_in_packets_of_a_bounded_size() {
        let mut watches = Watches::default();
        for n in 0..2_000 {
            watches.armed(Kind::Child, format!("/{n:0>200}"));
        }
        let again = watches.again(1);
        assert_eq!(again.len(), 4);
        assert_eq!(again.iter().map(|packet| packet.child.len()).sum::<usize>(), 2_000);
        assert!(again.iter().all(|packet| packet.persistent.is_none()));
    }
}
