//! Contenders who split the votes make progress all the same.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use futures_util::future::try_join_all;
use lock_redlock::Options;
use test_cluster::{Direction, proxy::Behaviour};
use tokio::{sync::Barrier, task::JoinSet, time};

use crate::set::{KEY, Set, patient};

const CONTENDERS: u64 = 12;
const ROUNDS: u64 = 10;

/// Each server is nearest to other contenders, so that the first votes of all go to different ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn split_votes_do_not_stop_the_crowd() -> Result<()> {
    let set = Set::start(5)?;
    let inside = Arc::new(AtomicU64::new(0));
    let served = Arc::new(AtomicU64::new(0));
    let mut crowd = JoinSet::new();
    for _ in 0..CONTENDERS {
        let (locks, inside, served) =
            (set.locker(patient()).await?, Arc::clone(&inside), Arc::clone(&served));
        crowd.spawn(async move {
            let mut newest = 0;
            for _ in 0..ROUNDS {
                let guard = locks.lock(KEY).await?;
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two are in at once");
                assert!(guard.fencing_token().get() > newest, "tokens grow");
                newest = guard.fencing_token().get();
                tokio::task::yield_now().await;
                inside.fetch_sub(1, Ordering::SeqCst);
                served.fetch_add(1, Ordering::SeqCst);
                guard.release().await?;
            }
            anyhow::Ok(())
        });
    }
    for (index, proxy) in set.proxies.iter().enumerate() {
        let millis = u64::try_from(index)?;
        proxy.set(Direction::ToServer, Behaviour::Delay(Duration::from_millis(millis)));
    }
    let all = time::timeout(Duration::from_secs(50), async {
        while let Some(done) = crowd.join_next().await {
            done??;
        }
        anyhow::Ok(())
    });
    let outcome = all.await;
    assert!(outcome.is_ok(), "{} of {} served", served.load(Ordering::SeqCst), CONTENDERS * ROUNDS);
    outcome??;
    set.eventually_votes(0)
}

/// Even on a busy machine the contest is settled within a fraction of the request timeout.
fn unhurried() -> Options {
    Options::default().with_ttl(Duration::from_secs(60))
}

/// All try once, at the same moment, and none comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_a_crowd_that_tries_once_wins() -> Result<()> {
    const TRIES: usize = 40;
    let set = Set::start(5)?;
    let clients = try_join_all((0..100).map(|_| set.locker(unhurried()))).await?;
    let mut lost = 0;
    for _ in 0..TRIES {
        let start = Arc::new(Barrier::new(clients.len()));
        let mut crowd = JoinSet::new();
        for locks in clients.clone() {
            let start = Arc::clone(&start);
            crowd.spawn(async move {
                start.wait().await;
                locks.try_lock(KEY).await
            });
        }
        let tried = crowd.join_all().await.into_iter().collect::<Result<Vec<_>, _>>()?;
        let mut winners: Vec<_> = tried.into_iter().flatten().collect();
        assert!(winners.len() <= 1, "two hold the key at once");
        match winners.pop() {
            Some(winner) => winner.release().await?,
            None => lost += 1,
        }
        // The next contest begins with a free key.
        set.eventually_votes(0)?;
    }
    assert_eq!(lost, 0, "so many of {TRIES} contests had no winner");
    Ok(())
}
