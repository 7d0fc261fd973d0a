//! Acknowledged is durable on a majority: when an entry is committed for the first time, the logs or checkpoints of
//! more than half of the voters hold it on their disks.
//!
//! What was being appended when a server stopped may be there or not; both are allowed for.

use super::durable::PROPERTY;
use super::{Verdict, hold};
use std::collections::{BTreeMap, BTreeSet};
use warren_storage::log::LogRecord;
use warren_storage::tree::Position;

/// What is durable on one server.
#[derive(Default)]
struct Disk {
    /// Everything up to here is in its checkpoint.
    checkpoint: u64,
    /// Terms of the entries in its log, by index; more than one where it is not known which.
    log: BTreeMap<u64, BTreeSet<u64>>,
}

/// What is durable where: on the voters first, then on the observers, who do not count.
pub struct Majority(Vec<Disk>, usize);

impl Majority {
    pub(super) fn new(voters: usize, servers: usize) -> Majority {
        Majority((0..servers).map(|_| Disk::default()).collect(), voters)
    }

    /// A server was started and found this.
    pub(super) fn on_started(&mut self, server: usize, checkpoint: Position, last_log_index: u64) {
        let disk = &mut self.0[server];
        disk.checkpoint = checkpoint.index;
        disk.log.retain(|index, _| *index <= last_log_index);
    }

    /// These are about to be appended: from now on, they may be there.
    pub fn on_append(&mut self, server: usize, records: &[LogRecord]) {
        for record in records {
            self.0[server].log.entry(record.index).or_default().insert(record.term);
        }
    }

    /// These were appended, and synced.
    pub fn on_appended(&mut self, server: usize, records: &[LogRecord]) {
        let Some(first) = records.first() else { return };
        let log = &mut self.0[server].log;
        log.split_off(&first.index);
        log.extend(records.iter().map(|record| (record.index, BTreeSet::from([record.term]))));
    }

    /// A checkpoint was written, or one of another server was put in place.
    pub fn on_checkpoint(&mut self, server: usize, position: Position) {
        let disk = &mut self.0[server];
        disk.checkpoint = disk.checkpoint.max(position.index);
    }

    /// The log begins anew behind a received checkpoint.
    pub fn on_log_reset(&mut self, server: usize) {
        self.0[server].log.clear();
    }

    pub(super) fn on_committed(&self, position: Position) -> Verdict {
        let Position { index, term } = position;
        let has = |disk: &&Disk| {
            index <= disk.checkpoint || disk.log.get(&index).is_some_and(|terms| terms.contains(&term))
        };
        let (on, voters) = (self.0[..self.1].iter().filter(has).count(), self.1);
        hold(on > voters / 2, PROPERTY, || {
            format!("entry {index} of term {term} is committed, and durable on {on} of {voters} servers")
        })
    }
}
