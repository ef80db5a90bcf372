//! What goes on when a caller has stopped looking: undos, closing, the ends of runtimes.

use std::{future::poll_fn, pin::pin, task::Poll, time::Duration};

use crate::common::{
    LONG, QUEUE, SOON, eventually, intruder::Intruder, locker, operator, queue, queue_of, soon, watches,
};
use anyhow::Result;
use lock_zk::{ErrorKind, Options, ZkLocker};
use test_cluster::{Proxy, ZooKeeper};
use tokio::runtime;
use zookeeper_client::{Acl, Acls, AuthId, CreateMode, Permission};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undo_that_lacks_a_right_is_repeated_until_it_has_it() -> Result<()> {
    let zookeeper = ZooKeeper::start()?;
    let (locks, other) = (locker(zookeeper.address(), LONG).await?, locker(zookeeper.address(), LONG).await?);
    let operator = operator(&zookeeper).await?;
    let guard = locks.lock("orders").await?;
    let no_deletes = [Acl::new(Permission::READ | Permission::ADMIN, AuthId::anyone())];
    operator.set_acl(QUEUE, &no_deletes, None).await?;
    let error = guard.release().await.expect_err("there is no right to delete");
    assert_eq!(error.kind(), ErrorKind::Auth, "{error}");
    let closing = tokio::spawn({
        let locks = locks.clone();
        async move { locks.close().await }
    });
    // why: several repetitions must fail
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!closing.is_finished(), "the release is not done");
    operator.set_acl(QUEUE, &Acls::anyone_all(), None).await?;
    soon("closing", closing).await??;
    assert!(other.try_lock("orders").await?.is_some(), "the key is free when the close is done");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_ends_those_who_wait() -> Result<()> {
    let zookeeper = ZooKeeper::start()?;
    let (locks, other) = (locker(zookeeper.address(), LONG).await?, locker(zookeeper.address(), LONG).await?);
    let guard = other.lock("orders").await?;
    let waiting = tokio::spawn({
        let locks = locks.clone();
        async move { locks.lock("orders").await }
    });
    watches(&zookeeper, 2).await?;
    soon("closing", locks.close()).await?;
    let error = soon("the wait", waiting).await??.expect_err("the locker was closed");
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    queue_of(&operator(&zookeeper).await?, 1).await?;
    guard.release().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_who_is_never_polled_again_holds_up_nobody_who_needs_a_session() -> Result<()> {
    let zookeeper = ZooKeeper::start()?;
    let intruder = Intruder::start(zookeeper.address()).await?;
    let locks = locker(intruder.address, LONG).await?;
    intruder.end_session().await?;
    let mut stuck = pin!(locks.lock("other orders"));
    poll_fn(|context| Poll::Ready(stuck.as_mut().poll(context).is_ready())).await;
    eventually("a lock", async || Ok(locks.lock("orders").await?)).await?.release().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_who_is_never_polled_again_does_not_keep_the_key() -> Result<()> {
    let zookeeper = ZooKeeper::start()?;
    let ttl = Duration::from_secs(3);
    let (locks, other) = (locker(zookeeper.address(), ttl).await?, locker(zookeeper.address(), ttl).await?);
    let operator = operator(&zookeeper).await?;
    let guard = other.lock("orders").await?;
    let mut stuck = pin!(locks.lock("orders"));
    eventually("a place in the queue", async || {
        poll_fn(|context| Poll::Ready(stuck.as_mut().poll(context).is_ready())).await;
        anyhow::ensure!(queue(&operator).await?.len() == 2, "it is not in it");
        Ok(())
    })
    .await?;
    guard.release().await?;
    soon("the wait behind one who is never polled", other.lock("orders")).await??.release().await?;
    // Who looks again has lost nothing but its turn.
    soon("the wait", stuck).await??.release().await?;
    Ok(())
}

#[test]
fn outside_a_runtime_and_after_its_end_a_locker_is_closed() -> Result<()> {
    let zookeeper = ZooKeeper::start()?;
    let address = zookeeper.address().to_string();
    let mut connecting = pin!(ZkLocker::connect(&address, Options::default()));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match connecting.as_mut().poll(&mut context) {
        Poll::Ready(Err(error)) => assert_eq!(error.kind(), ErrorKind::Closed, "{error}"),
        outcome => panic!("there is no runtime: {outcome:?}"),
    }

    let ended = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (locks, released, verified) = ended.block_on(async {
        let locks = locker(&address, LONG).await?;
        let guards = (locks.lock("orders").await?, locks.lock("other orders").await?);
        anyhow::Ok((locks, guards.0, guards.1))
    })?;
    ended.shutdown_timeout(SOON);
    let here = runtime::Builder::new_current_thread().enable_all().build()?;
    here.block_on(async {
        let error = soon("a release", released.release()).await?.expect_err("the runtime has ended");
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
        let error = soon("a look", verified.verify()).await?.expect_err("the runtime has ended");
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
        let error = soon("a try", locks.try_lock("orders")).await?.expect_err("the runtime has ended");
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
        Ok(())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_number_of_long_paths_survives_a_reset() -> Result<()> {
    const HOLDS: usize = 1_200;
    let zookeeper = ZooKeeper::start()?;
    let proxy = Proxy::start(zookeeper.address())?;
    let chroot = format!("/{}", "c".repeat(150));
    let operator = operator(&zookeeper).await?;
    operator.create(&chroot, &[], &CreateMode::Persistent.with_acls(Acls::anyone_all())).await?;
    let locks = locker(format!("{}{chroot}", proxy.address()), LONG).await?;
    let mut guards = Vec::new();
    for number in 0..HOLDS {
        guards.push(locks.lock(&format!("{number}")).await?);
    }
    watches(&zookeeper, HOLDS).await?;
    proxy.reset_all();
    eventually("a verified hold", async || Ok(guards[0].verify().await?)).await?;
    let held = guards.iter().filter(|guard| guard.is_held()).count();
    assert_eq!(held, HOLDS, "held after a reset");
    // They are watched again, too.
    watches(&zookeeper, HOLDS).await?;
    let node = operator.list_children(&format!("{chroot}{QUEUE}").replace("orders", "7")).await?.remove(0);
    operator.delete(&format!("{chroot}/lock/7/{node}"), None).await?;
    soon("the loss", guards[7].lost()).await?;
    soon("closing", locks.close()).await?;
    Ok(())
}
