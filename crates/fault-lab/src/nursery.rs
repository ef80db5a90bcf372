//! Where processes are started that must not outlive the lab.
//!
//! The system ends them with the thread that started them, so all are started by one that lives as long as the lab.

use std::{
    ffi::OsString,
    io,
    os::unix::process::CommandExt,
    process::{Child, Command},
    sync::{
        OnceLock,
        mpsc::{Sender, channel},
    },
    thread,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Signal, set_parent_process_death_signal};

type Order = (Command, Sender<io::Result<Child>>);

static NURSERY: OnceLock<Sender<Order>> = OnceLock::new();

/// Starts a process by the thread that lives as long as the lab.
pub(crate) fn spawn(command: Command) -> Result<Child> {
    let orders = NURSERY.get_or_init(|| {
        let (sender, orders) = channel::<Order>();
        thread::spawn(move || {
            for (mut command, reply) in orders {
                // Whoever asked waits for it.
                reply.send(command.spawn()).ok();
            }
        });
        sender
    });
    let (sender, spawned) = channel();
    orders.send((command, sender)).ok().context("the thread that starts processes has ended")?;
    Ok(spawned.recv().context("the thread that starts processes has ended")??)
}

/// Starts a program of others so that it ends with the lab.
pub(crate) fn bound(words: &[OsString]) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("bound").args(words);
    Ok(command)
}

/// Becomes the program of `words`, and ends with the lab as it would if it were asked to.
pub(crate) fn become_bound(words: &[OsString]) -> Result<bool> {
    let [program, arguments @ ..] = words else { bail!("there is nothing to run") };
    set_parent_process_death_signal(Some(Signal::TERM))?;
    Err(Command::new(program).args(arguments).exec()).context("cannot run a program")
}
