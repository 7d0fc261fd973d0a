//! How a connection ends when the daemon stops, or goes on when the daemon begins anew in place.

use super::{Client, Leave};
use crate::connection::{Effects, REPLY_BYTES_WAITING_MAX};
use bytes::BytesMut;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a closing connection may take to answer what it accepted.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// After our end of a connection is closed, a client that sends nothing may take so long to close its own.
const GOODBYE_SILENCE: Duration = Duration::from_millis(500);
/// The same for one that goes on sending.
const GOODBYE_WITHIN: Duration = Duration::from_secs(2);
/// What it may send meanwhile, bytes: more than a socket holds.
const GOODBYE_BYTES_MAX: usize = 16 << 20;

impl Client {
    /// The daemon stops: nothing more is read, and what was read is answered first.
    pub(super) async fn finish(&mut self, input: &mut BytesMut, out: &mut Vec<u8>, effects: &mut Effects) {
        let until = tokio::time::Instant::now() + ANSWER_WITHIN;
        loop {
            let now = self.clients.clock.now();
            if self.connection.turn(now, &self.clients.room, input, out, effects).is_err() {
                return;
            }
            self.clients.engine.submit(effects);
            let full = out.len() >= REPLY_BYTES_WAITING_MAX;
            if self.flush(out).await.is_err() {
                return;
            }
            if self.connection.ending().is_some() || (self.connection.outstanding() == 0 && !full) {
                break;
            }
            if full || std::mem::take(&mut self.woken) {
                continue;
            }
            tokio::select! {
                _ = self.notify.notified() => {}
                _ = tokio::time::sleep_until(until) => break,
            }
        }
        self.goodbye().await;
    }

    /// Close so that the client still reads what was sent: first our side, then what it still sends is read and
    /// thrown away until it closes too, for a reset would take our last bytes with it.
    pub(super) async fn goodbye(&mut self) {
        self.clients.parking.parting.fetch_add(1, Ordering::AcqRel);
        let _ = rustix::net::shutdown(&self.stream, rustix::net::Shutdown::Write);
        let drain = async {
            let mut scrap = vec![0; 16 << 10];
            let mut budget = GOODBYE_BYTES_MAX;
            while let Ok(Ok(())) = tokio::time::timeout(GOODBYE_SILENCE, self.stream.readable()).await {
                match self.stream.try_read(&mut scrap) {
                    Ok(0) => break,
                    Ok(n) => {
                        budget = budget.saturating_sub(n);
                        if budget == 0 {
                            break;
                        }
                    }
                    Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => break,
                }
            }
        };
        let _ = tokio::time::timeout(GOODBYE_WITHIN, drain).await;
        self.clients.parking.parting.fetch_sub(1, Ordering::AcqRel);
    }

    /// The daemon begins anew in place: nothing more is read, what was read is answered, and events go on until nothing more
    /// is applied. Then the connection is kept for the next process. Says why it ended, where it did not come to that.
    pub(super) async fn park(&mut self, input: &[u8], out: &mut Vec<u8>, effects: &mut Effects) -> String {
        let until = tokio::time::Instant::now() + ANSWER_WITHIN;
        let mut is_parked = false;
        let why = loop {
            // Looked at before the turn, which then is the last one.
            let gather = self.clients.leaves() == Leave::Gather;
            let now = self.clients.clock.now();
            // What the client sent meanwhile is for the next process.
            let turned = self.connection.turn(now, &self.clients.room, &mut BytesMut::new(), out, effects);
            if let Err(e) = turned {
                break e.to_string();
            }
            self.clients.engine.submit(effects);
            self.shown.show(&self.connection);
            if let Err(e) = self.send_what_goes(out) {
                break e.to_string();
            }
            let settled = self.connection.is_settled();
            if settled != is_parked {
                is_parked = settled;
                let parked = &self.clients.parking.parked;
                if settled {
                    parked.fetch_add(1, Ordering::AcqRel)
                } else {
                    parked.fetch_sub(1, Ordering::AcqRel)
                };
            }
            let late = !settled && tokio::time::Instant::now() >= until;
            if self.connection.ending().is_some() || (gather && !settled) || late {
                if self.flush(out).await.is_ok() {
                    self.goodbye().await;
                }
                break "this server begins anew, and could not answer all before".to_owned();
            }
            if gather {
                break match self.keep(input, out) {
                    Ok(()) => String::new(),
                    Err(why) => why,
                };
            }
            tokio::select! {
                _ = self.notify.notified() => {}
                _ = self.stream.writable(), if !out.is_empty() => {}
                _ = tokio::time::sleep_until(until), if !settled => {}
            }
        };
        if is_parked {
            self.clients.parking.parked.fetch_sub(1, Ordering::AcqRel);
        }
        why
    }

    fn keep(&mut self, input: &[u8], out: &[u8]) -> Result<(), String> {
        let Some(kept) = self.connection.keep(&self.clients.room, input, out) else {
            return Err("this server begins anew, and its session ends with it".to_owned());
        };
        let socket: OwnedFd = self.stream.as_fd().try_clone_to_owned().map_err(|e| e.to_string())?;
        self.clients.parking.kept.lock().push((kept, socket));
        self.is_kept = true;
        Ok(())
    }

    /// As much as the client takes now.
    fn send_what_goes(&self, out: &mut Vec<u8>) -> std::io::Result<()> {
        while !out.is_empty() {
            match self.stream.try_write(out) {
                Ok(n) => drop(out.drain(..n)),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}
