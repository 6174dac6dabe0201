use super::{
    refinements::refinements,
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

/// The stream of [`CancelStreamExt::with_cancellation`](crate::CancelStreamExt::with_cancellation), and with other
/// signals of `with_deadline`, `with_timeout` and `with_idle_timeout`.
#[pin_project]
#[must_use = "streams do nothing unless polled"]
pub struct WithCancellation<S, G = TokenSignal> {
    #[pin]
    valve: Valve<S, G>,
}

impl<S, G> WithCancellation<S, G> {
    pub(crate) fn new(source: S, signal: G) -> Self {
        Self {
            valve: Valve::new(source, signal),
        }
    }

    /// Why it was stopped: `Some` from the poll that yielded the error, `None` while it runs and after an end of its
    /// own.
    pub fn stop_reason(&self) -> Option<&StopReason> {
        self.valve.stop_reason()
    }
}

refinements!(WithCancellation, trait: "CancelStreamExt", call: "with_cancellation", stop: "(X|)");

impl<S: Stream, G: Signal> Stream for WithCancellation<S, G> {
    type Item = Result<S::Item, StopReason>;

    #[inline]
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut valve = self.project().valve;
        match valve.as_mut().poll_next(cx) {
            Ok(item) => Poll::Ready(Some(Ok(item))),
            Err(Halt::Pending) => Poll::Pending,
            Err(Halt::Stopped) => Poll::Ready(valve.stop_reason().cloned().map(Err)),
            Err(Halt::Ended) => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, self.valve.upper_bound_with_error())
    }
}

impl<S: Stream, G: Signal> FusedStream for WithCancellation<S, G> {
    fn is_terminated(&self) -> bool {
        self.valve.is_over()
    }
}

impl<S, G> Debug for WithCancellation<S, G> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.valve.debug("WithCancellation", f)
    }
}
