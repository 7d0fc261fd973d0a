//! What a server hears of the others and tells them.

use super::Server;
use crate::sim::context::{Context, Halt, Step};
use crate::sim::net::{self, host_of};
use warren_server::{consensus, service};
use warren_transport::peer::{PeerMessage, ServerId};

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
                self.service_in.push_back(service::Event::Peer { from, message });
                self.wake(ctx, Step::Service);
            }
            PeerMessage::Ask(_) | PeerMessage::Answer(_) => {}
        }
    }

    /// The link to another server is known to be down.
    pub(in crate::sim) fn on_link_down(&mut self, ctx: &mut Context, server: ServerId) {
        ctx.note(&self.name, format_args!("the link to s{server} is down"));
        self.consensus_in.push(consensus::Event::Unreachable { server });
        self.wake(ctx, Step::Consensus);
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
        if leader == Some(net::id_of(self.host)) {
            ctx.checks.leaders.on_leads(self.host, term)?;
        }
        self.service_in.push_back(service::Event::Leader { term, leader });
        self.wake(ctx, Step::Service);
        Ok(())
    }
}
