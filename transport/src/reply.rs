//! What clients are told: the handshake's answer, every reply, and watch events (step ⑫ of the walk).
//!
//! Each function of [`encode`] appends one whole packet (length, header, body) to a vector that the connection
//! reuses, in one pass and without allocating. [`Response`] is the same as a value: what the client side decodes
//! into, and what a server may hand around when it does not write at once. A reply with an error has no body.

use crate::frame::{begin_frame, finish_frame};
use crate::jute::{JuteError, Reader, STAT_BYTES, STRING_BYTES_MIN, Writer};
use crate::opcode::Opcode;
use crate::request::{decode_multi_header, encode_multi_header};
use crate::xid;
use warren_storage::{AclRef, Code, IdRef, Stat};

/// The answer to a [`crate::ConnectRequest`], which has no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectResponse {
    /// 0.
    pub protocol_version: i32,
    /// Negotiated, ms; 0 or less tells the client that its session is expired.
    pub timeout_ms: i32,
    /// The session's id; 0 when expired.
    pub session: i64,
    /// What to show when re-attaching; zeros when expired.
    pub password: [u8; 16],
    /// Is the server read-only? `None` leaves the byte out, as it must be when the request came without its own
    /// (ZOOKEEPER-4814).
    pub read_only: Option<bool>,
}

impl ConnectResponse {
    /// Your session is expired, or that was not its password. The server closes the connection behind it.
    pub fn expired(read_only: Option<bool>) -> ConnectResponse {
        ConnectResponse { protocol_version: 0, timeout_ms: 0, session: 0, password: [0; 16], read_only }
    }

    /// Does it say that the session is expired?
    pub fn is_expired(&self) -> bool {
        self.timeout_ms <= 0
    }

    /// Append the whole packet.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = begin_frame(out);
        let mut w = Writer::new(out);
        w.int(self.protocol_version);
        w.int(self.timeout_ms);
        w.long(self.session);
        w.buffer(Some(&self.password));
        if let Some(read_only) = self.read_only {
            w.bool(read_only);
        }
        finish_frame(out, start);
    }

    /// From a packet. A password of another length than 16 is refused, since no server sends one.
    pub fn decode(packet: &[u8]) -> Result<ConnectResponse, JuteError> {
        let mut r = Reader::new(packet);
        let (protocol_version, timeout_ms, session) = (r.int()?, r.int()?, r.long()?);
        let password = r.buffer()?.ok_or(JuteError::Null("the password"))?;
        let password = password
            .try_into()
            .map_err(|_| JuteError::Unknown { what: "length of a password", value: password.len() as i32 })?;
        Ok(ConnectResponse { protocol_version, timeout_ms, session, password, read_only: r.bool().ok() })
    }
}

/// What stands before every reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyHeader {
    /// The request's.
    pub xid: i32,
    /// The last transaction that the server had applied; 0 for auth and SASL, −1 with UNIMPLEMENTED. Clients
    /// keep the highest above 0 and show it when they reconnect.
    pub zxid: i64,
    /// 0, or the number of a [`Code`].
    pub err: i32,
}

impl ReplyHeader {
    /// The header of a success.
    pub const fn ok(xid: i32, zxid: i64) -> ReplyHeader {
        ReplyHeader { xid, zxid, err: 0 }
    }

    /// The header of a refusal.
    pub const fn error(xid: i32, zxid: i64, code: Code) -> ReplyHeader {
        ReplyHeader { xid, zxid, err: code.wire() }
    }

    /// The header and the body behind it.
    pub fn decode(packet: &[u8]) -> Result<(ReplyHeader, &[u8]), JuteError> {
        let mut r = Reader::new(packet);
        let header = ReplyHeader { xid: r.int()?, zxid: r.long()?, err: r.int()? };
        Ok((header, r.rest()))
    }

    /// A header on the wire, bytes.
    pub const BYTES: usize = 16;

    fn write(&self, w: &mut Writer<'_>) {
        w.int(self.xid);
        w.long(self.zxid);
        w.int(self.err);
    }
}

/// What happened to a watched znode (ZooKeeper's `Watcher.Event.EventType`, the ones that servers send).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// It came to be.
    NodeCreated = 1,
    /// It is gone.
    NodeDeleted = 2,
    /// Its data was set.
    NodeDataChanged = 3,
    /// A child came or went.
    NodeChildrenChanged = 4,
}

impl EventType {
    /// From the wire; `None` for what no server sends.
    pub const fn from_wire(n: i32) -> Option<EventType> {
        Some(match n {
            1 => EventType::NodeCreated,
            2 => EventType::NodeDeleted,
            3 => EventType::NodeDataChanged,
            4 => EventType::NodeChildrenChanged,
            _ => return None,
        })
    }
}

/// The state that a watch event carries (ZooKeeper's `Watcher.Event.KeeperState`); servers always send
/// [`KeeperState::SYNC_CONNECTED`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeeperState(pub i32);

impl KeeperState {
    /// Connected.
    pub const SYNC_CONNECTED: KeeperState = KeeperState(3);
}

/// A watch fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatcherEvent<'a> {
    /// What happened.
    pub kind: EventType,
    /// [`KeeperState::SYNC_CONNECTED`].
    pub state: KeeperState,
    /// To which znode; the full path, chroot or not.
    pub path: &'a str,
}

impl<'a> WatcherEvent<'a> {
    /// From the body behind a header with [`xid::NOTIFICATION`].
    pub fn decode(body: &'a [u8]) -> Result<WatcherEvent<'a>, JuteError> {
        let mut r = Reader::new(body);
        let value = r.int()?;
        let kind = EventType::from_wire(value).ok_or(JuteError::Unknown { what: "type of event", value })?;
        let state = KeeperState(r.int()?);
        Ok(WatcherEvent { kind, state, path: r.string_required("the path")? })
    }
}

/// The encoders of the server's side. Each appends one packet.
pub mod encode {
    use super::*;

    fn packet(out: &mut Vec<u8>, header: ReplyHeader, body_bytes: usize, body: impl FnOnce(&mut Writer<'_>)) {
        out.reserve(4 + ReplyHeader::BYTES + body_bytes);
        let start = begin_frame(out);
        let mut w = Writer::new(out);
        header.write(&mut w);
        body(&mut w);
        finish_frame(out, start);
    }

    /// A header alone: every refusal, and the success of ping, delete, auth, setWatches, checkWatches,
    /// removeWatches, closeSession.
    pub fn empty(out: &mut Vec<u8>, header: ReplyHeader) {
        packet(out, header, 0, |_| {});
    }

    /// A refusal.
    pub fn error(out: &mut Vec<u8>, xid: i32, zxid: i64, code: Code) {
        empty(out, ReplyHeader::error(xid, zxid, code));
    }

    /// create (and sync, whose reply looks the same).
    pub fn path(out: &mut Vec<u8>, header: ReplyHeader, path: &str) {
        packet(out, header, 4 + path.len(), |w| w.string(path));
    }

    /// create2, createContainer, createTTL.
    pub fn path_and_stat(out: &mut Vec<u8>, header: ReplyHeader, path: &str, stat: &Stat) {
        packet(out, header, 4 + path.len() + STAT_BYTES, |w| {
            w.string(path);
            w.stat(stat);
        });
    }

    /// exists, setData, setACL.
    pub fn stat(out: &mut Vec<u8>, header: ReplyHeader, stat: &Stat) {
        packet(out, header, STAT_BYTES, |w| w.stat(stat));
    }

    /// getData and reconfig; `None` is null.
    pub fn data(out: &mut Vec<u8>, header: ReplyHeader, data: Option<&[u8]>, stat: &Stat) {
        packet(out, header, 4 + data.map_or(0, <[u8]>::len) + STAT_BYTES, |w| {
            w.buffer(data);
            w.stat(stat);
        });
    }

    /// getChildren (without a Stat), getChildren2 (with one), getEphemerals (without). Names are written as the
    /// iterator gives them.
    pub fn children<S: AsRef<str>>(
        out: &mut Vec<u8>,
        header: ReplyHeader,
        children: impl IntoIterator<Item = S>,
        stat: Option<&Stat>,
    ) {
        packet(out, header, 4 + STAT_BYTES, |w| {
            w.strings(children);
            if let Some(stat) = stat {
                w.stat(stat);
            }
        });
    }

    /// getChildren, getChildren2 and getEphemerals, name by name, for lists that are too long to be gathered first.
    #[derive(Debug)]
    #[must_use = "the packet is ended by finish()"]
    pub struct Names<'o> {
        out: &'o mut Vec<u8>,
        start: usize,
        count: i32,
    }

    impl<'o> Names<'o> {
        /// A list without a name yet.
        pub fn begin(out: &'o mut Vec<u8>, header: ReplyHeader) -> Names<'o> {
            let start = begin_frame(out);
            let mut w = Writer::new(out);
            header.write(&mut w);
            w.int(0);
            Names { out, start, count: 0 }
        }

        /// One more.
        pub fn name(&mut self, name: &str) {
            self.count += 1;
            Writer::new(self.out).string(name);
        }

        /// Bytes of the packet so far. What bounds a reply is the server's.
        pub fn bytes(&self) -> usize {
            self.out.len() - self.start
        }

        /// The list so far, as [`encoded_names`] takes it.
        pub fn encoded(&mut self) -> &[u8] {
            let at = self.start + 4 + ReplyHeader::BYTES;
            self.out[at..at + 4].copy_from_slice(&self.count.to_be_bytes());
            &self.out[at..]
        }

        /// The packet is whole; getChildren2 has a Stat behind its names.
        pub fn finish(mut self, stat: Option<&Stat>) {
            self.encoded();
            if let Some(stat) = stat {
                Writer::new(self.out).stat(stat);
            }
            finish_frame(self.out, self.start);
        }

        /// Take back all of the packet.
        pub fn abandon(self) {
            self.out.truncate(self.start);
        }
    }

    /// The same reply as by [`Names`], from a list that [`Names::encoded`] gave before.
    pub fn encoded_names(out: &mut Vec<u8>, header: ReplyHeader, names: &[u8], stat: Option<&Stat>) {
        packet(out, header, names.len() + STAT_BYTES, |w| {
            w.raw(names);
            if let Some(stat) = stat {
                w.stat(stat);
            }
        });
    }

    /// getACL.
    pub fn acl<'a>(
        out: &mut Vec<u8>,
        header: ReplyHeader,
        acl: impl ExactSizeIterator<Item = AclRef<'a>>,
        stat: &Stat,
    ) {
        packet(out, header, STAT_BYTES, |w| {
            w.acl(acl);
            w.stat(stat);
        });
    }

    /// getAllChildrenNumber.
    pub fn number(out: &mut Vec<u8>, header: ReplyHeader, n: i32) {
        packet(out, header, 4, |w| w.int(n));
    }

    /// addWatch, whose success is a body with the number 0.
    pub fn add_watch(out: &mut Vec<u8>, header: ReplyHeader) {
        number(out, header, 0);
    }

    /// sasl; `None` is null, which a failure is answered with, as body of an error header: the one reply that
    /// has both.
    pub fn sasl(out: &mut Vec<u8>, header: ReplyHeader, token: Option<&[u8]>) {
        packet(out, header, 4 + token.map_or(0, <[u8]>::len), |w| w.buffer(token));
    }

    /// whoAmI: the scheme and the user of each id. What of a digest's id may be shown is the server's to decide.
    pub fn who_am_i<'a>(
        out: &mut Vec<u8>,
        header: ReplyHeader,
        ids: impl ExactSizeIterator<Item = IdRef<'a>>,
    ) {
        packet(out, header, 4, |w| {
            w.length(ids.len());
            for id in ids {
                w.string(id.scheme);
                w.string(id.id);
            }
        });
    }

    /// A watch event. `zxid` is that of the transaction that caused it, −1 for one made while setWatches is
    /// answered (ZOOKEEPER-4655).
    pub fn event(out: &mut Vec<u8>, zxid: i64, kind: EventType, path: &str) {
        packet(out, ReplyHeader::ok(xid::NOTIFICATION, zxid), 12 + path.len(), |w| {
            w.int(kind as i32);
            w.int(KeeperState::SYNC_CONNECTED.0);
            w.string(path);
        });
    }

    /// multi and multiRead: results are appended one by one, and [`Multi::finish`] ends the packet.
    ///
    /// ```
    /// # use warren_transport::reply::{ReplyHeader, encode};
    /// # let (mut out, stat) = (Vec::new(), warren_storage::Stat::default());
    /// let mut multi = encode::Multi::begin(&mut out, ReplyHeader::ok(7, 0x1_0000_0002));
    /// multi.create("/a");
    /// multi.set_data(&stat);
    /// multi.finish();
    /// # assert_eq!(out.len(), 4 + 16 + (9 + 6) + (9 + 68) + 9);
    /// ```
    #[derive(Debug)]
    #[must_use = "the packet is ended by finish()"]
    pub struct Multi<'o> {
        out: &'o mut Vec<u8>,
        start: usize,
    }

    impl<'o> Multi<'o> {
        /// The header's err stays 0 when an operation fails: each result says for itself.
        pub fn begin(out: &'o mut Vec<u8>, header: ReplyHeader) -> Multi<'o> {
            let start = begin_frame(out);
            header.write(&mut Writer::new(out));
            Multi { out, start }
        }

        /// Bytes of the packet so far. A multiRead can ask for far more than it sends, so whoever answers one
        /// must look at this and stop ([`Multi::abandon`]).
        pub fn bytes(&self) -> usize {
            self.out.len() - self.start
        }

        fn result(&mut self, opcode: Opcode, err: i32) -> Writer<'_> {
            let mut w = Writer::new(self.out);
            encode_multi_header(&mut w, opcode.wire(), false, err);
            w
        }

        /// create.
        pub fn create(&mut self, path: &str) {
            self.result(Opcode::Create, 0).string(path);
        }

        /// create2, createContainer, createTTL: all three are answered as create2.
        pub fn create2(&mut self, path: &str, stat: &Stat) {
            let mut w = self.result(Opcode::Create2, 0);
            w.string(path);
            w.stat(stat);
        }

        /// delete.
        pub fn delete(&mut self) {
            self.result(Opcode::Delete, 0);
        }

        /// setData.
        pub fn set_data(&mut self, stat: &Stat) {
            self.result(Opcode::SetData, 0).stat(stat);
        }

        /// check.
        pub fn check(&mut self) {
            self.result(Opcode::Check, 0);
        }

        /// getData.
        pub fn data(&mut self, data: Option<&[u8]>, stat: &Stat) {
            let mut w = self.result(Opcode::GetData, 0);
            w.buffer(data);
            w.stat(stat);
        }

        /// getChildren.
        pub fn children<S: AsRef<str>>(&mut self, children: impl IntoIterator<Item = S>) {
            self.result(Opcode::GetChildren, 0).strings(children);
        }

        /// The result of an operation that failed or, in a multi that failed, of every operation: the number of
        /// its [`Code`], 0 for those before the failing one, −2 for those after it.
        pub fn error(&mut self, err: i32) {
            self.result(Opcode::Error, err).int(err);
        }

        /// End the packet.
        pub fn finish(self) {
            encode_multi_header(&mut Writer::new(self.out), -1, true, -1);
            finish_frame(self.out, self.start);
        }

        /// Take the packet back, as if it had not begun.
        pub fn abandon(self) {
            self.out.truncate(self.start);
        }
    }
}

/// The result of one operation of a multi or multiRead.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of the response of the same name")]
pub enum OpResult<'a> {
    /// create.
    Create { path: &'a str },
    /// create2, createContainer, createTTL.
    Create2 { path: &'a str, stat: Stat },
    /// delete.
    Delete,
    /// setData.
    SetData { stat: Stat },
    /// check.
    Check,
    /// getData.
    GetData { data: Option<&'a [u8]>, stat: Stat },
    /// getChildren.
    GetChildren { children: Vec<&'a str> },
    /// Not carried out: 0 when a later one failed, −2 when an earlier one did, else why it failed.
    Error { err: i32 },
}

/// The body of a reply without an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response<'a> {
    /// delete, ping, auth, setWatches, setWatches2, checkWatches, removeWatches, closeSession.
    Empty,
    /// create; sync.
    Path(&'a str),
    /// create2, createContainer, createTTL.
    PathAndStat(&'a str, Stat),
    /// exists, setData, setACL.
    Stat(Stat),
    /// getData, reconfig; `None` is null.
    Data(Option<&'a [u8]>, Stat),
    /// getACL.
    Acl(Vec<AclRef<'a>>, Stat),
    /// getChildren, getEphemerals.
    Children(Vec<&'a str>),
    /// getChildren2.
    ChildrenAndStat(Vec<&'a str>, Stat),
    /// getAllChildrenNumber; addWatch, for which it is 0.
    Number(i32),
    /// multi, multiRead.
    Multi(Vec<OpResult<'a>>),
    /// sasl; `None` is null.
    Token(Option<&'a [u8]>),
    /// whoAmI.
    ClientInfo(Vec<IdRef<'a>>),
}

impl<'a> Response<'a> {
    /// From the body of the reply, with err 0, to a request of this type.
    pub fn decode(opcode: Opcode, body: &'a [u8]) -> Result<Response<'a>, JuteError> {
        let mut r = Reader::new(body);
        Ok(match opcode {
            Opcode::Delete
            | Opcode::Ping
            | Opcode::Auth
            | Opcode::SetWatches
            | Opcode::SetWatches2
            | Opcode::CheckWatches
            | Opcode::RemoveWatches
            | Opcode::DeleteContainer
            | Opcode::CloseSession => Response::Empty,
            Opcode::Create => Response::Path(r.string_required("the path")?),
            Opcode::Sync => Response::Path(r.string()?.unwrap_or("")),
            Opcode::Create2 | Opcode::CreateContainer | Opcode::CreateTtl => {
                Response::PathAndStat(r.string_required("the path")?, r.stat()?)
            }
            Opcode::Exists | Opcode::SetData | Opcode::SetAcl => Response::Stat(r.stat()?),
            Opcode::GetData | Opcode::Reconfig => Response::Data(r.buffer()?, r.stat()?),
            Opcode::GetAcl => Response::Acl(r.acl()?, r.stat()?),
            Opcode::GetChildren | Opcode::GetEphemerals => Response::Children(r.strings("a child")?),
            Opcode::GetChildren2 => Response::ChildrenAndStat(r.strings("a child")?, r.stat()?),
            Opcode::GetAllChildrenNumber | Opcode::AddWatch => Response::Number(r.int()?),
            Opcode::Multi | Opcode::MultiRead => Response::Multi(decode_results(&mut r)?),
            Opcode::Sasl => Response::Token(r.buffer()?),
            Opcode::WhoAmI => {
                let count = r.count(2 * STRING_BYTES_MIN)?.unwrap_or(0);
                let mut ids = Vec::with_capacity(count);
                for _ in 0..count {
                    ids.push(IdRef { scheme: r.string()?.unwrap_or(""), id: r.string()?.unwrap_or("") });
                }
                Response::ClientInfo(ids)
            }
            Opcode::Error | Opcode::Notification | Opcode::Check | Opcode::CreateSession => {
                return Err(JuteError::Unknown { what: "request with a reply", value: opcode.wire() });
            }
        })
    }

    /// Append the whole packet. The functions of [`encode`] do the same without a value in between.
    pub fn encode(&self, header: ReplyHeader, out: &mut Vec<u8>) {
        match self {
            Response::Empty => encode::empty(out, header),
            Response::Path(path) => encode::path(out, header, path),
            Response::PathAndStat(path, stat) => encode::path_and_stat(out, header, path, stat),
            Response::Stat(stat) => encode::stat(out, header, stat),
            Response::Data(data, stat) => encode::data(out, header, *data, stat),
            Response::Acl(acl, stat) => encode::acl(out, header, acl.iter().copied(), stat),
            Response::Children(children) => encode::children(out, header, children, None),
            Response::ChildrenAndStat(children, stat) => {
                encode::children(out, header, children, Some(stat));
            }
            Response::Number(n) => encode::number(out, header, *n),
            Response::Multi(results) => {
                let mut multi = encode::Multi::begin(out, header);
                for result in results {
                    match result {
                        OpResult::Create { path } => multi.create(path),
                        OpResult::Create2 { path, stat } => multi.create2(path, stat),
                        OpResult::Delete => multi.delete(),
                        OpResult::SetData { stat } => multi.set_data(stat),
                        OpResult::Check => multi.check(),
                        OpResult::GetData { data, stat } => multi.data(*data, stat),
                        OpResult::GetChildren { children } => multi.children(children),
                        OpResult::Error { err } => multi.error(*err),
                    }
                }
                multi.finish();
            }
            Response::Token(token) => encode::sasl(out, header, *token),
            Response::ClientInfo(ids) => encode::who_am_i(out, header, ids.iter().copied()),
        }
    }
}

/// The code that has this number on the wire; `None` for 0, which is success, and for numbers that are none.
pub fn code(err: i32) -> Option<Code> {
    const CODES: &[Code] = &[
        Code::SystemError,
        Code::RuntimeInconsistency,
        Code::DataInconsistency,
        Code::ConnectionLoss,
        Code::MarshallingError,
        Code::Unimplemented,
        Code::OperationTimeout,
        Code::BadArguments,
        Code::UnknownSession,
        Code::NewConfigNoQuorum,
        Code::ReconfigInProgress,
        Code::ApiError,
        Code::NoNode,
        Code::NoAuth,
        Code::BadVersion,
        Code::NoChildrenForEphemerals,
        Code::NodeExists,
        Code::NotEmpty,
        Code::SessionExpired,
        Code::InvalidCallback,
        Code::InvalidAcl,
        Code::AuthFailed,
        Code::SessionMoved,
        Code::NotReadOnly,
        Code::EphemeralOnLocalSession,
        Code::NoWatcher,
        Code::RequestTimeout,
        Code::ReconfigDisabled,
        Code::SessionClosedRequireSaslAuth,
        Code::QuotaExceeded,
        Code::ThrottledOp,
    ];
    CODES.iter().copied().find(|code| code.wire() == err)
}

fn decode_results<'a>(r: &mut Reader<'a>) -> Result<Vec<OpResult<'a>>, JuteError> {
    let mut results = Vec::new();
    while let Some(opcode) = decode_multi_header(r)? {
        results.push(match Opcode::from_wire(opcode) {
            Some(Opcode::Create) => OpResult::Create { path: r.string_required("the path")? },
            Some(Opcode::Create2) => {
                OpResult::Create2 { path: r.string_required("the path")?, stat: r.stat()? }
            }
            Some(Opcode::Delete) => OpResult::Delete,
            Some(Opcode::SetData) => OpResult::SetData { stat: r.stat()? },
            Some(Opcode::Check) => OpResult::Check,
            Some(Opcode::GetData) => OpResult::GetData { data: r.buffer()?, stat: r.stat()? },
            Some(Opcode::GetChildren) => OpResult::GetChildren { children: r.strings("a child")? },
            Some(Opcode::Error) => OpResult::Error { err: r.int()? },
            _ => return Err(JuteError::Unknown { what: "result of a multi", value: opcode }),
        });
    }
    Ok(results)
}
