//! What is done to the servers, round by round.

use super::servers::id;
use super::{Director, Outcome, observers, polite, strangers};
use crate::io::daemon::eventually;
use crate::io::relay::Weather;
use rustix::process::Signal;
use std::fs;
use std::io;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};
use warren_storage::Op;
use warren_transport::{Change, Opcode, Request};

/// One of them.
pub(super) struct Round {
    pub(super) name: &'static str,
    pub(super) run: fn(&mut Director<'_>) -> Outcome<()>,
    /// Clients stay away from the server whose disk is small, which may refuse writes meanwhile.
    pub(super) needs_small_disk: bool,
    /// It is about observers.
    pub(super) needs_observers: bool,
}

const fn round(name: &'static str, run: fn(&mut Director<'_>) -> Outcome<()>) -> Round {
    Round { name, run, needs_small_disk: false, needs_observers: false }
}

const fn on_small_disk(name: &'static str, run: fn(&mut Director<'_>) -> Outcome<()>) -> Round {
    Round { needs_small_disk: true, ..round(name, run) }
}

const fn with_observers(name: &'static str, run: fn(&mut Director<'_>) -> Outcome<()>) -> Round {
    Round { needs_observers: true, ..round(name, run) }
}

/// All of them.
pub(super) const ALL: &[Round] = &[
    round("the leader is killed", leader_killed),
    round("a follower is killed", follower_killed),
    round("leadership is handed over", handed_over),
    round("the leader stands still", leader_stands_still),
    round("a follower stands still", follower_stands_still),
    round("the leader is alone", leader_alone),
    round("the leader is not heard", leader_not_heard),
    round("the leader does not hear", leader_does_not_hear),
    round("a follower is cut off", follower_cut_off),
    round("only the leader reaches a quorum", followers_apart),
    round("a link comes and goes", flapping),
    round("the network loses, repeats, reorders and garbles", bad_weather),
    round("large datagrams vanish", black_hole),
    round("strangers and garbage at the peers' ports", strangers_knock),
    round("certificates are renewed", certificates_renewed),
    round("as many are killed as may be, the leader among them", minority_killed),
    round("all are killed at once", all_killed),
    on_small_disk("a follower is far behind and takes a snapshot", far_behind),
    on_small_disk("a follower's disk is full", disk_full),
    round("rolling restart", rolling_restart),
    round("all begin anew in place, one after the other", begin_anew),
    with_observers("the leader is killed, and observers' clients go on", observers::leader_killed),
    with_observers("an observer's feeder is killed", observers::feeder_killed),
    with_observers("an observer's feeder stands still", observers::feeder_stands_still),
    with_observers("an observer is killed", observers::one_killed),
    with_observers("all observers are killed at once", observers::all_killed),
    with_observers("an observer is cut off", observers::one_cut_off),
];

/// The place of the server whose disk is small.
pub(super) const ON_SMALL_DISK: usize = 2;
/// How long the clients work before and after a fault.
pub(super) const WORK: Duration = Duration::from_millis(200);
/// How long a server stands still, or is out of reach: longer than an election takes.
pub(super) const FAULT: Duration = Duration::from_millis(1_500);
/// What a machine that stands still spoils is done so often.
const TRIES: usize = 5;
/// Between two turns of a link that comes and goes.
const FLAP: Duration = Duration::from_millis(150);
/// Znodes of this size, written so often, are more than a quarter of the small disk, which is what a log may take of one.
const BULK_BYTES: usize = 700_000;
const BULK_WRITES: usize = 240;

/// Kill it, see the others go on, and start it again.
pub(super) fn kill(director: &mut Director<'_>, places: &[usize]) -> Outcome<()> {
    director.work_on(WORK)?;
    places.iter().for_each(|place| director.stage.harm(*place));
    places.iter().for_each(|place| director.servers.daemons[*place].kill());
    if places.len() < director.servers.daemons.len() {
        director.flows()?;
        director.work_on(WORK)?;
    }
    for place in places {
        director.servers.daemons[*place].spawn()?;
    }
    for place in places {
        director.servers.daemons[*place].serving()?;
    }
    director.work_on(WORK)
}

fn leader_killed(director: &mut Director<'_>) -> Outcome<()> {
    let leader = director.servers.leader(&[])?;
    kill(director, &[leader])
}

fn follower_killed(director: &mut Director<'_>) -> Outcome<()> {
    let follower = director.servers.follower(&mut director.dice)?;
    kill(director, &[follower])?;
    same_leader_besides(director, follower)
}

fn minority_killed(director: &mut Director<'_>) -> Outcome<()> {
    let leader = director.servers.leader(&[])?;
    let all = director.servers.voters().len();
    let places: Vec<usize> = (0..(all - 1) / 2).map(|n| (leader + n) % all).collect();
    kill(director, &places)
}

fn all_killed(director: &mut Director<'_>) -> Outcome<()> {
    let places: Vec<usize> = director.servers.places().collect();
    kill(director, &places)
}

/// Somebody other than this server leads; that the others kept their connections is for the clients to say.
fn same_leader_besides(director: &Director<'_>, place: usize) -> Outcome<()> {
    let leader = director.servers.leader(&[])?;
    if leader == place {
        return Err(format!("server {} leads, though nothing was wrong with the leader", id(place)).into());
    }
    Ok(())
}

/// Do it, told who leads; that one must lead afterwards. When another does and this process stood still meanwhile, which carries
/// what servers say to each other, that is why, and nothing is learnt: it is done once more. That a server stood still is no
/// excuse: what was done may have made it.
pub(super) fn nobody_else_leads(
    director: &mut Director<'_>,
    mut what: impl FnMut(&mut Director<'_>, usize) -> Outcome<()>,
) -> Outcome<()> {
    for _ in 0..TRIES {
        let (leader, stalls) = (director.servers.leader(&[])?, director.stalls.load(SeqCst));
        what(director, leader)?;
        let now = director.servers.leader(&[])?;
        if now == leader {
            return Ok(());
        }
        let text = format!(
            "server {} leads, and not {} any more; turns of servers that came late since their starts: {:?}",
            id(now),
            id(leader),
            // What was found is told even when a server does not say this.
            director.stalls_of_servers()
        );
        if director.stalls.load(SeqCst) == stalls {
            return Err(text.into());
        }
        eprintln!("{text}; this machine stood still: once more");
        director.servers.relay().set_all(Weather::FAIR);
        director.flows()?;
    }
    Err(format!("this machine stands still too often, {TRIES} times in a row").into())
}

/// Nobody's connection may break, the old leader's included.
fn handed_over(director: &mut Director<'_>) -> Outcome<()> {
    for _ in 0..3 {
        let leader = director.servers.leader(&[])?;
        director.work_on(WORK)?;
        director.servers.hand_over(leader)?;
        director.servers.leader(&[leader])?;
        director.flows()?;
    }
    director.work_on(WORK)
}

pub(super) fn stand_still(director: &mut Director<'_>, place: usize) -> Outcome<()> {
    director.work_on(WORK)?;
    director.stage.harm(place);
    director.servers.daemons[place].signal(Signal::STOP)?;
    director.flows()?;
    director.work_on(FAULT)?;
    director.flows()?;
    director.servers.daemons[place].signal(Signal::CONT)?;
    director.work_on(WORK)
}

fn leader_stands_still(director: &mut Director<'_>) -> Outcome<()> {
    let leader = director.servers.leader(&[])?;
    stand_still(director, leader)
}

fn follower_stands_still(director: &mut Director<'_>) -> Outcome<()> {
    let follower = director.servers.follower(&mut director.dice)?;
    stand_still(director, follower)?;
    same_leader_besides(director, follower)
}

/// Whoever leads now is not `old`, though the network is still as it is; and writes go on.
fn another_leads(director: &mut Director<'_>, old: usize) -> Outcome<()> {
    director.servers.leader(&[old])?;
    director.flows()?;
    director.work_on(FAULT)?;
    director.flows()?;
    director.servers.relay().set_all(Weather::FAIR);
    director.work_on(WORK)
}

fn leader_alone(director: &mut Director<'_>) -> Outcome<()> {
    let leader = director.servers.leader(&[])?;
    director.work_on(WORK)?;
    director.stage.harm(leader);
    director.servers.relay().set_around(id(leader), Weather::CUT);
    another_leads(director, leader)
}

fn leader_not_heard(director: &mut Director<'_>) -> Outcome<()> {
    let leader = director.servers.leader(&[])?;
    director.stage.harm(leader);
    for other in director.servers.places().filter(|place| *place != leader) {
        director.servers.relay().set(id(leader), id(other), Weather::CUT);
    }
    another_leads(director, leader)
}

fn leader_does_not_hear(director: &mut Director<'_>) -> Outcome<()> {
    let leader = director.servers.leader(&[])?;
    director.stage.harm(leader);
    for other in director.servers.places().filter(|place| *place != leader) {
        director.servers.relay().set(id(other), id(leader), Weather::CUT);
    }
    another_leads(director, leader)
}

fn follower_cut_off(director: &mut Director<'_>) -> Outcome<()> {
    nobody_else_leads(director, |director, _| {
        let follower = director.servers.follower(&mut director.dice)?;
        director.stage.harm(follower);
        director.servers.relay().set_around(id(follower), Weather::CUT);
        director.work_on(FAULT)?;
        director.flows()?;
        director.servers.relay().set_all(Weather::FAIR);
        // It asks for votes when it is back, and disturbs nobody.
        director.work_on(FAULT)
    })
}

/// Followers do not reach each other; the leader reaches all of them, and nobody else should lead.
fn followers_apart(director: &mut Director<'_>) -> Outcome<()> {
    nobody_else_leads(director, |director, leader| {
        let followers: Vec<usize> = director.servers.voters().filter(|place| *place != leader).collect();
        for one in &followers {
            for other in followers.iter().filter(|other| *other > one) {
                director.servers.relay().set_between(id(*one), id(*other), Weather::CUT);
            }
        }
        director.work_on(2 * FAULT)?;
        director.flows().map(drop)
    })
}

fn flapping(director: &mut Director<'_>) -> Outcome<()> {
    let leader = director.servers.leader(&[])?;
    let follower = director.servers.follower(&mut director.dice)?;
    director.stage.harm(follower);
    let until = Instant::now() + 2 * FAULT;
    while Instant::now() < until {
        director.servers.relay().set_between(id(leader), id(follower), Weather::CUT);
        director.work_on(FLAP)?;
        director.servers.relay().set_all(Weather::FAIR);
        director.work_on(FLAP)?;
        director.flows()?;
    }
    Ok(())
}

/// Elections there may be; connections stay.
fn bad_weather(director: &mut Director<'_>) -> Outcome<()> {
    director.servers.relay().set_all(Weather {
        delay: Duration::from_millis(1),
        jitter: Duration::from_millis(3),
        lost_per_mille: 20,
        repeated_per_mille: 20,
        late_per_mille: 20,
        late_by: Duration::from_millis(10),
        garbled_per_mille: 10,
        ..Weather::FAIR
    });
    director.work_on(2 * FAULT)?;
    director.flows()?;
    Ok(())
}

/// Links notice that only small datagrams pass, and go on with small ones.
fn black_hole(director: &mut Director<'_>) -> Outcome<()> {
    director.servers.relay().set_all(Weather { bytes_max: 1_300, ..Weather::FAIR });
    director.flows()?;
    director.work_on(FAULT)?;
    director.flows()?;
    Ok(())
}

fn strangers_knock(director: &mut Director<'_>) -> Outcome<()> {
    nobody_else_leads(director, |director, _| {
        strangers::throw_garbage(&director.servers, &mut director.dice)?;
        strangers::knock(&director.servers, director.stage.folder.as_path())?;
        director.flows().map(drop)
    })
}

/// Each server is given another certificate while it runs; links stay, and those that are made anew are made with it.
fn certificates_renewed(director: &mut Director<'_>) -> Outcome<()> {
    let reloaded = |director: &Director<'_>, place: usize| {
        director.servers.daemons[place].metric("warren_certificates_reloaded_total")
    };
    for place in director.servers.places() {
        let before = reloaded(director, place)?;
        director.servers.certify(place)?;
        director.servers.daemons[place].signal(Signal::HUP)?;
        if !eventually(|| reloaded(director, place).is_ok_and(|now| now > before)) {
            return Err(format!("server {} does not read its new certificate", id(place)).into());
        }
        director.flows()?;
    }
    follower_killed(director)
}

/// So much is written while a follower is down that the log of it is gone: its leader has no room for more.
fn far_behind(director: &mut Director<'_>) -> Outcome<()> {
    let leader = director.servers.leader(&[])?;
    if leader != ON_SMALL_DISK {
        director.servers.hand_over_to(leader, Some(ON_SMALL_DISK))?;
    }
    let follower = director.servers.follower(&mut director.dice)?;
    director.stage.harm(follower);
    let said = director.servers.daemons[follower].said("received a snapshot");
    director.servers.daemons[follower].kill();
    director.flows()?;
    let at = director.stage.next(follower);
    let mut connection = director.stage.connect(at, super::SESSION_MS).map_err(|_| "no connection")?;
    let path = "/crash/bulk";
    let _ = connection.call(&Request::Change(super::create(path, b"", super::CreateMode::Persistent)))?;
    for n in 0..BULK_WRITES {
        let data = vec![n as u8; BULK_BYTES];
        let op = Op::SetData { path, data: Some(&data), version: -1 };
        connection.call(&Request::Change(Change { opcode: Opcode::SetData, op }))?.response()?;
    }
    connection.close()?;
    director.servers.daemons[follower].start()?;
    if !eventually(|| director.servers.daemons[follower].said("received a snapshot") > said) {
        return Err("the follower took no snapshot".into());
    }
    director.work_on(WORK)
}

/// Nobody's connection may break, not even to the server that begins anew; and who asks it for a new session just then waits a
/// moment.
fn begin_anew(director: &mut Director<'_>) -> Outcome<()> {
    for place in director.servers.places() {
        director.work_on(WORK)?;
        polite::through_a_beginning(director, place)?;
        director.flows()?;
    }
    director.work_on(WORK)
}

/// Others fill a follower's disk to the last byte: the ensemble goes on without it, and with it once there is space again.
fn disk_full(director: &mut Director<'_>) -> Outcome<()> {
    let place = ON_SMALL_DISK;
    director.stage.harm(place);
    if director.servers.leads(place) {
        director.servers.hand_over(place)?;
        director.servers.leader(&[place])?;
    }
    let folder = director.servers.daemons[place].folder();
    let path = folder.join("greedy");
    let greedy = fs::File::create(&path)?;
    let is_full = |director: &Director<'_>, full: f64| {
        director.servers.daemons[place].metric("warren_disk_below_reserve").is_ok_and(|below| below == full)
    };
    // What a checkpoint frees is eaten, too.
    let fills = || {
        fill_up(&greedy);
        is_full(director, 1.0)
    };
    if !eventually(fills) {
        return Err("warren_disk_below_reserve is not 1 on the full disk".into());
    }
    let until = Instant::now() + 2 * FAULT;
    while Instant::now() < until {
        fill_up(&greedy);
        director.flows()?;
    }
    drop(greedy);
    fs::remove_file(&path)?;
    if !eventually(|| is_full(director, 0.0)) {
        return Err("warren_disk_below_reserve is still 1, though there is space".into());
    }
    Ok(())
}

/// To the last byte.
fn fill_up(file: &fs::File) {
    for piece in [&[1; 64 << 10][..], &[1; 4 << 10][..]] {
        while io::Write::write_all(&mut &*file, piece).is_ok() {}
    }
}

/// SIGTERM to each in turn, the leader last; clients that wait for their answers get all of them.
fn rolling_restart(director: &mut Director<'_>) -> Outcome<()> {
    let leader = director.servers.leader(&[])?;
    let mut order: Vec<usize> = director.servers.places().filter(|place| *place != leader).collect();
    order.push(leader);
    // Whoever was sent away from one of them comes to the next.
    order.iter().for_each(|place| director.stage.harm(*place));
    polite::with_requests_waiting(director, order[0])?;
    for place in order {
        // Up to date, too: one that is behind may yet take a snapshot, and closes its connections for it.
        director.all_take_writes()?;
        polite::through_a_stop(director, place)?;
    }
    Ok(())
}
