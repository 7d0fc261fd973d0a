//! The shell: ZooKeeper's zkCli and what is beyond it, without terminal, sockets and clocks, which are in `io/shell/`.
//!
//! - `command`: what can be typed, declared once; `forms`: what it means in older forms. `words`: a line as
//!   words. `complete`: how a word may go on.
//! - `run`: carries a command out on a server that it is given. `failure`: why not.
//! - `answer`: what a command says, as text or JSON; `hexdump`, `acl`, `time`: parts of it.
//! - `address`: where the servers are. `watches`: what is set again on the next connection.

pub mod acl;
pub mod address;
pub mod answer;
pub mod command;
pub mod complete;
pub mod failure;
pub mod forms;
pub mod hexdump;
pub mod run;
pub mod time;
pub mod watches;
pub mod words;
