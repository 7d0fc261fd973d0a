//! A checkpoint as a stream, and back.

use super::disk::MemoryDisk;
use super::*;
use crate::Disk;
use crate::simdisk::SimDisk;
use redb::{ReadableDatabase, ReadableTable, TableDefinition};
use std::sync::Arc;

/// Ids of servers from 128 on make these.
const NEGATIVE: SessionId = 0x9000_0000_0000_0005_u64 as i64;

/// Everything a tree has: many znodes, kinds, lists, quotas, sessions.
fn filled(znodes: u64) -> Told {
    let mut told = Told::fresh();
    // Far too little for what follows.
    told.tree = Tree::open(told.disk.shared(), options(100_000)).unwrap();
    for session in 1..=20 {
        told.session(session);
    }
    told.session(NEGATIVE);
    let quota = [
        "/zookeeper/quota/p1",
        "/zookeeper/quota/p1/zookeeper_limits",
        "/zookeeper/quota/p1/zookeeper_stats",
    ];
    for path in quota {
        told.op(create(path, b"count=5,bytes=1000000", CreateMode::Persistent));
    }
    for parent in 0..10 {
        let list = AclRef { perms: 1 + parent, id: IdRef { scheme: "digest", id: "a:b" } };
        let path = format!("/p{parent}");
        let acl = vec![OPEN, list];
        told.op(Op::Create { path: &path, data: None, acl, mode: CreateMode::Persistent, ttl: 0 });
    }
    for i in 0..znodes {
        let path = format!("/p{}/ü{i:06}", i % 10);
        let data = vec![i as u8; 200 + i as usize % 100];
        match i % 50 {
            1 => {
                let mode = CreateMode::Ephemeral;
                let done =
                    told.session_says(1 + i as i64 / 50 % 20, Command::Single(create(&path, &data, mode)));
                assert!(matches!(done.outcome, Outcome::Done(_)), "{:?}", done.outcome);
            }
            2 => drop(told.op(create(&path, &data, CreateMode::Container))),
            3 => drop(told.op(create(&path, &data, CreateMode::Ttl))),
            _ => drop(told.op(create(&path, &data, CreateMode::Persistent))),
        }
        if told.tree.pressure() != Pressure::None {
            told.checkpoint();
        }
    }
    told.op(create("/large", &vec![9; 900_000], CreateMode::Persistent));
    told.tree.set_conf_state(b"voters".to_vec());
    told.checkpoint();
    told
}

fn chunks(mut export: Export, bytes_max: usize) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| export.next_chunk(bytes_max).unwrap()).collect()
}

fn import(disk: &MemoryDisk, chunks: &[Vec<u8>]) -> Result<Staged, ImportError> {
    let mut import = Import::begin(disk.shared(), Identity { store_id: 77, disk: 1, observes: false }, 0)?;
    chunks.iter().try_for_each(|chunk| import.push(chunk))?;
    import.finish()
}

/// All rows of all tables but meta, as redb has them.
fn rows(tree: &Tree) -> Vec<(String, Vec<u8>)> {
    let read = tree.db.begin_read().unwrap();
    let mut all = Vec::new();
    fn table<K: redb::Key + 'static, V: redb::Value + 'static>(
        read: &redb::ReadTransaction,
        table: TableDefinition<'static, K, V>,
        all: &mut Vec<(String, Vec<u8>)>,
    ) {
        for row in read.open_table(table).unwrap().iter().unwrap() {
            let (key, value) = row.unwrap();
            all.push((format!("{table} {:?}", key.value()), V::as_bytes(&value.value()).as_ref().to_vec()));
        }
    }
    table(&read, tables::ZNODES, &mut all);
    table(&read, tables::CHILDREN, &mut all);
    table(&read, tables::EPHEMERALS, &mut all);
    table(&read, tables::TIMED, &mut all);
    table(&read, tables::SESSIONS, &mut all);
    table(&read, tables::ACLS, &mut all);
    all
}

#[test]
fn a_tree_larger_than_memory_comes_out_as_it_went_in() {
    let mut source = filled(6_000);
    for bytes_max in [1, 10_000, 1 << 20] {
        let export = source.tree.export().unwrap();
        let head = export.head();
        assert_eq!((head.position, head.conf_state.as_slice()), (source.tree.checkpointed(), &b"voters"[..]));
        assert_eq!(source.tree.checkpointed_conf_state(), b"voters");
        let chunks = chunks(export, bytes_max);
        assert!(chunks.iter().all(|chunk| chunk.len() < bytes_max + 901_000));

        let disk = MemoryDisk::default();
        let receiver = Tree::open(disk.shared(), options(100_000)).unwrap();
        let before = receiver.digest();
        let staged = import(&disk, &chunks).unwrap();
        assert_eq!(staged.head(), &ExportHead { store_id: 77, ..head });
        assert_eq!(receiver.digest(), before);
        let mut copy = Tree::replace(disk.shared(), staged, options(100_000)).unwrap();
        assert_eq!(copy.store_id(), 77);
        assert_eq!((copy.digest(), copy.zxid()), (source.tree.digest(), source.tree.zxid()));
        assert_eq!((copy.position(), copy.conf_state()), (source.tree.position(), &b"voters"[..]));
        assert_eq!(copy.session_count(), 21);
        assert_eq!(copy.session(NEGATIVE), source.tree.session(NEGATIVE));
        assert!(rows(&copy) == rows(&source.tree));
        let (ours, theirs) = (copy.snapshot(), source.tree.snapshot());
        assert_eq!(ours.data_bytes(), theirs.data_bytes());
        assert_eq!(ours.acl_count(), theirs.acl_count());

        // Both go on alike: the quota counts, lists are found again, sessions go with their ephemerals.
        let mut told = Told { disk, tree: copy, time_ms: source.time_ms, rules: source.rules };
        if bytes_max == 1 << 20 {
            for told in [&mut source, &mut told] {
                told.op(create("/p1/one-more", b"x", CreateMode::Persistent));
                told.op(Op::Delete { path: "/p2/ü000012", version: -1 });
                told.session_says(3, Command::CloseSession);
            }
            let stats = "/zookeeper/quota/p1/zookeeper_stats";
            assert_eq!(told.node(stats), source.node(stats));
            assert_eq!(told.tree.digest(), source.tree.digest());
            copy = told.tree;
            assert_eq!(copy.snapshot().ephemeral_count(), source.tree.snapshot().ephemeral_count());
        }
    }
}

#[test]
fn an_export_stays_what_it_was_while_the_source_goes_on() {
    let mut source = filled(500);
    let (position, digest) = (source.tree.position(), source.tree.digest());
    let mut export = source.tree.export().unwrap();
    let mut chunks = Vec::new();
    let mut i = 0;
    while let Some(chunk) = export.next_chunk(4_000).unwrap() {
        chunks.push(chunk);
        i += 1;
        source.op(create(&format!("/p0/new{i}"), &[i as u8; 300], CreateMode::Persistent));
        source.op(Op::Delete { path: &format!("/p4/ü{:06}", 4 + 10 * i), version: -1 });
        source.checkpoint();
    }
    assert!(i > 20);
    drop(export);
    let disk = MemoryDisk::default();
    let copy = Tree::replace(disk.shared(), import(&disk, &chunks).unwrap(), options(100_000)).unwrap();
    assert_eq!((copy.position(), copy.digest()), (position, digest));
    assert_ne!(source.tree.digest(), digest);
    // The exporter sees what is newest, installed or not.
    let exporter = source.tree.exporter();
    source.op(create("/newest", b"", CreateMode::Persistent));
    let written = source.tree.freeze().unwrap().write().unwrap();
    assert_eq!(exporter.export().unwrap().head().position, written.position());
    assert!(source.tree.checkpointed() < written.position());
}

#[test]
fn what_is_not_a_whole_stream_is_refused_and_nothing_changes() {
    let source = filled(200);
    let good = chunks(source.tree.export().unwrap(), 5_000);
    let mut later = filled(200);
    later.op(create("/later", b"", CreateMode::Persistent));
    later.checkpoint();
    let other = chunks(later.tree.export().unwrap(), 5_000);
    let last = good.len() - 1;

    let disk = MemoryDisk::default();
    let receiver = Tree::open(disk.shared(), options(100_000)).unwrap();
    let (digest, found) = (receiver.digest(), rows(&receiver));
    drop(receiver);
    let mut tried = 0;
    let mut refused = |what: &str, chunks: &[Vec<u8>], why: &str| {
        let error = import(&disk, chunks).expect_err(what).to_string();
        assert!(error.contains(why), "{what}: {error}");
        let receiver = Tree::open(disk.shared(), options(100_000)).unwrap();
        assert_eq!(receiver.digest(), digest, "{what}");
        assert!(rows(&receiver) == found, "{what}");
        assert!(!disk.exists(tables::UNFINISHED).unwrap(), "{what}");
        tried += 1;
    };
    let with = |at: usize, change: &dyn Fn(&mut Vec<u8>)| {
        let mut chunks = good.clone();
        change(&mut chunks[at]);
        chunks
    };
    for at in [0, 1, last / 2, last] {
        // Every byte of a header, and some of the body.
        for byte in (0..CHUNK_HEADER_BYTES).chain((CHUNK_HEADER_BYTES..good[at].len()).step_by(997)) {
            refused("a flipped bit", &with(at, &|chunk| chunk[byte] ^= 1), &format!("chunk {at} of"));
        }
        refused("cut off", &with(at, &|chunk| chunk.truncate(chunk.len() - 1)), "it says that it has");
        refused("empty", &with(at, &|chunk| chunk.clear()), "less than a header");
        let mut foreign = good.clone();
        foreign[at] = other[at.min(other.len() - 2)].clone();
        if at > 0 {
            refused("another stream's", &foreign, &format!("chunk {at} of"));
        }
    }
    let swap = |a: usize, b: usize| {
        let mut chunks = good.clone();
        chunks.swap(a, b);
        chunks
    };
    refused("out of order", &swap(3, 4), "chunk 3 of the snapshot stream is refused: it is chunk 4");
    refused("twice", &[&good[..4], &good[3..]].concat(), "it is chunk 3");
    refused("missing", &[&good[..3], &good[4..]].concat(), "it is chunk 4");
    refused("broken off", &good[..last], "broke off behind");
    refused("nothing", &[], "broke off behind 0 chunks");
    refused("more than a stream", &[&good[..], &good[..1]].concat(), "the stream has ended");
    refused("oversize", &with(1, &|chunk| chunk.resize(CHUNK_BYTES_MAX + 1, 0)), "no chunk has more than");
    assert!(tried > 60, "{tried}");
}

/// Key and value.
type Row = (Vec<u8>, Vec<u8>);

/// Chunks whose checksums are right, so that what they say is looked at.
fn forged(kinds: &[(stream::Kind, Vec<u8>)]) -> Vec<Vec<u8>> {
    let mut place = stream::Place::default();
    let forge = |(kind, body): &(stream::Kind, Vec<u8>)| {
        let mut chunk = stream::Place::begin(body.len());
        chunk.extend_from_slice(body);
        place.seal(&mut chunk, *kind);
        chunk
    };
    kinds.iter().map(forge).collect()
}

#[test]
fn rows_that_contradict_one_another_are_refused() {
    use stream::Kind;
    let source = filled(60);
    let good: Vec<(Kind, Vec<u8>)> = chunks(source.tree.export().unwrap(), 1 << 30)
        .iter()
        .map(|chunk| (Kind::ALL[usize::from(chunk[12])], chunk[CHUNK_HEADER_BYTES..].to_vec()))
        .collect();
    assert_eq!(good.len(), Kind::ALL.len());
    assert!(import(&MemoryDisk::default(), &forged(&good)).is_ok());
    let body = |kind: Kind, change: &dyn Fn(&mut Vec<Row>)| {
        let mut rows = Vec::new();
        let mut rest = good[kind as usize].1.as_slice();
        while let Some((key, value)) = stream::take_row(&mut rest).unwrap() {
            rows.push((key.to_vec(), value.to_vec()));
        }
        change(&mut rows);
        let mut body = Vec::new();
        rows.iter().for_each(|(key, value)| stream::put_row(&mut body, key, value));
        let mut bad = good.clone();
        bad[kind as usize].1 = body;
        let mut end: stream::End = postcard::from_bytes(&good[Kind::End as usize].1).unwrap();
        end.rows[kind.table()] = rows.len() as u64;
        bad[Kind::End as usize].1 = checkpoint::encode(&end);
        bad
    };
    let refused = |bad: &[(Kind, Vec<u8>)], why: &str| {
        let error = import(&MemoryDisk::default(), &forged(bad)).expect_err(why).to_string();
        assert!(error.contains(why), "{why}: {error}");
    };
    let pop = |rows: &mut Vec<_>| drop(rows.pop());
    refused(&body(Kind::Znodes, &pop), "number of znodes");
    refused(&body(Kind::Children, &pop), "number of children");
    refused(&body(Kind::Ephemerals, &pop), "index of ephemerals");
    refused(&body(Kind::Timed, &pop), "index of containers and TTL nodes");
    refused(&body(Kind::Acls, &pop), "has an ACL that is not counted");
    refused(&body(Kind::Znodes, &|rows| rows[5].1[0] ^= 1), "the digest is not");
    refused(&body(Kind::Znodes, &|rows| drop(rows[5].1.drain(20..))), "the row of znode");
    refused(&body(Kind::Znodes, &|rows| rows.swap(5, 6)), "does not come after");
    refused(&body(Kind::Znodes, &|rows| rows[5].0[1] = 0xff), "malformed");
    refused(&body(Kind::Znodes, &|rows| rows.last_mut().unwrap().0.push(b'/')), "must not end with /");
    refused(&body(Kind::Children, &|rows| rows.last_mut().unwrap().0.push(b'x')), "index of children");
    refused(&body(Kind::Children, &|rows| rows[3].1.push(0)), "malformed");
    refused(&body(Kind::Sessions, &|rows| rows[3].1.clear()), "session 0x");
    refused(&body(Kind::Sessions, &|rows| rows.swap(1, 2)), "does not come after");
    let with = |kind: Kind, body: &[u8]| {
        let mut bad = good.clone();
        bad[kind as usize].1 = body.to_vec();
        bad
    };
    refused(&with(Kind::End, &[0; 6]), "it counts rows");
    refused(&with(Kind::Head, b"anything"), "it begins no stream of a tree");
    refused(&with(Kind::Znodes, &[1, 0, 0, 0, 255, 255, 255, 255, 0]), "it ends within a row");
    let mut version = good[0].1.clone();
    version[8] = 9;
    refused(&with(Kind::Head, &version), "version 9");
    let mut tables = good.clone();
    tables.swap(2, 3);
    refused(&tables, "Sessions at the place of Znodes");
    refused(&good[1..], "chunk 0 of");
}

#[test]
fn chunks_are_cut_out_of_a_stream_of_bytes() {
    let good = chunks(filled(50).tree.export().unwrap(), 3_000);
    let bytes = good.concat();
    let mut from = bytes.as_slice();
    let mut chunk = Vec::new();
    for good in &good {
        read_chunk(&mut from, &mut chunk).unwrap();
        assert_eq!(&chunk, good);
    }
    let kind = |mut from: &[u8], chunk: &mut Vec<u8>| read_chunk(&mut from, chunk).unwrap_err().kind();
    assert_eq!(kind(&[], &mut chunk), std::io::ErrorKind::UnexpectedEof);
    assert_eq!(kind(&good[1][..good[1].len() - 1], &mut chunk), std::io::ErrorKind::UnexpectedEof);
    assert_eq!(kind(&[255; 100], &mut chunk), std::io::ErrorKind::InvalidData);
}

#[test]
fn what_is_left_of_an_import_is_removed() {
    let chunks = chunks(filled(100).tree.export().unwrap(), 10_000);
    let disk = SimDisk::new();
    let shared = || Arc::new(disk.clone());
    drop(Tree::open(shared(), options(100_000)).unwrap());
    let mut import = Import::begin(shared(), Identity { store_id: 1, disk: 1, observes: false }, 0).unwrap();
    chunks.iter().for_each(|chunk| import.push(chunk).unwrap());
    assert!(import.is_complete() && import.head().is_some());
    drop(import);
    assert!(disk.exists(tables::UNFINISHED).unwrap());
    // Another one begins anew; so does a start.
    let mut import = Import::begin(shared(), Identity { store_id: 1, disk: 1, observes: false }, 0).unwrap();
    chunks.iter().for_each(|chunk| import.push(chunk).unwrap());
    assert_eq!(import.finish().unwrap().head().znodes, 118);
    drop(Tree::open(shared(), options(100_000)).unwrap());
    assert!(!disk.exists(tables::UNFINISHED).unwrap());
}
