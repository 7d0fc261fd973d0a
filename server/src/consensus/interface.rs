//! What consensus is told and asks for.

use crate::entropy::Entropy;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;
use warren_storage::log::{HardState, LogReader, LogRecord};
use warren_storage::tree::Position;
use warren_storage::{Members, Rules, Table};
use warren_transport::peer::{Known, PeerMessage, RaftMessage, ServerId, SnapshotHead};

/// Something that wants to be in the log, or behind it.
#[derive(Debug)]
pub enum Submission {
    /// A write of a session or a `MoveSession`, encoded by [`warren_storage::Logged::encode`] where it was received.
    /// It goes to whoever leads, and into the log once.
    Command(Vec<u8>),
    /// A change of the membership ([`warren_storage::Command::Reconfigure`]), encoded like a command. Whoever leads decides
    /// it.
    Reconfigure(Vec<u8>),
    /// A new session; id and password are stamped by whoever leads.
    OpenSession {
        /// Negotiated, ms.
        timeout_ms: i32,
        /// The server that asks: this one.
        owner: u8,
        /// Its run, as in [`Start::incarnation`].
        incarnation: u64,
        /// Counts the requests of that run.
        request: u64,
    },
    /// What the leader's own timers ask (`Expire`, `Sweep`), encoded like a command. A server that does not lead
    /// drops it: the next leader finds it again.
    LeaderOnly(Vec<u8>),
    /// Tell me when everything that is committed now is applied (ZooKeeper's `sync`). The token comes back in
    /// [`Action::ReadAt`].
    Sync(u64),
    /// The zxid's counter runs high: begin a new epoch. A server that does not lead drops it.
    NewEpoch,
    /// Set a mark ([`warren_storage::Entry::Mark`]). A server that does not lead drops it.
    Mark,
}

/// What consensus is told.
#[derive(Debug)]
pub enum Event {
    /// Work from clients or from the service, in order.
    Submit(Vec<Submission>),
    /// The append with this number, and all before it, is durable.
    Persisted(u64),
    /// The tree of [`Action::Install`] is in place and the log is reset to it, both durable. Stands for
    /// [`Event::Persisted`] of that number.
    Installed {
        /// From [`Action::Install`].
        number: u64,
    },
    /// A server, this one or another, has this store ([`crate::founding`]). Each leader has it recorded before it takes
    /// requests, or as soon as it hears of it; not where there is but one voter.
    Met {
        /// Its id.
        server: ServerId,
        /// Which of its disks; 0 when it does not know yet.
        disk: u32,
        /// See [`warren_storage::Tree::store_id`]. The first one heard of in a run stays, for a disk.
        store_id: u64,
    },
    /// Another server answers what it has recorded of this one ([`crate::founding`]).
    Recorded(Known),
    /// The tree says anew who belongs to the ensemble. Comes before the [`Event::Applied`] of the entry that made it so.
    Members {
        /// Who.
        members: Members,
        /// See [`warren_storage::Tree::retired`].
        retired: BTreeMap<ServerId, u32>,
        /// The log has recorded this server's store for the disk that it has.
        recorded: bool,
    },
    /// An operator gives up all other servers: this one is to be the only voter, whatever the others have. What they
    /// acknowledged and this one does not have is lost.
    ForceQuorum(Table),
    /// Entries up to this index are applied.
    Applied(u64),
    /// The disk is below its reserve, or above it again. A leader whose is hands over to a voter that has space, while a
    /// majority has.
    RefuseGrowth(bool),
    /// A link brought this: `Raft`, `Forward`, `ForwardAck` or `Space`. What contradicts itself or the sender is dropped and
    /// counted ([`Facts::refused`]).
    Peer {
        /// As the link authenticated it.
        from: ServerId,
        /// What it said.
        message: PeerMessage,
    },
    /// The link to this server is down, or its queue overflowed: something that was sent is lost.
    Unreachable {
        /// Which.
        server: ServerId,
    },
    /// The stream of [`Action::SendSnapshot`] has ended. Must come for each, whatever happened.
    SnapshotSent {
        /// From [`Action::SendSnapshot`].
        to: ServerId,
        /// Did the receiver take all of it?
        ok: bool,
    },
    /// All rows of a snapshot are here, durable beside the tree. When the actions that follow this event hold no
    /// [`Action::Install`], it is not wanted and may be removed.
    SnapshotReceived {
        /// As the link authenticated the sender.
        from: ServerId,
        /// What came before the rows.
        message: RaftMessage,
    },
    /// The newest durable checkpoint: what a server that is far behind can be sent.
    Checkpointed {
        /// What it holds.
        position: Position,
        /// raft's configuration there.
        conf_state: Vec<u8>,
        /// The first index that the log still has.
        first_index: u64,
    },
    /// Hand leadership over: before a stop, or because an operator asks. Nothing happens on a server that does not lead.
    Transfer {
        /// To whom; `None`: to the voter that has most of the log.
        to: Option<ServerId>,
    },
    /// This server's tree is wrong, or no longer: while it is, it hands leadership over, does not want it and decides no
    /// change of the membership. It votes, and keeps the log, which is right.
    Abstain(bool),
    /// Time has passed. Only this event moves raft's clock; it comes after all input that is there, so that a
    /// process that stood still reads what it missed before it thinks of an election.
    Tick,
}

/// A committed entry.
#[derive(Debug, Clone)]
pub struct Committed {
    /// Its position.
    pub position: Position,
    /// An encoded [`warren_storage::Entry`]; empty for what raft itself put there.
    pub data: Bytes,
    /// raft's configuration from here on, where the entry changes it.
    pub conf_state: Option<Vec<u8>>,
}

/// What consensus asks for.
#[derive(Debug)]
pub enum Action {
    /// Make this durable, in one step and in order, and tell [`Event::Persisted`].
    Append {
        /// Comes back.
        number: u64,
        /// New entries; an index that is already there replaces it and all behind it.
        records: Vec<LogRecord>,
        /// New term, vote and commit.
        hard_state: Option<HardState>,
    },
    /// Apply these, in order.
    Commit(Vec<Committed>),
    /// Everything up to the index must be applied before the tokens' requests are answered.
    ReadAt {
        /// Log index.
        index: u64,
        /// From [`Submission::Sync`].
        tokens: Vec<u64>,
    },
    /// Leadership was won or lost.
    Lead(bool),
    /// The term or the leader changed; comes before [`Action::Lead`].
    Leader {
        /// raft's term.
        term: u64,
        /// `None` while this server looks for one.
        leader: Option<ServerId>,
    },
    /// Bring this to a server. It may be lost; then [`Event::Unreachable`] makes it come sooner again.
    Send {
        /// To whom.
        to: ServerId,
        /// What.
        message: PeerMessage,
    },
    /// Stream the newest checkpoint, which is at the message's head or beyond it, behind this message, with the head
    /// rewritten to what is streamed. Then tell [`Event::SnapshotSent`].
    SendSnapshot {
        /// To whom.
        to: ServerId,
        /// To be sent before the rows.
        message: RaftMessage,
    },
    /// Put the received tree in place, then reset the log to the head's index and term with this hard state, each
    /// durable before the next; then tell [`Event::Installed`]. It takes its turn among the appends: those asked before
    /// it come before, those asked later wait for it. The requests of this server that were under way are given up:
    /// their connections must be closed.
    Install {
        /// Comes back.
        number: u64,
        /// Which snapshot.
        head: SnapshotHead,
        /// New term, vote and commit.
        hard_state: Option<HardState>,
    },
}

/// raft's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// Its unit, ms; at least 1.
    pub tick_ms: u32,
    /// Ticks between the leader's heartbeats; at least 1.
    pub heartbeat_ticks: u16,
    /// Ticks without a leader before an election; each server waits a random time from this to twice this. More
    /// than `heartbeat_ticks`.
    pub election_ticks: u16,
}

impl Timers {
    /// One tick.
    pub const fn tick(&self) -> Duration {
        Duration::from_millis(self.tick_ms as u64)
    }

    /// The shortest time without a leader before an election.
    pub const fn election(&self) -> Duration {
        Duration::from_millis(self.tick_ms as u64 * self.election_ticks as u64)
    }
}

impl Default for Timers {
    fn default() -> Timers {
        Timers { tick_ms: 20, heartbeat_ticks: 2, election_ticks: 10 }
    }
}

/// Of [`Start::read_bytes_max`]: four messages to a follower.
pub const READ_BYTES_MAX: usize = 1 << 20;

/// How to begin.
pub struct Start {
    /// See [`super::raft_id`].
    pub id: u64,
    /// The server id, for new session ids.
    pub server_id: ServerId,
    /// This run of the server; random, never 0.
    pub incarnation: u64,
    /// Reads the log while it is appended to.
    pub reader: LogReader,
    /// Term, vote and commit as last persisted.
    pub hard_state: HardState,
    /// What the tree's checkpoint holds.
    pub checkpoint: Position,
    /// raft's configuration from the checkpoint, or [`super::found`]'s.
    pub conf_state: Vec<u8>,
    /// Who belongs to the ensemble, as of the checkpoint.
    pub members: Members,
    /// See [`warren_storage::Tree::retired`].
    pub retired: BTreeMap<ServerId, u32>,
    /// What the first leader of a new ensemble writes down; `None` where a server stands alone.
    pub found: Option<Members>,
    /// Settings that bear on results.
    pub rules: Rules,
    /// raft's clock.
    pub timers: Timers,
    /// Bytes of entries that are read from the log's files in one turn, for followers that are behind, at most but for the last
    /// read; what they want beyond has later turns, for meanwhile nothing else is heard or said. [`READ_BYTES_MAX`].
    pub read_bytes_max: usize,
    /// For session ids, passwords and the time to an election.
    pub entropy: Box<dyn Entropy>,
}

/// What one machine of a server leaves to the other, when it begins to vote or ends.
pub(crate) struct Handed {
    /// See [`Start::entropy`].
    pub(crate) entropy: Box<dyn Entropy>,
    /// Term and vote as last persisted, and what is known to be committed.
    pub(crate) hard_state: HardState,
    /// The last entry that was handed out as committed.
    pub(crate) committed: Position,
    /// raft's configuration there.
    pub(crate) conf_state: Vec<u8>,
    /// Requests of this server that are not known to be committed.
    pub(crate) outbox: super::forward::Outbox,
    /// Of the reads that wait for their index.
    pub(crate) tokens: Vec<u64>,
}

/// What a server is to its ensemble, in ZooKeeper's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It has no leader.
    Looking,
    /// It has one.
    Following,
    /// It is one.
    Leading,
    /// It does not vote ([`crate::observer`]).
    Observing,
}

/// How consensus stands, for operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// raft's term.
    pub term: u64,
    /// Who leads in it, as far as is known.
    pub leader: Option<ServerId>,
    /// What this server is.
    pub role: Role,
    /// All that vote, in raft's configuration; while it changes, those of both.
    pub voters: Vec<ServerId>,
    /// Who belongs to the ensemble, as of what is applied here.
    pub members: Members,
    /// raft is between two configurations.
    pub changing: bool,
    /// The last index in the log, durable or not.
    pub last_index: u64,
    /// The last index that is committed.
    pub committed: u64,
    /// The last index that is durable here.
    pub persisted: u64,
    /// Of the other servers; only a leader knows them.
    pub followers: Vec<Follower>,
    /// Observers that this server feeds.
    pub observers: Vec<Follower>,
    /// Who feeds this server, if it is an observer.
    pub feeder: Option<ServerId>,
    /// Requests of this server that are not known to be committed.
    pub own: usize,
    /// Syncs, and other questions whether the leader still leads, that wait for their read index here.
    pub pending_syncs: usize,
    /// Requests of other servers that wait to be proposed here, bytes.
    pub foreign_bytes: usize,
    /// Messages and requests of peers that were dropped because they contradict themselves, since the start.
    pub refused: u64,
}

/// A follower, as its leader knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Follower {
    /// Which.
    pub server: ServerId,
    /// It has the log up to here, durable.
    pub matched: u64,
    /// Heard of since the leader last looked for its quorum.
    pub active: bool,
    /// It takes entries as they come: it neither lags behind the log nor waits for a snapshot.
    pub synced: bool,
}

/// A duration that was measured, or something that was counted, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// From the first look for a leader to finding one (`election_time`).
    Election(Duration),
    /// A look for a leader began (`looking_count`).
    Looking,
    /// Without a leader whose epoch has begun (`unavailable_time`).
    Unavailable(Duration),
    /// From the proposal of an entry to its quorum (`quorum_ack_latency`).
    QuorumAck(Duration),
    /// From the arrival of a request of this server to its commit (`proposal_latency`); one for each entry.
    Proposal(Duration),
    /// It came to its turn so much too late, half an election timeout or more (`warren_stalls_total`): the others hear nothing
    /// of it meanwhile, and may elect another.
    Stall(Duration),
}
