//! What a scenario works with: servers, agents, faults with proofs, and the history of it all.

pub(crate) mod agents;
pub(crate) mod servers;
mod shards;
pub(crate) mod tap;
pub(crate) mod tls;
mod trees;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use test_cluster::{Behaviour, Direction, Proxy, eventually};

use crate::{
    agent::{Command, Pace, Setup},
    backend::Backend,
    checker::Rules,
    event::{Answer, Event, How, Invariant, LAB, MS, What, now},
    history::History,
    store::{Entry, Store},
};

pub(crate) use agents::{Agent, PATIENCE, Pending, Process};
pub(crate) use servers::{Boot, Kind, Servers, Snapshot, redis_name};
pub(crate) use shards::Shards;
pub(crate) use trees::{at_zk, zk_queue};

/// The lock that most cells are about.
pub(crate) const LOCK: &str = "orders/42";

/// What contenders do unless a cell says otherwise.
pub(crate) const PACE: Pace = Pace { how: How::Wait, hold: 2, jitter: 0, rest: 5, rounds: u64::MAX };

/// So many rounds of work before a fault, and after it, show that the locks served.
pub(crate) const ENOUGH: usize = 10;

/// A run of one cell.
pub(crate) struct Lab<'a> {
    pub(crate) backend: Backend,
    pub(crate) servers: &'a Servers,
    pub(crate) ttl: Duration,
    pub(crate) prefix: String,
    pub(crate) dice: Mutex<StdRng>,
    pub(crate) history: Arc<History>,
    pub(crate) rules: Rules,
    store: &'a Store,
    agents: Mutex<Vec<Agent>>,
    numbers: AtomicU32,
}

/// How an agent differs from others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Special {
    /// Threads of its runtime; two, unless given.
    pub(crate) threads: Option<usize>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) environment: Vec<(&'static str, PathBuf)>,
    /// Instead of the addresses of its proxies.
    pub(crate) urls: Option<String>,
    /// A user and a password, before the addresses of its proxies.
    pub(crate) login: Option<&'static str>,
    /// Other servers than those of the lane, behind its proxies.
    pub(crate) servers: Option<Vec<SocketAddr>>,
    /// A process of its own also where the lock is one of a process.
    pub(crate) apart: bool,
}

/// Those who contend while a cell breaks something.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) agents: Vec<Agent>,
    /// What each had open, and how many tasks, while nothing was broken.
    baseline: Vec<Census>,
}

/// What a client has open, and how many tasks.
#[derive(Clone, Copy, Debug)]
struct Census {
    files: usize,
    tasks: u64,
}

/// Something that is broken now.
#[derive(Debug)]
#[must_use = "a fault is ended, or it lasts"]
pub(crate) struct Fault {
    name: String,
    history: Arc<History>,
}

impl Fault {
    /// Says what shows that it really is broken.
    pub(crate) fn fired(&self, proof: impl Into<String>) {
        self.history.note(What::FaultFired { fault: self.name.clone(), proof: proof.into() });
    }

    /// Says that all is whole again.
    pub(crate) fn end(self) {
        self.history.note(What::FaultEnded { fault: self.name });
    }
}

impl<'a> Lab<'a> {
    /// A run on these servers, in which a lease lasts so many times as long as usual.
    pub(crate) fn new(
        backend: Backend,
        servers: &'a Servers,
        store: &'a Store,
        seed: u64,
        leases: u32,
    ) -> Self {
        let ttl = backend.ttl() * leases;
        Self {
            backend,
            servers,
            ttl,
            prefix: format!("lab{:08x}", rand::random::<u32>()),
            dice: Mutex::new(StdRng::seed_from_u64(seed)),
            history: Arc::default(),
            rules: Rules::of(backend, ttl),
            store,
            agents: Mutex::default(),
            numbers: AtomicU32::new(LAB + 1),
        }
    }

    /// Within which those who wait are served once all is whole.
    pub(crate) fn recovery(&self) -> Duration {
        self.ttl + Duration::from_secs(2)
    }

    /// Starts a client.
    pub(crate) fn agent(&self) -> Result<Agent> {
        self.special_agent(Special::default())
    }

    /// Starts a client that differs from others.
    pub(crate) fn special_agent(&self, special: Special) -> Result<Agent> {
        // On a machine that does much else a request may take longer than it may.
        const TRIES: usize = 3;
        let mut refused = None;
        for _ in 0..TRIES {
            let agent = self.starting_agent(special.clone())?;
            match agent.wait_until_connected()? {
                Ok(_) => return Ok(agent),
                Err(error) => refused = Some(error),
            }
        }
        let (kind, message) = refused.expect("it was tried");
        bail!("an agent could not connect: {kind}: {message}")
    }

    /// Starts a client, and does not wait until it is connected.
    pub(crate) fn starting_agent(&self, special: Special) -> Result<Agent> {
        let mut agents = self.agents.lock();
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        if self.backend.is_local()
            && !special.apart
            && let Some(first) = agents.first()
        {
            let process = Arc::clone(&first.process);
            let agent = Agent { number, process };
            self.history.add(Event {
                at: now(),
                agent: number,
                what: What::Reply { command: 0, answer: Ok(Answer::Done) },
            });
            agents.push(agent.clone());
            return Ok(agent);
        }
        let targets = special.servers.unwrap_or_else(|| self.servers.addresses());
        let proxies = targets.into_iter().map(Proxy::start).collect::<Result<Vec<_>>>()?;
        let urls = special.urls.unwrap_or_else(|| self.urls(&proxies, special.login));
        let setup = Setup {
            agent: number,
            backend: self.backend,
            urls,
            prefix: self.prefix.clone(),
            ttl_ms: special.ttl.unwrap_or(self.ttl).as_millis() as u64,
            store: self.store.address,
            threads: special.threads.unwrap_or(2),
        };
        let process = Process::start(&setup, proxies, &special.environment, &self.history)?;
        let agent = Agent { number, process };
        agents.push(agent.clone());
        Ok(agent)
    }

    fn urls(&self, proxies: &[Proxy], login: Option<&str>) -> String {
        let scheme = match self.backend.soil() {
            Backend::Setnx | Backend::Redlock => "redis://",
            Backend::Etcd => "http://",
            _ => "",
        };
        let login = login.map(|login| format!("{login}@")).unwrap_or_default();
        let url = |proxy: &Proxy| format!("{scheme}{login}{}", proxy.address());
        proxies.iter().map(url).collect::<Vec<_>>().join(",")
    }

    /// Lets three agents contend for [`LOCK`], and waits until each fault of the cell has something to break.
    pub(crate) fn load(&self) -> Result<Load> {
        self.load_of(3, PACE)
    }

    pub(crate) fn load_of(&self, count: usize, pace: Pace) -> Result<Load> {
        self.start_load((0..count).map(|_| self.agent()).collect::<Result<_>>()?, pace)
    }

    /// The load of a cell with servers of its own.
    pub(crate) fn load_with(&self, special: impl Fn() -> Special) -> Result<Load> {
        self.start_load((0..3).map(|_| self.special_agent(special())).collect::<Result<_>>()?, PACE)
    }

    fn start_load(&self, agents: Vec<Agent>, pace: Pace) -> Result<Load> {
        let mut load = Load::of(agents);
        load.start(pace)?;
        self.cycles("rounds before the fault", ENOUGH)?;
        load.baseline = load.agents.iter().map(Census::of).collect::<Result<_>>()?;
        Ok(load)
    }

    /// Waits for so many rounds of work from now on.
    pub(crate) fn cycles(&self, what: &str, count: usize) -> Result<()> {
        let from = self.history.len();
        self.history.wait_for_cycles(what, from, count, PATIENCE + self.ttl)
    }

    /// Begins to break something.
    pub(crate) fn fault(&self, name: impl Into<String>) -> Fault {
        let name = name.into();
        self.history.note(What::FaultBegan { fault: name.clone() });
        Fault { name, history: Arc::clone(&self.history) }
    }

    /// States a promise of the scenario's own, and whether it was kept.
    pub(crate) fn expect(&self, invariant: Invariant, holds: bool, text: impl Into<String>) {
        self.history.note(What::Expected { invariant, holds, text: text.into() });
    }

    /// Expects that `probe` soon finds nothing that was leaked. Killed agents leave what only the end of their leases
    /// clears.
    fn expect_clean(&self, text: &str, probe: impl FnMut() -> Result<()>) {
        let bound = self.ttl * 2 + Duration::from_secs(2);
        let clean = eventually("nothing to be left", bound, probe);
        let holds = clean.is_ok();
        let seen = clean.err().map(|error| format!(": {error:#}")).unwrap_or_default();
        self.expect(Invariant::Leaks, holds, format!("{text}{seen}"));
    }

    /// Some time between one and two times `least`, by the dice of the seed: faults of one cell come at other phases of
    /// renewals in each run.
    pub(crate) fn about(&self, least: Duration) -> Duration {
        least.mul_f64(self.dice.lock().random_range(1.0..2.0))
    }

    /// Lets time pass that is a part of the fault.
    pub(crate) fn let_pass(&self, time: Duration) {
        // why: a fault lasts for some time, measured in leases
        thread::sleep(time);
    }

    /// Ends what is under way: heals the network, sees that the locks serve, stops the load, and looks for leftovers.
    pub(crate) fn finish(&self, load: Option<&Load>) -> Result<()> {
        self.finish_with(load, Special::default)
    }

    /// The end of a cell with servers of its own.
    pub(crate) fn finish_with(&self, load: Option<&Load>, special: impl Fn() -> Special) -> Result<()> {
        let agents = self.agents.lock().clone();
        for agent in agents.iter().filter(|agent| !agent.process.has_ended()) {
            for direction in [Direction::ToServer, Direction::ToClient] {
                agent.network(direction, Behaviour::Pass);
            }
            agent.process.proxies.iter().for_each(|proxy| proxy.refuse(false));
        }
        let bound = self.recovery() + Duration::from_secs(1);
        if load.is_some() {
            let from = self.history.len();
            let served = self.history.wait_for_cycles("rounds after the fault", from, ENOUGH, bound * 2);
            let text = "the contenders go on when all is whole".to_owned();
            self.expect(Invariant::Progress, served.is_ok(), text);
        }
        self.history.note(What::Ceased);
        let loaded = load.map_or(&[][..], |load| &load.agents);
        let ceasing: Vec<_> = loaded
            .iter()
            .filter(|agent| !agent.process.has_ended())
            .map(|agent| agent.order(Command::Cease))
            .collect::<Result<_>>()?;
        for pending in &ceasing {
            let ended = pending.wait()?;
            ensure!(ended.is_ok(), "a contender ended badly: {ended:?}");
        }
        if let Some(load) = load {
            self.expect_no_growth(load);
        }
        self.last_word(&agents, special())?;
        self.expect_clean("nothing is left on the servers", || {
            let left = self.servers.leftovers(&self.prefix)?;
            ensure!(left.is_empty(), "there is {}", left.join(", "));
            Ok(())
        });
        self.agents.lock().iter().for_each(|agent| agent.process.close_input());
        self.expect_clean("no session outlives the clients", || {
            let left = self.servers.sessions()?;
            ensure!(left == 0, "there are {left}");
            Ok(())
        });
        Ok(())
    }

    /// Expects that those who contended have no more connections and tasks than before the fault, but for what a client
    /// may keep for a while.
    fn expect_no_growth(&self, load: &Load) {
        let spare = 2 * self.servers.count().max(1) + 4;
        let lives = |(agent, _): &(&Agent, &Census)| !agent.process.has_ended();
        for (agent, before) in load.agents.iter().zip(&load.baseline).filter(lives) {
            let calm = eventually(
                "connections and tasks to be as before",
                self.ttl * 2 + Duration::from_secs(2),
                || {
                    let after = Census::of(agent)?;
                    ensure!(
                        after.files <= before.files + spare,
                        "{} files, {} before",
                        after.files,
                        before.files
                    );
                    ensure!(
                        after.tasks <= before.tasks + spare as u64,
                        "{} tasks, {} before",
                        after.tasks,
                        before.tasks
                    );
                    Ok(())
                },
            );
            let seen = calm.as_ref().err().map(|error| format!(": {error:#}")).unwrap_or_default();
            self.expect(
                Invariant::Leaks,
                calm.is_ok(),
                format!("client {} leaks nothing{seen}", agent.number),
            );
        }
    }

    /// The last operation of a run must succeed.
    fn last_word(&self, agents: &[Agent], special: Special) -> Result<()> {
        let lives = |agent: &&Agent| self.backend.is_local() && !agent.process.has_ended();
        let last = match agents.iter().find(lives) {
            Some(agent) => Agent { number: agent.number, process: Arc::clone(&agent.process) },
            None => self.special_agent(special)?,
        };
        let patience = How::For(self.recovery().as_millis() as u64);
        let outcome = last.acquire(LOCK, patience)?;
        self.expect(
            Invariant::Progress,
            matches!(outcome, Ok(Answer::Acquired { .. })),
            format!("a new client acquires the lock at the end: {outcome:?}"),
        );
        if outcome.is_ok() {
            last.work(LOCK, crate::agent::Gap::None)?;
            let released = last.release(LOCK)?;
            self.expect(Invariant::Progress, released.is_ok(), format!("and releases it: {released:?}"));
        }
        for agent in agents.iter().filter(|agent| !agent.process.has_ended()) {
            agent.order(Command::Close)?.wait().context("a locker that closes")?.ok();
        }
        Ok(())
    }

    /// Hands over what was written down, in the order of time, and what the store did.
    pub(crate) fn evidence(&self) -> Result<(Vec<Event>, Vec<Entry>)> {
        // Where the scenario broke off, those who still wait have waited until now.
        self.history.note(What::Ceased);
        self.agents.lock().clear();
        let mut events = self.history.take();
        events.sort_by_key(|event| event.at);
        Ok((events, self.store.log(&format!("{}/", self.prefix))?))
    }
}

impl Census {
    fn of(agent: &Agent) -> Result<Self> {
        let files = std::fs::read_dir(format!("/proc/{}/fd", agent.process.pid()))?.count();
        match agent.ask(Command::Tasks)? {
            Ok(Answer::Count(tasks)) => Ok(Self { files, tasks }),
            other => bail!("agent {} was asked for its tasks, and answered {other:?}", agent.number),
        }
    }
}

impl Load {
    /// A load of agents that contend already.
    pub(crate) fn of(agents: Vec<Agent>) -> Self {
        Self { agents, baseline: Vec::new() }
    }

    pub(crate) fn start(&self, pace: Pace) -> Result<()> {
        for agent in &self.agents {
            let started = agent.ask(Command::Contend { lock: LOCK.to_owned(), tasks: 1, pace })?;
            ensure!(started.is_ok(), "an agent did not begin: {started:?}");
        }
        Ok(())
    }
}

/// Writes down when the lab itself did not get to run, until it is dropped.
pub(crate) struct Ticker {
    stop: Arc<AtomicBool>,
}

impl Ticker {
    pub(crate) fn start(history: &Arc<History>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, history) = (Arc::clone(&stop), Arc::clone(history));
        thread::spawn(move || {
            let mut last = now();
            while !stopped.load(Ordering::Relaxed) {
                // why: the ticker measures how late it is woken
                thread::sleep(Duration::from_millis(10));
                let at = now();
                let nanos = at - last;
                last = at;
                if nanos > 50 * MS {
                    history.add(Event { at, agent: LAB, what: What::Gap { nanos } });
                }
            }
        });
        Self { stop }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
