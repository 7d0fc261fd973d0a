//! What we believe, tried: the simulator, crash tests, benchmarks.

pub mod io;
pub mod sim;
