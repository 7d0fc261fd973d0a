//! `warren restart`: this process becomes the next one, of the program and the settings that are on the disk now, and keeps
//! its clients' connections.
//!
//! 1. The next program is asked whether it can use the settings ([`Registry::restart`]); if not, nothing happens.
//! 2. A checkpoint is made while everybody is served, so that the last one is small. A leader hands leadership over.
//! 3. Connections answer what they took, and wait ([`Leave::Park`](super::clients::Leave)). The listener stays: who comes now
//!    waits in the kernel.
//! 4. The engine stops, as for any stop. Then nothing is applied any more, and each connection tells its last events and is
//!    written down ([`Kept`]).
//! 5. The process executes the next program, with its own command line ([`become_next`]). The sockets go along.
//! 6. The next process opens the store. If its tree is the one that the connections were kept with, it arms their watches
//!    before it applies anything, and moves their sessions to itself ([`resume`]); otherwise they are closed, and clients
//!    connect anew.
//!
//! A client notices that an answer took longer than usual, and nothing else.

mod pass;

use super::clients::{self, Arrival};
use super::facts::Registry;
use crate::admin::Response;
use crate::connection::{Connection, Effects, Kept, Limits};
use crate::room::Room;
pub(super) use pass::{Taken, become_next, receive};
use std::io::{self, Read as _};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use warren_storage::Zxid;

/// The next program may take so long to read the settings.
const CHECK_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks whether it has.
const CHECK_EVERY: Duration = Duration::from_millis(10);
/// Of what it says when it cannot, bytes.
const COMPLAINT_BYTES_MAX: u64 = 4 << 10;

/// What goes to the next process.
pub(super) struct Handed {
    /// Of the tree that the connections were told of.
    pub(super) zxid: Zxid,
    pub(super) listener: Option<TcpListener>,
    pub(super) connections: Vec<(Kept, OwnedFd)>,
}

static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Remember where the program is, before an upgrade puts another in its place: the kernel then names the one that runs.
pub(super) fn remember_program() {
    if let Ok(program) = std::env::current_exe() {
        let _ = PROGRAM.set(program);
    }
}

/// The program that the next process is of.
///
/// # Errors
/// When the system did not tell at the start where this one is.
pub(super) fn next_program() -> io::Result<Command> {
    let program = PROGRAM.get().ok_or_else(|| io::Error::other("it is not known where the program is"))?;
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1));
    Ok(command)
}

impl Registry {
    /// To [`crate::admin::Request::Restart`]. Who answers [`Response::Done`] asks for it then, by [`Registry::restart`].
    pub(super) async fn restart(&self) -> Response {
        let checked = tokio::task::spawn_blocking(check_next).await;
        if let Err(why) = checked.unwrap_or_else(|e| Err(e.to_string())) {
            return Response::Refused(format!("{why}. Nothing was done; this server goes on as it is"));
        }
        Response::Done("this server begins anew, and keeps its clients' connections".to_owned())
    }
}

/// Can the program on the disk use the settings on the disk?
fn check_next() -> Result<(), String> {
    let cannot = |e: io::Error| format!("the program cannot be started: {e}");
    let mut command = next_program().map_err(cannot)?;
    command.arg("--check-config").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(cannot)?;
    let until = Instant::now() + CHECK_WITHIN;
    let status = loop {
        match child.try_wait().map_err(cannot)? {
            Some(status) => break status,
            None if Instant::now() >= until => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!(
                    "the program did not read the settings within {} s",
                    CHECK_WITHIN.as_secs()
                ));
            }
            None => std::thread::sleep(CHECK_EVERY),
        }
    };
    if status.success() {
        return Ok(());
    }
    let mut complaint = Vec::new();
    if let Some(said) = child.stderr.take() {
        let _ = said.take(COMPLAINT_BYTES_MAX).read_to_end(&mut complaint);
    }
    Err(format!("the next process would not start: {}", String::from_utf8_lossy(&complaint).trim()))
}

/// Go on with the connections of the process before. To be called once the room has its first snapshot, before anything is
/// applied.
pub(super) fn resume(taken: Taken, limits: &Arc<Limits>, room: &Room) -> Vec<Arrival> {
    let Taken { zxid, connections, mut lost, .. } = taken;
    let mut resumed = Vec::with_capacity(connections.len());
    if zxid != room.zxid() {
        tracing::warn!(
            told = format_args!("{:#x}", zxid.0),
            found = format_args!("{:#x}", room.zxid().0),
            "this server begins with another tree than the process before ended with, so that watches would miss changes"
        );
        lost += connections.len();
    } else {
        for (kept, stream) in connections {
            // One whose client has gone since has no address.
            let Ok(peer) = stream.peer_addr() else { continue };
            let id = resumed.len() as u64 + 1;
            let (mailbox, notify) = clients::mailbox(id);
            let mut effects = Effects::default();
            let connection = Connection::resume(&kept, peer, mailbox, limits.clone(), room, &mut effects);
            let (input, out) = (kept.input[..].into(), kept.unsent);
            resumed.push(Arrival { id, stream: stream.into(), connection, notify, effects, input, out });
        }
    }
    tracing::info!(kept = resumed.len(), closed = lost, "goes on with the connections of the process before");
    resumed
}
