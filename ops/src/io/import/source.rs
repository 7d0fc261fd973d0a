//! The files of a ZooKeeper: which there are, which are read, and whether anybody else has them open.

use crate::import::snappy::SnappyReader;
use flate2::read::GzDecoder;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Below dataDir and dataLogDir.
const VERSION_2: &str = "version-2";
/// Of a file, at a time, bytes.
const READ_BYTES: usize = 256 << 10;

/// A snapshot or a file of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    /// From its name.
    pub(super) zxid: i64,
    pub(super) bytes: u64,
    changed: Option<SystemTime>,
}

impl Found {
    /// As messages say it.
    pub(super) fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Is it as it was when it was found?
    pub(super) fn is_unchanged(&self) -> bool {
        fs::metadata(&self.path)
            .is_ok_and(|now| (now.len(), now.modified().ok()) == (self.bytes, self.changed))
    }

    /// From its front, unpacked as its name says. `progress` is told how many bytes of the file were read.
    pub(super) fn open<'p>(&self, progress: &'p mut dyn FnMut(u64)) -> io::Result<Box<dyn Read + 'p>> {
        let counted = Counted { from: File::open(&self.path)?, done: 0, progress };
        let plain = BufReader::with_capacity(READ_BYTES, counted);
        let name = self.name();
        Ok(match name.rsplit_once('.') {
            Some((_, "gz")) => Box::new(BufReader::with_capacity(READ_BYTES, GzDecoder::new(plain))),
            Some((_, "snappy")) => Box::new(BufReader::with_capacity(READ_BYTES, SnappyReader::new(plain))),
            _ => Box::new(plain),
        })
    }
}

struct Counted<'p> {
    from: File,
    done: u64,
    progress: &'p mut dyn FnMut(u64),
}

impl Read for Counted<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(out)?;
        self.done += read as u64;
        (self.progress)(self.done);
        Ok(read)
    }
}

/// What lies in the folders.
#[derive(Debug)]
pub(super) struct Files {
    /// Newest first.
    pub(super) snapshots: Vec<Found>,
    /// Oldest first.
    pub(super) logs: Vec<Found>,
    /// Of the log.
    pub(super) log_dir: PathBuf,
    /// The highest in `currentEpoch` and `acceptedEpoch`; 0 without them.
    pub(super) epoch: i64,
    pub(super) myid: Option<String>,
    pub(super) odd: Vec<String>,
}

/// Why the folder is none of ZooKeeper's.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    #[error("{} cannot be read: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "{} holds no ZooKeeper's data: neither a folder {VERSION_2} nor snapshot.* or log.* files. Give what zoo.cfg calls \
         dataDir by --from, and dataLogDir by --log-dir", .0.display()
    )]
    NotZooKeepers(PathBuf),
    #[error(
        "process {pid} has {} open: a ZooKeeper that runs goes on writing what would be missing then. Stop it first, or \
         import a copy of its files", file.display()
    )]
    InUse { pid: u32, file: PathBuf },
    #[error("{} changed while it was read: something writes to it. Stop that ZooKeeper first", .0.display())]
    Changed(PathBuf),
}

/// Look into dataDir and, if it is another folder, dataLogDir.
pub(super) fn look(from: &Path, log_dir: Option<&Path>) -> Result<Files, SourceError> {
    let snap_dir = version_2(from);
    let log_dir = log_dir.map_or_else(|| snap_dir.clone(), version_2);
    let mut snapshots = numbered(&snap_dir, "snapshot")?;
    snapshots.sort_by_key(|found| std::cmp::Reverse(found.zxid));
    let mut logs = numbered(&log_dir, "log")?;
    logs.sort_by_key(|found| found.zxid);
    if snapshots.is_empty() && logs.is_empty() {
        return Err(SourceError::NotZooKeepers(from.to_owned()));
    }
    refuse_open_files(&[&snap_dir, &log_dir])?;
    let (mut epoch, mut odd) = (0, Vec::new());
    for name in ["currentEpoch", "acceptedEpoch"] {
        let Ok(text) = fs::read_to_string(snap_dir.join(name)) else { continue };
        match text.trim().parse::<i64>() {
            Ok(number) => epoch = epoch.max(number),
            Err(_) => odd.push(format!("{name} holds no number and is passed over")),
        }
    }
    let parent = if snap_dir == from { from.parent() } else { Some(from) };
    let myid = parent.and_then(|parent| fs::read_to_string(parent.join("myid")).ok());
    let myid = myid.map(|text| text.trim().chars().take(20).collect());
    Ok(Files { snapshots, logs, log_dir, epoch, myid, odd })
}

/// People name the one folder or the other.
fn version_2(dir: &Path) -> PathBuf {
    let below = dir.join(VERSION_2);
    if below.is_dir() { below } else { dir.to_owned() }
}

/// The files whose names are `prefix.ZXID`, perhaps with another ending.
fn numbered(dir: &Path, prefix: &str) -> Result<Vec<Found>, SourceError> {
    let failed = |source| SourceError::Io { path: dir.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let Some(zxid) = name.to_str().and_then(|name| zxid_of(name, prefix)) else { continue };
        let there = fs::metadata(entry.path()).map_err(failed)?;
        if there.is_file() {
            let changed = there.modified().ok();
            found.push(Found { path: entry.path(), zxid, bytes: there.len(), changed });
        }
    }
    Ok(found)
}

fn zxid_of(name: &str, prefix: &str) -> Option<i64> {
    let mut parts = name.split('.');
    if parts.next() != Some(prefix) {
        return None;
    }
    i64::from_str_radix(parts.next()?, 16).ok().filter(|zxid| *zxid >= 0)
}

/// ZooKeeper has no lock on its folder, so this looks which process has its files open; of other users' processes only root
/// sees that. Files that change while they are read are found out in any case.
fn refuse_open_files(dirs: &[&Path]) -> Result<(), SourceError> {
    let dirs: Vec<PathBuf> = dirs.iter().filter_map(|dir| dir.canonicalize().ok()).collect();
    let Ok(processes) = fs::read_dir("/proc") else { return Ok(()) };
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        if pid == std::process::id() {
            continue;
        }
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        for file in files.flatten().filter_map(|file| fs::read_link(file.path()).ok()) {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            let ours = zxid_of(&name, "log").or(zxid_of(&name, "snapshot")).is_some();
            if ours && file.parent().is_some_and(|parent| dirs.iter().any(|dir| dir == parent)) {
                return Err(SourceError::InUse { pid, file });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_zookeeper_reads_them() {
        assert_eq!(zxid_of("snapshot.1f", "snapshot"), Some(0x1f));
        assert_eq!(zxid_of("snapshot.200000001.gz", "snapshot"), Some(0x2_0000_0001));
        for name in
            ["snapshot", "snapshot.", "snapshot.xyz", "log.1f", "snapshot.-1", "snapshot.fffffffffffffffff"]
        {
            assert_eq!(zxid_of(name, "snapshot"), None, "{name}");
        }
    }

    #[test]
    fn either_folder_may_be_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = look(dir.path(), None).unwrap_err().to_string();
        assert!(error.contains("dataDir by --from"), "{error}");
        let inner = dir.path().join(VERSION_2);
        fs::create_dir(&inner).unwrap();
        for name in ["snapshot.5", "snapshot.a", "log.1", "log.b", "log.6", "acceptedEpoch", "currentEpoch"] {
            fs::write(inner.join(name), "7").unwrap();
        }
        fs::write(dir.path().join("myid"), "3\n").unwrap();
        for from in [dir.path(), &inner] {
            let files = look(from, None).unwrap();
            assert_eq!(files.snapshots.iter().map(|s| s.zxid).collect::<Vec<_>>(), [10, 5]);
            assert_eq!(files.logs.iter().map(|s| s.zxid).collect::<Vec<_>>(), [1, 6, 11]);
            assert_eq!((files.epoch, files.myid.as_deref()), (7, Some("3")));
        }
    }

    #[test]
    fn files_in_use_are_found() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("log.1"), "").unwrap();
        // Opened by a process that is not this one.
        let log = File::open(dir.path().join("log.1")).unwrap();
        let mut other = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .stdout(log)
            .spawn()
            .unwrap();
        let error = look(dir.path(), None).unwrap_err();
        assert!(matches!(&error, SourceError::InUse { pid, .. } if *pid == other.id()), "{error}");
        drop(other.stdin.take());
        other.wait().unwrap();
        look(dir.path(), None).unwrap();
    }
}
