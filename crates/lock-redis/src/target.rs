//! Where the locks live: one Redis, the primary that Sentinel names, or a cluster.

use std::{fmt, sync::Arc};

use lock_core::Result;
use redis::{Client, IntoConnectionInfo, aio::PubSub, io::tcp::TcpSettings};

use crate::{connection::Connection, failure};

/// Which Redis to lock on.
///
/// Made of an address (`redis://[user:password@]host[:port][/database]`, `rediss://…` for TLS, `unix:///path`), or of
/// a [`redis::Client`] for everything that client can be given, such as certificates of your own. Cheap to clone.
#[derive(Clone)]
pub struct Target {
    kind: Arc<Kind>,
    accepts_eviction: bool,
}

#[derive(Clone)]
enum Kind {
    Single(Box<Client>),
    #[cfg(feature = "sentinel")]
    Sentinel(std::sync::Arc<tokio::sync::Mutex<redis::sentinel::SentinelClient>>),
    #[cfg(feature = "cluster")]
    Cluster {
        client: Box<redis::cluster::ClusterClient>,
        seeds: Vec<Client>,
    },
}

impl Target {
    /// Names the Redis at `url`.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](lock_core::ErrorKind::InvalidInput): not an address of Redis, or one that needs the feature
    /// `tls`.
    pub fn url(url: &str) -> Result<Self> {
        Client::open(url).map(Self::from).map_err(|error| failure::of_address(&error))
    }

    /// Names the primary that Sentinel knows at the moment, asked again at each reconnection.
    ///
    /// A failover loses what the old primary had not yet replicated, locks included: both promises then hold only by
    /// chance. See the crate's page.
    #[cfg(feature = "sentinel")]
    #[must_use]
    pub fn sentinel(client: redis::sentinel::SentinelClient) -> Self {
        Self::of(Kind::Sentinel(std::sync::Arc::new(tokio::sync::Mutex::new(client))))
    }

    /// Names a Redis Cluster: each key lives on one primary, found by the hash of its bucket.
    ///
    /// `seeds` are some of its nodes: notices of releases are heard through the first that answers.
    #[cfg(feature = "cluster")]
    #[must_use]
    pub fn cluster(client: redis::cluster::ClusterClient, seeds: Vec<Client>) -> Self {
        Self::of(Kind::Cluster { client: Box::new(client), seeds })
    }

    /// Names a Redis Cluster by the addresses of some of its nodes.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](lock_core::ErrorKind::InvalidInput): one is not an address of Redis.
    #[cfg(feature = "cluster")]
    pub fn cluster_urls(urls: &[&str]) -> Result<Self> {
        let open = || {
            let seeds = urls.iter().map(|url| Client::open(*url)).collect::<redis::RedisResult<Vec<_>>>()?;
            Ok((redis::cluster::ClusterClient::new(urls.iter().copied())?, seeds))
        };
        let (client, seeds) = open().map_err(|error| failure::of_address(&error))?;
        Ok(Self::cluster(client, seeds))
    }

    fn of(kind: Kind) -> Self {
        Self { kind: Arc::new(kind), accepts_eviction: false }
    }

    /// Accepts even a server whose `maxmemory-policy` may delete locks, or that does not tell its policy.
    ///
    /// A lock that Redis evicts is free for others while its holder still believes in it, until the next renewal.
    #[must_use]
    pub fn accepting_eviction(self) -> Self {
        Self { accepts_eviction: true, ..self }
    }

    pub(crate) fn accepts_eviction(&self) -> bool {
        self.accepts_eviction
    }

    /// Returns whether it is always the same server.
    #[must_use]
    pub fn is_one_server(&self) -> bool {
        match &*self.kind {
            Kind::Single(_) => true,
            #[cfg(any(feature = "sentinel", feature = "cluster"))]
            _ => false,
        }
    }

    /// Returns the servers' addresses, without user and password.
    #[must_use]
    pub fn server(&self) -> String {
        let address = |client: &Client| client.get_connection_info().addr().to_string();
        match &*self.kind {
            Kind::Single(client) => address(client),
            #[cfg(feature = "sentinel")]
            Kind::Sentinel(_) => "the primary that sentinel names".to_owned(),
            #[cfg(feature = "cluster")]
            Kind::Cluster { seeds, .. } => {
                format!("cluster of {}", seeds.iter().map(address).collect::<Vec<_>>().join(", "))
            }
        }
    }

    /// Returns what a server must speak to be understood, in words.
    #[must_use]
    pub fn protocol(&self) -> &'static str {
        let client = match &*self.kind {
            Kind::Single(client) => Some(&**client),
            #[cfg(feature = "sentinel")]
            Kind::Sentinel(_) => None,
            #[cfg(feature = "cluster")]
            Kind::Cluster { seeds, .. } => seeds.first(),
        };
        match client.map(|client| client.get_connection_info().addr()) {
            Some(redis::ConnectionAddr::TcpTls { .. }) => "Redis over TLS",
            _ => "Redis without TLS",
        }
    }

    /// Opens a connection. Whatever fails here has had no effect on any lock.
    pub(crate) async fn connect(&self) -> redis::RedisResult<Connection> {
        choose_cryptography();
        // The library would otherwise cut requests off at 500 ms; every caller has a deadline of its own. And it would
        // make tasks wait for each other where more than 50 ask at once.
        let config = redis::AsyncConnectionConfig::new()
            .set_response_timeout(None)
            .set_connection_timeout(None)
            .set_pipeline_buffer_size(1024);
        let client = match &*self.kind {
            Kind::Single(client) => Client::clone(client),
            #[cfg(feature = "sentinel")]
            Kind::Sentinel(client) => client.lock().await.async_get_client().await?,
            #[cfg(feature = "cluster")]
            Kind::Cluster { client, .. } => {
                return Ok(Connection::to_cluster(client.get_async_connection().await?));
            }
        };
        let client = without_delay(&client)?;
        Ok(Connection::to_node(client.get_multiplexed_async_connection_with_config(&config).await?))
    }

    /// Opens a connection that can listen to notices.
    pub(crate) async fn listen(&self) -> redis::RedisResult<PubSub> {
        choose_cryptography();
        match &*self.kind {
            Kind::Single(client) => client.get_async_pubsub().await,
            #[cfg(feature = "sentinel")]
            Kind::Sentinel(client) => {
                let client = client.lock().await.async_get_client().await?;
                client.get_async_pubsub().await
            }
            #[cfg(feature = "cluster")]
            Kind::Cluster { seeds, .. } => {
                let mut failure =
                    (redis::ErrorKind::InvalidClientConfig, "no node of the cluster was named").into();
                for seed in seeds {
                    match seed.get_async_pubsub().await {
                        Ok(pubsub) => return Ok(pubsub),
                        Err(error) => failure = error,
                    }
                }
                Err(failure)
            }
        }
    }
}

/// Chooses a provider of cryptography, unless the program has.
///
/// rustls panics if more than one is built in and none was chosen; which are built in depends on all crates of the
/// program together.
fn choose_cryptography() {
    #[cfg(feature = "tls")]
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // An error means that another thread was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

/// Lets small requests go without waiting for the acknowledgement of the one before.
fn without_delay(client: &Client) -> redis::RedisResult<Client> {
    let info = client.get_connection_info().clone();
    let settings: TcpSettings = info.tcp_settings().clone().set_nodelay(true);
    Client::open(info.set_tcp_settings(settings).into_connection_info()?)
}

impl From<Client> for Target {
    fn from(client: Client) -> Self {
        Self::of(Kind::Single(Box::new(client)))
    }
}

lock_core::target_from_text!(Target, Self::url);

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Target").field(&self.server()).finish()
    }
}
