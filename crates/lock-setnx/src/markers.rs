//! The markers of slots on one Redis: how they are named, and when they are not to be believed.

use lock_core::{Error, ErrorKind, Result, backend::BoxFuture, movable::Slot};
use lock_redis::{Connection, Handshake, Node, Prefix, fields, of_connecting};

use crate::scripts::of_slots::{ADOPT, CHANGE_MARKER, DROP_COPY, HOLDS, PUT_COPIES, RECOGNISE};

/// Returns the name of a slot's marker.
pub(crate) fn marker(prefix: &Prefix, slot: Slot) -> String {
    prefix.beside(slot, "marker")
}

/// Has a server that was restarted recognised, which may have come back with older markers.
pub(crate) fn prepare(node: Node, prefix: &Prefix) -> Node {
    let mut keys = vec![prefix.beside(Slot::default(), "run")];
    keys.extend(Slot::all().map(|slot| marker(prefix, slot)));
    let scripts = [&CHANGE_MARKER, &HOLDS, &PUT_COPIES, &ADOPT, &DROP_COPY];
    scripts.into_iter().fold(node, Node::with_script).with_handshake(Recognition { keys })
}

/// The handshake with a server that has markers.
struct Recognition {
    keys: Vec<String>,
}

impl Handshake for Recognition {
    fn run<'a>(&'a self, connection: &'a Connection, told: Option<&'a str>) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let Some(run) = fields(told, "run_id").next() else {
                let message = "the server does not tell its run id, so that nobody would know when it came back with \
                               older markers; allow INFO to the user";
                return Err(Error::new(ErrorKind::UnsafeConfig, message).without_effect());
            };
            let logs = fields(told, "aof_enabled").next().unwrap_or("0");
            let keys: Vec<_> = self.keys.iter().map(String::as_str).collect();
            let recognised = connection.clone().run::<bool>(&RECOGNISE, &keys, &[run, logs]).await;
            if recognised.map_err(|error| of_connecting(error, "the server"))? {
                tracing::warn!(
                    "a server without a log of its writes was restarted: no slot is open there any more; see \
                     `lock-shards force`"
                );
            }
            Ok(())
        })
    }
}
