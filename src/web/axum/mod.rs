//! Sessions in axum, and in any other tower stack with its bodies.
//!
//! What lives here: [`SessionLayer`] around routes, the extractors ([`Session`](crate::Session) itself, and `Option` of
//! it; [`SignedIn`], [`Fresh`], [`Exchange`](crate::web::Exchange)), and [`Connection`], which tells the layer who is
//! connected. It is a shell around [`web`](crate::web): it moves facts in and headers out.
//!
//! ```
//! use axum::{Router, routing::get};
//! use dwell::{Field, Session, axum::SessionLayer};
//!
//! const VISITS: Field<u32> = Field::new("visits");
//!
//! async fn hello(session: Session) -> dwell::Result<String> {
//!     let visits = session.update(VISITS, |n| { *n += 1; *n })?;
//!     Ok(format!("visit number {visits}"))
//! }
//!
//! # let sessions = dwell::Options::new().in_memory()?;
//! let app: Router = Router::new().route("/", get(hello)).layer(SessionLayer::development(sessions));
//! # let _ = app;
//! # Ok::<(), dwell::Error>(())
//! ```
//!
//! # What the layer does
//!
//! Before the handler: refuses foreign hosts, foreign pages and missing tokens with JSON `{"error", "reason"}`; finds
//! the session, from disk off the async threads if need be. After the handler: waits until the request's changes to a
//! signed-in session are on disk; then sets or removes the cookie, and keeps caches away from answers that depended on
//! the session. An answer whose changes could not be saved is replaced by the error.
//!
//! A change is made when a handler makes it, whatever status the answer has, and if the client goes away.
//!
//! # Where to put it
//!
//! [`Router::layer`](::axum::Router::layer) covers a router's routes and its fallback,
//! [`Router::route_layer`](::axum::Router::route_layer) its routes only. Routes that are added afterwards are not
//! covered, so an extractor on them answers 500 and says so. In a nested or merged router the layer covers what it was
//! put on. The same store layered twice is one layer: the outer, which also decides whether a request is
//! [passive](SessionLayer::passive). An inner one whose site checks something else comes too late: it answers 500 and says
//! so. Two stores in one application keep apart by
//! [`Site::named`](crate::web::Site::named); where both cover a route, the extractors take the inner one's session and
//! [`exchange_of`] finds the other's.
//!
//! # Forms and scripts
//!
//! A request that changes something shows the token of the page it comes from. A page gets it from
//! [`Exchange::csrf_token`](crate::web::Exchange::csrf_token):
//!
//! ```
//! use dwell::web::Exchange;
//! async fn page(exchange: Exchange) -> dwell::Result<axum::response::Html<String>> {
//!     let (field, token) = (exchange.site().token_field().to_owned(), exchange.csrf_token()?);
//!     Ok(axum::response::Html(format!(
//!         r#"<form method="post" action="/sign-out"><input type="hidden" name="{field}" value="{token}"><button>Sign out"#
//!     )))
//! }
//! # let _ = axum::routing::get::<_, _, ()>(page);
//! ```
//!
//! Urlencoded forms carry it in that field; scripts, JSON and multipart bodies in the header `X-CSRF-Token`.
//!
//! # Statuses
//!
//! [`Error`](crate::Error) and [`Refusal`](crate::web::Refusal) are responses, so handlers can use `?`:
//!
//! | Error | Status |
//! |---|---|
//! | `Gone` | 401 `session_ended` |
//! | `Refused` | 403 `refused` |
//! | `TooLarge` | 413 `too_large` |
//! | `Invalid` | 422 `invalid` |
//! | `Busy` | 503 `busy`, `Retry-After: 1` |
//! | `Storage`, `Unknown`, `Corrupt`, `Closed` | 503 `storage`, `Retry-After: 10` |
//! | others | 500 `internal` |
//!
//! The client is told no cause. For your log, the error itself is in the response's extensions as an
//! `Arc<dwell::Error>`.

mod connection;
mod extract;
mod layer;
mod respond;
#[cfg(feature = "test-util")]
pub mod test;

pub use connection::Connection;
pub use extract::{Fresh, Rejection, SignedIn, exchange_of};
pub use layer::{HostLayer, HostService, SessionLayer, SessionService};
