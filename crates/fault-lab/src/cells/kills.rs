//! Processes that end: holders, leaders, the server that a client uses.

use anyhow::{Result, ensure};

use super::{EZ, REMOTE, Row};
use crate::{
    agent::Gap,
    event::Invariant,
    lab::{LOCK, Lab},
};

pub(super) const ROWS: &[Row] = &[
    Row::new(1, "holder killed", REMOTE, holder).quick(REMOTE),
    Row::new(8, "leader killed", EZ, leader).long_leases(),
    Row::new(9, "the client's server killed", EZ, follower),
];

/// A holder is killed while it works; those who wait go on once its lease is over.
fn holder(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    for _ in 0..2 {
        let victim = lab.agent()?;
        victim.hold(LOCK)?;
        ensure!(victim.work(LOCK, Gap::None)?, "a holder can work");
        // At any phase of its renewals.
        lab.let_pass(lab.about(lab.ttl / 5));
        let fault = lab.fault("SIGKILL of the holder");
        victim.kill()?;
        fault.fired(format!("process {} has ended", victim.process.pid()));
        fault.end();
        lab.cycles("rounds after the holder's end", 3)?;
    }
    lab.finish(Some(&load))
}

/// The leader of the servers is killed, and comes back.
fn leader(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let holder = lab.agent()?;
    holder.hold("kept")?;
    let leader = lab.servers.leader()?;
    let fault = lab.fault("SIGKILL of the leader");
    lab.servers.kill(leader)?;
    let next = lab.servers.leader()?;
    fault.fired(format!("server {leader} led, now server {next} does"));
    fault.end();
    let fault = lab.fault("restart of the old leader");
    lab.servers.restart(leader)?;
    fault.fired(format!("process {:?} serves", lab.servers.pid(leader)));
    fault.end();
    let held = holder.is_held("kept")?;
    lab.expect(Invariant::Progress, held, "a holder outlives the election");
    holder.release("kept")?.ok();
    lab.finish(Some(&load))
}

/// One server that does not lead is killed: those clients that used it go on with another.
fn follower(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let holder = lab.agent()?;
    holder.hold("kept")?;
    let leader = lab.servers.leader()?;
    for follower in (0..lab.servers.count()).filter(|index| *index != leader) {
        let fault = lab.fault(format!("SIGKILL of server {follower}"));
        lab.servers.kill(follower)?;
        fault.fired(format!("server {follower} has no process"));
        lab.cycles("rounds without a follower", 3)?;
        lab.servers.restart(follower)?;
        fault.end();
    }
    let held = holder.is_held("kept")?;
    lab.expect(Invariant::Progress, held, "a holder outlives each follower");
    holder.release("kept")?.ok();
    lab.finish(Some(&load))
}
