//! The configuration file of a Redis server, its URL and connections to it.

use std::{
    fmt::{self, Write},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::Persistence;
use crate::{
    ports::loopback,
    process::DATA,
    resp::{Connection, Value},
};

#[derive(Clone, Default)]
pub(super) struct Settings {
    pub(super) port: u16,
    /// The port that speaks no TLS: the same one, unless there is TLS.
    pub(super) plain_port: u16,
    pub(super) password: Option<String>,
    pub(super) persistence: Persistence,
    pub(super) tls: Option<Tls>,
    pub(super) cluster: bool,
    pub(super) replica_of: Option<u16>,
    pub(super) extra: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
pub(super) struct Tls {
    pub(super) cert: PathBuf,
    pub(super) key: PathBuf,
    pub(super) ca: PathBuf,
}

impl Settings {
    pub(super) fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "rediss" } else { "redis" };
        let login = self.password.as_deref().map(|password| format!(":{}@", percent_encoded(password)));
        format!("{scheme}://{}127.0.0.1:{}/", login.unwrap_or_default(), self.port)
    }

    /// Connects, with the password if there is one.
    pub(super) fn connect(&self, timeout: Duration) -> Result<Connection> {
        let mut connection = Connection::open(loopback(self.plain_port), timeout)?;
        if let Some(password) = &self.password {
            let answer = connection.call(&["AUTH", password])?;
            ensure!(!matches!(answer, Value::Error(_)), "Redis refused the password: {}", answer.text());
        }
        Ok(connection)
    }

    /// Writes the configuration file into `directory` and makes room for data. Returns the path of the file.
    pub(super) fn write(&self, directory: &Path) -> Result<PathBuf> {
        let data = directory.join(DATA);
        fs::create_dir_all(&data)?;
        let file = directory.join("redis.conf");
        fs::write(&file, self.text(&data)?)
            .with_context(|| format!("cannot write into {}", directory.display()))?;
        Ok(file)
    }

    fn text(&self, data: &Path) -> Result<String> {
        let mut text = String::from("bind 127.0.0.1\ndaemonize no\n");
        writeln!(text, "port {}\ndir {}", self.plain_port, quoted(data)?)?;
        for (name, value) in self.persistence.settings() {
            writeln!(text, "{name} {}", if value.is_empty() { "\"\"" } else { value })?;
        }
        if let Some(Tls { cert, key, ca }) = &self.tls {
            writeln!(text, "tls-port {}\ntls-auth-clients no", self.port)?;
            writeln!(text, "tls-cert-file {}\ntls-key-file {}", quoted(cert)?, quoted(key)?)?;
            writeln!(text, "tls-ca-cert-file {}", quoted(ca)?)?;
        }
        if let Some(password) = &self.password {
            writeln!(text, "requirepass {0}\nmasterauth {0}", quoted(password)?)?;
        }
        if self.cluster {
            text.push_str("cluster-enabled yes\n");
        }
        if let Some(master) = self.replica_of {
            writeln!(text, "replicaof 127.0.0.1 {master}")?;
        }
        for (name, value) in &self.extra {
            writeln!(text, "{name} {value}")?;
        }
        Ok(text)
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("port", &self.port)
            .field("persistence", &self.persistence)
            .field("tls", &self.tls.is_some())
            .field("cluster", &self.cluster)
            .field("replica_of", &self.replica_of)
            .finish_non_exhaustive()
    }
}

/// One word of a configuration file.
pub(super) fn quoted(word: impl AsRef<Path>) -> Result<String> {
    let word = word.as_ref();
    let text = word.to_str().with_context(|| format!("{} is not valid UTF-8", word.display()))?;
    ensure!(!text.contains('\n'), "a configuration file of Redis cannot hold a word with a line break");
    Ok(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
}

fn percent_encoded(text: &str) -> String {
    let encoded = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encoded).collect()
}
