//! `warrend`: the daemon.
#![allow(clippy::disallowed_methods, reason = "the command line and its files are read here")]

use clap::Parser;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use warren_server::config::{self, FileText, Files, Loaded};
use warren_server::flags::Flags;
use warren_server::io::logging::Logging;
use warren_server::io::{Reread, daemon};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Wrong usage or settings.
const EXIT_USAGE: u8 = 64;
/// It could not start.
const EXIT_CANNOT_START: u8 = 1;

fn main() -> ExitCode {
    let flags = Flags::parse();
    let logging = Arc::new(Logging::start(
        std::env::var("WARREN_LOG").ok().as_deref(),
        // systemd names the journal's socket where it is the standard error.
        std::env::var_os("JOURNAL_STREAM").is_some() && !std::io::stderr().is_terminal(),
    ));
    let loaded = match load(&flags) {
        Ok(loaded) => loaded,
        Err(text) => {
            eprintln!("warrend: {text}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    logging.set_level(loaded.config.log.level);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    if flags.check_config {
        print!("{}", loaded.config.to_toml());
        return ExitCode::SUCCESS;
    }
    let has_file = flags.config.is_some() || flags.zoo_cfg.is_some();
    let reread: Option<Reread> = has_file.then(|| -> Reread {
        Box::new(move || {
            let config = load(&flags)?.config;
            logging.set_level(config.log.level);
            Ok(config)
        })
    });
    match daemon::run(loaded.config, reread) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                text.push_str(&format!(": {cause}"));
                source = cause.source();
            }
            tracing::error!("cannot start: {text}");
            ExitCode::from(EXIT_CANNOT_START)
        }
    }
}

/// A file of settings at most, bytes.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > CONFIG_BYTES_MAX {
        true => Err(io::Error::other("it is longer than 1 MiB, and so is no file of settings")),
        false => Ok(bytes),
    }
}

fn load(flags: &Flags) -> Result<Loaded, String> {
    let read = |path: &Path| read_file(path).map_err(|e| format!("cannot read {}: {e}", path.display()));
    let named = |path: &Path, error: config::ConfigError| format!("{}: {error}", path.display());
    match (&flags.config, &flags.zoo_cfg) {
        (Some(path), _) => {
            let bytes = read(path)?;
            let text = std::str::from_utf8(&bytes).map_err(|e| format!("{}: {e}", path.display()))?;
            config::load(FileText::WarrenToml(text), &flags.overrides()).map_err(|e| named(path, e))
        }
        (None, Some(path)) => {
            let bytes = read(path)?;
            config::load(FileText::ZooCfg(&bytes, Files(&read_file)), &flags.overrides())
                .map_err(|e| named(path, e))
        }
        (None, None) => config::load(FileText::Absent, &flags.overrides()).map_err(|e| e.to_string()),
    }
}
