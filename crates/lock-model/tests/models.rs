//! Every quick model finds what is expected of it, and every kept trace is a possible way to what it refutes.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use lock_model::{Entry, Tier, catalogue};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let entries: &'static [Entry] = catalogue().leak();
    let models = entries.iter().map(|entry| {
        let name = format!("{}: {}", entry.id, entry.title);
        let check = || entry.check(1, &|_| {}).map(drop).map_err(failed);
        // A long one is listed as ignored, by its name.
        Trial::test(name, check).with_kind("model").with_ignored_flag(entry.tier == Tier::Long)
    });
    let traces = entries.iter().flat_map(|entry| {
        entry.broken.iter().map(|property| {
            let name = format!("{} refutes: {property}", entry.id);
            Trial::test(name, || entry.replay(property).map_err(failed)).with_kind("trace")
        })
    });
    let outcome = libtest_mimic::run(&arguments, models.chain(traces).collect());
    println!("The models that were ignored are run by `cargo run --release -p lock-model -- all`.");
    outcome.exit_code()
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn failed(error: anyhow::Error) -> Failed {
    format!("{error:#}").into()
}
