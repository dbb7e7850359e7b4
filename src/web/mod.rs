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
//! # Connections that stay open
//!
//! An event stream or a web socket outlives the check that opened it, so it has to end when its session does.
//! [`Session::ended`](crate::Session::ended) tells when, and why. It needs no runtime: a server of threads gives each open
//! stream its own and waits there, one of futures awaits it beside what else the connection waits for.
//!
//! ```
//! # use dwell::{EndReason, web::{Request, Site}};
//! # let site = Site::development(dwell::Options::new().in_memory()?);
//! # let request = Request::new("GET").headers([("Host", &b"127.0.0.1:3000"[..])]);
//! # let exchange = site.admit(&request)?.open()?;
//! # exchange.session_for_sign_in().sign_in("ada")?.blocking_wait()?;
//! let session = exchange.session().expect("somebody is signed in");
//! let ended = session.ended();
//! let stream = std::thread::spawn(move || {
//!     let reason = ended.blocking_wait();
//!     format!("event: ended\ndata: {reason}\n\n") // to the client, and the connection closes
//! });
//! // Elsewhere, on another request:
//! session.destroy()?.blocking_wait()?;
//! assert_eq!(stream.join().unwrap(), "event: ended\ndata: signed_out\n\n");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Opening one counts as use, unless the request is [passive](Request::passive); staying open does not. What a person does
//! over a web socket is use if the program says so: [`Session::renew`](crate::Session::renew). Before the server stops,
//! [`Sessions::announce_close`](crate::Sessions::announce_close) ends all of them while requests go on.
//!
//! A client that is gone is noticed by what cannot be sent to it, so write something every few seconds; and bound how many
//! one session may open, because a page that is left open in many tabs holds a connection in each.
//!
//! What the checks are for is in [`guide::security`](crate::guide::security).

mod admit;
mod admitted;
mod cookie;
mod csrf;
mod dangerous;
mod device;
mod exchange;
#[cfg(feature = "rate-limit")]
mod flood;
mod forwarded;
#[cfg(feature = "test-util")]
mod front;
mod hand_off;
mod host;
mod listen;
mod refusal;
mod request;
mod site;

#[cfg(feature = "axum")]
pub mod axum;

pub use admitted::{Admitted, Opened};
pub use dangerous::Dangerous;
pub use exchange::Exchange;
#[cfg(feature = "rate-limit")]
pub use flood::NewSessions;
pub use refusal::Refusal;
pub use request::Request;
pub use site::Site;
