//! SIGHUP: certificates and the log's level are read again. What else changed in the settings waits for the next start, and the
//! log says so.

use super::systemd::Systemd;
use crate::config::Config;
use std::sync::Arc;
use tokio::signal::unix::Signal;
use tokio::sync::{mpsc, oneshot};

/// Reads the settings from their file again and lets the log's level take effect; an error says why they cannot be used.
pub type Reread = Box<dyn Fn() -> Result<Config, String> + Send>;

/// Asks for the certificates to be read again, and is told when they are.
pub(super) type AskCertificates = mpsc::Sender<oneshot::Sender<()>>;

/// What SIGHUP does.
pub(super) struct Hangup {
    pub(super) signal: Signal,
    /// Where there is a file.
    pub(super) reread: Option<Reread>,
    /// The settings in effect.
    pub(super) config: Config,
    pub(super) systemd: Arc<Systemd>,
}

impl Hangup {
    /// Wait for it, as long as the runtime lives.
    pub(super) fn watch(mut self, certificates: Option<AskCertificates>) {
        tokio::spawn(async move {
            while self.signal.recv().await.is_some() {
                self.systemd.reloading();
                self.settings();
                if let Some(certificates) = &certificates {
                    let (done, wait) = oneshot::channel();
                    if certificates.send(done).await.is_ok() {
                        let _ = wait.await;
                    }
                }
                self.systemd.reloaded();
            }
        });
    }

    fn settings(&self) {
        match self.reread.as_ref().map(|reread| reread()) {
            None => {}
            Some(Ok(now)) => {
                let level = now.log.level;
                tracing::info!("the log's level is {level}, for SIGHUP");
                if now != (Config { log: now.log.clone(), ..self.config.clone() }) {
                    tracing::warn!(
                        "other settings than log.level differ from those in effect: they are read at the next start"
                    );
                }
            }
            Some(Err(why)) => {
                tracing::error!("the settings cannot be read again, and those from before stay: {why}");
            }
        }
    }
}
