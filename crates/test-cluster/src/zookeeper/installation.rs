//! Finds a ZooKeeper: its class path, and a Java to run it with.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};

use crate::tools::{self, Executable, JAVA, tools_root};

/// The directory of an installation, if a person wants a certain one.
const HOME: &str = "ZOOKEEPER_HOME";

/// What a server needs of Debian's packages; Apache's archive has all of it in one directory.
const JARS: [&str; 6] = [
    "zookeeper.jar",
    "zookeeper-jute.jar",
    "slf4j-api.jar",
    "slf4j-simple.jar",
    "snappy-java.jar",
    "metrics-core.jar",
];

/// What Java is told for a small server that starts quickly.
pub(crate) const FLAGS: [&str; 12] = [
    "-Xms32m",
    "-Xmx64m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-Dzookeeper.jmx.log4j.disable=true",
    "-Dzookeeper.admin.enableServer=false",
    "-Dzookeeper.4lw.commands.whitelist=*",
    // The servers' data is thrown away anyway, and a killed process loses nothing that the system has.
    "-Dzookeeper.forceSync=no",
    "-Dzookeeper.preAllocSize=1024",
    "-Dzookeeper.cnxTimeout=1000",
    "-Dznode.container.checkIntervalMs=1000",
];

/// A ZooKeeper and a Java, neither of which has been run yet.
#[derive(Clone, Debug)]
pub struct Installation {
    java: Executable,
    class_path: OsString,
}

impl Installation {
    /// [Looks for Java](Self::find_java), and [for ZooKeeper](Self::find_class_path).
    ///
    /// # Errors
    ///
    /// One of them is not there.
    pub fn find() -> Result<Self> {
        Ok(Self { java: Self::find_java()?, class_path: Self::find_class_path()? })
    }

    /// Looks for Java in `JAVA_HOME`, then as for any [tool](tools::find), then among unpacked packages.
    ///
    /// # Errors
    ///
    /// It is in none of these places, or a variable points to something else.
    pub fn find_java() -> Result<Executable> {
        java()
    }

    /// Looks for the classes of ZooKeeper where `ZOOKEEPER_HOME` points, around a `zkServer.sh` on `PATH`, among the
    /// system's packages, and under [`tools_root`]. Returns what Java's `-cp` wants.
    ///
    /// # Errors
    ///
    /// They are in none of these places, or the variable points to something else.
    pub fn find_class_path() -> Result<OsString> {
        class_path()
    }

    /// Returns where Java is.
    pub fn java(&self) -> &Path {
        &self.java.path
    }

    /// Returns where the classes of ZooKeeper are, as Java's `-cp` wants it.
    pub fn class_path(&self) -> &OsString {
        &self.class_path
    }

    /// The command line of a server.
    pub(super) fn command_line(&self, config: &Path, heap: Option<u32>) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = FLAGS.map(Into::into).into();
        // The last one counts.
        arguments.extend(heap.map(|heap| format!("-Xmx{heap}m").into()));
        arguments.push("-cp".into());
        arguments.push(self.class_path.clone());
        arguments.push("org.apache.zookeeper.server.quorum.QuorumPeerMain".into());
        arguments.push(config.into());
        self.java.command_line(&arguments)
    }
}

fn java() -> Result<Executable> {
    let home = env::var_os("JAVA_HOME").filter(|home| !home.is_empty());
    let Some(home) = home else {
        return tools::find(&JAVA).or_else(|error| unpacked_java().ok_or(error));
    };
    let path = Path::new(&home).join("bin/java");
    ensure!(path.is_file(), "JAVA_HOME is set to {}, where there is no bin/java", home.display());
    Ok(Executable { path, library_path: None })
}

/// Debian leaves it to an installed system to put its Java on the `PATH`.
fn unpacked_java() -> Option<Executable> {
    let machines = fs::read_dir(tools_root().join("usr/lib/jvm")).ok()?.flatten();
    let path = machines.map(|machine| machine.path().join("bin/java")).find(|path| path.is_file())?;
    Some(Executable { path, library_path: None })
}

fn class_path() -> Result<OsString> {
    if let Some(home) = env::var_os(HOME).filter(|home| !home.is_empty()) {
        let home = PathBuf::from(home);
        return class_path_at(&home).with_context(|| {
            format!("{HOME} is set to {}, where there are no classes of ZooKeeper", home.display())
        });
    }
    let on_path = env::var_os("PATH").unwrap_or_default();
    let scripts = env::split_paths(&on_path).filter_map(|dir| fs::canonicalize(dir.join("zkServer.sh")).ok());
    let around_script = scripts.filter_map(|script| Some(script.parent()?.parent()?.to_owned()));
    let packages = [PathBuf::from("/usr"), tools_root().join("usr")];
    match around_script.chain(packages).find_map(|home| class_path_at(&home)) {
        Some(found) => Ok(found),
        None => bail!(
            "ZooKeeper was found neither around a zkServer.sh on PATH nor under target/tools; run `cargo xtask setup`, \
             or set {HOME} to the directory of an installation"
        ),
    }
}

/// The class path of an installation from Apache's archive, from Homebrew, or from Debian's packages.
fn class_path_at(home: &Path) -> Option<OsString> {
    for lib in [home.join("lib"), home.join("libexec/lib")] {
        let names = fs::read_dir(&lib).into_iter().flatten().flatten().map(|entry| entry.file_name());
        if names.into_iter().any(|name| is_the_jar(&name.to_string_lossy())) {
            return Some(lib.join("*").into());
        }
    }
    let jars = JARS.map(|jar| home.join("share/java").join(jar));
    if !jars.iter().all(|jar| jar.is_file()) {
        return None;
    }
    env::join_paths(jars).ok()
}

/// `zookeeper-3.9.2.jar`, and not `zookeeper-jute-3.9.2.jar`.
fn is_the_jar(name: &str) -> bool {
    let version = name.strip_prefix("zookeeper-").and_then(|rest| rest.strip_suffix(".jar"));
    version.is_some_and(|version| version.starts_with(|first: char| first.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_layouts_are_recognised_and_anything_else_is_not() {
        let home = tempfile::tempdir().unwrap();
        let make = |path: &str| {
            let path = home.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        };
        make("lib/zookeeper-jute-3.9.2.jar");
        assert_eq!(class_path_at(home.path()), None);
        for jar in JARS {
            make(&format!("share/java/{jar}"));
        }
        let found = class_path_at(home.path()).unwrap();
        assert_eq!(env::split_paths(&found).count(), JARS.len());
        make("lib/zookeeper-3.9.2.jar");
        assert_eq!(class_path_at(home.path()), Some(home.path().join("lib/*").into()));
    }
}
