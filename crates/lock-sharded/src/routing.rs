//! How an acquire finds the cluster on which the slot of its key is open.

use std::time::Duration;

use lock_core::{
    Error, ErrorKind, Key, Result,
    backend::BootInstant,
    movable::{Marker, NotOpen, Slot},
};
use rand::RngExt;
use tokio::time;

use crate::shared::Shared;

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(25);

/// The refusals of one acquire: while a slot moves, it is open nowhere for a moment.
pub(crate) struct Refusals {
    first: Option<BootInstant>,
    pause: Duration,
    /// For how long it is tried.
    patience: Duration,
}

impl Refusals {
    pub(crate) fn within(patience: Duration) -> Self {
        Self { first: None, pause: FIRST_PAUSE, patience }
    }

    /// Learns from a refusal where to ask next, and waits a moment if that was asked already.
    pub(crate) async fn follow(&mut self, shared: &Shared, key: &Key, refusal: &NotOpen) -> Result<()> {
        let since = *self.first.get_or_insert_with(BootInstant::now);
        if BootInstant::now().since(since) > self.patience {
            return Err(self.in_vain(key, refusal));
        }
        let slot = refusal.slot;
        let is_new = match &refusal.marker {
            // Who prepares is not open yet, and who comes from there is told when it is.
            Some(
                Marker::Sealed { to, .. } | Marker::Moved { to, .. } | Marker::Preparing { from: to, .. },
            ) => {
                if !shared.members.names().contains(to) {
                    shared.ask_map(slot).await?;
                }
                shared.set_route(slot, to)
            }
            _ => match shared.ask_map(slot).await {
                Ok(true) => true,
                // The map knows no better, or is not there.
                Ok(false) | Err(_) => find_open(shared, slot).await,
            },
        };
        let is_certain = !matches!(refusal.marker, Some(Marker::Preparing { .. }));
        if !(is_new && is_certain) {
            let pause = self.pause.mul_f64(rand::rng().random_range(0.5..=1.0));
            time::sleep(pause).await;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
        Ok(())
    }

    fn in_vain(&self, key: &Key, refusal: &NotOpen) -> Error {
        let message = format!(
            "the slot of the key was open on no cluster for {:?} ({refusal}); see `lock-shards status`: any mover can \
             resume a move whose mover is gone",
            self.patience
        );
        Error::new(ErrorKind::Unavailable, message).with_key(key).without_effect()
    }
}

/// Asks all clusters which of them has the slot open; returns whether one does.
async fn find_open(shared: &Shared, slot: Slot) -> bool {
    for name in shared.members.names() {
        let Ok(member) = shared.members.get(&name).await else { continue };
        match member.marker(slot).await {
            Ok(Some(Marker::Open { .. })) => {
                shared.set_route(slot, &name);
                return true;
            }
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(cluster = %name, %error, "whether a slot is open there is not known")
            }
        }
    }
    false
}
