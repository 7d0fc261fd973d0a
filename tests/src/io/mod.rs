//! Everything that needs the world: real daemons as processes, and what is done to them.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this is io: processes, sockets, clocks"
)]

pub mod backup;
pub mod bench;
pub mod crash;
pub mod daemon;
pub mod disk;
pub mod ensemble;
pub mod import;
pub mod operate;
pub mod relay;
pub mod shell;
