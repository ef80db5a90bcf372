//! Servers that come back, with all, some or none of their data.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use test_cluster::{EtcdCluster, Persistence, Redis, eventually};

use super::{Etcd, Expected, Q, R, REMOTE, RQ, Redlock, Row, Setnx, Zk};
use crate::{
    agent::Gap,
    event::{Answer, How, Invariant},
    lab::{Agent, Boot, Kind, LOCK, Lab, PATIENCE, Snapshot, Special},
    slow_disk::SlowDisk,
};

const BELIEF: &[Invariant] = &[Invariant::Belief];

const FORGETS: Expected = Expected::Limit(
    BELIEF,
    "a Redis that forgot its keys gives them to the next who asks, until the holder's next renewal",
);

/// Where tokens are the order of the queue, they are checked as that too.
const BEGINS_ANEW: Expected = Expected::Limit(
    &[Invariant::Belief, Invariant::Tokens, Invariant::Order],
    "a cluster that forgot everything is another one: its tokens begin anew, and its locks are free",
);

pub(super) const ROWS: &[Row] = &[
    Row::new(4, "server killed, data kept", R, kept).quick(R),
    Row::new(5, "server killed, nothing kept", R, forgotten)
        .boot(Boot::Forgetful)
        .overlapping()
        .limits(&[(Setnx, FORGETS)]),
    Row::new(6, "one voter of three restarted empty", Q, voter_emptied).overlapping().quick(Q),
    Row::new(7, "power lost: data of before", RQ, power_lost).overlapping().limits(&[(Setnx, FORGETS)]),
    Row::new(42, "servers restarted empty", REMOTE, emptied).overlapping().limits(&[
        (Setnx, FORGETS),
        (Etcd, BEGINS_ANEW),
        (Zk, BEGINS_ANEW),
    ]),
    Row::new(43, "each server restarted in turn", &[Redlock, Etcd, Zk], rolling).long_leases(),
    Row::new(46, "one voter of three restarted from an older snapshot", Q, voter_restored)
        .overlapping()
        .limits(&[(
            Redlock,
            Expected::Limit(
                BELIEF,
                "what a server loads from its disk is believed: a snapshot older than a vote takes the vote back",
            ),
        )]),
    Row::new(47, "killed while a log synced each second is stuck", R, unsynced)
        .boot(Boot::Own)
        .long_leases()
        .overlapping()
        .limits(&[(
            Setnx,
            Expected::Limit(BELIEF, "appendfsync everysec answers before the disk has it: use always"),
        )]),
];

/// Killed and restarted with all that it acknowledged: every hold stands.
fn kept(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let holder = lab.agent()?;
    holder.hold("kept")?;
    for _ in 0..2 {
        lab.let_pass(lab.about(lab.ttl / 10));
        let fault = lab.fault("SIGKILL of the server, and a restart with its data");
        let old = lab.servers.pid(0);
        lab.servers.kill(0)?;
        lab.servers.restart(0)?;
        fault.fired(format!("process {old:?} was killed, {:?} serves", lab.servers.pid(0)));
        fault.end();
        lab.cycles("rounds after the restart", 3)?;
        lab.expect(Invariant::Progress, holder.is_held("kept")?, "a holder outlives the restart");
    }
    let verified = holder.ask(crate::agent::Command::Verify { lock: "kept".to_owned() })?;
    lab.expect(Invariant::Owner, verified.is_ok(), format!("the server still has the hold: {verified:?}"));
    holder.release("kept")?.ok();
    lab.finish(Some(&load))
}

/// A holder whose server forgot its hold must be told by its next renewal, and what it does late be refused.
fn told_of_the_loss(lab: &Lab<'_>, holder: &Agent) -> Result<()> {
    let lost = test_cluster::eventually("the loss", lab.ttl, || {
        ensure!(!holder.is_held(LOCK)?, "it is held");
        Ok(())
    });
    lab.expect(
        Invariant::Loss,
        lost.is_ok(),
        "a holder is told by its next renewal that its hold is forgotten",
    );
    lab.expect(Invariant::ActsLate, !holder.work(LOCK, Gap::None)?, "and works no more");
    let released = holder.release(LOCK)?;
    lab.expect(
        Invariant::Owner,
        matches!(&released, Err((kind, _)) if kind == "Lost"),
        format!("a release says so: {released:?}"),
    );
    Ok(())
}

fn forgotten(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let holder = lab.agent()?;
    holder.hold(LOCK)?;
    let fault = lab.fault("SIGKILL of the server, and a restart without data");
    lab.servers.kill(0)?;
    lab.servers.restart(0)?;
    let keys = lab.servers.redis(0).command(&["DBSIZE"])?;
    fault.fired(format!("the server came back with {keys:?} keys"));
    fault.end();
    told_of_the_loss(lab, &holder)?;
    lab.finish(Some(&load))
}

fn power_lost(lab: &mut Lab<'_>) -> Result<()> {
    if lab.backend == Redlock {
        return minority_restored(lab);
    }
    let redis = lab.servers.redis(0);
    let snapshot = Snapshot::take(&redis.data())?;
    let load = lab.load()?;
    let holder = lab.agent()?;
    holder.hold(LOCK)?;
    let fault = lab.fault("SIGKILL of the server, and a restart with the data of before the acquire");
    redis.kill()?;
    snapshot.put_back(&redis.data())?;
    redis.restart()?;
    fault.fired(format!("process {:?} serves older data", redis.pid()));
    fault.end();
    told_of_the_loss(lab, &holder)?;
    lab.finish(Some(&load))
}

fn emptied(lab: &mut Lab<'_>) -> Result<()> {
    if lab.backend == Redlock {
        return minority_emptied(lab);
    }
    let load = lab.load()?;
    let holder = lab.agent()?;
    holder.hold(LOCK)?;
    let fault = lab.fault("all servers are restarted with empty disks");
    lab.servers.empty()?;
    fault.fired(format!("process {:?} serves nothing of before", lab.servers.pid(0)));
    fault.end();
    told_of_the_loss(lab, &holder)?;
    lab.finish(Some(&load))
}

/// A client that talks to three of five servers, so that its holds have three votes.
fn voter_of_three(lab: &Lab<'_>) -> Result<Agent> {
    let victim = lab.agent()?;
    for proxy in &victim.process.proxies[lab.servers.majority()..] {
        proxy.refuse(true);
        proxy.reset_all();
    }
    Ok(victim)
}

/// A hold has three votes of five, and one of the three servers comes back without them: it must not vote again before
/// every lease of before is over.
fn voter_emptied(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let victim = voter_of_three(lab)?;
    for _ in 0..2 {
        victim.hold(LOCK)?;
        let fault = lab.fault("SIGKILL of one of three voters, and a restart without data");
        lab.servers.redis(0).restart_without_data()?;
        fault.fired(format!("process {:?} serves nothing of before", lab.servers.pid(0)));
        fault.end();
        lab.let_pass(lab.ttl * 3 / 2);
        victim.release(LOCK)?.ok();
        lab.cycles("rounds after the restart", 3)?;
    }
    lab.finish(Some(&load))
}

/// The same with a snapshot of before the vote, which the server takes for the truth.
fn voter_restored(lab: &mut Lab<'_>) -> Result<()> {
    let redis = lab.servers.redis(0);
    let (victim, other) = (voter_of_three(lab)?, lab.agent()?);
    let load = lab.load()?;
    let snapshot = Snapshot::take(&redis.data())?;
    victim.hold("kept")?;
    let fault = lab.fault("SIGKILL of one of three voters, and a restart from a snapshot of before");
    redis.kill()?;
    snapshot.put_back(&redis.data())?;
    redis.restart()?;
    fault.fired(format!("process {:?} serves older data", redis.pid()));
    let taken = other.acquire("kept", How::For(lab.ttl.as_millis() as u64))?;
    fault.end();
    victim.release("kept")?.ok();
    if taken.is_ok() {
        other.release("kept")?.ok();
    }
    lab.finish(Some(&load))
}

/// As many servers as the majority can do without come back with older data, or with none: a hold with all votes
/// stands.
fn minority_back(
    lab: &mut Lab<'_>,
    name: &str,
    restart: impl Fn(&Redis, &Snapshot) -> Result<()>,
) -> Result<()> {
    let minority = lab.servers.count() - lab.servers.majority();
    let load = lab.load()?;
    let holder = lab.agent()?;
    let snapshots = (0..minority)
        .map(|index| Snapshot::take(&lab.servers.redis(index).data()))
        .collect::<Result<Vec<_>>>()?;
    holder.hold("kept")?;
    let fault = lab.fault(format!("SIGKILL of {minority} servers, and a restart {name}"));
    for (index, snapshot) in snapshots.iter().enumerate() {
        restart(lab.servers.redis(index), snapshot)?;
    }
    fault.fired(format!("process {:?} serves {name}", lab.servers.pid(0)));
    lab.cycles("rounds of the majority", 3)?;
    lab.let_pass(lab.ttl);
    fault.end();
    lab.expect(
        Invariant::Progress,
        holder.is_held("kept")?,
        "a holder with all votes outlives a minority's memory",
    );
    let released = holder.release("kept")?;
    lab.expect(Invariant::Owner, released.is_ok(), format!("and releases: {released:?}"));
    lab.finish(Some(&load))
}

fn minority_restored(lab: &mut Lab<'_>) -> Result<()> {
    minority_back(lab, "with the data of before", |redis, snapshot| {
        redis.kill()?;
        snapshot.put_back(&redis.data())?;
        redis.restart()
    })
}

fn minority_emptied(lab: &mut Lab<'_>) -> Result<()> {
    minority_back(lab, "without data", |redis, _| redis.restart_without_data())
}

/// Every server is restarted with its data, one after another: nobody notices.
fn rolling(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let holder = lab.agent()?;
    holder.hold("kept")?;
    for index in 0..lab.servers.count() {
        let fault = lab.fault(format!("server {index} is restarted"));
        lab.servers.kill(index)?;
        lab.servers.restart(index)?;
        fault.fired(format!("process {:?} serves", lab.servers.pid(index)));
        fault.end();
        lab.cycles("rounds after the restart", 5)?;
    }
    if let Kind::Etcd(cluster) = &lab.servers.kind {
        change_members(lab, cluster)?;
    }
    lab.expect(Invariant::Progress, holder.is_held("kept")?, "a holder outlives a rolling restart");
    let released = holder.release("kept")?;
    lab.expect(Invariant::Owner, released.is_ok(), format!("and releases: {released:?}"));
    lab.finish(Some(&load))
}

/// A member joins, gets a vote, and leaves again.
fn change_members(lab: &Lab<'_>, cluster: &EtcdCluster) -> Result<()> {
    let fault = lab.fault("a member joins and leaves");
    // etcd lets nobody in before its members have seen each other for some seconds.
    let joined = eventually("a new member", PATIENCE, || cluster.add_learner())?;
    let status: Value = serde_json::from_str(&joined.call("/v3/maintenance/status", "{}")?)?;
    let id = status["header"]["member_id"].as_str().context("etcd tells no member")?.to_owned();
    let at_leader = |what: &str| {
        cluster[cluster.leader()?]
            .call(&format!("/v3/cluster/member/{what}"), &format!(r#"{{"ID": "{id}"}}"#))
    };
    eventually("the vote of the new member", PATIENCE, || at_leader("promote"))?;
    lab.cycles("rounds with four members", 5)?;
    at_leader("remove")?;
    fault.fired(format!("member {id} was promoted and removed"));
    fault.end();
    lab.cycles("rounds with three members", 5)
}

/// While a sync of the log is stuck, Redis answers from memory, and a kill takes that with it.
fn unsynced(lab: &mut Lab<'_>) -> Result<()> {
    let redis = Redis::builder().persistence(Persistence::Aof).start()?;
    let own = || Special { servers: Some(vec![redis.address()]), ..Special::default() };
    let load = lab.load_with(own)?;
    let (holder, other) = (lab.special_agent(own())?, lab.special_agent(own())?);
    // Every two seconds Redis writes without waiting for the sync, and then a kill takes nothing with it.
    const TRIES: usize = 8;
    for tries_left in (0..TRIES).rev() {
        let disk = SlowDisk::begin(redis.pid().context("Redis runs")?, std::time::Duration::from_secs(20))?;
        let fault = lab.fault("a sync of the log takes 20 s, and the server is killed meanwhile");
        let proof = disk.wait_until_stuck("bio_aof")?;
        holder.hold(LOCK)?;
        disk.kill_the_process()?;
        redis.restart()?;
        // Those who queue hear of it later than the holder.
        let taken = other.acquire(LOCK, How::Try)?;
        fault.fired(proof);
        fault.end();
        let lost = eventually("the loss", lab.ttl, || {
            ensure!(!holder.is_held(LOCK)?, "it is held");
            Ok(())
        });
        let is_taken = matches!(taken, Ok(Answer::Acquired { .. }));
        if is_taken {
            other.release(LOCK)?.ok();
        }
        // A restart that takes longer than the lease shows nothing.
        if lost.is_ok() && (is_taken || tries_left == 0) {
            break;
        }
        holder.release(LOCK)?.ok();
    }
    told_of_the_loss(lab, &holder)?;
    lab.finish_with(Some(&load), own)
}
