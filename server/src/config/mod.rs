//! What an operator may set. Text in, a valid [`Config`] out: from `warren.toml`, from ZooKeeper's `zoo.cfg`, or
//! from nothing, with the command line's flags over all of them. Files are read by who calls this.

mod address;
mod ensemble;
mod keys;
mod nearest;
pub(crate) mod properties;
pub(crate) mod server_line;
mod warren_toml;
mod zoo_cfg;

pub use address::{Address, AddressError, Listen};
pub(crate) use ensemble::even_voters;
pub use ensemble::{ENSEMBLE_KEYS, Ensemble, EnsembleServer, Role, SERVERS_MAX, VOTERS_MAX};
pub use keys::{
    Client, Config, FourLetterWords, KEYS, Key, Limits, Log, LogLevel, Metrics, Security, Sessions,
};
pub use keys::{Storage, SuperDigest, Znodes, documented};

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Which file the operator gave, and what it says.
#[derive(Clone, Copy, Debug)]
pub enum FileText<'a> {
    /// None: Warren's defaults.
    Absent,
    /// `warren.toml`.
    WarrenToml(&'a str),
    /// `zoo.cfg`: bytes, for Java properties need not be UTF-8; and how the files that it leads to are read.
    ZooCfg(&'a [u8], Files<'a>),
}

/// Reads the files that a configuration names (`myid`, the dynamic file).
#[derive(Clone, Copy)]
pub struct Files<'a>(pub &'a dyn Fn(&Path) -> io::Result<Vec<u8>>);

impl Files<'_> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        (self.0)(path)
    }
}

impl fmt::Debug for Files<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Files")
    }
}

/// What the flags say; each wins over the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `--client-addr`.
    pub client_addr: Option<Address>,
    /// `--metrics-addr`.
    pub metrics_addr: Option<Listen>,
}

/// A valid configuration, and what the operator should know about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Within all bounds.
    pub config: Config,
    /// Keys that do less here than they seem to, each said in words.
    pub warnings: Vec<Warning>,
}

/// A key that means nothing here, or not what it seems.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Line of the file, from 1.
    pub line: usize,
    /// The key as written, and why.
    pub text: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.text)
    }
}

/// Why a configuration is refused. Says the line, but not the file: who read it adds that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The text is not of its format.
    #[error("line {line}: {reason}")]
    Syntax {
        /// From 1.
        line: usize,
        /// What the parser says.
        reason: String,
    },
    /// Nothing is called so.
    #[error("line {line}: unknown key `{key}`{}", hint(.nearest))]
    UnknownKey {
        /// From 1.
        line: usize,
        /// With its section.
        key: String,
        /// What may have been meant.
        nearest: Option<String>,
    },
    /// A value that cannot be served.
    #[error("{}{key}: {reason}", at(.line))]
    Invalid {
        /// From 1; `None` when no line of the file is to blame.
        line: Option<usize>,
        /// With its section.
        key: String,
        /// In words, with the bound.
        reason: String,
    },
    /// Something that was asked for and is not served; going on without it would mislead.
    #[error("line {line}: {key}: {reason}")]
    Refused {
        /// From 1.
        line: usize,
        /// As written.
        key: String,
        /// In words.
        reason: String,
    },
}

fn hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|key| format!("; did you mean `{key}`?")).unwrap_or_default()
}

fn at(line: &Option<usize>) -> String {
    line.map(|line| format!("line {line}: ")).unwrap_or_default()
}

/// Reads the file's text, lays the flags over it, and checks the result.
pub fn load(file: FileText<'_>, flags: &Overrides) -> Result<Loaded, ConfigError> {
    match file {
        FileText::Absent => {
            let mut config = Config::default();
            config.lay_over(flags);
            config.validate().map_err(|bad| bad.at_line(None))?;
            Ok(Loaded { config, warnings: Vec::new() })
        }
        FileText::WarrenToml(text) => warren_toml::load(text, flags),
        FileText::ZooCfg(bytes, files) => zoo_cfg::load(bytes, files, flags),
    }
}

impl Config {
    fn lay_over(&mut self, flags: &Overrides) {
        if let Some(dir) = &flags.data_dir {
            self.data_dir.clone_from(dir);
        }
        if let Some(addr) = &flags.client_addr {
            self.client.addr.clone_from(addr);
        }
        if let Some(addr) = &flags.metrics_addr {
            self.metrics.addr.clone_from(addr);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_given_serves_on_loopback() {
        let loaded = load(FileText::Absent, &Overrides::default()).unwrap();
        assert_eq!(loaded.config.client.addr.to_string(), "127.0.0.1:2181");
        assert_eq!(loaded.config.metrics.addr.to_string(), "127.0.0.1:7000");
        assert_eq!(loaded.config.data_dir, PathBuf::from("./warren-data"));
        assert!(loaded.config.znodes.quotas_enforced && loaded.config.znodes.ttl_enabled);
        assert!(loaded.warnings.is_empty());
    }

    #[test]
    fn flags_win_over_both_files() {
        let flags = Overrides {
            data_dir: Some("/flag".into()),
            client_addr: Some("[::1]:9".parse().unwrap()),
            metrics_addr: Some(Listen::Off),
        };
        let toml = FileText::WarrenToml("data_dir = '/file'\n[client]\naddr = '1.2.3.4:5'");
        let none = Files(&|_: &Path| Err(io::ErrorKind::NotFound.into()));
        let zoo = FileText::ZooCfg(b"dataDir=/file\nclientPort=5", none);
        for file in [FileText::Absent, toml, zoo] {
            let config = load(file, &flags).unwrap().config;
            assert_eq!(config.data_dir, PathBuf::from("/flag"));
            assert_eq!(config.client.addr.to_string(), "[::1]:9");
            assert_eq!(config.metrics.addr, Listen::Off);
        }
    }
}
