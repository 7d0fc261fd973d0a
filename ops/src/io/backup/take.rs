//! `warren backup`.

use super::super::admin::{self, AskError};
use super::target::{self, Target, TargetError, refuse_existing};
use super::{Work, stream_bytes};
use crate::backup::flags::BackupFlags;
use crate::backup::format::{BackupWriter, Header, Totals};
use crate::backup::name;
use crate::cli::{Cli, Exit, Output};
use crate::status::bytes;
use crate::times;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use warren_server::admin::{Request, Response};
use warren_storage::disk::is_full;
use warren_storage::tree::{ImportError, StreamCheck, read_chunk};

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
enum TakeError {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("refused: {0}")]
    Refused(String),
    #[error("the server answered something else")]
    Answer,
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error("the server broke off: {0}; its log says why")]
    BrokeOff(io::Error),
    #[error(
        "the server sent what is no whole tree: {0}; its store may be damaged: `warren verify` on it says more"
    )]
    Stream(#[from] ImportError),
    #[error("the server sent a tree at {sent}, and had announced {said}")]
    Other { sent: String, said: String },
    #[error("{} cannot be written: the disk is full ({source}). Nothing is left of it; free some space or name another place", path.display())]
    Full { path: PathBuf, source: io::Error },
    #[error("{} cannot be written: {source}. Nothing is left of it", path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("interrupted; nothing is left of it")]
    Interrupted,
    #[error("{0}")]
    System(String),
}

/// A backup that is there.
struct Taken {
    header: Header,
    totals: Totals,
    path: PathBuf,
    removed: Vec<String>,
}

/// Take a backup, say what came of it.
pub(in crate::io) fn take(cli: &Cli, flags: &BackupFlags) -> Exit {
    match run(cli, flags) {
        Ok(taken) => {
            say(cli, flags, &taken);
            Exit::Done
        }
        Err(e) => {
            eprintln!("warren: {e}");
            if matches!(e, TakeError::Ask(_)) { Exit::Unreachable } else { Exit::Degraded }
        }
    }
}

fn say(cli: &Cli, flags: &BackupFlags, taken: &Taken) {
    let Taken { header, totals, path, removed } = taken;
    let to_stdout = is_stdout(flags);
    let text = match cli.output {
        Output::Json => serde_json::json!({
            "file": path, "header": header, "file_bytes": totals.file_bytes, "stream_bytes": totals.raw_bytes,
            "sha256": totals.sha256, "removed": removed,
        })
        .to_string(),
        Output::Text => {
            let of = &header.of;
            let mut text = format!(
                "{}: zxid {}, {} znodes, {} of data in a file of {}, sha256 {}",
                path.display(),
                of.zxid,
                of.znodes,
                bytes(of.data_bytes),
                bytes(totals.file_bytes),
                totals.sha256
            );
            for name in removed {
                text.push_str(&format!("\nremoved {name}, beyond the newest {}", flags.keep));
            }
            text
        }
    };
    if to_stdout { eprintln!("{text}") } else { println!("{text}") }
}

fn is_stdout(flags: &BackupFlags) -> bool {
    flags.out.as_deref() == Some(Path::new("-"))
}

fn run(cli: &Cli, flags: &BackupFlags) -> Result<Taken, TakeError> {
    // What cannot be written should not be read either.
    match (&flags.out, &flags.dir) {
        (Some(out), _) if !is_stdout(flags) => refuse_existing(out, flags.overwrite)?,
        (None, Some(dir)) if !dir.is_dir() => {
            let source = io::ErrorKind::NotADirectory.into();
            return Err(TargetError::Io { doing: "use the folder", path: dir.clone(), source }.into());
        }
        _ => {}
    }
    let mut work = Work::begin("backup", 0).map_err(TakeError::System)?;
    let (response, mut stream) = admin::stream(&cli.socket(), &Request::Backup { stale: flags.stale })?;
    let mut of = match response {
        Response::Backup(head) => *head,
        Response::Refused(why) => return Err(TakeError::Refused(why)),
        _ => return Err(TakeError::Answer),
    };
    let reserve_bytes = std::mem::take(&mut of.disk_reserve_bytes);
    let header = Header { of };
    work.expect("backup", stream_bytes(header.of.znodes, header.of.data_bytes));

    let (path, target) = match (&flags.out, &flags.dir) {
        (Some(out), _) if is_stdout(flags) => (out.clone(), Target::stdout()?),
        (Some(out), _) => (out.clone(), open(cli, out, flags.overwrite, reserve_bytes)?),
        (None, dir) => {
            let dir = dir.as_ref().expect("there is a file or a folder");
            let path = dir.join(name::of(&header));
            tidy(dir, &header);
            let target = open(cli, &path, false, reserve_bytes)?;
            (path, target)
        }
    };
    let copied = copy(&mut stream, target, &header, &mut work);
    work.end();
    let (target, totals) = copied.map_err(|e| match e {
        Copied::Take(e) => e,
        Copied::Write(source) if is_full(&source) => TakeError::Full { path: path.clone(), source },
        Copied::Write(source) => TakeError::Write { path: path.clone(), source },
    })?;
    target.commit()?;
    if !flags.stale {
        tell_kept(&mut stream, totals.file_bytes);
    }
    let removed = match &flags.dir {
        Some(dir) => remove_surplus(dir, &header, usize::from(flags.keep)),
        None => Vec::new(),
    };
    Ok(Taken { header, totals, path, removed })
}

/// The server's metrics are to say that there is a backup; there is one in any case.
fn tell_kept(stream: &mut BufReader<UnixStream>, bytes: u64) {
    let why = match admin::tell(stream, &Request::BackupKept { bytes }) {
        Ok(Response::Done(_)) => return,
        Ok(Response::Refused(why)) => why,
        Ok(_) => "it answered something else".to_owned(),
        Err(e) => e.to_string(),
    };
    eprintln!(
        "warren: the backup is there, but the server could not be told, and its metrics have another one for the last: {why}"
    );
}

/// Whether it may fill its disk depends on who else has data there.
fn open(cli: &Cli, path: &Path, overwrite: bool, reserve_bytes: u64) -> Result<Target, TargetError> {
    let device = |path: &Path| fs::metadata(path).ok().map(|there| there.dev());
    let socket = cli.socket();
    let folder = |path: &Path| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let shared = device(&folder(path)) == device(&folder(&socket));
    Target::file(path, overwrite, if shared { reserve_bytes } else { 0 })
}

enum Copied {
    Take(TakeError),
    Write(io::Error),
}

fn copy(
    stream: &mut impl BufRead,
    target: Target,
    header: &Header,
    work: &mut Work,
) -> Result<(Target, Totals), Copied> {
    let mut writer = BackupWriter::begin(target, header).map_err(Copied::Write)?;
    let mut check = StreamCheck::default();
    let mut chunk = Vec::new();
    while !check.is_complete() {
        read_chunk(stream, &mut chunk).map_err(|e| Copied::Take(TakeError::BrokeOff(e)))?;
        check.push(&chunk, &mut |_, _| {}).map_err(|e| Copied::Take(e.into()))?;
        writer.push(&chunk).map_err(Copied::Write)?;
        if !work.goes_on(writer.raw_bytes()) {
            return Err(Copied::Take(TakeError::Interrupted));
        }
    }
    let head = check.finish().map_err(|e| Copied::Take(e.into()))?;
    let sent = head.zxid.to_string();
    if sent != header.of.zxid {
        let said = header.of.zxid.clone();
        return Err(Copied::Take(TakeError::Other { sent, said }));
    }
    writer.finish().map_err(Copied::Write)
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Remove what interrupted backups left, unless one is still at it.
fn tidy(dir: &Path, header: &Header) {
    for name in name::left_over(&header.of.ensemble, names(dir)) {
        let whole = dir.join(name.strip_suffix(name::PARTIAL).unwrap_or(&name));
        // Who has the lock is writing it; dropped, it goes.
        drop(Target::file(&whole, true, 0));
        debug_assert_eq!(target::partial(&whole), dir.join(&name));
    }
}

/// The new one is durable: older ones may go.
fn remove_surplus(dir: &Path, header: &Header, keep: usize) -> Vec<String> {
    let surplus = name::surplus(&header.of.ensemble, names(dir), keep);
    let removed: Vec<String> = surplus
        .into_iter()
        .filter(|name| match fs::remove_file(dir.join(name)) {
            Ok(()) => true,
            Err(e) => {
                eprintln!("warren: {} is one too many and cannot be removed: {e}", dir.join(name).display());
                false
            }
        })
        .collect();
    if !removed.is_empty() {
        let _ = target::sync_folder_of(&dir.join("x"));
    }
    removed
}

/// When it was taken, for people.
pub(super) fn when(header: &Header) -> String {
    times::text(header.of.time_ms)
}
