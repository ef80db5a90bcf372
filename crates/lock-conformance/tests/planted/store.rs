//! A client of the server in memory with a bug.

use std::{
    collections::{HashMap, HashSet},
    future, mem,
    sync::Arc,
    time::Duration,
};

use lock_conformance::MemoryStore;
use lock_core::{
    Capabilities, Error, ErrorKind, FencingToken, Key, LockGuard, Result, Waiting,
    backend::{
        AcquireReply, Acquirer, BootInstant, Claim, LeaseStore, OwnerId, ReleaseListener, Released, Renewal,
        WaitingStore,
    },
};
use parking_lot::Mutex;
use rand::RngExt;
use tokio::time;

use crate::{bug::Bug, fixture::Counters};

/// An attempt given up later than this has run out of time; one given up earlier was dropped.
const OUT_OF_TIME: Duration = Duration::from_millis(600);

pub(crate) struct BuggyStore {
    store: MemoryStore,
    counters: Counters,
    /// The tickets of those who wait, if they are to be served in order.
    queue: Option<Queue>,
    bug: Option<Bug>,
    /// How long the attempts took that ended without an answer.
    given_up: Mutex<HashMap<OwnerId, Duration>>,
    /// The keys of undos that are under way, for a bug that shows when they arrive late.
    late_undos: Mutex<Vec<Key>>,
    /// The owners whose leases are renewed, for a bug that renews but a few.
    renewed: Mutex<HashSet<OwnerId>>,
    name: String,
}

impl BuggyStore {
    pub(crate) fn new(
        store: MemoryStore,
        counters: &Counters,
        queue: Option<Queue>,
        bug: Option<Bug>,
    ) -> Self {
        let name = format!("{:x}", rand::rng().random::<u64>());
        match bug {
            Some(Bug::TaskLeftRunning) => drop(tokio::spawn(future::pending::<()>())),
            Some(Bug::ConnectionLeftOpen) => mem::forget(MemoryStore::new(store.server())),
            _ => {}
        }
        Self {
            store,
            counters: counters.clone(),
            queue,
            bug,
            given_up: Mutex::default(),
            late_undos: Mutex::default(),
            renewed: Mutex::default(),
            name,
        }
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    fn key(&self, claim: &Claim) -> Key {
        let name = claim.key().as_str();
        let name = match self.bug {
            Some(Bug::CaseFolded) => name.to_lowercase(),
            Some(Bug::PathFolded) => name.split('/').next().unwrap_or_default().to_owned(),
            Some(Bug::LineEndTrimmed) => name.trim_end_matches(['\r', '\n']).to_owned(),
            _ => name.to_owned(),
        };
        Key::new(&name).unwrap_or_else(|_| claim.key().clone())
    }

    fn owner(&self, claim: &Claim) -> String {
        match self.bug {
            Some(Bug::OneOwnerForAllAttempts | Bug::Reentrant) => self.name.clone(),
            _ => claim.owner().to_string(),
        }
    }

    fn token(&self, claim: &Claim, honest: FencingToken) -> FencingToken {
        let now = BootInstant::now();
        let mut counters = self.counters.lock();
        let counter = counters.entry(claim.key().clone()).or_insert((0, BootInstant::NEVER));
        match self.bug {
            Some(Bug::RandomToken) => return FencingToken::new(rand::rng().random_range(1..1 << 40)),
            Some(Bug::TokenThatEndsWithTheLease) => {
                let last = if counter.1 > now { counter.0 } else { 0 };
                *counter = (last + 1, now.after(claim.ttl()));
            }
            Some(Bug::TokenWithoutClock) => counter.0 += 1,
            _ => return honest,
        }
        FencingToken::new(counter.0)
    }
}

impl LeaseStore for BuggyStore {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.store.capabilities();
        if self.queue.is_some() {
            capabilities.waiting = Waiting::Fifo;
        }
        if self.has(Bug::WaitingThatIsDenied) {
            capabilities.waiting = Waiting::Never;
        }
        capabilities
    }

    async fn acquire(&self, claim: &Claim) -> Result<AcquireReply> {
        let given_up = GivenUp { store: self, claim: Some(claim), sent: BootInstant::now() };
        let (key, owner, mut ttl) = (self.key(claim), self.owner(claim), claim.ttl());
        if self.has(Bug::LeaseLongerThanAskedFor) {
            ttl *= 10;
        }
        if self.has(Bug::CheckThenAct) {
            let asked = key.clone();
            if !self.store.server().call(move |table| table.is_held(&asked)).await? {
                self.store.server().forget(&key);
            }
        }
        let reply = self.store.server().call(move |table| table.acquire(&key, &owner, ttl)).await?;
        let took = given_up.answered();
        let late_undos = mem::take(&mut *self.late_undos.lock());
        for key in late_undos {
            let owner = self.name.clone();
            self.store.server().call(move |table| table.release(&key, &owner)).await?;
        }
        match reply {
            AcquireReply::Granted { token, ttl } => {
                let late = if self.has(Bug::ValidityFromTheReply) { took } else { Duration::ZERO };
                Ok(AcquireReply::Granted { token: self.token(claim, token), ttl: ttl + late })
            }
            AcquireReply::Busy { .. } if self.has(Bug::BusyIsAnError) => {
                Err(Error::new(ErrorKind::Unavailable, "the key is held by another"))
            }
            busy => Ok(busy),
        }
    }

    async fn renew(&self, claim: &Claim) -> Result<Renewal> {
        let (key, owner, ttl) = (self.key(claim), self.owner(claim), claim.ttl());
        let few = self.has(Bug::RenewalOfTheFirstHundred) && {
            let mut renewed = self.renewed.lock();
            !renewed.contains(&claim.owner()) && (renewed.len() == 100 || !renewed.insert(claim.owner()))
        };
        if self.has(Bug::NoRenewal) || few {
            return future::pending().await;
        }
        let creates = self.has(Bug::RenewalThatCreates);
        let renewed = self.store.server().call(move |table| {
            if creates {
                table.acquire(&key, &owner, ttl);
            }
            table.renew(&key, &owner, ttl)
        });
        renewed.await
    }

    async fn release(&self, claim: &Claim) -> Result<Released> {
        let (key, owner) = (self.key(claim), self.owner(claim));
        let unchecked = self.has(Bug::ReleaseWithoutOwnerCheck);
        let released = self.store.server().call(move |table| {
            if unchecked {
                table.forget(&key);
            }
            table.release(&key, &owner)
        });
        let released = released.await?;
        Ok(if self.has(Bug::ReleaseThatIsAlwaysFine) { Released::Freed } else { released })
    }

    async fn undo(&self, claim: &Claim) -> Result<()> {
        let given_up = self.given_up.lock().get(&claim.owner()).copied();
        let forgotten = match (self.bug, given_up) {
            (Some(Bug::NoUndoOnCancel), Some(after)) => after < OUT_OF_TIME,
            (Some(Bug::NoUndoAfterTimeout), Some(after)) => after >= OUT_OF_TIME,
            (Some(Bug::NoReleaseOnDrop), None) => true,
            _ => false,
        };
        if forgotten {
            return Ok(());
        }
        if self.has(Bug::OneOwnerForAllAttempts) {
            self.late_undos.lock().push(self.key(claim));
            return Ok(());
        }
        if self.has(Bug::UndoThatNobodyAwaits) {
            let (server, key, owner) = (self.store.server().clone(), self.key(claim), self.owner(claim));
            tokio::spawn(async move {
                // why: this is the bug: a release that nobody awaits
                time::sleep(Duration::from_millis(100)).await;
                server.call(move |table| table.release(&key, &owner)).await
            });
            return Ok(());
        }
        self.release(claim).await.map(drop)
    }

    async fn verify(&self, claim: &Claim) -> Result<bool> {
        if self.has(Bug::VerifyFromMemory) {
            return Ok(true);
        }
        let (key, owner) = (self.key(claim), self.owner(claim));
        self.store.server().call(move |table| table.holds(&key, &owner)).await
    }
}

impl WaitingStore for BuggyStore {
    async fn lock(&self, acquirer: &Acquirer<'_, Self>) -> Result<LockGuard> {
        let mut bell = self.store.server().subscribe(acquirer.key());
        match self.bug {
            Some(Bug::WaiterLeftOnTheServer) => mem::forget(self.store.server().subscribe(acquirer.key())),
            Some(Bug::WaiterThatIsNotWoken) => return acquirer.wait(&mut Silence).await,
            _ => {}
        }
        if let Some(queue) = &self.queue {
            let ticket = Ticket::draw(queue);
            while !ticket.is_next(self.has(Bug::LastComeFirstServed)) {
                // why: a bounded poll of a condition
                time::sleep(Duration::from_millis(1)).await;
            }
            return acquirer.wait(&mut bell).await;
        }
        acquirer.wait(&mut bell).await
    }
}

/// The tickets of those who wait.
pub(crate) type Queue = Arc<Mutex<Vec<u64>>>;

/// A place in the queue, until it is dropped.
struct Ticket(Queue, u64);

impl Ticket {
    fn draw(queue: &Queue) -> Self {
        let number = rand::rng().random();
        queue.lock().push(number);
        Self(Arc::clone(queue), number)
    }

    fn is_next(&self, last_comes_first: bool) -> bool {
        let queue = self.0.lock();
        let next = if last_comes_first { queue.last() } else { queue.first() };
        next == Some(&self.1)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.lock().retain(|number| *number != self.1);
    }
}

/// A bell that nobody hears.
struct Silence;

impl ReleaseListener for Silence {
    async fn listen(&mut self) -> Result<()> {
        Ok(())
    }

    async fn released(&mut self) {
        future::pending().await
    }
}

/// Writes down an attempt that is dropped before it was answered.
struct GivenUp<'a> {
    store: &'a BuggyStore,
    claim: Option<&'a Claim>,
    sent: BootInstant,
}

impl GivenUp<'_> {
    fn answered(mut self) -> Duration {
        self.claim = None;
        BootInstant::now().since(self.sent)
    }
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        if let Some(claim) = self.claim {
            let took = BootInstant::now().since(self.sent);
            self.store.given_up.lock().insert(claim.owner(), took);
        }
    }
}
