//! One attempt for all who need its outcome.

use std::{
    fmt,
    future::Future,
    sync::{Mutex, PoisonError},
};

use tokio::{runtime::Handle, sync::watch};

use crate::{Result, backend::runtime_ended};

/// Runs an attempt, such as to connect, in the locker's runtime; all who ask while it is under way share its outcome.
///
/// So none of them has to be polled for the others to go on, one who gives up does not make the next begin anew, and if
/// it fails they all hear of it at once.
pub struct SharedAttempt<T> {
    runtime: Handle,
    under_way: Mutex<Option<Outcome<T>>>,
}

type Outcome<T> = watch::Receiver<Option<Result<T>>>;

impl<T: Clone + Send + Sync + 'static> SharedAttempt<T> {
    /// Makes one that runs in `runtime`, in which nothing is under way.
    #[must_use]
    pub fn new(runtime: Handle) -> Self {
        Self { runtime, under_way: Mutex::default() }
    }

    /// Returns what is `present`; else the outcome of the attempt that is under way, or of the one that `begin` begins.
    ///
    /// What an attempt makes present must be so when it ends: then none begins whose work is done already.
    ///
    /// # Errors
    ///
    /// That of the attempt; [`Closed`](crate::ErrorKind::Closed): the runtime has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the attempt goes on, and needs a bound of its own.
    pub async fn run<F>(&self, present: impl Fn() -> Option<T>, begin: impl FnOnce() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
    {
        if let Some(present) = present() {
            return Ok(present);
        }
        let mut outcome = {
            let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
            match under_way.as_ref().filter(|outcome| is_open(outcome)) {
                Some(outcome) => outcome.clone(),
                None => {
                    // The attempt that was under way at the look above may have ended since.
                    if let Some(present) = present() {
                        return Ok(present);
                    }
                    let (sender, outcome) = watch::channel(None);
                    let attempt = begin();
                    self.runtime.spawn(async move { sender.send(Some(attempt.await)) });
                    under_way.insert(outcome).clone()
                }
            }
        };
        // The sender goes without a word only if the runtime ends, or the attempt panics.
        let ended = outcome.wait_for(Option::is_some).await.map_err(|_| runtime_ended())?;
        ended.clone().expect("an outcome was waited for")
    }
}

fn is_open<T>(outcome: &Outcome<T>) -> bool {
    outcome.borrow().is_none() && outcome.has_changed().is_ok()
}

impl<T> fmt::Debug for SharedAttempt<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedAttempt").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::{sync::Notify, task};

    use super::*;
    use crate::{Error, ErrorKind};

    fn nothing<T>() -> Option<T> {
        None
    }

    #[tokio::test]
    async fn nobody_begins_what_an_attempt_has_made_present_between_the_look_and_the_lock() {
        let shared = SharedAttempt::new(Handle::current());
        let looks = AtomicUsize::new(0);
        let present = || (looks.fetch_add(1, Ordering::Relaxed) > 0).then_some("made by another");
        let made = shared.run(present, || async { Ok("made again") }).await.unwrap();
        assert_eq!(made, "made by another");
    }

    #[tokio::test]
    async fn all_who_ask_meanwhile_share_one_attempt_and_its_failure() {
        let shared = SharedAttempt::<()>::new(Handle::current());
        let (begun, go) = (AtomicUsize::new(0), std::sync::Arc::new(Notify::new()));
        let ask = || {
            shared.run(nothing, || {
                begun.fetch_add(1, Ordering::Relaxed);
                let go = std::sync::Arc::clone(&go);
                async move {
                    go.notified().await;
                    Err(Error::new(ErrorKind::Unavailable, "nobody there"))
                }
            })
        };
        let (one, other, ()) = tokio::join!(ask(), ask(), async {
            task::yield_now().await;
            go.notify_one();
        });
        assert_eq!(begun.load(Ordering::Relaxed), 1);
        for outcome in [one, other] {
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Unavailable);
        }
        go.notify_one();
        ask().await.unwrap_err();
        assert_eq!(begun.load(Ordering::Relaxed), 2, "what is over is not shared");
    }

    #[test]
    fn after_the_end_of_the_runtime_it_says_so() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let shared = SharedAttempt::<()>::new(runtime.handle().clone());
        drop(runtime);
        let other = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let error = other.block_on(shared.run(nothing, || async { Ok(()) })).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
    }
}
