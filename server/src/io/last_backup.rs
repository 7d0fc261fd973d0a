//! Of when the last backup of this server is: a metric that a restart does not forget, by a file in the data folder.

use super::facts::Registry;
use crate::metrics::Metrics;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

/// In the data folder, beside the store: it is of the server, and not of what the store holds.
const FILE: &str = "last-backup.json";

/// The last one that became a whole file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LastBackup {
    /// When it was begun, ms since 1970.
    pub(super) time_ms: i64,
    /// Size of its file.
    pub(super) file_bytes: u64,
}

/// Show what a former run noted.
pub(super) fn recall(data_dir: &Path, metrics: &Metrics) {
    let path = data_dir.join(FILE);
    let read = fs::read(&path).and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::other));
    match read {
        Ok(last) => show(metrics, &last),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => {
            tracing::warn!(
                "when the last backup was is not known until the next one: {}: {e}",
                path.display()
            );
        }
    }
}

/// There is one: show it, and keep that it is.
pub(super) fn note(registry: &Registry, last: &LastBackup) {
    show(&registry.room.metrics, last);
    if let Err(e) = keep(&registry.config.data_dir, last) {
        tracing::warn!("after a restart this server will not know when its last backup was: {e}");
    }
}

fn show(metrics: &Metrics, last: &LastBackup) {
    metrics.warren_last_backup_timestamp_seconds.set(last.time_ms / 1_000);
    metrics.warren_last_backup_bytes.set(i64::try_from(last.file_bytes).unwrap_or(i64::MAX));
}

fn keep(data_dir: &Path, last: &LastBackup) -> io::Result<()> {
    let new = data_dir.join(format!("{FILE}.new"));
    let mut file = File::create(&new)?;
    file.write_all(serde_json::to_string(last)?.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, data_dir.join(FILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_recalled_and_what_is_broken_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let recalled = || {
            let metrics = Metrics::default();
            recall(folder.path(), &metrics);
            (metrics.warren_last_backup_timestamp_seconds.value(), metrics.warren_last_backup_bytes.value())
        };
        assert_eq!(recalled(), (0, 0));
        keep(folder.path(), &LastBackup { time_ms: 1_700_000_000_999, file_bytes: 7 }).unwrap();
        assert_eq!(recalled(), (1_700_000_000, 7));
        fs::write(folder.path().join(FILE), b"{").unwrap();
        assert_eq!(recalled(), (0, 0));
    }
}
