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
}

impl<E> Inbox<E> {
    pub(super) fn new() -> Arc<Inbox<E>> {
        Arc::new(Inbox {
            state: Mutex::new(State { events: Vec::new(), asleep: false }),
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
            state.asleep = false;
            self.arrived.notify_one();
        }
    }

    /// Wake the reader by this, unless something is there that it will take in any case.
    pub(super) fn rouse(&self, event: E) {
        let mut state = self.state.lock();
        if state.events.is_empty() || state.asleep {
            state.events.push(event);
            state.asleep = false;
            self.arrived.notify_one();
        }
    }

    /// Put in something that can wait until the reader is woken by other things, or looks by itself. It is still
    /// read in order.
    pub(super) fn leave(&self, event: E) {
        self.state.lock().events.push(event);
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
        let mut state = self.state.lock();
        while state.events.is_empty() {
            state.asleep = true;
            let timed_out = match until {
                Some(until) => self.arrived.wait_until(&mut state, clock.instant(until)).timed_out(),
                None => {
                    self.arrived.wait(&mut state);
                    false
                }
            };
            state.asleep = false;
            if timed_out {
                break;
            }
        }
        into.append(&mut state.events);
    }
}
