//! Hearing of a release when a majority of the servers may be free.

use std::time::Duration;

use futures_util::{StreamExt, stream::FuturesUnordered};
use lock_core::{Key, Result, backend::ReleaseListener};
use lock_redis::{LockListener, Notices};
use tokio::time;

use crate::backoff::SplitVoteBackoff;

/// How long after the first notice the others are waited for. They were sent at the same time; without them the waiter
/// would outrun the release at the other servers and be refused.
const OTHERS: Duration = Duration::from_millis(5);

/// Listens to one key's channel on all servers.
pub(crate) struct MajorityListener<'a> {
    channels: Vec<LockListener<'a>>,
    key: &'a Key,
    backoff: &'a SplitVoteBackoff,
}

impl<'a> MajorityListener<'a> {
    pub(crate) fn new(
        notices: &'a [Notices],
        channel: &str,
        key: &'a Key,
        backoff: &'a SplitVoteBackoff,
    ) -> Self {
        Self {
            channels: notices.iter().map(|notices| notices.listener(channel.to_owned())).collect(),
            key,
            backoff,
        }
    }

    fn majority(&self) -> usize {
        self.channels.len() / 2 + 1
    }
}

impl ReleaseListener for MajorityListener<'_> {
    /// Listens at a majority: a release frees one, and any two majorities share a server that tells of it.
    async fn listen(&mut self) -> Result<()> {
        let mut missing = self.majority();
        let mut listening: FuturesUnordered<_> =
            self.channels.iter_mut().map(ReleaseListener::listen).collect();
        let mut outcome = Ok(());
        while missing > 0
            && let Some(listens) = listening.next().await
        {
            match listens {
                Ok(()) => missing -= 1,
                Err(error) => outcome = Err(error),
            }
        }
        if missing == 0 { Ok(()) } else { outcome }
    }

    async fn released(&mut self) {
        let others = self.majority() - 1;
        let mut releases: FuturesUnordered<_> =
            self.channels.iter_mut().map(ReleaseListener::released).collect();
        releases.next().await;
        let _ = time::timeout(OTHERS, releases.take(others).count()).await;
        time::sleep(self.backoff.pause(self.key)).await;
    }
}

impl Drop for MajorityListener<'_> {
    fn drop(&mut self) {
        self.backoff.forget(self.key);
    }
}
