//! What an error of the client library means for a lock, in one place.

use std::{sync::Arc, time::Duration};

use etcd_client::Error as Client;
use lock_core::{Error, ErrorKind, backend::Effect};

/// What is known of a request that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It did not reach the server. Another endpoint may do better.
    NotSent,
    /// It may have been executed, now or later. Another endpoint may tell.
    Unknown,
    /// It was refused and not executed; every endpoint would refuse it.
    Refused,
}

/// Why a request failed.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    Client(Arc<Client>),
    NoAnswer(Duration),
    /// The endpoint must not be used, or nothing can be any more.
    Own(Error),
}

/// The numbers of gRPC, which the client library does not export under a name.
mod code {
    pub(super) const CANCELLED: i32 = 1;
    pub(super) const UNKNOWN: i32 = 2;
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const DEADLINE_EXCEEDED: i32 = 4;
    pub(super) const NOT_FOUND: i32 = 5;
    pub(super) const PERMISSION_DENIED: i32 = 7;
    pub(super) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(super) const FAILED_PRECONDITION: i32 = 9;
    pub(super) const ABORTED: i32 = 10;
    pub(super) const UNIMPLEMENTED: i32 = 12;
    pub(super) const INTERNAL: i32 = 13;
    pub(super) const UNAVAILABLE: i32 = 14;
    pub(super) const UNAUTHENTICATED: i32 = 16;
}

impl Failure {
    pub(crate) fn outcome(&self) -> Outcome {
        self.meaning().1
    }

    /// Returns whether the server says that it knows no such lease.
    pub(crate) fn is_end_of_lease(&self) -> bool {
        match self.code_and_text() {
            Some((code, text)) => code == code::NOT_FOUND && text.contains("lease not found"),
            // What the library itself makes of the answer "0 seconds left" to a first beat.
            None => matches!(self, Self::Client(client)
                if matches!(&**client, Client::LeaseKeepAliveError(text) if text == "lease not found")),
        }
    }

    /// Returns whether etcd's database is full, so that it takes nothing but deletions.
    pub(crate) fn is_out_of_space(&self) -> bool {
        let answer = self.code_and_text();
        answer.is_some_and(|(code, text)| code == code::RESOURCE_EXHAUSTED && text.contains("space exceeded"))
    }

    fn code_and_text(&self) -> Option<(i32, &str)> {
        let Self::Client(client) = self else { return None };
        match &**client {
            Client::GRpcStatus(status) => Some((i32::from(status.code()), status.message())),
            _ => None,
        }
    }

    /// Makes the failure of a watch that the user may not have; the server says so in an answer.
    pub(crate) fn not_permitted(reason: &str) -> Self {
        let message = "the user may not watch below the prefix; grant it a role that may";
        Self::Own(Error::new(ErrorKind::Auth, message).with_source(reason))
    }

    /// Returns the error for the caller of an operation of which this was the last request; `effect` is that of the
    /// earlier ones.
    pub(crate) fn into_error(self, server: &str, effect: Effect) -> Error {
        let (kind, outcome, message) = self.meaning();
        let error = match self {
            Self::NoAnswer(limit) => Error::no_answer(limit),
            Self::Client(cause) => Error::new(kind, message).with_source(cause),
            Self::Own(error) => error,
        };
        let error = error.with_server(server);
        if effect == Effect::Possible || outcome == Outcome::Unknown { error } else { error.without_effect() }
    }

    fn meaning(&self) -> (ErrorKind, Outcome, &'static str) {
        use ErrorKind::{Auth, InvalidInput, Unavailable, Unexpected};
        use Outcome::{NotSent, Refused, Unknown};
        const BROKEN: &str = "the connection broke; if it does so each time, does etcd listen there, and does one side \
                              want TLS?";
        let client = match self {
            Self::NoAnswer(_) => return (Unavailable, Unknown, ""),
            // Another endpoint may belong to the right cluster.
            Self::Own(error) if error.kind() == ErrorKind::UnsafeConfig => {
                return (error.kind(), NotSent, "");
            }
            Self::Own(error) => return (error.kind(), Refused, ""),
            Self::Client(client) => client,
        };
        let status = match &**client {
            Client::GRpcStatus(status) => status,
            Client::InvalidArgs(_) | Client::InvalidUri(_) => {
                return (InvalidInput, Refused, "the client refuses an endpoint or an option");
            }
            Client::TransportError(_) => {
                return (InvalidInput, Refused, "the client cannot use the TLS options");
            }
            Client::IoError(_)
            | Client::WatchError(_)
            | Client::LeaseKeepAliveError(_)
            | Client::EndpointError(_) => return (Unavailable, Unknown, BROKEN),
            _ => return (Unexpected, Unknown, "the client failed in a way that is not expected here"),
        };
        let text = status.message();
        match i32::from(status.code()) {
            code::UNAVAILABLE if text.contains("tcp connect error") => {
                (Unavailable, NotSent, "nothing listens there; is the server up, and is the port right?")
            }
            code::UNAVAILABLE if text.contains("dns error") => {
                (Unavailable, NotSent, "the host's name cannot be resolved")
            }
            code::UNAVAILABLE if text.contains("learner") => (
                Unavailable,
                NotSent,
                "this member is a learner, which serves no locks: promote it, or name members that vote",
            ),
            code::NOT_FOUND if text.contains("lease not found") => {
                (Unavailable, Refused, "the session is over: its lease was revoked, or has ended")
            }
            code::UNAVAILABLE if text.starts_with("etcdserver:") => {
                (Unavailable, Unknown, "the cluster has no leader, or too few members to decide anything")
            }
            code::UNAUTHENTICATED => (Auth, Refused, "the login is not valid, or no longer"),
            // The client library makes these codes of a broken connection, too; only etcd's own text is a refusal.
            code::PERMISSION_DENIED | code::RESOURCE_EXHAUSTED if !text.starts_with("etcdserver:") => {
                (Unavailable, Unknown, BROKEN)
            }
            code::PERMISSION_DENIED => {
                (Auth, Refused, "the user may not read and write below the prefix; grant it a role that may")
            }
            code::INVALID_ARGUMENT if text.contains("authentication failed") => {
                (Auth, Refused, "the user or the password is wrong")
            }
            code::INVALID_ARGUMENT if text.contains("user name is empty") => {
                (Auth, Refused, "the server wants a user and a password: see Target::with_user")
            }
            code::FAILED_PRECONDITION if text.contains("authentication is not enabled") => {
                (Auth, Refused, "a user was given, but the server has no authentication; connect without")
            }
            code::RESOURCE_EXHAUSTED if text.contains("space exceeded") => (
                Unavailable,
                Refused,
                "etcd's database is full and takes no new locks; compact and defragment it, then disarm the alarm",
            ),
            code::RESOURCE_EXHAUSTED => {
                (Unavailable, Refused, "the server is overloaded and refuses requests")
            }
            code::UNIMPLEMENTED => {
                (Unexpected, Refused, "what listens there is not etcd with its API v3; check the port")
            }
            code::UNAVAILABLE
            | code::CANCELLED
            | code::DEADLINE_EXCEEDED
            | code::UNKNOWN
            | code::ABORTED
            | code::INTERNAL => (Unavailable, Unknown, BROKEN),
            _ => (Unexpected, Unknown, "the server answered with an error that is not expected here"),
        }
    }
}

impl From<Client> for Failure {
    fn from(error: Client) -> Self {
        Self::Client(Arc::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::{Code, Status};

    #[test]
    fn each_error_has_its_meaning() {
        use ErrorKind::{Auth, Unavailable, Unexpected};
        use Outcome::{NotSent, Refused, Unknown};
        for (code, text, kind, outcome) in [
            (Code::Unavailable, "tcp connect error", Unavailable, NotSent),
            (Code::Unavailable, "dns error", Unavailable, NotSent),
            (Code::Unavailable, "http2 error", Unavailable, Unknown),
            (Code::Unavailable, "etcdserver: no leader", Unavailable, Unknown),
            (Code::Unavailable, "etcdserver: request timed out", Unavailable, Unknown),
            (Code::Cancelled, "Timeout expired", Unavailable, Unknown),
            (Code::Unknown, "h2 protocol error", Unavailable, Unknown),
            (Code::Internal, "h2 protocol error", Unavailable, Unknown),
            (Code::DeadlineExceeded, "", Unavailable, Unknown),
            (Code::Unauthenticated, "etcdserver: invalid auth token", Auth, Refused),
            (Code::PermissionDenied, "etcdserver: permission denied", Auth, Refused),
            (
                Code::InvalidArgument,
                "etcdserver: authentication failed, invalid user ID or password",
                Auth,
                Refused,
            ),
            (Code::InvalidArgument, "etcdserver: user name is empty", Auth, Refused),
            (Code::FailedPrecondition, "etcdserver: authentication is not enabled", Auth, Refused),
            (Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded", Unavailable, Refused),
            (Code::ResourceExhausted, "etcdserver: too many requests", Unavailable, Refused),
            (
                Code::ResourceExhausted,
                "h2 protocol error: stream error received: detected excessive load generating behavior",
                Unavailable,
                Unknown,
            ),
            (Code::ResourceExhausted, "grpc: received message larger than max", Unavailable, Unknown),
            (
                Code::PermissionDenied,
                "h2 protocol error: connection error received: security properties do not meet minimum requirements",
                Unavailable,
                Unknown,
            ),
            (Code::Unimplemented, "", Unexpected, Refused),
            (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted", Unexpected, Unknown),
            (Code::NotFound, "etcdserver: requested lease not found", Unavailable, Refused),
            (Code::Unavailable, "etcdserver: rpc not supported for learner", Unavailable, NotSent),
        ] {
            let failure = || Failure::from(Client::GRpcStatus(Status::new(code, text)));
            assert_eq!(failure().outcome(), outcome, "{code:?} {text}");
            let error = failure().into_error("here", Effect::None);
            assert_eq!(
                (error.kind(), error.effect() == Effect::None),
                (kind, outcome != Unknown),
                "{code:?} {text}"
            );
            assert_eq!(failure().into_error("here", Effect::Possible).effect(), Effect::Possible);
            assert_eq!(failure().is_end_of_lease(), code == Code::NotFound);
        }
    }

    #[test]
    fn silence_is_no_refusal() {
        let error = Failure::NoAnswer(Duration::from_secs(1)).into_error("here", Effect::None);
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Possible));
        assert!(error.is_transient());
    }
}
