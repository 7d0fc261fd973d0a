//! The simulator: a whole ensemble in one thread, from one seed.
//!
//! Consensus, service, connections, codec, tree, log and redb are the daemon's own; only clock, network and disk are
//! replaced. Every step of every thread, every packet and every fault is an event on one queue, delayed by the
//! seed's dice, so that the steps interleave as they do at the worst of times. The checkers ([`check`]) look on.
//!
//! The seed says how many servers there are: one, three or five. Each has a machine of its own, with its disk, its clock
//! and its troubles (`host`); messages between them are late, lost, doubled and out of order, and who reaches whom
//! changes (`net`, `partition`). Clients connect to any server, and move. In some seeds an operator changes who belongs to
//! the ensemble while all this goes on (`operator`).
//!
//! A run has two phases. In the first, clients work while faults strike; in the second nothing is broken any more
//! and every server must serve everybody within a bound. Then the power goes everywhere once more, and what was
//! acknowledged must still be there.
//!
//! # Reading a trace
//! `cargo run -p warren-tests --bin sim -- --seed N --trace` prints one line for each event:
//!
//! ```text
//!  1.204317  c3      #17 > 5 setData /a/x 3.42            client 3 sends on connection 17, xid 5
//!  1.204391  server  log: 3 records up to 41              a step of one of the server's threads; s1, s2… in an ensemble
//!  1.204455  network s1 > s2 Append term 2 index 40 …     server 2 has a message of server 1
//!  1.204502  c3      #17 < 5 z2.9 err 0                   what client 3 read: xid, zxid (epoch.counter), error
//!  1.209000  FAULT   power loss                           what the simulator did to the server
//! ```

pub mod check;
mod client;
mod context;
mod dice;
mod host;
mod net;
mod operator;
mod partition;
mod planted;
pub mod scenario;
mod server;
mod setup;
mod trace;
mod wire;
mod workload;
mod world;

pub use dice::Dice;
pub use planted::Planted;
pub use setup::Setup;
pub use world::{Failure, Run, Summary, run};
