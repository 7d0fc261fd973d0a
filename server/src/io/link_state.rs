//! With whom there should be a link, and what is known of it.

use crate::config;
use std::collections::BTreeMap;
use warren_transport::io::links::{Hold, PeerAddr};
use warren_transport::peer::ServerId;

/// Of a link that never was up.
pub(super) const NOT_YET: &str = "not linked yet";

/// What is known of a link.
#[derive(Clone, Debug)]
pub(super) enum LinkState {
    Up,
    /// There is none, and nobody needs it.
    Idle,
    Down(String),
    /// The other end says that this server was removed.
    Removed,
}

/// Do most of those with whom there is a link, or should be, say that they know no such server as this one?
pub(super) fn most_removed(states: &BTreeMap<ServerId, LinkState>) -> bool {
    let needed = states.values().filter(|state| !matches!(state, LinkState::Idle)).count();
    2 * states.values().filter(|state| matches!(state, LinkState::Removed)).count() > needed
}

/// Observers have nothing to say to each other, but for those that feed each other; with those that vote every server has.
pub(super) fn hold(votes: bool, other_votes: bool) -> Hold {
    match (votes, other_votes) {
        (true, true) => Hold::Always,
        (false, false) => Hold::OnDemand,
        _ => Hold::EitherWay,
    }
}

/// The other servers, as the settings have them.
pub(super) fn peers(config: &config::Ensemble) -> Vec<PeerAddr> {
    let own = config.votes(config.server_id);
    let peer = |server: &config::EnsembleServer| PeerAddr {
        id: server.id,
        addr: server.peer_addr.to_string(),
        hold: hold(own, config.votes(server.id)),
    };
    config.others().map(peer).collect()
}
