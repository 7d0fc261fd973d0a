//! The servers of an ensemble, and how they find and know each other: `[ensemble]` and `[[ensemble.server]]` of
//! `warren.toml`, `server.N` of `zoo.cfg`.

use super::keys::OutOfBounds;
use super::{Address, Key};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Servers of an ensemble at most. Nearly all of them observe: they feed one another, and a hundred of them cost the leader what
/// it is asked for by their clients, and a link each.
pub const SERVERS_MAX: usize = 127;

/// Of them, those that vote or are to, at most: voters beyond seven only make writes slower, and the rest is room for replacements.
pub const VOTERS_MAX: usize = 31;

/// Name of an ensemble, bytes at most.
const NAME_BYTES_MAX: usize = 64;

/// An ensemble, as one of its servers sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ensemble {
    /// Names the ensemble; its certificates carry it.
    #[serde(default = "default_name")]
    pub name: String,
    /// Which of the servers this one is.
    pub server_id: u8,
    /// Where this server listens for the others; unset: the address that the list has for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_addr: Option<Address>,
    /// This server's certificate and key.
    pub cert: PathBuf,
    /// The authority that signed the certificates of all servers.
    pub ca: PathBuf,
    /// The unit of heartbeats and elections, ms.
    #[serde(default = "default_tick_ms")]
    pub tick_ms: u32,
    /// Ticks without a leader after which a server looks for one.
    #[serde(default = "default_election_ticks")]
    pub election_ticks: u32,
    /// May clients change the membership by ZooKeeper's `reconfig`? Operators may in any case, by `warren member`.
    #[serde(default)]
    pub reconfig_enabled: bool,
    /// It comes to an ensemble that is there: with an empty store it never founds one.
    #[serde(default)]
    pub join: bool,
    /// All servers, this one among them.
    #[serde(default, rename = "server")]
    pub servers: Vec<EnsembleServer>,
}

/// One server of an ensemble.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnsembleServer {
    /// Its id.
    pub id: u8,
    /// Where the other servers find it.
    pub peer_addr: Address,
    /// Where clients find it. A `zoo.cfg` whose server lines end before it does not know; `warren.toml` always says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_addr: Option<Address>,
    /// What it does.
    #[serde(default)]
    pub role: Role,
}

/// What a server does in its ensemble.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It votes.
    #[default]
    Voter,
    /// It is told what is committed, serves clients, and does not vote.
    Observer,
}

fn default_name() -> String {
    "warren".to_owned()
}

fn default_tick_ms() -> u32 {
    20
}

fn default_election_ticks() -> u32 {
    10
}

/// The keys of the section, which has no defaults of its own: without it a server stands alone.
pub const ENSEMBLE_KEYS: &[Key] = &[
    Key {
        name: "ensemble.name",
        unit: "name",
        meaning: "Names the ensemble. Certificates carry it, and servers of another one are refused.",
    },
    Key { name: "ensemble.server_id", unit: "1 to 255", meaning: "Which of the servers this one is." },
    Key {
        name: "ensemble.peer_addr",
        unit: "HOST:PORT",
        meaning: "Where this server listens for the others (QUIC, so UDP), if not at the address that the list has for it.",
    },
    Key {
        name: "ensemble.cert",
        unit: "file",
        meaning: "This server's certificate and key in one PEM file, as `warren certs issue` writes it.",
    },
    Key {
        name: "ensemble.ca",
        unit: "file",
        meaning: "The authority that signed the certificates of all servers, as `warren certs init` writes it.",
    },
    Key {
        name: "ensemble.tick_ms",
        unit: "ms",
        meaning: "The unit of elections; heartbeats go every two of it. Raise it only where the network delays more than that.",
    },
    Key {
        name: "ensemble.election_ticks",
        unit: "ticks",
        meaning: "A server that heard no leader for so long looks for a new one, after up to as long again, by chance.",
    },
    Key {
        name: "ensemble.reconfig_enabled",
        unit: "true or false",
        meaning: "Let clients change the membership by `reconfig`, if the ACL of /zookeeper/config lets them write it \
                  (`reconfigEnabled`). `warren member` works in any case.",
    },
    Key {
        name: "ensemble.join",
        unit: "true or false",
        meaning: "The ensemble is there already: with an empty store this server never founds one, however many others are \
                  empty, too, and waits to be let in by `warren member add` or `replace`. Set it on a server that is added, and \
                  on all of them once the ensemble serves. Where it is false, a majority of the voters below that are empty and \
                  reach nobody else founds an ensemble.",
    },
    Key {
        name: "ensemble.server.id",
        unit: "1 to 255",
        meaning: "A server's id, as its certificate says it.",
    },
    Key {
        name: "ensemble.server.peer_addr",
        unit: "HOST:PORT",
        meaning: "Where the other servers find it (UDP). A name is looked up again whenever the link is made anew.",
    },
    Key { name: "ensemble.server.client_addr", unit: "HOST:PORT", meaning: "Where clients find it." },
    Key {
        name: "ensemble.server.role",
        unit: "voter or observer",
        meaning: "What the server does: a voter counts for the quorum; an observer only follows, and serves clients.",
    },
];

/// The section as an operator may copy it.
pub(super) fn documented() -> String {
    let mut text = String::from("\n# Without this section a server stands alone.\n# [ensemble]\n");
    let mut list = false;
    for Key { name, unit, meaning } in ENSEMBLE_KEYS {
        let key = name.strip_prefix("ensemble.").unwrap_or(name);
        let key = match key.strip_prefix("server.") {
            Some(key) => {
                if !std::mem::replace(&mut list, true) {
                    text.push_str("\n# Once for each server.\n# [[ensemble.server]]\n");
                }
                key
            }
            None => key,
        };
        text.push_str(&format!("# {meaning} ({unit})\n# {key} = \n"));
    }
    text
}

impl Ensemble {
    /// With nothing said but what has no default; it has no servers yet.
    pub fn new(server_id: u8, cert: PathBuf, ca: PathBuf) -> Ensemble {
        Ensemble {
            name: default_name(),
            server_id,
            peer_addr: None,
            cert,
            ca,
            tick_ms: default_tick_ms(),
            election_ticks: default_election_ticks(),
            reconfig_enabled: false,
            join: false,
            servers: Vec::new(),
        }
    }

    /// This server's own line of the list.
    ///
    /// # Panics
    /// Before [`Ensemble::validate`] said that there is one.
    pub fn own(&self) -> &EnsembleServer {
        self.servers.iter().find(|s| s.id == self.server_id).expect("a valid list has this server in it")
    }

    /// Is this server an observer?
    ///
    /// # Panics
    /// As [`Ensemble::own`].
    pub fn is_observer(&self) -> bool {
        self.own().role == Role::Observer
    }

    /// Does this one of the servers vote?
    pub fn votes(&self, server: u8) -> bool {
        self.servers.iter().any(|s| s.id == server && s.role == Role::Voter)
    }

    /// Where this server listens for the others.
    pub fn listen(&self) -> &Address {
        self.peer_addr.as_ref().unwrap_or(&self.own().peer_addr)
    }

    /// All but this one.
    pub fn others(&self) -> impl Iterator<Item = &EnsembleServer> {
        self.servers.iter().filter(|s| s.id != self.server_id)
    }

    /// How many of them vote.
    pub fn voters(&self) -> usize {
        self.servers.iter().filter(|s| s.role == Role::Voter).count()
    }

    pub(super) fn validate(&self) -> Result<(), OutOfBounds> {
        let bad = |key, reason: String| Err(OutOfBounds { key, reason });
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX || !self.name.chars().all(plain) {
            let reason = format!(
                "`{}` is not 1 to {NAME_BYTES_MAX} letters, digits, `-`, `_` or `.`: it stands in certificates",
                self.name
            );
            return bad("ensemble.name", reason);
        }
        if !(5..=1_000).contains(&self.tick_ms) {
            return bad("ensemble.tick_ms", format!("{} is not between 5 and 1000 ms", self.tick_ms));
        }
        if !(5..=100).contains(&self.election_ticks) {
            let reason = format!("{} is not between 5 and 100 ticks", self.election_ticks);
            return bad("ensemble.election_ticks", reason);
        }
        if self.servers.len() > SERVERS_MAX {
            let reason = format!("{} servers; {SERVERS_MAX} at most", self.servers.len());
            return bad("ensemble.server", reason);
        }
        if self.voters() > VOTERS_MAX {
            let reason = format!("{} servers vote; {VOTERS_MAX} at most", self.voters());
            return bad("ensemble.server.role", reason);
        }
        let (mut ids, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for server in &self.servers {
            if server.id == 0 {
                return bad("ensemble.server.id", "0 is no id; ids go from 1 to 255".to_owned());
            }
            if !ids.insert(server.id) {
                return bad("ensemble.server.id", format!("{} stands there twice", server.id));
            }
            let client = server.client_addr.as_ref();
            for (key, kind, address) in [
                Some(("ensemble.server.peer_addr", "udp", &server.peer_addr)),
                client.map(|address| ("ensemble.server.client_addr", "tcp", address)),
            ]
            .into_iter()
            .flatten()
            {
                if !address.is_reachable() {
                    let reason =
                        format!("{kind} {address} is no address at which others find server {}", server.id);
                    return bad(key, reason);
                }
                if !addresses.insert(format!("{kind} {address}").to_ascii_lowercase()) {
                    return bad(key, format!("{kind} {address} stands there twice"));
                }
            }
        }
        if self.voters() == 0 {
            return bad("ensemble.server.role", "all observe; somebody has to vote".to_owned());
        }
        if !ids.contains(&self.server_id) {
            let reason = format!("{} is not among the servers of [[ensemble.server]]", self.server_id);
            return bad("ensemble.server_id", reason);
        }
        if self.join && !self.others().any(|other| other.role == Role::Voter) {
            let reason = "no other server of [[ensemble.server]] votes, so there is no ensemble to join";
            return bad("ensemble.join", reason.to_owned());
        }
        for (key, path) in [("ensemble.cert", &self.cert), ("ensemble.ca", &self.ca)] {
            if path.as_os_str().is_empty() {
                return bad(key, "is empty; `warren certs` makes certificates".to_owned());
            }
        }
        Ok(())
    }

    /// What is odd about it without being wrong.
    pub(super) fn oddities(&self) -> Vec<String> {
        even_voters(self.voters()).into_iter().collect()
    }
}

/// An even number of voters is as good as one less, and needs one more.
pub(crate) fn even_voters(voters: usize) -> Option<String> {
    (voters > 0 && voters % 2 == 0).then(|| {
        format!(
            "{voters} voters need {} of them, and so bear no more failures than {} would",
            voters / 2 + 1,
            voters - 1
        )
    })
}

#[cfg(test)]
mod tests {
    use crate::config::{FileText, Overrides, load};

    const HEAD: &str = "[ensemble]\nserver_id = 2\ncert = 'c.pem'\nca = 'ca.pem'\n";

    fn server(id: u8) -> String {
        format!("[[ensemble.server]]\nid = {id}\npeer_addr = 'h{id}:2182'\nclient_addr = 'h{id}:2181'\n")
    }

    fn read(text: &str) -> Result<crate::config::Loaded, String> {
        load(FileText::WarrenToml(text), &Overrides::default()).map_err(|e| e.to_string())
    }

    #[test]
    fn an_ensemble_is_read() {
        let loaded = read(&[HEAD, &server(1), &server(2), &server(3)].concat()).unwrap();
        assert!(loaded.warnings.is_empty());
        let ensemble = loaded.config.ensemble.unwrap();
        assert_eq!(ensemble.own().client_addr.as_ref().unwrap().to_string(), "h2:2181");
        assert_eq!(ensemble.listen().to_string(), "h2:2182");
        assert_eq!(ensemble.others().map(|s| s.id).collect::<Vec<_>>(), [1, 3]);
        assert_eq!((ensemble.name.as_str(), ensemble.tick_ms, ensemble.election_ticks), ("warren", 20, 10));
        assert!(!ensemble.reconfig_enabled && !ensemble.join);
        let joins = [HEAD, "join = true\n", &server(1), &server(2)].concat();
        assert!(read(&joins).unwrap().config.ensemble.unwrap().join);
        // Clients are served where the list says, unless it is said otherwise.
        assert_eq!(loaded.config.client.addr.to_string(), "h2:2181");
        let loaded = read(&["[client]\naddr = '*:2181'\n", HEAD, &server(2)].concat()).unwrap();
        assert_eq!(loaded.config.client.addr.to_string(), "*:2181");
    }

    #[test]
    fn an_even_number_of_voters_is_warned_about() {
        let loaded = read(&[HEAD, &server(1), &server(2)].concat()).unwrap();
        assert!(loaded.warnings[0].text.contains("2 voters need 2 of them"));
        let observes = format!("{}role = 'observer'\n", server(1));
        let loaded = read(&[HEAD, &observes, &server(2)].concat()).unwrap();
        assert!(loaded.warnings.is_empty(), "one voter, and one that observes");
        assert_eq!(loaded.config.ensemble.unwrap().voters(), 1);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let all = [server(1), server(2), server(3)].concat();
        for (text, said) in [
            (format!("{HEAD}{}", server(1)), "ensemble.server_id: 2 is not among the servers"),
            (format!("{HEAD}{all}{}", server(3)), "ensemble.server.id: 3 stands there twice"),
            (format!("{HEAD}{all}{}", server(0)), "0 is no id"),
            (format!("{HEAD}{all}").replace("h3:2182", "h1:2182"), "udp h1:2182 stands there twice"),
            (
                format!("{HEAD}{all}").replace("h3:2181", "*:2181"),
                "is no address at which others find server 3",
            ),
            (format!("{HEAD}name = 'a/b'\n{all}"), "line 5: ensemble.name: `a/b` is not"),
            (
                format!("{HEAD}nme = 'a'\n{all}"),
                "line 5: unknown key `ensemble.nme`; did you mean `ensemble.name`?",
            ),
            (
                format!("{HEAD}{all}rle = 'voter'\n"),
                "unknown key `ensemble.server.rle`; did you mean `ensemble.server.role`?",
            ),
            (format!("{HEAD}{all}role = 'king'\n"), "unknown variant `king`"),
            (format!("{HEAD}{}role = 'observer'\n", server(2)), "all observe"),
            (format!("{HEAD}{all}").replace("client_addr = 'h3:2181'\n", ""), "server 3 has no client_addr"),
            (all.clone(), "missing field `server_id`"),
            (format!("{HEAD}join = true\n{}", server(2)), "there is no ensemble to join"),
            (format!("{HEAD}tick_ms = 1\n{all}"), "1 is not between 5 and 1000 ms"),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.contains(said), "{text}\n  said {error:?}\n  not  {said:?}");
        }
    }
}
