//! What can stop a stream: tokens, futures, and any type that implements [`Signal`].

mod any;
#[cfg(feature = "tokio")]
mod deadline;
#[cfg(feature = "tokio")]
mod draining;
#[cfg(feature = "tokio")]
mod idle;
mod never;
mod on_end;
mod optional;
mod token;
#[cfg(feature = "tokio-util")]
mod tokio_util;
mod watch;
mod when;

use crate::{CancellationToken, StopReason};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

#[cfg(feature = "tokio")]
use std::time::Duration;

pub(crate) use on_end::EndCall;
pub(crate) use token::Watch;
pub(crate) use watch::token_of;
pub use {
    any::Any,
    never::Never,
    on_end::OnEnd,
    optional::Optional,
    token::TokenSignal,
    when::{MapReason, When},
};

#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
pub use {crate::clock::IntoDeadline, deadline::Deadline, draining::Draining, idle::Idle};

/// Something that fires once, and stays fired.
///
/// Go's counterpart is the channel of `ctx.Done()`, which is closed once, for good.
///
/// An adapter calls [`is_fired`](Self::is_fired) before every item. When its source is pending, it calls
/// [`poll_fired`](Self::poll_fired), so that the signal wakes it.
///
/// # Examples
///
/// A flag of another library as a signal:
///
/// ```
/// use futures::task::AtomicWaker;
/// use std::{
///     pin::Pin,
///     sync::{
///         Arc,
///         atomic::{AtomicBool, Ordering},
///     },
///     task::{Context, Poll},
/// };
/// use stopcock::{CancelStreamExt, Signal, StopReason};
///
/// #[derive(Default)]
/// struct Shutdown {
///     begun: AtomicBool,
///     waker: AtomicWaker,
/// }
///
/// struct ShutdownSignal(Arc<Shutdown>);
///
/// impl Signal for ShutdownSignal {
///     fn is_fired(self: Pin<&mut Self>) -> bool {
///         self.0.begun.load(Ordering::Acquire)
///     }
///
///     fn poll_fired(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
///         // Register before the check, so that no wake-up is lost in between.
///         self.0.waker.register(cx.waker());
///         match self.is_fired() {
///             true => Poll::Ready("shutting down".into()),
///             false => Poll::Pending,
///         }
///     }
/// }
///
/// let shutdown = Arc::new(Shutdown::default());
/// let mut lines = futures::stream::repeat("line")
///     .take_until_cancelled(ShutdownSignal(Arc::clone(&shutdown)));
///
/// futures::executor::block_on(async {
///     use futures::StreamExt;
///
///     assert_eq!(lines.next().await, Some("line"));
///     shutdown.begun.store(true, Ordering::Release);
///     shutdown.waker.wake();
///     assert_eq!(lines.next().await, None);
/// });
/// assert_eq!(lines.stop_reason().unwrap().to_string(), "shutting down");
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a signal",
    label = "not a signal",
    note = "if it is a future, wrap it: `stopcock::signal::when(future)`",
    note = "if it is a token, turn it into a signal: `stopcock::IntoSignal::into_signal(token)`"
)]
pub trait Signal {
    /// Whether the signal has fired. Called before every item, so it should cost no more than a load or two.
    ///
    /// After `true` the adapter calls `poll_fired` for the reason, and continues if that is pending. An implementation
    /// may always return `false`: then the adapter notices the stop only when the source is pending, and a ready item
    /// wins.
    fn is_fired(self: Pin<&mut Self>) -> bool;

    /// Returns the reason if the signal has fired. Otherwise registers `cx`'s waker, to be woken when the signal fires.
    /// Only the latest waker has to be woken.
    fn poll_fired(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason>;

    /// Makes an expensive check, such as one that reads the clock, and returns the number of items after which it is to
    /// be made again.
    ///
    /// The adapter calls this before the first item, and each time after it has yielded for fairness. If the result is
    /// less than 1024, it also calls this after that many items, and after each `Pending` of the source. `items` is the
    /// number of ready items since the previous check: 0 at first and after a `Pending`. `is_fired` is called next, and
    /// returns what this check has found. A signal whose `is_fired` is always up to date does not need this method.
    fn check_every(self: Pin<&mut Self>, items: u32) -> u32 {
        let _ = items;
        u32::MAX
    }

    /// Called for each item of the source. It is for signals that fire when no item comes for too long.
    #[inline]
    fn note_item(self: Pin<&mut Self>) {}

    /// Like [`poll_fired`](Self::poll_fired), but called once, after the source has ended: if the signal has fired by
    /// then, the stream was stopped and did not end by itself.
    ///
    /// No task is woken for it any more; only the result counts. A signal that fires when no item comes for too long
    /// returns `Pending`, because an end counts as an item. A signal that wraps other signals calls this method of
    /// each.
    fn poll_fired_at_end(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        self.poll_fired(cx)
    }

    /// Whether the signal already wakes `cx`'s waker when it fires, so that `poll_fired` has nothing to do. Called in
    /// the same poll of the stream after `is_fired` returned `false` or `poll_fired` was pending. Only a signal that
    /// fires after that matters.
    #[doc(hidden)]
    #[inline]
    fn will_wake(&self, cx: &Context<'_>) -> bool {
        let _ = cx;
        false
    }

    /// Like [`poll_fired`](Self::poll_fired), but called in the same poll of the stream after `is_fired` returned
    /// `false` or `poll_fired` was pending: it need not report a signal that fired before that.
    #[doc(hidden)]
    #[inline]
    fn poll_fired_since(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        self.poll_fired(cx)
    }

    /// Whether [`check_every`](Self::check_every) has anything to do. The result never changes.
    #[doc(hidden)]
    #[inline]
    fn needs_checks(&self) -> bool {
        true
    }

    /// Called once, when the stream has ended, before its source is dropped.
    #[doc(hidden)]
    fn note_end(self: Pin<&mut Self>, end: StreamEnd<'_>) {
        let _ = end;
    }

    /// The token behind this signal, if there is one. Tokens that this crate makes to be cancelled with the stream are
    /// its children.
    fn as_token(&self) -> Option<&CancellationToken> {
        None
    }
}

/// How a stream ended, for [`Signal::note_end`].
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub enum StreamEnd<'a> {
    Natural,
    Stopped(&'a StopReason),
    /// The source was taken out of the stream.
    TakenBack,
}

/// A type that converts into a [`Signal`]: a token, a reference to a token, or a signal.
///
/// A future does not convert by itself: wrap it in [`when()`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a signal, so it cannot stop anything",
    label = "not a signal",
    note = "if it is a future, such as `ctrl_c()`, wrap it: `stopcock::signal::when(future)`",
    note = "if it is tokio-util's `CancellationToken`, enable stopcock's feature `tokio-util`",
    note = "`stopcock::CancellationToken` is a signal, by value and by reference; if it is in an `Arc`, pass `&*arc`, or \
            drop the `Arc`: clones of a token are the same token"
)]
pub trait IntoSignal {
    /// The signal that it converts into.
    type Signal: Signal;

    /// Converts it into a signal.
    #[track_caller]
    fn into_signal(self) -> Self::Signal;

    /// Like `into_signal`, for the function of this name, which [`holders`](CancellationToken::holders) shows.
    #[doc(hidden)]
    #[inline]
    #[track_caller]
    fn into_signal_of(self, what: &'static str) -> Self::Signal
    where
        Self: Sized,
    {
        let _ = what;
        self.into_signal()
    }
}

// Without this attribute the compiler would ask for a `Signal`, and list all implementations.
#[diagnostic::do_not_recommend]
impl<G: Signal> IntoSignal for G {
    type Signal = G;

    fn into_signal(self) -> G {
        self
    }
}

/// `None` never fires: use it for something optional, such as a timeout that may not be configured. In code that is
/// never stopped, use [`never()`](fn@never).
impl<G: IntoSignal> IntoSignal for Option<G> {
    type Signal = Optional<G::Signal>;

    #[inline]
    fn into_signal(self) -> Self::Signal {
        self.into_signal_of("into_signal")
    }

    #[inline]
    fn into_signal_of(self, what: &'static str) -> Self::Signal {
        #[expect(
            clippy::manual_map,
            reason = "with a closure, `#[track_caller]` would report the closure"
        )]
        let signal = match self {
            Some(signal) => Some(signal.into_signal_of(what)),
            None => None,
        };
        Optional::new(signal)
    }
}

/// A signal that fires at the point in time `at`, with [`StopReason::DeadlineExceeded`].
///
/// It is the signal of [`with_deadline`](crate::CancelStreamExt::with_deadline), for use with [`any()`] and
/// [`take_until_cancelled`](crate::CancelStreamExt::take_until_cancelled). `at` is a point in time, as in tokio's
/// `sleep_until`; for a length of time use [`timeout`].
///
/// # Panics
///
/// The first poll of its stream panics outside of a tokio runtime, or in one that was built without `enable_time`,
/// unless the deadline has passed by then or never comes.
///
/// # Examples
///
/// ```
/// use futures::{StreamExt, stream};
/// use std::time::Duration;
/// use stopcock::{CancelStreamExt, CancellationToken, StopReason, signal};
/// use tokio::time::Instant;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let token = CancellationToken::new();
/// let at = Instant::now() + Duration::from_secs(5);
/// let mut rows = stream::pending::<u8>().with_cancellation(signal::any(&token, signal::deadline(at)));
/// assert!(matches!(rows.next().await, Some(Err(StopReason::DeadlineExceeded))));
/// # }
/// ```
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
pub fn deadline(at: impl IntoDeadline) -> Deadline {
    Deadline::at(at.into_deadline())
}

/// Like [`deadline()`], with `timeout` counted from this call.
///
/// As a signal, this is what `sleep(timeout)` is in a `select!`. A timeout that is too long for the clock, such as
/// [`Duration::MAX`], never passes.
///
/// # Panics
///
/// Like [`deadline()`].
///
/// # Examples
///
/// ```
/// use futures::{StreamExt, stream};
/// use std::time::Duration;
/// use stopcock::{CancelStreamExt, CancellationToken, signal};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let token = CancellationToken::new();
/// let stop = signal::any(&token, signal::timeout(Duration::from_secs(1)));
/// let samples = stream::iter([1, 2]).chain(stream::pending()).take_until_cancelled(stop);
/// assert_eq!(samples.count().await, 2);
/// # }
/// ```
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
pub fn timeout(timeout: Duration) -> Deadline {
    Deadline::after(timeout)
}

/// A signal that fires when no item comes for `timeout`, with [`StopReason::IdleTimeout`].
///
/// It is the signal of [`with_idle_timeout`](crate::CancelStreamExt::with_idle_timeout), whose docs have the rules.
/// tokio-stream's counterpart is `StreamExt::timeout`, which yields an `Err` and continues.
///
/// # Panics
///
/// The first poll of its stream that is pending panics outside of a tokio runtime, or in one that was built without
/// `enable_time`.
///
/// # Examples
///
/// A token and an idle timeout, with one level of `Result`:
///
/// ```
/// use futures::{StreamExt, stream};
/// use std::time::Duration;
/// use stopcock::{CancelStreamExt, CancellationToken, StopReason, signal};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let token = CancellationToken::new();
/// let stop = signal::any(&token, signal::idle(Duration::from_secs(30)));
/// let mut feed = stream::iter(["a"]).chain(stream::pending()).with_cancellation(stop);
///
/// assert_eq!(feed.next().await.unwrap().unwrap(), "a");
/// assert!(matches!(feed.next().await, Some(Err(StopReason::IdleTimeout))));
/// # }
/// ```
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
pub fn idle(timeout: Duration) -> Idle {
    Idle::new(timeout)
}

/// A signal that never fires, as `std::future::pending()` is a future that is never ready.
///
/// # Examples
///
/// ```
/// use futures::StreamExt;
/// use stopcock::{generator, signal};
///
/// let squares = generator(signal::never(), async |mut y| {
///     for n in 1..=3 {
///         y.yield_item(n * n).await;
///     }
/// });
/// let squares: Vec<u32> = futures::executor::block_on(squares.collect());
/// assert_eq!(squares, [1, 4, 9]);
/// ```
pub fn never() -> Never {
    Never::new()
}

/// A signal that fires when `future` is ready, with any output.
///
/// With it, [`take_until_cancelled`](crate::CancelStreamExt::take_until_cancelled) does what `take_until` of futures
/// does. The reason is [`StopReason::Cancelled`], unless [`with_reason`](When::with_reason) or
/// [`map_reason`](When::map_reason) sets another one.
///
/// The future is polled before the first item. After that it is polled only when it has called its waker, and each time
/// that an adapter yields for fairness. So an item costs the check of a flag, and a future that never calls its waker,
/// such as a `poll_fn` over an `AtomicBool`, never stops a stream that is *pending*.
///
/// The future is dropped once it is ready. Its output is kept until the adapter has dropped its source: it may be a
/// guard whose drop means that this stream is done. The future is stored in the stream: if the future is not `Unpin`,
/// like that of an `async fn`, the stream has to be pinned as well.
///
/// # Panics
///
/// A panic of the future passes through the poll of the stream. After that the stream has ended.
///
/// # Examples
///
/// ```no_run
/// use futures::{StreamExt, stream};
/// use std::pin::pin;
/// use stopcock::{CancelStreamExt, signal};
/// use tokio::signal::ctrl_c;
///
/// # #[tokio::main]
/// # async fn main() {
/// let numbers = stream::repeat(1).take_until_cancelled(signal::when(ctrl_c()));
/// // `ctrl_c` is an `async fn`.
/// let mut numbers = pin!(numbers);
/// while let Some(number) = numbers.next().await {
///     println!("{number}");
/// }
/// # }
/// ```
///
/// ```
/// use futures::{StreamExt, channel::oneshot, executor::block_on, stream};
/// use stopcock::{CancelStreamExt, signal};
///
/// let (stop, stopped) = oneshot::channel::<()>();
/// let mut numbers = stream::iter(0..).take_until_cancelled(signal::when(stopped));
///
/// assert_eq!(block_on(numbers.next()), Some(0));
/// stop.send(()).unwrap();
/// assert_eq!(block_on(numbers.next()), None);
/// ```
pub fn when<Fut: Future>(future: Fut) -> When<Fut> {
    When::new(future)
}

/// A signal that fires with the first of two signals, and with its reason; with that of `a` if both have fired.
///
/// It is to signals what `select` of futures is to futures. It nests: `any(any(a, b), c)`.
///
/// # Examples
///
/// ```
/// use futures::{StreamExt, channel::oneshot, executor::block_on, stream};
/// use stopcock::{CancelStreamExt, CancellationToken, signal};
///
/// let token = CancellationToken::new();
/// let (_stop, stopped) = oneshot::channel::<()>();
/// let mut numbers =
///     stream::iter(0..).take_until_cancelled(signal::any(&token, signal::when(stopped)));
///
/// assert_eq!(block_on(numbers.next()), Some(0));
/// token.cancel_with("enough");
/// assert_eq!(block_on(numbers.next()), None);
/// assert_eq!(numbers.stop_reason().unwrap().to_string(), "enough");
/// ```
#[track_caller]
pub fn any<A: IntoSignal, B: IntoSignal>(a: A, b: B) -> Any<A::Signal, B::Signal> {
    Any::new(a.into_signal_of("any"), b.into_signal_of("any"))
}
