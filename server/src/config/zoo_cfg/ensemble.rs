//! The servers of a `zoo.cfg`: its `server.N` lines, or those of its dynamic file; which of them this one is; and its
//! certificates, under ZooKeeper's own keys.

use super::values::boolean;
use super::{Draft, spelled};
use crate::config::properties::{self, Property};
use crate::config::server_line::{self, ServerLine};
use crate::config::{Address, ConfigError, Ensemble, EnsembleServer, Files, Overrides, Role};
use std::collections::BTreeMap;
use std::path::Path;

/// What is read before all other keys, for some of them mean something in an ensemble only.
#[derive(Debug, Default)]
pub(super) struct Servers {
    lines: BTreeMap<u8, ServerLine>,
    /// One participant alone is no ensemble, unless `standaloneEnabled` is false.
    pub(super) distributed: bool,
    /// Where they stand in the file, from 1.
    pub(super) line: usize,
}

/// What other keys say of the ensemble.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// `peerType`.
    pub(super) observes: Option<bool>,
    pub(super) reconfig_enabled: bool,
    /// `quorumListenOnAllIPs`.
    pub(super) listen_everywhere: bool,
    /// `ssl.quorum.keyStore`.
    pub(super) key_store: Store,
    /// `ssl.quorum.trustStore`.
    pub(super) trust_store: Store,
}

/// A key store or trust store of Java's.
#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) location: String,
    /// Empty: its file's name says it.
    pub(super) kind: String,
}

/// Read them; each key of `written` is there once.
pub(super) fn read(written: &[&Property], files: Files<'_>) -> Result<Servers, ConfigError> {
    let named = |name: &str| written.iter().find(|property| spelled(&property.key) == name);
    let invalid = |property: &Property, reason: String| ConfigError::Invalid {
        line: Some(property.line),
        key: spelled(&property.key).to_owned(),
        reason,
    };
    let standalone_enabled = match named("standaloneEnabled") {
        Some(property) => boolean(property.value.trim()).map_err(|reason| invalid(property, reason))?,
        None => true,
    };
    let mut servers = Servers::default();
    let listed = written.iter().filter(|property| id_text(&property.key).is_some());
    match named("dynamicConfigFile") {
        Some(dynamic) => {
            if let Some(property) = listed.min_by_key(|property| property.line) {
                let reason = "stands in the dynamic file when there is one (dynamicConfigFile)".to_owned();
                return Err(invalid(property, reason));
            }
            servers.line = dynamic.line;
            servers.lines = dynamic_file(dynamic.value.trim(), files).map_err(|e| invalid(dynamic, e))?;
        }
        None => {
            for property in listed {
                let (id, line) = server(property).map_err(|reason| invalid(property, reason))?;
                servers.lines.insert(id, line);
                servers.line = property.line;
            }
        }
    }
    let participants = servers.lines.values().filter(|line| !line.observer).count();
    let refuse = |reason: &str| ConfigError::Invalid {
        line: (servers.line > 0).then_some(servers.line),
        key: "server.N".to_owned(),
        reason: reason.to_owned(),
    };
    match (participants, servers.lines.len(), standalone_enabled) {
        (0, 0, true) => {}
        (0, _, _) => return Err(refuse("there is no participant, and somebody has to vote")),
        (1, 2.., true) => {
            return Err(refuse(
                "one participant and observers: without standaloneEnabled=false, one participant stands alone",
            ));
        }
        (1, 1, true) => {}
        _ => servers.distributed = true,
    }
    Ok(servers)
}

/// `N` of `server.N`.
fn id_text(key: &str) -> Option<&str> {
    let id = key.trim().strip_prefix("server.")?;
    // These are properties of Java, which ZooKeeper takes with a prefix that is understood without it here.
    (!matches!(id, "principal" | "realm")).then_some(id)
}

fn server(property: &Property) -> Result<(u8, ServerLine), String> {
    let text = id_text(&property.key).unwrap_or_default();
    let id = text.trim().parse().ok().filter(|id| *id > 0);
    let id = id.ok_or_else(|| format!("`{text}` is no server's id; ids go from 1 to 255"))?;
    let line = server_line::parse(property.value.trim()).map_err(|e| e.to_string())?;
    Ok((id, line))
}

/// What ZooKeeper writes when it is reconfigured: servers, and a version.
fn dynamic_file(path: &str, files: Files<'_>) -> Result<BTreeMap<u8, ServerLine>, String> {
    let bytes = files.read(Path::new(path)).map_err(|e| format!("cannot read {path}: {e}"))?;
    let mut lines = BTreeMap::new();
    for property in properties::parse(&properties::decode(&bytes)).map_err(|e| format!("{path}: {e}"))? {
        let at =
            |reason: String| format!("{path}: line {}: {}: {reason}", property.line, property.key.trim());
        match property.key.trim() {
            "version" => {}
            key if key.starts_with("group") || key.starts_with("weight") => {
                return Err(at(super::table::WEIGHTS.to_owned()));
            }
            key if id_text(key).is_some() => {
                let (id, line) = server(&property).map_err(at)?;
                lines.insert(id, line);
            }
            _ => return Err(at("is not server.N".to_owned())),
        }
    }
    Ok(lines)
}

/// Of a server that stands alone though there is a line for it: where clients connect, unless other keys say it.
pub(super) fn settle_alone(draft: &mut Draft) {
    let Some(line) = draft.servers.lines.values().next() else { return };
    if let (None, Some(listen)) = (draft.client_port, &line.listen) {
        draft.client_port = Some(listen.port);
        draft.client_host.get_or_insert_with(|| listen.host.clone());
    }
    draft
        .warnings
        .push("one server line alone is no ensemble: this server stands alone, as in ZooKeeper".to_owned());
}

/// Put the ensemble together.
pub(super) fn settle(
    draft: &mut Draft,
    flags: &Overrides,
    files: Files<'_>,
) -> Result<(), (&'static str, String)> {
    let data_dir = flags.data_dir.as_ref().unwrap_or(&draft.config.data_dir);
    let server_id = my_id(data_dir, files).map_err(|reason| ("myid", reason))?;
    let Some(own) = draft.servers.lines.get(&server_id) else {
        let listed: Vec<String> = draft.servers.lines.keys().map(|id| format!("server.{id}")).collect();
        return Err(("myid", format!("this is server {server_id}, and there is only {}", listed.join(", "))));
    };
    if let Some((id, line)) = draft.servers.lines.iter().find(|(_, line)| !line.peer.is_reachable()) {
        let reason = format!(
            "server.{id}: {} is no address at which the others find it; name its host, and let it listen on all of its \
             addresses by quorumListenOnAllIPs=true",
            line.peer
        );
        return Err(("server.N", reason));
    }
    if draft.ensemble.observes.is_some_and(|observes| observes != own.observer) {
        let (listed, said) = if own.observer { ("observes", "votes") } else { ("votes", "observes") };
        draft.warnings.push(format!(
            "peerType: this server {said} by peerType and {listed} by its server line, which counts, as in ZooKeeper"
        ));
    }
    draft.warnings.push(format!(
        "links between servers are QUIC: let UDP pass to port {} of this server; its election port is not used",
        own.peer.port
    ));
    settle_clients(draft, server_id)?;
    let Keys { reconfig_enabled, listen_everywhere, key_store, trust_store, .. } = &draft.ensemble;
    let cert = key_store.pem().map_err(|reason| ("ssl.quorum.keyStore.location", reason))?;
    let ca = trust_store.pem().map_err(|reason| ("ssl.quorum.trustStore.location", reason))?;
    let lines = &draft.servers.lines;
    let ensemble = Ensemble {
        peer_addr: listen_everywhere.then(|| Address::new("*", lines[&server_id].peer.port)),
        reconfig_enabled: *reconfig_enabled,
        servers: lines
            .iter()
            .map(|(id, line)| EnsembleServer {
                id: *id,
                peer_addr: line.peer.clone(),
                client_addr: line.client.clone(),
                role: if line.observer { Role::Observer } else { Role::Voter },
            })
            .collect(),
        ..Ensemble::new(server_id, cert.into(), ca.into())
    };
    draft.warnings.extend(ensemble.oddities());
    draft.config.ensemble = Some(ensemble);
    Ok(())
}

/// Where clients connect is said by `clientPort` and by the own line; both must agree.
fn settle_clients(draft: &mut Draft, server_id: u8) -> Result<(), (&'static str, String)> {
    let Some(listen) = draft.servers.lines[&server_id].listen.clone() else { return Ok(()) };
    let agrees = match (draft.client_port, draft.client_host.as_deref()) {
        (None, _) => true,
        (Some(port), None | Some("*")) => port == listen.port,
        (Some(port), Some(host)) => port == listen.port && host == listen.host,
    };
    if !agrees {
        let reason = format!("differs from the clients' address in this server's own line, {listen}");
        return Err(("clientPort", reason));
    }
    draft.client_port = Some(listen.port);
    draft.client_host = Some(listen.host);
    Ok(())
}

/// `dataDir/myid`.
fn my_id(data_dir: &Path, files: Files<'_>) -> Result<u8, String> {
    let path = data_dir.join("myid");
    let bytes = files.read(&path).map_err(|e| {
        format!("cannot read {}: {e}; it holds this server's id, the N of its server.N", path.display())
    })?;
    let text = properties::decode(&bytes);
    let first = text.lines().next().unwrap_or_default().trim();
    let id = first.parse().ok().filter(|id| *id > 0);
    id.ok_or_else(|| format!("{} says `{first}`, which is no id from 1 to 255", path.display()))
}

/// How certificates are made.
const MAKE: &str = "`warren certs init --dir CA` makes an authority (CA/ca.pem is the trust store) and `warren certs issue \
                    --dir CA --server-id N --out server.pem` a server's certificate with its key (the key store)";

impl Store {
    /// Its path, if it is PEM, by ZooKeeper's rule of what it is.
    fn pem(&self) -> Result<&str, String> {
        let location = self.location.as_str();
        if location.is_empty() {
            return Err(format!(
                "is not set, and the servers of an ensemble know each other by certificates: {MAKE}"
            ));
        }
        let extension = Path::new(location).extension().and_then(|e| e.to_str()).unwrap_or_default();
        let kind = match (self.kind.to_ascii_uppercase(), extension) {
            (kind, _) if !kind.is_empty() => kind,
            (_, "pem") => "PEM".to_owned(),
            (_, "jks") => "JKS".to_owned(),
            (_, "p12") => "PKCS12".to_owned(),
            (_, "bcfks") => "BCFKS".to_owned(),
            _ => {
                let reason = "ends in none of .pem, .jks, .p12 and .bcfks, so its type must be said";
                return Err(format!("`{location}` {reason} (… .type=PEM)"));
            }
        };
        match kind.as_str() {
            "PEM" => Ok(location),
            "JKS" | "BCFKS" | "PKCS12" => Err(format!(
                "`{location}` is {kind}, and only PEM is read: {}a certificate must name its server by the URI \
                 warren://ENSEMBLE/server/N, though. {MAKE}",
                converted(location, &kind)
            )),
            _ => Err(format!("there is no store of the type `{kind}`; only PEM is read")),
        }
    }
}

/// The command that makes PEM of it.
fn converted(location: &str, kind: &str) -> String {
    let openssl = |path: &str| format!("`openssl pkcs12 -in {path} -nodes -out store.pem` converts it; ");
    match kind {
        "PKCS12" => openssl(location),
        "JKS" => format!(
            "`keytool -importkeystore -srckeystore {location} -destkeystore store.p12 -deststoretype PKCS12` and {}",
            openssl("store.p12")
        ),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::load;
    use super::*;
    use crate::config::Loaded;
    use std::io;

    const HEAD: &str = "dataDir=/d\nclientPort=2181\ntickTime=2000\ninitLimit=10\nsyncLimit=5\n";
    const CERTS: &str =
        "ssl.quorum.keyStore.location=/c/server.pem\nssl.quorum.trustStore.location=/c/ca.pem\n";
    const THREE: &str = "server.1=h1:2888:3888\nserver.2=h2:2888:3888\nserver.3=h3:2888:3888\n";

    /// With `myid` 2 in `/d`, and a dynamic file.
    fn read_with(text: &str, dynamic: &str, flags: &Overrides) -> Result<Loaded, String> {
        let file = |path: &Path| match path.to_str() {
            Some("/d/myid") => Ok(b"2\n".to_vec()),
            Some("/e/myid") => Ok(b"1".to_vec()),
            Some("/f/myid") => Ok(b"two".to_vec()),
            Some("/z.dynamic") => Ok(dynamic.as_bytes().to_vec()),
            _ => Err(io::ErrorKind::NotFound.into()),
        };
        load(text.as_bytes(), Files(&file), flags).map_err(|e| e.to_string())
    }

    fn read(text: &str) -> Result<Loaded, String> {
        read_with(text, "", &Overrides::default())
    }

    fn ensemble(text: &str) -> (crate::config::Config, Ensemble) {
        let config = read(text).unwrap().config;
        let ensemble = config.ensemble.clone().unwrap();
        (config, ensemble)
    }

    #[test]
    fn the_usual_file_is_an_ensemble() {
        let loaded = read(&[HEAD, CERTS, THREE].concat()).unwrap();
        let ensemble = loaded.config.ensemble.unwrap();
        assert_eq!((ensemble.server_id, ensemble.name.as_str()), (2, "warren"));
        assert_eq!(ensemble.listen().to_string(), "h2:2888");
        assert_eq!(ensemble.servers.iter().map(|s| s.id).collect::<Vec<_>>(), [1, 2, 3]);
        assert!(ensemble.servers.iter().all(|s| s.client_addr.is_none() && s.role == Role::Voter));
        assert_eq!(
            (ensemble.cert.to_str(), ensemble.ca.to_str()),
            (Some("/c/server.pem"), Some("/c/ca.pem"))
        );
        assert_eq!(loaded.config.client.addr.to_string(), "*:2181");
        assert!(!ensemble.reconfig_enabled);
        let said: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "line 4: initLimit has no effect: a follower may take any time to catch up; links watch that it goes on",
                "line 5: syncLimit has no effect: a leader that is not heard for some 200 ms is replaced, whatever tickTime \
                 is",
                "line 10: links between servers are QUIC: let UDP pass to port 2888 of this server; its election port is \
                 not used",
            ]
        );
    }

    #[test]
    fn clients_are_served_where_the_own_line_says() {
        let lines = THREE
            .replace("h2:2888:3888", "h2:2888:3888;2191")
            .replace("h3:2888:3888", "h3:1:2:observer;c3:7");
        let (config, found) = ensemble(&["dataDir=/d\n", CERTS, &lines].concat());
        assert_eq!(config.client.addr.to_string(), "*:2191");
        let clients: Vec<_> =
            found.servers.iter().map(|s| s.client_addr.as_ref().map(ToString::to_string)).collect();
        assert_eq!(clients, [None, Some("h2:2191".to_owned()), Some("c3:7".to_owned())]);
        assert_eq!(found.servers[2].role, Role::Observer);
        let error = read(&["clientPort=2181\ndataDir=/d\n", CERTS, &lines].concat()).unwrap_err();
        assert!(error.contains(
            "line 1: clientPort: differs from the clients' address in this server's own line, *:2191"
        ));
        let (config, _) =
            ensemble(&["clientPort=2191\nclientPortAddress=0.0.0.0\ndataDir=/d\n", CERTS, &lines].concat());
        assert_eq!(config.client.addr.to_string(), "*:2191");
        let flags = Overrides { data_dir: Some("/e".into()), ..Overrides::default() };
        let other = read_with(&[HEAD, CERTS, &lines].concat(), "", &flags).unwrap().config;
        assert_eq!(other.ensemble.unwrap().server_id, 1, "myid is in the folder of the flag");
    }

    #[test]
    fn a_dynamic_file_lists_the_servers() {
        let text =
            [HEAD, CERTS, "dynamicConfigFile=/z.dynamic\nreconfigEnabled=true\nquorumListenOnAllIPs=true\n"]
                .concat();
        let dynamic = "server.1=h1:2888:3888:participant;2181\nserver.2=[::1]:2888:3888;0.0.0.0:2181\nversion=100000000";
        let loaded = read_with(&text, dynamic, &Overrides::default()).unwrap();
        let ensemble = loaded.config.ensemble.unwrap();
        assert!(ensemble.reconfig_enabled);
        assert_eq!(ensemble.listen().to_string(), "*:2888");
        assert_eq!(ensemble.own().client_addr.as_ref().unwrap().to_string(), "[::1]:2181");
        assert!(loaded.warnings.iter().any(|w| w.text.contains("2 voters need 2 of them")));
        for (dynamic, said) in [
            (
                "server.1=h1:1",
                "line 8: dynamicConfigFile: /z.dynamic: line 1: server.1: `h1:1` is not of the form",
            ),
            ("\ntickTime=1", "/z.dynamic: line 2: tickTime: is not server.N"),
            ("weight.1=2", "groups and weights"),
            ("server.x=h1:1:2", "`x` is no server's id"),
        ] {
            let error = read_with(&text, dynamic, &Overrides::default()).unwrap_err();
            assert!(error.contains(said), "{dynamic}: {error}");
        }
        let error = read(&[&text, THREE].concat()).unwrap_err();
        assert!(error.contains("line 11: server.1: stands in the dynamic file"), "{error}");
    }

    #[test]
    fn one_participant_is_an_ensemble_only_when_asked_for() {
        let one = [HEAD, CERTS, "server.2=h2:2888:3888\n"].concat();
        assert!(read(&one).unwrap().config.ensemble.is_none());
        let asked = [one.as_str(), "standaloneEnabled=false\n"].concat();
        assert_eq!(read(&asked).unwrap().config.ensemble.unwrap().voters(), 1);
        let observed = [one.as_str(), "server.3=h3:2888:3888:observer\n"].concat();
        assert!(read(&observed).unwrap_err().contains("one participant stands alone"));
        let observed = [observed.as_str(), "standaloneEnabled=false\n"].concat();
        assert_eq!(read(&observed).unwrap().config.ensemble.unwrap().servers.len(), 2);
    }

    #[test]
    fn what_an_ensemble_cannot_do_is_refused_with_what_to_do() {
        let all = [HEAD, CERTS, THREE].concat();
        for (text, said) in [
            (all.replace("dataDir=/d", "dataDir=/x"), "myid: cannot read /x/myid"),
            (all.replace("dataDir=/d", "dataDir=/f"), "myid: /f/myid says `two`"),
            (
                all.replace("server.2=", "server.4="),
                "myid: this is server 2, and there is only server.1, server.3",
            ),
            ([HEAD, THREE].concat(), "ssl.quorum.keyStore.location: is not set"),
            ([HEAD, THREE].concat(), "`warren certs issue --dir CA --server-id N --out server.pem`"),
            (
                all.replace("/c/server.pem", "/c/server.jks"),
                "line 6: ssl.quorum.keyStore.location: `/c/server.jks` is JKS, and only PEM is read: `keytool",
            ),
            (all.replace("/c/ca.pem", "/c/ca.p12"), "`openssl pkcs12 -in /c/ca.p12 -nodes"),
            (all.replace("/c/ca.pem", "/c/ca.crt"), "its type must be said"),
            (format!("{all}ssl.quorum.keyStore.type=bcfks\n"), "is BCFKS"),
            (format!("{all}ssl.quorum.keyStore.type=x\n"), "no store of the type `X`"),
            (all.replace("h2:2888", "0.0.0.0:2888"), "quorumListenOnAllIPs=true"),
            (all.replace("h3:2888", "h1:2888"), "server.N: udp h1:2888 stands there twice"),
            (all.replace("server.3", "server.300"), "line 10: server.300: `300` is no server's id"),
            (all.replace("h3:2888:3888", "h3:2888"), "line 10: server.3: `h3:2888` is not of the form"),
            (format!("{all}group.1=1:2:3\n"), "line 11: group.1: groups and weights are not known"),
            (format!("{all}weight.1=3\n"), "groups and weights are not known"),
            (format!("{all}peerType=king\n"), "neither `participant` nor `observer`"),
            (format!("{all}reconfigEnabled=yes\n"), "neither `true` nor `false`"),
            (format!("{all}standaloneEnabled=1\n"), "line 11: standaloneEnabled: `1` is neither"),
            (format!("{all}electionAlg=1\n"), "1 is none that ZooKeeper has left"),
            (format!("{all}ssl.quorum.crl=true\n"), "revoked certificates are not looked for"),
            (format!("{all}oraclePath=/o\n"), "no oracle"),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.contains(said), "{text}\n  said {error:?}\n  not  {said:?}");
        }
    }

    #[test]
    fn what_means_nothing_in_an_ensemble_is_told() {
        let all = [HEAD, CERTS, THREE].concat();
        for (text, said) in [
            ("leaderServes=no", "the leader serves clients, too"),
            ("peerType=observer", "observes by peerType and votes by its server line"),
            ("sslQuorum=false", "links between servers are always secured"),
            ("ssl.quorum.keyStore.password=x", "the key in them is not encrypted"),
            ("ssl.quorum.ciphersuites=x", "QUIC with TLS 1.3"),
            ("ssl.quorum.hostnameVerification=true", "whatever their hosts are"),
            ("quorum.auth.enableSasl=true", "by certificates, not by SASL"),
            ("cnxTimeout=1", "tunes ZooKeeper's links"),
        ] {
            let warnings = read(&format!("{all}{text}\n")).unwrap().warnings;
            assert!(warnings.iter().any(|w| w.text.contains(said)), "{text}: {warnings:?}");
        }
        let quiet = "sslQuorum=true\nssl.quorum.clientAuth=need\nelectionAlg=3\npeerType=participant\n\
                     ssl.quorum.keyStore.type=pem\nleaderServes=yes\nportUnification=false\n";
        assert_eq!(read(&[&all, quiet].concat()).unwrap().warnings.len(), 3);
    }
}
