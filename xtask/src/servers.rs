//! The servers that examples and people can be given.

use std::{fmt, net::Ipv4Addr, path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use test_cluster::{Redis, process::Detached, resp::Connection};

use crate::setup::{self, Need};

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Server {
    Redis,
}

/// A server that stops when this goes away.
pub(crate) struct Running {
    pub(crate) url: String,
    _server: Redis,
}

impl Server {
    pub(crate) const ALL: &[Self] = &[Self::Redis];

    pub(crate) fn need(self) -> &'static Need {
        match self {
            Self::Redis => &setup::REDIS,
        }
    }

    /// The environment variable by which programs learn the URL.
    pub(crate) fn variable(self) -> &'static str {
        match self {
            Self::Redis => "REDIS_URL",
        }
    }

    pub(crate) fn url(self, port: u16) -> String {
        match self {
            Self::Redis => format!("redis://127.0.0.1:{port}/"),
        }
    }

    pub(crate) fn start(self) -> Result<Running> {
        let server = match self {
            Self::Redis => Redis::start().context("cannot start Redis")?,
        };
        Ok(Running { url: self.url(server.port()), _server: server })
    }

    /// Starts one that outlives this process, with its data in `dir`.
    pub(crate) fn start_detached(self, dir: &Path) -> Result<Detached> {
        match self {
            Self::Redis => Redis::builder().detached(dir).context("cannot start Redis"),
        }
    }

    /// Asks the server on `port` whether it serves.
    pub(crate) fn ask(self, port: u16) -> Result<()> {
        const TIMEOUT: Duration = Duration::from_secs(2);
        match self {
            Self::Redis => {
                let answer =
                    Connection::open((Ipv4Addr::LOCALHOST, port).into(), TIMEOUT)?.call(&["PING"])?;
                ensure!(answer.text() == "PONG", "it answers {:?} to PING", answer.text());
                Ok(())
            }
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to_possible_value().expect("no server is hidden").get_name())
    }
}
