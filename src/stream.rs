mod take_until_cancelled;
mod valve;
#[cfg(feature = "tokio")]
mod with_deadline;

pub use take_until_cancelled::TakeUntilCancelled;
#[cfg(feature = "tokio")]
pub use with_deadline::WithDeadline;

pub(crate) use valve::{Halt, ITEMS_IN_A_ROW, Valve};

use crate::IntoSignal;
use futures_core::Stream;

#[cfg(feature = "tokio")]
use {crate::clock::Deadline, std::time::Duration, tokio::time::Instant};

/// Ways to stop a stream, for every [`Stream`].
///
/// `take_*` end in silence, `with_*` say so in a last item. Where the consumer would take what it got for the whole
/// answer, as with the body of a response, choose the latter.
///
/// What they have in common:
///
/// - What comes out is a prefix of the source, in order. An item that was taken from the source is handed on, even
///   if the stop comes during that poll; after the stop the source is not polled again.
/// - The source is dropped before the end is told: when `None`, or the last `Err`, comes out, what the source owned
///   is gone. Dropping the adapter drops the source there and then.
/// - They are fused, and `stop_reason()` never changes once there is one. Who was first stays first: a source that
///   ended by itself has not been stopped, whatever fires later.
/// - A panic of the source passes through once, then the stream is over.
///
/// A stream may be lent, as in `(&mut stream).with_timeout(..)`, and read on afterwards. Adapters may be stacked; each
/// knows its own stop only, and to the outer one a stop of the inner one is an end.
pub trait CancelStreamExt: Stream {
    /// Takes items until `signal` fires, then ends.
    ///
    /// ```text
    /// source   a---b---c---d--
    /// signal   ---------!
    /// output   a---b----|
    /// ```
    ///
    /// # Termination
    ///
    /// Ends with the source, or at the signal: from then on not even an item that is ready comes out. If the signal
    /// has fired before the first poll, the source is never polled. A pending stream is woken by the signal.
    ///
    /// The deadline of a token is kept as exactly as that of [`with_deadline`](Self::with_deadline): at the first poll
    /// and after each `Pending`, and in a row of ready items after as many as fit into a millisecond.
    ///
    /// # Fairness
    ///
    /// The signal is asked before every item. After 1024 items in a row without a `Pending` the adapter wakes itself
    /// and is pending once, so that a source which is always ready can be stopped from the same thread.
    ///
    /// # Cancel safety
    ///
    /// Nothing is held back between two polls: dropping a `next()` future loses no item.
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
    fn take_until_cancelled<G: IntoSignal>(self, signal: G) -> TakeUntilCancelled<Self, G::Signal>
    where
        Self: Sized,
    {
        TakeUntilCancelled::new(self, signal.into_signal())
    }

    /// Passes the items on as `Ok` until the point in time `at`, then ends with
    /// [`Err(StopReason::DeadlineExceeded)`](crate::StopReason::DeadlineExceeded).
    ///
    /// ```text
    /// source   a---b---c---d--
    /// at                !
    /// output   a---b---c(E|)
    /// ```
    ///
    /// # Termination
    ///
    /// Ends with the source, or at the deadline with one `Err`. A deadline in the past: the source is never polled.
    ///
    /// The first poll, and each one after a `Pending`, is exact. In a row of ready items the clock is read after as
    /// many of them as fit into a millisecond at the pace of the last ones, the consumer's time counted in, and
    /// after 64 at the most. Where the pace drops all at once, those 64 items are as late as the stream can be; a
    /// consumer that waits between two items is stopped at its next poll. No timer is made for a source that is
    /// never pending and ends within 64 items.
    ///
    /// # Fairness
    ///
    /// As [`take_until_cancelled`](Self::take_until_cancelled). The deadline holds even for a source that is always
    /// ready, on a runtime of one thread, where no timer gets to run.
    ///
    /// # Cancel safety
    ///
    /// As [`take_until_cancelled`](Self::take_until_cancelled).
    ///
    /// # Panics
    ///
    /// The first poll panics outside of a tokio runtime, or in one that was built without `enable_time`, unless the
    /// deadline is over by then or never comes.
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
    fn with_deadline(self, at: impl Into<Instant>) -> WithDeadline<Self>
    where
        Self: Sized,
    {
        WithDeadline::new(self, Deadline::at(at.into()))
    }

    /// As [`with_deadline`](Self::with_deadline), `timeout` from this call. For the whole stream, not for each item.
    ///
    /// A timeout that no clock can count to, such as [`Duration::MAX`], is never over.
    ///
    /// # Panics
    ///
    /// As [`with_deadline`](Self::with_deadline).
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
        WithDeadline::new(self, Deadline::after(timeout))
    }
}

impl<S: Stream + ?Sized> CancelStreamExt for S {}
