//! Read-only mode: who is served without a leader, for how long, and who is sent away.

use super::*;
use crate::service::READ_ONLY_AFTER_MIN;

/// Three servers, the second of which has just lost its leader.
fn cut_off() -> Ensemble {
    let mut ensemble = Ensemble::of(3);
    ensemble.servers[1].group = 1;
    let term = ensemble.term;
    ensemble.tell(1, Event::Leader { term, leader: None });
    ensemble
}

/// Time passes until the second one takes read-only clients.
fn wait(ensemble: &mut Ensemble) {
    let steps = READ_ONLY_AFTER_MIN.max(ms(TICK_MS)).as_millis() / STEP.as_millis();
    for _ in 0..steps {
        assert!(!ensemble.servers[1].room.is_read_only());
        ensemble.step();
    }
    assert!(ensemble.servers[1].room.is_read_only());
}

#[test]
fn a_server_without_a_leader_serves_reads_to_those_who_accept_it_until_there_is_one() {
    let mut ensemble = cut_off();
    wait(&mut ensemble);
    assert_eq!(ensemble.servers[1].room.standing().mode, Mode::ReadOnly);
    let mut client = ensemble.connect_as(1, 0, [0; 16], TIMEOUT_MS, true);
    let Attached { session, generation, read_only, .. } = client.attached();
    assert!(read_only && generation == 1);
    assert_eq!(session as u64 >> 48, 2, "no session of the ensemble has such an id");
    assert_eq!(ensemble.servers[1].room.metrics.local_sessions.value(), 1);
    assert_eq!(ensemble.commands.len(), 0, "nobody else hears of it");

    ensemble.servers[1].group = 0;
    let term = ensemble.term;
    ensemble.tell(1, Event::Leader { term, leader: Some(1) });
    client.look(&ensemble);
    assert!(client.closed().is_some_and(|why| why.contains("there is a leader again")));
    assert!(!ensemble.servers[1].room.is_read_only());
    assert_eq!(ensemble.servers[1].room.standing().mode, Mode::Follower);
    // Whoever shows its id there learns that it is over.
    ensemble.settle();
    let late = ensemble.connect_as(1, session, client.attached().password, TIMEOUT_MS, true);
    assert!(late.refused());
}

#[test]
fn who_wants_to_write_is_sent_away_and_so_is_who_has_a_session_of_the_ensemble() {
    let mut ensemble = cut_off();
    let mut waiting = ensemble.connect_as(1, 0, [0; 16], 20_000, false);
    let mut modest = ensemble.connect_as(1, 0, [0; 16], 20_000, true);
    let mut owner = ensemble.client(0, TIMEOUT_MS);
    let owned = owner.attached();
    wait(&mut ensemble);
    waiting.look(&ensemble);
    modest.look(&ensemble);
    assert!(waiting.closed().is_some_and(|why| why.contains("only reads")), "it waited in vain");
    assert!(modest.attached().read_only, "it waited for less than it got");
    let writer = ensemble.connect_as(1, 0, [0; 16], TIMEOUT_MS, false);
    assert!(writer.closed().is_some_and(|why| why.contains("only reads")));
    // The second server has not heard of this session, and must not say that it is over.
    let mover = ensemble.connect_as(1, owned.session | 1 << 56, owned.password, TIMEOUT_MS, true);
    assert!(mover.closed().is_some() && !mover.refused());
    owner.look(&ensemble);
    assert_eq!(owner.closed(), None);
}

#[test]
fn a_read_only_client_comes_back_with_its_password_and_ends_with_its_silence() {
    let mut ensemble = cut_off();
    wait(&mut ensemble);
    let mut client = ensemble.connect_as(1, 0, [0; 16], TIMEOUT_MS, true);
    let Attached { session, password, .. } = client.attached();
    assert!(ensemble.connect_as(1, session, [9; 16], TIMEOUT_MS, true).refused());
    let mut again = ensemble.connect_as(1, session, password, TIMEOUT_MS, true);
    assert_eq!((again.attached().session, again.attached().generation), (session, 2));
    client.look(&ensemble);
    assert_eq!(client.closed(), Some("its session attached elsewhere"));
    // Cut off for as long as one likes: nobody else can give away what it has.
    for _ in 0..400 {
        again.attached().pulse.beat(ensemble.now.ms());
        ensemble.step();
    }
    again.look(&ensemble);
    assert_eq!(again.closed(), None);
    let begin = ensemble.now;
    while ensemble.servers[1].room.metrics.local_sessions.value() > 0 {
        ensemble.step();
    }
    assert!(ensemble.now - begin >= ms(TIMEOUT_MS as u64 - 50) && ensemble.now - begin <= ms(7_000));
    again.look(&ensemble);
    assert_eq!(again.closed(), Some("its session expired"));
    assert!(ensemble.connect_as(1, session, password, TIMEOUT_MS, true).refused());
}

#[test]
fn sessions_of_the_ensemble_keep_their_connections_until_they_are_cut_off() {
    let mut ensemble = Ensemble::of(3);
    let mut client = ensemble.client(1, 30_000);
    (0..100).for_each(|_| ensemble.step());
    ensemble.servers[1].group = 1;
    let term = ensemble.term;
    ensemble.tell(1, Event::Leader { term, leader: None });
    wait(&mut ensemble);
    client.look(&ensemble);
    assert_eq!(client.closed(), None);
    (0..200).for_each(|_| ensemble.step());
    client.look(&ensemble);
    assert_eq!(client.closed(), Some(crate::connection::CUT_OFF));
}

#[test]
fn a_short_election_sends_nobody_away() {
    let mut ensemble = cut_off();
    let mut waiting = ensemble.connect_as(1, 0, [0; 16], 20_000, true);
    (0..30).for_each(|_| ensemble.step());
    ensemble.servers[1].group = 0;
    ensemble.elect(2);
    (0..60).for_each(|_| ensemble.step());
    waiting.look(&ensemble);
    assert!(!waiting.attached().read_only);
    assert!(!ensemble.servers[1].room.is_read_only());
}
