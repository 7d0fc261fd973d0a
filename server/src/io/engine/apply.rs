//! The service thread, and its machine for the one other thread that may drive it.

use super::super::Clock;
use super::super::inbox::Inbox;
use super::super::space::Space;
use super::append::LogJob;
use super::chores::Chore;
use super::{Engine, ToService, stop_for};
use crate::consensus::{self, Committed};
use crate::moment::Moment;
use crate::service::{self, Service};
use std::sync::Arc;
use std::sync::mpsc;
use warren_storage::tree::Tree;
use warren_transport::peer::SnapshotHead;

/// The service, and what it takes to carry out what it asks for. Whoever drives it holds the lock.
pub(super) struct Desk {
    service: Service,
    settles: Vec<mpsc::Sender<()>>,
    checkpoints: Arc<Inbox<Chore>>,
    leavings: Arc<Inbox<Chore>>,
    space: Arc<Space>,
    /// Until then its thread sleeps, unless something comes.
    sleeps_until: Option<Moment>,
}

impl Desk {
    pub(super) fn new(
        service: Service,
        checkpoints: Arc<Inbox<Chore>>,
        leavings: Arc<Inbox<Chore>>,
        space: Arc<Space>,
    ) -> Desk {
        Desk { service, settles: Vec::new(), checkpoints, leavings, space, sleeps_until: None }
    }

    fn due(&mut self) -> Option<Moment> {
        self.sleeps_until = self.service.poll_timeout();
        self.sleeps_until
    }

    fn handle(&mut self, now: Moment, event: service::Event) {
        if let Err(e) = self.service.handle(now, event) {
            stop_for("the tree cannot be read or written", &e);
        }
        self.service.publish();
    }

    fn turn(&mut self, clock: &Clock, engine: &Engine, events: impl Iterator<Item = ToService>) {
        let now = clock.now();
        let mut nothing = true;
        for event in events {
            match event {
                ToService::Settle(done) => self.settles.push(done),
                ToService::Look(look) => look(&self.service),
                ToService::Install(head, done) => {
                    nothing = false;
                    let tree = install(engine, &head);
                    self.handle(now, service::Event::Install { tree: Box::new(tree) });
                    // A tree that was received is its own checkpoint.
                    self.space.checkpointed(self.space.rows_bytes(), engine);
                    let _ = done.send(());
                }
                ToService::Event(event) => {
                    nothing = false;
                    let applies = matches!(event, service::Event::Commit(_)).then(|| clock.now());
                    self.handle(now, event);
                    if let Some(start) = applies {
                        engine.keeper.metrics.warren_apply_ms.record(clock.now() - start);
                    }
                }
            }
        }
        if nothing {
            self.handle(now, service::Event::Tick);
        }
        while let Some(action) = self.service.poll_action() {
            self.carry_out(engine, action);
        }
        if !self.service.is_checkpointing() {
            for done in self.settles.drain(..) {
                let _ = done.send(());
            }
        }
    }

    fn carry_out(&mut self, engine: &Engine, action: service::Action) {
        match action {
            service::Action::Submit(submissions) => {
                engine.consensus.push(consensus::Event::Submit(submissions));
            }
            // Nothing that anybody waits for comes of it.
            service::Action::Abstain(wrong) => engine.consensus.push(consensus::Event::Abstain(wrong)),
            service::Action::Applied(index) => engine.consensus.leave(consensus::Event::Applied(index)),
            service::Action::Links => {
                if let Some(ensemble) = &engine.ensemble {
                    ensemble.set_members(self.service.tree(), self.service.has_epoch());
                }
            }
            service::Action::Members { members, retired, recorded } => {
                engine.consensus.push(consensus::Event::Members { members, retired, recorded });
            }
            service::Action::Reconfigured { request, answer } => engine.reconfigure.answer(request, answer),
            service::Action::Checkpoint(checkpoint) => {
                self.checkpoints.push(Chore::Write(Box::new(checkpoint)));
            }
            service::Action::Superseded(old) => self.leavings.push(Chore::Drop(old)),
            service::Action::Send { to, message } => engine.others().send(to, message),
            service::Action::Purge(_) => {
                let tree = self.service.tree();
                let conf_state = tree.checkpointed_conf_state().to_vec();
                engine.log.push(LogJob::Purge { checkpoint: tree.checkpointed(), conf_state });
            }
        }
    }
}

pub(super) fn run(clock: &Clock, engine: &Engine) {
    let mut events = Vec::new();
    let mut due = engine.desk.lock().due();
    loop {
        engine.service.take(clock, due, &mut events);
        engine.turned.service.add();
        let mut desk = engine.desk.lock();
        desk.turn(clock, engine, events.drain(..));
        due = desk.due();
    }
}

/// Apply these on the thread that has them, where the service's own sleeps and has nothing before them: a write that comes alone
/// is spared a change of threads. Gives them back where they are better brought to the service.
pub(super) fn at_once(clock: &Clock, engine: &Engine, entries: Vec<Committed>) -> Result<(), Vec<Committed>> {
    if !engine.service.is_waited_at() {
        return Err(entries);
    }
    let Some(mut desk) = engine.desk.try_lock() else { return Err(entries) };
    desk.turn(clock, engine, std::iter::once(ToService::Event(service::Event::Commit(entries))));
    // Its thread is to look sooner than it knows.
    if let Some(due) = desk.service.poll_timeout()
        && desk.sleeps_until.is_none_or(|until| until.us > due.us)
    {
        engine.service.rouse(ToService::Look(Box::new(|_| {})));
    }
    Ok(())
}

/// The tree that was received, in the place of the one so far.
fn install(engine: &Engine, head: &SnapshotHead) -> Tree {
    match engine.others().install(head) {
        Ok(tree) => tree,
        Err(e) => stop_for("a snapshot cannot be put in place", &e),
    }
}
