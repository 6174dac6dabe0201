use crate::{CancellationToken, IntoSignal, Signal, StopReason, signal::TokenSignal};
use pin_project::pin_project;
use std::{
    fmt::{self, Debug, Formatter},
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

#[cfg(feature = "tokio")]
use {
    crate::signal::{self, Deadline, IntoDeadline},
    std::time::Duration,
};

/// Ways to stop a future, for every [`Future`]. The output is a `Result`, and its `Err` is the reason.
///
/// - The signal is checked first, at every poll: once it has fired, a ready future is stopped too. If it has fired
///   before the first poll, the future is never polled.
/// - The future, with everything that it owns, is dropped before the output is returned.
/// - The signal wakes a pending future.
///
/// Use it also for a loop whose body awaits: an adapter stops the stream, but not the loop body that handles an item.
/// Wrap the whole loop.
///
/// ```
/// use futures::{StreamExt, executor::block_on, stream};
/// use stopcock::{CancelFutureExt, CancellationToken, StopReason};
///
/// async fn write(_: u32) {
///     // A client that does not read: no adapter of the stream of numbers can end this.
///     std::future::pending().await
/// }
///
/// let token = CancellationToken::new();
/// let numbers = stream::iter(0..);
/// let serve = numbers.for_each(write).with_cancellation(&token);
///
/// token.cancel();
/// assert!(matches!(block_on(serve), Err(StopReason::Cancelled)));
/// ```
pub trait CancelFutureExt: Future {
    /// Runs the future until `signal` fires: then the output is the reason as an `Err`.
    ///
    /// futures calls this `abortable`, whose `Err` has no reason. tokio-util calls it `with_cancellation_token`, whose
    /// output is an `Option`.
    ///
    /// ```text
    /// future   ------------a
    /// signal   -------X
    /// output   -------X
    /// ```
    ///
    /// # Cancel safety
    ///
    /// The same as that of the future, which is dropped at its current `await`.
    ///
    /// # Panics
    ///
    /// If it is polled again after it was ready.
    ///
    /// # Examples
    ///
    /// ```
    /// use futures::executor::block_on;
    /// use stopcock::{CancelFutureExt, CancellationToken};
    ///
    /// let token = CancellationToken::new();
    /// assert_eq!(block_on(async { 7 }.with_cancellation(&token)).unwrap(), 7);
    ///
    /// token.cancel_with("enough");
    /// let stopped = block_on(async { 7 }.with_cancellation(&token)).unwrap_err();
    /// assert_eq!(stopped.to_string(), "enough");
    /// ```
    #[inline]
    #[track_caller]
    fn with_cancellation<G: IntoSignal>(self, signal: G) -> WithCancellationFuture<Self, G::Signal>
    where
        Self: Sized,
    {
        WithCancellationFuture::new(self, signal.into_signal_of("with_cancellation"))
    }

    /// Runs the future until the point in time `at`: then the output is
    /// [`Err(StopReason::DeadlineExceeded)`](crate::StopReason::DeadlineExceeded).
    ///
    /// ```text
    /// future   ------------a
    /// deadline -------X
    /// output   -------X
    /// ```
    ///
    /// tokio calls this `timeout_at`. `at` is a point in time; for a length of time use
    /// [`with_timeout`](Self::with_timeout). If the deadline is in the past, the future is never polled.
    ///
    /// # Panics
    ///
    /// The first poll panics outside of a tokio runtime, or in one that was built without `enable_time`, unless the
    /// deadline has passed by then or never comes. Like [`with_cancellation`](Self::with_cancellation), it also panics
    /// if it is polled again after it was ready.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::future::pending;
    /// use stopcock::{CancelFutureExt, StopReason};
    /// use tokio::time::{Duration, Instant};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let at = Instant::now() + Duration::from_secs(5);
    /// let stopped = pending::<()>().with_deadline(at).await;
    /// assert!(matches!(stopped, Err(StopReason::DeadlineExceeded)));
    /// assert_eq!(Instant::now(), at);
    /// # }
    /// ```
    #[cfg(feature = "tokio")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
    fn with_deadline(self, at: impl IntoDeadline) -> WithDeadlineFuture<Self>
    where
        Self: Sized,
    {
        WithCancellationFuture::new(self, signal::deadline(at))
    }

    /// Like [`with_deadline`](Self::with_deadline), with `timeout` counted from this call.
    ///
    /// tokio calls this `timeout`, Kotlin `withTimeout`.
    ///
    /// ```text
    /// future   ------------a
    /// timeout  -------X
    /// output   -------X
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
    /// use std::time::Duration;
    /// use stopcock::CancelFutureExt;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let answer = async { 7 }.with_timeout(Duration::from_secs(5));
    /// assert_eq!(answer.await.unwrap(), 7);
    /// # }
    /// ```
    #[cfg(feature = "tokio")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
    fn with_timeout(self, timeout: Duration) -> WithDeadlineFuture<Self>
    where
        Self: Sized,
    {
        WithCancellationFuture::new(self, signal::timeout(timeout))
    }
}

impl<Fut: Future + ?Sized> CancelFutureExt for Fut {}

impl CancellationToken {
    /// Runs `future` until it is ready, or until this token is cancelled: then the future is dropped, and the output is
    /// `None`.
    ///
    /// For a `Result` with the reason, see [`with_cancellation`](crate::CancelFutureExt::with_cancellation).
    ///
    /// # Termination
    ///
    /// The token is checked first at every poll. Once it is cancelled, the future is never polled again, and it is
    /// dropped before `None` is returned. If the token is cancelled before the first poll, the future is never polled.
    /// An output of the future is always returned, even if the token is cancelled during that poll.
    ///
    /// tokio-util's method of the same name is less strict: except at the first poll, it polls the future before the
    /// token. Also, it borrows the token, which this method does not.
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops `future`, and does not cancel the token.
    ///
    /// # Panics
    ///
    /// If it is polled again after it was ready.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::future::{pending, ready};
    /// use stopcock::CancellationToken;
    ///
    /// # futures::executor::block_on(async {
    /// let token = CancellationToken::new();
    /// assert_eq!(token.run_until_cancelled(ready(1)).await, Some(1));
    ///
    /// let request = token.run_until_cancelled(pending::<u8>());
    /// token.cancel();
    /// assert_eq!(request.await, None);
    /// assert_eq!(token.run_until_cancelled(ready(1)).await, None);
    /// # });
    /// ```
    #[track_caller]
    pub fn run_until_cancelled<Fut: Future>(&self, future: Fut) -> RunUntilCancelled<Fut> {
        self.clone().run_until_cancelled_owned(future)
    }

    /// Like [`run_until_cancelled`](Self::run_until_cancelled), but takes this token.
    #[track_caller]
    pub fn run_until_cancelled_owned<Fut: Future>(self, future: Fut) -> RunUntilCancelled<Fut> {
        RunUntilCancelled::new(future, self)
    }
}

/// The future of [`CancellationToken::run_until_cancelled`] and
/// [`run_until_cancelled_owned`](CancellationToken::run_until_cancelled_owned).
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub struct RunUntilCancelled<Fut> {
    #[pin]
    valve: FutureValve<Fut, TokenSignal>,
}

impl<Fut> RunUntilCancelled<Fut> {
    #[track_caller]
    pub(crate) fn new(future: Fut, token: CancellationToken) -> Self {
        Self {
            valve: FutureValve::Open(future, token.into_signal_of("run_until_cancelled")),
        }
    }
}

/// The future of [`CancelFutureExt::with_cancellation`]. With another signal also that of `with_deadline` and
/// `with_timeout`.
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub struct WithCancellationFuture<Fut, G = TokenSignal> {
    #[pin]
    valve: FutureValve<Fut, G>,
}

/// The future of [`CancelFutureExt::with_deadline`] and [`with_timeout`](CancelFutureExt::with_timeout).
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
pub type WithDeadlineFuture<Fut> = WithCancellationFuture<Fut, Deadline>;

impl<Fut, G> WithCancellationFuture<Fut, G> {
    fn new(future: Fut, signal: G) -> Self {
        Self {
            valve: FutureValve::Open(future, signal),
        }
    }
}

impl<Fut: Future, G: Signal> Future for WithCancellationFuture<Fut, G> {
    type Output = Result<Fut::Output, StopReason>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().valve.poll(cx)
    }
}

impl<Fut, G> Debug for WithCancellationFuture<Fut, G> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.valve.debug("WithCancellationFuture", f)
    }
}

impl<Fut: Future> Future for RunUntilCancelled<Fut> {
    type Output = Option<Fut::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().valve.poll(cx).map(Result::ok)
    }
}

impl<Fut> Debug for RunUntilCancelled<Fut> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.valve.debug("RunUntilCancelled", f)
    }
}

/// The mechanism behind all futures of this crate: runs a future until a signal fires.
///
/// Once it is over, the future has been dropped.
#[pin_project(project = FutureValveProjection)]
pub(crate) enum FutureValve<Fut, G> {
    /// Dropped in this order.
    Open(#[pin] Fut, #[pin] G),
    Over,
}

impl<Fut, G> FutureValve<Fut, G> {
    /// Formats without a `Debug` of the future or the signal.
    pub(crate) fn debug(&self, name: &str, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct(name)
            .field("is_over", &matches!(self, Self::Over))
            .finish()
    }
}

impl<Fut: Future, G: Signal> FutureValve<Fut, G> {
    pub(crate) fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Fut::Output, StopReason>> {
        self.poll_then(cx, |output| output)
    }

    /// Like `poll`, but maps the output by `then` before the future and the signal are dropped: a holder that `then`
    /// makes counts for `settled` without a gap.
    pub(crate) fn poll_then<R>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        then: impl FnOnce(Fut::Output) -> R,
    ) -> Poll<Result<R, StopReason>> {
        let polled = self.as_mut().poll_open(cx).map_ok(then);
        if polled.is_ready() {
            self.set(Self::Over);
        }
        polled
    }

    fn poll_open(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Fut::Output, StopReason>> {
        let FutureValveProjection::Open(future, mut signal) = self.project() else {
            panic!(
                "a future was polled after it was ready: poll it in an `async` block, or `fuse` it"
            );
        };
        // The signal is checked first, so that a ready future cannot outrun it.
        signal.as_mut().check_every(0);
        if signal.as_mut().is_fired() {
            if let Poll::Ready(reason) = signal.as_mut().poll_fired(cx) {
                return Poll::Ready(Err(reason));
            }
        }
        match future.poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            // A signal that fired during the poll is noticed here.
            Poll::Pending => signal.poll_fired(cx).map(Err),
        }
    }
}
