//! Where a map is kept.

use std::{
    fmt,
    path::PathBuf,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
};

use lock_core::{Error, ErrorKind, Result};

use crate::map::ShardMap;

/// Where a map is read, and written after a move.
///
/// It need not be consistent or always there: see [`ShardMap`].
#[derive(Clone)]
pub struct MapSource(Kept);

#[derive(Clone)]
enum Kept {
    InProcess(Arc<Mutex<ShardMap>>),
    File(PathBuf),
    #[cfg(feature = "etcd")]
    Etcd(Arc<etcd::Key>),
    #[cfg(feature = "zk")]
    Zk(Arc<lock_zk::Node>),
}

impl MapSource {
    /// Keeps the map in a file, as JSON.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Kept::File(path.into()))
    }

    /// Keeps the map in a key of etcd, as JSON.
    #[cfg(feature = "etcd")]
    pub fn etcd(endpoints: impl IntoIterator<Item = impl Into<String>>, key: impl Into<String>) -> Self {
        let endpoints = endpoints.into_iter().map(Into::into).collect();
        Self(Kept::Etcd(Arc::new(etcd::Key { endpoints, key: key.into() })))
    }

    /// Keeps the map in a node of ZooKeeper, as JSON. Who may log in to `target` may read and write it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`]: the path is none.
    #[cfg(feature = "zk")]
    pub fn zk(target: lock_zk::Target, path: impl Into<String>) -> Result<Self> {
        Ok(Self(Kept::Zk(Arc::new(lock_zk::Node::new(target, path)?))))
    }

    #[cfg(any(feature = "etcd", feature = "zk"))]
    fn is_missing(&self) -> Error {
        let message = format!("there is no map in {self:?}; write one there, or rebuild it");
        Error::new(ErrorKind::InvalidInput, message)
    }

    /// Reads the map.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`]: it cannot be read. [`ErrorKind::InvalidInput`]: it is no map, or there is none.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn load(&self) -> Result<ShardMap> {
        let text = match &self.0 {
            Kept::InProcess(map) => return Ok(map.lock().unwrap_or_else(PoisonError::into_inner).clone()),
            Kept::File(path) => std::fs::read_to_string(path).map_err(|error| self.failed("read", error))?,
            #[cfg(feature = "etcd")]
            Kept::Etcd(key) => {
                let text = key.get().await.map_err(|error| self.failed("read", error))?;
                text.ok_or_else(|| self.is_missing())?
            }
            #[cfg(feature = "zk")]
            Kept::Zk(node) => {
                let text = node.read().await.map_err(|error| self.failed("read", error))?;
                String::from_utf8_lossy(&text.ok_or_else(|| self.is_missing())?).into_owned()
            }
        };
        serde_json::from_str(&text).map_err(|error| {
            Error::new(ErrorKind::InvalidInput, format!("what is in {self:?} is no map: {error}"))
                .without_effect()
        })
    }

    /// Writes the map.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unavailable`]: it cannot be written. Clients then follow the clusters, a round trip later.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: it may be written or not.
    pub async fn store(&self, map: &ShardMap) -> Result<()> {
        let text = || serde_json::to_string_pretty(map).expect("a map can be written");
        match &self.0 {
            Kept::InProcess(kept) => *kept.lock().unwrap_or_else(PoisonError::into_inner) = map.clone(),
            Kept::File(path) => {
                let mut new = path.clone().into_os_string();
                new.push(".new");
                let written = std::fs::write(&new, text()).and_then(|()| std::fs::rename(&new, path));
                written.map_err(|error| self.failed("write", error))?;
            }
            #[cfg(feature = "etcd")]
            Kept::Etcd(key) => key.put(text()).await.map_err(|error| self.failed("write", error))?,
            #[cfg(feature = "zk")]
            Kept::Zk(node) => {
                node.write(text().as_bytes()).await.map_err(|error| self.failed("write", error))?;
            }
        }
        Ok(())
    }

    fn failed(&self, what: &str, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::new(ErrorKind::Unavailable, format!("cannot {what} the map in {self:?}")).with_source(cause)
    }
}

impl From<ShardMap> for MapSource {
    fn from(map: ShardMap) -> Self {
        Self(Kept::InProcess(Arc::new(Mutex::new(map))))
    }
}

/// A file by its path, a key of etcd as `etcd:<endpoints>#<key>`, or a node of ZooKeeper as `zk://<servers>#<path>`.
impl FromStr for MapSource {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        #[cfg(feature = "etcd")]
        if let Some(rest) = text.strip_prefix("etcd:") {
            let (endpoints, key) = rest.split_once('#').ok_or_else(|| {
                let message = "a map in etcd is written as etcd:<endpoints>#<key>";
                Error::new(ErrorKind::InvalidInput, message).without_effect()
            })?;
            return Ok(Self::etcd(endpoints.split(','), key));
        }
        #[cfg(feature = "zk")]
        if let Some(rest) = text.strip_prefix("zk://") {
            let (servers, path) = rest.split_once('#').ok_or_else(|| {
                let message = "a map in ZooKeeper is written as zk://<servers>#<path>";
                Error::new(ErrorKind::InvalidInput, message).without_effect()
            })?;
            return Self::zk(lock_zk::Target::new(servers)?, path);
        }
        Ok(Self::file(text))
    }
}

impl fmt::Debug for MapSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kept::InProcess(_) => f.write_str("the program"),
            Kept::File(path) => path.fmt(f),
            #[cfg(feature = "etcd")]
            Kept::Etcd(key) => write!(f, "key {:?} of etcd", key.key),
            #[cfg(feature = "zk")]
            Kept::Zk(node) => write!(f, "node {:?} of ZooKeeper", node.path()),
        }
    }
}

#[cfg(feature = "etcd")]
mod etcd {
    use std::time::Duration;

    use lock_etcd::etcd_client::{Client, ConnectOptions, Error};

    pub(super) struct Key {
        pub(super) endpoints: Vec<String>,
        pub(super) key: String,
    }

    const LIMIT: Duration = Duration::from_secs(2);

    impl Key {
        async fn client(&self) -> Result<Client, Error> {
            let options = ConnectOptions::new().with_connect_timeout(LIMIT).with_timeout(LIMIT);
            Client::connect(&self.endpoints, Some(options)).await
        }

        pub(super) async fn get(&self) -> Result<Option<String>, Error> {
            let found = self.client().await?.get(self.key.as_str(), None).await?;
            Ok(found.kvs().first().map(|pair| String::from_utf8_lossy(pair.value()).into_owned()))
        }

        pub(super) async fn put(&self, text: String) -> Result<(), Error> {
            self.client().await?.put(self.key.as_str(), text, None).await.map(drop)
        }
    }
}
