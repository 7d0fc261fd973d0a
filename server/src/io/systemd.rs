//! What systemd is told: when the server serves, that it goes on, that it reloads or stops, and how it is in one line. Where
//! nobody started it by `Type=notify`, all of this does nothing.

use super::Clock;
use super::engine::Engine;
use super::ensemble::Ensemble;
use super::link_state::LinkState;
use crate::pulse::{Beat, Pulse};
use crate::room::{Room, Standing};
use crate::words::Mode;
use parking_lot::{Condvar, Mutex};
use sd_notify::NotifyState;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;
use tokio::task::JoinHandle;

/// The watchdog is fed so often within its time, so that a late timer is no death.
const FEEDS: u32 = 4;
/// Between two looks where there is no watchdog.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// A start that makes progress may take so much longer, each time this is said: an ensemble may wait for its quorum for any
/// time.
const START_EXTENDED_BY: Duration = Duration::from_secs(60);

/// A process that takes another one's place has so long to serve; as `TimeoutStartSec=` in the packaged unit.
const START_WITHIN: Duration = Duration::from_secs(300);

/// At the end, systemd has so long to take what is still to be told.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(1);

/// What is still to be told, in the order in which it came about: of messages that begin with the same word the newest alone,
/// so that this stays as small as there are kinds of them, however long systemd does not read.
#[derive(Default)]
struct Unread {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    messages: Vec<String>,
    /// The thread is at one that is no longer among them.
    is_sending: bool,
}

impl Unread {
    fn put(&self, states: &[NotifyState<'_>]) {
        let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
        let message = lines.join("\n");
        let mut waiting = self.waiting.lock();
        waiting.messages.retain(|other| word(other) != word(&message));
        waiting.messages.push(message);
        self.changed.notify_all();
    }

    /// The oldest, once there is one. What was taken before is sent by now.
    fn take(&self) -> String {
        let mut waiting = self.waiting.lock();
        waiting.is_sending = false;
        self.changed.notify_all();
        while waiting.messages.is_empty() {
            self.changed.wait(&mut waiting);
        }
        waiting.is_sending = true;
        waiting.messages.remove(0)
    }

    /// Until all is sent, or it takes too long. Tells whether it is.
    fn wait(&self, within: Duration) -> bool {
        let mut waiting = self.waiting.lock();
        let busy = |waiting: &mut Waiting| waiting.is_sending || !waiting.messages.is_empty();
        !self.changed.wait_while_for(&mut waiting, busy, within).timed_out()
    }
}

/// What a message is about.
fn word(message: &str) -> &str {
    message.split('=').next().unwrap_or(message)
}

/// The service manager, as the daemon sees it.
pub(super) struct Systemd {
    /// For the thread that sends; none where nobody listens. Sending may block for as long as systemd is stuck, and nothing that
    /// serves clients may wait for that.
    unread: Option<Arc<Unread>>,
    /// The last line that was told.
    status: Mutex<String>,
    is_ready: AtomicBool,
    is_stopping: AtomicBool,
}

impl Systemd {
    /// Begin to tell, where somebody listens.
    pub(super) fn start() -> Systemd {
        let listened_to = std::env::var_os("NOTIFY_SOCKET").is_some();
        let unread = listened_to.then(|| {
            let unread = Arc::new(Unread::default());
            let sent = unread.clone();
            match thread::Builder::new().name("warren-systemd".into()).spawn(move || send(&sent)) {
                Ok(_) => Some(unread),
                Err(e) => {
                    tracing::warn!("systemd cannot be told how this server is: no thread for it: {e}");
                    None
                }
            }
        });
        let unread = unread.flatten();
        Systemd {
            unread,
            status: Mutex::default(),
            is_ready: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
        }
    }

    /// The process is about to end: what it told last is to arrive, unless systemd is stuck.
    pub(super) fn finish(&self) {
        if self.unread.as_ref().is_some_and(|unread| !unread.wait(LAST_WORDS_WITHIN)) {
            tracing::warn!("systemd does not read what it is told, and was not told all of it");
        }
    }

    fn tell(&self, states: &[NotifyState<'_>]) {
        if let Some(unread) = &self.unread {
            unread.put(states);
        }
    }

    /// How it is, in one line.
    pub(super) fn status(&self, text: &str) {
        let mut status = self.status.lock();
        if *status != text {
            text.clone_into(&mut status);
            self.tell(&[NotifyState::Status(text)]);
        }
    }

    /// It serves.
    pub(super) fn ready(&self, room: &Room, ensemble: Option<&Ensemble>) {
        self.is_ready.store(true, Ordering::Relaxed);
        // Where this process took another one's place, it is longer.
        if let Some(within) = sd_notify::watchdog_enabled() {
            self.tell_watchdog(within);
        }
        self.tell(&[NotifyState::Ready]);
        self.tell_how(room, ensemble);
    }

    fn tell_how(&self, room: &Room, ensemble: Option<&Ensemble>) {
        let epoch = room.snapshot().zxid().epoch();
        self.status(&line(room.is_serving(), room.standing(), epoch, ensemble.map(linked)));
    }

    /// It reads its settings and certificates again, until [`Systemd::reloaded`].
    pub(super) fn reloading(&self) {
        let mut states = vec![NotifyState::Reloading];
        // Newer ones want to know which request this answers.
        states.extend(NotifyState::monotonic_usec_now());
        self.tell(&states);
    }

    /// It has read them.
    pub(super) fn reloaded(&self) {
        // Before it serves, this would say that it does.
        if self.is_ready.load(Ordering::Relaxed) {
            self.tell(&[NotifyState::Ready]);
        }
    }

    /// Another process takes this one's place, and is the same service to systemd: its start is not to be watched like a run.
    pub(super) fn beginning_anew(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
        self.reloading();
        self.tell(&[NotifyState::Status("beginning anew in place")]);
        if sd_notify::watchdog_enabled().is_some() {
            self.tell_watchdog(START_WITHIN);
        }
    }

    fn tell_watchdog(&self, within: Duration) {
        self.tell(&[NotifyState::WatchdogUsec(u32::try_from(within.as_micros()).unwrap_or(u32::MAX))]);
    }

    /// It stops, and is at this.
    pub(super) fn stopping(&self, at: &str) {
        self.is_stopping.store(true, Ordering::Relaxed);
        self.tell(&[NotifyState::Stopping, NotifyState::Status(at)]);
    }

    /// It has nothing to do but to wait for the other servers: that may take any time. Until the task is aborted.
    pub(super) fn wait_for_others(self: &Arc<Self>, ensemble: Arc<Ensemble>) -> JoinHandle<()> {
        let systemd = self.clone();
        tokio::spawn(async move {
            let mut timer = tokio::time::interval(LOOK_EVERY);
            loop {
                timer.tick().await;
                systemd.extend_start();
                let (linked, others) = linked(&ensemble);
                systemd.status(&format!(
                    "its store is empty: waiting for the other servers, {linked} of {others} linked"
                ));
            }
        })
    }

    /// Feed the watchdog while the machines turn, and tell how the server is.
    pub(super) fn watch(
        self: &Arc<Self>,
        clock: Clock,
        engine: Engine,
        room: Arc<Room>,
        ensemble: Option<Arc<Ensemble>>,
    ) {
        let systemd = self.clone();
        let within = sd_notify::watchdog_enabled();
        let every = within.map_or(LOOK_EVERY, |within| within / FEEDS);
        tokio::spawn(async move {
            let mut timer = tokio::time::interval(every);
            timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut pulse = Pulse::new(clock.now(), engine.turns());
            // The first tick comes at once; what is poked then is looked at by the next.
            timer.tick().await;
            engine.poke();
            loop {
                timer.tick().await;
                if systemd.is_stopping.load(Ordering::Relaxed) {
                    return;
                }
                match pulse.look(clock.now(), engine.turns(), engine.waits_for_space()) {
                    Beat::Feed => {
                        if within.is_some() {
                            systemd.tell(&[NotifyState::Watchdog]);
                        }
                        if !systemd.is_ready.load(Ordering::Relaxed) {
                            systemd.extend_start();
                        }
                        systemd.tell_how(&room, ensemble.as_deref());
                    }
                    Beat::Stands { machines, since } => {
                        let text =
                            format!("{} did not come back for {} s", machines.join(" and "), since.as_secs());
                        let then = within.map_or(String::new(), |within| {
                            format!("; systemd restarts the server once that is {} s", within.as_secs())
                        });
                        tracing::error!("{text}{then}");
                        systemd.status(&text);
                    }
                }
                engine.poke();
            }
        });
    }

    fn extend_start(&self) {
        let us = u32::try_from(START_EXTENDED_BY.as_micros()).expect("a minute is few microseconds");
        self.tell(&[NotifyState::ExtendTimeoutUsec(us)]);
    }
}

/// Send what there is, as long as the process lives.
fn send(unread: &Unread) {
    loop {
        let message = unread.take();
        if let Err(e) = sd_notify::notify(&[NotifyState::Custom(&message)]) {
            tracing::debug!("systemd was not told {message:?}: {e}");
        }
    }
}

/// How many of the others are linked, and how many are or should be.
fn linked(ensemble: &Ensemble) -> (usize, usize) {
    let states = ensemble.states();
    let count = |is: fn(&LinkState) -> bool| states.values().filter(|state| is(state)).count();
    (count(|state| matches!(state, LinkState::Up)), count(|state| !matches!(state, LinkState::Idle)))
}

/// A server in one line, for `systemctl status`.
fn line(serving: bool, standing: Standing, epoch: u32, linked: Option<(usize, usize)>) -> String {
    let others = linked.map_or(String::new(), |(up, all)| format!(", {up} of {all} others linked"));
    match (serving, standing.mode, standing.leader) {
        (false, _, _) => format!("not serving clients, no leader yet{others}"),
        (true, Mode::Standalone, _) => format!("serving clients, standalone, epoch {epoch}"),
        (true, Mode::Leader, _) => format!("serving clients, leader of epoch {epoch}{others}"),
        (true, Mode::ReadOnly, _) => format!("serving reads alone, no leader{others}"),
        (true, mode, Some(leader)) => {
            format!("serving clients, {} of server {leader}, epoch {epoch}{others}", mode.name())
        }
        (true, _, None) => format!("clients wait: looking for a leader{others}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_systemd_that_does_not_read_finds_the_newest_of_each_kind_in_its_turn() {
        let unread = Unread::default();
        unread.put(&[NotifyState::Status("opening")]);
        unread.put(&[NotifyState::Ready]);
        for n in 0..100 {
            unread.put(&[NotifyState::Watchdog]);
            unread.put(&[NotifyState::Status(&format!("serving {n}"))]);
        }
        unread.put(&[NotifyState::Reloading, NotifyState::MonotonicUsec(7)]);
        unread.put(&[NotifyState::Ready]);
        unread.put(&[NotifyState::Stopping, NotifyState::Status("in flight")]);
        unread.put(&[NotifyState::Stopping, NotifyState::Status("checkpoint")]);
        let due = ["WATCHDOG=1", "STATUS=serving 99", "RELOADING=1\nMONOTONIC_USEC=7", "READY=1"];
        for message in due {
            assert_eq!(unread.take(), message);
        }
        assert_eq!(unread.take(), "STOPPING=1\nSTATUS=checkpoint");
        // Taken is not sent yet.
        assert!(!unread.wait(Duration::from_millis(1)));
        unread.waiting.lock().is_sending = false;
        assert!(unread.wait(Duration::ZERO));
    }

    #[test]
    fn the_line_says_what_it_does_and_for_whom() {
        let at = |mode, leader| Standing { server_id: 1, mode, leader, term: 1 };
        assert_eq!(
            line(true, at(Mode::Follower, Some(2)), 7, Some((1, 2))),
            "serving clients, follower of server 2, epoch 7, 1 of 2 others linked"
        );
        assert_eq!(
            line(true, at(Mode::Follower, None), 7, Some((0, 2))),
            "clients wait: looking for a leader, 0 of 2 others linked"
        );
        assert_eq!(line(true, at(Mode::Standalone, None), 1, None), "serving clients, standalone, epoch 1");
        assert!(line(false, at(Mode::Leader, Some(1)), 1, None).starts_with("not serving"));
    }
}
