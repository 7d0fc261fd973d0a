//! Every key of `warren.toml`, declared once: its section, type, default, unit and meaning. The structs, the
//! reference that operators read ([`documented`]) and the known keys ([`KEYS`]) are made from this table.

use super::{Address, ConfigError, Ensemble, Listen, ensemble};
use crate::words::Word;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use warren_storage::Rules;

/// A key of `warren.toml`.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// With its section: `limits.memory_mb`.
    pub name: &'static str,
    /// Of its value.
    pub unit: &'static str,
    /// For the operator, in sentences.
    pub meaning: &'static str,
}

macro_rules! settings {
    (
        top { $( $(#[doc = $top_doc:literal])+ $top:ident: $top_type:ty = $top_default:expr, $top_unit:literal; )+ }
        $(
            $(#[doc = $section_doc:literal])+
            $section:ident: $struct:ident {
                $( $(#[doc = $doc:literal])+ $key:ident: $type:ty = $default:expr, $unit:literal; )+
            }
        )+
    ) => {
        /// How this server is set up. Defaults are Warren's; under `zoo.cfg` they are ZooKeeper's.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Config {
            $( $(#[doc = $top_doc])+ #[doc = concat!("\n\nUnit: ", $top_unit, ".")] pub $top: $top_type, )+
            $( $(#[doc = $section_doc])+ pub $section: $struct, )+
            /// The other servers; `None`: this one stands alone.
            #[serde(skip_serializing_if = "Option::is_none")]
            pub ensemble: Option<Ensemble>,
        }

        impl Default for Config {
            fn default() -> Config {
                Config { $( $top: $top_default, )+ $( $section: $struct::default(), )+ ensemble: None }
            }
        }

        $(
            $(#[doc = $section_doc])+
            #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
            #[serde(default, deny_unknown_fields)]
            pub struct $struct {
                $( $(#[doc = $doc])+ #[doc = concat!("\n\nUnit: ", $unit, ".")] pub $key: $type, )+
            }

            impl Default for $struct {
                fn default() -> $struct {
                    $struct { $( $key: $default, )+ }
                }
            }
        )+

        /// Every key, in the order of the table.
        pub const KEYS: &[Key] = &[
            $( Key { name: stringify!($top), unit: $top_unit, meaning: concat!($($top_doc),+) }, )+
            $( $( Key {
                name: concat!(stringify!($section), ".", stringify!($key)),
                unit: $unit,
                meaning: concat!($($doc),+),
            }, )+ )+
        ];
    };
}

settings! {
    top {
        /// Folder of everything that is kept; the stores lie in `warren/` below it. A relative one is seen from
        /// where the daemon was started.
        data_dir: PathBuf = "./warren-data".into(), "folder";
    }

    /// Where clients connect.
    client: Client {
        /// Where clients connect. `*:2181` is every interface.
        addr: Address = Address::new("127.0.0.1", 2181), "HOST:PORT";
        /// Connections that the kernel holds until they are accepted; 0 leaves it to the system.
        listen_backlog: u32 = 1_024, "connections";
        /// Connections at most, from everywhere; 0 is no limit. One more is closed at once.
        connections_max: u32 = 20_000, "connections";
        /// Connections at most from one address; 0 is no limit. The default keeps one host from taking all.
        connections_per_address_max: u32 = 10_000, "connections";
    }

    /// Where Prometheus asks.
    metrics: Metrics {
        /// Where metrics are served under `/metrics`, or `off`.
        addr: Listen = Listen::At(Address::new("127.0.0.1", 7000)), "HOST:PORT or off";
    }

    /// What is logged, to the standard error.
    log: Log {
        /// What is at least so grave is logged. SIGHUP lets a change take effect; the environment's `WARREN_LOG` wins over
        /// it.
        level: LogLevel = LogLevel::Info, "error, warn, info, debug or trace";
    }

    /// The AdminServer: ZooKeeper's commands as JSON over HTTP, and what load balancers ask.
    admin: Admin {
        /// Where it answers, or `off`: its commands, `/livez` and `/readyz`. It asks nobody who he is, and changes
        /// nothing. When the port is taken, the server says so and serves without it.
        addr: Listen = Listen::At(Address::new("127.0.0.1", 8080)), "HOST:PORT or off";
        /// Where its commands are: `/commands` lists them.
        command_url: String = "/commands".to_owned(), "path";
    }

    /// How long a silent client is waited for.
    sessions: Sessions {
        /// Sessions expire in steps of this.
        tick_ms: u32 = 2_000, "ms";
        /// The shortest timeout that a client gets, whatever it asks for.
        timeout_ms_min: u32 = 4_000, "ms";
        /// The longest timeout that a client gets, whatever it asks for.
        timeout_ms_max: u32 = 40_000, "ms";
        /// While this server has no leader, serve reads to clients that accept that they may be old. Such sessions
        /// are known to this server alone, and end when there is a leader again.
        read_only: bool = false, "true or false";
    }

    /// What clients can make grow, and how far.
    limits: Limits {
        /// Memory for the tree's changes that wait for a checkpoint, and for the cache of znodes. Data may be
        /// larger. An eighth of it bounds the access control lists that differ.
        memory_mb: u32 = 256, "MiB";
        /// A request at most. A longer one closes its connection, as in ZooKeeper (`jute.maxbuffer`).
        packet_bytes_max: u32 = 1_048_575, "bytes";
        /// A znode's data at most, in create, setData and multi. It can be lowered but not raised above the
        /// default.
        znode_bytes_max: u32 = 1 << 20, "bytes";
        /// Elements in a path at most.
        path_depth_max: u16 = 1_000, "elements";
        /// Requests of one connection that may wait for their answer; then it is not read from until some are
        /// answered.
        outstanding_per_connection_max: u32 = 1_000, "requests";
        /// The same for all connections together; then only those are read from that wait for nothing.
        outstanding_max: u32 = 20_000, "requests";
        /// Sessions at most; one more is not opened.
        sessions_max: u32 = 1_000_000, "sessions";
        /// Watches at most, of all connections together; one more is refused.
        watches_max: u32 = 2_000_000, "watches";
    }

    /// How the disk is used.
    storage: Storage {
        /// Space to keep free. Below it, writes that grow data are refused; reads, deletes and session closes go
        /// on. A quarter of it is set aside as a file, to finish what is under way on a full disk. Space in the tree's
        /// file counts, as long as half of this is free on the disk itself.
        disk_reserve_mb: u32 = 256, "MiB";
        /// A segment of the log at most. The repair after a crash takes time by it.
        segment_mb: u32 = 64, "MiB";
    }

    /// Who may do what.
    security: Security {
        /// `USER:BASE64` of SHA-1 of `USER:PASSWORD`; who shows that password by `addauth digest` passes every
        /// ACL. Unset: nobody.
        super_digest: Option<SuperDigest> = None, "digest";
        /// Check no ACL at all. Everybody may do everything.
        skip_acl: bool = false, "true or false";
        /// Take the scheme `digest` (user and password) from clients.
        digest_enabled: bool = true, "true or false";
    }

    /// Which kinds of znodes there are, and what is swept.
    znodes: Znodes {
        /// Refuse what exceeds a hard quota.
        quotas_enforced: bool = true, "true or false";
        /// Let clients create znodes with a time to live.
        ttl_enabled: bool = true, "true or false";
        /// How often empty containers and overdue TTL znodes are looked for.
        container_check_ms: u32 = 60_000, "ms";
        /// How many of them are deleted in a minute at most.
        container_deletes_per_minute_max: u32 = 10_000, "znodes";
        /// Delete a container that never had a child after this; 0 keeps it.
        container_never_used_ms_max: u64 = 0, "ms";
    }

    /// The plain-text commands of four letters on the client port.
    four_letter_words: FourLetterWords {
        /// Which are answered; `"*"` is all. `srvr` always is.
        whitelist: Vec<String> = Word::DEFAULT.iter().map(|word| word.name().to_owned()).collect(), "words";
    }
}

/// How grave something is that is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "each is what it is called")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        })
    }
}

/// The digest that makes a client super user. Not printed: who has it can guess passwords at leisure.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SuperDigest(pub String);

impl fmt::Debug for SuperDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SuperDigest(…)")
    }
}

/// A key whose value is out of bounds.
#[derive(Debug)]
pub(super) struct OutOfBounds {
    /// With its section.
    pub(super) key: &'static str,
    /// In words.
    pub(super) reason: String,
}

impl OutOfBounds {
    /// As an error, with the line that set it.
    pub(super) fn at_line(self, line: Option<usize>) -> ConfigError {
        ConfigError::Invalid { line, key: self.key.to_owned(), reason: self.reason }
    }
}

/// A packet must fit into memory as a whole, several times over.
const PACKET_BYTES_MAX: u64 = 256 << 20;

/// The part of `limits.memory_mb` that access control lists may take, one in so many.
const ACL_SHARE: u64 = 8;

impl Config {
    /// The bounds of each value, and of values against each other.
    pub(super) fn validate(&self) -> Result<(), OutOfBounds> {
        let Config { data_dir, client, metrics: _, sessions, limits, storage, security, znodes, .. } = self;
        let znode_ceiling = u64::from(Rules::default().data_bytes_max);
        let bounds: &[(&'static str, u64, u64, u64, &str)] = &[
            ("client.listen_backlog", client.listen_backlog.into(), 0, i32::MAX as u64, "connections"),
            ("sessions.tick_ms", sessions.tick_ms.into(), 1, 3_600_000, "ms"),
            ("sessions.timeout_ms_min", sessions.timeout_ms_min.into(), 1, i32::MAX as u64, "ms"),
            ("sessions.timeout_ms_max", sessions.timeout_ms_max.into(), 1, i32::MAX as u64, "ms"),
            ("limits.memory_mb", limits.memory_mb.into(), 16, 1 << 20, "MiB"),
            ("limits.packet_bytes_max", limits.packet_bytes_max.into(), 1_024, PACKET_BYTES_MAX, "bytes"),
            ("limits.znode_bytes_max", limits.znode_bytes_max.into(), 1, znode_ceiling, "bytes"),
            ("limits.path_depth_max", limits.path_depth_max.into(), 4, u16::MAX.into(), "elements"),
            (
                "limits.outstanding_per_connection_max",
                limits.outstanding_per_connection_max.into(),
                1,
                1 << 20,
                "",
            ),
            ("limits.outstanding_max", limits.outstanding_max.into(), 1, i32::MAX as u64, ""),
            ("limits.sessions_max", limits.sessions_max.into(), 1, u32::MAX.into(), ""),
            ("limits.watches_max", limits.watches_max.into(), 1, u32::MAX.into(), ""),
            ("storage.disk_reserve_mb", storage.disk_reserve_mb.into(), 16, 1 << 24, "MiB"),
            ("storage.segment_mb", storage.segment_mb.into(), 8, 256, "MiB"),
            ("znodes.container_check_ms", znodes.container_check_ms.into(), 1, i32::MAX as u64, "ms"),
            (
                "znodes.container_deletes_per_minute_max",
                znodes.container_deletes_per_minute_max.into(),
                1,
                u32::MAX.into(),
                "",
            ),
        ];
        for &(key, value, least, most, unit) in bounds {
            if !(least..=most).contains(&value) {
                let mut reason =
                    format!("{value} is not between {least} and {most} {unit}").trim_end().to_owned();
                if key == "limits.znode_bytes_max" && value > most {
                    reason.push_str("; it can be lowered but not raised");
                }
                return Err(OutOfBounds { key, reason });
            }
        }
        if sessions.timeout_ms_min > sessions.timeout_ms_max {
            let reason =
                format!("{} is above timeout_ms_max, {}", sessions.timeout_ms_min, sessions.timeout_ms_max);
            return Err(OutOfBounds { key: "sessions.timeout_ms_min", reason });
        }
        if data_dir.as_os_str().is_empty() {
            return Err(OutOfBounds { key: "data_dir", reason: "is empty".to_owned() });
        }
        let path = &self.admin.command_url;
        let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.".contains(c);
        if !path.starts_with('/') || path.len() < 2 || path.ends_with('/') || !path.chars().all(plain) {
            let reason = format!("`{path}` is not a path such as `/commands`");
            return Err(OutOfBounds { key: "admin.command_url", reason });
        }
        if let Some(SuperDigest(digest)) = &security.super_digest {
            let whole =
                digest.split_once(':').is_some_and(|(user, hash)| !user.is_empty() && !hash.is_empty());
            if !whole || digest.matches(':').count() != 1 {
                let reason = "is not of the form USER:BASE64, so nobody could ever show it".to_owned();
                return Err(OutOfBounds { key: "security.super_digest", reason });
            }
        }
        for word in &self.four_letter_words.whitelist {
            if word != "*" && Word::from_name(word).is_none() {
                let known = Word::ALL.iter().map(|word| word.name());
                let hint =
                    super::nearest::nearest(word, known).map(|near| format!("; did you mean `{near}`?"));
                let reason = format!("`{word}` is not a four-letter word{}", hint.unwrap_or_default());
                return Err(OutOfBounds { key: "four_letter_words.whitelist", reason });
            }
        }
        self.ensemble.as_ref().map_or(Ok(()), Ensemble::validate)
    }

    /// What of it bears on results, and so travels in the log.
    pub fn rules(&self) -> Rules {
        Rules {
            skip_acl: self.security.skip_acl,
            enforce_quota: self.znodes.quotas_enforced,
            extended_types: self.znodes.ttl_enabled,
            data_bytes_max: self.limits.znode_bytes_max,
            path_depth_max: self.limits.path_depth_max,
            acl_bytes_max: (u64::from(self.limits.memory_mb) << 20) / ACL_SHARE,
            refuse_growth: false,
        }
    }

    /// The settings in effect, as `warren.toml` would say them. The super digest is left out.
    pub fn to_toml(&self) -> String {
        let mut shown = self.clone();
        shown.security.super_digest = None;
        toml::to_string(&shown).expect("settings are tables of plain values")
    }
}

/// A `warren.toml` that says every key with its meaning, unit and default.
pub fn documented() -> String {
    let defaults = toml::Table::try_from(Config::default()).expect("settings are tables of plain values");
    let mut text = String::new();
    let mut section = "";
    for Key { name, unit, meaning } in KEYS {
        let (within, key) = name.split_once('.').unwrap_or(("", name));
        if within != section {
            section = within;
            text.push_str(&format!("\n[{section}]\n"));
        }
        let table = if within.is_empty() { Some(&defaults) } else { defaults[within].as_table() };
        let meaning = meaning.trim();
        match table.and_then(|table| table.get(key)) {
            Some(value) => text.push_str(&format!("# {meaning} ({unit})\n{key} = {value}\n")),
            None => text.push_str(&format!("# {meaning} ({unit}; unset by default)\n# {key} = \n")),
        }
    }
    text.push_str(&ensemble::documented());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_unit_and_a_meaning_and_a_default_or_none() {
        for Key { name, unit, meaning } in KEYS {
            assert!(!unit.is_empty(), "{name} has no unit");
            let said = meaning.trim();
            assert!(said.ends_with('.') && said.len() > 20, "{name} says too little: {said}");
        }
        // The other way round: what serde knows, the table knows.
        let mut config = Config::default();
        config.security.super_digest = Some(SuperDigest("super:x".into()));
        let table = toml::Table::try_from(config).unwrap();
        let mut named = 0;
        for (section, value) in &table {
            match value.as_table() {
                Some(keys) => {
                    for key in keys.keys() {
                        named += 1;
                        assert!(
                            KEYS.iter().any(|known| known.name == format!("{section}.{key}")),
                            "{section}.{key}"
                        );
                    }
                }
                None => {
                    named += 1;
                    assert!(KEYS.iter().any(|known| known.name == section), "{section}");
                }
            }
        }
        assert_eq!(named, KEYS.len());
    }

    #[test]
    fn the_reference_says_the_defaults() {
        let read: Config = toml::from_str(&documented()).unwrap();
        assert_eq!(read, Config::default());
    }

    #[test]
    fn the_defaults_are_within_bounds_and_make_the_default_rules() {
        Config::default().validate().unwrap();
        assert_eq!(Config::default().rules(), Rules::default());
    }

    #[test]
    fn the_super_digest_is_not_told() {
        let mut config = Config::default();
        config.security.super_digest = Some(SuperDigest("super:secret".into()));
        assert!(!format!("{config:?}").contains("secret"));
        assert!(!config.to_toml().contains("secret"));
    }
}
