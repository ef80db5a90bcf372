//! From an executable on disk to a Redis that answers.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};

use super::{Redis, config::Settings};
use crate::{
    eventually,
    process::{is_running, log_tail},
    resp::{Connection, Value},
    tools::{self, Executable, REDIS_SERVER, Version},
};

const OLDEST: Version = Version { major: 5, minor: 0, patch: 0 };

const READY_BOUND: Duration = Duration::from_secs(20);
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

const SLOTS: u32 = 16_384;

pub(super) fn executable() -> Result<(Executable, Version)> {
    let executable = tools::find(&REDIS_SERVER)?;
    let version = executable.version()?;
    ensure!(
        version >= OLDEST,
        "{} is Redis {version}, but Redis {OLDEST} or newer is needed; set {} to a newer one",
        executable.path.display(),
        REDIS_SERVER.env,
    );
    Ok((executable, version))
}

/// Waits until process `pid`, and no other server on that port, has loaded its data and serves.
pub(super) fn wait_until_ready(settings: &Settings, pid: u32, directory: &Path) -> Result<()> {
    let probe = || -> Result<()> {
        let mut connection = settings.connect(PROBE_TIMEOUT)?;
        let info = info(&mut connection)?;
        let answering = field(&info, "process_id").unwrap_or("unknown");
        ensure!(answering == pid.to_string(), "process {answering} answers on the port, not {pid}");
        ensure!(field(&info, "loading").unwrap_or("0") == "0", "it is loading its data");
        if settings.cluster { serve_all_slots(&mut connection) } else { Ok(()) }
    };
    eventually("redis-server to be ready", READY_BOUND, || match probe() {
        Err(status) if is_running(pid) => Err(status),
        result => Ok(result),
    })
    .and_then(|outcome| outcome.context("redis-server ended while it was starting"))
    .with_context(|| {
        format!(
            "redis-server did not start on port {}. If the end of its log names a setting or a port, choose \
             another one; if it names a library, run `cargo xtask setup`. The log:\n{}\nwhat happened",
            settings.port,
            log_tail(directory)
        )
    })
}

/// Waits until a replica has what its master has. Does nothing for other servers.
pub(super) fn wait_until_replicated(redis: &Redis) -> Result<()> {
    let Some(master) = redis.settings.replica_of else { return Ok(()) };
    eventually(&format!("the replica to reach its master on port {master}"), READY_BOUND, || {
        let info = redis.command(&["INFO", "replication"])?.text();
        let link = field(&info, "master_link_status");
        ensure!(
            link == Some("up"),
            "the link is {link:?}; the end of its log:\n{}",
            log_tail(redis.server.directory())
        );
        Ok(())
    })
}

/// Takes all slots if they are nobody's, and reports whether the cluster serves.
fn serve_all_slots(connection: &mut Connection) -> Result<()> {
    let info = connection.call(&["CLUSTER", "INFO"])?.text();
    if field(&info, "cluster_slots_assigned") == Some("0") {
        let mut command = vec!["CLUSTER".to_owned(), "ADDSLOTS".to_owned()];
        command.extend((0..SLOTS).map(|slot| slot.to_string()));
        super::accepted(&command, connection.call(&command)?)?;
    }
    let state = field(&info, "cluster_state");
    ensure!(state == Some("ok"), "the state of the cluster is {state:?}");
    Ok(())
}

fn info(connection: &mut Connection) -> Result<String> {
    match connection.call(&["INFO"])? {
        Value::Error(refusal) => bail!("it answers {refusal}"),
        info => Ok(info.text()),
    }
}

pub(super) fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
}
