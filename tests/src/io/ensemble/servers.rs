//! Servers of one ensemble as processes, with a network between them that does what it is told.

use crate::io::daemon::{Daemon, LOOK_EVERY, PATIENCE, eventually, free_port};
use crate::io::relay::Relay;
use crate::sim::Dice;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use warren_server::admin::{self, Request, Response};
use warren_transport::io::blocking::four_letter_word;
use warren_transport::io::certs;

/// Of the ensemble, and of its certificates.
const NAME: &str = "trial";
/// A word is answered by then, by a server that is not held up.
const WORD_WITHIN: Duration = Duration::from_secs(1);

/// The servers. Places count from 0, ids from 1.
pub(in crate::io) struct Servers {
    pub(in crate::io) daemons: Vec<Daemon>,
    /// The first so many of them; the others observe.
    voters: usize,
    /// `None`: they reach each other directly.
    relay: Option<Relay>,
    /// Where each listens to the others.
    pub(in crate::io) peers: Vec<SocketAddr>,
    authority: PathBuf,
}

/// The id of the server in this place.
pub(in crate::io) fn id(place: usize) -> u8 {
    u8::try_from(place + 1).expect("there are fewer than 256")
}

impl Servers {
    /// So many that vote and so many that observe, each in a folder of its own below `folder`, or where `elsewhere` says; not
    /// started yet. All that they say to each other passes a relay.
    pub(in crate::io) fn new(
        warrend: &Path,
        folder: &Path,
        (voters, observers): (usize, usize),
        settings: &str,
        elsewhere: Option<(usize, &Path)>,
        dice: &mut Dice,
    ) -> io::Result<Servers> {
        let mut servers = Servers::direct(warrend, folder, voters + observers, settings, elsewhere, dice)?;
        servers.voters = voters;
        let listening: BTreeMap<u8, SocketAddr> =
            servers.peers.iter().enumerate().map(|(place, peer)| (id(place), *peer)).collect();
        servers.relay = Some(Relay::start(&listening, dice.fork())?);
        servers.configure(settings)?;
        Ok(servers)
    }

    /// So many that vote, without a relay.
    pub(in crate::io) fn direct(
        warrend: &Path,
        folder: &Path,
        count: usize,
        settings: &str,
        elsewhere: Option<(usize, &Path)>,
        dice: &mut Dice,
    ) -> io::Result<Servers> {
        let authority = folder.join("authority");
        certs::init(&authority, NAME).map_err(io::Error::other)?;
        let mut daemons = Vec::new();
        for place in 0..count {
            let below = elsewhere.filter(|(there, _)| *there == place).map_or(folder, |(_, folder)| folder);
            let own = below.join(id(place).to_string());
            let mut daemon = Daemon::new(warrend, &own, "", dice)?;
            while daemons.iter().any(|other: &Daemon| other.clients == daemon.clients) {
                daemon = Daemon::new(warrend, &own, "", dice)?;
            }
            daemons.push(daemon);
        }
        let mut peers = Vec::new();
        while peers.len() < count {
            let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port(dice)));
            if !peers.contains(&peer) && UdpSocket::bind(peer).is_ok() {
                peers.push(peer);
            }
        }
        let servers = Servers { daemons, voters: count, relay: None, peers, authority };
        servers.places().try_for_each(|place| servers.certify(place))?;
        servers.configure(settings)?;
        Ok(servers)
    }

    fn configure(&self, settings: &str) -> io::Result<()> {
        self.places().try_for_each(|place| self.daemons[place].configure(&self.settings(place, settings)))
    }

    /// The network between them.
    pub(in crate::io) fn relay(&self) -> &Relay {
        self.relay.as_ref().expect("these servers have one between them")
    }

    /// All servers stand in the list with their faces, and listen elsewhere.
    fn settings(&self, place: usize, more: &str) -> String {
        let mut text = format!(
            "{more}[ensemble]\nname = \"{NAME}\"\nserver_id = {}\npeer_addr = \"{}\"\ncert = \"{}\"\nca = \"{}\"\n",
            id(place),
            self.peers[place],
            self.cert(place).display(),
            self.authority.join(certs::CA_FILE).display()
        );
        for (place, daemon) in self.daemons.iter().enumerate() {
            let _ = write!(
                text,
                "[[ensemble.server]]\nid = {}\npeer_addr = \"{}\"\nclient_addr = \"{}\"\nrole = \"{}\"\n",
                id(place),
                self.relay.as_ref().map_or(self.peers[place], |relay| relay.face(id(place))),
                daemon.clients,
                if self.voters().contains(&place) { "voter" } else { "observer" }
            );
        }
        text
    }

    /// Its certificate and key.
    pub(in crate::io) fn cert(&self, place: usize) -> PathBuf {
        self.daemons[place].folder().join("server.pem")
    }

    /// Where the authority's certificate is.
    pub(in crate::io) fn authority(&self) -> &Path {
        &self.authority
    }

    /// A new certificate of the same authority.
    pub(in crate::io) fn certify(&self, place: usize) -> io::Result<()> {
        certs::issue(&self.authority, id(place))
            .and_then(|pem| certs::write_secret(&self.cert(place), &pem))
            .map_err(io::Error::other)
    }

    /// Start all of them and wait until they serve.
    pub(in crate::io) fn start(&mut self) -> io::Result<()> {
        self.daemons.iter_mut().try_for_each(Daemon::spawn)?;
        self.daemons.iter_mut().try_for_each(Daemon::serving)
    }

    /// SIGTERM to each in turn.
    pub(in crate::io) fn stop(&mut self) -> io::Result<()> {
        self.daemons.iter_mut().try_for_each(Daemon::stop)
    }

    /// The places.
    pub(in crate::io) fn places(&self) -> std::ops::Range<usize> {
        0..self.daemons.len()
    }

    /// Of those that vote.
    pub(in crate::io) fn voters(&self) -> std::ops::Range<usize> {
        0..self.voters
    }

    /// Of those that observe.
    pub(in crate::io) fn observers(&self) -> std::ops::Range<usize> {
        self.voters..self.daemons.len()
    }

    /// Does this server say that it leads?
    pub(in crate::io) fn leads(&self, place: usize) -> bool {
        self.daemons[place].pid().is_some()
            && four_letter_word(self.daemons[place].clients, "srvr", WORD_WITHIN)
                .is_ok_and(|answer| answer.contains("Mode: leader"))
    }

    /// Wait for one that leads, of those that are not in `except`.
    pub(in crate::io) fn leader(&self, except: &[usize]) -> io::Result<usize> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(place) = self.places().find(|place| !except.contains(place) && self.leads(*place)) {
                return Ok(place);
            }
            if Instant::now() >= until {
                return Err(io::Error::other(format!("of the servers besides {except:?} none leads")));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// One that votes and does not lead.
    pub(in crate::io) fn follower(&self, dice: &mut Dice) -> io::Result<usize> {
        let leader = self.leader(&[])?;
        let followers: Vec<usize> = self.voters().filter(|place| *place != leader).collect();
        Ok(*dice.pick(&followers))
    }

    /// Ask the leader to hand over, and wait until it has.
    pub(in crate::io) fn hand_over(&self, leader: usize) -> io::Result<()> {
        self.hand_over_to(leader, None)
    }

    /// The same, to a certain one.
    pub(super) fn hand_over_to(&self, leader: usize, to: Option<usize>) -> io::Result<()> {
        match self.ask(leader, &Request::TransferLeader { to: to.map(id) })? {
            Response::Done(_) => Ok(()),
            other => Err(io::Error::other(format!("leadership was not handed over: {other:?}"))),
        }
    }

    /// Have a server begin anew in place, and wait until the next process serves.
    pub(in crate::io) fn begin_anew(&self, place: usize) -> io::Result<()> {
        let run = |place| match self.ask(place, &Request::Status) {
            Ok(Response::Status(status)) => Some((status.run, status.serving)),
            _ => None,
        };
        let Some((before, _)) = run(place) else {
            return Err(io::Error::other("it does not say how it is"));
        };
        match self.ask(place, &Request::Restart)? {
            Response::Done(_) => {}
            other => return Err(io::Error::other(format!("it does not begin anew: {other:?}"))),
        }
        match eventually(|| run(place).is_some_and(|(now, serves)| now != before && serves)) {
            true => Ok(()),
            false => Err(io::Error::other(format!("server {} does not serve again", id(place)))),
        }
    }

    fn ask(&self, place: usize, request: &Request) -> io::Result<Response> {
        let socket = self.daemons[place].folder().join("data").join(admin::SOCKET);
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(admin::line(request).as_bytes())?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        Ok(serde_json::from_str(&answer)?)
    }
}
