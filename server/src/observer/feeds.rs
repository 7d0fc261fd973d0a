//! The feeding side: who is fed by this server, and with what. The same on voters and on observers.
//!
//! ```text
//!   applied        received          next          committed
//!      │ not applied there │  on its way  │  to be sent  │
//!      └──────────── window ──────────────┘
//! ```
//!
//! An observer says again and again how far it is; what is sent and not applied there is bounded, so a slow observer
//! holds itself up and nobody else. What is lost is sent again from where the observer is. Whoever is behind the log
//! gets the newest checkpoint first. Entries are read from the log as they are sent, and none is kept for anybody.

use crate::consensus::{Action, ConsensusError, Follower};
use crate::moment::Moment;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use warren_storage::log::{LogError, LogReader, LogRecord, RecordKind};
use warren_storage::tree::Position;
use warren_transport::peer::codec::PATH_MAX;
use warren_transport::peer::{
    Feed, FeedEnd, Observe, PeerEntry, PeerMessage, RaftKind, RaftMessage, ServerId, SnapshotHead, WhyNoFeed,
};

/// Observers that one server feeds, at most; another one has to ask elsewhere.
pub const FEEDS_MAX: usize = 16;
/// Bytes of entries that an observer was sent and has not applied, at most, unless a single entry is larger.
const WINDOW_BYTES: usize = 1 << 20;
/// Bytes of entries in one message, at most, unless a single entry is larger.
const MESSAGE_BYTES_MAX: usize = 256 << 10;
/// Entries in one message, at most.
const MESSAGE_ENTRIES_MAX: u64 = 4_096;
/// What an entry costs beside its bytes.
const ENTRY_BYTES: usize = 64;
/// Snapshots for observers under way at a time, at most; who needs another one waits.
const SNAPSHOTS_MAX: usize = 2;
/// Ticks between two signs of life to an observer.
pub(super) const SIGN_TICKS: u32 = 5;
/// Ticks without a sign of life of an observer after which it is forgotten.
const FORGET_TICKS: u32 = 150;
/// Ticks without progress after which what is on its way counts as lost.
const RETRY_TICKS: u32 = 25;
/// Ticks after a snapshot that was not taken before it is sent again.
const SNAPSHOT_RETRY_TICKS: u32 = 50;
/// A snapshot that was sent is put in place within this, or sent again.
const SNAPSHOT_PLACED_WITHIN: Duration = Duration::from_secs(60);

/// What a feeder tells of itself with every message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Source {
    /// raft's term, and who leads in it.
    pub(super) leader: (u64, Option<ServerId>),
    /// See [`Feed::path`].
    pub(super) path: Vec<ServerId>,
    /// Has it anything to feed from?
    pub(super) fed: bool,
}

/// An observer that is fed.
struct Fed {
    incarnation: u64,
    feed: u64,
    applied: u64,
    received: u64,
    next: u64,
    /// Sent and not applied there: the last index of each message, and its bytes.
    flying: VecDeque<(u64, usize)>,
    flying_bytes: usize,
    /// Where it was when it was sent again what was lost, so that one loss is made good once.
    rewound_at: Option<u64>,
    retry_at: Moment,
    say_at: Moment,
    forget_at: Moment,
    /// Nothing is sent before: it would be lost, too.
    hold_until: Moment,
    told: Source,
    snapshot: Snapshot,
}

/// Where a fed observer stands with snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Snapshot {
    /// The log will do.
    None,
    /// It needs one, but not before this moment.
    Wanted(Moment),
    /// One is on its way, as of an entry at this index or behind it.
    Sending(u64),
    /// It is there, and being put in place until this moment at the latest.
    Sent(Moment),
}

impl Fed {
    fn go_back(&mut self) {
        self.next = self.received + 1;
        while self.flying.back().is_some_and(|(last, _)| *last > self.received) {
            let (_, bytes) = self.flying.pop_back().expect("looked at above");
            self.flying_bytes -= bytes;
        }
    }

    fn settle(&mut self) {
        while self.flying.front().is_some_and(|(last, _)| *last <= self.applied) {
            let (_, bytes) = self.flying.pop_front().expect("looked at above");
            self.flying_bytes -= bytes;
        }
    }
}

/// See the module's text.
pub(super) struct Feeds {
    tick: Duration,
    server_id: ServerId,
    reader: LogReader,
    /// The last entry that is committed here, and in the log.
    committed: u64,
    checkpoint: Position,
    source: Source,
    fed: BTreeMap<ServerId, Fed>,
}

impl Feeds {
    pub(super) fn new(server_id: ServerId, tick: Duration, reader: LogReader, checkpoint: Position) -> Feeds {
        Feeds {
            tick,
            server_id,
            reader,
            committed: checkpoint.index,
            checkpoint,
            source: Source::default(),
            fed: BTreeMap::new(),
        }
    }

    /// Entries up to here are committed, and in the log.
    pub(super) fn on_committed(&mut self, index: u64) {
        self.committed = self.committed.max(index);
    }

    /// A newer checkpoint is there to be sent.
    pub(super) fn on_checkpoint(&mut self, checkpoint: Position) {
        if checkpoint > self.checkpoint {
            self.checkpoint = checkpoint;
        }
    }

    /// What is told of this server from now on. One that is not fed ends all feeds.
    pub(super) fn set_source(&mut self, source: Source, actions: &mut VecDeque<Action>) {
        if source == self.source {
            return;
        }
        self.source = source;
        if !self.source.fed {
            for (to, fed) in std::mem::take(&mut self.fed) {
                end(actions, to, fed.incarnation, fed.feed, WhyNoFeed::Hungry);
            }
        }
    }

    /// An observer asks, or says how far it is.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub(super) fn on_observe(
        &mut self,
        now: Moment,
        from: ServerId,
        asked: &Observe,
        actions: &mut VecDeque<Action>,
    ) -> Result<(), ConsensusError> {
        let same = |fed: &Fed| (fed.incarnation, fed.feed) == (asked.incarnation, asked.feed);
        if let Some(fed) = self.fed.get_mut(&from).filter(|fed| same(fed)) {
            let (tick, committed) = (self.tick, self.committed);
            fed.forget_at = now + tick * FORGET_TICKS;
            if asked.index > committed.max(fed.received) {
                // It was sent no such thing.
                self.fed.remove(&from);
                end(actions, from, asked.incarnation, asked.feed, WhyNoFeed::Differs);
                return Ok(());
            }
            if asked.index > fed.received || asked.applied > fed.applied {
                fed.received = fed.received.max(asked.index);
                fed.applied = fed.applied.max(asked.applied).min(fed.received);
                fed.next = fed.next.max(fed.received + 1);
                fed.retry_at = now + tick * RETRY_TICKS;
                fed.settle();
                if matches!(fed.snapshot, Snapshot::Sent(_)) {
                    fed.snapshot = Snapshot::None;
                }
            }
            if asked.lost && asked.index == fed.received && fed.rewound_at != Some(asked.index) {
                fed.rewound_at = Some(asked.index);
                fed.go_back();
            }
            return Ok(());
        }
        if self
            .fed
            .get(&from)
            .is_some_and(|fed| fed.incarnation == asked.incarnation && fed.feed > asked.feed)
        {
            // Of a feed that it has given up since.
            return Ok(());
        }
        if let Some(why) = self.refusal(from, asked)? {
            self.fed.remove(&from);
            end(actions, from, asked.incarnation, asked.feed, why);
            return Ok(());
        }
        let fed = Fed {
            incarnation: asked.incarnation,
            feed: asked.feed,
            applied: asked.index,
            received: asked.index,
            next: asked.index + 1,
            flying: VecDeque::new(),
            flying_bytes: 0,
            rewound_at: None,
            retry_at: now,
            say_at: now,
            forget_at: now + self.tick * FORGET_TICKS,
            hold_until: now,
            told: Source::default(),
            snapshot: Snapshot::None,
        };
        self.fed.insert(from, fed);
        Ok(())
    }

    fn refusal(&self, from: ServerId, asked: &Observe) -> Result<Option<WhyNoFeed>, ConsensusError> {
        if !self.source.fed {
            return Ok(Some(WhyNoFeed::Hungry));
        }
        if self.source.path.contains(&from) || self.source.path.len() >= PATH_MAX {
            return Ok(Some(WhyNoFeed::Path));
        }
        if self.fed.len() >= FEEDS_MAX && !self.fed.contains_key(&from) {
            return Ok(Some(WhyNoFeed::Full));
        }
        if asked.index > 0 && asked.index <= self.committed {
            // What is purged cannot be compared; whoever is so far behind gets the whole tree.
            let term = self.reader.term(asked.index)?;
            if term.is_some_and(|term| term != asked.term) {
                return Ok(Some(WhyNoFeed::Differs));
            }
        }
        Ok(None)
    }

    /// An observer has had enough.
    pub(super) fn on_left(&mut self, from: ServerId, left: &FeedEnd) {
        if self.fed.get(&from).is_some_and(|fed| (fed.incarnation, fed.feed) == (left.incarnation, left.feed))
        {
            self.fed.remove(&from);
        }
    }

    /// Something that was sent to it is lost.
    pub(super) fn on_unreachable(&mut self, now: Moment, server: ServerId) {
        if let Some(fed) = self.fed.get_mut(&server) {
            fed.go_back();
            fed.hold_until = now + self.tick * SIGN_TICKS;
            fed.say_at = fed.hold_until;
        }
    }

    /// Is a snapshot on its way to this server?
    pub(super) fn is_sending_to(&self, server: ServerId) -> bool {
        self.fed.get(&server).is_some_and(|fed| matches!(fed.snapshot, Snapshot::Sending(_)))
    }

    /// The stream of a snapshot has ended.
    pub(super) fn on_snapshot_sent(&mut self, now: Moment, to: ServerId, ok: bool) {
        let Some(fed) = self.fed.get_mut(&to) else { return };
        if let Snapshot::Sending(index) = fed.snapshot {
            fed.snapshot = match ok {
                // It may have said that it has it before the end of the stream was known here.
                true if fed.received >= index => Snapshot::None,
                true => Snapshot::Sent(now + SNAPSHOT_PLACED_WITHIN),
                false => Snapshot::Wanted(now + self.tick * SNAPSHOT_RETRY_TICKS),
            };
        }
    }

    /// Send what is due.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub(super) fn drive(
        &mut self,
        now: Moment,
        actions: &mut VecDeque<Action>,
    ) -> Result<(), ConsensusError> {
        self.fed.retain(|_, fed| now.us < fed.forget_at.us);
        let servers: Vec<ServerId> = self.fed.keys().copied().collect();
        for to in servers {
            self.feed(now, to, actions)?;
        }
        Ok(())
    }

    /// When something is due at the latest.
    pub(super) fn next(&self) -> Option<Moment> {
        self.fed.values().map(|fed| fed.say_at).min_by_key(|at| at.us)
    }

    fn feed(
        &mut self,
        now: Moment,
        to: ServerId,
        actions: &mut VecDeque<Action>,
    ) -> Result<(), ConsensusError> {
        let sending = self.fed.values().filter(|fed| matches!(fed.snapshot, Snapshot::Sending(_))).count();
        let Feeds { tick, server_id, reader, committed, checkpoint, source, fed, .. } = self;
        let Some(fed) = fed.get_mut(&to) else { return Ok(()) };
        if now.us < fed.hold_until.us {
            return Ok(());
        }
        if fed.next > fed.received + 1 && now.us >= fed.retry_at.us {
            fed.go_back();
            fed.retry_at = now + *tick * RETRY_TICKS;
        }
        if matches!(fed.snapshot, Snapshot::Sent(until) if now.us >= until.us) {
            fed.snapshot = Snapshot::None;
        }
        if matches!(fed.snapshot, Snapshot::Wanted(at) if now.us >= at.us) {
            // Unless it has found what it lacks elsewhere.
            fed.snapshot = Snapshot::None;
        }
        while fed.snapshot == Snapshot::None && fed.next <= *committed {
            let read = match fed.flying_bytes == 0 || fed.flying_bytes < WINDOW_BYTES {
                true => read(reader, fed.next, *committed)?,
                false => break,
            };
            let Some((before, records)) = read else {
                let far = checkpoint.index > fed.received;
                if far && sending < SNAPSHOTS_MAX {
                    fed.snapshot = Snapshot::Sending(checkpoint.index);
                    let message = envelope(*server_id, to, source.leader.0, *checkpoint, fed.feed);
                    actions.push_back(Action::SendSnapshot { to, message });
                } else {
                    // Nothing to send yet, or too many are sent one.
                    fed.snapshot = Snapshot::Wanted(now + *tick * SNAPSHOT_RETRY_TICKS);
                }
                break;
            };
            let Some(last) = records.last().map(|record| record.index) else { break };
            let bytes: usize = records.iter().map(|record| ENTRY_BYTES + record.data.len()).sum();
            if fed.flying.is_empty() {
                fed.retry_at = now + *tick * RETRY_TICKS;
            }
            fed.flying.push_back((last, bytes));
            fed.flying_bytes += bytes;
            fed.next = last + 1;
            say(now, *tick, to, fed, before, records, *committed, source, actions);
        }
        if now.us >= fed.say_at.us || fed.told != *source {
            let index = fed.next - 1;
            let term = reader.term(index)?.unwrap_or(0);
            say(now, *tick, to, fed, Position { index, term }, Vec::new(), *committed, source, actions);
        }
        Ok(())
    }

    /// The log from here on is still to be sent; `None` when nobody is fed.
    pub(super) fn wanted_from(&self) -> Option<u64> {
        let from = |fed: &Fed| match fed.snapshot {
            // What comes behind the tree that it is being sent.
            Snapshot::Sending(index) => index + 1,
            _ => fed.received + 1,
        };
        self.fed.values().map(from).min()
    }

    /// Who is fed, for operators.
    pub(super) fn facts(&self) -> Vec<Follower> {
        let one = |(server, fed): (&ServerId, &Fed)| Follower {
            server: *server,
            matched: fed.received,
            active: true,
            synced: fed.snapshot == Snapshot::None
                && fed.flying_bytes < WINDOW_BYTES
                && fed.next > self.committed,
        };
        self.fed.iter().map(one).collect()
    }
}

/// The entries from `next` on that fit into a message, and the one before them; `None` when the log does not have them
/// any more.
fn read(
    reader: &LogReader,
    next: u64,
    committed: u64,
) -> Result<Option<(Position, Vec<LogRecord>)>, ConsensusError> {
    let index = next - 1;
    let to = committed.min(index + MESSAGE_ENTRIES_MAX) + 1;
    let records = match reader.read(next, to, MESSAGE_BYTES_MAX) {
        Ok(records) => records,
        Err(LogError::Purged { .. }) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    if records.first().is_some_and(|record| record.index != next) {
        return Ok(None);
    }
    // Before the first entry of all there is none, and its term is 0.
    let term = if index == 0 { Some(0) } else { reader.term(index)? };
    Ok(term.map(|term| (Position { index, term }, records)))
}

#[allow(clippy::too_many_arguments, reason = "one message, spelled out")]
fn say(
    now: Moment,
    tick: Duration,
    to: ServerId,
    fed: &mut Fed,
    before: Position,
    records: Vec<LogRecord>,
    commit: u64,
    source: &Source,
    actions: &mut VecDeque<Action>,
) {
    fed.say_at = now + tick * SIGN_TICKS;
    fed.told.clone_from(source);
    let entries = records.into_iter().map(|record| PeerEntry {
        index: record.index,
        term: record.term,
        conf_change: record.kind != RecordKind::Normal,
        data: record.data,
    });
    let message = PeerMessage::Feed(Feed {
        incarnation: fed.incarnation,
        feed: fed.feed,
        index: before.index,
        log_term: before.term,
        commit,
        term: source.leader.0,
        leader: source.leader.1,
        path: source.path.clone(),
        entries: entries.collect(),
    });
    actions.push_back(Action::Send { to, message });
}

fn end(actions: &mut VecDeque<Action>, to: ServerId, incarnation: u64, feed: u64, why: WhyNoFeed) {
    actions.push_back(Action::Send { to, message: PeerMessage::FeedEnd(FeedEnd { incarnation, feed, why }) });
}

/// What goes before the rows of a snapshot for an observer. raft has no part in it.
fn envelope(from: ServerId, to: ServerId, term: u64, checkpoint: Position, feed: u64) -> RaftMessage {
    let head =
        SnapshotHead { index: checkpoint.index, term: checkpoint.term, conf_state: bytes::Bytes::new() };
    RaftMessage {
        context: feed.to_le_bytes().to_vec().into(),
        snapshot: Some(head),
        ..RaftMessage::new(RaftKind::Snapshot, u64::from(from), u64::from(to), term)
    }
}
