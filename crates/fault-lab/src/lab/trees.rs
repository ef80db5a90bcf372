//! What an operator does and sees on etcd and ZooKeeper.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, ensure};
use lock_core::Key;
use test_cluster::{EtcdCluster, ZooKeeperCluster};
use tokio::{runtime::Builder, time::timeout};
use zookeeper_client::Client;

const BOUND: Duration = Duration::from_secs(10);

/// What the names in the queue of `lock` on etcd begin with.
pub(super) fn etcd_queue(prefix: &str, lock: &str) -> Result<String> {
    let kept = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':');
    Ok(format!("{prefix}/{}:", Key::new(lock)?.percent_encoded(kept)))
}

/// The node under which those who want `lock` queue on ZooKeeper.
pub(crate) fn zk_queue(prefix: &str, lock: &str) -> Result<String> {
    let kept = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b'.');
    Ok(format!("/{prefix}/{}", Key::new(lock)?.percent_encoded(kept)))
}

/// The entries in the queue of `lock`, first come first.
pub(super) fn etcd_entries(cluster: &EtcdCluster, prefix: &str, lock: &str) -> Result<Vec<String>> {
    cluster[cluster.leader()?].keys(&etcd_queue(prefix, lock)?)
}

/// The entries in the queue of `lock`, first come first. Its numbers have not come to their end.
pub(super) fn zk_entries(ensemble: &ZooKeeperCluster, prefix: &str, lock: &str) -> Result<Vec<String>> {
    let below = zk_queue(prefix, lock)? + "/";
    let mut nodes = zk_leftovers(ensemble, prefix)?;
    nodes.retain(|node| node.starts_with(&below));
    nodes.sort_by_key(|node| node.rsplit('-').next().map(str::to_owned));
    Ok(nodes)
}

/// Deletes the first entry in the queue of `lock`: that of its holder.
pub(super) fn delete_etcd(cluster: &EtcdCluster, prefix: &str, lock: &str) -> Result<()> {
    let queue = etcd_entries(cluster, prefix, lock)?;
    cluster[cluster.leader()?].delete(queue.first().with_context(|| format!("nobody holds {lock}"))?)
}

/// Deletes the first entry in the queue of `lock`: that of its holder.
pub(super) fn delete_zk(ensemble: &ZooKeeperCluster, prefix: &str, lock: &str) -> Result<()> {
    let queue = zk_entries(ensemble, prefix, lock)?;
    let first = queue.first().with_context(|| format!("nobody holds {lock}"))?;
    at_zk(ensemble.node(ensemble.leader()?).address(), async |client| Ok(client.delete(first, None).await?))
}

/// All entries. A session's fence, in no queue, goes with the session.
pub(super) fn etcd_leftovers(cluster: &EtcdCluster, prefix: &str) -> Result<Vec<String>> {
    let mut keys = cluster[cluster.leader()?].keys(&format!("{prefix}/"))?;
    keys.retain(|key| !key.starts_with(&format!("{prefix}//")));
    Ok(keys)
}

/// All entries, which are the ephemeral nodes. The server itself removes queues that are empty.
pub(super) fn zk_leftovers(ensemble: &ZooKeeperCluster, prefix: &str) -> Result<Vec<String>> {
    let sessions = ensemble.node(ensemble.leader()?).ask("dump")?;
    ensure!(sessions.contains("ephemeral nodes dump"), "the leader answers {sessions:?}");
    let below = format!("/{prefix}/");
    let nodes = sessions.lines().map(str::trim).filter(|line| line.starts_with(&below));
    Ok(nodes.map(str::to_owned).collect())
}

/// The leases that are kept.
pub(super) fn etcd_leases(cluster: &EtcdCluster) -> Result<usize> {
    let told = cluster[cluster.leader()?].call("/v3/lease/leases", "{}")?;
    Ok(told.matches("\"ID\"").count())
}

/// The sessions that are kept.
pub(super) fn zk_sessions(ensemble: &ZooKeeperCluster) -> Result<usize> {
    let told = ensemble.node(ensemble.leader()?).ask("mntr")?;
    let count = told.lines().find_map(|line| line.strip_prefix("zk_global_sessions"));
    Ok(count.with_context(|| format!("the leader answers {told:?}"))?.trim().parse()?)
}

/// Does something at a ZooKeeper by a session of its own.
pub(crate) fn at_zk<T>(server: SocketAddr, work: impl AsyncFnOnce(&Client) -> Result<T>) -> Result<T> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let connecting = Client::connector().with_session_timeout(BOUND).connect(&server.to_string()).await;
        let client = connecting.context("cannot connect to ZooKeeper")?;
        let done = timeout(BOUND, work(&client)).await.context("ZooKeeper is too slow")?;
        let mut state = client.state_watcher();
        drop(client);
        let closed = async { while !state.changed().await.is_terminated() {} };
        timeout(BOUND, closed).await.context("a session does not end")?;
        done
    })
}
