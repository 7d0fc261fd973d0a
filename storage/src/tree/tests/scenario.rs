//! Scenarios: given, told, asked.

use super::*;
use crate::command::SweepKind;
use crate::{Code, Kind, Stat, ZPath, Zxid};

fn failed(code: Code) -> Outcome {
    Outcome::Failed(code)
}

fn created(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Done(Reply::Created { path, .. }) => path.as_str(),
        other => panic!("not created: {other:?}"),
    }
}

#[test]
fn a_fresh_tree_is_a_fresh_zookeeper() {
    let told = Told::fresh();
    let snapshot = told.tree.snapshot();
    assert_eq!((snapshot.node_count(), snapshot.data_bytes(), snapshot.ephemeral_count()), (5, 44, 0));
    assert_eq!(snapshot.digest().znodes, 1_371_985_504);
    assert_eq!(told.tree.zxid(), Zxid::ZERO);
    assert_eq!(told.children("/"), ["zookeeper"]);
    assert_eq!(told.children("/zookeeper"), ["config", "quota"]);
    assert_eq!(snapshot.all_children_number("/").unwrap(), 3);
    assert_eq!(snapshot.all_children_number("/zookeeper").unwrap(), 2);
    let root = told.node("/").unwrap().stat();
    assert_eq!(root, Stat { cversion: -1, num_children: 1, ..Stat::default() });
    let config = told.node("/zookeeper/config").unwrap();
    assert_eq!(&*snapshot.acl(config.acl), Acl::read_only().as_slice());
    assert_eq!(config.stat(), Stat { aversion: -1, ..Stat::default() });
    assert_eq!(config.data.as_deref(), Some(&b""[..]));
}

#[test]
fn an_epoch_begins_at_counter_zero_and_failed_writes_take_a_zxid() {
    let mut told = Told::fresh();
    told.tree.begin_epoch();
    told.tree.advance(1, 1);
    assert_eq!(told.tree.zxid(), Zxid::new(1, 0));
    let command = Command::Single(Op::Delete { path: "/none", version: -1 });
    let applied = told.tell(&Logged { tag: None, ids: Vec::new(), command });
    assert_eq!((applied.zxid, applied.outcome), (Some(Zxid::new(1, 1)), failed(Code::NoNode)));
    told.tree.begin_epoch();
    assert_eq!(told.tree.zxid(), Zxid::new(2, 0));
}

#[test]
fn creates_are_checked_in_zookeepers_order() {
    let mut told = Told::fresh();
    told.session(1);
    told.op(create("/a", b"", CreateMode::Persistent));
    let nobody: Vec<AclRef<'_>> = Vec::new();
    let bare = |path, mode, ttl| Op::Create { path, data: None, acl: vec![], mode, ttl };

    told.rules.extended_types = false;
    assert_eq!(told.op(bare("no slash", CreateMode::Ttl, 0)), failed(Code::Unimplemented));
    told.rules.extended_types = true;
    assert_eq!(told.op(bare("no slash", CreateMode::Ttl, 0)), failed(Code::BadArguments));
    assert_eq!(told.op(bare("/t", CreateMode::Ttl, Kind::TTL_MAX + 1)), failed(Code::BadArguments));
    assert_eq!(told.op(bare("/e", CreateMode::Ephemeral, 0)), failed(Code::SessionExpired));
    assert_eq!(told.op(bare("no slash", CreateMode::Persistent, 0)), failed(Code::BadArguments));
    assert_eq!(told.op(bare("/none/x", CreateMode::Persistent, 0)), failed(Code::InvalidAcl));
    assert_eq!(told.op(create("/none/x", b"", CreateMode::Persistent)), failed(Code::NoNode));
    assert_eq!(told.op(create("/zookeeper/config/.", b"", CreateMode::Persistent)), failed(Code::NoAuth));
    assert_eq!(told.op(create("/a/.", b"", CreateMode::Persistent)), failed(Code::BadArguments));
    assert_eq!(told.op(create("/", b"", CreateMode::Persistent)), failed(Code::NodeExists));
    assert_eq!(told.op(create("", b"", CreateMode::Persistent)), failed(Code::BadArguments));
    assert_eq!(told.op(create("/a", b"", CreateMode::Persistent)), failed(Code::NodeExists));
    told.session_says(1, Command::Single(create("/a/e", b"", CreateMode::Ephemeral)));
    assert_eq!(told.op(create("/a/e/x", b"", CreateMode::Persistent)), failed(Code::NoChildrenForEphemerals));
    assert_eq!(told.op(Op::SetAcl { path: "/a", acl: nobody, version: -1 }), failed(Code::InvalidAcl));

    told.rules.data_bytes_max = 3;
    assert_eq!(told.op(create("/big", b"1234", CreateMode::Persistent)), failed(Code::BadArguments));
    told.rules.path_depth_max = 1;
    assert_eq!(told.op(create("/a/deep", b"", CreateMode::Persistent)), failed(Code::BadArguments));
    told.rules.refuse_growth = true;
    assert_eq!(told.op(create("/b", b"", CreateMode::Persistent)), failed(Code::QuotaExceeded));
    assert_eq!(
        told.op(Op::SetData { path: "/a", data: Some(b"1"), version: -1 }),
        failed(Code::QuotaExceeded)
    );
}

#[test]
fn access_control_lists_that_differ_are_bounded() {
    let mut told = Told::fresh();
    told.op(create("/a", b"", CreateMode::Persistent));
    let list = |id| vec![AclRef { perms: crate::perms::ALL, id: IdRef { scheme: "ip", id } }];
    let with = |path, acl| Op::Create { path, data: None, acl, mode: CreateMode::Persistent, ttl: 0 };
    told.op(with("/b", list("10.0.0.1")));
    told.rules.acl_bytes_max = 0;
    let another = || list("10.0.0.2");
    assert_eq!(told.op(with("/c", another())), failed(Code::BadArguments));
    assert_eq!(told.op(Op::SetAcl { path: "/a", acl: another(), version: -1 }), failed(Code::BadArguments));
    // Those that are there may be shared, and everybody's takes nothing.
    assert_eq!(created(&told.op(with("/c", list("10.0.0.1")))), "/c");
    assert_eq!(created(&told.op(create("/d", b"", CreateMode::Persistent))), "/d");
}

#[test]
fn sequence_names_count_creates_and_never_go_back() {
    let mut told = Told::fresh();
    told.op(create("/q", b"", CreateMode::Persistent));
    told.op(create("/q/plain", b"", CreateMode::Persistent));
    let first = told.op(create("/q/n-", b"", CreateMode::PersistentSequential));
    assert_eq!(created(&first), "/q/n-0000000001");
    told.op(Op::Delete { path: "/q/n-0000000001", version: -1 });
    let second = told.op(create("/q/", b"", CreateMode::PersistentSequential));
    assert_eq!(created(&second), "/q/0000000002");
    let q = told.node("/q").unwrap().stat();
    assert_eq!((q.cversion, q.num_children), (4, 2));
    assert_eq!(told.children("/q"), ["0000000002", "plain"]);
}

#[test]
fn versions_and_times_move_as_zookeepers_do() {
    let mut told = Told::fresh();
    told.op(create("/a", b"1", CreateMode::Persistent));
    told.time_ms = 2_000;
    assert_eq!(told.op(Op::SetData { path: "/a", data: None, version: 1 }), failed(Code::BadVersion));
    let set = told.op(Op::SetData { path: "/a", data: None, version: 0 });
    let expected =
        Stat { czxid: 1, mzxid: 3, pzxid: 1, ctime: 1_000, mtime: 2_000, version: 1, ..Stat::default() };
    assert_eq!(set, Outcome::Done(Reply::Stat(expected)));
    assert_eq!(told.node("/a").unwrap().data, None);
    let acl = told.op(Op::SetAcl { path: "/a", acl: vec![OPEN], version: 0 });
    assert_eq!(acl, Outcome::Done(Reply::Stat(Stat { aversion: 1, ..expected })));
    told.op(create("/a/b", b"", CreateMode::Persistent));
    assert_eq!(told.op(Op::Delete { path: "/a", version: -1 }), failed(Code::NotEmpty));
    told.op(Op::Delete { path: "/a/b", version: 0 });
    let a = told.node("/a").unwrap().stat();
    assert_eq!((a.pzxid, a.mzxid, a.cversion, a.num_children), (7, 3, 2, 0));
    for path in ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config", "", "x"] {
        assert_eq!(told.op(Op::Delete { path, version: -1 }), failed(Code::BadArguments), "{path:?}");
    }
}

#[test]
fn a_failed_multi_leaves_nothing_behind() {
    let mut told = Told::fresh();
    told.op(create("/q", b"", CreateMode::Persistent));
    let before = (told.tree.digest(), told.tree.snapshot().data_bytes(), told.tree.snapshot().node_count());
    let read = AclRef { perms: 1, id: IdRef { scheme: "world", id: "anyone" } };
    let private =
        Op::Create { path: "/q/p", data: None, acl: vec![read], mode: CreateMode::Container, ttl: 0 };
    let outcome = told.server(Command::Multi(vec![
        create("/q/n", b"xyz", CreateMode::PersistentSequential),
        private,
        Op::SetData { path: "/q/n0000000000", data: Some(b"y"), version: 0 },
        Op::Check { path: "/q", version: 9 },
        Op::Delete { path: "/none", version: -1 },
    ]));
    assert_eq!(outcome, Outcome::Done(Reply::MultiFailed { at: 3, code: Code::BadVersion }));
    let after = (told.tree.digest(), told.tree.snapshot().data_bytes(), told.tree.snapshot().node_count());
    assert_eq!(after, before);
    assert_eq!(told.children("/q"), [""; 0]);
    let name = told.op(create("/q/n", b"", CreateMode::PersistentSequential));
    assert_eq!(created(&name), "/q/n0000000000", "the sequence was rolled back");
}

#[test]
fn a_multi_sees_its_own_changes_under_one_zxid() {
    let mut told = Told::fresh();
    told.session(5);
    // Kafka's broker registration.
    let applied = told.session_says(
        5,
        Command::Multi(vec![
            Op::Create { path: "/b", data: None, acl: vec![OPEN], mode: CreateMode::Ephemeral, ttl: 0 },
            Op::SetData { path: "/b", data: Some(b"id"), version: 0 },
        ]),
    );
    let zxid = applied.zxid.unwrap().wire();
    let Outcome::Done(Reply::Multi(replies)) = applied.outcome else { panic!() };
    let Reply::Stat(stat) = replies[1] else { panic!() };
    assert_eq!((stat.czxid, stat.mzxid, stat.version, stat.ephemeral_owner), (zxid, zxid, 1, 5));
    let kinds: Vec<_> = applied.changes.iter().map(|change| change.kind).collect();
    assert_eq!(kinds, [ChangeKind::Created, ChangeKind::DataChanged]);
}

#[test]
fn a_tagged_write_is_applied_at_most_once_and_in_order() {
    let mut told = Told::fresh();
    told.session(5);
    let zxid = told.tree.zxid();
    let write = |generation, sequence| Logged {
        tag: Some(Tag { session: 5, generation, sequence }),
        ids: Vec::new(),
        command: Command::Single(create("/x-", b"", CreateMode::PersistentSequential)),
    };
    assert_eq!(told.tell(&write(1, 2)).outcome, Outcome::Dropped, "a gap");
    assert_eq!(told.tell(&write(2, 1)).outcome, Outcome::Dropped, "another generation");
    assert_eq!(told.tree.zxid(), zxid);
    assert!(matches!(told.tell(&write(1, 1)).outcome, Outcome::Done(_)));
    assert_eq!(told.tell(&write(1, 1)).outcome, Outcome::Dropped, "seen");
    assert_eq!(told.tree.session(5).unwrap().last_sequence, 1);

    let moving = |password| Command::MoveSession {
        session: 5,
        generation: 1,
        password,
        owner: 2,
        incarnation: 1,
        request: 2,
        timeout_ms: 6_000,
    };
    assert_eq!(told.server(moving([0; 16])), failed(Code::SessionExpired));
    let moved = Reply::SessionMoved { session: 5, generation: 2, timeout_ms: 6_000 };
    assert_eq!(told.server(moving([7; 16])), Outcome::Done(moved));
    let zxid = told.tree.zxid();
    assert_eq!(told.server(moving([7; 16])), Outcome::Dropped, "a late copy of the move");
    assert_eq!((told.tree.zxid(), told.tree.session(5).unwrap().generation), (zxid, 2));
    assert_eq!(told.tell(&write(1, 2)).outcome, Outcome::Dropped, "a straggler");
    assert!(matches!(told.tell(&write(2, 1)).outcome, Outcome::Done(_)));
    let row = told.tree.session(5).unwrap();
    assert_eq!((row.owner, row.generation, row.last_sequence, row.timeout_ms), (2, 2, 1, 6_000));

    let expire = |generation, epoch| Command::Expire { session: 5, generation, epoch };
    assert_eq!(told.server(expire(1, 0)), Outcome::Dropped);
    told.tree.begin_epoch();
    assert_eq!(told.server(expire(2, 0)), Outcome::Dropped, "of a leader that was deposed");
    let closed = Outcome::Done(Reply::SessionClosed { session: 5 });
    assert_eq!(told.server(expire(2, 1)), closed);
    let zxid = told.tree.zxid();
    assert_eq!(told.tell(&write(2, 2)).outcome, failed(Code::SessionExpired));
    assert_eq!(told.tree.zxid(), zxid);
}

#[test]
fn a_session_id_that_is_no_owner_is_refused() {
    let mut told = Told::fresh();
    let new = |session| Command::CreateSession {
        session,
        timeout_ms: 1,
        password: [0; 16],
        owner: 1,
        incarnation: 1,
        request: 1,
    };
    // No owner, a container, a TTL node (of which server id 255 would make all its sessions).
    for session in [0, i64::MIN, -2, 0xff00_0000_0000_0001_u64 as i64] {
        assert_eq!(told.server(new(session)), failed(Code::BadArguments), "{session:#x}");
    }
    told.session(1);
    assert_eq!(told.server(new(1)), failed(Code::NodeExists));
}

#[test]
fn ephemerals_end_with_their_session() {
    let mut told = Told::fresh();
    told.session(5);
    told.session(i64::MIN + 6);
    told.op(create("/d", b"", CreateMode::Persistent));
    for path in ["/d/b", "/a", "/d/a"] {
        told.session_says(5, Command::Single(create(path, b"", CreateMode::Ephemeral)));
        told.checkpoint();
    }
    told.session_says(i64::MIN + 6, Command::Single(create("/d/other", b"", CreateMode::Ephemeral)));
    told.session_says(5, Command::Single(Op::Delete { path: "/a", version: -1 }));
    let mut found = Vec::new();
    told.tree
        .snapshot()
        .ephemerals(5, "/d", &mut |path| {
            found.push(path.to_owned());
            true
        })
        .unwrap();
    assert_eq!(found, ["/d/a", "/d/b"]);
    assert_eq!(told.tree.snapshot().ephemeral_count(), 3);

    let closed = told.session_says(5, Command::CloseSession);
    assert_eq!(closed.outcome, Outcome::Done(Reply::SessionClosed { session: 5 }));
    let gone = |path| Change {
        path: ZPath::parse(path).unwrap(),
        kind: ChangeKind::Deleted,
        acl: open_acl(),
        parent_acl: Some(open_acl()),
    };
    assert_eq!(closed.changes, [gone("/d/a"), gone("/d/b")]);
    assert_eq!(told.children("/d"), ["other"]);
    assert_eq!(told.node("/d").unwrap().pzxid, closed.zxid.unwrap().wire());
    assert!(told.tree.session(5).is_none());
}

#[test]
fn the_sweeper_is_rechecked() {
    let mut told = Told::fresh();
    told.op(create("/c", b"", CreateMode::Container));
    told.op(create("/t", b"", CreateMode::Ttl));
    let mut timed = Vec::new();
    told.tree
        .snapshot()
        .timed(None, &mut |path, node| {
            timed.push((path.to_owned(), node.czxid, node.pzxid));
            true
        })
        .unwrap();
    assert_eq!(timed, [("/c".to_owned(), 1, 1), ("/t".to_owned(), 2, 2)]);
    let mut rest = Vec::new();
    told.tree
        .snapshot()
        .timed(Some("/c"), &mut |path, _| {
            rest.push(path.to_owned());
            true
        })
        .unwrap();
    assert_eq!(rest, ["/t"]);

    let ttl = |pzxid| Command::Sweep { path: "/t", czxid: 2, pzxid, kind: SweepKind::Ttl };
    told.time_ms += 5;
    assert_eq!(told.server(ttl(2)), Outcome::Dropped, "not yet");
    told.time_ms += 1;
    assert_eq!(told.server(ttl(9)), Outcome::Dropped, "changed");
    assert_eq!(told.server(ttl(2)), Outcome::Done(Reply::Swept));
    told.op(create("/c/x", b"", CreateMode::Persistent));
    let pzxid = told.node("/c").unwrap().pzxid;
    let container = Command::Sweep { path: "/c", czxid: 1, pzxid, kind: SweepKind::Container };
    assert_eq!(told.server(container.clone()), Outcome::Dropped, "not empty");
    told.op(Op::Delete { path: "/c/x", version: -1 });
    assert_eq!(told.server(container), Outcome::Dropped, "it had a child meanwhile");
}

#[test]
fn quotas_count_warn_and_refuse() {
    let mut told = Told::fresh();
    told.op(create("/a", b"12345", CreateMode::Persistent));
    told.op(create("/zookeeper/quota/a", b"", CreateMode::Persistent));
    let limits = b"count=-1,bytes=-1=;byteHardLimit=10;countHardLimit=3";
    told.op(create("/zookeeper/quota/a/zookeeper_limits", limits, CreateMode::Persistent));
    told.op(create("/zookeeper/quota/a/zookeeper_stats", b"", CreateMode::Persistent));
    let stats = |told: &Told| {
        let node = told.node("/zookeeper/quota/a/zookeeper_stats").unwrap();
        (String::from_utf8(node.data.as_deref().unwrap().to_vec()).unwrap(), node.version, node.mzxid)
    };
    assert_eq!(stats(&told), ("count=1,bytes=5".to_owned(), 0, 4));
    told.op(create("/a/b", b"1", CreateMode::Persistent));
    told.op(create("/a/c", b"1", CreateMode::Persistent));
    assert_eq!(stats(&told), ("count=3,bytes=7".to_owned(), 0, 4));
    let full = failed(Code::QuotaExceeded);
    assert_eq!(told.op(create("/a/d", b"", CreateMode::Persistent)), full);
    assert_eq!(told.op(Op::SetData { path: "/a", data: Some(b"123456789"), version: -1 }), full);

    // It outlives a restart, and is known at once.
    told.checkpoint();
    told.tree = Tree::open(told.disk.shared(), options(1 << 20)).unwrap();
    assert_eq!(told.op(create("/a/d", b"", CreateMode::Persistent)), full);
    told.rules.enforce_quota = false;
    assert!(matches!(told.op(create("/a/d", b"", CreateMode::Persistent)), Outcome::Done(_)));
    told.op(Op::Delete { path: "/a/b", version: -1 });
    assert_eq!(stats(&told).0, "count=3,bytes=6");
    told.rules.enforce_quota = true;
    told.op(Op::Delete { path: "/zookeeper/quota/a/zookeeper_limits", version: -1 });
    assert!(matches!(told.op(create("/a/e", b"", CreateMode::Persistent)), Outcome::Done(_)));
}

#[test]
fn rights_are_those_of_the_stamped_ids() {
    let mut told = Told::fresh();
    let bob = IdRef { scheme: "digest", id: "bob:1" };
    let tell = |told: &mut Told, ids: &[IdRef<'_>], op: Op<'_>| {
        told.tell(&Logged { tag: None, ids: ids.to_vec(), command: Command::Single(op) }).outcome
    };
    let auth = AclRef { perms: 31, id: IdRef { scheme: "auth", id: "" } };
    let op = Op::Create { path: "/b", data: None, acl: vec![auth], mode: CreateMode::Persistent, ttl: 0 };
    assert_eq!(tell(&mut told, &[], op.clone()), failed(Code::InvalidAcl));
    assert!(matches!(tell(&mut told, &[bob], op), Outcome::Done(_)));
    let id = told.node("/b").unwrap().acl;
    assert_eq!(&*told.tree.snapshot().acl(id), [Acl::new(31, "digest", "bob:1")]);

    let child = create("/b/c", b"", CreateMode::Persistent);
    assert_eq!(tell(&mut told, &[], child.clone()), failed(Code::NoAuth));
    assert!(matches!(tell(&mut told, &[bob], child), Outcome::Done(_)));
    let delete = Op::Delete { path: "/b/c", version: -1 };
    assert_eq!(tell(&mut told, &[], delete.clone()), failed(Code::NoAuth));
    let super_id = IdRef { scheme: "super", id: "" };
    assert_eq!(tell(&mut told, &[super_id], delete), Outcome::Done(Reply::Deleted));
    let check = Op::Check { path: "/b", version: -1 };
    assert_eq!(tell(&mut told, &[], check.clone()), failed(Code::NoAuth));
    told.rules.skip_acl = true;
    assert_eq!(tell(&mut told, &[], check), Outcome::Done(Reply::Checked));
}

#[test]
fn a_snapshot_stays_while_the_tree_goes_on() {
    let mut told = Told::fresh();
    told.op(create("/a", b"old", CreateMode::Persistent));
    let old = told.tree.snapshot();
    told.op(Op::SetData { path: "/a", data: Some(b"new"), version: -1 });
    told.op(create("/b", b"", CreateMode::Persistent));
    let data = |snapshot: &Snapshot| snapshot.node("/a").unwrap().unwrap().data.clone().unwrap().to_vec();
    assert_eq!(data(&old), b"old");
    let checkpoint = told.tree.freeze().unwrap();
    let between = told.tree.snapshot();
    let written = checkpoint.write().unwrap();
    // The file is ahead of both, the cache is too.
    assert_eq!((data(&old).as_slice(), data(&between).as_slice()), (&b"old"[..], &b"new"[..]));
    drop(told.tree.install(written));
    told.op(Op::Delete { path: "/b", version: -1 });
    told.checkpoint();
    assert_eq!((data(&old).as_slice(), data(&between).as_slice()), (&b"old"[..], &b"new"[..]));
    assert_eq!(old.node("/b").unwrap(), None);
    assert!(between.node("/b").unwrap().is_some());
    assert_eq!(told.node("/b"), None);
}

#[test]
fn pressure_rises_and_falls() {
    let mut told = Told::fresh();
    let data = [0; 1_000];
    let fill = |told: &mut Told, until: Pressure| {
        for i in 0.. {
            assert!(i < 10_000, "no {until:?}");
            if told.tree.pressure() == until {
                break;
            }
            told.op(create("/n", &data, CreateMode::PersistentSequential));
        }
    };
    fill(&mut told, Pressure::CheckpointDue);
    let checkpoint = told.tree.freeze().unwrap();
    assert_eq!(told.tree.pressure(), Pressure::None);
    assert!(told.tree.freeze().is_none(), "one at a time");
    fill(&mut told, Pressure::Full);
    let written = checkpoint.write().unwrap();
    drop(told.tree.install(written));
    assert_eq!(told.tree.pressure(), Pressure::CheckpointDue);
    told.checkpoint();
    assert_eq!(told.tree.pressure(), Pressure::None);
    assert_eq!(told.tree.checkpointed(), told.tree.position());
}

#[test]
fn another_format_is_refused() {
    let told = Told::fresh();
    {
        let write = told.tree.db.begin_write().unwrap();
        write.open_table(tables::META).unwrap().insert(tables::FORMAT_KEY, &99u32.to_le_bytes()[..]).unwrap();
        write.commit().unwrap();
    }
    let disk = told.disk.clone();
    drop(told);
    let error = Tree::open(disk.shared(), options(1 << 20)).err().unwrap();
    assert!(matches!(error, TreeError::Format { found: 99, known: tables::FORMAT }), "{error}");
}

/// A server that lost its data comes with another store: the one recorded first stays, through checkpoints too.
#[test]
fn the_first_store_of_a_server_stays_recorded() {
    let mut told = Told::fresh();
    assert_eq!(told.tree.recorded_store(2), None);
    told.tree.introduce(2, 1, 77);
    told.tree.introduce(2, 1, 78);
    told.tree.introduce(3, 1, 79);
    told.tree.advance(told.tree.position().index + 1, 1);
    told.checkpoint();
    told.reopen();
    assert_eq!(told.tree.recorded_store(2), Some(77));
    assert_eq!(told.tree.recorded_store(3), Some(79));
}
