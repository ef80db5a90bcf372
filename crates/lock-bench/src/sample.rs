//! What a load noted, and what follows from it.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// One acquire and release, in nanoseconds of the clock that all processes share.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(from = "[u64; 4]", into = "[u64; 4]")]
pub struct Turn {
    /// Before the call to acquire.
    pub asked: u64,
    /// When the guard was there.
    pub acquired: u64,
    /// Before the call to release.
    pub leaving: u64,
    /// When that had returned.
    pub left: u64,
}

impl From<[u64; 4]> for Turn {
    fn from([asked, acquired, leaving, left]: [u64; 4]) -> Self {
        Self { asked, acquired, leaving, left }
    }
}

impl From<Turn> for [u64; 4] {
    fn from(Turn { asked, acquired, leaving, left }: Turn) -> Self {
        [asked, acquired, leaving, left]
    }
}

/// All that the tasks of a load noted.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Record {
    /// The turns of each task, in their order.
    pub turns: Vec<Vec<Turn>>,
    /// When it began to count.
    pub start: u64,
    /// When it ended to count.
    pub end: u64,
    /// What the client's process computed between them.
    pub cpu: Duration,
    /// How many pairs a turn stands for.
    pub batch: u32,
    /// Whether all wanted one key.
    pub contended: bool,
}

/// What one load came to.
#[derive(Clone, Debug)]
pub struct Sample {
    /// How long it was measured.
    pub seconds: f64,
    /// How many pairs of acquire and release were completed.
    pub pairs: u64,
    /// From the call to acquire to the guard, in nanoseconds.
    pub acquire: Histogram<u64>,
    /// An acquire and its release without the hold between them, in nanoseconds.
    pub pair: Histogram<u64>,
    /// From the call to release to the guard of who waited next, in nanoseconds.
    pub handover: Histogram<u64>,
    /// The pairs of each task.
    pub shares: Vec<u64>,
    /// How often somebody acquired while another had not begun to release.
    pub overlaps: u64,
    /// What the client computed, in seconds.
    pub cpu: f64,
    /// What the servers received meanwhile, if they count it.
    pub requests: Option<u64>,
}

/// Returns an empty histogram of durations: two digits of precision, which is finer than what two runs agree on.
#[must_use]
pub fn durations() -> Histogram<u64> {
    const LONGEST: u64 = 3_600_000_000_000;
    Histogram::new_with_bounds(1, LONGEST, 2).expect("the bounds are constants")
}

impl Record {
    /// Puts several processes together that ran at the same time.
    #[must_use]
    pub fn merged(records: Vec<Self>) -> Option<Self> {
        let start = records.iter().map(|record| record.start).max()?;
        let end = records.iter().map(|record| record.end).min()?;
        let cpu = records.iter().map(|record| record.cpu).sum();
        let (batch, contended) = (records[0].batch, records[0].contended);
        let turns = records.into_iter().flat_map(|record| record.turns).collect();
        Some(Self { turns, start, end, cpu, batch, contended })
    }

    /// Counts and sorts.
    #[must_use]
    pub fn sample(&self) -> Sample {
        let batch = u64::from(self.batch);
        let window = self.start..=self.end;
        let counted: Vec<Vec<Turn>> = self
            .turns
            .iter()
            .map(|turns| turns.iter().filter(|turn| window.contains(&turn.left)).copied().collect())
            .collect();
        let (mut acquire, mut pair) = (durations(), durations());
        for turn in counted.iter().flatten() {
            let held = turn.leaving - turn.acquired;
            acquire.saturating_record((turn.acquired - turn.asked).max(1));
            pair.saturating_record(((turn.left - turn.asked - held) / batch).max(1));
        }
        let shares: Vec<_> = counted.iter().map(|turns| turns.len() as u64 * batch).collect();
        let (handover, overlaps) =
            if self.contended { handovers(counted.concat()) } else { (durations(), 0) };
        Sample {
            seconds: (self.end - self.start) as f64 / 1e9,
            pairs: shares.iter().sum(),
            acquire,
            pair,
            handover,
            shares,
            overlaps,
            cpu: self.cpu.as_secs_f64(),
            requests: None,
        }
    }
}

/// From each call to release to the next guard, where its holder was waiting by then.
fn handovers(mut turns: Vec<Turn>) -> (Histogram<u64>, u64) {
    turns.sort_unstable_by_key(|turn| turn.acquired);
    let (mut handover, mut overlaps) = (durations(), 0);
    for two in turns.windows(2) {
        let [before, after] = two else { continue };
        if after.acquired < before.leaving {
            overlaps += 1;
        } else if after.asked < before.leaving {
            handover.saturating_record((after.acquired - before.leaving).max(1));
        }
    }
    (handover, overlaps)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Record, Turn};

    fn turn(asked: u64, acquired: u64, leaving: u64, left: u64) -> Turn {
        Turn { asked, acquired, leaving, left }
    }

    fn record(turns: &[&[Turn]]) -> Record {
        let turns = turns.iter().map(|turns| turns.to_vec()).collect();
        Record {
            turns,
            start: 0,
            end: 1_000_000_000,
            cpu: Duration::from_millis(10),
            batch: 1,
            contended: true,
        }
    }

    #[test]
    fn a_handover_is_from_the_call_to_release_to_the_guard_of_who_waited() {
        let sample = record(&[&[turn(0, 10, 20, 30), turn(90, 95, 96, 97)], &[turn(5, 24, 40, 50)]]).sample();
        assert_eq!((sample.handover.len(), sample.handover.max()), (1, 4));
        assert_eq!((sample.pairs, sample.shares), (3, vec![2, 1]));
    }

    #[test]
    fn two_holders_at_a_time_are_seen() {
        assert_eq!(record(&[&[turn(0, 10, 20, 30)], &[turn(5, 19, 40, 50)]]).sample().overlaps, 1);
    }

    #[test]
    fn what_ended_outside_the_time_is_not_counted_and_a_hold_is_no_cost() {
        let sample = record(&[&[turn(0, 10, 60, 70), turn(0, 1, 2, 2_000_000_000)]]).sample();
        assert_eq!((sample.pairs, sample.pair.max(), sample.acquire.max()), (1, 20, 10));
    }

    #[test]
    fn processes_count_while_all_of_them_ran() {
        let early = Record { start: 5, end: 90, ..record(&[&[turn(0, 1, 2, 3)]]) };
        let late = Record { start: 10, end: 100, ..record(&[&[turn(0, 1, 2, 3)]]) };
        let merged = Record::merged(vec![early, late]).unwrap();
        assert_eq!((merged.start, merged.end, merged.turns.len()), (10, 90, 2));
        assert_eq!(merged.cpu, Duration::from_millis(20));
    }
}
