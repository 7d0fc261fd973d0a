//! What a server hears of the others and tells them.

use super::{Server, ToService};
use crate::sim::context::{Context, Halt, Step};
use crate::sim::net::{self, host_of, id_of};
use warren_server::{consensus, service};
use warren_transport::peer::{Ask, PeerMessage, ServerId};

impl Server {
    /// A message of another server arrives.
    pub(in crate::sim) fn on_message(&mut self, ctx: &mut Context, from: ServerId, message: PeerMessage) {
        match message {
            PeerMessage::Raft(_) | PeerMessage::Forward(_) | PeerMessage::ForwardAck(_) => {
                self.consensus_in.push(consensus::Event::Peer { from, message });
                self.wake(ctx, Step::Consensus);
            }
            PeerMessage::Touches(_) | PeerMessage::TouchesAck(_) => {
                if let PeerMessage::Touches(touches) = &message {
                    for session in &touches.sessions {
                        ctx.checks.ephemerals.on_heard(ctx.now_us, self.host, *session);
                    }
                }
                self.service_in.push_back(ToService::Event(service::Event::Peer { from, message }));
                self.wake(ctx, Step::Service);
            }
            PeerMessage::Ask(Ask { store_id }) => {
                self.consensus_in.push(consensus::Event::Met { server: from, store_id });
                self.wake(ctx, Step::Consensus);
            }
            PeerMessage::Answer(_) => {}
        }
    }

    /// Say whose store this is, to itself and to all.
    pub(super) fn introduce(&mut self, ctx: &mut Context, store_id: u64) {
        if self.consensus.is_alone() {
            return;
        }
        self.consensus_in.push(consensus::Event::Met { server: id_of(self.host), store_id });
        for other in (0..ctx.setup.servers).filter(|other| *other != self.host) {
            net::send(ctx, self.host, other, PeerMessage::Ask(Ask { store_id }));
        }
    }

    /// The link to another server is known to be down.
    pub(in crate::sim) fn on_link_down(&mut self, ctx: &mut Context, server: ServerId) -> Result<(), Halt> {
        ctx.note(&self.name, format_args!("the link to s{server} is down"));
        self.consensus_in.push(consensus::Event::Unreachable { server });
        self.wake(ctx, Step::Consensus);
        self.break_streams(ctx, server)
    }

    /// Consensus or service has something for another server.
    pub(super) fn on_send(&mut self, ctx: &mut Context, to: ServerId, message: PeerMessage) {
        net::send(ctx, self.host, host_of(to), message);
    }

    /// The term changed, or who leads in it.
    pub(super) fn on_leader(
        &mut self,
        ctx: &mut Context,
        term: u64,
        leader: Option<ServerId>,
    ) -> Result<(), Halt> {
        ctx.note(&self.name, format_args!("term {term}, the leader is {leader:?}"));
        if leader == Some(id_of(self.host)) {
            ctx.checks.leaders.on_leads(self.host, term)?;
        }
        self.service_in.push_back(ToService::Event(service::Event::Leader { term, leader }));
        self.wake(ctx, Step::Service);
        Ok(())
    }
}
