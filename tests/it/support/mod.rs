//! What several of the tests need.

#[cfg(feature = "sim")]
pub(crate) mod power;
