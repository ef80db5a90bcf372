//! The one error type.

use std::{convert::Infallible, error::Error as StdError, fmt, sync::Arc, time::Duration};

use crate::Key;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a lock operation failed: a [kind](Self::kind) for programs, a sentence for people.
///
/// Cheap to clone, so that all who shared one request can share its failure.
///
/// A key that is held by another is not an error: `try_lock` says so with `Ok(None)`.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    transient: bool,
    effect: Effect,
    message: String,
    key: Option<Key>,
    server: Option<String>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// What sort of failure it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The caller gave something that cannot work: an empty key, a TTL of zero. Nothing was sent.
    InvalidInput,
    /// The backend cannot do this at all. Nothing was sent.
    Unsupported,
    /// The servers did not answer, or cannot serve now. [`Error::effect`] tells whether anything may have been done;
    /// what may have been left is undone in the background.
    Unavailable,
    /// The lock was held and is no longer: another may have held it since.
    Lost,
    /// The locker was closed, or its runtime has ended. Nothing is sent any more.
    Closed,
    /// The server refused the user, the password, or the right to run a command. Nothing was done.
    Auth,
    /// The server is set up in a way that breaks a promise. Nothing was done.
    UnsafeConfig,
    /// The server or the library did what neither should. The outcome is unknown.
    Unexpected,
}

/// Whether a request changed anything on any server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It certainly changed nothing, and never will.
    None,
    /// It changed something, or may have, or still may when it arrives.
    Possible,
}

impl Effect {
    /// Returns [`None`](Self::None) if both certainly changed nothing.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        if self == Self::None { other } else { self }
    }
}

impl Error {
    /// Makes an error of `kind`; `message` is one lower-case line that says what failed and what to do.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            kind,
            transient: kind == ErrorKind::Unavailable,
            effect: Effect::Possible,
            message: message.into(),
            key: None,
            server: None,
            source: None,
        }))
    }

    /// Makes the error of a request that was not answered `within` its bound.
    #[must_use]
    pub fn no_answer(within: Duration) -> Self {
        Self::new(
            ErrorKind::Unavailable,
            format!("no answer within {within:?}; is the server up, reachable and not overloaded?"),
        )
    }

    fn inner(&mut self) -> &mut Inner {
        Arc::make_mut(&mut self.0)
    }

    pub(crate) fn lost(reason: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Lost, format!("the lock was lost: {reason}"))
    }

    /// Adds the cause, which [`source`](StdError::source) gives back and `Display` does not repeat.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.inner().source = Some(Arc::from(source.into()));
        self
    }

    /// Names the key, unless one is named already.
    #[must_use]
    pub fn with_key(mut self, key: &Key) -> Self {
        self.inner().key.get_or_insert_with(|| key.clone());
        self
    }

    /// Names the server, unless one is named already. Must not contain a password.
    #[must_use]
    pub fn with_server(mut self, server: &str) -> Self {
        self.inner().server.get_or_insert_with(|| server.to_owned());
        self
    }

    /// States that the operation certainly did nothing, so that nothing has to be undone.
    #[must_use]
    pub fn without_effect(self) -> Self {
        self.with_effect(Effect::None)
    }

    /// States what the operation may have done.
    #[must_use]
    pub fn with_effect(mut self, effect: Effect) -> Self {
        self.inner().effect = effect;
        self
    }

    /// States that the same call will not succeed as long as nothing else changes.
    #[cfg(feature = "movable")]
    pub(crate) fn lasting(mut self) -> Self {
        self.inner().transient = false;
        self
    }

    /// Returns what sort of failure it was.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns whether the same call may succeed later without any change by people.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.0.transient
    }

    /// Returns whether the operation may have changed anything on any server.
    #[must_use]
    pub fn effect(&self) -> Effect {
        self.0.effect
    }

    /// Returns the key that the operation was about, if it was about one.
    #[must_use]
    pub fn key(&self) -> Option<&Key> {
        self.0.key.as_ref()
    }

    /// Returns the server that failed, without user and password, if it was one.
    #[must_use]
    pub fn server(&self) -> Option<&str> {
        self.0.server.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { message, key, server, .. } = &*self.0;
        f.write_str(message)?;
        match (key, server) {
            (None, None) => Ok(()),
            (Some(key), None) => write!(f, " (key {key:?})"),
            (None, Some(server)) => write!(f, " (server {server})"),
            (Some(key), Some(server)) => write!(f, " (key {key:?}, server {server})"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, transient, effect, source, .. } = &*self.0;
        let mut shown = f.debug_struct("Error");
        shown.field("kind", kind).field("message", &format_args!("{self}"));
        shown.field("transient", transient).field("effect", effect).field("source", source).finish()
    }
}

/// For generic conversions of which one can never fail.
impl From<Infallible> for Error {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_is_one_line_and_leaves_the_source_to_source() {
        let error = Error::new(ErrorKind::Unavailable, "no answer")
            .with_key(&Key::new("a\nb").unwrap())
            .with_server("redis://127.0.0.1:1")
            .with_source("broken pipe");
        assert_eq!(error.to_string(), r#"no answer (key "a\nb", server redis://127.0.0.1:1)"#);
        assert_eq!(error.source().unwrap().to_string(), "broken pipe");
        assert_eq!((error.is_transient(), error.effect()), (true, Effect::Possible));
        assert_eq!(
            (error.key().map(Key::as_str), error.server()),
            (Some("a\nb"), Some("redis://127.0.0.1:1"))
        );
    }
}
