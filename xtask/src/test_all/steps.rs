//! The steps of `cargo xtask test-all`. Each is a command line that a person can repeat alone.

use std::fmt;

use duct::{Expression, cmd};

use crate::{
    conformance,
    workspace::{self, Package},
};

/// The test target of lock-local that explores thread interleavings. It is built unlike all the others.
const LOOM: &str = "loom";

/// One call of cargo.
pub(super) struct Step {
    pub(super) name: &'static str,
    variable: Option<(&'static str, &'static str)>,
    arguments: Vec<String>,
}

/// Cheap checks first.
pub(super) fn all(packages: &[Package]) -> Vec<Step> {
    let with_own_step = [conformance::TEST, LOOM];
    let mut targets: Vec<_> =
        packages.iter().flat_map(Package::tests).filter(|test| !with_own_step.contains(test)).collect();
    targets.sort_unstable();
    targets.dedup();
    let targets = targets.into_iter().flat_map(|test| ["--test", test]);
    let publishable = packages.iter().filter(|package| package.is_publishable());
    let publishable = publishable.flat_map(|package| ["--package", &package.name]);

    vec![
        Step::new("format", "fmt --all --check"),
        Step::new("tidy", "xtask tidy"),
        // Without a build of each package, which would compile every dependency once more.
        Step::new("package", "package --no-verify --allow-dirty").and(publishable),
        Step::new("clippy", "clippy --workspace --all-targets --all-features -- -D warnings"),
        Step::new("features", "xtask features"),
        Step::new("docs", "doc --workspace --no-deps --all-features").with("RUSTDOCFLAGS", "-D warnings"),
        Step::new("tests", "test --workspace --all-features --lib --bins").and(targets),
        Step::new("doctests", "test --workspace --all-features --doc"),
        // A directory of its own, since other flags would make cargo build everything else anew, twice.
        Step::new("loom", "test --package lock-local --test loom --release --target-dir target/loom")
            .with("RUSTFLAGS", "--cfg lock_local_loom"),
        Step::new("conformance", "xtask conformance"),
        Step::new("tutorial", "xtask tutorial --workspace"),
    ]
}

impl Step {
    fn new(name: &'static str, arguments: &str) -> Self {
        Self { name, variable: None, arguments: arguments.split(' ').map(str::to_owned).collect() }
    }

    fn with(mut self, variable: &'static str, value: &'static str) -> Self {
        self.variable = Some((variable, value));
        self
    }

    fn and<'a>(mut self, arguments: impl Iterator<Item = &'a str>) -> Self {
        self.arguments.extend(arguments.map(str::to_owned));
        self
    }

    pub(super) fn command(&self) -> Expression {
        let command = cmd(workspace::cargo(), &self.arguments).dir(workspace::root()).stdin_null();
        match self.variable {
            Some((name, value)) => command.env(name, value),
            None => command,
        }
    }
}

/// As a person would type it.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((name, value)) = self.variable {
            write!(f, "{name}=\"{value}\" ")?;
        }
        write!(f, "cargo {}", self.arguments.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use super::all;
    use crate::workspace::tests::package;

    #[test]
    fn a_step_can_be_typed_and_no_test_target_runs_twice() {
        let steps = all(&[
            package("lock-local", &["loom", "fifo", "conformance"], true),
            package("examples", &[], false),
        ]);
        let typed: Vec<_> = steps.iter().map(ToString::to_string).collect();
        for line in [
            "cargo package --no-verify --allow-dirty --package lock-local",
            "cargo test --workspace --all-features --lib --bins --test fifo",
            "RUSTDOCFLAGS=\"-D warnings\" cargo doc --workspace --no-deps --all-features",
        ] {
            assert!(typed.iter().any(|typed| typed == line), "{typed:?}");
        }
    }
}
