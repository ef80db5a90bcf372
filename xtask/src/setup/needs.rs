//! What tests and examples need beside Rust: how to see whether it is there, and under which names it can be had.

use std::{env, ffi::OsString, path::Path};

use anyhow::{Context, Error, Result, ensure};
use duct::cmd;
use test_cluster::{
    tools::{self, Executable, Tool, Version},
    zookeeper::Installation,
};

use crate::workspace;

/// Something that must be on this machine, and the names it goes by.
#[derive(Debug)]
pub(crate) struct Need {
    pub(super) what: &'static str,
    pub(super) look: fn() -> Look,
    pub(super) debian: &'static [&'static str],
    pub(super) brew: &'static str,
    /// The variable that a person can set instead, and to what.
    pub(super) instead: &'static str,
}

/// What a look at this machine found.
#[derive(Debug)]
pub(super) enum Look {
    /// Its version, if it tells one, and where it is.
    Found(String),
    /// Fetching it would help.
    Missing(Error),
    /// It would not: a variable or the PATH leads to something that does not run, and comes first.
    Broken(Error),
}

pub(crate) const REDIS: Need = Need {
    what: "Redis",
    look: || look_for(&tools::REDIS_SERVER),
    debian: &["redis-server", "redis-tools"],
    brew: "redis",
    instead: "REDIS_SERVER_BIN to the path of its server",
};

pub(crate) const ETCD: Need = Need {
    what: "etcd",
    look: || look_for(&tools::ETCD),
    debian: &["etcd-server"],
    brew: "etcd",
    instead: "ETCD_BIN to the path of its server",
};

pub(crate) const JAVA: Need = Need {
    what: "Java",
    look: || match Installation::find_java() {
        Ok(java) => runs(&java, "-version"),
        Err(error) => absent(error, &["JAVA_HOME", tools::JAVA.env]),
    },
    debian: &["default-jre-headless"],
    brew: "openjdk",
    instead: "JAVA_HOME to the directory that has bin/java",
};

/// Its jars: the package `zookeeper` has nothing but the scripts of a service.
pub(crate) const ZOOKEEPER: Need = Need {
    what: "ZooKeeper",
    look: || match Installation::find_class_path() {
        Ok(classes) => {
            let first = env::split_paths(&classes).next().unwrap_or_default();
            Look::Found(first.display().to_string())
        }
        Err(error) => absent(error, &["ZOOKEEPER_HOME"]),
    },
    debian: &["libzookeeper-java", "libslf4j-java", "libsnappy-java", "libdropwizard-metrics-java"],
    brew: "zookeeper",
    instead: "ZOOKEEPER_HOME to the directory of version 3.5.3 or newer",
};

/// The client library of etcd is generated from protocol files when it is built.
pub(crate) const PROTOC: Need = Need {
    what: "protoc",
    look: look_for_protoc,
    debian: &["protobuf-compiler", "libprotobuf-dev"],
    brew: "protobuf",
    instead: "PROTOC to the path of its program",
};

/// What makes a disk slow under a server.
pub(crate) const STRACE: Need = Need {
    what: "strace",
    look: || look_for(&tools::STRACE),
    debian: &["strace"],
    brew: "strace",
    instead: "STRACE_BIN to the path of its program",
};

/// What tests and examples need.
pub(crate) const ALL: &[&Need] = &[&REDIS, &ETCD, &JAVA, &ZOOKEEPER, &PROTOC];

/// What can be got: all of that, and what only the lab of faults needs, which is for Linux alone.
pub(super) const KNOWN: &[&Need] = &[&REDIS, &ETCD, &JAVA, &ZOOKEEPER, &PROTOC, &STRACE];

fn look_for(tool: &Tool) -> Look {
    match tools::find(tool) {
        Ok(found) => runs(&found, "--version"),
        Err(error) => absent(error, &[tool.env]),
    }
}

/// Unpacked, but not all of it, is as good as missing: an earlier attempt was interrupted.
fn runs(found: &Executable, argument: &str) -> Look {
    let words = found.command_line(&[argument]);
    match said(&words[0], &words[1..]) {
        Ok(said) => Look::Found(format!("{}, {}", number(&said), found.path.display())),
        Err(error) if found.path.starts_with(tools::tools_root()) => Look::Missing(error),
        Err(error) => Look::Broken(error),
    }
}

/// Nothing was found, where one of `variables` would have come first.
fn absent(error: Error, variables: &[&str]) -> Look {
    let is_chosen = variables.iter().any(|name| env::var_os(name).is_some_and(|value| !value.is_empty()));
    if is_chosen { Look::Broken(error) } else { Look::Missing(error) }
}

/// Cargo sets the variable to a script of this workspace, unless a person has set it. The script looks further.
fn look_for_protoc() -> Look {
    let ours = workspace::root().join(".cargo/protoc");
    let chosen = env::var_os("PROTOC").filter(|path| !path.is_empty() && Path::new(path) != ours);
    let program = chosen.clone().unwrap_or_else(|| ours.into());
    // Without its well-known files it runs, but builds nothing.
    let well_known = ["-o", "/dev/null", "google/protobuf/descriptor.proto"].map(OsString::from);
    let complete = said(&program, &["--version".into()])
        .and_then(|version| said(&program, &well_known).map(|_| version))
        .map(|version| format!("{}, {}", number(&version), Path::new(&program).display()));
    match complete {
        Ok(found) => Look::Found(found),
        Err(error) if chosen.is_some() => Look::Broken(error),
        Err(error) => Look::Missing(error),
    }
}

/// What `program` says when it succeeds.
fn said(program: &OsString, arguments: &[OsString]) -> Result<String> {
    let ended = cmd(program, arguments)
        .stderr_to_stdout()
        .stdout_capture()
        .unchecked()
        .run()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let said = String::from_utf8_lossy(&ended.stdout).trim().to_owned();
    ensure!(ended.status.success(), "{} failed; it said: {said}", program.display());
    Ok(said)
}

/// The version in what a program says of itself; all of its first line if that is written otherwise.
fn number(said: &str) -> String {
    let first_line = || said.lines().next().unwrap_or_default().to_owned();
    Version::find(said).map_or_else(first_line, |version| version.to_string())
}

#[cfg(test)]
mod tests {
    use super::{Look, absent, number, said};

    #[test]
    fn versions_are_read_from_what_programs_say() {
        assert_eq!(number("openjdk version \"17.0.15\" 2025-04-15\nOpenJDK Runtime"), "17.0.15");
        assert_eq!(number("libprotoc 29.3\n"), "libprotoc 29.3");
    }

    #[test]
    fn a_program_that_fails_is_quoted() {
        let error = said(&"sh".into(), &["-c".into(), "echo no library >&2; exit 1".into()]).unwrap_err();
        assert_eq!(error.to_string(), "sh failed; it said: no library");
    }

    #[test]
    fn fetching_does_not_help_against_a_variable() {
        let look = |variable| absent(anyhow::anyhow!("not found"), &[variable]);
        assert!(matches!(look("PATH"), Look::Broken(_)));
        assert!(matches!(look("NO_SUCH_VARIABLE"), Look::Missing(_)));
    }
}
