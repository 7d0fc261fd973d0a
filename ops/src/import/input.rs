//! Bytes of a file as they come: counted, summed up, and never more kept than has arrived.

use adler2::Adler32;
use std::io::{self, Read};

/// Data of a znode at most, and a transaction, bytes. ZooKeeper itself reads 2 MiB, unless `jute.maxbuffer` was raised.
pub const DATA_BYTES_MAX: usize = 64 << 20;

/// A path, or a part of an ACL, at most, bytes. ZooKeeper cannot take a longer one by default either.
pub const TEXT_BYTES_MAX: usize = 1 << 20;

/// Why a file is not what it should be.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system, or what unpacks the file, refuses.
    #[error("it cannot be read to its end: {0}")]
    Read(#[from] io::Error),
    /// It is cut short.
    #[error("it ends at byte {at}, within {what}")]
    Ends {
        /// Of the unpacked file.
        at: u64,
        /// Which field.
        what: &'static str,
    },
    /// It begins with something else.
    #[error("it does not begin as {what} does")]
    Magic {
        /// Which kind of file it should be.
        what: &'static str,
    },
    /// Another version of the format.
    #[error("it has version {found} of the format, and ZooKeeper 3.4 to 3.9 write version 2")]
    Version {
        /// In the file.
        found: i32,
    },
    /// A length that cannot be.
    #[error("{what} before byte {at} has a length of {length}, and the most is {most}")]
    Length {
        /// Which field.
        what: &'static str,
        /// Behind the length.
        at: u64,
        /// In the file.
        length: i32,
        /// The limit.
        most: usize,
    },
    /// Text that is none.
    #[error("{what} before byte {at} is not UTF-8")]
    Utf8 {
        /// Which field.
        what: &'static str,
        /// Behind it.
        at: u64,
    },
    /// Null where a value is needed.
    #[error("{what} before byte {at} is null")]
    Null {
        /// Which field.
        what: &'static str,
        /// Behind it.
        at: u64,
    },
    /// The content is not what was written.
    #[error(
        "its checksum before byte {at} is {found:#x} and should be {wanted:#x}: bytes were changed or lost"
    )]
    Checksum {
        /// Behind it.
        at: u64,
        /// Of the content.
        found: u64,
        /// In the file.
        wanted: u64,
    },
    /// The tree in it does not hold together.
    #[error("{0}")]
    Tree(String),
    /// There is something behind its end.
    #[error("it goes on behind its end")]
    Trailing,
}

/// Reads fields from the front.
pub(super) struct Input<R> {
    from: R,
    sum: Adler32,
    at: u64,
}

impl<R: Read> Input<R> {
    pub(super) fn new(from: R) -> Input<R> {
        Input { from, sum: Adler32::new(), at: 0 }
    }

    /// Bytes read so far.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Adler-32 of them.
    pub(super) fn sum(&self) -> Adler32 {
        self.sum
    }

    pub(super) fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], FileError> {
        let mut bytes = [0; N];
        match self.from.read_exact(&mut bytes) {
            Ok(()) => {
                self.took(&bytes);
                Ok(bytes)
            }
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(FileError::Ends { at: self.at, what }),
            Err(e) => Err(e.into()),
        }
    }

    pub(super) fn int(&mut self, what: &'static str) -> Result<i32, FileError> {
        self.array(what).map(i32::from_be_bytes)
    }

    pub(super) fn long(&mut self, what: &'static str) -> Result<i64, FileError> {
        self.array(what).map(i64::from_be_bytes)
    }

    /// A length and so many bytes into `out`, whose content goes; `false` is null.
    pub(super) fn buffer(
        &mut self,
        what: &'static str,
        most: usize,
        out: &mut Vec<u8>,
    ) -> Result<bool, FileError> {
        out.clear();
        let length = self.int(what)?;
        if length == -1 {
            return Ok(false);
        }
        let bytes = usize::try_from(length).ok().filter(|bytes| *bytes <= most);
        let bytes = bytes.ok_or(FileError::Length { what, at: self.at, length, most })?;
        let read = self.from.by_ref().take(bytes as u64).read_to_end(out)?;
        self.took(out);
        if read < bytes { Err(FileError::Ends { at: self.at, what }) } else { Ok(true) }
    }

    /// Text that must not be null, into `out`.
    pub(super) fn text<'o>(
        &mut self,
        what: &'static str,
        out: &'o mut Vec<u8>,
    ) -> Result<&'o str, FileError> {
        let there = self.buffer(what, TEXT_BYTES_MAX, out)?;
        let at = self.at;
        if !there {
            return Err(FileError::Null { what, at });
        }
        std::str::from_utf8(out).map_err(|_| FileError::Utf8 { what, at })
    }

    /// All that is left, of which there may be no more than `most` bytes.
    pub(super) fn rest(mut self, most: usize) -> Result<Vec<u8>, FileError> {
        let mut rest = Vec::new();
        let read = self.from.by_ref().take(most as u64 + 1).read_to_end(&mut rest)?;
        if read > most { Err(FileError::Trailing) } else { Ok(rest) }
    }

    fn took(&mut self, bytes: &[u8]) {
        self.sum.write_slice(bytes);
        self.at += bytes.len() as u64;
    }
}
