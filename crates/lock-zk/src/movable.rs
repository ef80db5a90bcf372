//! Slots on ZooKeeper: a marker as the name of a node, and copies of holds as nodes that no session owns.

use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use lock_core::{
    Error, FencingToken, Key, Locker, Options, Result,
    backend::{Claim, Effect, Queued},
    movable::{Epoch, Marker, MovableQueue, Slot, SlotHold, SlotStore},
};
use zookeeper_client::{Client, CreateMode, Error as ZkError};

use crate::{
    Target, ZkLocker, ZkStore,
    connection::{ANY_VERSION, Connection},
    gate::{Gate, Slots},
    markers::foreign,
    names::{self, EntryName},
    session::Session,
    store::QueueEntry,
};

/// So many copies are put there as one change.
const MOST_COPIES: usize = 50;

/// How many requests of a census or of copying are under way at once.
const AT_ONCE: usize = 128;

impl ZkLocker {
    /// Connects as [`connect`](Self::connect) does, to one ensemble of a lock space that is spread over several: keys
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
        let mut store = ZkStore::new(target.try_into()?, &options)?;
        store.prefix = store.prefix.by_slot();
        store.slots = Slots::movable(Arc::clone(&store.ensemble), store.prefix.clone());
        let queued = Queued::connect(store, &options).await?;
        queued.store().check_servers().await?;
        Ok(Self(Locker::new(queued)))
    }
}

impl ZkStore {
    /// Returns the transaction that sealed a slot, if it is sealed.
    async fn sealed_by(&self, connection: &Connection, client: &Client, slot: Slot) -> Result<Option<i64>> {
        let markers = self.slots.markers();
        let is_seal = |(of, marker): &(Slot, Marker)| *of == slot && matches!(marker, Marker::Sealed { .. });
        let Some((_, seal)) = markers.read(connection).await?.into_iter().find(is_seal) else {
            return Ok(None);
        };
        let node = connection.answer(client.check_stat(&markers.path(slot, &seal))).await;
        Ok(node.map_err(|error| self.failed(error))?.map(|node| node.czxid))
    }

    /// Returns what may be holds in one queue. An entry that was made after the slot was `sealed` finds it so, and is
    /// none.
    async fn holds_in(
        &self,
        connection: &Connection,
        client: &Client,
        queue: &str,
        sealed: Option<i64>,
    ) -> Result<Vec<SlotHold>> {
        let name = queue.rsplit('/').next().unwrap_or_default();
        let key = Key::from_percent_encoded(name).ok_or_else(|| foreign(queue))?;
        loop {
            let mut entries = Vec::new();
            for child in self.slots.markers().list(connection, client, queue).await? {
                entries.extend(EntryName::parse(&child)?);
            }
            let (numbered, others): (Vec<_>, Vec<_>) =
                entries.into_iter().partition(EntryName::keeps_its_name);
            let hold = |other: &EntryName| {
                let names::Told { owner, token, copy } =
                    other.told().ok_or_else(|| foreign(other.as_str()))?;
                Ok(SlotHold { key: key.clone(), owner, token, copy })
            };
            let first =
                numbered.into_iter().reduce(|one, other| if one.lead_over(&other) > 0 { one } else { other });
            let Some(first) = first.filter(|_| others.is_empty()) else {
                return others.iter().map(hold).collect();
            };
            let path = format!("{queue}/{}", first.as_str());
            match connection.answer(client.get_data(&path)).await {
                Ok((_, node)) if sealed.is_some_and(|sealed| node.czxid > sealed) => return Ok(Vec::new()),
                Ok((data, node)) => {
                    let read = || {
                        let epoch = std::str::from_utf8(&data).ok()?.strip_prefix("epoch:")?.parse().ok()?;
                        let number = FencingToken::new(u64::try_from(node.czxid).ok()?);
                        Some((first.owner()?, Epoch::new(epoch)?.token(number).ok()?))
                    };
                    let (owner, token) = read().ok_or_else(|| foreign(&path))?;
                    return Ok(vec![SlotHold { key, owner, token, copy: None }]);
                }
                Err(ZkError::NoNode) => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    /// Puts copies there as one change; `None` if one of them is there already, or its queue is not.
    async fn put_some(
        &self,
        connection: &Connection,
        preparing: &str,
        copies: &[(String, String)],
    ) -> Result<Option<bool>> {
        let persistent = CreateMode::Persistent.with_acls(self.ensemble.acls());
        let put = connection.multi(|changes| {
            changes.add_check_version(preparing, ANY_VERSION)?;
            copies.iter().try_for_each(|(queue, name)| {
                changes.add_create(&format!("{queue}/{name}"), &[], &persistent)
            })
        });
        match put.await.map_err(|error| self.failed(error))? {
            None => Ok(Some(true)),
            Some((0, ZkError::NoNode)) => Ok(Some(false)),
            Some((_, ZkError::NodeExists | ZkError::NoNode)) => Ok(None),
            Some((_, error)) => Err(self.failed(error)),
        }
    }

    /// Puts a copy there, if it is not there; returns `false` if the slot does not prepare.
    async fn put_one(
        &self,
        connection: &Connection,
        preparing: &str,
        copy: &(String, String),
    ) -> Result<bool> {
        let client = connection.client().map_err(|error| self.failed(error))?;
        let path = format!("{}/{}", copy.0, copy.1);
        loop {
            if let Some(put) = self.put_some(connection, preparing, std::slice::from_ref(copy)).await? {
                return Ok(put);
            }
            if connection
                .answer(client.check_stat(&path))
                .await
                .map_err(|error| self.failed(error))?
                .is_some()
            {
                return Ok(true);
            }
            // An empty queue is removed by the servers at any time.
            if !self.make_queue(connection, &client, &copy.0).await? {
                return Ok(false);
            }
        }
    }
}

impl SlotStore for ZkStore {
    async fn identity(&self) -> Result<String> {
        let (connection, client) = self.slots.markers().asked().await?;
        let path = self.prefix.identity();
        loop {
            match connection.answer(client.get_data(&path)).await {
                Ok((id, _)) => {
                    let id = String::from_utf8_lossy(&id).into_owned();
                    return Ok(format!("ZooKeeper ensemble {id}, prefix {}", self.prefix.slots()));
                }
                Err(ZkError::NoNode) => {}
                Err(error) => return Err(self.failed(error)),
            }
            let persistent = CreateMode::Persistent.with_acls(self.ensemble.acls());
            let id = format!("{:032x}", rand::random::<u128>());
            match connection.answer(client.create(&path, id.as_bytes(), &persistent)).await {
                Ok(_) | Err(ZkError::NodeExists) => {}
                Err(ZkError::NoNode) => self.make_directories(&connection, &client).await?,
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    async fn markers(&self) -> Result<Vec<(Slot, Marker)>> {
        let (connection, _) = self.slots.markers().asked().await?;
        self.slots.markers().read(&connection).await
    }

    async fn marker(&self, slot: Slot) -> Result<Option<Marker>> {
        let markers = self.markers().await?;
        Ok(markers.into_iter().find(|(of, _)| *of == slot).map(|(_, marker)| marker))
    }

    async fn change_marker(&self, slot: Slot, from: Option<&Marker>, to: &Marker) -> Result<bool> {
        let (connection, client) = self.slots.markers().asked().await?;
        let persistent = CreateMode::Persistent.with_acls(self.ensemble.acls());
        loop {
            let changed = connection.multi(|changes| {
                match from {
                    Some(from) => changes.add_delete(&self.slots.markers().path(slot, from), None)?,
                    // It is made with the first marker and never deleted.
                    None => changes.add_create(&self.prefix.slot(slot), &[], &persistent)?,
                }
                changes.add_create(&self.slots.markers().path(slot, to), &[], &persistent)
            });
            match changed.await.map_err(|error| self.failed(error))? {
                None => return Ok(true),
                Some((_, ZkError::NoNode)) if from.is_none() => {
                    self.make_directories(&connection, &client).await?
                }
                Some((_, ZkError::NoNode | ZkError::NodeExists)) => return Ok(false),
                Some((_, error)) => return Err(self.failed(error)),
            }
        }
    }

    async fn holds(&self, slot: Slot, key: Option<&Key>) -> Result<Vec<SlotHold>> {
        let (connection, client) = self.slots.markers().asked().await?;
        let sealed = self.sealed_by(&connection, &client, slot).await?;
        if let Some(key) = key {
            return self.holds_in(&connection, &client, &self.prefix.queue(key), sealed).await;
        }
        let slot = self.prefix.slot(slot);
        let queues = self.slots.markers().list(&connection, &client, &slot).await?;
        let (connection, client, slot) = (&connection, &client, &slot);
        let holds = stream::iter(queues)
            .map(|queue| async move {
                self.holds_in(connection, client, &format!("{slot}/{queue}"), sealed).await
            })
            .buffer_unordered(AT_ONCE);
        holds.try_concat().await
    }

    async fn put_copies(&self, slot: Slot, preparing: &Marker, copies: &[SlotHold]) -> Result<bool> {
        let (connection, client) = self.slots.markers().asked().await?;
        let preparing = self.slots.markers().path(slot, preparing);
        if self.put_some(&connection, &preparing, &[]).await? != Some(true) {
            return Ok(false);
        }
        let named = |copy: &SlotHold| Some((self.prefix.queue(&copy.key), names::copy(copy)?));
        let copies: Vec<_> = copies.iter().filter_map(named).collect();
        let (connection, client, preparing) = (&connection, &client, &preparing);
        let queues: Vec<_> = copies.iter().map(|(queue, _)| queue.clone()).collect();
        let mut made = stream::iter(queues)
            .map(|queue| async move { self.make_queue(connection, client, &queue).await })
            .buffer_unordered(AT_ONCE);
        while let Some(made) = made.try_next().await? {
            if !made {
                return Ok(false);
            }
        }
        let mut all = true;
        for some in copies.chunks(MOST_COPIES) {
            if let Some(put) = self.put_some(connection, preparing, some).await? {
                all &= put;
                continue;
            }
            for copy in some {
                all &= self.put_one(connection, preparing, copy).await?;
            }
        }
        Ok(all)
    }

    async fn drop_copy(&self, _: Slot, copy: &SlotHold) -> Result<()> {
        let Some(name) = names::copy(copy) else { return Ok(()) };
        let (connection, client) = self.slots.markers().asked().await?;
        let path = format!("{}/{name}", self.prefix.queue(&copy.key));
        match connection.answer(client.delete(&path, None)).await {
            Ok(()) | Err(ZkError::NoNode) => Ok(()),
            Err(error) => Err(self.failed(error)),
        }
    }
}

impl ZkStore {
    /// Makes the nodes under which all others are.
    async fn make_directories(&self, connection: &Connection, client: &Client) -> Result<()> {
        let persistent = CreateMode::Persistent.with_acls(self.ensemble.acls());
        for directory in [self.prefix.slots(), self.prefix.markers()] {
            self.make(connection, client, &directory, &persistent).await?;
        }
        Ok(())
    }
}

impl MovableQueue for ZkStore {
    async fn adopt(
        &self,
        session: &Session,
        claim: &Claim,
        epoch: Epoch,
        token: FencingToken,
    ) -> Result<Option<QueueEntry>> {
        let (slot, owner) = (Slot::of(claim.key()), claim.owner());
        let (queue, open) =
            (self.prefix.queue(claim.key()), self.slots.markers().path(slot, &Marker::Open { epoch }));
        let connection = session.connection().await?;
        let client = connection.client().map_err(|error| self.failed(error))?;
        let ephemeral = CreateMode::Ephemeral.with_acls(self.ensemble.acls());
        // Its name has the session, so that no late copy of this takes it back to an older one.
        let name = EntryName::held(owner, connection.session().id().0, token);
        let entry = QueueEntry::new(queue, name, Gate::open());
        loop {
            connection.vote().await.map_err(|error| self.failed(error))?;
            let nodes = self.slots.markers().list(&connection, &client, &entry.queue).await?;
            let Some(found) = nodes.iter().find(|node| names::is_from_elsewhere(node, owner)) else {
                let is_open = connection.answer(client.check_stat(&open)).await;
                return match is_open.map_err(|error| self.failed(error))? {
                    Some(_) => Ok(None),
                    None => Err(self.slots.markers().refusal(&connection, slot, Effect::None).await),
                };
            };
            if found == entry.name.as_str() {
                return Ok(Some(entry));
            }
            let adopted = connection.multi(|changes| {
                changes.add_check_version(&open, ANY_VERSION)?;
                changes.add_delete(&format!("{}/{found}", entry.queue), None)?;
                changes.add_create(&entry.path(), &[], &ephemeral)
            });
            match adopted.await.map_err(|error| self.failed(error))? {
                None => return Ok(Some(entry)),
                Some((0, ZkError::NoNode)) => {
                    return Err(self.slots.markers().refusal(&connection, slot, Effect::None).await);
                }
                // It was freed, or taken over into another session.
                Some((1, ZkError::NoNode)) => {}
                Some((_, error)) => return Err(self.failed(error)),
            }
        }
    }
}
