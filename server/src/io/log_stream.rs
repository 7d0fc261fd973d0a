//! The log, streamed to the operator's command; see [`crate::records`].

use super::engine::Engine;
use super::facts::Registry;
use super::priority::step_back;
use crate::admin::{LogHead, Response, line};
use crate::records::{Outcomes, write_outcomes, write_record};
use std::io;
use std::thread;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{Semaphore, mpsc, oneshot};
use warren_storage::log::{LogError, LogReader};

/// Of the log, at a time, unless a record is larger; bytes.
const READ_BYTES: usize = 1 << 20;
/// Pieces that are read and not yet written, at most.
const PIECES_AHEAD: usize = 2;
/// Who takes nothing for so long is hung up on.
const STALL_MAX: Duration = Duration::from_secs(60);
/// So many at a time.
static PLACES: Semaphore = Semaphore::const_new(2);
/// How far behind the threads that clients wait for.
const NICENESS: i32 = 15;

/// Answer [`crate::admin::Request::Log`]: a line, and behind a [`Response::Log`] what is in the log by now.
///
/// # Errors
/// The socket's; and when the log cannot be read to its end, which the other side sees as a stream that breaks off.
pub(super) async fn serve(registry: &Registry, output: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    let refused = |why: &str| line(&Response::Refused(why.to_owned()));
    let Ok(_place) = PLACES.try_acquire() else {
        let text = refused("others read the log already; try again when they are done");
        return output.write_all(text.as_bytes()).await;
    };
    let (tell, told) = oneshot::channel();
    registry.engine.look(move |service| {
        // Nobody waits any more when the connection is gone.
        let _ = tell.send(service.tree().position().index);
    });
    let Ok(committed) = told.await else {
        return output.write_all(refused("the server stops").as_bytes()).await;
    };
    let (engine, reader) = (registry.engine.clone(), registry.engine.log_reader.clone());
    let (first, last) = (reader.first_index(), reader.last_index());
    let (pieces, mut received) = mpsc::channel(PIECES_AHEAD);
    let run = move || {
        step_back(NICENESS);
        read(&engine, &reader, first, last, &pieces);
    };
    thread::Builder::new().name("warren-log-read".into()).spawn(run)?;
    write(output, line(&Response::Log(LogHead { first, last, committed })).as_bytes()).await?;
    while let Some(piece) = received.recv().await {
        write(output, &piece.map_err(io::Error::other)?).await?;
    }
    Ok(())
}

async fn write(output: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    let written = tokio::time::timeout(STALL_MAX, output.write_all(bytes)).await;
    written.unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the log was not taken")))
}

/// Until all is sent or nobody takes it. What is purged meanwhile is left out.
fn read(
    engine: &Engine,
    reader: &LogReader,
    first: u64,
    last: u64,
    pieces: &mpsc::Sender<Result<Vec<u8>, LogError>>,
) {
    let mut next = first;
    while next <= last {
        let records = match reader.read(next, last + 1, READ_BYTES) {
            Ok(records) => records,
            Err(LogError::Purged { first_index, .. }) if first_index > next => {
                next = first_index;
                continue;
            }
            Err(e) => return drop(pieces.blocking_send(Err(e))),
        };
        // Another leader may have cut off what was not committed.
        let Some(newest) = records.last() else { break };
        let known = outcomes(engine, next, newest.index);
        next = newest.index + 1;
        let mut piece = Vec::new();
        let mut known = known.iter().peekable();
        for record in &records {
            if let Some((index, outcomes)) = known.next_if(|(index, _)| *index == record.index) {
                write_outcomes(&mut piece, *index, outcomes);
            }
            write_record(&mut piece, Some(record));
        }
        if pieces.blocking_send(Ok(piece)).is_err() {
            return;
        }
    }
    let mut end = Vec::new();
    write_record(&mut end, None);
    let _ = pieces.blocking_send(Ok(end));
}

/// What the service remembers of these entries; nothing while it stops.
fn outcomes(engine: &Engine, first: u64, last: u64) -> Vec<(u64, Outcomes)> {
    let (tell, told) = oneshot::channel();
    engine.look(move |service| drop(tell.send(service.history().outcomes(first, last))));
    told.blocking_recv().unwrap_or_default()
}
