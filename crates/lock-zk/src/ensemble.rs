//! The servers of an ensemble: how sessions with them are opened, and moved from one to another.

use std::{future::Future, pin::pin, time::Duration};

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

/// In how many parts of the request timeout another server is asked as well.
const HEAD_STARTS: u32 = 8;

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

    /// Opens a session in which nothing is yet. If nobody waits for it any more when it is open, it is closed.
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

    /// Connects a session that stands to a server.
    async fn reopen_at(
        &self,
        server: &str,
        session: &SessionInfo,
        granted: Duration,
    ) -> Result<Connection, ZkError> {
        let connector = self.connector(granted).with_session(session.clone());
        Connection::open(connector, server.to_owned(), self.target.speaks_tls()).await
    }

    /// Asks all servers, in an order of its own each time; each has a head start before the next.
    fn ask_all<'a, F: Future>(
        &'a self,
        ask: impl Fn(&'a str) -> F,
    ) -> FuturesUnordered<impl Future<Output = F::Output>> {
        let mut servers: Vec<_> = self.target.servers.iter().collect();
        servers.shuffle(&mut rand::rng());
        let head_start = self.timing.request_timeout() / HEAD_STARTS;
        let asked = (0..).zip(servers).map(|(number, server)| {
            let answer = ask(server);
            async move {
                time::sleep(head_start * number).await;
                answer.await
            }
        });
        asked.collect()
    }

    /// Opens a session, within the request timeout.
    pub(crate) async fn open(&self) -> Result<Connection> {
        let limit = self.timing.request_timeout();
        let opened = time::timeout(limit, self.open_anywhere()).await;
        let opened = opened.unwrap_or_else(|_| Err(failure::silence(limit)));
        opened.map_err(|error| error.with_server(self.addresses()))
    }

    async fn open_anywhere(&self) -> Result<Connection> {
        let asked = self.timing.ttl();
        let mut answers = self.ask_all(async |server| {
            let opened = self.open_at(server, asked).await?;
            if opened.granted() >= asked {
                return Ok(opened);
            }
            // The client library was told to be as patient as a longer session allows.
            let patient = self.reopen_at(server, opened.session(), opened.granted()).await?;
            if patient.granted() == opened.granted() { Ok(patient) } else { Err(ZkError::NoHosts) }
        });
        let mut failure = ZkError::NoHosts;
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(opened) => return Ok(opened),
                Err(ZkError::NoHosts) => {}
                Err(error) => failure = error,
            }
        }
        Err(failure::of_connecting(failure))
    }

    /// Moves a session to a server that keeps it for no less than was granted, as soon as there is one. `None` if it is
    /// over, or if it cannot be known any more for how long it is kept.
    ///
    /// The request that moves a session also sets its timeout, within the bounds of the server that executes it, and
    /// its answer may be lost. So each server is first asked what it grants, by a session in which nothing is.
    pub(crate) async fn move_session(&self, session: &SessionInfo, granted: Duration) -> Option<Connection> {
        loop {
            let (server, probe) = self.find(granted).await;
            let mut moving = pin!(self.reopen_at(server, session, granted));
            let moved = tokio::select! {
                moved = &mut moving => moved,
                () = probe.drive() => moving.await,
            };
            // Without an answer, the request may have been executed or may be yet: by the process that told what it
            // grants, if that process has not ended since.
            let is_known = moved.is_ok() || probe.driving(probe.vote()).await.is_ok();
            close(probe);
            match moved {
                // Reads that follow see all that was agreed on before the vote.
                Ok(moved) if moved.granted() >= granted => match moved.driving(moved.vote()).await {
                    Ok(()) => return Some(moved),
                    Err(error) => tracing::debug!(server, %error, "a session was moved in vain"),
                },
                Err(error) if is_known && error != ZkError::SessionExpired => {
                    tracing::debug!(server, %error, "a session could not be moved");
                }
                moved => {
                    tracing::warn!(
                        server,
                        ?moved,
                        "a session is over, or not known to be kept for long enough"
                    );
                    return None;
                }
            }
            time::sleep(RETRY_DELAY).await;
        }
    }

    /// Finds a server that grants a session of so long a timeout, and shows that session. Asks again and again.
    async fn find(&self, granted: Duration) -> (&str, Connection) {
        let mut answers = self.ask_all(async |server| {
            loop {
                match self.open_at(server, granted).await {
                    Ok(opened) if opened.granted() >= granted => return (server, opened),
                    Ok(opened) => {
                        let granted = opened.granted();
                        tracing::warn!(server, ?granted, "a server keeps sessions for less than it did");
                        close(opened);
                    }
                    Err(error) => tracing::debug!(server, %error, "a server gives no session"),
                }
                time::sleep(RETRY_DELAY).await;
            }
        });
        answers.next().await.expect("an ensemble has servers, and each is asked until it answers")
    }

    /// Refuses servers that do not know each other's sessions, as far as they answer soon.
    pub(crate) async fn check(&self) -> Result<()> {
        if self.target.servers.len() < 2 {
            return Ok(());
        }
        let limit = self.timing.request_timeout() / 2;
        let answers = self.ask_all(async |server| {
            let opened = time::timeout(limit, self.open_at(server, self.timing.ttl())).await;
            Some((server, opened.ok()?.ok()?))
        });
        let answers: Vec<_> = answers.collect().await;
        let mut sessions = answers.into_iter().flatten();
        let Some((witness, shown)) = sessions.next() else { return Ok(()) };
        let mut stranger = None;
        for (server, session) in sessions {
            let known = self.reopen_at(witness, session.session(), session.granted());
            let known = time::timeout(limit, known).await;
            if let Ok(Err(ZkError::SessionExpired)) = known {
                stranger = Some(server);
            }
            close(if let Ok(Ok(known)) = known { known } else { session });
        }
        // A witness that has lost its majority knows nothing of what the others do.
        let is_sound = time::timeout(limit, shown.driving(shown.vote())).await;
        close(shown);
        let (Some(stranger), Ok(Ok(()))) = (stranger, is_sound) else { return Ok(()) };
        let message = format!(
            "{witness} does not know the sessions of {stranger}: they are of two ensembles, or keep local sessions, \
             and locks would exclude nobody; name the servers of one ensemble without local sessions"
        );
        Err(Error::new(ErrorKind::UnsafeConfig, message).with_server(self.addresses()).without_effect())
    }
}

/// Ends a session in which nothing is, in a task.
pub(crate) fn close(connection: Connection) {
    tokio::spawn(async move { connection.close().await });
}
