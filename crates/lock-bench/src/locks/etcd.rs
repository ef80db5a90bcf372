//! Locks on etcd.

use anyhow::{Result, ensure};
use etcd_client::{Client, Compare, CompareOp, LockOptions, PutOptions, Txn, TxnOp};
use lock_etcd::{EtcdLocker, Options};

use super::{Ours, TTL};
use crate::lock::{Lock, Role, Subject};

/// A lease that nobody needs to renew while a case lasts.
const LEASE_SECONDS: i64 = 600;

pub(super) fn subjects(urls: &[String]) -> Vec<Subject> {
    let (all, first) = (urls.join(","), urls[0].clone());
    let one = first.clone();
    let ours = move || {
        let all = all.clone();
        async move {
            let options = Options::default().with_ttl(TTL);
            Ok(Ours((*EtcdLocker::connect(&*all, options).await?).clone()))
        }
    };
    let floor = move || {
        let first = first.clone();
        async move { Leased::connect(&first).await.map(Floor) }
    };
    let rpc = move || {
        let one = one.clone();
        async move { Leased::connect(&one).await.map(Rpc) }
    };
    vec![
        Subject::new("put if absent, delete", Role::Floor, floor),
        Subject::new("lock-etcd", Role::Ours, ours),
        // The holder of a key is the lease.
        Subject::new("etcd's lock RPC", Role::Peer, rpc).with_a_client_each(),
    ]
}

/// A client with a lease.
struct Leased {
    client: Client,
    lease: i64,
}

impl Leased {
    async fn connect(url: &str) -> Result<Self> {
        let mut client = Client::connect([url], None).await?;
        let lease = client.lease_grant(LEASE_SECONDS, None).await?.id();
        Ok(Self { client, lease })
    }

    async fn close(&self) {
        // If it fails, the lease ends by itself.
        let _ = self.client.clone().lease_revoke(self.lease).await;
    }
}

/// What a lock on etcd sends at least: a transaction to acquire, and a deletion to release.
struct Floor(Leased);

impl Lock for Floor {
    type Held<'a> = String;

    async fn acquire(&self, key: &'static str) -> Result<String> {
        let name = format!("floor/{key}");
        let put = TxnOp::put(&*name, "", Some(PutOptions::new().with_lease(self.0.lease)));
        let absent = Compare::create_revision(&*name, CompareOp::Equal, 0);
        let answer = self.0.client.kv_client().txn(Txn::new().when([absent]).and_then([put])).await?;
        ensure!(answer.succeeded(), "the floor does not wait, and {key} was taken");
        Ok(name)
    }

    async fn release(&self, held: Self::Held<'_>) -> Result<()> {
        self.0.client.kv_client().delete(held, None).await?;
        Ok(())
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

struct Rpc(Leased);

impl Lock for Rpc {
    type Held<'a> = Vec<u8>;

    async fn acquire(&self, key: &'static str) -> Result<Vec<u8>> {
        let options = LockOptions::new().with_lease(self.0.lease);
        let answer = self.0.client.lock_client().lock(format!("rpc/{key}"), Some(options)).await?;
        Ok(answer.key().to_vec())
    }

    async fn release(&self, held: Self::Held<'_>) -> Result<()> {
        self.0.client.lock_client().unlock(held).await?;
        Ok(())
    }

    async fn close(&self) {
        self.0.close().await;
    }
}
