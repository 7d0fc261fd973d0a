//! A backup file: what a server streams, compressed and checksummed.
//!
//! ```text
//!  head:  "warrenbk" │ format u32 │ length u32 │ crc32 u32 │ Header in JSON          integers are little-endian
//!  block: 'B' │ number u32 │ raw length u32 │ stored length u32 │ crc32 u32 │ chunks of the stream, by zstd
//!  end:   'E' │ blocks u32 │ raw bytes u64 │ SHA-256 of all that is before it
//! ```
//! The crc32 of the head covers its JSON; that of a block its number, both lengths and what is stored, so that nothing is
//! decompressed which was not written. A block holds whole chunks, which have checksums of their own
//! ([`warren_storage::tree::StreamCheck`]). Nothing follows the end.

use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use serde::{Deserialize, Serialize};
use std::io::{self, Read, Write};
use warren_server::admin::BackupHead;
use warren_storage::tree::CHUNK_BYTES_MAX;

/// The version of the file that is written, and the only one that is read.
pub const FORMAT: u32 = 1;

/// A header at most, bytes.
pub const HEADER_BYTES_MAX: usize = 64 << 10;

/// A block is closed with the chunk with which it has so many bytes.
const BLOCK_BYTES: usize = 1 << 20;
/// A block at most, bytes: one chunk may be as large as a stream allows.
const BLOCK_BYTES_MAX: usize = BLOCK_BYTES + CHUNK_BYTES_MAX;
/// zstd's level: higher ones cost twice the time for the same size of what znodes hold.
const LEVEL: i32 = 1;

/// Backups of ours begin with this.
const MAGIC: [u8; 8] = *b"warrenbk";
const BLOCK: u8 = b'B';
const END: u8 = b'E';
/// Of a block, behind its mark: number, raw length, stored length, checksum.
const BLOCK_HEADER_BYTES: usize = 16;

/// What a backup says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// As the server told it.
    #[serde(flatten)]
    pub of: BackupHead,
}

/// What a whole backup came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totals {
    /// Of the stream, bytes.
    pub raw_bytes: u64,
    /// Of the file, bytes.
    pub file_bytes: u64,
    /// SHA-256 of all but itself, in hex: names this backup.
    pub sha256: String,
}

/// Why a file is no whole backup.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Something else.
    #[error("this is no backup of Warren's: it begins otherwise")]
    Foreign,
    /// Made by another version.
    #[error(
        "the backup has format {found}, and this version of warren reads {FORMAT}: use the version that made it ({by})"
    )]
    Version {
        /// In the file.
        found: u32,
        /// The version that the header names, if it can be read.
        by: String,
    },
    /// It ends too early.
    #[error(
        "the backup is cut off: it ends within {within}, and what is there is not all. It was not finished, or not copied \
         whole; take another one"
    )]
    CutOff {
        /// Such as "block 7".
        within: String,
    },
    /// What is there is not what was written.
    #[error("the backup is damaged: {what}. Nothing in it can be trusted; take another one")]
    Damaged {
        /// In words.
        what: String,
    },
    /// The file cannot be read.
    #[error("the backup cannot be read: {0}")]
    Read(#[from] io::Error),
}

fn damaged(what: impl Into<String>) -> FormatError {
    FormatError::Damaged { what: what.into() }
}

/// Writes a backup. What it is given to write to decides what becomes of a file that is not finished.
pub struct BackupWriter<W> {
    to: W,
    sum: Context,
    written: u64,
    raw_bytes: u64,
    blocks: u32,
    block: Vec<u8>,
    compressor: zstd::bulk::Compressor<'static>,
}

impl<W: Write> BackupWriter<W> {
    /// Begin with the header.
    pub fn begin(to: W, header: &Header) -> io::Result<BackupWriter<W>> {
        let json = serde_json::to_vec(header).expect("plain values are JSON");
        assert!(json.len() <= HEADER_BYTES_MAX, "a header has a few hundred bytes");
        let mut writer = BackupWriter {
            to,
            sum: Context::new(&SHA256),
            written: 0,
            raw_bytes: 0,
            blocks: 0,
            block: Vec::with_capacity(BLOCK_BYTES),
            compressor: zstd::bulk::Compressor::new(LEVEL)?,
        };
        writer.put(&MAGIC)?;
        writer.put(&FORMAT.to_le_bytes())?;
        writer.put(&(json.len() as u32).to_le_bytes())?;
        writer.put(&crc32fast::hash(&json).to_le_bytes())?;
        writer.put(&json)?;
        Ok(writer)
    }

    /// Add a chunk of the stream.
    pub fn push(&mut self, chunk: &[u8]) -> io::Result<()> {
        assert!(chunk.len() <= CHUNK_BYTES_MAX, "chunks are cut by read_chunk");
        self.block.extend_from_slice(chunk);
        if self.block.len() >= BLOCK_BYTES { self.close_block() } else { Ok(()) }
    }

    /// Bytes of the stream so far.
    pub fn raw_bytes(&self) -> u64 {
        self.raw_bytes + self.block.len() as u64
    }

    /// Write the end. What was written to comes back, not flushed.
    pub fn finish(mut self) -> io::Result<(W, Totals)> {
        if !self.block.is_empty() {
            self.close_block()?;
        }
        let (blocks, raw_bytes) = (self.blocks, self.raw_bytes);
        self.put(&[END])?;
        self.put(&blocks.to_le_bytes())?;
        self.put(&raw_bytes.to_le_bytes())?;
        let sum = self.sum.finish();
        self.to.write_all(sum.as_ref())?;
        let file_bytes = self.written + SHA256_OUTPUT_LEN as u64;
        Ok((self.to, Totals { raw_bytes, file_bytes, sha256: hex(sum.as_ref()) }))
    }

    fn close_block(&mut self) -> io::Result<()> {
        let stored = self.compressor.compress(&self.block)?;
        let mut header = [0; BLOCK_HEADER_BYTES];
        header[..4].copy_from_slice(&self.blocks.to_le_bytes());
        header[4..8].copy_from_slice(&(self.block.len() as u32).to_le_bytes());
        header[8..12].copy_from_slice(&(stored.len() as u32).to_le_bytes());
        let crc = block_crc(&header, &stored);
        header[12..].copy_from_slice(&crc.to_le_bytes());
        self.put(&[BLOCK])?;
        self.put(&header)?;
        self.put(&stored)?;
        self.raw_bytes += self.block.len() as u64;
        self.blocks += 1;
        self.block.clear();
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)?;
        self.sum.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }
}

fn block_crc(header: &[u8; BLOCK_HEADER_BYTES], stored: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header[..12]);
    crc.update(stored);
    crc.finalize()
}

/// Reads a backup and believes nothing: memory grows with what is there, not with what it says.
pub struct BackupReader<R> {
    from: R,
    sum: Context,
    read: u64,
    raw_bytes: u64,
    blocks: u32,
    header: Header,
    stored: Vec<u8>,
    decompressor: zstd::bulk::Decompressor<'static>,
    totals: Option<Totals>,
}

impl<R: Read> BackupReader<R> {
    /// Read the header.
    ///
    /// # Errors
    /// When this is no backup, or one of another version.
    pub fn begin(from: R) -> Result<BackupReader<R>, FormatError> {
        let mut reader = BackupReader {
            from,
            sum: Context::new(&SHA256),
            read: 0,
            raw_bytes: 0,
            blocks: 0,
            header: Header::default(),
            stored: Vec::new(),
            decompressor: zstd::bulk::Decompressor::new()?,
            totals: None,
        };
        let mut magic = [0; MAGIC.len()];
        match reader.take(&mut magic, "its first bytes") {
            Err(FormatError::CutOff { .. }) => return Err(FormatError::Foreign),
            taken => taken?,
        }
        if magic != MAGIC {
            return Err(FormatError::Foreign);
        }
        let mut fields = [0; 12];
        reader.take(&mut fields, "its header")?;
        let field = |at: usize| u32::from_le_bytes(fields[at..at + 4].try_into().expect("4 bytes"));
        let (format, length, crc) = (field(0), field(4) as usize, field(8));
        if length > HEADER_BYTES_MAX {
            return Err(damaged(format!("its header would have {length} bytes")));
        }
        let mut json = vec![0; length];
        let header = match reader.take(&mut json, "its header") {
            Ok(()) if crc32fast::hash(&json) == crc => serde_json::from_slice::<Header>(&json).ok(),
            Ok(()) => None,
            Err(e) => return Err(e),
        };
        if format != FORMAT {
            let by = header.map_or("unknown".to_owned(), |header| header.of.version);
            return Err(FormatError::Version { found: format, by });
        }
        reader.header = header.ok_or_else(|| damaged("its header is not what was written"))?;
        Ok(reader)
    }

    /// What the backup says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes read so far.
    pub fn position(&self) -> u64 {
        self.read
    }

    /// The chunks of the next block, one after the other, into `chunks`, whose content goes; `false` behind the last, once
    /// the end has been checked.
    ///
    /// # Errors
    /// When it is not what was written.
    pub fn next_block(&mut self, chunks: &mut Vec<u8>) -> Result<bool, FormatError> {
        chunks.clear();
        if self.totals.is_some() {
            return Ok(false);
        }
        let number = self.blocks;
        let name = format!("block {number}");
        let mut mark = [0];
        self.take(&mut mark, &name)?;
        match mark[0] {
            BLOCK => {}
            END => return self.end().map(|()| false),
            _ => return Err(damaged(format!("no block begins where {name} should"))),
        }
        let mut header = [0; BLOCK_HEADER_BYTES];
        self.take(&mut header, &name)?;
        let field = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("4 bytes"));
        let (raw, stored_bytes) = (field(4) as usize, field(8) as usize);
        if raw > BLOCK_BYTES_MAX || stored_bytes > zstd::zstd_safe::compress_bound(BLOCK_BYTES_MAX) {
            return Err(damaged(format!("{name} would have {raw} bytes, stored as {stored_bytes}")));
        }
        let mut stored = std::mem::take(&mut self.stored);
        stored.clear();
        if self.from.by_ref().take(stored_bytes as u64).read_to_end(&mut stored)? < stored_bytes {
            return Err(FormatError::CutOff { within: name });
        }
        self.note(&stored);
        if field(12) != block_crc(&header, &stored) {
            return Err(damaged(format!("the checksum of {name} is not that of its content")));
        }
        if field(0) != number {
            return Err(damaged(format!("block {} stands where {name} should", field(0))));
        }
        chunks.reserve(raw);
        match self.decompressor.decompress_to_buffer(&stored, chunks) {
            Ok(n) if n == raw => {}
            _ => return Err(damaged(format!("{name} does not decompress to {raw} bytes"))),
        }
        self.stored = stored;
        self.blocks += 1;
        self.raw_bytes += raw as u64;
        Ok(true)
    }

    /// Once all blocks were read.
    pub fn totals(&self) -> Option<&Totals> {
        self.totals.as_ref()
    }

    fn end(&mut self) -> Result<(), FormatError> {
        const NAME: &str = "its end";
        let mut fields = [0; 12];
        self.take(&mut fields, NAME)?;
        let (blocks, raw_bytes) = fields.split_at(4);
        let counted = (
            u32::from_le_bytes(blocks.try_into().expect("4 bytes")),
            u64::from_le_bytes(raw_bytes.try_into().expect("8 bytes")),
        );
        let sum = self.sum.clone().finish();
        let mut said = [0; SHA256_OUTPUT_LEN];
        self.take(&mut said, NAME)?;
        if sum.as_ref() != said {
            return Err(damaged("its digest is not that of its content"));
        }
        if counted != (self.blocks, self.raw_bytes) {
            return Err(damaged(format!("it counts {} blocks and has {}", counted.0, self.blocks)));
        }
        if self.from.read(&mut [0])? > 0 {
            return Err(damaged("something follows its end"));
        }
        self.totals =
            Some(Totals { raw_bytes: self.raw_bytes, file_bytes: self.read, sha256: hex(sum.as_ref()) });
        Ok(())
    }

    fn take(&mut self, out: &mut [u8], within: &str) -> Result<(), FormatError> {
        self.from.read_exact(out).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => FormatError::CutOff { within: within.to_owned() },
            _ => FormatError::Read(e),
        })?;
        self.note(out);
        Ok(())
    }

    fn note(&mut self, bytes: &[u8]) {
        self.sum.update(bytes);
        self.read += bytes.len() as u64;
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            of: BackupHead {
                version: "1".into(),
                ensemble: "east".into(),
                zxid: "0x5".into(),
                ..BackupHead::default()
            },
        }
    }

    /// Three blocks: chunks in one, one alone that is larger than a block, and what is left.
    fn whole() -> (Vec<u8>, Vec<u8>, Totals) {
        let mut writer = BackupWriter::begin(Vec::new(), &header()).unwrap();
        let chunks = [vec![1; 700_000], vec![2; 500_000], vec![3; 3_000_000], b"the last one".to_vec()];
        chunks.iter().for_each(|chunk| writer.push(chunk).unwrap());
        assert_eq!(writer.raw_bytes(), 4_200_012);
        let (file, totals) = writer.finish().unwrap();
        assert_eq!((totals.raw_bytes, totals.file_bytes), (4_200_012, file.len() as u64));
        (file, chunks.concat(), totals)
    }

    fn read(file: &[u8]) -> Result<(Vec<u8>, Totals), FormatError> {
        let mut reader = BackupReader::begin(file)?;
        assert_eq!(reader.header(), &header());
        let (mut all, mut block) = (Vec::new(), Vec::new());
        while reader.next_block(&mut block)? {
            all.extend_from_slice(&block);
        }
        assert!(!reader.next_block(&mut block)?);
        Ok((all, reader.totals().expect("all blocks were read").clone()))
    }

    #[test]
    fn a_backup_is_read_back() {
        let (file, chunks, totals) = whole();
        assert!(file.len() < 2_000, "{}", file.len());
        assert_eq!(read(&file).unwrap(), (chunks, totals));
    }

    #[test]
    fn whatever_is_cut_off_is_known() {
        let (file, ..) = whole();
        for length in 0..file.len() {
            let error = read(&file[..length]).expect_err("it is cut off");
            match length {
                0..8 => assert!(matches!(error, FormatError::Foreign), "{length}: {error}"),
                _ => assert!(matches!(error, FormatError::CutOff { .. }), "{length}: {error}"),
            }
        }
    }

    #[test]
    fn whatever_is_changed_is_known() {
        let (file, ..) = whole();
        for at in 0..file.len() {
            for bit in [0, 3, 7] {
                let mut bad = file.clone();
                bad[at] ^= 1 << bit;
                let error = read(&bad).expect_err("a bit is flipped").to_string();
                assert!(error.contains("backup"), "{at}: {error}");
            }
        }
        let longer = [&file[..], b"x"].concat();
        assert!(read(&longer).unwrap_err().to_string().contains("something follows its end"));
        assert!(matches!(read(b"PK\x03\x04, or what else there is"), Err(FormatError::Foreign)));
    }

    #[test]
    fn another_version_is_named() {
        let (mut file, ..) = whole();
        file[8] = 9;
        let error = BackupReader::begin(&file[..]).err().expect("it is newer").to_string();
        assert!(error.contains("format 9") && error.contains("(1)"), "{error}");
    }
}
