//! What cannot work is refused at once, with a reason that a person understands.

use lock_core::backend::Effect;
use std::{net::TcpListener, time::Duration};

use crate::common::{LONG, QUEUE, eventually, operator, soon};
use anyhow::Result;
use lock_zk::{Error, ErrorKind, Options, Target, ZkLocker};
use test_cluster::{Redis, ZooKeeper};
use zookeeper_client::{Acls, CreateMode};

/// Connects with a request timeout of a third of a second.
async fn refused<T>(target: T, options: Options) -> Result<Error>
where
    T: TryInto<Target>,
    Error: From<T::Error>,
{
    let connecting = ZkLocker::connect(target, options.with_ttl(Duration::from_secs(2)));
    let error = soon("connecting", connecting).await?.expect_err("it cannot work");
    assert_eq!(error.effect(), Effect::None, "{error}");
    Ok(error)
}

#[tokio::test]
async fn servers_that_cannot_be_used_are_named_with_the_reason() -> Result<()> {
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let nobody = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let redis = Redis::start()?;
    for servers in [nobody, silent.local_addr()?, redis.address()] {
        let error = refused(&servers.to_string(), Options::default()).await?;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("does it speak ZooKeeper"), "{error}");
        assert!(error.to_string().contains(&servers.to_string()), "{error}");
    }
    Ok(())
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn tls_chooses_a_provider_of_cryptography_if_the_program_has_two_and_chose_none() -> Result<()> {
    let nobody = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let tls = lock_zk::Tls::trusting(include_str!("common/authority.pem"))?;
    let error = refused(Target::new(&nobody.to_string())?.with_tls(tls), Options::default()).await?;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    Ok(())
}

#[tokio::test]
async fn addresses_and_options_that_cannot_work_are_refused() -> Result<()> {
    for servers in ["", ":2181", "host:port", "host:0", "host:2181/a/", "host,,host", "::::", "::1", "a/b,c"]
    {
        let error = refused(servers, Options::default()).await?;
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{servers}: {error}");
    }
    for servers in
        ["ann:secret@127.0.0.1:1", "tcp://ann:secret@127.0.0.1:1", "host:1,ann:secret@127.0.0.1:1/a"]
    {
        let error = refused(servers, Options::default()).await?;
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        let shown = format!("{error} {error:?}");
        assert!(shown.contains("with_digest") && !shown.contains("secret"), "{shown}");
    }
    let nowhere = Target::new("127.0.0.1:1")?;
    let error = refused(nowhere.clone(), Options::default().with_prefix("a/../b")).await?;
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    let error = refused(nowhere.with_acl("world:anyone"), Options::default()).await?;
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_of_a_user_are_for_that_user_only() -> Result<()> {
    let zookeeper = ZooKeeper::start()?;
    let nobody = Target::new(&zookeeper.address().to_string())?;
    let ann = nobody.clone().with_digest("ann", "secret");
    let locks = ZkLocker::connect(ann.clone(), Options::default()).await?;
    let guard = locks.lock("orders").await?;
    guard.verify().await?;
    for stranger in [nobody.clone(), nobody.with_digest("ann", "wrong")] {
        let stranger = ZkLocker::connect(stranger, Options::default()).await?;
        let error = soon("a stranger's try", stranger.try_lock("orders")).await?.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Auth, "{error}");
        let error = soon("a stranger's wait", stranger.lock("orders")).await?.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Auth, "{error}");
        soon("closing", stranger.close()).await?;
    }
    let again = ZkLocker::connect(ann, Options::default()).await?;
    assert!(again.try_lock("orders").await?.is_none());
    guard.release().await?;
    again.lock("orders").await?.release().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acl_of_ones_own_is_set_on_what_is_made() -> Result<()> {
    let zookeeper = ZooKeeper::start()?;
    let nobody = Target::new(&zookeeper.address().to_string())?;
    let ann = nobody.clone().with_digest("ann", "secret").with_acl("world:anyone:r,auth::cdr");
    let ann = ZkLocker::connect(ann, Options::default()).await?;
    let guard = ann.lock("orders").await?;
    let (acl, _) = operator(&zookeeper).await?.get_acl(QUEUE).await?;
    assert!(acl.iter().any(|entry| entry.scheme() == "world"), "{acl:?}");
    assert!(acl.iter().any(|entry| entry.scheme() == "digest" && entry.id().starts_with("ann:")), "{acl:?}");
    guard.verify().await?;
    guard.release().await?;

    let options = Options::default().with_prefix("other");
    let nobody = ZkLocker::connect(nobody.with_acl("auth::cdrwa"), options).await?;
    let error = nobody.lock("orders").await.expect_err("nobody has logged in");
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chroot_is_another_world_and_must_exist() -> Result<()> {
    let zookeeper = ZooKeeper::start()?;
    let (plain, chroot) = (zookeeper.address().to_string(), format!("{}/shop", zookeeper.address()));
    let missing = ZkLocker::connect(&chroot, Options::default()).await?;
    let error = missing.lock("orders").await.expect_err("there is no chroot");
    assert!(error.to_string().contains("the chroot in the address does not exist"), "{error}");

    let operator = operator(&zookeeper).await?;
    operator.create("/shop", &[], &CreateMode::Persistent.with_acls(Acls::anyone_all())).await?;
    let (one, other) = (missing, ZkLocker::connect(&plain, Options::default()).await?);
    let (guard, same_key) = (one.lock("orders").await?, other.lock("orders").await?);
    assert_eq!(operator.list_children("/shop/lock/orders").await?.len(), 1);
    // The prefix is a path too, and leads to the same lock.
    let same = ZkLocker::connect(&plain, Options::default().with_prefix("shop/lock")).await?;
    assert!(same.try_lock("orders").await?.is_none());
    guard.release().await?;
    same_key.release().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_of_two_ensembles_are_refused() -> Result<()> {
    let (one, other) = (ZooKeeper::start()?, ZooKeeper::start()?);
    for servers in [[&one, &other], [&other, &one]] {
        let servers = servers.map(|server| server.address().to_string()).join(",");
        let options = Options::default().with_request_timeout(Duration::from_secs(2));
        let connecting = ZkLocker::connect(&servers, options.with_ttl(LONG));
        let error = soon("connecting", connecting).await?.expect_err("they exclude nobody from each other");
        assert_eq!(error.kind(), ErrorKind::UnsafeConfig, "{error}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_limit_of_connections_per_client_is_named() -> Result<()> {
    let zookeeper = ZooKeeper::builder().config("maxClientCnxns", "1").start()?;
    let address = zookeeper.address().to_string();
    let locks =
        eventually("a session", async || Ok(ZkLocker::connect(&address, Options::default()).await?)).await?;
    let error = refused(&address, Options::default()).await?;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("maxClientCnxns"), "{error}");
    drop(locks);
    Ok(())
}
