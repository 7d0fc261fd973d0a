//! How it is said: ZooKeeper's wire to clients, and our own between servers.
//!
//! The crate stands second in the house (`storage ← transport ← server ← ops ← tests`). It turns bytes into
//! requests on the way in (steps ① and ② of a write's walk) and results into bytes on the way out (step ⑫),
//! and decides nothing in between. It follows ZooKeeper 3.9 byte for byte; where ZooKeeper's treatment of bad
//! input is part of what clients can see, it is said at the item that carries it.
//!
//! - [`jute`]: the primitive types of the wire, bounded.
//! - [`frame`]: where a packet begins and ends.
//! - [`request`]: the handshake and every request, from bytes and to bytes.
//! - [`reply`]: the handshake's answer, every reply and every watch event, to bytes and from bytes.
//! - [`peer`]: what servers say to each other.
//! - [`client`]: the client's end of the protocol, without sockets; [`io::blocking`] puts it on one.

pub mod client;
pub mod frame;
pub mod io;
pub mod jute;
pub mod opcode;
pub mod peer;
pub mod reply;
pub mod request;

pub use frame::{FrameError, take_frame};
pub use jute::JuteError;
pub use opcode::Opcode;
pub use reply::{ConnectResponse, EventType, KeeperState, ReplyHeader, Response, WatcherEvent};
pub use request::{Change, ConnectRequest, DecodeError, Read, Refusal, Request, RequestHeader};

/// The xids that no client counts: they say what a packet is (ZooKeeper's `ClientCnxn`).
pub mod xid {
    /// A watch event, server to client.
    pub const NOTIFICATION: i32 = -1;
    /// A ping and its answer.
    pub const PING: i32 = -2;
    /// An auth packet and its answer.
    pub const AUTH: i32 = -4;
    /// A setWatches or setWatches2 and its answer.
    pub const SET_WATCHES: i32 = -8;
}
