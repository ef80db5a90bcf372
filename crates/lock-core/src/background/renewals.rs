//! Leases, and when each is renewed.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::RngExt;
use tokio::{task::JoinSet, time};

use super::{Background, HoldStore, State};
use crate::{
    Error, Result,
    backend::{BootInstant, Renewal, Validity},
};

/// A claim or a session, and how long it is certain.
pub(crate) struct Lease<T> {
    subject: T,
    validity: Arc<Validity>,
    // Its stage is written only under the lock of the background's state.
    renewal: Mutex<RenewalState>,
}

struct RenewalState {
    stage: Stage,
    /// Whether a renewal has failed by an error that does not pass by itself: another of the same request may be at
    /// fault.
    alone: bool,
    /// The smallest TTL that the servers ever told: they may differ in it, and one that keeps less may take over.
    least_ttl: Duration,
}

#[derive(Clone, Copy)]
enum Stage {
    Due(Due),
    /// Its renewal is under way, or it has none.
    Idle,
    /// It was given back.
    Withdrawn,
}

/// When a renewal is due, and a number that sets apart those that are due at once.
pub(super) type Due = (BootInstant, u64);

impl<T> Lease<T> {
    pub(crate) fn new(subject: T, ttl: Duration, validity: Arc<Validity>) -> Arc<Self> {
        let renewal = Mutex::new(RenewalState { stage: Stage::Idle, alone: false, least_ttl: ttl });
        Arc::new(Self { subject, validity, renewal })
    }

    pub(crate) fn subject(&self) -> &T {
        &self.subject
    }

    pub(crate) fn validity(&self) -> &Arc<Validity> {
        &self.validity
    }

    /// Writes down for how long it was granted, before anything else is done with it.
    pub(crate) fn grant(&self, ttl: Duration, deadline: BootInstant) {
        self.renewal().least_ttl = ttl;
        self.validity.extend(deadline);
        self.validity.cap(deadline);
    }

    /// Writes down the TTL that servers told. Returns the smallest, and whether it is smaller than before; none if the
    /// lease was withdrawn.
    fn hear(&self, answer: &Result<Renewal>) -> Option<(Duration, bool)> {
        let mut renewal = self.renewal();
        let before = renewal.least_ttl;
        if let Ok(Renewal::Extended(told)) = answer {
            renewal.least_ttl = before.min(*told);
        }
        renewal.alone |= answer.as_ref().is_err_and(|error| !error.is_transient());
        let is_withdrawn = matches!(renewal.stage, Stage::Withdrawn);
        (!is_withdrawn).then_some((renewal.least_ttl, renewal.least_ttl < before))
    }

    fn renewal(&self) -> MutexGuard<'_, RenewalState> {
        self.renewal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: HoldStore> Background<S> {
    /// Renews the lease from now on, until it is withdrawn or lost.
    pub(crate) fn renew_from_now_on(&self, lease: &Arc<Lease<S::Renewed>>) {
        let pause = self.timing.shortened_to(lease.renewal().least_ttl).renew_every();
        self.schedule(Arc::clone(lease), pause);
    }

    /// Renews the lease after `pause`, unless it was withdrawn.
    fn schedule(&self, lease: Arc<Lease<S::Renewed>>, pause: Duration) {
        // Leases taken at one instant should not be renewed at one instant for ever.
        let pause = pause.mul_f64(rand::rng().random_range(0.9..=1.0));
        let mut state = self.state();
        let now = BootInstant::now();
        let due = (now.after(pause), state.next_number);
        state.next_number += 1;
        match &mut lease.renewal().stage {
            Stage::Withdrawn => return,
            stage => *stage = Stage::Due(due),
        }
        state.schedule.insert(due, lease);
        // One that is over may be heard late, by a machine that slept.
        if due.0 < state.alarm || state.alarm <= now {
            state.alarm = due.0;
            self.changed.notify_one();
        }
    }

    /// Stops renewing a hold's own lease. A renewal already sent can only prolong what a release then ends.
    pub(crate) fn withdraw(&self, held: &S::Held) {
        let Some(lease) = S::own_lease(held) else { return };
        let mut state = self.state();
        if let Stage::Due(due) = mem::replace(&mut lease.renewal().stage, Stage::Withdrawn) {
            state.schedule.remove(&due);
        }
    }

    /// Starts the renewals that are due by `now`, many with one request where that is possible.
    pub(super) fn begin_due_renewals(
        self: &Arc<Self>,
        state: &mut State<S>,
        now: BootInstant,
        at_once: usize,
        jobs: &mut JoinSet<()>,
    ) {
        let soon = now.after(self.timing.renew_every() / 50);
        let (mut due_by, mut leases) = (now, Vec::new());
        while let Some(first) = state.schedule.first_entry().filter(|first| first.key().0 <= due_by) {
            let lease = first.remove();
            let alone = {
                let mut renewal = lease.renewal();
                renewal.stage = Stage::Idle;
                renewal.alone
            };
            if alone {
                jobs.spawn(Arc::clone(self).renew(vec![lease]));
                continue;
            }
            leases.push(lease);
            if leases.len() >= at_once {
                jobs.spawn(Arc::clone(self).renew(mem::take(&mut leases)));
                due_by = now;
            } else {
                // What is due in a moment goes with what is due now, if there is room.
                due_by = soon;
            }
        }
        if !leases.is_empty() {
            jobs.spawn(Arc::clone(self).renew(leases));
        }
    }

    /// Renews leases with one request.
    async fn renew(self: Arc<Self>, leases: Vec<Arc<Lease<S::Renewed>>>) {
        let sent = BootInstant::now();
        let limit = leases.iter().map(|lease| self.limit_of_renewal(lease)).min().unwrap_or_default();
        let subjects: Vec<_> = leases.iter().map(|lease| lease.subject()).collect();
        let answers = time::timeout(limit, self.store.renew(&subjects)).await.unwrap_or_default();
        let mut answers = answers.into_iter();
        for lease in leases {
            let answer = answers.next().unwrap_or_else(|| Err(Error::no_answer(limit)));
            self.renewed(lease, sent, limit, answer);
        }
    }

    /// Returns how long an answer is waited for: a slow one is better than none, as long as there is time for another
    /// try.
    fn limit_of_renewal(&self, lease: &Lease<S::Renewed>) -> Duration {
        let least = self.timing.shortened_to(lease.renewal().least_ttl).request_timeout();
        self.timing.request_timeout().min(lease.validity.remaining() / 2).max(least)
    }

    fn renewed(
        &self,
        lease: Arc<Lease<S::Renewed>>,
        sent: BootInstant,
        limit: Duration,
        answer: Result<Renewal>,
    ) {
        // What was given back meanwhile has nothing to be told. Nothing is locked while something is: whoever awaits a
        // loss is woken, and may use the locker.
        let Some((least_ttl, shrank)) = lease.hear(&answer) else { return };
        let next = match answer {
            Ok(Renewal::Extended(_)) => {
                let deadline = self.timing.deadline(sent, least_ttl);
                lease.validity.extend(deadline);
                if shrank {
                    // An earlier answer promised more than the servers keep.
                    lease.validity.cap(deadline);
                }
                let every = self.timing.shortened_to(least_ttl).renew_every();
                every.saturating_sub(BootInstant::now().since(sent))
            }
            Ok(Renewal::NotOwner) => {
                lease.validity.end(S::LOSS);
                Duration::ZERO
            }
            Err(error) => {
                let (lease, remaining) = (lease.subject(), lease.validity.remaining());
                tracing::warn!(?lease, %error, ?remaining, "a lease was not renewed");
                // A try that used up its time is repeated at once, one that failed at once after a pause.
                (limit / 4).saturating_sub(BootInstant::now().since(sent))
            }
        };
        match lease.validity.reason() {
            None => self.schedule(lease, next),
            // Nothing is freed before its holder lets go: the work may still go on. Nor is it kept any longer.
            Some(reason) => {
                tracing::warn!(lease = ?lease.subject(), %reason, "a lease is over, and all that rested on it is lost");
            }
        }
    }
}
