//! The sessions of a locker: one, unless it waits for or holds so much that one cannot watch it all.

use std::sync::Arc;

use lock_core::{Error, ErrorKind, Result, backend::LeaseTiming};
use parking_lot::Mutex;
use tokio::runtime;

use crate::{
    ensemble::Ensemble,
    session::{Room, Session},
};

/// Sessions with one ensemble. They are opened as they are needed.
pub(crate) struct Sessions {
    ensemble: Ensemble,
    timing: LeaseTiming,
    runtime: runtime::Handle,
    open: Mutex<Vec<Arc<Session>>>,
    opening: tokio::sync::Mutex<()>,
}

impl Sessions {
    pub(crate) fn new(ensemble: Ensemble, timing: LeaseTiming) -> Result<Arc<Self>> {
        let runtime = runtime::Handle::try_current().map_err(|error| {
            Error::new(ErrorKind::Closed, "a locker must be made within a tokio runtime").with_source(error)
        })?;
        Ok(Arc::new(Self {
            ensemble,
            timing,
            runtime,
            open: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
        }))
    }

    pub(crate) fn ensemble(&self) -> &Ensemble {
        &self.ensemble
    }

    /// Finds or opens a session that is certain and can watch `bytes` more of paths.
    pub(crate) async fn room(self: &Arc<Self>, bytes: usize) -> Result<Room> {
        if let Some(room) = self.find(bytes) {
            return Ok(room);
        }
        // In a task of its own, so that it lives in the locker's runtime, and that one who gives up does not make the next
        // one start from the beginning.
        let sessions = Arc::clone(self);
        let opened = self.runtime.spawn(async move {
            let _turn = sessions.opening.lock().await;
            if let Some(room) = sessions.find(bytes) {
                return Ok(room);
            }
            let session = Session::open(&sessions.ensemble, &sessions.timing).await?;
            let room = session.room(bytes).ok_or_else(|| sessions.too_late());
            sessions.open.lock().push(session);
            room
        });
        opened.await.unwrap_or_else(|error| {
            let message = "the runtime in which the locker was made has ended; make one in this runtime";
            Err(Error::new(ErrorKind::Closed, message).with_source(error).without_effect())
        })
    }

    fn find(&self, bytes: usize) -> Option<Room> {
        let mut open = self.open.lock();
        let mut first = true;
        // One session is kept for those to come, others while they are used.
        open.retain(|session| {
            session.validity().is_valid() && (std::mem::take(&mut first) || !session.is_empty())
        });
        open.iter().find_map(|session| session.room(bytes))
    }

    fn too_late(&self) -> Error {
        let message = "the session was opened so late that it is over already; is the machine overloaded?";
        Error::new(ErrorKind::Unavailable, message).with_server(self.ensemble.servers()).without_effect()
    }
}
