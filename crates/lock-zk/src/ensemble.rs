//! The servers of an ensemble: how sessions with them are opened, and moved from one to another.

use std::time::Duration;

use futures_util::{StreamExt, stream::FuturesUnordered};
use lock_core::{Error, ErrorKind, Result, backend::LeaseTiming};
use rand::seq::SliceRandom;
use tokio::{sync::oneshot, time};
use zookeeper_client::{Acl, Acls, Client, Connector, Error as ZkError, SessionInfo};

use crate::{Target, acl, connection::Connection, failure};

/// An ensemble, and everything that a session with it needs.
pub(crate) struct Ensemble {
    target: Target,
    acl: Option<Vec<Acl>>,
    timing: LeaseTiming,
}

/// In how many parts of the session timeout a server may be silent before another is asked: so many that even if the
/// next is silent too, the third is reached before holders have to give up.
const PATIENCE: u32 = 5;

/// How many parts of the request timeout one server has for itself before the next is asked as well.
const HEAD_START: u32 = 8;

/// The pause between two tries to reach a server.
const RETRY_DELAY: Duration = Duration::from_millis(50);

impl Ensemble {
    pub(crate) fn new(target: Target, timing: LeaseTiming) -> Result<Self> {
        #[cfg(feature = "tls")]
        if target.tls.is_some() {
            crate::tls::choose_cryptography();
        }
        Ok(Self { acl: target.acl.as_deref().map(acl::parse).transpose()?, target, timing })
    }

    pub(crate) fn timing(&self) -> &LeaseTiming {
        &self.timing
    }

    /// Returns the servers' addresses, as they were given.
    pub(crate) fn addresses(&self) -> &str {
        &self.target.addresses
    }

    /// Returns who may use the nodes that are made.
    pub(crate) fn acls(&self) -> Acls<'_> {
        match &self.acl {
            Some(acl) => Acls::new(acl),
            None if !self.target.auth.is_empty() => Acls::creator_all(),
            None => Acls::anyone_all(),
        }
    }

    /// Returns how long a server may be silent before the connection is given up, of a session of this timeout.
    pub(crate) fn patience(&self, granted: Duration) -> Duration {
        let timing = self.timing.shortened_to(LeaseTiming::relayed(granted));
        timing.request_timeout().max(granted / PATIENCE)
    }

    fn connector(&self, asked: Duration) -> Connector {
        let mut connector = Client::connector()
            .with_session_timeout(asked)
            .with_connection_timeout(self.patience(asked))
            .with_fail_eagerly();
        for (scheme, credentials) in &self.target.auth {
            connector = connector.with_auth(scheme, credentials);
        }
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.target.tls {
            connector = connector.with_tls(tls.0.clone());
        }
        connector
    }

    /// Opens a session in which nothing is yet. It is closed if nobody waits for it any more when it is open.
    async fn open_at(&self, server: &str, asked: Duration) -> Result<Connection, ZkError> {
        let (sender, opened) = oneshot::channel();
        let connecting = Connection::open(self.connector(asked), server.to_owned(), self.target.speaks_tls());
        tokio::spawn(async move {
            if let Err(Ok(unwanted)) = sender.send(connecting.await) {
                unwanted.close().await;
            }
        });
        opened.await.unwrap_or(Err(ZkError::ClientClosed))
    }

    /// Connects a session that stands to another server.
    async fn reopen_at(
        &self,
        server: &str,
        session: &SessionInfo,
        granted: Duration,
    ) -> Result<Connection, ZkError> {
        let connector = self.connector(granted).with_session(session.clone());
        Connection::open(connector, server.to_owned(), self.target.speaks_tls()).await
    }

    /// Returns the servers in an order of its own each time, with a pause before each but the first.
    fn servers(&self) -> impl Iterator<Item = (Duration, &str)> {
        let mut servers: Vec<_> = self.target.servers.iter().map(String::as_str).collect();
        servers.shuffle(&mut rand::rng());
        let head_start = self.timing.request_timeout() / HEAD_START;
        (0..).map(move |number| head_start * number).zip(servers)
    }

    /// Opens a session, within the request timeout.
    pub(crate) async fn open(&self) -> Result<Connection> {
        let limit = self.timing.request_timeout();
        let opened = time::timeout(limit, self.open_anywhere()).await;
        let opened = opened.unwrap_or_else(|_| Err(failure::silence(limit)));
        opened.map_err(|error| error.with_server(self.addresses()).without_effect())
    }

    async fn open_anywhere(&self) -> Result<Connection> {
        let asked = self.timing.ttl();
        let mut tries: FuturesUnordered<_> = self
            .servers()
            .map(async |(pause, server)| {
                time::sleep(pause).await;
                (server, self.open_at(server, asked).await)
            })
            .collect();
        let mut failure = ZkError::NoHosts;
        while let Some((server, opened)) = tries.next().await {
            match opened {
                Ok(opened) if opened.granted() < asked => {
                    // The client was made to be as patient as a longer session allows.
                    let (session, granted) = (opened.session(), opened.granted());
                    match self.reopen_at(server, session, granted).await {
                        Ok(patient) if patient.granted() == granted => return Ok(patient),
                        _ => {}
                    }
                }
                Ok(opened) => return Ok(opened),
                Err(ZkError::NoHosts) => {}
                Err(error) => failure = error,
            }
        }
        Err(failure::of_connecting(failure))
    }

    /// Moves a session to a server that keeps it for no less than was granted, whenever there is one. `None` if it is
    /// over, or if it cannot be known for how long it is kept.
    ///
    /// The request that moves a session also sets its timeout, within the bounds of the server that executes it, and its
    /// answer may be lost. So each server is first asked what it grants, by a session in which nothing is.
    pub(crate) async fn move_session(&self, session: &SessionInfo, granted: Duration) -> Option<Connection> {
        loop {
            let (server, probe) = self.probe(granted).await;
            let mut moving = std::pin::pin!(self.reopen_at(server, session, granted));
            let moved = tokio::select! {
                moved = &mut moving => moved,
                () = probe.drive() => moving.await,
            };
            match moved {
                Ok(moved) if moved.granted() >= granted => {
                    close(probe);
                    // Reads that follow see at least what was agreed on before.
                    match moved.driving(moved.vote()).await {
                        Ok(()) => return Some(moved),
                        Err(error) => tracing::debug!(server, %error, "a session was moved in vain"),
                    }
                }
                Ok(_) | Err(ZkError::SessionExpired) => return None,
                // The request may have been executed, or may be yet, but by the process that told what it grants, since
                // that has not ended.
                Err(error) if probe.driving(probe.vote()).await.is_ok() => {
                    tracing::debug!(server, %error, "a session could not be moved");
                }
                Err(error) => {
                    tracing::warn!(server, %error, "it is not known for how long a session is kept; it is given up");
                    return None;
                }
            }
            time::sleep(RETRY_DELAY).await;
        }
    }

    /// Finds a server that grants a session of so long a timeout. Tries all, again and again.
    async fn probe(&self, granted: Duration) -> (&str, Connection) {
        let mut tries: FuturesUnordered<_> = self
            .servers()
            .map(async |(pause, server)| {
                time::sleep(pause).await;
                loop {
                    match self.open_at(server, granted).await {
                        Ok(probe) if probe.granted() >= granted => return (server, probe),
                        Ok(probe) => {
                            tracing::warn!(server, ?granted, now = ?probe.granted(), "a server keeps sessions for less now");
                            close(probe);
                        }
                        Err(error) => tracing::debug!(server, %error, "a server gives no session"),
                    }
                    time::sleep(RETRY_DELAY).await;
                }
            })
            .collect();
        tries.next().await.expect("an ensemble has a server, and each try goes on until it succeeds")
    }

    /// Refuses servers that do not know each other's sessions, as far as they answer soon.
    pub(crate) async fn check(&self) -> Result<()> {
        let (limit, asked) = (self.timing.request_timeout() / 2, self.timing.ttl());
        if self.target.servers.len() < 2 {
            return Ok(());
        }
        let tries: FuturesUnordered<_> = self
            .servers()
            .map(async |(_, server)| (server, time::timeout(limit, self.open_at(server, asked)).await))
            .collect();
        let answers: Vec<_> = tries.collect().await;
        let mut sessions =
            answers.into_iter().filter_map(|(server, opened)| Some((server, opened.ok()?.ok()?)));
        let Some((first, witness)) = sessions.next() else { return Ok(()) };
        let checks: FuturesUnordered<_> = sessions
            .map(async |(server, session)| {
                let known = self.reopen_at(first, session.session(), session.granted());
                let known = time::timeout(limit, known).await;
                let is_stranger = matches!(known, Ok(Err(ZkError::SessionExpired)));
                close(if let Ok(Ok(known)) = known { known } else { session });
                is_stranger.then_some(server)
            })
            .collect();
        let strangers: Vec<_> = checks.collect().await;
        close(witness);
        let Some(stranger) = strangers.into_iter().flatten().next() else { return Ok(()) };
        let message = format!(
            "{first} does not know the sessions of {stranger}: they are of two ensembles, or keep local sessions, and then \
             locks exclude nobody; name the servers of one ensemble without local sessions"
        );
        Err(Error::new(ErrorKind::UnsafeConfig, message).with_server(self.addresses()).without_effect())
    }
}

/// Ends a session in which nothing is, in a task.
fn close(connection: Connection) {
    tokio::spawn(async move { connection.close().await });
}
