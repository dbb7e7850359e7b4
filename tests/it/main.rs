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
#[cfg(feature = "sim")]
mod clocks;
#[cfg(feature = "cli")]
mod demo;
#[cfg(all(feature = "cli", unix))]
mod demo_edges;
#[cfg(feature = "sim")]
mod ended;
#[cfg(feature = "sim")]
mod epoch;
#[cfg(feature = "sim")]
mod events;
mod example;
#[cfg(feature = "sim")]
mod faults;
#[cfg(feature = "sim")]
mod full_disk;
#[cfg(feature = "sim")]
mod fuzz;
#[cfg(feature = "sim")]
mod grants;
#[cfg(feature = "sim")]
mod journal;
#[cfg(feature = "sim")]
mod junk;
#[cfg(feature = "sim")]
mod keys;
mod kill;
#[cfg(feature = "sim")]
mod limits;
#[cfg(feature = "sim")]
mod model;
#[cfg(feature = "sim")]
mod moments;
#[cfg(feature = "sim")]
mod power_cuts;
mod promises;
#[cfg(feature = "sim")]
mod refusals;
mod rng;
#[cfg(feature = "sim")]
mod secrets;
#[cfg(feature = "sim")]
mod soft;
#[cfg(feature = "sim")]
mod support;
#[cfg(feature = "sim")]
mod tamper;
mod threads;
mod tidy;
mod time;
#[cfg(feature = "sim")]
mod touches;
#[cfg(feature = "sim")]
mod traps;
mod web;
#[cfg(feature = "test-util")]
mod websocket;
