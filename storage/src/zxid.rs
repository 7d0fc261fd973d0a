//! Transaction ids.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A ZooKeeper transaction id: the epoch in the high 32 bits, a counter within the epoch in the low 32.
///
/// It is a pure function of the committed log: a `NewEpoch` entry makes it `(epoch + 1, 0)`, every write,
/// failed ones included, counts one.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Zxid(pub u64);

impl Zxid {
    /// Before any transaction.
    pub const ZERO: Zxid = Zxid(0);
    /// When the counter reaches this, the leader logs a `NewEpoch` before it takes another write. It stays far
    /// below 2^32 so that what is already in flight still fits.
    pub const COUNTER_HIGH_WATER: u32 = u32::MAX - (1 << 24);

    /// The id that has this epoch and counter.
    pub const fn new(epoch: u32, counter: u32) -> Zxid {
        Zxid((epoch as u64) << 32 | counter as u64)
    }

    /// Which leadership produced it.
    pub const fn epoch(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Which write within its epoch.
    pub const fn counter(self) -> u32 {
        self.0 as u32
    }

    /// The id of the next write in the same epoch.
    ///
    /// # Panics
    /// When the counter would run into the epoch: the leader's `NewEpoch` came too late, which is our own bug.
    pub fn next(self) -> Zxid {
        assert!(self.counter() != u32::MAX, "zxid counter overflow at {self}");
        Zxid(self.0 + 1)
    }

    /// As the wire has it.
    pub const fn wire(self) -> i64 {
        self.0 as i64
    }

    /// From the wire. Negative values, which no server gives, become [`Zxid::ZERO`].
    pub const fn from_wire(v: i64) -> Zxid {
        if v < 0 { Zxid(0) } else { Zxid(v as u64) }
    }
}

impl fmt::Display for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epoch_and_counter_are_the_two_halves() {
        let z = Zxid::new(7, 9);
        assert_eq!((z.epoch(), z.counter(), z.wire()), (7, 9, 0x7_0000_0009));
        assert_eq!(z.next(), Zxid::new(7, 10));
        assert!(Zxid::new(8, 0) > Zxid::new(7, u32::MAX));
    }
}
