//! Trees on their way to servers that are too far behind for the log.

use super::{COMPARE_EVERY, LogJob, Server, ToService};
use crate::sim::context::{Context, Event, Halt, Step};
use crate::sim::net::{self, Parcel, host_of};
use crate::sim::planted::Planted;
use std::sync::Arc;
use warren_server::divergence::CONFIRMED_WITHIN;
use warren_server::room::Confirmation;
use warren_server::{consensus, service};
use warren_storage::tree::{Export, Import, ImportError, Position, Staged};
use warren_storage::{SharedDisk, Tree};
use warren_transport::peer::{RaftMessage, ServerId, SnapshotHead};

/// Bytes of a chunk; little, so that much may happen in between.
const CHUNK_BYTES: usize = 2 << 10;

/// Between two looks whether a tree was confirmed, µs.
const CONFIRMED_LOOK_US: u64 = 10_000;

/// A tree that is to be sent, and that nobody has said anything of.
pub(super) struct Unsent {
    to: ServerId,
    message: RaftMessage,
    /// Then it is sent as it is.
    until_us: u64,
}

/// A tree that is being sent.
pub(super) struct Sending {
    stream: u64,
    to: ServerId,
    /// `None` when all is sent.
    export: Option<Export>,
}

/// A tree that is being received.
pub(super) struct Receiving {
    stream: u64,
    from: ServerId,
    message: RaftMessage,
    import: Import,
}

impl Server {
    /// Send the newest checkpoint, once the others have confirmed it.
    pub(super) fn send_snapshot(
        &mut self,
        ctx: &mut Context,
        to: ServerId,
        message: RaftMessage,
    ) -> Result<(), Halt> {
        let within = (CONFIRMED_WITHIN * COMPARE_EVERY).as_micros() as u64;
        self.send_if_confirmed(ctx, Unsent { to, message, until_us: ctx.now_us + within })
    }

    /// Look once more after those that wait.
    pub(super) fn on_confirm(&mut self, ctx: &mut Context) -> Result<(), Halt> {
        let waiting = std::mem::take(&mut self.unsent);
        waiting.into_iter().try_for_each(|unsent| self.send_if_confirmed(ctx, unsent))
    }

    fn send_if_confirmed(&mut self, ctx: &mut Context, unsent: Unsent) -> Result<(), Halt> {
        let export = self.exporter.export().map_err(|e| Halt::exit("a tree cannot be sent", e))?;
        let confirmation = match ctx.planted {
            Some(Planted::SendUnconfirmed) => Confirmation::Confirmed,
            _ => self.room.confirmation(export.head().position.index),
        };
        match confirmation {
            Confirmation::Contradicted => self.do_not_send(ctx, unsent.to, "others have another one"),
            Confirmation::Awaited if ctx.now_us < unsent.until_us => {
                self.unsent.push(unsent);
                // One look is for all that wait.
                if !self.scheduled.contains(&Step::Confirm) {
                    self.scheduled.push(Step::Confirm);
                    ctx.after(CONFIRMED_LOOK_US, Event::Server(self.host, self.life, Step::Confirm));
                }
            }
            Confirmation::Awaited | Confirmation::Confirmed => {
                ctx.note(&self.name, format_args!("its tree is {confirmation:?}"));
                self.begin_sending(ctx, unsent.to, unsent.message, export);
            }
        }
        Ok(())
    }

    fn do_not_send(&mut self, ctx: &mut Context, to: ServerId, why: &str) {
        ctx.note(&self.name, format_args!("does not send its tree to s{to}: {why}"));
        self.consensus_in.push(consensus::Event::SnapshotSent { to, ok: false });
        self.wake(ctx, Step::Consensus);
    }

    fn begin_sending(&mut self, ctx: &mut Context, to: ServerId, mut message: RaftMessage, export: Export) {
        let head = export.head();
        message.snapshot = Some(SnapshotHead {
            index: head.position.index,
            term: head.position.term,
            conf_state: head.conf_state.into(),
        });
        ctx.snapshots += 1;
        let stream = ctx.snapshots;
        ctx.note(&self.name, format_args!("sends its tree as of {} to s{to}", head.position.index));
        net::stream(ctx, self.host, host_of(to), Parcel::Tree { stream, message });
        self.sending.push(Sending { stream, to, export: Some(export) });
        ctx.soon(Event::Server(self.host, self.life, Step::Stream(stream)));
    }

    /// Send the next chunk.
    pub(super) fn on_stream(&mut self, ctx: &mut Context, stream: u64) -> Result<(), Halt> {
        let Some(sending) = self.sending.iter_mut().find(|s| s.stream == stream) else { return Ok(()) };
        let Some(export) = &mut sending.export else { return Ok(()) };
        let chunk = export.next_chunk(CHUNK_BYTES).map_err(|e| Halt::exit("a tree cannot be sent", e))?;
        let parcel = match chunk {
            Some(bytes) => {
                ctx.soon(Event::Server(self.host, self.life, Step::Stream(stream)));
                Parcel::Chunk { stream, bytes }
            }
            None => {
                sending.export = None;
                Parcel::TreeEnd { stream }
            }
        };
        net::stream(ctx, self.host, host_of(sending.to), parcel);
        Ok(())
    }

    /// The other end says how it ended, or the link broke.
    pub(in crate::sim) fn on_taken(&mut self, ctx: &mut Context, stream: u64, ok: bool) {
        if let Some(at) = self.sending.iter().position(|s| s.stream == stream) {
            let to = self.sending.remove(at).to;
            ctx.note(&self.name, format_args!("its tree was sent to s{to}: {ok}"));
            self.consensus_in.push(consensus::Event::SnapshotSent { to, ok });
            self.wake(ctx, Step::Consensus);
        }
    }

    /// The link broke: so do the streams on it.
    pub(super) fn break_streams(&mut self, ctx: &mut Context, server: ServerId) -> Result<(), Halt> {
        let unsent = std::mem::take(&mut self.unsent);
        let (lost, kept): (Vec<Unsent>, Vec<Unsent>) = unsent.into_iter().partition(|u| u.to == server);
        self.unsent = kept;
        lost.into_iter().for_each(|_| self.do_not_send(ctx, server, "the link is down"));
        let broken: Vec<u64> = self.sending.iter().filter(|s| s.to == server).map(|s| s.stream).collect();
        for stream in broken {
            net::give_up(ctx, self.host, host_of(server), Parcel::TreeBroken { stream });
            self.on_taken(ctx, stream, false);
        }
        let from = self.receiving.as_ref().filter(|receiving| receiving.from == server);
        if let Some(stream) = from.map(|receiving| receiving.stream) {
            net::give_up(ctx, self.host, host_of(server), Parcel::Taken { stream, ok: false });
            self.on_tree_broken(stream)?;
        }
        Ok(())
    }

    /// There will be no more of this tree.
    pub(in crate::sim) fn on_tree_broken(&mut self, stream: u64) -> Result<(), Halt> {
        match self.receiving.take_if(|receiving| receiving.stream == stream) {
            Some(receiving) => {
                receiving.import.abandon().map_err(|e| Halt::exit("what was received cannot be removed", e))
            }
            None => Ok(()),
        }
    }

    /// Another server begins to send its tree.
    pub(in crate::sim) fn on_tree(
        &mut self,
        ctx: &mut Context,
        from: ServerId,
        stream: u64,
        message: RaftMessage,
    ) -> Result<(), Halt> {
        // One at a time, and none while one is being put in place.
        if self.receiving.is_some() || self.staged.is_some() {
            net::stream(ctx, self.host, host_of(from), Parcel::Taken { stream, ok: false });
            return Ok(());
        }
        let disk: SharedDisk = Arc::new(self.disk.clone());
        match Import::begin(disk, self.service.tree().identity(), 0) {
            Ok(import) => {
                self.receiving = Some(Receiving { stream, from, message, import });
                Ok(())
            }
            Err(e) => self.refuse_tree(ctx, from, stream, &e),
        }
    }

    /// A chunk of it.
    pub(in crate::sim) fn on_chunk(
        &mut self,
        ctx: &mut Context,
        stream: u64,
        bytes: &[u8],
    ) -> Result<(), Halt> {
        let Some(receiving) = self.receiving.as_mut().filter(|receiving| receiving.stream == stream) else {
            return Ok(());
        };
        let from = receiving.from;
        match receiving.import.push(bytes) {
            Ok(()) => Ok(()),
            Err(e) => self.refuse_tree(ctx, from, stream, &e),
        }
    }

    /// It cannot be received. The server goes on all the same.
    fn refuse_tree(
        &mut self,
        ctx: &mut Context,
        from: ServerId,
        stream: u64,
        why: &ImportError,
    ) -> Result<(), Halt> {
        ctx.note(&self.name, format_args!("takes no tree of s{from}: {why}"));
        net::give_up(ctx, self.host, host_of(from), Parcel::Taken { stream, ok: false });
        self.on_tree_broken(stream)
    }

    /// All of it is here.
    pub(in crate::sim) fn on_tree_end(&mut self, ctx: &mut Context, stream: u64) -> Result<(), Halt> {
        let Some(Receiving { from, message, import, .. }) =
            self.receiving.take_if(|receiving| receiving.stream == stream)
        else {
            return Ok(());
        };
        let staged = match import.finish() {
            Ok(staged) => staged,
            Err(e) => return self.refuse_tree(ctx, from, stream, &e),
        };
        ctx.note(&self.name, format_args!("received the tree as of {}", staged.position().index));
        self.staged = Some(staged);
        net::stream(ctx, self.host, host_of(from), Parcel::Taken { stream, ok: true });
        self.consensus_in.push(consensus::Event::SnapshotReceived { from, message });
        self.wake(ctx, Step::Consensus);
        Ok(())
    }

    /// The log's thread has come to the installation, and waits for the service.
    pub(super) fn on_install(&mut self, ctx: &mut Context, head: &SnapshotHead) -> Result<(), Halt> {
        let staged: Staged = self.staged.take().expect("what is put in place was received");
        let position = Position { index: head.index, term: head.term };
        assert_eq!(staged.position(), position, "what is put in place is what was received");
        let disk: SharedDisk = Arc::new(self.disk.clone());
        let tree = Tree::replace(disk, staged, self.tree_options)
            .map_err(|e| Halt::exit("a tree cannot be put in place", e))?;
        ctx.note(&self.name, format_args!("the received tree as of {} is in place", head.index));
        ctx.checks.on_installed(self.host, position)?;
        self.exporter = tree.exporter();
        self.service_in.push_front(ToService::Event(service::Event::Install { tree: Box::new(tree) }));
        ctx.soon(Event::Server(self.host, self.life, Step::Installed));
        Ok(())
    }

    /// The tree is in place; now the log begins anew behind it.
    pub(super) fn on_installed(&mut self, ctx: &mut Context) -> Result<(), Halt> {
        let Some(LogJob::Install { number, head, hard_state }) = self.installing.take() else {
            return Ok(());
        };
        self.log
            .reset(head.index, head.term, hard_state)
            .map_err(|e| Halt::exit("the log cannot be begun anew", e))?;
        ctx.checks.majority.on_log_reset(self.host);
        ctx.note(&self.name, format_args!("log: begins anew behind {}", head.index));
        self.forget = u64::from(ctx.planted == Some(Planted::SkipEntryOnInstall));
        self.log_busy = false;
        self.consensus_in.push(consensus::Event::Installed { number });
        self.wake(ctx, Step::Consensus);
        self.wake_log(ctx);
        Ok(())
    }
}
