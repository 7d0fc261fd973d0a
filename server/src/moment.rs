//! Time, as it is passed in.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A point in time: a monotonic clock for what waits, and the wall clock for what users are told.
///
/// The daemon makes these in `io/`, the simulator from its own clock; nothing else does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Microseconds of a clock that never goes back and starts anywhere.
    pub us: u64,
    /// Milliseconds since 1970; may jump.
    pub wall_ms: i64,
}

impl Moment {
    /// Milliseconds of the monotonic clock.
    pub const fn ms(self) -> u64 {
        self.us / 1_000
    }

    /// The one that comes first.
    #[must_use]
    pub fn earlier(self, other: Moment) -> Moment {
        if other.us < self.us { other } else { self }
    }

    /// How long since `earlier`; zero when that is later.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_micros(self.us.saturating_sub(earlier.us))
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;
    fn add(self, d: Duration) -> Moment {
        Moment { us: self.us + d.as_micros() as u64, wall_ms: self.wall_ms + d.as_millis() as i64 }
    }
}

impl Sub for Moment {
    type Output = Duration;
    fn sub(self, earlier: Moment) -> Duration {
        self.since(earlier)
    }
}
