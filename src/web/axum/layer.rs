//! The layer: an exchange around every request.
//!
//! Invariants: a request reaches the handlers only when it was admitted, its session found and its token checked; an
//! answer leaves only when what its request changed is on disk.

use std::borrow::Cow;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::axum::body::{Body, Bytes, HttpBody};
use ::axum::http::request::Parts;
use ::axum::http::{HeaderMap, HeaderName, HeaderValue, Request, header};
use ::axum::response::{IntoResponse, Response};
use ::axum::{BoxError, http};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tower_layer::Layer;
use tower_service::Service;

use super::connection::Connection;
use super::extract::Current;
use crate::error::{Error, ErrorKind, Result};
use crate::sessions::Sessions;
use crate::web::{self, Admitted, Exchange, Opened, Refusal, Site};

/// Gives the requests of a router their sessions. See [the module](super) for what it does and where to put it.
///
/// ```
/// use dwell::axum::SessionLayer;
/// use dwell::web::Site;
/// # let sessions = dwell::Options::new().in_memory()?;
/// let layer = SessionLayer::new(Site::https(sessions, "app.example")?.trusted_proxy("10.0.0.0/8")?).sign_in_page("/sign-in");
/// let app: axum::Router = axum::Router::new().layer(layer);
/// # let _ = app;
/// # Ok::<(), dwell::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct SessionLayer {
    site: Site,
    sign_in_page: Option<Arc<str>>,
    is_passive: Option<fn(&HeaderMap) -> bool>,
    streams: bool,
    open_paths: Arc<[Box<str>]>,
    form_bytes_max: usize,
}

impl SessionLayer {
    /// The most of a posted form that is read for its token, in bytes: it has to be kept in memory until the handler
    /// asks for it.
    pub const FORM_BYTES_MAX: usize = 256 * 1024;

    /// A layer for this site.
    pub fn new(site: Site) -> Self {
        Self {
            site,
            sign_in_page: None,
            is_passive: None,
            streams: false,
            open_paths: Arc::default(),
            form_bytes_max: Self::FORM_BYTES_MAX,
        }
    }

    /// For writing the program; see [`Site::development`].
    pub fn development(sessions: Sessions) -> Self {
        Self::new(Site::development(sessions))
    }

    /// For a program with a page on the same machine; see [`Site::localhost`]. Needs a script in the page: page loads and
    /// plain forms cannot show the companion secret, so they are never signed in.
    pub fn localhost(sessions: Sessions) -> Self {
        Self::new(Site::localhost(sessions))
    }

    /// For a device on a local network; see [`Site::lan`]. Needs [`Connection`](super::Connection) as connect info: without
    /// the address that was connected to, all but names from [`Site::allow_host`] are answered 421.
    pub fn lan(sessions: Sessions) -> Self {
        Self::new(Site::lan(sessions))
    }

    /// For the internet; see [`Site::https`].
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) if `host` is no host name.
    pub fn https(sessions: Sessions, host: &str) -> Result<Self> {
        Ok(Self::new(Site::https(sessions, host)?))
    }

    /// Where browsers are sent that ask for a page which needs a sign-in, or a [fresh](super::Fresh) one: an absolute path,
    /// as browsers see it, with whatever a nested router or a proxy takes off.
    pub fn sign_in_page(mut self, path: &str) -> Self {
        self.sign_in_page = Some(path.into());
        self
    }

    /// None of this layer's requests count as use of their session: for routes that a page polls by itself, which must
    /// not keep a session alive in a tab that was left open. [`passive_if`](Self::passive_if) said afterwards replaces it.
    ///
    /// A session is found before the handler runs, so a passive layer inside another one of the same store comes too late:
    /// such a request is answered 500 and says so. Merge the routes instead, each with its layer:
    ///
    /// ```
    /// # use axum::{Router, routing::get};
    /// # use dwell::{Session, axum::{SessionLayer, SignedIn}};
    /// # async fn inbox(user: SignedIn) {}
    /// # async fn unread(user: SignedIn) {}
    /// # let sessions = dwell::Options::new().in_memory()?;
    /// let layer = SessionLayer::development(sessions);
    /// let used = Router::new().route("/inbox", get(inbox)).layer(layer.clone());
    /// let polled = Router::new().route("/unread", get(unread)).layer(layer.passive());
    /// let app: Router = used.merge(polled);
    /// # let _ = app;
    /// # Ok::<(), dwell::Error>(())
    /// ```
    pub const fn passive(self) -> Self {
        self.passive_if(|_| true)
    }

    /// Which requests do not count as use of their session, by their headers. See [`passive`](Self::passive).
    pub const fn passive_if(mut self, is_passive: fn(&HeaderMap) -> bool) -> Self {
        self.is_passive = Some(is_passive);
        self
    }

    /// The routes of this layer answer with streams: a request has to come from a page of this site, as one that changes
    /// something. Requests that ask for `text/event-stream` are held to that in any layer; here, all are, because a page
    /// of others may ask for anything. With [`passive`](Self::passive), opening one is no use of the session either, so
    /// that a page which opens its stream again and again keeps nobody signed in. Inside another layer of the same store
    /// it comes too late, as a passive one does.
    ///
    /// ```
    /// # use axum::{Router, routing::get};
    /// # use dwell::axum::{SessionLayer, SignedIn};
    /// # async fn inbox(user: SignedIn) {}
    /// # async fn news(user: SignedIn) {}
    /// # let sessions = dwell::Options::new().in_memory()?;
    /// let layer = SessionLayer::development(sessions);
    /// let pages = Router::new().route("/inbox", get(inbox)).layer(layer.clone());
    /// let streams = Router::new().route("/news", get(news)).layer(layer.streams().passive());
    /// let app: Router = pages.merge(streams);
    /// # let _ = app;
    /// # Ok::<(), dwell::Error>(())
    /// ```
    pub const fn streams(mut self) -> Self {
        self.streams = true;
        self
    }

    /// Lets requests for this path through without a session and without the checks that protect one: for calls from
    /// other programs, which prove by other means who they are, as web hooks do with a signature. Only their host is
    /// checked; handlers that ask for a session answer 500. The path is compared as it comes, byte for byte: `/hook` is
    /// neither `/hook/` nor `/h%6Fok`. It is the path as this layer sees it: in a layer of a nested router, or behind a
    /// proxy that takes a part of it off, what is left of it.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) unless it begins with `/` and is a path and nothing else: no pattern, no query.
    pub fn bypass(mut self, path: &str) -> Result<Self> {
        if !path.starts_with('/') || path.contains(['{', '}', '*', '?', '#']) || !path.is_ascii() {
            let message = "is no path to bypass; write one whole path, as `/hooks/payment`";
            return Err(Error::invalid(format!("`{path}` {message}")));
        }
        self.open_paths = self.open_paths.iter().cloned().chain([path.into()]).collect();
        Ok(self)
    }

    /// Reads at most this much of a posted form for its token, instead of [`FORM_BYTES_MAX`](Self::FORM_BYTES_MAX); longer
    /// ones are answered 413.
    pub const fn form_bytes_max(mut self, bytes: usize) -> Self {
        self.form_bytes_max = bytes;
        self
    }

    /// The site that this layer serves.
    pub const fn site(&self) -> &Site {
        &self.site
    }

    /// The part of this layer that checks the host, for routes and fallbacks that have no session.
    pub fn host_layer(&self) -> HostLayer {
        HostLayer(self.site.clone())
    }

    async fn begin(&self, parts: &mut Parts, body: Body, is_passive: bool) -> Result<(Exchange, Body), Response> {
        let facts = if is_passive { facts(parts).passive() } else { facts(parts) };
        let facts = if self.streams { facts.stream() } else { facts };
        let admitted = self.site.admit(&facts).map_err(IntoResponse::into_response)?;
        let exchange = open(admitted).await.map_err(IntoResponse::into_response)?;
        if exchange.wants_form_token() && is_form(&parts.headers) {
            // Boxed, so that the futures of all other requests stay small.
            let read = Box::pin(self.form_token(exchange.site(), body)).await;
            let (field, body) = read.map_err(IntoResponse::into_response)?;
            exchange.check_token(field.as_deref()).map_err(|refusal| wrong_token(&exchange, refusal))?;
            return Ok((exchange, body));
        }
        exchange.check_token(None).map_err(|refusal| wrong_token(&exchange, refusal))?;
        Ok((exchange, body))
    }

    /// Why this layer cannot do its work inside those that are around it.
    fn clash(&self, outer: &Current, is_passive: bool) -> Option<Refusal> {
        let reason = match self.same_store(outer) {
            Some(same) if is_passive && !same.is_passive => {
                "a passive layer inside another of the same store comes too late; put the polled routes beside the others"
            }
            Some(same) if self.streams && !same.streams => {
                "a layer for streams inside another of the same store comes too late; put its routes beside the others"
            }
            Some(same) if !same.exchange.site().checks_like(&self.site) => {
                "a layer inside another of the same store comes too late for checks of its own; put its routes beside the others"
            }
            Some(_) => return None,
            None if outer.around().any(|current| current.exchange.site().cookie_name() == self.site.cookie_name()) => {
                "two stores cover this route under one cookie name; give one of them a name of its own"
            }
            None => return None,
        };
        Some(Refusal::new(500, "internal", reason))
    }

    /// The layer of the same store that is around already.
    fn same_store<'a>(&self, outer: &'a Current) -> Option<&'a Current> {
        outer.around().find(|current| current.exchange.site().sessions().is_same(self.site.sessions()))
    }

    /// The token in a posted form, and the form as it was.
    async fn form_token(&self, site: &Site, body: Body) -> Result<(Option<String>, Body), Refusal> {
        let read = Limited::new(body, self.form_bytes_max).collect().await;
        let bytes = read.map(http_body_util::Collected::to_bytes).map_err(|error| {
            if error.is::<LengthLimitError>() {
                Refusal::new(413, "too_large", format!("a form may take {} bytes", self.form_bytes_max))
            } else {
                Refusal::new(400, "body", "the request's body ended early")
            }
        })?;
        let field = site.token_field();
        let mut tokens = form_urlencoded::parse(&bytes).filter(|(name, _)| name == field).map(|(_, value)| value);
        let token = tokens.next().filter(|_| tokens.next().is_none()).map(Cow::into_owned);
        Ok((token, Body::from(bytes)))
    }
}

pub(super) fn facts(parts: &Parts) -> web::Request<'_> {
    let headers = parts.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
    let mut facts = web::Request::new(parts.method.as_str()).headers(headers);
    facts = facts.query(parts.uri.query().unwrap_or_default());
    // HTTP/1.1 wants a `Host` line beside an absolute target; later versions have the target's host instead.
    let stands_alone = parts.version >= http::Version::HTTP_2 || parts.headers.contains_key(header::HOST);
    if let Some(authority) = parts.uri.authority().filter(|_| stands_alone) {
        facts = facts.target_host(authority.as_str());
    }
    let connection = Connection::of(&parts.extensions);
    if let Some(local) = connection.local() {
        facts = facts.local_address(local);
    }
    match connection.peer() {
        Some(peer) => facts.peer_address(peer),
        None => facts,
    }
}

/// Whether a token is right depends on the session, so its refusal says that it does.
fn wrong_token(exchange: &Exchange, refusal: Refusal) -> Response {
    let mut response = refusal.into_response();
    response.headers_mut().append(header::VARY, HeaderValue::from_static(exchange.site().varies_by()));
    response
}

fn is_form(headers: &HeaderMap) -> bool {
    let media_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = media_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// The disk is read off the threads that run futures.
async fn read(admitted: Box<Admitted>) -> Result<Exchange> {
    tokio::task::spawn_blocking(move || admitted.open())
        .await
        .map_err(|cause| Error::new(ErrorKind::Closed, "a session could not be read").because(cause))?
}

async fn open(admitted: Admitted) -> Result<Exchange> {
    match admitted.open_in_memory()? {
        Opened::Ready(exchange) => Ok(exchange),
        Opened::OnDisk(admitted) => Box::pin(read(admitted)).await,
    }
}

/// Waits for the request's changes, then adds what the answer needs.
async fn finish(exchange: &Exchange, response: Response) -> Result<Response> {
    let saved = match exchange.save() {
        Ok(Some(receipt)) => receipt.await,
        saved => saved.map(drop),
    };
    let mut response = match saved {
        Ok(()) => response,
        // The session goes on, and a token that it got in this request is the only one that opens it.
        Err(error) if error.kind() != ErrorKind::Gone => error.into_response(),
        Err(error) => return Err(error),
    };
    let ours = exchange.headers()?;
    let hands_out_in = exchange.site().hands_out_in();
    let hands_out = ours.iter().any(|(name, _)| *name == hands_out_in);
    let headers = response.headers_mut();
    for (name, value) in ours {
        let mut value = match value {
            Cow::Borrowed(text) => HeaderValue::from_static(text),
            Cow::Owned(text) => HeaderValue::try_from(text)
                .map_err(|cause| Error::new(ErrorKind::Invalid, "a cookie does not fit a header").because(cause))?,
        };
        // So that layers which log headers leave it out.
        value.set_sensitive(name == hands_out_in);
        match name {
            "cache-control" if keeps_caches_away(headers, hands_out) => {}
            "referrer-policy" => drop(headers.insert(header::REFERRER_POLICY, value)),
            "cache-control" => drop(headers.insert(header::CACHE_CONTROL, value)),
            _ => drop(headers.append(HeaderName::from_static(name), value)),
        }
    }
    Ok(response)
}

/// Whether the application's own `Cache-Control` is strict enough: an answer with a token is kept by nobody, one that
/// depends on the session at most by its visitor's browser.
fn keeps_caches_away(headers: &HeaderMap, hands_out: bool) -> bool {
    let own = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut directives = own.flat_map(|value| value.split(',')).map(str::trim);
    directives.any(|directive| directive == "no-store" || (directive == "private" && !hands_out))
}

impl<S> Layer<S> for SessionLayer {
    type Service = SessionService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SessionService { layer: self.clone(), inner }
    }
}

/// What [`SessionLayer`] makes of a service.
#[derive(Clone, Debug)]
pub struct SessionService<S> {
    layer: SessionLayer,
    inner: S,
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl<S, B, R> Service<Request<B>> for SessionService<S>
where
    S: Service<Request<Body>, Response = http::Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    R: HttpBody<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = S::Error;
    type Future = BoxFuture<Result<Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let layer = self.layer.clone();
        // The service that was polled is the one that is ready.
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let body = Body::new(body);
            if layer.open_paths.iter().any(|path| **path == *parts.uri.path()) {
                if let Err(refusal) = layer.site.check_host(&facts(&parts)) {
                    return Ok(refusal.into_response());
                }
                return Ok(inner.call(Request::from_parts(parts, body)).await?.map(Body::new));
            }
            let outer = parts.extensions.get::<Current>().cloned();
            let is_passive = layer.is_passive.is_some_and(|is_passive| is_passive(&parts.headers));
            if let Some(outer) = &outer {
                if let Some(refusal) = layer.clash(outer, is_passive) {
                    return Ok(refusal.into_response());
                }
                if layer.same_store(outer).is_some() {
                    let response = inner.call(Request::from_parts(parts, body)).await?;
                    return Ok(response.map(Body::new));
                }
            }
            let (exchange, body) = match layer.begin(&mut parts, body, is_passive).await {
                Ok(begun) => begun,
                Err(response) => return Ok(response),
            };
            parts.extensions.insert(Current {
                exchange: exchange.clone(),
                is_passive,
                streams: layer.streams,
                sign_in_page: layer.sign_in_page,
                outer: outer.map(Arc::new),
            });
            let response = inner.call(Request::from_parts(parts, body)).await?.map(Body::new);
            Ok(finish(&exchange, response).await.unwrap_or_else(IntoResponse::into_response))
        })
    }
}

/// Refuses requests for hosts that are not this site's. See [`SessionLayer::host_layer`].
#[derive(Clone, Debug)]
pub struct HostLayer(Site);

/// What [`HostLayer`] makes of a service.
#[derive(Clone, Debug)]
pub struct HostService<S> {
    site: Site,
    inner: S,
}

impl<S> Layer<S> for HostLayer {
    type Service = HostService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        HostService { site: self.0.clone(), inner }
    }
}

impl<S> Service<Request<Body>> for HostService<S>
where
    S: Service<Request<Body>, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<Result<Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (parts, body) = request.into_parts();
        if let Err(refusal) = self.site.check_host(&facts(&parts)) {
            return Box::pin(std::future::ready(Ok(refusal.into_response())));
        }
        Box::pin(self.inner.call(Request::from_parts(parts, body)))
    }
}
