//! The version, as tools that talk to ZooKeeper expect to read it.

/// ZooKeeper's version whose surface is served, then Warren's own: tools compare the front of it.
pub const VERSION: &str = concat!("3.9.5-warren-", env!("CARGO_PKG_VERSION"));

/// When it was built. A packager sets `WARREN_BUILT_ON`; the form is the one that parsers of `srvr` know
/// (month first: ZooKeeper's ISO date of today is refused by go-zookeeper).
pub const BUILT_ON: &str = match option_env!("WARREN_BUILT_ON") {
    Some(date) => date,
    None => "11/20/2026 00:00 UTC",
};

/// As `srvr`, `stat`, `mntr` and `envi` tell it.
pub fn full() -> String {
    format!("{VERSION}, built on {BUILT_ON}")
}
