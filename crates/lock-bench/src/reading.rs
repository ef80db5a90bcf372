//! What the figures say, in sentences.

use crate::{
    lock::Role,
    results::{Case, Clients, Load, Report, Row},
    table::{spread, time},
};

/// Returns what a reader in a hurry should know, one sentence or two for each.
#[must_use]
pub fn of(report: &Report) -> Vec<String> {
    let mut lines: Vec<_> = report.loads.iter().filter_map(sentence).collect();
    lines.extend(report.held.iter().filter(|held| held.locks >= 1000).map(|held| {
        let lost = if held.lost == 0 { "none was lost".to_owned() } else { format!("{} were lost", held.lost) };
        format!(
            "{}: {} locks that one client holds take {:.0} B each; {lost}, and an acquire beside them takes {} in \
            the middle.",
            held.setup,
            held.locks,
            held.bytes,
            time(held.acquire.p50)
        )
    }));
    lines.extend(report.recoveries.iter().map(|recovery| {
        format!(
            "{}: when a holder with a lease of {} ms is killed, the next has the key after {:.0} ms, {:.0} ms at \
            worst.",
            recovery.setup, recovery.ttl_ms, recovery.ms.median, recovery.slowest_ms
        )
    }));
    lines
}

fn sentence(load: &Load) -> Option<String> {
    let ours = load.rows.iter().find(|row| row.role == Role::Ours)?;
    let place = format!("{}, {}", load.setup, what(load)?);
    if load.case == Case::Handover {
        let handover = ours.handover?;
        let mut text = format!("{place}: {} hands over in {}", ours.name, time(handover.p50));
        if let Some(ratio) = ours.to_alone {
            text.push_str(&format!(", {:.1} times what a pair takes alone", ratio.median));
        }
        if let Some(shares) = ours.spread {
            text.push_str(&format!(
                "; the contender with most turns had {} times as many as the one with fewest",
                spread(shares)
            ));
        }
        text.push_str(&beside(load));
        return Some(text);
    }
    let ratio = ours.to_floor?;
    Some(format!("{place}: {} reaches {:.2} of the floor{}", ours.name, ratio.median, beside(load)))
}

/// The loads that a reader in a hurry is told of.
fn what(load: &Load) -> Option<String> {
    match load.case {
        Case::Uncontended => Some("one task".to_owned()),
        Case::Keys => Some(format!("{} tasks with a key each", load.tasks)),
        Case::Handover => (load.tasks == 16 && load.clients == Clients::Each && load.hold_ms == 0)
            .then(|| "16 contenders with a client each".to_owned()),
        _ => None,
    }
}

fn beside(load: &Load) -> String {
    let peer = |row: &Row| {
        let ratio = row.ours_to_this.filter(|_| row.role == Role::Peer)?.median;
        Some(if ratio >= 1.0 {
            format!("{ratio:.2} times as many pairs as {}", row.name)
        } else {
            format!("{ratio:.2} of the pairs of {}", row.name)
        })
    };
    let peers: Vec<_> = load.rows.iter().filter_map(peer).collect();
    if peers.is_empty() { ".".to_owned() } else { format!("; {}.", peers.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::of;
    use crate::results::tests::sample;

    #[test]
    fn the_reading_says_what_the_figures_say() {
        let lines = of(&sample());
        assert_eq!(
            lines[0],
            "Redis, one task: lock-setnx reaches 0.90 of the floor; 2.00 times as many pairs as rslock."
        );
    }
}
