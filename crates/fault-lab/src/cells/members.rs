//! Members of one cluster that are cut off from each other, slow, of another opinion, or of another cluster.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use test_cluster::{Behaviour, Direction, Etcd, ZooKeeper, ZooKeeperCluster, eventually};

use super::{E, EZ, Etcd as OnEtcd, OLD_ETCD, Row, Z, Zk, pauses::lost_within_the_lease};
use crate::{
    agent::Command,
    event::{How, Invariant},
    lab::{Agent, Boot, Kind, LOCK, Lab, PATIENCE, Special},
    slow_disk::SlowDisk,
};

pub(super) const ROWS: &[Row] = &[
    Row::new(12, "leader cut off from the other servers", EZ, leader_cut_off).boot(Boot::Isolable),
    Row::new(21, "the leader's disk stuck", EZ, slow_leader)
        .boot(Boot::Isolable)
        .overlapping()
        .limits(&[(OnEtcd, OLD_ETCD)]),
    Row::new(45, "servers that keep leases for less time", E, impatient_leader).boot(Boot::Own),
    Row::new(45, "servers that keep leases for less time", Z, impatient_servers)
        .boot(Boot::Own)
        .long_leases(),
    Row::new(53, "two clusters named as one", EZ, two_clusters),
    Row::new(60, "leader stopped past the lease", EZ, stopped_leader)
        .long_leases()
        .limits(&[(OnEtcd, OLD_ETCD)]),
];

/// A client that knows one server only.
fn client_of(lab: &Lab<'_>, server: usize) -> Result<Agent> {
    let servers = Some(vec![lab.servers.addresses()[server]]);
    lab.special_agent(Special { servers, ..Special::default() })
}

/// The leader is cut off from the others, for more than a lease, with a holder that knows no other server.
fn leader_cut_off(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let leader = lab.servers.leader()?;
    let (holder, rival) = (client_of(lab, leader)?, lab.agent()?);
    holder.hold("kept")?;
    let waiting = rival.wait_for("kept")?;
    let fault = lab.fault(format!("server {leader}, which leads, is cut off from the others"));
    lab.servers.isolate(leader)?;
    match &lab.servers.kind {
        Kind::Etcd(cluster) => {
            let next = eventually("another leader", PATIENCE, || {
                let next = cluster.leader()?;
                ensure!(next != leader, "server {next} leads");
                Ok(next)
            })?;
            fault.fired(format!("the others follow server {next}"));
            lab.cycles("rounds under the next leader", 3)?;
            // It still tells the next leader what its clients ask for, so the hold may stand, or not.
            lab.let_pass(lab.ttl * 2);
        }
        Kind::Zk(ensemble) => {
            let answer =
                eventually("a leader that serves nobody", PATIENCE, || match ensemble.node(leader).mode() {
                    Ok(mode) => bail!("it is {mode}"),
                    Err(error) => Ok(format!("{error:#}")),
                })?;
            fault.fired(format!("server {leader} serves nobody: {answer}"));
            lost_within_the_lease(lab, &holder, "kept")?;
            lab.let_pass(lab.ttl);
        }
        other => bail!("{other:?} have no leader"),
    }
    lab.servers.rejoin(leader)?;
    fault.end();
    holder.release("kept")?.ok();
    // Servers that do not answer end a wait.
    let waited = waiting.wait_for(lab.recovery() + lab.ttl)?;
    let served = match &waited {
        Err((kind, _)) if kind == "Unavailable" => eventually("the lock", lab.recovery(), || {
            let again = rival.acquire("kept", How::Wait)?;
            ensure!(again.is_ok(), "{again:?}");
            Ok(())
        }),
        other => other.as_ref().map(drop).map_err(|error| anyhow!("{error:?}")),
    };
    lab.expect(Invariant::Progress, served.is_ok(), format!("who waited is served: {served:?}"));
    rival.release("kept")?.ok();
    lab.finish(Some(&load))
}

/// Each sync of the leader takes longer than a lease, with a holder that knows no other server.
fn slow_leader(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let leader = lab.servers.leader()?;
    let (holder, other) = (client_of(lab, leader)?, lab.agent()?);
    holder.hold(LOCK)?;
    let fault = lab.fault(format!("each sync of server {leader}, which leads, takes four leases"));
    let disk = SlowDisk::begin(lab.servers.pid(leader).context("it runs")?, lab.ttl * 4)?;
    let thread = if lab.backend == Zk { "SyncThread" } else { "etcd" };
    // Only what is written is synced.
    let writing = other.order(Command::Acquire { lock: "other".to_owned(), how: How::Wait })?;
    fault.fired(disk.wait_until_stuck(thread)?);
    lab.let_pass(lab.ttl * 3);
    disk.end()?;
    fault.end();
    holder.release(LOCK)?.ok();
    let served = writing.wait_for(lab.recovery() + PATIENCE)?;
    let is_told = matches!(&served, Err((kind, _)) if kind == "Unavailable");
    let text = format!("another lock is granted, or refused as it must be: {served:?}");
    lab.expect(Invariant::Progress, served.is_ok() || is_told, text);
    other.release("other")?.ok();
    lab.finish(Some(&load))
}

/// The leader stands still for more than a lease. When it goes on, the others have renewed what it takes for ended.
fn stopped_leader(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let leader = lab.servers.leader()?;
    let (holder, rival) = (client_of(lab, (leader + 1) % lab.servers.count())?, lab.agent()?);
    holder.hold("kept")?;
    let fault = lab.fault(format!("SIGSTOP of server {leader}, which leads"));
    lab.servers.pause(leader)?;
    lab.cycles("rounds under the next leader", 3)?;
    fault.fired("it is in state T, and the others serve");
    lab.let_pass(lab.ttl * 3 / 2);
    ensure!(holder.is_held("kept")?, "a holder whose server follows another leader loses nothing");
    let waiting = rival.wait_for("kept")?;
    // It shall not hear of an end of its lease.
    cut(&holder);
    lab.servers.resume(leader)?;
    lab.let_pass(lab.ttl);
    heal(&holder);
    fault.end();
    holder.release("kept")?.ok();
    let served = waiting.wait_for(lab.recovery())?;
    lab.expect(Invariant::Progress, served.is_ok(), format!("who waited is served: {served:?}"));
    rival.release("kept")?.ok();
    lab.finish(Some(&load))
}

/// A leader that keeps no lease for less than seven seconds is followed by one that does, before a renewal could tell.
fn impatient_leader(lab: &mut Lab<'_>) -> Result<()> {
    let cluster = Etcd::builder().member_flag(0, "--election-timeout=5000").start_cluster(3)?;
    let own = || Special { servers: Some(cluster.addresses()), ..Special::default() };
    cluster.move_leader(0)?;
    let load = lab.load_with(own)?;
    let holder = lab.special_agent(own())?;
    holder.hold(LOCK)?;
    let fault = lab.fault("the patient leader is killed, and its holder cannot renew");
    cut(&holder);
    cluster[0].kill()?;
    let next = cluster.leader()?;
    fault.fired(format!("server {next} leads"));
    // The next leader gives each lease its whole time.
    lab.cycles("rounds of the others", 3)?;
    cluster[0].restart()?;
    heal(&holder);
    fault.end();
    holder.release(LOCK)?.ok();
    lab.finish_with(Some(&load), own)
}

/// Servers come back that keep no session for longer than half of what they granted.
fn impatient_servers(lab: &mut Lab<'_>) -> Result<()> {
    let ensemble = ZooKeeperCluster::start(3)?;
    let addresses: Vec<_> = ensemble.nodes().iter().map(ZooKeeper::address).collect();
    let own = || Special { servers: Some(addresses.clone()), ..Special::default() };
    let load = lab.load_with(own)?;
    let holder = lab.special_agent(own())?;
    for _ in 0..2 {
        holder.hold(LOCK)?;
        let longest = (lab.ttl / 2).as_millis().to_string();
        let fault = lab.fault(format!("all servers come back with a maxSessionTimeout of {longest} ms"));
        for node in ensemble.nodes() {
            node.restart_with("maxSessionTimeout", &longest)?;
        }
        let told = ensemble.node(0).ask("conf")?;
        ensure!(told.contains(&format!("maxSessionTimeout={longest}")), "the server says {told}");
        fault.fired(format!("server 0 says maxSessionTimeout={longest}"));
        cut(&holder);
        lab.cycles("rounds of the others", 3)?;
        heal(&holder);
        fault.end();
        holder.release(LOCK)?.ok();
    }
    lab.finish_with(Some(&load), own)
}

fn cut(agent: &Agent) {
    for direction in [Direction::ToServer, Direction::ToClient] {
        agent.network(direction, Behaviour::Stall);
    }
}

fn heal(agent: &Agent) {
    for direction in [Direction::ToServer, Direction::ToClient] {
        agent.network(direction, Behaviour::Pass);
    }
}

/// One of the addresses leads to another cluster, where the same lock is free.
fn two_clusters(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let client = lab.agent()?;
    let fault = lab.fault("one of two addresses leads to another cluster");
    let (known, stranger) = (lab.servers.addresses()[0], Stranger::start(lab)?);
    let strange = match &stranger {
        Stranger::Etcd(server) => server.address(),
        Stranger::Zk(server) => server.address(),
    };
    let scheme = if lab.backend == OnEtcd { "http://" } else { "" };
    for [first, second] in [[known, strange], [strange, known]] {
        let urls = Some(format!("{scheme}{first},{scheme}{second}"));
        let refused = client.ask(Command::Connect { urls, keep: false })?;
        lab.expect(
            Invariant::Errors,
            matches!(&refused, Err((kind, _)) if kind == "UnsafeConfig"),
            format!("two clusters are refused: {refused:?}"),
        );
    }
    fault.fired(format!("a server of its own is at {strange}"));
    fault.end();
    lab.let_pass(Duration::from_millis(10));
    lab.finish(Some(&load))
}

/// A server of the same kind that knows nothing of those of the lane.
enum Stranger {
    Etcd(Etcd),
    Zk(ZooKeeper),
}

impl Stranger {
    fn start(lab: &Lab<'_>) -> Result<Self> {
        Ok(if lab.backend == OnEtcd { Self::Etcd(Etcd::start()?) } else { Self::Zk(ZooKeeper::start()?) })
    }
}
