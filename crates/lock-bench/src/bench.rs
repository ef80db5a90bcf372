//! Runs the cases: rounds in which every subject has its turn.

use std::{
    thread::available_parallelism,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::runtime::Runtime;

use crate::{
    agent::{Agent, Orders, Task},
    burden::Place,
    clock, growth,
    load::{Keys, Shape},
    lock::{Role, Subject},
    locks,
    results::{Absent, Case, Clients, Load, Report, Series, compare},
    sample::{Record, Sample},
    setup::{Servers, Setup},
};

/// How much is measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// On which servers.
    pub setups: Vec<Setup>,
    /// Which cases.
    pub cases: Vec<Case>,
    /// How often each subject has its turn.
    pub rounds: usize,
    /// How often those have that are programs of their own.
    pub slow_rounds: usize,
    /// How long a turn is.
    pub slice: Duration,
    /// How long it is where tasks contend, of which there are many cases.
    pub contended_slice: Duration,
    /// The numbers of contenders for one key.
    pub contenders: Vec<usize>,
    /// Where they live.
    pub clients: Vec<Clients>,
    /// How long they hold.
    pub holds: Vec<Duration>,
    /// How many locks one client holds.
    pub held: Vec<usize>,
    /// How many callers wait.
    pub idle: Vec<usize>,
    /// How many holders are killed.
    pub kills: usize,
}

/// A load: its case, its clients, how long they hold, and how many tasks there are.
type Cell = (Case, Clients, Duration, usize);

/// Where programs of their own contend: one case, since each of their turns takes seconds.
const SLOW_CONTENDERS: usize = 16;

/// So many contenders, each with a client of its own, take seconds to connect.
const MANY: usize = 1000;

/// So many times longer their turns are than those of few, since it takes a while until all wait.
const LONGER: u32 = 5;

/// Keys and tasks of the case that has several.
const TASKS: usize = 64;

/// Pairs between two looks at the clock, where a look costs as much as a lock.
const BATCH: u32 = 256;

/// How long held locks and idle waiters are looked at: longer than a third of a lease, after which all are renewed.
const LOOK: Duration = Duration::from_secs(4);

/// More processes than these are no measurement of locks any more.
const MOST_PROCESSES: usize = 64;

impl Plan {
    fn grid(&self, setup: Setup) -> Vec<Cell> {
        // In one process all contenders share a lock.
        let clients = if setup == Setup::Local { &[Clients::Shared][..] } else { &self.clients };
        let mut grid = Vec::new();
        for case in &self.cases {
            match case {
                Case::Uncontended => grid.push((*case, Clients::Shared, Duration::ZERO, 1)),
                Case::Keys => grid.push((*case, Clients::Shared, Duration::ZERO, TASKS)),
                Case::Frozen if setup == Setup::Redlock => {
                    grid.push((*case, Clients::Shared, Duration::ZERO, 1));
                }
                Case::Handover => {
                    let all =
                        clients.iter().flat_map(|clients| self.holds.iter().map(|hold| (*clients, *hold)));
                    // What contenders wait for is the holder then, wherever they are.
                    let all =
                        all.filter(|(of, hold)| hold.is_zero() || *of == Clients::Each || clients.len() == 1);
                    for (clients, hold) in all {
                        // With long holds few of a thousand would have a turn.
                        let are_few = clients == Clients::Processes || !hold.is_zero();
                        let most = if are_few { MOST_PROCESSES } else { usize::MAX };
                        let contenders = self.contenders.iter().filter(|tasks| **tasks <= most);
                        grid.extend(contenders.map(|tasks| (*case, clients, hold, *tasks)));
                    }
                }
                // One server cannot be spared elsewhere, and the others are no loads.
                Case::Frozen | Case::Held | Case::Idle | Case::Recovery => {}
            }
        }
        grid
    }
}

/// Measures what `plan` says.
///
/// # Errors
///
/// A server is missing, or a lock fails.
pub fn run(plan: &Plan, command: String) -> Result<Report> {
    let (began, started) = (SystemTime::now(), Instant::now());
    let runtime = Runtime::new().context("cannot start a runtime")?;
    let mut report = Report {
        command,
        started: humantime::format_rfc3339_seconds(began).to_string(),
        machine: machine(),
        ..Report::default()
    };
    let bar = progress(plan);
    for setup in &plan.setups {
        bar.set_message(format!("{setup}: starting"));
        let servers = Servers::start(*setup)?;
        report.versions.extend(servers.version()?.map(|(name, version)| (name.to_owned(), version)));
        let urls = servers.urls()?;
        let mut subjects = locks::subjects(*setup, &urls);
        let (others, absent) = locks::script::peers(*setup, &urls);
        subjects.extend(others);
        report.absent.extend(absent);
        let bench = Bench { plan, setup: *setup, servers: &servers, urls: &urls, subjects, bar: &bar };
        report.loads.extend(bench.loads(&runtime)?);
        if *setup != Setup::Local {
            bench.burdens(&runtime, &mut report)?;
        }
        let grown = growth::of(*setup, &report);
        report.growth.extend(grown);
    }
    report.absent.sort_unstable();
    report.absent.dedup();
    bar.finish_and_clear();
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

fn progress(plan: &Plan) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {percent:>3} % {elapsed} {wide_msg}");
    let steps: usize = plan.setups.iter().map(|setup| plan.rounds * plan.grid(*setup).len()).sum();
    let bar = ProgressBar::new(steps as u64).with_style(style.expect("the template is a constant"));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// A burden that this machine does not bear is said to be absent, and the rest is measured.
fn too_much(name: String, error: &anyhow::Error) -> Absent {
    Absent { name, reason: format!("more than this machine bears: {error:#}") }
}

/// The processor and how many of it there are, as far as the system tells.
fn machine() -> String {
    let cores = available_parallelism().map_or(1, usize::from);
    let told = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = told.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    format!("{cores} cores, {}", name.map_or(std::env::consts::ARCH, |(_, name)| name))
}

struct Bench<'a> {
    plan: &'a Plan,
    setup: Setup,
    servers: &'a Servers,
    urls: &'a [String],
    subjects: Vec<Subject>,
    bar: &'a ProgressBar,
}

impl Bench<'_> {
    fn loads(&self, runtime: &Runtime) -> Result<Vec<Load>> {
        let mut cells: Vec<_> =
            self.plan.grid(self.setup).into_iter().map(|cell| (cell, Vec::<Series>::new())).collect();
        for round in 1..=self.plan.rounds {
            for (cell, series) in &mut cells {
                let (case, _, hold, tasks) = &*cell;
                let message = format!("{}: {case:?}, {tasks} tasks, round {round}", self.setup);
                self.bar.set_message(message.to_lowercase());
                for subject in self.subjects.iter().filter(|subject| self.takes_part(subject, cell, round)) {
                    let sample = self.sample(runtime, subject, cell).with_context(|| {
                        format!("{}, {case:?}, {tasks} tasks holding {hold:?}: {}", self.setup, subject.name)
                    })?;
                    match series.iter_mut().find(|one| one.name == subject.name) {
                        Some(one) => one.samples.push(sample),
                        None => series.push(Series {
                            name: subject.name.to_owned(),
                            role: subject.role,
                            samples: vec![sample],
                        }),
                    }
                }
                self.bar.inc(1);
            }
        }
        let alone = |wanted: Cell| {
            let (_, series) = cells.iter().find(|(cell, _)| *cell == wanted)?;
            series.iter().find(|one| one.role == Role::Ours).map(Series::pair_medians)
        };
        let load = |((case, clients, hold, tasks), series): &(Cell, Vec<Series>)| {
            let alone = match case {
                Case::Handover if *tasks > 1 => alone((*case, *clients, *hold, 1)),
                Case::Frozen => alone((Case::Uncontended, *clients, *hold, *tasks)),
                _ => None,
            };
            Load {
                setup: self.setup,
                case: *case,
                tasks: *tasks,
                clients: *clients,
                hold_ms: hold.as_millis() as u64,
                rows: compare(series, alone.as_deref()),
            }
        };
        Ok(cells.iter().map(load).filter(|load| !load.rows.is_empty()).collect())
    }

    fn burdens(&self, runtime: &Runtime, report: &mut Report) -> Result<()> {
        let place = Place { setup: self.setup, servers: self.servers, urls: self.urls };
        let wants = |case| self.plan.cases.contains(&case);
        let show = |what: &str| self.bar.set_message(what.to_owned());
        if wants(Case::Recovery) {
            show(&format!("{}, killing holders", self.setup));
            report.recoveries.push(place.recovery(runtime, self.plan.kills)?);
        }
        for count in self.plan.idle.iter().filter(|_| wants(Case::Idle)) {
            let what = format!("{}, {count} callers that wait", self.setup);
            show(&what);
            match place.idle(runtime, *count, LOOK) {
                Ok(idle) => report.idle.push(idle),
                Err(error) => report.absent.push(too_much(what, &error)),
            }
        }
        // The last, since servers that bear no more go on with what they were left.
        for count in self.plan.held.iter().filter(|_| wants(Case::Held)) {
            let what = format!("{}, holding {count} locks", self.setup);
            show(&what);
            match place.held(*count, LOOK) {
                Ok(held) => report.held.push(held),
                Err(error) => report.absent.push(too_much(what, &error)),
            }
        }
        Ok(())
    }

    /// The floor does not wait, some libraries take one client for one holder, and processes are ours alone.
    fn takes_part(&self, subject: &Subject, (case, clients, hold, tasks): &Cell, round: usize) -> bool {
        if (*tasks >= MANY || !hold.is_zero()) && round > self.plan.slow_rounds {
            return false;
        }
        if subject.is_slow {
            let is_one_of_few = *case != Case::Handover
                || (*clients == Clients::Each && *tasks == SLOW_CONTENDERS && hold.is_zero());
            return is_one_of_few && round <= self.plan.slow_rounds;
        }
        match clients {
            // The others wait for the answers of all servers.
            _ if *case == Case::Frozen => subject.role == Role::Ours,
            _ if *case != Case::Handover => true,
            Clients::Shared => *tasks == 1 || subject.waits && subject.shares_a_client,
            Clients::Each => *tasks == 1 || subject.waits,
            Clients::Processes => subject.role == Role::Ours,
        }
    }

    fn sample(
        &self,
        runtime: &Runtime,
        subject: &Subject,
        (case, clients, hold, tasks): &Cell,
    ) -> Result<Sample> {
        if *clients == Clients::Processes {
            return self.sample_of_processes(*tasks, *hold);
        }
        let count = if *clients == Clients::Each { *tasks } else { 1 };
        let contended = *case == Case::Handover;
        let time = match contended {
            true if *tasks >= MANY => LONGER * self.plan.contended_slice,
            true => self.plan.contended_slice,
            false => self.plan.slice,
        };
        let shape = Shape {
            tasks: *tasks,
            keys: if contended { Keys::One } else { Keys::Each },
            hold: *hold,
            batch: if self.setup == Setup::Local && !contended { BATCH } else { 1 },
            // Some are gone while they wait, and what they leave must not be in the way of the next subject.
            first: if contended { clock::now() as usize } else { 0 },
        };
        let connected = runtime.block_on(subject.clients(count))?;
        // Our scripts call SET, and peers send it.
        let sets = matches!(subject.role, Role::Floor | Role::Peer);
        let before = self.servers.requests(sets)?;
        let frozen = (*case == Case::Frozen).then(|| self.servers.freeze_one()).transpose()?;
        let driven = runtime.block_on(connected.drive(&shape, time));
        drop(frozen);
        let record = driven?;
        let after = self.servers.requests(sets)?;
        runtime.block_on(connected.close());
        // What a program sends while it gets warm is counted by the servers too.
        let requests = before.zip(after).filter(|_| !subject.is_slow);
        self.counted(&record, subject.role, requests)
    }

    /// Has our lock contended for by processes.
    fn sample_of_processes(&self, count: usize, hold: Duration) -> Result<Sample> {
        let orders = Orders {
            setup: self.setup,
            urls: self.urls.to_vec(),
            ttl: locks::TTL,
            task: Task::Contend { hold },
        };
        let started = (0..count).map(|_| Ok(Agent::start(&orders)?.0));
        let mut agents = started.collect::<Result<Vec<_>>>()?;
        let before = self.servers.requests(false)?;
        agents.iter_mut().try_for_each(|agent| agent.begin(self.plan.contended_slice))?;
        let went = agents.iter_mut().map(|agent| Ok(agent.went()?.record)).collect::<Result<Vec<_>>>()?;
        let after = self.servers.requests(false)?;
        let record = Record::merged(went).context("there is at least one process")?;
        self.counted(&record, Role::Ours, before.zip(after))
    }

    fn counted(&self, record: &Record, role: Role, requests: Option<(u64, u64)>) -> Result<Sample> {
        let mut sample = record.sample();
        if sample.overlaps > 0 && role == Role::Ours {
            bail!("two held the key at once, {} times", sample.overlaps);
        }
        // Those outside the time that counts were sent as well.
        let all: usize = record.turns.iter().map(Vec::len).sum();
        let part = sample.pairs as f64 / (all as f64 * f64::from(record.batch)).max(1.0);
        sample.requests = requests.map(|(before, after)| ((after - before) as f64 * part) as u64);
        Ok(sample)
    }
}
