//! A client of the server, as lock-core's machinery wants it.

use lock_core::{
    Capabilities, LockGuard, Result, Scope, TokenOrder, Waiting,
    backend::{AcquireReply, Acquirer, Claim, LeaseStore, Released, Renewal, WaitingStore},
};

use super::server::{Connection, MemoryServer};

/// One client of a [`MemoryServer`].
#[derive(Debug)]
pub struct MemoryStore(Connection);

impl MemoryStore {
    /// Connects to `server`.
    #[must_use]
    pub fn new(server: &MemoryServer) -> Self {
        Self(server.connect())
    }

    /// Returns the server.
    #[must_use]
    pub fn server(&self) -> &MemoryServer {
        self.0.server()
    }
}

impl LeaseStore for MemoryStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Scope::Servers, Waiting::Notified, TokenOrder::ServerData)
    }

    async fn acquire(&self, claim: &Claim) -> Result<AcquireReply> {
        let (key, owner, ttl) = (claim.key().clone(), claim.owner().to_string(), claim.ttl());
        self.server().call(move |table| table.acquire(&key, &owner, ttl)).await
    }

    async fn renew(&self, claim: &Claim) -> Result<Renewal> {
        let (key, owner, ttl) = (claim.key().clone(), claim.owner().to_string(), claim.ttl());
        self.server().call(move |table| table.renew(&key, &owner, ttl)).await
    }

    // Few, so that some leases are renewed with others and some are not.
    fn renews_at_once(&self) -> usize {
        4
    }

    async fn renew_all(&self, claims: &[&Claim]) -> Vec<Result<Renewal>> {
        let claims: Vec<_> = claims.iter().copied().cloned().collect();
        let count = claims.len();
        let renewed = self.server().call(move |table| {
            let renew = |claim: &Claim| table.renew(claim.key(), &claim.owner().to_string(), claim.ttl());
            claims.iter().map(renew).collect::<Vec<_>>()
        });
        match renewed.await {
            Ok(renewed) => renewed.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error); count],
        }
    }

    async fn release(&self, claim: &Claim) -> Result<Released> {
        let (key, owner) = (claim.key().clone(), claim.owner().to_string());
        self.server().call(move |table| table.release(&key, &owner)).await
    }

    // The server takes the requests of one client in the order in which they were sent.
    async fn undo(&self, claim: &Claim) -> Result<()> {
        self.release(claim).await.map(drop)
    }

    async fn verify(&self, claim: &Claim) -> Result<bool> {
        let (key, owner) = (claim.key().clone(), claim.owner().to_string());
        self.server().call(move |table| table.holds(&key, &owner)).await
    }
}

impl WaitingStore for MemoryStore {
    async fn lock(&self, acquirer: &Acquirer<'_, Self>) -> Result<LockGuard> {
        acquirer.wait(&mut self.server().subscribe(acquirer.key())).await
    }
}
