//! What can stop a stream: tokens, futures, and whatever implements [`Signal`].

#[cfg(feature = "tokio")]
mod draining;
mod on_end;
mod token;
#[cfg(feature = "tokio-util")]
mod tokio_util;
mod watch;

use crate::{CancellationToken, StopReason, fairness::ITEMS_IN_A_ROW, wake_flag::WakeFlag};
use pin_project::pin_project;
use std::{
    fmt::{self, Debug, Formatter},
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

pub(crate) use on_end::EndCall;
pub use on_end::OnEnd;
#[cfg(feature = "tokio")]
use std::time::Duration;
pub use token::TokenSignal;
pub(crate) use token::Watch;
pub(crate) use watch::token_of;

#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
pub use {
    crate::clock::{Deadline, Idle, IntoDeadline},
    draining::Draining,
};

/// Something that fires once, and stays fired.
///
/// An adapter calls [`is_fired`](Self::is_fired) before every item, and [`poll_fired`](Self::poll_fired) when its source
/// is pending, so that the signal wakes it.
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
    /// After `true` the adapter calls `poll_fired` for the reason, and goes on if that is pending. It may always return
    /// `false`: then the stop is noticed when the source is pending, and an item that is ready wins.
    fn is_fired(self: Pin<&mut Self>) -> bool;

    /// Returns the reason if the signal has fired. Otherwise it wakes `cx`'s waker, the latest one only, when it fires.
    fn poll_fired(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason>;

    /// Makes an expensive check, such as one that reads the clock, and returns after how many items at most to make it
    /// again.
    ///
    /// Called before the first item and each time that the adapter has yielded for fairness. If it returns less than
    /// 1024, it is also called after that many items, and after each `Pending` of the source. `items` counts the ready
    /// items since the previous check: 0 at first and after a `Pending`. `is_fired` is called next, and returns what
    /// this check has found. A signal whose `is_fired` is always up to date does not need this method.
    fn check_every(self: Pin<&mut Self>, items: u32) -> u32 {
        let _ = items;
        u32::MAX
    }

    /// Called for each item of the source. For a signal that fires when no item comes for too long.
    #[inline]
    fn note_item(self: Pin<&mut Self>) {}

    /// Like [`poll_fired`](Self::poll_fired), asked once more when the source has ended: if the signal has fired by then,
    /// the stream was stopped and did not end by itself.
    ///
    /// Nobody is woken for it any more, so only the answer counts. A signal that fires when no item comes for too long
    /// returns `Pending`, as an end counts as an item; one that wraps other signals asks them the same question.
    fn poll_fired_at_end(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        self.poll_fired(cx)
    }

    /// Whether it wakes `cx`'s waker when it fires, so that `poll_fired` has nothing to do. Called after `is_fired` has
    /// returned `false`, or else `poll_fired` was pending, in the same poll of the stream: for what fires after that.
    #[doc(hidden)]
    #[inline]
    fn will_wake(&self, cx: &Context<'_>) -> bool {
        let _ = cx;
        false
    }

    /// Like [`poll_fired`](Self::poll_fired), called after `is_fired` has returned `false`, or else `poll_fired` was pending,
    /// in the same poll of the stream: it need not report what fired before that.
    #[doc(hidden)]
    #[inline]
    fn poll_fired_since(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        self.poll_fired(cx)
    }

    /// Whether [`check_every`](Self::check_every) has anything to do. The same for as long as the signal lives.
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

    /// The token behind this signal, if there is one. Tokens that are cancelled with the stream are children of it.
    fn as_token(&self) -> Option<&CancellationToken> {
        None
    }
}

/// How a stream has ended, for [`Signal::note_end`].
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub enum StreamEnd<'a> {
    Natural,
    Stopped(&'a StopReason),
    /// The source was taken out of the stream.
    TakenBack,
}

/// What can be turned into a [`Signal`]: a token, a reference to one, or a signal itself.
///
/// A future is none by itself: wrap it in [`when`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a signal, so it cannot stop anything",
    label = "not a signal",
    note = "if it is a future, such as `ctrl_c()`, wrap it: `stopcock::signal::when(future)`",
    note = "if it is tokio-util's `CancellationToken`, enable stopcock's feature `tokio-util`",
    note = "`stopcock::CancellationToken` is a signal, by value and by reference; if it is in an `Arc`, pass `&*arc`, or \
            drop the `Arc`: clones of a token are the same token"
)]
pub trait IntoSignal {
    /// The signal that it turns into.
    type Signal: Signal;

    /// Turns it into a signal.
    #[track_caller]
    fn into_signal(self) -> Self::Signal;

    /// The same for the function of this name, as [`holders`](CancellationToken::holders) shows it.
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

// Without it the compiler would ask for a `Signal`, and list those that there are.
#[diagnostic::do_not_recommend]
impl<G: Signal> IntoSignal for G {
    type Signal = G;

    fn into_signal(self) -> G {
        self
    }
}

/// `None` never fires: for what can be configured away, such as a timeout. In code that is never to be stopped,
/// [`never()`](fn@never) says so.
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
            reason = "a closure would be the caller that is tracked"
        )]
        let signal = match self {
            Some(signal) => Some(signal.into_signal_of(what)),
            None => None,
        };
        Optional(signal)
    }
}

/// The signal of an `Option`: `None` never fires.
#[pin_project]
#[derive(Clone, Debug)]
pub struct Optional<G>(#[pin] Option<G>);

impl<G: Signal> Signal for Optional<G> {
    #[inline]
    fn is_fired(self: Pin<&mut Self>) -> bool {
        let signal = self.project().0.as_pin_mut();
        signal.is_some_and(G::is_fired)
    }

    #[inline]
    fn poll_fired(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        match self.project().0.as_pin_mut() {
            Some(signal) => signal.poll_fired(cx),
            None => Poll::Pending,
        }
    }

    #[inline]
    fn will_wake(&self, cx: &Context<'_>) -> bool {
        self.0.as_ref().is_none_or(|signal| signal.will_wake(cx))
    }

    #[inline]
    fn poll_fired_since(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        match self.project().0.as_pin_mut() {
            Some(signal) => signal.poll_fired_since(cx),
            None => Poll::Pending,
        }
    }

    #[inline]
    fn needs_checks(&self) -> bool {
        self.0.as_ref().is_some_and(G::needs_checks)
    }

    fn poll_fired_at_end(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        match self.project().0.as_pin_mut() {
            Some(signal) => signal.poll_fired_at_end(cx),
            None => Poll::Pending,
        }
    }

    fn check_every(self: Pin<&mut Self>, items: u32) -> u32 {
        let signal = self.project().0.as_pin_mut();
        signal.map_or(u32::MAX, |signal| signal.check_every(items))
    }

    #[inline]
    fn note_item(self: Pin<&mut Self>) {
        if let Some(signal) = self.project().0.as_pin_mut() {
            signal.note_item();
        }
    }

    fn as_token(&self) -> Option<&CancellationToken> {
        self.0.as_ref()?.as_token()
    }
}

/// A signal that fires at the point in time `at`, with [`StopReason::DeadlineExceeded`]: that of
/// [`with_deadline`](crate::CancelStreamExt::with_deadline), for [`any`] and for
/// [`take_until_cancelled`](crate::CancelStreamExt::take_until_cancelled).
///
/// # Panics
///
/// The first poll of its stream panics outside of a tokio runtime, or in one that was built without `enable_time`,
/// unless the deadline is over by then or never comes.
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

/// Like [`deadline`], `timeout` from this call.
///
/// A timeout that no clock can count to, such as [`Duration::MAX`], is never over.
///
/// # Panics
///
/// Like [`deadline`].
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

/// A signal that fires when no item comes for `timeout`, with [`StopReason::IdleTimeout`]: that of
/// [`with_idle_timeout`](crate::CancelStreamExt::with_idle_timeout), where the rules are.
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

/// A signal that never fires.
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
    Never(())
}

/// The signal of [`never()`](fn@never).
#[derive(Clone, Debug)]
pub struct Never(());

impl Signal for Never {
    #[inline]
    fn is_fired(self: Pin<&mut Self>) -> bool {
        false
    }

    #[inline]
    fn poll_fired(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<StopReason> {
        Poll::Pending
    }

    #[inline]
    fn will_wake(&self, _: &Context<'_>) -> bool {
        true
    }

    #[inline]
    fn needs_checks(&self) -> bool {
        false
    }
}

/// A signal that fires when `future` is ready, whatever its output, with [`StopReason::Cancelled`] unless
/// [`with_reason`](When::with_reason) or [`map_reason`](When::map_reason) say another reason.
///
/// The future is polled before the first item, and from then on only after it has called its waker, and each time that
/// an adapter yields for fairness. An item costs the check of a flag. So a future that calls no waker, such as a
/// `poll_fn` over an `AtomicBool`, never stops a stream that is *pending*.
///
/// The future is dropped once it is ready. Its output is kept until the adapter has dropped its source: it may be a guard
/// whose drop means that this stream is done. The future is a part of the stream: where it may not be moved, as that of
/// an `async fn`, neither may the stream, until it is pinned.
///
/// # Panics
///
/// A panic of the future passes through the poll of the stream, and the stream has ended.
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
    let flag = WakeFlag::new();
    When {
        state: WhenState::Waiting(future),
        reason: Some(StopReason::Cancelled),
        waker: flag.waker(),
        flag: StreamFlag(flag),
        row: 0,
    }
}

/// The signal of [`when`].
#[pin_project]
pub struct When<Fut: Future, R = StopReason> {
    #[pin]
    state: WhenState<Fut>,
    /// `None` once it has fired.
    reason: Option<R>,
    flag: StreamFlag,
    /// The flag, as the future knows it.
    waker: Waker,
    /// How many items have come in a row: another signal beside this one may want looks more often.
    row: u32,
}

#[pin_project(project = WhenProjection)]
enum WhenState<Fut: Future> {
    Waiting(#[pin] Fut),
    /// The output is dropped with the signal: after the source.
    Fired(StopReason, Fut::Output),
}

/// The flag of a stream, which wakes nothing once that is dropped: what keeps the future's waker does not keep the
/// stream's task.
struct StreamFlag(Arc<WakeFlag>);

impl Drop for StreamFlag {
    fn drop(&mut self) {
        self.0.forget_stream();
    }
}

impl<Fut: Future> When<Fut> {
    /// Fires for `reason`.
    ///
    /// # Examples
    ///
    /// A deadline of any runtime's timer:
    ///
    /// ```
    /// use futures::{StreamExt, executor::block_on, stream};
    /// use stopcock::{CancelStreamExt, StopReason, signal};
    ///
    /// let timer = std::future::ready(());
    /// let over = signal::when(timer).with_reason(StopReason::DeadlineExceeded);
    /// let mut numbers = stream::iter(0..).with_cancellation(over);
    /// assert!(matches!(block_on(numbers.next()), Some(Err(StopReason::DeadlineExceeded))));
    /// ```
    pub fn with_reason(mut self, reason: impl Into<StopReason>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Fires for the reason that `reason` makes of the output, when the future is ready.
    ///
    /// # Examples
    ///
    /// ```
    /// use futures::{StreamExt, channel::oneshot, executor::block_on, stream};
    /// use stopcock::{CancelStreamExt, signal};
    ///
    /// let (stop, stopped) = oneshot::channel::<String>();
    /// let stopped = signal::when(stopped).map_reason(|sent| match sent {
    ///     Ok(reason) => reason.clone(),
    ///     Err(oneshot::Canceled) => "the operator has left".to_owned(),
    /// });
    /// let mut numbers = stream::iter(0..).with_cancellation(stopped);
    ///
    /// stop.send("maintenance".to_owned()).unwrap();
    /// let error = block_on(numbers.next()).unwrap().unwrap_err();
    /// assert_eq!(error.to_string(), "maintenance");
    /// ```
    pub fn map_reason<F, R>(self, reason: F) -> When<Fut, MapReason<F>>
    where
        F: FnOnce(&Fut::Output) -> R,
        R: Into<StopReason>,
    {
        let Self {
            state,
            reason: _,
            flag,
            waker,
            row,
        } = self;
        When {
            state,
            reason: Some(MapReason(reason)),
            flag,
            waker,
            row,
        }
    }
}

/// What makes the reason of a [`When`] from its future's output.
trait Reason<T> {
    fn of(self, output: &T) -> StopReason;
}

impl<T> Reason<T> for StopReason {
    fn of(self, _: &T) -> StopReason {
        self
    }
}

/// What [`When::map_reason`] was given.
pub struct MapReason<F>(F);

impl<T, F, R> Reason<T> for MapReason<F>
where
    F: FnOnce(&T) -> R,
    R: Into<StopReason>,
{
    fn of(self, output: &T) -> StopReason {
        (self.0)(output).into()
    }
}

impl<F> Debug for MapReason<F> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapReason").finish_non_exhaustive()
    }
}

#[allow(
    private_bounds,
    reason = "a reason is a `StopReason` or what `map_reason` makes"
)]
impl<Fut: Future, R: Reason<Fut::Output>> When<Fut, R> {
    #[inline(never)]
    fn poll_future(self: Pin<&mut Self>) -> Poll<StopReason> {
        let mut this = self.project();
        let future = match this.state.as_mut().project() {
            WhenProjection::Waiting(future) => future,
            WhenProjection::Fired(reason, _) => return Poll::Ready(reason.clone()),
        };
        let flag = &this.flag.0;
        flag.clear();
        let output = ready!(future.poll(&mut Context::from_waker(this.waker)));
        // Set for ever, so that one flag is all that an item has to ask for.
        flag.set();
        let Some(reason) = this.reason.take() else {
            unreachable!("it has a reason until it fires");
        };
        let reason = reason.of(&output);
        this.state.set(WhenState::Fired(reason.clone(), output));
        Poll::Ready(reason)
    }
}

impl<Fut: Future, R: Reason<Fut::Output>> Signal for When<Fut, R> {
    #[inline]
    fn is_fired(mut self: Pin<&mut Self>) -> bool {
        self.as_mut().project().flag.0.is_set() && self.poll_future().is_ready()
    }

    fn poll_fired(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        let flag = &self.as_mut().project().flag.0;
        flag.wake_when_set(cx);
        match flag.is_set() {
            true => self.poll_future(),
            false => Poll::Pending,
        }
    }

    /// Polls the future though it has woken nobody: what fires many futures wakes one after the other.
    fn poll_fired_at_end(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<StopReason> {
        self.poll_future()
    }

    fn check_every(self: Pin<&mut Self>, items: u32) -> u32 {
        let this = self.project();
        *this.row = match items {
            0 => 0,
            _ => this.row.saturating_add(items),
        };
        // A whole row has come, and the adapter has yielded.
        if *this.row >= ITEMS_IN_A_ROW.into() {
            *this.row = 0;
            this.flag.0.set();
        }
        u32::MAX
    }
}

impl<Fut: Future, R> Debug for When<Fut, R> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("When")
            .field("has_fired", &matches!(self.state, WhenState::Fired(..)))
            .finish_non_exhaustive()
    }
}

/// A signal that fires with the first of two, for its reason; with `a` if both have fired.
///
/// It nests: `any(any(a, b), c)`.
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
    Any {
        a: a.into_signal_of("any"),
        b: b.into_signal_of("any"),
    }
}

/// The signal of [`any`].
#[pin_project]
#[derive(Debug)]
pub struct Any<A, B> {
    #[pin]
    a: A,
    #[pin]
    b: B,
}

impl<A: Signal, B: Signal> Signal for Any<A, B> {
    #[inline]
    fn is_fired(self: Pin<&mut Self>) -> bool {
        let this = self.project();
        this.a.is_fired() || this.b.is_fired()
    }

    #[inline]
    fn poll_fired(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        let this = self.project();
        match this.a.poll_fired(cx) {
            Poll::Pending => this.b.poll_fired(cx),
            fired => fired,
        }
    }

    #[inline]
    fn will_wake(&self, cx: &Context<'_>) -> bool {
        self.a.will_wake(cx) && self.b.will_wake(cx)
    }

    #[inline]
    fn poll_fired_since(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        let this = self.project();
        match this.a.poll_fired_since(cx) {
            Poll::Pending => this.b.poll_fired_since(cx),
            fired => fired,
        }
    }

    #[inline]
    fn needs_checks(&self) -> bool {
        self.a.needs_checks() || self.b.needs_checks()
    }

    fn poll_fired_at_end(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        let this = self.project();
        match this.a.poll_fired_at_end(cx) {
            Poll::Pending => this.b.poll_fired_at_end(cx),
            fired => fired,
        }
    }

    fn check_every(self: Pin<&mut Self>, items: u32) -> u32 {
        let this = self.project();
        let next_check = this.a.check_every(items);
        next_check.min(this.b.check_every(items))
    }

    #[inline]
    fn note_item(self: Pin<&mut Self>) {
        let this = self.project();
        this.a.note_item();
        this.b.note_item();
    }
}
