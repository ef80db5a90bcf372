//! Slots on etcd: a marker as a key, and copies of holds as keys without a lease.

use etcd_client::{Compare, CompareOp, GetOptions, KeyValue, PutOptions, SortOrder, SortTarget, Txn, TxnOp};
use futures_util::{StreamExt, stream};
use lock_core::{
    Error, ErrorKind, FencingToken, Key, Locker, Options, Result,
    backend::{Claim, OwnerId, Queued},
    movable::{CopyLabel, Epoch, Marker, MovableQueue, NotOpen, Slot, SlotHold, SlotStore},
};

use crate::{
    EtcdLocker, EtcdStore,
    gate::Slots,
    names::{self, queue_of},
    requests,
    store::{Entry, Session, token},
    target::Target,
};

/// A transaction may have 128 operations.
const MOST_COPIES: usize = 100;

/// How many transactions with copies are under way at once.
const COPYING_AT_ONCE: usize = 4;

impl EtcdLocker {
    /// Connects as [`connect`](Self::connect) does, to one cluster of a lock space that is spread over several: keys
    /// are granted only while the marker of their slot says so. Users connect through `lock-sharded`.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    ///
    /// # Cancel safety
    ///
    /// As [`connect`](Self::connect).
    pub async fn connect_movable<T>(target: T, options: Options) -> Result<Self>
    where
        T: TryInto<Target>,
        Error: From<T::Error>,
    {
        let mut store = EtcdStore::new(target.try_into()?, &options)?;
        store.prefix = store.prefix.by_slot();
        store.slots = Slots::movable();
        store.check_endpoints().await?;
        Ok(Self(Locker::new(Queued::connect(store, &options).await?)))
    }
}

/// What an entry says of itself: nothing, `epoch:<epoch of its token>`, `token:<its token>`, or
/// `copy:<from>:<move>:<its token>`.
struct Label {
    token: FencingToken,
    copy: Option<CopyLabel>,
}

impl Label {
    fn of(entry: &KeyValue) -> Result<Self> {
        let text = requests::value(entry);
        let read = || {
            let number = |text: &str| text.parse().ok().map(FencingToken::new);
            if let Some(epoch) = text.strip_prefix("epoch:") {
                let token = Epoch::new(epoch.parse().ok()?)?.token(token(entry.create_revision())).ok()?;
                return Some(Self { token, copy: None });
            }
            if let Some(token) = text.strip_prefix("token:") {
                return Some(Self { token: number(token)?, copy: None });
            }
            let (label, token) = text.rsplit_once(':')?;
            Some(Self { token: number(token)?, copy: Some(CopyLabel::parse(label)?) })
        };
        read().ok_or_else(|| {
            let message = format!(
                "an entry of a queue has the unknown value {text:?}; does another program use the prefix?"
            );
            Error::new(ErrorKind::UnsafeConfig, message)
        })
    }
}

fn copy_value(hold: &SlotHold) -> Option<String> {
    hold.copy.as_ref().map(|label| format!("{label}:{}", hold.token))
}

fn is_marked(name: &str, marker: Option<&Marker>) -> Compare {
    match marker {
        None => Compare::version(name, CompareOp::Equal, 0),
        Some(marker) => Compare::value(name, CompareOp::Equal, marker.to_string()),
    }
}

impl EtcdStore {
    async fn get(&self, name: &str, options: GetOptions) -> Result<Vec<KeyValue>> {
        let reply = self.servers.ask(|server| {
            let options = options.clone();
            async move { server.kv.clone().get(name, Some(options)).await }
        });
        Ok(reply.await.into_result()?.take_kvs())
    }

    fn read_hold(&self, slot: Slot, entry: &KeyValue) -> Result<SlotHold> {
        let name = requests::text(entry);
        let Label { token, copy } = Label::of(entry)?;
        let read = || {
            let (key, owner) = name.strip_prefix(&self.prefix.slot(slot))?.rsplit_once(':')?;
            let (key, owner) = (Key::from_percent_encoded(key)?, OwnerId::parse(owner)?);
            Some(SlotHold { key, owner, token, copy })
        };
        read().ok_or_else(|| {
            let message =
                format!("{name:?} is not the name of an entry; does another program use the prefix?");
            Error::new(ErrorKind::UnsafeConfig, message)
        })
    }

    fn put_some(&self, marker: &str, preparing: &Marker, copies: &[SlotHold]) -> Txn {
        let put = |copy: &SlotHold| {
            let value = copy_value(copy).expect("a copy has a label");
            TxnOp::put(names::entry(&self.prefix.queue(&copy.key), copy.owner), value, None)
        };
        let puts: Vec<_> = copies.iter().map(put).collect();
        Txn::new().when([is_marked(marker, Some(preparing))]).and_then(puts)
    }
}

impl SlotStore for EtcdStore {
    async fn identity(&self) -> Result<String> {
        let look = Txn::new().and_then([TxnOp::get(self.prefix.markers(), None)]);
        let answer = self.ask(|| look.clone()).await.into_result()?;
        let cluster = answer.header().map(etcd_client::ResponseHeader::cluster_id);
        let cluster = cluster
            .ok_or_else(|| Error::new(ErrorKind::Unexpected, "etcd did not say which cluster it is"))?;
        Ok(format!("etcd cluster {cluster:x}, prefix {}", self.prefix.markers()))
    }

    async fn markers(&self) -> Result<Vec<(Slot, Marker)>> {
        let names = self.prefix.markers();
        let found = self.get(&names, GetOptions::new().with_prefix()).await?;
        let read = |entry: &KeyValue| {
            let number = usize::from_str_radix(&requests::text(entry)[names.len()..], 16).ok();
            number.and_then(Slot::new).map(|slot| Ok((slot, requests::value(entry).parse()?)))
        };
        found.iter().filter_map(read).collect()
    }

    async fn marker(&self, slot: Slot) -> Result<Option<Marker>> {
        let found = self.get(&self.prefix.marker(slot), GetOptions::new()).await?;
        found.first().map(|entry| requests::value(entry).parse()).transpose()
    }

    async fn change_marker(&self, slot: Slot, from: Option<&Marker>, to: &Marker) -> Result<bool> {
        let name = self.prefix.marker(slot);
        let change = Txn::new().when([is_marked(&name, from)]).and_then([TxnOp::put(
            name.as_str(),
            to.to_string(),
            None,
        )]);
        Ok(self.ask(|| change.clone()).await.into_result()?.succeeded())
    }

    async fn holds(&self, slot: Slot, key: Option<&Key>) -> Result<Vec<SlotHold>> {
        let names = key.map_or_else(|| self.prefix.slot(slot), |key| self.prefix.queue(key));
        let eldest_first = GetOptions::new().with_prefix().with_sort(SortTarget::Create, SortOrder::Ascend);
        let found = self.get(&names, eldest_first).await?;
        let mut queues = std::collections::HashSet::new();
        let mut holds = Vec::new();
        for entry in &found {
            let is_first = queues.insert(queue_of(&requests::text(entry)).to_owned());
            let hold = self.read_hold(slot, entry)?;
            if is_first || hold.copy.is_some() {
                holds.push(hold);
            }
        }
        Ok(holds)
    }

    async fn put_copies(&self, slot: Slot, preparing: &Marker, copies: &[SlotHold]) -> Result<bool> {
        let marker = self.prefix.marker(slot);
        let some = copies.chunks(MOST_COPIES).map(|some| self.put_some(&marker, preparing, some));
        let putting: Vec<_> = some.map(|puts| self.ask(move || puts.clone())).collect();
        let mut answers = stream::iter(putting).buffer_unordered(COPYING_AT_ONCE);
        let mut all = true;
        while let Some(answer) = answers.next().await {
            all &= answer.into_result()?.succeeded();
        }
        Ok(all)
    }

    async fn drop_copy(&self, _: Slot, copy: &SlotHold) -> Result<()> {
        let name = names::entry(&self.prefix.queue(&copy.key), copy.owner);
        let Some(value) = copy_value(copy) else { return Ok(()) };
        let drop = Txn::new()
            .when([Compare::value(name.as_str(), CompareOp::Equal, value)])
            .and_then([TxnOp::delete(name, None)]);
        self.ask(|| drop.clone()).await.into_result().map(|_| ())
    }
}

impl MovableQueue for EtcdStore {
    async fn adopt(
        &self,
        session: &Session,
        claim: &Claim,
        epoch: Epoch,
        token: FencingToken,
    ) -> Result<Option<Entry>> {
        let name = names::entry(&self.prefix.queue(claim.key()), claim.owner());
        let slot = Slot::of(claim.key());
        let marker = self.prefix.marker(slot);
        // The lease that the entry must have, so that no late copy of this takes it back to an older session.
        let mut from_lease = 0;
        loop {
            let put = PutOptions::new().with_lease(session.lease);
            let adopt = Txn::new()
                .when([
                    is_marked(&marker, Some(&Marker::Open { epoch })),
                    Compare::version(name.as_str(), CompareOp::Greater, 0),
                    Compare::lease(name.as_str(), CompareOp::Equal, from_lease),
                ])
                .and_then([
                    TxnOp::put(name.as_str(), format!("token:{token}"), Some(put)),
                    TxnOp::get(name.as_str(), Some(GetOptions::new().with_keys_only())),
                ])
                .or_else([
                    TxnOp::get(name.as_str(), Some(GetOptions::new().with_keys_only())),
                    TxnOp::get(marker.as_str(), None),
                ]);
            let reply = self.ask(|| adopt.clone()).await;
            let effect = reply.effect;
            let answer = reply.into_result()?;
            let found: Vec<_> = requests::gets(&answer)
                .into_iter()
                .map(|mut get| get.take_kvs().into_iter().next())
                .collect();
            let adopted = |created| Entry::adopted(name.clone(), created);
            match found.as_slice() {
                [Some(entry)] => return Ok(Some(adopted(entry.create_revision()))),
                [Some(entry), _] if entry.lease() == session.lease => {
                    return Ok(Some(adopted(entry.create_revision())));
                }
                [entry, found] => {
                    let found = found.as_ref().map(|found| requests::value(found).parse()).transpose()?;
                    if found != Some(Marker::Open { epoch }) {
                        return Err(NotOpen { slot, marker: found }.error(effect));
                    }
                    let Some(entry) = entry else { return Ok(None) };
                    from_lease = entry.lease();
                }
                _ => return Err(Error::new(ErrorKind::Unexpected, "etcd answered less than it was asked")),
            }
        }
    }
}
