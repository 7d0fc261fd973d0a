//! `warren log`, from the log of a running server by its socket, or of one that is stopped.

use super::admin::{self, AskError};
use super::full;
use crate::cli::{Cli, Exit, Output};
use crate::log::flags::LogFlags;
use crate::log::{Filter, requests};
use crate::times;
use std::io::{self, BufWriter, Write as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::UNIX_EPOCH;
use warren_server::admin::{Request, Response};
use warren_server::records::{Outcomes, read_record};
use warren_storage::inspect::InspectDisk;
use warren_storage::io::{OpenError, ReadOnlyFolder};
use warren_storage::log::{LogOptions, LogRecord};
use warren_storage::{SharedDisk, TreeOptions, recover};

/// A server's store, in its data folder.
const STORE: &str = "warren";
/// Of the log, at a time, unless a record is larger; bytes.
const READ_BYTES: usize = 4 << 20;
/// Memory for the tree, of which only the position is asked.
const MEMORY_BYTES: u64 = 32 << 20;

/// Prints what is wanted of a record, which is committed or may not be, with what became of it where that is known.
type Print<'a> = dyn FnMut(&LogRecord, bool, Option<&Outcomes>) -> Result<(), LogFailure> + 'a;

/// Why the log is not told, or not to its end.
#[derive(Debug, thiserror::Error)]
enum LogFailure {
    #[error("{0}")]
    Usage(String),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("refused: {0}")]
    Refused(String),
    #[error("the server broke off: {0}; its log says why")]
    BrokeOff(io::Error),
    #[error("{0}")]
    Store(String),
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
}

/// Tell it.
pub(super) fn run(cli: &Cli, flags: &LogFlags) -> Exit {
    match tell(cli, flags) {
        Ok(()) => Exit::Done,
        // Whoever reads has seen enough.
        Err(LogFailure::Print(e)) if e.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        Err(e) => {
            eprintln!("warren: {e}");
            match e {
                LogFailure::Usage(_) => Exit::Usage,
                LogFailure::Ask(_) => Exit::Unreachable,
                _ => Exit::Degraded,
            }
        }
    }
}

fn tell(cli: &Cli, flags: &LogFlags) -> Result<(), LogFailure> {
    let now_ms = UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as i64);
    let time = |text: &Option<String>| {
        let parsed = text.as_ref().map(|text| times::parse(text, now_ms)).transpose();
        parsed.map_err(LogFailure::Usage)
    };
    if let Some(path) = flags.path.as_ref().filter(|path| !path.starts_with('/')) {
        return Err(LogFailure::Usage(format!("`{path}` is no path: paths begin with /")));
    }
    let filter = Filter {
        path: flags.path.clone(),
        session: flags.session,
        since_ms: time(&flags.since)?,
        until_ms: time(&flags.until)?,
        data: flags.data,
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let mut print =
        |record: &LogRecord, committed: bool, outcomes: Option<&Outcomes>| -> Result<(), LogFailure> {
            let mut printed = Ok(());
            requests(record, committed, outcomes, &filter, &mut |request| {
                if printed.is_ok() {
                    printed = match cli.output {
                        Output::Text => out.write_all(request.line().as_bytes()),
                        Output::Json => {
                            let json = serde_json::to_string(&request).expect("plain values are JSON");
                            writeln!(out, "{json}")
                        }
                    };
                }
            })
            .map_err(LogFailure::Store)?;
            Ok(printed?)
        };
    match admin::stream(&cli.socket(), &Request::Log) {
        Ok((Response::Log(head), mut stream)) => {
            while let Some((record, outcomes)) = read_record(&mut stream).map_err(LogFailure::BrokeOff)? {
                print(&record, record.index <= head.committed, outcomes.as_ref())?;
            }
        }
        Ok((Response::Refused(why), _)) => return Err(LogFailure::Refused(why)),
        Ok(_) => return Err(LogFailure::Store("the server answered something else".to_owned())),
        Err(AskError::Connect { path, source }) => stopped(cli, (path, source), &mut print)?,
        Err(e) => return Err(e.into()),
    }
    out.flush()?;
    Ok(())
}

/// Nobody answered at the socket: look at the files, if no server has them.
fn stopped(cli: &Cli, (path, source): (PathBuf, io::Error), print: &mut Print<'_>) -> Result<(), LogFailure> {
    // Or a store that was moved away.
    let store = Some(cli.data_dir.join(STORE)).filter(|store| store.is_dir());
    let store = store.unwrap_or_else(|| cli.data_dir.clone());
    let folder = match ReadOnlyFolder::open(&store) {
        Ok(folder) => folder,
        // There is a server, or nothing at all: either way it is the socket that is missing.
        Err(OpenError::InUse(_)) => return Err(AskError::Connect { path, source }.into()),
        Err(_) if !store.join("lock").exists() => return Err(AskError::Connect { path, source }.into()),
        Err(e) => return Err(LogFailure::Store(full(&e))),
    };
    let disk: SharedDisk = Arc::new(InspectDisk::new(Arc::new(folder)));
    let options = TreeOptions { memory_bytes: MEMORY_BYTES, hash_seed: 1, store_id: 0 };
    let opened = recover(disk, options, LogOptions::default());
    let opened = opened.map_err(|e| LogFailure::Store(format!("{}: {}", store.display(), full(&e))))?;
    let found = opened.found;
    let committed = found.hard_state.commit.max(opened.tree.position().index);
    let reader = opened.log.reader();
    let mut next = found.first_index;
    while next <= found.last_index {
        let records = reader
            .read(next, found.last_index + 1, READ_BYTES)
            .map_err(|e| LogFailure::Store(format!("{}: {}", store.display(), full(&e))))?;
        for record in &records {
            // What became of it only a server that applied it could tell.
            print(record, record.index <= committed, None)?;
        }
        next += records.len() as u64;
    }
    Ok(())
}
