//! Sessions as they are replicated.

use serde::{Deserialize, Serialize};

/// A session's id as the wire has it. Never 0 for a session that exists.
pub type SessionId = i64;

/// What every server knows of a session; part of checkpoint and snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// The negotiated timeout in ms.
    pub timeout_ms: i32,
    /// What a client must show to re-attach.
    pub password: [u8; 16],
    /// Counts the attachments of this session to a server's incarnation; a write that carries an older one is
    /// a straggler from a former connection and is dropped.
    pub generation: u32,
    /// The server that the session is attached to.
    pub owner: u8,
    /// The last write applied within this generation; the next one carries this + 1.
    pub last_sequence: u64,
}
