//! What becomes of locks when servers refuse what they are asked.

use anyhow::{Result, ensure};
use lock_etcd::{ErrorKind, EtcdLocker, Target};
use test_cluster::{Etcd, EtcdCluster, Proxy};
use tokio::time::{self, Duration};

use crate::common::{impatient, locker, soon, until};

/// `lock/` and what follows everything that begins so, as the gateway wants it.
const BELOW_PREFIX: &str = r#""key": "bG9jay8=", "range_end": "bG9jazA=""#;

fn grant_rights(etcd: &Etcd) -> Result<()> {
    let permission = format!(r#"{{"name": "locks", "perm": {{"permType": "READWRITE", {BELOW_PREFIX}}}}}"#);
    etcd.call("/v3/auth/role/grant", &permission).map(|_| ())
}

fn take_rights(etcd: &Etcd) -> Result<()> {
    etcd.call("/v3/auth/role/revoke", &format!(r#"{{"role": "locks", {BELOW_PREFIX}}}"#)).map(|_| ())
}

/// An etcd with the user `app`, who may read and write below the prefix.
fn etcd_with_rights() -> Result<Etcd> {
    let etcd = Etcd::builder().password("secret").start()?;
    etcd.call("/v3/auth/role/add", r#"{"name": "locks"}"#)?;
    grant_rights(&etcd)?;
    etcd.call("/v3/auth/user/add", r#"{"name": "app", "password": "secret"}"#)?;
    etcd.call("/v3/auth/user/grant", r#"{"user": "app", "role": "locks"}"#)?;
    Ok(etcd)
}

async fn locker_of_app(address: impl ToString) -> Result<EtcdLocker> {
    let target = Target::new([address.to_string()])?.with_user("app", "secret");
    Ok(EtcdLocker::connect(target, impatient()).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_that_are_taken_away_cost_no_logins_and_work_again_when_given_back() -> Result<()> {
    let etcd = etcd_with_rights()?;
    let proxy = Proxy::start(etcd.address())?;
    let locks = locker_of_app(proxy.address()).await?;
    let guard = locks.lock("a").await?;
    until("the watch of the hold", || async {
        ensure!(etcd.watches()? == 1);
        Ok(())
    })
    .await;
    take_rights(&etcd)?;
    let before = proxy.connections();
    proxy.reset_all();
    until("the next connection", || async {
        ensure!(proxy.connections() > before);
        Ok(())
    })
    .await;
    // why: only time shows that it is not repeated
    time::sleep(Duration::from_secs(2)).await;
    let logins = proxy.connections() - before;
    assert!(logins <= 2, "{logins} logins in 2 s");
    assert!(guard.is_held(), "the session is kept alive without rights");

    grant_rights(&etcd)?;
    etcd.delete(&etcd.keys("lock/a:")?[0])?;
    soon("the loss", guard.lost()).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_without_rights_is_told_so() -> Result<()> {
    let etcd = etcd_with_rights()?;
    let proxy = Proxy::start(etcd.address())?;
    let (holder, other) = (locker_of_app(etcd.address()).await?, locker_of_app(proxy.address()).await?);
    let _guard = holder.lock("a").await?;
    let waiting = crate::common::waiter(&other, "a", 1).await;
    take_rights(&etcd)?;
    // Its watch was granted before; the next one is not.
    proxy.reset_all();
    let error = soon("the refusal", waiting).await?.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Auth, "{error:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_may_only_read_is_refused_at_once() -> Result<()> {
    let etcd = etcd_with_rights()?;
    take_rights(&etcd)?;
    let permission = format!(r#"{{"name": "locks", "perm": {{"permType": "READ", {BELOW_PREFIX}}}}}"#);
    etcd.call("/v3/auth/role/grant", &permission)?;
    let error = locker_of_app(etcd.address()).await.unwrap_err();
    assert!(error.to_string().contains("may not read and write"), "{error}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_is_named_as_such_and_passed_over() -> Result<()> {
    let cluster = EtcdCluster::start(1)?;
    let learner = cluster.add_learner()?;
    let error = locker(learner.url()).await.unwrap_err();
    assert!(error.to_string().contains("learner"), "{error}");
    let locks = locker([learner.url(), cluster.urls()].join(",")).await?;
    Ok(locks.lock("a").await?.release().await?)
}
