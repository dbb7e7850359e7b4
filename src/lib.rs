//! Sessions that survive restarts: an embedded session engine for Rust web applications.
//!
//! One directory holds all sessions of a program. There is no server and no database to install. Deciding whether a
//! token is live happens in memory, reading never writes, and a change that was confirmed is there after `kill -9`.
//!
//! ```
//! use dwell::{Field, Sessions};
//!
//! const VISITS: Field<u32> = Field::new("visits");
//!
//! # let home = tempfile::tempdir().unwrap();
//! # let path = home.path().join("sessions");
//! let sessions = Sessions::open(path)?; // a directory of its own
//! let session = sessions.start();
//! let token = session.sign_in("ada")?.blocking_wait()?; // for a cookie: token.expose()
//! session.update(VISITS, |visits| *visits += 1)?;
//! session.save()?.blocking_wait()?; // on disk now
//!
//! let again = sessions.load(&token)?.expect("signed in");
//! assert_eq!(again.get(VISITS)?, Some(1));
//! # Ok::<(), dwell::Error>(())
//! ```
//!
//! Four names are enough to begin with:
//!
//! - [`Sessions`] is the open store. Clone it into your handlers.
//! - [`Session`] is a handle to one visitor. All requests of a visitor share the session's data, so
//!   [`update`](Session::update) loses nothing.
//! - [`Field`] is a constant for each thing a session keeps: a name, a type, a version.
//! - [`Token`] is the secret in the visitor's cookie. The store does not keep it.
//!
//! # What it promises
//!
//! - **Confirmed is durable.** When a [`Receipt`] is ready, the change is on the disk.
//! - **An ended session stays ended.** A request that is still running when its visitor signs out elsewhere gets
//!   [`ErrorKind::Gone`] for its write; nothing brings the session back, in memory or on disk.
//! - **Nobody waits for the disk without asking to.** `get`, `set` and `update` work on memory; so does `load`, except
//!   for the first use of a session after a start or after it fell out of the cache.
//! - **Deadlines hold.** Idle time and life are judged at every load, not when a timer gets to it, and a wall clock that
//!   jumps while the program runs changes neither.
//! - **The disk alone gives nothing away that opens a session.** Data is sealed under a key that takes the visitor's
//!   token and the server's key file together.
//!
//! A draft so far: the format on disk may change. After a crash an idle session may end a little early, by a twentieth of
//! its idle timeout at most; [`guide::operations`] says why.
//!
//! # Where to read on
//!
//! Using it: [`Field`], [`Session`], [`Sessions`], [`SignIn`], [`Options`], [`ErrorKind`]. On the web: [`web`] for a server
//! of your own, and the module `axum` with that feature; the example `no_framework` is a whole site on a synchronous HTTP
//! server, `axum` one with that framework, and `websocket` has a socket that ends with its session. Tests that need time
//! to pass: [`guide::testing`]. Running it: [`guide::operations`] and [`guide::security`]. How it works:
//! [`guide::architecture`], then the source in the order it names there.
//!
//! # Features
//!
//! - `json` (on by default): [`Field::json`], for types that the compact format cannot carry.
//! - `stream`: [`Events`] as a `futures_core::Stream`; `axum` switches it on.
//! - `axum`: a layer for routers, extractors for handlers, errors as responses.
//! - `test-util`: visitors for tests of axum applications, in `axum::test`.
//! - `cli`: the `dwell` binary with its demo application.
//! - `sim`: a simulated directory with power cuts, for testing the engine itself. Not covered by semantic versioning.
#![forbid(unsafe_code)]

pub mod guide;

pub mod web;

// In reading order: what an application holds, then the vocabulary, then what is below.
mod events;
mod sessions;

mod session;
mod sign_in;

mod error;
mod field;
mod options;
mod time;
mod token;

mod codec;
mod seal;

mod engine;
mod storage;

#[cfg(feature = "sim")]
pub mod sim;

#[cfg(feature = "axum")]
#[doc(inline)]
pub use web::axum;

pub use engine::{EndReason, Ended, Receipt};
pub use error::{Error, ErrorKind, Result};
pub use events::{Event, Events, EventsIter, RefusedFor, RequestFlaw, RevokedBy, What};
pub use field::{Field, Old, View};
pub use options::{AssuranceLevel, AtLimit, Options};
pub use session::{Operation, Session};
pub use sessions::{KeyInfo, Sessions};
pub use sign_in::{Class, SessionInfo, SignIn, Stats};
pub use time::{Clock, ManualClock, Timestamp};
pub use token::{SessionId, Token};

/// The code in the README compiles.
#[cfg(all(doctest, feature = "axum"))]
#[doc = include_str!("../README.md")]
mod readme {}
