//! The four-letter words: ZooKeeper's plain-text commands on the client port, in its exact form, for scripts and
//! monitoring parse it. Pure: facts in, text out. Who calls sends the text and closes the connection.
//!
//! A connection's first four bytes are either a word or the length of its first frame; no length that may be sent
//! spells a word.

mod dump;
mod facts;

pub use dump::{ExpirySet, Sessions, dump, wchc, wchp, wchs};
pub use facts::{
    ConfFacts, ConnectionFacts, EnviFacts, LatencyMs, Mode, QuorumFacts, ServerFacts, SessionFacts, last_op,
};

pub(crate) use facts::decimal;

use crate::version;
use std::fmt::Write;

macro_rules! words {
    ($($variant:ident $name:literal $meaning:literal)+) => {
        /// One of ZooKeeper's commands of four letters.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Word {
            $( #[doc = $meaning] $variant, )+
        }

        impl Word {
            /// All that are answered.
            pub const ALL: &[Word] = &[$(Word::$variant),+];

            /// As it is sent.
            pub const fn name(self) -> &'static str {
                match self { $( Word::$variant => $name, )+ }
            }
        }
    };
}

words! {
    Ruok "ruok" "Is the process there?"
    Srvr "srvr" "The server in ten lines."
    Stat "stat" "The same, and a line for each connection."
    Mntr "mntr" "Every metric."
    Isro "isro" "Does it take writes?"
    Conf "conf" "Settings."
    Cons "cons" "A long line for each connection."
    Envi "envi" "Version and machine."
    Wchs "wchs" "How many watches there are."
    Wchc "wchc" "Watched paths by session."
    Wchp "wchp" "Sessions by watched path."
    Dump "dump" "Sessions by expiry, and their ephemerals."
    Crst "crst" "Reset the figures of connections."
    Srst "srst" "Reset the server's figures."
    Dirs "dirs" "Sizes on disk."
    Hash "hash" "Digests of the tree at each 128th transaction."
    Gtmk "gtmk" "The trace mask."
    Stmk "stmk" "Set the trace mask, by the eight bytes that follow the word."
}

/// What a telnet client sends when it is interrupted. To ZooKeeper it is a word with no answer, and with a refusal where
/// the whitelist is not `*`.
const TELNET_CLOSE: [u8; 4] = [0xff, 0xf4, 0xff, 0xfd];

/// ZooKeeper's trace mask at its start: requests, packets of servers, sessions, warnings. Warren keeps a mask and tells
/// it, for tools that ask; what is traced is said by the log's level.
pub const TRACE_MASK: i64 = 0b1_0011_0010;

impl Word {
    /// Those answered unless the operator says otherwise: none costs much, and none tells what clients keep.
    pub const DEFAULT: [Word; 8] =
        [Word::Ruok, Word::Srvr, Word::Stat, Word::Mntr, Word::Isro, Word::Conf, Word::Cons, Word::Envi];

    /// From its name.
    pub fn from_name(name: &str) -> Option<Word> {
        Word::ALL.iter().copied().find(|word| word.name() == name)
    }

    /// What is answered while the server does not serve; `None` for a word that is answered all the same.
    pub const fn while_not_serving(self) -> Option<&'static str> {
        match self {
            Word::Ruok | Word::Envi | Word::Gtmk | Word::Stmk => None,
            Word::Isro => Some("null"),
            _ => Some("This ZooKeeper instance is not currently serving requests\n"),
        }
    }
}

/// What is told besides by a server that does not serve because its tree is wrong ([`crate::divergence`]).
pub const TREE_DIFFERS: &str =
    "Its tree is not what the log makes, which a majority of the servers has; see `warren status`\n";

/// What a connection's first four bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Answer this and close.
    Word(Word),
    /// Send this and close.
    Refused(String),
    /// The length of a frame.
    NoWord,
}

/// Which words are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whitelist(u32);

impl Whitelist {
    /// From the names in the configuration, `*` among them; `srvr` is always in.
    pub fn new(names: &[String]) -> Whitelist {
        let bit = |word: &Word| 1 << (*word as u32);
        let named = |word: &&Word| names.iter().any(|name| name == "*" || name == word.name());
        Whitelist(Word::ALL.iter().filter(named).map(bit).sum::<u32>() | bit(&Word::Srvr))
    }

    /// `*`.
    fn all() -> Whitelist {
        Whitelist::new(&["*".to_owned()])
    }

    /// Is it answered?
    pub const fn allows(self, word: Word) -> bool {
        self.0 & (1 << (word as u32)) != 0
    }

    /// What the first four bytes of a connection ask for.
    pub fn ask(self, first: [u8; 4]) -> Asked {
        if first == TELNET_CLOSE && self != Whitelist::all() {
            return Asked::Refused(refusal("telnet close"));
        }
        let Ok(name) = std::str::from_utf8(&first) else { return Asked::NoWord };
        match Word::from_name(name) {
            Some(word) if self.allows(word) => Asked::Word(word),
            Some(_) => Asked::Refused(refusal(name)),
            None => Asked::NoWord,
        }
    }
}

fn refusal(name: &str) -> String {
    format!("{name} is not executed because it is not in the whitelist.\n")
}

/// `ruok`.
pub fn ruok() -> &'static str {
    "imok"
}

/// `isro`: may writes be sent here? Clients that look for a server out of read-only mode wait for `rw`.
pub fn isro(mode: Mode) -> &'static str {
    match mode {
        Mode::ReadOnly => "ro",
        _ => "rw",
    }
}

/// `srvr`.
pub fn srvr(server: &ServerFacts) -> String {
    server.heading() + &server.figures()
}

/// `stat`.
pub fn stat(server: &ServerFacts, connections: &[ConnectionFacts]) -> String {
    let mut text = server.heading();
    text.push_str("Clients:\n");
    for connection in connections {
        text.push_str(&connection.brief());
        text.push_str(")\n");
    }
    text.push('\n');
    text + &server.figures()
}

/// `cons`.
pub fn cons(connections: &[ConnectionFacts]) -> String {
    let mut text = String::new();
    for connection in connections {
        text.push_str(&connection.brief());
        if let Some(session) = &connection.session {
            text.push_str(&session.figures());
        }
        text.push_str(")\n");
    }
    text.push('\n');
    text
}

/// `mntr`, from the lines of [`crate::metrics::Metrics::mntr_lines`]; `leader`, if this server knows one.
pub fn mntr(mode: Mode, leader: Option<u8>, lines: &[(String, String)]) -> String {
    let mut text = format!("zk_version\t{}\nzk_server_state\t{}\n", version::full(), mode.name());
    if let Some(state) = mode.peer_state(leader.is_some()) {
        let _ = writeln!(text, "zk_peer_state\t{state}");
    }
    if let (Mode::Observer, Some(leader)) = (mode, leader) {
        let _ = writeln!(text, "zk_observer_master_id\t{leader}");
    }
    for (name, value) in lines.iter().filter(|(name, _)| mode.has_figure(name)) {
        let _ = writeln!(text, "zk_{name}\t{value}");
    }
    text
}

/// `conf`.
pub fn conf(facts: &ConfFacts) -> String {
    let ConfFacts { client_port, data_dir, data_bytes, log_dir, log_bytes, tick_ms, .. } = facts;
    format!(
        "clientPort={client_port}\nsecureClientPort=-1\ndataDir={data_dir}\ndataDirSize={data_bytes}\n\
         dataLogDir={log_dir}\ndataLogSize={log_bytes}\ntickTime={tick_ms}\nmaxClientCnxns={}\n\
         minSessionTimeout={}\nmaxSessionTimeout={}\nclientPortListenBacklog={}\nserverId={}\n",
        facts.connections_per_address_max,
        facts.timeout_ms_min,
        facts.timeout_ms_max,
        facts.listen_backlog,
        facts.server_id,
    ) + &facts.quorum.as_ref().map_or(String::new(), QuorumFacts::lines)
}

/// `envi`.
pub fn envi(facts: &EnviFacts) -> String {
    let mut text = String::from("Environment:\n");
    for (key, value) in envi_lines(facts) {
        let _ = writeln!(text, "{key}={value}");
    }
    text
}

/// Key and value of each line of `envi`. What is said of Java is said in ZooKeeper's words for what there is not.
pub fn envi_lines(facts: &EnviFacts) -> Vec<(&'static str, String)> {
    let none = || "<NA>".to_owned();
    let mb = |mb: u64| format!("{mb}MB");
    vec![
        ("zookeeper.version", version::full()),
        ("host.name", facts.host_name.clone()),
        ("java.version", none()),
        ("java.vendor", none()),
        ("java.home", none()),
        ("java.class.path", none()),
        ("java.library.path", none()),
        ("java.io.tmpdir", none()),
        ("java.compiler", none()),
        ("os.name", facts.os_name.clone()),
        ("os.arch", facts.os_arch.clone()),
        ("os.version", facts.os_version.clone()),
        ("user.name", facts.user_name.clone()),
        ("user.home", facts.user_home.clone()),
        ("user.dir", facts.user_dir.clone()),
        ("os.memory.free", mb(facts.memory_free_mb)),
        ("os.memory.max", mb(facts.memory_max_mb)),
        ("os.memory.total", mb(facts.memory_total_mb)),
    ]
}

/// `dirs`, in bytes.
pub fn dirs(data_bytes: u64, log_bytes: u64) -> String {
    format!("datadir_size: {data_bytes}\nlogdir_size: {log_bytes}\n")
}

/// `hash`: the tree's digest as of each of these transactions.
pub fn hash(digests: &[(warren_storage::Zxid, u64)]) -> String {
    digests.iter().map(|(zxid, digest)| format!("{:x}: {digest}\n", zxid.wire())).collect()
}

/// The mask that follows `stmk`, once all of its eight bytes are there.
pub fn stmk(input: &[u8]) -> Option<i64> {
    input.get(4..12)?.try_into().ok().map(i64::from_be_bytes)
}

/// `crst`, after the figures of connections were reset.
pub fn crst() -> &'static str {
    "Connection stats reset.\n"
}

/// `srst`, after the server's figures were reset.
pub fn srst() -> &'static str {
    "Server stats reset.\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> ServerFacts {
        ServerFacts {
            mode: Mode::Standalone,
            latency: LatencyMs { min: 1, avg: 3.5714, max: 11 },
            packets_received: 12,
            packets_sent: 13,
            connections: 2,
            outstanding: 0,
            zxid: 3,
            znodes: 7,
            proposal_bytes: None,
        }
    }

    /// A connection that only asks a word, and a client.
    fn connections() -> Vec<ConnectionFacts> {
        let asking = ConnectionFacts {
            peer: "127.0.0.1:53234".parse().unwrap(),
            interest: 0,
            queued: 0,
            received: 1,
            sent: 0,
            session: None,
        };
        let client = ConnectionFacts {
            peer: "127.0.0.1:46224".parse().unwrap(),
            interest: 1,
            queued: 0,
            received: 7,
            sent: 7,
            session: Some(SessionFacts {
                id: 0x100001520610000,
                last_op: last_op(4),
                established_ms: 1_795_227_487_007,
                timeout_ms: 30_000,
                last_cxid: Some(6),
                last_zxid: 3,
                last_response_ms: 2_279_432,
                last_ms: 1,
                latency: LatencyMs { min: 0, avg: 3.0, max: 11 },
            }),
        };
        vec![asking, client]
    }

    /// Asked of ZooKeeper 3.9.5 in this state; only the version differs.
    #[test]
    fn srvr_stat_and_cons_are_zookeepers() {
        let version = format!("Zookeeper version: {}\n", version::full());
        let figures = "Latency min/avg/max: 1/3.5714/11\nReceived: 12\nSent: 13\nConnections: 2\nOutstanding: 0\n\
                       Zxid: 0x3\nMode: standalone\nNode count: 7\n";
        assert_eq!(srvr(&server()), format!("{version}{figures}"));
        let clients = "Clients:\n /127.0.0.1:53234[0](queued=0,recved=1,sent=0)\n \
                       /127.0.0.1:46224[1](queued=0,recved=7,sent=7)\n\n";
        assert_eq!(stat(&server(), &connections()), format!("{version}{clients}{figures}"));
        assert_eq!(
            cons(&connections()),
            " /127.0.0.1:53234[0](queued=0,recved=1,sent=0)\n \
             /127.0.0.1:46224[1](queued=0,recved=7,sent=7,sid=0x100001520610000,lop=GETD,est=1795227487007,to=30000,\
             lcxid=0x6,lzxid=0x3,lresp=2279432,llat=1,minlat=0,avglat=3,maxlat=11)\n\n"
        );
    }

    #[test]
    fn a_leader_tells_its_proposals_and_a_read_only_server_says_so() {
        let leader = ServerFacts { mode: Mode::Leader, proposal_bytes: Some((1, 2, 3)), ..server() };
        assert!(srvr(&leader).ends_with("Mode: leader\nNode count: 7\nProposal sizes last/min/max: 1/2/3\n"));
        let cut_off = ServerFacts { mode: Mode::ReadOnly, zxid: -1, ..server() };
        assert!(srvr(&cut_off).contains(" UTC\nREAD-ONLY mode; serving only read-only clients\nLatency"));
        assert!(srvr(&cut_off).contains("\nZxid: 0xffffffffffffffff\nMode: read-only\n"));
        assert_eq!((isro(Mode::Follower), isro(Mode::ReadOnly)), ("rw", "ro"));
    }

    #[test]
    fn a_session_that_sent_nothing_yet_has_no_lcxid() {
        let mut connection = connections().remove(1);
        connection.session.as_mut().unwrap().last_cxid = None;
        assert!(cons(&[connection]).contains(",to=30000,lzxid=0x3,"));
    }

    /// What parsers take it apart by: go-zookeeper wants the version of these characters only, and the date with
    /// the month first and a zone at the end; kazoo takes the digits and dots before the first other character.
    #[test]
    fn the_version_can_be_parsed() {
        let full = version::full();
        let (version, date) = full.split_once(", built on ").unwrap();
        assert!(version.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-'), "{version}");
        assert_eq!(version.split(|c: char| !c.is_ascii_digit() && c != '.').next(), Some("3.9.5"));
        let pattern: String = date.chars().map(|c| if c.is_ascii_digit() { 'd' } else { c }).collect();
        assert!(pattern.starts_with("dd/dd/dddd dd:dd "), "{date}");
        assert!(pattern["dd/dd/dddd dd:dd ".len()..].chars().all(|c| c.is_ascii_uppercase()), "{date}");
    }

    #[test]
    fn conf_is_zookeepers() {
        let config = crate::config::Config::default();
        let facts = ConfFacts::new(&config, 25181, "/data/warren", (478, 479), 0);
        assert_eq!(
            conf(&facts),
            "clientPort=25181\nsecureClientPort=-1\ndataDir=/data/warren\ndataDirSize=478\n\
             dataLogDir=/data/warren\ndataLogSize=479\ntickTime=2000\nmaxClientCnxns=10000\n\
             minSessionTimeout=4000\nmaxSessionTimeout=40000\nclientPortListenBacklog=1024\nserverId=0\n"
        );
    }

    /// As ZooKeeper 3.9.5 tells it of a server in an ensemble: what follows is behind what one that stands alone tells.
    #[test]
    fn conf_tells_of_the_ensemble() {
        let config = crate::config::Config::default();
        let quorum = QuorumFacts {
            sync_limit: 1,
            quorum_port: 2888,
            election_port: 3888,
            observes: false,
            membership: "server.1=h:2888:3888:participant;h:2181\nversion=100000000".into(),
        };
        let facts = ConfFacts::new(&config, 2181, "/d", (1, 2), 7);
        let alone = conf(&facts);
        let facts = ConfFacts { quorum: Some(quorum), ..facts };
        assert_eq!(
            conf(&facts).strip_prefix(&alone),
            Some(
                "initLimit=-1\nsyncLimit=1\nelectionAlg=3\nelectionPort=3888\nquorumPort=2888\npeerType=0\n\
                 membership: \nserver.1=h:2888:3888:participant;h:2181\nversion=100000000"
            )
        );
        assert!(alone.ends_with("serverId=7\n"));
    }

    #[test]
    fn mntr_tells_of_each_server_what_zookeeper_tells() {
        let lines: Vec<(String, String)> = [
            "znode_count",
            "quorum_size",
            "synced_followers",
            "learners",
            "max_proposal_size",
            "synced_observers",
        ]
        .map(|name| (name.to_owned(), "1".to_owned()))
        .to_vec();
        for (mode, leader, told) in [
            (Mode::Standalone, None, "version server_state znode_count"),
            (
                Mode::Leader,
                Some(1),
                "version server_state peer_state znode_count quorum_size synced_followers learners max_proposal_size \
                 synced_observers",
            ),
            (
                Mode::Follower,
                Some(2),
                "version server_state peer_state znode_count quorum_size synced_observers",
            ),
            (
                Mode::Observer,
                Some(2),
                "version server_state peer_state observer_master_id znode_count quorum_size synced_observers",
            ),
        ] {
            let text = mntr(mode, leader, &lines);
            let keys: Vec<&str> = text
                .lines()
                .map(|line| line.split('\t').next().unwrap().strip_prefix("zk_").unwrap())
                .collect();
            assert_eq!(keys.join(" "), told, "{mode:?}");
        }
        assert_eq!(Mode::Follower.peer_state(true), Some("following - broadcast"));
        assert_eq!(Mode::Follower.peer_state(false), Some("looking"));
    }

    #[test]
    fn envi_has_zookeepers_keys_in_its_order() {
        let facts = EnviFacts {
            host_name: "localhost".into(),
            os_name: "Linux".into(),
            os_arch: "amd64".into(),
            os_version: "6.1".into(),
            user_name: "warren".into(),
            user_home: "/".into(),
            user_dir: "/".into(),
            memory_free_mb: 361,
            memory_max_mb: 1_024,
            memory_total_mb: 380,
        };
        let text = envi(&facts);
        let keys: Vec<&str> = text.lines().map(|line| line.split('=').next().unwrap()).collect();
        assert_eq!(
            keys.join(" "),
            "Environment: zookeeper.version host.name java.version java.vendor java.home java.class.path \
             java.library.path java.io.tmpdir java.compiler os.name os.arch os.version user.name user.home user.dir \
             os.memory.free os.memory.max os.memory.total"
        );
        assert!(text.ends_with("os.memory.free=361MB\nos.memory.max=1024MB\nos.memory.total=380MB\n"));
    }

    /// In the form that ZooKeeper 3.9.5 prints them.
    #[test]
    fn digests_and_masks_are_zookeepers() {
        let digests =
            [(warren_storage::Zxid::new(1, 128), 1_371_985_504), (warren_storage::Zxid::new(1, 256), 7)];
        assert_eq!(hash(&digests), "100000080: 1371985504\n100000100: 7\n");
        assert_eq!(TRACE_MASK, 306);
        assert_eq!(stmk(b"stmk\0\0\0\0\0\0\x01\x32"), Some(306));
        assert_eq!(stmk(b"stmk\0\0\0\0\0\0\x01"), None, "a byte is still to come");
    }

    #[test]
    fn the_small_ones_are_zookeepers() {
        assert_eq!((ruok(), crst(), srst()), ("imok", "Connection stats reset.\n", "Server stats reset.\n"));
        assert_eq!(dirs(478, 478), "datadir_size: 478\nlogdir_size: 478\n");
        let lines = [("avg_latency".into(), "3.5714".into()), ("quorum_size".into(), "0".into())];
        let mntr = mntr(Mode::Standalone, None, &lines);
        assert_eq!(
            mntr,
            format!("zk_version\t{}\nzk_server_state\tstandalone\nzk_avg_latency\t3.5714\n", version::full())
        );
    }

    #[test]
    fn the_whitelist_lets_in_what_it_names() {
        let named =
            |names: &[&str]| Whitelist::new(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(named(&["ruok"]).ask(*b"ruok"), Asked::Word(Word::Ruok));
        assert_eq!(named(&[]).ask(*b"srvr"), Asked::Word(Word::Srvr));
        let refused = Asked::Refused("mntr is not executed because it is not in the whitelist.\n".into());
        assert_eq!(named(&["ruok"]).ask(*b"mntr"), refused);
        assert!(Word::ALL.iter().all(|word| named(&["*"]).allows(*word)));
        assert_eq!(named(&["*"]).ask(*b"xxxx"), Asked::NoWord);
        assert_eq!(named(&["*"]).ask([0, 0, 0, 45]), Asked::NoWord);
        let refused = "telnet close is not executed because it is not in the whitelist.\n";
        assert_eq!(named(&["ruok"]).ask(TELNET_CLOSE), Asked::Refused(refused.into()));
        assert_eq!(named(&["*"]).ask(TELNET_CLOSE), Asked::NoWord);
    }

    #[test]
    fn no_word_is_a_length_that_could_be_meant() {
        let names: Vec<&str> = Word::ALL.iter().map(|word| word.name()).collect();
        assert_eq!(names.len(), 18, "as many as ZooKeeper has");
        for name in names {
            let first = name.as_bytes().try_into().unwrap();
            assert!(i32::from_be_bytes(first) > 1 << 30);
            assert!(!matches!(Whitelist::new(&[]).ask(first), Asked::NoWord), "{name}");
        }
        for not in [b"RUOK", b"ruo\0"] {
            assert_eq!(Whitelist::new(&[]).ask(*not), Asked::NoWord);
        }
    }

    #[test]
    fn a_server_that_does_not_serve_says_so() {
        let line = "This ZooKeeper instance is not currently serving requests\n";
        assert_eq!(Word::Srvr.while_not_serving(), Some(line));
        assert_eq!(Word::Isro.while_not_serving(), Some("null"));
        assert_eq!((Word::Ruok.while_not_serving(), Word::Envi.while_not_serving()), (None, None));
    }
}
