//! Waiting for a key whose server can tell of its release.

use std::{future::Future, time::Duration};

use rand::RngExt;
use tokio::time;

use crate::{
    LockGuard, Result,
    backend::{Acquirer, BootInstant, LeaseStore, Outcome},
};

/// Tells one waiter that a key may be free.
pub trait ReleaseListener: Send {
    /// Returns once every release from now on will be heard. Does nothing if it listens already.
    fn listen(&mut self) -> impl Future<Output = Result<()>> + Send;

    /// Resolves when a release was heard since the last [`listen`](Self::listen) returned, or none can be any more.
    fn released(&mut self) -> impl Future<Output = ()> + Send;
}

impl<S: LeaseStore> Acquirer<'_, S> {
    /// Tries, listens, looks once more, and then waits to be told or for the end of the holder's lease, again and again
    /// until the key is held.
    ///
    /// The look after the first [`ReleaseListener::listen`] is what keeps a release between the first try and the
    /// listening from being missed. Nothing is polled, but for one look per own TTL: a listener may fall silent without
    /// a word.
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
        let mut last_answer = BootInstant::now();
        loop {
            if let Err(error) = self.bounded(listener.listen()).await {
                tracing::debug!(key = ?self.key(), %error, "no notice of a release can be had; the lease is awaited");
            }
            match self.once().await {
                Ok(Outcome::Acquired(guard)) => return Ok(guard),
                Ok(Outcome::Busy { free_in }) => {
                    next_look = free_in;
                    last_answer = BootInstant::now();
                }
                Err(error) => {
                    if !error.is_transient() || BootInstant::now().since(last_answer) > self.ttl() {
                        return Err(error);
                    }
                    next_look = next_look.min(self.ttl() / 10);
                }
            }
            let _ = time::timeout(just_after(next_look.min(self.ttl())), listener.released()).await;
        }
    }
}

/// A moment later, so that the lease has ended at the server too, and a random one, so that not all look at once.
fn just_after(time: Duration) -> Duration {
    let moment = Duration::from_millis(2) + time.mul_f64(0.05).min(Duration::from_millis(100));
    time.saturating_add(moment.mul_f64(rand::rng().random_range(0.5..=1.0)))
}
