//! The tree as a stream of chunks: what a server far behind is sent, and what a backup is.
//!
//! ```text
//!  chunk: length u32 │ crc32 u32 │ number u32 │ kind u8 │ body            little-endian; the length is the body's
//!  kinds: head, then rows of the tables, one table after the other in the order of Kind, then end
//!   head: magic │ version u32 │ Head in postcard
//!   rows: (key length u32 │ value length u32 │ key │ value)*              as in tree.redb, in the order of keys
//!    end: how many rows of each table, in postcard
//! ```
//! The checksum covers number, kind and body, and goes on from the one of the chunk before. So a chunk that is
//! missing, comes twice or is from another stream is found out where it stands.

use super::checkpoint;
use super::error::ImportError;
use std::io::{self, Read};

/// The version of the stream that is written, and the only one that is read. Formats of tables have theirs in
/// their names, see `tables.rs`.
pub const STREAM_VERSION: u32 = 1;

/// Bytes of a chunk before its body.
pub const CHUNK_HEADER_BYTES: usize = 13;

/// Bytes of a chunk, header included: more than the largest packet that a client may be allowed to send, as a row
/// is never split.
pub const CHUNK_BYTES_MAX: usize = 257 << 20;

/// Streams of ours begin with this.
const MAGIC: [u8; 8] = *b"warrents";

/// What a chunk holds. The order is that of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Head,
    Acls,
    Sessions,
    Znodes,
    Children,
    Ephemerals,
    Timed,
    End,
}

/// How many kinds of rows there are.
pub(super) const TABLES: usize = 6;

impl Kind {
    pub(super) const ALL: [Kind; TABLES + 2] = [
        Kind::Head,
        Kind::Acls,
        Kind::Sessions,
        Kind::Znodes,
        Kind::Children,
        Kind::Ephemerals,
        Kind::Timed,
        Kind::End,
    ];

    /// The kind that comes after this one's chunks.
    pub(super) fn next(self) -> Kind {
        Self::ALL[self as usize + 1]
    }

    /// Where this table's number of rows stands in the end.
    pub(super) fn table(self) -> usize {
        self as usize - 1
    }
}

/// What the first chunk says.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct StreamHead {
    /// `tables::FORMAT`.
    pub(super) format: u32,
    pub(super) head: checkpoint::Head,
}

/// What the last chunk says.
#[derive(Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct End {
    pub(super) rows: [u64; TABLES],
}

/// The place in a stream, which both ends keep in step.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// Of the next chunk.
    pub(super) number: u32,
    /// Checksum of the last one.
    chain: u32,
}

impl Place {
    /// A chunk whose body is to be appended.
    pub(super) fn begin(bytes: usize) -> Vec<u8> {
        let mut chunk = Vec::with_capacity(CHUNK_HEADER_BYTES + bytes);
        chunk.resize(CHUNK_HEADER_BYTES, 0);
        chunk
    }

    /// The header of a chunk whose body is complete.
    pub(super) fn seal(&mut self, chunk: &mut [u8], kind: Kind) {
        assert!(chunk.len() <= CHUNK_BYTES_MAX, "a row is larger than what a client may send");
        let body = (chunk.len() - CHUNK_HEADER_BYTES) as u32;
        chunk[..4].copy_from_slice(&body.to_le_bytes());
        chunk[8..12].copy_from_slice(&self.number.to_le_bytes());
        chunk[12] = kind as u8;
        self.chain = self.sum(&chunk[8..]);
        chunk[4..8].copy_from_slice(&self.chain.to_le_bytes());
        self.number += 1;
    }

    /// Back from [`Place::seal`].
    pub(super) fn open<'a>(&mut self, chunk: &'a [u8]) -> Result<(Kind, &'a [u8]), String> {
        let (header, body) = chunk
            .split_first_chunk::<CHUNK_HEADER_BYTES>()
            .ok_or_else(|| format!("it has {} bytes, which is less than a header", chunk.len()))?;
        let field = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("4 bytes"));
        if chunk.len() > CHUNK_BYTES_MAX {
            return Err(oversize(chunk.len()));
        }
        if field(0) as usize != body.len() {
            return Err(format!("it says that it has {} bytes and has {}", field(0), body.len()));
        }
        if field(8) != self.number {
            return Err(format!("it is chunk {}", field(8)));
        }
        let sum = self.sum(&chunk[8..]);
        if field(4) != sum {
            return Err("its checksum is not that of its content behind the chunk before".to_owned());
        }
        let kind = Kind::ALL.get(usize::from(header[12])).ok_or("its kind is unknown")?;
        self.chain = sum;
        self.number += 1;
        Ok((*kind, body))
    }

    fn sum(&self, content: &[u8]) -> u32 {
        let mut sum = crc32fast::Hasher::new_with_initial(self.chain);
        sum.update(content);
        sum.finalize()
    }
}

fn oversize(bytes: usize) -> String {
    format!("it has {bytes} bytes, and no chunk has more than {CHUNK_BYTES_MAX}")
}

/// The body of the first chunk.
pub(super) fn put_head(chunk: &mut Vec<u8>, head: &StreamHead) {
    chunk.extend_from_slice(&MAGIC);
    chunk.extend_from_slice(&STREAM_VERSION.to_le_bytes());
    chunk.extend_from_slice(&checkpoint::encode(head));
}

/// Back from [`put_head`].
pub(super) fn take_head(body: &[u8]) -> Result<StreamHead, ImportError> {
    let refused = |why: String| ImportError::Refused { number: 0, why };
    let body =
        body.strip_prefix(&MAGIC).ok_or_else(|| refused("it begins no stream of a tree".to_owned()))?;
    let (version, body) =
        body.split_first_chunk::<4>().ok_or_else(|| refused("it has no version".to_owned()))?;
    let found = u32::from_le_bytes(*version);
    if found != STREAM_VERSION {
        return Err(ImportError::Version { found, known: STREAM_VERSION });
    }
    postcard::from_bytes(body).map_err(|error| refused(format!("its head does not decode: {error}")))
}

/// Append a row.
pub(super) fn put_row(chunk: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let length = |part: &[u8]| u32::try_from(part.len()).expect("redb keeps no row this long").to_le_bytes();
    chunk.extend_from_slice(&length(key));
    chunk.extend_from_slice(&length(value));
    chunk.extend_from_slice(key);
    chunk.extend_from_slice(value);
}

/// The next row of a body, which is shortened by it; `None` at its end.
#[allow(clippy::type_complexity, reason = "key and value")]
pub(super) fn take_row<'a>(body: &mut &'a [u8]) -> Result<Option<(&'a [u8], &'a [u8])>, String> {
    if body.is_empty() {
        return Ok(None);
    }
    let cut = || "it ends within a row".to_owned();
    let (lengths, rest) = body.split_first_chunk::<8>().ok_or_else(cut)?;
    let length = |at: usize| u32::from_le_bytes(lengths[at..at + 4].try_into().expect("4 bytes")) as usize;
    let (key, rest) = rest.split_at_checked(length(0)).ok_or_else(cut)?;
    let (value, rest) = rest.split_at_checked(length(4)).ok_or_else(cut)?;
    *body = rest;
    Ok(Some((key, value)))
}

/// Read the next chunk into `chunk`, whose content goes. Memory grows with what arrives, not with what the header says.
///
/// # Errors
/// [`io::ErrorKind::UnexpectedEof`] when the bytes end before the chunk does, [`io::ErrorKind::InvalidData`] when it
/// would be larger than [`CHUNK_BYTES_MAX`].
pub fn read_chunk(from: &mut impl Read, chunk: &mut Vec<u8>) -> io::Result<()> {
    chunk.clear();
    chunk.resize(CHUNK_HEADER_BYTES, 0);
    from.read_exact(chunk)?;
    let body = u32::from_le_bytes(chunk[..4].try_into().expect("4 bytes")) as usize;
    if CHUNK_HEADER_BYTES + body > CHUNK_BYTES_MAX {
        let why = oversize(CHUNK_HEADER_BYTES + body);
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a chunk is refused: {why}")));
    }
    if from.by_ref().take(body as u64).read_to_end(chunk)? < body {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the stream ends within a chunk"));
    }
    Ok(())
}
