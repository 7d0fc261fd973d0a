//! A whole ensemble on one machine, for trying and for tests: which ports it takes, and what each server is told.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Servers of a local ensemble at most, observers among them.
pub const SERVERS_MAX: u8 = 9;

/// Name of the ensemble.
pub const NAME: &str = "local";

/// Where one server of a local ensemble has its things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// 1 to the number of servers.
    pub id: u8,
    /// Its data folder, with its settings and its certificate in it.
    pub dir: PathBuf,
    /// It does not vote.
    pub observer: bool,
    /// TCP.
    pub client_port: u16,
    /// UDP.
    pub peer_port: u16,
    /// TCP.
    pub metrics_port: u16,
    /// TCP.
    pub admin_port: u16,
}

/// The first of each row of ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// P: clients from here, and the other servers from P+101.
    pub client: u16,
    /// Prometheus.
    pub metrics: u16,
    /// The AdminServer.
    pub admin: u16,
}

/// Server N has client port P+N−1, peer port P+100+N, the Nth ports for metrics and for the AdminServer, and data in
/// `DIR/N`; observers come after the voters. An error says which number does not fit.
pub fn places(voters: u8, observers: u8, dir: &Path, ports: Ports) -> Result<Vec<Place>, String> {
    let client_port = ports.client;
    let servers = voters.saturating_add(observers);
    if voters == 0 || servers > SERVERS_MAX {
        return Err(format!(
            "{voters} servers that vote and {observers} observers: a local ensemble has 1 to {SERVERS_MAX}, and at least \
             one of them votes"
        ));
    }
    if client_port == 0 || client_port > u16::MAX - 200 {
        return Err(format!("client port {client_port}: the ports up to {client_port} + 200 must exist"));
    }
    for (what, port) in [("metrics", ports.metrics), ("AdminServer", ports.admin)] {
        if port == 0 || port > u16::MAX - u16::from(SERVERS_MAX) {
            return Err(format!("{what} port {port}: the ports up to {port} + {SERVERS_MAX} must exist"));
        }
    }
    Ok((1..=servers)
        .map(|id| Place {
            id,
            dir: dir.join(id.to_string()),
            observer: id > voters,
            client_port: client_port + u16::from(id) - 1,
            peer_port: client_port + 100 + u16::from(id),
            metrics_port: ports.metrics + u16::from(id) - 1,
            admin_port: ports.admin + u16::from(id) - 1,
        })
        .collect())
}

impl Place {
    /// Its settings.
    pub fn config(&self) -> PathBuf {
        self.dir.join("warren.toml")
    }

    /// Its certificate and key.
    pub fn cert(&self) -> PathBuf {
        self.dir.join("server.pem")
    }
}

/// The settings of one of the servers, as `warren.toml`.
pub fn settings(own: &Place, all: &[Place], ca: &Path) -> String {
    let quoted = |path: &Path| toml::Value::String(path.display().to_string()).to_string();
    let mut text = format!(
        "# Made by `warren local`, and made anew at its next start.\n\
         data_dir = {}\n\n\
         [metrics]\naddr = \"127.0.0.1:{}\"\n\n\
         [admin]\naddr = \"127.0.0.1:{}\"\n\n\
         [ensemble]\nname = \"{NAME}\"\nserver_id = {}\ncert = {}\nca = {}\n",
        quoted(&own.dir),
        own.metrics_port,
        own.admin_port,
        own.id,
        quoted(&own.cert()),
        quoted(ca),
    );
    for Place { id, client_port, peer_port, observer, .. } in all {
        let _ = write!(
            text,
            "\n[[ensemble.server]]\nid = {id}\npeer_addr = \"127.0.0.1:{peer_port}\"\n\
             client_addr = \"127.0.0.1:{client_port}\"\n"
        );
        if *observer {
            text.push_str("role = \"observer\"\n");
        }
    }
    text
}

/// What clients are given.
pub fn connect_string(all: &[Place]) -> String {
    all.iter().map(|place| format!("127.0.0.1:{}", place.client_port)).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use warren_server::config::{FileText, Overrides, load};

    fn ports(client: u16) -> Ports {
        Ports { client, metrics: 7_000, admin: 8_080 }
    }

    #[test]
    fn ports_and_settings_fit_together() {
        let all = places(2, 1, Path::new("/d'ir"), ports(2181)).unwrap();
        assert_eq!((all[2].client_port, all[2].peer_port, all[2].metrics_port), (2183, 2284, 7002));
        assert_eq!(connect_string(&all), "127.0.0.1:2181,127.0.0.1:2182,127.0.0.1:2183");
        let text = settings(&all[1], &all, Path::new("/d'ir/ca/ca.pem"));
        let config = load(FileText::WarrenToml(&text), &Overrides::default()).unwrap().config;
        assert_eq!(config.data_dir, Path::new("/d'ir/2"));
        assert_eq!(config.client.addr.to_string(), "127.0.0.1:2182");
        assert_eq!(config.metrics.addr.to_string(), "127.0.0.1:7001");
        assert_eq!(config.admin.addr.to_string(), "127.0.0.1:8081");
        let ensemble = config.ensemble.unwrap();
        assert_eq!((ensemble.server_id, ensemble.servers.len()), (2, 3));
        assert_eq!(ensemble.listen().to_string(), "127.0.0.1:2283");
        assert_eq!((ensemble.voters(), ensemble.is_observer(), ensemble.votes(3)), (2, false, false));
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        assert!(places(0, 1, Path::new("d"), ports(2181)).is_err());
        assert!(places(7, 3, Path::new("d"), ports(2181)).is_err());
        assert!(places(3, 0, Path::new("d"), ports(65_500)).unwrap_err().contains("65500"));
        let high = Ports { admin: 65_530, ..ports(2181) };
        assert!(places(3, 0, Path::new("d"), high).unwrap_err().contains("AdminServer port 65530"));
    }
}
