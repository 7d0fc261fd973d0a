//! The checkers: what must hold, whatever the seed does.
//!
//! They see what consensus commits, what the service has after each step, and every packet that a client sends and
//! reads. [`history`] applies the committed log to a tree of its own, which nothing ever happens to, and keeps a
//! snapshot for every zxid; the properties are judged against it. With several servers, what any of them commits first
//! is the history, and every one is judged by it.
//!
//! | file | property | source | checks |
//! |---|---|---|---|
//! | [`leaders`] | one leader per epoch | DESIGN §6 | no two servers lead in one term, and what is committed is of a term that had a leader |
//! | [`history`] | same log prefix everywhere | DESIGN §6 | each server commits without a gap, and exactly what the first of them committed; a restarted one, too |
//! | [`majority`] | acknowledged is durable | DESIGN §1.2, §6 | what is committed for the first time is on the disks of a majority, of each half of a joint configuration |
//! | [`configurations`] | configurations in one order | DESIGN §4 | every server goes by the same configuration of raft's behind the same entry, and the majorities of each and the next meet |
//! | [`agreement`] | raft's configuration and the table agree | DESIGN §4 | behind every applied entry the same servers and disks vote in both |
//! | [`votes`] | elected by the configuration | DESIGN §4 | a leader has the votes of a majority of each half of the newest committed configuration or the one before; an identity votes once in a term, and with the recorded store |
//! | [`config_node`] | the configuration as clients see it | reference §1.9 | `/zookeeper/config` is a committed configuration, and on one connection never an older one |
//! | [`durable`] | acknowledged is durable | DESIGN §1.2, §6 | after each recovery every server reaches the last committed entry again, and node by node the tree of it; it leads no sooner |
//! | [`pointers`] | snapshot ≤ applied ≤ committed | DESIGN §6 | after every step of the service |
//! | [`digests`] | equal zxid, equal digest | DESIGN §6 | position, zxid and digest after every step against the replayed log; at the end znode by znode, also against a naive model |
//! | [`zxids`] | zxids only rise | DESIGN §6, reference §1.6 | of a server; in the headers that a client reads, across its connections and servers |
//! | [`once`] | each tag applied at most once | DESIGN §4, §6 | tags are applied without gap or repetition; no client's payload is written twice |
//! | [`replies`] | replies in session order, and true | DESIGN §4 | xids in order; a write's reply is its outcome in the log; a read's reply is, byte by byte, the answer from the tree at its header's zxid |
//! | [`linear`] | writes linearizable, reads at their place | DESIGN §4, §6 | the zxid of a reply to a write or sync, and of a read behind a sync, is above all that was acknowledged to anybody before the request was sent; a read sees exactly the writes of its session in front of it |
//! | [`watches`] | events before replies, each once | DESIGN §3 ⑪, §4 | a model of every connection's watches: exactly the expected events, in order, before any reply at or behind their zxid, never before the reply that armed them |
//! | [`ephemerals`] | ephemerals end with their session, and only then | DESIGN §6 | at a session's end all of them go under its zxid, none goes otherwise but by a delete; no session is expired that the leader heard of within its timeout, nor by anybody but the leader, nor while its client is answered all the time; none lives much longer |
//! | [`sequences`] | sequence names unique and rising | DESIGN §6 | for each parent, over its whole life |
//! | [`divergence`] | who is wrong serves nobody | DESIGN §4 | a server that applied something else than the log says is found within a bound, and serves nobody from then on; no other is taken for one |
//! | [`heal`] | serves again within a bound | DESIGN §6 | after the last fault every client gets a session, a write, a sync and a read |
//! | [`able`] | a majority is enough to commit | DESIGN §4 | no standstill while a majority of the newest committed configuration is there |

pub mod able;
pub mod agreement;
pub mod config_node;
pub mod configurations;
pub mod conversation;
pub mod digests;
pub mod divergence;
pub mod durable;
pub mod ephemerals;
pub mod heal;
pub mod history;
pub mod leaders;
pub mod linear;
pub mod majority;
pub mod model;
pub mod once;
pub mod pointers;
pub mod replies;
pub mod sequences;
pub mod votes;
pub mod watches;
pub mod zxids;

use conversation::{Conversation, Received};
use history::{Fact, History};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use warren_server::consensus::{Committed, raft_id};
use warren_server::service::Service;
use warren_storage::SessionId;
use warren_storage::log::LogReader;
use warren_storage::tree::Position;
use warren_transport::ReplyHeader;
use warren_transport::peer::{RaftMessage, SnapshotHead};

/// A property does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The file of the property.
    pub property: &'static str,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.property, self.what)
    }
}

/// What a checker says.
pub type Verdict = Result<(), Violation>;

/// `Err` unless `holds`.
fn hold(holds: bool, property: &'static str, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(Violation { property, what: what() }) }
}

/// A zxid as people read it.
pub fn shown(zxid: i64) -> String {
    if zxid < 0 { zxid.to_string() } else { format!("{}.{}", zxid >> 32, zxid & 0xffff_ffff) }
}

/// All of them.
pub struct Checks {
    /// The committed log, replayed.
    pub history: History,
    /// What each connection said and heard.
    conversations: BTreeMap<u64, Conversation>,
    durable: durable::Durable,
    /// What is durable where.
    pub majority: majority::Majority,
    /// Who led when.
    pub leaders: leaders::Leaders,
    /// By what raft went.
    pub configurations: configurations::Configurations,
    agreement: agreement::Agreement,
    votes: votes::Votes,
    /// What clients may read of it.
    pub config_node: config_node::ConfigNode,
    /// Servers whose memory went bad.
    pub wrong: BTreeSet<usize>,
    /// The last entry that each server committed.
    committed: Vec<u64>,
    zxids: zxids::Zxids,
    once: once::Once,
    linear: linear::Linear,
    /// When sessions were heard of.
    pub ephemerals: ephemerals::Ephemerals,
    sequences: sequences::Sequences,
    model: model::Model,
    /// Clients may change the membership.
    pub reconfigures: bool,
    /// Replies judged.
    pub replies: u64,
    /// Events judged.
    pub events: u64,
    /// Connections that went on when their server began anew in place.
    pub kept: u64,
}

impl Checks {
    /// Nothing has happened yet. `founders`: as raft knows them.
    pub fn new(founders: &[u64], servers: usize) -> Checks {
        Checks {
            history: History::new(),
            conversations: BTreeMap::new(),
            durable: durable::Durable::new(servers),
            majority: majority::Majority::new(servers),
            leaders: leaders::Leaders::default(),
            configurations: configurations::Configurations::new(founders, servers),
            agreement: agreement::Agreement::new(servers),
            votes: votes::Votes::default(),
            config_node: config_node::ConfigNode::default(),
            wrong: BTreeSet::new(),
            committed: vec![0; servers],
            zxids: zxids::Zxids::new(servers),
            once: once::Once::default(),
            linear: linear::Linear::new(servers),
            ephemerals: ephemerals::Ephemerals::new(servers),
            sequences: sequences::Sequences::default(),
            model: model::Model::new(),
            reconfigures: false,
            replies: 0,
            events: 0,
            kept: 0,
        }
    }

    // ---- the servers ---------------------------------------------------------------------------------------

    /// This is what a crash left: a checkpoint at `tree`, and a log that begins at `first_log_index`.
    pub fn on_recovered(&mut self, tree: u64, first_log_index: u64) -> Verdict {
        self.durable.on_recovered(tree, first_log_index)
    }

    /// A server was started on it.
    pub fn on_started(&mut self, server: usize, service: &Service, log: &LogReader) -> Verdict {
        self.durable.on_started(server, &self.history, service)?;
        let tree = service.tree();
        self.majority.on_started(server, tree.disk(), tree.position(), log);
        // Who still asks goes by nothing.
        if tree.disk() != 0 {
            self.configurations.on_tree(server, tree.position().index, tree.conf_state())?;
            self.votes.on_started(tree);
        }
        self.agreement.on_started(server);
        self.committed[server] = tree.position().index;
        self.zxids.on_started(server);
        Ok(())
    }

    /// A server is gone.
    pub fn on_stopped(&mut self, server: usize) {
        self.ephemerals.on_stopped(server);
    }

    /// The consensus of a server handed these to its service; `leads`: as the leader.
    pub fn on_committed(
        &mut self,
        now_us: u64,
        server: usize,
        entries: &[Committed],
        leads: bool,
    ) -> Verdict {
        // By what it went when it learnt of them.
        let conf = self.configurations.of(server).clone();
        for entry in entries {
            let last = &mut self.committed[server];
            history::on_next(*last, entry.position)?;
            *last = entry.position.index;
            if entry.position.index > self.history.position().index {
                self.leaders.on_committed(entry.position.index, entry.position.term)?;
                self.majority.on_committed(entry.position, &conf, leads, &self.configurations)?;
            }
            self.configurations.on_committed(server, entry)?;
            for fact in self.history.on_committed(entry)? {
                let Checks { history, once, ephemerals, sequences, model, leaders, .. } = self;
                let fact: &Fact = &history.facts[fact];
                once.on_applied(fact)?;
                sequences.on_applied(fact)?;
                model.on_applied(fact)?;
                ephemerals.on_applied(now_us, fact, model, leaders.of(entry.position.term))?;
            }
            self.config_node.on_committed(self.history.tree())?;
        }
        Ok(())
    }

    /// Consensus wants the tree of another server.
    pub fn on_installs(&mut self, server: usize, head: &SnapshotHead) -> Verdict {
        self.committed[server] = head.index;
        self.configurations.on_tree(server, head.index, &head.conf_state)
    }

    /// A server sends a message of raft's.
    pub fn on_sent_raft(&mut self, service: &Service, message: &RaftMessage) -> Verdict {
        self.votes.on_sent(service.tree().identity(), message, self.history.tree())
    }

    /// A server is told one.
    pub fn on_heard_raft(&mut self, message: &RaftMessage) {
        self.votes.on_heard(message);
    }

    /// The consensus of a server took a step, and leads.
    pub fn on_leading(&mut self, server: usize, service: &Service) -> Verdict {
        votes::on_leading(raft_id(server as u8 + 1, service.tree().disk()), self.configurations.of(server))
    }

    /// A server takes itself for the leader of this term.
    pub fn on_leads(&mut self, server: usize, service: &Service, term: u64) -> Verdict {
        self.leaders.on_leads(server, term)?;
        let own = raft_id(server as u8 + 1, service.tree().disk());
        self.votes.on_leads(own, term, self.configurations.of(server), &self.configurations)
    }

    /// The tree of another server is in place, as of this entry.
    pub fn on_installed(&mut self, server: usize, position: Position) -> Verdict {
        self.majority.on_checkpoint(server, position);
        self.history.on_installed(position)
    }

    /// The service of a server took a step. `calm_since_us`: since when all servers reach each
    /// other. `leads`: it takes itself for the leader's.
    pub fn on_step(
        &mut self,
        now_us: u64,
        server: usize,
        service: &Service,
        committed: u64,
        calm_since_us: u64,
        leads: bool,
    ) -> Verdict {
        pointers::on_step(service, committed)?;
        let is_bad = self.wrong.contains(&server);
        divergence::on_step(is_bad, service)?;
        if !is_bad {
            digests::on_step(&self.history, service)?;
        }
        let tree = service.tree();
        self.configurations
            .on_reached(raft_id(server as u8 + 1, tree.disk()), committed.max(tree.position().index));
        if service.is_settled() {
            self.configurations.on_settled(tree.position().index)?;
        }
        self.zxids.on_step(server, service)?;
        self.durable.on_step(server, &self.history, service, leads)?;
        self.agreement.on_step(server, service)?;
        self.ephemerals.on_step(now_us, server, service, calm_since_us)
    }

    /// The service of a server asks to expire this session.
    pub fn on_expire(
        &mut self,
        now_us: u64,
        server: usize,
        session: SessionId,
        generation: u32,
        timeout_ms: i32,
    ) -> Verdict {
        if self.history.generation(session) != Some(generation) {
            // It moved, or ended, and the service is about to learn of it: this will be dropped.
            return Ok(());
        }
        self.ephemerals.on_expire(now_us, server, session, generation, timeout_ms)
    }

    /// All is quiet: the tree is exactly what the log says.
    pub fn on_quiet(&mut self, service: &Service) -> Verdict {
        self.durable.on_quiet(&self.history, service)?;
        digests::on_quiet(&self.history, &self.model, service)?;
        for (connection, conversation) in &self.conversations {
            heal::on_quiet(*connection, conversation)?;
        }
        Ok(())
    }

    // ---- clients -------------------------------------------------------------------------------------------

    /// A client opened a connection.
    pub fn on_connection(&mut self, connection: u64, client: usize, address: std::net::IpAddr) {
        self.conversations.insert(connection, Conversation::new(client, address, self.reconfigures));
    }

    /// The server attached a session to it.
    pub fn on_attached(&mut self, connection: u64, session: SessionId, generation: u32) {
        if let Some(conversation) = self.conversations.get_mut(&connection) {
            conversation.on_attached(session, generation);
        }
    }

    /// The server begins anew in place, and goes on with this connection; see [`conversation::Conversation::on_kept`].
    pub fn on_kept(&mut self, connection: u64, writes: u64) {
        self.kept += 1;
        if let Some(conversation) = self.conversations.get_mut(&connection) {
            conversation.on_kept(writes);
        }
    }

    /// The server attached a session that only reads, and that nobody else knows.
    pub fn on_attached_read_only(&mut self, connection: u64, session: SessionId, generation: u32) {
        self.on_attached(connection, session, generation);
        if let Some(conversation) = self.conversations.get_mut(&connection) {
            conversation.read_only = true;
        }
    }

    /// A client sent a request. `packet` is without its length.
    pub fn on_sent(&mut self, connection: u64, packet: &[u8]) {
        let acknowledged = self.linear.acknowledged();
        if let Some(conversation) = self.conversations.get_mut(&connection) {
            conversation.on_sent(packet, acknowledged);
        }
    }

    /// A client read a packet behind the handshake.
    pub fn on_received(&mut self, connection: u64, packet: &[u8]) -> Verdict {
        let Some(conversation) = self.conversations.get_mut(&connection) else { return Ok(()) };
        let history = &self.history;
        match conversation.on_received(packet, history.latest().zxid().wire())? {
            Received::Nothing => Ok(()),
            Received::Pong(zxid) => watches::on_zxid(history, conversation, zxid),
            Received::Event { zxid, kind, path } => {
                self.events += 1;
                watches::on_event(history, conversation, zxid, kind, &path)
            }
            Received::Reply { header, sent, body_at } => {
                self.replies += 1;
                let zxid = ReplyHeader { ..header }.zxid;
                if zxid >= 0 {
                    self.zxids.on_reply(conversation.client, zxid)?;
                    watches::on_zxid(history, conversation, zxid)?;
                }
                let body = &packet[body_at..];
                if sent.request().is_some_and(|request| config_node::is_asked(&request)) {
                    let opcode = sent.request().map_or(warren_transport::Opcode::GetData, |r| r.opcode());
                    self.config_node.on_reply(&mut conversation.config_version, opcode, body)?;
                }
                let seen = replies::on_reply(history, conversation, &sent, header, packet, body)?;
                self.linear.on_reply(history, conversation, &sent, zxid)?;
                watches::on_reply(history, conversation, &sent, header, seen)
            }
        }
    }

    /// The client gave the connection up, or lost it. What it watched, for a reconnect.
    pub fn on_closed(&mut self, connection: u64) -> Option<watches::Kept> {
        self.conversations.remove(&connection).map(|conversation| conversation.watches.kept())
    }
}
