//! The command line of `warrend`, declared once.

use crate::config::{Address, Listen, Overrides};
use std::path::PathBuf;

/// A coordination service that ZooKeeper clients talk to unchanged
///
/// Without arguments it serves on 127.0.0.1:2181, keeps its data in ./warren-data, and has metrics at
/// 127.0.0.1:7000/metrics.
#[derive(Clone, Debug, Default, clap::Parser)]
#[command(name = "warrend", version = crate::version::VERSION)]
pub struct Flags {
    /// Keep data in this folder
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,

    /// Listen here for clients
    #[arg(long, value_name = "HOST:PORT")]
    pub client_addr: Option<Address>,

    /// Serve metrics here, or `off`
    #[arg(long, value_name = "HOST:PORT|off")]
    pub metrics_addr: Option<Listen>,

    /// Read settings from this warren.toml; other flags win over it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Read settings from this zoo.cfg, with ZooKeeper's meaning and defaults; other flags win over it
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    pub zoo_cfg: Option<PathBuf>,

    /// Check the settings, print them and what is odd about them, and exit
    #[arg(long)]
    pub check_config: bool,
}

impl Flags {
    /// What of it wins over a file.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            data_dir: self.data_dir.clone(),
            client_addr: self.client_addr.clone(),
            metrics_addr: self.metrics_addr.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    #[test]
    fn the_table_of_flags_is_sound() {
        Flags::command().debug_assert();
    }

    #[test]
    fn flags_are_read_and_bad_ones_refused_with_the_reason() {
        let read = |line: &str| Flags::try_parse_from(line.split(' ')).map_err(|error| error.to_string());
        let flags = read("warrend --data-dir /d --client-addr localhost:1 --metrics-addr off --check-config")
            .unwrap();
        assert_eq!(flags.overrides().metrics_addr, Some(Listen::Off));
        assert_eq!(flags.overrides().data_dir, Some("/d".into()));
        assert!(flags.check_config);
        assert_eq!(read("warrend").unwrap().overrides(), Overrides::default());
        assert!(read("warrend --config a --zoo-cfg b").unwrap_err().contains("cannot be used with"));
        assert!(read("warrend --client-addr 2181").unwrap_err().contains("it has no port"));
        assert!(read("warrend --version").unwrap_err().starts_with("warrend 3.9.5-warren-"));
    }
}
