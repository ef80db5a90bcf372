//! The requests of the lock, one script each.

use std::{collections::HashMap, fmt, iter, sync::Arc, time::Duration};

use lock_core::{
    Capabilities, Error, ErrorKind, FencingToken, Key, LockGuard, Options, Result, Scope, TokenOrder,
    Waiting,
    backend::{
        AcquireReply, Acquirer, BootInstant, Claim, Effect, LeaseStore, OwnerId, Released, Renewal,
        WaitingStore, present_runtime,
    },
};
use lock_redis::{
    Answer, HandOn, INSPECT, Names, Node, Notices, Prefix, RENEW, RESERVATION, Reservations, Target, redis,
};
use parking_lot::Mutex;

use crate::{
    gate::Slots,
    scripts::{ACQUIRE, HAND_ON, HANDED_ON, RELEASE, UNDO},
};

/// The least time for which copies of an acquire that was undone are refused.
const LATEST_COPY: Duration = Duration::from_secs(600);

/// So many claims with copies that may still arrive are a reason to look for old ones.
const MOST_COPIES: usize = 1024;

/// Locks as keys of one Redis. Users see the [`SetnxLocker`](crate::SetnxLocker) around it.
pub struct SetnxStore {
    pub(crate) node: Arc<Node>,
    pub(crate) prefix: Prefix,
    slots: Slots,
    notices: Notices,
    pub(crate) reservations: Reservations<Queues>,
    /// The TTL in milliseconds, as each acquire and renewal says it.
    pub(crate) ttl: String,
    /// What is added to the owner id of a waiter in a queue: how it is told that it is next; see `queue.lua`.
    told_by: String,
    /// The claims of which a copy may still arrive: sent and not answered yet, or sent more than once.
    copies: Mutex<HashMap<OwnerId, BootInstant>>,
}

/// What the script returns if the slot of the key is not open as was asked.
const CLOSED: u8 = 4;

/// What is added to the owner id of a waiter that cannot be told.
const UNTOLD: &str = "?";

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
    pub(crate) async fn connect(target: Target, options: &Options, slots: Slots) -> Result<Self> {
        let timing = options.check()?;
        let prefix = slots.named(Prefix::new(options.prefix())?);
        let (target, runtime) = (Arc::new(target), present_runtime()?);
        let limit = timing.request_timeout();
        let channel = prefix.channel();
        // Where several servers are one, those who listen at another are not counted.
        let told_by = format!("{}{channel}", if target.is_one_server() { "!" } else { UNTOLD });
        let mut node =
            Node::new(Arc::clone(&target), limit, timing.ttl(), &runtime).with_channel(channel.clone());
        for script in [&ACQUIRE, &RELEASE, &UNDO, &HAND_ON] {
            node = node.with_script(script);
        }
        let node = slots.prepare(node, &prefix);
        node.connect().await?;
        let node = Arc::new(node);
        Ok(Self {
            reservations: Reservations::new(Arc::new(Queues(Arc::clone(&node))), runtime.clone()),
            node,
            prefix,
            slots,
            notices: Notices::new(target, channel, limit, &runtime),
            ttl: timing.ttl().as_millis().to_string(),
            told_by,
            copies: Mutex::default(),
        })
    }

    pub(crate) fn names(&self, key: &Key) -> Names {
        self.prefix.names(key)
    }

    pub(crate) async fn inspect(&self, key: &Key) -> Result<Option<Holder>> {
        let names = self.names(key);
        let Answer { value, .. } = self.node.run::<Vec<redis::Value>>(&INSPECT, &[names.lock()], &[]).await?;
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

    /// Returns whether none was expected before.
    fn expect_copies(&self, claim: &Claim) -> bool {
        let mut copies = self.copies.lock();
        // What a server that was never reached again left here.
        if copies.len() >= MOST_COPIES {
            let now = BootInstant::now();
            copies.retain(|_, started| now.since(*started) < 2 * claim.ttl());
        }
        copies.insert(claim.owner(), claim.started()).is_none()
    }

    /// Frees the key after every request of the claim that may still arrive: over connections that went silent, in the
    /// order of what was sent over them; and a copy that comes by another way finds itself refused.
    async fn undo_everywhere(&self, claim: &Claim) -> Result<Answer<i64>> {
        let names = self.names(claim.key());
        let (owner, keep) = (claim.owner().hex(), claim.ttl().max(LATEST_COPY).as_millis().to_string());
        let has_copies = self.copies.lock().contains_key(&claim.owner());
        let (since, keys) = (claim.begun(), [names.lock(), names.queue(), names.fence()]);
        let undone = if has_copies {
            self.node.run_everywhere(since, &UNDO, &keys, &[&*owner, &keep, &self.told_by]).await?
        } else {
            self.node.run_everywhere(since, &RELEASE, &keys[..2], &[&*owner, &self.told_by]).await?
        };
        self.copies.lock().remove(&claim.owner());
        if undone.value == HANDED_ON {
            self.reservations.watch(&names);
        }
        Ok(undone)
    }

    fn no_larger_token(&self, fence: &str) -> Error {
        let message = format!(
            "the fence counter {fence} is at its end, 2^53, or the server's clock beyond the year 2255"
        );
        Error::new(ErrorKind::UnsafeConfig, message).with_server(self.node.server()).without_effect()
    }

    pub(crate) fn read<T: redis::FromRedisValue>(&self, value: &redis::Value) -> Result<T> {
        redis::from_redis_value_ref(value).map_err(|error| self.not_ours(error))
    }

    pub(crate) fn not_ours(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        let message =
            "the server's answer is not one of this lock's scripts; does another program use the prefix?";
        Error::new(ErrorKind::Unexpected, message).with_server(self.node.server()).with_source(error)
    }
}

impl LeaseStore for SetnxStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Scope::Servers, Waiting::Fifo, TokenOrder::ServerData)
    }

    async fn acquire(&self, claim: &Claim) -> Result<AcquireReply> {
        let (names, owner) = (self.names(claim.key()), claim.owner().hex());
        let stands_as = match self.notices.is_connected().filter(|_| claim.waits()) {
            None => "",
            Some(true) => &self.told_by,
            Some(false) => UNTOLD,
        };
        let mut effect = Effect::None;
        loop {
            let gate = self.slots.gate(&self.prefix, claim.key());
            let (marker, open) = gate.condition().unzip();
            let keys = [names.lock(), names.fence(), names.queue(), marker.unwrap_or_default()];
            let arguments = [&*owner, &self.ttl, stands_as, &self.told_by, open.unwrap_or_default()];
            let slots = usize::from(marker.is_some());
            let first = self.expect_copies(claim);
            // Sent twice, the script recognises the claim.
            let answer = self.node.run(&ACQUIRE, &keys[..3 + slots], &arguments[..4 + slots]).await;
            effect = effect.and(match &answer {
                Ok(Answer { repeated: false, .. }) => Effect::None,
                Ok(Answer { repeated: true, .. }) => Effect::Possible,
                Err(error) => error.effect(),
            });
            if effect == Effect::None && first {
                self.copies.lock().remove(&claim.owner());
            }
            let (outcome, value): (u8, redis::Value) = answer?.value;
            if outcome == CLOSED && slots > 0 {
                self.slots.learn(&self.read::<String>(&value)?, &gate, effect)?;
                continue;
            }
            let number = self.read(&value)?;
            let free_in = milliseconds(number).unwrap_or(claim.ttl());
            return match outcome {
                0 => Ok(AcquireReply::Busy { free_in, effect }),
                1 => {
                    let token = u64::try_from(number).map_err(|error| self.not_ours(error))?;
                    let token = gate.token(FencingToken::new(token))?;
                    Ok(AcquireReply::Granted { token, ttl: claim.ttl() })
                }
                // One that cannot be told has to look before a reservation is over.
                3 if stands_as == UNTOLD => {
                    Ok(AcquireReply::Queued { free_in: free_in.min(RESERVATION / 3) })
                }
                3 => Ok(AcquireReply::Queued { free_in }),
                _ => Err(self.no_larger_token(names.fence())),
            };
        }
    }

    async fn renew(&self, claim: &Claim) -> Result<Renewal> {
        self.renew_all(&[claim]).await.remove(0)
    }

    fn renews_at_once(&self) -> usize {
        self.node.renews_at_once()
    }

    async fn renew_all(&self, claims: &[&Claim]) -> Vec<Result<Renewal>> {
        let names: Vec<_> = claims.iter().map(|claim| self.names(claim.key())).collect();
        let owners: Vec<_> = claims.iter().map(|claim| claim.owner().hex()).collect();
        let keys: Vec<_> = names.iter().map(Names::lock).collect();
        let arguments: Vec<_> = iter::once(&*self.ttl).chain(owners.iter().map(|owner| &**owner)).collect();
        match self.node.run::<Vec<bool>>(&RENEW, &keys, &arguments).await {
            Ok(Answer { value, .. }) => {
                let answer = |(index, claim): (usize, &&Claim)| match value.get(index) {
                    Some(renewed) => Ok(Renewal::of(*renewed, claim.ttl())),
                    None => Err(self.not_ours("an answer is missing")),
                };
                claims.iter().enumerate().map(answer).collect()
            }
            Err(error) => vec![Err(error); claims.len()],
        }
    }

    async fn release(&self, claim: &Claim) -> Result<Released> {
        let answer = if self.copies.lock().contains_key(&claim.owner()) {
            self.undo_everywhere(claim).await?
        } else {
            let names = self.names(claim.key());
            let keys = [names.lock(), names.queue()];
            let answer = self.node.run(&RELEASE, &keys, &[&claim.owner().hex()]).await?;
            if answer.value == HANDED_ON {
                self.reservations.watch(&names);
            }
            answer
        };
        match answer {
            Answer { value: 1 | HANDED_ON, .. } => Ok(Released::Freed),
            Answer { repeated: false, .. } => Ok(Released::NotOwner),
            Answer { repeated: true, .. } => {
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
        Ok(holder.is_some_and(|holder| *holder.owner == *claim.owner().hex()))
    }
}

impl WaitingStore for SetnxStore {
    async fn lock(&self, acquirer: &Acquirer<'_, Self>) -> Result<LockGuard> {
        let mut listener = self.notices.listener(self.names(acquirer.key()).lock().to_owned());
        acquirer.wait(&mut listener).await
    }
}

/// The queues of the keys of one Redis.
pub(crate) struct Queues(Arc<Node>);

impl HandOn for Queues {
    async fn hand_on(&self, names: &Names) -> bool {
        let handed_on = self.0.run::<bool>(&HAND_ON, &[names.lock(), names.queue()], &[]).await;
        handed_on.is_ok_and(|handed_on| handed_on.value)
    }
}

/// Returns a time to live that Redis told; none if the key has none, because somebody took it away.
fn milliseconds(told: i64) -> Option<Duration> {
    u64::try_from(told).ok().map(Duration::from_millis)
}

impl fmt::Debug for SetnxStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetnxStore").finish_non_exhaustive()
    }
}
