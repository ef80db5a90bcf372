//! What the suite reported, counted by property group and backend.

use std::{fmt, fs, path::Path};

use anyhow::{Context, Result};
use comfy_table::{Table, presets};
use serde::Deserialize;

/// One property of one backend, as the suite reports it.
#[derive(Debug, Deserialize)]
pub(super) struct Entry {
    pub(super) backend: String,
    pub(super) group: String,
    pub(super) property: String,
    pub(super) outcome: Outcome,
    pub(super) reason: Option<String>,
    pub(super) millis: u64,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    Passed,
    Failed,
    Skipped,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        })
    }
}

/// How many properties ended in which way.
#[derive(Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) passed: usize,
    pub(super) failed: usize,
    pub(super) skipped: usize,
}

#[derive(Debug)]
pub(crate) struct Report {
    pub(super) entries: Vec<Entry>,
}

impl Report {
    /// Reads every report in `dir`.
    pub(crate) fn read(dir: &Path) -> Result<Self> {
        let mut files = fs::read_dir(dir)
            .and_then(|files| files.map(|file| Ok(file?.path())).collect::<Result<Vec<_>, _>>())
            .with_context(|| format!("cannot read {}", dir.display()))?;
        files.retain(|file| file.extension().is_some_and(|extension| extension == "jsonl"));
        files.sort();

        let mut entries = Vec::new();
        for file in files {
            let text =
                fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            for (index, line) in text.lines().enumerate() {
                let entry = serde_json::from_str(line).with_context(|| {
                    format!("{}:{}: this is no line of a conformance report", file.display(), index + 1)
                })?;
                entries.push(entry);
            }
        }
        Ok(Self { entries })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// In the order in which the suite came to them.
    pub(super) fn groups(&self) -> Vec<&str> {
        distinct(self.entries.iter().map(|entry| entry.group.as_str()))
    }

    pub(super) fn backends(&self) -> Vec<&str> {
        distinct(self.entries.iter().map(|entry| entry.backend.as_str()))
    }

    pub(super) fn count(&self, group: &str, backend: &str) -> Counts {
        Counts::of(self.entries.iter().filter(|entry| entry.group == group && entry.backend == backend))
    }

    pub(crate) fn totals(&self) -> String {
        let Counts { passed, failed, skipped } = Counts::of(&self.entries);
        let backends = self.backends().len();
        format!(
            "{passed} passed, {failed} failed, {skipped} skipped, over {backends} backend{}",
            if backends == 1 { "" } else { "s" }
        )
    }

    fn ended(&self, outcome: Outcome) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |entry| entry.outcome == outcome)
    }
}

/// The table, every skip with its reason, every failure.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let backends = self.backends();
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(["group"].iter().chain(&backends));
        for group in self.groups() {
            let counts = backends.iter().map(|backend| self.count(group, backend).to_string());
            table.add_row([group.to_owned()].into_iter().chain(counts));
        }
        write!(f, "{table}")?;
        for (heading, outcome) in [("Skipped", Outcome::Skipped), ("Failed", Outcome::Failed)] {
            let mut entries = self.ended(outcome).peekable();
            if entries.peek().is_some() {
                write!(f, "\n\n{heading}")?;
            }
            for entry in entries {
                let reason = entry.reason.as_deref().unwrap_or("no reason was given");
                write!(
                    f,
                    "\n  {} · {}: {}",
                    entry.backend,
                    entry.property,
                    reason.replace('\n', "\n      ")
                )?;
            }
        }
        Ok(())
    }
}

impl Counts {
    fn of<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Self {
        let mut counts = Self::default();
        for entry in entries {
            match entry.outcome {
                Outcome::Passed => counts.passed += 1,
                Outcome::Failed => counts.failed += 1,
                Outcome::Skipped => counts.skipped += 1,
            }
        }
        counts
    }
}

/// `3 ✗ 9 ✓ 1 skip`, without what is zero.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [(self.failed, "✗"), (self.passed, "✓"), (self.skipped, "skip")];
        let parts: Vec<_> = parts
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, mark)| format!("{count} {mark}"))
            .collect();
        f.write_str(&parts.join(" "))
    }
}

fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = Vec::new();
    for name in names {
        if !seen.contains(&name) {
            seen.push(name);
        }
    }
    seen
}

#[cfg(test)]
pub(super) mod tests {
    use super::Report;

    const LOCAL: &str = r#"{"backend":"local","group":"exclusion","property":"two_tasks_exclude","outcome":"passed","reason":null,"millis":12}
{"backend":"local","group":"exclusion","property":"two_processes_exclude","outcome":"skipped","reason":"one process only","millis":0}
{"backend":"local","group":"tokens","property":"tokens_increase","outcome":"passed","reason":null,"millis":3}
"#;
    const SETNX: &str = r#"{"backend":"setnx","group":"exclusion","property":"two_tasks_exclude","outcome":"failed","reason":"saw 2 <holders>","millis":250}
{"backend":"setnx","group":"exclusion","property":"two_processes_exclude","outcome":"passed","reason":null,"millis":900}
"#;

    pub(in crate::conformance) fn sample() -> Report {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("lock-local.jsonl"), LOCAL).unwrap();
        std::fs::write(dir.path().join("lock-setnx.jsonl"), SETNX).unwrap();
        std::fs::write(dir.path().join("report.html"), "not a report").unwrap();
        Report::read(dir.path()).unwrap()
    }

    #[test]
    fn cells_count_what_passed_failed_and_was_skipped() {
        let report = sample();
        let cell = |group, backend| report.count(group, backend).to_string();
        assert_eq!(cell("exclusion", "local"), "1 ✓ 1 skip");
        assert_eq!(cell("exclusion", "setnx"), "1 ✗ 1 ✓");
        assert_eq!(cell("tokens", "setnx"), "");
        assert_eq!(report.totals(), "3 passed, 1 failed, 1 skipped, over 2 backends");
    }

    #[test]
    fn every_skip_and_every_failure_is_named_with_its_reason() {
        let text = sample().to_string();
        assert!(text.contains("Skipped\n  local · two_processes_exclude: one process only"), "{text}");
        assert!(text.contains("Failed\n  setnx · two_tasks_exclude: saw 2 <holders>"), "{text}");
    }

    #[test]
    fn a_torn_line_is_named_by_file_and_number() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("lock-local.jsonl"), "{\"backend\":\"lo").unwrap();
        let error = Report::read(dir.path()).unwrap_err().to_string();
        assert!(error.ends_with("lock-local.jsonl:1: this is no line of a conformance report"), "{error}");
    }
}
