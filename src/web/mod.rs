//! Sessions on the web, without a framework: facts of a request in, headers of a response out.
//!
//! What lives here: [`Site`] (how browsers reach the application, and what follows from that), [`Request`] (what of a
//! request matters), [`Exchange`] (its session and what to answer). No sockets, no framework, no threads: an adapter
//! such as `dwell::axum` is a thin shell around this, and a program with its own server calls it itself:
//!
//! ```
//! use dwell::{Field, web::{Request, Site}};
//! const VISITS: Field<u32> = Field::new("visits");
//!
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("sessions");
//! let site = Site::development(dwell::Sessions::open(path)?);
//!
//! // For each request:
//! # let (method, host) = ("GET", &b"127.0.0.1:3000"[..]);
//! let request = Request::new(method).headers([("Host", host)]);
//! let exchange = site.admit(&request)?.open()?;
//! exchange.check_token(None)?;
//! let visits = exchange.session_or_new()?.update(VISITS, |n| { *n += 1; *n })?;
//! for (name, value) in exchange.finish_blocking()? { // a signed-in visitor's changes are on disk now; a stranger's follow within a second
//!     println!("{name}: {value}"); // to the client, with the page
//! }
//! # assert_eq!(visits, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! What the checks are for is in [`guide::security`](crate::guide::security).

mod cookie;
mod csrf;
mod device;
mod exchange;
#[cfg(feature = "test-util")]
mod front;
mod host;
mod refusal;
mod request;
mod site;

#[cfg(feature = "axum")]
pub mod axum;

pub use exchange::{Admitted, Exchange, Opened};
pub use refusal::Refusal;
pub use request::Request;
pub use site::Site;
