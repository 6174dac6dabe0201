//! A shut-off valve for async streams: producers stop as soon as their consumer drops or a token fires.
//!
//! ```
//! use futures::{StreamExt, stream};
//! use stopcock::{CancelStreamExt, CancellationToken};
//!
//! # futures::executor::block_on(async {
//! let token = CancellationToken::new();
//! let mut lines = stream::repeat("line").with_cancellation(&token);
//! assert_eq!(lines.next().await.unwrap().unwrap(), "line");
//!
//! token.cancel_with("shutting down");
//! // The source is always ready, but it has been dropped, and the stream reports why it ends.
//! assert_eq!(lines.next().await.unwrap().unwrap_err().to_string(), "shutting down");
//! assert!(lines.next().await.is_none());
//! # });
//! ```
//!
//! - **Adapters** end a stream or a future early: [`CancelStreamExt`] is for every stream, [`CancelTryStreamExt`] for
//!   streams of results, [`CancelFutureExt`] for futures. `take_*` end without an error, `with_*` and `try_*` end with the
//!   reason as an `Err`, so that a truncated response does not look complete.
//! - **Tokens** decide when: [`CancellationToken`]s form a tree, with reasons, deadlines and callbacks. Any other
//!   [`signal`] works as well, such as a future in [`signal::when`]. [`StopReason`] is the reason.
//! - **Producers** are streams made from code: [`generator()`] and [`try_generator`] run an async closure inside the
//!   consumer's poll;
#![cfg_attr(
    feature = "tokio",
    doc = "  [`spawn_generator`] runs on a task, [`blocking_generator`] on a thread, [`run_blocking`] makes one call."
)]
#![cfg_attr(
    not(feature = "tokio"),
    doc = "  [`blocking_generator`] runs on a thread, [`run_blocking`] makes one call."
)]
#![cfg_attr(
    feature = "http",
    doc = "- **HTTP**: the layers of [`http`](crate::http) give every request of a server a token, which also stops the calls that the handler makes."
)]
//!
//! [The laws](guide::laws) list what all of them guarantee. [The guide](guide) has pages on coming from `select!`, from
//! Go's `context` and from tokio-util, and pages on response bodies, shutdown, blocking work, tests, and use without
//! tokio.
//!
//! # Features
//!
//! - `tokio` (default): deadlines, timeouts and producers on tasks, with tokio's clock. Without it the crate needs no
//!   runtime; [a page of the guide](guide::without_tokio) lists what is not available then, and what to write instead.
//! - `http`: a token for each request of an axum, tonic or hyper server, which also stops the calls that the handler
//!   makes; implies `tokio`.
//! - `tokio-util`: tokio-util's `CancellationToken` is a signal, and converts into a token of this crate and back.
//! - `testing`: the laws, as functions that test any stream; for `[dev-dependencies]`.
//! - `proptest`: strategies for property tests; implies `testing`.
#![doc(test(attr(deny(warnings))))]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(any(doc, doctest))]
pub mod guide;

mod stop_reason;
mod token;

#[cfg(feature = "http")]
#[cfg_attr(docsrs, doc(cfg(feature = "http")))]
pub mod http;
pub mod signal;
#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod testing;

mod future;
mod generator;
mod producer;
mod stream;

mod channel;
#[cfg(feature = "tokio")]
mod clock;
mod fairness;
mod first_panic;
mod keyed_queue;
mod runtime_context;
mod sync;
mod wake_flag;
mod waker_id;

#[cfg(all(test, stopcock_loom))]
mod loom_tests;

/// Compiles and runs the programs of the README.
#[cfg(all(doctest, feature = "tokio"))]
#[doc = include_str!("../README.md")]
struct Readme;

pub use future::{CancelFutureExt, RunUntilCancelled, WithCancellationFuture};
pub use generator::{
    Generator, GeneratorBody, TryGenerator, YieldItem, Yielder, generator, try_generator,
};
pub use producer::{
    BlockingGenerator, BlockingSender, Join, RunBlocking, blocking_generator, blocking_iter,
    run_blocking, try_blocking_generator,
};
#[doc(inline)]
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
pub use signal::IntoDeadline;
#[doc(inline)]
pub use signal::{IntoSignal, Signal};
pub use stop_reason::StopReason;
pub use stream::{
    CancelOnDrop, CancelSignal, CancelStreamExt, CancelTarget, CancelTryStreamExt, DropOnCancel,
    FromReason, MapStop, StopError, StopOutput, TakeUntilCancelled, TryWithCancellation,
    WithCancellation,
};
pub use token::{
    CancellationToken, Cancelled, CancelledOwned, DropGuard, DropGuardRef, Hold, Holder,
    Registration, Settled,
};
#[cfg(feature = "tokio")]
pub use {
    future::WithDeadlineFuture,
    producer::{
        Sender, Sending, SpawnedGenerator, spawn_generator, spawn_generator_on,
        try_spawn_generator, try_spawn_generator_on,
    },
    stream::{
        TakeUntilDeadline, TryWithDeadline, TryWithIdleTimeout, WithDeadline, WithIdleTimeout,
    },
};
