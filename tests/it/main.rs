//! The integration tests, in one binary.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    reason = "a test that meets what it does not expect should panic, and says on its output how to replay it"
)]

mod api;
mod example;
mod faults;
mod junk;
mod kill;
mod limits;
mod model;
mod power_cuts;
#[cfg(feature = "sim")]
mod refusals;
mod rng;
mod secrets;
#[cfg(feature = "sim")]
mod support;
mod tamper;
mod threads;
mod tidy;
mod traps;
