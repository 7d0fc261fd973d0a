//! The certificates of the links are read again without a restart: when their files change, and on SIGHUP.
//!
//! New ones count for every handshake to come, and a link stays if they vouch for its other end, too. Files that cannot be
//! used change nothing: the old certificates stay, and the log says why.

use super::ensemble::Ensemble;
use super::reload::AskCertificates;
use crate::config;
use crate::metrics::Metrics;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, oneshot};
use warren_transport::io::links::{Links, TlsError, TlsFiles};

/// Between two looks at the files.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// By what a file is told from the one that was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// How the files of certificate and authority are; none where there is no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamps([Option<Stamp>; 2]);

impl Stamps {
    /// How they are now. Taken before they are read, so that what is written meanwhile is seen as a change.
    pub(super) fn take(config: &config::Ensemble) -> Stamps {
        Stamps([stamp(&config.cert), stamp(&config.ca)])
    }
}

/// When files are read: once they differ from those that were read last, and stay the same for one look.
#[derive(Debug)]
struct Looks<T> {
    read: T,
    seen: T,
}

impl<T: Copy + PartialEq> Looks<T> {
    fn new(read: T) -> Looks<T> {
        Looks { read, seen: read }
    }

    /// Is it time to read them?
    fn due(&mut self, now: T) -> bool {
        // Whoever writes the certificate may not have written the authority yet.
        let settled = self.seen == now;
        self.seen = now;
        settled && self.read != now
    }
}

/// Requests to read them that wait, at most; whoever asks waits for a place.
const ASKED_MAX: usize = 1;

/// Watch over them for as long as the runtime lives; `read` is how those in use were. They are read at once for whoever asks.
pub(super) fn watch(ensemble: Arc<Ensemble>, read: Stamps, metrics: Arc<Metrics>) -> AskCertificates {
    let (ask, mut asked) = mpsc::channel::<oneshot::Sender<()>>(ASKED_MAX);
    let certificates = Certificates { ensemble, metrics };
    certificates.tell_expiry();
    let mut looks = Looks::new(read);
    tokio::spawn(async move {
        let mut timer = tokio::time::interval(LOOK_EVERY);
        loop {
            let (why, done) = tokio::select! {
                _ = timer.tick() => match looks.due(Stamps::take(&certificates.ensemble.config)) {
                    true => ("their files changed", None),
                    false => continue,
                },
                Some(done) = asked.recv() => ("SIGHUP", Some(done)),
            };
            looks.read = Stamps::take(&certificates.ensemble.config);
            certificates.reload(why);
            if let Some(done) = done {
                let _ = done.send(());
            }
        }
    });
    ask
}

struct Certificates {
    ensemble: Arc<Ensemble>,
    metrics: Arc<Metrics>,
}

impl Certificates {
    fn reload(&self, why: &str) {
        let config = &self.ensemble.config;
        let Some(links) = self.ensemble.links() else { return };
        let read = || -> Result<(), TlsError> { links.reload(&TlsFiles::read(&config.cert, &config.ca)?) };
        match read() {
            Ok(()) => {
                self.metrics.warren_certificates_reloaded_total.add(1);
                self.tell_expiry();
                tracing::info!(
                    "certificates are read again, for {why}: {} is valid for {} days",
                    config.cert.display(),
                    valid_for(links).as_secs() / 86_400
                );
            }
            Err(e) => {
                let cause = std::error::Error::source(&e).map_or(String::new(), |cause| format!(": {cause}"));
                self.metrics.warren_certificate_failures_total.add(1);
                tracing::error!(
                    "new certificates cannot be used, and those from before stay: {e}{cause}; put right {} and {}, which are looked \
                     at every {} s",
                    config.cert.display(),
                    config.ca.display(),
                    LOOK_EVERY.as_secs()
                );
            }
        }
    }

    fn tell_expiry(&self) {
        let Some(links) = self.ensemble.links() else { return };
        let expires = links.certificate_expires().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.metrics.warren_certificate_expires_seconds.set(expires.as_secs() as i64);
    }
}

/// How much longer this server's certificate is valid.
pub(super) fn valid_for(links: &Links) -> Duration {
    links.certificate_expires().duration_since(SystemTime::now()).unwrap_or_default()
}

fn stamp(path: &Path) -> Option<Stamp> {
    let file = std::fs::metadata(path).ok()?;
    Some(Stamp {
        inode: file.ino(),
        bytes: file.len(),
        modified: (file.mtime(), file.mtime_nsec()),
        changed: (file.ctime(), file.ctime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_once_they_have_settled() {
        let mut looks = Looks::new(1);
        assert!(!looks.due(1), "nothing changed");
        assert!(!looks.due(2), "it changed just now");
        assert!(!looks.due(3), "and goes on changing");
        assert!(looks.due(3));
        looks.read = 3;
        assert!(!looks.due(3), "it was read");
        // Changed while it was read.
        looks.read = 3;
        assert!(!looks.due(4));
        assert!(looks.due(4));
        // Back to what is in use: nothing to do.
        assert!(!looks.due(3));
        assert!(!looks.due(3));
    }

    #[test]
    fn a_file_is_told_from_another_of_the_same_size() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cert.pem");
        assert_eq!(stamp(&path), None);
        std::fs::write(&path, "one").unwrap();
        let one = stamp(&path);
        assert_eq!(stamp(&path), one);
        let other = folder.path().join("other.pem");
        std::fs::write(&other, "two").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert!(one.is_some() && stamp(&path) != one);
    }
}
