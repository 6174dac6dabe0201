#![cfg_attr(feature = "tokio", doc = include_str!("../README.md"))]
#![cfg_attr(feature = "tokio", doc = include_str!("from_select.md"))]
#![cfg_attr(not(feature = "tokio"), doc = "A shut-off valve for async streams.")]
#![doc(test(attr(deny(warnings))))]
#![cfg_attr(docsrs, feature(doc_cfg))]

mod stop_reason;
mod token;

pub mod signal;
#[cfg(feature = "testing")]
#[cfg_attr(docsrs, doc(cfg(feature = "testing")))]
pub mod testing;

mod future;
mod generator;
#[cfg(feature = "tokio")]
mod producer;
mod stream;

mod bell;
#[cfg(any(feature = "tokio", all(test, stopcock_loom)))]
#[cfg_attr(
    not(feature = "tokio"),
    allow(dead_code, reason = "producers need a runtime")
)]
mod channel;
#[cfg(feature = "tokio")]
mod clock;
mod first_panic;
mod sync;
mod waker_id;

#[cfg(all(test, stopcock_loom))]
mod loom_tests;

pub use future::{CancelFutureExt, RunUntilCancelled, WithCancellationFuture};
pub use generator::{
    Generator, GeneratorBody, TryGenerator, YieldItem, Yielder, generator, try_generator,
};
pub use signal::{IntoSignal, Signal};
pub use stop_reason::StopReason;
pub use stream::{
    CancelOnDrop, CancelStreamExt, CancelTryStreamExt, DropOnCancel, TakeUntilCancelled,
    TryWithCancellation, WithCancellation,
};
pub use token::{
    CancellationToken, Cancelled, CancelledOwned, DropGuard, DropGuardRef, Registration, Settled,
};
#[cfg(feature = "tokio")]
pub use {
    future::WithDeadlineFuture,
    producer::{
        BlockingGenerator, BlockingSender, Join, RunBlocking, Sender, Sending, SpawnedGenerator,
        blocking_generator, blocking_iter, run_blocking, spawn_generator, spawn_generator_on,
        try_blocking_generator, try_spawn_generator, try_spawn_generator_on,
    },
    stream::{
        TakeUntilDeadline, TryWithDeadline, TryWithIdleTimeout, WithDeadline, WithIdleTimeout,
    },
};
