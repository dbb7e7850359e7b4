//! A stage for stories about the demo in a real browser.
//!
//! What lives here: the programs that a story needs ([`Server`], [`Browser`], [`Proxy`], [`Stranger`], and a [`Site`] of several), started on free
//! ports of 127.0.0.1 and ended by the handles that started them; and the [`Stage`] that a [`story`] gets them from. It
//! knows the demo's page by the ids in its HTML, and nothing of the library. Invariants: nothing waits for time to pass,
//! only for a state, with a deadline; no browser reaches anything but this machine; for what is missing on the machine
//! each story that is not told says so loudly, and fails where the environment has `DWELL_BROWSER=require`.
//!
//! A mistake in here is a panic, which is how a test fails.

mod browser;
mod driver;
mod http;
mod look;
mod needs;
mod page;
mod process;
mod proxy;
mod server;
mod site;
mod stage;
mod stranger;

pub use self::browser::Browser;
pub use self::http::{Answer, request};
pub use self::page::Seen;
pub use self::process::wait_until;
pub use self::proxy::{NAME, Proxy};
pub use self::server::Server;
pub use self::site::Site;
pub use self::stage::{Stage, story};
pub use self::stranger::Stranger;
