//! `warren verify`: is a backup, or the store of a server that is stopped, what it should be?

use super::super::full;
use super::restore::{Unsound, sane};
use super::{Work, stream_bytes};
use crate::backup::flags::VerifyFlags;
use crate::backup::format::{BackupReader, FormatError, Header, Totals};
use crate::cli::{Cli, Exit, Output};
use crate::status::bytes;
use crate::times;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use warren_storage::inspect::InspectDisk;
use warren_storage::io::{OpenError, ReadOnlyFolder};
use warren_storage::tree::{QuotaCheck, StreamCheck, read_chunk};
use warren_storage::verify::{Finding, Report, Step, verify};
use warren_storage::{SharedDisk, TreeOptions};

/// A server's store, in its data folder.
const STORE: &str = "warren";
/// A restore that never came to its end, and an import.
const UNFINISHED: [&str; 2] = ["warren.restoring", "warren.importing"];
/// A sync failed in the process before.
const SYNC_FAILED: &str = "sync-failed";
/// Memory for the tree that is looked at.
const MEMORY_BYTES: u64 = 128 << 20;

const TAKE_ANOTHER: &str = "do not restore it, and keep the backups before it until there is a newer one";

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
enum VerifyError {
    #[error("{} cannot be opened: {source}", path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error(
        "a server runs on {}, and a store that is written is not looked at: `warren backup` checks all that it reads from a \
         running server; or stop it first",
        .0.display()
    )]
    Live(PathBuf),
    #[error(
        "{} is no data folder of Warren's: neither it nor a folder `{STORE}` in it holds a store. Name a backup, or a data \
         folder", .0.display()
    )]
    NoStore(PathBuf),
    #[error("interrupted; nothing is known")]
    Interrupted,
    #[error("{0}")]
    System(String),
}

/// What was looked at, in words and for scripts.
struct Verdict {
    about: String,
    json: serde_json::Value,
    findings: Vec<Finding>,
}

/// Look, and say what is found.
pub(in crate::io) fn verify_path(cli: &Cli, flags: &VerifyFlags) -> Exit {
    let looked = look(cli, &flags.path);
    match looked {
        Ok(verdict) => say(cli.output, &flags.path, &verdict),
        Err(e) => {
            eprintln!("warren: {e}");
            Exit::Degraded
        }
    }
}

fn say(output: Output, path: &Path, verdict: &Verdict) -> Exit {
    let damaged = verdict.findings.iter().any(|finding| finding.damage);
    if output == Output::Json {
        let mut json = verdict.json.clone();
        json["path"] = serde_json::json!(path);
        json["damaged"] = damaged.into();
        json["findings"] = serde_json::to_value(&verdict.findings).expect("plain values are JSON");
        println!("{json}");
    } else {
        if !verdict.about.is_empty() {
            println!("{}: {}", path.display(), verdict.about);
        }
        for Finding { damage, what, means } in &verdict.findings {
            println!("{}: {what}\n    {means}", if *damage { "DAMAGED" } else { "odd" });
        }
        if !damaged {
            println!("nothing is damaged");
        }
    }
    if damaged { Exit::Degraded } else { Exit::Done }
}

fn look(cli: &Cli, path: &Path) -> Result<Verdict, VerifyError> {
    let there = fs::metadata(path).map_err(|source| VerifyError::Open { path: path.to_owned(), source })?;
    let mut work = Work::begin("verify", there.len()).map_err(VerifyError::System)?;
    let verdict = match there.is_dir() {
        true => store(cli.output, path, &mut work),
        false => backup(path, &mut work),
    };
    work.end();
    verdict
}

fn damage(what: impl Into<String>, means: &str) -> Finding {
    Finding { damage: true, what: what.into(), means: means.to_owned() }
}

// ---- a backup ------------------------------------------------------------------------------------------------------

/// What came of reading one.
struct Read {
    header: Option<Header>,
    totals: Option<Totals>,
    finding: Option<Finding>,
}

fn backup(path: &Path, work: &mut Work) -> Result<Verdict, VerifyError> {
    let mut quotas = QuotaCheck::default();
    let mut read = pass(path, work, &mut |path, znode| quotas.find(path, znode))?;
    let mut report = Report::default();
    if read.finding.is_none() && quotas.is_due() {
        read = pass(path, work, &mut |path, znode| quotas.count(path, znode))?;
        report.drifts(&quotas);
    }
    let Read { header, totals, finding } = read;
    let mut findings = report.findings;
    findings.extend(finding);
    let about = match &header {
        None => String::new(),
        Some(Header { of }) => format!(
            "a backup of {}, made {} by server {} ({}): zxid {}, {} znodes, {} sessions, {} of data{}",
            if of.ensemble.is_empty() { "a server that stands alone" } else { &of.ensemble },
            times::text(of.time_ms),
            of.server_id,
            of.version,
            of.zxid,
            of.znodes,
            of.sessions,
            bytes(of.data_bytes),
            totals.as_ref().map_or(String::new(), |totals| format!(", sha256 {}", totals.sha256)),
        ),
    };
    let json = serde_json::json!({
        "kind": "backup", "header": header, "sha256": totals.as_ref().map(|totals| &totals.sha256),
        "file_bytes": totals.as_ref().map(|totals| totals.file_bytes),
    });
    Ok(Verdict { about, json, findings })
}

fn pass(
    path: &Path,
    work: &mut Work,
    each: warren_storage::tree::EachZnode<'_>,
) -> Result<Read, VerifyError> {
    let file = File::open(path).map_err(|source| VerifyError::Open { path: path.to_owned(), source })?;
    let mut read = Read { header: None, totals: None, finding: None };
    let mut reader = match BackupReader::begin(BufReader::with_capacity(1 << 20, file)) {
        Ok(reader) => reader,
        Err(e) => {
            read.finding = Some(damage(e.to_string(), "name a backup, or a server's data folder"));
            return Ok(read);
        }
    };
    let header = reader.header().clone();
    read.header = Some(header.clone());
    let mut check = StreamCheck::default();
    let (mut block, mut chunk) = (Vec::new(), Vec::new());
    let mut all = || -> Result<bool, Unsound> {
        while reader.next_block(&mut block)? {
            let mut rest = block.as_slice();
            while !rest.is_empty() {
                read_chunk(&mut rest, &mut chunk).map_err(FormatError::Read)?;
                check.push(&chunk, each)?;
            }
            if !work.goes_on(reader.position()) {
                return Ok(false);
            }
        }
        Ok(true)
    };
    match all() {
        Ok(true) => {}
        Ok(false) => return Err(VerifyError::Interrupted),
        Err(e) => {
            read.finding = Some(damage(e.to_string(), TAKE_ANOTHER));
            return Ok(read);
        }
    }
    read.totals = reader.totals().cloned();
    let whole = check.finish().map_err(Unsound::Stream).and_then(|head| sane(&header, &head));
    read.finding = whole.err().map(|e| damage(e.to_string(), TAKE_ANOTHER));
    Ok(read)
}

// ---- a store -------------------------------------------------------------------------------------------------------

fn store(output: Output, path: &Path, work: &mut Work) -> Result<Verdict, VerifyError> {
    let inner = path.join(STORE);
    let store = if inner.is_dir() { inner } else { path.to_owned() };
    if !store.join("lock").exists() {
        return Err(VerifyError::NoStore(path.to_owned()));
    }
    let folder = ReadOnlyFolder::open(&store).map_err(|e| match e {
        OpenError::InUse(path) => VerifyError::Live(path),
        e => VerifyError::System(full(&e)),
    })?;
    let disk: SharedDisk = Arc::new(InspectDisk::new(Arc::new(folder)));
    expect_panics(output, path);
    let options = TreeOptions { memory_bytes: MEMORY_BYTES, hash_seed: 1, store_id: 0 };
    let expected = fs::metadata(store.join("tree.redb")).map_or(0, |there| there.len());
    let mut step = Step::Pages;
    let looked = verify(&disk, options, &mut |now| {
        if std::mem::discriminant(&now) != std::mem::discriminant(&step) {
            step = now;
            match now {
                Step::Rows(_) => work.expect("reading the tree", expected),
                _ => work.expect("reading the log", 0),
            }
        }
        // Records are as long as they are; what counts is that it goes on.
        match now {
            Step::Rows(bytes) => work.goes_on(bytes),
            Step::Pages | Step::Records(_) => work.goes_on(0),
        }
    });
    let _ = std::panic::take_hook();
    let Report { tree, sessions, log, commands, mut findings } =
        looked.map_err(|_| VerifyError::Interrupted)?;
    if store.join(SYNC_FAILED).exists() {
        findings.push(Finding {
            damage: false,
            what: "a sync failed before the server stopped".to_owned(),
            means: "the next start writes everything once more; look after the disk".to_owned(),
        });
    }
    for name in UNFINISHED.iter().filter(|name| path.join(name).exists()) {
        findings.push(Finding {
            damage: false,
            what: format!(
                "{} is what is left of a command that never came to its end",
                path.join(name).display()
            ),
            means: "run the command again, or remove it".to_owned(),
        });
    }
    let mut about = match &tree {
        None => "a store".to_owned(),
        Some(head) => format!(
            "a store with {} znodes, {sessions} sessions and {} of data as of zxid {}",
            head.znodes,
            bytes(head.data_bytes),
            head.zxid
        ),
    };
    if let Some((first, last)) = log {
        about.push_str(&match last >= first {
            true => format!(", a log from {first} to {last} with {commands} requests"),
            false => ", and an empty log".to_owned(),
        });
    }
    let json = serde_json::json!({
        "kind": "store", "zxid": tree.as_ref().map(|head| head.zxid.to_string()),
        "znodes": tree.as_ref().map(|head| head.znodes), "sessions": sessions,
        "data_bytes": tree.as_ref().map(|head| head.data_bytes),
        "stream_bytes": tree.as_ref().map(|head| stream_bytes(head.znodes, head.data_bytes)),
        "log_first": log.map(|log| log.0), "log_last": log.map(|log| log.1), "requests": commands,
    });
    Ok(Verdict { about, json, findings })
}

/// Of a page that makes no sense, redb tells by a panic. Then that is the verdict.
fn expect_panics(output: Output, path: &Path) {
    let path = path.to_owned();
    std::panic::set_hook(Box::new(move |panic| {
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let what = text.unwrap_or("an assertion failed").to_owned();
        let at = panic.location().map_or(String::new(), |at| {
            let file = Path::new(at.file()).file_name().unwrap_or_default().to_string_lossy().into_owned();
            format!(" ({file}:{})", at.line())
        });
        let finding = damage(
            format!("pages of the store contradict one another, and its engine goes no further: {what}{at}"),
            "in an ensemble, move the data folder away and let this server join anew (`warren member replace`); alone, \
             restore the newest backup",
        );
        let json = serde_json::json!({ "kind": "store" });
        let exit = say(output, &path, &Verdict { about: String::new(), json, findings: vec![finding] });
        std::process::exit(exit as i32);
    }));
}
