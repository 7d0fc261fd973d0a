//! A file of the transaction log: `FileTxnLog` of ZooKeeper 3.4 to 3.9.
//!
//! ```text
//!  magic "ZKLG" │ version int │ dbid long
//!  (Adler-32 of the bytes as a long │ length int │ bytes │ 0x42)*     then zeros, as space is taken ahead
//! ```
//! A server that was killed leaves a record cut short, and its next run begins a new file: that is an end like any other.
//! A bad record with more behind it is damage.

use super::input::{DATA_BYTES_MAX, FileError};
use super::snapshot::VERSION;
use std::io::{self, Read};

const MAGIC: &[u8; 4] = b"ZKLG";
const RECORD_END: u8 = 0x42;
/// Bytes that are looked at in one piece for something other than zeros.
const SCAN_BYTES: usize = 64 << 10;

/// What comes next in a log file.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<'a> {
    /// A transaction, whose checksum is right.
    Transaction(&'a [u8]),
    /// The end, as ZooKeeper leaves it.
    End,
    /// The end, and the beginning of something that was not written as a whole.
    Torn {
        /// Where it begins, bytes.
        at: u64,
    },
    /// Something that was never written like this, and more behind it.
    Damaged {
        /// Where it begins, bytes.
        at: u64,
        /// In words.
        why: String,
    },
}

/// Reads one file from the front.
pub struct LogReader<R> {
    from: R,
    at: u64,
    bytes: Vec<u8>,
    over: bool,
}

impl<R: Read> LogReader<R> {
    /// Read the header; `None` for a file whose header was never written as a whole.
    ///
    /// # Errors
    /// When it is no log file.
    pub fn open(mut from: R) -> Result<Option<LogReader<R>>, FileError> {
        let mut header = [0; 16];
        if fill(&mut from, &mut header)? < header.len() {
            return Ok(None);
        }
        if header[..4] != *MAGIC {
            return Err(FileError::Magic { what: "a transaction log of ZooKeeper's" });
        }
        match i32::from_be_bytes(header[4..8].try_into().expect("4 bytes")) {
            VERSION => Ok(Some(LogReader { from, at: 16, bytes: Vec::new(), over: false })),
            found => Err(FileError::Version { found }),
        }
    }

    /// The next record. After anything else than a transaction it is over.
    ///
    /// # Errors
    /// The system's.
    pub fn next_record(&mut self) -> io::Result<Next<'_>> {
        if std::mem::replace(&mut self.over, true) {
            return Ok(Next::End);
        }
        let at = self.at;
        let mut head = [0; 12];
        match fill(&mut self.from, &mut head)? {
            0 => return Ok(Next::End),
            12 => {}
            read => {
                let zeros = head[..read].iter().all(|byte| *byte == 0);
                return Ok(if zeros { Next::End } else { Next::Torn { at } });
            }
        }
        let sum = u64::from_be_bytes(head[..8].try_into().expect("8 bytes"));
        let length = i32::from_be_bytes(head[8..].try_into().expect("4 bytes"));
        if (sum, length) == (0, 0) {
            return Ok(match self.only_zeros()? {
                true => Next::End,
                false => Next::Damaged { at, why: "zeros, and then more".to_owned() },
            });
        }
        let bytes = usize::try_from(length).ok().filter(|bytes| (1..=DATA_BYTES_MAX).contains(bytes));
        let Some(bytes) = bytes else {
            let why = format!("a record of {length} bytes, where 1 to {DATA_BYTES_MAX} are possible");
            return self.bad(at, why);
        };
        self.bytes.clear();
        let read = self.from.by_ref().take(bytes as u64).read_to_end(&mut self.bytes)?;
        let mut end = [0];
        if read < bytes || fill(&mut self.from, &mut end)? < 1 {
            return Ok(Next::Torn { at });
        }
        if end[0] != RECORD_END {
            return self
                .bad(at, format!("a record that ends with {:#04x} and not {RECORD_END:#04x}", end[0]));
        }
        let found = u64::from(adler2::adler32_slice(&self.bytes));
        if found != sum {
            return self.bad(at, format!("a record whose checksum is {found:#x} and should be {sum:#x}"));
        }
        self.at += 13 + bytes as u64;
        self.over = false;
        Ok(Next::Transaction(&self.bytes))
    }

    fn bad(&mut self, at: u64, why: String) -> io::Result<Next<'_>> {
        Ok(if self.only_zeros()? { Next::Torn { at } } else { Next::Damaged { at, why } })
    }

    fn only_zeros(&mut self) -> io::Result<bool> {
        let mut piece = vec![0; SCAN_BYTES];
        loop {
            match self.from.read(&mut piece) {
                Ok(0) => return Ok(true),
                Ok(read) if piece[..read].iter().any(|byte| *byte != 0) => return Ok(false),
                Err(e) if e.kind() != io::ErrorKind::Interrupted => return Err(e),
                _ => {}
            }
        }
    }
}

/// Read until `out` is full or there is no more; how many bytes came.
fn fill(from: &mut impl Read, out: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < out.len() {
        match from.read(&mut out[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}
