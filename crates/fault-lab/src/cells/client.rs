//! What clients do to futures, guards and runtimes.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use test_cluster::{Behaviour, Direction, eventually};

use super::{
    ALL, Expected, Local, REMOTE, Redlock, Row, Setnx, network::expect_free, pauses::lost_within_the_lease,
};
use crate::{
    agent::{Command, Pace},
    event::{Answer, How, Invariant},
    lab::{Agent, LOCK, Lab, PATIENCE, Special},
};

pub(super) const ROWS: &[Row] = &[
    Row::new(23, "double release, and release after the end", ALL, releases).quick(&[Local]),
    Row::new(24, "acquire dropped at every await", ALL, cancelled).quick(&[Local, Setnx]),
    Row::new(25, "guard dropped, main returns", ALL, dropped),
    Row::new(26, "renewal races release", REMOTE, races),
    Row::new(44, "panic under the lock, child of a holder", ALL, panics).quick(&[Local]),
    Row::new(48, "acquire polled and then not again", ALL, |lab| stalled(lab, false))
        .quick(&[Setnx])
        .limits(&[(Local, NOT_POLLED)]),
    Row::new(49, "runtime idle under a guard", ALL, |lab| elsewhere(lab, true)),
    Row::new(51, "waiter leaked", ALL, |lab| stalled(lab, true)).limits(&[(Local, NOT_POLLED)]),
    Row::new(52, "runtime ended under a guard", ALL, |lab| elsewhere(lab, false)).quick(&[Local, Redlock]),
];

const NOT_POLLED: Expected = Expected::Limit(
    &[Invariant::Progress],
    "a place in the queue of a process is handed over in turn; who is never polled keeps it",
);

/// A stale release, and a second one, end nobody's hold.
fn releases(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let (first, second) = (lab.agent()?, lab.agent()?);
    first.hold("other")?;
    let fault = lab.fault("releases that are too late, or one too many");
    if !lab.backend.is_local() {
        first.network(Direction::ToServer, Behaviour::Stall);
        lost_within_the_lease(lab, &first, "other")?;
    } else {
        let released = first.release("other")?;
        lab.expect(Invariant::Owner, released.is_ok(), format!("a release in time: {released:?}"));
    }
    second.hold("other")?;
    first.network(Direction::ToServer, Behaviour::Pass);
    let stale = first.release("other")?;
    let expected = if lab.backend.is_local() { "NoGuard" } else { "Lost" };
    lab.expect(
        Invariant::Owner,
        matches!(&stale, Err((kind, _)) if kind == expected),
        format!("a release that comes too late says {expected}: {stale:?}"),
    );
    let verified = second.ask(Command::Verify { lock: "other".to_owned() })?;
    lab.expect(Invariant::Owner, verified.is_ok(), format!("the other's hold is untouched: {verified:?}"));
    fault.fired(format!("it answered {stale:?}"));
    fault.end();
    let released = second.release("other")?;
    lab.expect(Invariant::Owner, released.is_ok(), format!("until it releases: {released:?}"));
    lab.finish(Some(&load))
}

/// The future of an acquire is dropped after each of its polls, with and without a wait.
fn cancelled(lab: &mut Lab<'_>) -> Result<()> {
    /// No acquire has more awaits that a caller can see.
    const MOST: usize = 40;
    let load = lab.load()?;
    let (victim, other) = (lab.agent()?, lab.agent()?);
    let delay = Behaviour::Delay(Duration::from_millis(5));
    victim.network(Direction::ToClient, delay);
    let fault = lab.fault("acquires are dropped at each await");
    let (mut dropped, mut awaits) = (0, Vec::new());
    for (lock, is_held) in [("free", false), ("taken", true)] {
        for how in [How::Try, How::Wait, How::For(2_000)] {
            if is_held {
                other.hold(lock)?;
            }
            // At once, and when what was asked for has been executed.
            for linger in [0, 3] {
                let mut polls = 0;
                loop {
                    polls += 1;
                    let count = drop_after(&victim, lock, how, polls, linger)?;
                    if count < polls || polls == MOST {
                        break;
                    }
                    dropped += 1;
                }
                awaits.push(polls - 1);
            }
            if is_held {
                let released = other.release(lock)?;
                lab.expect(Invariant::Owner, released.is_ok(), format!("the holder releases: {released:?}"));
            }
            soon_free(lab, &other, lock)?;
            held_in_spite_of_undos(lab, &victim, &other, lock)?;
        }
    }
    for polls in 1..=3 {
        victim.hold("free")?;
        let answer = victim.ask(Command::CancelRelease { lock: "free".to_owned(), polls })?;
        ensure!(matches!(answer, Ok(Answer::Count(_))), "a release that is dropped gave {answer:?}");
        soon_free(lab, &other, "free")?;
    }
    fault.fired(format!("{dropped} acquires were dropped, after up to {awaits:?} polls"));
    ensure!(dropped > 0 || lab.backend.is_local(), "no acquire was dropped");
    fault.end();
    lab.finish(Some(&load))
}

/// A client that dropped acquires holds the lock, and no undo of theirs frees it.
fn held_in_spite_of_undos(lab: &Lab<'_>, victim: &Agent, other: &Agent, lock: &str) -> Result<()> {
    drop_after(victim, lock, How::Try, 1, 3)?;
    victim.hold(lock)?;
    lab.let_pass(lab.ttl / 5);
    let busy = other.acquire(lock, How::Try)?;
    lab.expect(
        Invariant::Owner,
        busy == Ok(Answer::Busy),
        format!("no late undo frees the next hold: {busy:?}"),
    );
    if busy.is_ok_and(|answer| answer != Answer::Busy) {
        other.release(lock)?.ok();
    }
    let released = victim.release(lock)?;
    lab.expect(Invariant::Owner, released.is_ok(), format!("its holder releases it: {released:?}"));
    Ok(())
}

fn drop_after(victim: &Agent, lock: &str, how: How, polls: usize, linger: u64) -> Result<usize> {
    match victim.ask(Command::CancelAcquire { lock: lock.to_owned(), how, polls, linger })? {
        Ok(Answer::Count(count)) => Ok(count as usize),
        other => bail!("an acquire that is dropped after {polls} polls gave {other:?}"),
    }
}

/// Another acquires `lock` at once: what was dropped is undone in the background, not by the end of a lease.
fn soon_free(lab: &Lab<'_>, other: &Agent, lock: &str) -> Result<()> {
    let bound = lab.ttl / 2;
    let outcome = other.acquire(lock, How::For(bound.as_millis() as u64))?;
    let holds = matches!(outcome, Ok(Answer::Acquired { .. }));
    lab.expect(Invariant::Leaks, holds, format!("{lock:?} is free within {bound:?}: {outcome:?}"));
    if holds {
        other.release(lock)?.ok();
    }
    Ok(())
}

/// A guard is dropped, and a process ends with one.
fn dropped(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let (victim, other) = (lab.agent()?, lab.agent()?);
    victim.hold("dropped")?;
    let fault = lab.fault("a guard is dropped without a release");
    let answer = victim.ask(Command::Drop { lock: "dropped".to_owned() })?;
    fault.fired(format!("the drop returned: {answer:?}"));
    fault.end();
    soon_free(lab, &other, "dropped")?;
    let leaving = lab.special_agent(Special { apart: true, ..Special::default() })?;
    leaving.hold("left")?;
    let fault = lab.fault("main returns while a guard lives");
    leaving.order(Command::Exit)?.wait_for(Duration::from_millis(1)).ok();
    let status = eventually("the process to end", PATIENCE, || {
        leaving.process.status().ok_or_else(|| anyhow::anyhow!("it runs"))
    })?;
    fault.fired(format!("the process ended: {status}"));
    fault.end();
    lab.expect(
        Invariant::Leaks,
        status.success(),
        format!("a process with a guard ends without a panic: {status}"),
    );
    if !lab.backend.is_local() {
        expect_free(lab, "left", "the lock of a process that ended is free when its lease ends")?;
    }
    lab.finish(Some(&load))
}

/// Locks are released around the instant at which they are renewed, hundreds of times.
fn races(lab: &mut Lab<'_>) -> Result<()> {
    const LOCKS: usize = 16;
    const ROUNDS: usize = 12;
    let load = lab.load()?;
    // Whoever looks at the end has to be there by then: what was taken again is gone after a lease.
    let (racer, other) = (lab.agent()?, lab.agent()?);
    let renewal = (lab.ttl / 3).as_millis() as u64;
    let fault = lab.fault("locks are released while they are renewed");
    let from = lab.history.len();
    for index in 0..LOCKS {
        let pace = Pace { how: How::Try, hold: renewal - 100, jitter: 120, rest: 1, rounds: ROUNDS as u64 };
        let lock = format!("race {index}");
        let begun = racer.ask(Command::Contend { lock, tasks: 1, pace })?;
        ensure!(begun.is_ok(), "the racer did not begin: {begun:?}");
    }
    let rounds = LOCKS * ROUNDS * 3 / 4;
    lab.history.wait_for_cycles("races", from, rounds, PATIENCE)?;
    fault.fired(format!("{rounds} rounds ended around the time of a renewal"));
    let ended = racer.ask(Command::Cease)?;
    ensure!(ended.is_ok(), "the racer did not end: {ended:?}");
    fault.end();
    // A renewal that a release did not stop comes within its period, and what it takes is taken for a lease. Those who
    // look release as well, and so leave something to be found by the next look.
    for _ in 0..3 {
        lab.let_pass(lab.ttl / 2);
        for index in 0..LOCKS {
            let lock = format!("race {index}");
            let free = other.acquire(&lock, How::Try)?;
            lab.expect(
                Invariant::Leaks,
                free != Ok(Answer::Busy),
                format!("no renewal brings {lock:?} back: {free:?}"),
            );
            if matches!(free, Ok(Answer::Acquired { .. })) {
                other.release(&lock)?.ok();
            }
        }
    }
    lab.finish(Some(&load))
}

/// A task panics while it has the guard.
fn panics(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let (victim, other) = (lab.agent()?, lab.agent()?);
    victim.hold("panic")?;
    let fault = lab.fault("a panic under the lock");
    let answer = victim.ask(Command::Panic { lock: "panic".to_owned() })?;
    ensure!(answer == Ok(Answer::Held(false)), "the task must panic: {answer:?}");
    fault.fired("the task that had the guard panicked");
    fault.end();
    soon_free(lab, &other, "panic")?;
    victim.hold(LOCK)?;
    victim.release(LOCK)?.ok();
    if !lab.backend.is_local() {
        outlived(lab)?;
    }
    lab.finish(Some(&load))
}

/// A holder dies, and a process that it started lives on.
fn outlived(lab: &Lab<'_>) -> Result<()> {
    let parent = lab.agent()?;
    parent.hold("inherited")?;
    let child = match parent.ask(Command::Spawn)? {
        Ok(Answer::Count(pid)) => u32::try_from(pid)?,
        other => bail!("an agent was to start a process, and answered {other:?}"),
    };
    let fault = lab.fault("the holder is killed, and its child lives on");
    let files = std::fs::read_dir(format!("/proc/{child}/fd"))?
        .map(|file| Ok(std::fs::read_link(file?.path())?.display().to_string()))
        .collect::<Result<Vec<_>>>()?;
    let has_connection = files.iter().any(|file| file.starts_with("socket:"));
    lab.expect(Invariant::Leaks, !has_connection, format!("a child has no connection: {files:?}"));
    parent.kill()?;
    expect_free(lab, "inherited", "what a dead process held is free, though its child lives")?;
    ensure!(test_cluster::process::is_running(child), "the child has ended");
    fault.fired(format!("process {child} lives"));
    fault.end();
    let child = i32::try_from(child).ok().and_then(Pid::from_raw).context("a process has a number")?;
    kill_process(child, Signal::KILL).context("cannot end the child")
}

/// Acquires are begun, polled some times, and then kept unpolled, or leaked.
fn stalled(lab: &mut Lab<'_>, leak: bool) -> Result<()> {
    let load = lab.load()?;
    // One that stalls at the head of a queue is taken out of it after two leases.
    let bound = lab.recovery() + lab.ttl * 2;
    lab.rules.patience += lab.rules.ttl * 2;
    // Where it is never taken out, the load goes on with another lock.
    let lock = if lab.backend.is_local() { "stalled" } else { LOCK };
    let other = lab.agent()?;
    let mut stalled = Vec::new();
    for polls in [1, 2, 3] {
        if lab.backend.is_local() && polls == 1 {
            other.hold(lock)?;
        }
        let victim = lab.agent()?;
        let fault = lab.fault(format!("an acquire is polled {polls} times and then not again"));
        let answer = victim.ask(Command::Stall { lock: lock.to_owned(), polls, leak })?;
        fault.fired(format!("it answered {answer:?}"));
        fault.end();
        if lab.backend.is_local() && polls == 1 {
            other.release(lock)?.ok();
        }
        let served = other.acquire(lock, How::For(bound.as_millis() as u64))?;
        let holds = matches!(served, Ok(Answer::Acquired { .. }));
        lab.expect(Invariant::Progress, holds, format!("others are served beside it: {served:?}"));
        stalled.push(victim);
        if !holds {
            break;
        }
        other.release(lock)?.ok();
    }
    lab.finish(Some(&load))
}

/// A guard whose locker was made in a runtime that is idle, or has ended: nothing renews it.
fn elsewhere(lab: &mut Lab<'_>, idle: bool) -> Result<()> {
    let load = lab.load()?;
    let (victim, other) = (lab.agent()?, lab.agent()?);
    let fault =
        lab.fault(if idle { "the locker's runtime is idle" } else { "the locker's runtime has ended" });
    let answer = victim.ask(Command::Elsewhere { lock: "elsewhere".to_owned(), idle })?;
    ensure!(matches!(answer, Ok(Answer::Acquired { .. })), "it must be free: {answer:?}");
    fault.fired(format!("the guard came out of the other runtime: {answer:?}"));
    if lab.backend.is_local() {
        lab.let_pass(lab.ttl);
        lab.expect(Invariant::Loss, victim.is_held("elsewhere")?, "a lock of a process needs no runtime");
    } else {
        lost_within_the_lease(lab, &victim, "elsewhere")?;
    }
    let dropped = victim.ask(Command::Drop { lock: "elsewhere".to_owned() })?;
    lab.expect(
        Invariant::Leaks,
        dropped.is_ok(),
        format!("a drop without the runtime does not panic: {dropped:?}"),
    );
    fault.end();
    let outcome = other.acquire("elsewhere", How::For(lab.recovery().as_millis() as u64))?;
    lab.expect(
        Invariant::Leaks,
        matches!(outcome, Ok(Answer::Acquired { .. })),
        format!("the lock is free when its lease ends: {outcome:?}"),
    );
    other.release("elsewhere")?.ok();
    lab.finish(Some(&load))
}
