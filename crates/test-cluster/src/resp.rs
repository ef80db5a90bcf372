//! The Redis protocol, as far as a test needs it: send one command, read one reply.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail};

/// A reply of Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// No value.
    Nil,
    /// A number.
    Int(i64),
    /// A short status, such as `OK`.
    Status(String),
    /// A string of bytes.
    Bulk(Vec<u8>),
    /// Several replies.
    Array(Vec<Value>),
    /// The server refused; the text begins with a code such as `ERR`.
    Error(String),
}

impl Value {
    /// Returns the number, if it is one.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Value::Int(number) => Some(*number),
            _ => None,
        }
    }

    /// Returns the text of a status, an error or a string of bytes; empty for anything else.
    pub fn text(&self) -> String {
        match self {
            Value::Status(text) | Value::Error(text) => text.clone(),
            Value::Bulk(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Value::Nil | Value::Int(_) | Value::Array(_) => String::new(),
        }
    }
}

/// A connection that waits for each reply, but not for ever.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects to `address`. From then on `timeout` bounds each wait for the server.
    ///
    /// # Errors
    ///
    /// Nothing listens there, or it did not answer in time.
    pub fn open(address: SocketAddr, timeout: Duration) -> Result<Connection> {
        let stream = TcpStream::connect_timeout(&address, timeout)
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        Ok(Connection { stream: BufReader::new(stream) })
    }

    /// Sends a command and reads its reply, which may be a [`Value::Error`].
    ///
    /// # Errors
    ///
    /// The connection broke, the reply did not come in time, or it was none of Redis. A connection that
    /// failed must not be used again: a late reply would be taken for the next one.
    pub fn call<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Result<Value> {
        let mut request = format!("*{}\r\n", arguments.len()).into_bytes();
        for argument in arguments.iter().map(AsRef::as_ref) {
            request.extend(format!("${}\r\n", argument.len()).into_bytes());
            request.extend(argument);
            request.extend(b"\r\n");
        }
        self.stream.get_mut().write_all(&request).context("cannot send to the server")?;
        self.read()
    }

    /// Reads one more reply, for instance a message on a channel that [`call`](Self::call) subscribed to.
    ///
    /// # Errors
    ///
    /// As for [`call`](Self::call).
    pub fn read(&mut self) -> Result<Value> {
        let line = self.line()?;
        let (kind, rest) = line.split_at_checked(1).context("the server sent an empty line")?;
        let number =
            || rest.parse::<i64>().with_context(|| format!("the server sent a bad number: {line:?}"));
        Ok(match kind {
            "+" => Value::Status(rest.to_owned()),
            "-" => Value::Error(rest.to_owned()),
            ":" => Value::Int(number()?),
            "$" => match usize::try_from(number()?) {
                Ok(length) => Value::Bulk(self.bulk(length)?),
                Err(_) => Value::Nil,
            },
            "*" => match usize::try_from(number()?) {
                Ok(length) => Value::Array((0..length).map(|_| self.read()).collect::<Result<_>>()?),
                Err(_) => Value::Nil,
            },
            _ => bail!("this is no answer of Redis: {line:?}"),
        })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let length = self.stream.read_line(&mut line).context("no answer from the server")?;
        if length == 0 {
            bail!("the server closed the connection");
        }
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }

    fn bulk(&mut self, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length + 2];
        self.stream.read_exact(&mut bytes).context("the answer of the server broke off")?;
        bytes.truncate(length);
        Ok(bytes)
    }
}
