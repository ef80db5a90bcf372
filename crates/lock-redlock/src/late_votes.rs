//! The votes that come after the first majority.

use std::{collections::HashMap, sync::Arc};

use futures_util::StreamExt;
use lock_core::backend::{BoxFuture, Claim, OwnerId};
use parking_lot::Mutex;
use tokio::{runtime::Handle, task::JoinHandle};

use crate::{
    requests::{Reply, VoteReply, is_busy},
    servers::Asked,
};

/// How often servers are asked again on behalf of one claim.
const MOST_AGAIN: usize = 20;

/// What still asks the last servers for their votes for a claim that is held already: a renewal may need them.
#[derive(Default)]
pub(crate) struct LateVotes(Arc<Mutex<HashMap<OwnerId, JoinHandle<()>>>>);

impl LateVotes {
    /// Goes on asking in the background: `again`, where another was just giving its vote back.
    pub(crate) fn collect(
        &self,
        claim: &Claim,
        mut pending: Asked<VoteReply>,
        again: impl Fn(usize) -> BoxFuture<'static, (usize, Reply<VoteReply>)> + Send + 'static,
        runtime: &Handle,
    ) {
        if pending.is_empty() {
            return;
        }
        let (owner, collecting) = (claim.owner(), Arc::clone(&self.0));
        // Under the lock, so that the task does not end before it is entered.
        let mut entered = self.0.lock();
        let task = runtime.spawn(async move {
            let mut left = MOST_AGAIN;
            while let Some((index, reply)) = pending.next().await {
                if is_busy(&reply) && left > 0 {
                    pending.push(again(index));
                    left -= 1;
                }
            }
            collecting.lock().remove(&owner);
        });
        entered.insert(owner, task);
    }

    /// Makes sure that no request for a vote is sent any more, so that what frees the vote is the last.
    pub(crate) async fn stop(&self, claim: &Claim) {
        let task = self.0.lock().remove(&claim.owner());
        if let Some(task) = task {
            task.abort();
            let _ = task.await;
        }
    }
}
