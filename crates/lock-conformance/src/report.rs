//! The outcomes of a run as lines of JSON, for those who gather the runs of many backends.

use std::{env, fs::OpenOptions, io::Write, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use serde_json::json;

use crate::{Fixture, Property};

const FILE: &str = "LOCK_CONFORMANCE_REPORT";

/// How a property fared.
pub(crate) enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

/// The file to report to, if one is wanted.
pub(crate) struct Report(Option<PathBuf>);

impl Report {
    pub(crate) fn from_env() -> Self {
        Self(env::var_os(FILE).map(PathBuf::from))
    }

    /// Appends one line.
    pub(crate) fn write<F: Fixture>(
        &self,
        property: &Property<F>,
        outcome: &Outcome,
        took: Duration,
    ) -> Result<()> {
        let Some(path) = &self.0 else { return Ok(()) };
        let (outcome, reason) = match outcome {
            Outcome::Passed => ("passed", None),
            Outcome::Failed(reason) => ("failed", Some(reason)),
            Outcome::Skipped(reason) => ("skipped", Some(reason)),
        };
        let line = json!({
            "backend": F::NAME,
            "group": property.group(),
            "property": property.name(),
            "outcome": outcome,
            "reason": reason,
            "millis": took.as_millis() as u64,
        });
        // One write of a whole line to a file opened for appending: lines of several writers do not mix.
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()))
            .with_context(|| format!("{FILE}: cannot append to {}", path.display()))
    }
}
