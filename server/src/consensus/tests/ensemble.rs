//! Whole ensembles: elections, commits, forwarding, hand-over, reads and snapshots.

use super::super::{Event, Measure, Role, Submission};
use super::cluster::{BAD, CALM, Cluster};
use warren_storage::Entry;

#[test]
fn three_servers_elect_one_and_commit_with_two() {
    let mut c = Cluster::new(3, 1);
    let leader = c.elect();
    let down = c.ids().into_iter().find(|id| *id != leader).unwrap();
    c.crash(down);
    for id in c.ids().into_iter().filter(|id| *id != down) {
        c.write(id, 10);
    }
    c.run_until(1_000, "a quorum of two commits", Cluster::is_settled);
    c.check_exactly_once();
    let facts = c.life(leader).consensus.facts();
    assert_eq!((facts.role, facts.leader, &facts.voters[..]), (Role::Leading, Some(leader), &[1, 2, 3][..]));
    assert_eq!(facts.followers.iter().filter(|f| f.synced && f.matched == facts.last_index).count(), 1);
}

#[test]
fn one_of_three_commits_nothing_and_stops_leading() {
    let mut c = Cluster::new(3, 2);
    let leader = c.elect();
    c.run_until(1_000, "quiet", Cluster::is_settled);
    let before = c.history.len();
    for id in c.ids().into_iter().filter(|id| *id != leader) {
        c.crash(id);
    }
    c.write(leader, 5);
    c.run_ms(2_000);
    assert_eq!(c.history.len(), before);
    assert_eq!(c.leader(), None, "check-quorum");
    assert_eq!(c.life(leader).consensus.facts().own, 5, "they wait");
    for id in c.ids().into_iter().filter(|id| *id != leader) {
        c.start(id);
    }
    c.run_until(3_000, "they are committed after all", Cluster::is_settled);
    c.check_exactly_once();
}

#[test]
fn a_dead_leader_is_replaced_soon() {
    let mut gaps = Vec::new();
    for seed in 0..40 {
        let mut c = Cluster::new(3 + 2 * (seed % 2) as u8, seed);
        let leader = c.elect();
        let ms = 200 + c.dice.below(40);
        c.run_ms(ms);
        c.crash(leader);
        let other = c.ids().into_iter().find(|id| *id != leader).unwrap();
        c.write(other, 1);
        gaps.push(c.run_until(2_000, "another leads, and writes go on", Cluster::is_settled));
    }
    gaps.sort_unstable();
    assert!(gaps[20] <= 300 && gaps[39] <= 700, "{gaps:?}");
}

#[test]
fn a_server_that_comes_back_does_not_disturb_the_leader() {
    let mut c = Cluster::new(3, 3);
    let leader = c.elect();
    let other = c.ids().into_iter().find(|id| *id != leader).unwrap();
    c.isolate(other);
    c.run_ms(3_000);
    let term = c.life(leader).consensus.facts().term;
    c.heal();
    c.run_ms(1_000);
    assert_eq!((c.leader(), c.life(leader).consensus.facts().term), (Some(leader), term), "pre-vote");
    assert_eq!(c.life(other).leader, Some(leader));
}

#[test]
fn a_leader_that_reaches_some_who_cannot_reach_each_other_goes_on() {
    let mut c = Cluster::new(3, 4);
    let leader = c.elect();
    let others: Vec<_> = c.ids().into_iter().filter(|id| *id != leader).collect();
    c.cut(others[0], others[1]);
    c.cut(others[1], others[0]);
    let term = c.life(leader).consensus.facts().term;
    for id in c.ids() {
        c.write(id, 20);
    }
    c.run_ms(2_000);
    assert!(c.is_settled());
    assert_eq!((c.leader(), c.life(leader).consensus.facts().term), (Some(leader), term));
}

#[test]
fn one_that_hears_and_is_not_heard_does_not_stop_the_others() {
    let mut c = Cluster::new(3, 5);
    let leader = c.elect();
    for other in c.ids().into_iter().filter(|id| *id != leader) {
        c.cut(leader, other);
    }
    // Its followers hear nothing from it; it hears them, and has to give way.
    c.run_until(3_000, "another leads", |c| c.leader().is_some_and(|id| id != leader));
    c.heal();
    c.write(leader, 3);
    c.run_until(3_000, "one ensemble again", Cluster::is_settled);
    c.check_exactly_once();
}

#[test]
fn requests_reach_the_log_once_across_hand_overs_and_dead_leaders() {
    for seed in 0..6 {
        let mut c = Cluster::new(if seed % 2 == 0 { 3 } else { 5 }, seed);
        c.elect();
        for round in 0..12 {
            for id in c.ids() {
                if c.is_up(id) {
                    c.write(id, 7);
                }
            }
            c.run_ms(3);
            let Some(leader) = c.leader() else { continue };
            if round % 3 == 2 {
                c.crash(leader);
                c.run_ms(700);
                c.start(leader);
            } else {
                c.tell(leader, Event::Transfer { to: None });
                c.run_ms(20);
            }
        }
        c.run_until(5_000, "settled", Cluster::is_settled);
        c.check_exactly_once();
    }
}

#[test]
fn leadership_is_handed_over_to_whom_is_named_and_fast() {
    let mut c = Cluster::new(3, 7);
    let leader = c.elect();
    c.run_ms(300);
    for to in c.ids().into_iter().filter(|id| *id != leader) {
        let from = c.leader().unwrap();
        for id in c.ids() {
            c.write(id, 50);
        }
        c.tell(from, Event::Transfer { to: Some(to) });
        let ms = c.run_until(1_000, "the hand-over", |c| c.leader() == Some(to));
        assert!(ms <= 50, "{ms} ms");
    }
    c.run_until(1_000, "settled", Cluster::is_settled);
    c.check_exactly_once();
}

#[test]
fn a_hand_over_to_a_dead_server_is_given_up() {
    let mut c = Cluster::new(3, 8);
    let leader = c.elect();
    let dead = c.ids().into_iter().find(|id| *id != leader).unwrap();
    c.crash(dead);
    c.tell(leader, Event::Transfer { to: Some(dead) });
    c.write(leader, 5);
    c.run_until(1_000, "writes go on", Cluster::is_settled);
    assert_eq!(c.leader(), Some(leader));
}

#[test]
fn a_sync_on_a_follower_sees_what_was_committed_anywhere_before() {
    let mut c = Cluster::new(3, 9);
    let leader = c.elect();
    for round in 0..20 {
        c.write(leader, 1 + round % 3);
        c.run_ms(round % 7);
        for id in c.ids() {
            c.sync(id);
        }
    }
    c.run_until(1_000, "all are answered", Cluster::is_settled);
    for id in c.ids() {
        assert_eq!(c.life(id).synced, 20);
    }
}

#[test]
fn a_sync_without_a_leader_waits_for_one() {
    let mut c = Cluster::new(3, 10);
    let leader = c.elect();
    c.crash(leader);
    c.run_ms(20);
    let other = c.ids().into_iter().find(|id| *id != leader).unwrap();
    c.sync(other);
    c.run_ms(50);
    assert_eq!(c.life(other).synced, 0);
    c.run_until(2_000, "it is answered", Cluster::is_settled);
    assert_eq!(c.life(other).synced, 1);
}

/// A server that was down while the log was purged takes the newest checkpoint, and the log behind it.
#[test]
fn a_server_far_behind_takes_a_snapshot_and_then_the_log() {
    let mut c = Cluster::new(3, 11);
    let leader = c.elect();
    let behind = c.ids().into_iter().find(|id| *id != leader).unwrap();
    c.crash(behind);
    for round in 0..60 {
        c.write(leader, 20);
        c.run_ms(20);
        if round % 10 == 9 {
            for id in c.ids().into_iter().filter(|id| *id != behind) {
                c.checkpoint(id);
            }
        }
    }
    c.start(behind);
    // It has requests from before it hears of the snapshot.
    c.write(behind, 3);
    c.run_until(3_000, "it has caught up", Cluster::is_settled);
    assert_eq!(c.at(behind).snapshots_taken, 1);
    for id in c.ids() {
        c.write(id, 5);
    }
    c.run_until(1_000, "it takes part", Cluster::is_settled);
    c.check_exactly_once();
    // And it starts again on what it has.
    c.crash(behind);
    c.start(behind);
    c.run_until(1_000, "it is back", Cluster::is_settled);
}

#[test]
fn what_was_measured_can_be_told() {
    let mut c = Cluster::new(3, 12);
    let leader = c.elect();
    c.write(leader, 5);
    c.run_until(1_000, "settled", Cluster::is_settled);
    let measures = c.life(leader).consensus.take_measures();
    for found in [
        measures.contains(&Measure::Looking),
        measures.iter().any(|m| matches!(m, Measure::Election(d) if d.as_millis() > 100)),
        measures.iter().any(|m| matches!(m, Measure::Unavailable(_))),
        measures.iter().any(|m| matches!(m, Measure::QuorumAck(_))),
        measures.iter().any(|m| matches!(m, Measure::Proposal(_))),
    ] {
        assert!(found, "{measures:?}");
    }
}

/// Everything at once, from a seed; then the world heals, and within a bound all that was asked is done.
fn storm(servers: u8, seed: u64) -> Cluster {
    let mut c = Cluster::new(servers, seed);
    c.tracing = seed == 0;
    c.faults = BAD;
    for _ in 0..120 {
        let id = 1 + c.dice.below(u64::from(servers)) as u8;
        let other = 1 + c.dice.below(u64::from(servers)) as u8;
        match (c.dice.below(16), c.is_up(id)) {
            (0, true) => c.crash(id),
            (0..=3, false) => c.start(id),
            (1, true) => c.cut(id, other),
            (2, true) => c.isolate(id),
            (3 | 4, _) => c.heal(),
            (5, true) => c.tell(id, Event::Transfer { to: Some(other).filter(|to| *to != id) }),
            (6 | 7, true) => c.checkpoint(id),
            (8, true) => c.sync(id),
            (_, true) => {
                let count = 1 + c.dice.below(30);
                c.write(id, count);
            }
            _ => {}
        }
        let ms = c.dice.below(60);
        c.run_ms(ms);
    }
    c.faults = CALM;
    c.heal();
    for id in c.ids() {
        if !c.is_up(id) {
            c.start(id);
        }
        c.write(id, 5);
    }
    c.run_until(6_000, &format!("seed {seed} heals"), Cluster::is_settled);
    c.check_exactly_once();
    c
}

#[test]
fn storms_of_three() {
    let snapshots: u64 =
        (0..40).map(|seed| storm(3, seed)).flat_map(|c| c.servers).map(|s| s.snapshots_taken).sum();
    assert!(snapshots > 0, "some of them need a snapshot");
}

#[test]
fn storms_of_five() {
    for seed in 100..125 {
        storm(5, seed);
    }
}

/// Rules 10 and 15 of driving the crate: its own dice, and the order of its maps, decide nothing.
#[test]
fn equal_seeds_give_equal_runs() {
    let (a, b) = (storm(3, 0), storm(3, 0));
    assert!(a.trace.len() > 1_000);
    for (a, b) in a.trace.iter().zip(&b.trace) {
        assert_eq!(a, b);
    }
    assert_eq!(a.trace.len(), b.trace.len());
}

#[test]
fn who_abstains_hands_over_and_votes_and_never_leads() {
    for seed in 0..20 {
        let mut c = Cluster::new(3, seed);
        let wrong = c.elect();
        c.write(wrong, 5);
        c.tell(wrong, Event::Abstain(true));
        let others: Vec<_> = c.ids().into_iter().filter(|id| *id != wrong).collect();
        let leads = |c: &Cluster| c.leader().is_some_and(|leader| leader != wrong);
        c.run_until(1_000, "another leads", leads);
        c.run_until(1_000, "nothing is lost", Cluster::is_settled);
        // It is not to be persuaded.
        let leader = c.elect();
        c.tell(leader, Event::Transfer { to: Some(wrong) });
        c.run_ms(1_500);
        let leader = c.elect();
        assert_ne!(leader, wrong);
        let other = others[usize::from(leader == others[0])];
        // Its vote counts.
        c.crash(leader);
        c.write(wrong, 3);
        c.run_until(2_000, "the third leads by its vote", |c| c.leader() == Some(other));
        c.run_until(1_000, "and commits by it", Cluster::is_settled);
        c.start(leader);
        c.run_until(2_000, "all have everything", Cluster::is_settled);
        c.check_exactly_once();
        c.tell(wrong, Event::Abstain(false));
        let leader = c.elect();
        c.tell(leader, Event::Transfer { to: Some(wrong) });
        c.run_until(3_000, "it may lead again", |c| c.leader() == Some(wrong));
    }
}

#[test]
fn an_abstaining_leader_that_nobody_relieves_gives_up() {
    let mut c = Cluster::new(3, 7);
    let wrong = c.elect();
    let others: Vec<_> = c.ids().into_iter().filter(|id| *id != wrong).collect();
    others.iter().for_each(|id| c.tell(*id, Event::Abstain(true)));
    c.tell(wrong, Event::Abstain(true));
    c.run_until(3_000, "nobody leads", |c| c.leader().is_none());
    c.run_ms(2_000);
    assert_eq!(c.leader(), None);
    c.tell(others[0], Event::Abstain(false));
    c.run_until(2_000, "one may", |c| c.leader() == Some(others[0]));
}

#[test]
fn a_mark_is_an_entry_of_the_leaders() {
    let mut c = Cluster::new(3, 3);
    let leader = c.elect();
    c.run_until(1_000, "quiet", Cluster::is_settled);
    let marks = |c: &Cluster| c.history.values().filter(|(_, data)| **data == *Entry::Mark.encode()).count();
    for id in c.ids() {
        c.tell(id, Event::Submit(vec![Submission::Mark]));
    }
    c.run_until(1_000, "it is committed", |c| marks(c) > 0);
    c.write(leader, 1);
    c.run_until(1_000, "quiet", Cluster::is_settled);
    assert_eq!(marks(&c), 1, "the others have nothing to say");
}

#[test]
fn a_leader_without_its_quorum_tells_that_syncs_wait() {
    let mut c = Cluster::new(3, 4);
    let leader = c.elect();
    c.run_until(1_000, "quiet", Cluster::is_settled);
    assert_eq!(c.life(leader).consensus.facts().pending_syncs, 0);
    c.isolate(leader);
    c.sync(leader);
    c.sync(leader);
    assert_eq!(c.life(leader).consensus.facts().pending_syncs, 2);
    c.heal();
    c.run_until(3_000, "they are answered", Cluster::is_settled);
    assert_eq!(c.life(leader).consensus.facts().pending_syncs, 0);
}

#[test]
fn a_leader_without_space_hands_over_to_one_that_has_some() {
    for seed in 0..10 {
        let mut c = Cluster::new(3, seed);
        let first = c.elect();
        let others: Vec<_> = c.ids().into_iter().filter(|id| *id != first).collect();
        c.tell(first, Event::RefuseGrowth(true));
        c.write(first, 3);
        c.run_until(2_000, "another leads", |c| c.leader().is_some_and(|leader| leader != first));
        c.run_until(2_000, "quiet", Cluster::is_settled);
        c.check_exactly_once();

        // Of three, one alone would have space.
        let second = c.elect();
        assert!(others.contains(&second));
        c.tell(second, Event::RefuseGrowth(true));
        c.run_ms(12_000);
        assert_eq!(c.leader(), Some(second));
        c.tell(first, Event::RefuseGrowth(false));
        c.run_until(2_000, "who has space again may lead", |c| c.leader().is_some_and(|id| id != second));
    }
}

/// Two of them have space, and neither can be given leadership: one is down, and one must not lead.
#[test]
fn a_leader_without_space_and_without_an_heir_leads_on() {
    let mut c = Cluster::new(5, 3);
    let leader = c.elect();
    let others: Vec<_> = c.ids().into_iter().filter(|id| *id != leader).collect();
    c.crash(others[0]);
    c.tell(others[1], Event::Abstain(true));
    c.tell(leader, Event::RefuseGrowth(true));
    c.run_ms(12_000);
    assert_eq!(c.leader(), Some(leader), "two of five have space, as far as it knows");
    c.start(others[0]);
    c.run_until(3_000, "a majority has", |c| c.leader().is_some_and(|id| id != leader && id != others[1]));
}
