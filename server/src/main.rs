//! `warrend`: the daemon.
#![allow(clippy::disallowed_methods, reason = "the command line and its files are read here")]

use clap::Parser;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::Path;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;
use warren_server::config::{self, FileText, Files, Loaded};
use warren_server::flags::Flags;
use warren_server::io::daemon;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Wrong usage or settings.
const EXIT_USAGE: u8 = 64;
/// It could not start.
const EXIT_CANNOT_START: u8 = 1;

fn main() -> ExitCode {
    let flags = Flags::parse();
    let filter = EnvFilter::try_from_env("WARREN_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        // It would print to the very place that took no line, and panic when that fails: a log file on a full disk is no
        // reason to die.
        .log_internal_errors(false)
        .init();
    let loaded = match load(&flags) {
        Ok(loaded) => loaded,
        Err(text) => {
            eprintln!("warrend: {text}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    if flags.check_config {
        print!("{}", loaded.config.to_toml());
        return ExitCode::SUCCESS;
    }
    match daemon::run(loaded.config) {
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
