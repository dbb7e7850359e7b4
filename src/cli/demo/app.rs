//! Routes, and what all answers have in common.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use dwell::Sessions;
use dwell::axum::SessionLayer;
use dwell::web::{Refusal, Site};

use super::args::{Profile, Tracking};
use super::body::whole;
use super::posted::BODY_BYTES_MAX;
use super::streams::Streams;
use super::{handlers, log, page};

/// What the handlers work with.
#[derive(Clone)]
pub(super) struct App {
    pub(super) sessions: Sessions,
    pub(super) profile: Profile,
    pub(super) tracking: Tracking,
    pub(super) streams: Streams,
}

pub(super) fn router(site: Site, profile: Profile, tracking: Tracking) -> Router {
    let app = App { sessions: site.sessions().clone(), profile, tracking, streams: Streams::default() };
    let layer = SessionLayer::new(site)
        .sign_in_page("/")
        .form_bytes_max(BODY_BYTES_MAX)
        .passive_if(|headers| headers.get("x-passive").is_some_and(|value| value == "1"));
    let host = layer.host_layer();
    let with_session = Router::new()
        .route("/", get(handlers::home))
        .route("/whoami", get(handlers::whoami))
        .route("/login", post(handlers::login))
        .route("/logout", post(handlers::logout))
        .route("/elevate", post(handlers::elevate))
        .route("/visit", post(handlers::visit))
        .route("/set", post(handlers::set))
        .route("/get", get(handlers::get))
        .route("/slow", post(handlers::slow))
        .route("/sessions", get(handlers::sessions))
        .route("/sessions/revoke", post(handlers::revoke))
        .route("/export", get(handlers::export))
        .merge(hand_off(tracking))
        // What has no route has no session either: 404 and 405 are the same for everybody.
        .route_layer(layer.clone());
    // A tab that is left open reads its stream for ever, and opens it again after each break.
    let streams = Router::new().route("/live", get(handlers::live)).route_layer(layer.passive().streams());
    Router::new()
        .route("/healthz", get(handlers::healthz))
        .route(page::STYLE_PATH, get(|| async { asset("text/css; charset=utf-8", page::STYLE) }))
        .route(page::SCRIPT_PATH, get(|| async { asset("text/javascript; charset=utf-8", page::SCRIPT) }))
        .route(page::ICON_PATH, get(|| async { asset("image/svg+xml", page::ICON) }))
        .merge(with_session)
        .merge(streams)
        .fallback(|| async { Refusal::new(404, "not_found", "there is nothing here") })
        .method_not_allowed_fallback(|| async { Refusal::new(405, "method", "this address takes another method") })
        .with_state(app)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(map_response(refuse_quietly_but_log))
        .layer(host)
        .layer(from_fn_with_state(profile, around))
        .layer(map_response(protect))
}

/// A link signs in by a cookie, which is all that a browser that follows it can keep.
fn hand_off(tracking: Tracking) -> Router<App> {
    match tracking {
        Tracking::Cookie => Router::new().route("/handoff", get(handlers::follow_hand_off).post(handlers::hand_off)),
        Tracking::Header | Tracking::Url => Router::new(),
    }
}

fn asset(media_type: &'static str, text: &'static str) -> Response {
    ([(header::CONTENT_TYPE, media_type), (header::CACHE_CONTROL, "no-cache")], text).into_response()
}

/// Bounds what a request may send, and reads its body before anything is decided: a refusal that leaves half a body
/// behind would break the connection for the next request. Tells browsers what they heed under some profiles only: to stay
/// on HTTPS where that is spoken, and, except for plain names of a local network, that no other page shares the window.
async fn around(State(profile): State<Profile>, request: Request, next: Next) -> Response {
    let mut response = match whole(request).await {
        Ok(request) => next.run(request).await,
        Err(refusal) => refusal,
    };
    if profile == Profile::Https {
        let year = HeaderValue::from_static("max-age=31536000; includeSubDomains");
        response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, year);
    }
    if profile != Profile::Lan {
        let policy = HeaderName::from_static("cross-origin-opener-policy");
        response.headers_mut().insert(policy, HeaderValue::from_static("same-origin"));
    }
    response
}

/// Clients are told no causes; the log is.
async fn refuse_quietly_but_log(response: Response) -> Response {
    if let Some(error) =
        response.extensions().get::<Arc<dwell::Error>>().filter(|_| response.status().is_server_error())
    {
        log(&format!("{}: {error:#}", response.status()));
    }
    response
}

/// What keeps a page from being used against its visitor.
async fn protect(mut response: Response) -> Response {
    const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                          form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
