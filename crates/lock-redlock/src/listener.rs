//! Hearing that a key is reserved, when it may be so at a majority of the servers.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use lock_core::{Result, backend::ReleaseListener};
use lock_redis::{LockListener, Notices};
use tokio::time;

/// How long after the first notice the others are waited for. They were sent at the same time; without them the waiter
/// would outrun the release at the other servers and be refused.
const OTHERS: Duration = Duration::from_millis(5);

/// Listens to all servers for one key.
pub(crate) struct MajorityListener<'a>(Vec<LockListener<'a>>);

impl<'a> MajorityListener<'a> {
    pub(crate) fn new(notices: &'a [Notices], lock: &str) -> Self {
        Self(notices.iter().map(|notices| notices.listener(lock.to_owned())).collect())
    }

    fn majority(&self) -> usize {
        self.0.len() / 2 + 1
    }
}

impl ReleaseListener for MajorityListener<'_> {
    /// Listens at a majority: a release frees one, and any two majorities share a server that tells of it.
    async fn listen(&mut self) -> Result<()> {
        let mut missing = self.majority();
        let mut listening: FuturesUnordered<_> = self.0.iter_mut().map(ReleaseListener::listen).collect();
        let mut outcome = Ok(());
        loop {
            // Of the rest those are heard too that are connected.
            let listens = match missing {
                0 => listening.next().now_or_never().flatten(),
                _ => listening.next().await,
            };
            match listens {
                Some(Ok(())) => missing = missing.saturating_sub(1),
                Some(Err(error)) => outcome = Err(error),
                None if missing == 0 => return Ok(()),
                None => return outcome,
            }
        }
    }

    fn has_listened(&self) -> bool {
        self.0.iter().filter(|listener| listener.has_listened()).count() >= self.majority()
    }

    async fn released(&mut self) {
        let others = self.majority() - 1;
        let mut releases: FuturesUnordered<_> = self.0.iter_mut().map(ReleaseListener::released).collect();
        releases.next().await;
        let _ = time::timeout(OTHERS, releases.take(others).count()).await;
    }
}
