//! What an error of the client library means for a lock, in one place.

use std::time::Duration;

use lock_core::{Error, ErrorKind, backend::Effect};
use zookeeper_client::Error as Zk;

/// An address in which there may be a user and a password: it is not shown.
pub(crate) fn user_in_address() -> Error {
    let message = "an `@` in the address; users and passwords go into `with_digest` or `with_auth`";
    Error::new(ErrorKind::InvalidInput, message).without_effect()
}

/// What is not the address of an ensemble.
pub(crate) fn bad_address(reason: &str) -> Error {
    let message =
        format!("not the address of an ensemble ({reason}); write host[:port][,host[:port]…][/chroot]");
    Error::new(ErrorKind::InvalidInput, message).without_effect()
}

/// An error while opening a session: no lock can be affected.
pub(crate) fn of_connecting(error: Zk) -> Error {
    match error {
        Zk::BadArguments(reason) => bad_address(reason),
        Zk::NoHosts => {
            let message = "no server gave a session; is one up and in touch with a majority, is the port right, does \
                           it speak ZooKeeper, with TLS or without, and does it allow so many connections of one \
                           client (maxClientCnxns)?";
            Error::new(ErrorKind::Unavailable, message).without_effect()
        }
        error => classified(error).without_effect(),
    }
}

/// What those hear who wait for a session from servers that are silent.
pub(crate) fn silence(limit: Duration) -> Error {
    let message = format!("no session within {limit:?}; is a server reachable, and does it speak ZooKeeper?");
    Error::new(ErrorKind::Unavailable, message).without_effect()
}

/// An error of a request.
pub(crate) fn of_request(error: Zk, servers: &str) -> Error {
    classified(error).with_server(servers)
}

/// What a request meets in a session that is over.
pub(crate) fn session_over(servers: &str) -> Error {
    Error::new(ErrorKind::Unavailable, "the session is over; the next acquire opens another")
        .with_server(servers)
}

fn classified(error: Zk) -> Error {
    use Effect::{None as Nothing, Possible};
    use ErrorKind::{Auth, InvalidInput, Unavailable, Unexpected, UnsafeConfig, Unsupported};
    let (kind, effect, message) = match &error {
        Zk::NoAuth => (
            Auth,
            Nothing,
            "the user may not do what locks need; allow create, read, write and delete on the prefix and below",
        ),
        Zk::AuthFailed => (Auth, Nothing, "the server refused the user or the password"),
        Zk::InvalidAcl => {
            (InvalidInput, Nothing, "the server refused the ACL; does it name an identity that nobody gave?")
        }
        Zk::NotReadOnly => (Unavailable, Nothing, "the server has lost its ensemble and takes no writes"),
        Zk::QuotaExceeded => (Unavailable, Nothing, "the quota on the prefix is used up"),
        Zk::Throttled => (Unavailable, Nothing, "the server is overloaded and refused the request"),
        Zk::Unimplemented => {
            (Unsupported, Nothing, "the server is too old; locks need ZooKeeper 3.5.3 or newer")
        }
        Zk::NoChildrenForEphemerals => (
            UnsafeConfig,
            Nothing,
            "another program keeps an ephemeral node on the prefix; choose another prefix",
        ),
        Zk::NoHosts => (Unavailable, Nothing, "no server could be reached"),
        Zk::SessionExpired | Zk::SessionMoved | Zk::ClientClosed => {
            (Unavailable, Possible, "the session is over; the next acquire opens another")
        }
        Zk::ConnectionLoss | Zk::Timeout | Zk::Custom(_) => {
            (Unavailable, Possible, "the connection broke before the answer came")
        }
        Zk::NoNode => (Unavailable, Nothing, "the queue was deleted while it was joined"),
        _ => (Unexpected, Possible, "the server answered in a way that is not expected here"),
    };
    let classified = Error::new(kind, message).with_source(error);
    if effect == Nothing { classified.without_effect() } else { classified }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_its_meaning() {
        for (error, kind, no_effect) in [
            (Zk::ConnectionLoss, ErrorKind::Unavailable, false),
            (Zk::Timeout, ErrorKind::Unavailable, false),
            (Zk::SessionExpired, ErrorKind::Unavailable, false),
            (Zk::SessionMoved, ErrorKind::Unavailable, false),
            (Zk::ClientClosed, ErrorKind::Unavailable, false),
            (Zk::NoHosts, ErrorKind::Unavailable, true),
            (Zk::Throttled, ErrorKind::Unavailable, true),
            (Zk::QuotaExceeded, ErrorKind::Unavailable, true),
            (Zk::NotReadOnly, ErrorKind::Unavailable, true),
            (Zk::NoAuth, ErrorKind::Auth, true),
            (Zk::AuthFailed, ErrorKind::Auth, true),
            (Zk::InvalidAcl, ErrorKind::InvalidInput, true),
            (Zk::Unimplemented, ErrorKind::Unsupported, true),
            (Zk::NoChildrenForEphemerals, ErrorKind::UnsafeConfig, true),
            (Zk::UnexpectedErrorCode(-99), ErrorKind::Unexpected, false),
            (Zk::NodeExists, ErrorKind::Unexpected, false),
        ] {
            let shown = format!("{error:?}");
            let meaning = of_request(error, "here");
            assert_eq!((meaning.kind(), meaning.effect() == Effect::None), (kind, no_effect), "{shown}");
        }
    }

    #[test]
    fn connecting_never_has_an_effect() {
        for (error, kind) in [
            (Zk::NoHosts, ErrorKind::Unavailable),
            (Zk::Timeout, ErrorKind::Unavailable),
            (Zk::BadArguments(&"invalid address"), ErrorKind::InvalidInput),
            (Zk::AuthFailed, ErrorKind::Auth),
        ] {
            let meaning = of_connecting(error);
            assert_eq!((meaning.kind(), meaning.effect() == Effect::None), (kind, true));
        }
    }
}
