//! What a backend must supply to be tested.

use std::future::{self, Future};

use anyhow::{Result, bail};
use lock_core::{AnyLocker, Error, ErrorKind, Key, Options};

/// The servers of a backend, or the state that stands for them, and what a test does to them.
///
/// A backend of one process supplies [`start`](Self::start), [`locker`](Self::locker) and
/// [`traces`](Self::traces). One that declares [`Scope::Servers`](lock_core::Scope::Servers) supplies the rest
/// too: where a property needs a part that is missing, it fails and names that part.
///
/// # Examples
///
/// ```
/// use anyhow::Result;
/// use lock_conformance::{Fixture, MemoryServer, MemoryStore};
/// use lock_core::{AnyLocker, Key, Locker, Options, backend::{Leased}};
///
/// struct MemoryFixture(MemoryServer);
///
/// impl Fixture for MemoryFixture {
///     const NAME: &'static str = "memory";
///
///     async fn start() -> Result<Self> {
///         Ok(Self(MemoryServer::default()))
///     }
///
///     async fn locker(&self, options: &Options) -> lock_core::Result<AnyLocker> {
///         let client = MemoryStore::new(&self.0);
///         Ok(AnyLocker::new(Locker::new(Leased::new(client, options)?)))
///     }
///
///     async fn traces(&self, key: &Key) -> Result<usize> {
///         Ok(self.0.traces(key))
///     }
/// }
/// ```
pub trait Fixture: Sized + Send + Sync + 'static {
    /// What the backend is called in reports: `setnx` for `lock-setnx`.
    const NAME: &'static str;

    /// Starts the servers, without any data; or takes those that are there, under names that nothing else uses.
    ///
    /// One fixture is shared by most properties, which use different keys; those that stop the servers or count
    /// their connections get one of their own, as do all where locks exclude within one process. Dropping a fixture
    /// stops its servers, paused or not.
    fn start() -> impl Future<Output = Result<Self>> + Send;

    /// Returns a fresh client, which must look to the servers like another process.
    ///
    /// Where locks exclude only those who share one locker, it is a clone. Whatever it needs to run is started in
    /// the runtime of the caller.
    fn locker(&self, options: &Options) -> impl Future<Output = lock_core::Result<AnyLocker>> + Send;

    /// Returns how many records, queue entries and subscriptions there are for `key`; in one process: how many keys are
    /// in use.
    ///
    /// A held key without waiters has at least one, one that nobody holds or awaits has none. In a backend that
    /// declares [`Fifo`](lock_core::Waiting::Fifo) on servers, each waiter that has its place counts.
    fn traces(&self, key: &Key) -> impl Future<Output = Result<usize>> + Send;

    /// Returns what another process must know to [`connect`](Self::connect); `None` if no other process can.
    fn address(&self) -> Option<String> {
        None
    }

    /// A client of the fixture with this address, in another process.
    fn connect(
        address: &str,
        options: &Options,
    ) -> impl Future<Output = lock_core::Result<AnyLocker>> + Send {
        let _ = (address, options);
        let message = format!("the fixture of {} has an address: it must implement connect", Self::NAME);
        future::ready(Err(Error::new(ErrorKind::Unsupported, message)))
    }

    /// Whether properties may [`pause`](Self::pause) and [`restart`](Self::restart) the servers; not those of others.
    fn may_stop(&self) -> bool {
        true
    }

    /// Whether servers that have lost their data grant keys again by themselves.
    fn grants_without_data(&self) -> bool {
        true
    }

    /// Makes the servers forget who holds `key`, as an operator would who deletes a record.
    fn lose(&self, key: &Key) -> impl Future<Output = Result<()>> + Send {
        let _ = key;
        missing::<Self, _>("lose")
    }

    /// Returns how many clients are connected to the servers, not counting what the fixture itself uses.
    fn connections(&self) -> impl Future<Output = Result<usize>> + Send {
        missing::<Self, _>("connections")
    }

    /// Freezes the servers: they take requests, and neither act on them nor answer.
    fn pause(&self) -> impl Future<Output = Result<()>> + Send {
        missing::<Self, _>("pause")
    }

    /// Lets frozen servers go on, with the requests that have come meanwhile.
    fn resume(&self) -> impl Future<Output = Result<()>> + Send {
        missing::<Self, _>("resume")
    }

    /// Kills the servers, starts them again under the same address, and returns once they answer.
    fn restart(&self, data: Data) -> impl Future<Output = Result<()>> + Send {
        let _ = data;
        missing::<Self, _>("restart")
    }
}

/// What becomes of the servers' data at a [restart](Fixture::restart).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data {
    /// All of it is still there.
    Kept,
    /// None of it is.
    Erased,
}

async fn missing<F: Fixture, T>(part: &str) -> Result<T> {
    bail!("{} declares Scope::Servers: its fixture must implement {part}", F::NAME)
}
