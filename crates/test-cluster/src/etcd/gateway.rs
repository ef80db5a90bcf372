//! The JSON gateway of an etcd server, as far as a test needs it: one request, one answer, a few fields of it.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context, Result, bail};

/// Sends `body` to `path` on a connection of its own and returns the body of the answer.
pub(super) fn post(
    address: SocketAddr,
    path: &str,
    token: Option<&str>,
    body: &str,
    timeout: Duration,
) -> Result<String> {
    let authorization = token.map(|token| format!("Authorization: {token}\r\n")).unwrap_or_default();
    let length = body.len();
    let head = format!("{authorization}Content-Type: application/json\r\nContent-Length: {length}\r\n");
    exchange(address, &format!("POST {path}"), &head, body, timeout)
}

/// Fetches what is at `path`.
pub(super) fn get(address: SocketAddr, path: &str, timeout: Duration) -> Result<String> {
    exchange(address, &format!("GET {path}"), "", "", timeout)
}

fn exchange(address: SocketAddr, what: &str, head: &str, body: &str, timeout: Duration) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)
        .with_context(|| format!("cannot connect to {address}"))?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    // HTTP/1.0 is answered in one piece, to the end of the connection.
    let request = format!("{what} HTTP/1.0\r\nHost: {address}\r\n{head}\r\n{body}");
    stream.write_all(request.as_bytes()).context("cannot send to etcd")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("no answer from etcd")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer of etcd broke off")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        bail!("etcd refused {what} with {status}: {}", body.trim());
    }
    Ok(body.to_owned())
}

/// The value of the first field `name` in `json`, if it is a text or a number; etcd writes 64-bit numbers as texts.
pub(super) fn field<'a>(json: &'a str, name: &str) -> Option<&'a str> {
    let value = json.split_once(&format!("\"{name}\":"))?.1.trim_start();
    match value.strip_prefix('"') {
        Some(text) => text.split('"').next(),
        None => value.split([',', '}', ']']).next().map(str::trim),
    }
}

/// `text` as a JSON string.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push(c),
        }
    }
    quoted + "\""
}
