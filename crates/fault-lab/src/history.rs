//! All events of one run, in the order in which the lab heard of them.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use parking_lot::{Condvar, Mutex};

use crate::event::{Event, LAB, What, now};

#[derive(Debug, Default)]
pub(crate) struct History {
    events: Mutex<Vec<Event>>,
    grown: Condvar,
}

impl History {
    pub(crate) fn add(&self, event: Event) {
        self.events.lock().push(event);
        self.grown.notify_all();
    }

    /// Writes an event of the lab itself.
    pub(crate) fn note(&self, what: What) {
        self.add(Event { at: now(), agent: LAB, what });
    }

    pub(crate) fn len(&self) -> usize {
        self.events.lock().len()
    }

    pub(crate) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.events.lock())
    }

    /// Waits until `find` finds something among the events from number `from` on, for at most `bound`.
    pub(crate) fn wait<T>(
        &self,
        what: &str,
        from: usize,
        bound: Duration,
        mut find: impl FnMut(&Event) -> Option<T>,
    ) -> Result<T> {
        let end = Instant::now() + bound;
        let mut events = self.events.lock();
        let mut looked = from;
        loop {
            while looked < events.len() {
                if let Some(found) = find(&events[looked]) {
                    return Ok(found);
                }
                looked += 1;
            }
            if self.grown.wait_until(&mut events, end).timed_out() && looked >= events.len() {
                bail!("waited {bound:?} for {what}");
            }
        }
    }

    /// Waits for `count` rounds of work under a lock, from event number `from` on.
    pub(crate) fn wait_for_cycles(
        &self,
        what: &str,
        from: usize,
        count: usize,
        bound: Duration,
    ) -> Result<()> {
        let mut seen = HashSet::new();
        self.wait(what, from, bound, |event| {
            if let What::Released { attempt, error: None } = event.what {
                seen.insert(attempt);
            }
            (seen.len() >= count).then_some(())
        })
    }
}
