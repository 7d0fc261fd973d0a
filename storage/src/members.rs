//! Who belongs to the ensemble: what `/zookeeper/config` says, and what consensus and links go by.
//!
//! The tree holds it, so every server has it as of its own position in the log. A server's configuration file only says
//! whom to ask, and what a new ensemble begins with.

use serde::{Deserialize, Serialize};

/// What a server does in its ensemble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MemberRole {
    /// It votes (ZooKeeper's `participant`).
    Voter,
    /// It will vote as soon as it has nearly all of the log: the leader sees to it.
    Joining,
    /// It is told what is committed, outside raft, and serves clients (ZooKeeper's `observer`).
    Observer,
}

/// A server of the ensemble.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id, 1 to 255.
    pub id: u8,
    /// Which of its disks, counted from 1: a server whose data was lost comes back with the next one, and its old
    /// identity never votes again.
    pub disk: u32,
    /// What it does.
    pub role: MemberRole,
    /// `HOST:PORT` (UDP) at which the other servers find it.
    pub peer_addr: String,
    /// `HOST:PORT` at which clients find it.
    pub client_addr: String,
}

/// All servers of the ensemble, ordered by id; each id once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// The zxid of the change that made it so; ZooKeeper's configuration version. 0 for what the ensemble began with.
    pub version: i64,
    /// Who.
    pub servers: Vec<Member>,
}

impl Members {
    /// A server, by its id.
    pub fn get(&self, id: u8) -> Option<&Member> {
        self.servers.iter().find(|member| member.id == id)
    }

    /// Those that vote.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.servers.iter().filter(|member| member.role == MemberRole::Voter)
    }
}

/// A change of the membership, as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// ZooKeeper's `reconfig`, as a client sent it.
    Reconfig {
        /// `server.N=…`, separated by commas.
        joining: Option<String>,
        /// Ids, separated by commas.
        leaving: Option<String>,
        /// The whole list instead.
        new_members: Option<String>,
        /// The [`Members::version`] that it goes on from; −1 for any.
        version: i64,
    },
    /// A server comes in.
    Add {
        /// Its id.
        id: u8,
        /// See [`Member::peer_addr`].
        peer_addr: String,
        /// See [`Member::client_addr`].
        client_addr: String,
        /// It observes; else it joins, and votes once it has the log.
        observer: bool,
    },
    /// An observer joins the voters.
    Promote {
        /// Its id.
        id: u8,
    },
    /// A voter becomes an observer.
    Demote {
        /// Its id.
        id: u8,
    },
    /// A server goes.
    Remove {
        /// Its id.
        id: u8,
    },
    /// A server lost its data: its next disk comes in where the old one goes, and what was recorded of its store is
    /// forgotten.
    Replace {
        /// Its id.
        id: u8,
    },
}
