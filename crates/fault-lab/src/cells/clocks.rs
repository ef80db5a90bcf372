//! Clocks that jump, or run at another rate.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use test_cluster::{Behaviour, Direction, eventually};

use super::{ALL, Expected, RQ, Redlock, Row, Setnx};
use crate::{
    event::Invariant,
    lab::{Agent, Boot, LOCK, Lab, PATIENCE, Special, redis_name},
    shim::Shim,
};

pub(super) const ROWS: &[Row] = &[
    Row::new(18, "server clocks jump a minute ahead", RQ, ahead)
        .boot(Boot::Shimmed)
        .overlapping()
        .quick(&[Setnx])
        .limits(&[(
            Setnx,
            Expected::Limit(
                &[Invariant::Belief],
                "Redis counts leases by its wall clock, which jumped over their end",
            ),
        )]),
    Row::new(19, "server clock jumps three minutes back", RQ, back).boot(Boot::Shimmed),
    Row::new(20, "client's wall clock jumps an hour", ALL, client).quick(&[super::Local, Redlock]),
    Row::new(54, "server clock runs 1 % fast", RQ, fast).boot(Boot::Shimmed).overlapping(),
];

/// The clock of one Redis, and of as many of several as their majority can do without, jumps while a lock is held.
fn ahead(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let holder = lab.agent()?;
    hold_by_all_votes(lab, &holder)?;
    let jumped = if lab.backend == Redlock { lab.servers.majority() - 1 } else { 1 };
    let fault = lab.fault(format!("{jumped} server clocks jump a minute ahead"));
    for shim in &lab.servers.shims[..jumped] {
        shim.set(Duration::from_secs(60), false, 1.0)?;
    }
    fault.fired(format!("the first server says it is {:?}", lab.servers.redis(0).command(&["TIME"])?));
    fault.end();
    lab.cycles("rounds after the jump", if lab.backend == Redlock { 0 } else { 3 })?;
    if lab.backend == Redlock {
        lab.let_pass(lab.ttl);
        lab.expect(Invariant::Progress, holder.is_held(LOCK)?, "a majority without a jump keeps the hold");
    }
    holder.release(LOCK)?.ok();
    lab.finish(Some(&load))
}

/// Takes the lock with the votes of all servers: under contention a majority is enough, and may be just that.
fn hold_by_all_votes(lab: &Lab<'_>, holder: &Agent) -> Result<()> {
    let name = redis_name(&lab.prefix, LOCK, lab.servers.count())?;
    let vote = |server| {
        let held = lab.servers.redis(server).command(&["GET", &name])?.text();
        anyhow::Ok(held.trim_end_matches('+').to_owned())
    };
    eventually("a hold by the votes of all servers", PATIENCE, || {
        holder.hold(LOCK)?;
        let votes = (0..lab.servers.count()).map(vote).collect::<Result<Vec<_>>>()?;
        if votes.iter().all(|vote| *vote == votes[0]) {
            return Ok(());
        }
        holder.release(LOCK)?.ok();
        bail!("the votes are {votes:?}")
    })
}

/// A clock set back makes a dead holder's lease longer, and no others: bounded by the jump.
fn back(lab: &mut Lab<'_>) -> Result<()> {
    const JUMP: Duration = Duration::from_secs(180);
    let load = lab.load()?;
    let victim = lab.agent()?;
    victim.hold(LOCK)?;
    victim.kill()?;
    let jumped = if lab.backend == Redlock { lab.servers.majority() } else { 1 };
    let fault = lab.fault(format!("{jumped} server clocks jump three minutes back, and the holder is dead"));
    for shim in &lab.servers.shims[..jumped] {
        shim.set(JUMP, true, 1.0)?;
    }
    let name = redis_name(&lab.prefix, LOCK, lab.servers.count())?;
    let left = lab.servers.redis(0).command(&["PTTL", &name])?.as_int().unwrap_or(0);
    fault.fired(format!("the dead holder's key has {left} ms to live"));
    let bound = i64::try_from((JUMP + lab.ttl).as_millis())?;
    lab.expect(
        Invariant::Progress,
        left <= bound,
        format!("no lease is longer than TTL and jump: {left} ms"),
    );
    ensure!(left > bound - 2_000, "the jump must have made the lease longer, which is {left} ms");
    for shim in &lab.servers.shims[..jumped] {
        shim.set(Duration::ZERO, false, 1.0)?;
    }
    fault.end();
    lab.cycles("rounds when the clock is right again", 3)?;
    // Set back under load: releases free locks whatever the clock says.
    let holder = lab.agent()?;
    holder.hold(LOCK)?;
    let fault = lab.fault("the same, and the holder lives");
    for shim in &lab.servers.shims[..jumped] {
        shim.set(JUMP, true, 1.0)?;
    }
    fault.fired(format!("the first server says it is {:?}", lab.servers.redis(0).command(&["TIME"])?));
    fault.end();
    let released = holder.release(LOCK)?;
    lab.expect(
        Invariant::Progress,
        released.is_ok(),
        format!("a release works under a wrong clock: {released:?}"),
    );
    lab.finish(Some(&load))
}

/// The wall clock of a holder's machine jumps to and fro: leases are not counted by it.
fn client(lab: &mut Lab<'_>) -> Result<()> {
    let shim = Shim::new()?;
    let environment = shim.environment().to_vec();
    let victim = lab.special_agent(Special { environment, ..Special::default() })?;
    let load = lab.load()?;
    for backwards in [false, true] {
        victim.hold(LOCK)?;
        let sign = if backwards { "back" } else { "ahead" };
        let fault = lab.fault(format!("the holder's wall clock jumps an hour {sign}"));
        shim.set(Duration::from_secs(3600), backwards, 1.0)?;
        fault.fired(format!("the process runs under {:?}", environment_of(victim.process.pid())?));
        lab.let_pass(lab.ttl * 3 / 2);
        lab.expect(Invariant::Loss, victim.is_held(LOCK)?, "a holder is renewed under a wrong wall clock");
        fault.end();
        let released = victim.release(LOCK)?;
        lab.expect(Invariant::Owner, released.is_ok(), format!("and releases what it held: {released:?}"));
    }
    lab.finish(Some(&load))
}

/// The variable by which a process has another clock.
fn environment_of(pid: u32) -> Result<String> {
    let all = std::fs::read_to_string(format!("/proc/{pid}/environ"))?;
    let preload = all.split('\0').find(|variable| variable.starts_with("LD_PRELOAD="));
    ensure!(preload.is_some(), "process {pid} has no other clock");
    Ok(preload.unwrap_or_default().to_owned())
}

/// Server clocks run as fast as the drift allows, and a holder is not renewed: its belief ends before its lease.
fn fast(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    for shim in &lab.servers.shims {
        shim.set(Duration::ZERO, false, 1.01)?;
    }
    for _ in 0..2 {
        let victim = lab.agent()?;
        victim.hold(LOCK)?;
        let fault = lab.fault("server clocks run 1 % fast, and a holder cannot renew");
        victim.network(Direction::ToServer, Behaviour::Stall);
        lab.cycles("rounds of the others", 3)?;
        fault.fired("the holder's requests are held, and the others went on");
        victim.network(Direction::ToServer, Behaviour::Pass);
        fault.end();
        victim.release(LOCK)?.ok();
    }
    lab.finish(Some(&load))
}
