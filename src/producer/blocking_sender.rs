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

/// Sends items from the body of a [`blocking_generator`](crate::blocking_generator()). Where that is a
/// [`try_blocking_generator`](crate::try_blocking_generator), the stream's items `R` are results, of which it sends the
/// `Ok`.
///
/// Clones send to the same stream, from any thread. The stream ends when its body does, even if there are still clones.
pub struct BlockingSender<T, R = T> {
    channel: Arc<Channel<R>>,
    wrap: fn(T) -> R,
}

impl<T, R> BlockingSender<T, R> {
    pub(super) fn new(channel: Arc<Channel<R>>, wrap: fn(T) -> R) -> Self {
        Self { channel, wrap }
    }

    /// Sends an item, and blocks the thread for as long as as many are ahead of the consumer as may be.
    ///
    /// # Errors
    ///
    /// Why the item is not taken: the signal has fired, or the consumer has been dropped. At once, even while it
    /// blocks. After the end of the body [`Cancelled`](StopReason::Cancelled), or what the body ended with.
    pub fn send(&self, item: T) -> Result<(), StopReason> {
        let mut outgoing = Outgoing::new(&self.channel, (self.wrap)(item));
        let waker = waker_of_this_thread();
        let mut cx = Context::from_waker(&waker);
        // A deadline's timer wakes the thread itself: the task that is to close the channel may not have its turn.
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

    /// Whether items are still taken: for a loop that does not send in each iteration.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn check(&self) -> Result<(), StopReason> {
        self.channel.check()
    }

    /// The token of the body, for what it starts: made at the first call, and the same at each. A child of the signal,
    /// if that is a token.
    ///
    /// It is cancelled with the signal, for its reason; when the consumer is dropped, with
    /// [`ConsumerDropped`](StopReason::ConsumerDropped); and when the body has ended, with
    /// [`Cancelled`](StopReason::Cancelled) or with what it ended with. Cancelling it does not stop the stream.
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
    // A `Drop` of another local may send when this one has been dropped already.
    UNPARK
        .try_with(Waker::clone)
        .unwrap_or_else(|_| unpark_this_thread())
}
