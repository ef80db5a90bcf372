//! One cluster of whatever kind, by what a lock space needs of it.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use lock_core::{
    AnyLocker, Capabilities, Error, ErrorKind, Key, LockGuard, Locker, Options, Result,
    backend::{Backend, BoxFuture, OwnerId, WaitingBackend},
    movable::{Adoption, Marker, MovableBackend, Slot, SlotHold, SlotStore},
};
use tokio::time;

/// Where a cluster is, and how to log in there.
#[derive(Clone)]
pub struct Cluster {
    kind: &'static str,
    connect: Arc<dyn Connect>,
}

impl Cluster {
    /// Finds the kind of a cluster from its address: `etcd:` and then an address as the crate of that lock takes it,
    /// such as `etcd:http://10.0.0.1:2379,http://10.0.0.2:2379`; `zk://` and the addresses of an ensemble, such as
    /// `zk://10.0.0.1:2181,10.0.0.2:2181/chroot`; that of one Redis, such as `redis://10.0.0.1:6379`; or `redlock:` and
    /// the addresses of independent Redis servers, such as
    /// `redlock:redis://10.0.0.1,redis://10.0.0.2,redis://10.0.0.3`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`]: it is no such address. [`ErrorKind::Unsupported`]: this crate was built without the
    /// feature for it.
    pub fn at(address: &str) -> Result<Self> {
        let (kind, rest) = address.split_once(':').unwrap_or((address, ""));
        match kind {
            #[cfg(feature = "etcd")]
            "etcd" => Ok(Self::etcd(rest.try_into()?)),
            #[cfg(feature = "zk")]
            "zk" if rest.starts_with("//") => Ok(Self::zk(lock_zk::Target::new(&rest[2..])?)),
            #[cfg(feature = "setnx")]
            "redis" | "rediss" => Ok(Self::setnx(address.try_into()?)),
            #[cfg(feature = "redlock")]
            "redlock" => Ok(Self::redlock(rest.split(',').map(TryInto::try_into).collect::<Result<_>>()?)),
            _ => {
                let _ = rest;
                let message = format!(
                    "{kind:?} is no kind of cluster that this program knows; addresses begin with {}",
                    KINDS.join(" or ")
                );
                Err(Error::new(ErrorKind::Unsupported, message).without_effect())
            }
        }
    }

    /// One of etcd.
    #[cfg(feature = "etcd")]
    #[must_use]
    pub fn etcd(target: lock_etcd::Target) -> Self {
        use lock_etcd::EtcdLocker;
        let plain = target.clone();
        Self::of(
            "etcd",
            move |options| {
                let target = target.clone();
                async move { Ok((*EtcdLocker::connect_movable(target, options).await?).clone()) }
            },
            move |options| {
                let target = plain.clone();
                async move { Ok(EtcdLocker::connect(target, options).await?.into()) }
            },
        )
    }

    /// One of ZooKeeper.
    #[cfg(feature = "zk")]
    #[must_use]
    pub fn zk(target: lock_zk::Target) -> Self {
        use lock_zk::ZkLocker;
        let plain = target.clone();
        Self::of(
            "zk",
            move |options| {
                let target = target.clone();
                async move { Ok((*ZkLocker::connect_movable(target, options).await?).clone()) }
            },
            move |options| {
                let target = plain.clone();
                async move { Ok(ZkLocker::connect(target, options).await?.into()) }
            },
        )
    }

    /// One Redis.
    #[cfg(feature = "setnx")]
    #[must_use]
    pub fn setnx(target: lock_setnx::Target) -> Self {
        use lock_setnx::SetnxLocker;
        let plain = target.clone();
        Self::of(
            "redis",
            move |options| {
                let target = target.clone();
                async move { Ok((*SetnxLocker::connect_movable(target, options).await?).clone()) }
            },
            move |options| {
                let target = plain.clone();
                async move { Ok(SetnxLocker::connect(target, options).await?.into()) }
            },
        )
    }

    /// One of independent Redis servers, an odd number of at least three.
    #[cfg(feature = "redlock")]
    #[must_use]
    pub fn redlock(targets: Vec<lock_redlock::Target>) -> Self {
        use lock_redlock::RedlockLocker;
        let plain = targets.clone();
        Self::of(
            "redlock",
            move |options| {
                let targets = targets.clone();
                async move { Ok((*RedlockLocker::connect_movable(targets, options).await?).clone()) }
            },
            move |options| {
                let targets = plain.clone();
                async move { Ok(RedlockLocker::connect(targets, options).await?.into()) }
            },
        )
    }

    #[allow(dead_code, reason = "without any kind of cluster there is none to make")]
    fn of<B, M, P>(
        kind: &'static str,
        movable: impl Fn(Options) -> M + Send + Sync + 'static,
        plain: impl Fn(Options) -> P + Send + Sync + 'static,
    ) -> Self
    where
        B: MovableBackend,
        M: Future<Output = Result<Locker<B>>> + Send + 'static,
        P: Future<Output = Result<AnyLocker>> + Send + 'static,
    {
        Self { kind, connect: Arc::new(By { movable, plain }) }
    }

    pub(crate) async fn connect(&self, options: Options) -> Result<Arc<dyn Member>> {
        self.connect.movable(options).await
    }

    /// Connects to the same servers for locks that belong to no slot.
    pub(crate) async fn connect_plain(&self, options: Options) -> Result<AnyLocker> {
        self.connect.plain(options).await
    }
}

const KINDS: &[&str] = &[
    #[cfg(feature = "etcd")]
    "etcd:",
    #[cfg(feature = "zk")]
    "zk://",
    #[cfg(feature = "setnx")]
    "redis://",
    #[cfg(feature = "redlock")]
    "redlock:",
];

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("kind", &self.kind).finish_non_exhaustive()
    }
}

trait Connect: Send + Sync {
    fn movable(&self, options: Options) -> BoxFuture<'_, Result<Arc<dyn Member>>>;
    fn plain(&self, options: Options) -> BoxFuture<'_, Result<AnyLocker>>;
}

struct By<M, P> {
    movable: M,
    plain: P,
}

impl<B, MF, PF, M, P> Connect for By<MF, PF>
where
    B: MovableBackend,
    MF: Fn(Options) -> M + Send + Sync,
    PF: Fn(Options) -> P + Send + Sync,
    M: Future<Output = Result<Locker<B>>> + Send + 'static,
    P: Future<Output = Result<AnyLocker>> + Send + 'static,
{
    fn movable(&self, options: Options) -> BoxFuture<'_, Result<Arc<dyn Member>>> {
        let connecting = (self.movable)(options);
        Box::pin(async move { Ok(Arc::new(connecting.await?) as Arc<dyn Member>) })
    }

    fn plain(&self, options: Options) -> BoxFuture<'_, Result<AnyLocker>> {
        Box::pin((self.plain)(options))
    }
}

/// A cluster that one is connected to. All of its requests are bounded.
pub(crate) trait Member: Send + Sync {
    fn capabilities(&self) -> Capabilities;
    fn try_lock(&self, key: Key) -> BoxFuture<'_, Result<Option<LockGuard>>>;
    fn lock(&self, key: Key) -> BoxFuture<'_, Result<LockGuard>>;
    fn adoption(&self, key: Key, owner: OwnerId) -> Box<dyn Adoption>;
    fn close(&self) -> BoxFuture<'_, ()>;

    fn identity(&self) -> BoxFuture<'_, Result<String>>;
    fn markers(&self) -> BoxFuture<'_, Result<Vec<(Slot, Marker)>>>;
    fn marker(&self, slot: Slot) -> BoxFuture<'_, Result<Option<Marker>>>;
    fn change_marker<'a>(
        &'a self,
        slot: Slot,
        from: Option<&'a Marker>,
        to: &'a Marker,
    ) -> BoxFuture<'a, Result<bool>>;
    fn holds<'a>(&'a self, slot: Slot, key: Option<&'a Key>) -> BoxFuture<'a, Result<Vec<SlotHold>>>;
    fn put_copies<'a>(
        &'a self,
        slot: Slot,
        preparing: &'a Marker,
        copies: &'a [SlotHold],
    ) -> BoxFuture<'a, Result<bool>>;
    fn drop_copy<'a>(&'a self, slot: Slot, copy: &'a SlotHold) -> BoxFuture<'a, Result<()>>;
}

/// How many times the request timeout a look at many locks, or a change of them, may take.
const MANY: u32 = 4;

fn bounded<'a, B: MovableBackend, T>(
    locker: &'a Locker<B>,
    times: u32,
    request: impl Future<Output = Result<T>> + Send + 'a,
) -> BoxFuture<'a, Result<T>> {
    let limit: Duration = locker.backend().timing().request_timeout() * times;
    Box::pin(
        async move { time::timeout(limit, request).await.unwrap_or_else(|_| Err(Error::no_answer(limit))) },
    )
}

impl<B: MovableBackend> Member for Locker<B> {
    fn capabilities(&self) -> Capabilities {
        self.backend().capabilities()
    }

    fn try_lock(&self, key: Key) -> BoxFuture<'_, Result<Option<LockGuard>>> {
        Box::pin(Backend::try_lock(self.backend(), key))
    }

    fn lock(&self, key: Key) -> BoxFuture<'_, Result<LockGuard>> {
        Box::pin(WaitingBackend::lock(self.backend(), key))
    }

    fn adoption(&self, key: Key, owner: OwnerId) -> Box<dyn Adoption> {
        B::adoption(self, key, owner)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(Backend::close(self.backend()))
    }

    fn identity(&self) -> BoxFuture<'_, Result<String>> {
        bounded(self, 1, self.backend().slots().identity())
    }

    fn markers(&self) -> BoxFuture<'_, Result<Vec<(Slot, Marker)>>> {
        bounded(self, 1, self.backend().slots().markers())
    }

    fn marker(&self, slot: Slot) -> BoxFuture<'_, Result<Option<Marker>>> {
        bounded(self, 1, self.backend().slots().marker(slot))
    }

    fn change_marker<'a>(
        &'a self,
        slot: Slot,
        from: Option<&'a Marker>,
        to: &'a Marker,
    ) -> BoxFuture<'a, Result<bool>> {
        bounded(self, 1, self.backend().slots().change_marker(slot, from, to))
    }

    fn holds<'a>(&'a self, slot: Slot, key: Option<&'a Key>) -> BoxFuture<'a, Result<Vec<SlotHold>>> {
        bounded(self, MANY, self.backend().slots().holds(slot, key))
    }

    fn put_copies<'a>(
        &'a self,
        slot: Slot,
        preparing: &'a Marker,
        copies: &'a [SlotHold],
    ) -> BoxFuture<'a, Result<bool>> {
        bounded(self, MANY, self.backend().slots().put_copies(slot, preparing, copies))
    }

    fn drop_copy<'a>(&'a self, slot: Slot, copy: &'a SlotHold) -> BoxFuture<'a, Result<()>> {
        bounded(self, 1, self.backend().slots().drop_copy(slot, copy))
    }
}
