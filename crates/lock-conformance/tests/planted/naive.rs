//! A backend written without lock-core's machinery, as small as it can be, with a bug.

use std::{
    future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use lock_conformance::MemoryServer;
use lock_core::{
    Capabilities, Error, ErrorKind, FencingToken, Key, LockGuard, LossReason, Options, Result, Scope,
    TokenOrder, Waiting,
    backend::{
        AcquireReply, Backend, BootInstant, BoxFuture, Hold, LeaseTiming, Release, Released, Renewal,
        Validity, WaitingBackend,
    },
};
use parking_lot::Mutex;
use rand::RngExt;
use tokio::{runtime::Handle, task::AbortHandle, time};

use crate::bug::Bug;

const PAUSE: Duration = Duration::from_millis(5);

pub(crate) struct Naive {
    server: MemoryServer,
    timing: LeaseTiming,
    bug: Option<Bug>,
}

impl Naive {
    pub(crate) fn new(server: &MemoryServer, options: &Options, bug: Option<Bug>) -> Result<Self> {
        let checked = options.check();
        let timing = if bug == Some(Bug::OptionsUnchecked) {
            checked.or_else(|_| Options::default().check())
        } else {
            checked
        };
        Ok(Self { server: server.clone(), timing: timing?, bug })
    }

    async fn attempt(&self, key: &Key) -> Result<Option<LockGuard>> {
        let owner = format!("{:x}", rand::rng().random::<u128>());
        let (ttl, sent) = (self.timing.ttl(), BootInstant::now());
        let reply = self.server.call({
            let (key, owner) = (key.clone(), owner.clone());
            move |table| table.acquire(&key, &owner, ttl)
        });
        match reply.await? {
            AcquireReply::Granted { token, ttl } => {
                let deadline = self.timing.deadline(sent, ttl);
                let belief = Arc::new(Belief {
                    server: self.server.clone(),
                    timing: self.timing,
                    bug: self.bug,
                    key: key.clone(),
                    owner,
                    validity: Validity::until(deadline),
                    deadline: Mutex::new(deadline),
                    lost: AtomicBool::new(false),
                });
                let renewal = tokio::spawn(renew(Arc::clone(&belief))).abort_handle();
                Ok(Some(LockGuard::new(Arc::new(NaiveHold {
                    belief,
                    token,
                    renewal,
                    runtime: Handle::current(),
                }))))
            }
            _ => Ok(None),
        }
    }
}

impl Backend for Naive {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Scope::Servers, Waiting::Polling, TokenOrder::ServerData)
    }

    async fn try_lock(&self, key: Key) -> Result<Option<LockGuard>> {
        if self.bug == Some(Bug::TryThatWaits) {
            return self.lock(key).await.map(Some);
        }
        self.attempt(&key).await
    }

    async fn close(&self) {}
}

impl WaitingBackend for Naive {
    async fn lock(&self, key: Key) -> Result<LockGuard> {
        loop {
            if let Some(guard) = self.attempt(&key).await? {
                return Ok(guard);
            }
            if self.bug == Some(Bug::WaitThatBlocksTheThread) {
                // why: this is the bug
                thread::sleep(Duration::from_secs(6));
            }
            // why: the naive lock polls
            time::sleep(PAUSE).await;
        }
    }
}

/// What a holder knows of its hold.
struct Belief {
    server: MemoryServer,
    timing: LeaseTiming,
    bug: Option<Bug>,
    key: Key,
    owner: String,
    validity: Validity,
    /// The deadline as one would keep it who moves it with each answer.
    deadline: Mutex<BootInstant>,
    /// The loss as one would keep it who leaves it to a task.
    lost: AtomicBool,
}

impl Belief {
    async fn release(&self) -> Result<Released> {
        let (key, owner) = (self.key.clone(), self.owner.clone());
        self.server.call(move |table| table.release(&key, &owner)).await
    }
}

async fn renew(belief: Arc<Belief>) {
    let timing = belief.timing;
    let (creates, goes_on) = match belief.bug {
        Some(Bug::RenewalAfterRelease) => (true, true),
        Some(Bug::LossThatIsRevived | Bug::DeadlineMovedWithoutAnAnswer) => (false, true),
        _ => (false, false),
    };
    loop {
        // why: the naive lock renews by the clock
        time::sleep(timing.renew_every()).await;
        let (key, owner, ttl) = (belief.key.clone(), belief.owner.clone(), timing.ttl());
        let sent = BootInstant::now();
        let answer = belief.server.call(move |table| {
            if creates {
                table.acquire(&key, &owner, ttl);
            }
            table.renew(&key, &owner, ttl)
        });
        match time::timeout(timing.request_timeout(), answer).await {
            Ok(Ok(Renewal::Extended(ttl))) => {
                let deadline = timing.deadline(sent, ttl);
                belief.validity.extend(deadline);
                *belief.deadline.lock() = deadline;
            }
            Ok(Ok(Renewal::NotOwner)) => belief.validity.end(LossReason::NotOwner),
            Ok(_) | Err(_) if belief.bug == Some(Bug::DeadlineMovedWithoutAnAnswer) => {
                *belief.deadline.lock() = timing.deadline(sent, timing.ttl());
            }
            _ => {}
        }
        if !belief.validity.is_valid() && !goes_on {
            belief.lost.store(true, Ordering::SeqCst);
            return;
        }
    }
}

struct NaiveHold {
    belief: Arc<Belief>,
    token: FencingToken,
    renewal: AbortHandle,
    runtime: Handle,
}

impl Hold for NaiveHold {
    fn key(&self) -> &Key {
        &self.belief.key
    }

    fn fencing_token(&self) -> FencingToken {
        self.token
    }

    fn remaining(&self) -> Duration {
        let Belief { bug, validity, deadline, lost, .. } = &*self.belief;
        match bug {
            Some(Bug::LossFromAFlag) if lost.load(Ordering::SeqCst) => Duration::ZERO,
            Some(Bug::LossFromAFlag) => self.belief.timing.ttl(),
            Some(Bug::LossThatIsRevived | Bug::DeadlineMovedWithoutAnAnswer) => {
                deadline.lock().since(BootInstant::now())
            }
            _ => validity.remaining(),
        }
    }

    fn loss(&self) -> Option<LossReason> {
        self.belief.validity.reason()
    }

    fn lost(&self) -> BoxFuture<'_, ()> {
        if self.belief.bug == Some(Bug::LossThatIsNotTold) {
            return Box::pin(future::pending());
        }
        Box::pin(self.belief.validity.ended())
    }

    fn verify(&self) -> BoxFuture<'_, Result<()>> {
        let (key, owner) = (self.belief.key.clone(), self.belief.owner.clone());
        Box::pin(async {
            if !self.belief.server.call(move |table| table.holds(&key, &owner)).await? {
                return Err(lost());
            }
            Ok(())
        })
    }

    fn release(self: Arc<Self>) -> Release {
        if self.belief.bug != Some(Bug::RenewalAfterRelease) {
            self.renewal.abort();
        }
        Release::Pending(Box::pin(async move {
            let certain = self.remaining() > Duration::ZERO;
            match self.belief.release().await? {
                Released::Freed if certain => Ok(()),
                _ => Err(lost()),
            }
        }))
    }

    fn abandon(self: Arc<Self>) {
        self.renewal.abort();
        let belief = Arc::clone(&self.belief);
        self.runtime.spawn(async move { belief.release().await });
    }
}

fn lost() -> Error {
    Error::new(ErrorKind::Lost, "the lock was lost")
}
