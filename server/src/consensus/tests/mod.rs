//! Consensus, tried: alone (`lone`), each rule of driving the raft crate (`rules`), forwarding without raft (`forward`),
//! whole ensembles on a bad network (`ensemble`), and with peers
//! that talk nonsense (`hostile`).

mod cluster;
mod ensemble;
mod forward;
mod hostile;
mod lone;
mod membership;
mod rules;
