//! Consensus, tried: alone (`lone`), each rule of driving the raft crate (`rules`), forwarding without raft (`forward`),
//! and whole ensembles on a bad network (`ensemble`).

mod cluster;
mod ensemble;
mod forward;
mod lone;
mod membership;
mod rules;
