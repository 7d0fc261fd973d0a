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

/// Go on with a listener, if it is at an address of this name; otherwise listen anew.
pub(super) async fn listen_again(
    before: Option<std::net::TcpListener>,
    addr: &Address,
    backlog: u32,
) -> io::Result<TcpListener> {
    if let Some((before, at)) = before.and_then(|before| before.local_addr().ok().map(|at| (before, at))) {
        for candidate in addr.bind_candidates() {
            let found = tokio::net::lookup_host(candidate).await;
            // A port of 0 is any port.
            let here =
                |found: SocketAddr| found.ip() == at.ip() && (found.port() == at.port() || found.port() == 0);
            if found.is_ok_and(|mut found| found.any(here)) {
                return TcpListener::from_std(before);
            }
        }
    }
    listen(addr, backlog).await
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
