//! The task that sees that slots were sealed, and takes the holds in them over on the new cluster.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use lock_core::{
    Result,
    backend::{Effect, Hold},
    movable::{ClusterName, Epoch, Marker, NotOpen, Slot},
};
use tokio::{sync::Notify, task::JoinSet, time};

use crate::{cluster::Member, hold::ShardedHold, shared::Shared};

/// How long it is waited for a new cluster to open a slot, before looking again; more and more.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// So many holds of a slot are taken over at once.
const AT_ONCE: usize = 64;

/// Looks now and then, and whenever a slot was seen to have moved, until the last locker and guard are gone and end
/// it.
pub(crate) async fn relocate(shared: Weak<Shared>, has_moved: Arc<Notify>, every: Duration) {
    let mut moves = JoinSet::new();
    let mut next_look = time::Instant::now() + every;
    loop {
        tokio::select! {
            () = has_moved.notified() => {}
            () = time::sleep_until(next_look) => {}
            Some(_) = moves.join_next() => continue,
        }
        next_look = time::Instant::now() + every;
        let Some(shared) = shared.upgrade() else { return };
        look(&shared, &mut moves).await;
    }
}

/// Asks each cluster that has holds of ours for its markers, and begins to move those whose slot was sealed.
async fn look(shared: &Arc<Shared>, moves: &mut JoinSet<()>) {
    let holds = shared.holds.all();
    let mut clusters: Vec<_> = holds.iter().filter_map(|hold| hold.cluster()).collect();
    clusters.sort_unstable();
    clusters.dedup();
    for cluster in clusters {
        let markers = match shared.members.get(&cluster).await {
            Ok(member) => member.markers().await,
            Err(error) => Err(error),
        };
        let markers = markers.unwrap_or_else(|error| {
            tracing::debug!(%cluster, %error, "whether slots move away is not known");
            Vec::new()
        });
        for (slot, marker) in markers {
            let Marker::Sealed { to, next, .. } = marker else { continue };
            let is_ours = |hold: &&Arc<ShardedHold>| {
                Slot::of(hold.key()) == slot && hold.cluster().as_ref() == Some(&cluster) && hold.begin_move()
            };
            let ours: Vec<_> = holds.iter().filter(is_ours).cloned().collect();
            if !ours.is_empty() {
                moves.spawn(move_slot(Arc::clone(shared), slot, ours, to, next));
            }
        }
    }
}

/// Takes the holds of a slot over where it has moved.
async fn move_slot(
    shared: Arc<Shared>,
    slot: Slot,
    holds: Vec<Arc<ShardedHold>>,
    to: ClusterName,
    next: Epoch,
) {
    match opened(&shared, slot, &holds, &to, next).await {
        Ok(Some(member)) => {
            let moving = stream::iter(&holds).for_each_concurrent(AT_ONCE, async |hold| {
                tokio::select! {
                    biased;
                    () = hold.ended() => {}
                    () = move_hold(&*member, hold, &to, next) => {}
                }
                hold.let_go_if_lost();
            });
            moving.await;
        }
        Ok(None) => {}
        Err(error) => tracing::debug!(%slot, %to, %error, "holds could not be moved yet"),
    }
    for hold in holds {
        hold.end_move();
    }
}

/// Waits until the slot is open in the epoch `next`, and returns its cluster; none if it will not be, or there is
/// nothing left to move.
async fn opened(
    shared: &Shared,
    slot: Slot,
    holds: &[Arc<ShardedHold>],
    to: &ClusterName,
    next: Epoch,
) -> Result<Option<Arc<dyn Member>>> {
    if !shared.members.names().contains(to) {
        shared.ask_map(slot).await?;
    }
    let member = shared.members.get(to).await?;
    let mut pause = PAUSE;
    while holds.iter().any(|hold| hold.cluster().is_some()) {
        match member.marker(slot).await? {
            Some(Marker::Open { epoch }) => return Ok((epoch == next).then_some(member)),
            Some(Marker::Preparing { epoch, .. }) if epoch == next => time::sleep(pause).await,
            _ => break,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(None)
}

/// Takes one hold over. Dropped in the middle, it gives the hold up on the new cluster.
async fn move_hold(member: &dyn Member, hold: &ShardedHold, to: &ClusterName, next: Epoch) {
    let Some(owner) = hold.owner() else { return };
    let mut adoption = member.adoption(hold.key().clone(), owner);
    let mut is_uncertain = false;
    loop {
        match adoption.attempt(next, hold.fencing_token(), hold.belief()).await {
            Ok(Some(guard)) => return hold.has_moved(to.clone(), guard),
            Ok(None) => return hold.is_lost(),
            Err(error) => {
                is_uncertain |= error.effect() == Effect::Possible;
                tracing::debug!(key = ?hold.key(), %error, is_uncertain, "a hold was not taken over");
                if !is_uncertain {
                    hold.be_certain();
                    if NotOpen::of(&error).is_some() {
                        return;
                    }
                }
            }
        }
        time::sleep(PAUSE).await;
    }
}
