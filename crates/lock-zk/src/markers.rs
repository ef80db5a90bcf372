//! The markers of slots on one ensemble, each the name of a node, and what is known of them.

use std::sync::Arc;

use lock_core::{
    Error, ErrorKind, Result,
    backend::Effect,
    movable::{Epoch, Marker, NotOpen, OpenEpochs, Slot},
};
use tokio::sync::Mutex;
use zookeeper_client::{Client, Error as ZkError};

use crate::{connection::Connection, ensemble::Ensemble, failure, names::Prefix, session::Session};

/// Words of markers are parted by spaces, those in names of nodes by this.
const BETWEEN_WORDS: &str = ":";

pub(crate) struct Markers {
    ensemble: Arc<Ensemble>,
    prefix: Prefix,
    seen: OpenEpochs,
    /// In which a mover's questions are asked. It keeps itself alive for as long as there are some.
    session: Mutex<Option<Arc<Session>>>,
}

impl Markers {
    pub(crate) fn new(ensemble: Arc<Ensemble>, prefix: Prefix) -> Self {
        Self { ensemble, prefix, seen: OpenEpochs::default(), session: Mutex::default() }
    }

    /// The node that is there as long as `slot` has this marker: `<prefix>/.markers/<slot>:<word>:<word>…`.
    pub(crate) fn path(&self, slot: Slot, marker: &Marker) -> String {
        let words = marker.to_string().replace(' ', BETWEEN_WORDS);
        format!("{}/{:02x}{BETWEEN_WORDS}{words}", self.prefix.markers(), slot.index())
    }

    /// Returns a connection at which all is seen that was agreed on before the call.
    pub(crate) async fn asked(&self) -> Result<(Arc<Connection>, Arc<Client>)> {
        let session = self.session().await?;
        session.keep_alive().await?;
        let connection = session.connection().await?;
        let client = connection.client().map_err(|error| self.failed(error))?;
        Ok((connection, client))
    }

    async fn session(&self) -> Result<Arc<Session>> {
        let mut kept = self.session.lock().await;
        match &*kept {
            Some(session) if session.is_certain() => Ok(Arc::clone(session)),
            _ => {
                let opened = Arc::new(Session::open(&self.ensemble).await?);
                *kept = Some(Arc::clone(&opened));
                Ok(opened)
            }
        }
    }

    /// Reads the markers as the server of a connection has them.
    pub(crate) async fn read(&self, connection: &Connection) -> Result<Vec<(Slot, Marker)>> {
        let client = connection.client().map_err(|error| self.failed(error))?;
        let names = self.list(connection, &client, &self.prefix.markers()).await?;
        let read = |name: &String| {
            let (slot, words) = name.split_once(BETWEEN_WORDS)?;
            let slot = usize::from_str_radix(slot, 16).ok().and_then(Slot::new)?;
            Some(words.replace(BETWEEN_WORDS, " ").parse().map(|marker| (slot, marker)))
        };
        names.iter().map(|name| read(name).unwrap_or_else(|| Err(foreign(name)))).collect()
    }

    /// Returns the names of nodes; none if there is nothing below which they could be.
    pub(crate) async fn list(
        &self,
        connection: &Connection,
        client: &Client,
        path: &str,
    ) -> Result<Vec<String>> {
        match connection.answer(client.list_children(path)).await {
            Err(ZkError::NoNode) => Ok(Vec::new()),
            names => names.map_err(|error| self.failed(error)),
        }
    }

    /// Returns the epoch in which a slot was certainly seen open.
    pub(crate) async fn seen_open(&self, connection: &Connection, slot: Slot) -> Result<Epoch> {
        if self.seen.seen(slot).is_none() {
            for (slot, marker) in self.read(connection).await.map_err(Error::without_effect)? {
                self.seen.learn(slot, Epoch::default(), Some(&marker));
            }
        }
        match self.seen.seen(slot) {
            Some(epoch) => Ok(epoch),
            None => Err(self.refusal(connection, slot, Effect::None).await),
        }
    }

    /// Nothing is known of the slot any more.
    pub(crate) fn forget(&self, slot: Slot) {
        self.seen.forget(slot);
    }

    /// The error of who wants a key of a slot that is not open here.
    pub(crate) async fn refusal(&self, connection: &Connection, slot: Slot, effect: Effect) -> Error {
        match self.read(connection).await {
            Ok(markers) => {
                let marker = markers.into_iter().find(|(of, _)| *of == slot).map(|(_, marker)| marker);
                NotOpen { slot, marker }.error(effect)
            }
            Err(error) if effect == Effect::None => error.without_effect(),
            Err(error) => error,
        }
    }

    fn failed(&self, error: ZkError) -> Error {
        failure::of_request(error, self.ensemble.addresses())
    }
}

/// The error of who finds a node that is none of ours.
pub(crate) fn foreign(what: &str) -> Error {
    let message = format!("{what:?} is no node of a lock; does another program use the prefix?");
    Error::new(ErrorKind::UnsafeConfig, message)
}
