//! An ensemble that is described by ZooKeeper's own file.

use super::fleet::{Fleet, Server};
use super::{Outcome, all_well, issue};
use std::fs;

pub(super) fn ensemble(fleet: &mut Fleet) -> Outcome<()> {
    fleet.servers.clear();
    fleet.warren(&["certs", "init", "--dir", "zoo-ca"])?.must(0, "zoo-ca/ca.pem")?;
    let folder = fleet.folder.join("zoo");
    for id in 1..=3 {
        let mut server = Server::new(&folder, id, &mut fleet.dice)?;
        server.settings = ("--zoo-cfg", server.dir.join("zoo.cfg"));
        issue(fleet, "zoo-ca", &server)?;
        fs::copy(fleet.folder.join("zoo-ca/ca.pem"), server.ca())?;
        fleet.servers.push(server);
    }
    let lines: Vec<String> = fleet
        .servers
        .iter()
        .map(|server| {
            let (peer, client) = (server.peers, server.clients);
            format!("server.{}={peer}:{}:participant;{client}\n", server.id, u32::from(peer.port()) + 1_000)
        })
        .collect();
    for server in &fleet.servers {
        fs::create_dir_all(server.data())?;
        fs::write(server.data().join("myid"), format!("{}\n", server.id))?;
        let text = format!(
            "tickTime=500\ninitLimit=10\nsyncLimit=5\ndataDir={}\n4lw.commands.whitelist=*\n\
             ssl.quorum.keyStore.location={}\nssl.quorum.trustStore.location={}\n{}",
            server.data().display(),
            server.cert().display(),
            server.ca().display(),
            lines.concat()
        );
        fs::write(&server.settings.1, text)?;
    }
    for id in 1..=3 {
        fleet.start(id)?;
    }
    for id in 1..=3 {
        fleet.server_mut(id).serves()?;
    }
    let leader = fleet.leader()?;
    all_well(fleet)?;
    let mode = |id| if id == leader { "Mode: leader" } else { "Mode: follower" };
    for id in 1..=3 {
        let text = fleet.server(id).word("srvr")?;
        if !text.contains(mode(id)) {
            return Err(format!("server {id} says {text}").into());
        }
    }
    // Nobody but ZooKeeper's own keys gives the ensemble its shape.
    let server = fleet.server(leader);
    let text = fs::read_to_string(&server.settings.1)?.replace("ssl.quorum.keyStore", "#");
    let without = server.dir.join("without.cfg");
    fs::write(&without, text)?;
    let refused = std::process::Command::new(&fleet.warrend).arg("--zoo-cfg").arg(&without).output()?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    match refused.status.code() {
        Some(64) if said.contains("ssl.quorum.keyStore.location: is not set") => Ok(()),
        code => Err(format!("without certificates it ends with {code:?} and says {said}").into()),
    }
}
