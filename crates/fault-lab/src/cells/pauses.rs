//! Processes that stand still and go on later: holders, their runtimes, servers.

use std::{thread, time::Duration};

use anyhow::{Result, ensure};
use test_cluster::{Redis, eventually};

use super::{ALL, Backend, Local, REMOTE, Redlock, Row, Setnx};
use crate::{
    agent::{Command, Gap},
    event::{Answer, How, Invariant},
    lab::{Agent, Kind, LOCK, Lab, Special},
};

pub(super) const ROWS: &[Row] = &[
    Row::new(2, "holder stopped past its lease", ALL, stopped).overlapping().quick(&[
        Local,
        Setnx,
        Redlock,
        Backend::Etcd,
    ]),
    Row::new(3, "holder's runtime starved", ALL, starved).overlapping().quick(&[Local, Setnx, Redlock]),
    Row::new(10, "no quorum for three leases", &[Redlock, Backend::Etcd, Backend::Zk], no_quorum)
        .quick(&[Redlock, Backend::Etcd]),
    Row::new(22, "server stopped past the lease", REMOTE, frozen),
    Row::new(58, "late write between the next holder's read and its write", REMOTE, late_write).overlapping(),
];

/// A holder is stopped between its look at the guard and its write, for two leases. Its write must be refused.
fn stopped(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let victim = lab.agent()?;
    let (_, token) = victim.hold(LOCK)?;
    let fault = lab.fault("SIGSTOP of the holder between its look and its write");
    let work = victim.order(Command::Work { lock: LOCK.to_owned(), gap: Gap::Stop })?;
    victim.wait_until_stopped()?;
    fault.fired(format!("process {} is in state T, with token {token}", victim.process.pid()));
    lab.let_pass(lab.about(lab.ttl * 3 / 2));
    victim.go_on()?;
    fault.end();
    let worked = work.wait()?;
    if lab.backend.is_local() {
        // Nobody else runs while the process is stopped, so nothing is lost.
        lab.expect(
            Invariant::Fencing,
            worked == Ok(Answer::Accepted(true)),
            format!("the write is good: {worked:?}"),
        );
        ensure!(victim.is_held(LOCK)?, "a lock in a process is not lost");
        victim.release(LOCK)?.ok();
    } else {
        lab.expect(
            Invariant::Fencing,
            worked == Ok(Answer::Accepted(false)),
            format!("the late write is refused: {worked:?}"),
        );
        lab.expect(
            Invariant::Loss,
            !victim.is_held(LOCK)?,
            "the first question after the pause tells the loss",
        );
        let released = victim.release(LOCK)?;
        lab.expect(
            Invariant::Owner,
            matches!(&released, Err((kind, _)) if kind == "Lost"),
            format!("a release after the loss says so: {released:?}"),
        );
    }
    lab.finish(Some(&load))
}

/// Each thread of the holder's runtime is busy for two leases, so that nothing can be renewed.
fn starved(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    // In a process of its own, or the whole load would be starved. The lock of one process is starved alone.
    let victim = lab.special_agent(Special { threads: Some(2), ..Special::default() })?;
    victim.hold(LOCK)?;
    let fault = lab.fault("every thread of the holder's runtime is blocked");
    let ms = lab.about(lab.ttl * 3 / 2).as_millis() as u64;
    let starving = victim.order(Command::Starve { lock: LOCK.to_owned(), ms })?;
    let held = starving.wait()?;
    fault.fired(format!("the threads slept for {ms} ms"));
    fault.end();
    let expected = lab.backend.is_local();
    lab.expect(
        Invariant::Loss,
        held == Ok(Answer::Held(expected)),
        format!("the first question after the block is answered {expected}: {held:?}"),
    );
    victim.release(LOCK)?.ok();
    lab.finish(Some(&load))
}

/// A majority of the servers stands still for three leases.
fn no_quorum(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let (holder, late) = (lab.agent()?, lab.agent()?);
    holder.hold("kept")?;
    let fault = lab.fault("SIGSTOP of a majority");
    let leader = if lab.backend == Redlock { 0 } else { lab.servers.leader()? };
    let majority: Vec<_> = (0..lab.servers.majority()).map(|n| (leader + n) % lab.servers.count()).collect();
    majority.iter().try_for_each(|index| lab.servers.pause(*index))?;
    fault.fired(format!("servers {majority:?} are in state T"));
    lost_within_the_lease(lab, &holder, "kept")?;
    let refused = late.acquire("other", How::Try)?;
    lab.expect(
        Invariant::Errors,
        matches!(&refused, Err((kind, _)) if kind == "Unavailable"),
        format!("a try without a quorum is Unavailable: {refused:?}"),
    );
    lab.let_pass(lab.ttl);
    majority.iter().try_for_each(|index| lab.servers.resume(*index))?;
    fault.end();
    holder.release("kept")?.ok();
    lab.finish(Some(&load))
}

/// All servers stand still for two leases; what they do when they go on must not revive a hold.
fn frozen(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let holder = lab.agent()?;
    holder.hold("kept")?;
    let fault = lab.fault("SIGSTOP of all servers");
    (0..lab.servers.count()).try_for_each(|index| lab.servers.pause(index))?;
    fault.fired("all servers are in state T");
    lost_within_the_lease(lab, &holder, "kept")?;
    lab.let_pass(lab.about(lab.ttl / 2));
    (0..lab.servers.count()).try_for_each(|index| lab.servers.resume(index))?;
    fault.end();
    stays_lost(lab, &holder)?;
    if let Kind::Redis(servers) = &lab.servers.kind {
        let pause = (lab.ttl * 3 / 2).as_millis().to_string();
        busy(lab, servers, &holder, "CLIENT PAUSE", |redis| {
            redis.command(&["CLIENT", "PAUSE", &pause]).map(drop)
        })?;
        // Until a script has run so long, its server hears nobody; from then on it hears who ends the script.
        let deaf = ["CONFIG", "SET", "lua-time-limit", &pause];
        servers.iter().try_for_each(|redis| redis.command(&deaf).map(drop))?;
        busy(lab, servers, &holder, "a script that does not end", |redis| {
            thread::scope(|scope| {
                let script = scope.spawn(|| redis.command(&["EVAL", "while true do end", "0"]));
                eventually("a script that is killed", lab.ttl * 10, || redis.command(&["SCRIPT", "KILL"]))?;
                let ended = script.join().expect("no panic");
                ensure!(ended.is_err(), "the script ended by itself");
                Ok(())
            })
        })?;
        let usual = ["CONFIG", "SET", "lua-time-limit", "5000"];
        servers.iter().try_for_each(|redis| redis.command(&usual).map(drop))?;
    }
    lab.finish(Some(&load))
}

fn stays_lost(lab: &Lab<'_>, holder: &Agent) -> Result<()> {
    lab.cycles("rounds when the servers go on", 3)?;
    lab.expect(
        Invariant::ActsLate,
        !holder.is_held("kept")?,
        "what was lost stays lost when the servers go on",
    );
    holder.release("kept")?.ok();
    Ok(())
}

/// All servers are made to serve nobody for one and a half leases by a command of their own.
fn busy(
    lab: &Lab<'_>,
    servers: &[Redis],
    holder: &Agent,
    what: &str,
    begin: impl Fn(&Redis) -> Result<()> + Sync,
) -> Result<()> {
    holder.hold("kept")?;
    let fault = lab.fault(format!("{what} on all servers"));
    thread::scope(|scope| {
        let begun: Vec<_> = servers.iter().map(|redis| scope.spawn(|| begin(redis))).collect();
        let silent = eventually("servers that do not answer", lab.ttl / 2, || {
            for redis in servers {
                let mut connection = redis.connect(Duration::from_millis(50))?;
                ensure!(connection.call(&["PING"]).is_err(), "port {} answers", redis.port());
            }
            Ok(())
        });
        silent?;
        fault.fired("no server answers a PING");
        lost_within_the_lease(lab, holder, "kept")?;
        begun.into_iter().try_for_each(|begun| begun.join().expect("no panic"))
    })?;
    servers.iter().try_for_each(|redis| redis.command(&["PING"]).map(drop))?;
    fault.end();
    stays_lost(lab, holder)
}

/// Expects that a holder without servers tells its loss before the server's lease can be over.
pub(super) fn lost_within_the_lease(lab: &Lab<'_>, holder: &Agent, lock: &str) -> Result<()> {
    let lost = eventually("the loss", lab.ttl + Duration::from_millis(200), || {
        ensure!(!holder.is_held(lock)?, "it is held");
        Ok(())
    });
    lab.expect(Invariant::Loss, lost.is_ok(), "a holder without servers tells its loss within its lease");
    Ok(())
}

/// A write that is late by a lease arrives after the next holder has read, and before it writes: the read must have
/// shut the old token out.
fn late_write(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let (first, second) = (lab.agent()?, lab.agent()?);
    let work = |agent: &Agent| agent.order(Command::Work { lock: "shared".to_owned(), gap: Gap::Stop });
    first.hold("shared")?;
    let fault = lab.fault("two holders stop between their reads and their writes, the first past its lease");
    let late = work(&first)?;
    first.wait_until_stopped()?;
    second.hold("shared")?;
    let next = work(&second)?;
    second.wait_until_stopped()?;
    fault.fired("both processes are in state T");
    first.go_on()?;
    let late = late.wait()?;
    second.go_on()?;
    let next = next.wait()?;
    fault.end();
    lab.expect(
        Invariant::Fencing,
        late == Ok(Answer::Accepted(false)),
        format!("the late write is refused: {late:?}"),
    );
    lab.expect(
        Invariant::Fencing,
        next == Ok(Answer::Accepted(true)),
        format!("the next one is not: {next:?}"),
    );
    first.release("shared")?.ok();
    second.release("shared")?.ok();
    lab.finish(Some(&load))
}
