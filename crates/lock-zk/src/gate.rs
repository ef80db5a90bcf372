//! Whether the slot of a key is open: seen before an entry is made, and again after the look that makes it the first.
//! Without the feature `movable` there are no slots, and nothing of this is left.

#[cfg(feature = "movable")]
pub(crate) use self::of_slots::{Gate, Slots};
#[cfg(not(feature = "movable"))]
pub(crate) use self::without_slots::{Gate, Slots};

#[cfg(feature = "movable")]
mod of_slots {
    use std::sync::Arc;

    use lock_core::{
        Error, FencingToken, Key, Result,
        backend::Effect,
        movable::{Epoch, Marker, Slot},
    };
    use zookeeper_client::{Client, Error as ZkError};

    use crate::{connection::Connection, ensemble::Ensemble, markers::Markers, names::Prefix};

    /// The markers, for a locker that knows slots.
    #[derive(Default)]
    pub(crate) struct Slots(Option<Markers>);

    /// The slot of a key, and the epoch in which it was seen open; nothing for a locker that knows no slots.
    #[derive(Debug)]
    pub(crate) struct Gate(Option<Seen>);

    #[derive(Debug)]
    struct Seen {
        slot: Slot,
        epoch: Epoch,
        /// The node that is there as long as the slot is open in this epoch.
        marker: String,
    }

    impl Slots {
        pub(crate) fn movable(ensemble: Arc<Ensemble>, prefix: Prefix) -> Self {
            Self(Some(Markers::new(ensemble, prefix)))
        }

        pub(crate) fn are_there(&self) -> bool {
            self.0.is_some()
        }

        pub(crate) fn markers(&self) -> &Markers {
            self.0.as_ref().expect("only a locker with slots is asked for them")
        }

        /// Sees that the slot of `key` is open.
        pub(crate) async fn gate(&self, connection: &Connection, key: &Key) -> Result<Gate> {
            let Some(markers) = &self.0 else { return Ok(Gate(None)) };
            let slot = Slot::of(key);
            let epoch = markers.seen_open(connection, slot).await?;
            let marker = markers.path(slot, &Marker::Open { epoch });
            Ok(Gate(Some(Seen { slot, epoch, marker })))
        }

        /// The slot was seen not to be open any more.
        pub(crate) fn forget(&self, gate: &Gate) {
            if let (Some(markers), Some(gate)) = (&self.0, &gate.0) {
                markers.forget(gate.slot);
            }
        }

        /// The error of who saw so, and whose entry may be there or not.
        pub(crate) async fn refusal(&self, gate: &Gate, connection: &Connection, effect: Effect) -> Error {
            let seen = gate.0.as_ref().expect("only a slot that was seen open can be so no more");
            self.markers().refusal(connection, seen.slot, effect).await
        }
    }

    impl Gate {
        /// That of an entry which waits for nothing.
        pub(crate) fn open() -> Self {
            Self(None)
        }

        /// What an entry says of the epoch of its token.
        pub(crate) fn data(&self) -> Vec<u8> {
            self.0.as_ref().map_or_else(Vec::new, |seen| format!("epoch:{}", seen.epoch).into_bytes())
        }

        pub(crate) fn token(&self, number: FencingToken) -> Result<FencingToken> {
            self.0.as_ref().map_or(Ok(number), |seen| seen.epoch.token(number))
        }

        /// Asks whether the slot is still open, by a request that is sent by this call.
        pub(crate) fn look<'a>(
            &self,
            client: &'a Client,
        ) -> impl Future<Output = Result<bool, ZkError>> + Send + use<'a> {
            let looked = self.0.as_ref().map(|seen| client.check_stat(&seen.marker));
            async move {
                match looked {
                    Some(looked) => Ok(looked.await?.is_some()),
                    None => Ok(true),
                }
            }
        }
    }
}

#[cfg(not(feature = "movable"))]
mod without_slots {
    use std::future::{Future, ready};

    use lock_core::{Error, FencingToken, Key, Result, backend::Effect};
    use zookeeper_client::{Client, Error as ZkError};

    use crate::connection::Connection;

    #[derive(Default)]
    pub(crate) struct Slots {}

    #[derive(Debug)]
    pub(crate) struct Gate;

    impl Slots {
        pub(crate) fn are_there(&self) -> bool {
            false
        }

        pub(crate) async fn gate(&self, _: &Connection, _: &Key) -> Result<Gate> {
            Ok(Gate)
        }

        pub(crate) fn forget(&self, _: &Gate) {}

        pub(crate) async fn refusal(&self, _: &Gate, _: &Connection, _: Effect) -> Error {
            unreachable!("without slots, each look finds the gate open")
        }
    }

    impl Gate {
        pub(crate) fn data(&self) -> Vec<u8> {
            Vec::new()
        }

        pub(crate) fn token(&self, number: FencingToken) -> Result<FencingToken> {
            Ok(number)
        }

        pub(crate) fn look(&self, _: &Client) -> impl Future<Output = Result<bool, ZkError>> + Send + use<> {
            ready(Ok(true))
        }
    }
}
