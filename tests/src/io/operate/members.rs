//! Members come and go while the ensemble runs.

use super::fleet::{Fleet, Server};
use super::{NAME, Outcome, all_well, issue, settings};
use crate::io::daemon::eventually;
use std::fs;
use warren_server::admin::{Membership, Response};

/// `warren member list -o json`.
fn list(fleet: &Fleet, id: u8) -> Outcome<Membership> {
    let said = fleet.ask(id, &["member", "list", "-o", "json"])?;
    match serde_json::from_str(&said.out)? {
        Response::Members(membership) => Ok(*membership),
        other => Err(format!("{other:?} is no list").into()),
    }
}

/// Every server knows this server in this role, as this disk; nobody has it where there is no role.
pub(super) fn until_all_know(fleet: &Fleet, id: u8, role: Option<(&str, u32)>) -> Outcome<()> {
    fleet.until(&format!("all know server {id} as {role:?}"), |fleet| {
        fleet.servers.iter().all(|server| {
            list(fleet, server.id).is_ok_and(|told| {
                let member = told.members.iter().find(|member| member.id == id);
                member.map(|member| (member.role.as_str(), member.disk)) == role
            })
        })
    })
}

/// Which of its disks a server has, as another one tells.
pub(super) fn disk_of(fleet: &Fleet, asked: u8, id: u8) -> Outcome<u32> {
    let told = list(fleet, asked)?;
    let member = told.members.iter().find(|member| member.id == id);
    Ok(member.ok_or("it is not listed")?.disk)
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

/// A fourth server comes in, asked for at one that does not lead.
pub(super) fn added(fleet: &mut Fleet) -> Outcome<()> {
    let server = Server::new(&fleet.folder.clone(), 4, &mut fleet.dice)?;
    issue(fleet, "ca2", &server)?;
    fs::copy(fleet.server(1).ca(), server.ca())?;
    let (peers, clients) = (server.peers.to_string(), server.clients.to_string());
    fleet.servers.push(server);
    let all: Vec<&Server> = fleet.servers.iter().collect();
    let own = fleet.server(4);
    fs::write(&own.settings.1, settings(own, &all))?;
    // It asks to be let in, and waits.
    fleet.start(4)?;
    let says =
        |fleet: &Fleet| fleet.server(4).log().contains(&format!("warren member add 4 {peers} {clients}"));
    if !eventually(|| says(fleet)) {
        return Err(format!("it does not say how to let it in:\n{}", fleet.server(4).log()).into());
    }
    let follower = fleet.leader_of(&[1, 2, 3])? % 3 + 1;
    fleet.ask(follower, &["member", "add", "1", &peers, &clients])?.must(1, "server 1 is there already")?;
    fleet.ask(follower, &["member", "add", "4", &peers, "h"])?.must(64, "no port")?;
    fleet
        .ask(follower, &["member", "add", "4", &peers, &clients])?
        .must(0, "server 4 belongs to the ensemble")?;
    fleet.server_mut(4).serves()?;
    until_all_know(fleet, 4, Some(("voter", 1)))?;
    fleet.ask(follower, &["member", "promote", "4"])?.must(1, "server 4 votes already")?;
    all_well(fleet)
}

pub(super) fn removed(fleet: &mut Fleet) -> Outcome<()> {
    let follower = fleet.leader()? % 4 + 1;
    fleet.ask(follower, &["member", "remove", "9"])?.must(1, "there is no server 9")?;
    let other = if follower == 4 { 1 } else { follower };
    fleet.ask(other, &["member", "remove", "4"])?.must(0, "server 4 no longer belongs")?;
    // Its own leaving may be the last that it hears.
    fleet.until("it no longer serves", |fleet| {
        fleet.server(4).word("srvr").map_or(true, |a| !a.contains("Mode:"))
    })?;
    fleet.server_mut(4).kill();
    fleet.servers.retain(|server| server.id != 4);
    until_all_know(fleet, 4, None)?;
    all_well(fleet)
}

/// A server loses its data, and comes back only when it is let to.
pub(super) fn replaced(fleet: &mut Fleet) -> Outcome<()> {
    let leader = fleet.leader()?;
    let lost = leader % 3 + 1;
    let id = lost.to_string();
    fleet.server_mut(lost).kill();
    fs::remove_dir_all(fleet.server(lost).data())?;
    fleet.start(lost)?;
    fleet.until("it says how to let it back", |fleet| {
        fleet.server(lost).log().contains(&format!("warren member replace {id}"))
    })?;
    fleet.ask(leader, &["member", "replace", &id])?.must(0, &format!("server {id} may come"))?;
    fleet.server_mut(lost).serves()?;
    until_all_know(fleet, lost, Some(("voter", 2)))?;
    fleet.ask(leader, &["member", "list"])?.must(0, "voter, disk 2")?;
    all_well(fleet)
}

/// Two of three are lost for good; the third goes on alone, and says what it costs.
pub(super) fn forced(fleet: &mut Fleet) -> Outcome<()> {
    let survivor = fleet.leader()? % 3 + 1;
    for server in fleet.servers.iter_mut().filter(|server| server.id != survivor) {
        server.kill();
    }
    fleet.servers.retain(|server| server.id == survivor);
    fleet.ask(survivor, &["force-quorum"])?.must(64, "--yes-i-lose-data")?;
    let said = fleet.ask(survivor, &["force-quorum", "--yes-i-lose-data"])?;
    said.must(0, "this server is the only one that belongs to the ensemble")?;
    let leads = || fleet.server(survivor).word("srvr").is_ok_and(|text| text.contains("Mode: leader"));
    if !eventually(leads) {
        let (word, status) = (fleet.server(survivor).word("srvr"), fleet.status(survivor));
        return Err(
            format!("it does not lead: {word:?} {status:?}\n{}", fleet.server(survivor).log_end()).into()
        );
    }
    let told = list(fleet, survivor)?;
    match told.members.as_slice() {
        [member] if member.id == survivor && member.role == "voter" => all_well(fleet),
        _ => Err(format!("it tells {told:?}").into()),
    }
}
