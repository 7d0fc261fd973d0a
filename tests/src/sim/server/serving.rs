//! The service's thread.

use super::{AHEAD, CheckpointJob, LogJob, SERVICE_BEHIND, Server, TIMER_US_MIN, ToService};
use crate::sim::check::shown;
use crate::sim::context::{Context, Event, Halt, Step};
use crate::sim::net::id_of;
use crate::sim::planted::Planted;
use warren_server::consensus::{self, Submission};
use warren_server::service;
use warren_storage::{Command, Logged};
use warren_transport::peer::PeerMessage;

impl Server {
    pub(super) fn on_service(&mut self, ctx: &mut Context) -> Result<(), Halt> {
        if self.unpublished {
            // Busy; it looks again when it is done.
            return Ok(());
        }
        // A thread that is far behind takes many events without a pause.
        while self.service_in.len() > SERVICE_BEHIND {
            self.serve(ctx)?;
            self.service.publish();
        }
        self.serve(ctx)?;
        self.unpublished = true;
        self.wake(ctx, Step::Publish);
        Ok(())
    }

    /// One event, or a look at the clock.
    pub(super) fn serve(&mut self, ctx: &mut Context) -> Result<(), Halt> {
        let event = match self.service_in.pop_front() {
            Some(ToService::Install(head)) => {
                self.on_install(ctx, &head)?;
                match self.service_in.pop_front() {
                    Some(ToService::Event(event)) => event,
                    _ => unreachable!("it was put in front"),
                }
            }
            Some(ToService::Event(event)) => event,
            None => service::Event::Tick,
        };
        if let service::Event::Peer { message: PeerMessage::Touches(touches), .. } = &event {
            for session in &touches.sessions {
                ctx.checks.ephemerals.on_told(ctx.now_us, self.host, *session);
            }
        }
        if let service::Event::Leader { leader, .. } = &event {
            let led = std::mem::replace(&mut self.leads, *leader == Some(id_of(self.host)));
            ctx.checks.ephemerals.on_leads(ctx.now_us, self.host, self.leads);
            self.deposed |= led && !self.leads && ctx.planted == Some(Planted::DeposedLeaderExpires);
        }
        if self.deposed && matches!(event, service::Event::Leader { .. }) {
            // The planted fault: it is not told.
            return Ok(());
        }
        let mut now = ctx.now_at(self.host);
        if ctx.planted == Some(Planted::ExpireEarly) {
            now = now + AHEAD;
        }
        self.service.handle(now, event).map_err(|e| Halt::exit("the tree cannot be read or written", e))?;
        let calm_since_us = ctx.net.calm_since_us(ctx.now_us);
        ctx.checks.on_step(
            ctx.now_us,
            self.host,
            &self.service,
            self.committed,
            calm_since_us,
            self.leads,
        )?;
        while let Some(action) = self.service.poll_action() {
            match action {
                service::Action::Submit(submissions) => {
                    for submission in &submissions {
                        self.look_for_expiry(ctx, submission)?;
                    }
                    if self.deposed {
                        self.expire_as_deposed(ctx, &submissions);
                    }
                    self.consensus_in.push(consensus::Event::Submit(submissions));
                    self.wake(ctx, Step::Consensus);
                }
                service::Action::Send { to, message } => self.on_send(ctx, to, message),
                service::Action::Links => self.link(ctx),
                service::Action::Members { members, retired, recorded } => {
                    ctx.note(&self.name, format_args!("{members:?}"));
                    self.consensus_in.push(consensus::Event::Members { members, retired, recorded });
                    self.wake(ctx, Step::Consensus);
                }
                service::Action::Reconfigured { request, answer } => {
                    ctx.note(&self.name, format_args!("reconfiguration {request}: {answer:?}"));
                }
                service::Action::Abstain(wrong) => {
                    ctx.note(&self.name, format_args!("its tree is wrong: {wrong}"));
                    self.consensus_in.push(consensus::Event::Abstain(wrong));
                    self.wake(ctx, Step::Consensus);
                }
                service::Action::Applied(index) => {
                    ctx.note(
                        &self.name,
                        format_args!(
                            "applied up to {index}, zxid {}",
                            shown(self.service.tree().zxid().wire())
                        ),
                    );
                    self.consensus_in.push(consensus::Event::Applied(index));
                    self.wake(ctx, Step::Consensus);
                }
                service::Action::Checkpoint(checkpoint) => {
                    ctx.note(&self.name, format_args!("freezes"));
                    self.checkpoint_jobs.push_back(CheckpointJob::Write(Box::new(checkpoint)));
                    self.wake(ctx, Step::Checkpoint);
                }
                service::Action::Superseded(old) => {
                    self.checkpoint_jobs.push_back(CheckpointJob::Drop(old));
                    self.wake(ctx, Step::Checkpoint);
                }
                service::Action::Purge(_) => {
                    let tree = self.service.tree();
                    let conf_state = tree.checkpointed_conf_state().to_vec();
                    let checkpoint = tree.checkpointed();
                    self.log_jobs.push_back(LogJob::Purge { checkpoint, conf_state });
                    self.wake_log(ctx);
                }
            }
        }
        Ok(())
    }

    pub(super) fn look_for_expiry(&self, ctx: &mut Context, submission: &Submission) -> Result<(), Halt> {
        let Submission::LeaderOnly(bytes) = submission else { return Ok(()) };
        let logged = Logged::decode(bytes).map_err(|e| Halt::exit("a command does not decode", e))?;
        if let Command::Expire { session, generation, .. } = logged.command {
            ctx.note(&self.name, format_args!("session {session:#x} ran out"));
            let timeout_ms = self.service.tree().session(session).map_or(0, |row| row.timeout_ms);
            ctx.checks.on_expire(ctx.now_us, self.host, session, generation, timeout_ms)?;
        }
        Ok(())
    }

    pub(super) fn on_publish(&mut self, ctx: &mut Context) -> Result<(), Halt> {
        self.service.publish();
        self.unpublished = false;
        if !self.service_in.is_empty() {
            self.wake(ctx, Step::Service);
        }
        if let Some(due) = self.service.poll_timeout() {
            let due = ctx.us_of(self.host, due).max(ctx.now_us + TIMER_US_MIN);
            if due != self.service_timer {
                self.service_timer = due;
                ctx.at(due, Event::Server(self.host, self.life, Step::ServiceTimer(due)));
            }
        }
        Ok(())
    }
}
