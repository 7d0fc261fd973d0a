//! Where a packet begins and ends on the stream of a connection (between steps ① and ② of the walk).
//!
//! A packet is an `int` length and that many bytes. Before the session exists, the four bytes of a length may
//! be a command in four letters instead; those are the server's. Facts from ZooKeeper 3.9's `NIOServerCnxn.readLength`.

use bytes::{Buf, BytesMut};

/// ZooKeeper's default for the largest packet, in bytes without the length itself (`jute.maxbuffer`). Servers
/// and clients use the same one, each for what it receives.
pub const PACKET_BYTES_MAX: usize = 0xf_ffff;

/// A length that no packet has: the connection is closed without a reply, as in ZooKeeper ("Len error").
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Below zero.
    #[error("{0} is not a packet's length")]
    Negative(i32),
    /// Above the limit. A packet of exactly the limit is taken.
    #[error("a packet of {length} bytes is over the limit of {limit}")]
    TooLarge {
        /// What the packet says.
        length: usize,
        /// What we take.
        limit: usize,
    },
}

/// The length that these four bytes announce, in bytes without themselves; at most `packet_bytes_max`.
pub fn frame_length(prefix: [u8; 4], packet_bytes_max: usize) -> Result<usize, FrameError> {
    let length = i32::from_be_bytes(prefix);
    match usize::try_from(length) {
        Err(_) => Err(FrameError::Negative(length)),
        Ok(length) if length > packet_bytes_max => {
            Err(FrameError::TooLarge { length, limit: packet_bytes_max })
        }
        Ok(length) => Ok(length),
    }
}

/// Take the next whole packet, without its length, off the front of what was received; `None` when more must
/// be read first. A bad length is refused as soon as its four bytes are there.
///
/// Nothing is copied: the packet shares the buffer's memory. An announced length reserves nothing, so that a
/// connection costs what it sent and not what it promised; see [`bytes_missing`] for reading exactly enough.
pub fn take_frame(received: &mut BytesMut, packet_bytes_max: usize) -> Result<Option<BytesMut>, FrameError> {
    let Some(prefix) = received.first_chunk() else {
        return Ok(None);
    };
    let length = frame_length(*prefix, packet_bytes_max)?;
    if received.len() - 4 < length {
        return Ok(None);
    }
    received.advance(4);
    Ok(Some(received.split_to(length)))
}

/// How many bytes [`take_frame`] still waits for: 0 when a whole packet (or a bad length) is there.
pub fn bytes_missing(received: &[u8], packet_bytes_max: usize) -> usize {
    match received.first_chunk() {
        None => 4 - received.len(),
        Some(prefix) => match frame_length(*prefix, packet_bytes_max) {
            Ok(length) => (4 + length).saturating_sub(received.len()),
            Err(_) => 0,
        },
    }
}

/// Begin a packet at the end of `out`; give what this returns to [`finish_frame`].
pub(crate) fn begin_frame(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    start
}

/// The packet that began at `start` ends here: put its length in front of it.
///
/// # Panics
/// When it does not fit an `int`. What bounds a reply is the server's to keep far below.
pub(crate) fn finish_frame(out: &mut [u8], start: usize) {
    let length = i32::try_from(out.len() - start - 4).expect("a packet fits an int");
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}
