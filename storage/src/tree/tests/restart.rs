//! A backup as it becomes the beginning of another ensemble.

use super::*;
use crate::command::Table;
use crate::{Member, MemberRole, Members, Zxid};

fn table(disk: u32) -> Table {
    let member = |id| Member {
        id,
        disk,
        role: MemberRole::Voter,
        peer_addr: format!("h{id}:1"),
        client_addr: String::new(),
    };
    let members = Members { version: 0, servers: vec![member(1), member(2)] };
    Table { members, lines: "server.1=x\n".into() }
}

/// Two members, three sessions of which two have ephemerals, and a sequence.
fn source() -> Told {
    let mut told = Told::fresh();
    told.tree.found(5, &table(1)).unwrap();
    told.tree.advance(1, 1);
    told.tree.introduce(1, 1, 111);
    told.tree.advance(2, 1);
    told.tree.set_conf_state(b"voters".to_vec());
    (1..=3).for_each(|session| told.session(session));
    told.op(create("/locks", b"", CreateMode::Persistent));
    for session in [1, 1, 2] {
        let lock = create("/locks/l-", b"", CreateMode::EphemeralSequential);
        told.session_says(session, Command::Single(lock));
    }
    told.op(create("/kept", b"data", CreateMode::Persistent));
    told.checkpoint();
    told
}

/// The tree of `source` in another folder, taking part as nobody.
fn copy(source: &Told, disk: &MemoryDisk) -> Tree {
    let mut import =
        Import::begin(disk.shared(), Identity { store_id: 77, disk: 0, observes: false }, 0).unwrap();
    let mut export = source.tree.export().unwrap();
    assert_eq!(export.sessions().unwrap(), 3);
    while let Some(chunk) = export.next_chunk(1_000).unwrap() {
        import.push(&chunk).unwrap();
    }
    Tree::replace(disk.shared(), import.finish().unwrap(), options(1 << 20)).unwrap()
}

#[test]
fn sessions_end_and_everything_else_goes_on() {
    let source = source();
    let disk = MemoryDisk::default();
    let mut tree = copy(&source, &disk);
    let epoch = source.tree.zxid().epoch();
    let position = tree.position();
    assert_eq!(tree.restart(9_000, 1_000).unwrap(), Ended { sessions: 3, ephemerals: 3 });

    // As the next start finds it.
    drop(tree);
    let mut tree = Tree::open(disk.shared(), options(1 << 20)).unwrap();
    assert_eq!((tree.session_count(), tree.snapshot().ephemeral_count()), (0, 0));
    assert_eq!(tree.zxid(), Zxid::new(epoch + 1_000, 3));
    assert_eq!(tree.position(), Position { index: position.index + 4, term: position.term + 1 });
    assert!(tree.members().servers.is_empty() && tree.conf_state().is_empty());
    assert_eq!(tree.recorded_store(1), None);
    assert_eq!((tree.next_disk(1), tree.next_disk(9)), (2, 1));
    let snapshot = tree.snapshot();
    assert_eq!(snapshot.node("/kept").unwrap(), source.node("/kept"));
    let (locks, before) = (snapshot.node("/locks").unwrap().unwrap(), source.node("/locks").unwrap());
    assert_eq!((locks.num_children, locks.cversion), (0, before.cversion), "the sequence goes on");
    assert_eq!(locks.pzxid, Zxid::new(epoch + 1_000, 2).wire());
    assert_eq!(snapshot.node("/zookeeper/config").unwrap().unwrap().data.as_deref(), Some(&b""[..]));
    drop(snapshot);

    // It takes part, at a position of its own.
    let position = tree.position();
    tree.take_part_with(2, b"alone".to_vec(), Some((10_000, &table(2)))).unwrap();
    drop(tree);
    let tree = Tree::open(disk.shared(), options(1 << 20)).unwrap();
    assert_eq!((tree.disk(), tree.conf_state()), (2, &b"alone"[..]));
    assert_eq!(tree.position(), Position { index: position.index + 1, ..position });
    assert_eq!(tree.members().version, Zxid::new(epoch + 1_000, 4).wire());
    assert_eq!(tree.members().servers, table(2).members.servers);
    assert!(tree.retired().is_empty());
    let config = tree.snapshot().node("/zookeeper/config").unwrap().unwrap();
    assert_eq!(config.data.as_deref(), Some(&b"server.1=x\nversion=3e800000004"[..]));
}

/// So the same backup, restored twice, is the same tree.
#[test]
fn nothing_depends_on_where_it_is_done() {
    let source = source();
    let once = || {
        let mut tree = copy(&source, &MemoryDisk::default());
        tree.restart(9_000, 7).unwrap();
        (tree.digest(), tree.zxid(), tree.position())
    };
    assert_eq!(once(), once());
}

#[test]
#[should_panic(expected = "is not begun anew")]
fn a_member_is_not_begun_anew() {
    let mut told = Told::fresh();
    told.tree.take_part(1, b"voters".to_vec(), Begun::default()).unwrap();
    let _ = told.tree.restart(1, 1);
}
