//! What an operator asks of the membership; see [`crate::admin`].

use super::certificates;
use super::facts::Registry;
use super::link_state::LinkState;
use crate::admin::{self, Member, MemberChange, Membership, Response};
use crate::config::{Address, server_line};
use crate::membership;
use crate::words::QuorumFacts;
use warren_storage::{MemberRole, Members};

impl Registry {
    /// Who belongs to the ensemble, as of what is applied here; before anything is, as the settings say.
    pub(super) fn roster(&self) -> Members {
        let Some(ensemble) = &self.ensemble else { return Members::default() };
        let applied = self.engine.facts().map(|facts| facts.members);
        applied
            .filter(|members| !members.servers.is_empty())
            .unwrap_or_else(|| membership::found(&ensemble.config))
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
                Some(LinkState::Removed) => {
                    "it knows no such server as this one, which was removed".to_owned()
                }
                _ => String::new(),
            };
            let idle = matches!(states.get(&member.id), Some(LinkState::Idle));
            Member {
                id: member.id,
                role: admin::role_name(member.role).to_owned(),
                disk: member.disk,
                peer_addr: member.peer_addr.clone(),
                client_addr: member.client_addr.clone(),
                linked: why.is_empty() && !idle,
                idle,
                why,
                lag: lag(member.id),
                version: None,
            }
        };
        self.roster().servers.iter().map(member).collect()
    }

    /// Is this server none of the ensemble's any more, by its own table or by what the others say?
    pub(super) fn is_not_a_member(&self) -> bool {
        let Some(ensemble) = &self.ensemble else { return false };
        let roster = self.roster();
        let left = !roster.servers.is_empty() && roster.get(ensemble.config.server_id).is_none();
        left || ensemble.is_unknown()
    }

    /// Other servers to which the link is up, and those to which it is not and should be.
    pub(super) fn links(&self) -> (i64, i64) {
        let own = self.room.standing().server_id;
        let members = self.members();
        let others = members.iter().filter(|member| member.id != own);
        others.fold((0, 0), |(up, down), other| match (other.linked, other.idle) {
            (true, _) => (up + 1, down),
            (false, true) => (up, down),
            (false, false) => (up, down + 1),
        })
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

    /// To [`admin::Request::ChangeMembers`].
    pub(super) async fn change_members(&self, change: MemberChange) -> Response {
        if let MemberChange::Promote { id } = change {
            // The leader promotes it by the same change, but not before it has the log.
            if self.roster().get(id).is_some_and(|member| member.role == MemberRole::Joining) {
                let text = format!("server {id} joins already, and votes as soon as it has the log");
                return Response::Refused(text);
            }
        }
        let done = change.done();
        match self.engine.reconfigure(change.into()).await {
            Ok(members) => {
                tracing::info!(
                    version = format!("{:x}", members.version),
                    "an operator changed the membership: {done}"
                );
                let notes = membership::oddities(&members).into_iter().map(|note| format!("; note: {note}"));
                Response::Done(done + &notes.collect::<String>())
            }
            Err(e) => Response::Refused(e.to_string()),
        }
    }

    /// To [`admin::Request::ForceQuorum`].
    pub(super) async fn force_quorum(&self) -> Response {
        if self.room.is_wrong() {
            return Response::Refused(
                "this server's tree is not what the log makes: it must not be the one that is left. Force another one"
                    .to_owned(),
            );
        }
        match self.engine.force_quorum().await {
            Ok(_) => Response::Done(
                "this server is the only one that belongs to the ensemble, and serves with what it has. The others must not \
                 come back with their data: empty their data folders, and let them in by `warren member add`"
                    .to_owned(),
            ),
            Err(e) => Response::Refused(e.to_string()),
        }
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
