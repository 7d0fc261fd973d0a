//! Everything that touches the world: threads, clocks, sockets, signals. The rest of the crate is told and asked.
//!
//! ```text
//!  client tasks (tokio) ─submissions─▶ consensus thread ─appends─▶ log thread
//!        ▲   │                          ▲  │  ▲                       │
//!        │   └────connects, arms────┐   │  │  └──────persisted────────┘
//!     mail, snapshots               ▼   │  └─committed─▶ service thread ─▶ checkpoint thread
//!        └──────────────────────── service ◀────────────────┘
//! ```
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "this is where the world is touched")]

mod admin;
mod admin_server;
mod backup;
mod bulk;
mod certificates;
mod clients;
mod clock;
pub mod daemon;
mod engine;
mod ensemble;
mod entropy;
mod facts;
mod inbox;
mod last_backup;
mod leaving;
mod link_state;
mod listen;
mod log_stream;
pub mod logging;
mod members;
mod pages;
mod priority;
mod prometheus;
mod rebuild;
mod reconfigure;
mod reload;
mod restart;
mod space;
mod systemd;
mod with_data;

pub use clock::Clock;
pub use entropy::SystemEntropy;
pub use reload::Reread;
