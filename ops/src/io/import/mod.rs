//! `warren import`: files are read, put together ([`crate::import`]), and stored.
//!
//! ```text
//!  dataDir, dataLogDir ─▶ DATA_DIR/warren.importing: tree and log, durable ─▶ renamed to DATA_DIR/warren
//! ```
//! The rename is the moment at which it is imported; whatever stops it before, the next run begins anew. The files of the
//! ZooKeeper are only read.

mod aside;
mod source;
mod target;

use crate::cli::{Cli, Exit, Output};
use crate::import::flags::ImportFlags;
use crate::import::fold::{Fold, FoldError};
use crate::import::log::{LogReader, Next};
use crate::import::report::{self, Report, Source};
use crate::import::settle::{self, SettleError, Settled, Wishes};
use crate::import::snapshot::{self, SnapshotError};
use crate::import::txn;
use aside::Aside;
use source::{Files, Found, SourceError};
use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use target::{Target, TargetError};
use warren_server::entropy::Entropy as _;
use warren_server::io::SystemEntropy;

/// Snapshots that are tried, newest first, as many as ZooKeeper tries.
const SNAPSHOTS_MAX: usize = 100;
/// Between two lines of progress on a terminal.
const SAY_EVERY: Duration = Duration::from_millis(200);
/// The same where there is none.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Why nothing is imported.
#[derive(Debug, thiserror::Error)]
enum ImportFailure {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(
        "none of the {count} snapshots is whole:{why}\nFetch one from another server of that ensemble, with its log"
    )]
    NoSnapshot { count: usize, why: String },
    #[error(
        "there is no snapshot, and the log begins with zxid {first:#x}, so what was before is missing. Give what zoo.cfg \
         calls dataDir by --from"
    )]
    NoBeginning { first: i64 },
    #[error("{} cannot be read: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "{}\nWhat is there can be imported all the same by --accept-damage; better, take the files of another server of that \
         ensemble, which may be whole", .0.join("\n")
    )]
    Damaged(Vec<String>),
    #[error("{}", super::full(.0))]
    Fold(#[from] FoldError),
    #[error(transparent)]
    Settle(#[from] SettleError),
}

/// Import, and say what came of it.
pub(super) fn run(cli: &Cli, flags: &ImportFlags) -> Exit {
    match import(&cli.data_dir, flags) {
        Ok(report) => {
            match cli.output {
                Output::Json => {
                    println!("{}", serde_json::to_string(&report).expect("a report has text keys"))
                }
                Output::Text => {
                    print!("{}", report.text());
                    if !report.dry_run {
                        print!("{}", report::next_steps(&report.data_dir));
                    }
                }
            }
            Exit::Done
        }
        Err(e) => {
            let room = match lacks_space(&e) {
                true => {
                    ". The disk of the data folder is full: free some space, or name a --data-dir on another one"
                }
                false => "",
            };
            eprintln!("warren: {e}{room}; nothing is imported");
            Exit::Degraded
        }
    }
}

/// Is it for want of space, however deep that lies?
fn lacks_space(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<io::Error>().is_some_and(warren_storage::disk::is_full) {
            return true;
        }
        next = error.source();
    }
    false
}

fn import(data_dir: &Path, flags: &ImportFlags) -> Result<Report, ImportFailure> {
    let began = Instant::now();
    let files = source::look(&flags.from, flags.log_dir.as_deref())?;
    let target = if flags.dry_run { None } else { Some(Target::begin(data_dir)?) };
    let mut source = Source { myid: files.myid.clone(), ..Source::default() };
    let mut fold = load(&files, flags, target.as_ref(), &mut source)?;
    let mut damage = replay(&files, &mut fold, &mut source)?;
    damage.extend(report::complaints(fold.counts(), fold.agreement()));
    for used in files.snapshots.iter().chain(&files.logs) {
        if !used.is_unchanged() {
            return Err(SourceError::Changed(used.path.clone()).into());
        }
    }
    if !damage.is_empty() && !flags.accept_damage {
        return Err(ImportFailure::Damaged(damage));
    }
    damage.into_iter().for_each(|what| source.damage.note(|| what));
    let counts = fold.counts();
    (source.transactions, source.passed_over) = (counts.transactions, counts.passed_over);
    let (digest, digest_zxid) = report::digest(fold.agreement());
    let wishes = Wishes { drop_ephemerals: flags.drop_ephemerals, epoch: files.epoch };
    let mut settled = settle::settle(fold, wishes)?;
    files.odd.into_iter().for_each(|what| settled.znodes.odd.note(|| what));
    if let Some(target) = target {
        store(target, &settled)?;
    }
    Ok(Report {
        dry_run: flags.dry_run,
        data_dir: data_dir.display().to_string(),
        source,
        zxid: settled.totals.zxid.to_string(),
        digest,
        digest_zxid,
        znodes: settled.znodes,
        memory_bytes: memory_bytes(),
        seconds: began.elapsed().as_secs_f64(),
    })
}

fn store(target: Target, settled: &Settled<Aside>) -> Result<(), TargetError> {
    let mut progress = Progress::new();
    progress.say("storing", None);
    target.store(settled)
}

/// The newest snapshot that is whole.
fn load(
    files: &Files,
    flags: &ImportFlags,
    target: Option<&Target>,
    source: &mut Source,
) -> Result<Fold<Aside>, ImportFailure> {
    let limit_bytes = u64::from(flags.memory_mb) << 20;
    let empty = || -> Result<Fold<Aside>, ImportFailure> {
        let aside = target.map_or(Ok(Aside::Nowhere), Target::aside)?;
        Ok(Fold::new(aside, SystemEntropy.next_u64(), limit_bytes))
    };
    let mut skipped = String::new();
    for found in files.snapshots.iter().take(SNAPSHOTS_MAX) {
        let mut fold = empty()?;
        match read_snapshot(found, &mut fold) {
            Ok(()) => {
                source.snapshot = Some(found.name());
                return Ok(fold);
            }
            Err(SnapshotError::Fold(e)) => return Err(e.into()),
            Err(SnapshotError::File(e)) => {
                let why = format!("{}: {e}", found.name());
                skipped.push_str(&format!("\n  {why}"));
                source.snapshots_skipped.note(|| why);
            }
        }
    }
    if !files.snapshots.is_empty() {
        return Err(ImportFailure::NoSnapshot { count: files.snapshots.len(), why: skipped });
    }
    // A 3.4 wrote its first snapshot late.
    let first = files.logs.first().map_or(0, |log| log.zxid);
    if first as u32 > 1 || first >> 32 > 1 {
        return Err(ImportFailure::NoBeginning { first });
    }
    let mut fold = empty()?;
    fold.fresh()?;
    Ok(fold)
}

fn read_snapshot(found: &Found, fold: &mut Fold<Aside>) -> Result<(), SnapshotError> {
    let mut progress = Progress::new();
    let (name, bytes) = (found.name(), found.bytes);
    let mut tell = |done| progress.say(&name, Some((done, bytes)));
    let from = found.open(&mut tell).map_err(crate::import::input::FileError::Read)?;
    let digest = snapshot::read(from, fold)?;
    fold.loaded(found.zxid, digest);
    Ok(())
}

/// Every transaction behind the snapshot. What is wrong with the log, in words: with it the replay ends.
fn replay(files: &Files, fold: &mut Fold<Aside>, source: &mut Source) -> Result<Vec<String>, ImportFailure> {
    let after = fold.zxid();
    // The last file that begins before may go on behind the snapshot.
    let begin = files.logs.iter().rposition(|log| log.zxid <= after).unwrap_or(0);
    let logs = &files.logs[begin..];
    source.logs = logs.len() as u64;
    if logs.is_empty() && after > 0 {
        return Ok(vec![format!(
            "there is no log in {}, so what was written while and after the snapshot was made is missing. If zoo.cfg has \
             dataLogDir, give that by --log-dir",
            files.log_dir.display()
        )]);
    }
    let mut begun = false;
    for log in logs {
        if let Some(damage) = replay_one(log, after, &mut begun, fold, source)? {
            return Ok(vec![format!(
                "{}: {damage}. The replay ends before it, at zxid {:#x}",
                log.path.display(),
                fold.zxid()
            )]);
        }
    }
    Ok(Vec::new())
}

/// The transactions of one file; what is wrong with it.
fn replay_one(
    log: &Found,
    after: i64,
    begun: &mut bool,
    fold: &mut Fold<Aside>,
    source: &mut Source,
) -> Result<Option<String>, ImportFailure> {
    let failed = |source| ImportFailure::Read { path: log.path.clone(), source };
    let (name, bytes) = (log.name(), log.bytes);
    let mut progress = Progress::new();
    let mut tell = |done| progress.say(&name, Some((done, bytes)));
    let from = log.open(&mut tell).map_err(failed)?;
    let mut reader = match LogReader::open(from) {
        Ok(Some(reader)) => reader,
        Ok(None) => {
            source.torn.note(|| format!("{name}: it has no whole header"));
            return Ok(None);
        }
        Err(crate::import::input::FileError::Read(e)) => return Err(failed(e)),
        Err(e) => return Ok(Some(e.to_string())),
    };
    loop {
        match reader.next_record().map_err(failed)? {
            Next::End => return Ok(None),
            Next::Torn { at } => {
                source.torn.note(|| format!("{name}: a record at byte {at}, behind zxid {:#x}", fold.zxid()));
                return Ok(None);
            }
            Next::Damaged { at, why } => return Ok(Some(format!("{why}, at byte {at}"))),
            Next::Transaction(bytes) => {
                let (header, txn, digest) = match txn::decode(bytes) {
                    Ok(decoded) => decoded,
                    Err(e) => return Ok(Some(format!("a transaction that makes no sense: {e}"))),
                };
                *begun |= header.zxid > after;
                if *begun {
                    fold.apply(&header, &txn, digest)?;
                }
            }
        }
    }
}

/// Says how far it is: on a terminal in one line that is written over, else now and then.
struct Progress {
    terminal: bool,
    said: Option<Instant>,
    began: Instant,
}

impl Progress {
    fn new() -> Progress {
        Progress { terminal: io::stderr().is_terminal(), said: None, began: Instant::now() }
    }

    fn say(&mut self, what: &str, of: Option<(u64, u64)>) {
        let every = if self.terminal { SAY_EVERY } else { LOG_EVERY };
        if self.said.unwrap_or(self.began).elapsed() < every {
            return;
        }
        self.said = Some(Instant::now());
        let part = match of {
            Some((done, all)) => format!("{what}: {} of {} MiB", done >> 20, all >> 20),
            None => what.to_owned(),
        };
        if self.terminal { eprint!("\r{part}\x1b[K") } else { eprintln!("{part}") }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal && self.said.is_some() {
            eprint!("\r\x1b[K");
        }
    }
}

/// The most memory that this process had, as the system says it.
fn memory_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    Some(kib << 10)
}
