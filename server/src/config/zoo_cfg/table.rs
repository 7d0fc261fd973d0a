//! Every key of `zoo.cfg`, once, and what it does here.

use super::Draft;
use super::values::*;
use crate::config::SuperDigest;
use Does::{First, InEnsemble, Nothing, Refused, Takes};

/// What a key does here.
pub(super) enum Does {
    /// It sets something.
    Takes(fn(&mut Draft, &str) -> Result<(), String>),
    /// It means nothing, for the reason given; not worth a word when it has one of these values, which ask for what
    /// happens anyway.
    Nothing(&'static str, &'static [&'static str]),
    /// Going on without it would mislead; except at one of these values, which ask for what happens anyway.
    Refused(&'static str, &'static [&'static str]),
    /// It bears on an ensemble, where it does this; alone, it means nothing, and one of these values is not worth a word.
    InEnsemble(&'static Does, &'static [&'static str]),
    /// It was read before all others.
    First,
}

pub(super) const ENSEMBLE_ONLY: &str = "bears on an ensemble, and this server stands alone";
pub(super) const WEIGHTS: &str = "groups and weights are not known; a majority of the participants decides";
pub(super) const CLIENT_TLS: &str =
    "TLS to clients is not served yet, and clients must not find a plain port, or none, instead";
const LINKS: &str = "tunes ZooKeeper's links between servers, which are not here";
const LINK_TLS: &str = "tunes Java's TLS; links between servers are QUIC with TLS 1.3";
const NAMES: &str = "certificates name servers by their ids, whatever their hosts are";
const REVOCATION: &str = "revoked certificates are not looked for; issue those of the others anew, from a new authority, to shut one out";
const STORE_PASSWORD: &str =
    "PEM files are read as they are: the key in them is not encrypted, and the file's mode guards it";
pub(super) const SASL: &str = "SASL is not served yet, so clients cannot be made to use it";
pub(super) const SASL_SETTING: &str = "SASL is not served yet";
pub(super) const SNAPSHOTS: &str = "Warren has no snapshots to count; checkpoints are automatic";
pub(super) const PURGE: &str = "the log is always purged, as soon as it is checkpointed";
pub(super) const LOG_FILES: &str = "the log's segments are sized by Warren itself";
const ADMIN: &str = "the AdminServer has no such setting; its connections are short and bounded";
const ADMIN_TLS: &str =
    "the AdminServer is not served over TLS yet; keep it on 127.0.0.1, which is the default";
const ADMIN_FILES: &str = "snapshots are not served over HTTP; `warren backup` and `warren restore` do it";
pub(super) const NETWORK_THREADS: &str =
    "tunes threads and buffers of ZooKeeper's network code, which is not here";
pub(super) const PIPELINE: &str = "tunes a queue of ZooKeeper's request processors, which are not here";
pub(super) const WATCH_TABLES: &str = "tunes ZooKeeper's watch tables; Warren's need no tuning";
pub(super) const CACHES: &str = "sizes a cache of ZooKeeper; Warren's caches share limits.memory_mb";
pub(super) const THROTTLE: &str =
    "this throttle is not built yet; the limits on connections and on outstanding requests hold";
pub(super) const JVM: &str = "there is no Java machine here";
pub(super) const SYNCS: &str = "Warren syncs before it acknowledges, always";
pub(super) const BATCHES: &str = "Warren groups commits by itself";
pub(super) const CLIENT_SIDE: &str = "is a setting of ZooKeeper's client";

/// Every key, once. One that ends in `*` stands for all with that beginning; an exact one goes before it, and among
/// beginnings the first in the table.
pub(super) const TABLE: &[(&str, Does)] = &[
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
        Nothing("the AdminServer asks nobody who he is", &["false"]),
    ),
    ("ensembleAuthName", Nothing("counts only with the ensemble authentication provider", &[])),
    (
        "ssl.quorum.keyStore.location",
        InEnsemble(&Takes(|draft, value| set(&mut draft.ensemble.key_store.location, value.to_owned())), &[]),
    ),
    (
        "ssl.quorum.keyStore.type",
        InEnsemble(&Takes(|draft, value| set(&mut draft.ensemble.key_store.kind, value.to_owned())), &[]),
    ),
    (
        "ssl.quorum.trustStore.location",
        InEnsemble(
            &Takes(|draft, value| set(&mut draft.ensemble.trust_store.location, value.to_owned())),
            &[],
        ),
    ),
    (
        "ssl.quorum.trustStore.type",
        InEnsemble(&Takes(|draft, value| set(&mut draft.ensemble.trust_store.kind, value.to_owned())), &[]),
    ),
    ("ssl.quorum.keyStore.password*", InEnsemble(&Nothing(STORE_PASSWORD, &[""]), &[])),
    ("ssl.quorum.trustStore.password*", InEnsemble(&Nothing(STORE_PASSWORD, &[""]), &[])),
    (
        "ssl.quorum.clientAuth",
        InEnsemble(&Nothing("servers always show each other certificates", &["need"]), &[]),
    ),
    ("ssl.quorum.hostnameVerification", InEnsemble(&Nothing(NAMES, &["false"]), &[])),
    ("ssl.quorum.clientHostnameVerification", InEnsemble(&Nothing(NAMES, &["false"]), &[])),
    ("ssl.quorum.crl", InEnsemble(&Refused(REVOCATION, &["false"]), &["false"])),
    ("ssl.quorum.ocsp", InEnsemble(&Refused(REVOCATION, &["false"]), &["false"])),
    ("ssl.quorum.*", InEnsemble(&Nothing(LINK_TLS, &[]), &[])),
    ("sslQuorum", InEnsemble(&Nothing("links between servers are always secured", &["true"]), &["false"])),
    (
        "sslQuorumReloadCertFiles",
        InEnsemble(
            &Nothing("certificates are always read again when their files change", &["true"]),
            &["false"],
        ),
    ),
    (
        "portUnification",
        InEnsemble(&Nothing("no plain link between servers is accepted", &["false"]), &["false"]),
    ),
    ("ssl.*", Refused(CLIENT_TLS, &[])),
    ("client.certReload", Nothing("TLS to clients is not served yet", &["false"])),
    (
        "quorum.auth.*",
        InEnsemble(&Nothing("servers know each other by certificates, not by SASL", &["false"]), &["false"]),
    ),
    ("quorum.cnxn.threads.size", InEnsemble(&Nothing(LINKS, &[]), &[])),
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
    // As ZooKeeper has it: only `false` turns it off.
    ("admin.enableServer", Takes(|draft, value| set(&mut draft.admin_enabled, value != "false"))),
    ("admin.serverAddress", Takes(|draft, value| set(&mut draft.admin_host, bare_host(value)))),
    ("admin.serverPort", Takes(|draft, value| set(&mut draft.admin_port, port(value)?))),
    ("admin.commandURL", Takes(|draft, value| set(&mut draft.config.admin.command_url, value.to_owned()))),
    ("admin.forceHttps", Refused(ADMIN_TLS, &["false"])),
    ("admin.portUnification", Nothing(ADMIN_TLS, &["false"])),
    ("admin.needClientAuth", Nothing(ADMIN_TLS, &["false"])),
    ("admin.snapshot.*", Nothing(ADMIN_FILES, &["false"])),
    ("admin.restore.*", Nothing(ADMIN_FILES, &["false"])),
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
    (
        "commitLogCount",
        InEnsemble(&Nothing("followers are brought up from the log as far back as it goes", &[]), &[]),
    ),
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
    ("server.*", First),
    ("dynamicConfigFile", First),
    ("standaloneEnabled", First),
    ("peerType", InEnsemble(&Takes(peer_type), &["participant"])),
    (
        "reconfigEnabled",
        InEnsemble(
            &Takes(|draft, value| set(&mut draft.ensemble.reconfig_enabled, boolean(value)?)),
            &["false"],
        ),
    ),
    (
        "quorumListenOnAllIPs",
        InEnsemble(
            &Takes(|draft, value| set(&mut draft.ensemble.listen_everywhere, boolean(value)?)),
            &["false"],
        ),
    ),
    (
        "initLimit",
        InEnsemble(
            &Nothing("a follower may take any time to catch up; links watch that it goes on", &[]),
            &[],
        ),
    ),
    (
        "syncLimit",
        InEnsemble(
            &Nothing("a leader that is not heard for some 200 ms is replaced, whatever tickTime is", &[]),
            &[],
        ),
    ),
    ("electionAlg", InEnsemble(&Takes(election_alg), &["3"])),
    ("electionPortBindRetry", InEnsemble(&Nothing("the election port is not used", &[]), &[])),
    ("leaderServes", InEnsemble(&Nothing("the leader serves clients, too", &["yes"]), &["yes"])),
    ("connectToLearnerMasterLimit", InEnsemble(&Nothing(LINKS, &[]), &[])),
    ("observerMaster*", InEnsemble(&Nothing("observers are fed over the same links", &[]), &[])),
    ("syncEnabled", InEnsemble(&Nothing("an observer always keeps its own log", &["true"]), &["true"])),
    ("group*", InEnsemble(&Refused(WEIGHTS, &[]), &[])),
    ("weight*", InEnsemble(&Refused(WEIGHTS, &[]), &[])),
    ("oraclePath", InEnsemble(&Refused("no oracle decides about quorums here", &[]), &[])),
    ("multiAddress.*", InEnsemble(&Nothing("a server has one address here", &["false"]), &["false"])),
    ("leader.*", InEnsemble(&Nothing(LINKS, &[]), &[])),
    ("learner.*", InEnsemble(&Nothing(LINKS, &[]), &[])),
    ("follower.*", InEnsemble(&Nothing(LINKS, &[]), &[])),
    ("observer.*", InEnsemble(&Nothing(LINKS, &[]), &[])),
    ("fastleader.*", InEnsemble(&Nothing(LINKS, &[]), &[])),
    (
        "forceSnapshotSync",
        InEnsemble(&Nothing("a snapshot is sent only to who is behind the log", &["false"]), &["false"]),
    ),
    ("cnxTimeout", InEnsemble(&Nothing(LINKS, &[]), &[])),
    ("quorumCnxnTimeoutMs", InEnsemble(&Nothing(LINKS, &[]), &[])),
    ("leaderConnectDelayDuringRetryMs", InEnsemble(&Nothing(LINKS, &[]), &[])),
    (
        "tcpKeepAlive",
        InEnsemble(&Nothing("links are watched by their own heartbeats", &["false"]), &["false"]),
    ),
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
