//! What this workspace holds, as cargo and the file system tell it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use duct::cmd;
use serde::Deserialize;

/// One package of the workspace, in the words of `cargo metadata`.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) manifest_path: PathBuf,
    pub(crate) targets: Vec<Target>,
    /// What each feature turns on.
    pub(crate) features: BTreeMap<String, Vec<String>>,
    /// Where it may be published: anywhere if nothing is said.
    publish: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) kind: Vec<String>,
}

impl Package {
    pub(crate) fn is_publishable(&self) -> bool {
        self.publish.as_ref().is_none_or(|registries| !registries.is_empty())
    }

    /// The integration tests, by name.
    pub(crate) fn tests(&self) -> impl Iterator<Item = &str> {
        self.targets.iter().filter(|t| t.kind == ["test"]).map(|t| t.name.as_str())
    }
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask/ lies in the workspace")
}

/// Where the commands keep what they make.
pub(crate) fn target() -> PathBuf {
    root().join("target")
}

/// Makes `dir` an empty directory.
pub(crate) fn empty(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
    }
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))
}

pub(crate) fn packages() -> Result<Vec<Package>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    let json = cmd!(cargo(), "metadata", "--no-deps", "--format-version", "1")
        .dir(root())
        .stdout_capture()
        .unchecked()
        .run()
        .context("cannot run cargo metadata")?;
    if !json.status.success() {
        bail!("cargo metadata failed: see above for what it says about a Cargo.toml");
    }
    let metadata: Metadata =
        serde_json::from_slice(&json.stdout).context("cannot read what cargo metadata says")?;
    Ok(metadata.packages)
}

/// The cargo that runs us.
pub(crate) fn cargo() -> String {
    std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::{Package, Target};

    pub(crate) fn package(name: &str, tests: &[&str], is_publishable: bool) -> Package {
        let target = |name: &&str| Target { name: (*name).to_owned(), kind: vec!["test".to_owned()] };
        Package {
            name: name.to_owned(),
            manifest_path: format!("/crates/{name}/Cargo.toml").into(),
            targets: tests.iter().map(target).collect(),
            features: BTreeMap::new(),
            publish: (!is_publishable).then(Vec::new),
        }
    }
}
