//! raft's configuration and the table agree: behind every entry that a server has applied, its table says of the same
//! servers and disks that they vote or join as raft's configuration does. While that is a joint one, its new half does.

use super::{Verdict, hold};
use warren_server::consensus::{Configuration, raft_id};
use warren_server::service::Service;
use warren_storage::{MemberRole, Members};

const PROPERTY: &str = "raft's configuration and the table agree";

/// What was compared last, by server.
pub struct Agreement(Vec<(i64, Vec<u8>)>);

impl Agreement {
    pub(super) fn new(servers: usize) -> Agreement {
        Agreement(vec![(-1, Vec::new()); servers])
    }

    pub(super) fn on_started(&mut self, server: usize) {
        self.0[server].0 = -1;
    }

    pub(super) fn on_step(&mut self, server: usize, service: &Service) -> Verdict {
        let (members, conf_state) = (service.tree().members(), service.tree().conf_state());
        let (version, known) = &mut self.0[server];
        // Before it is founded, an ensemble has no table.
        if members.servers.is_empty() || (*version, known.as_slice()) == (members.version, conf_state) {
            return Ok(());
        }
        (*version, *known) = (members.version, conf_state.to_vec());
        let conf = Configuration::of(conf_state);
        let (voters, joining) = (ids(members, MemberRole::Voter), ids(members, MemberRole::Joining));
        hold((&conf.voters, &conf.learners) == (&voters, &joining), PROPERTY, || {
            format!(
                "behind entry {} of s{}: {conf:?}, {members:?}",
                service.tree().position().index,
                server + 1
            )
        })
    }
}

/// In raft's words.
fn ids(members: &Members, role: MemberRole) -> Vec<u64> {
    let of = members.servers.iter().filter(|member| member.role == role);
    of.map(|member| raft_id(member.id, member.disk)).collect()
}
