//! What holds for every record: it survives the wire, a packet cut short anywhere is refused as such and nothing
//! panics, and a count that promises more than the packet has reserves nothing.

use bytes::BytesMut;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use warren_storage::{AclRef, Code, CreateMode, IdRef, Op, Stat};
use warren_transport::frame::{PACKET_BYTES_MAX, bytes_missing};
use warren_transport::jute::Reader;
use warren_transport::reply::{EventType, KeeperState, OpResult, encode};
use warren_transport::request::{AddWatchMode, SetWatches, WatcherType};
use warren_transport::*;

/// Strings are drawn once and borrowed from by every record, as requests borrow from their packet.
const STRINGS: &[&str] =
    &["", "/", "/a", "/a/b", "/…", "/\u{20000}", "world", "anyone", "x y", "\u{0}", "/longer-than-most"];

fn string() -> impl Strategy<Value = &'static str> {
    prop::sample::select(STRINGS)
}
fn strings() -> impl Strategy<Value = Vec<&'static str>> {
    vec(string(), 0..4)
}
fn bytes() -> impl Strategy<Value = &'static [u8]> {
    string().prop_map(str::as_bytes)
}
fn id() -> impl Strategy<Value = IdRef<'static>> {
    (string(), string()).prop_map(|(scheme, id)| IdRef { scheme, id })
}
fn acl() -> impl Strategy<Value = Vec<AclRef<'static>>> {
    vec((any::<i32>(), id()).prop_map(|(perms, id)| AclRef { perms, id }), 0..4)
}
fn stat() -> impl Strategy<Value = Stat> {
    (any::<[i64; 6]>(), any::<[i32; 5]>()).prop_map(|(l, i)| Stat {
        czxid: l[0],
        mzxid: l[1],
        ctime: l[2],
        mtime: l[3],
        version: i[0],
        cversion: i[1],
        aversion: i[2],
        ephemeral_owner: l[4],
        data_length: i[3],
        num_children: i[4],
        pzxid: l[5],
    })
}
fn create() -> impl Strategy<Value = Change<'static>> {
    (string(), option::of(bytes()), acl(), 0..7, any::<i64>(), any::<bool>()).prop_map(
        |(path, data, acl, flags, ttl, with_stat)| {
            let mode = CreateMode::from_flags(flags).unwrap();
            let ttl = if matches!(mode, CreateMode::Ttl | CreateMode::TtlSequential) { ttl } else { 0 };
            let mut change = Change::new(Op::Create { path, data, acl, mode, ttl });
            if change.opcode == Opcode::Create2 && !with_stat {
                change.opcode = Opcode::Create;
            }
            change
        },
    )
}
fn change_of_multi() -> impl Strategy<Value = Change<'static>> {
    prop_oneof![
        create(),
        (string(), any::<i32>()).prop_map(|(path, version)| Change::new(Op::Delete { path, version })),
        (string(), any::<i32>()).prop_map(|(path, version)| Change::new(Op::Check { path, version })),
        (string(), option::of(bytes()), any::<i32>())
            .prop_map(|(path, data, version)| Change::new(Op::SetData { path, data, version })),
    ]
}
fn change_alone() -> impl Strategy<Value = Change<'static>> {
    prop_oneof![
        change_of_multi().prop_filter("check is only within a multi", |c| c.opcode != Opcode::Check),
        (string(), acl(), any::<i32>()).prop_map(|(path, acl, version)| Change::new(Op::SetAcl {
            path,
            acl,
            version
        })),
    ]
}
fn read() -> impl Strategy<Value = Read<'static>> {
    prop_oneof![
        string().prop_map(|path| Read::GetData { path }),
        string().prop_map(|path| Read::GetChildren { path }),
    ]
}
fn watcher() -> impl Strategy<Value = WatcherType> {
    (1..6).prop_map(|n| WatcherType::from_wire(n).unwrap())
}
fn request() -> impl Strategy<Value = Request<'static>> {
    let set_watches = (any::<i64>(), strings(), strings(), strings(), option::of((strings(), strings())))
        .prop_map(|(relative_zxid, data, exist, child, persistent)| {
            Request::SetWatches(SetWatches { relative_zxid, data, exist, child, persistent })
        });
    let reads = prop_oneof![
        (string(), any::<bool>()).prop_map(|(path, watch)| Request::Exists { path, watch }),
        (string(), any::<bool>()).prop_map(|(path, watch)| Request::GetData { path, watch }),
        (string(), any::<bool>()).prop_map(|(path, watch)| Request::GetChildren { path, watch }),
        (string(), any::<bool>()).prop_map(|(path, watch)| Request::GetChildren2 { path, watch }),
        string().prop_map(|path| Request::GetAcl { path }),
        string().prop_map(|path| Request::GetAllChildrenNumber { path }),
        option::of(string()).prop_map(|prefix| Request::GetEphemerals { prefix }),
        string().prop_map(|path| Request::Sync { path }),
    ];
    prop_oneof![
        change_alone().prop_map(Request::Change),
        vec(change_of_multi(), 0..5).prop_map(Request::Multi),
        vec(read(), 0..5).prop_map(Request::MultiRead),
        reads,
        (string(), watcher()).prop_map(|(path, watcher)| Request::CheckWatches { path, watcher }),
        (string(), watcher()).prop_map(|(path, watcher)| Request::RemoveWatches { path, watcher }),
        (string(), 0..2).prop_map(|(path, mode)| {
            Request::AddWatch { path, mode: AddWatchMode::from_wire(mode).unwrap() }
        }),
        set_watches,
        (option::of(string()), option::of(string()), option::of(string()), any::<i64>()).prop_map(
            |(joining, leaving, members, config_id)| {
                Request::Reconfig { joining, leaving, members, config_id }
            }
        ),
        (any::<i32>(), string(), option::of(bytes())).prop_map(|(kind, scheme, auth)| Request::Auth {
            kind,
            scheme,
            auth
        }),
        bytes().prop_map(|token| Request::Sasl { token }),
        prop::sample::select(vec![Request::Ping, Request::WhoAmI, Request::CloseSession]),
    ]
}
fn result() -> impl Strategy<Value = OpResult<'static>> {
    prop_oneof![
        string().prop_map(|path| OpResult::Create { path }),
        (string(), stat()).prop_map(|(path, stat)| OpResult::Create2 { path, stat }),
        Just(OpResult::Delete),
        stat().prop_map(|stat| OpResult::SetData { stat }),
        Just(OpResult::Check),
        (option::of(bytes()), stat()).prop_map(|(data, stat)| OpResult::GetData { data, stat }),
        strings().prop_map(|children| OpResult::GetChildren { children }),
        any::<i32>().prop_map(|err| OpResult::Error { err }),
    ]
}
fn response() -> impl Strategy<Value = (Opcode, Response<'static>)> {
    prop_oneof![
        Just((Opcode::Delete, Response::Empty)),
        string().prop_map(|path| (Opcode::Create, Response::Path(path))),
        (string(), stat()).prop_map(|(path, stat)| (Opcode::Create2, Response::PathAndStat(path, stat))),
        stat().prop_map(|stat| (Opcode::SetData, Response::Stat(stat))),
        (option::of(bytes()), stat()).prop_map(|(d, stat)| (Opcode::GetData, Response::Data(d, stat))),
        (acl(), stat()).prop_map(|(acl, stat)| (Opcode::GetAcl, Response::Acl(acl, stat))),
        strings().prop_map(|c| (Opcode::GetChildren, Response::Children(c))),
        (strings(), stat()).prop_map(|(c, s)| (Opcode::GetChildren2, Response::ChildrenAndStat(c, s))),
        any::<i32>().prop_map(|n| (Opcode::GetAllChildrenNumber, Response::Number(n))),
        vec(result(), 0..5).prop_map(|results| (Opcode::Multi, Response::Multi(results))),
        option::of(bytes()).prop_map(|token| (Opcode::Sasl, Response::Token(token))),
        vec(id(), 0..4).prop_map(|ids| (Opcode::WhoAmI, Response::ClientInfo(ids))),
    ]
}

/// The error of a body that ends early, whichever way the request reports it.
fn is_truncation(e: DecodeError) -> bool {
    matches!(
        e,
        DecodeError::Body(JuteError::Truncated { .. })
            | DecodeError::Credentials(JuteError::Truncated { .. })
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn requests_survive_and_are_never_cut_short(request in request(), xid in any::<i32>()) {
        let mut packet = Vec::new();
        request.encode(xid, &mut packet);
        let (header, body) = RequestHeader::decode(&packet[4..]).unwrap();
        prop_assert_eq!(header, RequestHeader { xid, opcode: request.opcode().wire() });
        prop_assert_eq!(&Request::decode(header.opcode, body).unwrap(), &request);
        for cut in 0..body.len() {
            let error = Request::decode(header.opcode, &body[..cut]).unwrap_err();
            prop_assert!(is_truncation(error), "cut at {cut}: {error:?}");
        }
        // Bytes behind a record are ignored.
        let longer = [body, b"more"].concat();
        prop_assert_eq!(&Request::decode(header.opcode, &longer).unwrap(), &request);
    }

    #[test]
    fn responses_survive_and_are_never_cut_short(
        (opcode, response) in response(), xid in any::<i32>(), zxid in any::<i64>(), behind in 0..3usize,
    ) {
        // A packet is appended: what stands before it stays.
        let mut out = vec![0xab; behind];
        response.encode(ReplyHeader::ok(xid, zxid), &mut out);
        let packet = &out[behind..];
        prop_assert_eq!(packet.len() - 4, i32::from_be_bytes(packet[..4].try_into().unwrap()) as usize);
        let (header, body) = ReplyHeader::decode(&packet[4..]).unwrap();
        prop_assert_eq!(header, ReplyHeader::ok(xid, zxid));
        prop_assert_eq!(&Response::decode(opcode, body).unwrap(), &response);
        for cut in 0..body.len() {
            let error = Response::decode(opcode, &body[..cut]).unwrap_err();
            prop_assert!(matches!(error, JuteError::Truncated { .. }), "cut at {cut}: {error:?}");
        }
    }

    #[test]
    fn nothing_panics_on_noise(opcode in prop_oneof![-12i32..130, any::<i32>()], body in vec(any::<u8>(), 0..200)) {
        let _ = Request::decode(opcode, &body).map_err(|e| e.refusal());
        let _ = RequestHeader::decode(&body);
        let _ = ConnectRequest::decode(&body);
        let _ = ConnectResponse::decode(&body);
        let _ = ReplyHeader::decode(&body);
        let _ = WatcherEvent::decode(&body);
        if let Some(opcode) = Opcode::from_wire(opcode) {
            let _ = Response::decode(opcode, &body);
        }
    }

    /// One byte wrong anywhere: decoding goes on to an answer, whatever it is.
    #[test]
    fn nothing_panics_on_one_wrong_byte(request in request(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut packet = Vec::new();
        request.encode(1, &mut packet);
        let at = at.index(packet.len());
        packet[at] = byte;
        if let Ok((header, body)) = RequestHeader::decode(&packet[4..]) {
            let _ = Request::decode(header.opcode, body);
        }
    }

    #[test]
    fn the_handshake_survives(
        zxid in any::<i64>(), timeout_ms in any::<i32>(), session in any::<i64>(), password in any::<[u8; 16]>(),
        read_only in option::of(any::<bool>()),
    ) {
        let request = ConnectRequest {
            protocol_version: 0, last_zxid_seen: zxid, timeout_ms, session, password: &password, read_only,
        };
        let mut packet = Vec::new();
        request.encode(&mut packet);
        prop_assert_eq!(&ConnectRequest::decode(&packet[4..]).unwrap(), &request);
        // 44 bytes are whole: the byte for read-only is the only one that may be missing.
        for cut in 0..44 {
            prop_assert!(ConnectRequest::decode(&packet[4..4 + cut]).is_err());
        }
        let response = ConnectResponse { protocol_version: 0, timeout_ms, session, password, read_only };
        packet.clear();
        response.encode(&mut packet);
        prop_assert_eq!(ConnectResponse::decode(&packet[4..]).unwrap(), response);
        for cut in 0..36 {
            prop_assert!(ConnectResponse::decode(&packet[4..4 + cut]).is_err());
        }
    }

    #[test]
    fn events_survive(zxid in any::<i64>(), kind in 1..5, path in string()) {
        let kind = EventType::from_wire(kind).unwrap();
        let mut packet = Vec::new();
        encode::event(&mut packet, zxid, kind, path);
        let (header, body) = ReplyHeader::decode(&packet[4..]).unwrap();
        prop_assert_eq!(header, ReplyHeader::ok(xid::NOTIFICATION, zxid));
        let event = WatcherEvent { kind, state: KeeperState::SYNC_CONNECTED, path };
        prop_assert_eq!(WatcherEvent::decode(body).unwrap(), event);
        for cut in 0..body.len() {
            prop_assert!(WatcherEvent::decode(&body[..cut]).is_err());
        }
    }

    /// However the stream is chopped, the packets come out as they went in.
    #[test]
    fn packets_survive_any_chopping(packets in vec(vec(any::<u8>(), 0..40), 0..6), step in 1..50usize) {
        let mut stream = Vec::new();
        for packet in &packets {
            stream.extend_from_slice(&(packet.len() as i32).to_be_bytes());
            stream.extend_from_slice(packet);
        }
        let (mut received, mut taken) = (BytesMut::new(), Vec::new());
        for piece in stream.chunks(step) {
            received.extend_from_slice(piece);
            while let Some(packet) = take_frame(&mut received, PACKET_BYTES_MAX).unwrap() {
                taken.push(packet.to_vec());
            }
            prop_assert!(bytes_missing(&received, PACKET_BYTES_MAX) > 0);
        }
        prop_assert_eq!(taken, packets);
    }
}

#[test]
fn lengths_of_packets() {
    let take =
        |bytes: &[u8], limit| take_frame(&mut BytesMut::from(bytes), limit).map(|p| p.map(|p| p.len()));
    assert_eq!(take(&[], 10), Ok(None));
    assert_eq!(take(&[0, 0, 0], 10), Ok(None));
    assert_eq!(take(&[0, 0, 0, 0], 10), Ok(Some(0)));
    assert_eq!(take(&[0, 0, 0, 10], 10), Ok(None));
    // Exactly the limit is taken, one more is refused before any of its bytes are waited for.
    assert_eq!(take(&[&[0, 0, 0, 10][..], &[7; 10]].concat(), 10), Ok(Some(10)));
    assert_eq!(take(&[0, 0, 0, 11], 10), Err(FrameError::TooLarge { length: 11, limit: 10 }));
    assert_eq!(take(&[0x80, 0, 0, 0], 10), Err(FrameError::Negative(i32::MIN)));
    assert_eq!(take(&[0xff; 4], 10), Err(FrameError::Negative(-1)));
}

#[test]
fn hostile_counts_and_lengths_reserve_nothing() {
    for count in [i32::MAX, 1 << 24, 2] {
        let bytes = [&count.to_be_bytes()[..], &[0, 0, 0, 0]].concat();
        let truncated = |r: Result<usize, JuteError>| matches!(r, Err(JuteError::Truncated { .. }));
        assert!(truncated(Reader::new(&bytes).strings("x").map(|v| v.len())));
        assert!(truncated(Reader::new(&bytes).acl().map(|v| v.len())));
        assert!(truncated(Reader::new(&bytes[..4]).buffer().map(|v| v.map_or(0, <[u8]>::len))));
        let body = [&[0, 0, 0, 2][..], b"/a", &[0xff; 4], &count.to_be_bytes()].concat();
        let error = Request::decode(Opcode::Create.wire(), &body).unwrap_err();
        assert!(is_truncation(error));
        assert_eq!(error.refusal(), Refusal::Reply(Code::MarshallingError));
    }
    // Below −1, a length is an error and a count is an empty vector.
    let bytes = (-2i32).to_be_bytes();
    assert_eq!(Reader::new(&bytes).buffer(), Err(JuteError::Length(-2)));
    assert_eq!(Reader::new(&bytes).strings("x"), Ok(vec![]));
    // A multi that never ends.
    let mut body = Vec::new();
    for _ in 0..1000 {
        body.extend_from_slice(&[0, 0, 0, 13, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    }
    assert!(is_truncation(Request::decode(Opcode::Multi.wire(), &body).unwrap_err()));
}

/// What each kind of bad input is answered with.
#[test]
fn refusals() {
    use Refusal::{Close, Reply, ReplyAndClose};
    fn refusal(opcode: i32, body: &[u8]) -> Result<Request<'_>, Refusal> {
        Request::decode(opcode, body).map_err(|e| e.refusal())
    }
    for opcode in [-12, -10, -1, 0, 10, 13, 20, 23, 99, 108, i32::MAX] {
        assert_eq!(refusal(opcode, &[]), Err(ReplyAndClose(Code::Unimplemented)), "{opcode}");
    }
    let null = [0xff; 4];
    let malformed = Err(Reply(Code::MarshallingError));
    let bad_arguments = Err(Reply(Code::BadArguments));
    // Null paths: −8 where ZooKeeper validates the path first, −5 elsewhere.
    assert_eq!(refusal(4, &[&null[..], &[0]].concat()), malformed);
    assert_eq!(refusal(2, &[&null[..], &[0; 4]].concat()), malformed);
    assert_eq!(refusal(1, &[&null[..], &null, &null, &[0; 4]].concat()), malformed);
    assert_eq!(refusal(5, &[&null[..], &null, &[0; 4]].concat()), bad_arguments);
    assert_eq!(refusal(7, &[&null[..], &null, &[0; 4]].concat()), bad_arguments);
    assert_eq!(refusal(9, &null), Ok(Request::Sync { path: "" }));
    // Not UTF-8.
    assert_eq!(refusal(6, &[0, 0, 0, 2, b'/', 0xff]), bad_arguments);
    // Modes of watching that are none.
    assert_eq!(refusal(106, &[0, 0, 0, 1, b'/', 0, 0, 0, 2]), malformed);
    assert_eq!(refusal(17, &[0, 0, 0, 1, b'/', 0, 0, 0, 0]), malformed);
    // Lists of watches that are null.
    assert_eq!(refusal(101, &[&[0; 8][..], &null, &null, &null].concat()), malformed);
    // Credentials.
    assert_eq!(refusal(100, &[0, 0, 0]), Err(Close));
    assert_eq!(refusal(102, &[0]), Err(Close));
    assert_eq!(
        refusal(100, &[&[0; 4][..], &null, &null].concat()),
        Ok(Request::Auth { kind: 0, scheme: "", auth: None })
    );
}

/// Flags of a create and the opcode that it came as: what they make together.
#[test]
fn create_flags() {
    let decode = |opcode: Opcode, flags: i32, multi: bool| {
        let mut body = Vec::new();
        if multi {
            body.extend_from_slice(&opcode.wire().to_be_bytes());
            body.extend_from_slice(&[0, 0xff, 0xff, 0xff, 0xff]);
        }
        body.extend_from_slice(&[0, 0, 0, 2, b'/', b'a', 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        body.extend_from_slice(&flags.to_be_bytes());
        if opcode == Opcode::CreateTtl {
            body.extend_from_slice(&9i64.to_be_bytes());
        }
        if multi {
            body.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 1, 0xff, 0xff, 0xff, 0xff]);
        }
        let what = |change: Change<'_>| match change.op {
            // Null ACLs come out as empty, which is as invalid (−114) at the same point of the checks.
            Op::Create { acl, mode, ttl, .. } if acl.is_empty() => (change.opcode, mode, ttl),
            other => panic!("{other:?}"),
        };
        let top = if multi { Opcode::Multi } else { opcode };
        match Request::decode(top.wire(), &body) {
            Ok(Request::Change(change)) => Ok(what(change)),
            Ok(Request::Multi(mut changes)) => Ok(what(changes.remove(0))),
            Ok(other) => panic!("{other:?}"),
            Err(e) => Err(e.refusal()),
        }
    };
    let bad_arguments = Err(Refusal::Reply(Code::BadArguments));
    let malformed = Err(Refusal::Reply(Code::MarshallingError));
    use CreateMode::{Container, EphemeralSequential, Persistent, Ttl};
    use Opcode::{Create, Create2, CreateContainer, CreateTtl};
    for (opcode, flags, alone, in_multi) in [
        (Create, 3, Ok((Create, EphemeralSequential, 0)), Ok((Create, EphemeralSequential, 0))),
        (Create2, 0, Ok((Create2, Persistent, 0)), Ok((Create2, Persistent, 0))),
        (Create, 7, bad_arguments, malformed),
        (Create, -1, bad_arguments, malformed),
        (Create, 5, bad_arguments, malformed),
        (Create, 4, Ok((Create, Container, 0)), Ok((CreateContainer, Container, 0))),
        (CreateContainer, 4, Ok((CreateContainer, Container, 0)), Ok((CreateContainer, Container, 0))),
        (CreateContainer, 0, Ok((CreateContainer, Container, 0)), Ok((CreateContainer, Container, 0))),
        (CreateTtl, 5, Ok((CreateTtl, Ttl, 9)), Ok((CreateTtl, Ttl, 9))),
        (CreateTtl, 0, bad_arguments, Ok((Create, Persistent, 0))),
    ] {
        assert_eq!(decode(opcode, flags, false), alone, "{opcode:?} {flags} alone");
        assert_eq!(decode(opcode, flags, true), in_multi, "{opcode:?} {flags} in a multi");
    }
}

/// A multi of what may not stand in it.
#[test]
fn operations_that_do_not_belong() {
    let multi = |top: i32, opcode: i32| {
        let body = [&opcode.to_be_bytes()[..], &[0, 0xff, 0xff, 0xff, 0xff], &[0; 32]].concat();
        Request::decode(top, &body).unwrap_err()
    };
    for (top, opcode) in
        [(14, 4), (14, 8), (14, 7), (14, -1), (14, 14), (14, 999), (22, 5), (22, 12), (22, 3)]
    {
        let error = multi(top, opcode);
        assert_eq!(error, DecodeError::MultiOpcode(opcode), "{top} of {opcode}");
        assert_eq!(error.refusal(), Refusal::Reply(Code::MarshallingError));
    }
}
