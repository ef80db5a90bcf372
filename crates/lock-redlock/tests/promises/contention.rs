//! Contenders who split the votes make progress all the same.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use test_cluster::{Direction, proxy::Behaviour};
use tokio::{task::JoinSet, time};

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
