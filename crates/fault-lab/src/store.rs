//! The resource that the locks guard, as a process of its own: registers and lists, with and without a check of tokens.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
};

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    event::{Nanos, now},
    nursery,
};

/// One request. An object whose name an agent makes up exists from the first request on.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Request {
    pub(crate) number: u64,
    pub(crate) attempt: u64,
    pub(crate) object: String,
    /// Whether the store heeds the token: the same name is another object where it does not.
    pub(crate) checking: bool,
    pub(crate) token: u64,
    pub(crate) action: Action,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) enum Action {
    Read,
    Write(u64),
    Append(u64),
}

/// What the store did, in its order.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Entry {
    pub(crate) at: Nanos,
    pub(crate) request: Request,
    pub(crate) accepted: bool,
    /// The largest token that the object had seen before.
    pub(crate) seen: u64,
    /// The register after the request.
    pub(crate) value: u64,
}

#[derive(Debug, Deserialize, Serialize)]
enum Call {
    Do(Request),
    /// Hands out, and forgets, all that was done to objects whose names begin so.
    Log(String),
}

/// What an agent is answered.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Reply {
    pub(crate) accepted: bool,
    pub(crate) value: u64,
}

#[derive(Default)]
struct Object {
    seen: u64,
    register: u64,
}

#[derive(Default)]
struct State {
    objects: HashMap<(bool, String), Object>,
    log: Vec<Entry>,
}

impl State {
    fn act(&mut self, request: Request, checks_reads: bool) -> Reply {
        let object = self.objects.entry((request.checking, request.object.clone())).or_default();
        let seen = object.seen;
        let is_checked = request.checking && (checks_reads || request.action != Action::Read);
        let accepted = !is_checked || request.token >= seen;
        if accepted {
            if is_checked {
                object.seen = request.token;
            }
            if let Action::Write(value) = request.action {
                object.register = value;
            }
        }
        let value = object.register;
        self.log.push(Entry { at: now(), request, accepted, seen, value });
        Reply { accepted, value }
    }

    fn take_log(&mut self, prefix: &str) -> Vec<Entry> {
        let is_asked = |entry: &mut Entry| entry.request.object.starts_with(prefix);
        self.objects.retain(|(_, object), _| !object.starts_with(prefix));
        self.log.extract_if(.., is_asked).collect()
    }
}

/// Runs the store until its standard input ends. `checks_reads` is false for a store with a planted bug.
pub(crate) fn serve(checks_reads: bool) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot open a port for the store")?;
    println!("{}", listener.local_addr()?);
    let state = Arc::new(Mutex::new(State::default()));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let state = Arc::clone(&state);
            thread::spawn(move || answer(&stream, &state, checks_reads));
        }
    });
    // The end of the input is the end of the lab.
    std::io::stdin().lines().for_each(drop);
    Ok(())
}

/// A client that went away ends its thread.
fn answer(stream: &TcpStream, state: &Mutex<State>, checks_reads: bool) -> Result<()> {
    stream.set_nodelay(true)?;
    for line in BufReader::new(stream).lines() {
        let reply = match serde_json::from_str(&line?)? {
            Call::Do(request) => serde_json::to_string(&state.lock().act(request, checks_reads))?,
            Call::Log(prefix) => serde_json::to_string(&state.lock().take_log(&prefix))?,
        };
        let mut stream = stream;
        stream.write_all((reply + "\n").as_bytes())?;
    }
    Ok(())
}

/// A connection to the store, for one task at a time.
#[derive(Debug)]
pub(crate) struct Client(BufReader<TcpStream>);

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).context("cannot connect to the store")?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    fn call<T: DeserializeOwned>(&mut self, call: &Call) -> Result<T> {
        let line = serde_json::to_string(call)? + "\n";
        self.0.get_mut().write_all(line.as_bytes()).context("cannot send to the store")?;
        let mut reply = String::new();
        if self.0.read_line(&mut reply).context("no answer of the store")? == 0 {
            bail!("the store has ended");
        }
        Ok(serde_json::from_str(&reply)?)
    }

    /// Asks for `request`. It blocks: the store is on the same machine and answers at once.
    pub(crate) fn ask(&mut self, request: Request) -> Result<Reply> {
        self.call(&Call::Do(request))
    }
}

/// The process of a store, seen from the lab. Dropped, it ends.
#[derive(Debug)]
pub(crate) struct Store {
    process: Child,
    pub(crate) address: SocketAddr,
}

impl Store {
    pub(crate) fn start(checks_reads: bool) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["store", if checks_reads { "true" } else { "false" }]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = nursery::spawn(command).context("cannot start the store")?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("it is piped")).read_line(&mut line)?;
        let address = line.trim().parse().context("the store did not tell its address")?;
        Ok(Self { process, address })
    }

    /// Returns, and makes it forget, what was done to objects whose names begin with `prefix`.
    pub(crate) fn log(&self, prefix: &str) -> Result<Vec<Entry>> {
        Client::connect(self.address)?.call(&Call::Log(prefix.to_owned()))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        // It ends with its input; nobody needs its status.
        self.process.wait().ok();
    }
}

#[cfg(test)]
mod tests {
    use super::{Action, Request, State};

    fn ask(state: &mut State, token: u64, action: Action, checks_reads: bool) -> (bool, u64) {
        let request =
            Request { number: 0, attempt: 0, object: "x".to_owned(), checking: true, token, action };
        let reply = state.act(request, checks_reads);
        (reply.accepted, reply.value)
    }

    #[test]
    fn a_read_with_a_newer_token_shuts_out_older_writes() {
        let mut state = State::default();
        assert_eq!(ask(&mut state, 1, Action::Write(7), true), (true, 7));
        assert_eq!(ask(&mut state, 2, Action::Read, true), (true, 7));
        assert_eq!(ask(&mut state, 1, Action::Write(8), true), (false, 7));
        let mut state = State::default();
        ask(&mut state, 2, Action::Read, false);
        assert_eq!(ask(&mut state, 1, Action::Write(8), false), (true, 8), "the planted bug");
    }

    #[test]
    fn a_log_is_handed_out_once() {
        let mut state = State::default();
        ask(&mut state, 1, Action::Append(7), true);
        assert_eq!(state.take_log("y").len(), 0);
        assert_eq!(state.take_log("x").len(), 1);
        assert_eq!(state.take_log("").len(), 0);
    }
}
