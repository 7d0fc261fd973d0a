//! What is logged: requests, as they were asked, with everything stamped that must not differ between servers.
//!
//! A connection encodes its write once ([`Logged::encode`]); the leader packs many of them into one log
//! [`Entry`]; apply decodes them in place, without copying. Apply reads nothing but state and entry, so every
//! setting that bears on a result travels in [`Rules`], and every identity that bears on a right travels in
//! [`Logged::ids`].

use crate::members::{Change, Members};
use crate::{AclRef, Code, IdRef, SessionId};
use serde::{Deserialize, Serialize};

/// Names one write of one session, so that it is applied at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tag {
    /// Whose write.
    pub session: SessionId,
    /// Which attachment of the session to a server ([`crate::SessionRow::generation`]).
    pub generation: u32,
    /// Counts the writes of that attachment, from 1.
    pub sequence: u64,
}

/// ZooKeeper's create modes, with their flag on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "ZooKeeper's own names")]
pub enum CreateMode {
    Persistent = 0,
    Ephemeral = 1,
    PersistentSequential = 2,
    EphemeralSequential = 3,
    Container = 4,
    Ttl = 5,
    TtlSequential = 6,
}

impl CreateMode {
    /// From the wire's flags; `None` for a number that is no mode.
    pub const fn from_flags(flags: i32) -> Option<CreateMode> {
        Some(match flags {
            0 => CreateMode::Persistent,
            1 => CreateMode::Ephemeral,
            2 => CreateMode::PersistentSequential,
            3 => CreateMode::EphemeralSequential,
            4 => CreateMode::Container,
            5 => CreateMode::Ttl,
            6 => CreateMode::TtlSequential,
            _ => return None,
        })
    }

    /// Does the server append a number to the path?
    pub const fn is_sequential(self) -> bool {
        matches!(
            self,
            CreateMode::PersistentSequential | CreateMode::EphemeralSequential | CreateMode::TtlSequential
        )
    }

    /// Does the node end with its session?
    pub const fn is_ephemeral(self) -> bool {
        matches!(self, CreateMode::Ephemeral | CreateMode::EphemeralSequential)
    }
}

/// One change of the tree, alone or as part of a multi. Paths are as the client sent them: the order of checks
/// decides which error an invalid one gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op<'a> {
    /// create, create2, createContainer, createTTL.
    Create {
        /// Full path; the prefix of one for a sequential mode.
        path: &'a str,
        /// `None` is null, which is not the same as empty.
        #[serde(borrow, serialize_with = "whole::data")]
        data: Option<&'a [u8]>,
        /// As sent; `auth` is expanded from [`Logged::ids`] when applied.
        #[serde(borrow)]
        acl: Vec<AclRef<'a>>,
        /// Kind of node.
        mode: CreateMode,
        /// ms, for the TTL modes.
        ttl: i64,
    },
    /// delete.
    Delete {
        /// Which node.
        path: &'a str,
        /// Its version, or −1 for any.
        version: i32,
    },
    /// setData.
    SetData {
        /// Which node.
        path: &'a str,
        /// `None` is null.
        #[serde(borrow, serialize_with = "whole::data")]
        data: Option<&'a [u8]>,
        /// Its version, or −1 for any.
        version: i32,
    },
    /// setACL.
    SetAcl {
        /// Which node.
        path: &'a str,
        /// As sent.
        #[serde(borrow)]
        acl: Vec<AclRef<'a>>,
        /// Its aversion, or −1 for any.
        version: i32,
    },
    /// check, only within a multi.
    Check {
        /// Which node.
        path: &'a str,
        /// Its version, or −1 for any (it must exist all the same).
        version: i32,
    },
}

/// Which kind of node the leader's timer sweeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SweepKind {
    /// An empty container.
    Container,
    /// A TTL node whose time is over.
    Ttl,
}

/// What one log record asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command<'a> {
    /// One change.
    Single(#[serde(borrow)] Op<'a>),
    /// All or nothing, under one zxid.
    Multi(#[serde(borrow)] Vec<Op<'a>>),
    /// A new session; id and password are stamped by the leader. Refused when the id exists.
    CreateSession {
        /// Never 0.
        session: SessionId,
        /// Negotiated, ms.
        timeout_ms: i32,
        /// Random.
        password: [u8; 16],
        /// The server that asked.
        owner: u8,
        /// That server's run, so that a late copy of the request is known for one.
        incarnation: u64,
        /// Counts the requests of that run; the answer is matched by it.
        request: u64,
    },
    /// A session attaches to a server: its generation rises by one, its sequence restarts. Nothing happens when the
    /// generation is no longer this one: the request was applied before, or is a late copy that must not take the
    /// session away from who has it now.
    MoveSession {
        /// Which session.
        session: SessionId,
        /// As the server that asks knew it.
        generation: u32,
        /// The password that the client showed was checked against this.
        password: [u8; 16],
        /// The server that asked.
        owner: u8,
        /// That server's run.
        incarnation: u64,
        /// Counts the requests of that run.
        request: u64,
        /// The client may ask for another timeout when it re-attaches; ms.
        timeout_ms: i32,
    },
    /// The client closes its session. Carries a tag like any other write.
    CloseSession,
    /// The leader found the session silent for longer than its timeout. Nothing happens when the generation or the
    /// epoch is no longer this one: what a leader heard of a session says nothing once another has begun.
    Expire {
        /// Which session.
        session: SessionId,
        /// As the leader knew it.
        generation: u32,
        /// The leader's own.
        epoch: u32,
    },
    /// The leader's timer found a container or TTL node to delete; rechecked when applied.
    Sweep {
        /// Which node.
        path: &'a str,
        /// It must still be this very node…
        czxid: i64,
        /// …whose children did not change.
        pzxid: i64,
        /// Why it goes.
        kind: SweepKind,
    },
    /// The membership is to change. A client's has a tag, an operator's says who is to be answered, the leader's own has
    /// neither.
    Reconfigure {
        /// Who asked for it, if it is an operator at one of the servers.
        asker: Option<Asker>,
        /// As it was asked for.
        change: Change,
        /// What the leader decided when it proposed it; `None` only on the way to the leader.
        decided: Option<Decided>,
    },
}

/// A request that a server makes for its operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Asker {
    /// The server that asks.
    pub server: u8,
    /// Its run.
    pub incarnation: u64,
    /// Counts the requests of that run.
    pub request: u64,
}

/// What became of a [`Change`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decided {
    /// It is made so. Consensus goes by it, so it holds whoever asked and whether anybody can still be answered.
    Made(Table),
    /// Refused.
    Refused(Code),
}

/// Who belongs to the ensemble, as it is written down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Who; their version is the zxid at which this is applied.
    pub members: Members,
    /// What `/zookeeper/config` says of them, but for the version: lines, each with its end.
    pub lines: String,
}

/// A command with its tag and the identities of who sent it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logged<'a> {
    /// `None` for what the server itself asks (sessions opened, moved, expired; sweeps).
    pub tag: Option<Tag>,
    /// Ids that the connection is authenticated as, `super` included; stamped by the server that received it.
    #[serde(borrow)]
    pub ids: Vec<IdRef<'a>>,
    /// What is asked.
    #[serde(borrow)]
    pub command: Command<'a>,
}

/// Settings that bear on results; the leader's travel with each entry so that one differing configuration file
/// cannot make trees diverge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// Check no ACL at all (`skipACL`).
    pub skip_acl: bool,
    /// Hard quotas refuse (`enforceQuota`).
    pub enforce_quota: bool,
    /// TTL nodes may be created (`extendedTypesEnabled`).
    pub extended_types: bool,
    /// A znode's data, bytes at most.
    pub data_bytes_max: u32,
    /// Elements in a path at most.
    pub path_depth_max: u16,
    /// Memory of all access control lists that differ, bytes at most: they are resident, each once.
    pub acl_bytes_max: u64,
    /// The disk is below its reserve: what grows data is refused.
    pub refuse_growth: bool,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            skip_acl: false,
            enforce_quota: true,
            extended_types: true,
            data_bytes_max: 1 << 20,
            path_depth_max: 1_000,
            acl_bytes_max: 32 << 20,
            refuse_growth: false,
        }
    }
}

/// Whose requests a batch carries, so that a server knows which of those it forwarded are in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The server that took them from its clients.
    pub server: u8,
    /// Its run; 0 for what the leader's own timers ask, which nobody numbers.
    pub incarnation: u64,
    /// The number of the last of them. Those of a batch follow each other, so the first has the number
    /// `last + 1` less the number of commands.
    pub last: u64,
}

impl Origin {
    /// Of what the leader's own timers ask.
    pub const fn timers(server: u8) -> Origin {
        Origin { server, incarnation: 0, last: 0 }
    }
}

/// One entry of the replicated log: what raft carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry<'a> {
    /// The first entry of a leader, and what it logs before the counter overflows: the zxid becomes
    /// `(epoch + 1, 0)`. The number is not said, so that the zxid stays a pure function of the committed log.
    NewEpoch {
        /// The leader's wall clock, ms since 1970.
        time_ms: i64,
    },
    /// Many commands of one origin, one zxid each, in order.
    Batch {
        /// Whose they are; first, for [`Entry::origin`].
        origin: Origin,
        /// The leader's wall clock, ms since 1970; every command of the batch happens at this time.
        time_ms: i64,
        /// The leader's settings.
        rules: Rules,
        /// Each a [`Logged`], encoded by [`Logged::encode`].
        #[serde(borrow, serialize_with = "whole::commands")]
        commands: Vec<&'a [u8]>,
    },
    /// A server took part for the first time, with this store. Takes no zxid; the first one recorded for a disk stays, and
    /// that of a disk which the server no longer has is not recorded.
    Introduce {
        /// Its id.
        server: u8,
        /// Which of its disks.
        disk: u32,
        /// See [`crate::Tree::store_id`].
        store_id: u64,
    },
    /// Who founded the ensemble. Takes no zxid; the first one stays.
    Found {
        /// The leader's wall clock, ms since 1970.
        time_ms: i64,
        /// Version 0.
        table: Table,
    },
    /// An operator gave up all other servers ([`Members`] has this one alone): the epoch rises by so many, so that no other
    /// server's history is taken for this one, and the zxid becomes `(epoch, 0)`.
    ForceQuorum {
        /// The leader's wall clock, ms since 1970.
        time_ms: i64,
        /// 1 at least.
        epochs: u32,
        /// Who is left.
        table: Table,
    },
    /// Here every server notes what its tree is, to compare it with the others. Takes no zxid and changes nothing.
    Mark,
}

/// serde takes a slice of bytes for a sequence of numbers, and has them encoded one by one. What is written here is
/// the same.
mod whole {
    use serde::{Serialize, Serializer};

    struct Whole<'a>(&'a [u8]);

    impl Serialize for Whole<'_> {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            to.serialize_bytes(self.0)
        }
    }

    pub(super) fn data<S: Serializer>(data: &Option<&[u8]>, to: S) -> Result<S::Ok, S::Error> {
        data.map(Whole).serialize(to)
    }

    pub(super) fn commands<S: Serializer>(commands: &[&[u8]], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(commands.iter().map(|command| Whole(command)))
    }
}

/// Bytes of ours that do not decode: the log or a peer is damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a log entry does not decode: {0}")]
pub struct EntryError(postcard::Error);

/// Space for what is beside paths and data of most commands and entries, bytes.
const SPACE_BYTES: usize = 160;
/// The same for the length of a command in an entry.
const LENGTH_BYTES: usize = 4;

impl<'a> Logged<'a> {
    /// The bytes that an [`Entry::Batch`] carries.
    pub fn encode(&self) -> Vec<u8> {
        let space = match &self.command {
            Command::Single(Op::Create { path, data, .. } | Op::SetData { path, data, .. }) => {
                path.len() + data.map_or(0, <[u8]>::len)
            }
            _ => 0,
        };
        let encoded = Vec::with_capacity(space + SPACE_BYTES);
        postcard::to_extend(self, encoded).expect("a command encodes into a growing buffer")
    }

    /// Back from [`Logged::encode`], borrowing from `bytes`.
    pub fn decode(bytes: &'a [u8]) -> Result<Logged<'a>, EntryError> {
        postcard::from_bytes(bytes).map_err(EntryError)
    }
}

impl<'a> Entry<'a> {
    /// The bytes that raft carries.
    pub fn encode(&self) -> Vec<u8> {
        let space = match self {
            Entry::Batch { commands, .. } => {
                commands.iter().map(|command| command.len() + LENGTH_BYTES).sum()
            }
            Entry::NewEpoch { .. }
            | Entry::Introduce { .. }
            | Entry::Found { .. }
            | Entry::ForceQuorum { .. }
            | Entry::Mark => 0,
        };
        let encoded = Vec::with_capacity(space + SPACE_BYTES);
        postcard::to_extend(self, encoded).expect("an entry encodes into a growing buffer")
    }

    /// Back from [`Entry::encode`], borrowing from `bytes`.
    pub fn decode(bytes: &'a [u8]) -> Result<Entry<'a>, EntryError> {
        postcard::from_bytes(bytes).map_err(EntryError)
    }

    /// May it be one that has a [`Table`] of its own ([`Entry::Found`], [`Entry::ForceQuorum`])? Costs a look at a byte.
    pub fn has_table(bytes: &[u8]) -> bool {
        // The number of the variant, which is small.
        matches!(bytes.first(), Some(3 | 4))
    }

    /// The origin of an encoded batch, without a look at its commands; `None` when it is no batch.
    pub fn origin(bytes: &[u8]) -> Result<Option<Origin>, EntryError> {
        match postcard::take_from_bytes(bytes).map_err(EntryError)?.0 {
            EntryHead::NewEpoch { .. }
            | EntryHead::Introduce
            | EntryHead::Found
            | EntryHead::ForceQuorum
            | EntryHead::Mark => Ok(None),
            EntryHead::Batch { origin } => Ok(Some(origin)),
        }
    }
}

/// How an [`Entry`] begins.
#[derive(Deserialize)]
enum EntryHead {
    NewEpoch {
        #[serde(rename = "time_ms")]
        _time_ms: i64,
    },
    Batch {
        origin: Origin,
    },
    Introduce,
    Found,
    ForceQuorum,
    Mark,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_survives_its_encoding() {
        let ids = vec![IdRef { scheme: "ip", id: "127.0.0.1" }];
        let acl = vec![AclRef { perms: 31, id: IdRef { scheme: "world", id: "anyone" } }];
        let op = Op::Create { path: "/a", data: Some(b"x"), acl, mode: CreateMode::Persistent, ttl: 0 };
        let logged = Logged {
            tag: Some(Tag { session: -5, generation: 1, sequence: 2 }),
            ids,
            command: Command::Multi(vec![op, Op::SetData { path: "/a", data: None, version: 0 }]),
        };
        let one = logged.encode();
        let origin = Origin { server: 3, incarnation: u64::MAX, last: 300 };
        let entry = Entry::Batch { origin, time_ms: 7, rules: Rules::default(), commands: vec![&one, &one] };
        let bytes = entry.encode();
        // As if its bytes were encoded one by one.
        let epoch =
            Entry::Batch { origin, time_ms: 7, rules: Rules::default(), commands: Vec::new() }.encode();
        let mut by_one = epoch[..epoch.len() - 1].to_vec();
        by_one.extend(postcard::to_allocvec(&vec![one.clone(), one.clone()]).unwrap());
        assert_eq!(bytes, by_one);
        assert_eq!(Entry::decode(&bytes).unwrap(), entry);
        assert_eq!(Entry::origin(&bytes).unwrap(), Some(origin));
        let introduce = Entry::Introduce { server: 3, disk: 1, store_id: u64::MAX };
        for other in [Entry::NewEpoch { time_ms: -1 }, introduce, Entry::Mark] {
            assert_eq!(Entry::decode(&other.encode()).unwrap(), other);
            assert_eq!(Entry::origin(&other.encode()).unwrap(), None);
            assert!(!Entry::has_table(&other.encode()));
        }
        let table = || Table { members: Members::default(), lines: "x".into() };
        for other in [
            Entry::Found { time_ms: 5, table: table() },
            Entry::ForceQuorum { time_ms: 5, epochs: 9, table: table() },
        ] {
            assert_eq!(Entry::decode(&other.encode()).unwrap(), other);
            assert_eq!(Entry::origin(&other.encode()).unwrap(), None);
            assert!(Entry::has_table(&other.encode()));
        }
        assert!(!Entry::has_table(&bytes));
        assert!(Entry::origin(&bytes[..5]).is_err());
        assert_eq!(Logged::decode(&one).unwrap(), logged);
        assert!(Logged::decode(&one[..one.len() - 1]).is_err());
    }
}
