//! `warren config convert`: a `zoo.cfg` as the `warren.toml` that means the same.

use std::fmt::Write as _;
use warren_server::config::{
    Address, Config, ConfigError, ENSEMBLE_KEYS, Ensemble, FileText, KEYS, Key, Loaded, Overrides, load,
};

/// Keys that are said even where they have Warren's default: the first things that are looked for.
const ALWAYS: [&str; 2] = ["data_dir", "client.addr"];

/// A file that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Converted {
    /// `warren.toml`.
    pub text: String,
    /// What the operator should look at, each in words. It stands in the file, too.
    pub remarks: Vec<String>,
    /// There is a password's digest in it.
    pub is_secret: bool,
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// What was written does not say the same when it is read: our own mistake, and better told than started with.
    #[error("warren.toml cannot say this: {0}. Go on with --zoo-cfg, which can")]
    Unequal(String),
}

/// Write what was read from `file` as `warren.toml`.
pub fn convert(loaded: &Loaded, file: &str) -> Result<Converted, ConvertError> {
    let mut config = loaded.config.clone();
    let mut remarks: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    if let Some(ensemble) = &mut config.ensemble {
        remarks.extend(client_addresses(ensemble, config.client.addr.port));
    }
    let mut text =
        format!("# Made of {file} by `warren config convert`. What is not said here has its default.\n");
    for remark in &remarks {
        let _ = writeln!(text, "# {file}, {remark}");
    }
    settings(&mut text, &config);
    if let Some(ensemble) = &config.ensemble {
        members(&mut text, ensemble);
    }
    match load(FileText::WarrenToml(&text), &Overrides::default()) {
        Ok(read) if read.config == config => {}
        Ok(read) => return Err(ConvertError::Unequal(first_difference(&config, &read.config))),
        Err(e) => return Err(ConvertError::Unequal(said(&e))),
    }
    Ok(Converted { text, remarks, is_secret: config.security.super_digest.is_some() })
}

fn said(error: &ConfigError) -> String {
    error.to_string()
}

/// Server lines without a client port do not say where clients find a server; `warren.toml` does.
fn client_addresses(ensemble: &mut Ensemble, port: u16) -> Vec<String> {
    let mut guessed = Vec::new();
    for server in ensemble.servers.iter_mut().filter(|server| server.client_addr.is_none()) {
        server.client_addr = Some(Address::new(server.peer_addr.host.clone(), port));
        guessed.push(server.id.to_string());
    }
    if guessed.is_empty() {
        return guessed;
    }
    vec![format!(
        "server {}: its line does not say where clients find it, so client_addr below has this server's port; correct it if \
         that is not so",
        guessed.join(", ")
    )]
}

fn settings(text: &mut String, config: &Config) {
    let table = |config: &Config| toml::Table::try_from(config).expect("settings are tables of plain values");
    let (own, defaults) = (table(config), table(&Config::default()));
    let value = |table: &toml::Table, within: &str, key: &str| match within {
        "" => table.get(key).cloned(),
        within => table.get(within).and_then(|section| section.get(key)).cloned(),
    };
    let mut section = "";
    for Key { name, unit, meaning } in KEYS {
        let (within, key) = name.split_once('.').unwrap_or(("", name));
        let Some(set) = value(&own, within, key) else { continue };
        if Some(&set) == value(&defaults, within, key).as_ref() && !ALWAYS.contains(name) {
            continue;
        }
        if within != section {
            section = within;
            let _ = write!(text, "\n[{section}]");
        }
        let _ = write!(text, "\n# {} ({unit})\n{key} = {set}\n", meaning.trim());
    }
}

fn members(text: &mut String, ensemble: &Ensemble) {
    let table = toml::Table::try_from(ensemble).expect("settings are tables of plain values");
    text.push_str("\n[ensemble]");
    for Key { name, unit, meaning } in ENSEMBLE_KEYS {
        let key = name.strip_prefix("ensemble.").unwrap_or(name);
        if let Some(value) = table.get(key) {
            let _ = write!(text, "\n# {} ({unit})\n{key} = {value}\n", meaning.trim());
        }
    }
    for server in table.get("server").and_then(toml::Value::as_array).into_iter().flatten() {
        text.push_str("\n[[ensemble.server]]\n");
        for (key, value) in server.as_table().into_iter().flatten() {
            let _ = writeln!(text, "{key} = {value}");
        }
    }
}

fn first_difference(wanted: &Config, read: &Config) -> String {
    let lines = |config: &Config| config.to_toml().lines().map(str::to_owned).collect::<Vec<_>>();
    let (wanted, read) = (lines(wanted), lines(read));
    let differs = wanted.iter().find(|line| !read.contains(line));
    differs.cloned().unwrap_or_else(|| "a password's digest".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::path::Path;
    use warren_server::config::Files;

    fn read(text: &str) -> Loaded {
        let files = |path: &Path| -> io::Result<Vec<u8>> {
            match path.to_str() {
                Some("/d/myid") => Ok(b"2\n".to_vec()),
                Some("/d/dynamic") => {
                    Ok(b"server.1=a:2888:3888;0.0.0.0:2181\nserver.2=b:2888:3888;2182\nserver.3=c:2888:3888:observer;2183\n".to_vec())
                }
                _ => Err(io::ErrorKind::NotFound.into()),
            }
        };
        load(FileText::ZooCfg(text.as_bytes(), Files(&files)), &Overrides::default()).unwrap()
    }

    /// ZooKeeper's own sample, Kafka's, and what people add to them.
    const SAMPLES: &[&str] = &[
        "tickTime=2000\ninitLimit=10\nsyncLimit=5\ndataDir=/tmp/zookeeper\nclientPort=2181\n#maxClientCnxns=60\n",
        "dataDir=/tmp/zookeeper\nclientPort=2181\nmaxClientCnxns=0\nadmin.enableServer=false\n",
        "dataDir=C:\\\\data\nclientPort=21\nclientPortAddress=::1\ntickTime=500\nminSessionTimeout=1\nmaxSessionTimeout=9\n",
        "dataDir=/d\nclientPort=2181\n4lw.commands.whitelist=*\nmetricsProvider.className=org.apache.zookeeper.metrics.\
         prometheus.PrometheusMetricsProvider\nmetricsProvider.httpPort=7001\nskipACL=yes\nreadonlymode.enabled=true\n\
         DigestAuthenticationProvider.superDigest=super:D/InIHSb7yEEbrWz8b9l71RjZJU=\nextendedTypesEnabled=true\n\
         enforceQuota=true\njute.maxbuffer=4194304\nglobalOutstandingLimit=7\nmaxCnxns=5\nznode.container.maxPerMinute=3\n\
         clientPortListenBacklog=12\nautopurge.purgeInterval=1\nsnapCount=5\nnoSuchKey=1\n",
        "dataDir=/d\nclientPort=2181\nserver.1=a:2888:3888;2182\nserver.2=b:2888:3888;2181\nserver.3=[::1]:2888:3888;2183\n\
         sslQuorum=true\nssl.quorum.keyStore.location=/k.pem\nssl.quorum.trustStore.location=/t.pem\nreconfigEnabled=true\n\
         quorumListenOnAllIPs=true\n",
        "dataDir=/d\ndynamicConfigFile=/d/dynamic\nssl.quorum.keyStore.location=/k.pem\n\
         ssl.quorum.trustStore.location=/t.pem\n",
    ];

    #[test]
    fn what_is_read_either_way_is_the_same() {
        for sample in SAMPLES {
            let loaded = read(sample);
            let converted = convert(&loaded, "zoo.cfg").unwrap();
            let again = load(FileText::WarrenToml(&converted.text), &Overrides::default()).unwrap();
            assert_eq!(again.config, loaded.config, "{sample}\n{}", converted.text);
            for warning in &loaded.warnings {
                assert!(converted.text.contains(&warning.to_string()), "{warning}\n{}", converted.text);
            }
            assert_eq!(converted.is_secret, sample.contains("superDigest"));
        }
    }

    #[test]
    fn only_what_differs_is_said() {
        let converted = convert(&read(SAMPLES[1]), "/etc/zoo.cfg").unwrap();
        assert!(converted.text.starts_with("# Made of /etc/zoo.cfg by"), "{}", converted.text);
        assert!(converted.text.contains("\n[client]\n# Where clients connect."), "{}", converted.text);
        assert!(converted.text.contains("connections_per_address_max = 0\n"), "{}", converted.text);
        assert!(!converted.text.contains("segment_mb"), "{}", converted.text);
    }

    #[test]
    fn client_addresses_that_are_not_said_are_guessed_and_told() {
        let text = "dataDir=/d\nclientPort=2181\nserver.1=a:2888:3888\nserver.2=b:2888:3888\nserver.3=c:2888:3888;9\n\
                    ssl.quorum.keyStore.location=/k.pem\nssl.quorum.trustStore.location=/t.pem\n";
        let converted = convert(&read(text), "zoo.cfg").unwrap();
        assert!(
            converted.remarks.iter().any(|said| said.starts_with("server 1, 2: ")),
            "{:?}",
            converted.remarks
        );
        assert!(converted.text.contains("client_addr = \"a:2181\""), "{}", converted.text);
        let again = load(FileText::WarrenToml(&converted.text), &Overrides::default()).unwrap().config;
        let own = again.ensemble.as_ref().unwrap().own();
        assert_eq!((own.id, again.client.addr.port), (2, 2181));
    }
}
