//! What the tests of this crate share.

pub(crate) mod intruder;

use std::{fmt::Display, slice, time::Duration};

use anyhow::{Context, Result, anyhow};
use lock_zk::{Options, ZkLocker};
use test_cluster::ZooKeeper;
use tokio::time::{self, Instant};
use zookeeper_client::{Acls, Client, CreateMode};

/// What takes a few round trips, or the start of a server, takes no longer on the busiest machine.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A timeout that no test lives to see.
pub(crate) const LONG: Duration = Duration::from_secs(3600);

/// Where those who want the key `orders` queue.
pub(crate) const QUEUE: &str = "/lock/orders";

pub(crate) async fn locker(servers: impl Display, ttl: Duration) -> Result<ZkLocker> {
    // Requests may take long without a session being shorter for it.
    let lease = Options::default().with_ttl(ttl).with_request_timeout((ttl / 5).min(SOON));
    Ok(ZkLocker::connect(&servers.to_string(), lease).await?)
}

/// A client for what an operator does by hand.
pub(crate) async fn operator(zookeeper: &ZooKeeper) -> Result<Client> {
    Ok(Client::connect(&zookeeper.address().to_string()).await?)
}

/// The nodes of [`QUEUE`], first come first.
pub(crate) async fn queue(operator: &Client) -> Result<Vec<String>> {
    let mut nodes = match operator.list_children(QUEUE).await {
        Err(zookeeper_client::Error::NoNode) => Vec::new(),
        nodes => nodes?,
    };
    nodes.retain(|node| node != "kept");
    nodes.sort_by_key(|node| node[33..].to_owned());
    Ok(nodes.into_iter().map(|node| format!("{QUEUE}/{node}")).collect())
}

pub(crate) async fn queue_of(operator: &Client, len: usize) -> Result<Vec<String>> {
    eventually("a queue", async || {
        let nodes = queue(operator).await?;
        if nodes.len() == len { Ok(nodes) } else { Err(anyhow!("{} nodes instead of {len}", nodes.len())) }
    })
    .await
}

/// Makes [`QUEUE`] and keeps it, which is otherwise removed as soon as it is empty.
pub(crate) async fn keep_queue(operator: &Client) -> Result<()> {
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    Ok(operator.mkdir(&format!("{QUEUE}/kept"), &options).await?)
}

/// Calls `probe` until it succeeds; its error is what it saw instead.
pub(crate) async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match probe().await {
            Ok(found) => return Ok(found),
            Err(status) if start.elapsed() > SOON => {
                return Err(anyhow!("waited {SOON:?} for {what}; last seen: {status:#}"));
            }
            // why: a bounded poll of a condition
            Err(_) => time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Awaits what must end soon.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> Result<T> {
    time::timeout(SOON, future).await.map_err(|_| anyhow!("{what} has not ended within {SOON:?}"))
}

/// Waits until `count` watches or more are set, by whomever.
pub(crate) async fn watches(zookeeper: &ZooKeeper, count: usize) -> Result<()> {
    watches_in(slice::from_ref(zookeeper), count).await
}

/// Waits until the servers of an ensemble together watch as much.
pub(crate) async fn watches_in(ensemble: &[ZooKeeper], count: usize) -> Result<()> {
    eventually("watches to be set", async || {
        let mut sum = 0;
        for zookeeper in ensemble {
            let answer = zookeeper.ask("wchs")?;
            let total = answer.lines().find_map(|line| line.strip_prefix("Total watches:"));
            sum += total.with_context(|| answer.clone())?.trim().parse::<usize>()?;
        }
        if sum >= count { Ok(()) } else { Err(anyhow!("{sum} of {count}")) }
    })
    .await
}
