//! Acknowledged is durable on a majority: when an entry is committed for the first time, the logs or checkpoints of a
//! majority of its configuration's voters hold it on their disks; in a joint configuration, of each half.
//!
//! Which configuration that is, a leader says by the one that it goes by. A follower may hand an entry out before its
//! leader does, who waits until the commit of the last change is durable and goes by the configuration before it: from a
//! follower that one will do.
//!
//! What was being appended when a server stopped may be there or not; both are allowed for. A disk that is taken away has what
//! it had: its server may have said so just before.

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
pub struct Majority {
    /// By server.
    now: Vec<Disk>,
    /// By server and number: disks that were taken away.
    former: BTreeMap<(usize, u32), Disk>,
}

impl Majority {
    pub(super) fn new(servers: usize) -> Majority {
        Majority { now: (0..servers).map(|_| Disk::default()).collect(), former: BTreeMap::new() }
    }

    /// A server was started and found this.
    pub(super) fn on_started(&mut self, server: usize, number: u32, checkpoint: Position, log: &LogReader) {
        let disk = &mut self.now[server];
        if disk.number != number {
            // One that comes back has what it had, too.
            let next = self.former.remove(&(server, number)).unwrap_or_default();
            let taken = std::mem::replace(disk, next);
            if taken.number != 0 {
                self.former.insert((server, taken.number), taken);
            }
        }
        (disk.number, disk.checkpoint) = (number, checkpoint.index);
        let last = log.last_index();
        disk.log.retain(|index, _| *index <= last);
        for index in checkpoint.index + 1..=last {
            let term = log.term(index).ok().flatten();
            disk.log.entry(index).or_insert_with(|| term.into_iter().collect());
        }
    }

    /// These are about to be appended: from now on, they may be there.
    pub fn on_append(&mut self, server: usize, records: &[LogRecord]) {
        for record in records {
            self.now[server].log.entry(record.index).or_default().insert(record.term);
        }
    }

    /// These were appended, and synced.
    pub fn on_appended(&mut self, server: usize, records: &[LogRecord]) {
        let Some(first) = records.first() else { return };
        let log = &mut self.now[server].log;
        log.split_off(&first.index);
        log.extend(records.iter().map(|record| (record.index, BTreeSet::from([record.term]))));
    }

    /// A checkpoint was written, or one of another server was put in place.
    pub fn on_checkpoint(&mut self, server: usize, position: Position) {
        let disk = &mut self.now[server];
        disk.checkpoint = disk.checkpoint.max(position.index);
    }

    /// The log begins anew behind a received checkpoint.
    pub fn on_log_reset(&mut self, server: usize) {
        self.now[server].log.clear();
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
            let (server, number) = (usize::from(server_of(id)) - 1, disk_of(id));
            let now = Some(&self.now[server]).filter(|disk| disk.number == number);
            let holds = |disk: &Disk| {
                index <= disk.checkpoint || disk.log.get(&index).is_some_and(|terms| terms.contains(&term))
            };
            now.or_else(|| self.former.get(&(server, number))).is_some_and(holds)
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
