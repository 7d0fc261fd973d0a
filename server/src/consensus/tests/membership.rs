//! Changes of the membership, in whole ensembles.

use super::super::Event;
use super::cluster::{BAD, CALM, Cluster};
use warren_storage::{Change, Code, Entry, MemberRole};
use warren_transport::peer::ServerId;

/// Everything is quiet, and these vote.
fn settle_on(c: &mut Cluster, voters: &[ServerId], what: &str) {
    let voters = voters.to_vec();
    c.run_until(6_000, what, move |c| c.agree_on_voters(&voters) && c.leader().is_some());
}

fn followers(c: &Cluster, leader: ServerId) -> Vec<ServerId> {
    c.ids().into_iter().filter(|id| *id != leader && c.is_up(*id)).collect()
}

#[test]
fn the_first_leader_writes_down_who_founded() {
    let mut c = Cluster::new(3, 1);
    c.elect();
    settle_on(&mut c, &[1, 2, 3], "the table");
    assert_eq!(c.members(1).unwrap().version, 0);
}

/// It is asked for on a follower, comes with nothing, learns what raft's configuration is from the log, and votes as soon
/// as it is level.
#[test]
fn a_server_that_is_added_learns_and_then_votes() {
    let mut c = Cluster::with_spares(3, 1, 3);
    let leader = c.elect();
    c.write(leader, 50);
    settle_on(&mut c, &[1, 2, 3], "the table");
    let follower = followers(&c, leader)[0];
    c.add(follower, 4);
    c.run_until(1_000, "it is in the table", |c| c.members(1).unwrap().get(4).is_some());
    assert_eq!(c.members(leader).unwrap().get(4).unwrap().role, MemberRole::Joining);
    c.run_ms(500);
    assert!(c.agree_on_voters(&[1, 2, 3]), "who is not there does not vote");
    c.start(4);
    settle_on(&mut c, &[1, 2, 3, 4], "it votes");
    // With it, two of the old ones may fail no more than one did; it counts.
    c.crash(follower);
    c.write(leader, 5);
    c.run_until(2_000, "three of four commit", Cluster::is_settled);
    c.check_exactly_once();
}

#[test]
fn a_server_that_is_added_late_gets_a_tree() {
    let mut c = Cluster::with_spares(3, 1, 4);
    let leader = c.elect();
    for _ in 0..60 {
        c.write(leader, 40);
        c.run_ms(20);
    }
    c.run_until(1_000, "quiet", Cluster::is_settled);
    c.ids().into_iter().filter(|id| *id != 4).for_each(|id| c.checkpoint(id));
    c.add(leader, 4);
    c.run_ms(200);
    c.start(4);
    settle_on(&mut c, &[1, 2, 3, 4], "it votes");
    assert!(c.at(4).snapshots_taken > 0);
    // It knows as whom it takes part when it starts again.
    c.crash(4);
    c.start(4);
    settle_on(&mut c, &[1, 2, 3, 4], "it is back");
    c.crash(leader);
    c.elect();
}

#[test]
fn a_follower_is_removed_and_disturbs_nobody() {
    let mut c = Cluster::new(3, 5);
    let leader = c.elect();
    settle_on(&mut c, &[1, 2, 3], "the table");
    let gone = followers(&c, leader)[0];
    let stay: Vec<_> = c.ids().into_iter().filter(|id| *id != gone).collect();
    c.reconfigure(leader, Change::Remove { id: gone });
    settle_on(&mut c, &stay, "two are left");
    let term = c.life(leader).consensus.facts().term;
    c.run_ms(3_000);
    assert_eq!((c.leader(), c.life(leader).consensus.facts().term), (Some(leader), term));
    c.write(leader, 3);
    c.run_ms(200);
    assert_eq!(c.life(leader).consensus.facts().own, 0);
}

/// Rule 4: a leader does not apply its own removal. It hands over while both configurations vote, and the next one leaves.
#[test]
fn rule_4_a_leader_that_is_removed_hands_over_first() {
    for seed in 0..20 {
        let mut c = Cluster::new(3, 100 + seed);
        if seed % 2 == 1 {
            c.faults = BAD;
        }
        let leader = c.elect();
        settle_on(&mut c, &[1, 2, 3], "the table");
        c.elect();
        let leader = c.leader().unwrap_or(leader);
        let stay: Vec<_> = c.ids().into_iter().filter(|id| *id != leader).collect();
        let change = match seed % 4 < 2 {
            true => Change::Remove { id: leader },
            false => Change::Demote { id: leader },
        };
        // Until it is taken: under faults there may be no quorum that is up to date at the moment.
        let mut asked = 0;
        while !c.agree_on_voters(&stay) {
            if asked % 1_000 == 0 && c.leader() == Some(leader) {
                c.reconfigure(leader, change.clone());
            }
            asked += 1;
            assert!(asked < 20_000, "seed {seed}: {leader} does not go");
            c.run_ms(1);
        }
        c.faults = CALM;
        c.run_until(3_000, "another leads", |c| c.leader().is_some_and(|l| l != leader));
        let next = c.leader().unwrap();
        c.write(next, 3);
        c.run_until(2_000, "it serves", |c| {
            c.servers[usize::from(next) - 1].life.as_ref().unwrap().consensus.facts().own == 0
        });
        c.check_exactly_once();
    }
}

/// Rule 7: raft's own leaving is lost with the leader that entered, so whoever leads in a joint configuration leaves it.
#[test]
fn rule_7_a_joint_configuration_is_left_by_whoever_leads() {
    let mut left = 0;
    for seed in 0..30 {
        let mut c = Cluster::new(5, 200 + seed);
        let leader = c.elect();
        settle_on(&mut c, &[1, 2, 3, 4, 5], "the table");
        let gone = followers(&c, leader)[0];
        // Its disk is replaced: one voter goes and a learner comes, which is two changes and so joint.
        c.reconfigure(leader, Change::Replace { id: gone });
        let delay = 1 + seed % 6;
        c.run_ms(delay);
        left += u64::from(c.life(leader).consensus.facts().changing);
        c.crash(leader);
        let stay: Vec<_> = c.ids().into_iter().filter(|id| *id != gone).collect();
        c.run_until(4_000, "another leads", |c| c.leader().is_some());
        c.start(leader);
        // Either it was lost with its leader, or it is carried out to the end.
        let all = c.ids();
        c.run_until(6_000, "it is settled", |c| c.agree_on_voters(&stay) || c.agree_on_voters(&all));
    }
    assert!(left > 5, "{left} of the leaders died in a joint configuration");
}

/// Rule 7: raft answers a second change with `Ok` and makes nothing of it. The leader says that one is under way.
#[test]
fn rule_7_a_second_change_is_refused_while_one_runs() {
    let mut c = Cluster::with_spares(3, 2, 7);
    let leader = c.elect();
    settle_on(&mut c, &[1, 2, 3], "the table");
    c.add(leader, 4);
    c.add(leader, 5);
    c.run_until(1_000, "an answer", |c| {
        !c.servers[usize::from(leader) - 1].life.as_ref().unwrap().refused.is_empty()
    });
    assert_eq!(c.life(leader).refused, [Code::ReconfigInProgress]);
    c.run_until(1_000, "one of them is in", |c| c.members(leader).unwrap().servers.len() == 4);
    c.add(leader, 5);
    c.run_until(1_000, "the other, too", |c| c.members(leader).unwrap().servers.len() == 5);
}

/// No step may leave a leader that cannot commit.
#[test]
fn a_change_needs_a_synced_quorum_of_the_new_voters() {
    let mut c = Cluster::new(3, 8);
    let leader = c.elect();
    settle_on(&mut c, &[1, 2, 3], "the table");
    let [down, other] = followers(&c, leader)[..] else { panic!() };
    c.crash(down);
    c.run_ms(400);
    // The other one is the only one that is there beside the leader.
    c.reconfigure(leader, Change::Remove { id: other });
    c.run_until(1_000, "an answer", |c| {
        !c.servers[usize::from(leader) - 1].life.as_ref().unwrap().refused.is_empty()
    });
    assert_eq!(c.life(leader).refused, [Code::NewConfigNoQuorum]);
    assert_eq!(c.leader(), Some(leader));
    // The dead one may go.
    c.reconfigure(leader, Change::Remove { id: down });
    let mut stay = vec![leader, other];
    stay.sort_unstable();
    settle_on(&mut c, &stay, "two are left");
}

/// An emptied disk comes back as the next one: its old identity votes no more, and its own learns and votes.
#[test]
fn a_wiped_voter_is_replaced() {
    let mut c = Cluster::new(3, 9);
    let leader = c.elect();
    c.write(leader, 20);
    settle_on(&mut c, &[1, 2, 3], "the table");
    let wiped = followers(&c, leader)[0];
    c.wipe(wiped, 2);
    c.run_ms(400);
    c.reconfigure(leader, Change::Replace { id: wiped });
    c.run_until(1_000, "its place", |c| c.members(leader).unwrap().get(wiped).unwrap().disk == 2);
    c.start(wiped);
    settle_on(&mut c, &[1, 2, 3], "it votes again");
    let other = followers(&c, leader).into_iter().find(|id| *id != wiped).unwrap();
    c.crash(other);
    c.write(leader, 5);
    c.run_until(2_000, "the leader and it are a quorum", Cluster::is_settled);
    c.check_exactly_once();
}

/// Rule 6: a server that comes back knows the configuration it went by, from the checkpoint and from a commit that was
/// durable before.
#[test]
fn rule_6_a_restart_knows_the_configuration() {
    for seed in 0..10 {
        let mut c = Cluster::with_spares(3, 1, 300 + seed);
        let leader = c.elect();
        settle_on(&mut c, &[1, 2, 3], "the table");
        c.add(leader, 4);
        c.start(4);
        settle_on(&mut c, &[1, 2, 3, 4], "it votes");
        let gone = followers(&c, leader)[0];
        let stay: Vec<_> = c.ids().into_iter().filter(|id| *id != gone).collect();
        c.reconfigure(leader, Change::Remove { id: gone });
        settle_on(&mut c, &stay, "it is gone");
        let before: Vec<_> = stay.iter().map(|id| c.life(*id).consensus.facts().voters).collect();
        for id in c.ids() {
            c.crash(id);
        }
        for id in &stay {
            c.start(*id);
        }
        let after: Vec<_> = stay.iter().map(|id| c.life(*id).consensus.facts().voters).collect();
        assert_eq!(before, after);
        c.run_until(3_000, "they elect", |c| c.leader().is_some());
    }
}

#[test]
fn one_server_grows_to_three() {
    let mut c = Cluster::with_spares(1, 2, 11);
    c.elect();
    c.write(1, 10);
    settle_on(&mut c, &[1], "the table");
    assert!(c.life(1).consensus.is_alone());
    for id in [2, 3] {
        c.add(1, id);
        c.run_until(1_000, "its place", |c| c.members(1).unwrap().get(id).is_some());
        c.start(id);
        let all: Vec<_> = (1..=id).collect();
        settle_on(&mut c, &all, "it votes");
    }
    assert!(!c.life(1).consensus.is_alone());
    c.crash(1);
    c.elect();
    c.check_exactly_once();
}

#[test]
fn a_survivor_is_made_the_only_voter_by_force() {
    for seed in 0..10 {
        let mut c = Cluster::new(3, 400 + seed);
        let leader = c.elect();
        c.write(leader, 20);
        settle_on(&mut c, &[1, 2, 3], "the table");
        // A change may be under way when the others die.
        if seed % 2 == 1 {
            let id = followers(&c, leader)[0];
            c.reconfigure(leader, Change::Replace { id });
            c.run_ms(1 + seed / 2);
        }
        let survivor = followers(&c, leader)[1];
        for id in c.ids().into_iter().filter(|id| *id != survivor) {
            c.crash(id);
        }
        c.run_ms(1_000);
        assert_eq!(c.leader(), None);
        let mut alone = c.members(survivor).unwrap().clone();
        alone.servers.retain(|member| member.id == survivor);
        c.tell(survivor, Event::ForceQuorum(super::super::table_of(alone)));
        settle_on(&mut c, &[survivor], "it leads alone");
        c.run_until(1_000, "it serves", Cluster::is_settled);
        c.write(survivor, 5);
        c.run_until(1_000, "it serves", Cluster::is_settled);
        c.crash(survivor);
        c.start(survivor);
        settle_on(&mut c, &[survivor], "it leads alone after a restart");
    }
}

/// Many changes under bad conditions: histories stay one, and whoever is in at the end agrees on who.
#[test]
fn changes_in_the_middle_of_everything() {
    for seed in 0..25 {
        let mut c = Cluster::with_spares(3, 2, 500 + seed);
        c.elect();
        c.faults = BAD;
        let mut disks = [1u32; 6];
        for _ in 0..40 {
            let at = 1 + c.dice.below(5) as ServerId;
            let id = 1 + c.dice.below(5) as ServerId;
            if c.is_up(at) {
                match c.dice.below(5) {
                    0 => c.add(at, id),
                    1 => c.reconfigure(at, Change::Remove { id }),
                    2 => c.reconfigure(at, Change::Promote { id }),
                    3 => c.reconfigure(at, Change::Demote { id }),
                    _ => c.reconfigure(at, Change::Replace { id }),
                }
                c.write(at, 3);
            }
            match c.dice.below(6) {
                0 if c.is_up(id) => c.crash(id),
                1 if c.is_up(id) => c.isolate(id),
                2 => c.heal(),
                _ => {}
            }
            let ms = c.dice.below(300);
            c.run_ms(ms);
            // Whoever the newest table has comes with the disk that it is to have; who is to go is needed until a joint
            // configuration is left.
            let newest = c.settled_members();
            for member in newest.iter().flat_map(|members| &members.servers) {
                let number = &mut disks[usize::from(member.id)];
                if member.disk > *number {
                    *number = member.disk;
                    c.wipe(member.id, member.disk);
                }
                if member.role != MemberRole::Observer && !c.is_up(member.id) {
                    c.start(member.id);
                }
            }
            c.start_former(400);
        }
        c.faults = CALM;
        c.heal();
        // Those that left, too: they must not disturb.
        c.start_former(1_000);
        c.run_until(10_000, "a leader", |c| c.leader().is_some());
        c.run_ms(3_000);
        let leader = c.leader().unwrap_or_else(|| panic!("seed {seed}: nobody leads"));
        let voters: Vec<_> = c.members(leader).unwrap().voters().map(|m| m.id).collect();
        assert!(c.agree_on_voters(&voters), "seed {seed}: {voters:?}");
        c.excuse_all_but(&voters);
        c.check_exactly_once();
    }
}

/// Its store must stand in the log before it votes, and it must be the one that it has.
#[test]
fn a_server_that_joins_votes_once_its_store_is_known() {
    let mut c = Cluster::with_spares(3, 1, 9);
    let leader = c.elect();
    settle_on(&mut c, &[1, 2, 3], "the table");
    c.introduces = false;
    c.add(leader, 4);
    c.start(4);
    c.run_ms(3_000);
    assert_eq!(
        c.members(leader).unwrap().get(4).unwrap().role,
        MemberRole::Joining,
        "nobody knows its store"
    );
    c.crash(4);
    c.run_ms(1_000);
    for store_id in [1, 2] {
        c.tell(leader, Event::Met { server: 4, disk: 1, store_id });
    }
    c.start(4);
    c.run_ms(2_000);
    assert_eq!(c.members(leader).unwrap().get(4).unwrap().role, MemberRole::Joining, "it was emptied");
    c.tell(leader, Event::Met { server: 4, disk: 1, store_id: 1 });
    settle_on(&mut c, &[1, 2, 3, 4], "it votes");
    let stores = c.history.values().filter_map(|(_, data)| match Entry::decode(data) {
        Ok(Entry::Introduce { server: 4, store_id, .. }) => Some(store_id),
        _ => None,
    });
    assert_eq!(stores.collect::<Vec<_>>(), [1]);
}

/// The leader was told by the id that it has the log, and hears that the store by that name is empty: it begins again with it.
#[test]
fn what_an_emptied_server_acknowledged_is_forgotten() {
    let mut c = Cluster::new(3, 9);
    let leader = c.elect();
    settle_on(&mut c, &[1, 2, 3], "the table");
    c.write(leader, 20);
    c.run_ms(500);
    let emptied = followers(&c, leader)[0];
    let matched = |c: &Cluster| {
        let life = c.servers[usize::from(leader) - 1].life.as_ref().unwrap();
        life.consensus.facts().followers.iter().find(|f| f.server == emptied).unwrap().matched
    };
    assert!(matched(&c) > 0);
    c.crash(emptied);
    c.wipe(emptied, 1);
    c.tell(leader, Event::Met { server: emptied, disk: 0, store_id: 7 });
    assert_eq!(matched(&c), 0);
    c.start(emptied);
    c.run_until(3_000, "it has the log", |c| {
        let applied = |id: ServerId| c.servers[usize::from(id) - 1].life.as_ref().unwrap().applied;
        applied(emptied) == applied(leader)
    });
}
