//! From one process to the next in its place: a socket that is the next one's standard input carries the others, and first a
//! file in memory that says what they are.

use super::{Handed, next_program};
use crate::connection::Kept;
use rustix::cmsg_space;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Seek as _, Write as _};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use warren_storage::Zxid;

/// Set to its own process id for a process that took the place of another; no child of it mistakes it for its own.
const TOLD_BY: &str = "WARREN_TAKES_OVER";
/// Of what is written down. Of another one nothing is understood, and connections are closed.
const FORMAT: &[u8] = b"warren restart 1\n";
/// Sockets in a message; the kernel takes 253.
const SOCKETS_A_MESSAGE: usize = 250;

/// What was handed over.
pub(in super::super) struct Taken {
    /// See [`Handed::zxid`].
    pub(in super::super) zxid: Zxid,
    pub(in super::super) listener: Option<TcpListener>,
    pub(in super::super) connections: Vec<(Kept, TcpStream)>,
    /// Connections that were handed over and did not arrive.
    pub(in super::super) lost: usize,
}

/// The connections stand behind it in [`postcard`]'s form, one after the other.
#[derive(Serialize, Deserialize)]
struct Head {
    zxid: u64,
    listens: bool,
    connections: u64,
}

/// Become the next process. Returns only when that fails, and why; the connections are closed then.
pub(in super::super) fn become_next(handed: &Handed) -> io::Error {
    let failed = |handed: &Handed| -> io::Result<io::Error> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        if let Err(e) = send(&ours, handed) {
            tracing::warn!("connections cannot be handed over, and clients have to connect anew: {e}");
        }
        let mut next = next_program()?;
        next.env(TOLD_BY, std::process::id().to_string()).stdin(theirs);
        Ok(next.exec())
    };
    failed(handed).unwrap_or_else(|e| e)
}

fn send(socket: &OwnedFd, handed: &Handed) -> io::Result<()> {
    let told = write_down(handed)?;
    let listener = handed.listener.as_ref().map(AsFd::as_fd);
    let connections = handed.connections.iter().map(|(_, socket)| socket.as_fd());
    let all: Vec<BorrowedFd<'_>> = [told.as_fd()].into_iter().chain(listener).chain(connections).collect();
    for some in all.chunks(SOCKETS_A_MESSAGE) {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(SOCKETS_A_MESSAGE))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(some)), "there is space for a message");
        // Nobody reads yet: what the kernel does not take at once it never will.
        sendmsg(socket, &[IoSlice::new(&[0])], &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

fn write_down(handed: &Handed) -> io::Result<File> {
    let head = Head {
        zxid: handed.zxid.0,
        listens: handed.listener.is_some(),
        connections: handed.connections.len() as u64,
    };
    let mut told = io::BufWriter::new(File::from(memfd_create("warren-restart", MemfdFlags::CLOEXEC)?));
    told.write_all(FORMAT)?;
    told.write_all(&postcard::to_allocvec(&head).map_err(io::Error::other)?)?;
    for (kept, _) in &handed.connections {
        told.write_all(&postcard::to_allocvec(kept).map_err(io::Error::other)?)?;
    }
    let mut told = told.into_inner().map_err(|e| e.into_error())?;
    told.rewind()?;
    Ok(told)
}

/// What the process before handed over, if there was one in this one's place.
pub(in super::super) fn receive() -> Option<Taken> {
    let own = std::process::id().to_string();
    if std::env::var(TOLD_BY).ok()? != own {
        return None;
    }
    match take(std::io::stdin().as_fd()) {
        Ok(taken) => Some(taken),
        Err(e) => {
            tracing::warn!("the connections of the process before are closed: {e}");
            None
        }
    }
}

fn take(socket: BorrowedFd<'_>) -> io::Result<Taken> {
    let mut sockets = Vec::new();
    loop {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(SOCKETS_A_MESSAGE))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let got = recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
        if got.bytes == 0 {
            break;
        }
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(some) = message {
                sockets.extend(some);
            }
        }
    }
    let mut sockets = sockets.into_iter();
    let mut told = Vec::new();
    File::from(sockets.next().ok_or_else(|| io::Error::other("nothing was handed over"))?)
        .read_to_end(&mut told)?;
    let Some(told) = told.strip_prefix(FORMAT) else {
        return Err(io::Error::other("they were written down by a version that this one does not know"));
    };
    let (head, mut told): (Head, _) = postcard::take_from_bytes(told).map_err(io::Error::other)?;
    let listener = if head.listens { sockets.next().map(TcpListener::from) } else { None };
    let mut connections = Vec::new();
    for socket in sockets {
        let (kept, rest) = postcard::take_from_bytes::<Kept>(told).map_err(io::Error::other)?;
        told = rest;
        connections.push((kept, TcpStream::from(socket)));
    }
    let lost = (head.connections as usize).saturating_sub(connections.len());
    Ok(Taken { zxid: Zxid(head.zxid), listener, connections, lost })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What goes in at one end.
    fn passed(handed: &Handed) -> io::Result<Taken> {
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        send(&ours, handed)?;
        drop(ours);
        take(theirs.as_fd())
    }

    fn pair(listener: &TcpListener) -> (TcpStream, OwnedFd) {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0.into())
    }

    #[test]
    fn sockets_and_what_they_are_arrive_in_their_order() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        let (mut clients, mut connections) = (Vec::new(), Vec::new());
        // More than one message takes.
        for n in 0..2 * SOCKETS_A_MESSAGE {
            let (client, socket) = pair(&listener);
            clients.push(client);
            connections.push((Kept::of_nobody(&n.to_le_bytes()), socket));
        }
        let told: Vec<Kept> = connections.iter().map(|(kept, _)| kept.clone()).collect();
        let handed = Handed { zxid: Zxid(7), listener: Some(listener), connections };
        let taken = passed(&handed).unwrap();
        drop(handed);
        assert_eq!((taken.zxid, taken.lost), (Zxid(7), 0));
        assert_eq!(taken.listener.unwrap().local_addr().unwrap(), at);
        assert_eq!(taken.connections.len(), clients.len());
        for ((mut client, (kept, mut socket)), told) in clients.into_iter().zip(taken.connections).zip(told) {
            assert_eq!(kept, told);
            socket.write_all(&kept.input).unwrap();
            drop(socket);
            let mut heard = Vec::new();
            client.read_to_end(&mut heard).unwrap();
            assert_eq!(heard, told.input);
        }
    }

    #[test]
    fn what_another_version_wrote_is_not_taken_for_ours() {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        let mut told = File::from(memfd_create("other", MemfdFlags::CLOEXEC).unwrap());
        told.write_all(b"warren restart 0\nwhatever").unwrap();
        told.rewind().unwrap();
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let some = [told.as_fd()];
        assert!(control.push(SendAncillaryMessage::ScmRights(&some)));
        sendmsg(&ours, &[IoSlice::new(&[0])], &mut control, SendFlags::empty()).unwrap();
        drop(ours);
        let refused = take(theirs.as_fd()).err().map(|e| e.to_string());
        assert!(refused.is_some_and(|why| why.contains("does not know")));
        // Nothing at all, as from a process that died.
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        drop(ours);
        assert!(take(theirs.as_fd()).is_err());
    }
}
