//! The clusters of a lock space, each connected to when it is first needed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use lock_core::{
    Error, ErrorKind, Options, Result,
    backend::{SharedAttempt, present_runtime},
    movable::ClusterName,
};
use tokio::runtime::Handle;

use crate::{
    cluster::{Cluster, Member},
    map::ShardMap,
    source::MapSource,
};

pub(crate) struct Members {
    options: Options,
    runtime: Handle,
    /// Those given by the program, which knows how to log in there.
    given: BTreeMap<ClusterName, Cluster>,
    known: Mutex<BTreeMap<ClusterName, Arc<Known>>>,
}

struct Known {
    cluster: Cluster,
    member: Mutex<Option<Arc<dyn Member>>>,
    connecting: SharedAttempt<Arc<dyn Member>>,
}

impl Members {
    /// Reads the map of `source`, and knows its clusters; how to log in to those that are `given` need not be in it.
    pub(crate) async fn of<'a>(
        source: &MapSource,
        given: impl IntoIterator<Item = (&'a str, Cluster)>,
        options: Options,
    ) -> Result<(Self, ShardMap)> {
        let given = given.into_iter().map(|(name, cluster)| Ok((name.parse()?, cluster)));
        let given = given.collect::<Result<_>>()?;
        let members = Self { options, runtime: present_runtime()?, given, known: Mutex::default() };
        let map = source.load().await?;
        members.learn(&map)?;
        Ok((members, map))
    }

    /// Gets to know the clusters of a map. Those that are known already stay as they are.
    pub(crate) fn learn(&self, map: &ShardMap) -> Result<()> {
        for name in map.clusters() {
            if locked(&self.known).contains_key(name) {
                continue;
            }
            let cluster = match self.given.get(name) {
                Some(given) => given.clone(),
                None => Cluster::at(map.address(name).unwrap_or_default())?,
            };
            let known = Known {
                cluster,
                member: Mutex::default(),
                connecting: SharedAttempt::new(self.runtime.clone()),
            };
            locked(&self.known).insert(name.clone(), Arc::new(known));
        }
        Ok(())
    }

    pub(crate) fn names(&self) -> Vec<ClusterName> {
        locked(&self.known).keys().cloned().collect()
    }

    fn known(&self, name: &ClusterName) -> Result<Arc<Known>> {
        locked(&self.known).get(name).cloned().ok_or_else(|| {
            let message =
                format!("slots are on cluster {name}, which the map does not have; give the map its address");
            Error::new(ErrorKind::Unavailable, message).without_effect()
        })
    }

    /// Returns a cluster, connected.
    pub(crate) async fn get(&self, name: &ClusterName) -> Result<Arc<dyn Member>> {
        let known = self.known(name)?;
        let options = self.options.clone();
        let to_connect = Arc::clone(&known);
        let present = || locked(&known.member).clone();
        let connected = known.connecting.run(present, || async move {
            let member = to_connect.cluster.connect(options).await?;
            *locked(&to_connect.member) = Some(Arc::clone(&member));
            Ok(member)
        });
        connected.await.map_err(|error| named(error.without_effect(), name))
    }

    /// Returns those that are connected.
    pub(crate) fn connected(&self) -> Vec<(ClusterName, Arc<dyn Member>)> {
        let known = locked(&self.known);
        let member =
            |(name, known): (&ClusterName, &Arc<Known>)| Some((name.clone(), locked(&known.member).clone()?));
        known.iter().filter_map(member).collect()
    }

    pub(crate) fn cluster(&self, name: &ClusterName) -> Result<Cluster> {
        self.known(name).map(|known| known.cluster.clone())
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn runtime(&self) -> &Handle {
        &self.runtime
    }
}

/// Says which cluster failed.
pub(crate) fn named(error: Error, cluster: &ClusterName) -> Error {
    error.with_server(cluster.as_str())
}

pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
