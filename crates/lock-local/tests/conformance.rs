//! The suite that every backend passes.

use std::process::ExitCode;

use anyhow::Result;
use lock_conformance::Fixture;
use lock_core::{AnyLocker, Key, Options};
use lock_local::LocalLocker;

struct LocalFixture(LocalLocker);

impl Fixture for LocalFixture {
    const NAME: &'static str = "local";

    async fn start() -> Result<Self> {
        Ok(Self(LocalLocker::new()))
    }

    async fn locker(&self, _options: &Options) -> lock_core::Result<AnyLocker> {
        Ok(AnyLocker::from(self.0.clone()))
    }

    async fn traces(&self, _key: &Key) -> Result<usize> {
        Ok(self.0.keys_in_use())
    }
}

fn main() -> ExitCode {
    lock_conformance::run::<LocalFixture>()
}
