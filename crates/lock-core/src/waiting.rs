//! Waiting for a key whose server can tell of its release.

use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::RngExt;
use tokio::time;

use crate::{
    Key, LockGuard, Result,
    attempt::{Refusal, attempt_again, attempt_once},
    backend::{BootInstant, LeaseStore, Outcome},
    background::Background,
};

/// A store whose keys can be waited for.
pub trait WaitingStore: LeaseStore {
    /// Acquires the key of `acquirer`, waiting while another holds it; each try is one of `acquirer`.
    fn lock(&self, acquirer: &Acquirer<'_, Self>) -> impl Future<Output = Result<LockGuard>> + Send
    where
        Self: Sized;
}

/// Tells one waiter that a key may be free.
pub trait ReleaseListener: Send {
    /// Returns once every release from now on will be heard. Does nothing if it listens already.
    fn listen(&mut self) -> impl Future<Output = Result<()>> + Send;

    /// Returns whether it has listened all the time since the last try was sent, if that has a place in a queue; then
    /// the try need not be repeated, since the turn would have been heard of.
    fn has_listened(&self) -> bool {
        false
    }

    /// Resolves when a release was heard since the last [`listen`](Self::listen) returned, or none can be any more.
    fn released(&mut self) -> impl Future<Output = ()> + Send;
}

/// The way in which a [`WaitingStore`] tries for one key.
pub struct Acquirer<'a, S: LeaseStore> {
    background: &'a Arc<Background<S>>,
    key: Key,
    /// What the last try came to.
    refused: Mutex<Option<Refusal<S>>>,
}

impl<'a, S: LeaseStore> Acquirer<'a, S> {
    /// Makes one whose first try was made, if `refused` says what it came to.
    pub(crate) fn new(background: &'a Arc<Background<S>>, key: Key, refused: Option<Refusal<S>>) -> Self {
        Self { background, key, refused: Mutex::new(refused) }
    }

    /// Returns the key to acquire.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Tries once, and announces to the store that a refused claimant will wait: with the claim that has a place in the
    /// servers' queue, or else with a fresh owner id.
    ///
    /// # Errors
    ///
    /// As [`Locker::try_lock`](crate::Locker::try_lock).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what a dropped attempt left is undone in the background.
    pub async fn once(&self) -> Result<Outcome> {
        let queued = self.refused().take().and_then(|refusal| refusal.queued);
        let attempted = match queued {
            Some(queued) => attempt_again(self.background, queued).await?,
            None => attempt_once(self.background, &self.key, true).await?,
        };
        Ok(match attempted {
            Ok(guard) => Outcome::Acquired(guard),
            Err(refusal) => {
                let free_in = refusal.free_in;
                *self.refused() = Some(refusal);
                Outcome::Busy { free_in }
            }
        })
    }

    /// Tries once, unless a try was refused just before this acquirer was made.
    async fn first(&self) -> Result<Outcome> {
        let told = self.refused().as_ref().map(|refusal| refusal.free_in);
        match told {
            Some(free_in) => Ok(Outcome::Busy { free_in }),
            None => self.once().await,
        }
    }

    fn is_queued(&self) -> bool {
        self.refused().as_ref().is_some_and(|refusal| refusal.queued.is_some())
    }

    fn refused(&self) -> MutexGuard<'_, Option<Refusal<S>>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tries, listens, looks once more, and then waits to be told or for the end of the holder's lease, again and again
    /// until the key is held.
    ///
    /// The look after the first [`ReleaseListener::listen`] is what keeps a release between the first try and the
    /// listening from being missed; who [has listened](ReleaseListener::has_listened) need not. Nothing is polled, but
    /// for one look per own TTL: a listener may fall silent without a word.
    ///
    /// # Errors
    ///
    /// As [`once`](Self::once) for the first try. Later, failures that may pass are waited out for as long as a lease
    /// lasts.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn wait(&self, listener: &mut impl ReleaseListener) -> Result<LockGuard> {
        let mut next_look = match self.first().await? {
            Outcome::Acquired(guard) => return Ok(guard),
            Outcome::Busy { free_in } => free_in,
        };
        let mut looks = !(self.is_queued() && listener.has_listened());
        let (ttl, mut last_answer) = (self.background.timing().ttl(), BootInstant::now());
        loop {
            if let Err(error) = self.background.bounded(listener.listen()).await {
                tracing::debug!(key = ?self.key(), %error, "no notice of a release can be had; the lease is awaited");
            }
            if looks {
                match self.once().await {
                    Ok(Outcome::Acquired(guard)) => return Ok(guard),
                    Ok(Outcome::Busy { free_in }) => {
                        next_look = free_in;
                        last_answer = BootInstant::now();
                    }
                    Err(error) => {
                        if !error.is_transient() || BootInstant::now().since(last_answer) > ttl {
                            return Err(error);
                        }
                        next_look = next_look.min(ttl / 10);
                    }
                }
            }
            looks = true;
            let _ = time::timeout(just_after(next_look.min(ttl)), listener.released()).await;
        }
    }
}

impl<S: LeaseStore> fmt::Debug for Acquirer<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acquirer").field("key", &self.key).finish_non_exhaustive()
    }
}

/// Returns a moment later, when the lease has ended at the server too, and a random one, so that not all look at once.
fn just_after(time: Duration) -> Duration {
    let moment = Duration::from_millis(2) + time.mul_f64(0.05).min(Duration::from_millis(100));
    time.saturating_add(moment.mul_f64(rand::rng().random_range(0.5..=1.0)))
}
