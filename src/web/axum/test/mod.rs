//! Visitors for tests of applications with the layer: a browser without a window, and without a network.
//!
//! What lives here: [`Visitor`] (who asks), [`Answer`] (what came back), and the jar of cookies between them. It knows the
//! layer and what browsers do. Invariants: what a visitor asks about itself counts as no use of its session; nothing here
//! gets past a check that a browser would not get past.
//!
//! ```
//! use std::time::Duration;
//! use axum::{Router, routing::get};
//! use dwell::axum::{SessionLayer, SignedIn, test::Visitor};
//! use dwell::{ManualClock, Options, Sessions};
//!
//! fn app(layer: SessionLayer) -> Router {
//!     Router::new().route("/me", get(async |user: SignedIn| user.principal().to_owned())).layer(layer)
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> dwell::Result<()> {
//! // In a test of yours, under `#[tokio::test]`:
//! let clock = ManualClock::new();
//! let sessions = Options::new().clock(clock.clone()).manual_workers().in_memory()?;
//! let layer = SessionLayer::development(sessions.clone());
//! let mut ada = Visitor::new(app(layer.clone()), &layer);
//! ada.sign_in("ada").await?;
//! assert_eq!(ada.get("/me").await.text(), "ada");
//! clock.advance(Duration::from_secs(30 * 60)); // half an hour without a request
//! sessions.run_pending();
//! assert_eq!(ada.get("/me").await.status(), 401);
//! # Ok(())
//! # }
//! ```

mod answer;
mod jar;

use std::fmt;
use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};

use ::axum::body::{Body, Bytes, HttpBody};
use ::axum::extract::ConnectInfo;
use ::axum::http::request::Builder;
use ::axum::http::{HeaderMap, HeaderName, HeaderValue, Request, Response, header};
use ::axum::{BoxError, Router};
use form_urlencoded::Serializer;
use serde::Serialize;
use tower_service::Service;

pub use self::answer::Answer;
use self::jar::Jar;
use super::connection::Connection;
use super::layer::{SessionLayer, facts};
use crate::error::{Error, ErrorKind, Result};
use crate::session::Session;
use crate::sign_in::SignIn;
use crate::token::Token;
use crate::web::exchange::companion_of;
use crate::web::front::Front;
use crate::web::{Exchange, Opened, Site};

/// Somebody with a browser of their own, for tests of an application: a jar of cookies, and the headers by which browsers
/// say where a request comes from.
///
/// Works for every profile and any service that an application ends up as. Each request is made as a script in a page of
/// the site would make it: with the site's own host, the cookies, `Origin` and `Sec-Fetch-Site` where browsers send them,
/// and the companion secret where the profile wants one. [`post`](Self::post) and its siblings also show the token of such
/// a page, which they ask of the layer and not of your pages. Redirects are not followed.
///
/// [`sign_in`](Self::sign_in) makes a real session in the store, without your form.
///
/// Clones are the same browser until either of them is answered with another cookie. For somebody else, see
/// [`another`](Self::another):
///
/// ```
/// # use axum::{Router, routing::{get, post}};
/// # use dwell::axum::{SessionLayer, SignedIn, test::Visitor};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> dwell::Result<()> {
/// # let layer = SessionLayer::localhost(dwell::Options::new().in_memory()?);
/// # let app = Router::new()
/// #     .route("/me", get(async |user: SignedIn| user.principal().to_owned()))
/// #     .route("/leave", post(async |user: SignedIn| user.into_session().destroy()?.await))
/// #     .layer(layer.clone());
/// let mut ada = Visitor::new(app, &layer).header("User-Agent", "Firefox/145.0 (Linux)");
/// let mut eve = ada.another();
/// ada.sign_in("ada").await?;
/// eve.sign_in("eve").await?;
/// assert_eq!(ada.post("/leave").await.status(), 200);
/// assert_eq!(ada.get("/me").await.status(), 401);
/// assert_eq!(eve.get("/me").await.text(), "eve");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Visitor<S = Router> {
    app: S,
    site: Site,
    front: Front,
    jar: Jar,
    headers: HeaderMap,
}

/// The client's end of the connection: an address that is nobody's (RFC 5737).
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7)), 50_000);

impl<S> Visitor<S> {
    /// Somebody who was never there before. The layer is the application's own, or one for the same store and profile.
    pub fn new(app: S, layer: &SessionLayer) -> Self {
        let site = layer.site().clone();
        Self { app, front: site.front(), site, jar: Jar::default(), headers: HeaderMap::new() }
    }

    /// Sends this header with every request, as `User-Agent` or `Accept`.
    ///
    /// # Panics
    /// If that is no header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::try_from(name).expect("the name of a header");
        self.headers.insert(name, HeaderValue::try_from(value).expect("the value of a header"));
        self
    }

    /// Somebody else with the same application, who was never there before.
    #[must_use]
    pub fn another(&self) -> Self
    where
        S: Clone,
    {
        Self { jar: Jar::default(), ..self.clone() }
    }

    /// Ends the browser and starts it again: cookies without a `Max-Age` are gone.
    pub fn restart_browser(&mut self) {
        self.jar.end_browser();
    }

    /// The visitor's session, which is not renewed by asking; `None` if the cookie opens none. May read the disk.
    ///
    /// # Errors
    /// As [`Sessions::load`](crate::Sessions::load).
    pub fn session(&self) -> Result<Option<Session>> {
        Ok(self.exchange()?.session())
    }

    /// Signs somebody in, as the application would after checking a password: a session in the store under the layer's
    /// profile, with its cookie in the jar and this visitor's device and address. Returns the session.
    ///
    /// # Errors
    /// As [`Session::sign_in`] and its receipt.
    pub async fn sign_in(&mut self, who: impl Into<SignIn>) -> Result<Session> {
        let exchange = self.exchange()?;
        let session = exchange.session_for_sign_in();
        session.sign_in(who)?.await?;
        self.take_cookies(&exchange)?;
        Ok(session)
    }

    /// Ends the visitor's session and removes its cookie from the jar. Without a session it does nothing.
    ///
    /// # Errors
    /// As [`Session::destroy`] and its receipt.
    pub async fn sign_out(&mut self) -> Result<()> {
        let exchange = self.exchange()?;
        if let Some(session) = exchange.session() {
            session.destroy()?.await?;
        }
        self.take_cookies(&exchange)
    }

    /// A token as the visitor's pages have it. May read the disk.
    ///
    /// # Errors
    /// As [`Exchange::csrf_token`].
    pub fn csrf_token(&self) -> Result<String> {
        self.exchange()?.csrf_token()
    }

    /// A request as a browser begins it: with all headers but those of a body and of a page's token.
    ///
    /// # Panics
    /// If that is no method or no path, or if the session cannot be read.
    pub fn request(&self, method: &str, path: &str) -> Builder {
        self.try_request(method, path).expect("the session can be read")
    }

    fn try_request(&self, method: &str, path: &str) -> Result<Builder> {
        let mut builder = Request::builder().method(method).uri(path);
        if let Some(headers) = builder.headers_mut() {
            self.dress(headers, path, !matches!(method, "GET" | "HEAD" | "OPTIONS"))?;
        }
        Ok(builder)
    }

    /// What a browser adds to a request; what is there already stays.
    fn dress(&self, headers: &mut HeaderMap, path: &str, is_unsafe: bool) -> Result<()> {
        let mut add = |name: HeaderName, value: &[u8]| {
            let value = HeaderValue::from_bytes(value).expect("browsers send what fits into a header");
            headers.entry(name).or_insert(value);
        };
        for (name, value) in &self.headers {
            add(name.clone(), value.as_bytes());
        }
        add(header::HOST, self.front.host().as_bytes());
        let cookies = self.jar.line(path, self.site.sessions().now());
        if !cookies.is_empty() {
            add(header::COOKIE, &cookies);
        }
        if let Some((name, companion)) = self.companion()? {
            add(name, companion.as_bytes());
        }
        if self.front.tells_fetch_site() {
            add(HeaderName::from_static("sec-fetch-site"), b"same-origin");
        }
        if is_unsafe {
            add(header::ORIGIN, self.front.origin().as_bytes());
        }
        Ok(())
    }

    /// The secret that a page of this visitor's session was given, and its header, where the profile wants one.
    fn companion(&self) -> Result<Option<(HeaderName, String)>> {
        let Some(header) = self.site.companion_header() else { return Ok(None) };
        let token = self.jar.value(self.site.cookie_name(), self.site.sessions().now());
        let Some(token) = token.and_then(|value| Token::parse(std::str::from_utf8(value).ok()?)) else {
            return Ok(None);
        };
        let Some(session) = self.site.sessions().load_without_touch(&token)? else { return Ok(None) };
        let secret = match companion_of(&session) {
            Err(error) if error.kind() == ErrorKind::Gone => None,
            secret => secret?,
        };
        let name = HeaderName::try_from(header).expect("names of sites fit into a header");
        Ok(secret.map(|secret| (name, secret)))
    }

    /// The visitor as the layer sees them.
    fn exchange(&self) -> Result<Exchange> {
        let (parts, ()) = self.connected(self.try_request("GET", "/")?.body(()).expect("a request")).into_parts();
        let admitted = self.site.admit(&facts(&parts).passive());
        let admitted =
            admitted.map_err(|cause| Error::invalid("the site does not admit its own page").because(cause))?;
        match admitted.open_in_memory()? {
            Opened::Ready(exchange) => Ok(exchange),
            Opened::OnDisk(admitted) => admitted.open(),
        }
    }

    fn connected<B>(&self, mut request: Request<B>) -> Request<B> {
        let connection = Connection::new(self.front.local, PEER);
        let extensions = request.extensions_mut();
        extensions.insert(ConnectInfo(connection));
        extensions.insert(ConnectInfo(PEER));
        request
    }

    fn take_cookies(&mut self, exchange: &Exchange) -> Result<()> {
        let now = self.site.sessions().now();
        for (_, value) in exchange.headers()?.into_iter().filter(|(name, _)| *name == "set-cookie") {
            self.jar.take(value.as_bytes(), "/", &self.front, now);
        }
        Ok(())
    }
}

impl<S, B> Visitor<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone,
    S::Error: fmt::Debug,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    /// Asks for a page, and reads the answer to its end.
    ///
    /// # Panics
    /// If that is no path, if the application fails instead of answering, or if the session cannot be read.
    pub async fn get(&mut self, path: &str) -> Answer {
        let request = self.request("GET", path).body(Body::empty());
        self.ask(request.expect("a path")).await
    }

    /// Sends nothing but the page's token, in its header.
    ///
    /// # Panics
    /// As [`get`](Self::get).
    pub async fn post(&mut self, path: &str) -> Answer {
        let request = self.with_token(path).body(Body::empty());
        self.ask(request.expect("a path")).await
    }

    /// Posts a form, which has the page's token in its field.
    ///
    /// # Panics
    /// As [`get`](Self::get).
    ///
    /// ```
    /// # use axum::{Form, Router, routing::post};
    /// # use dwell::axum::{SessionLayer, test::Visitor};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> dwell::Result<()> {
    /// # let layer = SessionLayer::development(dwell::Options::new().in_memory()?);
    /// # type Fields = Form<std::collections::BTreeMap<String, String>>;
    /// # let app = Router::new().route("/order", post(async |Form(mut order): Fields| order.remove("tea").unwrap()));
    /// let mut visitor = Visitor::new(app.layer(layer.clone()), &layer);
    /// assert_eq!(visitor.post_form("/order", &[("tea", "Earl Grey")]).await.text(), "Earl Grey");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn post_form(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let token = self.csrf_token().expect("the session can be read");
        let mut form = Serializer::new(String::new());
        form.extend_pairs(fields).append_pair(self.site.token_field(), &token);
        let request = self.request("POST", path).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        self.ask(request.body(Body::from(form.finish())).expect("a path")).await
    }

    /// Sends JSON as a script does, with the page's token in its header.
    ///
    /// # Panics
    /// As [`get`](Self::get); if the value cannot be written as JSON.
    pub async fn post_json(&mut self, path: &str, value: &(impl Serialize + ?Sized)) -> Answer {
        let body = serde_json::to_vec(value).expect("a value that JSON can hold");
        let request = self.with_token(path).header(header::CONTENT_TYPE, "application/json");
        self.ask(request.body(Body::from(body)).expect("a path")).await
    }

    fn with_token(&self, path: &str) -> Builder {
        let token = self.csrf_token().expect("the session can be read");
        self.request("POST", path).header(self.site.token_header(), token)
    }

    async fn ask(&mut self, request: Request<Body>) -> Answer {
        Answer::read(self.send(request).await).await
    }

    /// Sends a request of the test's own making, and takes the answer's cookies. What a browser would add is added, unless
    /// the request has it: so a test can pretend to be a page elsewhere. The page's token is not. The answer is not read, so
    /// it may be one that does not end.
    ///
    /// # Panics
    /// If the application fails instead of answering, or if the session cannot be read.
    ///
    /// ```
    /// # use axum::{Router, body::Body, http::Request, routing::post};
    /// # use dwell::axum::{SessionLayer, test::Visitor};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> dwell::Result<()> {
    /// # let layer = SessionLayer::development(dwell::Options::new().in_memory()?);
    /// # let app = Router::new().route("/order", post(async || "done")).layer(layer.clone());
    /// let mut ada = Visitor::new(app, &layer);
    /// ada.sign_in("ada").await?;
    /// let forged = Request::post("/order").header("Origin", "http://evil.example").body(Body::empty()).unwrap();
    /// assert_eq!(ada.send(forged).await.status(), 403);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn send(&mut self, request: Request<Body>) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        self.dress(&mut parts.headers, &path, !parts.method.is_safe()).expect("the session can be read");
        let request = self.connected(Request::from_parts(parts, body));
        let mut app = self.app.clone();
        poll_fn(|context| app.poll_ready(context)).await.expect("the application answers");
        let response = app.call(request).await.expect("the application answers");
        let now = self.site.sessions().now();
        for line in response.headers().get_all(header::SET_COOKIE) {
            self.jar.take(line.as_bytes(), &path, &self.front, now);
        }
        response.map(Body::new)
    }
}

/// Cookies and secrets are for nobody's log.
impl<S> fmt::Debug for Visitor<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.session().ok().flatten().and_then(|session| session.id());
        f.debug_struct("Visitor").field("site", &self.site).field("session", &id).finish_non_exhaustive()
    }
}
