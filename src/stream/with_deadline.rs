use super::valve::{Halt, Valve};
use crate::{StopReason, clock::Deadline};
use futures_core::{FusedStream, Stream};
use pin_project::pin_project;
use std::{
    fmt::{self, Debug, Formatter},
    pin::Pin,
    task::{Context, Poll},
};

/// The stream of [`CancelStreamExt::with_deadline`](crate::CancelStreamExt::with_deadline) and
/// [`with_timeout`](crate::CancelStreamExt::with_timeout).
#[pin_project]
#[must_use = "streams do nothing unless polled"]
pub struct WithDeadline<S> {
    #[pin]
    valve: Valve<S, Deadline>,
}

impl<S> WithDeadline<S> {
    pub(crate) fn new(source: S, deadline: Deadline) -> Self {
        Self {
            valve: Valve::new(source, deadline),
        }
    }

    /// Why it was stopped: `Some` from the poll that yielded the error, `None` while it runs and after an end of its
    /// own.
    pub fn stop_reason(&self) -> Option<&StopReason> {
        self.valve.stop_reason()
    }
}

impl<S: Stream> Stream for WithDeadline<S> {
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
        let upper = match self.valve.is_over() {
            true => Some(0),
            // All of the items, and the deadline before the end was seen.
            false => self
                .valve
                .upper_bound()
                .and_then(|items| items.checked_add(1)),
        };
        (0, upper)
    }
}

impl<S: Stream> FusedStream for WithDeadline<S> {
    fn is_terminated(&self) -> bool {
        self.valve.is_over()
    }
}

impl<S> Debug for WithDeadline<S> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.valve.debug("WithDeadline", f)
    }
}
