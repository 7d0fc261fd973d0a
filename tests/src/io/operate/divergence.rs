//! A server whose data went bad on its disk: it is found, serves nobody, says so everywhere, and is rebuilt.

use super::changes::{connect, read, write};
use super::fleet::Fleet;
use super::{Outcome, all_well, members};
use crate::io::daemon::eventually;
use redb::{Database, ReadableTable as _, TableDefinition};
use std::path::Path;
use std::time::Duration;
use warren_server::admin::{Response, Status};
use warren_transport::io::blocking::{Connection, Options};

/// What goes bad.
const PATH: &str = "/kept";
/// As `storage/src/tree/tables.rs` has it.
const ZNODES: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("znodes-1");

/// A bit flips in the data of a znode, in the file of a server that is stopped.
fn rot(data: &Path) -> Outcome<()> {
    let file = Database::open(data.join("warren/tree.redb"))?;
    let write = file.begin_write()?;
    {
        let mut znodes = write.open_table(ZNODES)?;
        let mut row = znodes.get(PATH)?.ok_or("the znode is not in the checkpoint")?.value().to_vec();
        *row.last_mut().ok_or("the row is empty")? ^= 1;
        znodes.insert(PATH, row.as_slice())?;
    }
    write.commit()?;
    Ok(())
}

/// `warren status`, of a server that may be unwell.
fn status(fleet: &Fleet, id: u8) -> Outcome<(i32, Status)> {
    let said = fleet.ask(id, &["status", "-o", "json"])?;
    match serde_json::from_str(&said.out)? {
        Response::Status(status) => Ok((said.status, *status)),
        other => Err(format!("{other:?} is no status").into()),
    }
}

pub(super) fn found_and_rebuilt(fleet: &mut Fleet) -> Outcome<()> {
    let leader = fleet.leader()?;
    let bad = leader % 3 + 1;
    let disk = members::disk_of(fleet, leader, bad)?;
    let mut client = connect(fleet.server(leader).clients)?;
    write(&mut client, PATH, b"as it was written")?;
    if read(&mut connect(fleet.server(bad).clients)?, PATH)? != b"as it was written" {
        return Err("it is not there before anything happens".into());
    }
    fleet.server_mut(bad).stop()?;
    rot(&fleet.server(bad).data())?;
    fleet.start(bad)?;
    fleet.server_mut(bad).serves()?;
    // This is the harm: nobody knows yet.
    let mut misled = connect(fleet.server(bad).clients)?;
    if read(&mut misled, PATH)? == b"as it was written" {
        return Err("nothing went bad".into());
    }
    write(&mut client, PATH, b"as it was written later")?;
    fleet.until("it is found, and says so", |fleet| {
        status(fleet, bad).is_ok_and(|(exit, status)| exit == 1 && status.tree_differs && !status.serving)
    })?;
    fleet.ask(bad, &["status"])?.must(1, "warren rebuild --yes")?;
    let word = fleet.server(bad).word("srvr")?;
    if !word.contains("not currently serving") || !word.contains("Its tree is not what the log makes") {
        return Err(format!("srvr tells {word:?}").into());
    }
    // The client that it misled is sent away, and no other comes in; those of the others notice nothing.
    let gone = eventually(|| misled.wait_event(Duration::from_millis(10)).is_err());
    let closed = Connection::connect(fleet.server(bad).clients, &Options::default()).is_err();
    if !gone || !closed {
        return Err(format!("clients are still served: {gone} {closed}").into());
    }
    write(&mut client, PATH, b"as it was written last")?;
    for id in [leader, bad % 3 + 1].into_iter().filter(|id| *id != bad) {
        if !status(fleet, id)?.1.serving {
            return Err(format!("server {id} serves no more").into());
        }
    }

    // A restart forgets nothing, and does not help: the checkpoint has it.
    fleet.server_mut(bad).kill();
    fleet.start(bad)?;
    fleet.until("the restarted one is judged again", |fleet| {
        fleet.server(bad).log().contains("the fault is in its last checkpoint")
    })?;
    if status(fleet, bad)?.1.serving {
        return Err("it serves".into());
    }
    fleet.ask(bad, &["force-quorum", "--yes-i-lose-data"])?.must(1, "must not be the one that is left")?;

    let leader = fleet.leader()?;
    fleet.ask(bad, &["rebuild"])?.must(64, "--yes")?;
    fleet.ask(leader, &["rebuild", "--yes"])?.must(1, "this server leads")?;
    fleet.ask(bad, &["rebuild", "--yes"])?.must(0, "takes them from the others")?;
    fleet.server_mut(bad).serves()?;
    members::until_all_know(fleet, bad, Some(("voter", disk + 1)))?;
    all_well(fleet)?;
    match read(&mut connect(fleet.server(bad).clients)?, PATH)?.as_slice() {
        b"as it was written last" => Ok(()),
        other => Err(format!("it has {:?} now", String::from_utf8_lossy(other)).into()),
    }
}
