use crate::{
    CancellationToken, StopReason,
    channel::{Channel, Outgoing},
};
use std::{
    fmt::{self, Debug, Formatter},
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
};

/// Sends items from the body of a [`spawn_generator`](crate::spawn_generator()). Where that is a
/// [`try_spawn_generator`](crate::try_spawn_generator), the stream's items `R` are results, of which it sends the `Ok`.
///
/// Clones send to the same stream, from any task or thread. The stream ends when its body does, whoever has a clone.
pub struct Sender<T, R = T> {
    channel: Arc<Channel<R>>,
    wrap: fn(T) -> R,
}

impl<T, R> Sender<T, R> {
    pub(super) fn new(channel: Arc<Channel<R>>, wrap: fn(T) -> R) -> Self {
        Self { channel, wrap }
    }

    /// Sends an item. Waits for room while the body is `capacity` items ahead of the consumer.
    ///
    /// Those that wait come in in the order of their first polls. After 1024 items without a wait the task yields once,
    /// so that its siblings get their turn.
    ///
    /// # Errors
    ///
    /// Why nobody wants the item: the signal has fired, or the consumer is gone. At once, even while it waits. After
    /// the end of the body [`Cancelled`](StopReason::Cancelled), or what the body ended with.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, the future takes the item with it.
    pub fn send(&self, item: T) -> Sending<'_, R> {
        Sending(Outgoing::new(&self.channel, (self.wrap)(item)))
    }

    /// Whether anybody still wants items.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn check(&self) -> Result<(), StopReason> {
        self.channel.stop_reason().map_or(Ok(()), Err)
    }

    /// Waits until nobody wants items any more, and says why.
    pub async fn closed(&self) -> StopReason {
        let token = self.token();
        token.cancelled().await;
        token.stop_reason().unwrap_or(StopReason::Cancelled)
    }

    /// The token for what the body starts, so that it ends with the stream. The same one at each call.
    ///
    /// It is a child of the signal's token, where that is one, made at the first call. It is cancelled with the stream:
    /// when the signal fires, for its reason; when the consumer goes, with
    /// [`ConsumerDropped`](StopReason::ConsumerDropped); and when the body has ended, with
    /// [`Cancelled`](StopReason::Cancelled) or with what it ended with. Cancelling it stops nothing but its own.
    pub fn token(&self) -> CancellationToken {
        self.channel.token()
    }
}

impl<T, R> Clone for Sender<T, R> {
    fn clone(&self) -> Self {
        Self {
            channel: Arc::clone(&self.channel),
            wrap: self.wrap,
        }
    }
}

impl<T, R> Debug for Sender<T, R> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.channel.debug("Sender", f)
    }
}

/// The future of [`Sender::send`].
#[must_use = "an item is sent when the future is awaited"]
pub struct Sending<'a, T>(Outgoing<'a, T>);

impl<T> Unpin for Sending<'_, T> {}

impl<T> Future for Sending<'_, T> {
    type Output = Result<(), StopReason>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(cx)
    }
}

impl<T> Debug for Sending<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending").finish_non_exhaustive()
    }
}

/// Sends items from the body of a [`blocking_generator`](crate::blocking_generator()). Where that is a
/// [`try_blocking_generator`](crate::try_blocking_generator), the stream's items `R` are results, of which it sends the
/// `Ok`.
///
/// Clones send to the same stream, from any thread. The stream ends when its body does, whoever has a clone.
pub struct BlockingSender<T, R = T>(Sender<T, R>);

impl<T, R> BlockingSender<T, R> {
    pub(super) fn new(channel: Arc<Channel<R>>, wrap: fn(T) -> R) -> Self {
        Self(Sender::new(channel, wrap))
    }

    /// Sends an item. Blocks the thread while the body is `capacity` items ahead of the consumer.
    ///
    /// # Errors
    ///
    /// Why nobody wants the item: the signal has fired, or the consumer is gone. At once, even while it blocks. After
    /// the end of the body [`Cancelled`](StopReason::Cancelled), or what the body ended with.
    pub fn send(&self, item: T) -> Result<(), StopReason> {
        block_on(self.0.send(item))
    }

    /// Whether anybody still wants items: for a loop that does not send at each turn.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn check(&self) -> Result<(), StopReason> {
        self.0.check()
    }

    /// As [`Sender::token`].
    pub fn token(&self) -> CancellationToken {
        self.0.token()
    }
}

impl<T, R> Clone for BlockingSender<T, R> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T, R> Debug for BlockingSender<T, R> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.channel.debug("BlockingSender", f)
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
    static UNPARK: Waker = Waker::from(Arc::new(Unpark(thread::current())));
}

fn block_on<Fut: Future>(future: Fut) -> Fut::Output {
    let mut future = pin!(future);
    let waker = UNPARK.with(Waker::clone);
    let mut cx = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(answer) => return answer,
            Poll::Pending => thread::park(),
        }
    }
}
