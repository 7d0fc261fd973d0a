//! Who is refused, and why: one test for each reason.

use super::harness::*;
use crate::io::links::{
    DownReason, HANDSHAKES_MAX, LinkError, LinkTimers, Links, RefusalReason, TlsError, TlsFiles,
};
use crate::peer::{FRAME_BYTES_MAX, Lane, codec};
use bytes::BytesMut;
use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 3600);
const WARREN: &[u8] = b"warren/1";

/// Server 2 listens, knows servers 1 and 3, and is knocked at. It must refuse for that reason, once, and go on.
fn refused(ca: &Ca, files: Option<&TlsFiles>, alpn: &[u8], reason: RefusalReason) -> String {
    let two = start(config(2, ca.files(2), &[(1, NOWHERE.into()), (3, NOWHERE.into())]));
    let raw = Raw::new();
    raw.knock(two.addr(), files, alpn);
    let refusal = two.told.refused(reason);
    assert_eq!(two.count(reason), 1);
    assert_eq!(two.links.refusals().iter().map(|(_, n)| n).sum::<u64>(), 1, "and for no other");
    assert!(refusal.addr.ip().is_loopback());
    let three = start(config(3, ca.files(3), &[(2, two.addr().to_string())]));
    two.told.up(3);
    three.told.up(2);
    refusal.detail
}

#[test]
fn a_stranger_without_a_certificate() {
    refused(&Ca::new("prod"), None, WARREN, RefusalReason::NoCertificate);
}

#[test]
fn a_certificate_of_another_authority() {
    let files = Ca::new("prod").files(3);
    refused(&Ca::new("prod"), Some(&files), WARREN, RefusalReason::UnknownAuthority);
}

#[test]
fn a_certificate_that_expired() {
    let ca = Ca::new("prod");
    let files = ca.files_at(3, SystemTime::now() - DAY * 740);
    let detail = refused(&ca, Some(&files), WARREN, RefusalReason::Expired);
    assert_eq!(detail, "its certificate expired 9 days ago");
}

#[test]
fn a_certificate_of_tomorrow() {
    let ca = Ca::new("prod");
    let files = ca.files_at(3, SystemTime::now() + DAY * 3);
    refused(&ca, Some(&files), WARREN, RefusalReason::NotYetValid);
}

#[test]
fn a_certificate_for_another_use() {
    let ca = Ca::new("prod");
    let files = ca.odd(&["warren://prod/server/3"], &[ServerAuth]);
    refused(&ca, Some(&files), WARREN, RefusalReason::BadCertificate);
}

#[test]
fn a_certificate_without_a_name() {
    let ca = Ca::new("prod");
    let files = ca.odd(&["https://prod/server/3"], &[ClientAuth]);
    let detail = refused(&ca, Some(&files), WARREN, RefusalReason::NoName);
    assert!(detail.contains("warren certs issue"), "{detail}");
}

#[test]
fn a_certificate_with_two_names() {
    let ca = Ca::new("prod");
    let files = ca.odd(&["warren://prod/server/3", "warren://prod/server/1"], &[ClientAuth]);
    refused(&ca, Some(&files), WARREN, RefusalReason::NoName);
}

#[test]
fn a_certificate_with_a_name_that_is_none() {
    let ca = Ca::new("prod");
    let files = ca.odd(&["warren://prod/server/003"], &[ClientAuth]);
    refused(&ca, Some(&files), WARREN, RefusalReason::NoName);
}

#[test]
fn a_server_of_another_ensemble() {
    let ca = Ca::new("prod");
    let files = ca.odd(&["warren://test/server/3"], &[ClientAuth]);
    let detail = refused(&ca, Some(&files), WARREN, RefusalReason::OtherEnsemble);
    assert!(detail.contains("\"test\"") && detail.contains("\"prod\""), "{detail}");
}

#[test]
fn a_server_with_our_own_id() {
    let ca = Ca::new("prod");
    refused(&ca, Some(&ca.files(2)), WARREN, RefusalReason::OwnId);
}

#[test]
fn a_server_that_is_not_configured() {
    let ca = Ca::new("prod");
    refused(&ca, Some(&ca.files(9)), WARREN, RefusalReason::UnknownServer);
}

/// Server 2 knows neither 1, whom it would dial, nor 3, who dials it: both learn that, and of whom.
#[test]
fn who_is_not_configured_any_more_is_told() {
    let ca = Ca::new("prod");
    let two = start(config(2, ca.files(2), &[(4, NOWHERE.into())]));
    for id in [3, 1] {
        let removed = start(config(id, ca.files(id), &[(2, two.addr().to_string())]));
        let refusal = removed.told.refused(RefusalReason::UnknownToPeer);
        assert_eq!((refusal.server, refusal.addr), (Some(2), two.addr()));
        two.told.refused(RefusalReason::UnknownServer);
    }
}

#[test]
fn a_lower_id_that_dials() {
    let ca = Ca::new("prod");
    refused(&ca, Some(&ca.files(1)), WARREN, RefusalReason::WrongDirection);
}

#[test]
fn another_protocol_inside_tls() {
    let ca = Ca::new("prod");
    refused(&ca, Some(&ca.files(3)), b"h3", RefusalReason::Protocol);
}

#[test]
fn another_server_at_the_address_that_is_dialled() {
    let ca = Ca::new("prod");
    let two = start(config(2, ca.files(2), &[(5, NOWHERE.into())]));
    let five = start(config(5, ca.files(5), &[(1, two.addr().to_string())]));
    let refusal = five.told.refused(RefusalReason::WrongServer);
    assert_eq!(refusal.detail, "server 2 is where server 1 should be");
    assert_eq!(refusal.addr, two.addr());
    // And the one that was refused is told why.
    let refusal = two.told.refused(RefusalReason::RefusedByPeer);
    assert!(refusal.detail.contains("server 2 is where server 1 should be"), "{}", refusal.detail);
}

#[test]
fn a_dialler_is_told_why_it_is_refused() {
    let ca = Ca::new("prod");
    let two = start(config(2, ca.files(2), &[(3, NOWHERE.into())]));
    let nine = start(config(9, ca.files(9), &[(2, two.addr().to_string())]));
    two.told.refused(RefusalReason::UnknownServer);
    let refusal = nine.told.refused(RefusalReason::UnknownToPeer);
    assert_eq!(refusal.server, Some(2));
    assert!(refusal.detail.contains("no such server"), "{}", refusal.detail);
}

/// A dialler that says hello and is not heard of again.
fn stall(raw: &Raw, files: &TlsFiles, addr: SocketAddr) -> tokio::task::JoinHandle<()> {
    let (front, back) = raw.runtime.block_on(async {
        let bind = || tokio::net::UdpSocket::bind(LOCAL);
        (bind().await.unwrap(), bind().await.unwrap())
    });
    let connecting = raw.connecting(front.local_addr().unwrap(), Some(files), WARREN);
    raw.runtime.spawn(async move {
        let _connecting = connecting;
        let (mut from_client, mut from_server) = ([0; 2048], [0; 2048]);
        let mut client = None;
        let mut may_pass = 1;
        loop {
            tokio::select! {
                Ok((n, from)) = front.recv_from(&mut from_client) => {
                    client = Some(from);
                    if may_pass > 0 {
                        may_pass -= 1;
                        back.send_to(&from_client[..n], addr).await.unwrap();
                    }
                }
                Ok((n, _)) = back.recv_from(&mut from_server) => {
                    // A Retry packet (RFC 9000, section 17.2.5) asks whether the address is its own: let it prove that.
                    if from_server[0] & 0xf0 == 0xf0 {
                        may_pass = 1;
                        front.send_to(&from_server[..n], client.unwrap()).await.unwrap();
                    }
                }
            }
        }
    })
}

#[test]
fn a_handshake_that_stands_still() {
    let ca = Ca::new("prod");
    let short = LinkTimers { handshake: Duration::from_millis(100), ..LinkTimers::default() };
    let mut config = config(2, ca.files(2), &[(3, NOWHERE.into())]);
    config.timers = short;
    let two = start(config);
    let raw = Raw::new();
    let stalled = stall(&raw, &ca.files(3), two.addr());
    two.told.refused(RefusalReason::HandshakeTimeout);
    stalled.abort();
}

#[test]
fn too_many_handshakes_at_once() {
    let ca = Ca::new("prod");
    let mut slow = config(2, ca.files(2), &[(3, NOWHERE.into())]);
    slow.timers = LinkTimers { handshake: PATIENCE, idle: PATIENCE, ..LinkTimers::default() };
    let two = start(slow);
    let raw = Raw::new();
    let files = ca.files(3);
    let stalled: Vec<_> = (0..=HANDSHAKES_MAX).map(|_| stall(&raw, &files, two.addr())).collect();
    two.told.refused(RefusalReason::TooManyHandshakes);
    for task in stalled {
        task.abort();
    }
}

/// A server with a good certificate says hello and then what it must not: its link ends for that reason.
fn misbehaves(reason: RefusalReason, act: impl FnOnce(&Raw, &quinn::Connection)) {
    let ca = Ca::new("prod");
    let one = start(config(1, ca.files(1), &[(2, NOWHERE.into()), (3, NOWHERE.into())]));
    let raw = Raw::new();
    let connection = raw.connect(one.addr(), &ca.files(2));
    act(&raw, &connection);
    let closed = raw.closed(&connection);
    assert!(matches!(closed, quinn::ConnectionError::ApplicationClosed(_)), "{closed:?}");
    let refusal = one.told.refused(reason);
    assert_eq!(refusal.server, Some(2));
    assert_eq!(one.count(reason), 1);
    let three = start(config(3, ca.files(3), &[(1, one.addr().to_string())]));
    one.told.up(3);
    three.links.stop();
    assert_eq!(one.told.down(3), DownReason::ByPeer("the server stops".into()));
}

fn frame(bytes: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    frame.extend_from_slice(bytes);
    frame
}

#[test]
fn a_message_over_its_limit() {
    misbehaves(RefusalReason::TooLong, |raw, connection| {
        let length = u32::try_from(codec::CONSENSUS_FRAME_BYTES_MAX + 1).unwrap();
        raw.stream(connection, &[&[0], &length.to_be_bytes()[..]].concat());
    });
    misbehaves(RefusalReason::TooLong, |raw, connection| {
        raw.stream(connection, &[0]);
        let length = u32::try_from(FRAME_BYTES_MAX + 1).unwrap();
        raw.stream(connection, &[&[1], &length.to_be_bytes()[..]].concat());
    });
}

#[test]
fn bytes_that_are_no_message() {
    for garbage in [&[0xff; 32][..], &[], &[4, 1, 1]] {
        misbehaves(RefusalReason::Undecodable, |raw, connection| {
            raw.stream(connection, &[0]);
            raw.stream(connection, &[&[2], &frame(garbage)[..]].concat());
        });
    }
}

#[test]
fn a_message_where_it_does_not_belong() {
    misbehaves(RefusalReason::WrongLane, |raw, connection| {
        let mut bytes = BytesMut::from(&[Lane::Consensus as u8][..]);
        codec::encode(&ack(1), &mut bytes);
        raw.stream(connection, &bytes);
    });
}

#[test]
fn streams_that_are_none_of_ours() {
    let acts: [fn(&Raw, &quinn::Connection); 6] = [
        |raw, connection| raw.stream(connection, &[1]),
        |raw, connection| {
            raw.stream(connection, &[0]);
            raw.stream(connection, &[9]);
        },
        |raw, connection| {
            raw.stream(connection, &[0]);
            raw.stream(connection, &[1]);
            raw.stream(connection, &[1]);
        },
        |raw, connection| raw.ended_stream(connection, &[0]),
        |raw, connection| {
            raw.stream(connection, &[0]);
            raw.ended_stream(connection, &[]);
        },
        |raw, connection| {
            raw.stream(connection, &[0]);
            let mut bytes = BytesMut::from(&[3][..]);
            codec::encode(&append(1, 1), &mut bytes);
            raw.stream(connection, &bytes);
        },
    ];
    for act in acts {
        misbehaves(RefusalReason::BadStream, act);
    }
}

#[test]
fn a_peer_that_does_not_say_hello_has_no_link() {
    let ca = Ca::new("prod");
    let (one, raw) = one_and_raw(&ca);
    let connection = raw.connect(one.addr(), &ca.files(2));
    let closed = raw.closed(&connection);
    assert!(matches!(closed, quinn::ConnectionError::ApplicationClosed(_)), "{closed:?}");
    assert_eq!(one.links.facts()[0].up, None);
}

/// Why links do not start with these files.
fn does_not_start(files: TlsFiles) -> LinkError {
    Links::start(config(1, files, &[]), Arc::new(Recorder::default())).unwrap_err()
}

#[test]
fn a_server_does_not_start_with_a_certificate_that_its_peers_would_refuse() {
    let ca = Ca::new("prod");
    let own = |files: TlsFiles, why: &str| match does_not_start(files) {
        LinkError::Tls(e @ TlsError::OwnCertificate { .. }) => {
            let text = e.to_string();
            assert!(
                text.contains(why) && text.contains("warren certs issue --dir CA --server-id 1"),
                "{text}"
            );
        }
        other => panic!("{other:?}"),
    };
    own(ca.files(2), "certificate of server 2");
    own(ca.files_at(1, SystemTime::now() - DAY * 1000), "expired");
    own(ca.files_at(1, SystemTime::now() + DAY * 1000), "not valid yet");
    own(ca.odd(&[], &[ServerAuth, ClientAuth]), "warren certs issue");
    own(ca.odd(&["warren://prod/server/1"], &[ServerAuth]), "cannot be used");
    own(ca.odd(&["warren://prod/server/1"], &[ClientAuth]), "cannot be used");
    own(Ca::new("test").files(1), "ensemble \"test\"");
    own(TlsFiles { ca_pem: Ca::new("prod").pem(), ..ca.files(1) }, "authority");
}

#[test]
fn a_server_does_not_start_with_files_that_are_none() {
    let ca = Ca::new("prod");
    let good = ca.files(1);
    let text = String::from_utf8(good.cert_pem.clone()).unwrap();
    let key_at = text.find("-----BEGIN PRIVATE KEY").unwrap();
    let pem = |cert_pem: &str| TlsFiles { cert_pem: cert_pem.into(), ..good.clone() };
    assert!(matches!(does_not_start(pem("")), LinkError::Tls(TlsError::Pem { .. })));
    assert!(matches!(
        does_not_start(pem(&text[..key_at])),
        LinkError::Tls(TlsError::Pem { what: "the private key of this server", .. })
    ));
    assert!(matches!(does_not_start(pem(&text[key_at..])), LinkError::Tls(TlsError::Pem { .. })));
    let other = String::from_utf8(ca.files(1).cert_pem).unwrap();
    let other_key = &other[other.find("-----BEGIN PRIVATE KEY").unwrap()..];
    assert!(matches!(
        does_not_start(pem(&format!("{}{other_key}", &text[..key_at]))),
        LinkError::Tls(TlsError::Key(_))
    ));
    assert!(matches!(
        does_not_start(TlsFiles { ca_pem: b"nothing".to_vec(), ..good.clone() }),
        LinkError::Tls(TlsError::Pem { what: "the certificate of the authority", .. })
    ));
    let missing = TlsFiles::read(&ca.path().join("1.pem"), &ca.path().join("ca.pem"));
    assert!(matches!(missing, Err(TlsError::Read { .. })));
}

#[test]
fn a_server_does_not_start_with_a_configuration_that_cannot_be() {
    let ca = Ca::new("prod");
    let start = |config| Links::start(config, Arc::new(Recorder::default())).unwrap_err();
    let good = || config(1, ca.files(1), &[(2, NOWHERE.into())]);
    let mut bad = good();
    bad.ensemble = "not a name".into();
    assert!(matches!(start(bad), LinkError::Ensemble(_)));
    let twice = config(1, ca.files(1), &[(2, NOWHERE.into()), (2, NOWHERE.into())]);
    assert!(matches!(start(twice), LinkError::ServerId(2)));
    let mut bad = good();
    bad.server_id = 0;
    assert!(matches!(start(bad), LinkError::ServerId(0)));
    let mut bad = good();
    bad.timers.idle = Duration::ZERO;
    assert!(matches!(start(bad), LinkError::Timers));
    let taken = super::harness::start(good());
    let mut bad = good();
    bad.listen = taken.addr();
    assert!(matches!(start(bad), LinkError::Listen { .. }));
}
