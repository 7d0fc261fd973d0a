//! A connection of its own for each snapshot, on a thread of its own. What is sealed, opened and copied for a snapshot takes a
//! processor for milliseconds at a time; on the link's connection and thread a heartbeat or an append would wait behind it.
//!
//! Whoever has a snapshot to send dials, from the same socket and to the place where the link leads; certificates are judged as
//! a link's. The connection lives no longer than the link does. Which thread a connection runs on is to be known before its
//! first packet is opened, so its first id says what it is for; a stranger who says the same gains nothing by it, as the
//! handshake asks for another protocol ([`Purpose`]).

use super::link::{Ended, Live};
use super::peer::Peer;
use super::snapshot::{self, SnapshotError, SnapshotReceiver};
use super::tls::Purpose;
use super::{SNAPSHOT_STALL, Shared, dial};
use quinn::{Connection, Incoming};
use quinn_proto::{ConnectionId, ConnectionIdGenerator, RandomConnectionIdGenerator};
use std::sync::Arc;
use tokio::time::timeout;

/// What the first id of such a connection begins with.
const MARK: [u8; 4] = *b"bulk";
/// Of such an id; QUIC has none that are longer (RFC 9000, section 17.2).
const ID_BYTES: usize = 20;

/// The first id of a connection that is dialled for a snapshot. What is behind the mark is left to chance, as QUIC wants it.
pub(super) fn marked_id() -> ConnectionId {
    let mut id = RandomConnectionIdGenerator::new(ID_BYTES).generate_cid().to_vec();
    id[..MARK.len()].copy_from_slice(&MARK);
    ConnectionId::new(&id)
}

/// What does a dialler want, by its first packet?
pub(super) fn purpose(incoming: &Incoming) -> Purpose {
    if incoming.orig_dst_cid().starts_with(&MARK) { Purpose::Snapshot } else { Purpose::Link }
}

/// Dial for a snapshot. Runs on the thread that carries them.
pub(super) async fn connect(
    shared: &Shared,
    peer: &Peer,
    live: &Arc<Live>,
) -> Result<Connection, SnapshotError> {
    let addr = live.connection.remote_address();
    let connection = dial::connect(shared, peer, addr, Purpose::Snapshot).await;
    let connection = connection.map_err(SnapshotError::Unconnected)?;
    let (bulk, link) = (connection.clone(), live.connection.clone());
    tokio::spawn(async move { end_with(&bulk, &link).await });
    Ok(connection)
}

/// Until the one ends; and end it when the other does.
async fn end_with(bulk: &Connection, link: &Connection) {
    tokio::select! {
        _ = bulk.closed() => {}
        _ = link.closed() => bulk.close(snapshot::BROKEN, b"the link is down"),
    }
}

/// Take what `peer` sends by a connection that it dialled for a snapshot, until that ends.
pub(super) async fn receive(shared: &Shared, peer: &Peer, connection: Connection) {
    let Some(live) = peer.live() else {
        return connection.close(snapshot::BROKEN, b"there is no link");
    };
    let Ok(_one_of_few) = peer.receiving.try_acquire() else {
        return connection.close(snapshot::BROKEN, b"too many snapshots are under way");
    };
    let taking = async {
        match begin(&connection, &live).await {
            Ok(receiver) => shared.handler.snapshot(peer.id, receiver),
            Err(Ended::Fault(fault)) => live.refuse(shared, peer.id, fault),
            Err(Ended::Connection) => connection.close(snapshot::BROKEN, b"it did not begin"),
        }
    };
    tokio::select! {
        () = taking => {}
        _ = live.connection.closed() => {}
    }
    end_with(&connection, &live.connection).await;
}

async fn begin(connection: &Connection, live: &Arc<Live>) -> Result<SnapshotReceiver, Ended> {
    match timeout(SNAPSHOT_STALL, connection.accept_uni()).await {
        Ok(Ok(stream)) => SnapshotReceiver::open(connection.clone(), live.clone(), stream).await,
        Ok(Err(_)) | Err(_) => Err(Ended::Connection),
    }
}
