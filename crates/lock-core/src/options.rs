//! How long a lease lasts and when it is renewed, checked together, and all deadline arithmetic.

use std::time::Duration;

use crate::{Error, ErrorKind, Result, backend::BootInstant};

/// How long a lease lasts, when it is renewed, and how much a holder distrusts clocks.
///
/// The defaults suit most uses: a lease of 10 s, renewed every third of it, requests bounded by a sixth.
/// The values are checked together when a locker is made of them.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use lock_core::Options;
///
/// // A dead holder is succeeded after at most 3 s.
/// let options = Options::default().with_ttl(Duration::from_secs(3));
/// assert_eq!(options.check()?.renew_every(), Duration::from_secs(1));
/// # Ok::<(), lock_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Options {
    prefix: String,
    ttl: Duration,
    renew_every: Option<Duration>,
    request_timeout: Option<Duration>,
    min_validity: Option<Duration>,
    drift: f64,
    margin: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            prefix: "lock".to_owned(),
            ttl: Duration::from_secs(10),
            renew_every: None,
            request_timeout: None,
            min_validity: None,
            drift: 0.01,
            margin: Duration::from_millis(2),
        }
    }
}

impl Options {
    /// The shortest lease: 50 ms.
    pub const MIN_TTL: Duration = Duration::from_millis(50);
    /// The longest lease: 24 h.
    pub const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);

    /// The largest drift between two clocks: one part in ten.
    pub const MAX_DRIFT: f64 = 0.1;

    /// Sets what the names of all locks on the servers begin with; `lock` by default.
    ///
    /// Lockers of different prefixes do not exclude each other. A prefix has 1 to 256 visible ASCII characters; each
    /// backend's page names those that its servers give a meaning, and that it therefore refuses.
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Returns the prefix, unchecked.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Sets how long the server keeps a lease that nobody renews; 50 ms to 24 h, 10 s by default.
    ///
    /// A shorter one frees the locks of a dead holder sooner; a longer one survives longer pauses of the
    /// process, the network and the server. Fractions of a millisecond are cut off.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Sets the time between two renewals of a held lock; a third of the TTL by default.
    #[must_use]
    pub fn with_renew_every(mut self, period: Duration) -> Self {
        self.renew_every = Some(period);
        self
    }

    /// Sets how long one request to the servers may take; a sixth of the TTL by default.
    #[must_use]
    pub fn with_request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = Some(timeout);
        self
    }

    /// Sets what must be left of a lease for an acquire to succeed; half of the TTL by default.
    ///
    /// An acquire whose reply came so late that less is left is given back and reported as `Unavailable`.
    #[must_use]
    pub fn with_min_validity(mut self, least: Duration) -> Self {
        self.min_validity = Some(least);
        self
    }

    /// Sets how far the rates of two clocks may be apart, as a fraction; 0 to 0.1, 0.01 by default.
    ///
    /// Real clocks stay below 0.0005. The holder believes in a lease for `1 − 2 · drift` of its TTL.
    #[must_use]
    pub fn with_drift(mut self, fraction: f64) -> Self {
        self.drift = fraction;
        self
    }

    /// Sets what is taken off each deadline beside the drift, for the servers' own rounding; 2 ms by default.
    #[must_use]
    pub fn with_margin(mut self, margin: Duration) -> Self {
        self.margin = margin;
        self
    }

    /// Checks the values together.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`], with the values and the rule that they break.
    pub fn check(&self) -> Result<LeaseTiming> {
        let refuse = |reason: String| Err(Error::new(ErrorKind::InvalidInput, reason).without_effect());
        let asked = self.ttl;
        if !(Self::MIN_TTL..=Self::MAX_TTL).contains(&asked) {
            return refuse(format!("the TTL is {asked:?}; it must be from 50 ms to 24 h"));
        }
        if !(0.0..=Self::MAX_DRIFT).contains(&self.drift) {
            return refuse(format!(
                "the clock drift is {}; it must be from 0 to {}",
                self.drift,
                Self::MAX_DRIFT
            ));
        }
        let ttl = Duration::from_millis(u64::try_from(asked.as_millis()).expect("at most 24 h"));
        let timing = LeaseTiming {
            ttl,
            renew_every: self.renew_every.unwrap_or(ttl / 3),
            request_timeout: self.request_timeout.unwrap_or(ttl / 6),
            min_validity: self.min_validity.unwrap_or(ttl / 2),
            sure: 1.0 - 2.0 * self.drift,
            margin: self.margin,
        };
        let LeaseTiming { renew_every, request_timeout, min_validity, .. } = timing;
        let sure = timing.believable(ttl);
        if min_validity > sure {
            return refuse(format!(
                "a lease of {ttl:?} is certain for {sure:?} after drift and margin, less than the minimum validity of \
                 {min_validity:?}; use a longer TTL or smaller margins"
            ));
        }
        if renew_every.is_zero() || request_timeout.is_zero() {
            return refuse("the renewal period and the request timeout must be above zero".to_owned());
        }
        if renew_every.saturating_add(request_timeout.saturating_mul(2)) > sure {
            return refuse(format!(
                "a renewal every {renew_every:?} that may take {request_timeout:?} leaves no time for a second try \
                 within the {sure:?} in which a lease of {ttl:?} is certain; renew earlier or use a longer TTL"
            ));
        }
        Ok(timing)
    }
}

/// [`Options`] that were checked.
#[derive(Clone, Copy, Debug)]
pub struct LeaseTiming {
    ttl: Duration,
    renew_every: Duration,
    request_timeout: Duration,
    min_validity: Duration,
    sure: f64,
    margin: Duration,
}

impl LeaseTiming {
    /// Returns the TTL to ask the servers for, in whole milliseconds.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Returns the time between two renewals.
    #[must_use]
    pub fn renew_every(&self) -> Duration {
        self.renew_every
    }

    /// Returns the bound of one request.
    #[must_use]
    pub fn request_timeout(&self) -> Duration {
        self.request_timeout
    }

    /// Returns what must be left of a lease for an acquire to succeed.
    #[must_use]
    pub fn min_validity(&self) -> Duration {
        self.min_validity
    }

    /// Returns the instant after which a holder must assume that a lease is over: `sent + granted · (1 − 2ρ) − g`.
    ///
    /// `sent` lies before the first byte of the request, since the server may have started its own clock right
    /// then; the drift ρ counts twice because the holder's clock may be slow and the server's fast.
    #[must_use]
    pub fn deadline(&self, sent: BootInstant, granted: Duration) -> BootInstant {
        sent.after(self.believable(granted))
    }

    /// Returns the part of a negotiated ZooKeeper session timeout that is certain from a request on that was put to the
    /// vote: two thirds.
    ///
    /// The rest is for followers, which tell the leader only now and then which sessions they heard of: a new leader
    /// may count from less than the last answer.
    #[must_use]
    pub fn relayed(negotiated: Duration) -> Duration {
        negotiated * 2 / 3
    }

    /// Returns the same timing for a server that granted less than was asked for: everything in proportion.
    #[must_use]
    pub fn shortened_to(&self, granted: Duration) -> Self {
        let part = (granted.as_secs_f64() / self.ttl.as_secs_f64()).min(1.0);
        let scaled = |time: Duration| time.mul_f64(part);
        Self {
            ttl: scaled(self.ttl),
            renew_every: scaled(self.renew_every),
            request_timeout: scaled(self.request_timeout),
            min_validity: scaled(self.min_validity),
            ..*self
        }
    }

    /// Checks that a lease of the TTL that a server granted can be renewed in time.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`]: too little of it is certain.
    pub fn check_granted(&self, granted: Duration) -> Result<()> {
        let (timing, sure) = (self.shortened_to(granted), self.believable(granted));
        // One renewal may fail.
        if timing.renew_every * 2 < sure {
            return Ok(());
        }
        let message = format!(
            "the servers keep a lease for {granted:?}, of which {sure:?} are certain after drift and margin: too \
             little for renewals every {:?}; use a longer TTL or smaller margins",
            timing.renew_every
        );
        Err(Error::new(ErrorKind::InvalidInput, message).without_effect())
    }

    fn believable(&self, granted: Duration) -> Duration {
        granted.mul_f64(self.sure).saturating_sub(self.margin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_deadline_counts_from_the_sending_less_drift_and_margin() {
        let timing = Options::default().check().unwrap();
        let sent = BootInstant::now();
        assert_eq!(timing.deadline(sent, 10_000 * MS).since(sent), 9_798 * MS);
        assert_eq!(
            timing.deadline(sent, MS).since(sent),
            Duration::ZERO,
            "less than the margin: over at once"
        );
    }

    #[test]
    fn what_cannot_work_is_refused_with_the_reason() {
        let ok = Options::default;
        for (options, reason) in [
            (ok().with_ttl(Duration::ZERO), "from 50 ms to 24 h"),
            (ok().with_ttl(Duration::from_nanos(999_999)), "from 50 ms to 24 h"),
            (ok().with_ttl(Duration::MAX), "from 50 ms to 24 h"),
            (ok().with_drift(f64::NAN), "from 0 to 0.1"),
            (ok().with_drift(-0.1), "from 0 to 0.1"),
            (ok().with_margin(Duration::MAX), "smaller margins"),
            (ok().with_min_validity(Duration::MAX), "smaller margins"),
            (ok().with_renew_every(Duration::ZERO), "above zero"),
            (ok().with_request_timeout(Duration::ZERO), "above zero"),
            (ok().with_renew_every(8_000 * MS), "renew earlier"),
            (ok().with_request_timeout(Duration::MAX), "renew earlier"),
        ] {
            let error = options.check().expect_err(reason);
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(reason), "{error}");
        }
        let shortest = ok().with_ttl(Options::MIN_TTL).check().unwrap();
        assert_eq!(shortest.ttl(), Options::MIN_TTL);
        ok().with_ttl(Options::MAX_TTL).check().unwrap();
    }
}
