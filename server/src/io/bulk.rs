//! What a server does in bulk beside its clients: sending its tree to another server or into a backup, and receiving one.
//! It goes at one pace, on threads that work when nobody else does ([`super::priority::only_when_idle`]), so that whoever a
//! client waits for finds a processor and the network free.

use super::Clock;
use crate::pace::Pace;
use parking_lot::Mutex;
use std::sync::LazyLock;
use std::thread;

/// Of a tree for a backup, at a time, unless a single row is larger; bytes. On few cores it is what a client's request may have
/// to wait for.
pub(super) const BACKUP_SLICE_BYTES: usize = 64 << 10;
/// The same for another server. More, as each costs several threads a change, on both ends: with a quarter of it clients waited
/// longer, and so did the other server.
pub(super) const SNAPSHOT_SLICE_BYTES: usize = 1 << 20;
/// All that a server sends in bulk, together; bytes a second. It leaves room for the rest on a network of 10 Gbit/s, on the
/// disk of who receives it, and on two cores, which could send a quarter more: clients' longest waits were longer then.
const BYTES_PER_S_MAX: u64 = 128 << 20;

static PACE: LazyLock<(Clock, Mutex<Pace>)> =
    LazyLock::new(|| (Clock::start(), Mutex::new(Pace::new(BYTES_PER_S_MAX))));

/// So many bytes are sent: wait until it is time for more. For threads, never in a task.
pub(super) fn pause(bytes: usize) {
    let (clock, pace) = &*PACE;
    let pause = pace.lock().took(clock.now(), bytes as u64);
    thread::sleep(pause);
}
