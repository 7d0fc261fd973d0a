//! A network between servers that does what it is told: delays, loses, repeats, reorders, garbles, cuts.
//!
//! ```text
//!  server 1 ──▶ face of 2 ──┐   ┌── face of 1 ──▶ server 2
//!               (listens)   └─▶─┘  (sends)
//! ```
//!
//! Each server has a *face*: the address at which all others find it. What server 1 sends to the face of 2 leaves by the face
//! of 1, so that 2 takes that for the address of 1 and answers there. So all traffic of each directed pair passes here, and
//! has its own [`Weather`]. One thread carries everything.

use crate::sim::Dice;
use rustix::event::epoll;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Bytes that wait for their time in one direction; what comes on top of them is lost, as on a full router.
pub const QUEUE_BYTES_MAX: usize = 8 << 20;
/// The longest datagram that there is.
const DATAGRAM_BYTES_MAX: usize = 64 << 10;
/// Asked of the kernel for each face, so that what is lost is lost by the weather.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// Datagrams taken from one face before the others have their turn.
const TAKEN_AT_ONCE: usize = 64;
/// How soon a stop is noticed.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What happens to the datagrams of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// How long each is under way.
    pub delay: Duration,
    /// By chance up to so much longer; the order is kept.
    pub jitter: Duration,
    /// So many of a thousand vanish.
    pub lost_per_mille: u64,
    /// So many of a thousand come twice.
    pub repeated_per_mille: u64,
    /// So many of a thousand are overtaken by those of the next [`Weather::late_by`].
    pub late_per_mille: u64,
    /// See above.
    pub late_by: Duration,
    /// So many of a thousand have a byte changed.
    pub garbled_per_mille: u64,
    /// Larger ones vanish, without a word to who sent them; bytes. 0 lets nothing pass: the direction is cut.
    pub bytes_max: usize,
}

impl Weather {
    /// Everything arrives, at once and once.
    pub const FAIR: Weather = Weather {
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        lost_per_mille: 0,
        repeated_per_mille: 0,
        late_per_mille: 0,
        late_by: Duration::ZERO,
        garbled_per_mille: 0,
        bytes_max: usize::MAX,
    };
    /// Nothing arrives.
    pub const CUT: Weather = Weather { bytes_max: 0, ..Weather::FAIR };
}

/// What became of the datagrams so far.
#[derive(Debug, Default)]
pub struct Counts {
    /// Sent on, those that come twice counted twice.
    pub passed: AtomicU64,
    /// Taken by the weather, or found no room.
    pub lost: AtomicU64,
    /// From nobody who belongs here.
    pub strangers: AtomicU64,
}

struct Shared {
    weather: Mutex<BTreeMap<(u8, u8), Weather>>,
    counts: Counts,
    stop: AtomicBool,
}

/// The network. It ends when it is dropped.
pub struct Relay {
    shared: Arc<Shared>,
    faces: BTreeMap<u8, SocketAddr>,
    carrier: Option<JoinHandle<()>>,
}

impl Relay {
    /// Between these servers, by id, with the addresses where they listen and from which they send.
    pub fn start(servers: &BTreeMap<u8, SocketAddr>, dice: Dice) -> io::Result<Relay> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut faces = Vec::new();
        for (id, server) in servers {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
            socket.set_nonblocking(true)?;
            rustix::net::sockopt::set_socket_recv_buffer_size(&socket, SOCKET_BUFFER_BYTES)?;
            rustix::net::sockopt::set_socket_send_buffer_size(&socket, SOCKET_BUFFER_BYTES)?;
            let data = epoll::EventData::new_u64(faces.len() as u64);
            epoll::add(&poll, &socket, data, epoll::EventFlags::IN)?;
            faces.push(Face { id: *id, server: *server, socket });
        }
        let addresses =
            faces.iter().map(|face| Ok((face.id, face.socket.local_addr()?))).collect::<io::Result<_>>()?;
        let weather = servers
            .keys()
            .flat_map(|from| servers.keys().map(move |to| ((*from, *to), Weather::FAIR)))
            .collect();
        let shared = Arc::new(Shared {
            weather: Mutex::new(weather),
            counts: Counts::default(),
            stop: AtomicBool::new(false),
        });
        let mut carrier = Carrier {
            shared: shared.clone(),
            poll,
            faces,
            dice,
            waiting: BinaryHeap::new(),
            waiting_bytes: BTreeMap::new(),
            last_due: BTreeMap::new(),
            next: 0,
        };
        let carrier = std::thread::Builder::new().name("relay".into()).spawn(move || carrier.carry())?;
        Ok(Relay { shared, faces: addresses, carrier: Some(carrier) })
    }

    /// Where the others find this server.
    pub fn face(&self, server: u8) -> SocketAddr {
        self.faces[&server]
    }

    /// From now on, in this direction; what is under way already arrives as it would have.
    pub fn set(&self, from: u8, to: u8, weather: Weather) {
        self.weather().insert((from, to), weather);
    }

    /// In both directions between these two.
    pub fn set_between(&self, one: u8, other: u8, weather: Weather) {
        self.set(one, other, weather);
        self.set(other, one, weather);
    }

    /// To and from this server.
    pub fn set_around(&self, server: u8, weather: Weather) {
        for other in self.faces.keys().filter(|other| **other != server) {
            self.set_between(server, *other, weather);
        }
    }

    /// Everywhere.
    pub fn set_all(&self, weather: Weather) {
        self.weather().values_mut().for_each(|w| *w = weather);
    }

    /// What became of the datagrams so far.
    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }

    fn weather(&self) -> std::sync::MutexGuard<'_, BTreeMap<(u8, u8), Weather>> {
        self.shared.weather.lock().expect("no holder panics")
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(carrier) = self.carrier.take() {
            let _ = carrier.join();
        }
    }
}

struct Face {
    id: u8,
    server: SocketAddr,
    socket: UdpSocket,
}

/// A datagram that waits for its time: due, its number, the faces by place, its bytes.
type Waiting = Reverse<(Instant, u64, usize, usize, Vec<u8>)>;

struct Carrier {
    shared: Arc<Shared>,
    poll: OwnedFd,
    faces: Vec<Face>,
    dice: Dice,
    waiting: BinaryHeap<Waiting>,
    waiting_bytes: BTreeMap<(usize, usize), usize>,
    last_due: BTreeMap<(usize, usize), Instant>,
    next: u64,
}

impl Carrier {
    fn carry(&mut self) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        let mut ready =
            [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 16];
        while !self.shared.stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            let due = self
                .waiting
                .peek()
                .map_or(LOOK_EVERY, |Reverse((due, ..))| due.saturating_duration_since(now));
            let wait = due.min(LOOK_EVERY);
            let wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
            // An interrupted wait is a short one.
            let count = epoll::wait(&self.poll, &mut ready[..], Some(&wait)).unwrap_or(0);
            for event in &ready[..count] {
                let to = event.data.u64() as usize;
                for _ in 0..TAKEN_AT_ONCE {
                    let Ok((bytes, source)) = self.faces[to].socket.recv_from(&mut buffer) else { break };
                    match self.faces.iter().position(|face| face.server == source) {
                        Some(from) => self.take(from, to, &mut buffer[..bytes]),
                        None => drop(self.shared.counts.strangers.fetch_add(1, Ordering::Relaxed)),
                    }
                }
            }
            let now = Instant::now();
            while self.waiting.peek().is_some_and(|Reverse((due, ..))| *due <= now) {
                let Some(Reverse((_, _, from, to, datagram))) = self.waiting.pop() else { break };
                if let Some(bytes) = self.waiting_bytes.get_mut(&(from, to)) {
                    *bytes -= datagram.len();
                }
                self.send(from, to, &datagram);
            }
        }
    }

    fn take(&mut self, from: usize, to: usize, datagram: &mut [u8]) {
        let pair = (self.faces[from].id, self.faces[to].id);
        let weather = self.shared.weather.lock().expect("no holder panics")[&pair];
        if datagram.len() > weather.bytes_max || self.dice.chance(weather.lost_per_mille) {
            self.lose();
            return;
        }
        if self.dice.chance(weather.garbled_per_mille) && !datagram.is_empty() {
            let at = self.dice.index(datagram.len());
            datagram[at] ^= 1 + self.dice.below(255) as u8;
        }
        let times = if self.dice.chance(weather.repeated_per_mille) { 2 } else { 1 };
        for _ in 0..times {
            self.hold(from, to, weather, datagram);
        }
    }

    fn hold(&mut self, from: usize, to: usize, weather: Weather, datagram: &[u8]) {
        let now = Instant::now();
        let jitter = Duration::from_nanos(self.dice.below(weather.jitter.as_nanos() as u64 + 1));
        let mut due = now + weather.delay + jitter;
        if self.dice.chance(weather.late_per_mille) {
            due += weather.late_by;
        } else {
            let last = self.last_due.entry((from, to)).or_insert(due);
            due = due.max(*last);
            *last = due;
        }
        let bytes = self.waiting_bytes.entry((from, to)).or_insert(0);
        if due <= now && *bytes == 0 {
            return self.send(from, to, datagram);
        }
        if *bytes + datagram.len() > QUEUE_BYTES_MAX {
            return self.lose();
        }
        *bytes += datagram.len();
        self.next += 1;
        self.waiting.push(Reverse((due, self.next, from, to, datagram.to_vec())));
    }

    fn send(&self, from: usize, to: usize, datagram: &[u8]) {
        // A server that is down answers nobody, and a full buffer loses what comes on top.
        match self.faces[from].socket.send_to(datagram, self.faces[to].server) {
            Ok(_) => drop(self.shared.counts.passed.fetch_add(1, Ordering::Relaxed)),
            Err(_) => self.lose(),
        }
    }

    fn lose(&self) {
        self.shared.counts.lost.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{Relay, Weather};
    use crate::sim::Dice;
    use std::collections::BTreeMap;
    use std::net::{Ipv4Addr, UdpSocket};
    use std::sync::atomic::Ordering;
    use std::time::{Duration, Instant};

    struct Pair {
        one: UdpSocket,
        two: UdpSocket,
        relay: Relay,
    }

    fn pair() -> Pair {
        let socket = || {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            socket
        };
        let (one, two) = (socket(), socket());
        let servers = BTreeMap::from([(1, one.local_addr().unwrap()), (2, two.local_addr().unwrap())]);
        Pair { one, two, relay: Relay::start(&servers, Dice::new(1)).unwrap() }
    }

    impl Pair {
        fn say(&self, text: &[u8]) {
            self.one.send_to(text, self.relay.face(2)).unwrap();
        }

        fn heard(&self) -> Vec<u8> {
            let mut buffer = [0; 4096];
            let (bytes, source) = self.two.recv_from(&mut buffer).unwrap();
            assert_eq!(source, self.relay.face(1), "it comes from the face of who sent it");
            buffer[..bytes].to_vec()
        }
    }

    #[test]
    fn each_finds_the_other_at_its_face() {
        let pair = pair();
        pair.say(b"hello");
        assert_eq!(pair.heard(), b"hello");
        pair.two.send_to(b"yes", pair.relay.face(1)).unwrap();
        let mut buffer = [0; 16];
        let (bytes, source) = pair.one.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..bytes], source), (&b"yes"[..], pair.relay.face(2)));
    }

    #[test]
    fn a_cut_is_of_one_direction() {
        let pair = pair();
        pair.relay.set(1, 2, Weather::CUT);
        pair.say(b"lost");
        // The other direction is open, and shows when the first one is dealt with.
        pair.two.send_to(b"back", pair.relay.face(1)).unwrap();
        pair.one.recv_from(&mut [0; 16]).unwrap();
        while pair.relay.counts().lost.load(Ordering::Relaxed) == 0 {
            std::thread::yield_now();
        }
        pair.relay.set_all(Weather::FAIR);
        pair.say(b"heard");
        assert_eq!(pair.heard(), b"heard");
    }

    #[test]
    fn a_black_hole_swallows_what_is_large() {
        let pair = pair();
        pair.relay.set(1, 2, Weather { bytes_max: 100, ..Weather::FAIR });
        pair.say(&[1; 101]);
        pair.say(&[2; 100]);
        assert_eq!(pair.heard(), [2; 100]);
    }

    #[test]
    fn what_is_late_is_overtaken_and_comes_and_what_is_repeated_comes_twice() {
        let pair = pair();
        let late_by = Duration::from_millis(30);
        pair.relay.set(1, 2, Weather { late_per_mille: 1_000, late_by, ..Weather::FAIR });
        let start = Instant::now();
        pair.say(b"first");
        // It was judged by the weather of its time once something else came through.
        while pair.two.peek_from(&mut [0; 16]).is_err() {}
        assert!(start.elapsed() >= late_by);
        assert_eq!(pair.heard(), b"first");
        pair.relay.set(1, 2, Weather { repeated_per_mille: 1_000, ..Weather::FAIR });
        pair.say(b"again");
        assert_eq!((pair.heard(), pair.heard()), (b"again".to_vec(), b"again".to_vec()));
    }

    #[test]
    fn jitter_keeps_the_order() {
        let pair = pair();
        let weather =
            Weather { delay: Duration::from_millis(1), jitter: Duration::from_millis(5), ..Weather::FAIR };
        pair.relay.set(1, 2, weather);
        for n in 0..100u8 {
            pair.say(&[n]);
        }
        assert_eq!((0..100).map(|_| pair.heard()[0]).collect::<Vec<_>>(), (0..100).collect::<Vec<u8>>());
    }

    #[test]
    fn strangers_are_not_carried() {
        let pair = pair();
        let stranger = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        stranger.send_to(b"let me in", pair.relay.face(2)).unwrap();
        pair.say(b"hello");
        assert_eq!(pair.heard(), b"hello");
        assert_eq!(pair.relay.counts().strangers.load(Ordering::Relaxed), 1);
    }
}
