//! After a failed sync: a mark for the next process, and the rewriting that it does.
//!
//! The system tells a failed sync once, takes what it could not write for written, and shows it to everyone who reads. A
//! process that starts on that would acknowledge what no disk has. The mark is a file, and it need not be synced: what
//! it warns of is gone with it when the power goes.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The mark.
pub(super) const MARK: &str = "sync-failed";
/// What is read and written again at once.
const CHUNK_BYTES: usize = 1 << 20;
/// What is written last, after a sync of the rest: redb's header, and the mark of a file with space ahead. They say where
/// everything else is.
const HEAD_BYTES: u64 = 64 << 10;

/// A sync failed. When even this fails the process stops all the same, and the log line tells the operator.
pub(super) fn mark(folder: &Path) {
    if let Err(error) = File::create(folder.join(MARK)) {
        tracing::error!(
            %error,
            "a sync failed, and the next start cannot be told: reboot this machine before it, so that no unwritten data is \
             read from the system's cache"
        );
    }
}

/// Is there one?
pub(super) fn is_marked(folder: &Path) -> io::Result<bool> {
    folder.join(MARK).try_exists()
}

/// The files and the folder are on the disk: the mark goes.
pub(super) fn unmark(folder: &Path, handle: &File) -> io::Result<()> {
    handle.sync_all()?;
    fs::remove_file(folder.join(MARK))
}

/// Write the content of a file once more, holes excepted, and wait until the disk has it.
pub(super) fn rewrite(file: &File) -> io::Result<()> {
    let length = file.metadata()?.len();
    rewrite_range(file, HEAD_BYTES, length)?;
    file.sync_all()?;
    rewrite_range(file, 0, length.min(HEAD_BYTES))?;
    file.sync_all()
}

fn rewrite_range(file: &File, from: u64, to: u64) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut at = from;
    while let Some(data) = next_data(file, at, to)? {
        let hole = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(data)).unwrap_or(to).min(to);
        at = data;
        while at < hole {
            let n = (hole - at).min(CHUNK_BYTES as u64) as usize;
            file.read_exact_at(&mut chunk[..n], at)?;
            file.write_all_at(&chunk[..n], at)?;
            at += n as u64;
        }
    }
    Ok(())
}

/// Where there is data at or behind `at`.
fn next_data(file: &File, at: u64, to: u64) -> io::Result<Option<u64>> {
    use rustix::io::Errno;
    if at >= to {
        return Ok(None);
    }
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
        Ok(data) => Ok(Some(data).filter(|data| *data < to)),
        Err(Errno::NXIO) => Ok(None),
        // A file system that knows no holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some(at)),
        Err(e) => Err(e.into()),
    }
}
