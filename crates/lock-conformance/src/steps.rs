//! The steps that properties are made of. Each says, when it fails, what was promised and what was seen.

use std::{
    fmt,
    future::{Future, poll_fn},
    panic,
    pin::pin,
    task::Poll,
    thread,
    time::{Duration, Instant},
};

use lock_core::{
    AnyLocker, Error, ErrorKind, Key, LockGuard, Locker, Options, Result, Waiting, backend::WaitingBackend,
};
use rand::RngExt;
use tokio::{
    runtime,
    task::{self, JoinSet},
    time,
};

use crate::Fixture;

/// The bound of what takes a few round trips. No lease of [`patient`] options ends within it.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// How soon what an abandoned attempt left must be gone.
pub(crate) const UNDONE_WITHIN: Duration = Duration::from_secs(1);

/// How much later than its lease ends a dead holder's key may be taken.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// The TTL of [`brief`] options.
pub(crate) const TTL: Duration = Duration::from_secs(2);

/// Options for properties that do not wait for the end of a lease.
pub(crate) fn patient() -> Options {
    Options::default().with_ttl(Duration::from_secs(30))
}

/// Options for properties that do.
pub(crate) fn brief() -> Options {
    leases_of(TTL)
}

/// Options with which a lease survives the pauses of a busy machine as well as its length allows.
pub(crate) fn leases_of(ttl: Duration) -> Options {
    Options::default()
        .with_ttl(ttl)
        .with_renew_every(ttl / 4)
        .with_request_timeout(ttl / 3)
        .with_min_validity(ttl / 5)
}

/// A key that nothing else uses.
pub(crate) fn fresh_key() -> Key {
    let number: u64 = rand::rng().random();
    Key::new(&format!("conformance-{number:016x}")).expect("a short key")
}

/// A fresh client with [`patient`] options.
pub(crate) async fn client(fx: &impl Fixture) -> AnyLocker {
    client_with(fx, &patient()).await
}

/// A fresh client.
pub(crate) async fn client_with(fx: &impl Fixture, options: &Options) -> AnyLocker {
    fx.locker(options).await.unwrap_or_else(|error| panic!("a fresh client with {options:?}: {error:?}"))
}

/// Takes a key that must be free.
pub(crate) async fn take(locker: &AnyLocker, key: &Key) -> LockGuard {
    match locker.try_lock(key.as_str()).await {
        Ok(Some(guard)) => guard,
        Ok(None) => panic!("{key:?} must be free, but is held"),
        Err(error) => panic!("{key:?} must be free, but a try failed: {error:?}"),
    }
}

/// Tries for a key that must be held.
pub(crate) async fn assert_held(locker: &AnyLocker, key: &Key) {
    let tried = locker.try_lock(key.as_str()).await;
    assert!(matches!(tried, Ok(None)), "{key:?} must be held, so a try must be refused; it gave {tried:?}");
}

/// Acquires a key, by waiting if the backend can, else by trying.
pub(crate) async fn acquire(locker: &AnyLocker, key: &Key) -> LockGuard {
    if locker.capabilities().waiting != Waiting::Never {
        let acquired = locker.lock(key.as_str()).await;
        return acquired.unwrap_or_else(|error| panic!("a wait for {key:?} must end in a lock: {error:?}"));
    }
    loop {
        let tried = locker.try_lock(key.as_str()).await;
        match tried.unwrap_or_else(|error| panic!("a try for {key:?}: {error:?}")) {
            Some(guard) => return guard,
            None => time::sleep(Duration::from_millis(1)).await,
        }
    }
}

/// Takes a key that must become free within `bound`.
pub(crate) async fn take_within(bound: Duration, locker: &AnyLocker, key: &Key) -> LockGuard {
    eventually(&format!("{key:?} to be free"), bound, || async {
        let tried = locker.try_lock(key.as_str()).await;
        tried.map_err(|error| format!("a try failed: {error:?}"))?.ok_or_else(|| "it is held".to_owned())
    })
    .await
}

/// Gives back a lock that must be held until now.
pub(crate) async fn release(guard: LockGuard) {
    let key = guard.key().clone();
    guard.release().await.unwrap_or_else(|error| panic!("the lock on {key:?} was held until now: {error:?}"));
}

/// Expects `result` to be an error of `kind`; `what` says of which call.
pub(crate) fn assert_fails<T: fmt::Debug>(what: &str, result: Result<T>, kind: ErrorKind) -> Error {
    match result {
        Err(error) if error.kind() == kind => error,
        other => panic!("{what} must fail as {kind:?}; it gave {other:?}"),
    }
}

/// How much there is for `key` on the servers.
pub(crate) async fn traces(fx: &impl Fixture, key: &Key) -> usize {
    fx.traces(key)
        .await
        .unwrap_or_else(|error| panic!("the fixture must count the traces of {key:?}: {error:#}"))
}

/// Waits until nothing is left of `key`.
pub(crate) async fn assert_no_traces(fx: &impl Fixture, key: &Key, bound: Duration) {
    eventually(&format!("no trace of {key:?}"), bound, || async {
        match traces(fx, key).await {
            0 => Ok(()),
            left => Err(format!("{left} left")),
        }
    })
    .await;
}

/// Calls `probe` until it returns `Ok`, for at most `bound`. The error of a probe is what it saw instead.
///
/// # Panics
///
/// `bound` has passed. The message names `what` and the last error.
///
/// # Cancel safety
///
/// As that of `probe`.
pub async fn eventually<T, S: fmt::Display, F: Future<Output = Result<T, S>>>(
    what: &str,
    bound: Duration,
    mut probe: impl FnMut() -> F,
) -> T {
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        // The clock is read before the probe, so that the last probe starts when the bound has passed, not before.
        let elapsed = start.elapsed();
        match probe().await {
            Ok(found) => return found,
            Err(status) if elapsed >= bound => panic!("waited {bound:?} for {what}; last seen: {status}"),
            Err(_) => time::sleep(pause.min(bound.saturating_sub(start.elapsed()))).await,
        }
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Awaits `future`, which must end within `bound`.
///
/// # Panics
///
/// It has not, or ended later.
///
/// # Cancel safety
///
/// As that of `future`.
pub async fn within<T>(what: &str, bound: Duration, future: impl Future<Output = T>) -> T {
    let start = Instant::now();
    let ended = time::timeout(bound, future).await;
    // A future that blocks its thread is not interrupted, and may come late.
    match (ended, start.elapsed()) {
        (Ok(output), took) if took <= bound => output,
        (Ok(_), took) => panic!("{what}: it must end within {bound:?}, and took {took:?}"),
        (Err(_), _) => panic!("{what}: it must end within {bound:?}, and has not"),
    }
}

/// Acquires the keys `orders/0` to `orders/<count - 1>`, all at once.
///
/// # Errors
///
/// One of them cannot be acquired.
///
/// # Cancel safety
///
/// Cancel safe: what was acquired is given back.
pub async fn hold_many<B: WaitingBackend>(locker: &Locker<B>, count: usize) -> Result<Vec<LockGuard>> {
    let mut acquires = JoinSet::new();
    for number in 0..count {
        let locker = locker.clone();
        acquires.spawn(async move { locker.lock(&format!("orders/{number}")).await });
    }
    acquires.join_all().await.into_iter().collect()
}

/// Lets leases pass, and expects the locks to be held still.
///
/// # Panics
///
/// One of them was lost. The message names its key.
///
/// # Cancel safety
///
/// Cancel safe.
pub async fn assert_held_for(guards: &[LockGuard], time: Duration) {
    // why: that renewals go on can only be shown by letting leases pass
    time::sleep(time).await;
    for guard in guards {
        assert!(guard.is_held(), "{:?} was lost", guard.key());
    }
}

/// Drops `future` after its `polls`-th poll; `None` if it was not done by then.
pub(crate) async fn dropped_after<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut polled = 0;
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => {
            polled += 1;
            if polled < polls { Poll::Pending } else { Poll::Ready(None) }
        }
    })
    .await
}

/// Blocks on `future` in a runtime of its own, of one thread, and drops the runtime.
///
/// What blocks the thread there blocks all that runs in that runtime, and nothing else.
pub(crate) fn in_own_runtime<T: Send>(future: impl Future<Output = T> + Send) -> T {
    let run = || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(future)
    };
    let joined = task::block_in_place(|| thread::scope(|scope| scope.spawn(run).join()));
    joined.unwrap_or_else(|failure| panic::resume_unwind(failure))
}

/// A hold whose runtime has ended, so that nobody renews it and nobody can release it.
pub(crate) fn orphan(fx: &impl Fixture, options: &Options, key: &Key) -> LockGuard {
    in_own_runtime(async { take(&client_with(fx, options).await, key).await })
}
