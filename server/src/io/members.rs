//! What an operator asks of the membership; see [`crate::admin`].

use super::certificates;
use super::ensemble::LinkState;
use super::facts::Registry;
use crate::admin::{self, Member, Membership, Response};
use crate::config::{Address, server_line};
use crate::membership;
use crate::words::QuorumFacts;
use warren_storage::{MemberRole, Members};

impl Registry {
    /// Who belongs to the ensemble, as the settings say.
    fn roster(&self) -> Members {
        self.ensemble.as_ref().map_or(Members::default(), |ensemble| membership::found(&ensemble.config))
    }

    /// The servers of the ensemble, as this one sees them.
    pub(super) fn members(&self) -> Vec<Member> {
        let Some(ensemble) = &self.ensemble else { return Vec::new() };
        let facts = self.engine.facts();
        let states = ensemble.states();
        let lag = |id: u8| {
            let facts = facts.as_ref()?;
            let follower = facts.followers.iter().find(|f| f.server == id)?;
            Some(facts.last_index.saturating_sub(follower.matched))
        };
        let member = |member: &warren_storage::Member| {
            let why = match states.get(&member.id) {
                Some(LinkState::Down(why)) => why.clone(),
                _ => String::new(),
            };
            Member {
                id: member.id,
                role: admin::role_name(member.role).to_owned(),
                disk: member.disk,
                peer_addr: member.peer_addr.clone(),
                client_addr: member.client_addr.clone(),
                linked: why.is_empty(),
                why,
                lag: lag(member.id),
            }
        };
        self.roster().servers.iter().map(member).collect()
    }

    /// To [`admin::Request::Members`].
    pub(super) fn membership(&self) -> Response {
        let Some(ensemble) = &self.ensemble else {
            return Response::Refused(membership::Refusal::Standalone.to_string());
        };
        let roster = self.roster();
        let standing = self.room.standing();
        Response::Members(Box::new(Membership {
            ensemble: ensemble.config.name.clone(),
            server_id: standing.server_id,
            version: format!("{:x}", roster.version),
            leader: standing.leader,
            members: self.members(),
            notes: membership::oddities(&roster),
        }))
    }

    /// What `conf` tells of this server's part in its ensemble.
    pub(super) fn quorum(&self) -> Option<QuorumFacts> {
        let ensemble = self.ensemble.as_ref()?;
        let roster = self.roster();
        let config = &ensemble.config;
        let own = roster.get(config.server_id)?;
        let peer: Address = own.peer_addr.parse().ok()?;
        let silence_ms = config.tick_ms * config.election_ticks * 2;
        Some(QuorumFacts {
            sync_limit: silence_ms.div_ceil(self.config.sessions.tick_ms.max(1)),
            quorum_port: peer.port,
            election_port: server_line::election_port(peer.port),
            observes: own.role == MemberRole::Observer,
            membership: membership::text(&roster),
        })
    }

    /// How much longer this server's certificate is valid, s.
    pub(super) fn certificate_s(&self) -> Option<u64> {
        let links = self.ensemble.as_ref()?.links()?;
        Some(certificates::valid_for(links).as_secs())
    }
}
