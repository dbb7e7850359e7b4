//! The one error of the crate.
//!
//! What lives here: [`Error`], [`ErrorKind`] and the crate's `Result`. An error says what failed, keeps its
//! cause behind [`source`](std::error::Error::source) and has a kind named after what the caller does next.
//! It knows nothing of storage, threads or the web; foreign errors arrive boxed. It never carries a token or
//! a value of a session.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// A `Result` whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why an operation of this crate did not do what was asked.
///
/// `Display` shows this layer only, `{:#}` the whole chain of causes. Match on [`Error::kind`] to decide
/// what to do.
///
/// ```
/// let error = dwell::Options::new().idle_timeout(std::time::Duration::ZERO).in_memory().unwrap_err();
/// assert_eq!(error.kind(), dwell::ErrorKind::Invalid);
/// assert!(error.to_string().contains("idle"));
/// ```
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    source: Option<Cause>,
    retry_after: Option<Duration>,
}

/// What the caller can do about an [`Error`].
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The session has ended, or its token was replaced since this handle was made. Treat the visitor as
    /// signed out; nothing was written.
    Gone,
    /// A queue or a byte limit is full, or the session is being signed in right now. Try again in a moment.
    Busy,
    /// Too many anonymous sessions began lately, from one client or at all. [`Error::retry_after`] says when to try again.
    Throttled,
    /// The disk failed while the change was on its way to it: it may be there after a restart, or not.
    Unknown,
    /// The disk is full, or storage does not work any more; the message says which. Sessions go on. On a full disk they
    /// are still ended durably, anything new is refused, and it goes on by itself when there is room; otherwise
    /// durable changes are refused until the process restarts with a healthy disk.
    Storage,
    /// The session lives in memory only, so it cannot be saved.
    NotDurable,
    /// A rule of the application says no: the principal is disabled, or a limit on sessions is reached.
    Refused,
    /// A value, or the session with it, is over its size limit. Nothing was changed.
    TooLarge,
    /// An argument or option is not acceptable; the message says which and what would be.
    Invalid,
    /// A stored value does not decode as the type its strict field asks for.
    Decode,
    /// Another process, or this one, already has the directory open.
    Locked,
    /// The directory, its owner or its modes are not safe to use, or it cannot be used at all; the message
    /// names what to change.
    Directory,
    /// The key file is missing, foreign to this store, or lacks the key that the store needs.
    Key,
    /// The store was written in a format that this version does not read.
    Format,
    /// The files are damaged or were changed from outside. Nothing was altered.
    Corrupt,
    /// The engine was closed, or one of its workers panicked. Only opening again helps.
    Closed,
}

impl Error {
    /// What the caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// After how long trying again makes sense, where that is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// In whole seconds, as HTTP says it.
    #[cfg(feature = "rate-limit")]
    pub(crate) fn retry_after_at_least(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(Duration::from_secs(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)));
        self
    }

    pub(crate) fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), source: None, retry_after: None }))
    }

    pub(crate) fn because(mut self, source: impl Into<Cause>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    pub(crate) fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }

    pub(crate) fn corrupt(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Corrupt, message)
    }

    pub(crate) fn gone() -> Self {
        Self::new(ErrorKind::Gone, "the session has ended")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        if f.alternate() {
            let mut cause = std::error::Error::source(self);
            while let Some(error) = cause {
                write!(f, ": {error}")?;
                cause = error.source();
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("source", &self.0.source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|cause| cause as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_is_one_layer_and_alternate_is_the_chain() {
        let error = Error::new(ErrorKind::Storage, "failed to open `x`").because(std::io::Error::other("no space"));
        assert_eq!(error.to_string(), "failed to open `x`");
        assert_eq!(format!("{error:#}"), "failed to open `x`: no space");
        assert_eq!(error.kind(), ErrorKind::Storage);
    }
}
