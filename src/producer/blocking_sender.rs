use crate::{
    CancellationToken, StopReason,
    channel::{Channel, Outgoing},
};
use std::{
    fmt::{self, Debug, Formatter},
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

/// Sends items from the body of a [`blocking_generator`](crate::blocking_generator()). In a
/// [`try_blocking_generator`](crate::try_blocking_generator), `send(x)` sends `Ok(x)`: there the stream's items `R` are
/// results.
///
/// Clones send to the same stream, from any thread. The stream ends when the body has returned, even if there are clones
/// left.
pub struct BlockingSender<T, R = T> {
    channel: Arc<Channel<R>>,
    wrap: fn(T) -> R,
}

impl<T, R> BlockingSender<T, R> {
    pub(super) fn new(channel: Arc<Channel<R>>, wrap: fn(T) -> R) -> Self {
        Self { channel, wrap }
    }

    /// Sends an item. Blocks the thread while the body is `capacity` items ahead of the consumer.
    ///
    /// # Errors
    ///
    /// If the item cannot be delivered: the reason of the signal, or [`ConsumerDropped`](StopReason::ConsumerDropped). A
    /// blocked send fails at once. After the end of the body [`Cancelled`](StopReason::Cancelled), or the error that
    /// the body returned.
    pub fn send(&self, item: T) -> Result<(), StopReason> {
        let mut outgoing = Outgoing::new(&self.channel, (self.wrap)(item));
        let waker = waker_of_this_thread();
        let mut cx = Context::from_waker(&waker);
        // A token's timer wakes this thread directly: the task that closes the channel may not run for a while.
        let mut stopped = pin!(self.channel.stop().cancelled());
        loop {
            if let Poll::Ready(sent) = outgoing.poll(&cx) {
                return sent;
            }
            if stopped.as_mut().poll(&mut cx).is_pending() {
                thread::park();
            }
        }
    }

    /// Returns an error if [`send`](Self::send) would fail: for a loop that does not send in each iteration.
    ///
    /// # Errors
    ///
    /// Like [`send`](Self::send).
    pub fn check(&self) -> Result<(), StopReason> {
        self.channel.check()
    }

    /// A token for work that the body starts, so that it ends with the stream. Each call returns the same one.
    ///
    /// If the signal is a token, it is a child of that token. It is cancelled when the signal fires, with its reason;
    /// when the consumer is dropped, with [`ConsumerDropped`](StopReason::ConsumerDropped); and when the body has
    /// ended, with [`Cancelled`](StopReason::Cancelled) or the error that the body returned. Cancelling it does not stop
    /// the stream.
    pub fn token(&self) -> CancellationToken {
        self.channel.token()
    }
}

impl<T, R> Clone for BlockingSender<T, R> {
    fn clone(&self) -> Self {
        Self {
            channel: Arc::clone(&self.channel),
            wrap: self.wrap,
        }
    }
}

impl<T, R> Debug for BlockingSender<T, R> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.channel.debug("BlockingSender", f)
    }
}

/// Wakes a thread that is parked.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.unpark();
    }
}

thread_local! {
    static UNPARK: Waker = unpark_this_thread();
}

fn unpark_this_thread() -> Waker {
    Waker::from(Arc::new(Unpark(thread::current())))
}

fn waker_of_this_thread() -> Waker {
    // The `Drop` of another thread-local may send after this one has been dropped.
    UNPARK
        .try_with(Waker::clone)
        .unwrap_or_else(|_| unpark_this_thread())
}
