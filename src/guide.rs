//! Pages about the whole crate. They exist in its documentation only.

/// Ten `select!` loops, what is wrong with each, and the line that replaces it.
///
#[cfg(feature = "tokio")]
#[doc = include_str!("guide/from_select.md")]
pub mod from_select {}

/// The crate under another runtime, or none: what stays, what the feature `tokio` adds, and what to write in its place.
///
#[doc = include_str!("guide/without_tokio.md")]
pub mod without_tokio {}

/// What every stream, token and producer guarantees, by number.
///
#[doc = include_str!("../LAWS.md")]
pub mod laws {}
