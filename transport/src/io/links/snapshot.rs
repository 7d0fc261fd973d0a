//! A snapshot on its way: the one stream of a connection of its own ([`super::bulk`]), with its head before it.
//!
//! Both ends block, for they stand on plain threads beside a disk; how far one may run ahead of the other is QUIC's window for
//! a stream, and [`CHUNKS_AHEAD`]. The end of the stream is said: what breaks off before it is no snapshot. Whoever is done
//! with it closes the connection and says how it went.

use super::link::{Ended, Live};
use super::peer::Peer;
use super::{Shared, bulk};
use crate::peer::codec::{self, LENGTH_BYTES};
use crate::peer::{Lane, PeerMessage, RaftKind, RaftMessage, ServerId};
use bytes::{Bytes, BytesMut};
use quinn::{
    Connection, ConnectionError, ReadError, ReadExactError, RecvStream, SendStream, VarInt, WriteError,
};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;

/// The longest chunk, bytes.
pub const SNAPSHOT_CHUNK_BYTES_MAX: usize = 4 << 20;
/// Snapshots under way between two servers, in each direction, at most; the next one waits for [`SNAPSHOT_STALL`], then fails.
pub const SNAPSHOTS_PER_LINK_MAX: usize = 2;
/// Without any progress for so long, a snapshot is given up.
pub const SNAPSHOT_STALL: Duration = Duration::from_secs(30);
/// A length that says: that was all.
const END: u32 = 0;
/// How a connection for a snapshot is closed, in QUIC: something else came between.
pub(super) const BROKEN: VarInt = VarInt::from_u32(0);
/// It is given up.
const GIVEN_UP: VarInt = VarInt::from_u32(1);
/// Everything was received.
const RECEIVED: VarInt = VarInt::from_u32(2);
/// The lane whose limits a snapshot's head keeps.
const HEAD_LANE: Lane = Lane::Append;

/// Why a snapshot does not arrive.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// There is no link to that server.
    #[error("there is no link to server {0}")]
    Down(ServerId),
    /// The link is up, and no connection for the snapshot could be made.
    #[error("no connection for the snapshot can be made: {0}")]
    Unconnected(String),
    /// The head is no [`RaftKind::Snapshot`] within its limit.
    #[error("the head of a snapshot is not one")]
    Head,
    /// A chunk that is empty or over [`SNAPSHOT_CHUNK_BYTES_MAX`].
    #[error("a chunk of {bytes} bytes; 1 to {SNAPSHOT_CHUNK_BYTES_MAX} are possible")]
    Chunk {
        /// Its length.
        bytes: usize,
    },
    /// Nothing moved for [`SNAPSHOT_STALL`].
    #[error("the snapshot made no progress for {} s", SNAPSHOT_STALL.as_secs())]
    Stalled,
    /// The other end gave it up.
    #[error("the other server gave the snapshot up")]
    GivenUp,
    /// The link broke.
    #[error("the link broke while a snapshot was on its way")]
    Broken,
    /// The stream ended in the middle.
    #[error("the snapshot ended before its end")]
    CutOff,
}

impl From<ConnectionError> for SnapshotError {
    fn from(e: ConnectionError) -> SnapshotError {
        match e {
            ConnectionError::ApplicationClosed(close) if close.error_code == GIVEN_UP => {
                SnapshotError::GivenUp
            }
            _ => SnapshotError::Broken,
        }
    }
}

impl From<WriteError> for SnapshotError {
    fn from(e: WriteError) -> SnapshotError {
        match e {
            WriteError::ConnectionLost(e) => e.into(),
            _ => SnapshotError::Broken,
        }
    }
}

impl From<ReadError> for SnapshotError {
    fn from(e: ReadError) -> SnapshotError {
        match e {
            ReadError::ConnectionLost(e) => e.into(),
            _ => SnapshotError::Broken,
        }
    }
}

impl From<ReadExactError> for SnapshotError {
    fn from(e: ReadExactError) -> SnapshotError {
        match e {
            ReadExactError::FinishedEarly(_) => SnapshotError::CutOff,
            ReadExactError::ReadError(e) => e.into(),
        }
    }
}

async fn unless_stalled<T, E: Into<SnapshotError>>(
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, SnapshotError> {
    timeout(SNAPSHOT_STALL, work).await.map_err(|_| SnapshotError::Stalled)?.map_err(Into::into)
}

/// The sending end. Its calls block and stand on plain threads, never in a task. Dropped before
/// [`SnapshotSender::finish`], it gives the snapshot up.
#[derive(Debug)]
pub struct SnapshotSender {
    runtime: Handle,
    connection: Connection,
    stream: SendStream,
    link: Arc<Live>,
    _one_of_few: OwnedSemaphorePermit,
}

impl SnapshotSender {
    pub(super) fn open(
        shared: &Shared,
        peer: &Peer,
        link: Arc<Live>,
        head: RaftMessage,
    ) -> Result<SnapshotSender, SnapshotError> {
        if head.kind != RaftKind::Snapshot || head.snapshot.is_none() {
            return Err(SnapshotError::Head);
        }
        let head = PeerMessage::Raft(head);
        codec::size_bound(&head).map_err(|_| SnapshotError::Head)?;
        let mut opening = BytesMut::new();
        codec::encode(&head, &mut opening);
        let runtime = shared.bulk.clone();
        let (permit, connection, stream) = runtime.block_on(async {
            let room = timeout(SNAPSHOT_STALL, peer.sending.clone().acquire_owned()).await;
            let permit = room.map_err(|_| SnapshotError::Stalled)?.expect("nobody closes it");
            let connection = bulk::connect(shared, peer, &link).await?;
            let stream = unless_stalled(connection.open_uni()).await?;
            Ok::<_, SnapshotError>((permit, connection, stream))
        })?;
        let mut sender = SnapshotSender { runtime, connection, stream, link, _one_of_few: permit };
        sender.put(opening.freeze())?;
        Ok(sender)
    }

    /// Send one chunk; waits while the other end is behind.
    ///
    /// # Errors
    /// When the link broke, the other end gave up, or nothing moved for [`SNAPSHOT_STALL`]: the snapshot is lost.
    pub fn send(&mut self, chunk: Vec<u8>) -> Result<(), SnapshotError> {
        let bytes = chunk.len();
        if bytes == 0 || bytes > SNAPSHOT_CHUNK_BYTES_MAX {
            return Err(SnapshotError::Chunk { bytes });
        }
        let length = u32::try_from(bytes).expect("the limit is far below");
        self.put(Bytes::copy_from_slice(&length.to_be_bytes()))?;
        self.put(chunk.into())
    }

    /// Say that this was all, and wait until the other server's end has received it. Whether the snapshot could be used there is
    /// for raft to say.
    ///
    /// # Errors
    /// As [`SnapshotSender::send`].
    pub fn finish(mut self) -> Result<(), SnapshotError> {
        self.put(Bytes::copy_from_slice(&END.to_be_bytes()))?;
        let _ = self.stream.finish();
        let closed = self.runtime.block_on(async { timeout(SNAPSHOT_STALL, self.connection.closed()).await });
        match closed.map_err(|_| SnapshotError::Stalled)? {
            ConnectionError::ApplicationClosed(close) if close.error_code == RECEIVED => Ok(()),
            e => Err(e.into()),
        }
    }

    fn put(&mut self, mut bytes: Bytes) -> Result<(), SnapshotError> {
        self.link.note_use();
        while !bytes.is_empty() {
            // Piece by piece, so that slow is not taken for stalled.
            let piece = bytes.split_to(bytes.len().min(PIECE_BYTES));
            self.runtime.block_on(unless_stalled(self.stream.write_chunk(piece)))?;
        }
        Ok(())
    }
}

/// What is written at once, bytes.
const PIECE_BYTES: usize = 256 << 10;
/// Room for what is received begins with this at most, bytes: as much as servers send at a time, and a long row.
const BLOCK_BYTES_AHEAD: usize = 2 << 20;
/// Chunks that were received and not yet taken, at most.
const CHUNKS_AHEAD: usize = 2;

impl Drop for SnapshotSender {
    fn drop(&mut self) {
        // Of one that is closed already, because all was received, this changes nothing.
        self.connection.close(GIVEN_UP, b"");
    }
}

/// The receiving end. Its calls block and stand on plain threads, never in a task. Dropped before its end, it
/// gives the snapshot up.
///
/// Chunks are put together in a task beside the connection: the thread wakes once for a chunk, not for every packet.
#[derive(Debug)]
pub struct SnapshotReceiver {
    head: RaftMessage,
    chunks: mpsc::Receiver<Result<Vec<u8>, SnapshotError>>,
    whole: bool,
}

impl SnapshotReceiver {
    /// Once the head has come. On the thread that carries snapshots.
    pub(super) async fn open(
        connection: Connection,
        link: Arc<Live>,
        mut stream: RecvStream,
    ) -> Result<SnapshotReceiver, Ended> {
        let body = match read_block(&mut stream, HEAD_LANE.frame_bytes_max()).await {
            Ok(body) => body,
            // The sender may give up at any moment.
            Err(_) => return Err(Ended::Connection),
        };
        match codec::decode(&body, HEAD_LANE) {
            Ok(PeerMessage::Raft(head)) if head.kind == RaftKind::Snapshot && head.snapshot.is_some() => {
                let (tell, chunks) = mpsc::channel(CHUNKS_AHEAD);
                tokio::spawn(assemble(connection, link, stream, tell));
                Ok(SnapshotReceiver { head, chunks, whole: false })
            }
            Ok(_) => Err(Ended::bad_stream("a snapshot whose head is another message")),
            Err(e) => Err(Ended::Fault(e.into())),
        }
    }

    /// What the sender said of it: a [`RaftKind::Snapshot`] with its [`crate::peer::SnapshotHead`].
    pub fn head(&self) -> &RaftMessage {
        &self.head
    }

    /// The next chunk, as it was sent; `None` after the last one, and only if the snapshot is whole.
    ///
    /// # Errors
    /// When the link broke, the sender gave up, nothing came for [`SNAPSHOT_STALL`], or what came is no chunk: what was received
    /// is of no use.
    pub fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, SnapshotError> {
        if self.whole {
            return Ok(None);
        }
        // Without a word it ends only with the links themselves.
        let chunk = self.chunks.blocking_recv().unwrap_or(Err(SnapshotError::Broken))?;
        self.whole = chunk.is_empty();
        Ok((!self.whole).then_some(chunk))
    }
}

/// Give the chunks of a stream to who receives them, and an empty one when that was all; then close its connection.
async fn assemble(
    connection: Connection,
    link: Arc<Live>,
    mut stream: RecvStream,
    chunks: mpsc::Sender<Result<Vec<u8>, SnapshotError>>,
) {
    let outcome = loop {
        let chunk = tokio::select! {
            chunk = read_block(&mut stream, SNAPSHOT_CHUNK_BYTES_MAX) => chunk,
            () = chunks.closed() => break GIVEN_UP,
        };
        link.note_use();
        let (is_end, failed) = (chunk.as_ref().is_ok_and(Vec::is_empty), chunk.is_err());
        if chunks.send(chunk).await.is_err() || failed {
            break GIVEN_UP;
        }
        if is_end {
            break RECEIVED;
        }
    };
    connection.close(outcome, b"");
}

/// A length and that many bytes. Room grows with what arrives, not with what is claimed.
async fn read_block(stream: &mut RecvStream, bytes_max: usize) -> Result<Vec<u8>, SnapshotError> {
    let mut length = [0; LENGTH_BYTES];
    unless_stalled(stream.read_exact(&mut length)).await?;
    let bytes = u32::from_be_bytes(length) as usize;
    if bytes > bytes_max {
        return Err(SnapshotError::Chunk { bytes });
    }
    let mut block = Vec::with_capacity(bytes.min(BLOCK_BYTES_AHEAD));
    while block.len() < bytes {
        // As it came, one packet's part after the other: it is copied once.
        let part = unless_stalled(stream.read_chunk(bytes - block.len(), true)).await?;
        block.extend_from_slice(&part.ok_or(SnapshotError::CutOff)?.bytes);
    }
    Ok(block)
}
