//! raft's configuration, and its ids: who votes, and with which disk.

use super::passive;
use protobuf::Message as _;
use raft::eraftpb::ConfState;
use warren_transport::peer::ServerId;

/// raft's id of a server: the server id and which of its disks, so that an emptied disk never votes under its
/// old identity.
pub fn raft_id(server_id: ServerId, incarnation: u32) -> u64 {
    (server_id as u64) << 32 | incarnation as u64
}

/// The server of a [`raft_id`]; `0`, which is none, for what cannot be one.
pub fn server_of(id: u64) -> ServerId {
    ServerId::try_from(id >> 32).unwrap_or(0)
}

/// The disk of a [`raft_id`].
pub fn disk_of(id: u64) -> u32 {
    id as u32
}

/// raft's configuration, as [`Committed::conf_state`](super::Committed::conf_state) encodes it; ids are [`raft_id`]s, in
/// order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Who votes.
    pub voters: Vec<u64>,
    /// Who voted before, and still does, in a joint configuration; else nobody.
    pub outgoing: Vec<u64>,
    /// Who is sent the log, and does not vote.
    pub learners: Vec<u64>,
}

impl Configuration {
    /// Of a server that takes part. Before it has learnt who votes, nobody does.
    ///
    /// # Panics
    /// When consensus did not encode it.
    pub fn of(conf_state: &[u8]) -> Configuration {
        let conf = ConfState::parse_from_bytes(conf_state).expect("consensus encoded the configuration");
        let sorted = |mut ids: Vec<u64>| {
            ids.sort_unstable();
            ids
        };
        Configuration {
            voters: sorted(conf.voters),
            outgoing: sorted(conf.voters_outgoing),
            learners: sorted(conf.learners),
        }
    }

    /// Who votes, in either half.
    pub fn servers(&self) -> Vec<ServerId> {
        self.voters.iter().chain(&self.outgoing).map(|id| server_of(*id)).collect()
    }

    /// Do these decide? In a joint configuration a majority of each half must be among them.
    pub fn is_quorum(&self, has: impl Fn(u64) -> bool) -> bool {
        let decides = |half: &[u64]| half.iter().filter(|id| has(**id)).count() > half.len() / 2;
        decides(&self.voters) && (self.outgoing.is_empty() || decides(&self.outgoing))
    }
}

/// As a checkpoint keeps it: the same bytes for the same configuration.
pub(super) fn encode_conf(conf: &ConfState) -> Vec<u8> {
    let mut conf = conf.clone();
    conf.voters.sort_unstable();
    conf.learners.sort_unstable();
    conf.voters_outgoing.sort_unstable();
    conf.learners_next.sort_unstable();
    conf.write_to_bytes().expect("a configuration encodes")
}

/// The configuration of a server that comes to an ensemble which is there, before it has learned what that one's is: it
/// votes with nobody.
pub fn joining(id: u64) -> Vec<u8> {
    let mut conf = ConfState::default();
    conf.learners.push(id);
    encode_conf(&conf)
}

/// The configuration of a new ensemble of these voters, each by its [`raft_id`].
pub fn found(voters: &[u64]) -> Vec<u8> {
    let mut conf = ConfState::default();
    conf.voters.extend_from_slice(voters);
    encode_conf(&conf)
}

/// The configuration of a new ensemble that one server begins and that these are to join, each by its [`raft_id`].
pub fn found_alone(voter: u64, learners: &[u64]) -> Vec<u8> {
    let mut conf = ConfState::default();
    conf.voters.push(voter);
    conf.learners.extend_from_slice(learners);
    encode_conf(&conf)
}

/// Is this server alone in the configuration, or is there none yet? Then nobody has to be asked.
pub fn is_alone(conf_state: &[u8], server: ServerId) -> bool {
    let conf = ConfState::parse_from_bytes(conf_state).expect("consensus encoded the configuration");
    let all = || conf.voters.iter().chain(&conf.voters_outgoing).chain(&conf.learners);
    all().all(|id| server_of(*id) == server) && (conf.learners.is_empty() || !conf.voters.is_empty())
}

/// How many voters a configuration has, as [`found`] and [`Committed::conf_state`](super::Committed::conf_state) encode it;
/// 0 for none at all. While it changes, those of both configurations count.
pub fn voters(conf_state: &[u8]) -> usize {
    voter_ids(conf_state).len()
}

/// Ids of all that vote in a configuration, likewise; while it changes, of both.
pub fn voter_ids(conf_state: &[u8]) -> Vec<ServerId> {
    passive::Passive::new(conf_state).expect("consensus encoded the configuration").voters()
}
