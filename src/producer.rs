//! Bodies that run by themselves, on a task or a thread, and the streams that they feed.

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

/// How a body ended, and what it leaves behind.
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
    /// What the body ended with by itself.
    failed: Option<StopReason>,
    /// `None` once there is nothing to report any more.
    report: Option<Report<T>>,
}

/// How a stream of results reports its stop, in place of ending without an error.
struct Report<T> {
    /// The item that a stop makes.
    of_stop: fn(StopReason) -> T,
    /// Whether an item is the error of the body, with which the stream has ended: no body sends one.
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
                    // One error in all, whatever fires later.
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
/// `Ok` if it ended by itself, else why it was stopped or what it ended with.
///
/// # Panics
///
/// With the panic of the body, if that has not come out of the stream.
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
            /// itself, else with what [`stop_reason`](Self::stop_reason) returns. The body may not have been dropped
            /// yet; for that there is [`join`](Self::join), which drops the stream.
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
            /// Why it was stopped: `Some` from the poll that reported it, `None` while it runs and after a natural end.
            /// What the body ended with, if that was an `Err`, is a reason as well.
            pub fn stop_reason(&self) -> Option<&StopReason> {
                self.consumer.stop_reason()
            }

            /// Drops the consumer, and waits until the body has been dropped: `Ok` if it ended by itself, else the
            /// reason of its stop, or what it ended with.
            ///
            /// If it still runs it is stopped, with [`StopReason::ConsumerDropped`]. The error of a body that may fail
            /// is an item, and no reason.
            ///
            /// An adapter around the stream takes it: lend it, as in `(&mut numbers).take(5)`, to join it afterwards.
            ///
            /// # Panics
            ///
            /// The future panics if the body did and that has not come out of the stream.
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
