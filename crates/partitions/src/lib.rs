//! What becomes of locks when a minority of the servers is cut off, with clients on either side.
//!
//! The proxies of `test-cluster` cannot make such a partition, since members of a cluster tell each other where to
//! connect. A container engine can: it takes servers out of a network. The tests of this crate need one.

use std::{future::Future, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use lock_core::{AnyLocker, LockGuard};
use tokio::{
    task::{JoinHandle, block_in_place},
    time::{self, Instant},
};

/// The lease of those who are cut off.
const BRIEF: Duration = Duration::from_secs(3);

/// The lease of those who stay with the majority: long enough for an election on a busy machine.
const PATIENT: Duration = Duration::from_secs(30);

/// Far above what anything takes; reached only when something hangs.
const BOUND: Duration = Duration::from_secs(60);

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// With the servers that are cut off.
    Minority,
    /// With those that go on.
    Majority,
}

/// Servers of which a minority can be cut off.
pub trait Divided {
    /// Connects a client that reaches no servers but those of `side` once they are cut off from each other.
    fn client(&self, side: Side, ttl: Duration) -> impl Future<Output = Result<AnyLocker>>;

    /// Returns how many hold or await `key`. It is not asked while the servers are cut off.
    fn contenders(&self, key: &str) -> impl Future<Output = Result<usize>>;

    /// Cuts the minority off; what is under way to the other side is lost without a word.
    ///
    /// # Errors
    ///
    /// The engine refuses.
    fn cut(&self) -> Result<()>;

    /// Ends that.
    ///
    /// # Errors
    ///
    /// The engine refuses.
    fn heal(&self) -> Result<()>;
}

/// Cuts a minority off while each side holds a lock that the other side awaits, and checks that nobody is deceived.
///
/// # Errors
///
/// The servers do not answer where they should, or a wait has no end. A broken promise is a panic.
///
/// # Panics
///
/// Two believe in one lock, a loss is not reported by its deadline, or a token is not larger than the one before.
pub async fn check(servers: &impl Divided) -> Result<()> {
    let (few, many) =
        (servers.client(Side::Minority, BRIEF).await?, servers.client(Side::Majority, PATIENT).await?);
    let lost = Arc::new(few.lock("lost").await?);
    let kept = Arc::new(many.lock("kept").await?);
    let heir = rival(&many, &lost);
    let outsider = rival(&servers.client(Side::Minority, BRIEF).await?, &kept);
    for key in ["lost", "kept"] {
        eventually("a holder and a waiter", async || {
            let contenders = servers.contenders(key).await?;
            ensure!(contenders == 2, "{contenders} want {key}");
            Ok(())
        })
        .await?;
    }

    block_in_place(|| servers.cut())?;
    reported_by_its_deadline(&lost).await?;
    let next = soon("the waiter to be served", heir).await???;
    assert!(next.fencing_token() > lost.fencing_token(), "tokens grow");
    eventually("the majority to confirm its hold", async || Ok(kept.verify().await?)).await?;
    let refused = soon("a try among the minority", few.try_lock("new")).await?;
    assert!(!matches!(refused, Ok(Some(_))), "a minority gave a lock: {refused:?}");
    eventually("the majority to give another lock", async || Ok(many.lock("new").await?.release().await?))
        .await?;
    assert!(kept.is_held() && next.is_held(), "the majority goes on");

    block_in_place(|| servers.heal())?;
    let held = kept.fencing_token();
    Arc::into_inner(kept).context("the waiter looks at it")?.release().await?;
    // The waiter's session has ended meanwhile, so it queues again, or says that it could not.
    if let Ok(guard) = soon("the wait among the minority", outsider).await?? {
        assert!(guard.fencing_token() > held, "tokens grow");
        guard.release().await?;
    }
    let newcomer =
        eventually("a client that comes later", async || servers.client(Side::Minority, PATIENT).await)
            .await?;
    let last = next.fencing_token();
    next.release().await?;
    for (key, before) in [("lost", last), ("kept", held)] {
        let guard = eventually("a lock", async || {
            newcomer.try_lock_for(key, BRIEF).await?.context("somebody has it")
        })
        .await?;
        assert!(guard.fencing_token() > before, "tokens grow");
        guard.release().await?;
    }
    Ok(())
}

/// Waits for the key of `other` with a client of its own, and looks at `other` when it is served.
fn rival(locker: &AnyLocker, other: &Arc<LockGuard>) -> JoinHandle<lock_core::Result<LockGuard>> {
    let (locker, other) = (locker.clone(), Arc::downgrade(other));
    let key = other.upgrade().map(|guard| guard.key().clone()).expect("it is held by the caller");
    tokio::spawn(async move {
        let guard = locker.lock(key.as_str()).await?;
        let believes = other.upgrade().is_some_and(|other| other.is_held());
        assert!(!(believes && guard.is_held()), "two believe in {key:?}");
        Ok(guard)
    })
}

/// Waits until `guard` is held no longer, and then for its report.
async fn reported_by_its_deadline(guard: &LockGuard) -> Result<()> {
    let start = Instant::now();
    while guard.is_held() {
        ensure!(
            start.elapsed() < 3 * BRIEF,
            "a lease of {BRIEF:?} is believed in {:?} later",
            start.elapsed()
        );
        // why: until the deadline as it stands, which a renewal that came before the partition may have moved
        let _ = time::timeout(guard.remaining(), guard.lost()).await;
    }
    soon("the report of the loss", guard.lost()).await
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> Result<T> {
    time::timeout(BOUND, future).await.with_context(|| format!("waited {BOUND:?} for {what}"))
}

async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match probe().await {
            Ok(found) => return Ok(found),
            Err(status) if start.elapsed() > BOUND => {
                return Err(status.context(format!("waited {BOUND:?} for {what}")));
            }
            // why: a bounded poll of a condition
            Err(_) => time::sleep(Duration::from_millis(20)).await,
        }
    }
}
