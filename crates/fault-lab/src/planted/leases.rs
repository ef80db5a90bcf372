//! A lock by leases on one or several Redis, as small as it can be, in which bugs are planted.

use std::{
    future::{self, Future},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use lock_core::{
    AnyLocker, Capabilities, Error, ErrorKind, FencingToken, Key, LockGuard, Locker, LossReason, Options,
    Result, Scope, TokenOrder, Waiting,
    backend::{Backend, BootInstant, BoxFuture, Hold, LeaseTiming, Release, WaitingBackend},
};
use lock_redis::Prefix;
use redis::Script;
use tokio::{runtime::Handle, task::AbortHandle, time};

use super::{Bug, servers::Server};

/// Grants the key if it is free and the token is newer than all before: {1, token} or {0, the newest token}.
const ACQUIRE: &str = "
if redis.call('EXISTS', KEYS[1]) == 1 then return {0, 0} end
local last = tonumber(redis.call('GET', KEYS[2]) or '0')
local token = tonumber(ARGV[3])
if ARGV[4] == 'count' then token = last + 1 elseif ARGV[4] == '' and token <= last then return {0, last} end
redis.call('SET', KEYS[2], string.format('%.0f', token))
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {1, token}";
const RENEW: &str = "
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  if ARGV[3] == '' then return 0 end
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])";
const RELEASE: &str = "
if ARGV[2] == '' and redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])";
const HOLDS: &str = "return redis.call('GET', KEYS[1]) == ARGV[1] and 1 or 0";

const PAUSE: Duration = Duration::from_millis(5);

struct Shared {
    servers: Vec<Server>,
    prefix: Prefix,
    timing: LeaseTiming,
    bug: Option<Bug>,
    /// One owner for all, if that is the bug.
    name: String,
    counted: AtomicU64,
    scripts: [Script; 4],
}

pub(super) async fn connect(bug: Option<Bug>, urls: &str, options: &Options) -> Result<AnyLocker> {
    let servers = urls.split(',').map(Server::new).collect::<Result<Vec<_>>>()?;
    let shared = Shared {
        servers,
        prefix: Prefix::new(options.prefix())?,
        timing: options.check()?,
        bug,
        name: random(),
        counted: AtomicU64::new(0),
        scripts: [ACQUIRE, RENEW, RELEASE, HOLDS].map(Script::new),
    };
    Ok(AnyLocker::new(Locker::new(Leases(Arc::new(shared)))))
}

fn random() -> String {
    format!("{:032x}", rand::random::<u128>())
}

impl Shared {
    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn flag(&self, bug: Bug) -> &'static str {
        if self.has(bug) { "bug" } else { "" }
    }

    /// Asks all servers at once, and counts those that agree.
    async fn votes(&self, script: usize, key: &Key, arguments: &[&str], limit: Option<Duration>) -> Votes {
        let names = self.prefix.names(key);
        let keys = [names.lock(), names.fence()];
        let asked = self.servers.iter().map(|server| {
            let script = &self.scripts[script];
            async move {
                if script.get_hash() == self.scripts[0].get_hash() {
                    let (granted, token): (u64, u64) = server.run(script, &keys, arguments, limit).await?;
                    return Ok((granted == 1, token));
                }
                let agreed: u64 = server.run(script, &keys[..1], arguments, limit).await?;
                Ok::<_, Error>((agreed == 1, 0))
            }
        });
        let mut votes = Votes::default();
        for answer in all(asked).await {
            match answer {
                Ok((agreed, token)) => {
                    votes.answers += 1;
                    votes.agreed += usize::from(agreed);
                    votes.largest = votes.largest.max(token);
                }
                Err(error) => votes.error = Some(error),
            }
        }
        votes
    }

    fn majority(&self) -> usize {
        self.servers.len() / 2 + 1
    }

    fn limit(&self) -> Option<Duration> {
        (!self.has(Bug::MinValidityIgnored)).then(|| self.timing.request_timeout())
    }

    async fn release(&self, key: &Key, owner: &str) -> Votes {
        let any = self.flag(Bug::ReleaseWithoutOwner);
        self.votes(2, key, &[owner, any], Some(self.timing.request_timeout())).await
    }

    fn deadline(&self, sent: BootInstant) -> BootInstant {
        if self.has(Bug::DriftIgnored) {
            return sent.after(self.timing.ttl());
        }
        self.timing.deadline(sent, self.timing.ttl())
    }

    async fn attempt(self: &Arc<Self>, key: &Key) -> Result<Option<LockGuard>> {
        let owner = if self.has(Bug::OneOwnerForAll) { self.name.clone() } else { random() };
        let ttl = self.timing.ttl().as_millis().to_string();
        let mut token = match self.bug {
            Some(Bug::TokenFromClient) => self.counted.fetch_add(1, Ordering::Relaxed) + 1,
            _ => micros().max(self.counted.load(Ordering::Relaxed) + 1),
        };
        let mode = match self.bug {
            Some(Bug::TokenNotAccepted) => "count",
            Some(Bug::TokenFromClient) => "any",
            _ => "",
        };
        let pending = Pending { shared: Arc::clone(self), key: Some(key.clone()), owner: owner.clone() };
        let mut sent = BootInstant::now();
        let votes = self.votes(0, key, &[&owner, &ttl, &token.to_string(), mode], self.limit()).await;
        if self.has(Bug::ValidityFromReply) {
            sent = BootInstant::now();
        }
        if votes.answers < self.majority() {
            return Err(votes.error.unwrap_or_else(|| Error::no_answer(self.timing.request_timeout())));
        }
        self.counted.fetch_max(votes.largest, Ordering::Relaxed);
        if votes.agreed < self.majority() {
            return Ok(None);
        }
        let deadline = self.deadline(sent);
        let left = deadline.since(BootInstant::now());
        if left < self.timing.min_validity() && !self.has(Bug::MinValidityIgnored) {
            return Err(Error::no_answer(self.timing.request_timeout()));
        }
        if self.has(Bug::TokenNotAccepted) {
            token = votes.largest;
        }
        let key = pending.settled();
        Ok(Some(hold(self, key, owner, token, deadline)))
    }
}

fn micros() -> u64 {
    let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_micros();
    u64::try_from(now).unwrap_or(u64::MAX)
}

/// Awaits all at once, without another crate.
async fn all<T: Send>(futures: impl Iterator<Item = impl Future<Output = T> + Send>) -> Vec<T> {
    let mut pending: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    future::poll_fn(|context| {
        let mut is_ready = true;
        for (future, output) in &mut pending {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *output = Some(value),
                    std::task::Poll::Pending => is_ready = false,
                }
            }
        }
        if is_ready { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    pending.into_iter().filter_map(|(_, output)| output).collect()
}

#[derive(Default)]
struct Votes {
    answers: usize,
    agreed: usize,
    largest: u64,
    error: Option<Error>,
}

/// An attempt that may have taken something. Dropped, it gives that back.
struct Pending {
    shared: Arc<Shared>,
    key: Option<Key>,
    owner: String,
}

impl Pending {
    fn settled(mut self) -> Key {
        self.key.take().expect("it is settled once")
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let Some(key) = self.key.take().filter(|_| !self.shared.has(Bug::LeakOnCancel)) else { return };
        let (shared, owner) = (Arc::clone(&self.shared), self.owner.clone());
        tokio::spawn(async move {
            if shared.has(Bug::OneOwnerForAll) {
                // why: an undo that is late is what makes one owner for all dangerous
                time::sleep(shared.timing.ttl() / 10).await;
            }
            shared.release(&key, &owner).await;
        });
    }
}

struct Leases(Arc<Shared>);

impl Backend for Leases {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Scope::Servers, Waiting::Polling, TokenOrder::ServerData)
    }

    async fn try_lock(&self, key: Key) -> Result<Option<LockGuard>> {
        self.0.attempt(&key).await
    }

    async fn close(&self) {}
}

impl WaitingBackend for Leases {
    async fn lock(&self, key: Key) -> Result<LockGuard> {
        loop {
            if let Some(guard) = self.0.attempt(&key).await? {
                return Ok(guard);
            }
            let longer = Duration::from_millis(rand::random_range(0..10));
            // why: this lock polls
            time::sleep(PAUSE + longer).await;
        }
    }
}

/// What a holder knows of its hold.
struct Belief {
    shared: Arc<Shared>,
    key: Key,
    owner: String,
    token: u64,
    /// By the boot clock, or by the wall clock if that is the bug.
    deadline: AtomicU64,
    lost: AtomicBool,
}

impl Belief {
    fn now(&self) -> u64 {
        if self.shared.has(Bug::WallClock) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            return u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        }
        BootInstant::now().as_nanos()
    }

    fn extend(&self, deadline: BootInstant) {
        let left = deadline.since(BootInstant::now()).as_nanos() as u64;
        self.deadline.store(self.now() + left, Ordering::SeqCst);
    }

    fn remaining(&self) -> Duration {
        let left = self.deadline.load(Ordering::SeqCst).saturating_sub(self.now());
        match self.shared.bug {
            Some(Bug::LossByTask) if !self.lost.load(Ordering::SeqCst) => {
                return Duration::from_nanos(left).max(PAUSE);
            }
            Some(Bug::ExtendAfterDeadline) => return Duration::from_nanos(left),
            _ => {}
        }
        // The first that sees the end writes it down.
        if left == 0 {
            self.lost.store(true, Ordering::SeqCst);
        }
        if self.lost.load(Ordering::SeqCst) { Duration::ZERO } else { Duration::from_nanos(left) }
    }

    async fn renew(self: Arc<Self>) {
        let Shared { timing, .. } = &*self.shared;
        let takes = self.shared.flag(Bug::RenewalThatTakes);
        let ttl = timing.ttl().as_millis().to_string();
        loop {
            // why: it renews by the clock
            time::sleep(timing.renew_every()).await;
            let sent = BootInstant::now();
            let limit =
                if self.shared.has(Bug::ExtendAfterDeadline) { None } else { Some(timing.request_timeout()) };
            let votes = self.shared.votes(1, &self.key, &[&self.owner, &ttl, takes], limit).await;
            if votes.agreed >= self.shared.majority() {
                let from = if self.shared.has(Bug::ExtendAfterDeadline) { BootInstant::now() } else { sent };
                if self.remaining() > Duration::ZERO || self.shared.has(Bug::ExtendAfterDeadline) {
                    self.extend(self.shared.deadline(from));
                }
            } else if votes.answers >= self.shared.majority() {
                self.lost.store(true, Ordering::SeqCst);
                self.deadline.store(0, Ordering::SeqCst);
            }
        }
    }
}

fn hold(shared: &Arc<Shared>, key: Key, owner: String, token: u64, deadline: BootInstant) -> LockGuard {
    let (shared, lost) = (Arc::clone(shared), AtomicBool::new(false));
    let belief = Arc::new(Belief { shared, key, owner, token, deadline: AtomicU64::new(0), lost });
    belief.extend(deadline);
    let renewal = tokio::spawn(Arc::clone(&belief).renew()).abort_handle();
    LockGuard::new(Arc::new(Held { belief, renewal, runtime: Handle::current() }))
}

struct Held {
    belief: Arc<Belief>,
    renewal: AbortHandle,
    runtime: Handle,
}

impl Held {
    fn stop_renewal(&self) {
        if !self.belief.shared.has(Bug::RenewalThatTakes) {
            return self.renewal.abort();
        }
        // The bug: one more renewal may follow the release.
        let renewal = self.renewal.clone();
        let soon = self.belief.shared.timing.ttl() / 2;
        self.runtime.spawn(async move {
            // why: see above
            time::sleep(soon).await;
            renewal.abort();
        });
    }
}

impl Hold for Held {
    fn key(&self) -> &Key {
        &self.belief.key
    }

    fn fencing_token(&self) -> FencingToken {
        FencingToken::new(self.belief.token)
    }

    fn remaining(&self) -> Duration {
        self.belief.remaining()
    }

    fn loss(&self) -> Option<LossReason> {
        self.belief.lost.load(Ordering::SeqCst).then_some(LossReason::Deadline)
    }

    fn lost(&self) -> BoxFuture<'_, ()> {
        if self.belief.shared.has(Bug::LossNotTold) {
            return Box::pin(future::pending());
        }
        Box::pin(async {
            while self.belief.remaining() > Duration::ZERO {
                // why: a bounded poll of a condition
                time::sleep(PAUSE).await;
            }
        })
    }

    fn verify(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            let Belief { shared, key, owner, .. } = &*self.belief;
            let votes = shared.votes(3, key, &[owner], shared.limit()).await;
            if votes.answers >= shared.majority() && votes.agreed < shared.majority() {
                return Err(lost());
            }
            votes.error.map_or(Ok(()), Err)
        })
    }

    fn release(self: Arc<Self>) -> Release {
        self.stop_renewal();
        let belief = Arc::clone(&self.belief);
        let release = async move {
            let is_certain = belief.remaining() > Duration::ZERO;
            let votes = belief.shared.release(&belief.key, &belief.owner).await;
            if votes.answers < belief.shared.majority() {
                return Err(votes.error.unwrap_or_else(lost));
            }
            if votes.agreed >= belief.shared.majority() && is_certain { Ok(()) } else { Err(lost()) }
        };
        if self.belief.shared.has(Bug::ReleaseTiedToFuture) {
            return Release::Pending(Box::pin(async move {
                tokio::task::yield_now().await;
                release.await
            }));
        }
        let released = self.runtime.spawn(release);
        Release::Pending(Box::pin(async move { released.await.unwrap_or_else(|_| Err(lost())) }))
    }

    fn abandon(self: Arc<Self>) {
        self.stop_renewal();
        let belief = Arc::clone(&self.belief);
        self.runtime.spawn(async move { belief.shared.release(&belief.key, &belief.owner).await });
    }
}

fn lost() -> Error {
    Error::new(ErrorKind::Lost, "the lock was lost")
}
