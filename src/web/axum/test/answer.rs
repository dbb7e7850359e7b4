//! What an application answered, read to its end.
//!
//! It knows responses. Invariants: nothing of the answer is changed or lost.

use std::fmt;

use ::axum::body::{Body, Bytes};
use ::axum::http::response::Parts;
use ::axum::http::{HeaderMap, Response, StatusCode, header};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

/// What an application answered a [`Visitor`](super::Visitor): status, headers, and the whole body.
///
/// ```
/// # use axum::{Json, Router, response::Redirect, routing::get};
/// # use dwell::axum::{SessionLayer, test::Visitor};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> dwell::Result<()> {
/// # let layer = SessionLayer::development(dwell::Options::new().in_memory()?);
/// # let app = Router::new()
/// #     .route("/old", get(async || Redirect::to("/new")))
/// #     .route("/new", get(async || Json([1, 2])))
/// #     .layer(layer.clone());
/// # let mut visitor = Visitor::new(app, &layer);
/// let moved = visitor.get("/old").await;
/// assert_eq!(moved.status(), 303);
/// let answer = visitor.get(moved.header("Location").unwrap()).await;
/// assert_eq!(answer.json::<Vec<u32>>(), [1, 2]);
/// # Ok(())
/// # }
/// ```
pub struct Answer {
    parts: Parts,
    body: Bytes,
}

impl Answer {
    pub(super) async fn read(response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap_or_else(|error| panic!("the answer broke off: {error}")).to_bytes();
        Self { parts, body }
    }

    /// The status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.parts.status
    }

    /// All headers.
    #[must_use]
    pub const fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    /// The first header of this name, if there is one and it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.parts.headers.get(name)?.to_str().ok()
    }

    /// The body.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.body
    }

    /// The body as text.
    ///
    /// # Panics
    /// If it is not UTF-8.
    #[must_use]
    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or_else(|error| panic!("the answer is no text: {error}: {self:?}"))
    }

    /// The body, read from JSON.
    ///
    /// # Panics
    /// If it is no JSON, or none of a `T`.
    #[must_use]
    #[track_caller]
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("the answer is other JSON: {error}: {self:?}"))
    }
}

/// As it came, cookies apart, so that a failed test shows what was answered.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.parts.status)?;
        for (name, value) in self.parts.headers.iter().filter(|(name, _)| *name != header::SET_COOKIE) {
            writeln!(f, "{name}: {}", value.as_bytes().escape_ascii())?;
        }
        write!(f, "\n{}", String::from_utf8_lossy(&self.body))
    }
}
