//! A try-lock that was given waiting passes the suite too.

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use lock_conformance::Fixture;
use lock_core::{AnyLocker, Backoff, Key, Options};
use lock_trylock::TryLocker;

struct RetryingFixture(TryLocker);

impl Fixture for RetryingFixture {
    const NAME: &'static str = "trylock, retrying";

    async fn start() -> Result<Self> {
        Ok(Self(TryLocker::new()))
    }

    async fn locker(&self, _options: &Options) -> lock_core::Result<AnyLocker> {
        let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(20))?;
        Ok(AnyLocker::new(self.0.retrying(backoff)))
    }

    async fn traces(&self, _key: &Key) -> Result<usize> {
        Ok(self.0.keys_in_use())
    }
}

fn main() -> ExitCode {
    lock_conformance::run::<RetryingFixture>()
}
