//! The requests of the lock, one script each.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use lock_core::{
    Capabilities, Error, ErrorKind, FencingToken, Key, LockGuard, Result, Scope, TokenOrder, Waiting,
    backend::{AcquireReply, Acquirer, Claim, Effect, LeaseStore, Released, Renewal, WaitingStore},
};

use lock_redis::{
    Answer, INSPECT, Names, Node, Notices, Prefix, RELEASE, RENEW, Script, Target, Turns, redis,
};

use crate::{Holder, Options};

static ACQUIRE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("../scripts/acquire.lua")));

/// Locks as keys of one Redis. Users see the [`SetnxLocker`](crate::SetnxLocker) around it.
pub struct Setnx {
    node: Node,
    prefix: Prefix,
    turns: Turns,
    notices: Notices,
}

impl Setnx {
    pub(crate) async fn connect(target: Target, options: &Options) -> Result<Self> {
        let timing = options.check()?;
        let prefix = Prefix::new(options.prefix())?;
        let target = Arc::new(target);
        let limit = timing.request_timeout();
        let node = Node::new(Arc::clone(&target), limit, timing.ttl()).with_script(&ACQUIRE);
        let connecting = tokio::time::timeout(limit, node.connect()).await;
        connecting.unwrap_or_else(|_| {
            let protocol = target.protocol();
            let message = format!(
                "no connection within {limit:?}; is the server reachable, and does it speak {protocol}?"
            );
            Err(Error::new(ErrorKind::Unavailable, message).with_server(node.server()).without_effect())
        })?;
        Ok(Self { node, prefix, turns: Turns::default(), notices: Notices::new(target, limit) })
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

    fn not_ours(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        let message =
            "the server's answer is not one of this lock's scripts; does another program use the prefix?";
        Error::new(ErrorKind::Unexpected, message).with_server(self.node.server()).with_source(error)
    }
}

impl LeaseStore for Setnx {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Scope::Servers, Waiting::Notified, TokenOrder::ServerData)
    }

    async fn acquire(&self, claim: &Claim) -> Result<AcquireReply> {
        let names = self.names(claim.key());
        let (owner, ttl) = (claim.owner().to_string(), claim.ttl().as_millis().to_string());
        let arguments = [owner.as_str(), &ttl, if claim.waits() { "1" } else { "0" }];
        // Sent twice, the script recognises the claim.
        let answer = self.node.run(&ACQUIRE, &[&names.lock, &names.fence], &arguments).await?;
        let (granted, number): (bool, i64) = answer.value;
        if !granted {
            return Ok(AcquireReply::Busy {
                free_in: milliseconds(number).unwrap_or(claim.ttl()),
                effect: Effect::None,
            });
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
        let names = self.names(claim.key());
        match self.node.run(&RELEASE, &[&names.lock], &[&claim.owner().to_string()]).await? {
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
        let names = self.names(claim.key());
        let owner = claim.owner().to_string();
        let (keys, arguments) = ([names.lock.as_str()], [owner.as_str()]);
        let sent = self.node.run_everywhere(claim.started(), &RELEASE, &keys, &arguments);
        sent.await.map(|_: Answer<bool>| ())
    }

    async fn verify(&self, claim: &Claim) -> Result<bool> {
        let holder = self.inspect(claim.key()).await?;
        Ok(holder.is_some_and(|holder| holder.owner == claim.owner().to_string()))
    }
}

impl WaitingStore for Setnx {
    async fn lock(&self, acquirer: &Acquirer<'_, Self>) -> Result<LockGuard> {
        let _turn = self.turns.wait(acquirer.key()).await;
        let mut bell = self.notices.listener(self.names(acquirer.key()).lock);
        acquirer.wait(&mut bell).await
    }
}

/// A time to live as Redis tells it; none if the key has none, because somebody took it away.
fn milliseconds(told: i64) -> Option<Duration> {
    u64::try_from(told).ok().map(Duration::from_millis)
}
