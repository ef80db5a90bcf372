//! Locks with bugs planted on purpose, to check the checker by: the table of bugs, and the cell that must catch each.

mod leases;
mod queue;
mod servers;

use lock_core::{AnyLocker, Options, Result};
use serde::{Deserialize, Serialize};

use crate::{backend::Backend, event::Invariant};

/// A mistake that lock libraries make, or could.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub(crate) enum Bug {
    /// A release deletes whatever is there.
    ReleaseWithoutOwner,
    /// All attempts of a client are of one owner, and an undo that is late frees the next hold.
    OneOwnerForAll,
    /// Belief is counted from the reply.
    ValidityFromReply,
    /// Belief lasts as long as the lease, to the end.
    DriftIgnored,
    /// A lock is returned however little of its lease is left.
    MinValidityIgnored,
    /// A renewal that is answered after the deadline makes the lock held again.
    ExtendAfterDeadline,
    /// A failed renewal takes the key for itself again, whoever has it.
    RenewalThatTakes,
    /// The loss is never told by `lost()`.
    LossNotTold,
    /// The deadline is kept by the wall clock.
    WallClock,
    /// The loss is what a task has noticed, not what the clock says.
    LossByTask,
    /// What a dropped acquire took is left.
    LeakOnCancel,
    /// A release ends with the future that began it.
    ReleaseTiedToFuture,
    /// The token is the largest of the servers' counters, which nobody has accepted.
    TokenNotAccepted,
    /// Tokens are counted in the client.
    TokenFromClient,
    /// The store checks the tokens of writes only.
    StoreChecksWritesOnly,
    /// Numbers in the queue are compared as texts.
    OrderAsText,
    /// A waiter looks, and only then begins to listen.
    LookBeforeListen,
    /// A waiter whose predecessor is gone does not look whether its own entry is still there.
    OwnEntryNotChecked,
    /// A session that is kept alive is taken for a lock that is held.
    KeepAliveOnly,
}

/// A bug, the cell that must catch it, and what that cell must find.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plant {
    pub(crate) bug: Bug,
    pub(crate) row: u32,
    pub(crate) finds: &'static [Invariant],
}

const fn plant(bug: Bug, row: u32, finds: &'static [Invariant]) -> Plant {
    Plant { bug, row, finds }
}

use Invariant::{ActsLate, Belief, Leaks, Loss, Order, Owner, Progress, Tokens};

pub(crate) const PLANTS: &[Plant] = &[
    plant(Bug::ReleaseWithoutOwner, 15, &[Belief, Owner]),
    plant(Bug::OneOwnerForAll, 24, &[Belief, Owner]),
    plant(Bug::ValidityFromReply, 55, &[Belief]),
    plant(Bug::DriftIgnored, 54, &[Belief]),
    plant(Bug::MinValidityIgnored, 14, &[ActsLate]),
    plant(Bug::ExtendAfterDeadline, 13, &[ActsLate]),
    plant(Bug::RenewalThatTakes, 26, &[Leaks]),
    plant(Bug::LossNotTold, 11, &[Loss]),
    plant(Bug::WallClock, 20, &[Loss, Belief, ActsLate]),
    plant(Bug::LossByTask, 3, &[Belief, Loss]),
    plant(Bug::LeakOnCancel, 24, &[Leaks]),
    plant(Bug::ReleaseTiedToFuture, 24, &[Leaks]),
    plant(Bug::TokenNotAccepted, 57, &[Tokens]),
    plant(Bug::TokenFromClient, 1, &[Tokens]),
    plant(Bug::StoreChecksWritesOnly, 58, &[Invariant::Fencing, Invariant::Updates]),
    plant(Bug::OrderAsText, 1, &[Order, Belief]),
    plant(Bug::LookBeforeListen, 59, &[Progress]),
    plant(Bug::OwnEntryNotChecked, 56, &[Belief]),
    plant(Bug::KeepAliveOnly, 38, &[Loss]),
];

impl Bug {
    /// Whose servers the lock uses.
    pub(crate) fn soil(self) -> Backend {
        if self == Self::TokenNotAccepted { Backend::Redlock } else { Backend::Setnx }
    }

    /// Whether it is planted in a lock with a queue.
    pub(crate) fn queues(self) -> bool {
        matches!(
            self,
            Self::OrderAsText | Self::LookBeforeListen | Self::OwnEntryNotChecked | Self::KeepAliveOnly
        )
    }
}

/// Connects to a small lock that has `bug` if it is `planted`, and none otherwise.
pub(crate) async fn connect(bug: Bug, planted: bool, urls: &str, options: &Options) -> Result<AnyLocker> {
    let has = planted.then_some(bug);
    if bug.queues() {
        queue::connect(has, urls, options).await
    } else {
        leases::connect(has, urls, options).await
    }
}
