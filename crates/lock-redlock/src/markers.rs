//! The markers of slots, each in a register of its own, and what is known of them here.

use std::sync::Arc;

use lock_core::{
    Result,
    backend::Effect,
    movable::{Epoch, Marker, NotOpen, OpenEpochs, Slot},
};

use crate::{
    agreement::Registers,
    recovery::AmnesiaRecovery,
    register::{IDENTITY, Proposal, Wish, register_of},
    servers::Servers,
};

pub(crate) struct Markers {
    pub(crate) registers: Registers,
    epochs: OpenEpochs,
}

impl Markers {
    pub(crate) fn new(servers: &Arc<Servers>, recovery: &Arc<AmnesiaRecovery>) -> Self {
        let registers = Registers::new(Arc::clone(servers), Arc::clone(recovery));
        Self { registers, epochs: OpenEpochs::default() }
    }

    /// Returns the epoch to send with a request.
    pub(crate) fn epoch(&self, slot: Slot) -> Epoch {
        self.epochs.get(slot)
    }

    /// Returns what the servers agreed on of a slot, as they have it.
    pub(crate) async fn agreed(&self, slot: Slot) -> Result<Option<Proposal>> {
        let name = register_of(slot);
        Ok(self.registers.read(Some(&name)).await?.remove(&name))
    }

    pub(crate) async fn read(&self, slot: Slot) -> Result<Option<Marker>> {
        self.agreed(slot).await?.map(|agreed| agreed.value.parse()).transpose()
    }

    pub(crate) async fn read_all(&self) -> Result<Vec<(Slot, Marker)>> {
        let mut agreed = self.registers.read(None).await?;
        let read = |slot| {
            let agreed = agreed.remove(&register_of(slot))?;
            Some(agreed.value.parse().map(|marker| (slot, marker)))
        };
        Slot::all().filter_map(read).collect()
    }

    pub(crate) async fn change(&self, slot: Slot, from: Option<&Marker>, to: &Marker) -> Result<bool> {
        let wish = Wish::change(from.map(Marker::to_string), to.to_string());
        Ok(self.registers.agree(&register_of(slot), wish).await?.1)
    }

    /// Returns what tells these servers from all others, which is agreed on when it is first asked for.
    pub(crate) async fn identity(&self) -> Result<String> {
        if let Some(known) = self.registers.read(Some(IDENTITY)).await?.remove(IDENTITY) {
            return Ok(known.value);
        }
        let own = format!("{:032x}", rand::random::<u128>());
        let (agreed, _) = self.registers.agree(IDENTITY, Wish::change(None, own.clone())).await?;
        Ok(agreed.map_or(own, |agreed| agreed.value))
    }

    /// Learns from servers that said that a slot is not open in the epoch that was `sent`: it may be in another, or
    /// they lagged behind. Returns the epoch to ask with next.
    ///
    /// # Errors
    ///
    /// It is not open; the cause is a [`NotOpen`]. Or no majority tells.
    pub(crate) async fn reopened(&self, slot: Slot, sent: Epoch, effect: Effect) -> Result<Epoch> {
        let marker = self.read(slot).await.map_err(|error| error.with_effect(effect))?;
        self.epochs.learn(slot, sent, marker.as_ref());
        marker.as_ref().and_then(Marker::open).ok_or_else(|| NotOpen { slot, marker }.error(effect))
    }
}
