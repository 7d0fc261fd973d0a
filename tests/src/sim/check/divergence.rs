//! Who is not what the log makes serves nobody: a server whose memory went bad ([`crate::sim`]'s fault) is found within a
//! bound, and no other is ever taken for one.

use super::{Verdict, Violation, hold};
use warren_server::service::Service;

const PROPERTY: &str = "who is wrong serves nobody";

pub(super) fn on_step(is_bad: bool, service: &Service) -> Verdict {
    hold(is_bad || !service.is_wrong(), PROPERTY, || {
        "a server takes its tree for wrong, which is what the log makes".to_owned()
    })
}

/// It was not found in time.
pub fn unnoticed(state: String) -> Violation {
    Violation {
        property: PROPERTY,
        what: format!("its memory went bad, and nobody noticed in time: {state}"),
    }
}
