//! The log's thread and the checkpoint's.

use super::{CheckpointJob, LogJob, SPACE_LOOK_US, SPACE_NEEDED, Server, ToService};
use crate::sim::context::{Context, Event, Halt, Step};
use crate::sim::planted::Planted;
use warren_server::consensus;
use warren_storage::log::{Append, join};

impl Server {
    pub(super) fn wake_log(&mut self, ctx: &mut Context) {
        if !self.log_busy && !self.log_jobs.is_empty() {
            self.wake(ctx, Step::Log);
        }
    }

    /// The step comes again later, when the disk is full now.
    fn is_out_of_space(&mut self, ctx: &mut Context, step: Step) -> bool {
        let waits = self.waits_for_space && self.disk.left_bytes() < SPACE_NEEDED;
        if waits {
            ctx.note(&self.name, format_args!("{step:?} waits for space"));
            if step == Step::Log {
                // Nothing is committed meanwhile, and so no session ends.
                ctx.net.trouble(ctx.now_us);
            }
            self.scheduled.push(step);
            ctx.after(SPACE_LOOK_US, Event::Server(self.host, self.life, step));
        }
        waits
    }

    pub(super) fn on_log(&mut self, ctx: &mut Context) -> Result<(), Halt> {
        if self.is_out_of_space(ctx, Step::Log) {
            return Ok(());
        }
        let Some(job) = self.log_jobs.pop_front() else { return Ok(()) };
        match job {
            LogJob::Append { mut number, mut records, mut hard_state } => {
                // What waited for the last sync shares the next one.
                while let Some(LogJob::Append { .. }) = self.log_jobs.front() {
                    let Some(LogJob::Append { number: n, records: more, hard_state: later }) =
                        self.log_jobs.pop_front()
                    else {
                        break;
                    };
                    join(&mut records, &mut hard_state, more, later);
                    number = n;
                }
                ctx.note(
                    &self.name,
                    format_args!(
                        "log: {} records up to {}",
                        records.len(),
                        records.last().map_or(0, |r| r.index)
                    ),
                );
                ctx.checks.majority.on_append(self.host, &records);
                self.log
                    .append(Append { records: &records, hard_state })
                    .map_err(|e| Halt::exit("the log cannot be written", e))?;
                ctx.checks.majority.on_appended(self.host, &records);
                self.log_busy = true;
                ctx.soon(Event::Server(self.host, self.life, Step::Logged(number)));
            }
            LogJob::Purge { checkpoint, conf_state } => {
                let index = self.purge_through(ctx, checkpoint.index);
                ctx.note(&self.name, format_args!("log: purge up to {index}"));
                self.log.purge(index).map_err(|e| Halt::exit("the log cannot be purged", e))?;
                let first_index = self.log.reader().first_index();
                self.consensus_in.push(consensus::Event::Checkpointed {
                    position: checkpoint,
                    conf_state,
                    first_index,
                });
                self.wake(ctx, Step::Consensus);
                self.wake_log(ctx);
            }
            LogJob::Install { ref head, .. } => {
                self.log_busy = true;
                self.service_in.push_back(ToService::Install(head.clone()));
                self.installing = Some(job);
                self.wake(ctx, Step::Service);
            }
        }
        Ok(())
    }

    /// A follower that is a little behind gets the log, unless its leader has no patience.
    fn purge_through(&mut self, ctx: &mut Context, checkpoint: u64) -> u64 {
        if !ctx.setup.is_ensemble() || ctx.dice.chance(500) {
            return checkpoint;
        }
        let followers = self.consensus.facts().followers;
        let wanted = followers.iter().filter(|f| f.active).map(|f| f.matched);
        let wanted = wanted.chain(self.consensus.wanted_by_observers().map(|from| from - 1)).min();
        wanted.map_or(checkpoint, |wanted| checkpoint.min(wanted))
    }

    pub(super) fn on_logged(&mut self, ctx: &mut Context, number: u64) -> Result<(), Halt> {
        self.log_busy = false;
        if ctx.planted == Some(Planted::PurgeTooFar) {
            self.log.purge(u64::MAX).map_err(|e| Halt::exit("the log cannot be purged", e))?;
        }
        let told = match ctx.planted {
            // It was told long ago.
            Some(Planted::AcknowledgeBeforeSync) => false,
            Some(Planted::LoseReport) => ctx.dice.chance(700),
            _ => true,
        };
        if told {
            self.consensus_in.push(consensus::Event::Persisted(number));
            self.wake(ctx, Step::Consensus);
        }
        self.wake_log(ctx);
        Ok(())
    }

    pub(super) fn on_checkpoint(&mut self, ctx: &mut Context) -> Result<(), Halt> {
        if self.is_out_of_space(ctx, Step::Checkpoint) {
            return Ok(());
        }
        match self.checkpoint_jobs.pop_front() {
            Some(CheckpointJob::Write(checkpoint)) => {
                let written =
                    checkpoint.write().map_err(|e| Halt::exit("a checkpoint cannot be written", e))?;
                ctx.checks.majority.on_checkpoint(self.host, written.position());
                ctx.note(&self.name, format_args!("checkpoint {} is written", written.position().index));
                self.written.push_back(written);
                ctx.soon(Event::Server(self.host, self.life, Step::Checkpointed));
            }
            Some(CheckpointJob::Drop(old)) => drop(old),
            None => {}
        }
        if !self.checkpoint_jobs.is_empty() {
            self.wake(ctx, Step::Checkpoint);
        }
        Ok(())
    }
}
