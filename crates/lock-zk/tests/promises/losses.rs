//! What operators and servers take away is noticed, by holders and by waiters.

use std::time::Duration;

use crate::common::{
    LONG, QUEUE, eventually, intruder::Intruder, keep_queue, locker, operator, queue_of, soon, watches,
};
use anyhow::{Context, Result, ensure};
use lock_zk::{ErrorKind, LockGuard, Options, ZkLocker};
use test_cluster::{Behaviour, Direction, Proxy, ZooKeeper};
use tokio::task::JoinHandle;

type Waiting = JoinHandle<lock_zk::Result<LockGuard>>;

fn wait(locks: &lock_zk::ZkLocker) -> Waiting {
    let locks = locks.clone();
    tokio::spawn(async move { locks.lock("orders").await })
}

async fn assert_lost(guard: LockGuard) -> Result<()> {
    soon("the loss", guard.lost()).await?;
    assert!(!guard.is_held());
    assert_eq!(guard.release().await.unwrap_err().kind(), ErrorKind::Lost);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_handles_of_one_session_exclude_each_other() -> Result<()> {
    let zookeeper = ZooKeeper::start()?;
    let locks = locker(zookeeper.address(), LONG).await?;
    let other = locks.clone();
    let guard = locks.lock("orders").await?;
    assert!(other.try_lock("orders").await?.is_none());
    let free = other.lock("other orders").await?;
    let waiting = wait(&other);
    guard.release().await?;
    let guard = soon("the hand-over", waiting).await???;
    assert!(guard.is_held() && free.is_held());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_the_server_ended_is_a_loss_and_the_next_lock_opens_another() -> Result<()> {
    let zookeeper = ZooKeeper::start()?;
    let intruder = Intruder::start(zookeeper.address()).await?;
    // So long a timeout that it cannot be the deadline that tells the loss.
    let locks = locker(intruder.address, LONG).await?;
    let (guard, other) = (locks.lock("orders").await?, locks.lock("other orders").await?);
    intruder.end_session().await?;
    assert_lost(guard).await?;
    assert_lost(other).await?;
    let guard = locks.lock("orders").await?;
    guard.verify().await?;
    guard.release().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_whose_session_the_server_ended_queues_again() -> Result<()> {
    let zookeeper = ZooKeeper::start()?;
    let intruder = Intruder::start(zookeeper.address()).await?;
    let (holder, waiter) = (locker(zookeeper.address(), LONG).await?, locker(intruder.address, LONG).await?);
    let operator = operator(&zookeeper).await?;
    let guard = holder.lock("orders").await?;
    let waiting = wait(&waiter);
    watches(&zookeeper, 2).await?;
    let nodes = queue_of(&operator, 2).await?;
    intruder.end_session().await?;
    eventually("the place to be taken anew", async || {
        let now = queue_of(&operator, 2).await?;
        ensure!(now[0] == nodes[0] && now[1] != nodes[1], "the queue is {now:?}");
        Ok(())
    })
    .await?;
    assert!(!waiting.is_finished());
    guard.release().await?;
    soon("the wait", waiting).await???.release().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deletion_of_a_waiters_node_costs_its_place_and_never_makes_it_a_holder() -> Result<()> {
    let zookeeper = ZooKeeper::start()?;
    let locks = locker(zookeeper.address(), LONG).await?;
    let operator = operator(&zookeeper).await?;
    let guard = locks.lock("orders").await?;
    let second = wait(&locks);
    let nodes = queue_of(&operator, 2).await?;
    let third = wait(&locks);
    queue_of(&operator, 3).await?;

    operator.delete(&nodes[1], None).await?;
    eventually("the place to be taken anew", async || {
        let now = queue_of(&operator, 3).await?;
        ensure!(!now.contains(&nodes[1]), "it is still the old one");
        Ok(())
    })
    .await?;
    assert!(!second.is_finished() && !third.is_finished(), "the first still holds the lock");
    guard.verify().await?;
    guard.release().await?;
    let third = soon("the wait of the third", third).await???;
    assert!(!second.is_finished(), "it is behind the third now");
    third.release().await?;
    soon("the wait of the second", second).await???.release().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deletion_of_the_whole_queue_is_a_loss_and_waiters_queue_again() -> Result<()> {
    let zookeeper = ZooKeeper::start()?;
    let locks = locker(zookeeper.address(), LONG).await?;
    let operator = operator(&zookeeper).await?;
    let guard = locks.lock("orders").await?;
    let token = guard.fencing_token();
    let waiting = wait(&locks);
    // From the back, so that no waiter is served in between.
    let nodes = queue_of(&operator, 2).await?;
    for node in nodes.iter().rev() {
        operator.delete(node, None).await?;
        if operator.delete(QUEUE, None).await.is_ok() {
            break;
        }
    }
    assert_lost(guard).await?;
    let guard = soon("the wait", waiting).await???;
    assert!(guard.fencing_token() > token, "tokens grow although the numbers of the queue may start again");
    guard.verify().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_told_at_once_that_its_node_and_the_one_before_are_gone_holds_nothing() -> Result<()> {
    const KEYS: usize = 50;
    let zookeeper = ZooKeeper::start()?;
    let (holder, waiter) =
        (locker(zookeeper.address(), LONG).await?, locker(zookeeper.address(), LONG).await?);
    let operator = operator(&zookeeper).await?;
    let mut waiting = Vec::new();
    for key in 0..KEYS {
        let key = format!("orders-{key}");
        let (guard, waiter) = (holder.lock(&key).await?, waiter.clone());
        let queue = format!("/lock/{key}");
        let first = operator.list_children(&queue).await?.remove(0);
        waiting.push((guard, queue, first, tokio::spawn(async move { waiter.lock(&key).await })));
    }
    // Of each holder its own node, of each waiter both.
    watches(&zookeeper, 3 * KEYS).await?;
    let mut changes = operator.new_multi_writer();
    for (_, queue, first, _) in &waiting {
        for node in operator.list_children(queue).await?.iter().filter(|node| *node != first) {
            changes.add_delete(&format!("{queue}/{node}"), None)?;
        }
        changes.add_delete(&format!("{queue}/{first}"), None)?;
    }
    changes.commit().await?;
    for (lost, _, _, waiting) in waiting {
        soon("the wait", waiting).await???.verify().await?;
        assert_lost(lost).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_is_neither_a_loss_nor_a_missed_notice() -> Result<()> {
    let zookeeper = ZooKeeper::start()?;
    let proxy = Proxy::start(zookeeper.address())?;
    let (holder, waiter) = (locker(proxy.address(), LONG).await?, locker(proxy.address(), LONG).await?);
    let guard = holder.lock("orders").await?;
    let waiting = wait(&waiter);
    watches(&zookeeper, 2).await?;
    for _ in 0..3 {
        proxy.reset_all();
        eventually("a verified hold", async || Ok(guard.verify().await?)).await?;
        // A second cut while a session is moved may end it: it is not known then what became of it.
        eventually("the waiter's session to be moved", async || {
            waiter.try_lock("other orders").await?.context("it is free")?.release().await?;
            Ok(())
        })
        .await?;
        assert!(guard.is_held() && !waiting.is_finished());
    }
    // The connections are cut while the notice is on its way, or just before or after.
    let released = tokio::spawn(guard.release());
    proxy.reset_all();
    let _ = soon("the release", released).await??;
    let guard = soon("the hand-over", waiting).await???;
    eventually("a verified hold", async || Ok(guard.verify().await?)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_that_cannot_look_for_longer_than_the_request_timeout_keeps_its_place() -> Result<()> {
    const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
    let zookeeper = ZooKeeper::start()?;
    let proxy = Proxy::start(zookeeper.address())?;
    let direct = locker(zookeeper.address(), LONG).await?;
    let lease = Options::default().with_ttl(LONG).with_request_timeout(REQUEST_TIMEOUT);
    let options = lease;
    let unlucky = ZkLocker::connect(&proxy.address().to_string(), options).await?;
    let operator = operator(&zookeeper).await?;
    let guard = direct.lock("orders").await?;
    let second = wait(&direct);
    queue_of(&operator, 2).await?;
    let third = wait(&unlucky);
    queue_of(&operator, 3).await?;
    let later = wait(&direct);
    let nodes = queue_of(&operator, 4).await?;
    // Each waiter watches two nodes, and the holder its own, which the second watches over the same session.
    watches(&zookeeper, 6).await?;

    // The third still hears that the second is gone, and has to look who is before it now.
    proxy.set(Direction::ToServer, Behaviour::Stall);
    second.abort();
    assert_eq!(queue_of(&operator, 3).await?, [&*nodes[0], &nodes[2], &nodes[3]]);
    // why: the outage has to outlast a request
    tokio::time::sleep(REQUEST_TIMEOUT * 3 / 2).await;
    proxy.set(Direction::ToServer, Behaviour::Pass);

    guard.release().await?;
    let guard = soon("the wait of the third", third).await???;
    assert_eq!(queue_of(&operator, 2).await?, nodes[2..], "the third has its old place");
    assert!(!later.is_finished(), "who came later has to wait");
    guard.release().await?;
    soon("the wait of the last", later).await???.release().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_create_whose_answer_is_lost_leaves_nothing_and_blocks_nobody() -> Result<()> {
    let zookeeper = ZooKeeper::start()?;
    let proxy = Proxy::start(zookeeper.address())?;
    let (unlucky, other) = (locker(proxy.address(), LONG).await?, locker(zookeeper.address(), LONG).await?);
    let operator = operator(&zookeeper).await?;
    keep_queue(&operator).await?;
    let mut lost = 0;
    for round in 0..10 {
        eventually("a connection", async || Ok(unlucky.lock("other orders").await?.release().await?)).await?;
        // Now and then it is the answer to a ping that is lost.
        proxy.drop_next_reply();
        match unlucky.try_lock("orders").await {
            Ok(guard) => guard.expect("nobody holds it").release().await?,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "round {round}: {error}");
                lost += 1;
            }
        }
        let guard = soon("the wait behind it", other.lock("orders")).await??;
        queue_of(&operator, 1).await?;
        guard.release().await?;
    }
    assert!(lost > 0, "no answer to an acquire was lost");
    eventually("a lock", async || Ok(unlucky.lock("orders").await?.release().await?)).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_whose_answer_is_lost_frees_the_key() -> Result<()> {
    let zookeeper = ZooKeeper::start()?;
    let proxy = Proxy::start(zookeeper.address())?;
    let (unlucky, other) = (locker(proxy.address(), LONG).await?, locker(zookeeper.address(), LONG).await?);
    for _ in 0..5 {
        let guard = eventually("a lock", async || Ok(unlucky.lock("orders").await?)).await?;
        proxy.drop_next_reply();
        if let Err(error) = guard.release().await {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        }
        soon("the wait behind it", other.lock("orders")).await??.release().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_given_up_without_a_connection_leaves_nothing_when_there_is_one_again() -> Result<()> {
    let zookeeper = ZooKeeper::start()?;
    let proxy = Proxy::start(zookeeper.address())?;
    let locks = locker(proxy.address(), LONG).await?;
    let operator = operator(&zookeeper).await?;
    proxy.refuse(true);
    proxy.reset_all();
    for _ in 0..5 {
        let tried = tokio::time::timeout(Duration::from_millis(50), locks.try_lock("orders")).await;
        assert!(!matches!(tried, Ok(Ok(_))), "there is no connection: {tried:?}");
    }
    proxy.refuse(false);
    let guard = eventually("a lock", async || Ok(locks.lock("orders").await?)).await?;
    queue_of(&operator, 1).await?;
    guard.release().await?;
    queue_of(&operator, 0).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_queues_are_removed_by_the_server() -> Result<()> {
    let zookeeper = ZooKeeper::start()?;
    let locks = locker(zookeeper.address(), LONG).await?;
    let operator = operator(&zookeeper).await?;
    locks.lock("orders").await?.release().await?;
    eventually("the queue to be removed", async || {
        ensure!(operator.check_stat(QUEUE).await?.is_none(), "it is there");
        Ok(())
    })
    .await?;
    locks.lock("orders").await?.release().await?;
    Ok(())
}
