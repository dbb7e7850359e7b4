//! The stream that says why the session ended, as it happens.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, Method, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use dwell::Ended;
use dwell::axum::{Rejection, SignedIn};
use dwell::web::Exchange;
use futures_core::Stream;
use serde_json::json;
use tokio::sync::oneshot;

use super::super::app::App;
use super::super::streams::Place;
use super::Answer;

/// How often a silent stream says that it is still there: proxies give up after a minute or less, and a peer that is gone
/// is noticed by what cannot be sent to it. It is no use of the session.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long browsers that read it with `EventSource` wait before they ask again.
const RETRY: Duration = Duration::from_secs(5);

/// Whoever has a session may wait for its end; who has none is told the same as where a sign-in is needed.
pub(in super::super) async fn live(
    method: Method,
    exchange: Exchange,
    user: Result<SignedIn, Rejection>,
    State(app): State<App>,
) -> Answer {
    let session = match user {
        Ok(user) => user.into_session(),
        Err(rejection) => exchange.session().ok_or(rejection)?,
    };
    let about = [
        (header::CONTENT_TYPE, "text/event-stream"),
        // Proxies that collect an answer before they pass it on would keep this one for ever.
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    let id = session.id().filter(|_| method != Method::HEAD);
    let Some(id) = id else { return Ok(about.into_response()) };
    let Some((place, gives_way)) = app.streams.open(id) else { return Ok(full()) };
    // It goes on through `/elevate`, which replaces the token and not the session.
    let last_word = Box::pin(last_word(session.ended(), gives_way));
    let stream = Live { progress: Progress::New, last_word, _place: place };
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("still here");
    Ok((about, Sse::new(stream).keep_alive(keep_alive)).into_response())
}

async fn last_word(ended: Ended, gives_way: oneshot::Receiver<()>) -> Event {
    let (name, reason) = tokio::select! {
        biased;
        reason = ended => ("ended", reason.as_str()),
        _ = gives_way => ("closed", "too_many_streams"),
    };
    Event::default().event(name).data(json!({ "reason": reason }).to_string())
}

fn full() -> Response {
    let body =
        json!({ "error": "busy", "reason": "too many streams are open; ask `/whoami` instead, or try again later" });
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "10")], Json(body)).into_response()
}

/// A stream of two events: that it is open, and its last word.
struct Live<F> {
    progress: Progress,
    last_word: Pin<Box<F>>,
    _place: Place,
}

enum Progress {
    New,
    Open,
    Over,
}

impl<F: Future<Output = Event>> Stream for Live<F> {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let (next, event) = match self.progress {
            Progress::New => (Progress::Open, Event::default().retry(RETRY).comment("open")),
            Progress::Open => (Progress::Over, ready!(self.last_word.as_mut().poll(context))),
            Progress::Over => return Poll::Ready(None),
        };
        self.progress = next;
        Poll::Ready(Some(Ok(event)))
    }
}
