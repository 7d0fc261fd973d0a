//! What happened, one line an event: hashed always, printed when asked.

use std::fmt::{self, Write as _};

/// The trace of a run.
#[derive(Default)]
pub(super) struct Trace {
    hash: Hash,
    lines: u64,
    shown: bool,
}

/// FNV-1a over 64 bits.
struct Hash(u64);

impl Default for Hash {
    fn default() -> Hash {
        Hash(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}

impl fmt::Write for Hash {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        self.bytes(s.as_bytes());
        Ok(())
    }
}

impl Trace {
    /// A trace that is printed to stdout too, or only hashed.
    pub(super) fn new(shown: bool) -> Trace {
        Trace { shown, ..Trace::default() }
    }

    /// One event.
    pub(super) fn line(&mut self, now_us: u64, who: &str, what: fmt::Arguments<'_>) {
        self.lines += 1;
        self.hash.bytes(&now_us.to_le_bytes());
        let _ = self.hash.write_str(who);
        let _ = self.hash.write_fmt(what);
        if self.shown {
            println!("{:>4}.{:06}  {who:<7} {what}", now_us / 1_000_000, now_us % 1_000_000);
        }
    }

    /// Bytes that belong to the last line.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.hash.bytes(bytes);
    }

    /// The hash of everything so far.
    pub(super) fn hash(&self) -> u64 {
        self.hash.0
    }

    /// Events so far.
    pub(super) fn lines(&self) -> u64 {
        self.lines
    }
}
