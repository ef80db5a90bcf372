//! A session, which outlives the connections that carry it.

use std::{
    fmt,
    future::{Future, pending, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use lock_core::{
    LossReason, Result,
    backend::{BootInstant, BoxFuture, LeaseTiming, Renewal, Validity, runtime_ended},
};
use tokio::{
    sync::{Mutex, watch},
    task::JoinSet,
};

use crate::{connection::Connection, ensemble::Ensemble, failure};

/// A session, from its opening until it is over. Dropping it leaves it to its timeout.
pub struct Session {
    ensemble: Arc<Ensemble>,
    granted: Duration,
    /// Until when the servers keep it, by the last vote.
    validity: Arc<Validity>,
    carrier: watch::Receiver<Carrier>,
    /// The task that drives connections. It ends with this value.
    task: Mutex<JoinSet<()>>,
}

/// What carries a session now.
#[derive(Clone)]
enum Carrier {
    Connection(Arc<Connection>),
    /// Another connection is being opened.
    Awaited,
    /// Nothing, ever again. What is left is good for a last word.
    None(Option<Arc<Connection>>),
}

impl Session {
    /// Opens a session, and drives it in a task of the present runtime.
    pub(crate) async fn open(ensemble: &Arc<Ensemble>) -> Result<Self> {
        let sent = BootInstant::now();
        let connection = Arc::new(ensemble.open().await?);
        let granted = connection.granted();
        let validity = Arc::new(Validity::until(sent.after(LeaseTiming::relayed(granted))));
        let (sender, carrier) = watch::channel(Carrier::Connection(Arc::clone(&connection)));
        let mut task = JoinSet::new();
        task.spawn(carry(Arc::clone(ensemble), connection, Arc::clone(&validity), sender));
        Ok(Self { ensemble: Arc::clone(ensemble), granted, validity, carrier, task: Mutex::new(task) })
    }

    /// Returns for how long it is certain after each vote.
    pub(crate) fn certain(&self) -> Duration {
        LeaseTiming::relayed(self.granted)
    }

    /// Returns whether the servers certainly keep it.
    #[cfg(feature = "movable")]
    pub(crate) fn is_certain(&self) -> bool {
        self.validity.is_valid()
    }

    /// Returns the connection that carries it, when there is one.
    pub(crate) async fn connection(&self) -> Result<Arc<Connection>> {
        let mut carrier = self.carrier.clone();
        let carried = carrier.wait_for(|carrier| !matches!(carrier, Carrier::Awaited)).await;
        let carried = carried.map(|carrier| carrier.clone());
        match carried {
            Ok(Carrier::None(_)) => Err(failure::session_over(self.ensemble.addresses())),
            // With the runtime went the task, which would otherwise have said that it ends.
            Ok(Carrier::Connection(connection)) if self.carrier.has_changed().is_ok() => Ok(connection),
            _ => Err(runtime_ended()),
        }
    }

    /// Asks for a vote.
    ///
    /// A connection over which none is held is given up, though the server answers the client library: it may have lost
    /// its leader.
    pub(crate) async fn keep_alive(&self) -> Result<Renewal> {
        let connection = match self.connection().await {
            Err(_) if matches!(&*self.carrier.borrow(), Carrier::None(_)) => return Ok(Renewal::NotOwner),
            connection => connection?,
        };
        let sent = BootInstant::now();
        let patience = self.ensemble.patience(self.granted);
        if connection.unanswered().is_some_and(|since| sent.since(since) > patience) {
            connection.give_up();
        }
        let voted = connection.vote().await;
        voted.map_err(|error| failure::of_request(error, self.ensemble.addresses()))?;
        self.validity.extend(sent.after(self.certain()));
        Ok(Renewal::Extended(self.certain()))
    }

    /// Returns a future that resolves when the session is known to be over.
    pub(crate) fn over(&self) -> BoxFuture<'static, ()> {
        let mut carrier = self.carrier.clone();
        Box::pin(async move {
            if carrier.wait_for(|carrier| matches!(carrier, Carrier::None(_))).await.is_err() {
                pending().await
            }
        })
    }

    /// Ends the session at the servers, if there is a connection.
    pub(crate) async fn close(&self) {
        // Two must not drive a connection at once.
        self.task.lock().await.shutdown().await;
        let carrier = self.carrier.borrow().clone();
        if let Carrier::Connection(connection) | Carrier::None(Some(connection)) = carrier {
            connection.close().await;
        }
    }
}

/// Drives a session over one connection after another, until it is over.
///
/// One that nobody believes in any more is driven no more: it gets no sign of life, and the servers end it.
async fn carry(
    ensemble: Arc<Ensemble>,
    mut connection: Arc<Connection>,
    validity: Arc<Validity>,
    carrier: watch::Sender<Carrier>,
) {
    let granted = connection.granted();
    let left = loop {
        while_valid(&validity, connection.drive()).await;
        if !validity.is_valid() {
            break Some(connection);
        }
        tracing::debug!(?connection, "a connection is broken, and its session is moved");
        carrier.send_replace(Carrier::Awaited);
        let moved = while_valid(&validity, ensemble.move_session(connection.session(), granted)).await;
        let Some(moved) = moved.flatten() else { break None };
        connection = Arc::new(moved);
        carrier.send_replace(Carrier::Connection(Arc::clone(&connection)));
    };
    validity.end(LossReason::SessionEnded);
    carrier.send_replace(Carrier::None(left));
}

/// Polls `work` as long as `validity` lasts. The clock is looked at before each poll: after a stop of the process,
/// timers may come late.
async fn while_valid<T>(validity: &Validity, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    let work = poll_fn(|context| match validity.is_valid() {
        true => work.as_mut().poll(context).map(Some),
        false => Poll::Ready(None),
    });
    tokio::select! {
        biased;
        () = validity.ended() => None,
        done = work => done,
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("granted", &self.granted).finish_non_exhaustive()
    }
}
