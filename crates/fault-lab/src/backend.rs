//! The locks that the lab knows by name.

use std::{fmt, str::FromStr, time::Duration};

use anyhow::{Error, bail};
use serde::{Deserialize, Serialize};

use crate::planted::Bug;

/// Which lock, on which kind of servers.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub(crate) enum Backend {
    Local,
    Setnx,
    Redlock,
    Etcd,
    Zk,
    /// One lock space over two clusters, whose slots move.
    Sharded,
    /// A small lock that is made for a bug, on the servers of another, with the bug or without it.
    Planted {
        bug: Bug,
        has: bool,
    },
}

impl Backend {
    /// Those that people use.
    pub(crate) const REAL: [Self; 6] =
        [Self::Local, Self::Setnx, Self::Redlock, Self::Etcd, Self::Zk, Self::Sharded];

    /// Whose servers it locks on.
    pub(crate) fn soil(self) -> Self {
        match self {
            Self::Planted { bug, .. } => bug.soil(),
            real => real,
        }
    }

    pub(crate) fn is_local(self) -> bool {
        self == Self::Local
    }

    /// Whether it has servers that a soak can break: a cell starts the clusters of a lock space by itself.
    pub(crate) fn can_be_soaked(self) -> bool {
        !matches!(self, Self::Local | Self::Sharded)
    }

    /// Whether its waiters are promised the order of their coming.
    pub(crate) fn is_fair(self) -> bool {
        match self {
            Self::Local | Self::Etcd | Self::Zk => true,
            Self::Setnx | Self::Redlock | Self::Sharded => false,
            Self::Planted { bug, .. } => bug.queues(),
        }
    }

    /// Whether a token is drawn when a waiter enters the queue, so that grants must follow tokens.
    pub(crate) fn queues_by_token(self) -> bool {
        matches!(self, Self::Etcd | Self::Zk) || matches!(self, Self::Planted { bug, .. } if bug.queues())
    }

    /// Whether an entry that is gone is noticed at once, and not by the next renewal.
    pub(crate) fn watches_its_entry(self) -> bool {
        match self {
            Self::Etcd | Self::Zk => true,
            Self::Planted { bug, .. } => bug.queues(),
            _ => false,
        }
    }

    /// The lease that cells ask for: short, and long enough for a busy machine.
    pub(crate) fn ttl(self) -> Duration {
        Duration::from_millis(match self.soil() {
            Self::Etcd | Self::Zk | Self::Sharded => 2_000,
            _ => 1_000,
        })
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("local"),
            Self::Setnx => f.write_str("setnx"),
            Self::Redlock => f.write_str("redlock"),
            Self::Etcd => f.write_str("etcd"),
            Self::Zk => f.write_str("zk"),
            Self::Sharded => f.write_str("sharded"),
            Self::Planted { bug, has } => write!(f, "{bug:?}{}", if *has { "" } else { " mended" }),
        }
    }
}

impl FromStr for Backend {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        let name = name.strip_prefix("lock-").unwrap_or(name);
        let Some(known) = Self::REAL.into_iter().find(|backend| backend.to_string() == name) else {
            let known = Self::REAL.map(|backend| backend.to_string()).join(", ");
            bail!("there is no backend {name:?}; the backends are {known}");
        };
        Ok(known)
    }
}
