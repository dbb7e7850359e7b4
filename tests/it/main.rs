//! The integration tests, in one binary.

mod api;
mod tidy;
