//! The daemon's clock.

use crate::moment::Moment;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Makes [`Moment`]s. Cheap to copy; copies agree.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that starts now. It begins a day in, so that subtracting a timeout never meets zero.
    pub fn start() -> Clock {
        Clock { start: Instant::now() }
    }

    const DAY_US: u64 = 86_400_000_000;

    /// Now.
    pub fn now(&self) -> Moment {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as i64);
        Moment { us: Self::DAY_US + self.start.elapsed().as_micros() as u64, wall_ms: wall }
    }

    /// When a moment of this clock comes.
    pub fn instant(&self, moment: Moment) -> Instant {
        self.start + std::time::Duration::from_micros(moment.us.saturating_sub(Self::DAY_US))
    }
}
