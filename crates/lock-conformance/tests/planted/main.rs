//! Bugs planted on purpose: each must turn one property red, for the right reason, and the suite green without it.

mod bug;
mod fixture;
mod naive;
mod store;

use std::{panic, process::ExitCode, sync::Arc};

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::{Arguments, Trial};
use lock_conformance::{Property, properties};

use bug::{Bug, PLANTS, Plant, Soil};
use fixture::Planted;

fn main() -> ExitCode {
    // The panics of properties are expected here, and are told apart below.
    panic::set_hook(Box::new(|_| {}));
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(8);
    let trials = PLANTS.iter().map(|plant| {
        let name = format!("{:?} is caught by {}", plant.bug, plant.caught_by);
        Trial::test(name, || check(plant).map_err(|error| format!("{error:#}").into()))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn check(plant: &Plant) -> Result<()> {
    let property = find(plant.caught_by)?;
    attempt(&property, None, plant.bug.soil()).context("without the bug the property must hold")?;
    let Err(caught) = attempt(&property, Some(plant.bug), plant.bug.soil()) else {
        bail!("the bug was not caught");
    };
    let reason = format!("{caught:#}");
    ensure!(reason.contains(plant.because), "expected {:?} as the reason, got: {reason}", plant.because);
    Ok(())
}

fn attempt(property: &Property<Planted>, planted: Option<Bug>, soil: Soil) -> Result<()> {
    property.check(async { Ok(Arc::new(Planted::new(planted, soil))) })
}

fn find(name: &str) -> Result<Property<Planted>> {
    let named = |property: &Property<Planted>| format!("{}::{}", property.group(), property.name()) == name;
    properties().into_iter().find(named).with_context(|| format!("there is no property {name}"))
}
