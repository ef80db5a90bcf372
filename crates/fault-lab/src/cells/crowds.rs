//! Many at once, and one right after another.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use test_cluster::{Behaviour, Direction};

use super::{ALL, Local, REMOTE, Row};
use crate::{
    agent::{Command, Pace},
    event::{How, Invariant, What},
    lab::{LOCK, Lab, PACE},
};

pub(super) const ROWS: &[Row] = &[
    Row::new(28, "a thousand waiters", ALL, crowd).quick(&[Local]),
    Row::new(59, "released while another begins to wait", REMOTE, begins),
];

/// A thousand tasks wait for one lock, and ten clients that came one after another.
fn crowd(lab: &mut Lab<'_>) -> Result<()> {
    const WAITERS: usize = 1_000;
    const QUEUE: usize = 10;
    let load = lab.load()?;
    let fault = lab.fault(format!("{WAITERS} tasks wait for one lock"));
    let crowd = lab.agent()?;
    let pace = Pace { how: How::Wait, hold: 0, jitter: 0, rest: 0, rounds: 1 };
    let from = lab.history.len();
    let begun = crowd.ask(Command::Contend { lock: "crowd".to_owned(), tasks: WAITERS, pace })?;
    ensure!(begun.is_ok(), "the crowd did not begin: {begun:?}");
    lab.history.wait_for_cycles("each of the crowd", from, WAITERS, Duration::from_secs(60))?;
    let sent: u64 = crowd.process.proxies.iter().map(|proxy| proxy.requests()).sum();
    fault.fired(format!("{WAITERS} were served, with {sent} messages of Redis, if it was Redis"));
    // A herd would cost each release as many requests as there are waiters.
    let most = (WAITERS * 40 * lab.servers.count().max(1)) as u64;
    lab.expect(Invariant::Order, sent < most, format!("no herd: {sent} messages for {WAITERS} waiters"));
    fault.end();

    let fault = lab.fault(format!("{QUEUE} clients queue one after another"));
    let holder = lab.agent()?;
    holder.hold("queue")?;
    let clients = (0..QUEUE).map(|_| lab.agent()).collect::<Result<Vec<_>>>()?;
    let mut waiting = Vec::new();
    for client in &clients {
        waiting.push(client.wait_for("queue")?);
        // why: there is no event for a place in the queue of a server
        lab.let_pass(Duration::from_millis(60));
    }
    fault.fired(format!("{} wait", waiting.len()));
    let from = lab.history.len();
    holder.release("queue")?.ok();
    let mut order = Vec::new();
    for _ in 0..QUEUE {
        let agent = lab.history.wait("one of the queue", from, Duration::from_secs(20), |event| {
            let is_new =
                !order.contains(&event.agent) && clients.iter().any(|client| client.number == event.agent);
            matches!(event.what, What::Acquired { .. }).then_some(event.agent).filter(|_| is_new)
        })?;
        order.push(agent);
        let client = clients.iter().find(|client| client.number == agent).expect("it is one of them");
        // The load has the same agents' numbers nowhere else, so the guard is there now.
        waiting[clients.iter().position(|client| client.number == agent).expect("it is one of them")]
            .wait()?
            .ok();
        client.release("queue")?.ok();
    }
    fault.end();
    if lab.backend.is_fair() {
        let came: Vec<_> = clients.iter().map(|client| client.number).collect();
        lab.expect(
            Invariant::Order,
            order == came,
            format!("who came in order {came:?} is served so: {order:?}"),
        );
    }
    crowd.hold(LOCK)?;
    crowd.release(LOCK)?.ok();
    lab.finish(Some(&load))
}

/// A holder releases at one phase after another of what a waiter does to begin to wait, of which each step takes long.
fn begins(lab: &mut Lab<'_>) -> Result<()> {
    const SLOW: Duration = Duration::from_millis(30);
    const PHASES: u32 = 12;
    // Those who only try miss no news: this is about the one waiter.
    let load = lab.load_of(3, Pace { how: How::Try, ..PACE })?;
    let (holder, waiter) = (lab.agent()?, lab.agent()?);
    for phase in 0..PHASES {
        holder.hold("other")?;
        let fault = lab.fault("each reply to the waiter is late, and the holder releases meanwhile");
        waiter.network(Direction::ToClient, Behaviour::Delay(SLOW));
        let waiting = waiter.wait_for("other")?;
        lab.let_pass(SLOW / 2 * phase);
        let released = holder.release("other")?;
        ensure!(released.is_ok(), "the holder can release: {released:?}");
        fault.fired(format!("it released {:?} after the waiter had begun", SLOW / 2 * phase));
        waiter.network(Direction::ToClient, Behaviour::Pass);
        fault.end();
        match waiting.wait_for(lab.recovery()) {
            Ok(Ok(_)) => ensure!(waiter.release("other")?.is_ok(), "the waiter can release"),
            Ok(Err(error)) => bail!("the waiter cannot wait: {error:?}"),
            Err(late) => {
                lab.expect(Invariant::Progress, false, format!("the waiter hears of a release: {late:#}"));
                break;
            }
        }
    }
    lab.finish(Some(&load))
}
