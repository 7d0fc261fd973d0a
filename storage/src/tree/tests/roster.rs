//! Who belongs to the ensemble.

use super::*;
use crate::command::{Decided, Table};
use crate::members::{Change, Member, MemberRole, Members};
use crate::{Code, Zxid};

fn table(servers: &[(u8, u32)]) -> Table {
    let member = |(id, disk): &(u8, u32)| Member {
        id: *id,
        disk: *disk,
        role: MemberRole::Voter,
        peer_addr: format!("s{id}:2182"),
        client_addr: String::new(),
    };
    let servers = servers.iter().map(member).collect();
    Table { members: Members { version: 0, servers }, lines: "server.1=s1:2182:2888:participant\n".into() }
}

fn reconfigure(decided: Decided) -> Command<'static> {
    Command::Reconfigure { asker: None, change: Change::Remove { id: 3 }, decided: Some(decided) }
}

fn config(told: &Told) -> (String, crate::Stat) {
    let node = told.node("/zookeeper/config").unwrap();
    (String::from_utf8(node.data.as_deref().unwrap().to_vec()).unwrap(), node.stat())
}

#[test]
fn the_first_table_stays_and_each_change_has_its_zxid() {
    let mut told = Told::fresh();
    told.tree.begin_epoch();
    let changes = told.tree.found(5, &table(&[(1, 1), (2, 1), (3, 1)])).unwrap();
    assert_eq!(changes.len(), 1, "watches of the configuration fire");
    assert!(told.tree.found(6, &table(&[(9, 1)])).unwrap().is_empty());
    told.tree.advance(1, 1);
    assert_eq!(told.tree.members().servers.len(), 3);
    let (text, stat) = config(&told);
    assert_eq!(text, "server.1=s1:2182:2888:participant\nversion=0");
    assert_eq!((stat.version, stat.mzxid, stat.mtime), (-1, 0, 5));

    told.tree.introduce(3, 1, 33);
    told.session(5);
    let zxid = told.tree.zxid();
    let applied = told.session_says(5, reconfigure(Decided::Made(table(&[(1, 1), (2, 1), (3, 2)]))));
    assert_eq!(applied.zxid, Some(zxid.next()));
    let (text, stat) = config(&told);
    assert_eq!((stat.version, stat.mzxid), (-1, zxid.next().wire()));
    assert!(text.ends_with("\nversion=100000002"), "{text}");
    let Outcome::Done(Reply::Reconfigured { text: answered, .. }) = applied.outcome else { panic!() };
    assert_eq!(&*answered, text.as_bytes());
    assert_eq!(told.tree.members().version, zxid.next().wire());
    // Its store was that of the former disk, which may not be recorded again.
    assert_eq!(told.tree.recorded_store(3), None);
    told.tree.introduce(3, 1, 33);
    assert_eq!(told.tree.recorded_store(3), None);
    told.tree.introduce(3, 2, 34);
    assert_eq!(told.tree.recorded_store(3), Some(34));

    let refused = told.session_says(5, reconfigure(Decided::Refused(Code::NewConfigNoQuorum)));
    assert_eq!(
        (refused.zxid, refused.outcome),
        (Some(zxid.next().next()), Outcome::Failed(Code::NewConfigNoQuorum))
    );
    assert_eq!(config(&told).0, text);
}

/// Consensus goes by it as soon as it is committed: it must not depend on whether its asker's session is still there.
#[test]
fn a_decided_change_holds_whoever_asked() {
    let mut told = Told::fresh();
    told.tree.found(5, &table(&[(1, 1), (2, 1), (3, 1)])).unwrap();
    told.tree.advance(1, 1);
    let before = told.tree.digest();
    let tag = Some(Tag { session: 77, generation: 1, sequence: 1 });
    let command = reconfigure(Decided::Made(table(&[(1, 1), (2, 1)])));
    let applied = told.tell(&Logged { tag, ids: Vec::new(), command });
    assert_eq!(applied.outcome, Outcome::Failed(Code::SessionExpired));
    assert_eq!((applied.zxid, applied.changes.len()), (Some(Zxid::new(0, 1)), 1));
    assert_eq!(told.tree.members().servers.len(), 2);
    assert_eq!(told.tree.retired().get(&3), Some(&1));
    assert_ne!(told.tree.digest().members, before.members);
}

#[test]
fn the_roster_is_part_of_a_checkpoint() {
    let mut told = Told::fresh();
    told.tree.take_part(4, vec![1, 2], Begun::default()).unwrap();
    told.reopen();
    assert_eq!((told.tree.disk(), told.tree.checkpointed_conf_state()), (4, &[1, 2][..]));
    told.tree.found(5, &table(&[(1, 1), (2, 1)])).unwrap();
    told.tree.advance(1, 1);
    told.server(reconfigure(Decided::Made(table(&[(1, 1)]))));
    let (members, digest) = (told.tree.members().clone(), told.tree.digest());
    told.checkpoint();
    told.reopen();
    assert_eq!((told.tree.members(), told.tree.digest(), told.tree.disk()), (&members, digest, 4));
    assert_eq!(told.tree.retired().get(&2), Some(&1));
}

/// A snapshot is taken by who has a log from then on, and an observer's has no record of its store.
#[test]
fn as_what_a_store_took_part_outlives_a_restart_and_of_an_observer_another_tree() {
    for observes in [false, true] {
        let mut told = Told::fresh();
        let begun = Begun { term: 3, observes, founders: [(2, 22)].into() };
        told.tree.take_part(1, vec![1, 2], begun.clone()).unwrap();
        told.reopen();
        assert_eq!(told.tree.begun(), &begun);
        assert_eq!(told.tree.identity().observes, observes);
        told.op(create("/a", b"x", CreateMode::Persistent));
        told.checkpoint();
        told.reopen();
        assert_eq!(told.tree.begun(), &begun);

        let mut export = told.tree.export().unwrap();
        let mut import = Import::begin(told.disk.shared(), told.tree.identity(), 0).unwrap();
        while let Some(chunk) = export.next_chunk(1 << 20).unwrap() {
            import.push(&chunk).unwrap();
        }
        drop(export);
        let staged = import.finish().unwrap();
        told.tree = Tree::replace(told.disk.shared(), staged, options(1 << 20)).unwrap();
        assert_eq!(told.tree.begun(), &Begun { observes, ..Begun::default() });
    }
}

#[test]
fn a_forced_quorum_is_of_a_later_epoch() {
    let mut told = Told::fresh();
    told.tree.begin_epoch();
    told.tree.found(5, &table(&[(1, 1), (2, 1), (3, 1)])).unwrap();
    told.tree.advance(1, 1);
    told.tree.force_quorum(9, 1_000, &table(&[(2, 1)])).unwrap();
    told.tree.advance(2, 2);
    assert_eq!(told.tree.zxid(), Zxid::new(1_001, 0));
    assert_eq!(told.tree.members().version, Zxid::new(1_001, 0).wire());
    assert_eq!(config(&told).1.mzxid, Zxid::new(1_001, 0).wire());
}

#[test]
fn that_a_tree_is_wrong_outlives_a_restart_and_not_another_tree() {
    let mut told = Told::fresh();
    told.op(create("/a", b"x", CreateMode::Persistent));
    let at = told.tree.position();
    // Also while a checkpoint is on its way.
    let checkpoint = told.tree.freeze().unwrap();
    told.tree.set_differs(Some(at)).unwrap();
    drop(told.tree.install(checkpoint.write().unwrap()));
    assert_eq!(told.tree.differs(), Some(at));
    told.reopen();
    assert_eq!((told.tree.differs(), told.tree.position()), (Some(at), at));
    told.tree.set_differs(None).unwrap();
    told.reopen();
    assert_eq!(told.tree.differs(), None);

    told.tree.set_differs(Some(at)).unwrap();
    let mut export = told.tree.export().unwrap();
    let mut import =
        Import::begin(told.disk.shared(), Identity { store_id: 11, disk: 1, observes: false }, 0).unwrap();
    while let Some(chunk) = export.next_chunk(1 << 20).unwrap() {
        import.push(&chunk).unwrap();
    }
    drop(export);
    let staged = import.finish().unwrap();
    told.tree = Tree::replace(told.disk.shared(), staged, options(1 << 20)).unwrap();
    assert_eq!((told.tree.differs(), told.tree.position()), (None, at));
    told.reopen();
    assert_eq!(told.tree.differs(), None);
}
