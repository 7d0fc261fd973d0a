//! Data of every kind, writers that go on while a backup is taken, and the tree as a client reads it.

use super::Outcome;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use warren_storage::{AclRef, CreateMode, IdRef, Op, Stat};
use warren_transport::io::blocking::{Connection, Options};
use warren_transport::{Change, Opcode, Request, Response};

pub(super) const OPEN: AclRef<'static> = AclRef { perms: 31, id: IdRef { scheme: "world", id: "anyone" } };
/// Who may do everything with znodes that have a list of their own.
const USER: &str = "ops:secret";
/// Requests under way at most.
const UNDER_WAY_MAX: usize = 200;

/// A znode as a client sees it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) data: Option<Vec<u8>>,
    pub(super) stat: Stat,
    pub(super) acl: Vec<(i32, String, String)>,
}

pub(super) type Tree = BTreeMap<String, Seen>;

pub(super) fn connect(at: SocketAddr) -> Outcome<Connection> {
    let mut connection = Connection::connect(at, &Options { timeout_ms: 20_000, ..Options::default() })?;
    connection.auth("digest", USER.as_bytes())?;
    Ok(connection)
}

pub(super) fn create<'a>(path: &'a str, data: Option<&'a [u8]>, mode: CreateMode) -> Change<'a> {
    let opcode = match mode {
        CreateMode::Container => Opcode::CreateContainer,
        CreateMode::Ttl | CreateMode::TtlSequential => Opcode::CreateTtl,
        _ => Opcode::Create,
    };
    Change { opcode, op: Op::Create { path, data, acl: vec![OPEN], mode, ttl: 3_600_000 } }
}

pub(super) fn set<'a>(path: &'a str, data: &'a [u8]) -> Change<'a> {
    Change { opcode: Opcode::SetData, op: Op::SetData { path, data: Some(data), version: -1 } }
}

/// Do it; it must be granted.
pub(super) fn change(connection: &mut Connection, change: Change<'_>) -> Outcome<()> {
    connection.call(&Request::Change(change))?.response()?;
    Ok(())
}

/// The name that a sequential znode got.
pub(super) fn sequential(connection: &mut Connection, prefix: &str, mode: CreateMode) -> Outcome<String> {
    let reply = connection.call(&Request::Change(create(prefix, Some(b""), mode)))?;
    match reply.response()? {
        Response::Path(path) => Ok(path.to_owned()),
        other => Err(format!("{other:?} is no path").into()),
    }
}

/// Many requests, as fast as they are answered.
pub(super) fn pipeline(
    connection: &mut Connection,
    count: usize,
    mut request: impl FnMut(usize, &mut Connection) -> Outcome<()>,
) -> Outcome<()> {
    for n in 0..count {
        while connection.pending() >= UNDER_WAY_MAX {
            connection.flush()?;
            connection.recv()?.response()?;
        }
        request(n, connection)?;
    }
    connection.flush()?;
    while connection.pending() > 0 {
        connection.recv()?.response()?;
    }
    Ok(())
}

/// Znodes of every kind, and `count` of `bytes` each. The connection's session has ephemerals.
pub(super) fn fill(connection: &mut Connection, count: usize, bytes: usize) -> Outcome<()> {
    use CreateMode::{Container, Ephemeral, EphemeralSequential, Persistent, PersistentSequential, Ttl};
    let plain: &[(&str, Option<&[u8]>, CreateMode)] = &[
        ("/null", None, Persistent),
        ("/empty", Some(b""), Persistent),
        ("/binary", Some(&[0, 255, 10, 13]), Persistent),
        ("/ümlaut", Some("ß".as_bytes()), Persistent),
        ("/container", Some(b"c"), Container),
        ("/container/child", Some(b""), Persistent),
        ("/ttl", Some(b"t"), Ttl),
        ("/locks", Some(b""), Persistent),
        ("/locks/held", Some(b"by me"), Ephemeral),
        ("/sequence", Some(b""), Persistent),
        ("/listed", Some(b"secret"), Persistent),
        ("/deleted", Some(b""), Persistent),
        ("/pair", Some(b""), Persistent),
        ("/pair/a", Some(b"0"), Persistent),
        ("/pair/b", Some(b"0"), Persistent),
        ("/load", Some(b""), Persistent),
        ("/data", Some(b""), Persistent),
        ("/limited", Some(b""), Persistent),
        ("/zookeeper/quota/limited", Some(b""), Persistent),
        ("/zookeeper/quota/limited/zookeeper_limits", Some(b"count=100,bytes=100000"), Persistent),
        ("/zookeeper/quota/limited/zookeeper_stats", Some(b"count=1,bytes=0"), Persistent),
    ];
    for (path, data, mode) in plain {
        change(connection, create(path, *data, *mode)).map_err(|e| format!("create {path}: {e}"))?;
    }
    change(connection, create("/large", Some(&vec![7; 900_000]), Persistent))?;
    change(connection, create("/limited/x", Some(b"1234"), Persistent))?;
    for _ in 0..3 {
        sequential(connection, "/locks/queue-", EphemeralSequential)?;
        sequential(connection, "/sequence/s-", PersistentSequential)?;
    }
    for version in 0..4_u8 {
        change(connection, set("/empty", &[version]))?;
    }
    change(connection, Change { opcode: Opcode::Delete, op: Op::Delete { path: "/deleted", version: -1 } })?;
    let digest = warren_server::identity::digest_of(USER);
    let acl = vec![
        AclRef { perms: 31, id: IdRef { scheme: "digest", id: &digest } },
        AclRef { perms: 1, id: IdRef { scheme: "ip", id: "10.0.0.0/8" } },
    ];
    change(
        connection,
        Change { opcode: Opcode::SetAcl, op: Op::SetAcl { path: "/listed", acl, version: -1 } },
    )?;
    // Neither of one byte nor of noise, so that it compresses as what people store does.
    let mut data = vec![0; bytes];
    let mut state = 88_172_645_463_325_252_u64;
    pipeline(connection, count, |n, connection| {
        if n % 1_000 == 0 {
            connection.send(&Request::Change(create(
                &format!("/data/{:04}", n / 1_000),
                None,
                Persistent,
            )))?;
        }
        for (at, byte) in data.iter_mut().enumerate() {
            if at % 3 == 0 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
            }
            *byte = b"abcdefghijklmnop"[((state >> (at % 3 * 8)) & 15) as usize];
        }
        let path = format!("/data/{:04}/{n:08}", n / 1_000);
        connection.send(&Request::Change(create(&path, Some(&data), Persistent)))?;
        Ok(())
    })
}

/// Everything a client can see, the data of large folders sampled: one znode in `one_in` below `/data`.
pub(super) fn read(at: SocketAddr, one_in: usize) -> Outcome<Tree> {
    let mut connection = connect(at)?;
    let mut tree = Tree::new();
    let mut waiting = vec!["/".to_owned()];
    while let Some(path) = waiting.pop() {
        let reply = connection.call(&Request::GetData { path: &path, watch: false })?;
        let Response::Data(data, stat) = reply.response()? else { return Err("no data".into()) };
        let (data, stat) = (data.map(<[u8]>::to_vec), stat);
        let reply = connection.call(&Request::GetAcl { path: &path })?;
        let Response::Acl(acl, _) = reply.response()? else { return Err("no list".into()) };
        let acl = acl.iter().map(|a| (a.perms, a.id.scheme.to_owned(), a.id.id.to_owned())).collect();
        if stat.num_children > 0 {
            let reply = connection.call(&Request::GetChildren { path: &path, watch: false })?;
            let Response::Children(names) = reply.response()? else { return Err("no children".into()) };
            let one_in = if path.starts_with("/data/") { one_in } else { 1 };
            let below = if path == "/" { "" } else { path.as_str() };
            waiting.extend(names.iter().step_by(one_in).map(|name| format!("{below}/{name}")));
        }
        tree.insert(path, Seen { data, stat, acl });
    }
    let _ = connection.close();
    Ok(tree)
}

/// What differs, but for what must: ephemerals are gone, and their parents know.
pub(super) fn differences(before: &Tree, after: &Tree) -> Vec<String> {
    let mut all = Vec::new();
    let parents: Vec<&str> = before
        .iter()
        .filter(|(_, seen)| seen.stat.ephemeral_owner != 0)
        .filter_map(|(path, _)| Some(path.rsplit_once('/')?.0))
        .collect();
    for (path, seen) in before {
        let mut seen = seen.clone();
        let mut found = after.get(path).cloned();
        if seen.stat.ephemeral_owner != 0 {
            if found.is_some() {
                all.push(format!("{path} is an ephemeral and is there"));
            }
            continue;
        }
        if parents.contains(&path.as_str()) {
            if let Some(found) = &mut found {
                // Deleting counts; nothing else moved.
                let gone = seen.stat.num_children - found.stat.num_children;
                if found.stat.cversion - seen.stat.cversion != gone {
                    all.push(format!("{path}: cversion {:?}", found.stat));
                }
                (found.stat.pzxid, found.stat.cversion, found.stat.num_children) =
                    (seen.stat.pzxid, seen.stat.cversion, seen.stat.num_children);
            }
        }
        // It counts, and each server for itself.
        if path.ends_with("/zookeeper_stats") {
            seen.stat = Stat::default();
            found.iter_mut().for_each(|found| found.stat = Stat::default());
        }
        if found.as_ref() != Some(&seen) {
            let was = (seen.stat, &seen.acl, seen.data.as_ref().map(Vec::len));
            let is = found.map(|found| (found.stat, found.acl, found.data.map(|data| data.len())));
            all.push(format!("{path}: {was:?} became {is:?}"));
        }
    }
    all.extend(after.keys().filter(|path| !before.contains_key(*path)).map(|path| format!("{path} is new")));
    all
}

/// A writer that keeps two znodes equal, one transaction after the other, until it is to stop.
pub(super) fn keep_a_pair(at: SocketAddr, stop: &AtomicBool, acknowledged: &AtomicU64) -> Outcome<()> {
    let mut connection = connect(at)?;
    let mut n = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let data = n.to_string();
        let both = vec![set("/pair/a", data.as_bytes()), set("/pair/b", data.as_bytes())];
        let reply = connection.call(&Request::Multi(both))?;
        reply.response()?;
        acknowledged.store(n, Ordering::Release);
    }
    let _ = connection.close();
    Ok(())
}

/// Latencies of a client that writes and reads at a steady pace, µs.
pub(super) fn latencies(
    at: SocketAddr,
    name: &str,
    pause: Duration,
    stop: &AtomicBool,
) -> Outcome<Vec<(Instant, u64)>> {
    let mut connection = connect(at)?;
    let path = format!("/load/{name}");
    change(&mut connection, create(&path, Some(b""), CreateMode::Persistent))?;
    let mut all = Vec::new();
    let mut n = 0_u32;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        let began = Instant::now();
        match n % 2 {
            0 => change(&mut connection, set(&path, &[n as u8; 100]))?,
            _ => drop(connection.call(&Request::GetData { path: &path, watch: false })?),
        }
        all.push((began, began.elapsed().as_micros() as u64));
        std::thread::sleep(pause);
    }
    let _ = connection.close();
    Ok(all)
}

/// The value below which so many of 100 lie.
pub(super) fn percentile(mut all: Vec<u64>, percent: usize) -> u64 {
    all.sort_unstable();
    all.get(all.len() * percent / 100).or(all.last()).copied().unwrap_or(0)
}
