//! Slots on Redis: a marker as a key, and copies of holds as keys without an end.

use std::sync::LazyLock;

use lock_core::{
    Error, ErrorKind, Key, Locker, Options, Result,
    backend::{Claim, Effect, Leased},
    movable::{CopyLabel, Epoch, Marker, MovableLease, NotOpen, Slot, SlotHold, SlotStore},
};
use lock_redis::{Answer, Script, Target, all_below, held, read_held};
use rand::RngExt;

use crate::{
    SetnxLocker, SetnxStore,
    gate::Slots,
    markers::marker,
    scripts::{
        HANDED_ON,
        of_slots::{ADOPT, CHANGE_MARKER, DROP_COPY, HOLDS, IDENTIFY, PUT_COPIES, READ},
    },
};

/// So many copies are put there by one script, which nobody else is served beside.
const MOST_COPIES: usize = 500;

impl SetnxLocker {
    /// Connects as [`connect`](Self::connect) does, to one server of a lock space that is spread over several: keys are
    /// granted only while the marker of their slot says so. Users connect through `lock-sharded`.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect), and [`ErrorKind::Unsupported`]: Sentinel or a cluster, which may change to a
    /// server that has older markers.
    ///
    /// # Cancel safety
    ///
    /// As [`connect`](Self::connect).
    pub async fn connect_movable<T>(target: T, options: Options) -> Result<Self>
    where
        T: TryInto<Target>,
        Error: From<T::Error>,
    {
        let target = target.try_into()?;
        if !target.is_one_server() {
            let message = "slots need one server: what Sentinel or a cluster changes to may have older markers, and \
                           grant what was moved away";
            return Err(Error::new(ErrorKind::Unsupported, message).without_effect());
        }
        let store = SetnxStore::connect(target, &options, Slots::movable()).await?;
        Ok(Self(Locker::new(Leased::new(store, &options)?)))
    }
}

/// What a name has as its value: `<owner id>:<number>@<epoch>`, behind it the label of a copy, and `+` if somebody
/// waits.
fn read_hold(key: Key, value: &str) -> Option<SlotHold> {
    let value = value.trim_end_matches('+');
    let (hold, label) = value.split_once('=').map_or((value, None), |(hold, label)| (hold, Some(label)));
    let (owner, token) = read_held(hold)?;
    let copy = match label {
        Some(label) => Some(CopyLabel::parse(label)?),
        None => None,
    };
    Some(SlotHold { key, owner, token, copy })
}

/// Returns what [`read_hold`] reads.
fn hold_value(hold: &SlotHold) -> String {
    let label = hold.copy.as_ref().map_or_else(String::new, |label| format!("={label}"));
    format!("{}{label}", held(hold.owner, hold.token))
}

impl SetnxStore {
    async fn ask<T: lock_redis::redis::FromRedisValue>(
        &self,
        script: &'static LazyLock<Script>,
        keys: &[&str],
        arguments: &[&str],
    ) -> Result<T> {
        Ok(self.node.run::<T>(script, keys, arguments).await?.value)
    }

    fn hold(&self, name: &str, key: Option<Key>, value: &str) -> Result<SlotHold> {
        key.and_then(|key| read_hold(key, value)).ok_or_else(|| {
            let message =
                format!("{name:?} has a value that is no hold; does another program use the prefix?");
            Error::new(ErrorKind::UnsafeConfig, message).with_server(self.node.server())
        })
    }

    fn marker(&self, slot: Slot) -> String {
        marker(&self.prefix, slot)
    }
}

impl SlotStore for SetnxStore {
    async fn identity(&self) -> Result<String> {
        let name = self.prefix.beside(Slot::default(), "identity");
        let fresh = format!("{:032x}", rand::rng().random::<u128>());
        let identity: String = self.ask(&IDENTIFY, &[&name], &[&fresh]).await?;
        Ok(format!("Redis {identity}, {name}"))
    }

    async fn markers(&self) -> Result<Vec<(Slot, Marker)>> {
        let names: Vec<_> = Slot::all().map(|slot| self.marker(slot)).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let found: Vec<Option<String>> = self.ask(&READ, &names, &[]).await?;
        let read = |(slot, text): (_, Option<String>)| text.map(|text| Ok((slot, text.parse()?)));
        Slot::all().zip(found).filter_map(read).collect()
    }

    async fn marker(&self, slot: Slot) -> Result<Option<Marker>> {
        let found: Vec<Option<String>> = self.ask(&READ, &[&self.marker(slot)], &[]).await?;
        found.into_iter().flatten().next().map(|text| text.parse()).transpose()
    }

    async fn change_marker(&self, slot: Slot, from: Option<&Marker>, to: &Marker) -> Result<bool> {
        let from = from.map_or_else(String::new, Marker::to_string);
        self.ask(&CHANGE_MARKER, &[&self.marker(slot)], &[&from, &to.to_string()]).await
    }

    async fn holds(&self, slot: Slot, key: Option<&Key>) -> Result<Vec<SlotHold>> {
        if let Some(key) = key {
            let names = self.names(key);
            let found: Vec<Option<String>> = self.ask(&READ, &[names.lock()], &[]).await?;
            let held = found.into_iter().flatten().filter(|value| value.as_bytes().get(32) == Some(&b':'));
            return held.map(|value| self.hold(names.lock(), Some(key.clone()), &value)).collect();
        }
        let stem = self.prefix.slot(slot);
        let pattern = all_below(&stem);
        let (mut at, mut holds) = ("0".to_owned(), std::collections::HashMap::new());
        loop {
            let found: Vec<String> = self.ask(&HOLDS, &[&pattern], &[&at]).await?;
            let (next, found) = found.split_first().ok_or_else(|| self.not_ours("an empty answer"))?;
            for pair in found.chunks_exact(2) {
                let key = pair[0].strip_prefix(&stem).and_then(Key::from_percent_encoded);
                // Told twice, what was told last is true.
                holds.insert(pair[0].clone(), self.hold(&pair[0], key, &pair[1])?);
            }
            if next == "0" {
                return Ok(holds.into_values().collect());
            }
            at.clone_from(next);
        }
    }

    async fn put_copies(&self, slot: Slot, preparing: &Marker, copies: &[SlotHold]) -> Result<bool> {
        let (marker, preparing) = (self.marker(slot), preparing.to_string());
        for some in copies.chunks(MOST_COPIES) {
            let names: Vec<_> = some.iter().map(|copy| self.names(&copy.key)).collect();
            let values: Vec<_> = some.iter().map(hold_value).collect();
            let keys: Vec<_> = [&*marker].into_iter().chain(names.iter().map(|names| names.lock())).collect();
            let arguments: Vec<_> =
                [&*preparing].into_iter().chain(values.iter().map(String::as_str)).collect();
            if !self.ask::<bool>(&PUT_COPIES, &keys, &arguments).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn drop_copy(&self, _: Slot, copy: &SlotHold) -> Result<()> {
        let names = self.names(&copy.key);
        let keys = [names.lock(), names.queue()];
        let dropped: i64 = self.ask(&DROP_COPY, &keys, &[&hold_value(copy)]).await?;
        if dropped == HANDED_ON {
            self.reservations.watch(&names);
        }
        Ok(())
    }
}

impl MovableLease for SetnxStore {
    async fn adopt(&self, claim: &Claim, epoch: Epoch) -> Result<bool> {
        let (names, slot) = (self.names(claim.key()), Slot::of(claim.key()));
        let (marker, open) = (self.marker(slot), Marker::Open { epoch }.to_string());
        let arguments = [&*claim.owner().hex(), &self.ttl, &open];
        let adopted = self.node.run::<(u8, String)>(&ADOPT, &[names.lock(), &marker], &arguments).await?;
        let Answer { value: (outcome, found), repeated } = adopted;
        if outcome < 2 {
            return Ok(outcome == 1);
        }
        let marker = Some(found).filter(|found| !found.is_empty()).map(|found| found.parse()).transpose()?;
        let effect = if repeated { Effect::Possible } else { Effect::None };
        Err(NotOpen { slot, marker }.error(effect))
    }
}

#[cfg(test)]
mod tests {
    use lock_core::{FencingToken, backend::OwnerId};

    use super::*;

    #[test]
    fn a_hold_is_read_as_it_was_written() {
        let key = || Key::new("k").unwrap();
        let owner = OwnerId::parse("0123456789abcdef0123456789abcdef").unwrap();
        let token = Epoch::new(1023).unwrap().token(FencingToken::new((1 << 53) - 1)).unwrap();
        let label = CopyLabel { from: "a".parse().unwrap(), id: "00000000000000ff".parse().unwrap() };
        for copy in [None, Some(label)] {
            let hold = SlotHold { key: key(), owner, token, copy };
            let value = hold_value(&hold);
            assert_eq!(read_hold(key(), &value).as_ref(), Some(&hold), "{value}");
            assert_eq!(read_hold(key(), &format!("{value}+")), Some(hold), "{value}");
        }
        for bad in ["", "0123456789abcdef0123456789abcdef~", "0123456789abcdef0123456789abcdef:7", "x:7@1"] {
            assert_eq!(read_hold(key(), bad), None, "{bad}");
        }
    }
}
