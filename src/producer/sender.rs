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

/// Sends items from the body of a [`spawn_generator`](crate::spawn_generator()). In a
/// [`try_spawn_generator`](crate::try_spawn_generator), `send(x)` sends `Ok(x)`: there the stream's items `R` are results.
///
/// Clones send to the same stream, from any task or thread. The stream ends when the body has returned, even if there
/// are clones left.
pub struct Sender<T, R = T> {
    channel: Arc<Channel<R>>,
    wrap: fn(T) -> R,
}

impl<T, R> Sender<T, R> {
    pub(super) fn new(channel: Arc<Channel<R>>, wrap: fn(T) -> R) -> Self {
        Self { channel, wrap }
    }

    /// Sends an item. Waits while the body is `capacity` items ahead of the consumer.
    ///
    /// Waiting sends are served in the order of their first polls. After 1024 sends that did not wait, the task yields
    /// once, so that other tasks can run.
    ///
    /// # Errors
    ///
    /// If the item cannot be delivered: the reason of the signal, or [`ConsumerDropped`](StopReason::ConsumerDropped). A
    /// waiting send fails at once. After the end of the body [`Cancelled`](StopReason::Cancelled), or the error that
    /// the body returned.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped before it is ready, the item is dropped with it.
    pub fn send(&self, item: T) -> Sending<'_, R> {
        Sending(Outgoing::new(&self.channel, (self.wrap)(item)))
    }

    /// Returns an error if [`send`](Self::send) would fail.
    ///
    /// # Errors
    ///
    /// Like [`send`](Self::send).
    pub fn check(&self) -> Result<(), StopReason> {
        self.channel.check()
    }

    /// Waits until sends fail, and returns the reason. Like `closed` of tokio's `mpsc::Sender`.
    pub async fn closed(&self) -> StopReason {
        let token = self.token();
        token.cancelled().await;
        token.stop_reason().unwrap_or(StopReason::Cancelled)
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
