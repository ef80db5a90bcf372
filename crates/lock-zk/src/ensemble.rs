//! The ensemble to connect to, and how.

use futures_util::{StreamExt, stream::FuturesUnordered};
use lock_core::{Error, ErrorKind, Result, backend::LeaseTiming};
use tokio::time;
use zookeeper_client::{Acl, Acls, Client, Connector};

use crate::{Target, acl, failure};

/// An ensemble, and everything that a session with it needs.
pub(crate) struct Ensemble {
    servers: String,
    connector: Connector,
    #[cfg(feature = "tls")]
    speaks_tls: bool,
    acl: Option<Vec<Acl>>,
    logs_in: bool,
}

/// In how many parts of the session timeout a server may be silent before the client moves on to another: so many that even
/// if the next is silent too, the third is reached before holders have to give up.
const PATIENCE: u32 = 5;

/// How many sessions are asked for, one after another, until one is opened.
const TRIES: u32 = 6;

impl Ensemble {
    pub(crate) fn new(target: &Target, timing: &LeaseTiming) -> Result<Self> {
        let mut connector = Client::connector()
            .with_session_timeout(timing.ttl())
            // A request fails with its connection, which therefore has to wait as long as a request may take.
            .with_connection_timeout(timing.request_timeout().max(timing.ttl() / PATIENCE))
            .with_fail_eagerly();
        for (scheme, credentials) in &target.auth {
            connector = connector.with_auth(scheme, credentials);
        }
        #[cfg(feature = "tls")]
        if let Some(tls) = &target.tls {
            crate::tls::choose_cryptography();
            connector = connector.with_tls(tls.0.clone());
        }
        Ok(Self {
            servers: target.servers.clone(),
            connector,
            #[cfg(feature = "tls")]
            speaks_tls: target.tls.is_some(),
            acl: target.acl.as_deref().map(acl::parse).transpose()?,
            logs_in: !target.auth.is_empty(),
        })
    }

    /// The servers' addresses, as they were given.
    pub(crate) fn servers(&self) -> &str {
        &self.servers
    }

    /// Who may use the nodes that are made.
    pub(crate) fn acls(&self) -> Acls<'_> {
        match &self.acl {
            Some(acl) => Acls::new(acl),
            None if self.logs_in => Acls::creator_all(),
            None => Acls::anyone_all(),
        }
    }

    /// Opens a session, within the request timeout.
    pub(crate) async fn connect(&self, timing: &LeaseTiming) -> Result<Client> {
        let limit = timing.request_timeout();
        // Each try goes to the servers in an order of its own. One that meets a frozen server first is overtaken by the next,
        // and one that meets nobody ends them all.
        let mut tries: FuturesUnordered<_> = (0..TRIES)
            .map(async |number| {
                time::sleep(limit * number / TRIES).await;
                self.dial().await
            })
            .collect();
        match time::timeout(limit, tries.next()).await {
            Ok(Some(opened)) => opened.map_err(|error| failure::of_connecting(error, &self.servers)),
            Ok(None) | Err(_) => {
                let message = format!(
                    "no session within {limit:?}; is a server reachable, and does it speak ZooKeeper?"
                );
                Err(Error::new(ErrorKind::Unavailable, message).with_server(&self.servers).without_effect())
            }
        }
    }

    async fn dial(&self) -> std::result::Result<Client, zookeeper_client::Error> {
        let connector = self.connector.clone();
        #[cfg(feature = "tls")]
        if self.speaks_tls {
            return connector.secure_connect(&self.servers).await;
        }
        connector.connect(&self.servers).await
    }
}
