//! Where this crate touches sockets and clocks; everything else in it is pure.

pub mod blocking;
pub mod certs;
pub mod links;
