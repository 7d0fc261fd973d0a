//! The socket of the operator's command line; see [`crate::admin`].

use super::facts::Registry;
use super::rebuild::begin_anew;
use super::{backup, log_stream};
use crate::admin::{self, CONNECTIONS_MAX, LINE_BYTES_MAX, Request, Response, SOCKET};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

/// Who asks nothing for so long is hung up on.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// The socket's file, removed when this is dropped.
pub(super) struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Listen in the data folder. What a former run left there is replaced: the store's lock says that it is gone.
pub(super) fn serve(registry: Arc<Registry>, data_dir: &Path) -> io::Result<Socket> {
    let path = data_dir.join(SOCKET);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    // Bound under another name and renamed once only its owner may open it.
    let unready = data_dir.join(format!("{SOCKET}.new"));
    let _ = std::fs::remove_file(&unready);
    let listener = UnixListener::bind(&unready)?;
    std::fs::set_permissions(&unready, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&unready, &path)?;
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // Out of descriptors, most likely: not at once again.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let Ok(place) = places.clone().try_acquire_owned() else { continue };
            let registry = registry.clone();
            tokio::spawn(async move {
                if let Err(e) = talk(&registry, stream).await {
                    tracing::debug!("an operator's connection ended: {e}");
                }
                drop(place);
            });
        }
    });
    Ok(Socket(path))
}

async fn talk(registry: &Registry, stream: UnixStream) -> io::Result<()> {
    let (input, mut output) = stream.into_split();
    let mut input = BufReader::new(input);
    let mut line = String::new();
    loop {
        line.clear();
        let mut limited = (&mut input).take(LINE_BYTES_MAX as u64);
        match tokio::time::timeout(SILENCE_MAX, limited.read_line(&mut line)).await {
            Ok(Ok(0)) | Err(_) => return Ok(()),
            Ok(read) => read?,
        };
        let response = match admin::parse(line.trim_end()) {
            // The connection is spent on it.
            Ok(Request::Backup { stale }) => {
                return backup::serve(registry, stale, &mut input, &mut output).await;
            }
            Ok(Request::Log) => return log_stream::serve(registry, &mut output).await,
            Ok(Request::Restart) => {
                let response = registry.restart().await;
                output.write_all(admin::line(&response).as_bytes()).await?;
                output.shutdown().await?;
                if matches!(response, Response::Done(_)) {
                    registry.restart.notify_one();
                }
                return Ok(());
            }
            Ok(request) => registry.administer(request).await,
            Err(why) => Response::Refused(why),
        };
        output.write_all(admin::line(&response).as_bytes()).await?;
        if registry.begins_anew.load(Ordering::Acquire) {
            output.shutdown().await?;
            begin_anew(registry.ensemble.as_ref());
        }
        if !line.ends_with('\n') {
            return Ok(());
        }
    }
}
