//! `warrend`: the daemon.
#![allow(clippy::disallowed_methods, reason = "the command line and its files are read here")]

use clap::Parser;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;
use warren_server::config::{self, FileText, Loaded};
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

fn load(flags: &Flags) -> Result<Loaded, String> {
    let read = |path: &std::path::Path| {
        std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
    };
    let named = |path: &std::path::Path, error: config::ConfigError| format!("{}: {error}", path.display());
    match (&flags.config, &flags.zoo_cfg) {
        (Some(path), _) => {
            let bytes = read(path)?;
            let text = std::str::from_utf8(&bytes).map_err(|e| format!("{}: {e}", path.display()))?;
            config::load(FileText::WarrenToml(text), &flags.overrides()).map_err(|e| named(path, e))
        }
        (None, Some(path)) => {
            let bytes = read(path)?;
            config::load(FileText::ZooCfg(&bytes), &flags.overrides()).map_err(|e| named(path, e))
        }
        (None, None) => config::load(FileText::Absent, &flags.overrides()).map_err(|e| e.to_string()),
    }
}
