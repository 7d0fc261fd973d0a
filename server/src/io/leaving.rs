//! The end of a process that serves: an orderly stop, or a beginning anew in place.

use super::clients::{Clients, Leave};
use super::engine::Engine;
use super::ensemble::Ensemble;
use super::facts::Registry;
use super::restart::Handed;
use super::systemd::Systemd;
use crate::room::Room;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Connections have so long to answer what they took, and clients to take the answers.
const CONNECTIONS_WITHIN: Duration = Duration::from_secs(10);
/// Nothing is owed any more: each connection has only to be written down.
const GATHER_WITHIN: Duration = Duration::from_secs(5);
/// A checkpoint before a beginning anew takes as long as this at most; the last one then holds the rest.
const CHECKPOINT_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What has to end.
pub(super) struct Leaving {
    pub(super) leave: watch::Sender<Leave>,
    pub(super) accepting: JoinHandle<io::Result<TcpListener>>,
    /// Looks at the disk.
    pub(super) watching: JoinHandle<()>,
    pub(super) clients: Arc<Clients>,
    pub(super) engine: Engine,
    pub(super) ensemble: Option<Arc<Ensemble>>,
    pub(super) room: Arc<Room>,
    pub(super) registry: Arc<Registry>,
    pub(super) systemd: Arc<Systemd>,
}

impl Leaving {
    /// Stop, for this signal.
    pub(super) async fn stop(mut self, signal: &str) {
        tracing::info!("{signal}: taking no more work, finishing what is in flight");
        self.systemd.stopping("stopping: finishing what is in flight");
        // Whoever comes now is better served elsewhere.
        drop(self.let_go(Leave::Close).await);
        until(CONNECTIONS_WITHIN, || self.registry.len() == 0).await;
        self.systemd.stopping("stopping: writing a last checkpoint");
        match self.stop_engine().await {
            true => tracing::info!("stopped; everything is in a checkpoint"),
            false => tracing::warn!("stopped without a last checkpoint; the next start replays the log"),
        }
    }

    /// Stop as far as another process can go on with the connections; this one cannot serve any more.
    pub(super) async fn begin_anew(mut self) -> Handed {
        tracing::info!("an operator has this server begin anew; its clients' connections are kept");
        self.systemd.beginning_anew();
        let (room, registry) = (self.room.clone(), self.registry.clone());
        let zxid = room.zxid();
        self.engine.checkpoint_now();
        until(CHECKPOINT_WITHIN, || room.checkpointed() >= zxid).await;
        let listener = self.let_go(Leave::Park).await;
        let clients = self.clients.clone();
        let parking = &clients.parking;
        let open = || registry.len().saturating_sub(parking.parting.load(Ordering::Acquire));
        until(CONNECTIONS_WITHIN, || parking.parked.load(Ordering::Acquire) >= open()).await;
        self.stop_engine().await;
        let _ = self.leave.send(Leave::Gather);
        registry.wake_all();
        until(GATHER_WITHIN, || open() == 0).await;
        let connections = std::mem::take(&mut *parking.kept.lock());
        tracing::info!(connections = connections.len(), "this process becomes the next one");
        Handed { zxid: room.zxid(), listener: listener.ok(), connections }
    }

    /// Accept nobody more, lead no longer, and have the connections do this.
    async fn let_go(&mut self, leave: Leave) -> io::Result<TcpListener> {
        let _ = self.leave.send(leave);
        let listener = match (&mut self.accepting).await {
            Ok(listener) => listener,
            Err(e) => Err(io::Error::other(e)),
        };
        if self.ensemble.is_some() && self.engine.hand_over(None).await {
            tracing::info!("leadership is handed over");
        }
        self.room.stop();
        self.registry.wake_all();
        self.watching.abort();
        listener
    }

    /// Tells whether everything is in a checkpoint.
    async fn stop_engine(&self) -> bool {
        let (ensemble, engine) = (self.ensemble.clone(), self.engine.clone());
        let stopped = tokio::task::spawn_blocking(move || {
            if let Some(ensemble) = ensemble {
                ensemble.stop();
            }
            engine.stop()
        });
        stopped.await.unwrap_or(false)
    }
}

/// Wait until it is so, or it takes too long.
async fn until(within: Duration, mut is_so: impl FnMut() -> bool) {
    let late = Instant::now() + within;
    while !is_so() && Instant::now() < late {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
