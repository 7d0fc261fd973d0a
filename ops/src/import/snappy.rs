//! What ZooKeeper writes with `snapshot.compression.method=snappy`: blocks, in a frame of the Java library's own.
//!
//! ```text
//!  0x82 "SNAPPY" 0x00 │ version int │ least version int │ (length int │ block)*
//! ```

use std::io::{self, Read};

const MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
/// A block at most, packed, bytes. The library makes blocks of 32 KiB; packed ones are hardly larger.
const BLOCK_BYTES_MAX: usize = 1 << 20;
/// A block at most, unpacked, bytes.
const UNPACKED_BYTES_MAX: usize = 16 << 20;

/// Unpacks while it is read.
pub struct SnappyReader<R> {
    from: R,
    begun: bool,
    packed: Vec<u8>,
    unpacked: Vec<u8>,
    at: usize,
}

fn bad(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.into())
}

impl<R: Read> SnappyReader<R> {
    /// Read from `from`.
    pub fn new(from: R) -> SnappyReader<R> {
        SnappyReader { from, begun: false, packed: Vec::new(), unpacked: Vec::new(), at: 0 }
    }

    /// The next block; `false` at the end.
    fn step(&mut self) -> io::Result<bool> {
        if !self.begun {
            let mut header = [0; 16];
            self.from.read_exact(&mut header)?;
            if header[..8] != *MAGIC {
                return Err(bad("it is not packed with snappy, as its name says"));
            }
            self.begun = true;
        }
        let mut length = [0; 4];
        if self.from.read(&mut length[..1])? == 0 {
            return Ok(false);
        }
        self.from.read_exact(&mut length[1..])?;
        let length = i32::from_be_bytes(length);
        let bytes = usize::try_from(length).ok().filter(|bytes| *bytes <= BLOCK_BYTES_MAX);
        let bytes = bytes.ok_or_else(|| bad(format!("a packed block has {length} bytes")))?;
        self.packed.clear();
        if self.from.by_ref().take(bytes as u64).read_to_end(&mut self.packed)? < bytes {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let unpacked = snap::raw::decompress_len(&self.packed).map_err(|e| bad(e.to_string()))?;
        if unpacked > UNPACKED_BYTES_MAX {
            return Err(bad(format!("a block has {unpacked} bytes")));
        }
        self.unpacked.clear();
        self.unpacked.resize(unpacked, 0);
        self.at = 0;
        let written = snap::raw::Decoder::new().decompress(&self.packed, &mut self.unpacked);
        written.map_err(|e| bad(e.to_string()))?;
        Ok(true)
    }
}

impl<R: Read> Read for SnappyReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.unpacked.len() {
            if out.is_empty() || !self.step()? {
                return Ok(0);
            }
        }
        let bytes = out.len().min(self.unpacked.len() - self.at);
        out[..bytes].copy_from_slice(&self.unpacked[self.at..self.at + bytes]);
        self.at += bytes;
        Ok(bytes)
    }
}
