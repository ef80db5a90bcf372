//! Locks on ZooKeeper.

use anyhow::{Result, ensure};
use lock_zk::{Options, ZkLocker};
use zookeeper_client::{Acls, Client, CreateMode, Error as ZkError, LockClient, LockOptions, LockPrefix};

use super::{Ours, TTL};
use crate::lock::{Lock, Role, Subject};

pub(super) fn subjects(urls: &[String]) -> Vec<Subject> {
    let first = urls[0].clone();
    let connect = move || {
        let first = first.clone();
        async move { anyhow::Ok(Client::connector().with_session_timeout(TTL).connect(&first).await?) }
    };
    let first = urls[0].clone();
    let ours = move || {
        let first = first.clone();
        async move {
            let options = Options::default().with_ttl(TTL);
            Ok(Ours((*ZkLocker::connect(&*first, options).await?).clone()))
        }
    };
    let floor = {
        let connect = connect.clone();
        move || {
            let client = connect();
            async move { client.await.map(Floor) }
        }
    };
    let recipe = move || {
        let client = connect();
        async move { client.await.map(Recipe) }
    };
    vec![
        Subject::new("create and list, delete", Role::Floor, floor),
        Subject::new("lock-zk", Role::Ours, ours),
        Subject::new("zookeeper-client", Role::Peer, recipe),
    ]
}

/// What a lock on ZooKeeper sends at least: two requests in the time of one to acquire, and one to release.
struct Floor(Client);

impl Lock for Floor {
    type Held<'a> = String;

    async fn acquire(&self, key: &'static str) -> Result<String> {
        let queue = format!("/floor/{key}");
        let stem = format!("{queue}/n-");
        let ephemeral = CreateMode::EphemeralSequential.with_acls(Acls::anyone_all());
        loop {
            let (created, listed) = (self.0.create(&stem, &[], &ephemeral), self.0.list_children(&queue));
            let (_, sequence) = match created.await {
                Err(ZkError::NoNode) => {
                    let container = CreateMode::Container.with_acls(Acls::anyone_all());
                    self.0.mkdir(&queue, &container).await?;
                    continue;
                }
                created => created?,
            };
            ensure!(listed.await?.len() == 1, "the floor does not wait, and {key} was taken");
            return Ok(format!("{stem}{sequence}"));
        }
    }

    async fn release(&self, held: Self::Held<'_>) -> Result<()> {
        Ok(self.0.delete(&held, None).await?)
    }
}

struct Recipe(Client);

impl Lock for Recipe {
    type Held<'a> = LockClient<'a>;

    async fn acquire(&self, key: &'static str) -> Result<LockClient<'_>> {
        let directory = format!("/recipe/{key}");
        let container = CreateMode::Container.with_acls(Acls::anyone_all());
        let options = LockOptions::new(Acls::anyone_all()).with_ancestor_options(container)?;
        Ok(self.0.lock(LockPrefix::new_curator(&directory, "lock")?, b"", options).await?)
    }

    /// It is deleted in the background: the library offers nothing to wait for.
    async fn release(&self, _held: Self::Held<'_>) -> Result<()> {
        Ok(())
    }
}
