//! What an error of the client library means for a lock, in one place.

use std::{error::Error as StdError, io, sync::Arc};

use lock_core::{Error, ErrorKind, backend::Effect};
use redis::{ErrorKind as Redis, RedisError, ServerErrorKind as Server};

/// Makes an error of an address that cannot be read.
pub(crate) fn of_address(error: &RedisError) -> Error {
    // The library's own text is left out: an address may contain a password.
    let message = match error.kind() {
        Redis::InvalidClientConfig if error.to_string().contains("feature") => {
            "this address needs TLS; build the lock's crate with its feature `tls`"
        }
        _ => {
            "not an address of Redis; write redis://[user:password@]host[:port][/database], or rediss:// for TLS"
        }
    };
    Error::new(ErrorKind::InvalidInput, message).without_effect()
}

/// Makes the error of a connection that failed: no lock can be affected.
#[must_use]
pub fn of_connecting(error: RedisError, server: &str) -> Error {
    let error = match error.kind() {
        // The handshake is the first thing that a server of another kind fails to understand.
        Redis::Parse | Redis::UnexpectedReturnType => {
            let message = "what listens there does not speak the Redis protocol; check the port";
            Error::new(ErrorKind::Unexpected, message).with_source(error)
        }
        Redis::Io if is_about_tls(&error) => {
            let message = "the TLS handshake failed; does this port speak TLS, and is the certificate's issuer \
                           trusted?";
            Error::new(ErrorKind::Unavailable, message).with_source(error)
        }
        Redis::InvalidClientConfig => of_address(&error).with_source(error),
        _ => classified(error).0,
    };
    error.with_server(server).without_effect()
}

/// Makes an error of a request that failed.
pub(crate) fn of_request(error: RedisError, server: &str) -> Error {
    let (classified, effect) = classified(error);
    classified.with_server(server).with_effect(effect)
}

/// Makes an error of a request that failed, and of which an earlier copy may have been executed.
pub(crate) fn of_repeated_request(error: RedisError, server: &str) -> Error {
    classified(error).0.with_server(server)
}

/// Returns what an error of the client library means, and whether this copy of the request may have changed anything.
fn classified(error: RedisError) -> (Error, Effect) {
    use Effect::{None as Nothing, Possible};
    use ErrorKind::{Auth, Unavailable, Unexpected, UnsafeConfig};
    let (kind, effect, message) = match (error.kind(), error.code()) {
        (Redis::AuthenticationFailed, _) | (_, Some("WRONGPASS" | "NOAUTH")) => {
            (Auth, Nothing, "the user or the password is wrong, or one is needed")
        }
        (Redis::Server(Server::NoPerm), _) => (
            Auth,
            Nothing,
            "the user may not run a command that locks need; allow those that the crate's page lists, EVALSHA and INFO \
             among them",
        ),
        (Redis::Server(Server::ReadOnly), _) => {
            (Unavailable, Nothing, "the server is a replica and takes no locks; connect to the primary")
        }
        (Redis::Server(Server::BusyLoading), _) => {
            (Unavailable, Nothing, "the server is still loading its data")
        }
        (Redis::Server(Server::ClusterDown | Server::TryAgain | Server::MasterDown), _) => {
            (Unavailable, Nothing, "the cluster is not ready")
        }
        (Redis::Server(Server::Moved | Server::Ask), _) => (
            UnsafeConfig,
            Nothing,
            "the server is a node of a Redis Cluster, and another node has this key; connect to the whole cluster \
             (lock-setnx can, with its feature `cluster`), or to a server that has all keys",
        ),
        (Redis::Server(Server::CrossSlot), _) => {
            (Unexpected, Nothing, "the cluster says that a lock and its counter are on different nodes")
        }
        (kind, _) if is_about_connections(&error) && kind != Redis::Io => (
            Unavailable,
            Nothing,
            "the server has no connection left (maxclients); raise the limit, or close some",
        ),
        (_, Some("OOM")) => (Unavailable, Nothing, "the server's memory is full; it takes no new locks"),
        (_, Some("BUSY")) => (Unavailable, Nothing, "the server is busy with somebody's script"),
        (_, Some("MISCONF" | "NOREPLICAS")) => (
            Unavailable,
            Nothing,
            "the server takes no writes at the moment, as it was told to in such a state",
        ),
        (_, Some("WRONGTYPE")) => (
            UnsafeConfig,
            Nothing,
            "another program keeps something else under the lock's name; choose another prefix",
        ),
        (Redis::Io, _) if error.is_connection_refusal() => {
            (Unavailable, Nothing, "nothing listens there; is the server up, and is the port right?")
        }
        (Redis::Io, _) if is_about_names(&error) => {
            (Unavailable, Nothing, "the host's name cannot be resolved")
        }
        (Redis::Io, _) => (
            Unavailable,
            Possible,
            "the connection broke; if it does so each time, does the server want TLS, or has it no connection left \
             (maxclients)?",
        ),
        (
            Redis::MasterNameNotFoundBySentinel | Redis::EmptySentinelList | Redis::ClusterConnectionNotFound,
            _,
        ) => (Unavailable, Nothing, "no server to send the request to was found"),
        _ => (Unexpected, Possible, "the server answered with an error that is not expected here"),
    };
    (Error::new(kind, message).with_source(error), effect)
}

fn is_about_tls(error: &RedisError) -> bool {
    // rustls hands its errors over inside of I/O errors of this kind, and the library shares those.
    let shared = error.source().and_then(|source| source.downcast_ref::<Arc<dyn StdError + Send + Sync>>());
    let cause = shared.and_then(|shared| shared.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::InvalidData)
}

fn is_about_connections(error: &RedisError) -> bool {
    error.to_string().contains("max number of clients")
}

fn is_about_names(error: &RedisError) -> bool {
    error.to_string().contains("lookup address")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io(kind: io::ErrorKind) -> RedisError {
        io::Error::from(kind).into()
    }

    #[test]
    fn each_error_has_its_meaning() {
        for (error, kind, no_effect) in [
            (io(io::ErrorKind::BrokenPipe), ErrorKind::Unavailable, false),
            (io(io::ErrorKind::TimedOut), ErrorKind::Unavailable, false),
            (io(io::ErrorKind::ConnectionRefused), ErrorKind::Unavailable, true),
            ((Redis::AuthenticationFailed, "…").into(), ErrorKind::Auth, true),
            ((Redis::Server(Server::NoPerm), "…").into(), ErrorKind::Auth, true),
            ((Redis::Server(Server::ReadOnly), "…").into(), ErrorKind::Unavailable, true),
            ((Redis::Server(Server::BusyLoading), "…").into(), ErrorKind::Unavailable, true),
            ((Redis::Server(Server::ClusterDown), "…").into(), ErrorKind::Unavailable, true),
            ((Redis::Server(Server::Moved), "…").into(), ErrorKind::UnsafeConfig, true),
            ((Redis::Server(Server::CrossSlot), "…").into(), ErrorKind::Unexpected, true),
            ((Redis::Server(Server::ResponseError), "…").into(), ErrorKind::Unexpected, false),
            ((Redis::Parse, "…").into(), ErrorKind::Unexpected, false),
        ] {
            let shown = format!("{error}");
            let meaning = of_request(error.clone(), "here");
            assert_eq!((meaning.kind(), meaning.effect() == Effect::None), (kind, no_effect), "{shown}");
            assert_eq!(of_repeated_request(error, "here").effect(), Effect::Possible, "{shown}");
        }
    }

    #[test]
    fn addresses_are_not_repeated() {
        let error = of_address(&redis::Client::open("http://user:secret@host").unwrap_err());
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(!format!("{error} {error:?}").contains("secret"));
    }
}
