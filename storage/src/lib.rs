//! What is kept: the znode tree and the transaction log, both in redb.
//!
//! This crate stands leftmost in the house (`storage ← transport ← server ← ops ← tests`) and owns the
//! vocabulary that all others speak: [`Zxid`], [`ZPath`], [`Stat`], [`Acl`], [`Command`], [`Code`].
//! It decides what a command does to the tree and keeps the result ([`tree`]) and the log it
//! came from ([`log`]); who may send a command, and when it is committed, is decided to its right.

pub mod acl;
pub mod code;
pub mod command;
mod dice;
pub mod discard;
pub mod disk;
mod gather;
pub mod inspect;
pub mod io;
pub mod log;
pub mod members;
pub mod path;
pub mod recover;
pub mod run;
pub mod session;
pub mod simdisk;
pub mod stat;
pub mod tree;
pub mod verify;
pub mod zxid;

pub use acl::{Acl, AclRef, Id, IdRef, perms};
pub use code::Code;
pub use command::{Asker, Command, CreateMode, Decided, Entry, Logged, Op, Origin, Rules, Table, Tag};
pub use disk::{Disk, DiskError, SharedDisk};
pub use members::{Change, Member, MemberRole, Members};
pub use path::{PathError, ZPath};
pub use recover::{RecoverError, Recovered, begin_log, recover};
pub use session::{SessionId, SessionRow};
pub use stat::{Kind, Stat};
pub use tree::{Snapshot, Tree, TreeError, TreeOptions, Znode};
pub use zxid::Zxid;
