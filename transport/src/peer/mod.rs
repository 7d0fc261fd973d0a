//! What servers of an ensemble say to each other, over links that know both ends (`io::links`).
//!
//! These are our own messages in our own bounded encoding; [`codec`] puts them into frames, and [`PeerName`] is how a
//! certificate names its server. Two machines speak them:
//! consensus ([`RaftMessage`], [`Forward`], [`ForwardAck`]) and service ([`Touches`], [`TouchesAck`], [`Compare`]). Observers and who
//! feeds them have [`Observe`], [`Feed`], [`FeedEnd`], and for reads [`AskRead`] and [`AnswerRead`]. A leader whose disk is full
//! asks for another one by [`Space`].
//! A message may be lost, when a link breaks or a queue is full, and may arrive twice; who sends one that matters
//! sends it again until it is acknowledged.

pub mod codec;
mod name;

pub use codec::{CodecError, FRAME_BYTES_MAX};
pub use name::{ENSEMBLE_NAME_BYTES_MAX, NameError, PeerName, check_ensemble_name};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use warren_storage::SessionId;

/// The id of a server in its ensemble, 1 to 255 (ZooKeeper's `myid`).
pub type ServerId = u8;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerMessage {
    /// Elections, heartbeats, appends and their answers.
    Raft(RaftMessage),
    /// Requests for the leader.
    Forward(Forward),
    /// How far the leader has them.
    ForwardAck(ForwardAck),
    /// Sessions that were heard of.
    Touches(Touches),
    /// The leader has them.
    TouchesAck(TouchesAck),
    /// May a server with an empty store take part?
    Ask(Ask),
    /// What the asked one knows of it.
    Answer(Answer),
    /// An observer wants what is committed, and says how far it is.
    Observe(Observe),
    /// What is committed, for an observer.
    Feed(Feed),
    /// One end of a feed ends it.
    FeedEnd(FeedEnd),
    /// How far must an observer be to answer a `sync`?
    AskRead(AskRead),
    /// So far.
    AnswerRead(AnswerRead),
    /// What a server's tree is at a mark in the log.
    Compare(Compare),
    /// Is there space on a server's disk?
    Space(Space),
}

/// Kinds of [`RaftMessage`], named as in the `raft` crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the raft crate's own names")]
pub enum RaftKind {
    Append,
    AppendResponse,
    RequestVote,
    RequestVoteResponse,
    RequestPreVote,
    RequestPreVoteResponse,
    Heartbeat,
    HeartbeatResponse,
    Snapshot,
    TimeoutNow,
    ReadIndex,
    ReadIndexResponse,
    TransferLeader,
}

/// A message of the `raft` crate, with the fields that it uses (Raft paper, figure 2 and sections 6 to 8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaftMessage {
    /// What it is.
    pub kind: RaftKind,
    /// raft's id of the receiver: server id and disk incarnation.
    pub to: u64,
    /// raft's id of the sender.
    pub from: u64,
    /// The sender's term; 0 for local kinds.
    pub term: u64,
    /// Term of the entry before the first.
    pub log_term: u64,
    /// Index of the entry before the first, or what the kind says.
    pub index: u64,
    /// The sender's commit index.
    pub commit: u64,
    /// Term of that entry.
    pub commit_term: u64,
    /// The receiver asks for a snapshot up to here.
    pub request_snapshot: u64,
    /// No.
    pub reject: bool,
    /// Where the logs may agree.
    pub reject_hint: u64,
    /// The candidate's priority.
    pub priority: i64,
    /// A read index' name, or why a vote is asked for.
    pub context: Bytes,
    /// New entries, in order.
    #[serde(deserialize_with = "codec::entries")]
    pub entries: Vec<PeerEntry>,
    /// With [`RaftKind::Snapshot`].
    pub snapshot: Option<SnapshotHead>,
}

impl RaftMessage {
    /// One that says no more than this: the rest is zero, empty or absent.
    pub fn new(kind: RaftKind, from: u64, to: u64, term: u64) -> RaftMessage {
        RaftMessage {
            kind,
            to,
            from,
            term,
            log_term: 0,
            index: 0,
            commit: 0,
            commit_term: 0,
            request_snapshot: 0,
            reject: false,
            reject_hint: 0,
            priority: 0,
            context: Bytes::new(),
            entries: Vec::new(),
            snapshot: None,
        }
    }
}

/// An entry of the log on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerEntry {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Does it change raft's configuration?
    pub conf_change: bool,
    /// An encoded [`warren_storage::Entry`], a configuration change, or nothing.
    pub data: Bytes,
}

/// What a snapshot holds; its rows travel on a stream of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotHead {
    /// Everything up to this entry.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// raft's configuration there, in the consensus' own encoding.
    pub conf_state: Bytes,
}

/// Requests that a server has for the leader, by the order in which it must see them: go-back-N for each origin.
///
/// An origin numbers its requests from 1 in each of its runs. It sends them in order, each once to the leader of a
/// term; what is not acknowledged in time, or is behind a gap, it sends again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forward {
    /// The term of the leader that is meant; a server that does not lead in it drops the message.
    pub term: u64,
    /// The origin's run.
    pub incarnation: u64,
    /// The number of the first request here.
    pub first: u64,
    /// The lowest number that is not known to be committed: where the leader begins, when it has heard nothing of this run
    /// in this term.
    pub begin: u64,
    /// The requests, numbered on.
    #[serde(deserialize_with = "codec::requests")]
    pub requests: Vec<Forwarded>,
}

/// One request for the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Forwarded {
    /// An encoded [`warren_storage::Logged`].
    Command(Bytes),
    /// The same, of a change of the membership.
    Reconfigure(Bytes),
    /// A new session, whose id and password the leader makes.
    OpenSession {
        /// Negotiated, ms.
        timeout_ms: i32,
        /// Counts such requests of the origin's run.
        request: u64,
    },
}

/// The leader proposed all requests of the origin's run up to this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardAck {
    /// The term it leads in.
    pub term: u64,
    /// The origin's run.
    pub incarnation: u64,
    /// The last number proposed; one less than [`Forward::begin`] when there is none.
    pub upto: u64,
}

/// Sessions whose clients a server heard of since its last report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Touches {
    /// Counts the reports of a run; comes back in the answer.
    pub number: u64,
    /// Which; none at all is a report, too: the answer says that the leader is there.
    #[serde(deserialize_with = "codec::sessions")]
    pub sessions: Vec<SessionId>,
}

/// The leader counts these sessions as heard of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TouchesAck {
    /// From [`Touches::number`].
    pub number: u64,
}

/// A server whose store holds nothing asks before it votes: has it lost its data, or is it new?
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Names the asker's store, since it was created.
    pub store_id: u64,
    /// Which of its disks that is; 0 when it has not taken part.
    pub disk: u32,
}

/// What a server knows of one that asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Nothing of anything: this server's store, which is named here, is empty, too.
    Empty(u64),
    /// It founds an ensemble, and nothing is in its log yet. The asker's store, if it had that one in mind when it began.
    Begun(Option<u64>),
    /// It has history, and not all of its log is applied: it may learn more.
    Undecided,
    /// It has history, all of it applied.
    Recorded(Known),
}

/// What a server has recorded of another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// The store that the committed log records for its disk of now.
    pub store: Option<u64>,
    /// The log's term up to which that was looked at.
    pub term: u64,
    /// It does not vote, and is not to.
    pub observes: bool,
    /// Which of its disks that is ([`warren_storage::Member::disk`]); `None` when it is not in the table.
    pub disk: Option<u32>,
    /// Version of the table; the greatest of several answers is the newest.
    pub version: i64,
    /// Ids of all that vote, a byte each; nobody when there is no table yet.
    pub voters: Bytes,
    /// raft's configuration is not a joint one, so nobody else votes.
    pub settled: bool,
}

/// An observer asks a server to feed it, goes on to want it, and acknowledges. Said again and again: a feeder that does
/// not hear it for a while forgets the observer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observe {
    /// The observer's run.
    pub incarnation: u64,
    /// Counts the feeds that this run asked for; a feed has the number of its first [`Observe`].
    pub feed: u64,
    /// The last entry that it has, durable or soon.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// The last entry that it applied: what lies between the two fills the feed's window.
    pub applied: u64,
    /// Something is missing behind `index`: it was sent and did not come.
    pub lost: bool,
}

/// Committed entries for an observer, or a sign of life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feed {
    /// From [`Observe::incarnation`].
    pub incarnation: u64,
    /// From [`Observe::feed`].
    pub feed: u64,
    /// The entry before the first.
    pub index: u64,
    /// Its term.
    pub log_term: u64,
    /// The last entry that the feeder knows to be committed.
    pub commit: u64,
    /// raft's term, as the feeder knows it.
    pub term: u64,
    /// Who leads in it.
    pub leader: Option<ServerId>,
    /// Who feeds the feeder, who feeds that one, and so on to a voter; empty when the feeder votes.
    #[serde(deserialize_with = "codec::path")]
    pub path: Vec<ServerId>,
    /// In order, all of them committed.
    #[serde(deserialize_with = "codec::entries")]
    pub entries: Vec<PeerEntry>,
}

/// One end of a feed ends it: the observer does not want it any more, or the feeder does not feed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedEnd {
    /// From [`Observe::incarnation`].
    pub incarnation: u64,
    /// From [`Observe::feed`].
    pub feed: u64,
    /// Why.
    pub why: WhyNoFeed,
}

/// Why a feed ends or does not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum WhyNoFeed {
    /// The observer has found another feeder.
    Left,
    /// The asked one feeds as many as it may.
    Full,
    /// The asked one is an observer itself, and nobody feeds it.
    Hungry,
    /// The asked one is fed by the one that asks, or over too many others.
    Path,
    /// What the observer has is not what was committed here.
    Differs,
}

/// Everything that is committed when this is heard must be applied before a `sync` is answered: up to where is that? A
/// server that does not lead says nothing, and is asked again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskRead {
    /// The observer's run.
    pub incarnation: u64,
    /// Counts what this run asked; comes back.
    pub number: u64,
}

/// The answer to [`AskRead`], after a quorum has confirmed that the answerer leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerRead {
    /// From [`AskRead::incarnation`].
    pub incarnation: u64,
    /// From [`AskRead::number`].
    pub number: u64,
    /// Up to here.
    pub index: u64,
}

/// A server says what its tree is at the last mark in the log that it applied; or that it has passed none since it began,
/// and wants the leader to set one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    /// `None`: it has passed none.
    pub mark: Option<Mark>,
}

/// What a server's tree is behind a mark in the log ([`warren_storage::Entry::Mark`]). Equal trees are equal in all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The mark's index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// The last zxid given there.
    pub zxid: i64,
    /// See [`warren_storage::tree::Digest::znodes`].
    pub znodes: u64,
    /// See [`warren_storage::tree::Digest::sessions`].
    pub sessions: u64,
    /// See [`warren_storage::tree::Digest::members`].
    pub members: u64,
}

/// A leader asks a voter whether its disk has space, or that one answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// The receiver is to say the same of itself.
    pub asks: bool,
    /// The sender's disk is below its reserve; or it must not lead for another reason.
    pub low: bool,
}

/// The purposes of a link's streams, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Lane {
    /// Elections and heartbeats: small, and late is as bad as lost.
    Consensus,
    /// Entries of the log and their answers, those for observers among them.
    Append,
    /// Requests for the leader, touches, and their answers.
    Request,
}

impl PeerMessage {
    /// Which stream it takes. Messages of one lane arrive in order.
    pub fn lane(&self) -> Lane {
        match self {
            PeerMessage::Raft(message) => match message.kind {
                RaftKind::Append | RaftKind::AppendResponse | RaftKind::Snapshot => Lane::Append,
                _ => Lane::Consensus,
            },
            PeerMessage::Observe(_) | PeerMessage::Feed(_) | PeerMessage::FeedEnd(_) => Lane::Append,
            _ => Lane::Request,
        }
    }
}
