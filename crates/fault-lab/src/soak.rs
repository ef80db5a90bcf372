//! Many faults at once over many clients and locks, for as long as one likes: in segments, each checked by itself.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use test_cluster::{Behaviour, Direction};

use crate::{
    agent::{Command, Pace},
    backend::Backend,
    cells::{Cell, Expected, OLD_ETCD},
    checker::{self, Counts},
    event::{How, Invariant, MS},
    lab::{Agent, Boot, LOCK, Lab, Load, Servers, Ticker},
    run::{self, Outcome, Verdict},
    store::Store,
};

/// The name of the one cell of a soak.
pub(crate) const SOAK: &str = "soak";

const AGENTS: usize = 8;
const LOCKS: [&str; 4] = [LOCK, "orders/43", "stock", "invoices"];
/// So many faults at once.
const NEMESES: usize = 3;
const SEGMENT: Duration = Duration::from_secs(30);

/// What a soak came to.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) acquisitions: usize,
    pub(crate) faults: usize,
    pub(crate) refused: usize,
    pub(crate) violations: usize,
    /// Beliefs that a documented limit of these servers broke.
    pub(crate) limits: usize,
    pub(crate) segments: usize,
    pub(crate) longest_gap: u64,
    pub(crate) latest_loss: u64,
    /// The segments with a violation, and the last one.
    pub(crate) kept: Vec<Outcome>,
}

impl Tally {
    fn add(&mut self, counts: Counts, outcome: Outcome) {
        self.acquisitions += counts.cycles;
        self.faults += counts.faults;
        self.refused += counts.refused;
        self.segments += 1;
        self.longest_gap = self.longest_gap.max(counts.longest_gap);
        self.latest_loss = self.latest_loss.max(counts.latest_loss);
        match outcome.verdict {
            Verdict::Limit => self.limits += outcome.report.findings.len(),
            _ => self.violations += outcome.report.findings.len(),
        }
        self.kept.retain(|kept| kept.verdict != Verdict::Green);
        self.kept.push(outcome);
    }
}

/// Soaks `backend` for so long. The same seed makes the same faults at about the same times.
pub(crate) fn run(backend: Backend, time: Duration, seed: u64) -> Result<Tally> {
    if !backend.can_be_soaked() {
        bail!("{backend} has no servers here that a soak could break; its cells are in `cargo xtask faults`");
    }
    let (servers, store) = (Servers::start(backend, Boot::Durable)?, Store::start(true)?);
    let style = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}").expect("a constant");
    let bar = ProgressBar::new_spinner().with_style(style);
    bar.enable_steady_tick(Duration::from_millis(200));
    let (started, mut tally) = (Instant::now(), Tally::default());
    while started.elapsed() < time {
        let seed = seed.wrapping_add(tally.segments as u64);
        servers.mend()?;
        let left = SEGMENT.min(time.saturating_sub(started.elapsed())).max(Duration::from_secs(5));
        let outcome = segment(backend, &servers, &store, seed, left)?;
        let counts = outcome.report.counts;
        if outcome.verdict != Verdict::Green {
            bar.suspend(|| crate::report::line(&outcome));
        }
        tally.add(counts, outcome);
        bar.set_message(format!(
            "{backend}: {} acquisitions, {} faults, {} violations",
            tally.acquisitions, tally.faults, tally.violations
        ));
    }
    bar.finish_and_clear();
    Ok(tally)
}

fn segment(backend: Backend, servers: &Servers, store: &Store, seed: u64, time: Duration) -> Result<Outcome> {
    let started = Instant::now();
    let mut lab = Lab::new(backend, servers, store, seed, 1);
    lab.rules.is_calm = false;
    lab.rules.enough = 0;
    let ticker = Ticker::start(&lab.history);
    let ended = storm(&lab, seed, time);
    drop(ticker);
    let (events, log) = lab.evidence()?;
    let mut report = checker::check(&lab.rules, &events, &log);
    // Whether anything was done is told by the figures; how soon, by the longest gap.
    let untimed = [Invariant::Valid, Invariant::Progress, Invariant::Loss, Invariant::Errors];
    report.findings.retain(|finding| !untimed.contains(&finding.invariant));
    let expected = servers.allow(if backend == Backend::Etcd { OLD_ETCD } else { Expected::Holds });
    let verdict = run::judge(expected, &report, false);
    let cell = Cell {
        row: 0,
        group: SOAK,
        name: SOAK,
        backend,
        boot: Boot::Durable,
        leases: 1,
        expected,
        is_calm: false,
        quick: false,
        scenario: |_| Ok(()),
    };
    let error = ended.err().map(|error| format!("{error:#}"));
    Ok(Outcome { cell, verdict, report, events, log, error, took: started.elapsed(), repeated: false })
}

/// The clients, each at its place: those that are killed are replaced.
type Crowd = Mutex<Vec<Agent>>;

fn storm(lab: &Lab<'_>, seed: u64, time: Duration) -> Result<()> {
    let crowd: Crowd = Mutex::new((0..AGENTS).map(|_| contender(lab)).collect::<Result<_>>()?);
    let over = AtomicBool::new(false);
    let failed = thread::scope(|scope| {
        let nemeses: Vec<_> = (0..NEMESES)
            .map(|number| {
                let (crowd, over) = (&crowd, &over);
                scope.spawn(move || nemesis(lab, crowd, over, seed, number))
            })
            .collect();
        // why: a soak takes as long as it is told to
        thread::sleep(time);
        over.store(true, Ordering::Relaxed);
        nemeses
            .into_iter()
            .filter_map(|nemesis| nemesis.join().expect("a nemesis does not panic").err())
            .next()
    });
    if let Some(error) = failed {
        return Err(error);
    }
    lab.servers.mend()?;
    let agents = crowd.into_inner();
    lab.finish(Some(&Load::of(agents)))
}

/// Starts one more client that contends for all locks.
fn contender(lab: &Lab<'_>) -> Result<Agent> {
    let agent = lab.agent()?;
    let pace = Pace { how: How::Wait, hold: 0, jitter: 2, rest: 0, rounds: u64::MAX };
    for lock in LOCKS {
        let begun = agent.ask(Command::Contend { lock: lock.to_owned(), tasks: 1, pace })?;
        ensure!(begun.is_ok(), "a client did not begin: {begun:?}");
    }
    Ok(agent)
}

/// Breaks something every few seconds, by its own dice, while others do the same.
fn nemesis(lab: &Lab<'_>, crowd: &Crowd, over: &AtomicBool, seed: u64, number: usize) -> Result<()> {
    let mut dice = StdRng::seed_from_u64(seed ^ ((number as u64 + 1) << 48));
    let mut count = 0;
    while !over.load(Ordering::Relaxed) {
        let pause = Duration::from_millis(dice.random_range(300..1_500));
        let lasting = lab.ttl.mul_f64(dice.random_range(0.1..2.2));
        // Each of the three has servers, or clients, of its own, so that no two undo each other.
        let step = if number == 0 { server_fault } else { client_fault };
        count += 1;
        step(lab, crowd, &mut dice, number, count, lasting)?;
        // why: the locks shall also be seen whole
        thread::sleep(pause);
    }
    Ok(())
}

/// Breaks one server, such that the others are enough where there are others.
fn server_fault(
    lab: &Lab<'_>,
    _crowd: &Crowd,
    dice: &mut StdRng,
    number: usize,
    count: u64,
    lasting: Duration,
) -> Result<()> {
    let server = dice.random_range(0..lab.servers.count());
    let is_pause = dice.random_bool(0.6);
    let name = |what: &str| format!("{what} of server {server} ({number}.{count})");
    if is_pause {
        let fault = lab.fault(name("SIGSTOP"));
        lab.servers.pause(server)?;
        fault.fired("it is in state T");
        lab.let_pass(lasting);
        lab.servers.resume(server)?;
        fault.end();
    } else {
        let fault = lab.fault(name("SIGKILL"));
        lab.servers.kill(server)?;
        lab.let_pass(lasting / 4);
        lab.servers.restart(server)?;
        fault.fired(format!("process {:?} serves", lab.servers.pid(server)));
        fault.end();
    }
    Ok(())
}

/// Breaks one client or its network.
fn client_fault(
    lab: &Lab<'_>,
    crowd: &Crowd,
    dice: &mut StdRng,
    number: usize,
    count: u64,
    lasting: Duration,
) -> Result<()> {
    // Clients in turns: those of even places are one nemesis's, the others the other's.
    let place = 2 * dice.random_range(0..AGENTS / 2) + (number - 1);
    let victim = crowd.lock()[place].clone();
    let client = victim.number;
    let name = |what: &str| format!("{what} client {client} ({number}.{count})");
    let stall = |directions: &[Direction], behaviour: Behaviour, what: &str| {
        let fault = lab.fault(name(what));
        let before: u64 = directions.iter().map(|direction| victim.bytes(*direction)).sum();
        directions.iter().for_each(|direction| victim.network(*direction, behaviour));
        lab.let_pass(lasting);
        let after: u64 = directions.iter().map(|direction| victim.bytes(*direction)).sum();
        directions.iter().for_each(|direction| victim.network(*direction, Behaviour::Pass));
        fault.fired(format!("{} bytes were held back", after - before));
        fault.end();
    };
    match dice.random_range(0..7) {
        0 | 1 => {
            let fault = lab.fault(name("SIGSTOP of"));
            victim.stop()?;
            fault.fired("it is in state T");
            lab.let_pass(lasting);
            victim.go_on()?;
            fault.end();
        }
        2 => {
            let fault = lab.fault(name("SIGKILL of"));
            victim.kill()?;
            fault.fired("its process has ended");
            fault.end();
            let next = contender(lab)?;
            crowd.lock()[place] = next;
        }
        3 => stall(&[Direction::ToClient], Behaviour::Stall, "no replies to"),
        4 => stall(&[Direction::ToServer, Direction::ToClient], Behaviour::Stall, "no network for"),
        5 => stall(&[Direction::ToClient], Behaviour::Delay(lasting / 8), "late replies to"),
        _ => {
            let fault = lab.fault(name("lost replies and resets of"));
            for _ in 0..4 {
                victim.process.proxies.iter().for_each(|proxy| proxy.drop_next_reply());
                lab.let_pass(lasting / 8);
                victim.process.proxies.iter().for_each(|proxy| proxy.reset_all());
            }
            fault.fired("its connections were reset");
            fault.end();
        }
    }
    Ok(())
}

/// Says what a soak came to, in one line.
pub(crate) fn summary(backend: Backend, tally: &Tally, seed: u64, took: Duration) -> String {
    format!(
        "soak {backend}: {} acquisitions, {} faults, {} late requests refused by the store, longest hand-over {} ms \
         while nothing was broken, latest loss told {} ms after its deadline, {} violations of I1 to I6{}, in {:.0} s, \
         seed {seed}",
        tally.acquisitions,
        tally.faults,
        tally.refused,
        tally.longest_gap / MS,
        tally.latest_loss / MS,
        tally.violations,
        if tally.limits > 0 {
            format!(" ({} more by a documented limit)", tally.limits)
        } else {
            String::new()
        },
        took.as_secs_f64(),
    )
}
