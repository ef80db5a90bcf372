//! Free ports on the loopback interface.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Result, bail};

/// Below the ports that Linux and macOS lend to outgoing connections. A port from that range may be taken by
/// any client while its server is down, and a killed server has to come back on the port it had.
const RANGE: std::ops::Range<u16> = 15_000..32_000;

/// The distance from a Redis port to its cluster bus port.
const BUS_OFFSET: u16 = 10_000;

const ATTEMPTS: u32 = 5;

pub(crate) fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// A port on which nothing listened a moment ago, nor on the cluster bus port that belongs to it.
pub(crate) fn free() -> Result<u16> {
    for _ in 0..1000 {
        let port = rand::random_range(RANGE);
        if is_free(port) && is_free(port + BUS_OFFSET) {
            return Ok(port);
        }
    }
    bail!("no port is free on 127.0.0.1 from {} to {}", RANGE.start, RANGE.end)
}

/// Starts a server by `start`, again on other ports if somebody else was faster to listen on the first.
pub(crate) fn retry_if_taken<T>(mut start: impl FnMut() -> Result<T>) -> Result<T> {
    let mut attempt = 1;
    loop {
        match start() {
            Err(error) if attempt < ATTEMPTS && lost_its_port(&error) => attempt += 1,
            result => return result,
        }
    }
}

/// A server that could not listen says so in its log, and its log is in the error. An engine says it in its own words.
fn lost_its_port(error: &anyhow::Error) -> bool {
    let said = format!("{error:#}").to_lowercase();
    said.contains("address already in use") || said.contains("port is already allocated")
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(loopback(port)).is_ok()
}
