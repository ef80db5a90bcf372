//! Whether the slot of a key is open: a condition of each entry, and a part of each look of a waiter. Without the
//! feature `movable` there are no slots, and nothing of this is left.

#[cfg(feature = "movable")]
pub(crate) use self::of_slots::{Gate, NotOpen, Slots};
#[cfg(not(feature = "movable"))]
pub(crate) use self::without_slots::{Gate, NotOpen, Slots};

#[cfg(feature = "movable")]
mod of_slots {
    use etcd_client::{Compare, CompareOp, GetOptions, GetResponse, TxnOp};
    use lock_core::{
        Error, FencingToken, Key, Result,
        backend::Effect,
        movable::{Epoch, Marker, NotOpen as Refusal, OpenEpochs, Slot},
    };

    use crate::names::Prefix;

    /// What a locker believes of slots; nothing if it knows none.
    #[derive(Default)]
    pub(crate) struct Slots(Option<OpenEpochs>);

    /// The slot of a key, and the epoch in which it must be open; nothing for a locker that knows no slots.
    #[derive(Debug)]
    pub(crate) struct Gate(Option<Expected>);

    #[derive(Debug)]
    struct Expected {
        slot: Slot,
        marker: String,
        epoch: Epoch,
    }

    /// What was found in place of the marker that was expected.
    #[derive(Debug)]
    pub(crate) struct NotOpen(Option<String>);

    impl Slots {
        pub(crate) fn movable() -> Self {
            Self(Some(OpenEpochs::default()))
        }

        pub(crate) fn are_there(&self) -> bool {
            self.0.is_some()
        }

        pub(crate) fn gate(&self, prefix: &Prefix, key: &Key) -> Gate {
            Gate(self.0.as_ref().map(|epochs| {
                let slot = Slot::of(key);
                Expected { slot, marker: prefix.marker(slot), epoch: epochs.get(slot) }
            }))
        }

        /// Returns if the slot is open in another epoch, which is known from now on.
        pub(crate) fn learn(&self, found: &NotOpen, gate: &Gate, effect: Effect) -> Result<()> {
            let refusal = gate.refusal(found)?;
            if let (Some(epochs), Some(sent)) = (&self.0, &gate.0)
                && epochs.learn(refusal.slot, sent.epoch, refusal.marker.as_ref())
            {
                return Ok(());
            }
            Err(refusal.error(effect))
        }
    }

    impl Gate {
        /// Makes that of an entry which waits for nothing.
        pub(crate) fn open() -> Self {
            Self(None)
        }

        /// Returns what an entry says of the epoch of its token.
        pub(crate) fn value(&self) -> String {
            self.0.as_ref().map_or_else(String::new, |expected| format!("epoch:{}", expected.epoch))
        }

        pub(crate) fn condition(&self) -> Option<Compare> {
            let expected = self.0.as_ref()?;
            let open = Marker::Open { epoch: expected.epoch }.to_string();
            Some(Compare::value(expected.marker.as_str(), CompareOp::Equal, open))
        }

        pub(crate) fn look(&self, local: bool) -> Option<TxnOp> {
            let marker = self.0.as_ref()?.marker.as_str();
            let options = local.then(|| GetOptions::new().with_serializable());
            Some(TxnOp::get(marker, options))
        }

        pub(crate) fn is_there(&self) -> bool {
            self.0.is_some()
        }

        /// Checks what such a look found.
        pub(crate) fn check(&self, found: Option<&GetResponse>) -> Result<(), NotOpen> {
            let Some(expected) = &self.0 else { return Ok(()) };
            let text = found.and_then(|found| found.kvs().first());
            let text = text.map(|entry| String::from_utf8_lossy(entry.value()).into_owned());
            if text.as_ref().is_some_and(|text| *text == Marker::Open { epoch: expected.epoch }.to_string()) {
                return Ok(());
            }
            Err(NotOpen(text))
        }

        pub(crate) fn token(&self, number: FencingToken) -> Result<FencingToken> {
            self.0.as_ref().map_or(Ok(number), |expected| expected.epoch.token(number))
        }

        /// Makes the error of a waiter that looked: an entry behind another in a slot that is not open any more is
        /// void, and one that became first may have done so too late.
        pub(crate) fn void(&self, found: &NotOpen) -> Error {
            self.refusal(found).map_or_else(|error| error, |refusal| refusal.error(Effect::Possible))
        }

        fn refusal(&self, found: &NotOpen) -> Result<Refusal> {
            let expected = self.0.as_ref().expect("only a marker that is expected can be another");
            Ok(Refusal { slot: expected.slot, marker: found.0.as_deref().map(str::parse).transpose()? })
        }
    }
}

#[cfg(not(feature = "movable"))]
mod without_slots {
    use std::convert::Infallible;

    use etcd_client::{Compare, GetResponse, TxnOp};
    use lock_core::{Error, FencingToken, Key, Result, backend::Effect};

    use crate::names::Prefix;

    #[derive(Default)]
    pub(crate) struct Slots {}

    #[derive(Debug)]
    pub(crate) struct Gate;

    pub(crate) type NotOpen = Infallible;

    impl Slots {
        pub(crate) fn are_there(&self) -> bool {
            false
        }

        pub(crate) fn gate(&self, _: &Prefix, _: &Key) -> Gate {
            Gate
        }

        pub(crate) fn learn(&self, found: &NotOpen, _: &Gate, _: Effect) -> Result<()> {
            match *found {}
        }
    }

    impl Gate {
        pub(crate) fn value(&self) -> &'static str {
            ""
        }

        pub(crate) fn condition(&self) -> Option<Compare> {
            None
        }

        pub(crate) fn look(&self, _: bool) -> Option<TxnOp> {
            None
        }

        pub(crate) fn is_there(&self) -> bool {
            false
        }

        pub(crate) fn check(&self, _: Option<&GetResponse>) -> Result<(), NotOpen> {
            Ok(())
        }

        pub(crate) fn token(&self, number: FencingToken) -> Result<FencingToken> {
            Ok(number)
        }

        pub(crate) fn void(&self, found: &NotOpen) -> Error {
            match *found {}
        }
    }
}
