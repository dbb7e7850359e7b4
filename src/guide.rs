//! The longer story, in seven pages.
//!
//! Read [`architecture`] to find your way in the source, [`decisions`] before changing something that looks odd,
//! [`operations`] before running it, [`security`] before relying on it, with what is [promised](promises) and which test
//! holds it, [`testing`] before writing a test of your own that waits, and [`disk_format`] with a hex editor open.
//! There is no code here: each page is a Markdown file of `src/guide`, rendered.

#[doc = include_str!("guide/architecture.md")]
pub mod architecture {}

#[doc = include_str!("guide/operations.md")]
pub mod operations {}

#[doc = include_str!("guide/security.md")]
pub mod security {}

#[doc = include_str!("guide/promises.md")]
pub mod promises {}

#[doc = include_str!("guide/testing.md")]
pub mod testing {}

#[doc = include_str!("guide/decisions.md")]
pub mod decisions {}

#[doc = include_str!("guide/disk_format.md")]
pub mod disk_format {}
