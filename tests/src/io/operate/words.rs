//! The four-letter words of an ensemble, which monitoring takes apart.

use super::Outcome;
use super::fleet::Fleet;

pub(super) fn tell(fleet: &mut Fleet) -> Outcome<()> {
    let leader = fleet.leader()?;
    let follower = leader % 3 + 1;
    let lines: Vec<String> = fleet
        .servers
        .iter()
        .map(|s| {
            format!(
                "server.{}={}:{}:participant;{}",
                s.id,
                s.peers,
                u32::from(s.peers.port()) + 1_000,
                s.clients
            )
        })
        .collect();
    for id in 1..=3 {
        let (conf, port) = (fleet.server(id).word("conf")?, fleet.server(id).peers.port());
        let told = format!(
            "serverId={id}\ninitLimit=-1\nsyncLimit=1\nelectionAlg=3\nelectionPort={}\nquorumPort={port}\npeerType=0\n\
             membership: \n{}\nversion=",
            u32::from(port) + 1_000,
            lines.join("\n"),
        );
        must(&conf, &[&told], &[])?;
    }
    let (leads, follows) = (fleet.server(leader), fleet.server(follower));
    must(&leads.word("srvr")?, &["Mode: leader\n", "Proposal sizes last/min/max: "], &["max: -1"])?;
    must(&follows.word("srvr")?, &["Mode: follower\n"], &["Proposal sizes"])?;
    let told = "zk_server_state\tleader\nzk_peer_state\tleading - broadcast\n";
    must(
        &leads.word("mntr")?,
        &[told, "zk_quorum_size\t3\n", "zk_synced_followers\t2\n", "zk_leader_uptime\t"],
        &[],
    )?;
    let told = "zk_server_state\tfollower\nzk_peer_state\tfollowing - broadcast\n";
    must(
        &follows.word("mntr")?,
        &[told, "zk_quorum_size\t3\n"],
        &["zk_synced_followers", "zk_leader_uptime"],
    )?;
    must(&leads.word("dump")?, &["SessionTracker dump:\nSession Sets ("], &["Global"])?;
    must(&follows.word("dump")?, &["SessionTracker dump:\nGlobal Sessions("], &["Session Sets"])
}

fn must(text: &str, told: &[&str], untold: &[&str]) -> Outcome<()> {
    let missing = told.iter().find(|part| !text.contains(**part));
    let surplus = untold.iter().find(|part| text.contains(**part));
    match (missing, surplus) {
        (None, None) => Ok(()),
        (missing, surplus) => Err(format!("missing {missing:?}, surplus {surplus:?} in {text}").into()),
    }
}
