//! The leader's timer for containers and TTL nodes (ZooKeeper's `ContainerManager`).
//!
//! A sweep only proposes: whether a node still is what it was when it was looked at is decided when the
//! proposal is applied.

use super::ServiceOptions;
use crate::consensus::Submission;
use crate::moment::Moment;
use std::time::Duration;
use warren_storage::command::SweepKind;
use warren_storage::tree::{Snapshot, TreeError};
use warren_storage::{Command, Kind, Logged};

/// Nodes looked at in one go; the rest waits for the next event, so that clients are not kept waiting.
const LOOKED_AT_ONCE_MAX: usize = 1_000;

pub(super) struct Sweeper {
    interval: Duration,
    per_minute_max: u32,
    unused_max: Duration,
    next: Moment,
    /// Where the sweep under way goes on; `None` between sweeps.
    at: Option<String>,
    /// Proposed in the current minute.
    budget: u32,
    minute: Moment,
}

impl Sweeper {
    pub(super) fn new(now: Moment, options: &ServiceOptions) -> Sweeper {
        Sweeper {
            interval: options.sweep_interval,
            per_minute_max: options.sweeps_per_minute_max,
            unused_max: options.container_unused_max,
            next: now + options.sweep_interval,
            at: None,
            budget: options.sweeps_per_minute_max,
            minute: now,
        }
    }

    /// This server leads from now on.
    pub(super) fn start(&mut self, now: Moment) {
        self.next = now + self.interval;
        self.at = None;
    }

    /// When to look next.
    pub(super) fn next(&self) -> Moment {
        self.next
    }

    /// Look at what is due and propose what should go.
    pub(super) fn sweep(
        &mut self,
        now: Moment,
        tree: &Snapshot,
        found: &mut Vec<Submission>,
    ) -> Result<(), TreeError> {
        if now.us < self.next.us {
            return Ok(());
        }
        if now.since(self.minute) >= Duration::from_secs(60) {
            self.minute = now;
            self.budget = self.per_minute_max;
        }
        let from = self.at.take();
        let (mut looked_at, mut budget) = (0, self.budget);
        let mut last = None;
        tree.timed(from.as_deref(), &mut |path, node| {
            looked_at += 1;
            if looked_at > LOOKED_AT_ONCE_MAX || budget == 0 {
                return false;
            }
            last = Some(path.to_owned());
            if node.num_children > 0 {
                return true;
            }
            let kind = match Kind::from_owner(node.owner) {
                // One that never had a child may be about to get its first.
                Kind::Container if node.cversion > 0 => SweepKind::Container,
                Kind::Container
                    if !self.unused_max.is_zero()
                        && now.wall_ms - node.ctime > self.unused_max.as_millis() as i64 =>
                {
                    SweepKind::Container
                }
                Kind::Ttl(ttl) if now.wall_ms - node.mtime > ttl => SweepKind::Ttl,
                _ => return true,
            };
            budget -= 1;
            let command = Command::Sweep { path, czxid: node.czxid, pzxid: node.pzxid, kind };
            found.push(Submission::LeaderOnly(Logged { tag: None, ids: Vec::new(), command }.encode()));
            true
        })?;
        self.budget = budget;
        self.at = last.filter(|_| looked_at > LOOKED_AT_ONCE_MAX);
        // The rest of a long list comes soon, the next look after the interval.
        self.next = now
            + if self.at.is_some() { Duration::from_millis(10).min(self.interval) } else { self.interval };
        Ok(())
    }
}
