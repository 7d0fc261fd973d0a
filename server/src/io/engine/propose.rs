//! The consensus thread.

use super::super::Clock;
use super::append::LogJob;
use super::{Engine, SHOW_EVERY, ToService, apply, stop_for};
use crate::consensus::{self, Measure, Role, Submission};
use crate::metrics::Metrics;
use crate::moment::Moment;
use crate::observer::Seat;
use crate::room::Room;
use crate::service;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What the consensus thread appends itself is no larger. More than that is worth a thread that takes the next
/// requests meanwhile.
const OWN_APPEND_BYTES_MAX: usize = 16 << 10;

/// While requests would only wait for a round that is under way, they are looked at this often: they may have become so many
/// that they are worth a round of their own.
const REQUESTS_UNSEEN_MAX: Duration = Duration::from_millis(1);

/// The log tells of one stall in this time; the metric counts all.
const STALLS_TOLD_EVERY: Duration = Duration::from_secs(10);

pub(super) fn run(clock: &Clock, mut consensus: Seat, engine: &Engine, room: &Arc<Room>) {
    let mut events = Vec::new();
    let mut submissions: Vec<Submission> = Vec::new();
    // The last append that the log thread was given and has not reported.
    let mut with_log: Option<u64> = None;
    let mut shown = clock.now();
    let mut led_since = None;
    let mut stall_told = None;
    loop {
        let until = consensus.poll_timeout();
        if consensus.is_busy() {
            let until = until.earlier(clock.now() + REQUESTS_UNSEEN_MAX);
            engine.consensus.take_busily(clock, until, &mut events);
        } else {
            engine.consensus.take(clock, Some(until), &mut events);
        }
        engine.turned.consensus.add();
        if let Some(done) = engine.retire.lock().take() {
            let _ = done.send(());
            return;
        }
        let now = clock.now();
        let (mut received, mut installs) = (false, false);
        // What came from many connections is proposed together.
        for event in events.drain(..) {
            match event {
                consensus::Event::Submit(more) => submissions.extend(more),
                consensus::Event::RefuseGrowth(refuse) => {
                    room.set_growth_refused(refuse);
                    handle(&mut consensus, now, event);
                }
                consensus::Event::Persisted(number) => {
                    with_log = with_log.filter(|last| *last > number);
                    handle(&mut consensus, now, event);
                }
                event => {
                    received |= matches!(event, consensus::Event::SnapshotReceived { .. });
                    handle(&mut consensus, now, event);
                }
            }
        }
        if !submissions.is_empty() {
            let since_us = engine.waiting_us.swap(0, Ordering::Relaxed);
            if since_us > 0 {
                let waited = Duration::from_micros(now.us.saturating_sub(since_us));
                room.metrics.warren_admission_ms.record(waited);
            }
            handle(&mut consensus, now, consensus::Event::Submit(std::mem::take(&mut submissions)));
        }
        handle(&mut consensus, now, consensus::Event::Tick);
        // What was appended here, and nothing else, is committed behind it.
        let mut own_append = false;
        while let Some(action) = consensus.poll_action() {
            match action {
                consensus::Action::Append { number, records, hard_state } => {
                    room.metrics.proposal_count.add(records.len() as u64);
                    if led_since.is_some() {
                        records.iter().for_each(|record| room.metrics.proposed(record.data.len()));
                    }
                    let bytes: usize = records.iter().map(|record| record.data.len()).sum();
                    let own = consensus.is_alone() && with_log.is_none() && bytes <= OWN_APPEND_BYTES_MAX;
                    if own && engine.keeper.append_at_once(clock, engine, &records, hard_state) {
                        own_append = true;
                        handle(&mut consensus, clock.now(), consensus::Event::Persisted(number));
                    } else {
                        with_log = Some(number);
                        engine.log.push(LogJob::Append { number, records, hard_state });
                    }
                }
                consensus::Action::Commit(entries) => {
                    room.metrics.commit_count.add(entries.len() as u64);
                    let alone = own_append && engine.consensus.is_empty();
                    let left =
                        if alone { apply::at_once(clock, engine, entries).err() } else { Some(entries) };
                    if let Some(entries) = left {
                        engine.service.push(ToService::Event(service::Event::Commit(entries)));
                    }
                }
                consensus::Action::ReadAt { index, tokens } => {
                    engine.service.push(ToService::Event(service::Event::ReadAt { index, tokens }));
                }
                consensus::Action::Lead(leads) => {
                    tracing::debug!(leads, "leadership");
                    led_since = leads.then_some(now);
                    room.metrics.forget_proposals();
                }
                consensus::Action::Leader { term, leader } => {
                    if let (Some(ensemble), Some(leader)) = (&engine.ensemble, leader) {
                        ensemble.on_leader(leader);
                    }
                    engine.service.push(ToService::Event(service::Event::Leader { term, leader }));
                }
                consensus::Action::Send { to, message } => engine.others().send(to, message),
                consensus::Action::SendSnapshot { to, .. } if room.is_wrong() => {
                    engine.snapshot_sent(to, false);
                }
                consensus::Action::SendSnapshot { to, message } => {
                    engine.others().send_snapshot(room, to, message);
                }
                consensus::Action::Install { number, head, hard_state } => {
                    installs = true;
                    with_log = Some(number);
                    engine.log.push(LogJob::Install { number, head, hard_state });
                }
            }
        }
        if received && !installs {
            engine.others().forget_staged();
        }
        if engine.ensemble.is_some() {
            measure(now, &mut consensus, &room.metrics, &mut stall_told);
            if now.since(shown) >= SHOW_EVERY || installs {
                shown = now;
                room.metrics
                    .leader_uptime
                    .set(led_since.map_or(0, |since| now.since(since).as_millis() as i64));
                show(&consensus, now, engine, &room.metrics);
            }
        }
    }
}

fn measure(now: Moment, consensus: &mut Seat, metrics: &Metrics, stall_told: &mut Option<Moment>) {
    for measure in consensus.take_measures() {
        match measure {
            Measure::Election(took) => metrics.election_time.record(took),
            Measure::Looking => metrics.looking_count.add(1),
            Measure::Unavailable(took) => metrics.unavailable_time.record(took),
            Measure::QuorumAck(took) => metrics.quorum_ack_latency.record(took),
            Measure::Proposal(took) => metrics.proposal_latency.record(took),
            Measure::Stall(late) => {
                metrics.warren_stalls_total.add(1);
                if stall_told.is_none_or(|told| now.since(told) >= STALLS_TOLD_EVERY) {
                    *stall_told = Some(now);
                    tracing::warn!(
                        ms = late.as_millis() as u64,
                        "consensus came to its turn late, and an election may follow: this machine stood still or is too \
                         busy, or its disk is slow; warren_stalls_total counts the next ones"
                    );
                }
            }
        }
    }
}

fn show(consensus: &Seat, now: Moment, engine: &Engine, metrics: &Metrics) {
    let facts = consensus.facts();
    metrics.quorum_size.set(facts.voters.len() as i64);
    metrics.synced_followers.set(facts.followers.iter().filter(|f| f.active && f.synced).count() as i64);
    let joining = |f: &&consensus::Follower| f.active && f.synced && !facts.voters.contains(&f.server);
    metrics.synced_non_voting_followers.set(facts.followers.iter().filter(joining).count() as i64);
    metrics.pending_syncs.set(facts.pending_syncs as i64);
    let active = facts.followers.iter().filter(|f| f.active).count();
    metrics.learners.set((active + facts.observers.len()) as i64);
    metrics.leader_id.set(facts.leader.map_or(0, i64::from));
    metrics.warren_is_leader.set(i64::from(facts.role == Role::Leading));
    metrics.synced_observers.set(facts.observers.iter().filter(|f| f.synced).count() as i64);
    metrics.warren_feeder_id.set(facts.feeder.map_or(0, i64::from));
    metrics.warren_observers_fed.set(facts.observers.len() as i64);
    metrics.warren_committed_index.set(facts.committed as i64);
    let wanted = consensus.wanted_by_followers(now).into_iter().chain(consensus.wanted_by_observers()).min();
    engine.wanted_from.store(wanted.unwrap_or(u64::MAX), Ordering::Relaxed);
    *engine.facts.lock() = Some(facts);
}

fn handle(consensus: &mut Seat, now: Moment, event: consensus::Event) {
    if let Err(e) = consensus.handle(now, event) {
        stop_for("consensus cannot go on", &e);
    }
}
