//! raft's messages and ours: there and back, and what is believed of what a peer says.

use super::roster::{CHANGES_MAX, Roster};
use super::view::LogView;
use super::{disk_of, server_of};
use bytes::Bytes;
use protobuf::Message as _;
use raft::RawNode;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeV2, ConfState, Entry as RaftEntry, EntryType, Message, MessageType, Snapshot,
};
use warren_storage::{Command, Decided, Entry, Logged};
use warren_transport::peer::{PeerEntry, RaftKind, RaftMessage, ServerId, SnapshotHead};

/// Bytes of a read index' name, at most.
const CONTEXT_BYTES_MAX: usize = 64;
/// No term, index or number of an honest peer comes near; above, sums could overflow.
const NUMBER_MAX: u64 = 1 << 62;

/// Why a message of a peer is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Contradiction {
    #[error("it is signed with another server's id")]
    Sender,
    #[error("the sender is no member of this ensemble")]
    Stranger,
    #[error("it is for another server, or for a disk that this one no longer has")]
    Receiver,
    #[error("a number in it is out of any range")]
    Number,
    #[error("its term does not belong to its kind")]
    Term,
    #[error("its entries do not follow each other")]
    Entries,
    #[error("it changes the membership, and not in a way that a leader of ours would")]
    Membership,
    #[error("it is from or for a disk that was replaced, or a server that left")]
    Former,
    #[error("it commits or acknowledges entries that there are not")]
    Beyond,
    #[error("its entries are others than those that are committed")]
    Committed,
    #[error("a server does not say this to another")]
    Kind,
    #[error("its snapshot has no configuration with this server")]
    Configuration,
}

/// Does a message go together with its sender and with itself, and is it one that raft can take? What raft would stop
/// the process for must not come from outside.
pub(super) fn check(
    node: &RawNode<LogView>,
    roster: &Roster,
    from: ServerId,
    message: &RaftMessage,
    snapshot: bool,
) -> Result<(), Contradiction> {
    let raft = &node.raft;
    if server_of(message.from) != from || message.from == raft.id {
        return Err(Contradiction::Sender);
    }
    if message.to != raft.id {
        let founded = !roster.members().servers.is_empty();
        let other_disk = founded && server_of(message.to) == server_of(raft.id);
        return Err(if other_disk { Contradiction::Former } else { Contradiction::Receiver });
    }
    if raft.prs().get(message.from).is_none() {
        if roster.is_former(message.from) {
            return Err(Contradiction::Former);
        }
        // Who is behind may not know yet of one that came. Before there is a table nobody comes, but for those that the file
        // names meanwhile: a founder may not have had the first entry yet.
        let known = raft.prs().conf().voters().ids().is_empty()
            || !roster.members().servers.is_empty()
            || roster.is_found(server_of(message.from));
        if !known || disk_of(message.from) == 0 {
            return Err(Contradiction::Stranger);
        }
    }
    let numbers = [
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.commit_term,
        message.reject_hint,
    ];
    // No server of ours has a priority, and raft cannot refuse one in term 0.
    if numbers.iter().any(|n| *n > NUMBER_MAX)
        || message.priority != 0
        || message.context.len() > CONTEXT_BYTES_MAX
    {
        return Err(Contradiction::Number);
    }
    // Without a term raft takes a message for one of its own.
    if (message.term == 0) != (message.kind == RaftKind::ReadIndex) {
        return Err(Contradiction::Term);
    }
    if message.entries.iter().any(|e| e.conf_change && !is_conf_change(&e.data)) {
        return Err(Contradiction::Membership);
    }
    // A head that comes with another kind has not been checked either.
    if (message.kind == RaftKind::Snapshot) != snapshot || message.snapshot.is_some() != snapshot {
        return Err(Contradiction::Kind);
    }
    let last = raft.raft_log.last_index();
    match message.kind {
        RaftKind::Append => {
            let (mut index, mut term) = (message.index, message.log_term);
            // raft knows entries that it does not have by the term 0, and would find that they agree.
            if (index == 0) != (term == 0) {
                return Err(Contradiction::Entries);
            }
            for entry in &message.entries {
                if entry.index != index + 1
                    || entry.term < term
                    || entry.term > message.term
                    || entry.term == 0
                {
                    return Err(Contradiction::Entries);
                }
                let settled = entry.index <= raft.raft_log.committed;
                if settled
                    && raft.raft_log.term(entry.index).is_ok_and(|ours| ours != 0 && ours != entry.term)
                {
                    return Err(Contradiction::Committed);
                }
                (index, term) = (entry.index, entry.term);
            }
            Ok(())
        }
        RaftKind::Heartbeat if message.term >= raft.term && message.commit > last => {
            Err(Contradiction::Beyond)
        }
        RaftKind::AppendResponse if message.request_snapshot != 0 => Err(Contradiction::Kind),
        RaftKind::AppendResponse if !message.reject && message.term == raft.term && message.index > last => {
            Err(Contradiction::Beyond)
        }
        RaftKind::ReadIndex | RaftKind::ReadIndexResponse => match &message.entries[..] {
            [one] if one.data.len() <= CONTEXT_BYTES_MAX => Ok(()),
            _ => Err(Contradiction::Entries),
        },
        RaftKind::TransferLeader => Err(Contradiction::Kind),
        RaftKind::Snapshot => check_snapshot(raft.id, message),
        _ => Ok(()),
    }
}

/// Is it a change of raft's configuration as our leaders make it: bounded, of servers that can be, and with one decided
/// change of the table inside unless it only leaves a joint configuration?
pub(super) fn is_conf_change(data: &[u8]) -> bool {
    let Ok(conf_change) = ConfChangeV2::parse_from_bytes(data) else { return false };
    if conf_change.changes.is_empty() {
        return data.is_empty();
    }
    let context = conf_change.get_context();
    let Ok(Entry::Batch { commands, .. }) = Entry::decode(context) else { return false };
    let [command] = commands.as_slice() else { return false };
    let decided = Logged::decode(command).is_ok_and(|logged| {
        matches!(logged.command, Command::Reconfigure { decided: Some(Decided::Made(_)), .. })
    });
    let of_servers = |c: &ConfChangeSingle| server_of(c.node_id) != 0 && disk_of(c.node_id) != 0;
    // One that leaves nobody would stop raft. It cannot be made by a leader, who counts a quorum first.
    decided && conf_change.changes.len() <= CHANGES_MAX && conf_change.changes.iter().all(of_servers)
}

fn check_snapshot(id: u64, message: &RaftMessage) -> Result<(), Contradiction> {
    let head = message.snapshot.as_ref().ok_or(Contradiction::Entries)?;
    if head.index == 0 || head.index > NUMBER_MAX || head.term == 0 || head.term > message.term {
        return Err(Contradiction::Number);
    }
    let conf = ConfState::parse_from_bytes(&head.conf_state).map_err(|_| Contradiction::Configuration)?;
    let sets = [&conf.voters, &conf.learners, &conf.voters_outgoing, &conf.learners_next];
    let plain = |ids: &Vec<u64>| {
        let mut sorted = ids.clone();
        sorted.sort_unstable();
        sorted.dedup();
        sorted.len() == ids.len() && !sorted.contains(&0)
    };
    let joint = !conf.voters_outgoing.is_empty();
    // Who learns does not vote, and who is to learn votes until the joint configuration is left.
    let apart =
        conf.learners.iter().all(|id| !conf.voters.contains(id) && !conf.voters_outgoing.contains(id))
            && conf.learners_next.iter().all(|id| joint && conf.voters_outgoing.contains(id))
            && !conf.auto_leave;
    if conf.voters.is_empty()
        || !sets.iter().all(|ids| plain(ids))
        || !apart
        || !sets[..3].iter().any(|ids| ids.contains(&id))
    {
        return Err(Contradiction::Configuration);
    }
    Ok(())
}

/// raft's form of a message that was checked.
pub(super) fn to_raft(message: RaftMessage) -> Message {
    let mut out = Message {
        to: message.to,
        from: message.from,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        commit: message.commit,
        commit_term: message.commit_term,
        request_snapshot: message.request_snapshot,
        reject: message.reject,
        reject_hint: message.reject_hint,
        priority: message.priority,
        context: message.context,
        ..Message::default()
    };
    out.set_msg_type(match message.kind {
        RaftKind::Append => MessageType::MsgAppend,
        RaftKind::AppendResponse => MessageType::MsgAppendResponse,
        RaftKind::RequestVote => MessageType::MsgRequestVote,
        RaftKind::RequestVoteResponse => MessageType::MsgRequestVoteResponse,
        RaftKind::RequestPreVote => MessageType::MsgRequestPreVote,
        RaftKind::RequestPreVoteResponse => MessageType::MsgRequestPreVoteResponse,
        RaftKind::Heartbeat => MessageType::MsgHeartbeat,
        RaftKind::HeartbeatResponse => MessageType::MsgHeartbeatResponse,
        RaftKind::Snapshot => MessageType::MsgSnapshot,
        RaftKind::TimeoutNow => MessageType::MsgTimeoutNow,
        RaftKind::ReadIndex => MessageType::MsgReadIndex,
        RaftKind::ReadIndexResponse => MessageType::MsgReadIndexResp,
        RaftKind::TransferLeader => MessageType::MsgTransferLeader,
    });
    let entries: Vec<RaftEntry> = message
        .entries
        .into_iter()
        .map(|e| {
            let mut entry = RaftEntry { index: e.index, term: e.term, data: e.data, ..RaftEntry::default() };
            if e.conf_change {
                entry.set_entry_type(EntryType::EntryConfChangeV2);
            }
            entry
        })
        .collect();
    out.set_entries(entries.into());
    if let Some(head) = message.snapshot {
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        (metadata.index, metadata.term) = (head.index, head.term);
        metadata.set_conf_state(
            ConfState::parse_from_bytes(&head.conf_state).expect("the configuration was checked to decode"),
        );
        out.set_snapshot(snapshot);
    }
    out
}

/// Our form of a message of raft's.
///
/// # Panics
/// When it is one that raft keeps to itself.
pub(super) fn to_peer(mut message: Message) -> RaftMessage {
    let kind = match message.get_msg_type() {
        MessageType::MsgAppend => RaftKind::Append,
        MessageType::MsgAppendResponse => RaftKind::AppendResponse,
        MessageType::MsgRequestVote => RaftKind::RequestVote,
        MessageType::MsgRequestVoteResponse => RaftKind::RequestVoteResponse,
        MessageType::MsgRequestPreVote => RaftKind::RequestPreVote,
        MessageType::MsgRequestPreVoteResponse => RaftKind::RequestPreVoteResponse,
        MessageType::MsgHeartbeat => RaftKind::Heartbeat,
        MessageType::MsgHeartbeatResponse => RaftKind::HeartbeatResponse,
        MessageType::MsgSnapshot => RaftKind::Snapshot,
        MessageType::MsgTimeoutNow => RaftKind::TimeoutNow,
        MessageType::MsgReadIndex => RaftKind::ReadIndex,
        MessageType::MsgReadIndexResp => RaftKind::ReadIndexResponse,
        MessageType::MsgTransferLeader => RaftKind::TransferLeader,
        other => panic!("raft sends {other:?}, which is its own"),
    };
    let snapshot = (kind == RaftKind::Snapshot).then(|| head_of(message.get_snapshot()));
    let entries = message.take_entries().into_iter();
    RaftMessage {
        kind,
        to: message.to,
        from: message.from,
        term: message.term,
        log_term: message.log_term,
        index: message.index,
        commit: message.commit,
        commit_term: message.commit_term,
        request_snapshot: message.request_snapshot,
        reject: message.reject,
        reject_hint: message.reject_hint,
        priority: message.priority,
        entries: entries
            .map(|e| PeerEntry {
                index: e.index,
                term: e.term,
                conf_change: e.get_entry_type() != EntryType::EntryNormal,
                data: e.data,
            })
            .collect(),
        context: message.context,
        snapshot,
    }
}

/// What a snapshot of raft's holds.
pub(super) fn head_of(snapshot: &Snapshot) -> SnapshotHead {
    let metadata = snapshot.get_metadata();
    let conf_state = metadata.get_conf_state().write_to_bytes().expect("a configuration encodes");
    SnapshotHead { index: metadata.index, term: metadata.term, conf_state: Bytes::from(conf_state) }
}
