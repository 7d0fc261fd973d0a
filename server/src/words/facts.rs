//! What the words tell, as plain structs.

use crate::config::Config;
use crate::version;
use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

/// What the server is, as `Mode:` and `zk_server_state` say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// An ensemble of one.
    Standalone,
    /// It orders writes.
    Leader,
    /// It votes.
    Follower,
    /// It does not vote.
    Observer,
    /// Cut off from the ensemble, it serves reads to clients that accept that.
    ReadOnly,
}

impl Mode {
    /// ZooKeeper's name of it.
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Standalone => "standalone",
            Mode::Leader => "leader",
            Mode::Follower => "follower",
            Mode::Observer => "observer",
            Mode::ReadOnly => "read-only",
        }
    }

    /// `zk_peer_state`: ZooKeeper's names of what a member of an ensemble does, and how far it has come with it.
    pub const fn peer_state(self, has_leader: bool) -> Option<&'static str> {
        match (self, has_leader) {
            (Mode::Standalone, _) => None,
            (Mode::Leader, _) => Some("leading - broadcast"),
            (Mode::Follower, true) => Some("following - broadcast"),
            (Mode::Observer, true) => Some("observing - broadcast"),
            (Mode::Follower | Mode::Observer | Mode::ReadOnly, _) => Some("looking"),
        }
    }

    /// Does ZooKeeper tell this figure in `mntr` of such a server?
    pub(super) fn has_figure(self, name: &str) -> bool {
        match name {
            "learners"
            | "synced_followers"
            | "synced_non_voting_followers"
            | "pending_syncs"
            | "leader_uptime"
            | "last_proposal_size"
            | "min_proposal_size"
            | "max_proposal_size" => self == Mode::Leader,
            "quorum_size" | "synced_observers" => self != Mode::Standalone,
            _ => true,
        }
    }
}

/// How long requests took, in ms.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LatencyMs {
    /// The quickest; 0 when there was none.
    pub min: u64,
    /// On average; 0 when there was none.
    pub avg: f64,
    /// The slowest; 0 when there was none.
    pub max: u64,
}

/// What `srvr` and `stat` tell of the server.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerFacts {
    /// What it is.
    pub mode: Mode,
    /// Of all requests since the last reset.
    pub latency: LatencyMs,
    /// Packets, words included.
    pub packets_received: u64,
    /// Packets, events included.
    pub packets_sent: u64,
    /// Open, the asking one included.
    pub connections: u64,
    /// Requests without an answer yet.
    pub outstanding: u64,
    /// The last applied.
    pub zxid: i64,
    /// As ZooKeeper counts them: a fresh server has 5.
    pub znodes: u64,
    /// A leader's: bytes of the last proposal, the smallest, the largest.
    pub proposal_bytes: Option<(i64, i64, i64)>,
}

impl ServerFacts {
    pub(super) fn heading(&self) -> String {
        let mut text = format!("Zookeeper version: {}\n", version::full());
        if self.mode == Mode::ReadOnly {
            text.push_str("READ-ONLY mode; serving only read-only clients\n");
        }
        text
    }

    pub(super) fn figures(&self) -> String {
        let ServerFacts { latency: LatencyMs { min, avg, max }, packets_received, packets_sent, .. } = self;
        let ServerFacts { connections, outstanding, zxid, znodes, .. } = self;
        let mut text = format!(
            "Latency min/avg/max: {min}/{}/{max}\nReceived: {packets_received}\nSent: {packets_sent}\n\
             Connections: {connections}\nOutstanding: {outstanding}\nZxid: 0x{zxid:x}\nMode: {}\n\
             Node count: {znodes}\n",
            decimal(*avg),
            self.mode.name(),
        );
        if let Some((last, min, max)) = self.proposal_bytes {
            let _ = writeln!(text, "Proposal sizes last/min/max: {last}/{min}/{max}");
        }
        text
    }
}

/// An average as Java prints it: four places at most, one at least. (Below 0.001 and from ten million Java turns to
/// exponents, which ZooKeeper's own parsers stumble over.)
pub(crate) fn decimal(value: f64) -> String {
    let rounded = format!("{value:.4}");
    let short = rounded.trim_end_matches('0');
    match short.ends_with('.') {
        true => format!("{short}0"),
        false => short.to_owned(),
    }
}

/// What `stat` and `cons` tell of a connection.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionFacts {
    /// The other end.
    pub peer: SocketAddr,
    /// 1 when it is read from, 4 when something waits to be written; their sum.
    pub interest: u8,
    /// Requests without an answer yet.
    pub queued: u64,
    /// Packets.
    pub received: u64,
    /// Packets.
    pub sent: u64,
    /// `None` until the session is set up.
    pub session: Option<SessionFacts>,
}

impl ConnectionFacts {
    /// Without the closing parenthesis.
    pub(super) fn brief(&self) -> String {
        let ConnectionFacts { interest, queued, received, sent, .. } = self;
        format!(" {}[{interest:x}](queued={queued},recved={received},sent={sent}", java_address(self.peer))
    }
}

/// As `InetSocketAddress` prints itself: a slash, and IPv6 in brackets, in full.
pub(super) fn java_address(address: SocketAddr) -> String {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => format!("/{ip}:{}", address.port()),
        IpAddr::V6(ip) => {
            let groups: Vec<String> = ip.segments().iter().map(|group| format!("{group:x}")).collect();
            format!("/[{}]:{}", groups.join(":"), address.port())
        }
    }
}

/// What `cons` tells of a connection's session.
#[derive(Clone, Debug, PartialEq)]
pub struct SessionFacts {
    /// Its id.
    pub id: i64,
    /// See [`last_op`].
    pub last_op: &'static str,
    /// When the connection began; ms since 1970.
    pub established_ms: i64,
    /// As negotiated.
    pub timeout_ms: i32,
    /// The xid of the last request; those below 0 (pings and the like) do not count.
    pub last_cxid: Option<i32>,
    /// In the last reply.
    pub last_zxid: i64,
    /// When the last reply was sent; ms, from any beginning.
    pub last_response_ms: i64,
    /// How long the last request took, ms.
    pub last_ms: u64,
    /// How long requests took; the average is told in whole ms.
    pub latency: LatencyMs,
}

impl SessionFacts {
    pub(super) fn figures(&self) -> String {
        let SessionFacts {
            id,
            last_op,
            established_ms,
            timeout_ms,
            last_zxid,
            last_response_ms,
            last_ms,
            ..
        } = self;
        let LatencyMs { min, avg, max } = self.latency;
        let cxid = self.last_cxid.map(|cxid| format!("lcxid=0x{cxid:x},")).unwrap_or_default();
        format!(
            ",sid=0x{id:x},lop={last_op},est={established_ms},to={timeout_ms},{cxid}lzxid=0x{last_zxid:x},\
             lresp={last_response_ms},llat={last_ms},minlat={min},avglat={},maxlat={max}",
            avg as u64,
        )
    }
}

/// How `cons` abbreviates an operation, by its number on the wire; `NA` before the first.
pub const fn last_op(opcode: i32) -> &'static str {
    match opcode {
        -11 => "CLOS",
        -10 => "SESS",
        1 | 15 | 19 | 21 => "CREA",
        2 | 20 => "DELE",
        3 => "EXIS",
        4 => "GETD",
        5 => "SETD",
        6 => "GETA",
        7 => "SETA",
        8 | 12 => "GETC",
        9 => "SYNC",
        11 => "PING",
        13 => "CHEC",
        14 => "MULT",
        16 => "RECO",
        17 => "CHKW",
        18 => "REMW",
        22 => "MLTR",
        101 => "SETW",
        103 => "GETE",
        104 => "GETACN",
        105 => "STW2",
        106 => "ADDW",
        107 => "HOMI",
        _ => "NA",
    }
}

/// What `conf` tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfFacts {
    /// As bound.
    pub client_port: u16,
    /// Folder of the store.
    pub data_dir: String,
    /// Bytes of the tree on disk.
    pub data_bytes: u64,
    /// Folder of the log.
    pub log_dir: String,
    /// Bytes of the log on disk.
    pub log_bytes: u64,
    /// Steps of expiry.
    pub tick_ms: u32,
    /// 0 is no limit.
    pub connections_per_address_max: u32,
    /// The shortest timeout.
    pub timeout_ms_min: u32,
    /// The longest timeout.
    pub timeout_ms_max: u32,
    /// −1 leaves it to the system.
    pub listen_backlog: i64,
    /// 0 when it stands alone.
    pub server_id: u8,
    /// What is told besides in an ensemble.
    pub quorum: Option<QuorumFacts>,
}

/// What `conf` tells of a server's part in its ensemble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumFacts {
    /// The longest silence of a leader before another one is looked for, in ticks of the sessions.
    pub sync_limit: u32,
    /// Where the others find it, UDP.
    pub quorum_port: u16,
    /// As its line in the configuration says; nothing listens there.
    pub election_port: u16,
    /// It observes.
    pub observes: bool,
    /// What `/zookeeper/config` holds.
    pub membership: String,
}

impl QuorumFacts {
    pub(super) fn lines(&self) -> String {
        let QuorumFacts { sync_limit, quorum_port, election_port, observes, membership } = self;
        // A follower may take any time to catch up, so that there is no initLimit; −1 is how other keys say so.
        format!(
            "initLimit=-1\nsyncLimit={sync_limit}\nelectionAlg=3\nelectionPort={election_port}\n\
             quorumPort={quorum_port}\npeerType={}\nmembership: \n{membership}",
            i32::from(*observes)
        )
    }
}

impl ConfFacts {
    /// From the settings, and what is only known when running: the port bound, the store's folder, the bytes of
    /// tree and log in it.
    pub fn new(config: &Config, port: u16, store: &str, (tree, log): (u64, u64), server_id: u8) -> ConfFacts {
        ConfFacts {
            client_port: port,
            data_dir: store.to_owned(),
            data_bytes: tree,
            log_dir: store.to_owned(),
            log_bytes: log,
            tick_ms: config.sessions.tick_ms,
            connections_per_address_max: config.client.connections_per_address_max,
            timeout_ms_min: config.sessions.timeout_ms_min,
            timeout_ms_max: config.sessions.timeout_ms_max,
            listen_backlog: match config.client.listen_backlog {
                0 => -1,
                backlog => backlog.into(),
            },
            server_id,
            quorum: None,
        }
    }
}

/// What `envi` tells of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the key of its line")]
pub struct EnviFacts {
    pub host_name: String,
    pub os_name: String,
    pub os_arch: String,
    pub os_version: String,
    pub user_name: String,
    pub user_home: String,
    pub user_dir: String,
    pub memory_free_mb: u64,
    pub memory_max_mb: u64,
    pub memory_total_mb: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn averages_print_as_in_java() {
        for (value, text) in
            [(0.0, "0.0"), (3.5714, "3.5714"), (1.5, "1.5"), (2.0 / 3.0, "0.6667"), (1e7, "10000000.0")]
        {
            assert_eq!(decimal(value), text);
        }
    }

    #[test]
    fn addresses_print_as_in_java() {
        for (address, text) in [
            ("127.0.0.1:5", "/127.0.0.1:5"),
            ("[::1]:5", "/[0:0:0:0:0:0:0:1]:5"),
            ("[::ffff:10.0.0.1]:5", "/10.0.0.1:5"),
            ("[2001:DB8::a]:5", "/[2001:db8:0:0:0:0:0:a]:5"),
        ] {
            assert_eq!(java_address(address.parse().unwrap()), text);
        }
    }
}
