//! The other ways to reach a Redis: TLS, Sentinel, Cluster.
#![cfg(all(feature = "tls", feature = "sentinel", feature = "cluster"))]

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use lock_setnx::{
    ErrorKind, Options, SetnxLocker, Target,
    redis::{
        Client, TlsCertificates,
        sentinel::{SentinelClient, SentinelServerType},
    },
};
use tempfile::TempDir;
use test_cluster::{Redis, Sentinel, eventually, resp::Value};

const KEY: &str = "orders/42";
const PATIENCE: Duration = Duration::from_secs(20);

/// An authority and a certificate for 127.0.0.1 that it issued.
struct Certificates {
    _directory: TempDir,
    authority: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Certificates {
    fn issue() -> Result<Self> {
        let authority_key = rcgen::KeyPair::generate()?;
        let mut parameters = rcgen::CertificateParams::new(Vec::new())?;
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority_certificate = parameters.self_signed(&authority_key)?;
        let issuer = rcgen::Issuer::new(parameters, authority_key);
        let server_key = rcgen::KeyPair::generate()?;
        let server =
            rcgen::CertificateParams::new(["127.0.0.1".to_owned()])?.signed_by(&server_key, &issuer)?;

        let directory = tempfile::tempdir()?;
        let write = |name: &str, text: String| -> Result<PathBuf> {
            let path = directory.path().join(name);
            fs::write(&path, text)?;
            Ok(path)
        };
        Ok(Self {
            authority: write("authority.pem", authority_certificate.pem())?,
            certificate: write("server.pem", server.pem())?,
            key: write("server.key", server_key.serialize_pem())?,
            _directory: directory,
        })
    }

    fn redis(&self) -> Result<Redis> {
        Redis::builder()
            .tls(&self.certificate, &self.key, &self.authority)
            .config("tls-auth-clients", "no")
            .start()
    }

    fn client(&self, redis: &Redis) -> Result<Client> {
        let root_cert = Some(fs::read(&self.authority)?);
        Ok(Client::build_with_tls(redis.url(), TlsCertificates { client_tls: None, root_cert })?)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_an_authority_of_ones_own_locks_and_tells_waiters() -> Result<()> {
    let certificates = Certificates::issue()?;
    let redis = certificates.redis()?;
    // A lease so long that only a notice can end the wait in time.
    let options = Options::default().with_ttl(Duration::from_secs(3600));
    let locks = SetnxLocker::connect(certificates.client(&redis)?, options.clone()).await?;
    let others = SetnxLocker::connect(certificates.client(&redis)?, options).await?;
    contend(&redis, &locks, others).await
}

#[tokio::test]
async fn tls_mismatches_are_told() -> Result<()> {
    let certificates = Certificates::issue()?;
    let (with_tls, plain) = (certificates.redis()?, Redis::start()?);
    for (url, kind, words) in [
        (with_tls.url(), ErrorKind::Unavailable, "the TLS handshake failed"),
        (format!("rediss://{}", plain.address()), ErrorKind::Unavailable, "does it speak Redis over TLS?"),
        (format!("redis://{}", with_tls.address()), ErrorKind::Unavailable, "does the server want TLS"),
    ] {
        let error = SetnxLocker::connect(url.as_str(), Options::default()).await.expect_err(words);
        assert_eq!(error.kind(), kind, "{url}: {error:?}");
        assert!(error.to_string().contains(words), "{url}: {error:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinel_leads_to_the_primary_and_to_the_next_one() -> Result<()> {
    let primary = Redis::start()?;
    let sentinel = Sentinel::start(&primary, "locks")?;
    let client = || SentinelClient::build(vec![sentinel.url()], "locks", None, SentinelServerType::Master);
    let options = Options::default().with_ttl(Duration::from_secs(3));
    let locks = SetnxLocker::connect(Target::sentinel(client()?), options.clone()).await?;
    let others = SetnxLocker::connect(Target::sentinel(client()?), options).await?;
    contend(&primary, &locks, others).await?;

    let replica = Redis::builder().replica_of(primary.port()).start()?;
    eventually("the sentinel to know the replica", PATIENCE, || {
        let replicas = sentinel.command(&["SENTINEL", "REPLICAS", "locks"])?;
        ensure!(texts(&replicas).iter().any(|text| text == "master-link-status"), "{replicas:?}");
        let synced = replica.command(&["INFO", "replication"])?.text();
        ensure!(synced.contains("master_link_status:up"), "{synced}");
        Ok(())
    })?;
    let guard = locks.lock(KEY).await?;
    primary.kill()?;
    let failover = || {
        let role = replica.command(&["INFO", "replication"])?.text();
        ensure!(role.contains("role:master"), "{role}");
        ensure!(sentinel.master_port("locks")? == replica.port(), "the sentinel names the old one");
        Ok(())
    };
    eventually("the failover", PATIENCE, failover)?;
    drop(guard);
    let taken = tokio::time::timeout(PATIENCE, async {
        loop {
            match locks.try_lock(KEY).await {
                Ok(Some(guard)) => return guard,
                // The old hold may have been replicated, and then lasts until its lease ends.
                // why: a bounded poll of a condition
                Ok(None) | Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    });
    taken.await.context("no lock on the new primary")?.release().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_keeps_each_lock_and_its_counter_together() -> Result<()> {
    let node = Redis::builder().cluster_mode().start()?;
    let options = Options::default().with_ttl(Duration::from_secs(3600));
    let connect = async || SetnxLocker::connect(Target::cluster_urls(&[&node.url()])?, options.clone()).await;
    let (locks, others) = (connect().await?, connect().await?);
    // Many keys, so that many slots: a lock and a counter in different slots would be refused.
    for number in 0..100 {
        let guard = locks.lock(&format!("orders/{number}{{x}}")).await?;
        guard.verify().await?;
        guard.release().await?;
    }
    contend(&node, &locks, others).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_on_another_node_is_refused_to_a_client_of_one_node_and_found_by_one_of_the_cluster()
-> Result<()> {
    let [one, two] = [Redis::builder().cluster_mode().start()?, Redis::builder().cluster_mode().start()?];
    // The second gives its slots up, and joins the first.
    two.command(&["CLUSTER", "RESET", "HARD"])?;
    two.command(&["CLUSTER", "MEET", "127.0.0.1", &one.port().to_string()])?;
    let id = texts(&two.command(&["CLUSTER", "MYID"])?).remove(0);
    eventually("nodes that know each other and serve", PATIENCE, || {
        for node in [&one, &two] {
            let nodes = texts(&node.command(&["CLUSTER", "NODES"])?).join("\n");
            ensure!(nodes.lines().filter(|line| line.contains("connected")).count() == 2, "{nodes}");
            ensure!(nodes.contains("0-16383") && nodes.contains(&id), "{nodes}");
            let info = node.command(&["CLUSTER", "INFO"])?.text();
            ensure!(info.contains("cluster_state:ok"), "{info}");
        }
        Ok(())
    })?;
    let of_one = SetnxLocker::connect(Target::url(&one.url())?, Options::default()).await?;
    let of_both = SetnxLocker::connect(Target::cluster_urls(&[&one.url()])?, Options::default()).await?;
    of_one.lock("a").await?.release().await?;

    // A slot that is moved must have no keys: here the counter of tokens.
    let keys = texts(&one.command(&["KEYS", "lock:*"])?);
    let slot = match one.command(&["CLUSTER", "KEYSLOT", &keys[0]])? {
        Value::Int(slot) => slot.to_string(),
        other => anyhow::bail!("a slot is a number, not {other:?}"),
    };
    one.command(&["FLUSHALL"])?;
    for node in [&two, &one] {
        node.command(&["CLUSTER", "SETSLOT", &slot, "NODE", &id])?;
    }
    let refused = of_one.try_lock("a").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::UnsafeConfig, "{refused:?}");
    assert!(refused.to_string().contains("Redis Cluster"), "{refused}");
    of_one.lock("b").await?.release().await?;
    let guard = tokio::time::timeout(PATIENCE, of_both.lock("a")).await??;
    assert!(!texts(&two.command(&["KEYS", "lock:*:a"])?).is_empty(), "the other node has it");
    Ok(guard.release().await?)
}

/// Holds, is refused, waits, is told: the whole of a lock.
async fn contend(redis: &Redis, locks: &SetnxLocker, others: SetnxLocker) -> Result<()> {
    let guard = locks.lock(KEY).await?;
    guard.verify().await?;
    ensure!(others.try_lock(KEY).await?.is_none(), "it is held");
    let waiting = tokio::spawn(async move { others.lock(KEY).await });
    eventually("a subscription", PATIENCE, || {
        let channels = redis.command(&["PUBSUB", "CHANNELS", "lock:*"])?;
        ensure!(!texts(&channels).is_empty(), "none");
        Ok(())
    })?;
    let first = guard.fencing_token();
    guard.release().await?;
    let second = tokio::time::timeout(PATIENCE, waiting).await???;
    ensure!(first < second.fencing_token());
    second.release().await?;
    Ok(())
}

/// All texts in a reply, however deep.
fn texts(reply: &Value) -> Vec<String> {
    match reply {
        Value::Array(replies) => replies.iter().flat_map(texts).collect(),
        other => vec![other.text()],
    }
}
