//! Many connections on one thread: a request costs the client little, so that it is the server that is measured.

use bytes::BytesMut;
use rustix::event::epoll;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use warren_transport::client::{Client, Incoming, Reply, State};
use warren_transport::{Request, WatcherEvent, take_frame};

const PACKET_BYTES_MAX: usize = 64 << 20;
/// Read at once.
const READ_BYTES: usize = 64 << 10;
/// How long nothing may happen before a run is given up.
const SILENCE_MAX: Duration = Duration::from_secs(30);
const SESSION_MS: i32 = 30_000;

struct Link {
    stream: TcpStream,
    client: Client,
    out: Vec<u8>,
    sent: usize,
    received: BytesMut,
    /// When each request that is not answered was handed over.
    asked: VecDeque<Instant>,
}

/// What is asked, and what is done with the answers.
pub(super) trait Load {
    /// Ask on this connection, by [`Asker::ask`], as much as it should have under way now.
    fn fill(&mut self, link: usize, asker: &mut Asker<'_>);
    /// An answer.
    fn reply(&mut self, link: usize, reply: &Reply<'_>, took: Duration, now: Instant);
    /// An event.
    fn event(&mut self, _link: usize, _event: &WatcherEvent<'_>, _now: Instant) {}
    /// A connection that has something to ask though nothing came on it.
    fn wakes(&self) -> Option<usize> {
        None
    }
    /// Is nothing more to be asked? What is under way is still answered.
    fn over(&self, now: Instant) -> bool;
}

/// One connection's end, to ask on.
pub(super) struct Asker<'a> {
    client: &'a mut Client,
    out: &'a mut Vec<u8>,
    asked: &'a mut VecDeque<Instant>,
    now: Instant,
}

impl Asker<'_> {
    pub(super) fn under_way(&self) -> usize {
        self.asked.len()
    }

    pub(super) fn ask(&mut self, request: &Request<'_>) {
        self.client.send(self.now, request, self.out).expect("within the limit of requests under way");
        self.asked.push_back(self.now);
    }
}

/// The connections.
pub(super) struct Fleet {
    poll: OwnedFd,
    links: Vec<Link>,
}

/// Connections that are opened at once: more than a server's backlog holds would wait for the kernel's second try.
const OPENING_MAX: usize = 32;

impl Fleet {
    /// So many sessions, opened side by side; of several servers, with each in turn.
    pub(super) fn open(at: &[SocketAddr], connections: usize) -> io::Result<Fleet> {
        let mut fleet = Fleet { poll: epoll::create(epoll::CreateFlags::CLOEXEC)?, links: Vec::new() };
        let mut quiet = Handshakes;
        let mut heard = Instant::now();
        let mut opening: Vec<usize> = Vec::new();
        for n in 0..connections {
            while opening.len() >= OPENING_MAX {
                fleet.turn(&mut quiet, &mut heard)?;
                opening.retain(|n| fleet.links[*n].client.state() != State::Connected);
            }
            opening.push(n);
            let stream = TcpStream::connect(at[n % at.len()])?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            let flags = epoll::EventFlags::IN;
            epoll::add(&fleet.poll, &stream, epoll::EventData::new_u64(n as u64), flags)?;
            let mut link = Link {
                stream,
                client: Client::new(SESSION_MS),
                out: Vec::new(),
                sent: 0,
                received: BytesMut::new(),
                asked: VecDeque::new(),
            };
            link.client.connect(Instant::now(), &mut link.out);
            link.flush()?;
            fleet.links.push(link);
        }
        while fleet.links.iter().any(|link| link.client.state() != State::Connected) {
            fleet.turn(&mut quiet, &mut heard)?;
        }
        Ok(fleet)
    }

    /// Until the load is over and everything is answered.
    pub(super) fn run(&mut self, load: &mut dyn Load) -> io::Result<()> {
        let mut heard = Instant::now();
        for n in 0..self.links.len() {
            self.links[n].fill(n, load, Instant::now())?;
        }
        loop {
            let now = Instant::now();
            if load.over(now) && self.links.iter().all(|link| link.asked.is_empty()) {
                return Ok(());
            }
            self.turn(load, &mut heard)?;
        }
    }

    /// Ask one thing on every connection and wait for all answers.
    pub(super) fn ask_all(&mut self, request: &Request<'_>) -> io::Result<()> {
        let mut once = Once { request, left: vec![true; self.links.len()] };
        self.run(&mut once)
    }

    fn turn(&mut self, load: &mut dyn Load, heard: &mut Instant) -> io::Result<()> {
        let mut ready =
            [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 256];
        let wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        let count = match epoll::wait(&self.poll, &mut ready[..], Some(&wait)) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => 0,
            Err(e) => return Err(e.into()),
        };
        let now = Instant::now();
        for event in &ready[..count] {
            let n = event.data.u64() as usize;
            self.links[n].take(&self.poll, n, load, now)?;
        }
        for link in self.links.iter_mut().filter(|link| link.sent < link.out.len()) {
            link.flush()?;
        }
        if let Some(n) = load.wakes() {
            self.links[n].fill(n, load, now)?;
        }
        if count > 0 {
            *heard = now;
        } else {
            for link in &mut self.links {
                link.client.handle_timeout(now, &mut link.out).map_err(io::Error::other)?;
                link.flush()?;
            }
            if now.duration_since(*heard) > SILENCE_MAX {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the server answers nothing any more"));
            }
        }
        Ok(())
    }
}

impl Link {
    fn fill(&mut self, n: usize, load: &mut dyn Load, now: Instant) -> io::Result<()> {
        if self.client.state() == State::Connected && !load.over(now) {
            let Link { client, out, asked, .. } = self;
            load.fill(n, &mut Asker { client, out, asked, now });
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => self.sent += sent,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }

    fn take(&mut self, poll: &OwnedFd, n: usize, load: &mut dyn Load, now: Instant) -> io::Result<()> {
        let had = self.received.len();
        self.received.resize(had + READ_BYTES, 0);
        let read = self.stream.read(&mut self.received[had..]);
        self.received.truncate(had + read.as_ref().map_or(0, |read| *read));
        match read {
            // A session that was closed takes its connection with it.
            Ok(0) if self.asked.is_empty() && load.over(now) => {
                return Ok(epoll::delete(poll, &self.stream)?);
            }
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(e) => return Err(e),
        }
        let mut answered = false;
        while let Some(packet) = take_frame(&mut self.received, PACKET_BYTES_MAX).map_err(io::Error::other)? {
            match self.client.receive(now, &packet).map_err(io::Error::other)? {
                Incoming::Reply(reply) => {
                    let asked = self.asked.pop_front().expect("replies come to what was asked");
                    load.reply(n, &reply, now.duration_since(asked), now);
                    answered = true;
                }
                Incoming::Event { event, .. } => {
                    load.event(n, &event, now);
                    answered = true;
                }
                Incoming::Expired => return Err(io::Error::other("the session is over")),
                Incoming::Connected(_) | Incoming::Pong { .. } | Incoming::Auth { .. } => {}
            }
        }
        if answered { self.fill(n, load, now) } else { Ok(()) }
    }
}

/// Nothing is asked before the sessions are there.
struct Handshakes;

impl Load for Handshakes {
    fn fill(&mut self, _: usize, _: &mut Asker<'_>) {}
    fn reply(&mut self, _: usize, _: &Reply<'_>, _: Duration, _: Instant) {}
    fn over(&self, _: Instant) -> bool {
        true
    }
}

struct Once<'a> {
    request: &'a Request<'a>,
    left: Vec<bool>,
}

impl Load for Once<'_> {
    fn fill(&mut self, link: usize, asker: &mut Asker<'_>) {
        if std::mem::take(&mut self.left[link]) {
            asker.ask(self.request);
        }
    }
    fn reply(&mut self, _: usize, _: &Reply<'_>, _: Duration, _: Instant) {}
    fn over(&self, _: Instant) -> bool {
        !self.left.contains(&true)
    }
}
