//! The other servers of the ensemble: what comes from them goes to the machine that understands it, and what the
//! machines have for them goes onto the links.

use super::bulk;
use super::daemon::COMPARE_EVERY;
use super::engine::Engine;
use super::link_state::{LinkState, NOT_YET, hold, most_removed, peers};
use super::priority::only_when_idle;
use crate::admin;
use crate::config;
use crate::consensus::Configuration;
use crate::divergence::CONFIRMED_WITHIN;
use crate::founding::{self, Founding, Verdict, WithData};
use crate::membership;
use crate::metrics::Metrics;
use crate::room::{Confirmation, Room};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;
use warren_storage::discard::ask_to_discard;
use warren_storage::log::LogReader;
use warren_storage::tree::{
    Export, Exporter, Identity, Import, ImportError, Staged, Tree, TreeError, TreeOptions,
};
use warren_storage::{DiskError, SharedDisk};
use warren_transport::io::links::{
    DownReason, Hold, LinkHandler, Links, PeerAddr, Refusal, RefusalReason, SnapshotError, SnapshotReceiver,
};
use warren_transport::peer::{Answer, Ask, PeerMessage, RaftMessage, ServerId, SnapshotHead};

/// Between two questions of a server whose store is empty.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// An ensemble is founded without servers that are not heard of for so long: one of them might have history.
const ABSENT_AFTER: Duration = Duration::from_secs(5);
/// Between two log lines of it.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// Most of the others say for so long that they know no such server as this one: then it is so. Who was just started may
/// have a table of before.
const UNKNOWN_AFTER: Duration = Duration::from_secs(10);
/// Between two looks whether a checkpoint that is to be sent was confirmed.
const CONFIRMED_LOOK_EVERY: Duration = Duration::from_millis(20);

/// Do the others know this server?
#[derive(Clone, Copy, Debug)]
enum Unknown {
    /// One of them has a link, or not enough of them have said no.
    No,
    /// Most of them have said no, since then.
    Since(tokio::time::Instant),
    /// They do not, and it was said.
    Told,
}

/// See the module's text.
pub(super) struct Ensemble {
    pub(super) config: config::Ensemble,
    store_id: u64,
    /// See [`Tree::disk`]; 0 until it takes part.
    disk_number: AtomicU32,
    /// See [`Identity::observes`].
    observes: AtomicBool,
    /// The store holds nothing: this server may have to ask before it takes part.
    empty: bool,
    disk: SharedDisk,
    reserve_bytes: u64,
    tree_options: TreeOptions,
    /// Of the tree in use.
    exporter: Mutex<Exporter>,
    links: OnceLock<Links>,
    engine: OnceLock<(Engine, LogReader)>,
    founding: Mutex<Founding>,
    states: Mutex<BTreeMap<ServerId, LinkState>>,
    /// To whom there is not always a link, or who left and may be back: nobody waits for them. Locked behind `states`.
    on_demand: Mutex<BTreeSet<ServerId>>,
    unknown: Mutex<Unknown>,
    /// Where each server was found last, as the file or a table said; at most one for each id.
    addrs: Mutex<BTreeMap<ServerId, String>>,
    metrics: Arc<Metrics>,
    /// A snapshot that is all here, until consensus takes it or does not.
    staged: Mutex<Option<Staged>>,
}

impl Ensemble {
    /// Of the server whose tree this is; `empty`: nothing was ever written or promised with its store.
    pub(super) fn new(
        config: config::Ensemble,
        tree: &Tree,
        empty: bool,
        tree_options: TreeOptions,
        disk: SharedDisk,
        reserve_bytes: u64,
        metrics: Arc<Metrics>,
    ) -> Arc<Ensemble> {
        let store_id = tree.store_id();
        let founding = Mutex::new(Founding::new(store_id, config.voters(), config.join));
        let on_demand: BTreeSet<ServerId> = peers(&config)
            .into_iter()
            .filter(|peer| peer.hold == Hold::OnDemand)
            .map(|peer| peer.id)
            .collect();
        let unlinked = |id| match on_demand.contains(&id) {
            true => (id, LinkState::Idle),
            false => (id, LinkState::Down(NOT_YET.to_owned())),
        };
        let states = Mutex::new(config.others().map(|s| unlinked(s.id)).collect());
        let addrs = Mutex::new(config.others().map(|s| (s.id, s.peer_addr.to_string())).collect());
        Arc::new(Ensemble {
            config,
            store_id,
            disk_number: AtomicU32::new(tree.disk()),
            observes: AtomicBool::new(tree.begun().observes),
            empty,
            disk,
            reserve_bytes,
            tree_options,
            exporter: Mutex::new(tree.exporter()),
            links: OnceLock::new(),
            engine: OnceLock::new(),
            founding,
            states,
            on_demand: Mutex::new(on_demand),
            unknown: Mutex::new(Unknown::No),
            addrs,
            metrics,
            staged: Mutex::new(None),
        })
    }

    /// The links are there.
    pub(super) fn attach_links(&self, links: Links) {
        assert!(self.links.set(links).is_ok(), "links are attached once");
    }

    /// From now on the machines are told what comes.
    pub(super) fn attach_engine(&self, engine: Engine, reader: LogReader) {
        assert!(self.engine.set((engine, reader)).is_ok(), "the engine is attached once");
        // Who asked before, and was told that all is empty, asks again; the others are told who this is.
        self.peers().into_iter().for_each(|server| self.ask(server));
    }

    /// The other servers, as far as there are links to them.
    fn peers(&self) -> Vec<ServerId> {
        self.states.lock().keys().copied().collect()
    }

    /// Which of its disks this server takes part with.
    pub(super) fn take_part(&self, identity: Identity) {
        self.disk_number.store(identity.disk, Ordering::Relaxed);
        self.observes.store(identity.observes, Ordering::Relaxed);
    }

    /// Of this tree those are from now on who belong to the ensemble and who vote by raft's configuration; see
    /// [`membership::linked`] for `current`.
    pub(super) fn set_members(&self, tree: &Tree, current: bool) {
        let members = tree.members();
        if members.servers.is_empty() {
            return;
        }
        let voters = Configuration::of(tree.conf_state()).servers();
        let file = membership::found(&self.config);
        let mut wanted = membership::linked(members, tree.retired(), &voters, &file, current);
        wanted.remove(&self.config.server_id);
        let left = |id: &ServerId| tree.retired().contains_key(id) && !voters.contains(id);
        let peers: Vec<PeerAddr> = {
            let mut addrs = self.addrs.lock();
            // Who left may have come back at another place than it had.
            let back = file.servers.iter().filter(|member| left(&member.id));
            let places = back.chain(&members.servers).map(|member| (member.id, member.peer_addr.clone()));
            addrs.extend(places);
            // Who votes for a while yet, and is in no table and no file, was in a table of this run.
            let votes = |id: ServerId| membership::may_vote(members, &voters, &file, id);
            let own = votes(self.config.server_id);
            let peer = |id: &ServerId| {
                Some(PeerAddr { id: *id, addr: addrs.get(id)?.clone(), hold: hold(own, votes(*id)) })
            };
            wanted.iter().filter_map(peer).collect()
        };
        {
            let mut states = self.states.lock();
            states.retain(|id, _| wanted.contains(id));
            let mut on_demand = self.on_demand.lock();
            on_demand.clear();
            for peer in &peers {
                let state = states.entry(peer.id).or_insert(LinkState::Idle);
                if peer.hold == Hold::OnDemand || left(&peer.id) {
                    on_demand.insert(peer.id);
                    if !matches!(state, LinkState::Up) {
                        *state = LinkState::Idle;
                    }
                } else if matches!(state, LinkState::Idle) {
                    *state = LinkState::Down(NOT_YET.to_owned());
                }
            }
        }
        if let Some(links) = self.links.get() {
            links.set_peers(peers);
        }
    }

    /// Who this server is, for the leader's record.
    pub(super) fn introduce(&self, engine: &Engine) {
        engine.met(self.config.server_id, self.disk_number.load(Ordering::Relaxed), self.store_id);
    }

    /// The links, once they are there.
    pub(super) fn links(&self) -> Option<&Links> {
        self.links.get()
    }

    /// No more links: the server stops.
    pub(super) fn stop(&self) {
        if let Some(links) = self.links.get() {
            links.stop();
        }
    }

    /// How each link is.
    pub(super) fn states(&self) -> BTreeMap<ServerId, LinkState> {
        self.states.lock().clone()
    }

    /// Send it, or tell consensus that it could not be sent. Who wants to be fed is who makes a link, where there is not always
    /// one: all else that goes over it is an answer.
    pub(super) fn send(&self, to: ServerId, message: PeerMessage) {
        let send = |links: &Links| match message {
            PeerMessage::Observe(_) => links.reach(to, message),
            _ => links.send(to, message),
        };
        let sent = self.links.get().is_some_and(|links| send(links).is_ok());
        if let (false, Some((engine, _))) = (sent, self.engine.get()) {
            engine.unreachable(to);
        }
    }

    /// A server leads. It may never have heard with which store this one takes part: then it would not be recorded.
    pub(super) fn on_leader(&self, leader: ServerId) {
        if leader != self.config.server_id {
            self.ask(leader);
        }
    }

    fn ask(&self, to: ServerId) {
        // Lost is lost: it is asked again, and a new link asks by itself.
        if let Some(links) = self.links.get() {
            let disk = self.disk_number.load(Ordering::Relaxed);
            let _ = links.send(to, PeerMessage::Ask(Ask { store_id: self.store_id, disk }));
        }
    }

    /// As what a founder takes part.
    pub(super) fn founders(&self) -> BTreeMap<ServerId, u64> {
        self.founding.lock().founders()
    }

    /// Ask until it is clear whether this server, whose store is empty, may take part.
    pub(super) async fn may_take_part(&self) -> Verdict {
        let mut said = tokio::time::Instant::now();
        let began = said;
        loop {
            let (verdict, certain) = {
                let founding = self.founding.lock();
                (founding.verdict(), founding.is_certain())
            };
            match verdict {
                Verdict::Join { .. } | Verdict::Observe { .. } => return verdict,
                Verdict::Found if certain || began.elapsed() >= ABSENT_AFTER => return verdict,
                _ => {}
            }
            self.config.others().for_each(|server| self.ask(server.id));
            tokio::time::sleep(ASK_EVERY).await;
            if said.elapsed() >= SAY_EVERY {
                said = tokio::time::Instant::now();
                let missing: Vec<String> = self
                    .states()
                    .iter()
                    .filter_map(|(id, state)| match state {
                        LinkState::Up | LinkState::Idle => None,
                        LinkState::Down(why) => Some(format!("{id} ({why})")),
                        LinkState::Removed => Some(format!("{id} (it knows no such server)")),
                    })
                    .collect();
                let id = self.config.server_id;
                // The others do not even link up with a server that they have not let in.
                let own = self.config.own();
                let clients = own.client_addr.as_ref().map_or("HOST:PORT".to_owned(), ToString::to_string);
                let add = format!("warren member add {id} {} {clients}", own.peer_addr);
                match verdict {
                    Verdict::Wiped { by, recorded } => {
                        tracing::error!(
                            "server {by} says that this one took part with another store ({recorded:016x}): its data were \
                             lost or exchanged. It must not vote again as if nothing had happened. Bring its own data \
                             back, or let it come as a new one: `warren member replace {id}` on another server"
                        );
                        continue;
                    }
                    Verdict::NoPlace => {
                        tracing::warn!(
                            "this server does not belong to the ensemble: `{add}` on another server lets it come"
                        );
                        continue;
                    }
                    Verdict::Wait | Verdict::Found | Verdict::Join { .. } | Verdict::Observe { .. } => {}
                }
                let missing = missing.join(", ");
                if self.config.join {
                    tracing::warn!(
                        "this server's store is empty, and its settings say `join`: it founds no ensemble, and waits for the \
                         one that is there; not linked: {missing}. If that one serves without it, `{add}` on one of its \
                         servers lets it come; if there is none yet, take `join` out"
                    );
                    continue;
                }
                tracing::warn!(
                    "this server's store is empty, and it takes part only once enough of the others say what they \
                     know of it; not linked: {missing}. If they serve without it, it is new to them: put `join = true` into \
                     its [ensemble], so that it founds none of its own; `{add}` on one of them lets it come"
                );
            }
        }
    }

    /// Ask until it is clear whether this server may found the ensemble with the data that it was given.
    pub(super) async fn may_found_with_data(&self) {
        let began = tokio::time::Instant::now();
        let mut said = None;
        loop {
            let states = self.states();
            let voters = self.config.others().filter(|server| self.config.votes(server.id));
            let linked = |id| matches!(states.get(&id), Some(LinkState::Up));
            let patience = began.elapsed() < ABSENT_AFTER;
            let verdict =
                self.founding.lock().with_data(voters.map(|server| (server.id, linked(server.id))), patience);
            match verdict {
                WithData::Found => return,
                // A link that has just come up has said nothing yet.
                WithData::NotEmpty(server) if !patience => {
                    if said.is_none_or(|said: tokio::time::Instant| said.elapsed() >= SAY_EVERY) {
                        said = Some(tokio::time::Instant::now());
                        tracing::error!(
                            "this server's data were restored or imported, and server {server} has data, too: of before, or \
                             restored as well. There would be two ensembles, so none is founded. Stop server {server}, \
                             empty its data folder, and start it again: it is sent the data from here"
                        );
                    }
                }
                WithData::NotEmpty(_) | WithData::Wait => {}
            }
            self.config.others().for_each(|server| self.ask(server.id));
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    /// Stream the newest checkpoint to a server that is too far behind for the log, once the others have confirmed it
    /// ([`crate::divergence`]). `message` goes first; its head is rewritten to what is streamed. The engine is told how it
    /// ended.
    pub(super) fn send_snapshot(self: &Arc<Self>, room: &Arc<Room>, to: ServerId, message: RaftMessage) {
        let (ensemble, room) = (self.clone(), room.clone());
        let run = move || {
            only_when_idle();
            let sent = ensemble.confirmed(&room, to).and_then(|export| ensemble.stream(to, message, export));
            match &sent {
                Ok(bytes) => tracing::info!(server = to, bytes, "sent a snapshot"),
                Err(e) => tracing::warn!(server = to, "a snapshot could not be sent: {e}"),
            }
            if let Some((engine, _)) = ensemble.engine.get() {
                engine.snapshot_sent(to, sent.is_ok());
            }
        };
        let spawned = thread::Builder::new().name("warren-snapshot".into()).spawn(run);
        if let (Err(e), Some((engine, _))) = (spawned, self.engine.get()) {
            tracing::warn!(server = to, "a snapshot could not be sent: {e}");
            engine.snapshot_sent(to, false);
        }
    }

    /// The newest checkpoint, as one that may be given away. There may be newer ones while it is waited for.
    fn confirmed(&self, room: &Room, to: ServerId) -> Result<Export, Box<dyn std::error::Error>> {
        let began = std::time::Instant::now();
        loop {
            let export = self.exporter.lock().clone().export()?;
            let index = export.head().position.index;
            match room.confirmation(index) {
                Confirmation::Confirmed => return Ok(export),
                Confirmation::Contradicted => {
                    return Err("other servers have another tree than this one".into());
                }
                Confirmation::Awaited if room.is_stopping() => return Err("this server stops".into()),
                Confirmation::Awaited if began.elapsed() >= CONFIRMED_WITHIN * COMPARE_EVERY => {
                    tracing::warn!(
                        server = to,
                        index,
                        "no majority has said whether this server's tree is what the log makes, and nobody contradicts: it is \
                         sent as it is"
                    );
                    return Ok(export);
                }
                Confirmation::Awaited => thread::sleep(CONFIRMED_LOOK_EVERY),
            }
        }
    }

    fn stream(
        &self,
        to: ServerId,
        mut message: RaftMessage,
        mut export: Export,
    ) -> Result<u64, Box<dyn std::error::Error>> {
        let links = self.links.get().ok_or("there are no links yet")?;
        let made_of = export.head();
        if let Some(head) = &mut message.snapshot {
            (head.index, head.term) = (made_of.position.index, made_of.position.term);
            head.conf_state = made_of.conf_state.clone().into();
        }
        tracing::info!(server = to, index = made_of.position.index, "sending a snapshot");
        let mut stream = links.open_snapshot(to, message)?;
        let mut bytes = 0;
        while let Some(chunk) = export.next_chunk(bulk::SNAPSHOT_SLICE_BYTES)? {
            let slice_bytes = chunk.len();
            bytes += slice_bytes as u64;
            stream.send(chunk)?;
            bulk::pause(slice_bytes);
        }
        stream.finish()?;
        Ok(bytes)
    }

    /// Consensus did not want what was received.
    pub(super) fn forget_staged(&self) {
        *self.staged.lock() = None;
    }

    /// Put the snapshot that consensus took in the place of the tree.
    pub(super) fn install(&self, head: &SnapshotHead) -> Result<Tree, InstallError> {
        // Held until it is done, so that nobody begins to receive another one.
        let mut staged = self.staged.lock();
        let taken = staged.take().ok_or(InstallError::Gone)?;
        if (taken.position().index, taken.position().term) != (head.index, head.term) {
            return Err(InstallError::Gone);
        }
        let tree = Tree::replace(self.disk.clone(), taken, self.tree_options)?;
        *self.exporter.lock() = tree.exporter();
        Ok(tree)
    }

    /// This one knows no such server as ours. It was removed while it was down, or cut off.
    fn on_unknown_to(&self, server: ServerId) {
        if self.engine.get().is_none() {
            self.founding.lock().hear_stranger(server);
        }
        let most = {
            let mut states = self.states.lock();
            self.lay_down(&mut states, server, LinkState::Removed);
            most_removed(&states)
        };
        let mut unknown = self.unknown.lock();
        match *unknown {
            Unknown::No if most => *unknown = Unknown::Since(tokio::time::Instant::now()),
            // Who is not let in yet says so itself.
            Unknown::Since(since) if since.elapsed() >= UNKNOWN_AFTER && self.engine.get().is_some() => {
                *unknown = Unknown::Told;
                tracing::error!("{}", admin::not_a_member(self.config.server_id));
            }
            _ => {}
        }
    }

    /// There is no link to this one. Where there need not be one, that says nothing; whether this server belongs to the ensemble is
    /// for those to say to whom there always is one.
    fn lay_down(&self, states: &mut BTreeMap<ServerId, LinkState>, server: ServerId, as_known: LinkState) {
        if let Some(state) = states.get_mut(&server) {
            *state = if self.on_demand.lock().contains(&server) { LinkState::Idle } else { as_known };
        }
    }

    /// Do the others say that this server is not one of theirs any more?
    pub(super) fn is_unknown(&self) -> bool {
        matches!(*self.unknown.lock(), Unknown::Told)
    }

    /// Which of its disks this server takes part with.
    pub(super) fn disk_number(&self) -> u32 {
        self.disk_number.load(Ordering::Relaxed)
    }

    /// See [`warren_storage::discard`].
    pub(super) fn ask_to_discard(&self) -> Result<(), DiskError> {
        ask_to_discard(&*self.disk)
    }

    fn identity(&self) -> Identity {
        let observes = self.observes.load(Ordering::Relaxed);
        Identity { store_id: self.store_id, disk: self.disk_number.load(Ordering::Relaxed), observes }
    }

    fn receive(&self, from: ServerId, mut stream: SnapshotReceiver) -> Result<RaftMessage, ReceiveError> {
        let message = stream.head().clone();
        // One at a time, and none while one is being put in place.
        let mut staged = self.staged.try_lock().ok_or(ReceiveError::Busy)?;
        if staged.is_some() {
            return Err(ReceiveError::Busy);
        }
        let mut import = Import::begin(self.disk.clone(), self.identity(), self.reserve_bytes)?;
        let received = loop {
            match stream.next_chunk() {
                Ok(Some(chunk)) => {
                    if let Err(e) = import.push(&chunk) {
                        break Err(e.into());
                    }
                }
                Ok(None) => break Ok(()),
                Err(e) => break Err(ReceiveError::Stream(e)),
            }
        };
        if let Err(e) = received {
            import.abandon()?;
            return Err(e);
        }
        let whole = import.finish()?;
        let head = message.snapshot.as_ref().ok_or(ReceiveError::OtherHead)?;
        if (head.index, head.term) != (whole.position().index, whole.position().term) {
            return Err(ReceiveError::OtherHead);
        }
        tracing::info!(server = from, index = head.index, "received a snapshot");
        *staged = Some(whole);
        Ok(message)
    }
}

/// Why a snapshot was not taken.
#[derive(Debug, thiserror::Error)]
enum ReceiveError {
    #[error(transparent)]
    Stream(#[from] SnapshotError),
    #[error(transparent)]
    Import(#[from] ImportError),
    #[error("what was streamed is not what was announced")]
    OtherHead,
    #[error("another one is being received or put in place")]
    Busy,
}

/// Why a snapshot cannot be put in place.
#[derive(Debug, thiserror::Error)]
pub(super) enum InstallError {
    #[error("what was received is no longer there")]
    Gone,
    #[error(transparent)]
    Tree(#[from] TreeError),
}

/// The handler of the links. A type of its own, as the links keep it and the ensemble keeps the links.
pub(super) struct Handler(pub(super) Arc<Ensemble>);

impl LinkHandler for Handler {
    fn message(&self, from: ServerId, message: PeerMessage) {
        let ensemble = &self.0;
        match (message, ensemble.engine.get()) {
            (PeerMessage::Ask(_), None) => {
                // One with history says no more than that before it knows what it has: it is asked again.
                let answer = match ensemble.empty {
                    true => Answer::Empty(ensemble.store_id),
                    false => Answer::Undecided,
                };
                if let Some(links) = ensemble.links.get() {
                    let _ = links.send(from, PeerMessage::Answer(answer));
                }
            }
            // Observers have no say in who takes part.
            (PeerMessage::Answer(answer), None) if ensemble.config.votes(from) => {
                ensemble.founding.lock().hear(from, answer);
            }
            // Before consensus begins here, nobody counts on this server.
            (_, None) => {}
            (PeerMessage::Answer(Answer::Recorded(known)), Some((engine, _))) => engine.recorded(known),
            (PeerMessage::Answer(_), Some(_)) => {}
            (PeerMessage::Ask(Ask { store_id, disk }), Some((engine, reader))) => {
                engine.met(from, disk, store_id);
                let ensemble = ensemble.clone();
                let last_index = reader.last_index();
                engine.look(move |service| {
                    let answer = founding::answer(service.tree(), last_index, !service.is_wrong(), from);
                    ensemble.send(from, PeerMessage::Answer(answer));
                });
            }
            (message, Some((engine, _))) => engine.hear_peer(from, message),
        }
    }

    fn link_up(&self, server: ServerId) {
        self.0.states.lock().insert(server, LinkState::Up);
        *self.0.unknown.lock() = Unknown::No;
        self.0.ask(server);
    }

    fn link_down(&self, server: ServerId, why: DownReason) {
        if let (DownReason::Removed, None) = (&why, self.0.engine.get()) {
            self.0.founding.lock().hear_stranger(server);
        }
        {
            let mut states = self.0.states.lock();
            let state = match why {
                DownReason::Removed => LinkState::Removed,
                why => LinkState::Down(why.to_string()),
            };
            self.0.lay_down(&mut states, server, state);
            // One alone may be behind itself, and know a table that is no more.
            if most_removed(&states) {
                if let Some((engine, _)) = self.0.engine.get() {
                    engine.expelled();
                }
            }
        }
        if let Some((engine, _)) = self.0.engine.get() {
            engine.unreachable(server);
        }
    }

    fn unreached(&self, server: ServerId) {
        if let Some((engine, _)) = self.0.engine.get() {
            engine.unreachable(server);
        }
    }

    fn snapshot(&self, from: ServerId, stream: SnapshotReceiver) {
        let ensemble = self.0.clone();
        let run = move || {
            only_when_idle();
            let Some((engine, _)) = ensemble.engine.get() else { return };
            match ensemble.receive(from, stream) {
                Ok(message) => engine.snapshot_received(from, message),
                Err(e) => tracing::warn!(server = from, "a snapshot was not taken: {e}"),
            }
        };
        if let Err(e) = thread::Builder::new().name("warren-import".into()).spawn(run) {
            tracing::warn!(server = from, "a snapshot was not taken: {e}");
        }
    }

    fn refused(&self, refusal: Refusal) {
        self.0.metrics.warren_peers_refused_total.add(1);
        if let (RefusalReason::UnknownToPeer, Some(server)) = (refusal.reason, refusal.server) {
            self.0.on_unknown_to(server);
        }
    }
}
