//! Sets of servers that cannot work are refused, with the reason.

use lock_core::backend::Effect;
use std::time::Duration;

use anyhow::Result;
use lock_redlock::{ErrorKind, Options, RedlockLocker, Target};
use test_cluster::{Proxy, Redis};

use crate::set::{KEY, NAME, Set, patient};

async fn refused(urls: Vec<String>, options: Options, kind: ErrorKind, reason: &str) {
    let error = RedlockLocker::connect(urls, options).await.expect_err(reason);
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(reason), "{error}");
    assert_eq!(error.effect(), Effect::None, "{error:?}");
}

#[tokio::test]
async fn too_few_servers_and_even_numbers_are_refused() {
    let urls = |count: u16| (1..=count).map(|port| format!("redis://127.0.0.1:{port}")).collect();
    for (count, reason) in
        [(0, "at least 3"), (1, "at least 3"), (2, "at least 3"), (4, "odd number"), (6, "odd number")]
    {
        refused(urls(count), Options::default(), ErrorKind::InvalidInput, reason).await;
    }
}

#[tokio::test]
async fn one_server_has_one_vote_whatever_it_is_called() -> Result<()> {
    let set = Set::start(3)?;
    let mut urls = set.urls();
    urls[2] = urls[0].clone();
    refused(urls.clone(), patient(), ErrorKind::InvalidInput, "given twice").await;

    urls[2] = set.servers[0].url();
    refused(urls.clone(), patient(), ErrorKind::InvalidInput, "one and the same server").await;

    let another_way = Proxy::start(set.servers[1].address())?;
    urls[2] = format!("redis://{}", another_way.address());
    refused(urls, patient(), ErrorKind::InvalidInput, "one and the same server").await;
    Ok(())
}

/// A server that was down when the others were connected to turns out to be one of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_double_that_comes_up_later_gets_no_vote() -> Result<()> {
    let set = Set::start(3)?;
    drop(set.locker(patient()).await?);
    set.proxies[2].refuse(true);
    let locks = set.locker(patient()).await?;
    set.proxies[2].retarget(set.servers[0].address());
    set.proxies[2].refuse(false);
    for _ in 0..10 {
        locks.lock("a").await?.release().await?;
    }
    set.servers[1].kill()?;
    let error = locks.try_lock("a").await.expect_err("one server with two addresses is no majority of three");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    Ok(())
}

#[tokio::test]
async fn a_server_that_may_evict_locks_is_refused() -> Result<()> {
    let set = Set::start(3)?;
    set.servers[1].command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"])?;
    refused(set.urls(), patient(), ErrorKind::UnsafeConfig, "allkeys-lru").await;
    let accept = |url: &String| Ok(Target::url(url)?.accepting_eviction());
    let targets = set.urls().iter().map(accept).collect::<lock_redlock::Result<Vec<_>>>()?;
    RedlockLocker::connect(targets, patient()).await?.lock("a").await?.release().await?;
    Ok(())
}

#[tokio::test]
async fn a_server_that_does_not_tell_its_run_is_refused() -> Result<()> {
    let set = Set::start(3)?;
    set.servers[1].command(&["ACL", "SETUSER", "blind", "on", ">secret", "~*", "&*", "+@all", "-info"])?;
    let mut urls = set.urls();
    urls[1] = urls[1].replace("redis://", "redis://blind:secret@");
    let targets = urls.iter().map(|url| Ok(Target::url(url)?.accepting_eviction()));
    let targets = targets.collect::<lock_redlock::Result<Vec<_>>>()?;
    let error = RedlockLocker::connect(targets, patient()).await.expect_err("a restart would not be noticed");
    assert_eq!(error.kind(), ErrorKind::UnsafeConfig, "{error}");
    assert!(error.to_string().contains("run id"), "{error}");
    Ok(())
}

#[tokio::test]
async fn without_a_majority_nothing_is_connected_to() -> Result<()> {
    let set = Set::start(3)?;
    set.locker(patient()).await?;
    set.servers[0].kill()?;
    set.locker(patient()).await?.lock("a").await?.release().await?;
    set.servers[1].kill()?;
    refused(set.urls(), patient(), ErrorKind::Unavailable, "of 3 servers 2 did not answer").await;
    Ok(())
}

#[tokio::test]
async fn passwords_are_not_repeated() -> Result<()> {
    let secured = || Redis::builder().password("secret").start();
    let servers = [secured()?, secured()?, secured()?];
    let urls: Vec<_> = servers.iter().map(Redis::url).collect();
    let options = || Options::default().with_ttl(Duration::from_secs(60));
    let locks = RedlockLocker::connect(&urls, options()).await?;
    assert!(!format!("{locks:?}").contains("secret"));
    let wrong = urls.iter().map(|url| url.replace("secret", "guess"));
    let error = RedlockLocker::connect(wrong, options()).await.expect_err("the password is wrong");
    assert_eq!(error.kind(), ErrorKind::Auth, "{error}");
    assert!(!format!("{error} {error:?}").contains("guess"));
    Ok(())
}

/// Another program uses the name, and not for a lock: each server says so when it is asked for its vote.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_program_keeps_under_the_name_is_reported_with_its_server() -> Result<()> {
    let set = Set::start(3)?;
    let locks = set.locker(patient()).await?;
    for (index, command) in [["SET", NAME, "a value"], ["LPUSH", NAME, "a list"]].iter().enumerate() {
        set.servers[index].command(command)?;
        if index == 0 {
            locks.try_lock(KEY).await?.expect("two of three vote").release().await?;
        }
    }
    let error = locks.try_lock(KEY).await.expect_err("two of three have something else there");
    assert_eq!(error.kind(), ErrorKind::UnsafeConfig, "{error}");
    let shown = error.to_string();
    assert!(shown.contains("of 3 servers 2 refuse") && shown.contains("another program"), "{shown}");
    assert!(set.urls()[..2].iter().any(|url| shown.contains(url.trim_start_matches("redis://"))), "{shown}");
    Ok(())
}

/// It answers, so nobody should look for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_told_apart_from_silence() -> Result<()> {
    let set = Set::start(3)?;
    let locks = set.locker(patient()).await?;
    set.servers[0].command(&["SET", NAME, "a value"])?;
    set.servers[1].kill()?;
    let error = locks.try_lock(KEY).await.expect_err("one of three votes");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("1 did not answer"), "{error}");
    assert!(error.to_string().contains("another program"), "{error}");
    Ok(())
}

#[test]
fn a_locker_is_made_within_a_runtime() {
    let urls = (1..=3).map(|port| format!("redis://127.0.0.1:{port}"));
    let error = futures_util::FutureExt::now_or_never(RedlockLocker::connect(urls, patient()));
    assert_eq!(error.expect("nothing to wait for").expect_err("there is none").kind(), ErrorKind::Closed);
}
