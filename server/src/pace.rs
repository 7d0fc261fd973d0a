//! How fast work may go that clients are not to feel: so many bytes a second, slice by slice, with a pause behind each in which
//! whoever waits for a processor or a disk has it.

use crate::moment::Moment;
use std::time::Duration;

/// Who is late by no more than this catches up: it had no processor meanwhile. What is lost beyond that is not made up for, as
/// a longer burst would fill the queues of network and disk.
const LATE_US_MAX: u64 = 20_000;

/// One pace, for all that keep it.
#[derive(Debug)]
pub struct Pace {
    bytes_per_s: u64,
    /// When all that was taken so far is done, at this pace; microseconds of [`Moment::us`].
    due_us: u64,
}

impl Pace {
    /// At most so many bytes a second; not 0.
    pub const fn new(bytes_per_s: u64) -> Pace {
        assert!(bytes_per_s > 0, "a pace goes on");
        Pace { bytes_per_s, due_us: 0 }
    }

    /// So many bytes are done: how long to wait before the next.
    pub fn took(&mut self, now: Moment, bytes: u64) -> Duration {
        let lasts_us = bytes.saturating_mul(1_000_000) / self.bytes_per_s;
        self.due_us = self.due_us.max(now.us.saturating_sub(LATE_US_MAX)).saturating_add(lasts_us);
        Duration::from_micros(self.due_us.saturating_sub(now.us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLICE_BYTES: u64 = 1_000;

    /// Takes a slice, and gives the pause in microseconds. A thousand bytes last a millisecond.
    fn pause_us(pace: &mut Pace, us: u64) -> u64 {
        pace.took(Moment { us, wall_ms: 0 }, SLICE_BYTES).as_micros() as u64
    }

    #[test]
    fn so_many_bytes_take_a_second_however_long_each_slice_takes() {
        let mut pace = Pace::new(1_000_000);
        let began = 86_400_000_000;
        let mut us = began;
        // The first ones come late, as there was nothing before.
        while pause_us(&mut pace, us) == 0 {}
        let steady = us;
        for slice in 0..1_000 {
            // Some take a while themselves, and waking up always takes longer than was asked for.
            us += [0, 300, 900][slice % 3];
            us += pause_us(&mut pace, us) + 70;
        }
        let ms = (us - steady) as f64 / 1_000.0;
        assert!((997.0..=1_003.0).contains(&ms), "{ms} ms for a thousand slices of a millisecond");
    }

    #[test]
    fn after_a_stall_there_is_no_burst() {
        let mut pace = Pace::new(1_000_000);
        let mut us = 86_400_000_000;
        while pause_us(&mut pace, us) == 0 {}
        us += 5_000_000;
        let at_once = (0..100).take_while(|_| pause_us(&mut pace, us) == 0).count() as u64;
        assert_eq!(at_once, LATE_US_MAX / 1_000, "as many as fit into what is made up for");
    }

    #[test]
    fn two_that_keep_one_pace_share_it() {
        let mut pace = Pace::new(1_000_000);
        let us = 86_400_000_000;
        while pause_us(&mut pace, us) == 0 {}
        let pauses: Vec<u64> = (0..4).map(|_| pause_us(&mut pace, us)).collect();
        assert_eq!(pauses, [2_000, 3_000, 4_000, 5_000]);
    }
}
