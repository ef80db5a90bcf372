//! The main function of a backend's conformance test.

use std::{
    env,
    process::ExitCode,
    sync::{Arc, OnceLock},
    time::Instant,
};

use anyhow::{Context, Result, anyhow};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use lock_core::{Capabilities, Options, Scope};
use tokio::runtime::Runtime;

use crate::{
    Fixture, Property, agent, properties,
    report::{Outcome, Report},
};

/// Most properties wait most of the time, so more of them than there are processors run at once.
const THREADS: usize = 8;

/// Runs the suite as a test that takes the arguments of libtest.
///
/// It must be the whole of `main`: the suite runs the same program again where a property needs other processes.
#[must_use]
pub fn run<F: Fixture>() -> ExitCode {
    if let Ok(address) = env::var(agent::ADDRESS) {
        return agent::serve::<F>(&address);
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(THREADS);
    let suite = Arc::new(Suite::<F>::default());
    let trials = properties::<F>().into_iter().map(|property| Suite::trial(&suite, property)).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    // The shared servers are stopped here, before the process ends.
    drop(suite);
    conclusion.exit_code()
}

/// What the properties of one run share. Nothing is started before a property asks for it.
struct Suite<F> {
    shared: OnceLock<Result<Shared<F>>>,
    report: Report,
}

struct Shared<F> {
    fixture: Arc<F>,
    capabilities: Capabilities,
    /// Carries what the fixture runs in the background, as the runtimes of single properties end with them.
    _runtime: Runtime,
}

impl<F> Default for Suite<F> {
    fn default() -> Self {
        Self { shared: OnceLock::new(), report: Report::from_env() }
    }
}

impl<F: Fixture> Suite<F> {
    fn trial(suite: &Arc<Self>, property: Property<F>) -> Trial {
        let suite = Arc::clone(suite);
        let name = format!("{}::{}", property.group(), property.name());
        Trial::ignorable_test(name, move || {
            let start = Instant::now();
            let outcome = suite.outcome(&property);
            suite.report.write(&property, &outcome, start.elapsed())?;
            match outcome {
                Outcome::Passed => Ok(Completion::Completed),
                Outcome::Skipped(reason) => Ok(Completion::ignored_with(reason)),
                Outcome::Failed(reason) => Err(Failed::from(reason)),
            }
        })
    }

    fn outcome(&self, property: &Property<F>) -> Outcome {
        let shared = match self.shared() {
            Ok(shared) => shared,
            Err(error) => return Outcome::Failed(format!("the fixture did not start: {error:#}")),
        };
        if let Some(reason) = property.reason_to_skip(shared.capabilities, &*shared.fixture) {
            return Outcome::Skipped(reason);
        }
        // In one process all clients are clones of one locker, which one property may close, and starting costs
        // nothing.
        let is_own = property.needs_own_servers() || shared.capabilities.scope == Scope::Process;
        let checked = if is_own {
            property.check(async { F::start().await.map(Arc::new) })
        } else {
            property.check(async { Ok(Arc::clone(&shared.fixture)) })
        };
        match checked {
            Ok(()) => Outcome::Passed,
            Err(error) => Outcome::Failed(format!("{error:#}")),
        }
    }

    fn shared(&self) -> Result<&Shared<F>> {
        let shared = self.shared.get_or_init(|| {
            let runtime = Runtime::new()?;
            let (fixture, capabilities) = runtime.block_on(async {
                let fixture = F::start().await?;
                let locker = fixture.locker(&Options::default()).await.context("a locker")?;
                anyhow::Ok((Arc::new(fixture), locker.capabilities()))
            })?;
            Ok(Shared { fixture, capabilities, _runtime: runtime })
        });
        shared.as_ref().map_err(|error| anyhow!("{error:#}"))
    }
}
