//! A client in another process: the test program, run again, which obeys commands.

mod protocol;
mod serve;

use std::{env, process::Stdio, time::Duration};

use lock_core::{FencingToken, Key};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command as Program},
};

use crate::{Fixture, steps::within};

use protocol::{Command, Reply};

pub(crate) use protocol::Stay;
pub(crate) use serve::serve;

/// The environment variable that makes the test program an agent, with what it connects to.
pub(crate) const ADDRESS: &str = "LOCK_CONFORMANCE_AGENT";

const TTL: &str = "LOCK_CONFORMANCE_AGENT_TTL_MS";

/// No answer takes longer; a contest of processes takes the longest.
const BOUND: Duration = Duration::from_secs(45);

/// An agent, seen from the test. Dropped, it is killed; and it ends by itself once the test process is gone.
pub(crate) struct Agent {
    process: Child,
    commands: ChildStdin,
    replies: Lines<BufReader<ChildStdout>>,
}

impl Agent {
    /// Starts an agent whose client has leases of `ttl`.
    pub(crate) async fn start<F: Fixture>(fx: &F, ttl: Duration) -> Self {
        let address = fx.address().expect("a fixture without an address is given no property with processes");
        let mut process = Program::new(env::current_exe().expect("the path of the test program"))
            .env(ADDRESS, address)
            .env(TTL, ttl.as_millis().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the test program can be run again");
        let commands = process.stdin.take().expect("it is piped");
        let replies = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        let mut agent = Self { process, commands, replies };
        agent.expect_done("an agent must connect", None).await;
        agent
    }

    /// Acquires `key`, which must be free.
    pub(crate) async fn take(&mut self, key: &Key) -> FencingToken {
        match self.ask(&Command::Take { key: key.as_str().to_owned() }).await {
            Reply::Acquired { token } => FencingToken::new(token),
            reply => panic!("{key:?} must be free to an agent, which answered {reply:?}"),
        }
    }

    /// Begins to wait for `key`, and does not wait for the answer.
    pub(crate) async fn begin_to_wait(&mut self, key: &Key) {
        self.send(&Command::Lock { key: key.as_str().to_owned() }).await;
    }

    /// Enters a critical section under `key` again and again; returns when it was in.
    pub(crate) async fn contend(&mut self, key: &Key, rounds: usize) -> Vec<Stay> {
        match self.ask(&Command::Contend { key: key.as_str().to_owned(), rounds }).await {
            Reply::Contended { stays } => stays,
            reply => panic!("an agent contending for {key:?} answered {reply:?}"),
        }
    }

    /// Whether the agent believes that it holds its lock.
    pub(crate) async fn is_held(&mut self) -> bool {
        match self.ask(&Command::Status).await {
            Reply::Status { held } => held,
            reply => panic!("an agent asked for its belief answered {reply:?}"),
        }
    }

    /// Gives its lock back; the error's kind if that fails.
    pub(crate) async fn release(&mut self) -> Result<(), String> {
        match self.ask(&Command::Release).await {
            Reply::Done => Ok(()),
            Reply::Failed { kind, .. } => Err(kind),
            reply => panic!("an agent asked to release answered {reply:?}"),
        }
    }

    /// Sends a signal to its process.
    pub(crate) fn signal(&self, signal: Signal) {
        let id = self.process.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        kill_process(id.expect("it was not waited for"), signal).expect("the process is ours");
    }

    async fn expect_done(&mut self, what: &str, command: Option<&Command>) {
        let reply = match command {
            Some(command) => self.ask(command).await,
            None => self.reply().await,
        };
        assert!(matches!(reply, Reply::Done), "{what}; it answered {reply:?}");
    }

    async fn ask(&mut self, command: &Command) -> Reply {
        self.send(command).await;
        self.reply().await
    }

    async fn send(&mut self, command: &Command) {
        let line = serde_json::to_string(command).expect("a command is JSON") + "\n";
        self.commands.write_all(line.as_bytes()).await.expect("an agent reads its commands");
    }

    async fn reply(&mut self) -> Reply {
        let line = within("an agent's answer", BOUND, self.replies.next_line()).await;
        let line = line.expect("an agent writes text").expect("an agent answers before it ends");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("an agent answered {line:?}: {error}"))
    }
}
