//! Where to listen: names to addresses, and a listener at the first that can be bound.

use crate::config::Address;
use std::io;
use std::net::SocketAddr;
use tokio::net::TcpListener;

/// The first address of a name.
pub(super) async fn resolve(addr: &Address) -> io::Result<SocketAddr> {
    let mut last = None;
    for candidate in addr.bind_candidates() {
        match tokio::net::lookup_host(candidate).await {
            Ok(mut found) => {
                if let Some(addr) = found.next() {
                    return Ok(addr);
                }
            }
            Err(e) => last = Some(e),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::other("the name has no address")))
}

/// Listen for clients.
pub(super) async fn listen(addr: &Address, backlog: u32) -> io::Result<TcpListener> {
    let mut last = None;
    for candidate in addr.bind_candidates() {
        let found = match tokio::net::lookup_host(candidate).await {
            Ok(found) => found,
            Err(e) => {
                last = Some(e);
                continue;
            }
        };
        for at in found {
            match bind(at, backlog) {
                Ok(listener) => return Ok(listener),
                Err(e) => last = Some(e),
            }
        }
    }
    Err(last.unwrap_or_else(|| io::Error::other("the name has no address")))
}

fn bind(at: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if at.is_ipv6() {
        // As Java does: one listener for both families.
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&at.into())?;
    socket.listen(if backlog == 0 { 128 } else { i32::try_from(backlog).unwrap_or(i32::MAX) })?;
    TcpListener::from_std(socket.into())
}
