//! What clients ask: the handshake, the header, and every request (step ② of the walk: frame → [`Request`]).
//!
//! Requests borrow from the packet. Those that change the tree are given in storage's own vocabulary
//! ([`warren_storage::Op`]), so that the server logs them as they are. Encoding is for the client side.
//!
//! What ZooKeeper 3.9 does with bad input is kept, and [`DecodeError::refusal`] says it:
//! a request type that no client may send is answered −6 and the connection closed
//! (`UnimplementedRequestProcessor`); a body that does not decode is answered −5 and the connection goes on
//! (`PrepRequestProcessor`, `FinalRequestProcessor`); a header or credentials that do not decode close the
//! connection without an answer (`NIOServerCnxn.readRequest`, `ZooKeeperServer.processPacket`). Bytes behind a
//! record are ignored.

use crate::frame::{begin_frame, finish_frame};
use crate::jute::{JuteError, Reader, Writer};
use crate::opcode::Opcode;
use warren_storage::{Code, CreateMode, Op};

/// The first packet of a connection, which has no header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectRequest<'a> {
    /// 0.
    pub protocol_version: i32,
    /// The highest zxid that the client was told; a server that is behind it closes the connection.
    pub last_zxid_seen: i64,
    /// The session timeout that the client would like, ms.
    pub timeout_ms: i32,
    /// 0 for a new session.
    pub session: i64,
    /// 16 bytes; null comes out as empty.
    pub password: &'a [u8],
    /// Will the client put up with a read-only server? `None` when the byte is missing (clients up to 3.3): it
    /// means no, and the answer must then come without the byte too.
    pub read_only: Option<bool>,
}

impl<'a> ConnectRequest<'a> {
    /// From a packet. On an error the connection is closed without an answer.
    pub fn decode(packet: &'a [u8]) -> Result<ConnectRequest<'a>, JuteError> {
        let mut r = Reader::new(packet);
        Ok(ConnectRequest {
            protocol_version: r.int()?,
            last_zxid_seen: r.long()?,
            timeout_ms: r.int()?,
            session: r.long()?,
            password: r.buffer()?.unwrap_or(&[]),
            read_only: r.bool().ok(),
        })
    }

    /// Append the whole packet.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = begin_frame(out);
        let mut w = Writer::new(out);
        w.int(self.protocol_version);
        w.long(self.last_zxid_seen);
        w.int(self.timeout_ms);
        w.long(self.session);
        w.buffer(Some(self.password));
        if let Some(read_only) = self.read_only {
            w.bool(read_only);
        }
        finish_frame(out, start);
    }
}

/// What stands before every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHeader {
    /// The client's number for it, which comes back in the reply; see [`crate::xid`] for the special ones.
    pub xid: i32,
    /// The number of an [`Opcode`], if it is one.
    pub opcode: i32,
}

impl RequestHeader {
    /// The header and the body behind it. On an error the connection is closed without an answer.
    pub fn decode(packet: &[u8]) -> Result<(RequestHeader, &[u8]), JuteError> {
        let mut r = Reader::new(packet);
        let header = RequestHeader { xid: r.int()?, opcode: r.int()? };
        Ok((header, r.rest()))
    }
}

/// A request that changes the tree, alone or within a multi.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// As what it was sent, which decides what the answer looks like: [`Opcode::Create`] is answered with the
    /// path, [`Opcode::Create2`], [`Opcode::CreateContainer`] and [`Opcode::CreateTtl`] with path and Stat.
    pub opcode: Opcode,
    /// What is asked.
    pub op: Op<'a>,
}

/// One operation of a multiRead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read<'a> {
    /// getData.
    GetData {
        /// Which node.
        path: &'a str,
    },
    /// getChildren.
    GetChildren {
        /// Which node.
        path: &'a str,
    },
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// create, create2, createContainer, createTTL, delete, setData, setACL.
    Change(Change<'a>),
    /// Changes (and checks), all or none.
    Multi(Vec<Change<'a>>),
    /// Reads, each answered by itself.
    MultiRead(Vec<Read<'a>>),
    /// Stat; with `watch`, a watch stays even when there is no such node.
    Exists {
        /// Which node.
        path: &'a str,
        /// Tell me when it changes.
        watch: bool,
    },
    /// Data and Stat.
    GetData {
        /// Which node.
        path: &'a str,
        /// Tell me when it changes.
        watch: bool,
    },
    /// ACL and Stat.
    GetAcl {
        /// Which node.
        path: &'a str,
    },
    /// Names of children.
    GetChildren {
        /// Which node.
        path: &'a str,
        /// Tell me when they change.
        watch: bool,
    },
    /// Names of children and Stat.
    GetChildren2 {
        /// Which node.
        path: &'a str,
        /// Tell me when they change.
        watch: bool,
    },
    /// How many nodes below, at any depth.
    GetAllChildrenNumber {
        /// Which node.
        path: &'a str,
    },
    /// The session's own ephemerals.
    GetEphemerals {
        /// Those below this; null, blank and `/` mean all.
        prefix: Option<&'a str>,
    },
    /// Catch up with the leader; the path is only echoed.
    Sync {
        /// Comes back. Null comes out as empty.
        path: &'a str,
    },
    /// I am alive.
    Ping,
    /// Change the ensemble.
    Reconfig {
        /// `server.N=…` entries to add or replace, separated by commas.
        joining: Option<&'a str>,
        /// Ids to remove, separated by commas.
        leaving: Option<&'a str>,
        /// Instead of the two others: the whole new list.
        members: Option<&'a str>,
        /// The version of the configuration that this is meant for; −1 for any.
        config_id: i64,
    },
    /// Is there a watch of this type?
    CheckWatches {
        /// Which node.
        path: &'a str,
        /// Which type.
        watcher: WatcherType,
    },
    /// Remove watches of this type.
    RemoveWatches {
        /// Which node.
        path: &'a str,
        /// Which type.
        watcher: WatcherType,
    },
    /// Watch until removed.
    AddWatch {
        /// Which node; it need not exist.
        path: &'a str,
        /// How.
        mode: AddWatchMode,
    },
    /// Watch again what was watched before the reconnect ([`Opcode::SetWatches`] and
    /// [`Opcode::SetWatches2`], which adds the last two lists).
    SetWatches(SetWatches<'a>),
    /// Here are my credentials.
    Auth {
        /// Ignored by ZooKeeper; 0.
        kind: i32,
        /// Of the authentication; null comes out as empty, and is as unknown.
        scheme: &'a str,
        /// What the scheme wants to see.
        auth: Option<&'a [u8]>,
    },
    /// A token of a SASL exchange.
    Sasl {
        /// Empty first for some mechanisms.
        token: &'a [u8],
    },
    /// Whom do you take me for?
    WhoAmI,
    /// Good bye: ephemerals go, and the server closes the connection behind its reply.
    CloseSession,
}

/// The watches of a client that reconnects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetWatches<'a> {
    /// What changed after this zxid is told at once.
    pub relative_zxid: i64,
    /// Paths with a watch from getData, or from exists on a node that was there.
    pub data: Vec<&'a str>,
    /// Paths with a watch from exists on a node that was not there.
    pub exist: Vec<&'a str>,
    /// Paths with a watch from getChildren.
    pub child: Vec<&'a str>,
    /// Both `None` in a [`Opcode::SetWatches`]; the paths with a persistent watch, and those with a persistent
    /// recursive one.
    pub persistent: Option<(Vec<&'a str>, Vec<&'a str>)>,
}

/// Which watches checkWatches and removeWatches speak of (ZooKeeper's `Watcher.WatcherType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WatcherType {
    /// From getChildren.
    Children = 1,
    /// From getData and exists.
    Data = 2,
    /// All.
    Any = 3,
    /// From addWatch, persistent.
    Persistent = 4,
    /// From addWatch, persistent recursive.
    PersistentRecursive = 5,
}

impl WatcherType {
    /// From the wire. ZooKeeper answers −5 to any other number.
    pub const fn from_wire(n: i32) -> Option<WatcherType> {
        Some(match n {
            1 => WatcherType::Children,
            2 => WatcherType::Data,
            3 => WatcherType::Any,
            4 => WatcherType::Persistent,
            5 => WatcherType::PersistentRecursive,
            _ => return None,
        })
    }
}

/// How addWatch watches (ZooKeeper's `AddWatchMode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AddWatchMode {
    /// The node's data and children.
    Persistent = 0,
    /// The node and everything below.
    PersistentRecursive = 1,
}

impl AddWatchMode {
    /// From the wire. ZooKeeper answers −5 to any other number.
    pub const fn from_wire(n: i32) -> Option<AddWatchMode> {
        Some(match n {
            0 => AddWatchMode::Persistent,
            1 => AddWatchMode::PersistentRecursive,
            _ => return None,
        })
    }
}

/// Why a request is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A type that no client may send: an unknown number, or 0, 13 (outside a multi), 20, −1, −10.
    #[error("{0} is no request that a client may send")]
    Opcode(i32),
    /// The body is not the type's record.
    #[error("the body of the request is malformed")]
    Body(#[source] JuteError),
    /// Credentials (auth, sasl) that are not their record.
    #[error("the credentials are malformed")]
    Credentials(#[source] JuteError),
    /// setData or setACL without a path. ZooKeeper validates these paths first and so answers −8; for the other
    /// requests a null path is a malformed body.
    #[error("the path is null")]
    NullPath,
    /// A create with flags that are no mode, or a mode and a TTL that do not go together.
    #[error("create flags {0} mean nothing here")]
    CreateFlags(i32),
    /// An operation that does not belong in a multi or multiRead.
    #[error("{0} is no operation of this multi")]
    MultiOpcode(i32),
}

/// What the server does about a [`DecodeError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Reply with this code, in the session's order; the connection goes on.
    Reply(Code),
    /// Reply with this code and zxid −1, then close.
    ReplyAndClose(Code),
    /// Close without a reply.
    Close,
}

impl DecodeError {
    /// What ZooKeeper does about it.
    pub fn refusal(&self) -> Refusal {
        match self {
            DecodeError::Opcode(_) => Refusal::ReplyAndClose(Code::Unimplemented),
            DecodeError::Credentials(_) => Refusal::Close,
            // ZooKeeper reads such a string as one with U+FFFD, which its path rules then refuse with −8.
            DecodeError::Body(JuteError::Utf8) => Refusal::Reply(Code::BadArguments),
            DecodeError::Body(_) | DecodeError::MultiOpcode(_) => Refusal::Reply(Code::MarshallingError),
            DecodeError::NullPath | DecodeError::CreateFlags(_) => Refusal::Reply(Code::BadArguments),
        }
    }
}

impl From<JuteError> for DecodeError {
    fn from(e: JuteError) -> DecodeError {
        DecodeError::Body(e)
    }
}

/// Is this decoded on its own or within a multi? Some errors differ.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Alone,
    InMulti,
}

impl<'a> Request<'a> {
    /// From the header's type and the body behind the header.
    pub fn decode(opcode: i32, body: &'a [u8]) -> Result<Request<'a>, DecodeError> {
        let known = Opcode::from_wire(opcode).ok_or(DecodeError::Opcode(opcode))?;
        let mut r = Reader::new(body);
        Ok(match known {
            Opcode::Create
            | Opcode::Create2
            | Opcode::CreateContainer
            | Opcode::CreateTtl
            | Opcode::Delete
            | Opcode::SetData
            | Opcode::SetAcl => Request::Change(Change::decode(known, &mut r, Place::Alone)?),
            Opcode::Exists => Request::Exists { path: path(&mut r)?, watch: r.bool()? },
            Opcode::GetData => Request::GetData { path: path(&mut r)?, watch: r.bool()? },
            Opcode::GetAcl => Request::GetAcl { path: path(&mut r)? },
            Opcode::GetChildren => Request::GetChildren { path: path(&mut r)?, watch: r.bool()? },
            Opcode::GetChildren2 => Request::GetChildren2 { path: path(&mut r)?, watch: r.bool()? },
            Opcode::GetAllChildrenNumber => Request::GetAllChildrenNumber { path: path(&mut r)? },
            Opcode::GetEphemerals => Request::GetEphemerals { prefix: r.string()? },
            Opcode::Sync => Request::Sync { path: r.string()?.unwrap_or("") },
            Opcode::Ping => Request::Ping,
            Opcode::WhoAmI => Request::WhoAmI,
            Opcode::CloseSession => Request::CloseSession,
            Opcode::Multi => Request::Multi(decode_multi(&mut r, decode_change_of_multi)?),
            Opcode::MultiRead => Request::MultiRead(decode_multi(&mut r, decode_read_of_multi)?),
            Opcode::Reconfig => Request::Reconfig {
                joining: r.string()?,
                leaving: r.string()?,
                members: r.string()?,
                config_id: r.long()?,
            },
            Opcode::CheckWatches => {
                Request::CheckWatches { path: path(&mut r)?, watcher: watcher_type(&mut r)? }
            }
            Opcode::RemoveWatches => {
                Request::RemoveWatches { path: path(&mut r)?, watcher: watcher_type(&mut r)? }
            }
            Opcode::AddWatch => {
                let path = path(&mut r)?;
                let value = r.int()?;
                let mode = AddWatchMode::from_wire(value)
                    .ok_or(JuteError::Unknown { what: "mode of addWatch", value })?;
                Request::AddWatch { path, mode }
            }
            Opcode::SetWatches | Opcode::SetWatches2 => Request::SetWatches(SetWatches {
                relative_zxid: r.long()?,
                data: r.strings("a data watch")?,
                exist: r.strings("an exist watch")?,
                child: r.strings("a child watch")?,
                persistent: match known {
                    Opcode::SetWatches => None,
                    _ => Some((r.strings("a persistent watch")?, r.strings("a recursive watch")?)),
                },
            }),
            Opcode::Auth => decode_auth(&mut r).map_err(DecodeError::Credentials)?,
            Opcode::Sasl => match r.buffer().and_then(|token| token.ok_or(JuteError::Null("the token"))) {
                Ok(token) => Request::Sasl { token },
                Err(e) => return Err(DecodeError::Credentials(e)),
            },
            Opcode::Error
            | Opcode::Notification
            | Opcode::Check
            | Opcode::DeleteContainer
            | Opcode::CreateSession => return Err(DecodeError::Opcode(opcode)),
        })
    }

    /// The type that the header carries for it.
    pub fn opcode(&self) -> Opcode {
        match self {
            Request::Change(change) => change.opcode,
            Request::Multi(_) => Opcode::Multi,
            Request::MultiRead(_) => Opcode::MultiRead,
            Request::Exists { .. } => Opcode::Exists,
            Request::GetData { .. } => Opcode::GetData,
            Request::GetAcl { .. } => Opcode::GetAcl,
            Request::GetChildren { .. } => Opcode::GetChildren,
            Request::GetChildren2 { .. } => Opcode::GetChildren2,
            Request::GetAllChildrenNumber { .. } => Opcode::GetAllChildrenNumber,
            Request::GetEphemerals { .. } => Opcode::GetEphemerals,
            Request::Sync { .. } => Opcode::Sync,
            Request::Ping => Opcode::Ping,
            Request::Reconfig { .. } => Opcode::Reconfig,
            Request::CheckWatches { .. } => Opcode::CheckWatches,
            Request::RemoveWatches { .. } => Opcode::RemoveWatches,
            Request::AddWatch { .. } => Opcode::AddWatch,
            Request::SetWatches(SetWatches { persistent: None, .. }) => Opcode::SetWatches,
            Request::SetWatches(SetWatches { persistent: Some(_), .. }) => Opcode::SetWatches2,
            Request::Auth { .. } => Opcode::Auth,
            Request::Sasl { .. } => Opcode::Sasl,
            Request::WhoAmI => Opcode::WhoAmI,
            Request::CloseSession => Opcode::CloseSession,
        }
    }

    /// Append the whole packet: length, header, body.
    pub fn encode(&self, xid: i32, out: &mut Vec<u8>) {
        let start = begin_frame(out);
        let mut w = Writer::new(out);
        w.int(xid);
        w.int(self.opcode().wire());
        self.encode_body(&mut w);
        finish_frame(out, start);
    }

    fn encode_body(&self, w: &mut Writer<'_>) {
        match self {
            Request::Change(change) => change.encode(w),
            Request::Multi(changes) => {
                for change in changes {
                    encode_multi_header(w, change.opcode.wire(), false, -1);
                    change.encode(w);
                }
                encode_multi_header(w, -1, true, -1);
            }
            Request::MultiRead(reads) => {
                for read in reads {
                    let (opcode, path) = match *read {
                        Read::GetData { path } => (Opcode::GetData, path),
                        Read::GetChildren { path } => (Opcode::GetChildren, path),
                    };
                    encode_multi_header(w, opcode.wire(), false, -1);
                    w.string(path);
                    w.bool(false);
                }
                encode_multi_header(w, -1, true, -1);
            }
            Request::Exists { path, watch }
            | Request::GetData { path, watch }
            | Request::GetChildren { path, watch }
            | Request::GetChildren2 { path, watch } => {
                w.string(path);
                w.bool(*watch);
            }
            Request::GetAcl { path } | Request::GetAllChildrenNumber { path } | Request::Sync { path } => {
                w.string(path);
            }
            Request::GetEphemerals { prefix } => w.string_or_null(*prefix),
            Request::Ping | Request::WhoAmI | Request::CloseSession => {}
            Request::Reconfig { joining, leaving, members, config_id } => {
                w.string_or_null(*joining);
                w.string_or_null(*leaving);
                w.string_or_null(*members);
                w.long(*config_id);
            }
            Request::CheckWatches { path, watcher } | Request::RemoveWatches { path, watcher } => {
                w.string(path);
                w.int(*watcher as i32);
            }
            Request::AddWatch { path, mode } => {
                w.string(path);
                w.int(*mode as i32);
            }
            Request::SetWatches(watches) => {
                w.long(watches.relative_zxid);
                w.strings(&watches.data);
                w.strings(&watches.exist);
                w.strings(&watches.child);
                if let Some((persistent, recursive)) = &watches.persistent {
                    w.strings(persistent);
                    w.strings(recursive);
                }
            }
            Request::Auth { kind, scheme, auth } => {
                w.int(*kind);
                w.string(scheme);
                w.buffer(*auth);
            }
            Request::Sasl { token } => w.buffer(Some(token)),
        }
    }
}

impl<'a> Change<'a> {
    /// A change as a client would send it, with the opcode that goes with its kind. Creates come back with a
    /// Stat; for one without, set [`Change::opcode`] to [`Opcode::Create`].
    pub fn new(op: Op<'a>) -> Change<'a> {
        let opcode = match &op {
            Op::Create { mode: CreateMode::Container, .. } => Opcode::CreateContainer,
            Op::Create { mode: CreateMode::Ttl | CreateMode::TtlSequential, .. } => Opcode::CreateTtl,
            Op::Create { .. } => Opcode::Create2,
            Op::Delete { .. } => Opcode::Delete,
            Op::SetData { .. } => Opcode::SetData,
            Op::SetAcl { .. } => Opcode::SetAcl,
            Op::Check { .. } => Opcode::Check,
        };
        Change { opcode, op }
    }

    fn decode(opcode: Opcode, r: &mut Reader<'a>, place: Place) -> Result<Change<'a>, DecodeError> {
        let op = match opcode {
            Opcode::Create | Opcode::Create2 | Opcode::CreateContainer | Opcode::CreateTtl => {
                return Change::decode_create(opcode, r, place);
            }
            Opcode::Delete => Op::Delete { path: path(r)?, version: r.int()? },
            Opcode::SetData => {
                let (path, data, version) = (r.string()?, r.buffer()?, r.int()?);
                Op::SetData { path: path_validated_first(path, place)?, data, version }
            }
            Opcode::SetAcl => {
                let (path, acl, version) = (r.string()?, r.acl()?, r.int()?);
                Op::SetAcl { path: path_validated_first(path, place)?, acl, version }
            }
            Opcode::Check => {
                let (path, version) = (r.string()?, r.int()?);
                Op::Check { path: path_validated_first(path, place)?, version }
            }
            _ => return Err(DecodeError::MultiOpcode(opcode.wire())),
        };
        Ok(Change { opcode, op })
    }

    /// The four kinds of create. Flags and TTL that do not go together are −8 alone and, since ZooKeeper finds
    /// out while it decodes, −5 for the whole of a multi.
    fn decode_create(sent_as: Opcode, r: &mut Reader<'a>, place: Place) -> Result<Change<'a>, DecodeError> {
        let (path, data, acl, flags) = (r.string()?, r.buffer()?, r.acl()?, r.int()?);
        let ttl = if sent_as == Opcode::CreateTtl { r.long()? } else { 0 };
        let path = path.ok_or(JuteError::Null("the path"))?;
        let wrong = match place {
            Place::Alone => DecodeError::CreateFlags(flags),
            Place::InMulti => JuteError::Unknown { what: "create flag here", value: flags }.into(),
        };
        let mode = CreateMode::from_flags(flags).ok_or(wrong)?;
        let wants_ttl = matches!(mode, CreateMode::Ttl | CreateMode::TtlSequential);
        let (opcode, mode) = match (sent_as, mode) {
            (Opcode::CreateTtl, _) if wants_ttl => (Opcode::CreateTtl, mode),
            // Within a multi, ZooKeeper makes a plain create of a createTTL whose flags ask for no TTL.
            (Opcode::CreateTtl, CreateMode::Container) if place == Place::InMulti => {
                (Opcode::CreateContainer, mode)
            }
            (Opcode::CreateTtl, _) if place == Place::InMulti => (Opcode::Create, mode),
            (Opcode::CreateTtl, _) => return Err(wrong),
            (_, _) if wants_ttl => return Err(wrong),
            (Opcode::CreateContainer, CreateMode::Container | CreateMode::Persistent) => {
                (Opcode::CreateContainer, CreateMode::Container)
            }
            (Opcode::CreateContainer, _) => return Err(wrong),
            // Within a multi the mode wins over the opcode, and so the answer has a Stat.
            (_, CreateMode::Container) if place == Place::InMulti => (Opcode::CreateContainer, mode),
            (_, _) => (sent_as, mode),
        };
        let ttl = if wants_ttl { ttl } else { 0 };
        Ok(Change { opcode, op: Op::Create { path, data, acl, mode, ttl } })
    }

    fn encode(&self, w: &mut Writer<'_>) {
        match &self.op {
            Op::Create { path, data, acl, mode, ttl } => {
                w.string(path);
                w.buffer(*data);
                w.acl(acl.iter().copied());
                w.int(*mode as i32);
                if self.opcode == Opcode::CreateTtl {
                    w.long(*ttl);
                }
            }
            Op::Delete { path, version } | Op::Check { path, version } => {
                w.string(path);
                w.int(*version);
            }
            Op::SetData { path, data, version } => {
                w.string(path);
                w.buffer(*data);
                w.int(*version);
            }
            Op::SetAcl { path, acl, version } => {
                w.string(path);
                w.acl(acl.iter().copied());
                w.int(*version);
            }
        }
    }
}

fn path<'a>(r: &mut Reader<'a>) -> Result<&'a str, JuteError> {
    r.string_required("the path")
}

/// A path that ZooKeeper validates before anything else, so that null is −8; within a multi it looks at all the
/// paths earlier, and null is −5 for the whole.
fn path_validated_first(path: Option<&str>, place: Place) -> Result<&str, DecodeError> {
    path.ok_or(match place {
        Place::Alone => DecodeError::NullPath,
        Place::InMulti => JuteError::Null("the path").into(),
    })
}

fn watcher_type(r: &mut Reader<'_>) -> Result<WatcherType, JuteError> {
    let value = r.int()?;
    WatcherType::from_wire(value).ok_or(JuteError::Unknown { what: "type of watch", value })
}

fn decode_auth<'a>(r: &mut Reader<'a>) -> Result<Request<'a>, JuteError> {
    Ok(Request::Auth { kind: r.int()?, scheme: r.string()?.unwrap_or(""), auth: r.buffer()? })
}

/// `MultiHeader`: it stands before each operation, and once more, done, behind the last.
pub(crate) fn encode_multi_header(w: &mut Writer<'_>, opcode: i32, done: bool, err: i32) {
    w.int(opcode);
    w.bool(done);
    w.int(err);
}

/// The type of the next operation; `None` behind the last one.
pub(crate) fn decode_multi_header(r: &mut Reader<'_>) -> Result<Option<i32>, JuteError> {
    let opcode = r.int()?;
    let done = r.bool()?;
    r.int()?;
    Ok((!done).then_some(opcode))
}

fn decode_multi<'a, T>(
    r: &mut Reader<'a>,
    decode_op: impl Fn(Option<Opcode>, i32, &mut Reader<'a>) -> Result<T, DecodeError>,
) -> Result<Vec<T>, DecodeError> {
    // Grows with what is found: each operation has at least a header and a path.
    let mut ops = Vec::new();
    while let Some(opcode) = decode_multi_header(r)? {
        ops.push(decode_op(Opcode::from_wire(opcode), opcode, r)?);
    }
    Ok(ops)
}

fn decode_change_of_multi<'a>(
    opcode: Option<Opcode>,
    number: i32,
    r: &mut Reader<'a>,
) -> Result<Change<'a>, DecodeError> {
    match opcode {
        Some(
            opcode @ (Opcode::Create
            | Opcode::Create2
            | Opcode::CreateContainer
            | Opcode::CreateTtl
            | Opcode::Delete
            | Opcode::SetData
            | Opcode::Check),
        ) => Change::decode(opcode, r, Place::InMulti),
        _ => Err(DecodeError::MultiOpcode(number)),
    }
}

fn decode_read_of_multi<'a>(
    opcode: Option<Opcode>,
    number: i32,
    r: &mut Reader<'a>,
) -> Result<Read<'a>, DecodeError> {
    // The watch flag is read and dropped: neither kind of multi sets watches.
    let read = match opcode {
        Some(Opcode::GetData) => Read::GetData { path: path(r)? },
        Some(Opcode::GetChildren) => Read::GetChildren { path: path(r)? },
        _ => return Err(DecodeError::MultiOpcode(number)),
    };
    r.bool()?;
    Ok(read)
}
