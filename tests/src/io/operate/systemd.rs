//! A systemd that does not read what it is told holds up nobody; one that reads is told all of it, in its order.

use super::Outcome;
use super::fleet::Fleet;
use crate::io::daemon::{Daemon, PATIENCE};
use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

/// A stop may take so long: a second of it is for a systemd that does not read.
const STOP_WITHIN: Duration = Duration::from_secs(20);
/// What stands in the way of the daemon's messages.
const FILLER: &[u8] = b"STATUS=of somebody else";

/// Whatever has arrived.
fn arrived(systemd: &UnixDatagram) -> Outcome<Vec<String>> {
    systemd.set_nonblocking(true)?;
    let (mut messages, mut bytes) = (Vec::new(), [0; 4096]);
    loop {
        match systemd.recv(&mut bytes) {
            Ok(n) => messages.push(String::from_utf8_lossy(&bytes[..n]).trim_end().to_owned()),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(messages),
            Err(e) => return Err(e.into()),
        }
    }
}

/// Messages up to the first that begins so.
fn until_told(systemd: &UnixDatagram, what: &str) -> Outcome<Vec<String>> {
    systemd.set_nonblocking(false)?;
    systemd.set_read_timeout(Some(PATIENCE))?;
    let (mut messages, mut bytes) = (Vec::new(), [0; 4096]);
    loop {
        let n = systemd.recv(&mut bytes).map_err(|e| format!("no {what} after {messages:?}: {e}"))?;
        messages.push(String::from_utf8_lossy(&bytes[..n]).trim_end().to_owned());
        if messages.last().is_some_and(|last| last.starts_with(what)) {
            return Ok(messages);
        }
    }
}

/// It must have been told these in this order, whatever came between.
fn in_order(told: &[String], expected: &[&str]) -> Outcome<()> {
    let mut rest = told.iter();
    match expected.iter().find(|prefix| !rest.any(|message| message.starts_with(**prefix))) {
        None => Ok(()),
        Some(missing) => Err(format!("{missing} is not told, or not in its turn: {told:?}").into()),
    }
}

pub(super) fn does_not_read(fleet: &mut Fleet) -> Outcome<()> {
    let folder = fleet.folder.join("notified");
    let mut daemon = Daemon::new(&fleet.warrend, &folder, "[admin]\naddr = 'off'\n", &mut fleet.dice)?;
    let socket = folder.join("notify");
    let systemd = UnixDatagram::bind(&socket)?;
    daemon.notifies(&socket);
    let filler = UnixDatagram::unbound()?;
    filler.set_nonblocking(true)?;
    let mut filled = 0;
    loop {
        match filler.send_to(FILLER, &socket) {
            Ok(_) => filled += 1,
            Err(e) if e.kind() == ErrorKind::WouldBlock => break,
            Err(e) => return Err(e.into()),
        }
    }

    // Nobody waits for it: neither clients, nor the administration, nor the stop.
    daemon.start()?;
    let data = folder.join("data").display().to_string();
    fleet.warren(&["--data-dir", &data, "status"])?.must(0, "standalone")?;
    let began = Instant::now();
    daemon.stop()?;
    if began.elapsed() > STOP_WITHIN {
        return Err(format!("the stop took {:?}", began.elapsed()).into());
    }
    if daemon.said("systemd does not read what it is told") == 0 {
        return Err("it does not say that systemd did not read".into());
    }
    let told = arrived(&systemd)?;
    if told.len() != filled || told.iter().any(|message| message.as_bytes() != FILLER) {
        return Err(format!("there was room after all: {told:?}").into());
    }

    // Once it reads again, it learns how things are now.
    while filler.send_to(FILLER, &socket).is_ok() {}
    daemon.start()?;
    let told = until_told(&systemd, "STATUS=serving clients")?;
    in_order(&told, &["STATUS=opening the store", "READY=1", "STATUS=serving clients, standalone"])?;
    daemon.signal(rustix::process::Signal::HUP)?;
    let told = until_told(&systemd, "READY=1")?;
    in_order(&told, &["RELOADING=1\nMONOTONIC_USEC=", "READY=1"])?;
    // What is told last has arrived when the process is gone.
    daemon.stop()?;
    in_order(&arrived(&systemd)?, &["STOPPING=1\nSTATUS=stopping: writing a last checkpoint"])
}
