//! Sessions that survive restarts.
#![forbid(unsafe_code)]

mod codec;
mod engine;
mod error;
mod field;
mod options;
mod seal;
mod session;
mod sessions;
mod sign_in;
#[cfg(feature = "sim")]
pub mod sim;
mod storage;
mod time;
mod token;

pub use engine::Receipt;
pub use error::{Error, ErrorKind, Result};
pub use field::{Field, Old, View};
pub use options::{AtLimit, Options};
pub use session::Session;
pub use sessions::Sessions;
pub use sign_in::{Class, SessionInfo, SignIn, Stats};
pub use time::{Clock, ManualClock, Timestamp};
pub use token::{SessionId, Token};
