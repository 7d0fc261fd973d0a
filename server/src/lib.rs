//! Who decides: sessions, watches, ACLs, consensus; the daemon `warrend`.
//!
//! The crate stands third in the house (`storage ← transport ← server ← ops ← tests`). Two pure state machines
//! make a server, each told events with the time and asked for actions: [`consensus`] and [`service`]; a third,
//! [`connection`], stands for each client. Sockets, clocks, threads and randomness live in [`io`] alone.

pub mod admin;
pub mod admin_server;
pub mod answer;
pub mod config;
pub mod connection;
pub mod consensus;
pub mod digests;
pub mod divergence;
pub mod entropy;
pub mod expiry;
pub mod flags;
pub mod founding;
pub mod identity;
pub mod io;
pub mod listings;
pub mod mailbox;
pub mod membership;
pub mod metrics;
pub mod moment;
pub mod observer;
pub mod pace;
pub mod pulse;
pub mod records;
mod retention;
pub mod room;
pub mod service;
pub mod version;
pub mod watches;
pub mod words;
