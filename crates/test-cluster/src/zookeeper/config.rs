//! The configuration file of a ZooKeeper server, and the four-letter words that it answers.

use std::{
    fmt::Write as _,
    fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{
    ports::{self, loopback},
    process::DATA,
};

const WORD_TIMEOUT: Duration = Duration::from_secs(5);

/// Short ticks, so that elections and the ends of sessions take well under a second, and any session timeout a client
/// asks for.
pub(crate) const TIMING: &str = "tickTime=100\ninitLimit=100\nsyncLimit=10\nminSessionTimeout=200\n\
                                 maxSessionTimeout=90000000\nmaxClientCnxns=0\n";

#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub(super) port: u16,
    /// The number of this server, and where it reaches each member of its ensemble; empty for a server alone.
    pub(super) id: usize,
    pub(super) members: Vec<Member>,
    pub(super) extra: Vec<(String, String)>,
    /// The most memory for the server's objects, in MiB; little if it is not said.
    pub(super) heap: Option<u32>,
}

/// The ports on which a member listens to the others, as one of them knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) peer_port: u16,
    pub(super) election_port: u16,
}

impl Member {
    pub(super) fn on_free_ports() -> Result<Self> {
        Ok(Self { peer_port: ports::free()?, election_port: ports::free()? })
    }
}

impl Settings {
    pub(super) fn address(&self) -> SocketAddr {
        loopback(self.port)
    }

    /// Writes the configuration file into `directory` and makes room for data. Returns the path of the file.
    pub(super) fn write(&self, directory: &Path) -> Result<PathBuf> {
        let data = directory.join(DATA);
        fs::create_dir_all(&data)?;
        if !self.members.is_empty() {
            fs::write(data.join("myid"), self.id.to_string())?;
        }
        let file = directory.join("zoo.cfg");
        fs::write(&file, self.text(&data)?)
            .with_context(|| format!("cannot write into {}", directory.display()))?;
        Ok(file)
    }

    fn text(&self, data: &Path) -> Result<String> {
        let mut text = format!("{TIMING}clientPortAddress=127.0.0.1\n");
        writeln!(text, "clientPort={}\ndataDir={}", self.port, data.display())?;
        for (id, Member { peer_port, election_port }) in (1..).zip(&self.members) {
            writeln!(text, "server.{id}=127.0.0.1:{peer_port}:{election_port}")?;
        }
        for (name, value) in &self.extra {
            writeln!(text, "{name}={value}")?;
        }
        Ok(text)
    }
}

/// Sends one of ZooKeeper's four-letter words, such as `srvr`, and returns the whole answer.
pub(super) fn ask(address: SocketAddr, word: &str) -> Result<String> {
    let mut answer = String::new();
    let mut stream = TcpStream::connect_timeout(&address, WORD_TIMEOUT)
        .with_context(|| format!("cannot connect to {address}"))?;
    stream.set_read_timeout(Some(WORD_TIMEOUT))?;
    stream
        .write_all(word.as_bytes())
        .and_then(|()| stream.shutdown(Shutdown::Write))
        .and_then(|()| stream.read_to_string(&mut answer))
        .with_context(|| format!("{address} does not answer {word}"))?;
    Ok(answer)
}

pub(super) fn field<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    answer.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix([':', '='])).map(str::trim)
}
