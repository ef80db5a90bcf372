//! What locks cost that are held, what waiters cost that wait, and how soon a dead holder is succeeded.

use std::{thread, time::Duration};

use anyhow::{Context, Result, bail};
use tokio::{runtime::Runtime, time::Instant};

use crate::{
    agent::{self, Agent, Orders, Task},
    load, locks,
    results::{Held, Idle, Latency, Recovery},
    setup::{Servers, Setup},
    stats::Quartiles,
};

/// The leases of locks that are held, as a user has them who chooses nothing.
const TTL: Duration = Duration::from_secs(10);

/// The lease of a holder that is killed.
const SHORT_TTL: Duration = Duration::from_secs(2);

/// How long a waiter has been waiting when its predecessor dies.
const WAITED: Duration = Duration::from_millis(300);

/// Waiters have come to rest when their memory stays as it is for this time.
const QUIET: Duration = Duration::from_millis(500);

/// The servers of a setup, and where they are.
#[derive(Debug)]
pub struct Place<'a> {
    /// Which they are.
    pub setup: Setup,
    /// What runs.
    pub servers: &'a Servers,
    /// Their addresses.
    pub urls: &'a [String],
}

impl Place<'_> {
    fn orders(&self, ttl: Duration, task: Task) -> Orders {
        Orders { setup: self.setup, urls: self.urls.to_vec(), ttl, task }
    }

    /// Has one client hold `count` locks, and measures it for `time`, while it also acquires one more again and again.
    ///
    /// # Errors
    ///
    /// A lock cannot be acquired.
    pub fn held(&self, count: usize, time: Duration) -> Result<Held> {
        let orders = self.orders(TTL, Task::Hold(count));
        let (mut agent, ready) = Agent::start(&orders).or_else(|_| {
            // What those before left ends with their leases, and may keep the servers busy until then.
            thread::sleep(TTL);
            Agent::start(&orders)
        })?;
        let before = self.servers.requests(false)?;
        agent.begin(time)?;
        let went = agent.went()?;
        let after = self.servers.requests(false)?;
        let sample = went.record.sample();
        let turns: usize = went.record.turns.iter().map(Vec::len).sum();
        // Two requests of the turns beside, three where an acquire is two; the rest keeps what is held.
        let own = turns as u64 * self.setup.requests_of_a_pair();
        let renewals = before.zip(after).map(|(before, after)| (after - before).saturating_sub(own));
        Ok(Held {
            setup: self.setup,
            locks: count,
            seconds: ready.seconds,
            bytes: ready.memory.saturating_sub(ready.base) as f64 / count as f64,
            tasks: ready.tasks,
            requests: renewals.map(|renewals| renewals as f64 / (sample.seconds * 1.125)),
            cpu: sample.cpu / sample.seconds,
            acquire: Latency::of(&sample.acquire).context("nothing was acquired beside")?,
            lost: went.lost,
        })
    }

    /// Has `count` callers wait in one client, each for a key that another holds.
    ///
    /// # Errors
    ///
    /// A lock cannot be acquired.
    pub fn idle(&self, runtime: &Runtime, count: usize, time: Duration) -> Result<Idle> {
        let holder = runtime.block_on(locks::ours(self.setup, self.urls, TTL))?;
        let guards = runtime.block_on(agent::hold(&holder, 0, count))?;
        let (mut agent, ready) = Agent::start(&self.orders(TTL, Task::Wait(count)))?;
        let bytes = until_quiet(&agent)?.saturating_sub(ready.base);
        let before = self.servers.requests(false)?;
        agent.begin(time)?;
        let went = agent.went()?;
        let after = self.servers.requests(false)?;
        drop(agent);
        drop(guards);
        runtime.block_on(holder.close());
        let seconds = (went.record.end - went.record.start) as f64 / 1e9;
        Ok(Idle {
            setup: self.setup,
            waiters: count,
            bytes: bytes as f64 / count as f64,
            tasks: ready.tasks,
            requests: before.zip(after).map(|(before, after)| (after - before) as f64 / seconds),
            cpu: went.record.cpu.as_secs_f64() / seconds,
        })
    }

    /// Kills the holder of a key for which another waits, `rounds` times.
    ///
    /// # Errors
    ///
    /// The waiter never acquires.
    pub fn recovery(&self, runtime: &Runtime, rounds: usize) -> Result<Recovery> {
        let next = runtime.block_on(locks::ours(self.setup, self.urls, SHORT_TTL))?;
        let mut times = Vec::new();
        for round in 0..rounds {
            let (mut agent, _) = Agent::start(&self.orders(SHORT_TTL, Task::Hold(1)))?;
            let waiter = next.clone();
            let waiting = runtime
                .spawn(async move { (waiter.lock(load::name(agent::first_of(1))).await, Instant::now()) });
            // At different points between two renewals.
            thread::sleep(WAITED + SHORT_TTL / 3 * u32::try_from(round)? / u32::try_from(rounds)?);
            agent.kill()?;
            let killed = Instant::now();
            let (guard, acquired) = runtime.block_on(waiting)?;
            times.push((acquired - killed).as_secs_f64() * 1e3);
            runtime.block_on(guard?.release())?;
        }
        runtime.block_on(next.close());
        let ms = Quartiles::of(&times).context("there is at least one round")?;
        let slowest_ms = times.iter().copied().fold(0.0, f64::max);
        Ok(Recovery { setup: self.setup, ttl_ms: SHORT_TTL.as_millis() as u64, ms, slowest_ms })
    }
}

/// Waits until all have entered their queues, and returns the memory of the agent.
fn until_quiet(agent: &Agent) -> Result<u64> {
    const TRIES: usize = 120;
    let mut last = None;
    for _ in 0..TRIES {
        thread::sleep(QUIET);
        let memory = agent.memory()?;
        // Within two percent: what keeps clients alive goes on.
        if last.is_some_and(|last: u64| memory.abs_diff(last) * 50 < memory) {
            return Ok(memory);
        }
        last = Some(memory);
    }
    bail!("the waiters did not come to rest within a minute")
}
