//! Real etcd servers: one alone, or a cluster.

mod builder;
mod gateway;
mod member;

use std::{net::SocketAddr, ops::Deref, time::Duration};

use anyhow::{Context, Result, ensure};

use crate::{Proxy, eventually};

pub use builder::EtcdBuilder;
pub(crate) use builder::timing;
pub use member::Etcd;
use member::Settings;

/// How long a cluster may take to agree on a leader.
const LEADER_BOUND: Duration = Duration::from_secs(20);

/// Returns whether the etcd on `port` of this machine leads its cluster.
///
/// # Errors
///
/// It does not answer, or knows no leader and so serves nobody.
pub fn leads(port: u16) -> Result<bool> {
    let status = Settings { port, plain_port: port, tls: false, password: None }.status()?;
    ensure!(status.leader != 0, "it knows no leader");
    Ok(status.leader == status.member)
}

/// Several members of one etcd cluster, with quick settings: a silent leader is replaced within half a second.
///
/// It dereferences to the slice of its members. Dropping it kills them all and removes their data.
///
/// # Examples
///
/// ```
/// # fn main() -> anyhow::Result<()> {
/// let cluster = test_cluster::EtcdCluster::start(3)?;
/// let old = cluster.leader()?;
/// cluster[old].kill()?;
/// assert_ne!(cluster.leader()?, old);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct EtcdCluster {
    members: Vec<Etcd>,
    /// The names of the members and where they reach each other.
    peers: String,
    peer_proxies: Vec<Proxy>,
}

impl EtcdCluster {
    /// Starts `members` servers and waits until they agree on a leader.
    ///
    /// # Errors
    ///
    /// As for [`EtcdBuilder::start_cluster`].
    pub fn start(members: usize) -> Result<EtcdCluster> {
        Etcd::builder().start_cluster(members)
    }

    /// Starts one member more, as a learner: it takes no part in votes and refuses most requests.
    ///
    /// # Errors
    ///
    /// As for [`EtcdBuilder::start`], and if the cluster does not let it in.
    pub fn add_learner(&self) -> Result<Etcd> {
        Etcd::builder().start_learner(self)
    }

    /// Returns the URLs for a client, separated by commas.
    pub fn urls(&self) -> String {
        self.members.iter().map(Etcd::url).collect::<Vec<_>>().join(",")
    }

    /// Returns the addresses for a client.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.members.iter().map(Etcd::address).collect()
    }

    /// Returns the proxy through which the others reach member `index`, if the cluster was built with
    /// [`proxied_peers`](EtcdBuilder::proxied_peers).
    ///
    /// Members call each other to be told things. So a member whose proxy stalls is mute: it still hears the others
    /// over the connections that it opened itself, and nothing that it says arrives.
    pub fn peer_proxy(&self, index: usize) -> Option<&Proxy> {
        self.peer_proxies.get(index)
    }

    /// Returns the index of the leader that a majority agrees on; waits until there is one.
    ///
    /// # Errors
    ///
    /// A majority of the members is dead, paused or cut off for 20 s.
    pub fn leader(&self) -> Result<usize> {
        eventually("a leader", LEADER_BOUND, || {
            let votes: Vec<_> = self.members.iter().filter_map(|member| member.status().ok()).collect();
            // One that is dead may still be believed in by those that it led.
            let leads = votes.iter().find(|vote| {
                let supporters = votes.iter().filter(|other| other.leader == vote.member).count();
                vote.leader == vote.member && supporters * 2 > self.len()
            });
            let leader = leads.with_context(|| format!("the members say {votes:?}"))?.member;
            let index = self.members.iter().position(|member| member.id() == Some(leader));
            index.with_context(|| format!("{leader:x} is none of the members"))
        })
    }

    /// Returns the index of some member that does not lead.
    ///
    /// # Errors
    ///
    /// As for [`leader`](Self::leader).
    pub fn follower(&self) -> Result<usize> {
        Ok((self.leader()? + 1) % self.len())
    }

    /// Makes member `index` the leader.
    ///
    /// # Errors
    ///
    /// As for [`leader`](Self::leader), and if it does not become the leader within 20 s.
    pub fn move_leader(&self, index: usize) -> Result<()> {
        let member = self[index].id().context("the member has never been ready")?;
        eventually("the new leader", LEADER_BOUND, || {
            let leader = self.leader()?;
            if leader != index {
                let target = format!(r#"{{"targetID": "{member}"}}"#);
                self[leader].call("/v3/maintenance/transfer-leadership", &target)?;
            }
            ensure!(self.leader()? == index, "another leads");
            Ok(())
        })
    }

    /// Kills all members and starts them again on their ports, having forgotten everything.
    ///
    /// # Errors
    ///
    /// A server does not start; the error shows its log.
    pub fn restart_without_data(&self) -> Result<()> {
        self.members.iter().try_for_each(Etcd::forget)?;
        self.boot()
    }

    /// Kills all members and starts them again on their ports and data.
    ///
    /// # Errors
    ///
    /// A server does not start; the error shows its log.
    pub fn restart(&self) -> Result<()> {
        self.members.iter().try_for_each(Etcd::kill)?;
        self.boot()
    }

    /// Starts all members at once, since one alone does not become ready.
    fn boot(&self) -> Result<()> {
        self.members.iter().try_for_each(Etcd::spawn)?;
        self.members.iter().try_for_each(Etcd::wait_until_ready)
    }
}

impl Deref for EtcdCluster {
    type Target = [Etcd];

    fn deref(&self) -> &[Etcd] {
        &self.members
    }
}
