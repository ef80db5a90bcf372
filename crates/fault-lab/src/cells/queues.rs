//! What befalls the queues of etcd and ZooKeeper: entries, sessions and watches that end when nobody expects it.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rand::RngExt;
use test_cluster::{Behaviour, Direction, ZooKeeper};
use tokio::time;
use zookeeper_client::{Acls, Client, CreateMode, Error};

use super::{EZ, Etcd, Row, Z};
use crate::{
    agent::{Command, Pace},
    event::{Answer, How, Invariant, What},
    lab::{Agent, Boot, Kind, Lab, PATIENCE, Special, at_zk, tap::Tap, zk_queue},
};

pub(super) const ROWS: &[Row] = &[
    Row::new(37, "a waiter's session ended", EZ, waiter_ended),
    Row::new(39, "predecessor gone before it is watched, watches that break", EZ, watches),
    Row::new(40, "empty queues removed by an operator", Z, queues_removed),
    Row::new(41, "numbers of a queue near their end", Z, numbers_end).boot(Boot::Own),
];

/// An operator ends the session of one who waits, while another holds and another waits behind.
fn waiter_ended(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let tap = Tap::start(lab.servers.addresses()[0])?;
    let servers = Some(vec![tap.address]);
    let holder = lab.agent()?;
    let waiter = match lab.backend {
        Etcd => lab.agent()?,
        _ => lab.special_agent(Special { servers, ..Special::default() })?,
    };
    let next = lab.agent()?;
    for round in 0..2 {
        let lock = format!("other {round}");
        holder.hold(&lock)?;
        let waiting = waiter.wait_for(&lock)?;
        entries(lab, &lock, 2)?;
        let behind = next.wait_for(&lock)?;
        let queue = entries(lab, &lock, 3)?;
        let fault = lab.fault("the session of a waiter is ended at the server");
        let proof = match &lab.servers.kind {
            Kind::Etcd(cluster) => {
                let server = &cluster[cluster.leader()?];
                let lease = server.lease_of(&queue[1])?;
                server.revoke(lease)?;
                format!("lease {lease:x} is revoked")
            }
            _ => format!("{} sessions are closed", tap.end_sessions()?),
        };
        test_cluster::eventually("the entry to be gone", PATIENCE, || {
            ensure!(!lab.servers.entries(&lab.prefix, &lock)?.contains(&queue[1]), "it is there");
            Ok(())
        })?;
        fault.fired(format!("{proof}, and the entry is gone"));
        fault.end();
        entries(lab, &lock, 3)?;
        lab.expect(Invariant::Owner, holder.is_held(&lock)?, "the holder goes on");
        holder.release(&lock)?.ok();
        let served = behind.wait_for(lab.recovery())?;
        lab.expect(Invariant::Progress, served.is_ok(), format!("the next in line is served: {served:?}"));
        next.release(&lock)?.ok();
        let served = waiting.wait_for(lab.recovery())?;
        let holds = matches!(served, Ok(Answer::Acquired { .. }));
        lab.expect(Invariant::Progress, holds, format!("who queued again is served after it: {served:?}"));
        waiter.release(&lock)?.ok();
    }
    lab.finish(Some(&load))
}

/// Waits until the queue of `lock` has so many entries, and returns them.
fn entries(lab: &Lab<'_>, lock: &str, count: usize) -> Result<Vec<String>> {
    test_cluster::eventually("a queue", PATIENCE, || {
        let entries = lab.servers.entries(&lab.prefix, lock)?;
        ensure!(entries.len() == count, "{} entries, and {count} are expected", entries.len());
        Ok(entries)
    })
}

/// A holder lets go at any time between the look of a waiter and its watch, and watches are broken while it waits.
fn watches(lab: &mut Lab<'_>) -> Result<()> {
    const ROUNDS: u64 = 15;
    let load = lab.load()?;
    let (holder, waiter) = (lab.agent()?, lab.agent()?);
    waiter.hold("before")?;
    waiter.release("before")?.ok();
    let fault = lab.fault("a predecessor goes between the look of a waiter and its watch");
    waiter.network(Direction::ToClient, Behaviour::Delay(Duration::from_millis(20)));
    let served = |waiting: crate::lab::agents::Pending| -> Result<()> {
        let mut outcome = waiting.wait_for(lab.recovery() + lab.ttl)?;
        // Its entry was there, but not the answer: that is told, undone, and may be tried again.
        if matches!(&outcome, Err((kind, _)) if kind == "Unavailable") {
            outcome = waiter.acquire("other", How::Wait)?;
        }
        let holds = matches!(outcome, Ok(Answer::Acquired { .. }));
        lab.expect(Invariant::Progress, holds, format!("a waiter misses no notice: {outcome:?}"));
        waiter.release("other")?.ok();
        Ok(())
    };
    for round in 0..ROUNDS {
        holder.hold("other")?;
        let waiting = waiter.wait_for("other")?;
        let phase = lab.dice.lock().random_range(0..80);
        lab.let_pass(Duration::from_millis(phase));
        // By its holder, or by an operator.
        if round % 3 == 0 {
            lab.servers.delete(&lab.prefix, "other")?;
        }
        holder.release("other")?.ok();
        served(waiting)?;
    }
    fault.fired(format!("{ROUNDS} predecessors went within 80 ms of the waiters' coming"));
    fault.end();
    waiter.network(Direction::ToClient, Behaviour::Pass);
    for _ in 0..3 {
        holder.hold("other")?;
        let waiting = waiter.wait_for("other")?;
        entries(lab, "other", 2)?;
        let fault = lab.fault("connections with watches break, and history is compacted");
        let before = waiter.process.proxies.iter().map(|proxy| proxy.connections()).sum::<u64>();
        let compacted = compact(lab)?;
        waiter.process.proxies.iter().for_each(|proxy| {
            proxy.refuse(true);
            proxy.reset_all();
        });
        holder.release("other")?.ok();
        waiter.process.proxies.iter().for_each(|proxy| proxy.refuse(false));
        served(waiting)?;
        let after = waiter.process.proxies.iter().map(|proxy| proxy.connections()).sum::<u64>();
        ensure!(after > before, "no connection was broken");
        fault.fired(format!("{} connections were made anew{compacted}", after - before));
        fault.end();
    }
    lab.finish(Some(&load))
}

/// Has etcd forget what was before now.
fn compact(lab: &Lab<'_>) -> Result<String> {
    let Kind::Etcd(cluster) = &lab.servers.kind else { return Ok(String::new()) };
    let server = &cluster[cluster.leader()?];
    let status: serde_json::Value = serde_json::from_str(&server.call("/v3/maintenance/status", "{}")?)?;
    let revision = status["header"]["revision"].as_str().context("etcd tells no revision")?.to_owned();
    server.call("/v3/kv/compaction", &format!(r#"{{"revision": "{revision}", "physical": true}}"#))?;
    Ok(format!(", and all before revision {revision} is forgotten"))
}

/// An operator removes each queue as soon as it is empty, so that its numbers begin anew.
fn queues_removed(lab: &mut Lab<'_>) -> Result<()> {
    const REMOVED: usize = 20;
    let load = lab.load()?;
    let pace = Pace { how: How::Wait, hold: 1, jitter: 5, rest: 15, rounds: u64::MAX };
    // Under another name, so that the queue is empty now and then.
    let others = (0..2).map(|_| lab.agent()).collect::<Result<Vec<_>>>()?;
    for other in &others {
        let lock = "sparse".to_owned();
        let begun = other.ask(Command::Contend { lock, tasks: 1, pace })?;
        ensure!(begun.is_ok(), "a client did not begin: {begun:?}");
    }
    let fault = lab.fault("the queue is removed whenever it is empty");
    let Kind::Zk(ensemble) = &lab.servers.kind else { bail!("a cell for ZooKeeper runs on something else") };
    let queue = zk_queue(&lab.prefix, "sparse")?;
    let server = ensemble.node(ensemble.leader()?).address();
    at_zk(server, async |client| remove(client, &queue, REMOVED).await)?;
    fault.fired(format!("it was removed {REMOVED} times"));
    fault.end();
    for other in &others {
        let ended = other.ask(Command::Cease)?;
        ensure!(ended.is_ok(), "a client did not end: {ended:?}");
    }
    lab.finish(Some(&load))
}

/// A queue that was never empty has had as many entries as there are numbers.
fn numbers_end(lab: &mut Lab<'_>) -> Result<()> {
    let server = ZooKeeper::start()?;
    let own = || Special { servers: Some(vec![server.address()]), ..Special::default() };
    let queue = zk_queue(&lab.prefix, "worn")?;
    // Somebody else's node, so that the queue is not removed.
    let kept = format!("{queue}/kept");
    at_zk(server.address(), async |client| {
        Ok(client.mkdir(&kept, &CreateMode::Persistent.with_acls(Acls::anyone_all())).await?)
    })?;
    // Before there are clients: what is done meanwhile is forgotten.
    server.restart_numbered(&queue, i32::MAX - 20)?;
    let load = lab.load_with(own)?;
    let fault = lab.fault("the numbers of a queue come to their end");
    let from = lab.history.len();
    let others = (0..3).map(|_| contender(lab, own())).collect::<Result<Vec<_>>>()?;
    let mut refused = 0;
    lab.history.wait("those who find no number left", from, PATIENCE, |event| match &event.what {
        What::Failed { message, .. } if message.contains("the numbers of this queue") => {
            refused += 1;
            (refused == 20).then_some(())
        }
        _ => None,
    })?;
    fault.fired(format!("{refused} acquires were refused"));
    let from = lab.history.len();
    at_zk(server.address(), async |client| {
        client.delete(&kept, None).await?;
        remove(client, &queue, 1).await
    })?;
    fault.end();
    let served = lab.history.wait("the queue to serve again", from, lab.recovery(), |event| {
        let is_other = others.iter().any(|other| other.number == event.agent);
        (is_other && matches!(event.what, What::Acquired { .. })).then_some(())
    });
    lab.expect(Invariant::Progress, served.is_ok(), "an empty queue is numbered anew");
    for other in &others {
        let ended = other.ask(Command::Cease)?;
        ensure!(ended.is_ok(), "a client did not end: {ended:?}");
    }
    lab.finish_with(Some(&load), own)
}

/// Removes a queue so many times, each time when it is empty.
async fn remove(client: &Client, queue: &str, times: usize) -> Result<()> {
    let mut removed = 0;
    while removed < times {
        match client.delete(queue, None).await {
            Ok(()) => removed += 1,
            // why: a bounded poll of a condition
            Err(Error::NotEmpty | Error::NoNode) => time::sleep(Duration::from_millis(1)).await,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn contender(lab: &Lab<'_>, special: Special) -> Result<Agent> {
    let agent = lab.special_agent(special)?;
    let pace = Pace { how: How::Wait, hold: 2, jitter: 3, rest: 1, rounds: u64::MAX };
    let begun = agent.ask(Command::Contend { lock: "worn".to_owned(), tasks: 1, pace })?;
    ensure!(begun.is_ok(), "a client did not begin: {begun:?}");
    Ok(agent)
}
