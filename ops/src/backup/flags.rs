//! The command lines of backups.

use clap::Args;
use std::path::PathBuf;

/// `warren backup`.
#[derive(Debug, Args)]
pub struct BackupFlags {
    /// The file to write; `-` is standard output
    #[arg(long, value_name = "FILE", required_unless_present = "dir", conflicts_with = "dir")]
    pub out: Option<PathBuf>,
    /// A folder to put it into, under a name that tells ensemble, time and zxid
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// With --dir: how many backups of this ensemble stay there, the new one among them
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u16).range(1..))]
    pub keep: u16,
    /// Replace FILE if it is there
    #[arg(long, requires = "out")]
    pub overwrite: bool,
    /// Of a server that has no leader, too: of what it has, as of its last checkpoint
    #[arg(long)]
    pub stale: bool,
}

/// `warren restore`.
#[derive(Debug, Args)]
pub struct RestoreFlags {
    /// The backup
    #[arg(long, value_name = "FILE")]
    pub from: PathBuf,
}

/// `warren verify`.
#[derive(Debug, Args)]
pub struct VerifyFlags {
    /// A backup, or the data folder of a server that is stopped
    pub path: PathBuf,
}
