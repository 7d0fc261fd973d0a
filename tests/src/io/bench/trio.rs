//! Three servers of either kind, and what is done to them.

use super::server::{Measured, Server};
use crate::io::daemon::{LOOK_EVERY, PATIENCE, free_port};
use crate::io::ensemble::Servers;
use crate::sim::Dice;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use warren_transport::io::blocking::{Connection, Options, four_letter_word};

pub(super) const COUNT: usize = 3;
/// A word is answered by then.
const WORD_WITHIN: Duration = Duration::from_secs(2);
/// A leader waits for its followers, and they for it, so many ticks of 500 ms: ZooKeeper's defaults at its own tick.
const ZOOKEEPER_LIMITS: &str = "initLimit=40\nsyncLimit=20\n";

/// How a server goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Killed,
    Stopped,
}

enum Members {
    Warren(Box<Servers>),
    ZooKeeper(Vec<Server>),
}

/// An ensemble of three.
pub(super) struct Trio {
    pub(super) kind: &'static str,
    at: Vec<SocketAddr>,
    members: Members,
}

impl Trio {
    /// Three of ours, with the settings that they come with, which serve when this returns.
    pub(super) fn warren(warrend: &Path, folder: &Path, dice: &mut Dice) -> io::Result<Trio> {
        let mut servers = Servers::direct(warrend, folder, COUNT, "", None, dice)?;
        servers.start()?;
        let at = servers.daemons.iter().map(|daemon| daemon.clients).collect();
        Ok(Trio { kind: "warren", at, members: Members::Warren(Box::new(servers)) })
    }

    /// Three of ZooKeeper's.
    pub(super) fn zookeeper(script: &Path, folder: &Path, dice: &mut Dice) -> io::Result<Trio> {
        let ports: Vec<[u16; 3]> = (0..COUNT).map(|_| [(); 3].map(|()| free_port(dice))).collect();
        let mut config = ZOOKEEPER_LIMITS.to_owned();
        for (place, [_, quorum, election]) in ports.iter().enumerate() {
            config += &format!("server.{}=127.0.0.1:{quorum}:{election}\n", place + 1);
        }
        let mut servers = Vec::new();
        for (place, [client, ..]) in ports.iter().enumerate() {
            let own = folder.join((place + 1).to_string());
            fs::create_dir_all(own.join("data"))?;
            fs::write(own.join("data/myid"), format!("{}\n", place + 1))?;
            fs::write(own.join("extra.cfg"), &config)?;
            servers.push(Server::new("zookeeper", script, own, *client)?);
        }
        // Each serves only once there are two.
        std::thread::scope(|scope| {
            let starting: Vec<_> =
                servers.iter().map(|server| scope.spawn(|| server.control("start"))).collect();
            starting.into_iter().try_for_each(|started| {
                started.join().map_err(|_| io::Error::other("a start panicked"))?.map(drop)
            })
        })?;
        let at = servers.iter().map(|server| server.at).collect();
        Ok(Trio { kind: "zookeeper", at, members: Members::ZooKeeper(servers) })
    }

    /// Wait for the one that leads.
    pub(super) fn leader(&self) -> io::Result<usize> {
        let until = Instant::now() + PATIENCE;
        loop {
            let leads = |at: &SocketAddr| {
                four_letter_word(*at, "srvr", WORD_WITHIN).is_ok_and(|a| a.contains("Mode: leader"))
            };
            if let Some(place) = self.at.iter().position(leads) {
                return Ok(place);
            }
            if Instant::now() >= until {
                return Err(io::Error::other(format!("no server of {} leads", self.kind)));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// All three, with the clients at the leader, or at a server that follows it.
    pub(super) fn seen_from(&self, leader: bool) -> io::Result<SeenFrom<'_>> {
        let place = self.leader()?;
        let place = if leader { place } else { (place + 1) % COUNT };
        Ok(SeenFrom { trio: self, at: self.at[place] })
    }

    /// End this server.
    pub(super) fn end(&mut self, place: usize, how: How) -> io::Result<()> {
        match (&mut self.members, how) {
            (Members::Warren(servers), How::Killed) => {
                servers.daemons[place].kill();
                Ok(())
            }
            (Members::Warren(servers), How::Stopped) => servers.daemons[place].stop(),
            (Members::ZooKeeper(servers), How::Killed) => servers[place].control("kill").map(drop),
            (Members::ZooKeeper(servers), How::Stopped) => servers[place].control("stop").map(drop),
        }
    }

    /// Start it again, and wait until all of them take sessions.
    pub(super) fn start(&mut self, place: usize) -> io::Result<()> {
        match &mut self.members {
            Members::Warren(servers) => servers.daemons[place].start()?,
            Members::ZooKeeper(servers) => servers[place].control("start").map(drop)?,
        }
        for at in &self.at {
            let until = Instant::now() + PATIENCE;
            loop {
                match Connection::connect(*at, &Options::default()).and_then(Connection::close) {
                    Ok(()) => break,
                    Err(e) if Instant::now() >= until => return Err(io::Error::other(e)),
                    Err(_) => std::thread::sleep(LOOK_EVERY),
                }
            }
        }
        Ok(())
    }

    /// Have the leader hand over; only ours can.
    pub(super) fn hand_over(&self, leader: usize) -> io::Result<()> {
        match &self.members {
            Members::Warren(servers) => servers.hand_over(leader),
            Members::ZooKeeper(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    pub(super) fn can_hand_over(&self) -> bool {
        matches!(self.members, Members::Warren(_))
    }
}

impl Measured for Trio {
    fn at(&self) -> &[SocketAddr] {
        &self.at
    }

    fn pids(&self) -> io::Result<Vec<u32>> {
        match &self.members {
            Members::Warren(servers) => {
                let pid = |daemon: &crate::io::daemon::Daemon| {
                    daemon.pid().ok_or_else(|| io::Error::other("a server is down"))
                };
                servers.daemons.iter().map(pid).collect()
            }
            Members::ZooKeeper(servers) => servers.iter().map(Server::pid).collect(),
        }
    }
}

/// An ensemble whose clients are all at one server.
pub(super) struct SeenFrom<'a> {
    trio: &'a Trio,
    at: SocketAddr,
}

impl Measured for SeenFrom<'_> {
    fn at(&self) -> &[SocketAddr] {
        std::slice::from_ref(&self.at)
    }

    fn pids(&self) -> io::Result<Vec<u32>> {
        self.trio.pids()
    }
}
