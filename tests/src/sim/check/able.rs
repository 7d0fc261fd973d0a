//! No ensemble is unable to commit while a majority of its voters is there: of each half of the newest committed
//! configuration, with the disks that it names, up and reaching each other, when the healing phase ends.

use super::Violation;

const PROPERTY: &str = "a majority is enough to commit";

/// Nothing was committed for so long at the end of the healing phase, µs.
pub const STANDSTILL_US: u64 = 30_000_000;

/// A majority was there, and nothing was committed.
pub fn stuck(what: String) -> Violation {
    Violation { property: PROPERTY, what }
}
