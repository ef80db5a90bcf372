//! How many tests ran, summed over the closing lines of test programs.

use std::fmt;

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    passed: u64,
    failed: u64,
}

impl Tally {
    /// Adds every line like `test result: ok. 12 passed; 0 failed; 1 ignored` in `output`.
    pub(super) fn add(&mut self, output: &str) {
        for line in output.lines().filter_map(|line| line.trim().strip_prefix("test result:")) {
            self.passed += number_before(line, " passed");
            self.failed += number_before(line, " failed");
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

fn number_before(line: &str, word: &str) -> u64 {
    let before = line.split(word).next().unwrap_or_default();
    before.rsplit(' ').next().unwrap_or_default().parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::Tally;

    #[test]
    fn closing_lines_are_summed_and_all_else_is_passed_over() {
        let mut tally = Tally::default();
        tally.add("test a ... ok\ntest result: ok. 12 passed; 0 failed; 1 ignored; finished in 0.20s\n");
        tally.add("99 passed, but not by a test\ntest result: FAILED. 3 passed; 2 failed; 0 ignored\n");
        assert_eq!(tally.to_string(), "15 passed, 2 failed");
    }
}
