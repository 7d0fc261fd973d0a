//! Acknowledged is durable on a majority: when an entry is committed for the first time, the logs or checkpoints of a
//! majority of its configuration's voters hold it on their disks; in a joint configuration, of each half.
//!
//! Which configuration that is, a leader says by the one that it goes by. A follower may hand an entry out before its
//! leader does, who waits until the commit of the last change is durable and goes by the configuration before it: from a
//! follower that one will do.
//!
//! What was being appended when a server stopped may be there or not; both are allowed for.

use super::configurations::Configurations;
use super::durable::PROPERTY;
use super::{Verdict, hold};
use std::collections::{BTreeMap, BTreeSet};
use warren_server::consensus::{Configuration, disk_of, server_of};
use warren_storage::log::{LogReader, LogRecord};
use warren_storage::tree::Position;

/// What is durable on one server.
#[derive(Default)]
struct Disk {
    /// Which of its disks it is.
    number: u32,
    /// Everything up to here is in its checkpoint.
    checkpoint: u64,
    /// Terms of the entries in its log, by index; more than one where it is not known which.
    log: BTreeMap<u64, BTreeSet<u64>>,
}

/// What is durable where.
pub struct Majority(Vec<Disk>);

impl Majority {
    pub(super) fn new(servers: usize) -> Majority {
        Majority((0..servers).map(|_| Disk::default()).collect())
    }

    /// A server was started and found this.
    pub(super) fn on_started(&mut self, server: usize, number: u32, checkpoint: Position, log: &LogReader) {
        let disk = &mut self.0[server];
        (disk.number, disk.checkpoint) = (number, checkpoint.index);
        let last = log.last_index();
        disk.log.retain(|index, _| *index <= last);
        // It may be a disk that was taken away, and came back.
        for index in checkpoint.index + 1..=last {
            let term = log.term(index).ok().flatten();
            disk.log.entry(index).or_insert_with(|| term.into_iter().collect());
        }
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

    /// An entry is handed out for the first time, by a server that went by `conf` when it learnt of that.
    pub(super) fn on_committed(
        &self,
        position: Position,
        conf: &Configuration,
        leads: bool,
        all: &Configurations,
    ) -> Verdict {
        let Position { index, term } = position;
        let has = |id: u64| {
            let disk = &self.0[usize::from(server_of(id)) - 1];
            let holds = index <= disk.checkpoint || disk.log.get(&index).is_some_and(|t| t.contains(&term));
            disk.number == disk_of(id) && holds
        };
        let may = |conf: &Configuration| conf.is_quorum(has);
        let decided = may(conf) || !leads && all.newest().any(may);
        hold(decided, PROPERTY, || {
            let ids = conf.voters.iter().chain(&conf.outgoing);
            let on: BTreeSet<u8> = ids.filter(|id| has(**id)).map(|id| server_of(*id)).collect();
            format!("entry {index} of term {term} is committed, and durable on {on:?} of {conf:?}")
        })
    }
}
