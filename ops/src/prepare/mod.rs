//! `warren prepare`: what each server of a new ensemble is given, a folder for each to be copied to its `/etc/warren`.

use std::fmt::Write as _;
use warren_server::config::VOTERS_MAX;

/// Where the packaged daemon has its settings.
pub const SETTINGS_DIR: &str = "/etc/warren";
/// A server's settings, in its folder.
pub const SETTINGS_FILE: &str = "warren.toml";
/// Its certificate and key, likewise.
pub const CERT_FILE: &str = "server.pem";

/// An ensemble to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Its name, which certificates carry.
    pub ensemble: String,
    /// One for each server, in the order of their ids; names that every server resolves, or addresses.
    pub hosts: Vec<String>,
    /// TCP.
    pub client_port: u16,
    /// UDP.
    pub peer_port: u16,
}

/// Why there cannot be such an ensemble.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Too few or too many.
    #[error("{0} hosts: an ensemble has 1 to {VOTERS_MAX}, and 3 or 5 are usual")]
    Number(usize),
    /// It stands there twice.
    #[error("{0} stands there twice; each server has a host of its own")]
    Twice(String),
    /// The settings that would be made are refused.
    #[error("{0}")]
    Settings(String),
}

impl Plan {
    /// The settings of each server, in the order of their ids.
    ///
    /// # Errors
    /// When the daemon would refuse them.
    pub fn settings(&self) -> Result<Vec<String>, PlanError> {
        use warren_server::config::{FileText, Overrides, load};
        if self.hosts.is_empty() || self.hosts.len() > VOTERS_MAX {
            return Err(PlanError::Number(self.hosts.len()));
        }
        for (place, host) in self.hosts.iter().enumerate() {
            if self.hosts[..place].contains(host) {
                return Err(PlanError::Twice(host.clone()));
            }
        }
        let all: Vec<String> = (1..=self.hosts.len()).map(|id| self.text(id)).collect();
        for text in &all {
            load(FileText::WarrenToml(text), &Overrides::default())
                .map_err(|e| PlanError::Settings(e.to_string()))?;
        }
        Ok(all)
    }

    fn text(&self, id: usize) -> String {
        let Plan { ensemble, hosts, client_port, peer_port } = self;
        let mut text = format!(
            "# Server {id} of the ensemble {ensemble}, by `warren prepare`. Every key, with its unit and its default:\n\
             # /usr/share/doc/warren/manual/configuration.md\n\
             data_dir = \"/var/lib/warren\"\n\n\
             [client]\n\
             # Every interface: clients are not encrypted, so keep this port inside a network that you trust.\n\
             addr = \"*:{client_port}\"\n\n\
             [metrics]\n\
             # For Prometheus on this host; \"*:7000\" for one elsewhere.\n\
             addr = \"127.0.0.1:7000\"\n\n\
             [log]\nlevel = \"info\"\n\n\
             [ensemble]\n\
             name = {}\n\
             # This line alone differs from server to server.\n\
             server_id = {id}\n\
             # Every interface: a host's own name may be 127.0.1.1 to itself.\n\
             peer_addr = \"*:{peer_port}\"\n\
             cert = \"{SETTINGS_DIR}/{CERT_FILE}\"\n\
             ca = \"{SETTINGS_DIR}/ca.pem\"\n\
             # To be said once the ensemble serves: a server whose data are lost then never founds another one.\n\
             # join = true\n",
            quoted(ensemble),
        );
        for (place, host) in hosts.iter().enumerate() {
            let bracketed = if host.contains(':') { format!("[{host}]") } else { host.clone() };
            let _ = write!(
                text,
                "\n[[ensemble.server]]\nid = {}\npeer_addr = {}\nclient_addr = {}\n",
                place + 1,
                quoted(&format!("{bracketed}:{peer_port}")),
                quoted(&format!("{bracketed}:{client_port}")),
            );
        }
        text
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use warren_server::config::{FileText, Overrides, load};

    fn plan(hosts: &[&str]) -> Plan {
        let hosts = hosts.iter().map(|host| (*host).to_owned()).collect();
        Plan { ensemble: "east".into(), hosts, client_port: 2181, peer_port: 2182 }
    }

    #[test]
    fn each_server_is_told_all_of_them_and_which_it_is() {
        let all = plan(&["a.example", "10.0.0.2", "fd00::3"]).settings().unwrap();
        for (place, text) in all.iter().enumerate() {
            let config = load(FileText::WarrenToml(text), &Overrides::default()).unwrap().config;
            assert_eq!(config.client.addr.to_string(), "*:2181");
            assert_eq!(config.data_dir.to_str(), Some("/var/lib/warren"));
            let ensemble = config.ensemble.unwrap();
            assert_eq!((usize::from(ensemble.server_id), ensemble.servers.len()), (place + 1, 3));
            assert_eq!(ensemble.listen().to_string(), "*:2182");
            assert_eq!(ensemble.servers[0].peer_addr.to_string(), "a.example:2182");
            assert_eq!(ensemble.servers[2].client_addr.as_ref().unwrap().to_string(), "[fd00::3]:2181");
        }
        // What it says of itself is so.
        let differing = all[0].lines().zip(all[1].lines()).filter(|(one, other)| one != other).count();
        assert_eq!(differing, 2, "its heading and its server_id");
    }

    #[test]
    fn what_cannot_be_is_refused_before_anything_is_written() {
        assert_eq!(plan(&[]).settings(), Err(PlanError::Number(0)));
        assert_eq!(plan(&["a", "b", "a"]).settings(), Err(PlanError::Twice("a".into())));
        assert!(plan(&["a", "b c", "d"]).settings().unwrap_err().to_string().contains("blanks"));
        assert!(plan(&["a", "*", "d"]).settings().unwrap_err().to_string().contains("no address"));
        let unnamed = Plan { ensemble: "a/b".into(), ..plan(&["a"]) };
        assert!(unnamed.settings().unwrap_err().to_string().contains("a/b"));
    }
}
