//! `cargo xtask features`: each feature of each published crate alone, and none, without warnings.

use anyhow::{Result, bail};
use duct::cmd;

use crate::{
    progress::{Progress, tail},
    workspace::{self, Package},
};

pub(crate) fn run() -> Result<()> {
    let log = workspace::target().join("features.log");
    let packages = workspace::packages()?;
    let published: Vec<_> = packages.iter().filter(|package| package.is_publishable()).collect();
    for (package, feature) in published.iter().flat_map(|package| choices(package)) {
        let arguments = arguments(package, feature);
        let progress = Progress::start(format!("{} {}", package.name, feature.unwrap_or("without features")));
        let clippy = cmd(workspace::cargo(), &arguments).dir(workspace::root()).stdin_null();
        let succeeded = progress.run(&clippy, &log)?;
        progress.finish(succeeded);
        if !succeeded {
            bail!("features: this fails: cargo {}\n{}", arguments.join(" "), tail(&log));
        }
    }
    Ok(())
}

/// No feature, and then each alone.
fn choices(package: &Package) -> impl Iterator<Item = (&Package, Option<&str>)> {
    let features = package.features.keys().filter(|feature| *feature != "default");
    std::iter::once(None)
        .chain(features.map(|feature| Some(feature.as_str())))
        .map(move |choice| (package, choice))
}

fn arguments(package: &Package, feature: Option<&str>) -> Vec<String> {
    let mut words = vec!["clippy", "--package", &package.name, "--lib", "--no-default-features"];
    words.extend(feature.into_iter().flat_map(|feature| ["--features", feature]));
    words.extend(["--", "-D", "warnings"]);
    words.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::{arguments, choices};
    use crate::workspace::tests::package;

    #[test]
    fn none_and_each_feature_alone_are_checked() {
        let mut lock = package("lock-a", &[], true);
        lock.features = [("default", vec!["tls".to_owned()]), ("tls", vec![]), ("cluster", vec![])]
            .map(|(name, of)| (name.to_owned(), of))
            .into();
        let chosen: Vec<_> = choices(&lock).map(|(_, choice)| choice).collect();
        assert_eq!(chosen, [None, Some("cluster"), Some("tls")]);
        assert_eq!(
            arguments(&lock, Some("tls")).join(" "),
            "clippy --package lock-a --lib --no-default-features --features tls -- -D warnings"
        );
    }
}
