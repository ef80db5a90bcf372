//! One cell over time: who believed to hold what, what was broken meanwhile, and the order of the tokens.

use std::fmt::Write;

use maud::{Markup, PreEscaped, html};

use crate::{
    checker::{Attempt, Faults, attempts},
    event::{MS, Nanos},
    run::{Outcome, Verdict},
};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 96.0;
const LANE: f64 = 16.0;
const TOKENS: f64 = 72.0;
/// More bars than this are a wall, and a page of megabytes.
const MOST: usize = 260;
const MARGIN: Nanos = 250 * MS;

struct Window {
    from: Nanos,
    to: Nanos,
}

impl Window {
    /// Around the first violation, or else around the faults.
    fn of(outcome: &Outcome, faults: &Faults) -> Self {
        let first = outcome.events.first().map_or(0, |event| event.at);
        let last = outcome.events.last().map_or(1, |event| event.at);
        let violation = outcome.report.findings.first().filter(|_| outcome.verdict != Verdict::Green);
        if let Some(finding) = violation.filter(|finding| !finding.attempts.is_empty()) {
            let from = finding.at.saturating_sub(MARGIN).max(first);
            return Self { from, to: (finding.at + MARGIN).min(last).max(from + MS) };
        }
        let began = faults.0.iter().map(|fault| fault.began).min().unwrap_or(first);
        let ended = faults.0.iter().map(|fault| fault.ended).max().unwrap_or(last);
        let from = began.saturating_sub(MARGIN).max(first);
        Self { from, to: ended.saturating_add(2 * MARGIN).min(last).max(from + MS) }
    }

    fn x(&self, at: Nanos) -> f64 {
        let part = at.clamp(self.from, self.to) - self.from;
        LEFT + (WIDTH - LEFT - 8.0) * part as f64 / (self.to - self.from) as f64
    }

    fn meets(&self, from: Nanos, to: Nanos) -> bool {
        from <= self.to && to >= self.from
    }
}

pub(super) fn draw(outcome: &Outcome) -> Markup {
    let faults = Faults::of(&outcome.events);
    let window = Window::of(outcome, &faults);
    let all = attempts(&outcome.events);
    let held: Vec<(&Attempt, (Nanos, Nanos))> = all
        .iter()
        .filter_map(|attempt| Some((attempt, attempt.belief()?)))
        .filter(|(_, (from, to))| window.meets(*from, *to))
        .take(MOST)
        .collect();
    let mut agents: Vec<u32> = held.iter().map(|(attempt, _)| attempt.agent).collect();
    agents.sort_unstable();
    agents.dedup();
    let top = 22.0;
    let height = top + LANE * agents.len() as f64 + 10.0 + TOKENS + 22.0;
    let blamed: Vec<u64> =
        outcome.report.findings.first().map(|finding| finding.attempts.clone()).unwrap_or_default();
    let mut svg = String::new();
    for fault in faults.0.iter().filter(|fault| window.meets(fault.began, fault.ended)) {
        let (x, to) = (window.x(fault.began), window.x(fault.ended));
        rect(
            &mut svg,
            "fault",
            x,
            2.0,
            (to - x).max(2.0),
            height - 20.0,
            &format!("{}: {}", fault.name, fault.proofs.join("; ")),
        );
    }
    for (lane, agent) in agents.iter().enumerate() {
        let y = top + LANE * lane as f64;
        text(&mut svg, 4.0, y + 11.0, &format!("client {agent}"));
        for (attempt, (from, to)) in held.iter().filter(|(attempt, _)| attempt.agent == *agent) {
            let (x, end) = (window.x(*from), window.x(*to));
            let class = if blamed.contains(&attempt.number) { "hold blamed" } else { "hold" };
            let token = attempt.acquired.map_or(0, |(_, token)| token);
            let title = format!(
                "{} by client {agent}, token {token}, {} ms",
                attempt.lock,
                (to.min(&window.to) - from) / MS
            );
            rect(&mut svg, class, x, y + 2.0, (end - x).max(1.5), LANE - 4.0, &title);
        }
    }
    tokens(&mut svg, &held, &window, height - 22.0);
    let step = ((window.to - window.from) / MS / 6).max(1);
    for tick in 0..6 {
        let at = window.from + tick * step * MS;
        if at <= window.to {
            text(&mut svg, window.x(at), height - 4.0, &format!("{} ms", tick * step));
        }
    }
    let view = format!("0 0 {WIDTH} {height}");
    html! {
        div.scroll {
            svg viewBox=(view) role="img" aria-label="who believed to hold the locks, and what was broken" {
                (PreEscaped(svg))
            }
        }
        p.soft.small {
            span.key.hold {} " a client believes to hold a lock  " span.key.fault {} " something is broken  "
            span.key.dot {} " tokens, in the order of their grants"
        }
    }
}

/// The tokens of the lock with most holds: they should rise.
fn tokens(svg: &mut String, held: &[(&Attempt, (Nanos, Nanos))], window: &Window, bottom: f64) {
    let mut locks: Vec<&str> = held.iter().map(|(attempt, _)| attempt.lock.as_str()).collect();
    locks.sort_unstable();
    let count = |lock: &str| locks.iter().filter(|other| **other == lock).count();
    let Some(lock) = locks.iter().max_by_key(|lock| count(lock)) else { return };
    let of_lock =
        held.iter().filter(|(attempt, _)| attempt.lock == **lock).filter_map(|(attempt, _)| attempt.acquired);
    let mut points: Vec<(Nanos, u64)> = of_lock.filter(|(at, _)| window.meets(*at, *at)).collect();
    points.sort_unstable();
    let mut ranks: Vec<u64> = points.iter().map(|(_, token)| *token).collect();
    ranks.sort_unstable();
    ranks.dedup();
    text(svg, 4.0, bottom - TOKENS / 2.0, "tokens");
    for (at, token) in points {
        let rank = ranks.binary_search(&token).unwrap_or(0) as f64;
        let y = bottom - 4.0 - (TOKENS - 12.0) * rank / ranks.len().max(2) as f64;
        let (x, title) = (window.x(at), format!("token {token}"));
        write!(svg, r#"<circle class="dot" cx="{x:.1}" cy="{y:.1}" r="2"><title>{title}</title></circle>"#)
            .expect("a text takes all");
    }
}

fn rect(svg: &mut String, class: &str, x: f64, y: f64, width: f64, height: f64, title: &str) {
    let title = format!("<title>{}</title>", escaped(title));
    write!(
        svg,
        r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}">{title}</rect>"#
    )
    .expect("a text takes all");
}

fn text(svg: &mut String, x: f64, y: f64, what: &str) {
    write!(svg, r#"<text x="{x:.1}" y="{y:.1}">{}</text>"#, escaped(what)).expect("a text takes all");
}

fn escaped(text: &str) -> String {
    let printable = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let text: String = text.chars().take(160).map(printable).collect();
    html! { (text) }.into_string()
}
