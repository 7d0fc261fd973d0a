//! The wire, byte for byte: every record, written out by hand from ZooKeeper 3.9's jute definitions, and
//! compared once with what ZooKeeper's own Java classes write.
//!
//! Each vector is a whole packet: length, header (where there is one), body.

use warren_storage::{AclRef, Code, CreateMode, IdRef, Op, Stat};
use warren_transport::reply::{self, EventType, KeeperState, OpResult, encode};
use warren_transport::request::{AddWatchMode, SetWatches, WatcherType};
use warren_transport::{
    Change, ConnectRequest, ConnectResponse, Opcode, Read, ReplyHeader, Request, RequestHeader, Response,
    WatcherEvent, xid,
};

/// Bytes from hexadecimal digits; whatever stands between them is for the reader.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
    assert_eq!(digits.len() % 2, 0, "an odd digit in {text}");
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// The request is these bytes, and these bytes are the request.
fn request(xid: i32, request: &Request<'_>, text: &str) {
    let bytes = hex(text);
    let mut out = Vec::new();
    request.encode(xid, &mut out);
    assert_eq!(out, bytes, "encoding {request:?}");
    let (header, body) = RequestHeader::decode(&bytes[4..]).unwrap();
    assert_eq!(header, RequestHeader { xid, opcode: request.opcode().wire() });
    assert_eq!(Request::decode(header.opcode, body).unwrap(), *request);
}

/// The response with header (xid 7, zxid 0x100000009, err 0) is these bytes, and they are the response.
fn response(opcode: Opcode, response: &Response<'_>, text: &str) {
    let bytes = hex(text);
    let mut out = Vec::new();
    response.encode(ReplyHeader::ok(7, 0x1_0000_0009), &mut out);
    assert_eq!(out, bytes, "encoding {response:?}");
    let (header, body) = ReplyHeader::decode(&bytes[4..]).unwrap();
    assert_eq!(header, ReplyHeader { xid: 7, zxid: 0x1_0000_0009, err: 0 });
    assert_eq!(Response::decode(opcode, body).unwrap(), *response);
}

const WORLD: AclRef<'_> = AclRef { perms: 31, id: IdRef { scheme: "world", id: "anyone" } };
/// [`WORLD`], alone in its vector.
const WORLD_HEX: &str = "00000001 0000001f 00000005 776f726c64 00000006 616e796f6e65";

const STAT: Stat = Stat {
    czxid: 0x1_0000_0002,
    mzxid: 0x1_0000_0003,
    ctime: 1_700_000_000_000,
    mtime: 1_700_000_000_001,
    version: 4,
    cversion: 5,
    aversion: 6,
    ephemeral_owner: 0x100_0000_0000_0007,
    data_length: 8,
    num_children: 9,
    pzxid: 0x1_0000_000a,
};
const STAT_HEX: &str = "0000000100000002 0000000100000003 0000018bcfe56800 0000018bcfe56801
    00000004 00000005 00000006 0100000000000007 00000008 00000009 000000010000000a";

#[test]
fn the_handshake() {
    let password = [0x11u8; 16];
    let password_hex = "00000010 11111111111111111111111111111111";
    for (read_only, length, last) in [(Some(true), "0000002d", "01"), (None, "0000002c", "")] {
        let request = ConnectRequest {
            protocol_version: 0,
            last_zxid_seen: 0x1_0000_0009,
            timeout_ms: 10_000,
            session: 0x100_0000_0000_0007,
            password: &password,
            read_only,
        };
        let bytes = hex(&format!(
            "{length} 00000000 0000000100000009 00002710 0100000000000007 {password_hex} {last}"
        ));
        let mut out = Vec::new();
        request.encode(&mut out);
        assert_eq!(out, bytes);
        assert_eq!(ConnectRequest::decode(&bytes[4..]).unwrap(), request);
    }
    for (read_only, length, last) in [(Some(false), "00000025", "00"), (None, "00000024", "")] {
        let response = ConnectResponse {
            protocol_version: 0,
            timeout_ms: 10_000,
            session: 0x100_0000_0000_0007,
            password,
            read_only,
        };
        let bytes = hex(&format!("{length} 00000000 00002710 0100000000000007 {password_hex} {last}"));
        let mut out = Vec::new();
        response.encode(&mut out);
        assert_eq!(out, bytes);
        assert_eq!(ConnectResponse::decode(&bytes[4..]).unwrap(), response);
        assert!(!response.is_expired());
    }
    let mut out = Vec::new();
    ConnectResponse::expired(Some(false)).encode(&mut out);
    assert_eq!(out, hex(&format!("00000025 00000000 00000000 {:016x} 00000010 {:032x} 00", 0, 0)));
    assert!(ConnectResponse::decode(&out[4..]).unwrap().is_expired());
}

#[test]
fn requests_that_change() {
    let create = |opcode, data, mode, ttl| {
        Request::Change(Change { opcode, op: Op::Create { path: "/a", data, acl: vec![WORLD], mode, ttl } })
    };
    let body = |data: &str, flags: &str| format!("00000002 2f61 {data} {WORLD_HEX} {flags}");
    request(
        7,
        &create(Opcode::Create, Some(b"xy"), CreateMode::EphemeralSequential, 0),
        &format!("00000033 00000007 00000001 {}", body("00000002 7879", "00000003")),
    );
    // Null data is not empty data.
    request(
        7,
        &create(Opcode::Create2, None, CreateMode::Persistent, 0),
        &format!("00000031 00000007 0000000f {}", body("ffffffff", "00000000")),
    );
    request(
        7,
        &create(Opcode::CreateContainer, Some(b""), CreateMode::Container, 0),
        &format!("00000031 00000007 00000013 {}", body("00000000", "00000004")),
    );
    request(
        7,
        &create(Opcode::CreateTtl, Some(b""), CreateMode::TtlSequential, 5_000),
        &format!("00000039 00000007 00000015 {} 0000000000001388", body("00000000", "00000006")),
    );
    request(
        7,
        &Request::Change(Change::new(Op::Delete { path: "/a", version: -1 })),
        "00000012 00000007 00000002 00000002 2f61 ffffffff",
    );
    request(
        7,
        &Request::Change(Change::new(Op::SetData { path: "/a", data: Some(b"xy"), version: 3 })),
        "00000018 00000007 00000005 00000002 2f61 00000002 7879 00000003",
    );
    request(
        7,
        &Request::Change(Change::new(Op::SetAcl { path: "/a", acl: vec![WORLD], version: -1 })),
        &format!("0000002d 00000007 00000007 00000002 2f61 {WORLD_HEX} ffffffff"),
    );
}

#[test]
fn requests_that_read() {
    let path = "/a";
    for (opcode, one) in [
        ("00000003", Request::Exists { path, watch: true }),
        ("00000004", Request::GetData { path, watch: true }),
        ("00000008", Request::GetChildren { path, watch: true }),
        ("0000000c", Request::GetChildren2 { path, watch: true }),
    ] {
        request(7, &one, &format!("0000000f 00000007 {opcode} 00000002 2f61 01"));
    }
    for (opcode, one) in [
        ("00000006", Request::GetAcl { path }),
        ("00000009", Request::Sync { path }),
        ("00000067", Request::GetEphemerals { prefix: Some(path) }),
        ("00000068", Request::GetAllChildrenNumber { path }),
    ] {
        request(7, &one, &format!("0000000e 00000007 {opcode} 00000002 2f61"));
    }
    request(7, &Request::GetEphemerals { prefix: None }, "0000000c 00000007 00000067 ffffffff");
    request(7, &Request::WhoAmI, "00000008 00000007 0000006b");
    request(7, &Request::CloseSession, "00000008 00000007 fffffff5");
    request(xid::PING, &Request::Ping, "00000008 fffffffe 0000000b");
}

#[test]
fn requests_about_watches_ensembles_and_credentials() {
    let path = "/a";
    request(
        7,
        &Request::CheckWatches { path, watcher: WatcherType::Data },
        "00000012 00000007 00000011 00000002 2f61 00000002",
    );
    request(
        7,
        &Request::RemoveWatches { path, watcher: WatcherType::Any },
        "00000012 00000007 00000012 00000002 2f61 00000003",
    );
    request(
        7,
        &Request::AddWatch { path, mode: AddWatchMode::PersistentRecursive },
        "00000012 00000007 0000006a 00000002 2f61 00000001",
    );
    let mut watches = SetWatches {
        relative_zxid: 0x1_0000_0009,
        data: vec!["/a"],
        exist: vec![],
        child: vec!["/b", "/c"],
        persistent: None,
    };
    let lists = "0000000100000009 00000001 00000002 2f61 00000000 00000002 00000002 2f62 00000002 2f63";
    request(
        xid::SET_WATCHES,
        &Request::SetWatches(watches.clone()),
        &format!("0000002e fffffff8 00000065 {lists}"),
    );
    watches.persistent = Some((vec!["/d"], vec![]));
    request(
        xid::SET_WATCHES,
        &Request::SetWatches(watches),
        &format!("0000003c fffffff8 00000069 {lists} 00000001 00000002 2f64 00000000"),
    );
    request(
        7,
        &Request::Reconfig { joining: Some("j"), leaving: None, members: None, config_id: -1 },
        "0000001d 00000007 00000010 00000001 6a ffffffff ffffffff ffffffffffffffff",
    );
    request(
        xid::AUTH,
        &Request::Auth { kind: 0, scheme: "digest", auth: Some(b"u:p") },
        "0000001d fffffffc 00000064 00000000 00000006 646967657374 00000003 753a70",
    );
    request(7, &Request::Sasl { token: b"" }, "0000000c 00000007 00000066 00000000");
}

#[test]
fn requests_of_many() {
    let path = "/a";
    request(
        7,
        &Request::Multi(vec![
            Change {
                opcode: Opcode::Create,
                op: Op::Create { path, data: None, acl: vec![WORLD], mode: CreateMode::Ephemeral, ttl: 0 },
            },
            Change::new(Op::SetData { path, data: Some(b"xy"), version: 0 }),
            Change::new(Op::Check { path, version: -1 }),
            Change::new(Op::Delete { path, version: 1 }),
        ]),
        &format!(
            "00000082 00000007 0000000e
            00000001 00 ffffffff 00000002 2f61 ffffffff {WORLD_HEX} 00000001
            00000005 00 ffffffff 00000002 2f61 00000002 7879 00000000
            0000000d 00 ffffffff 00000002 2f61 ffffffff
            00000002 00 ffffffff 00000002 2f61 00000001
            ffffffff 01 ffffffff"
        ),
    );
    request(7, &Request::Multi(vec![]), "00000011 00000007 0000000e ffffffff 01 ffffffff");
    request(
        7,
        &Request::MultiRead(vec![Read::GetData { path }, Read::GetChildren { path }]),
        "00000031 00000007 00000016
        00000004 00 ffffffff 00000002 2f61 00
        00000008 00 ffffffff 00000002 2f61 00
        ffffffff 01 ffffffff",
    );
}

#[test]
fn replies() {
    let header = "00000007 0000000100000009 00000000";
    response(Opcode::Delete, &Response::Empty, &format!("00000010 {header}"));
    response(Opcode::Create, &Response::Path("/a"), &format!("00000016 {header} 00000002 2f61"));
    response(Opcode::Sync, &Response::Path("/a"), &format!("00000016 {header} 00000002 2f61"));
    response(
        Opcode::Create2,
        &Response::PathAndStat("/a", STAT),
        &format!("0000005a {header} 00000002 2f61 {STAT_HEX}"),
    );
    response(Opcode::Exists, &Response::Stat(STAT), &format!("00000054 {header} {STAT_HEX}"));
    response(
        Opcode::GetData,
        &Response::Data(Some(b"xy"), STAT),
        &format!("0000005a {header} 00000002 7879 {STAT_HEX}"),
    );
    response(Opcode::GetData, &Response::Data(None, STAT), &format!("00000058 {header} ffffffff {STAT_HEX}"));
    response(
        Opcode::GetAcl,
        &Response::Acl(vec![WORLD], STAT),
        &format!("0000006f {header} {WORLD_HEX} {STAT_HEX}"),
    );
    let children = "00000002 00000001 62 00000001 63";
    response(
        Opcode::GetChildren,
        &Response::Children(vec!["b", "c"]),
        &format!("0000001e {header} {children}"),
    );
    response(
        Opcode::GetChildren2,
        &Response::ChildrenAndStat(vec!["b", "c"], STAT),
        &format!("00000062 {header} {children} {STAT_HEX}"),
    );
    response(Opcode::GetEphemerals, &Response::Children(vec![]), &format!("00000014 {header} 00000000"));
    response(Opcode::GetAllChildrenNumber, &Response::Number(5), &format!("00000014 {header} 00000005"));
    response(Opcode::AddWatch, &Response::Number(0), &format!("00000014 {header} 00000000"));
    response(Opcode::Sasl, &Response::Token(Some(b"xy")), &format!("00000016 {header} 00000002 7879"));
    response(Opcode::Sasl, &Response::Token(None), &format!("00000014 {header} ffffffff"));
    response(
        Opcode::WhoAmI,
        &Response::ClientInfo(vec![IdRef { scheme: "ip", id: "127.0.0.1" }]),
        &format!("00000027 {header} 00000001 00000002 6970 00000009 3132372e302e302e31"),
    );
}

#[test]
fn replies_to_many() {
    let header = "00000007 0000000100000009 00000000";
    response(
        Opcode::Multi,
        &Response::Multi(vec![
            OpResult::Create { path: "/a" },
            OpResult::Create2 { path: "/a", stat: STAT },
            OpResult::Delete,
            OpResult::SetData { stat: STAT },
            OpResult::Check,
        ]),
        &format!(
            "000000da {header}
            00000001 00 00000000 00000002 2f61
            0000000f 00 00000000 00000002 2f61 {STAT_HEX}
            00000002 00 00000000
            00000005 00 00000000 {STAT_HEX}
            0000000d 00 00000000
            ffffffff 01 ffffffff"
        ),
    );
    // The second of three failed.
    response(
        Opcode::Multi,
        &Response::Multi(vec![
            OpResult::Error { err: 0 },
            OpResult::Error { err: Code::NoNode.wire() },
            OpResult::Error { err: Code::RuntimeInconsistency.wire() },
        ]),
        &format!(
            "00000040 {header}
            ffffffff 00 00000000 00000000
            ffffffff 00 ffffff9b ffffff9b
            ffffffff 00 fffffffe fffffffe
            ffffffff 01 ffffffff"
        ),
    );
    response(
        Opcode::MultiRead,
        &Response::Multi(vec![
            OpResult::GetData { data: Some(b"xy"), stat: STAT },
            OpResult::GetChildren { children: vec!["b"] },
            OpResult::Error { err: Code::NoNode.wire() },
        ]),
        &format!(
            "0000008b {header}
            00000004 00 00000000 00000002 7879 {STAT_HEX}
            00000008 00 00000000 00000001 00000001 62
            ffffffff 00 ffffff9b ffffff9b
            ffffffff 01 ffffffff"
        ),
    );
}

#[test]
fn refusals_pings_and_events() {
    let mut out = Vec::new();
    encode::error(&mut out, 7, 0x1_0000_0009, Code::NoNode);
    assert_eq!(out, hex("00000010 00000007 0000000100000009 ffffff9b"));
    assert_eq!(reply::code(-101), Some(Code::NoNode));
    assert_eq!((reply::code(0), reply::code(-126)), (None, None));

    out.clear();
    encode::empty(&mut out, ReplyHeader::ok(xid::PING, 0x1_0000_0009));
    assert_eq!(out, hex("00000010 fffffffe 0000000100000009 00000000"));

    out.clear();
    encode::event(&mut out, 0x1_0000_0009, EventType::NodeDataChanged, "/a");
    assert_eq!(out, hex("0000001e ffffffff 0000000100000009 00000000 00000003 00000003 00000002 2f61"));
    let (header, body) = ReplyHeader::decode(&out[4..]).unwrap();
    assert_eq!(header, ReplyHeader { xid: xid::NOTIFICATION, zxid: 0x1_0000_0009, err: 0 });
    let event =
        WatcherEvent { kind: EventType::NodeDataChanged, state: KeeperState::SYNC_CONNECTED, path: "/a" };
    assert_eq!(WatcherEvent::decode(body).unwrap(), event);
}
