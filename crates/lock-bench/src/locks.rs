//! The locks that are measured, ours and others, each behind the same trait.

mod etcd;
mod local;
mod raw;
mod redis;
pub mod script;
mod zk;

use std::time::Duration;

use anyhow::Result;
use lock_local::{AnyLocker, LocalLocker, LockGuard, Locker, lock_core::backend::WaitingBackend};
use lock_setnx::Options;

use crate::{
    choose::login::Login,
    lock::{Lock, Subject},
    setup::{Backend, Setup},
};

/// Long enough that no lease ends while a load makes its client late.
pub const TTL: Duration = Duration::from_secs(30);

/// A lock of this workspace, called as its users would.
#[derive(Debug)]
pub struct Ours<B: WaitingBackend>(pub Locker<B>);

impl<B: WaitingBackend> Lock for Ours<B> {
    type Held<'a> = LockGuard;

    async fn acquire(&self, key: &'static str) -> Result<LockGuard> {
        Ok(self.0.lock(key).await?)
    }

    async fn release(&self, held: Self::Held<'_>) -> Result<()> {
        Ok(held.release().await?)
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

/// A lock of this workspace that is chosen at run time.
#[derive(Debug)]
pub struct Any(pub AnyLocker);

impl Lock for Any {
    type Held<'a> = LockGuard;

    async fn acquire(&self, key: &'static str) -> Result<LockGuard> {
        Ok(self.0.lock(key).await?)
    }

    async fn release(&self, held: Self::Held<'_>) -> Result<()> {
        Ok(held.release().await?)
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

/// Connects the lock of this workspace to the servers of `setup`.
///
/// # Errors
///
/// It cannot be connected.
pub async fn ours(setup: Setup, urls: &[String], ttl: Duration) -> Result<AnyLocker> {
    connect(setup.backend(), urls, None, Options::default().with_ttl(ttl)).await
}

/// Connects the lock of this workspace to servers anywhere. Redis finds who logs in within its addresses, the others in
/// `login`.
///
/// # Errors
///
/// It cannot be connected.
pub async fn connect(
    backend: Backend,
    urls: &[String],
    login: Option<&Login>,
    options: Options,
) -> Result<AnyLocker> {
    Ok(match backend {
        Backend::Local => LocalLocker::new().into(),
        Backend::Setnx => lock_setnx::SetnxLocker::connect(&*urls[0], options).await?.into(),
        Backend::Redlock => {
            lock_redlock::RedlockLocker::connect(urls.iter().map(String::as_str), options).await?.into()
        }
        Backend::Etcd => {
            let mut target = lock_etcd::Target::new(urls)?;
            if let Some(Login { user, password }) = login {
                target = target.with_user(user, password);
            }
            lock_etcd::EtcdLocker::connect(target, options).await?.into()
        }
        Backend::Zk => {
            let mut target = lock_zk::Target::new(&urls.join(","))?;
            if let Some(Login { user, password }) = login {
                target = target.with_digest(user, password);
            }
            lock_zk::ZkLocker::connect(target, options).await?.into()
        }
    })
}

/// Returns what can be measured on the servers of `setup`: the floor first, ours next.
#[must_use]
pub fn subjects(setup: Setup, urls: &[String]) -> Vec<Subject> {
    match setup {
        Setup::Local => local::subjects(),
        Setup::Setnx => redis::on_one(&urls[0]),
        Setup::Redlock => redis::on_several(urls),
        Setup::Etcd | Setup::Etcd3 => etcd::subjects(urls),
        Setup::Zk | Setup::Zk3 => zk::subjects(urls),
    }
}
