//! How much of the log stays when a checkpoint has what is in it.
//!
//! Whoever was away, for a restart or behind a broken link, should find the log as it left it, and not need the whole tree: so the
//! latest of it stays on every server, be it led or leading, and more of it while a server that is there is behind. On a disk that
//! fills up the log gives way long before the reserve is touched: less of it stays, and checkpoints come sooner.

/// The latest records that stay, bytes at most.
const LATEST_BYTES_MAX: u64 = 64 << 20;
/// The log is kept for servers that are there and behind, up to this many bytes.
const WANTED_BYTES_MAX: u64 = 512 << 20;
/// A checkpoint is asked for when so much was logged since the last one, bytes: refused requests are logged too, and fill no overlay
/// that would ask for one. It also bounds what a start replays.
const LOGGED_BYTES_MAX: u64 = 128 << 20;
/// The same on a disk below its reserve, which the log must not eat.
const LOGGED_BYTES_MAX_FULL: u64 = 4 << 20;
/// Shares of what is free above the reserve. Records take several times their bytes on the disk, where they come one by one.
const LATEST_SHARE: u64 = 16;
const WANTED_SHARE: u64 = 4;
const LOGGED_SHARE: u64 = 16;

/// What may stay, by what is free on the disk above the reserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retention {
    /// The latest records, bytes of them.
    pub(crate) latest_bytes: u64,
    /// Also what a server that is there has not yet, of the latest records that take so many bytes.
    pub(crate) wanted_bytes: u64,
    /// So much may be logged between two checkpoints, bytes.
    pub(crate) logged_bytes: u64,
}

impl Retention {
    pub(crate) fn with(above_reserve_bytes: u64) -> Retention {
        Retention {
            latest_bytes: (above_reserve_bytes / LATEST_SHARE).min(LATEST_BYTES_MAX),
            wanted_bytes: (above_reserve_bytes / WANTED_SHARE).min(WANTED_BYTES_MAX),
            logged_bytes: (above_reserve_bytes / LOGGED_SHARE).clamp(LOGGED_BYTES_MAX_FULL, LOGGED_BYTES_MAX),
        }
    }

    /// The last index that need not stay. `wanted_from`: the first that a server that is there has not yet; `latest_from`: the
    /// first of the latest records that take so many bytes.
    pub(crate) fn through(self, checkpoint: u64, wanted_from: u64, latest_from: impl Fn(u64) -> u64) -> u64 {
        let wanted_from = wanted_from.max(latest_from(self.wanted_bytes));
        checkpoint.min(wanted_from.min(latest_from(self.latest_bytes)).saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records of 1 MiB each, up to this index.
    const LAST: u64 = 5_000;

    fn latest_from(bytes: u64) -> u64 {
        LAST + 1 - bytes.div_ceil(1 << 20)
    }

    #[test]
    fn the_latest_records_stay_and_those_that_a_server_lacks_if_they_are_not_too_many() {
        let retention = Retention::with(1 << 40);
        let (latest, most) = (latest_from(LATEST_BYTES_MAX), latest_from(WANTED_BYTES_MAX));
        assert_eq!(retention.through(4_990, u64::MAX, latest_from), latest - 1);
        assert_eq!(retention.through(4_990, LAST, latest_from), latest - 1);
        assert_eq!(retention.through(4_990, 4_800, latest_from), 4_799);
        assert_eq!(retention.through(4_990, 1, latest_from), most - 1);
        assert_eq!(
            retention.through(4_000, u64::MAX, latest_from),
            4_000,
            "the rest is in no checkpoint yet"
        );
    }

    #[test]
    fn the_fuller_the_disk_the_less_stays_and_the_sooner_checkpoints_come() {
        let full = Retention::with(0);
        assert_eq!((full.latest_bytes, full.wanted_bytes, full.logged_bytes), (0, 0, LOGGED_BYTES_MAX_FULL));
        assert_eq!(full.through(4_990, 1, latest_from), 4_990);
        let some = Retention::with(800 << 20);
        assert_eq!(
            (some.latest_bytes >> 20, some.wanted_bytes >> 20, some.logged_bytes >> 20),
            (50, 200, 50)
        );
        assert_eq!(Retention::with(u64::MAX).logged_bytes, LOGGED_BYTES_MAX);
    }
}
