//! Is a store what it should be? It is opened as the next start would open it, over a disk that keeps what is written to
//! itself ([`crate::inspect::InspectDisk`]), and everything in it is read.

use crate::disk::SharedDisk;
use crate::log::{self, LogError, LogOptions, LogReader, RecordKind};
use crate::tree::{self, ExportHead, QuotaCheck, StreamCheck, Tree};
use crate::{Entry, Logged, Recovered, TreeOptions, recover};

/// Of the tree, at a time; bytes.
const CHUNK_BYTES: usize = 1 << 20;
/// Of the log, at a time, unless a record is larger; bytes.
const READ_BYTES: usize = 4 << 20;

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// Are data lost or wrong? Else it is only odd.
    pub damage: bool,
    /// What.
    pub what: String,
    /// What it means, and what to do.
    pub means: String,
}

/// What a look at a store came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// As of the tree's last checkpoint, if the tree can be read.
    pub tree: Option<ExportHead>,
    /// Sessions in it.
    pub sessions: u64,
    /// Index of the first record of the log, and of the last; as far as it can be opened.
    pub log: Option<(u64, u64)>,
    /// Commands in the log's entries.
    pub commands: u64,
    /// In the order of how they were found.
    pub findings: Vec<Finding>,
}

/// Why a look was broken off.
#[derive(Debug, thiserror::Error)]
#[error("broken off")]
pub struct BrokenOff;

/// What a look does, for whoever waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Sum up the tree's pages: takes no count.
    Pages,
    /// Read rows: so many bytes so far.
    Rows(u64),
    /// Read the log: so many records so far.
    Records(u64),
}

/// Look at a store. `goes_on` is told now and then how far it is, and may end it.
///
/// # Panics
/// redb asserts that pages make sense, so a damaged store may be told by a panic.
///
/// # Errors
/// Only when `goes_on` says so: whatever is wrong is in the report.
pub fn verify(
    disk: &SharedDisk,
    options: TreeOptions,
    goes_on: &mut dyn FnMut(Step) -> bool,
) -> Result<Report, BrokenOff> {
    let mut report = Report::default();
    if !goes_on(Step::Pages) {
        return Err(BrokenOff);
    }
    match tree::pages_are_sound(disk) {
        Ok(true) => {}
        Ok(false) => report.damage(
            "tree.redb: pages did not match their checksums, or were not where they are looked for"
                .to_owned(),
            JOIN_ANEW,
        ),
        Err(e) => report.damage(told(&e), JOIN_ANEW),
    }
    let Recovered { tree, log, found, discarded } =
        match recover(disk.clone(), options, LogOptions::default()) {
            Ok(recovered) => recovered,
            Err(e) => {
                report.damage(told(&e), "a server does not start on it");
                return Ok(report);
            }
        };
    if discarded {
        report.odd(
            "the log does not have the tree's position".to_owned(),
            "a crash while a snapshot was put in place leaves it so; the next start begins the log anew behind the tree",
        );
    }
    report.log = Some((found.first_index, found.last_index));
    read_tree(&tree, &mut report, goes_on)?;
    let commit = found.hard_state.commit;
    if commit > found.last_index {
        report.damage(
            format!(
                "the log ends at {}, and entries up to {commit} were known to be committed",
                found.last_index
            ),
            JOIN_ANEW,
        );
    }
    read_log(&log.reader(), found, &mut report, goes_on)?;
    Ok(report)
}

const JOIN_ANEW: &str = "in an ensemble, move the data folder away and let this server join anew (`warren member replace`); \
                         alone, restore the newest backup";

impl Report {
    fn damage(&mut self, what: String, means: &str) {
        self.findings.push(Finding { damage: true, what, means: means.to_owned() });
    }

    fn odd(&mut self, what: String, means: &str) {
        self.findings.push(Finding { damage: false, what, means: means.to_owned() });
    }

    /// Is anything damaged?
    pub fn is_damaged(&self) -> bool {
        self.findings.iter().any(|finding| finding.damage)
    }
}

/// An error with what is behind it.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

fn read_tree(
    tree: &Tree,
    report: &mut Report,
    goes_on: &mut dyn FnMut(Step) -> bool,
) -> Result<(), BrokenOff> {
    let mut quotas = QuotaCheck::default();
    for pass in 0..2 {
        if pass == 1 && !quotas.is_due() {
            break;
        }
        let mut check = StreamCheck::default();
        let mut bytes = 0;
        let mut read = || -> Result<Result<(), BrokenOff>, Box<dyn std::error::Error>> {
            let mut export = tree.export()?;
            while let Some(chunk) = export.next_chunk(CHUNK_BYTES)? {
                check.push(&chunk, &mut |path, znode| match pass {
                    0 => quotas.find(path, znode),
                    _ => quotas.count(path, znode),
                })?;
                bytes += chunk.len() as u64;
                if !goes_on(Step::Rows(bytes)) {
                    return Ok(Err(BrokenOff));
                }
            }
            Ok(Ok(()))
        };
        match read() {
            Ok(read) => read?,
            Err(e) => {
                report.damage(format!("the znode tree: {}", told(&*e)), JOIN_ANEW);
                return Ok(());
            }
        }
        report.sessions = check.sessions();
        match check.finish() {
            Ok(head) => report.tree = Some(head),
            Err(e) => {
                report.damage(format!("the znode tree: {e}"), JOIN_ANEW);
                return Ok(());
            }
        }
    }
    report.drifts(&quotas);
    Ok(())
}

impl Report {
    /// Quotas that count wrongly.
    pub fn drifts(&mut self, quotas: &QuotaCheck) {
        for drift in quotas.drifts() {
            let ((count, bytes), (is_count, is_bytes)) = (drift.said, drift.found);
            self.odd(
                format!(
                    "the quota of {} counts {count} znodes and {bytes} bytes, and there are {is_count} and {is_bytes}",
                    drift.path
                ),
                "a client may have written the statistics; delete and set the quota again (`delquota`, `setquota`), which \
                 counts anew",
            );
        }
    }
}

fn read_log(
    reader: &LogReader,
    found: log::Recovered,
    report: &mut Report,
    goes_on: &mut dyn FnMut(Step) -> bool,
) -> Result<(), BrokenOff> {
    let (mut next, mut term) = (found.first_index, 0);
    while next <= found.last_index {
        let records = match reader.read(next, found.last_index + 1, READ_BYTES) {
            Ok(records) => records,
            Err(e) => {
                // What comes after it may be whole; nobody could use it without what is missing.
                report.damage(told(&e), means(&e, next));
                return Ok(());
            }
        };
        for record in &records {
            if record.index != next || record.term < term {
                report.damage(
                    format!(
                        "record {} of term {} follows {} of term {term}",
                        record.index,
                        record.term,
                        next - 1
                    ),
                    JOIN_ANEW,
                );
                return Ok(());
            }
            (next, term) = (next + 1, record.term);
            if record.kind != RecordKind::Normal || record.data.is_empty() {
                continue;
            }
            match commands(&record.data) {
                Ok(commands) => report.commands += commands,
                Err(e) => {
                    report.damage(format!("record {}: {e}", record.index), JOIN_ANEW);
                    return Ok(());
                }
            }
        }
        if !goes_on(Step::Records(next - found.first_index)) {
            return Err(BrokenOff);
        }
    }
    Ok(())
}

fn means(error: &LogError, index: u64) -> &'static str {
    match error {
        LogError::Damaged { .. } if index > 0 => JOIN_ANEW,
        _ => "look after the disk, and verify again",
    }
}

fn commands(data: &[u8]) -> Result<u64, crate::command::EntryError> {
    let Entry::Batch { commands, .. } = Entry::decode(data)? else { return Ok(0) };
    for command in &commands {
        Logged::decode(command)?;
    }
    Ok(commands.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::InspectDisk;
    use crate::log::{Append, HardState, LogRecord};
    use crate::simdisk::SimDisk;
    use crate::{AclRef, Command, CreateMode, Disk, IdRef, Op, Origin, Rules, begin_log};
    use std::sync::Arc;

    fn options() -> TreeOptions {
        TreeOptions { memory_bytes: 1 << 20, hash_seed: 1, store_id: 2 }
    }

    fn create(path: &str, data: &[u8]) -> Vec<u8> {
        let acl = vec![AclRef { perms: 31, id: IdRef { scheme: "world", id: "anyone" } }];
        let op = Op::Create { path, data: Some(data), acl, mode: CreateMode::Persistent, ttl: 0 };
        Logged { tag: None, ids: Vec::new(), command: Command::Single(op) }.encode()
    }

    /// A tree of some pages with a quota, and a log that goes on behind it.
    fn store() -> SimDisk {
        let disk = SimDisk::new();
        let shared: SharedDisk = Arc::new(disk.clone());
        let mut tree = Tree::open(shared.clone(), options()).unwrap();
        let mut paths: Vec<String> =
            ["/q", "/zookeeper/quota/q", "/zookeeper/quota/q/zookeeper_limits"].map(str::to_owned).to_vec();
        paths.push("/zookeeper/quota/q/zookeeper_stats".to_owned());
        paths.extend((0..400).map(|n| format!("/q/{n:04}")));
        for path in &paths {
            let bytes = create(path, &[7; 100]);
            tree.apply(1, &Rules::default(), &Logged::decode(&bytes).unwrap()).unwrap();
        }
        tree.advance(1, 1);
        tree.restart(2, 1).unwrap();
        let at = tree.position();
        drop(tree);
        begin_log(shared.clone(), at).unwrap();
        let mut found = recover(shared, options(), LogOptions::default()).unwrap();
        let records: Vec<LogRecord> = (1..=50)
            .map(|n| {
                let command = create(&format!("/later/{n}"), &[n as u8; 3_000]);
                let origin = Origin { server: 1, incarnation: 1, last: n };
                let commands = vec![&command[..]];
                let batch = Entry::Batch { origin, time_ms: 3, rules: Rules::default(), commands };
                let (index, term) = (at.index + n, at.term + 1);
                LogRecord { index, term, kind: RecordKind::Normal, data: batch.encode().into() }
            })
            .collect();
        let hard_state = Some(HardState { term: at.term + 1, vote: 1, commit: at.index + 50 });
        found.log.append(Append { records: &records, hard_state }).unwrap();
        disk
    }

    fn look(disk: &SimDisk) -> Report {
        let disk: SharedDisk = Arc::new(InspectDisk::new(Arc::new(disk.clone())));
        verify(&disk, options(), &mut |_| true).unwrap()
    }

    #[test]
    fn a_sound_store_has_no_findings() {
        let report = look(&store());
        assert_eq!(report.findings, []);
        assert_eq!((report.tree.unwrap().znodes, report.commands), (408, 50));
        let (first, last) = report.log.unwrap();
        assert_eq!(last - first, 49);
    }

    #[test]
    fn whoever_waits_may_end_it() {
        let disk: SharedDisk = Arc::new(InspectDisk::new(Arc::new(store())));
        assert!(verify(&disk, options(), &mut |_| false).is_err());
        assert!(verify(&disk, options(), &mut |step| !matches!(step, Step::Records(_))).is_err());
    }

    /// Whatever page is changed: it is told, or was not in use. redb asserts that its pages make sense, and so it tells of
    /// some by a panic, which whoever calls has to expect of a damaged store.
    #[test]
    fn changed_pages_are_told() {
        let good = store();
        let mut told = 0;
        for name in good.list().unwrap() {
            let len = good.open(&name, 0).unwrap().len().unwrap();
            for (n, page) in (0..len / 4096).enumerate() {
                for within in [0, 1 + n as u64 * 37 % 4000] {
                    let disk = good.after_kill();
                    let file = disk.open(&name, 0).unwrap();
                    let mut byte = [0];
                    file.read(page * 4096 + within, &mut byte).unwrap();
                    file.write(page * 4096 + within, &[byte[0] ^ 0x21]).unwrap();
                    drop(file);
                    let look = std::panic::AssertUnwindSafe(|| look(&disk).is_damaged());
                    let looked = std::panic::catch_unwind(look);
                    told += u32::from(looked.unwrap_or(true));
                }
            }
        }
        assert!(told > 50, "{told}");
    }
}
