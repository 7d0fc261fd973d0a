//! A backup, streamed to the operator's command over its socket: the tree as of one checkpoint, which is made first.
//!
//! ```text
//!  warren backup ──{"backup":{}}──▶ checkpoint, wait ─▶ export (a thread behind all others) ─▶ chunks ─▶ socket
//! ```
//! The command compresses and writes: the server does no more than it does for a follower that is far behind. In the end the command
//! tells that the file is whole and durable; only then is there a backup, and the metrics tell of when.

use super::bulk;
use super::engine::Engine;
use super::facts::Registry;
use super::last_backup::{self, LastBackup};
use super::priority::only_when_idle;
use crate::admin::{self, BackupHead, LINE_BYTES_MAX, Request, Response, line};
use std::io;
use std::thread;
use std::time::Duration;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Semaphore, mpsc, oneshot};
use warren_storage::tree::{Export, TreeError};

/// Chunks that are read and not yet written, at most.
const CHUNKS_AHEAD: usize = 4;
/// The checkpoint is written by then, or there is no backup.
const CHECKPOINT_WITHIN: Duration = Duration::from_secs(120);
/// Between two looks at it.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Who takes no chunk for so long is hung up on: while a backup runs, the tree's file keeps every page of it.
const STALL_MAX: Duration = Duration::from_secs(60);
/// The command has so long to make the file durable, once it has all of it.
const KEPT_WITHIN: Duration = Duration::from_secs(600);
/// One backup at a time: another one would read the same, and both more slowly.
static PLACES: Semaphore = Semaphore::const_new(1);

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
enum BackupError {
    #[error("another backup of this server is running; try again when it is done")]
    Busy,
    #[error(
        "this server has no leader, and what it has may not be what was acknowledged: ask one that serves \
         (`warren status`), or say --stale to have what is here"
    )]
    NotServing,
    #[error(
        "no checkpoint was written within {} s: the disk is full or slow; `warren status` and the log of warrend say more",
        CHECKPOINT_WITHIN.as_secs()
    )]
    NoCheckpoint,
    #[error("the server stops")]
    Stopping,
    #[error("the tree cannot be read: {0}")]
    Tree(#[from] TreeError),
    #[error("no thread can be had for it: {0}")]
    Thread(io::Error),
}

/// Answer [`Request::Backup`]: a line, and behind a [`Response::Backup`] the stream; then hear whether it was kept.
///
/// # Errors
/// The socket's; and when the tree cannot be read to its end, which the other side sees as a stream that breaks off.
pub(super) async fn serve(
    registry: &Registry,
    stale: bool,
    input: &mut (impl AsyncBufRead + Unpin),
    output: &mut (impl AsyncWrite + Unpin),
) -> io::Result<()> {
    let (head, mut chunks, place) = match begin(registry, stale).await {
        Ok(begun) => begun,
        Err(why) => {
            // Who comes second has not failed: the first one is at it.
            if !stale && !matches!(why, BackupError::Busy) {
                registry.room.metrics.warren_backups_failed_total.add(1);
            }
            return output.write_all(line(&Response::Refused(why.to_string())).as_bytes()).await;
        }
    };
    let (zxid, time_ms) = (head.zxid.clone(), head.time_ms);
    tracing::info!(zxid, znodes = head.znodes, "a backup begins");
    let streamed = async {
        write(output, line(&Response::Backup(Box::new(head))).as_bytes()).await?;
        let mut bytes = 0;
        while let Some(chunk) = chunks.recv().await {
            let chunk = chunk.map_err(io::Error::other)?;
            bytes += chunk.len();
            write(output, &chunk).await?;
        }
        tracing::info!(zxid, bytes, "a backup is sent");
        // The next one may begin.
        drop(place);
        kept(input).await
    };
    let kept = streamed.await;
    // What is of a server without a leader may lack what was acknowledged: it is no backup to rely on.
    if stale {
        return kept.map(drop);
    }
    match kept {
        Ok(Some(file_bytes)) => {
            tracing::info!(zxid, file_bytes, "a backup is kept");
            last_backup::note(registry, &LastBackup { time_ms, file_bytes });
            write(output, line(&Response::Done("it is noted".to_owned())).as_bytes()).await
        }
        failed => {
            registry.room.metrics.warren_backups_failed_total.add(1);
            tracing::warn!(
                zxid,
                "the backup that was begun did not become a whole file; `warren backup` said why"
            );
            failed.map(drop)
        }
    }
}

/// Size of the file, when the command tells that it is whole and durable.
async fn kept(input: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<u64>> {
    let mut line = String::new();
    let mut limited = input.take(LINE_BYTES_MAX as u64);
    match tokio::time::timeout(KEPT_WITHIN, limited.read_line(&mut line)).await {
        Ok(read) => drop(read?),
        Err(_) => return Ok(None),
    }
    Ok(match admin::parse(line.trim_end()) {
        Ok(Request::BackupKept { bytes }) => Some(bytes),
        _ => None,
    })
}

async fn write(output: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    let written = tokio::time::timeout(STALL_MAX, output.write_all(bytes)).await;
    written.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "a backup was not taken")))
}

type Chunks = mpsc::Receiver<Result<Vec<u8>, TreeError>>;

async fn begin(
    registry: &Registry,
    stale: bool,
) -> Result<(BackupHead, Chunks, tokio::sync::SemaphorePermit<'static>), BackupError> {
    let place = PLACES.try_acquire().map_err(|_| BackupError::Busy)?;
    if !stale && !registry.room.is_serving() {
        return Err(BackupError::NotServing);
    }
    if !stale {
        checkpoint(&registry.engine).await?;
    }
    let exporter = look(&registry.engine, |service| service.tree().exporter()).await?;
    let (began, head) = oneshot::channel();
    let (chunks, received) = mpsc::channel(CHUNKS_AHEAD);
    let run = move || {
        only_when_idle();
        let begun = exporter.export().and_then(|export| Ok((export.head(), export.sessions()?, export)));
        match begun {
            Ok((head, sessions, export)) => {
                if began.send(Ok((head, sessions))).is_ok() {
                    send(export, &chunks);
                }
            }
            Err(e) => drop(began.send(Err(e))),
        }
    };
    thread::Builder::new().name("warren-backup".into()).spawn(run).map_err(BackupError::Thread)?;
    let (made_of, sessions) = head.await.map_err(|_| BackupError::Stopping)??;
    let standing = registry.room.standing();
    let head = BackupHead {
        version: crate::version::VERSION.to_owned(),
        server_id: standing.server_id,
        ensemble: registry.ensemble.as_ref().map_or(String::new(), |e| e.config.name.clone()),
        zxid: format!("{:#x}", made_of.zxid.wire()),
        epoch: made_of.zxid.epoch(),
        index: made_of.position.index,
        term: made_of.position.term,
        time_ms: registry.now().wall_ms,
        znodes: made_of.znodes,
        ephemerals: made_of.ephemerals,
        sessions,
        data_bytes: made_of.data_bytes,
        digest: format!("{:#x}", made_of.digest),
        disk_reserve_bytes: u64::from(registry.config.storage.disk_reserve_mb) << 20,
    };
    Ok((head, received, place))
}

/// Until all is sent or nobody takes it.
fn send(mut export: Export, chunks: &mpsc::Sender<Result<Vec<u8>, TreeError>>) {
    while let Some(chunk) = export.next_chunk(bulk::BACKUP_SLICE_BYTES).transpose() {
        let bytes = chunk.as_ref().ok().map(Vec::len);
        match (chunks.blocking_send(chunk), bytes) {
            (Ok(()), Some(bytes)) => bulk::pause(bytes),
            _ => return,
        }
    }
}

/// Until all that is applied now is in a durable checkpoint.
async fn checkpoint(engine: &Engine) -> Result<(), BackupError> {
    engine.checkpoint_now();
    let wanted = look(engine, |service| service.tree().position()).await?;
    let until = tokio::time::Instant::now() + CHECKPOINT_WITHIN;
    let mut asked = false;
    loop {
        let (reached, idle) =
            look(engine, |service| (service.tree().checkpointed(), !service.is_checkpointing())).await?;
        if reached >= wanted {
            return Ok(());
        }
        // One that was under way when it was asked for may have been of before.
        if idle && !std::mem::replace(&mut asked, true) {
            engine.checkpoint_now();
        }
        if tokio::time::Instant::now() >= until {
            return Err(BackupError::NoCheckpoint);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn look<T: Send + 'static>(
    engine: &Engine,
    what: impl FnOnce(&crate::service::Service) -> T + Send + 'static,
) -> Result<T, BackupError> {
    let (tell, told) = oneshot::channel();
    engine.look(move |service| drop(tell.send(what(service))));
    told.await.map_err(|_| BackupError::Stopping)
}
