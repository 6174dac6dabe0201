use super::{
    accessors::accessors,
    valve::{Halt, Valve},
};
use crate::{
    CancellationToken, Signal, StopReason,
    signal::{Never, OnEnd},
};
use futures_core::{FusedStream, Stream};
use pin_project::pin_project;
use std::{
    fmt::{self, Debug, Formatter},
    pin::Pin,
    task::{Context, Poll},
};

/// What [`cancel_on_drop`](crate::CancelStreamExt::cancel_on_drop) cancels: a token, or the task behind a tokio
/// `AbortHandle`.
///
/// Implement it for other things that have to end with a consumer.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be cancelled by `cancel_on_drop`",
    label = "not a target",
    note = "pass a `CancellationToken`, or the `abort_handle()` of a tokio task",
    note = "for tokio-util's `CancellationToken`, enable stopcock's feature `tokio-util`"
)]
pub trait CancelTarget {
    /// Cancels the target. `reason` is [`ConsumerDropped`](StopReason::ConsumerDropped); a target without reasons
    /// ignores it.
    fn cancel_for(self, reason: StopReason);
}

impl CancelTarget for CancellationToken {
    fn cancel_for(self, reason: StopReason) {
        self.cancel_with(reason);
    }
}

/// Aborts the task, as [`AbortHandle::abort`](tokio::task::AbortHandle::abort) does.
///
/// # Examples
///
/// A task that feeds a channel:
///
/// ```
/// use futures::StreamExt;
/// use stopcock::CancelStreamExt;
/// use tokio::sync::mpsc;
/// use tokio_stream::wrappers::ReceiverStream;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let (sender, receiver) = mpsc::channel(1);
/// let task = tokio::spawn(async move {
///     sender.send("row").await.unwrap();
///     std::future::pending::<()>().await
/// });
///
/// let mut rows = ReceiverStream::new(receiver).cancel_on_drop(task.abort_handle());
/// assert_eq!(rows.next().await, Some("row"));
/// drop(rows);
/// assert!(task.await.unwrap_err().is_cancelled());
/// # }
/// ```
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
impl CancelTarget for tokio::task::AbortHandle {
    fn cancel_for(self, _: StopReason) {
        self.abort();
    }
}

#[cfg(feature = "tokio-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio-util")))]
impl CancelTarget for tokio_util::sync::CancellationToken {
    fn cancel_for(self, _: StopReason) {
        self.cancel();
    }
}

/// The stream of [`CancelStreamExt::cancel_on_drop`](crate::CancelStreamExt::cancel_on_drop).
#[pin_project]
#[must_use = "streams do nothing unless polled, and this one cancels when it is dropped"]
pub struct CancelOnDrop<S, C: CancelTarget = CancellationToken, G = Never> {
    /// The source is dropped before the target is cancelled.
    #[pin]
    valve: Valve<S, G>,
    unfinished: Unfinished<C>,
}

/// Cancels the target when dropped, unless the stream has ended.
struct Unfinished<C: CancelTarget>(Option<C>);

impl<C: CancelTarget> Drop for Unfinished<C> {
    fn drop(&mut self) {
        if let Some(target) = self.0.take() {
            target.cancel_for(StopReason::ConsumerDropped);
        }
    }
}

impl<S, C: CancelTarget> CancelOnDrop<S, C> {
    pub(crate) fn new(source: S, target: C) -> Self {
        Self {
            valve: Valve::new(source, crate::signal::never()),
            unfinished: Unfinished(Some(target)),
        }
    }

    /// Calls `f` once, when the stream has ended, like
    /// [`TakeUntilCancelled::on_end`](crate::TakeUntilCancelled::on_end): before the target is cancelled.
    pub fn on_end<F>(self, f: F) -> CancelOnDrop<S, C, OnEnd<Never, F>>
    where
        F: FnOnce(Result<(), &StopReason>),
    {
        CancelOnDrop {
            valve: self.valve.map_signal(|signal| OnEnd::new(signal, f)),
            unfinished: self.unfinished,
        }
    }
}

impl<S, C: CancelTarget, G> CancelOnDrop<S, C, G> {
    /// Returns the source, without cancelling the target. `None` once the stream has ended, as the source is dropped
    /// then.
    pub fn into_inner(self) -> Option<S>
    where
        G: Signal,
    {
        let Self {
            valve,
            mut unfinished,
        } = self;
        unfinished.0 = None;
        valve.into_source()
    }

    /// Always `None`, as no signal stops this stream. Every adapter has this method.
    pub fn stop_reason(&self) -> Option<&StopReason> {
        self.valve.stop_reason()
    }
}

accessors!(CancelOnDrop<S, C: CancelTarget, G>);

impl<S: Stream, C: CancelTarget, G: Signal> Stream for CancelOnDrop<S, C, G> {
    type Item = S::Item;

    #[inline]
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        let this = self.project();
        match this.valve.poll_next(cx) {
            Ok(item) => Poll::Ready(Some(item)),
            Err(Halt::Pending) => Poll::Pending,
            Err(Halt::Stopped | Halt::Ended) => {
                this.unfinished.0 = None;
                Poll::Ready(None)
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, self.valve.upper_bound())
    }
}

impl<S: Stream, C: CancelTarget, G: Signal> FusedStream for CancelOnDrop<S, C, G> {
    fn is_terminated(&self) -> bool {
        self.valve.is_over()
    }
}

impl<S, C: CancelTarget, G> Debug for CancelOnDrop<S, C, G> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.valve.debug("CancelOnDrop", f)
    }
}
