//! Networks that stall, delay, lose and cut.

use std::time::Duration;

use anyhow::{Result, ensure};
use test_cluster::{Behaviour, Direction, eventually};

use super::{Q, REMOTE, RQ, Redlock, Row, Setnx, pauses::lost_within_the_lease};
use crate::{
    agent::Command,
    event::{Answer, How, Invariant},
    lab::{Agent, LOCK, Lab, PATIENCE},
};

pub(super) const ROWS: &[Row] = &[
    Row::new(11, "client cut off from the servers", REMOTE, cut_off).quick(&[Setnx, Redlock, super::Etcd]),
    Row::new(13, "one direction of the network stalls", REMOTE, one_way),
    Row::new(14, "replies later than the lease", REMOTE, late_replies).quick(&[Setnx]),
    Row::new(15, "requests later than the lease", RQ, late_requests).quick(&[Setnx]),
    Row::new(16, "reply lost after execution", REMOTE, lost_replies).quick(&[Redlock]),
    Row::new(17, "half-open connections", REMOTE, half_open),
    Row::new(27, "storm of resets", REMOTE, resets),
    Row::new(55, "slow replies, and then no renewal", REMOTE, slow_reply).overlapping(),
    Row::new(56, "waiter cut off past its lease", REMOTE, waiter_cut_off),
    Row::new(57, "each client reaches another majority", Q, majorities),
    Row::new(50, "a stream of notices falls silent for good", REMOTE, silence),
];

const BOTH: [Direction; 2] = [Direction::ToServer, Direction::ToClient];

/// The bytes of a client that arrived, and are held or lost.
fn held_back(agent: &Agent, before: u64, directions: &[Direction]) -> Result<String> {
    eventually("bytes that do not arrive", PATIENCE, || {
        let bytes: u64 = directions.iter().map(|direction| agent.bytes(*direction)).sum();
        ensure!(bytes > before, "nothing was sent");
        Ok(format!("{} bytes were held back", bytes - before))
    })
}

fn total(agent: &Agent, directions: &[Direction]) -> u64 {
    directions.iter().map(|direction| agent.bytes(*direction)).sum()
}

/// A holder's network stalls both ways; TCP tells it nothing.
fn cut_off(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let victim = lab.agent()?;
    victim.hold(LOCK)?;
    let fault = lab.fault("the holder's network stalls both ways");
    let before = total(&victim, &BOTH);
    BOTH.iter().for_each(|direction| victim.network(*direction, Behaviour::Stall));
    lost_within_the_lease(lab, &victim, LOCK)?;
    fault.fired(held_back(&victim, before, &BOTH)?);
    lab.cycles("rounds of the others", 3)?;
    // The loss has time to be told before the release.
    lab.let_pass(lab.ttl / 5);
    BOTH.iter().for_each(|direction| victim.network(*direction, Behaviour::Pass));
    fault.end();
    let released = victim.release(LOCK)?;
    lab.expect(
        Invariant::Owner,
        matches!(&released, Err((kind, _)) if kind == "Lost"),
        format!("a release after the loss says so: {released:?}"),
    );
    victim.hold(LOCK)?;
    victim.release(LOCK)?.ok();
    lab.finish(Some(&load))
}

/// Requests arrive and replies do not, and the reverse.
fn one_way(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let victim = lab.agent()?;
    for direction in BOTH {
        victim.hold("kept")?;
        let fault = lab.fault(format!("the holder's bytes stall {direction:?}"));
        let before = victim.bytes(direction);
        victim.network(direction, Behaviour::Stall);
        let outcome = victim.acquire("other", How::Try)?;
        expect_unavailable(lab, &outcome);
        fault.fired(held_back(&victim, before, &[direction])?);
        lost_within_the_lease(lab, &victim, "kept")?;
        victim.network(direction, Behaviour::Pass);
        fault.end();
        // A late answer to a renewal must not make it held again.
        lab.let_pass(lab.ttl / 10);
        lab.expect(Invariant::ActsLate, !victim.is_held("kept")?, "what was lost stays lost");
        victim.release("kept")?.ok();
        expect_free(lab, "other", "what an unanswered acquire took is given back")?;
        expect_free(lab, "kept", "the lock that was lost is free")?;
    }
    lab.finish(Some(&load))
}

fn expect_unavailable(lab: &Lab<'_>, outcome: &crate::lab::agents::Outcome) {
    let holds = matches!(outcome, Err((kind, _)) if kind == "Unavailable");
    lab.expect(Invariant::Errors, holds, format!("an acquire without an answer is Unavailable: {outcome:?}"));
}

/// Another client acquires `lock` within the time that a lease takes at most, and lets go of it.
pub(super) fn expect_free(lab: &Lab<'_>, lock: &str, text: &str) -> Result<()> {
    let other = lab.agent()?;
    let outcome = other.acquire(lock, How::For(lab.recovery().as_millis() as u64))?;
    let holds = matches!(outcome, Ok(Answer::Acquired { .. }));
    lab.expect(Invariant::Leaks, holds, format!("{text}: {outcome:?}"));
    if holds {
        other.release(lock)?.ok();
    }
    Ok(())
}

/// A client that has used all its connections once.
fn connected(lab: &Lab<'_>) -> Result<Agent> {
    let client = lab.agent()?;
    client.hold("before")?;
    let released = client.release("before")?;
    ensure!(released.is_ok(), "a client can release: {released:?}");
    Ok(client)
}

/// Replies take longer than a lease: no acquire may return a lock that is over.
fn late_replies(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let victim = connected(lab)?;
    let fault = lab.fault("replies to one client take longer than a lease");
    let before = victim.bytes(Direction::ToClient);
    victim.network(Direction::ToClient, Behaviour::Delay(lab.ttl + Duration::from_millis(100)));
    for how in [How::Try, How::For((lab.ttl * 2).as_millis() as u64)] {
        let outcome = victim.acquire("other", how)?;
        lab.expect(
            Invariant::ActsLate,
            !matches!(outcome, Ok(Answer::Acquired { .. })),
            format!("an acquire whose reply is too late gives no lock: {outcome:?}"),
        );
    }
    fault.fired(held_back(&victim, before, &[Direction::ToClient])?);
    victim.network(Direction::ToClient, Behaviour::Pass);
    fault.end();
    expect_free(lab, "other", "what came too late is given back")?;
    victim.hold(LOCK)?;
    victim.release(LOCK)?.ok();
    lab.finish(Some(&load))
}

/// Requests arrive when the lease that they are about is over: an acquire, and a release.
fn late_requests(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let (victim, other) = (lab.agent()?, lab.agent()?);
    victim.hold("released late")?;
    let fault = lab.fault("one client's requests are held for more than a lease");
    let before = victim.bytes(Direction::ToServer);
    victim.network(Direction::ToServer, Behaviour::Stall);
    let acquiring = victim.order(Command::Acquire { lock: "acquired late".to_owned(), how: How::Try })?;
    let releasing = victim.order(Command::Release { lock: "released late".to_owned() })?;
    let (acquired, released) = (acquiring.wait()?, releasing.wait()?);
    lab.expect(Invariant::Errors, acquired.is_err(), format!("no answer is an error: {acquired:?}"));
    lab.expect(Invariant::Errors, released.is_err(), format!("no answer is an error: {released:?}"));
    lab.let_pass(lab.ttl);
    fault.fired(held_back(&victim, before, &[Direction::ToServer])?);
    other.hold("acquired late")?;
    other.hold("released late")?;
    victim.network(Direction::ToServer, Behaviour::Pass);
    fault.end();
    // Round trips of the victim over the same connections come after what was late.
    victim.hold("after")?;
    victim.release("after")?.ok();
    for lock in ["acquired late", "released late"] {
        let verified = other.ask(Command::Verify { lock: lock.to_owned() })?;
        lab.expect(
            Invariant::Owner,
            verified.is_ok(),
            format!("late requests touch no newer hold: {verified:?}"),
        );
        lab.expect(Invariant::Owner, other.is_held(lock)?, "and its holder goes on");
        let released = other.release(lock)?;
        lab.expect(Invariant::Owner, released.is_ok(), format!("until it releases: {released:?}"));
        expect_free(lab, lock, "late requests leave nothing")?;
    }
    lab.finish(Some(&load))
}

/// Each command of the protocol is executed, and its reply is lost with the connection.
fn lost_replies(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let (victim, other) = (lab.agent()?, lab.agent()?);
    let lose = |what: &str| {
        let fault = lab.fault(format!("the reply to {what} is lost"));
        let before: u64 = victim.process.proxies.iter().map(|proxy| proxy.connections()).sum();
        victim.process.proxies.iter().for_each(|proxy| proxy.drop_next_reply());
        (fault, before)
    };
    let fired = |fault: crate::lab::Fault, before: u64| -> Result<()> {
        let again = eventually("a new connection", PATIENCE, || {
            let now: u64 = victim.process.proxies.iter().map(|proxy| proxy.connections()).sum();
            ensure!(now > before, "none was made");
            Ok(now - before)
        })?;
        fault.fired(format!("{again} connections broke and were made anew"));
        fault.end();
        Ok(())
    };
    for how in [How::Try, How::Wait] {
        let (fault, before) = lose("an acquire");
        let outcome = victim.acquire("other", how)?;
        fired(fault, before)?;
        if outcome.is_ok() {
            let busy = other.acquire("other", How::Try)?;
            lab.expect(
                Invariant::Owner,
                busy == Ok(Answer::Busy),
                format!("what was granted is held: {busy:?}"),
            );
            let (fault, before) = lose("a release");
            let released = victim.release("other")?;
            fired(fault, before)?;
            lab.expect(
                Invariant::Owner,
                !matches!(&released, Err((kind, _)) if kind == "Lost"),
                format!("a release is not taken for a loss: {released:?}"),
            );
        } else {
            expect_unavailable(lab, &outcome);
        }
        expect_free(lab, "other", "nothing is left of an acquire or release without a reply")?;
    }
    victim.hold("kept")?;
    let (fault, before) = lose("a renewal");
    fired(fault, before)?;
    lab.let_pass(lab.ttl);
    lab.expect(Invariant::Progress, victim.is_held("kept")?, "a renewal without a reply is repeated in time");
    let (fault, before) = lose("a look at the server");
    let verified = victim.ask(Command::Verify { lock: "kept".to_owned() })?;
    fired(fault, before)?;
    lab.expect(
        Invariant::Owner,
        !matches!(&verified, Err((kind, _)) if kind == "Lost"),
        format!("a look without a reply is no loss: {verified:?}"),
    );
    victim.release("kept")?.ok();
    lab.finish(Some(&load))
}

/// The peer vanishes without a word, and connections look open.
fn half_open(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let victim = lab.agent()?;
    victim.hold("kept")?;
    let fault = lab.fault("one client's bytes vanish both ways");
    let before = total(&victim, &BOTH);
    BOTH.iter().for_each(|direction| victim.network(*direction, Behaviour::Swallow));
    let started = crate::event::now();
    let outcome = victim.acquire("other", How::Try)?;
    let took = crate::event::now() - started;
    expect_unavailable(lab, &outcome);
    lab.expect(
        Invariant::Errors,
        u128::from(took) < lab.ttl.as_nanos(),
        format!("it is noticed within a lease: {} ms", took / crate::event::MS),
    );
    fault.fired(held_back(&victim, before, &BOTH)?);
    lost_within_the_lease(lab, &victim, "kept")?;
    BOTH.iter().for_each(|direction| victim.network(*direction, Behaviour::Pass));
    victim.process.proxies.iter().for_each(|proxy| proxy.reset_all());
    fault.end();
    victim.release("kept")?.ok();
    expect_free(lab, "kept", "a lock whose holder vanished is free")?;
    victim.hold(LOCK)?;
    victim.release(LOCK)?.ok();
    lab.finish(Some(&load))
}

/// All connections of a holder are reset again and again, for two leases.
fn resets(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let victim = lab.agent()?;
    victim.hold("kept")?;
    let fault = lab.fault("the holder's connections are reset again and again");
    let connections = || -> u64 { victim.process.proxies.iter().map(|proxy| proxy.connections()).sum() };
    let (before, storm) = (connections(), lab.ttl / 5);
    for _ in 0..10 {
        victim.process.proxies.iter().for_each(|proxy| proxy.reset_all());
        lab.let_pass(storm);
    }
    fault.fired(format!("{} connections were made anew", connections() - before));
    ensure!(connections() > before, "no connection was reset");
    fault.end();
    lab.expect(Invariant::Progress, victim.is_held("kept")?, "a holder renews between resets");
    let made = connections() - before;
    lab.expect(Invariant::Errors, made < 1_000, format!("nobody dials in a loop: {made} connections"));
    victim.release("kept")?.ok();
    if matches!(lab.backend.soil(), Redlock | Setnx) {
        no_more_clients(lab)?;
    }
    lab.finish(Some(&load))
}

/// Redis takes no more connections: those who have one go on, and a new client is told.
fn no_more_clients(lab: &Lab<'_>) -> Result<()> {
    let holder = lab.agent()?;
    holder.hold("kept")?;
    let fault = lab.fault("maxclients is reached");
    let mut admins = (0..lab.servers.count())
        .map(|index| lab.servers.redis(index).connect(PATIENCE))
        .collect::<Result<Vec<_>>>()?;
    for admin in &mut admins {
        admin.call(&["CONFIG", "SET", "maxclients", "1"])?;
    }
    let refused = holder.ask(Command::Connect { urls: None, keep: false })?;
    fault.fired(format!("a new client is answered {refused:?}"));
    lab.expect(
        Invariant::Errors,
        matches!(&refused, Err((kind, message)) if kind == "Unavailable" && message.contains("maxclients")),
        format!("a new client is told of maxclients: {refused:?}"),
    );
    lab.let_pass(lab.ttl * 2);
    lab.expect(Invariant::Progress, holder.is_held("kept")?, "who has a connection goes on renewing");
    for admin in &mut admins {
        admin.call(&["CONFIG", "SET", "maxclients", "10000"])?;
    }
    fault.end();
    holder.release("kept")?.ok();
    Ok(())
}

/// What was subscribed to or watched tells nothing any more, and its connection looks open.
fn silence(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let (waiter, holder) = (lab.agent()?, lab.agent()?);
    holder.hold("other")?;
    let waiting = waiter.wait_for("other")?;
    lab.let_pass(Duration::from_millis(200));
    let fault = lab.fault("the waiter's connections fall silent for good");
    let silenced: usize = waiter.process.proxies.iter().map(|proxy| proxy.silence()).sum();
    ensure!(silenced > 0, "there is no connection");
    fault.fired(format!("{silenced} connections tell nothing any more"));
    fault.end();
    let released = holder.release("other")?;
    ensure!(released.is_ok(), "the holder can release: {released:?}");
    let outcome = waiting.wait_for(lab.recovery() + lab.ttl * 2)?;
    lab.expect(
        Invariant::Progress,
        outcome.is_ok() || matches!(&outcome, Err((kind, _)) if kind == "Unavailable"),
        format!("a waiter whose notices stopped is served, or told: {outcome:?}"),
    );
    if outcome.is_ok() {
        waiter.release("other")?.ok();
    }
    expect_free(lab, "other", "the silent waiter left nothing")?;
    // The connections that are silent would hold the end up.
    waiter.process.proxies.iter().for_each(|proxy| proxy.reset_all());
    lab.finish(Some(&load))
}

/// The reply to an acquire takes some time, and then nothing can be renewed: belief counts from the request.
fn slow_reply(lab: &mut Lab<'_>) -> Result<()> {
    // A session has to be renewed meanwhile, in requests that may take a sixth.
    let late = if lab.backend.watches_its_entry() { lab.ttl / 20 } else { lab.ttl / 10 };
    let load = lab.load()?;
    for _ in 0..2 {
        let victim = connected(lab)?;
        let fault = lab.fault("replies take a part of a lease, and then requests stall");
        victim.network(Direction::ToClient, Behaviour::Delay(late));
        victim.hold(LOCK)?;
        let before = victim.bytes(Direction::ToServer);
        victim.network(Direction::ToServer, Behaviour::Stall);
        lab.cycles("rounds of the others", 3)?;
        fault.fired(held_back(&victim, before, &[Direction::ToServer])?);
        BOTH.iter().for_each(|direction| victim.network(*direction, Behaviour::Pass));
        fault.end();
        victim.release(LOCK)?.ok();
    }
    lab.finish(Some(&load))
}

/// A waiter is cut off for two leases, so that its place is gone, and comes back while others hold and wait.
fn waiter_cut_off(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let (holder, waiter, next) = (lab.agent()?, lab.agent()?, lab.agent()?);
    let lock = "other";
    holder.hold(lock)?;
    let waiting = waiter.wait_for(lock)?;
    // why: there is no event for a place in the queue of a server
    lab.let_pass(Duration::from_millis(100));
    let behind = next.wait_for(lock)?;
    lab.let_pass(Duration::from_millis(100));
    let fault = lab.fault("a waiter's network stalls both ways for two leases");
    let before = waiter.bytes(Direction::ToServer);
    BOTH.iter().for_each(|direction| waiter.network(*direction, Behaviour::Stall));
    lab.let_pass(lab.ttl * 2);
    fault.fired(held_back(&waiter, before, &[Direction::ToServer])?);
    // It moves on while the waiter is away: the next is served, and holds.
    holder.release(lock)?.ok();
    let served = behind.wait()?;
    lab.expect(Invariant::Progress, served.is_ok(), format!("the next in line is served: {served:?}"));
    BOTH.iter().for_each(|direction| waiter.network(*direction, Behaviour::Pass));
    fault.end();
    lab.let_pass(lab.ttl);
    lab.expect(Invariant::Owner, next.is_held(lock)?, "who was served goes on when the waiter is back");
    next.release(lock)?.ok();
    let outcome = waiting.wait_for(lab.recovery() * 2)?;
    lab.expect(
        Invariant::Progress,
        outcome.is_ok() || matches!(&outcome, Err((kind, _)) if kind == "Unavailable"),
        format!("the waiter is served, or was told: {outcome:?}"),
    );
    if outcome.is_ok() {
        waiter.release(lock)?.ok();
    }
    lab.finish(Some(&load))
}

/// Each contender can talk to three of five servers only, and each to three others.
fn majorities(lab: &mut Lab<'_>) -> Result<()> {
    let load = lab.load()?;
    let fault = lab.fault("each client is cut off from two servers, each from others");
    let count = lab.servers.count();
    let cut = |agent: usize| [(2 * agent) % count, (2 * agent + 1) % count];
    for (index, agent) in load.agents.iter().enumerate() {
        for server in cut(index) {
            let proxy = &agent.process.proxies[server];
            proxy.refuse(true);
            proxy.reset_all();
        }
    }
    lab.cycles("rounds over different majorities", 30)?;
    // The second meets the larger token of the first on some of its servers only, and the third on one other.
    for index in [2, 2, 2, 0, 1] {
        let agent = &load.agents[index];
        agent.hold("in turn")?;
        agent.release("in turn")?.ok();
    }
    fault.fired(format!("they are cut off from {:?}", (0..load.agents.len()).map(cut).collect::<Vec<_>>()));
    for agent in &load.agents {
        agent.process.proxies.iter().for_each(|proxy| proxy.refuse(false));
    }
    fault.end();
    lab.finish(Some(&load))
}
