//! The simulator over a bounded number of seeds, and its own proof: planted faults are caught.

use warren_tests::sim::{self, Planted, Run};

#[test]
fn the_server_holds_its_promises() {
    for seed in 0..200 {
        if let Err(failure) = sim::run(Run::of(seed)) {
            panic!("{failure}");
        }
    }
}

/// Each of them found something once.
#[test]
fn seeds_that_failed_keep_all_promises() {
    // A client goes on speaking on an attachment that another one of the same session took over.
    const FAILED: &[u64] = &[130_327];
    for seed in FAILED {
        if let Err(failure) = sim::run(Run::of(*seed)) {
            panic!("{failure}");
        }
    }
}

#[test]
fn equal_seeds_have_equal_traces() {
    for seed in [1, 2, 3, 50, 97] {
        let first = sim::run(Run::of(seed)).unwrap_or_else(|failure| panic!("{failure}"));
        let second = sim::run(Run::of(seed)).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(first, second, "seed {seed}");
    }
}

/// Within so many seeds each planted fault is caught, by the property that is meant to.
#[test]
fn planted_faults_are_caught() {
    let expected = [
        (Planted::AcknowledgeBeforeSync, 1, "acknowledged is durable", 5),
        (Planted::AcknowledgeBeforeSync, 3, "acknowledged is durable", 5),
        (Planted::WatchAfterReply, 1, "events before replies, each once", 5),
        (Planted::SkipDedup, 1, "each tag applied at most once", 20),
        (Planted::LoseMark, 1, "linearizable", 20),
        (Planted::SkipEntryOnRestart, 1, "equal zxid, equal digest", 20),
        (Planted::ExpireEarly, 1, "ephemerals end with their session", 20),
        (Planted::LoseReport, 1, "serves again after healing", 20),
        (Planted::SwapReplies, 1, "replies in session order, and true", 5),
        (Planted::PurgeTooFar, 1, "acknowledged is durable", 20),
        (Planted::MinorityAsQuorum, 3, "acknowledged is durable", 5),
        (Planted::ForwardTwice, 3, "each tag applied at most once", 5),
        (Planted::DeposedLeaderExpires, 3, "ephemerals end with their session", 20),
        (Planted::SkipEntryOnInstall, 3, "equal zxid, equal digest", 60),
        (Planted::SyncWithoutQuorum, 3, "linearizable", 20),
        (Planted::WipedVoterVotes, 3, "elected by the configuration", 20),
        (Planted::ObserverSkipsEntry, 3, "equal zxid, equal digest", 5),
        (Planted::NobodyCompares, 3, "who is wrong serves nobody", 10),
        (Planted::SendUnconfirmed, 3, "equal zxid, equal digest", 400),
        (Planted::KeptWithoutWatches, 1, "events before replies, each once", 20),
        (Planted::FeedUncommitted, 3, "acknowledged is durable", 20),
        (Planted::NewVotersAlone, 3, "acknowledged is durable", 30),
        (Planted::ConfigurationWhenProposed, 3, "acknowledged is durable", 20),
        (Planted::JoinersFound, 1, "configurations in one order", 600),
        (Planted::JoinsUnrecorded, 3, "elected by the configuration", 60),
        (Planted::FounderSaysEmpty, 3, "elected by the configuration", 60),
        (Planted::ConfigurationNotKept, 3, "raft's configuration and the table agree", 20),
    ];
    for planted in Planted::ALL {
        assert!(expected.iter().any(|(each, ..)| *each == planted), "{planted:?}");
    }
    for (planted, servers, property, within) in expected {
        let run = |seed| Run { planted: Some(planted), servers: Some(servers), ..Run::of(seed) };
        // It may break other things, too.
        let caught = |seed| sim::run(run(seed)).is_err_and(|failure| failure.violation.property == property);
        assert!((0..within).any(caught), "{planted:?} was not caught by {property:?} within {within} seeds");
    }
}
