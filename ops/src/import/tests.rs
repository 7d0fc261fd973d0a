//! Files as a ZooKeeper writes them, made by a small one of our own: while snapshots are written, the tree goes on changing.

use super::fold::{Agreement, Data, Fold};
use super::log::{LogReader, Next};
use super::settle::{Wishes, settle};
use super::snapshot::{self, SnapshotError};
use super::txn;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use warren_storage::tree::{
    Composer, Identity, Import, Persisted, Position, content_digest, limited_path, stats_path,
};
use warren_storage::{Acl, Kind, SharedDisk, Tree, TreeOptions};
use warren_transport::jute::Writer;

const LIMIT: u64 = 64 << 20;
const EPOCH: i64 = 3 << 32;

/// Data in memory.
#[derive(Default)]
struct Memory(Vec<u8>);

impl Data for Memory {
    fn keep(&mut self, bytes: &[u8]) -> io::Result<u64> {
        self.0.extend_from_slice(bytes);
        Ok((self.0.len() - bytes.len()) as u64)
    }

    fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        out.copy_from_slice(&self.0[at as usize..at as usize + out.len()]);
        Ok(())
    }
}

struct Chance(u64);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Live {
    stat: Persisted,
    data: Option<Vec<u8>>,
    acl: i64,
    children: BTreeSet<String>,
}

/// A ZooKeeper's tree, and the log that it writes.
struct Zoo {
    chance: Chance,
    nodes: BTreeMap<String, Live>,
    sessions: BTreeMap<i64, i32>,
    lists: BTreeMap<i64, Vec<Acl>>,
    zxid: i64,
    log: Vec<u8>,
    digests: bool,
}

fn parent_of(path: &str) -> String {
    let at = path.rfind('/').unwrap();
    if at == 0 { "/".to_owned() } else { path[..at].to_owned() }
}

impl Zoo {
    fn new(seed: u64) -> Zoo {
        let mut log = Vec::new();
        let mut out = Writer::new(&mut log);
        out.raw(b"ZKLG");
        out.int(2);
        out.long(0);
        let mut zoo = Zoo {
            chance: Chance(seed),
            nodes: BTreeMap::new(),
            sessions: BTreeMap::new(),
            lists: BTreeMap::new(),
            zxid: EPOCH,
            log,
            digests: true,
        };
        for path in ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config"] {
            let fresh = Live {
                stat: Persisted::default(),
                data: Some(Vec::new()),
                acl: -1,
                children: BTreeSet::new(),
            };
            zoo.nodes.insert(path.to_owned(), fresh);
            if path != "/" {
                zoo.child(path, true);
            }
        }
        zoo
    }

    fn child(&mut self, path: &str, there: bool) -> &mut Live {
        let parent = self.nodes.get_mut(&parent_of(path)).unwrap();
        if there {
            parent.children.insert(path.to_owned())
        } else {
            parent.children.remove(path)
        };
        parent
    }

    fn digest(&self) -> u64 {
        let of = |(path, node): (&String, &Live)| {
            u64::from(node.stat.digest(path, content_digest(path, node.data.as_deref())))
        };
        self.nodes.iter().map(of).fold(0, u64::wrapping_add)
    }

    fn record(&mut self, session: i64, kind: i32, body: impl FnOnce(&mut Writer<'_>)) {
        let mut bytes = Vec::new();
        let mut out = Writer::new(&mut bytes);
        out.long(session);
        out.int(1);
        out.long(self.zxid);
        out.long(self.zxid * 10);
        out.int(kind);
        body(&mut out);
        if self.digests {
            out.int(2);
            out.long(self.digest() as i64);
        }
        let mut log = Writer::new(&mut self.log);
        log.long(i64::from(adler2::adler32_slice(&bytes)));
        log.buffer(Some(&bytes));
        log.raw(&[0x42]);
    }

    /// One request, as the leader has decided it.
    fn step(&mut self) {
        self.zxid += 1;
        let zxid = self.zxid;
        let all: Vec<String> =
            self.nodes.keys().filter(|path| !path.starts_with("/zookeeper")).cloned().collect();
        let path = all[self.chance.below(all.len())].clone();
        let (sessions, data) = (self.sessions.len(), self.some_data());
        match self.chance.below(12) {
            0 => {
                let id = 0x100_0000_0000 + zxid;
                self.sessions.insert(id, 4_000);
                self.record(id, -10, |out| out.int(4_000));
            }
            1 if sessions > 0 => {
                let id = *self.sessions.keys().nth(self.chance.below(sessions)).unwrap();
                self.sessions.remove(&id);
                let own = |(_, node): &(&String, &Live)| node.stat.owner == id;
                let gone: Vec<String> = self.nodes.iter().filter(own).map(|(path, _)| path.clone()).collect();
                gone.iter().for_each(|path| self.delete(path));
                self.record(id, -11, |out| out.strings(&gone));
            }
            2..=5 if self.nodes[&path].stat.owner == 0 => self.create(&path, data),
            6 | 7 if self.nodes[&path].children.is_empty() && path != "/" => {
                self.delete(&path);
                self.record(1, 2, |out| out.string(&path));
            }
            8 | 9 => {
                let node = self.nodes.get_mut(&path).unwrap();
                (node.stat.mzxid, node.stat.mtime) = (zxid, zxid * 10);
                node.stat.version += 1;
                node.data.clone_from(&data);
                let version = node.stat.version;
                self.record(1, 5, |out| {
                    out.string(&path);
                    out.buffer(data.as_deref());
                    out.int(version);
                });
            }
            10 => {
                let (acl, list) = self.some_acl();
                let node = self.nodes.get_mut(&path).unwrap();
                node.stat.aversion += 1;
                node.acl = acl;
                let version = node.stat.aversion;
                self.record(1, 7, |out| {
                    out.string(&path);
                    write_acl(out, &list);
                    out.int(version);
                });
            }
            // A refused request, and a multi that failed.
            11 => self.record(1, 14, |out| {
                out.int(2);
                for kind in [5, -1] {
                    out.int(kind);
                    out.buffer(Some(&[0; 4]));
                }
            }),
            _ => self.record(1, -1, |out| out.int(-101)),
        }
    }

    fn create(&mut self, parent: &str, data: Option<Vec<u8>>) {
        let zxid = self.zxid;
        let name = self.chance.below(30);
        let path = if parent == "/" { format!("/n{name}") } else { format!("{parent}/n{name}") };
        if self.nodes.contains_key(&path) || path.len() > 40 {
            return self.record(1, -1, |out| out.int(-110));
        }
        let (acl, list) = self.some_acl();
        let sessions = self.sessions.len();
        let (kind, session, owner) = match self.chance.below(5) {
            0 => (19, 1, i64::MIN),
            1 => (21, 1, Kind::Ttl(5_000).owner()),
            2 if sessions > 0 => {
                let id = *self.sessions.keys().nth(self.chance.below(sessions)).unwrap();
                (1, id, id)
            }
            3 => (1, 1, 0),
            _ => (15, 1, 0),
        };
        let stat = Persisted {
            czxid: zxid,
            mzxid: zxid,
            pzxid: zxid,
            ctime: zxid * 10,
            mtime: zxid * 10,
            owner,
            ..Persisted::default()
        };
        self.nodes.insert(path.clone(), Live { stat, data: data.clone(), acl, children: BTreeSet::new() });
        let parent = self.child(&path, true);
        parent.stat.cversion += 1;
        parent.stat.pzxid = zxid;
        let cversion = parent.stat.cversion;
        let body = |out: &mut Writer<'_>| {
            out.string(&path);
            out.buffer(data.as_deref());
            write_acl(out, &list);
            if matches!(kind, 1 | 15) {
                out.bool(owner != 0);
            }
            out.int(cversion);
            if kind == 21 {
                out.long(5_000);
            }
        };
        // Alone, or in a multi of one that came through.
        if self.chance.0.is_multiple_of(3) {
            let mut inner = Vec::new();
            body(&mut Writer::new(&mut inner));
            self.record(session, 14, |out| {
                out.int(1);
                out.int(kind);
                out.buffer(Some(&inner));
            });
        } else {
            self.record(session, kind, body);
        }
    }

    fn delete(&mut self, path: &str) {
        let zxid = self.zxid;
        self.nodes.remove(path);
        self.child(path, false).stat.pzxid = zxid;
    }

    fn some_data(&mut self) -> Option<Vec<u8>> {
        let bytes = self.chance.below(20);
        (bytes != 0).then(|| vec![bytes as u8; bytes - 1])
    }

    fn some_acl(&mut self) -> (i64, Vec<Acl>) {
        match self.chance.below(3) {
            0 => {
                // A list that comes while a snapshot is written is not in it.
                let list = vec![Acl::new(31, "digest", format!("u{}:x", self.chance.below(8)))];
                let known = self.lists.iter().find(|(_, known)| **known == list).map(|(id, _)| *id);
                let id = known.unwrap_or(self.lists.len() as i64 + 1);
                self.lists.insert(id, list.clone());
                (id, list)
            }
            _ => (-1, Acl::open()),
        }
    }

    /// A snapshot, during which `meanwhile` requests are carried out before each znode.
    fn snapshot(&mut self, meanwhile: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut out = Writer::new(&mut bytes);
        out.raw(b"ZKSN");
        out.int(2);
        out.long(-1);
        out.int(self.sessions.len() as i32);
        for (id, timeout) in &self.sessions {
            out.long(*id);
            out.int(*timeout);
        }
        out.int(self.lists.len() as i32);
        for (id, list) in &self.lists {
            out.long(*id);
            write_acl(&mut out, list);
        }
        let mut due = vec!["/".to_owned()];
        while let Some(path) = due.pop() {
            for _ in 0..meanwhile {
                self.step();
            }
            let Some(node) = self.nodes.get(&path) else { continue };
            let mut out = Writer::new(&mut bytes);
            out.string(if path == "/" { "" } else { &path });
            out.buffer(node.data.as_deref());
            out.long(node.acl);
            let stat = &node.stat;
            for field in [stat.czxid, stat.mzxid, stat.ctime, stat.mtime] {
                out.long(field);
            }
            for field in [stat.version, stat.cversion, stat.aversion] {
                out.int(field);
            }
            out.long(stat.owner);
            out.long(stat.pzxid);
            due.extend(node.children.iter().rev().cloned());
        }
        Writer::new(&mut bytes).string("/");
        seal(&mut bytes);
        let mut out = Writer::new(&mut bytes);
        out.long(self.zxid);
        out.int(2);
        out.long(self.digest() as i64);
        seal(&mut bytes);
        Writer::new(&mut bytes).long(self.zxid);
        seal(&mut bytes);
        bytes
    }
}

fn write_acl(out: &mut Writer<'_>, list: &[Acl]) {
    out.int(list.len() as i32);
    for line in list {
        out.int(line.perms);
        out.string(&line.id.scheme);
        out.string(&line.id.id);
    }
}

fn seal(bytes: &mut Vec<u8>) {
    let sum = adler2::adler32_slice(bytes);
    let mut out = Writer::new(bytes);
    out.long(i64::from(sum));
    out.string("/");
}

fn empty() -> Fold<Memory> {
    Fold::new(Memory::default(), 1, LIMIT)
}

fn load(bytes: &[u8], zxid: i64) -> Result<Fold<Memory>, SnapshotError> {
    let mut fold = empty();
    let digest = snapshot::read(bytes, &mut fold)?;
    fold.loaded(zxid, digest);
    Ok(fold)
}

/// How the log ended.
fn replay(fold: &mut Fold<Memory>, log: &[u8]) -> String {
    let after = fold.zxid();
    let Some(mut reader) = LogReader::open(log).unwrap() else { return "no header".to_owned() };
    loop {
        match reader.next_record().unwrap() {
            Next::End => return "end".to_owned(),
            Next::Torn { .. } => return "torn".to_owned(),
            Next::Damaged { why, .. } => return why,
            Next::Transaction(bytes) => match txn::decode(bytes) {
                Err(e) => return e.to_string(),
                Ok((header, txn, digest)) if header.zxid > after => {
                    fold.apply(&header, &txn, digest).unwrap()
                }
                Ok(_) => {}
            },
        }
    }
}

/// The store that comes of it, in memory.
fn stored(fold: Fold<Memory>, wishes: Wishes) -> (Tree, super::report::Znodes) {
    let settled = settle(fold, wishes).unwrap();
    let disk: SharedDisk = std::sync::Arc::new(warren_storage::simdisk::SimDisk::new());
    let mut import =
        Import::begin(disk.clone(), Identity { store_id: 5, disk: 0, observes: false }, 0).unwrap();
    let position = Position { index: 1, term: 1 };
    let mut composer = Composer::begin(position, &settled.totals, |chunk: &[u8]| import.push(chunk)).unwrap();
    settled.write(&mut composer).unwrap();
    composer.finish().unwrap();
    let options = TreeOptions { memory_bytes: 1 << 24, hash_seed: 1, store_id: 5 };
    let tree = Tree::replace(disk, import.finish().unwrap(), options).unwrap();
    assert_eq!(tree.digest().znodes, settled.totals.digest);
    (tree, settled.znodes)
}

/// Is it what the ZooKeeper had?
fn same(tree: &Tree, zoo: &Zoo) {
    let snapshot = tree.snapshot();
    for (path, live) in &zoo.nodes {
        let node = snapshot.node(path).unwrap().unwrap_or_else(|| panic!("{path} is missing"));
        let length = live.data.as_ref().map_or(0, Vec::len) as u64;
        if path != "/zookeeper/config" {
            assert_eq!(node.stat(), live.stat.stat(length, live.children.len() as u32), "{path}");
            assert_eq!(node.owner, live.stat.owner, "{path}");
            assert_eq!(node.data.as_deref(), live.data.as_deref(), "{path}");
        }
        let wanted = zoo.lists.get(&live.acl).cloned().unwrap_or_else(Acl::open);
        assert_eq!(*snapshot.acl(node.acl), wanted, "{path}");
    }
    // ZooKeeper counts the root twice.
    assert_eq!(snapshot.node_count(), zoo.nodes.len() as u64 + 1);
    let sessions: BTreeMap<i64, i32> = tree.sessions().map(|(id, row)| (id, row.timeout_ms)).collect();
    assert_eq!(sessions, zoo.sessions);
}

#[test]
fn a_fuzzy_snapshot_and_its_log_are_the_tree() {
    for seed in 0..60 {
        let mut zoo = Zoo::new(seed);
        for _ in 0..200 {
            zoo.step();
        }
        let named = zoo.zxid;
        let bytes = zoo.snapshot(seed as usize % 4);
        let fuzzy = zoo.zxid > named;
        for _ in 0..50 {
            zoo.step();
        }
        let mut fold = load(&bytes, named).unwrap();
        assert_eq!(replay(&mut fold, &zoo.log), "end", "seed {seed}");
        assert_eq!(fold.agreement(), Agreement::Equal { zxid: zoo.zxid }, "seed {seed}");
        assert!(!fuzzy || fold.counts().passed_over > 0, "seed {seed}: nothing was there before");
        assert_eq!((fold.counts().gaps, fold.counts().out_of_order), (0, 0));
        let (tree, znodes) = stored(fold, Wishes { epoch: 3, ..Wishes::default() });
        assert_eq!(tree.zxid().wire(), zoo.zxid, "seed {seed}");
        assert_eq!((&znodes.left_out.count, &znodes.closed.count), (&0, &0), "{znodes:?}");
        same(&tree, &zoo);
    }
}

#[test]
fn without_its_log_a_fuzzy_snapshot_is_known_for_one() {
    let mut zoo = Zoo::new(3);
    (0..100).for_each(|_| zoo.step());
    let named = zoo.zxid;
    let bytes = zoo.snapshot(2);
    let fold = load(&bytes, named).unwrap();
    assert_eq!(fold.agreement(), Agreement::Unfinished { until: zoo.zxid });
    let quiet = zoo.snapshot(0);
    assert_eq!(load(&quiet, zoo.zxid).unwrap().agreement(), Agreement::Equal { zxid: zoo.zxid });
}

#[test]
fn a_tree_that_differs_is_found_out_by_its_digest() {
    let mut zoo = Zoo::new(4);
    (0..100).for_each(|_| zoo.step());
    let named = zoo.zxid;
    let bytes = zoo.snapshot(0);
    let begin = zoo.log.len();
    (0..100).for_each(|_| zoo.step());
    // Without the first record behind the snapshot.
    let next = begin + 13 + i32::from_be_bytes(zoo.log[begin + 8..begin + 12].try_into().unwrap()) as usize;
    let log: Vec<u8> = zoo.log[..begin].iter().chain(&zoo.log[next..]).copied().collect();
    let mut fold = load(&bytes, named).unwrap();
    assert_eq!(replay(&mut fold, &log), "end");
    assert_eq!((fold.counts().gaps, fold.counts().first_gap), (1, Some(named)));
}

#[test]
fn cut_at_any_byte_a_snapshot_is_refused_and_a_log_ends_before() {
    let mut zoo = Zoo::new(5);
    (0..60).for_each(|_| zoo.step());
    let named = zoo.zxid;
    let bytes = zoo.snapshot(1);
    for length in 0..bytes.len() {
        let cut = load(&bytes[..length], named).map(|fold| fold.agreement());
        // Up to the seals of 3.6 and 3.9 it is the whole file of an older version.
        let older = length + 21 == bytes.len() || length + 21 + 33 == bytes.len();
        assert_eq!(cut.is_ok(), older, "{length} of {}: {:?}", bytes.len(), cut.err());
    }
    let mut ends = BTreeMap::new();
    for length in 0..zoo.log.len() {
        let mut fold = load(&bytes, named).unwrap();
        let end = replay(&mut fold, &zoo.log[..length]);
        *ends.entry(end).or_insert(0) += 1;
    }
    assert_eq!(ends.keys().collect::<Vec<_>>(), ["end", "no header", "torn"]);
    // With the zeros that are written ahead it is the same.
    let mut fold = load(&bytes, named).unwrap();
    let ahead: Vec<u8> = zoo.log.iter().copied().chain([0; 9_000]).collect();
    assert_eq!(replay(&mut fold, &ahead), "end");
    assert_eq!(fold.zxid(), zoo.zxid);
}

#[test]
fn no_bit_is_taken_for_another() {
    let mut zoo = Zoo::new(6);
    (0..40).for_each(|_| zoo.step());
    let named = zoo.zxid;
    let bytes = zoo.snapshot(0);
    let mut flipped = bytes.clone();
    for bit in 0..bytes.len() * 8 {
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(load(&flipped, named).is_err(), "bit {bit}");
        flipped[bit / 8] ^= 1 << (bit % 8);
    }
    let log = zoo.log.clone();
    let mut flipped = log.clone();
    let mut whole = empty();
    whole.fresh().unwrap();
    assert_eq!(replay(&mut whole, &log), "end");
    for bit in 0..log.len() * 8 {
        // The database's number means nothing.
        if (8..16).contains(&(bit / 8)) {
            continue;
        }
        flipped[bit / 8] ^= 1 << (bit % 8);
        let mut fold = empty();
        fold.fresh().unwrap();
        let refused = LogReader::open(&flipped[..]).is_err();
        let end = if refused { String::new() } else { replay(&mut fold, &flipped) };
        assert!(refused || end != "end", "bit {bit}: {end}");
        flipped[bit / 8] ^= 1 << (bit % 8);
    }
}

/// Lengths and counts that the file does not have, wherever they may be believed.
#[test]
fn lengths_are_not_believed() {
    let mut zoo = Zoo::new(7);
    (0..30).for_each(|_| zoo.step());
    let bytes = zoo.snapshot(0);
    for at in 0..bytes.len() - 4 {
        for length in [i32::MAX, i32::MIN, -1, -2, 1 << 20, 0xfff] {
            let mut wrong = bytes.clone();
            wrong[at..at + 4].copy_from_slice(&length.to_be_bytes());
            if wrong != bytes {
                assert!(load(&wrong, zoo.zxid).is_err(), "{length} at {at}");
            }
        }
    }
    // Behind a checksum that is right, too.
    let begin = 16 + 12;
    for at in begin..zoo.log.len().min(2_000) - 4 {
        for length in [i32::MAX, i32::MIN, -1, -2, 1 << 20] {
            let mut wrong = zoo.log.clone();
            wrong[at..at + 4].copy_from_slice(&length.to_be_bytes());
            mend_sums(&mut wrong);
            let mut fold = empty();
            fold.fresh().unwrap();
            replay(&mut fold, &wrong);
        }
    }
}

/// As many records as still make sense get the checksum that they should have.
fn mend_sums(log: &mut [u8]) {
    let mut at = 16;
    while let Some(head) = log.get(at..at + 12) {
        let length = i32::from_be_bytes(head[8..].try_into().unwrap());
        let Some(bytes) = usize::try_from(length).ok().and_then(|n| log.get(at + 12..at + 12 + n)) else {
            return;
        };
        let sum = i64::from(adler2::adler32_slice(bytes));
        log[at..at + 8].copy_from_slice(&sum.to_be_bytes());
        at += 13 + length as usize;
    }
}

#[test]
fn memory_has_a_limit() {
    let mut zoo = Zoo::new(8);
    (0..200).for_each(|_| zoo.step());
    let bytes = zoo.snapshot(0);
    let mut fold = Fold::new(Memory::default(), 1, 4 << 10);
    let error = snapshot::read(&bytes[..], &mut fold).unwrap_err();
    assert!(matches!(&error, SnapshotError::Fold(_)), "{error}");
    assert!(error.to_string().contains("--memory-mb"), "{error}");
}

#[test]
fn other_files_are_no_snapshots_and_no_logs() {
    for bytes in [&b""[..], b"ZKSN", b"PK\x03\x04 and so on and so on", b"ZKSN\0\0\0\x03\0\0\0\0\0\0\0\0"] {
        assert!(load(bytes, 0).is_err());
        assert!(bytes.len() < 16 || LogReader::open(bytes).is_err());
    }
}

#[test]
fn damage_in_the_middle_is_not_the_end() {
    let mut zoo = Zoo::new(9);
    (0..10).for_each(|_| zoo.step());
    let mut log = zoo.log.clone();
    log[16 + 12 + 20] ^= 1;
    let mut fold = empty();
    fold.fresh().unwrap();
    let end = replay(&mut fold, &log);
    assert!(end.contains("whose checksum is"), "{end}");
    // The same in the last record is what a power cut leaves.
    let mut log = zoo.log.clone();
    let last = log.len() - 20;
    log[last] ^= 1;
    log.extend([0; 100]);
    let mut fold = empty();
    fold.fresh().unwrap();
    assert_eq!(replay(&mut fold, &log), "torn");
}

fn one(path: &str, owner: i64) -> (String, i64) {
    (path.to_owned(), owner)
}

/// Znodes beside those of a fresh tree, each with data `x`, and these sessions.
fn made(znodes: &[(String, i64)], sessions: &[i64]) -> Fold<Memory> {
    let mut fold = empty();
    fold.fresh().unwrap();
    for session in sessions {
        fold.session(*session, 5_000).unwrap();
    }
    for (path, owner) in znodes {
        let stat = Persisted { owner: *owner, ..Persisted::default() };
        fold.load(path, Some(b"x"), -1, stat).unwrap();
    }
    fold.loaded(EPOCH + 5, None);
    fold
}

#[test]
fn ephemerals_live_as_long_as_their_sessions() {
    let (alive, gone, odd) = (0x77, 0x88, 0xff01_0000_0000_0001_u64 as i64);
    let znodes =
        [one("/a", alive), one("/b", gone), one("/c", odd), one("/d", 0), one("/t", Kind::Ttl(9).owner())];
    let (tree, told) = stored(made(&znodes, &[alive, odd]), Wishes::default());
    let there = |tree: &Tree, path| tree.snapshot().node(path).unwrap().is_some();
    assert_eq!(
        ["/a", "/b", "/c", "/d", "/t"].map(|path| there(&tree, path)),
        [true, false, false, true, true]
    );
    assert_eq!((told.sessions, told.ephemeral, told.ttl, told.odd.count), (1, 1, 1, 2), "{told:?}");
    // The root lost two children, at the zxid of the end.
    assert_eq!(tree.snapshot().node("/").unwrap().unwrap().pzxid, EPOCH + 5);

    let wishes = Wishes { drop_ephemerals: true, epoch: 9 };
    let (tree, told) = stored(made(&znodes, &[alive]), wishes);
    assert!(!there(&tree, "/a") && there(&tree, "/d"));
    assert_eq!((told.sessions, told.sessions_dropped, told.ephemeral), (0, 1, 0));
    assert_eq!(tree.zxid().epoch(), 9);
}

#[test]
fn quotas_are_counted_anew() {
    let znodes = [
        one("/a", 0),
        one("/a/b", 0),
        one("/ab", 0),
        one("/zookeeper/quota/a", 0),
        one("/zookeeper/quota/a/zookeeper_limits", 0),
        one("/zookeeper/quota/a/zookeeper_stats", 0),
        one("/zookeeper/quota/ab", 0),
        one("/zookeeper/quota/ab/zookeeper_limits", 0),
    ];
    assert_eq!(limited_path(&znodes[4].0), Some("/a"));
    let (tree, told) = stored(made(&znodes, &[]), Wishes::default());
    let stats = tree.snapshot().node(&stats_path("/a")).unwrap().unwrap();
    assert_eq!(stats.data.as_deref(), Some(&b"count=2,bytes=2"[..]));
    // One of them counts nothing, which is told; and /zookeeper/config is made.
    assert_eq!((told.quotas, told.odd.count), (2, 2), "{told:?}");
}

#[test]
fn what_cannot_be_kept_is_left_out_and_told() {
    let znodes = [
        one("/a\u{1}", 0),
        one("/a\u{1}/b", 0),
        one("/e", 0x77),
        one("/e/below", 0),
        one("/large", 0),
        one("/zookeeper/config", 0),
    ];
    let mut fold = made(&znodes, &[0x77]);
    fold.put_data("/large", Some(&vec![1; (1 << 20) + 1])).unwrap();
    let (tree, told) = stored(fold, Wishes::default());
    assert_eq!((told.left_out.count, told.large.count, told.config_cleared), (3, 1, true), "{told:?}");
    assert!(told.left_out.first[0].contains("not allowed in a path"), "{told:?}");
    let snapshot = tree.snapshot();
    assert_eq!(snapshot.node("/e").unwrap().unwrap().num_children, 0);
    assert_eq!(snapshot.node("/zookeeper/config").unwrap().unwrap().data_bytes(), 0);
}

/// Its list was to come with the log, and did not.
#[test]
fn a_znode_without_its_list_is_closed() {
    let mut fold = made(&[], &[]);
    fold.load("/a", None, 12, Persisted::default()).unwrap();
    let (tree, told) = stored(fold, Wishes::default());
    assert_eq!(told.closed.first, ["/a"]);
    let snapshot = tree.snapshot();
    let acl = snapshot.acl(snapshot.node("/a").unwrap().unwrap().acl);
    assert!(!warren_storage::acl::allows(&acl, &[], 31));
}
