//! A disk that fills up: the daemon refuses what would grow, does everything else, and goes on by itself when there is
//! space again.

use super::daemon::{Daemon, LOOK_EVERY, PATIENCE, eventually};
use super::rng::Rng;
use std::fs;
use std::io;
use std::path::Path;
use warren_storage::{AclRef, Code, CreateMode, IdRef, Op, perms};
use warren_transport::client::ReplyError;
use warren_transport::io::blocking::{Connection, Options};
use warren_transport::{Change, Opcode, Request, Response};

/// What the daemon keeps free; the disk must be several times as large.
const RESERVE_MB: u64 = 100;
const SETTINGS: &str = "\
[sessions]\ntick_ms = 100\ntimeout_ms_min = 500\ntimeout_ms_max = 60000\n\
[limits]\nmemory_mb = 16\n[storage]\nsegment_mb = 8\ndisk_reserve_mb = 100\n";
/// Bytes of each znode that fills the disk.
const ZNODE_BYTES: usize = 256 << 10;
/// More than a disk that is small has space for.
const ASKED_MAX: usize = 20_000;
/// Refused so often it is full; longer than a checkpoint and the next look at free space take.
const REFUSED_IN_A_ROW: u32 = 500;
const MORTAL: &str = "/mortal";
const ANYONE: AclRef<'static> = AclRef { perms: perms::ALL, id: IdRef { scheme: "world", id: "anyone" } };

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

struct Trial {
    daemon: Daemon,
    connection: Connection,
    /// A session with an ephemeral, to be closed.
    mortal: Option<Connection>,
    /// Znodes that were acknowledged and not deleted.
    there: Vec<usize>,
    next: usize,
}

/// Try it on the disk that `folder` is on, and print what holds. The disk must be small and ours alone.
pub fn run(warrend: &Path, folder: &Path) -> bool {
    let mut trial = match Trial::begin(warrend, folder) {
        Ok(trial) => trial,
        Err(e) => {
            println!("FAIL disk: it does not begin: {e}");
            return false;
        }
    };
    type Step = fn(&mut Trial, &Path) -> Outcome<()>;
    let steps: [(&str, Step); 8] = [
        ("a filling disk refuses writes with an error, and says so", Trial::fill),
        ("reads, deletes, pings and closes go on", Trial::goes_on),
        ("sessions that end take their ephemerals with them", Trial::sessions_end),
        ("kill -9 and a restart on the full disk lose nothing, and it fills up again", Trial::restart),
        ("space that returns brings the service back by itself", Trial::space_returns),
        ("it fills up again", Trial::fill),
        ("everything can be deleted on a full disk", Trial::delete_all),
        ("SIGTERM and a restart lose nothing", Trial::stop_and_start),
    ];
    let mut sound = true;
    for (what, step) in steps {
        match step(&mut trial, folder) {
            Ok(()) => println!("PASS disk: {what}"),
            Err(e) => {
                println!("FAIL disk: {what}: {e}");
                sound = false;
            }
        }
    }
    sound
}

impl Trial {
    fn begin(warrend: &Path, folder: &Path) -> Outcome<Trial> {
        // What is freed later.
        let ballast = fs::File::create(folder.join("ballast"))?;
        rustix::fs::fallocate(&ballast, rustix::fs::FallocateFlags::empty(), 0, RESERVE_MB << 20)?;
        let mut rng = Rng::new(u64::from(std::process::id()));
        let mut daemon = Daemon::new(warrend, folder, SETTINGS, &mut rng)?;
        daemon.start()?;
        let connection = connect(&daemon)?;
        let mut mortal = connect(&daemon)?;
        ask(&mut mortal, MORTAL, CreateMode::Ephemeral, b"")?;
        Ok(Trial { daemon, connection, mortal: Some(mortal), there: Vec::new(), next: 0 })
    }

    fn refuses(&self) -> io::Result<bool> {
        Ok(self.daemon.metric("warren_disk_below_reserve")? == 1.0)
    }

    /// One more znode; `false` when it is refused.
    fn grow(&mut self) -> Outcome<bool> {
        let n = self.next;
        let created = ask(&mut self.connection, &path(n), CreateMode::Persistent, &bytes_of(n))?;
        if created {
            self.there.push(n);
            self.next += 1;
        }
        Ok(created)
    }

    /// Until it refuses for good: a checkpoint that comes after the first refusal frees some of the log.
    fn fill(&mut self, _: &Path) -> Outcome<()> {
        let mut refused_in_a_row = 0;
        for _ in 0..ASKED_MAX {
            if self.grow()? {
                refused_in_a_row = 0;
                continue;
            }
            refused_in_a_row += 1;
            if refused_in_a_row == REFUSED_IN_A_ROW {
                if !self.refuses()? {
                    return Err("warren_disk_below_reserve is not 1".into());
                }
                if self.daemon.metric("warren_disk_refusals_total")? < 1.0 {
                    return Err("warren_disk_refusals_total counts nothing".into());
                }
                return Ok(());
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Err(format!("of {ASKED_MAX} writes there were never {REFUSED_IN_A_ROW} refused in a row").into())
    }

    fn goes_on(&mut self, _: &Path) -> Outcome<()> {
        self.everything_is_there()?;
        self.connection.ping()?;
        let gone = self.there.pop().ok_or("nothing was written")?;
        let path = path(gone);
        let op = Op::Delete { path: &path, version: -1 };
        self.connection.call(&Request::Change(Change { opcode: Opcode::Delete, op }))?.response()?;
        if self.grow()? {
            return Err("a write that grows was taken, though one delete does not make space".into());
        }
        Ok(())
    }

    fn sessions_end(&mut self, _: &Path) -> Outcome<()> {
        self.mortal.take().ok_or("it was closed before")?.close()?;
        let reply = self.connection.call(&Request::Exists { path: MORTAL, watch: false })?;
        if !matches!(reply.response(), Err(ReplyError::Refused(Code::NoNode))) {
            return Err(format!("{MORTAL} is left over").into());
        }
        // One session is only dropped, and so expires.
        let options = Options { timeout_ms: 500, ..Options::default() };
        let dropped = Connection::connect(self.daemon.clients, &options)?;
        let before = self.daemon.metric("stale_sessions_expired")?;
        drop(dropped);
        if !eventually(|| self.daemon.metric("stale_sessions_expired").is_ok_and(|now| now > before)) {
            return Err("a session that nobody keeps alive does not expire".into());
        }
        Ok(())
    }

    fn restart(&mut self, folder: &Path) -> Outcome<()> {
        self.daemon.kill();
        self.daemon.start()?;
        self.reattach()?;
        self.everything_is_there()?;
        // The log leaves space when it is opened anew, so it may take some.
        self.fill(folder)
    }

    fn space_returns(&mut self, folder: &Path) -> Outcome<()> {
        fs::remove_file(folder.join("ballast"))?;
        self.service_returns()
    }

    fn delete_all(&mut self, _: &Path) -> Outcome<()> {
        for n in std::mem::take(&mut self.there) {
            let path = path(n);
            let op = Op::Delete { path: &path, version: -1 };
            self.connection.call(&Request::Change(Change { opcode: Opcode::Delete, op }))?.response()?;
        }
        let reply = self.connection.call(&Request::GetAllChildrenNumber { path: "/" })?;
        match reply.response()? {
            // /zookeeper, its config, its quota.
            Response::Number(3) => Ok(()),
            left => Err(format!("after all deletes there is {left:?}").into()),
        }
    }

    fn service_returns(&mut self) -> Outcome<()> {
        if !eventually(|| !self.refuses().unwrap_or(true)) {
            let free = self.daemon.metric("warren_disk_free_bytes")? / 1_048_576.0;
            return Err(format!("it still refuses after {PATIENCE:?}, with {free:.0} MiB free").into());
        }
        // The gauge is set just before the rule is changed.
        let mut taken = Ok(false);
        eventually(|| {
            taken = self.grow();
            !matches!(taken, Ok(false))
        });
        if taken? { self.everything_is_there() } else { Err("writes are still refused".into()) }
    }

    fn stop_and_start(&mut self, _: &Path) -> Outcome<()> {
        self.daemon.stop()?;
        self.daemon.start()?;
        self.reattach()?;
        self.everything_is_there()
    }

    fn reattach(&mut self) -> Outcome<()> {
        let mut last = Ok(());
        eventually(|| {
            last = self.connection.reconnect(self.daemon.clients);
            last.is_ok()
        });
        Ok(last?)
    }

    fn everything_is_there(&mut self) -> Outcome<()> {
        for n in self.there.clone() {
            let reply = self.connection.call(&Request::GetData { path: &path(n), watch: false })?;
            match reply.response()? {
                Response::Data(Some(data), _) if data == bytes_of(n) => {}
                _ => return Err(format!("{} is not what was written", path(n)).into()),
            }
        }
        Ok(())
    }
}

fn connect(daemon: &Daemon) -> Outcome<Connection> {
    let options = Options { timeout_ms: 60_000, ..Options::default() };
    let mut last = Connection::connect(daemon.clients, &options);
    eventually(|| {
        last.is_ok() || {
            last = Connection::connect(daemon.clients, &options);
            false
        }
    });
    Ok(last?)
}

fn path(n: usize) -> String {
    format!("/n{n:06}")
}

fn bytes_of(n: usize) -> Vec<u8> {
    n.to_be_bytes().into_iter().cycle().take(ZNODE_BYTES).collect()
}

/// Create a znode; `false` when it is refused for want of space, which no other refusal may pass for.
fn ask(connection: &mut Connection, path: &str, mode: CreateMode, data: &[u8]) -> Outcome<bool> {
    let op = Op::Create { path, data: Some(data), acl: vec![ANYONE], mode, ttl: -1 };
    let reply = connection.call(&Request::Change(Change { opcode: Opcode::Create, op }))?;
    match reply.response() {
        Ok(_) => Ok(true),
        Err(ReplyError::Refused(Code::QuotaExceeded)) => Ok(false),
        Err(e) => Err(Box::new(e)),
    }
}
