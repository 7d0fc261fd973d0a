//! `warren doctor`: looks at the host and the server, and has [`crate::doctor`] judge it.

use super::{admin, peers};
use crate::cli::{Cli, Exit, Output};
use crate::doctor::{self, Ahead, Facts, Gravity};
use crate::prepare::{SETTINGS_DIR, SETTINGS_FILE};
use rustix::fs::{Mode, OFlags};
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use warren_server::admin::{Member, Request, Response};
use warren_server::config::{Config, FileText, Overrides, load};
use warren_transport::io::certs;

/// Small writes that are made and synced to see how long that takes.
const SYNCS: usize = 32;
/// Of each, bytes.
const SYNC_BYTES: usize = 4 << 10;
/// No more of them are made after this.
const SYNCS_WITHIN: Duration = Duration::from_secs(5);
/// Other servers answer by then, or have not.
const PEERS_WITHIN: Duration = Duration::from_secs(1);

/// Look, print, and say how it ended.
pub(super) fn run(cli: &Cli, config: Option<&Path>) -> Exit {
    let facts = look(cli, config);
    let findings = doctor::examine(&facts);
    let worst = doctor::worst(&findings);
    match cli.output {
        Output::Text => print!("{}", doctor::text(&findings)),
        Output::Json => println!("{}", serde_json::json!({ "worst": worst, "findings": findings })),
    }
    match (&facts.status, worst) {
        (Some(Err(_)), _) => Exit::Unreachable,
        (_, Gravity::Ok | Gravity::Note) => Exit::Done,
        (_, Gravity::Warn | Gravity::Bad) => Exit::Degraded,
    }
}

fn look(cli: &Cli, config: Option<&Path>) -> Facts {
    let mut facts = Facts { data_dir: cli.data_dir.display().to_string(), ..Facts::default() };
    let packaged = Path::new(SETTINGS_DIR).join(SETTINGS_FILE);
    let path = config.map(Path::to_owned).or_else(|| Some(packaged).filter(|path| path.exists()));
    facts.file = path.map(|path| settings_of(&path).map_err(|why| format!("{}: {why}", path.display())));
    // One that is for another server's folder says nothing of this one.
    if let (None, Some(Ok((file, _)))) = (config, &facts.file) {
        if file.data_dir != cli.data_dir {
            facts.file = None;
        }
    }
    let told = admin::ask(&cli.socket(), &Request::Settings);
    facts.settings = match told {
        Ok(Response::Settings(text)) => {
            load(FileText::WarrenToml(&text), &Overrides::default()).ok().map(|loaded| loaded.config)
        }
        _ => facts.file.as_ref().and_then(|file| file.as_ref().ok()).map(|(config, _)| config.clone()),
    };
    facts.status = match admin::ask(&cli.socket(), &Request::Status) {
        Ok(Response::Status(status)) => Some(Ok(status)),
        Ok(other) => Some(Err(format!("the server answered something else: {other:?}"))),
        Err(e) => Some(Err(e.to_string())),
    };
    if let Ok(disk) = rustix::fs::statvfs(&cli.data_dir) {
        facts.space = Some((disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize));
    }
    facts.file_system = rustix::fs::statfs(&cli.data_dir).ok().map(|fs| fs.f_type as u64);
    facts.syncs = cli.data_dir.is_dir().then(|| syncs(&cli.data_dir).map_err(|e| e.to_string()));
    facts.clock_synchronized = clock_synchronized();
    facts.memory_bytes = memory_bytes();
    certificates(&mut facts);
    if let Some(Ok(status)) = &facts.status {
        let members = status.members.clone();
        others(&members, status.server_id, &mut facts);
    }
    let table = |path: &str| fs::read_to_string(path).unwrap_or_default();
    facts.addresses = doctor::local_addresses(&table("/proc/net/fib_trie"), &table("/proc/net/if_inet6"));
    facts
}

fn settings_of(path: &Path) -> Result<(Config, Vec<String>), String> {
    let text = fs::read_to_string(path).map_err(|e| e.to_string())?;
    let loaded = load(FileText::WarrenToml(&text), &Overrides::default()).map_err(|e| e.to_string())?;
    Ok((loaded.config, loaded.warnings.iter().map(ToString::to_string).collect()))
}

/// How long small writes with a sync take, sorted. The file has no name, so nothing is left of it whatever happens.
fn syncs(folder: &Path) -> io::Result<Vec<Duration>> {
    let mut file = fs::File::from(rustix::fs::open(
        folder,
        OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC,
        Mode::RUSR | Mode::WUSR,
    )?);
    let (block, began) = (vec![0x5a; SYNC_BYTES], Instant::now());
    let mut took = Vec::new();
    while took.len() < SYNCS && began.elapsed() < SYNCS_WITHIN {
        let start = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        took.push(start.elapsed());
    }
    took.sort_unstable();
    Ok(took)
}

/// As the kernel was told by whoever keeps it.
fn clock_synchronized() -> Option<bool> {
    let out = std::process::Command::new("timedatectl")
        .args(["show", "--value", "--property=NTPSynchronized"])
        .stdin(std::process::Stdio::null())
        .output()
        .ok()?;
    match String::from_utf8_lossy(&out.stdout).trim() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

fn memory_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
}

fn certificates(facts: &mut Facts) {
    let Some(ensemble) = facts.settings.as_ref().and_then(|settings| settings.ensemble.as_ref()) else {
        return;
    };
    let now = SystemTime::now();
    let left = |path: &PathBuf| match certs::valid_until(path) {
        Ok(end) => match end.duration_since(now) {
            Ok(left) => Ok(left.as_secs() as i64),
            Err(past) => Ok(-(past.duration().as_secs() as i64)),
        },
        Err(e) => Err(std::error::Error::source(&e).map_or(e.to_string(), |cause| format!("{e}: {cause}"))),
    };
    let files = [&ensemble.cert, &ensemble.ca];
    let all: BTreeMap<_, _> = files.iter().map(|path| (path.display().to_string(), left(path))).collect();
    if fs::metadata(&ensemble.cert).is_ok_and(|file| file.mode() & 0o007 != 0) {
        facts.open_keys.push(ensemble.cert.display().to_string());
    }
    facts.certificates = all;
}

/// Versions and clocks of the others.
fn others(members: &[Member], own: u8, facts: &mut Facts) {
    for (id, answer) in peers::ask(members, "srvr", PEERS_WITHIN) {
        let version = answer
            .map_err(|e| e.to_string())
            .and_then(|answer| peers::version(&answer.text).ok_or_else(|| answer.text.trim().to_owned()));
        facts.versions.insert(id, version);
    }
    for (id, answer) in peers::ask(members, "mntr", PEERS_WITHIN) {
        let Ok(answer) = answer else { continue };
        let Some(theirs) = peers::figure(&answer.text, "zk_warren_clock").filter(|_| id != own) else {
            continue;
        };
        let ours = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
        let within_ms = answer.took.as_millis() as i64 + 1;
        facts.clocks.insert(id, Ahead { ms: theirs - ours, within_ms });
    }
}
