//! What `warren import` is told.

use std::path::PathBuf;

/// Paths and Stats of so much memory are put together unless more is allowed, MiB: about 15 million znodes.
const MEMORY_MB: u32 = 4_096;

/// The options.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct ImportFlags {
    /// The ZooKeeper's folder: what its zoo.cfg calls dataDir
    #[arg(long, value_name = "DIR")]
    pub from: PathBuf,
    /// Its other folder, if zoo.cfg has dataLogDir
    #[arg(long, value_name = "DIR")]
    pub log_dir: Option<PathBuf>,
    /// Say what would be imported, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Leave out all sessions, and with them the ephemerals
    ///
    /// Without this they are imported, and end when their clients do not come back within the timeout, as after a restart of
    /// ZooKeeper.
    #[arg(long)]
    pub drop_ephemerals: bool,
    /// Import what there is, though something is missing or damaged
    #[arg(long)]
    pub accept_damage: bool,
    /// Memory for paths and Stats of all znodes at most, MiB; about 250 bytes and the path for each
    #[arg(long, value_name = "MIB", default_value_t = MEMORY_MB, value_parser = clap::value_parser!(u32).range(1..))]
    pub memory_mb: u32,
}
