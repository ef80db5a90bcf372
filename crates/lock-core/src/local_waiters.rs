//! Those of one process who wait for one key: they stand in line behind one contender, which is a task.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use tokio::{runtime::Handle, sync::Notify, time};

use crate::{Error, Key, LockGuard, Result, backend::runtime_ended};

/// How long a guard is offered to one waiter before it is offered to all, and then to all before it is given back.
///
/// A future that is polled takes it at once; one that is stored or leaked never does.
const OFFER: Duration = Duration::from_millis(500);

/// The lines of waiters, one for each key that is waited for.
///
/// A thousand waiters so cost the servers no more than one. Nothing depends on any waiter's future being polled: the
/// contender is a task, and a guard that its waiter does not take goes to another.
#[derive(Default)]
pub(crate) struct LocalWaiters {
    lines: Mutex<HashMap<Key, Line>>,
}

struct Line {
    waiters: VecDeque<Arc<Waiter>>,
    offer: Option<Offer>,
    /// Tells the contender that somebody left, or took what was offered.
    changed: Arc<Notify>,
}

struct Offer {
    guard: LockGuard,
    to_anyone: bool,
}

/// One who waits. Whoever is in no line, and was told of no failure, was not polled when a guard was offered.
#[derive(Default)]
struct Waiter {
    woken: Notify,
    failure: OnceLock<Error>,
}

impl LocalWaiters {
    fn lines(&self) -> MutexGuard<'_, HashMap<Key, Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether anybody waits for `key`, so that a newcomer has to stand behind.
    pub(crate) fn has_line(&self, key: &Key) -> bool {
        self.lines().contains_key(key)
    }

    /// Waits until it is this caller's turn. For the first in a line `contend` begins the work of its contender, which
    /// `runtime` drives, and is given `refused`, what the caller's own try came to.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the place in the line is given up.
    pub(crate) async fn wait<T, F>(
        self: &Arc<Self>,
        key: &Key,
        runtime: &Handle,
        mut refused: Option<T>,
        contend: impl Fn(Contender, Option<T>) -> F,
    ) -> Result<LockGuard>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let place = Place { lines: self, key, waiter: Arc::default() };
        loop {
            let contender = place.stand();
            let refused = refused.take();
            if let Some(contender) = contender {
                runtime.spawn(contend(contender, refused));
            }
            place.waiter.woken.notified().await;
            if let Some(error) = place.waiter.failure.get() {
                return Err(error.clone());
            }
            if let Some(guard) = place.take_offer().filter(LockGuard::is_held) {
                return Ok(guard);
            }
        }
    }
}

/// A waiter's place in its line, until it is dropped.
struct Place<'a> {
    lines: &'a Arc<LocalWaiters>,
    key: &'a Key,
    waiter: Arc<Waiter>,
}

impl Place<'_> {
    /// Stands at the end of the line, unless it stands there already; returns the contender if the line is new.
    fn stand(&self) -> Option<Contender> {
        let mut lines = self.lines.lines();
        if let Some(line) = lines.get_mut(self.key) {
            if line.position(&self.waiter).is_none() {
                line.waiters.push_back(Arc::clone(&self.waiter));
            }
            return None;
        }
        let (waiters, changed) = (VecDeque::from([Arc::clone(&self.waiter)]), Arc::<Notify>::default());
        lines.insert(self.key.clone(), Line { waiters, offer: None, changed: Arc::clone(&changed) });
        Some(Contender { lines: Arc::clone(self.lines), key: self.key.clone(), changed })
    }

    fn take_offer(&self) -> Option<LockGuard> {
        let mut lines = self.lines.lines();
        let line = lines.get_mut(self.key)?;
        let position = line.position(&self.waiter)?;
        let offer = line.offer.take_if(|offer| offer.to_anyone || position == 0)?;
        line.waiters.remove(position);
        line.changed.notify_one();
        Some(offer.guard)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(line) = self.lines.lines().get_mut(self.key)
            && let Some(position) = line.position(&self.waiter)
        {
            line.waiters.remove(position);
            line.changed.notify_one();
        }
    }
}

impl Line {
    /// Returns to how many waiters an offer is made.
    fn called(&self, to_anyone: bool) -> usize {
        if to_anyone { self.waiters.len() } else { self.waiters.len().min(1) }
    }

    fn position(&self, waiter: &Arc<Waiter>) -> Option<usize> {
        self.waiters.iter().position(|other| Arc::ptr_eq(other, waiter))
    }
}

/// What acquires the key for those in a line. Dropped, it tells those who still stand there that nobody will.
pub(crate) struct Contender {
    lines: Arc<LocalWaiters>,
    key: Key,
    changed: Arc<Notify>,
}

impl Contender {
    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// Looks at the line, if it is still the contender's own.
    fn look<T>(&self, at: impl FnOnce(&mut Line) -> T) -> Option<T> {
        let mut lines = self.lines.lines();
        lines.get_mut(&self.key).filter(|line| Arc::ptr_eq(&line.changed, &self.changed)).map(at)
    }

    /// Resolves once nobody stands in the line.
    pub(crate) async fn deserted(&self) {
        while self.look(|line| line.waiters.is_empty()) == Some(false) {
            self.changed.notified().await;
        }
    }

    /// Ends the line if nobody stands in it, and returns whether it did; whoever comes then begins a new one.
    pub(crate) fn finish(&self) -> bool {
        let mut lines = self.lines.lines();
        match lines.get(&self.key).filter(|line| Arc::ptr_eq(&line.changed, &self.changed)) {
            Some(line) if !line.waiters.is_empty() => false,
            Some(_) => lines.remove(&self.key).is_some(),
            None => true,
        }
    }

    /// Gives `guard` to the first in the line who takes it, or gives it back.
    pub(crate) async fn offer(&self, guard: LockGuard) {
        self.look(|line| line.offer = Some(Offer { guard, to_anyone: false }));
        for to_anyone in [false, true] {
            if time::timeout(OFFER, self.answered(to_anyone)).await.is_ok() {
                break;
            }
            // Whoever was called and did not come is polled no more; if it is, it stands in line again.
            self.look(|line| {
                let called = line.called(to_anyone);
                line.waiters.drain(..called);
                line.offer.iter_mut().for_each(|offer| offer.to_anyone = true);
            });
        }
        // Dropped outside the lock.
        drop(self.look(|line| line.offer.take()));
    }

    /// Calls those to whom the offer is made, until one of them has taken it or nobody is left.
    async fn answered(&self, to_anyone: bool) {
        let called = |line: &mut Line| -> Vec<_> {
            let called = line.offer.as_ref().map_or(0, |_| line.called(to_anyone));
            line.waiters.iter().take(called).cloned().collect()
        };
        while let Some(called) = self.look(called).filter(|called| !called.is_empty()) {
            // Outside the lock: a waker may use the locker.
            called.iter().for_each(|waiter| waiter.woken.notify_one());
            self.changed.notified().await;
        }
    }

    /// Ends the line: all who stand in it fail together.
    pub(crate) fn fail(self, error: &Error) {
        self.end(error);
    }

    fn end(&self, error: &Error) {
        let mut lines = self.lines.lines();
        if lines.get(&self.key).is_some_and(|line| Arc::ptr_eq(&line.changed, &self.changed)) {
            let line = lines.remove(&self.key);
            drop(lines);
            for waiter in line.into_iter().flat_map(|line| line.waiters) {
                let _ = waiter.failure.set(error.clone());
                waiter.woken.notify_one();
            }
        }
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        // Where anybody is left, its runtime has ended, or it panicked.
        self.end(&runtime_ended());
    }
}
