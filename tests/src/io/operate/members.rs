//! Who belongs to the ensemble.

use super::fleet::Fleet;
use super::{NAME, Outcome};
use warren_server::admin::{Membership, Response};

/// `warren member list -o json`.
fn list(fleet: &Fleet, id: u8) -> Outcome<Membership> {
    let said = fleet.ask(id, &["member", "list", "-o", "json"])?;
    match serde_json::from_str(&said.out)? {
        Response::Members(membership) => Ok(*membership),
        other => Err(format!("{other:?} is no list").into()),
    }
}

pub(super) fn listed(fleet: &mut Fleet) -> Outcome<()> {
    for id in 1..=3 {
        let said = fleet.ask(id, &["member", "list"])?.must(0, &format!("{NAME}, version "))?;
        for server in &fleet.servers {
            if !said.out.contains(&server.peers.to_string())
                || !said.out.contains(&server.clients.to_string())
            {
                return Err(format!("server {} is not told whole: {}", server.id, said.out).into());
            }
        }
        let told = list(fleet, id)?;
        if told.members.len() != 3 || told.members.iter().any(|m| m.role != "voter" || m.disk != 1) {
            return Err(format!("server {id} tells {told:?}").into());
        }
    }
    Ok(())
}
