//! From the name of a backend to a locker.

use std::time::Duration;

use lock_core::{AnyLocker, Options, Result};
use lock_etcd::EtcdLocker;
use lock_local::LocalLocker;
use lock_redlock::RedlockLocker;
use lock_setnx::SetnxLocker;
use lock_zk::ZkLocker;

use crate::{backend::Backend, planted};

use super::Setup;

/// Connects to `urls`, separated by commas, as `setup` says.
pub(super) async fn connect(setup: &Setup, urls: &str) -> Result<AnyLocker> {
    let options = Options::default().with_prefix(&setup.prefix).with_ttl(Duration::from_millis(setup.ttl_ms));
    Ok(match setup.backend {
        Backend::Local => LocalLocker::new().into(),
        Backend::Setnx => SetnxLocker::connect(urls, options).await?.into(),
        Backend::Redlock => RedlockLocker::connect(urls.split(','), options).await?.into(),
        Backend::Etcd => EtcdLocker::connect(urls, options).await?.into(),
        Backend::Zk => ZkLocker::connect(urls, options).await?.into(),
        Backend::Planted { bug, has } => planted::connect(bug, has, urls, &options).await?,
    })
}
