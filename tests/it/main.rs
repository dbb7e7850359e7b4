//! The integration tests, in one binary.

mod api;
mod model;
mod rng;
mod tidy;
