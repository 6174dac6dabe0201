//! Pages about the crate as a whole. They exist in the documentation only.

/// Ten `select!` loops, what is wrong with each, and the line that replaces it.
///
#[cfg(feature = "tokio")]
#[doc = include_str!("guide/from_select.md")]
pub mod from_select {}

/// The names in Go's `context` and in this crate side by side, and five programs.
///
#[cfg(feature = "tokio")]
#[doc = include_str!("guide/from_go.md")]
pub mod from_go {}

/// What changes with the import, and how both kinds of token and `TaskTracker` work together.
///
#[cfg(all(feature = "tokio", feature = "tokio-util"))]
#[doc = include_str!("guide/from_tokio_util.md")]
pub mod from_tokio_util {}

/// Which adapter belongs around the body of a response, and what the client sees.
///
#[cfg(feature = "tokio")]
#[doc = include_str!("guide/response_bodies.md")]
pub mod response_bodies {}

/// Ctrl-C and SIGTERM, waiting for work that must be finished, a grace period, and what holds the shutdown up.
///
#[cfg(feature = "tokio")]
#[doc = include_str!("guide/shutdown.md")]
pub mod shutdown {}

/// Blocking calls and bodies: giving up on them, checking in between, interrupting them.
///
#[cfg(feature = "tokio")]
#[doc = include_str!("guide/blocking.md")]
pub mod blocking {}

/// The crate with another runtime, or with none: what is available, what the feature `tokio` adds, and what to write
/// instead.
///
#[doc = include_str!("guide/without_tokio.md")]
pub mod without_tokio {}

/// Adapters and streams of your own, tested without sleeping.
///
#[cfg(all(feature = "tokio", feature = "testing"))]
#[doc = include_str!("guide/testing.md")]
pub mod testing {}

/// What every stream, token and producer guarantees, by number.
///
#[doc = include_str!("../LAWS.md")]
pub mod laws {}
