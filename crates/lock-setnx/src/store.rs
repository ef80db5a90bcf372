//! The requests of the lock, one script each.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, LazyLock},
    time::Duration,
};

use lock_core::{
    Capabilities, Error, ErrorKind, FencingToken, Key, LockGuard, Options, Result, Scope, TokenOrder,
    Waiting,
    backend::{
        AcquireReply, Acquirer, BootInstant, Claim, Effect, LeaseStore, OwnerId, Released, Renewal,
        WaitingStore, present_runtime,
    },
};
use lock_redis::{Answer, INSPECT, Names, Node, Notices, Prefix, RELEASE, RENEW, Script, Target, redis};
use parking_lot::Mutex;

static ACQUIRE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("../scripts/acquire.lua")));
static UNDO: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("../scripts/undo.lua")));

/// The least time for which copies of an acquire that was undone are refused.
const LATEST_COPY: Duration = Duration::from_secs(600);

/// So many claims with copies that may still arrive are a reason to look for old ones.
const MOST_COPIES: usize = 1024;

/// Locks as keys of one Redis. Users see the [`SetnxLocker`](crate::SetnxLocker) around it.
pub struct SetnxStore {
    node: Node,
    prefix: Prefix,
    notices: Notices,
    /// The claims of which a copy may still arrive: sent and not answered yet, or sent more than once.
    copies: Mutex<HashMap<OwnerId, BootInstant>>,
}

/// Who holds a key, as the server knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Holder {
    /// The random id of the attempt that acquired it.
    pub owner: String,
    /// The token of the hold.
    pub fencing_token: FencingToken,
    /// When the lease ends unless it is renewed; `Duration::MAX` if somebody has taken its end away.
    pub free_in: Duration,
}

impl SetnxStore {
    pub(crate) async fn connect(target: Target, options: &Options) -> Result<Self> {
        let timing = options.check()?;
        let prefix = Prefix::new(options.prefix())?;
        let (target, runtime) = (Arc::new(target), present_runtime()?);
        let limit = timing.request_timeout();
        let node = Node::new(Arc::clone(&target), limit, timing.ttl(), &runtime);
        let channel = prefix.names(&Key::new("connected")?).lock;
        let node = node.with_script(&ACQUIRE).with_script(&UNDO).with_channel(channel);
        node.connect().await?;
        let notices = Notices::new(target, limit, &runtime);
        Ok(Self { node, prefix, notices, copies: Mutex::default() })
    }

    pub(crate) fn names(&self, key: &Key) -> Names {
        self.prefix.names(key)
    }

    pub(crate) async fn inspect(&self, key: &Key) -> Result<Option<Holder>> {
        let names = self.names(key);
        let Answer { value, .. } = self.node.run::<Vec<redis::Value>>(&INSPECT, &[&names.lock], &[]).await?;
        let [owner, token, free_in] = value.as_slice() else { return Ok(None) };
        let read = || -> redis::RedisResult<Holder> {
            Ok(Holder {
                owner: redis::from_redis_value_ref(owner)?,
                fencing_token: FencingToken::new(redis::from_redis_value_ref(token)?),
                free_in: milliseconds(redis::from_redis_value_ref(free_in)?).unwrap_or(Duration::MAX),
            })
        };
        read().map(Some).map_err(|error| self.not_ours(error))
    }

    fn expect_copies(&self, claim: &Claim) {
        let mut copies = self.copies.lock();
        // What a server that was never reached again left here.
        if copies.len() >= MOST_COPIES {
            let now = BootInstant::now();
            copies.retain(|_, started| now.since(*started) < 2 * claim.ttl());
        }
        copies.insert(claim.owner(), claim.started());
    }

    /// Frees the key after every request of the claim that may still arrive: over connections that went silent, in the
    /// order of what was sent over them; and a copy that comes by another way finds itself refused.
    async fn undo_everywhere(&self, claim: &Claim) -> Result<Answer<bool>> {
        let names = self.names(claim.key());
        let (owner, keep) = (claim.owner().to_string(), claim.ttl().max(LATEST_COPY).as_millis().to_string());
        let has_copies = self.copies.lock().contains_key(&claim.owner());
        let (both, one) = ([names.lock.as_str(), &names.fence], [owner.as_str(), &keep]);
        let undone = if has_copies {
            self.node.run_everywhere(claim.started(), &UNDO, &both, &one).await?
        } else {
            self.node.run_everywhere(claim.started(), &RELEASE, &both[..1], &one[..1]).await?
        };
        self.copies.lock().remove(&claim.owner());
        Ok(undone)
    }

    fn not_ours(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        let message =
            "the server's answer is not one of this lock's scripts; does another program use the prefix?";
        Error::new(ErrorKind::Unexpected, message).with_server(self.node.server()).with_source(error)
    }
}

impl LeaseStore for SetnxStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Scope::Servers, Waiting::Notified, TokenOrder::ServerData)
    }

    async fn acquire(&self, claim: &Claim) -> Result<AcquireReply> {
        let names = self.names(claim.key());
        let (owner, ttl) = (claim.owner().to_string(), claim.ttl().as_millis().to_string());
        let arguments = [owner.as_str(), &ttl, if claim.waits() { "1" } else { "0" }];
        self.expect_copies(claim);
        // Sent twice, the script recognises the claim.
        let answer = self.node.run(&ACQUIRE, &[&names.lock, &names.fence], &arguments).await;
        let effect = match &answer {
            Ok(Answer { repeated: false, .. }) => Effect::None,
            Ok(Answer { repeated: true, .. }) => Effect::Possible,
            Err(error) => error.effect(),
        };
        if effect == Effect::None {
            self.copies.lock().remove(&claim.owner());
        }
        let answer = answer?;
        let (granted, number): (bool, i64) = answer.value;
        if !granted {
            return Ok(AcquireReply::Busy { free_in: milliseconds(number).unwrap_or(claim.ttl()), effect });
        }
        let token = u64::try_from(number).map_err(|error| self.not_ours(error))?;
        Ok(AcquireReply::Granted { token: FencingToken::new(token), ttl: claim.ttl() })
    }

    async fn renew(&self, claim: &Claim) -> Result<Renewal> {
        let names = self.names(claim.key());
        let (owner, ttl) = (claim.owner().to_string(), claim.ttl().as_millis().to_string());
        let renewed = self.node.run(&RENEW, &[&names.lock], &[&owner, &ttl]).await?.value;
        Ok(if renewed { Renewal::Extended(claim.ttl()) } else { Renewal::NotOwner })
    }

    async fn release(&self, claim: &Claim) -> Result<Released> {
        let answer = if self.copies.lock().contains_key(&claim.owner()) {
            self.undo_everywhere(claim).await?
        } else {
            let names = self.names(claim.key());
            self.node.run(&RELEASE, &[&names.lock], &[&claim.owner().to_string()]).await?
        };
        match answer {
            Answer { value: true, .. } => Ok(Released::Freed),
            Answer { value: false, repeated: false } => Ok(Released::NotOwner),
            Answer { value: false, repeated: true } => {
                let message = "the connection broke during the release: the key is given back, but whether it was \
                               held until then is not known";
                Err(Error::new(ErrorKind::Unavailable, message).with_server(self.node.server()))
            }
        }
    }

    async fn undo(&self, claim: &Claim) -> Result<()> {
        self.undo_everywhere(claim).await.map(drop)
    }

    async fn verify(&self, claim: &Claim) -> Result<bool> {
        let holder = self.inspect(claim.key()).await?;
        Ok(holder.is_some_and(|holder| holder.owner == claim.owner().to_string()))
    }
}

impl WaitingStore for SetnxStore {
    async fn lock(&self, acquirer: &Acquirer<'_, Self>) -> Result<LockGuard> {
        let mut listener = self.notices.listener(self.names(acquirer.key()).lock);
        acquirer.wait(&mut listener).await
    }
}

/// A time to live as Redis tells it; none if the key has none, because somebody took it away.
fn milliseconds(told: i64) -> Option<Duration> {
    u64::try_from(told).ok().map(Duration::from_millis)
}

impl fmt::Debug for SetnxStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetnxStore").finish_non_exhaustive()
    }
}
