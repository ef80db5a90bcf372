//! A lock with a queue and a session on one Redis, as small as it can be, in which bugs are planted.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use lock_core::{
    AnyLocker, Capabilities, Error, ErrorKind, FencingToken, Key, LockGuard, Locker, LossReason, Options,
    Result, Scope, TokenOrder, Waiting,
    backend::{Backend, BootInstant, BoxFuture, Hold, LeaseTiming, Release, WaitingBackend},
};
use lock_redis::Prefix;
use redis::Script;
use tokio::{runtime::Handle, time};

use super::{
    Bug,
    servers::{Server, unavailable},
};

/// Renews the session.
const BEAT: &str = "redis.call('SET', KEYS[1], '1', 'PX', ARGV[1]) return 1";
/// Enters the queue, in a session that lives: the number of the entry.
const ENTER: &str = "
local number = redis.call('INCR', KEYS[2])
redis.call('ZADD', KEYS[1], number, ARGV[1])
return number";
/// Who is in the queue, after those whose session is over have been taken out: names and numbers in turns.
const LOOK: &str = "
for _, entry in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if redis.call('EXISTS', string.match(entry, '^[^|]+')) == 0 then
    redis.call('ZREM', KEYS[1], entry)
    redis.call('PUBLISH', KEYS[1], 'gone')
  end
end
return redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')";
/// Leaves the queue.
const LEAVE: &str = "
local left = redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('PUBLISH', KEYS[1], 'left')
return left";

/// A process that has just begun may not get to run for longer than a session lasts.
const PATIENCE: Duration = Duration::from_secs(10);

struct Shared {
    server: Server,
    prefix: Prefix,
    timing: LeaseTiming,
    bug: Option<Bug>,
    session: String,
    /// The end of what the session is sure of.
    deadline: AtomicU64,
    entries: AtomicU64,
    scripts: Scripts,
}

struct Scripts {
    enter: Script,
    look: Script,
    leave: Script,
}

pub(super) async fn connect(bug: Option<Bug>, urls: &str, options: &Options) -> Result<AnyLocker> {
    let (timing, prefix) = (options.check()?, Prefix::new(options.prefix())?);
    let session = format!("{}-session-{:016x}", options.prefix(), rand::random::<u64>());
    let server = Server::new(urls)?;
    let shared = Arc::new(Shared {
        server,
        prefix,
        timing,
        bug,
        session,
        deadline: AtomicU64::new(0),
        entries: AtomicU64::new(0),
        scripts: Scripts { enter: Script::new(ENTER), look: Script::new(LOOK), leave: Script::new(LEAVE) },
    });
    tokio::spawn(beat(Arc::downgrade(&shared)));
    time::timeout(PATIENCE, async {
        while shared.deadline.load(Ordering::SeqCst) == 0 {
            // why: a bounded poll of a condition
            time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .map_err(|_| Error::no_answer(PATIENCE))?;
    Ok(AnyLocker::new(Locker::new(Queue(shared))))
}

/// Keeps a session alive as long as somebody has it.
async fn beat(session: Weak<Shared>) {
    let beat = Script::new(BEAT);
    while let Some(shared) = session.upgrade() {
        let sent = BootInstant::now();
        let ttl = shared.timing.ttl().as_millis().to_string();
        let beaten: Result<u64> = shared.server.run(&beat, &[&shared.session], &[&ttl], shared.limit()).await;
        if beaten.is_ok() {
            let deadline = shared.timing.deadline(sent, shared.timing.ttl());
            shared.deadline.store(deadline.as_nanos(), Ordering::SeqCst);
        }
        let pause = shared.timing.renew_every();
        drop(shared);
        // why: a session is renewed by the clock
        time::sleep(pause).await;
    }
}

impl Shared {
    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn limit(&self) -> Option<Duration> {
        Some(self.timing.request_timeout())
    }

    fn session_left(&self) -> Duration {
        let now = BootInstant::now().as_nanos();
        Duration::from_nanos(self.deadline.load(Ordering::SeqCst).saturating_sub(now))
    }

    async fn enter(self: &Arc<Self>, key: &Key) -> Result<Entry> {
        let name = format!("{}|{}", self.session, self.entries.fetch_add(1, Ordering::Relaxed));
        let mut entry =
            Entry { shared: Arc::clone(self), key: key.clone(), name, number: 0, is_settled: false };
        let names = self.prefix.names(key);
        let keys = [names.lock(), names.fence()];
        entry.number = self.server.run(&self.scripts.enter, &keys, &[&entry.name], self.limit()).await?;
        Ok(entry)
    }

    /// The names and numbers of those in the queue, in its order.
    async fn look(&self, key: &Key) -> Result<Vec<(String, u64)>> {
        let names = self.prefix.names(key);
        let mut queue: Vec<(String, u64)> =
            self.server.run(&self.scripts.look, &[names.lock()], &[], self.limit()).await?;
        if self.has(Bug::OrderAsText) {
            queue.sort_by_key(|(_, number)| number.to_string());
        }
        Ok(queue)
    }

    /// Waits until something changed in the queue, or for some time.
    async fn listen(&self, key: &Key) -> Result<redis::aio::PubSub> {
        let mut heard = self.server.client().get_async_pubsub().await.map_err(unavailable)?;
        heard.subscribe(self.prefix.names(key).lock()).await.map_err(unavailable)?;
        Ok(heard)
    }
}

/// A place in the queue. Dropped, it is given up.
struct Entry {
    shared: Arc<Shared>,
    key: Key,
    name: String,
    number: u64,
    is_settled: bool,
}

impl Entry {
    async fn leave(shared: Arc<Shared>, key: Key, name: String) -> Result<bool> {
        let names = shared.prefix.names(&key);
        let left: u64 =
            shared.server.run(&shared.scripts.leave, &[names.lock()], &[&name], shared.limit()).await?;
        Ok(left == 1)
    }

    fn hold(mut self) -> LockGuard {
        self.is_settled = true;
        let (shared, key, name) = (Arc::clone(&self.shared), self.key.clone(), self.name.clone());
        let hold = Arc::new(Held {
            token: self.number,
            lost: AtomicBool::new(false),
            runtime: Handle::current(),
            shared,
            key,
            name,
        });
        tokio::spawn(Held::look_after(Arc::downgrade(&hold)));
        LockGuard::new(hold)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if !self.is_settled {
            let (shared, key, name) = (Arc::clone(&self.shared), self.key.clone(), self.name.clone());
            tokio::spawn(Self::leave(shared, key, name));
        }
    }
}

struct Queue(Arc<Shared>);

impl Backend for Queue {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Scope::Servers, Waiting::Fifo, TokenOrder::ServerData)
    }

    async fn try_lock(&self, key: Key) -> Result<Option<LockGuard>> {
        let entry = self.0.enter(&key).await?;
        let queue = self.0.look(&key).await?;
        Ok((queue.first().is_some_and(|(name, _)| *name == entry.name)).then(|| entry.hold()))
    }

    async fn close(&self) {}
}

impl WaitingBackend for Queue {
    async fn lock(&self, key: Key) -> Result<LockGuard> {
        use futures_util::StreamExt;

        let shared = &self.0;
        let mut entry = shared.enter(&key).await?;
        let mut predecessor: Option<String> = None;
        loop {
            let early =
                if shared.has(Bug::LookBeforeListen) { None } else { Some(shared.listen(&key).await?) };
            let queue = shared.look(&key).await?;
            let place = queue.iter().position(|(name, _)| *name == entry.name);
            let is_freed =
                predecessor.as_ref().is_some_and(|before| !queue.iter().any(|(name, _)| name == before));
            match place {
                Some(0) if shared.session_left() > shared.timing.min_validity() => return Ok(entry.hold()),
                Some(place) => predecessor = place.checked_sub(1).map(|before| queue[before].0.clone()),
                None if shared.has(Bug::OwnEntryNotChecked) && is_freed => return Ok(entry.hold()),
                None if shared.has(Bug::OwnEntryNotChecked) => {}
                None => entry = shared.enter(&key).await?,
            }
            let patience = shared.timing.ttl() / 4;
            match early {
                Some(heard) => {
                    let mut heard = heard.into_on_message();
                    // It looks again now and then, since a notice may be lost.
                    time::timeout(patience, heard.next()).await.ok();
                }
                None => {
                    let mut heard = shared.listen(&key).await?.into_on_message();
                    heard.next().await;
                }
            }
        }
    }
}

struct Held {
    shared: Arc<Shared>,
    key: Key,
    name: String,
    token: u64,
    lost: AtomicBool,
    runtime: Handle,
}

impl Held {
    /// Looks whether the entry is there, as long as the hold lives.
    async fn look_after(held: Weak<Self>) {
        while let Some(this) = held.upgrade() {
            if !this.shared.has(Bug::KeepAliveOnly)
                && let Ok(queue) = this.shared.look(&this.key).await
                && !queue.iter().any(|(name, _)| *name == this.name)
            {
                this.lost.store(true, Ordering::SeqCst);
                return;
            }
            let pause = this.shared.timing.renew_every();
            drop(this);
            // why: it looks by the clock
            time::sleep(pause).await;
        }
    }
}

impl Hold for Held {
    fn key(&self) -> &Key {
        &self.key
    }

    fn fencing_token(&self) -> FencingToken {
        FencingToken::new(self.token)
    }

    fn remaining(&self) -> Duration {
        let left = self.shared.session_left();
        if left.is_zero() {
            self.lost.store(true, Ordering::SeqCst);
        }
        if self.lost.load(Ordering::SeqCst) { Duration::ZERO } else { left }
    }

    fn loss(&self) -> Option<LossReason> {
        self.lost.load(Ordering::SeqCst).then_some(LossReason::NotOwner)
    }

    fn lost(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            while self.remaining() > Duration::ZERO {
                // why: a bounded poll of a condition
                time::sleep(Duration::from_millis(5)).await;
            }
        })
    }

    fn verify(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            let queue = self.shared.look(&self.key).await?;
            if queue.first().is_some_and(|(name, _)| *name == self.name) { Ok(()) } else { Err(lost()) }
        })
    }

    fn release(self: Arc<Self>) -> Release {
        let is_certain = self.remaining() > Duration::ZERO;
        let left =
            self.runtime.spawn(Entry::leave(Arc::clone(&self.shared), self.key.clone(), self.name.clone()));
        Release::Pending(Box::pin(async move {
            match left.await.unwrap_or(Ok(false))? {
                true if is_certain => Ok(()),
                _ => Err(lost()),
            }
        }))
    }

    fn abandon(self: Arc<Self>) {
        self.runtime.spawn(Entry::leave(Arc::clone(&self.shared), self.key.clone(), self.name.clone()));
    }
}

fn lost() -> Error {
    Error::new(ErrorKind::Lost, "the lock was lost")
}
