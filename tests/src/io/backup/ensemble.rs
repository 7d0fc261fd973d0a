//! Three servers, lost and restored on one of them.

use super::{Outcome, SETTINGS, Trial, load};
use crate::io::daemon::{Daemon, eventually, free_port};
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;
use warren_storage::{CreateMode, Op};
use warren_transport::io::blocking::four_letter_word;
use warren_transport::{Change, Opcode};

const NAME: &str = "backed-up";

pub(super) fn restored(trial: &mut Trial) -> Outcome<()> {
    trial.source().stop()?;
    let mut servers = make(trial)?;
    for server in &mut servers {
        server.spawn()?;
    }
    serving(&mut servers)?;

    let mut client = load::connect(servers[0].clients)?;
    load::fill(&mut client, 2_000, 500)?;
    let before = load::read(servers[0].clients, 3)?;
    // Any of them may be asked.
    for (n, server) in servers.iter().enumerate() {
        let data = server.folder().join("data").display().to_string();
        let out = format!("of-{n}");
        trial.warren(&["--data-dir", &data, "backup", "--out", &out])?.must(0, "zxid 0x")?;
    }
    load::change(&mut client, load::create("/after", None, CreateMode::Persistent))?;
    drop(client);
    for server in &mut servers {
        server.kill();
    }

    // All is lost, but for the data of the third, which does not know better: no ensemble is founded beside it.
    for server in &servers[..2] {
        fs::remove_dir_all(server.folder().join("data"))?;
    }
    let data = servers[0].folder().join("data").display().to_string();
    trial.warren(&["restore", "--from", "of-1", "--data-dir", &data])?.must(0, "empty the data folders")?;
    for server in &mut servers {
        server.spawn()?;
    }
    let told = eventually(|| servers[0].said("Stop server 3, empty its data folder") > 0);
    if !told || servers.iter().any(serves) {
        return Err("beside a server with data of before, somebody serves, or nobody is told".into());
    }
    servers[2].kill();
    serving(&mut servers[..2])?;
    let same = |at: usize, servers: &[Daemon]| -> Outcome<()> {
        let after = load::read(servers[at].clients, 3)?;
        let mut different = load::differences(&before, &after);
        // Who belongs to it is written down anew.
        // And the root has had a child more.
        different.retain(|line| !line.starts_with("/zookeeper/config: ") && !line.starts_with("/: "));
        match different.first() {
            None => Ok(()),
            Some(first) => {
                Err(format!("server {}: {} znodes differ: {first}", at + 1, different.len()).into())
            }
        }
    };
    same(0, &servers)?;
    same(1, &servers)?;
    // It comes back with them, and counts for nobody.
    servers[2].spawn()?;
    let mut client = load::connect(servers[1].clients)?;
    load::change(&mut client, load::create("/beside", None, CreateMode::Persistent))?;
    load::change(
        &mut client,
        Change { opcode: Opcode::Delete, op: Op::Delete { path: "/beside", version: -1 } },
    )?;
    drop(client);
    if serves(&servers[2]) {
        return Err("the server with the old data serves".into());
    }
    // Emptied, it is one of them.
    servers[2].kill();
    fs::remove_dir_all(servers[2].folder().join("data"))?;
    servers[2].spawn()?;
    serving(&mut servers)?;
    same(2, &servers)?;

    // Whoever is lost, the other two go on.
    servers[0].kill();
    let mut client = eventually_connected(&servers[1])?;
    load::change(&mut client, load::create("/goes-on", None, CreateMode::Persistent))?;
    drop(client);
    servers[0].spawn()?;
    serving(&mut servers)?;
    let there = || load::read(servers[0].clients, 3).is_ok_and(|tree| tree.contains_key("/goes-on"));
    if !eventually(there) {
        return Err("the first server does not catch up".into());
    }
    for server in &mut servers {
        server.stop()?;
    }

    // A server alone may go on with what an ensemble had.
    let mut alone = trial.restored("of-2", "alone")?;
    let tree = load::read(alone.clients, 3)?;
    let config = tree.get("/zookeeper/config").and_then(|seen| seen.data.clone());
    let kept = before.values().filter(|seen| seen.stat.ephemeral_owner == 0).count();
    if tree.len() != kept || config.as_deref() != Some(b"") {
        return Err(format!("{} znodes, and the configuration is {config:?}", tree.len()).into());
    }
    alone.stop()?;
    Ok(())
}

fn serves(server: &Daemon) -> bool {
    four_letter_word(server.clients, "srvr", Duration::from_secs(2)).is_ok_and(|text| text.contains("Mode:"))
}

fn eventually_connected(server: &Daemon) -> Outcome<warren_transport::io::blocking::Connection> {
    let mut connected = None;
    eventually(|| {
        connected = load::connect(server.clients).ok();
        connected.is_some()
    });
    connected.ok_or_else(|| "nobody can connect any more".into())
}

fn serving(servers: &mut [Daemon]) -> Outcome<()> {
    for (n, server) in servers.iter_mut().enumerate() {
        server.serving().map_err(|e| format!("server {}: {e}", n + 1))?;
    }
    Ok(())
}

fn make(trial: &mut Trial) -> Outcome<Vec<Daemon>> {
    trial.warren(&["certs", "init", "--dir", "ca", "--ensemble", NAME])?.must(0, "ca/ca.pem")?;
    let mut servers = Vec::new();
    let mut all = String::new();
    for id in 1..=3 {
        let folder = trial.folder.join(format!("server-{id}"));
        let daemon = Daemon::new(&trial.warrend, &folder, "", &mut trial.dice)?;
        let peer_port = loop {
            let port = free_port(&mut trial.dice);
            if UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                break port;
            }
        };
        let cert = folder.join("server.pem").display().to_string();
        let words = ["certs", "issue", "--dir", "ca", "--server-id", &id.to_string(), "--out", &cert];
        trial.warren(&words)?.must(0, "made")?;
        write!(
            all,
            "[[ensemble.server]]\nid = {id}\npeer_addr = '127.0.0.1:{peer_port}'\nclient_addr = '{}'\n",
            daemon.clients
        )?;
        servers.push(daemon);
    }
    for (at, server) in servers.iter().enumerate() {
        let own = format!(
            "{SETTINGS}[ensemble]\nname = '{NAME}'\ntick_ms = 50\nserver_id = {}\ncert = '{}'\nca = '{}'\n{all}",
            at + 1,
            server.folder().join("server.pem").display(),
            trial.folder.join("ca/ca.pem").display(),
        );
        server.configure(&own)?;
    }
    Ok(servers)
}
