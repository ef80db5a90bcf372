//! What can be driven: a lock of one client, and a subject, which makes such clients.

use std::{future::Future, sync::Arc, time::Duration};

use anyhow::Result;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::{
    load::{self, Shape},
    sample::Record,
};

/// A lock as a load sees it. Keys live for ever, so that each implementation takes them in the form cheapest for it.
pub trait Lock: Send + Sync + 'static {
    /// What is held until it is released.
    type Held<'a>: Send
    where
        Self: 'a;

    /// Waits for the key and acquires it.
    fn acquire(&self, key: &'static str) -> impl Future<Output = Result<Self::Held<'_>>> + Send;

    /// Gives it back, and waits until that is known to have happened if the library offers it.
    fn release(&self, held: Self::Held<'_>) -> impl Future<Output = Result<()>> + Send;

    /// Ends the client.
    fn close(&self) -> impl Future<Output = ()> + Send {
        async {}
    }
}

/// What a subject stands for in a comparison.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The fewest requests that the protocol needs, written by hand: not a lock that anybody should use.
    Floor,
    /// The requests of our lock, sent by nothing but the client library.
    Raw,
    /// The lock of this workspace.
    Ours,
    /// Another library.
    Peer,
}

/// A lock, or what stands in for one, on the servers of a setup.
pub struct Subject {
    /// As it is called in tables.
    pub name: &'static str,
    /// What it stands for.
    pub role: Role,
    /// Whether several tasks may contend for one key through one client.
    pub shares_a_client: bool,
    /// Whether a turn of it takes long, since a program has to be started and to get warm.
    pub is_slow: bool,
    /// Whether contenders for one key exclude each other and wait.
    pub waits: bool,
    make: Box<dyn Make>,
}

impl Subject {
    /// Makes a subject whose clients come from `connect`.
    pub fn new<L, F, C>(name: &'static str, role: Role, connect: C) -> Self
    where
        L: Lock,
        F: Future<Output = Result<L>> + Send + 'static,
        C: Fn() -> F + Send + Sync + 'static,
    {
        let waits = matches!(role, Role::Ours | Role::Peer);
        Self { name, role, shares_a_client: true, is_slow: false, waits, make: Box::new(Connect(connect)) }
    }

    /// Makes a peer that is a program of its own.
    #[must_use]
    pub fn program(name: &'static str, make: Box<dyn Make>) -> Self {
        Self { name, role: Role::Peer, shares_a_client: true, is_slow: true, waits: true, make }
    }

    /// Has a client for each contender, since the library takes one client for one holder.
    #[must_use]
    pub fn with_a_client_each(mut self) -> Self {
        self.shares_a_client = false;
        self
    }

    /// Connects so many clients.
    ///
    /// # Errors
    ///
    /// One of them cannot be connected.
    pub async fn clients(&self, count: usize) -> Result<Box<dyn Clients>> {
        self.make.clients(count).await
    }
}

impl std::fmt::Debug for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subject").field("name", &self.name).field("role", &self.role).finish_non_exhaustive()
    }
}

/// Clients that are connected.
pub trait Clients: Send + Sync {
    /// Puts a load on them for some time.
    fn drive<'a>(&'a self, shape: &'a Shape, time: Duration) -> BoxFuture<'a, Result<Record>>;

    /// Ends them.
    fn close(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// Makes clients.
pub trait Make: Send + Sync {
    /// Connects so many.
    fn clients(&self, count: usize) -> BoxFuture<'_, Result<Box<dyn Clients>>>;
}

struct Connect<C>(C);

impl<L, F, C> Make for Connect<C>
where
    L: Lock,
    F: Future<Output = Result<L>> + Send + 'static,
    C: Fn() -> F + Send + Sync + 'static,
{
    fn clients(&self, count: usize) -> BoxFuture<'_, Result<Box<dyn Clients>>> {
        Box::pin(async move {
            let mut clients = Vec::with_capacity(count);
            for _ in 0..count {
                clients.push(Arc::new((self.0)().await?));
            }
            Ok(Box::new(Connected(clients)) as Box<dyn Clients>)
        })
    }
}

struct Connected<L>(Vec<Arc<L>>);

impl<L: Lock> Clients for Connected<L> {
    fn drive<'a>(&'a self, shape: &'a Shape, time: Duration) -> BoxFuture<'a, Result<Record>> {
        Box::pin(load::drive(&self.0, shape, time))
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            for client in self.0 {
                client.close().await;
            }
        })
    }
}
