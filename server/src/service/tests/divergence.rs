//! A server whose tree is not what the log makes: found, and out of service until it is right.

use super::*;
use crate::room::Confirmation;

/// Time passes until the next mark is applied and told everywhere.
fn compare(ensemble: &mut Ensemble) {
    let marks =
        |ensemble: &Ensemble| ensemble.log.iter().filter(|e| *e.data == *Entry::Mark.encode()).count();
    let before = marks(ensemble);
    for _ in 0..100 {
        ensemble.step();
        if marks(ensemble) > before {
            return ensemble.step();
        }
    }
    panic!("nobody set a mark");
}

fn create(path: &str, data: &[u8]) -> Vec<u8> {
    let acl = vec![warren_storage::AclRef {
        perms: 31,
        id: warren_storage::IdRef { scheme: "world", id: "anyone" },
    }];
    let op = Op::Create { path, data: Some(data), acl, mode: CreateMode::Persistent, ttl: 0 };
    Logged { tag: None, ids: Vec::new(), command: Command::Single(op) }.encode()
}

/// One of them applies the next write otherwise than the log says.
fn go_wrong(ensemble: &mut Ensemble, at: usize) {
    let (right, wrong) = (create("/a", b"right"), create("/a", b"wrong"));
    ensemble.append_command(&wrong);
    let altered = ensemble.log.pop().expect("it was just appended");
    ensemble.append_command(&right);
    ensemble.servers[at].delivered = ensemble.log.len();
    ensemble.tell(at, Event::Commit(vec![altered]));
    ensemble.settle();
}

fn states(ensemble: &Ensemble) -> Vec<(bool, bool, bool)> {
    let state = |s: &Server| (s.room.is_serving(), s.room.is_wrong(), s.abstains);
    ensemble.servers.iter().map(state).collect()
}

const WELL: (bool, bool, bool) = (true, false, false);
const WRONG: (bool, bool, bool) = (false, true, true);

#[test]
fn who_is_wrong_serves_nobody_and_the_others_go_on() {
    let mut ensemble = Ensemble::of(3);
    let mut clients: Vec<Client> = (0..3).map(|at| ensemble.client(at, 60_000)).collect();
    compare(&mut ensemble);
    assert_eq!(states(&ensemble), [WELL; 3]);
    go_wrong(&mut ensemble, 2);
    compare(&mut ensemble);
    assert_eq!(states(&ensemble), [WELL, WELL, WRONG]);
    let why: Vec<_> = clients
        .iter_mut()
        .map(|client| {
            client.look(&ensemble);
            client.closed()
        })
        .collect();
    assert_eq!(why, [None, None, Some("this server's tree is not what the log makes")]);
    // Nor is anybody served who was on the way (the simulator's seed 101995).
    let mut late = ensemble.connect(2, 0, [0; 16], 60_000);
    late.look(&ensemble);
    assert_eq!(late.closed(), Some("this server's tree is not what the log makes"));
    let metrics = |at: usize| {
        let metrics = &ensemble.servers[at].room.metrics;
        (metrics.digest_mismatches_count.value(), metrics.warren_tree_differs.value())
    };
    assert_eq!([metrics(0), metrics(1), metrics(2)], [(1, 0), (1, 0), (2, 1)]);
    // It stays so, though the data that were wrong are written anew.
    ensemble.append_command(&create("/b", b"x"));
    compare(&mut ensemble);
    assert_eq!(states(&ensemble), [WELL, WELL, WRONG]);
    assert_eq!(ensemble.servers[0].room.metrics.digest_mismatches_count.value(), 1, "it is told once");
    // When nothing changes, nothing is compared.
    let marks = ensemble.log.len();
    for _ in 0..200 {
        ensemble.step();
    }
    assert_eq!(ensemble.log.len(), marks);
}

/// What a majority has behind a mark, another server may be given; what came later, not yet.
#[test]
fn a_tree_is_confirmed_up_to_the_mark_at_which_a_majority_has_it() {
    let mut ensemble = Ensemble::of(3);
    let said = |ensemble: &Ensemble, index: u64| -> Vec<Confirmation> {
        ensemble.servers.iter().map(|s| s.room.confirmation(index)).collect()
    };
    assert_eq!(said(&ensemble, 1), [Confirmation::Awaited; 3], "nobody has said anything");
    compare(&mut ensemble);
    let index = ensemble.log.len() as u64;
    assert_eq!(said(&ensemble, index), [Confirmation::Confirmed; 3]);
    go_wrong(&mut ensemble, 2);
    assert_eq!(said(&ensemble, index + 1), [Confirmation::Awaited; 3]);
    // Two of three that have something different each.
    ensemble.servers[1].group = 1;
    compare(&mut ensemble);
    let (right, later) = (said(&ensemble, index), said(&ensemble, index + 1));
    assert_eq!(right, [Confirmation::Confirmed; 3], "that was before");
    assert_eq!((later[0], later[2]), (Confirmation::Contradicted, Confirmation::Contradicted));
    ensemble.servers[1].group = 0;
    ensemble.step();
    ensemble.step();
    let decided = said(&ensemble, index + 1);
    assert_eq!((decided[0], decided[2]), (Confirmation::Confirmed, Confirmation::Contradicted));
    assert_eq!(said(&ensemble, index)[2], Confirmation::Contradicted, "who is wrong gives nothing");
}

/// Until then somebody may count on the vote of a server that was removed.
#[test]
fn a_change_is_settled_when_a_majority_of_those_that_vote_has_applied_it() {
    let mut ensemble = Ensemble::of(3);
    let settled = |ensemble: &Ensemble| -> Vec<bool> {
        ensemble.servers.iter().map(|s| s.service.is_settled()).collect()
    };
    compare(&mut ensemble);
    assert_eq!(settled(&ensemble), [true; 3]);
    // Server 2, which stays, does not hear of it yet.
    ensemble.servers[1].group = 1;
    let two: Vec<u64> = (1..3).map(|id| consensus::raft_id(id, 1)).collect();
    ensemble.append(Vec::new());
    ensemble.log.last_mut().expect("it was just appended").conf_state = Some(consensus::found(&two));
    // The leader sets a mark at once.
    ensemble.step();
    assert!(!settled(&ensemble)[0], "one of two has applied it");
    ensemble.servers[1].group = 0;
    ensemble.step();
    ensemble.step();
    assert!(settled(&ensemble)[0]);
}

#[test]
fn a_leader_that_is_wrong_ends_no_session() {
    let mut ensemble = Ensemble::of(3);
    let silent = ensemble.client(1, TIMEOUT_MS).attached();
    go_wrong(&mut ensemble, 0);
    compare(&mut ensemble);
    assert_eq!(states(&ensemble), [WRONG, WELL, WELL]);
    for _ in 0..TIMEOUT_MS / 10 {
        ensemble.step();
    }
    assert!(ensemble.generation(1, silent.session).is_some(), "its tree may not know who is there");
    ensemble.elect(1);
    for _ in 0..TIMEOUT_MS / 10 {
        ensemble.step();
    }
    assert_eq!(ensemble.generation(1, silent.session), None);
}

#[test]
fn without_a_majority_nobody_stops_and_the_third_decides() {
    let mut ensemble = Ensemble::of(3);
    compare(&mut ensemble);
    ensemble.servers[1].group = 1;
    go_wrong(&mut ensemble, 2);
    compare(&mut ensemble);
    assert_eq!(states(&ensemble), [WELL; 3]);
    assert_eq!(ensemble.servers[0].room.metrics.digest_mismatches_count.value(), 1);
    // What it had behind that mark it tells once it comes there.
    ensemble.servers[1].group = 0;
    ensemble.step();
    ensemble.step();
    assert_eq!(states(&ensemble), [WELL, WELL, WRONG]);
}

#[test]
fn who_began_wrong_serves_once_a_majority_has_what_it_has() {
    let mut ensemble = Ensemble::of(3);
    compare(&mut ensemble);
    go_wrong(&mut ensemble, 2);
    compare(&mut ensemble);
    let at = ensemble.servers[2].service.tree().differs().expect("it is durable");
    assert_eq!(at.index, ensemble.log.len() as u64);
    // Another run of it, whose checkpoint is older than the fault; the log does the rest. Nothing else happens.
    ensemble.restart(2, Some(at));
    assert_eq!(states(&ensemble)[2], WRONG);
    ensemble.step();
    for _ in 0..200 {
        ensemble.step();
    }
    assert_eq!(states(&ensemble), [WELL; 3]);
    assert_eq!(ensemble.servers[2].service.tree().differs(), None);
    // And one whose checkpoint lies behind the last mark asks for another.
    let index = ensemble.log.len();
    ensemble.restart(2, Some(at));
    ensemble.servers[2].marks_before = index as u64;
    for _ in 0..200 {
        ensemble.step();
    }
    assert_eq!((states(&ensemble), ensemble.log.len()), (vec![WELL; 3], index + 1));
}
