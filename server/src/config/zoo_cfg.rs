//! Reads an existing ZooKeeper's `zoo.cfg`, with ZooKeeper's meaning and defaults.
//!
//! One table says of every key what it does here: it is taken, it means nothing (and the operator is told why), or
//! it asks for something that must not be missing silently, and is refused. ZooKeeper turns any key `k` that it does
//! not know into the Java property `zookeeper.k`, so the properties of its manual stand in the table as well, without
//! their `zookeeper.`; with it they are understood too.

use super::keys::SuperDigest;
use super::nearest::nearest;
use super::properties::{self, Property};
use super::{Address, Config, ConfigError, Listen, Loaded, Overrides, Warning};
use crate::words::Word;
use Does::{Nothing, Refused, Takes};

/// What a key does here.
enum Does {
    /// It sets something.
    Takes(fn(&mut Draft, &str) -> Result<(), String>),
    /// It means nothing, for the reason given; not worth a word when it has one of these values, which ask for what
    /// happens anyway.
    Nothing(&'static str, &'static [&'static str]),
    /// Going on without it would mislead; except at one of these values, which ask for what happens anyway.
    Refused(&'static str, &'static [&'static str]),
}

const ENSEMBLE_ONLY: &str = "bears on an ensemble, and this server stands alone";
const ENSEMBLE: &str = "this version serves standalone: an ensemble cannot be configured yet";
const CLIENT_TLS: &str =
    "TLS to clients is not served yet, and clients must not find a plain port, or none, instead";
const PEER_TLS: &str = "secures links between ZooKeeper servers, and this server stands alone";
const SASL: &str = "SASL is not served yet, so clients cannot be made to use it";
const SASL_SETTING: &str = "SASL is not served yet";
const SNAPSHOTS: &str = "Warren has no snapshots to count; checkpoints are automatic";
const PURGE: &str = "the log is always purged, as soon as it is checkpointed";
const LOG_FILES: &str = "the log's segments are sized by Warren itself";
const ADMIN: &str = "there is no admin server; the four-letter words and the metrics tell the same";
const NETWORK_THREADS: &str = "tunes threads and buffers of ZooKeeper's network code, which is not here";
const PIPELINE: &str = "tunes a queue of ZooKeeper's request processors, which are not here";
const WATCH_TABLES: &str = "tunes ZooKeeper's watch tables; Warren's need no tuning";
const CACHES: &str = "sizes a cache of ZooKeeper; Warren's caches share limits.memory_mb";
const THROTTLE: &str =
    "this throttle is not built yet; the limits on connections and on outstanding requests hold";
const JVM: &str = "there is no Java machine here";
const SYNCS: &str = "Warren syncs before it acknowledges, always";
const BATCHES: &str = "Warren groups commits by itself";
const CLIENT_SIDE: &str = "is a setting of ZooKeeper's client";

/// Every key, once. One that ends in `*` stands for all with that beginning; an exact one goes before it, and among
/// beginnings the first in the table.
const TABLE: &[(&str, Does)] = &[
    // Where things are.
    ("dataDir", Takes(|draft, value| set(&mut draft.config.data_dir, value.into()))),
    ("dataLogDir", Nothing("Warren keeps its log in dataDir; put dataDir on the faster device", &[])),
    ("clientPort", Takes(|draft, value| set(&mut draft.client_port, Some(port(value)?)))),
    ("clientPortAddress", Takes(|draft, value| set(&mut draft.client_host, Some(bare_host(value))))),
    (
        "clientPortListenBacklog",
        Takes(|draft, value| set(&mut draft.config.client.listen_backlog, ceiling(integer(value)?))),
    ),
    ("secureClientPort*", Refused(CLIENT_TLS, &[])),
    ("client.portUnification", Refused(CLIENT_TLS, &["false"])),
    ("serverCnxnFactory", Nothing("Warren has one network layer of its own", &[])),
    // Time and sessions.
    ("tickTime", Takes(|draft, value| set(&mut draft.tick_ms, integer(value)?))),
    ("minSessionTimeout", Takes(|draft, value| set(&mut draft.timeout_ms_min, integer(value)?))),
    ("maxSessionTimeout", Takes(|draft, value| set(&mut draft.timeout_ms_max, integer(value)?))),
    ("localSessions*", Nothing("every session is a full one here", &["false"])),
    (
        "closeSessionTxn.enabled",
        Nothing("sessions are always closed through the log, with their ephemerals", &["true"]),
    ),
    // Limits.
    (
        "maxClientCnxns",
        Takes(|draft, value| {
            set(&mut draft.config.client.connections_per_address_max, ceiling(integer(value)?))
        }),
    ),
    (
        "maxCnxns",
        Takes(|draft, value| set(&mut draft.config.client.connections_max, ceiling(decoded(value)?))),
    ),
    ("jute.maxbuffer", Takes(packet)),
    ("jute.maxbuffer.extrasize", Nothing("is for reading ZooKeeper's own files", &[])),
    (
        "globalOutstandingLimit",
        Takes(|draft, value| set(&mut draft.config.limits.outstanding_max, ceiling(decoded(value)?.max(1)))),
    ),
    ("largeRequestMaxBytes", Nothing("counts only with largeRequestThreshold", &[])),
    ("largeRequestThreshold", Nothing(THROTTLE, &["-1"])),
    ("request_throttle_max_requests", Nothing(THROTTLE, &["0"])),
    ("request_throttler.*", Nothing(PIPELINE, &[])),
    ("request_throttle*", Nothing("counts only with request_throttle_max_requests", &[])),
    ("request_stale*", Nothing("counts only with request_throttle_max_requests", &[])),
    ("throttled_op_wait_time", Nothing(THROTTLE, &["0"])),
    ("connection_throttle_tokens", Nothing(THROTTLE, &["0"])),
    ("connection_throttle*", Nothing("counts only with connection_throttle_tokens", &[])),
    // Who may do what.
    (
        "DigestAuthenticationProvider.superDigest",
        Takes(|draft, value| {
            set(
                &mut draft.config.security.super_digest,
                (!value.is_empty()).then(|| SuperDigest(value.to_owned())),
            )
        }),
    ),
    (
        "DigestAuthenticationProvider.enabled",
        Takes(|draft, value| {
            let enabled = draft.java_boolean("DigestAuthenticationProvider.enabled", value);
            set(&mut draft.config.security.digest_enabled, enabled)
        }),
    ),
    (
        "DigestAuthenticationProvider.digestAlg",
        Refused("only SHA1 is known; ids made by another digest would not match", &["SHA1", "SHA-1", "SHA"]),
    ),
    ("skipACL", Takes(skip_acl)),
    ("authProvider.*", Takes(auth_provider)),
    ("enableEagerACLCheck", Nothing("a write is checked once, when it is applied", &["false"])),
    ("sessionRequireClientSASLAuth", Refused(SASL, &["false"])),
    ("requireClientAuthScheme", Refused(SASL, &[])),
    (
        "enforce.auth.enabled",
        Refused("clients cannot be made to authenticate yet, so everyone would get in", &["false"]),
    ),
    ("enforce.auth.schemes", Nothing("counts only with enforce.auth.enabled", &[])),
    ("allowSaslFailedClients", Nothing(SASL_SETTING, &[])),
    (
        "SASLAuthenticationProvider.superPassword",
        Nothing("SASL is not served yet: nobody becomes super user by it", &[]),
    ),
    ("superUser*", Nothing("SASL is not served yet: nobody becomes super user by it", &[])),
    (
        "X509AuthenticationProvider.superUser",
        Nothing("TLS to clients is not served yet: nobody becomes super user by it", &[]),
    ),
    (
        "IPAuthenticationProvider.usexforwardedfor",
        Nothing("bears on the admin server, which is not here", &[]),
    ),
    ("ensembleAuthName", Nothing("counts only with the ensemble authentication provider", &[])),
    ("ssl.quorum.*", Nothing(PEER_TLS, &[])),
    ("sslQuorum*", Nothing(PEER_TLS, &[])),
    ("portUnification", Nothing(PEER_TLS, &[])),
    ("ssl.*", Refused(CLIENT_TLS, &[])),
    ("client.certReload", Nothing("TLS to clients is not served yet", &["false"])),
    (
        "quorum.auth.*",
        Nothing("secures links between ZooKeeper servers, and this server stands alone", &["false"]),
    ),
    ("quorum.cnxn.threads.size", Nothing(ENSEMBLE_ONLY, &[])),
    ("fips-mode", Nothing("no algorithm that it forbids is used here", &[])),
    ("sasl.*", Nothing(SASL_SETTING, &[])),
    ("kerberos.*", Nothing(SASL_SETTING, &[])),
    ("kinit", Nothing(SASL_SETTING, &[])),
    ("requireKerberosConfig", Nothing(SASL_SETTING, &[])),
    ("letAnySaslUserDoX", Nothing(SASL_SETTING, &[])),
    ("security.auth_to_local", Nothing(SASL_SETTING, &[])),
    ("server.principal", Nothing(SASL_SETTING, &[])),
    ("server.realm", Nothing(SASL_SETTING, &[])),
    ("audit.*", Nothing("there is no audit log yet", &["false"])),
    // Kinds of znodes.
    (
        "enforceQuota",
        Takes(|draft, value| {
            let enforced = draft.java_boolean("enforceQuota", value);
            set(&mut draft.config.znodes.quotas_enforced, enforced)
        }),
    ),
    (
        "extendedTypesEnabled",
        Takes(|draft, value| {
            let enabled = draft.java_boolean("extendedTypesEnabled", value);
            set(&mut draft.config.znodes.ttl_enabled, enabled)
        }),
    ),
    ("emulate353TTLNodes", Refused("TTL znodes in the form of ZooKeeper 3.5.3 are not known", &["false"])),
    (
        "znode.container.checkIntervalMs",
        Takes(|draft, value| set(&mut draft.config.znodes.container_check_ms, positive(decoded(value)?)?)),
    ),
    (
        "znode.container.maxPerMinute",
        Takes(|draft, value| {
            set(&mut draft.config.znodes.container_deletes_per_minute_max, positive(decoded(value)?)?)
        }),
    ),
    (
        "znode.container.maxNeverUsedIntervalMs",
        Takes(|draft, value| {
            set(&mut draft.config.znodes.container_never_used_ms_max, decoded(value)?.max(0) as u64)
        }),
    ),
    // What operators ask it.
    ("4lw.commands.whitelist", Takes(whitelist)),
    (
        "readonlymode.enabled",
        Takes(|draft, value| set(&mut draft.config.sessions.read_only, value == "true")),
    ),
    ("metricsProvider.className", Takes(|draft, value| set(&mut draft.metrics_class, value.to_owned()))),
    ("metricsProvider.httpHost", Takes(|draft, value| set(&mut draft.metrics_host, bare_host(value)))),
    ("metricsProvider.httpPort", Takes(|draft, value| set(&mut draft.metrics_port, Some(port(value)?)))),
    ("metricsProvider.exportJvmInfo", Nothing(JVM, &["false"])),
    ("metricsProvider.httpsPort", Refused("metrics are not served over TLS yet", &[])),
    ("metricsProvider.*", Nothing("the metrics listener has no such setting", &[])),
    ("admin.enableServer", Nothing(ADMIN, &["false"])),
    ("admin.*", Nothing(ADMIN, &[])),
    ("jvm.pause.monitor", Nothing(JVM, &["false"])),
    ("jvm.pause.*", Nothing(JVM, &[])),
    ("jmx.*", Nothing(JVM, &[])),
    ("messageTracker.*", Nothing("bears on links between ZooKeeper servers", &[])),
    ("pathStats.*", Nothing("requests are not sampled by path", &["false"])),
    // Its files.
    ("autopurge.*", Nothing(PURGE, &[])),
    ("snapCount", Nothing(SNAPSHOTS, &[])),
    ("snapSizeLimitInKb", Nothing(SNAPSHOTS, &[])),
    ("snapshotSizeFactor", Nothing(SNAPSHOTS, &[])),
    ("snapshot.compression.method", Nothing("Warren writes no snapshots", &[])),
    ("snapshot.trust.empty", Nothing("a store is never taken for complete when its log is not", &["false"])),
    ("serializeLastProcessedZxid.enabled", Nothing("the zxid is always part of a checkpoint", &["true"])),
    ("preAllocSize", Nothing(LOG_FILES, &[])),
    ("txnLogSizeLimitInKb", Nothing(LOG_FILES, &[])),
    ("commitLogCount", Nothing(ENSEMBLE_ONLY, &[])),
    ("forceSync", Nothing(SYNCS, &["yes"])),
    ("fsync.warningthresholdms", Nothing("slow syncs show in the metric fsynctime", &[])),
    ("flushDelay", Nothing(BATCHES, &[])),
    ("maxBatchSize", Nothing(BATCHES, &[])),
    ("maxWriteQueuePollTime", Nothing(BATCHES, &[])),
    ("digest.enabled", Nothing("the tree's digest is always kept", &["true"])),
    ("datadir.autocreate", Nothing("a missing data folder is created", &["true"])),
    (
        "db.autocreate",
        Nothing("an empty data folder is begun anew; one that holds ZooKeeper's data is refused", &["true"]),
    ),
    // An ensemble.
    ("server.*", Takes(server)),
    ("dynamicConfigFile", Refused(ENSEMBLE, &[])),
    ("standaloneEnabled", Refused(ENSEMBLE, &["true"])),
    ("peerType", Refused(ENSEMBLE, &["participant"])),
    ("reconfigEnabled", Nothing(ENSEMBLE_ONLY, &["false"])),
    ("initLimit", Nothing(ENSEMBLE_ONLY, &[])),
    ("syncLimit", Nothing(ENSEMBLE_ONLY, &[])),
    ("electionAlg", Nothing(ENSEMBLE_ONLY, &[])),
    ("electionPortBindRetry", Nothing(ENSEMBLE_ONLY, &[])),
    ("leaderServes", Nothing(ENSEMBLE_ONLY, &["yes"])),
    ("quorumListenOnAllIPs", Nothing(ENSEMBLE_ONLY, &["false"])),
    ("connectToLearnerMasterLimit", Nothing(ENSEMBLE_ONLY, &[])),
    ("observerMaster*", Nothing(ENSEMBLE_ONLY, &[])),
    ("syncEnabled", Nothing(ENSEMBLE_ONLY, &["true"])),
    ("group*", Nothing(ENSEMBLE_ONLY, &[])),
    ("weight*", Nothing(ENSEMBLE_ONLY, &[])),
    ("oraclePath", Nothing(ENSEMBLE_ONLY, &[])),
    ("multiAddress.*", Nothing(ENSEMBLE_ONLY, &["false"])),
    ("leader.*", Nothing(ENSEMBLE_ONLY, &[])),
    ("learner.*", Nothing(ENSEMBLE_ONLY, &[])),
    ("follower.*", Nothing(ENSEMBLE_ONLY, &[])),
    ("observer.*", Nothing(ENSEMBLE_ONLY, &[])),
    ("fastleader.*", Nothing(ENSEMBLE_ONLY, &[])),
    ("forceSnapshotSync", Nothing(ENSEMBLE_ONLY, &["false"])),
    ("cnxTimeout", Nothing(ENSEMBLE_ONLY, &[])),
    ("quorumCnxnTimeoutMs", Nothing(ENSEMBLE_ONLY, &[])),
    ("leaderConnectDelayDuringRetryMs", Nothing(ENSEMBLE_ONLY, &[])),
    ("tcpKeepAlive", Nothing(ENSEMBLE_ONLY, &["false"])),
    // Its threads.
    ("nio.*", Nothing(NETWORK_THREADS, &[])),
    ("netty.*", Nothing(NETWORK_THREADS, &[])),
    ("clientTcpKeepAlive", Nothing("connections are watched by the session's pings", &["false"])),
    ("intBufferStartingSizeBytes", Nothing(NETWORK_THREADS, &[])),
    ("commitProcessor.*", Nothing(PIPELINE, &[])),
    ("forward_learner_requests_to_commit_processor_disabled", Nothing(PIPELINE, &[])),
    ("watchManagerName", Nothing(WATCH_TABLES, &[])),
    ("watcherClean*", Nothing(WATCH_TABLES, &[])),
    ("maxInProcessingDeadWatchers", Nothing(WATCH_TABLES, &[])),
    ("bitHashCacheSize", Nothing(WATCH_TABLES, &[])),
    ("maxResponseCacheSize", Nothing(CACHES, &[])),
    ("maxGetChildrenResponseCacheSize", Nothing(CACHES, &[])),
    // What does not belong here at all.
    ("client.secure", Nothing(CLIENT_SIDE, &[])),
    ("clientCnxnSocket", Nothing(CLIENT_SIDE, &[])),
    ("disableAutoWatchReset", Nothing(CLIENT_SIDE, &[])),
    ("request.timeout", Nothing(CLIENT_SIDE, &[])),
];

/// Under way: ZooKeeper's keys depend on each other, so some are settled at the end.
struct Draft {
    config: Config,
    /// Without their line.
    warnings: Vec<String>,
    client_port: Option<u16>,
    client_host: Option<String>,
    tick_ms: i32,
    /// −1 is unset.
    timeout_ms_min: i32,
    /// −1 is unset.
    timeout_ms_max: i32,
    metrics_class: String,
    metrics_host: String,
    metrics_port: Option<u16>,
    servers: u32,
}

impl Draft {
    /// ZooKeeper's defaults, where Warren's differ. `dataDir` and `clientPort` have none.
    fn new() -> Draft {
        let mut config = Config { data_dir: "".into(), ..Config::default() };
        config.metrics.addr = Listen::Off;
        config.client.listen_backlog = 0;
        config.client.connections_max = 0;
        config.client.connections_per_address_max = 60;
        config.limits.outstanding_max = 1_000;
        config.znodes.quotas_enforced = false;
        config.znodes.ttl_enabled = false;
        config.four_letter_words.whitelist = vec!["srvr".to_owned()];
        Draft {
            config,
            warnings: Vec::new(),
            client_port: None,
            client_host: None,
            tick_ms: 3_000,
            timeout_ms_min: -1,
            timeout_ms_max: -1,
            metrics_class: String::new(),
            metrics_host: "*".to_owned(),
            metrics_port: None,
            servers: 0,
        }
    }

    /// Java's reading: `true` in any case is true, and everything else is false.
    fn java_boolean(&mut self, key: &str, value: &str) -> bool {
        let is_true = value.eq_ignore_ascii_case("true");
        if !is_true && !value.eq_ignore_ascii_case("false") {
            self.warnings.push(format!("{key}: `{value}` is not `true`, so it is false, as in ZooKeeper"));
        }
        is_true
    }
}

pub(super) fn load(bytes: &[u8], flags: &Overrides) -> Result<Loaded, ConfigError> {
    let text = properties::decode(bytes);
    let written = properties::parse(&text)?;
    let mut draft = Draft::new();
    let mut warnings = Vec::new();
    for (index, property) in written.iter().enumerate() {
        let key = spelled(&property.key);
        if let Some(later) = written[index + 1..].iter().find(|later| spelled(&later.key) == key) {
            let text = format!("{key}: line {} sets it again, and the last one counts", later.line);
            warnings.push(Warning { line: property.line, text });
            continue;
        }
        take(&mut draft, property)?;
        warnings.extend(draft.warnings.drain(..).map(|text| Warning { line: property.line, text }));
        if !property.value.is_ascii() && std::str::from_utf8(bytes).is_ok() {
            let text = format!("{key}: read as UTF-8, where ZooKeeper would read Latin-1");
            warnings.push(Warning { line: property.line, text });
        }
    }
    let line_of =
        |key: &str| written.iter().rev().find(|property| spelled(&property.key) == key).map(|p| p.line);
    settle(&mut draft, flags).map_err(|(key, reason)| ConfigError::Invalid {
        line: line_of(key),
        key: key.to_owned(),
        reason,
    })?;
    draft.config.validate().map_err(|bad| {
        // Of the keys with bounds, tell ZooKeeper's name.
        let key = match bad.key {
            "limits.packet_bytes_max" => "jute.maxbuffer",
            "security.super_digest" => "DigestAuthenticationProvider.superDigest",
            "sessions.tick_ms" => "tickTime",
            "sessions.timeout_ms_min" => "minSessionTimeout",
            "sessions.timeout_ms_max" => "maxSessionTimeout",
            "data_dir" => "dataDir",
            "znodes.container_check_ms" => "znode.container.checkIntervalMs",
            "znodes.container_deletes_per_minute_max" => "znode.container.maxPerMinute",
            other => other,
        };
        ConfigError::Invalid { line: line_of(key), key: key.to_owned(), reason: bad.reason }
    })?;
    Ok(Loaded { config: draft.config, warnings })
}

/// The key as the table has it: ZooKeeper trims keys, and takes what it does not know for `zookeeper.` plus the key.
fn spelled(key: &str) -> &str {
    let key = key.trim();
    key.strip_prefix("zookeeper.").unwrap_or(key)
}

fn rule(key: &str) -> Option<&'static Does> {
    let exact = TABLE.iter().find(|(name, _)| *name == key);
    let begins =
        || TABLE.iter().find(|(name, _)| name.strip_suffix('*').is_some_and(|start| key.starts_with(start)));
    exact.or_else(begins).map(|(_, does)| does)
}

fn take(draft: &mut Draft, property: &Property) -> Result<(), ConfigError> {
    let (key, value, line) = (spelled(&property.key), property.value.trim(), property.line);
    let asked_for = |values: &[&str]| values.iter().any(|asked| asked.eq_ignore_ascii_case(value));
    match rule(key) {
        Some(Takes(take)) => take(draft, value).map_err(|reason| match reason.strip_prefix(REFUSED) {
            Some(reason) => ConfigError::Refused { line, key: key.to_owned(), reason: reason.to_owned() },
            None => ConfigError::Invalid { line: Some(line), key: key.to_owned(), reason },
        }),
        Some(Nothing(_, anyway) | Refused(_, anyway)) if asked_for(anyway) => Ok(()),
        Some(Nothing(why, _)) => {
            draft.warnings.push(format!("{key} has no effect: {why}"));
            Ok(())
        }
        Some(Refused(why, _)) => {
            Err(ConfigError::Refused { line, key: key.to_owned(), reason: (*why).to_owned() })
        }
        None => {
            let near = nearest(key, TABLE.iter().map(|(name, _)| *name).filter(|name| !name.ends_with('*')));
            let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
            draft.warnings.push(format!("{key} has no effect: Warren knows no such key or property{hint}"));
            Ok(())
        }
    }
}

/// What is known only when every key is read.
fn settle(draft: &mut Draft, flags: &Overrides) -> Result<(), (&'static str, String)> {
    let Draft { config, .. } = draft;
    match (draft.client_port, &draft.client_host, &flags.client_addr) {
        (_, _, Some(_)) => {}
        (Some(port), host, None) => {
            config.client.addr = Address::new(host.clone().unwrap_or_else(|| "*".to_owned()), port);
        }
        (None, Some(_), None) => {
            return Err(("clientPortAddress", "is set but clientPort is not".to_owned()));
        }
        (None, None, None) => return Err(("clientPort", "is not set".to_owned())),
    }
    if config.data_dir.as_os_str().is_empty() && flags.data_dir.is_none() {
        return Err(("dataDir", "is not set".to_owned()));
    }

    if draft.tick_ms <= 0 {
        return Err(("tickTime", format!("{} is not above 0", draft.tick_ms)));
    }
    let of_ticks = |given: i32, ticks: i32| match given {
        -1 => draft.tick_ms.saturating_mul(ticks),
        given => given,
    };
    let positive = |key, value: i32| match u32::try_from(value) {
        Ok(value) if value > 0 => Ok(value),
        _ => Err((key, format!("{value} is not above 0"))),
    };
    config.sessions.tick_ms = draft.tick_ms as u32;
    config.sessions.timeout_ms_min = positive("minSessionTimeout", of_ticks(draft.timeout_ms_min, 2))?;
    config.sessions.timeout_ms_max = positive("maxSessionTimeout", of_ticks(draft.timeout_ms_max, 20))?;
    if config.sessions.timeout_ms_min > config.sessions.timeout_ms_max {
        return Err(("minSessionTimeout", "must not be larger than maxSessionTimeout".to_owned()));
    }

    let class = draft.metrics_class.rsplit('.').next().unwrap_or_default();
    config.metrics.addr = match class {
        "" | "DefaultMetricsProvider" | "NullMetricsProvider" => Listen::Off,
        "PrometheusMetricsProvider" => {
            Listen::At(Address::new(draft.metrics_host.clone(), draft.metrics_port.unwrap_or(7_000)))
        }
        _ => {
            let reason = "only org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider is known";
            return Err(("metricsProvider.className", reason.to_owned()));
        }
    };

    let words = &mut config.four_letter_words.whitelist;
    for always in ["srvr"].into_iter().chain(config.sessions.read_only.then_some("isro")) {
        if !words.iter().any(|word| word == always || word == "*") {
            words.push(always.to_owned());
        }
    }
    config.lay_over(flags);
    Ok(())
}

/// Marks a reason of [`Does::Takes`] as a refusal of what was asked for, rather than of how it was written.
const REFUSED: &str = "refused: ";

fn set<T>(place: &mut T, value: T) -> Result<(), String> {
    *place = value;
    Ok(())
}

/// As `Integer.parseInt`.
fn integer(value: &str) -> Result<i32, String> {
    value.parse().map_err(|_| format!("`{value}` is not a whole number"))
}

/// As `Integer.decode`, which Java properties go through: decimal, `0x…`, `#…`, or octal with a leading 0. Where
/// ZooKeeper falls back to the default in silence, this refuses.
fn decoded(value: &str) -> Result<i32, String> {
    let refuse = || format!("`{value}` is not a whole number");
    let (sign, digits) = match value.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", value.strip_prefix('+').unwrap_or(value)),
    };
    let hex = digits.strip_prefix("0x").or(digits.strip_prefix("0X")).or(digits.strip_prefix('#'));
    let (digits, radix) = match (hex, digits.strip_prefix('0')) {
        (Some(hex), _) => (hex, 16),
        (None, Some(octal)) if !octal.is_empty() => (octal, 8),
        _ => (digits, 10),
    };
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(refuse());
    }
    i32::from_str_radix(&format!("{sign}{digits}"), radix).map_err(|_| refuse())
}

fn positive(value: i32) -> Result<u32, String> {
    u32::try_from(value).ok().filter(|value| *value > 0).ok_or_else(|| format!("{value} is not above 0"))
}

/// A limit of which 0 and less is none.
fn ceiling(value: i32) -> u32 {
    value.max(0) as u32
}

fn port(value: &str) -> Result<u16, String> {
    integer(value)?.try_into().map_err(|_| format!("{value} is not a port (0 to 65535)"))
}

/// Without the brackets that belong to `HOST:PORT`. Java binds every interface, IPv6 included, for either wildcard.
fn bare_host(value: &str) -> String {
    match value.trim().trim_start_matches('[').trim_end_matches(']') {
        "0.0.0.0" | "::" => "*".to_owned(),
        host => host.to_owned(),
    }
}

/// Operators raise it for large znodes as often as for many children.
fn packet(draft: &mut Draft, value: &str) -> Result<(), String> {
    let bytes = positive(decoded(value)?)?;
    let data = draft.config.limits.znode_bytes_max;
    if bytes > data {
        draft.warnings.push(format!(
            "jute.maxbuffer: requests may be larger, but a znode's data stays at most {data} bytes"
        ));
    }
    set(&mut draft.config.limits.packet_bytes_max, bytes)
}

fn skip_acl(draft: &mut Draft, value: &str) -> Result<(), String> {
    if value != "yes" && value != "no" {
        draft.warnings.push(format!("skipACL: `{value}` is not `yes`, so ACLs are checked, as in ZooKeeper"));
    }
    set(&mut draft.config.security.skip_acl, value == "yes")
}

fn auth_provider(_: &mut Draft, value: &str) -> Result<(), String> {
    match value.rsplit('.').next().unwrap_or_default() {
        "DigestAuthenticationProvider" | "IPAuthenticationProvider" => Ok(()), // They are there anyway.
        "SASLAuthenticationProvider" => Err(format!("{REFUSED}{SASL}")),
        "X509AuthenticationProvider" => Err(format!("{REFUSED}{CLIENT_TLS}")),
        _ => Err(format!("{REFUSED}{value} is not known: znodes that its ids protect would be out of reach")),
    }
}

/// ZooKeeper stands alone with one server line, and says so in its log.
fn server(draft: &mut Draft, value: &str) -> Result<(), String> {
    draft.servers += 1;
    if draft.servers > 1 || value.split([':', ';']).any(|part| part.eq_ignore_ascii_case("observer")) {
        return Err(format!("{REFUSED}{ENSEMBLE}"));
    }
    if let (None, Some((_, client))) = (draft.client_port, value.split_once(';')) {
        let (host, number) =
            client.rsplit_once(':').map_or((None, client), |(host, number)| (Some(host), number));
        draft.client_port = Some(port(number.trim())?);
        draft.client_host = draft.client_host.take().or(host.map(bare_host));
    }
    draft
        .warnings
        .push("one server line alone is no ensemble: this server stands alone, as in ZooKeeper".to_owned());
    Ok(())
}

fn whitelist(draft: &mut Draft, value: &str) -> Result<(), String> {
    let mut words = Vec::new();
    for word in value.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        if word == "*" {
            words = vec!["*".to_owned()];
            break;
        }
        match Word::from_name(word) {
            Some(_) => words.push(word.to_owned()),
            None => draft.warnings.push(format!("4lw.commands.whitelist: Warren has no command `{word}`")),
        }
    }
    set(&mut draft.config.four_letter_words.whitelist, words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Loaded, String> {
        load(text.as_bytes(), &Overrides::default()).map_err(|error| error.to_string())
    }

    /// With the two keys that ZooKeeper asks for.
    fn with(text: &str) -> Result<Loaded, String> {
        read(&format!("dataDir=/d\nclientPort=2181\n{text}"))
    }

    #[test]
    fn the_sample_file_stands_alone() {
        let loaded = read(
            "# how long a tick is\ntickTime=2000\ninitLimit=10\nsyncLimit=5\n\
             dataDir=/tmp/zookeeper\nclientPort=2181\n#maxClientCnxns=60\n#autopurge.purgeInterval=1\n",
        )
        .unwrap();
        let config = loaded.config;
        assert_eq!(config.client.addr.to_string(), "*:2181");
        assert_eq!((config.sessions.timeout_ms_min, config.sessions.timeout_ms_max), (4_000, 40_000));
        let said: Vec<String> = loaded.warnings.iter().map(Warning::to_string).collect();
        assert_eq!(
            said,
            [
                "line 3: initLimit has no effect: bears on an ensemble, and this server stands alone",
                "line 4: syncLimit has no effect: bears on an ensemble, and this server stands alone",
            ]
        );
    }

    #[test]
    fn every_default_is_zookeepers() {
        let config = with("").unwrap().config;
        assert_eq!(config.sessions.tick_ms, 3_000);
        assert_eq!((config.sessions.timeout_ms_min, config.sessions.timeout_ms_max), (6_000, 60_000));
        assert_eq!((config.client.connections_max, config.client.connections_per_address_max), (0, 60));
        assert_eq!(config.limits.outstanding_max, 1_000);
        assert_eq!(config.limits.packet_bytes_max, 1_048_575);
        assert!(!config.znodes.quotas_enforced && !config.znodes.ttl_enabled && !config.security.skip_acl);
        assert_eq!(config.four_letter_words.whitelist, ["srvr"]);
        assert_eq!(config.metrics.addr, Listen::Off);
        assert_eq!(config.znodes.container_check_ms, 60_000);
    }

    #[test]
    fn kafkas_file_is_taken() {
        let loaded =
            read("dataDir=/tmp/zookeeper\nclientPort=2181\nmaxClientCnxns=0\nadmin.enableServer=false\n")
                .unwrap();
        assert_eq!(loaded.config.client.connections_per_address_max, 0);
        assert_eq!(loaded.warnings, []);
    }

    #[test]
    fn properties_are_taken_with_and_without_their_prefix() {
        for prefix in ["", "zookeeper."] {
            let config = with(&format!(
                "{prefix}DigestAuthenticationProvider.superDigest=super:abc=\n{prefix}skipACL=yes\n\
                 {prefix}enforceQuota=TRUE\n{prefix}extendedTypesEnabled=true\n{prefix}jute.maxbuffer=0x400000\n\
                 {prefix}4lw.commands.whitelist= ruok , mntr,\n{prefix}znode.container.checkIntervalMs=1000\n\
                 {prefix}maxCnxns=7\n{prefix}globalOutstandingLimit=0"
            ))
            .unwrap()
            .config;
            assert_eq!(config.security.super_digest, Some(SuperDigest("super:abc=".into())));
            assert!(config.security.skip_acl && config.znodes.quotas_enforced && config.znodes.ttl_enabled);
            assert_eq!(config.limits.packet_bytes_max, 4 << 20);
            assert_eq!(config.limits.znode_bytes_max, 1 << 20, "not raised with the packet");
            assert_eq!(config.four_letter_words.whitelist, ["ruok", "mntr", "srvr"]);
            assert_eq!(config.znodes.container_check_ms, 1_000);
            assert_eq!((config.client.connections_max, config.limits.outstanding_max), (7, 1));
        }
    }

    #[test]
    fn addresses_are_put_together() {
        for (text, client, metrics) in [
            ("clientPortAddress=127.0.0.1", "127.0.0.1:2181", "off"),
            ("clientPortAddress=::1", "[::1]:2181", "off"),
            ("clientPortAddress=0.0.0.0", "*:2181", "off"),
            ("metricsProvider.httpPort=1", "*:2181", "off"),
            (
                "metricsProvider.className=org.apache.zookeeper.metrics.prometheus.PrometheusMetricsProvider",
                "*:2181",
                "*:7000",
            ),
            (
                "metricsProvider.className=a.PrometheusMetricsProvider\nmetricsProvider.httpHost=h\nmetricsProvider.httpPort=8",
                "*:2181",
                "h:8",
            ),
            (
                "metricsProvider.className=org.apache.zookeeper.metrics.impl.DefaultMetricsProvider",
                "*:2181",
                "off",
            ),
        ] {
            let config = with(text).unwrap().config;
            assert_eq!(
                (config.client.addr.to_string(), config.metrics.addr.to_string()),
                (client.into(), metrics.into())
            );
        }
        let one = read("dataDir=/d\nserver.1=localhost:2888:3888;127.0.0.1:2182").unwrap();
        assert_eq!(one.config.client.addr.to_string(), "127.0.0.1:2182");
        assert!(one.warnings[0].text.contains("stands alone"));
    }

    #[test]
    fn what_must_not_be_missing_silently_is_refused() {
        for (text, said) in [
            ("server.1=a:1:2\nserver.2=b:1:2", "line 4: server.2: this version serves standalone"),
            ("server.1=a:1:2:observer;2181", "line 3: server.1: this version serves standalone"),
            ("dynamicConfigFile=/x", "line 3: dynamicConfigFile: this version serves standalone"),
            ("peerType=observer", "this version serves standalone"),
            ("standaloneEnabled=false", "this version serves standalone"),
            ("secureClientPort=2281", "line 3: secureClientPort: TLS to clients is not served yet"),
            ("secureClientPortAddress=h", "TLS to clients is not served yet"),
            ("ssl.keyStore.location=/k", "TLS to clients is not served yet"),
            ("zookeeper.ssl.clientAuth=need", "line 3: ssl.clientAuth: TLS"),
            (
                "authProvider.1=org.apache.zookeeper.server.auth.SASLAuthenticationProvider",
                "SASL is not served yet",
            ),
            ("authProvider.x=com.example.Mine", "authProvider.x: com.example.Mine is not known"),
            ("sessionRequireClientSASLAuth=true", "SASL is not served yet"),
            ("enforce.auth.enabled=true", "so everyone would get in"),
            ("DigestAuthenticationProvider.digestAlg=SHA-256", "only SHA1"),
            ("emulate353TTLNodes=true", "3.5.3"),
            ("metricsProvider.className=a.B", "line 3: metricsProvider.className: only"),
            ("maxClientCnxns=many", "line 3: maxClientCnxns: `many` is not a whole number"),
            ("jute.maxbuffer=4MB", "`4MB` is not a whole number"),
            ("jute.maxbuffer=1", "line 3: jute.maxbuffer: 1 is not between 1024"),
            ("clientPort=65536", "is not a port"),
            ("tickTime=0", "line 3: tickTime: 0 is not above 0"),
            ("minSessionTimeout=9\nmaxSessionTimeout=8", "line 3: minSessionTimeout: must not be larger"),
            (
                "DigestAuthenticationProvider.superDigest=x",
                "line 3: DigestAuthenticationProvider.superDigest: is not",
            ),
        ] {
            let error = with(text).unwrap_err();
            assert!(error.contains(said), "{text:?}\n  said {error:?}\n  not  {said:?}");
        }
        assert_eq!(read("clientPort=1").unwrap_err(), "dataDir: is not set");
        assert_eq!(read("dataDir=/d").unwrap_err(), "clientPort: is not set");
        assert_eq!(
            read("dataDir=/d\nclientPortAddress=h").unwrap_err(),
            "line 2: clientPortAddress: is set but clientPort is not"
        );
    }

    #[test]
    fn what_means_nothing_is_told_with_the_reason() {
        for (text, said) in [
            (
                "snapCount=1",
                "line 3: snapCount has no effect: Warren has no snapshots to count; checkpoints are automatic",
            ),
            ("autopurge.purgeInterval=1", "the log is always purged"),
            ("admin.serverPort=8080", "there is no admin server"),
            ("forceSync=no", "Warren syncs before it acknowledges"),
            ("dataLogDir=/l", "put dataDir on the faster device"),
            ("clientport=1", "Warren knows no such key or property; did you mean `clientPort`?"),
            ("quite.else=1", "Warren knows no such key or property"),
            ("enforceQuota=yes", "`yes` is not `true`, so it is false, as in ZooKeeper"),
            ("skipACL=true", "`true` is not `yes`, so ACLs are checked"),
            ("4lw.commands.whitelist=ruok,rouk", "Warren has no command `rouk`"),
            ("tickTime=1\ntickTime=2", "line 3: tickTime: line 4 sets it again, and the last one counts"),
            ("metricsProvider.exportJvmInfo=true", "no Java machine"),
            ("jute.maxbuffer=4194304", "a znode's data stays at most 1048576 bytes"),
        ] {
            let warnings = with(text).unwrap().warnings;
            assert_eq!(warnings.len(), 1, "{text}: {warnings:?}");
            assert!(
                warnings[0].to_string().contains(said),
                "{text:?}\n  said {}\n  not  {said:?}",
                warnings[0]
            );
        }
        let quiet = "autopurge=\nadmin.enableServer=false\nforceSync=yes\nreconfigEnabled=false\nssl.x=";
        assert!(with(quiet).is_err(), "a setting of TLS is refused even when it is empty");
        for quiet in [
            "admin.enableServer=false",
            "forceSync=yes",
            "enforce.auth.enabled=false",
            "digest.enabled=true",
            "authProvider.1=org.apache.zookeeper.server.auth.DigestAuthenticationProvider",
            "peerType=participant",
        ] {
            assert_eq!(with(quiet).unwrap().warnings, [], "{quiet}");
        }
    }

    #[test]
    fn integers_are_decoded_as_java_does() {
        for (text, value) in [("10", 10), ("+10", 10), ("-0x10", -16), ("#ff", 255), ("010", 8), ("0", 0)] {
            assert_eq!(decoded(text), Ok(value));
        }
        for text in ["", "-", "0x", "0x-1", "1_0", "08", "2147483648", "--1"] {
            assert!(decoded(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_table_names_each_key_once() {
        for (index, (name, _)) in TABLE.iter().enumerate() {
            assert!(TABLE[index + 1..].iter().all(|(other, _)| other != name), "{name} stands twice");
            assert!(!name.starts_with("zookeeper."), "{name}");
            let shadow = TABLE[..index].iter().find(|(before, _)| {
                name.ends_with('*') && before.strip_suffix('*').is_some_and(|start| name.starts_with(start))
            });
            assert!(shadow.is_none(), "{name} is never reached");
        }
    }
}
