//! Which lock to take: the questions of docs/choosing.md, in their order, answered by a person and by the figures.

use std::fmt;

use super::Finding;
use crate::{setup::Backend, table::time};

/// Below so many locks a second, what a team runs already is the better choice.
const SMALL: f64 = 1000.0;

/// What only a person can know.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Needs {
    /// All who must exclude each other live in one process.
    pub one_process: bool,
    /// The lock must hold under any single fault, failover and power loss included.
    pub any_fault: bool,
    /// It is a contest for one thing, whose losers go away, and a rare double win can be repaired.
    pub contest: bool,
    /// Locks a second.
    pub rate: f64,
}

/// What was measured of one lock.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The lock.
    pub backend: Backend,
    /// Whether it carries the load.
    pub carries: bool,
    /// Whether its servers failed under the load, which is more than to be too slow.
    pub failed: bool,
    /// The slowest of a hundred acquires, in microseconds.
    pub p99: f64,
}

impl Measured {
    pub(super) fn of(finding: &Finding) -> Self {
        let driven = finding.driven.as_ref().ok();
        Self {
            backend: finding.backend,
            carries: driven.is_some_and(super::drive::Driven::carries),
            failed: finding.has_failed(),
            p99: driven.map_or(0.0, |driven| driven.latency.value_at_quantile(0.99) as f64 / 1e3),
        }
    }
}

/// A lock, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// The lock to take.
    pub choice: Backend,
    /// Whether it was seen to carry the load.
    pub carries: bool,
    /// Why this one.
    pub reasons: Vec<String>,
}

impl Advice {
    /// Answers the questions in order, and stops at the first lock. One that was seen not to carry the load is passed
    /// over only where the next promises no less.
    #[must_use]
    pub fn on(needs: &Needs, measured: &[Measured]) -> Self {
        let of = |backend| measured.iter().find(|one| one.backend == backend);
        let mut reasons = Vec::new();
        if needs.one_process {
            reasons.push(
                "question 1: all who exclude each other live in one process, which needs no server"
                    .to_owned(),
            );
            return Self { choice: Backend::Local, carries: true, reasons };
        }
        if needs.any_fault {
            reasons.push(
                "question 2: it must hold under any single fault, which takes agreed writes".to_owned(),
            );
            return Self::among(&[Backend::Etcd, Backend::Zk], &of, reasons);
        }
        if needs.contest && of(Backend::Setnx).is_some() {
            reasons.push("question 3: it is a contest, and a rare double win can be repaired".to_owned());
            return Self::among(&[Backend::Setnx], &of, reasons);
        }
        if let Some(redlock) = of(Backend::Redlock) {
            let why = "question 4: you run independent Redis servers, of which a minority may fail";
            if redlock.carries {
                reasons.push(why.to_owned());
                return Self::among(&[Backend::Redlock], &of, reasons);
            }
            reasons.push(format!("{why}; but they do not carry the load, so on to the next question"));
        }
        if let Some(setnx) = of(Backend::Setnx) {
            let why = format!("question 5: you run one Redis, and {:.0} acquires a second", needs.rate);
            if setnx.carries && needs.rate < SMALL {
                reasons.push(format!("{why} are fewer than a thousand"));
                return Self::among(&[Backend::Setnx], &of, reasons);
            }
            let but = match setnx {
                Measured { failed: true, .. } => {
                    "were not carried, since it failed: mend it, and measure again"
                }
                Measured { carries: false, .. } => "are more than it carries",
                _ => "are no small load",
            };
            reasons.push(format!("{why} {but}"));
        }
        reasons.push("question 6: none of the above".to_owned());
        Self::among(&[Backend::Etcd, Backend::Zk], &of, reasons)
    }

    /// The quickest of `candidates` that carries the load; else one that was given; else the first.
    fn among<'a>(
        candidates: &[Backend],
        of: &impl Fn(Backend) -> Option<&'a Measured>,
        mut reasons: Vec<String>,
    ) -> Self {
        let given: Vec<_> = candidates.iter().filter_map(|backend| of(*backend)).collect();
        let carrying = given.iter().filter(|one| one.carries).min_by(|a, b| a.p99.total_cmp(&b.p99));
        if let Some(one) = carrying {
            reasons.push(format!("it carries the load: 99 of 100 have the lock within {}", time(one.p99)));
            let others = given.iter().filter(|other| other.backend != one.backend);
            for other in others {
                let why = if other.carries {
                    format!("promises the same, and takes {}", time(other.p99))
                } else {
                    "promises the same, and does not carry the load".to_owned()
                };
                reasons.push(format!("{} {why}", other.backend.package()));
            }
            return Self { choice: one.backend, carries: true, reasons };
        }
        let choice = given.first().map_or(candidates[0], |one| one.backend);
        reasons.push(if given.is_empty() {
            format!(
                "none of your servers is one for {}: start some, and measure again",
                candidates.iter().map(|one| one.package()).collect::<Vec<_>>().join(" or ")
            )
        } else {
            let what = if given.iter().any(|one| one.failed) {
                "it failed under the load: mend its servers if they are not well, and measure again; if they are, they \
                 are not enough"
            } else {
                "it did not carry the load"
            };
            format!(
                "{what}, and more nodes do not make it faster: put what belongs together under one key, or shard the \
                 keys over several clusters"
            )
        });
        Self { choice, carries: false, reasons }
    }
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let but = if self.carries { "" } else { ", but not as it stands" };
        writeln!(f, "docs/choosing.md points to {}{but}:", self.choice.package())?;
        for reason in &self.reasons {
            writeln!(f, "- {reason}")?;
        }
        write!(f, "- safe: {}; the fencing token is for the resource to check", self.choice.promise())
    }
}

#[cfg(test)]
mod tests {
    use super::{Advice, Measured, Needs};
    use crate::setup::Backend::{self, *};

    fn carries(backend: Backend, p99: f64) -> Measured {
        Measured { backend, carries: true, failed: false, p99 }
    }

    fn fails(backend: Backend) -> Measured {
        Measured { carries: false, ..carries(backend, 0.0) }
    }

    fn needs(rate: f64) -> Needs {
        Needs { rate, ..Needs::default() }
    }

    fn choice(needs: &Needs, measured: &[Measured]) -> (Backend, bool) {
        let advice = Advice::on(needs, measured);
        (advice.choice, advice.carries)
    }

    #[test]
    fn a_small_load_stays_on_the_redis_that_is_there() {
        assert_eq!(choice(&needs(200.0), &[carries(Setnx, 300.0), carries(Etcd, 2e3)]), (Setnx, true));
    }

    #[test]
    fn what_must_hold_under_any_fault_is_never_put_on_one_redis() {
        let needs = Needs { any_fault: true, ..needs(200.0) };
        assert_eq!(choice(&needs, &[carries(Setnx, 300.0), carries(Etcd, 2e3)]), (Etcd, true));
        assert_eq!(choice(&needs, &[carries(Setnx, 300.0), fails(Etcd)]), (Etcd, false));
        assert_eq!(choice(&needs, &[carries(Etcd, 2e3), carries(Zk, 1e3)]), (Zk, true));
        assert_eq!(choice(&needs, &[carries(Setnx, 300.0)]), (Etcd, false));
    }

    #[test]
    fn servers_that_failed_are_to_be_mended_before_they_are_called_too_slow() {
        let advice = Advice::on(&needs(200.0), &[Measured { failed: true, ..fails(Etcd) }]);
        assert_eq!((advice.choice, advice.carries), (Etcd, false));
        assert!(advice.to_string().contains("mend its servers"), "{advice}");
    }

    #[test]
    fn independent_servers_come_before_one() {
        let both = [carries(Setnx, 300.0), carries(Redlock, 900.0)];
        assert_eq!(choice(&needs(200.0), &both), (Redlock, true));
        assert_eq!(choice(&needs(200.0), &[carries(Setnx, 300.0), fails(Redlock)]), (Setnx, true));
    }

    #[test]
    fn a_large_load_is_not_left_on_one_redis_unless_it_is_a_contest() {
        let all = [carries(Setnx, 300.0), carries(Etcd, 2e3)];
        assert_eq!(choice(&needs(3000.0), &all), (Etcd, true));
        assert_eq!(choice(&Needs { contest: true, ..needs(3000.0) }, &all), (Setnx, true));
    }

    #[test]
    fn a_redis_that_died_is_not_called_slow() {
        let died = Measured { failed: true, ..fails(Setnx) };
        let text = Advice::on(&needs(100.0), &[died]).to_string();
        assert!(text.contains("since it failed") && !text.contains("more than it carries"), "{text}");
    }

    #[test]
    fn one_process_needs_no_server() {
        assert_eq!(choice(&Needs { one_process: true, ..needs(9e5) }, &[]), (Local, true));
    }

    #[test]
    fn advice_says_why_and_what_is_promised() {
        let text = Advice::on(&needs(200.0), &[carries(Setnx, 300.0)]).to_string();
        for part in
            ["points to lock-setnx:", "question 5", "fewer than a thousand", "within 300 µs", "safe: "]
        {
            assert!(text.contains(part), "{text}");
        }
    }
}
