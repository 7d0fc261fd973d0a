//! What is done to observers and to those that feed them, and that their clients notice nothing that they need not.

use super::rounds::{FAULT, WORK, kill, nobody_else_leads, stand_still};
use super::servers::id;
use super::{Director, Outcome, polite};
use crate::io::daemon::eventually;
use crate::io::relay::Weather;

/// The place of the server that feeds the observer in this place, as that one says; `None` while none does.
fn feeder(director: &Director<'_>, place: usize) -> Option<usize> {
    let fed_by = director.servers.daemons[place].metric("warren_feeder_id").ok()?;
    (fed_by > 0.0).then(|| fed_by as usize - 1)
}

/// So many observers have all that is committed, as those say that feed them.
fn synced(director: &Director<'_>) -> f64 {
    let running = director.servers.daemons.iter().filter(|daemon| daemon.pid().is_some());
    running.filter_map(|daemon| daemon.metric("synced_observers").ok()).sum()
}

/// Wait until every observer is fed by a server that runs, and those say that all are up to date: no more and no fewer.
fn all_follow(director: &Director<'_>) -> Outcome<()> {
    let servers = &director.servers;
    let runs = |place: usize| servers.daemons[place].pid().is_some();
    let fed = |place: usize| feeder(director, place).is_some_and(|feeder| feeder != place && runs(feeder));
    let due = servers.observers().filter(|place| runs(*place)).count();
    if !eventually(|| servers.observers().filter(|place| runs(*place)).all(fed)) {
        return Err("an observer is not fed by a server that runs".into());
    }
    if !eventually(|| synced(director) == due as f64) {
        return Err(format!("synced_observers is {} in all, and not {due}", synced(director)).into());
    }
    Ok(())
}

fn one(director: &mut Director<'_>) -> Outcome<usize> {
    all_follow(director)?;
    let observers: Vec<usize> = director.servers.observers().collect();
    Ok(*director.dice.pick(&observers))
}

/// Clients of observers are answered by the next leader what they asked the last one.
pub(super) fn leader_killed(director: &mut Director<'_>) -> Outcome<()> {
    all_follow(director)?;
    let leader = director.servers.leader(&[])?;
    polite::through_a_kill(director, leader)?;
    all_follow(director)
}

pub(super) fn feeder_killed(director: &mut Director<'_>) -> Outcome<()> {
    let place = one(director)?;
    let fed_by = feeder(director, place).ok_or("an observer that was fed is not")?;
    if director.servers.observers().contains(&fed_by) {
        // Its own clients lose their connection, and have a round of their own.
        kill(director, &[fed_by])?;
    } else {
        polite::through_a_kill(director, fed_by)?;
    }
    all_follow(director)
}

/// It is not heard of, and another is found while it stands still.
pub(super) fn feeder_stands_still(director: &mut Director<'_>) -> Outcome<()> {
    let place = one(director)?;
    let fed_by = feeder(director, place).ok_or("an observer that was fed is not")?;
    stand_still(director, fed_by)?;
    if !eventually(|| feeder(director, place).is_some()) {
        return Err(format!("observer {} is fed by nobody", id(place)).into());
    }
    all_follow(director)
}

/// Nobody else notices, and who feeds it does not say that it is up to date.
pub(super) fn one_killed(director: &mut Director<'_>) -> Outcome<()> {
    let place = one(director)?;
    nobody_else_leads(director, |director, _| {
        director.work_on(WORK)?;
        director.stage.harm(place);
        director.servers.daemons[place].kill();
        director.flows()?;
        all_follow(director)?;
        director.servers.daemons[place].start()?;
        all_follow(director)
    })?;
    director.work_on(WORK)
}

pub(super) fn all_killed(director: &mut Director<'_>) -> Outcome<()> {
    all_follow(director)?;
    let observers: Vec<usize> = director.servers.observers().collect();
    kill(director, &observers)?;
    all_follow(director)
}

/// It knows that nobody feeds it, and finds somebody once it is back.
pub(super) fn one_cut_off(director: &mut Director<'_>) -> Outcome<()> {
    let place = one(director)?;
    director.stage.harm(place);
    director.servers.relay().set_around(id(place), Weather::CUT);
    director.work_on(FAULT)?;
    director.flows()?;
    if !eventually(|| feeder(director, place).is_none()) {
        return Err(format!("observer {} does not notice that nobody feeds it", id(place)).into());
    }
    director.servers.relay().set_all(Weather::FAIR);
    all_follow(director)?;
    director.work_on(WORK)
}
