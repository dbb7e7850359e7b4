//! What handlers ask for: the session, who is signed in, whether they proved it lately.

use std::sync::Arc;
use std::time::Duration;

use ::axum::extract::{FromRequestParts, OptionalFromRequestParts};
use ::axum::http::request::Parts;
use ::axum::http::{Extensions, HeaderMap, StatusCode, header};
use ::axum::response::{IntoResponse, Response};

use crate::error::{Error, ErrorKind, Result};
use crate::session::Session;
use crate::sessions::Sessions;
use crate::web::{Exchange, Refusal};

/// The exchange of the innermost layer, and of those around it.
#[derive(Clone)]
pub(super) struct Current {
    pub(super) exchange: Exchange,
    /// The request does not count as use of the session.
    pub(super) is_passive: bool,
    /// It was admitted as one that opens a stream.
    pub(super) streams: bool,
    pub(super) sign_in_page: Option<Arc<str>>,
    pub(super) outer: Option<Arc<Self>>,
}

impl Current {
    /// This layer and those around it, from the inside.
    pub(super) fn around(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |current| current.outer.as_deref())
    }
}

/// The exchange that a request has with this store, where routes are covered by layers of several.
///
/// ```
/// # async fn handler(request: axum::extract::Request, admin: dwell::Sessions) {
/// let exchange = dwell::axum::exchange_of(request.extensions(), &admin);
/// # let _ = exchange;
/// # }
/// ```
#[must_use]
pub fn exchange_of(extensions: &Extensions, sessions: &Sessions) -> Option<Exchange> {
    let mut layers = extensions.get::<Current>()?.around();
    layers.find(|current| current.exchange.site().sessions().is_same(sessions)).map(|found| found.exchange.clone())
}

/// Why an extractor did not let a request through: a [`Refusal`], or a way to the page where one signs in.
#[derive(Debug)]
pub struct Rejection(Kind);

#[derive(Debug)]
enum Kind {
    Refused(Refusal),
    Failed(Error),
    SignIn(Arc<str>),
}

impl Rejection {
    fn no_layer() -> Self {
        Self(Kind::Refused(Refusal::new(500, "internal", "this route is not covered by a session layer")))
    }
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        Self(Kind::Refused(refusal))
    }
}

impl From<Error> for Rejection {
    fn from(error: Error) -> Self {
        Self(Kind::Failed(error))
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        match self.0 {
            Kind::Refused(refusal) => refusal.into_response(),
            Kind::Failed(error) => error.into_response(),
            Kind::SignIn(page) => (StatusCode::SEE_OTHER, [(header::LOCATION, &*page)]).into_response(),
        }
    }
}

fn current(parts: &Parts) -> Result<&Current, Rejection> {
    parts.extensions.get::<Current>().ok_or_else(Rejection::no_layer)
}

/// The whole exchange: for sign-in pages, tokens and companions.
impl<S: Send + Sync> FromRequestParts<S> for Exchange {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        Ok(current(parts)?.exchange.clone())
    }
}

/// The request's session, or a new one that begins at its first write.
impl<S: Send + Sync> FromRequestParts<S> for Session {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        Ok(current(parts)?.exchange.session_or_new()?)
    }
}

/// The request's session, if it has one. Creates nothing.
impl<S: Send + Sync> OptionalFromRequestParts<S> for Session {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Rejection> {
        Ok(current(parts)?.exchange.session())
    }
}

/// A session that somebody is signed in to. Without one the answer is 401 `sign_in_required`, or, for a browser that
/// asks for a page, the way to [`SessionLayer::sign_in_page`](super::SessionLayer::sign_in_page). A signed-in session
/// whose companion secret is missing is 403 `companion`.
///
/// It says who was signed in when the head of the request arrived. The body may be long in coming: before a handler that
/// takes one acts on [`principal`](Self::principal) alone, without the session, it asks
/// [`Session::principal`] again, which is [`Gone`](ErrorKind::Gone) for whoever was signed out meanwhile.
///
/// ```
/// use dwell::axum::SignedIn;
/// async fn profile(user: SignedIn) -> String {
///     format!("hello {}", user.principal())
/// }
/// # let _ = axum::routing::get::<_, _, ()>(profile);
/// ```
#[derive(Clone, Debug)]
pub struct SignedIn {
    session: Session,
    principal: Arc<str>,
}

impl SignedIn {
    /// Who it is.
    #[must_use]
    pub fn principal(&self) -> &str {
        &self.principal
    }

    /// The session.
    #[must_use]
    pub const fn session(&self) -> &Session {
        &self.session
    }

    /// The session, to end it.
    #[must_use]
    pub fn into_session(self) -> Session {
        self.session
    }

    fn of(parts: &Parts) -> Result<Self, Rejection> {
        let current = current(parts)?;
        let session = current.exchange.session_or_new()?;
        match session.principal()? {
            Some(principal) => Ok(Self { session, principal }),
            None => Err(rejection(current, &parts.headers, Refusal::sign_in_required())),
        }
    }
}

fn rejection(current: &Current, headers: &HeaderMap, refusal: Refusal) -> Rejection {
    let page = current.sign_in_page.as_ref().filter(|_| wants_page(headers));
    page.map_or_else(|| refusal.into(), |page| Rejection(Kind::SignIn(Arc::clone(page))))
}

/// Whether a person is looking: scripts do not ask for pages.
fn wants_page(headers: &HeaderMap) -> bool {
    let mut accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.any(|value| value.contains("text/html"))
}

/// Whoever is signed in, if anybody is. Creates nothing.
impl<S: Send + Sync> OptionalFromRequestParts<S> for SignedIn {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Rejection> {
        let Some(session) = current(parts)?.exchange.session() else { return Ok(None) };
        let principal = match session.principal() {
            Err(error) if error.kind() == ErrorKind::Gone => None,
            principal => principal?,
        };
        Ok(principal.map(|principal| Self { session, principal }))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for SignedIn {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        Self::of(parts)
    }
}

/// A signed-in session whose person proved who they are within the last `SECONDS`: for what a stolen session must not
/// be able to do. Otherwise 401 `reauthentication_required`, or, for a browser that asks for a page, the way to
/// [`SessionLayer::sign_in_page`](super::SessionLayer::sign_in_page); see [`Session::reauthenticate`].
///
/// ```
/// use dwell::axum::Fresh;
/// async fn change_address(Fresh(user): Fresh<300>) -> String {
///     format!("{} may", user.principal())
/// }
/// # let _ = axum::routing::post::<_, _, ()>(change_address);
/// ```
#[derive(Clone, Debug)]
#[expect(clippy::exhaustive_structs, reason = "it is taken apart in handlers")]
pub struct Fresh<const SECONDS: u64 = 300>(pub SignedIn);

impl<const SECONDS: u64, S: Send + Sync> FromRequestParts<S> for Fresh<SECONDS> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        let user = SignedIn::of(parts)?;
        let age = user.session.auth_age()?;
        if age.is_some_and(|age| age <= Duration::from_secs(SECONDS)) {
            return Ok(Self(user));
        }
        Err(rejection(current(parts)?, &parts.headers, Refusal::not_fresh()))
    }
}
