//! What an operator does and sees on etcd and ZooKeeper.

use anyhow::{Result, bail};
use test_cluster::{EtcdCluster, ZooKeeperCluster};

pub(super) fn delete_etcd(cluster: &EtcdCluster, prefix: &str, lock: &str) -> Result<()> {
    let keys = cluster[cluster.leader()?].keys(&format!("{prefix}/"))?;
    bail!("which of {keys:?} holds {lock} is not known yet")
}

pub(super) fn delete_zk(_ensemble: &ZooKeeperCluster, _prefix: &str, lock: &str) -> Result<()> {
    bail!("which znode holds {lock} is not known yet")
}

pub(super) fn etcd_leftovers(cluster: &EtcdCluster, prefix: &str) -> Result<Vec<String>> {
    cluster[cluster.leader()?].keys(&format!("{prefix}/"))
}

pub(super) fn zk_leftovers(_ensemble: &ZooKeeperCluster, _prefix: &str) -> Result<Vec<String>> {
    bail!("what is left on ZooKeeper is not known yet")
}
