//! Medians and their spread, ratios within rounds, and how a figure grows with size.

use serde::{Deserialize, Serialize};

/// The middle of several figures, and the quarter of them on each side.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Quartiles {
    /// A quarter of the figures is below.
    pub low: f64,
    /// Half of the figures is below.
    pub median: f64,
    /// A quarter of the figures is above.
    pub high: f64,
}

impl Quartiles {
    /// Returns those of `figures`, of which there may be any number but none; between two figures, it interpolates.
    #[must_use]
    pub fn of(figures: &[f64]) -> Option<Self> {
        let mut sorted: Vec<_> = figures.iter().copied().filter(|figure| figure.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let at = |part: f64| {
            let place = part * last as f64;
            let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
            below + (above - below) * place.fract()
        };
        Some(Self { low: at(0.25), median: at(0.5), high: at(0.75) })
    }

    /// Returns the quartiles of the ratios of each round. What disturbs a round disturbs both, and so not its ratio.
    #[must_use]
    pub fn of_ratios(figures: &[f64], base: &[f64]) -> Option<Self> {
        let ratios: Vec<_> = figures.iter().zip(base).map(|(figure, base)| figure / base).collect();
        Self::of(&ratios)
    }
}

/// Returns the exponent `e` of the power law `figure ~ size^e` that fits the points best: 0 is flat, 1 is linear.
#[must_use]
pub fn growth(points: &[(f64, f64)]) -> Option<f64> {
    let logs: Vec<_> =
        points.iter().filter(|(x, y)| *x > 0.0 && *y > 0.0).map(|(x, y)| (x.ln(), y.ln())).collect();
    let count = logs.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| logs.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|log| log.0), mean(|log| log.1));
    let variance: f64 = logs.iter().map(|log| (log.0 - x).powi(2)).sum();
    let both: f64 = logs.iter().map(|log| (log.0 - x) * (log.1 - y)).sum();
    (variance > 0.0).then(|| both / variance)
}

/// Returns how many times the largest share is the smallest; infinite if somebody got nothing.
#[must_use]
pub fn spread(shares: &[u64]) -> Option<f64> {
    let (least, most) = (*shares.iter().min()?, *shares.iter().max()?);
    (most > 0).then(|| most as f64 / least as f64)
}

#[cfg(test)]
mod tests {
    use super::{Quartiles, growth, spread};

    #[test]
    fn quartiles_interpolate_and_know_no_order() {
        let found = Quartiles::of(&[4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(found, Quartiles { low: 1.75, median: 2.5, high: 3.25 });
        assert_eq!(Quartiles::of(&[7.0]).unwrap(), Quartiles { low: 7.0, median: 7.0, high: 7.0 });
        assert_eq!(Quartiles::of(&[]), None);
    }

    #[test]
    fn a_round_that_was_slow_for_both_does_not_move_the_ratio() {
        let found = Quartiles::of_ratios(&[90.0, 9.0, 90.0], &[100.0, 10.0, 100.0]).unwrap();
        assert!((found.low - 0.9).abs() < 1e-9 && (found.high - 0.9).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn a_round_in_which_the_base_did_nothing_is_left_out() {
        let found = Quartiles::of_ratios(&[5.0, 6.0], &[0.0, 6.0]).unwrap();
        assert!((found.median - 1.0).abs() < 1e-9, "{found:?}");
    }

    #[test]
    fn growth_is_the_exponent_of_the_power() {
        let square: Vec<_> = [1.0, 10.0, 100.0].iter().map(|x| (*x, 3.0 * x * x)).collect();
        assert!((growth(&square).unwrap() - 2.0).abs() < 1e-9);
        let flat = [(2.0, 5.0), (16.0, 5.0), (64.0, 5.0)];
        assert!(growth(&flat).unwrap().abs() < 1e-9);
        assert_eq!(growth(&[(1.0, 1.0)]), None);
    }

    #[test]
    fn a_contender_that_got_nothing_makes_the_spread_infinite() {
        assert_eq!(spread(&[10, 5, 20]), Some(4.0));
        assert_eq!(spread(&[10, 0]), Some(f64::INFINITY));
        assert_eq!(spread(&[0, 0]), None);
    }
}
