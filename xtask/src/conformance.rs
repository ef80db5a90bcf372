//! `cargo xtask conformance`: holds the backends to their promises.

mod page;
mod report;

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};
use duct::cmd;

pub(crate) use self::report::Report;
use crate::{
    programs::{self, Program},
    servers::{Server, Source},
    setup::{self, Consent},
    workspace::{self, Package},
};

/// What the names of the test targets begin with by which a backend runs the suite.
pub(crate) const TEST: &str = "conformance";

/// Suites over many servers, a minute or two each: they run for a backend that is named, and not with all.
const LONG: [&str; 2] = ["conformance_redlock", "conformance_zk"];

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
    source: Source,
    #[command(flatten)]
    consent: Consent,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    args.source.check()?;
    let packages = workspace::packages()?;
    let backends = choose(&packages, &args.backend)?;
    let is_used =
        |server: &&Server| backends.iter().any(|backend| server.backends().contains(&backend.name.as_str()));
    let servers: Vec<_> = Server::ALL.iter().filter(is_used).copied().collect();
    let builds_etcd = servers.contains(&Server::Etcd).then_some(&setup::PROTOC);
    let needs: Vec<_> = args.source.needs(&servers).into_iter().chain(builds_etcd).collect();
    setup::ensure(&needs, &args.consent)?;
    let programs = build(&backends, !args.backend.is_empty())?;
    let dir = directory();
    workspace::empty(&dir)?;
    let provided = args.source.provide_to_starters(&servers)?;

    let mut broken = Vec::new();
    for (index, (backend, program)) in programs.iter().enumerate() {
        let name = backend.name.as_str();
        println!("\n{name}, {} ({} of {})", program.name, index + 1, programs.len());
        let mut command = cmd(&program.path, args.filter.as_deref())
            .dir(program.home())
            .env(REPORT_VARIABLE, dir.join(format!("{name}.jsonl")));
        for (variable, value) in &provided.variables {
            command = command.env(variable, value);
        }
        let ended = command.unchecked().run()?;
        if !ended.status.success() {
            broken.push(name);
        }
    }

    drop(provided);

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

/// Builds the programs of all `backends`: those alone, or with everything that `test-all` builds.
fn build<'a>(backends: &[&'a Package], alone: bool) -> Result<Vec<(&'a Package, Program)>> {
    let all = format!("{TEST}*");
    let mut words = vec!["test", "--no-run", "--test", &all];
    if alone {
        words.push("--all-features");
        words.extend(backends.iter().flat_map(|backend| ["--package", &backend.name]));
    } else {
        words.extend(programs::ALL);
    }
    let built = programs::build(words)?;
    let is_suite = |test: &str| test.starts_with(TEST) && (alone || !LONG.contains(&test));
    let mut suites = Vec::new();
    for program in built {
        let of = backends.iter().find(|backend| is_suite_of(backend, &program));
        suites.extend(of.filter(|_| is_suite(&program.name)).map(|backend| (*backend, program)));
    }
    let expected = backends.iter().flat_map(|backend| backend.tests()).filter(|test| is_suite(test)).count();
    if suites.len() != expected {
        bail!("cargo built {} suites of {expected}", suites.len());
    }
    suites
        .sort_by(|(one, first), (other, second)| (&one.name, &first.name).cmp(&(&other.name, &second.name)));
    Ok(suites)
}

/// Returns whether it is the suite: with tests, cargo builds the commands of their package too, in no order.
fn is_suite_of(backend: &Package, program: &Program) -> bool {
    program.manifest == backend.manifest_path && program.name.starts_with(TEST)
}

/// The packages that run the suite: all, or those named.
fn choose<'a>(packages: &'a [Package], named: &[String]) -> Result<Vec<&'a Package>> {
    let known: Vec<_> =
        packages.iter().filter(|package| package.tests().any(|test| test.starts_with(TEST))).collect();
    if named.is_empty() {
        return Ok(known);
    }
    let find = |name: &String| {
        let is_meant =
            |package: &&&Package| package.name == *name || package.name.strip_prefix("lock-") == Some(name);
        known.iter().find(is_meant).copied().with_context(|| {
            let known: Vec<_> =
                known.iter().map(|package| package.name.trim_start_matches("lock-")).collect();
            format!("there is no backend {name:?}; the backends are {}", known.join(", "))
        })
    };
    named.iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::{choose, is_suite_of};
    use crate::{
        programs::Program,
        workspace::{Package, tests::package},
    };

    fn workspace() -> Vec<Package> {
        [("lock-core", "keys"), ("lock-local", "conformance"), ("lock-setnx", "conformance")]
            .map(|(name, test)| package(name, &[test], true))
            .into()
    }

    fn chosen(named: &[&str]) -> Vec<String> {
        let named: Vec<_> = named.iter().map(|name| (*name).to_owned()).collect();
        choose(&workspace(), &named).unwrap().iter().map(|package| package.name.clone()).collect()
    }

    #[test]
    fn a_command_of_the_same_package_is_not_its_suite() {
        let backend = package("lock-sharded", &["conformance"], true);
        let built = |name: &str| Program {
            name: name.to_owned(),
            path: format!("/t/{name}-1").into(),
            manifest: backend.manifest_path.clone(),
        };
        assert!(is_suite_of(&backend, &built("conformance")));
        assert!(!is_suite_of(&backend, &built("lock-shards")));
    }

    #[test]
    fn every_package_with_the_suite_is_a_backend() {
        assert_eq!(chosen(&[]), ["lock-local", "lock-setnx"]);
    }

    #[test]
    fn a_backend_is_known_by_its_short_and_its_full_name() {
        for name in ["setnx", "lock-setnx"] {
            assert_eq!(chosen(&[name]), ["lock-setnx"]);
        }
    }

    #[test]
    fn an_unknown_backend_is_refused_with_the_known_ones() {
        let workspace = workspace();
        let error = choose(&workspace, &["core".to_owned()]).unwrap_err();
        assert_eq!(error.to_string(), "there is no backend \"core\"; the backends are local, setnx");
    }
}
