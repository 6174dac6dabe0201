//! Bodies that run on a task or a thread of their own, and the streams of their items.

mod blocking_generator;
mod blocking_sender;
mod run_blocking;
#[cfg(feature = "tokio")]
mod sender;
#[cfg(feature = "tokio")]
mod spawn_generator;
mod thread;

pub use blocking_generator::{
    BlockingGenerator, blocking_generator, blocking_iter, try_blocking_generator,
};
pub use blocking_sender::BlockingSender;
#[cfg(all(test, stopcock_loom))]
pub(crate) use run_blocking::Call;
pub use run_blocking::{RunBlocking, run_blocking};
#[cfg(feature = "tokio")]
pub use sender::{Sender, Sending};
#[cfg(feature = "tokio")]
pub use spawn_generator::{
    SpawnedGenerator, spawn_generator, spawn_generator_on, try_spawn_generator,
    try_spawn_generator_on,
};

use crate::{
    StopReason,
    channel::{Channel, ConsumerStop, Last, Receiver},
    signal::token_of,
    stream::{Halt, Valve},
};
use std::{
    any::Any,
    fmt::{self, Debug, Formatter},
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

/// How a body ended, and the last thing that its stream delivers.
struct Outcome<T> {
    ended: Result<(), StopReason>,
    last: Option<Last<T>>,
}

impl<T> Outcome<T> {
    fn of(ended: Result<(), StopReason>) -> Self {
        Self { ended, last: None }
    }

    fn panicked(payload: Box<dyn Any + Send>) -> Self {
        Self {
            ended: Ok(()),
            last: Some(Last::Panic(payload)),
        }
    }
}

impl<T, E> Outcome<Result<T, E>> {
    /// The error of a body is the last item.
    fn of_try(ended: Result<(), E>) -> Self {
        Self {
            ended: Ok(()),
            last: ended.err().map(|error| Last::Item(Err(error))),
        }
    }
}

/// The consumer's side of a producer.
struct Consumer<T> {
    valve: Valve<Receiver<T>, ConsumerStop>,
    channel: Arc<Channel<T>>,
    /// The error with which the body ended by itself.
    failed: Option<StopReason>,
    /// `None` once the stream has reported its error.
    report: Option<Report<T>>,
}

/// How a stream of results reports a stop: as an `Err`, instead of ending without an error.
struct Report<T> {
    /// Makes the last item from the reason.
    of_stop: fn(StopReason) -> T,
    /// Whether an item is the error of the body, after which the stream ends: a sender only sends `Ok`s.
    is_error: fn(&T) -> bool,
}

impl<T, E: From<StopReason>> Report<Result<T, E>> {
    const fn new() -> Self {
        Self {
            of_stop: |reason| Err(reason.into()),
            is_error: Result::is_err,
        }
    }
}

impl<T> Consumer<T> {
    fn new(channel: Arc<Channel<T>>, report: Option<Report<T>>) -> Self {
        let stop = ConsumerStop::of(&channel);
        Self {
            valve: Valve::new(Receiver::new(Arc::clone(&channel)), stop),
            channel,
            failed: None,
            report,
        }
    }

    fn stop_reason(&self) -> Option<&StopReason> {
        self.valve.stop_reason().or(self.failed.as_ref())
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<T>> {
        let mut valve = Pin::new(&mut self.valve);
        match valve.as_mut().poll_next(cx) {
            Ok(item) => {
                if self
                    .report
                    .as_ref()
                    .is_some_and(|report| (report.is_error)(&item))
                {
                    // No second error, even if the signal fires later.
                    self.report = None;
                    valve.finish();
                }
                return Poll::Ready(Some(item));
            }
            Err(Halt::Pending) => return Poll::Pending,
            Err(Halt::Stopped) => {}
            Err(Halt::Ended) => {
                if let Some(Err(reason)) = self.channel.ended() {
                    self.failed = self.failed.take().or(Some(reason));
                }
            }
        }
        let report = self.report.take().zip(self.stop_reason().cloned());
        Poll::Ready(report.map(|(report, reason)| (report.of_stop)(reason)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let upper = self.valve.upper_bound();
        let error = usize::from(self.report.is_some());
        (0, upper.and_then(|upper| upper.checked_add(error)))
    }

    fn is_terminated(&self) -> bool {
        self.valve.is_over()
    }

    fn join(self) -> Join<T> {
        Join {
            channel: self.channel,
        }
    }
}

/// The future of `join`: ready when the body of a producer has been dropped.
///
/// `Ok` if the body ended by itself, else the reason of its stop, or the error with which it ended.
///
/// # Panics
///
/// If the body has panicked, and the stream has not passed on the panic.
#[must_use = "futures do nothing unless polled"]
pub struct Join<T> {
    channel: Arc<Channel<T>>,
}

impl<T> Future for Join<T> {
    type Output = Result<(), StopReason>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.channel.poll_ended(cx)
    }
}

impl<T> Debug for Join<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.channel.debug("Join", f)
    }
}

/// What both kinds of producers have in common.
macro_rules! impl_stream {
    ($producer:ident) => {
        impl<T> $producer<T> {
            fn new(consumer: Consumer<T>) -> Self {
                Self {
                    consumer,
                    on_end: EndCall::none(),
                }
            }

            /// Calls `f` once, when the stream has ended, like
            /// [`TakeUntilCancelled::on_end`](crate::TakeUntilCancelled::on_end): with `Ok` if the body ended by
            /// itself, else with what [`stop_reason`](Self::stop_reason) returns. The body may still exist then;
            /// [`join`](Self::join) waits until it has been dropped.
            pub fn on_end<F>(self, f: F) -> $producer<T, F>
            where
                F: FnOnce(Result<(), &StopReason>),
            {
                $producer {
                    consumer: self.consumer,
                    on_end: EndCall::new(f),
                }
            }
        }

        impl<T, F: FnOnce(Result<(), &StopReason>)> $producer<T, F> {
            /// Why the stream was stopped: `Some` from the poll in which it stopped, `None` while it runs and after the
            /// body has returned `Ok`. If the body returned an `Err`, that is the reason.
            pub fn stop_reason(&self) -> Option<&StopReason> {
                self.consumer.stop_reason()
            }

            /// Drops the stream, and waits until the body has been dropped. Returns `Ok` if the body ended by itself,
            /// else the reason of its stop, or the error with which it ended.
            ///
            /// A body that still runs is stopped with [`StopReason::ConsumerDropped`]. The error of a body that yields
            /// results is an item, and not returned here.
            ///
            /// To join a stream after an adapter, pass the adapter a borrow, as in `(&mut numbers).take(5)`.
            ///
            /// # Panics
            ///
            /// The future panics if the body has panicked, and the stream has not passed on the panic.
            pub fn join(self) -> Join<T> {
                self.consumer.join()
            }
        }

        impl<T, F: FnOnce(Result<(), &StopReason>)> Stream for $producer<T, F> {
            type Item = T;

            fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
                let this = self.project();
                let has_panicked = this.consumer.is_terminated();
                let polled = this.consumer.poll_next(cx);
                if this.consumer.is_terminated() {
                    this.on_end.call(match this.consumer.stop_reason() {
                        Some(reason) => Err(reason),
                        None if has_panicked => Err(&StopReason::ConsumerDropped),
                        None => Ok(()),
                    });
                }
                polled
            }

            fn size_hint(&self) -> (usize, Option<usize>) {
                self.consumer.size_hint()
            }
        }

        impl<T, F: FnOnce(Result<(), &StopReason>)> FusedStream for $producer<T, F> {
            fn is_terminated(&self) -> bool {
                self.consumer.is_terminated()
            }
        }

        impl<T, F: FnOnce(Result<(), &StopReason>)> Debug for $producer<T, F> {
            fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
                self.consumer.valve.debug(stringify!($producer), f)
            }
        }
    };
}

use impl_stream;
