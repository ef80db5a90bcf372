//! What is settled with a server over each new connection: who it is, and whether it was restarted since.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock},
    time::Duration,
};

use futures_util::future::join;
use lock_core::{Error, ErrorKind, Result, backend::BoxFuture};
use lock_redis::{Connection, Handshake, Script, fields, of_connecting};
use parking_lot::Mutex;

use crate::requests::{ACQUIRE, Memory, RESTORE_VOTE, Request, SURVEY};

/// The run ids of the servers, as far as they are known: a random one for each start of each server.
#[derive(Default)]
pub(crate) struct RunIds(Mutex<Vec<Option<String>>>);

impl RunIds {
    /// Returns the run id of the server at `index`; empty before the first connection.
    pub(crate) fn of(&self, index: usize) -> String {
        self.0.lock().get(index).cloned().flatten().unwrap_or_default()
    }

    fn enter(&self, index: usize, run: &str) -> Result<()> {
        let mut runs = self.0.lock();
        if runs.iter().enumerate().any(|(other, known)| other != index && known.as_deref() == Some(run)) {
            let message = "two of the addresses lead to one and the same server; each server has one vote";
            return Err(Error::new(ErrorKind::InvalidInput, message).without_effect());
        }
        if runs.len() <= index {
            runs.resize(index + 1, None);
        }
        runs[index] = Some(run.to_owned());
        Ok(())
    }
}

/// The handshake with one of the servers. Nobody asks it for its vote before.
pub(crate) struct VoterHandshake {
    pub(crate) index: usize,
    pub(crate) server: String,
    pub(crate) run_ids: Arc<RunIds>,
    pub(crate) memory: String,
    pub(crate) ttl: Duration,
}

impl Handshake for VoterHandshake {
    fn run<'a>(&'a self, connection: &'a Connection, told: Option<&'a str>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let Some(run) = fields(told, "run_id").next() else {
                let message = "the server does not tell its run id, so that nobody would know when it was restarted \
                               and forgot votes; allow INFO to the user";
                return Err(Error::new(ErrorKind::UnsafeConfig, message).without_effect());
            };
            self.run_ids.enter(self.index, run)?;
            let logs = fields(told, "aof_enabled").next() == Some("1");
            if !logs {
                tracing::warn!(
                    server = self.server,
                    "a server keeps no log of its writes: each restart costs it its vote for a while"
                );
            }
            let scripts: [&LazyLock<Script>; 3] = [&ACQUIRE, &SURVEY, &RESTORE_VOTE];
            let survey = Request::survey(&self.memory, self.ttl, run, logs, true);
            let (keys, arguments) = survey.borrowed();
            let settled = async {
                connection.load(&scripts.map(|script| &**script)).await?;
                connection.clone().run::<Memory>(survey.script, &keys, &arguments).await
            };
            let (settled, syncs) = join(settled, syncs_each_write(connection, logs)).await;
            if !syncs {
                tracing::warn!(
                    server = self.server,
                    "a server does not sync each write (appendfsync always): it may forget votes at a loss of power"
                );
            }
            settled.map(|_| ()).map_err(|error| of_connecting(error, &self.server))
        })
    }
}

/// Returns whether a server with a log writes it to the disk before it answers; yes if it has none or may not be asked.
async fn syncs_each_write(connection: &Connection, logs: bool) -> bool {
    let Some(mut connection) = connection.to_one_server().filter(|_| logs) else { return true };
    let mut asked = redis::cmd("CONFIG");
    asked.arg("GET").arg("appendfsync");
    let told = asked.query_async::<HashMap<String, String>>(&mut connection).await.unwrap_or_default();
    told.get("appendfsync").is_none_or(|policy| policy == "always")
}
