//! What a server hears of the others and tells them.

use super::{Server, ToService};
use crate::sim::context::{Begins, Context, Event, Halt, Step};
use crate::sim::net::{self, Parcel, host_of, id_of};
use crate::sim::planted::Planted;
use warren_server::consensus::{self, Submission};
use warren_server::founding::{self, Verdict};
use warren_server::service;
use warren_storage::tree::Identity;
use warren_storage::{Command, Logged};
use warren_transport::peer::{
    Answer, Ask, Feed, Forward, Forwarded, PeerEntry, PeerMessage, RaftKind, RaftMessage, ServerId,
};

/// How often a server with an empty store asks, µs.
const ASK_EVERY_US: u64 = 100_000;

impl Server {
    /// A message of another server arrives.
    pub(in crate::sim) fn on_message(
        &mut self,
        ctx: &mut Context,
        from: ServerId,
        mut message: PeerMessage,
    ) -> Result<(), Halt> {
        if let (Some(Planted::ConfigurationWhenProposed), PeerMessage::Raft(append)) =
            (ctx.planted, &mut message)
        {
            let proposed = append.entries.iter().rfind(|entry| entry.conf_change).map(|entry| entry.index);
            append.commit = append.commit.max(proposed.unwrap_or(0));
        }
        match message {
            // Before it takes part, nobody counts on it.
            _ if self.founding.is_some()
                && !matches!(message, PeerMessage::Ask(_) | PeerMessage::Answer(_)) => {}
            PeerMessage::Raft(_)
            | PeerMessage::Forward(_)
            | PeerMessage::ForwardAck(_)
            | PeerMessage::Observe(_)
            | PeerMessage::Feed(_)
            | PeerMessage::FeedEnd(_)
            | PeerMessage::AskRead(_)
            | PeerMessage::AnswerRead(_)
            | PeerMessage::Space(_) => {
                if let (Some(Planted::ForwardTwice), PeerMessage::Forward(forward)) = (ctx.planted, &message)
                {
                    self.propose_again(forward);
                }
                if let PeerMessage::Raft(message) = &message {
                    ctx.checks.on_heard_raft(message);
                }
                self.consensus_in.push(consensus::Event::Peer { from, message });
                self.wake(ctx, Step::Consensus);
            }
            PeerMessage::Touches(_) | PeerMessage::TouchesAck(_) | PeerMessage::Compare(_) => {
                self.service_in.push_back(ToService::Event(service::Event::Peer { from, message }));
                self.wake(ctx, Step::Service);
            }
            PeerMessage::Ask(Ask { store_id, disk }) => self.on_ask(ctx, from, store_id, disk),
            PeerMessage::Answer(answer) => return self.on_answer(ctx, from, answer),
        }
        Ok(())
    }

    /// Take part.
    pub(super) fn begin(&mut self, ctx: &mut Context) {
        let own = id_of(self.host);
        if !self.consensus.is_alone() && !self.is_left_unrecorded(ctx, own, 1) {
            let Identity { store_id, disk, .. } = self.service.tree().identity();
            self.consensus_in.push(consensus::Event::Met { server: id_of(self.host), disk, store_id });
            self.ask_all(ctx);
        }
        self.wake(ctx, Step::Consensus);
    }

    /// As long as it does not know whether it may take part.
    pub(super) fn ask(&mut self, ctx: &mut Context) {
        if self.founding.is_some() {
            self.ask_all(ctx);
            ctx.after(ASK_EVERY_US, Event::Server(self.host, self.life, Step::Ask));
        }
    }

    fn ask_all(&mut self, ctx: &mut Context) {
        let Identity { store_id, disk, .. } = self.service.tree().identity();
        for other in ctx.net.peers(self.host) {
            // Who has a table without this server refuses to link up with it.
            if let (Some(founding), true) = (&mut self.founding, ctx.net.refuses(other, self.host)) {
                founding.hear_stranger(id_of(other));
            }
            net::send(ctx, self.host, other, PeerMessage::Ask(Ask { store_id, disk }));
        }
    }

    fn on_ask(&mut self, ctx: &mut Context, from: ServerId, store_id: u64, disk: u32) {
        let (tree, last_index) = (self.service.tree(), self.log.reader().last_index());
        let answer = if self.founding.is_some() {
            Answer::Empty(tree.store_id())
        } else {
            let answer = match founding::answer(tree, last_index, true, from) {
                Answer::Begun(_) if ctx.planted == Some(Planted::FounderSaysEmpty) => {
                    Answer::Empty(tree.store_id())
                }
                answer => answer,
            };
            if !self.is_left_unrecorded(ctx, from, disk) {
                self.consensus_in.push(consensus::Event::Met { server: from, disk, store_id });
                self.wake(ctx, Step::Consensus);
            }
            answer
        };
        net::send(ctx, self.host, host_of(from), PeerMessage::Answer(answer));
    }

    /// The planted fault: nobody hears of the stores of those that founded, until nothing breaks any more.
    fn is_left_unrecorded(&self, ctx: &Context, server: ServerId, disk: u32) -> bool {
        let founder = ctx.setup.founders().contains(&consensus::raft_id(server, disk.max(1)));
        ctx.planted == Some(Planted::JoinsUnrecorded) && founder && !ctx.healing
    }

    fn on_answer(&mut self, ctx: &mut Context, from: ServerId, answer: Answer) -> Result<(), Halt> {
        let Some(founding) = &mut self.founding else {
            if let Answer::Recorded(known) = answer {
                self.consensus_in.push(consensus::Event::Recorded(known));
                self.wake(ctx, Step::Consensus);
            }
            return Ok(());
        };
        if self.file.servers.voters().all(|member| member.id != from) {
            // Observers have no say in who takes part.
            return Ok(());
        }
        let unrecorded = match &answer {
            Answer::Recorded(known) if known.store.is_none() => known.disk,
            _ => None,
        };
        founding.hear(from, answer);
        let verdict = match (unrecorded, ctx.planted) {
            (Some(disk), Some(Planted::JoinsUnrecorded)) => Verdict::Join { disk, term: 0 },
            _ => founding.verdict(),
        };
        match verdict {
            // An operator may replace or add it; it asks again.
            Verdict::Wait | Verdict::Wiped { .. } | Verdict::NoPlace => return Ok(()),
            Verdict::Found | Verdict::Join { .. } | Verdict::Observe { .. } => {}
        }
        ctx.note(&self.name, format_args!("takes part: {verdict:?}"));
        Err(Halt::Begins(match verdict {
            Verdict::Join { disk, term } => Begins::Joins(disk, term),
            Verdict::Observe { disk } => Begins::Observes(disk),
            _ => Begins::Founds(founding.founders()),
        }))
    }

    /// Something that was sent to another server is lost.
    pub(in crate::sim) fn on_lost(&mut self, ctx: &mut Context, server: ServerId) {
        self.consensus_in.push(consensus::Event::Unreachable { server });
        self.wake(ctx, Step::Consensus);
    }

    /// The link to another server is known to be down.
    pub(in crate::sim) fn on_link_down(&mut self, ctx: &mut Context, server: ServerId) -> Result<(), Halt> {
        ctx.note(&self.name, format_args!("the link to s{server} is down"));
        self.on_lost(ctx, server);
        self.break_streams(ctx, server)
    }

    /// Consensus or service has something for another server.
    pub(super) fn on_send(&mut self, ctx: &mut Context, to: ServerId, message: PeerMessage) {
        if let (Some(planted), PeerMessage::Raft(append)) = (ctx.planted, &message) {
            if append.kind == RaftKind::Append && self.is_counted_unheard(ctx, planted, append.to) {
                let message = PeerMessage::Raft(taken(append));
                self.consensus_in.push(consensus::Event::Peer { from: to, message });
                self.wake(ctx, Step::Consensus);
            }
        }
        let message = match message {
            PeerMessage::Compare(_) if ctx.planted == Some(Planted::NobodyCompares) => return,
            PeerMessage::Feed(feed) if ctx.planted == Some(Planted::FeedUncommitted) => {
                PeerMessage::Feed(self.with_uncommitted(feed))
            }
            message => message,
        };
        net::send(ctx, self.host, host_of(to), message);
    }

    /// The planted faults: is what is sent to this one taken for durable there?
    fn is_counted_unheard(&self, ctx: &Context, planted: Planted, to: u64) -> bool {
        let conf = ctx.checks.configurations.of(self.host);
        match planted {
            Planted::MinorityAsQuorum => true,
            Planted::NewVotersAlone => conf.outgoing.contains(&to) && !conf.voters.contains(&to),
            _ => false,
        }
    }

    /// The planted fault: everything behind is sent along as if it were committed.
    fn with_uncommitted(&self, mut feed: Feed) -> Feed {
        let next = feed.entries.last().map_or(feed.index, |last| last.index) + 1;
        let records = self.log.reader().read(next, u64::MAX, 1 << 20).unwrap_or_default();
        let entries = records.into_iter().map(|record| PeerEntry {
            index: record.index,
            term: record.term,
            conf_change: false,
            data: record.data,
        });
        feed.entries.extend(entries);
        feed.commit = feed.commit.max(feed.entries.last().map_or(0, |last| last.index));
        feed
    }

    /// The term changed, or who leads in it.
    pub(super) fn on_leader(
        &mut self,
        ctx: &mut Context,
        term: u64,
        leader: Option<ServerId>,
    ) -> Result<(), Halt> {
        ctx.note(&self.name, format_args!("term {term}, the leader is {leader:?}"));
        match leader {
            Some(leader) if leader == id_of(self.host) => {
                ctx.checks.on_leads(self.host, &self.service, term)?
            }
            // It may never have heard with which store this one takes part.
            Some(leader) => {
                let Identity { store_id, disk, .. } = self.service.tree().identity();
                net::send(ctx, self.host, host_of(leader), PeerMessage::Ask(Ask { store_id, disk }));
            }
            None => {}
        }
        self.service_in.push_back(ToService::Event(service::Event::Leader { term, leader }));
        self.wake(ctx, Step::Service);
        Ok(())
    }

    /// The planted fault: forwarded commands are proposed without their tags.
    fn propose_again(&mut self, forward: &Forward) {
        if self.consensus.facts().leader != Some(id_of(self.host)) {
            return;
        }
        let untagged = forward.requests.iter().filter_map(|request| match request {
            Forwarded::Command(bytes) => {
                let logged = Logged::decode(bytes).ok().filter(|logged| logged.tag.is_some())?;
                Some(Submission::Command(Logged { tag: None, ..logged }.encode()))
            }
            Forwarded::Reconfigure(_) | Forwarded::OpenSession { .. } => None,
        });
        self.consensus_in.push(consensus::Event::Submit(untagged.collect()));
    }

    /// The planted fault: what a deposed leader asks for is brought to the one that leads, as if it were that one's.
    pub(super) fn expire_as_deposed(&mut self, ctx: &mut Context, submissions: &[Submission]) {
        let Some(leader) = self.consensus.facts().leader.filter(|leader| *leader != id_of(self.host)) else {
            return;
        };
        let now = ctx.checks.history.latest().zxid().epoch();
        for submission in submissions {
            let Submission::LeaderOnly(bytes) = submission else { continue };
            let Ok(mut logged) = Logged::decode(bytes) else { continue };
            if let Command::Expire { epoch, .. } = &mut logged.command {
                *epoch = now;
                net::stream(ctx, self.host, host_of(leader), Parcel::Forged(logged.encode()));
            }
        }
    }

    /// See [`Server::expire_as_deposed`].
    pub(in crate::sim) fn on_forged(&mut self, ctx: &mut Context, command: Vec<u8>) {
        let submissions = vec![Submission::LeaderOnly(command)];
        self.consensus_in.push(consensus::Event::Submit(submissions));
        self.wake(ctx, Step::Consensus);
    }
}

/// What a follower says that has all of this on its disk.
fn taken(append: &RaftMessage) -> RaftMessage {
    RaftMessage {
        kind: RaftKind::AppendResponse,
        to: append.from,
        from: append.to,
        index: append.entries.last().map_or(append.index, |last| last.index),
        log_term: 0,
        entries: Vec::new(),
        snapshot: None,
        ..append.clone()
    }
}
