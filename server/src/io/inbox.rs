//! What waits for a thread.

use super::Clock;
use crate::moment::Moment;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;

/// A queue with one reader that takes everything at once. What bounds it is who writes: requests by the limits of
/// outstanding ones, the rest by the number of connections and of appends in flight.
pub(super) struct Inbox<E> {
    state: Mutex<State<E>>,
    arrived: Condvar,
}

struct State<E> {
    events: Vec<E>,
    asleep: bool,
    /// While it is asleep: it has enough to do with what it waits for, see [`Inbox::offer`].
    busy: bool,
}

impl<E> Inbox<E> {
    pub(super) fn new() -> Arc<Inbox<E>> {
        Arc::new(Inbox {
            state: Mutex::new(State { events: Vec::new(), asleep: false, busy: false }),
            arrived: Condvar::new(),
        })
    }

    pub(super) fn push(&self, event: E) {
        self.extend(std::iter::once(event));
    }

    pub(super) fn extend(&self, events: impl IntoIterator<Item = E>) {
        let mut state = self.state.lock();
        state.events.extend(events);
        if state.asleep {
            self.wake(&mut state);
        }
    }

    /// Wake the reader by this, unless something is there that it will take in any case.
    pub(super) fn rouse(&self, event: E) {
        let mut state = self.state.lock();
        if state.events.is_empty() || state.asleep {
            state.events.push(event);
            self.wake(&mut state);
        }
    }

    /// Put in something that can wait until the reader is woken by other things, or looks by itself. It is still
    /// read in order.
    pub(super) fn leave(&self, event: E) {
        self.state.lock().events.push(event);
    }

    /// Put in more work. A reader that is busy with what it waits for is not woken by it.
    pub(super) fn offer(&self, event: E) {
        let mut state = self.state.lock();
        state.events.push(event);
        if state.asleep && !state.busy {
            self.wake(&mut state);
        }
    }

    fn wake(&self, state: &mut State<E>) {
        state.asleep = false;
        self.arrived.notify_one();
    }

    /// Is nothing there?
    pub(super) fn is_empty(&self) -> bool {
        self.state.lock().events.is_empty()
    }

    /// Is nothing there, and everything done that was?
    pub(super) fn is_waited_at(&self) -> bool {
        let state = self.state.lock();
        state.asleep && state.events.is_empty()
    }

    /// Everything that is there, in order; waits until there is something or `until` has come.
    pub(super) fn take(&self, clock: &Clock, until: Option<Moment>, into: &mut Vec<E>) {
        self.wait(clock, until, false, into);
    }

    /// As [`Inbox::take`], but what is [offered](Inbox::offer) is left until something else comes, or `until` has come.
    pub(super) fn take_busily(&self, clock: &Clock, until: Moment, into: &mut Vec<E>) {
        self.wait(clock, Some(until), true, into);
    }

    fn wait(&self, clock: &Clock, until: Option<Moment>, busy: bool, into: &mut Vec<E>) {
        let mut state = self.state.lock();
        if state.events.is_empty() {
            (state.asleep, state.busy) = (true, busy);
            let mut timed_out = false;
            while state.asleep && !timed_out {
                match until {
                    Some(until) => {
                        timed_out = self.arrived.wait_until(&mut state, clock.instant(until)).timed_out();
                    }
                    None => self.arrived.wait(&mut state),
                }
            }
            state.asleep = false;
        }
        into.append(&mut state.events);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    const LONG_US: u64 = 60_000_000;

    fn asleep(inbox: &Inbox<u32>) {
        while !inbox.state.lock().asleep {
            thread::yield_now();
        }
    }

    #[test]
    fn what_is_offered_wakes_a_reader_unless_it_is_busy() {
        let (inbox, clock) = (Inbox::new(), Clock::start());
        let read = |busy: bool, until_us: u64| {
            let (inbox, mut events) = (inbox.clone(), Vec::new());
            let until = clock.now() + std::time::Duration::from_micros(until_us);
            thread::spawn(move || {
                if busy {
                    inbox.take_busily(&clock, until, &mut events);
                } else {
                    inbox.take(&clock, Some(until), &mut events);
                }
                events
            })
        };
        let reader = read(false, LONG_US);
        asleep(&inbox);
        inbox.offer(1);
        assert_eq!(reader.join().unwrap(), [1]);

        let reader = read(true, LONG_US);
        asleep(&inbox);
        inbox.offer(2);
        inbox.leave(3);
        assert!(inbox.state.lock().asleep, "it has enough to do");
        inbox.push(4);
        assert_eq!(reader.join().unwrap(), [2, 3, 4], "in order, with what woke it");

        inbox.offer(5);
        assert_eq!(read(true, LONG_US).join().unwrap(), [5], "it was there before");
        assert_eq!(read(true, 1).join().unwrap(), [0; 0], "and nothing comes in its time");

        // The next one is not busy any more.
        let reader = read(false, LONG_US);
        asleep(&inbox);
        inbox.offer(6);
        assert_eq!(reader.join().unwrap(), [6]);
    }
}
