//! From the name of a backend to a locker.

use std::time::Duration;

use lock_core::{AnyLocker, Error, ErrorKind, Options, Result};
use lock_etcd::{
    EtcdLocker,
    etcd_client::{Certificate, TlsOptions},
};
use lock_local::LocalLocker;
use lock_redis::Target as Redis;
use lock_redlock::RedlockLocker;
use lock_setnx::SetnxLocker;
use lock_sharded::{MapSource, ShardedLocker};
use lock_zk::{Tls, ZkLocker};
use redis::{Client, TlsCertificates};

use crate::{backend::Backend, planted};

use super::Setup;

/// What the path to an authority's certificate follows, if one is to be trusted.
pub(crate) const TRUSTING: &str = " trusting ";

pub(super) fn options(setup: &Setup) -> Options {
    Options::default().with_prefix(&setup.prefix).with_ttl(Duration::from_millis(setup.ttl_ms))
}

/// Connects to `urls`, separated by commas, as `setup` says. Each may have a login before the address. For a lock space
/// it is the path of its map.
pub(super) async fn connect(setup: &Setup, urls: &str) -> Result<AnyLocker> {
    let options = options(setup);
    let (urls, authority) = match urls.split_once(TRUSTING) {
        Some((urls, path)) => (urls, Some(std::fs::read_to_string(path).expect("the lab wrote it"))),
        None => (urls, None),
    };
    let redis = |url: &str| -> Result<Redis> {
        let Some(authority) = &authority else { return Redis::url(url) };
        let root_cert = Some(authority.clone().into_bytes());
        let client = Client::build_with_tls(url, TlsCertificates { client_tls: None, root_cert });
        client.map(Redis::from).map_err(|_| Error::new(ErrorKind::InvalidInput, "not an address of Redis"))
    };
    Ok(match setup.backend {
        Backend::Local => LocalLocker::new().into(),
        Backend::Setnx => SetnxLocker::connect(redis(urls)?, options).await?.into(),
        Backend::Redlock => {
            let targets = urls.split(',').map(redis).collect::<Result<Vec<_>>>()?;
            RedlockLocker::connect(targets, options).await?.into()
        }
        Backend::Etcd => EtcdLocker::connect(etcd(urls, authority)?, options).await?.into(),
        Backend::Zk => ZkLocker::connect(zookeeper(urls, authority)?, options).await?.into(),
        Backend::Sharded => ShardedLocker::connect(MapSource::file(urls), options).await?.into(),
        Backend::Planted { bug, has } => planted::connect(bug, has, urls, &options).await?,
    })
}

fn etcd(urls: &str, authority: Option<String>) -> Result<lock_etcd::Target> {
    let (login, urls) = login(urls);
    let mut target = lock_etcd::Target::new(urls.split(','))?;
    if let Some((user, password)) = login {
        target = target.with_user(user, password);
    }
    Ok(match authority {
        Some(authority) => {
            target.with_tls(TlsOptions::new().ca_certificate(Certificate::from_pem(authority)))
        }
        None => target,
    })
}

fn zookeeper(urls: &str, authority: Option<String>) -> Result<lock_zk::Target> {
    let (login, urls) = login(urls);
    let mut target = lock_zk::Target::new(&urls)?;
    if let Some((user, password)) = login {
        target = target.with_digest(user, password);
    }
    Ok(match authority {
        Some(authority) => target.with_tls(Tls::trusting(&authority)?),
        None => target,
    })
}

/// Takes the login out of the addresses; the first counts for all.
fn login(urls: &str) -> (Option<(&str, &str)>, String) {
    let mut found = None;
    let without = |url| {
        let (scheme, address) = url_parts(url);
        let Some((login, address)) = address.split_once('@') else { return url.to_owned() };
        found = found.or_else(|| login.split_once(':'));
        format!("{scheme}{address}")
    };
    let urls = urls.split(',').map(without).collect::<Vec<_>>().join(",");
    (found, urls)
}

fn url_parts(url: &str) -> (&str, &str) {
    url.split_at(url.find("://").map_or(0, |end| end + 3))
}
