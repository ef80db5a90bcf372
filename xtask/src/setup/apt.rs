//! Debian's and Ubuntu's own packages, unpacked under `target/`: no root, no system service, no trace elsewhere.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use duct::{Expression, cmd};
use test_cluster::tools;

use crate::{
    progress::{Progress, read, tail},
    workspace,
};

/// Downloads `wanted` and the libraries that this system lacks for them, and unpacks them into [`tools::tools_root`].
pub(super) fn fetch(wanted: &[&str]) -> Result<()> {
    let apt = Apt::new(workspace::target().join("tools/apt"))?;
    // One source of many that is out of order must not stand in the way: what is needed is found or not, below.
    if let Err(problem) = apt.step("package lists", apt.get(["update"])) {
        println!("{problem:#}");
    }
    let resolve = ["-s", "--no-install-recommends", "install"].iter().chain(wanted).copied();
    let log = apt.step("dependencies", apt.get(resolve))?;
    let packages = to_unpack(&read(&log), wanted);

    let debs = apt.home.join("debs");
    workspace::empty(&debs)?;
    let download = apt.get(["download"].into_iter().chain(packages.iter().map(String::as_str)));
    println!("Packages: {}", packages.join(" "));
    apt.step("download", download.dir(&debs))?;

    let root = tools::tools_root();
    fs::create_dir_all(&root).with_context(|| format!("cannot create {}", root.display()))?;
    let unpacking = Progress::start("unpacking");
    for entry in fs::read_dir(&debs)? {
        let deb = entry?.path();
        let log = apt.home.join("unpack.log");
        if !unpacking.run(&cmd!("dpkg", "-x", &deb, &root), &log)? {
            bail!("cannot unpack {}:\n{}", deb.display(), tail(&log));
        }
    }
    unpacking.finish(true);
    tools::point_links_inward(&root)
}

/// `apt-get` with its lists and caches in a directory of ours.
struct Apt {
    home: PathBuf,
}

impl Apt {
    fn new(home: PathBuf) -> Result<Self> {
        fs::create_dir_all(home.join("lists/partial"))?;
        fs::create_dir_all(home.join("cache/archives/partial"))?;
        fs::write(home.join("apt.conf"), configuration(&home))
            .with_context(|| format!("cannot write to {}", home.display()))?;
        Ok(Self { home })
    }

    fn get<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Expression {
        let configuration = self.home.join("apt.conf").into_os_string();
        let all = ["-c".into(), configuration].into_iter().chain(arguments.into_iter().map(OsString::from));
        // The answers are parsed, and apt-get translates them.
        cmd("apt-get", all).env("LC_ALL", "C")
    }

    /// Runs one command with its progress shown, and returns the log of it.
    fn step(&self, label: &str, command: Expression) -> Result<PathBuf> {
        let log = self.home.join("last.log");
        let progress = Progress::start(label);
        let succeeded = progress.run(&command, &log)?;
        progress.finish(succeeded);
        if !succeeded {
            bail!("{label} failed:\n{}", tail(&log));
        }
        Ok(log)
    }
}

/// Keeps apt's state in `home`. The hooks that a system runs after an update are cleared, since they touch the system;
/// and apt must not change to its own user, who may not be allowed to write here.
fn configuration(home: &Path) -> String {
    let home = home.display();
    format!(
        r#"Dir::State "{home}";
Dir::State::lists "{home}/lists";
Dir::State::status "/var/lib/dpkg/status";
Dir::Cache "{home}/cache";
APT::Sandbox::User "";
Acquire::Languages "none";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear Acquire::IndexTargets::deb::DEP-11;
"#
    )
}

/// The wanted packages, also those that are installed: what belongs together is found together. And the libraries that
/// `apt-get -s install` would add, as `name=version`.
///
/// Other dependencies (users, init scripts) serve an installed service. The C library must stay the system's own,
/// since its loader is. Classes of Java are wanted by name, and what they may call besides is not used.
fn to_unpack(simulation: &str, wanted: &[&str]) -> Vec<String> {
    let added = simulation.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("Inst ")?.split_once(' ')?;
        let (_, version) = rest.split_once('(')?;
        Some((name, version.split_whitespace().next()?))
    });
    let (chosen, others): (Vec<_>, Vec<_>) = added.partition(|(name, _)| wanted.contains(name));
    let is_for_java = |name: &str| name.ends_with("-java") || name.ends_with("-jni");
    let is_library = |name: &str| name.starts_with("lib") && name != "libc6" && !is_for_java(name);
    // What `default-jre-headless` stands for.
    let is_java = |name: &str| name.starts_with("openjdk-") && name.ends_with("-jre-headless");
    let installed = wanted.iter().filter(|name| !chosen.iter().any(|(chosen, _)| chosen == *name));
    let libraries = others.iter().filter(|(name, _)| is_library(name) || is_java(name));
    installed
        .map(|name| (*name).to_owned())
        .chain(libraries.chain(&chosen).map(|(name, version)| format!("{name}={version}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::to_unpack;

    const SIMULATION: &str = "\
Reading package lists...
The following NEW packages will be installed:
  adduser libjemalloc2 redis-server redis-tools
Inst adduser (3.134 Debian:12.11/oldstable [all])
Inst libc6 [2.36-9+deb12u9] (2.36-9+deb12u10 Debian:12.11/oldstable [amd64])
Inst libssl3 [3.0.15-1] (3.0.17-1 Debian:12.11/oldstable [amd64])
Inst libjemalloc2 (5.3.0-1 Debian:12.11/oldstable [amd64])
Inst redis-tools (5:7.0.15-1~deb12u5 Debian-Security:12/oldstable-security [amd64]) []
Inst redis-server (5:7.0.15-1~deb12u5 Debian-Security:12/oldstable-security [amd64])
Conf redis-server (5:7.0.15-1~deb12u5 Debian-Security:12/oldstable-security [amd64])
";

    #[test]
    fn only_the_wanted_and_their_libraries_are_unpacked() {
        assert_eq!(
            to_unpack(SIMULATION, &["redis-server", "redis-tools"]),
            [
                "libssl3=3.0.17-1",
                "libjemalloc2=5.3.0-1",
                "redis-tools=5:7.0.15-1~deb12u5",
                "redis-server=5:7.0.15-1~deb12u5"
            ]
        );
    }

    #[test]
    fn what_is_installed_is_unpacked_beside_what_is_not() {
        let simulation = "\
libslf4j-java is already the newest version (1.7.32-1).
Inst libjetty9-java (9.4.57-1.1~deb12u1 Debian:12.15/oldstable [all])
Inst libsnappy-jni (1.1.8.3-1 Debian:12.15/oldstable [amd64])
Inst libzookeeper-java (3.8.0-11+deb12u2 Debian:12.15/oldstable [all])
";
        assert_eq!(
            to_unpack(simulation, &["libslf4j-java", "libzookeeper-java"]),
            ["libslf4j-java", "libzookeeper-java=3.8.0-11+deb12u2"]
        );
    }

    #[test]
    fn the_java_that_a_default_stands_for_is_unpacked() {
        let simulation = "\
Inst java-common (0.74 Debian:12.15/oldstable [all])
Inst openjdk-17-jre-headless (17.0.21.1+2-1~deb12u1 Debian-Security:12/oldstable-security [amd64])
Inst default-jre-headless (2:1.17-74 Debian:12.15/oldstable [amd64])
";
        assert_eq!(
            to_unpack(simulation, &["default-jre-headless"]),
            ["openjdk-17-jre-headless=17.0.21.1+2-1~deb12u1", "default-jre-headless=2:1.17-74"]
        );
    }
}
