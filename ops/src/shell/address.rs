//! Where the servers are, as ZooKeeper's clients are told it: `HOST:PORT[,HOST:PORT]...[/chroot]`.

use std::fmt;
use std::str::FromStr;
use warren_storage::path;

/// The client port where none is said.
pub const PORT: u16 = 2181;
/// Servers in one list at most.
const SERVERS_MAX: usize = 100;

/// A list of servers, and the znode that is taken for the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Servers {
    /// `HOST:PORT` each, an IPv6 address in brackets; at least one.
    pub addresses: Vec<String>,
    /// What stands before every path.
    pub root: Root,
}

/// The znode that is taken for the root, the chroot of ZooKeeper's clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Root(String);

impl Root {
    /// The path as the server has it.
    pub fn full(&self, path: &str) -> String {
        match (self.0.as_str(), path) {
            ("", path) => path.to_owned(),
            (root, "/") => root.to_owned(),
            (root, path) => format!("{root}{path}"),
        }
    }

    /// The path as it is seen from this root; one outside stays as it is.
    pub fn seen<'p>(&self, full: &'p str) -> &'p str {
        match full.strip_prefix(self.0.as_str()) {
            Some("") => "/",
            Some(path) if path.starts_with('/') => path,
            _ => full,
        }
    }
}

/// Why a list of servers is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServersError {
    /// Nothing before the chroot, or between two commas.
    #[error("a server's address is missing; it is HOST:PORT[,HOST:PORT][/CHROOT], such as 127.0.0.1:2181")]
    Empty,
    /// Not a number up to 65535.
    #[error("{0:?} is no port")]
    Port(String),
    /// An IPv6 address without brackets, or one that is not closed.
    #[error("{0:?} is no HOST:PORT; an IPv6 address stands in brackets, as in [::1]:2181")]
    Host(String),
    /// The chroot.
    #[error("the chroot {0:?} is no path: {1}")]
    Chroot(String, path::PathError),
    /// More than [`SERVERS_MAX`].
    #[error("{0} servers are more than the {SERVERS_MAX} that are taken")]
    TooMany(usize),
}

impl FromStr for Servers {
    type Err = ServersError;

    fn from_str(text: &str) -> Result<Servers, ServersError> {
        let (list, root) = match text.find('/') {
            Some(at) => text.split_at(at),
            None => (text, ""),
        };
        let root = root.trim_end_matches('/');
        if !root.is_empty() {
            path::validate(root).map_err(|why| ServersError::Chroot(root.to_owned(), why))?;
        }
        let addresses = list.split(',').map(address).collect::<Result<Vec<_>, _>>()?;
        if addresses.len() > SERVERS_MAX {
            return Err(ServersError::TooMany(addresses.len()));
        }
        Ok(Servers { addresses, root: Root(root.to_owned()) })
    }
}

fn address(text: &str) -> Result<String, ServersError> {
    let text = text.trim();
    let bad = || ServersError::Host(text.to_owned());
    let (host, port) = if text.starts_with('[') {
        let end = text.find(']').ok_or_else(bad)?;
        match &text[end + 1..] {
            "" => (text, None),
            rest => (&text[..=end], Some(rest.strip_prefix(':').ok_or_else(bad)?)),
        }
    } else {
        match text.split_once(':') {
            None => (text, None),
            Some((_, port)) if port.contains(':') => return Err(bad()),
            Some((host, port)) => (host, Some(port)),
        }
    };
    if host.is_empty() {
        return Err(ServersError::Empty);
    }
    let port = match port {
        None => PORT,
        Some(port) => {
            port.parse().ok().filter(|port| *port > 0).ok_or_else(|| ServersError::Port(port.to_owned()))?
        }
    };
    Ok(format!("{host}:{port}"))
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.addresses.join(","), self.root.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        for (text, shown) in [
            ("localhost", "localhost:2181"),
            ("a:1,b,[::1]:3/x/y", "a:1,b:2181,[::1]:3/x/y"),
            ("[::1]", "[::1]:2181"),
            ("a:1/", "a:1"),
        ] {
            assert_eq!(text.parse::<Servers>().unwrap().to_string(), shown);
        }
        for (text, why) in [
            ("", "missing"),
            ("/a", "missing"),
            ("a:1,", "missing"),
            ("a:0", "no port"),
            ("a:99999", "no port"),
            ("::1:2181", "brackets"),
            ("[::1", "brackets"),
            ("a:1/x//y", "empty element"),
        ] {
            let refused = text.parse::<Servers>().unwrap_err().to_string();
            assert!(refused.contains(why), "{text}: {refused}");
        }
        assert!(matches!("a,".repeat(101).parse::<Servers>(), Err(ServersError::Empty)));
        assert_eq!(vec!["a"; 101].join(",").parse::<Servers>(), Err(ServersError::TooMany(101)));
    }

    #[test]
    fn a_root_stands_before_every_path() {
        let root = "a/x".parse::<Servers>().unwrap().root;
        assert_eq!((root.full("/"), root.full("/b")), ("/x".into(), "/x/b".into()));
        assert_eq!((root.seen("/x"), root.seen("/x/b"), root.seen("/xy")), ("/", "/b", "/xy"));
        assert_eq!((Root::default().full("/"), Root::default().seen("/a")), ("/".into(), "/a"));
    }
}
