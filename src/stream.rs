mod accessors;
mod cancel_on_drop;
mod drop_on_cancel;
mod map_stop;
mod refinements;
mod take_until_cancelled;
mod try_with_cancellation;
mod valve;
mod with_cancellation;

pub use cancel_on_drop::{CancelOnDrop, CancelTarget};
pub use drop_on_cancel::{CancelSignal, DropOnCancel};
pub use map_stop::{FromReason, MapStop, StopError, StopOutput};
pub use take_until_cancelled::TakeUntilCancelled;
pub use try_with_cancellation::TryWithCancellation;
pub use with_cancellation::WithCancellation;

#[cfg(any(feature = "http", all(test, stopcock_loom)))]
pub(crate) use drop_on_cancel::HasValve;
pub(crate) use valve::{AtEnd, Halt, HaltWith, Valve};

use crate::IntoSignal;
use futures_core::Stream;

#[cfg(feature = "tokio")]
use {
    crate::signal::{self, Deadline, Idle, IntoDeadline},
    std::time::Duration,
};

/// The stream of [`CancelStreamExt::take_until_deadline`] and
/// [`take_until_timeout`](CancelStreamExt::take_until_timeout).
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
pub type TakeUntilDeadline<S> = TakeUntilCancelled<S, Deadline>;

/// The stream of [`CancelStreamExt::with_deadline`] and [`with_timeout`](CancelStreamExt::with_timeout).
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
pub type WithDeadline<S, M = FromReason> = WithCancellation<S, Deadline, M>;

/// The stream of [`CancelStreamExt::with_idle_timeout`].
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
pub type WithIdleTimeout<S, M = FromReason> = WithCancellation<S, Idle, M>;

/// The stream of [`CancelTryStreamExt::try_with_deadline`] and
/// [`try_with_timeout`](CancelTryStreamExt::try_with_timeout).
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
pub type TryWithDeadline<S, M = FromReason> = TryWithCancellation<S, Deadline, M>;

/// The stream of [`CancelTryStreamExt::try_with_idle_timeout`].
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
pub type TryWithIdleTimeout<S, M = FromReason> = TryWithCancellation<S, Idle, M>;

/// Ways to stop a stream, for every [`Stream`].
///
/// `take_*` end without an error, `with_*` end with the reason as an `Err`. Where a truncated stream must not look
/// complete, as with the body of a response, choose the latter.
///
/// All of them guarantee [the laws](crate::guide::laws), in short:
///
/// - They yield a prefix of the source, in order. An item that was taken from the source is yielded, even if the stop
///   comes during that poll. After the stop the source is not polled again.
/// - The source is dropped before the end: when the stream returns `None`, or its last `Err`, what the source owned has
///   been dropped. Dropping the adapter drops the source at once.
/// - They are fused. `stop_reason()` is `None` after a natural end, and never changes once it is set.
/// - If the source ends when the signal has fired, that is a stop, as a stream below may have seen the same signal
///   first. An end within the grace period of `drain_for` is natural, and an idle timeout counts an end as an item.
/// - If the source panics, so does the poll, once. Then the stream has ended.
///
/// The marble diagrams below use these marks:
///
/// | in a diagram | is |
/// |---|---|
/// | `a`, `b`, `c` | an item; those in parentheses come at once |
/// | `-` | time that passes; for a poll, that it is pending |
/// | `X` | the stop: beside a signal, a deadline or a timeout where it fires, in an output the `Err` that reports it |
/// | <code>&#124;</code> | the end |
/// | `E` | an `Err` of the source or the body |
/// | `D` | the source is dropped |
/// | `/` | the stream is dropped by its consumer |
///
/// A stream may be borrowed, as in `(&mut stream).with_timeout(..)`, and read further afterwards.
///
/// Adapters may be stacked: a `with_*` or `try_*` stream whose signal has fired returns its `Err`, even if the stream
/// below it ended for the same stop without an error. A stop of the stream below alone, as by a child token, is an end
/// like any other to the one above. So `drain_for` belongs on the innermost adapter.
pub trait CancelStreamExt: Stream {
    /// Takes items until `signal` fires, then ends.
    ///
    /// Like `take_until` of futures or its `abortable`, with a reason, a fair turn for other tasks, and no item after
    /// the signal. Kotlin cancels the scope that collects a `Flow`; Go selects on `ctx.Done()` in the loop.
    ///
    /// ```text
    /// source   a---b---c---d--
    /// signal   ---------X
    /// output   a---b----|
    /// ```
    ///
    /// # Termination
    ///
    /// Ends with the source, or when the signal fires: from then on it yields no item, even if one is ready. If the
    /// signal has fired before the first poll, the source is never polled. The signal wakes a pending stream.
    ///
    /// A token's deadline is checked at the first poll and after each `Pending`, and about once a millisecond in a run
    /// of ready items, as by `with_deadline`.
    ///
    /// # Fairness
    ///
    /// The signal is checked before every item. After 1024 items without a `Pending` the adapter wakes its task and
    /// returns `Pending` once, so that a source which is always ready can be stopped from the same thread.
    ///
    /// Several such streams in one task, in a `select`, a `merge` or a loop of `select!`, could take turns forever. In
    /// a tokio task they share its cooperative budget of 128 units: each yield takes a sixteenth of it, or in
    /// proportion to [`yield_every`](TakeUntilCancelled::yield_every) but at least one unit, and a stream stays pending
    /// while nothing is left. So `K` streams, up to 64, let other tasks of the thread run after `(K + 16) * 1024` items
    /// in all. There is no such budget on other runtimes, under `unconstrained`, and with `yield_every(0)` or more than
    /// 1024. There, put the adapter around the merge.
    ///
    /// # Cancel safety
    ///
    /// The adapter buffers nothing: dropping a `next()` future loses no item.
    ///
    /// # Examples
    ///
    /// ```
    /// use futures::{StreamExt, stream};
    /// use stopcock::{CancelStreamExt, CancellationToken};
    ///
    /// # futures::executor::block_on(async {
    /// let token = CancellationToken::new();
    /// let mut numbers = stream::iter(1..).take_until_cancelled(&token);
    ///
    /// assert_eq!(numbers.next().await, Some(1));
    /// assert_eq!(numbers.next().await, Some(2));
    /// token.cancel_with("enough");
    /// assert_eq!(numbers.next().await, None);
    /// assert_eq!(numbers.stop_reason().unwrap().to_string(), "enough");
    /// # });
    /// ```
    #[inline(always)]
    #[track_caller]
    fn take_until_cancelled<G: IntoSignal>(self, signal: G) -> TakeUntilCancelled<Self, G::Signal>
    where
        Self: Sized,
    {
        TakeUntilCancelled::new(self, signal.into_signal_of("take_until_cancelled"))
    }

    /// Passes the items on as `Ok` until `signal` fires, then ends with its reason as an `Err`.
    ///
    /// Like a Go loop that returns `context.Cause(ctx)`, or a Kotlin `collect` that throws its `CancellationException`.
    /// `take_until` of futures ends without an error.
    ///
    /// ```text
    /// source   a---b---c---d--
    /// signal   ---------X
    /// output   a---b----(X|)
    /// ```
    ///
    /// For the body of a response, and wherever else a truncated stream must not look complete: hyper and tonic turn an
    /// error in a body into a reset, which the client sees. For a stream that has errors of its own there is
    /// [`try_with_cancellation`](CancelTryStreamExt::try_with_cancellation).
    ///
    /// # Termination
    ///
    /// Like [`take_until_cancelled`](Self::take_until_cancelled), with one `Err` before the end.
    ///
    /// The source is dropped when the stream is next polled, or dropped. hyper does not poll the body of a client that
    /// does not read: for the body of a response add [`drop_on_cancel`](WithCancellation::drop_on_cancel), which drops
    /// the source although nothing polls.
    ///
    /// # Fairness
    ///
    /// Like [`take_until_cancelled`](Self::take_until_cancelled).
    ///
    /// # Cancel safety
    ///
    /// Like [`take_until_cancelled`](Self::take_until_cancelled).
    ///
    /// # Examples
    ///
    /// ```
    /// use futures::{StreamExt, stream};
    /// use stopcock::{CancelStreamExt, CancellationToken};
    ///
    /// # futures::executor::block_on(async {
    /// let token = CancellationToken::new();
    /// let mut rows = stream::repeat("row").with_cancellation(&token);
    ///
    /// assert_eq!(rows.next().await.unwrap().unwrap(), "row");
    /// token.cancel_with("shutting down");
    /// assert_eq!(rows.next().await.unwrap().unwrap_err().to_string(), "shutting down");
    /// assert!(rows.next().await.is_none());
    /// # });
    /// ```
    #[inline(always)]
    #[track_caller]
    fn with_cancellation<G: IntoSignal>(self, signal: G) -> WithCancellation<Self, G::Signal>
    where
        Self: Sized,
    {
        WithCancellation::new(self, signal.into_signal_of("with_cancellation"))
    }

    /// Takes items until the point in time `at`, then ends.
    ///
    /// Like `take_until(sleep_until(at))` of futures and tokio, and unlike it also with a source that is always ready.
    ///
    /// ```text
    /// source   a---b---c---d--
    /// at                X
    /// output   a---b---c|
    /// ```
    ///
    /// # Termination
    ///
    /// Like [`with_deadline`](Self::with_deadline), without the error: for a consumer that wants the items of a length
    /// of time, such as the samples of one second.
    ///
    /// # Panics
    ///
    /// Like [`with_deadline`](Self::with_deadline).
    ///
    /// # Examples
    ///
    /// ```
    /// use futures::{StreamExt, stream};
    /// use std::time::Duration;
    /// use stopcock::{CancelStreamExt, StopReason};
    /// use tokio::time::Instant;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let at = Instant::now() + Duration::from_secs(1);
    /// let mut samples = stream::iter([1, 2]).chain(stream::pending()).take_until_deadline(at);
    /// assert_eq!((&mut samples).collect::<Vec<_>>().await, [1, 2]);
    /// assert!(matches!(samples.stop_reason(), Some(StopReason::DeadlineExceeded)));
    /// # }
    /// ```
    #[cfg(feature = "tokio")]
    fn take_until_deadline(self, at: impl IntoDeadline) -> TakeUntilDeadline<Self>
    where
        Self: Sized,
    {
        TakeUntilCancelled::new(self, signal::deadline(at))
    }

    /// Like [`take_until_deadline`](Self::take_until_deadline), with `timeout` counted from this call.
    ///
    /// Like `take_until(sleep(timeout))` of futures and tokio.
    ///
    /// ```text
    /// source   a---b---c---d--
    /// timeout  --------X
    /// output   a---b---|
    /// ```
    ///
    /// A timeout that is too long for the clock, such as [`Duration::MAX`], never passes.
    ///
    /// # Panics
    ///
    /// Like [`with_deadline`](Self::with_deadline).
    ///
    /// # Examples
    ///
    /// ```
    /// use futures::{StreamExt, stream};
    /// use std::time::Duration;
    /// use stopcock::CancelStreamExt;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let endless = stream::repeat(1).take_until_timeout(Duration::ZERO);
    /// assert_eq!(endless.count().await, 0);
    /// # }
    /// ```
    #[cfg(feature = "tokio")]
    fn take_until_timeout(self, timeout: Duration) -> TakeUntilDeadline<Self>
    where
        Self: Sized,
    {
        TakeUntilCancelled::new(self, signal::timeout(timeout))
    }

    /// Passes the items on as `Ok` until the point in time `at`, then ends with
    /// [`Err(StopReason::DeadlineExceeded)`](crate::StopReason::DeadlineExceeded).
    ///
    /// Like Go's `context.WithDeadline`, for one stream. For a length of time there is
    /// [`with_timeout`](Self::with_timeout).
    ///
    /// ```text
    /// source   a---b---c---d--
    /// at                X
    /// output   a---b---c(X|)
    /// ```
    ///
    /// # Termination
    ///
    /// Ends with the source, or at the deadline with one `Err`. If the deadline is in the past, the source is never
    /// polled.
    ///
    /// The first poll, and each one after a `Pending`, is exact. In a run of ready items the clock is read about once a
    /// millisecond, estimated from the pace of the last items and the consumer's time, and after at most 64 items. So a
    /// stream that suddenly slows down is stopped at most 64 items late. A consumer that awaits something between two
    /// items is stopped at its next poll. No timer is made for a source that is never pending and ends within 64 items.
    ///
    /// # Fairness
    ///
    /// Like [`take_until_cancelled`](Self::take_until_cancelled). The deadline holds even for a source that is always
    /// ready, on a runtime of one thread, where no timer can run.
    ///
    /// # Cancel safety
    ///
    /// Like [`take_until_cancelled`](Self::take_until_cancelled).
    ///
    /// # Panics
    ///
    /// The first poll panics outside of a tokio runtime, or in one that was built without `enable_time`, unless the
    /// deadline has passed by then or never comes.
    ///
    /// # Examples
    ///
    /// ```
    /// use futures::{StreamExt, stream};
    /// use std::time::Duration;
    /// use stopcock::{CancelStreamExt, StopReason};
    /// use tokio::time::Instant;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let at = Instant::now() + Duration::from_secs(5);
    /// let mut answer = stream::iter(["a", "b"]).chain(stream::pending()).with_deadline(at);
    ///
    /// assert_eq!(answer.next().await.unwrap().unwrap(), "a");
    /// assert_eq!(answer.next().await.unwrap().unwrap(), "b");
    /// assert!(matches!(answer.next().await, Some(Err(StopReason::DeadlineExceeded))));
    /// assert!(answer.next().await.is_none());
    /// # }
    /// ```
    #[cfg(feature = "tokio")]
    fn with_deadline(self, at: impl IntoDeadline) -> WithDeadline<Self>
    where
        Self: Sized,
    {
        WithDeadline::new(self, signal::deadline(at))
    }

    /// Like [`with_deadline`](Self::with_deadline), with `timeout` counted from this call, for the whole
    /// stream and not for each item.
    ///
    /// Like Go's `context.WithTimeout` and Kotlin's `withTimeout`. `timeout` of tokio-stream is for each item: that is
    /// [`with_idle_timeout`](Self::with_idle_timeout).
    ///
    /// ```text
    /// source   a---b---c---d--
    /// timeout  --------X
    /// output   a---b---(X|)
    /// ```
    ///
    /// A timeout that is too long for the clock, such as [`Duration::MAX`], never passes.
    ///
    /// # Panics
    ///
    /// Like [`with_deadline`](Self::with_deadline).
    ///
    /// # Examples
    ///
    /// ```
    /// use futures::{TryStreamExt, stream};
    /// use std::time::Duration;
    /// use stopcock::{CancelStreamExt, StopReason};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let whole = stream::iter(1..=3).with_timeout(Duration::from_secs(5));
    /// assert_eq!(whole.try_collect::<Vec<_>>().await.unwrap(), [1, 2, 3]);
    ///
    /// let endless = stream::repeat(1).with_timeout(Duration::ZERO);
    /// let cut = endless.try_collect::<Vec<_>>().await;
    /// assert!(matches!(cut, Err(StopReason::DeadlineExceeded)));
    /// # }
    /// ```
    #[cfg(feature = "tokio")]
    fn with_timeout(self, timeout: Duration) -> WithDeadline<Self>
    where
        Self: Sized,
    {
        WithDeadline::new(self, signal::timeout(timeout))
    }

    /// Passes the items on as `Ok` until none comes for `timeout`, then ends with
    /// [`Err(StopReason::IdleTimeout)`](crate::StopReason::IdleTimeout).
    ///
    /// Like `timeout(d)` of tokio-stream, which yields `Err(Elapsed)` and continues with the source afterwards; this
    /// stream ends. Kotlin's `Flow.timeout` ends as well.
    ///
    /// ```text
    /// source   a--b----c-----------
    /// timeout           ------X
    /// output   a--b----c------(X|)
    /// ```
    ///
    /// The time runs from the first `Pending` after an item, or after the start. A slow consumer does not count, nor
    /// does a `Pending` that the source returns only because the task's cooperative budget is used up. When the time is
    /// over the source is polled once more, and an item that is ready is yielded.
    ///
    /// A late poll does not count as an idle source. A poll that is late by more than a sixteenth of
    /// `timeout` and more than 10 ms starts the time again, once. If the time is over a second time before an item has
    /// come, the stream is stopped.
    ///
    /// # Termination
    ///
    /// Ends with the source, or with one `Err` when no item came for `timeout`. The timer is set once, and again when
    /// it fires, not for each item.
    ///
    /// # Fairness
    ///
    /// Like [`take_until_cancelled`](Self::take_until_cancelled).
    ///
    /// # Cancel safety
    ///
    /// Like [`take_until_cancelled`](Self::take_until_cancelled).
    ///
    /// # Panics
    ///
    /// The first poll that is pending panics outside of a tokio runtime, or in one that was built without
    /// `enable_time`.
    ///
    /// # Examples
    ///
    /// ```
    /// use futures::{StreamExt, stream};
    /// use std::time::Duration;
    /// use stopcock::{CancelStreamExt, StopReason};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let feed = stream::iter(["a", "b"]).chain(stream::pending());
    /// let mut feed = feed.with_idle_timeout(Duration::from_secs(30));
    ///
    /// assert_eq!(feed.next().await.unwrap().unwrap(), "a");
    /// // The consumer takes its time.
    /// tokio::time::sleep(Duration::from_secs(60)).await;
    /// assert_eq!(feed.next().await.unwrap().unwrap(), "b");
    /// assert!(matches!(feed.next().await, Some(Err(StopReason::IdleTimeout))));
    /// assert!(feed.next().await.is_none());
    /// # }
    /// ```
    #[cfg(feature = "tokio")]
    fn with_idle_timeout(self, timeout: Duration) -> WithIdleTimeout<Self>
    where
        Self: Sized,
    {
        WithCancellation::new(self, signal::idle(timeout))
    }

    /// Cancels `target` with [`StopReason::ConsumerDropped`](crate::StopReason::ConsumerDropped) if it is dropped
    /// before it has ended.
    ///
    /// Like tokio-util's `DropGuard`, or its `AbortOnDropHandle`, moved into the stream and disarmed at its end. In Go
    /// it is `defer cancel()`.
    ///
    /// ```text
    /// source   a---b---c---d--
    /// output   a---b--/        dropped
    /// target   -------X
    /// ```
    ///
    /// A target is a token, or the `AbortHandle` of a tokio task; see [`CancelTarget`].
    ///
    /// For the body of a response whose client hangs up: the server drops the body, and that stops all other
    /// work under the request's token. And for a task that feeds a channel, which outlives the reader otherwise:
    /// `ReceiverStream::new(receiver).cancel_on_drop(task.abort_handle())`.
    ///
    /// # Termination
    ///
    /// Ends with the source. If it is dropped before it has returned `None`, it drops the source, then cancels. After a
    /// panic of the source the next poll returns `None`.
    ///
    /// # Fairness
    ///
    /// Like [`take_until_cancelled`](Self::take_until_cancelled).
    ///
    /// # Examples
    ///
    /// ```
    /// use futures::{StreamExt, executor::block_on, stream};
    /// use stopcock::{CancelStreamExt, CancellationToken, StopReason};
    ///
    /// let request = CancellationToken::new();
    /// let mut body = stream::repeat("row").cancel_on_drop(request.clone());
    /// assert_eq!(block_on(body.next()), Some("row"));
    ///
    /// drop(body);
    /// assert!(matches!(request.stop_reason(), Some(StopReason::ConsumerDropped)));
    /// ```
    fn cancel_on_drop<C: CancelTarget>(self, target: C) -> CancelOnDrop<Self, C>
    where
        Self: Sized,
    {
        CancelOnDrop::new(self, target)
    }
}

impl<S: Stream + ?Sized> CancelStreamExt for S {}

/// The `with_*` methods of [`CancelStreamExt`] for a stream of results: with one level of `Result`, in which the stop
/// is one more error.
///
/// The error of a stop is made by `From<StopReason>`, as for [`std::io::Error`], or by
/// [`.map_stop(|reason| ..)`](TryWithCancellation::map_stop), for the error types of other crates. Without either the
/// adapter is no [`Stream`]: "the method `next` exists for struct `TryWithCancellation`, but its trait bounds were not
/// satisfied".
pub trait CancelTryStreamExt: Stream<Item = Result<Self::Ok, Self::Error>> {
    /// The `Ok` of an item.
    type Ok;
    /// The `Err` of an item.
    type Error;

    /// Like [`with_cancellation`](CancelStreamExt::with_cancellation), with the reason converted into the stream's
    /// error.
    ///
    /// ```text
    /// source   a---b---E-----c--
    /// signal   -------------X
    /// output   a---b---E----(X|)
    /// ```
    ///
    /// The natural adapter for the body of a response. The source is dropped when the stream is next polled, or
    /// dropped, and hyper does not poll the body of a client that does not read: add
    /// [`drop_on_cancel`](TryWithCancellation::drop_on_cancel), which drops the source although nothing polls.
    ///
    /// # Examples
    ///
    /// ```
    /// use futures::{StreamExt, executor::block_on, stream};
    /// use std::io;
    /// use stopcock::{CancelTryStreamExt, CancellationToken};
    ///
    /// let token = CancellationToken::new();
    /// let chunks = stream::repeat_with(|| io::Result::Ok("chunk"));
    /// let mut body = chunks.try_with_cancellation(&token).drop_on_cancel();
    ///
    /// assert_eq!(block_on(body.next()).unwrap().unwrap(), "chunk");
    /// token.cancel();
    /// let error: io::Error = block_on(body.next()).unwrap().unwrap_err();
    /// assert_eq!(error.to_string(), "cancelled");
    /// assert!(block_on(body.next()).is_none());
    /// ```
    #[inline(always)]
    #[track_caller]
    fn try_with_cancellation<G: IntoSignal>(self, signal: G) -> TryWithCancellation<Self, G::Signal>
    where
        Self: Sized,
    {
        TryWithCancellation::new(self, signal.into_signal_of("try_with_cancellation"))
    }

    /// Like [`with_deadline`](CancelStreamExt::with_deadline), with the reason converted into the stream's error.
    ///
    /// ```text
    /// source   a---b---E-----c--
    /// deadline -------------X
    /// output   a---b---E----(X|)
    /// ```
    ///
    /// # Panics
    ///
    /// Like [`with_deadline`](CancelStreamExt::with_deadline).
    ///
    /// # Examples
    ///
    /// ```
    /// use futures::{StreamExt, stream};
    /// use std::io;
    /// use stopcock::CancelTryStreamExt;
    /// use tokio::time::{Duration, Instant};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let at = Instant::now() + Duration::from_secs(5);
    /// let mut body = stream::pending::<io::Result<&str>>().try_with_deadline(at);
    /// let error = body.next().await.unwrap().unwrap_err();
    /// assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    /// # }
    /// ```
    #[cfg(feature = "tokio")]
    fn try_with_deadline(self, at: impl IntoDeadline) -> TryWithDeadline<Self>
    where
        Self: Sized,
    {
        TryWithCancellation::new(self, signal::deadline(at))
    }

    /// Like [`with_timeout`](CancelStreamExt::with_timeout), with the reason converted into the stream's error.
    ///
    /// ```text
    /// source   a---b---E-----c--
    /// timeout  -------------X
    /// output   a---b---E----(X|)
    /// ```
    ///
    /// # Panics
    ///
    /// Like [`with_deadline`](CancelStreamExt::with_deadline).
    ///
    /// # Examples
    ///
    /// ```
    /// use futures::{TryStreamExt, stream};
    /// use std::{io, time::Duration};
    /// use stopcock::CancelTryStreamExt;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let body = stream::iter([io::Result::Ok(1), Ok(2)]).try_with_timeout(Duration::from_secs(5));
    /// assert_eq!(body.try_collect::<Vec<_>>().await.unwrap(), [1, 2]);
    /// # }
    /// ```
    #[cfg(feature = "tokio")]
    fn try_with_timeout(self, timeout: Duration) -> TryWithDeadline<Self>
    where
        Self: Sized,
    {
        TryWithCancellation::new(self, signal::timeout(timeout))
    }

    /// Like [`with_idle_timeout`](CancelStreamExt::with_idle_timeout), with the reason converted into the stream's
    /// error.
    ///
    /// ```text
    /// source   a---b------------
    /// timeout      --------X
    /// output   a---b-------(X|)
    /// ```
    ///
    /// # Panics
    ///
    /// Like [`with_idle_timeout`](CancelStreamExt::with_idle_timeout).
    ///
    /// # Examples
    ///
    /// ```
    /// use futures::{StreamExt, stream};
    /// use std::{io, time::Duration};
    /// use stopcock::CancelTryStreamExt;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let mut body = stream::pending::<io::Result<&str>>().try_with_idle_timeout(Duration::from_secs(5));
    /// let error = body.next().await.unwrap().unwrap_err();
    /// assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    /// # }
    /// ```
    #[cfg(feature = "tokio")]
    fn try_with_idle_timeout(self, timeout: Duration) -> TryWithIdleTimeout<Self>
    where
        Self: Sized,
    {
        TryWithCancellation::new(self, signal::idle(timeout))
    }
}

impl<S, T, E> CancelTryStreamExt for S
where
    S: Stream<Item = Result<T, E>> + ?Sized,
{
    type Ok = T;
    type Error = E;
}
