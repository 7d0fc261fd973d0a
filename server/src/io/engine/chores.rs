//! What takes long and nobody waits for: checkpoints, and taking apart what nobody reads any more.

use super::super::Clock;
use super::super::inbox::Inbox;
use super::super::priority::step_back;
use super::super::space::Space;
use super::{Engine, ToService, stop_for};
use crate::metrics::Metrics;
use crate::service;
use std::sync::Arc;
use warren_storage::log::Forgotten;
use warren_storage::tree::{Checkpoint, Superseded};

/// What takes long and nobody waits for.
pub(super) enum Chore {
    /// Has a thread to itself: on a full disk it waits, and what the others free is what it waits for.
    Write(Box<Checkpoint>),
    /// An overlay nobody reads any more: taking it apart takes time that no client should wait for.
    Drop(Superseded),
    /// Segments of the log that are in a checkpoint; likewise.
    Remove(Forgotten),
}

/// How far behind the threads that clients wait for.
const CHECKPOINT_NICENESS: i32 = 10;

pub(super) fn run(
    clock: &Clock,
    jobs: &Arc<Inbox<Chore>>,
    engine: &Engine,
    metrics: &Metrics,
    space: &Space,
) {
    step_back(CHECKPOINT_NICENESS);
    let mut taken = Vec::new();
    loop {
        jobs.take(clock, None, &mut taken);
        for job in taken.drain(..) {
            match job {
                Chore::Drop(old) => drop(old),
                Chore::Remove(forgotten) => {
                    if let Err(e) = forgotten.remove() {
                        stop_for("the log cannot be purged", &e);
                    }
                }
                Chore::Write(checkpoint) => {
                    let start = clock.now();
                    let rows_bytes = space.rows_bytes();
                    match checkpoint.write() {
                        Ok(written) => {
                            metrics.snapshottime.record(clock.now() - start);
                            space.checkpointed(rows_bytes, engine);
                            engine.service.push(ToService::Event(service::Event::Checkpointed(written)));
                        }
                        Err(e) => stop_for("a checkpoint cannot be written", &e),
                    }
                }
            }
        }
    }
}
