//! How long a holder may believe: a deadline that a lease moves forward and a loss ends for ever.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Notify, time};

use crate::backend::BootInstant;

/// The instant until which a hold is certain. Once over, it is over for ever.
///
/// Every question looks at the clock, never at a flag that some task would have to set in time: a process
/// that was stopped past its deadline sees the loss at its first question after it goes on.
pub struct Validity {
    /// Nanoseconds of a [`BootInstant`], or [`ENDED`].
    until: AtomicU64,
    reason: OnceLock<LossReason>,
    ended: Notify,
    /// What it ends with, at the latest.
    session: Option<Arc<Validity>>,
}

const ENDED: u64 = 0;

// A sleep of the runtime's timer stands still during suspend; waking now and then bounds the delay after it.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);

/// Why a lock was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LossReason {
    /// No renewal was acknowledged before the deadline.
    Deadline,
    /// The server says that the key is not, or no longer, this holder's.
    NotOwner,
    /// The server says that the session which carried the lock is over.
    SessionEnded,
}

impl fmt::Display for LossReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deadline => "its deadline passed before a renewal was acknowledged",
            Self::NotOwner => "the server no longer has it under this holder's name",
            Self::SessionEnded => "the session that carried it is over",
        })
    }
}

impl Validity {
    /// Makes one that is valid until `deadline`.
    #[must_use]
    pub fn until(deadline: BootInstant) -> Self {
        Self {
            until: AtomicU64::new(deadline.as_nanos().max(1)),
            reason: OnceLock::new(),
            ended: Notify::new(),
            session: None,
        }
    }

    /// Makes one that is valid as long as `session` is, unless it is ended before.
    #[must_use]
    pub fn within(session: Arc<Self>) -> Self {
        Self { session: Some(session), ..Self::until(BootInstant::NEVER) }
    }

    /// Returns whether it is valid now. A `false` is final.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.remaining() > Duration::ZERO
    }

    /// Returns the time left; zero once it is over.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        let session = self.session.as_ref().map_or(Duration::MAX, |session| session.remaining());
        self.own_remaining().min(session)
    }

    fn own_remaining(&self) -> Duration {
        let until = self.until.load(Ordering::Acquire);
        let left = BootInstant::from_nanos(until).since(BootInstant::now());
        if left.is_zero() && !self.expire(until) {
            // Between the load and here an extension won the race, or an end did.
            return self.own_remaining();
        }
        left
    }

    /// Writes down that the deadline `until` has passed, so that no late extension can revive it.
    fn expire(&self, until: u64) -> bool {
        until == ENDED
            || (self.until.compare_exchange(until, ENDED, Ordering::AcqRel, Ordering::Acquire).is_ok()
                && self.announce(LossReason::Deadline))
    }

    fn announce(&self, reason: LossReason) -> bool {
        let _ = self.reason.set(reason);
        self.ended.notify_waiters();
        true
    }

    /// Moves the deadline forward. Returns `false`, and changes nothing, if it is already over.
    pub fn extend(&self, deadline: BootInstant) -> bool {
        let mut until = self.until.load(Ordering::Acquire);
        loop {
            if BootInstant::from_nanos(until) <= BootInstant::now() {
                return !self.expire(until) && self.extend(deadline);
            }
            let later = until.max(deadline.as_nanos());
            match self.until.compare_exchange_weak(until, later, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(current) => until = current,
            }
        }
    }

    /// Moves the deadline back to `deadline`, if it is later. What is over already stays over.
    ///
    /// For servers that turn out to keep a lease for less time than was granted.
    pub fn cap(&self, deadline: BootInstant) {
        self.until.fetch_min(deadline.as_nanos().max(1), Ordering::AcqRel);
        // Those who sleep until the later deadline look again.
        self.ended.notify_waiters();
    }

    /// Ends it now, before its deadline.
    pub fn end(&self, reason: LossReason) {
        if self.until.swap(ENDED, Ordering::AcqRel) != ENDED {
            self.announce(reason);
        }
    }

    /// Returns why it is over, if it is.
    #[must_use]
    pub fn reason(&self) -> Option<LossReason> {
        // The reason is written just after the end: whoever sees the end in between reads the usual one.
        if !self.own_remaining().is_zero() {
            return self.session.as_ref()?.reason();
        }
        Some(self.reason.get().copied().unwrap_or(LossReason::Deadline))
    }

    /// Resolves once it is over, at once if it is already.
    ///
    /// Needs a tokio runtime with its timer. A starved runtime makes it late; [`is_valid`](Self::is_valid) is
    /// never late.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn ended(&self) {
        loop {
            let ended = self.ended.notified();
            let session_ended =
                self.session.as_ref().map_or(&self.ended, |session| &session.ended).notified();
            let left = self.remaining();
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = ended => {}
                () = session_ended => {}
                () = time::sleep(left.min(LONGEST_SLEEP)) => {}
            }
        }
    }
}

impl fmt::Debug for Validity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Validity").field("remaining", &self.remaining()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_passed_deadline_is_never_revived() {
        let validity = Validity::until(BootInstant::now());
        assert!(!validity.is_valid());
        assert!(!validity.extend(BootInstant::now().after(LONG)), "a late renewal reply");
        assert!(!validity.is_valid());
        assert_eq!(validity.reason(), Some(LossReason::Deadline));
    }

    #[test]
    fn an_extension_without_a_look_in_between_revives_nothing_either() {
        let validity = Validity::until(BootInstant::now());
        assert!(!validity.extend(BootInstant::now().after(LONG)));
    }

    #[test]
    fn an_extension_never_shortens() {
        let validity = Validity::until(BootInstant::now().after(LONG));
        assert!(validity.extend(BootInstant::now().after(LONG / 2)));
        assert!(validity.remaining() > LONG / 2);
        assert_eq!(validity.reason(), None);
    }

    #[tokio::test]
    async fn a_cap_shortens_and_wakes_and_revives_nothing() {
        let validity = Validity::until(BootInstant::now().after(LONG));
        tokio::join!(validity.ended(), async { validity.cap(BootInstant::now()) });
        assert_eq!(validity.reason(), Some(LossReason::Deadline));
        validity.cap(BootInstant::now().after(LONG));
        assert!(!validity.is_valid());
    }

    #[test]
    fn an_end_is_final_and_keeps_its_reason() {
        let validity = Validity::until(BootInstant::now().after(LONG));
        validity.end(LossReason::NotOwner);
        validity.end(LossReason::Deadline);
        assert!(!validity.extend(BootInstant::now().after(LONG)));
        assert_eq!(validity.reason(), Some(LossReason::NotOwner));
    }

    #[tokio::test]
    async fn ended_wakes_at_the_deadline_and_at_an_early_end() {
        Validity::until(BootInstant::now().after(Duration::from_millis(5))).ended().await;

        let validity = Validity::until(BootInstant::now().after(LONG));
        tokio::join!(validity.ended(), async { validity.end(LossReason::NotOwner) });
    }

    #[tokio::test]
    async fn what_lives_in_a_session_ends_with_it_or_before() {
        let session = Arc::new(Validity::until(BootInstant::now().after(LONG)));
        let (one, other) = (Validity::within(Arc::clone(&session)), Validity::within(Arc::clone(&session)));
        assert!(one.remaining() <= LONG);
        one.end(LossReason::NotOwner);
        assert!(!one.is_valid() && other.is_valid() && session.is_valid());

        tokio::join!(other.ended(), async { session.end(LossReason::SessionEnded) });
        assert_eq!(other.reason(), Some(LossReason::SessionEnded));
        assert_eq!(one.reason(), Some(LossReason::NotOwner));
    }
}
