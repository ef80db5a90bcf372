//! `cargo xtask conformance`: holds the backends to their promises.

mod page;
mod report;

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};
use duct::cmd;

pub(crate) use self::report::Report;
use crate::{
    setup::{self, Consent},
    workspace::{self, Package},
};

/// The test target by which a backend runs the suite.
pub(crate) const TEST: &str = "conformance";

/// Names the file to which the suite adds one line of JSON per property.
const REPORT_VARIABLE: &str = "LOCK_CONFORMANCE_REPORT";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run this backend alone, such as `local` or `lock-local`; may be given more than once
    #[arg(long, value_name = "NAME")]
    backend: Vec<String>,
    /// Run only the properties whose name contains this text
    #[arg(long, value_name = "TEXT")]
    filter: Option<String>,
    #[command(flatten)]
    consent: Consent,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let backends = choose(&workspace::packages()?, &args.backend)?;
    setup::ensure(&setup::needs_of(&backends), &args.consent)?;
    let dir = directory();
    workspace::empty(&dir)?;

    let mut broken = Vec::new();
    for (index, backend) in backends.iter().enumerate() {
        println!("\n{} ({} of {})", backend, index + 1, backends.len());
        let words = ["test", "--package", backend, "--all-features", "--test", TEST, "--"];
        let ended = cmd(workspace::cargo(), words.into_iter().chain(args.filter.as_deref()))
            .dir(workspace::root())
            .env(REPORT_VARIABLE, dir.join(format!("{backend}.jsonl")))
            .unchecked()
            .run()?;
        if !ended.status.success() {
            broken.push(backend.as_str());
        }
    }

    let report = Report::read(&dir)?;
    if !report.is_empty() {
        println!("\n{report}");
        let page = dir.join("report.html");
        fs::write(&page, page::render(&report))
            .with_context(|| format!("cannot write {}", page.display()))?;
        println!("The same with all details: {}", page.display());
    }
    if !broken.is_empty() {
        bail!(
            "conformance: {} failed; to repeat: cargo xtask conformance --backend {}",
            broken.join(", "),
            broken[0]
        );
    }
    match (&args.filter, report.is_empty()) {
        (Some(text), true) => bail!("conformance: no property has {text:?} in its name"),
        (None, true) => {
            bail!("conformance: no property was reported; does the suite know {REPORT_VARIABLE}?")
        }
        _ => println!("conformance: {}", report.totals()),
    }
    Ok(())
}

/// Where a run leaves its reports, and nothing of earlier runs.
pub(crate) fn directory() -> PathBuf {
    workspace::target().join("conformance")
}

/// The packages that run the suite: all, or those named.
fn choose(packages: &[Package], named: &[String]) -> Result<Vec<String>> {
    let known: Vec<_> = packages
        .iter()
        .filter(|package| package.tests().any(|test| test == TEST))
        .map(|package| &package.name)
        .collect();
    if named.is_empty() {
        return Ok(known.into_iter().cloned().collect());
    }
    let find = |name: &String| {
        let found =
            known.iter().find(|package| *package == &name || package.strip_prefix("lock-") == Some(name));
        found.map(|package| (*package).clone()).with_context(|| {
            let known: Vec<_> = known.iter().map(|package| package.trim_start_matches("lock-")).collect();
            format!("there is no backend {name:?}; the backends are {}", known.join(", "))
        })
    };
    named.iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::choose;
    use crate::workspace::{Package, Target};

    fn workspace() -> Vec<Package> {
        let package = |name: &str, test: &str| Package {
            name: name.to_owned(),
            targets: vec![Target { name: test.to_owned(), kind: vec!["test".to_owned()] }],
        };
        vec![
            package("lock-core", "keys"),
            package("lock-local", "conformance"),
            package("lock-setnx", "conformance"),
        ]
    }

    #[test]
    fn every_package_with_the_suite_is_a_backend() {
        assert_eq!(choose(&workspace(), &[]).unwrap(), ["lock-local", "lock-setnx"]);
    }

    #[test]
    fn a_backend_is_known_by_its_short_and_its_full_name() {
        for name in ["setnx", "lock-setnx"] {
            assert_eq!(choose(&workspace(), &[name.to_owned()]).unwrap(), ["lock-setnx"]);
        }
    }

    #[test]
    fn an_unknown_backend_is_refused_with_the_known_ones() {
        let error = choose(&workspace(), &["core".to_owned()]).unwrap_err();
        assert_eq!(error.to_string(), "there is no backend \"core\"; the backends are local, setnx");
    }
}
