//! A store that fails as networks do: late, silently, or after it has acted.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    future::{self, Future},
    sync::Arc,
    time::Duration,
};

use lock_core::{
    Capabilities, Error, ErrorKind, Result,
    backend::{AcquireReply, Claim, LeaseStore, OwnerId, Released, Renewal},
};
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::{sync::Notify, time};

/// What is done to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It arrives so much later, even if the caller has given it up by then.
    Delay(Duration),
    /// It never arrives, and fails at once.
    Error,
    /// It never arrives, and nothing is ever answered.
    Hang,
    /// It arrives and is acted on, and then fails.
    LoseReply,
}

/// Which request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// [`LeaseStore::acquire`].
    Acquire,
    /// [`LeaseStore::renew`].
    Renew,
    /// [`LeaseStore::release`].
    Release,
    /// [`LeaseStore::undo`].
    Undo,
    /// [`LeaseStore::verify`].
    Verify,
}

/// The faults that are to come, by count or by chance. Clones share them.
#[derive(Clone)]
pub struct Faults(Arc<Mutex<Plan>>);

struct Plan {
    next: HashMap<Operation, VecDeque<Fault>>,
    chances: Vec<(Operation, Fault, f64)>,
    dice: StdRng,
}

impl Faults {
    /// Makes a plan without faults. The same seed throws the same dice.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        let dice = StdRng::seed_from_u64(seed);
        Self(Arc::new(Mutex::new(Plan { next: HashMap::new(), chances: Vec::new(), dice })))
    }

    /// Plans `fault` for the next `count` requests of this kind, after those already planned.
    pub fn next(&self, operation: Operation, fault: Fault, count: usize) {
        self.0.lock().next.entry(operation).or_default().extend([fault].repeat(count));
    }

    /// Plans `fault` for every request of this kind with this probability, in addition to what was planned before.
    pub fn by_chance(&self, operation: Operation, fault: Fault, probability: f64) {
        self.0.lock().chances.push((operation, fault, probability));
    }

    /// Plans no more faults.
    pub fn cease(&self) {
        let mut plan = self.0.lock();
        plan.next.clear();
        plan.chances.clear();
    }

    fn draw(&self, operation: Operation) -> Option<Fault> {
        let Plan { next, chances, dice } = &mut *self.0.lock();
        let planned = next.get_mut(&operation).and_then(VecDeque::pop_front);
        planned.or_else(|| {
            let mut of_this = chances.iter().filter(|(of, ..)| *of == operation);
            of_this.find(|(.., probability)| dice.random_bool(*probability)).map(|(_, fault, _)| *fault)
        })
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = self.0.lock();
        f.debug_struct("Faults")
            .field("next", &plan.next)
            .field("chances", &plan.chances)
            .finish_non_exhaustive()
    }
}

/// A store between whose clients and servers [`Faults`] happen.
///
/// Requests travel on their own: one that was sent arrives, be it late, also if its caller has gone. An undo
/// arrives after all requests for the same claim that are still on their way, as it must.
#[derive(Debug)]
pub struct FaultyStore<S> {
    store: Arc<S>,
    faults: Faults,
    travelling: Arc<Travelling>,
}

/// How many requests are on their way for each claim.
#[derive(Debug, Default)]
struct Travelling {
    claims: Mutex<HashMap<OwnerId, usize>>,
    arrived: Notify,
}

impl<S: LeaseStore> FaultyStore<S> {
    /// Puts `faults` between `store` and its callers.
    pub fn new(store: S, faults: Faults) -> Self {
        Self { store: Arc::new(store), faults, travelling: Arc::default() }
    }

    async fn send<T, F>(
        &self,
        operation: Operation,
        claim: &Claim,
        request: impl FnOnce(Arc<S>, Claim) -> F + Send + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.send_all(operation, &[claim], |store, mut claims| request(store, claims.remove(0))).await
    }

    /// Sends one request for several claims.
    async fn send_all<T, F>(
        &self,
        operation: Operation,
        claims: &[&Claim],
        request: impl FnOnce(Arc<S>, Vec<Claim>) -> F + Send + 'static,
    ) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let fault = self.faults.draw(operation);
        let lost = |what| Err(Error::new(ErrorKind::Unavailable, what));
        match fault {
            Some(Fault::Error) => return lost("a planned error before the request had an effect"),
            Some(Fault::Hang) => return future::pending().await,
            _ => {}
        }
        let store = Arc::clone(&self.store);
        let claims: Vec<_> = claims.iter().copied().cloned().collect();
        let trips: Vec<_> = claims.iter().map(|claim| Trip::begin(&self.travelling, claim.owner())).collect();
        let answer = tokio::spawn(async move {
            let _trips = trips;
            if let Some(Fault::Delay(time)) = fault {
                time::sleep(time).await;
            }
            request(store, claims).await
        });
        let answer = answer.await.expect("a store does not panic");
        if fault == Some(Fault::LoseReply) { lost("a planned loss of the reply") } else { answer }
    }
}

impl<S: LeaseStore> LeaseStore for FaultyStore<S> {
    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    async fn acquire(&self, claim: &Claim) -> Result<AcquireReply> {
        self.send(Operation::Acquire, claim, |store, claim| async move { store.acquire(&claim).await }).await
    }

    async fn renew(&self, claim: &Claim) -> Result<Renewal> {
        self.send(Operation::Renew, claim, |store, claim| async move { store.renew(&claim).await }).await
    }

    fn renews_at_once(&self) -> usize {
        self.store.renews_at_once()
    }

    async fn renew_all(&self, claims: &[&Claim]) -> Vec<Result<Renewal>> {
        let renewed = self.send_all(Operation::Renew, claims, |store, claims| async move {
            Ok(store.renew_all(&claims.iter().collect::<Vec<_>>()).await)
        });
        renewed.await.unwrap_or_else(|error| vec![Err(error); claims.len()])
    }

    async fn release(&self, claim: &Claim) -> Result<Released> {
        self.send(Operation::Release, claim, |store, claim| async move { store.release(&claim).await }).await
    }

    async fn undo(&self, claim: &Claim) -> Result<()> {
        self.travelling.ended(claim.owner()).await;
        self.send(Operation::Undo, claim, |store, claim| async move { store.undo(&claim).await }).await
    }

    async fn verify(&self, claim: &Claim) -> Result<bool> {
        self.send(Operation::Verify, claim, |store, claim| async move { store.verify(&claim).await }).await
    }
}

impl Travelling {
    async fn ended(&self, owner: OwnerId) {
        loop {
            let arrived = self.arrived.notified();
            if !self.claims.lock().contains_key(&owner) {
                return;
            }
            arrived.await;
        }
    }
}

/// One request on its way. Dropped, it has arrived.
struct Trip {
    travelling: Arc<Travelling>,
    owner: OwnerId,
}

impl Trip {
    fn begin(travelling: &Arc<Travelling>, owner: OwnerId) -> Self {
        *travelling.claims.lock().entry(owner).or_default() += 1;
        Self { travelling: Arc::clone(travelling), owner }
    }
}

impl Drop for Trip {
    fn drop(&mut self) {
        let mut claims = self.travelling.claims.lock();
        let trips = claims.get_mut(&self.owner).expect("a trip has counted itself");
        *trips -= 1;
        if *trips == 0 {
            claims.remove(&self.owner);
            self.travelling.arrived.notify_waiters();
        }
    }
}
