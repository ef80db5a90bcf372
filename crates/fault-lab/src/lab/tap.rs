//! Listens to what a client and a ZooKeeper say to each other, to end the session at the server, as an operator would
//! by killing it.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use parking_lot::Mutex;

/// What the answer to a connecting client consists of, behind its length.
const ANSWER: usize = 4 + 4 + 8 + 4 + PASSWORD;
const PASSWORD: usize = 16;

const CLOSE_SESSION: i32 = -11;

#[derive(Clone, Copy, Debug, PartialEq)]
struct Session {
    id: i64,
    password: [u8; PASSWORD],
}

/// Stands before a server, and knows the sessions that were opened or moved through it.
#[derive(Debug)]
pub(crate) struct Tap {
    server: SocketAddr,
    pub(crate) address: SocketAddr,
    sessions: Arc<Mutex<Vec<Session>>>,
}

impl Tap {
    pub(crate) fn start(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("cannot open a port for a tap")?;
        let address = listener.local_addr()?;
        let sessions = Arc::<Mutex<Vec<Session>>>::default();
        let known = Arc::clone(&sessions);
        // It lives as long as the lab; without clients it does nothing.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let known = Arc::clone(&known);
                thread::spawn(move || hand_on(&client, server, &known));
            }
        });
        Ok(Self { server, address, sessions })
    }

    /// Closes each session that the server still knows. Returns how many there were.
    pub(crate) fn end_sessions(&self) -> Result<usize> {
        let sessions = self.sessions.lock().clone();
        let ended = sessions.iter().map(|session| self.end(*session)).collect::<Result<Vec<_>>>()?;
        Ok(ended.into_iter().filter(|ended| *ended).count())
    }

    /// Moves a session to a connection of its own, and closes it.
    fn end(&self, Session { id, password }: Session) -> Result<bool> {
        let mut stream = TcpStream::connect(self.server)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut connect = vec![0; 4 + 8];
        connect.extend(60_000_i32.to_be_bytes());
        connect.extend(id.to_be_bytes());
        connect.extend((PASSWORD as i32).to_be_bytes());
        connect.extend(password);
        connect.push(0);
        stream.write_all(&framed(&connect))?;
        let mut answer = [0; 4 + ANSWER];
        stream.read_exact(&mut answer).context("no answer to a session that was moved")?;
        if session(&answer).id != id {
            return Ok(false);
        }
        stream.write_all(&framed(&[1_i32.to_be_bytes(), CLOSE_SESSION.to_be_bytes()].concat()))?;
        // The server hangs up when it is done.
        stream.read_to_end(&mut Vec::new())?;
        Ok(true)
    }
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as i32).to_be_bytes(), body].concat()
}

/// Reads an answer with its length.
fn session(answer: &[u8; 4 + ANSWER]) -> Session {
    let id = answer[12..20].try_into().expect("8 bytes");
    let password = answer[24..].try_into().expect("as many as a password has");
    Session { id: i64::from_be_bytes(id), password }
}

fn hand_on(client: &TcpStream, server: SocketAddr, sessions: &Mutex<Vec<Session>>) -> Result<()> {
    let server = TcpStream::connect(server)?;
    for stream in [client, &server] {
        stream.set_nodelay(true)?;
    }
    thread::scope(|scope| {
        scope.spawn(|| copy(client, &server).ok());
        let heard = listen(client, &server, sessions);
        client.shutdown(Shutdown::Both).ok();
        heard
    })
}

fn listen(mut client: &TcpStream, mut server: &TcpStream, sessions: &Mutex<Vec<Session>>) -> Result<()> {
    let mut answer = [0; 4 + ANSWER];
    server.read_exact(&mut answer)?;
    let opened = session(&answer);
    let mut known = sessions.lock();
    if opened.id != 0 && !known.contains(&opened) {
        known.push(opened);
    }
    drop(known);
    client.write_all(&answer)?;
    copy(server, client)
}

/// Carries bytes until there are no more.
fn copy(mut from: &TcpStream, mut to: &TcpStream) -> Result<()> {
    let copied = std::io::copy(&mut from, &mut to);
    to.shutdown(Shutdown::Both).ok();
    copied.map(drop).context("a connection broke")
}
