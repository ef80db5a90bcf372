//! The traces that are kept: one file for each property that a model refutes.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

/// A way into a state in which a property is false, one step a line.
#[derive(Debug)]
pub struct Trace {
    /// Its steps, without their numbers.
    pub lines: Vec<String>,
}

/// Reads the trace by which model `id` refutes `property`.
///
/// # Errors
///
/// Fails if it was not kept: `cargo run --release -p lock-model -- keep` writes it.
pub fn kept(id: &str, property: &str) -> Result<Trace> {
    let path = path(id, property);
    let text = fs::read_to_string(&path)
        .with_context(|| format!("no trace is kept in {}: run `lock-model keep {id}`", path.display()))?;
    let line =
        |line: &str| line.split_once(". ").map_or_else(|| line.to_owned(), |(_, told)| told.to_owned());
    Ok(Trace { lines: text.lines().map(line).collect() })
}

impl Trace {
    /// Writes the trace to where [`kept`] finds it.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn keep(&self, id: &str, property: &str) -> Result<PathBuf> {
        let path = path(id, property);
        fs::write(&path, self.to_string()).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

impl std::fmt::Display for Trace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut numbered = self.lines.iter().zip(1..);
        numbered.try_for_each(|(line, number)| writeln!(f, "{number:>2}. {line}"))
    }
}

fn path(id: &str, property: &str) -> PathBuf {
    let name = format!("{id}-{}.txt", property.replace(' ', "-"));
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("traces").join(name)
}
