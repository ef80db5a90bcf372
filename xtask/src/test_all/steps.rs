//! The steps of `cargo xtask test-all`. Each is a command line that a person can repeat alone.

use std::fmt;

use duct::{Expression, cmd};

use crate::{
    conformance,
    workspace::{self, Package},
};

/// The test target of lock-local that explores thread interleavings. It is built unlike all the others.
const LOOM: &str = "loom";

/// The test targets that take a container engine.
const IN_CONTAINERS: [&str; 2] = ["docker", "partitions"];

/// One call of cargo.
pub(super) struct Step {
    pub(super) name: &'static str,
    /// Builds nothing of ours, so it is started before all others, and waited for in its turn.
    pub(super) starts_early: bool,
    variable: Option<(&'static str, &'static str)>,
    arguments: Vec<String>,
}

/// The step that tells the names of the tests that take an engine, and runs none of them.
pub(super) const LEFT_OUT: &str = "left out";

/// Cheap checks first.
pub(super) fn all(packages: &[Package], has_engine: bool) -> Vec<Step> {
    let has_own_step =
        |test: &str| test.starts_with(conformance::TEST) || test == LOOM || IN_CONTAINERS.contains(&test);
    let mut targets: Vec<_> =
        packages.iter().flat_map(Package::tests).filter(|test| !has_own_step(test)).collect();
    targets.sort_unstable();
    targets.dedup();
    let targets = targets.into_iter().flat_map(|test| ["--test", test]);
    let publishable = packages.iter().filter(|package| package.is_publishable());
    let publishable = publishable.flat_map(|package| ["--package", &package.name]);

    let mut steps = vec![
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
    ];
    // The lab stops, traces and preloads processes as Linux does it.
    if cfg!(target_os = "linux") {
        steps.push(Step::new("faults", "xtask faults --quick --workspace"));
    }
    let in_containers = IN_CONTAINERS.into_iter().flat_map(|test| ["--test", test]);
    let containers = |name| Step::new(name, "test --workspace --all-features").and(in_containers);
    if has_engine {
        steps.push(Step { starts_early: true, ..Step::new("images", "xtask docker images") });
        steps.push(containers("containers"));
    } else {
        steps.push(containers(LEFT_OUT).and(["--", "--list"].into_iter()));
    }
    steps
}

impl Step {
    fn new(name: &'static str, arguments: &str) -> Self {
        let arguments = arguments.split(' ').map(str::to_owned).collect();
        Self { name, starts_early: false, variable: None, arguments }
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
        // why: an error tells its causes itself; its frames would push it out of the lines that are shown
        let command = command.env("RUST_LIB_BACKTRACE", "0");
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
        let packages = [
            package("lock-local", &["loom", "fifo", "conformance"], true),
            package("partitions", &["partitions"], false),
        ];
        let typed: Vec<_> = all(&packages, true).iter().map(ToString::to_string).collect();
        for line in [
            "cargo package --no-verify --allow-dirty --package lock-local",
            "cargo test --workspace --all-features --lib --bins --test fifo",
            "RUSTDOCFLAGS=\"-D warnings\" cargo doc --workspace --no-deps --all-features",
        ] {
            assert!(typed.iter().any(|typed| typed == line), "{typed:?}");
        }
    }

    #[test]
    fn without_an_engine_the_tests_that_take_one_are_named_and_not_run() {
        let last = |has_engine| all(&[], has_engine).pop().unwrap().to_string();
        assert!(last(true).ends_with("--test docker --test partitions"));
        assert!(last(false).ends_with("--test docker --test partitions -- --list"));
    }
}
