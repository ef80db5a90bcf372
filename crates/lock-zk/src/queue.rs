//! Waiting in the queue.

use std::time::Duration;

use lock_core::{
    LockGuard, Result,
    backend::{AcquireReply, Acquirer, BootInstant, Outcome, WaitingStore},
};
use tokio::time;

use crate::{
    names::Member,
    store::{Joined, Place, Zk},
};

/// Before a lost place is taken anew, or one is looked at again, so that a server that fails every time is not asked without
/// a pause.
const BREATH: Duration = Duration::from_millis(20);

impl WaitingStore for Zk {
    /// Whoever loses the place, with the session or by somebody's hand, queues again at the end, for at most one TTL after
    /// the place was last had.
    async fn lock(&self, acquirer: &Acquirer<'_, Self>) -> Result<LockGuard> {
        let mut had_a_place = None;
        loop {
            let attempt = acquirer.begin()?;
            let joined = acquirer.bounded(self.join(attempt.claim())).await;
            let reply = match joined {
                Ok(joined) => {
                    let reply = self.wait_for_turn(acquirer, joined).await;
                    had_a_place = Some(BootInstant::now());
                    reply
                }
                Err(error) => Err(error),
            };
            match attempt.conclude(reply) {
                Ok(Outcome::Acquired(guard)) => return Ok(guard),
                Ok(Outcome::Busy { .. }) => unreachable!("a wait ends in a grant or in an error"),
                Err(error) => {
                    let in_vain = had_a_place.map(|last| BootInstant::now().since(last));
                    if !error.is_transient() || in_vain.is_none_or(|time| time > acquirer.ttl()) {
                        return Err(error);
                    }
                    tracing::debug!(key = ?acquirer.key(), %error, "a place in the queue was lost and is taken anew");
                    time::sleep(BREATH).await;
                }
            }
        }
    }
}

impl Zk {
    /// Waits until nobody is before the place, watching the nearest who is, and the own node.
    async fn wait_for_turn(&self, acquirer: &Acquirer<'_, Self>, joined: Joined) -> Result<AcquireReply> {
        let Joined { place, mut ahead } = joined;
        let client = self.client_of(&place)?;
        let path = &place.node().expect("who has joined has a node").path;
        place.session().watch_own(&client, path, place.validity(), !ahead.is_empty());
        while let Some(nearest) = ahead.last() {
            let gone = place.session().watch_other(&client, place.path_of(nearest));
            let told = tokio::select! {
                // Now and then it is looked at anew, should a notice be lost in spite of all.
                told = time::timeout(place.session().timeout(), gone) => told,
                () = place.validity().ended() => return Err(self.place_lost(&place)),
            };
            match told {
                // Nobody can come before it, and the own node is watched too: so there is nothing to ask.
                Ok(Ok(())) if ahead.len() == 1 => break,
                Ok(Ok(())) | Err(_) => ahead = self.look_until_seen(acquirer, &place).await?,
                Ok(Err(_)) => return Err(self.place_lost(&place)),
            }
        }
        Ok(place.granted())
    }

    /// Looks who is before the place, again and again while it is one: a request that failed does not cost it.
    async fn look_until_seen(&self, acquirer: &Acquirer<'_, Self>, place: &Place) -> Result<Vec<Member>> {
        loop {
            match acquirer.bounded(self.look(place)).await {
                Err(error) if error.is_transient() && place.validity().is_valid() => {
                    tracing::debug!(key = ?acquirer.key(), %error, "who is before a place was not seen and is looked at again");
                    time::sleep(BREATH).await;
                }
                seen => return seen,
            }
        }
    }
}
