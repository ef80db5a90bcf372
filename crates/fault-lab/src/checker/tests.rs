//! Histories made up for each invariant: one that keeps it, and one that does not.

use super::*;
use crate::{
    event::{How, MS},
    store::{Action, Request},
};

/// A history under construction, in milliseconds.
#[derive(Default)]
struct Story(Vec<Event>);

impl Story {
    fn say(&mut self, ms: u64, agent: u32, what: What) -> &mut Self {
        self.0.push(Event { at: ms * MS, agent, what });
        self
    }

    fn acquire(&mut self, attempt: u64, token: u64, invoked: u64, acquired: u64, until: u64) -> &mut Self {
        let agent = (attempt >> 32) as u32;
        self.say(invoked, agent, What::Invoked { attempt, lock: "x".to_owned(), how: How::Wait });
        self.say(acquired, agent, What::Acquired { attempt, token, until: until * MS })
    }

    fn release(&mut self, attempt: u64, from: u64, to: u64) -> &mut Self {
        let agent = (attempt >> 32) as u32;
        self.say(from, agent, What::Releasing { attempt });
        self.say(to, agent, What::Released { attempt, error: None })
    }

    fn found(&self) -> Vec<Invariant> {
        self.found_with(&[], true)
    }

    fn found_with(&self, log: &[Entry], is_calm: bool) -> Vec<Invariant> {
        let mut events = self.0.clone();
        events.sort_by_key(|event| event.at);
        let rules =
            Rules { ttl: 1_000 * MS, queues_by_token: false, is_calm, patience: 2_000 * MS, enough: 0 };
        let report = check(&rules, &events, log);
        let mut found: Vec<_> = report.findings.iter().map(|finding| finding.invariant).collect();
        found.dedup();
        found.retain(|invariant| *invariant != Invariant::Valid);
        found
    }
}

const A: u64 = 1 << 32;
const B: u64 = 2 << 32;

#[test]
fn rounds_one_after_another_are_fine() {
    let mut story = Story::default();
    story.acquire(A, 1, 0, 10, 1_000).release(A, 20, 25);
    story.acquire(B, 2, 5, 24, 1_000).release(B, 30, 31);
    assert_eq!(story.found(), []);
}

#[test]
fn beliefs_that_overlap_are_found_also_by_the_tester() {
    let mut story = Story::default();
    story.acquire(A, 1, 0, 10, 1_000).release(A, 20, 25);
    story.acquire(B, 2, 5, 15, 1_000).release(B, 17, 18);
    let found = story.found();
    assert!(found.contains(&Invariant::Belief) && found.contains(&Invariant::Owner), "{found:?}");
    let attempts = attempts(&story.0);
    assert_eq!(linear::check(&attempts, true).len(), 1);
}

#[test]
fn a_belief_ends_at_its_deadline_and_a_later_release_is_not_fine() {
    let mut story = Story::default();
    story.acquire(A, 1, 0, 10, 100);
    story.acquire(B, 2, 5, 150, 1_000).release(B, 160, 161);
    assert_eq!(story.found(), []);
    story.release(A, 200, 201);
    assert!(story.found().contains(&Invariant::Owner));
}

#[test]
fn an_interval_that_reaches_far_is_not_forgotten() {
    let mut story = Story::default();
    story.acquire(A, 1, 0, 10, 1_000);
    story.acquire(B, 2, 11, 12, 20);
    story.acquire(B + 1, 3, 21, 30, 40);
    let overlaps = check(&Rules::of(Backend::Setnx, Duration::from_secs(1)), &story.0, &[]).findings;
    let overlaps = overlaps.iter().filter(|finding| finding.invariant == Invariant::Belief).count();
    assert_eq!(overlaps, 2);
}

#[test]
fn a_killed_holder_believes_nothing_any_more() {
    let mut story = Story::default();
    story.acquire(A, 1, 0, 10, 1_000).say(50, LAB, What::Killed { agent: 1 });
    story.acquire(B, 2, 5, 60, 1_000);
    assert_eq!(story.found(), []);
}

#[test]
fn tokens_are_unique_and_grow_in_real_time() {
    let mut story = Story::default();
    story.acquire(A, 7, 0, 10, 1_000).release(A, 20, 25);
    story.acquire(B, 7, 30, 40, 1_000).release(B, 41, 42);
    assert_eq!(story.found_with(&[], false), [Invariant::Tokens]);
    assert!(story.found().contains(&Invariant::Belief), "the tester sees it too");
    let mut story = Story::default();
    story.acquire(A, 7, 0, 10, 1_000).release(A, 20, 25);
    story.acquire(B, 6, 30, 40, 1_000).release(B, 41, 42);
    assert!(story.found_with(&[], false).contains(&Invariant::Tokens));
}

#[test]
fn what_is_over_does_not_come_back_and_sends_nothing() {
    let mut story = Story::default();
    story.acquire(A, 1, 0, 10, 100).say(110, 1, What::NotHeld { attempt: A, reason: String::new() });
    story.say(101, 1, What::Lost { attempt: A });
    assert_eq!(story.found(), []);
    let (checked, sent) = (120 * MS, 121 * MS);
    let asked = What::Asked { attempt: A, request: 1, checking: true, checked, sent, accepted: None };
    story.say(122, 1, asked);
    assert_eq!(story.found(), [Invariant::ActsLate]);
    let mut story = Story::default();
    story.acquire(A, 1, 0, 10, 0);
    assert_eq!(story.found(), [Invariant::ActsLate]);
    let mut story = Story::default();
    story.acquire(A, 1, 0, 10, 1_000).say(20, 1, What::Revived { attempt: A });
    assert_eq!(story.found(), [Invariant::ActsLate]);
}

fn entry(attempt: u64, token: u64, checking: bool, action: Action) -> Entry {
    let request = Request { number: attempt, attempt, object: "x".to_owned(), checking, token, action };
    Entry { at: MS, request, accepted: true, seen: 0, value: 0 }
}

#[test]
fn stale_tokens_and_lost_updates_are_found_in_the_log() {
    let write = |attempt, token, value| entry(attempt, token, true, Action::Write(value));
    let story = Story::default();
    assert_eq!(story.found_with(&[write(A, 1, 1), write(B, 2, 2)], true), []);
    assert_eq!(story.found_with(&[write(B, 2, 1), write(A, 1, 2)], true), [Invariant::Fencing]);
    let lost = [entry(A, 1, false, Action::Write(1)), entry(B, 2, false, Action::Write(1))];
    assert_eq!(story.found_with(&lost, true), [Invariant::Updates]);
    assert_eq!(story.found_with(&lost, false), [], "a plain store may lose where work may overlap");
    let twice = [entry(A, 1, true, Action::Append(3)), entry(A, 1, true, Action::Append(3))];
    assert_eq!(story.found_with(&twice, false), [Invariant::Updates]);
}

#[test]
fn an_acknowledged_write_that_the_store_does_not_know_is_found() {
    let mut story = Story::default();
    story.acquire(A, 1, 0, 10, 1_000);
    let asked = |accepted| What::Asked {
        attempt: A,
        request: A,
        checking: true,
        checked: 11 * MS,
        sent: 11 * MS,
        accepted,
    };
    story.say(12, 1, asked(Some(true)));
    assert_eq!(story.found(), [Invariant::Updates]);
    assert_eq!(story.found_with(&[entry(A, 1, true, Action::Write(1))], true), []);
}

#[test]
fn a_waiter_that_nobody_serves_is_found_unless_something_is_broken() {
    let waiter = |story: &mut Story| {
        story.acquire(A, 1, 0, 10, 1_000).release(A, 20, 25);
        story.acquire(B, 2, 5, 4_000, 5_000).release(B, 4_001, 4_002);
    };
    let mut story = Story::default();
    waiter(&mut story);
    assert_eq!(story.found(), [Invariant::Progress]);
    story.say(15, LAB, What::FaultBegan { fault: "f".to_owned() });
    story.say(3_000, LAB, What::FaultEnded { fault: "f".to_owned() });
    assert_eq!(story.found(), []);
}

#[test]
fn a_waiter_that_is_never_served_is_found() {
    let mut story = Story::default();
    story.acquire(A, 1, 0, 10, 1_000).release(A, 20, 25);
    story.say(5, 2, What::Invoked { attempt: B, lock: "x".to_owned(), how: How::Wait });
    story.say(9_000, LAB, What::Ceased);
    assert_eq!(story.found(), [Invariant::Progress]);
}

#[test]
fn a_loss_is_told_in_time_while_the_process_runs() {
    let mut story = Story::default();
    story.acquire(A, 1, 0, 10, 100).say(101, 1, What::NotHeld { attempt: A, reason: String::new() });
    assert_eq!(story.found(), [Invariant::Loss], "never");
    story.say(300, 1, What::Lost { attempt: A });
    assert_eq!(story.found(), [Invariant::Loss], "late");
    story.say(301, 1, What::Gap { nanos: 210 * MS });
    assert_eq!(story.found(), [], "its process was held up");
}

#[test]
fn a_run_without_a_fault_or_without_work_is_invalid() {
    let rules = Rules::of(Backend::Setnx, Duration::from_secs(1));
    let invalid = |story: &Story| {
        let findings = check(&rules, &story.0, &[]).findings;
        findings.iter().filter(|finding| finding.invariant == Invariant::Valid).count()
    };
    let mut story = Story::default();
    assert_eq!(invalid(&story), 4, "no fault, and no rounds before, during and after");
    for round in 0..30 {
        let (attempt, at) = (A + round, 100 * round);
        story.acquire(attempt, round, at, at + 1, at + 1_000).release(attempt, at + 2, at + 3);
    }
    story.say(1_500, LAB, What::FaultBegan { fault: "f".to_owned() });
    story.say(1_700, LAB, What::FaultEnded { fault: "f".to_owned() });
    story.0.sort_by_key(|event| event.at);
    assert_eq!(invalid(&story), 1, "nothing shows that it fired");
    story.say(1_600, LAB, What::FaultFired { fault: "f".to_owned(), proof: "p".to_owned() });
    story.0.sort_by_key(|event| event.at);
    assert_eq!(invalid(&story), 0);
    story.say(2_000, LAB, What::Gap { nanos: 300 * MS });
    assert_eq!(invalid(&story), 1, "the lab was starved");
}

mod at_random {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Attempts with beliefs at random, each from an instant on and for so long.
    fn holds(intervals: &[(u64, u64)]) -> Vec<Attempt> {
        let mut story = Story::default();
        for (index, (from, length)) in intervals.iter().enumerate() {
            story.acquire(A + index as u64, index as u64, *from, *from, from + length);
        }
        attempts(&story.0)
    }

    proptest! {
        #[test]
        fn the_sweep_finds_an_overlap_if_and_only_if_two_beliefs_meet(
            intervals in vec((0_u64..200, 1_u64..20), 0..12)
        ) {
            let holds = holds(&intervals);
            let meet = |(a, b): (&(u64, u64), &(u64, u64))| a.0 < b.0 + b.1 && b.0 < a.0 + a.1;
            let pairs = (0..intervals.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
            let expected = pairs.clone().any(|(i, j)| meet((&intervals[i], &intervals[j])));
            let found = attempts::overlaps(&holds, Invariant::Belief);
            prop_assert_eq!(!found.is_empty(), expected);
            for finding in found {
                let blamed = |n: usize| intervals[(finding.attempts[n] - A) as usize];
                prop_assert!(meet((&blamed(0), &blamed(1))), "those who are blamed do overlap");
            }
        }

        #[test]
        fn rounds_one_after_another_are_never_blamed(gaps in vec((0_u64..5, 1_u64..5, 0_u64..5), 1..40)) {
            let (mut story, mut at) = (Story::default(), 0);
            for (index, (wait, hold, rest)) in gaps.iter().enumerate() {
                let attempt = A + index as u64;
                story.acquire(attempt, index as u64 + 1, at, at + wait, at + 1_000);
                story.release(attempt, at + wait + hold, at + wait + hold + 1);
                at += wait + hold + rest + 2;
            }
            prop_assert_eq!(story.found(), []);
        }
    }
}
