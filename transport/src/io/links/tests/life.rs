//! Links come and go.

use super::harness::*;
use crate::io::links::{
    DownReason, Hold, LinkError, LinkTimers, Links, PeerAddr, RefusalReason, SendError, TlsError, TlsFiles,
    WAITING_MESSAGES_MAX,
};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// Where nobody listens now.
fn free_addr() -> SocketAddr {
    UdpSocket::bind(LOCAL).unwrap().local_addr().unwrap()
}

#[test]
fn a_link_comes_up_and_is_told_when_the_other_server_stops() {
    let ca = Ca::new("prod");
    let (one, two) = pair(&ca);
    let facts = &one.links.facts()[0];
    assert_eq!((facts.server, facts.up.unwrap().addr), (2, two.addr()));
    one.links.stop();
    assert_eq!(one.told.down(2), DownReason::Stopping);
    assert_eq!(two.told.down(1), DownReason::ByPeer("the server stops".into()));
    assert_eq!(two.links.send(1, heartbeat(1)), Err(SendError::Down(1)));
    assert_eq!(two.links.send(7, heartbeat(1)), Err(SendError::Unknown(7)));
    one.links.stop();
}

/// Its lanes end with it, and the other end must not hear of that first: it would take it for a fault.
#[test]
fn a_link_that_ends_in_order_is_no_fault() {
    let ca = Ca::new("prod");
    let (one, two) = pair_with(&ca, |config| config.threads = 2);
    let live = one.links.shared.peer(2).unwrap().live().unwrap();
    live.was_used();
    // Whoever of it delivers a message is not done with that.
    let told = one.told.told.lock();
    two.links.send(1, heartbeat(1)).unwrap();
    let until = Instant::now() + PATIENCE;
    while !live.was_used() {
        assert!(Instant::now() < until, "the message does not arrive");
        std::thread::yield_now();
    }
    // The first half of a stop.
    one.links.shared.stop.send_replace(true);
    assert_eq!(two.told.down(1), DownReason::ByPeer("the server stops".into()));
    assert_eq!(two.count(RefusalReason::BadStream), 0);
    drop(told);
    assert_eq!(one.told.down(2), DownReason::Stopping);
}

#[test]
fn three_servers_have_three_links() {
    let ca = Ca::new("prod");
    let one = start(config(1, ca.files(1), &[(1, NOWHERE.into()), (2, NOWHERE.into()), (3, NOWHERE.into())]));
    let at = |server: &Server| server.addr().to_string();
    let two = start(config(2, ca.files(2), &[(1, at(&one)), (2, NOWHERE.into()), (3, NOWHERE.into())]));
    let three = start(config(3, ca.files(3), &[(1, at(&one)), (2, at(&two)), (3, NOWHERE.into())]));
    let servers = [&one, &two, &three];
    for server in servers {
        // In any order.
        let mut up = 0;
        while up < 2 {
            server.told.wait("a link", |told| matches!(told, Told::Up(_)).then_some(()));
            up += 1;
        }
        assert!(server.links.facts().iter().all(|facts| facts.up.is_some()));
    }
    for (from, to) in [(1, 2), (1, 3), (2, 1), (2, 3), (3, 1), (3, 2)] {
        servers[from - 1].links.send(to as u8, heartbeat(from as u64)).unwrap();
        assert_eq!(servers[to - 1].told.message(), (from as u8, heartbeat(from as u64)));
    }
}

/// The daemon starts them on a runtime of its own, on which no other may be waited for.
#[test]
fn an_address_that_cannot_be_had_is_an_error_also_on_a_runtime() {
    let ca = Ca::new("prod");
    let one = start(config(1, ca.files(1), &[(2, NOWHERE.into())]));
    let mut taken = config(2, ca.files(2), &[(1, NOWHERE.into())]);
    taken.listen = one.addr();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let refused = runtime.block_on(async { Links::start(taken, one.told.clone()).err() });
    assert!(matches!(refused, Some(LinkError::Listen { addr, .. }) if addr == one.addr()), "{refused:?}");
}

#[test]
fn a_name_is_dialled_again_until_somebody_is_there() {
    let ca = Ca::new("prod");
    let relay = Relay::new();
    let mut patient = config(2, ca.files(2), &[(1, format!("localhost:{}", relay.addr().port()))]);
    patient.timers.handshake = Duration::from_millis(100);
    let two = start(patient);
    let one = start(config(1, ca.files(1), &[(2, NOWHERE.into())]));
    relay.lead_to(Some(one.addr()));
    two.told.up(1);
    one.told.up(2);
}

#[test]
fn silence_ends_a_link_on_both_ends_and_it_comes_back() {
    let ca = Ca::new("prod");
    let relay = Relay::new();
    let timers = LinkTimers {
        idle: Duration::from_millis(300),
        handshake: Duration::from_millis(300),
        redial_max: Duration::from_millis(100),
        ..LinkTimers::default()
    };
    let mut config_one = config(1, ca.files(1), &[(2, NOWHERE.into())]);
    config_one.timers = timers;
    let one = start(config_one);
    relay.lead_to(Some(one.addr()));
    let mut config_two = config(2, ca.files(2), &[(1, relay.addr().to_string())]);
    config_two.timers = timers;
    let two = start(config_two);
    for cut_both_ways in [true, false] {
        one.told.up(2);
        two.told.up(1);
        relay.set_deaf(true);
        if cut_both_ways {
            relay.lead_to(None);
        }
        assert_eq!(two.told.down(1), DownReason::Silent);
        // Heard by one end, a link may end by its word before it ends by silence.
        let why = one.told.down(2);
        assert!(matches!(why, DownReason::Silent | DownReason::Replaced), "{why:?}");
        relay.lead_to(Some(one.addr()));
        relay.set_deaf(false);
    }
    one.told.up(2);
    two.told.up(1);
}

/// A server that was killed cannot say so. The one that starts in its place does: with the idle timeout alone, the dialler would
/// not notice before a minute.
#[test]
fn a_restarted_server_disowns_the_connections_of_its_last_run() {
    let ca = Ca::new("prod");
    let files = ca.files(1);
    let relay = Relay::new();
    let timers = LinkTimers { idle: Duration::from_secs(60), ..LinkTimers::default() };
    let start_one = || {
        let mut config = config(1, files.clone(), &[(2, NOWHERE.into())]);
        config.timers = timers;
        start(config)
    };
    let killed = start_one();
    relay.lead_to(Some(killed.addr()));
    let mut config_two = config(2, ca.files(2), &[(1, relay.addr().to_string())]);
    config_two.timers = timers;
    let two = start(config_two);
    two.told.up(1);
    relay.lead_to(None);
    drop(killed);
    let one = start_one();
    relay.lead_to(Some(one.addr()));
    two.links.send(1, heartbeat(1)).unwrap();
    assert!(matches!(two.told.down(1), DownReason::Lost(_)));
    two.told.up(1);
    one.told.up(2);
}

#[test]
fn a_newer_connection_of_the_same_server_replaces_the_older() {
    let ca = Ca::new("prod");
    let (one, two) = pair(&ca);
    let raw = Raw::new();
    let _link = raw.link(&one, &ca.files(2));
    assert_eq!(one.told.down(2), DownReason::Replaced);
    one.told.up(2);
    assert_eq!(two.told.down(1), DownReason::ByPeer(DownReason::Replaced.to_string()));
    // Which in its turn is replaced, when server 2 dials again.
    assert_eq!(one.told.down(2), DownReason::Replaced);
    one.told.up(2);
    two.told.up(1);
}

#[test]
fn certificates_change_without_a_restart_and_without_a_break() {
    let old = Ca::new("prod");
    let new = Ca::new("prod");
    let both: Vec<u8> = [old.pem(), new.pem()].concat();
    let (one, two) = pair(&old);
    let stays_up = |one: &Server, two: &Server| {
        one.links.send(2, heartbeat(1)).unwrap();
        assert_eq!(two.told.message(), (1, heartbeat(1)));
    };
    // Both learn of the new authority, then both take its certificates.
    one.links.reload(&TlsFiles { ca_pem: both.clone(), ..old.files(1) }).unwrap();
    two.links.reload(&TlsFiles { ca_pem: both.clone(), ..old.files(2) }).unwrap();
    one.links.reload(&TlsFiles { ca_pem: both.clone(), ..new.files(1) }).unwrap();
    two.links.reload(&TlsFiles { ca_pem: both, ..new.files(2) }).unwrap();
    stays_up(&one, &two);

    // What cannot be used changes nothing.
    let expires = one.links.certificate_expires();
    assert!(matches!(one.links.reload(&new.files(2)), Err(TlsError::OwnCertificate { .. })));
    assert_eq!(one.links.certificate_expires(), expires);
    stays_up(&one, &two);

    // The old authority goes. This link was made under it, so it ends, and is made anew under the new one.
    one.links.reload(&new.files(1)).unwrap();
    assert!(matches!(one.told.down(2), DownReason::Untrusted(_)));
    assert!(matches!(two.told.down(1), DownReason::ByPeer(why) if why.contains("no longer trusted")));
    one.told.up(2);
    two.told.up(1);
    two.links.reload(&new.files(2)).unwrap();
    stays_up(&one, &two);
}

/// Servers 1 and 2, which make a link when one has something to say.
fn on_demand(ca: &Ca, unused: Duration) -> (Server, Server) {
    let one_at = free_addr();
    let begin = |id, peer: (u8, SocketAddr), at: Option<SocketAddr>| {
        let mut config = config(id, ca.files(id), &[(peer.0, peer.1.to_string())]);
        config.peers[0].hold = Hold::OnDemand;
        config.timers.unused = unused;
        config.listen = at.unwrap_or(config.listen);
        start(config)
    };
    let two = begin(2, (1, one_at), None);
    let one = begin(1, (2, two.addr()), Some(one_at));
    (one, two)
}

#[test]
fn a_link_on_demand_is_made_by_either_end_closed_unused_and_made_again() {
    let ca = Ca::new("prod");
    let (one, two) = on_demand(&ca, Duration::from_millis(200));
    assert_eq!(one.links.send(2, heartbeat(1)), Err(SendError::Down(2)));
    for n in 0..4 {
        let (from, to, id) = if n % 2 == 0 { (&one, &two, 1) } else { (&two, &one, 2) };
        // What is said while the link is made waits for it, in order.
        for n in [n * 10, n * 10 + 1] {
            from.links.reach(3 - id, heartbeat(n)).unwrap();
        }
        assert_eq!(to.told.message(), (id, heartbeat(n * 10)));
        assert_eq!(to.told.message(), (id, heartbeat(n * 10 + 1)));
        // While it is there, it carries answers.
        to.links.reach(id, ack(n)).unwrap();
        assert_eq!(from.told.message(), (3 - id, ack(n)));
        assert_eq!(one.told.down(2), DownReason::Unused);
        assert_eq!(two.told.down(1), DownReason::Unused);
    }
    let refused = |server: &Server| server.links.refusals().iter().map(|(_, n)| n).sum::<u64>();
    assert_eq!((refused(&one), refused(&two)), (0, 0));
}

#[test]
fn a_link_that_is_always_there_is_not_closed_unused() {
    let ca = Ca::new("prod");
    let begin = |id, hold, peers: &[(u8, String)]| {
        let mut config = config(id, ca.files(id), peers);
        config.peers[0].hold = hold;
        config.timers.unused = Duration::from_millis(50);
        start(config)
    };
    let mut config_one =
        config(1, ca.files(1), &[(2, NOWHERE.into()), (3, NOWHERE.into()), (4, NOWHERE.into())]);
    config_one.timers.unused = Duration::from_millis(50);
    for (peer, hold) in config_one.peers.iter_mut().zip([Hold::Always, Hold::EitherWay, Hold::OnDemand]) {
        peer.hold = hold;
    }
    let one = start(config_one);
    let at = one.addr().to_string();
    let two = begin(2, Hold::Always, &[(1, at.clone())]);
    let three = begin(3, Hold::EitherWay, &[(1, at.clone())]);
    let four = begin(4, Hold::OnDemand, &[(1, at)]);
    two.told.up(1);
    three.told.up(1);
    // Time enough for the others, too.
    for n in 0..5 {
        four.links.reach(1, heartbeat(n)).unwrap();
        assert_eq!(four.told.down(1), DownReason::Unused);
    }
    for server in [&two, &three] {
        assert!(!server.told.has(|told| matches!(told, Told::Down(..))));
        assert!(server.links.facts()[0].up.is_some());
    }
}

#[test]
fn a_link_on_demand_stays_while_it_is_used() {
    let ca = Ca::new("prod");
    let unused = Duration::from_millis(500);
    let (one, two) = on_demand(&ca, unused);
    one.links.reach(2, heartbeat(0)).unwrap();
    let began = Instant::now();
    let mut n = 0;
    while began.elapsed() < unused * 4 {
        assert_eq!(two.told.message(), (1, heartbeat(n)));
        n += 1;
        one.links.send(2, heartbeat(n)).unwrap();
    }
    assert_eq!(one.links.facts()[0].hold, Hold::OnDemand);
}

/// Both dial at one moment: the connection of the higher id stays, at both ends.
#[test]
fn of_two_that_dial_each_other_at_once_one_link_stays() {
    let ca = Ca::new("prod");
    for n in 0..10 {
        let (one, two) = on_demand(&ca, Duration::from_secs(30));
        one.links.reach(2, heartbeat(n)).unwrap();
        two.links.reach(1, heartbeat(n)).unwrap();
        one.told.up(2);
        two.told.up(1);
        // What went over the other one may be lost: it is said again until it is heard.
        let heard = |from: &Server, to: &Server, id: u8| {
            while !to.told.has(|told| matches!(told, Told::Message(_, message) if *message == heartbeat(n))) {
                let _ = from.links.reach(3 - id, heartbeat(n));
                std::thread::yield_now();
            }
        };
        heard(&one, &two, 1);
        heard(&two, &one, 2);
    }
}

#[test]
fn who_cannot_be_reached_is_told_and_asked_again_later() {
    let ca = Ca::new("prod");
    let relay = Relay::new();
    let mut config_two = config(2, ca.files(2), &[(1, relay.addr().to_string())]);
    config_two.peers[0].hold = Hold::OnDemand;
    let two = start(config_two);
    two.links.reach(1, heartbeat(1)).unwrap();
    two.told.unreached(1);
    let mut config_one = config(1, ca.files(1), &[(2, NOWHERE.into())]);
    config_one.peers[0].hold = Hold::OnDemand;
    let one = start(config_one);
    relay.lead_to(Some(one.addr()));
    two.links.reach(1, heartbeat(2)).unwrap();
    assert_eq!(one.told.message(), (2, heartbeat(2)), "what could not be sent is gone");

    // More than may wait is refused.
    relay.lead_to(None);
    one.links.stop();
    two.told.down(1);
    let kept =
        (0..).map_while(|n| two.links.reach(1, heartbeat(n)).ok()).take(WAITING_MESSAGES_MAX + 1).count();
    assert_eq!(kept, WAITING_MESSAGES_MAX);
    assert_eq!(two.links.reach(1, heartbeat(0)), Err(SendError::Waiting(1)));
}

/// One end believes that there is always a link, the other that there need not be: they are told of changes one after the other.
#[test]
fn ends_that_hold_a_link_otherwise_have_one() {
    let ca = Ca::new("prod");
    for (one_holds, two_holds) in [
        (Hold::EitherWay, Hold::OnDemand),
        (Hold::OnDemand, Hold::EitherWay),
        (Hold::Always, Hold::OnDemand),
        (Hold::OnDemand, Hold::Always),
    ] {
        let at = free_addr();
        let mut config_two = config(2, ca.files(2), &[(1, at.to_string())]);
        config_two.peers[0].hold = two_holds;
        let two = start(config_two);
        let mut config_one = config(1, ca.files(1), &[(2, two.addr().to_string())]);
        config_one.peers[0].hold = one_holds;
        config_one.listen = at;
        let one = start(config_one);
        one.told.up(2);
        two.told.up(1);
    }
}

#[test]
fn a_link_outlives_a_change_of_its_hold_and_is_closed_by_a_later_rule() {
    let ca = Ca::new("prod");
    let hold = |server: &Server, hold| {
        let facts = server.links.facts().remove(0);
        server.links.set_peers(vec![PeerAddr { id: facts.server, addr: facts.addr, hold }]);
    };
    let (one, two) = on_demand(&ca, Duration::from_millis(100));
    // From now on it is there without a word.
    for server in [&one, &two] {
        hold(server, Hold::Always);
    }
    one.told.up(2);
    two.told.up(1);
    for server in [&one, &two] {
        hold(server, Hold::EitherWay);
    }
    two.links.send(1, heartbeat(1)).unwrap();
    assert_eq!(one.told.message(), (2, heartbeat(1)));
    for server in [&one, &two] {
        hold(server, Hold::OnDemand);
    }
    // The first that was told of a link that is down.
    assert_eq!(one.told.down(2), DownReason::Unused);
    assert_eq!(two.told.down(1), DownReason::Unused);
}
