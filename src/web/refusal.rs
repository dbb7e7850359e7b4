//! Refusals: what a request is answered with when a session rule says no.
//!
//! What lives here: [`Refusal`] and the table from errors to statuses. It knows the error and nothing of frameworks.
//! Invariants: what a client is told names no file, no cause and no other session; a fault is never answered as if
//! there were no session.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::error::{Error, ErrorKind};

/// Why a request is not served: a status, a code for programs, a sentence for people.
///
/// ```
/// use dwell::web::Refusal;
/// let error = dwell::Options::new().idle_timeout(std::time::Duration::ZERO).in_memory().unwrap_err();
/// let refusal = Refusal::from(&error);
/// assert_eq!((refusal.status(), refusal.code()), (422, "invalid"));
/// ```
#[derive(Clone, Debug)]
pub struct Refusal {
    status: u16,
    code: &'static str,
    reason: Cow<'static, str>,
    retry_after: Option<u32>,
    /// For the log, never for the client.
    cause: Option<Arc<Error>>,
}

impl Refusal {
    /// A refusal of the application's own, in the same form.
    #[must_use]
    pub fn new(status: u16, code: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, reason: reason.into(), retry_after: None, cause: None }
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// What is wrong, as a short name that does not change.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.code
    }

    /// What is wrong, as a sentence.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// After how many seconds trying again makes sense, where it does.
    #[must_use]
    pub const fn retry_after(&self) -> Option<u32> {
        self.retry_after
    }

    /// The error behind it, where there is one: for a log, as a client is told no causes.
    #[must_use]
    pub const fn cause(&self) -> Option<&Arc<Error>> {
        self.cause.as_ref()
    }

    /// The headers that its answer needs, besides those of the exchange. Names are in lower case.
    #[must_use]
    pub fn headers(&self) -> Vec<(&'static str, Cow<'static, str>)> {
        let mut headers =
            vec![("cache-control", Cow::Borrowed("no-store")), ("x-content-type-options", Cow::Borrowed("nosniff"))];
        headers.extend(self.retry_after.map(|seconds| ("retry-after", Cow::Owned(seconds.to_string()))));
        headers
    }

    const fn retry(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    pub(super) fn host_malformed() -> Self {
        Self::new(400, "host", "the request names no host, more than one, or none that makes sense")
    }

    pub(super) fn host_foreign() -> Self {
        Self::new(421, "host", "this site does not answer to that host name")
    }

    pub(super) fn foreign_page() -> Self {
        Self::new(403, "origin", "the request does not come from a page of this site")
    }

    pub(super) fn no_origin() -> Self {
        Self::new(403, "origin", "a request with a session has to say which page it comes from")
    }

    pub(super) fn token() -> Self {
        Self::new(403, "csrf", "the request lacks the token of the page, or the page is out of date; load it again")
    }

    pub(super) fn companion() -> Self {
        Self::new(403, "companion", "the request lacks the secret that goes with the session's cookie")
    }

    #[cfg_attr(not(feature = "axum"), expect(dead_code, reason = "extractors say it"))]
    pub(super) fn sign_in_required() -> Self {
        Self::new(401, "sign_in_required", "this needs a sign-in")
    }

    #[cfg_attr(not(feature = "axum"), expect(dead_code, reason = "extractors say it"))]
    pub(super) fn not_fresh() -> Self {
        Self::new(401, "reauthentication_required", "this needs a password that was given a moment ago")
    }

    pub(super) fn session_ended() -> Self {
        Self::new(401, "session_ended", "the session has ended")
    }
}

/// The one table of what an error means to a client.
impl From<&Error> for Refusal {
    fn from(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::Gone => Self::session_ended(),
            ErrorKind::Busy => Self::new(503, "busy", "too much is being written; try again in a moment").retry(1),
            ErrorKind::Throttled => {
                let seconds = error.retry_after().map_or(1, |wait| u32::try_from(wait.as_secs()).unwrap_or(u32::MAX));
                Self::new(429, "flood", error.to_string()).retry(seconds.max(1))
            }
            ErrorKind::TooLarge => Self::new(413, "too_large", error.to_string()),
            ErrorKind::Invalid => Self::new(422, "invalid", error.to_string()),
            ErrorKind::Refused => Self::new(403, "refused", error.to_string()),
            ErrorKind::Storage | ErrorKind::Unknown | ErrorKind::Corrupt | ErrorKind::Closed => {
                Self::new(503, "storage", "the session store does not work at the moment").retry(10)
            }
            ErrorKind::NotDurable
            | ErrorKind::Decode
            | ErrorKind::Locked
            | ErrorKind::Directory
            | ErrorKind::Key
            | ErrorKind::Format => Self::new(500, "internal", "the application uses its session store wrongly"),
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let refusal = Self::from(&error);
        Self { cause: Some(Arc::new(error)), ..refusal }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.status, self.code, self.reason)
    }
}

impl std::error::Error for Refusal {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_never_told_as_no_session() {
        for kind in [ErrorKind::Storage, ErrorKind::Unknown, ErrorKind::Corrupt, ErrorKind::Closed] {
            let refusal = Refusal::from(Error::new(kind, "failed to read `/secret/place`"));
            assert_eq!((refusal.status(), refusal.code(), refusal.retry_after()), (503, "storage", Some(10)));
            assert!(!refusal.to_string().contains("/secret"));
        }
        assert_eq!(Refusal::from(Error::gone()).status(), 401);
        assert_eq!(Refusal::from(Error::new(ErrorKind::Busy, "")).retry_after(), Some(1));
        assert_eq!(Refusal::from(Error::new(ErrorKind::TooLarge, "")).status(), 413);
        assert_eq!(Refusal::from(Error::invalid("")).status(), 422);
    }
}
