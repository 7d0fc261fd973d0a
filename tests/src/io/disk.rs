//! A disk that fills up: the daemon refuses what would grow, does everything else, and goes on by itself when there is
//! space again.

use super::crash;
use super::daemon::{Daemon, LOOK_EVERY, PATIENCE, eventually};
use crate::sim::Dice;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use warren_storage::{AclRef, Code, CreateMode, IdRef, Op, perms};
use warren_transport::client::ReplyError;
use warren_transport::io::blocking::{Connection, Options};
use warren_transport::{Change, Opcode, Request, Response};

/// What the daemon keeps free; the disk must be several times as large.
const RESERVE_MB: u64 = 100;
/// Bytes of each znode that fills the disk.
const ZNODE_BYTES: usize = 256 << 10;
/// More than a disk that is small has space for.
const ASKED_MAX: usize = 20_000;
/// Refused so often it is full; longer than a checkpoint and the next look at free space take.
const REFUSED_IN_A_ROW: u32 = 500;
/// Writes to a disk without a free byte: twice what makes a checkpoint due there, which is 4 MiB.
const BRIMFUL_WRITES: usize = 32;
/// A share of what was deleted, in znodes, finds space again: some of it is needed to write checkpoints.
const REUSED_SHARE: usize = 4;
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
    deleted: usize,
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
    let steps: [(&str, Step); 11] = [
        ("a filling disk refuses writes with an error, and says so", Trial::fill),
        ("reads, deletes, pings and closes go on", Trial::goes_on),
        (
            "others fill it to the last byte, and checkpoints are still made, from what was set aside",
            Trial::brimful,
        ),
        ("when that is eaten, too, writes wait and reads go on until there is space", Trial::nothing_left),
        ("sessions that end take their ephemerals with them", Trial::sessions_end),
        ("kill -9 and a restart on the full disk lose nothing, and it fills up again", Trial::restart),
        ("space that returns brings the service back by itself", Trial::space_returns),
        ("it fills up again", Trial::fill),
        ("everything can be deleted on a full disk", Trial::delete_all),
        ("deletes alone bring the service back", Trial::deletes_help),
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
        let mut dice = Dice::new(u64::from(std::process::id()));
        let mut daemon = Daemon::new(warrend, folder, &crash::settings(16, 8, RESERVE_MB), &mut dice)?;
        daemon.start()?;
        let connection = connect(&daemon)?;
        let mut mortal = connect(&daemon)?;
        ask(&mut mortal, MORTAL, CreateMode::Ephemeral, b"")?;
        Ok(Trial { daemon, connection, mortal: Some(mortal), there: Vec::new(), next: 0, deleted: 0 })
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

    /// Writes that do not grow go on, and so do checkpoints, from what was set aside.
    fn brimful(&mut self, folder: &Path) -> Outcome<()> {
        let set_aside = self.daemon.metric("warren_disk_set_aside_bytes")?;
        if set_aside < (RESERVE_MB << 20) as f64 / 8.0 {
            return Err(format!("only {set_aside} bytes are set aside").into());
        }
        fill_up(&fs::File::create(folder.join("greedy"))?);
        let before = self.daemon.metric("snapshottime_count")?;
        for _ in 0..BRIMFUL_WRITES {
            if self.grow()? {
                return Err("a write that grows was taken on a disk without a free byte".into());
            }
            rewrite(&mut self.connection, *self.there.last().ok_or("nothing was written")?)?;
        }
        if !eventually(|| self.daemon.metric("snapshottime_count").is_ok_and(|now| now > before)) {
            return Err("no checkpoint was made".into());
        }
        self.everything_is_there()?;
        fs::remove_file(folder.join("greedy"))?;
        if !eventually(|| self.daemon.metric("warren_disk_set_aside_bytes").is_ok_and(|now| now >= set_aside))
        {
            return Err("nothing is set aside again, though there is space".into());
        }
        Ok(())
    }

    /// What was set aside is eaten, too, as soon as the daemon gives it back.
    fn nothing_left(&mut self, folder: &Path) -> Outcome<()> {
        let greedy = fs::File::create(folder.join("greedy"))?;
        let last = *self.there.last().ok_or("nothing was written")?;
        let mut other = connect(&self.daemon)?;
        let enough = AtomicBool::new(false);
        let (waited, wrote) = std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                while !enough.load(Ordering::Relaxed) {
                    rewrite(&mut other, last).map_err(|e| e.to_string())?;
                }
                Ok::<(), String>(())
            });
            let waited = self.waits(&greedy).and_then(|()| self.everything_is_there());
            enough.store(true, Ordering::Relaxed);
            let _ = fs::remove_file(folder.join("greedy"));
            drop(greedy);
            (waited, writer.join().unwrap_or_else(|_| Err("the writer panicked".into())))
        });
        waited?;
        wrote?;
        if self.waiting()? {
            Err("it still waits, though there is space".into())
        } else {
            self.everything_is_there()
        }
    }

    fn waiting(&self) -> io::Result<bool> {
        // The gauge is as old as the last look at the disk, which comes every second.
        let mut waiting = Ok(true);
        eventually(|| {
            waiting = self.daemon.metric("warren_disk_waiting").map(|waiting| waiting == 1.0);
            !matches!(waiting, Ok(true))
        });
        waiting
    }

    fn waits(&self, greedy: &fs::File) -> Outcome<()> {
        let waits = || {
            fill_up(greedy);
            self.daemon.metric("warren_disk_waiting").is_ok_and(|waiting| waiting == 1.0)
        };
        if eventually(waits) { Ok(()) } else { Err("no write waits on a disk without a free byte".into()) }
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
        self.deleted = self.there.len();
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

    /// The tree's file stays as large as it was, and has space in it.
    fn deletes_help(&mut self, folder: &Path) -> Outcome<()> {
        self.service_returns()?;
        self.fill(folder)?;
        let (deleted, again) = (self.deleted, self.there.len());
        if again < deleted / REUSED_SHARE {
            return Err(format!("after {deleted} znodes were deleted there was space for {again}").into());
        }
        Ok(())
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

/// A write that does not grow: what the znode has, once more.
fn rewrite(connection: &mut Connection, n: usize) -> Outcome<()> {
    let (path, data) = (path(n), bytes_of(n));
    let op = Op::SetData { path: &path, data: Some(&data), version: -1 };
    connection.call(&Request::Change(Change { opcode: Opcode::SetData, op }))?.response()?;
    Ok(())
}

/// To the last byte.
fn fill_up(file: &fs::File) {
    for piece in [&[1; 64 << 10][..], &[1; 4 << 10][..]] {
        while io::Write::write_all(&mut &*file, piece).is_ok() {}
    }
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
