//! Ends a session at the server, as an expiry or another program that knows its password would.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    sync::Mutex,
};

/// Hands on what one client and its server say to each other, and remembers the client's session.
pub(crate) struct Intruder {
    server: SocketAddr,
    pub(crate) address: SocketAddr,
    session: Arc<Mutex<Option<Session>>>,
}

#[derive(Clone, Copy)]
struct Session {
    id: i64,
    password: [u8; 16],
}

impl Intruder {
    pub(crate) async fn start(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let session = Arc::new(Mutex::new(None));
        tokio::spawn({
            let session = Arc::clone(&session);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(hand_on(client, server, Arc::clone(&session)));
                }
            }
        });
        Ok(Self { server, address, session })
    }

    /// Takes over the session that was opened last, and closes it.
    pub(crate) async fn end_session(&self) -> Result<()> {
        // While it is locked the client cannot connect again and take its session back.
        let mut session = self.session.lock().await;
        let Session { id, password } = session.take().context("no session was opened")?;
        let mut stream = TcpStream::connect(self.server).await?;
        let mut connect = vec![0; 4 + 8];
        connect.extend(60_000_i32.to_be_bytes());
        connect.extend(id.to_be_bytes());
        connect.extend(16_i32.to_be_bytes());
        connect.extend(password);
        connect.push(0);
        stream.write_all(&framed(&connect)?).await?;
        anyhow::ensure!(read_session(&receive(&mut stream).await?).id == id, "the session was over already");
        const CLOSE_SESSION: i32 = -11;
        stream.write_all(&framed(&[1_i32.to_be_bytes(), CLOSE_SESSION.to_be_bytes()].concat())?).await?;
        // The server hangs up when it is done.
        stream.read_to_end(&mut Vec::new()).await?;
        Ok(())
    }
}

async fn hand_on(client: TcpStream, server: SocketAddr, session: Arc<Mutex<Option<Session>>>) -> Result<()> {
    drop(session.lock().await);
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = TcpStream::connect(server).await?.into_split();
    let answers = async {
        let first = receive(&mut from_server).await?;
        let opened = read_session(&first);
        if opened.id != 0 {
            *session.lock().await = Some(opened);
        }
        to_client.write_all(&framed(&first)?).await?;
        copy(&mut from_server, &mut to_client).await?;
        anyhow::Ok(())
    };
    // Whoever hangs up, the other side is told by the drop of both.
    tokio::select! {
        done = answers => done,
        done = copy(&mut from_client, &mut to_server) => Ok(done.map(drop)?),
    }
}

/// The version, the timeout, the session's id, the length of its password, and the password.
fn read_session(answer: &[u8]) -> Session {
    let id = answer[8..16].try_into().expect("eight bytes");
    Session { id: i64::from_be_bytes(id), password: answer[20..36].try_into().expect("sixteen bytes") }
}

fn framed(message: &[u8]) -> Result<Vec<u8>> {
    Ok([&i32::try_from(message.len())?.to_be_bytes(), message].concat())
}

async fn receive(stream: &mut (impl AsyncReadExt + Unpin)) -> Result<Vec<u8>> {
    let mut message = vec![0; usize::try_from(stream.read_i32().await?)?];
    stream.read_exact(&mut message).await?;
    Ok(message)
}
