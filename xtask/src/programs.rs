//! Test programs and examples: built by one call of cargo, and then run as often as wanted.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use duct::cmd;
use serde::Deserialize;

use crate::workspace::{self, Target};

/// Calls that select the same packages with the same features share all that they build. So everything that is run
/// after one another is built by these words.
pub(crate) const ALL: [&str; 2] = ["--workspace", "--all-features"];

/// A program that cargo built.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// The target that it was built from.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) manifest: PathBuf,
}

impl Program {
    /// The directory of its package, in which cargo would run it.
    pub(crate) fn home(&self) -> &Path {
        self.manifest.parent().expect("a manifest is in a directory")
    }
}

/// Calls cargo by `words`, which build something. Cargo shows its own progress.
pub(crate) fn build<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Vec<Program>> {
    let words = words.into_iter().chain(["--message-format", "json-render-diagnostics"]);
    let built = cmd(workspace::cargo(), words)
        .dir(workspace::root())
        .stdout_capture()
        .unchecked()
        .run()
        .context("cannot run cargo")?;
    if !built.status.success() {
        bail!("this does not build, see above");
    }
    programs(&String::from_utf8_lossy(&built.stdout))
}

/// Finds the programs among all that cargo says it built.
fn programs(messages: &str) -> Result<Vec<Program>> {
    #[derive(Deserialize)]
    struct Message {
        manifest_path: Option<PathBuf>,
        target: Option<Target>,
        executable: Option<PathBuf>,
    }
    let mut programs = Vec::new();
    for line in messages.lines() {
        let message: Message = serde_json::from_str(line).context("cannot read what cargo says")?;
        if let Message { manifest_path: Some(manifest), target: Some(target), executable: Some(path) } =
            message
        {
            programs.push(Program { name: target.name, path, manifest });
        }
    }
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use super::{Program, programs};

    #[test]
    fn programs_are_found_among_libraries_and_other_messages() {
        let messages = r#"{"reason":"compiler-artifact","manifest_path":"/w/a/Cargo.toml","target":{"kind":["lib"],"name":"a"},"executable":null}
{"reason":"compiler-artifact","manifest_path":"/w/a/Cargo.toml","target":{"kind":["test"],"name":"fifo"},"executable":"/t/fifo-1"}
{"reason":"build-script-executed","package_id":"b"}
{"reason":"build-finished","success":true}
"#;
        let fifo =
            Program { name: "fifo".to_owned(), path: "/t/fifo-1".into(), manifest: "/w/a/Cargo.toml".into() };
        assert_eq!(fifo.home().to_str(), Some("/w/a"));
        assert_eq!(programs(messages).unwrap(), [fifo]);
    }
}
