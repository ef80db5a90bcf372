//! Whether the slot of a key is open: a condition of each acquire. Without the feature `movable` there are no slots,
//! and nothing of this is left.

#[cfg(feature = "movable")]
pub(crate) use self::of_slots::Slots;
#[cfg(not(feature = "movable"))]
pub(crate) use self::without_slots::Slots;

#[cfg(feature = "movable")]
mod of_slots {
    use lock_core::{
        FencingToken, Key, Result,
        backend::Effect,
        movable::{Epoch, Marker, NotOpen, OpenEpochs, Slot},
    };
    use lock_redis::{Node, Prefix};

    use crate::markers;

    /// What a locker believes of slots; nothing if it knows none.
    #[derive(Default)]
    pub(crate) struct Slots(Option<OpenEpochs>);

    /// The slot of a key, and the epoch in which it must be open; nothing for a locker that knows no slots.
    pub(crate) struct Gate(Option<Expected>);

    struct Expected {
        slot: Slot,
        marker: String,
        open: String,
        epoch: Epoch,
    }

    impl Slots {
        pub(crate) fn movable() -> Self {
            Self(Some(OpenEpochs::default()))
        }

        /// Names locks by their slots, so that none is the name of a lock without a slot.
        pub(crate) fn named(&self, prefix: Prefix) -> Prefix {
            if self.0.is_some() { prefix.marked("slot:").by_slot() } else { prefix }
        }

        pub(crate) fn prepare(&self, node: Node, prefix: &Prefix) -> Node {
            if self.0.is_some() { markers::prepare(node, prefix) } else { node }
        }

        pub(crate) fn gate(&self, prefix: &Prefix, key: &Key) -> Gate {
            Gate(self.0.as_ref().map(|epochs| {
                let slot = Slot::of(key);
                Expected::new(prefix, slot, epochs.get(slot))
            }))
        }

        /// Returns if the slot is open in another epoch, which is known from now on.
        pub(crate) fn learn(&self, found: &str, gate: &Gate, effect: Effect) -> Result<()> {
            let (Some(epochs), Some(sent)) = (&self.0, &gate.0) else { return Ok(()) };
            let marker =
                Some(found).filter(|found| !found.is_empty()).map(str::parse::<Marker>).transpose()?;
            if epochs.learn(sent.slot, sent.epoch, marker.as_ref()) {
                return Ok(());
            }
            Err(NotOpen { slot: sent.slot, marker }.error(effect))
        }
    }

    impl Gate {
        /// Returns the name of the marker, and what it must be.
        pub(crate) fn condition(&self) -> Option<(&str, &str)> {
            self.0.as_ref().map(|expected| (&*expected.marker, &*expected.open))
        }

        pub(crate) fn token(&self, number: FencingToken) -> Result<FencingToken> {
            self.0.as_ref().map_or(Ok(number), |expected| expected.epoch.token(number))
        }
    }

    impl Expected {
        fn new(prefix: &Prefix, slot: Slot, epoch: Epoch) -> Self {
            let (marker, open) = (markers::marker(prefix, slot), Marker::Open { epoch }.to_string());
            Self { slot, marker, open, epoch }
        }
    }
}

#[cfg(not(feature = "movable"))]
mod without_slots {
    use lock_core::{FencingToken, Key, Result, backend::Effect};
    use lock_redis::{Node, Prefix};

    #[derive(Default)]
    pub(crate) struct Slots {}

    pub(crate) struct Gate;

    impl Slots {
        pub(crate) fn named(&self, prefix: Prefix) -> Prefix {
            prefix
        }

        pub(crate) fn prepare(&self, node: Node, _: &Prefix) -> Node {
            node
        }

        pub(crate) fn gate(&self, _: &Prefix, _: &Key) -> Gate {
            Gate
        }

        pub(crate) fn learn(&self, _: &str, _: &Gate, _: Effect) -> Result<()> {
            Ok(())
        }
    }

    impl Gate {
        pub(crate) fn condition(&self) -> Option<(&str, &str)> {
            None
        }

        pub(crate) fn token(&self, number: FencingToken) -> Result<FencingToken> {
            Ok(number)
        }
    }
}
