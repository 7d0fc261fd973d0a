//! Where to listen, as an operator writes it.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A host, bytes at most, as DNS has it.
pub(super) const HOST_BYTES_MAX: usize = 253;

/// `HOST:PORT`. The host is a name, an IPv4 or `[IPv6]` address, or `*` for every interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    /// Without brackets; `*` for every interface.
    pub host: String,
    /// 0 lets the system choose.
    pub port: u16,
}

/// Not of the form `HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an address: {reason}")]
pub struct AddressError {
    text: String,
    reason: &'static str,
}

impl Address {
    /// From a host without brackets.
    pub fn new(host: impl Into<String>, port: u16) -> Address {
        Address { host: host.into(), port }
    }

    /// Can others find a server there? Not at every interface, and not at a port that the system chooses.
    pub fn is_reachable(&self) -> bool {
        let wildcard = matches!(self.host.as_str(), "*" | "0.0.0.0")
            || self.host.parse::<std::net::Ipv6Addr>().is_ok_and(|host| host.is_unspecified());
        self.port != 0 && !wildcard
    }

    /// What to bind, in order of preference: the first that can be bound serves. Every interface is `[::]`, which
    /// takes IPv4 too, or `0.0.0.0` on a machine without IPv6.
    pub fn bind_candidates(&self) -> Vec<String> {
        match self.host.as_str() {
            "*" => vec![format!("[::]:{}", self.port), format!("0.0.0.0:{}", self.port)],
            _ => vec![self.to_string()],
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        let refuse = |reason| AddressError { text: text.to_owned(), reason };
        let (host, port) = text.rsplit_once(':').ok_or(refuse("it has no port (HOST:PORT)"))?;
        let port = port.parse().map_err(|_| refuse("the port is a number from 0 to 65535"))?;
        let bare = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or(refuse("a bracket is open"))?,
            None if host.contains(':') => return Err(refuse("an IPv6 address stands in brackets")),
            None => host,
        };
        if bare.is_empty() {
            return Err(refuse("the host is empty (`*` is every interface)"));
        }
        // What would part it from its neighbours where it is written among others.
        let parts = |c: char| c.is_whitespace() || c.is_control() || "/\\=;,|".contains(c);
        if bare.contains(parts) {
            return Err(refuse("a host has neither blanks nor any of `/`, `\\`, `=`, `;`, `,` and `|`"));
        }
        if bare.len() > HOST_BYTES_MAX {
            return Err(refuse("a host has 253 bytes at most"));
        }
        Ok(Address::new(bare, port))
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;
    fn try_from(text: String) -> Result<Address, AddressError> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> String {
        address.to_string()
    }
}

/// An address, or `off`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Listen {
    /// Do not listen.
    Off,
    /// Listen there.
    At(Address),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Off => f.write_str("off"),
            Listen::At(address) => address.fmt(f),
        }
    }
}

impl FromStr for Listen {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Listen, AddressError> {
        match text {
            "off" => Ok(Listen::Off),
            _ => text.parse().map(Listen::At),
        }
    }
}

impl TryFrom<String> for Listen {
    type Error = AddressError;
    fn try_from(text: String) -> Result<Listen, AddressError> {
        text.parse()
    }
}

impl From<Listen> for String {
    fn from(listen: Listen) -> String {
        listen.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_as_it_prints() {
        for text in ["127.0.0.1:2181", "[::1]:2181", "localhost:0", "*:2181", "zk-1.example:65535"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        for text in ["*:1", "0.0.0.0:1", "[::]:1", "h:0"] {
            assert!(!text.parse::<Address>().unwrap().is_reachable(), "{text}");
        }
        assert!("h:1".parse::<Address>().unwrap().is_reachable());
        assert_eq!("off".parse::<Listen>().unwrap(), Listen::Off);
        assert_eq!(Address::new("*", 1).bind_candidates(), ["[::]:1", "0.0.0.0:1"]);
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_reason() {
        for (text, reason) in [
            ("2181", "no port"),
            (":2181", "empty"),
            ("::1:2181", "brackets"),
            ("[::1:2181", "open"),
            ("h:65536", "65535"),
            ("a b:1", "blanks"),
            ("a;b:1", "blanks"),
            ("a=b:1", "blanks"),
            (&format!("{}:1", "h".repeat(254)), "253"),
        ] {
            let said = text.parse::<Address>().unwrap_err().to_string();
            assert!(said.contains(reason), "{text}: {said}");
        }
    }
}
