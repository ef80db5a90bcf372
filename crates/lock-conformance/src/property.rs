//! A property as a value: its name, what it needs, and how it is tried.

use std::{
    any::Any,
    fmt,
    sync::{Arc, mpsc},
    time::Duration,
};

use anyhow::{Result, anyhow, bail};
use lock_core::{Capabilities, Scope, TokenOrder, Waiting, backend::BoxFuture};
use tokio::{runtime, time};

use crate::{Fixture, groups};

/// No property takes longer, so one that does hangs.
const BOUND: Duration = Duration::from_secs(60);

/// One promise, made checkable.
pub struct Property<F> {
    group: &'static str,
    name: &'static str,
    needs: &'static [Need],
    check: fn(Arc<F>) -> BoxFuture<'static, ()>,
}

/// What a property cannot be tried without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// The backend can wait.
    Waiting,
    /// Waiters are told, and do not poll.
    Told,
    /// Waiters are served in order of arrival.
    Fifo,
    /// Locks are leases on servers, which can be lost.
    Servers,
    /// Tokens outlive a restart of the servers with their data.
    TokensWithData,
    /// Tokens outlive a restart of the servers without their data.
    TokensWithoutData,
    /// Clients in other processes take part.
    Processes,
    /// It counts what is on the servers, so no other property may use them meanwhile. Always there.
    OwnServers,
    /// The same, and it stops them.
    StoppedServers,
}

/// Returns all properties, in the order of the groups.
#[must_use]
pub fn properties<F: Fixture>() -> Vec<Property<F>> {
    groups::all()
}

impl<F: Fixture> Property<F> {
    pub(crate) fn new(
        module: &'static str,
        name: &'static str,
        needs: &'static [Need],
        check: fn(Arc<F>) -> BoxFuture<'static, ()>,
    ) -> Self {
        let group = module.rsplit("::").next().expect("a split has a last part");
        Self { group, name, needs, check }
    }

    /// Returns the group: what the property is about.
    #[must_use]
    pub fn group(&self) -> &'static str {
        self.group
    }

    /// Returns the name: what is promised.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Whether it must be tried with a fixture that nobody else uses.
    pub(crate) fn needs_own_servers(&self) -> bool {
        self.needs.iter().any(|need| matches!(need, Need::OwnServers | Need::StoppedServers))
    }

    /// Why a backend with these capabilities does not promise it; `None` if it does.
    pub(crate) fn reason_to_skip(&self, capabilities: Capabilities, fixture: &F) -> Option<String> {
        let reason = self.needs.iter().find_map(|need| need.reason_to_skip(capabilities, fixture))?;
        Some(format!("{} {reason}", F::NAME))
    }

    /// Tries it, in a runtime of its own, with the fixture that `start` gives.
    ///
    /// # Errors
    ///
    /// It does not hold: the error says what was promised and what was seen. Or the fixture did not start.
    ///
    /// # Panics
    ///
    /// Called within a tokio runtime.
    pub fn check(&self, start: impl Future<Output = Result<Arc<F>>>) -> Result<()> {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name(format!("{}::{}", self.group, self.name))
            .enable_all()
            .build()?;
        let fixture = runtime
            .block_on(async { time::timeout(BOUND, start).await })
            .map_err(|_| anyhow!("the fixture has not started within {BOUND:?}"))??;
        let (ended, end) = mpsc::channel();
        let check = (self.check)(Arc::clone(&fixture));
        // A task of its own turns a panic into a value, and a channel of threads gives up also when the property has
        // blocked the whole runtime.
        runtime.spawn(async move { ended.send(tokio::spawn(check).await) });
        let end = end.recv_timeout(BOUND);
        runtime.shutdown_background();
        match end {
            Ok(Ok(())) => Ok(()),
            Ok(Err(failure)) => bail!("{}", message_of(&*failure.into_panic())),
            Err(_) => bail!("it has not ended within {BOUND:?}"),
        }
    }
}

impl<F> fmt::Debug for Property<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Property")
            .field("group", &self.group)
            .field("name", &self.name)
            .field("needs", &self.needs)
            .finish_non_exhaustive()
    }
}

impl Need {
    fn reason_to_skip(self, capabilities: Capabilities, fixture: &impl Fixture) -> Option<&'static str> {
        let Capabilities { scope, waiting, tokens, .. } = capabilities;
        let (met, reason) = match self {
            Self::Waiting => (waiting != Waiting::Never, "cannot wait"),
            Self::Told => (matches!(waiting, Waiting::Notified | Waiting::Fifo), "is not told of releases"),
            Self::Fifo => (waiting == Waiting::Fifo, "promises waiters no order"),
            Self::Servers => (scope == Scope::Servers, "has no servers: its locks cannot be lost"),
            Self::TokensWithData => (tokens != TokenOrder::Locker, "promises token order per locker only"),
            Self::TokensWithoutData if !fixture.grants_without_data() => {
                (false, "grants nothing without the servers' data")
            }
            Self::TokensWithoutData => {
                (tokens == TokenOrder::ServerData, "promises no token order without the servers' data")
            }
            Self::Processes if scope == Scope::Servers => {
                (fixture.address().is_some(), "has its servers in the test process")
            }
            Self::Processes => (false, "excludes within one process only"),
            Self::OwnServers => (true, ""),
            Self::StoppedServers => (fixture.may_stop(), "was given servers, which are not ours to stop"),
        };
        (!met).then_some(reason)
    }
}

fn message_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message")
}
