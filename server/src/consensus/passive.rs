//! raft's configuration as a server follows it that has no part in raft: an observer.

use super::wire::is_conf_change;
use super::{Committed, ConsensusError, encode_conf, raft_id, server_of};
use protobuf::Message as _;
use raft::RawNode;
use raft::eraftpb::{ConfChangeV2, ConfState};
use raft::storage::MemStorage;
use warren_storage::Entry;
use warren_storage::log::{LogRecord, RecordKind};
use warren_storage::tree::Position;
use warren_transport::peer::ServerId;

/// See the module's text.
pub(crate) struct Passive {
    conf: ConfState,
}

/// Is a record of this kind, as another server sent it, one that [`Passive::committed`] can take?
pub(crate) fn is_sound(conf_change: bool, data: &[u8]) -> bool {
    !conf_change || is_conf_change(data)
}

impl Passive {
    /// As a checkpoint has it. Before the first voter is known it is empty.
    ///
    /// # Errors
    /// When it does not decode.
    pub(crate) fn new(conf_state: &[u8]) -> Result<Passive, ConsensusError> {
        let conf = ConfState::parse_from_bytes(conf_state).map_err(ConsensusError::ConfState)?;
        Ok(Passive { conf: if conf.voters.is_empty() { ConfState::default() } else { conf } })
    }

    /// As a checkpoint keeps it.
    pub(crate) fn encoded(&self) -> Vec<u8> {
        encode_conf(&self.conf)
    }

    /// Who votes; while that changes, those of both configurations.
    pub(crate) fn voters(&self) -> Vec<ServerId> {
        let all = self.conf.voters.iter().chain(&self.conf.voters_outgoing);
        let mut voters: Vec<ServerId> = all.map(|id| server_of(*id)).collect();
        voters.sort_unstable();
        voters.dedup();
        voters
    }

    /// A committed record, as the service takes it. They must come in order, each once.
    ///
    /// # Errors
    /// When raft refuses a change of its configuration.
    pub(crate) fn committed(&mut self, record: LogRecord) -> Result<Committed, ConsensusError> {
        let LogRecord { index, term, kind, data } = record;
        let position = Position { index, term };
        if kind == RecordKind::Normal {
            let changed = Entry::has_table(&data) && self.on_table(&data);
            let conf_state = changed.then(|| encode_conf(&self.conf));
            return Ok(Committed { position, data, conf_state });
        }
        let mut conf_change =
            ConfChangeV2::parse_from_bytes(&data).expect("it was decoded before it was logged");
        let data = conf_change.take_context();
        self.apply(&conf_change)?;
        Ok(Committed { position, data, conf_state: Some(encode_conf(&self.conf)) })
    }

    /// The first table says who voted at the beginning, a forced one who votes from there on.
    fn on_table(&mut self, data: &[u8]) -> bool {
        let table = match Entry::decode(data) {
            Ok(Entry::Found { table, .. }) if self.conf.voters.is_empty() => table,
            Ok(Entry::ForceQuorum { table, .. }) => table,
            // What does not decode, whoever applies it finds out.
            _ => return false,
        };
        self.conf = ConfState::default();
        self.conf.voters.extend(table.members.voters().map(|m| raft_id(m.id, m.disk)));
        true
    }

    /// By raft itself, in a node that nobody hears of.
    fn apply(&mut self, conf_change: &ConfChangeV2) -> Result<(), ConsensusError> {
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let storage = MemStorage::new_with_conf_state(self.conf.clone());
        let mut node = RawNode::new(&raft::Config { id: 1, ..raft::Config::default() }, storage, &logger)?;
        self.conf = node.apply_conf_change(conf_change)?;
        Ok(())
    }
}
