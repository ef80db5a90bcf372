//! Tutorial 06: a lock on five independent Redis servers, of which any two may die.
//!
//! It is held when more than half have agreed. Two are shut down while it is held: nothing changes. With a third gone
//! nobody can know who holds what, and the lock says so. Needs five Redis servers at `LOCK_TEST_REDLOCK`, separated by
//! commas. It **shuts down** three of them if `LOCK_TEST_MAY_KILL` is set, and else says what it leaves out.

use std::{env, time::Duration};

use anyhow::{Context, Result};
use lock_redlock::{ErrorKind, Options, RedlockLocker, redis};
use tokio::time;

const KEY: &str = "orders/42";
const TTL: Duration = Duration::from_secs(3);

async fn connect(urls: &[&str], prefix: &str) -> Result<RedlockLocker> {
    let options = Options::default().with_ttl(TTL).with_prefix(prefix);
    Ok(RedlockLocker::connect(urls.iter().copied(), options).await?)
}

async fn shut_down(url: &str) -> Result<()> {
    let mut server = redis::Client::open(url)?.get_multiplexed_async_connection().await?;
    // A server that shuts down does not answer.
    let _ = redis::cmd("SHUTDOWN").arg("NOSAVE").query_async::<()>(&mut server).await;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let urls = env::var("LOCK_TEST_REDLOCK")
        .context("LOCK_TEST_REDLOCK must name five Redis servers; `cargo xtask tutorial 06` starts some")?;
    let urls: Vec<&str> = urls.split(',').collect();
    anyhow::ensure!(urls.len() == 5, "five servers are needed, {} are named", urls.len());

    let prefix = examples::prefix("tutorial06");
    let (locks, others) = (connect(&urls, &prefix).await?, connect(&urls, &prefix).await?);
    let guard = locks.lock(KEY).await?;
    println!("Held by the agreement of five servers, with token {}.", guard.fencing_token());

    let may_kill = env::var_os("LOCK_TEST_MAY_KILL").is_some();
    if may_kill {
        for url in &urls[..2] {
            shut_down(url).await?;
        }
        println!("Two servers are shut down.");
    }
    guard.verify().await?;
    anyhow::ensure!(others.try_lock(KEY).await?.is_none(), "it is held");
    println!("  It is still held: a majority of the five confirms it, and another client is refused.");
    time::sleep(TTL).await;
    anyhow::ensure!(guard.is_held(), "a majority is enough to renew it");
    println!("  {TTL:?} later it is held still: a majority is enough to renew it, too.");
    let first = guard.fencing_token();
    guard.release().await?;
    let guard = others.lock(KEY).await?;
    println!("  Released, it goes to the other client, with token {}.", guard.fencing_token());
    anyhow::ensure!(first < guard.fencing_token(), "tokens grow");

    if !may_kill {
        guard.release().await?;
        println!("Not run, since these servers are not ours: shutting down two, and then a third.");
        println!("=> five servers agreed who holds it; none was shut down");
        return Ok(());
    }
    shut_down(urls[2]).await?;
    println!("A third server is shut down.");
    let error = locks.try_lock(KEY).await.expect_err("no majority can agree on anything");
    println!("  Who asks for it is told: {error}");
    anyhow::ensure!(error.kind() == ErrorKind::Unavailable, "that is not the same as busy");
    let until = guard.remaining();
    time::timeout(TTL + Duration::from_secs(5), guard.lost()).await?;
    println!("  Who holds it believed for {:.1} s more, and then knew that it is lost.", until.as_secs_f64());

    println!(
        "=> two of five servers died and nothing changed; without a third, the lock said that it cannot know"
    );
    Ok(())
}
