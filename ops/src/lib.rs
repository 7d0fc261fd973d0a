//! What an operator touches: the command `warren`, and the manual, of which what can be made from the code is made from
//! it, so that neither says what the other does not.

pub mod backup;
pub mod cli;
pub mod convert;
pub mod doctor;
pub mod import;
pub mod io;
pub mod local;
pub mod log;
pub mod prepare;
pub mod runbook;
pub mod shell;
pub mod status;
pub mod times;

/// `manual/configuration.md`: every key of `warren.toml`.
pub fn configuration() -> String {
    format!(
        "# Configuration\n\
         \n\
         `warrend --config warren.toml` reads this file; without it every key has the default that stands here. A key\n\
         that is unknown is refused, with the nearest known one. `--data-dir`, `--client-addr` and `--metrics-addr` win\n\
         over the file, and `--check-config` prints the settings in effect and exits. An existing ZooKeeper's file is\n\
         read by `--zoo-cfg zoo.cfg` instead, with ZooKeeper's meaning and defaults; what means nothing here is told at\n\
         the start, line by line.\n\
         \n\
         The servers of an ensemble may stand in `zoo.cfg` as well: `server.N` lines or a dynamic file, and `myid` in the\n\
         data folder. Links between them are QUIC, UDP at the quorum port; the election port is not used. They are always\n\
         secured: `ssl.quorum.keyStore.location` and `ssl.quorum.trustStore.location` name PEM files, such as\n\
         `warren certs issue` and `warren certs init` make for the ensemble's name `warren`.\n\
         \n\
         This page is made from the table in `server/src/config/keys.rs`; `WARREN_REWRITE=1 cargo test -p warren-ops`\n\
         makes it anew.\n\
         \n\
         ```toml\n{}```\n",
        warren_server::config::documented().trim_start()
    )
}
