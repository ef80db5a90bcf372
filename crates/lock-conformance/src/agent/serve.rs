//! The agent's side: reads commands, uses a locker, writes answers.

use std::{
    env,
    io::{self, BufRead, Write},
    process::{self, ExitCode},
    thread,
    time::Duration,
};

use lock_core::{AnyLocker, Error, Key, LockGuard, backend::BootInstant};
use tokio::{runtime::Runtime, sync::mpsc, time};

use crate::{Fixture, steps};

use super::protocol::{Command, Reply, Stay};

/// Obeys the commands on standard input until it ends.
pub(crate) fn serve<F: Fixture>(address: &str) -> ExitCode {
    die_with_parent();
    let ttl = env::var(super::TTL).ok().and_then(|millis| millis.parse().ok()).map(Duration::from_millis);
    let options = steps::leases_of(ttl.expect("the test sets the TTL of its agent"));
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let locker = match F::connect(address, &options).await {
            Ok(locker) => locker,
            Err(error) => return say(&failed(&error)),
        };
        say(&Reply::Done);
        obey(&locker).await;
    });
    ExitCode::SUCCESS
}

/// Ends with the test process even while it is stopped, when it cannot see its input end.
fn die_with_parent() {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .expect("a process may ask for a signal");
}

async fn obey(locker: &AnyLocker) {
    let mut commands = commands();
    let mut held = None;
    while let Some(command) = commands.recv().await {
        say(&answer(locker, &mut held, command).await.unwrap_or_else(|error| failed(&error)));
    }
}

async fn answer(locker: &AnyLocker, held: &mut Option<LockGuard>, command: Command) -> Result<Reply, Error> {
    Ok(match command {
        Command::Take { key } => {
            *held = locker.try_lock(&key).await?;
            held.as_ref().map_or(Reply::Busy, acquired)
        }
        Command::Lock { key } => acquired(held.insert(locker.lock(&key).await?)),
        Command::Contend { key, rounds } => {
            let key = Key::new(&key)?;
            let mut stays = Vec::new();
            for _ in 0..rounds {
                let guard = steps::acquire(locker, &key).await;
                let (token, entered) = (guard.fencing_token().get(), BootInstant::now().as_nanos());
                time::sleep(Duration::from_millis(1)).await;
                stays.push(Stay { token, entered, left: BootInstant::now().as_nanos() });
                guard.release().await?;
            }
            Reply::Contended { stays }
        }
        Command::Status => Reply::Status { held: held.as_ref().is_some_and(LockGuard::is_held) },
        Command::Release => {
            if let Some(guard) = held.take() {
                guard.release().await?;
            }
            Reply::Done
        }
    })
}

fn acquired(guard: &LockGuard) -> Reply {
    Reply::Acquired { token: guard.fencing_token().get() }
}

fn failed(error: &Error) -> Reply {
    Reply::Failed { kind: format!("{:?}", error.kind()), message: error.to_string() }
}

/// Reads commands on a thread of its own, which ends the process when the input does, whatever it is busy with.
fn commands() -> mpsc::UnboundedReceiver<Command> {
    let (sender, receiver) = mpsc::unbounded_channel();
    thread::spawn(move || {
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            let command = serde_json::from_str(&line).expect("the test sends commands");
            let _ = sender.send(command);
        }
        process::exit(0);
    });
    receiver
}

fn say(reply: &Reply) {
    let line = serde_json::to_string(reply).expect("a reply is JSON");
    writeln!(io::stdout(), "{line}").expect("the test reads the answers");
}
