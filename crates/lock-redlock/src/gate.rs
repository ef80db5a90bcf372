//! Whether the slot of a key is open: a server looks in the same script in which it gives its vote. Without the feature
//! `movable` there are no slots, and nothing of this is left.

#[cfg(feature = "movable")]
pub(crate) use self::of_slots::{Gate, Slots};
#[cfg(not(feature = "movable"))]
pub(crate) use self::without_slots::{Gate, Slots};

#[cfg(feature = "movable")]
mod of_slots {
    use lock_core::{
        Error, ErrorKind, FencingToken, Key, Result,
        backend::Effect,
        movable::{Epoch, Slot},
    };

    use crate::{markers::Markers, register::register_of};

    /// How often servers are asked in the same epoch that said that it is not open, though a majority says that it is.
    const MOST_AGAIN: u32 = 3;

    /// The markers, for a locker that knows slots.
    #[derive(Default)]
    pub(crate) struct Slots(Option<Markers>);

    /// The slot of a key, and the epoch in which it must be open; nothing for a locker that knows no slots.
    pub(crate) struct Gate(Option<Expected>);

    struct Expected {
        slot: Slot,
        epoch: Epoch,
        again: u32,
    }

    impl Slots {
        pub(crate) fn movable(markers: Markers) -> Self {
            Self(Some(markers))
        }

        pub(crate) fn markers(&self) -> &Markers {
            self.0.as_ref().expect("only a locker with slots is asked for them")
        }

        pub(crate) fn gate(&self, key: &Key) -> Gate {
            let expected = |markers: &Markers| {
                let slot = Slot::of(key);
                Expected { slot, epoch: markers.epoch(slot), again: MOST_AGAIN }
            };
            Gate(self.0.as_ref().map(expected))
        }

        /// Returns what to ask servers with that said that the slot is not open, if it is after all.
        pub(crate) async fn reopened(&self, gate: &Gate, effect: Effect) -> Result<Gate> {
            let sent = gate.0.as_ref().expect("only a slot that is expected to be open can be not so");
            let epoch = self.markers().reopened(sent.slot, sent.epoch, effect).await?;
            let again = if epoch == sent.epoch { sent.again - 1 } else { MOST_AGAIN };
            if again == 0 {
                let message = "too few servers know by now that the slot of the key is open";
                return Err(Error::new(ErrorKind::Unavailable, message).with_effect(effect));
            }
            Ok(Gate(Some(Expected { slot: sent.slot, epoch, again })))
        }
    }

    impl Gate {
        pub(crate) fn is_there(&self) -> bool {
            self.0.is_some()
        }

        /// Returns what a request for a vote says besides.
        pub(crate) fn arguments(&self) -> impl Iterator<Item = String> {
            let expected = self.0.iter();
            expected.flat_map(|expected| [expected.epoch.to_string(), register_of(expected.slot)])
        }

        pub(crate) fn token(&self, number: FencingToken) -> Result<FencingToken> {
            self.0.as_ref().map_or(Ok(number), |expected| expected.epoch.token(number))
        }
    }
}

#[cfg(not(feature = "movable"))]
mod without_slots {
    use lock_core::{FencingToken, Key, Result, backend::Effect};

    #[derive(Default)]
    pub(crate) struct Slots {}

    pub(crate) struct Gate;

    impl Slots {
        pub(crate) fn gate(&self, _: &Key) -> Gate {
            Gate
        }

        pub(crate) async fn reopened(&self, _: &Gate, _: Effect) -> Result<Gate> {
            Ok(Gate)
        }
    }

    impl Gate {
        pub(crate) fn is_there(&self) -> bool {
            false
        }

        pub(crate) fn arguments(&self) -> [String; 0] {
            []
        }

        pub(crate) fn token(&self, number: FencingToken) -> Result<FencingToken> {
            Ok(number)
        }
    }
}
