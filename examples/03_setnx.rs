//! Tutorial 03: many buyers, one order, one Redis.
//!
//! `SET NX PX` lets one of them win: the one whose request reaches the Redis node first. Nobody's clock decides.
//! Like a try-lock: whoever did not get it does not go on. Needs a Redis at `LOCK_TEST_REDIS`.

use std::{env, time::Duration};

use lock_setnx::{Options, SetnxLocker, redis};
use tokio::{sync::Barrier, task::JoinSet, time};

const BUYERS: usize = 50;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = env::var("LOCK_TEST_REDIS").unwrap_or_else(|_| "redis://127.0.0.1:6379".to_owned());
    let options =
        Options::default().with_ttl(Duration::from_secs(1)).with_prefix(examples::prefix("tutorial03"));

    println!("{BUYERS} buyers, each with a connection of its own, want the one order there is.");
    let start = std::sync::Arc::new(Barrier::new(BUYERS));
    let mut buyers = JoinSet::new();
    for number in 0..BUYERS {
        let (url, options, start) = (url.clone(), options.clone(), start.clone());
        buyers.spawn(async move {
            let locks = SetnxLocker::connect(url, options).await?;
            start.wait().await;
            Ok::<_, lock_setnx::Error>((number, locks.try_lock("order").await?, locks))
        });
    }
    let mut winners = Vec::new();
    while let Some(buyer) = buyers.join_next().await {
        let (number, guard, locks) = buyer??;
        winners.extend(guard.map(|guard| (number, guard, locks)));
    }
    anyhow::ensure!(winners.len() == 1, "{} buyers won", winners.len());
    let (number, guard, locks) = winners.remove(0);
    println!("Buyer {number} won: its request reached Redis first. The other {} do not go on.\n", BUYERS - 1);

    let name = locks.name_in_redis("order")?;
    let mut by_hand = redis::Client::open(url)?.get_multiplexed_async_connection().await?;

    println!("Without an owner check, a loser who cleans up with DEL frees the winner's lock:");
    let () = redis::cmd("DEL").arg(&name).query_async(&mut by_hand).await?;
    let second = locks.try_lock("order").await?.expect("it was freed by force");
    println!("  now two have it, tokens {} and {}.", guard.fencing_token(), second.fencing_token());
    let release = guard.release().await;
    println!("  The first winner releases: {}", release.expect_err("it is no longer its own"));
    second.verify().await?;
    println!("  The second still holds it: a release here frees nothing that is another's.\n");
    second.release().await?;

    println!("Without a TTL, a buyer who dies holds the order for ever:");
    let by_a_dead_buyer = format!("{:032x}:0", 0);
    let () = redis::cmd("SET").arg(&name).arg(&by_a_dead_buyer).arg("NX").query_async(&mut by_hand).await?;
    time::sleep(Duration::from_secs(2)).await;
    anyhow::ensure!(locks.try_lock("order").await?.is_none());
    let () = redis::cmd("SET")
        .arg(&name)
        .arg(&by_a_dead_buyer)
        .arg("PX")
        .arg(1000)
        .query_async(&mut by_hand)
        .await?;
    let guard = time::timeout(Duration::from_secs(10), locks.lock("order")).await??;
    println!("  two seconds later it was still taken; with a TTL of one second, the next had it in time.");
    guard.release().await?;

    println!(
        "=> of {BUYERS} buyers exactly one won, by arrival at Redis; owner checks and a TTL keep it right"
    );
    Ok(())
}
