//! What operators do: deletes, passwords, memory, failover.

use std::{thread, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use test_cluster::{Direction, Proxy, Redis, eventually};

use super::{Etcd, Expected, Q, R, RQ, Redlock, Row, Setnx, Zk};
use crate::{
    agent::Command,
    event::{Answer, How, Invariant},
    lab::{Boot, LOCK, Lab, Special},
    slow_disk::SlowDisk,
};

const BELIEF: &[Invariant] = &[Invariant::Belief];
const DELETED: &str =
    "what an operator deletes is given to the next at once, before the holder's next renewal";

pub(super) const ROWS: &[Row] = &[
    Row::new(31, "memory full", RQ, memory_full).quick(R),
    Row::new(32, "eviction turned on", RQ, eviction),
    Row::new(33, "failover to a replica that lags", R, failover).boot(Boot::Own).overlapping().limits(&[(
        Setnx,
        Expected::Limit(BELIEF, "replication is asynchronous: a promoted replica may lack the hold"),
    )]),
    Row::new(34, "server turned replica, scripts flushed, data loading", RQ, read_only),
    Row::new(21, "disks of a minority stuck", Q, slow_disks).overlapping(),
    Row::new(53, "one server named twice", Q, named_twice),
    Row::new(38, "hold deleted by an operator", &[Setnx, Redlock, Etcd, Zk], deleted)
        .overlapping()
        .quick(&[Redlock])
        .limits(&[
            (Setnx, Expected::Limit(BELIEF, DELETED)),
            // A deletion server by server may also hit a vote of the next holder.
            (Redlock, Expected::Limit(&[Invariant::Belief, Invariant::Owner], DELETED)),
        ]),
];

/// Sends a command to every Redis.
pub(super) fn on_all(lab: &Lab<'_>, command: &[&str]) -> Result<()> {
    (0..lab.servers.count()).try_for_each(|index| lab.servers.redis(index).command(command).map(drop))
}

/// The disks of as many servers as the majority can do without take two seconds to sync, and Redis waits for them.
fn slow_disks(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let holder = lab.agent()?;
    holder.hold("kept")?;
    let minority = lab.servers.count() - lab.servers.majority();
    let fault = lab.fault(format!("syncs of {minority} servers take two seconds"));
    let disks = (0..minority)
        .map(|index| SlowDisk::begin(lab.servers.pid(index).context("it runs")?, Duration::from_secs(2)))
        .collect::<Result<Vec<_>>>()?;
    let proofs = disks.iter().map(|disk| disk.wait_until_stuck("redis")).collect::<Result<Vec<_>>>()?;
    fault.fired(proofs.join("; "));
    lab.cycles("rounds of the majority", 3)?;
    lab.let_pass(lab.ttl * 2);
    disks.into_iter().try_for_each(SlowDisk::end)?;
    fault.end();
    lab.expect(Invariant::Progress, holder.is_held("kept")?, "a majority with disks that work renews a hold");
    holder.release("kept")?.ok();
    lab.finish(Some(&load))
}

/// One server would have two votes.
fn named_twice(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let client = lab.agent()?;
    let fault = lab.fault("two of three addresses lead to one server");
    let addresses = lab.servers.addresses();
    let twice = [addresses[0], addresses[1], client.process.proxies[0].address()];
    let urls = twice.map(|address| format!("redis://{address}")).join(",");
    let refused = client.ask(Command::Connect { urls: Some(urls), keep: false })?;
    fault.fired(format!("the client is answered {refused:?}"));
    lab.expect(
        Invariant::Errors,
        matches!(&refused, Err((kind, _)) if kind == "InvalidInput"),
        format!("one server under two names is InvalidInput: {refused:?}"),
    );
    fault.end();
    lab.finish(Some(&load))
}

/// Redis has no memory for more keys: acquires fail, releases and renewals do not.
fn memory_full(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let holder = lab.agent()?;
    holder.hold("kept")?;
    let fault = lab.fault("maxmemory is below what is used");
    let set = |value: &str| on_all(lab, &["CONFIG", "SET", "maxmemory", value]);
    set("1")?;
    let refused = holder.acquire("other", How::Try)?;
    fault.fired(format!("an acquire answers {refused:?}"));
    lab.expect(
        Invariant::Errors,
        matches!(&refused, Err((kind, _)) if kind == "Unavailable"),
        format!("an acquire without memory is Unavailable: {refused:?}"),
    );
    lab.let_pass(lab.ttl * 2);
    lab.expect(Invariant::Progress, holder.is_held("kept")?, "a holder is renewed without memory");
    let released = holder.release("kept")?;
    lab.expect(Invariant::Owner, released.is_ok(), format!("a release works without memory: {released:?}"));
    set("0")?;
    fault.end();
    lab.finish(Some(&load))
}

/// A server that may evict locks is refused at connect.
fn eviction(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let client = lab.agent()?;
    let fault = lab.fault("the eviction policy is allkeys-random");
    let set = |value: &str| on_all(lab, &["CONFIG", "SET", "maxmemory-policy", value]);
    set("allkeys-random")?;
    let refused = client.ask(Command::Connect { urls: None, keep: false })?;
    fault.fired(format!("a new client is answered {refused:?}"));
    lab.expect(
        Invariant::Errors,
        matches!(&refused, Err((kind, _)) if kind == "UnsafeConfig"),
        format!("a server that may evict locks is refused: {refused:?}"),
    );
    set("noeviction")?;
    fault.end();
    lab.finish(Some(&load))
}

/// The master dies before its replica has the hold, and the replica takes over.
fn failover(lab: &mut Lab<'_>) -> Result<()> {
    let master = Redis::start()?;
    let link = Proxy::start(master.address())?;
    let replica = Redis::builder().replica_of(link.port()).start()?;
    let of = |redis: &Redis| Special { servers: Some(vec![redis.address()]), ..Special::default() };
    let load = lab.load_with(|| of(&master))?;
    let holder = lab.special_agent(of(&master))?;
    link.set(Direction::ToClient, test_cluster::Behaviour::Stall);
    holder.hold(LOCK)?;
    let fault = lab.fault("the master is killed, and a replica that lags is promoted");
    link.reset_all();
    link.refuse(true);
    master.kill()?;
    replica.command(&["REPLICAOF", "NO", "ONE"])?;
    for agent in load.agents.iter().chain([&holder]) {
        agent.process.proxies[0].retarget(replica.address());
        agent.process.proxies[0].reset_all();
    }
    let role = replica.command(&["INFO", "replication"])?.text();
    ensure!(role.contains("role:master"), "the replica was not promoted: {role}");
    fault.fired(format!("port {} is the master now", replica.port()));
    fault.end();
    let lost = eventually("the loss", lab.ttl, || {
        ensure!(!holder.is_held(LOCK)?, "it is held");
        Ok(())
    });
    lab.expect(Invariant::Loss, lost.is_ok(), "a holder is told by its next renewal");
    let released = holder.release(LOCK)?;
    lab.expect(
        Invariant::Owner,
        matches!(&released, Err((kind, _)) if kind == "Lost"),
        format!("a release says so: {released:?}"),
    );
    lab.finish_with(Some(&load), || of(&replica))
}

/// The server refuses writes for a moment, as a replica does, and has forgotten its scripts.
fn read_only(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let client = lab.agent()?;
    let fault = lab.fault("scripts are flushed");
    on_all(lab, &["SCRIPT", "FLUSH"])?;
    fault.fired("the servers say OK");
    fault.end();
    let taken = client.acquire("other", How::Try)?;
    lab.expect(Invariant::Errors, taken.is_ok(), format!("scripts are sent again: {taken:?}"));
    client.release("other")?.ok();
    lab.cycles("rounds after the flush", 3)?;
    let fault = lab.fault("the server is a replica of nothing");
    on_all(lab, &["REPLICAOF", "127.0.0.1", "1"])?;
    let refused = client.acquire("other", How::Try)?;
    fault.fired(format!("an acquire answers {refused:?}"));
    lab.expect(
        Invariant::Errors,
        matches!(&refused, Err((kind, _)) if kind == "Unavailable"),
        format!("a replica is Unavailable: {refused:?}"),
    );
    on_all(lab, &["REPLICAOF", "NO", "ONE"])?;
    fault.end();
    loading(lab)?;
    lab.finish(Some(&load))
}

/// Servers of their own come back, and take seconds to load their data.
fn loading(lab: &Lab<'_>) -> Result<()> {
    const KEYS: usize = 100;
    let count = if lab.backend == Redlock { 3 } else { 1 };
    let slow = || {
        let builder = Redis::builder().config("key-load-delay", "20000");
        // It answers in between, after so many bytes of its file.
        builder.config("rdbcompression", "no").config("loading-process-events-interval-bytes", "1024").start()
    };
    let servers = (0..count).map(|_| slow()).collect::<Result<Vec<_>>>()?;
    let addresses = Some(servers.iter().map(Redis::address).collect());
    let client = lab.special_agent(Special { servers: addresses, ..Special::default() })?;
    client.hold("other")?;
    client.release("other")?.ok();
    for server in &servers {
        for key in 0..KEYS {
            server.command(&["SET", &format!("filler{key}"), &"x".repeat(2_048)])?;
        }
        server.command(&["SAVE"])?;
        server.kill()?;
    }
    let fault = lab.fault("servers load their data");
    thread::scope(|scope| {
        let restarts: Vec<_> = servers.iter().map(|server| scope.spawn(|| server.restart())).collect();
        let refused = eventually("the refusal of a server that loads", lab.ttl * 4, || {
            match client.acquire("other", How::Try)? {
                Err((kind, message)) if message.contains("loading") => Ok((kind, message)),
                other => bail!("an acquire answers {other:?}"),
            }
        });
        restarts.into_iter().try_for_each(|restart| restart.join().expect("no panic"))?;
        let (kind, message) = refused?;
        lab.expect(Invariant::Errors, kind == "Unavailable", format!("it is Unavailable: {kind}: {message}"));
        fault.fired(message);
        fault.end();
        anyhow::Ok(())
    })?;
    // A server that comes back has no vote before all leases of before are over.
    let taken = eventually("the lock", lab.recovery(), || {
        let taken = client.acquire("other", How::Try)?;
        ensure!(matches!(taken, Ok(Answer::Acquired { .. })), "{taken:?}");
        Ok(())
    });
    lab.expect(Invariant::Progress, taken.is_ok(), format!("when all is loaded it goes on: {taken:?}"));
    client.release("other")?.ok();
    Ok(())
}

/// An operator deletes what holds a lock.
fn deleted(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let holder = lab.agent()?;
    // Where the holder is told only by its next renewal, the next holder comes before.
    let lock = if lab.backend.watches_its_entry() { "kept" } else { LOCK };
    holder.hold(lock)?;
    let fault = lab.fault("an operator deletes the hold");
    lab.servers.delete(&lab.prefix, lock)?;
    let at = crate::event::now();
    fault.fired(format!("what held {lock:?} is gone"));
    let lost = eventually("the loss", lab.ttl + Duration::from_millis(200), || {
        ensure!(!holder.is_held(lock)?, "it is held");
        Ok(())
    });
    let took = Duration::from_nanos(crate::event::now() - at);
    let bound =
        if lab.backend.watches_its_entry() { Duration::from_secs(1) } else { lab.ttl / 3 + lab.ttl / 6 };
    lab.expect(
        Invariant::Loss,
        lost.is_ok() && took <= bound + Duration::from_millis(100),
        format!("the holder is told within {bound:?}: {took:?}"),
    );
    fault.end();
    let released = holder.release(lock)?;
    lab.expect(
        Invariant::Owner,
        matches!(&released, Err((kind, _)) if kind == "Lost"),
        format!("a release says so: {released:?}"),
    );
    let again = holder.acquire(lock, How::Wait)?;
    lab.expect(
        Invariant::Progress,
        matches!(again, Ok(Answer::Acquired { .. })),
        "and the lock can be had again",
    );
    holder.release(lock)?.ok();
    lab.finish(Some(&load))
}
