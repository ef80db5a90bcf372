//! A queue that was never empty, and has had as many nodes as there are numbers.

use crate::common::{LONG, QUEUE, eventually, keep_queue, locker, operator};
use anyhow::{Result, ensure};
use lock_zk::ErrorKind;
use test_cluster::ZooKeeper;

/// At the end of its numbers a server gives the last one to each node, or numbers below zero: there is no order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_without_numbers_makes_no_two_holders_and_serves_again_once_it_was_empty() -> Result<()> {
    let zookeeper = ZooKeeper::start()?;
    keep_queue(&operator(&zookeeper).await?).await?;
    zookeeper.restart_numbered(QUEUE, i32::MAX - 4)?;
    let (one, other) = (locker(zookeeper.address(), LONG).await?, locker(zookeeper.address(), LONG).await?);
    let mut last = 0;
    for _ in 0..2 {
        let guard = one.lock("orders").await?;
        assert!(other.try_lock("orders").await.ok().flatten().is_none(), "two hold one lock");
        assert!(guard.fencing_token().get() > last);
        last = guard.fencing_token().get();
        guard.release().await?;
    }
    for _ in 0..10 {
        for locks in [&one, &other] {
            let error = locks.lock("orders").await.expect_err("there is no number that has an order");
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            assert!(error.to_string().contains("numbers"), "{error}");
        }
    }
    let operator = operator(&zookeeper).await?;
    eventually("the queue to be removed", async || {
        for path in [&format!("{QUEUE}/kept"), QUEUE] {
            ensure!(matches!(
                operator.delete(path, None).await,
                Ok(()) | Err(zookeeper_client::Error::NoNode)
            ));
        }
        Ok(())
    })
    .await?;
    let guard = one.lock("orders").await?;
    assert!(other.try_lock("orders").await?.is_none());
    assert!(guard.fencing_token().get() > last, "tokens go on");
    Ok(guard.release().await?)
}
