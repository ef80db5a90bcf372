//! Locks in one process.

use anyhow::Result;
use keyed_lock::r#async::{Guard, KeyedLock};
use lock_local::LocalLocker;
use lockable::{AsyncLimit, Lockable, LockableHashMap};
use tokio::sync::{Mutex, MutexGuard};

use super::Ours;
use crate::lock::{Lock, Role, Subject};

pub(super) fn subjects() -> Vec<Subject> {
    vec![
        Subject::new("tokio Mutex, no keys", Role::Floor, async || Ok(Mutex::new(()))),
        Subject::new("lock-local", Role::Ours, async || Ok(Ours((*LocalLocker::new()).clone()))),
        Subject::new("lockable", Role::Peer, async || Ok(LockableHashMap::<&'static str, ()>::new())),
        Subject::new("keyed-lock", Role::Peer, async || Ok(KeyedLock::<&'static str>::new())),
    ]
}

impl Lock for Mutex<()> {
    type Held<'a> = MutexGuard<'a, ()>;

    async fn acquire(&self, _key: &'static str) -> Result<MutexGuard<'_, ()>> {
        Ok(self.lock().await)
    }

    async fn release(&self, _held: Self::Held<'_>) -> Result<()> {
        Ok(())
    }
}

impl Lock for LockableHashMap<&'static str, ()> {
    type Held<'a> = <Self as Lockable<&'static str, ()>>::Guard<'a>;

    async fn acquire(&self, key: &'static str) -> Result<Self::Held<'_>> {
        Ok(self.async_lock(key, AsyncLimit::no_limit()).await.expect("no limit"))
    }

    async fn release(&self, _held: Self::Held<'_>) -> Result<()> {
        Ok(())
    }
}

impl Lock for KeyedLock<&'static str> {
    type Held<'a> = Guard<'a, &'static str>;

    async fn acquire(&self, key: &'static str) -> Result<Self::Held<'_>> {
        Ok(self.lock(key).await)
    }

    async fn release(&self, _held: Self::Held<'_>) -> Result<()> {
        Ok(())
    }
}
