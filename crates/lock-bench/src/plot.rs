//! Plots as SVG, in colours that the page's style chooses, so that they are right in light and in dark.

use maud::{Markup, html};

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 42.0;

/// Points that belong together.
#[derive(Clone, Debug)]
pub struct Line {
    /// What they are called.
    pub name: String,
    /// The class that colours them.
    pub class: &'static str,
    /// Whether it is drawn with dashes.
    pub dashed: bool,
    /// Each to the right of the one before.
    pub points: Vec<(f64, f64)>,
}

/// An axis with the numbers that stand at it.
#[derive(Clone, Debug)]
pub struct Axis<'a> {
    /// What is measured.
    pub label: &'a str,
    /// Where a number stands, and how it is written.
    pub ticks: Vec<(f64, String)>,
}

/// Draws lines on two logarithmic axes, and tells below what each is called.
#[must_use]
pub fn lines(title: &str, across: &Axis<'_>, up: &Axis<'_>, lines: &[Line]) -> Markup {
    let scale = |axis: &Axis<'_>, from: f64, to: f64| {
        let (low, high) = (axis.ticks[0].0.ln(), axis.ticks[axis.ticks.len() - 1].0.ln());
        move |value: f64| {
            let part = if high > low { (value.ln() - low) / (high - low) } else { 0.5 };
            from + part.clamp(0.0, 1.0) * (to - from)
        }
    };
    let (x, y) = (scale(across, LEFT, WIDTH - RIGHT), scale(up, HEIGHT - BOTTOM, TOP));
    html! {
        figure {
            figcaption { (title) }
            svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(title) {
                @for (value, text) in &up.ticks {
                    line.grid x1=(LEFT) x2=(WIDTH - RIGHT) y1=(round(y(*value))) y2=(round(y(*value))) {}
                    text.tick x=(LEFT - 8.0) y=(round(y(*value) + 4.0)) text-anchor="end" { (text) }
                }
                @for (value, text) in &across.ticks {
                    text.tick x=(round(x(*value))) y=(HEIGHT - BOTTOM + 18.0) text-anchor="middle" { (text) }
                }
                text.label x=((LEFT + WIDTH - RIGHT) / 2.0) y=(HEIGHT - 5.0) text-anchor="middle" { (across.label) }
                @for line in lines {
                    @let path = line.points.iter().map(|(a, b)| format!("{} {}", round(x(*a)), round(y(*b))));
                    g class=(line.class) {
                        path.dashed[line.dashed] d=(format!("M{}", path.collect::<Vec<_>>().join("L"))) {}
                        @for (a, b) in &line.points {
                            circle cx=(round(x(*a))) cy=(round(y(*b))) r="3" {
                                title { (line.name) }
                            }
                        }
                    }
                }
            }
            p.legend {
                @for line in lines {
                    span class={ (line.class) @if line.dashed { " dashed" } } { (line.name) }
                }
            }
        }
    }
}

/// One bar of a comparison.
#[derive(Clone, Debug)]
pub struct Bar {
    /// What it stands for.
    pub name: String,
    /// The class that colours it.
    pub class: &'static str,
    /// From where the quarter below ends, over the middle, to where the quarter above begins.
    pub low: f64,
    /// The length of the bar.
    pub median: f64,
    /// The end of its whisker.
    pub high: f64,
}

/// Draws ratios beside each other, with a mark at 1.
#[must_use]
pub fn bars(title: &str, bars: &[Bar]) -> Markup {
    const ROW: f64 = 26.0;
    const NAMES: f64 = 150.0;
    const NUMBERS: f64 = 44.0;
    let most = bars.iter().map(|bar| bar.high).fold(1.2, f64::max).min(4.0);
    let x = |value: f64| NAMES + value.min(most) / most * (WIDTH - NAMES - NUMBERS);
    let height = bars.len() as f64 * ROW + 8.0;
    html! {
        figure {
            figcaption { (title) }
            svg viewBox=(format!("0 0 {WIDTH} {height}")) role="img" aria-label=(title) {
                line.one x1=(round(x(1.0))) x2=(round(x(1.0))) y1="0" y2=(height) {}
                @for (number, bar) in bars.iter().enumerate() {
                    @let y = number as f64 * ROW + 4.0;
                    g class=(bar.class) {
                        text.name x=(NAMES - 8.0) y=(y + 15.0) text-anchor="end" { (bar.name) }
                        rect x=(NAMES) y=(y + 3.0) width=(round(x(bar.median) - NAMES)) height=(ROW - 10.0) rx="2" {}
                        line.whisker x1=(round(x(bar.low))) x2=(round(x(bar.high))) y1=(y + 11.0) y2=(y + 11.0) {}
                        text.number x=(round(x(bar.high).max(x(bar.median)) + 6.0)) y=(y + 15.0) {
                            (format!("{:.2}", bar.median))
                        }
                    }
                }
            }
        }
    }
}

/// Returns the powers of ten around `values`, each as `write` writes it.
#[must_use]
pub fn decades(values: impl Iterator<Item = f64>, write: impl Fn(f64) -> String) -> Vec<(f64, String)> {
    let (low, high) = values
        .filter(|value| *value > 0.0)
        .fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
    if !low.is_finite() {
        return vec![(1.0, write(1.0)), (10.0, write(10.0))];
    }
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    (first..=last.max(first + 1)).map(|power| 10_f64.powi(power)).map(|value| (value, write(value))).collect()
}

/// Tenths of a pixel are fine enough, and short.
fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::{Axis, Line, decades, lines};

    #[test]
    fn decades_enclose_all_values() {
        let values = |values: &[f64]| {
            decades(values.iter().copied(), |value| value.to_string())
                .into_iter()
                .map(|(value, _)| value)
                .collect::<Vec<_>>()
        };
        assert_eq!(values(&[30.0, 2500.0]), [10.0, 100.0, 1000.0, 10_000.0]);
        assert_eq!(values(&[10.0]), [10.0, 100.0]);
        assert_eq!(values(&[]), [1.0, 10.0]);
    }

    #[test]
    fn points_stand_where_their_values_are() {
        let axis = |ticks: &[f64]| Axis {
            label: "n",
            ticks: ticks.iter().map(|tick| (*tick, tick.to_string())).collect(),
        };
        let points = vec![(1.0, 1.0), (100.0, 100.0)];
        let line = Line { name: "a<b".to_owned(), class: "ours", dashed: false, points };
        let drawn = lines("t", &axis(&[1.0, 100.0]), &axis(&[1.0, 10.0, 100.0]), &[line]).into_string();
        assert!(drawn.contains("M58 218L396 12"), "{drawn}");
        assert!(drawn.contains("a&lt;b"), "{drawn}");
    }
}
