//! Pages about the whole crate. They exist in its documentation only.

/// Ten `select!` loops, what is wrong with each, and the line that replaces it.
///
#[cfg(feature = "tokio")]
#[doc = include_str!("guide/from_select.md")]
pub mod from_select {}

/// What every stream, token and producer guarantees, by number.
///
#[doc = include_str!("../LAWS.md")]
pub mod laws {}
