use super::{
    drop_on_cancel::{DropOnCancel, HasValve},
    valve::{Halt, Valve},
};
use crate::{Signal, StopReason, signal::TokenSignal};
use futures_core::{FusedStream, Stream};
use pin_project::pin_project;
use std::{
    fmt::{self, Debug, Formatter},
    pin::Pin,
    task::{Context, Poll},
};

#[cfg(feature = "tokio")]
use {crate::signal::Draining, std::time::Duration};

/// The stream of [`CancelStreamExt::take_until_cancelled`](crate::CancelStreamExt::take_until_cancelled).
#[pin_project]
#[must_use = "streams do nothing unless polled"]
pub struct TakeUntilCancelled<S, G = TokenSignal> {
    #[pin]
    valve: Valve<S, G>,
}

impl<S, G> TakeUntilCancelled<S, G> {
    pub(crate) fn new(source: S, signal: G) -> Self {
        Self {
            valve: Valve::new(source, signal),
        }
    }

    /// Why the signal stopped it: `Some` from the poll it was stopped on, `None` while it runs and after an end of
    /// its own.
    pub fn stop_reason(&self) -> Option<&StopReason> {
        self.valve.stop_reason()
    }

    /// Yields after so many items in a row, in place of 1024; never for 0.
    ///
    /// ```text
    /// source   abcdefgh
    /// output   abc-def-gh      yield_every(3)
    /// ```
    ///
    /// A source that is always ready is stopped by a sibling task or a timer of the same thread at a yield, and no
    /// sooner. Fewer items are for dear ones, 0 is for a stream whose consumer awaits something else anyway.
    ///
    /// # Examples
    ///
    /// ```
    /// use futures::{FutureExt, StreamExt, stream};
    /// use stopcock::{CancelStreamExt, CancellationToken};
    ///
    /// let token = CancellationToken::new();
    /// let mut pages = stream::repeat("page").take_until_cancelled(&token).yield_every(1);
    /// assert!(pages.next().now_or_never().is_some());
    /// assert!(pages.next().now_or_never().is_none());
    /// assert!(pages.next().now_or_never().is_some());
    /// ```
    pub fn yield_every(self, items: usize) -> Self {
        Self {
            valve: self.valve.yield_every(items),
        }
    }

    /// Stops gracefully, then hard: once it sees the signal it goes on for `time`, and only then counts as stopped.
    ///
    /// ```text
    /// source   a--b--c--d--e--f
    /// signal   ----!
    /// time           |------|
    /// output   a--b--c--d--e|
    /// ```
    ///
    /// A source that ends within that time has ended by itself, and nothing of it is lost. The time runs from the first
    /// poll that saw the signal. The reason is the signal's.
    ///
    /// That the source is pending does not mean that it is empty: the budget of a tokio task makes a full channel
    /// pending. So it is drained until it ends, or until the time is over; whoever holds the sending half has to drop
    /// it on the same signal.
    ///
    /// # Panics
    ///
    /// The first poll panics outside of a tokio runtime.
    ///
    /// # Examples
    ///
    /// ```
    /// use futures::{StreamExt, stream};
    /// use std::time::Duration;
    /// use stopcock::{CancelStreamExt, CancellationToken};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let token = CancellationToken::new();
    /// let jobs = stream::iter([1, 2, 3]).take_until_cancelled(&token).drain_for(Duration::from_secs(5));
    /// token.cancel();
    /// // All that were queued.
    /// assert_eq!(jobs.count().await, 3);
    /// # }
    /// ```
    #[cfg(feature = "tokio")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
    pub fn drain_for(self, time: Duration) -> TakeUntilCancelled<S, Draining<G>> {
        TakeUntilCancelled {
            valve: self.valve.map_signal(|signal| Draining::new(signal, time)),
        }
    }
}

impl<S: Stream> TakeUntilCancelled<S> {
    /// Has the source dropped by the cancelling thread, even if nobody polls.
    ///
    /// ```text
    /// source   a---b---c---
    /// signal   ------!
    /// dropped  ------D
    /// output   a---b------|     when it is polled next
    /// ```
    ///
    /// For a stream whose consumer is busy elsewhere, or is parked: the body of a response that waits for its client to
    /// read keeps its database cursor until then. With this it is closed when `cancel()` returns.
    ///
    /// Exactly one thread drops the source, never while it is polled, and with no lock held:
    ///
    /// - The one that cancels, or the timer of a token with a deadline; for a token that is cancelled already this call.
    /// - Cancelled during a poll, the polling one, as that poll returns. An item that it took is handed on.
    /// - A poll that sees the cancel before the canceller has come to it.
    ///
    /// While the canceller drops the source, polls are pending and woken after, and dropping the stream does not wait
    /// for it. A panic of the source's `Drop` comes out of the cancel as that of a callback does: after everybody else
    /// has been told. The stream is over then as well.
    ///
    /// It takes this crate's tokens, as other signals tell nobody but who polls them; and there is no draining of a
    /// source that is gone, so it does not go with `drain_for`. The source is boxed, and an item costs two locks that
    /// nobody else holds.
    ///
    /// # Examples
    ///
    /// ```
    /// use futures::{FutureExt, StreamExt, stream};
    /// use std::sync::Arc;
    /// use stopcock::{CancelStreamExt, CancellationToken};
    ///
    /// let cursor = Arc::new("cursor");
    /// let held = Arc::clone(&cursor);
    /// let rows = stream::repeat_with(move || held.len());
    ///
    /// let token = CancellationToken::new();
    /// let mut answer = rows.take_until_cancelled(&token).drop_on_cancel();
    /// assert!(answer.next().now_or_never().is_some());
    /// token.cancel();
    /// assert_eq!(Arc::strong_count(&cursor), 1, "nobody has polled since");
    /// assert_eq!(answer.next().now_or_never(), Some(None));
    /// ```
    ///
    /// What cannot be dropped by the canceller does not compile. A signal that is no token:
    ///
    /// ```compile_fail,E0599
    /// use stopcock::{CancelStreamExt, signal};
    ///
    /// futures::stream::repeat(1).take_until_cancelled(signal::never()).drop_on_cancel();
    /// ```
    ///
    /// One that is to drain:
    ///
    /// ```compile_fail,E0599
    /// use std::time::Duration;
    /// use stopcock::{CancelStreamExt, CancellationToken};
    ///
    /// let token = CancellationToken::new();
    /// futures::stream::repeat(1).take_until_cancelled(&token).drop_on_cancel().drain_for(Duration::MAX);
    /// ```
    ///
    /// A source that may not leave its thread:
    ///
    /// ```compile_fail,E0277
    /// use std::rc::Rc;
    /// use stopcock::{CancelStreamExt, CancellationToken};
    ///
    /// let token = CancellationToken::new();
    /// futures::stream::repeat(Rc::new(1)).take_until_cancelled(&token).drop_on_cancel();
    /// ```
    pub fn drop_on_cancel(self) -> DropOnCancel<Self>
    where
        S: Send + 'static,
    {
        DropOnCancel::new(self)
    }
}

impl<S: Stream> HasValve for TakeUntilCancelled<S> {
    type Source = S;

    fn valve(&self) -> &Valve<S, TokenSignal> {
        &self.valve
    }

    fn valve_mut(self: Pin<&mut Self>) -> Pin<&mut Valve<S, TokenSignal>> {
        self.project().valve
    }
}

impl<S: Stream, G: Signal> Stream for TakeUntilCancelled<S, G> {
    type Item = S::Item;

    #[inline]
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        match self.project().valve.poll_next(cx) {
            Ok(item) => Poll::Ready(Some(item)),
            Err(Halt::Pending) => Poll::Pending,
            Err(Halt::Stopped | Halt::Ended) => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, self.valve.upper_bound())
    }
}

impl<S: Stream, G: Signal> FusedStream for TakeUntilCancelled<S, G> {
    fn is_terminated(&self) -> bool {
        self.valve.is_over()
    }
}

impl<S, G> Debug for TakeUntilCancelled<S, G> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.valve.debug("TakeUntilCancelled", f)
    }
}
