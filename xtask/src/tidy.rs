//! `cargo xtask tidy`: checks what a person would have to remember.

mod circles;
mod documents;
mod manifests;
mod readmes;
mod sources;
mod translations;
mod written;

use std::{fmt, fs, path::Path};

use anyhow::{Context, Result, bail};
use walkdir::{DirEntry, WalkDir};

use crate::workspace;

pub(crate) fn run() -> Result<()> {
    let tree = Tree::read(workspace::root())?;
    for note in sources::notes(&tree) {
        println!("note: {note}");
    }
    let mut violations = sources::check(&tree);
    violations.extend(circles::check(&tree));
    violations.extend(manifests::check(&tree));
    violations.extend(documents::check(&tree));
    violations.extend(written::check(&tree));
    violations.extend(readmes::check(&tree));
    violations.extend(translations::check(&tree));
    for violation in &violations {
        println!("{violation}");
    }
    let count = tree.files.len();
    if !violations.is_empty() {
        bail!("tidy: {count} files checked, {} to mend, see above", violations.len());
    }
    println!("tidy: {count} files checked, no violations");
    Ok(())
}

/// The text files that the checks look at.
#[derive(Debug, Default)]
struct Tree {
    files: Vec<File>,
}

#[derive(Debug)]
struct File {
    /// Below the root of the workspace, with `/` between its parts.
    path: String,
    text: String,
}

/// A place that breaks a rule, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    path: String,
    line: usize,
    advice: String,
}

impl Tree {
    fn read(root: &Path) -> Result<Self> {
        let mut files = Vec::new();
        for entry in WalkDir::new(root).sort_by_file_name().into_iter().filter_entry(is_ours) {
            let entry = entry.context("cannot list the workspace")?;
            let extension = entry.path().extension().unwrap_or_default();
            let is_text = ["rs", "toml", "md", "yaml"].iter().any(|known| extension == *known);
            if entry.file_type().is_file() && is_text {
                let text = fs::read_to_string(entry.path())
                    .with_context(|| format!("cannot read {}", entry.path().display()))?;
                let path = entry.path().strip_prefix(root).expect("the walk began at the root");
                files.push(File { path: path.to_string_lossy().replace('\\', "/"), text });
            }
        }
        Ok(Self { files })
    }

    fn find(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    /// The directories in `crates/`.
    fn crates(&self) -> impl Iterator<Item = &str> {
        self.files.iter().filter_map(|file| file.path.strip_prefix("crates/")?.strip_suffix("/Cargo.toml"))
    }
}

impl File {
    fn violation(&self, line: usize, advice: impl Into<String>) -> Violation {
        Violation { path: self.path.clone(), line, advice: advice.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.advice)
    }
}

/// Neither built nor hidden.
fn is_ours(entry: &DirEntry) -> bool {
    let name = entry.file_name().to_string_lossy();
    entry.depth() == 0 || !(name.starts_with('.') || name == "target")
}

#[cfg(test)]
mod tests {
    use super::{File, Tree, Violation};

    /// A tree of `(path, text)`.
    pub(super) fn tree(files: &[(&str, &str)]) -> Tree {
        let files =
            files.iter().map(|(path, text)| File { path: (*path).to_owned(), text: (*text).to_owned() });
        Tree { files: files.collect() }
    }

    pub(super) fn places(violations: &[Violation]) -> Vec<String> {
        violations.iter().map(|violation| format!("{}:{}", violation.path, violation.line)).collect()
    }

    #[test]
    fn a_walk_passes_over_what_is_built_or_hidden() {
        let root = tempfile::tempdir().unwrap();
        for path in ["crates/a/Cargo.toml", "target/debug/built.rs", ".git/hidden.rs", "src/lib.rs"] {
            let file = root.path().join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "").unwrap();
        }
        let tree = Tree::read(root.path()).unwrap();
        let paths: Vec<_> = tree.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["crates/a/Cargo.toml", "src/lib.rs"]);
        assert_eq!(tree.crates().collect::<Vec<_>>(), ["a"]);
    }
}
