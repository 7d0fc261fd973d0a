//! Links on real sockets of this machine.

mod harness;
mod lanes;
mod life;
mod strangers;
