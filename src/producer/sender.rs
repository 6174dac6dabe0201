use crate::{
    CancellationToken, StopReason,
    channel::{Channel, Outgoing},
};
use std::{
    fmt::{self, Debug, Formatter},
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

/// Sends items from the body of a [`spawn_generator`](crate::spawn_generator()). Where that is a
/// [`try_spawn_generator`](crate::try_spawn_generator), the stream's items `R` are results, of which it sends the `Ok`.
///
/// Clones send to the same stream, from any task or thread. The stream ends when its body does, even if there are still
/// clones.
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
    /// Sends that wait are served in the order of their first polls. After 1024 items without a wait the task yields
    /// once, so that its siblings get their turn.
    ///
    /// # Errors
    ///
    /// Why the item is not taken: the signal has fired, or the consumer has been dropped. At once, even while it waits.
    /// After the end of the body [`Cancelled`](StopReason::Cancelled), or what the body ended with.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, the future takes the item with it.
    pub fn send(&self, item: T) -> Sending<'_, R> {
        Sending(Outgoing::new(&self.channel, (self.wrap)(item)))
    }

    /// Whether items are still taken.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    pub fn check(&self) -> Result<(), StopReason> {
        self.channel.check()
    }

    /// Waits until items are not taken any more, and returns the reason. Like `closed` of tokio's `mpsc::Sender`.
    pub async fn closed(&self) -> StopReason {
        let token = self.token();
        token.cancelled().await;
        token.stop_reason().unwrap_or(StopReason::Cancelled)
    }

    /// The token for what the body starts, so that it ends with the stream. The same one at each call.
    ///
    /// It is a child of the signal's token, where that is one, made at the first call. It is cancelled with the stream:
    /// when the signal fires, for its reason; when the consumer is dropped, with
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
