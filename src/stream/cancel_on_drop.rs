use super::valve::{Halt, Valve};
use crate::{CancellationToken, StopReason, signal::Never};
use futures_core::{FusedStream, Stream};
use pin_project::pin_project;
use std::{
    fmt::{self, Debug, Formatter},
    pin::Pin,
    task::{Context, Poll},
};

/// The stream of [`CancelStreamExt::cancel_on_drop`](crate::CancelStreamExt::cancel_on_drop).
#[pin_project]
#[must_use = "streams do nothing unless polled, and this one cancels when it is dropped"]
pub struct CancelOnDrop<S> {
    /// In this order they are dropped.
    #[pin]
    valve: Valve<S, Never>,
    unfinished: Unfinished,
}

/// Cancels when dropped, unless it was finished.
struct Unfinished(Option<CancellationToken>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(token) = &self.0 {
            token.cancel_with(StopReason::ConsumerDropped);
        }
    }
}

impl<S> CancelOnDrop<S> {
    pub(crate) fn new(source: S, token: CancellationToken) -> Self {
        Self {
            valve: Valve::new(source, crate::signal::never()),
            unfinished: Unfinished(Some(token)),
        }
    }

    /// `None`: there is nothing that stops it. It is there as for every adapter.
    pub fn stop_reason(&self) -> Option<&StopReason> {
        self.valve.stop_reason()
    }
}

impl<S: Stream> Stream for CancelOnDrop<S> {
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

impl<S: Stream> FusedStream for CancelOnDrop<S> {
    fn is_terminated(&self) -> bool {
        self.valve.is_over()
    }
}

impl<S> Debug for CancelOnDrop<S> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.valve.debug("CancelOnDrop", f)
    }
}
