//! A server as ZooKeeper writes it behind `server.N=`, in `zoo.cfg`, in `reconfig` and in `/zookeeper/config`:
//! `host:quorumPort:electionPort[:participant|observer][;[[clientHost:]clientPort]]`, IPv6 in brackets.
//!
//! As `QuorumServer` of ZooKeeper takes it apart, and with the same distinction: what its own checks refuse is
//! [`LineError::Form`], a number of which Java throws is [`LineError::Number`].

use super::Address;
use super::address::HOST_BYTES_MAX;
use std::net::Ipv6Addr;

/// Between the quorum port and the election port of ZooKeeper's manual (2888 and 3888).
const ELECTION_PORT_ABOVE: u16 = 1_000;

/// A server, as one line says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerLine {
    /// Host and quorum port. The election port is checked and forgotten: elections go over the same links here.
    pub(crate) peer: Address,
    /// It observes; a line that says nothing means a participant.
    pub(crate) observer: bool,
    /// Where clients find it, if the line says it. A port alone is one at the server's own host, where ZooKeeper would
    /// tell clients `0.0.0.0`, which they cannot reach.
    pub(crate) client: Option<Address>,
    /// Where it listens for them: at that host, or at every address if the line names a port alone.
    pub(crate) listen: Option<Address>,
}

/// Why a line is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LineError {
    /// ZooKeeper's `ConfigException`.
    #[error("{0}")]
    Form(String),
    /// A number that Java refuses by an exception which ZooKeeper does not expect.
    #[error("{0}")]
    Number(String),
}

/// The line of a server in `/zookeeper/config`, without `server.N=`. The election port, which Java's parsers want to
/// differ from the other, is the one that usually goes with it.
pub(crate) fn write(peer: &Address, observer: bool, client: Option<&Address>) -> String {
    let election = election_port(peer.port);
    let role = if observer { "observer" } else { "participant" };
    let client = client.map(|client| format!(";{client}")).unwrap_or_default();
    format!("{peer}:{election}:{role}{client}")
}

/// The election port that usually goes with a quorum port.
pub(crate) fn election_port(quorum: u16) -> u16 {
    quorum.checked_add(ELECTION_PORT_ABOVE).unwrap_or(quorum - ELECTION_PORT_ABOVE)
}

/// Takes a line apart.
pub(crate) fn parse(text: &str) -> Result<ServerLine, LineError> {
    let form = |reason: String| LineError::Form(format!("`{text}` {reason}"));
    let mut parts = text.split(';');
    let servers = parts.next().unwrap_or_default();
    let client = parts.next().map(str::trim).filter(|part| !part.is_empty());
    if parts.any(|part| !part.trim().is_empty()) {
        return Err(form("has a port for TLS, which is not served to clients yet".to_owned()));
    }
    if servers.contains('|') {
        return Err(form("has several addresses; a server has one here".to_owned()));
    }
    let (host, rest) = host_of(servers.trim()).map_err(|reason| form(reason.to_owned()))?;
    let [quorum, election, role @ ..] = rest.as_slice() else { return Err(form(SHAPE.to_owned())) };
    let observer = match role {
        [] => false,
        [role] => match role.trim().to_ascii_lowercase().as_str() {
            "participant" => false,
            "observer" => true,
            _ => {
                return Err(form(format!(
                    "has the unknown role `{role}`; there are participant and observer"
                )));
            }
        },
        _ => return Err(form(SHAPE.to_owned())),
    };
    let (quorum, election) = (port(text, quorum)?, port(text, election)?);
    if quorum == election {
        return Err(form("has the same port for quorum and election".to_owned()));
    }
    let peer = Address::new(host, quorum);
    let (client, listen) = match client {
        None => (None, None),
        Some(client) => {
            let (found, number) = match client.contains(':') {
                false => ("*", client),
                true => match host_of(client).map_err(|reason| form(reason.to_owned()))? {
                    (found, rest) if rest.len() == 1 => (found, rest[0]),
                    _ => return Err(form(SHAPE.to_owned())),
                },
            };
            let number = port(text, number)?;
            if number == 0 {
                return Err(form("has no port at which clients find it".to_owned()));
            }
            let client = Address::new(found, number);
            match client.is_reachable() {
                true => (Some(client.clone()), Some(client)),
                false => (Some(Address::new(host, number)), Some(Address::new("*", number))),
            }
        }
    };
    Ok(ServerLine { peer, observer, client, listen })
}

const SHAPE: &str =
    "is not of the form host:port:port[:participant|observer][;[host:]clientPort] (IPv6 stands in brackets)";

/// The host without brackets, and what stands between the colons after it.
fn host_of(text: &str) -> Result<(&str, Vec<&str>), &'static str> {
    let (host, rest) = match text.strip_prefix('[') {
        Some(open) => {
            let (host, rest) = open.split_once(']').ok_or("has an open bracket")?;
            let bare = host.split_once('%').map_or(host, |(bare, _)| bare);
            if bare.parse::<Ipv6Addr>().is_err() {
                return Err("has something else than an IPv6 address in brackets");
            }
            (host, rest.strip_prefix(':').ok_or("has no port after the brackets")?)
        }
        None => text.split_once(':').ok_or(SHAPE)?,
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
    if host.is_empty() || host.len() > HOST_BYTES_MAX || !host.chars().all(plain) {
        return Err(
            "has a host that is none: 1 to 253 letters, digits, `.`, `-` or `_`, or IPv6 in brackets",
        );
    }
    Ok((host, rest.split(':').take(4).collect()))
}

/// As `Integer.parseInt`, and then `InetSocketAddress`.
fn port(line: &str, text: &str) -> Result<u16, LineError> {
    let number: i32 =
        text.parse().map_err(|_| LineError::Form(format!("`{line}`: `{text}` is not a port")))?;
    let outside = || LineError::Number(format!("`{line}`: {number} is not a port (0 to 65535)"));
    u16::try_from(number).map_err(|_| outside())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_taken_apart() {
        for (text, peer, observer, client) in [
            ("h:2888:3888", "h:2888", false, None),
            ("0.0.0.0:2888:3888;c:1", "0.0.0.0:2888", false, Some("c:1")),
            ("h:2888:3888;2181", "h:2888", false, Some("h:2181")),
            ("h:2888:3888:participant;c:2181", "h:2888", false, Some("c:2181")),
            ("h:2888:3888: Observer ;2181", "h:2888", true, Some("h:2181")),
            ("h:2888:3888;0.0.0.0:2181", "h:2888", false, Some("h:2181")),
            ("h:2888:3888;[::]:2181", "h:2888", false, Some("h:2181")),
            ("h:2888:3888;", "h:2888", false, None),
            ("[::1]:2888:3888:observer;[fe80::1%eth0]:2181", "[::1]:2888", true, Some("[fe80::1%eth0]:2181")),
            ("[2001:db8::7]:2888:3888;2181", "[2001:db8::7]:2888", false, Some("[2001:db8::7]:2181")),
            ("zk-1.example_x:1:65535", "zk-1.example_x:1", false, None),
        ] {
            let line = parse(text).unwrap();
            assert_eq!(line.peer.to_string(), peer, "{text}");
            assert_eq!(line.observer, observer, "{text}");
            assert_eq!(line.client.map(|a| a.to_string()).as_deref(), client, "{text}");
        }
    }

    #[test]
    fn a_port_alone_is_listened_on_everywhere() {
        for (text, listen) in [
            ("h:2888:3888;2181", "*:2181"),
            ("h:2888:3888;0.0.0.0:2181", "*:2181"),
            ("h:2888:3888;c:2181", "c:2181"),
        ] {
            assert_eq!(parse(text).unwrap().listen.unwrap().to_string(), listen);
        }
    }

    #[test]
    fn what_is_no_line_is_refused_as_zookeeper_does() {
        for (text, said) in [
            ("", "not of the form"),
            ("h", "not of the form"),
            ("h:2888", "not of the form"),
            ("h:1:2:participant:x", "not of the form"),
            ("h:1:2:king", "unknown role `king`"),
            ("h:1:1", "the same port"),
            ("h:x:2", "`x` is not a port"),
            ("h:1:2;x", "`x` is not a port"),
            ("h:1:2;c:d:3", "not of the form"),
            ("h:1:2;c:", "`` is not a port"),
            ("h:1:2;;2281", "TLS"),
            ("h:1:2|g:1:2", "several addresses"),
            ("::1:2888:3888", "a host that is none"),
            ("[::1:2888:3888", "open bracket"),
            ("[::1]2888", "no port after"),
            ("[h]:1:2", "something else than an IPv6"),
            (":1:2", "a host that is none"),
            ("a b:1:2", "a host that is none"),
            ("h:1:2;0", "no port at which clients"),
        ] {
            match parse(text) {
                Err(LineError::Form(reason)) => assert!(reason.contains(said), "{text}: {reason}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        for text in ["h:65536:1", "h:1:-2", "h:1:2;70000"] {
            assert!(matches!(parse(text), Err(LineError::Number(_))), "{text}");
        }
        assert!(parse(&format!("{}:1:2", "h".repeat(254))).is_err());
    }

    #[test]
    fn a_line_reads_as_it_is_written() {
        for (peer, client) in
            [("h:2888", Some("c:2181")), ("[::1]:65535", None), ("h:64536", Some("[::1]:1"))]
        {
            let peer: Address = peer.parse().unwrap();
            let client: Option<Address> = client.map(|text| text.parse().unwrap());
            for observer in [false, true] {
                let line = parse(&write(&peer, observer, client.as_ref())).unwrap();
                let (client, listen) = (client.clone(), client.clone());
                assert_eq!(line, ServerLine { peer: peer.clone(), observer, client, listen });
            }
        }
        let usual = write(&"h:2888".parse().unwrap(), false, None);
        assert_eq!(usual, "h:2888:3888:participant");
    }
}
