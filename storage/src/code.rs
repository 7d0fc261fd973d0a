//! ZooKeeper's error codes (`KeeperException.Code`).

use serde::{Deserialize, Serialize};

/// Why a request was refused, as the client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, thiserror::Error)]
#[repr(i32)]
#[allow(missing_docs, reason = "the message of each says what it is")]
pub enum Code {
    #[error("system error")]
    SystemError = -1,
    #[error("an earlier operation of the same multi failed")]
    RuntimeInconsistency = -2,
    #[error("data inconsistency")]
    DataInconsistency = -3,
    #[error("connection loss")]
    ConnectionLoss = -4,
    #[error("the request could not be decoded")]
    MarshallingError = -5,
    #[error("unimplemented")]
    Unimplemented = -6,
    #[error("operation timed out")]
    OperationTimeout = -7,
    #[error("bad arguments")]
    BadArguments = -8,
    #[error("unknown session")]
    UnknownSession = -12,
    #[error("no quorum of the new configuration is up to date")]
    NewConfigNoQuorum = -13,
    #[error("a reconfiguration is in progress")]
    ReconfigInProgress = -14,
    #[error("api error")]
    ApiError = -100,
    #[error("no node")]
    NoNode = -101,
    #[error("not authorised")]
    NoAuth = -102,
    #[error("version differs")]
    BadVersion = -103,
    #[error("ephemerals have no children")]
    NoChildrenForEphemerals = -108,
    #[error("node exists")]
    NodeExists = -110,
    #[error("node has children")]
    NotEmpty = -111,
    #[error("session expired")]
    SessionExpired = -112,
    #[error("invalid callback")]
    InvalidCallback = -113,
    #[error("invalid ACL")]
    InvalidAcl = -114,
    #[error("authentication failed")]
    AuthFailed = -115,
    #[error("session moved to another server")]
    SessionMoved = -118,
    #[error("this server is read-only")]
    NotReadOnly = -119,
    #[error("ephemeral on a local session")]
    EphemeralOnLocalSession = -120,
    #[error("no such watcher")]
    NoWatcher = -121,
    #[error("request timed out")]
    RequestTimeout = -122,
    #[error("reconfiguration is disabled")]
    ReconfigDisabled = -123,
    #[error("the session requires SASL authentication")]
    SessionClosedRequireSaslAuth = -124,
    #[error("quota exceeded")]
    QuotaExceeded = -125,
    #[error("throttled")]
    ThrottledOp = -127,
}

impl Code {
    /// The number on the wire.
    pub const fn wire(self) -> i32 {
        self as i32
    }
}
