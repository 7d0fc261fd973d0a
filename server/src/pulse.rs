//! Whether the server goes on: its three machines must all have turned since the watchdog was fed last. A timer that feeds by
//! itself would keep a server alive that decides nothing any more.

use crate::moment::Moment;
use std::time::Duration;

/// How often each machine has come back for more: consensus, service, log.
pub type Turns = [u64; 3];

/// Their names, in the order of [`Turns`].
const NAMES: [&str; 3] = ["consensus", "service", "log"];
/// The place of the one that waits for no disk.
const SERVICE: usize = 1;

/// Decides when the watchdog is fed. Whoever asks has poked each machine since it asked last, so that an idle one turns too.
#[derive(Debug)]
pub struct Pulse {
    fed: Turns,
    fed_at: Moment,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beat {
    /// All turned: feed the watchdog.
    Feed,
    /// Feed it not: these did not turn.
    Stands {
        /// Which machines.
        machines: Vec<&'static str>,
        /// For how long, at most.
        since: Duration,
    },
}

impl Pulse {
    /// Everything begins to turn now.
    pub fn new(now: Moment, turns: Turns) -> Pulse {
        Pulse { fed: turns, fed_at: now }
    }

    /// Look at the machines. On a full disk the log waits for space, and so does consensus where it appends for itself: then a
    /// restart would wait again, and reads would stop for nothing.
    pub fn look(&mut self, now: Moment, turns: Turns, waits_for_space: bool) -> Beat {
        let stands = |place: &usize| turns[*place] == self.fed[*place];
        let excused = |place: &usize| waits_for_space && *place != SERVICE;
        let machines: Vec<&'static str> = (0..NAMES.len())
            .filter(|place| stands(place) && !excused(place))
            .map(|place| NAMES[place])
            .collect();
        if machines.is_empty() {
            (self.fed, self.fed_at) = (turns, now);
            return Beat::Feed;
        }
        Beat::Stands { machines, since: now.since(self.fed_at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Moment {
        Moment { us: s * 1_000_000, wall_ms: 0 }
    }

    fn stands(machines: &[&'static str], s: u64) -> Beat {
        Beat::Stands { machines: machines.to_vec(), since: Duration::from_secs(s) }
    }

    #[test]
    fn it_is_fed_only_when_all_have_turned_since() {
        let mut pulse = Pulse::new(at(0), [5, 5, 5]);
        assert_eq!(pulse.look(at(5), [6, 9, 6], false), Beat::Feed);
        // Two that run do not stand for the third.
        assert_eq!(pulse.look(at(10), [90, 9, 90], false), stands(&["service"], 5));
        assert_eq!(pulse.look(at(15), [91, 9, 90], false), stands(&["service"], 10));
        assert_eq!(pulse.look(at(20), [91, 10, 90], false), Beat::Feed, "slow is not dead");
        // What turned before it was fed does not count again.
        assert_eq!(pulse.look(at(25), [91, 10, 90], false), stands(&["consensus", "service", "log"], 5));
    }

    #[test]
    fn a_full_disk_is_no_reason_to_be_killed_but_a_service_that_stands_is() {
        let mut pulse = Pulse::new(at(0), [1, 1, 1]);
        assert_eq!(pulse.look(at(5), [1, 2, 1], true), Beat::Feed);
        assert_eq!(pulse.look(at(10), [1, 2, 1], true), stands(&["service"], 5));
        assert_eq!(pulse.look(at(15), [1, 3, 1], false), stands(&["consensus", "log"], 10));
    }
}
