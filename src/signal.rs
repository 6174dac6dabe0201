//! What can stop a stream: tokens, futures, and whatever implements [`Signal`].

#[cfg(feature = "tokio")]
mod draining;
mod token;
#[cfg(feature = "tokio-util")]
mod tokio_util;

use crate::{CancellationToken, StopReason, bell::Bell, fairness::ITEMS_IN_A_ROW};
use pin_project::{pin_project, pinned_drop};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

pub use token::TokenSignal;
pub(crate) use token::Watch;
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
pub use {
    crate::clock::{Deadline, Idle},
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

    /// The token behind this signal, if there is one. Tokens that are cancelled with the stream are children of it.
    fn as_token(&self) -> Option<&CancellationToken> {
        None
    }
}

/// What can be turned into a [`Signal`]: a token, a reference to one, or a signal itself.
///
/// A future is none by itself: wrap it in [`when`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a signal, so it cannot stop anything",
    label = "not a signal",
    note = "if it is a future, such as `ctrl_c()`, wrap it: `stopcock::signal::when(future)`",
    note = "if it is tokio-util's `CancellationToken`, enable stopcock's feature `tokio-util`",
    note = "`stopcock::CancellationToken` is a signal, by value and by reference"
)]
pub trait IntoSignal {
    /// The signal that it turns into.
    type Signal: Signal;

    /// Turns it into a signal.
    fn into_signal(self) -> Self::Signal;
}

// Without it the compiler would ask for a `Signal`, and list those that there are.
#[diagnostic::do_not_recommend]
impl<G: Signal> IntoSignal for G {
    type Signal = G;

    fn into_signal(self) -> G {
        self
    }
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
}

/// A signal that fires when `future` is ready, whatever its output, with [`StopReason::Cancelled`].
///
/// The future is polled before the first item, and from then on only after it has called its waker, and each time that
/// an adapter yields for fairness. An item costs the check of a flag. So a future that calls no waker, such as one that
/// only reads a flag, does not stop a stream that is pending.
///
/// The future is dropped once it is ready. It is a part of the stream: where it may not be moved, as that of an `async
/// fn`, neither may the stream, until it is pinned.
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
    let bell = Bell::new();
    When {
        future: Some(future),
        waker: bell.waker(),
        bell,
        row: 0,
    }
}

/// The signal of [`when`].
#[pin_project(PinnedDrop)]
#[derive(Debug)]
pub struct When<Fut> {
    /// `None` once it has fired.
    #[pin]
    future: Option<Fut>,
    bell: Arc<Bell>,
    /// The `bell`, as the future knows it.
    waker: Waker,
    /// How many items have come in a row: another signal beside this one may want looks more often.
    row: u32,
}

#[pinned_drop]
impl<Fut> PinnedDrop for When<Fut> {
    fn drop(self: Pin<&mut Self>) {
        // Whoever keeps the future's waker shall not keep the stream's task.
        self.project().bell.forget_stream();
    }
}

impl<Fut: Future> When<Fut> {
    #[inline(never)]
    fn poll_future(self: Pin<&mut Self>) -> bool {
        let mut this = self.project();
        let Some(future) = this.future.as_mut().as_pin_mut() else {
            return true;
        };
        this.bell.silence();
        let is_ready = future.poll(&mut Context::from_waker(this.waker)).is_ready();
        if is_ready {
            // Rung for ever, so that one flag is all that an item has to ask for.
            this.bell.ring();
            this.future.set(None);
        }
        is_ready
    }
}

impl<Fut: Future> Signal for When<Fut> {
    #[inline]
    fn is_fired(mut self: Pin<&mut Self>) -> bool {
        self.as_mut().project().bell.is_rung() && self.poll_future()
    }

    fn poll_fired(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        self.as_mut().project().bell.wake_at_ring(cx);
        if self.is_fired() {
            Poll::Ready(StopReason::Cancelled)
        } else {
            Poll::Pending
        }
    }

    /// Polls the future though it has woken nobody: what fires many futures wakes one after the other.
    fn poll_fired_at_end(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<StopReason> {
        match self.poll_future() {
            true => Poll::Ready(StopReason::Cancelled),
            false => Poll::Pending,
        }
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
            this.bell.ring();
        }
        u32::MAX
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
pub fn any<A: IntoSignal, B: IntoSignal>(a: A, b: B) -> Any<A::Signal, B::Signal> {
    Any {
        a: a.into_signal(),
        b: b.into_signal(),
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

    fn poll_fired_at_end(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        let this = self.project();
        match this.a.poll_fired_at_end(cx) {
            Poll::Pending => this.b.poll_fired_at_end(cx),
            fired => fired,
        }
    }

    fn check_every(self: Pin<&mut Self>, items: u32) -> u32 {
        let this = self.project();
        let next_look = this.a.check_every(items);
        next_look.min(this.b.check_every(items))
    }

    #[inline]
    fn note_item(self: Pin<&mut Self>) {
        let this = self.project();
        this.a.note_item();
        this.b.note_item();
    }
}
