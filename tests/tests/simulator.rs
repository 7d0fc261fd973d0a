//! The simulator over a bounded number of seeds, and its own proof: planted faults are caught.

use warren_tests::sim::{self, Planted};

#[test]
fn the_server_holds_its_promises() {
    for seed in 0..200 {
        if let Err(failure) = sim::run(seed, None, false) {
            panic!("{failure}");
        }
    }
}

#[test]
fn equal_seeds_have_equal_traces() {
    for seed in [1, 2, 3, 50, 97] {
        let first = sim::run(seed, None, false).unwrap_or_else(|failure| panic!("{failure}"));
        let second = sim::run(seed, None, false).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(first, second, "seed {seed}");
    }
}

/// Within so many seeds each planted fault is caught, by the property that is meant to.
#[test]
fn planted_faults_are_caught() {
    let expected = [
        (Planted::AcknowledgeBeforeSync, "same log prefix", 20),
        (Planted::WatchAfterReply, "events before replies, each once", 5),
        (Planted::SkipDedup, "each tag applied at most once", 20),
        (Planted::LoseMark, "linearizable", 20),
        (Planted::SkipEntryOnRestart, "equal zxid, equal digest", 20),
        (Planted::ExpireEarly, "ephemerals end with their session", 20),
        (Planted::LoseReport, "serves again after healing", 20),
        (Planted::SwapReplies, "replies in session order, and true", 5),
        (Planted::PurgeTooFar, "acknowledged is durable", 20),
    ];
    assert_eq!(expected.len(), Planted::ALL.len());
    for (planted, property, within) in expected {
        let caught = (0..within).find_map(|seed| sim::run(seed, Some(planted), false).err());
        let failure = caught.unwrap_or_else(|| panic!("{planted:?} was not caught within {within} seeds"));
        assert_eq!(failure.violation.property, property, "{failure}");
    }
}
