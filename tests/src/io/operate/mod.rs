//! A real ensemble, operated by the command line as an operator would: what the commands say is done, exit statuses are what
//! scripts are told, and the servers go on serving.

mod certificates;
mod changes;
mod divergence;
mod fleet;
mod in_place;
mod members;
mod systemd;
mod words;
mod zoo_cfg;

use super::daemon::eventually;
use crate::sim::Dice;
use fleet::{Fleet, Said, Server};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Name of the ensemble that is tried.
const NAME: &str = "tried";

/// As which a client may change the membership: user `super`, password `test`.
const SUPER: &str = "super:D/InIHSb7yEEbrWz8b9l71RjZJU=";

/// Try it, and print what holds.
pub fn run(warrend: &Path, warren: &Path, seed: Option<u64>) -> bool {
    let seed = seed.unwrap_or_else(|| u64::from(std::process::id()) << 20 ^ super::crash::now_ms());
    let folder = match tempfile::tempdir() {
        Ok(folder) => folder,
        Err(e) => {
            println!("FAIL operate: no folder: {e}");
            return false;
        }
    };
    println!("operate: seed {seed}, folder {}", folder.path().display());
    let mut fleet = Fleet {
        warrend: warrend.to_owned(),
        warren: warren.to_owned(),
        folder: folder.path().to_owned(),
        dice: Dice::new(seed),
        servers: Vec::new(),
    };
    type Step = fn(&mut Fleet) -> Outcome<()>;
    let steps: &[(&str, Step)] = &[
        ("a command that makes no sense, or finds nobody, ends with its own status", nobody),
        ("certificates are made, and an authority only once", make),
        ("three servers found an ensemble, and say so", found),
        ("its members are listed", members::listed),
        ("leadership goes where it is told", transfer),
        ("a server that is gone is complained about until it is back", lost_and_found),
        ("a server restarts in place, and its clients stay connected", in_place::restarted),
        ("files that cannot be used change nothing, and are told", certificates::bad_files),
        ("certificates are renewed without a restart, on SIGHUP too", certificates::renewed),
        ("another authority takes over without a restart", certificates::rotated),
        ("a new server is let in, and votes once it has the log", members::added),
        ("a server is let go", members::removed),
        ("a server that lost its data comes back when it is replaced", members::replaced),
        ("members change under load, and nobody else notices", changes::under_load),
        (
            "a server whose data went bad is found, serves nobody, and is rebuilt",
            divergence::found_and_rebuilt,
        ),
        ("the last of three goes on alone when data are given up", members::forced),
        ("zoo.cfg makes an ensemble", zoo_cfg::ensemble),
        ("a systemd that does not read what it is told holds up nobody", systemd::does_not_read),
        ("four-letter words tell of the ensemble what ZooKeeper's tell", words::tell),
    ];
    for (what, step) in steps {
        match step(&mut fleet) {
            Ok(()) => println!("PASS operate: {what}"),
            Err(e) => {
                // What follows stands on it.
                println!("FAIL operate: {what}: {e} [seed {seed}]");
                return false;
            }
        }
    }
    true
}

fn nobody(fleet: &mut Fleet) -> Outcome<()> {
    fleet.warren(&["frobnicate"])?.must(64, "unrecognized subcommand")?;
    fleet.warren(&["leader", "transfer", "--to", "300"])?.must(64, "300")?;
    fleet.warren(&["--data-dir", "nowhere", "status"])?.must(2, "no server answers at nowhere/admin.sock")?;
    fleet.warren(&["--help"])?.must(0, "Exit status: 0 done, 1 refused")?;
    Ok(())
}

fn make(fleet: &mut Fleet) -> Outcome<()> {
    fleet.warren(&["certs", "init", "--dir", "ca", "--ensemble", NAME])?.must(0, "ca/ca.pem")?;
    fleet.warren(&["certs", "init", "--dir", "ca", "--ensemble", NAME])?.must(1, "ca")?;
    fleet.warren(&["certs", "issue", "--dir", "none", "--server-id", "1", "--out", "x"])?.must(1, "none")?;
    for id in 1..=3 {
        let server = Server::new(&fleet.folder, id, &mut fleet.dice)?;
        issue(fleet, "ca", &server)?;
        fs::copy(fleet.folder.join("ca/ca.pem"), server.ca())?;
        fleet.servers.push(server);
    }
    Ok(())
}

/// A certificate for a server, in its place.
fn issue(fleet: &Fleet, ca: &str, server: &Server) -> Outcome<()> {
    let (id, out) = (server.id.to_string(), server.cert().display().to_string());
    let words = ["certs", "issue", "--dir", ca, "--server-id", &id, "--out", &out];
    fleet.warren(&words)?.must(0, &format!("for server {id}"))?;
    Ok(())
}

/// `warren.toml` of a server that knows of these.
fn settings(own: &Server, all: &[&Server]) -> String {
    let mut text = format!(
        "[sessions]\ntick_ms = 500\n[security]\nsuper_digest = '{SUPER}'\n[ensemble]\nreconfig_enabled = true\nname = '{NAME}'\ntick_ms = 50\nserver_id = {}\ncert = '{}'\nca = '{}'\n",
        own.id,
        own.cert().display(),
        own.ca().display(),
    );
    for server in all {
        let _ = write!(
            text,
            "[[ensemble.server]]\nid = {}\npeer_addr = '{}'\nclient_addr = '{}'\n",
            server.id, server.peers, server.clients
        );
    }
    text
}

fn found(fleet: &mut Fleet) -> Outcome<()> {
    let all: Vec<&Server> = fleet.servers.iter().collect();
    for server in &all {
        fs::write(&server.settings.1, settings(server, &all))?;
    }
    for id in 1..=3 {
        fleet.start(id)?;
    }
    for id in 1..=3 {
        fleet.server_mut(id).serves()?;
    }
    let leader = fleet.leader()?;
    all_well(fleet)?;
    for id in 1..=3 {
        let role = if id == leader { "leader" } else { "follower" };
        fleet.ask(id, &["status"])?.must(0, &format!("{id} of {NAME}, {role}"))?;
        let status = fleet.status(id)?;
        if status.members.len() != 3 || !status.serving || status.role != role {
            return Err(format!("server {id} says {status:?}").into());
        }
    }
    Ok(())
}

/// All servers serve, and see each other.
fn all_well(fleet: &Fleet) -> Outcome<()> {
    let well = |server: &Server| fleet.ask(server.id, &["status"]).is_ok_and(|said| said.status == 0);
    if eventually(|| fleet.servers.iter().all(well)) {
        return Ok(());
    }
    let said: Vec<String> =
        fleet.servers.iter().map(|s| format!("{:?}", fleet.ask(s.id, &["status"]))).collect();
    Err(format!("not all servers are well: {}", said.join("\n")).into())
}

fn transfer(fleet: &mut Fleet) -> Outcome<()> {
    let leader = fleet.leader()?;
    let (next, last) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    fleet.ask(next, &["leader", "transfer"])?.must(1, &format!("ask server {leader}"))?;
    fleet.ask(leader, &["leader", "transfer", "--to", "9"])?.must(1, "server 9 is no voter")?;
    let to = |id: u8| id.to_string();
    fleet.ask(leader, &["leader", "transfer", "--to", &to(next)])?.must(0, "handed over")?;
    fleet.until("the one that was named leads", |fleet| fleet.leader().is_ok_and(|id| id == next))?;
    // It may not have begun its epoch yet.
    fleet.until("it leads already", |fleet| {
        let said = fleet.ask(next, &["leader", "transfer", "--to", &to(next)]);
        said.is_ok_and(|s| s.must(0, "leads already").is_ok())
    })?;
    let said = fleet.ask(next, &["-o", "json", "leader", "transfer", "--to", &to(last)])?.must(0, "done")?;
    serde_json::from_str::<warren_server::admin::Response>(&said.out)?;
    fleet.until("the next one leads", |fleet| fleet.leader().is_ok_and(|id| id == last))
}

fn lost_and_found(fleet: &mut Fleet) -> Outcome<()> {
    let leader = fleet.leader()?;
    let gone = leader % 3 + 1;
    fleet.server_mut(gone).kill();
    let missed = |said: Outcome<Said>| {
        said.is_ok_and(|s| s.status == 1 && s.out.contains(&format!("! server {gone} is not linked")))
    };
    if !eventually(|| missed(fleet.ask(leader, &["status"]))) {
        let said = fleet.ask(leader, &["status"])?;
        return Err(format!("server {leader} does not miss server {gone}: {said:?}").into());
    }
    fleet.ask(gone, &["status"])?.must(2, "no server answers")?;
    fleet.start(gone)?;
    fleet.until("it is linked again", |fleet| fleet.ask(leader, &["status"]).is_ok_and(|s| s.status == 0))?;
    fleet.server_mut(gone).serves()
}
