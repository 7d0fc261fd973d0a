use super::values::decoded;
use super::*;
use crate::config::SuperDigest;

fn read(text: &str) -> Result<Loaded, String> {
    let none = Files(&|_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into()));
    load(text.as_bytes(), none, &Overrides::default()).map_err(|error| error.to_string())
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
fn the_admin_server_is_where_the_file_says() {
    let at = |text: &str| with(text).unwrap().config.admin;
    assert_eq!(at("").addr.to_string(), "127.0.0.1:8080");
    let told = at("admin.serverAddress=0.0.0.0\nadmin.serverPort=9090\nzookeeper.admin.commandURL=/zk");
    assert_eq!((told.addr.to_string().as_str(), told.command_url.as_str()), ("*:9090", "/zk"));
    assert_eq!(at("admin.enableServer=false").addr, Listen::Off);
    assert_eq!(
        with("admin.commandURL=commands").unwrap_err(),
        "line 3: admin.commandURL: `commands` is not a path such as `/commands`"
    );
    assert!(with("admin.forceHttps=true").unwrap_err().contains("not served over TLS"));
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
        ("server.1=a:1:2:observer;2181", "line 3: server.N: there is no participant"),
        ("dynamicConfigFile=/x", "line 3: dynamicConfigFile: cannot read /x"),
        ("standaloneEnabled=false", "server.N: there is no participant"),
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
        ("admin.idleTimeout=1", "the AdminServer has no such setting"),
        ("admin.restore.enabled=true", "`warren backup` and `warren restore` do it"),
        ("forceSync=no", "Warren syncs before it acknowledges"),
        ("dataLogDir=/l", "put dataDir on the faster device"),
        ("clientport=1", "Warren knows no such key or property; did you mean `clientPort`?"),
        ("quite.else=1", "Warren knows no such key or property"),
        ("enforceQuota=yes", "`yes` is not `true`, so it is false, as in ZooKeeper"),
        ("skipACL=true", "`true` is not `yes`, so ACLs are checked"),
        ("4lw.commands.whitelist=ruok,rouk", "Warren has no command `rouk`"),
        ("tickTime=1\ntickTime=2", "line 3: tickTime: line 4 sets it again, and the last one counts"),
        ("metricsProvider.exportJvmInfo=true", "no Java machine"),
        ("peerType=observer", "peerType has no effect: bears on an ensemble"),
        ("group.1=1:2", "bears on an ensemble"),
        ("sslQuorum=true", "bears on an ensemble"),
        ("jute.maxbuffer=4194304", "a znode's data stays at most 1048576 bytes"),
    ] {
        let warnings = with(text).unwrap().warnings;
        assert_eq!(warnings.len(), 1, "{text}: {warnings:?}");
        assert!(warnings[0].to_string().contains(said), "{text:?}\n  said {}\n  not  {said:?}", warnings[0]);
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
